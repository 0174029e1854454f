"""APScheduler wakes a runner when something is due; what it sleeps through is one run."""

from datetime import datetime
from typing import Any

import pandas as pd
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.base import BaseTrigger

from pipeline.due import Times
from pipeline.scheduled import Runner


class Due(BaseTrigger):  # type: ignore[misc]
    """A trigger at the given times.

    Parameters
    ----------
    times : Times
    """

    def __init__(self, times: Times) -> None:
        self.times = times

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        """The first time after the one before; the first from `now` on where there was none."""
        return self.times.next(pd.Timestamp(previous or now)).to_pydatetime()

    def __str__(self) -> str:
        return f"due by {self.times}"


def wake(scheduler: BaseScheduler, runner: Runner, **settings: Any) -> None:
    """Have `runner` catch up now, and whenever its plan is due.

    Parameters
    ----------
    scheduler : apscheduler scheduler, not yet started
    runner : Runner
    **settings
        Of `add_job`, in place of these.
    """
    scheduler.add_executor(ThreadPoolExecutor(1))
    words: dict[str, Any] = {
        "trigger": Due(runner.plan.times),
        "next_run_time": runner.clock().to_pydatetime(),
        "coalesce": True,
        "misfire_grace_time": None,  # a machine that slept runs once when it wakes
        "max_instances": 1,
        "id": "run",
    }
    scheduler.add_job(runner.catch_up, **{**words, **settings})

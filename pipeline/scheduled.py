"""Commands that run one after the other when they are due, and the record of how they went."""

import contextlib
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.alerts import Alert, Alerts
from pipeline.due import Times
from pipeline.jsonlog import VARIABLE
from pipeline.run_faults import KINDS, drift_of, found_wrong
from pipeline.run_records import read_state, write_state
from stages.base import SieveError

log = logging.getLogger(__name__)

KEPT = 500  # runs in the state
TAIL = 2000  # letters of what a failed command said
PATIENCE = 10.0  # seconds that a command has to end when it is told to


@dataclass(frozen=True)
class Step:
    """One command of a run.

    Attributes
    ----------
    name : str
        As in ``python -m pipeline.NAME``.
    words : sequence of str
        Its settings.
    """

    name: str
    words: Sequence[str] = ()

    def command(self) -> list[str]:
        """What is started."""
        return [sys.executable, "-m", f"pipeline.{self.name}", *self.words]


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes
    ----------
    name : str
    seconds : float
    code : int
        Exit code; below 0 where a signal ended it.
    error : str
        What it said when it failed.
    out : str
        What it printed.
    """

    name: str
    seconds: float
    code: int
    error: str = ""
    out: str = ""


@dataclass(frozen=True)
class Plan:
    """What is done, when, and for how long at most.

    Attributes
    ----------
    root : Path
    steps : sequence of Step
        A step runs when those before it were well.
    times : Times
    limit : float
        Seconds for one step.
    wait : Timedelta or None
        From the time at which the newest bar is known to the time that is due; None where nothing
        says when bars are known.
    accounts : callable
        Given nothing, the accounts of runs that the store has got since it was asked last.
    """

    root: Path
    steps: Sequence[Step]
    times: Times
    limit: float
    wait: pd.Timedelta | None
    accounts: Callable[[], list[Mapping[str, Any]]]


@dataclass
class Runner:
    """Runs a plan, one run at a time, and tells when it does not go well.

    Parameters
    ----------
    plan : Plan
    alerts : Alerts
    clock : callable
        Gives the time, UTC.

    Attributes
    ----------
    state : dict
        ``runs`` (the newest last), ``good`` (the last good one), ``failed`` (runs in a row) and
        ``alerts``: as they stand in the file of the root.
    """

    plan: Plan
    alerts: Alerts
    clock: Callable[[], pd.Timestamp]
    state: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.state = read_state(self.plan.root)
        self.alerts.standing_ = dict(self.state["alerts"])
        good = self.state["good"]
        self._reached = pd.Timestamp(good["due"]) if good else None
        self._child: subprocess.Popen[str] | None = None
        self._ended = threading.Event()

    def catch_up(self) -> int:
        """Run once for all that was missed, and again while more came due; how many runs.

        A run that failed is made again at the next time, not before.
        """
        count = 0
        while not self._ended.is_set():
            due = self.plan.times.last(self.clock())
            if self._reached is not None and due <= self._reached:
                break
            self._reached = due
            try:
                self.run(due)
            except SieveError as error:  # no store, no disk: the next run may find them again
                log.exception("the run of %s could not be made", due)
                self.alerts.tell([Alert("failed", "schedule", str(error))], (), self.clock())
            count += 1
        return count

    def run(self, due: pd.Timestamp) -> bool:
        """Run every step, note how it went, tell what is wrong; whether all were well."""
        began, id = self.clock(), secrets.token_hex(8)
        self.plan.accounts()  # what others stored in the meantime is not of this run
        ended: list[Ended] = []
        for step in self.plan.steps:
            ended.append(self._do(step, id))
            if ended[-1].code:
                break
        if self._ended.is_set():  # it was not left to end: made again after the next start
            return False
        good = not any(one.code for one in ended)
        run = {
            "id": id,
            "due": due.isoformat(),
            "began": began.isoformat(),
            "ended": self.clock().isoformat(),
            "expected": None if self.plan.wait is None else (due - self.plan.wait).isoformat(),
            "good": good,
            "steps": [_told(one) for one in ended],
            "account": next(iter(self.plan.accounts()[-1:]), None),
        }
        self._note(run)
        log.log(logging.INFO if good else logging.ERROR, "run %s", "done" if good else "failed")
        monitored = next((one.out for one in ended if one.name == "monitor" and not one.code), "")
        found = found_wrong(run, self.state["runs"][:-1], self.alerts, drift_of(monitored))
        looked = KINDS if good else ()  # of steps that did not run nothing is known
        self.alerts.tell(found, looked, self.clock())
        self.state["alerts"] = self.alerts.standing_
        write_state(self.plan.root, self.state)
        return good

    def stop(self) -> None:
        """End the command under way, and begin no other."""
        self._ended.set()
        child = self._child
        if child is not None:
            _end(child)

    def _do(self, step: Step, id: str) -> Ended:
        """Run one command in a process group of its own, so that it can be ended whole."""
        if self._ended.is_set():
            return Ended(step.name, 0.0, -signal.SIGTERM, "ended before it began")
        began = time.perf_counter()
        self._child = subprocess.Popen(
            step.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, VARIABLE: id},
            start_new_session=True,
        )
        error = ""
        try:
            out, said = self._child.communicate(timeout=self.plan.limit)
        except subprocess.TimeoutExpired:
            _end(self._child)
            out, said = self._child.communicate()
            error = f"it was ended after {self.plan.limit:g} s"
        code = self._child.returncode
        self._child = None
        if error or code:
            code, error = code or 1, error or _last_error(said) or f"it ended with {code}"
            log.error("%s failed with %s: %s", step.name, code, error)
        return Ended(step.name, time.perf_counter() - began, code, error, out)

    def _note(self, run: dict[str, Any]) -> None:
        self.state["runs"] = [*self.state["runs"], run][-KEPT:]
        if run["good"]:
            self.state |= {"good": run, "failed": 0}
        else:
            self.state["failed"] += 1


def _last_error(said: str) -> str:
    """The error that a command ended with: what stands from its code on, or the last words."""
    codes = list(re.finditer(r"^.*SV-[A-Z]\d+", said, re.MULTILINE))
    return (said[codes[-1].start() :] if codes else said[-TAIL:]).strip()[:TAIL]


def _told(one: Ended) -> dict[str, Any]:
    values = asdict(one)
    values.pop("out")
    return values | {"seconds": round(one.seconds, 3)}


def _end(child: "subprocess.Popen[str]") -> None:
    """End a process group, first politely."""
    for word in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, word)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE)
            return

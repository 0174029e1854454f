"""Scheduled runs under a clock of their own: missed, failing, slow and ended ones."""

import json
import os
import sys
from dataclasses import dataclass, field

import pandas as pd
import pytest

from pipeline.alerts import Alerts
from pipeline.due import Closes, Every
from pipeline.run_records import read_state, standing
from pipeline.scheduled import Plan, Runner, Step
from stages.base import StoreError

WAKING = "apscheduler is in the extra [schedule]"


def utc(text):
    return pd.Timestamp(text, tz="UTC")


class Script(Step):
    """A command that takes no time to start: a line of Python."""

    def command(self):
        return [sys.executable, "-c", *self.words]


@dataclass
class Kept:
    """A sender that keeps what it is given."""

    told: list = field(default_factory=list)

    def send(self, record):
        self.told.append((record["kind"], record["about"], record["resolved"]))

    def close(self):
        pass


@dataclass
class Clock:
    now: pd.Timestamp

    def __call__(self):
        return self.now


def account(**values):
    known = {"newest": "2024-07-05T20:00:00+00:00", "quality": 80.0, "valid": 1.0}
    return {**known, "abstained": 0.0, "signals": 3, **values}


def runner(root, *steps, times=None, now="2024-07-05 20:15", accounts=list, limit=60.0):
    plan = Plan(
        root,
        [Script(name, [text]) for name, text in steps] or [Script("predict", ["pass"])],
        times or Closes(["XNYS"], "15min"),
        limit,
        pd.Timedelta("15min"),
        accounts,
    )
    kept = Kept()
    found = Runner(plan, Alerts([kept]), Clock(utc(now)))
    return found, kept.told


def test_what_was_missed_is_made_up_for_once(tmp_path):
    """A week without power is one run, and a restart adds none."""
    first, _ = runner(tmp_path, now="2024-07-01 20:20")
    assert first.catch_up() == 1
    later, _ = runner(tmp_path, now="2024-07-09 12:00")
    assert later.catch_up() == 1
    assert later.state["runs"][-1]["due"] == "2024-07-08T20:15:00+00:00"
    assert later.catch_up() == 0
    again, _ = runner(tmp_path, now="2024-07-09 13:00")
    assert again.catch_up() == 0
    assert len(read_state(tmp_path)["runs"]) == 2


def test_a_close_that_comes_during_a_run_is_run_after_it(tmp_path):
    both = Closes(["XNYS", "XLON"], "0min")
    found, _ = runner(tmp_path, times=both, now="2024-07-01 15:30")
    run = found.run

    def slow(due):
        found.clock.now = max(found.clock.now, utc("2024-07-01 20:05"))
        return run(due)

    found.run = slow
    assert found.catch_up() == 2
    assert [r["due"][11:16] for r in found.state["runs"]] == ["15:30", "20:00"]


def test_a_failing_run_is_told_once_and_made_again_at_the_next_time(tmp_path):
    broken = tmp_path / "broken"
    broken.touch()
    text = (
        f"import pathlib, sys\nif pathlib.Path({str(broken)!r}).exists():\n"
        "    sys.exit('loading the data\\nSV-F20  the file is not there\\ncure    bring it')"
    )
    steps = (("predict", text), ("outcomes", "pass"))
    found, told = runner(tmp_path, *steps, times=Every("60s"), now="2024-07-05 20:15")
    assert (found.catch_up(), found.catch_up()) == (1, 0)  # not again before its time
    [run] = found.state["runs"]
    assert not run["good"]
    assert [step["name"] for step in run["steps"]] == ["predict"]  # the rest was left out
    assert run["steps"][0]["error"].startswith("SV-F20  the file is not there")
    found.clock.now = utc("2024-07-05 20:16")
    found.catch_up()
    assert (found.state["failed"], found.state["good"]) == (2, None)
    assert told == [("failed", "predict", False)]
    broken.unlink()
    found.clock.now = utc("2024-07-05 20:17")
    found.catch_up()
    assert told[1:] == [("failed", "predict", True)]
    said = standing(read_state(tmp_path), utc("2024-07-05 21:17"))
    assert said["last_good"]["age_seconds"] == 3600
    assert (said["runs"], said["failed"], said["failed_in_a_row"]) == (3, 2, 0)
    assert said["error_rate"] == pytest.approx(2 / 3)
    assert set(said["steps"]) == {"predict", "outcomes"}
    assert said["steps"]["outcomes"]["p50"] <= said["steps"]["outcomes"]["p99"]


def test_a_restart_tries_a_failed_run_at_once_and_does_not_tell_it_again(tmp_path):
    failing = ("predict", "raise SystemExit(3)")
    _, told = first = runner(tmp_path, failing)
    first[0].catch_up()
    assert told == [("failed", "predict", False)]
    second, told = runner(tmp_path, failing, now="2024-07-05 20:30")
    assert second.catch_up() == 1
    assert told == []


def test_a_step_that_hangs_is_ended(tmp_path):
    hang = "import signal; signal.pause()"
    found, told = runner(tmp_path, ("predict", hang), limit=0.2)
    found.catch_up()
    [step] = found.state["runs"][0]["steps"]
    assert "ended after 0.2 s" in step["error"]
    assert told == [("failed", "predict", False)]


def test_old_data_low_quality_and_drift_are_told(tmp_path):
    found, told = runner(
        tmp_path,
        ("predict", "pass"),
        ("monitor", 'print(\'{"drift": {"action": "retrain", "count": 2}}\')'),
        accounts=iter([[], [account(newest="2024-07-03T17:00:00+00:00", valid=0.2)]]).__next__,
    )
    found.catch_up()
    assert told == [
        ("drift", "champion", False),
        ("stale", "data", False),
        ("quality", "checks", False),
    ]


def test_a_monitor_that_cannot_be_understood_is_told(tmp_path):
    for said in ("[]", "{}", '{"drift": {}}', "no JSON"):
        found, told = runner(tmp_path / said[:2], ("monitor", f"print({said!r})"))
        found.catch_up()
        assert told == [("drift", "champion", False)]
    found, told = runner(tmp_path / "none", ("predict", "pass"))
    found.catch_up()
    assert told == []


def test_quality_that_falls_below_its_own_past_is_told(tmp_path):
    qualities = [85.0] * 6 + [60.0, 84.0]
    lists = [
        part
        for q in qualities
        for part in ([], [account(quality=q, newest="2024-07-09T20:00:00+00:00")])
    ]
    found, told = runner(tmp_path, times=Every("1h"), accounts=iter(lists).__next__)
    for hour in range(len(qualities)):
        found.clock.now = utc("2024-07-05 20:00") + pd.Timedelta(hours=hour)
        found.catch_up()
    assert told == [("quality", "signals", False), ("quality", "signals", True)]


def test_a_store_that_does_not_answer_is_told_and_the_next_run_is_made(tmp_path):
    answers = iter([StoreError("gone", code="SV-F40"), [], []])

    def accounts():
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    found, told = runner(tmp_path, times=Every("60s"), accounts=accounts)
    assert found.catch_up() == 1
    assert told == [("failed", "schedule", False)]
    found.clock.now += pd.Timedelta("60s")
    assert found.catch_up() == 1
    assert found.state["good"]
    assert told[1:] == [("failed", "schedule", True)]


def test_an_ended_schedule_begins_no_command_and_leaves_no_half_run(tmp_path):
    found, _ = runner(tmp_path)
    found.stop()
    assert found.catch_up() == 0
    assert not found.run(utc("2024-07-05 20:15"))
    assert read_state(tmp_path)["runs"] == []


def test_commands_learn_the_id_of_their_run(tmp_path):
    text = "import os, sys; sys.exit(os.environ['SIEVE_RUN'])"
    found, _ = runner(tmp_path, ("predict", text))
    found.catch_up()
    [run] = found.state["runs"]
    assert run["steps"][0]["error"] == run["id"]


def test_a_damaged_state_is_refused(tmp_path):
    path = tmp_path / "schedule" / "state.json"
    path.parent.mkdir()
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(StoreError) as refused:
            read_state(tmp_path)
        assert refused.value.code == "SV-X730"


def test_the_scheduler_runs_once_for_all_that_it_slept_through(tmp_path, monkeypatch):
    """APScheduler under an injected clock: a run a close, and one for a week asleep."""
    if not os.environ.get("CI"):
        pytest.importorskip("apscheduler", reason=WAKING)
    from datetime import UTC

    import apscheduler.schedulers.base as base
    from apscheduler.executors.debug import DebugExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    from pipeline.waking import wake

    found, _ = runner(tmp_path, now="2024-06-28 20:20")

    class Now(base.datetime):
        @classmethod
        def now(cls, tz=None):
            return found.clock.now.to_pydatetime().astimezone(tz)

    monkeypatch.setattr(base, "datetime", Now)
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.add_executor(DebugExecutor(), "here")
    wake(scheduler, found, executor="here")
    scheduler.start(paused=True)
    woken = []
    for now in ("06-28 20:20", "07-01 20:14", "07-01 20:15", "07-02 09:00", "07-12 09:00"):
        found.clock.now = utc(f"2024-{now}")
        scheduler.state = base.STATE_RUNNING
        scheduler._process_jobs()
        woken.append(len(found.state["runs"]))
    assert woken == [1, 1, 2, 2, 3]
    assert found.state["runs"][-1]["due"] == "2024-07-11T20:15:00+00:00"
    job = scheduler.get_job("run")
    assert job.next_run_time == utc("2024-07-12 20:15")
    scheduler.shutdown(wait=False)


def test_settings_of_the_schedule_stay_with_it():
    from pipeline.schedule import _is_own

    own = ("steps=[predict]", "alerts=webhook", "alerts.limits.valid=0.1", "words.monitor=['a=1']")
    assert all(map(_is_own, own))
    shared = ("data=parquet", "data.path=x", "+experiment=quickstart", "root=r", "storey=1")
    assert not any(map(_is_own, shared))


def test_the_state_is_json_that_anyone_can_read(tmp_path):
    found, _ = runner(tmp_path)
    found.catch_up()
    values = json.loads((tmp_path / "schedule" / "state.json").read_text())
    assert values["good"]["id"] == values["runs"][-1]["id"]

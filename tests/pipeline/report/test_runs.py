import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pipeline.ledger import Ledger, Trial, enter, place, read
from pipeline.report import terminal
from pipeline.report.runs import show_runs
from stages.base import DataError

TIMES = pd.date_range("2020-01-01 21:00", periods=200, tz="UTC", name="time")


@pytest.fixture
def printed(monkeypatch):
    """What goes to the terminal, 120 columns wide."""
    out = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=out, width=120))
    return lambda: out.getvalue()


def run_of(command, part="out-of-fold", trial=None, **figures):
    record = {"artifact": "a", "command": command, f"trials.{part}": trial}
    for name, value in figures.items():
        parts = zip(("value", "low", "high"), (value, value - 0.02, value + 0.02), strict=True)
        record |= {f"metrics.{part}.pipeline.{name}.{p}": v for p, v in parts}
    return record


def entered(root, recipe, seed, **changed):
    returns = pd.Series(np.random.default_rng(seed).normal(0.001, 0.01, 200), TIMES)
    given = {"data": "d", "name": "market", "part": "out-of-fold", "returns": returns}
    return enter(root, Trial("train", recipe, **given | changed))[1].digest


@pytest.fixture
def runs(tmp_path):
    one = entered(tmp_path, "one", 1)
    two = entered(tmp_path, "two", 2, part="test")
    rows = {
        "a/0": run_of(
            "python -m pipeline.train x=1 seed=1", trial=one, accuracy=0.4, base_rate=0.34, mcc=0.1
        ),
        "a/1": run_of(
            "python -m pipeline.train x=1 seed=2", "test", two, accuracy=0.5, base_rate=0.36
        ),
        "a/2": {"error": "SV-F18  too few bars"},
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")


def test_runs_stand_side_by_side_with_what_differs(printed, runs, tmp_path):
    show_runs(runs, read(tmp_path))
    said = printed()
    assert re.search(r"accuracy +mcc", said)
    ratio = r"[+-]\d+\.\d\d"
    assert re.search(
        rf"a/0 +seed=1 +out-of-fold +0\.340 +0\.400 +\+0\.100 +{ratio} +[01]\.\d\d", said
    )
    assert re.search(rf"a/1 +seed=2 +test +0\.360 +0\.500 +{ratio} +[01]\.\d\d", said)
    assert re.search(r"a/2 +SV-F18 +too few +failed", said)
    assert "±0.020" in said
    assert "x=1" not in said


def test_the_true_number_of_trials_stands_below_the_runs(printed, runs, tmp_path):
    entered(tmp_path, "three", 3)  # of a folder that was deleted since
    entered(tmp_path, "three", 3)
    show_runs(runs, read(tmp_path))
    said = " ".join(printed().split())
    assert "3 distinct trials in the ledger (4 with reruns)" in said
    assert re.search(r"PBO 0\.\d\d of 3 trials on 200 common bars\.", said)
    assert "arithmetic, before costs" in said
    assert "not in the ledger" not in said


def test_trials_cut_short_and_runs_without_a_trial_are_told(printed, runs, tmp_path):
    entered(tmp_path, "three", 3)
    content = place(tmp_path).read_bytes()
    place(tmp_path).write_bytes(content[:-50])
    show_runs(runs, read(tmp_path))
    said = " ".join(printed().split())
    assert "3 distinct trials" in said
    assert "1 line(s) of the ledger were cut short by a crash; each counts." in said
    show_runs(runs, Ledger())
    assert "2 evaluation(s) of these runs are not in the ledger" in " ".join(printed().split())


def test_runs_as_json_hold_no_nan(runs, tmp_path, capsys):
    show_runs(runs, read(tmp_path), as_json=True)
    said = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [run["run"] for run in said] == ["a/0", "a/1", "a/2"]
    assert said[0]["error"] is None
    assert said[0]["luck"]["out-of-fold"]["trials"] == 2
    assert said[2]["luck"] == {}


def test_failed_runs_alone_are_shown_too(printed, runs):
    show_runs(runs.loc[["a/2"], ["error"]], Ledger())
    assert "too few" in printed()


def test_no_runs_are_refused():
    with pytest.raises(DataError, match="no runs"):
        show_runs(pd.DataFrame(), Ledger())

"""Every look at held-back rows is counted, whoever looks and whatever is deleted afterwards."""

import json
import re
import shutil

import pytest

from pipeline.ledger import place, read
from tests.conftest import PLANTED, command

LEAN = [word for word in PLANTED if not word.startswith("refiner")] + ["refiner=none"]
HELD_BACK = ["split=dates", "split.train_end=2000-08-31", "split.test_end=2000-12-31"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two trainings side by side in processes of their own, and one that fails."""
    root = tmp_path_factory.mktemp("counted")
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "data.market.times=300,9"]
    return root, command("train", "-m", *LEAN, *words, f"root={root}", "bootstrap=5", "seed=1,2")


def test_concurrent_jobs_are_all_counted_and_failed_ones_looked_at_nothing(sweep):
    root, ended = sweep
    assert ended.code == 3
    ledger = read(root)
    assert (ledger.count, len(ledger.trials), ledger.torn) == (2, 2, 0)
    assert {trial.seed for trial in ledger.trials} == {1, 2}
    runs = [json.loads(path.read_text()) for path in root.rglob("run.json")]
    assert {run["trials"]["out-of-fold"] for run in runs} == {t.digest for t in ledger.trials}


def test_a_sweep_ends_with_its_table_and_each_failure_once(sweep):
    said = " ".join(sweep[1].out.split())
    assert "2 distinct trials in the ledger" in said
    assert re.search(r"PBO 0\.\d\d of 2 trials on \d+ common bars", said) or "PBO needs" in said
    assert said.count("failed") == 2
    lines = sweep[1].err.splitlines()
    assert sum(line.startswith("SV-F") for line in lines) == 1


def test_deleting_runs_does_not_lower_the_number_and_a_rerun_does_not_raise_it(sweep, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(sweep[0], root, symlinks=True)
    shutil.rmtree(root / "sweeps")
    words = [*LEAN, f"root={root}", "bootstrap=5", "seed=1", "promote=false"]
    again = command("train", *words, "json=true")
    assert again.code == 0, again.err
    said = json.loads(again.out)
    assert said["luck"]["out-of-fold"]["trials"] == 2
    assert len(read(root).trials) == 3
    shown = command("evaluate", f"root={root}", f"runs={root}/runs")
    assert "2 distinct trials in the ledger (3 with reruns)" in " ".join(shown.out.split())


def test_judging_a_stored_model_is_a_trial_of_its_own(tmp_path):
    words = [*LEAN, f"root={tmp_path}", "bootstrap=5"]
    trained = command("train", *words, *HELD_BACK)
    assert trained.code == 0, trained.err
    assert "for 1 distinct trial in the ledger" in " ".join(trained.out.split())
    for count, more in ((2, []), (2, []), (3, ["since=2001-01-02"])):
        judged = command("evaluate", *words, *more)
        assert f"for {count} distinct trials in the ledger" in " ".join(judged.out.split())
    assert [trial.kind for trial in read(tmp_path).trials] == ["train", *["evaluate"] * 3]


def test_a_ledger_that_was_changed_stops_a_training_before_it_begins(sweep, tmp_path):
    shutil.copytree(sweep[0] / "ledger", tmp_path / "ledger")
    lines = place(tmp_path).read_bytes().splitlines(keepends=True)
    place(tmp_path).write_bytes(lines[1])  # the first is taken out
    ended = command("train", *LEAN, f"root={tmp_path}", "data.market.times=9")
    assert ended.code == 5
    assert "SV-X523" in ended.err
    assert "cure" in ended.err

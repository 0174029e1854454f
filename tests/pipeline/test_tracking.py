import json
import shlex
import subprocess

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from pipeline.tracking import git_commit, link_artifact, read_runs, record_run
from stages.base import StoreError

COMMAND = ["python", "-m", "pipeline.train", "data.path=my bars.csv", "seed=3"]


class Judged:
    def metrics(self):
        return {"pipeline": {"accuracy": np.float64(0.5), "ic": float("nan"), "rows": np.int64(9)}}


def record(folder, seed=3, **changed):
    cfg = OmegaConf.create({"seed": seed, "horizon": 5, "labels": {"horizon": "${horizon}"}})
    given = {"metrics": {"test": Judged()}, "digest": "ab" * 32, "data_digest": "cd" * 32}
    record_run(folder, cfg, **{**given, "command": COMMAND, **changed})


def test_a_run_leaves_what_repeats_it(tmp_path):
    record(tmp_path / "run")
    files = {path.name: path.read_text() for path in (tmp_path / "run").iterdir()}
    assert set(files) == {"config.yaml", "metrics.json", "command.txt", "run.json"}
    assert yaml.safe_load(files["config.yaml"])["labels"] == {"horizon": 5}
    assert shlex.split(files["command.txt"]) == COMMAND
    run = json.loads(files["run.json"])
    assert (run["artifact"], run["data"], run["seed"]) == ("ab" * 32, "cd" * 32, 3)
    assert run["libraries"]["numpy"] == np.__version__


def test_figures_that_are_not_numbers_are_null(tmp_path):
    record(tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == {"test": {"pipeline": {"accuracy": 0.5, "ic": None, "rows": 9}}}


def test_any_figure_can_be_recorded(tmp_path):
    record(tmp_path, metrics={"a": [1, (True, None)], 3: "text", "d": np.datetime64("2020-01-01")})
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics == {"a": [1, [True, None]], "3": "text", "d": "2020-01-01"}


def test_a_plain_mapping_is_a_configuration_too(tmp_path):
    record_run(tmp_path, {"a": 1}, {}, "", "", COMMAND)
    assert json.loads((tmp_path / "run.json").read_text())["seed"] is None


def test_runs_are_compared_in_one_table(tmp_path):
    record(tmp_path / "sweep" / "0", seed=1)
    record(tmp_path / "sweep" / "1", seed=2)
    (tmp_path / "sweep" / "2").mkdir()
    failed = {"code": "SV-F18", "what": "too short"}
    (tmp_path / "sweep" / "2" / "error.json").write_text(json.dumps(failed))
    table = read_runs(tmp_path)
    assert list(table.index) == ["sweep/0", "sweep/1", "sweep/2"]
    assert table["metrics.test.pipeline.accuracy"].tolist()[:2] == [0.5, 0.5]
    assert table.loc["sweep/2", "error"] == "SV-F18  too short"
    assert table["config.seed"].tolist()[:2] == [1, 2]


def test_the_trials_of_a_run_are_named_by_part(tmp_path):
    record(tmp_path / "a", trials={"valid": "aa", "test": "bb"})
    record(tmp_path / "b", seed=2)
    table = read_runs(tmp_path)
    assert table.loc["a", ["trials.valid", "trials.test"]].tolist() == ["aa", "bb"]
    assert table.loc["b", ["trials.valid", "trials.test"]].isna().all()


def test_settings_that_all_runs_share_are_left_out(tmp_path):
    record(tmp_path / "a", seed=1)
    record(tmp_path / "b", seed=2)
    assert [c for c in read_runs(tmp_path).columns if c.startswith("config.")] == ["config.seed"]


def test_no_runs_are_an_empty_table(tmp_path):
    assert read_runs(tmp_path).empty


@pytest.mark.parametrize("broken", ["", "{", "[]", "{}"])
def test_a_run_that_cannot_be_read_is_refused_by_its_folder(tmp_path, broken):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "run.json").write_text(broken)
    with pytest.raises(StoreError, match="run one cannot be read") as error:
        read_runs(tmp_path)
    assert error.value.code == "SV-X522"
    assert str(tmp_path / "one") in error.value.cure


def test_the_commit_tells_whether_files_differ_from_it(tmp_path):
    def git(*words):
        own = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *own, *words], check=True, capture_output=True)

    assert git_commit(tmp_path) is None
    git("init")
    (tmp_path / "a.txt").write_text("a")
    git("add", "a.txt")
    git("commit", "-m", "first")
    commit = git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "a.txt").write_text("b")
    assert git_commit(tmp_path) == f"{commit}+changes"


@pytest.mark.parametrize("missing", ["git"])
def test_without_git_there_is_no_commit(tmp_path, monkeypatch, missing):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) is None


def test_a_run_holds_its_artifact_wherever_the_root_is_moved(tmp_path):
    model, run = tmp_path / "root" / "models" / "one", tmp_path / "root" / "runs" / "today"
    model.mkdir(parents=True)
    run.mkdir(parents=True)
    (model / "manifest.json").write_text("{}")
    link_artifact(run, model)
    (tmp_path / "root").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / "runs" / "today" / "artifact"
    assert (moved / "manifest.json").read_text() == "{}"
    with pytest.raises(StoreError):
        link_artifact(moved.parent, tmp_path)  # there is one already

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from sklearn.ensemble import RandomForestClassifier

from pipeline.cli import THREADS
from pipeline.faults import causes, typed
from stages.base import DataError, SieveError
from tests.pipeline import cli_app

ROOT = Path(__file__).parents[2]
QUIET = ["hydra/job_logging=none", "hydra/hydra_logging=none"]  # pytest keeps its own


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run the app in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def run(*words: str, quiet: bool = True):
        monkeypatch.setattr(sys, "argv", ["app", *words, *(QUIET if quiet else [])])
        with pytest.raises(SystemExit) as end:
            cli_app.main()
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return run


def shell(tmp_path: Path, *words: str) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name not in THREADS}
    return subprocess.run(
        [sys.executable, "-m", "tests.pipeline.cli_app", *words],
        cwd=tmp_path,
        env=clean | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_a_command_runs_and_says_how_to_repeat_it(command):
    code, out, _ = command("seed=3", "model.n_folds=2")
    assert code == 0
    assert "folds 2" in out
    assert "repeat python -m pipeline.cli_app seed=3 model.n_folds=2" in out


def test_a_command_called_with_a_configuration_just_runs():
    model = {"_target_": "stages.folds.PurgedWalkForward", "n_folds": 0}
    with pytest.raises(Exception, match="need n_folds"):
        cli_app.main(OmegaConf.create({"model": model, "fail": None}))


@pytest.mark.parametrize(
    ("words", "code", "message", "cure"),
    [
        (["seeed=1"], 2, "no key 'seeed'", "did you mean seed?"),
        (["model.n_fold=3"], 2, "no key 'model.n_fold'", "did you mean model.n_folds?"),
        (["n_folds=3"], 2, "no key 'n_folds'", "did you mean model.n_folds?"),
        (["zzzzz=3"], 2, "no key 'zzzzz'", "--cfg job"),
        (["seed.deep=3"], 2, "seed.deep", "--cfg job"),
        (["model=fold"], 2, "no model named 'fold'", "did you mean folds?"),
        (["model=zzz"], 2, "no model named 'zzz'", "choose one of ['folds', 'other']"),
        (["--config-name=nope"], 2, "nope", "--cfg job"),
        (["modell=folds"], 2, "no key 'modell'", "did you mean model?"),
        (["hydra/launcher=nope"], 2, "nope", "choose one of"),
        (["seed=[1"], 2, "input '[1'", "--cfg job"),
        (["+seed=1"], 2, "seed", "--cfg job"),
        (["seed=${nope}"], 2, "nope", "--cfg job"),
        (["--resolve"], 2, "--resolve flag", "--hydra-help"),
        (["--config-dir=/nope"], 2, "'/nope' not found", "--cfg job"),
        (["--experimental-rerun=x"], 2, "not offered", "command.txt"),
        (["--exp", "x"], 2, "not offered", "command.txt"),
        (["model=other"], 2, "'os.getcwd'", "stages or pipeline"),
        (["model._target_=stages.folds.Purged"], 2, "not defined there", "stages or pipeline"),
        (["+model.n_flods=3"], 2, "no key 'model.n_flods'", "did you mean n_folds?"),
        (["+model.zzz=3"], 2, "no key 'model.zzz'", "take it out: ~model.zzz"),
        (["model.n_folds=0"], 2, "need n_folds >= 1", "change the values of model"),
        (["model.n_folds=many"], 2, "not supported between", "change the values of model"),
        (["fail=missing"], 2, "path must be given", "add path=VALUE"),
        (["fail=typo"], 2, "no key 'paht'", "did you mean path?"),
        (["fail=data"], 3, "two closes", "drop one"),
        (["fail=artifact"], 4, "damaged", ""),
        (["fail=disk"], 5, "No such file", "free space"),
        (["fail=ours"], 1, "ZeroDivisionError: of ours", "debug=true"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_refusal_has_its_exit_code_and_its_cure(command, words, code, message, cure):
    ended, _, err = command(*words)
    assert ended == code, err
    assert err.startswith("SV-")
    assert message in err.splitlines()[0] or message in err
    assert cure in err.rpartition("cure")[2]
    assert "Traceback" not in err


def test_an_interrupted_command_ends_with_130(command):
    assert command("fail=interrupt")[::2] == (130, "interrupted\n")


def test_errors_come_as_json_when_asked(command):
    code, _, err = command("fail=data", "json=true")
    assert json.loads(err) == {
        "code": "SV-F02",
        "what": "two closes for A",
        "where": "a.csv",
        "why": "w",
        "cure": "drop one",
        "exit_code": code,
    }


def test_a_fault_of_ours_shows_its_traceback_only_when_asked(command, tmp_path):
    code, _, err = command("fail=ours")
    report = next(line.split()[1] for line in err.splitlines() if line.startswith("where"))
    assert "ZeroDivisionError" in Path(report).read_text()
    assert Path(report).parent == tmp_path / "sieve_runs" / "run"
    assert "Traceback" in command("fail=ours", "debug=true")[2]


def test_a_failed_job_leaves_its_error_in_its_folder(command, tmp_path):
    command("fail=artifact")
    error = json.loads((tmp_path / "sieve_runs" / "run" / "error.json").read_text())
    assert (error["code"], error["exit_code"]) == ("SV-F29", 4)


def test_a_sweep_goes_on_after_a_failed_job(command, tmp_path):
    code, out, err = command("-m", "fail=null,data,artifact", "model.n_folds=2")
    assert code == 3, err
    assert "SV-F02" in err
    assert "repeat python -m pipeline.cli_app fail=null model.n_folds=2" in out
    failed = {path.parent.name for path in tmp_path.rglob("error.json")}
    assert failed == {"1", "2"}


def test_a_sweep_with_a_wrong_choice_starts_no_job(command, tmp_path):
    code, _, err = command("-m", "model=folds,fold")
    assert code == 2
    assert "did you mean folds?" in err
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_folder_of_the_users_own_is_read_and_repeated(command, tmp_path):
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "mine.yaml").write_text(
        "_target_: stages.folds.PurgedWalkForward\nn_folds: 9\n"
    )
    code, out, err = command(f"--config-dir={tmp_path}/own", "model=mine")
    assert code == 0, err
    assert "folds 9" in out
    assert f"--config-dir={tmp_path}/own model=mine" in out


def test_a_yaml_that_does_not_parse_is_a_configuration_fault(command, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "broken.yaml").write_text("a: [1\n")
    assert command(f"--config-dir={tmp_path}/own", "--config-name=broken")[0] == 2


def test_the_environment_is_left_as_it_was(command, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = dict(os.environ)
    _, out, _ = command()
    assert "threads 3" in out
    assert dict(os.environ) == before


def test_more_threads_are_asked_for_by_configuration(command):
    assert "threads 2" in command("runtime.threads=2")[1]


def test_help_and_configuration_are_shown_without_running(command):
    code, out, _ = command("--help", quiet=False)
    assert (code, "model: folds, other" in out, "repeat" in out) == (0, True, False)
    code, out, _ = command("--cfg", "job", quiet=False)
    assert (code, "n_folds: 4" in out, "repeat" in out) == (0, True, False)


def test_nothing_heavy_is_imported_before_the_command_runs(tmp_path):
    done = shell(tmp_path)
    assert "early [] threads 1" in done.stdout, done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("word", ["--help", "seed=1"])
def test_a_reader_that_stops_reading_is_no_fault(tmp_path, word):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-u", "-m", "tests.pipeline.cli_app", word],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 141, done.stderr
    assert "fault" not in done.stderr
    assert not list(tmp_path.rglob("fault-*"))


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "sys.argv = ['app', '--help']\n"
        "from tests.pipeline.cli_app import HEAVY, main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "found = HEAVY & set(sys.modules)\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_sweep_in_processes_goes_on_and_ends_with_the_first_failure(tmp_path):
    words = ["-m", "fail=null,ours,data", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1"]
    done = shell(tmp_path, *words, "hydra.launcher.batch_size=3")
    assert done.returncode == 1, done.stderr
    assert "internal fault: ZeroDivisionError" in done.stderr
    failed = {path.parent.name for path in tmp_path.rglob("error.json")}
    assert failed == {"1", "2"}
    assert "repeat python -m pipeline.cli_app fail=null" in done.stdout


def test_the_error_a_user_made_is_found_below_what_wrapped_it(tmp_path):
    fault = RuntimeError("wrapped")
    fault.__cause__ = DataError("bad row", code="SV-F14")
    assert typed(fault, tmp_path) is fault.__cause__


def test_a_parameter_that_scikit_learn_refuses_in_fit_is_a_configuration_fault(tmp_path):
    with pytest.raises(ValueError, match="max_depth") as fault:
        RandomForestClassifier(max_depth=-1).fit([[1], [2]], [0, 1])
    assert typed(fault.value, tmp_path).exit_code == 2


def test_a_circle_of_causes_ends(tmp_path):
    one, two = KeyError("one"), KeyError("two")
    one.__cause__, two.__cause__ = two, one
    assert list(causes(one)) == [one, two]
    assert typed(one, tmp_path).exit_code == 1


def test_a_report_that_cannot_be_written_does_not_hide_the_fault(tmp_path):
    error = typed(KeyError("x"), tmp_path / "absent")
    assert isinstance(error, SieveError)
    assert "debug=true" in error.where

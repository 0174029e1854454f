"""What goes of a root, and what never does."""

import os
import shutil

import pandas as pd
import pytest

from pipeline import artifacts
from pipeline.store.signal_store import SignalStore
from pipeline.tidying import GOING, old, remove
from tests.conftest import command

NOW = pd.Timestamp.now("UTC")
BEFORE = NOW - pd.Timedelta(days=30)


def age(path, days):
    then = (NOW - pd.Timedelta(days=days)).timestamp()
    for inner in (*path.rglob("*"), path):
        os.utime(inner, (then, then))


def run(root, name, days, *files):
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    for file in ("predict.log", *files):
        (folder / file).write_text("x" * 100)
    age(folder, days)
    return folder


@pytest.fixture
def root(tmp_path, tiny_folder, tiny):
    """An old champion, and four old models beside it."""
    (tmp_path / "models").mkdir()
    shutil.copytree(tiny_folder, tmp_path / "models" / tiny_folder.name)
    artifacts.promote(tmp_path, tiny.digest)
    for k in range(4):
        folder = tmp_path / "models" / f"{k:016d}"
        shutil.copytree(tiny_folder, folder)
        (folder / artifacts.SEAL).write_text(f"{k:064d}\n")
    (tmp_path / "models" / f"{1:016d}" / artifacts.FACTS).write_text(f'{{"parent": "{2:064d}"}}')
    age(tmp_path / "models", 90)
    return tmp_path


def test_old_logs_go_and_records_of_trainings_stay(tmp_path):
    gone = run(tmp_path, "2024-01-01/10-00", 40)
    run(tmp_path, "2024-01-01/11-00", 40, "run.json")
    run(tmp_path, "2024-03-01/10-00", 3)
    mixed = run(tmp_path, "2024-02-01/10-00", 40)
    (mixed / "predict.log").write_text("still written")
    found = old(tmp_path, BEFORE)
    assert found.runs == (gone,)
    remove(tmp_path, found)
    assert not gone.exists()
    assert len(list(tmp_path.glob("runs/*/*"))) == 3


def test_models_stay_that_serve_or_are_waited_for_with_their_ancestors(root, tiny_folder):
    found = old(root, BEFORE, needed=[f"{1:064d}"])
    assert [path.name for path in found.models] == [f"{k:016d}" for k in (0, 3)]
    remove(root, found)
    assert artifacts.champion(root).name == tiny_folder.name
    assert old(root, BEFORE, needed=[f"{1:064d}"]).models == ()


def test_what_was_made_lately_stays(root):
    assert len(old(root, BEFORE).models) == 4
    assert old(root, NOW - pd.Timedelta(days=100)).models == ()


def test_an_interrupted_removal_is_finished(root):
    half = root / GOING / "0-12ab"
    half.parent.mkdir()
    (root / "models" / f"{0:016d}").rename(half)
    remove(root, old(root, BEFORE))
    assert not half.exists()


def test_the_command_says_first_and_removes_only_when_asked(root):
    SignalStore(str(root / "signals.db")).close()
    words = [f"root={root}", "keep_days=30", f"store={root}/signals.db"]
    ended = command("tidy", *words)
    assert ended.code == 0, ended.err
    assert "4 models" in ended.err
    assert len(list((root / "models").iterdir())) == 5
    assert command("tidy", *words, "dry_run=false", "json=true").code == 0
    assert len(list((root / "models").iterdir())) == 1
    assert command("tidy", *words, "keep_days=0").code == 2

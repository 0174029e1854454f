"""The schedule as a command: its steps are commands that get its settings."""

import json
import shutil

import pytest

from pipeline.run_records import FOLDER, read_state
from pipeline.store.signal_store import SignalStore
from tests.conftest import PLANTED, command


def test_one_run_predicts_into_the_store_and_leaves_its_account(trained, tmp_path):
    shutil.copytree(trained[0] / "models", tmp_path / "models")
    shutil.copy(trained[0] / "champion", tmp_path / "champion")
    words = [*PLANTED, f"root={tmp_path}", "every=60s", "steps=[predict]"]
    ended = command("schedule", *words, "once=true", "words.predict=['strategy=daily']")
    assert ended.code == 0, ended.err
    [run] = read_state(tmp_path)["runs"]
    assert run["good"]
    assert (run["account"]["signals"], run["account"]["new"]) == (4, 4)
    assert {"loading the model", "predicting"} <= run["account"]["seconds"].keys()
    with SignalStore(str(tmp_path / "signals.db")) as store:
        assert {found.strategy for found in store.latest(9)} == {"daily"}
        [event] = store.events(kind="run")
    assert event.details["run"] == run["id"]  # the command knew which run it was part of
    said = json.loads(command("schedule", f"root={tmp_path}", "status=true", "json=true").out)
    assert said["last_good"]["due"] == run["due"]
    shown = command("schedule", f"root={tmp_path}", "status=true").out
    assert "1 runs kept, 0 failed" in shown


def test_a_run_that_fails_ends_with_its_error(tmp_path):
    words = [*PLANTED, f"root={tmp_path}", "every=60s", "once=true", "alerts=none"]
    ended = command("schedule", *words, "steps=[monitor]")
    assert ended.code == 4  # that of the step
    assert "SV-X410" in ended.err  # no champion: what the step said
    assert not read_state(tmp_path)["runs"][0]["good"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["steps=[train]"], "train is no step"),
        (["steps=[]"], "there is no step"),
        (["data=synthetic"], "nothing says when a session ends"),
        (["after=soon"], "after=soon is no length of time"),
        (["calendars=[XNYZ]"], "XNYZ"),
        (["limit=0"], "limit=0"),
    ],
)
def test_what_could_never_run_is_refused_before_it_begins(tmp_path, words, text):
    ended = command("schedule", f"root={tmp_path}", "once=true", *words)
    assert (ended.code, text in ended.err) == (2, True), ended.err
    assert not (tmp_path / FOLDER / "state.json").exists()

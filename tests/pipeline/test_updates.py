"""Records of updates: made again they give the same models, and no crash loses the champion."""

import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from unittest import mock

import pytest

from pipeline import artifacts, updates, updating
from pipeline.answers import Answer
from pipeline.lock import lock
from pipeline.pointer import read_pointer
from pipeline.report.learnt import forgetting
from pipeline.report.monitor_page import update_sections
from pipeline.signal_pipeline import SignalPipeline
from pipeline.succession import carry_out
from stages.base import StoreError
from stages.filter.relearn import TreeLearning
from stages.online.learning import Learning
from stages.online.promotion import Promotion
from stages.online.replay import ReplayBuffer
from tests.conftest import before, ended, times_of, tiny_pipeline

ALL = Learning(TreeLearning(), every=12)


@pytest.fixture(scope="module")
def young(tiny_market, tmp_path_factory):
    """A root whose champion was trained when 40 bars were still to come; it has no nets."""
    root = tmp_path_factory.mktemp("young")
    past = before(tiny_market.panel, 40)
    parts = {"refiner": None, "replay": ReplayBuffer(window=1, capacity=300)}
    pipeline = tiny_pipeline(**parts).fit(past, ended(tiny_market.y, past))
    pipeline.save(root / "models")
    artifacts.promote(root, pipeline.digest)
    return root


@pytest.fixture
def root(young, tmp_path):
    return shutil.copytree(young, tmp_path / "root")


def step(root, market, bars, learning=ALL, drifted=False):
    """One update of the champion, with what was known `bars` bars before the end."""
    known = before(market.panel, bars)
    answer, labelled = Answer(told=drifted), (known, ended(market.y, known))
    todo = [(artifacts.champion(root), learning)]
    [made] = carry_out(root, todo, labelled, answer, Promotion(gates=[]), {})
    return made.update


@pytest.fixture(scope="module")
def three(young, tiny_market, tmp_path_factory):
    """Three updates: stage 3 alone, members too, and after a confirmed change."""
    root = shutil.copytree(young, tmp_path_factory.mktemp("three") / "root")
    step(root, tiny_market, 25, learning=None)
    step(root, tiny_market, 6)
    step(root, tiny_market, 0, drifted=True)
    return root


def test_each_update_goes_on_from_the_one_before(three):
    first, second, third = updates.read(three)
    assert second.parent == first.child
    assert third.parent == second.child
    assert read_pointer(three).champion == third.child
    assert first.settings is None
    assert [u.counts["lessons"] for u in (first, second, third)] == [0, 1, 1]


def test_updates_made_again_give_the_same_models(three, tiny_market):
    made = list(updating.repeat(three, tiny_market.panel, tiny_market.y))
    assert [found for _, found in made] == [u.child for u in updates.read(three)]
    assert len(made) == 3


def test_other_bars_are_refused(three, tiny_market):
    panel = tiny_market.panel.copy()
    panel.iloc[700, 0] *= 1.01
    with pytest.raises(StoreError, match="the bars are not those of the update") as error:
        list(updating.repeat(three, panel, tiny_market.y))
    assert error.value.code == "SV-X541"
    turned = tiny_market.y.copy()
    turned["side"] = -turned["side"]
    with pytest.raises(StoreError, match="the labels are not those of the update"):
        list(updating.repeat(three, tiny_market.panel, turned))


def test_a_record_says_what_was_learnt_and_what_was_forgotten(three, tiny_market):
    update = updates.read(three)[1]
    assert update.prequential["rows"] == update.counts["learned"] == update.frozen["rows"]
    for told in (update.prequential, update.frozen):
        assert 0.5 < told["log_loss"] < 1.2
        assert 0 <= told["accuracy"] <= 1
    was, now = (update.regimes[when] for when in ("before", "after"))
    assert len(was) > 1
    assert {r: s["rows"] for r, s in was.items()} == {r: s["rows"] for r, s in now.items()}
    change = [now[r]["accuracy"] - was[r]["accuracy"] for r in was]
    assert update.transfer["backward"] == pytest.approx(sum(change) / len(change))
    assert update.data["to"] == times_of(before(tiny_market.panel, 6)).max().isoformat()
    assert update.memory["policy"] == "fair"


def test_the_picture_shows_what_each_update_learnt_and_forgot(three):
    made = updates.read(three)
    figure = forgetting(made)
    said, frozen, *regimes = figure.data
    assert list(said.y) == [u.prequential["log_loss"] for u in made]
    assert list(frozen.y) == [u.frozen["log_loss"] for u in made]
    assert len(regimes) == len(made[0].regimes["before"])
    first = min(made[1].regimes["before"])
    was, now = (made[1].regimes[when][first]["log_loss"] for when in ("before", "after"))
    assert regimes[0].y[1] == pytest.approx(now - was)
    [(heading, _, element)] = update_sections(made)
    assert heading == "Learning and forgetting"
    assert "plotly" in element
    assert not list(update_sections([]))


def test_a_changed_line_shows(three, tmp_path):
    root = shutil.copytree(three, tmp_path / "root")
    path = updates.place(root)
    path.write_bytes(path.read_bytes().replace(b'"learned":', b'"learned": ', 1))
    with pytest.raises(StoreError, match="line 2 of the updates does not follow") as error:
        updates.read(root)
    assert error.value.code == "SV-X540"


def test_the_same_update_is_entered_once(three, tmp_path):
    root = shutil.copytree(three, tmp_path / "root")
    known = updates.read(root)
    with lock(root):
        assert updates.enter(root, replace(known[1], time="", digest="")) == known[1]
    assert updates.read(root) == known


# a process that is killed


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def at_sync(number):
    """Die as the file or folder with this number is about to be safe on the disk."""
    left, real = [number], os.fsync

    def fsync(descriptor):
        if not left[0]:
            killed()
        left[0] -= 1
        real(descriptor)

    return mock.patch.object(os, "fsync", fsync)


def in_the_record():
    """Die when half of the line is written."""
    real = os.write

    def write(descriptor, content):
        if content.startswith(b'{"before"'):
            real(descriptor, content[: len(content) // 2])
            killed()
        return real(descriptor, content)

    return mock.patch.object(os, "write", write)


def in_the_memory():
    """Die when the replay buffer has begun to take rows in."""
    return mock.patch.object(ReplayBuffer, "_write", side_effect=killed)


def at_the_pointer():
    """Die just before the new pointer takes the place of the old one."""
    real = os.replace

    def move(source, target):
        if os.path.basename(target) == artifacts.CHAMPION:
            killed()
        real(source, target)

    return mock.patch.object(os, "replace", move)


@pytest.mark.parametrize(
    "fault",
    [in_the_memory, lambda: at_sync(0), lambda: at_sync(9), in_the_record, at_the_pointer],
    ids=["memory", "first part", "parts", "record", "pointer"],
)
def test_a_killed_update_leaves_the_champion_and_is_made_up_for(root, tiny_market, fault):
    was = read_pointer(root)

    def die():
        with fault():
            step(root, tiny_market, 20)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert read_pointer(root) == was
    serving = SignalPipeline.load(artifacts.champion(root))  # whole: every byte is checked
    assert serving.digest == was.champion
    assert serving.replay_.summary()["size"] > 0
    assert len(updates.read(root)) <= 1
    update = step(root, tiny_market, 20)
    assert read_pointer(root).champion == update.child
    assert [u.child for u in updates.read(root)] == [update.child]
    assert list(updating.repeat(root, tiny_market.panel, tiny_market.y))[0][1] == update.child

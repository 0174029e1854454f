"""Commands that move the pointer, killed at any write: what served goes on, or what was to."""

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from unittest import mock

import numpy as np
import pytest

from pipeline import artifacts, registry, shadow
from pipeline.pointer import history, read_pointer
from pipeline.signal_pipeline import SignalPipeline
from tests.conftest import ROOT, command
from tests.pipeline.test_promotions import DATA, market, models  # noqa: F401

# as many as a table of figures asks for: SIEVE_KILLS=200 kills at every write, and at random
KILLS = int(os.environ.get("SIEVE_KILLS", "3"))
GATES = "promotion.gates=[evidence,bars,loss,calibration]"
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def root(models, tmp_path):  # noqa: F811
    """The worse model serves, the better one is the challenger, a third of the bars are said."""
    shutil.copytree(models[0], tmp_path, dirs_exist_ok=True)
    registry.promote(tmp_path, models[1]["bad"])
    registry.challenge(tmp_path, models[1]["good"])
    return tmp_path


def dying(act, at):
    """Do `act` in a process of its own, which is killed when it waits for the disk again."""
    real, count = os.fsync, itertools.count()

    def fsync(descriptor):
        if next(count) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    def run():
        with mock.patch.object(os, "fsync", fsync):
            act()

    process = FORK.Process(target=run)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def is_whole(root, *may_serve):
    """One of these serves, every byte of it; history and records can be read."""
    now = read_pointer(root)
    assert now.champion in may_serve
    serving = SignalPipeline.load(artifacts.champion(root))
    assert serving.digest == now.champion
    assert len(serving.replay_) > 0
    changes = history(root)
    assert [change.number for change in changes] == list(range(1, now.number + 1))
    for _, digest in now.roles():
        shadow.read(root, registry.lineage(root, digest).line)
    return now


def writes(act):
    """The numbers of the writes to die at: all of them, or some if there are too many."""
    with mock.patch.object(os, "fsync", side_effect=os.fsync) as fsync:
        act()  # here, so that the processes to come have all that it needs
    places = np.linspace(0, fsync.call_count - 1, min(KILLS, fsync.call_count))
    return sorted(set(places.round().astype(int).tolist()))


@pytest.fixture
def place(root, tmp_path_factory):
    """Makes copies of the root: one for each kill."""
    return lambda: shutil.copytree(root, tmp_path_factory.mktemp("place") / "root")


def test_a_killed_promotion_leaves_the_champion_and_can_be_made_up_for(root, place):
    def promote(at):
        assert command("promote", f"root={at}", *DATA, GATES).code == 0

    was, spare = read_pointer(root), place()
    for number in writes(lambda: promote(spare)):
        at = place()
        dying(lambda at=at: promote(at), number)
        now = is_whole(at, was.champion, was.challenger)
        assert now == was or now.champion == was.challenger
    if now == was:
        promote(at)
    assert is_whole(at, was.challenger).previous == was.champion


def test_a_killed_rollback_leaves_one_of_the_two_and_can_be_made_up_for(root, place):
    registry.promote(root, read_pointer(root).challenger)
    was, spare = read_pointer(root), place()

    def roll_back(at):
        assert command("rollback", f"root={at}", f"to={was.previous}", "why=a test").code == 0

    for number in writes(lambda: roll_back(spare)):
        at = place()
        dying(lambda at=at: roll_back(at), number)
        now = is_whole(at, was.champion, was.previous)
        if now.champion == was.champion:
            assert now == was
            roll_back(at)
        assert is_whole(at, was.previous).action == "roll back"


def test_a_killed_update_leaves_a_champion_and_a_sound_memory(root, place):
    def update(at):
        assert command("update", f"root={at}", *DATA).code == 0

    was, spare = read_pointer(root).champion, place()
    for number in writes(lambda: update(spare)):
        at = place()
        dying(lambda at=at: update(at), number)
        is_whole(at, was, read_pointer(spare).champion)
    if read_pointer(at).champion == was:
        update(at)
    assert is_whole(at, read_pointer(spare).champion)
    now, unharmed = (SignalPipeline.load(artifacts.champion(root)) for root in (at, spare))
    assert now.replay_.summary() == unharmed.replay_.summary()


@pytest.mark.parametrize("name", ["rollback", "update"])
def test_a_child_that_is_killed_at_random_leaves_a_root_that_serves(root, name):
    registry.promote(root, read_pointer(root).challenger)
    pair = read_pointer(root).champion, read_pointer(root).previous
    words = [f"root={root}", *(DATA if name == "update" else ())]
    whole = [sys.executable, "-m", f"pipeline.{name}", *words]
    seed = random.randrange(10**6)
    delays, took = random.Random(seed), 3.0
    for _ in range(max(KILLS // 3, 1)):
        started = time.monotonic()
        child = subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            child.wait(delays.uniform(0.3, 1.0) * took)  # where the kill falls, not a wait
            took = time.monotonic() - started
        except subprocess.TimeoutExpired:
            child.kill()
        child.communicate()
        known = {*pair, *registry.models(root)}
        is_whole(root, *known)

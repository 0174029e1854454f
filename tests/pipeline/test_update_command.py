"""The update command with members that learn, its records, and labels from a store."""

import json
import shutil

import pytest

from pipeline import artifacts, updates
from pipeline.data.bars import digest as bars_digest
from pipeline.signal_pipeline import SignalPipeline
from pipeline.store.rows import Outcome
from pipeline.store.signal_store import SignalStore
from stages.markets.planted import mixed
from stages.panel import settled
from tests.conftest import PLANTED, command, composed

SIZE = "data.market.times"
LATER = [*(word for word in PLANTED if not word.startswith(SIZE)), f"{SIZE}=340"]


def ok(ended):
    assert ended.code == 0, ended.err
    return ended


@pytest.fixture
def root(trained, tmp_path):
    """A root of this test's own, in which a model was trained on the first 300 bars."""
    shutil.copytree(trained[0] / "models", tmp_path / "models")
    shutil.copy(trained[0] / "champion", tmp_path / "champion")
    return tmp_path


def test_members_learn_where_the_configuration_says_so_and_it_can_be_repeated(root):
    was = SignalPipeline.load(artifacts.champion(root))
    words = [*LATER, f"root={root}", "promotion.gates=[]"]
    said = json.loads(ok(command("update", *words, "online=members", "json=true")).out)
    assert said["role"] == "champion"
    assert said["lessons"] == 2  # 40 bars matured; one every 20
    now = SignalPipeline.load(artifacts.champion(root))
    for name in ("filter", "refiner"):
        assert dict(now.stack_)[name].state() != dict(was.stack_)[name].state()
    [update] = updates.read(root)
    assert (update.parent, update.child) == (was.digest, now.digest)
    assert update.settings["settings"]["nets"]["settings"]["distil"] == 0.5
    repeated = ok(command("update", *words, "repeat=true"))
    assert "1 updates made again, 1 gave the same model" in repeated.out + repeated.err
    again = json.loads(ok(command("update", *words, "online=members", "json=true")).out)
    assert again["learned"] == 0
    assert len(updates.read(root)) == 1
    path = updates.place(root)
    path.write_text(path.read_text().replace(update.child, "0" * 64))
    ended = command("update", *words, "repeat=true")
    assert ended.code == 5
    assert f"now gives {update.child[:16]}" in ended.err
    assert "SV-X542" in ended.err


def test_labels_come_from_the_outcomes_of_a_store(root, tmp_path):
    pipeline = SignalPipeline.load(artifacts.champion(root))
    market = composed("update", *LATER).data.market
    later = mixed(market.seed, times=340, assets=4, snr=2.0)
    signals = pipeline.signals(later.panel, newest=False, explain=False, appraise=False)
    url = f"sqlite:///{tmp_path}/signals.db"
    new = later.y[later.y.index.get_level_values("time") > pipeline.learned_until_]
    with SignalStore(url) as store:
        store.append(signals, "test")
        ids = {(s.asset, s.time): s.id for s in store.follow(n=5000)}
        outcomes = [
            Outcome(ids[row], int(side), 0.01, end)
            for row, side, end in zip(new.index, new["side"], settled(new), strict=True)
            if row in ids
        ]
        store.resolve(outcomes)
    words = [*LATER, f"root={root}", f"store={url}", "json=true"]
    said = json.loads(ok(command("update", *words)).out)
    assert 0 < said["learned"] <= len(outcomes)
    [update] = updates.read(root)
    assert update.data["labels"] == "store"
    assert update.data["digest"] != bars_digest(later.panel)  # the command's bars have a session

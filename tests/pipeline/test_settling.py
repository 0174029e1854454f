import numpy as np
import pandas as pd
import pytest

from pipeline.settling import settle
from pipeline.store.emission import Rules
from stages.panel import settled, until
from stages.risk.classes import AssetClasses
from stages.risk.emission import Emission
from stages.risk.life import signal_table
from stages.risk.outcomes import attach, performance
from tests.pipeline.store.conftest import postgres_url, sqlite_url, store, url  # noqa: F401

NOW = pd.Timestamp("2000-11-01", tz="UTC")
COST = 0.001


@pytest.fixture(scope="module")
def models(barrier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    barrier.save(folder)
    return folder


@pytest.fixture(scope="module")
def signals(barrier, tiny_market):
    bars = until(tiny_market.panel, NOW)
    said = barrier.signals(bars, newest=False, explain=False)
    return [s for s in said if s.time > NOW - pd.Timedelta("100D")]


@pytest.fixture
def filled(store, signals):  # noqa: F811
    rules = Emission(AssetClasses({"default": {"band": [0, 100]}}))
    count = len(signals)
    store.append(signals, "c", strategy="s", rules=Rules(rules, ["x"] * count, [COST] * count))
    return store


def test_outcomes_are_those_of_the_labels_of_the_model(
    filled, signals, models, barrier, tiny_market
):
    bars = until(tiny_market.panel, NOW)
    y = barrier.labels_.label(bars)
    found = settle(filled, models, bars)
    spoken = [s for s in signals if s.status != "abstain"]
    known = [s for s in spoken if (s.asset, s.time) in y.index]
    assert 0 < found.outcomes == len(known) == len(spoken) - found.waiting
    assert (found.unknown, found.span) == (0, 2)
    excess = y["ret"] - y["ret"].groupby("time").transform("mean")
    for row in filled.follow():
        key = (row.asset, row.time)
        if row.outcome is None:
            assert row.signal.status == "abstain" or key not in y.index
            continue
        assert row.outcome.label == y.loc[key, "side"]
        assert row.outcome.ret == y.loc[key, "ret"]
        assert row.outcome.ended == settled(y).loc[key]
        assert row.outcome.excess == pytest.approx(excess[key])
        assert row.outcome.ended <= bars.index.get_level_values("time").max()


def test_what_waits_is_settled_when_its_bars_come_and_nothing_twice(filled, models, tiny_market):
    first = settle(filled, models, until(tiny_market.panel, NOW))
    again = settle(filled, models, until(tiny_market.panel, NOW))
    assert (again.outcomes, again.waiting) == (0, first.waiting)
    assert first.waiting == 4 * 2  # two bars of four assets
    later = settle(filled, models, tiny_market.panel)
    assert (later.outcomes, later.waiting) == (first.waiting, 0)
    assert filled.verify().outcomes == first.outcomes + later.outcomes


def test_signals_of_a_model_that_is_gone_wait(filled, tmp_path, tiny_market):
    found = settle(filled, tmp_path, tiny_market.panel)
    assert (found.outcomes, found.waiting) == (0, 0)
    assert found.unknown == len(filled.unsettled()) > 0


def test_given_labels_come_before_those_of_the_model(filled, models, tiny_market):
    settle(filled, models, tiny_market.panel, tiny_market.y)
    told = {(r.asset, r.time): r.outcome.label for r in filled.follow() if r.outcome}
    wanted = tiny_market.y["side"].loc[list(told)]
    assert list(told.values()) == wanted.tolist()


def test_performance_of_the_store_is_that_of_the_signals(
    filled, signals, models, barrier, tiny_market
):
    bars = tiny_market.panel
    settle(filled, models, bars)
    y = barrier.labels_.label(bars)
    mean = y["ret"].groupby("time").transform("mean")
    table = signal_table(signals, ["x"] * len(signals), "s", COST)
    turned = attach(table, y, bars.index.get_level_values("time").max())
    sides = turned["side"].isin([-1, 1])
    # excess in the store is that of the asset, turned for a sell like its return
    over = mean.reindex(pd.MultiIndex.from_frame(table[["asset", "time"]])).to_numpy()
    turned["excess"] = turned["return"] - np.where(table["side"].fillna(0) == -1, -1, 1) * over
    played = filled.played()
    assert len(played) == sides.sum()
    by = ("strategy", "asset", "strength", "model")
    one, other = performance(turned, by, span=2), performance(played, by, span=2)
    pd.testing.assert_frame_equal(one, other)
    counted = filled.performance("strategy")
    assert counted["hit_rate"].iloc[0] == pytest.approx(one["hit"].iloc[0])
    assert counted["mean_return"].iloc[0] == pytest.approx(one["return"].iloc[0])
    left = filled.played(emitted=True)
    assert 0 < len(left) <= len(played)


def test_an_empty_store_has_nothing_to_settle(store, models, tiny_market):  # noqa: F811
    assert settle(store, models, tiny_market.panel).outcomes == 0
    assert len(store.played()) == len(store.unsettled()) == 0
    assert performance(store.played()).empty

import numpy as np
import pandas as pd
import pytest

from pipeline.matured import from_outcomes, known, newest_rows, refuse_open_horizons
from pipeline.store.rows import Outcome
from pipeline.store.signal_store import SignalStore
from stages.base import DataError
from stages.ensemble.stacker import BayesianStacker
from stages.filter.relearn import TreeLearning
from stages.filter.tree_filter import TreeFilter
from stages.folds import PurgedWalkForward
from stages.labels import Given
from stages.online.learning import Learning
from stages.online.replay import ReplayBuffer
from stages.panel import settled
from tests.conftest import tiny_pipeline
from tests.pipeline.store.samples import buy

TIMES = pd.date_range("2020-01-01", periods=3, tz="UTC")


@pytest.fixture
def y():
    index = pd.MultiIndex.from_product([["A", "B"], TIMES], names=["asset", "time"])
    return pd.DataFrame({"end": [t + pd.Timedelta("2D") for _, t in index]}, index)


def test_each_asset_goes_on_after_its_own_newest_row(y):
    learned = newest_rows(y.drop(("B", TIMES[2])))
    assert learned == {"A": TIMES[2], "B": TIMES[1]}
    assert list(known(y.index, learned)) == [True, True, True, True, True, False]


def test_a_new_asset_goes_on_after_the_newest_row_of_all(y):
    assert list(known(y.index, {"A": TIMES[1]})) == [True, True, False] * 2


def test_an_open_horizon_is_refused_by_its_first_row(y):
    refuse_open_horizons(y, TIMES[2] + pd.Timedelta("2D"))
    with pytest.raises(DataError, match="label of A at 2020-01-02") as error:
        refuse_open_horizons(y, TIMES[2])
    assert error.value.code == "SV-F25"
    assert error.value.where == "4 of 6 labels"


def test_a_horizon_is_open_until_its_last_bar_though_a_barrier_was_touched(y):
    y = y.assign(horizon_end=y["end"] + pd.Timedelta("1D"))
    refuse_open_horizons(y, TIMES[2] + pd.Timedelta("3D"))
    with pytest.raises(DataError, match="ends after the newest bar"):
        refuse_open_horizons(y, TIMES[2] + pd.Timedelta("2D"))


# from a store of signals

DAYS = pd.date_range("2022-03-01 21:00", periods=12, tz="UTC").as_unit("us")


@pytest.fixture
def bars():
    names = pd.Index(["AAPL", "MSFT"], dtype="str")
    index = pd.MultiIndex.from_product([names, DAYS], names=["asset", "time"])
    return pd.DataFrame({"close": 1.0}, index)


@pytest.fixture
def store(tmp_path):
    with SignalStore(f"sqlite:///{tmp_path}/signals.db") as opened:
        yield opened


def at(asset, day, lives=5, **changes):
    """A signal of a day that expires `lives` days later."""
    time = DAYS[day]
    return buy(asset, time=time, expires=time + pd.Timedelta(days=lives), **changes)


def until(bars, day):
    return bars[bars.index.get_level_values("time") <= DAYS[day]]


def test_a_signal_matures_when_it_expires_however_early_its_outcome_is_known(store, bars):
    store.append([at("AAPL", 0), at("AAPL", 1), at("MSFT", 0, lives=2)], "c")
    store.resolve([Outcome(1, 1, 0.02, DAYS[1]), Outcome(3, -1, -0.03, DAYS[2])])
    mature = {day: from_outcomes(store.follow(), until(bars, day)) for day in (1, 2, 4, 5, 11)}
    assert [len(mature[day]) for day in (1, 2, 4, 5, 11)] == [0, 1, 1, 2, 2]  # 2 has no outcome
    y = mature[11]
    assert y.index.tolist() == [("AAPL", DAYS[0]), ("MSFT", DAYS[0])]
    assert y["side"].tolist() == [1, -1]
    assert y["ret"].tolist() == [0.02, -0.03]
    assert y["end"].tolist() == [DAYS[1], DAYS[2]]
    assert settled(y).tolist() == [DAYS[5], DAYS[2]]


def test_the_newest_revision_and_the_last_model_count(store, bars):
    store.append([at("AAPL", 0, model="m1"), at("AAPL", 0, model="m2")], "c")
    store.restate([at("AAPL", 0, model="m1", p=0.45)], "c")
    store.resolve([Outcome(1, -1, -0.1, DAYS[5]), Outcome(2, 0, 0.0, DAYS[5])])
    assert from_outcomes(store.follow(), bars)["side"].tolist() == [0]
    store.resolve([Outcome(3, 1, 0.1, DAYS[5])])
    assert from_outcomes(store.follow(), bars)["side"].tolist() == [1]


def test_labels_that_overlap_share_their_weight(store, bars):
    store.append([at("AAPL", 0), at("AAPL", 1), at("MSFT", 4)], "c")
    store.resolve([Outcome(i, 1, 0.1, DAYS[e]) for i, e in ((1, 2), (2, 3), (3, 6))])
    weight = from_outcomes(store.follow(), bars)["weight"]
    assert weight.tolist() == [0.75, 0.75, 1.0]  # alone on one bar, two on the other


def test_signals_of_bars_that_are_not_at_hand_are_left_out(store, bars):
    store.append([at("AAPL", 0), at("TSLA", 0)], "c")
    store.resolve([Outcome(1, 1, 0.1, DAYS[5]), Outcome(2, 1, 0.1, DAYS[5])])
    assert from_outcomes(store.follow(), bars).index.tolist() == [("AAPL", DAYS[0])]
    assert from_outcomes([], bars).empty


# nothing with an open horizon ever trains or scores

SEEN = []  # (what, row, bar that is the newest)
NOW = {}


def noted(what, rows):
    SEEN.extend((what, row, NOW["bar"]) for row in rows)


class NotedStacker(BayesianStacker):
    def fit(self, panel, y):
        noted("fit", y.index)
        return super().fit(panel, y)

    def update(self, panel, y):
        noted("stage 3", y.index)
        return super().update(panel, y)


class NotedFilter(TreeFilter):
    def relearn(self, panel, y, *rest):
        assets = y.index.get_level_values("asset").str.split(" ").str[-1]
        noted("members", zip(assets, y.index.get_level_values("time"), strict=True))
        return super().relearn(panel, y, *rest)


class NotedBuffer(ReplayBuffer):
    def add(self, panel, y):
        noted("memory", y.index)
        return super().add(panel, y)


def test_nothing_with_an_open_horizon_ever_trains_or_scores(tiny_market):
    """Horizons of one to six bars; a barrier is often touched before they are over."""
    panel = tiny_market.panel
    times = panel.index.unique("time").sort_values()
    rng = np.random.default_rng(0)
    bar = times.get_indexer(tiny_market.y.index.get_level_values("time"))
    over = bar + 6
    y = tiny_market.y[over < len(times)].copy()
    bar, over = bar[over < len(times)], over[over < len(times)]
    y["end"] = times[bar + rng.integers(1, 7, len(bar))]
    y["horizon_end"] = times[over]
    template = tiny_pipeline(refiner=None)
    members = {"lightgbm": template.filter.members["lightgbm"]}
    pipeline = tiny_pipeline(
        filter=NotedFilter(members),
        refiner=None,
        ensemble=NotedStacker(),
        labels=Given(horizon=6),
        folds=PurgedWalkForward(n_folds=4, first=0.3, embargo=6),
        replay=NotedBuffer(window=1, capacity=300),
    )

    def known_at(last):
        NOW["bar"] = times[last]
        past = panel[panel.index.get_level_values("time") <= times[last]]
        return past, y[(y["horizon_end"] <= times[last]).to_numpy()]

    SEEN.clear()
    learning = Learning(TreeLearning(), every=7)
    pipeline.fit(*known_at(250))
    for last in (256, 257, 271, 293):
        known_bars, labels = known_at(last)
        poisoned = y[(y["end"] <= times[last]).to_numpy()]  # known, but not over
        with pytest.raises(DataError, match="ends after the newest bar"):
            pipeline.update(known_bars, poisoned, learning)
        pipeline.update(known_bars, labels, learning)
        judged = pipeline.record_.rows_["side"].notna()
        noted("scores", judged[judged].index)
        assert pipeline.record_.skill_.path_.index.max() <= times[last]
    kinds = {what for what, _, _ in SEEN}
    assert kinds == {"fit", "stage 3", "members", "memory", "scores"}
    ends = y["horizon_end"].to_dict()
    early = [(what, row) for what, row, now in SEEN if ends[row] > now]
    assert not early
    assert pipeline.pending_.lessons_ > 3

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base import DataError
from stages.folds import DateSplit, PurgedWalkForward, RollingSplit, out_of_fold
from stages.labels import TripleBarrier
from stages.markets import noise_iid


def labels(seed: int, times: int, assets: int, horizon: bool = True) -> pd.DataFrame:
    """Labels of random length on a random part of the rows of a ragged panel.

    With a horizon, many are known before it is over.
    """
    rng = np.random.default_rng(seed)
    clock = pd.date_range("2020-01-01", periods=times + 12, tz="UTC")
    frames = {}
    for k in range(assets):
        at = np.sort(
            rng.choice(times, size=max(2, int(times * rng.uniform(0.5, 1))), replace=False)
        )
        span = rng.integers(1, 12, len(at))
        ends, over = clock[at + span], clock[at + np.maximum(span, rng.integers(1, 12, len(at)))]
        sides = rng.integers(-1, 2, len(at)).astype("int8")
        own = pd.DataFrame({"side": sides, "end": ends, "weight": 1.0}, clock[at])
        frames[f"A{k}"] = own.assign(horizon_end=over) if horizon else own
    return pd.concat(frames, names=["asset", "time"])


@pytest.fixture(scope="module")
def market():
    return noise_iid(0, times=300, assets=4)


@pytest.fixture(scope="module")
def y(market):
    return TripleBarrier(width=0.7).label(market.panel)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_folds=st.integers(1, 6),
    embargo=st.integers(0, 15),
    first=st.floats(0.3, 0.6),
    horizon=st.booleans(),
)
def test_no_training_label_reaches_into_the_embargo_or_the_test_block(
    seed, n_folds, embargo, first, horizon
):
    y = labels(seed, times=120, assets=3, horizon=horizon)
    bars = y.index.unique("time").sort_values()
    folds = PurgedWalkForward(n_folds, first, embargo)
    count = 0
    for train, test in folds.split(y):
        time, over = y.index.get_level_values("time"), y["horizon_end" if horizon else "end"]
        opened = bars.get_loc(time[test].min())
        # the brute-force reading of the docstring, row by row
        allowed = [i for i in range(len(y)) if over.iloc[i] < bars[max(opened - embargo, 0)]]
        assert list(train) == allowed
        assert not set(train) & set(test)
        count += 1
    assert count == n_folds


def test_every_bar_after_the_first_block_is_tested_once_and_whole(y):
    time = y.index.get_level_values("time")
    blocks = [time[test] for _, test in PurgedWalkForward().split(y)]
    tested = np.concatenate([block.unique() for block in blocks])
    assert len(set(tested)) == len(tested)
    assert sum(map(len, blocks)) == (time >= min(tested)).sum()
    bars = [block.nunique() for block in blocks]
    assert max(bars) - min(bars) <= 1
    assert all(a.max() < b.min() for a, b in pairwise(blocks))


def test_blocks_may_be_cut_where_another_table_was_cut(y):
    folds = PurgedWalkForward()
    edges = folds.edges(y)
    later = y[y.index.get_level_values("time") >= edges[1]]
    starts = [
        later.index.get_level_values("time")[test].min()
        for _, test in folds.split(later, edges[1:])
    ]
    assert starts == list(edges[2:])


def test_shuffled_folds_would_be_caught(y):
    """The canary: what the guard above measures is broken by a split that ignores time."""
    rng = np.random.default_rng(0)
    train = np.flatnonzero(rng.random(len(y)) < 0.8)
    test = np.setdiff1d(np.arange(len(y)), train)
    time = y.index.get_level_values("time")
    assert (y["end"].iloc[train] >= time[test].min()).any()


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (PurgedWalkForward(embargo=300), "no label ends 300 bars before the test block"),
        (PurgedWalkForward(n_folds=400), "labelled bars do not make 400 test blocks"),
    ],
)
def test_folds_that_cannot_be_are_refused(y, folds, message):
    with pytest.raises(DataError, match=message) as refused:
        list(folds.split(y))
    assert refused.value.code == "SV-F18"
    assert refused.value.cure


@pytest.mark.parametrize(
    "settings", [{"n_folds": 0}, {"first": 1.0}, {"first": 0}, {"embargo": -1}]
)
def test_a_setting_out_of_range_is_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"{name}={value}"):
        PurgedWalkForward(**settings)


@dataclass
class Witness:
    """A stage that says how much it has seen."""

    depth: int = 1

    def fit(self, panel, y):
        self.seen_ = panel.index.get_level_values("time").max()
        self.known_ = y["end"].max()
        self.rows_ = len(y)
        return self

    def predict(self, panel):
        columns = {"seen": self.seen_, "known": self.known_, "rows": self.rows_}
        last = panel.index.get_level_values("time").max()
        return pd.DataFrame(columns | {"last": last}, panel.index)


def test_out_of_fold_learners_see_the_past_only_and_the_given_stage_is_left_unfitted(market, y):
    stage = Witness()
    said = out_of_fold(stage, market.panel, y, PurgedWalkForward())
    time = said.index.get_level_values("time")
    assert (said["known"] < time).all()
    assert (said["seen"] < said["known"]).all()
    assert (said["last"] >= time).all()
    assert said.groupby("rows")["last"].nunique().eq(1).all()
    assert not hasattr(stage, "seen_")
    tested = np.sort(np.concatenate([test for _, test in PurgedWalkForward().split(y)]))
    assert said.index.equals(y.index[tested])


def test_noise_is_learnt_by_heart_but_not_found_out_of_fold(market, y):
    @dataclass
    class Nearest:
        """Says what the nearest training row had: perfect memory."""

        def fit(self, panel, y):
            self.x_ = panel.loc[y.index, ["feature.x0", "feature.x1"]].to_numpy()
            self.side_ = y["side"].to_numpy()
            return self

        def predict(self, panel):
            x = panel[["feature.x0", "feature.x1"]].to_numpy()
            near = ((x[:, None] - self.x_[None]) ** 2).sum(axis=2).argmin(axis=1)
            return pd.DataFrame({"z": self.side_[near].astype(float)}, panel.index)

    seen = Nearest().fit(market.panel, y).predict(market.panel).loc[y.index, "z"]
    unseen = out_of_fold(Nearest(), market.panel, y, PurgedWalkForward())["z"]
    assert (seen == y["side"]).mean() > 0.99
    assert (unseen == y["side"].loc[unseen.index]).mean() < 0.42


def test_a_date_split_cuts_where_it_says_and_purges_by_label_horizon(y):
    split = DateSplit("2000-08-31", "2000-10-31", "2000-12-31")
    (parts,) = split.parts(y)
    time, end = y.index.get_level_values("time"), y["horizon_end"]
    assert list(parts) == ["train", "valid", "test"]
    for name, start, stop in [
        ("train", "2000-01-01", "2000-09-01"),
        ("valid", "2000-09-01", "2000-11-01"),
        ("test", "2000-11-01", "2001-01-01"),
    ]:
        start, stop = pd.Timestamp(start, tz="UTC"), pd.Timestamp(stop, tz="UTC")
        expected = (time >= start) & (time < stop) & (end < stop).to_numpy()
        np.testing.assert_array_equal(parts[name], np.flatnonzero(expected))
        assert len(parts[name])
    assert end.iloc[parts["train"]].max() < time[parts["valid"]].min()
    assert end.iloc[parts["valid"]].max() < time[parts["test"]].min()


def test_a_date_split_may_lack_its_validation(y):
    (parts,) = DateSplit("2000-08-31", "2000-08-31", "2000-12-31").parts(y)
    assert not len(parts["valid"])
    assert y.index.get_level_values("time")[parts["test"]].min() >= pd.Timestamp(
        "2000-09-01", tz="UTC"
    )
    (only,) = DateSplit("2000-08-31").parts(y)
    assert list(only) == ["train"]


def test_a_date_split_that_trains_on_nothing_is_refused(y):
    with pytest.raises(DataError, match="no row has a label"):
        list(DateSplit(train_end="1999-01-01").parts(y.iloc[:0]))
    with pytest.raises(DataError, match="no label ends before split.train_end=1999-01-01"):
        next(DateSplit("1999-01-01", test_end="2000-12-31").parts(y))


def test_dates_out_of_order_are_refused():
    with pytest.raises(ValueError, match="need train_end <= valid_end <= test_end"):
        DateSplit("2001-01-01", "2000-01-01")


def test_a_rolling_split_trains_on_ever_more(y):
    parts = list(RollingSplit(PurgedWalkForward(n_folds=3)).parts(y))
    assert len(parts) == 3
    for before, after in pairwise(parts):
        assert set(before["train"]) < set(after["train"])
        assert not set(before["test"]) & set(after["test"])


@pytest.mark.parametrize("date", ["soon", "2014-13-01", "2014-12-31T00:00+02:00", "NaT"])
def test_a_split_at_no_date_is_refused(date):
    with pytest.raises(ValueError, match="2014-12-31"):
        DateSplit(train_end=date)


# labels that are decided early


@pytest.fixture(scope="module", params=[5, 20])
def driftless(request):
    """Barrier labels of a random walk, a third of them holds wherever one looks."""
    rng, times = np.random.default_rng(1), 1000
    clock = pd.bdate_range("2000-01-03", periods=times, tz="UTC")
    index = pd.MultiIndex.from_product([list("ABCDEFGH"), clock], names=["asset", "time"])
    closes = 100 * np.exp(rng.normal(0, 0.01, (8, times)).cumsum(axis=1)).ravel()
    bars = pd.DataFrame({"close": closes}, index)
    labels = TripleBarrier(horizon=request.param).fit(bars)
    return labels.span, labels.label(bars)


def holds_before_each_cut(y: pd.DataFrame, span: int) -> float:
    """Share of holds in the last `span` bars of each training part."""
    found = []
    for train, _ in PurgedWalkForward(8, 0.3, embargo=span).split(y):
        bars = y.index.get_level_values("time")[train]
        found.append(y["side"].iloc[train][bars >= bars.unique().sort_values()[-span]])
    return float((pd.concat(found) == 0).mean())


def test_the_last_labels_before_a_cut_hold_as_often_as_any(driftless):
    """Purged by the first touch, only labels that were touched early are left there."""
    span, y = driftless
    assert (y["side"] == 0).mean() == pytest.approx(1 / 3, abs=0.01)
    assert holds_before_each_cut(y, span) == pytest.approx(1 / 3, abs=0.06)
    assert holds_before_each_cut(y.drop(columns="horizon_end"), span) < 0.25


def test_a_cut_by_date_keeps_no_label_for_being_decided_early(driftless):
    span, y = driftless
    time, last = y.index.get_level_values("time"), pd.Timestamp("2002-12-31", tz="UTC")
    (parts,) = DateSplit("2002-12-31", None, "2003-12-31").parts(y)
    bars = y.index.unique("time").sort_values()
    newest = bars[bars <= last][-span - 1]
    assert time[parts["train"]].max() == newest
    assert (time[parts["train"]] == newest).sum() == 8  # all assets, whatever became of them

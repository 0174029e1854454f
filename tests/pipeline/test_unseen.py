from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.data.sources import Source, synthetic
from pipeline.evaluation import judge
from pipeline.unseen import evaluated, later_rows, unseen_parts
from stages.base import DataError
from stages.folds import DateSplit, PurgedWalkForward, RollingSplit
from stages.panel import until
from tests.conftest import tiny_pipeline

LAST = "2000-10-31"  # of training; 80 bars follow
SPLIT = DateSplit(LAST, "2000-12-31", "2001-12-31")
ROLLING = RollingSplit(PurgedWalkForward(n_folds=2, first=0.6, embargo=1))


@pytest.fixture(scope="module")
def source(tiny_market) -> Source:
    return synthetic(tiny_market)


@pytest.fixture(scope="module")
def lean():
    """A pipeline without stage 2: half the time."""
    return tiny_pipeline(refiner=None)


def after(table, date):
    return table.index.get_level_values("time") > pd.Timestamp(date, tz="UTC") + pd.Timedelta("1D")


def spoilt(source, date):
    """The same market up to the end of `date`, and nonsense after it."""
    rng = np.random.default_rng(9)
    bars, y = source.bars.copy(), source.y.copy()
    late = after(bars, date)
    features = [c for c in bars if c.startswith("feature.")]
    bars.loc[late, features] = rng.normal(5, 3, (late.sum(), len(features))).astype("float32")
    bars.loc[late, "close"] *= 7
    open_then = (y["end"] > pd.Timestamp(date, tz="UTC") + pd.Timedelta("1D")).to_numpy()
    y.loc[open_then, "side"] = -y.loc[open_then, "side"]
    return replace(source, bars=bars, y=y)


# splits


def test_without_a_split_the_out_of_fold_rows_are_reported(lean, source):
    [(part, fitted, rows, y)] = unseen_parts(replace(lean), source, None)
    assert part == "out-of-fold"
    assert rows is fitted.unseen_
    assert y is source.y


def test_a_split_by_date_never_learns_from_what_came_later(lean, source):
    parts = list(unseen_parts(lean, source, SPLIT))
    assert [part for part, *_ in parts] == ["valid", "test"]
    fitted = parts[0][1]
    assert fitted.learned_until_ < pd.Timestamp(LAST, tz="UTC") + pd.Timedelta("1D")
    for (_, _, rows, y), (first, last) in zip(
        parts, [(LAST, "2000-12-31"), ("2000-12-31", "2001-12-31")], strict=True
    ):
        assert after(rows, first).all()
        assert not after(y.loc[rows.index].set_index(["end"], append=True), last).any()
    other = next(iter(unseen_parts(lean, spoilt(source, LAST), SPLIT)))[1]
    assert other.digest == fitted.digest


def test_barrier_labels_that_reach_over_the_edge_are_not_learnt(barrier, source):
    given = replace(source, y=None)
    split = DateSplit(LAST, None, "2001-12-31")
    [(_, fitted, rows, y)] = unseen_parts(barrier, given, split)
    assert fitted.learned_until_ < pd.Timestamp(LAST, tz="UTC") + pd.Timedelta("1D")
    assert rows.index.isin(y.index).all()
    [(_, other, _, _)] = unseen_parts(barrier, replace(spoilt(source, LAST), y=None), split)
    assert other.digest == fitted.digest


def test_a_walk_forward_reports_all_its_blocks_as_one(lean, source):
    [(part, fitted, rows, y)] = unseen_parts(lean, source, ROLLING)
    blocks = list(ROLLING.blocks.split(source.y))
    tested = np.sort(np.concatenate([test for _, test in blocks]))
    assert part == "test"
    assert rows.index.equals(source.y.index[tested])
    pd.testing.assert_frame_equal(y, source.y)
    # the model that stays is the one of the last block, and saw nothing of it
    last = source.y.iloc[blocks[-1][1]].index.get_level_values("time").min()
    assert fitted.learned_until_ < last
    judged = judge(fitted, rows, y, source, part=part, resamples=5)
    assert len(judged.predictions) == len(tested)


def test_a_block_of_a_walk_forward_does_not_see_later_blocks(lean, source):
    first = source.y.iloc[next(iter(ROLLING.blocks.split(source.y)))[1]]
    cut = f"{first.index.get_level_values('time').max():%Y-%m-%d}"
    said = [
        next(iter(unseen_parts(lean, market, ROLLING)))[2].loc[first.index, ["p_sell", "p_buy"]]
        for market in (source, spoilt(source, cut))
    ]
    pd.testing.assert_frame_equal(*said, check_exact=True)


def test_labels_of_each_block_are_its_own(barrier, source):
    """Each refit fits its own barrier width; a row is judged by that of its block."""
    rolling = RollingSplit(PurgedWalkForward(n_folds=2, first=0.6, embargo=2))
    [(_, _, rows, y)] = unseen_parts(barrier, replace(source, y=None), rolling)
    assert rows.index.isin(y.index).all()
    assert y.index.is_monotonic_increasing
    assert y.index.is_unique


def test_a_split_with_a_training_part_only_reports_out_of_fold(lean, source):
    [(part, fitted, rows, _)] = unseen_parts(lean, source, DateSplit(LAST))
    assert part == "out-of-fold"
    assert rows is fitted.unseen_
    assert not after(rows, LAST).any()


def test_a_part_without_labels_is_refused(lean, source):
    with pytest.raises(DataError, match="no label lies in the valid part") as error:
        list(unseen_parts(lean, source, DateSplit(LAST, LAST, "2001-12-31")))
    assert "2000-01-03 to 2001-02-22" in error.value.where


def test_a_split_of_data_without_labels_asks_for_a_labeler(lean, source):
    with pytest.raises(DataError, match="labels=given"):
        list(unseen_parts(lean, replace(source, y=None), SPLIT))


# a stored model on later bars


@pytest.fixture(scope="module")
def past(lean, source):
    time = pd.Timestamp(LAST, tz="UTC")
    y = source.y[(source.y["end"] <= time).to_numpy()]
    return replace(lean).fit(until(source.bars, time), y)


def test_later_rows_begin_after_all_that_was_learnt(past, source):
    y, rows = later_rows(past, source, None)
    assert y is source.y
    assert rows.get_level_values("time").min() > past.learned_until_
    since = pd.Timestamp("2000-12-01 21:00", tz="UTC")
    assert later_rows(past, source, since)[1].get_level_values("time").min() == since


def test_a_start_inside_what_was_learnt_is_refused(past, source):
    with pytest.raises(DataError, match="reaches back before") as error:
        later_rows(past, source, pd.Timestamp("2000-10-01", tz="UTC"))
    assert (error.value.code, error.value.exit_code) == ("SV-F25", 3)


def test_data_that_end_too_early_are_refused(past, source):
    early = replace(source, y=source.y[(source.y["end"] <= past.learned_until_).to_numpy()])
    with pytest.raises(DataError, match="no label of a bar after") as error:
        later_rows(past, early, None)
    assert error.value.code == "SV-F18"


def test_later_rows_are_judged_with_and_without_the_gate(past, source):
    y, rows = later_rows(past, source, None)
    said = evaluated(past, source.bars, rows)
    assert said.index.equals(rows)
    open_gate = (said["filter.gate"] == 1.0).to_numpy()
    np.testing.assert_array_equal(
        said.loc[open_gate, "p_buy"], said.loc[open_gate, "ungated.p_buy"]
    )
    table = judge(past, said, y, source, resamples=5).table
    assert "stage 3" in table.index


def test_rows_without_history_cannot_be_judged(tiny, source):
    with pytest.raises(DataError, match="no row can be evaluated") as error:
        evaluated(tiny, source.bars, source.bars.index[:3])
    assert error.value.code == "SV-F18"

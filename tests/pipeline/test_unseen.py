from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.data.sources import Source, synthetic
from pipeline.evaluation import judge
from pipeline.matured import known
from pipeline.unseen import evaluated, later_rows, unseen_parts
from stages.base import ConfigError, DataError, LeakError
from stages.combinatorial import CombinatorialPurged
from stages.ensemble.decide import Decide
from stages.folds import DateSplit, PurgedWalkForward, RollingSplit
from stages.labels import TripleBarrier
from stages.online.replay import ReplayBuffer
from stages.panel import named, settled, until
from stages.signal import ODDS
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


# many histories out of one


def barriers():
    """Labels that a width is fitted for, and no stage 2."""
    return tiny_pipeline(
        labels=TripleBarrier(horizon=2, delay=0),
        folds=PurgedWalkForward(n_folds=2, first=0.4, embargo=2),
        refiner=None,
        decide=Decide(cost_bps={"default": 2.0}),
        replay=ReplayBuffer(window=1, capacity=100),
    )


def test_each_path_of_a_combinatorial_split_reports_the_whole_history_once(lean, source):
    split = CombinatorialPurged(n_groups=3, n_test=2, embargo=1)
    parts = list(unseen_parts(lean, source, split))
    assert [part for part, *_ in parts] == ["path 1", "path 2"]
    for _, _, rows, y in parts:
        assert rows.index.equals(source.y.index)
        pd.testing.assert_frame_equal(y, source.y)
    # the models differ, so do the odds; in each group, both paths speak of the same rows
    assert (parts[0][2]["p_buy"] != parts[1][2]["p_buy"]).mean() > 0.9
    judged = judge(parts[0][1], *parts[0][2:], source, part="path 1", resamples=5)
    assert judged.part == "path 1"
    assert len(judged.predictions) == len(source.y)
    # the model that stays is that of the last split, whose test groups are the last
    last = source.y.index.unique("time").sort_values()[len(source.y.index.unique("time")) // 3]
    assert parts[0][1].learned_until_ < last


def test_on_a_combinatorial_split_each_model_is_fitted_to_its_own_rows(source):
    """Widths are fitted for each split; the rows of a path are judged by that of their model."""
    given = replace(source, y=None)
    [(_, fitted, rows, y)] = unseen_parts(barriers(), given, CombinatorialPurged(3, 1, embargo=2))
    assert rows.index.isin(y.index).all()
    assert y.index.is_unique
    held = [line for line in fitted.roles_.table() if line["role"] == "held out"]
    assert held[0]["rows"] == pytest.approx(len(y) / 3, rel=0.05)


def test_nothing_is_learnt_from_the_rows_between(source):
    """A group in the middle is held out: whatever happens in it, the model is the same."""
    pipeline = tiny_pipeline()
    bars, y = source.bars, source.y
    folds = CombinatorialPurged(3, 1, embargo=1, look_back=pipeline.window - 1)
    train, test = list(folds.split(y))[1]
    rng = np.random.default_rng(0)
    wild, at = bars.copy(), bars.index.get_indexer(y.index[test])
    for name in named(bars, "feature", "context"):
        wild.iloc[at, wild.columns.get_loc(name)] = rng.normal(0, 50, len(at)).astype("float32")
    sides = y["side"].to_numpy().copy()
    sides[test] = rng.permutation(sides[test])
    one, two = (
        replace(pipeline).fit(each, labels, y.index[train])
        for each, labels in ((bars, y), (wild, y.assign(side=sides)))
    )
    assert one.digest == two.digest
    assert one.learned_until_ == settled(y.iloc[train]).max()
    one.roles_.hold_out("test", y.index[test])
    with pytest.raises(LeakError, match="would be held out, and is"):
        one.roles_.hold_out("test", y.index[train[-1:]])


def test_labels_of_rows_held_out_set_no_width(source):
    bars = source.bars
    y = TripleBarrier(horizon=2, delay=0, width=1.0).label(bars)
    train, _ = next(CombinatorialPurged(3, 1, embargo=2, look_back=0).split(y))  # before the rest
    fitted = barriers().fit(bars, rows=y.index[train])
    [line] = [line for line in fitted.roles_.table() if line["part"] == "labels"]
    assert (line["role"], line["fold"]) == ("calibrate", "every")
    assert line["first"] >= y.index[train].get_level_values("time").min().isoformat()
    # folds that come after cannot test what set the width, either
    with pytest.raises(LeakError, match="would be test, and is calibrate for labels"):
        fitted.roles_.record("late", "late", {"test": fitted.labels_.roles_["calibrate"]})


# splits that leak


def test_a_split_that_reports_what_it_learnt_from_is_refused(lean, source):
    class Sloppy(DateSplit):
        def parts(self, y):
            (parts,) = super().parts(y)
            yield parts | {"test": np.union1d(parts["test"], parts["train"][-1:])}

    with pytest.raises(LeakError, match="would be held out, and is test for filter") as refused:
        list(unseen_parts(lean, source, Sloppy(LAST, None, "2001-12-31")))
    assert refused.value.code == "SV-F26"


@pytest.mark.parametrize(
    "split",
    [RollingSplit(PurgedWalkForward(embargo=4)), CombinatorialPurged(embargo=4)],
    ids=lambda split: type(split).__name__,
)
def test_an_embargo_shorter_than_the_horizon_is_refused_outside_as_inside(source, split):
    labels = TripleBarrier(horizon=5)
    pipeline = tiny_pipeline(labels=labels, folds=PurgedWalkForward(embargo=5))
    with pytest.raises(ConfigError, match="an embargo of 4 bars is shorter than horizon=5") as no:
        list(unseen_parts(pipeline, source, split))
    assert no.value.code == "SV-F25"
    with pytest.raises(ValueError, match="folds.embargo=0 bars is shorter than horizon=5"):
        tiny_pipeline(labels=labels, folds=PurgedWalkForward(embargo=0))


def test_stages_cannot_pass_their_words_through_combinatorial_folds():
    with pytest.raises(ValueError, match="folds must be PurgedWalkForward, got Combinatorial"):
        tiny_pipeline(folds=CombinatorialPurged())


def test_a_stored_model_tells_which_rows_did_what(tiny, copy):
    table = copy.roles_.table()
    assert table == tiny.roles_.table()
    assert {"filter", "refiner", "ensemble", "gate", "references"} <= {t["part"] for t in table}
    [line] = [line for line in table if line["part"] == "references"]
    assert (line["fold"], line["role"]) == ("deployed", "reference")
    assert line["rows"] == tiny.references_.index.get_level_values("asset").nunique()


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


def test_with_labels_later_rows_are_judged_as_if_updated_at_every_bar(past, source):
    y, rows = later_rows(past, source, None)
    before, state = past.record_.skill_.path_, past.record_.state()
    then, now = evaluated(past, source.bars, rows), evaluated(past, source.bars, rows, y)
    assert set(then["skill.bars"]) == {len(before)}
    bars = now.groupby(level="time")["skill.bars"].first()
    assert bars.is_monotonic_increasing
    assert bars.iloc[-1] > bars.iloc[0] + 20
    times = now.index.get_level_values("time")
    turned = y.assign(side=y["side"].where(y["end"] <= times.unique()[30], -y["side"]))
    other = evaluated(past, source.bars, rows, turned)
    early = times <= times.unique()[30]
    pd.testing.assert_frame_equal(now[early], other[early], check_exact=True)
    assert not now["skill.e_value"].equals(other["skill.e_value"])
    assert not now["p_buy"][~early].equals(other["p_buy"][~early])
    assert past.record_.state() == state


def test_with_labels_stage_3_learns_on_its_way_and_the_model_stays_as_it_was(past, source):
    y, rows = later_rows(past, source, None)
    state = past.stack_.ensemble.state()
    then, now = evaluated(past, source.bars, rows), evaluated(past, source.bars, rows, y)
    frozen = replace(past, folds=replace(past.folds, update_every=0))
    vars(frozen).update({k: v for k, v in vars(past).items() if k.endswith("_")})
    still = evaluated(frozen, source.bars, rows, y)
    pd.testing.assert_frame_equal(still[ODDS], then[ODDS], check_exact=True)
    changed = (now["p_buy"] != then["p_buy"]).groupby(level="time").any()
    learnt = settled(y[~known(y.index, past.learned_rows_)]).min()
    assert not changed[changed.index < learnt].any()
    assert changed.iloc[-10:].all()
    assert past.stack_.ensemble.state() == state


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

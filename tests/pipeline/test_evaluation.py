import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pipeline.data.sources import Source, synthetic
from pipeline.evaluation import SHOWN, evaluated, judge, later_rows, unseen_parts
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


@pytest.fixture(scope="module")
def judged(tiny, source):
    return judge(tiny, tiny.unseen_, source.y, source, resamples=40)


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


# the table


def test_every_model_is_judged_on_the_same_unseen_rows(judged, tiny):
    assert list(judged.table.index) == [
        *("base rate", "last sign", "lightgbm", "xgboost", "forest", "lstm", "soft vote"),
        *("stage 1", "stage 2", "stage 3", "pipeline"),
    ]
    assert judged.predictions.index.equals(tiny.unseen_.index)
    assert (judged.table[("answered", "value")] == 1).all()
    assert judged.table[("base_rate", "value")].nunique() == 1
    assert set(SHOWN) <= set(judged.table.columns.unique(0))


def test_every_figure_stands_in_its_interval(judged):
    for name in ("accuracy", "log_loss", "brier", "rank_ic"):
        part = judged.table[name].dropna()
        assert (part["low"] <= part["high"]).all()
        inside = part["value"].between(part["low"] - 0.02, part["high"] + 0.02)
        assert inside.all(), name


def test_skill_is_seen_where_it_is_planted(judged):
    skill = judged.table.loc["pipeline"]
    assert skill[("rank_ic", "low")] > 0
    assert skill[("mcc", "low")] > 0


def test_the_rows_written_are_those_of_the_interface(judged, tmp_path):
    path = tmp_path / "new" / "rows.parquet"
    judged.write(path)
    rows = pd.read_parquet(path)
    first = ["asset", "time", "session", "p_sell", "p_hold", "p_buy", "score", "side", "label"]
    assert list(rows)[:10] == [*first, "forward_return"]
    assert (rows["side"].dtype, rows["label"].dtype) == ("Int8", "int8")
    assert len(rows) == len(judged.predictions)
    np.testing.assert_allclose(rows["score"], rows["p_buy"] - rows["p_sell"])
    assert rows["session"].notna().all()


def test_the_forward_return_is_that_of_the_horizon(judged, source):
    close = source.bars["close"]
    ahead = close.groupby("asset").shift(-1) / close - 1
    said = judged.predictions["forward_return"]
    np.testing.assert_allclose(said, ahead.loc[said.index])


def test_metrics_are_json(judged):
    values = json.loads(json.dumps(judged.metrics(), allow_nan=False))
    assert values["pipeline"]["accuracy"].keys() == {"value", "low", "high"}
    assert values["base rate"]["coverage"]["value"] is None


def test_the_card_is_json_and_holds_what_a_page_shows(judged):
    card = json.loads(json.dumps(judged.card(), allow_nan=False))
    assert card["rows"] == len(judged.predictions)
    assert "base_rate" not in card["shown"]  # one figure for all, beside the table
    assert card["base_rate"] == judged.printed()["pipeline"][list(SHOWN).index("base_rate")]
    assert {len(row) for row in card["printed"].values()} == {len(card["shown"])}


def test_a_figure_is_printed_with_its_interval(judged):
    value, low, high = judged.table.loc["pipeline", "accuracy"]
    assert judged.printed()["pipeline"][0] == f"{value:.3f} [{low:.3f}, {high:.3f}]"
    assert judged.short("accuracy") == f"{value:.3f} ±{(high - low) / 2:.3f}"
    assert judged.short("coverage", "forest") == ""
    assert judged.short("nothing of the kind") == ""


def test_an_evaluation_shows_itself_in_a_notebook(judged):
    page = judged._repr_html_()
    assert all(name in page for name in ("base_rate", "mcc", "pipeline", "stage 2"))


def test_without_closes_there_is_no_return_and_no_last_sign(tiny, source):
    blind = replace(source, bars=source.bars.drop(columns=["close", "session"]))
    said = judge(tiny, tiny.unseen_, source.y, blind, resamples=5)
    assert "last sign" not in said.table.index
    assert said.predictions["forward_return"].isna().all()
    assert said.predictions["session"].isna().all()


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

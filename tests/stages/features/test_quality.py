"""What is wrong with columns is found by name, and no more than that."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from stages.base import State
from stages.features.build import FeatureSet
from stages.features.findings import FAULT, correlations
from stages.features.given import GivenFeatures
from stages.features.quality import Quality, unchanged
from stages.features.returns import log_return
from tests.stages.features import contract

EVERY = 400


@pytest.fixture(scope="module")
def sound():
    """Four columns of noise over two assets: nothing is wrong with them."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2020-01-01", periods=EVERY // 2, tz="UTC")
    index = pd.MultiIndex.from_product([["A", "B"], times], names=["asset", "time"])
    values = rng.normal(size=(EVERY, 4)).astype("float32")
    return pd.DataFrame(values, index, [f"feature.x{k}" for k in range(4)])


def judged(panel, rows=None, **settings):
    known = np.ones(len(panel), bool) if rows is None else rows
    return Quality(**settings).fit(panel, known)


def found(quality):
    return {(f.kind, f.column, f.severity) for f in quality.review_.findings}


def test_sound_columns_score_full_marks(sound):
    review = judged(sound).review_
    assert review.score == 100
    assert set(review.scores.values()) == {100}
    assert not review.findings
    assert not review.dropped
    assert review.sources() == {"feature": 100}


def test_each_fault_is_found_by_its_name_and_nothing_else(sound):
    x = sound["feature.x0"].to_numpy()
    planted = sound.assign(
        **{
            "feature.flat": np.float32(1),
            "feature.none": np.float32(np.nan),
            "feature.copy": x,
            "feature.near": x + np.float32(0.01) * sound["feature.x1"],
            "feature.holes": np.where(np.arange(EVERY) % 3 == 0, np.nan, sound["feature.x2"] ** 2),
            "feature.endless": np.where(np.arange(EVERY) == 7, np.inf, sound["feature.x3"] ** 2),
        }
    )
    quality = judged(planted)
    assert found(quality) == {
        ("constant", "feature.flat", "fault"),
        ("missing", "feature.none", "fault"),
        ("duplicate", "feature.copy", "fault"),
        ("correlated", "feature.near", "note"),
        ("missing", "feature.holes", "warning"),
        ("infinite", "feature.endless", "warning"),
    }
    review = quality.review_
    assert list(review.dropped) == ["feature.flat", "feature.none", "feature.copy"]
    assert review.findings[0].severity == FAULT  # worst first
    share = np.arange(EVERY) % 3 == 0
    assert review.scores["feature.holes"] == pytest.approx(100 * (1 - share.mean()))
    assert review.scores["feature.endless"] == pytest.approx(100 * (1 - 1 / EVERY))
    assert review.scores["feature.flat"] == 0
    assert "feature.copy is a copy of feature.x0" in "\n".join(review.lines())


def test_a_negative_zero_is_a_zero_and_a_gap_in_another_place_is_no_copy(sound):
    x = np.where(np.arange(EVERY) % 2, sound["feature.x0"], 0.0).astype("float32")
    gap = x.copy()
    gap[3] = np.nan
    planted = sound.assign(**{"feature.a": x, "feature.b": x * np.float32(1)})
    planted["feature.b"] = planted["feature.b"].where(planted["feature.b"] != 0, np.float32(-0.0))
    assert list(judged(planted).review_.dropped) == ["feature.b"]
    assert not judged(planted.assign(**{"feature.b": gap})).review_.dropped


def test_what_lies_outside_of_the_rows_is_not_judged(sound):
    rows = np.arange(EVERY) >= 50
    planted = sound.copy()
    planted.iloc[:50] = np.nan
    quality = judged(planted, rows)
    assert quality.review_.score == 100
    assert quality.review_.rows == EVERY - 50


def test_rules_and_context_are_judged_and_never_dropped(sound):
    quality = judged(sound.assign(**{"rule.r": np.float32(0), "context.c": np.float32(2)}))
    assert ("constant", "rule.r", "fault") in found(quality)
    assert not quality.review_.dropped


def test_nothing_is_dropped_when_told_so_or_when_nothing_would_be_left(sound):
    flat = sound.assign(**{"feature.flat": np.float32(1)})
    assert judged(flat).review_.dropped
    assert not judged(flat, drop=False).review_.dropped
    assert not judged(flat[["feature.flat"]]).review_.dropped
    assert not judged(flat, np.zeros(EVERY, bool)).review_.dropped


def test_pairs_beyond_the_limit_are_dropped_on_demand_as_known_early(sound):
    x, other = sound["feature.x0"], sound["feature.x1"]
    early = np.arange(EVERY) % 200 < 80
    near = x + np.float32(0.01) * other
    later = np.where(early, other, near).astype("float32")  # moves with x only afterwards
    planted = sound.assign(**{"feature.near": near, "feature.later": later})
    every = np.ones(EVERY, bool)
    dropped = Quality(decorrelate=True).fit(planted, every, early).review_.dropped
    assert set(dropped) == {"feature.near", "feature.later"}  # a copy of x1, early
    assert "feature.x1" in dropped["feature.later"]
    apart = planted.assign(**{"feature.later": np.where(early, sound["feature.x3"] * x, near)})
    assert set(Quality(decorrelate=True).fit(apart, every, early).review_.dropped) == {
        "feature.near"
    }


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(0, 0.5))
def test_correlations_are_those_of_pandas(rows, columns, seed, missing):
    rng = np.random.default_rng(seed)
    x = rng.normal(1e3, 1, (rows, columns)) @ rng.normal(size=(columns, columns))
    x[rng.random(x.shape) < missing] = np.nan
    expected = pd.DataFrame(x).corr(min_periods=2).to_numpy()
    assert_allclose(correlations(x), expected, rtol=0, atol=1e-8)


def test_bars_that_stand_still_are_counted_within_each_asset():
    close = np.array([1.0, 1, 1, 2, np.nan, np.nan, 2, 2, 2, 2])
    starts = np.array([0, 8, 10])
    assert_array_equal(unchanged([close], starts), [0, 1, 2, 0, 0, 0, 0, 1, 0, 1])
    other = np.arange(10.0)
    assert_array_equal(unchanged([close, other], starts), np.zeros(10, int))


def test_a_row_abstains_while_its_bars_stand_still(sound):
    close = np.random.default_rng(1).lognormal(size=EVERY)
    close[100:130] = 7.0
    bars = sound.assign(close=close, market=np.arange(EVERY) % 200 // 30)
    quality = judged(sound, stale=20)
    why = quality.obstacles(bars, ["close"])
    late = np.arange(EVERY)
    assert_array_equal(why != "", (late >= 120) & (late < 130))
    assert why.iloc[125] == "inputs: stale, prices the same for 25 bars"
    assert (quality.obstacles(bars, []) == "").all()
    assert "market the same for 29" in quality.obstacles(bars, ["close", "market"]).iloc[29]
    # where another price moves, the bars do not stand still
    open_ = np.arange(EVERY)
    assert (quality.obstacles(bars.assign(open=open_), ["close", "open"]) == "").all()


def test_a_source_that_stood_still_in_training_is_named(sound):
    close = np.random.default_rng(1).lognormal(size=EVERY)
    close[100:130] = 7.0
    quality = Quality(stale=20).fit(
        sound.assign(close=close), np.ones(EVERY, bool), None, ["close"]
    )
    assert found(quality) == {("stale", "close", "warning")}
    assert quality.review_.sources() == {"bars": 100 * (1 - 10 / EVERY), "feature": 100}


def test_a_row_abstains_where_its_inputs_are_far_from_all_that_was_seen(sound):
    quality = judged(sound, beyond=3.0, broken=0.4)
    assert (quality.obstacles(sound, []) == "").all()  # training itself is never out of range
    strange = sound.copy()
    strange.iloc[5, 0] = 1e4  # one of four is not yet too many
    strange.iloc[9, :2] = -1e4
    why = quality.obstacles(strange, [])
    assert list(np.flatnonzero(why != "")) == [9]
    assert why.iloc[9].startswith("inputs: 50% out of range, such as feature.x0 = -1e+04 (training")
    strange.iloc[9, :2] = np.nan  # what is missing is told elsewhere
    assert (quality.obstacles(strange, []) == "").all()


def test_what_was_found_survives_storing(sound):
    planted = sound.assign(**{"feature.flat": np.float32(1)})
    quality = judged(planted)
    again = replace(quality).restore(State(quality.state().values))
    assert again.review_ == quality.review_
    assert again.spans_ == quality.spans_
    assert "feature.flat" not in again.spans_


@pytest.mark.parametrize(
    "wrong", [{"missing": 2}, {"broken": -0.1}, {"stale": 0}, {"beyond": -1}, {"sample": 1}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="must lie|need stale"):
        Quality(**wrong)


# what is dropped


def test_a_dropped_feature_is_still_there_for_those_that_read_it(aligned):
    columns = {
        "r": partial(log_return, bars=1),
        "of": partial(log_return, close="r_plus", bars=1),
    }
    columns = {"r_plus": partial(_above, of="r")} | columns
    columns = {name: columns[name] for name in ("r", "r_plus", "of")}
    whole = FeatureSet(columns).fit(aligned)
    expected = whole.build(aligned)
    less = FeatureSet(columns).fit(aligned).drop(["feature.r", "feature.r_plus"])
    made = less.build(aligned)
    assert [c for c in made if c.startswith("feature.")] == ["feature.of"]
    pd.testing.assert_series_equal(made["feature.of"], expected["feature.of"], check_exact=True)
    again = FeatureSet(columns).restore(less.state())
    assert list(again.build(aligned)) == list(made)
    assert less.state().values["warmups"] == {"feature.r": 1, "feature.r_plus": 1, "feature.of": 2}
    assert list(less.fit(aligned).build(aligned)) == list(expected)  # a new fit starts afresh


def _above(of):
    return of + 10.0


_above.warmup = lambda **_: 0


def test_given_columns_are_dropped_too(sound):
    given_ = GivenFeatures(context=[]).fit(sound).drop(["feature.x1"])
    again = GivenFeatures(context=[]).restore(given_.state())
    assert list(again.build(sound)) == ["feature.x0", "feature.x2", "feature.x3"]


# one missing price


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_one_missing_number_reaches_no_further_than_its_windows(name):
    """Of every column of features=default, each input alone: F10."""
    from experiments.benchmarks.features import drawn

    whole = replace(drawn.feature_set("default"))
    bars = contract.clean_bars(np.random.default_rng(3), "A", 620)
    bars = bars.assign(market=np.exp(np.random.default_rng(4).normal(0, 0.01, len(bars)).cumsum()))
    at = 300
    holed = bars.copy()
    holed.iloc[at, bars.columns.get_loc(name)] = np.nan
    clean, made = whole.values(bars), whole.values(holed)
    warmups, reach = whole.warmups, np.arange(len(bars)) - at
    touched = 0
    for column in made:
        changed = (made[column] != clean[column]) & ~(made[column].isna() & clean[column].isna())
        beyond = changed.to_numpy() & ((reach < 0) | (reach > warmups[column]))
        assert not beyond.any(), f"{column} changes outside of its windows"
        # a number from a window with a hole would be wrong without a word
        assert made[column][changed].isna().all(), f"{column} makes a number of a missing {name}"
        touched += changed.any()
    assert touched > 5

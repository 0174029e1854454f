"""Columns that are only there to be read, and ranks of many of them."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from stages.features.build import FeatureSet
from stages.features.cross_section import rank, ranks
from stages.features.kernels import window_mean
from stages.features.returns import log_return
from stages.panel import named, warms_up

RETURN = partial(log_return, bars=1)


@warms_up(lambda bars, **_: bars - 1)
def mean_of(of, bars=5):
    return window_mean(of, bars)


@warms_up(lambda **_: 0)
def never(close):
    raise AssertionError("nobody reads it")


def test_an_inner_column_is_read_and_not_kept(bars):
    columns = {"step": RETURN, "mean": partial(mean_of, of="step", bars=5)}
    whole = FeatureSet(columns).fit(bars)
    lean = FeatureSet(columns, inner=["step"], rules=ranks(["step"])).fit(bars)
    panel = lean.build(bars)
    assert named(panel, "feature", "rule") == ["feature.mean", "rule.step"]
    pd.testing.assert_series_equal(panel["feature.mean"], whole.build(bars)["feature.mean"])
    assert lean.warmup == whole.warmup == 5
    step = np.log(bars["close"]).groupby("asset").diff()
    place = step.groupby("time").rank(pct=True)
    wide = step.groupby("time").transform("count")
    wanted = (place - 0.5 / wide - 0.5).where(wide > 1)
    assert_allclose(panel["rule.step"], wanted, atol=1e-7)


def test_what_nobody_reads_is_not_even_made(bars):
    features = FeatureSet({"kept": RETURN, "idle": never}, inner=["idle"])
    assert named(features.fit(bars).build(bars), "feature") == ["feature.kept"]


@pytest.mark.parametrize("inner", [["other"], ["step"]])
def test_inner_columns_are_some_of_the_columns(inner):
    with pytest.raises(ValueError, match="inner must name some of the columns"):
        FeatureSet({"step": RETURN}, inner=inner)


VALUES = st.one_of(st.integers(-2, 2).map(float), st.floats(-1e3, 1e3), st.just(np.nan))


@settings(max_examples=60, deadline=None)
@given(arrays("float64", st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=VALUES))
def test_ranks_equal_pandas_ties_included(of):
    table = pd.DataFrame(of)
    count = table.notna().sum(axis=1)
    wanted = table.rank(axis=1).sub(0.5).div(count, axis=0).sub(0.5)
    assert_allclose(rank(of), wanted.where(count > 1, axis=0), atol=1e-12)

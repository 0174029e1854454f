"""The columns that the benchmark writes in plain pandas are those of features=default."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from experiments.benchmarks.features import drawn, library, plain, plain_rest
from stages.features.rows import Rows

BARS = drawn.bars(6, 420)
MARKET = pd.Series(Rows.of(BARS, {"close"}).equal_weight(), BARS.index)
EXPECTED = plain.Plain(BARS, MARKET).columns()
MADE = drawn.only(drawn.feature_set("default"), list(EXPECTED)).values(BARS)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_column_equals_its_plain_form_in_pandas(name):
    made, expected = MADE[f"feature.{name}"], EXPECTED[name]
    assert made.notna().sum() > 900
    assert_allclose(made, expected, rtol=1e-7, atol=1e-8)


def test_half_of_the_default_set_is_compared():
    assert len(EXPECTED) >= 77
    assert list(MADE) == [
        f"feature.{n}" for n in drawn.feature_set("default").columns if n in EXPECTED
    ]


def test_the_whole_default_set_is_compared_and_equal():
    given = BARS.assign(market=MARKET)
    expected = plain_rest.Whole(BARS, MARKET).columns()
    whole = drawn.feature_set("default")
    without = [name for name in whole.columns if name not in expected]
    assert all(name.startswith("sector_") for name in without)
    assert plain_rest.far(whole.values(given), expected) == []


def test_columns_of_talib_are_the_same_behind_the_guard():
    features = library.features()
    assert len(features.columns) == 65
    made = features.values(BARS).to_numpy("float32")
    assert_array_equal(made, library.bare(BARS))
    assert np.isfinite(made[-1]).all()

import numpy as np
import pandas as pd
import pytest

from stages.features.rows import Rows
from stages.markets.planted import noise_iid
from stages.panel import inputs_of


def run(panel, function):
    return Rows.of(panel, set(inputs_of(function))).run(function)


@pytest.fixture(scope="module")
def market():
    return noise_iid(seed=0, times=30, assets=3)


def ragged(lengths: list[int]) -> pd.DataFrame:
    """A panel of assets Z, Y, X ... with the given numbers of bars."""
    rows = [
        (chr(ord("Z") - k), pd.Timestamp("2020-01-01", tz="UTC") + pd.Timedelta(days=t))
        for k, length in enumerate(lengths)
        for t in range(length)
    ]
    index = pd.MultiIndex.from_tuples(rows, names=["asset", "time"])
    return pd.DataFrame({"close": np.arange(len(rows), dtype=float)}, index)


def test_a_function_of_one_asset_sees_only_that_asset():
    panel = ragged([3, 1, 4]).assign(volume=2.0)

    def running_total(close, volume, sign=1):
        return sign * np.cumsum(close * volume)

    assert inputs_of(running_total) == ["close", "volume"]
    expected = 2 * panel["close"].groupby(level="asset", sort=False).cumsum()
    np.testing.assert_array_equal(run(panel, running_total), expected)


def test_a_function_may_write_into_its_arrays_without_touching_the_panel():
    panel = ragged([5, 2])

    def greedy(close):
        close[:] = 0
        return close

    assert (run(panel, greedy) == 0).all()
    assert list(panel["close"]) == list(range(7))


def test_a_function_must_give_a_value_for_every_row(market):
    with pytest.raises(ValueError, match="broadcast"):
        run(market.panel, lambda close: close[1:])

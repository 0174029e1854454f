import pandas as pd
import pytest

from pipeline.matured import known, newest_rows, refuse_open_horizons
from stages.base import DataError

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

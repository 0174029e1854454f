import numpy as np
import pandas as pd
import pytest

from stages.backtest.actions import adjusted
from stages.base import DataError
from tests.stages.backtest.conftest import panel


def raw():
    """A pays 1 on the third day, and splits two for one on the fifth."""
    close = np.array([[10.0], [10.0], [9.0], [9.0], [4.5], [4.5]])
    return panel({"open": close, "close": close, "volume": np.full((6, 1), 100.0)}, ["A"])


FACTORS = pd.DataFrame(
    {
        "asset": "A",
        "date": pd.to_datetime(["2024-01-02", "2024-01-04", "2050-12-31"]),
        "split_factor": [0.5, 0.5, 1.0],
        "price_factor": [0.9, 1.0, 1.0],
    }
)


def test_a_split_and_a_dividend_leave_no_jump():
    whole = adjusted(raw(), FACTORS)
    assert whole["close"].to_numpy() == pytest.approx([4.5] * 6)
    assert whole["open"].equals(whole["close"].rename("open"))
    assert whole["volume"].tolist() == [200] * 4 + [100] * 2
    splits = adjusted(raw(), FACTORS, dividends=False)
    assert splits["close"].to_numpy() == pytest.approx([5, 5, 4.5, 4.5, 4.5, 4.5])


def test_what_has_no_factor_stays():
    other = raw().rename(index={"A": "B"}, level="asset")
    pd.testing.assert_frame_equal(adjusted(other, FACTORS), other)
    short = adjusted(raw(), FACTORS.iloc[:2])
    assert short["close"].iloc[-1] == 4.5


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        (FACTORS.drop(columns="split_factor"), "no column 'split_factor'"),
        (FACTORS.assign(price_factor=0.0), "not a number above 0"),
    ],
)
def test_a_table_that_says_nothing_is_refused(factors, said):
    with pytest.raises(DataError, match=said):
        adjusted(raw(), factors)


@pytest.mark.realdata
def test_real_splits_and_dividends_leave_no_jump(realdata):
    """QQQ split 2:1 in March 2000, IWM in 2005, EEM 3:1 in 2005 and 2008."""
    bars = pd.read_parquet(realdata("us_etf_daily_unadjusted_4_1998_2021.parquet"))
    factors = pd.read_parquet(realdata("us_etf_adjustment_factors.parquet"))
    factors = factors.rename(columns={"symbol": "asset"}).assign(
        date=pd.to_datetime(factors["date"].astype(str))
    )
    bars = bars.assign(session=bars["date"], time=bars["date"].dt.tz_localize("UTC"))
    bars = bars.rename(columns={"symbol": "asset"}).set_index(["asset", "time"]).sort_index()
    out = adjusted(bars.drop(columns="date"), factors)
    for asset in ("SPY", "IWM", "EEM"):
        before, after = (np.log(b["close"].xs(asset)).diff() for b in (bars, out))
        assert after.abs().max() < 0.21, asset
        # a holder of SPY earned about 1.8 % a year in dividends
        assert 0.0 < (after - before)[before.abs() < 0.3].sum() < 0.7
    assert np.log(bars["close"].xs("EEM")).diff().min() < -1.0  # unadjusted, a fall by two thirds
    assert (
        out["close"]
        .groupby(level="asset")
        .last()
        .equals(bars["close"].groupby(level="asset").last())
    )

import numpy as np
import pandas as pd
import pytest

from stages.backtest.sweep import crossings
from stages.backtest.wealth import wealth
from stages.base import DataError


def prices(seed=0, bars=120, assets=3):
    rng = np.random.default_rng(seed)
    times = pd.date_range("2024-01-01", periods=bars, tz="UTC")
    close = pd.DataFrame(
        50 * np.exp(rng.normal(0, 0.02, (bars, assets)).cumsum(axis=0)), times, ["A", "B", "C"]
    )
    return close, close.shift(fill_value=50.0) * np.exp(rng.normal(0, 0.003, close.shape))


def followed(close, opened, fast, slow, rate):
    """One asset, one pair, bar by bar in plain Python."""
    means = [close.rolling(bars).mean() for bars in (fast, slow)]
    cash, shares, worth = 1.0, 0.0, [1.0]
    for t in range(1, len(close)):
        long = means[0].iloc[t - 1] > means[1].iloc[t - 1]
        if long and not shares:
            shares, cash = cash / (opened.iloc[t] * (1 + rate)), 0.0
        elif shares and not long:
            shares, cash = 0.0, shares * opened.iloc[t] * (1 - rate)
        worth.append(cash + shares * close.iloc[t])
    return np.array(worth)


@pytest.mark.parametrize("trip", ["none", 0.004])
def test_every_pair_is_what_following_it_by_hand_gives(trip):
    close, opened = prices()
    fast, slow = np.array([3, 5, 10, 5]), np.array([10, 20, 30, 5])
    out = crossings(close, fast, slow, costs=trip, opened=opened)
    assert list(out) == ["3/10", "5/20", "10/30", "5/5"]
    rate = 0.0 if trip == "none" else trip / 2
    for name, a, b in zip(out, fast, slow, strict=True):
        parts = [followed(close[c], opened[c], a, b, rate) for c in close]
        said = (1 + out[name]).cumprod()
        np.testing.assert_allclose(said, np.mean(parts, axis=0)[1:], rtol=1e-12)
    assert (out["5/5"] == 0).all()


def test_filled_at_closes_it_is_the_wealth_of_its_weights():
    close, _ = prices(1)
    close = close[["A"]]
    out = crossings(close, np.array([4]), np.array([9]), costs=0.002)
    long = (close.rolling(4).mean() > close.rolling(9).mean()).astype(float)
    weights = long.shift(fill_value=0.0)  # decided at one close, filled at the next
    changed = weights.diff().fillna(1.0).to_numpy() != 0
    said = wealth(weights.where(changed), close, costs=0.002)
    # a cost lies at the bar of its fill here, and in the period after it there
    total = (1 + out["4/9"]).prod()
    assert total == pytest.approx(said.value.iloc[-1], rel=1e-12)


def test_a_later_price_changes_nothing_before_it():
    close, opened = prices(2)
    pairs = (np.array([3, 7]), np.array([12, 25]))
    whole = crossings(close, *pairs, costs=0.001, opened=opened)
    other = close.copy()
    other.iloc[60:] *= 2
    part = crossings(other, *pairs, costs=0.001, opened=opened)
    pd.testing.assert_frame_equal(whole.iloc[:59], part.iloc[:59])


def test_a_missing_price_is_named():
    close, opened = prices()
    opened.iloc[7, 1] = np.nan
    with pytest.raises(DataError, match="B has no open at 2024-01-08"):
        crossings(close, np.array([2]), np.array([3]), costs=0.001, opened=opened)

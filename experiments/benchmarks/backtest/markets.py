"""Markets to measure on: as many assets and bars as asked for, with trends that come and go."""

import numpy as np
import pandas as pd

from stages.markets.market import AMPLITUDE, Moves, last_bar, plant, scaled, third, total

STAYS = 0.95  # correlation of a planted feature with itself a bar later: half gone in 13.5 bars


def lasting(seed, times, assets, snr, stays=STAYS, features=6):
    """The market `tabular` with features that stay: an order filled a bar later still earns.

    With `stays` of 0 the move is over before an order can be filled, so no honest backtest can earn
    it. An `snr` of 0 is noise.
    """
    rng = np.random.default_rng(seed)
    x_ATF = rng.standard_normal((assets, times, features))
    for t in range(1, times):
        x_ATF[:, t] = stays * x_ATF[:, t - 1] + np.sqrt(1 - stays**2) * x_ATF[:, t]
    terms = scaled(last_bar(x_ATF), AMPLITUDE * snr)
    tilt = total(terms)
    moves = Moves(tilt, rng.standard_normal((assets, times)), third(tilt))
    return plant(x_ATF.astype("float32"), moves, terms)


def market(assets, bars, seed=0):
    """Open, high, low, close of shape (T, A); a common factor, own trends, own noise."""
    rng = np.random.default_rng(seed)
    common = rng.normal(3e-4, 0.008, bars)
    slow = np.sign(np.sin(np.arange(bars)[:, None] / rng.uniform(30, 90, assets)))
    moves = common[:, None] * rng.uniform(0.3, 1.3, assets) + 4e-4 * slow
    close = 50 * np.exp((moves + rng.normal(0, 0.01, (bars, assets))).cumsum(axis=0))
    opened = close * np.exp(rng.normal(0, 0.003, close.shape))
    wick = np.exp(np.abs(rng.normal(0, 0.004, (2, *close.shape))))
    high, low = np.maximum(opened, close) * wick[0], np.minimum(opened, close) / wick[1]
    return {"open": opened, "high": high, "low": low, "close": close}


def panel(prices):
    """The same as a panel of daily bars."""
    bars, assets = prices["close"].shape
    times = pd.date_range("2010-01-01 21:00", periods=bars, freq="B", tz="UTC", unit="us")
    names = [f"E{k:03d}" for k in range(assets)]
    index = pd.MultiIndex.from_product([names, times], names=["asset", "time"])
    out = pd.DataFrame({name: table.T.ravel() for name, table in prices.items()}, index)
    out["volume"] = 1e9
    out["session"] = np.tile(times.tz_localize(None).normalize(), assets)
    out["market"] = np.tile(prices["close"].mean(axis=1), assets)
    return out

"""Markets to measure on: as many assets and bars as asked for, with trends that come and go."""

import numpy as np
import pandas as pd


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

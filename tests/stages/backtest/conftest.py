"""Small markets and policies whose orders are written down beforehand."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from stages.panel import until
from stages.portfolio.book import Order, Plan, Policy
from stages.portfolio.prepared import prepare

NAN = float("nan")


def panel(columns: Mapping[str, np.ndarray], assets=None, start="2024-01-01"):
    """Daily bars of shape (T, A) a column as a panel, closing at 21:00 UTC."""
    close = np.asarray(columns["close"], dtype="float64")
    bars, count = close.shape
    names = list(assets or [f"A{k}" for k in range(count)])
    times = pd.date_range(f"{start} 21:00", periods=bars, tz="UTC", unit="us")
    index = pd.MultiIndex.from_product([names, times], names=["asset", "time"])
    table = {n: np.asarray(v, dtype="float64").T.ravel() for n, v in columns.items()}
    out = pd.DataFrame(table, index)
    out["session"] = np.tile(times.tz_localize(None).normalize(), count)
    return out[np.isfinite(out["close"])]


def walk(seed=0, bars=80, assets=5, gap=0.004):
    """Random OHLCV bars with a market column."""
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(rng.normal(2e-4, 0.015, (bars, assets)).cumsum(axis=0))
    opened = close * np.exp(rng.normal(0, gap, close.shape))
    wick = np.abs(rng.normal(0, 0.005, (2, *close.shape)))
    out = panel(
        {
            "open": opened,
            "high": np.maximum(opened, close) * (1 + wick[0]),
            "low": np.minimum(opened, close) * (1 - wick[1]),
            "close": close,
            "volume": rng.integers(1_000, 100_000, close.shape),
        }
    )
    market = out.groupby(level="time")["close"].transform("mean")
    return out.assign(market=market)


@dataclass(frozen=True)
class Scripted:
    """Hands out orders that were written down: row number to (asset, signed shares)."""

    script: Mapping[int, list[tuple[str, int]]] = field(default_factory=dict)
    warmup: int = 0

    def prepare(self, bars):
        return prepare(bars, {})

    def plan(self, prepared, at, book):
        row = prepared.row(at)
        orders = [
            Order(
                asset,
                "BUY" if shares > 0 else "SELL",
                abs(shares),
                f"written for row {row}",
                *(NAN, NAN, 0.0),
                price=float(prepared.last[row, prepared.place[asset]]),
                value=0.0,
            )
            for asset, shares in self.script.get(row, [])
        ]
        book = replace(book, as_of=prepared.times[row])
        return Plan(tuple(orders), book, {}, pd.DataFrame(), {})


@dataclass(frozen=True)
class Daily:
    """The policy as the daily rebalance runs it: it prepares nothing but what there is."""

    policy: Policy
    bars: pd.DataFrame

    @property
    def warmup(self):
        return self.policy.warmup

    def prepare(self, bars):
        return self.policy.prepare(bars)

    def plan(self, prepared, at, book):
        return self.policy.plan(self.policy.prepare(until(self.bars, at)), at, book)

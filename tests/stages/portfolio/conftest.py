"""A small market with groups, gaps, a late listing and a halt, and books that trade in it."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from stages.portfolio.book import Book, Fill
from stages.portfolio.checks import CircuitBreaker, TimeStop, TrailingStop
from stages.portfolio.clusters import Clusters
from stages.portfolio.signals import Trend, macd
from stages.portfolio.sizes import Sizes
from stages.portfolio.target import Buffer
from stages.portfolio.trend import TrendPolicy

ASSETS = [f"E{n:02d}" for n in range(12)]


def bars_of(closes, volume=None, market=None):
    """A panel of daily bars from a table of closes, sessions by asset; NaN is no bar."""
    rng = np.random.default_rng(5)
    long = closes.melt(ignore_index=False, var_name="asset", value_name="close").reset_index()
    long = long.rename(columns={long.columns[0]: "session"})
    spread = 1 + 0.004 * rng.random((len(long), 2))
    ahead = long.groupby("asset")["close"].shift().fillna(long["close"])
    long["open"] = ahead * (1 + 0.001 * rng.standard_normal(len(long)))
    long["high"] = np.maximum(long["open"], long["close"]) * spread[:, 0]
    long["low"] = np.minimum(long["open"], long["close"]) / spread[:, 1]
    long["volume"] = 1e6 * (0.5 + rng.random(len(long))) if volume is None else volume
    if market is not None:
        long["market"] = market.reindex(long["session"]).to_numpy()
    long["time"] = (long["session"] + pd.Timedelta(hours=21)).dt.tz_localize("UTC").dt.as_unit("us")
    long = long.dropna(subset=["close"]).set_index(["asset", "time"]).sort_index()
    return long[[c for c in long if c != "session"] + ["session"]]


def walks(days=420, seed=3):
    """Closes of 12 assets in 3 groups that share a factor."""
    rng = np.random.default_rng(seed)
    sessions = pd.bdate_range("2021-01-04", periods=days)
    market = 0.004 * rng.standard_normal((days, 1))
    groups = np.repeat(0.012 * rng.standard_normal((days, 3)), 4, axis=1)
    own = 0.004 * rng.standard_normal((days, 12))
    drift = np.repeat(np.cumsum(rng.standard_normal((days, 3)) * 1e-4, axis=0), 4, axis=1)
    returns = market + groups + own + drift
    closes = np.round(100 * np.exp(np.cumsum(returns, axis=0)), 3)
    return pd.DataFrame(closes, index=sessions, columns=ASSETS)


@pytest.fixture(scope="session")
def closes():
    """E10 is listed late, E03 misses a fortnight."""
    table = walks()
    table.iloc[:150, 10] = np.nan
    table.iloc[300:310, 3] = np.nan
    return table


@pytest.fixture(scope="session")
def bars(closes):
    """The same as bars; E05 is halted, without volume, for a week."""
    panel = bars_of(closes, market=closes.ffill().bfill().mean(axis=1))
    halted = closes.index[320:325]
    at = (panel.index.get_level_values("asset") == "E05") & panel["session"].isin(halted)
    panel.loc[at, "volume"] = 0.0
    return panel


@pytest.fixture(scope="session")
def policy():
    """The trend policy with a short memory, so that a short history does."""
    return TrendPolicy(
        trend=Trend(macd),
        buffer=Buffer(buy=4, hold=5, per_cluster=2),
        clusters=Clusters(correlation=0.5),
        checks={
            "trailing_stop": TrailingStop(multiple=3.0),
            "time_stop": TimeStop(bars=8, below=0.0),
            "circuit_breaker": CircuitBreaker(drawdown=-0.08),
        },
        sizes=Sizes(lot=10, each=0.3, cluster=0.45, band=0.03),
    )


def traded(plan, prepared, row):
    """The book after all orders were filled at the closes of a later row; no bar, no fill."""
    book = plan.book
    for order in plan.orders:
        price = prepared.columns["close"][row, prepared.place[order.asset]]
        if np.isfinite(price):
            signed = order.shares if order.action == "BUY" else -order.shares
            fill = Fill(
                order.asset, signed, Decimal(repr(float(price))), Decimal(1), prepared.times[row]
            )
            if book.cash + fill.cash >= 0 or signed < 0:
                book = book.filled(fill)
    return book


def run(policy, prepared, book, rows):
    """Plan each row, fill at the next: (row, book before, plan) of each."""
    for row in rows:
        plan = policy.plan(prepared, prepared.times[row], book)
        yield row, book, plan
        if row + 1 < len(prepared.times):
            book = traded(plan, prepared, row + 1)


@pytest.fixture(scope="session")
def prepared(policy, bars):
    return policy.prepare(bars)


@pytest.fixture(scope="session")
def steps(policy, prepared):
    """A run over all days that can be judged."""
    return list(run(policy, prepared, Book.opened(1_000_000), range(175, 420)))


def holding(book, **positions):
    """A book with these positions in it."""
    return replace(book, positions=positions)

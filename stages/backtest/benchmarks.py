"""What a backtest is held against: an asset, the market column, all assets alike, or cash."""

import numpy as np
import pandas as pd

from stages.backtest.wealth import wealth
from stages.base import ConfigError, DataError
from stages.portfolio.members import MEMBER, membership
from stages.portfolio.prepared import Prepared, prepare

EQUAL, CASH, MARKET = "equal_weight", "cash", "market"
GONE = 10  # rows without a bar from which an asset has left the equal-weight book
YEAR = 365  # days of interest


def benchmark_returns(
    bars: pd.DataFrame, which: str, times: pd.DatetimeIndex, cash_rate: float = 0.0
) -> pd.Series:
    """Returns of a benchmark between the rows of a backtest.

    Parameters
    ----------
    bars : DataFrame of shape (N, F)
        Panel that was traded.
    which : str
        ``equal_weight`` (all assets that have a bar, brought back to equal parts at every row,
        before costs; where `bars` say who belonged, of those), ``cash``, ``market`` (the column of
        that name), or an asset.
    times : DatetimeIndex of T times
        Rows of the backtest.
    cash_rate : float, default=0
        A year, simple, over 365 days.

    Returns
    -------
    Series of T - 1 floats
        Simple, by the end of each period, named `which`.

    Raises
    ------
    ConfigError
        SV-F33 for a name that is none of these.
    DataError
        SV-F20 for a market or an asset without a price at the first of these times.
    """
    if which == CASH:
        return riskless(times, cash_rate).rename(CASH)
    grid = prepare(bars, {MEMBER: membership} if MEMBER in bars else {})
    rows = np.array([grid.row(time) for time in times])
    if which == EQUAL:
        return _equal(grid, rows).rename(EQUAL)
    if which == MARKET and grid.market is not None:
        level = pd.Series(grid.market).ffill().to_numpy()[rows]
    elif which in grid.place:
        level = grid.last[rows, grid.place[which]]
    else:
        near = [asset for asset in grid.assets if asset.upper() == which.upper()]
        raise ConfigError(
            f"benchmark={which} is neither an asset of the data nor one of ours",
            code="SV-F33",
            where="key benchmark",
            cure=f"benchmark={near[0]}"
            if near
            else "equal_weight, cash, market (with data.market=ASSET), or an asset of the data",
        )
    if not np.isfinite(level[0]):
        raise DataError(
            f"the benchmark {which} has no price at {times[0]}",
            code="SV-F20",
            why="the two would be compared over different periods",
            cure=f"start={_first(level, times)}, or another benchmark",
        )
    return pd.Series(level[1:] / level[:-1] - 1, times[1:], name=which)


def riskless(times: pd.DatetimeIndex, cash_rate: float) -> pd.Series:
    """What cash earns between T times, simple, over 365 days: Series of T - 1 floats."""
    days = np.diff(times.as_unit("ns").asi8) / (86_400 * 10**9)
    return pd.Series(cash_rate * days / YEAR, times[1:])


def _equal(grid: Prepared, rows: np.ndarray) -> pd.Series:
    known = np.isfinite(grid.columns["close"])
    newest = np.maximum.accumulate(np.where(known, np.arange(len(known))[:, None], -GONE), axis=0)
    listed = (np.arange(len(known))[:, None] - newest < GONE)[rows]
    if MEMBER in grid.columns:
        listed &= (pd.DataFrame(grid.columns[MEMBER]).ffill() == 1).to_numpy()[rows]
    count = listed.sum(axis=1, keepdims=True)
    weights = listed / np.maximum(count, 1)
    prices = pd.DataFrame(grid.last[rows], grid.times[rows], list(grid.assets))
    return wealth(pd.DataFrame(weights, prices.index, prices.columns), prices, costs="none").returns


def _first(level: np.ndarray, times: pd.DatetimeIndex) -> str:
    known = np.isfinite(level)
    return f"{times[int(known.argmax())]:%Y-%m-%d}" if known.any() else "LATER"

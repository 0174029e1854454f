"""Thousands of settings of a rule of two parameters at once: long where one line tops another."""

import numpy as np
import pandas as pd
from numba import njit

from stages.backtest.costs import Costs, round_trips
from stages.base import DataError
from stages.features.kernels import window_mean


def means(close: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Moving averages of A assets, each window once.

    Parameters
    ----------
    close : float64 ndarray of shape (T, A)
    windows : int ndarray of shape (K,)
        Bars.

    Returns
    -------
    float64 ndarray of shape (K, A, T)
        NaN until a window is full.
    """
    rows = np.ascontiguousarray(np.asarray(close, dtype="float64").T)
    return np.stack([[window_mean(row, int(bars)) for row in rows] for bars in windows])


def crossings(
    close: pd.DataFrame,
    fast: np.ndarray,
    slow: np.ndarray,
    *,
    costs: Costs,
    opened: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Returns of moving-average crossings for N pairs of windows.

    An equal part of the capital stands by for each asset. It is invested from the next bar's open
    while the fast average of the closes is above the slow one, and lies in cash otherwise; parts
    do not help each other out.

    Parameters
    ----------
    close : DataFrame of shape (T, A)
        Complete: fill what is missing, or leave the asset out.
    fast, slow : int ndarray of shape (N,)
        Bars of the two averages, pair by pair.
    costs : float, ndarray, mapping, or ``"none"``
        Round trip; a change costs half of it. See `round_trips`.
    opened : DataFrame of shape (T, A), optional
        Prices at which trades fill; without it those of the next close.

    Returns
    -------
    DataFrame of shape (T - 1, N)
        Simple returns of the whole capital by period, a column ``fast/slow`` a pair.

    Raises
    ------
    DataError
        SV-F10 for a price that is missing.
    """
    prices = np.ascontiguousarray(close.to_numpy(dtype="float64"))
    fills = prices if opened is None else opened.reindex_like(close).to_numpy(dtype="float64")
    for name, table in (("close", prices), ("open", fills)):
        if not (np.isfinite(table) & (table > 0)).all():
            row, column = np.argwhere(~(table > 0))[0]
            raise DataError(
                f"{close.columns[column]} has no {name} at {close.index[row]}",
                code="SV-F10",
                why="a part without a price has no return",
                cure="fill it in, or leave the asset out",
            )
    fast, slow = (np.asarray(bars, dtype="int64") for bars in (fast, slow))
    windows, place = np.unique(np.concatenate([fast, slow]), return_inverse=True)
    rates = round_trips(costs, [str(name) for name in close.columns]) / 2
    lines, above, below = means(prices, windows), place[: len(fast)], place[len(fast) :]
    prices, fills = (np.require(table.T, "float64", ["C", "W"]) for table in (prices, fills))
    worth = compared(lines, above, below, prices, fills, rates)
    names = [f"{a}/{b}" for a, b in zip(fast.tolist(), slow.tolist(), strict=True)]
    returns = worth[:, 1:] / worth[:, :-1] - 1
    return pd.DataFrame(returns.T, close.index[1:], names)


@njit(cache=True)
def compared(lines, above, below, close, fills, rates):  # type: ignore[no-untyped-def]
    """Wealth of N settings, each long where one line is above another, at the next fill.

    Parameters
    ----------
    lines : float64 ndarray of shape (K, A, T)
        A comparison with NaN is not long.
    above, below : int64 ndarray of shape (N,)
        Numbers of lines.
    close, fills : float64 ndarray of shape (A, T)
    rates : float64 ndarray of shape (A,)
        Cost of one side.

    Returns
    -------
    float64 ndarray of shape (N, T)
        Mean over the assets of parts that began with 1.
    """
    count, bars = close.shape
    out = np.zeros((len(above), bars))
    into, rest, day = np.empty(bars), np.empty(bars), np.empty(bars)
    for i in range(count):
        for t in range(1, bars):
            into[t] = fills[i, t] / close[i, t - 1]
            rest[t] = close[i, t] / fills[i, t]
            day[t] = close[i, t] / close[i, t - 1]
        bought, sold = 1 / (1 + rates[i]), 1 - rates[i]  # a cost is paid from what is traded
        for n in range(len(above)):
            one, other = lines[above[n], i], lines[below[n], i]
            worth, long = 1.0, False
            out[n, 0] += worth
            for t in range(1, bars):
                wanted = one[t - 1] > other[t - 1]
                if long:
                    worth *= day[t] if wanted else into[t] * sold
                elif wanted:
                    worth *= rest[t] * bought
                long = wanted
                out[n, t] += worth
    return out / count

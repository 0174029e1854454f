"""TA-Lib behind a guard: it sees clean runs only, so one missing bar spoils only its windows."""

from collections.abc import Callable
from math import isfinite

import numpy as np

from stages.features.kernels import window_max, window_min


def on_clean_runs(
    indicator: Callable[..., np.ndarray], lookback: int, *columns: np.ndarray
) -> np.ndarray:
    """Run `indicator` on each stretch of bars in which every column has a value.

    Handed a series with one NaN, TA-Lib 0.8.2 returns NaN or a wrong number (RSI: exactly 0.0)
    from there to the end.

    Parameters
    ----------
    indicator : callable
        Arrays of shape (t,) to one array of shape (t,); its window must be finite.
    lookback : int
        Bars that each run spends before its first value.
    *columns : ndarray of shape (T,)
        What `indicator` reads.

    Returns
    -------
    float64 ndarray of shape (T,)
    """
    table = [np.ascontiguousarray(column, dtype="float64") for column in columns]
    # a finite sum of squares has finite parts: the usual case, in the least time there is
    if len(table[0]) > lookback and all(isfinite(column.dot(column)) for column in table):
        out = np.asarray(indicator(*table), dtype="float64")
        out[:lookback] = np.nan
        return out
    clean = np.isfinite(table).all(axis=0)
    out = np.full(len(table[0]), np.nan)
    edges = np.flatnonzero(np.diff(clean, prepend=False, append=False))
    for start, stop in edges.reshape(-1, 2):
        if stop - start > lookback:
            run = indicator(*(column[start:stop] for column in table))
            out[start + lookback : stop] = run[lookback:]
    return out


def moving(high: np.ndarray, low: np.ndarray, bars: int) -> np.ndarray:
    """1 where the range of the last `bars` bars is above 0, else NaN: shape (T,).

    TA-Lib answers 0 / 0 with 0.0, which means "at the bottom" and not "unknown".
    """
    return np.where(window_max(high, bars) > window_min(low, bars), 1.0, np.nan)

"""How far and for how long a capital stood below its highest."""

import numpy as np
import pandas as pd


def drawdown(returns: np.ndarray | pd.Series) -> np.ndarray:
    """Capital below its highest so far, the capital at the start counted: fractions at most 0.

    Parameters
    ----------
    returns : float ndarray of shape (T,)
        Simple, of each period.

    Returns
    -------
    float64 ndarray of shape (T,)
    """
    capital = np.cumprod(1 + np.asarray(returns, dtype="float64"))
    return capital / np.maximum(np.maximum.accumulate(capital), 1.0) - 1


def drawdowns(returns: pd.Series) -> pd.DataFrame:
    """Every fall from a highest capital to the next, in order of time.

    Parameters
    ----------
    returns : Series of T floats
        Simple, of each period, by its end.

    Returns
    -------
    DataFrame of shape (falls, 7)
        `peak` (end of the last period before it; NaT for a fall from the start), `trough`, `end`
        (NaT while it lasts), `depth` (fraction above 0), `length` (periods from peak to end, or so
        far), `fall` (from peak to trough) and `recovery` (from trough to end; NaN while it lasts).
    """
    below = drawdown(returns)
    index = returns.index
    under = below < 0
    edge = np.diff(np.concatenate([[False], under, [False]]).astype(int))
    first, after = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
    trough = [a + int(below[a:b].argmin()) for a, b in zip(first, after, strict=True)]
    low = np.array(trough, dtype=int)
    over = after < len(below)
    ends = index.take(np.minimum(after, max(len(index) - 1, 0)))
    peaks = index.take(np.maximum(first - 1, 0))
    return pd.DataFrame(
        {
            "peak": peaks.where(first > 0) if len(first) else peaks,
            "trough": index.take(low),
            "end": ends.where(over) if len(first) else ends,
            "depth": -below[low],
            "length": np.where(over, after, len(below) - 1) - first + 1,
            "fall": low - first + 1,
            "recovery": np.where(over, after - low, np.nan),
        }
    )

"""Says which signals only repeat what was just said of the same asset."""

import numpy as np
import pandas as pd

EPOCH = pd.Timestamp(0, tz="UTC")


def repeats(
    index: pd.Index, side: np.ndarray, measure: np.ndarray, every: pd.Timedelta, rise: float
) -> np.ndarray:
    """Whether each row repeats the last one that counts, of its asset, in the same stretch of time.

    Time is cut into stretches of length `every`, counted from 1970, UTC. In a stretch the first
    row of an asset with a side counts; a later one counts if it changes the side, or if the
    measure rose by `rise` since the last that counts. So what a row is follows from the rows of
    its own asset and stretch alone: not from where the table begins, nor from earlier calls.

    Parameters
    ----------
    index : MultiIndex of N rows
        Asset-major, ascending in time.
    side : int ndarray of shape (N,)
        0 where there is nothing to repeat.
    measure : float64 ndarray of shape (N,)
    every : Timedelta
    rise : float

    Returns
    -------
    bool ndarray of shape (N,)
    """
    rows = np.flatnonzero(side)
    slot = (pd.DatetimeIndex(index.get_level_values("time")[rows]) - EPOCH) // every
    asset = index.get_level_values("asset").factorize()[0][rows]
    same = (asset[1:] == asset[:-1]) & (np.diff(slot) == 0)
    out, last = np.zeros(len(index), dtype=bool), -1
    for k in np.flatnonzero(same) + 1:
        before, row = rows[k - 1], rows[k]
        if not out[before]:
            last = before
        out[row] = side[row] == side[last] and measure[row] < measure[last] + rise
    return out


def stretch_start(times: pd.DatetimeIndex, every: pd.Timedelta) -> pd.DatetimeIndex:
    """When the stretches of `times` began."""
    return pd.DatetimeIndex(times - (times - EPOCH) % every)

"""Planted leaks that a feature function makes: each reads its own asset's later bars.

They run wherever a feature may stand, also from a yaml, to see the audit find them.
"""

import numpy as np
import pandas as pd
from scipy.signal import filtfilt, savgol_filter

from stages.features.cross_section import cross_section
from stages.features.returns import log_return
from stages.panel import warms_up


@warms_up(lambda **_: 0)
def shifted(close: np.ndarray, ahead: int = 1) -> np.ndarray:
    """The return that comes `ahead` bars later: a shift with the sign mixed up."""
    return _at(log_return(close, 1), ahead)


@warms_up(lambda **_: 0)
def later_volume(volume: np.ndarray, ahead: int = 1) -> np.ndarray:
    """The volume `ahead` bars later over that of now."""
    return np.log(_at(volume, ahead) / volume)


@warms_up(lambda **_: 0)
def later_rule(close: np.ndarray, ahead: int = 1) -> np.ndarray:
    """A rule in [-1, 1] that knows the next move."""
    return np.tanh(100 * shifted(close, ahead))


@warms_up(lambda **_: 0)
def centred(close: np.ndarray, ahead: int = 1) -> np.ndarray:
    """A rolling mean with its label in the middle, as ``center=True`` makes it."""
    return np.log(close / pd.Series(close).rolling(2 * ahead + 1, center=True).mean().to_numpy())


@warms_up(lambda **_: 0)
def smoothed(close: np.ndarray, ahead: int = 2) -> np.ndarray:
    """A Savitzky-Golay filter: a polynomial through as many later bars as earlier ones."""
    known = np.nan_to_num(close, nan=float(np.nanmean(close)))
    if len(close) < 2 * ahead + 1:
        return np.full(len(close), np.nan)
    return np.log(known / savgol_filter(known, 2 * ahead + 1, 1))


@warms_up(lambda **_: 0)
def both_ways(close: np.ndarray) -> np.ndarray:
    """A filter run forwards and backwards, so that it does not lag."""
    known = pd.Series(close).ffill().bfill().to_numpy()
    if len(close) < 12:
        return np.full(len(close), np.nan)
    return np.log(known / filtfilt([0.3], [1, -0.7], known))


@warms_up(lambda **_: 0)
def filled_back(close: np.ndarray, ahead: int = 1) -> np.ndarray:
    """A missing price taken from up to `ahead` bars later."""
    return np.log(pd.Series(close).bfill(limit=ahead).to_numpy())


@warms_up(lambda **_: 0)
def filled_with_last(close: np.ndarray) -> np.ndarray:
    """A missing price taken from the end of the file, ``iloc[-1]``."""
    prices = pd.Series(close)
    return np.log(prices.fillna(prices.iloc[-1]).to_numpy())


@warms_up(lambda **_: 0)
def interpolated(close: np.ndarray) -> np.ndarray:
    """A missing price on the line between its neighbours."""
    return np.log(pd.Series(close).interpolate(limit_direction="both").to_numpy())


@warms_up(lambda **_: 0)
def nearest(close: np.ndarray, ahead: int = 1) -> np.ndarray:
    """A slower series, one value every ``2 ahead + 1`` bars, joined to the nearest in time."""
    rows = np.arange(len(close))
    stamps = rows[:: 2 * ahead + 1]
    at = np.abs(rows[:, None] - stamps).argmin(axis=1)
    return np.log(close / close[stamps[at]])


@warms_up(lambda **_: 0)
def next_stamp(close: np.ndarray, ahead: int = 4) -> np.ndarray:
    """A slower series joined to the next stamp, as ``merge_asof(direction='forward')``."""
    at = -(-np.arange(len(close)) // (ahead + 1)) * (ahead + 1)
    return np.log(_taken(close, at) / close)


@warms_up(lambda **_: 0)
def slow_bar(close: np.ndarray, ahead: int = 1) -> np.ndarray:
    """The close of a bar of ``ahead + 1`` bars, joined where that bar opens."""
    at = np.arange(len(close)) // (ahead + 1) * (ahead + 1) + ahead
    return np.log(_taken(close, np.minimum(at, len(close) - 1)) / close)


@cross_section
@warms_up(lambda **_: 0)
def later_rank(of: np.ndarray, ahead: int = 1) -> np.ndarray:
    """The rank, among the assets, of what a column will be `ahead` times later: (T, A)."""
    later = np.vstack([of[ahead:], np.full((min(ahead, len(of)), of.shape[1]), np.nan)])
    return pd.DataFrame(later[: len(of)]).rank(axis=1, pct=True).to_numpy()


def _at(values: np.ndarray, ahead: int) -> np.ndarray:
    """Each value `ahead` places earlier; NaN at the end."""
    return _taken(values, np.arange(len(values)) + ahead)


def _taken(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    out = np.full(len(values), np.nan)
    inside = at < len(values)
    out[inside] = values[at[inside]]
    return out

"""Order statistics of rolling windows: quantiles, and where the extremes stand.

As in `stages.features.kernels`: float arrays of shape (T,), a window of `bars` bars that ends at
the row itself, NaN until it is full and while it holds a NaN, and no memory beyond it.
"""

import numpy as np
from numba import njit

from stages.features.kernels import _checked


def window_quantile(x: np.ndarray, bars: int, share: float) -> np.ndarray:
    """Quantile of the window, linear between its two nearest values: shape (T,).

    Parameters
    ----------
    x : ndarray of shape (T,)
    bars : int >= 1
    share : float in [0, 1]
        0 is the smallest value, 1 the largest; type 7 of Hyndman & Fan (1996), "Sample quantiles
        in statistical packages", The American Statistician 50(4), as numpy and pandas have it.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    return _quantiles(_checked(x, bars), bars, share * (bars - 1))


def window_place_of_max(x: np.ndarray, bars: int) -> np.ndarray:
    """Place of the window's largest value, 1 for its oldest bar to `bars` for the newest.

    Of equal values the oldest counts.
    """
    return _places(_checked(x, bars), bars)


def window_place_of_min(x: np.ndarray, bars: int) -> np.ndarray:
    """Place of the window's smallest value, 1 for its oldest bar to `bars` for the newest."""
    return _places(-_checked(x, bars), bars)


@njit(cache=True)
def _quantiles(x: np.ndarray, bars: int, place: float) -> np.ndarray:
    out = np.full(len(x), np.nan)
    window = np.empty(bars)  # ascending; its first `held` values
    low = int(np.floor(place))
    rest, high = place - low, min(low + 1, bars - 1)
    held = 0
    for i in range(len(x)):
        value = x[i]
        if value != value:
            held = 0
            continue
        if held < bars:
            at = held
            held += 1
        else:
            # counting is branch-free; a binary search mispredicts half of its steps
            at, leaver = 0, x[i - bars]
            for k in range(bars):
                at += window[k] < leaver
        # the gap at `at` walks to where the new value belongs
        while at > 0 and window[at - 1] > value:
            window[at] = window[at - 1]
            at -= 1
        while at < held - 1 and window[at + 1] < value:
            window[at] = window[at + 1]
            at += 1
        window[at] = value
        if held == bars:
            out[i] = window[low] + rest * (window[high] - window[low])
    return out


@njit(cache=True)
def _places(x: np.ndarray, bars: int) -> np.ndarray:
    out = np.full(len(x), np.nan)
    rows = len(x) - bars + 1
    if rows > 0:
        last, best = out[bars - 1 :], np.full(rows, -np.inf)
        last[:] = 1.0
        for k in range(bars):
            for i in range(rows):
                value = x[i + k]
                # a NaN is taken, and then nothing compares greater: it stays
                better = value > best[i] or value != value
                best[i] = value if better else best[i]
                last[i] = k + 1.0 if better else last[i]
        for i in range(rows):
            last[i] += best[i] - best[i]  # 0, or NaN
    return out

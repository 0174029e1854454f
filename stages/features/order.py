"""Order statistics of rolling windows: quantiles, and where the extremes stand.

As in `stages.features.kernels`: float arrays of shape (T,), a window of `bars` bars that ends at
the row itself, NaN until it is full and while it holds a NaN, and no memory beyond it.
"""

import numpy as np
from numba import njit

from stages.features.kernels import checked, windowed
from stages.features.shared import shared


@shared
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
    x = checked(x, bars)
    # each column on its own: contiguous, as the kernel walks along it
    columns = [_quantiles(column, bars, share * (bars - 1)) for column in _columns(x)]
    return np.stack(columns, axis=-1).reshape(x.shape)


def window_place_of_max(x: np.ndarray, bars: int) -> np.ndarray:
    """Place of the window's largest value, 1 for its oldest bar to `bars` for the newest.

    Of equal values the oldest counts.
    """
    return windowed(_places, [x], bars, True)


def window_place_of_min(x: np.ndarray, bars: int) -> np.ndarray:
    """Place of the window's smallest value, 1 for its oldest bar to `bars` for the newest."""
    return window_place_of_max(-x, bars)


def window_age_of_max(x: np.ndarray, bars: int) -> np.ndarray:
    """Bars since the window's largest value, 0 for the row itself: shape (T,).

    Of equal values the newest counts, as in TA-Lib.
    """
    return bars - windowed(_places, [x], bars, False)


def window_age_of_min(x: np.ndarray, bars: int) -> np.ndarray:
    """Bars since the window's smallest value, 0 for the row itself: shape (T,)."""
    return window_age_of_max(-x, bars)


def _columns(x: np.ndarray) -> np.ndarray:
    return x.reshape(1, -1) if x.ndim == 1 else np.ascontiguousarray(x.T)


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _places(x: np.ndarray, out: np.ndarray, bars: int, step: int, oldest: bool) -> None:
    """Place of the largest of 1, 2, 4 … bars, of two halves each; then of two such spans."""
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows > 0:
        best, place, width = x.copy(), np.ones(len(x)), 1
        while 2 * width <= bars:
            best, place = _better(best, place, width * step, width, oldest)
            width *= 2
        best, place = _better(best, place, (bars - width) * step, bars - width, oldest)
        for i in range(rows):
            out[(bars - 1) * step + i] = place[i] + (best[i] - best[i])  # 0, or NaN


@njit(cache=True, nogil=True)
def _better(
    best: np.ndarray, place: np.ndarray, apart: int, bars: int, oldest: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The larger of each number and the one `apart` later, and its place in the span of both."""
    rows = len(best) - apart
    value, at = np.empty(rows), np.empty(rows)
    after, where = best[apart:], place[apart:]
    for i in range(rows):
        a, b = best[i], after[i]
        # a NaN is taken whichever side it stands on
        later = (b > a or b != b) if oldest else (b >= a or b != b)
        value[i] = b if later else a
        at[i] = where[i] + bars if later else place[i]
    return value, at

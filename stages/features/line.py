"""The least-squares line through the last bars: its slope, its fit and what it leaves over.

As in `stages.features.kernels`: float arrays of shape (T,), a window of `bars` bars that ends at
the row itself, NaN until it is full and while it holds a NaN, and no memory beyond it.
"""

import numpy as np
from numba import njit

from stages.features.kernels import checked, ratio, window_mean, window_sd, windowed
from stages.features.shared import shared


def window_slope(x: np.ndarray, bars: int) -> np.ndarray:
    """Slope of the line, in units of `x` per bar: shape (T,)."""
    return _along_line(x, bars) / _spread(bars)


def window_fit(x: np.ndarray, bars: int) -> np.ndarray:
    """Share of the variance that the line explains, in [0, 1]; NaN where `x` stands still."""
    return ratio(_along_line(x, bars) ** 2, _spread(bars) * (bars - 1) * window_sd(x, bars) ** 2)


def window_residual(x: np.ndarray, bars: int) -> np.ndarray:
    """Height of the newest value above the line, in units of `x`: shape (T,)."""
    return x - window_mean(x, bars) - window_slope(x, bars) * ((bars - 1) / 2)


def window_weighted_mean(x: np.ndarray, bars: int) -> np.ndarray:
    """Mean with weights 1 for the oldest bar to `bars` for the newest: shape (T,)."""
    if bars == 1:
        return checked(x, bars).copy()
    return window_mean(x, bars) + _along_line(x, bars) / (bars * (bars + 1) / 2)


@shared
def _along_line(x: np.ndarray, bars: int) -> np.ndarray:
    if bars < 2:
        raise ValueError(f"a line needs 2 bars, got {bars}")
    return windowed(_along, [x, window_mean(x, bars)], bars)


def _spread(bars: int) -> float:
    """Sum of the squared distances of the places 1 ... `bars` from their mean."""
    return bars * (bars**2 - 1) / 12


@njit(cache=True, nogil=True)
def _along(x: np.ndarray, mean: np.ndarray, out: np.ndarray, bars: int, step: int) -> None:
    """Sum over the window of (place - mean place) (x - mean of the window)."""
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows > 0:
        last, centre = out[(bars - 1) * step :], mean[(bars - 1) * step :]
        last[:] = 0.0
        for k in range(bars):
            place, now = k - 0.5 * (bars - 1), x[k * step :]
            for i in range(rows):
                last[i] += place * (now[i] - centre[i])

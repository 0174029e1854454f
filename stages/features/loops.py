"""The inner loops of `stages.features.kernels`: compiled, over flat arrays.

Kernels take flat arrays, in which the bar before stands `step` numbers earlier. In each the
window is the outer loop and the rows the inner one, over slices that begin at the same place:
the compiler turns the inner loop into vector instructions without changing the order of any
single row's sum. Two or four bars a pass spare writes.
"""

import numpy as np
from numba import njit

FLAT = 1e-12  # a spread below this share of the level is rounding: the window stands still


@njit(cache=True, nogil=True, error_model="numpy")
def quotients(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """X / y, NaN where y is 0."""
    out = np.empty(len(top))
    for i in range(len(top)):
        out[i] = top[i] / bottom[i] if bottom[i] != 0.0 else np.nan
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def positive_quotients(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """X / y, NaN unless both are above 0."""
    out = np.empty(len(top))
    for i in range(len(top)):
        # a NaN fails both comparisons
        known = (top[i] > 0.0) & (bottom[i] > 0.0)
        out[i] = top[i] / bottom[i] if known else np.nan
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def positive_changes(x: np.ndarray, out: np.ndarray, bars: int, step: int) -> None:
    """Newest over oldest of the window, NaN unless both are above 0."""
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows > 0:
        last, now = out[(bars - 1) * step :], x[(bars - 1) * step :]
        for i in range(rows):
            known = (now[i] > 0.0) & (x[i] > 0.0)
            last[i] = now[i] / x[i] if known else np.nan


@njit(cache=True, nogil=True)
def squares(x: np.ndarray, mean: np.ndarray, out: np.ndarray, bars: int, step: int) -> None:
    """Mean of the squared distances from the mean of the row."""
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows > 0:
        last, centre = out[(bars - 1) * step :], mean[(bars - 1) * step :]
        last[:] = 0.0
        pairs = bars - bars % 2
        for k in range(0, pairs, 2):
            a, b = x[k * step :], x[(k + 1) * step :]
            for i in range(rows):
                first, second = a[i] - centre[i], b[i] - centre[i]
                last[i] = last[i] + first * first + second * second
        for k in range(pairs, bars):
            a = x[k * step :]
            for i in range(rows):
                last[i] += (a[i] - centre[i]) * (a[i] - centre[i])
        for i in range(rows):
            last[i] /= bars


@njit(cache=True, nogil=True)
def moments(
    x: np.ndarray, mean: np.ndarray, out: np.ndarray, bars: int, step: int, power: int
) -> None:
    """Mean of the distances from the mean of the row to a power: absolute for 1."""
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows > 0:
        last, centre = out[(bars - 1) * step :], mean[(bars - 1) * step :]
        last[:] = 0.0
        for k in range(bars):
            now = x[k * step :]
            if power == 1:
                for i in range(rows):
                    last[i] += abs(now[i] - centre[i])
            elif power == 3:
                for i in range(rows):
                    gap = now[i] - centre[i]
                    last[i] += gap * gap * gap
            else:
                for i in range(rows):
                    square = (now[i] - centre[i]) * (now[i] - centre[i])
                    last[i] += square * square
        for i in range(rows):
            last[i] /= bars


@njit(cache=True, nogil=True)
def extremes(x: np.ndarray, out: np.ndarray, bars: int, step: int, largest: bool) -> None:
    """Largest of 1, 2, 4 … bars, each of two halves; then of two such spans that overlap."""
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows > 0:
        best, width = x.copy(), 1
        while 2 * width <= bars:
            held = best
            best = _further(held, width * step, largest)
            width *= 2
        out[(bars - 1) * step :] = _further(best, (bars - width) * step, largest)[:rows]


@njit(cache=True, nogil=True)
def _further(x: np.ndarray, apart: int, largest: bool) -> np.ndarray:
    """The larger of each number and the one `apart` later, or the smaller; NaN if either is."""
    rows = len(x) - apart
    out, later = np.empty(rows), x[apart:]
    if largest:
        for i in range(rows):
            a, b = x[i], later[i]
            out[i] = b if b > a or b != b else a
    else:
        for i in range(rows):
            a, b = x[i], later[i]
            out[i] = b if b < a or b != b else a
    return out


@njit(cache=True, nogil=True)
def shares(x: np.ndarray, out: np.ndarray, bars: int, step: int) -> None:
    """Share of the window below the newest value, ties half."""
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows > 0:
        last, own = out[(bars - 1) * step :], x[(bars - 1) * step :]
        last[:] = 0.0
        for k in range(bars):
            now = x[k * step :]
            for i in range(rows):
                value = now[i]
                below = 0.5 * (value < own[i]) + 0.5 * (value <= own[i])
                last[i] += below + (value - value)  # 0, or NaN
        for i in range(rows):
            last[i] = last[i] / bars + (own[i] - own[i])


@njit(cache=True, nogil=True)
def smooth(x: np.ndarray, speed: np.ndarray, out: np.ndarray, bars: int, step: int) -> None:
    """Exponential average of each window, each bar with its own speed."""
    out[:] = np.nan
    rows = len(x) - (bars - 1) * step
    if rows > 0:
        mean, weight = np.zeros(rows), np.zeros(rows)
        for k in range(bars):
            now, own = x[k * step :], speed[k * step :]
            for i in range(rows):
                mean[i] += own[i] * (now[i] - mean[i])
                weight[i] += own[i] * (1.0 - weight[i])
        last = out[(bars - 1) * step :]
        for i in range(rows):
            if weight[i] != 0.0:
                last[i] = mean[i] / weight[i]

"""Rolling windows over one asset's bars, each summed afresh, so that no NaN or rounding lingers.

Every function takes a float array of shape (T,) and a window of `bars` bars that ends at the row
itself, and returns float64 of shape (T,): NaN until the window is full and while it holds a NaN.
A value depends on the numbers inside its window alone, bit for bit.
"""

import numpy as np
from numba import njit

FLAT = 1e-12  # a spread below this share of the level is rounding: the window stands still


def window_mean(x: np.ndarray, bars: int) -> np.ndarray:
    """Mean of the window."""
    return _sums(_checked(x, bars), bars) / bars


def window_sum(x: np.ndarray, bars: int) -> np.ndarray:
    """Sum of the window."""
    return _sums(_checked(x, bars), bars)


def window_sd(x: np.ndarray, bars: int) -> np.ndarray:
    """Standard deviation of the window (divisor `bars` - 1); exactly 0 where it stands still."""
    if bars < 2:
        raise ValueError(f"a standard deviation needs 2 bars, got {bars}")
    mean = window_mean(x, bars)
    sd = np.sqrt(window_moment(x, mean, bars, 2) * (bars / (bars - 1)))
    return np.where(sd <= FLAT * np.abs(mean), 0.0, sd)


def window_moment(x: np.ndarray, mean: np.ndarray, bars: int, power: int) -> np.ndarray:
    """Mean of ``(x - mean) ** power`` over the window; `mean` is that of the row."""
    return _moments(_checked(x, bars), _checked(mean, bars), bars, power) / bars


def window_covariance(x: np.ndarray, y: np.ndarray, bars: int) -> np.ndarray:
    """Covariance of two series over the window (divisor `bars`)."""
    x, y = _checked(x, bars), _checked(y, bars)
    return _comoments(x, _sums(x, bars) / bars, y, _sums(y, bars) / bars, bars) / bars


def window_max(x: np.ndarray, bars: int) -> np.ndarray:
    """Largest value of the window."""
    return _maxima(_checked(x, bars), bars)


def window_min(x: np.ndarray, bars: int) -> np.ndarray:
    """Smallest value of the window."""
    return -_maxima(-_checked(x, bars), bars)


def window_share_below(x: np.ndarray, bars: int) -> np.ndarray:
    """Share of the window's values below the row's own, ties counted half: in (0, 1)."""
    return _shares(_checked(x, bars), bars)


def smoothed(x: np.ndarray, speed: float | np.ndarray, bars: int) -> np.ndarray:
    """Exponential average over exactly `bars` bars, weights normalised to sum to 1.

    A textbook recursion remembers its first price for ever; this one forgets it after `bars`
    bars, which makes the value a function of a known history.

    Parameters
    ----------
    x : ndarray of shape (T,)
    speed : float or ndarray of shape (T,), in (0, 1]
        Weight of each bar against those before it: ``2 / (span + 1)``, Wilder's ``1 / period``,
        ``1 - decay``, or KAMA's own for each bar.
    bars : int
        Ten time constants (five spans, ten Wilder periods) leave out a weight of e^-10.
    """
    x = _checked(x, bars)
    return _smooth(x, _checked(np.broadcast_to(speed, x.shape), bars), bars)


def shifted(x: np.ndarray, bars: int) -> np.ndarray:
    """The value `bars` bars earlier, NaN where there is none."""
    out = np.full(len(x), np.nan)
    if bars < 0:
        raise ValueError(f"bars must be >= 0, got {bars}: a negative shift reads the future")
    out[bars:] = x[: max(len(x) - bars, 0)]
    return out


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is 0: what cannot be measured is not zero."""
    out = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def log_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Logarithm of a quotient, NaN unless both are above 0."""
    out = np.full(np.shape(denominator), np.nan)
    # a NaN fails both comparisons, so it stays NaN without a warning
    known = (numerator > 0) & (denominator > 0)
    return np.log(np.divide(numerator, denominator, out=out, where=known), out=out, where=known)


def _checked(x: np.ndarray, bars: int) -> np.ndarray:
    if bars < 1:
        raise ValueError(f"a window needs at least 1 bar, got {bars}")
    # pandas 3 hands out read-only arrays, for which numba would compile each kernel again
    return np.require(x, "float64", ["C", "W"])


# In each kernel the window is the outer loop and the rows the inner one: the compiler turns the
# inner loop into vector instructions without changing the order of any single row's sum.


@njit(cache=True)
def _sums(x: np.ndarray, bars: int) -> np.ndarray:
    out = np.full(len(x), np.nan)
    rows = len(x) - bars + 1
    if rows > 0:
        last = out[bars - 1 :]
        last[:] = 0.0
        for k in range(bars):
            for i in range(rows):
                last[i] += x[i + k]
    return out


@njit(cache=True)
def _moments(x: np.ndarray, mean: np.ndarray, bars: int, power: int) -> np.ndarray:
    out = np.full(len(x), np.nan)
    rows = len(x) - bars + 1
    if rows > 0:
        last, centre = out[bars - 1 :], mean[bars - 1 :]
        last[:] = 0.0
        for k in range(bars):
            for i in range(rows):
                gap = x[i + k] - centre[i]
                term = gap * gap
                if power == 3:
                    term = term * gap
                elif power == 4:
                    term = term * term
                last[i] += term
    return out


@njit(cache=True)
def _comoments(
    x: np.ndarray, mean_x: np.ndarray, y: np.ndarray, mean_y: np.ndarray, bars: int
) -> np.ndarray:
    out = np.full(len(x), np.nan)
    rows = len(x) - bars + 1
    if rows > 0:
        last, centre_x, centre_y = out[bars - 1 :], mean_x[bars - 1 :], mean_y[bars - 1 :]
        last[:] = 0.0
        for k in range(bars):
            for i in range(rows):
                last[i] += (x[i + k] - centre_x[i]) * (y[i + k] - centre_y[i])
    return out


@njit(cache=True)
def _maxima(x: np.ndarray, bars: int) -> np.ndarray:
    out = np.full(len(x), np.nan)
    rows = len(x) - bars + 1
    if rows > 0:
        last = out[bars - 1 :]
        last[:] = -np.inf
        for k in range(bars):
            for i in range(rows):
                value = x[i + k]
                # a NaN is taken, and then nothing compares greater: it stays
                if value > last[i] or value != value:
                    last[i] = value
    return out


@njit(cache=True)
def _shares(x: np.ndarray, bars: int) -> np.ndarray:
    out = np.full(len(x), np.nan)
    rows = len(x) - bars + 1
    if rows > 0:
        last, own = out[bars - 1 :], x[bars - 1 :]
        last[:] = 0.0
        for k in range(bars):
            for i in range(rows):
                value = x[i + k]
                below = 0.5 * (value < own[i]) + 0.5 * (value <= own[i])
                last[i] += below + (value - value)  # 0, or NaN
        for i in range(rows):
            last[i] = last[i] / bars + (own[i] - own[i])
    return out


@njit(cache=True)
def _smooth(x: np.ndarray, speed: np.ndarray, bars: int) -> np.ndarray:
    out = np.full(len(x), np.nan)
    rows = len(x) - bars + 1
    if rows > 0:
        mean, weight = np.zeros(rows), np.zeros(rows)
        for k in range(bars):
            for i in range(rows):
                mean[i] += speed[i + k] * (x[i + k] - mean[i])
                weight[i] += speed[i + k] * (1.0 - weight[i])
        for i in range(rows):
            if weight[i] != 0.0:
                out[i + bars - 1] = mean[i] / weight[i]
    return out

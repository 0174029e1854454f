"""Rolling windows over one asset's bars, each summed afresh, so that no NaN or rounding lingers.

Every function takes a float array of shape (T,) and a window of `bars` bars that ends at the row
itself, and returns float64 of shape (T,): NaN until the window is full and while it holds a NaN.
A value depends on the numbers inside its window alone, bit for bit.

An array of shape (T, A) holds A assets side by side, one a column, and gives in each column the
bits that the column gives alone: a stream of bars works on the last bars of many assets that way.
"""

import numpy as np

from stages.features import halves, loops
from stages.features.shared import owner, shared


@shared
def window_mean(x: np.ndarray, bars: int) -> np.ndarray:
    """Mean of the window."""
    return window_sum(x, bars) / bars


@shared
def window_sum(x: np.ndarray, bars: int) -> np.ndarray:
    """Sum of the window."""
    x = checked(x, bars)
    return _shaped(halves.sums(_flat(x), bars, beside(x)), x)


@shared
def window_sd(x: np.ndarray, bars: int) -> np.ndarray:
    """Standard deviation of the window (divisor `bars` - 1); exactly 0 where it stands still."""
    if bars < 2:
        raise ValueError(f"a standard deviation needs 2 bars, got {bars}")
    x = checked(x, bars)
    return _shaped(halves.deviations(_flat(x), bars, beside(x), loops.FLAT), x)


def window_moment(x: np.ndarray, mean: np.ndarray, bars: int, power: int) -> np.ndarray:
    """Mean of ``abs(x - mean) ** power`` over the window, signed if 3; `mean` is the row's."""
    x, mean = checked(x, bars), checked(mean, bars)
    flat = _flat(x), _flat(mean)
    if power == 2:
        total = loops.squares(*flat, bars, beside(x))
    else:
        total = loops.moments(*flat, bars, power, beside(x))
    return _shaped(total, x) / bars


@shared
def window_covariance(x: np.ndarray, y: np.ndarray, bars: int) -> np.ndarray:
    """Covariance of two series over the window (divisor `bars`)."""
    x, y = checked(x, bars), checked(y, bars)
    return _shaped(halves.comoments(_flat(x), _flat(y), bars, beside(x)), x) / bars


def window_max(x: np.ndarray, bars: int) -> np.ndarray:
    """Largest value of the window."""
    x = checked(x, bars)
    return _shaped(loops.maxima(_flat(x), bars, beside(x)), x)


def window_min(x: np.ndarray, bars: int) -> np.ndarray:
    """Smallest value of the window."""
    return -window_max(-checked(x, bars), bars)


def window_share_below(x: np.ndarray, bars: int) -> np.ndarray:
    """Share of the window's values below the row's own, ties counted half: in (0, 1)."""
    x = checked(x, bars)
    return _shaped(loops.shares(_flat(x), bars, beside(x)), x)


@shared
def smoothed(x: np.ndarray, speed: float | np.ndarray, bars: int) -> np.ndarray:
    """Exponential average over exactly `bars` bars, weights normalised to sum to 1.

    A textbook recursion remembers its first price for ever; this one forgets it after `bars`
    bars, which makes the value a function of a known history.

    Parameters
    ----------
    x : ndarray of shape (T,)
    speed : float or ndarray of the shape of `x`, in (0, 1]
        Weight of each bar against those before it: ``2 / (span + 1)``, Wilder's ``1 / period``,
        ``1 - decay``, or KAMA's own for each bar.
    bars : int
        Ten time constants (five spans, ten Wilder periods) leave out a weight of e^-10.
    """
    x = checked(x, bars)
    if np.ndim(speed) == 0:
        return _shaped(halves.smooth_evenly(_flat(x), float(speed), bars, beside(x)), x)
    own = _flat(checked(np.asarray(speed), bars))
    return _shaped(loops.smooth(_flat(x), own, bars, beside(x)), x)


def shifted(x: np.ndarray, bars: int) -> np.ndarray:
    """The value `bars` bars earlier, NaN where there is none."""
    if bars < 0:
        raise ValueError(f"bars must be >= 0, got {bars}: a negative shift reads the future")
    out = np.empty(np.shape(x))
    out[:bars] = np.nan
    out[bars:] = x[: max(len(x) - bars, 0)]
    return out


def change(x: np.ndarray, bars: int = 1) -> np.ndarray:
    """What it moved by in `bars` bars, NaN where there is no bar before."""
    return x - shifted(x, bars)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is 0: what cannot be measured is not zero."""
    top, bottom = _alike(numerator, denominator)
    return _shaped(loops.quotients(_flat(top), _flat(bottom)), bottom)


def log_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Logarithm of a quotient, NaN unless both are above 0."""
    top, bottom = _alike(numerator, denominator)
    out = loops.positive_quotients(_flat(top), _flat(bottom))
    return _shaped(np.log(out, out=out), bottom)


def _flat(x: np.ndarray) -> np.ndarray:
    return x if x.ndim == 1 else x.reshape(-1)  # a stream of one asset calls this often


def _shaped(out: np.ndarray, x: np.ndarray) -> np.ndarray:
    return out if x.ndim == 1 else out.reshape(x.shape)


def _alike(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if getattr(x, "shape", ()) != getattr(y, "shape", ()):
        x, y = np.broadcast_arrays(x, y)
    return checked(x, 1), checked(y, 1)


def checked(x: np.ndarray, bars: int) -> np.ndarray:
    """`x` as kernels take it: float64, contiguous and writeable; refuses an empty window."""
    if bars < 1:
        raise ValueError(f"a window needs at least 1 bar, got {bars}")
    if type(x) is np.ndarray and x.dtype.char == "d":
        if x.flags.carray:
            return x  # sooner than np.require says the same
        if (own := owner(x)) is not None:
            return own
    # pandas 3 hands out read-only arrays, for which numba would compile each kernel again
    return np.require(x, "float64", ["C", "W"])


def beside(x: np.ndarray) -> int:
    """How many assets stand side by side: the distance from a bar to the next, in numbers."""
    return 1 if x.ndim == 1 else x.shape[1]

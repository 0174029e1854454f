"""Rolling windows over one asset's bars, each summed afresh, so that no NaN or rounding lingers.

Every function takes a float array of shape (T,) and a window of `bars` bars that ends at the row
itself, and returns float64 of shape (T,): NaN until the window is full and while it holds a NaN.
A value depends on the numbers inside its window alone, bit for bit.

An array of shape (T, A) holds A assets side by side, one a column, and gives in each column the
bits that the column gives alone: a stream of bars works on the last bars of many assets that way.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from stages.features import halves, loops
from stages.features.shared import owner, shared


@shared
def window_mean(x: np.ndarray, bars: int) -> np.ndarray:
    """Mean of the window."""
    return windowed(halves.means, [x], bars)


@shared
def window_sum(x: np.ndarray, bars: int) -> np.ndarray:
    """Sum of the window."""
    return windowed(halves.sums, [x], bars)


@shared
def window_sd(x: np.ndarray, bars: int) -> np.ndarray:
    """Standard deviation of the window (divisor `bars` - 1); exactly 0 where it stands still."""
    if bars < 2:
        raise ValueError(f"a standard deviation needs 2 bars, got {bars}")
    return windowed(halves.deviations, [x], bars, loops.FLAT)


def window_moment(x: np.ndarray, mean: np.ndarray, bars: int, power: int) -> np.ndarray:
    """Mean of ``abs(x - mean) ** power`` over the window, signed if 3; `mean` is the row's."""
    if power == 2:
        return windowed(loops.squares, [x, mean], bars)
    return windowed(loops.moments, [x, mean], bars, power)


@shared
def window_covariance(x: np.ndarray, y: np.ndarray, bars: int) -> np.ndarray:
    """Covariance of two series over the window (divisor `bars`)."""
    return windowed(halves.comoments, [x, y], bars)


def window_max(x: np.ndarray, bars: int) -> np.ndarray:
    """Largest value of the window."""
    return windowed(loops.extremes, [x], bars, True)


def window_min(x: np.ndarray, bars: int) -> np.ndarray:
    """Smallest value of the window."""
    return windowed(loops.extremes, [x], bars, False)


def window_share_below(x: np.ndarray, bars: int) -> np.ndarray:
    """Share of the window's values below the row's own, ties counted half: in (0, 1)."""
    return windowed(loops.shares, [x], bars)


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
    if isinstance(speed, np.ndarray):
        return windowed(loops.smooth, [x, speed], bars)
    return windowed(halves.smooth_evenly, [x], bars, float(speed), _weight(float(speed), bars))


def shifted(x: np.ndarray, bars: int) -> np.ndarray:
    """The value `bars` bars earlier, NaN where there is none."""
    if bars < 0:
        raise ValueError(f"bars must be >= 0, got {bars}: a negative shift reads the future")
    out = np.empty(x.shape)
    out[:bars] = np.nan
    out[bars:] = x[: max(len(x) - bars, 0)]
    return out


def log_change(x: np.ndarray, bars: int = 1) -> np.ndarray:
    """`log_ratio` of each value and the one `bars` bars earlier."""
    if bars < 0:
        raise ValueError(f"bars must be >= 0, got {bars}: a negative shift reads the future")
    out = windowed(loops.positive_changes, [x], bars + 1)
    return np.log(out, out=out)


def change(x: np.ndarray, bars: int = 1) -> np.ndarray:
    """What it moved by in `bars` bars, NaN where there is no bar before."""
    return x - shifted(x, bars)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is 0: what cannot be measured is not zero."""
    return _paired(loops.quotients, numerator, denominator)


def log_ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Logarithm of a quotient, NaN unless both are above 0."""
    out = _paired(loops.positive_quotients, numerator, denominator)
    return np.log(out, out=out)


def _paired(
    kernel: Callable[..., np.ndarray], x: np.ndarray | float, y: np.ndarray | float
) -> np.ndarray:
    """What a compiled kernel makes of two arrays number by number; one is stretched if need be."""
    if not (type(x) is type(y) is np.ndarray and x.shape == y.shape):
        x, y = np.broadcast_arrays(x, y)
    left, right = checked(x, 1), checked(y, 1)
    # an array of its own: compiled code knows that it is none of the others, and goes in parallel
    if left.ndim == 1:
        return kernel(left, right)
    return kernel(left.reshape(-1), right.reshape(-1)).reshape(left.shape)


@lru_cache(maxsize=4096)  # as many steps as the window has bars, for settings that recur
def _weight(speed: float, bars: int) -> float:
    return halves.weight_of(speed, bars)


def windowed(
    kernel: Callable[..., None], columns: Sequence[np.ndarray], bars: int, *settings: float
) -> np.ndarray:
    """What a compiled kernel makes of the windows of each asset, in the shape of the columns.

    Parameters
    ----------
    kernel : callable
        Takes the columns flat, where its values go, `bars`, how far apart a bar and the next one
        are, and `settings`: to give an array back costs a call more than to fill one.
    columns : sequence of ndarray of shape (T,) or (T, A)
    bars : int
    *settings : float, int or bool
    """
    held = [checked(x, bars) for x in columns]
    shape = held[0].shape
    out = np.empty(shape)
    if len(shape) == 1:
        kernel(*held, out, bars, 1, *settings)
    else:
        flat = [x.reshape(-1) for x in held]
        kernel(*flat, out.reshape(-1), bars, shape[1], *settings)
    return out


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

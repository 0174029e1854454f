"""Where an asset stands among the others of the same time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numba import njit

from stages.features.kernels import checked
from stages.features.loops import FLAT
from stages.panel import warms_up

Wide = TypeVar("Wide", bound=Callable[..., np.ndarray])


def cross_section(function: Wide) -> Wide:
    """Mark a function of wide arrays, shape (T, A): one row a time, NaN where an asset is absent.

    Rows must not see each other, and the order of the assets must not matter.
    """
    function.across_assets = True  # type: ignore[attr-defined]
    return function


@cross_section
@warms_up(lambda **_: 0)
def rank(of: np.ndarray) -> np.ndarray:
    """Rank among the assets of the time, centred: in (-0.5, 0.5), shape (T, A).

    Parameters
    ----------
    of : ndarray of shape (T, A)
        What to rank; in yaml the name of a bar column or of a feature listed above. Ties share
        their mean rank. A time with fewer than two values has no ranks.
    """
    known = np.where(np.isfinite(of), of, np.nan)
    return _ranks(known, np.argsort(known, axis=1))  # NaN come last


def ranks(of: Sequence[str]) -> dict[str, partial[np.ndarray]]:
    """`rank` of each of the columns `of`, under their own names: for a mapping in yaml."""
    # a text names the column that is read in its place
    return {name: partial(rank, of=name) for name in of}  # type: ignore[arg-type]


@cross_section
@warms_up(lambda **_: 0)
def z_score(of: np.ndarray) -> np.ndarray:
    """Distance from the mean of the time, in standard deviations (divisor count - 1): (T, A).

    NaN where fewer than two values are known or all are alike.
    """
    return _scores(checked(of, 1), FLAT)


@cross_section
@warms_up(lambda **_: 0)
def dispersion(of: np.ndarray) -> np.ndarray:
    """Standard deviation among the assets of the time, the same for all that have a value: (T, A).

    References
    ----------
    Stivers & Sun (2010), "Cross-Sectional Return Dispersion and Time Variation in Value and
    Momentum Premiums", J. Financial and Quantitative Analysis 45(4).
    """
    return _dispersions(checked(of, 1))


@cross_section
@warms_up(lambda **_: 0)
def breadth(of: np.ndarray) -> np.ndarray:
    """Share of the assets of the time whose value is above 0, less a half: shape (T, A).

    The same for all that have a value; NaN where fewer than two have one.

    References
    ----------
    Zaremba, Szyszka, Karathanasopoulos & Mikutowski (2021), "Herding for profits: Market breadth
    and the cross-section of global equity returns", Economic Modelling 97.
    """
    return _breadths(checked(of, 1))


@cross_section
@warms_up(lambda **_: 0)
def rank_in_sector(of: np.ndarray, sector: np.ndarray) -> np.ndarray:
    """`rank` among the assets of the same sector: in (-0.5, 0.5), shape (T, A).

    Parameters
    ----------
    of : ndarray of shape (T, A)
    sector : ndarray of shape (T, A)
        Number of the asset's sector at the time; NaN has none. A sector with fewer than two
        values at a time has no ranks.
    """
    out = np.full(of.shape, np.nan)
    for number in np.unique(sector[np.isfinite(sector)]):
        inside = sector == number
        out = np.where(inside, rank(np.where(inside, of, np.nan)), out)
    return out


@njit(cache=True, nogil=True)
def moments_across(of: np.ndarray) -> tuple[float, float, int]:
    """Mean, deviation and count of the known values of a time; NaN below two.

    They are added up one after the other: an absent asset changes no bit.
    """
    total, count = 0.0, 0
    for value in of:
        if np.isfinite(value):
            total += value
            count += 1
    if count < 2:
        return np.nan, np.nan, count
    mean, square = total / count, 0.0
    for value in of:
        if np.isfinite(value):
            square += (value - mean) * (value - mean)
    return mean, np.sqrt(square / (count - 1)), count


@njit(cache=True, nogil=True, error_model="numpy")
def _scores(of: np.ndarray, flat: float) -> np.ndarray:
    out = np.full(of.shape, np.nan)
    for t in range(len(of)):
        mean, spread, _ = moments_across(of[t])
        for k in range(of.shape[1]):
            gap = of[t, k] - mean
            # not where all are alike within rounding, nor for what is unknown
            if np.isfinite(of[t, k]) and spread > flat * abs(of[t, k] - gap):
                out[t, k] = gap / spread
    return out


@njit(cache=True, nogil=True)
def _dispersions(of: np.ndarray) -> np.ndarray:
    out = np.full(of.shape, np.nan)
    for t in range(len(of)):
        _, spread, _ = moments_across(of[t])
        for k in range(of.shape[1]):
            if np.isfinite(of[t, k]):
                out[t, k] = spread
    return out


@njit(cache=True, nogil=True)
def _breadths(of: np.ndarray) -> np.ndarray:
    out = np.full(of.shape, np.nan)
    for t in range(len(of)):
        count = above = 0
        for value in of[t]:
            count += np.isfinite(value)
            above += value > 0
        for k in range(of.shape[1] if count > 1 else 0):
            if np.isfinite(of[t, k]):
                out[t, k] = above / count - 0.5
    return out


@njit(cache=True, nogil=True)
def _ranks(of: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Ranks of each row, whose ascending order is given; ties share their mean."""
    out = np.full(of.shape, np.nan)
    for t in range(len(of)):
        values, places = of[t], order[t]
        count = 0
        while count < len(places) and values[places[count]] == values[places[count]]:
            count += 1
        if count < 2:
            continue
        first = 0
        while first < count:
            last = first  # of the values that tie
            while last + 1 < count and values[places[last + 1]] == values[places[first]]:
                last += 1
            for k in range(first, last + 1):
                out[t, places[k]] = (0.5 * (first + last) + 0.5) / count - 0.5
            first = last + 1
    return out

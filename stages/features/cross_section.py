"""Where an asset stands among the others of the same time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numba import njit

from stages.features.kernels import ratio
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
    gap, spread, _ = _moments(of)
    return ratio(gap, np.where(spread > FLAT * np.abs(of - gap), spread, 0.0 * spread))


@cross_section
@warms_up(lambda **_: 0)
def dispersion(of: np.ndarray) -> np.ndarray:
    """Standard deviation among the assets of the time, the same for all that have a value: (T, A).

    References
    ----------
    Stivers & Sun (2010), "Cross-Sectional Return Dispersion and Time Variation in Value and
    Momentum Premiums", J. Financial and Quantitative Analysis 45(4).
    """
    gap, spread, _ = _moments(of)
    return spread + 0.0 * gap


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
    _, _, count = _moments(of)
    above = (of > 0).sum(axis=1, keepdims=True)
    share = np.where(count > 1, above / np.maximum(count, 1), np.nan)
    return share - 0.5 + 0.0 * np.where(np.isfinite(of), of, np.nan)


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


def _moments(of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance from the mean, deviation and count of each time; NaN below two values."""
    known = np.isfinite(of)
    count = known.sum(axis=1, keepdims=True)
    mean = total_across(np.where(known, of, 0.0)) / np.maximum(count, 1)
    gap = np.where(known & (count > 1), of - mean, np.nan)
    square = total_across(np.where(known, gap, 0.0) ** 2) / np.maximum(count - 1, 1)
    return gap, np.where(count > 1, np.sqrt(square), np.nan), count


def total_across(of: np.ndarray) -> np.ndarray:
    """Sum over the assets one after the other, (T, 1): an absent one, a 0, changes no bit."""
    return np.add.accumulate(of, axis=1)[:, -1:] if of.shape[1] else of.sum(axis=1, keepdims=True)


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

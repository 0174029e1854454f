"""Where an asset stands among the others of the same time."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numba import njit

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
    return _ranks(np.require(of, "float64", ["C", "W"]))


def ranks(of: Sequence[str]) -> dict[str, partial[np.ndarray]]:
    """`rank` of each of the columns `of`, under their own names: for a mapping in yaml."""
    # a text names the column that is read in its place
    return {name: partial(rank, of=name) for name in of}  # type: ignore[arg-type]


@njit(cache=True)
def _ranks(of: np.ndarray) -> np.ndarray:
    out = np.full(of.shape, np.nan)
    for t in range(len(of)):
        known = np.flatnonzero(np.isfinite(of[t]))
        count = len(known)
        if count < 2:
            continue
        values = of[t][known]
        order = np.argsort(values)
        first = 0
        while first < count:
            last = first  # of the values that tie
            while last + 1 < count and values[order[last + 1]] == values[order[first]]:
                last += 1
            for k in range(first, last + 1):
                out[t, known[order[k]]] = (0.5 * (first + last) + 0.5) / count - 0.5
            first = last + 1
    return out

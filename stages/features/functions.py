"""What a function of a set reads, and how it runs along the assets."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numba import njit

from stages.features.kernels import checked
from stages.panel import inputs_of, warmup


def reads(function: Any) -> dict[str, str]:
    """Which column each input of a function takes: parameter name to column name.

    An input is a parameter that the function itself gives no default; a partial that binds one
    to a text names the column to read instead.
    """
    declared = function.func if isinstance(function, partial) else function
    bound = function.keywords if isinstance(function, partial) else {}
    return {name: bound.get(name, name) for name in _inputs(declared)}


@lru_cache(maxsize=4096)  # a signature takes longer to read than many features to compute
def _inputs(function: Any) -> tuple[str, ...]:
    return tuple(inputs_of(function))


def bound(function: Any) -> Any:
    """The function with its settings, but without the names of columns that a partial binds."""
    if not isinstance(function, partial):
        return function
    taken = reads(function)
    settings = {k: v for k, v in function.keywords.items() if k not in taken}
    return partial(function.func, *function.args, **settings)


@dataclass(frozen=True)
class Along:
    """A function along one asset, and how it runs along several in one go.

    Attributes
    ----------
    run : callable
        With its settings bound: takes its inputs alone.
    sources : tuple of str
        Columns that it reads, in order.
    together : bool
        Whether it forgets what stands before its windows, and so the asset before.
    bars : int
        Its warm-up; 0 where it does not say.
    """

    run: Any
    sources: tuple[str, ...]
    together: bool
    bars: int

    def values(self, inputs: list[np.ndarray], starts: np.ndarray) -> np.ndarray:
        """Values for assets that begin at `starts`, to be handed to `put`: shape (n,)."""
        if self.together:
            return checked(self.run(*inputs), 1)
        out = np.empty(int(starts[-1]))
        for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            if stop > start:
                out[start:stop] = self.run(*(values[start:stop] for values in inputs))
        return out

    def put(self, values: np.ndarray, starts: np.ndarray, out: np.ndarray) -> int:
        """Write what `values` gave, blank where a window reaches into the asset before.

        Parameters
        ----------
        values : float64 ndarray of shape (n,)
        starts : int ndarray of shape (a + 1,)
        out : float32 or float64 ndarray of shape (n,)

        Returns
        -------
        int
            How many are infinite in `out`.
        """
        return _put(values, starts, self.bars, out)


@lru_cache(maxsize=4096)
def along(function: Any) -> Along:
    """How a function that is not across the assets runs."""
    together = forgets(function)
    bars = warmup(function) if together else 0
    return Along(bound(function), tuple(reads(function).values()), together, bars)


@lru_cache(maxsize=4096)  # of a function with its settings, by which it stays the same
def forgets(function: Any) -> bool:
    """Whether a function gives the same bits whatever stands before the windows it declares.

    One along an asset is tried on drawn numbers; one across the assets must not look back at all.
    """
    if not hasattr(getattr(function, "func", function), "warmup"):
        return False
    if across_assets(function):
        return warmup(function) == 0
    try:
        inputs, bars, run = len(reads(function)), warmup(function), bound(function)
        drawn = np.random.default_rng(0).lognormal(size=(inputs, bars + 500))
        return all(_alike_later(run, x, bars, 37) for x in (drawn, _uneven(drawn)))
    except Exception:  # noqa: BLE001 - what cannot be tried is not relied on
        return False


def _uneven(drawn: np.ndarray) -> np.ndarray:
    """Numbers that begin with large and small ones: what is measured on the whole series shows."""
    scale = np.ones(drawn.shape[1])
    scale[:37:2], scale[1:37:2] = 1e3, 1e-3
    return drawn * scale


def _alike_later(run: Any, inputs: np.ndarray, bars: int, first: int) -> bool:
    """Whether a series that begins at `first` has the values of the whole one, once warm."""
    with np.errstate(all="ignore"):
        whole, late = (run(*(x[start:].copy() for x in inputs)) for start in (0, first))
    tried = whole[bars + first :]
    return bool(np.isfinite(tried).any() and np.array_equal(tried, late[bars:], equal_nan=True))


def across_assets(function: Any) -> bool:
    """Whether a function, or its partial, was marked with `cross_section`."""
    return getattr(getattr(function, "func", function), "across_assets", False)


@njit(cache=True, nogil=True)
def _put(values: np.ndarray, starts: np.ndarray, bars: int, out: np.ndarray) -> int:
    """Write the values, NaN for the first bars of each asset; how many are infinite then."""
    endless = 0
    for asset in range(len(starts) - 1):
        start, stop = starts[asset], starts[asset + 1]
        warm = min(start + bars, stop)
        out[start:warm] = np.nan
        made, kept = values[warm:stop], out[warm:stop]
        for i in range(len(kept)):
            kept[i] = made[i]
            endless += abs(kept[i]) == np.inf
    return endless

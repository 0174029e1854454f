"""Columns of a panel as arrays: run along each asset's bars, or across the assets of each time."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd
from numba import njit

from stages.features.returns import log_return
from stages.panel import asset_starts, inputs_of, warmup

STRETCH = 8192  # rows; their columns stay in the cache of a processor


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


def sector_numbers(sector: pd.Series) -> np.ndarray:
    """A number for each name of a sector, NaN for none: float64 of shape (N,)."""
    codes = pd.factorize(sector)[0].astype("float64")
    return np.where(codes < 0, np.nan, codes)


def session_days(panel: pd.DataFrame) -> np.ndarray:
    """Days since 1970-01-01 of each bar's exchange date, or of its UTC time: float64 (N,)."""
    dates = panel["session"] if "session" in panel else panel.index.get_level_values("time")
    days = pd.DatetimeIndex(dates).tz_localize(None).to_numpy().astype("datetime64[D]")
    return np.where(np.isnat(days), np.nan, days.astype("int64"))


@dataclass
class Rows:
    """The columns of a panel, float64 and contiguous, with the shape of the panel beside them.

    Parameters
    ----------
    index : MultiIndex of N rows
        (asset, time), asset-major.
    starts : int ndarray of shape (A + 1,)
        First row of each asset, and N.
    columns : dict of str to float64 ndarray of shape (N,)
    """

    index: pd.Index
    starts: np.ndarray
    columns: dict[str, np.ndarray]

    @classmethod
    def of(cls, panel: pd.DataFrame, names: set[str]) -> "Rows":
        """Copy the columns `names` that the panel has; number sectors and days of sessions."""
        columns = {
            str(name): sector_numbers(panel[name])
            if name == "sector"
            else panel[name].to_numpy(dtype="float64", copy=True)
            for name in panel.columns
            if name in names
        }
        if "session_day" in names and "session_day" not in columns:
            columns["session_day"] = session_days(panel)
        return cls(panel.index, asset_starts(panel), columns)

    def run(self, function: Any) -> np.ndarray:
        """Values of a feature, context or rule for every row: float64 of shape (N,)."""
        inputs = [self.columns[column] for column in reads(function).values()]
        run = bound(function)
        if across_assets(function):
            return self._across(run, inputs)
        out = np.empty(len(self.index))
        together = forgets(function)
        for start, stop in self._stretches() if together else self._own():
            out[start:stop] = run(*(values[start:stop] for values in inputs))
        if together:  # where a window reaches back into the asset before, it is not complete
            _blank(out, self.starts, warmup(function))
        return out

    def _own(self) -> Iterator[tuple[int, int]]:
        """First row of each asset, and the row after its last."""
        rows = zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True)
        return ((start, stop) for start, stop in rows if stop > start)

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """The same of assets that are run along in one go: a call costs as much as many rows."""
        first = last = 0
        for start, stop in self._own():
            if stop - first > STRETCH and last > first:
                yield first, last
                first = start
            last = stop
        if last > first:
            yield first, last

    def back(self, newest: np.ndarray, bars: int) -> np.ndarray:
        """Rows from the time on by which each asset has `bars` bars before its first `newest`.

        Parameters
        ----------
        newest : ndarray of bool, shape (N,)
        bars : int

        Returns
        -------
        ndarray of bool, shape (N,)
            The whole cross-section of each time is kept.
        """
        wanted = np.flatnonzero(newest)
        asset = np.searchsorted(self.starts, wanted, side="right") - 1
        first = wanted[np.flatnonzero(np.diff(asset, prepend=-1))]
        start = self.starts[np.searchsorted(self.starts, first, side="right") - 1]
        since = self.time_codes[np.maximum(first - bars, start)]
        return self.time_codes >= since.min(initial=len(self.times))

    def of_rows(self, kept: np.ndarray) -> "Rows":
        """These rows alone, with the same assets: one may have no row left."""
        starts = np.concatenate([[0], np.cumsum(kept)])[self.starts]
        columns = {name: values[kept] for name, values in self.columns.items()}
        part = Rows(self.index[kept], starts, columns)
        part.__dict__["assets"] = self.assets  # by its first row an asset is no longer found
        return part

    def equal_weight(self) -> np.ndarray:
        """Level of the equal-weight index of the panel's assets, 1 at its first time: (N,).

        It compounds the mean log return of the assets that have a close at the time and at their
        own bar before; a time at which none has is NaN, and its move is lost.
        """
        total, count = np.zeros(len(self.times)), np.zeros(len(self.times))
        self.add_moves(self.time_codes, total, count)
        return level_of(total, count)[self.time_codes]

    def add_moves(self, at: np.ndarray, total: np.ndarray, count: np.ndarray) -> None:
        """Add the log returns of the assets, and how many there are, to the sums of their times.

        Parameters
        ----------
        at : int ndarray of shape (N,)
            Number of each row's time.
        total, count : float64 ndarray of shape (T,)
            Changed in place.
        """
        returns = self.run(partial(log_return, bars=1))
        # asset by asset in order of name: the sum of a time depends neither on the order of the
        # panel nor on assets that are listed later
        for asset in np.argsort(self.assets):
            rows = slice(self.starts[asset], self.starts[asset + 1])
            known = np.isfinite(returns[rows])
            now = at[rows][known]
            total[now] += returns[rows][known]
            count[now] += 1

    def listed(self) -> dict[str, pd.Timestamp]:
        """First time of each asset."""
        firsts = self.index.get_level_values("time")[self.starts[:-1]]
        return dict(zip(self.assets.tolist(), firsts, strict=True))

    def coverage(self, listed: dict[str, pd.Timestamp]) -> np.ndarray:
        """Share of the assets listed by a row's time that have a row at it: (N,) in [0, inf).

        Parameters
        ----------
        listed : dict of str to Timestamp
            First time of each asset of the universe.
        """
        member = np.isin(self.assets, list(listed))
        own = np.repeat(member, np.diff(self.starts))
        present = np.bincount(self.time_codes[own], minlength=len(self.times))
        firsts = pd.DatetimeIndex(list(listed.values())).as_unit("us").sort_values()
        due = np.searchsorted(firsts.asi8, self.times.as_unit("us").asi8, side="right")
        return (present / np.maximum(due, 1))[self.time_codes]

    @cached_property
    def assets(self) -> np.ndarray:
        """Names of the assets in panel order: shape (A,)."""
        return np.asarray(self.index.get_level_values("asset")[self.starts[:-1]], dtype="str")

    @cached_property
    def _codes(self) -> tuple[np.ndarray, pd.DatetimeIndex]:
        codes, times = self.index.get_level_values("time").factorize(sort=True)
        return np.asarray(codes), pd.DatetimeIndex(times)

    @property
    def time_codes(self) -> np.ndarray:
        """Number of each row's time among the ascending times of the panel: shape (N,)."""
        return self._codes[0]

    @property
    def times(self) -> pd.DatetimeIndex:
        """The panel's times, ascending and unique: shape (T,)."""
        return self._codes[1]

    def _across(self, function: Any, inputs: list[np.ndarray]) -> np.ndarray:
        shape = len(self.times), len(self.assets)
        wide = [np.full(shape, np.nan) for _ in inputs]
        for table, values in zip(wide, inputs, strict=True):
            table.reshape(-1)[self._place] = values
        return function(*wide).reshape(-1)[self._place]

    @cached_property
    def _place(self) -> np.ndarray:
        """Where each row stands in a table of times and assets, row after row: shape (N,)."""
        # assets stand in order of name, whatever the panel's order: sums come out the same
        place = np.argsort(np.argsort(self.assets))
        return self.time_codes * len(self.assets) + np.repeat(place, np.diff(self.starts))


def level_of(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Level of the equal-weight index at each time, 1 at the first: shape (T,).

    Parameters
    ----------
    total, count : ndarray of shape (T,)
        Sum of the log returns of a time, and how many they are.
    """
    mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
    level = np.where(count > 0, np.exp(np.cumsum(mean)), np.nan)
    level[:1] = 1.0
    return level


@njit(cache=True)
def _blank(values: np.ndarray, starts: np.ndarray, bars: int) -> None:
    """Blank the first bars of each asset."""
    for asset in range(len(starts) - 1):
        values[starts[asset] : min(starts[asset] + bars, starts[asset + 1])] = np.nan

"""Columns of a panel as arrays: run along each asset's bars, or across the assets of each time."""

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
import pandas as pd

from stages.features.returns import log_return
from stages.panel import asset_starts, inputs_of


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
        for start, stop in zip(self.starts[:-1], self.starts[1:], strict=True):
            out[start:stop] = run(*(values[start:stop] for values in inputs))
        return out

    def equal_weight(self) -> np.ndarray:
        """Level of the equal-weight index of the panel's assets, 1 at its first time: (N,).

        It compounds the mean log return of the assets that have a close at the time and at their
        own bar before; a time at which none has is NaN, and its move is lost.
        """
        returns = self.run(partial(log_return, bars=1))
        total, count = np.zeros(len(self.times)), np.zeros(len(self.times))
        # asset by asset in order of name: the sum of a time depends neither on the order of the
        # panel nor on assets that are listed later
        for asset in np.argsort(self.assets):
            rows = slice(self.starts[asset], self.starts[asset + 1])
            known = np.isfinite(returns[rows])
            at = self.time_codes[rows][known]
            total[at] += returns[rows][known]
            count[at] += 1
        mean = np.divide(total, count, out=np.zeros_like(total), where=count > 0)
        level = np.where(count > 0, np.exp(np.cumsum(mean)), np.nan)
        level[:1] = 1.0
        return level[self.time_codes]

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
        # assets stand in order of name, whatever the panel's order: sums come out the same
        place = np.argsort(np.argsort(self.assets))
        where = self.time_codes, np.repeat(place, np.diff(self.starts))
        wide = [np.full((len(self.times), len(self.assets)), np.nan) for _ in inputs]
        for table, values in zip(wide, inputs, strict=True):
            table[where] = values
        return function(*wide)[where]

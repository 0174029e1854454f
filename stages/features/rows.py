"""Columns of a panel as arrays: run along each asset's bars, or across the assets of each time."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from stages.features.functions import across_assets, along, bound, reads
from stages.features.returns import log_return
from stages.panel import asset_starts

STRETCH = 8192  # rows; their columns stay in the cache of a processor


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
        if across_assets(function):
            inputs = [self.columns[column] for column in reads(function).values()]
            return self._across(bound(function), inputs)
        out, run = np.empty(len(self.index)), along(function)
        for first, last, starts in self.stretches():
            inputs = [self.columns[column][first:last] for column in run.sources]
            run.put(run.values(inputs, starts), starts, out[first:last])
        return out

    def stretches(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Assets that are run along in one go, as a call costs as much as many rows.

        Yields
        ------
        int, int, int ndarray of shape (a + 1,)
            First row, the row after the last, and where each asset begins between them.
        """
        first, assets = 0, len(self.starts) - 1
        for asset in range(assets):
            after = self.starts[min(asset + 2, assets)] - self.starts[first]
            if asset + 1 == assets or after > STRETCH:
                low, high = int(self.starts[first]), int(self.starts[asset + 1])
                if high > low:
                    yield low, high, self.starts[first : asset + 2] - low
                first = asset + 1

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

"""The last bars of each asset: what a prediction looks back on, and what a copy is known by."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from pipeline.data.bars import ordered
from pipeline.data.columns import FAMILIES

SESSION = "session"  # a column of dates, microseconds since 1970 here
Fate = Literal["new", "copy", "corrected"]


class Line:
    """Bars of one asset by time, in arrays with room to spare."""

    def __init__(self, columns: int) -> None:
        self.times, self.rows = np.empty(64, "int64"), np.empty((64, columns))
        self.n = 0

    def place(self, time: int) -> int:
        """Where a bar of `time` is, or belongs."""
        if self.n == 0 or time > self.times[self.n - 1]:
            return self.n
        return int(self.times[: self.n].searchsorted(time))

    def insert(self, at: int, time: int, row: np.ndarray) -> None:
        """Put a bar before those from place `at` on."""
        if self.n == len(self.times):
            self.times = np.concatenate([self.times, np.empty_like(self.times)])
            self.rows = np.concatenate([self.rows, np.empty_like(self.rows)])
        if at < self.n:
            self.times[at + 1 : self.n + 1] = self.times[at : self.n].copy()
            self.rows[at + 1 : self.n + 1] = self.rows[at : self.n].copy()
        self.times[at], self.rows[at] = time, row
        self.n += 1

    def forget(self, n: int) -> None:
        """Let go of the first `n` bars."""
        self.times[: self.n - n] = self.times[n : self.n].copy()
        self.rows[: self.n - n] = self.rows[n : self.n].copy()
        self.n -= n

    def widen(self, columns: int) -> None:
        """Make room for further columns, missing so far."""
        wider = np.full((len(self.rows), columns), np.nan)
        wider[:, : self.rows.shape[1]] = self.rows
        self.rows = wider


class History:
    """The last bars of each asset.

    Parameters
    ----------
    depth : int
        Bars of an asset that a prediction looks back on, its own included.
    span : int
        Microseconds before the newest bar of all in which bars may still come.

    Attributes
    ----------
    names : list of str
        Columns of the bars.
    newest : int
        Time of the newest bar, microseconds since 1970; 0 without one.
    """

    def __init__(self, depth: int, span: int) -> None:
        self.depth, self.span = depth, span
        self.names: list[str] = []
        self.lines: dict[str, Line] = {}
        self.before: dict[tuple[str, int], list[np.ndarray]] = {}  # what was corrected
        self.newest = 0

    def row(self, names: Sequence[str], values: Sequence[Any]) -> np.ndarray:
        """Values under `names` in the order of this history; what it lacks is missing."""
        if list(names) == self.names:
            return np.array(values, dtype="float64")
        fresh = [name for name in names if name not in self.names]
        if fresh:
            self.names += fresh
            for line in self.lines.values():
                line.widen(len(self.names))
        given = dict(zip(names, values, strict=True))
        return np.array([given.get(name) for name in self.names], dtype="float64")

    def known(self, asset: str, time: int, row: np.ndarray) -> bool:
        """Whether this bar, or one that was corrected to another since, is held."""
        line = self.lines.get(asset)
        if line is None:
            return False
        at = line.place(time)
        if at == line.n or line.times[at] != time:
            return False
        told = [line.rows[at], *self.before.get((asset, time), ())]
        return any(_same(old, row) for old in told)

    def put(self, asset: str, time: int, row: np.ndarray) -> tuple[Fate, int]:
        """Take a bar in; say what it was, and which revision it is."""
        line = self.lines.setdefault(asset, Line(len(self.names)))
        at = line.place(time)
        self.newest = max(self.newest, time)
        if at == line.n or line.times[at] != time:
            line.insert(at, time, row)
            self._trim(asset, line)
            return "new", 0
        older = self.before.get((asset, time), [])
        if any(_same(old, row) for old in (line.rows[at], *older)):
            return "copy", 0
        self.before[asset, time] = [*older, line.rows[at].copy()]
        line.rows[at] = row
        return "corrected", len(older) + 1

    def since(self, time: int, assets: Iterable[str]) -> list[tuple[int, str]]:
        """Time and asset of all bars of `assets` from `time` on."""
        found = []
        for asset in assets:
            line = self.lines[asset]
            found += [(int(t), asset) for t in line.times[line.place(time) : line.n]]
        return found

    def table(self, assets: Iterable[str], until: int) -> pd.DataFrame:
        """The last `depth` bars of each asset up to a time, as a panel.

        Returns
        -------
        DataFrame of shape (N, F)
            Index (asset, time), by name and time; float64, columns of features float32.
        """
        names, counts, times, rows = [], [], [], []
        for asset in sorted(assets):
            line = self.lines[asset]
            end = line.place(until + 1)
            begin = max(0, end - self.depth)
            if end > begin:
                names.append(asset)
                counts.append(end - begin)
                times.append(line.times[begin:end])
                rows.append(line.rows[begin:end])
        stamps = pd.DatetimeIndex(np.concatenate(times).view("M8[us]")).tz_localize("UTC")
        index = pd.MultiIndex.from_arrays(
            [pd.Index(np.repeat(names, counts), dtype="str"), stamps], names=["asset", "time"]
        )
        values = np.concatenate(rows)
        columns = {name: values[:, at] for at, name in enumerate(self.names)}
        session = columns.pop(SESSION).astype("int64").view("M8[us]")
        made = {n: v.astype("float32") if n.startswith(FAMILIES) else v for n, v in columns.items()}
        return ordered(pd.DataFrame(made, index).assign(session=session))

    def _trim(self, asset: str, line: Line) -> None:
        """Let go of what no bar that may still come would look back on."""
        if line.n < 64 or line.n < len(line.times):
            return
        spare = line.place(self.newest - self.span) - self.depth
        if spare > line.n // 4:
            for time in line.times[:spare]:
                self.before.pop((asset, int(time)), None)
            line.forget(spare)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape == other.shape and (one == other).all():
        return True
    n = max(len(one), len(other))
    first, second = (np.append(x, np.full(n - len(x), np.nan)) for x in (one, other))
    return bool(np.array_equal(first, second, equal_nan=True))

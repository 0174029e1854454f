"""The columns of a feature set, computed some assets at a time: what they share, only once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.features.functions import across_assets, along, reads
from stages.features.rows import Rows
from stages.features.shared import sharing


@dataclass(frozen=True)
class Columns:
    """Functions of a panel's rows, and where their values go.

    Parameters
    ----------
    rows : Rows
        The bars; columns that other functions read are put beside them.
    functions : mapping of str to callable
        By the name of their column; each reads the bars, or columns of functions before it.
    table : float32 or float64 ndarray of shape (N, F), column-major
        To be filled.
    kept : mapping of str to int
        Column of the table, of those functions that are kept.
    covered : bool ndarray of shape (N,)
        Rows whose time stands for the universe: others have no cross-section.
    given : mapping of str to float64 ndarray of shape (N,)
        Values that are known already.
    threads : int >= 1, default=1
        How many assets, or columns across the assets, are computed at a time: the same bits.
    """

    rows: Rows
    functions: Mapping[str, Any]
    table: np.ndarray
    kept: Mapping[str, int]
    covered: np.ndarray
    given: Mapping[str, np.ndarray]
    threads: int = 1

    def fill(self) -> None:
        """Compute every function that is kept, or read by another.

        Raises
        ------
        DataError
            SV-F12 for a column that comes out infinite.
        """
        asked = {column for f in self.functions.values() for column in reads(f).values()}
        # a column of the bars goes before a feature of the same name
        asked -= set(self.rows.columns)
        read = {name: short for name in self.functions if (short := _short(name)) in asked}
        wanted = {n: f for n, f in self.functions.items() if n in self.kept or n in read}
        for turn, names in enumerate(_turns(wanted, read)):
            at_once = [name for name in names if turn % 2 or name in self.given]
            for name in [name for name in at_once if name in read]:
                self._whole(name, read[name])  # others of this turn may read it
            last = [name for name in at_once if name not in read]
            list(self._each(lambda name: self._whole(name, None), last))
            self._along([name for name in names if name not in at_once], read)

    def _whole(self, name: str, read_as: str | None) -> None:
        """One column in one go: across the assets, or given."""
        if name in self.given:
            values = self.given[name]
        else:
            values = np.where(self.covered, self.rows.run(self.functions[name]), np.nan)
        if read_as:
            self.rows.columns[read_as] = values
        if name in self.kept:
            dtype = self.table.dtype.name
            self.table[:, self.kept[name]] = finite(name, values, self.rows.index, dtype)

    def _along(self, names: Sequence[str], read: Mapping[str, str]) -> None:
        """Columns along the assets: all of them for some assets, then for the next."""
        columns = self.rows.columns
        columns |= {read[n]: np.empty(len(self.table)) for n in names if n in read}
        runs = {name: along(self.functions[name]) for name in names}
        needed = {column for run in runs.values() for column in run.sources}
        needed |= {read[name] for name in names if name in read}

        def fill(stretch: tuple[int, int, np.ndarray]) -> set[str]:
            """Columns of some assets; the names of those that are infinite."""
            first, last, starts = stretch
            here = {column: columns[column][first:last] for column in needed}
            endless = set()
            with sharing():
                for name, run in runs.items():
                    values = run.values([here[column] for column in run.sources], starts)
                    if name in read:
                        run.put(values, starts, here[read[name]])
                    if name in self.kept:
                        column = self.table[first:last, self.kept[name]]
                        if run.put(values, starts, column):
                            endless.add(name)
            return endless

        endless = set().union(*self._each(fill, self.rows.stretches() if names else ()))
        for name in names:
            if name in endless:
                values = self.rows.run(self.functions[name])
                finite(name, values, self.rows.index, self.table.dtype.name)

    def _each(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """Results of some work on each item; in threads, as kernels run without the lock."""
        if self.threads == 1:
            return map(work, items)
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(work, items))


def _short(name: str) -> str:
    """Under which name others read a column; a rule or a context under none."""
    family, _, short = name.partition(".")
    return short if family == "feature" else name


def _turns(functions: Mapping[str, Any], read: Mapping[str, str]) -> list[list[str]]:
    """Names in as few groups as may be, along the assets and across them by turns, along first."""
    turns: list[list[str]] = []
    turn_of: dict[str, int] = {}
    for name, function in functions.items():
        above = max((turn_of.get(c, 0) for c in reads(function).values()), default=0)
        turn = above + (above % 2 != across_assets(function))
        if name in read:
            turn_of[read[name]] = turn
        turns += [[] for _ in range(turn + 1 - len(turns))]
        turns[turn].append(name)
    return turns


def finite(name: str, values: np.ndarray, index: pd.Index, dtype: str = "float32") -> np.ndarray:
    """Cast; an infinity is a fault of the function, not a missing value."""
    with np.errstate(over="ignore"):  # what does not fit in float32 becomes inf, found below
        out = values.astype(dtype)
    endless = np.isinf(out)
    if endless.any():
        row = int(endless.argmax())
        raise DataError(
            f"{name} is infinite for {index[row][0]} at {index[row][1]}: {values[row]}",
            code="SV-F12",
            where=f"{endless.sum()} rows",
            why="LightGBM reads infinity, XGBoost refuses it",
            cure="return NaN where the value is not defined (stages.features.kernels.ratio)",
        )
    return out

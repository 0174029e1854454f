"""A few rows of a panel as arrays, for stages to read without the price of a DataFrame."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import pandas as pd


class Table:
    """Rows of a checked panel that answer like a DataFrame, sooner.

    What stages ask most (names, masks, ``loc``, ``iloc``, `assign`) is answered from arrays, in
    microseconds instead of fifths of a millisecond: a signal takes a hundred looks. Whatever
    else is asked is asked of a DataFrame of the same rows.

    Parameters
    ----------
    index : MultiIndex of N rows
        Of a checked panel.
    names : mapping of str to int
        Columns of `cells`.
    cells : ndarray of shape (N, M)
    own : mapping of str to ndarray of shape (N,)
        Columns assigned since.
    rest : DataFrame
        What other columns are read from when asked for, at the row numbers `at`.
    places : mapping of str to int
        Columns of `rest`: an index of texts is slow to ask.
    """

    def __init__(
        self,
        index: pd.MultiIndex,
        names: Mapping[str, int],
        cells: np.ndarray,
        own: Mapping[str, np.ndarray],
        rest: pd.DataFrame,
        at: np.ndarray,
        places: Mapping[str, int],
    ) -> None:
        self.index, self.names, self.cells = index, names, cells
        self.own, self.rest, self.at, self.places = own, rest, at, places

    @classmethod
    def of(cls, panel: pd.DataFrame, families: Sequence[str]) -> Self:
        """A checked `panel`, of which the columns `families` will be asked for most."""
        names = {name: i for i, name in enumerate(families)}
        index, at = cast(pd.MultiIndex, panel.index), np.arange(len(panel))
        places = {name: i for i, name in enumerate(panel.columns.tolist())}
        cells = panel.iloc[:, [places[name] for name in families]].to_numpy()
        return cls(index, names, cells, {}, panel, at, places)

    @property
    def columns(self) -> list[str]:
        return [*self.places, *(name for name in self.own if name not in self.places)]

    def __len__(self) -> int:
        return len(self.at)

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self.places

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return pd.Series(self._column(key), self.index, name=key, copy=False)
        if isinstance(key, np.ndarray) and key.dtype == bool:
            return self.take(np.flatnonzero(key))
        return Cells(self, list(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copying and pickling ask before there is anything
            raise AttributeError(name)
        return getattr(self.frame(), name)

    def frame(self) -> pd.DataFrame:
        """The same rows and columns as a DataFrame."""
        return pd.DataFrame({name: self._column(name) for name in self.columns}, self.index)

    @property
    def loc(self) -> "_At":
        return _At(self, by_label=True)

    @property
    def iloc(self) -> "_At":
        return _At(self, by_label=False)

    def take(self, rows: Any) -> Self:
        """The rows of these numbers, or of a slice."""
        own = {name: values[rows] for name, values in self.own.items()}
        index = cast(pd.MultiIndex, self.index[rows])
        cells, at = self.cells[rows], self.at[rows]
        return type(self)(index, self.names, cells, own, self.rest, at, self.places)

    def assign(self, **columns: Any) -> Self:
        """The table with more columns, or with others in their place."""
        own = dict(self.own)
        for name, values in columns.items():
            own[name] = np.full(len(self), values) if np.isscalar(values) else np.asarray(values)
        return type(self)(self.index, self.names, self.cells, own, self.rest, self.at, self.places)

    def values_of(self, wanted: Sequence[str]) -> np.ndarray:
        """The named columns, shape (N, len(wanted)), in their common type."""
        if self.own.keys().isdisjoint(wanted) and self.names.keys() >= set(wanted):
            return self.cells[:, [self.names[name] for name in wanted]]
        columns = [self._column(name) for name in wanted]
        return np.column_stack(columns) if columns else np.empty((len(self), 0))

    def _column(self, name: str) -> np.ndarray:
        if name in self.own:
            return self.own[name]
        if name in self.names:
            return self.cells[:, self.names[name]]
        return self.rest.iloc[:, self.places[name]].to_numpy()[self.at]


class Cells:
    """Some columns of a table, to be read as one array."""

    def __init__(self, table: Table, wanted: list[str]) -> None:
        self.table, self.wanted = table, wanted

    def to_numpy(self, dtype: Any = None, copy: bool = False) -> np.ndarray:
        return np.array(self.table.values_of(self.wanted), dtype, copy=copy or None)

    def __len__(self) -> int:
        return len(self.table)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        frame = pd.DataFrame(self.table.values_of(self.wanted), self.table.index, self.wanted)
        return getattr(frame, name)


class _At:
    """Rows by label or by number, and columns if they are asked for too."""

    def __init__(self, table: Table, by_label: bool) -> None:
        self.table, self.by_label = table, by_label

    def __getitem__(self, key: Any) -> Any:
        rows, columns = key if isinstance(key, tuple) else (key, None)
        if isinstance(rows, np.ndarray) and rows.dtype == bool:
            rows = np.flatnonzero(rows)
        elif self.by_label:
            rows = self.table.index.get_indexer(rows)
        found = self.table.take(rows)
        return found if columns is None else found[columns]

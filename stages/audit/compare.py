"""Bit by bit: what one component says of the same past in two worlds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

ROWS = "rows"  # column of a finding about a row that one of the worlds lacks


@dataclass(frozen=True)
class Said:
    """What a component said in one world, and what it may depend on.

    Attributes
    ----------
    component : str
    values : DataFrame of shape (N, ...)
        Indexed by (asset, time); several rows of one place stand in the order they were said.
    known : DatetimeIndex of N times
        From when on each row is settled: a comparison at a time looks at the rows settled by it.
        A feature is settled at its bar, a label at its end.
    whole : bool
        Whether a row that only one world has is a difference too.
    """

    component: str
    values: pd.DataFrame
    known: pd.DatetimeIndex
    whole: bool = True

    @classmethod
    def at_rows(cls, component: str, values: pd.DataFrame, whole: bool = True) -> "Said":
        """Values that are settled at the time of their own row."""
        times = pd.DatetimeIndex(values.index.get_level_values("time"))
        return cls(component, values, times, whole)

    def by(self, time: pd.Timestamp) -> pd.DataFrame:
        """The rows settled by `time`."""
        keep = np.asarray(self.known <= time)
        return self.values if keep.all() else self.values[keep]


@dataclass(frozen=True)
class Difference:
    """The first value of one column that the future moved.

    Attributes
    ----------
    component, column : str
    asset : str
    time : Timestamp
        Of the earliest row that differs.
    rows : int
        Rows of the column that differ.
    here, there : str
        The value in either world.
    """

    component: str
    column: str
    asset: str
    time: pd.Timestamp
    rows: int
    here: str
    there: str


def differences(here: Said, there: Said, time: pd.Timestamp) -> Iterator[Difference]:
    """Yield the first difference of each column among the rows settled by `time`.

    Parameters
    ----------
    here, there : Said
        Of one component, in two worlds that are the same up to `time`.
    time : Timestamp
    """
    one, two = here.by(time), there.by(time)
    if not one.index.equals(two.index):
        one, two = _numbered(one), _numbered(two)
        if here.whole and there.whole:
            lost = one.index.symmetric_difference(two.index)
            if len(lost):
                yield _lost(here.component, lost, one.index)
        shared = one.index.intersection(two.index, sort=False)
        one, two = one.loc[shared], two.loc[shared]
    times = pd.DatetimeIndex(one.index.get_level_values("time"))
    for column in dict.fromkeys([*one.columns, *two.columns]):
        if column not in one or column not in two:
            moved = np.ones(len(one), dtype=bool)
        else:
            moved = differs(one[column], two[column])
        if moved.any():
            at = np.flatnonzero(moved)
            first = int(at[times[at].argmin()])
            yield Difference(
                here.component,
                str(column),
                str(one.index[first][0]),
                times[first],
                len(at),
                _text(one, column, first),
                _text(two, column, first),
            )


def differs(one: pd.Series, two: pd.Series) -> np.ndarray:
    """Where two columns of N values are not the same to the last bit; NaN is the same as NaN."""
    a, b = _plain(one), _plain(two)
    if a.dtype.kind in "fiub" and b.dtype.kind in "fiub":
        return np.asarray((a != b) & ~((a != a) & (b != b)))  # noqa: PLR0124
    pairs = zip(a.tolist(), b.tolist(), strict=True)
    return np.array([not (x is y or x == y or (_empty(x) and _empty(y))) for x, y in pairs], bool)


def _plain(column: pd.Series) -> np.ndarray:
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub":
        return column.to_numpy()
    if isinstance(column.dtype, pd.DatetimeTZDtype) or column.dtype.kind == "M":
        return pd.DatetimeIndex(column).as_unit("ns").asi8
    if pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype="float64", na_value=np.nan)
    return column.to_numpy(dtype=object)


def _empty(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with a third level that counts the rows of one place from 0."""
    place = table.groupby(level=[0, 1], sort=False).cumcount()
    return table.set_index(place.rename("place"), append=True)


def _lost(component: str, lost: pd.Index, here: pd.Index) -> Difference:
    times = pd.DatetimeIndex(lost.get_level_values("time"))
    first = lost[int(times.argmin())]
    there, gone = ("present", "absent") if first in here else ("absent", "present")
    return Difference(component, ROWS, str(first[0]), first[1], len(lost), there, gone)


def _text(table: pd.DataFrame, column: Any, row: int) -> str:
    if column not in table:
        return "absent"
    value = table[column].iloc[row]
    return f"{value:.9g}" if isinstance(value, float | np.floating) else str(value)

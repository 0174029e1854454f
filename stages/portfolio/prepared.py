"""Bars and what follows from them as tables of time by asset, made once and read day by day."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from inspect import signature

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.features.functions import reads
from stages.features.rows import Rows
from stages.panel import BARS, check_panel, warms_up
from stages.portfolio.members import MEMBER

LIVING = 20  # rows without a bar after which an asset no longer counts as listed
Column = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Prepared:
    """What a policy looks at.

    A row is a decision time: a session where no asset has more than one bar in any (daily bars,
    whose closes may differ between exchanges), else a time of the panel. No value of a row
    depends on a later bar.

    Attributes
    ----------
    times : DatetimeIndex of T UTC times
        When the last bar of the row was known.
    assets : tuple of A str
        In order of name.
    columns : mapping of str to float64 ndarray of shape (T, A)
        ``close`` and what the parts of a policy asked for; NaN where there is no bar.
    last : float64 ndarray of shape (T, A)
        Newest close known at the row, NaN before the first.
    seen : int ndarray of shape (T, A)
        Number of bars up to the row.
    open : bool ndarray of shape (T, A)
        Whether the asset was traded in the row: it has a close, and no volume of 0.
    market : float64 ndarray of shape (T,) or None
        Close of the market.
    sessions : DatetimeIndex of T dates, or None
    """

    times: pd.DatetimeIndex
    assets: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    last: np.ndarray
    seen: np.ndarray
    open: np.ndarray
    market: np.ndarray | None
    sessions: pd.DatetimeIndex | None

    @cached_property
    def place(self) -> dict[str, int]:
        """Number of each asset."""
        return {asset: number for number, asset in enumerate(self.assets)}

    def places(self, assets: Iterable[str]) -> np.ndarray:
        """Numbers of n assets: int of shape (n,); mostly those that were asked about before."""
        asked = tuple(assets)
        if asked not in self._places:
            self._places.clear()
            self._places[asked] = np.array([self.place[asset] for asset in asked], dtype=int)
        return self._places[asked]

    @cached_property
    def _places(self) -> dict[tuple[str, ...], np.ndarray]:
        return {}

    @cached_property
    def names(self) -> pd.Index:
        """The assets as an index."""
        return pd.Index(self.assets, dtype="str", name="asset")

    @cached_property
    def stamps(self) -> list[pd.Timestamp]:
        """The times as single ones: an index makes each anew."""
        return list(self.times)

    @cached_property
    def _instants(self) -> np.ndarray:
        return self.times.as_unit("ns").asi8

    @cached_property
    def _rows(self) -> dict[int, int]:
        """Row of each instant: most questions are about one of them."""
        unique = self._instants.tolist() if self.times.is_unique else []
        return {instant: row for row, instant in enumerate(unique)}

    def row(self, at: pd.Timestamp) -> int:
        """Number of the last row that was known at `at`, -1 if none was."""
        found = self._rows.get(at.value)
        if found is None:
            found = int(np.searchsorted(self._instants, at.value, side="right")) - 1
        return found

    def row_from(self, at: pd.Timestamp) -> int:
        """Number of the first row that was known at `at` or later, T if none was."""
        found = self._rows.get(at.value)
        return int(np.searchsorted(self._instants, at.value)) if found is None else found

    def day(self, at: pd.Timestamp) -> "Day":
        """The row of a decision time.

        Raises
        ------
        DataError
            SV-F18 for a time before the first bar.
        """
        row = self.row(at)
        if row < 0:
            raise DataError(
                f"there is no bar up to {at}",
                code="SV-F18",
                where=f"the first is of {self.times[0]}" if len(self.times) else "no bars at all",
                cure="ask for a later time, or bring older bars",
            )
        return Day(self, row)


@dataclass(frozen=True)
class Day:
    """One row of `Prepared`; nothing of it looks past that row."""

    prepared: Prepared
    row: int

    @property
    def time(self) -> pd.Timestamp:
        return self.prepared.stamps[self.row]

    @property
    def assets(self) -> tuple[str, ...]:
        return self.prepared.assets

    def column(self, name: str) -> np.ndarray:
        """Values of all assets: shape (A,)."""
        return self.prepared.columns[name][self.row]

    def value(self, name: str, asset: str) -> float:
        """One value of one asset."""
        return float(self.prepared.columns[name][self.row, self.prepared.place[asset]])

    def values(self, name: str, assets: Iterable[str]) -> np.ndarray:
        """Values of n assets: float64 of shape (n,)."""
        return self.prepared.columns[name][self.row].take(self.prepared.places(assets))

    def past(self, table: np.ndarray, rows: int) -> np.ndarray:
        """The last `rows` rows of a table of `Prepared`, fewer at its start."""
        return table[max(self.row + 1 - rows, 0) : self.row + 1]

    @property
    def living(self) -> np.ndarray:
        """Assets with a bar in the last `LIVING` rows: bool of shape (A,)."""
        seen = self.prepared.seen
        if self.row < LIVING:
            return seen[self.row] > 0
        return seen[self.row] > seen[self.row - LIVING]

    @property
    def belongs(self) -> np.ndarray:
        """Assets of the universe of the day, all where none was given: bool of shape (A,)."""
        if MEMBER not in self.prepared.columns:
            return np.ones(len(self.assets), dtype=bool)
        return self.column(MEMBER) != 0  # NaN: no bar, so it is not traded either

    def traded(self, asset: str) -> bool:
        """Whether `asset` was traded in the row."""
        return bool(self.prepared.open[self.row, self.prepared.place[asset]])

    def quotes(self, assets: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """`price` and `traded` of n assets at once: float64 and bool of shape (n,)."""
        places, row = self.prepared.places(assets), self.row
        return self.prepared.last[row].take(places), self.prepared.open[row].take(places)

    def price(self, asset: str) -> float:
        """Newest close of `asset`, NaN before its first."""
        return float(self.prepared.last[self.row, self.prepared.place[asset]])

    def since(self, time: pd.Timestamp) -> int:
        """Rows that have passed since the row that a bar or a decision at `time` belongs to."""
        # the first row known no earlier: the bar of an exchange that closes before others
        return self.row - self.prepared.row_from(time)


@warms_up(lambda **_: 0)
def given(values: np.ndarray) -> np.ndarray:
    """A column as it is: ``reading(given, values="margin")``."""
    return values


def reading(function: Column, **columns: str) -> Column:
    """`function` with other columns of the panel in place of those it names."""
    return partial(function, **columns)


def settled(function: Column) -> Column:
    """`function`, unless it is a partial with a setting that the function does not take.

    Raises
    ------
    TypeError
        Naming it: what is only called later would fail far from where it was set.
    """
    if isinstance(function, partial):
        known = signature(function.func).parameters
        for name in function.keywords:
            if name not in known:
                of = getattr(function.func, "__name__", "it")
                raise TypeError(f"{of} takes {', '.join(known)}, and no {name}")
    return function


def prepare(bars: pd.DataFrame, columns: Mapping[str, Column]) -> Prepared:
    """Run the columns that a policy's parts ask for along each asset, and lay them out.

    Parameters
    ----------
    bars : DataFrame of shape (N, F)
        Panel with a close; `session` and `market` are read where they are there.
    columns : mapping of str to callable
        As features: functions, or partials, of one asset's arrays.

    Raises
    ------
    DataError
        SV-F20 for a column that a part reads and `bars` lack.
    """
    needs = {"close"}.union(*(reads(function).values() for function in columns.values()))
    check_panel(bars, sorted(needs))
    rows = Rows.of(bars, needs | set(BARS) | {"market"})
    grid = _Grid.of(bars, rows)
    tables = {"close": grid.spread(rows.columns["close"])}
    tables |= {name: grid.spread(rows.run(function)) for name, function in columns.items()}
    traded = np.isfinite(tables["close"])
    age = np.arange(len(bars)) - np.repeat(rows.starts[:-1], np.diff(rows.starts))
    if "volume" in rows.columns:
        traded &= grid.spread(rows.columns["volume"]) != 0  # NaN is unknown, not none
    return Prepared(
        grid.times,
        tuple(rows.assets[grid.order].tolist()),
        tables,
        _carried(tables["close"]),
        np.maximum.accumulate(grid.spread(age + 1.0, 0.0), axis=0).astype("int32"),
        traded,
        grid.latest(rows.columns["market"]) if "market" in rows.columns else None,
        grid.sessions,
    )


@dataclass(frozen=True)
class _Grid:
    """Where each of N bars stands in a table of T rows and A assets."""

    times: pd.DatetimeIndex
    sessions: pd.DatetimeIndex | None
    rows: np.ndarray
    assets: np.ndarray
    order: np.ndarray  # of the panel's assets, by name
    known: np.ndarray  # the bars in order of time

    @classmethod
    def of(cls, bars: pd.DataFrame, rows: Rows) -> "_Grid":
        order = np.argsort(rows.assets)
        asset = np.repeat(np.argsort(order), np.diff(rows.starts))
        known = np.argsort(rows.time_codes, kind="stable")
        codes, days = _by_session(bars, asset)
        if days is None:
            return cls(rows.times, None, rows.time_codes, asset, order, known)
        last = np.full(len(days), -1)
        np.maximum.at(last, codes, rows.time_codes)
        return cls(rows.times[last], days, codes, asset, order, known)

    @cached_property
    def places(self) -> np.ndarray:
        """Where each of N bars stands in the table, row after row."""
        return self.rows * len(self.order) + self.assets

    def spread(self, values: np.ndarray, missing: float = np.nan) -> np.ndarray:
        """Values of N bars as a table of shape (T, A)."""
        table = np.full((len(self.times), len(self.order)), missing)
        table.ravel()[self.places] = values
        return table

    def latest(self, values: np.ndarray) -> np.ndarray:
        """Of each row, the value of the bar that was known last: shape (T,)."""
        column = np.full(len(self.times), np.nan)
        column[self.rows[self.known]] = values[self.known]
        return column


def _by_session(
    bars: pd.DataFrame, asset: np.ndarray
) -> tuple[np.ndarray, pd.DatetimeIndex | None]:
    """Number of each bar's session, and the sessions; None unless all bars are daily ones."""
    if "session" not in bars or bars["session"].isna().any():
        return np.empty(0), None
    codes, days = pd.factorize(pd.DatetimeIndex(bars["session"]), sort=True)
    twice = (np.diff(asset, prepend=-1) == 0) & (np.diff(codes, prepend=-1) == 0)
    return np.asarray(codes), None if twice.any() else pd.DatetimeIndex(days)


def _carried(table: np.ndarray) -> np.ndarray:
    """Each column with its last finite value carried on."""
    rows = np.where(np.isfinite(table), np.arange(len(table))[:, None], -1)
    newest = np.maximum.accumulate(rows, axis=0)
    return np.where(newest >= 0, np.take_along_axis(table, np.maximum(newest, 0), axis=0), np.nan)

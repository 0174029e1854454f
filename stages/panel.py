"""The two tables every stage reads, and how a function of one asset runs along them.

Shapes used in docstrings across the project:
  N rows   T times   A assets   F columns   L look-back bars   B batch   K = 3 sides
  M members   R reference rows   O explained outputs

Columns of a panel, by name:
  open high low close volume market   bars, float64; `market` is the same for all assets of a time
  session                             exchange date of the bar
  feature.* rule.*                    what the filter and the refiner read, float32
  context.*                           what only the ensemble reads, float32
  scale                               return at stake over the label's span, float64, fraction
  obstacle, ready                     why a row is not evaluable, empty where it is, and whether
  filter.* refiner.*                  logits of the stages
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from inspect import signature
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.table import Table

FAMILIES = ("feature", "rule", "context", "filter", "refiner")  # what stages read most
FEW = 1024  # rows, up to which a look at a DataFrame costs more than what it shows
BARS = ("open", "high", "low", "close", "volume")

Rule = TypeVar("Rule", bound=Callable[..., np.ndarray])


class PanelError(DataError):
    """A table breaks its contract; the message names the first offender."""


def check_panel(panel: pd.DataFrame, needs: Iterable[str] = ()) -> pd.DataFrame:
    """Return `panel` unchanged, or name the first thing wrong with it.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
        Indexed by (asset, time). The rows of an asset stand together, ascend in UTC time and
        are unique; assets may differ in length.
    needs : iterable of str
        Columns the caller is about to read.

    Raises
    ------
    PanelError
        On a wrong index, a row out of place or there twice, or a missing column.
    """
    if _is_table(panel):  # checked when it was made
        return _holding(panel, needs)
    if list(panel.index.names) != ["asset", "time"]:
        raise _broken(
            f"index levels are {list(panel.index.names)}, not ['asset', 'time']",
            cure="panel.set_index(['asset', 'time']).sort_index()",
        )
    index = cast(pd.MultiIndex, panel.index)  # read by its codes: the values take ten times as long
    clock, (asset, time) = index.levels[1], (np.asarray(codes) for codes in index.codes)
    if not _is_utc(clock.dtype):
        raise _broken(
            f"times are {clock.dtype}, not UTC",
            code="SV-F07",
            why="a naive time can mean two instants",
            cure="localise to the exchange's zone, then tz_convert('UTC')",
        )
    lacking = (asset < 0) | (time < 0)
    if lacking.any():
        row = int(lacking.argmax())
        raise _broken(f"row {row} lacks its asset or its time", cure="drop or complete the row")
    step = np.diff(asset, prepend=-1)
    if (step < 0).any():  # assets may stand in any order, each of them once
        step = np.diff(asset_codes(panel), prepend=-1)
    lag = np.diff(pd.DatetimeIndex(clock).asi8[time], prepend=0)
    sort = "sort by asset, then time: panel.sort_index()"
    _refuse(panel, step < 0, "comes back after another asset", sort, "SV-F03")
    _refuse(panel, (step == 0) & (lag < 0), "is out of order", sort, "SV-F03")
    _refuse(panel, (step == 0) & (lag == 0), "stands twice", "keep one of the rows", "SV-F02")
    return _holding(panel, needs)


def light(panel: pd.DataFrame) -> pd.DataFrame:
    """`panel` checked and, if its rows are few, in a form that is read sooner: see `Table`."""
    if _is_table(panel):
        return panel
    check_panel(panel)
    if len(panel) > FEW:
        return panel
    return cast(pd.DataFrame, Table.of(panel, named(panel, *FAMILIES)))


def joined(panel: pd.DataFrame, said: pd.DataFrame) -> pd.DataFrame:
    """`panel` with the columns that a stage said of its rows."""
    if _is_table(panel):
        values = said.to_numpy()
        columns = {str(name): values[:, i] for i, name in enumerate(said.columns)}
        return cast(pd.DataFrame, panel.assign(**columns))
    return panel.assign(**said)


def _holding(panel: pd.DataFrame, needs: Iterable[str]) -> pd.DataFrame:
    missing = [name for name in needs if name not in panel]
    if missing:
        raise _broken(
            f"columns {missing} are missing",
            code="SV-F20",
            where=f"columns present: {sorted(map(str, panel.columns))[:40]}",
            cure="add them, or map them with data.columns",
        )
    return panel


def check_labels(y: pd.DataFrame) -> pd.DataFrame:
    """Return `y` unchanged, or name the first thing wrong with it.

    Parameters
    ----------
    y : DataFrame of shape (n <= N, 3 to 5)
        Indexed by the rows of a panel to learn from, with `side` (int8: the one of -1, 0, 1
        that paid), `end` (UTC time at which that was known), `weight` (float > 0) and, where
        known, `ret` (return over the label's span, fraction) and `horizon_end` (UTC time at
        which the whole horizon is over, however early the side was known; see `settled`).

    Raises
    ------
    PanelError
    """
    check_panel(y, ["side", "end", "weight"])
    if y["side"].dtype != "int8" or not _is_utc(y["end"].dtype):
        raise _broken(
            f"side must be int8 and end UTC, got {y.dtypes.astype(str).to_dict()}",
            cure="y.astype({'side': 'int8'}) and tz_localize or tz_convert the end",
        )
    _refuse(y, ~y["side"].isin([-1, 0, 1]), "has a side other than -1, 0, 1", "recode the side")
    time = y.index.get_level_values("time")
    _refuse(y, ~(y["end"] > time), "has a label that does not end after it", "check the label end")
    _refuse(y, ~(y["weight"] > 0), "has a weight that is not above 0", "drop the row")
    if "horizon_end" in y:
        if not _is_utc(y["horizon_end"].dtype):
            raise _broken(
                f"horizon_end must be UTC, got {y['horizon_end'].dtype}",
                cure="tz_localize or tz_convert it, or leave the column out",
            )
        early = ~(y["horizon_end"] >= y["end"])
        _refuse(y, early, "has a horizon that is over before its label ends", "check horizon_end")
    return y


def settled(y: pd.DataFrame) -> pd.Series:
    """UTC time from which nothing about each label is open: purge by this, not by `end`.

    A barrier that is touched ends a label early, and labels that end early are not the ones that
    hold. Purged by `end`, the last bars before a cut would keep those alone.

    Parameters
    ----------
    y : DataFrame of shape (n, 3 to 5)
        See `check_labels`.

    Returns
    -------
    Series of n times
        `horizon_end`, or `end` where the labels do not carry it.
    """
    return y["horizon_end"] if "horizon_end" in y else y["end"]


def until(panel: pd.DataFrame, time: pd.Timestamp) -> pd.DataFrame:
    """The rows of `panel` up to `time`; ``.loc[:time]`` would cut the index by asset."""
    return panel[panel.index.get_level_values("time") <= time]


def asset_codes(panel: pd.DataFrame) -> np.ndarray:
    """Number of each row's asset, in order of first appearance: 0 ... A - 1."""
    # the codes of the level: a fifth of the time that the names take
    codes = cast(pd.MultiIndex, panel.index).codes[panel.index.names.index("asset")]
    return np.asarray(pd.factorize(np.asarray(codes))[0])


def asset_starts(panel: pd.DataFrame) -> np.ndarray:
    """First row number of each asset, and N at the end: shape (A + 1,)."""
    codes = np.asarray(cast(pd.MultiIndex, panel.index).codes[panel.index.names.index("asset")])
    if not len(codes):
        return np.zeros(1, dtype=int)
    return np.flatnonzero(np.concatenate([[True], np.diff(codes) != 0, [True]]))


def age(panel: pd.DataFrame) -> np.ndarray:
    """How many bars of the same asset stand before each row: shape (N,)."""
    starts = asset_starts(panel)
    return np.arange(len(panel)) - np.repeat(starts[:-1], np.diff(starts))


def bars_left(panel: pd.DataFrame) -> np.ndarray:
    """How many bars of the same asset stand after each row: shape (N,)."""
    ends = asset_starts(panel)[1:]
    return np.repeat(ends, np.diff(ends, prepend=0)) - 1 - np.arange(len(panel))


def windows(
    panel: pd.DataFrame, rows: pd.MultiIndex, length: int, columns: Iterable[str]
) -> pd.DataFrame:
    """A panel of one pseudo-asset per row of `rows`, holding the bars that end there.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
    rows : MultiIndex of n rows of `panel`
    length : int
        L; shorter histories are refused.
    columns : iterable of str
        Columns to keep.

    Returns
    -------
    DataFrame of shape (n * L, len(columns))
        Assets are called 000000, 000001 … in the order of `rows`; times are the original ones.

    Raises
    ------
    PanelError
        When a row is not in the panel, or has fewer than L bars.
    """
    last = panel.index.get_indexer(rows)
    short = (last < 0) | (age(panel)[last] < length - 1)
    if short.any():
        asset, time = rows[int(short.argmax())]
        raise _broken(
            f"{asset} at {time} does not have {length} bars", code="SV-F18", cure="bring history"
        )
    at = (last[:, None] + np.arange(1 - length, 1)).ravel()
    names = np.repeat([f"{i:06d}" for i in range(len(rows))], length)
    times = panel.index.get_level_values("time")[at]
    index = pd.MultiIndex.from_arrays(
        [pd.Index(names, dtype="str"), times], names=panel.index.names
    )
    return panel[list(columns)].iloc[at].set_axis(index)


def stretch(panel: pd.DataFrame, rows: pd.Index, length: int) -> pd.DataFrame:
    """The part of `panel` that windows of `length` bars which end at `rows` cover, and no more.

    Raises
    ------
    DataError
        SV-F18 for a row that the panel does not hold.
    """
    at = panel.index.get_indexer(rows)
    if (at < 0).any():
        asset, time = rows[int((at < 0).argmax())]
        raise DataError(
            f"{asset} has no bar at {time}", code="SV-F18", cure="ask for a bar in the data"
        )
    opens = np.zeros(len(panel) + 1, dtype=int)  # windows that begin here, less those that ended
    np.add.at(opens, np.maximum(at - length + 1, at - age(panel)[at]), 1)
    np.add.at(opens, at + 1, -1)
    return panel[opens[:-1].cumsum() > 0]


def columns_of(panel: pd.DataFrame, names: Iterable[str]) -> np.ndarray:
    """Some columns as float64, shape (N, C): a column at a time, as to choose them costs more."""
    return np.column_stack([panel[name].to_numpy("float64") for name in names])


def last_rows(panel: pd.DataFrame) -> pd.DataFrame:
    """The newest row of each asset."""
    return panel.iloc[asset_starts(panel)[1:] - 1]


def named(panel: pd.DataFrame, *families: str) -> list[str]:
    """Columns of the given families (``feature``, ``rule``, ``context`` …), in panel order."""
    columns = panel.columns if _is_table(panel) else panel.columns.tolist()  # slow to iterate
    return [c for c in columns if isinstance(c, str) and c.partition(".")[0] in families]


def inputs_of(function: Callable[..., np.ndarray]) -> list[str]:
    """Columns a feature or a rule reads: its parameters without a default."""
    return [p.name for p in signature(function).parameters.values() if p.default is p.empty]


def warms_up(bars: Callable[..., int]) -> Callable[[Rule], Rule]:
    """Declare how many bars a function needs before its first value, from its settings."""

    def declare(function: Rule) -> Rule:
        function.warmup = bars  # type: ignore[attr-defined]
        return function

    return declare


@lru_cache(maxsize=4096)  # a signature takes longer to read than many features to compute
def warmup(function: Callable[..., np.ndarray]) -> int:
    """Declared number of NaN with which the values of a function, or its partial, begin."""
    declared: Any = getattr(function, "func", function)  # a partial holds its function in func
    parameters = signature(function).parameters.values()
    return declared.warmup(**{p.name: p.default for p in parameters if p.default is not p.empty})


def _is_table(panel: Any) -> bool:
    return isinstance(panel, Table)


def _is_utc(dtype: object) -> bool:
    return str(getattr(dtype, "tz", None)) == "UTC"


def _broken(what: str, *, code: str = "SV-F20", **fields: str) -> PanelError:
    return PanelError(what, code=code, **fields)


def _refuse(
    table: pd.DataFrame, broken: np.ndarray | pd.Series, what: str, cure: str, code: str = "SV-F20"
) -> None:
    flags = np.asarray(broken)
    if flags.any():
        asset, time = table.index[int(flags.argmax())]
        raise _broken(
            f"{asset} at {time} {what}", code=code, where=f"{flags.sum()} rows", cure=cure
        )

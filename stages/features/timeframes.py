"""Features of longer bars beside shorter ones: each longer bar is read once it has closed.

`spans` says, from sessions, which longer bar each row falls in and which was the last to be known
at it. The two stand in the panel as columns, ``bar_h1`` and ``closed_h1``: the end of a bar in
seconds since 1970. The functions below are features as any other: they put the rows of one asset
together to longer bars, run a feature on these, and give each row the value of the newest bar that
was known by then.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numba import njit

from stages.features.functions import bound, reads
from stages.features.kernels import log_ratio, ratio
from stages.panel import warms_up
from stages.panel import warmup as warmup_of

SECOND = 1_000_000  # microseconds
NONE = pd.Timedelta(0)


def spans(
    times: pd.DatetimeIndex,
    sessions: pd.DataFrame,
    step: pd.Timedelta | None,
    delay: pd.Timedelta = NONE,
    lag: pd.Timedelta = NONE,
) -> tuple[np.ndarray, np.ndarray]:
    """End of the longer bar that each row falls in, and of the newest that is known at it.

    Bars begin at the open of a session and last `step`; the last one ends with the session. A row
    belongs to the bar whose end is the first not before it: what is known at 10:00 is of the bar
    that ends at 10:00.

    Parameters
    ----------
    times : DatetimeIndex of N UTC times
        When each row was known.
    sessions : DataFrame of S sessions
        `open` and `close`, UTC, ascending; a session may open as the one before closes.
    step : Timedelta or None
        None: one bar a session.
    delay : Timedelta >= `lag`
        From the end of a longer bar to its being known.
    lag : Timedelta >= 0
        From the end of a row's own span to its being known.

    Returns
    -------
    bar, closed : float64 ndarray of shape (N,)
        Seconds since 1970. `bar` is NaN outside of sessions, `closed` before the first bar ends.
    """
    if not pd.Timedelta(0) <= lag <= delay:
        raise ValueError(f"need 0 <= lag <= delay, got lag={lag}, delay={delay}")
    if step is not None and step <= pd.Timedelta(0):
        raise ValueError(f"need step > 0, got {step}")
    opens, closes = (pd.DatetimeIndex(sessions[c]).as_unit("us").asi8 for c in ("open", "close"))
    now = pd.DatetimeIndex(times).as_unit("us").asi8
    size = np.iinfo(np.int64).max // 4 if step is None else _microseconds(step)
    if not len(opens):
        return np.full(len(now), np.nan), np.full(len(now), np.nan)
    own = now - _microseconds(lag)
    at = np.minimum(np.searchsorted(closes, own), len(closes) - 1)
    number = np.maximum(-((opens[at] - own) // size), 1)  # the quotient, rounded up
    bar = np.where(number > (closes[at] - opens[at]) // size, closes[at], opens[at] + number * size)
    inside = (opens[at] <= own) & (own <= closes[at])
    until = now - _microseconds(delay)
    at = np.searchsorted(opens, until, side="right") - 1
    full = (until - opens[at]) // size
    before = np.where(at > 0, closes[at - 1], -1)
    closed = np.where(full > 0, opens[at] + full * size, before)
    closed = np.where(until >= closes[at], closes[at], closed)
    known = (at >= 0) & (closed >= 0)
    return np.where(inside, bar / SECOND, np.nan), np.where(known, closed / SECOND, np.nan)


def _microseconds(span: pd.Timedelta) -> int:
    return int(span // pd.Timedelta(microseconds=1))


def resampled(panel: pd.DataFrame, bar: str) -> pd.DataFrame:
    """The longer bars of a panel, the one at each end of an asset's rows included.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
        See `stages.panel`.
    bar : str
        Column that `spans` made; rows in which it is NaN are of no bar.

    Returns
    -------
    DataFrame
        Indexed by (asset, end of the bar, UTC), with the bar columns that `panel` has, and `rows`:
        how many it is made of. NaN where a row is.
    """
    tables = {}
    for asset, rows in panel.groupby(level="asset", sort=False):
        runs = Runs(rows[bar].to_numpy("float64", copy=True))
        made = {c: runs.put(c, rows[c].to_numpy("float64")) for c in RULES if c in rows}
        made["rows"] = runs.rows.astype("float64")
        ends = pd.to_datetime(runs.ends * SECOND, unit="us", utc=True).as_unit("us")
        tables[asset] = pd.DataFrame(made, ends)
    return pd.concat(tables, names=["asset", "time"])


class Runs:
    """Rows of one asset that stand together in a longer bar.

    Parameters
    ----------
    bar : float64 ndarray of shape (T,)
        End of the bar that each row falls in, NaN for none.
    closed : float64 ndarray of shape (T,), optional
        End of the newest bar known at each row: no bar goes on after it.

    Attributes
    ----------
    edges : int ndarray of shape (R + 1,)
        First row of each run, and T.
    number : int ndarray of shape (T,)
        Run of each row.
    kept : bool ndarray of shape (R,)
        Runs that are bars.
    ends, rows : ndarray
        End and number of rows of those kept.
    """

    def __init__(self, bar: np.ndarray, closed: np.ndarray | None = None) -> None:
        over = bar[1:] != bar[:-1]
        if closed is not None:
            over |= closed[:-1] >= bar[:-1]
        new = np.append(True, over)[: len(bar)]
        self.edges = np.append(np.flatnonzero(new), len(bar))
        self.number = np.cumsum(new) - 1
        first = bar[self.edges[:-1]]
        self.kept = np.isfinite(first)
        self.ends, self.rows = first[self.kept], np.diff(self.edges)[self.kept]

    def put(self, column: str, x: np.ndarray) -> np.ndarray:
        """The value of a column in each bar: first open, highest high, sum of the volume."""
        if not len(x):
            return np.empty(0)
        starts = self.edges[:-1]
        rule = RULES[column]
        if rule is None:
            places = starts if column == "open" else self.edges[1:] - 1
            return x[places][self.kept]
        return rule.reduceat(x, starts)[self.kept]


RULES: dict[str, np.ufunc | None] = {
    "open": None,
    "high": np.maximum,
    "low": np.minimum,
    "close": None,
    "volume": np.add,
}


def _warmup(of: Any, rows: int, late: int, **_: Any) -> int:
    # the first bar may be cut off and is not read, the newest may lack its last row
    return (warmup_of(of) + 2) * rows - 1 + late


@warms_up(_warmup)
def on_closes(
    close: np.ndarray,
    bar: np.ndarray,
    closed: np.ndarray,
    of: Callable[..., np.ndarray] | None = None,
    rows: int = 60,
    late: int = 0,
) -> np.ndarray:
    """Longer bars: what a feature of closes makes of the newest one that is known: shape (T,).

    Parameters
    ----------
    close : ndarray of shape (T,)
    bar, closed : ndarray of shape (T,)
        What `spans` made; a partial binds the columns of a timeframe: ``bar: bar_h1``.
    of : callable
        A feature, see `stages.panel.warms_up`.
    rows : int
        Most rows of a longer bar.
    late : int
        Most rows between the end of a longer bar and its being known.

    Notes
    -----
    No row looks at a later one, whatever the columns say: a bar that is said to be known ends
    there, and rows that follow are no part of it. A bar of more than `rows` rows is unknown, as
    its values would need more history than declared.
    """
    return _on_bars({"close": close}, bar, closed, of, rows, late)


@warms_up(_warmup)
def on_ranges(  # noqa: PLR0913 - three prices and the bars they are of
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    bar: np.ndarray,
    closed: np.ndarray,
    of: Callable[..., np.ndarray] | None = None,
    rows: int = 60,
    late: int = 0,
) -> np.ndarray:
    """Longer bars: what a feature of high, low and close makes of the newest known: shape (T,)."""
    return _on_bars({"high": high, "low": low, "close": close}, bar, closed, of, rows, late)


@warms_up(_warmup)
def on_volumes(
    close: np.ndarray,
    volume: np.ndarray,
    bar: np.ndarray,
    closed: np.ndarray,
    of: Callable[..., np.ndarray] | None = None,
    rows: int = 60,
    late: int = 0,
) -> np.ndarray:
    """Longer bars: what a feature of close and volume makes of the newest known: shape (T,)."""
    return _on_bars({"close": close, "volume": volume}, bar, closed, of, rows, late)


@warms_up(lambda **_: 0)
def bar_range(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Log of the high of a bar over its low, >= 0: shape (T,).

    References
    ----------
    Parkinson (1980), "The extreme value method for estimating the variance of the rate of
    return", J. Business 53(1).
    """
    return log_ratio(high, low)


@warms_up(lambda **_: 0)
def bar_place(high: np.ndarray, low: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Where a bar closed in its range: 0 at the low, 1 at the high, NaN without one: (T,)."""
    return ratio(close - low, high - low)


def _on_bars(
    columns: dict[str, np.ndarray],
    bar: np.ndarray,
    closed: np.ndarray,
    of: Callable[..., np.ndarray] | None,
    rows: int,
    late: int,
) -> np.ndarray:
    if of is None:
        raise ValueError("of must be a feature to run on the longer bars")
    runs, out = Runs(bar, closed), np.full(len(bar), np.nan)
    wanted = reads(of)
    lacking = [column for column in wanted.values() if column not in columns]
    if lacking:
        raise ValueError(f"of reads {lacking[0]}, but only {', '.join(columns)} are put together")
    if len(runs.ends) < 2:  # the first bar may have begun before the first row
        return out
    held = [runs.put(column, columns[column]) for column in wanted.values()]
    inputs = [np.where(runs.rows > rows, np.nan, x)[1:] for x in held]
    values = np.append(np.nan, bound(of)(*inputs))
    newest = _newest(runs.number, runs.kept, runs.ends, closed, late)
    known = newest >= 0
    out[known] = values[newest[known]]
    out[: _warmup(of, rows, late)] = np.nan
    return out


@njit(cache=True, nogil=True)
def _newest(
    run: np.ndarray, kept: np.ndarray, ends: np.ndarray, closed: np.ndarray, late: int
) -> np.ndarray:
    """Number of the newest bar known at each row, -1 for none: of the bars of the rows up to it.

    A bar that is known at most `late` rows after its end has at most as many others between.
    """
    out = np.full(len(run), -1, np.int64)
    number = np.cumsum(kept) - 1  # of a run, among those kept
    for i in range(len(run)):
        at = number[run[i]]
        for back in range(min(late + 1, at) + 1):
            if ends[at - back] <= closed[i]:
                out[i] = at - back
                break
    return out

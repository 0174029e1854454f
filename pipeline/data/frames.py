"""Which longer bars each row falls in and may know: the columns that timeframes are read from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pipeline.data.bars import digest, ordered
from pipeline.data.calendar import sessions
from pipeline.data.instruments import Instruments
from pipeline.data.intake import BY_INSTRUMENT, Source
from stages.base import ConfigError, DataError
from stages.features.timeframes import NONE, spans

WEEK = pd.Timedelta(days=7)
FX = "FX"  # Sunday to Friday, from 17:00 in New York to 17:00


@dataclass(frozen=True)
class Frame:
    """A timeframe.

    Parameters
    ----------
    step : str or None
        Length of its bars, such as ``1h``; None: one bar a session.
    rows : int >= 1
        Most rows of the panel in one of its bars.
    """

    step: str | None
    rows: int

    def __post_init__(self) -> None:
        if self.rows < 1 or (self.step is not None and not pd.Timedelta(self.step) > NONE):
            raise ValueError(f"need rows >= 1 and step > 0, got {self.rows} and {self.step}")


def framed(
    source: Source,
    frames: Mapping[str, Mapping[str, Any]],
    calendar: str | None = None,
    delay: str = "0min",
    lag: str = "0min",
    late: int = 0,
    instruments: Instruments | None = None,
) -> Source:
    """Add ``bar_*`` and ``closed_*`` for each timeframe, in seconds since 1970.

    Parameters
    ----------
    source : Source
        Its rows carry the times at which they were known.
    frames : mapping of str to mapping
        Name of a timeframe, such as ``h1``, to the fields of `Frame`.
    calendar : str or None
        Whose sessions the bars begin with and end by: an exchange_calendars name, ``FX``, or
        ``instruments`` for each asset's own; None: UTC days.
    delay : str, default='0min'
        From the end of a longer bar to its being known.
    lag : str, default='0min'
        From the end of a row's own span to its being known; not above `delay`.
    late : int >= 0, default=0
        Most rows of an asset between the end of a longer bar and its being known.
    instruments : Instruments, optional

    Raises
    ------
    DataError
        SV-F20 where a bar of a frame has more rows than it says, or more than `late` rows pass
        before it is known.
    """
    if not NONE <= pd.Timedelta(lag) <= pd.Timedelta(delay):
        raise ConfigError(
            f"longer bars would be known {delay} after their end, and their last row {lag} after",
            code="SV-F33",
            cure="set frame_delay to lag or more",
        )
    bars = source.bars
    names = bars.index.get_level_values("asset")
    times = pd.DatetimeIndex(bars.index.get_level_values("time"))
    calendars = _calendars(calendar, instruments, names)
    made: dict[str, np.ndarray] = {}
    for name, fields in frames.items():
        frame = Frame(**fields)
        step = None if frame.step is None else pd.Timedelta(frame.step)
        bar, closed, over = (np.full(len(bars), np.nan) for _ in range(3))
        for own in np.unique(calendars):
            rows = np.flatnonzero(calendars == own)
            table = sessions_of(str(own), times[rows])
            own_lag = pd.Timedelta(lag)
            bar[rows], closed[rows] = spans(times[rows], table, step, pd.Timedelta(delay), own_lag)
            over[rows] = spans(times[rows], table, step, own_lag, own_lag)[1]
        _refuse_more_rows(name, frame, names, bar)
        _refuse_later(name, late, names, over, closed < over)
        made |= {f"bar_{name}": bar, f"closed_{name}": closed}
    bars = ordered(bars.assign(**made))
    return replace(source, bars=bars, digest=digest(bars))


def sessions_of(calendar: str, times: pd.DatetimeIndex) -> pd.DataFrame:
    """Sessions around some times: `open` and `close`, UTC, by date.

    Parameters
    ----------
    calendar : str
        An exchange_calendars name, or ``FX``: 17:00 to 17:00 in New York from Sunday to Friday,
        whatever the clocks there say in UTC. FX has no holidays here: a day without quotes has
        no rows.
    times : DatetimeIndex of N UTC times
    """
    if calendar != FX:
        return sessions(calendar, times.min().date(), times.max().date())
    first, last = (times.min() - WEEK).date(), (times.max() + WEEK).date()
    days, five = pd.bdate_range(first, last), pd.Timedelta(hours=17)
    edges = {"open": days - pd.Timedelta(days=1) + five, "close": days + five}
    table = {name: at.tz_localize("America/New_York") for name, at in edges.items()}
    return pd.DataFrame({n: t.tz_convert("UTC").as_unit("us") for n, t in table.items()}, days)


def _calendars(
    calendar: str | None, instruments: Instruments | None, assets: pd.Index
) -> np.ndarray:
    """Name of the calendar of each row."""
    if calendar == BY_INSTRUMENT and instruments is not None:
        return np.asarray(instruments.column("calendar", assets), dtype="str")
    return np.repeat(calendar or "24/7", len(assets))


def _refuse_later(
    name: str, late: int, assets: pd.Index, over: np.ndarray, waiting: np.ndarray
) -> None:
    """Refuse more than `late` rows of one asset that wait for one bar."""
    rows = pd.Series(waiting.astype("int64"), over).groupby([np.asarray(assets), over]).sum()
    if len(rows) and rows.max() > late:
        asset, end = rows.index[int(rows.argmax())]
        raise DataError(
            f"{rows.max()} rows pass before a bar of {name} is known, {late} are declared",
            code="SV-F20",
            where=f"{asset}, the bar that ends at {pd.Timestamp(end, unit='s', tz='UTC')}",
            why="features would need more history than they declare",
            cure="set data.late to the most rows of an asset within data.frame_delay",
        )


def _refuse_more_rows(name: str, frame: Frame, assets: pd.Index, bar: np.ndarray) -> None:
    rows = pd.Series(1, bar).groupby([np.asarray(assets), bar]).size()
    if len(rows) and rows.max() > frame.rows:
        asset, end = rows.index[int(rows.argmax())]
        raise DataError(
            f"a bar of {name} has {rows.max()} rows, {frame.rows} are declared",
            code="SV-F20",
            where=f"{asset}, the bar that ends at {pd.Timestamp(end, unit='s', tz='UTC')}",
            why="features would need more history than they declare",
            cure=f"set data.frames.{name}.rows to the most rows that a bar can have",
        )

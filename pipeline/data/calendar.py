"""When a bar is known: exchange sessions, their closes, and what lies outside of them."""

from functools import lru_cache

import exchange_calendars
import numpy as np
import pandas as pd
from exchange_calendars.calendar_helpers import Date
from exchange_calendars.errors import InvalidCalendarName

from pipeline.nearest import nearest
from stages.base import ConfigError, DataError

INSIDE = ("2020-01-01", "2020-12-31")  # a year that every calendar covers
MARGIN = 40  # days asked for beyond the data, so that the last sessions have neighbours


def sessions(calendar: str, first: Date, last: Date) -> pd.DataFrame:
    """Sessions of an exchange that touch a span of dates, with a margin on both sides.

    Parameters
    ----------
    calendar : str
        Name in exchange_calendars, e.g. ``XNYS``, ``24/7``.
    first, last : date
        The span the caller has dates in.

    Returns
    -------
    DataFrame
        Index: session date (naive, us); ``open`` and ``close``: UTC, us.

    Raises
    ------
    ConfigError
        On a name that exchange_calendars does not know.
    """
    # the default bounds of the library move with the clock, so ours are always passed; whole
    # years keep the cache small
    return _sessions(calendar, pd.Timestamp(first).year, pd.Timestamp(last).year)


@lru_cache(maxsize=32)
def _sessions(calendar: str, first: int, last: int) -> pd.DataFrame:
    margin = pd.Timedelta(days=MARGIN)
    start, end = pd.Timestamp(first, 1, 1) - margin, pd.Timestamp(last, 12, 31) + margin
    try:
        kind = type(exchange_calendars.get_calendar(calendar, *INSIDE))
    except InvalidCalendarName:
        raise ConfigError(
            f"data.calendar={calendar!r} is not an exchange calendar",
            code="SV-F06",
            cure=nearest(calendar, exchange_calendars.get_calendar_names()) or "use e.g. XNYS",
        ) from None
    lowest, highest = kind.bound_min(), kind.bound_max()
    start = start if lowest is None else max(start, lowest)
    end = end if highest is None else min(end, highest)
    if start >= end:
        raise DataError(
            f"calendar {calendar} knows no session in {first}..{last}",
            code="SV-F06",
            where=f"it runs from {lowest} to {highest}",
            cure="set data.start and data.end inside, or another data.calendar",
        )
    schedule = exchange_calendars.get_calendar(calendar, start=start, end=end).schedule
    table = schedule[["open", "close"]].apply(lambda times: times.dt.as_unit("us"))
    return table.set_index(pd.DatetimeIndex(schedule.index).as_unit("us"))


def session_close(
    dates: pd.DatetimeIndex, calendar: str, delay: pd.Timedelta | str = "0min"
) -> pd.DatetimeIndex:
    """When the daily bar of each date is known: its session's close plus a delay.

    Parameters
    ----------
    dates : DatetimeIndex of N naive midnights
    calendar : str
    delay : Timedelta or str, default='0min'
        From the close to the publication of the bar.

    Returns
    -------
    DatetimeIndex of N UTC times (us)
        NaT where the exchange held no session on that date.
    """
    if not len(dates):
        return pd.DatetimeIndex([], dtype="datetime64[us, UTC]")
    codes, days = pd.factorize(dates.as_unit("us"))
    closes = sessions(calendar, days.min(), days.max())["close"].reindex(days)
    known = pd.DatetimeIndex(closes + pd.Timedelta(delay)).as_unit("us")
    return known.take(np.asarray(codes))


def session_of(times: pd.DatetimeIndex, calendar: str) -> pd.DatetimeIndex:
    """Session that each time falls in, opening and closing instants included.

    Parameters
    ----------
    times : DatetimeIndex of N UTC times

    Returns
    -------
    DatetimeIndex of N naive dates (us)
        NaT outside of trading hours. Lunch breaks count as inside.
    """
    if not len(times):
        return pd.DatetimeIndex([], dtype="datetime64[us]")
    known = times.as_unit("us")
    table = sessions(calendar, known.min().date(), known.max().date())
    at = known.asi8  # arrays of times with a zone are arrays of objects
    place = np.searchsorted(_micros(table["close"]), at)
    inside = place < len(table)
    place = np.minimum(place, len(table) - 1)
    inside &= _micros(table["open"])[place] <= at
    return pd.DatetimeIndex(np.where(inside, table.index.to_numpy()[place], np.datetime64("NaT")))


def within(times: pd.DatetimeIndex, calendar: str) -> np.ndarray:
    """Whether the calendar reaches as far as each of N times: bool, shape (N,)."""
    if not len(times):
        return np.zeros(0, dtype=bool)
    day = times.tz_localize(None).normalize()
    known = sessions(calendar, day.min(), day.max()).index
    return np.asarray((day >= known[0]) & (day <= known[-1]))


def sessions_after(times: pd.DatetimeIndex, n: int, calendar: str) -> pd.DatetimeIndex:
    """Close of the n-th session after the one each time belongs to.

    A time belongs to the session that was the last to open by then, so a bar known at the close,
    or a delay later, belongs to its own session.

    Parameters
    ----------
    times : DatetimeIndex of N UTC times
    n : int >= 0
        Sessions to go ahead; 0 gives the close of the time's own session.
    calendar : str

    Returns
    -------
    DatetimeIndex of N UTC times (us)

    Raises
    ------
    DataError
        If the calendar ends before that session.
    """
    if n < 0:
        raise ValueError(f"need n >= 0 sessions, got {n}")
    if not len(times):
        return pd.DatetimeIndex([], dtype="datetime64[us, UTC]")
    known = times.as_unit("us")
    # 2 days a session cover weekends and the holidays around them
    last = known.max() + pd.Timedelta(days=2 * n)
    table = sessions(calendar, known.min().date(), last.date())
    place = np.searchsorted(_micros(table["open"]), known.asi8, side="right") - 1 + n
    if place.max() >= len(table):
        raise DataError(
            f"calendar {calendar} ends on {table.index[-1]:%Y-%m-%d}, before session {n} after "
            f"{known.max()}",
            code="SV-F06",
            why="an expiry past the calendar would be a guess",
            cure="update exchange_calendars, or name another data.calendar",
        )
    return pd.DatetimeIndex(table["close"].iloc[place]).as_unit("us")


def _micros(times: pd.Series) -> np.ndarray:
    """UTC times as microseconds since 1970; NaT is the least integer."""
    return pd.DatetimeIndex(times).as_unit("us").asi8

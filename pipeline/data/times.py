"""From the times of a file to the instants at which its bars were known."""

from dataclasses import dataclass
from typing import Any
from zoneinfo import available_timezones

import numpy as np
import pandas as pd

from pipeline.data.calendar import session_close, session_of, within
from pipeline.data.quality import shown
from pipeline.nearest import nearest
from stages.base import ConfigError, DataError

EARLIEST, LATEST = pd.Timestamp("1970-01-01", tz="UTC"), pd.Timestamp("2100-01-01", tz="UTC")
SLIP = EARLIEST + pd.Timedelta(days=60)
EPOCH_UNITS = ("s", "ms", "us", "ns")
OFFSET = r"[T:]\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$"  # text that carries its offset from UTC


@dataclass(frozen=True)
class Clock:
    """How the times of a file are to be read.

    Parameters
    ----------
    timezone : str or None
        Zone of times that carry none; without it they are refused.
    time_format : str or None
        strptime format of text times, or ``s``, ``ms``, ``us``, ``ns`` for integers since 1970;
        None reads ISO 8601.
    delay : str, default='0min'
        From the stamp, or from the session close of a daily bar, to its being known.
    """

    timezone: str | None = None
    time_format: str | None = None
    delay: str = "0min"

    def __post_init__(self) -> None:
        if pd.Timedelta(self.delay) < pd.Timedelta(0):
            raise ValueError(f"need delay >= 0, got {self.delay}")

    def stamps(self, raw: pd.Series) -> "Stamps":
        """Parse a column of times; NaT, with a fault code, where that fails."""
        code = np.full(len(raw), "", dtype=object)
        parsed = self._parse(raw, code)
        zone = parsed.dt.tz
        daily = _all_midnights(parsed)
        if zone is None and not daily:
            parsed = self._localize(parsed, code)
        present = parsed.dropna()
        utc = present if present.dt.tz is not None else present.dt.tz_localize("UTC")
        # seconds read as milliseconds land in the first weeks of 1970
        earliest = SLIP if bool((utc > SLIP + pd.Timedelta(days=700)).mean() > 0.5) else EARLIEST
        outside = pd.Series(False, raw.index)
        outside.loc[utc.index] = (utc < earliest) | (utc >= LATEST)
        lost = outside | (parsed.isna() & (code == ""))
        code[lost.to_numpy()] = "SV-F08"
        return Stamps(parsed, code, daily)

    def _parse(self, raw: pd.Series, code: np.ndarray) -> pd.Series:
        if isinstance(raw.dtype, pd.DatetimeTZDtype) or raw.dtype.kind == "M":
            return _microseconds(raw)
        if raw.dtype.kind in "iuf" and (self.time_format or "s") in EPOCH_UNITS:
            return self._parse_epoch(raw, code)
        text = (raw.astype("Int64") if raw.dtype.kind in "iuf" else raw).astype("str")
        try:
            if self.time_format in EPOCH_UNITS:
                return self._parse_epoch(pd.to_numeric(text, errors="coerce"), code)
            form = self.time_format or "ISO8601"
            aware = text.str.contains(OFFSET, regex=True, na=False)
            # summer and winter offsets in one column need one zone; naive text stays naive
            parsed = pd.to_datetime(text, format=form, errors="coerce", utc=True)
            code[parsed.isna().to_numpy()] = "SV-F08"
            if not aware.any():
                return _microseconds(parsed.dt.tz_localize(None))
            code[(parsed.notna() & ~aware).to_numpy()] = "SV-F07"
            return _microseconds(parsed)
        except (ValueError, OverflowError) as fault:
            raise DataError(
                f"times cannot be read: {shown(fault)}",
                code="SV-F08",
                cure="set data.time_format to their strptime format",
            ) from fault

    def _parse_epoch(self, raw: pd.Series, code: np.ndarray) -> pd.Series:
        unit: Any = self.time_format
        if unit not in EPOCH_UNITS:
            raise DataError(
                "times are numbers, and nothing says in which unit",
                where=f"first {raw.head(1).tolist()}",
                code="SV-F08",
                cure="set data.time_format to s, ms, us or ns",
            )
        sane = raw.where(raw.abs() < 2.0**63)
        size = sane.abs()[sane.abs() > 0]
        # within 1973..2100 the stamps of one unit differ by a factor of 42 at most
        mixed = (sane.abs() > 100 * size.median()) | (sane.abs() < size.median() / 100)
        parsed = pd.to_datetime(sane.where(~mixed), unit=unit, errors="coerce", utc=True)
        code[parsed.isna().to_numpy()] = "SV-F08"
        return _microseconds(parsed)

    def _localize(self, naive: pd.Series, code: np.ndarray) -> pd.Series:
        if self.timezone is None:
            first = naive.dropna()
            raise DataError(
                f"times carry no zone: {first.iloc[0] if len(first) else 'all missing'}",
                code="SV-F07",
                why="a naive time can mean two instants",
                cure="set data.timezone, e.g. data.timezone=America/New_York",
            )
        try:
            aware = naive.dt.tz_localize(self.timezone, ambiguous="NaT", nonexistent="NaT")
        except (KeyError, ValueError) as fault:
            raise ConfigError(
                f"data.timezone={self.timezone!r} is not a time zone",
                code="SV-F07",
                cure=nearest(self.timezone, available_timezones())
                or "use an IANA name, e.g. Europe/London",
            ) from fault
        code[(aware.isna() & naive.notna()).to_numpy()] = "SV-F07"
        return _microseconds(aware)


@dataclass(frozen=True)
class Stamps:
    """Parsed times of N rows.

    Attributes
    ----------
    times : Series of N times
        Naive for date-only daily bars, aware otherwise.
    code : object ndarray of shape (N,)
        Fault code of each row, empty where there is none.
    daily : bool
        Whether the bars carry dates only.
    """

    times: pd.Series
    code: np.ndarray
    daily: bool

    def known(self, clock: Clock, calendars: pd.Series | None) -> "Timed":
        """When each bar was known, from its stamp or its session's close.

        Parameters
        ----------
        clock : Clock
        calendars : Series of N text, or None
            Calendar of each row's asset.
        """
        if calendars is None:
            return self._without_calendar(clock)
        known = np.full(len(self.times), np.datetime64("NaT", "us"))
        session, code = known.copy(), self.code.copy()
        delay = pd.Timedelta(clock.delay)
        for calendar in calendars.unique():
            rows = np.flatnonzero((calendars == calendar).to_numpy() & (code == ""))
            mine = pd.DatetimeIndex(self.times.iloc[rows])
            if self.daily:
                date = mine.tz_localize(None)
                time = session_close(date, str(calendar), delay)
                day = date.where(time.notna())
            else:
                time = mine.tz_convert("UTC") + delay
                day = session_of(mine.tz_convert("UTC"), str(calendar))
            known[rows] = time.tz_convert("UTC").tz_localize(None).to_numpy()
            session[rows] = day.to_numpy()
            off = np.asarray(day.isna())
            code[rows[off]] = "SV-F05"
            code[rows[off & ~within(mine, str(calendar))]] = "SV-F06"
        return _timed(known, session, code, self.times.index)

    def as_known(self, session: pd.Series | None) -> "Timed":
        """Times that already say when the bars were known, as in a panel."""
        time = pd.DatetimeIndex(self.times).tz_convert("UTC").tz_localize(None).as_unit("us")
        day = time.normalize() if session is None else pd.DatetimeIndex(session).as_unit("us")
        return _timed(time.to_numpy(), day.to_numpy(), self.code, self.times.index)

    def _without_calendar(self, clock: Clock) -> "Timed":
        if self.daily and self.times.notna().any():
            raise DataError(
                "bars carry dates only, and nothing says when they were known",
                code="SV-F09",
                where=f"first date {self.times.dropna().iloc[0]}",
                why="a daily bar used from midnight on looks into its own day",
                cure="set data.calendar, e.g. data.calendar=XNYS, or 24/7 where nothing closes",
            )
        aware = self.times if self.times.dt.tz is not None else self.times.dt.tz_localize("UTC")
        time = aware.dt.tz_convert("UTC") + pd.Timedelta(clock.delay)
        local = time.dt.tz_convert(clock.timezone or "UTC").dt.tz_localize(None).dt.normalize()
        return self.__class__(time, self.code, self.daily).as_known(local)


@dataclass(frozen=True)
class Timed:
    """When N bars were known.

    Attributes
    ----------
    known : Series of N UTC times (us)
        NaT where `code` names a fault.
    session : Series of N naive dates (us)
    code : object ndarray of shape (N,)
        Fault code; ``SV-F05`` where the exchange held no session, ``SV-F06`` where its
        calendar does not reach.
    """

    known: pd.Series
    session: pd.Series
    code: np.ndarray


def _timed(known: np.ndarray, session: np.ndarray, code: np.ndarray, index: pd.Index) -> Timed:
    times = pd.Series(known, index).where(code == "").dt.tz_localize("UTC")
    return Timed(times, pd.Series(session, index).where(code == ""), code)


def _all_midnights(times: pd.Series) -> bool:
    present = times.dropna()
    return bool((present.dt.normalize() == present).all())


def _microseconds(times: pd.Series) -> pd.Series:
    """The one unit of the product; mixed units refuse to merge."""
    return times.dt.as_unit("us")

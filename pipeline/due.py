"""When a scheduled run is due: some time after each session's close, or at an interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from pipeline.data.calendar import sessions
from stages.base import ConfigError

REACH = pd.Timedelta(days=31)  # no exchange is shut for longer


class Times(Protocol):
    """Times at which something is due, in order."""

    def next(self, after: pd.Timestamp) -> pd.Timestamp:
        """The first one later than `after`, UTC."""
        ...

    def last(self, until: pd.Timestamp) -> pd.Timestamp:
        """The newest one that is not later than `until`, UTC."""
        ...


@dataclass(frozen=True)
class Closes:
    """Some time after the close of every session: half days and changes of the clock included.

    Parameters
    ----------
    calendars : sequence of str
        Names in exchange_calendars; every close of any of them counts.
    after : str or Timedelta
        From the close to the time that is due, at least 0.

    Raises
    ------
    ConfigError
        SV-F06 for an unknown calendar, SV-F33 for none, or for an `after` that is no length of
        time.
    """

    calendars: Sequence[str]
    after: pd.Timedelta | str = "0min"

    def __post_init__(self) -> None:
        if not self.calendars:
            raise ConfigError(
                "nothing says when a session ends",
                code="SV-F33",
                where="keys calendars and data.calendar",
                cure="data.calendar=XNYS, calendars=[XNYS,XLON], or every=60s",
            )
        object.__setattr__(self, "after", length_of(self.after, "after", least=0))

    def next(self, after: pd.Timestamp) -> pd.Timestamp:
        times = self._around(after)
        return pd.Timestamp(times[times > after][0])

    def last(self, until: pd.Timestamp) -> pd.Timestamp:
        times = self._around(until)
        return pd.Timestamp(times[times <= until][-1])

    def _around(self, time: pd.Timestamp) -> pd.DatetimeIndex:
        wait = pd.Timedelta(self.after)
        first, last = time - REACH - wait, time + REACH
        found = [sessions(name, first, last)["close"] for name in self.calendars]
        return pd.DatetimeIndex(pd.concat(found)).unique().sort_values() + wait


@dataclass(frozen=True)
class Every:
    """At an interval, counted from 1970-01-01 UTC, so that a restart does not shift it.

    Parameters
    ----------
    length : str or Timedelta
        At least a second.

    Raises
    ------
    ConfigError
        SV-F33 for what is no such length of time.
    """

    length: pd.Timedelta | str

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", length_of(self.length, "every", least=1))

    def next(self, after: pd.Timestamp) -> pd.Timestamp:
        return self.last(after) + pd.Timedelta(self.length)

    def last(self, until: pd.Timestamp) -> pd.Timestamp:
        return until.floor(self.length)


def length_of(text: pd.Timedelta | str, name: str, least: float) -> pd.Timedelta:
    """A length of time of at least `least` seconds; ConfigError SV-F33 for anything else."""
    length = pd.to_timedelta(text, errors="coerce") if isinstance(text, str) else text
    if isinstance(length, pd.Timedelta) and length.total_seconds() >= least:
        return length
    raise ConfigError(
        f"{name}={text} is no length of time of {least:g} s or more",
        code="SV-F33",
        where=f"key {name}",
        cure=f"{name}=15min, or {name}=60s",
    )

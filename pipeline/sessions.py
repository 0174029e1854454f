"""Which session a daily run is for, and whether the data are those of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pipeline.data.calendar import sessions
from pipeline.data.instruments import Instruments
from stages.base import DataError
from stages.panel import until
from stages.portfolio.prepared import Prepared


@dataclass(frozen=True)
class Session:
    """The day that is decided on.

    Attributes
    ----------
    day : Timestamp
        Its date, naive; with bars within the day, the time of the decision, UTC.
    held : bool or None
        Whether any exchange held a session on it; None where no calendar can tell.
    """

    day: pd.Timestamp
    held: bool | None

    @property
    def key(self) -> str:
        """What files are named after."""
        return f"{self.day:%Y-%m-%d}" if self.day.tz is None else f"{self.day:%Y-%m-%dT%H%M%S}"


def session_asked(
    asked: pd.Timestamp | None, calendars: Mapping[str, str], delay: str, now: pd.Timestamp
) -> Session:
    """The session to decide on.

    Parameters
    ----------
    asked : Timestamp or None
        UTC; a midnight stands for the date. None takes the newest session whose bars are known by
        `now`, or the date of `now` where no calendar can tell.
    calendars : mapping of str to str
        See `calendars_of`.
    delay : str
        From the close of a session to its bars' being known.
    now : Timestamp
        UTC.
    """
    if asked is not None:
        day = asked.tz_localize(None)
        if day != day.normalize():
            return Session(asked, None)
        if not calendars:
            return Session(day, None)
        return Session(day, any(_holds(name, day) for name in set(calendars.values())))
    if not calendars:
        return Session(now.tz_localize(None).normalize(), None)
    last = []
    for name in sorted(set(calendars.values())):
        table = sessions(name, now - pd.Timedelta(days=31), now)
        last.append(table.index[table["close"] + pd.Timedelta(delay) <= now].max())
    return Session(max(last), True)


def up_to(bars: pd.DataFrame, session: Session) -> pd.DataFrame:
    """The bars that were known when the session was decided on.

    Raises
    ------
    DataError
        SV-X614 where there are none.
    """
    if session.day.tz is not None:
        known = until(bars, session.day)
    else:
        known = bars[bars["session"] <= session.day]
    if not len(known):
        raise _stale(session, f"the first bar is of {bars['session'].min():%Y-%m-%d}")
    return known


def decision_row(
    prepared: Prepared, session: Session, fresh: float, calendars: Mapping[str, str]
) -> int:
    """Row of `prepared` to plan at.

    Parameters
    ----------
    prepared : Prepared
    session : Session
    fresh : float in [0, 1]
        Least share of the listed assets, of exchanges that were open, that must have a bar.
    calendars : mapping of str to str

    Raises
    ------
    DataError
        SV-X614 where the session has no bars, or too few of the listed assets have one.
    """
    row = row_of(prepared, session)
    if row is None:
        newest = prepared.times[-1] if prepared.sessions is None else prepared.sessions[-1]
        raise _stale(session, f"there is no bar of it; the newest is of {newest}")
    listed = prepared.day(prepared.times[row]).living
    if session.day.tz is None:
        shut = {name for name in set(calendars.values()) if not _holds(name, session.day)}
        listed &= np.array([calendars.get(asset) not in shut for asset in prepared.assets])
    has = np.isfinite(prepared.columns["close"][row]) & listed
    share = has.sum() / max(int(listed.sum()), 1)
    if share < fresh:
        missing = [prepared.assets[place] for place in np.flatnonzero(listed & ~has)]
        some = ", ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
        raise _stale(session, f"only {share:.0%} of the listed assets have a bar; not {some}")
    return row


def row_of(prepared: Prepared, session: Session) -> int | None:
    """Last row of a session, or of what was known at its time that day; None without bars."""
    if session.day.tz is not None:
        row = prepared.row(session.day)
        same_day = row >= 0 and prepared.times[row].normalize() == session.day.normalize()
        return row if same_day else None
    if prepared.sessions is None:  # bars within the day: the last of it
        day = prepared.times.tz_localize(None).normalize()
    else:
        day = prepared.sessions
    rows = np.flatnonzero(day == session.day)
    return int(rows[-1]) if len(rows) else None


def _holds(calendar: str, day: pd.Timestamp) -> bool:
    return day in sessions(calendar, day, day).index


def _stale(session: Session, what: str) -> DataError:
    return DataError(
        f"the data are not those of {session.key}: {what}",
        code="SV-X614",
        why="orders from old prices would be placed at new ones",
        cure="fetch the data and run again, or ask for an older session with as_of=DATE",
    )


def calendars_of(
    calendar: str | None, instruments: Instruments | None, assets: Sequence[str]
) -> dict[str, str]:
    """Exchange calendar of each asset, as ``data.calendar`` names them; empty where it does not."""
    if calendar == "instruments" and instruments is not None:
        return dict(zip(assets, instruments.column("calendar", assets).tolist(), strict=True))
    return dict.fromkeys(assets, calendar) if calendar else {}

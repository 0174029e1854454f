"""Who belonged to the universe when: those who belong today are the ones that lasted."""

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.panel import check_panel, warms_up

MEMBER = "member"  # column of a panel: 1 where the asset belonged on the day, 0 where it did not
COLUMNS = ("asset", "from", "to")
FOREVER = pd.Timestamp("2262-01-01")


@warms_up(lambda **_: 0)
def membership(member: np.ndarray) -> np.ndarray:
    """The column as it is."""
    return member


def check_members(members: pd.DataFrame) -> pd.DataFrame:
    """`members` with dates as dates, sorted.

    Parameters
    ----------
    members : DataFrame
        ``asset``, ``from`` and ``to``: first and last day, both included. No `to` belongs still.
        An asset that came back has a row for each time.

    Raises
    ------
    DataError
        SV-F16 for a list without dates, a row without its first day, or one that ends before it
        begins.
    """
    missing = [name for name in COLUMNS if name not in members]
    if missing:
        raise _undated(f"the list of members has no column {missing[0]!r}")
    dated = pd.DataFrame({"asset": members["asset"].astype("str")})
    for name in ("from", "to"):
        given = members[name]
        dated[name] = pd.to_datetime(given, errors="coerce", format="ISO8601").astype(
            "datetime64[us]"
        )
        unread = dated[name].isna() & (given.notna() if name == "to" else True)
        if unread.any():
            row = int(np.flatnonzero(unread)[0])
            asset, value = dated["asset"].iloc[row], given.iloc[row]
            said = "nothing" if pd.isna(value) else repr(value)
            raise _undated(f"{asset} has {said} as `{name}`")
    ends = dated["to"].fillna(FOREVER)
    if (ends < dated["from"]).any():
        wrong = dated[ends < dated["from"]].iloc[0]
        raise _undated(f"{wrong['asset']} ends on {wrong['to']:%Y-%m-%d}, before it begins")
    return dated.sort_values(["asset", "from"], ignore_index=True)


def with_members(bars: pd.DataFrame, members: pd.DataFrame) -> pd.DataFrame:
    """`bars` with the column `MEMBER`.

    Parameters
    ----------
    bars : DataFrame of shape (N, F)
        Panel; a bar belongs to its `session`, or to the UTC date of its time.
    members : DataFrame
        See `check_members`.
    """
    check_panel(bars, ["close"])
    dated = check_members(members)
    assets, days = bars.index.get_level_values("asset"), _days(bars)
    belongs = np.zeros(len(bars), dtype=bool)
    for asset, first, last in dated.itertuples(index=False):
        rows = np.asarray(assets == asset)
        rows[rows] = (days[rows] >= first) & (pd.isna(last) | (days[rows] <= last))
        belongs |= rows
    return bars.assign(**{MEMBER: belongs.astype("float64")})


def absent(bars: pd.DataFrame, members: pd.DataFrame) -> tuple[float, tuple[str, ...]]:
    """How many of those who belonged have no bars.

    Returns
    -------
    share : float in [0, 1]
        Of all pairs of a day of `bars` and a member of that day, those without a bar of the asset
        on that day or any; NaN without a member.
    names : tuple of str
        Members without a single bar while they belonged.
    """
    dated, days = check_members(members), _days(bars)
    calendar = days.unique().sort_values()
    known = pd.MultiIndex.from_arrays([bars.index.get_level_values("asset"), days]).unique()
    first = calendar.searchsorted(dated["from"])
    last = calendar.searchsorted(dated["to"].fillna(FOREVER), side="right")
    spans = np.maximum(last - first, 0)
    if not spans.any():
        return float("nan"), ()
    rows = np.concatenate([np.arange(b, b + n) for b, n in zip(first, spans, strict=True)])
    names = np.repeat(dated["asset"].to_numpy(), spans)
    asked = pd.MultiIndex.from_arrays([names, calendar[rows]]).unique()
    there = asked.isin(known)
    seen = set(asked[there].get_level_values(0))
    never = sorted(set(asked.get_level_values(0)) - seen)
    return float(1 - there.mean()), tuple(never)


def _days(bars: pd.DataFrame) -> pd.DatetimeIndex:
    if "session" in bars:
        return pd.DatetimeIndex(bars["session"]).as_unit("us")
    times = pd.DatetimeIndex(bars.index.get_level_values("time"))
    return times.tz_convert("UTC").tz_localize(None).normalize().as_unit("us")


def _undated(what: str) -> DataError:
    return DataError(
        what,
        code="SV-F16",
        why="a list of today's members holds those who lasted: whatever trades it is too good",
        cure="give each member its first and last day: asset,from,to; an empty `to` belongs still",
    )

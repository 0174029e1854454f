"""Who belonged to the universe when, from a file: what a portfolio may buy on a day."""

from pathlib import Path

import pandas as pd

from stages.base import DataError
from stages.portfolio.members import absent, check_members, with_members

SOME = 5  # names that are told


def read_universe(path: Path | str) -> pd.DataFrame:
    """The list of members, from a CSV with ``asset,from,to``.

    Raises
    ------
    DataError
        SV-F20 for a file that is not there, SV-F19 for one that is no table, SV-F16 for a list
        without dates; see `stages.portfolio.members.check_members`.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"there is no file {path.name} of members", code="SV-F20", cure="universe=PATH"
        )
    try:
        table = pd.read_csv(path, dtype="str", encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path.name} is no table of members",
            code="SV-F19",
            where=str(error)[:200],
            cure="write lines of asset,from,to, in UTF-8",
        ) from error
    return check_members(table)


def with_universe(
    path: Path | str | None, bars: pd.DataFrame, newest: bool = False
) -> tuple[pd.DataFrame, list[str]]:
    """`bars` with who belonged when, and what is missing of them; as they are without a `path`.

    Parameters
    ----------
    path : Path or str, optional
        See `read_universe`.
    bars : DataFrame of shape (N, F)
    newest : bool, default=False
        Whether only the last session matters for what is missing.
    """
    if path is None:
        return bars, []
    members = read_universe(path)
    asked = bars
    if newest:
        day = bars["session"] if "session" in bars else bars.index.get_level_values("time")
        asked = bars[day == day.max()]
    share, names = absent(asked, members)
    if not share > 0:  # NaN: nobody belonged
        return with_members(bars, members), []
    some = ", ".join(names[:SOME]) + (" ..." if len(names) > SOME else "")
    who = f"; never there: {some}" if names else ""
    when = "the members of the day" if newest else "those who belonged, day by day,"
    said = f"{share:.1%} of {when} have no bar{who}."
    return with_members(bars, members), [said]

"""Which column of a foreign table is which: the mapping, its defaults and its errors."""

from collections.abc import Iterable, Mapping

import pandas as pd

from pipeline.nearest import nearest
from stages.base import ConfigError, DataError

KEYS = ("asset", "time")
BAR = ("open", "high", "low", "close", "volume")
QUOTES = ("bid", "ask")
KNOWN = (*KEYS, *BAR, *QUOTES)
FAMILIES = ("feature.", "rule.", "context.")  # columns of planted or precomputed features
ALIASES = {  # for the cure line only: a column is never taken on a guess
    "asset": ("symbol", "ticker", "code", "instrument", "id", "name"),
    "time": ("date", "datetime", "timestamp", "day", "ts"),
    "close": ("price", "last", "px", "adj close"),
}


def resolve(
    mapping: Mapping[str, str | None], present: Iterable[str], where: str
) -> dict[str, str]:
    """Panel name to column of the file, for the columns to read.

    Parameters
    ----------
    mapping : mapping of str to str or None
        ``data.columns``: panel name to name in the file; None leaves the column out, ``asset:
        null`` takes the asset from the name of each file. A name that is not mapped stands for
        itself: it is read where present, in any case. ``adj_close`` is read only when mapped.
        Any further name becomes a column of the panel.
    present : iterable of str
        Columns of the file.
    where : str
        The file, for the error.

    Raises
    ------
    DataError
        If a mapped column, the time or the close is missing, with the nearest name.
    """
    names = list(map(str, present))
    lower: dict[str, list[str]] = {}
    for name in names:
        lower.setdefault(name.lower(), []).append(name)
    found, missing = {}, []
    for panel_name in dict.fromkeys([*KNOWN, *mapping]):
        wanted = mapping.get(panel_name, panel_name)
        if wanted is None:
            continue
        same = [wanted] if wanted in names else lower.get(wanted.lower(), [])
        if len(same) == 1 and (same[0] == wanted or wanted == panel_name):
            found[panel_name] = same[0]
        elif wanted != panel_name or panel_name in ("asset", "time", "close"):
            missing.append((panel_name, wanted))
    if missing:
        raise _missing(missing, names, where)
    required = [name for name in ("time", "close") if name not in found]
    if required:
        raise ConfigError(
            f"data.columns.{required[0]} is null, but no panel goes without it",
            code="SV-F20",
            cure=f"name the column of the {required[0]}",
        )
    for name in found.values():
        if names.count(name) > 1:
            raise DataError(
                f"column {name!r} stands twice in {where}", code="SV-F20", cure="remove one"
            )
    found.update({name: name for name in names if name.startswith(FAMILIES)})
    return found


def take(table: pd.DataFrame, found: Mapping[str, str]) -> pd.DataFrame:
    """The mapped columns under their panel names, in the order of `found`."""
    return pd.DataFrame({panel: table[name] for panel, name in found.items()}, table.index)


def _missing(missing: list[tuple[str, str]], names: list[str], where: str) -> DataError:
    cures = []
    mark = next((mark for mark in ";|" if len(names) == 1 and mark in names[0]), None)
    if mark:  # the header came as one column
        cures.append(f"""'data.dialect.separator="{mark}"', with both kinds of quotes""")
    for panel_name, wanted in missing if mark is None else ():
        alias = next((n for n in names if n.lower() in ALIASES.get(panel_name, ())), None)
        near = nearest(wanted, names)
        if alias:
            cures.append(f"data.columns.{panel_name}={alias!r}")
        elif near:
            cures.append(f"data.columns.{panel_name}: {near}")
        elif panel_name == "asset":
            cures.append("data.columns.asset=null takes the asset from the name of each file")
        else:
            cures.append(f"data.columns.{panel_name}=NAME")
    lacking = ", ".join(f"{wanted!r} (for {panel})" for panel, wanted in missing)
    return DataError(
        f"no column {lacking}",
        code="SV-F20",
        where=f"{where}: columns {', '.join(map(repr, names[:30]))}",
        cure="; ".join(cures),
    )

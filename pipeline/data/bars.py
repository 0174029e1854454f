"""From a checked table to the panel of bars, and its digest."""

import hashlib
import json

import numpy as np
import pandas as pd

from pipeline.data.columns import BAR, FAMILIES
from stages.panel import check_panel

PLACE = ("file", "row", "asset", "time", "known", "session")  # columns that are no values


def digest(bars: pd.DataFrame) -> str:
    """SHA-256 of index and values; the same for any order of columns and any NaN."""
    content = hashlib.sha256()
    assets = bars.index.get_level_values("asset")
    times = pd.DatetimeIndex(bars.index.get_level_values("time")).as_unit("us")
    names, counts = np.unique(assets.to_numpy(dtype="str"), return_counts=True)
    head = {"assets": names.tolist(), "bars": counts.tolist(), "columns": sorted(bars.columns)}
    content.update(json.dumps(head).encode())
    content.update(times.asi8.astype("<i8").tobytes())
    for name in sorted(bars.columns):
        column = bars[name]
        if column.dtype.kind == "M":
            content.update(pd.DatetimeIndex(column).as_unit("us").asi8.astype("<i8").tobytes())
        else:
            number = column.to_numpy(dtype="<f8", copy=True)
            number[np.isnan(number)] = np.nan  # one bit pattern for all NaN
            content.update((number + 0.0).tobytes())  # and one for both zeros
    return content.hexdigest()


def adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """Bars scaled by adj_close / close; volume stays, because dividends do not change it."""
    ratio = table["adj_close"] / table["close"]
    scaled = {c: table[c] * ratio for c in ("open", "high", "low") if c in table}
    table = table.assign(**scaled, close=table["adj_close"]).drop(columns="adj_close")
    # the scaling rounds: it must not lift a close over its own high
    if "high" in table:
        table["high"] = table["high"].where(~(table["high"] < table["close"]), table["close"])
    if "low" in table:
        table["low"] = table["low"].where(~(table["low"] > table["close"]), table["close"])
    return table


def as_panel(table: pd.DataFrame) -> pd.DataFrame:
    """The sound rows of a table as a checked panel of bars with ``session``."""
    values = [c for c in table.columns if c not in PLACE]
    kinds = {c: "float32" if c.startswith(FAMILIES) else "float64" for c in values}
    panel = ordered(table[[*values, "session"]].astype(kinds))
    panel.index = pd.MultiIndex.from_arrays(
        [table["asset"].astype("str"), pd.DatetimeIndex(table["known"])], names=["asset", "time"]
    )
    return check_panel(panel, ["close"])


def ordered(bars: pd.DataFrame) -> pd.DataFrame:
    """Bars with their columns in the usual order."""
    first = [c for c in (*BAR, "market") if c in bars]
    rest = [c for c in bars.columns if c not in (*first, "session")]
    return bars[[*first, *rest, "session"]]

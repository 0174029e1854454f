"""Raw bars to bars without the jumps of splits and dividends, by a table of factors."""

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.panel import check_panel

PRICES = ("open", "high", "low", "close")


def adjusted(bars: pd.DataFrame, factors: pd.DataFrame, dividends: bool = True) -> pd.DataFrame:
    """Back-adjust prices and volumes to the last bar.

    Parameters
    ----------
    bars : DataFrame of shape (N, F)
        Panel of raw bars with `session`.
    factors : DataFrame
        ``asset``, ``date`` (session up to which the row applies, that one included),
        ``split_factor`` and ``price_factor`` (of dividends), both over all later ones. After the
        last date of an asset, and for assets without a row, nothing is changed.
    dividends : bool, default=True
        Whether prices become those of a holder who invests dividends again; else only splits are
        taken out.

    Returns
    -------
    DataFrame of shape (N, F)

    Raises
    ------
    DataError
        SV-F20 for bars without sessions or a table without these columns, SV-F12 for a factor
        that is not above 0.

    Notes
    -----
    The factors know every split and dividend up to the last: levels of the past change when a new
    one comes, ratios of prices do not. A rule that reads levels, such as a price of at least 5,
    sees the future in them.
    """
    check_panel(bars, ["close", "session"])
    needs = ["asset", "date", "split_factor", "price_factor"]
    missing = [name for name in needs if name not in factors]
    if missing:
        raise DataError(
            f"the factors have no column {missing[0]!r}",
            code="SV-F20",
            where=f"columns: {list(factors.columns)}",
            cure=f"name them {needs}",
        )
    table = factors.assign(
        asset=factors["asset"].astype("str"),
        date=pd.to_datetime(factors["date"]).astype("datetime64[us]"),
    ).sort_values("date", kind="stable")
    both = table[["split_factor", "price_factor"]].to_numpy(dtype="float64")
    if not (np.isfinite(both) & (both > 0)).all():
        raise DataError(
            "a factor is not a number above 0",
            code="SV-F12",
            why="a price times it would be none",
            cure="correct the row; 1 where nothing happened",
        )
    rows = pd.DataFrame(
        {
            "asset": bars.index.get_level_values("asset").astype("str"),
            "date": pd.DatetimeIndex(bars["session"]).as_unit("us"),
            "place": np.arange(len(bars)),
        }
    ).sort_values("date", kind="stable")
    found = pd.merge_asof(rows, table, on="date", by="asset", direction="forward")
    found = found.sort_values("place")
    split = found["split_factor"].fillna(1.0).to_numpy()
    scale = split * found["price_factor"].fillna(1.0).to_numpy() if dividends else split
    changed = {name: bars[name] * scale for name in PRICES if name in bars}
    if "volume" in bars:
        changed["volume"] = bars["volume"] / split
    return bars.assign(**changed)

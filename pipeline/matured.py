"""Which labels are new, and old enough, to be learnt from."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.panel import last_rows


def newest_rows(y: pd.DataFrame) -> dict[str, pd.Timestamp]:
    """Time of the newest label of each asset."""
    return {str(asset): time for asset, time in last_rows(y).index}


def known(rows: pd.Index, learned: Mapping[str, pd.Timestamp]) -> np.ndarray:
    """Whether each of N rows is no newer than the newest of its asset that was learnt from.

    Not by label end: a barrier touched early matures before rows that were learnt long ago. An
    asset that is new is compared with the newest row of all.
    """
    assets, times = (rows.get_level_values(level) for level in ("asset", "time"))
    newest = pd.Series(learned)
    last = newest.reindex(assets).fillna(newest.max())
    return np.asarray(times <= pd.DatetimeIndex(last))


def refuse_open_horizons(y: pd.DataFrame, newest: pd.Timestamp) -> None:
    """Refuse labels that end after the newest bar.

    Raises
    ------
    DataError
        SV-F25, naming the first.
    """
    still_open = (y["end"] > newest).to_numpy()
    if still_open.any():
        asset, time = y.index[int(still_open.argmax())]
        raise DataError(
            f"the label of {asset} at {time} ends after the newest bar, {newest}",
            code="SV-F25",
            where=f"{int(still_open.sum())} of {len(y)} labels",
            why="an open horizon has no outcome yet",
            cure="leave these labels out until their end has passed, or bring newer bars",
        )


def newer_rows(
    panel: pd.DataFrame, spoken: pd.DataFrame, learned_until: pd.Timestamp
) -> pd.MultiIndex:
    """Evaluable rows that may be spoken of as unseen: newer than all before, and than all learnt.

    Parameters
    ----------
    panel : DataFrame of shape (N, F)
    spoken : DataFrame
        Rows that were spoken of before.
    learned_until : Timestamp
        Newest bar that a horizon of a label learnt from reaches.
    """
    times = pd.DatetimeIndex(panel.index.get_level_values("time"))
    fresh = panel["ready"].to_numpy() & (times >= learned_until)
    if len(spoken):
        fresh &= times > spoken.index.get_level_values("time").max()
    return panel.index[fresh]  # type: ignore[return-value]

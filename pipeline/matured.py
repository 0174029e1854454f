"""Which labels are new, and old enough, to be learnt from; what was said before they were."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from stages.base import DataError, Stage
from stages.panel import last_rows, settled
from stages.signal import ODDS


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


def prequential(
    ensemble: Stage, panel: pd.DataFrame, y: pd.DataFrame, rows: pd.MultiIndex
) -> pd.DataFrame:
    """Let stage 3 learn `y`, and speak of `rows` on its way, each as it stood at the row's time.

    Parameters
    ----------
    ensemble : Stage
        Learns.
    panel : DataFrame of shape (N, F)
        With the columns of the stages before.
    y : DataFrame of shape (n, 3 to 5)
        Each label is learnt at the time at which it is settled.
    rows : MultiIndex

    Returns
    -------
    DataFrame
        `p_sell`, `p_hold`, `p_buy` of `rows`, said with no label that was settled later, and
        `sigma` where the panel has it.

    References
    ----------
    Dawid (1984), "Statistical theory: the prequential approach", JRSS A 147.
    """
    at = panel.index.get_indexer(rows)
    times, ends = (pd.DatetimeIndex(t).as_unit("us").asi8 for t in (_times(rows), settled(y)))
    said = []
    for moment in np.unique(np.concatenate([times, ends])):
        due = y[ends == moment]
        if len(due):
            ensemble.update(panel, due)
        here = panel.iloc[at[times == moment]]
        if len(here):
            said.append(ensemble.predict(here)[ODDS].join(here.filter(["sigma"])))
    return pd.concat(said).sort_index() if said else panel.iloc[:0].reindex(columns=ODDS)


def _times(rows: pd.MultiIndex) -> pd.Index:
    return rows.get_level_values("time")

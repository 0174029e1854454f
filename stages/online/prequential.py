"""Test, then learn: stage 3 speaks of each row as it stood at the row's time."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from stages.base import Stage
from stages.panel import settled
from stages.signal import ODDS


def odds_and_sigma(ensemble: Stage, panel: pd.DataFrame) -> pd.DataFrame:
    """`p_sell`, `p_hold` and `p_buy`, and `sigma` where the panel has it."""
    return ensemble.predict(panel)[ODDS].join(panel.filter(["sigma"]))


def prequential(
    ensemble: Stage,
    panel: pd.DataFrame,
    y: pd.DataFrame,
    rows: pd.MultiIndex,
    say: Callable[[Stage, pd.DataFrame], pd.DataFrame] = odds_and_sigma,
    every: int = 1,
) -> pd.DataFrame:
    """Let stage 3 learn `y`, and speak of `rows` on its way, each as it stood at the row's time.

    Parameters
    ----------
    ensemble : Stage
        Learns; in the end it knows all of `y`.
    panel : DataFrame of shape (N, F)
        With the columns of the stages before.
    y : DataFrame of shape (n, 3 to 5)
        Each label is learnt when it is settled, not before.
    rows : MultiIndex
    say : callable of (Stage, DataFrame)
        What is noted of rows of one time, or of `every` times in a row.
    every : int >= 1, default=1
        Bars of `rows` between two updates; labels wait for the next one.

    Returns
    -------
    DataFrame
        What was said, asset-major, with no label that was settled after the update before.

    References
    ----------
    Dawid (1984), "Statistical theory: the prequential approach", JRSS A 147.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1 bar, got {every}")
    at = panel.index.get_indexer(rows)
    times, ends = (_us(stamps) for stamps in (rows.get_level_values("time"), settled(y)))
    said, learnt = [], np.zeros(len(y), dtype=bool)
    moments = np.unique(times)
    for first in range(0, len(moments), every):
        due = (ends <= moments[first]) & ~learnt
        if due.any():
            ensemble.update(panel, y[due])
            learnt |= due
        last = moments[min(first + every, len(moments)) - 1]
        said.append(say(ensemble, panel.iloc[at[(times >= moments[first]) & (times <= last)]]))
    if not learnt.all():
        ensemble.update(panel, y[~learnt])
    return pd.concat(said).sort_index() if said else panel.iloc[:0].reindex(columns=ODDS)


def _us(stamps: pd.Index | pd.Series) -> np.ndarray:
    return pd.DatetimeIndex(stamps).as_unit("us").asi8

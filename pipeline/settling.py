"""What stored signals came to, by the labels of the model that made each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.signal_pipeline import SignalPipeline
from pipeline.store.rows import Outcome
from pipeline.store.signal_store import SignalStore
from stages.panel import check_labels, settled


@dataclass
class Settled:
    """What one look at the bars settled.

    Attributes
    ----------
    outcomes : int
        Attached now.
    waiting : int
        Signals whose label is not known from these bars: too young, or another asset or time.
    unknown : int
        Signals of models that are not at hand.
    span : int
        Bars that the longest of the labels covers.
    """

    outcomes: int = 0
    waiting: int = 0
    unknown: int = 0
    span: int = 1


def settle(
    store: SignalStore, models: Path, bars: pd.DataFrame, y: pd.DataFrame | None = None
) -> Settled:
    """Attach the outcome of each stored signal whose label has matured in `bars`.

    Parameters
    ----------
    store : SignalStore
    models : Path
        Folder of the models, by the first 16 digits of their digest.
    bars : DataFrame of shape (N, F)
        Up to now.
    y : DataFrame of shape (n, 3 to 5), optional
        Labels that come with the bars; default what the labeler of each model makes of them.

    Returns
    -------
    Settled
    """
    found = Settled()
    for model, rows in store.unsettled().groupby("model", sort=True):
        folder = models / str(model)[:16]
        if not folder.is_dir():
            found.unknown += len(rows)
            continue
        pipeline = SignalPipeline.load(folder)
        found.span = max(found.span, pipeline.labels.span)
        labels = pipeline.labels_.label(bars) if y is None else y
        outcomes = list(_outcomes(rows, check_labels(labels), bars))
        found.outcomes += store.resolve(outcomes)
        found.waiting += len(rows) - len(outcomes)
    return found


def _outcomes(rows: pd.DataFrame, y: pd.DataFrame, bars: pd.DataFrame) -> Iterator[Outcome]:
    """Outcomes of those rows whose label is over by the newest bar, and has a return."""
    newest = bars.index.get_level_values("time").max()
    y = y[(settled(y) <= newest).to_numpy()]
    if "ret" not in y:
        return
    by_time = y["ret"].groupby(level="time")
    others = by_time.transform("count") > 1  # of one asset alone there is no market
    excess = (y["ret"] - by_time.transform("mean")).where(others)
    at = y.index.get_indexer(pd.MultiIndex.from_frame(rows[["asset", "time"]]))
    ends = pd.DatetimeIndex(settled(y))
    values = zip(*(x.to_numpy() for x in (y["side"], y["ret"], excess)), strict=True)
    known = list(values)
    for id, row in zip(rows.index.tolist(), at.tolist(), strict=True):
        if row >= 0 and np.isfinite(known[row][1]):
            side, ret, over = known[row]
            beyond = float(over) if np.isfinite(over) else None
            yield Outcome(id, int(side), float(ret), ends[row], beyond)

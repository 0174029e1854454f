"""Signals beside what they risk and what checks found: the appraiser asked as it should be."""

from math import nan
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline.signals import Signals
from stages.panel import asset_starts, last_rows

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline


def appraised(
    pipeline: "SignalPipeline",
    signals: Signals,
    panel: pd.DataFrame,
    bars: pd.DataFrame,
    as_of: pd.Timestamp | None,
) -> Signals:
    """Signals with their appraisal; as they are, where the model has no appraiser.

    Parameters
    ----------
    pipeline : SignalPipeline
    signals : Signals
        Of the N rows of `panel`, in their order.
    panel : DataFrame of shape (N, F)
        Decided rows; `scale` and `cost` are read where they are there.
    bars : DataFrame
        Up to the newest signal of each asset, and before it.
    as_of : Timestamp or None
        Time at which the newest bar of each asset is judged: is it too old, has it expired? None
        judges it, like every older one, at its own time, for what is stored must not change when
        it is made again a day later.
    """
    if pipeline.appraiser_ is None or not signals:
        return signals
    appraiser = pipeline.appraiser_
    newest = set(last_rows(bars).index) if as_of is not None else set()
    if len(signals) == panel.index.get_level_values("asset").nunique():  # one an asset
        oldest = min(signal.time for signal in signals)
        bars = _recent(bars, oldest, appraiser.look)
    context = []
    plans = zip(*(_column(panel, name) for name in ("scale", "cost")), strict=True)
    for signal, (scale, cost) in zip(signals, plans, strict=True):
        late = (signal.asset, signal.time) in newest
        context.append(
            {
                "now": max(as_of, signal.time) if as_of is not None and late else signal.time,
                "step": pipeline.step_,
                "span": pipeline.labels.span,
                "scale": scale,
                "cost": cost,
            }
        )
    classes = pipeline.instruments.classes([signal.asset for signal in signals]).tolist()
    return Signals(appraiser.appraise(signals, bars, classes, context))


def _recent(bars: pd.DataFrame, oldest: pd.Timestamp, look: int) -> pd.DataFrame:
    """The last `look` bars of each asset up to `oldest`, and all its bars after that."""
    starts, times = asset_starts(bars), pd.DatetimeIndex(bars.index.get_level_values("time"))
    kept = np.zeros(len(bars), dtype=bool)
    for begin, end in zip(starts[:-1], starts[1:], strict=True):
        known = begin + int(times[begin:end].searchsorted(oldest, side="right"))
        kept[max(begin, known - look) : end] = True
    return bars[kept]


def _column(panel: pd.DataFrame, name: str) -> list[float]:
    return panel[name].tolist() if name in panel else [nan] * len(panel)

"""Reasons of signals in the form that the plots of SHAP read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from stages.base import ConfigError, DataError
from stages.explain.memory import column_of
from stages.signal import Reasons, Signal


def to_shap(signals: Signal | Sequence[Signal], panel: pd.DataFrame | None = None) -> Any:
    """Give the contributions of one signal, or of several, as a ``shap.Explanation``.

    Base values and values sum to the margin within 1e-5. Of one signal they are the log-odds of
    its own side over the opposite one; of several, of buy over sell, so that they compare.

    Parameters
    ----------
    signals : Signal or sequence of n Signal
        Those of a sequence that carry no reasons are left out.
    panel : DataFrame, optional
        Whose rows give the values of the inputs, such as ``pipeline.panel(bars)``: plots show and
        colour by them.

    Returns
    -------
    shap.Explanation
        `values` and `data` of shape (F,) for one signal, (n, F) for several.

    Raises
    ------
    ConfigError
        SV-X106 where the package shap is not installed.
    DataError
        SV-F18 where no signal carries reasons.
    """
    try:
        import shap
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the package shap is not installed",
            code="SV-X106",
            why="only its own plots need it; Sieve computes contributions without",
            cure="pip install 'shap>=0.51,<0.55'",
        ) from error

    alone = isinstance(signals, Signal)
    asked = [signals] if isinstance(signals, Signal) else list(signals)
    told = [(s, s.reasons) for s in asked if s.reasons is not None]
    if not told:
        raise DataError(
            "no signal carries reasons",
            code="SV-F18",
            where=f"{len(asked)} signals",
            cure="ask for signals that do not abstain, with explain=True",
        )
    names = list(dict.fromkeys(name for _, why in told for name in why.contributions))
    sign = np.array([1 if alone else why.side for _, why in told])
    values = sign[:, None] * np.array([_pushes(why, names) for _, why in told])
    base = sign * np.array([why.baseline for _, why in told])
    data = None if panel is None else _inputs([s for s, _ in told], names, panel)
    if alone:
        values, base, data = values[0], base[0], None if data is None else data[0]
    return shap.Explanation(values, base_values=base, data=data, feature_names=names)


def _pushes(why: Reasons, names: Sequence[str]) -> list[float]:
    return [float(why.contributions.get(name, 0.0)) for name in names]


def _inputs(signals: Sequence[Signal], names: Sequence[str], panel: pd.DataFrame) -> np.ndarray:
    """Values of the inputs (n, F); NaN for what is no column, such as the gate."""
    rows = pd.MultiIndex.from_tuples([(s.asset, s.time) for s in signals])
    columns = [name if name in panel else column_of(name) for name in names]
    known = [name for name in columns if name in panel]
    return panel[known].reindex(rows).reindex(columns=columns).to_numpy(dtype="float64")

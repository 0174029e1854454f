"""The gate: rows whose first score is too low for a signal are not refined."""

import re

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.panel import named

OPEN = float(np.finfo("float64").min)  # a threshold that every score passes, and JSON can hold


def gate_score(columns: pd.DataFrame) -> np.ndarray:
    """Log-odds of the likelier of sell and buy against the rest, members averaged as logits.

    Parameters
    ----------
    columns : DataFrame of shape (N, ...)
        Holds ``filter.<member>.z_sell`` and ``filter.<member>.z_buy`` of each member.

    Returns
    -------
    float64 ndarray of shape (N,)
        NaN where a member has no logits.

    Raises
    ------
    DataError
        If there is no such column.
    """
    sell, buy = (_mean(columns, side) for side in ("z_sell", "z_buy"))
    with np.errstate(invalid="ignore"):  # logaddexp warns of the NaN it passes on
        return np.maximum(sell - np.logaddexp(0, buy), buy - np.logaddexp(0, sell))


def gate_threshold(
    scores: np.ndarray,
    fires: np.ndarray,
    recall: float,
    weights: np.ndarray | None = None,
    least: float = 0.0,
) -> float:
    """Largest threshold that at least `recall` of the firing rows pass, by weight.

    Parameters
    ----------
    scores : float ndarray of shape (n,)
        Rows without a score (NaN) do not count.
    fires : bool ndarray of shape (n,)
    recall : float in (0, 1]
        1 gives `OPEN`: no threshold keeps every signal of rows to come.
    weights : float ndarray of shape (n,), optional
    least : float in [0, 1), default=0
        Share of the rows with a score, by weight, that must fail it.

    Returns
    -------
    float
        `OPEN` if no row fires, as there is nothing to keep the recall of, or if too few fail.
    """
    scores = np.asarray(scores, dtype="float64")
    scored = ~np.isnan(scores)
    counts = np.asarray(fires, dtype=bool) & scored
    if recall == 1 or not counts.any():
        return OPEN
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype="float64")
    values, place = np.unique(scores[counts], return_inverse=True)
    mass = np.bincount(place, weights[counts])
    kept = mass[::-1].cumsum()[::-1]  # weight at or above each value
    # 1e-12: shares like 0.95 * 20 must not lose a row to rounding
    enough = kept >= (recall - 1e-12) * kept[0]
    threshold = float(values[enough][-1])
    failed = weights[scored & (scores < threshold)].sum()
    return threshold if failed >= least * weights[scored].sum() else OPEN


def same_share(before: np.ndarray, after: np.ndarray, threshold: float) -> float:
    """Threshold that stops as large a share of the scores `after` as `threshold` did `before`.

    Parameters
    ----------
    before, after : float64 ndarray of shape (n,)
        `gate_score` of the same rows by members as they were and as they are; NaN is left out.
    threshold : float
        Of the scores before.
    """
    before, after = before[np.isfinite(before)], np.sort(after[np.isfinite(after)])
    if not len(before) or not len(after):
        return threshold
    stopped = round(float((before < threshold).mean()) * len(after))
    return float(after[min(stopped, len(after) - 1)])


def _mean(columns: pd.DataFrame, side: str) -> np.ndarray:
    wanted = re.compile(rf"filter\.\w+\.{side}")
    names = [name for name in named(columns, "filter") if wanted.fullmatch(name)]
    if not names:
        raise DataError(
            f"no column filter.<member>.{side} to score by",
            code="SV-F20",
            cure="pass what TreeFilter.predict returned",
        )
    total = np.zeros(len(columns))
    for name in names:  # in a fixed order: a mean along rows may differ in its last bit with N
        total = total + columns[name].to_numpy(dtype="float64")
    return total / len(names)

"""What an update did to what was known: accuracy by regime, backward and forward transfer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from stages.signal import ODDS

ALL = "all"  # where rows tell no regime
LEAST_ODDS = 1e-12


def scores(odds: np.ndarray, side: np.ndarray) -> dict[str, float | None]:
    """How N rows were foretold.

    Parameters
    ----------
    odds : float64 ndarray of shape (N, 3)
        Of sell, hold and buy; rows with NaN are left out.
    side : int ndarray of shape (N,)
        -1, 0, 1.

    Returns
    -------
    dict
        ``rows``, ``log_loss`` (nats), ``accuracy``, and ``brier``, the squared distance to what
        came; None where there are no rows.
    """
    known = np.isfinite(odds).all(axis=1)
    odds, came = odds[known], side[known].astype(int) + 1
    if not len(came):
        return {"rows": 0, "log_loss": None, "accuracy": None, "brier": None}
    paid = odds[np.arange(len(came)), came]
    return {
        "rows": len(came),
        "log_loss": float(-np.log(np.maximum(paid, LEAST_ODDS)).mean()),
        "accuracy": float((odds.argmax(axis=1) == came).mean()),
        "brier": float(((odds - np.eye(3)[came]) ** 2).sum(axis=1).mean()),
    }


def by_regime(
    said: pd.DataFrame, side: np.ndarray, regime: np.ndarray | None
) -> dict[str, dict[str, float | None]]:
    """`scores` of the rows of each regime.

    Parameters
    ----------
    said : DataFrame of shape (N, >= 3)
        With `p_sell`, `p_hold`, `p_buy`.
    side : int ndarray of shape (N,)
    regime : float ndarray of shape (N,) or None
        Whole numbers; NaN is one of its own.
    """
    odds = said[ODDS].to_numpy("float64")
    if regime is None:
        return {ALL: scores(odds, side)}
    names = np.array(["nan" if np.isnan(r) else f"{round(r):d}" for r in regime])
    return {n: scores(odds[names == n], side[names == n]) for n in np.unique(names).tolist()}


def transfer(
    before: Mapping[str, Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
    new: Mapping[str, Any],
    commonest: float,
) -> dict[str, float | None]:
    """Backward and forward transfer of one update.

    Parameters
    ----------
    before, after : mapping of str to scores
        By regime, on the same remembered rows, by the model before and after the update.
    new : scores
        Of the rows that were learnt, by the model before.
    commonest : float
        Accuracy on them of always saying the side that was commonest before.

    Returns
    -------
    dict
        ``backward``: mean change of accuracy over the regimes; below 0 is forgetting.
        ``backward_loss``: mean fall of log-loss; below 0 is forgetting. ``forward``: accuracy on
        what is new, before it was learnt, over that of the commonest side.

    References
    ----------
    Lopez-Paz & Ranzato (2017), "Gradient Episodic Memory for Continual Learning", section 2 (BWT
    and FWT, here over one step).
    """
    both = [name for name in before if before[name]["rows"] and after[name]["rows"]]

    def change(figure: str) -> float | None:
        steps = [after[name][figure] - before[name][figure] for name in both]
        return float(np.mean(steps)) if steps else None

    fall = change("log_loss")
    return {
        "backward": change("accuracy"),
        "backward_loss": None if fall is None else -fall,
        "forward": None if new["accuracy"] is None else float(new["accuracy"] - commonest),
    }

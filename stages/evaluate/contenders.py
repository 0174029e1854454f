"""Who stands in the evaluation table: baselines, each member, each stage, the whole pipeline."""

import numpy as np
import pandas as pd

from stages.panel import named
from stages.signal import ODDS


def contenders(
    rows: pd.DataFrame, y: pd.DataFrame, last_return: pd.Series | None = None
) -> dict[str, pd.DataFrame]:
    """Class probabilities of every model for the same unseen rows.

    Parameters
    ----------
    rows : DataFrame of shape (N, F)
        Unseen rows with the columns of every stage: ``filter.*``, ``refiner.*``, ``p_*`` (behind
        the gate) and ``ungated.p_*``.
    y : DataFrame of shape (n, 3)
        Every label there is; a baseline counts only those known at the row's own time.
    last_return : Series, optional
        Return of the newest bar, for all rows and all of `y`; without it there is no last sign.

    Returns
    -------
    mapping of str to DataFrame of shape (N, 3)
        In the order of the stages, baselines first.
    """
    known = _Known(y)
    out = {"base rate": known.odds(rows)}
    if last_return is not None:
        out["last sign"] = _Known(y, np.sign(last_return).fillna(0)).odds(rows)
    members = [
        c.removesuffix(".z_buy") for c in named(rows, "filter", "refiner") if c.endswith(".z_buy")
    ]
    logits = {m: rows[[f"{m}.z_sell", f"{m}.z_buy"]].to_numpy() for m in members}
    short = [member.split(".", 1)[1] for member in members]
    for member, name in zip(members, short, strict=True):
        # in full where both stages have a member of that name
        out[name if short.count(name) == 1 else member] = _softmax(logits[member], rows.index)
    out["soft vote"] = _softmax(np.mean(list(logits.values()), axis=0), rows.index)
    for number, stage in enumerate(("filter", "refiner"), start=1):
        mine = [z for member, z in logits.items() if member.startswith(stage)]
        if mine:
            out[f"stage {number}"] = _softmax(np.mean(mine, axis=0), rows.index)
    out["stage 3"] = rows[[f"ungated.{c}" for c in ODDS]].set_axis(ODDS, axis=1)
    out["pipeline"] = rows[ODDS]
    return out


class _Known:
    """Share of each side among the labels that had ended by a time, by group."""

    def __init__(self, y: pd.DataFrame, group: pd.Series | None = None) -> None:
        self.group = group
        groups = np.zeros(len(y)) if group is None else group.loc[y.index].to_numpy()
        self.past = {}
        for g in np.unique(groups):
            mine = y[groups == g].sort_values("end", kind="stable")
            hits = (mine["side"].to_numpy()[:, None] == [-1, 0, 1]).cumsum(axis=0)
            self.past[g] = (_utc(mine["end"]), hits)

    def odds(self, rows: pd.DataFrame) -> pd.DataFrame:
        times = _utc(rows.index.get_level_values("time"))
        groups = (
            np.zeros(len(rows)) if self.group is None else self.group.loc[rows.index].to_numpy()
        )
        counts = np.ones((len(rows), 3))  # one of each: a frequency is never exactly 0 or 1
        for g, (ends, hits) in self.past.items():
            here = groups == g
            seen = np.searchsorted(ends, times[here], side="right")
            counts[here] += np.where(seen[:, None] > 0, hits[np.maximum(seen - 1, 0)], 0)
        return pd.DataFrame(counts / counts.sum(axis=1, keepdims=True), rows.index, ODDS)


def _utc(times: pd.Series | pd.Index) -> np.ndarray:
    """Times as datetime64: pandas alone would compare them one object at a time."""
    return pd.DatetimeIndex(times).to_numpy(dtype="datetime64[ns]")


def _softmax(z: np.ndarray, index: pd.Index) -> pd.DataFrame:
    eta = np.column_stack([z[:, 0], np.zeros(len(z)), z[:, 1]])
    odds = np.exp(eta - eta.max(axis=1, keepdims=True))
    return pd.DataFrame(odds / odds.sum(axis=1, keepdims=True), index, ODDS)

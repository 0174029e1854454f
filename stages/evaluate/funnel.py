"""What each stage took away: false positives, and what the rows it dropped would have earned."""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_curve

from stages.evaluate.bootstrap import interval, resample
from stages.panel import named

STEPS = ("all", "gate", "refiner", "ensemble", "decision")


def funnel(
    rows: pd.DataFrame,
    label: pd.Series,
    forward_return: pd.Series | None = None,
    *,
    span: int = 1,
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Follow every row through the stages: who was let by, who was not, and whether rightly so.

    Each row is a candidate for the side, buy or sell, to which stage 1 leans. A step drops it: the
    gate below its threshold; stage 2 and stage 3 where they lean to the other side; the decision
    where it does not fire (or is not sure of that side). A false positive is a candidate whose side
    did not pay.

    Parameters
    ----------
    rows : DataFrame of shape (N, F)
        Unseen rows with the columns of every stage and the decision; `cost` (round trip, fraction)
        is charged where it is there.
    label : Series of N
        The side that paid: -1, 0, 1.
    forward_return : Series of N floats, optional
        Fraction, over the horizon; without it nothing is said of what was earned.
    span : int
        Bars that a label covers.
    resamples, seed
        See `stages.evaluate.bootstrap.resample`.

    Returns
    -------
    DataFrame
        Indexed by `step` (see `STEPS`; ``refiner`` only where there is one). `rows` left, `dropped`
        here, `false_positives` dropped here; and each with ``_low`` and ``_high``: `precision` of
        those left, `recall` (of the candidates of the first step whose side paid, the share left),
        `lift` (precision over that of all candidates), `cut` (share of the false positives that
        entered this step which it dropped), `lost` (the same of the true positives), `earned` and
        `forgone` (mean return after costs of those left, and of those dropped here).
    """
    rows = rows[label.reindex(rows.index).notna().to_numpy()]
    side, left = _kept(rows)
    side = np.where(left["all"], side, 0)
    paid = label.reindex(rows.index).to_numpy("float64") == side
    gain = np.full(len(rows), np.nan)
    if forward_return is not None:
        cost = rows["cost"].to_numpy("float64") if "cost" in rows else 0.0
        gain = side * forward_return.reindex(rows.index).to_numpy("float64") - cost
    times = pd.DatetimeIndex(rows.index.unique("time")).sort_values()
    bar = times.get_indexer(rows.index.get_level_values("time"))
    sums = _sums(left, paid, gain, bar, len(times))
    names = list(_figures(sums.sum(axis=0), len(left)))

    def figures(totals: np.ndarray) -> np.ndarray:
        said = _figures(totals, len(left))
        return np.concatenate([said[name] for name in names], axis=-1)

    out = resample(figures, sums, span, resamples, seed)
    table = pd.DataFrame(index=pd.Index(left, name="step"))
    totals = sums.sum(axis=0).reshape(len(left), -1)
    table["rows"] = totals[:, 0].astype(int)
    table["dropped"] = np.append(0, -np.diff(table["rows"]))
    false = totals[:, 0] - totals[:, 1]
    table["false_positives"] = np.append(0, -np.diff(false)).astype(int)
    for k, name in enumerate(names):
        at = slice(k * len(left), (k + 1) * len(left))
        ends = np.array([interval(drawn) for drawn in out.drawn[:, at].T])
        table[name], table[f"{name}_low"], table[f"{name}_high"] = out.value[at], *ends.T
    return table


def screened(rows: pd.DataFrame, odds: pd.DataFrame, label: pd.Series, recall: float) -> float:
    """Share of the false positives of stage 1 that `odds` drop at a given recall.

    Each row is a candidate for the side to which stage 1 leans, and is kept where the odds of that
    side are large enough; the bar is set where `recall` of those whose side paid are left. With the
    odds of the pipeline this is what its stages can take from the first one, and with the exact
    odds of a market of known truth what the best possible filter could.

    Parameters
    ----------
    rows : DataFrame of shape (N, F)
        Unseen rows with the columns of stage 1.
    odds : DataFrame of shape (>= N, 3)
        `p_sell`, `p_hold`, `p_buy` of the same rows.
    label : Series of N
        The side that paid: -1, 0, 1.
    recall : float in (0, 1)

    Returns
    -------
    float in [0, 1]
        Specificity at that sensitivity; NaN where no candidate paid, or all did.
    """
    side = np.sign(_lean(rows, "filter"))
    known = (side != 0) & label.reindex(rows.index).notna().to_numpy()
    said = odds.reindex(rows.index)
    chance = np.where(side > 0, said["p_buy"], said["p_sell"])[known]
    paid = (label.reindex(rows.index).to_numpy("float64") == side)[known]
    if paid.all() or not paid.any():
        return float("nan")
    false, true, _ = roc_curve(paid, chance, drop_intermediate=False)
    return float(1 - np.interp(recall, true, false))


def _kept(rows: pd.DataFrame) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Side of each candidate, and which rows are left after each step."""
    side = np.sign(_lean(rows, "filter"))
    left = {"all": side != 0}
    left["gate"] = left["all"] & (rows["filter.gate"].to_numpy() == 1)
    before = left["gate"]
    if named(rows, "refiner"):
        before = left["refiner"] = before & (np.sign(_lean(rows, "refiner")) == side)
    agrees = np.sign((rows["p_buy"] - rows["p_sell"]).to_numpy("float64")) == side
    left["ensemble"] = before & agrees
    fires = rows["side"].fillna(0).to_numpy("int64") == side
    left["decision"] = left["ensemble"] & fires
    return side, left


def _lean(rows: pd.DataFrame, stage: str) -> np.ndarray:
    """Mean log-odds of buy over sell of the members of a stage."""
    members = [c.removesuffix(".z_buy") for c in named(rows, stage) if c.endswith(".z_buy")]
    leans = [(rows[f"{m}.z_buy"] - rows[f"{m}.z_sell"]).to_numpy("float64") for m in members]
    return np.asarray(np.nan_to_num(np.mean(leans, axis=0)))


def _sums(
    left: dict[str, np.ndarray], paid: np.ndarray, gain: np.ndarray, bar: np.ndarray, bars: int
) -> np.ndarray:
    """By bar, of each step: rows, right ones, and what they earned with how many it is known of."""
    known = np.isfinite(gain)
    earned = np.where(known, gain, 0.0)
    columns = [keep * weight for keep in left.values() for weight in (1.0, paid, earned, known)]
    return np.column_stack([np.bincount(bar, column, bars) for column in columns])


def _figures(totals: np.ndarray, steps: int) -> dict[str, np.ndarray]:
    """Shares and means of each step, from sums of shape (..., steps * 4): (..., steps) each."""
    parts = totals.reshape(*totals.shape[:-1], steps, 4)
    count, right, earned, known = np.moveaxis(parts, -1, 0)
    false = count - right

    def dropped(x: np.ndarray) -> np.ndarray:
        before = np.concatenate([x[..., :1], x[..., :-1]], axis=-1)
        return np.asarray(before - x)

    def entered(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.concatenate([x[..., :1], x[..., :-1]], axis=-1))

    with np.errstate(divide="ignore", invalid="ignore"):
        precision = right / count
        return {
            "precision": precision,
            "recall": right / right[..., :1],
            "lift": precision / precision[..., :1],
            "cut": dropped(false) / entered(false),
            "lost": dropped(right) / entered(right),
            "earned": earned / known,
            "forgone": dropped(earned) / dropped(known),
        }

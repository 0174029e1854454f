"""One table for all models: every metric with its interval, and whether one model beats another."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.evaluate.bootstrap import interval, resample
from stages.evaluate.cross_section import score_metrics, score_sums
from stages.evaluate.scores import (
    BINS,
    Sums,
    Values,
    calibration_gaps,
    debiased_ece,
    odds_metrics,
    odds_sums,
    truth_metrics,
)
from stages.panel import check_panel
from stages.signal import ODDS

PAIRED = ("log_loss", "brier", "accuracy", "direction", "mcc", "balanced_accuracy")
SHARES = (  # no interval leaves [0, 1]
    *("accuracy", "balanced", "direction", "base_rate", "share", "bayes_accuracy", "ece"),
    *("answered", "coverage", "discarded", "turnover"),
)
LOSSES = ("log_loss", "brier", "base_log_loss", "bayes_log_loss")  # none goes below 0


def evaluate(
    predictions: pd.DataFrame,
    *,
    horizon: int = 1,
    delay: int = 0,
    truth: pd.DataFrame | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Every metric of one model, with its 95 % interval.

    Parameters
    ----------
    predictions : DataFrame of shape (N, >= 4)
        Indexed by (asset, time): `p_sell`, `p_hold`, `p_buy` (NaN: not answered), `label` (-1, 0,
        1, NaN: not known) and, where there is one, `forward_return` (fraction), `fired` (bool)
        and `gate` (1 where the filter let the row pass).
    horizon, delay : int
        Bars of the label; blocks of the bootstrap are at least as long as their sum.
    truth : DataFrame of shape (>= N, 3), optional
        True odds of a planted market, for the share of the possible skill.
    resamples : int >= 2
        Histories drawn for the intervals.
    seed : int
        Of those draws.

    Returns
    -------
    dict of str to dict
        Metric to ``value``, ``low`` and ``high``; NaN where the data does not define it (no
        cross-section, no forward return). ``answered`` is the share of labelled rows with odds,
        ``coverage`` of rows that fired, ``discarded`` of rows that the gate held back; all others
        are on the labelled rows with odds.

    Raises
    ------
    DataError
        On missing columns, odds that do not sum to 1, or no labelled row with odds.
    """
    sums = _sums(predictions, horizon, truth)
    values, drawn = _resampled(sums, horizon + delay, resamples, seed)
    return {name: _parts(name, value, drawn[name]) for name, value in values.items()}


def comparison(
    rows: Mapping[str, pd.DataFrame], *, common: bool = False, **settings: object
) -> pd.DataFrame:
    """The metrics of many models, one row each.

    Parameters
    ----------
    rows : mapping of str to DataFrame
        Name of the model to its predictions, see `evaluate`.
    common : bool, default=False
        Compare on the rows that every model answered.
    **settings
        Of `evaluate`.

    Returns
    -------
    DataFrame of shape (M, 3 x metrics)
        Columns (metric, ``value`` | ``low`` | ``high``); NaN where a model lacks the metric.
    """
    if common:
        answered = [table.index[table[ODDS].notna().all(axis=1)] for table in rows.values()]
        shared = answered[0]
        for index in answered[1:]:
            shared = shared[shared.isin(index)]
        rows = {name: table.loc[shared] for name, table in rows.items()}
    said = {name: evaluate(table, **settings) for name, table in rows.items()}  # type: ignore[arg-type]
    records = {
        name: {(metric, part): v for metric, parts in table.items() for part, v in parts.items()}
        for name, table in said.items()
    }
    table = pd.DataFrame.from_dict(records, orient="index")
    table.columns = pd.MultiIndex.from_tuples(list(table.columns), names=["metric", None])  # type: ignore[arg-type]
    return table.rename_axis("model")


def paired(
    one: pd.DataFrame,
    other: pd.DataFrame,
    *,
    metric: str = "log_loss",
    horizon: int = 1,
    delay: int = 0,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Metric of `one` less that of `other` on the rows both answered, with its 95 % interval.

    Below zero `one` has the lower loss. Both are resampled alike.

    Parameters
    ----------
    one, other : DataFrame
        See `evaluate`.
    metric : str, default='log_loss'
        One of `PAIRED`.
    horizon, delay, resamples, seed
        See `evaluate`.
    """
    if metric not in PAIRED:
        raise ValueError(f"metric is one of {PAIRED}, got {metric!r}")
    one, other = (_answered(table) for table in (one, other))
    shared = one.index[one.index.isin(other.index)]
    both = [
        _stacked(_sums(table.loc[shared, [*ODDS, "label"]], horizon, None))
        for table in (one, other)
    ]
    cut = both[0][0].shape[1]

    def difference(totals: np.ndarray) -> np.ndarray:
        parts = (totals[..., :cut], totals[..., cut:])
        mine, theirs = (
            odds_metrics(regroup(part)["odds"])[metric]
            for part, (_, regroup) in zip(parts, both, strict=True)
        )
        return np.asarray(mine - theirs)[..., None]

    sums = np.concatenate([stacked for stacked, _ in both], axis=1)
    out = resample(difference, sums, horizon + delay, resamples, seed)
    low, high = interval(out.drawn[:, 0])
    return {"value": float(out.value[0]), "low": low, "high": high}


def _answered(predictions: pd.DataFrame) -> pd.DataFrame:
    """Labelled rows with odds, checked."""
    check_panel(predictions, [*ODDS, "label"])
    rows = predictions[predictions[[*ODDS, "label"]].notna().all(axis=1)]
    off = np.abs(rows[ODDS].sum(axis=1) - 1)
    if not len(rows) or not off.max() < 1e-6 or (rows[ODDS] < 0).any(axis=None):
        what = "odds do not sum to 1" if len(rows) else "no labelled row has odds"
        where = f"{rows.index[int(off.argmax())]}" if len(rows) else f"{len(predictions)} rows"
        raise DataError(what, code="SV-F18", where=where, cure="predict rows that have labels")
    return rows


def _sums(predictions: pd.DataFrame, horizon: int, truth: pd.DataFrame | None) -> dict[str, Sums]:
    """Sums per bar, by family: odds, truth, score, rows."""
    rows = _answered(predictions)
    labelled = predictions[predictions["label"].notna()]
    times = pd.DatetimeIndex(labelled.index.unique("time")).sort_values()
    bar = times.get_indexer(rows.index.get_level_values("time"))
    p = rows[ODDS].to_numpy("float64")
    label = rows["label"].to_numpy("int64") + 1
    sums = {"odds": odds_sums(p, label, bar, len(times))}
    if truth is not None:
        best = truth.reindex(rows.index)[ODDS].to_numpy("float64")
        sums["truth"] = odds_sums(best, label, bar, len(times))
    if "forward_return" in rows:
        ret = rows["forward_return"].to_numpy("float64")
        known = np.isfinite(ret)
        asset = rows.index.get_level_values("asset").factorize()[0]
        score, bars = (p[:, 2] - p[:, 0])[known], len(times)
        sums["score"] = score_sums(score, ret[known], bar[known], asset[known], bars, horizon)
    sums["rows"] = _row_sums(labelled, times)
    return sums


def _row_sums(labelled: pd.DataFrame, times: pd.DatetimeIndex) -> Sums:
    bar = times.get_indexer(labelled.index.get_level_values("time"))
    flags = {"answered": labelled[ODDS].notna().all(axis=1).to_numpy()}
    if "fired" in labelled:
        flags["coverage"] = labelled["fired"].fillna(False).to_numpy(bool)
    if "gate" in labelled:
        flags["discarded"] = (labelled["gate"] == 0).to_numpy()
    count = np.bincount(bar, minlength=len(times))
    return {
        name: np.column_stack([count, np.bincount(bar, flag, len(times))])
        for name, flag in flags.items()
    }


def _resampled(
    sums: dict[str, Sums], span: int, resamples: int, seed: int
) -> tuple[Values, Values]:
    """Metrics of the bars as they are, and of each resample of them."""
    stacked, regroup = _stacked(sums)
    whole = regroup(stacked.sum(axis=0))
    names, share = list(_metrics(whole)), calibration_gaps(whole["odds"])[1]

    def figures(totals: np.ndarray) -> np.ndarray:
        groups = regroup(totals)
        gap = calibration_gaps(groups["odds"])[0]
        return np.concatenate([np.stack(list(_metrics(groups).values()), axis=-1), gap], axis=-1)

    out = resample(figures, stacked, span, resamples, seed)
    values: Values = dict(zip(names, out.value, strict=False))
    drawn: Values = dict(zip(names, out.drawn.T, strict=False))
    noise = out.error[-BINS:] ** 2
    values["ece"] = debiased_ece(out.value[-BINS:], share, noise)
    # resampled gaps carry the noise of the sample and that of the resampling
    drawn["ece"] = debiased_ece(out.drawn[:, -BINS:], share, 2 * noise)
    return values, drawn


def _stacked(sums: dict[str, Sums]) -> tuple[np.ndarray, Callable[[np.ndarray], dict[str, Sums]]]:
    """All sums side by side, shape (T, m), and what takes them apart again."""
    keys = [(family, name) for family, group in sums.items() for name in group]
    parts = [sums[family][name] for family, name in keys]
    cuts = np.cumsum([part.shape[1] for part in parts])[:-1]

    def regroup(totals: np.ndarray) -> dict[str, Sums]:
        out: dict[str, Sums] = {}
        for (family, name), part in zip(keys, np.split(totals, cuts, axis=-1), strict=True):
            out.setdefault(family, {})[name] = part
        return out

    return np.concatenate(parts, axis=1), regroup


def _parts(name: str, value: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    """Value and interval, kept inside what the metric can be: a wide draw may step over it."""
    least = 0.0 if name.startswith(SHARES + LOSSES) else -np.inf
    most = 1.0 if name.startswith(SHARES) else np.inf
    low, high = interval(np.clip(drawn, least, most))
    return {"value": float(value), "low": low, "high": high}


def _metrics(sums: dict[str, Sums]) -> Values:
    values = odds_metrics(sums["odds"])
    if "truth" in sums:
        values |= truth_metrics(sums["odds"], sums["truth"])
    if "score" in sums:
        values |= score_metrics(sums["score"])
    for name, pair in sums["rows"].items():
        values[name] = pair[..., 1] / pair[..., 0]
    return values

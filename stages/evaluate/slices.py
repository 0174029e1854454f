"""Where predictions are good and where not: by class, by regime, by how sure they are."""

import numpy as np
import pandas as pd

from stages.evaluate.bootstrap import interval, resample
from stages.evaluate.scores import BINS
from stages.signal import ODDS, SIDE_TEXT

SURE = {"lowest tenth": (0.0, 0.1), "lower half": (0.0, 0.5), "upper half": (0.5, 1.0)}
SURE |= {"top tenth": (0.9, 1.0)}
WILSON = 1.959964**2


def reliability(
    predictions: pd.DataFrame, bins: int = BINS, by: str | pd.Series | None = None
) -> pd.DataFrame:
    """Said probability against what happened, in bins of equal size: a reliability diagram.

    Parameters
    ----------
    predictions : DataFrame of shape (N, >= 4)
        See `stages.evaluate.evaluate`.
    bins : int >= 1
    by : str or Series of N, optional
        Without it the confidence, the largest of the three odds, is held against the accuracy.
        ``"class"`` holds the odds of each side against its frequency. A column of `predictions`,
        or a Series on its rows such as ``context.regime``, does the first for each of its values.

    Returns
    -------
    DataFrame of shape (<= groups * bins, 5 or 6)
        `confidence` (mean said), `accuracy` (share that happened), `low` and `high` (95 % Wilson
        interval; rows taken as independent) and `rows`; with `by` first the `group`.
    """
    rows = _answered(predictions)
    if by is None:
        return _binned(*_hits(rows), bins)
    if isinstance(by, str) and by == "class":
        parts = {side: _classwise(rows, k) for k, side in enumerate(SIDE_TEXT.values())}
    else:
        group = _group(rows, by)
        parts = {g: _hits(rows[group.to_numpy() == g]) for g in np.sort(group.dropna().unique())}
    tables = [_binned(*part, bins).assign(group=name) for name, part in parts.items()]
    table = pd.concat(tables, ignore_index=True)
    return table[["group", *(name for name in table if name != "group")]]


def calibration(
    predictions: pd.DataFrame,
    by: str | pd.Series | None = None,
    *,
    span: int = 1,
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Debiased calibration error of the confidence and of each side, overall and by group.

    Parameters
    ----------
    predictions : DataFrame of shape (N, >= 4)
    by : str or Series of N, optional
        Column, or Series on the rows, whose values are judged apart.
    span : int
        Bars that a label covers.
    resamples, seed
        See `stages.evaluate.bootstrap.resample`.

    Returns
    -------
    DataFrame of shape (4 * (1 + groups), 6)
        `group` (``all`` first), `said` (``confidence``, SELL, HOLD, BUY), `ece`, `low`, `high`,
        `rows`. The error is the root of the mean squared gap over 15 bins of equal size, less
        what chance adds; see `stages.evaluate.scores.debiased_ece`.

    References
    ----------
    Kumar, Liang & Ma (2019), "Verified Uncertainty Calibration", NeurIPS (classwise: section 2).
    """
    rows = _answered(predictions)
    groups = {"all": np.ones(len(rows), bool)}
    if by is not None:
        group = _group(rows, by)
        groups |= {g: group.to_numpy() == g for g in np.sort(group.dropna().unique())}
    records = []
    for name, within in groups.items():
        part = rows[within]
        judged = {"confidence": _hits(part)}
        judged |= {side: _classwise(part, k) for k, side in enumerate(SIDE_TEXT.values())}
        for said, (p, hit) in judged.items():
            ece = _debiased(part, p, hit, span, resamples, seed)
            records.append({"group": name, "said": said, **ece, "rows": len(part)})
    return pd.DataFrame(records)


def risk_coverage(
    predictions: pd.DataFrame,
    by: str | pd.Series = "certainty",
    points: int = 20,
    *,
    span: int = 1,
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy on the surest share of the rows, for shares from a few to all: what silence buys.

    Parameters
    ----------
    predictions : DataFrame of shape (N, >= 4)
    by : str or Series of N, default='certainty'
        What rows are sorted by, largest first: a column, ``confidence`` (the largest of the odds),
        or a Series on the rows.
    points : int >= 1
        Shares, evenly spaced.
    span, resamples, seed
        See `calibration`.

    Returns
    -------
    DataFrame of shape (points, 7)
        `coverage` (share answered), `least` (of `by` among them), `accuracy` with `low` and
        `high`, `direction` (of the rows that moved, share where the likelier of buy and sell
        paid) and `rows`.

    References
    ----------
    El-Yaniv & Wiener (2010), "On the Foundations of Noise-free Selective Classification", JMLR 11.
    """
    rows, sure = _measured(_answered(predictions), by)
    rank = (-sure).argsort(kind="stable").argsort(kind="stable")
    point = rank * points // max(len(rows), 1)
    return _shares(rows, sure, [point <= k for k in range(points)], (span, resamples, seed)).assign(
        coverage=lambda table: table["rows"] / max(len(rows), 1)
    )[["coverage", "least", "accuracy", "low", "high", "direction", "rows"]]


def confidence_order(
    predictions: pd.DataFrame,
    by: str | pd.Series = "confidence",
    *,
    span: int = 1,
    resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Whether surer rows are right more often: accuracy of the surest and of the least sure.

    Parameters
    ----------
    predictions : DataFrame of shape (N, >= 4)
    by : str or Series of N, default='confidence'
        See `risk_coverage`.
    span, resamples, seed
        See `calibration`.

    Returns
    -------
    DataFrame of shape (4, 6)
        Indexed by `band`: ``lowest tenth``, ``lower half``, ``upper half``, ``top tenth``;
        `least` (of `by` in the band), `accuracy`, `low`, `high`, `direction`, `rows`.
    """
    rows, sure = _measured(_answered(predictions), by)
    share = (sure.argsort(kind="stable").argsort(kind="stable") + 0.5) / max(len(rows), 1)
    bands = [(low <= share) & (share < high) for low, high in SURE.values()]
    table = _shares(rows, sure, bands, (span, resamples, seed))
    return table.set_axis(pd.Index(SURE, name="band"))


def _answered(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions.dropna(subset=[*ODDS, "label"])


def _group(rows: pd.DataFrame, by: str | pd.Series) -> pd.Series:
    return rows[by] if isinstance(by, str) else by.reindex(rows.index)


def _measured(rows: pd.DataFrame, by: str | pd.Series) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of which it is known how sure they are, and how sure."""
    confidence = isinstance(by, str) and by == "confidence"
    sure = rows[ODDS].max(axis=1) if confidence else _group(rows, by)
    return rows[sure.notna()], sure.dropna().to_numpy("float64")


def _hits(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Confidence, and whether the likeliest side paid."""
    p = rows[ODDS].to_numpy("float64")
    return p.max(axis=1), p.argmax(axis=1) == rows["label"].to_numpy("int64") + 1


def _classwise(rows: pd.DataFrame, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Odds of the side number `k`, and whether it paid."""
    return rows[ODDS[k]].to_numpy("float64"), rows["label"].to_numpy("int64") == k - 1


def _bins(p: np.ndarray, bins: int) -> np.ndarray:
    """Number of each row's bin, of equal size, by what was said."""
    return p.argsort(kind="stable").argsort(kind="stable") * bins // max(len(p), 1)


def _binned(p: np.ndarray, hit: np.ndarray, bins: int) -> pd.DataFrame:
    grouped = pd.DataFrame({"confidence": p, "accuracy": hit}).groupby(_bins(p, bins))
    means, n = grouped.mean(), grouped.size()
    centre = (means["accuracy"] + WILSON / (2 * n)) / (1 + WILSON / n)
    half = means["accuracy"] * (1 - means["accuracy"]) * WILSON / n + WILSON**2 / (4 * n**2)
    half = np.sqrt(half) / (1 + WILSON / n)
    return means.assign(low=centre - half, high=centre + half, rows=n).reset_index(drop=True)


def _debiased(
    rows: pd.DataFrame, p: np.ndarray, hit: np.ndarray, span: int, resamples: int, seed: int
) -> dict[str, float]:
    bar, bars = _bar(rows)
    cell = bar * BINS + _bins(p, BINS)
    count, gap = (np.bincount(cell, w, bars * BINS).reshape(bars, BINS) for w in (None, hit - p))
    share = count.sum(axis=0) / max(len(p), 1)

    def gaps(sums: np.ndarray) -> np.ndarray:
        n = sums[..., :BINS]
        return np.where(n > 0, sums[..., BINS:] / np.maximum(n, 1e-9), 0.0)

    out = resample(gaps, np.concatenate([count, gap], axis=1), span, resamples, seed)
    noise = out.error**2
    value = np.sqrt(max((share * (out.value**2 - noise)).sum(), 0.0))
    # resampled gaps carry the noise of the sample and that of the resampling
    drawn = np.sqrt(np.maximum((share * (out.drawn**2 - 2 * noise)).sum(axis=1), 0.0))
    low, high = interval(drawn)
    return {"ece": float(value), "low": low, "high": high}


def _shares(
    rows: pd.DataFrame, sure: np.ndarray, chosen: list[np.ndarray], drawing: tuple[int, int, int]
) -> pd.DataFrame:
    """Accuracy, its interval and direction of each set of rows, all resampled alike."""
    bar, bars = _bar(rows)
    hit = _hits(rows)[1]
    label = rows["label"].to_numpy("int64")
    upwards = np.sign((rows["p_buy"] - rows["p_sell"]).to_numpy("float64"))
    moved = label != 0
    sums = [np.bincount(bar[c], w, bars) for c in chosen for w in (None, hit[c] * 1.0)]

    def shares(totals: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(totals[..., 1::2] / totals[..., ::2])

    out = resample(shares, np.column_stack(sums), *drawing)
    ends = [interval(np.clip(d, 0, 1)) for d in out.drawn.T]
    return pd.DataFrame(
        {
            "least": [sure[c].min() if c.any() else np.nan for c in chosen],
            "accuracy": out.value,
            "low": [low for low, _ in ends],
            "high": [high for _, high in ends],
            "direction": [_mean((0.5 + 0.5 * upwards * label)[c & moved]) for c in chosen],
            "rows": [int(c.sum()) for c in chosen],
        }
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _bar(rows: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Number of each row's bar, and T."""
    times = pd.DatetimeIndex(rows.index.unique("time")).sort_values()
    return times.get_indexer(rows.index.get_level_values("time")), len(times)

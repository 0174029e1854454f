"""Metrics of predicted odds, all computed from sums per bar so that bars can be resampled.

A metric function takes the sums over any set of bars, one set (shape (m,)) or many at once
(shape (B, m)), and returns as many values.
"""

import numpy as np

BINS = 15  # of equal size, for the calibration error
DECILES = 10
LEAST = 1e-12  # odds below it count as it: a certain miss costs 27.6 nats, not infinity

Sums = dict[str, np.ndarray]
Values = dict[str, np.ndarray]


def odds_sums(p: np.ndarray, label: np.ndarray, bar: np.ndarray, bars: int) -> Sums:
    """Everything that the metrics of the odds add up, per bar.

    Parameters
    ----------
    p : float64 ndarray of shape (N, 3)
        Odds of sell, hold and buy.
    label : int ndarray of shape (N,)
        Index of the side that paid: 0, 1 or 2.
    bar : int ndarray of shape (N,)
        Number of each row's bar, 0 ... T - 1.
    bars : int
        T.

    Returns
    -------
    dict of float64 ndarray of shape (T, m)
    """
    said, confidence = p.argmax(axis=1), p.max(axis=1)
    right = (said == label).astype("float64")
    paid = p[np.arange(len(p)), label]
    brier = (p**2).sum(axis=1) - 2 * paid + 1
    moved = label != 1
    upwards = np.sign(p[:, 2] - p[:, 0])
    hit = 0.5 + 0.5 * upwards * (label - 1)  # equal odds are half a hit
    rank = confidence.argsort(kind="stable").argsort(kind="stable")
    bucket, decile = rank * BINS // len(p), rank * DECILES // len(p)
    return {
        "confusion": _cells(bar, bars, label * 3 + said, 9),
        "log_loss": _cells(bar, bars, weight=-np.log(np.maximum(paid, LEAST))),
        "brier": _cells(bar, bars, weight=brier),
        "hits": _cells(bar[moved], bars, weight=hit[moved]),
        "bucket_rows": _cells(bar, bars, bucket, BINS),
        "bucket_gap": _cells(bar, bars, bucket, BINS, right - confidence),
        "decile_rows": _cells(bar, bars, decile, DECILES),
        "decile_right": _cells(bar, bars, decile, DECILES, right),
    }


def odds_metrics(sums: Sums) -> Values:
    """Accuracy, balanced accuracy, MCC, direction, log-loss, Brier, base rates, by decile.

    Returns
    -------
    dict of ndarray
        ``accuracy`` … ``accuracy_decile_10`` (the most confident tenth), shape () or (B,).

    References
    ----------
    Gorodkin (2004), "Comparing two K-category assignments", Comput. Biol. Chem. 28 (the MCC).
    """
    confusion = sums["confusion"].reshape(*sums["confusion"].shape[:-1], 3, 3)
    rows, is_, said = confusion.sum((-2, -1)), confusion.sum(-1), confusion.sum(-2)
    right = np.trace(confusion, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = np.diagonal(confusion, axis1=-2, axis2=-1) / is_
        share = is_ / rows[..., None]
        spread = (rows**2 - (said**2).sum(-1)) * (rows**2 - (is_**2).sum(-1))
        values = {
            "accuracy": right / rows,
            "balanced_accuracy": np.nanmean(recall, axis=-1),
            "mcc": (right * rows - (said * is_).sum(-1)) / np.sqrt(spread),
            "direction": sums["hits"][..., 0] / (is_[..., 0] + is_[..., 2]),
            "log_loss": sums["log_loss"][..., 0] / rows,
            "brier": sums["brier"][..., 0] / rows,
            "base_rate": share.max(axis=-1),
            "base_log_loss": -(share * np.log(np.maximum(share, LEAST))).sum(-1),
        }
        for k, side in enumerate(("sell", "hold", "buy")):
            values[f"share_{side}"] = share[..., k]
        tenths = sums["decile_right"] / sums["decile_rows"]
    for k in range(DECILES):
        values[f"accuracy_decile_{k + 1:02d}"] = tenths[..., k]
    return values


def truth_metrics(sums: Sums, truth: Sums) -> Values:
    """Bayes accuracy and log-loss of the true odds, and the shares of their skill reached.

    ``skill_ratio`` is (accuracy - base rate) / (Bayes accuracy - base rate); ``information_ratio``
    is 1 - (log-loss - Bayes log-loss) / (log-loss of the base rates - Bayes log-loss).
    """
    mine, best = odds_metrics(sums), odds_metrics(truth)
    base, entropy = mine["base_rate"], mine["base_log_loss"]
    with np.errstate(divide="ignore", invalid="ignore"):
        skill = (mine["accuracy"] - base) / (best["accuracy"] - base)
        excess = (mine["log_loss"] - best["log_loss"]) / (entropy - best["log_loss"])
    return {
        "bayes_accuracy": best["accuracy"],
        "bayes_log_loss": best["log_loss"],
        "skill_ratio": skill,
        "information_ratio": 1 - excess,
    }


def calibration_gaps(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy less confidence of each bin, and the bin's share of the rows: (..., BINS) each."""
    rows = sums["bucket_rows"]
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.where(rows > 0, sums["bucket_gap"] / rows, 0.0)
    return gap, rows / rows.sum(-1, keepdims=True)


def debiased_ece(gap: np.ndarray, share: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Root of the mean squared calibration error, less what chance alone adds to it.

    A perfect model shows gaps too: its plain error over 15 bins is about ``1.5 / sqrt(N)``.
    Squared gaps can be debiased exactly, absolute ones cannot; the root is at least as large as
    the mean absolute error that is usually meant.

    Parameters
    ----------
    gap, share : ndarray of shape (..., BINS)
        See `calibration_gaps`.
    noise : ndarray of shape (BINS,)
        Variance that the gaps have by chance.

    Returns
    -------
    ndarray of shape (...)
        In [0, 1]; 0 where chance explains all of it.

    References
    ----------
    Kumar, Liang & Ma (2019), "Verified Uncertainty Calibration", NeurIPS, section 4.
    """
    return np.sqrt(np.maximum((share * (gap**2 - noise)).sum(-1), 0.0))


def _cells(
    bar: np.ndarray,
    bars: int,
    cell: np.ndarray | None = None,
    cells: int = 1,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Sum of `weight` (or count) by bar and cell: shape (bars, cells)."""
    key = bar if cell is None else bar * cells + cell
    return np.bincount(key, weight, bars * cells).reshape(bars, cells).astype("float64")

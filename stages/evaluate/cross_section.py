"""Metrics of a score against the returns of the same bar: information coefficients and books."""

import numpy as np
import pandas as pd

from stages.evaluate.scores import Sums, Values

MIN_ASSETS = 3  # a bar with fewer has no cross-section
GROSS = 2.0  # one unit long, one short


def score_sums(
    score: np.ndarray, ret: np.ndarray, bar: np.ndarray, asset: np.ndarray, bars: int, horizon: int
) -> Sums:
    """Per-bar information coefficients, decile book and its trades, and pooled moments.

    Parameters
    ----------
    score, ret : float64 ndarray of shape (N,)
        Score at a row and the forward return after it; finite.
    bar, asset : int ndarray of shape (N,)
        Number of each row's bar, 0 ... T - 1, and of its asset.
    bars, horizon : int
        T, and how many bars a book is held.

    Returns
    -------
    dict of float64 ndarray of shape (T, m)
        Bars without a cross-section, or whose scores are all equal, count nothing.
    """
    frame = pd.DataFrame({"score": score, "ret": ret})
    ranks = frame.groupby(bar).rank()
    linear = _correlations(score, ret, bar, bars)
    ranked = _correlations(ranks["score"].to_numpy(), ranks["ret"].to_numpy(), bar, bars)
    spread, traded = _books(score, ret, bar, asset, bars, horizon)
    moments = np.column_stack([np.ones_like(score), score, ret, score**2, ret**2, score * ret])
    pooled = np.column_stack([np.bincount(bar, m, bars) for m in moments.T])
    return {
        "ic": _moments(linear),
        "rank_ic": _moments(ranked),
        "spread": _moments(spread),
        "traded": _moments(traded),
        "pooled": pooled,
    }


def score_metrics(sums: Sums) -> Values:
    """IC, rank IC and their ratios (per bar), pooled IC, decile spread, turnover, break-even.

    ``turnover`` is the share of the book replaced when it is formed anew after its horizon;
    ``break_even_cost`` the cost per unit traded, one way, that would eat the whole spread.

    References
    ----------
    Grinold & Kahn (2000), "Active Portfolio Management", ch. 6 (IC);
    Jegadeesh & Titman (1993), J. Finance 48(1) (books of overlapping vintages).
    """
    values = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name, ratio in (("ic", "icir"), ("rank_ic", "rank_icir")):
            count, total, square = np.moveaxis(sums[name], -1, 0)
            mean = total / count
            values[name] = mean
            values[ratio] = mean / np.sqrt(np.maximum(square / count - mean**2, 0))
        n, x, y, xx, yy, xy = np.moveaxis(sums["pooled"], -1, 0)
        values["pooled_ic"] = (n * xy - x * y) / np.sqrt((n * xx - x**2) * (n * yy - y**2))
        spread = sums["spread"][..., 1] / sums["spread"][..., 0]
        traded = sums["traded"][..., 1] / sums["traded"][..., 0]
        values["decile_spread"] = spread
        values["turnover"] = traded / (2 * GROSS)
        values["break_even_cost"] = spread / traded
    return values


def _correlations(x: np.ndarray, y: np.ndarray, bar: np.ndarray, bars: int) -> np.ndarray:
    """Pearson correlation within each bar, shape (bars,); NaN where there is none."""
    count = np.bincount(bar, minlength=bars)
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = (v - (np.bincount(bar, v, bars) / count)[bar] for v in (x, y))
        xx, yy, xy = (np.bincount(bar, v, bars) for v in (x * x, y * y, x * y))
        # a constant score leaves a rounding residue, not zero
        varies = (xx > 1e-24 * count) & (yy > 1e-24 * count) & (count >= MIN_ASSETS)
        return np.where(varies, xy / np.sqrt(xx * yy), np.nan)


def _books(
    score: np.ndarray, ret: np.ndarray, bar: np.ndarray, asset: np.ndarray, bars: int, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return of the top less the bottom decile of each bar, and what its renewal trades."""
    scores = pd.Series(score).groupby(bar)
    count = np.bincount(bar, minlength=bars)
    size = np.maximum(count // 10, 1)
    rank = scores.rank(method="first").to_numpy()
    side = (rank > (count - size)[bar]).astype("float64") - (rank <= size[bar])
    varies = (scores.transform("max") > scores.transform("min")).to_numpy()
    weight = np.where(varies & (count >= MIN_ASSETS)[bar], side / size[bar], 0.0)
    held = np.zeros((bars, int(asset.max()) + 1 if len(asset) else 1))
    held[bar, asset] = weight
    formed = np.bincount(bar, np.abs(weight), bars) > 0
    spread = np.where(formed, np.bincount(bar, weight * ret, bars), np.nan)
    traded = np.full(bars, np.nan)
    if bars > horizon:
        both = formed[horizon:] & formed[:-horizon]
        change = np.abs(held[horizon:] - held[:-horizon]).sum(axis=1)
        traded[horizon:] = np.where(both, change, np.nan)
    return spread, traded


def _moments(values: np.ndarray) -> np.ndarray:
    """Count, value and square of each bar, zeros where it has no value: shape (T, 3)."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    return np.column_stack([known, filled, filled**2]).astype("float64")

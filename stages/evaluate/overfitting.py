"""How often the best of many trials in one half of the history is a poor one in the other."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

CHUNK = 4_000_000  # ratios held in memory at once
DIGITS = 12  # to which two Sharpe ratios count as equal


@dataclass(frozen=True)
class Overfitting:
    """What combinatorially symmetric cross-validation found, over C halvings of the history.

    Attributes
    ----------
    probability : float in [0, 1]
        Share of the halvings in which the trial that was best in one half ranks below the median
        in the other; on the median counts half. About 0.5 where nothing has skill.
    logits : float64 ndarray of shape (C,)
        Log-odds of that rank; above 0 the choice held up.
    chosen : float64 ndarray of shape (C, 2)
        Sharpe ratio per bar of the chosen trial where it was chosen, and in the other half.
    loss : float in [0, 1]
        Share of the halvings in which the chosen trial lost money in the other half.
    """

    probability: float
    logits: np.ndarray
    chosen: np.ndarray
    loss: float


def overfitting(returns: np.ndarray, blocks: int = 16) -> Overfitting:
    """Probability of backtest overfitting (PBO) of N trials, by CSCV.

    Parameters
    ----------
    returns : float64 ndarray of shape (T, N >= 2)
        Returns per bar of each trial, on bars that all have; finite.
    blocks : int >= 2, even, default=16
        S: the history is cut into so many blocks of time, and every choice of half of them is one
        half.

    Raises
    ------
    ValueError
        For fewer than two trials, an odd number of blocks, or blocks of fewer than two bars.

    Notes
    -----
    Trials that tie share their mean rank; where several are best, so is the rank of the choice. A
    trial whose returns never differ has a Sharpe ratio of 0.

    References
    ----------
    Bailey, Borwein, Lopez de Prado & Zhu (2017), "The Probability of Backtest Overfitting",
    J. Computational Finance 20(4).
    """
    returns = np.asarray(returns, dtype="float64")
    if returns.ndim != 2 or returns.shape[1] < 2 or not np.isfinite(returns).all():
        raise ValueError(f"need finite returns of two trials or more, got {returns.shape}")
    if blocks < 2 or blocks % 2 or len(returns) < 2 * blocks:
        raise ValueError(f"need an even number of blocks of two bars or more, got {blocks}")
    cut = np.linspace(0, len(returns), blocks + 1).round().astype(int)[:-1]
    parts = [np.ones_like(returns), returns, returns**2]
    sums = np.stack([np.add.reduceat(part, cut, axis=0) for part in parts])  # 3, S, N
    half = np.array(list(combinations(range(blocks), blocks // 2)))
    within = np.zeros((len(half), blocks))
    np.put_along_axis(within, half, 1.0, axis=1)
    step = max(1, CHUNK // returns.shape[1])
    found = [_halved(sums, within[k : k + step]) for k in range(0, len(within), step)]
    rank, chosen = (np.concatenate([part[k] for part in found]) for k in (0, 1))
    logits = np.log(rank / (1 - rank))
    below = np.where(np.abs(logits) < 1e-9, 0.5, logits < 0)
    return Overfitting(float(below.mean()), logits, chosen, float((chosen[:, 1] < 0).mean()))


def _halved(sums: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Relative rank of the choice in the other half, and its two Sharpe ratios, per halving."""
    here, there = _sharpe(within @ sums), _sharpe((1 - within) @ sums)
    best = here == here.max(axis=1, keepdims=True)
    count = best.sum(axis=1)
    rank = np.where(best, rankdata(there, axis=1), 0).sum(axis=1) / count
    other = np.where(best, there, 0).sum(axis=1) / count
    return rank / (here.shape[1] + 1), np.column_stack([here.max(axis=1), other])


def _sharpe(sums: np.ndarray) -> np.ndarray:
    """Sharpe ratio per bar from counts, sums and squares, (3, C, N) to (C, N)."""
    n, total, square = sums
    variance = (square - total**2 / n) / (n - 1)
    flat = variance <= 1e-14 * square / n  # what rounding leaves of a constant
    ratio = np.where(flat, 0, total / n / np.sqrt(np.where(flat, 1, variance)))
    return np.asarray(np.round(ratio, DIGITS))

"""Intervals by resampling blocks of time, because neighbouring bars are not independent."""

import numpy as np

CHUNK = 4_000_000  # drawn bars held in memory at once


def stationary_bootstrap(
    sums: np.ndarray, block: float, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Totals of resampled bars: what the table would sum to in other histories of this kind.

    A bar is drawn whole, with all its assets, and is followed by its successor with probability
    ``1 - 1 / block``; the last bar is followed by the first. The draws depend on T, `block`,
    `resamples` and `seed` only, so two tables of the same bars are resampled alike and their
    difference is a paired one.

    Parameters
    ----------
    sums : float64 ndarray of shape (T, m)
        One row of sums per bar, in order of time.
    block : float >= 1
        Mean length of a block in bars; at least the span of a label.
    resamples : int >= 2, default=1000
        B.
    seed : int

    Returns
    -------
    float64 ndarray of shape (B, m)

    References
    ----------
    Politis & Romano (1994), "The Stationary Bootstrap", JASA 89(428).
    """
    bars = len(sums)
    if block < 1 or resamples < 2 or not bars:
        raise ValueError(f"need bars, block >= 1, resamples >= 2, got {bars}, {block}, {resamples}")
    rng, step = np.random.default_rng(seed), max(1, CHUNK // bars)
    parts = [
        _counts(rng, min(step, resamples - done), bars, block) @ sums
        for done in range(0, resamples, step)
    ]
    return np.concatenate(parts)


def interval(resampled: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Central percentile interval of the finite values of `resampled`; NaN where none is."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _counts(rng: np.random.Generator, resamples: int, bars: int, block: float) -> np.ndarray:
    """How often each bar is drawn, shape (resamples, bars)."""
    first = rng.random((resamples, bars)) < 1 / block
    first[:, 0] = True
    place = np.arange(bars)
    begun = np.maximum.accumulate(np.where(first, place, 0), axis=1)
    start = np.take_along_axis(rng.integers(bars, size=(resamples, bars)), begun, axis=1)
    drawn = (start + place - begun) % bars + np.arange(resamples)[:, None] * bars
    return np.bincount(drawn.ravel(), minlength=resamples * bars).reshape(resamples, bars) * 1.0

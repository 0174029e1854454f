"""Intervals by resampling blocks of time, because neighbouring bars are not independent.

The draws give an interval its shape, the long-run variance of the metric its width. Blocks of any
one length miss part of the dependence, so that their percentiles alone cover too little: 0.90 for
0.95 where the dependence reaches ten bars (``experiments/benchmarks/intervals``).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri, stdtrit

LEVEL = 0.95  # of every interval
CHUNK = 4_000_000  # drawn bars held in memory at once
NUDGE = 1e-2  # share of a bar by which its weight is moved to see what it does
LONGER = 1.5  # blocks that cover as they should are longer than those that err least
LEAST = 0.2  # least share of the variance that taking the mean away is taken to leave

Metric = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Resampled:
    """Some figures of a history, their standard errors, and what they would be in others.

    Attributes
    ----------
    value, error : float64 ndarray of shape (M,)
    drawn : float64 ndarray of shape (B, M)
        Spread so that the central percentiles at `LEVEL` are those of a Student interval.
    """

    value: np.ndarray
    error: np.ndarray
    drawn: np.ndarray


def resample(
    metric: Metric, sums: np.ndarray, span: int, resamples: int = 1000, seed: int = 0
) -> Resampled:
    """What `metric` is in a history of bars, and in others of its kind.

    All figures are drawn alike. Each is then spread about the mean of its draws by the ratio of
    two deviations: the long-run one (`long_run`), with the quantile of its Student distribution,
    and the one that blocks of the length drawn show.

    Parameters
    ----------
    metric : callable
        Sums over bars, (m,) or (B, m), to figures, (M,) or (B, M).
    sums : float64 ndarray of shape (T, m)
        One row of sums per bar, in order of time.
    span : int >= 1
        Bars that a label covers: the least length of a block.
    resamples : int >= 2, default=1000
    seed : int

    Notes
    -----
    The dependence of a figure is that of its infinitesimal jackknife: what the figure gains when a
    bar counts a little more (Efron 1982, "The Jackknife, the Bootstrap and Other Resampling
    Plans", ch. 6).
    """
    block = float(max(span, round(len(sums) ** (1 / 3))))
    value = metric(sums.sum(axis=0))
    drawn = metric(stationary_bootstrap(sums, block, resamples, seed))
    error, factor = np.full(value.shape, np.nan), np.ones(value.shape)
    for k, gain in enumerate(influence(metric, sums).T):
        if not np.isfinite(gain).all():
            continue
        lags = autocovariance(gain)
        variance, freedom = long_run(lags, len(gain), span)
        shown = _blocks(lags, len(gain), block)
        error[k] = np.sqrt(variance / len(gain))
        if shown > 0:
            wide = stdtrit(freedom, (1 + LEVEL) / 2) / ndtri((1 + LEVEL) / 2)
            factor[k] = wide * np.sqrt(variance / shown)
    known = np.isfinite(drawn)
    middle = np.where(known, drawn, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return Resampled(value, error, middle + factor * (drawn - middle))


def influence(metric: Metric, sums: np.ndarray) -> np.ndarray:
    """T times the derivative of each figure by the weight of each bar: shape (T, M)."""
    whole, step = sums.sum(axis=0), max(1, CHUNK // sums.shape[1])
    parts = []
    for begin in range(0, len(sums), step):
        move = NUDGE * sums[begin : begin + step]
        with np.errstate(invalid="ignore"):  # a figure that is not defined has no derivative
            change = metric(whole + move) - metric(whole - move)
        parts.append(change * (len(sums) / (2 * NUDGE)))
    return np.concatenate(parts)


def autocovariance(x: np.ndarray) -> np.ndarray:
    """Autocovariances of a series of T at lags 0 … T - 1, each divided by T."""
    x = x - x.mean()
    size = next_fast_len(2 * len(x), real=True)
    spectrum = rfft(x, size)
    return np.asarray(irfft(spectrum * spectrum.conj(), size)[: len(x)] / len(x))


def block_length(lags: np.ndarray, bars: int) -> float:
    """Mean block length at which the stationary bootstrap errs least about a variance.

    Parameters
    ----------
    lags : float64 ndarray of shape (T,)
        See `autocovariance`.
    bars : int
        T.

    Returns
    -------
    float
        From 1 to ``min(3 sqrt(T), T / 3)``, rounded up.

    References
    ----------
    Politis & White (2004), "Automatic Block-Length Selection for the Dependent Bootstrap",
    Econometric Reviews 23(1); corrected by Patton, Politis & White (2009), 28(4).
    """
    quiet = max(5, int(np.log10(bars)))  # so many lags in a row must be insignificant
    most = int(np.ceil(np.sqrt(bars))) + quiet
    longest = float(np.ceil(min(3 * np.sqrt(bars), bars / 3)))
    if not lags[0] > 0:
        return 1.0
    small = np.ones(most, bool)
    seen = min(len(lags), most)
    small[:seen] = np.abs(lags[:seen] / lags[0]) < 2 * np.sqrt(np.log10(bars) / bars)
    runs = np.convolve(small[1:], np.ones(quiet), "valid") == quiet
    first = 1 + int(runs.argmax()) if runs.any() else most
    reach = min(2 * first, most, len(lags) - 1)
    k = np.arange(1, reach + 1)
    flat_top = np.minimum(1, 2 * (1 - k / max(reach, 1)))
    slope = 2 * (flat_top * k * lags[1 : reach + 1]).sum()
    level = lags[0] + 2 * (flat_top * lags[1 : reach + 1]).sum()
    if level == 0:
        return longest
    return float(np.clip((slope / level) ** 2 * bars, 1, longest**3) ** (1 / 3))


def long_run(lags: np.ndarray, bars: int, span: int) -> tuple[float, float]:
    """Variance of ``sqrt(T)`` times the mean of a dependent series, and its degrees of freedom.

    Twice what blocks show, less what blocks of half that length show: what short blocks miss
    cancels ("lugsail"). The degrees of freedom are those of a sum of autocovariances with these
    weights (Satterthwaite). Blocks are longer than `block_length`, which weighs the bias of the
    variance as much as its noise: for coverage the bias weighs more.

    Parameters
    ----------
    lags : float64 ndarray of shape (T,)
        See `autocovariance`.
    bars : int
        T.
    span : int
        Least length of a block.

    References
    ----------
    Vats & Flegal (2022), "Lugsail lag windows for estimating time-average covariance matrices",
    Biometrika 109(3). Sun, Phillips & Jin (2008), "Optimal Bandwidth Selection in
    Heteroskedasticity-Autocorrelation Robust Testing", Econometrica 76(1).
    """
    # beyond the root of T too few blocks are left to tell a variance by
    block = max(min(LONGER * block_length(lags, bars), bars**0.5), span)
    block = min(block, max(bars / 2, 1))
    half = max(block / 2, 1.0)
    whole, part = (_blocks(lags, bars, b) / _left(bars, b) for b in (block, half))
    squares = 4 * _overlap(block, block) - 4 * _overlap(block, half) + _overlap(half, half)
    return max(2 * whole - part, whole), max(bars / squares - 1, 1.0)


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


def interval(resampled: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Central percentile interval of the finite values of `resampled`; NaN where none is."""
    finite = resampled[np.isfinite(resampled)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _blocks(lags: np.ndarray, bars: int, block: float) -> float:
    """Variance of ``sqrt(T)`` times the mean over draws with blocks of this mean length."""
    k = np.arange(1, min(len(lags), int(40 * block) + 2))  # beyond, weights are below 1e-17
    weight = (1 - k / bars) * (1 - 1 / block) ** k
    return float(max(lags[0] + 2 * (weight * lags[1 : len(k) + 1]).sum(), 0.0))


def _left(bars: int, block: float) -> float:
    """Share of the variance that is left after the mean of the sample is taken away."""
    return max(1 - (2 * block - 1) / bars, LEAST)


def _overlap(one: float, other: float) -> float:
    """Sum over all lags of the product of the weights of two block lengths."""
    both = (1 - 1 / one) * (1 - 1 / other)
    return (1 + both) / (1 - both)


def _counts(rng: np.random.Generator, resamples: int, bars: int, block: float) -> np.ndarray:
    """How often each bar is drawn, shape (resamples, bars)."""
    first = rng.random((resamples, bars)) < 1 / block
    first[:, 0] = True
    place = np.arange(bars)
    begun = np.maximum.accumulate(np.where(first, place, 0), axis=1)
    start = np.take_along_axis(rng.integers(bars, size=(resamples, bars)), begun, axis=1)
    drawn = (start + place - begun) % bars + np.arange(resamples)[:, None] * bars
    return np.bincount(drawn.ravel(), minlength=resamples * bars).reshape(resamples, bars) * 1.0

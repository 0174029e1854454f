"""How often the 95 % intervals hold the truth: ``python experiments/benchmarks/intervals/run.py``.

Histories of 20 assets whose true figures are known, from many more bars. The widths compared are
percentiles of blocks of a fixed length, max(span, T^(1/3)), and those of `resample`.
"""

import sys
import time

import numpy as np
from scipy.signal import lfilter
from scipy.stats import norm

from stages.evaluate.bootstrap import interval, resample, stationary_bootstrap
from stages.evaluate.cross_section import score_sums
from stages.evaluate.scores import odds_sums

ASSETS, SLOPE, BURN = 20, 0.15, 200
FIGURES = ("ic", "log_loss", "accuracy")
LENGTHS = (250, 1000, 4000)
RESAMPLES = 500


def persistent(rng, shape, decay):
    """AR(1) of unit variance along the last axis."""
    noise = rng.normal(size=(*shape[:-1], shape[-1] + BURN)) * np.sqrt(1 - decay**2)
    return lfilter([1], [1, -decay], noise, axis=-1)[..., BURN:]


def history(market, bars, seed):
    """Score, forward return over its deviation, and horizon of one history."""
    rng = np.random.default_rng(seed)
    if market == "independent bars":
        score = rng.normal(size=(ASSETS, bars))
        return score, SLOPE * score + rng.normal(size=score.shape), 1
    if market == "AR(0.6) skill and market":
        score = rng.normal(size=(ASSETS, bars))
        slope = SLOPE * (1 + 2 * persistent(rng, (bars,), 0.6))
        common = 0.5 * persistent(rng, (bars,), 0.6)
        return score, slope * score + common + rng.normal(size=score.shape), 1
    score = persistent(rng, (ASSETS, bars), 0.95)  # labels of 5 bars, one begun at each bar
    noise = rng.normal(size=(ASSETS, bars + 4)) + 0.5 * rng.normal(size=bars + 4)
    return score, SLOPE * score + lfilter(np.ones(5) / np.sqrt(5), [1], noise, axis=1)[:, 4:], 5


MARKETS = ("independent bars", "AR(0.6) skill and market", "labels over 5 bars")


def sums_of(market, bars, seed):
    """Sums per bar behind the three figures, shape (T, 5), and the horizon."""
    score, ret, horizon = history(market, bars, seed)
    bar, asset = np.tile(np.arange(bars), ASSETS), np.repeat(np.arange(ASSETS), bars)
    edges = norm.ppf([1 / 3, 2 / 3]) * 1.1
    label = np.digitize(ret.ravel(), edges)
    below = norm.cdf(edges[None, :] - SLOPE * score.ravel()[:, None])
    p = np.diff(np.column_stack([np.zeros(len(below)), below, np.ones(len(below))]))
    odds = odds_sums(p, label, bar, bars)
    right = odds["confusion"][:, [0, 4, 8]].sum(axis=1)
    ic = score_sums(score.ravel(), ret.ravel(), bar, asset, bars, horizon)["ic"]
    rows = odds["confusion"].sum(axis=1)
    return np.column_stack([ic[:, :2], rows, odds["log_loss"][:, 0], right]), horizon


def figures(totals):
    """The three figures of such sums, (..., 5) to (..., 3)."""
    bars, ic, rows, loss, right = np.moveaxis(totals, -1, 0)
    return np.stack([ic / bars, loss / rows, right / rows], axis=-1)


def one(market, bars, seed):
    """Intervals of one history, by fixed blocks and by `resample`: shape (2, 3, 2)."""
    sums, horizon = sums_of(market, bars, seed)
    block = max(horizon, round(bars ** (1 / 3)))
    fixed = figures(stationary_bootstrap(sums, block, RESAMPLES, seed))
    out = resample(figures, sums, horizon, RESAMPLES, seed)
    return [[interval(d) for d in drawn.T] for drawn in (fixed, out.drawn)]


def main(repeats):
    """Print the table of coverage."""
    began = time.time()
    heads = [f"{name}: {how}" for name in FIGURES for how in ("fixed blocks", "now")]
    print(f"| market | bars | {' | '.join(heads)} |")
    print("|---|---|" + "---|---|" * len(FIGURES))
    for market in MARKETS:
        long = [sums_of(market, 20_000, 10_000 + k) for k in range(40)]
        truth = figures(sum(sums.sum(axis=0) for sums, _ in long))
        for bars in LENGTHS:
            ends = np.array([one(market, bars, seed) for seed in range(repeats)])
            inside = ((ends[..., 0] <= truth) & (truth <= ends[..., 1])).mean(axis=0)
            cells = [f"{share:.3f}" for share in inside.T.ravel()]  # figure by figure
            print(f"| {market} | {bars} | {' | '.join(cells)} |", flush=True)
    error = np.sqrt(0.95 * 0.05 / repeats)
    print(f"\n{repeats} histories a row, standard error {error:.3f}; {time.time() - began:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)

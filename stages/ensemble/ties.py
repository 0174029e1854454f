"""How labels hang together: what a bar shares, and what neighbours share beyond it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import chi2

BLOCK = 20  # bars: a trading month
BLOCKS = 15  # fewer tell no variance: a short history is cut into shorter ones
SPANNED = 0.95  # share of the labels whose span a block has to cover
UNSURE = 0.25  # chance that a variance of few blocks is larger than what it is taken for
TINY = 1e-300


@dataclass(frozen=True)
class Ties:
    """How labels hang together, because neighbours share their surprises.

    Attributes
    ----------
    shared : float >= 0
        Variance of what a bar adds to the log-odds of all its labels alike.
    persists : float >= 1
        Bars that count as one, because what they add persists.
    effect : float >= 1
        Labels that count as one beyond that: peers move together, and surprises of an asset last.
    """

    shared: float
    persists: float
    effect: float

    @property
    def variance(self) -> float:
        """Of what a bar adds, as labels are learnt from: as often as it persists."""
        return self.shared * self.persists


LOOSE = Ties(0.0, 1.0, 1.0)


def ties(
    y: pd.DataFrame,
    hit: np.ndarray,
    vote: np.ndarray,
    foreseen: np.ndarray | None = None,
    block: int = BLOCK,
) -> Ties:
    """Measure how labels hang together by what was not foreseen of them.

    Stocks move together. A thousand labels of a bar are few witnesses of what all of them share:
    that is taken out by its variance, and what is left of it from bar to bar by `persists`. They
    are more, though not a thousand, witnesses of what sets them apart: `effect` is the variance of
    the score of the members' vote, without what the bar shares, summed over blocks of bars, over
    what independent labels of these weights would give. Few blocks tell a variance badly, so its
    upper end is taken.

    Parameters
    ----------
    y : DataFrame of shape (n, 3)
    hit : bool ndarray of shape (n,)
        What is learnt of each label.
    vote : float64 ndarray of shape (n,)
        Of the members, log-odds.
    foreseen : float64 ndarray of shape (n,), optional
        Odds of `hit`; the rate of all labels by default.
    block : int, default=20
        Bars of a block: fewer where that would leave fewer than 15, but at least four label spans
        (the longest but for one in twenty: a halt stretches a few). Surprises of different blocks
        count as independent.

    References
    ----------
    Kish (1965), "Survey Sampling", section 5.4; Liang & Zeger (1986), Biometrika 73 (the variance
    of a score whose terms are dependent within blocks); Pauli, Racugno & Ventura (2011), "Bayesian
    composite marginal likelihoods", Statistica Sinica 21 (a likelihood brought back to it).
    """
    weight = y["weight"].to_numpy(dtype="float64")
    bar, times = y.index.get_level_values("time").factorize(sort=True)
    asset, assets = y.index.get_level_values("asset").factorize()
    span = int(np.ceil(np.quantile(times.searchsorted(y["end"]) - bar, SPANNED)))
    length = min(max(min(block, len(times) // BLOCKS), 4 * span, 1), len(times))
    odds = np.full(len(y), np.average(hit, weights=weight)) if foreseen is None else foreseen

    def cells(values: np.ndarray) -> np.ndarray:
        """Weighted values by asset and bar."""
        out = np.zeros((len(assets), len(times)))
        np.add.at(out, (asset, bar), weight * values)
        return out

    def counted(values: np.ndarray, of_bars: bool) -> float:
        """Labels that count as one in sums of these values, beyond what their weights say."""
        sums = cells(values)
        sums = sums.sum(axis=0, keepdims=True) if of_bars else sums
        return _block_square(sums, length) / max(weight @ values**2, TINY)

    surprise, variance = hit - odds, odds * (1 - odds)
    by_bar, moved, total = (
        np.bincount(bar, weight * values, len(times))
        for values in (surprise, variance, np.ones(len(y)))
    )
    together, own = (by_bar**2).sum(), (cells(surprise) ** 2).sum()
    shared = float(max((together - own) / max((moved**2).sum(), TINY), 0.0))
    taken = (shared * moved / (1 + shared * moved) / np.maximum(total, TINY))[bar]
    apart = surprise - taken * by_bar[bar]
    score = apart * (vote - taken * np.bincount(bar, weight * vote)[bar])
    score -= np.average(score, weights=weight)  # its mean is what can be learnt
    effect = max(counted(score, of_bars=True), counted(apart, of_bars=False))
    doubt = _upper(len(times) / length)
    persists = _block_square(by_bar[None], length) / max(together, TINY)
    return Ties(shared, float(max(doubt * persists, 1.0)), float(max(doubt * effect, 1.0)))


def _upper(blocks: float) -> float:
    """From a variance estimated on so many blocks to the upper end of what it may be."""
    return float(blocks / chi2.ppf(UNSURE, max(blocks, 1.0)))


def _block_square(sums: np.ndarray, length: int) -> float:
    """Sum of squared block sums along rows of bars, averaged over where blocks may start."""
    run = np.cumsum(np.insert(sums, 0, 0.0, axis=1), axis=1)
    squares = (run[:, length:] - run[:, :-length]) ** 2
    return float(squares.mean(axis=1).sum() * sums.shape[1] / length)

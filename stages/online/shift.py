"""Do the inputs come from where they used to? PSI, KS and MMD, sure in spite of dependence."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.evaluate.bootstrap import autocovariance, block_length
from stages.panel import check_panel

BINS = 10  # equal shares of both windows together, and one for what is missing
WAVES = 64  # random Fourier features
LONGER = 1.5  # blocks that cover as they should are longer than those that err least
MOST = 2000  # rows whose distances set the width of the kernel
FEW = 8  # blocks of a window: below, too few arrangements are left
CHUNK = 1 << 24  # numbers held at once
STATISTICS = ("psi", "ks", "mmd")


@dataclass(frozen=True)
class Shift:
    """How two windows of inputs compare.

    Attributes
    ----------
    table : DataFrame
        One row per input, the largest PSI first: ``psi``, ``ks`` (of the binned shares) and
        ``judged``: an input whose bars hang together for longer than a block is not.
    p : mapping of str to float
        Of the largest ``psi``, the largest ``ks`` and of ``mmd``, over all inputs judged: share of
        the arrangements of blocks that differ as much; 1 where none is judged.
    bars : tuple of int
        Of either window.
    block : int
        Bars of a block.
    draws : int
        Arrangements.
    """

    table: pd.DataFrame
    p: dict[str, float]
    bars: tuple[int, int]
    block: int
    draws: int

    @property
    def least(self) -> float:
        """Chance of the surest of the three, allowing for their being three."""
        return min(1.0, len(STATISTICS) * min(self.p.values()))


def shift(
    before: pd.DataFrame,
    after: pd.DataFrame,
    inputs: Sequence[str],
    block: int = 20,
    draws: int = 9_999,
    seed: int = 0,
) -> Shift:
    """Compare two windows of a panel, input by input and all together.

    Both windows are cut into blocks of bars. Under "nothing changed" the blocks might as well
    have come in another order: so every statistic is compared with those of `draws` orders. That
    holds however rows of a bar hang together, and bars within a block.

    Parameters
    ----------
    before, after : DataFrame of shape (N, F)
        Panels that share no bar.
    inputs : sequence of str
        Columns to compare.
    block : int >= 1, default=20
        Bars, at least; more where inputs hang together for longer and the windows allow it.
    draws : int >= 1, default=19999
    seed : int

    Returns
    -------
    Shift
        With p-values of at least ``1 / (draws + 1)``.

    References
    ----------
    Westfall & Young (1993), "Resampling-Based Multiple Testing" (the largest over all inputs);
    Gretton et al. (2012), "A Kernel Two-Sample Test", JMLR 13; Rahimi & Recht (2007), NeurIPS
    (its random features); Siddiqi (2006), "Credit Risk Scorecards" (PSI).
    """
    names = list(inputs)
    tables = [check_panel(table, names)[names] for table in (before, after)]
    values = np.concatenate([table.to_numpy("float64") for table in tables])
    times = [np.unique(t.index.get_level_values("time"), return_inverse=True) for t in tables]
    bars = len(times[0][0]), len(times[1][0])
    reach = np.array([_reach(tables[0][name]) for name in names])
    usual = float(np.median(reach)) if len(reach) else 0.0
    block = int(max(block, min(np.ceil(usual), min(bars) // FEW)))
    first = -(-bars[0] // block)  # block at which the second window begins
    own = np.concatenate([times[0][1] // block, first + times[1][1] // block])
    blocks = first + -(-bars[1] // block)
    shares = _shares(values, own, blocks)
    enough = min(first, blocks - first) >= FEW
    judged = (reach <= block) & enough
    late = np.arange(blocks) >= first
    psi, ks = _distances(shares[~late].sum(axis=0), shares[late].sum(axis=0))
    table = pd.DataFrame({"psi": psi, "ks": ks, "judged": judged}, index=names)
    table = table.rename_axis("input").sort_values("psi", ascending=False, kind="stable")
    p = dict.fromkeys(STATISTICS, 1.0)
    if judged.any():
        waves = _waves(values[:, judged], own, blocks, seed)
        p = _chances(shares[:, judged], waves, first, draws, seed)
    return Shift(table, p, bars, block, draws)


def _reach(column: pd.Series) -> float:
    """Bars of the blocks that hold the dependence of an input; infinite where none is known."""
    series = column.groupby(level="time", sort=True).mean().dropna().to_numpy("float64")
    if len(series) < 2 * FEW:
        return float("inf")
    lags = autocovariance(series)
    return LONGER * block_length(lags, len(series)) if lags[0] > 0 else 0.0


def _shares(values: np.ndarray, own: np.ndarray, blocks: int) -> np.ndarray:
    """Rows by block, input and bin: shape (blocks, F, BINS + 1)."""
    out = np.zeros((blocks, values.shape[1], BINS + 1))
    for f, column in enumerate(values.T):
        known = np.isfinite(column)
        place = np.full(len(column), BINS)
        if known.any():
            edges = np.unique(np.quantile(column[known], np.arange(1, BINS) / BINS))
            place[known] = np.searchsorted(edges, column[known], side="right")
        counts = np.bincount(own * (BINS + 1) + place, minlength=blocks * (BINS + 1))
        out[:, f] = counts.reshape(blocks, BINS + 1)
    return out


def _waves(values: np.ndarray, own: np.ndarray, blocks: int, seed: int) -> np.ndarray:
    """Sums over the rows of a block of random features of a Gaussian kernel, and their number."""
    rng = np.random.default_rng(seed)
    rank = pd.DataFrame(values).rank(pct=True).fillna(0.5).to_numpy()  # one scale for all inputs
    some = rank[rng.permutation(len(rank))[:MOST]]
    apart = np.sqrt(((some - some[rng.permutation(len(some))]) ** 2).sum(axis=1))
    width = float(np.median(apart)) or 1.0
    angle = rank @ (rng.standard_normal((rank.shape[1], WAVES)) / width)
    angle += rng.uniform(0, 2 * np.pi, WAVES)
    columns = np.column_stack([np.sqrt(2 / WAVES) * np.cos(angle), np.ones(len(rank))])
    out = np.zeros((blocks, WAVES + 1))
    np.add.at(out, own, columns)
    return out


def _chances(
    shares: np.ndarray, waves: np.ndarray, first: int, draws: int, seed: int
) -> dict[str, float]:
    rng, blocks = np.random.default_rng(seed), len(shares)
    flat = np.concatenate([shares.reshape(blocks, -1), waves], axis=1)
    late = np.zeros((draws + 1, blocks))
    late[0, first:] = 1
    late[1:] = rng.permuted(np.tile(late[0], (draws, 1)), axis=1)
    found, step = [], max(1, CHUNK // flat.shape[1])
    for begin in range(0, draws + 1, step):
        after = late[begin : begin + step] @ flat
        found.append(_statistics(flat.sum(axis=0) - after, after, shares.shape[1:]))
    each = np.concatenate(found)
    beyond = (each >= each[0] * (1 - 1e-9)).mean(axis=0)
    return dict(zip(STATISTICS, beyond.tolist(), strict=True))


def _statistics(before: np.ndarray, after: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    cut = int(np.prod(shape))
    parts = [x[:, :cut].reshape(-1, *shape) for x in (before, after)]
    psi, ks = _distances(*parts)
    means = [x[:, cut:-1] / x[:, -1:] for x in (before, after)]
    mmd = ((means[0] - means[1]) ** 2).sum(axis=1)
    return np.column_stack([psi.max(axis=1), ks.max(axis=1), mmd])


def _distances(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """PSI and KS of binned rows, shape (..., F, BINS + 1); half a row is added to each bin."""
    p, q = ((x + 0.5) / (x + 0.5).sum(axis=-1, keepdims=True) for x in (before, after))
    psi = ((p - q) * np.log(p / q)).sum(axis=-1)
    ks = np.abs(np.cumsum(p - q, axis=-1)).max(axis=-1)
    return psi, ks

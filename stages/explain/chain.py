"""Joins the explanations of the three stages into one, in log-odds, reference by reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.base import Attribution


@dataclass(frozen=True)
class Chained:
    """Contributions to the margin, before and after the average over references.

    Attributes
    ----------
    contributions : mapping of column to float64 ndarray of shape (N,)
        Per raw input column, averaged over the R references.
    by_member : mapping of str to float64 ndarray of shape (N,)
        Per member of a stage, and ``context``; sums to the same total.
    read : tuple of F' str
        Columns that a stage reads over a window of L bars; empty where none does.
    lags : float64 ndarray of shape (N, L, F')
        What each bar adds to `contributions` through the nets, the row's own last.
    """

    contributions: Mapping[str, np.ndarray]
    by_member: Mapping[str, np.ndarray]
    read: tuple[str, ...]
    lags: np.ndarray


def pull_of(ensemble: Attribution, outputs: Sequence[str]) -> np.ndarray:
    """Multipliers (N, R, O) of the `outputs` of stage 2 in the margin; 0 for one it never reads."""
    at = {column: u for u, column in enumerate(ensemble.upstream)}
    nothing = np.zeros(ensemble.slopes.shape[:2])
    return np.stack(
        [ensemble.slopes[:, :, 0, at[name]] if name in at else nothing for name in outputs], axis=2
    )


def chain(ensemble: Attribution, refiner: Attribution | None, trees: Attribution) -> Chained:
    """Push the margin of the last stage back to the raw inputs of all stages.

    A stage hands back contributions of its own inputs and slopes on the outputs of the stages
    before it. The slopes of stage 3 scale the contributions of stages 1 and 2; those of stage 2
    on its static channels scale stage 1 once more. Done per reference and averaged last, as
    averages of products are not products of averages.

    Parameters
    ----------
    ensemble : Attribution with O = 1
        Of the margin, buy over sell.
    refiner : Attribution or None
        Its outputs, or its members weighted by `pull_of`.
    trees : Attribution

    Returns
    -------
    Chained

    References
    ----------
    Chen, Lundberg & Lee (2022), "Explaining a series of models by propagating Shapley values",
    Nature Communications 13, eq. 3 (the generalised rescale rule).
    """
    slope = dict(zip(ensemble.upstream, np.moveaxis(ensemble.slopes[:, :, 0], -1, 0), strict=True))
    read: tuple[str, ...] = ()
    lags = np.zeros((len(ensemble.values), 1, 0))
    parts = [(ensemble.inputs, ensemble.values[:, :, 0])]
    members = {"context": parts[0][1].sum(-1)}
    if refiner is not None:
        weighted = refiner.lags is not None
        if refiner.lags is not None:
            read, lags = refiner.inputs, refiner.lags
        heard = [(o, name) for o, name in enumerate(refiner.outputs) if weighted or name in slope]
        for o, name in heard:
            weight = np.ones(refiner.values.shape[:2]) if weighted else slope[name]
            member = name if weighted else name.rpartition(".")[0]
            parts.append((refiner.inputs, weight[..., None] * refiner.values[:, :, o]))
            members[member] = members.get(member, 0.0) + parts[-1][1].sum(-1)
            for u, column in enumerate(refiner.upstream):
                through = weight * refiner.slopes[:, :, o, u]
                slope[column] = slope.get(column, 0.0) + through
    for o, name in enumerate(trees.outputs):
        if name in slope:
            member = name.rpartition(".")[0]
            parts.append((trees.inputs, slope[name][..., None] * trees.values[:, :, o]))
            members[member] = members.get(member, 0.0) + parts[-1][1].sum(-1)
    shares: dict[str, np.ndarray] = {}
    for inputs in dict.fromkeys(names for names, _ in parts):
        mine = sum(part for names, part in parts if names is inputs or names == inputs)
        for name, value in zip(inputs, np.asarray(mine).mean(axis=1).T, strict=True):
            shares[name] = shares.get(name, 0.0) + value
    by_member = {name: value.mean(axis=1) for name, value in members.items()}
    return Chained(shares, by_member, read, lags)


def close(contributions: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spread what is left of `total` over the contributions, by their size.

    Parameters
    ----------
    contributions : float64 ndarray of shape (N, F)
    total : float64 ndarray of shape (N,)
        What the rows of `contributions` should sum to.

    Returns
    -------
    closed : float64 ndarray of shape (N, F)
    gap : float64 ndarray of shape (N,)
        What was missing before.
    """
    size = np.abs(contributions)
    # sum() adds column by column: a row's bits depend neither on N nor on columns of zeros
    gap = total - sum(contributions.T)
    weight = np.asarray(sum(size.T))[:, None]
    share = np.divide(size, weight, out=np.zeros_like(size), where=weight > 0)
    return contributions + share * gap[:, None], gap

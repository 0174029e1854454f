"""Joins the explanations of the three stages into one, in log-odds, reference by reference."""

from collections.abc import Mapping
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
    """

    contributions: Mapping[str, np.ndarray]
    by_member: Mapping[str, np.ndarray]


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
    trees : Attribution

    Returns
    -------
    Chained

    References
    ----------
    Chen, Lundberg & Lee (2022), "Explaining a series of models by propagating Shapley values",
    Nature Communications 13, eq. 3 (the generalised rescale rule).
    """
    shares: dict[str, np.ndarray] = {}
    members: dict[str, np.ndarray] = {"context": ensemble.values[:, :, 0].sum(-1)}
    _add(shares, ensemble.inputs, ensemble.values[:, :, 0])
    slope = dict(zip(ensemble.upstream, np.moveaxis(ensemble.slopes[:, :, 0], -1, 0), strict=True))
    if refiner is not None:
        for o, output in enumerate(refiner.outputs):
            if output not in slope:
                continue
            scaled = slope[output][..., None] * refiner.values[:, :, o]
            _add(shares, refiner.inputs, scaled)
            _to_member(members, output, scaled)
            for u, column in enumerate(refiner.upstream):
                through = slope[output] * refiner.slopes[:, :, o, u]
                slope[column] = slope.get(column, 0.0) + through
    for o, output in enumerate(trees.outputs):
        if output in slope:
            scaled = slope[output][..., None] * trees.values[:, :, o]
            _add(shares, trees.inputs, scaled)
            _to_member(members, output, scaled)
    return Chained(
        {name: value.mean(axis=1) for name, value in shares.items()},
        {name: value.mean(axis=1) for name, value in members.items()},
    )


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


def _add(shares: dict[str, np.ndarray], names: tuple[str, ...], values: np.ndarray) -> None:
    for i, name in enumerate(names):
        shares[name] = shares.get(name, 0.0) + values[:, :, i]


def _to_member(members: dict[str, np.ndarray], output: str, scaled: np.ndarray) -> None:
    member = output.rsplit(".", 1)[0]
    members[member] = members.get(member, 0.0) + scaled.sum(-1)

"""Joins the explanations of the three stages into one, in log-odds, reference by reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.base import Attribution, Pull


@dataclass(frozen=True)
class Chained:
    """Contributions to the margin, averaged over the references.

    Attributes
    ----------
    contributions : mapping of column to float64 ndarray of shape (N,)
        Per raw input column.
    by_member : mapping of str to float64 ndarray of shape (N,)
        Per member of a stage, and ``context``; sums to the same total.
    read : tuple of F' str
        Columns that a stage reads over a window of L bars; empty where none does.
    lags : float64 ndarray of shape (N, L, F')
        What each bar adds to `contributions` through the nets, the row's own last.
    through : mapping of str to (tuple of F' str, float64 ndarray of shape (N, F'))
        By stage, ``context``, ``refiner`` and ``filter``: the columns that it reads, and what of
        `contributions` passes through it.
    """

    contributions: Mapping[str, np.ndarray]
    by_member: Mapping[str, np.ndarray]
    read: tuple[str, ...]
    lags: np.ndarray
    through: Mapping[str, tuple[Sequence[str], np.ndarray]]


def pull_of(ensemble: Attribution, outputs: Sequence[str]) -> np.ndarray:
    """Multipliers (N, R, O) of the `outputs` of stage 2 in the margin; 0 for one it never reads."""
    return _picked(ensemble.slopes[:, :, 0], ensemble.upstream, outputs)


def pull_through(
    ensemble: Attribution, refiner: Attribution | None, outputs: Sequence[str]
) -> Pull | None:
    """How much the `outputs` of stage 1 count in the margin, also through stage 2.

    None where no input of stage 3 turns them: what each stage hands back then needs no more than
    its slopes.

    Parameters
    ----------
    ensemble : Attribution with O = 1
    refiner : Attribution or None
        Its members weighted by `pull_of`.
    outputs : sequence of O str
    """
    if not ensemble.turns:
        return None
    weights = pull_of(ensemble, outputs)
    if refiner is not None:
        weights = weights + _picked(refiner.slopes.sum(axis=2), refiner.upstream, outputs)
    turns = [_picked(t[:, :, 0], ensemble.upstream, outputs) for t in ensemble.turns.values()]
    return Pull(weights, turns=np.stack(turns))


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
        Its outputs, or its members weighted by `pull_through`: what their inputs moved in the
        place of an input of stage 3 is then taken from that one.

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
    own = ensemble.values[:, :, 0].mean(axis=1)
    if trees.moved is not None:
        for name, owed in zip(ensemble.turns or (), trees.moved.sum(axis=2), strict=True):
            own[:, ensemble.inputs.index(name)] -= owed
    members = {"context": own.sum(axis=1)}
    through = {"context": (ensemble.inputs, own)}
    if refiner is not None:
        weighted = refiner.lags is not None
        if refiner.lags is not None:
            read, lags = refiner.inputs, refiner.lags
        through["refiner"] = refiner.inputs, _passed(refiner, slope, weighted, members)
        for u, column in enumerate(refiner.upstream):
            for o, name in enumerate(refiner.outputs):
                if weighted or name in slope:
                    part = refiner.slopes[:, :, o, u]
                    _add(slope, column, part if weighted else slope[name] * part)
    through["filter"] = trees.inputs, _passed(trees, slope, trees.moved is not None, members)
    shares: dict[str, np.ndarray] = {}
    for names, values in through.values():
        for name, value in zip(names, values.T, strict=True):
            _add(shares, name, value)
    return Chained(shares, members, read, lags, through)


def _passed(
    said: Attribution, slope: Mapping[str, np.ndarray], weighted: bool, members: dict
) -> np.ndarray:
    """What passes through a stage to its inputs, (N, F); what passes through a member is added."""
    total = np.zeros((len(said.values), len(said.inputs)))
    for o, name in enumerate(said.outputs):
        if weighted or name in slope:
            part = said.values[:, :, o]
            mean = (part if weighted else slope[name][..., None] * part).mean(axis=1)
            _add(members, name if weighted else name.rpartition(".")[0], mean.sum(axis=1))
            total += mean
    return total


def _add(sums: dict[str, np.ndarray], name: str, value: np.ndarray) -> None:
    sums[name] = sums[name] + value if name in sums else value


def _picked(slopes: np.ndarray, upstream: Sequence[str], outputs: Sequence[str]) -> np.ndarray:
    """Those slopes (N, R, U) that belong to `outputs`, (N, R, O); 0 for one that is not read."""
    at = {column: u for u, column in enumerate(upstream)}
    nothing = np.zeros(slopes.shape[:2])
    return np.stack([slopes[:, :, at[o]] if o in at else nothing for o in outputs], axis=2)


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

"""Exact Shapley values of what a later stage makes of trees, all references at once."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from stages.base import Attribution, Pull
from stages.explain.tree_shap import BLOCK, Barred, barred_by, pays
from stages.explain.trees import Nodes, Trees, step


class Pulled(NamedTuple):
    """What columns give to the weighted outputs of trees, averaged over the references.

    Attributes
    ----------
    values : float64 ndarray of shape (N, F)
    moved : float64 ndarray of shape (J, N)
        The part of their sum that is owed to each of the J turns of the weights.
    """

    values: np.ndarray
    moved: np.ndarray


def tree_pull(
    trees: Trees,
    X: np.ndarray,
    references: np.ndarray,
    weights: np.ndarray,
    turns: np.ndarray | None = None,
) -> Pulled:
    """Split the weighted outputs of trees over the columns they read, where weights have owners.

    The game is that of `tree_shap`, but a coalition earns ``(weights - turns / 2 + turns * own)``
    times the outputs, with ``own`` 1 where a player beside the columns, of which each turn has
    one, has joined, and 0 before. The product of outputs and own is no sum, so half the turn is
    not a column's due: it moves the outputs more, the more often it comes after that player.

    Parameters
    ----------
    trees : Trees
    X : array of shape (N, F)
    references : array of shape (R, F)
    weights : float64 ndarray of shape (N, R, K)
        Multiplier of each output, the J players half joined.
    turns : float64 ndarray of shape (J, N, R, K), optional
        What each player adds to it by joining.

    Returns
    -------
    Pulled
        The values of a row sum to the mean over the references of
        ``weights * (outputs(row) - outputs(reference))``, and `moved`, which the players lack:
        each gets ``turns`` times the mean of both outputs less what it moved.

    Raises
    ------
    ValueError
        If a path splits on more than 64 different columns.

    Notes
    -----
    Players join at times drawn from [0, 1]: one of a leaf's u columns that only the row passes
    earns ``t**(u-1) (1-t)**v`` at time t, and by then a player has joined with probability t.
    Weighted by ``t - 1/2``, Lundberg's ``(u-1)! v! / (u+v)!`` is ``u / (u+v+1) - 1/2`` times as
    large.

    References
    ----------
    Owen (1972), "Multilinear extensions of games", Management Science 18(5): values as integrals
    over the time of joining; Lundberg et al. (2020), Nat. Mach. Intell. 2, 56-67, algorithm 3.
    """
    x, r = trees.rows(X), trees.rows(references)
    K = len(trees.base)
    turns = np.zeros((0, len(x), len(r), K)) if turns is None else turns
    values, moved = np.zeros(x.shape), np.zeros((len(x), len(turns)))
    pay = _pays(trees.depth)
    for first in range(0, len(r), BLOCK):
        some = slice(first, first + BLOCK)
        # outputs before references: a leaf is worth the same output to all of them
        w = np.ascontiguousarray(np.moveaxis(weights[:, some] / len(r), 1, 2))
        t = np.ascontiguousarray(np.moveaxis(turns[:, :, some] / len(r), (1, 3), (0, 2)))
        _pull(x, trees.nodes, barred_by(trees, r[some]), pay, w, t, values, moved)
    return Pulled(values, moved.T)


def members_pulled(
    members: Mapping[str, Any],
    names: tuple[Sequence[str], Sequence[str]],
    points: tuple[np.ndarray, np.ndarray],
    pull: Pull,
    ruled: np.ndarray | None,
) -> Attribution:
    """Contributions to the weighted sum of each member's logits, averaged over the references.

    Parameters
    ----------
    members : mapping of str to Member
        Each has a method ``pulled``, see `stages.filter.members`.
    names : (2 M outputs, F inputs)
        The columns of the members first, then those of the rules, if there are rules.
    points : (float32 ndarray of shape (N, F'), float32 ndarray of shape (R, F'))
        Rows and references, as members read them.
    pull : Pull
    ruled : float64 ndarray of shape (N, R, 2, F - F'), optional
        Contributions to the logits of the rules. They are linear, and owe nothing to a turn.
    """
    (outputs, inputs), (x, r) = names, points
    turns = np.zeros((0, *pull.weights.shape)) if pull.turns is None else pull.turns
    spoken = tuple(name.rpartition(".")[0] for name in outputs[::2])
    values = np.zeros((len(x), 1, len(spoken), len(inputs)))
    moved = np.zeros((len(turns), len(x), len(spoken)))
    for i, member in enumerate(members.values()):
        pair = slice(2 * i, 2 * i + 2)
        found = member.pulled(x, r, pull.weights[..., pair], turns[..., pair])
        values[:, 0, i, : x.shape[1]], moved[..., i] = found
    if ruled is not None:
        weighed = (ruled * pull.weights[:, :, -2:, None]).sum(axis=2)
        values[:, 0, -1, x.shape[1] :] = weighed.mean(axis=1)
    slopes = np.empty((len(x), 1, len(spoken), 0))
    return Attribution(spoken, tuple(inputs), values, (), slopes, moved=moved)


@cache
def _pays(depth: int) -> np.ndarray:
    """At [., v, u]: gain and loss of `tree_shap`, and both again weighted by ``t - 1/2``."""
    gain, loss = pays(depth)
    u, v = np.arange(depth + 1.0), np.arange(depth + 1.0)[:, None]
    later = gain * (u / (u + v + 1) - 0.5), loss * ((u + 1) / (u + v + 1) - 0.5)
    return np.stack([gain, loss, *later])


# reassoc: or sums over references stay scalar
@njit(cache=True, fastmath={"reassoc", "nsz", "contract"})
def _pull(  # noqa: PLR0913  a kernel takes plain arrays
    X: np.ndarray,
    nodes: Nodes,
    barred: Barred,
    pay: np.ndarray,
    weights: np.ndarray,
    turns: np.ndarray,
    values: np.ndarray,
    moved: np.ndarray,
) -> None:
    """Walk every row through every tree, with the set of the references that still can follow."""
    one = np.uint64(1)
    every = np.uint64(0)
    for r in range(weights.shape[2]):
        every |= one << np.uint64(r)
    room = pay.shape[1] + 1
    # branches still to be walked: where, who can get there, and the places at which x fails
    waiting, alive = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.uint64)
    failed, lacks = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.int32)
    column, due = np.empty(room, dtype=np.int32), np.empty((1, weights.shape[2]))
    for tree in range(nodes.roots.shape[0]):  # outside, so that a tree stays in the cache
        first = nodes.target[tree]
        last = first + nodes.value.shape[1]
        for n in range(X.shape[0]):
            own, turn = weights[n, first:last], turns[n, :, first:last]
            out, owed = values[n], moved[n]
            waiting[0], alive[0], lacks[0], failed[0] = nodes.roots[tree], every, 0, 0
            top = 1
            while top:
                top -= 1
                node, left, v, fails = waiting[top], alive[top], lacks[top], failed[top]
                while left and nodes.feature[node] >= 0:
                    place = barred.place[node]
                    column[place] = nodes.feature[node]
                    bit = one << np.uint64(place)
                    went = step(nodes, node, X[n])
                    other = nodes.left[node] + nodes.right[node] - went
                    rest = left & ~barred.refused[other]
                    if rest:
                        waiting[top], alive[top], failed[top] = other, rest, fails | bit
                        lacks[top] = v if fails & bit else v + 1
                        top += 1
                    if fails & bit:
                        left &= ~barred.refused[went]
                    node = went
                if left:
                    _settle(
                        node, left, v, fails, pay, own, turn, barred, nodes, column, due, out, owed
                    )


@njit(cache=True, inline="always")  # a call would cost as much as what it does
def _settle(node, left, v, fails, pay, own, turn, barred, nodes, column, due, out, owed):  # type: ignore[no-untyped-def]  # noqa: PLR0913, E501
    """Pay the columns on the path to a leaf, for all references that are left together."""
    one, leaf = np.uint64(1), barred.leaf[node]
    missed, start = barred.missed[leaf], barred.start[leaf]
    gains, losses, gain = pay[0, v], pay[1, v], due[0]
    R, V, loss = own.shape[1], own.shape[0], 0.0
    for r in range(R):
        worth = 0.0
        for k in range(V):
            worth += own[k, r] * nodes.value[node, k]
        worth = worth if (left >> np.uint64(r)) & one else 0.0
        gain[r] = worth * gains[missed[r]]
        loss += worth * losses[missed[r]]
    for j in range(turn.shape[0]):
        extra = 0.0
        for r in range(R):
            worth = 0.0
            for k in range(V):
                worth += turn[j, k, r] * nodes.value[node, k]
            worth = worth if (left >> np.uint64(r)) & one else 0.0
            u = missed[r]
            gain[r] += worth * pay[2, v, u]
            loss += worth * pay[3, v, u]
            extra += worth * (u * pay[2, v, u] - v * pay[3, v, u])
        owed[j] += extra
    for place in range(barred.place[node]):
        if (fails >> np.uint64(place)) & one:
            out[column[place]] -= loss
            continue
        some = left & barred.by[start + place]
        if some:
            total = 0.0
            for r in range(R):
                total += gain[r] if (some >> np.uint64(r)) & one else 0.0
            out[column[place]] += total

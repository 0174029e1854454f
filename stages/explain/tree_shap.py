"""Exact Shapley values of tree ensembles against one reference row at a time."""

from typing import NamedTuple

import numpy as np
from numba import njit

from stages.explain.trees import Nodes, Trees, step

BLOCK = 64  # references in a set: the bits of a word
PLACES = 64  # columns of a path: the bits of another


class Barred(NamedTuple):
    """What keeps B references out of the parts of the trees; sets of them are the bits of a word.

    Attributes
    ----------
    place : int32 ndarray of shape (nodes,)
        Of a split: the place of its column among the columns of its path; of a leaf: their count.
    leaf : int32 ndarray of shape (nodes,)
        Numbers of the leaves; -1 for a split.
    refused : uint64 ndarray of shape (nodes,)
        References that the column of the split above has kept out by here.
    start : int64 ndarray of shape (leaves,)
        Where the columns of a leaf's path begin in `by`.
    by : uint64 ndarray of shape (columns of all paths,)
        References that the column keeps out of the leaf.
    missed : uint8 ndarray of shape (leaves, B)
        How many columns keep a reference out.
    """

    place: np.ndarray
    leaf: np.ndarray
    refused: np.ndarray
    start: np.ndarray
    by: np.ndarray
    missed: np.ndarray


def tree_shap(trees: Trees, X: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Share of each column in the way from each reference to each row (interventional).

    The game of a row x and a reference r: a coalition of columns takes its values from x, all
    other columns from r, and earns the trees' output at that mixed row.

    Parameters
    ----------
    trees : Trees
    X : array of shape (N, F)
    references : array of shape (R, F)

    Returns
    -------
    float64 ndarray of shape (N, R, K, F)
        Sums over F to ``trees.outputs(X)[n] - trees.outputs(references)[r]``, up to rounding.

    Raises
    ------
    ValueError
        If a path splits on more than 64 different columns.

    Notes
    -----
    A leaf has one bit per column on its path, and a row the bits of the columns that keep it out.
    A mix of x and r reaches the leaf unless one column keeps out both. The bits of the references
    are found once and kept by `trees` until it is asked about others; a row then walks each tree
    once, with the set of the references that still can reach what is below.

    References
    ----------
    Lundberg et al. (2020), Nat. Mach. Intell. 2, 56-67, algorithm 3: of the leaves that a mixed
    row can reach, one with u columns that only x passes and v that only r passes pays each of
    the u columns ``(u-1)! v! / (u+v)!`` and each of the v columns ``-u! (v-1)! / (u+v)!`` of
    its value.
    """
    x, r = trees.rows(X), trees.rows(references)
    parts = []
    for first in range(0, len(r), BLOCK):
        barred = barred_by(trees, r[first : first + BLOCK])
        # references last, so that a column is paid for all of them at once
        shares = np.zeros((len(x), len(trees.base), x.shape[1], barred.missed.shape[1]))
        _shares(x, trees.nodes, barred, *pays(trees.depth), shares)
        parts.append(shares)
    shares = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=3)
    return np.moveaxis(shares, 3, 1)


def barred_by(trees: Trees, references: np.ndarray) -> Barred:
    """What keeps at most 64 references out of the parts of the trees; kept by `trees`.

    Raises
    ------
    ValueError
        If a path splits on more than 64 different columns.
    """
    barred: Barred = trees.remembered(references, _barred)
    if barred.place.max(initial=0) > PLACES:
        raise ValueError(
            f"a path splits on {barred.place.max()} different columns, at most {PLACES} can be "
            "explained: set max_depth"
        )
    return barred


def pays(depth: int) -> tuple[np.ndarray, np.ndarray]:
    """``(u-1)! v! / (u+v)!`` and ``u! (v-1)! / (u+v)!`` at [v, u] up to `depth`; 0 for (-1)!."""
    pay = np.zeros((depth + 1, depth + 1))
    for u in range(1, depth + 1):
        pay[u, 0] = 1 / u
        for v in range(1, depth + 1):  # without large factorials
            pay[u, v] = pay[u, v - 1] * v / (u + v)
    return np.ascontiguousarray(pay.T), pay


@njit(cache=True)
def _places(nodes: Nodes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places of columns on paths, numbers of leaves, and the split above each node (or -1)."""
    size = nodes.feature.shape[0]
    place, leaf = np.zeros(size, dtype=np.int32), np.full(size, -1, dtype=np.int32)
    above = np.full(size, -1, dtype=np.int32)
    leaves = 0
    for node in range(size):  # children stand behind their parent; place holds the columns above
        if nodes.feature[node] < 0:
            leaf[node] = leaves
            leaves += 1
            continue
        columns, up = place[node], above[node]
        while up >= 0:
            if nodes.feature[up] == nodes.feature[node]:
                place[node] = place[up]
                break
            up = above[up]
        for child in (nodes.left[node], nodes.right[node]):
            above[child] = node
            place[child] = max(columns, place[node] + 1)
    return place, leaf, above


@njit(cache=True)
def _barred(nodes: Nodes, references: np.ndarray) -> Barred:
    place, leaf, above = _places(nodes)
    refused = _refused(nodes, references, place, above)
    leaves, B = leaf.max() + 1, references.shape[0]
    start, total = np.zeros(leaves, dtype=np.int64), 0
    for node in range(len(leaf)):
        if leaf[node] >= 0:
            start[leaf[node]] = total
            total += place[node]
    by, count = np.zeros(total, dtype=np.uint64), np.zeros((leaves, B), dtype=np.uint8)
    for node in range(len(leaf)):
        if leaf[node] < 0:
            continue
        up, first = node, start[leaf[node]]
        while above[up] >= 0:
            by[first + place[above[up]]] |= refused[up]
            up = above[up]
        for i in range(first, first + place[node]):
            for r in range(B):
                count[leaf[node], r] += (by[i] >> np.uint64(r)) & np.uint64(1)
    return Barred(place, leaf, refused, start, by, count)


@njit(cache=True)
def _refused(
    nodes: Nodes, references: np.ndarray, place: np.ndarray, above: np.ndarray
) -> np.ndarray:
    """Of each node: the references that the column of the split above keeps out by here."""
    refused = np.zeros(len(above), dtype=np.uint64)
    for node in range(len(above)):
        if nodes.feature[node] < 0:
            continue
        up = node  # whom the same column keeps out higher up, it keeps out
        while above[up] >= 0 and place[above[up]] != place[node]:
            up = above[up]
        before = refused[up] if above[up] >= 0 else np.uint64(0)
        left, right = nodes.left[node], nodes.right[node]
        refused[left] = refused[right] = before
        for r in range(references.shape[0]):
            went = step(nodes, node, references[r])
            refused[left + right - went] |= np.uint64(1) << np.uint64(r)
    return refused


@njit(cache=True)
def _shares(
    X: np.ndarray,
    nodes: Nodes,
    barred: Barred,
    gains: np.ndarray,
    losses: np.ndarray,
    shares: np.ndarray,
) -> None:
    """Walk every row through every tree, with the set of the references that still can follow."""
    one = np.uint64(1)
    every = np.uint64(0)
    for r in range(shares.shape[3]):
        every |= one << np.uint64(r)
    room = gains.shape[0] + 1
    # branches still to be walked: where, who can get there, and the places at which x fails
    waiting, alive = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.uint64)
    failed, lacks = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.int32)
    column, pay = np.empty(room, dtype=np.int32), np.empty((2, shares.shape[3]))
    for tree in range(nodes.roots.shape[0]):  # outside, so that a tree stays in the cache
        first = nodes.target[tree]
        for n in range(X.shape[0]):
            out = shares[n, first : first + nodes.value.shape[1]]
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
                    _settle(node, left, fails, gains[v], losses[v], barred, nodes, column, pay, out)


@njit(cache=True, inline="always")  # a call would cost as much as what it does
def _settle(node, left, fails, gains, losses, barred, nodes, column, pay, out):  # type: ignore[no-untyped-def]  # noqa: PLR0913, E501
    """Pay the columns on the path to a leaf, for all references that are left."""
    one, leaf = np.uint64(1), barred.leaf[node]
    missed = barred.missed[leaf]
    gain, loss = pay[0], pay[1]  # arrays of their own, or the loops are not vectorised
    B = gain.shape[0]
    for r in range(B):
        here = (left >> np.uint64(r)) & one
        gain[r] = gains[missed[r]] if here else 0.0
        loss[r] = losses[missed[r]] if here else 0.0
    for place in range(barred.place[node]):
        lacking = (fails >> np.uint64(place)) & one
        some = left & barred.by[barred.start[leaf] + place]
        if not lacking and not some:
            continue
        for k in range(out.shape[0]):
            value = nodes.value[node, k]
            row = out[k, column[place]]
            if lacking:
                for r in range(B):
                    row[r] -= loss[r] * value
            else:
                for r in range(B):
                    row[r] += gain[r] * value * ((some >> np.uint64(r)) & one)

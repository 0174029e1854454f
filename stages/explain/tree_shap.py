"""Exact Shapley values of tree ensembles against one reference row at a time."""

from typing import NamedTuple

import numpy as np
from numba import njit

from stages.explain.trees import Nodes, Trees, step


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

    References
    ----------
    Lundberg et al. (2020), Nat. Mach. Intell. 2, 56-67, algorithm 3: of the leaves that a mixed
    row can reach, one with u columns that only x passes and v that only r passes pays each of
    the u columns ``(u-1)! v! / (u+v)!`` and each of the v columns ``-u! (v-1)! / (u+v)!`` of
    its value.
    """
    x, r = trees.rows(X), trees.rows(references)
    shares = np.zeros((len(x), len(r), len(trees.base), x.shape[1]))
    nodes = trees.nodes
    _shares(_steps(x, nodes), _steps(r, nodes), nodes, _pay(trees.depth), shares)
    return shares


def _pay(depth: int) -> np.ndarray:
    """``(u-1)! v! / (u+v)!`` for u, v up to `depth`, without large factorials; 0 for u = 0."""
    pay = np.zeros((depth + 1, depth + 1))
    for u in range(1, depth + 1):
        pay[u, 0] = 1 / u
        for v in range(1, depth + 1):
            pay[u, v] = pay[u, v - 1] * v / (u + v)
    return pay


@njit(cache=True)
def _steps(X: np.ndarray, nodes: Nodes) -> np.ndarray:
    """The child each row takes at each node, so that no pair of rows compares values again."""
    steps = np.full((X.shape[0], nodes.feature.shape[0]), -1, dtype=np.int32)
    for row in range(X.shape[0]):
        for node in range(nodes.feature.shape[0]):
            if nodes.feature[node] >= 0:
                steps[row, node] = step(nodes, node, X[row])
    return steps


class _Path(NamedTuple):
    """The splits above a node at which x and r part, in memory that all walks share."""

    column: np.ndarray
    from_x: np.ndarray  # whether x is followed; r's turn comes afterwards
    other: np.ndarray  # the child that r takes


@njit(cache=True)
def _shares(
    x_steps: np.ndarray, r_steps: np.ndarray, nodes: Nodes, pay: np.ndarray, shares: np.ndarray
) -> None:
    room = pay.shape[0]
    path = _Path(
        np.empty(room, dtype=np.int32),
        np.empty(room, dtype=np.bool_),
        np.empty(room, dtype=np.int32),
    )
    width = nodes.value.shape[1]
    for n in range(x_steps.shape[0]):
        for r in range(r_steps.shape[0]):
            for tree in range(nodes.roots.shape[0]):
                first = nodes.target[tree]
                out = shares[n, r, first : first + width]
                _walk(x_steps[n], r_steps[r], nodes, nodes.roots[tree], pay, path, out)


@njit(cache=True)
def _walk(
    x_steps: np.ndarray,
    r_steps: np.ndarray,
    nodes: Nodes,
    node: int,
    pay: np.ndarray,
    path: _Path,
    shares: np.ndarray,
) -> None:
    """Visit each leaf that a mix of x and r can reach, and pay the columns that lead there."""
    u = v = 0  # columns on the path taken from x, and from r
    while True:
        while nodes.feature[node] >= 0:
            if x_steps[node] == r_steps[node]:
                node = x_steps[node]
                continue
            known = 0
            while known < u + v and path.column[known] != nodes.feature[node]:
                known += 1
            if known == u + v:
                path.column[known], path.other[known] = nodes.feature[node], r_steps[node]
                path.from_x[known] = True
                u += 1
            node = x_steps[node] if path.from_x[known] else r_steps[node]
        for i in range(u + v):
            weight = pay[u, v] if path.from_x[i] else -pay[v, u]
            for k in range(shares.shape[0]):
                shares[k, path.column[i]] += weight * nodes.value[node, k]
        if u == 0:
            return
        while not path.from_x[u + v - 1]:  # both turns taken
            v -= 1
        u, v = u - 1, v + 1
        node = path.other[u + v - 1]
        path.from_x[u + v - 1] = False

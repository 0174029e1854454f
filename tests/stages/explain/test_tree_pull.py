"""Weighted outputs of trees are split as by definition, also where the weights have owners."""

from itertools import product
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.explain.tree_pull import tree_pull
from stages.explain.tree_shap import tree_shap
from stages.explain.trees import Trees
from tests.stages.explain.test_tree_shap import boosted, forest, table, xgboosted

F, OWNERS = 6, 2
GROWN = {
    "lightgbm": lambda: Trees.from_lightgbm(boosted().booster_),
    "xgboost": lambda: Trees.from_xgboost(xgboosted().get_booster()),
    "forest": lambda: Trees.from_forest(forest()),
}


WOOD = GROWN["forest"]()


@pytest.fixture(scope="module", params=GROWN)
def trees(request):
    return GROWN[request.param]()


def drawn(rows: int, references: int, outputs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (N, R, K) and what each owner adds to them, (J, N, R, K)."""
    rng = np.random.default_rng(seed)
    shape = (rows, references, outputs)
    return rng.normal(size=shape), rng.normal(size=(OWNERS, *shape))


def enumerated(trees, x, r, weights, turns):
    """Shapley values of the columns and the owners, by the definition: (F + J,)."""
    n = F + OWNERS
    coalitions = np.array(list(product([False, True], repeat=n)))
    joined = coalitions[:, F:].astype(float)
    mixed = np.where(coalitions[:, :F], x, r).astype("float32")
    weight = weights + (joined - 0.5) @ turns  # the weights are those with half of each owner
    earned = (weight * trees.outputs(mixed)).sum(axis=1)
    size, values = coalitions.sum(axis=1), np.empty(n)
    for k in range(n):
        without = np.flatnonzero(~coalitions[:, k])
        share = [factorial(s) * factorial(n - s - 1) / factorial(n) for s in size[without]]
        values[k] = (earned[without + 2 ** (n - 1 - k)] - earned[without]) @ np.array(share)
    return values


def test_columns_and_owners_get_what_the_definition_gives_them(trees):
    X, _ = table(9, gaps=0.3, seed=4)
    x, r = X[:4], X[4:]
    weights, turns = drawn(len(x), len(r), len(trees.base), seed=1)
    found = tree_pull(trees, x, r, weights, turns)
    for n in range(len(x)):
        each = [enumerated(trees, x[n], r[i], weights[n, i], turns[:, n, i]) for i in range(len(r))]
        truth = np.mean(each, axis=0)
        np.testing.assert_allclose(found.values[n], truth[:F], atol=1e-12)
        middle = (trees.outputs(x[[n]]) + trees.outputs(r)) / 2
        owned = (turns[:, n] * middle).sum(axis=2).mean(axis=1) - found.moved[:, n]
        np.testing.assert_allclose(owned, truth[F:], atol=1e-12)


def test_without_owners_it_is_the_weighted_sum_of_the_shares(trees):
    X, _ = table(90, gaps=0.1, seed=5)
    x, r = X[:12], X[12:]  # more references than a word has bits
    weights, _ = drawn(len(x), len(r), len(trees.base), seed=2)
    found = tree_pull(trees, x, r, weights)
    due = np.einsum("nrk,nrkf->nf", weights, tree_shap(trees, x, r)) / len(r)
    np.testing.assert_allclose(found.values, due, atol=1e-12)
    assert found.moved.shape == (0, len(x))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 4), references=st.integers(1, 20))
def test_values_sum_to_the_weighted_outputs_and_what_the_owners_lack(seed, rows, references):
    trees = WOOD
    X, _ = table(rows + references, gaps=0.2, seed=seed)
    x, r = X[:rows], X[rows:]
    weights, turns = drawn(rows, references, len(trees.base), seed)
    found = tree_pull(trees, x, r, weights, turns)
    step = trees.outputs(x)[:, None] - trees.outputs(r)[None]
    due = (weights * step).sum(axis=2).mean(axis=1) + found.moved.sum(axis=0)
    np.testing.assert_allclose(found.values.sum(axis=1), due, atol=1e-12)


def test_a_row_alone_has_the_bits_it_has_among_others(trees):
    X, _ = table(40, seed=7)
    weights, turns = drawn(37, 3, len(trees.base), seed=3)
    together = tree_pull(trees, X[3:], X[:3], weights, turns)
    for row in (0, 17, 36):
        one = slice(row, row + 1)
        alone = tree_pull(trees, X[3:][one], X[:3], weights[one], turns[:, one])
        np.testing.assert_array_equal(alone.values[0], together.values[row])
        np.testing.assert_array_equal(alone.moved[:, 0], together.moved[:, row])


def test_a_column_no_tree_reads_and_a_row_that_is_the_reference_get_exactly_nothing(trees):
    X, _ = table(8, seed=8)
    weights, turns = drawn(8, 4, len(trees.base), seed=4)
    found = tree_pull(trees, X, X[:4], weights, turns)
    assert (found.values[:, 5] == 0).all()
    same = tree_pull(trees, X[:1], X[:1], weights[:1, :1], turns[:, :1, :1])
    assert not same.values.any()
    assert not same.moved.any()

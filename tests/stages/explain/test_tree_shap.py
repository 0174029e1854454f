"""Node arrays say what the libraries say, and their Shapley values are the exact ones."""

from dataclasses import replace
from itertools import combinations
from math import factorial

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from stages.explain.tree_shap import tree_shap
from stages.explain.trees import LEAF, Trees

F = 6


def table(n=1500, gaps=0.1, seed=0):
    """Columns 0-3 matter, 4 is noise, 5 is constant; coarse values, so that splits hit them."""
    rng = np.random.default_rng(seed)
    X = (rng.integers(-12, 13, size=(n, F)) / 8).astype("float32")
    X[:, 5] = 1
    score = X[:, 0] + X[:, 1] * X[:, 2] + np.abs(X[:, 3]) + rng.normal(size=n)
    X[:, :5][rng.random((n, 5)) < gaps] = np.nan
    return X, np.digitize(score, np.quantile(score, [0.3, 0.6]))


def boosted(gaps=0.1, **settings):
    defaults = {"n_estimators": 12, "num_leaves": 9, "n_jobs": 1, "verbosity": -1}
    return lightgbm.LGBMClassifier(**defaults | settings).fit(*table(gaps=gaps))


def xgboosted(gaps=0.1, **settings):
    defaults = {"n_estimators": 12, "max_depth": 4, "n_jobs": 1}
    return xgboost.XGBClassifier(**defaults | settings).fit(*table(gaps=gaps))


def forest(gaps=0.1, kind=RandomForestClassifier, **settings):
    defaults = {"n_estimators": 15, "max_depth": 5, "random_state": 0}
    return kind(**defaults | settings).fit(*table(gaps=gaps))


LIBRARIES = {
    "lightgbm": (
        boosted,
        lambda m: Trees.from_lightgbm(m.booster_),
        lambda m, X: m.booster_.predict(X, raw_score=True),
        1e-9,
    ),
    "xgboost": (
        xgboosted,
        lambda m: Trees.from_xgboost(m.get_booster()),
        lambda m, X: m.get_booster().predict(xgboost.DMatrix(X), output_margin=True),
        1e-5,  # XGBoost sums in float32
    ),
    "forest": (forest, Trees.from_forest, lambda m, X: m.predict_proba(X), 1e-12),
}


@pytest.fixture(scope="module", params=LIBRARIES)
def trained(request):
    train, convert, score, tolerance = LIBRARIES[request.param]
    model = train()
    return model, convert(model), lambda X: score(model, X), tolerance


def shapley(trees, x, r):
    """By definition: the mean over coalitions of what a column adds; shape (K, F)."""
    shares = np.zeros((len(trees.base), len(x)))
    for column in range(len(x)):
        others = [c for c in range(len(x)) if c != column]
        for size in range(len(x)):
            weight = factorial(size) * factorial(len(x) - size - 1) / factorial(len(x))
            for coalition in combinations(others, size):
                without = r.copy()
                without[list(coalition)] = x[list(coalition)]
                joined = without.copy()
                joined[column] = x[column]
                low, high = trees.outputs(np.stack([without, joined]))
                shares[:, column] += weight * (high - low)
    return shares


def test_node_arrays_give_the_scores_of_the_library(trained):
    _, trees, score, tolerance = trained
    X, _ = table(seed=1)  # with gaps, and with values that stand exactly on thresholds
    np.testing.assert_allclose(trees.outputs(X), score(X), rtol=0, atol=tolerance)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_value_on_a_threshold_goes_where_the_library_sends_it(library):
    train, convert, score, tolerance = LIBRARIES[library]
    model = train()
    trees = convert(model)
    split = (trees.feature >= 0) & np.isfinite(trees.threshold)  # inf: present or missing
    rows = np.zeros((3 * split.sum(), F), dtype="float32")
    at = trees.threshold[split].astype("float32")
    around = [at, np.nextafter(at, np.float32(-9)), np.nextafter(at, np.float32(9))]
    rows[np.arange(len(rows)), np.tile(trees.feature[split], 3)] = np.concatenate(around)
    np.testing.assert_allclose(trees.outputs(rows), score(model, rows), rtol=0, atol=tolerance)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_gap_that_training_never_saw_goes_where_the_library_sends_it(library):
    train, convert, score, tolerance = LIBRARIES[library]
    model = train(gaps=0)
    X, _ = table(gaps=0.3, seed=2)
    np.testing.assert_allclose(convert(model).outputs(X), score(model, X), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "trees",
    [
        lambda: Trees.from_xgboost(xgboosted(gamma=25.0).get_booster()),
        lambda: Trees.from_forest(forest(max_leaf_nodes=9, max_depth=None)),
        lambda: Trees.from_forest(forest(kind=ExtraTreesClassifier)),
        lambda: Trees.from_lightgbm(boosted(min_child_samples=800).booster_),
    ],
    ids=["pruned", "best first", "extra trees", "stumps without a split"],
)
def test_odd_shapes_of_trees_add_up_too(trees):
    X, _ = table(60, seed=3)
    grown = trees()
    shares = tree_shap(grown, X[:20], X[20:25])
    out = grown.outputs(X)
    np.testing.assert_allclose(shares.sum(3), out[:20, None] - out[None, 20:25], atol=1e-9)


def test_shares_are_the_shapley_values_by_definition(trained):
    _, trees, _, _ = trained
    X, _ = table(8, gaps=0.3, seed=4)
    shares = tree_shap(trees, X[:4], X[4:])
    for n in range(4):
        for r in range(4):
            np.testing.assert_allclose(shares[n, r], shapley(trees, X[n], X[4 + r]), atol=1e-12)


def test_shares_add_up_for_every_reference_and_class(trained):
    _, trees, score, tolerance = trained
    X, _ = table(80, seed=5)
    shares = tree_shap(trees, X[:60], X[60:])
    raw, own = score(X), trees.outputs(X)
    np.testing.assert_allclose(shares.sum(3), own[:60, None] - own[None, 60:], atol=1e-9)
    np.testing.assert_allclose(
        shares.sum(3), raw[:60, None] - raw[None, 60:], atol=max(2 * tolerance, 1e-9)
    )


def test_a_column_no_tree_reads_gets_nothing_and_a_row_is_its_own_reference(trained):
    _, trees, _, _ = trained
    X, _ = table(20, seed=6)
    assert (tree_shap(trees, X, X[:5])[..., 5] == 0).all()
    assert (tree_shap(trees, X[:1], X[:1]) == 0).all()


def test_a_row_alone_gets_the_bits_it_gets_among_others(trained):
    _, trees, _, _ = trained
    X, _ = table(40, seed=7)
    together = tree_shap(trees, X, X[:3])
    for row in (0, 17, 39):
        assert (tree_shap(trees, X[[row]], X[:3])[0] == together[row]).all()
        assert (trees.outputs(X[[row]])[0] == trees.outputs(X)[row]).all()


def test_it_agrees_with_shap_where_shap_is_right():
    shap = pytest.importorskip("shap")
    X, _ = table(30, gaps=0, seed=8)
    background = X[20:]
    models = {
        "lightgbm": (boosted(gaps=0), lambda m: Trees.from_lightgbm(m.booster_)),
        "xgboost": (xgboosted(gaps=0), lambda m: Trees.from_xgboost(m.get_booster())),
        "forest": (forest(gaps=0), Trees.from_forest),
    }
    for name, (model, convert) in models.items():
        theirs = shap.TreeExplainer(model, background).shap_values(X[:20])
        ours = tree_shap(convert(model), X[:20], background).mean(axis=1).swapaxes(1, 2)
        assert theirs.shape == ours.shape == (20, F, 3), name
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=name)


def test_the_sum_over_classes_that_shap_returns_for_a_booster_is_not_ours():
    # shap 0.51 on a multiclass Booster with background: (n, F), the classes summed, no warning
    shap = pytest.importorskip("shap")
    model, (X, _) = boosted(gaps=0), table(20, gaps=0, seed=9)
    theirs = np.asarray(shap.TreeExplainer(model.booster_, X[10:]).shap_values(X[:10]))
    ours = tree_shap(Trees.from_lightgbm(model.booster_), X[:10], X[10:]).mean(axis=1)
    assert ours.shape == (10, 3, F)
    if theirs.ndim == 2:  # the fault is there: its numbers are of no class
        np.testing.assert_allclose(ours.sum(axis=1), theirs, atol=1e-6)
    else:  # it has been mended upstream
        np.testing.assert_allclose(ours.swapaxes(1, 2), theirs, atol=1e-6)


def test_more_references_than_a_word_has_bits_are_each_their_own():
    trees = Trees.from_lightgbm(boosted().booster_)
    X, _ = table(150, seed=9)
    together = tree_shap(trees, X[:3], X[3:])
    assert together.shape == (3, 147, 3, F)
    for r in (0, 63, 64, 146):
        np.testing.assert_array_equal(
            tree_shap(trees, X[:3], X[3 + r : 4 + r])[:, 0], together[:, r]
        )


def test_what_is_kept_of_one_background_is_not_told_of_another(trained):
    _, trees, _, _ = trained
    X, _ = table(30, seed=11)
    one = tree_shap(trees, X[:4], X[10:14])
    other = tree_shap(trees, X[:4], X[20:24])
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(tree_shap(trees, X[:4], X[10:14]), one)


def test_the_libraries_own_contributions_come_in_two_shapes_and_ours_in_one():
    # LightGBM: (n, K * (F + 1)) flat; XGBoost: (n, K, F + 1); the last one of each is the bias
    X, _ = table(5, gaps=0, seed=12)
    light, extreme = boosted(gaps=0), xgboosted(gaps=0)
    flat = light.booster_.predict(X, pred_contrib=True)
    cube = extreme.get_booster().predict(xgboost.DMatrix(X), pred_contribs=True)
    assert flat.shape == (5, 3 * (F + 1))
    assert cube.shape == (5, 3, F + 1)
    for trees in (Trees.from_lightgbm(light.booster_), Trees.from_xgboost(extreme.get_booster())):
        assert tree_shap(trees, X, X[:2]).shape == (5, 2, 3, F)


def test_reasons_along_the_training_paths_are_another_question():
    """Path-dependent values have another baseline: the two must not meet in one chain."""
    X, _ = table(60, gaps=0, seed=13)
    model = boosted(gaps=0)
    trees = Trees.from_lightgbm(model.booster_)
    bias = model.booster_.predict(X, pred_contrib=True).reshape(60, 3, F + 1)[0, :, -1]
    ours = trees.outputs(X[:1]) - tree_shap(trees, X[:1], X[1:]).mean(axis=1).sum(axis=2)
    np.testing.assert_allclose(ours[0], trees.outputs(X[1:]).mean(axis=0), atol=1e-9)
    assert np.abs(ours[0] - bias).max() > 1e-3


def test_the_base_value_of_xgboost_does_not_enter():
    # shap#4495: its expected value changes after the first call; ours are differences
    extreme = xgboosted(gaps=0)
    X, _ = table(12, gaps=0, seed=14)
    trees = Trees.from_xgboost(extreme.get_booster())
    moved = replace(trees, base=trees.base + 5.0)
    np.testing.assert_array_equal(tree_shap(trees, X[:4], X[4:]), tree_shap(moved, X[:4], X[4:]))


def test_a_path_over_too_many_columns_is_refused():
    wide = 65
    rng = np.random.default_rng(0)
    chain = np.arange(wide)
    left = np.concatenate([np.arange(1, wide + 1), np.full(wide + 1, LEAF)])
    right = np.concatenate([wide + 1 + chain, np.full(wide + 1, LEAF)])
    trees = Trees(
        feature=np.concatenate([chain, np.full(wide + 1, LEAF)]),
        threshold=np.zeros(2 * wide + 1),
        left=left,
        right=right,
        missing_left=np.zeros(2 * wide + 1, dtype=bool),
        value=rng.normal(size=(2 * wide + 1, 1)),
        roots=np.array([0]),
        target=np.array([0]),
        base=np.zeros(1),
    )
    X = rng.normal(size=(3, wide))
    with pytest.raises(ValueError, match="65 different columns"):
        tree_shap(trees, X[:1], X[1:])
    cut = {n: getattr(trees, n) for n in Trees.__dataclass_fields__ if n != "depth"}
    cut["feature"] = np.where(cut["feature"] == wide - 1, 0, cut["feature"])  # 64 fit
    shares = tree_shap(Trees(**cut), X[:1], X[1:])
    out = Trees(**cut).outputs(X)
    np.testing.assert_allclose(shares.sum(axis=3), out[:1, None] - out[None, 1:], atol=1e-9)


@st.composite
def random_trees(draw):
    """Trees with a column several times on one path, thresholds on the values of the rows."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns = {name: [] for name in ("feature", "threshold", "left", "right", "value")}
    roots = []

    def grow(depth):
        node = len(columns["feature"])
        for name in columns:
            columns[name].append(LEAF)
        if depth == 0 or rng.random() < 0.2:
            columns["value"][node] = rng.normal(size=2)
            return node
        columns["value"][node] = np.zeros(2)
        columns["feature"][node], columns["threshold"][node] = rng.integers(4), rng.integers(3)
        columns["left"][node], columns["right"][node] = grow(depth - 1), grow(depth - 1)
        return node

    for _ in range(draw(st.integers(1, 3))):
        roots.append(grow(draw(st.integers(0, 6))))
    missing_left = rng.random(len(columns["feature"])) < 0.5
    return Trees(
        **{name: np.array(values) for name, values in columns.items()},
        missing_left=missing_left,
        roots=np.array(roots),
        target=np.zeros(len(roots)),
        base=rng.normal(size=2),
        strict=draw(st.booleans()),
    )


@settings(max_examples=40, deadline=None)
@given(random_trees(), st.integers(0, 2**32 - 1))
def test_any_trees_are_split_exactly(trees, seed):
    rows = np.random.default_rng(seed).choice([0, 1, 2, np.nan], size=(2, 4)).astype("float32")
    shares = tree_shap(trees, rows[:1], rows[1:])[0, 0]
    np.testing.assert_allclose(shares, shapley(trees, *rows), atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(random_trees(), st.integers(0, 2**32 - 1))
def test_twice_the_leaves_are_twice_the_shares_and_swapped_columns_swap_them(trees, seed):
    rows = np.random.default_rng(seed).choice([0, 1, 2, np.nan], size=(6, 4)).astype("float32")
    shares = tree_shap(trees, rows[:4], rows[4:])
    parts = {n: getattr(trees, n) for n in Trees.__dataclass_fields__ if n != "depth"}
    double = Trees(**parts | {"value": 2 * trees.value})
    np.testing.assert_array_equal(tree_shap(double, rows[:4], rows[4:]), 2 * shares)
    swap = np.array([1, 0, 2, 3])
    renamed = np.where(trees.feature < 0, LEAF, swap[trees.feature])
    swapped = tree_shap(Trees(**parts | {"feature": renamed}), rows[:4][:, swap], rows[4:][:, swap])
    np.testing.assert_array_equal(swapped[..., swap], shares)


def with_categories():
    model = lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbosity=-1)
    return model.fit(*table(gaps=0), categorical_feature=[0])


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda: Trees.from_lightgbm(with_categories().booster_), "categorical"),
        (lambda: Trees.from_lightgbm(boosted(zero_as_missing=True).booster_), "zero as missing"),
        (
            lambda: Trees.from_lightgbm(boosted(gaps=0, linear_tree=True).booster_),
            "linear leaves",
        ),
        (
            lambda: Trees.from_lightgbm(
                boosted(boosting_type="rf", subsample=0.5, subsample_freq=1).booster_
            ),
            "averages odds",
        ),
        (lambda: Trees.from_xgboost(xgboosted(booster="dart").get_booster()), "dart"),
        (
            lambda: Trees.from_xgboost(xgboosted(multi_strategy="multi_output_tree").get_booster()),
            "vector leaves",
        ),
    ],
    ids=["categories", "zero as missing", "linear", "lightgbm forest", "dart", "vector leaves"],
)
def test_trees_that_node_arrays_cannot_say_are_refused(convert, message):
    with pytest.raises(ValueError, match=message):
        convert()


def test_arrays_that_point_outside_are_refused():
    sound = {
        "feature": [0, LEAF, LEAF],
        "threshold": [0.0, 0.0, 0.0],
        "left": [1, LEAF, LEAF],
        "right": [2, LEAF, LEAF],
        "missing_left": [True, False, False],
        "value": [[0.0], [1.0], [2.0]],
        "roots": [0],
        "target": [0],
        "base": [0.0],
    }
    sound = {name: np.array(values) for name, values in sound.items()}
    assert Trees(**sound).depth == 1
    broken = [
        {"left": np.array([9, LEAF, LEAF])},
        {"left": np.array([0, LEAF, LEAF])},
        {"roots": np.array([3])},
        {"target": np.array([1])},
        {"threshold": np.zeros(2)},
        {"value": np.zeros(3)},
    ]
    for change in broken:
        with pytest.raises(ValueError, match="do not form trees"):
            Trees(**sound | change)
    with pytest.raises(ValueError, match="split on column 0, got shape"):
        Trees(**sound).outputs(np.zeros((3, 0)))

"""One form for every tree ensemble: node arrays that are predicted, explained and stored."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import lightgbm
import numpy as np
import xgboost
from numba import njit
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

LEAF = -1

# bits of LightGBM's decision_type (include/LightGBM/tree.h)
CATEGORICAL, DEFAULT_LEFT, ZERO_AS_MISSING, NAN_AS_MISSING = 1, 2, 4, 8
ZERO = float(np.float32(1e-35))  # LightGBM reads values up to this size as 0


class Nodes(NamedTuple):
    """The arrays of `Trees` as the numba kernels take them; unchecked."""

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray
    roots: np.ndarray
    target: np.ndarray
    base: np.ndarray
    strict: bool


@dataclass(frozen=True)
class Trees:
    """Binary trees on numeric columns as flat arrays; outputs are sums of leaf values.

    Parameters
    ----------
    feature : int32 ndarray of shape (nodes,)
        Column on which a node splits, -1 for a leaf.
    threshold : float64 ndarray of shape (nodes,)
    left, right : int32 ndarray of shape (nodes,)
        Numbers of the children, above that of their parent; -1 for a leaf.
    missing_left : bool ndarray of shape (nodes,)
        Whether a NaN goes left.
    value : float64 ndarray of shape (nodes, V)
        What a leaf adds to V neighbouring outputs: V = 1 if boosted, V = K for a forest.
    roots : int32 ndarray of shape (trees,)
    target : int32 ndarray of shape (trees,)
        First output that a tree adds to.
    base : float64 ndarray of shape (K,)
        Where the sums start.
    strict : bool
        Left is ``x < threshold`` (XGBoost) rather than ``x <= threshold`` (LightGBM,
        scikit-learn). Rows are read as float32 in either case, as the libraries do.

    Raises
    ------
    ValueError
        If an array points outside of the others: the kernels do not check.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray
    roots: np.ndarray
    target: np.ndarray
    base: np.ndarray
    strict: bool = False
    depth: int = field(init=False)  # splits above the deepest leaf

    def __post_init__(self) -> None:
        dtypes = {"feature": "int32", "threshold": "float64", "left": "int32", "right": "int32"}
        dtypes |= {"missing_left": "bool", "value": "float64", "roots": "int32"}
        dtypes |= {"target": "int32", "base": "float64"}
        for name, dtype in dtypes.items():
            array = np.require(getattr(self, name), dtype, ["C", "W", "O"])
            object.__setattr__(self, name, array)
        nodes = np.arange(len(self.feature))
        split = self.feature >= 0
        sizes = {len(getattr(self, name)) for name in list(dtypes)[:6]}
        children = [side[split] for side in (self.left, self.right)]
        sound = (
            sizes == {len(nodes)}
            and len(self.roots) == len(self.target)
            and self.value.ndim == 2
            and all(((c > nodes[split]) & (c < len(nodes))).all() for c in children)
            and ((self.roots >= 0) & (self.roots < len(nodes))).all()
            and ((self.target >= 0) & (self.target + self.value.shape[1] <= len(self.base))).all()
        )
        if not sound:
            raise ValueError("node arrays do not form trees: a number points outside of them")
        object.__setattr__(self, "depth", int(_depth(self.feature, self.left, self.right)))

    @property
    def nodes(self) -> Nodes:
        """The arrays, in the form in which kernels take them."""
        return Nodes(*(getattr(self, name) for name in Nodes._fields))

    def outputs(self, X: np.ndarray) -> np.ndarray:
        """Base plus leaf values of each row.

        Parameters
        ----------
        X : array of shape (N, F)
            Read as float32; NaN is missing.

        Returns
        -------
        float64 ndarray of shape (N, K)
            Summed tree by tree in float64: a row's bits do not depend on the other rows.
        """
        return _outputs(self.nodes, self.rows(X))

    def outputs_of(self, references: np.ndarray) -> np.ndarray:
        """`outputs` of rows that are asked about again and again."""
        return np.asarray(self.remembered(self.rows(references), _outputs))

    def remembered(self, rows: np.ndarray, find: Callable[[Nodes, np.ndarray], Any]) -> Any:
        """What `find` says of these rows; kept until it is asked of others.

        Parameters
        ----------
        rows : float32 ndarray of shape (R, F)
            See `rows`.
        find : callable of (Nodes, rows)
        """
        asked, kept = (rows.shape, rows.tobytes()), vars(self).setdefault("_held", {})
        held = kept.get(find)
        if held is None or held[0] != asked:
            held = kept[find] = asked, find(self.nodes, rows)  # one name: threads never mix two
        return held[1]

    def rows(self, X: np.ndarray) -> np.ndarray:
        """`X` as the kernels read it; refused if it has fewer columns than the trees split on."""
        # pandas hands out read-only arrays, for which the kernels would be compiled once more
        X = np.require(X, "float32", ["C", "W"])
        if X.ndim != 2 or X.shape[1] <= self.feature.max(initial=-1):
            raise ValueError(f"trees split on column {self.feature.max()}, got shape {X.shape}")
        return X

    @classmethod
    def from_lightgbm(cls, booster: lightgbm.Booster) -> Self:
        """Trees of a boosted LightGBM model; outputs are its raw scores.

        Raises
        ------
        ValueError
            For what has no plain numeric splits or no plain sums: categorical columns, linear
            leaves, zero as missing, a random forest.
        """
        header, *blocks = booster.model_to_string(num_iteration=-1).split("\nTree=")
        if "\naverage_output" in header:
            raise ValueError("a LightGBM random forest averages odds; use scikit-learn's forest")
        parts = [_lightgbm_tree(_fields(block)) for block in blocks]
        n_outputs = booster.num_model_per_iteration()
        return cls(
            **_joined(parts),
            target=np.arange(len(parts)) % n_outputs,
            base=np.zeros(n_outputs),
        )

    @classmethod
    def from_xgboost(cls, booster: xgboost.Booster) -> Self:
        """Trees of a boosted XGBoost model; outputs are its margins.

        XGBoost sums in float32, so the two differ by rounding: about 1e-6 of the margin.

        Raises
        ------
        ValueError
            For dropped trees (dart), linear boosters, categorical columns and vector leaves.
        """
        learner = json.loads(bytes(booster.save_raw("json")))["learner"]
        if learner["gradient_booster"]["name"] != "gbtree":
            raise ValueError(f"booster is {learner['gradient_booster']['name']}, need gbtree")
        model = learner["gradient_booster"]["model"]
        base = np.atleast_1d(json.loads(learner["learner_model_param"]["base_score"]))
        return cls(
            **_joined([_xgboost_tree(tree) for tree in model["trees"]]),
            target=np.array(model["tree_info"]),
            base=base.astype("float32"),  # rounded as XGBoost holds it
            strict=True,
        )

    @classmethod
    def from_forest(cls, forest: RandomForestClassifier | ExtraTreesClassifier) -> Self:
        """Trees of a scikit-learn forest; outputs are its K mean probabilities."""
        parts = []
        for tree in (estimator.tree_ for estimator in forest.estimators_):
            odds = tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True)
            leaf = tree.children_left == LEAF
            parts.append(
                {
                    "feature": np.where(leaf, LEAF, tree.feature),
                    "threshold": np.where(leaf, 0.0, tree.threshold),
                    "left": tree.children_left,
                    "right": tree.children_right,
                    "missing_left": tree.missing_go_to_left.astype(bool) & ~leaf,
                    "value": np.where(leaf[:, None], odds / len(forest.estimators_), 0.0),
                }
            )
        return cls(
            **_joined(parts),
            target=np.zeros(len(parts)),
            base=np.zeros(len(forest.classes_)),
        )


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _lightgbm_tree(text: dict[str, str]) -> dict[str, np.ndarray]:
    """Splits come first, then leaves; LightGBM points to leaf i by ``~i``."""
    leaves = int(text["num_leaves"])
    splits = leaves - 1
    if text.get("num_cat", "0") != "0" or text.get("is_linear", "0") != "0":
        raise ValueError("categorical splits and linear leaves have no plain node arrays")

    def numbers(name: str, dtype: str) -> np.ndarray:
        words = text.get(name, "").split() if splits else []
        return np.array(words, dtype=dtype)

    threshold = numbers("threshold", "float64")
    # so that what it reads as 0 goes where 0 goes
    threshold[(threshold >= -ZERO) & (threshold < 0)] = np.nextafter(-ZERO, -1)
    threshold[(threshold >= 0) & (threshold < ZERO)] = ZERO
    kind = numbers("decision_type", "int64")
    if (kind & (CATEGORICAL | ZERO_AS_MISSING)).any():
        raise ValueError("LightGBM trees that read zero as missing have no plain node arrays")
    # a column without NaN in training reads a later NaN as 0
    missing_left = np.where(kind & NAN_AS_MISSING, (kind & DEFAULT_LEFT) > 0, threshold >= 0)
    children = [numbers(side, "int64") for side in ("left_child", "right_child")]
    left, right = (np.where(child < 0, splits + ~child, child) for child in children)
    ends = np.full(leaves, LEAF)
    value = np.array(text["leaf_value"].split(), dtype="float64")
    return {
        "feature": np.concatenate([numbers("split_feature", "int64"), ends]),
        "threshold": np.concatenate([threshold, np.zeros(leaves)]),
        "left": np.concatenate([left, ends]),
        "right": np.concatenate([right, ends]),
        "missing_left": np.concatenate([missing_left, np.zeros(leaves, dtype=bool)]),
        "value": np.concatenate([np.zeros(splits), value])[:, None],
    }


def _xgboost_tree(tree: dict) -> dict[str, np.ndarray]:
    if tree["categories"] or int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise ValueError("categorical splits and vector leaves have no plain node arrays")
    left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
    leaf = left == LEAF
    # the text is the shortest that gives back the float32
    condition = np.array(tree["split_conditions"], dtype="float32").astype("float64")
    return {
        "feature": np.where(leaf, LEAF, tree["split_indices"]),
        "threshold": np.where(leaf, 0.0, condition),
        "left": left,
        "right": right,
        "missing_left": np.array(tree["default_left"], dtype=bool) & ~leaf,
        "value": np.where(leaf, condition, 0.0)[:, None],
    }


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """One set of arrays for all trees: children are renumbered by the nodes before them."""
    sizes = [len(part["feature"]) for part in parts]
    roots = np.cumsum([0, *sizes[:-1]])
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    offset = np.repeat(roots, sizes)
    for side in ("left", "right"):
        joined[side] = np.where(joined[side] < 0, LEAF, joined[side] + offset)
    return joined | {"roots": roots}


@njit(cache=True)
def _depth(feature: np.ndarray, left: np.ndarray, right: np.ndarray) -> int:
    depth = np.zeros(len(feature) + 1, dtype=np.int64)
    for node in range(len(feature)):
        if feature[node] >= 0:  # children stand behind their parent
            depth[left[node]] = depth[right[node]] = depth[node] + 1
    return depth.max()


@njit(cache=True)
def step(nodes: Nodes, node: int, row: np.ndarray) -> int:
    """The child to which `row` goes from a split; a float32 compared as float64 loses nothing."""
    x, threshold = row[nodes.feature[node]], nodes.threshold[node]
    if np.isnan(x):
        left = nodes.missing_left[node]
    elif nodes.strict:
        left = x < threshold
    else:
        left = x <= threshold
    return nodes.left[node] if left else nodes.right[node]


@njit(cache=True)
def _outputs(nodes: Nodes, X: np.ndarray) -> np.ndarray:
    out = np.empty((X.shape[0], nodes.base.shape[0]))
    for row in range(X.shape[0]):
        out[row] = nodes.base
        for tree in range(nodes.roots.shape[0]):
            node = nodes.roots[tree]
            while nodes.feature[node] >= 0:
                node = step(nodes, node, X[row])
            for k in range(nodes.value.shape[1]):
                out[row, nodes.target[tree] + k] += nodes.value[node, k]
    return out

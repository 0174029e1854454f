"""What the filter adds to each tree library: logits, reasons, importance, a file without pickle."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, Self

import lightgbm
import numpy as np
import xgboost
from safetensors.numpy import load, save
from sklearn.base import ClassifierMixin, clone
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from stages.base import ArtifactError
from stages.explain.tree_pull import Pulled, tree_pull
from stages.explain.tree_shap import tree_shap
from stages.explain.trees import Trees
from stages.filter.regression import RegressionMember

SELL, HOLD, BUY = 0, 1, 2


class Member(Protocol):
    """A trained tree ensemble on K = 3 classes in the order sell, hold, buy."""

    suffix: ClassVar[str]

    @classmethod
    def grown(cls, estimator: ClassifierMixin) -> Self:
        """Take over what a fitted estimator of the library learnt."""
        ...

    @classmethod
    def read(cls, content: bytes, estimator: ClassifierMixin) -> Self:
        """Take back what `content` gave, with the threads of the template `estimator`.

        Check its hash first: damaged trees crash loaders.
        """
        ...

    @property
    def content(self) -> bytes:
        """The model in its native format."""
        ...

    def logits(self, X: np.ndarray) -> np.ndarray:
        """Log-odds of sell and buy against hold: (N, F) float32 to (N, 2) float64."""
        ...

    def shares(self, X: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Share of each column in the logits less those of each reference: (N, R, 2, F)."""
        ...

    def pulled(
        self, X: np.ndarray, references: np.ndarray, weights: np.ndarray, turns: np.ndarray
    ) -> Pulled:
        """Share of each column in the sum of the logits by `weights` (N, R, 2), see `tree_pull`."""
        ...


def fit_member(
    estimator: Any,
    X: np.ndarray,
    classes: np.ndarray,
    weight: np.ndarray,
    moves: np.ndarray | None = None,
) -> tuple[Member | RegressionMember, np.ndarray]:
    """Train a copy of `estimator`; return it as a member, and the gain of each column.

    Parameters
    ----------
    estimator : estimator of a library in `KINDS`
    X : float32 ndarray of shape (n, F)
    classes : int ndarray of shape (n,)
        0, 1, 2 for sell, hold, buy; each of them present.
    weight : float64 ndarray of shape (n,)
    moves : float64 ndarray of shape (n,), optional
        What a regressor learns, see `stages.filter.regression.standing`; NaN is left out.

    Returns
    -------
    Member
    float64 ndarray of shape (F,)
        Total gain (impurity decrease for a forest), normalised to sum 1; zeros for stumps only.
    """
    model = clone(estimator)
    rows = getattr(model, "max_samples", None)
    if isinstance(rows, int) and rows > len(X):
        # scikit-learn would draw rows over and over until the trees are all alike
        model.set_params(max_samples=len(X))
    if isinstance(model, lightgbm.LGBMRegressor):
        assert moves is not None
        known = np.flatnonzero(np.isfinite(moves)) if np.isnan(moves).any() else slice(None)
        model.fit(X[known], moves[known], sample_weight=weight[known])
        shares = np.bincount(classes, weight, 3) / weight.sum()
        return RegressionMember.linked(model, shares), _gain(model, X.shape[1])
    model.fit(X, classes, sample_weight=weight)
    return kind(estimator).grown(model), _gain(model, X.shape[1])


def regresses(estimator: object) -> bool:
    """Whether it learns from the size of the moves, not from the sides."""
    return kind(estimator) is RegressionMember


def kind(estimator: object) -> Any:
    """How models of this library are read, stored and explained.

    Raises
    ------
    ValueError
        If the library is none of those in `KINDS`, or its settings leave no plain log-odds.
    """
    found = next(
        (member for library, member in KINDS.items() if isinstance(estimator, library)), None
    )
    if found is None:
        names = [library.__name__ for library in KINDS]
        raise ValueError(f"members must be one of {names}, got {type(estimator).__name__}")
    boosting = {"boosting_type": ("gbdt", "goss"), "booster": (None, "gbtree")}
    for setting, allowed in boosting.items():
        value = getattr(estimator, setting, allowed[0])
        if value not in allowed:
            raise ValueError(f"{setting} must be one of {allowed}, got {value!r}")
    return found


@dataclass(frozen=True)
class LightGBMMember:
    """Raw scores of a LightGBM booster, less that of hold."""

    content: bytes
    jobs: int = 1
    suffix: ClassVar[str] = "txt"

    @classmethod
    def grown(cls, estimator: lightgbm.LGBMClassifier) -> Self:
        return cls(estimator.booster_.model_to_string(num_iteration=-1).encode(), _jobs(estimator))

    @classmethod
    def read(cls, content: bytes, estimator: ClassifierMixin) -> Self:
        return cls(content, _jobs(estimator))

    @cached_property
    def booster(self) -> lightgbm.Booster:
        # read back from its text even when just trained, so that stored and live are the same
        return lightgbm.Booster(model_str=self.content.decode())

    @cached_property
    def trees(self) -> Trees:
        return Trees.from_lightgbm(self.booster)

    def logits(self, X: np.ndarray) -> np.ndarray:
        raw = self.booster.predict(X, raw_score=True, num_threads=self.jobs)
        return _against_hold(np.asarray(raw), axis=1)

    def shares(self, X: np.ndarray, references: np.ndarray) -> np.ndarray:
        return _against_hold(tree_shap(self.trees, X, references), axis=2)

    def pulled(
        self, X: np.ndarray, references: np.ndarray, weights: np.ndarray, turns: np.ndarray
    ) -> Pulled:
        return tree_pull(self.trees, X, references, _of_scores(weights), _of_scores(turns))


@dataclass(frozen=True)
class XGBoostMember:
    """Margins of an XGBoost booster, less that of hold; float32 sums, so shares miss by 1e-6."""

    content: bytes
    jobs: int = 1
    suffix: ClassVar[str] = "ubj"

    @classmethod
    def grown(cls, estimator: xgboost.XGBClassifier) -> Self:
        return cls(bytes(estimator.get_booster().save_raw("ubj")), _jobs(estimator))

    @classmethod
    def read(cls, content: bytes, estimator: ClassifierMixin) -> Self:
        return cls(content, _jobs(estimator))

    @cached_property
    def booster(self) -> xgboost.Booster:
        booster = xgboost.Booster({"nthread": self.jobs})
        booster.load_model(bytearray(self.content))
        return booster

    @cached_property
    def trees(self) -> Trees:
        return Trees.from_xgboost(self.booster)

    def logits(self, X: np.ndarray) -> np.ndarray:
        raw = self.booster.inplace_predict(X, predict_type="margin")  # no DMatrix: sooner for a row
        return _against_hold(raw.reshape(-1, 3).astype("float64"), axis=1)

    def shares(self, X: np.ndarray, references: np.ndarray) -> np.ndarray:
        return _against_hold(tree_shap(self.trees, X, references), axis=2)

    def pulled(
        self, X: np.ndarray, references: np.ndarray, weights: np.ndarray, turns: np.ndarray
    ) -> Pulled:
        return tree_pull(self.trees, X, references, _of_scores(weights), _of_scores(turns))


@dataclass(frozen=True)
class ForestMember:
    """Log-ratios of a scikit-learn forest's mean probabilities, by node arrays only.

    Attributes
    ----------
    trees : Trees
    floor : float
        Least probability: half a vote of a tree, or half a row of the smallest leaf, whichever
        is less. A forest that never saw a side in a corner has not ruled it out.
    """

    trees: Trees
    floor: float
    suffix: ClassVar[str] = "safetensors"

    @classmethod
    def grown(cls, estimator: RandomForestClassifier | ExtraTreesClassifier) -> Self:
        grown = [tree.tree_ for tree in estimator.estimators_]
        leaf = min(int(t.n_node_samples[t.children_left < 0].min()) for t in grown)
        return cls(Trees.from_forest(estimator), 1 / (2 * max(leaf, len(grown), 3)))

    @classmethod
    def read(cls, content: bytes, estimator: ClassifierMixin) -> Self:
        arrays: dict[str, Any] = load(content)
        floor = float(arrays.pop("floor")[0])
        arrays["missing_left"] = arrays["missing_left"].astype(bool)
        try:
            return cls(Trees(**arrays), floor)
        except (TypeError, ValueError) as error:
            raise ArtifactError(
                f"the forest's arrays do not fit together: {error}",
                code="SV-F29",
                cure="restore the artifact from its source, or train again",
            ) from error

    @property
    def content(self) -> bytes:
        t = self.trees
        arrays = {name: getattr(t, name) for name in ("feature", "threshold", "left", "right")}
        arrays |= {name: getattr(t, name) for name in ("value", "roots", "target", "base")}
        arrays["missing_left"] = t.missing_left.astype("uint8")
        return save(arrays | {"floor": np.array([self.floor])})

    def logits(self, X: np.ndarray) -> np.ndarray:
        return _against_hold(np.log(self._clipped(self.trees.outputs(X))), axis=1)

    def shares(self, X: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Shares in the probabilities, exact, carried through the log by the rescale rule.

        Per class the shares are multiplied by ``(log c(p) - log c(p')) / (p - p')`` with c the
        clip, so they still sum to what the logits do; where p = p' the factor is the slope of
        ``log c`` there. Chen, Lundberg & Lee (2022), Nat. Commun. 13, 4512.
        """
        factor = self._factor(X, references)
        return _against_hold(tree_shap(self.trees, X, references) * factor[..., None], axis=2)

    def pulled(
        self, X: np.ndarray, references: np.ndarray, weights: np.ndarray, turns: np.ndarray
    ) -> Pulled:
        factor = self._factor(X, references)
        parts = (_of_scores(part) * factor for part in (weights, turns))
        return tree_pull(self.trees, X, references, *parts)

    def _factor(self, X: np.ndarray, references: np.ndarray) -> np.ndarray:
        """From a step of a probability to that of its log: (N, R, K)."""
        at_x, at_r = self.trees.outputs(X), self.trees.outputs_of(references)
        step = at_x[:, None] - at_r[None]
        from_r = self._clipped(at_r)[None]
        # log1p keeps the digits when the two are close
        rise = np.log1p((self._clipped(at_x)[:, None] - from_r) / from_r)
        slope = np.where(at_r > self.floor, 1 / from_r[0], 0.0)[None]
        still = step == 0
        return np.asarray(np.where(still, slope, rise / np.where(still, 1.0, step)))

    def _clipped(self, odds: np.ndarray) -> np.ndarray:
        return np.clip(odds, self.floor, 1.0)


KINDS: dict[type, type] = {
    lightgbm.LGBMRegressor: RegressionMember,
    lightgbm.LGBMClassifier: LightGBMMember,
    xgboost.XGBClassifier: XGBoostMember,
    RandomForestClassifier: ForestMember,
    ExtraTreesClassifier: ForestMember,
}


def _jobs(estimator: ClassifierMixin) -> int:
    return estimator.get_params().get("n_jobs") or 1


def _against_hold(scores: np.ndarray, axis: int) -> np.ndarray:
    sides = np.take(scores, [SELL, BUY], axis=axis)
    return sides - np.take(scores, [HOLD], axis=axis)


def _of_scores(weights: np.ndarray) -> np.ndarray:
    """Multipliers (..., 2) of the log-odds against hold as those of the K scores, (..., 3)."""
    return np.stack([weights[..., 0], -weights.sum(axis=-1), weights[..., 1]], axis=-1)


def _gain(model: Any, n_features: int) -> np.ndarray:
    if isinstance(model, lightgbm.LGBMModel):
        gain = model.booster_.feature_importance("gain")
    elif isinstance(model, xgboost.XGBClassifier):
        found = model.get_booster().get_score(importance_type="total_gain")
        gain = np.array([found.get(f"f{column}", 0.0) for column in range(n_features)])
    else:
        gain = model.feature_importances_
    return np.asarray(gain, dtype="float64") / (np.sum(gain) or 1.0)

"""A member that predicts how far an asset moves among the others, told as log-odds of the sides.

Classes tell a large move from a small one of the same side no better than a coin. A regression on
the moves learns from their size too, which is what an information coefficient rewards.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import lightgbm
import numpy as np
import pandas as pd
from scipy.special import ndtri

from stages.base import ArtifactError, DataError
from stages.explain.tree_pull import Pulled, tree_pull
from stages.explain.tree_shap import tree_shap
from stages.explain.trees import Trees

MIN_ASSETS = 3  # labels of a bar, below which it has no spread


def standing(y: pd.DataFrame, unit: np.ndarray | None = None) -> np.ndarray:
    """How far each label's return lies from the mean of its bar, in its bar's deviations: (n,).

    Parameters
    ----------
    y : DataFrame of shape (n, >= 4)
        With `ret`; see `stages.panel.check_labels`.
    unit : float64 ndarray of shape (n,), optional
        What each return is measured in before they are compared, such as the asset's own
        volatility: else the loud ones fill both ends.

    Returns
    -------
    float64 ndarray of shape (n,)
        NaN where the return is, and where a bar has fewer than `MIN_ASSETS` or no spread.

    Raises
    ------
    DataError
        SV-F18 if no label has a standing.
    """
    ret = y["ret"].to_numpy("float64") if "ret" in y else np.full(len(y), np.nan)
    if unit is not None:
        ret = np.divide(ret, unit, out=np.full(len(y), np.nan), where=unit > 0)
    known = np.isfinite(ret)
    bar = np.asarray(y.index.get_level_values("time").factorize()[0])
    count = np.bincount(bar, known)
    filled = np.where(known, ret, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        from_mean = filled - (np.bincount(bar, filled) / count)[bar]
        spread = np.sqrt(np.bincount(bar, np.where(known, from_mean, 0.0) ** 2) / count)[bar]
        place = from_mean / spread
    # a bar that stands still leaves a rounding residue, not a spread
    moved = known & (count >= MIN_ASSETS)[bar] & (spread > 1e-12)
    if not moved.any():
        raise DataError(
            "no label has a return that differs from those of its bar",
            code="SV-F18",
            where=f"{len(y)} labels, {int(known.sum())} with a return",
            why="a member that regresses on returns compares assets of the same time",
            cure="bring more assets, or labels with a return; or leave that member out",
        )
    return np.where(moved, place, np.nan)


def link(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What an expected `standing` says of each side: log-odds of sell and buy against hold.

    The moves of a bar are taken for Gaussian of unit variance about it, cut where the training
    labels were; each log-odds is its tangent at 0, so that shares of an explanation add up.

    Parameters
    ----------
    shares : float64 ndarray of shape (3,)
        Of sell, hold and buy among the labels; each above 0.

    Returns
    -------
    level, slope : float64 ndarray of shape (2,)
    """
    low, high = ndtri(shares[0]), ndtri(1 - shares[2])
    at_low, at_high = (np.exp(-(cut**2) / 2) / np.sqrt(2 * np.pi) for cut in (low, high))
    rise = np.array([-at_low, at_low - at_high, at_high]) / shares  # of each log-probability
    return np.log(shares[[0, 2]] / shares[1]), rise[[0, 2]] - rise[1]


@dataclass(frozen=True)
class RegressionMember:
    """A LightGBM regressor on `standing`, and what its output says of each side.

    Attributes
    ----------
    content : bytes
        A line of JSON with the `link`, then LightGBM's own text.
    jobs : int
    """

    content: bytes
    jobs: int = 1
    suffix: ClassVar[str] = "json.txt"

    @classmethod
    def linked(cls, estimator: lightgbm.LGBMRegressor, shares: np.ndarray) -> Self:
        """Take over a fitted regressor; `shares` are those of sell, hold and buy: shape (3,)."""
        level, slope = link(shares)
        tie = {"level": level.tolist(), "slope": slope.tolist()}
        text = estimator.booster_.model_to_string(num_iteration=-1)
        return cls(f"{json.dumps(tie)}\n{text}".encode(), _jobs(estimator))

    @classmethod
    def read(cls, content: bytes, estimator: Any) -> Self:
        """Take back what `content` gave."""
        member = cls(content, _jobs(estimator))
        try:
            sizes = [len(member.tie[name]) for name in ("level", "slope")]
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged() from error
        if sizes != [2, 2]:
            raise _damaged()
        return member

    @cached_property
    def tie(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = json.loads(self.content.partition(b"\n")[0])
        return found

    @cached_property
    def booster(self) -> lightgbm.Booster:
        return lightgbm.Booster(model_str=self.content.partition(b"\n")[2].decode())

    @cached_property
    def trees(self) -> Trees:
        return Trees.from_lightgbm(self.booster)

    def logits(self, X: np.ndarray) -> np.ndarray:
        """Log-odds of sell and buy against hold: (N, F) float32 to (N, 2) float64."""
        place = np.asarray(self.booster.predict(X, raw_score=True, num_threads=self.jobs))
        return np.array(self.tie["level"]) + place[:, None] * np.array(self.tie["slope"])

    def shares(self, X: np.ndarray, references: np.ndarray) -> np.ndarray:
        """Share of each column in the logits less those of each reference: (N, R, 2, F)."""
        slope = np.array(self.tie["slope"])
        return tree_shap(self.trees, X, references) * slope[:, None]

    def pulled(
        self, X: np.ndarray, references: np.ndarray, weights: np.ndarray, turns: np.ndarray
    ) -> Pulled:
        """Share of each column in the sum of the logits by `weights` (N, R, 2), see `tree_pull`."""
        slope = np.array(self.tie["slope"])
        parts = ((part * slope).sum(axis=-1, keepdims=True) for part in (weights, turns))
        return tree_pull(self.trees, X, references, *parts)


def _jobs(estimator: Any) -> int:
    return estimator.get_params().get("n_jobs") or 1


def _damaged() -> ArtifactError:
    return ArtifactError(
        "a regression member does not begin with its link",
        code="SV-F29",
        cure="restore the artifact from its source, or train again",
    )

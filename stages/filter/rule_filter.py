"""Stage 1, the rules: one ridge logit turns the scores of all rules into a pair of log-odds."""

import logging
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from stages.base import Attribution, DataError, State, fitted
from stages.filter.regression import link, standing
from stages.filter.rows import matrix, refuse_absent_sides
from stages.panel import check_labels, last_rows, named

logger = logging.getLogger(__name__)

CHUNK = 50_000  # rows held twice in memory at once
OUTPUTS = ("filter.rules.z_sell", "filter.rules.z_buy")


@dataclass
class RuleFilter:
    """Weigh what the rules say; the weights are the explanation.

    A rule that is silent at a row (NaN) counts with its mean score of the training rows.

    Parameters
    ----------
    strength : float > 0, default=10
        Ridge penalty on the weights, in units of effective rows; the bias is free.
    learns : {'sides', 'moves'}, default='sides'
        ``sides``: a multinomial logit. ``moves``: least squares on how far an asset moved among
        the others of its bar, in units of its own `scale` where the panel has it; see
        `stages.filter.regression`. Seconds where the logit takes minutes, and it learns from
        the size of the moves; it needs labels with returns.

    Attributes
    ----------
    columns_ : list of Q str
        The ``rule.*`` columns read.
    mean_ : float64 ndarray of shape (Q,)
        Weighted mean score of each rule on the training rows.
    weights_ : float64 ndarray of shape (2, Q)
        Log-odds of sell and buy against hold, per unit of score.
    bias_ : float64 ndarray of shape (2,)
    """

    strength: float = 10.0
    learns: Literal["sides", "moves"] = "sides"

    def __post_init__(self) -> None:
        if self.learns not in get_args(Literal["sides", "moves"]):
            raise ValueError(f"learns must be 'sides' or 'moves', got {self.learns!r}")
        if not 0 < self.strength < np.inf:
            raise ValueError(f"strength must be above 0 and finite, got {self.strength}")

    def fit(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Fit the logit on the rows of `y`.

        Raises
        ------
        DataError
            If there are no rules, `y` lacks a side, or a rule of a logit never speaks.
        """
        refuse_absent_sides(check_labels(y))
        columns = named(panel, "rule")
        if not columns:
            raise DataError(
                "the panel has no rule.* column",
                code="SV-F20",
                cure="add rules to the features, or set filter.rules=null",
            )
        scores = matrix(panel, columns, y.index)
        weight = y["weight"].to_numpy(dtype="float64")
        mean = np.array([_mean(score, weight) for score in scores.T])
        silent = [name for name, value in zip(columns, mean, strict=True) if np.isnan(value)]
        if silent and self.learns == "moves":
            logger.info("rules that never speak count for nothing: %s", ", ".join(silent))
            mean = np.nan_to_num(mean)
        elif silent:
            raise DataError(
                f"rules {silent} have no score on any training row",
                code="SV-F44",
                cure="leave them out, or train on a longer history",
            )
        self.columns_, self.mean_ = columns, mean
        if self.learns == "moves":
            unit = panel["scale"].loc[y.index].to_numpy("float64") if "scale" in panel else None
            self._fit_moves(scores, y, weight, standing(y, unit))
        else:
            self._fit_sides(scores, y, weight)
        self.gain_ = self._gain(scores, weight)
        return self

    def _fit_sides(self, scores: np.ndarray, y: pd.DataFrame, weight: np.ndarray) -> None:
        logit = LogisticRegression(C=1 / self.strength, max_iter=1000, tol=1e-8)
        logit.fit(self._filled(scores), y["side"].to_numpy() + 1, sample_weight=weight)
        self.weights_ = logit.coef_[[0, 2]] - logit.coef_[1]
        self.bias_ = logit.intercept_[[0, 2]] - logit.intercept_[1]

    def _fit_moves(
        self, scores: np.ndarray, y: pd.DataFrame, weight: np.ndarray, moves: np.ndarray
    ) -> None:
        known, rules = np.flatnonzero(np.isfinite(moves)), scores.shape[1]
        gram, pull = self.strength * np.eye(rules), np.zeros(rules)
        for rows in np.array_split(known, len(known) // CHUNK + 1):
            x = self._filled(scores[rows]) - self.mean_
            weighed = x * weight[rows, None]
            gram += weighed.T @ x
            pull += weighed.T @ moves[rows]
        slopes = np.linalg.solve(gram, pull)
        level, slope = link(np.bincount(y["side"].to_numpy() + 1, weight, 3) / weight.sum())
        self.weights_ = slope[:, None] * slopes
        self.bias_ = level - self.weights_ @ self.mean_

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        """Return `filter.rules.z_sell` and `filter.rules.z_buy` (log-odds against hold)."""
        scores = matrix(panel, fitted(self, "columns_"))
        z = np.repeat(self.bias_[None], len(scores), axis=0)
        # rule by rule: a matrix product's bits vary with N
        for score, mean, weight in zip(scores.T, self.mean_, self.weights_.T, strict=True):
            z += np.where(np.isnan(score), mean, score)[:, None] * weight
        return pd.DataFrame(z, panel.index, list(OUTPUTS))

    def update(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Leave the weights as they are: stage 1 follows the market by being refitted."""
        return self

    def attribute(
        self, panel: pd.DataFrame, rows: pd.MultiIndex, references: pd.DataFrame
    ) -> Attribution:
        """Weight times difference in score; exact."""
        columns = fitted(self, "columns_")
        x = self._filled(matrix(panel, columns, rows).astype("float64"))
        r = self._filled(matrix(last_rows(references), columns).astype("float64"))
        values = (x[:, None] - r[None])[:, :, None, :] * self.weights_[None, None]
        return Attribution(OUTPUTS, tuple(columns), values, (), np.empty((len(x), len(r), 2, 0)))

    def importance(self) -> pd.Series:
        """Share of each rule in the spread of the logits, on the training rows; sums to 1."""
        return pd.Series(fitted(self, "gain_"), self.columns_)

    def state(self) -> State:
        """The logit as JSON values."""
        return State(
            {
                "columns": list(fitted(self, "columns_")),
                "mean": self.mean_.tolist(),
                "weights": self.weights_.tolist(),
                "bias": self.bias_.tolist(),
                "gain": self.gain_.tolist(),
            }
        )

    def restore(self, state: State) -> Self:
        """Take back what `state` gave."""
        self.columns_ = list(state.values["columns"])
        self.mean_, self.weights_, self.bias_, self.gain_ = (
            np.array(state.values[name]) for name in ("mean", "weights", "bias", "gain")
        )
        return self

    def _filled(self, scores: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(scores), self.mean_, scores)

    def _gain(self, scores: np.ndarray, weight: np.ndarray) -> np.ndarray:
        spread = np.array(
            [_spread(score, mean, weight) for score, mean in zip(scores.T, self.mean_, strict=True)]
        )
        gain = np.abs(self.weights_).sum(axis=0) * spread
        return gain / (gain.sum() or 1.0)


# column by column: all of them at once would take eight bytes a value several times over


def _mean(score: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean of what is there, NaN where nothing is."""
    spoken = np.isfinite(score)
    total = weight[spoken].sum()
    return float((score[spoken] * weight[spoken]).sum() / total) if total else float("nan")


def _spread(score: np.ndarray, mean: float, weight: np.ndarray) -> float:
    off = np.where(np.isnan(score), 0.0, score - mean)
    return float(np.sqrt((off**2 * weight).sum() / weight.sum()))

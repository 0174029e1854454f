"""Stage 1, the rules: one ridge logit turns the scores of all rules into a pair of log-odds."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from stages.base import Attribution, DataError, State, fitted
from stages.filter.rows import matrix, refuse_absent_sides
from stages.panel import check_labels, last_rows, named

OUTPUTS = ("filter.rules.z_sell", "filter.rules.z_buy")


@dataclass
class RuleFilter:
    """Weigh what the rules say; the weights are the explanation.

    A rule that is silent at a row (NaN) counts with its mean score of the training rows.

    Parameters
    ----------
    strength : float > 0, default=10
        Ridge penalty on the weights, in units of effective rows; the bias is free.

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

    def __post_init__(self) -> None:
        if not 0 < self.strength < np.inf:
            raise ValueError(f"strength must be above 0 and finite, got {self.strength}")

    def fit(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Fit the logit on the rows of `y`.

        Raises
        ------
        DataError
            If there are no rules, one of them never speaks, or `y` lacks a side.
        """
        refuse_absent_sides(check_labels(y))
        columns = named(panel, "rule")
        if not columns:
            raise DataError(
                "the panel has no rule.* column",
                code="SV-F20",
                cure="add rules to the features, or set filter.rules=null",
            )
        scores = matrix(panel, columns, y.index).astype("float64")
        weight = y["weight"].to_numpy(dtype="float64")
        spoken = np.isfinite(scores)
        silent = [name for name, any_ in zip(columns, spoken.any(axis=0), strict=True) if not any_]
        if silent:
            raise DataError(
                f"rules {silent} have no score on any training row",
                code="SV-F44",
                cure="leave them out, or train on a longer history",
            )
        mean = (np.where(spoken, scores, 0.0) * weight[:, None]).sum(axis=0)
        self.columns_ = columns
        self.mean_ = mean / (spoken * weight[:, None]).sum(axis=0)
        logit = LogisticRegression(C=1 / self.strength, max_iter=1000, tol=1e-8)
        logit.fit(self._filled(scores), y["side"].to_numpy() + 1, sample_weight=weight)
        self.weights_ = logit.coef_[[0, 2]] - logit.coef_[1]
        self.bias_ = logit.intercept_[[0, 2]] - logit.intercept_[1]
        self.gain_ = self._gain(scores, weight)
        return self

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        """Return `filter.rules.z_sell` and `filter.rules.z_buy` (log-odds against hold)."""
        scores = self._filled(matrix(panel, fitted(self, "columns_")).astype("float64"))
        z = np.repeat(self.bias_[None], len(scores), axis=0)
        for rule, weight in enumerate(self.weights_.T):  # a matrix product's bits vary with N
            z += scores[:, [rule]] * weight
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
        off = (self._filled(scores) - self.mean_) ** 2
        spread = np.sqrt((off * weight[:, None]).sum(axis=0) / weight.sum())
        gain = np.abs(self.weights_).sum(axis=0) * spread
        return gain / (gain.sum() or 1.0)

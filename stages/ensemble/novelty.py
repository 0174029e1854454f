"""How far a row's inputs lie from those the model was trained on."""

from typing import Self

import numpy as np
import pandas as pd
from numba import njit
from safetensors.numpy import load, save
from sklearn.covariance import LedoitWolf

from stages.base import State, fitted
from stages.panel import check_panel, named

PART = "novelty.safetensors"
CLIP = 50.0  # training sds: far enough for any row to be far
ROWS = 50_000  # of the training rows that the covariance is estimated from


class Novelty:
    """Mahalanobis distance to the training rows, 1 as far as they lie in the root mean square.

    A missing input counts as its training mean: it is no news, and says so elsewhere.

    Attributes
    ----------
    columns_ : tuple of F str
        ``feature.*`` of the training panel.
    center_, spread_ : float64 ndarray of shape (F,)
    root_ : float64 ndarray of shape (F, F)
        Lower triangular; ``root @ root.T`` is the shrunk precision of the standardised inputs.

    References
    ----------
    Ledoit & Wolf (2004), "A well-conditioned estimator for large-dimensional covariance
    matrices", J. Multivariate Analysis 88; Lee et al. (2018), NeurIPS (distance as novelty).
    """

    def fit(self, rows: pd.DataFrame) -> Self:
        """Learn where the training rows lie, from at most `ROWS` evenly spaced ones."""
        self.columns_ = tuple(named(rows, "feature"))
        rows = rows.iloc[:: max(1, -(-len(rows) // ROWS))]
        x = rows[list(self.columns_)].to_numpy(dtype="float64")
        known = np.isfinite(x)
        count = np.maximum(known.sum(axis=0), 1)
        self.center_ = np.where(known, x, 0).sum(axis=0) / count
        square = np.where(known, (x - self.center_) ** 2, 0).sum(axis=0) / count
        self.spread_ = np.where(square > 0, np.sqrt(square), 1.0)
        self.root_ = np.zeros((0, 0))
        if self.columns_:
            scaled = self._scaled(x)
            precision = LedoitWolf(assume_centered=True).fit(scaled).precision_
            root = np.linalg.cholesky(precision)
            self.root_ = root / np.sqrt(_squares(scaled, root).mean())
        return self

    def predict(self, panel: pd.DataFrame) -> np.ndarray:
        """Distance of each of N rows, >= 0; NaN for a model without features."""
        columns = fitted(self, "columns_")
        if not columns:
            return np.full(len(panel), np.nan)
        x = check_panel(panel, columns)[list(columns)].to_numpy(dtype="float64")
        return np.asarray(np.sqrt(_squares(self._scaled(x), self.root_)))

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        scaled = np.clip((x - self.center_) / self.spread_, -CLIP, CLIP)
        return np.where(np.isfinite(scaled), scaled, 0.0)

    def state(self) -> State:
        values = {"center": self.center_, "spread": self.spread_, "root": self.root_}
        part = save({name: np.ascontiguousarray(array) for name, array in values.items()})
        return State({"columns": list(fitted(self, "columns_"))}, {PART: part})

    def restore(self, state: State) -> Self:
        self.columns_ = tuple(state.values["columns"])
        values = load(state.parts[PART])
        self.center_, self.spread_, self.root_ = (values[k] for k in ("center", "spread", "root"))
        return self


@njit(cache=True)
def _squares(x, lower):  # type: ignore[no-untyped-def]
    """Mean square of ``lower.T @ row`` for each row: row by row, so that batches do not matter."""
    N, F = x.shape
    out, turned = np.empty(N), np.empty(F)
    for n in range(N):
        turned[:] = 0.0
        for j in range(F):
            for i in range(j + 1):
                turned[i] += lower[j, i] * x[n, j]
        out[n] = np.sum(turned**2) / F
    return out

"""A risk score from 0 to 100: factors by their place in history, calibrated on what was lost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.isotonic import isotonic_regression

from stages.base import DataError, State, fitted
from stages.risk.classes import DEFAULT, AssetClasses
from stages.risk.factors import FACTORS

KNOTS = np.linspace(0, 1, 201)  # quantiles kept of each factor: a place is known to 0.5 points
BINS = 50  # of the raw score, of equal width


@dataclass
class RiskScore:
    """Rank the factors of a signal in their history, weigh them, and say what that costs at worst.

    The raw score is the weighted mean of the places that the factors take among those of the
    training (0: the calmest, 100: the worst). The calibrated score is what such signals came to:
    the mean place of their worst losses among all, isotonic in the raw score. It is laid into the
    band of the asset class. Each step is monotone: more of a factor is never less risk.

    Parameters
    ----------
    assets : AssetClasses
        The bands.
    weights : mapping of str to float >= 0, optional
        By factor; equal where it is empty. Normalised over the factors that are used.
    least : int >= BINS, default=500
        Rows from which a class has quantiles of its own; others share those of all rows.
    memory : int, default=50_000
        Rows that the calibration remembers; beyond, older ones fade.

    Attributes
    ----------
    used_ : tuple of str
        Factors known in at least half of the rows of the training; the others are left out.
    scales_ : dict of str to Scale
        By class, and ``default`` for all rows.
    """

    assets: AssetClasses
    weights: Mapping[str, float] = field(default_factory=dict)
    least: int = 500
    memory: int = 50_000

    def __post_init__(self) -> None:
        unknown = set(self.weights) - set(FACTORS)
        if unknown:
            raise ValueError(f"weights names {sorted(unknown)}; factors: {', '.join(FACTORS)}")
        raw = list(self.weights.values())
        if raw and not (min(raw) >= 0 and max(raw) > 0):
            raise ValueError(f"need weights >= 0 and one above 0, got {dict(self.weights)}")
        if self.least < BINS or self.memory < self.least:
            raise ValueError(f"need {BINS} <= least <= memory, got {self.least} and {self.memory}")

    def fit(self, factors: pd.DataFrame, loss: pd.Series, classes: Sequence[str]) -> Self:
        """Learn the quantiles of the factors and what the raw score came to.

        Parameters
        ----------
        factors : DataFrame of shape (N, 6)
            See `stages.risk.factors.risk_factors`.
        loss : Series of N floats
            Worst loss of the signal of each row, see `worst_loss`; NaN where it is not known.
        classes : sequence of N str
            Asset class of each row.

        Raises
        ------
        DataError
            SV-F18 if fewer than `least` rows have a loss and all factors that are used.
        """
        values, names = factors[list(FACTORS)].to_numpy("float64"), np.asarray(classes, "str")
        known = np.isfinite(values).mean(axis=0) if len(values) else np.zeros(len(FACTORS))
        weights = self.weights or dict.fromkeys(FACTORS, 1.0)
        pairs = zip(FACTORS, known, strict=True)
        self.used_ = tuple(n for n, share in pairs if share >= 0.5 and weights.get(n, 0.0) > 0)
        whole = np.isfinite(values[:, self._at]).all(axis=1) & loss.notna().to_numpy()
        if whole.sum() < self.least or not self.used_:
            raise DataError(
                f"{int(whole.sum())} rows have a loss and all of {', '.join(self.used_) or 'none'}",
                code="SV-F18",
                where=f"{len(factors)} rows; {self.least} asked",
                why="quantiles of a few rows are noise",
                cure="bring a longer history, or lower risk.least",
            )
        values, names, lost = values[whole][:, self._at], names[whole], loss.to_numpy()[whole]
        groups = {DEFAULT: np.ones(len(values), bool)}
        groups |= {n: names == n for n in np.unique(names) if (names == n).sum() >= self.least}
        self.scales_ = {name: Scale.of(values[rows], lost[rows]) for name, rows in groups.items()}
        return self._count(values, lost, names)

    def update(self, factors: pd.DataFrame, loss: pd.Series, classes: Sequence[str]) -> Self:
        """Learn what more signals came to; the quantiles stay those of the training.

        Parameters as of `fit`; rows that lack a factor or a loss are passed over.
        """
        values = factors[list(FACTORS)].to_numpy("float64")[:, self._at]
        whole = np.isfinite(values).all(axis=1) & loss.notna().to_numpy()
        names = np.asarray(classes, "str")[whole]
        return self._count(values[whole], loss.to_numpy()[whole], names)

    def predict(self, factors: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
        """Score rows.

        Returns
        -------
        DataFrame of shape (N, 4 + used)
            `raw` and `calibrated` in [0, 100], `risk` in the band of the class, `missing` (the
            factors that are not known: such a row has no score) and ``part.*``, the points of
            `raw` that each factor gives.
        """
        values = factors[list(FACTORS)].to_numpy("float64")[:, self._at]
        places, calibrated = self._places(values, classes)
        parts = 100 * places * self._weights
        low, high = self.assets.bands(classes).T
        table = {
            "raw": parts.sum(axis=1),
            "calibrated": 100 * calibrated,
            "risk": low + (high - low) * calibrated,
            "missing": [
                ", ".join(n for n, gone in zip(self.used_, row, strict=True) if gone)
                for row in np.isnan(values)
            ],
        }
        table |= {f"part.{name}": part for name, part in zip(self.used_, parts.T, strict=True)}
        return pd.DataFrame(table, factors.index)

    def loss_place(self, loss: pd.Series, classes: Sequence[str]) -> np.ndarray:
        """Place of each of N losses among those of its class in the training: in [0, 100]."""
        lost, out = loss.to_numpy("float64"), np.full(len(loss), np.nan)
        for scale, rows in self._by_scale(classes):
            out[rows] = 100 * place(fitted(self, "scales_")[scale].loss, lost[rows])
        return out

    def state(self) -> State:
        scales = {name: scale.values() for name, scale in fitted(self, "scales_").items()}
        return State({"used": list(self.used_), "scales": scales})

    def restore(self, state: State) -> Self:
        self.used_ = tuple(state.values["used"])
        self.scales_ = {name: Scale.from_values(v) for name, v in state.values["scales"].items()}
        return self

    @property
    def _at(self) -> list[int]:
        return [FACTORS.index(name) for name in fitted(self, "used_")]

    @property
    def _weights(self) -> np.ndarray:
        raw = np.array([self.weights.get(n, 0.0) if self.weights else 1.0 for n in self.used_])
        return np.asarray(raw / raw.sum())

    def _by_scale(self, classes: Iterable[str]) -> list[tuple[str, np.ndarray]]:
        scales = fitted(self, "scales_")
        codes = np.array([n if n in scales else DEFAULT for n in classes], dtype="str")
        return [(str(name), codes == name) for name in np.unique(codes)]

    def _places(self, values: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Places of the factors, shape (N, used), and the calibrated score, shape (N,): in 0..1."""
        places, calibrated = np.empty(values.shape), np.empty(len(values))
        for name, rows in self._by_scale(classes):
            scale = self.scales_[name]
            places[rows] = scale.places(values[rows])
            calibrated[rows] = scale.calibrated(places[rows] @ self._weights)
        return places, calibrated

    def _count(self, values: np.ndarray, lost: np.ndarray, names: np.ndarray) -> Self:
        groups = dict(self._by_scale(names)) | {DEFAULT: np.ones(len(values), bool)}
        for name, rows in groups.items():
            scale = self.scales_[name]
            raw = scale.places(values[rows]) @ self._weights
            scale.count(raw, place(scale.loss, lost[rows]), self.memory)
        return self


@dataclass
class Scale:
    """Quantiles of the factors and of the losses of one class, and what each raw score came to.

    Attributes
    ----------
    factors : float64 ndarray of shape (used, 201)
    loss : float64 ndarray of shape (201,)
    rows, total : float64 ndarray of shape (50,)
        Rows, and sum of the places of their losses, by bin of the raw score.
    """

    factors: np.ndarray
    loss: np.ndarray
    rows: np.ndarray
    total: np.ndarray
    _steps: tuple[np.ndarray, np.ndarray] | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, values: np.ndarray, lost: np.ndarray) -> Self:
        none = np.zeros(BINS)
        return cls(np.quantile(values, KNOTS, axis=0).T, np.quantile(lost, KNOTS), none, none)

    def places(self, values: np.ndarray) -> np.ndarray:
        """Place of each factor among the training's: shape (N, used), in [0, 1]."""
        columns = [place(knots, x) for knots, x in zip(self.factors, values.T, strict=True)]
        return np.column_stack(columns)

    def count(self, raw: np.ndarray, lost: np.ndarray, memory: int) -> None:
        """Add rows; beyond `memory` the older ones fade."""
        at = _bin(raw)
        fade = max(0.0, 1 - max(0.0, self.rows.sum() + len(at) - memory) / max(self.rows.sum(), 1))
        self.rows = fade * self.rows + np.bincount(at, minlength=BINS)
        self.total = fade * self.total + np.bincount(at, lost, BINS)
        self._steps = None

    def calibrated(self, raw: np.ndarray) -> np.ndarray:
        """What such raw scores came to, in [0, 1] and never falling; NaN stays."""
        if self._steps is None:
            some = self.rows > 0
            rows, centre = self.rows[some], (np.arange(BINS) + 0.5)[some] / BINS
            level = isotonic_regression(self.total[some] / rows, sample_weight=rows)
            self._steps = (centre, np.clip(level, 0, 1))
        return np.interp(raw, *self._steps)

    def values(self) -> dict[str, Any]:
        return {name: getattr(self, name).tolist() for name in ("factors", "loss", "rows", "total")}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{name: np.asarray(part, "float64") for name, part in values.items()})


def place(knots: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Share of a history, known by its quantiles, below each value; ties count half. NaN stays."""
    below = np.searchsorted(knots, x, "left") + np.searchsorted(knots, x, "right")
    return np.where(np.isnan(x), np.nan, below / (2 * len(knots)))


def risk_calibration(said: np.ndarray, came: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Hold calibrated scores against what came, in bins of equal size.

    Parameters
    ----------
    said : float64 ndarray of shape (N,)
        `calibrated` of `RiskScore.predict`, points.
    came : float64 ndarray of shape (N,)
        `RiskScore.loss_place` of the losses that followed, points.
    bins : int >= 1, default=10

    Returns
    -------
    DataFrame of shape (<= bins, 3)
        Mean `said`, mean `came` and `rows`. The calibration error is the mean of
        ``|said - came|``, weighed by `rows`: `calibration_error`.
    """
    both = np.isfinite(said) & np.isfinite(came)
    order = said[both].argsort(kind="stable").argsort(kind="stable")
    table = pd.DataFrame({"said": said[both], "came": came[both]})
    grouped = table.groupby(order * bins // max(int(both.sum()), 1))
    return grouped.mean().assign(rows=grouped.size())


def calibration_error(table: pd.DataFrame) -> float:
    """Mean distance, in points, of what was said from what came; see `risk_calibration`."""
    return float(np.average((table["said"] - table["came"]).abs(), weights=table["rows"]))


def _bin(raw: np.ndarray) -> np.ndarray:
    return np.minimum((raw * BINS).astype(int), BINS - 1)

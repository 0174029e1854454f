"""What a net reads: scaled features, gathered into windows by row number when needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.panel import age, check_panel, named


@dataclass(frozen=True)
class RobustScaling:
    """Median and interquartile range of the training rows; a missing value becomes the median.

    Attributes
    ----------
    median : float32 ndarray of shape (F,)
    gain : float32 ndarray of shape (F,)
        One over the range, as a standard deviation of a Gaussian; 0 for a column that was
        constant or missing on every training row, which the nets then never see.
    clip : float
        Bound of the scaled values.
    """

    median: np.ndarray
    gain: np.ndarray
    clip: float

    @classmethod
    def fit(cls, values: np.ndarray, clip: float) -> Self:
        """Measure training rows of shape (n, F)."""
        measured = [_spread(column[np.isfinite(column)]) for column in values.T]
        median, gain = np.array(measured, dtype="float32").reshape(-1, 2).T
        return cls(median.copy(), gain.copy(), clip)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Scale values of shape (N, F) into a fresh row-major float32 matrix without NaN."""
        out = np.array(values, dtype="float32", order="C")
        with np.errstate(invalid="ignore", over="ignore"):  # infinity in a column with gain 0
            out -= self.median
            out *= self.gain
        np.clip(out, -self.clip, self.clip, out=out)
        out[np.isnan(out)] = 0  # the training median
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; float32 survives them exactly."""
        return {"median": self.median.tolist(), "gain": self.gain.tolist(), "clip": self.clip}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Take back what `to_json` gave."""
        median, gain = (np.asarray(values[name], dtype="float32") for name in ("median", "gain"))
        return cls(median, gain, float(values["clip"]))


def _spread(column: np.ndarray) -> tuple[float, float]:
    if not len(column):
        return 0.0, 0.0
    low, median, high = np.quantile(column.astype("float64"), [0.25, 0.5, 0.75])
    # 1.349: the range of a standard Gaussian; a mostly constant column has no range but a spread
    width = (high - low) / 1.349 or float(column.std(dtype="float64"))
    return float(median), 1 / width if width > 1e-12 * max(abs(median), 1e-12) else 0.0


@dataclass(frozen=True)
class Inputs:
    """All rows of a panel as the nets read them.

    Attributes
    ----------
    features : float32 ndarray of shape (N, F)
        Scaled, row-major.
    static : float32 ndarray of shape (N, S)
        Standardised mean stage-1 logit pair, S = 2, or S = 0 without a filter.
    window : int
        Bars L of a window.
    """

    features: np.ndarray
    static: np.ndarray
    window: int

    def windows(self, ends: np.ndarray) -> np.ndarray:
        """Gather the windows that end at the given rows: shape (B, L, F)."""
        return self.features[ends[:, None] + np.arange(1 - self.window, 1)]


@dataclass(frozen=True)
class Reader:
    """How a panel becomes inputs; fitted on training rows only.

    Attributes
    ----------
    features : tuple of F str
        ``feature.*`` columns.
    logits : tuple of 2 M str
        ``filter.<member>.z_sell`` and ``.z_buy`` of each member in turn.
    window : int
    scaling : RobustScaling
        Of the features.
    centre, gain : float64 ndarray of shape (S,)
        Mean of the members' mean logit pair over the training rows, and one over its standard
        deviation. Not clipped: the static inputs stay linear in the logits.
    """

    features: tuple[str, ...]
    logits: tuple[str, ...]
    window: int
    scaling: RobustScaling
    centre: np.ndarray
    gain: np.ndarray

    @classmethod
    def fit(
        cls, panel: pd.DataFrame, y: pd.DataFrame, window: int, clip: float, static: bool = True
    ) -> Self:
        """Find the columns of `panel`, and measure them on the rows of `y`.

        Without `static` the filter's logits are left alone.

        Raises
        ------
        DataError
            If there is no feature (SV-F20), or no row of `y` can be read (SV-F18).
        """
        features, logits = named(panel, "feature"), _logit_columns(panel) if static else []
        rows = rows_of(panel, y.index)
        rows = rows[learnable(panel, window, rows, static)]
        values = panel[features].to_numpy("float32")
        pair = _mean_pair(panel, logits)[rows]
        spread = pair.std(axis=0)
        gain = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 1e-12)
        scaling = RobustScaling.fit(values[rows], clip)
        return cls(tuple(features), tuple(logits), window, scaling, pair.mean(axis=0), gain)

    def read(self, panel: pd.DataFrame) -> Inputs:
        """Scale all rows of `panel`."""
        features = self.scaling(panel[list(self.features)].to_numpy("float32"))
        static = (_mean_pair(panel, self.logits) - self.centre) * self.gain
        return Inputs(features, static.astype("float32"), self.window)

    def readable(self, panel: pd.DataFrame) -> np.ndarray:
        """True where a row has a full window, its stage-1 logits, and is not marked unready."""
        check_panel(panel, [*self.features, *self.logits])
        return _readable(panel, self.logits, self.window)

    def to_json(self) -> dict[str, Any]:
        """Plain values; floats survive them exactly."""
        return {
            "features": list(self.features),
            "logits": list(self.logits),
            "window": self.window,
            "scaling": self.scaling.to_json(),
            "centre": self.centre.tolist(),
            "gain": self.gain.tolist(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Take back what `to_json` gave."""
        return cls(
            tuple(values["features"]),
            tuple(values["logits"]),
            int(values["window"]),
            RobustScaling.from_json(values["scaling"]),
            np.asarray(values["centre"], dtype="float64"),
            np.asarray(values["gain"], dtype="float64"),
        )


def rows_of(panel: pd.DataFrame, index: pd.MultiIndex | pd.Index) -> np.ndarray:
    """Row numbers of `index` in `panel`; a row that is not there is refused (SV-F20)."""
    rows = panel.index.get_indexer(index)
    if (rows < 0).any():
        asset, time = index[int((rows < 0).argmax())]
        raise DataError(
            f"{asset} at {time} is not in the panel",
            code="SV-F20",
            where=f"{(rows < 0).sum()} rows",
            cure="bring a panel that holds the rows to learn from or to explain",
        )
    return rows


def learnable(
    panel: pd.DataFrame, window: int, rows: np.ndarray, static: bool = True
) -> np.ndarray:
    """True for those of the given row numbers that a `Reader` of this panel could read.

    Raises
    ------
    DataError
        If there is no feature (SV-F20), or no row can be read (SV-F18).
    """
    if not named(panel, "feature"):
        raise DataError(
            "the panel has no feature.* column for the refiner",
            code="SV-F20",
            where=f"columns present: {sorted(map(str, panel.columns))[:40]}",
            cure="build features first, or leave the refiner out",
        )
    known = _readable(panel, _logit_columns(panel) if static else [], window)[rows]
    if not known.any():
        raise DataError(
            f"none of {len(rows)} labelled rows has {window} bars of past and stage-1 logits",
            code="SV-F18",
            cure=f"bring more history, or lower refiner.window={window}",
        )
    return np.asarray(known)


def passed(panel: pd.DataFrame) -> np.ndarray:
    """True where ``filter.gate`` is not shut; without a gate, everywhere."""
    if "filter.gate" not in panel.columns:
        return np.ones(len(panel), dtype=bool)
    return panel["filter.gate"].to_numpy() != 0


def _readable(panel: pd.DataFrame, logits: Sequence[str], window: int) -> np.ndarray:
    known = np.isfinite(panel[list(logits)].to_numpy("float64")).all(axis=1)
    known &= age(panel) >= window - 1
    if "ready" in panel.columns:
        known &= panel["ready"].to_numpy("bool")
    return known


def _logit_columns(panel: pd.DataFrame) -> list[str]:
    members = [c[: -len(".z_sell")] for c in named(panel, "filter") if c.endswith(".z_sell")]
    return [f"{member}.{side}" for member in members for side in ("z_sell", "z_buy")]


def _mean_pair(panel: pd.DataFrame, logits: Sequence[str]) -> np.ndarray:
    """Mean logit pair over the members: shape (N, 2), or (N, 0) without members."""
    total = np.zeros((len(panel), min(len(logits), 2)))
    for first in range(0, len(logits), 2):  # in turn: the same bits for however many rows
        total += panel[list(logits[first : first + 2])].to_numpy("float64")
    return total / max(len(logits) // 2, 1)

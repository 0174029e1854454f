"""What the members of both stages say about each row, completed where the refiner was silent."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from stages.base import DataError, fitted
from stages.panel import check_labels, check_panel
from stages.signal import ODDS

HOLD = 1  # class index whose logit is 0
COLUMNS = [*ODDS, "epistemic", "aleatoric", "margin", "margin_sd"]
COLUMNS += ["certainty_sell", "certainty_buy", "disagreement"]  # what either ensemble adds
PAIR = ("z_sell", "z_buy")
SILENT = "filter.gate"  # the panel column that a silent refiner is put down to


@dataclass(frozen=True)
class Said:
    """Logits of N rows.

    Attributes
    ----------
    z : float64 ndarray of shape (N, U)
        Logits, those of a silent refiner filled in; NaN where the filter is silent.
    guess : float64 ndarray of shape (N, U)
        What the filter leads one to expect of the refiner; `z` itself for the filter's own.
    heard : bool ndarray of shape (N, U)
        False where `z` is a guess.
    """

    z: np.ndarray
    guess: np.ndarray
    heard: np.ndarray

    def of(self, rows: np.ndarray) -> "Said":
        """What was said of these rows, by number."""
        return Said(self.z[rows], self.guess[rows], self.heard[rows])

    @property
    def margins(self) -> np.ndarray:
        """Each member's log-odds of buy over sell, (N, M)."""
        return np.asarray(self.z[:, 1::2] - self.z[:, ::2])

    @property
    def moves(self) -> np.ndarray:
        """Each member's mean log-odds of the two sides over a hold, (N, M)."""
        return np.asarray((self.z[:, ::2] + self.z[:, 1::2]) / 2)


class MemberLogits:
    """The logit pairs of all members, U columns: those of the filter, then of the refiner.

    The refiner does not speak about rows that the gate stopped. There its logits are replaced by
    their conditional mean given the filter's logits: a weighted linear regression on the rows
    where it spoke.

    Attributes
    ----------
    columns_ : tuple of U str
    intercept_ : float64 ndarray of shape (U2,)
    slope_ : float64 ndarray of shape (U2, U1)
        Of the regression of U2 refiner columns on U1 filter columns.
    """

    def fit(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Find the members in `panel` and regress the refiner on the filter.

        Raises
        ------
        DataError
            If the filter has no columns, is silent on a row of `y`, or the refiner is on all.
        """
        self.columns_ = tuple(c for stage in ("filter", "refiner") for c in _pairs(panel, stage))
        if not self._filtered:
            raise DataError(
                "no column filter.<member>.z_sell and .z_buy in the panel",
                code="SV-F20",
                where=f"columns present: {sorted(map(str, panel.columns))[:40]}",
                cure="run the filter before the ensemble",
            )
        values = self._columns_of(panel.loc[check_labels(y).index])
        z1, z2 = values[:, : self._filtered], values[:, self._filtered :]
        refuse_silence(y, np.isnan(z1).any(axis=1))
        self.intercept_ = np.zeros(z2.shape[1])
        self.slope_ = np.zeros((z2.shape[1], self._filtered))
        weight = np.sqrt(y["weight"].to_numpy(dtype="float64"))[:, None]
        for k, target in enumerate(z2.T):
            spoke = ~np.isnan(target)
            if not spoke.any():
                raise DataError(
                    f"{self.columns_[self._filtered + k]} has no value on the labelled rows",
                    code="SV-F18",
                    cure="bring more history, or take the refiner out: refiner=none",
                )
            phi = np.column_stack([z1, np.ones(len(z1))])[spoke] * weight[spoke]
            found, *_ = np.linalg.lstsq(phi, target[spoke] * weight[spoke, 0])
            self.slope_[k], self.intercept_[k] = found[:-1], found[-1]
        return self

    @property
    def members(self) -> list[str]:
        """``filter.lightgbm``, ``refiner.lstm`` …: the columns come in pairs."""
        return [c.rpartition(".")[0] for c in self.columns_[::2]]

    def read(self, panel: pd.DataFrame) -> Said:
        """Logits of every row of `panel`."""
        z = self._columns_of(check_panel(panel, fitted(self, "columns_")))
        heard = ~np.isnan(z)
        guess = z.copy()
        for k, (intercept, slopes) in enumerate(zip(self.intercept_, self.slope_, strict=True)):
            # column by column: a matrix product would round a row by the size of its batch
            total = np.full(len(z), intercept)
            for j, slope in enumerate(slopes):
                total = total + slope * z[:, j]
            guess[:, self._filtered + k] = total
        z = np.where(heard, z, guess)
        z[~heard[:, : self._filtered].all(axis=1)] = np.nan
        return Said(z, guess, heard)

    def disagreement(self, said: Said) -> np.ndarray:
        """Variance of the members' margins of buy over sell, (N,); squared log-odds."""
        margins = said.margins.T
        # member by member, as in `read`
        mean = sum(margins) / len(margins)
        return np.asarray(sum((m - mean) ** 2 for m in margins) / len(margins))

    def trace(
        self, pull: np.ndarray, rows: Said, references: Said
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Carry multipliers of the completed logits back to the columns of the panel.

        Parameters
        ----------
        pull : float64 ndarray of shape (N, R, U)
            Multiplier of the completed logits of a row less those of a reference.
        rows, references : Said
            Of N and of R rows.

        Returns
        -------
        slopes : float64 ndarray of shape (N, R, U)
            Multiplier of the columns themselves: 0 for a refiner column that the row or the
            reference lacks, whose share the filter's columns carry through the regression.
        silence : dict of str to float64 ndarray of shape (N, R)
            Under ``filter.gate``, what only one of the two having been refined adds; empty where
            the rows and the references are alike in that.
        """
        F = self._filtered
        both = rows.heard[:, None, F:] & references.heard[None, :, F:]
        guessed = np.where(both, 0, pull[:, :, F:])
        slopes = np.concatenate(
            [pull[:, :, :F] + guessed @ self.slope_, np.where(both, pull[:, :, F:], 0)], axis=2
        )
        news = (rows.z - rows.guess)[:, None, F:] - (references.z - references.guess)[None, :, F:]
        silence = (guessed * news).sum(axis=2)
        return slopes, {SILENT: silence} if silence.any() else {}

    def state(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "columns": list(fitted(self, "columns_")),
            "intercept": self.intercept_.tolist(),
            "slope": self.slope_.tolist(),
        }

    def restore(self, values: dict[str, Any]) -> Self:
        """Take back what `state` gave."""
        self.columns_ = tuple(values["columns"])
        self.intercept_ = np.array(values["intercept"], dtype="float64")
        self.slope_ = np.array(values["slope"], dtype="float64").reshape(-1, self._filtered)
        return self

    @property
    def _filtered(self) -> int:
        return sum(c.startswith("filter.") for c in self.columns_)

    def _columns_of(self, panel: pd.DataFrame) -> np.ndarray:
        z = panel[list(self.columns_)].to_numpy(dtype="float64", copy=True)
        if np.isinf(z).any():
            row, column = np.argwhere(np.isinf(z))[0]
            asset, time = panel.index[row]
            raise DataError(
                f"{self.columns_[column]} of {asset} at {time} is infinite",
                code="SV-F12",
                cure="clip the odds of that member before they become logits",
            )
        return z


def _pairs(panel: pd.DataFrame, stage: str) -> list[str]:
    """Columns ``<stage>.<member>.z_sell``, ``.z_buy``, pair by pair in panel order."""
    parts = [c.split(".") for c in panel.columns if isinstance(c, str)]
    members = [p[1] for p in parts if len(p) == 3 and p[0] == stage and p[2] == PAIR[0]]
    return [f"{stage}.{member}.{z}" for member in members for z in PAIR]


def refuse_silence(y: pd.DataFrame, silent: np.ndarray) -> None:
    """Raise `DataError` if the filter says nothing about one of the rows of `y`."""
    if silent.any():
        asset, time = y.index[int(silent.argmax())]
        raise DataError(
            f"the filter says nothing about {asset} at {time}, which is to be learnt from",
            code="SV-F10",
            where=f"{silent.sum()} rows",
            cure="label only rows that the filter has scored out of fold",
        )

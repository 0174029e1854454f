"""From odds to a decision: which side, how certain after costs, and what stood in the way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import floor
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.special import ndtr

from stages.base import ConfigError, DataError
from stages.panel import check_panel
from stages.signal import ODDS, Strength

Profile = Literal["default", "strict"]
NEEDS = (*ODDS, "margin", "margin_sd")
NAMES = np.array(ODDS)


@dataclass(frozen=True)
class Decide:
    """Fire where the leading side's edge exceeds its cost, surely enough.

    Parameters
    ----------
    certainty : float in [0, 1], default=0.8
        Posterior probability, that the edge exceeds its cost, from which a side fires.
    medium, strong : float in [0, 1], default=0.70, 0.80
        Where these strengths begin.
    profile : {'default', 'strict'}, default='default'
        ``strict`` is for planted markets and strong sources: the floors below and the strengths
        apply to the confidence, and the edge need only be likelier than not.
    side_floor, hold_floor : float in [0, 1], default=0.65, 0.85
        Least confidence of a side and of a hold; read by ``strict`` only.
    cost_bps : mapping of str to float, optional
        Round trip by asset class, basis points; ``default`` covers the classes not named. Empty:
        trading is free.
    skill_proven : bool, default=False
        Whether a skill test has passed; without it nothing is ``fired``.
    """

    certainty: float = 0.8
    medium: float = 0.70
    strong: float = 0.80
    profile: Profile = "default"
    side_floor: float = 0.65
    hold_floor: float = 0.85
    cost_bps: Mapping[str, float] = field(default_factory=dict)
    skill_proven: bool = False

    def __post_init__(self) -> None:
        for name in ("certainty", "medium", "strong", "side_floor", "hold_floor"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        if self.medium > self.strong:
            raise ValueError(f"need medium <= strong, got {self.medium} > {self.strong}")
        if self.profile not in get_args(Profile):
            raise ValueError(f"profile must be one of {get_args(Profile)}, got {self.profile!r}")
        bad = {name: bps for name, bps in self.cost_bps.items() if not 0 <= bps < np.inf}
        if bad:
            raise ValueError(f"cost_bps must be finite and not below 0, got {bad}")

    def cost(self, classes: Iterable[str]) -> np.ndarray:
        """Round-trip cost of each of N asset classes, as a fraction: shape (N,).

        Raises
        ------
        ConfigError
            If `cost_bps` names neither a class nor ``default``.
        """
        codes, names = pd.factorize(pd.Index(list(classes), dtype="str"))
        return np.array([self._bps(name) / 1e4 for name in names])[codes]

    def _bps(self, name: str) -> float:
        if not self.cost_bps:
            return 0.0
        bps = self.cost_bps.get(name, self.cost_bps.get("default"))
        if bps is None:
            raise ConfigError(
                f"decide.cost_bps has no cost for the asset class {name!r}",
                code="SV-X101",
                where=f"it names {sorted(self.cost_bps)}",
                why="a missing cost is not a cost of 0",
                cure=f"add decide.cost_bps.{name}, or decide.cost_bps.default",
            )
        return bps

    def decide(self, panel: pd.DataFrame) -> pd.DataFrame:
        """Decide every row.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
            With the columns of the ensemble; `filter.gate`, `ready`, `cost` (round trip,
            fraction) and `scale` (return at stake, fraction) are read where they are there.

        Returns
        -------
        DataFrame of shape (N, 5)
            `side` (Int8; NA is an abstention), `status`, `certainty` (of the leading side, which
            also a hold has), `strength` (None without a side) and `why_not` (tuple of str).

        Raises
        ------
        DataError
            If there is a cost, but no column says what return is at stake.

        Notes
        -----
        The margin is Gaussian; the leading side pays if its odds against the other exceed
        (1 + cost / scale) / 2, so its margin must exceed ``log((1 + e) / (1 - e))`` with
        ``e = cost / scale``.
        """
        check_panel(panel, NEEDS)
        p = panel[ODDS].to_numpy(dtype="float64")
        margin = panel["margin"].to_numpy(dtype="float64")
        edge = _required_edge(panel)
        certainty = _certainty(margin, panel["margin_sd"].to_numpy(dtype="float64"), edge)
        leading = np.where(margin >= 0, 2, 0)
        rows = np.arange(len(p))
        confidence = p[rows, leading]
        ready = _column(panel, "ready", True).astype(bool)
        odds = np.isfinite(p).all(axis=1) & np.isfinite(margin)
        known = ready & odds & np.isfinite(edge + certainty)

        top = p.argmax(axis=1)
        strict = self.profile == "strict"
        need = 0.5 if strict else self.certainty
        shut = known & (_column(panel, "filter.gate", 1.0) == 0)
        costly = known & (edge >= 1)
        doubtful = known & ~costly & ~(certainty >= need)
        behind = known & (top != leading)
        unsure = known & strict & (confidence < self.side_floor)
        fires = known & ~(shut | costly | doubtful | behind | unsure)
        faint = known & ~fires & strict & (p[:, 1] < self.hold_floor)

        why = _Reasons(len(p))
        why.add(~ready, "history incomplete")
        why.add(ready & ~odds, "odds: a stage says nothing about this row")
        why.add(ready & odds & ~known, "return at stake unknown")
        why.add(shut, "gate: score below threshold")
        why.add(costly, "cost exceeds the return at stake")
        why.add(doubtful, "certainty {} < {}", certainty, np.full(len(p), need))
        why.add(behind, "{} is likelier than {}", NAMES[top], NAMES[leading])
        why.add(unsure, "confidence {} < {}", confidence, np.full(len(p), self.side_floor))
        why.add(faint, "hold confidence {} < {}", p[:, 1], np.full(len(p), self.hold_floor))
        why.add(fires & (not self.skill_proven), "skill not proven yet")

        measure = confidence if strict else certainty
        steps = (measure >= self.medium).astype(int) + (measure >= self.strong)
        strength = np.where(fires, np.array(get_args(Strength), dtype="object")[steps], None)
        fired = "fired" if self.skill_proven else "unproven"
        side = pd.array(np.where(fires, leading - 1, 0), dtype="Int8")
        side[~known] = pd.NA
        return pd.DataFrame(
            {
                "side": side,
                "status": np.select([~known, fires], ["abstain", fired], "hold"),
                "certainty": np.where(known, certainty, np.nan),
                "strength": pd.Series(strength, panel.index, dtype="object"),
                "why_not": pd.Series(why.tuples(), panel.index, dtype="object"),
            },
            index=panel.index,
        )


class _Reasons:
    """Collects texts for some of N rows."""

    def __init__(self, rows: int) -> None:
        self._texts: list[list[str]] = [[] for _ in range(rows)]

    def add(self, where: np.ndarray, text: str, *values: np.ndarray) -> None:
        for row in np.flatnonzero(where):
            said = [_short(v[row]) if v.dtype.kind == "f" else str(v[row]) for v in values]
            self._texts[row].append(text.format(*said))

    def tuples(self) -> list[tuple[str, ...]]:
        return [tuple(texts) for texts in self._texts]


def _short(value: float) -> str:
    """Two digits, rounded down: 0.799 must not read as the 0.80 it missed."""
    return f"{floor(value * 100 + 1e-9) / 100:.2f}"


def _column(panel: pd.DataFrame, name: str, otherwise: bool | float) -> np.ndarray:
    if name not in panel:
        return np.full(len(panel), otherwise)
    return panel[name].to_numpy()


def _required_edge(panel: pd.DataFrame) -> np.ndarray:
    """Cost over the return at stake, (N,); NaN where there is a cost and the stake is unknown."""
    cost = _column(panel, "cost", 0.0).astype("float64")
    if "scale" not in panel:
        if (cost > 0).any():
            raise DataError(
                "trading costs something, but no column says what return is at stake",
                code="SV-X102",
                where="column scale of the panel",
                cure="use labels that know it, or make trading free: costs=none",
            )
        return cost
    scale = panel["scale"].to_numpy(dtype="float64")
    with np.errstate(divide="ignore", invalid="ignore"):
        edge = np.minimum(cost / scale, 1.0)
    return np.where(cost == 0, 0.0, edge)


def _certainty(margin: np.ndarray, sd: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Chance that the leading side's margin exceeds what the edge asks for."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        excess = np.abs(margin) - np.log((1 + edge) / (1 - edge))
        certainty = ndtr(excess / sd)
    certainty = np.where((sd == 0) & (excess == 0), 0.5, certainty)
    return np.where(edge >= 1, np.where(np.isnan(margin + sd), np.nan, 0.0), certainty)

"""From odds to a decision: which side, how certain after costs, and what stood in the way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

import numpy as np
import pandas as pd

from stages.base import ConfigError
from stages.ensemble.edge import required_edge
from stages.ensemble.obstacles import Obstacles
from stages.ensemble.repeats import repeats, stretch_start
from stages.panel import check_panel, columns_of
from stages.signal import ODDS, SIDE_TEXT, Strength

Profile = Literal["default", "strict"]
NEEDS = (*ODDS, "margin", "certainty_sell", "certainty_buy")
SHARES = ("certainty", "medium", "strong", "side_floor", "hold_floor")


@dataclass(frozen=True)
class Decide:
    """Fire where the leading side's edge exceeds its cost, surely enough, and skill is proven.

    Parameters
    ----------
    certainty : float in [0, 1], default=0.8
        Posterior probability, that the edge exceeds its cost, from which a side fires.
    medium, strong : float in [0, 1], default=0.70, 0.80
        Where these strengths begin.
    profile : {'default', 'strict'}, default='default'
        ``strict`` is for planted markets and strong sources: floors and strengths apply to the
        confidence, and the edge need only be likelier than not.
    side_floor, hold_floor : float in [0, 1], default=0.65, 0.85
        Least confidence of a side and of a hold; read by ``strict`` only.
    floors : mapping of str to float in [0, 1], optional
        Least certainty (``strict``: confidence) of a side by asset class; ``default`` covers the
        classes not named. It takes the place of `certainty` and `side_floor`.
    max_novelty : float > 0 or None, default=3.0
        Rows whose inputs lie this many times as far from the training as its own rows do hold.
    max_epistemic : float > 0 or None, default=None
        Nats of epistemic uncertainty above which a row holds.
    repeat : str or None, default='30s'
        Length of the stretches of time in which the same side of an asset counts once; see
        `stages.ensemble.repeats.repeats`. What repeats is a hold. None: everything counts.
    rise : float >= 0, default=0.1
        By how much the certainty (``strict``: confidence) must rise to count again.
    cost_bps : mapping of str to float, optional
        Round trip by asset class, basis points; ``default`` covers the classes not named. Empty:
        trading is free.
    """

    certainty: float = 0.8
    medium: float = 0.70
    strong: float = 0.80
    profile: Profile = "default"
    side_floor: float = 0.65
    hold_floor: float = 0.85
    floors: Mapping[str, float] = field(default_factory=dict)
    max_novelty: float | None = 3.0
    max_epistemic: float | None = None
    repeat: str | None = "30s"
    rise: float = 0.1
    cost_bps: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in SHARES}
        shares |= {f"floors.{name}": value for name, value in self.floors.items()}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}")
        if self.medium > self.strong:
            raise ValueError(f"need medium <= strong, got {self.medium} > {self.strong}")
        if self.profile not in get_args(Profile):
            raise ValueError(f"profile must be one of {get_args(Profile)}, got {self.profile!r}")
        for name in ("max_novelty", "max_epistemic"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, or null for no limit, got {value}")
        if self.repeat is not None and not pd.Timedelta(self.repeat) > pd.Timedelta(0):
            raise ValueError(f"repeat must be a time above 0, such as 30s, got {self.repeat!r}")
        if not self.rise >= 0:
            raise ValueError(f"rise must not be below 0, got {self.rise}")
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

    def floor(self, classes: Iterable[str]) -> np.ndarray:
        """Least certainty (``strict``: confidence) of a side, of N asset classes: shape (N,)."""
        codes, names = pd.factorize(pd.Index(list(classes), dtype="str"))
        rest = self.floors.get("default", self._floor)
        return np.array([self.floors.get(name, rest) for name in names])[codes]

    def since(self, times: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """From when on the rows of an asset must be known to decide its rows at `times`."""
        return times if self.repeat is None else stretch_start(times, pd.Timedelta(self.repeat))

    @property
    def _floor(self) -> float:
        return self.side_floor if self.profile == "strict" else self.certainty

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
            With the columns of the ensemble; read where they are there: `filter.gate`, `ready`,
            `cost` (round trip, fraction), `scale` (return at stake, fraction), `floor`, `novelty`
            and what `SkillTest.at` gave, as ``skill.*``: without it nothing is proven.

        Returns
        -------
        DataFrame of shape (N, 5)
            `side` (Int8; NA is an abstention), `status`, `certainty` (of the leading side, which
            also a hold has), `strength` (None without a side) and `why_not` (tuple of WhyNot).

        Raises
        ------
        DataError
            If there is a cost, but no column says what return is at stake.

        """
        rows, why = _Rows.of(panel), Obstacles(len(panel))
        strict = self.profile == "strict"
        measure = rows.confidence if strict else rows.certainty
        self._find(why, rows, panel)
        fires = rows.known & why.none
        if self.repeat is not None:
            sides, every = np.where(fires, rows.leading - 1, 0), pd.Timedelta(self.repeat)
            again = repeats(panel.index, sides, measure, every, self.rise)
            why.say(again, f"repeat: the same side within {self.repeat}")
            fires &= ~again
        if strict:
            faint = rows.known & ~fires & (rows.p[:, 1] < self.hold_floor)
            floor = np.full(len(panel), self.hold_floor)
            why.below(faint, "confidence", rows.p[:, 1], floor, " as a hold")
        proven = _column(panel, "skill.proven", False).astype(bool)
        why.unproven(fires & ~proven, panel)

        steps = (measure >= self.medium).astype(int) + (measure >= self.strong)
        strength = np.where(fires, np.array(get_args(Strength), dtype="object")[steps], None)
        side = pd.array(np.where(fires, rows.leading - 1, 0), dtype="Int8")
        side[~rows.known] = pd.NA
        cases = [~rows.known, fires & proven, fires]
        return pd.DataFrame(
            {
                "side": side,
                "status": np.select(cases, ["abstain", "fired", "unproven"], "hold"),
                "certainty": np.where(rows.known, rows.certainty, np.nan),
                "strength": pd.Series(strength, panel.index, dtype="object"),
                "why_not": pd.Series(why.tuples(), panel.index, dtype="object"),
            },
            index=panel.index,
        )

    def _find(self, why: Obstacles, rows: "_Rows", panel: pd.DataFrame) -> None:
        """Note what stands in the way of each row by itself."""
        known, strict = rows.known, self.profile == "strict"
        floor = _column(panel, "floor", self._floor)
        need = np.full(len(panel), 0.5) if strict else floor
        costly = known & (rows.edge >= 1)
        why.say(~rows.ready, "history: incomplete")
        why.say(rows.ready & ~rows.odds, "inputs: a stage says nothing about this row")
        why.say(rows.ready & rows.odds & ~known, "cost: the return at stake is unknown")
        why.say(known & (_column(panel, "filter.gate", 1.0) == 0), "gate: score below threshold")
        why.say(costly, "cost: above the return at stake")
        doubtful = known & ~costly & ~(rows.certainty >= need)
        why.below(doubtful, "certainty", rows.certainty, need)
        top = rows.p.argmax(axis=1)
        rival = [f" of {SIDE_TEXT[side - 1]}" for side in top]
        best = rows.p.max(axis=1)
        why.below(known & (top != rows.leading), "confidence", rows.confidence, best, rival)
        if strict:
            why.below(known & (rows.confidence < floor), "confidence", rows.confidence, floor)
        for key, column, limit, digits in (
            ("novelty", "novelty", self.max_novelty, 2),
            ("uncertainty", "epistemic", self.max_epistemic, 4),
        ):
            if limit is not None:
                found = _column(panel, column, 0.0)
                why.above(known & (found > limit), key, found, limit, digits)


@dataclass(frozen=True)
class _Rows:
    """What N rows come to: odds (N, K), the side that leads (0 or 2), and its measures."""

    p: np.ndarray
    leading: np.ndarray
    confidence: np.ndarray
    certainty: np.ndarray
    edge: np.ndarray
    ready: np.ndarray
    odds: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, panel: pd.DataFrame) -> Self:
        check_panel(panel, NEEDS)
        p = columns_of(panel, ODDS)
        margin = panel["margin"].to_numpy(dtype="float64")
        edge = required_edge(panel)
        leading = np.where(margin >= 0, 2, 0)
        sells, buys = (panel[f"certainty_{side}"].to_numpy("float64") for side in ("sell", "buy"))
        certainty = np.where(margin >= 0, buys, sells)
        ready = _column(panel, "ready", True).astype(bool)
        odds = np.isfinite(p).all(axis=1) & np.isfinite(margin)
        known = ready & odds & np.isfinite(edge + certainty)
        confidence = p[np.arange(len(p)), leading]
        return cls(p, leading, confidence, certainty, edge, ready, odds, known)


def _column(panel: pd.DataFrame, name: str, otherwise: bool | float) -> np.ndarray:
    if name not in panel:
        return np.full(len(panel), otherwise)
    return panel[name].to_numpy()

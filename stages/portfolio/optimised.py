"""Weights by an optimiser of skfolio: risk parity, hierarchical risk parity, mean-risk."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import clone

from stages.base import ConfigError, DataError
from stages.portfolio.prepared import Column, Day
from stages.portfolio.rebalancing import Rebalancing
from stages.portfolio.signals import Trend
from stages.portfolio.situation import Opinion, Situation
from stages.portfolio.target import Choice


@dataclass(frozen=True, kw_only=True)
class OptimisedPolicy(Rebalancing):
    """Weights estimated on a trailing window at each regular rebalance.

    Parameters
    ----------
    optimiser : estimator of skfolio
        ``fit(returns).weights_``, such as RiskBudgeting, HierarchicalRiskParity or MeanRisk.
    choices : mapping of str to str, optional
        Parameters of the optimiser that are enumerations, as text: ``risk_measure: CVAR``,
        ``objective_function: MAXIMIZE_RATIO``.
    bars : int >= 3, default=250
        Window of simple returns; an asset without all of them takes no part.
    least : float in [0, 1), default=0.005
        Weights below it are left out.
    unit : float > 0, default=1
        Of the returns that the optimiser is handed: 0.01 is percent. Solvers work near 1; CLARABEL
        0.11 leaves many risk budgets of CVaR unsolved in fractions, and solves them in percent.
    trend : Trend or None, default=None
        Where given, only assets whose trend is up take part, and holdings whose is not down.

    Notes
    -----
    What the caps of `sizes` cut from one asset goes to the others, in proportion.
    """

    by_volatility: ClassVar[bool] = False

    optimiser: Any
    choices: Mapping[str, str] = field(default_factory=dict)
    bars: int = 250
    least: float = 0.005
    unit: float = 1.0
    trend: Trend | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bars < 3 or not 0 <= self.least < 1 or not self.unit > 0:
            raise ValueError(f"need bars >= 3, least in [0, 1) and unit > 0, got {self}")
        self._estimator()

    def judged_by(self) -> Mapping[str, Column]:
        return self.trend.columns() if self.trend else {}

    @property
    def warmup(self) -> int:
        return max(super().warmup, self.bars)

    def opinion(self, day: Day, held: np.ndarray) -> Opinion:
        if self.trend is None:
            return Opinion(self._complete(day).astype("float64"), {})
        return Opinion(self.trend.at(day), {"signal_strength": day.column("strength")})

    def choose(self, now: Situation, ranks: Mapping[str, int]) -> Choice:
        side = now.opinion.signals
        among = now.judged & ~now.barred & self._complete(now.day)
        among &= (side > 0) | (now.held & (side == 0))
        if now.blocked:
            among &= now.held
        weights = self._optimal(now.day, np.flatnonzero(among))
        best = sorted(weights.items(), key=lambda item: -item[1])[: now.room]
        claims = {asset: weight for asset, weight in best if weight >= self.least}
        name = type(self.optimiser).__name__
        reasons = {asset: f"{name} asks for {weight:.1%}" for asset, weight in claims.items()}
        leave = {
            asset: f"{name} asks for {weights.get(asset, 0.0):.1%}"
            for asset in now.holdings
            if asset not in claims
        }
        places = now.day.prepared.place
        undecided = frozenset(asset for asset in claims if side[places[asset]] <= 0)
        return Choice(reasons, leave, claims, unconfirmed=undecided)

    def _optimal(self, day: Day, places: np.ndarray) -> dict[str, float]:
        """Weights of the assets at `places`, summing to 1; one alone takes all."""
        names = [day.assets[place] for place in places.tolist()]
        if len(names) < 2:
            return dict.fromkeys(names, 1.0)
        prices = day.past(day.prepared.last, self.bars + 1)[:, places]
        returns = pd.DataFrame((prices[1:] / prices[:-1] - 1) / self.unit, columns=names)
        try:
            found = np.asarray(self._estimator().fit(returns).weights_)
        except Exception as fault:
            raise DataError(
                f"{type(self.optimiser).__name__} found no weights at {day.time:%Y-%m-%d}",
                code="SV-X612",
                where=f"{len(names)} assets, {self.bars} bars: {str(fault)[:200]}",
                why="a rebalance without weights would leave the book as it was, unsaid",
                cure="loosen the optimiser's constraints, or take a longer window",
            ) from fault
        if (found < -1e-6).any():
            raise ConfigError(
                f"{type(self.optimiser).__name__} asks for a short position",
                code="SV-F33",
                why="books hold long positions only",
                cure="portfolio.optimiser.min_weights=0",
            )
        return dict(zip(names, np.maximum(found, 0.0).tolist(), strict=True))

    def _complete(self, day: Day) -> np.ndarray:
        """Assets with `bars` returns that are not all 0: bool of shape (A,)."""
        prices = day.past(day.prepared.last, self.bars + 1)
        if len(prices) <= self.bars:
            return np.zeros(len(day.assets), dtype=bool)
        return np.isfinite(prices[0]) & (np.ptp(prices, axis=0) > 0)

    def _estimator(self) -> Any:
        """A fresh optimiser, its enumerations set from their names."""
        named = {name: _member(name, text) for name, text in self.choices.items()}
        return clone(self.optimiser).set_params(**named)


def _member(name: str, text: str) -> Any:
    """The member of the enumeration that a parameter of skfolio takes."""
    from skfolio import RiskMeasure  # 1 s, for those who optimise
    from skfolio.optimization import ObjectiveFunction

    kinds: dict[str, Any] = {"risk_measure": RiskMeasure, "objective_function": ObjectiveFunction}
    members = kinds[name].__members__ if name in kinds else {}
    if str(text).upper() not in members:
        raise ConfigError(
            f"choices.{name}={text} is not offered",
            code="SV-F33",
            where="key portfolio.choices",
            cure=f"one of {', '.join(members) or ', '.join(kinds)}",
        )
    return members[str(text).upper()]

"""Trend following: buy what rises on its own and among the others, sell for risk first."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from stages.portfolio.momentum import Momentum
from stages.portfolio.prepared import Column, Day
from stages.portfolio.rebalancing import Rebalancing
from stages.portfolio.signals import Trend, combo
from stages.portfolio.situation import Opinion, Situation
from stages.portfolio.target import Buffer, Choice, chosen, ranked


@dataclass(frozen=True, kw_only=True)
class TrendPolicy(Rebalancing):
    """Dual confirmation: the asset's own trend filters, then momentum ranks.

    Parameters
    ----------
    trend : Trend
    momentum : Momentum
    buffer : Buffer

    Notes
    -----
    Ranked are the assets whose trend is up, and holdings whose trend is not down. A holding whose
    trend turns down is sold at the next regular rebalance; risk checks sell on any day.

    References
    ----------
    Antonacci (2014), "Dual Momentum Investing": absolute before relative momentum.
    """

    tilts_by: ClassVar[str] = "momentum_score"

    trend: Trend = field(default_factory=lambda: Trend(combo))
    momentum: Momentum = field(default_factory=Momentum)
    buffer: Buffer = field(default_factory=Buffer)

    def judged_by(self) -> Mapping[str, Column]:
        return {**self.trend.columns(), **self.momentum.columns()}

    def opinion(self, day: Day, held: np.ndarray) -> Opinion:
        columns = {
            "signal_strength": day.column("strength"),
            "momentum_score": self.momentum.at(day, held),
        }
        return Opinion(self.trend.at(day), columns)

    def ranks(self, now: Situation) -> Mapping[str, int]:
        side, scores = now.opinion.signals, now.opinion.columns["momentum_score"]
        among = now.judged & ~now.barred & ((side > 0) | (now.held & (side == 0)))
        return ranked(now.day.assets, scores, among)

    def choose(self, now: Situation, ranks: Mapping[str, int]) -> Choice:
        clusters, holdings = now.book.clusters, now.holdings
        choice = chosen(ranks, holdings, clusters, self.buffer, now.room, now.blocked)
        leave = {a: why if a in ranks else "trend down" for a, why in choice.leave.items()}
        side, places = now.opinion.signals, now.day.prepared.place
        words = {1: "trend up", 0: "trend undecided"}
        reasons = {
            asset: f"{why} of {len(ranks)}, {words[int(side[places[asset]])]}"
            for asset, why in choice.reasons.items()
        }
        undecided = frozenset(asset for asset in reasons if side[places[asset]] <= 0)
        return replace(choice, reasons=reasons, leave=leave, unconfirmed=undecided)

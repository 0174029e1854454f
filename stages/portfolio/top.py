"""Hold the best by any score: a column of the pipeline, a rule or a feature."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from stages.portfolio.prepared import Column, Day, given, reading, settled
from stages.portfolio.rebalancing import Rebalancing
from stages.portfolio.situation import Opinion, Situation
from stages.portfolio.target import Buffer, Choice, chosen, ranked


@dataclass(frozen=True, kw_only=True)
class TopScores(Rebalancing):
    """The top of a ranking, with a zone in which holdings are left alone.

    Parameters
    ----------
    score : callable
        As a feature or a rule; ``reading(given, values="margin")`` reads a column of the panel.
    least : float or None, default=0
        Score that a purchase needs, and below which a holding is sold; None asks for none.
    buffer : Buffer
    """

    score: Callable[..., np.ndarray] = field(default=reading(given, values="margin"))
    least: float | None = 0.0
    buffer: Buffer = field(default_factory=Buffer)

    def __post_init__(self) -> None:
        super().__post_init__()
        settled(self.score)

    def judged_by(self) -> Mapping[str, Column]:
        return {"score": self.score}

    def opinion(self, day: Day, held: np.ndarray) -> Opinion:
        score = day.column("score")
        above = np.sign(score - self.least) if self.least is not None else 1.0 + 0.0 * score
        return Opinion(above, {"signal_strength": score})

    def ranks(self, now: Situation) -> Mapping[str, int]:
        among = now.judged & ~now.barred
        among &= (now.opinion.signals > 0) | (now.held & (now.opinion.signals == 0))
        return ranked(now.day.assets, now.opinion.columns["signal_strength"], among)

    def choose(self, now: Situation, ranks: Mapping[str, int]) -> Choice:
        clusters, holdings = now.book.clusters, now.holdings
        choice = chosen(ranks, holdings, clusters, self.buffer, now.room, now.blocked)
        leave = {a: why if a in ranks else "score too low" for a, why in choice.leave.items()}
        side, places = now.opinion.signals, now.day.prepared.place
        even = frozenset(asset for asset in choice.reasons if side[places[asset]] <= 0)
        return Choice(choice.reasons, leave, unconfirmed=even)

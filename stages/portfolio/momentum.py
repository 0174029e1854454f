"""How strongly each asset has risen against its own volatility: what assets are ranked by."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from stages.features.returns import momentum
from stages.panel import warms_up
from stages.portfolio.prepared import Column, Day


@warms_up(lambda bars, **_: max(bars))
def momentum_score(
    close: np.ndarray,
    bars: Sequence[int] = (20, 60, 120),
    weights: Sequence[float] = (0.3, 0.4, 0.3),
) -> np.ndarray:
    """Weighted sum of log returns over several windows, each in its own volatility: shape (T,).

    References
    ----------
    Moskowitz, Ooi & Pedersen (2012), "Time series momentum", J. Financial Economics 104(2).
    """
    parts = (weight * momentum(close, n) for n, weight in zip(bars, weights, strict=True))
    return np.sum(list(parts), axis=0)


@dataclass(frozen=True)
class Momentum:
    """The relative rank: momentum, with a bonus for what is held.

    Parameters
    ----------
    bars : sequence of int, default=(20, 60, 120)
        Windows.
    weights : sequence of float >= 0, default=(0.3, 0.4, 0.3)
    inertia : float >= 0, default=0.05
        Added to the score of holdings, so that near ties cause no trade.
    """

    bars: Sequence[int] = field(default=(20, 60, 120))
    weights: Sequence[float] = field(default=(0.3, 0.4, 0.3))
    inertia: float = 0.05

    def __post_init__(self) -> None:
        if len(self.bars) != len(self.weights) or min(self.bars, default=0) < 2:
            raise ValueError(f"need a weight for each window of 2 bars or more, got {self}")
        if min(self.weights) < 0 or not sum(self.weights) > 0 or not self.inertia >= 0:
            raise ValueError(f"need weights and inertia of at least 0, got {self}")

    def columns(self) -> dict[str, Column]:
        """What must be prepared."""
        own = partial(momentum_score, bars=tuple(self.bars), weights=tuple(self.weights))
        return {"momentum": own}

    def at(self, day: Day, held: np.ndarray) -> np.ndarray:
        """Score per asset, NaN where the history is too short: shape (A,).

        Parameters
        ----------
        day : Day
        held : bool ndarray of shape (A,)
        """
        return day.column("momentum") + self.inertia * held

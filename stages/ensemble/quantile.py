"""A quantile that covers the wished share of a stream of scores, whatever the stream does."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np


@dataclass
class QuantileTracker:
    """What the trackers share: the last scores, and by how much the misses exceed their share.

    A score is *covered* if it is at most the quantile in force when its row was issued. One call
    of `learn` is one bar; the errors of its rows are averaged, so that assets that move together
    count once. A bar with fewer rows than the fullest of the last `window` bars weighs less.

    Parameters
    ----------
    level : float in (0, 1), default=0.95
        Share of the scores to cover.
    span : int >= 1, default=1
        Bars from the row to the bar at which its score is known.
    window : int >= 1, default=100
        Bars whose scores are remembered.
    start : int in [1, window], default=50
        Bars of scores before the first quantile.

    Attributes
    ----------
    excess_ : float
        Weighted sum over bars of the mean error less ``1 - level``.
    quantile_ : float
        In force now; NaN before `start`; -inf and inf are the two saturated states.
    recent_ : deque of ndarray
        Scores of the last bars.
    """

    level: float = 0.95
    span: int = 1
    window: int = 100
    start: int = 50

    numbers: ClassVar[tuple[str, ...]] = ("excess_", "quantile_")

    def __post_init__(self) -> None:
        if not 0 < self.level < 1 or self.span < 1 or not 1 <= self.start <= self.window:
            raise ValueError(
                "need level in (0, 1), span >= 1 and 1 <= start <= window, got "
                f"{self.level}, {self.span}, {self.start}, {self.window}"
            )
        self.excess_ = 0.0
        self.quantile_ = np.nan
        self.recent_: deque[np.ndarray] = deque(maxlen=self.window)

    @property
    def bound(self) -> float:
        """Most that `excess_` can ever be, in either direction: the guarantee.

        With bars of equal size, coverage of the first T bars is within ``bound / T`` of `level`.
        """
        raise NotImplementedError

    def learn(self, scores: np.ndarray, issued: np.ndarray) -> float:
        """Take in the scores of one bar; return the quantile in force from now on.

        Parameters
        ----------
        scores : float64 ndarray of shape (n,)
            Finite, n >= 1.
        issued : float64 ndarray of shape (n,)
            Quantile in force when each row was issued; NaN: there was none, and no error counts.
        """
        self.recent_.append(scores)
        promised, step = ~np.isnan(issued), 0.0
        if promised.any():
            error = np.mean(scores[promised] > issued[promised])
            weight = promised.sum() / max(map(len, self.recent_))
            step = float(weight * (error - (1 - self.level)))
            self.excess_ += step
        if len(self.recent_) >= self.start:
            self.quantile_ = self._next(np.concatenate(self.recent_), step)
        return self.quantile_

    def state(self) -> dict[str, np.ndarray]:
        """What was learnt, as arrays."""
        return {
            "numbers": np.array([getattr(self, name) for name in self.numbers]),
            "recent": np.concatenate([*self.recent_, np.empty(0)]),
            "lengths": np.array([len(bar) for bar in self.recent_], dtype="int64"),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> Self:
        for name, value in zip(self.numbers, state["numbers"].tolist(), strict=True):
            setattr(self, name, value)
        self.recent_.clear()
        if len(state["lengths"]):
            self.recent_.extend(np.split(state["recent"].copy(), state["lengths"].cumsum()[:-1]))
        return self

    def _next(self, scores: np.ndarray, step: float) -> float:
        """The next quantile, from the last scores, `excess_` and its last step."""
        raise NotImplementedError


@dataclass
class ConformalPI(QuantileTracker):
    """Quantile tracking with error integration that saturates.

    The tracked quantile moves by ``rate / sqrt(span)`` spreads of the scores for each unit of
    error; the integrator adds ``spread * tan(pi / 2 * excess / budget)``, which is infinite from
    the budget on. The spread lies between the ``level`` and the ``1 - level`` quantile of the
    last scores: unlike their maximum it does not jump with one bad price.

    Parameters
    ----------
    level, span, window, start
        See `QuantileTracker`.
    rate : float > 0, default=0.1
        Proportional gain. It is divided by ``sqrt(span)``: labels that overlap repeat one
        another's errors, and a loop with a long delay must turn slowly or it swings.
    budget : float > 0, optional
        Bars of misses, beyond their share, at which everything is covered, and of hits at which
        nothing is. Default ``20 + 5 * span``: a shock hits all the bars in flight at once, and
        must not use it up.

    Attributes
    ----------
    tracked_ : float
        The quantile without the integrator.

    Notes
    -----
    The saturation threshold of the paper may be any h(t) with h(t) / t -> 0 (there t / log t).
    A constant one makes its proposition 2 say most: the misses never exceed their share by more
    than ``budget + span`` bars, for any scores, even chosen by an adversary.

    References
    ----------
    Angelopoulos, Candes & Tibshirani (2023), "Conformal PID control for time series prediction",
    NeurIPS, sections 2.1-2.3.
    """

    rate: float = 0.1
    budget: float | None = None

    numbers: ClassVar[tuple[str, ...]] = ("excess_", "quantile_", "tracked_")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate > 0 or (self.budget is not None and not self.budget > 0):
            raise ValueError(f"need rate > 0 and budget > 0, got {self.rate}, {self.budget}")
        self.tracked_ = np.nan

    @property
    def bound(self) -> float:
        return self._budget + self.span

    @property
    def _budget(self) -> float:
        return 20.0 + 5.0 * self.span if self.budget is None else self.budget

    def _next(self, scores: np.ndarray, step: float) -> float:
        high = min(_rank(len(scores), self.level), len(scores)) - 1
        low = len(scores) - 1 - high
        ordered = np.partition(scores, sorted({low, high}))
        spread = float(abs(ordered[high] - ordered[low]))
        if np.isnan(self.tracked_):
            self.tracked_ = float(ordered[high])
        self.tracked_ += self.rate / self.span**0.5 * spread * step
        share = self.excess_ / self._budget
        if abs(share) >= 1:
            return np.inf * share
        return self.tracked_ + spread * float(np.tan(np.pi / 2 * share))


@dataclass
class AdaptiveConformal(QuantileTracker):
    """Adaptive conformal inference: a level that follows the errors, on the last scores.

    The baseline. Its quantile is infinite whenever the level asked for lies beyond the scores at
    hand, which a few misses in a row bring about.

    Parameters
    ----------
    level, span, window, start
        See `QuantileTracker`.
    gamma : float > 0, default=0.01
        Step of the level for each unit of error; 0.005 to 0.02 is usual.

    References
    ----------
    Gibbs & Candes (2021), "Adaptive conformal inference under distribution shift", NeurIPS,
    equation 2 and proposition 4.1.
    """

    gamma: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma > 0:
            raise ValueError(f"need gamma > 0, got {self.gamma}")

    @property
    def bound(self) -> float:
        return max(self.level, 1 - self.level) / self.gamma + self.span

    def _next(self, scores: np.ndarray, step: float) -> float:
        rank = _rank(len(scores), self.level + self.gamma * self.excess_)
        if rank > len(scores):
            return np.inf
        return float(np.partition(scores, rank - 1)[rank - 1]) if rank >= 1 else -np.inf


def _rank(count: int, level: float) -> int:
    """Place of the conformal quantile among `count` scores: beyond them if they are too few."""
    return int(np.ceil((count + 1) * level - 1e-9))  # 20 * 0.95 must not become 20

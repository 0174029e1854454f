"""Has a mean changed? Asked at every bar for years, with a promised distance of false alarms."""

from dataclasses import dataclass
from math import exp, sqrt
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtr

if TYPE_CHECKING:
    from river.drift import ADWIN

Side = Literal["up", "both"]
By = Literal["page_hinkley", "adwin"]
BURN = 8  # blocks before the first is judged: with fewer a spread is hardly known
CUT = 4.0  # standard deviations beyond which a block counts as this
FAR = 10  # blocks so far apart have little in common
SURE = 2.0  # standard errors
TIED = 0.9  # highest correlation of neighbouring blocks that is allowed for


def barrier(run_length: float, slack: float) -> float:
    """Height at which the sum of Page and Hinkley alarms once in `run_length` steps, in the mean.

    Parameters
    ----------
    run_length : float > 1
        Steps between false alarms, independent and standard normal.
    slack : float > 0
        Taken off every step: half the smallest change worth finding.

    References
    ----------
    Siegmund (1985), "Sequential Analysis", (2.57): the walk overshoots the barrier by 0.583 at
    either end.
    """

    def steps(height: float) -> float:
        reach = 2 * slack * (height + 2 * 0.583)
        return (exp(reach) - 1 - reach) / (2 * slack**2)

    top = 1.0
    while steps(top) < run_length:
        top *= 2
    return float(brentq(lambda height: steps(height) - run_length, 0.0, top))


@dataclass
class ChangeWatch:
    """Page-Hinkley or ADWIN on one series, for as many years as one likes.

    *Page-Hinkley* sees means over blocks of bars, compared with the mean and spread of the blocks
    before them: as ``Phi^-1(F_t(...))`` they are standard normal as long as nothing changes,
    whatever that mean and spread are. What neighbouring blocks have in common, r, is measured: one
    less the mean squared step between neighbours over that between blocks far apart, which no
    level enters; it is taken two standard errors too large. What is added up is the score times
    ``sqrt((1 - r) / (1 + r))`` less `slack`.

    *ADWIN* sees every bar as it is, and compares every two parts of a window of them by its own
    bound, for values that span no more than about 1.

    After an alarm all begins anew. Memory is bounded, and does not grow with the bars.

    Parameters
    ----------
    by : {'page_hinkley', 'adwin'}
    run_length : float >= 100
        Bars between false alarms of Page-Hinkley, in the mean. Those of ADWIN follow from `delta`.
    block : int >= 1, default=10
        Bars that make one step; at least the span of the labels.
    slack : float > 0, default=0.25
        Half the smallest change worth finding, in standard deviations of a block.
    side : {'up', 'both'}, default='up'
        Which changes alarm.
    delta : float in (0, 1), default=0.002
        Of ADWIN: chance of a false alarm, by its bound.

    Attributes
    ----------
    level_ : float
        How near Page-Hinkley is to an alarm: 1 is one.

    References
    ----------
    Page (1954), "Continuous Inspection Schemes", Biometrika 41; Hinkley (1971), "Inference about
    the change-point from cumulative sum tests", Biometrika 58; Hawkins (1987), "Self-starting
    Cusum Charts for Location and Scale", The Statistician 36; Bifet & Gavalda (2007), "Learning
    from Time-Changing Data with Adaptive Windowing", SDM (ADWIN, by river).
    """

    by: By = "page_hinkley"
    run_length: float = 10_000.0
    block: int = 10
    slack: float = 0.25
    side: Side = "up"
    delta: float = 0.002

    def __post_init__(self) -> None:
        if not self.run_length >= 100 or self.block < 1 or not self.slack > 0:
            raise ValueError(
                "need run_length >= 100, block >= 1 and slack > 0, got "
                f"{self.run_length}, {self.block}, {self.slack}"
            )
        if self.side not in get_args(Side) or self.by not in get_args(By):
            raise ValueError(f"need by in {get_args(By)}, side in {get_args(Side)}, got {self}")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta must lie in (0, 1), got {self.delta}")
        sides = 2 if self.side == "both" else 1
        self.height_ = barrier(self.run_length / self.block * sides, self.slack)
        self._held, self._bars = 0.0, 0
        self._begin()

    def update(self, value: float) -> bool:
        """Take the value of the next bar; return whether there is an alarm."""
        if self.by == "adwin":
            alarm = self._adwin(value)
        else:
            self._held, self._bars = self._held + value, self._bars + 1
            if self._bars < self.block:
                return False
            mean, self._held, self._bars = self._held / self.block, 0.0, 0
            score = self._score(mean)
            alarm = score is not None and self._page_hinkley(score)
        if alarm:
            self._begin()
        return alarm

    def _begin(self) -> None:
        self._blocks, self._mean, self._squares = 0, 0.0, 0.0
        self._raw: list[float] = []  # the last scores, before what is common was taken off
        self._near = self._far = 0.0  # sums of squared steps to the next, and over FAR
        self._up = self._down = self.level_ = 0.0
        self._window: ADWIN | None = None

    def _score(self, x: float) -> float | None:
        """Standard normal place of a block among those before it; None while these are few."""
        n, score = self._blocks, None
        if n >= BURN and self._squares > 0:
            t = (x - self._mean) / sqrt(self._squares / (n - 1) * (1 + 1 / n))
            place = float(stdtr(n - 1, -abs(t)))  # of the nearer end: the far one rounds to 1
            size = min(float(-ndtri(place)), CUT) if place > 0 else CUT
            raw = float(np.copysign(size, t))
            if len(self._raw) == 2 * FAR:  # late by FAR blocks: a shift must not hide itself
                self._near += (self._raw[FAR] - self._raw[FAR - 1]) ** 2
                self._far += (self._raw[FAR] - self._raw[0]) ** 2
            self._raw = [*self._raw, raw][-2 * FAR :]
            score = raw
        self._blocks += 1
        step = x - self._mean
        self._mean += step / self._blocks
        self._squares += step * (x - self._mean)
        return score

    def _tied(self) -> float:
        """What neighbouring blocks have in common, and `SURE` standard errors more."""
        found = 1 - self._near / self._far if self._far else 0.0
        return min(max(found, 0.0) + SURE * self._blocks**-0.5, TIED)

    def _page_hinkley(self, score: float) -> bool:
        tied = self._tied()
        score *= sqrt((1 - tied) / (1 + tied))
        self._up = max(0.0, self._up + score - self.slack)
        self._down = max(0.0, self._down - score - self.slack)
        self.level_ = max(self._up, self._down if self.side == "both" else 0.0) / self.height_
        return self.level_ > 1

    def _adwin(self, value: float) -> bool:
        if self._window is None:
            from river.drift import ADWIN  # a second to import

            self._window = ADWIN(delta=self.delta, clock=1)
        before = self._window.estimation
        self._window.update(value)
        if not self._window.drift_detected:
            return False
        return self.side == "both" or self._window.estimation > before

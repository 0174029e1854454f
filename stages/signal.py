"""What the pipeline says in the end: one side for one asset at one time, how sure, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from typing import Any, Literal, get_args

import pandas as pd

SIDES = {-1: "sell", 0: "hold", 1: "buy"}
ODDS = [f"p_{name}" for name in SIDES.values()]  # columns of a panel
SIDE_TEXT = {-1: "SELL", 0: "HOLD", 1: "BUY"}
SIDE_NUMBER = {text: number for number, text in SIDE_TEXT.items()}
Status = Literal["fired", "unproven", "hold", "abstain"]
Strength = Literal["weak", "medium", "strong"]
Severity = Literal["critical", "error", "warning", "note", "confirmation"]  # of a finding

CLOSURE = 1e-5  # log-odds: how far baseline + contributions may stand from the margin
KEYS = (  # of what can stand in the way of a signal; the last five abstain
    *("gate", "certainty", "confidence", "cost", "uncertainty", "novelty", "repeat", "skill"),
    *("history", "inputs", "universe", "staleness", "quality"),
)


@dataclass(frozen=True, slots=True)
class WhyNot:
    """One thing that stood in the way of a signal.

    Attributes
    ----------
    key : str
        Which, one of `KEYS`.
    text : str
        In words, the key first: ``certainty 0.61 < 0.80``.
    value, limit : float or None
        What was found and what was asked, where both are numbers.
    """

    key: str
    text: str
    value: float | None = None
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.key not in KEYS or not self.text.startswith(self.key):
            raise ValueError(f"{self.text!r} does not begin with {self.key!r}, one of {KEYS}")

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, text: str) -> "WhyNot":
        """What a text that begins with its key says, without the numbers."""
        return cls(text.partition(" ")[0].rstrip(":"), text)


@dataclass(frozen=True, slots=True)
class Lag:
    """The part of one bar in the push of one input.

    Attributes
    ----------
    feature : str
    lag : int >= 0
        Bars before the signal's own.
    push : float
        Log-odds.
    """

    feature: str
    lag: int
    push: float


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found in one signal.

    Attributes
    ----------
    check : str
        Its name in the configuration.
    family : str
        Kind of check, one of `stages.risk.checks.FAMILIES`.
    severity : Severity
    points : int
        Added to the quality; below 0 but for a confirmation.
    text : str
        What was found, with its numbers.
    cure : str
        What to do about it.
    """

    check: str
    family: str
    severity: Severity
    points: int
    text: str
    cure: str


@dataclass(frozen=True)
class Appraisal:
    """What a signal risks, how much to put on it, and what speaks against it.

    Attributes
    ----------
    quality : int in [0, 100] or None
        100 and the points of all findings; None where not one check could run.
    valid : bool
        No critical finding, and a quality of at least what was asked.
    findings : tuple of Finding
        Worst first.
    ran, checks : int
        Checks that could run, of how many; the others lacked an input.
    risk : float in `band` or None
        Risk score, points of 100.
    band : pair of float or None
        Range of the risk scores of the asset's class.
    raw, calibrated : float in [0, 100] or None
        The score before calibration, and before it was laid into the band.
    factors : mapping of str to float
        Points of `raw` that each factor gives.
    size : float in [0, 1] or None
        Share of the capital.
    chance : float in (0, 1) or None
        That the target is reached before the stop, if one of them is.
    expected : float or None
        Mean return after costs, fraction of what is put on it.
    missing : tuple of str
        What is not known, and what cannot be said without it; nothing is made up instead.
    """

    quality: int | None
    valid: bool
    findings: tuple[Finding, ...] = ()
    ran: int = 0
    checks: int = 0
    risk: float | None = None
    band: tuple[float, float] | None = None
    raw: float | None = None
    calibrated: float | None = None
    factors: Mapping[str, float] = field(default_factory=dict)
    size: float | None = None
    chance: float | None = None
    expected: float | None = None
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.risk is not None and (self.band is None or not 0 <= self.risk <= 100):
            raise ValueError(f"a risk of {self.risk} needs a band and must lie in [0, 100]")
        if self.quality is not None and not 0 <= self.quality <= 100:
            raise ValueError(f"quality must lie in [0, 100], got {self.quality}")
        if self.size is not None and not 0 <= self.size <= 1:
            raise ValueError(f"size must lie in [0, 1], got {self.size}")


@dataclass(frozen=True)
class Reasons:
    """The explanation that travels with one signal.

    Attributes
    ----------
    side : int
        -1 or 1: the side whose margin over the opposite side is explained.
    baseline, margin : float
        Log-odds of `side` over the opposite side: over the references, and here.
    contributions : mapping of str to float
        Push of each raw feature; baseline + sum = margin within 1e-5.
    by_stage : mapping of str to float
        The same total by stage and member.
    raw_gap : float
        What closure spread over the contributions.
    references : str
        Hash of the reference rows.
    text : tuple of str
        The largest contributions in words.
    by_family : mapping of str to float
        The same total by kind of input: trend, volatility, rules …
    lags : tuple of Lag
        The largest parts of single bars, largest first.
    effort : {'fast', 'full'}
        With how many references and nodes the contributions were found.
    fidelity : mapping of str to float
        How close fast reasons of this model come to full ones: ``correlation``, ``relative_l1``,
        ``top_1`` over ``rows``; empty where it was not measured.
    """

    side: int
    baseline: float
    margin: float
    contributions: Mapping[str, float]
    by_stage: Mapping[str, float]
    raw_gap: float
    references: str
    text: tuple[str, ...]
    by_family: Mapping[str, float] = field(default_factory=dict)
    lags: tuple[Lag, ...] = ()
    effort: str = "full"
    fidelity: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not abs(self.gap) <= CLOSURE:  # NaN too
            raise ValueError(f"contributions miss the margin by {self.gap}, allowed {CLOSURE}")

    @property
    def gap(self) -> float:
        """Margin less baseline less contributions."""
        return self.margin - self.baseline - sum(self.contributions.values())


@dataclass(frozen=True)
class Signal:
    """A decision with its odds, its doubts and its reasons.

    Attributes
    ----------
    asset : str
    time : Timestamp
        When the bar the decision rests on was known, UTC.
    side : int or None
        -1 or 1 if fired or unproven, 0 for a hold, None for an abstention.
    status : {'fired', 'unproven', 'hold', 'abstain'}
        A hold is a decision; an abstention is the lack of one.
    probabilities : mapping of int to float
        Calibrated chance of each of the K sides over the label horizon; sums to 1.
    confidence : float in [0, 1]
        The probability of `side`.
    certainty : float in [0, 1]
        Posterior probability that the edge of the leading side exceeds its cost.
    epistemic, aleatoric : float >= 0
        Doubt that more data would remove and doubt that none would, in nats.
    strength : {'weak', 'medium', 'strong'} or None
    why_not : tuple of WhyNot
        What stopped a hold or an abstention, or keeps a side unproven.
    novelty : float >= 0
        Distance of the inputs from those of the training, 1 as far as these lie in the mean.
    disagreement : float >= 0
        Variance of the members' log-odds of buy over sell.
    interval : mapping of str to float
        ``low`` and ``high`` (fractions, maybe infinite) hold the return over the horizon with
        frequency ``level``; empty where none is known.
    sides : tuple of int
        Sides that hold the outcome with the same frequency; empty where none are known.
    skill : mapping
        The skill test at the time: ``e_value``, what was ``needed``, ``progress`` in [0, 1],
        ``bars`` tested, ``left`` (bars still needed at this pace, or None) and ``proven``.
    stages : mapping
        Stage trail: the mean log-odds of buy over sell after each stage, and the gate.
    reasons : Reasons or None
        None for an abstention.
    replay : mapping
        Size, capacity, oldest, newest and hash of the replay buffer.
    expires : Timestamp
        From here on the signal says nothing.
    prices : mapping of str to float
        ``close``; of a side also ``target``, where the return at stake is known, and ``stop``,
        where the average true range is.
    appraisal : Appraisal or None
        Risk, size and checks; None where they were not asked for.
    session : str or None
        Exchange date of the bar.
    model : str
        Digest of the artifact that produced it.

    Notes
    -----
    An abstention has no odds: `probabilities` is empty and the measures are NaN, never 0.
    """

    asset: str
    time: pd.Timestamp
    side: int | None
    status: Status
    probabilities: Mapping[int, float]
    confidence: float
    certainty: float
    epistemic: float
    aleatoric: float
    expires: pd.Timestamp
    model: str
    strength: Strength | None = None
    why_not: tuple[WhyNot, ...] = ()
    stages: Mapping[str, float | bool | None] = field(default_factory=dict)
    reasons: Reasons | None = None
    replay: Mapping[str, Any] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    session: str | None = None
    novelty: float = nan
    disagreement: float = nan
    interval: Mapping[str, float] = field(default_factory=dict)
    sides: tuple[int, ...] = ()
    skill: Mapping[str, float | bool | None] = field(default_factory=dict)
    appraisal: Appraisal | None = None

    def __post_init__(self) -> None:
        sides = {"fired": (-1, 1), "unproven": (-1, 1), "hold": (0,), "abstain": (None,)}
        self._require(self.status in get_args(Status), f"no such status as {self.status!r}")
        allowed: tuple[int | None, ...] = sides[self.status]  # type: ignore[assignment]
        self._require(self.side in allowed, f"{self.status!r} does not go with side {self.side}")
        self._require(str(self.time.tz) == str(self.expires.tz) == "UTC", "times are not UTC")
        self._require(self.expires > self.time, f"it expires at {self.expires}, not later")
        if self.status in ("hold", "abstain"):
            self._require(len(self.why_not) > 0, f"a {self.status!r} must say why not")
        if self.side is None:
            self._require(not self.probabilities, "an abstention has no odds")
            self._require(not self.interval and not self.sides, "an abstention promises nothing")
            return
        odds = self.probabilities
        summed = set(odds) == set(SIDES) and abs(sum(odds.values()) - 1) < 1e-6
        self._require(summed, f"odds of -1, 0 and 1 must sum to 1, got {dict(odds)}")
        agrees = abs(self.confidence - odds[self.side]) < 1e-6
        self._require(agrees, f"confidence {self.confidence} is not the odds of its side")
        self._require(0 <= self.certainty <= 1, f"certainty {self.certainty} is not in [0, 1]")
        self._require(min(self.epistemic, self.aleatoric) >= 0, "uncertainty is below 0 nats")
        self._require(set(self.sides) <= set(SIDES), f"no such sides as {self.sides}")
        if self.interval:
            low, high = self.interval["low"], self.interval["high"]
            self._require(low <= high, f"the interval ends at {high}, below its start at {low}")

    def _require(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise ValueError(f"signal for {self.asset} at {self.time}: {otherwise}")

"""Checks of a signal: what each found, what it costs, what it could not look at, and a quality."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import isnan
from typing import Any, get_args

import numpy as np
import pandas as pd

from stages.base import ConfigError, DataError
from stages.panel import inputs_of
from stages.signal import Finding, Severity, Signal

POINTS = {"critical": -50, "error": -20, "warning": -10, "note": -5}
BASE = 100  # quality of a signal of which nothing was found
CONFIRMS = (5, 10)  # least and most points of a confirmation
FAMILIES = (
    *("data integrity", "risk calibration", "price targets", "factor weights"),
    *("market conditions", "technical confirmation", "timing"),
)

Check = Callable[..., str | None]


class NotRunError(Exception):
    """A check has its inputs, but they do not say enough: it is reported as not run."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What a check says of itself.

    Attributes
    ----------
    family : str
        One of `FAMILIES`.
    severity : Severity
    cure : str
        What to do about it.
    points : int
        Added to the quality where the check finds something.
    """

    family: str
    severity: Severity
    cure: str
    points: int


@dataclass(frozen=True)
class Quality:
    """What all checks say of one signal.

    Attributes
    ----------
    score : int in [0, 100] or None
        None where not one check could run: that is no quality, good or bad.
    valid : bool
        No critical finding, and a score of at least what was asked.
    findings : tuple of Finding
        Worst first, then by name.
    passed : tuple of str
        Checks that ran and found nothing.
    not_run : mapping of str to str
        Check to the reason why it says nothing.
    """

    score: int | None
    valid: bool
    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    not_run: Mapping[str, str]


def check(
    family: str, severity: Severity, cure: str = "", points: int = CONFIRMS[0]
) -> Callable[[Check], Check]:
    """Declare a function to be a check.

    Its parameters without a default name its inputs, see `facts`; the others are its settings. It
    returns what it found, in words, or None; for a confirmation what speaks for the signal.

    Parameters
    ----------
    family : str
        One of `FAMILIES`.
    severity : Severity
    cure : str
        Needed unless it confirms.
    points : int in [5, 10], default=5
        Of a confirmation.
    """
    if family not in FAMILIES or severity not in get_args(Severity):
        raise ValueError(f"no such family or severity as {family!r}, {severity!r}")
    if severity == "confirmation" and not CONFIRMS[0] <= points <= CONFIRMS[1]:
        raise ValueError(f"a confirmation adds {CONFIRMS[0]} to {CONFIRMS[1]}, not {points}")
    if severity != "confirmation" and not cure:
        raise ValueError(f"a {severity} needs a cure")

    def declare(function: Check) -> Check:
        told = Declared(family, severity, cure, POINTS.get(severity, points))
        function.declared = told  # type: ignore[attr-defined]
        return function

    return declare


def facts(
    signal: Signal,
    bars: pd.DataFrame | None = None,
    context: Mapping[str, Any] | None = None,
    asked: Collection[str] | None = None,
) -> dict[str, Any]:
    """Everything that checks may ask for by name; what is not known is not there.

    Parameters
    ----------
    signal : Signal
        Gives ``side`` (-1 or 1 only), ``time``, ``expires``, ``status``, its measures, ``price``,
        ``target``, ``stop``, ``reasons``, ``stages``, ``skill``, ``interval``.
    bars : DataFrame of shape (T, F), optional
        Recent bars of the asset up to the signal's own, indexed by UTC time. Gives each column
        under its name, float64 of shape (T,), and ``times``.
    context : mapping, optional
        What else is known, such as ``now``, ``step``, ``cost``, ``scale``, ``atr``, ``risk``; the
        signal's own words come before it.
    asked : collection of str, optional
        Columns of `bars` to read; None reads all.

    Raises
    ------
    DataError
        SV-X641 if a bar is later than the signal.
    """
    known = {name: value for name, value in (context or {}).items() if not _missing(value)}
    if bars is not None and len(bars):
        times = pd.DatetimeIndex(bars.index)
        if times[-1] > signal.time or not times.is_monotonic_increasing:
            raise DataError(
                f"bars of {signal.asset} reach to {times.max()}, its signal is of {signal.time}",
                code="SV-X641",
                why="a check may see no more than was known when the signal was made",
                cure="hand over the bars up to the signal's own, oldest first",
            )
        names = [name for name in bars.columns.tolist() if asked is None or name in asked]
        known |= {str(name): bars[name].to_numpy() for name in names}
        known["times"] = times
    own = {name: getattr(signal, name) for name in OWN}
    own |= {"side": signal.side or None, "price": signal.prices.get("close")}
    own |= {name: signal.prices.get(name) for name in ("target", "stop")}
    return known | {name: value for name, value in own.items() if not _missing(value)}


OWN = (
    *("time", "expires", "status", "probabilities", "confidence", "certainty", "epistemic"),
    *("aleatoric", "novelty", "disagreement", "interval", "reasons", "stages", "skill"),
)


@dataclass(frozen=True)
class Checks:
    """Checks by name, run on one signal after the other.

    Parameters
    ----------
    checks : mapping of str to callable
        Functions declared by `check`, or partials of them with other settings.
    severities : mapping of str to Severity, optional
        Takes the place of what a check declares.
    least : int in [0, 100], default=50
        Quality below which a signal is not valid.
    """

    checks: Mapping[str, Check]
    severities: Mapping[str, Severity] = field(default_factory=dict)
    least: int = 50

    def __post_init__(self) -> None:
        if not 0 <= self.least <= BASE:
            raise ValueError(f"least must lie in [0, {BASE}], got {self.least}")
        unknown = set(self.severities) - set(self.checks)
        if unknown:
            raise ValueError(f"severities names {sorted(unknown)}, which are no checks")
        for name, function in self.checks.items():
            if self.severities.get(name, "note") not in get_args(Severity):
                raise ValueError(f"no such severity as {self.severities[name]!r}")
            if _declared(function) is None:
                raise ConfigError(
                    f"{name} is not declared to be a check",
                    code="SV-X640",
                    where=f"checks.{name}",
                    why="without a family and a severity its word has no weight",
                    cure="decorate it: @check(family, severity, cure) of stages.risk.checks",
                )

    def examine(
        self,
        signal: Signal,
        bars: pd.DataFrame | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Quality:
        """Run every check on a signal; see `facts` for the parameters.

        Raises
        ------
        DataError
            SV-X640 if a check fails: a fault in a check is no word about the signal.
        """
        known = facts(signal, bars, context, self.asked)
        findings: list[Finding] = []
        passed: list[str] = []
        not_run: dict[str, str] = {}
        for name, (function, inputs, told) in self._plan.items():
            lacking = [i for i in inputs if i not in known]
            if lacking:
                not_run[name] = f"not known: {', '.join(lacking)}"
                continue
            try:
                text = function(**{i: known[i] for i in inputs})
            except NotRunError as reason:
                not_run[name] = str(reason)
                continue
            except Exception as error:
                raise _failed(name, signal, error) from error
            if text is None:
                passed.append(name)
            else:
                findings.append(
                    Finding(name, told.family, told.severity, told.points, text, told.cure)
                )
        return self._judge(findings, passed, not_run)

    @cached_property
    def _plan(self) -> dict[str, tuple[Check, tuple[str, ...], Declared]]:
        out = {}
        for name, function in sorted(self.checks.items()):
            told: Declared = _declared(function)
            said: Severity = self.severities.get(name, told.severity)
            if said != told.severity:
                told = Declared(told.family, said, told.cure, POINTS.get(said, CONFIRMS[0]))
            if isinstance(function, partial):  # Hydra's own kind checks a policy at each call
                function = partial(function.func, *function.args, **function.keywords)
            out[name] = (function, tuple(inputs_of(function)), told)  # type: ignore[arg-type]
        return out

    @cached_property
    def asked(self) -> frozenset[str]:
        """Names of all that the checks ask for."""
        return frozenset(name for _, inputs, _ in self._plan.values() for name in inputs)

    def _judge(
        self, findings: list[Finding], passed: list[str], not_run: dict[str, str]
    ) -> Quality:
        findings.sort(key=lambda found: (found.points, found.check))
        score = quality(found.points for found in findings) if findings or passed else None
        critical = any(found.severity == "critical" for found in findings)
        valid = score is not None and score >= self.least and not critical
        return Quality(score, valid, tuple(findings), tuple(passed), not_run)


def quality(points: Any) -> int:
    """What is left of 100 after all `points`, an iterable of int, kept within [0, 100]."""
    return int(min(max(BASE + sum(points), 0), BASE))


def newest(x: np.ndarray, bars: int) -> np.ndarray:
    """The last `bars` values, all of them known."""
    if len(x) < bars:
        raise NotRunError(f"{len(x)} bars, {bars} asked")
    if not np.isfinite(x[-bars:]).all():
        raise NotRunError(f"a value is missing among the last {bars} bars")
    return x[-bars:]


def _declared(function: Any) -> Any:
    return getattr(getattr(function, "func", function), "declared", None)  # a partial has a func


def _missing(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, float | np.floating):
        return isnan(value)
    return isinstance(value, Mapping | tuple | list | np.ndarray) and len(value) == 0


def _failed(name: str, signal: Signal, error: Exception) -> DataError:
    return DataError(
        f"the check {name} failed: {type(error).__name__}: {error}"[:300],
        code="SV-X640",
        where=f"signal of {signal.asset} at {signal.time}",
        why="a fault in a check says nothing about the signal",
        cure=f"correct checks.{name}, or leave it out: ~checks.checks.{name}",
    )

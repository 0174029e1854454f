"""What a run did, in figures: how long its steps took, and what its signals were worth."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stages.signal import Signal

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


class Laps:
    """Names the step under way, as the function that it is made of, and times it.

    Parameters
    ----------
    say : callable
        Shows the name of a step.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._laps: dict[str, float] = {}
        self._open: tuple[str, float] | None = None

    def __call__(self, text: str) -> None:
        self._close()
        self.say(text)
        self._open = text, time.perf_counter()

    def seconds(self) -> dict[str, float]:
        """Seconds of each step so far, in their order; the one under way has ended with it."""
        self._close()
        return {name: round(took, 4) for name, took in self._laps.items()}

    def _close(self) -> None:
        if self._open is not None:
            name, began = self._open
            self._laps[name] = self._laps.get(name, 0.0) + time.perf_counter() - began
            self._open = None


def account(
    signals: Iterable[Signal],
    new: int,
    verdicts: Mapping[str, int],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Figures of a run that stored signals.

    Parameters
    ----------
    signals : iterable of Signal
    new : int
        How many the store did not have.
    verdicts : mapping of str to int
        Of the new ones: how many left (reason ``''``) and how many were withheld, by reason.
    seconds : mapping of str to float
        Of each step.

    Returns
    -------
    dict
        JSON values; shares in [0, 1], None where nothing can be counted.
    """
    said = list(signals)
    newest = max((s.time for s in said), default=None)
    appraised = [s.appraisal for s in said if s.appraisal is not None]
    quality = [a.quality for a in appraised if a.quality is not None]
    risk = [a.risk for a in appraised if a.risk is not None]
    judged = sum(verdicts.values())
    return {
        "signals": len(said),
        "new": new,
        "status": dict(Counter(s.status for s in said)),
        "newest": None if newest is None else newest.isoformat(),
        "abstained": _mean([s.status == "abstain" for s in said]),
        "valid": _mean([a.valid for a in appraised]),
        "quality": _mean(quality),
        "risk": _mean(risk),
        "emitted": verdicts.get("", 0) / judged if judged else None,
        "withheld": {name: n for name, n in verdicts.items() if name},
        "seconds": dict(seconds),
    }


def latencies(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Seconds of each step over runs: ``runs``, ``p50``, ``p95``, ``p99``, ``most``.

    Parameters
    ----------
    runs : sequence of mapping of str to float
        Seconds of the steps of each run.
    """
    steps: dict[str, list[float]] = {}
    for run in runs:
        for name, took in run.items():
            steps.setdefault(name, []).append(float(took))
    return {name: percentiles(took) for name, took in steps.items()}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """How many values, their quantiles (the least value that as many do not pass), the largest."""
    ordered = sorted(values)
    found = {"runs": len(ordered)}
    at = {n: ordered[max(0, -int(-q * len(ordered) // 1) - 1)] for n, q in QUANTILES.items()}
    return found | at | {"most": ordered[-1]}


def _mean(values: Sequence[float]) -> float | None:
    return float(statistics.fmean(values)) if values else None

"""What the figures of an evaluation say, in plain sentences."""

from collections.abc import Collection, Mapping

import numpy as np

from stages.evaluate.standing import Standing
from stages.signal import Severity, Signal

GRAVE: tuple[Severity, ...] = ("critical", "error")
ENDLESS = 1e7  # bars that nobody will see


def rival_lines(rivals: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Whether the pipeline is worth more than its best member, and than the base rate.

    Parameters
    ----------
    rivals : mapping of str to dict
        Log-loss of the pipeline less that of a rival, ``value``, ``low``, ``high``: first the best
        member, then the base rate; see `pipeline.evaluation.Evaluation`.
    """
    if not rivals:
        return []
    (member, base) = rivals
    gaps = (
        f"{gap['value']:+.4f} [{gap['low']:+.4f}, {gap['high']:+.4f}]"
        for gap in (rivals[member], rivals[base])
    )
    beside = "log-loss less the best member's ({}) {}, less the base rate's {}"
    pays = {
        "better": "Stage 3 pays.",
        "worse": f"Stage 3 does not pay: {member} alone is better.",
        "unclear": f"Stage 3 does not pay: it cannot be told from {member} alone.",
    }[_verdict(rivals[member])]
    beats = {
        "better": "The pipeline beats the base rate.",
        "worse": "The pipeline is worse than the base rate.",
        "unclear": "The pipeline cannot be told from the base rate.",
    }[_verdict(rivals[base])]
    return [beside.format(member, *gaps), f"{pays} {beats}"]


def finding_lines(signal: Signal, severities: Collection[Severity]) -> list[str]:
    """What checks of these severities found in a signal, and what to do about it, worst first."""
    if signal.appraisal is None:
        return []
    return [
        f"{found.severity}: {found.text}; {found.cure}"
        for found in signal.appraisal.findings
        if found.severity in severities
    ]


def stored_sentence(signals: int, new: int, verdicts: Mapping[str, int]) -> str:
    """What became of signals that were handed to a store.

    Parameters
    ----------
    signals, new : int
        How many were handed over, and how many of them the store did not know.
    verdicts : mapping of str to int
        New ones that left, under the empty key, and that were withheld, by the kind of reason.
    """
    said = f"{signals:,} signals: {new:,} new in the store"
    if not verdicts:
        return said
    kept = [f"{n:,} {kind}" for kind, n in sorted(verdicts.items(), key=lambda v: -v[1]) if kind]
    withheld = f"; withheld: {', '.join(kept)}" if kept else ""
    return f"{said}, {verdicts.get('', 0):,} of them emitted{withheld}"


def risk_sentence(signal: Signal) -> str:
    """What the risk score is made of, in words; empty where there is none."""
    found = signal.appraisal
    if found is None or found.risk is None or found.band is None:
        return ""
    low, high = found.band
    parts = sorted(found.factors.items(), key=lambda part: -part[1])
    named = ", ".join(f"{name} {points:.0f}" for name, points in parts)
    return (
        f"Risk {found.risk:.0f} in a band of {low:g} to {high:g}: a raw score of {found.raw:.0f} "
        f"({named}), which came to {found.calibrated:.0f}."
    )


def luck_lines(standing: Standing, cost: float) -> list[str]:
    """A Sharpe ratio, never without what the choice among trials leaves of it.

    Parameters
    ----------
    standing : Standing
    cost : float
        Mean round trip of the book, basis points.
    """
    s = standing
    charged = f"after costs of {cost:.1f} bps a round trip" if cost > 0 else "before costs"
    if not np.isfinite(s.sharpe):
        said = "No Sharpe ratio: no closes to trade at, or nothing was held"
        return [f"{said}; {counted_trials(s.trials)}."]
    needed = ""
    if s.bars < s.bars_needed < ENDLESS:
        needed = f" (proof would take {s.bars_needed:,.0f})"
    return [
        f"Sharpe {s.sharpe:+.2f} [{s.low:+.2f}, {s.high:+.2f}] a year, {charged}: a book that "
        f"follows the scores, {s.bars:,} bars{needed}, {s.bars_per_year:g} a year, arithmetic",
        f"Deflated Sharpe {s.deflated:.2f} for {counted_trials(s.trials)} (luck alone "
        f"{s.by_luck:+.2f}); {overfitting_words(s)}",
    ]


def counted_trials(trials: int) -> str:
    """The true number of trials, as the ledger has it."""
    return f"{trials:,} distinct trial{'s' if trials != 1 else ''} in the ledger"


def overfitting_words(standing: Standing) -> str:
    """The probability of backtest overfitting, or why there is none."""
    if np.isfinite(standing.overfitting):
        return (
            f"PBO {standing.overfitting:.2f} of {standing.compared:,} trials "
            f"on {standing.common:,} common bars"
        )
    if standing.compared < 2:
        return "PBO needs 2 trials with common bars"
    return f"PBO needs more than {standing.common} common bars"


def _verdict(gap: Mapping[str, float]) -> str:
    """Whether a loss is below another, above it, or neither by its interval."""
    if gap["high"] < 0:
        return "better"
    return "worse" if gap["low"] > 0 else "unclear"

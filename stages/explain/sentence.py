"""One sentence that says what a signal is, what it rests on, and what stands in its way."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

import numpy as np

from stages.explain.memory import FAMILIES, Memory, column_of
from stages.signal import SIDE_TEXT, Reasons, Signal, WhyNot

TOP = 5  # largest contributions that may be named
SAME = 0.05  # share of its size within which one stage repeats the other


@dataclass(frozen=True)
class Sentence:
    """A signal in words, and the inputs it names, as the explanation calls them.

    Attributes
    ----------
    text : str
    supports, opposes : tuple of str
        Named as pushing towards, and away from, the side that leads.
    """

    text: str
    supports: tuple[str, ...]
    opposes: tuple[str, ...]


def sentence(
    signal: Signal,
    values: Mapping[str, float],
    memory: Memory | None = None,
    cost: float | None = None,
    if_free: bool | None = None,
) -> Sentence:
    """Put a signal into one sentence; every clause is read off its figures.

    Named are at most two of the inputs that push towards the side and one that pushes away, all
    among the five largest contributions. ``Mainly`` says that those named carry half or more of
    all that pushes towards it, ``mostly`` that the baseline is more than half of the margin.

    Parameters
    ----------
    signal : Signal
        With its reasons, or an abstention.
    values : mapping of str to float
        Inputs of the row by column, such as ``panel.loc[row]``.
    memory : Memory, optional
        What the inputs are called, and how high each value is; without it they go by their
        column's name and the bare value.
    cost : float, optional
        Of a round trip, fraction.
    if_free : bool, optional
        Whether the hold would be a side if trading cost nothing, as `Counterfactual` says.
    """
    if signal.side is None:
        return Sentence(f"No view: {'; '.join(w.text for w in signal.why_not)}.", (), ())
    reasons = signal.reasons
    lean = reasons.side if reasons else signal.side
    if not lean:
        return Sentence(_joined(["Holds", _held(signal, cost, if_free)]), (), ())
    certain = floor(100 * signal.certainty + 1e-9) / 100  # 0.799 must not read as 0.80
    odds = f"p {signal.probabilities[lean]:.2f}, certainty {certain:.2f}"
    verb = "Says" if signal.status == "fired" else "Leans"
    head = f"{verb} {SIDE_TEXT[lean]} ({odds})"
    supports: tuple[str, ...] = ()
    opposes: tuple[str, ...] = ()
    if reasons is not None:
        because, supports, opposes = _because(reasons, values, memory)
        head += because
    rest = [head, _trail(signal, lean), _held(signal, cost, if_free)]
    return Sentence(_joined(rest), supports, opposes)


def _because(
    reasons: Reasons, values: Mapping[str, float], memory: Memory | None
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """What pushes towards the side and what away from it, in words and by name."""
    pushes = {n: p for n, p in reasons.contributions.items() if _is_input(n, values) and p != 0}
    largest = sorted(pushes, key=lambda n: (-abs(pushes[n]), n))[:TOP]
    said: dict[str, str] = {}
    for name in largest:
        clause = _clause(name, values, memory)
        if clause not in said.values():  # a context may be a feature as well
            said[name] = clause
    supports = tuple(n for n in said if pushes[n] > 0)[:2]
    against = (n for n in said if pushes[n] < 0)
    opposes = tuple(n for n in against if 4 * abs(pushes[n]) >= abs(pushes[largest[0]]))[:1]
    parts = []
    if 2 * reasons.baseline > abs(reasons.margin) > 0:
        pair = f"at {reasons.baseline:+.2g}, this one at {reasons.margin:+.2g}"
        parts.append(f"mostly because the model leans so on an average row ({pair})")
    if supports:
        total = sum(p for p in pushes.values() if p > 0)
        much = "mainly" if 2 * sum(pushes[n] for n in supports) >= total else "partly"
        much = "in part" if parts else much
        parts.append(f"{much} because {_list([said[n] for n in supports])}")
    text = f", {' and '.join(parts)}" if parts else ""
    if opposes:
        text += f", although {said[opposes[0]]}"
    return text, supports, opposes


def _is_input(name: str, values: Mapping[str, float]) -> bool:
    column = column_of(name)
    return column.split(".")[0] in FAMILIES and column in values


def _clause(name: str, values: Mapping[str, float], memory: Memory | None) -> str:
    column = column_of(name)
    value = float(values[column])
    if memory is None:
        return f"{name} is at {value:.3g}"
    word, place = memory.word(column), float("nan")
    if column in memory.columns:
        place = float(memory.place(column, [value])[0])
    stands = word.is_at(value, place)
    told = word.rule or np.isnan(value + place) or value in word.states
    return f"{word.name} {stands}" + ("" if told else f" ({value:.3g})")


def _trail(signal: Signal, lean: int) -> str:
    """What became of the filter's view, in log-odds of the side over the opposite one."""
    views = [signal.stages.get(name) for name in ("filter", "refiner", "ensemble")]
    if any(view is None for view in views):
        return ""
    first, second, third = (lean * float(view) for view in views)  # type: ignore[arg-type]
    if abs(second - first) <= SAME * max(abs(first), abs(second)):
        verb = "repeats"
    elif first * second < 0:
        verb = "turns"
    else:
        verb = "strengthens" if abs(second) > abs(first) else "weakens"
    seen = f"the refiner {verb} what the filter saw ({first:+.2g} to {second:+.2g})"
    return f"{seen}, of which the ensemble makes {third:+.2g}"


def _held(signal: Signal, cost: float | None, if_free: bool | None) -> str:
    """What holds a signal back, or keeps it unproven."""
    if signal.status == "fired":
        return ""
    why = _list([_why(reason, signal) for reason in signal.why_not])
    if signal.status == "unproven":
        return f"it is unproven, as {why}"
    if if_free and cost:
        why = f"the cost of {1e4 * cost:.3g} bp is not surely earned"
    return f"it is held back because {why}"


def _why(reason: WhyNot, signal: Signal) -> str:
    value, limit = reason.value, reason.limit
    if reason.key == "gate":
        return "the first stage scores it below the gate"
    if value is None or limit is None or not np.isfinite([value, limit]).all():
        rest = reason.text.partition(": ")[2] or reason.text
        return f"its {reason.key} is {rest}" if reason.key in ("cost", "skill") else rest
    rival = next((name for name in SIDE_TEXT.values() if reason.text.endswith(f" of {name}")), "")
    told = {
        "certainty": f"its certainty is below the {limit:.2f} asked for",
        "confidence": f"{rival} is likelier (p {limit:.2f})" if rival else reason.text,
        "novelty": f"its inputs lie {value:.1f} times as far from the training as usual",
        "skill": f"the skill test stands at {value:.2g} of {limit:g}",
    }
    return told.get(reason.key, reason.text)


def _list(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _joined(parts: Sequence[str]) -> str:
    return "; ".join(part for part in parts if part) + "."

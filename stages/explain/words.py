"""What inputs are called in a sentence: read off the functions that make them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import getdoc, signature
from typing import Any

import numpy as np

SPANS = ("bars", "period")  # settings that say over how many bars a function looks
SHORT = {  # written in capitals; no docstring says so
    *("adx", "atr", "cci", "ema", "ewma", "kama", "macd", "mfi", "obv", "rsi", "sma", "vix"),
}
LEVELS = ((0.05, "very low"), (0.25, "low"), (0.75, "middling"), (0.95, "high"), (2, "very high"))


@dataclass(frozen=True)
class Word:
    """An input in words.

    Attributes
    ----------
    name : str
        ``RSI over 14 bars``; the same for no two inputs of a family.
    rule : bool
        A score in [-1, 1] that says buy or sell.
    states : mapping of float to str
        What its few values mean, where it has few.
    """

    name: str
    rule: bool = False
    states: Mapping[float, str] = field(default_factory=dict)

    def is_at(self, value: float, place: float) -> str:
        """Say where a value stands, as the end of a sentence: ``is high``, ``says buy``.

        Parameters
        ----------
        value : float
            NaN is missing.
        place : float in [0, 1]
            Share of the training below it; NaN if it is not known.
        """
        if np.isnan(value):
            return "is missing"
        if self.rule:
            return "says buy" if value > 0 else "says sell" if value < 0 else "is silent"
        if value in self.states:
            return f"is {self.states[value]}"
        return f"is at {value:.3g}" if np.isnan(place) else f"is {level(place)}"


def level(place: float) -> str:
    """Say how high a share of the training lies below: ``low``, ``middling``, ``very high``."""
    return next(word for limit, word in LEVELS if place < limit)


def words(columns: Iterable[str], features: Any = None) -> dict[str, Word]:
    """Name each input column for a reader.

    The name is the term that the function's docstring begins with (``RSI: share of …``), or the
    function's own name, and the bars it looks back on. A column that no function makes goes by
    its own name.

    Parameters
    ----------
    columns : iterable of str
        ``feature.*``, ``rule.*``, ``context.*``.
    features : FeatureSet, optional
        Whose mappings `columns`, `rules` and `context` hold the functions.
    """
    families = {"feature": "columns", "rule": "rules", "context": "context"}
    made: dict[str, dict[str, Any]] = {}
    for family, attribute in families.items():
        held = getattr(features, attribute, {})
        made[family] = dict(held) if isinstance(held, Mapping) else {}
    out: dict[str, Word] = {}
    for column in columns:
        family, _, short = column.partition(".")
        function = made.get(family, {}).get(short)
        rule, kind = family == "rule", " rule" if family == "rule" else ""
        if function is None:
            out[column] = Word(plain(short) + kind, rule)
        else:
            out[column] = Word(_called(function, made["feature"], kind), rule, _states(function))
    return _distinct(out)


def plain(short: str) -> str:
    """A column's own name as words: ``net_flow_20`` is ``net flow 20``."""
    return " ".join(part.upper() if part in SHORT else part for part in short.split("_") if part)


def _called(function: Callable[..., Any], above: Mapping[str, Any], kind: str = "") -> str:
    declared = function.func if isinstance(function, partial) else function
    bound = dict(function.keywords) if isinstance(function, partial) else {}
    parameters = signature(declared).parameters.values()
    if callable(bound.get("of")) and "bar" in bound:  # a feature of longer bars
        return f"{_called(bound['of'], {})} of {bound['bar'].removeprefix('bar_')}"
    set_to = {p.name: p.default for p in parameters if p.default is not p.empty} | bound
    name = _term(declared) or _own_name(declared)
    for setting in re.findall(r"`(\w+)`", name):
        name = name.replace(f"`{setting}`", f"{set_to.pop(setting, setting)}")
    name += kind
    span = next((set_to[key] for key in SPANS if key in set_to), None)
    if span is not None:
        name += f" over {span} bar{'s' if span != 1 else ''}"
    elif {"fast", "slow"} <= set(set_to):
        name += f" of {set_to['fast']} to {set_to['slow']} bars"
    for column in (value for value in bound.values() if isinstance(value, str)):
        if column in above:
            name += f" of {_called(above[column], {})}"
        else:
            name = f"{plain(column)} {name}"
    return name + " among the assets" if getattr(declared, "across_assets", False) else name


def _term(declared: Any) -> str:
    """What a docstring defines in its first line, before a colon; empty if it does not."""
    term, colon, _ = _line(declared).partition(":")
    if not colon or _coded(declared) or "`" in term or "," in term or len(term.split()) > 4:
        return ""
    first = term.split()[0]
    proper = "'" in first or re.search(rf"\b{re.escape(first)}\b", _text(declared)[len(term) :])
    return term if proper or not first[1:].islower() else _lower(term)


def _own_name(declared: Any) -> str:
    """The function's name; the docstring's first clause where names are a catalogue's codes."""
    if _coded(declared) and _text(declared):
        head, colon, tail = _line(declared).partition(":")
        clause = tail if colon and re.search("[A-Z]{2}", head) else head
        return _lower(re.split(r"[,;:.(]| over `bars`", clause.strip())[0].strip())
    known = set(re.findall(r"(?<=[\w,] )[A-Z]\w+", _text(declared)))
    spelled = {word.lower(): word for word in known}
    return " ".join(spelled.get(part, plain(part)) for part in declared.__name__.split("_"))


def _coded(declared: Any) -> bool:
    """Whether a module is a numbered catalogue, such as Alpha158, whose names are codes."""
    return re.search(r"\d$", declared.__module__) is not None


def _line(declared: Any) -> str:
    """First line of the docstring without the shape at its end."""
    return re.sub(r":? *(shape )?\([TN]\w*(, *\w*)*\)\.?$", "", _text(declared).partition("\n")[0])


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _states(function: Callable[..., Any]) -> dict[float, str]:
    """Values that the docstring's first line spells out: ``-1 calm, 0 normal, 1 stormy``."""
    declared = function.func if isinstance(function, partial) else function
    line = _text(declared).partition("\n")[0]
    found = re.search(r"(-?\d+ [a-z]+)(, -?\d+ [a-z]+)+", line)
    pairs = (part.split() for part in found.group().split(", ")) if found else ()
    return {float(value): word for value, word in pairs}


def _text(declared: Any) -> str:
    return getdoc(declared) or ""


def _distinct(found: Mapping[str, Word]) -> dict[str, Word]:
    """Put the column's name beside a name that two of a family share."""
    count: dict[tuple[str, str], int] = {}
    for column, word in found.items():
        key = column.partition(".")[0], word.name
        count[key] = count.get(key, 0) + 1
    return {
        column: word
        if count[column.partition(".")[0], word.name] == 1
        else Word(f"{word.name} ({column.partition('.')[2]})", word.rule, word.states)
        for column, word in found.items()
    }

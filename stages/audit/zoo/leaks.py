"""Sixty leaks of twelve kinds, each planted in a real pipeline, to see that an audit finds them."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from stages.audit.zoo import columns, learning, panels
from stages.audit.zoo.panels import AcrossAssets, Hindsight, WholeSample


@dataclass(frozen=True)
class Leak:
    """A fault of a pipeline.

    Attributes
    ----------
    kind, name : str
    parts : tuple of str
        Components that may be named as the guilty part.
    plant : callable
        An honest pipeline, unfitted, to one that leaks.
    """

    kind: str
    name: str
    parts: tuple[str, ...]
    plant: Callable[[Any], Any]


def peek(function: Any, family: str = "columns", **settings: Any) -> Callable[[Any], Any]:
    """Add a function that looks ahead to the features, the context or the rules."""

    def plant(pipeline: Any) -> Any:
        more = panels.peeking(pipeline.features, family, partial(function, **settings))
        return replace(pipeline, features=more)

    return plant


def remade(kind: Any, **settings: Any) -> Callable[[Any], Any]:
    """Make the panel in a way that leaks."""

    def plant(pipeline: Any) -> Any:
        return replace(pipeline, features=panels.of_kind(kind, pipeline.features, **settings))

    return plant


def swapped(part: str, kind: Any, **settings: Any) -> Callable[[Any], Any]:
    """Put another kind of labels, folds or memory in place of the honest one."""

    def plant(pipeline: Any) -> Any:
        old = getattr(pipeline, part)
        given = {f.name: getattr(old, f.name) for f in fields(old) if f.init}
        return replace(pipeline, **{part: kind(**given | settings)})

    return plant


def early_end(bars: int) -> Callable[[Any], Any]:
    """Labels that claim to end `bars` bars early, with a horizon that leaves room for it."""

    def plant(pipeline: Any) -> Any:
        horizon = max(bars + 2, pipeline.labels.horizon)
        parts = {"labels": replace(pipeline.labels, horizon=horizon)}
        parts["folds"] = replace(pipeline.folds, embargo=horizon)
        if getattr(pipeline, "coverage", None) is not None:
            parts["coverage"] = replace(pipeline.coverage, horizon=horizon)
        long = replace(pipeline, **parts)
        return swapped("labels", learning.EarlyEnd, early=bars)(long)

    return plant


def far_memory(beyond: int) -> Callable[[Any], Any]:
    """A memory of inputs that are newer than the end of the label by `beyond` bars."""

    def plant(pipeline: Any) -> Any:
        ahead = pipeline.labels.span + beyond
        return swapped("replay", learning.FarMemory, ahead=ahead)(pipeline)

    return plant


def tuned(setting: str, values: tuple[Any, ...]) -> Callable[[Any], Any]:
    """Pick a setting of the first tree by the loss on the rows that are reported."""

    def candidates(pipeline: Any) -> list[Any]:
        (name, member), *rest = pipeline.filter.members.items()
        made = []
        for value in values:
            members = {name: type(member)(**member.get_params() | {setting: value}), **dict(rest)}
            made.append(replace(pipeline, filter=replace(pipeline.filter, members=members)))
        return made

    return partial(learning.tuned, candidates=candidates)


FEATURES, FOLDS = ("features",), ("folds",)
FIRST = ("filter", "refiner inputs", "ensemble inputs")

LEAKS: tuple[Leak, ...] = (
    *(
        Leak("shift", f"return of {k} bars later", FEATURES, peek(columns.shifted, ahead=k))
        for k in (1, 2, 10)
    ),
    Leak("shift", "volume of the next bar", FEATURES, peek(columns.later_volume)),
    Leak("shift", "rule of the next bar", ("rules",), peek(columns.later_rule, "rules")),
    Leak(
        "shift", "context of 2 bars later", ("context",), peek(columns.shifted, "context", ahead=2)
    ),
    *(
        Leak(
            "centred window",
            f"mean, {k} bars to each side",
            FEATURES,
            peek(columns.centred, ahead=k),
        )
        for k in (1, 2, 10)
    ),
    Leak("centred window", "polynomial, 2 bars", FEATURES, peek(columns.smoothed, ahead=2)),
    Leak("centred window", "filter both ways", FEATURES, peek(columns.both_ways)),
    *(
        Leak("fill", f"bfill over {k} bars", FEATURES, peek(columns.filled_back, ahead=k))
        for k in (1, 2, 10)
    ),
    Leak("fill", "last of the file", FEATURES, peek(columns.filled_with_last)),
    Leak("fill", "interpolated", FEATURES, peek(columns.interpolated)),
    *(
        Leak("join", f"nearest stamp, {k} bars away", FEATURES, peek(columns.nearest, ahead=k))
        for k in (1, 2, 10)
    ),
    Leak("join", "next stamp", FEATURES, peek(columns.next_stamp)),
    *(
        Leak(
            "slow bar",
            f"close, {k} bars on, at its open",
            FEATURES,
            peek(columns.slow_bar, ahead=k),
        )
        for k in (1, 2, 10)
    ),
    *(
        Leak("whole sample", how, FEATURES, remade(WholeSample, how=how))
        for how in ("scale", "place", "winsorise", "impute", "pca", "select", "encode")
    ),
    *(
        Leak(
            "across assets", f"window of {k + 1} rows", FEATURES, remade(AcrossAssets, window=k + 1)
        )
        for k in (1, 2, 10)
    ),
    Leak("across assets", "rank of the next bar", FEATURES, peek(columns.later_rank, of="close")),
    *(
        Leak("universe", keep, ("readiness",), remade(Hindsight, keep=keep))
        for keep in ("survivors", "liquid", "moderate")
    ),
    *(Leak("labels", f"end {k} bars early", ("labels",), early_end(k)) for k in (1, 2, 10)),
    Leak("labels", "weight by rank", ("labels",), swapped("labels", learning.RankedWeight)),
    Leak("labels", "stake of the sample", ("stake",), swapped("labels", learning.WholeScale)),
    *(
        Leak("folds", fault, FOLDS, swapped("folds", learning.BadFolds, fault=fault))
        for fault in (
            "no purge",
            "no embargo",
            "row count",
            "shuffled",
            "both sides",
            "row numbers",
        )
    ),
    Leak("test rows", "filter fitted before", FIRST, partial(learning.pretrained, stage="filter")),
    Leak("test rows", "trees picked by loss", FIRST, tuned("n_estimators", (1, 2, 3, 4, 5, 6))),
    Leak("test rows", "rate picked by loss", FIRST, tuned("learning_rate", (0.01, 0.03, 0.1, 0.3))),
    Leak("test rows", "temperature", ("ensemble",), learning.recalibrated),
    Leak("test rows", "gate", ("gate",), learning.regated),
    Leak("test rows", "certainty", ("decision",), learning.rethresholded),
    Leak("provenance", "newest references", ("explanation",), learning.refreshed_references),
    Leak("provenance", "baseline of all bars", ("explanation",), learning.whole_baseline),
    *(
        Leak("provenance", f"inputs {k} bars past the label", ("memory",), far_memory(k))
        for k in (1, 2, 10)
    ),
    Leak("provenance", "open labels learnt", ("update",), learning.impatient),
)

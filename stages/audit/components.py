"""What each part of a pipeline says in a world: the tables that an audit compares."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from stages.audit.compare import Said
from stages.audit.probe import Altered, Log, ended, scrambled, states
from stages.base import DataError
from stages.panel import settled
from stages.signal import ODDS

# in the order in which information flows: of several findings the first is the guilty part
ORDER = (
    *("bars", "features", "rules", "context", "readiness", "stake", "labels", "folds", "split"),
    *("roles", "training labels", "filter", "gate", "refiner inputs", "refiner"),
    *("ensemble inputs", "ensemble", "record", "decision", "memory", "learnt"),
    *("explanation", "update"),
)
SPOKEN = (
    *("margin", "margin_sd", "mu_sell", "mu_buy", "epistemic", "aleatoric", "disagreement"),
    *("novelty", "certainty_sell", "certainty_buy"),
)
# of unseen rows: they may know labels up to the row itself
PROMPT = ("ensemble", "record", "decision")
LEARNERS = ("ensemble", "replay")  # what an update teaches, apart from the record of new bars
STAGES = ("filter", "refiner", "ensemble")
FAMILIES = {"feature": "features", "rule": "rules", "context": "context"}
FAMILIES |= {"filter": "filter", "refiner": "refiner", "ungated": "ensemble"}
OWNERS = {"filter.gate": "gate", "ready": "readiness", "obstacle": "readiness"}
OWNERS |= dict.fromkeys(("scale", "cost", "sigma", "floor"), "stake")
OWNERS |= dict.fromkeys((*ODDS, *SPOKEN), "ensemble")
OWNERS |= dict.fromkeys(("side", "status", "certainty", "strength", "why_not"), "decision")

Pairs = Callable[[pd.DataFrame], Iterable[tuple[np.ndarray, np.ndarray]]]


@dataclass(frozen=True)
class World:
    """What is given to a component.

    Attributes
    ----------
    bars : DataFrame of shape (N, F)
    y : DataFrame or None
        Labels that come with the data.
    since : Timestamp or None
        Labels not settled before it are scrambled.
    by : Timestamp or None
        Labels not settled by it are withheld.
    seed : int
        Of the scrambling.
    whole : bool
        Whether every row that another world has must be in this one.
    """

    bars: pd.DataFrame
    y: pd.DataFrame | None = None
    since: pd.Timestamp | None = None
    by: pd.Timestamp | None = None
    seed: int = 0
    whole: bool = True

    def change(self, y: pd.DataFrame) -> pd.DataFrame:
        """The labels of this world."""
        if self.by is not None:
            y = ended(y, self.by)
        return y if self.since is None else scrambled(y, self.since, self.seed)

    def fit(self, pipeline: Any) -> Any:
        """`pipeline` fitted in this world."""
        if self.y is not None:
            here = self.y.index.isin(self.bars.index)
            return pipeline.fit(self.bars, self.change(self.y[here]))
        return replace(pipeline, labels=Altered(pipeline.labels, self.change)).fit(self.bars)


@dataclass(frozen=True)
class Ruler:
    """What may be known when a bar is decided: labels settled `embargo` bars before it.

    Attributes
    ----------
    bars : DatetimeIndex
        The bars that have labelled rows, ascending: what the folds count in.
    embargo : int
    """

    bars: pd.DatetimeIndex
    embargo: int

    @classmethod
    def of(cls, y: pd.DataFrame, embargo: int) -> "Ruler":
        """Count in the bars of the labels `y`."""
        return cls(pd.DatetimeIndex(y.index.unique("time").sort_values()), embargo)

    def cut(self, time: pd.Timestamp) -> pd.Timestamp:
        """Labels not settled before this must not matter to a decision at `time`."""
        at = int(self.bars.searchsorted(time, side="right")) - 1
        return self.bars[max(at - self.embargo, 0)]

    def lawful(self, times: pd.DatetimeIndex) -> pd.DatetimeIndex:
        """First bar of which a label settled at each of `times` may be known; else never."""
        never = pd.DatetimeIndex([pd.Timestamp("2262-01-01", tz="UTC")])
        at = np.minimum(self.bars.searchsorted(times) + self.embargo + 1, len(self.bars))
        return pd.DatetimeIndex(self.bars.append(never))[at]


def inputs(pipeline: Any, labels: Any, world: World) -> Iterator[Said]:
    """Everything of the panel: the features are fitted in this world, `labels` beforehand."""
    yield from _by_component(panel_of(pipeline, labels, world.bars), world)


def panel_of(pipeline: Any, labels: Any, bars: pd.DataFrame) -> pd.DataFrame:
    """The panel that a training on `bars` begins with: before any input is dropped as faulty."""
    fresh = replace(pipeline)
    fresh.features_ = replace(pipeline.features).fit(bars)
    fresh.labels_ = labels
    fresh.quality_ = replace(pipeline.quality)
    return fresh.panel(bars)  # type: ignore[no-any-return]


def outcomes(labels: Any, world: World) -> Iterator[Said]:
    """Labels: each side is settled at its `end`, and everything else with its horizon."""
    y = labels.label(world.bars)
    yield Said("labels", y[["side", "end"]], pd.DatetimeIndex(y["end"]), whole=False)
    yield Said("labels", y, pd.DatetimeIndex(settled(y)))


def handed(component: str, pairs: Pairs, y: pd.DataFrame, world: World) -> Iterator[Said]:
    """Labels that a splitter hands to training, each settled for the first bar that is tested.

    Parameters
    ----------
    component : {'folds', 'split'}
    pairs : callable
        Labels to (train, test) row numbers of them.
    y : DataFrame of shape (n, 3 to 5)
    world : World
    """
    y = world.change(y)
    times = y.index.get_level_values("time")
    for train, test in pairs(y):
        labels = y.iloc[train][["side", "weight"]]
        yield Said(component, labels, pd.DatetimeIndex([times[test].min()] * len(labels)))


def passing(pipeline: Any, rule: Ruler, world: World) -> Iterator[Said]:
    """All that the stages were trained on, and what they said of rows they had not seen."""
    log = Log()
    stages = {name: log.tap(name, getattr(pipeline, name)) for name in STAGES}
    fitted = world.fit(replace(pipeline, **stages))
    for stage, words, y in log.fits:
        lawful = rule.lawful(pd.DatetimeIndex(settled(y)))
        yield Said("training labels", y[["side", "weight"]], lawful, world.whole)
        if stage != "filter":
            yield Said.at_rows(f"{stage} inputs", words, whole=False)
    for said in _by_component(fitted.unseen_, world):
        prompt = said.component in PROMPT
        yield replace(said, known=rule.lawful(said.known)) if prompt else said


def learnt(fitted: Any, time: pd.Timestamp) -> Iterator[Said]:
    """What is deployed when the labels end at `time`, whatever bars come after it."""
    for part, values in states(fitted).items():
        component = "memory" if part == "replay" else "learnt"
        yield _one_row(component, time, {f"{part}.{name}": v for name, v in values.items()})


def decisions(fitted: Any, world: World) -> Iterator[Said]:
    """What a fitted pipeline says of each bar; nothing is stale, for that depends on today."""
    first = world.bars.index.get_level_values("time").min()
    yield from _by_component(fitted.predict(world.bars, as_of=first), world)


def explanation(fitted: Any, rows: pd.Index, world: World) -> Iterator[Said]:
    """Contributions, baseline and output at `rows`."""
    why = fitted.explain(world.bars, rows)
    ends = pd.DataFrame({"baseline": why.baseline, "output": why.output, "raw_gap": why.raw_gap})
    yield Said.at_rows("explanation", why.contributions.join(ends))


def update(fitted: Any, time: pd.Timestamp, y: pd.DataFrame, world: World) -> Iterator[Said]:
    """What an update at `time` leaves behind; open labels may be refused or passed over."""
    own = copy.deepcopy(fitted)
    try:
        own.update(world.bars, world.change(y))
    except DataError as refusal:
        yield _one_row("update", time, {"refused": refusal.code})
        return
    after = states(own)
    left = {f"{part}.{name}": v for part in LEARNERS for name, v in after[part].items()}
    yield _one_row("update", time, left)


def _one_row(component: str, time: pd.Timestamp, values: Mapping[str, Any]) -> Said:
    place = pd.MultiIndex.from_tuples([("-", time)], names=["asset", "time"])
    table = pd.DataFrame([list(values.values())], place, list(values), dtype=object)
    return Said.at_rows(component, table)


def _by_component(table: pd.DataFrame, world: World) -> Iterator[Said]:
    """A panel cut into the parts that made its columns, in the order of `ORDER`."""
    whole = world.whole
    owner = pd.Series({name: _owner(str(name), world) for name in table.columns})
    for component in sorted(owner.unique(), key=ORDER.index):
        yield Said.at_rows(component, table[owner.index[owner == component]], whole)
        whole = False  # a missing row is one finding


def _owner(column: str, world: World) -> str:
    family, dotted, _ = column.partition(".")
    if column in OWNERS:
        return OWNERS[column]
    if dotted and family in FAMILIES:
        return FAMILIES[family]
    return "bars" if column in world.bars else "record"

"""Which worlds an audit looks at: every component, at many decision times, under many futures."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stages.audit import components
from stages.audit.compare import Said
from stages.audit.components import Pairs, Ruler, World
from stages.audit.examine import Run, Trial
from stages.audit.futures import FUTURES, delisted, garbage, jumped, mirrored, soon, worn
from stages.audit.probe import ended, sample, small
from stages.base import DataError
from stages.panel import until

if TYPE_CHECKING:
    from stages.audit.leak import LeakAudit

SHAPED = {"garbage": garbage, "mirrored": mirrored, "delisted": delisted, "jumped": jumped}
WORN = "worn"  # garbage after a past with holes
LABELS_END, BARS_END = 50, 40  # bars before the last: what the deployed probe knows
SPARE = 20  # bars of a block whose labels end in time to be learnt from
EXPLAINED = 3  # rows explained at a decision time

Step = tuple[str, Run, list[Trial]]


@dataclass
class Plan:
    """The trials of one audit, component by component, in the order in which information flows.

    Parameters
    ----------
    audit : LeakAudit
    pipeline : SignalPipeline
    bars : DataFrame of shape (N, F)
    y : DataFrame or None
    split : DateSplit, RollingSplit or None
    model : SignalPipeline or None
    """

    audit: "LeakAudit"
    pipeline: Any
    bars: pd.DataFrame
    y: pd.DataFrame | None
    split: Any
    model: Any

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.audit.seed)
        labels = replace(self.pipeline.labels)
        self.labels = labels if self.y is not None else labels.fit(self.bars)
        self.probe = small(self.pipeline)

    def __iter__(self) -> Iterator[Step]:
        """Yield components and their trials; the next is only planned when it is asked for."""
        yield from self._folds()
        yield from self._panel()
        yield from self._labels()
        yield from self._fits()
        yield from self._decisions()

    @cached_property
    def sample(self) -> World:
        """Bars, and labels that come with them, of a probe."""
        folds, span = self.probe.folds, self.probe.labels.span
        blocks = getattr(folds, "n_folds", 5) / (1 - getattr(folds, "first", 0.4))
        # else a block, or what early stopping leaves of it, has nothing to learn from
        least = int(blocks * (2 * span + self.embargo + SPARE)) + LABELS_END
        back = self.probe.features.warmup + self.probe.window
        bars = max(self.audit.bars, least) + back
        return World(sample(self.bars, self.audit.assets, bars, self.rng), self.y)

    def outcomes(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Labels of `bars`, given or computed."""
        if self.y is None:
            return self.labels.label(bars)
        return self.y[self.y.index.isin(bars.index)]

    def _folds(self) -> Iterator[Step]:
        y, here = self.outcomes(self.bars), World(self.bars)
        yield self._handed("folds", self.pipeline.folds.split, y, here)
        if self.split is not None and not hasattr(self.split, "paths"):
            yield self._handed("split", partial(_parts, self.split), y, here)

    def _handed(self, name: str, pairs: Pairs, y: pd.DataFrame, here: World) -> Step:
        rule = Ruler.of(y, self.embargo if name == "folds" else 0)
        starts = _starts(pairs, y)
        trials = [
            Trial(t, "labels", here, replace(here, since=rule.cut(t), seed=self.audit.seed + i))
            for i, t in enumerate(starts)
        ]
        return name, partial(components.handed, name, pairs, y), trials

    def _panel(self) -> Iterator[Step]:
        run = partial(components.inputs, self.pipeline, self.labels)
        times = decision_times(self.bars, self.audit.times, self.probe.features.warmup, self.rng)
        yield "the panel", run, list(self._trials(World(self.bars), times, [*FUTURES, WORN]))

    def _labels(self) -> Iterator[Step]:
        if self.y is None:
            run = partial(components.outcomes, self.labels)
            times = decision_times(self.bars, self.audit.times, self.labels.span, self.rng)
            yield "labels", run, list(self._trials(World(self.bars), times, list(FUTURES)))

    def _fits(self) -> Iterator[Step]:
        """The same training with another future, and other labels where they were still open."""
        here = self.sample
        y = self._ready(here.bars)
        rule = Ruler.of(y, self.embargo)
        trials = []
        for i, time in enumerate(self._tested(y)):
            for name in [list(SHAPED)[i % len(SHAPED)], "garbage"]:
                bars = SHAPED[name](here.bars, time, self.rng)
                if Ruler.of(self._ready(bars), 0).bars.equals(rule.bars):
                    since, whole = rule.cut(time), name != "delisted"
                    there = replace(here, bars=bars, since=since, seed=i, whole=whole)
                    trials.append(Trial(time, name, here, there))
                    break  # else its blocks would lie elsewhere
        if not trials:
            raise DataError(
                "no other future leaves the blocks of the folds where they are",
                code="SV-F18",
                where=f"{len(rule.bars)} bars of {here.bars.index.unique('asset').size} assets",
                why="the stages can only be compared where both worlds cut the same blocks",
                cure="bring more assets or history, or raise audit.assets and audit.bars",
            )
        yield "the stages", partial(components.passing, self.probe, rule), trials

    def _decisions(self) -> Iterator[Step]:
        """A pipeline that knows labels up to one bar, and bars up to a later one."""
        times = _times(self.sample.bars)
        end, now = times[-LABELS_END], times[-BARS_END]
        here = replace(self.sample, bars=until(self.sample.bars, now), by=end)
        fitted = here.fit(replace(self.probe))

        def learnt(world: World) -> Iterator[Said]:
            again = fitted if world is here else world.fit(replace(self.probe))
            return components.learnt(again, end)

        there = replace(here, bars=garbage(here.bars, end, self.rng))
        yield "what is learnt", learnt, [Trial(end, "garbage", here, there)]
        yield from self._spoken(self.model or fitted, times)
        yield from self._updates(fitted, times)

    def _spoken(self, model: Any, times: pd.DatetimeIndex) -> Iterator[Step]:
        """Decisions and explanations of a fitted pipeline, after all it has learnt from."""
        bars = self.sample.bars
        if model is self.model:
            bars = sample(self.bars, None, model.warmup + BARS_END, self.rng)
            times = _times(bars)
        here, names = World(bars), ["garbage", "cut", "relisted", WORN, "mirrored"]
        chosen = times[
            np.sort(self.rng.permutation(np.arange(-BARS_END, -1))[: self.audit.decisions])
        ]
        run = partial(components.decisions, model)
        yield "decisions", run, list(self._trials(here, chosen, names))
        margin = model.predict(bars, as_of=times[0])["margin"]
        for trial in self._trials(here, chosen, names[:3]):
            rows = margin.index[
                margin.notna() & (margin.index.get_level_values("time") == trial.time)
            ]
            if len(rows):
                some = rows[np.sort(self.rng.permutation(len(rows))[:EXPLAINED])]
                yield "explanations", partial(components.explanation, model, some), [trial]

    def _updates(self, fitted: Any, times: pd.DatetimeIndex) -> Iterator[Step]:
        """An update given labels that have ended, and one offered labels that are still open."""
        bars, time = self.sample.bars, times[-BARS_END + 2]  # few bars: an update walks them all
        y = until(self.outcomes(bars), time)
        here = World(until(bars, time))
        later = times[times > time][0]
        done = partial(components.update, fitted, time, ended(y, time))
        there = replace(here, bars=garbage(bars, time, self.rng))
        yield "updates", done, [Trial(time, "garbage", here, there)]
        open_ = partial(components.update, fitted, time, y)
        yield "updates", open_, [Trial(time, "labels", here, replace(here, since=later, seed=1))]

    @property
    def embargo(self) -> int:
        """Bars before a test block in which no training label may be open."""
        return max(getattr(self.pipeline.folds, "embargo", 0), int(self.pipeline.labels.horizon))

    def _trials(
        self, here: World, times: Iterable[pd.Timestamp], names: Sequence[str]
    ) -> Iterator[Trial]:
        for i, time in enumerate(times):
            name, past = names[i % len(names)], here
            if name == WORN:
                past = replace(here, bars=worn(here.bars, time, self.rng))
            change = FUTURES.get(name, garbage)
            yield Trial(
                time, name, past, replace(past, bars=change(soon(past.bars, time), time, self.rng))
            )

    def _ready(self, bars: pd.DataFrame) -> pd.DataFrame:
        """The labels that a training on `bars` would learn from."""
        y = self.outcomes(bars)
        ready = components.panel_of(self.probe, self.labels, bars)["ready"]
        return y[ready.reindex(y.index, fill_value=False).to_numpy()]

    def _tested(self, y: pd.DataFrame) -> list[pd.Timestamp]:
        """First bars of the blocks that all stages are tested on, then bars within them."""
        starts = _starts(self.probe.folds.split, y)
        stages = sum(getattr(self.probe, name) is not None for name in components.STAGES)
        firsts = starts[stages - 1 :][-self.audit.fits :] or starts[-1:]
        bars = Ruler.of(y, 0).bars
        within = bars[(bars > firsts[0]) & (bars < bars[-1])].difference(firsts)
        more = self.rng.permutation(within)[: self.audit.fits - len(firsts)]
        return [*firsts, *sorted(pd.DatetimeIndex(more))]


def decision_times(
    bars: pd.DataFrame, count: int, warmup: int, rng: np.random.Generator
) -> pd.DatetimeIndex:
    """Bars to decide at: a quarter while histories are short, the rest spread, the last but one.

    Parameters
    ----------
    bars : DataFrame of shape (N, F)
    count : int
    warmup : int
        Bars that count as a short history.
    rng : Generator
    """
    times = _times(bars)
    end = len(times) - 1
    early = rng.integers(0, max(min(warmup, end), 1), count // 4)
    edges = np.linspace(min(warmup, end // 2), end, count - len(early) + 1)
    spread = rng.uniform(edges[:-1], edges[1:]).astype(int)
    at = np.unique(np.clip([*early, *spread, end - 1], 0, max(end - 1, 0)))
    return times[at]


def _times(table: pd.DataFrame) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(table.index.unique("time").sort_values())


def _starts(pairs: Pairs, y: pd.DataFrame) -> list[pd.Timestamp]:
    time = y.index.get_level_values("time")
    return sorted({time[test].min() for _, test in pairs(y)})


def _parts(split: Any, y: pd.DataFrame) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for parts in split.parts(y):
        for name in parts:
            if name != "train":
                yield parts["train"], parts[name]

"""How the members of stages 1 and 2 go on learning, and what keeps stage 3 honest meanwhile.

Members are taught every few bars, from labels that have matured. Stage 3 hears of a row only what
was said by members that had not learnt from it: each row is spoken of before its label is learnt,
and rows whose labels are open when the members change keep the words of the members before, who
had seen nothing of the bars in between. So stage 3 goes on weighing words about unseen rows, as in
its training, and its weights and its temperature follow as the words change their meaning.
"""

import copy
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from safetensors.numpy import load, save

from stages.base import Stage, State
from stages.filter.relearn import TreeLearning
from stages.filter.tree_filter import TreeFilter
from stages.online.replay import ReplayBuffer
from stages.panel import named, settled
from stages.refiner.relearn import NetLearning
from stages.signal import ODDS

log = logging.getLogger(__name__)

PART = "words.safetensors"
ROWS = "rows."  # begins the names of the parts of the rows
Say = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Learning:
    """When the members learn, and from what.

    Parameters
    ----------
    trees : TreeLearning or None, default=None
        Of stage 1; None leaves it as it was trained.
    nets : NetLearning or None, default=None
        Of stage 2.
    every : int >= 1, default=20
        Bars of matured labels between two lessons: few rows move leaves by chance.
    share : float in [0, 1], default=0.5
        Of the rows of a lesson, those that come from the memory. 0 learns the new rows alone, 1
        draws as many rows as are new from the memory, which holds new ones too.
    share_drifted : float in [0, 1], default=0.1
        After a confirmed change of the market; then only rows that the model still foretells
        better than the shares of the sides do are replayed.
    seed : int, default=0

    Notes
    -----
    Rules and gate are not taught; the gate goes on stopping the share of rows that it stopped.
    """

    trees: TreeLearning | None = None
    nets: NetLearning | None = None
    every: int = 20
    share: float = 0.5
    share_drifted: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1 bar, got {self.every}")
        if not 0 <= self.share <= 1 or not 0 <= self.share_drifted <= 1:
            raise ValueError(
                "share and share_drifted must lie in [0, 1], "
                f"got {self.share} and {self.share_drifted}"
            )

    @property
    def teaches(self) -> bool:
        """Whether any member learns; else matured rows only wait, those of the last bars."""
        return self.trees is not None or self.nets is not None

    def teach(
        self,
        stages: tuple[TreeFilter, Stage | None],
        pending: "Pending",
        memory: ReplayBuffer,
        say: Say,
        drifted: bool = False,
    ) -> tuple[TreeFilter, Any]:
        """Copies of stages 1 and 2 that have learnt the pending rows, and replayed ones.

        Parameters
        ----------
        stages : (TreeFilter, Stage or None)
        pending : Pending
        memory : ReplayBuffer
        say : callable of DataFrame
            The whole model, see `Stack.predict`: which replayed rows still hold is its word.
        drifted : bool, default=False
            Whether a change of the market is confirmed.
        """
        trees, nets = stages
        seed = self.seed + pending.lessons_
        panel, y, replayed = self._lesson(pending.rows_, memory, say, seed, drifted)
        if len(y) and self.trees is not None:
            trees = copy.copy(trees).relearn(panel, y, self.trees, seed, drifted)
        if len(y) and self.nets is not None and nets is not None:
            nets = copy.copy(nets).relearn(panel, y, replayed, self.nets, seed)  # type: ignore[attr-defined]
        log.info("the members learnt from %d rows, %d of them replayed", len(y), replayed.sum())
        return trees, nets

    def _lesson(
        self, rows: ReplayBuffer, memory: ReplayBuffer, say: Say, seed: int, drifted: bool
    ) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
        """Panel and labels of new and replayed rows, and which of them are replayed."""
        share = self.share_drifted if drifted else self.share
        news = len(rows) if share < 1 else 0
        olds = round(news * share / (1 - share)) if share < 1 else len(rows)
        new = _called(rows.sample(news, seed, weighed=True), "new")
        old = _called(memory.sample(olds, seed, weighed=True), "old")
        if drifted and len(old[1]):
            old = _holding(old, say)
        panel, y = (pd.concat(parts) for parts in zip(new, old, strict=True))
        return panel, y, np.arange(len(y)) >= len(new[1])


@dataclass
class Pending:
    """What the members have still to learn, and what they said of rows whose labels are open.

    Parameters
    ----------
    rows : ReplayBuffer
        Template of the memory that holds matured rows until the next lesson; where they are too
        many for it, a fair sample of them.

    Attributes
    ----------
    rows_ : ReplayBuffer
    bars_ : int
        Bars at which labels matured since the last lesson.
    newest_ : Timestamp or None
        The newest of all such bars.
    lessons_ : int
    taught_ : Timestamp or None
        Bar of the last lesson.
    words_ : DataFrame
        Logits of rows up to that bar, by the members before it.
    """

    rows: ReplayBuffer = field(default_factory=ReplayBuffer)

    def __post_init__(self) -> None:
        self.rows_ = replace(self.rows, policy=None)
        self.bars_, self.lessons_ = 0, 0
        self.newest_: pd.Timestamp | None = None
        self.taught_: pd.Timestamp | None = None
        self.words_ = pd.DataFrame()

    def blocks(self, y: pd.DataFrame, every: int) -> Iterator[tuple[pd.DataFrame, Any]]:
        """Cut labels where a lesson is due, as many bars after the last one as `every` says.

        Yields
        ------
        DataFrame
            Labels up to the lesson; those left over, if any, come last.
        Timestamp or None
            Bar of the lesson; None where none is due.
        """
        ends = settled(y)
        bars = pd.DatetimeIndex(ends.unique()).sort_values()
        fresh = bars if self.newest_ is None else bars[bars > self.newest_]
        first = max(every - self.bars_ - 1, 0)
        since: pd.Timestamp | None = None
        for bar in fresh[first::every]:
            yield y[_between(ends, since, bar)], bar
            since = bar
        yield y[_between(ends, since, None)], None

    def add(self, panel: pd.DataFrame, y: pd.DataFrame) -> Self:
        """Note matured rows; `panel` holds their windows and what was said of them."""
        if len(y):
            bars = pd.DatetimeIndex(settled(y).unique())
            fresh = bars if self.newest_ is None else bars[bars > self.newest_]
            self.bars_ += len(fresh)
            self.newest_ = bars.max() if self.newest_ is None else max(self.newest_, bars.max())
            self.rows_.add(panel, y)
        return self

    def taught(self, words: pd.DataFrame, bar: pd.Timestamp) -> Self:
        """After a lesson: nothing is pending, and `words` are what had been said of open rows."""
        self.rows_ = replace(self.rows, policy=None)
        self.bars_, self.lessons_ = 0, self.lessons_ + 1
        self.taught_, self.words_ = bar, words
        return self

    def passed(self) -> Self:
        """A lesson was due, and no member was to learn: what waited for it is let go."""
        self.rows_, self.bars_ = replace(self.rows, policy=None), 0
        return self

    def open_words(self, panel: pd.DataFrame, rows: pd.Index) -> pd.DataFrame:
        """Logits of `rows` in `panel`, in place of which older words stay if there are any."""
        return self.as_said(panel).loc[rows, named(panel, "filter", "refiner")]

    def as_said(self, panel: pd.DataFrame) -> pd.DataFrame:
        """`panel` with the words of the members before, where a row has kept them."""
        if self.words_.empty:
            return panel
        both = panel.index.intersection(self.words_.index)
        panel = panel.copy()
        panel.loc[both, self.words_.columns] = self.words_.loc[both]
        return panel

    def unheard(self, rows: pd.Index) -> np.ndarray:
        """Rows up to the last lesson of which no words are kept: members now know their bars."""
        if self.taught_ is None:
            return np.zeros(len(rows), dtype=bool)
        early = np.asarray(rows.get_level_values("time") <= self.taught_)
        return early & ~np.asarray(rows.isin(self.words_.index))

    def state(self) -> State:
        rows = self.rows_.state()
        index: list[Any] = [] if self.words_.empty else self.words_.index.tolist()
        values = {
            "rows": dict(rows.values),
            "bars": self.bars_,
            "lessons": self.lessons_,
            "newest": None if self.newest_ is None else self.newest_.isoformat(),
            "taught": None if self.taught_ is None else self.taught_.isoformat(),
            "assets": [str(name) for name, _ in index],
            "times": [time.isoformat() for _, time in index],
            "columns": list(self.words_.columns),
        }
        said = np.ascontiguousarray(self.words_.to_numpy("float64"))
        parts = {f"{ROWS}{name}": part for name, part in rows.parts.items()}
        return State(values, parts | {PART: save({"words": said})})

    def restore(self, state: State) -> Self:
        values = state.values
        parts = {n.removeprefix(ROWS): p for n, p in state.parts.items() if n.startswith(ROWS)}
        self.rows_ = replace(self.rows, policy=None).restore(State(values["rows"], parts))
        self.bars_, self.lessons_ = values["bars"], values["lessons"]
        self.newest_, self.taught_ = (
            None if values[name] is None else pd.Timestamp(values[name])
            for name in ("newest", "taught")
        )
        if values["columns"]:
            times = pd.to_datetime(values["times"], utc=True, format="ISO8601").as_unit("us")
            names = pd.Index(values["assets"], dtype="str")
            index = pd.MultiIndex.from_arrays([names, times], names=["asset", "time"])
            said = load(state.parts[PART])["words"]
            self.words_ = pd.DataFrame(said, index, values["columns"])
        return self


def _between(ends: pd.Series, since: pd.Timestamp | None, until: pd.Timestamp | None) -> np.ndarray:
    chosen = np.ones(len(ends), dtype=bool)
    if since is not None:
        chosen &= (ends > since).to_numpy()
    if until is not None:
        chosen &= (ends <= until).to_numpy()
    return chosen


def _called(
    part: tuple[pd.DataFrame, pd.DataFrame], name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A sample whose pseudo-assets are called apart from those of another."""

    def renamed(table: pd.DataFrame) -> pd.DataFrame:
        assets = name + " " + table.index.get_level_values("asset").astype("str")
        times = table.index.get_level_values("time")
        return table.set_axis(pd.MultiIndex.from_arrays([assets, times], names=["asset", "time"]))

    return renamed(part[0]), renamed(part[1])


def _holding(
    part: tuple[pd.DataFrame, pd.DataFrame], say: Say
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a sample that the model still foretells better than the shares of the sides."""
    panel, y = part
    odds = say(panel).loc[y.index, ODDS].to_numpy()
    side = y["side"].to_numpy() + 1
    share = np.bincount(side, minlength=3) / len(side)
    base = -(share[share > 0] * np.log(share[share > 0])).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        holds = -np.log(odds[np.arange(len(side)), side]) < base
    y = y[holds]
    return panel[panel.index.get_level_values("asset").isin(y.index.unique("asset"))], y

"""One update of a fitted pipeline: each row is spoken of, then learnt, in the order of time."""

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.matured import known, newer_rows, newest_rows, refuse_open_horizons
from stages.base import Stage, fitted
from stages.online.learning import Learning, Pending
from stages.online.prequential import prequential
from stages.panel import check_labels, check_panel, named, settled, stretch, until
from stages.signal import ODDS
from stages.stack import Stack

if TYPE_CHECKING:
    from pipeline.signal_pipeline import SignalPipeline


@dataclass
class Learnt:
    """What an update did.

    Attributes
    ----------
    learned, known, incomplete : int
        Rows; see `SignalPipeline.update`.
    lessons : int
        How often the members of stages 1 and 2 were taught.
    y : DataFrame
        The labels that were learnt.
    said : DataFrame
        `p_sell`, `p_hold`, `p_buy` of those of them that were spoken of before: by the model as
        it then stood.
    frozen : DataFrame
        The same rows by the model before the update, which learnt nothing meanwhile.
    before : Stack
        The stages before the update.
    """

    learned: int
    known: int
    incomplete: int
    lessons: int = 0
    y: pd.DataFrame = field(default_factory=pd.DataFrame)
    said: pd.DataFrame = field(default_factory=pd.DataFrame)
    frozen: pd.DataFrame = field(default_factory=pd.DataFrame)
    before: Stack | None = None

    @property
    def counts(self) -> dict[str, int]:
        """`learned`, `known` and `incomplete` by name."""
        return {name: getattr(self, name) for name in ("learned", "known", "incomplete")}


def learn(  # noqa: PLR0913  what is learnt, by what, and when
    pipeline: "SignalPipeline",
    bars: pd.DataFrame,
    y: pd.DataFrame | None = None,
    learning: Learning | None = None,
    drifted: bool = False,
    compare: bool = False,
    every: int = 1,
    at_once: bool | None = None,
) -> Learnt:
    """Let `pipeline` learn what matured since the last time.

    Parameters
    ----------
    pipeline : SignalPipeline
        Fitted; it is changed.
    bars, y, learning, drifted
        See `SignalPipeline.update`.
    compare : bool, default=False
        Whether to ask the model before the update too: `Learnt.frozen`, `Learnt.before`.
    every : int, default=1
        Bars between two updates of stage 3: for benchmarks, which have no time for each.
    at_once : bool, optional
        Whether the members do not wait for the next lesson; default where `drifted`.
    """
    panel = pipeline.panel(check_panel(bars))
    y = check_labels(fitted(pipeline, "labels_").label(bars) if y is None else y)
    refuse_open_horizons(y, bars.index.get_level_values("time").max())
    new = y[~known(y.index, pipeline.learned_rows_)]
    usable = panel["ready"].reindex(new.index, fill_value=False).to_numpy()
    ready = new[usable & ~pipeline.pending_.unheard(new.index)]
    learnt = Learnt(len(ready), len(y) - len(new), len(new) - len(ready), y=ready)
    if not len(ready):
        return learnt
    if compare:
        stack = pipeline.stack_
        learnt.before = Stack(*(stack.filter, stack.refiner, copy.deepcopy(stack.ensemble)))
        rows = stretch(panel, ready.index, pipeline.window)
        learnt.frozen = learnt.before.predict(rows).loc[ready.index, ODDS]
    said, lessons = [], pipeline.pending_.lessons_
    hurried = drifted if at_once is None else at_once
    for labels, bar in _blocks(pipeline.pending_, ready, learning, bars, hurried):
        said.append(_learn_block(pipeline, panel, bars, labels, bar, learning, every))
        if bar is not None and learning is not None and learning.teaches:
            _teach(pipeline, panel, bar, learning, drifted)
        elif bar is not None:
            pipeline.pending_.passed()
    learnt.said, learnt.lessons = pd.concat(said), pipeline.pending_.lessons_ - lessons
    return learnt


def _blocks(
    pending: Pending,
    y: pd.DataFrame,
    learning: Learning | None,
    bars: pd.DataFrame,
    hurried: bool,
) -> list[tuple[pd.DataFrame, pd.Timestamp | None]]:
    """Labels, and the bar of the lesson after them, or None."""
    if learning is None:
        return [(y, None)]
    blocks = list(pending.blocks(y, learning.every))
    if hurried and len(blocks) == 1:  # a confirmed change does not wait
        blocks[0] = (blocks[0][0], bars.index.get_level_values("time").max())
    return blocks


def _learn_block(  # noqa: PLR0913  all that a block is made of
    pipeline: "SignalPipeline",
    panel: pd.DataFrame,
    bars: pd.DataFrame,
    y: pd.DataFrame,
    bar: pd.Timestamp | None,
    learning: Learning | None,
    every: int,
) -> pd.DataFrame:
    """Speak of rows up to `bar` and learn `y` on the way; what had been said of the rows of `y`."""
    seen = panel if bar is None else until(panel, bar)
    fresh = newer_rows(seen, pipeline.record_.rows_, pipeline.learned_until_)
    rows = y.index.append(fresh).unique()
    if not len(rows):
        return pipeline.record_.rows_.iloc[:0][ODDS]
    part = pipeline.stack_.predict(stretch(seen, rows, pipeline.window))
    part = pipeline.pending_.as_said(part)
    said = prequential(pipeline.stack_.ensemble, part, y, fresh, odds_and_doubt, every)
    spoken = pd.concat([pipeline.record_.rows_[ODDS], said[ODDS]])
    known_bars = bars if bar is None else until(bars, bar)
    pipeline.record_.update(said, y, known_bars)
    if pipeline.appraiser_ is not None:
        pipeline.appraiser_.update(said, known_bars, pipeline.instruments.classes)
    pipeline.replay_.add(part, y)
    if learning is not None:
        pipeline.pending_.add(part, y)
    if len(y):
        pipeline.learned_until_ = max(pipeline.learned_until_, settled(y).max())
        pipeline.learned_rows_ |= newest_rows(y)
    return spoken[spoken.index.isin(y.index)]


def _teach(
    pipeline: "SignalPipeline",
    panel: pd.DataFrame,
    bar: pd.Timestamp,
    learning: Learning,
    drifted: bool,
) -> None:
    """Let stages 1 and 2 learn what is pending; open rows keep the words of before."""
    stack, pending = pipeline.stack_, pipeline.pending_
    seen = until(panel, bar)
    still = seen.index[seen["ready"].to_numpy() & ~known(seen.index, pipeline.learned_rows_)]
    said = stack.predict(stretch(seen, still, pipeline.window)) if len(still) else seen.iloc[:0]
    words = pending.open_words(said, still) if len(still) else pd.DataFrame()
    taught = learning.teach(
        (stack.filter, stack.refiner), pending, pipeline.replay_, stack.predict, drifted
    )
    pipeline.stack_ = Stack(*taught, stack.ensemble, stack.novelty)
    pipeline.forget_background()
    pending.taught(words, bar)


def odds_and_doubt(ensemble: Stage, panel: pd.DataFrame) -> pd.DataFrame:
    """What the track record and the risk score keep of rows until their labels are known."""
    return ensemble.predict(panel)[[*ODDS, "epistemic"]].join(panel.filter(["sigma"]))


def remembered(pipeline: "SignalPipeline", n: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """At most `n` remembered rows with their windows, as a panel the stages can be asked about."""
    panel, y = pipeline.replay_.sample(n, seed)
    spoken = named(panel, "filter", "refiner")
    return panel.drop(columns=spoken), y

"""Three stages in a row, and the only place that says what each may learn from."""

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from stages.base import ConfigError, Stage
from stages.ensemble.decide import Decide
from stages.ensemble.novelty import Novelty
from stages.filter.gate import OPEN, gate_score
from stages.filter.tree_filter import TreeFilter
from stages.folds import PurgedWalkForward, out_of_fold
from stages.online.prequential import prequential
from stages.panel import joined, light, named, settled, until
from stages.roles import DEPLOYED, Roles, fold_of, roles_in
from stages.signal import ODDS

UNGATED = [*ODDS, "margin", "margin_sd", "certainty_sell", "certainty_buy"]

log = logging.getLogger(__name__)


@dataclass
class Stack:
    """Filter, refiner and ensemble; each adds its columns to the panel.

    Parameters
    ----------
    filter : TreeFilter
    refiner : Stage or None
        None leaves stage 2 out.
    ensemble : Stage
    novelty : Novelty, optional
        Column ``novelty``: how far the inputs lie from those of the training. No stage reads it.
    """

    filter: TreeFilter
    refiner: Stage | None
    ensemble: Stage
    novelty: Novelty | None = None

    def __iter__(self) -> Any:
        """Yield (name, stage) in order."""
        stages = {"filter": self.filter, "refiner": self.refiner, "ensemble": self.ensemble}
        return ((name, stage) for name, stage in stages.items() if stage is not None)

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        """`panel` with the columns of every stage, N rows."""
        said, read = [], light(panel)
        for _, stage in self:
            said.append(stage.predict(read))
            read = joined(read, said[-1])
        if self.novelty is not None:
            said.append(pd.DataFrame({"novelty": self.novelty.predict(read)}, panel.index))
        if any(name in panel for part in said for name in part):  # it had been asked before
            return panel.assign(**{name: part[name] for part in said for name in part})
        return pd.concat([panel, *said], axis=1)

    def compare(
        self, panel: pd.DataFrame, rows: pd.Index, y: pd.DataFrame | None = None, every: int = 0
    ) -> pd.DataFrame:
        """`predict`, and what stage 3 says with the gate open as ``ungated.*``: to evaluate.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
        rows : MultiIndex
            Rows to speak of, asset-major.
        y : DataFrame of shape (n, 3 to 5), optional
            Labels that a copy of stage 3 learns on its way, each once it is settled.
        every : int, default=0
            Bars between two updates; 0: it stays as it is.
        """
        panel = panel.assign(**self.filter.predict(panel))
        gate = panel["filter.gate"]
        panel["filter.gate"] = 1.0
        if self.refiner is not None:
            panel = panel.assign(**self.refiner.predict(panel))
        panel["filter.gate"] = gate
        if y is None or not every:
            return self._measured(_as_gated(self.ensemble, panel.loc[rows]))
        learner = copy.deepcopy(self.ensemble)
        said = prequential(learner, panel, y, rows, _as_gated, every)  # type: ignore[arg-type]
        return self._measured(said.loc[rows])

    def _measured(self, panel: pd.DataFrame) -> pd.DataFrame:
        return panel if self.novelty is None else panel.assign(novelty=self.novelty.predict(panel))


@dataclass(frozen=True)
class Passed:
    """What a purged pass over the history leaves behind.

    Attributes
    ----------
    stack : Stack
        Fitted on all labelled rows: what is deployed.
    unseen : DataFrame
        Rows no stage had seen when it spoke of them, with the columns of every stage;
        ``ungated.p_*`` is stage 3 before the gate.
    panel : DataFrame
        The panel with the out-of-fold logits of stages 1 and 2.
    matured : DataFrame
        The labels that stage 3 learnt from.
    gate : mapping
        Threshold and discarded share on unseen rows; None where no row was behind a gate.
    roles : Roles
        Which rows did what in each of the fits.
    """

    stack: Stack
    unseen: pd.DataFrame
    panel: pd.DataFrame
    matured: pd.DataFrame
    gate: Mapping[str, float | None]
    roles: Roles


def pass_forward(
    stack: Stack, panel: pd.DataFrame, y: pd.DataFrame, folds: PurgedWalkForward, decide: Decide
) -> Passed:
    """Fit each stage on what the stages before it said about rows they had not seen.

    Blocks are cut once. Stage 1 is unseen from the second block on, stage 2 learns from those
    rows and is unseen from the third, stage 3 from the fourth; the gate of a block is set on
    those rows of the blocks before it whose labels had ended. Within its block stage 3 goes on
    learning as it does once deployed: it speaks of a row, and learns its label when that is over.

    Parameters
    ----------
    stack : Stack
        Templates; copies are fitted.
    panel : DataFrame of shape (N, F)
    y : DataFrame of shape (n, 3)
    folds : PurgedWalkForward
    decide : Decide
        Says which rows the pipeline would fire on: what the gate must keep.

    Raises
    ------
    ConfigError
        If there are fewer test blocks than stages.
    LeakError
        SV-F26 if a row has two roles in a fold, or a stage learns from words of one that had
        seen the row; see `Roles`.

    References
    ----------
    Wolpert (1992), "Stacked generalization", Neural Networks 5; Lopez de Prado (2018),
    "Advances in Financial Machine Learning", ch. 7.
    """
    edges = folds.edges(y)
    _refuse_few_blocks(len(edges) - 1, len(list(stack)))
    roles = Roles(panel.index)
    note = partial(roles.record, "filter")
    _announce("filter", y, edges)
    z1 = out_of_fold(stack.filter, panel, y, folds, edges, note)
    trees = replace(stack.filter).fit(panel, y)
    note(DEPLOYED, roles_in(trees, y))
    panel, every, y, edges = _joined(panel, z1), y, y.loc[z1.index], edges[1:]
    refiner = None
    if stack.refiner is not None:
        # one that does not read the filter's words may learn from rows the filter knows by heart
        heard = getattr(stack.refiner, "static", True)
        known = y if heard else every
        note = partial(roles.record, "refiner", hears=["filter"] if heard else [])
        _announce("refiner", known, edges)
        z2 = out_of_fold(stack.refiner, panel, known, folds, edges, note)
        refiner = replace(stack.refiner).fit(panel, known)
        note(DEPLOYED, roles_in(refiner, known))
        panel, y, edges = _joined(panel, z2), y.loc[z2.index], edges[1:]
    _announce("ensemble", y, edges)
    ensemble = replace(stack.ensemble).fit(panel, y)
    hears = [name for name, _ in stack]
    roles.record("ensemble", DEPLOYED, roles_in(ensemble, y), hears[:-1])
    unseen = _gated_pass(stack, panel, y, folds, edges, decide, roles)
    roles.record("gate", DEPLOYED, {"calibrate": unseen.index}, hears)
    scores, fires, weights = _firing(unseen, y, decide)
    trees.set_gate(scores, fires, weights)
    tested = unseen[unseen["gate_set"]]
    gate = {
        "threshold": trees.threshold_,
        # of a single test block none is behind a gate that blocks before it have set
        "discarded": float(1 - tested["filter.gate"].mean()) if len(tested) else None,
        "rows": float(len(tested)),
    }
    roles.record("novelty", DEPLOYED, {"train": y.index})
    fitted = Stack(trees, refiner, ensemble, Novelty().fit(panel.loc[y.index]))
    return Passed(fitted, unseen.drop(columns="gate_set"), panel, y, gate, roles)


def _gated_pass(
    stack: Stack,
    panel: pd.DataFrame,
    y: pd.DataFrame,
    folds: PurgedWalkForward,
    edges: pd.DatetimeIndex,
    decide: Decide,
    roles: Roles,
) -> pd.DataFrame:
    """Stage 3 on unseen rows, with the gate that the blocks before would have set.

    No row learns from a label that was open at its time: the label of a test row is learnt after
    the row was spoken of, so it has no second role.
    """
    time = y.index.get_level_values("time")
    hears = [name for name, _ in stack]
    parts: list[pd.DataFrame] = []
    for train, test in folds.split(y, edges):
        known, rows = y.iloc[train], panel.loc[y.index[test]]
        learner = replace(stack.ensemble).fit(until(panel, time[train].max()), known)
        # a weight follows from where labels end, so those still open must not count
        before = _gathered(parts, known.index) if parts else rows[:0]
        fold, tested = fold_of(rows.index), {"test": rows.index}
        roles.record("ensemble", fold, tested | roles_in(learner, known), hears[:-1])
        roles.record("gate", fold, tested | {"calibrate": before.index}, hears)
        roles.record("novelty", fold, tested | {"train": known.index})
        threshold = OPEN
        if len(before):
            scores, fires, weights = _firing(before, y, decide)
            threshold = stack.filter.gate_threshold(scores, fires, weights)
        said = _said_on_the_way(learner, panel, _released(y, train, test), rows, threshold, folds)
        novelty = Novelty().fit(panel.loc[known.index]).predict(rows)
        parts.append(said.assign(novelty=novelty, gate_set=len(before) > 0))
    return _gathered(parts, y.index)


def _released(y: pd.DataFrame, train: np.ndarray, test: np.ndarray) -> pd.DataFrame:
    """Labels that end within a test block."""
    rest = (settled(y) <= y.index.get_level_values("time")[test].max()).to_numpy(copy=True)
    rest[train] = False
    return y[rest]


def _said_on_the_way(  # noqa: PLR0913  all that a block is made of
    learner: Stage,
    panel: pd.DataFrame,
    y: pd.DataFrame,
    rows: pd.DataFrame,
    threshold: float,
    folds: PurgedWalkForward,
) -> pd.DataFrame:
    """What stage 3 says of the rows of a block, learning `y` as its labels end."""

    def say(learner: Stage, some: pd.DataFrame) -> pd.DataFrame:
        return _behind_gate(some, learner, gate_score(some) >= threshold)

    if not folds.update_every:
        return say(learner, rows)
    said = prequential(learner, panel, y, rows.index, say, folds.update_every)  # type: ignore[arg-type]
    return said.loc[rows.index]


def _gathered(parts: list[pd.DataFrame], index: pd.Index) -> pd.DataFrame:
    """Those rows of several blocks that `index` names, asset-major again."""
    said = pd.concat(parts)
    at = said.index.get_indexer(index)
    return said.iloc[at[at >= 0]]


def _behind_gate(panel: pd.DataFrame, ensemble: Stage, passes: np.ndarray) -> pd.DataFrame:
    """Stage 3 twice: on all that stage 2 said, as ``ungated.*``, and on what the gate lets by.

    The table keeps the logits of stage 2 for every row, so that it can be judged alone.
    """
    ungated = ensemble.predict(panel)[UNGATED].add_prefix("ungated.")
    refined = {name: panel[name].where(passes) for name in named(panel, "refiner")}
    gated = panel.assign(**{"filter.gate": passes.astype(float)}, **refined)
    said = ensemble.predict(gated)
    return panel.assign(**{"filter.gate": gated["filter.gate"]}, **ungated, **said)


def _as_gated(ensemble: Stage, panel: pd.DataFrame) -> pd.DataFrame:
    return _behind_gate(panel, ensemble, panel["filter.gate"].to_numpy() == 1.0)


def _firing(
    unseen: pd.DataFrame, y: pd.DataFrame, decide: Decide
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gate scores, rows that the ungated pipeline fires on, and weights: what a gate is set on.

    Where it fires on less than a tenth of the rows, its most certain tenth stands in.
    """
    ungated = {name: unseen[f"ungated.{name}"] for name in UNGATED}
    said = decide.decide(unseen.assign(**ungated, **{"filter.gate": 1.0}))
    certainty = said["certainty"].to_numpy(dtype=float)
    fires = certainty >= min(decide.certainty, float(np.nanquantile(certainty, 0.9)))
    return gate_score(unseen), fires, y.loc[unseen.index, "weight"].to_numpy()


def _joined(panel: pd.DataFrame, said: pd.DataFrame) -> pd.DataFrame:
    return panel.assign(**said.reindex(panel.index))


def _refuse_few_blocks(blocks: int, stages: int) -> None:
    if blocks < stages:
        raise ConfigError(
            f"{blocks} test blocks are too few for {stages} stages",
            code="SV-X105",
            where=f"folds.n_folds={blocks}",
            why="each stage is unseen one block later than the stage before it",
            cure=f"folds.n_folds={stages} or more",
        )


def _announce(stage: str, y: pd.DataFrame, edges: pd.DatetimeIndex) -> None:
    log.info("%s: %d rows, %d folds from %s", stage, len(y), len(edges) - 1, edges[1].date())

"""Three stages in a row, and the only place that says what each may learn from."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from stages.base import ConfigError, Stage
from stages.ensemble.decide import Decide
from stages.filter.gate import OPEN, gate_score, gate_threshold
from stages.filter.tree_filter import TreeFilter
from stages.folds import PurgedWalkForward, out_of_fold
from stages.panel import named, until
from stages.signal import ODDS

UNGATED = [*ODDS, "margin", "margin_sd"]

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
    """

    filter: TreeFilter
    refiner: Stage | None
    ensemble: Stage

    def __iter__(self) -> Any:
        """Yield (name, stage) in order."""
        stages = {"filter": self.filter, "refiner": self.refiner, "ensemble": self.ensemble}
        return ((name, stage) for name, stage in stages.items() if stage is not None)

    def predict(self, panel: pd.DataFrame) -> pd.DataFrame:
        """`panel` with the columns of every stage, N rows."""
        for _, stage in self:
            panel = panel.assign(**stage.predict(panel))
        return panel

    def compare(self, panel: pd.DataFrame) -> pd.DataFrame:
        """`predict`, and what stage 3 says with the gate open as ``ungated.*``: to evaluate."""
        panel = panel.assign(**self.filter.predict(panel))
        gate = panel["filter.gate"]
        panel["filter.gate"] = 1.0
        if self.refiner is not None:
            panel = panel.assign(**self.refiner.predict(panel))
        return _behind_gate(panel, self.ensemble, gate.to_numpy() == 1.0)


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
        Threshold and discarded share, on unseen rows.
    """

    stack: Stack
    unseen: pd.DataFrame
    panel: pd.DataFrame
    matured: pd.DataFrame
    gate: Mapping[str, float]


def pass_forward(
    stack: Stack, panel: pd.DataFrame, y: pd.DataFrame, folds: PurgedWalkForward, decide: Decide
) -> Passed:
    """Fit each stage on what the stages before it said about rows they had not seen.

    Blocks are cut once. Stage 1 is unseen from the second block on, stage 2 learns from those
    rows and is unseen from the third, stage 3 from the fourth; the gate of a block is set on
    those rows of the blocks before it whose labels had ended.

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

    References
    ----------
    Wolpert (1992), "Stacked generalization", Neural Networks 5; Lopez de Prado (2018),
    "Advances in Financial Machine Learning", ch. 7.
    """
    edges = folds.edges(y)
    _refuse_few_blocks(len(edges) - 1, len(list(stack)))
    _announce("filter", y, edges)
    z1 = out_of_fold(stack.filter, panel, y, folds, edges)
    trees = replace(stack.filter).fit(panel, y)
    panel, y, edges = _joined(panel, z1), y.loc[z1.index], edges[1:]
    refiner = None
    if stack.refiner is not None:
        _announce("refiner", y, edges)
        z2 = out_of_fold(stack.refiner, panel, y, folds, edges)
        refiner = replace(stack.refiner).fit(panel, y)
        panel, y, edges = _joined(panel, z2), y.loc[z2.index], edges[1:]
    _announce("ensemble", y, edges)
    ensemble = replace(stack.ensemble).fit(panel, y)
    unseen = _gated_pass(stack, panel, y, folds, edges, decide)
    scores, fires, weights = _firing(unseen, y, decide)
    trees.set_gate(scores, fires, weights)
    tested = unseen[unseen["gate_set"]]
    discarded = 1 - tested["filter.gate"].mean() if len(tested) else float("nan")
    gate = {
        "threshold": trees.threshold_,
        "discarded": float(discarded),
        "rows": float(len(tested)),
    }
    return Passed(Stack(trees, refiner, ensemble), unseen.drop(columns="gate_set"), panel, y, gate)


def _gated_pass(
    stack: Stack,
    panel: pd.DataFrame,
    y: pd.DataFrame,
    folds: PurgedWalkForward,
    edges: pd.DatetimeIndex,
    decide: Decide,
) -> pd.DataFrame:
    """Stage 3 on unseen rows, with the gate that the blocks before would have set."""
    time = y.index.get_level_values("time")
    parts: list[pd.DataFrame] = []
    for train, test in folds.split(y, edges):
        learner = replace(stack.ensemble).fit(until(panel, time[train].max()), y.iloc[train])
        rows = panel.loc[y.index[test]]
        # a weight follows from where labels end, so those still open must not count
        before = _gathered(parts, y.index[train]) if parts else rows[:0]
        threshold = OPEN
        if len(before):
            scores, fires, weights = _firing(before, y, decide)
            threshold = gate_threshold(scores, fires, stack.filter.recall, weights)
        passes = gate_score(rows) >= threshold
        parts.append(_behind_gate(rows, learner, passes).assign(gate_set=len(before) > 0))
    return _gathered(parts, y.index)


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

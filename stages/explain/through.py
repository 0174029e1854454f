"""The same reasons once more by stage: what each input does through the trees, nets and context."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from stages.base import Attribution, Explanation, Pull
from stages.explain.background import Background, by_reach
from stages.explain.chain import chain, close, pull_of
from stages.explain.explainer import TOLERANCE, Explainer
from stages.panel import light, named, stretch

STAGES = ("filter", "refiner", "context")


def through_stages(
    explainer: Explainer,
    stack: Any,
    panel: pd.DataFrame,
    why: Explanation,
    references: Background,
) -> dict[str, pd.DataFrame]:
    """Split the contribution of each input by the stage that reads it.

    The chain is linear in what the stages hand back, so it is run once for each with the others
    silenced. What a net makes of the log-odds of stage 1 counts for stage 1, as in
    ``Explanation.by_stage``.

    Parameters
    ----------
    explainer : Explainer
        Whose settings made `why`.
    stack : Stack
        Fitted.
    panel : DataFrame of shape (M, F)
        With the columns of every stage, and the windows of the rows.
    why : Explanation
        Of N rows, against `references`.
    references : Background
        All of them; fast reasons take the first few.

    Returns
    -------
    dict of str to DataFrame of shape (N, F)
        By stage: ``filter``, ``refiner``, ``context``. Each row sums to what ``by_stage`` says of
        the stage, and the stages of an input sum to its contribution but for closure, which is
        spread inside each.
    """
    rows: Any = why.output.index
    names = [*map(str, why.contributions)]
    place = {name: i for i, name in enumerate(names)}
    found = {stage: np.zeros((len(rows), len(names))) for stage in STAGES}
    if why.effort == "fast":
        references = references.first(explainer.fast_references)
    panel = light(panel)
    order = np.argsort(panel.index.get_indexer(rows), kind="stable")  # stages read panels only
    for group, background in by_reach(references, panel, rows[order]):
        judged = background.judged(stack.ensemble)
        for start in range(0, len(group), explainer.chunk):
            at = order[group[start : start + explainer.chunk]]
            parts = _attributed(explainer, stack, panel, rows[at], judged, why.effort)
            for stage, chained in _alone(*parts):
                for column, value in chained.items():
                    found[stage][at, place[column.removeprefix("feature.")]] += value
    stage_of = np.array([str(member).partition(".")[0] for member in why.by_stage])
    members = why.by_stage.to_numpy()
    return {
        stage: pd.DataFrame(close(raw, members[:, stage_of == stage].sum(axis=1))[0], rows, names)
        for stage, raw in found.items()
        if (stage_of == stage).any()
    }


def _attributed(  # noqa: PLR0913  rows and references of a model, and how closely to look
    explainer: Explainer,
    stack: Any,
    panel: pd.DataFrame,
    rows: pd.MultiIndex,
    background: Background,
    effort: str,
) -> tuple[Attribution, Attribution | None, Attribution]:
    """What stages 3, 2 and 1 hand back for some rows."""
    window = int(stack.refiner.window) if stack.refiner is not None else 1
    if len(panel) > 2 * window * len(rows):
        panel = light(stretch(panel, rows, window))
    ensemble = stack.ensemble.attribute(panel, rows, background.last)
    refiner = None
    if background.refined:
        nodes = explainer.nodes if effort == "full" else explainer.fast_nodes
        pull = pull_of(ensemble, named(background.last, "refiner"))
        asked = Pull(pull, nodes, TOLERANCE[effort])
        refiner = stack.refiner.attribute(panel, rows, background.windows, asked)
    return ensemble, refiner, stack.filter.attribute(panel, rows, background.last)


def _alone(
    ensemble: Attribution, refiner: Attribution | None, trees: Attribution
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Contributions by column through each stage, the others silenced."""
    mute = None if refiner is None else _silent(refiner)
    quiet, still = _silent(ensemble), _silent(trees)
    yield "context", dict(chain(ensemble, mute, still).contributions)
    yield "filter", dict(chain(quiet, mute, trees).contributions)
    if refiner is not None:
        yield "refiner", dict(chain(quiet, refiner, still).contributions)


def _silent(said: Attribution) -> Attribution:
    """The same slopes, with no contributions of its own."""
    lags = None if said.lags is None else np.zeros_like(said.lags)
    return replace(said, values=np.zeros_like(said.values), lags=lags)

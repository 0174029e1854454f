"""The same reasons once more by stage: what each input does through the trees, nets and context."""

from typing import Any

import numpy as np
import pandas as pd

from stages.base import Explanation
from stages.explain.background import Background, by_reach
from stages.explain.chain import close
from stages.explain.explainer import TOLERANCE, Explainer, attributed
from stages.panel import light, stretch

STAGES = ("filter", "refiner", "context")


def through_stages(
    explainer: Explainer,
    stack: Any,
    panel: pd.DataFrame,
    why: Explanation,
    references: Background,
) -> dict[str, pd.DataFrame]:
    """Split the contribution of each input by the stage that reads it.

    What a net makes of the log-odds of stage 1 counts for stage 1, as in
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
            some = rows[at]
            window = int(stack.refiner.window) if stack.refiner is not None else 1
            near = panel
            if len(panel) > 2 * window * len(some):
                near = light(stretch(panel, some, window))
            nodes = explainer.nodes if why.effort == "full" else explainer.fast_nodes
            asked = (stack, near, some, judged, nodes, TOLERANCE[why.effort])
            for stage, (columns, values) in attributed(*asked).through.items():
                for column, value in zip(columns, values.T, strict=True):
                    found[stage][at, place[column.removeprefix("feature.")]] += value
    stage_of = np.array([str(member).partition(".")[0] for member in why.by_stage])
    members = why.by_stage.to_numpy()
    return {
        stage: pd.DataFrame(close(raw, members[:, stage_of == stage].sum(axis=1))[0], rows, names)
        for stage, raw in found.items()
        if (stage_of == stage).any()
    }

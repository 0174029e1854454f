"""Pairs of inputs that do together what neither does alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.explain.memory import column_of
from stages.explain.variants import Variants
from stages.panel import last_rows

Margin = Callable[[np.ndarray], np.ndarray]  # inputs (C, F) to margins (C,)


@dataclass(frozen=True)
class Interactions:
    """How strongly pairs of inputs act together.

    Attributes
    ----------
    table : DataFrame
        One row per pair: `first`, `second`, `strength` (log-odds: root mean square of what the
        pair does beyond the sum of both) and `h` (Friedman's H: the same as a share of all that
        the pair does, 0 where they only add). The strongest first.
    points, references : int
        Rows at which, and against which, it was measured.
    """

    table: pd.DataFrame
    points: int
    references: int

    def record(self) -> dict[str, Any]:
        """Plain values, such as a run stores as JSON; NaN is None."""
        rows = [
            {str(k): v if isinstance(v, str) else _finite(float(v)) for k, v in row.items()}
            for row in self.table.to_dict("records")
        ]
        return {"points": self.points, "references": self.references, "pairs": rows}


def interactions(
    stack: Any,
    panel: pd.DataFrame,
    rows: pd.MultiIndex,
    references: pd.DataFrame,
    names: Sequence[str],
) -> Interactions:
    """Measure how strongly each pair of inputs of the row's own bar acts together on the margin.

    Parameters
    ----------
    stack : Stack
        Fitted.
    panel : DataFrame of shape (N, F)
        Inputs of `rows`.
    rows : MultiIndex of m rows
        Whose values are tried.
    references : DataFrame of shape (R * L, F)
        Rows that lend all other inputs and the bars before; see `Explainer.choose`.
    names : sequence of str
        Inputs as explanations name them; those without a column are left out. All pairs of them
        are asked about, ``m R (n + 1) n / 2`` predictions.

    Raises
    ------
    DataError
        SV-F18 for fewer than 2 inputs or 2 rows.

    Notes
    -----
    The gate is held open, as reasons have it. Pairs within a window (an input five bars ago and
    one bar ago) are not seen, and neither is what takes three inputs. Values of a pair come from
    one row, so they go together; with the rest of the reference they may not.
    """
    at = [(name, column_of(name)) for name in dict.fromkeys(names)]
    around = [Variants.of(stack, references, row) for row in last_rows(references).index]
    columns = around[0].columns
    known = [(name, columns.index(column)) for name, column in at if column in columns]
    points = panel.loc[rows, columns].to_numpy(dtype="float64")
    points = points[np.isfinite(points[:, [j for _, j in known]]).all(axis=1)]
    if len(known) < 2 or len(points) < 2:
        raise DataError(
            f"{len(known)} inputs at {len(points)} rows have no interaction",
            code="SV-F18",
            why="a pair takes two inputs, and rows at which none of the inputs is missing",
            cure="name more inputs, or more rows",
        )
    background = [(one.inputs.astype("float64"), _margin(one)) for one in around]
    pairs = list(combinations([j for _, j in known], 2))
    strength, h = pair_effects(background, points, pairs)
    name_of = {j: name for name, j in known}
    table = pd.DataFrame(
        {
            "first": [name_of[j] for j, _ in pairs],
            "second": [name_of[k] for _, k in pairs],
            "strength": strength,
            "h": h,
        }
    ).sort_values("strength", ascending=False, kind="stable", ignore_index=True)
    return Interactions(table, len(points), len(around))


def pair_effects(
    background: Sequence[tuple[np.ndarray, Margin]],
    points: np.ndarray,
    pairs: Sequence[tuple[int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Strength and Friedman's H of pairs of columns.

    The partial dependence on some columns is the mean margin over the background with these
    columns taken from a point. What a pair does beyond its parts is its own partial dependence
    less that of either column, all centred over the points: exactly 0 where the margin is a sum.

    Parameters
    ----------
    background : sequence of R pairs
        Inputs (F,), and the margin of rows that differ from them.
    points : float64 ndarray of shape (m, F)
    pairs : sequence of P pairs of int

    Returns
    -------
    strength : float64 ndarray of shape (P,)
        Root mean square over the points.
    h : float64 ndarray of shape (P,)
        Over the root mean square of the pair's partial dependence; NaN where that is 0.

    References
    ----------
    Friedman & Popescu (2008), "Predictive learning via rule ensembles", Ann. Appl. Stat. 2(3),
    eq. 44. Inglis, Parnell & Hurley (2022), "Visualizing variable importance and variable
    interaction effects in machine learning models", J. Comput. Graph. Stat. 31(3): ranked by the
    strength, for H is large by chance where neither column does much.
    """
    single = sorted({j for pair in pairs for j in pair})
    moved: list[tuple[int, ...]] = [*((j,) for j in single), *pairs]
    m = len(points)
    mean = np.zeros((len(moved), m))
    for inputs, margin in background:
        tried = np.tile(inputs, (len(moved) * m, 1))
        for i, columns in enumerate(moved):
            part = slice(i * m, (i + 1) * m)
            tried[part, columns] = points[:, columns]
        mean += np.asarray(margin(tried)).reshape(len(moved), m) / len(background)
    mean -= mean.mean(axis=1, keepdims=True)
    alone = dict(zip(single, mean, strict=False))
    both = mean[len(single) :]
    parts = np.array([alone[j] + alone[k] for j, k in pairs]).reshape(both.shape)
    strength = np.sqrt(np.square(both - parts).mean(axis=1))
    whole = np.sqrt(np.square(both).mean(axis=1))
    h = np.divide(strength, whole, out=np.full(len(pairs), np.nan), where=whole > 0)
    return strength, h


def _margin(one: Variants) -> Margin:
    return lambda inputs: one.predict(inputs.astype("float32"), gate=1.0)["margin"].to_numpy()


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None

"""Chooses the rows an explanation compares with, and explains the margin through all stages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from stages.base import DataError, Explanation
from stages.explain.chain import chain, close
from stages.panel import age, last_rows, named, windows

UNIT = "log-odds of buy against sell"


@dataclass(frozen=True)
class Explainer:
    """Reference rows and the chained attribution against them.

    Parameters
    ----------
    n_references : int, default=16
        R, rows the explanation compares with: medoids of the training tail.
    tail : int, default=252
        Bars of each asset they are chosen from.
    candidates : int, default=2000
        At most so many rows of the tail are clustered.
    top : int, default=5
        Reasons put in words.
    chunk : int, default=64
        Rows explained at a time: bounds memory, changes no value.
    seed : int, default=0

    References
    ----------
    Chen, Lundberg & Lee (2022), Nature Communications 13 (chained attribution); Sundararajan,
    Taly & Yan (2017), "Axiomatic attribution for deep networks", ICML.
    """

    n_references: int = 16
    tail: int = 252
    candidates: int = 2000
    top: int = 5
    chunk: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.n_references, self.tail, self.candidates, self.top, self.chunk) < 1:
            raise ValueError(f"all settings of the explainer must be at least 1, got {self}")

    def choose(self, stack: Any, panel: pd.DataFrame, window: int) -> pd.DataFrame:
        """Medoids of the newest evaluable rows, each with the bars its window needs.

        Parameters
        ----------
        stack : Stack
            Fitted; its filter places the rows among each other.
        panel : DataFrame of shape (N, F)
        window : int
            L.

        Returns
        -------
        DataFrame of shape (R * L, F)
            One pseudo-asset per reference, its last row the reference; inputs only.

        Raises
        ------
        DataError
            If no row of the tail is evaluable.
        """
        inputs = named(panel, "feature", "rule", "context")
        left = panel.groupby(level="asset", sort=False).cumcount(ascending=False).to_numpy()
        usable = panel["ready"].to_numpy() & (left < self.tail) & (age(panel) >= window - 1)
        at = np.flatnonzero(usable)
        if not len(at):
            raise DataError(
                f"no row of the last {self.tail} bars of any asset is evaluable",
                code="SV-F18",
                why="explanations compare with such rows",
                cure="bring bars whose inputs are complete to the end, or raise explain.tail",
            )
        if len(at) > self.candidates:
            rng = np.random.default_rng(self.seed)
            at = np.sort(rng.choice(at, self.candidates, replace=False))
        tail = panel.iloc[at]
        z = stack.filter.predict(tail)
        place = np.column_stack([z[named(z, "filter")], tail[named(tail, "context")]])
        place = np.nan_to_num((place - np.nanmean(place, 0)) / (np.nanstd(place, 0) + 1e-12))
        count = min(self.n_references, len(np.unique(place, axis=0)))
        centres = KMeans(count, n_init=1, random_state=self.seed).fit(place).cluster_centers_
        nearest = ((place[:, None] - centres[None]) ** 2).sum(-1).argmin(axis=0)
        return windows(panel, panel.index[at[np.unique(nearest)]], window, inputs)

    def explain(
        self, stack: Any, panel: pd.DataFrame, rows: pd.MultiIndex, references: pd.DataFrame
    ) -> Explanation:
        """Split the margin of buy over sell at `rows` over the raw inputs of all stages.

        Parameters
        ----------
        stack : Stack
        panel : DataFrame
            With the columns of every stage, and the windows of `rows`.
        rows : MultiIndex of N rows
            In any order.
        references : DataFrame
            What `choose` gave.

        Returns
        -------
        Explanation
            Closed: baseline + contributions = output to rounding; `raw_gap` is what was spread.
        """
        in_order = rows[np.argsort(panel.index.get_indexer(rows))]  # stages read panels only
        parts = [
            self._part(stack, panel, part, refs)
            for group, refs in _by_reach(stack, panel, in_order, references)
            for part in _chunks(group, self.chunk)
        ]
        shares, members, ends = (_stacked(tables).loc[rows] for tables in zip(*parts, strict=True))
        total = (ends["output"] - ends["baseline"]).to_numpy()
        closed, gap = close(shares.to_numpy(), total)
        return Explanation(
            contributions=pd.DataFrame(closed, rows, [_plain(c) for c in shares.columns]),
            baseline=ends["baseline"],
            output=ends["output"],
            by_stage=pd.DataFrame(close(members.to_numpy(), total)[0], rows, members.columns),
            raw_gap=pd.Series(gap, rows),
            unit=UNIT,
        )

    def _part(
        self, stack: Any, panel: pd.DataFrame, rows: pd.MultiIndex, references: pd.DataFrame
    ) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        refined = stack.refiner is not None and last_rows(references)[
            named(references, "refiner")
        ].notna().all(axis=None)
        chained = chain(
            stack.ensemble.attribute(panel, rows, references),
            stack.refiner.attribute(panel, rows, references) if refined else None,
            stack.filter.attribute(panel, rows, references),
        )
        ends = {
            "output": panel.loc[rows, "margin"],
            "baseline": float(last_rows(references)["margin"].mean()),
        }
        return (
            pd.DataFrame(dict(chained.contributions), rows),
            pd.DataFrame(dict(chained.by_member), rows),
            pd.DataFrame(ends, rows),
        )


def _by_reach(
    stack: Any, panel: pd.DataFrame, rows: pd.MultiIndex, references: pd.DataFrame
) -> Iterator[tuple[pd.MultiIndex, pd.DataFrame]]:
    """Rows that stage 2 spoke of, and rows it did not, each with like references.

    Where the gate stopped a row, its stage-2 logits are imputed from stage 1. The references
    are then taken the same way, or the difference could not be traced to any input.
    """
    logits = named(panel, "refiner")
    spoken = panel.loc[rows, logits].notna().all(axis=1).to_numpy() if logits else None
    refs = references.assign(**stack.filter.predict(references))
    refs["filter.gate"] = 1.0
    if spoken is not None:
        refined = refs.assign(**stack.refiner.predict(refs))
        if spoken.any():
            yield rows[spoken], refined.assign(**stack.ensemble.predict(refined))
        if spoken.all():
            return
        rows, refs = rows[~spoken], refs.assign(**dict.fromkeys(logits, np.nan))
    yield rows, refs.assign(**stack.ensemble.predict(refs))


def _stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows; what a table has no column for moved none of its rows, but a NaN stays one."""
    columns = sorted({str(column) for table in tables for column in table})
    return pd.concat([table.reindex(columns=columns, fill_value=0.0) for table in tables])


def _chunks(rows: pd.MultiIndex, size: int) -> Iterator[pd.MultiIndex]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _plain(column: str) -> str:
    return column.removeprefix("feature.")

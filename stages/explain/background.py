"""What explanations compare with: reference rows, and what the stages say of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from stages.panel import FAMILIES, asset_starts, check_panel, joined, named, windows
from stages.table import Table


@dataclass(frozen=True)
class Background:
    """Reference rows with the words of stages 1 and 2, which do not change: found once, used often.

    Attributes
    ----------
    windows : Table of R * L rows
        One pseudo-asset per reference, its last row the reference; the columns of the stages
        stand in that row only. No gate is shut.
    last : Table of R rows
        The references alone.
    refined : bool
        Whether stage 2 speaks of all of them.
    """

    windows: Any
    last: Any
    refined: bool

    @classmethod
    def of(cls, stack: Any, references: pd.DataFrame) -> Self:
        """Ask the stages of `stack` about `references`, see `reference_panel`."""
        at = asset_starts(references)[1:] - 1
        table: Any = Table.of(check_panel(references), named(references, *FAMILIES))
        said = stack.filter.predict(table.take(at)).assign(**{"filter.gate": 1.0})
        table = _joined(table, said, at)
        if stack.refiner is not None:
            table = _joined(table, stack.refiner.predict(table).iloc[at], at)
        last = table.take(at)
        words = last[named(last, "refiner")].to_numpy()
        return cls(table, last, bool(words.size and np.isfinite(words).all()))

    def first(self, count: int) -> Self:
        """The first `count` references, all if there are fewer."""
        if count >= len(self.last):
            return self
        end = int(asset_starts(self.windows)[count])
        few = slice(0, count)
        return replace(self, windows=self.windows.take(slice(0, end)), last=self.last.take(few))

    def silent(self) -> Self:
        """The same references had the gate stopped them before stage 2."""
        mute = dict.fromkeys(named(self.last, "refiner"), np.nan)
        return replace(self, last=self.last.assign(**mute), refined=False)

    def judged(self, ensemble: Any) -> Self:
        """With what stage 3 says of the references now."""
        return replace(self, last=joined(self.last, ensemble.predict(self.last)))


def by_reach(
    background: Background, panel: pd.DataFrame, rows: pd.MultiIndex
) -> Iterator[tuple[np.ndarray, Background]]:
    """Numbers of the rows that stage 2 spoke of, and of the others, each with like references.

    Where the gate stopped a row, its stage-2 logits are imputed from stage 1. The references
    are then taken the same way, or the difference could not be traced to any input.
    """
    logits = named(panel, "refiner")
    if not logits:
        yield np.arange(len(rows)), background
        return
    spoken = np.isfinite(panel.loc[rows, logits].to_numpy()).all(axis=1)
    if spoken.any():
        yield np.flatnonzero(spoken), background
    if not spoken.all():
        yield np.flatnonzero(~spoken), background.silent()


def medoids(place: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Numbers of at most `count` rows that stand for all, the first few of them for all too.

    Parameters
    ----------
    place : float64 ndarray of shape (n, d)
    count : int
    seed : int

    Returns
    -------
    int ndarray
        The rows nearest to k-means centres, in the order in which their running mean stays
        closest to the mean of all of them (Welling, 2009, "Herding dynamical weights to learn",
        ICML): a prefix of any length is a fair sample.
    """
    different = len(np.unique(place, axis=0))
    centres = KMeans(min(count, different), n_init=1, random_state=seed).fit(place).cluster_centers_
    nearest = np.unique(((place[:, None] - centres[None]) ** 2).sum(-1).argmin(axis=0))
    chosen, left = [], list(range(len(nearest)))
    off = np.zeros(place.shape[1])  # how far the sum of those chosen is from where it should be
    mean = place[nearest].mean(axis=0)
    while left:
        miss = ((off + place[nearest[left]] - mean) ** 2).sum(axis=1)
        chosen.append(left.pop(int(miss.argmin())))
        off += place[nearest[chosen[-1]]] - mean
    return np.asarray(nearest[chosen])


def reference_panel(panel: pd.DataFrame, rows: pd.MultiIndex, window: int) -> pd.DataFrame:
    """The inputs of `rows` and of the bars their windows need, one pseudo-asset for each row."""
    return windows(panel, rows, window, named(panel, "feature", "rule", "context"))


def _joined(table: Any, said: pd.DataFrame, at: np.ndarray) -> Any:
    """`table` with columns that hold `said` at the given rows, and NaN elsewhere."""
    columns = {str(name): np.full(len(table), np.nan) for name in said}
    for name, values in columns.items():
        values[at] = said[name].to_numpy()
    return table.assign(**columns)

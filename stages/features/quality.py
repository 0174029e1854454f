"""Whether columns are fit to be learnt from and predicted with, and rows to be predicted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from stages.base import State, fitted
from stages.features.findings import (
    FAULT,
    NOTE,
    READ,
    WARNING,
    Finding,
    Review,
    faulty,
    is_feature,
    pairs_of,
    shares_of,
)
from stages.panel import asset_starts, named

PRICES = ("open", "high", "low", "close", "bid", "ask")


@dataclass
class Quality:
    """Judge columns where they are learnt from, and rows where they are predicted.

    Parameters
    ----------
    missing : float in [0, 1], default=0.2
        Share of missing values beyond which a column is named.
    stale : int >= 1, default=20
        Bars without any change of a price after which an asset's bars stand still.
    correlation : float in (0, 1], default=0.95
        Size of a correlation from which on a pair is named.
    drop : bool, default=True
        Whether features that are missing, constant or a copy of an earlier one throughout are
        dropped in training. They hold nothing in any fold, so that this learns nothing either.
    decorrelate : bool, default=False
        Whether the later feature of each pair beyond `correlation` is dropped too, as known
        from the rows before the first that is passed forward.
    beyond : float >= 0, default=3
        How far outside of what training saw of it an input is taken to be broken, in widths of
        that span.
    broken : float in [0, 1], default=0.1
        Share of a row's inputs that may be broken before the row abstains.
    sample : int, default=50000
        Most rows that correlations are taken over.

    Attributes
    ----------
    review_ : Review
    spans_ : dict of str to [float, float]
        Smallest and largest value of each column that stages read.
    """

    missing: float = 0.2
    stale: int = 20
    correlation: float = 0.95
    drop: bool = True
    decorrelate: bool = False
    beyond: float = 3.0
    broken: float = 0.1
    sample: int = 50_000

    def __post_init__(self) -> None:
        for name in ("missing", "correlation", "broken"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.stale < 1 or self.beyond < 0 or self.sample < 2:
            raise ValueError(
                f"need stale >= 1, beyond >= 0 and sample >= 2, got {self.stale}, {self.beyond} "
                f"and {self.sample}"
            )

    def fit(
        self,
        panel: pd.DataFrame,
        rows: np.ndarray,
        early: np.ndarray | None = None,
        sources: Sequence[str] = (),
    ) -> Self:
        """Judge the columns of a panel.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
        rows : ndarray of bool, shape (N,)
            Rows that are learnt from: whose look-backs are complete.
        early : ndarray of bool, shape (N,), optional
            Those among them that `decorrelate` may look at; default all.
        sources : sequence of str
            Columns of the bars that are judged beside those that stages read.
        """
        made = [str(name) for name in named(panel, *READ)]
        table = panel[[*sources, *made]]
        part = table if rows.all() else table[rows]
        shares = shares_of(part)
        found = list(faulty(part, shares, self.missing))
        found += self._stale(panel, rows, sources)
        gone = {f.column: str(f) for f in found if f.severity == FAULT and is_feature(f.column)}
        if len(gone) == sum(map(is_feature, made)):
            gone = {}  # nothing is left to learn from: the stages say so in their words
        pairs = pairs_of(part[[n for n in made if n not in gone]], self.correlation, self.sample)
        if self.decorrelate:
            known = table if early is None else table[early & rows]
            kept = [n for n in made if is_feature(n) and n not in gone]
            for pair in pairs_of(known[kept], self.correlation, self.sample):
                if pair.other not in gone:
                    gone.setdefault(pair.column, str(pair))
        scores = dict.fromkeys(table.columns, 100.0)
        for finding in found:
            lost = 1.0 if finding.severity == FAULT else finding.share
            scores[finding.column] = max(scores[finding.column] - 100.0 * lost, 0.0)
        for name, share in shares.items():  # also what is too little to be named
            scores[name] = min(scores[name], 100.0 * (1.0 - share.missing - share.infinite))
        worst = {FAULT: 0, WARNING: 1, NOTE: 2}
        findings = sorted(
            [*found, *pairs], key=lambda f: (worst[f.severity], -abs(f.share), f.column)
        )
        self.review_ = Review(len(part), scores, tuple(findings), gone if self.drop else {})
        self.spans_ = {
            name: [shares[name].low, shares[name].high]
            for name in made
            if name not in self.review_.dropped and shares[name].low <= shares[name].high
        }
        return self

    def obstacles(self, panel: pd.DataFrame, sources: Sequence[str]) -> pd.Series:
        """Why the inputs of a row are not acceptable, in words; empty where they are.

        Parameters
        ----------
        panel : DataFrame of shape (N, F)
        sources : sequence of str
            Columns of the bars that are read.

        Returns
        -------
        Series of N text
        """
        why: Any = np.full(len(panel), "", dtype=object)
        if hasattr(self, "spans_"):
            count, first = self._broken(panel)
            share = count / max(len(self.spans_), 1)
            for row in np.flatnonzero(share > self.broken):
                name = list(self.spans_)[first[row]]
                low, high = self.spans_[name]
                why[row] = (
                    f"inputs: {share[row]:.0%} out of range, such as {name} = "
                    f"{panel[name].iloc[row]:.3g} (training saw {low:.3g} to {high:.3g})"
                )
        for name, still in self._still(panel, sources).items():
            for row in np.flatnonzero(still >= self.stale):
                why[row] = f"inputs: stale, {name} the same for {still[row]} bars"
        return pd.Series(why, panel.index, dtype=object, name="why")

    def state(self) -> State:
        """The review and the spans, as JSON values."""
        return State({"review": fitted(self, "review_").as_dict(), "spans": self.spans_})

    def restore(self, state: State) -> Self:
        """Take back what `state` gave."""
        review = state.values["review"]
        found = tuple(Finding(**finding) for finding in review["findings"])
        self.review_ = Review(review["rows"], review["columns"], found, review["dropped"])
        self.spans_ = dict(state.values["spans"])
        return self

    def _broken(self, panel: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """How many inputs of each row are far outside, and the number of the first of them."""
        count, first = np.zeros(len(panel), int), np.full(len(panel), -1)
        bare = panel.reset_index(drop=True)  # or each column costs a copy of the index
        for number, (name, (low, high)) in enumerate(self.spans_.items()):
            if name not in bare:
                continue  # the stage that reads it will say so
            width = self.beyond * (high - low)
            values = bare[name].to_numpy()
            out = (values < low - width) | (values > high + width)
            if out.any():
                first[out & (count == 0)] = number
                count += out
        return count, first

    def _still(self, panel: pd.DataFrame, sources: Iterable[str]) -> dict[str, np.ndarray]:
        """For how many bars the prices of an asset, and its market, have not changed."""
        read = set(sources)
        groups = {"prices": [n for n in PRICES if n in read and n in panel]}
        groups["market"] = ["market"] if "market" in read and "market" in panel else []
        starts = asset_starts(panel)
        return {
            name: unchanged([panel[c].to_numpy(dtype="float64") for c in columns], starts)
            for name, columns in groups.items()
            if columns
        }

    def _stale(
        self, panel: pd.DataFrame, rows: np.ndarray, sources: Sequence[str]
    ) -> list[Finding]:
        found = []
        for name, still in self._still(panel, sources).items():
            share = float((still[rows] >= self.stale).mean()) if rows.any() else 0.0
            if share > 0:
                column = "close" if name == "prices" else name
                found.append(Finding(column, "stale", WARNING, share))
        return found


def unchanged(columns: Sequence[np.ndarray], starts: np.ndarray) -> np.ndarray:
    """For how many bars in a row no column of an asset has changed: int, shape (N,).

    Parameters
    ----------
    columns : sequence of float64 ndarray of shape (N,)
        A missing value is as good as a change: it says nothing of what stands still.
    starts : int ndarray of shape (A + 1,)
    """
    same = np.ones(len(columns[0]), bool)
    for values in columns:
        same[1:] &= values[1:] == values[:-1]
    same[starts[:-1]] = False
    rows = np.arange(len(same))
    return rows - np.maximum.accumulate(np.where(same, 0, rows))

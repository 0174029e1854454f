"""Tries changes of a row's inputs: what would be decided then, and how far off a signal it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from stages.explain.memory import Memory
from stages.explain.variants import Variants

Change = Mapping[str, float]  # column to its new value
Target = int | Literal["lean"] | None

UNDECIDED = 9  # in place of a side, where a variant abstains
UNTOLD = 1.0  # lack counted for an obstacle without figures


@dataclass(frozen=True)
class Judged:
    """What is decided of C changes.

    Attributes
    ----------
    side : int ndarray of shape (C,)
        `UNDECIDED` for an abstention.
    hit : bool ndarray of shape (C,)
        Whether it is what was asked for.
    lack : float64 ndarray of shape (C,)
        How far from it: the sum of the shares by which limits are missed. A guide, no measure.
    table : DataFrame of C rows
        With the columns of every stage and the decision.
    """

    side: np.ndarray
    hit: np.ndarray
    lack: np.ndarray
    table: pd.DataFrame


@dataclass(frozen=True)
class Trials:
    """A row, those who decide it, and what is asked for.

    Attributes
    ----------
    variants : Variants
    decide : Decide
    memory : Memory
    now : int
        Side that is decided; `UNDECIDED` for an abstention.
    leads : int
        Side whose odds are better than those of the opposite side.
    target : int or 'lean' or None
        Side asked for; ``lean`` asks that the opposite side leads. None asks for any side of a
        hold, and for any other decision of a side.
    table : DataFrame of one row
        As it is: with the columns of every stage and the decision.
    """

    variants: Variants
    decide: Any
    memory: Memory
    now: int = UNDECIDED
    leads: int = 0
    target: Target = None
    table: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_place", {c: i for i, c in enumerate(self.variants.columns)})

    @classmethod
    def of(cls, variants: Variants, decide: Any, memory: Memory, target: Target) -> Self:
        """See what is decided of the row as it is."""
        first = cls(variants, decide, memory).judge([{}])
        leads = 1 if first.table["margin"].iloc[0] >= 0 else -1
        return cls(variants, decide, memory, int(first.side[0]), leads, target, first.table)

    @property
    def _wants_none(self) -> bool:
        return self.target == 0 or (self.target is None and self.now != 0)

    def start(self, column: str) -> float:
        """Value of an input as it is."""
        return float(self.variants.inputs[self._place[column]])  # type: ignore[attr-defined]

    def shift(self, change: Change) -> float:
        """Size of a change, summed over its inputs: share of the training that each passes.

        Where the training is sparse the share of its span between the 1 % and 99 % quantiles is
        the larger of the two, and counts: a leap in a tail passes few rows.

        References
        ----------
        Ustun, Spangher & Liu (2019), "Actionable recourse in linear classification", FAT*, sec. 3
        (percentile shift).
        """
        total = 0.0
        for column, value in change.items():
            pair = [self.start(column), value]
            low, high = self.memory.quantile(column, [0.01, 0.99])
            passed = abs(np.diff(self.memory.place(column, pair))[0])
            total += max(passed, abs(pair[1] - pair[0]) / max(high - low, 1e-300))
        return float(total)

    def inputs(self, changes: Sequence[Change]) -> np.ndarray:
        """Inputs after each change, float32 of shape (C, F); what is led moves along."""
        place: dict[str, int] = self._place  # type: ignore[attr-defined]
        X = np.repeat(self.variants.inputs[None], len(changes), axis=0)
        by_column: dict[str, tuple[list[int], list[float]]] = {}
        for row, change in enumerate(changes):
            for column, value in change.items():
                rows, values = by_column.setdefault(column, ([], []))
                rows.append(row)
                values.append(value)
        for column, (rows, values) in by_column.items():
            X[rows, place[column]] = values
            for led, after in self.memory.follow(column, np.array(values)).items():
                X[rows, place[led]] = after
        return X

    def judge(self, changes: Sequence[Change]) -> Judged:
        """Ask the stages, and decide."""
        table = self.variants.predict(self.inputs(changes))
        table = table.assign(**self.decide.decide(table))
        side = table["side"].fillna(UNDECIDED).to_numpy(dtype=int)
        if self.target == "lean":
            hit = (table["margin"] >= 0).to_numpy() != (self.leads > 0)
        elif self.target is not None:
            hit = side == self.target
        elif self.now == 0:
            hit = np.isin(side, (-1, 1))
        else:
            hit = (side != self.now) & (side != UNDECIDED)
        if self._wants_none:  # to say only that the row would be odd is no answer
            hit &= np.array(
                [{r.key for r in w} - {"skill"} != {"novelty"} for w in table["why_not"]]
            )
        return Judged(side, hit, self._lack(table, side, hit), table)

    def _lack(self, table: pd.DataFrame, side: np.ndarray, hit: np.ndarray) -> np.ndarray:
        if self.target == "lean":
            return np.where(hit, 0.0, table["margin"].abs().to_numpy(dtype="float64"))
        lack = self._slack(table, side) if self._wants_none else self._missed(table)
        if self.target in (-1, 1):
            lean = self.target * table["margin"].to_numpy(dtype="float64")
            lack = lack + np.where(lean >= 0, 0.0, UNTOLD - lean)
        return np.where(hit, 0.0, np.where(side == UNDECIDED, np.inf, lack))

    def _missed(self, table: pd.DataFrame) -> np.ndarray:
        """Shares by which limits are missed, summed over all that stands in the way: (C,)."""
        out = np.zeros(len(table))
        short = np.maximum(np.subtract(*self.gate(table)[::-1]), 0.0)
        for row, reasons in enumerate(table["why_not"]):
            for reason in reasons:
                if reason.key == "gate":
                    out[row] += short[row]
                elif reason.key != "skill":
                    told = reason.value is not None and reason.limit
                    out[row] += abs(reason.value / reason.limit - 1) if told else UNTOLD
        return out

    def _slack(self, table: pd.DataFrame, side: np.ndarray) -> np.ndarray:
        """How much of what a side rests on is to spare, (C,): the least of it."""
        p = table[["p_sell", "p_hold", "p_buy"]].to_numpy(dtype="float64")
        own = np.take_along_axis(p, np.clip(side + 1, 0, 2)[:, None], axis=1)[:, 0]
        rival = np.sort(p, axis=1)[:, -2]
        certainty = table["certainty"].to_numpy(dtype="float64")
        floor = self.variants.carried.get("floor", self.decide.certainty)
        return np.minimum(own - rival, certainty - floor) + 1.0

    def without_cost(self) -> int:
        """Side if trading cost nothing."""
        free = replace(self.variants, carried={**self.variants.carried, "cost": 0.0})
        return int(replace(self, variants=free).judge([{}]).side[0])

    def gate(self, table: pd.DataFrame) -> tuple[np.ndarray, float]:
        """Gate score of each row of `table`, (C,), and the score that would pass."""
        stage = self.variants.stack.filter
        return stage.gate_score(table), float(stage.threshold_)

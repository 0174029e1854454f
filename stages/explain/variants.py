"""The same row with other inputs, in a form that the stages can be asked about."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from stages.base import DataError
from stages.explain.memory import FAMILIES
from stages.panel import age, named

CARRIED = ("cost", "scale", "floor")  # what stages and decision read beside the inputs


@dataclass(frozen=True)
class Variants:
    """A row and the bars its window needs; the inputs of its last bar may be exchanged.

    Attributes
    ----------
    stack : Stack
        Fitted.
    columns : list of F str
        Inputs, ``feature.*``, ``rule.*`` and ``context.*``.
    window : float32 ndarray of shape (L, F)
        The last bar is the row; fewer bars than the refiner reads where the asset is young.
    times : DatetimeIndex of L times
    carried : dict of str to float
        Cost, return at stake, floor and ``skill.*``: no input changes them.
    ready : bool
    """

    stack: Any
    columns: list[str]
    window: np.ndarray
    times: pd.DatetimeIndex
    carried: dict[str, float]
    ready: bool

    @classmethod
    def of(cls, stack: Any, panel: pd.DataFrame, row: tuple[str, pd.Timestamp]) -> Self:
        """Cut `row` and its window out of `panel`: inputs, `ready`, and what is carried.

        Raises
        ------
        DataError
            SV-F18 for a row that the panel does not hold.
        """
        at = int(panel.index.get_indexer(pd.MultiIndex.from_tuples([row]))[0])
        if at < 0:
            raise DataError(
                f"{row[0]} has no bar at {row[1]}", code="SV-F18", cure="ask for a bar in the data"
            )
        reads = int(stack.refiner.window) if stack.refiner is not None else 1
        length = min(reads, int(age(panel)[at]) + 1)
        columns = named(panel, *FAMILIES)
        part = panel.iloc[at + 1 - length : at + 1]
        return cls(
            stack,
            columns,
            part[columns].to_numpy(dtype="float32"),
            pd.DatetimeIndex(part.index.get_level_values("time")),
            {
                name: part[name].iloc[-1]
                for name in [*CARRIED, *named(panel, "skill")]
                if name in panel
            },
            bool(part["ready"].iloc[-1]) if "ready" in panel else True,
        )

    @property
    def inputs(self) -> np.ndarray:
        """Inputs of the row as they are: float32 of shape (F,)."""
        return self.window[-1]

    def panel(self, inputs: np.ndarray) -> pd.DataFrame:
        """One pseudo-asset per row of `inputs` (C, F): the window, with these as its last bar."""
        C, L = len(inputs), len(self.window)
        values = np.repeat(self.window[None], C, axis=0)
        values[:, -1] = inputs
        # codes by hand: building the index from text costs more than predicting
        index = pd.MultiIndex(
            levels=[pd.Index([f"{i:06d}" for i in range(C)], dtype="str"), self.times],  # type: ignore[list-item]
            codes=[np.repeat(np.arange(C), L), np.tile(np.arange(L), C)],  # type: ignore[list-item]
            names=["asset", "time"],
        )
        table = pd.DataFrame(values.reshape(C * L, -1), index, self.columns, copy=False)
        # no stage needs to speak of the bars before, and it costs time
        last = np.tile(np.arange(L) == L - 1, C) & self.ready
        return table.assign(**self.carried, ready=last)

    def predict(self, inputs: np.ndarray, gate: float | None = None) -> pd.DataFrame:
        """What `Stack.predict` says of each variant: C rows with the columns of every stage.

        Parameters
        ----------
        inputs : array of shape (C, F)
        gate : float, optional
            Holds the gate open (1) or shut (0) for all variants, whatever their score. That is
            what explanations do: else a variant would be compared across the gate's jump.
        """
        panel = self.panel(inputs)
        panel = panel.assign(**self.stack.filter.predict(panel))
        if gate is not None:
            panel["filter.gate"] = gate
        if self.stack.refiner is not None:
            panel = panel.assign(**self.stack.refiner.predict(panel))
        # what follows reads no past, and would say nothing of the bars before
        panel = panel.iloc[len(self.window) - 1 :: len(self.window)]
        panel = panel.assign(**self.stack.ensemble.predict(panel))
        novelty = self.stack.novelty
        return panel if novelty is None else panel.assign(novelty=novelty.predict(panel))

"""Columns that the data came with: passed through, checked, and never computed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from stages.base import DataError, State
from stages.features.columns import finite
from stages.panel import check_panel, named


@dataclass
class GivenFeatures:
    """Pass through the ``feature.*`` and ``context.*`` columns that the data came with.

    Parameters
    ----------
    context : sequence of str, default=('regime',)
        Context columns that must be there.
    """

    context: Sequence[str] = ("regime",)

    def __post_init__(self) -> None:
        self.dropped_: list[str] = []
        self.left_out_: dict[str, str] = {}

    @property
    def warmup(self) -> int:
        """No look-back: the columns come complete."""
        return 0

    def fit(self, bars: pd.DataFrame) -> Self:
        """Check that the columns are there."""
        self.dropped_ = []
        self.build(bars)
        return self

    def drop(self, names: Iterable[str]) -> Self:
        """Leave columns out from now on; see `FeatureSet.drop`."""
        self.dropped_ = [*self.dropped_, *names]
        return self

    @property
    def reads_bars(self) -> bool:
        """Whether the columns are made of the bars: these came with them."""
        return False

    def sources(self, bars: pd.DataFrame) -> list[str]:  # noqa: ARG002 - as `FeatureSet` has it
        """No column of the bars is read."""
        return []

    def build(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Return `bars` less what was dropped, or name what is missing or infinite."""
        check_panel(bars, [f"context.{name}" for name in self.context])
        given = named(bars, "feature", "rule", "context")
        if not named(bars, "feature"):
            raise DataError(
                "the data has no feature.* column",
                code="SV-F20",
                where=f"columns present: {sorted(map(str, bars.columns))[:40]}",
                cure="features=core builds them from bars",
            )
        for name in given:
            finite(name, bars[name].to_numpy(), bars.index)
        gone = [name for name in self.dropped_ if name in bars]
        return bars.drop(columns=gone) if gone else bars

    def ready(self, bars: pd.DataFrame) -> np.ndarray:
        """Every row: shape (N,)."""
        return np.ones(len(bars), bool)

    def state(self) -> State:
        """Which columns were dropped."""
        return State({"dropped": self.dropped_})

    def restore(self, state: State) -> Self:
        """Take back what `state` gave."""
        self.dropped_ = list(state.values["dropped"])
        return self

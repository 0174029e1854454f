"""Each row is spoken of before its label is learnt, and no label is learnt before it is known."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.online.prequential import prequential
from stages.panel import check_panel
from stages.signal import ODDS

TIMES = pd.date_range("2020-01-01", periods=30, tz="UTC").as_unit("us")


@dataclass
class Counter:
    """Says how many labels it knows, and remembers which."""

    learnt: list = field(default_factory=list)

    def update(self, panel, y):
        self.learnt += list(y.index)
        return self

    def predict(self, panel):
        return pd.DataFrame({name: float(len(self.learnt)) for name in ODDS}, panel.index)


def market(spans):
    """Three assets; the label of row i ends `spans[i]` bars after it."""
    index = pd.MultiIndex.from_product([["A", "B", "C"], TIMES], names=["asset", "time"])
    at = np.tile(np.arange(len(TIMES)), 3)
    ends = at + np.resize(spans, len(index))
    known = ends < len(TIMES)
    end = TIMES[ends[known]]
    y = pd.DataFrame({"side": np.int8(0), "end": end, "weight": 1.0}, index[known])
    return check_panel(pd.DataFrame({"sigma": 1.0}, index)), y


@settings(max_examples=30, deadline=None)
@given(
    spans=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    every=st.integers(1, 12),
    first=st.integers(0, 20),
)
def test_a_row_knows_the_labels_that_had_ended_at_the_update_before_it(spans, every, first):
    panel, y = market(spans)
    rows = panel.index[panel.index.get_level_values("time") >= TIMES[first]]
    counter = Counter()
    said = prequential(counter, panel, y, rows, every=every)
    assert said.index.equals(rows)
    assert list(said) == [*ODDS, "sigma"]
    at = TIMES.get_indexer(rows.get_level_values("time"))
    updated = first + (at - first) // every * every
    due = [(y["end"] <= TIMES[moment]).sum() for moment in updated]
    assert said["p_buy"].tolist() == due
    assert sorted(counter.learnt) == list(y.index)  # each once, and in the end all


def test_rows_of_an_asset_that_came_late_are_spoken_of_in_their_turn():
    panel, y = market([2])
    rows = panel.index[[5, 35, 61, 89]]
    said = prequential(Counter(), panel, y, rows)
    assert said.index.tolist() == sorted(rows)
    assert said["p_buy"].is_monotonic_increasing is False
    by_time = said.reset_index().sort_values("time")
    assert by_time["p_buy"].is_monotonic_increasing


def test_without_rows_it_only_learns():
    panel, y = market([2])
    counter = Counter()
    assert prequential(counter, panel, y, panel.index[:0]).empty
    assert len(counter.learnt) == len(y)


def test_there_must_be_a_bar_between_updates():
    panel, y = market([2])
    with pytest.raises(ValueError, match="at least 1 bar, got 0"):
        prequential(Counter(), panel, y, panel.index, every=0)

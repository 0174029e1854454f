"""When lessons are due, what they hold, and what stage 3 may hear of rows that are open then."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base import State
from stages.filter.relearn import TreeLearning
from stages.online.learning import Learning, Pending
from stages.online.replay import ReplayBuffer
from stages.panel import check_labels, check_panel

TIMES = pd.date_range("2020-01-01", periods=40, tz="UTC").as_unit("us")


def market(spans=(2,)):
    """Three assets; the label of row i is settled `spans[i]` bars after it."""
    names = pd.Index(["A", "B", "C"], dtype="str")
    index = pd.MultiIndex.from_product([names, TIMES], names=["asset", "time"])
    at = np.tile(np.arange(len(TIMES)), 3)
    ends = at + np.resize(spans, len(index))
    known = ends < len(TIMES)
    rng = np.random.default_rng(0)
    side = rng.integers(-1, 2, len(index)).astype("int8")
    y = pd.DataFrame({"side": side[known], "end": TIMES[ends[known]], "weight": 1.0}, index[known])
    x = np.arange(len(index), dtype="float32")
    logits = rng.normal(size=(2, len(index)))
    said = {"filter.tree.z_sell": logits[0], "filter.tree.z_buy": logits[1], "filter.gate": 1.0}
    panel = pd.DataFrame({"feature.row": x, "context.regime": np.float32(0)} | said, index)
    return check_panel(panel), y


PANEL = market()[0]


def in_parts(y, cuts, every):
    """Bars of lessons, and the labels before each, where labels come in parts."""
    pending, lessons, since = Pending(ReplayBuffer(window=1)), [], []
    bars = [TIMES[0], *(TIMES[c] for c in sorted(set(cuts))), TIMES[-1]]
    for was, now in zip(bars, bars[1:], strict=False):
        part = y[((y["end"] > was) & (y["end"] <= now)).to_numpy()]
        if part.empty:
            continue
        for labels, bar in pending.blocks(part, every):
            since += labels.index.tolist()
            pending.add(PANEL, labels)
            if bar is not None:
                lessons.append((bar, sorted(since)))
                since = []
                pending.taught(pd.DataFrame(), bar)
    return lessons, sorted(since)


@settings(max_examples=8, deadline=None)
@given(
    spans=st.lists(st.integers(1, 6), min_size=1, max_size=10),
    cuts=st.lists(st.integers(1, 38), max_size=4),
    every=st.integers(1, 9),
)
def test_lessons_are_a_function_of_the_labels_however_they_come(spans, cuts, every):
    _, y = market(spans)
    at_once, rest = in_parts(y, [], every)
    assert in_parts(y, cuts, every) == (at_once, rest)
    bars = pd.DatetimeIndex(y["end"].unique()).sort_values()
    assert [bar for bar, _ in at_once] == list(bars[every - 1 :: every])
    learnt = [row for _, rows in at_once for row in rows] + rest
    assert sorted(learnt) == sorted(y.index)  # each once


def filled(every=5, policy=None):
    panel, y = market()
    half = (y["end"] <= TIMES[20]).to_numpy()
    memory = ReplayBuffer(window=1, capacity=60, policy=policy).add(panel, y[half])
    pending = Pending(ReplayBuffer(window=1)).add(panel, y[~half])
    return pending, memory


class Noted:
    """Stands where a stage does, and notes what it is taught."""

    def relearn(self, panel, y, *rest):
        self.panel, self.y, self.rest = check_panel(panel), check_labels(y), rest
        return self


def lesson(learning, drifted=False, say=None):
    pending, memory = filled()
    noted, _ = learning.teach((Noted(), None), pending, memory, say, drifted)
    return noted


@pytest.mark.parametrize(("share", "olds"), [(0.0, 0), (0.25, 19), (0.5, 57), (1.0, 57)])
def test_a_lesson_holds_the_share_of_replayed_rows(share, olds):
    noted = lesson(Learning(TreeLearning(), share=share))
    news = len(filled()[0].rows_)
    assert news == 57
    called = noted.y.index.get_level_values("asset").str[:3]
    assert (called == "old").sum() == olds
    assert (called == "new").sum() == (0 if share == 1 else news)
    rows = noted.panel.loc[noted.y.index, "feature.row"]
    assert rows[called == "new"].is_unique


def test_after_a_change_only_what_still_holds_is_replayed():
    def say(panel):
        """Sure of a sell, in every row."""
        odds = {"p_sell": 0.98, "p_hold": 0.01, "p_buy": 0.01}
        return panel.assign(**odds)

    noted = lesson(Learning(TreeLearning(), share_drifted=0.5), drifted=True, say=say)
    old = noted.y.index.get_level_values("asset").str[:3] == "old"
    assert 0 < old.sum() < 57
    assert (noted.y["side"][old] == -1).all()
    assert set(noted.y["side"][~old]) == {-1, 0, 1}


def test_what_is_pending_survives_being_stored():
    pending, _ = filled()
    panel, y = market()
    words = panel.loc[panel.index[[5, 45, 85]], ["filter.tree.z_sell", "filter.gate"]]
    pending.taught(words, TIMES[10])
    pending.add(panel, y[-7:])
    state = pending.state()
    values = json.loads(json.dumps(state.values, allow_nan=False))
    again = Pending(ReplayBuffer(window=1)).restore(State(values, state.parts))
    assert again.state() == state
    assert (again.bars_, again.lessons_, again.newest_) == (pending.bars_, 1, pending.newest_)
    pd.testing.assert_frame_equal(again.words_, words.astype("float64"), check_exact=True)
    assert again.unheard(y.index).sum() == pending.unheard(y.index).sum() == 3 * 11 - 3


@pytest.mark.parametrize("setting", [{"every": 0}, {"share": 1.2}, {"share_drifted": -0.1}])
def test_a_setting_out_of_range_is_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Learning(**setting)

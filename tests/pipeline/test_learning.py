"""Members learn on the way: stage 3 hears only of rows they had not learnt from, in any parts."""

import numpy as np
import pandas as pd
import pytest

from pipeline.signal_pipeline import SignalPipeline
from stages.filter.relearn import TreeLearning
from stages.online.learning import Learning
from stages.refiner.relearn import NetLearning
from tests.conftest import before, ended, times_of, tiny_pipeline

EVERY = 12
ALL = Learning(TreeLearning(), NetLearning(epochs=1), every=EVERY)


@pytest.fixture(scope="module")
def young(tiny_market, tmp_path_factory):
    past = before(tiny_market.panel, 40)
    y = ended(tiny_market.y, past)
    return tiny_pipeline().fit(past, y).save(tmp_path_factory.mktemp("young"))


def fresh(folder):
    return SignalPipeline.load(folder)


def parts_of(pipeline):
    return pipeline.content()[1]


def test_lessons_in_parts_equal_lessons_at_once(young, tiny_market, tmp_path):
    at_once, parts = fresh(young), fresh(young)
    at_once.update(tiny_market.panel, tiny_market.y, ALL)
    for bars in (29, 28, 27, 3, 0):
        known = before(tiny_market.panel, bars)
        # what volatility remembers, the warm-up, and the bars since the last time
        recent = known.groupby(level="asset").tail(parts.warmup + 113 + 20)
        y = ended(tiny_market.y, known)
        parts.update(recent, y[y.index.isin(recent.index)], ALL)
        parts = fresh(parts.save(tmp_path))  # the artifact holds all that goes on
    assert at_once.pending_.lessons_ == 40 // EVERY
    assert parts.digest == at_once.digest


def test_members_move_only_where_they_are_asked_to(young, tiny_market):
    was, pipeline = parts_of(fresh(young)), fresh(young)
    learning = Learning(TreeLearning(), every=EVERY)
    pipeline.update(tiny_market.panel, tiny_market.y, learning)
    now = parts_of(pipeline)
    moved = {name for name in was if was[name] != now[name] and name[:6] in ("filter", "refine")}
    assert moved == {"filter.lightgbm.txt", "filter.xgboost.ubj", "filter.forest.safetensors"}
    pipeline = fresh(young)
    pipeline.update(tiny_market.panel, tiny_market.y, Learning(None, NetLearning(), every=EVERY))
    now = parts_of(pipeline)
    moved = {name for name in was if was[name] != now[name] and name[:6] in ("filter", "refine")}
    assert moved == {"refiner.lstm.0.safetensors"}


def test_without_a_lesson_due_nothing_but_stage_3_moves(young, tiny_market):
    one, other = fresh(young), fresh(young)
    known = before(tiny_market.panel, 40 - EVERY + 1)
    y = ended(tiny_market.y, known)
    one.update(known, y, ALL)
    other.update(known, y)
    assert one.pending_.lessons_ == 0
    assert one.pending_.bars_ == EVERY - 1
    for name, stage in one.stack_:
        assert stage.state() == dict(other.stack_)[name].state()
    one.update(tiny_market.panel, tiny_market.y, ALL)
    assert one.pending_.lessons_ == 3


def test_a_confirmed_change_does_not_wait(young, tiny_market):
    pipeline = fresh(young)
    known = before(tiny_market.panel, 35)
    pipeline.update(known, ended(tiny_market.y, known), ALL, drifted=True)
    assert pipeline.pending_.lessons_ == 1
    assert pipeline.pending_.taught_ == times_of(known).max()


def test_rows_open_at_a_lesson_keep_the_words_of_the_members_before(young, tiny_market):
    """Labels of three bars: the newest rows are open when the members change."""
    panel = tiny_market.panel
    times = panel.index.unique("time").sort_values()
    place = times.get_indexer(times_of(tiny_market.y)) + 3
    late = tiny_market.y[place < len(times)].copy()
    late["end"] = times[place[place < len(times)]]
    past = before(panel, 40)
    pipeline = tiny_pipeline(refiner=None).fit(past, ended(late, past))
    members = pipeline.stack_.filter
    said = members.predict(panel)
    known = before(panel, 40 - EVERY)
    pipeline.update(known, ended(late, known), ALL)
    assert pipeline.pending_.lessons_ == 1
    words, lesson = pipeline.pending_.words_, pipeline.pending_.taught_
    assert set(times_of(words)) == set(times[times <= lesson][-3:])
    pd.testing.assert_frame_equal(words, said.loc[words.index, words.columns], check_exact=True)
    now = pipeline.stack_.filter.predict(panel).loc[words.index]
    assert not np.allclose(now["filter.lightgbm.z_buy"], words["filter.lightgbm.z_buy"])
    heard = pipeline.pending_.as_said(pipeline.stack_.filter.predict(panel))
    assert heard.loc[words.index, "filter.lightgbm.z_buy"].equals(words["filter.lightgbm.z_buy"])
    strangers = words.rename(index={"A0": "LATE"}, level="asset").index
    assert pipeline.pending_.unheard(strangers).sum() == 3


def test_reasons_follow_the_members(young, tiny_market):
    pipeline = fresh(young)
    rows = tiny_market.panel.index[[200, 250]]
    pipeline.explain(tiny_market.panel, rows)  # asks the members about the references, once
    pipeline.update(tiny_market.panel, tiny_market.y, ALL)
    why = pipeline.explain(tiny_market.panel, rows)
    assert why.gap.abs().max() < 1e-5
    said = pipeline.predict(tiny_market.panel).loc[rows, "margin"]
    np.testing.assert_allclose(why.output, said, atol=1e-9)
    assert why.raw_gap.abs().max() < 0.5

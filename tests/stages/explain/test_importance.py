"""Importance over many rows: what it is, how sure, and what a run stores of it."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base import DataError
from stages.explain.families import families
from stages.explain.importance import VIEWS, Importance, history, importance, over_time
from stages.features.returns import log_return
from stages.markets import tabular
from tests.stages.explain.made import dependent, explanation, rows_of, truth


def made(seed=0, times=60, assets=3, inputs=4):
    pushes = dependent(np.random.default_rng(seed), 0.5, times, assets, inputs)
    pushes = pushes * [1.0, 0.5, 0.1, 0.0]
    members = pd.DataFrame(
        {
            "context": pushes["x2"],
            "refiner.lstm": pushes["x0"] / 2,
            "filter.lightgbm": pushes["x0"] / 2 + pushes["x1"],
            "filter.rules": -pushes["x1"] / 4,
        }
    )
    return explanation(pushes, members)


def test_size_is_the_mean_absolute_push_and_shares_sum_to_one():
    why = made()
    found = importance(why, resamples=50)
    table = found.inputs
    assert list(table.index) == ["x0", "x1", "x2", "x3"]
    pd.testing.assert_series_equal(
        table["size"], why.contributions.abs().mean(), check_names=False, rtol=1e-12
    )
    np.testing.assert_allclose(table["mean"], why.contributions.mean(), rtol=1e-12)
    for view in VIEWS:
        assert getattr(found, view)["share"].sum() == pytest.approx(1)
    assert (found.rows, found.bars) == (180, 60)


def test_what_pushes_against_each_other_in_a_stage_cancels():
    why = made()
    found = importance(why, resamples=50)
    net = (why.by_stage["filter.lightgbm"] + why.by_stage["filter.rules"]).abs().mean()
    assert found.stages["size"]["filter"] == pytest.approx(net)
    assert found.members["size"]["filter.rules"] == pytest.approx(
        why.by_stage["filter.rules"].abs().mean()
    )
    assert set(found.stages.index) == {"context", "refiner", "filter"}


def test_families_are_those_of_the_functions_that_make_the_inputs():
    why = made()
    features = SimpleNamespace(columns={"x0": partial(log_return, bars=5), "x1": log_return})
    found = importance(why, features, resamples=50)
    assert families(["x0", "x2"], features) == {"x0": "returns", "x2": "given"}
    together = (why.contributions["x0"] + why.contributions["x1"]).abs().mean()
    assert found.families["size"]["returns"] == pytest.approx(together)
    assert set(found.families.index) == {"returns", "given"}


def test_intervals_hold_the_size_as_often_as_they_say():
    rng = np.random.default_rng(5)
    true = np.sqrt(2 / np.pi)
    held = []
    for _ in range(60):
        why = explanation(dependent(rng, 0.7, 100, 2, 3))
        table = importance(why, resamples=200).inputs
        held += list((table["low"] <= true) & (true <= table["high"]))
        assert (table["low"] <= table["size"]).all()
        assert (table["size"] <= table["high"]).all()
    assert np.mean(held) > 0.88  # 0.95 is said of 180 intervals, 60 of them independent


def test_ranks_are_sure_where_sizes_differ_and_open_where_they_do_not():
    rng = np.random.default_rng(6)
    pushes = dependent(rng, 0.0, 200, 3, 4) * [10, 1, 1, 0]
    table = importance(explanation(pushes), resamples=300).inputs
    assert tuple(table.loc["x0", ["rank_low", "rank_high"]]) == (1, 1)
    assert tuple(table.loc["x3", ["rank_low", "rank_high"]]) == (4, 4)
    for name in ("x1", "x2"):
        assert tuple(table.loc[name, ["rank_low", "rank_high"]]) == (2, 3)


def test_what_carries_a_planted_market_comes_first():
    pushes, _ = truth(tabular(0, times=200, assets=4, features=8))
    found = importance(explanation(pushes), resamples=50).inputs
    assert set(found.index[:4]) == {"x0", "x1", "x2", "x3"}
    assert (found["size"][4:] == 0).all()
    assert (found["high"][4:] == 0).all()


def test_a_stored_record_comes_back_as_it_was():
    found = importance(made(), resamples=50)
    again = Importance.read(json.loads(json.dumps(found.record(), allow_nan=False)))
    for view in VIEWS:
        pd.testing.assert_frame_equal(getattr(again, view), getattr(found, view))
    assert again.record() == found.record()


def test_the_same_seed_gives_the_same_bits_and_rows_may_come_in_any_order():
    why = made()
    turned = explanation(why.contributions[::-1], why.by_stage[::-1])
    one, same, other = (importance(w, resamples=50).record() for w in (why, made(), turned))
    assert one == same
    pd.testing.assert_frame_equal(
        Importance.read(one).inputs, Importance.read(other).inputs, rtol=1e-12
    )


def test_too_few_bars_are_refused():
    rows = rows_of(7, 50)
    with pytest.raises(DataError, match="importance over 7 bars") as refused:
        importance(explanation(pd.DataFrame({"x0": 1.0}, rows)))
    assert refused.value.code == "SV-F18"


def test_a_model_that_never_moves_has_importance_of_zero():
    found = importance(explanation(pd.DataFrame(0.0, rows_of(20, 2), ["x0", "x1"])), resamples=20)
    for view in VIEWS:
        table = getattr(found, view)
        assert (table[["size", "share", "low", "high"]] == 0).all(axis=None)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 15))
def test_shares_over_time_cover_each_bar_once(times, assets, periods):
    rng = np.random.default_rng(times)
    pushes = pd.DataFrame(rng.standard_normal((times * assets, 3)), rows_of(times, assets))
    table = over_time(explanation(pushes), periods)
    assert len(table) == min(times, periods)
    assert table.index.is_monotonic_increasing
    assert table.index[0] == pushes.index.get_level_values("time").min()
    np.testing.assert_allclose(table.sum(axis=1), 1)


def test_shares_over_time_show_when_an_input_took_over():
    rows = rows_of(40, 2)
    late = rows.get_level_values("time") >= rows[20][1]
    pushes = pd.DataFrame({"x0": np.where(late, 0.0, 1.0), "x1": np.where(late, -2.0, 0.0)}, rows)
    table = over_time(explanation(pushes), 4)
    assert table["x0"].tolist() == [1, 1, 0, 0]
    assert table["x1"].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="periods >= 1"):
        over_time(explanation(pushes), 0)


def test_history_lays_runs_side_by_side():
    one = importance(made(0), resamples=20)
    other = importance(made(1), resamples=20)
    table = history({"first": one, "second": other})
    assert list(table.index) == ["first", "second"]
    assert table.loc["second"].is_monotonic_decreasing
    assert table.loc["first", "x1"] == one.inputs["share"]["x1"]
    with pytest.raises(ValueError, match="at least one run"):
        history({})

"""Drift of reasons: silent where nothing changed, found where the market's drivers did."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, ttest_ind

from stages.base import DataError
from stages.explain.drift import _holm, drift
from stages.markets import (
    drift_dead_feature,
    drift_flip,
    drift_rotation,
    drift_volatility,
    tabular,
)
from tests.stages.explain.made import between, dependent, explanation, rows_of, truth


def halves(pushes, cut=0.5):
    return [explanation(between(pushes, *ends)) for ends in ((0, cut), (cut, 1))]


@pytest.mark.parametrize("rho", [0.0, 0.7, 0.95])
def test_false_alarms_come_no_more_often_than_said_whatever_the_dependence(rho):
    rng, looks, level = np.random.default_rng(11), 100, 0.1
    alarms = sum(
        drift(*halves(dependent(rng, rho, 160, 2, 12)), level=level).drifted for _ in range(looks)
    )
    assert alarms <= binom.ppf(0.99, looks, level)


def test_directions_raise_no_more_false_alarms():
    rng, looks = np.random.default_rng(12), 60
    alarms = 0
    for _ in range(looks):
        pushes = dependent(rng, 0.7, 120, 2, 6)
        # an input whose push is noisy, and inputs that move on their own
        inputs = (pushes + dependent(rng, 0.7, 120, 2, 6)).add_prefix("feature.")
        alarms += drift(*halves(pushes), inputs, level=0.1).drifted
    assert alarms <= binom.ppf(0.99, looks, 0.1)


@pytest.mark.parametrize("seed", range(5))
def test_drivers_that_rotate_are_found_and_named(seed):
    pushes, panel = truth(drift_rotation(seed, times=400, assets=4, features=8))
    before, after = explanation(between(pushes, 0, 0.25)), explanation(between(pushes, 0.75, 1))
    found = drift(before, after, panel)
    assert found.drifted
    sizes = found.table[(found.table["of"] == "size") & (found.table["adjusted"] <= 0.05)]
    # x0 and x1 trade places, and x4 takes over from x2
    assert {"x2", "x4"} <= set(sizes["input"])
    assert not {"x5", "x6", "x7"} & set(found.changed)
    row = sizes.set_index("input").loc["x4"]
    assert row["before"] == 0 < row["after"]
    assert "Reasons changed" in found.text


def test_drivers_that_turn_around_show_in_the_direction_and_not_in_the_size():
    pushes, panel = truth(drift_flip(0, times=300, assets=4))
    found = drift(*halves(pushes), panel)
    sure = found.table[found.table["adjusted"] <= found.level]
    assert set(sure["of"]) == {"direction"}
    assert {"x0", "x1"} <= set(sure["input"]) <= {"x0", "x1", "x2", "x3"}
    assert found.table.iloc[0]["before"] == pytest.approx(-found.table.iloc[0]["after"], rel=0.3)
    assert "turned" in found.text
    assert not drift(*halves(pushes)).drifted


def test_an_input_that_dies_is_found():
    pushes, _ = truth(drift_dead_feature(0, times=240, assets=4))
    found = drift(*halves(pushes))
    assert found.changed == ("x0",)
    assert "x0 pushes less" in found.text


@pytest.mark.parametrize("market", [tabular, drift_volatility])
def test_nothing_is_found_where_the_drivers_stay(market):
    pushes, panel = truth(market(1, times=240, assets=4))
    found = drift(*halves(pushes), panel)
    assert not found.drifted
    assert found.changed == ()
    assert found.text.startswith("No change of reasons beyond chance")


def test_independent_bars_are_compared_as_welch_does():
    rng = np.random.default_rng(3)
    pushes = pd.DataFrame({"x0": rng.standard_normal(4000)}, rows_of(4000, 1))
    [row] = drift(*halves(pushes, 0.4)).table.to_dict("records")
    one, other = (part.abs()["x0"] for part in (pushes[:1600], pushes[1600:]))
    oracle = ttest_ind(other, one, equal_var=False)
    assert row["after"] - row["before"] == pytest.approx(other.mean() - one.mean())
    assert row["statistic"] == pytest.approx(oracle.statistic, rel=0.1)


def test_what_depends_on_its_past_for_too_long_is_not_judged():
    rows = rows_of(60, 1)
    pushes = pd.DataFrame({"slow": np.linspace(1, 2, 60), "other": np.linspace(2, 1, 60)}, rows)
    found = drift(*halves(pushes))
    assert not found.table["judged"].any()
    assert (found.table["adjusted"] == 1).all()
    assert "2 figures depend on their past for too long" in found.text


def test_an_input_that_never_moves_is_the_same_and_a_step_of_constants_is_not():
    rows = rows_of(60, 1)
    late = rows.get_level_values("time") >= rows[30][1]
    noise = np.random.default_rng(0).standard_normal(60)
    pushes = pd.DataFrame({"still": 0.0, "step": np.where(late, 2.0, 1.0), "x": noise}, rows)
    found = drift(*halves(pushes))
    assert found.changed == ("step",)
    still = found.table.set_index("input").loc["still"]
    assert (still["before"], still["after"], still["p"]) == (0, 0, 1)


def test_an_input_that_one_model_lacks_pushes_nothing_there():
    rng = np.random.default_rng(2)
    before, after = halves(pd.DataFrame({"x0": rng.standard_normal(80)}, rows_of(80, 1)))
    more = explanation(after.contributions.assign(new=rng.standard_normal(40)))
    assert drift(before, more).changed == ("new",)
    assert drift(more, before).changed == ("new",)


def test_a_record_is_plain():
    pushes, panel = truth(drift_rotation(0, times=300, assets=4))
    found = drift(*halves(pushes), panel)
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["drifted"] is found.drifted
    assert len(record["table"]) == len(found.table)
    assert record["bars"] == [150, 150]


def test_windows_that_share_bars_or_are_too_short_are_refused():
    why = explanation(dependent(np.random.default_rng(0), 0.0, 40, 2, 2))
    with pytest.raises(DataError, match="40 bars are in both windows"):
        drift(why, why)
    short = explanation(between(why.contributions, 0, 0.4))
    with pytest.raises(DataError, match="the first window has 16 bars"):
        drift(short, explanation(between(why.contributions, 0.4, 1)))
    with pytest.raises(ValueError, match="level in"):
        drift(*halves(why.contributions), level=0.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.data())
def test_adjusted_values_are_those_of_holm(p, data):
    p = np.array(p)
    judged = np.array(data.draw(st.lists(st.booleans(), min_size=len(p), max_size=len(p))))
    found = _holm(p, judged)
    assert (found[~judged] == 1).all()
    m = judged.sum()
    for i in np.flatnonzero(judged):
        smaller = [j for j in np.flatnonzero(judged) if p[j] <= p[i]]
        worst = max((m - (p[judged] < p[j]).sum()) * p[j] for j in smaller)
        assert found[i] == pytest.approx(min(worst, 1))

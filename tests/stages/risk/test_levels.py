from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from stages.risk.levels import Levels, chance_first
from tests.stages.risk.made import BUY, PRICE

SCALE, ATR, COST = 0.03, 0.015, 0.001
SELL = replace(BUY, side=-1, probabilities={-1: 0.7, 0: 0.2, 1: 0.1})
PART = st.floats(0.01, 0.9)


def test_target_and_stop_stand_where_odds_and_range_say():
    plan = Levels(stop_ranges=2).plan(BUY, SCALE, ATR, COST)
    assert (plan.target, plan.stop) == pytest.approx((PRICE * 1.03, PRICE * 0.97))
    assert plan.chance == pytest.approx(0.7 / 0.8)
    assert plan.expected == pytest.approx(0.6 * SCALE - COST)
    assert plan.missing == ()
    sell = Levels().plan(SELL, SCALE, ATR, COST)
    assert (sell.target, sell.stop) == pytest.approx((PRICE * 0.97, PRICE * 1.03))
    assert (sell.size, sell.chance) == (plan.size, plan.chance)


def test_the_chance_is_that_of_a_walk_with_such_odds():
    """A walk of small steps whose odds to leave (-1, 1) upwards are 2 to 1 leaves (-0.5, 1)."""
    rng, step = np.random.default_rng(0), 0.1
    up = np.exp(np.log(2) * step) / (1 + np.exp(np.log(2) * step))
    at, still_open = np.zeros(20_000), np.ones(20_000, bool)
    while still_open.any():
        moves = np.where(rng.random(still_open.sum()) < up, step, -step)
        at[still_open] += moves
        still_open = (at > -0.5 + step / 2) & (at < 1 - step / 2)
    error = 4 * np.sqrt(0.25 / len(at))
    assert chance_first(2 / 3, 1 / 3, 1.0, 1.0, 0.5) == pytest.approx((at > 0).mean(), abs=error)


@given(PART, PART, PART, PART, PART)
def test_chances_of_both_ways_sum_to_one(p_for, p_against, scale, up, down):
    one = chance_first(p_for, p_against, scale, up, down)
    other = chance_first(p_against, p_for, scale, down, up)
    assert one + other == pytest.approx(1)
    assert chance_first(p_for, p_for, scale, up, down) == pytest.approx(down / (up + down))
    fair = p_for / (p_for + p_against)
    assert chance_first(p_for, p_against, scale, scale, scale) == pytest.approx(fair)


def test_odds_of_nothing_are_no_fault():
    assert chance_first(0.8, 0.0, 0.02, 0.02, 0.03) == 1.0
    assert chance_first(0.0, 0.8, 0.02, 0.02, 0.03) == 0.0
    assert chance_first(1 - 1e-12, 1e-12, 1e-3, 0.9, 0.9) == 1.0


def test_the_full_fraction_is_the_one_that_grows_fastest():
    free = Levels(kelly=1.0, at_risk=1.0, largest=1.0, stop_ranges=40)
    plan = free.plan(
        replace(BUY, probabilities={-1: 0.3, 0: 0.2, 1: 0.5}, confidence=0.5), 0.6, ATR, 0.0
    )

    def shrinks(f):
        return -(plan.chance * np.log1p(f * 0.6) + (1 - plan.chance) * np.log1p(-f * 0.6))

    best = minimize_scalar(shrinks, bounds=(0, 1), method="bounded").x
    assert plan.size == pytest.approx(best, abs=1e-4)
    assert 0.1 < best < 0.9


@settings(max_examples=80, deadline=None)
@given(st.floats(0.05, 0.9), st.floats(0, 0.05), st.floats(0.002, 0.2), st.floats(0.001, 0.1))
def test_a_size_keeps_its_caps_and_needs_an_edge(p, cost, scale, atr):
    assume(2 * atr < 1)
    rest = (1 - p) / 2
    signal = replace(BUY, probabilities={-1: rest, 0: rest, 1: p}, confidence=p)
    plan = Levels().plan(signal, scale, atr, cost)
    assert 0 <= plan.size <= 0.2
    assert plan.size * (2 * atr + cost) <= 0.01 + 1e-12
    assert (plan.size > 0) == (plan.expected > 0) or abs(plan.expected) < 1e-9
    dearer = Levels().plan(signal, scale, atr, cost + 0.01)
    assert dearer.size <= plan.size


@pytest.mark.parametrize(
    ("known", "has", "said"),
    [
        ({"scale": np.nan}, {"stop"}, "scale: no target"),
        ({"atr": np.nan}, {"target"}, "average true range: no stop"),
        ({"atr": 0.0}, {"target"}, "average true range: no stop"),
        ({"atr": 0.6}, {"target"}, "average true range: no stop"),
        ({"cost": np.nan}, {"target", "stop"}, "cost: no size"),
        ({"cost": -0.1}, {"target", "stop"}, "cost: no size"),
    ],
)
def test_what_is_missing_gives_no_price_and_says_so(known, has, said):
    plan = Levels().plan(BUY, **({"scale": SCALE, "atr": ATR, "cost": COST} | known))
    assert {name for name in ("target", "stop", "size") if getattr(plan, name) is not None} == has
    assert plan.chance is None
    assert plan.expected is None
    assert len(plan.missing) == 1
    assert plan.missing[0].startswith(said)


def test_there_is_no_plan_without_a_side_or_a_price():
    hold = replace(BUY, side=0, status="hold", confidence=0.2, why_not=("gate: closed",))
    assert Levels().plan(hold, SCALE, ATR, COST).missing == ("side: there is nothing to plan",)
    bare = Levels().plan(replace(BUY, prices={}), SCALE, ATR, COST)
    assert bare.missing == ("price: no target, stop or size",)
    assert bare.target is bare.stop is bare.size is None


@pytest.mark.parametrize(
    "words", [{"stop_ranges": 0}, {"kelly": 0}, {"at_risk": 2}, {"largest": -1}]
)
def test_wrong_settings_of_the_levels_are_refused(words):
    with pytest.raises(ValueError, match=next(iter(words))):
        Levels(**words)

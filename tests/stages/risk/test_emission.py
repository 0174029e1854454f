import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.risk.emission import Emission, emit
from stages.risk.life import standing
from tests.stages.risk.test_life import MINUTE, RULES, START, signals

EMISSION = Emission(RULES)


def kinds(table, earlier=None, emission=EMISSION):
    """The kind of reason of each signal, empty where it leaves, and what fell."""
    verdicts, overruled = emission.judge(table, earlier)
    assert (verdicts["emitted"] == (verdicts["withheld"] == "")).all()
    assert verdicts.index.equals(table.index)
    return verdicts["withheld"].str.partition(":")[0].tolist(), overruled


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({}, ""),
        ({"status": "hold", "side": 0}, "status"),
        ({"status": "abstain", "side": None, "edge": np.nan}, "status"),
        ({"valid": False, "quality": 30}, "quality"),
        ({"valid": True, "quality": 90}, ""),
        ({"valid": None, "quality": None}, ""),
        ({"asset_class": "option", "certainty": 0.6}, "floor"),
        ({"asset_class": "option", "strategy": "luck"}, "strategy"),
    ],
)
def test_each_signal_gets_a_reason_or_leaves(row, kind):
    assert kinds(signals(row)) == ([kind], {})


def test_what_was_said_before_is_withheld_in_one_table_and_across_two():
    twice = signals({}, {"time": 0.005}, {"asset": "B"})
    assert kinds(twice)[0] == ["", "duplicate", ""]
    before = twice.iloc[:1].assign(emitted=True)
    assert kinds(twice.set_axis([7, 8, 9]), before)[0] == ["duplicate", "duplicate", ""]


def test_a_stronger_side_overrules_what_left_before_and_a_weaker_does_not_leave():
    table = signals(
        {"edge": 0.01},
        {"time": 1, "side": -1, "edge": 0.02},
        {"time": 2, "edge": 0.015},
        {"time": 70, "edge": 0.001},
    )
    said, fallen = kinds(table)
    assert said == ["", "", "conflict", ""]  # the last speaks when all others have expired
    assert fallen == {0: "conflict: SELL has an edge of +2.00%"}
    first = table.iloc[:1].assign(emitted=True)
    assert kinds(table.iloc[1:], first) == (said[1:], fallen)


def test_where_no_edge_decides_no_side_leaves():
    both = signals({"edge": 0.01}, {"side": -1, "edge": 0.011})
    assert kinds(both)[0] == ["conflict", ""]
    careful = Emission(RULES, margin=0.005)
    assert kinds(both, emission=careful)[0] == ["conflict", "conflict"]


def test_caps_hold_across_calls_and_what_is_withheld_counts_for_none():
    rows = [{"time": t, "confidence": 0.5 + t / 100} for t in range(4)]
    said, _ = kinds(signals({"status": "hold", "side": 0}, *rows))
    assert said == ["status", "", "", "cap", "cap"]
    before = signals(*rows[:2]).assign(emitted=[True, False])
    assert kinds(signals(*rows[2:]).set_axis([5, 6]), before)[0] == ["", "cap"]


def test_a_late_signal_is_held_against_those_that_left_up_to_its_time():
    """What left later neither fills its hour nor keeps earlier ones in it."""
    times = [60, 61, 0, 1, 2]
    said, _ = kinds(signals(*({"time": t, "confidence": 0.5 + t / 100} for t in times)))
    assert said == ["", "", "", "", "cap"]
    later = signals({"time": 500}, {"time": 501, "confidence": 0.8}).assign(emitted=True)
    early = signals(*({"time": t, "confidence": 0.5 + t / 1000} for t in range(0, 300, 50)))
    assert set(kinds(early.set_axis(range(10, 16)), later)[0]) == {""}


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("AB"),
            st.sampled_from([-1, 0, 1]),
            st.integers(0, 40),
            st.sampled_from([0.01, 0.02, 0.03]),
            st.floats(0.5, 0.99),
        ),
        min_size=1,
        max_size=14,
    ),
    cut=st.integers(0, 40),
)
def test_verdicts_keep_every_rule_and_do_not_depend_on_what_comes_later(rows, cut):
    made = [
        {
            "asset": a,
            "side": s,
            "status": "fired" if s else "hold",
            "time": t,
            "edge": e,
            "certainty": c,
        }
        for a, s, t, e, c in sorted(rows, key=lambda row: row[2])
    ]
    table = signals(*made)
    verdicts, _ = EMISSION.judge(table)
    left = table[verdicts["emitted"].to_numpy()]
    assert emit(left, RULES)["emitted"].all()  # no cap is broken, no floor undercut
    for time in left["time"].unique():
        now = left[left["time"] <= time]
        sides = standing(now, time)
        mine = sides[(sides["time"] == time).to_numpy()]
        assert mine["stands"].all()  # none left against a stronger side
    early = (table["time"] <= START + cut * MINUTE).to_numpy()
    pd.testing.assert_frame_equal(EMISSION.judge(table[early])[0], verdicts[early])
    # in two calls as in one
    if early.any() and not early.all():
        known = table[early].assign(emitted=verdicts["emitted"][early])
        later, _ = EMISSION.judge(table[~early], known)
        pd.testing.assert_frame_equal(later, verdicts[~early])


def test_rules_that_make_no_sense_are_refused():
    for wrong in ({"measure": "luck"}, {"margin": -0.1}, {"jitter": "-1s"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Emission(RULES, **wrong)

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.explain.memory import Memory
from stages.explain.sentence import TOP, sentence
from stages.explain.words import Word
from stages.signal import SIDE_TEXT, Reasons, Signal, WhyNot

NAMES = [f"x{k}" for k in range(7)] + ["rule.r", "context.regime"]
COLUMNS = [n if "." in n else f"feature.{n}" for n in NAMES]
CERTAIN = WhyNot("certainty", "certainty 0.63 < 0.80", 0.63, 0.8)
TIME = pd.Timestamp("2022-03-01 21:00", tz="UTC")
TRAIL = {"filter": 0.3, "refiner": 0.12, "ensemble": 0.05, "gate": True}


def remembered() -> Memory:
    """Inputs that ran from 0 to 1, a rule and a regime."""
    time = pd.date_range("2020-01-01", periods=101, tz="UTC").as_unit("us")
    index = pd.MultiIndex.from_product([pd.Index(["A"], dtype="str"), time])
    index.names = ["asset", "time"]
    values = {c: np.linspace(0, 1, 101, dtype="float32") for c in COLUMNS}
    table = pd.DataFrame(values, index)
    y = pd.DataFrame({"side": np.int8(1), "end": time + pd.Timedelta("1D"), "weight": 1.0}, index)
    words = {
        "feature.x0": Word("momentum over 20 bars"),
        "rule.r": Word("breakout rule", rule=True),
        "context.regime": Word("state of the market", states={1.0: "stormy", 0.0: "calm"}),
    }
    return Memory(table, y, np.ones(101), np.arange(101), words)


MEMORY = remembered()


def reasons(pushes: dict[str, float], side: int = 1, baseline: float = 0.0) -> Reasons:
    margin = baseline + sum(pushes.values())
    return Reasons(side, baseline, margin, pushes, {}, 0.0, "", ())


def signal(why: Reasons | None, status: str = "hold", **parts) -> Signal:
    lead = why.side if why else 1
    side = {"hold": 0, "abstain": None}.get(status, lead)
    odds = {} if side is None else {lead: 0.41, 0: 0.35, -lead: 0.24}
    settings = {
        "asset": "A",
        "time": TIME,
        "side": side,
        "status": status,
        "probabilities": odds,
        "confidence": float("nan") if side is None else odds[side],
        "certainty": float("nan") if side is None else 0.6399,
        "epistemic": 0.1,
        "aleatoric": 0.9,
        "expires": TIME + pd.Timedelta("5D"),
        "model": "m",
        "why_not": (CERTAIN,) if status == "hold" else (),
        "stages": {},
        "reasons": why,
    }
    return Signal(**settings | parts)


VALUES = dict.fromkeys(COLUMNS, 0.5)


# what it names


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(-1, 1), min_size=len(NAMES), max_size=len(NAMES)),
    st.lists(st.sampled_from([0.0, 0.03, 0.2, 0.5, 0.9, 1.0]), min_size=9, max_size=9),
    st.floats(-1, 1),
    st.sampled_from([-1, 1]),
)
def test_named_inputs_are_among_the_largest_and_push_as_it_says(pushes, values, baseline, side):
    contributions = dict(zip(NAMES, pushes, strict=True))
    told = sentence(
        signal(reasons(contributions, side, baseline)),
        dict(zip(COLUMNS, values, strict=True)),
        MEMORY,
    )
    largest = sorted(contributions, key=lambda n: -abs(contributions[n]))[:TOP]
    floor = abs(contributions[largest[-1]])
    assert len(told.supports) <= 2
    assert len(told.opposes) <= 1
    for name in (*told.supports, *told.opposes):
        assert abs(contributions[name]) >= floor  # ties aside
    assert all(contributions[name] > 0 for name in told.supports)
    assert all(contributions[name] < 0 for name in told.opposes)
    before, _, against = told.text.partition(", although ")
    for name in told.supports:
        assert MEMORY.word(COLUMNS[NAMES.index(name)]).name in before
    for name in told.opposes:
        assert MEMORY.word(COLUMNS[NAMES.index(name)]).name in against
    assert ("because" in before.partition(";")[0]) == bool(
        told.supports or 2 * baseline > abs(baseline + sum(pushes)) > 0
    )
    assert told.text.startswith(f"Leans {SIDE_TEXT[side]} (p 0.41, certainty 0.63)")
    assert told.text.endswith(".")
    assert told.text.count(".") - len(re.findall(r"\d\.\d|e[-+]", told.text)) <= 1  # one sentence


def test_it_reads_as_a_sentence():
    why = reasons({"x0": 0.3, "context.regime": 0.2, "rule.r": -0.15, "x1": 0.01}, baseline=0.05)
    values = VALUES | {"feature.x0": 0.9, "context.regime": 0.0, "rule.r": -0.5}
    told = sentence(signal(why, stages=TRAIL), values, MEMORY, cost=0.001, if_free=True)
    assert told.text == (
        "Leans BUY (p 0.41, certainty 0.63), mainly because momentum over 20 bars is high (0.9) "
        "and state of the market is calm, although breakout rule says sell; "
        "the refiner weakens what the filter saw (+0.3 to +0.12), of which the ensemble makes "
        "+0.05; it is held back because the cost of 10 bp is not surely earned."
    )
    assert (told.supports, told.opposes) == (("x0", "context.regime"), ("rule.r",))


def test_levels_are_those_of_the_training():
    why = reasons({"x1": 0.3})
    for value, said in {0.02: "very low", 0.2: "low", 0.5: "middling", 0.99: "very high"}.items():
        told = sentence(signal(why), VALUES | {"feature.x1": value}, MEMORY)
        assert f"x1 is {said} ({value:g})" in told.text
    assert "x1 is missing" in sentence(signal(why), VALUES | {"feature.x1": np.nan}, MEMORY).text
    assert "x1 is at 0.2" in sentence(signal(why), VALUES | {"feature.x1": 0.2}).text


def test_mainly_means_half_of_what_pushes_there():
    few = reasons({"x0": 0.5, "x1": 0.3, "x2": 0.2})
    many = reasons({f"x{k}": 0.1 for k in range(7)})
    assert ", mainly because" in sentence(signal(few), VALUES, MEMORY).text
    assert ", partly because" in sentence(signal(many), VALUES, MEMORY).text


def test_a_margin_that_is_mostly_baseline_says_so():
    usual = sentence(signal(reasons({"x1": 0.02}, baseline=0.1)), VALUES, MEMORY).text
    assert (
        "mostly because the model leans so on an average row (at +0.1, this one at +0.12)" in usual
    )
    assert "and in part because x1 is middling" in usual
    alone = sentence(signal(reasons({"x1": -0.02}, baseline=0.1)), VALUES, MEMORY)
    assert alone.supports == ()
    assert "in part" not in alone.text
    assert "average row" not in sentence(signal(reasons({"x1": 0.2}, baseline=0.1)), VALUES).text


def test_one_thing_is_named_once():
    """A context may be a feature as well; what no input is stays unnamed."""
    why = reasons({"x1": 0.3, "context.x1": 0.2, "x2": 0.1, "filter.gate": 0.4})
    told = sentence(signal(why), VALUES | {"context.x1": 0.5})
    assert told.supports == ("x1", "context.x1")  # called differently, so both
    words = dict(MEMORY.words) | {"context.regime": Word("momentum over 20 bars")}
    twins = Memory(MEMORY.inputs, MEMORY.y, MEMORY.weight, MEMORY.bar, words)
    why = reasons({"x0": 0.3, "context.regime": 0.2, "x2": 0.1})
    assert sentence(signal(why), VALUES, twins).supports == ("x0", "x2")


# what stands in its way


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (0.12, "the refiner weakens what the filter saw (+0.3 to +0.12)"),
        (0.5, "the refiner strengthens what the filter saw (+0.3 to +0.5)"),
        (-0.1, "the refiner turns what the filter saw (+0.3 to -0.1)"),
        (0.302, "the refiner repeats what the filter saw (+0.3 to +0.3)"),
    ],
)
def test_the_trail_says_what_each_stage_made_of_it(after, said):
    told = sentence(signal(reasons({"x0": 0.1}), stages=TRAIL | {"refiner": after}), VALUES)
    assert f"; {said}, of which the ensemble makes +0.05;" in told.text
    mirrored = {n: -v if n != "gate" else v for n, v in (TRAIL | {"refiner": after}).items()}
    sell = sentence(signal(reasons({"x0": 0.1}, side=-1), stages=mirrored), VALUES)
    assert said in sell.text
    silent = sentence(signal(reasons({"x0": 0.1}), stages=TRAIL | {"refiner": None}), VALUES)
    assert "refiner" not in silent.text


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (CERTAIN, "its certainty is below the 0.80 asked for"),
        (WhyNot("gate", "gate: score below threshold"), "the first stage scores it below the gate"),
        (
            WhyNot("confidence", "confidence 0.33 < 0.40 of HOLD", 0.331, 0.4),
            "HOLD is likelier (p 0.40)",
        ),
        (
            WhyNot("confidence", "confidence 0.41 < 0.65", 0.41, 0.65),
            "confidence 0.41 < 0.65",
        ),
        (
            WhyNot("novelty", "novelty 4.21 > 3.00", 4.2, 3.0),
            "its inputs lie 4.2 times as far from the training as usual",
        ),
        (
            WhyNot("cost", "cost: above the return at stake"),
            "its cost is above the return at stake",
        ),
        (WhyNot("repeat", "repeat: the same side within 30s"), "the same side within 30s"),
        (WhyNot("uncertainty", "uncertainty 0.2 > 0.1", 0.2, 0.1), "uncertainty 0.2 > 0.1"),
    ],
)
def test_each_obstacle_is_put_in_words(reason, said):
    told = sentence(signal(reasons({"x0": 0.1}), why_not=(reason,)), VALUES)
    assert told.text.endswith(f"; it is held back because {said}.")


def test_several_obstacles_are_all_told():
    gate = WhyNot("gate", "gate: score below threshold")
    told = sentence(signal(reasons({"x0": 0.1}), why_not=(gate, CERTAIN)), VALUES).text
    assert "below the gate and its certainty is below" in told


def test_the_cost_is_blamed_only_where_it_alone_holds_it_back():
    why = signal(reasons({"x0": 0.1}))
    assert "the cost of 25 bp" in sentence(why, VALUES, cost=0.0025, if_free=True).text
    for cost, free in ((0.0025, False), (0.0025, None), (None, True)):
        assert "bp" not in sentence(why, VALUES, cost=cost, if_free=free).text


def test_a_fired_signal_says_and_an_unproven_one_leans():
    why = reasons({"x0": 0.1})
    fired = sentence(signal(why, "fired"), VALUES, MEMORY).text
    assert fired.startswith("Says BUY (p 0.41")
    assert "held back" not in fired
    skill = (WhyNot("skill", "skill: not tested"),)
    assert sentence(signal(why, "unproven", why_not=skill), VALUES).text.endswith(
        "; it is unproven, as its skill is not tested."
    )
    skill = (WhyNot("skill", "skill: e-value 1.4 < 20 after 90 bars", 1.4, 20.0),)
    assert (
        "the skill test stands at 1.4 of 20."
        in sentence(signal(why, "unproven", why_not=skill), VALUES).text
    )


def test_without_reasons_it_says_no_more_than_it_knows():
    history = (WhyNot("history", "history: incomplete"),)
    told = sentence(signal(None, "abstain", why_not=history), VALUES)
    assert told.text == "No view: history: incomplete."
    assert sentence(signal(None, "hold"), VALUES).text.startswith("Holds; it is held back because")
    assert sentence(signal(None, "fired"), VALUES).text == "Says BUY (p 0.41, certainty 0.63)."

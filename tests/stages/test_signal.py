from dataclasses import replace

import pandas as pd
import pytest

from stages.signal import CLOSURE, KEYS, SIDE_NUMBER, SIDE_TEXT, SIDES, Reasons, Signal, WhyNot

WHY = Reasons(
    side=1,
    baseline=0.1,
    margin=0.6,
    contributions={"feature.flow": 0.4, "feature.value": 0.1},
    by_stage={"filter.lightgbm": 0.5},
    raw_gap=1e-4,
    references="b3f1",
    text=("flow is high",),
)
LOW = WhyNot("certainty", "certainty 0.61 < 0.80", 0.61, 0.8)
BUY = Signal(
    asset="A",
    time=pd.Timestamp("2020-01-01", tz="UTC"),
    side=1,
    status="fired",
    probabilities={-1: 0.1, 0: 0.2, 1: 0.7},
    confidence=0.7,
    certainty=0.9,
    epistemic=0.02,
    aleatoric=0.78,
    expires=pd.Timestamp("2020-01-02", tz="UTC"),
    model="example",
    reasons=WHY,
)
NAN = float("nan")
QUIET = replace(
    BUY,
    side=None,
    status="abstain",
    probabilities={},
    confidence=NAN,
    certainty=NAN,
    epistemic=NAN,
    aleatoric=NAN,
    why_not=(WhyNot.of("history: 12 bars missing"),),
    reasons=None,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "maybe"}, "no such status as 'maybe'"),
        ({"side": 0}, "'fired' does not go with side 0"),
        ({"side": None}, "'fired' does not go with side None"),
        ({"status": "hold", "why_not": (LOW,)}, "'hold' does not go with side 1"),
        ({"status": "hold", "side": 0, "confidence": 0.2}, "a 'hold' must say why not"),
        ({"probabilities": {-1: 0.3, 1: 0.7}}, "must sum to 1"),
        ({"probabilities": {-1: 0.3, 0: 0.3, 1: 0.7}}, "must sum to 1"),
        ({"probabilities": {-1: NAN, 0: 0.3, 1: 0.7}}, "must sum to 1"),
        ({"confidence": 0.8}, "confidence 0.8 is not the odds of its side"),
        ({"certainty": NAN}, "certainty nan"),
        ({"certainty": 1.1}, "certainty 1.1"),
        ({"epistemic": -0.1}, "below 0"),
        ({"aleatoric": -0.1}, "below 0"),
        ({"expires": BUY.time}, "expires"),
        ({"time": pd.Timestamp("2020-01-01")}, "not UTC"),
        ({"sides": (0, 2)}, "no such sides"),
        ({"interval": {"low": 0.1, "high": -0.1, "level": 0.95}}, "ends at -0.1, below its start"),
        ({"expires": pd.Timestamp("2020-01-02", tz="Asia/Tokyo")}, "not UTC"),
    ],
)
def test_a_contradiction_is_refused_by_asset_and_time(change, message):
    with pytest.raises(ValueError, match=message) as refused:
        replace(BUY, **change)
    assert str(refused.value).startswith("signal for A at 2020-01-01")


def test_every_status_goes_with_its_sides():
    assert replace(BUY, status="unproven").side == 1
    assert replace(BUY, side=-1, confidence=0.1).side == -1
    hold = replace(BUY, status="hold", side=0, confidence=0.2, why_not=(LOW,))
    assert [str(why) for why in hold.why_not] == ["certainty 0.61 < 0.80"]


def test_an_abstention_has_no_odds_and_says_why():
    assert QUIET.probabilities == {}
    with pytest.raises(ValueError, match="an abstention has no odds"):
        replace(QUIET, probabilities=BUY.probabilities)
    with pytest.raises(ValueError, match="an abstention promises nothing"):
        replace(QUIET, sides=(0,))
    with pytest.raises(ValueError, match="a 'abstain' must say why not"):
        replace(QUIET, why_not=())


@pytest.mark.parametrize("off", [2 * CLOSURE, -2 * CLOSURE, NAN])
def test_reasons_that_do_not_add_up_do_not_leave(off):
    with pytest.raises(ValueError, match="contributions miss the margin"):
        replace(WHY, margin=WHY.margin + off)


def test_reasons_close_within_the_tolerance():
    assert abs(replace(WHY, margin=WHY.margin + CLOSURE / 2).gap) <= CLOSURE
    assert WHY.gap == pytest.approx(0)


def test_sides_are_named_both_ways():
    assert {SIDE_NUMBER[text]: text for text in SIDE_TEXT.values()} == SIDE_TEXT
    assert set(SIDES) == set(SIDE_TEXT) == {-1, 0, 1}


@pytest.mark.parametrize("key", KEYS)
def test_what_stood_in_the_way_begins_with_its_key(key):
    assert WhyNot.of(f"{key}: so it is") == WhyNot(key, f"{key}: so it is")
    assert WhyNot.of(f"{key} 0.61 < 0.80").key == key
    with pytest.raises(ValueError, match="does not begin with"):
        WhyNot(key, "0.61 < 0.80")
    with pytest.raises(ValueError, match="'luck'"):
        WhyNot.of("luck 0.61 < 0.80")

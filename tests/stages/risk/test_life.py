from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.base import ConfigError, DataError
from stages.risk.classes import AssetClasses
from stages.risk.emission import emit
from stages.risk.life import archive, duplicates, phase, signal_table, standing
from tests.stages.risk.made import BUY, PRICE

START = pd.Timestamp("2024-03-01 10:00", tz="UTC").as_unit("us")
MINUTE = pd.Timedelta("1min")
RULES = AssetClasses(
    {
        "option": {"band": [70, 95], "floor": 0.7, "per_hour": 3, "strategies": {"flow": 1}},
        "default": {"band": [0, 100], "per_hour": 5, "per_hour_asset": 2},
    }
)


def signals(*rows, **same):
    """A table of signals: each row says in what it differs from a sure buy of A at 10 o'clock."""
    usual = {
        "asset": "A",
        "asset_class": "equity",
        "strategy": "flow",
        "model": "m1",
        "time": 0,
        "side": 1,
        "status": "fired",
        "strength": "strong",
        "confidence": 0.7,
        "certainty": 0.9,
        "price": 100.0,
        "cost": 0.001,
        "edge": 0.01,
    } | same
    table = pd.DataFrame([usual | row for row in rows])
    table["expires"] = START + MINUTE * (
        table["time"] + table.pop("life").to_numpy() if "life" in table else table["time"] + 10
    )
    table["time"] = START + MINUTE * table["time"]
    table["side"] = table["side"].astype("Int8")
    return table


# the table


def test_a_table_says_what_its_signals_say():
    sell = replace(BUY, asset="B", side=-1, confidence=0.1, prices={"close": PRICE})
    table = signal_table([BUY, sell], ["equity", "etf"], "flow", [0.001, 0.002])
    assert table["asset_class"].tolist() == ["equity", "etf"]
    assert table["side"].tolist() == [1, -1]
    assert table["edge"].iloc[0] == pytest.approx(0.6 * 0.03 - 0.001)
    assert np.isnan(table["edge"].iloc[1])  # without a target nothing is at stake that is known
    assert np.isnan(signal_table([BUY], ["equity"], "flow")["edge"].iloc[0])  # nor without a cost
    assert table["expires"].iloc[0] == BUY.expires
    assert len(signal_table([], [], "flow")) == 0


# emission


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, ""),
        ({"status": "unproven"}, ""),
        ({"status": "hold", "side": 0}, "status: hold"),
        ({"asset_class": "option", "certainty": 0.69}, "floor: certainty 0.69 < 0.70"),
        ({"asset_class": "option", "certainty": np.nan}, "floor: certainty nan < 0.70"),
        ({"asset_class": "option", "certainty": 0.7}, ""),
        ({"asset_class": "option", "strategy": "luck"}, "strategy: luck may not speak of option"),
    ],
)
def test_a_signal_leaves_by_the_rules_of_its_class(row, reason):
    told = emit(signals(row), RULES)
    assert told["withheld"].tolist() == [reason]
    assert told["emitted"].tolist() == [not reason]


def test_floors_apply_to_what_they_are_told():
    table = signals({"asset_class": "option", "confidence": 0.6})
    assert emit(table, RULES)["emitted"].all()
    assert emit(table, RULES, measure="confidence")["withheld"].iloc[0].startswith("floor: conf")


def test_an_asset_and_a_class_have_their_fill_in_an_hour():
    table = signals(*({"time": t} for t in (0, 10, 20, 59, 60, 61)))
    assert emit(table, RULES)["emitted"].tolist() == [True, True, False, False, True, False]
    many = signals(*({"asset": name} for name in "ABCDEFG"))
    told = emit(many, RULES)
    assert told["emitted"].sum() == 5
    assert set(told["withheld"]) == {"", "cap: 5 signals of equity within the hour"}


def test_one_asset_and_one_class_never_silence_another():
    rows = [{"asset": "A"}] * 3 + [{"asset": "B"}, {"asset": "C", "asset_class": "bond"}]
    assert emit(signals(*rows), RULES)["emitted"].tolist() == [True, True, False, True, True]


def test_the_surest_of_one_time_leave_first():
    sure = {"A": 0.7, "B": 0.9, "C": 0.8, "D": 0.95, "E": 0.6, "F": 0.85}
    rows = [{"asset": name, "certainty": value} for name, value in sure.items()]
    assert emit(signals(*rows), RULES)["emitted"].tolist() == [True] * 4 + [False, True]


def test_a_class_without_rules_cannot_emit():
    with pytest.raises(ConfigError, match="SV-X642"):
        emit(signals({}), AssetClasses({"bond": {"band": [5, 40]}}))


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "time": st.integers(0, 150),
            "asset": st.sampled_from("ABC"),
            "certainty": st.floats(0, 1),
            "asset_class": st.sampled_from(["option", "equity"]),
        }
    ),
    min_size=2,
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(ROWS, st.integers(0, 150), st.randoms())
def test_emission_keeps_its_caps_is_free_of_order_and_of_the_future(rows, cut, random):
    table = signals(*rows)
    told = emit(table, RULES)
    left = table[told["emitted"]]
    for row in left.itertuples():
        hour = left[(left["time"] > row.time - 60 * MINUTE) & (left["time"] <= row.time)]
        cap = {"option": 3, "equity": 5}[row.asset_class]
        assert (hour["asset_class"] == row.asset_class).sum() <= cap
    for row in table[told["withheld"].str.contains("of equity|of option").to_numpy()].itertuples():
        hour = left[(left["time"] > row.time - 60 * MINUTE) & (left["time"] <= row.time)]
        cap = {"option": 3, "equity": 5}[row.asset_class]
        assert (hour["asset_class"] == row.asset_class).sum() == cap
    shuffled = list(range(len(rows)))
    random.shuffle(shuffled)
    again = emit(table.iloc[shuffled], RULES)["emitted"]
    same = table.assign(left=told["emitted"]).groupby(list(rows[0]))["left"].sum()
    pd.testing.assert_series_equal(
        table.iloc[shuffled].assign(left=again).groupby(list(rows[0]))["left"].sum(), same
    )
    early = (table["time"] <= START + cut * MINUTE).to_numpy()
    first = emit(table[early], RULES)
    pd.testing.assert_frame_equal(first, told[early])
    earlier = table[early][first["emitted"]]
    pd.testing.assert_frame_equal(emit(table[~early], RULES, earlier=earlier), told[~early])


def test_caps_are_never_told_of_later_signals():
    with pytest.raises(DataError, match="SV-X641"):
        emit(signals({}), RULES, earlier=signals({"time": 5}))


# duplicates


def planted(seed=0, count=400):
    """Distinct signals that are as alike as they may be, and their duplicates, as they arrive."""
    rng = np.random.default_rng(seed)
    choices = {"asset": list("ABCD"), "side": [-1, 1], "strategy": ["flow", "skew"]}
    choices |= {"model": ["m1", "m2"], "time": list(range(60)), "confidence": [0.7, 0.7001]}
    grid = pd.MultiIndex.from_product(choices.values(), names=list(choices)).to_frame(index=False)
    distinct = grid.iloc[rng.choice(len(grid), count, replace=False)]
    table = signals(*distinct.to_dict("records")).assign(origin=np.arange(count), copy=False)
    copies = table.iloc[rng.integers(0, count, count // 2)].assign(copy=True)
    copies["time"] += pd.to_timedelta(rng.normal(0, 0.4, len(copies)), "s").as_unit("us")
    copies["confidence"] += rng.normal(0, 1e-9, len(copies))
    every = pd.concat([table, copies], ignore_index=True)
    arrives = every["time"] + pd.to_timedelta(rng.exponential(20, len(every)), "s")
    return every.iloc[arrives.argsort()].reset_index(drop=True)


@pytest.mark.parametrize("seed", range(3))
def test_planted_duplicates_are_found_and_no_distinct_signal_is_lost(seed):
    """More than 95 of 100 are asked for, and none lost."""
    table = planted(seed)
    of = duplicates(table)
    kept = table[of < 0]
    assert set(kept["origin"]) == set(table["origin"])
    found = of >= 0
    assert (table["origin"].to_numpy()[of[found]] == table["origin"].to_numpy()[found]).all()
    planted_copies = len(table) - table["origin"].nunique()
    original = table["time"].iloc[of[found]].reset_index(drop=True)
    away = table["time"][found].reset_index(drop=True) - original
    assert away.abs().max() <= pd.Timedelta("1s")
    assert found.sum() / planted_copies > 0.95  # a few are further away than the jitter


def test_duplicates_are_those_of_earlier_tables_too():
    table = planted(4)
    whole = duplicates(table)
    head, tail = table[:250], table[250:]
    assert np.array_equal(duplicates(tail, earlier=head), whole[250:])
    assert (duplicates(table, earlier=table) >= 0).all()


@pytest.mark.parametrize(
    "change",
    [
        {"asset": "B"},
        {"side": -1},
        {"strategy": "skew"},
        {"model": "m2"},
        {"time": 1},
        {"confidence": 0.70001},
    ],
)
def test_a_signal_that_differs_is_no_duplicate(change):
    assert duplicates(signals({}, change)).tolist() == [-1, -1]
    assert duplicates(signals({}, change, {})).tolist() == [-1, -1, 0]


def test_abstentions_repeat_too():
    quiet = {"side": pd.NA, "status": "abstain", "confidence": np.nan}
    assert duplicates(signals(quiet, quiet, {})).tolist() == [-1, 0, -1]


# expiry and conflicts


def test_a_signal_is_pending_then_active_then_expired():
    table = signals({})
    for now, want in [(-1, "pending"), (0, "active"), (9.99, "active"), (10, "expired")]:
        assert phase(table, START + now * MINUTE).tolist() == [want]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), max_size=12), st.integers(0, 90))
def test_an_archive_loses_nothing(spans, now):
    if not spans:
        return
    table = signals(*({"time": t, "life": life} for t, life in spans))
    kept, over = archive(table, START + now * MINUTE)
    assert sorted([*kept.index, *over.index]) == list(table.index)
    assert (over["expires"] <= START + now * MINUTE).all()
    assert (kept["expires"] > START + now * MINUTE).all()


def test_the_larger_edge_stands_whatever_made_it_and_whenever():
    table = signals(
        {"edge": 0.01},
        {"edge": 0.02, "side": -1, "time": 3, "strategy": "skew"},
        {"edge": 0.005, "time": 4},
        {"edge": 0.5, "side": -1, "asset": "B"},
    )
    before = standing(table, START + 2 * MINUTE)
    assert before["stands"].tolist() == [True, True]  # one of A, one of B
    told = standing(table, START + 5 * MINUTE)
    assert told["stands"].tolist() == [False, True, False, True]
    assert told["overruled"].iloc[0] == "conflict: SELL has an edge of +2.00%"
    after = standing(table, START + 12 * MINUTE)  # the first of A has expired
    assert after["stands"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("one", "other", "margin", "stands"),
    [
        (0.02, 0.01, 0.0, [True, False]),
        (0.02, 0.01, 0.01, [False, False]),
        (0.01, 0.01, 0.0, [False, False]),
        (np.nan, 0.01, 0.0, [False, True]),
        (np.nan, -0.01, 0.0, [False, True]),
        (np.nan, np.nan, 0.0, [False, False]),
    ],
)
def test_a_coin_decides_no_position(one, other, margin, stands):
    table = signals({"edge": one}, {"edge": other, "side": -1})
    assert standing(table, START, margin)["stands"].tolist() == stands


def test_the_same_side_is_no_conflict_and_a_hold_has_no_say():
    table = signals({}, {"model": "m2", "edge": np.nan}, {"side": 0, "status": "hold"})
    told = standing(table, START)
    assert told["stands"].tolist() == [True, True]
    assert told["model"].tolist() == ["m1", "m2"]


SIDES = st.tuples(st.sampled_from([-1, 1]), st.integers(-3, 3), st.sampled_from("AB"))


@settings(max_examples=25, deadline=None)
@given(st.lists(SIDES, min_size=1, max_size=10), st.randoms())
def test_what_stands_is_of_one_side_and_free_of_order(rows, random):
    table = signals(*({"side": s, "edge": e / 100, "asset": a} for s, e, a in rows))
    told = standing(table, START)
    assert (told[told["stands"]].groupby("asset")["side"].nunique() == 1).all()
    order = list(range(len(rows)))
    random.shuffle(order)
    pd.testing.assert_frame_equal(standing(table.iloc[order], START).sort_index(), told)

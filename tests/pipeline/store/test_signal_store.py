import json
import math
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from pipeline.signals_io import to_record
from pipeline.store.rows import Outcome
from pipeline.store.signal_store import SignalStore
from stages.base import ConfigError, DataError, StoreError
from tests.pipeline.store.samples import MINUTE, START, WHY, abstention, buy, sell
from tests.pipeline.test_signals_io import SIGNALS

SCHEMA = json.loads((Path(__file__).parents[3] / "schemas" / "signal-v1.json").read_text())
FRESH = count()
SHARED = [HealthCheck.function_scoped_fixture]  # one store for all examples, on purpose
WEEK = pd.Timedelta(days=7)


def ids(found):
    return [stored.id for stored in found]


# appending


def test_a_signal_comes_back_as_it_was_with_its_explanation(store):
    assert store.append(SIGNALS, "c0", strategy="trend") == 3
    for number, signal in enumerate(SIGNALS, start=1):
        stored = store.get(number)
        assert stored.record == to_record(signal, "c0")
        Draft202012Validator(SCHEMA).validate(stored.record)
        assert to_record(stored.signal, "c0") == to_record(signal, "c0")
        assert (stored.asset, stored.time) == (signal.asset, signal.time)
        assert (stored.revision, stored.strategy, stored.outcome) == (0, "trend", None)


def test_contributions_keep_their_order(store):
    contributions = {"zz": 0.75, "aa": -0.25, "mm": 0.0}
    store.append([buy(reasons=replace_contributions(contributions))], "c")
    assert list(store.get(1).signal.reasons.contributions) == ["zz", "aa", "mm"]


def replace_contributions(contributions):
    return replace(WHY, contributions=contributions)


def test_doing_it_again_adds_nothing(store):
    assert store.append([buy(), buy("MSFT")], "c") == 2
    before = store.events()
    assert store.append([buy("MSFT"), buy()], "c") == 0
    assert store.append([buy("TSLA"), buy(), buy("TSLA")], "c") == 1
    assert store.append([], "c") == 0
    assert len(store.events()) == len(before) + 1
    assert store.verify().signals == 3


def test_another_model_or_settings_are_another_signal(store):
    store.append([buy()], "c")
    assert store.append([buy(model="m2", p=0.3)], "c") == 1
    assert store.append([buy(p=0.3)], "c2") == 1
    assert len(store.latest(9)) == 3


@pytest.mark.parametrize("late", [buy(p=0.3), buy(reasons=None), buy(prices={"close": 163.21})])
def test_another_content_under_the_same_key_is_an_error_and_stores_nothing(store, late):
    store.append([buy()], "c")
    with pytest.raises(StoreError) as refused:
        store.append([buy("MSFT"), late], "c")
    assert (refused.value.code, refused.value.exit_code) == ("SV-X520", 5)
    assert "AAPL at 2022-03-01 21:00:00.000123" in refused.value.what
    assert [s.asset for s in store.latest(9)] == ["AAPL"]
    with pytest.raises(StoreError, match="another content"):
        store.append([buy()], "c", strategy="another name")
    with pytest.raises(StoreError, match="another content"):  # within one delivery too
        store.append([buy("TSLA"), buy("TSLA", p=0.3)], "c")
    assert store.verify().signals == 1


def test_a_restated_signal_is_a_revision_beside_the_old_one(store):
    store.append([buy(), buy("MSFT")], "c")
    assert store.restate([buy(p=0.3), buy("MSFT")], "c") == 1
    assert store.restate([buy(p=0.3)], "c") == store.restate([buy()], "c") == 0  # redelivered
    assert store.restate([buy("TSLA"), buy("TSLA", p=0.2)], "c") == 2
    found = [(s.asset, s.revision, s.record["confidence"]) for s in store.follow()]
    assert found == [
        *(("AAPL", 0, 0.4), ("MSFT", 0, 0.4)),
        *(("AAPL", 1, 0.3), ("TSLA", 0, 0.4), ("TSLA", 1, 0.2)),
    ]
    assert ids(store.latest(9)) == ids(store.active(START)) == [5, 3, 2]
    assert store.append([buy(p=0.3)], "c", revision=1) == 0


NAMES = [
    "BRK.B",
    "SPY   241220C00600000",
    "株式会社",
    "🚀",
    "'; DROP TABLE signals; --",
    "=cmd()",
    "../x",
]


def test_any_symbol_comes_back_to_the_letter(store):
    store.append([abstention(name) for name in NAMES], "c")
    for name in NAMES:
        (found,) = store.latest(9, asset=name)
        assert found.asset == found.record["asset"] == name


@pytest.mark.parametrize("name", ["A\0", "\ud83d", ""])
def test_text_that_no_database_holds_is_refused(store, name):
    with pytest.raises(DataError) as refused:
        store.append([abstention("AAPL"), abstention(name)], "c")
    assert refused.value.code == "SV-F17"
    with pytest.raises(DataError, match="no text"):
        store.latest(1, asset=name)
    assert store.latest(9) == []


finite = st.floats(allow_nan=False, allow_infinity=False)
share = st.floats(0, 1)


@settings(max_examples=25, deadline=None, suppress_health_check=SHARED)
@given(
    asset=st.text(min_size=1).filter(lambda s: "\0" not in s and s.isprintable()),
    p=st.floats(0, 0.75),
    certainty=share,
    close=finite,
    contribution=finite.filter(lambda x: abs(x) < 1e9),
    novelty=st.floats(0, 1e308) | st.just(math.nan) | st.just(-0.0),
    minute=st.integers(-20_000_000, 40_000_000),
)
def test_every_number_comes_back_to_the_bit(
    store, asset, p, certainty, close, contribution, novelty, minute
):
    why = replace_contributions({"a": contribution, "b": 0.5 - contribution})
    signal = buy(
        *(asset, minute, p),
        certainty=certainty,
        prices={"close": close},
        novelty=novelty,
        reasons=why,
    )
    before = store.latest(1, asset=asset, since=signal.time, until=signal.time)
    if before and before[0].record != to_record(signal, "c"):
        return
    store.append([signal], "c")
    (found,) = store.latest(1, asset=asset, since=signal.time, until=signal.time)
    assert found.record == to_record(signal, "c")
    assert store.append([found.signal], "c") == 0


# asking


def test_the_latest_come_first_and_are_narrowed_by_what_is_asked(store):
    store.append([buy("A", 0), sell("B", 1), abstention("A", 2), buy("A", 3, model="m2")], "c")
    store.append([sell("A", 1, strength="weak")], "c2", strategy="s")
    assert ids(store.latest(9)) == [4, 3, 5, 2, 1]
    assert ids(store.latest(2, asset="A")) == [4, 3]
    assert ids(store.latest(9, side="SELL")) == [5, 2]
    assert ids(store.latest(9, status="abstain")) == [3]
    assert ids(store.latest(9, model="m2", asset=None)) == [4]
    assert ids(store.latest(9, config="c2", strategy="s", strength="weak")) == [5]
    assert ids(store.latest(9, since=START + MINUTE, until=START + 2 * MINUTE)) == [3, 5, 2]
    assert store.latest(9, asset="C") == []


def test_a_wrong_question_is_named(store):
    with pytest.raises(ConfigError, match="'assets'") as refused:
        store.latest(1, assets="A")
    assert refused.value.cure == "did you mean asset?"
    with pytest.raises(ConfigError, match="n=0 is below 1"):
        store.latest(0)
    with pytest.raises(ConfigError, match="revision=-1 is below 0"):
        store.append([buy()], "c", revision=-1)
    with pytest.raises(ConfigError, match="side=1 is no text"):
        store.latest(1, side=1)
    with pytest.raises(ConfigError, match="no cursor"):
        store.page(1, "1.2; DROP TABLE signals")
    with pytest.raises(DataError, match="no zone"):
        store.active(pd.Timestamp("2022-03-01"))
    for absent in (1, 0, -1, 2**80):
        with pytest.raises(StoreError, match=f"no signal {absent}") as refused:
            store.get(absent)
        assert refused.value.code == "SV-X533"


def test_pages_show_the_store_as_the_first_page_saw_it(store):
    store.append([buy("A", minute) for minute in range(7)], "c")
    store.append([buy("B", 3)], "c")
    expected = ids(store.latest(99))
    first = store.page(3)
    store.append([buy("C", minute) for minute in range(7)], "c")  # above and below the cursor
    store.restate([buy("A", 1, p=0.3), buy("B", 3, p=0.3)], "c")
    seen = ids(first.signals)
    page = first
    while page.cursor is not None:
        page = store.page(3, page.cursor)
        seen += ids(page.signals)
    assert seen == expected
    assert [s.revision for s in store.latest(99) if s.asset == "B"] == [1]


def test_a_page_that_ends_exactly_has_no_cursor(store):
    store.append([buy("A", minute) for minute in range(4)], "c")
    assert store.page(4).cursor is None
    second = store.page(2, store.page(2).cursor)
    assert (ids(second.signals), second.cursor) == ([2, 1], None)
    assert store.page(3, asset="B") == store.page(3, asset="C")


def test_active_are_those_decided_and_not_yet_expired(store):
    short = buy("A", 0, expires=START + 5 * MINUTE)
    store.append([short, buy("B", 2), sell("C", 10)], "c")
    assert ids(store.active(START)) == [1]
    assert ids(store.active(START + 2 * MINUTE)) == [2, 1]
    assert ids(store.active(START + 5 * MINUTE)) == [2]
    assert ids(store.active(START + 10 * MINUTE, side="SELL")) == [3]
    assert store.active(START - MINUTE) == store.active(START + 3 * WEEK) == []
    longer = buy("A", 0, p=0.3, expires=START + 20 * MINUTE)
    store.restate([longer], "c")
    assert ids(store.active(START + 6 * MINUTE, asset="A")) == [4]


def test_whoever_follows_sees_each_signal_once_in_the_order_of_storing(store):
    store.append([buy("A", 5), buy("A", 1)], "c")
    first = store.follow(0, n=1)
    store.append([buy("A", 3)], "c")
    rest = store.follow(first[-1].id)
    assert ids([*first, *rest]) == [1, 2, 3]
    assert store.follow(3) == []


# what comes of signals


def test_an_outcome_is_attached_once(store):
    store.append([buy(), sell("B")], "c")
    end = START + WEEK
    assert store.outcome(1, 1, 0.02, end, excess=0.01) is True
    row = pd.DataFrame({"id": [1], "label": [1], "ret": [0.02], "excess": [0.01]}).iloc[0]
    again = Outcome(np.int64(row["id"]), np.int64(row["label"]), row["ret"], end, row["excess"])
    assert store.resolve([again]) == 0  # as they come from a table
    assert store.get(1).outcome == Outcome(1, 1, 0.02, end, 0.01)
    assert store.latest(1, asset="AAPL")[0].outcome.ret == 0.02
    assert store.get(2).outcome is None
    with pytest.raises(StoreError) as refused:
        store.resolve([Outcome(2, -1, -0.01, end), Outcome(1, 0, 0.02, end, 0.01)])
    assert refused.value.code == "SV-X535"
    assert store.get(2).outcome is None  # all or none
    assert store.verify().outcomes == 1


def test_an_outcome_that_cannot_be_is_refused(store):
    store.append([buy()], "c")
    with pytest.raises(DataError, match="no later than the signal") as refused:
        store.outcome(1, 1, 0.02, START)
    assert refused.value.code == "SV-F25"
    for label, ret, excess in [(2, 0.0, None), (1, math.nan, None), (1, 0.0, math.inf)]:
        with pytest.raises(DataError) as refused:
            store.outcome(1, label, ret, START + WEEK, excess)
        assert refused.value.code == "SV-F12"
    with pytest.raises(StoreError, match="no signal 2"):
        store.outcome(2, 1, 0.0, START + WEEK)


def test_expiry_is_logged_once_each_and_edits_nothing(store):
    store.append([buy("A"), buy("B", 10), buy("C", 20)], "c")
    before = store.follow()
    assert store.expire(START) == 0
    assert store.expire(START + WEEK + 10 * MINUTE) == 2
    assert store.expire(START + WEEK + 10 * MINUTE) == 0
    store.append([buy("D", 5)], "c")  # a late one, expired before it came
    assert store.expire(START + WEEK) == 1  # a clock that goes back misses none
    assert store.expire(START + 2 * WEEK) == 1
    assert [event.signal for event in store.events(kind="expired")] == [1, 2, 4, 3]
    assert store.follow()[:3] == before


def test_the_log_tells_what_happened_to_a_signal(url):
    now = iter(START + i * MINUTE for i in range(9))
    with SignalStore(url, clock=lambda: next(now)) as store:
        store.append([buy()], "c")
        store.event("shown", 1, place="page", times=2)
        store.event("looked")
        assert store.get(1).stored == START + MINUTE
        told = store.events(signal=1)
        assert [(e.kind, e.details) for e in told] == [("shown", {"place": "page", "times": 2})]
        assert told[0].time == START + 2 * MINUTE
        kinds = ["upgraded", "appended", "shown", "looked"]
        assert [e.kind for e in store.events()] == kinds
        assert [e.kind for e in store.events(after=2, n=1)] == ["shown"]
        with pytest.raises(ConfigError, match="the store's own"):
            store.event("appended", first=1)
        assert store.verify().events == 4


def test_performance_is_what_pandas_counts_from_the_outcomes(store):
    rows, outcomes = [], []
    for number in range(1, 41):
        make = buy if number % 3 else sell
        p = 0.3 + number / 100
        strength = ("weak", "strong")[number % 2]
        signal = make(f"A{number % 4}", number, p, strength=strength)
        store.append([signal], "c", strategy=("x", "y")[number % 5 == 0])
        label, ret = number % 3 - 1, math.sin(number) / 20
        outcomes.append(Outcome(number, label, ret, START + WEEK, ret / 2))
        rows.append((signal, label, ret, strength, ("x", "y")[number % 5 == 0]))
    store.append([abstention("A0", 99), buy("A0", 100)], "c", strategy="x")
    outcomes.append(Outcome(41, 1, 9.0, START + WEEK))  # an abstention earns nothing
    assert store.resolve(outcomes) == 41
    table = pd.DataFrame(
        [(s.asset, s.side, s.confidence, *rest) for s, *rest in rows],
        columns=["asset", "side", "confidence", "label", "ret", "strength", "strategy"],
    )
    table["hit"] = (table["side"] == table["label"]).astype(float)
    table["earned"] = table["side"] * table["ret"]
    table["miss"] = (table["confidence"] - table["hit"]) ** 2
    for by in ("strategy", "asset", "strength", ["strategy", "asset"]):
        grouped = table.groupby(by)
        expected = pd.DataFrame(
            {
                "signals": grouped.size(),
                "hit_rate": grouped["hit"].mean(),
                "confidence": grouped["confidence"].mean(),
                "brier": grouped["miss"].mean(),
                "mean_return": grouped["earned"].mean(),
                "mean_excess": grouped["earned"].mean() / 2,
                "deviation": grouped["earned"].std(ddof=0),
            }
        )
        pd.testing.assert_frame_equal(store.performance(by), expected, check_index_type=False)
    recent = store.performance("model", asset="A1", since=START + 20 * MINUTE)
    chosen = table[(table.index >= 19) & (table["asset"] == "A1")]
    assert recent.loc["m1", "mean_return"] == pytest.approx(chosen["earned"].mean())
    with pytest.raises(ConfigError, match="'modle'"):
        store.performance("modle")


def test_a_restated_signal_counts_once(store):
    store.append([buy()], "c")
    store.restate([sell()], "c")
    store.resolve([Outcome(1, 1, 0.02, START + WEEK), Outcome(2, 1, 0.02, START + WEEK)])
    found = store.performance("asset")
    assert found.loc["AAPL", ["signals", "hit_rate", "mean_return"]].tolist() == [1, 0.0, -0.02]


def test_an_empty_store_answers(store):
    assert store.latest(5) == store.active(START) == store.follow() == []
    assert store.page(5).cursor is None
    assert store.performance().empty
    assert store.expire(START) == 0
    assert (store.verify().signals, store.verify().events) == (0, 1)


# both stores


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"),
            st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 3)), min_size=1, max_size=4),
            st.sampled_from([0.2, 0.4]),
        ),
        st.tuples(
            st.just("restate"),
            st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 3)), min_size=1, max_size=2),
            st.sampled_from([0.2, 0.4, 0.6]),
        ),
        st.tuples(st.just("resolve"), st.integers(1, 9), st.sampled_from([0.01, -0.01])),
        st.tuples(st.just("expire"), st.integers(0, 4), st.none()),
    ),
    max_size=10,
)


@settings(max_examples=12, deadline=None, suppress_health_check=SHARED)
@given(steps=steps)
def test_both_stores_hold_what_a_plain_model_says(pair, steps):
    data = f"m{next(FRESH)}"  # the stores go on from example to example
    model, first = {}, [store.follow(n=10_000)[-1:] for store in pair]
    base = first[0][0].id if first[0] else 0
    for act, what, value in steps:
        answers = [answer(store, act, what, value, data, base) for store in pair]
        assert answers[0] == answers[1]
        if act in ("append", "restate"):
            assert answers[0] == expected(model, act, what, value)
    held = [shown(store, base) for store in pair]
    assert held[0] == held[1]
    assert [(a, m, r, p) for a, m, r, p, _, _ in held[0]] == list(model)
    for store in pair:
        assert store.verify().signals == base + len(model)


@pytest.fixture
def pair(sqlite_url, postgres_url):
    with SignalStore(sqlite_url) as one, SignalStore(postgres_url) as other:
        yield one, other


def answer(store, act, what, value, data, base):
    try:
        if act == "resolve":
            return store.outcome(base + what, 1, value, START + 9 * WEEK)
        if act == "expire":
            return store.expire(START + WEEK + what * MINUTE)
        signals = [buy(asset, minute, value, model=data) for asset, minute in what]
        return getattr(store, act)(signals, "c")
    except StoreError as error:
        return error.code


def expected(model, act, what, value):
    """Keys of `model` are asset, minute, revision and probability, in the order of storing."""
    new = dict.fromkeys([])
    for asset, minute in what:
        there = [key for key in (*model, *new) if key[:2] == (asset, minute)]
        if act == "append" and any(key[2] == 0 and key[3] != value for key in there):
            return "SV-X520"
        if value not in [key[3] for key in there if act == "restate" or key[2] == 0]:
            new[(asset, minute, len(there), value)] = None
    model.update(new)
    return len(new)


def shown(store, base):
    return [
        (
            *(s.asset, (s.time - START) // MINUTE, s.revision, s.record["confidence"]),
            *(s.digest, s.outcome),
        )
        for s in store.follow(base)
    ]

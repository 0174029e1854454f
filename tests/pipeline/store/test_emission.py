import numpy as np
import pytest

from pipeline.store.emission import Rules
from pipeline.store.rows import Verdict
from pipeline.store.signal_store import SignalStore
from stages.base import ConfigError, StoreError
from stages.risk.classes import AssetClasses
from stages.risk.emission import Emission
from stages.signal import Appraisal, Finding
from tests.pipeline.store.samples import MINUTE, START, abstention, buy, sell
from tests.pipeline.store.test_upkeep import edit

ASSETS = AssetClasses(
    {
        "equity": {"band": [30, 80], "per_hour_asset": 2},
        "default": {"band": [0, 100], "floor": 0.9},
    }
)
PRICES = {"close": 100.0, "target": 110.0}


def rules(signals, cost=0.001, classes="equity"):
    return Rules(Emission(ASSETS), [classes] * len(signals), [cost] * len(signals))


def put(store, *signals, config="c", **options):
    return store.append(signals, config, rules=rules(signals, **options))


def test_all_are_stored_and_each_has_its_verdict(store):
    invalid = Appraisal(30, False, (Finding("x", "timing", "critical", -50, "t", "c"),), 5, 9)
    signals = [
        buy("A", prices=PRICES),
        buy("B", prices=PRICES, appraisal=invalid),
        abstention("C"),
        buy("A", minute=0, p=0.4, model="m1", prices=PRICES, session="again"),
    ]
    assert put(store, *signals[:3]) == 3
    assert put(store, signals[0], config="other") == 1  # said again under other settings
    told = [found.verdict for found in store.follow()]
    assert told[0] == Verdict(True, "", "equity", 0.001, pytest.approx(0.15 * 0.1 - 0.001))
    assert [v.reason for v in told] == [
        "",
        "quality: 30, too low or with a critical finding",
        "status: abstain",
        "duplicate: it was said before",
    ]
    assert store.verdicts() == {"": 1, "quality": 1, "status": 1, "duplicate": 1}
    assert store.verdicts(3) == {"duplicate": 1}
    assert [s.asset for s in store.latest(9, emitted=True)] == ["A"]
    assert len(store.latest(9, emitted=False)) == 3
    assert [s.asset for s in store.active(START + MINUTE, emitted=True)] == ["A"]
    assert store.get(2).signal.appraisal == invalid
    assert store.verify().signals == 4


def test_a_floor_and_a_cap_are_those_of_the_class(store):
    put(store, buy("A", certainty=0.85), classes="crypto")
    for minute in range(3):
        put(store, buy("B", minute, p=0.4 + minute / 100))
    assert [s.verdict.reason for s in store.follow()] == [
        "floor: certainty 0.85 < 0.90",
        "",
        "",
        "cap: 2 signals of B within the hour",
    ]


def test_a_stronger_side_overrules_one_that_left_and_the_log_says_so_once(store):
    put(store, buy("A", prices=PRICES))
    put(store, sell("A", 1, prices={"close": 100.0, "target": 90.0}))
    put(store, sell("A", 2, p=0.6, prices={"close": 100.0, "target": 90.0}))
    put(store, buy("A", 3, prices=PRICES))
    verdicts = [s.verdict for s in store.follow()]
    assert [v.emitted for v in verdicts] == [True, True, False, False]
    assert verdicts[2].reason.startswith("cap")
    assert verdicts[3].reason == "conflict: SELL has an edge of +3.90%"
    [overruled] = store.events(kind="overruled")
    assert (overruled.signal, overruled.details["reason"]) == (
        1,
        "conflict: SELL has an edge of +3.90%",
    )
    # and once all have expired the other side may speak again
    later = 60 * 24 * 8
    put(store, buy("A", later, prices=PRICES))
    assert store.get(5).verdict.emitted


def test_without_rules_there_is_no_verdict_and_a_rerun_adds_none(store):
    store.append([buy("A")], "c")
    assert store.get(1).verdict is None
    assert store.latest(9, emitted=True) == []
    assert put(store, buy("A")) == 0
    assert put(store, buy("B"), buy("A")) == 1
    assert put(store, buy("B"), buy("A")) == 0
    assert [s.verdict is None for s in store.follow()] == [True, False]
    assert store.events(kind="emitted")[0].details["signals"] == 1


def test_a_call_that_fails_leaves_neither_signals_nor_verdicts(store):
    put(store, buy("A"))
    with pytest.raises(StoreError):
        put(store, buy("B"), buy("A", certainty=0.1))
    assert store.verdicts() == {"": 1}
    assert store.last() == 1


def test_a_verdict_changed_behind_its_back_is_found(store):
    put(store, buy("A"), abstention("B"))
    assert store.verify().signals == 2
    edit(store, "UPDATE emissions SET emitted = 1, reason = '' WHERE signal = 2")
    with pytest.raises(StoreError, match="verdict that event"):
        store.verify()
    edit(store, "DELETE FROM emissions WHERE signal = 2")
    with pytest.raises(StoreError, match="verdict that event"):
        store.verify()


@pytest.mark.parametrize("statement", ["UPDATE emissions SET emitted = 0", "DELETE FROM emissions"])
def test_the_database_refuses_to_change_a_verdict(store, statement):
    put(store, buy("A"))
    with pytest.raises(Exception, match="never changed"), store.database.engine.begin() as c:
        c.exec_driver_sql(statement)


def test_a_cost_that_is_not_known_is_no_edge(store):
    put(store, buy("A", prices=PRICES), cost=np.nan)
    assert store.get(1).verdict == Verdict(True, "", "equity", None, None)
    with pytest.raises(ConfigError, match="emitted='yes'"):
        store.latest(1, emitted="yes")


def test_one_call_at_a_time_says_what_one_call_says(url, tmp_path):
    """What arrives bar by bar is judged as what arrives at once."""
    made = []
    for minute in range(0, 140, 20):
        made.append(buy("A", minute, p=0.40 + minute / 1e4, prices=PRICES))
        target = {"close": 100.0, "target": 90.0}
        made.append(sell("A", minute + 10, p=0.39 + minute / 1e3, prices=target))
    with SignalStore(url) as one, SignalStore(f"sqlite:///{tmp_path}/other.db") as many:
        put(one, *made)
        for signal in made:
            put(many, signal)
        a, b = ([s.verdict for s in store.follow()] for store in (one, many))
        assert a == b
        assert {v.emitted for v in a} == {True, False}

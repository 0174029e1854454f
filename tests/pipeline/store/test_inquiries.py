import json
import math

import pytest

from pipeline.store.log import INQUIRY
from pipeline.store.signal_store import SignalStore
from stages.base import ConfigError, StoreError
from tests.pipeline.store.samples import START, abstention, buy, sell
from tests.pipeline.store.test_archive import at

DAYS = 1440  # minutes


def found(text="Leans BUY.", **more):
    """What was found out, as `Inquiry.record` gives it."""
    said = {"text": text, "supports": ["rsi_14"], "opposes": []}
    past = {"share": 0.1 + 0.2, "base": None, "episodes": [{"asset": "株", "ret": -1e-9}]}
    return {"asked": {"episodes": 20, "lime": False}, "sentence": said, "episodes": past, **more}


def told(store):
    return [event.signal for event in store.events(kind=INQUIRY)]


def test_what_was_found_comes_back_as_it_was(store):
    store.append([buy(), sell("MSFT"), abstention("C")], "c")
    assert store.inquiry(1) is None
    pairs = [(buy(), found()), (abstention("C"), found("No view."))]
    assert store.note(pairs, "c") == 2
    store.event("shown", 1)
    assert (store.inquiry(1).details, store.inquiry(3).details) == (found(), found("No view."))
    assert json.dumps(store.inquiry(1).details) == json.dumps(found())  # the order of keys too
    assert store.inquiry(2) is None
    assert store.events(signal=1, n=1) == [store.inquiry(1)]
    assert store.note([], "c") == 0
    assert (store.verify().signals, store.verify().events) == (3, 5)


def test_asking_again_adds_nothing_unless_the_answer_is_another(store):
    store.append([buy(), buy("MSFT")], "c")
    pairs = [(buy(), found()), (buy("MSFT"), found())]
    assert [store.note(pairs, "c") for _ in range(2)] == [2, 0]
    assert store.note([(buy(), found()), (buy(), found())], "c") == 0
    assert store.note([(buy(), found("Now.")), (buy(), found("Now."))], "c") == 1
    assert store.inquiry(1).details == found("Now.")
    assert store.note([(buy(), found())], "c") == 1  # the last one counts
    assert store.inquiry(1).details == found()
    assert told(store) == [1, 2, 1, 1]


def test_what_is_not_stored_is_refused_and_nothing_is_written(store):
    store.append([buy()], "c")
    for other in (buy("MSFT"), buy(minute=1), buy(model="m2")):
        with pytest.raises(StoreError, match="of this model is stored") as refused:
            store.note([(buy(), found()), (other, found())], "c")
        assert refused.value.code == "SV-X533"
        assert "pipeline.predict" in refused.value.cure
        assert other.asset in refused.value.what
    assert told(store) == []
    with pytest.raises(ValueError, match="JSON"):
        store.note([(buy(), found()), (buy(), found(share=math.nan))], "c")
    assert told(store) == []


@pytest.mark.parametrize(
    "other", [buy(p=0.41), sell(), buy(certainty=0.84), buy(status="unproven"), abstention()]
)
def test_it_is_not_stored_with_a_signal_that_says_something_else(store, other):
    store.append([buy(), buy("MSFT")], "c")
    with pytest.raises(StoreError, match="AAPL at 2022-03-01") as refused:
        store.note([(buy("MSFT"), found()), (other, found())], "c")
    assert refused.value.code == "SV-X520"
    assert told(store) == []


def test_it_goes_to_the_same_settings_first_and_to_the_newest_revision(store):
    for config in ("a", "b", "c"):
        store.append([buy()], config)
    store.append([buy(p=0.3)], "other")
    assert store.note([(buy(reasons=None), found("One."))], "a") == 1
    assert store.note([(buy(), found("Two."))], "unknown") == 1
    assert told(store) == [1, 3]
    store.restate([buy(p=0.2)], "a")
    assert store.note([(buy(), found("Three."))], "a") == 1  # what a says now is another
    store.restate([buy(p=0.2, certainty=0.8)], "a")
    store.restate([buy(p=0.2), buy()], "b")
    assert store.note([(buy(p=0.2, certainty=0.8), found("Four."))], "b") == 1
    assert told(store) == [1, 3, 3, 6]


def test_only_an_inquiry_is_logged_as_one(store):
    store.append([buy()], "c")
    with pytest.raises(ConfigError, match="the store's own"):
        store.event(INQUIRY, 1, text="made up")


def test_it_outlives_the_archive_and_is_in_the_copy(sqlite_url, tmp_path):
    with SignalStore(sqlite_url) as store:
        for day in (0, 20):
            store.append([buy(minute=day * DAYS)], "c")
            store.note([(buy(minute=day * DAYS), found(f"Day {day}."))], "c")
        store.backup(tmp_path / "copy.db")
        store.clock = at(20)
        assert store.archive(tmp_path / "old", days=1).rows == 1
        assert store.verify().signals == 1
        assert store.inquiry(1).details == found("Day 0.")
        with pytest.raises(StoreError, match="is stored"):
            store.note([(buy(), found("Later."))], "c")
        assert store.note([(buy(minute=20 * DAYS), found("Later."))], "c") == 1
        assert store.export(tmp_path / "signals.parquet") == 1
    with SignalStore(str(tmp_path / "copy.db")) as copy:
        assert copy.verify().signals == 2
        assert copy.inquiry(2).details == found("Day 20.")
        assert copy.inquiry(2).time > START

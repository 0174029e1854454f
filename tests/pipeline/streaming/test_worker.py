"""What becomes of messages: stored once, restated, absorbed, or set aside with a reason."""

import json

import pandas as pd
import pytest

from pipeline.store.step import Moved, Step
from pipeline.store.stream import StreamStore
from pipeline.store.stream_health import stream_health
from pipeline.streaming.arrivals import Pace
from pipeline.streaming.messages import Message
from pipeline.streaming.publish import FileOutput
from pipeline.streaming.replay import Again, Rows
from pipeline.streaming.sift import Sift
from tests.pipeline.streaming.conftest import run, worker
from tests.pipeline.streaming.samples import CLOCK, MINUTE, START, Given, Momentum, fields, messages


def counts(store, name="given"):
    found = stream_health(store)["sources"][name]
    return {k: v for k, v in found.items() if isinstance(v, int) and v and k not in ("lag",)}


def told(store):
    return [
        (s.asset, int((s.time - START) / MINUTE), s.revision, s.signal.side) for s in store.follow()
    ]


def test_bars_become_signals_which_are_acknowledged_and_counted(store):
    source = Given(messages(fields("A", 0), fields("B", 0, 50)), messages(fields("A", 1, 99)))
    source.batches[1][0] = Message("3-0", fields("A", 1, 99))
    run(store, source)
    assert told(store) == [("A", 0, 0, 1), ("B", 0, 0, 1), ("A", 1, 0, -1)]
    assert source.acked == ["1-0", "2-0", "3-0"]
    assert counts(store) == {"received": 3, "stored": 3, "signals": 3}
    health = stream_health(store)["sources"]["given"]
    assert 0 < health["latency_ms"]["p50"] <= health["latency_ms"]["p99"] < 60_000
    assert health["lag"] == health["pending"] == 0
    assert store.verify().signals == 3


def test_the_same_again_adds_nothing_in_a_batch_later_and_after_a_restart(store):
    row = fields("A", 0)
    run(store, Given(messages(row, row), messages(row, first=3)))
    run(store, Given(messages(row, first=4)))
    assert told(store) == [("A", 0, 0, 1)]
    assert counts(store) == {"received": 4, "stored": 1, "duplicates": 3, "signals": 1}


def test_a_bar_out_of_order_restates_what_came_after_it_and_the_old_row_stays(store):
    rows = [fields("A", 0, 10), fields("A", 2, 11), fields("A", 3, 12), fields("A", 1, 20)]
    run(store, Given(*([message] for message in messages(*rows))))
    # with the bar of minute 1 the close of minute 3 lies below that of two bars before
    assert told(store) == [
        *[("A", 0, 0, 1), ("A", 2, 0, 1), ("A", 3, 0, 1)],
        *[("A", 1, 0, 1), ("A", 3, 1, -1)],
    ]
    assert counts(store)["reordered"] == counts(store)["revisions"] == 1
    assert store.latest(1)[0].signal.side == -1


def test_bars_of_one_batch_are_put_in_order_before_they_are_looked_at(store):
    rows = [fields("A", 2, 12), fields("A", 0, 30), fields("A", 1, 11)]
    run(store, Given(messages(*rows)))
    assert told(store) == [("A", 0, 0, 1), ("A", 1, 0, -1), ("A", 2, 0, -1)]


def test_a_correction_is_a_new_revision_of_the_bar_and_of_its_signals(store):
    rows = [fields("A", 0, 10), fields("A", 1, 11), fields("A", 1, 9), fields("A", 1, 11)]
    run(store, Given(*([message] for message in messages(*rows))))
    assert told(store) == [("A", 0, 0, 1), ("A", 1, 0, 1), ("A", 1, 1, -1)]
    assert counts(store)["corrected"] == counts(store)["duplicates"] == 1


def test_late_bars_are_set_aside_unless_they_are_copies(store):
    first, second = fields("A", 0, 10), fields("A", 30, 11)
    run(store, Given(messages(first, second), messages(first, fields("A", 5, 9), first=3)))
    found = StreamStore(store, "given", "c").aside()
    assert [(one.message, one.kind) for one in found] == [("4-0", "late")]
    assert "behind the newest bar" in found[0].reason
    assert json.loads(found[0].content) == fields("A", 5, 9)
    assert counts(store)["duplicates"] == 1


def test_bars_of_the_future_are_set_aside(store):
    day = 24 * 60
    soon, later = CLOCK + pd.Timedelta(seconds=4), CLOCK + pd.Timedelta(seconds=6)
    rows = [fields("A", day, 10), fields("A", 0, 1) | {"time": soon.isoformat()}]
    rows.append(fields("A", 0, 1) | {"time": later.isoformat()})
    source = Given(messages(*rows))
    run(store, source)
    [found] = StreamStore(store, "given", "c").aside()
    assert (found.message, found.kind) == ("3-0", "future")
    assert "6.0 s ahead" in found.reason
    assert source.acked == ["3-0", "1-0", "2-0"]


POISON = [
    (fields("A", 1, "a lot"), "SV-F19.number"),
    (fields("A", 1, -3), "SV-F14.price"),
    (fields("A", 1, 1, high=0.5, low=0.2), "SV-F14.range"),
    (fields("A", 1) | {"time": "yesterday"}, "SV-F08"),
    (fields("A", 1) | {"time": "2024-03-01 14:30"}, "SV-F07"),
    ({"asset": "A", "close": "1"}, "SV-F"),
    (fields("", 1), "SV-F20.asset"),
    (fields("A\0", 1), "SV-F17"),
    (fields("A", 1) | {"close": b"\xff\xfe"}, "SV-F19"),
    ({"what": "ever"}, "SV-F08"),
    ({}, ""),
]


def test_poison_comes_five_times_and_is_then_set_aside_with_its_content(store):
    good = [Message("98-0", fields("A", 0)), Message("99-0", fields("B", 1))]
    bad = [[Message(f"{at}-0", row, n + 1) for at, (row, _) in enumerate(POISON)] for n in range(5)]
    source = Given([good[0], *bad[0]], *bad[1:], [good[1]])
    run(store, source)
    assert sorted(source.left) == sorted(f"{at}-0" for _ in range(4) for at in range(len(POISON)))
    found = {one.message: one for one in StreamStore(store, "given", "c").aside()}
    assert len(found) == counts(store)["poison"] == len(POISON)
    for at, (row, why) in enumerate(POISON):
        one = found[f"{at}-0"]
        assert (one.kind, one.deliveries) == ("poison", 5)
        assert why in one.reason
        assert all(name in one.content for name in row)
    assert [asset for asset, *_ in told(store)] == ["A", "B"]


def test_what_was_lost_is_recorded_with_its_id(store):
    source = Given([Message("7-0", None, 2), *messages(fields("A", 0))])
    run(store, source)
    [found] = StreamStore(store, "given", "c").aside()
    assert (found.message, found.kind) == ("7-0", "lost")
    assert set(source.acked) == {"7-0", "1-0"}


def test_a_failing_asset_stops_nobody_and_becomes_no_signal(store):
    rows = [fields("A", 0), fields("B", 0), fields("C", 0)]
    says = Momentum(broken=["B"])
    source = Given(messages(*rows))
    run(store, source, says)
    assert [asset for asset, *_ in told(store)] == ["A", "C"]
    kept = StreamStore(store, "given", "c")
    [found] = kept.aside()
    assert (found.kind, found.message) == ("failed", "2-0")
    assert "SV-X500  ZeroDivisionError: the bars of B" in found.reason
    assert len(source.acked) == 3

    run(store, Again(kept), Momentum(), again=True)  # mended, and taken up again
    assert [asset for asset, *_ in told(store)] == ["A", "C", "B"]
    assert kept.aside() == []


def test_what_was_set_aside_can_be_taken_up_again_whatever_its_age(store):
    first = messages(fields("A", 0, 10), fields("A", 30, 11))
    bad = Message("9-0", fields("A", 29, "?"), 5)
    run(store, Given(first, [Message("3-0", fields("A", 5, 20)), bad]))
    kept = StreamStore(store, "given", "c")
    run(store, Again(kept), again=True)
    assert told(store)[2:] == [("A", 5, 0, 1)]
    assert [(one.message, one.kind, one.deliveries) for one in kept.aside()] == [
        ("9-0", "poison", 6)
    ]
    run(store, Again(kept), again=True)
    assert counts(store)["poison"] == 1


def test_a_restart_goes_on_with_the_history_that_the_store_holds(store):
    rows = [fields("A", minute, close) for minute, close in enumerate([10, 12, 11, 13, 9])]
    run(store, Given(messages(*rows[:3])))
    run(store, Given(messages(*rows[3:], first=4)))
    assert [side for *_, side in told(store)] == [1, 1, 1, 1, -1]


def test_the_past_comes_before_the_stream(store):
    past = Sift().sift([fields("A", minute, close) for minute, close in enumerate([10, 20])])
    made = worker(store, Given(messages(fields("A", 2, 9), fields("A", 1, 20))))
    [found] = past
    index = pd.MultiIndex.from_arrays(
        [found.assets, pd.to_datetime(found.times, unit="us", utc=True)], names=["asset", "time"]
    )
    bars = pd.DataFrame({"close": found.values[:, 0]}, index).assign(
        session=found.values[:, 1].astype("int64").view("M8[us]")
    )
    made.past = bars
    made.reload()
    made.run()
    assert told(store) == [("A", 2, 0, -1)]
    assert counts(store)["duplicates"] == 1


def test_two_workers_on_one_source_do_not_lose_what_the_other_stored(store):
    one, other = (worker(store, Given(), says=Momentum()) for _ in range(2))
    one.take(messages(fields("A", 0, 10)))
    other.take(messages(fields("A", 1, 9), first=2))  # it knows nothing of the first bar
    one.take(messages(fields("A", 2, 11), first=3))
    assert told(store) == [("A", 0, 0, 1), ("A", 1, 0, -1), ("A", 2, 0, 1)]
    with pytest.raises(Moved):
        StreamStore(store, "given", "c").write(Step(), after=1)


def test_forgotten_messages_are_looked_at_unless_they_are_stored(store):
    run(store, Given(messages(fields("A", 0))))
    forgotten = messages(fields("A", 0), fields("A", 1))
    run(store, Given(passed=forgotten))
    assert told(store) == [("A", 0, 0, 1), ("A", 1, 0, 1)]
    assert counts(store)["received"] == 2


class Compared(Momentum):
    """The same, for a model that compares the assets of a time."""

    across = True


def test_the_bars_of_a_time_wait_for_each_other_where_assets_are_compared(store):
    batches = [[fields("A", 0), fields("B", 0)], [fields("A", 1)], [fields("B", 1)]]
    batches += [[fields("A", 2)], [fields("A", 3), fields("B", 3)]]
    source = Given()
    made = worker(store, source, Compared(), pace=Pace(hold="1min"))
    number, seen = 0, []
    for batch in batches:
        made.take(messages(*batch, first=number + 1))
        number += len(batch)
        seen.append(len(source.acked))
    # who is to come at minute 0, nobody knows; 1 and 3 are complete, and 2 is over by then
    assert seen == [0, 2, 4, 4, 7]
    assert [asset for asset, *_ in told(store)] == ["A", "B", "A", "B", "A", "A", "B"]


def test_a_file_is_read_in_the_order_of_its_times(store, tmp_path):
    rows = [fields(asset, minute, 10 + minute) for asset in "BA" for minute in (1, 0, 2)]
    table = pd.DataFrame(rows).assign(close=lambda t: t["close"].astype(float))
    table = table.rename(columns={"asset": "Symbol"})
    columns = {"asset": "Symbol"}
    table.to_parquet(tmp_path / "bars.parquet")
    table.to_csv(tmp_path / "bars.csv", index=False)
    for kind in ("parquet", "csv"):
        source = Rows(str(tmp_path / f"bars.{kind}"), columns, name=kind)
        made = worker(store, source)
        made.sift = Sift(columns=columns)
        made.run()
        assert counts(store, kind)["stored"] == 6
    assert [(a, m) for a, m, *_ in told(store)] == [(a, m) for m in range(3) for a in "AB"]


def test_signals_that_left_are_told_once_in_a_file(store, tmp_path):
    path = tmp_path / "out" / "signals.jsonl"
    source = Given(messages(fields("A", 0)), messages(fields("A", 1), first=2))
    run(store, source, output=FileOutput(path), outbox=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["id"] for line in lines] == [1, 2]
    assert lines[1]["record"] == store.get(2).record
    assert counts(store)["published"] == 2

    made = worker(store, Given(messages(fields("A", 2), first=3)), outbox=True)
    made.run()  # stored, and not told
    path.write_bytes(path.read_bytes() + b'{"id": 3, "cut')  # ended in the middle of a line
    assert stream_health(store)["waiting"] == 1
    run(store, Given(), output=FileOutput(path), outbox=True)
    whole = [json.loads(x) for x in path.read_text().splitlines() if not x.endswith("cut")]
    assert [line["id"] for line in whole] == [1, 2, 3]
    run(store, Given(), output=FileOutput(path), outbox=True)
    assert stream_health(store)["waiting"] == 0


def test_old_bars_go_when_nobody_looks_back_on_them(store):
    rows = [fields(asset, minute, 10 + minute) for minute in range(6) for asset in "AB"]
    run(store, Given(messages(*rows[:8])))
    kept = StreamStore(store, "given", "c")
    before = (START + 3 * MINUTE).value // 1000
    assert (kept.forget(before, depth=2), kept.forget(before, depth=2)) == (4, 0)
    assert [row["id"] for row in kept.bars(9, 0)] == [5, 6, 7, 8]
    run(store, Given(messages(*rows[8:], first=9)))
    assert [side for *_, side in told(store)] == [1] * 12
    assert store.verify().signals == 12

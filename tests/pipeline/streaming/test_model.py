"""The pipeline in a stream says to the bit what it says of the whole table."""

import json
import os
import signal

import pandas as pd
import pytest

from pipeline.assemble import assemble
from pipeline.data.sources import frame
from pipeline.store.rows import row_of
from pipeline.store.signal_store import SignalStore
from pipeline.store.stream import StreamStore
from pipeline.streaming.arrivals import Pace
from pipeline.streaming.history import History
from pipeline.streaming.messages import Message
from pipeline.streaming.model import Model, answer
from pipeline.streaming.sift import Sift
from pipeline.streaming.worker import Worker
from tests.conftest import command, composed
from tests.pipeline.streaming.samples import Given

BARS = 14


@pytest.fixture(scope="module")
def recent(tiny_market):
    """The first bars of a market, as messages."""
    times = tiny_market.panel.index.unique("time").sort_values()[:BARS]
    bars = tiny_market.panel[tiny_market.panel.index.get_level_values("time") <= times[-1]]
    flat = bars.reset_index().sort_values(["time", "asset"], ignore_index=True)
    flat["time"] = [time.isoformat() for time in flat["time"]]
    rows = flat.drop(columns="session", errors="ignore").astype(object).to_dict("records")
    return bars, [Message(f"{n}-0", {k: str(v) for k, v in r.items()}) for n, r in enumerate(rows)]


@pytest.fixture(scope="module")
def whole(tiny, recent):
    """What is said of all bars at once: digest of each row, by asset and time."""
    said = tiny.signals(frame(recent[0].reset_index()).bars, newest=False)
    return {(s.asset, s.time): row_of(s, "c", "")["digest"] for s in said}


def streamed(store, tiny, batches, **more):
    source = Given(*batches)
    worker = Worker(
        source, Sift(), Model(tiny, **more), StreamStore(store, "s", "c"), pace=Pace(late=None)
    )
    worker.run()
    return {(s.asset, s.time): s.digest for s in store.follow(n=10_000)}, source


def parts(messages, size):
    return [messages[at : at + size] for at in range(0, len(messages), size)]


def test_the_stream_says_to_the_bit_what_the_whole_table_says(tiny, recent, whole, tmp_path):
    with SignalStore(str(tmp_path / "s.db")) as store:
        found, source = streamed(store, tiny, parts(recent[1], 5))
        assert found == whole
        assert [s.revision for s in store.follow(n=10_000)] == [0] * len(whole)
        assert len(source.acked) == len(recent[1])
        statuses = {s.row["status"] for s in store.follow(n=10_000)}
        assert "abstain" in statuses  # the first bars, which lack their history
        assert len(statuses) > 1


def test_bars_out_of_order_end_in_the_same_signals(tiny, recent, whole, tmp_path):
    messages = list(recent[1])
    messages[20], messages[33] = messages[33], messages[20]
    with SignalStore(str(tmp_path / "s.db")) as store:
        found, _ = streamed(store, tiny, parts(messages, 6))
        assert found == whole  # the last of each
        assert max(s.revision for s in store.follow(n=10_000)) >= 1


def test_rules_say_which_signals_leave(tiny, recent, tmp_path):
    emission = assemble(composed("predict"), "emit")
    with SignalStore(str(tmp_path / "s.db")) as store:
        streamed(store, tiny, parts(recent[1], 20), emission=emission)
        verdicts = store.verdicts()
        left = verdicts.pop("", 0)
        assert sum(verdicts.values()) + left == store.last()
        assert [s.id for s in StreamStore(store, "s", "c").waiting(100)] == [
            s.id for s in store.follow(n=10_000) if s.verdict.emitted
        ]


def test_assets_that_are_compared_are_asked_together(barrier):
    assert not Model(barrier).across
    assert Model(barrier, beside="SPY").across


def test_an_answer_leaves_out_the_asset_whose_bars_fail(tiny, recent, monkeypatch):
    model = Model(tiny)
    history = History(model.depth, 10**15)
    for found in Sift().sift([m.fields for m in recent[1]]):
        rows = zip(found.assets, found.times.tolist(), found.values, strict=True)
        for asset, time, values in rows:
            history.put(asset, time, history.row(found.names, values))
    time = history.newest
    column = history.names.index(next(n for n in history.names if n.startswith("feature.")))
    line = history.lines["A1"]
    line.rows[line.n - 1, column] = float("inf")
    said = answer(model, history, time, {"A0", "A1", "A2"})
    assert {s.asset for s in said.signals} == {"A0", "A2"}
    assert list(said.failed) == ["A1"]
    assert "SV-F12" in said.failed["A1"]


def test_the_command_reads_a_file_tells_signals_and_ends(tiny, tiny_market, tmp_path):
    folder = tiny.save(tmp_path / "models")
    bars = tiny_market.panel.groupby(level="asset").tail(10)
    flat = bars.reset_index().drop(columns="session", errors="ignore")
    flat.to_parquet(tmp_path / "bars.parquet")
    words = (
        *(f"model={folder}", f"root={tmp_path}/root", f"store={tmp_path}/s.db"),
        *(f"data.path={tmp_path}/bars.parquet", f"file={tmp_path}/bars.parquet"),
        *("data=parquet", "past=false", f"output={tmp_path}/out.jsonl", "json=true"),
    )
    ended = command("stream", *words)
    assert ended.code == 0, ended.err
    said = json.loads(ended.out.strip().splitlines()[-1])
    assert (said["stored"], said["received"], said["signals"]) == (40, 40, 40)
    lines = (tmp_path / "out.jsonl").read_text().splitlines() if said["published"] else []
    assert len(lines) == said["published"]

    again = command("stream", *words)
    assert json.loads(again.out.strip().splitlines()[-1])["duplicates"] == 40
    taken_up = command("stream", *words[:-1], "again=true")
    assert taken_up.code == 0, taken_up.err
    assert pd.Timestamp(said["at"]).tzinfo is not None


def test_ticks_are_no_bars():
    ended = command("stream", "data=trades", "data.path=ticks.parquet")
    assert ended.code == 2
    assert "SV-F33" in ended.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_command_after_the_step_that_runs(
    tiny, tiny_market, tmp_path, monkeypatch, number, code
):
    folder = tiny.save(tmp_path / "models")
    bars = tiny_market.panel.groupby(level="asset").tail(3).reset_index()
    bars.to_parquet(tmp_path / "bars.parquet")
    take = Worker.take

    def told_to_end(worker, messages, **more):
        if messages and not worker.source.stop.is_set():
            os.kill(os.getpid(), number)  # in the middle of the first step
        take(worker, messages, **more)

    monkeypatch.setattr(Worker, "take", told_to_end)
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        ended = command(
            "stream",
            *(f"model={folder}", f"root={tmp_path}/root", f"store={tmp_path}/s.db", "data=parquet"),
            *(f"data.path={tmp_path}/bars.parquet", f"file={tmp_path}/bars.parquet"),
            *("past=false", "pace.batch=4", "explain_rows=false"),
        )
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert ended.code == code
    with SignalStore(f"{tmp_path}/s.db") as store:
        assert store.last() == 4  # one batch of three, wholly

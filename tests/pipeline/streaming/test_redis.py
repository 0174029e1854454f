"""A real Redis: groups, restarts, what it loses; workers that are killed at every point."""

import json
import multiprocessing
import secrets
import signal
from threading import Event

import pytest

pytest.importorskip("redis", reason="the extra [stream] is not installed")

from pipeline.store.signal_store import SignalStore  # noqa: E402
from pipeline.store.stream import StreamStore  # noqa: E402
from pipeline.streaming.messages import StreamError  # noqa: E402
from pipeline.streaming.publish import RedisOutput  # noqa: E402
from pipeline.streaming.redis_link import Link, Stopped  # noqa: E402
from pipeline.streaming.redis_source import RedisSource  # noqa: E402
from stages.base import ConfigError  # noqa: E402
from tests.pipeline.streaming import drill  # noqa: E402
from tests.pipeline.streaming.conftest import run  # noqa: E402
from tests.pipeline.streaming.samples import Given, fields, messages  # noqa: E402
from tests.pipeline.streaming.servers import Server, shared  # noqa: E402

FAST = {"block": 0.01, "retry": 0.001, "claim": 0.001, "wait": 20}


@pytest.fixture(scope="module")
def url():
    return shared()


@pytest.fixture
def key(url):
    name = f"sieve_test_{secrets.token_hex(6)}"
    yield name
    Link(url, 5, Event()).client.delete(name, f"{name}.out")


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path).start()
    yield made
    made.kill()


@pytest.fixture
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "alembic.command", drill.__name__, "redis"])
    return context


def add(source, *rows):
    return [source.link.client.xadd(source.key, row).decode() for row in rows]


def ids(found):
    return [message.id for message in found]


def test_a_group_is_made_once_and_reads_from_the_beginning(url, key):
    first = RedisSource(url, key, **FAST)
    sent = add(first, fields("A", 0), fields("B", 0))
    assert ids(RedisSource(url, key, **FAST).read(10)) == sent  # BUSYGROUP is no fault
    assert first.gauges() == {"lag": 0, "pending": 2}


def test_what_is_left_comes_again_and_its_deliveries_are_counted(url, key):
    source = RedisSource(url, key, **FAST)
    [sent] = add(source, fields("A", 0))
    seen = []
    for _ in range(3):
        found = []
        while not found:
            found = source.read(10)
        assert ids(found) == [sent]
        seen.append(found[0].deliveries)
        source.leave([sent])
    assert seen == [1, 2, 3]
    source.ack([sent])
    assert source.gauges() == {"lag": 0, "pending": 0}


def test_what_is_in_hand_does_not_come_again(url, key):
    source = RedisSource(url, key, **FAST)
    sent = add(source, fields("A", 0))
    assert ids(source.read(10)) == sent
    assert [source.read(10) for _ in range(3)] == [[], [], []]


def test_what_a_worker_left_behind_is_taken_over_and_what_was_trimmed_is_lost(url, key):
    gone = RedisSource(url, key, consumer="gone", **FAST)
    sent = add(gone, fields("A", 0), fields("B", 0), fields("C", 0))
    assert len(gone.read(10)) == 3
    gone.link.client.xdel(key, sent[1])
    heir = RedisSource(url, key, consumer="heir", **FAST)
    found = []
    while len(found) < 3:
        found += heir.read(10)
    assert [(m.id, m.fields and m.fields["asset"]) for m in sorted(found, key=lambda m: m.id)] == [
        *[(sent[0], "A"), (sent[1], None), (sent[2], "C")]
    ]
    heir.ack(sent)
    assert heir.gauges()["pending"] == 0


def test_what_was_forgotten_with_its_consumer_is_looked_at_again(url, key, sqlite_url):
    gone = RedisSource(url, key, consumer="gone", **FAST)
    sent = add(gone, fields("A", 0), fields("B", 0), fields("C", 0))
    gone.ack(ids(gone.read(1)))
    assert len(gone.read(1)) == 1
    gone.link.client.xgroup_delconsumer(key, "sieve", "gone")
    heir = RedisSource(url, key, consumer="heir", **FAST)
    assert ids(heir.passed()) == sent[:2]
    with SignalStore(sqlite_url) as store:
        kept = StreamStore(store, heir.name, "c")
        assert kept.recorded(sent) == set()


def test_a_group_that_is_gone_with_the_data_is_made_again(url, key):
    source = RedisSource(url, key, **FAST)
    source.link.client.delete(key)
    assert source.read(10) == []
    sent = add(source, fields("A", 0))
    assert ids(source.read(10)) == sent


def test_signals_are_told_once_and_not_into_the_stream_of_another_store(url, key, tmp_path):
    stop = Event()
    with SignalStore(str(tmp_path / "one.db")) as store:
        output = RedisOutput(url, f"{key}.out", store, 5, stop)
        run(store, Given(messages(fields("A", 0), fields("A", 1))), output=output, outbox=True)
        output.tell(store.follow())  # as after a crash
        entries = output.link.client.xrange(f"{key}.out")
        assert [id for id, _ in entries] == [b"1-0", b"2-0"]
        assert json.loads(entries[1][1][b"record"]) == store.get(2).record
        RedisOutput(url, f"{key}.out", store, 5, stop)
    with (
        SignalStore(str(tmp_path / "other.db")) as other,
        pytest.raises(StreamError, match="another store") as refused,
    ):
        RedisOutput(url, f"{key}.out", other, 5, stop)
    assert (refused.value.code, refused.value.exit_code) == ("SV-X721", 6)


def test_a_redis_that_does_not_come_back_is_an_error_with_exit_code_6():
    with pytest.raises(StreamError) as gone:
        RedisSource("redis://:secret@127.0.0.1:1/0", "bars", wait=0.2)
    assert (gone.value.code, gone.value.exit_code) == ("SV-F41", 6)
    assert "secret" not in str(gone.value)
    with pytest.raises(ConfigError, match="redis://HOST"):
        RedisSource("http://127.0.0.1", "bars", wait=0.2)


def test_being_told_to_end_ends_the_waiting_for_redis(server):
    source = RedisSource(server.url, "bars", **FAST)
    server.kill()
    source.stop.set()
    assert source.read(10) == []
    source.ack(["1-0"])
    with pytest.raises(Stopped):
        source.passed()


def test_reading_goes_on_when_redis_has_started_again(server):
    source = RedisSource(server.url, "bars", **FAST)
    [sent] = add(source, fields("A", 0))
    assert ids(source.read(10)) == [sent]
    server.kill()
    server.start()
    found = []
    while not found:  # in hand of the one, so that another takes it over
        found = RedisSource(server.url, "bars", **FAST).read(10)
    assert ids(found) == [sent]
    later = add(source, fields("A", 1))
    assert ids(source.read(10)) == later


def killed(processes, server, store_url, point, kind=drill.Doomed):
    words = (server.url, store_url, point, 3, kind, 100)
    process = processes.Process(target=drill.work, args=words)
    process.start()
    process.join(100)
    return process.exitcode


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_killed_at_any_point_each_message_ends_once(processes, server, request, kind):
    store_url = request.getfixturevalue(f"{kind}_url")
    rows, good, bad = drill.mixture(1200, seed=7, poison=0.003)
    drill.produce(server.url, rows)
    for number, point in enumerate(drill.POINTS):
        assert killed(processes, server, store_url, point) == -signal.SIGKILL
        if number == 1:
            server.kill()
            server.start()
    assert killed(processes, server, store_url, "") == 0
    assert drill.check(server.url, store_url, good, bad) >= len(good)


def test_who_acknowledges_before_storing_is_found_out(processes, server, sqlite_url):
    rows, good, bad = drill.mixture(800, seed=8, poison=0.0)
    drill.produce(server.url, rows)
    assert killed(processes, server, sqlite_url, "before commit", drill.TooEarly) < 0
    assert killed(processes, server, sqlite_url, "", drill.TooEarly) == 0
    with pytest.raises(AssertionError, match="lost"):
        drill.check(server.url, sqlite_url, good, bad)

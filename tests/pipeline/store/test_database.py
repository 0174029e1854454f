import contextlib
import sqlite3
import sys
import threading
from unittest import mock

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from pipeline.store import database
from pipeline.store.signal_store import SignalStore
from stages.base import ConfigError, StoreError
from tests.pipeline.store.samples import MINUTE, START, batch, buy

FIXED = [(3, 51, 3), (3, 52, 0), (3, 50, 7), (3, 50, 9), (3, 44, 6)]
UNSAFE = [(3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 50, 6), (3, 51, 0), (3, 51, 2)]


@pytest.mark.parametrize("version", FIXED + UNSAFE, ids=str)
def test_wal_is_used_only_where_several_writers_cannot_corrupt_it(version):
    assert database.journal_mode(version) == ("wal" if version in FIXED else "delete")


@pytest.mark.parametrize(
    ("version", "journal", "synchronous"), [((3, 51, 3), "wal", 2), ((3, 40, 1), "delete", 3)]
)
def test_a_file_is_opened_so_that_what_is_acknowledged_stays(
    sqlite_url, version, journal, synchronous
):
    with (
        mock.patch.object(database.sqlite3, "sqlite_version_info", version),
        SignalStore(sqlite_url, wait=7) as store,
        store.database.engine.connect() as connection,
    ):
        asked = "journal_mode", "synchronous", "foreign_keys", "busy_timeout", "trusted_schema"
        said = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked]
        assert said == [journal, synchronous, 1, 7000, 0]
        assert store.append([buy()], "c") == 1
        tables = connection.exec_driver_sql("PRAGMA table_list").mappings().all()
        ours = {t["name"]: t["strict"] for t in tables}
        assert [ours[name] for name in ("signals", "outcomes", "events")] == [1, 1, 1]


def test_an_old_sqlite_refuses_a_file_that_another_holds_in_wal(sqlite_url, tmp_path):
    with mock.patch.object(database.sqlite3, "sqlite_version_info", (3, 51, 3)):
        SignalStore(sqlite_url).close()
    holder = sqlite3.connect(tmp_path / "signals.db")
    holder.execute("BEGIN")
    holder.execute("SELECT * FROM signals").fetchall()
    with (
        mock.patch.object(database.sqlite3, "sqlite_version_info", (3, 40, 1)),
        pytest.raises(StoreError) as refused,
    ):
        SignalStore(sqlite_url, wait=0.1)
    holder.close()
    assert refused.value.code == "SV-F40"


@pytest.mark.parametrize("change", ["UPDATE signals SET confidence = 1", "DELETE FROM signals"])
@pytest.mark.parametrize("table", ["signals", "outcomes", "events"])
def test_the_database_itself_refuses_to_edit(store, table, change):
    store.append([buy()], "c")
    store.outcome(1, 1, 0.01, START + MINUTE)
    column = {"outcomes": "ret", "events": "signal"}.get(table, "confidence")
    with (
        pytest.raises(DBAPIError, match="never changed or removed"),
        store.database.engine.begin() as connection,
    ):
        connection.execute(text(change.replace("signals", table).replace("confidence", column)))
    assert store.verify().signals == 1


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter2@h/d", "sqlite://", "sqlite:///:memory:", "://", "redis://h"]
)
def test_another_kind_of_store_is_refused_without_its_password(url):
    with pytest.raises(ConfigError) as refused:
        SignalStore(url)
    assert refused.value.code == "SV-F33"
    assert "hunter2" not in str(refused.value)


def test_a_path_is_a_file_and_its_folder_is_made(tmp_path):
    with SignalStore(tmp_path / "new" / "signals.db") as store:
        store.append([buy()], "c")
    with SignalStore(str(tmp_path / "new" / "signals.db")) as store:
        assert store.latest(1)[0].asset == "AAPL"


def test_without_psycopg_the_extra_is_named():
    with (
        mock.patch.dict(sys.modules, {"psycopg": None}),
        pytest.raises(ConfigError) as refused,
    ):
        SignalStore("postgres://postgres@localhost/test")
    assert refused.value.code == "SV-X534"
    assert "sieve-signals[postgres]" in refused.value.cure


@pytest.mark.parametrize(
    ("place", "waits"), [("127.0.0.1:1/test", True), ("127.0.0.1:5432/no_such_database", False)]
)
def test_a_server_that_does_not_answer_is_named_without_the_password(postgres_url, place, waits):
    with (
        mock.patch.object(database.time, "sleep") as slept,
        pytest.raises(StoreError) as refused,
    ):
        SignalStore(f"postgresql://postgres:hunter2@{place}", wait=0.05)
    assert refused.value.code == "SV-F40"
    assert refused.value.where == place
    assert "hunter2" not in str(refused.value)
    assert slept.called == waits  # waiting makes no database


# the disk refuses


def full(store):
    if store.database.is_sqlite:
        store.database.engine.dispose()

        @event.listens_for(store.database.engine, "connect")
        def limit(connection, _record):
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
    else:  # the server raises what it raises when its disk is full, in the middle of the rows
        with store.database.engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF NEW.id > 20 THEN RAISE 'could not extend file' USING ERRCODE = '53100'; "
                "END IF; RETURN NEW; END $$"
            )
            connection.exec_driver_sql(
                "CREATE TRIGGER full_disk BEFORE INSERT ON signals "
                "FOR EACH ROW EXECUTE FUNCTION full_disk()"
            )


def read_only(store):
    store.database.engine.dispose()

    @event.listens_for(store.database.engine, "connect")
    def forbid(connection, _record):
        if store.database.is_sqlite:
            connection.execute("PRAGMA query_only = ON")
        else:
            connection.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
            connection.commit()


@pytest.mark.parametrize("refuse", [full, read_only], ids=["full", "read-only"])
def test_a_disk_that_refuses_loses_nothing_and_names_the_cure(store, refuse):
    store.append(batch(0), "c")
    refuse(store)
    with pytest.raises(StoreError) as refused:
        store.append(batch(1, size=400), "c")
    assert (refused.value.code, refused.value.exit_code) == ("SV-F34", 5)
    assert "free space" in refused.value.cure
    assert [s.asset for s in store.follow()] == [s.asset for s in batch(0)]
    assert store.verify().signals == 5


# busy


def test_a_writer_waits_for_the_other_and_then_stores(store):
    held, release = threading.Event(), threading.Event()

    def hold():
        def work(connection):
            held.set()
            release.wait(20)

        store.database.write(work)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    threading.Timer(0.2, release.set).start()
    assert store.append([buy()], "c") == 1
    thread.join()
    assert store.latest(1)[0].asset == "AAPL"


def test_a_store_that_stays_busy_says_so_in_time(store, url):
    def busy(connection):
        with SignalStore(url, wait=0.2) as other, pytest.raises(StoreError) as refused:
            other.append([buy()], "c")
        return refused.value

    refusal = store.database.write(busy)
    assert refusal.code == "SV-F40"
    assert "0.2 s" in refusal.why
    assert store.latest(1) == []
    assert store.append([buy()], "c") == 1


def test_more_threads_than_connections_wait_and_then_are_told(url):
    with SignalStore(url, wait=0.1) as store, contextlib.ExitStack() as taken:
        for _ in range(15):
            taken.enter_context(store.database.engine.connect())
        with pytest.raises(StoreError) as refused:
            store.latest(1)
        assert refused.value.code == "SV-F40"
        taken.close()
        assert store.latest(1) == []


def test_readers_do_not_wait_for_a_writer(store, url):
    store.append([buy()], "c")

    def look(connection):
        with SignalStore(url, wait=0.2) as other:
            return [s.asset for s in other.latest(1)]

    assert store.database.write(look) == ["AAPL"]


def test_a_lost_connection_is_made_anew(postgres_url):
    with SignalStore(postgres_url) as store:
        store.append([buy()], "c")
        lost = []

        def cut(connection):
            if not lost:
                lost.append(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())
                with store.database.engine.connect() as other:
                    other.exec_driver_sql(f"SELECT pg_terminate_backend({lost[0]})")
            return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()

        assert store.database.write(cut) not in lost
        assert store.append([buy("MSFT")], "c") == 1


def test_a_fault_of_the_program_is_not_taken_for_a_fault_of_the_disk(store):
    with pytest.raises(DBAPIError):
        store.database.write(lambda c: c.exec_driver_sql("SELECT * FROM no_such_table"))
    assert store.append([buy()], "c") == 1

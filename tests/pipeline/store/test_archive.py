import subprocess
from unittest import mock

import duckdb
import pandas as pd
import pytest

from pipeline.store import archive as module
from pipeline.store.emission import Rules
from pipeline.store.rows import Verdict
from pipeline.store.signal_store import DAY, SignalStore
from stages.base import ConfigError, StoreError
from stages.risk.classes import AssetClasses
from stages.risk.emission import Emission
from tests.pipeline.store.conftest import SERVER
from tests.pipeline.store.samples import MINUTE, START, abstention, buy, sell
from tests.pipeline.store.test_upkeep import edit

DAYS = 1440  # minutes
RULES = Emission(AssetClasses({"default": {"band": [0, 100]}}))


def at(day):
    """A clock that stands `day` days after START."""
    return lambda: START + pd.Timedelta(days=day)


def put(store, *signals):
    store.append(signals, "c", rules=Rules(RULES, ["etf"] * len(signals), [0.001] * len(signals)))


@pytest.fixture
def filled(store):
    """A call a day for 12 days; each signal lives for a week."""
    for day in range(12):
        put(store, buy("A", day * DAYS), sell("B", day * DAYS), abstention("C", day * DAYS))
    store.outcome(1, 1, 0.01, START + 60 * MINUTE)
    store.outcome(34, 1, 0.02, START + pd.Timedelta(days=11.5))
    store.clock = at(12)
    return store


def test_old_signals_move_to_a_file_and_young_ones_stay(filled, tmp_path):
    rows = {s.id: s.record for s in filled.follow()}
    moved = filled.archive(tmp_path / "old", days=2)
    assert moved.rows == 3 * 4  # decided on day 3, expired on day 10
    assert moved.path.name == "signals-000000000001-000000000012.parquet"
    assert [s.id for s in filled.follow()] == list(range(13, 37))
    assert all(s.record == rows[s.id] for s in filled.follow())
    assert filled.get(34).outcome.ret == 0.02
    assert filled.get(34).verdict == Verdict(True, "", "etf", 0.001, None)
    held = duckdb.sql(
        "SELECT id, asset, outcome_ret, emission_reason, expires FROM "
        f"'{moved.path}' ORDER BY id LIMIT 3"
    ).fetchall()
    assert [row[:4] for row in held] == [
        (1, "A", 0.01, ""),
        (2, "B", None, ""),
        (3, "C", None, "status: abstain"),
    ]
    with pytest.raises(StoreError, match="no signal 5"):
        filled.get(5)


def test_the_log_stays_whole_and_says_where_they_are(filled, tmp_path):
    events = len(filled.events(n=10_000))
    moved = filled.archive(tmp_path, days=2)
    [event] = filled.events(kind="archived")
    assert event.details["file"] == moved.path.name
    assert event.details["sha256"] == module._sha256(moved.path)
    found = filled.verify()
    assert (found.signals, found.outcomes, found.events) == (24, 1, events + 1)
    edit(filled, "UPDATE signals SET confidence = 0.9 WHERE id = 20")
    with pytest.raises(StoreError, match="signal 20 was changed"):
        filled.verify()


def test_what_was_removed_without_an_archive_is_found(filled):
    edit(filled, "DELETE FROM emissions WHERE signal <= 3")
    edit(filled, "DELETE FROM outcomes WHERE signal <= 3")
    edit(filled, "DELETE FROM signals WHERE id <= 3")
    with pytest.raises(StoreError, match="signals 1 to 3"):
        filled.verify()


def test_so_many_rows_stay_and_only_whole_calls_move(filled, tmp_path):
    moved = filled.archive(tmp_path, rows=28)
    assert moved.rows == 6  # 8 could go, 6 are whole calls
    assert filled.archive(tmp_path, rows=28).rows == 0
    assert filled.archive(tmp_path, days=2, rows=10).rows == 6  # both limits hold
    assert filled.archive(tmp_path, days=1000).rows == 0
    filled.clock = at(1000)
    assert filled.archive(tmp_path, days=0, rows=1).rows == 21  # the last call stays
    assert filled.last() == 36
    put(filled, buy("D"))
    assert filled.last() == 37
    assert filled.verify().signals == 4
    files = sorted(path.name for path in tmp_path.glob("*.parquet"))
    assert [name[8:33] for name in files] == [
        "000000000001-000000000006",
        "000000000007-000000000012",
        "000000000013-000000000033",
    ]


def test_signals_that_live_are_never_archived(filled, tmp_path):
    filled.archive(tmp_path, rows=1)
    assert [s.id for s in filled.active(at(12)())] == [s.id for s in filled.latest(99)]
    assert len(filled.active(at(12)())) == 18  # of the calls that live


def test_the_database_goes_on_refusing_after_an_archive(filled, tmp_path):
    filled.archive(tmp_path, days=2)
    for table in ("signals", "outcomes", "emissions", "events"):
        with pytest.raises(Exception, match="never changed"), filled.database.engine.begin() as c:
            c.exec_driver_sql(f"DELETE FROM {table}")


def test_nothing_is_removed_unless_the_file_holds_it(filled, tmp_path):
    def cut(database, path, last):
        write(database, path, last - 1)

    write = module.write_rows
    with mock.patch.object(module, "write_rows", cut), pytest.raises(StoreError) as refused:
        filled.archive(tmp_path, days=2)
    assert refused.value.code == "SV-X536"
    assert filled.verify().signals == 36
    with mock.patch.object(module, "log", side_effect=MemoryError), pytest.raises(MemoryError):
        filled.archive(tmp_path, days=2)
    assert filled.verify().signals == 36
    assert filled.archive(tmp_path, days=2).rows == 12


def test_it_must_be_said_what_stays(store, tmp_path):
    with pytest.raises(ConfigError, match="what is to stay"):
        store.archive(tmp_path)
    with pytest.raises(ConfigError, match="rows=0"):
        store.archive(tmp_path, rows=0)
    assert store.archive(tmp_path, days=1).rows == 0
    assert list(tmp_path.glob("*.parquet")) == []
    assert DAY == 86_400e6


# the drill: lose the store, put the copy back, go on


def after_the_fire(url, copied, later):
    """The store that was put back holds what it held, and goes on where it stood."""
    with SignalStore(url) as store:
        found = store.verify()
        assert (found.signals, found.outcomes) == (24, 1)
        assert [s.record for s in store.follow()] == copied
        put(store, *later)
        assert store.last() == 38
        put(store, *later)
        assert store.last() == 38
        assert store.verify().signals == 26
        assert store.events(kind="archived")


def test_a_sqlite_store_that_is_lost_is_put_back_from_its_copy(sqlite_url, tmp_path):
    with SignalStore(sqlite_url) as store:
        for day in range(12):
            put(store, buy("A", day * DAYS), sell("B", day * DAYS), abstention("C", day * DAYS))
        store.outcome(34, 1, 0.02, START + pd.Timedelta(days=11.5))
        store.clock = at(12)
        store.archive(tmp_path / "old", days=2)
        store.backup(tmp_path / "copy.db")
        copied = [s.record for s in store.follow()]
        later = [buy("A", 13 * DAYS), sell("B", 13 * DAYS)]
        put(store, *later)  # lost with the store, and made again
    for path in tmp_path.glob("signals.db*"):
        path.write_bytes(b"burnt")
        path.unlink()
    (tmp_path / "copy.db").rename(tmp_path / "signals.db")
    after_the_fire(sqlite_url, copied, later)


def test_a_postgres_store_that_is_lost_is_put_back_from_its_dump(postgres_url, tmp_path):
    schema = postgres_url.rpartition("%3D")[2]
    dump = tmp_path / "signals.dump"
    with SignalStore(postgres_url) as store:
        for day in range(12):
            put(store, buy("A", day * DAYS), sell("B", day * DAYS), abstention("C", day * DAYS))
        store.outcome(34, 1, 0.02, START + pd.Timedelta(days=11.5))
        store.clock = at(12)
        store.archive(tmp_path / "old", days=2)
        _run("pg_dump", "--format=custom", f"--schema={schema}", f"--file={dump}", SERVER)
        copied = [s.record for s in store.follow()]
        later = [buy("A", 13 * DAYS), sell("B", 13 * DAYS)]
        put(store, *later)
        with store.database.engine.begin() as connection:
            connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    _run("pg_restore", f"--dbname={SERVER}", str(dump))
    after_the_fire(postgres_url, copied, later)


def _run(*words):
    try:
        subprocess.run(words, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip(f"no {words[0]} here")

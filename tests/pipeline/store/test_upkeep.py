import json
import sqlite3
import threading
from unittest import mock

import duckdb
import pytest
from sqlalchemy import text

from pipeline.store import upkeep
from pipeline.store.signal_store import SignalStore
from stages.base import ConfigError, StoreError
from tests.pipeline.store.samples import MINUTE, START, abstention, batch, buy, sell

END = START + 60 * MINUTE
SCHEMA = "UPDATE sqlite_master SET sql = replace(sql, '{}', '{}')"


@pytest.fixture
def filled(store):
    store.append([buy("=A", 0), sell("B", 1), abstention("C", 2)], "c", strategy="s")
    store.append([buy("D", 3)], "c")
    store.outcome(2, -1, -0.02, END, excess=-0.01)
    store.event("looked")
    return store


# reading back


def edit(store, statement):
    """What the store itself would refuse: a row changed by someone with the rights to."""
    with store.database.engine.begin() as connection:
        if store.database.is_sqlite:
            triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
            for name in connection.execute(text(triggers)).scalars().all():
                connection.execute(text(f"DROP TRIGGER {name}"))
            connection.connection.driver_connection.execute("PRAGMA defer_foreign_keys = ON")
        else:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE signals SET confidence = 0.41 WHERE id = 4", "signal 4 was changed"),
        ("UPDATE signals SET asset = 'X' WHERE id = 1", "signal 1 was changed"),
        ("UPDATE signals SET explanation = NULL WHERE id = 4", "signal 4 was changed"),
        ("DELETE FROM signals WHERE id = 4", "signals 4 to 4"),
        ("DELETE FROM signals WHERE id = 3", "signals 1 to 3"),
        ("UPDATE outcomes SET ret = 0.02", "outcome of signal 2"),
        ("DELETE FROM outcomes", "outcome of signal 2"),
        (
            "INSERT INTO outcomes (signal, label, ret, ended, stored) VALUES (1, 'BUY', 9, 9, 9)",
            "2 outcomes, and 1 in the log",
        ),
        ("""UPDATE events SET details = '{"a":1}' WHERE id = 5""", "event 5"),
        ("DELETE FROM events WHERE id = 3", "event 3"),
        ("DELETE FROM events WHERE id > 2", "signal 4 is not in the log"),
        ("UPDATE events SET signal = 1 WHERE id = 5", "event 5"),
    ],
)
@pytest.mark.parametrize("chunk", [2000, 1])
def test_what_was_changed_behind_its_back_is_found(filled, statement, what, chunk):
    with mock.patch.object(upkeep, "CHUNK", chunk):
        found = filled.verify()
        assert (found.signals, found.outcomes, found.events) == (4, 1, 5)
        edit(filled, statement)
        with pytest.raises(StoreError) as refused:
            filled.verify()
    assert refused.value.code == "SV-X532"
    assert what in refused.value.what


def test_a_file_with_flipped_bits_is_refused(sqlite_url, tmp_path):
    with SignalStore(sqlite_url) as store:
        store.append(batch(0, size=300), "c")
    path = tmp_path / "signals.db"
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 2, len(content) // 2 + 4096):
        content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(StoreError) as refused, SignalStore(sqlite_url) as store:
        store.verify()
    assert refused.value.code == "SV-X532"


@pytest.mark.parametrize(
    ("statements", "what"),
    [
        (["DELETE FROM signals WHERE id = 2"], "a row of (outcomes|events) belongs to no signal"),
        (
            [
                "PRAGMA writable_schema = ON",
                SCHEMA.format("config TEXT NOT NULL", "config TEXT"),
                "PRAGMA writable_schema = RESET",
                "UPDATE signals SET config = NULL WHERE id = 1",
                "PRAGMA writable_schema = ON",
                SCHEMA.format("config TEXT", "config TEXT NOT NULL"),
            ],
            "NULL value in signals.config",
        ),
    ],
    ids=["foreign key", "integrity"],
)
def test_what_sqlite_itself_finds_wrong_is_said(sqlite_url, tmp_path, statements, what):
    with SignalStore(sqlite_url) as store:
        store.append([buy("A"), buy("B")], "c")
        store.outcome(2, 1, 0.01, END)
    behind = sqlite3.connect(tmp_path / "signals.db", isolation_level=None)
    for act in ("update", "delete"):
        behind.execute(f"DROP TRIGGER signals_refuse_{act}")
    for statement in statements:
        behind.execute(statement)
    behind.close()
    with SignalStore(sqlite_url) as store, pytest.raises(StoreError, match=what) as refused:
        store.verify()
    assert refused.value.code == "SV-X532"


def test_a_file_that_is_no_database_is_refused_and_left_alone(sqlite_url, tmp_path):
    path = tmp_path / "signals.db"
    path.write_text("asset,time\n" * 200)
    with pytest.raises(StoreError) as refused:
        SignalStore(sqlite_url)
    assert refused.value.code == "SV-X532"
    assert path.read_text() == "asset,time\n" * 200


# copies


def test_a_copy_taken_while_it_is_written_is_a_whole_store(sqlite_url, tmp_path):
    with SignalStore(sqlite_url) as store:
        store.append(batch(0), "c")
        done, acknowledged = threading.Event(), []

        def write():
            number = 0
            while not done.is_set():
                number += 1
                store.append(batch(number), "c")
                acknowledged.append(number)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for copy in range(3):
                path = tmp_path / f"copies/{copy}.db"
                before = len(acknowledged)
                store.backup(path)
                with SignalStore(path) as restored:
                    signals = restored.verify().signals
                    assert signals % 5 == 0
                    assert signals >= 5 * (before + 1)
                    assert restored.append(batch(0), "c") == 0
                    assert restored.append(batch(10**6), "c") == 5
        finally:
            done.set()
            writer.join()
        assert store.verify().signals == 5 * (len(acknowledged) + 1)
        assert [p.name for p in sorted((tmp_path / "copies").iterdir())] == ["0.db", "1.db", "2.db"]


def test_a_copy_replaces_an_older_one_but_never_the_store(sqlite_url, tmp_path):
    path = tmp_path / "copy.db"
    path.write_text("older")
    with SignalStore(sqlite_url) as store:
        store.append([buy()], "c")
        store.backup(path)
        with pytest.raises(ConfigError, match="over the store itself"):
            store.backup(tmp_path / "signals.db")
    with SignalStore(path) as restored:
        assert restored.get(1).signal == buy()


def test_a_copy_that_breaks_off_leaves_the_older_one(sqlite_url, tmp_path):
    path = tmp_path / "copy.db"
    path.write_text("older")
    with (
        SignalStore(sqlite_url) as store,
        mock.patch("pipeline.files.os.replace", side_effect=OSError(28, "No space left")),
        pytest.raises(StoreError, match="No space left") as refused,
    ):
        store.backup(path)
    assert refused.value.code == "SV-F34"
    assert path.read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 2


def test_postgresql_names_its_own_tool(postgres_url, tmp_path):
    with SignalStore(postgres_url) as store, pytest.raises(ConfigError) as refused:
        store.backup(tmp_path / "signals.dump")
    assert refused.value.cure == "pg_dump --format=custom --file=signals.dump test"


# export


def test_duckdb_reads_the_export(filled, tmp_path):
    path = tmp_path / "out" / "signals.parquet"
    with mock.patch.object(upkeep, "CHUNK", 3):
        assert filled.export(path) == 4
    rows = duckdb.sql(
        "SELECT id, asset, epoch_us(time), side, confidence, outcome_ret, epoch_us(outcome_ended), "
        f"strategy, explanation FROM '{path}' ORDER BY id"
    ).fetchall()
    for row, stored in zip(rows, filled.follow(), strict=True):
        outcome = stored.outcome
        assert row[:5] == (
            *(stored.id, stored.asset, stored.row["time"]),
            *(stored.record["side"], stored.record["confidence"]),
        )
        assert row[5] == (None if outcome is None else outcome.ret)
        assert row[6] == (None if outcome is None else END.value // 1000)
        assert row[7] == stored.strategy
        assert (None if row[8] is None else json.loads(row[8])) == stored.record["explanation"]
    types = dict(duckdb.sql(f"SELECT column_name, column_type FROM (DESCRIBE '{path}')").fetchall())
    assert types["time"] == "TIMESTAMP WITH TIME ZONE"
    assert (types["confidence"], types["outcome_ret"], types["id"]) == (
        "DOUBLE",
        "DOUBLE",
        "BIGINT",
    )
    best = f"SELECT json_extract(explanation, '$.contributions.momentum_20') FROM '{path}' LIMIT 1"
    assert duckdb.sql(best).fetchall() == [("0.75",)]


def test_an_empty_export_has_its_columns(store, tmp_path):
    assert store.export(tmp_path / "none.parquet") == 0
    assert duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/none.parquet'").fetchall() == [(0,)]


def test_plain_sqlite_reads_the_store(sqlite_url, tmp_path):
    with SignalStore(sqlite_url) as store:
        store.append([buy()], "c")
    connection = sqlite3.connect(tmp_path / "signals.db")
    asked = "SELECT typeof(asset), typeof(time), typeof(confidence), confidence, "
    asked += "json_extract(explanation, '$.margin') FROM signals"
    assert connection.execute(asked).fetchone() == ("text", "integer", "real", 0.4, 0.625)
    connection.close()

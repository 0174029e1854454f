import shutil
from unittest import mock

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from pipeline.store import versions
from pipeline.store.append import chained
from pipeline.store.database import Database
from pipeline.store.log import Event, log
from pipeline.store.rows import row_of
from pipeline.store.signal_store import SignalStore
from pipeline.store.tables import METADATA, SIGNALS
from stages.base import StoreError
from tests.pipeline.store.samples import buy, sell

BEFORE = versions.HEAD
LATER = f"{int(versions.HEAD) + 1:04d}"
NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "{later}"
down_revision = "{head}"


def upgrade():
    op.add_column("signals", sa.Column("desk", sa.Text, server_default="main"))
    op.create_index("signals_by_desk", "signals", ["desk"])
{fault}
"""


@pytest.fixture
def folder(tmp_path):
    """The migrations, to which a test may add."""
    return shutil.copytree(versions.FOLDER, tmp_path / "migrations")


def later(folder, fault=""):
    """The code as it will be one version later."""
    text = NEXT.format(fault=f"    {fault}", later=LATER, head=versions.HEAD)
    (folder / "versions" / f"v{LATER}_desk.py").write_text(text)
    return mock.patch.multiple(versions, HEAD=LATER, FOLDER=folder)


def test_migrations_end_in_the_tables_that_the_code_knows(store):
    with store.database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": versions.TABLE, "compare_type": True}
        )
        assert compare_metadata(context, METADATA) == []
        assert versions.version(connection) == versions.HEAD


def test_the_last_migration_is_the_version_of_the_code():
    settings = Config()
    settings.set_main_option("script_location", str(versions.FOLDER))
    settings.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(settings).get_heads() == [versions.HEAD]


def test_an_older_store_is_taken_further_and_keeps_all(url, folder):
    with SignalStore(url) as store:
        store.append([buy()], "c")
    with later(folder):
        for _ in range(2):
            with SignalStore(url) as store:
                assert store.verify().signals == 1
                assert store.get(1).signal == buy()
                upgraded = store.events(kind="upgraded")
                told = [(e.details["from"], e.details["to"]) for e in upgraded]
                assert told == [(None, BEFORE), (BEFORE, LATER)]
                with store.database.engine.connect() as connection:
                    asked = connection.execute(text("SELECT desk FROM signals"))
                    assert asked.scalars().all() == ["main"]


def test_a_store_newer_than_the_code_is_refused_and_left_alone(url, folder):
    with later(folder):
        SignalStore(url).close()
    with pytest.raises(StoreError) as refused:
        SignalStore(url)
    assert (refused.value.code, refused.value.exit_code) == ("SV-X530", 5)
    assert f"version {LATER}" in refused.value.what
    assert "update Sieve" in refused.value.cure
    with later(folder):
        SignalStore(url).close()


@pytest.mark.parametrize("fault", ["raise MemoryError", "op.execute('SELECT nonsense')"])
def test_an_upgrade_that_breaks_off_leaves_the_store_as_it_was(url, folder, fault):
    with SignalStore(url) as store:
        store.append([buy()], "c")
    with later(folder, fault), pytest.raises(Exception, match="nonsense|^$"):
        SignalStore(url)
    with SignalStore(url) as store:
        assert store.database.read(versions.version) == BEFORE
        columns = store.database.read(lambda c: inspect(c).get_columns("signals"))
        assert "desk" not in {column["name"] for column in columns}
        assert store.append([buy("MSFT")], "c") == 1


def test_a_first_start_that_breaks_off_leaves_an_empty_database(url, folder):
    with later(folder, "raise MemoryError"), pytest.raises(MemoryError):
        SignalStore(url)
    with SignalStore(url) as store:
        assert store.verify().signals == 0


def test_a_database_with_tables_of_someone_else_is_left_alone(url):
    database = Database(url, 5)
    database.write(lambda c: c.exec_driver_sql("CREATE TABLE events (theirs TEXT)"))
    with pytest.raises(StoreError) as refused:
        SignalStore(url)
    assert refused.value.code == "SV-X531"
    assert database.read(lambda c: inspect(c).get_table_names()) == ["events"]
    database.engine.dispose()


def test_tables_of_others_beside_ours_stay(url):
    database = Database(url, 5)
    database.write(lambda c: c.exec_driver_sql("CREATE TABLE alembic_version (version_num TEXT)"))
    database.write(lambda c: c.exec_driver_sql("INSERT INTO alembic_version VALUES ('theirs')"))
    with SignalStore(url) as store:
        assert store.append([buy()], "c") == 1
    asked = "SELECT version_num FROM alembic_version"
    assert database.read(lambda c: c.exec_driver_sql(asked).scalar()) == "theirs"
    database.engine.dispose()


# from the first version


def first_version(folder):
    """The code as it was before there were appraisals."""
    for path in (folder / "versions").glob("v0*.py"):
        if not path.name.startswith("v0001"):
            path.unlink()
    return mock.patch.multiple(versions, HEAD="0001", FOLDER=folder)


def test_a_store_of_the_first_version_keeps_all_it_holds(url, folder):
    added = ("risk", "quality", "size", "appraisal")
    made = [row_of(s, "c", "s") | {"revision": 0} for s in (buy(), sell("B", 1))]
    with first_version(folder), SignalStore(url) as store:
        names = [column.name for column in SIGNALS.c if column.name not in added]
        listed = ", ".join(f'"{name}"' for name in names)

        def write(connection):
            for id, row in enumerate(made, start=1):
                marks = ", ".join(f":{name}" for name in names)
                values = {name: (row | {"id": id, "stored": 5})[name] for name in names}
                statement = text(f"INSERT INTO signals ({listed}) VALUES ({marks})")
                connection.execute(statement, values)
            digest = chained(row["digest"] for row in made)
            details = {"first": 1, "last": 2, "digest": digest}
            log(connection, 7, [Event("appended", None, details), Event("expired", 2)])

        store.database.write(write)
    with SignalStore(url) as store:
        found = store.verify()
        assert (found.signals, found.events) == (2, 4)
        assert [s.signal for s in store.follow()] == [buy(), sell("B", 1)]
        assert store.get(1).record["appraisal"] is None
        assert store.get(1).verdict is None
        assert store.append([buy()], "c", strategy="s") == 0  # known by the same digest
        assert store.append([buy("C")], "c") == 1
        assert [e.signal for e in store.events(kind="expired")] == [2]
        for table in ("signals", "events"):
            statement = f"DELETE FROM {table}"
            with pytest.raises(Exception, match="never changed"):
                store.database.write(lambda c, s=statement: c.exec_driver_sql(s))
        assert store.verify().signals == 3

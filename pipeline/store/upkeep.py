"""Keep a store: copy it while it is written, read it back against its digests, export it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from pipeline.files import replace_atomic
from pipeline.store.append import chained, count
from pipeline.store.database import Database, damaged
from pipeline.store.emission import digest, verdicts_of
from pipeline.store.log import APPENDED, ARCHIVED, EMITTED, OUTCOME, seal
from pipeline.store.outcomes import FIELDS
from pipeline.store.queries import LAST
from pipeline.store.rows import WITH_OUTCOMES, digest_of
from pipeline.store.tables import EMISSIONS, EVENTS, OUTCOMES, SIGNALS, columns
from stages.base import ConfigError

CHUNK = 2000  # rows read at once: no long transaction keeps a writer waiting

_TIME = pa.timestamp("us", tz="UTC")
_KINDS = {
    "time": _TIME,
    "expires": _TIME,
    "stored": _TIME,
    "outcome_ended": _TIME,
    "id": pa.int64(),
    "revision": pa.int64(),
    "quality": pa.int64(),
    "emission_emitted": pa.int64(),
}


@dataclass(frozen=True)
class Verified:
    """How much was read back and found as it was stored."""

    signals: int
    outcomes: int
    events: int


def export(database: Database, path: Path) -> int:
    """Write signals and their outcomes to Parquet, by id; JSON stays text. Return the rows."""
    return write_rows(database, path)


def write_rows(database: Database, path: Path, last: int = LAST) -> int:
    """`export` of the signals with ids up to `last`."""
    query = WITH_OUTCOMES.where(SIGNALS.c.id <= last)
    schema = pa.schema([(c.name, _arrow(c)) for c in WITH_OUTCOMES.selected_columns])
    written = 0

    def write(temporary: Path) -> None:
        nonlocal written
        with pq.ParquetWriter(temporary, schema) as file:
            for rows in _chunks(database, query, SIGNALS.c.id):
                columns = {name: [row[name] for row in rows] for name in schema.names}
                file.write_table(pa.table(columns, schema=schema))
                written += len(rows)

    replace_atomic(path, write)
    return written


def backup(database: Database, path: Path) -> None:
    """Copy a SQLite store, as it is at one moment, to `path`, which is replaced as a whole.

    Raises
    ------
    ConfigError
        SV-F33 on PostgreSQL, whose own tools do it, or if `path` is the store.
    StoreError
        SV-F34 if the disk refuses; an older copy stays.
    """
    if not database.is_sqlite:
        raise ConfigError(
            "a PostgreSQL store is copied by its own tools",
            code="SV-F33",
            where=str(database.name),
            cure=f"pg_dump --format=custom --file={path.name} {database.url.database}",
        )
    if path.exists() and path.samefile(str(database.name)):
        raise ConfigError(
            "a copy over the store itself was asked for",
            code="SV-F33",
            where=str(path),
            cure="name another file",
        )

    def copy(temporary: Path) -> None:
        def run(connection: sa.Connection) -> None:
            with closing(sqlite3.connect(temporary)) as target:
                # all pages at once: in parts, each write of another process would start it over
                connection.connection.driver_connection.backup(target)  # type: ignore[union-attr]
                target.execute("PRAGMA journal_mode = delete")

        database.read(run)

    replace_atomic(path, copy)


def verify(database: Database) -> Verified:
    """Compare every signal, outcome, verdict and event with the digests stored with them."""
    name = str(database.name)
    if database.is_sqlite:
        database.read(lambda c: _check_file(c, name))
    last, known, judged = database.read(
        lambda c: (count(c), _many(c, OUTCOMES), _many(c, EMISSIONS))
    )
    gone = database.read(archived_until)
    read = _Reading(database, name, gone, _digests(database, name))
    for events in _chunks(database, sa.select(*columns(EVENTS)), EVENTS.c.id):
        for event in events:
            read.check(event)
        read.settle()
    if read.covered < last:
        raise damaged(name, f"signal {read.covered + 1} is not in the log")
    if read.outcomes < known:
        raise damaged(name, f"{known} outcomes, and {read.outcomes} in the log")
    if read.verdicts < judged:
        raise damaged(name, f"{judged} verdicts, and {read.verdicts} in the log")
    return Verified(read.covered - gone, read.outcomes, read.number)


@dataclass
class _Reading:
    """What the log has told so far, compared with what the store holds."""

    database: Database
    name: str
    gone: int  # last signal that is in the archive
    digests: Iterator[str]
    before: str = ""
    number: int = 0
    covered: int = 0
    outcomes: int = 0
    verdicts: int = 0
    told: dict[int, Any] = field(default_factory=dict)

    def check(self, event: dict[str, Any]) -> None:
        """The next event of the log, in its order."""
        self.number += 1
        if event["id"] != self.number or event["digest"] != seal(self.before, event):
            raise damaged(self.name, f"event {self.number} was changed or is missing")
        self.before, details = event["digest"], json.loads(event["details"])
        if event["kind"] == APPENDED:
            self._batch(details)
        elif event["kind"] == OUTCOME and event["signal"] > self.gone:
            self.told[event["signal"]] = details
        elif event["kind"] == EMITTED and details["last"] > self.gone:
            self.verdicts += _compare_verdicts(self.database, self.name, event["id"], details)

    def settle(self) -> None:
        """Compare the outcomes that were told since the last time."""
        self.outcomes += len(self.told)
        _compare(self.database, self.name, self.told)
        self.told = {}

    def _batch(self, details: dict[str, Any]) -> None:
        first, last = details["first"], details["last"]
        if last > self.gone:
            batch = islice(self.digests, last - self.covered)
            if first != self.covered + 1 or chained(batch) != details["digest"]:
                raise damaged(
                    self.name, f"signals {self.covered + 1} to {last} are not as appended"
                )
        self.covered = last


def archived_until(connection: sa.Connection) -> int:
    """Id of the last signal that went to the archive, 0 if none did."""
    query = sa.select(EVENTS.c.details.cast(sa.Text)).where(EVENTS.c.kind == ARCHIVED)
    text = connection.execute(query.order_by(EVENTS.c.id.desc()).limit(1)).scalar()
    return 0 if text is None else int(json.loads(text)["last"])


def _digests(database: Database, name: str) -> Iterator[str]:
    """Digests of all signals by id, each of them compared with its content."""
    for rows in _chunks(database, sa.select(*columns(SIGNALS)), SIGNALS.c.id):
        for row in rows:
            if digest_of(row) != row["digest"]:
                raise damaged(name, f"signal {row['id']} was changed")
            yield row["digest"]


def _compare(database: Database, name: str, told: dict[int, Any]) -> None:
    if not told:
        return
    query = sa.select(OUTCOMES).where(OUTCOMES.c.signal.in_(list(told)))
    rows = database.read(partial(_mappings, query))
    found = {row["signal"]: {field: row[field] for field in FIELDS} for row in rows}
    for signal, details in told.items():
        if found.get(signal) != details:
            raise damaged(name, f"the outcome of signal {signal} was changed or is missing")


def _compare_verdicts(database: Database, name: str, event: int, details: Any) -> int:
    rows = database.read(lambda c: verdicts_of(c, event))
    if len(rows) != details["signals"] or digest(rows) != details["digest"]:
        raise damaged(name, f"a verdict that event {event} tells of was changed or is missing")
    return len(rows)


def _many(connection: sa.Connection, table: sa.Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() or 0


def _check_file(connection: sa.Connection, name: str) -> None:
    found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    if found != ["ok"]:
        raise damaged(name, found[0])
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        raise damaged(name, f"a row of {broken[0]} belongs to no signal")


def _chunks(
    database: Database, query: sa.Select[Any], id: sa.ColumnElement[int]
) -> Iterator[list[dict[str, Any]]]:
    """Rows by id, each chunk in a transaction of its own."""
    after = 0
    while True:
        part = query.where(id > after).order_by(id).limit(CHUNK)
        rows = database.read(partial(_mappings, part))
        if not rows:
            return
        yield rows
        after = rows[-1]["id"]


def _mappings(query: sa.Select[Any], connection: sa.Connection) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _arrow(column: sa.ColumnElement[Any]) -> pa.DataType:
    if column.name in _KINDS:
        return _KINDS[str(column.name)]
    return pa.float64() if isinstance(column.type, sa.Double) else pa.string()

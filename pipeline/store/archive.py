"""Old signals go to a Parquet file that was read back, and only then out of the store."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import sqlalchemy as sa

from pipeline.store.append import chained
from pipeline.store.database import Database
from pipeline.store.log import APPENDED, ARCHIVED, SELECT, Event, event_of, log
from pipeline.store.rows import digest_of, micros
from pipeline.store.tables import EMISSIONS, EVENTS, OUTCOMES, SIGNALS
from pipeline.store.upkeep import archived_until, write_rows
from stages.base import StoreError

TABLES = (OUTCOMES, EMISSIONS, SIGNALS)  # those that name signals come before signals


@dataclass(frozen=True)
class Archived:
    """What one call moved.

    Attributes
    ----------
    rows : int
        0: nothing was old enough.
    path : Path or None
        The file that holds them now.
    """

    rows: int
    path: Path | None = None


def archive(
    database: Database, now: int, folder: Path, before: int | None, keep: int | None
) -> Archived:
    """Move the oldest signals, as they were stored, to a file in `folder`.

    Whole calls of `append` move, from the first on, up to one of which a signal is still wanted.
    The file is written and read back, digest by digest, before a row is removed; the log stays.

    Parameters
    ----------
    database : Database
    now : int
        Microseconds since 1970, UTC.
    folder : Path
    before : int or None
        Signals that had expired by then, microseconds, may go; None: all that have expired by
        `now` may.
    keep : int or None
        How many signals stay at least; None: those that may not go, and always the last.

    Raises
    ------
    StoreError
        SV-X536 if the file does not hold what was to be removed: nothing is removed then.
    """
    name = str(database.name)
    first, last = database.read(lambda c: _span(c, now if before is None else before, keep))
    if last < first:
        return Archived(0)
    path = folder / f"signals-{first:012d}-{last:012d}.parquet"
    write_rows(database, path, last)
    digests = _read_back(path, name)
    sealed = {"first": first, "last": last, "file": path.name, "sha256": _sha256(path)}

    def remove(connection: sa.Connection) -> None:
        if archived_until(connection) >= last:  # a passing fault, after it was done
            return
        told = _told(connection, first, last)
        if chained(digests) != chained(told):
            raise _not_whole(path, name)
        with _removing(connection):
            for table in TABLES:
                id = table.c.id if table is SIGNALS else table.c.signal
                connection.execute(sa.delete(table).where(id <= last))
        log(connection, now, [Event(ARCHIVED, None, sealed)])

    database.write(remove)
    return Archived(last - first + 1, path)


def _span(connection: sa.Connection, before: int, keep: int | None) -> tuple[int, int]:
    """First and last id of what may go: whole batches; last below first if there is none."""
    newest = connection.execute(sa.select(sa.func.max(SIGNALS.c.id))).scalar() or 0
    first = archived_until(connection) + 1
    live = sa.select(sa.func.min(SIGNALS.c.id)).where(SIGNALS.c.expires > before)
    wanted = connection.execute(live).scalar()
    end = (newest if wanted is None else wanted) - 1  # ids go on from the last, which stays
    if keep is not None:
        end = min(end, newest - keep)
    last = first - 1
    for row in connection.execute(SELECT.where(EVENTS.c.kind == APPENDED)).mappings():
        batch = event_of(dict(row)).details
        if batch["last"] > end:
            break
        last = max(last, batch["last"])
    return first, last


def _told(connection: sa.Connection, first: int, last: int) -> Iterable[str]:
    query = sa.select(SIGNALS.c.digest).where(SIGNALS.c.id.between(first, last))
    return list(connection.execute(query.order_by(SIGNALS.c.id)).scalars())


def _read_back(path: Path, name: str) -> list[str]:
    """Digests of the rows of a file, each of them that of what the file holds."""
    digests = []
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=2000):
            for row in batch.to_pylist():
                times = {key: micros(row[key]) for key in ("time", "expires")}
                if digest_of(row | times) != row["digest"]:
                    raise _not_whole(path, name)
                digests.append(row["digest"])
    return digests


@contextmanager
def _removing(connection: sa.Connection) -> Iterator[None]:
    """Let this transaction, and no other, remove rows; what fails is undone, and this with it."""
    if connection.dialect.name == "sqlite":
        names = [f"{table.name}_refuse_delete" for table in TABLES]
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        triggers = {row[0]: row[1] for row in connection.exec_driver_sql(query).all()}
        for name in names:
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        yield
        for name in names:
            connection.exec_driver_sql(triggers[name])
    else:
        commands = "ALTER TABLE {0} {1} TRIGGER {0}_refuse"
        for table in TABLES:
            connection.exec_driver_sql(commands.format(table.name, "DISABLE"))
        yield
        for table in TABLES:
            connection.exec_driver_sql(commands.format(table.name, "ENABLE"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_whole(path: Path, name: str) -> StoreError:
    return StoreError(
        f"{path.name} does not hold what was to be archived",
        code="SV-X536",
        where=name,
        why="a signal leaves the store only when a file that was read back holds it",
        cure="nothing was removed: look at the disk, remove that file, and archive again",
    )

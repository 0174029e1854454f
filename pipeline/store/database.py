"""One writer at a time on SQLite or PostgreSQL, whole transactions, refusals that name a cure."""

import os
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from pipeline.files import storing
from stages.base import ConfigError, StoreError

T = TypeVar("T")

ADVISORY = 7_431_002  # PostgreSQL: which of a database's advisory locks is that of writers
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between two tries
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_REFUSED = {
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM),
    *("53100", "25006", "42501", "58030"),  # disk full, read-only, no privilege, I/O error
}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, "XX001", "XX002"}
# serialisation, deadlock, too many connections, shutdown (3), lock timeout
_PASSING = {"40001", "40P01", "53300", "57P01", "57P02", "57P03", "55P03"}


class Database:
    """A SQLite file or a PostgreSQL database.

    Parameters
    ----------
    url : str
        ``sqlite:///file.db``, ``postgresql://user@host/database``, or the path of a file.
    wait : float
        Seconds for which a busy or unreachable database is tried again.

    Raises
    ------
    ConfigError
        SV-F33 for a URL of another kind, SV-X534 if psycopg is not installed.
    """

    def __init__(self, url: str, wait: float) -> None:
        self.wait = wait
        self.url = _url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.name = self.url.database if self.is_sqlite else _place(self.url)
        try:
            self.engine = sa.create_engine(self.url, pool_timeout=wait)
        except ModuleNotFoundError as error:
            raise ConfigError(
                "the package psycopg is not installed, and a PostgreSQL store was asked for",
                code="SV-X534",
                cure="pip install 'sieve-signals[postgres]'",
            ) from error
        self._process = os.getpid()
        if self.is_sqlite:
            with storing(Path(str(self.url.database))):
                Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
            sa.event.listen(self.engine, "connect", self._prepare)
            sa.event.listen(self.engine, "begin", _begin)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work`, which only reads; writers go on."""
        return self._again(lambda: self._once(work, writes=False))

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` as the only writer; all it wrote is durable on return, or none of it.

        It runs again after a passing fault, so doing it twice must add nothing.

        Raises
        ------
        StoreError
            SV-F34 if the disk refuses, SV-F40 if the store stays busy or unreachable, SV-X532 if
            it is damaged.
        """
        return self._again(lambda: self._once(work, writes=True))

    def _once(self, work: Callable[[sa.Connection], T], *, writes: bool) -> T:
        if os.getpid() != self._process:  # a connection must not cross a fork
            self.engine.dispose(close=False)
            self._process = os.getpid()
        connected = self.engine.connect().execution_options(writes=writes)
        with connected as connection, connection.begin():
            if writes and not self.is_sqlite:
                self._wait_in_line(connection)
            return work(connection)

    def _wait_in_line(self, connection: sa.Connection) -> None:
        """PostgreSQL: let one writer in at a time, in this schema, until its transaction ends."""
        longest = sa.text("SELECT set_config('lock_timeout', :wait, true)")
        connection.execute(longest, {"wait": f"{max(1, round(self.wait * 1000))}ms"})
        one = sa.text("SELECT pg_advisory_xact_lock(:which, hashtext(current_schema()))")
        connection.execute(one, {"which": ADVISORY})

    def _again(self, attempt: Callable[[], T]) -> T:
        until, pause = time.monotonic() + self.wait, FIRST_PAUSE
        drivers_own = self.engine.dialect.loaded_dbapi.Error  # COPY goes past SQLAlchemy
        while True:
            try:
                return attempt()
            except (DBAPIError, PoolTimeout, drivers_own) as error:
                if not _passes(error) or time.monotonic() >= until:
                    refusal = self._refusal(error)
                    if refusal is None:
                        raise
                    raise refusal from error
            time.sleep(random.uniform(0, pause))  # full jitter: writers do not meet again
            pause = min(2 * pause, LONGEST_PAUSE)

    def _prepare(self, connection: sqlite3.Connection, _record: Any) -> None:
        """What every connection to a file promises, before it reads or writes."""
        connection.isolation_level = None  # `_begin` opens transactions, not the driver, later
        wanted = journal_mode(sqlite3.sqlite_version_info)
        connection.execute(f"PRAGMA busy_timeout = {round(self.wait * 1000)}")
        (mode,) = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
        if mode != wanted:
            raise StoreError(
                f"the journal of the store is {mode!r}, and this SQLite needs {wanted!r}",
                code="SV-F40",
                where=str(self.name),
                why=f"SQLite {sqlite3.sqlite_version} here, another version holds the file open",
                cure="end the other process, or give both the same SQLite",
            )
        # EXTRA syncs the folder once the journal is gone: else power loss could undo a commit
        connection.execute(f"PRAGMA synchronous = {'FULL' if mode == 'wal' else 'EXTRA'}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")

    def _refusal(self, error: Exception) -> StoreError | None:
        code, said = _code(error), str(getattr(error, "orig", error)).strip().splitlines()[0]
        if _passes(error) or _is_unreachable(error):
            return StoreError(
                f"the store is busy or cannot be reached: {said}",
                code="SV-F40",
                where=str(self.name),
                why=f"tried for up to {self.wait:g} s; this call is stored whole or not at all",
                cure="let the other writer end, or start the server, and run again",
            )
        if code in _REFUSED:
            return StoreError(
                f"the store cannot be written: {said}",
                code="SV-F34",
                where=str(self.name),
                why="nothing was stored by this call: what was stored before is intact",
                cure="free space, allow writing, or name another store; then run again",
            )
        if code in _DAMAGED:
            return damaged(str(self.name), said)
        return None


def damaged(name: str, what: str) -> StoreError:
    """The error for a store that does not hold what was written."""
    return StoreError(
        f"the store is damaged: {what}",
        code="SV-X532",
        where=name,
        why="what it holds is not what was stored, or it is no store at all",
        cure="put back a backup, or name another store",
    )


def journal_mode(sqlite: tuple[int, ...]) -> str:
    """``wal`` where several writers may use it, else ``delete``, the rollback journal.

    WAL corrupts a file with several writers in versions 3.7.0 to 3.51.2 but those fixed:
    https://sqlite.org/wal.html#walresetbug.
    """
    fixed = sqlite >= (3, 51, 3) or (3, 50, 7) <= sqlite < (3, 51) or (3, 44, 6) <= sqlite < (3, 45)
    return "wal" if fixed else "delete"


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _url(text: str) -> sa.URL:
    if "://" not in text:
        return sa.URL.create("sqlite", database=str(Path(text).expanduser()))
    try:
        url = sa.make_url(text.replace("postgres://", "postgresql://", 1))
        kind = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        kind = "?"
    if kind == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if kind != "sqlite" or not url.database or url.database == ":memory:":
        raise ConfigError(
            "a store is a SQLite file or a PostgreSQL database",  # the text may hold a password
            code="SV-F33",
            where="URL of the store",
            cure="sqlite:///signals.db, or postgresql://USER@HOST/DATABASE",
        )
    return url.set(drivername="sqlite")


def _place(url: sa.URL) -> str:
    return f"{url.host or 'localhost'}:{url.port or 5432}/{url.database}"


def _code(error: Exception) -> int | str | None:
    """Primary result code of SQLite, or SQLSTATE."""
    found = getattr(error, "orig", None) or error
    if isinstance(found, sqlite3.Error):
        code = getattr(found, "sqlite_errorcode", None)
        return None if code is None else code & 0xFF
    return getattr(found, "sqlstate", None)


def _is_unreachable(error: Exception) -> bool:
    found = getattr(error, "orig", None) or error
    return type(found).__name__ == "OperationalError" and _code(error) is None


def _passes(error: Exception) -> bool:
    if isinstance(error, PoolTimeout) or getattr(error, "connection_invalidated", False):
        return True
    if _is_unreachable(error):  # FATAL: no such user or database, and waiting makes none
        said = str(error)
        return "FATAL" not in said or "the database system is" in said
    return _code(error) in _BUSY | _PASSING

"""Signals kept for good: appended and never edited, with what came of them and what happened."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, Unpack

import pandas as pd
import sqlalchemy as sa

from pipeline.store import inquiries, queries, rows, upkeep, versions
from pipeline.store.append import append, count, restate
from pipeline.store.archive import Archived, archive
from pipeline.store.database import Database
from pipeline.store.emission import Rules, emit
from pipeline.store.log import OWN, SELECT, UPGRADED, Event, event_of, log
from pipeline.store.outcomes import attach, missing, sweep
from pipeline.store.queries import LAST, Page, Where, at_least
from pipeline.store.rows import WITH_OUTCOMES, Outcome, Stored, micros, stored_of
from pipeline.store.tables import EMISSIONS, EVENTS, SIGNALS
from stages.base import ConfigError
from stages.signal import Signal

DAY = 86_400_000_000  # microseconds


def utc_now() -> pd.Timestamp:
    """The time of the machine."""
    return pd.Timestamp(datetime.now(UTC))


class SignalStore:
    """Signals, their outcomes and the log of both, in SQLite or PostgreSQL.

    Parameters
    ----------
    url : str
        ``sqlite:///signals.db`` or the path of a file, made if absent, on a local disk;
        ``postgresql://USER@HOST/DATABASE``.
    wait : float, default=30.0
        Seconds for which a busy or unreachable database is tried again before SV-F40.
    clock : callable, optional
        Gives the time at which things are stored.

    Raises
    ------
    ConfigError
        SV-F33 for another kind of URL, SV-X534 without psycopg.
    StoreError
        SV-X530 if a later version of Sieve wrote it, SV-X531 if the database is someone else's,
        SV-X532 if it is damaged, SV-F34 and SV-F40 if it cannot be written or reached; so do all
        methods.

    Notes
    -----
    Opening brings the tables up to date. What a call stores is stored whole or not at all, and is
    on the disk when it returns. Threads and processes may share a store.
    """

    def __init__(
        self, url: str, *, wait: float = 30.0, clock: Callable[[], pd.Timestamp] = utc_now
    ) -> None:
        self.database = Database(str(url), wait)
        self.clock = clock
        try:
            if self.database.read(versions.version) != versions.HEAD:
                self.database.write(self._upgrade)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self.database.engine.dispose()

    # adding

    def append(
        self,
        signals: Iterable[Signal],
        config: str,
        *,
        strategy: str = "",
        revision: int = 0,
        rules: Rules | None = None,
    ) -> int:
        """Store signals, all or none; what is stored already adds nothing.

        Parameters
        ----------
        signals : iterable of Signal
        config : str
            Digest of the settings they were made with.
        strategy : str, optional
            A name under which performance is counted.
        revision : int >= 0, default=0
            Which restatement of the same asset, time, model and settings.
        rules : Rules, optional
            Say which of the new signals leave: each gets a `Verdict`, in the same transaction.
            All are stored, whatever it says.

        Returns
        -------
        int
            How many were new, by asset, time, model, config and revision.

        Raises
        ------
        StoreError
            SV-X520 if a stored signal says something else under the same key.
        DataError
            SV-F17 for text that a database cannot hold.
        """
        number, arrived = {"revision": at_least(0, revision, "revision")}, list(signals)
        added = [rows.row_of(s, config, strategy) | number for s in arrived]
        table = None if rules is None else rules.table(arrived, strategy)

        def write(connection: sa.Connection) -> int:
            new = append(connection, self._now(), added, self._name)
            if rules is not None and table is not None and new:
                first = count(connection) - len(new) + 1
                ids = range(first, first + len(new))
                emit(connection, self._now(), table.iloc[new].set_axis(ids), rules.emission)
            return len(new)

        return self.database.write(write)

    def restate(self, signals: Iterable[Signal], config: str, *, strategy: str = "") -> int:
        """Store what changed as a new revision, such as after a late bar; the old one stays.

        What equals any stored revision adds nothing, so a second delivery does not.

        Returns
        -------
        int
            How many revisions were new.
        """
        added = [rows.row_of(s, config, strategy) for s in signals]
        return self.database.write(lambda c: len(restate(c, self._now(), added)))

    def outcome(
        self, id: int, label: int, ret: float, ended: pd.Timestamp, excess: float | None = None
    ) -> bool:
        """Attach what came of one signal, once; see `Outcome`.

        Returns
        -------
        bool
            False if the same was attached before.
        """
        return self.resolve([Outcome(id, label, ret, ended, excess)]) == 1

    def resolve(self, outcomes: Iterable[Outcome]) -> int:
        """Attach outcomes, all or none.

        Returns
        -------
        int
            How many were new.

        Raises
        ------
        StoreError
            SV-X533 if there is no such signal, SV-X535 if it has another outcome already.
        DataError
            SV-F25 if a label ends no later than its signal, SV-F12 for a return that is no number.
        """
        known = [replace(outcome, id=int(outcome.id)) for outcome in outcomes]
        return self.database.write(lambda c: attach(c, self._now(), known, self._name))

    def expire(self, at: pd.Timestamp) -> int:
        """Log the expiry of each signal that has expired by `at`, once; no signal is edited.

        Returns
        -------
        int
            How many were logged.
        """
        return self.database.write(lambda c: sweep(c, self._now(), micros(at)))

    def note(self, found: Iterable[tuple[Signal, Mapping[str, Any]]], config: str) -> int:
        """Log what was found out about stored signals, all or none; see `inquiry`.

        What equals the last that was said of a signal adds nothing. A signal is found by asset,
        time and model; of several settings those of `config` come first, then the last stored.

        Parameters
        ----------
        found : iterable of (Signal, mapping)
            Each with JSON values, such as those of `pipeline.inquiry.Inquiry.record`.
        config : str
            Digest of the settings that the signals were made with.

        Returns
        -------
        int
            How many were new.

        Raises
        ------
        StoreError
            SV-X533 if a signal is not stored, SV-X520 if what is stored has another side,
            another status or other odds: what was found is not about it.
        """
        told = inquiries.prepared(found, config)
        return self.database.write(lambda c: inquiries.note(c, self._now(), told, self._name))

    def event(self, kind: str, signal: int | None = None, **details: Any) -> None:
        """Add a line to the log: JSON values about the store, or about a signal.

        A connection lost just as it is stored may log it twice.
        """
        rows.check_text({"kind": kind})
        if kind in OWN:
            raise ConfigError(
                f"events of the kind {kind!r} are the store's own",
                code="SV-F33",
                where="event",
                why="whoever reads the log takes them for what the store told of its signals",
                cure="give it another name",
            )
        self.database.write(lambda c: log(c, self._now(), [Event(kind, signal, details)]))

    # asking

    def last(self) -> int:
        """Id of the signal that was stored last, 0 if there is none."""
        return self.database.read(count)

    def verdicts(self, after: int = 0) -> Counter[str]:
        """How many signals with ids above `after` left, under "", or were withheld, by reason.

        The reason is its first word: ``duplicate``, ``status``, ``quality``, ``strategy``,
        ``floor``, ``cap`` or ``conflict``.
        """
        query = sa.select(EMISSIONS.c.reason).where(EMISSIONS.c.signal > int(after))
        told = self.database.read(lambda c: c.execute(query).scalars().all())
        return Counter(reason.partition(":")[0] for reason in told)

    def get(self, id: int) -> Stored:
        """One signal; StoreError SV-X533 if there is none."""
        found = []
        if 0 < id <= LAST:
            found = self._stored(WITH_OUTCOMES.where(SIGNALS.c.id == int(id)))
        if not found:
            raise missing(id, self._name)
        return found[0]

    def latest(self, n: int, **where: Unpack[Where]) -> list[Stored]:
        """The `n` newest signals by time of decision, newest revisions only; see `Where`."""
        return self.page(n, **where).signals

    def page(self, n: int, cursor: str | None = None, **where: Unpack[Where]) -> Page:
        """`n` signals, newest first; all pages that follow show the store as the first saw it.

        Parameters
        ----------
        n : int >= 1
        cursor : str, optional
            Of the page before.
        **where
            See `Where`; the same for all pages.
        """
        n = at_least(1, n, "n")

        def read(connection: sa.Connection) -> Page:
            if cursor is None:
                last, below = count(connection), None
            else:
                last, below = queries.read_cursor(cursor)
            query = queries.select_page(n + 1, last, below, where)
            found = [stored_of(row) for row in connection.execute(query).mappings()]
            if len(found) <= n:
                return Page(found, None)
            end = found[n - 1]
            under = end.row["time"], end.id
            return Page(found[:n], queries.cursor_text(last, under))

        return self.database.read(read)

    def active(self, at: pd.Timestamp, **where: Unpack[Where]) -> list[Stored]:
        """Signals that were decided by `at` and expire later, newest revisions, newest first."""
        found = self._stored(queries.select_active(micros(at), where))
        return sorted(found, key=lambda s: (s.row["time"], s.id), reverse=True)

    def follow(self, after: int = 0, n: int = 1000) -> list[Stored]:
        """The next `n` signals in the order of storing, all revisions: ids above `after`.

        Whoever keeps the last id he saw misses none, because ids rise in the order of commits.
        """
        query = WITH_OUTCOMES.where(SIGNALS.c.id > int(after)).order_by(SIGNALS.c.id)
        return self._stored(query.limit(at_least(1, n, "n")))

    def events(
        self, after: int = 0, n: int = 1000, kind: str | None = None, signal: int | None = None
    ) -> list[Event]:
        """The next `n` events of the log with ids above `after`, of a kind or of a signal."""
        query = SELECT.where(EVENTS.c.id > after).limit(at_least(1, n, "n"))
        if kind is not None:
            query = query.where(EVENTS.c.kind == kind)
        if signal is not None:
            query = query.where(EVENTS.c.signal == signal)
        return self.database.read(
            lambda c: [event_of(dict(r)) for r in c.execute(query).mappings()]
        )

    def inquiry(self, id: int) -> Event | None:
        """What `note` logged of a signal last; None if nobody has asked."""
        return self.database.read(lambda c: inquiries.inquiry(c, int(id)))

    def performance(
        self, by: str | Sequence[str] = "strategy", **where: Unpack[Where]
    ) -> pd.DataFrame:
        """How signals with a side went, by one or more of their columns.

        Parameters
        ----------
        by : {'strategy', 'asset', 'strength', 'model', 'config', 'side', 'status'} or several
        **where
            See `Where`.

        Returns
        -------
        DataFrame
            `signals` with an outcome, `hit_rate`, mean `confidence`, `brier` score of the
            confidence, `mean_return` per signal (a SELL earns what the asset loses), its
            standard `deviation`, and `mean_excess`; fractions, before costs.
        """
        names = [by] if isinstance(by, str) else list(by)
        query = queries.select_performance(names, where)
        found = self.database.read(lambda c: [dict(r) for r in c.execute(query).mappings()])
        return queries.performance_table(found, query)

    def played(self, **where: Unpack[Where]) -> pd.DataFrame:
        """Signals with a side, newest revisions, and what came of those whose label is known.

        Returns
        -------
        DataFrame
            A row a signal, by id, as `stages.risk.outcomes.performance` reads it: `asset`,
            `asset_class`, `strategy`, `strength`, `model`, `config`, `status`, `time`, `side`,
            `outcome` (Int8), and `return` of the position, `excess` and `net` of costs, fractions.
        """
        query = queries.select_played(where)
        found = self.database.read(lambda c: [dict(r) for r in c.execute(query).mappings()])
        return queries.played_table(found)

    def unsettled(self) -> pd.DataFrame:
        """`asset`, `time` and `model` of signals with odds and no outcome, by id."""
        query = queries.select_unsettled()
        found = self.database.read(lambda c: [dict(r) for r in c.execute(query).mappings()])
        table = pd.DataFrame(found, columns=["id", "asset", "time", "model"]).set_index("id")
        return table.assign(time=pd.to_datetime(table["time"], unit="us", utc=True))

    # keeping

    def export(self, path: Path | str) -> int:
        """Write all signals with their outcomes to a Parquet file; the file is replaced whole.

        Returns
        -------
        int
            Rows written.
        """
        return upkeep.export(self.database, Path(path))

    def backup(self, path: Path | str) -> None:
        """Copy a SQLite store, as it is at one moment, to a file that opens as a store.

        Writers go on. On PostgreSQL this is a ConfigError (SV-F33) that names ``pg_dump``.
        """
        upkeep.backup(self.database, Path(path))

    def archive(
        self, folder: Path | str, *, days: int | None = None, rows: int | None = None
    ) -> Archived:
        """Move old signals to a Parquet file in `folder`: it is read back before they are removed.

        Whole calls of `append` move, the first first, with their outcomes and verdicts, up to one
        of which a signal is to stay. The log stays whole, and says where they are. What is in the
        archive is not known here any more: made again, it is stored again.

        Parameters
        ----------
        folder : Path or str
            Made if absent; the file is called after the ids it holds.
        days : int >= 0, optional
            Signals stay for so many days after they have expired.
        rows : int >= 1, optional
            So many of the last stay, whatever their age. One of the two must be given.

        Raises
        ------
        StoreError
            SV-X536 if the file does not hold what was to be removed: nothing is removed then.
        """
        if days is None and rows is None:
            raise ConfigError(
                "nothing says what is to stay",
                code="SV-F33",
                where="archive",
                cure="give days, such as 365, or rows, such as 1_000_000",
            )
        now = self._now()
        before = None if days is None else now - at_least(0, days, "days") * DAY
        keep = None if rows is None else at_least(1, rows, "rows")
        return archive(self.database, now, Path(folder), before, keep)

    def verify(self) -> upkeep.Verified:
        """Read everything back and compare it with its digests.

        Raises
        ------
        StoreError
            SV-X532 naming the first signal, event or outcome that was changed or is missing.
        """
        return upkeep.verify(self.database)

    @property
    def _name(self) -> str:
        return str(self.database.name)

    def _now(self) -> int:
        return micros(self.clock())

    def _stored(self, query: sa.Select[Any]) -> list[Stored]:
        return self.database.read(lambda c: [stored_of(r) for r in c.execute(query).mappings()])

    def _upgrade(self, connection: sa.Connection) -> None:
        before = versions.upgrade(connection, self._name)
        if before != versions.HEAD:
            details = {"from": before, "to": versions.HEAD}
            log(connection, self._now(), [Event(UPGRADED, None, details)])

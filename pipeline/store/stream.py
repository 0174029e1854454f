"""What a stream keeps beside its signals: its bars, what it set aside, what it has yet to tell."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from pipeline.store.append import count, restate
from pipeline.store.emission import Rules, emit
from pipeline.store.rows import WITH_OUTCOMES, Stored, check_text, insert, row_of
from pipeline.store.signal_store import SignalStore
from pipeline.store.step import Aside, Moved, Step, Written
from pipeline.store.tables import (
    BARS,
    EMISSIONS,
    OUTBOX,
    QUARANTINE,
    SIGNALS,
    json_text,
)

CHUNK = 400  # names looked up by one query
LIMIT = 2000  # characters of a message that are kept
COUNT = sa.text(
    "INSERT INTO stream_counts (source, name, value, at) VALUES (:source, :name, :value, :at) "
    "ON CONFLICT (source, name) DO UPDATE SET value = stream_counts.value + excluded.value, "
    "at = excluded.at"
)
GAUGE = sa.text(
    "INSERT INTO stream_counts (source, name, value, at) VALUES (:source, :name, :value, :at) "
    "ON CONFLICT (source, name) DO UPDATE SET value = excluded.value, at = excluded.at"
)


class StreamStore:
    """The part of a store that belongs to one source of messages.

    Parameters
    ----------
    store : SignalStore
    source : str
        Its name: of a stream and group, or of a file.
    config : str
        Digest of the settings that signals are made with.
    strategy : str, default=''
    outbox : bool, default=True
        Whether signals that leave are to be told.
    """

    def __init__(
        self,
        store: SignalStore,
        source: str,
        config: str,
        strategy: str = "",
        *,
        outbox: bool = True,
    ) -> None:
        check_text({"source": source})
        self.store, self.source = store, source
        self.config, self.strategy, self.outbox = config, strategy, outbox

    def write(self, step: Step, after: int, rules: Rules | None = None) -> Written:
        """Store all that a step holds in one transaction; what is known adds nothing.

        Parameters
        ----------
        step : Step
        after : int
            Id of the last bar of this source that the caller knows of.
        rules : Rules, optional
            Of the signals of the step; see `SignalStore.append`.

        Raises
        ------
        Moved
            If there are later bars of the source: nothing is stored.
        """
        rows = [row_of(s, self.config, self.strategy) for s in step.signals]
        table = None if rules is None else rules.table(list(step.signals), self.strategy)
        for bar in step.bars:
            check_text({"asset": bar.asset, "message": bar.message})

        def write(connection: sa.Connection) -> Written:
            now = self.store._now()
            if self._last(connection) != after:
                raise Moved
            last = self._add_bars(connection, now, step) or after
            before = count(connection)
            new = restate(connection, now, rows)
            ids = range(before + 1, before + 1 + len(new))
            if rules is not None and table is not None and new:
                emit(connection, now, table.iloc[new].set_axis(ids), rules.emission)
            if self.outbox:
                self._put(connection, ids, judged=rules is not None)
            revised = _revised(connection, ids)
            counts = Counter(step.counts) + self._set_aside(connection, now, step.aside)
            counts += Counter({"signals": len(new), "revisions": revised})
            self._count(connection, now, counts, step.gauges)
            return Written(last, len(new), revised)

        return self.store.database.write(write)

    def count(self, counts: Mapping[str, int], gauges: Mapping[str, int]) -> None:
        """Add to counts and set gauges; done twice after a passing fault it may count twice."""
        self.store.database.write(lambda c: self._count(c, self.store._now(), counts, gauges))

    def newest(self) -> int | None:
        """Time of the newest bar, microseconds since 1970."""
        query = sa.select(sa.func.max(BARS.c.time)).where(BARS.c.source == self.source)
        return self.store.database.read(lambda c: c.execute(query).scalar())

    def bars(self, depth: int, since: int) -> list[dict[str, Any]]:
        """Bars from a time on, and the `depth` last ones of each asset before it; all revisions.

        Returns
        -------
        list of dict
            `id`, `asset`, `time`, `revision`, and `values`, a mapping of name to number, by id.
        """
        place = sa.func.dense_rank().over(partition_by=BARS.c.asset, order_by=BARS.c.time.desc())
        names = ("id", "asset", "time", "revision")
        held = sa.select(*(BARS.c[n] for n in names), BARS.c.bar.cast(sa.Text).label("bar"))
        mine = BARS.c.source == self.source
        inner = held.add_columns(place.label("place")).where(mine, BARS.c.time < since).subquery()
        before = sa.select(*(inner.c[n] for n in (*names, "bar"))).where(inner.c.place <= depth)
        after = held.where(mine, BARS.c.time >= since)

        def read(connection: sa.Connection) -> list[sa.RowMapping]:
            parts = (connection.execute(query).mappings().all() for query in (before, after))
            return sorted((row for part in parts for row in part), key=lambda row: row["id"])

        return [
            {name: row[name] for name in names} | {"values": json.loads(row["bar"])}
            for row in self.store.database.read(read)
        ]

    def forget(self, before: int, depth: int) -> int:
        """Remove bars from before a time, but for the last `depth` of each asset; return how many.

        Signals stay. A copy of a removed bar is not known as one any more: it is too late.
        """
        place = sa.func.dense_rank().over(partition_by=BARS.c.asset, order_by=BARS.c.time.desc())
        ranked = sa.select(BARS.c.id, BARS.c.time, place.label("place"))
        inner = ranked.where(BARS.c.source == self.source).subquery()
        old = sa.select(inner.c.id).where(inner.c.time < before, inner.c.place > depth)

        def write(connection: sa.Connection) -> int:
            ids = connection.execute(old).scalars().all()
            for start in range(0, len(ids), CHUNK):
                part = list(ids[start : start + CHUNK])
                connection.execute(sa.delete(BARS).where(BARS.c.id.in_(part)))
            return len(ids)

        return self.store.database.write(write)

    def told_of(self, asset: str, time: int) -> list[dict[str, Any]]:
        """The values of all revisions of one bar."""
        query = sa.select(BARS.c.bar.cast(sa.Text)).where(
            BARS.c.source == self.source, BARS.c.asset == asset, BARS.c.time == time
        )
        found = self.store.database.read(lambda c: c.execute(query).scalars().all())
        return [json.loads(text) for text in found]

    def recorded(self, messages: Sequence[str]) -> set[str]:
        """Which messages brought a bar, or were set aside."""
        found: set[str] = set()
        for start in range(0, len(messages), CHUNK):
            part = list(messages[start : start + CHUNK])
            for table in (BARS, QUARANTINE):
                query = sa.select(table.c.message).where(
                    table.c.source == self.source, table.c.message.in_(part)
                )
                found |= self._texts(query)
        return found

    def waiting(self, n: int) -> list[Stored]:
        """The first `n` signals that are still to be told, by id."""
        first = sa.select(OUTBOX.c.signal).where(OUTBOX.c.source == self.source)
        chosen = first.order_by(OUTBOX.c.signal).limit(n).subquery()
        query = WITH_OUTCOMES.where(SIGNALS.c.id.in_(sa.select(chosen.c.signal)))
        return self.store._stored(query.order_by(SIGNALS.c.id))

    def told(self, last: int, many: int) -> None:
        """Take the signals up to id `last` out of the outbox, `many` of which were told."""
        gone = sa.delete(OUTBOX).where(OUTBOX.c.source == self.source, OUTBOX.c.signal <= last)

        def write(connection: sa.Connection) -> None:
            connection.execute(gone)
            self._count(connection, self.store._now(), {"published": many}, {})

        self.store.database.write(write)

    def aside(self, after: int = 0, n: int = 1000, kinds: Iterable[str] = ()) -> list[Aside]:
        """What was set aside and not taken up again, by id."""
        open_ = QUARANTINE.c.replayed.is_(None)
        query = sa.select(QUARANTINE).where(
            QUARANTINE.c.source == self.source, open_, QUARANTINE.c.id > after
        )
        if kinds:
            query = query.where(QUARANTINE.c.kind.in_(list(kinds)))
        query = query.order_by(QUARANTINE.c.id).limit(n)
        names = ("message", "kind", "reason", "content", "deliveries", "id")
        rows = self.store.database.read(lambda c: c.execute(query).mappings().all())
        return [Aside(**{name: row[name] for name in names}) for row in rows]

    def taken_up(self, aside: Sequence[Aside]) -> None:
        """Mark what was set aside as taken up again, but for what has come aside once more."""

        def write(connection: sa.Connection) -> None:
            now = self.store._now()
            for one in aside:
                unmoved = QUARANTINE.c.deliveries == one.deliveries
                mark = sa.update(QUARANTINE).where(QUARANTINE.c.id == one.id, unmoved)
                connection.execute(mark.values(replayed=now))

        self.store.database.write(write)

    def _texts(self, query: sa.Select[Any]) -> set[str]:
        return self.store.database.read(lambda c: set(c.execute(query).scalars()))

    def _last(self, connection: sa.Connection) -> int:
        query = sa.select(sa.func.max(BARS.c.id)).where(BARS.c.source == self.source)
        return connection.execute(query).scalar() or 0

    def _add_bars(self, connection: sa.Connection, now: int, step: Step) -> int:
        if not step.bars:
            return 0
        first = (connection.execute(sa.select(sa.func.max(BARS.c.id))).scalar() or 0) + 1
        rows = [
            {
                "id": id,
                "source": self.source,
                "asset": bar.asset,
                "time": bar.time,
                "revision": bar.revision,
                "message": bar.message,
                "bar": json_text(dict(zip(step.names, bar.values, strict=True))),
                "stored": now,
            }
            for id, bar in enumerate(step.bars, start=first)
        ]
        insert(connection, BARS, rows)
        return first + len(rows) - 1

    def _put(self, connection: sa.Connection, ids: range, *, judged: bool) -> None:
        if not len(ids):
            return
        leave: Iterable[int] = ids
        if judged:
            said = sa.select(EMISSIONS.c.signal).where(
                EMISSIONS.c.signal.between(ids[0], ids[-1]), EMISSIONS.c.emitted == 1
            )
            leave = connection.execute(said.order_by(EMISSIONS.c.signal)).scalars().all()
        insert(connection, OUTBOX, [{"signal": id, "source": self.source} for id in leave])

    def _set_aside(
        self, connection: sa.Connection, now: int, aside: Sequence[Aside]
    ) -> Counter[str]:
        """Keep what was set aside, once a message; return how many are new, by kind."""
        new: Counter[str] = Counter()
        if not aside:
            return new
        id = connection.execute(sa.select(sa.func.max(QUARANTINE.c.id))).scalar() or 0
        for one in aside:
            message = _plain(one.message)
            mine = QUARANTINE.c.source == self.source, QUARANTINE.c.message == message
            row: dict[str, Any]
            row = {"kind": one.kind, "reason": _plain(one.reason), "content": _plain(one.content)}
            row |= {"deliveries": one.deliveries, "stored": now, "replayed": None}
            known = connection.execute(sa.select(QUARANTINE.c.replayed).where(*mine)).first()
            if known is None:
                id += 1
                named = {"id": id, "source": self.source, "message": message}
                connection.execute(sa.insert(QUARANTINE).values(**named, **row))
            else:
                connection.execute(sa.update(QUARANTINE).where(*mine).values(**row))
            new[one.kind] += known is None or known[0] is not None
        return new

    def _count(
        self,
        connection: sa.Connection,
        now: int,
        counts: Mapping[str, int],
        gauges: Mapping[str, int],
    ) -> None:
        for query, values in ((COUNT, counts), (GAUGE, gauges)):
            rows = [
                {"source": self.source, "name": name, "value": int(value), "at": now}
                for name, value in values.items()
                if value or query is GAUGE
            ]
            if rows:
                connection.execute(query, rows)


def _revised(connection: sa.Connection, ids: range) -> int:
    if not len(ids):
        return 0
    query = sa.select(sa.func.count()).select_from(SIGNALS)
    later = SIGNALS.c.id.between(ids[0], ids[-1]), SIGNALS.c.revision > 0
    return connection.execute(query.where(*later)).scalar() or 0


def _plain(text: str) -> str:
    """Text that both databases keep, cut where it grows too long."""
    kept = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
    return kept if len(kept) <= LIMIT else kept[: LIMIT - 1] + "…"

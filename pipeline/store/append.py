"""Append signals: each key once, nothing edited, one transaction for all."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from pipeline.store.log import APPENDED, Event, log
from pipeline.store.rows import KEY, insert, timestamp
from pipeline.store.tables import SIGNALS, json_text
from stages.base import StoreError

Row = dict[str, Any]
CHUNK = 400  # keys looked up by one query

_FOUND = "s.asset, s.time, s.model, s.config, s.revision, s.strategy, s.digest"
LOOKUP = {  # by the index of the key, whatever the planner would guess
    "sqlite": sa.text(
        f"SELECT {_FOUND} FROM json_each(:pairs) AS k CROSS JOIN signals AS s "
        "ON s.asset = json_extract(k.value, '$[0]') AND s.time = json_extract(k.value, '$[1]')"
    ),
    "postgresql": sa.text(
        f"SELECT {_FOUND} FROM json_array_elements(CAST(:pairs AS json)) AS k "
        "CROSS JOIN LATERAL (SELECT * FROM signals WHERE asset = k.value ->> 0 "
        "AND time = CAST(k.value ->> 1 AS bigint) OFFSET 0) AS s"
    ),
}


def append(connection: sa.Connection, now: int, rows: Sequence[Row], name: str) -> list[int]:
    """Store rows whose key is new, as the only writer, with rising ids; return which they are.

    Parameters
    ----------
    connection : Connection
        In the transaction of a writer.
    now : int
        Microseconds since 1970, UTC.
    rows : sequence of dict
        Of `pipeline.store.rows.row_of`, with `revision`.
    name : str
        Of the store, for errors.

    Raises
    ------
    StoreError
        SV-X520 if a key is known with another content; nothing is stored then.
    """
    known = {_key(row): _content(row) for row in _stored(connection, rows)}
    new = []
    for at, row in enumerate(rows):
        key = _key(row)
        if key not in known:
            known[key] = _content(row)
            new.append(at)
        elif known[key] != _content(row):
            raise _conflict(row, name)
    _add(connection, now, [rows[at] for at in new])
    return new


def restate(connection: sa.Connection, now: int, rows: Sequence[Row]) -> list[int]:
    """Store rows that equal no stored revision of their key as the next one.

    Returns
    -------
    list of int
        Which rows are new, with rising ids.
    """
    contents: dict[tuple[Any, ...], dict[int, tuple[str, str]]] = {}
    for row in _stored(connection, rows):
        contents.setdefault(_key(row)[:-1], {})[row["revision"]] = _content(row)
    new, places = [], []
    for at, row in enumerate(rows):
        revisions = contents.setdefault(_key(row | {"revision": 0})[:-1], {})
        if _content(row) not in revisions.values():
            revision = max(revisions, default=-1) + 1
            revisions[revision] = _content(row)
            new.append(row | {"revision": revision})
            places.append(at)
    _add(connection, now, new)
    return places


def count(connection: sa.Connection) -> int:
    """How many signals are stored, which is the id of the last."""
    return connection.execute(sa.select(sa.func.max(SIGNALS.c.id))).scalar() or 0


def chained(digests: Iterable[str]) -> str:
    """One digest of a batch of signals, in their order."""
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(digest.encode("ascii"))
    return whole.hexdigest()


def _add(connection: sa.Connection, now: int, new: Sequence[Row]) -> None:
    if not new:
        return
    first = count(connection) + 1
    insert(
        connection,
        SIGNALS,
        (row | {"id": id, "stored": now} for id, row in enumerate(new, start=first)),
    )
    details = {
        "first": first,
        "last": first + len(new) - 1,
        "digest": chained(row["digest"] for row in new),
    }
    log(connection, now, [Event(APPENDED, None, details)])


def _stored(connection: sa.Connection, rows: Sequence[Row]) -> Iterator[Row]:
    """What is stored of the assets and times of `rows`."""
    times = [row["time"] for row in rows]
    if not times:
        return
    within = SIGNALS.c.time.between(min(times), max(times))
    if connection.execute(sa.select(SIGNALS.c.id).where(within).limit(1)).first() is None:
        return
    pairs = sorted({(row["asset"], row["time"]) for row in rows})
    for start in range(0, len(pairs), CHUNK):
        lookup = LOOKUP[connection.dialect.name]
        found = connection.execute(lookup, {"pairs": json_text(pairs[start : start + CHUNK])})
        yield from (dict(row) for row in found.mappings())


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def _content(row: Row) -> tuple[str, str]:
    return row["digest"], row["strategy"]


def _conflict(row: Row, name: str) -> StoreError:
    return StoreError(
        f"{row['asset']} at {timestamp(row['time'])} is stored with another content",
        code="SV-X520",
        where=f"{name}, revision {row['revision']}",
        why="a stored signal is never edited: same model and settings, so its bars were changed",
        cure="store what changed as a new revision, with restate, or in another store",
    )

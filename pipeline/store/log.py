"""The log of a store: events, only ever appended, each sealed with the digest of the one before."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import sqlalchemy as sa

from pipeline.store.rows import insert, timestamp
from pipeline.store.tables import EVENTS, columns, json_text

# kinds that the store logs itself
UPGRADED, APPENDED, OUTCOME, EXPIRED, SWEPT = "upgraded", "appended", "outcome", "expired", "swept"
EMITTED, OVERRULED, ARCHIVED, INQUIRY = "emitted", "overruled", "archived", "inquiry"
OWN = (UPGRADED, APPENDED, OUTCOME, EXPIRED, SWEPT, EMITTED, OVERRULED, ARCHIVED, INQUIRY)


@dataclass(frozen=True)
class Event:
    """Something that happened to the store or to one of its signals.

    Attributes
    ----------
    kind : str
        The store's own are `OWN`; others are given to `SignalStore.event`.
    signal : int or None
        Id of the signal it belongs to.
    details : mapping
        JSON values.
    id : int
        1, 2, … in the order in which they were logged; 0 until then.
    time : Timestamp or None
        When it was logged, UTC.
    digest : str
        SHA-256 of the event and of the digest before it.
    """

    kind: str
    signal: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0
    time: pd.Timestamp | None = None
    digest: str = ""


def log(connection: sa.Connection, now: int, events: Iterable[Event]) -> None:
    """Append events within the transaction of a writer; `now` in microseconds since 1970."""
    newest = sa.select(EVENTS.c.id, EVENTS.c.digest).order_by(EVENTS.c.id.desc()).limit(1)
    last, before = connection.execute(newest).first() or (0, "")
    rows: list[dict[str, Any]] = []
    for id, event in enumerate(events, start=last + 1):
        row = {"id": id, "time": now, "kind": event.kind, "signal": event.signal}
        row["details"] = json_text(dict(event.details))
        before = row["digest"] = seal(before, row)
        rows.append(row)
    insert(connection, EVENTS, rows)


def seal(before: str, row: Mapping[str, Any]) -> str:
    """Digest of an event and of the digest of the one before it."""
    short = json_text([before, *(row[name] for name in ("id", "time", "kind", "signal"))])
    return hashlib.sha256(f"{short}\n{row['details']}".encode("ascii")).hexdigest()


def event_of(row: Mapping[str, Any]) -> Event:
    """An event as it was logged."""
    details = json.loads(row["details"])
    return Event(
        row["kind"], row["signal"], details, row["id"], timestamp(row["time"]), row["digest"]
    )


SELECT = sa.select(*columns(EVENTS)).order_by(EVENTS.c.id)

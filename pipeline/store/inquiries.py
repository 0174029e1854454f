"""What was found out about stored signals when somebody asked, told in the log beside them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from pipeline.store.log import INQUIRY, SELECT, Event, event_of, log
from pipeline.store.queries import newest
from pipeline.store.rows import row_of, timestamp
from pipeline.store.tables import EVENTS, SIGNALS, json_text
from stages.base import StoreError
from stages.signal import Signal

Row = dict[str, Any]
SAYS = ("side", "status", "p_sell", "p_hold", "p_buy", "certainty")


def prepared(
    found: Iterable[tuple[Signal, Mapping[str, Any]]], config: str
) -> list[tuple[Row, Row]]:
    """Signals as rows, beside what was found as the log gives it back.

    Raises
    ------
    ValueError, TypeError
        For what JSON does not have.
    """
    return [
        (row_of(signal, config, ""), json.loads(json_text(dict(details))))
        for signal, details in found
    ]


def note(connection: sa.Connection, now: int, found: Iterable[tuple[Row, Row]], name: str) -> int:
    """Log what was found and was not said of the same signal last; return how many were new.

    Parameters
    ----------
    connection : Connection
        In the transaction of a writer.
    now : int
        Microseconds since 1970, UTC.
    found : iterable of pairs of dict
        Of `prepared`.
    name : str
        Of the store, for errors.

    Raises
    ------
    StoreError
        SV-X533 if a signal is not stored, SV-X520 if another one is in its place.
    """
    said: dict[int, Any] = {}
    new = []
    for row, details in found:
        id = _stored(connection, row, name)
        if id not in said:
            last = inquiry(connection, id)
            said[id] = None if last is None else last.details
        if said[id] != details:
            said[id] = details
            new.append(Event(INQUIRY, id, details))
    log(connection, now, new)
    return len(new)


def inquiry(connection: sa.Connection, id: int) -> Event | None:
    """What was found out about a signal last; None if nobody has asked."""
    query = SELECT.where(EVENTS.c.signal == id, EVENTS.c.kind == INQUIRY).order_by(None)
    row = connection.execute(query.order_by(EVENTS.c.id.desc()).limit(1)).mappings().first()
    return None if row is None else event_of(dict(row))


def _stored(connection: sa.Connection, row: Row, name: str) -> int:
    """Id of the stored signal that says the same: with its settings, else the one stored last."""
    query = (
        sa.select(*(SIGNALS.c[column] for column in ("id", "config", *SAYS)))
        .where(*(SIGNALS.c[column] == row[column] for column in ("asset", "time", "model")))
        .where(newest())
    )
    known = [dict(found) for found in connection.execute(query).mappings()]
    if not known:
        raise _not_stored(row, name)
    same = [found for found in known if all(found[column] == row[column] for column in SAYS)]
    if not same:
        raise _another(row, name)
    best = max(same, key=lambda found: (found["config"] == row["config"], found["id"]))
    return int(best["id"])


def _not_stored(row: Row, name: str) -> StoreError:
    return StoreError(
        f"no signal of {row['asset']} at {timestamp(row['time'])} of this model is stored",
        code="SV-X533",
        where=f"{name}, model {row['model'][:16]}",
        why="what was found is stored with its signal, of all signals asked about or of none",
        cure="store it first, with pipeline.predict and the same store, model and data; an older "
        "bar with rows=all",
    )


def _another(row: Row, name: str) -> StoreError:
    return StoreError(
        f"{row['asset']} at {timestamp(row['time'])} is stored with another content",
        code="SV-X520",
        where=f"{name}, model {row['model'][:16]}",
        why="what was found is about a signal with another side or other odds: bars were changed",
        cure="explain it on the bars that it was made of, or store what changed with restate",
    )

"""What comes of signals, told beside them: outcomes once each, and expiry."""

import json
import math
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from pipeline.store.append import CHUNK, count
from pipeline.store.log import EXPIRED, OUTCOME, SWEPT, Event, log
from pipeline.store.rows import Outcome, insert, outcome_row, timestamp
from pipeline.store.tables import EVENTS, OUTCOMES, SIGNALS
from stages.base import DataError, StoreError
from stages.signal import SIDES

FIELDS = ("label", "ret", "excess", "ended")


def attach(connection: sa.Connection, now: int, outcomes: Sequence[Outcome], name: str) -> int:
    """Store outcomes that are new, as the only writer; return how many.

    Raises
    ------
    StoreError
        SV-X533 if there is no such signal, SV-X535 if it has another outcome.
    DataError
        SV-F25 if a label ends no later than its signal, SV-F12 for a return that is no number.
    """
    for outcome in outcomes:
        _check(outcome)
    times: dict[int, int] = {}
    known: dict[int, dict[str, Any]] = {}
    ids = sorted({outcome.id for outcome in outcomes})
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        found = sa.select(SIGNALS.c.id, SIGNALS.c.time).where(SIGNALS.c.id.in_(part))
        times |= dict(connection.execute(found).all())
        there = sa.select(OUTCOMES).where(OUTCOMES.c.signal.in_(part))
        known |= {row["signal"]: dict(row) for row in connection.execute(there).mappings()}
    new = []
    for outcome in outcomes:
        row = outcome_row(outcome, now)
        if outcome.id not in times:
            raise missing(outcome.id, name)
        if row["ended"] <= times[outcome.id]:
            raise _too_early(outcome, times[outcome.id])
        before = known.setdefault(outcome.id, row)
        if before is row:
            new.append(row)
        elif any(before[field] != row[field] for field in FIELDS):
            raise _another(outcome, name)
    insert(connection, OUTCOMES, new)
    log(
        connection,
        now,
        (Event(OUTCOME, row["signal"], {field: row[field] for field in FIELDS}) for row in new),
    )
    return len(new)


def sweep(connection: sa.Connection, now: int, at: int) -> int:
    """Log the expiry of signals that have expired by `at` and were not logged; return how many."""
    swept = sa.select(EVENTS.c.details.cast(sa.Text)).where(EVENTS.c.kind == SWEPT)
    text = connection.execute(swept.order_by(EVENTS.c.id.desc()).limit(1)).scalar()
    before = None if text is None else json.loads(text)
    last = count(connection)
    query = sa.select(SIGNALS.c.id).order_by(SIGNALS.c.id)
    if before is not None:  # the rest were logged then, all of them
        at = max(at, before["at"])
        fresh = sa.or_(SIGNALS.c.expires > before["at"], SIGNALS.c.id > before["last"])
        query = query.where(fresh)
    expired = list(connection.execute(query.where(SIGNALS.c.expires <= at)).scalars())
    if expired:
        events = [Event(EXPIRED, id) for id in expired]
        log(connection, now, [*events, Event(SWEPT, None, {"at": at, "last": last})])
    return len(expired)


def missing(id: int, name: str) -> StoreError:
    """The error for an id that no signal has."""
    return StoreError(
        f"there is no signal {id}",
        code="SV-X533",
        where=name,
        cure="take the id of a signal that latest, page or follow gave, from the same store",
    )


def _check(outcome: Outcome) -> None:
    numbers = (outcome.ret, 0.0 if outcome.excess is None else outcome.excess)
    if outcome.label not in SIDES or not all(map(math.isfinite, numbers)):
        raise DataError(
            f"the outcome of signal {outcome.id} is no side with a return: {outcome.label!r}, "
            f"{outcome.ret}, {outcome.excess}",
            code="SV-F12",
            why="performance is counted from it",
            cure="label -1, 0 or 1, and finite returns; wait where the label is not known yet",
        )


def _too_early(outcome: Outcome, time: int) -> DataError:
    return DataError(
        f"the label of signal {outcome.id} ends at {outcome.ended}, no later than the signal",
        code="SV-F25",
        where=f"signal at {timestamp(time)}",
        why="an outcome is known only after its decision",
        cure="hand in the time at which the label ended",
    )


def _another(outcome: Outcome, name: str) -> StoreError:
    return StoreError(
        f"signal {outcome.id} has another outcome already",
        code="SV-X535",
        where=name,
        why="an outcome is attached once: what was counted would change in hindsight",
        cure="restate the signal, and attach the outcome to the new revision",
    )

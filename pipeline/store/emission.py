"""Which of the signals that arrive leave: judged as they are stored, each with its reason."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from pipeline.store.log import EMITTED, OVERRULED, Event, log
from pipeline.store.queries import newest
from pipeline.store.rows import insert, micros, timestamp
from pipeline.store.tables import EMISSIONS, EVENTS, SIGNALS, json_text
from stages.risk.emission import HOUR, Emission
from stages.risk.life import signal_table
from stages.signal import SIDE_NUMBER, Signal

FIELDS = ("signal", "emitted", "reason", "asset_class", "cost", "edge")


@dataclass(frozen=True)
class Rules:
    """What decides which signals leave.

    Attributes
    ----------
    emission : Emission
    classes : sequence of N str
        Asset class of each signal that arrives.
    costs : sequence of N float
        Round trip of each, fraction; NaN is not known.
    """

    emission: Emission
    classes: Sequence[str]
    costs: Sequence[float]

    def table(self, signals: Sequence[Signal], strategy: str) -> pd.DataFrame:
        """The signals as `Emission.judge` reads them."""
        costs = np.asarray(self.costs, dtype="float64")
        return signal_table(signals, list(self.classes), strategy, costs)  # type: ignore[arg-type]


def emit(connection: sa.Connection, now: int, table: pd.DataFrame, emission: Emission) -> None:
    """Judge signals that were just stored, within the transaction that stored them.

    Parameters
    ----------
    connection : Connection
        In the transaction of the writer.
    now : int
        Microseconds since 1970, UTC.
    table : DataFrame of shape (N, F)
        See `stages.risk.life.signal_table`; the index holds the ids.
    emission : Emission
    """
    if not len(table):
        return
    verdicts, overruled = emission.judge(table, _earlier(connection, table))
    last = connection.execute(sa.select(sa.func.max(EVENTS.c.id))).scalar() or 0
    known = table.assign(**{str(name): verdicts[name] for name in verdicts})
    rows = [_row(id, row) for id, row in zip(known.index, known.to_dict("records"), strict=True)]
    details = {
        "signals": len(rows),
        "last": rows[-1]["signal"],
        "emitted": sum(row["emitted"] for row in rows),
        "digest": digest(rows),
    }
    insert(connection, EMISSIONS, (row | {"event": last + 1} for row in rows))
    told = set(_told(connection, OVERRULED, overruled))
    fallen = {int(id): why for id, why in overruled.items() if id not in told}
    events = [Event(EMITTED, None, details)]
    events += [Event(OVERRULED, id, {"reason": why}) for id, why in fallen.items()]
    log(connection, now, events)


def digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of verdicts, in the order of their signals."""
    whole = hashlib.sha256()
    for row in rows:
        whole.update(json_text([row[name] for name in FIELDS]).encode("ascii") + b"\n")
    return whole.hexdigest()


def verdicts_of(connection: sa.Connection, event: int) -> list[dict[str, Any]]:
    """The verdicts that one event of the log seals."""
    query = sa.select(EMISSIONS).where(EMISSIONS.c.event == event).order_by(EMISSIONS.c.signal)
    return [dict(row) for row in connection.execute(query).mappings()]


def _row(id: Any, row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "signal": int(id),
        "emitted": int(row["emitted"]),
        "reason": str(row["withheld"]),
        "asset_class": str(row["asset_class"]),
        "cost": _number(row["cost"]),
        "edge": _number(row["edge"]),
    }


def _number(value: Any) -> float | None:
    return None if value is None or isnan(value) else float(value) + 0.0  # SQLite has no -0


def _earlier(connection: sa.Connection, table: pd.DataFrame) -> pd.DataFrame:
    """Signals stored before that have not expired, or left within the hour, by id."""
    first = micros(table["time"].min())
    hour = int(HOUR.total_seconds() * 1_000_000)
    short = [SIGNALS.c[name] for name in ("id", "asset", "strategy", "model", "time", "expires")]
    short += [SIGNALS.c[name] for name in ("side", "status", "strength", "confidence", "certainty")]
    query = (
        sa.select(*short, *(EMISSIONS.c[n] for n in ("emitted", "asset_class", "cost", "edge")))
        .select_from(SIGNALS.outerjoin(EMISSIONS, EMISSIONS.c.signal == SIGNALS.c.id))
        .where(SIGNALS.c.id < int(table.index.min()), newest())
        .where(sa.or_(SIGNALS.c.expires > first, SIGNALS.c.time > first - hour))
        .where(SIGNALS.c.time <= micros(table["time"].max()))
    )
    found = [dict(row) for row in connection.execute(query).mappings()]
    columns = [*table.columns, "emitted"]
    rows = pd.DataFrame(found, columns=["id", *columns]).set_index("id")
    for name in ("time", "expires"):
        rows[name] = pd.DatetimeIndex([timestamp(t) for t in rows[name]], tz="UTC")
    side = [None if row["side"] is None else SIDE_NUMBER[row["side"]] for row in found]
    rows["side"] = pd.array(side, dtype="Int8")
    for name in ("confidence", "certainty", "cost", "edge", "price"):
        rows[name] = rows[name].astype("float64")
    return rows.assign(emitted=rows["emitted"].fillna(0).astype(bool))


def _told(connection: sa.Connection, kind: str, ids: Iterable[Any]) -> Iterator[int]:
    """Signals of `ids` of which the log holds an event of a kind already."""
    for id in ids:
        query = sa.select(EVENTS.c.id).where(EVENTS.c.signal == int(id), EVENTS.c.kind == kind)
        if connection.execute(query.limit(1)).first() is not None:
            yield int(id)

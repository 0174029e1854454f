"""Between a signal's record and its row in the store; both hold the same."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import pandas as pd
import sqlalchemy as sa

from pipeline.signals_io import Record, from_record, to_record
from pipeline.store.tables import EMISSIONS, LONG, OUTCOMES, SIGNALS, columns, json_text
from stages.base import DataError
from stages.signal import SIDE_NUMBER, SIDE_TEXT, Signal

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEY = ("asset", "time", "model", "config", "revision")
SHARES = {"p_sell": "SELL", "p_hold": "HOLD", "p_buy": "BUY"}
INTERVAL = ("low", "high", "level")
_PLAIN = (
    *("schema_version", "asset", "session", "side", "status", "strength"),
    *("confidence", "certainty", "novelty", "disagreement", "model", "config"),
)
_DOUBLES = (
    *SHARES,
    *("confidence", "certainty", "epistemic", "aleatoric", "novelty", "disagreement"),
    *INTERVAL,
)
_SHORT = (*_PLAIN, *_DOUBLES, "time", "expires")
_APPRAISED = ("risk", "quality", "size")
_SINCE = ("appraisal",)  # long columns that the first stores did not have


@dataclass(frozen=True)
class Outcome:
    """What came of a signal once its label had ended.

    Attributes
    ----------
    id : int
        Of the signal.
    label : {-1, 0, 1}
        The side that would have been right.
    ret : float
        Return of the asset over the horizon, a fraction.
    ended : Timestamp
        When the label ended, UTC; later than the signal.
    excess : float, optional
        Return beyond that of the market, a fraction.
    """

    id: int
    label: int
    ret: float
    ended: pd.Timestamp
    excess: float | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether a signal left.

    Attributes
    ----------
    emitted : bool
    reason : str
        Why it was withheld, empty if it left.
    asset_class : str
    cost, edge : float or None
        Round trip, and what was expected after it: fractions; None where not known.
    """

    emitted: bool
    reason: str
    asset_class: str
    cost: float | None = None
    edge: float | None = None


@dataclass(frozen=True)
class Stored:
    """A signal as the store holds it.

    Attributes
    ----------
    id : int
        1, 2, … in the order in which they were stored.
    asset : str
    time : Timestamp
        Of the decision, UTC.
    revision : int
        0 for the first; a later one restates the same asset, time, model and settings.
    strategy : str
    stored : Timestamp
        When, UTC.
    digest : str
        SHA-256 of its values.
    outcome : Outcome or None
        None until it is known.
    verdict : Verdict or None
        None if it was stored without rules of emission.
    row : mapping
        Columns of the store, long ones as JSON text.
    """

    id: int
    asset: str
    time: pd.Timestamp
    revision: int
    strategy: str
    stored: pd.Timestamp
    digest: str
    outcome: Outcome | None
    verdict: Verdict | None
    row: Mapping[str, Any] = field(repr=False)

    @cached_property
    def record(self) -> Record:
        """As ``schemas/signal-v1.json`` describes it."""
        return record_of(self.row)

    @property
    def signal(self) -> Signal:
        """The signal itself; its checks run again."""
        return from_record(self.record)


def micros(time: pd.Timestamp) -> int:
    """Whole microseconds since 1970; DataError SV-F07 for a time without a zone."""
    time = pd.Timestamp(time)
    if time.tzinfo is None:
        raise DataError(
            f"the time {time} has no zone",
            code="SV-F07",
            why="signals are stored by the time at which they were known, in UTC",
            cure="pd.Timestamp('2022-03-01 21:00', tz='UTC')",
        )
    return time.value // 1000


def timestamp(micros: int) -> pd.Timestamp:
    """The time of whole microseconds since 1970, UTC."""
    return pd.Timestamp(micros, unit="us", tz="UTC")


def digest_of(row: Mapping[str, Any]) -> str:
    """SHA-256 of what a signal says: its values, long ones as they are written."""
    values, long = [row[name] for name in _SHORT], [n for n in LONG if n not in _SINCE]
    if row["appraisal"] is not None:  # else the digest is that of a row of the first version
        values, long = [*values, *(row[name] for name in _APPRAISED)], list(LONG)
    whole = "\n".join((json_text(values), *(row[name] or "null" for name in long)))
    return hashlib.sha256(whole.encode("ascii")).hexdigest()


def row_of(signal: Signal, config: str, strategy: str) -> dict[str, Any]:
    """The row of a signal but for `id`, `revision` and `stored`, long values as JSON text.

    Raises
    ------
    DataError
        SV-F17 for text that a database cannot hold.
    """
    record = to_record(signal, config)
    row: dict[str, Any] = {name: record[name] for name in _PLAIN}
    odds, interval = record["probabilities"] or {}, record["interval"] or {}
    row |= {name: odds.get(text) for name, text in SHARES.items()}
    row |= {name: interval.get(name) for name in INTERVAL}
    row |= record["uncertainty"]
    row |= {name: (record["appraisal"] or {}).get(name) for name in _APPRAISED}
    for name in (*_DOUBLES, "risk", "size"):  # SQLite keeps no sign of a zero
        if row[name] == 0.0:
            row[name] = 0.0
    row |= {"time": micros(signal.time), "expires": micros(signal.expires), "strategy": strategy}
    check_text(row)
    row |= {name: None if record[name] is None else json_text(record[name]) for name in LONG}
    row["digest"] = digest_of(row)
    return row


def check_text(values: Mapping[str, Any]) -> None:
    """Refuse an empty name, a NUL and half a character, before anything is stored or asked."""
    for name, text in values.items():
        if isinstance(text, str) and ("\0" in text or not (text or name == "strategy")):
            raise _no_text(name, text)
        if isinstance(text, str) and not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:  # half of a surrogate pair
                raise _no_text(name, text) from error


def record_of(row: Mapping[str, Any]) -> Record:
    """The JSON record of a row, its keys in the order of the schema's properties."""
    long = {name: None if row[name] is None else json.loads(row[name]) for name in LONG}
    shares = {text: row[name] for name, text in SHARES.items()}
    known = row["level"] is not None
    return {
        "schema_version": row["schema_version"],
        "asset": row["asset"],
        "time": _text(row["time"]),
        "session": row["session"],
        "side": row["side"],
        "status": row["status"],
        "strength": row["strength"],
        "probabilities": None if row["p_hold"] is None else shares,
        "confidence": row["confidence"],
        "certainty": row["certainty"],
        "uncertainty": {"epistemic": row["epistemic"], "aleatoric": row["aleatoric"]},
        "why_not": long["why_not"],
        "stages": long["stages"],
        "explanation": long["explanation"],
        "prices": long["prices"],
        "replay": long["replay"],
        "expires": _text(row["expires"]),
        "model": row["model"],
        "config": row["config"],
        "novelty": row["novelty"],
        "disagreement": row["disagreement"],
        "interval": {name: row[name] for name in INTERVAL} if known else None,
        "sides": long["sides"],
        "skill": long["skill"],
        "appraisal": long["appraisal"],
    }


def stored_of(found: sa.RowMapping) -> Stored:
    """A row of `WITH_OUTCOMES`."""
    row = dict(found)
    outcome = None
    if row["outcome_label"] is not None:
        outcome = Outcome(
            row["id"],
            SIDE_NUMBER[row["outcome_label"]],
            row["outcome_ret"],
            timestamp(row["outcome_ended"]),
            row["outcome_excess"],
        )
    verdict = None
    if row["emission_emitted"] is not None:
        told = (row[f"emission_{name}"] for name in ("reason", "asset_class", "cost", "edge"))
        verdict = Verdict(bool(row["emission_emitted"]), *told)
    return Stored(
        row["id"],
        row["asset"],
        timestamp(row["time"]),
        row["revision"],
        row["strategy"],
        timestamp(row["stored"]),
        row["digest"],
        outcome,
        verdict,
        row,
    )


def outcome_row(outcome: Outcome, stored: int) -> dict[str, Any]:
    """The row of an outcome."""
    return {
        "signal": outcome.id,
        "label": SIDE_TEXT[outcome.label],
        "ret": float(outcome.ret) + 0.0,
        "excess": None if outcome.excess is None else float(outcome.excess) + 0.0,
        "ended": micros(outcome.ended),
        "stored": stored,
    }


def insert(connection: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows whose JSON is text already: COPY on PostgreSQL, one prepared statement on SQLite."""
    names = tuple(table.c.keys())
    values = [tuple(row[name] for name in names) for row in rows]
    if not values:
        return
    listed = ", ".join(f'"{name}"' for name in names)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(names))
        statement = f"INSERT INTO {table.name} ({listed}) VALUES ({marks})"
        connection.exec_driver_sql(statement, values)
        return
    driver: Any = connection.connection
    statement = f"COPY {table.name} ({listed}) FROM STDIN"
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for row in values:
            copy.write_row(row)


def _text(micros: int) -> str:
    return (EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")


def _no_text(name: str, text: str) -> DataError:
    return DataError(
        f"{name} {text[:80]!r} is no text that can be stored",
        code="SV-F17",
        why="a NUL or half a character comes back changed, and an empty name names nothing",
        cure="give it a name of whole characters",
    )


_OF_OUTCOME = ("label", "ret", "excess", "ended")
_OF_EMISSION = ("emitted", "reason", "asset_class", "cost", "edge")
WITH_OUTCOMES = sa.select(
    *columns(SIGNALS),
    *(OUTCOMES.c[name].label(f"outcome_{name}") for name in _OF_OUTCOME),
    *(EMISSIONS.c[name].label(f"emission_{name}") for name in _OF_EMISSION),
).select_from(
    SIGNALS.outerjoin(OUTCOMES, OUTCOMES.c.signal == SIGNALS.c.id).outerjoin(
        EMISSIONS, EMISSIONS.c.signal == SIGNALS.c.id
    )
)

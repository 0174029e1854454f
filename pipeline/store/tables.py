"""The tables of the store: real column types, the same ones in SQLite and PostgreSQL."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from pipeline.files import json_bytes

# tables of SQLite are STRICT, which knows these names only
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NUMBER: TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")


# JSON as it was written: order of keys and digits stay, which JSONB would not keep
JSON: TypeEngine[Any] = postgresql.JSON().with_variant(sa.Text(), "sqlite")
LONG = ("prices", "sides", "why_not", "stages", "skill", "replay", "explanation", "appraisal")


def json_text(value: Any) -> str:
    """One spelling in both stores; ValueError for NaN, which JSON does not have."""
    return json_bytes(value).decode("ascii")


def _time(name: str) -> sa.Column[int]:
    return sa.Column(name, WHOLE, nullable=False)  # microseconds since 1970, UTC


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


METADATA = sa.MetaData()

SIGNALS = sa.Table(
    "signals",
    METADATA,
    sa.Column("id", WHOLE, primary_key=True, autoincrement=False),  # 1, 2, … as they were stored
    _text("asset"),
    _time("time"),
    sa.Column("session", sa.Text),
    sa.Column("side", sa.Text),
    _text("status"),
    sa.Column("strength", sa.Text),
    *(sa.Column(name, NUMBER) for name in ("p_sell", "p_hold", "p_buy")),
    *(sa.Column(name, NUMBER) for name in ("confidence", "certainty", "epistemic", "aleatoric")),
    *(sa.Column(name, NUMBER) for name in ("novelty", "disagreement")),
    *(sa.Column(name, NUMBER) for name in ("low", "high", "level")),  # of the interval
    sa.Column("risk", NUMBER),  # this and the next two of the appraisal
    sa.Column("quality", WHOLE),
    sa.Column("size", NUMBER),
    _time("expires"),
    _text("model"),
    _text("config"),
    sa.Column("revision", WHOLE, nullable=False),
    _text("strategy"),
    _text("schema_version"),
    _time("stored"),
    _text("digest"),  # SHA-256 of the record
    # long columns stand last: SQLite then reads none of their pages for the short ones
    *(sa.Column(name, JSON) for name in LONG),
    sa.UniqueConstraint("asset", "time", "model", "config", "revision", name="signals_key"),
    sa.Index("signals_by_time", "time", "id"),
    sa.Index("signals_by_asset", "asset", "time", "id"),
    sa.Index("signals_by_model", "model", "time", "id"),
    sa.Index("signals_by_expiry", "expires"),
    sqlite_strict=True,
)

OUTCOMES = sa.Table(
    "outcomes",
    METADATA,
    sa.Column("signal", WHOLE, sa.ForeignKey("signals.id"), primary_key=True, autoincrement=False),
    _text("label"),
    sa.Column("ret", NUMBER, nullable=False),
    sa.Column("excess", NUMBER),
    _time("ended"),
    _time("stored"),
    sqlite_strict=True,
)

EMISSIONS = sa.Table(
    "emissions",
    METADATA,
    sa.Column("signal", WHOLE, sa.ForeignKey("signals.id"), primary_key=True, autoincrement=False),
    sa.Column("emitted", WHOLE, nullable=False),  # 1, or 0: withheld
    _text("reason"),  # why it was withheld, empty if it left
    _text("asset_class"),
    sa.Column("cost", NUMBER),  # round trip, fraction
    sa.Column("edge", NUMBER),  # after the cost, fraction
    sa.Column("event", WHOLE, nullable=False),  # of the log, that holds the digest of these rows
    sa.Index("emissions_by_event", "event", "signal"),
    sqlite_strict=True,
)

EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", WHOLE, primary_key=True, autoincrement=False),
    _time("time"),
    _text("kind"),
    sa.Column("signal", WHOLE),  # the log stays whole when a signal is archived
    sa.Column("details", JSON, nullable=False),
    _text("digest"),  # SHA-256 of the event and of the digest before it
    sa.Index("events_by_signal", "signal", "kind"),
    sa.Index("events_by_kind", "kind", "id"),
    sqlite_strict=True,
)

# of streams: work in hand, so that rows may go or change

BARS = sa.Table(
    "bars",
    METADATA,
    sa.Column("id", WHOLE, primary_key=True, autoincrement=False),  # rising, as they were stored
    _text("source"),
    _text("asset"),
    _time("time"),
    sa.Column("revision", WHOLE, nullable=False),
    _text("message"),
    sa.Column("bar", JSON, nullable=False),
    _time("stored"),
    sa.UniqueConstraint("source", "asset", "time", "revision", name="bars_key"),
    sa.Index("bars_by_source", "source", "id"),
    sa.Index("bars_by_message", "source", "message"),
    sqlite_strict=True,
)

OUTBOX = sa.Table(
    "outbox",
    METADATA,
    sa.Column("signal", WHOLE, primary_key=True, autoincrement=False),
    _text("source"),
    sqlite_strict=True,
)

QUARANTINE = sa.Table(
    "quarantine",
    METADATA,
    sa.Column("id", WHOLE, primary_key=True, autoincrement=False),
    _text("source"),
    _text("message"),
    _text("kind"),
    _text("reason"),
    _text("content"),
    sa.Column("deliveries", WHOLE, nullable=False),
    _time("stored"),
    sa.Column("replayed", WHOLE),  # when it was taken up again
    sa.UniqueConstraint("source", "message", name="quarantine_key"),
    sqlite_strict=True,
)

STREAM_COUNTS = sa.Table(
    "stream_counts",
    METADATA,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", WHOLE, nullable=False),
    _time("at"),
    sqlite_strict=True,
)


def columns(table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """The columns of a table, JSON as the text that it is stored as."""
    return [c.cast(sa.Text).label(c.name) if c.type is JSON else c for c in table.c]

"""Signals, outcomes and events, which are only ever added to.

What stands here is history: it is not changed when `pipeline.store.tables` is.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None

TABLES = ("signals", "outcomes", "events")
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NUMBER: TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
JSON = postgresql.JSON().with_variant(sa.Text(), "sqlite")
NUMBERS = (
    *("p_sell", "p_hold", "p_buy", "confidence", "certainty", "epistemic", "aleatoric"),
    *("novelty", "disagreement", "low", "high", "level"),
)
LONG = ("prices", "sides", "why_not", "stages", "skill", "replay", "explanation")


def upgrade() -> None:
    """Make the tables, and triggers that refuse to change or remove a row."""
    op.create_table(
        "signals",
        sa.Column("id", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("time", WHOLE, nullable=False),
        sa.Column("session", sa.Text),
        sa.Column("side", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("strength", sa.Text),
        *(sa.Column(name, NUMBER) for name in NUMBERS),
        sa.Column("expires", WHOLE, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("revision", WHOLE, nullable=False),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("schema_version", sa.Text, nullable=False),
        sa.Column("stored", WHOLE, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        *(sa.Column(name, JSON) for name in LONG),
        sa.UniqueConstraint("asset", "time", "model", "config", "revision", name="signals_key"),
        sqlite_strict=True,
    )
    op.create_index("signals_by_time", "signals", ["time", "id"])
    op.create_index("signals_by_asset", "signals", ["asset", "time", "id"])
    op.create_index("signals_by_model", "signals", ["model", "time", "id"])
    op.create_index("signals_by_expiry", "signals", ["expires"])
    op.create_table(
        "outcomes",
        sa.Column(
            "signal", WHOLE, sa.ForeignKey("signals.id"), primary_key=True, autoincrement=False
        ),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("ret", NUMBER, nullable=False),
        sa.Column("excess", NUMBER),
        sa.Column("ended", WHOLE, nullable=False),
        sa.Column("stored", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "events",
        sa.Column("id", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("time", WHOLE, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("signal", WHOLE, sa.ForeignKey("signals.id")),
        sa.Column("details", JSON, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("events_by_signal", "events", ["signal", "kind"])
    op.create_index("events_by_kind", "events", ["kind", "id"])
    _only_added_to(op.get_bind().dialect.name)


def downgrade() -> None:
    """There is no version before the first."""
    raise NotImplementedError("0001 is the first version of the store")


def _only_added_to(dialect: str) -> None:
    said = "a row of the store is never changed or removed"
    if dialect == "sqlite":
        for table in TABLES:
            for act in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_refuse_{act.lower()} BEFORE {act} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{said}'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION sieve_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{said}'; END $$"
    )
    for table in TABLES:
        op.execute(
            f"CREATE TRIGGER {table}_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION sieve_refuse()"
        )

"""What a signal risks, which signals left and why not, and a log that outlives archived signals.

What stands here is history: it is not changed when `pipeline.store.tables` is.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NUMBER: TypeEngine[float] = sa.Double().with_variant(sa.REAL(), "sqlite")
JSON = postgresql.JSON().with_variant(sa.Text(), "sqlite")
SAID = "a row of the store is never changed or removed"


def upgrade() -> None:
    """Add columns and a table, and let the log name signals that are in the archive."""
    op.add_column("signals", sa.Column("risk", NUMBER))
    op.add_column("signals", sa.Column("quality", WHOLE))
    op.add_column("signals", sa.Column("size", NUMBER))
    op.add_column("signals", sa.Column("appraisal", JSON))
    op.create_table(
        "emissions",
        sa.Column(
            "signal", WHOLE, sa.ForeignKey("signals.id"), primary_key=True, autoincrement=False
        ),
        sa.Column("emitted", WHOLE, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("asset_class", sa.Text, nullable=False),
        sa.Column("cost", NUMBER),
        sa.Column("edge", NUMBER),
        sa.Column("event", WHOLE, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("emissions_by_event", "emissions", ["event", "signal"])
    if op.get_bind().dialect.name == "sqlite":
        _refuse("emissions")
        _rebuild_events()
    else:
        op.execute(
            "CREATE TRIGGER emissions_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON emissions "
            "FOR EACH STATEMENT EXECUTE FUNCTION sieve_refuse()"
        )
        op.drop_constraint("events_signal_fkey", "events", type_="foreignkey")


def downgrade() -> None:
    """What would be lost cannot be made again."""
    raise NotImplementedError("0002 holds appraisals that 0001 cannot; put back a backup")


def _rebuild_events() -> None:
    """SQLite drops no constraint: the log is copied into a table without one."""
    op.create_table(
        "events_without",
        sa.Column("id", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("time", WHOLE, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("signal", WHOLE),
        sa.Column("details", JSON, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    names = "id, time, kind, signal, details, digest"
    op.execute(f"INSERT INTO events_without ({names}) SELECT {names} FROM events ORDER BY id")
    op.drop_table("events")
    op.rename_table("events_without", "events")
    op.create_index("events_by_signal", "events", ["signal", "kind"])
    op.create_index("events_by_kind", "events", ["kind", "id"])
    _refuse("events")


def _refuse(table: str) -> None:
    for act in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_refuse_{act.lower()} BEFORE {act} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{SAID}'); END"
        )

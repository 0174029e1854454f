"""What a stream brought, what it set aside, what has still to be told, and its counts.

Signals stay what is never changed. These tables are those of work in hand: a line of the outbox
goes when it was told, counts grow, and what was set aside is marked when it is taken up again.
What stands here is history: it is not changed when `pipeline.store.tables` is.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = postgresql.JSON().with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Add the tables of streams."""
    op.create_table(
        "bars",
        sa.Column("id", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("asset", sa.Text, nullable=False),
        sa.Column("time", WHOLE, nullable=False),
        sa.Column("revision", WHOLE, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("bar", JSON, nullable=False),
        sa.Column("stored", WHOLE, nullable=False),
        sa.UniqueConstraint("source", "asset", "time", "revision", name="bars_key"),
        sqlite_strict=True,
    )
    op.create_index("bars_by_source", "bars", ["source", "id"])
    op.create_index("bars_by_message", "bars", ["source", "message"])
    op.create_table(
        "outbox",
        sa.Column("signal", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("source", sa.Text, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "quarantine",
        sa.Column("id", WHOLE, primary_key=True, autoincrement=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("deliveries", WHOLE, nullable=False),
        sa.Column("stored", WHOLE, nullable=False),
        sa.Column("replayed", WHOLE),
        sa.UniqueConstraint("source", "message", name="quarantine_key"),
        sqlite_strict=True,
    )
    op.create_table(
        "stream_counts",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", WHOLE, nullable=False),
        sa.Column("at", WHOLE, nullable=False),
        sqlite_strict=True,
    )


def downgrade() -> None:
    """What would be lost cannot be made again."""
    raise NotImplementedError("0003 holds bars that 0002 cannot; put back a backup")

"""Messages that carried readings of many meters, and how far the numbering of each sender has come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_mqtt"
down_revision: str | None = "0004_access"
branch_labels: str | None = None
depends_on: str | None = None

_INDEX = "ix_outcome_meter_key_started_at"


def upgrade() -> None:
    op.create_table(
        "message",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary()),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_message"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "mqtt_sequence",
        sa.Column("concentrator", sa.Text(), nullable=False),
        sa.Column("boot", sa.BigInteger(), nullable=False),
        sa.Column("upto", sa.BigInteger(), nullable=False),
        sa.Column("ahead", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("concentrator", "boot", name="pk_mqtt_sequence"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "meter_event",
        sa.Column("meter_key", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("at", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("outcome_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("meter_key", "at", "code", "phase", "digest", name="pk_meter_event"),
        sqlite_with_rowid=False,
    )
    op.add_column("unplaced", sa.Column("digest", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.add_column("unplaced", sa.Column("times", sa.Integer(), nullable=False, server_default=sa.text("1")))
    op.create_index("ix_unplaced_digest", "unplaced", ["digest"])
    op.add_column("outcome", sa.Column("message_key", sa.BigInteger()))
    # Outcomes of messages stay out of it: they come by the thousand, and each would change a page of its own.
    op.drop_index(_INDEX, "outcome")
    _index(where="message_key IS NULL")


def downgrade() -> None:
    op.drop_index(_INDEX, "outcome")
    op.drop_column("outcome", "message_key")
    _index(where=None)
    op.drop_index("ix_unplaced_digest", "unplaced")
    op.drop_column("unplaced", "times")
    op.drop_column("unplaced", "digest")
    op.drop_table("meter_event")
    op.drop_table("mqtt_sequence")
    op.drop_table("message")


def _index(where: str | None) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(_INDEX, "outcome", ["meter_key", "started_at"], sqlite_where=condition, postgresql_where=condition)

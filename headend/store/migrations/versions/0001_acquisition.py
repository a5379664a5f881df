"""Tables of acquisition: registry, outcomes with their evidence, curves, snapshots, ledger, revisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001_acquisition"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def _key() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _part(name: str, kind: type[sa.types.TypeEngine[int]]) -> sa.Column[int]:
    """A column of a key made of several."""
    return sa.Column(name, kind(), primary_key=True, autoincrement=False)


def _registry() -> None:
    op.create_table(
        "quantity",
        sa.Column("code", sa.Integer(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("code", name="pk_quantity"),
        sa.UniqueConstraint("name", name="uq_quantity_name"),
    )
    op.create_table(
        "meter",
        sa.Column("key", _key(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("clock_zone", sa.Text(), nullable=False),
        sa.Column("register_wrap", sa.BigInteger(), nullable=False),
        sa.Column("curve_step_s", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meter"),
        sa.UniqueConstraint("id", name="uq_meter_id"),
        sa.UniqueConstraint("line", "protocol", "address", name="uq_meter_line_protocol_address"),
    )
    op.create_table(
        "usage_point",
        sa.Column("key", _key(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("district", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_usage_point"),
        sa.UniqueConstraint("id", name="uq_usage_point_id"),
    )
    op.create_table(
        "installation",
        sa.Column("key", _key(), nullable=False),
        sa.Column("usage_point_key", sa.BigInteger(), nullable=False),
        sa.Column("meter_key", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger()),
        sa.Column("multiplier", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_installation"),
        sa.ForeignKeyConstraint(
            ["usage_point_key"], ["usage_point.key"], name="fk_installation_usage_point_key_usage_point"
        ),
        sa.ForeignKeyConstraint(["meter_key"], ["meter.key"], name="fk_installation_meter_key_meter"),
        sa.UniqueConstraint(
            "usage_point_key", "meter_key", "since", name="uq_installation_usage_point_key_meter_key_since"
        ),
    )
    op.create_index("ix_installation_meter_key", "installation", ["meter_key"])
    op.create_table(
        "account",
        sa.Column("key", _key(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("usage_point_key", sa.BigInteger(), nullable=False),
        sa.Column("customer", sa.Text(), nullable=False),
        sa.Column("tariff", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger()),
        sa.Column("step_used", sa.BigInteger()),
        sa.Column("step_used_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("key", name="pk_account"),
        sa.ForeignKeyConstraint(
            ["usage_point_key"], ["usage_point.key"], name="fk_account_usage_point_key_usage_point"
        ),
        sa.UniqueConstraint("id", name="uq_account_id"),
    )
    op.create_index("ix_account_usage_point_key", "account", ["usage_point_key"])


def _outcomes() -> None:
    op.create_table(
        "outcome",
        sa.Column("id", _key(), nullable=False),
        sa.Column("meter_key", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("duration_s", sa.Float(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("window_start", sa.BigInteger()),
        sa.Column("window_end", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_outcome"),
        sa.ForeignKeyConstraint(["meter_key"], ["meter.key"], name="fk_outcome_meter_key_meter"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_outcome_meter_key_started_at", "outcome", ["meter_key", "started_at"])
    op.create_table(
        "evidence",
        _part("outcome_id", sa.BigInteger),
        sa.Column("frames", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("outcome_id", name="pk_evidence"),
        sa.ForeignKeyConstraint(["outcome_id"], ["outcome.id"], name="fk_evidence_outcome_id_outcome"),
    )


def _values() -> None:
    op.create_table(
        "curve",
        _part("day", sa.Integer),
        _part("meter_key", sa.BigInteger),
        _part("quantity_code", sa.Integer),
        _part("step_s", sa.Integer),
        sa.Column("phase_s", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("units", sa.LargeBinary(), nullable=False),
        sa.Column("qualities", sa.LargeBinary(), nullable=False),
        sa.Column("states", sa.LargeBinary(), nullable=False),
        sa.Column("causes", sa.LargeBinary(), nullable=False),
        sa.Column("outcome_ids", sa.LargeBinary(), nullable=False),
        sa.Column("total", sa.BigInteger()),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("due", "got", "late", "estimated", "waived")),
        sa.PrimaryKeyConstraint("day", "meter_key", "quantity_code", "step_s", name="pk_curve"),
    )
    op.create_table(
        "snapshot",
        _part("at", sa.BigInteger),
        _part("meter_key", sa.BigInteger),
        _part("quantity_code", sa.Integer),
        _part("source", sa.Integer),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("quality", sa.Integer(), nullable=False),
        sa.Column("outcome_id", sa.BigInteger(), nullable=False),
        sa.Column("taken_at", sa.BigInteger(), nullable=False),
        sa.Column("occurred_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("at", "meter_key", "quantity_code", "source", name="pk_snapshot"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_snapshot_meter_key_quantity_code_at", "snapshot", ["meter_key", "quantity_code", "at"])
    op.create_table(
        "last_value",
        _part("meter_key", sa.BigInteger),
        _part("quantity_code", sa.Integer),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("taken_at", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("quality", sa.Integer(), nullable=False),
        sa.Column("outcome_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("meter_key", "quantity_code", name="pk_last_value"),
        sqlite_with_rowid=False,
    )


def _ledger() -> None:
    op.create_table(
        "slot",
        _part("at", sa.BigInteger),
        _part("meter_key", sa.BigInteger),
        _part("quantity_code", sa.Integer),
        _part("source", sa.Integer),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("cause", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("at", "meter_key", "quantity_code", "source", name="pk_slot"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_slot_meter_key_quantity_code_at", "slot", ["meter_key", "quantity_code", "at"])
    op.create_table(
        "revision",
        sa.Column("id", _key(), nullable=False),
        sa.Column("meter_key", sa.BigInteger(), nullable=False),
        sa.Column("quantity_code", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Integer(), nullable=False),
        sa.Column("step_s", sa.Integer(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("quality", sa.Integer(), nullable=False),
        sa.Column("outcome_id", sa.BigInteger(), nullable=False),
        sa.Column("replaced_by", sa.BigInteger(), nullable=False),
        sa.Column("replaced_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revision"),
    )
    op.create_index("ix_revision_meter_key_quantity_code_at", "revision", ["meter_key", "quantity_code", "at"])


def upgrade() -> None:
    """Make the tables."""
    _registry()
    _outcomes()
    _values()
    _ledger()


def downgrade() -> None:
    """Drop the tables and everything in them."""
    for table in ("revision", "slot", "last_value", "snapshot", "curve", "evidence", "outcome"):
        op.drop_table(table)
    for table in ("account", "installation", "usage_point", "meter", "quantity"):
        op.drop_table(table)

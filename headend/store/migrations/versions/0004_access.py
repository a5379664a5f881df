"""Secrets and counters of meters, their own options, commands, and what arrived from nobody known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_access"
down_revision: str | None = "0003_meter_serial"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("meter", sa.Column("options", sa.Text(), nullable=False, server_default=sa.text("''")))
    _access_tables()
    _command_table()
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def downgrade() -> None:
    for table in ("command", "unplaced", "counter", "secret"):
        op.drop_table(table)
    op.drop_column("meter", "options")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION keep_command()")


def _key() -> sa.Column[int]:
    return sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False)


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _access_tables() -> None:
    op.create_table(
        "secret",
        _key(),
        _big("meter_key"),
        *_text("name"),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        *_text("state"),
        _big("created_at"),
        _big("changed_at"),
        sa.PrimaryKeyConstraint("key", name="pk_secret"),
        sa.ForeignKeyConstraint(["meter_key"], ["meter.key"], name="fk_secret_meter_key_meter"),
        sa.UniqueConstraint("meter_key", "name", "generation", name="uq_secret_meter_key_name_generation"),
    )
    op.create_table(
        "counter",
        sa.Column("meter_key", sa.BigInteger(), nullable=False, autoincrement=False),
        *_text("name"),
        _big("value"),
        sa.PrimaryKeyConstraint("meter_key", "name", name="pk_counter"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "unplaced",
        _key(),
        _big("received_at"),
        *_text("channel", "peer", "reason"),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        _big("replayed_at", nullable=True),
        sa.PrimaryKeyConstraint("key", name="pk_unplaced"),
        sqlite_autoincrement=True,
    )


def _command_table() -> None:
    op.create_table(
        "command",
        _key(),
        _big("meter_key"),
        *_text("action", "asked_by", "reason"),
        _big("asked_at"),
        *_text("status", "detail"),
        _big("ended_at", nullable=True),
        *_text("result"),
        sa.Column("frames", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("key", name="pk_command"),
        sa.ForeignKeyConstraint(["meter_key"], ["meter.key"], name="fk_command_meter_key_meter"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_command_meter_key_asked_at", "command", ["meter_key", "asked_at"])
    op.create_index("ix_command_asked_at", "command", ["asked_at"])


# A command is completed once: what was asked never changes, what has ended never changes, nothing is deleted.
_MESSAGE = "a command is completed once and then never changed or deleted"
_ASKED = ("key", "meter_key", "action", "asked_by", "reason", "asked_at")


def _guard_sqlite() -> None:
    refuse = f"BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END"
    changed = " OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in _ASKED)
    kept = f"OLD.ended_at IS NOT NULL OR NEW.ended_at IS NULL OR {changed}"
    op.execute(f"CREATE TRIGGER keep_command_update BEFORE UPDATE ON command WHEN {kept} {refuse}")
    op.execute(f"CREATE TRIGGER keep_command_delete BEFORE DELETE ON command {refuse}")


def _guard_postgresql() -> None:
    refuse = f"RAISE EXCEPTION '{_MESSAGE}' USING ERRCODE = 'integrity_constraint_violation'"
    op.execute(f"CREATE FUNCTION keep_command() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {refuse}; END $$")
    changed = " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in _ASKED)
    kept = f"WHEN (OLD.ended_at IS NOT NULL OR NEW.ended_at IS NULL OR {changed})"
    run = "EXECUTE FUNCTION keep_command()"
    op.execute(f"CREATE TRIGGER keep_command_update BEFORE UPDATE ON command FOR EACH ROW {kept} {run}")
    op.execute(f"CREATE TRIGGER keep_command_delete BEFORE DELETE ON command FOR EACH ROW {run}")
    op.execute(f"CREATE TRIGGER keep_command_truncate BEFORE TRUNCATE ON command FOR EACH STATEMENT {run}")

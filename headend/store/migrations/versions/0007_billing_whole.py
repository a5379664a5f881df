"""Terms of accounts, losses and sub-meters; corrections, findings, releases, adjustments and runs of billing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007_billing_whole"
down_revision: str | None = "0006_ledger"
branch_labels: str | None = None
depends_on: str | None = None

_CONTENT = ("bill_derived", "bill_finding", "bill_adjusted")
_KEPT = (*_CONTENT, "bill_release", "bill_adjustment")
_NEW = ("account_term", "supply", "submeter", "bill_derived", "bill_finding", "bill_release", "bill_adjusted")
_NEW_LAST = ("bill_adjustment", "billing_run")


def upgrade() -> None:
    empty, no = sa.text("''"), sa.false()
    op.add_column("account", sa.Column("cycle", sa.Text(), nullable=False, server_default=empty))
    op.add_column("bill", sa.Column("replaces", sa.Text(), nullable=False, server_default=empty))
    op.add_column("bill", sa.Column("segments", sa.Text(), nullable=False, server_default=empty))
    op.add_column("bill_hold", sa.Column("review", sa.Boolean(), nullable=False, server_default=no))
    _registry_tables()
    _bill_tables()
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def downgrade() -> None:
    for table in (*_NEW, *_NEW_LAST):
        op.drop_table(table)
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION billing_keep_run()")
    op.drop_column("bill_hold", "review")
    op.drop_column("bill", "segments")
    op.drop_column("bill", "replaces")
    op.drop_column("account", "cycle")


def _key() -> sa.Column[int]:
    return sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False)


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _int(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _primary(table: str, *names: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*names, name=op.f(f"pk_{table}"))


def _unique(table: str, *names: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*names, name=op.f(f"uq_{table}_{'_'.join(names)}"))


def _refers(table: str, column: str, other: str, key: str = "key") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.{key}"], name=op.f(f"fk_{table}_{column}_{other}"))


def _registry_tables() -> None:
    op.create_table(
        "account_term",
        _key(),
        _big("account_key"),
        _big("since"),
        _text("tariff", nullable=True),
        _big("contract_kw", nullable=True),
        _big("capacity_kva", nullable=True),
        _int("people", nullable=True),
        _primary("account_term", "key"),
        _refers("account_term", "account_key", "account"),
        _unique("account_term", "account_key", "since"),
    )
    numbers = ("rated_kva", "no_load_kw", "load_kw", "no_load_percent", "impedance_percent", "load_factor", "share")
    op.create_table(
        "supply",
        _key(),
        _big("usage_point_key"),
        _big("since"),
        _big("until", nullable=True),
        *[_big(name) for name in (*numbers, "line_percent")],
        _primary("supply", "key"),
        _refers("supply", "usage_point_key", "usage_point"),
        _unique("supply", "usage_point_key", "since"),
    )
    op.create_table(
        "submeter",
        _key(),
        _big("usage_point_key"),
        _big("parent_key"),
        _big("since"),
        _big("until", nullable=True),
        _text("method"),
        _big("amount"),
        _primary("submeter", "key"),
        _refers("submeter", "usage_point_key", "usage_point"),
        _refers("submeter", "parent_key", "usage_point"),
        _unique("submeter", "usage_point_key", "since"),
    )
    op.create_index(op.f("ix_submeter_parent_key"), "submeter", ["parent_key"])


def _bill_tables() -> None:
    op.create_table(
        "bill_derived",
        _big("bill_key"),
        _text("determinant"),
        _int("part"),
        _text("name"),
        _text("value"),
        _primary("bill_derived", "bill_key", "determinant", "part"),
        _refers("bill_derived", "bill_key", "bill"),
    )
    op.create_table(
        "bill_finding",
        _big("bill_key"),
        _int("position"),
        *[_text(name) for name in ("code", "what", "remedy", "meter")],
        _big("span_start", nullable=True),
        _big("span_end", nullable=True),
        _int("count"),
        _primary("bill_finding", "bill_key", "position"),
        _refers("bill_finding", "bill_key", "bill"),
    )
    op.create_table(
        "bill_release",
        _key(),
        *[_text(name) for name in ("number", "codes", "reason", "released_by")],
        _big("at"),
        _primary("bill_release", "key"),
    )
    op.create_index(op.f("ix_bill_release_number"), "bill_release", ["number"])
    op.create_table(
        "bill_adjustment",
        _text("number"),
        _big("sequence"),
        *[_text(name) for name in ("account", "corrects", "text", "quantity", "unit", "price")],
        _big("amount_minor"),
        *[_text(name) for name in ("currency", "basis", "reason", "made_by")],
        _big("made_at"),
        _primary("bill_adjustment", "number"),
        _unique("bill_adjustment", "sequence"),
    )
    op.create_index(op.f("ix_bill_adjustment_account"), "bill_adjustment", ["account"])
    op.create_table(
        "bill_adjusted",
        _big("bill_key"),
        _text("adjustment"),
        _primary("bill_adjusted", "bill_key", "adjustment"),
        _refers("bill_adjusted", "bill_key", "bill"),
        _refers("bill_adjusted", "adjustment", "bill_adjustment", "number"),
    )
    op.create_table(
        "billing_run",
        _key(),
        _text("cycle"),
        _int("year"),
        _int("month"),
        _text("asked_by"),
        _big("started_at"),
        _big("ended_at", nullable=True),
        *[_int(name) for name in ("issued", "held", "already")],
        _text("detail"),
        _primary("billing_run", "key"),
    )
    op.create_index(op.f("ix_billing_run_year_month"), "billing_run", ["year", "month"])


# The guards, as in 0002: an issued bill takes no further parts, and what is written is never changed or deleted. A run
# is completed once.

_KEEP_CONTENT = "an issued bill takes no further parts"
_KEEP_ROW = "rows of this table are never changed or deleted"


def _guard_sqlite() -> None:
    def guard(table: str, event: str, message: str, when: str = "") -> None:
        name = f"keep_{table}_{event.lower()}"
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {event} ON {table} {when} BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )

    for table in _CONTENT:
        guard(table, "INSERT", _KEEP_CONTENT, "WHEN (SELECT state FROM bill WHERE key = NEW.bill_key) = 'issued'")
    for table in _KEPT:
        guard(table, "UPDATE", _KEEP_ROW)
        guard(table, "DELETE", _KEEP_ROW)
    guard("billing_run", "UPDATE", _KEEP_ROW, "WHEN OLD.ended_at IS NOT NULL")
    guard("billing_run", "DELETE", _KEEP_ROW)


def _guard_postgresql() -> None:
    refuse = f"RAISE EXCEPTION '{_KEEP_ROW}' USING ERRCODE = 'integrity_constraint_violation'"
    op.execute(
        "CREATE FUNCTION billing_keep_run() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF TG_OP <> 'UPDATE' OR OLD.ended_at IS NOT NULL THEN {refuse}; END IF; RETURN NEW; END $$"
    )
    keep_row = "EXECUTE FUNCTION billing_keep_row()"
    for table in _CONTENT:
        run = "FOR EACH ROW EXECUTE FUNCTION billing_keep_content()"
        op.execute(f"CREATE TRIGGER keep_{table}_insert BEFORE INSERT ON {table} {run}")
    for table in _KEPT:
        op.execute(f"CREATE TRIGGER keep_{table}_update BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW {keep_row}")
        op.execute(f"CREATE TRIGGER keep_{table}_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {keep_row}")
    keep_run = "FOR EACH ROW EXECUTE FUNCTION billing_keep_run()"
    op.execute(f"CREATE TRIGGER keep_billing_run BEFORE UPDATE OR DELETE ON billing_run {keep_run}")

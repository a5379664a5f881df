"""Billing: tariffs, bills, what they were computed from, and triggers that keep issued bills as they are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_billing"
down_revision: str | None = "0001_acquisition"
branch_labels: str | None = None
depends_on: str | None = None

_CONTENT = ("bill_line", "bill_determinant", "bill_register", "bill_interval", "bill_used", "bill_hold")
_KEPT = ("tariff_version", "tariff_spans")


def upgrade() -> None:
    _tariff_tables()
    _bill_tables()
    _part_tables()
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def downgrade() -> None:
    for table in (*reversed(_CONTENT), "bill", *reversed(_KEPT)):
        op.drop_table(table)
    if op.get_bind().dialect.name != "sqlite":
        for name in ("billing_keep_bill", "billing_keep_content", "billing_keep_row"):
            op.execute(f"DROP FUNCTION {name}()")


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _int(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False)


def _key(table: str, *names: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*names, name=op.f(f"pk_{table}"))


def _of_bill(table: str) -> list[sa.schema.SchemaItem]:
    name = op.f(f"fk_{table}_bill_key_bill")
    return [_big("bill_key"), sa.ForeignKeyConstraint(["bill_key"], ["bill.key"], name=name)]


def _tariff_tables() -> None:
    op.create_table(
        "tariff_version",
        *[_text(name) for name in ("sha", "id", "version", "title", "source")],
        sa.Column("verified", sa.Boolean(), nullable=False),
        *[_text(name) for name in ("zone", "currency", "text")],
        _big("stored_at"),
        _key("tariff_version", "sha"),
    )
    op.create_table(
        "tariff_spans",
        _text("tariff_sha"),
        _big("period_start"),
        _big("period_end"),
        _text("spans"),
        sa.ForeignKeyConstraint(
            ["tariff_sha"], ["tariff_version.sha"], name=op.f("fk_tariff_spans_tariff_sha_tariff_version")
        ),
        _key("tariff_spans", "tariff_sha", "period_start", "period_end"),
    )


def _bill_tables() -> None:
    op.create_table(
        "bill",
        sa.Column("key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        *[_text(name) for name in ("number", "account", "usage_point")],
        _big("period_start"),
        _big("period_end"),
        _int("sequence"),
        *[_text(name) for name in ("state", "tariff", "tariff_version")],
        _text("tariff_sha", nullable=True),
        *[_text(name) for name in ("zone", "currency")],
        _big("total_minor", nullable=True),
        _big("issued_at", nullable=True),
        _big("as_of"),
        sa.ForeignKeyConstraint(["tariff_sha"], ["tariff_version.sha"], name=op.f("fk_bill_tariff_sha_tariff_version")),
        _key("bill", "key"),
        sa.UniqueConstraint("number", name=op.f("uq_bill_number")),
        sa.UniqueConstraint(
            "account",
            "period_start",
            "period_end",
            "sequence",
            name=op.f("uq_bill_account_period_start_period_end_sequence"),
        ),
    )
    op.create_index(op.f("ix_bill_period_start"), "bill", ["period_start"])
    op.create_table(
        "bill_line",
        *_of_bill("bill_line"),
        _int("line"),
        *[_text(name) for name in ("code", "text", "quantity", "unit", "price")],
        _big("amount_minor"),
        _text("determinant"),
        _key("bill_line", "bill_key", "line"),
    )
    op.create_table(
        "bill_hold",
        *_of_bill("bill_hold"),
        _int("evaluation"),
        _int("position"),
        _big("evaluated_at"),
        *[_text(name) for name in ("code", "what", "remedy", "meter")],
        _big("span_start", nullable=True),
        _big("span_end", nullable=True),
        _int("count"),
        _key("bill_hold", "bill_key", "evaluation", "position"),
    )


def _part_tables() -> None:
    op.create_table(
        "bill_determinant",
        *_of_bill("bill_determinant"),
        _text("name"),
        _int("position"),
        _text("value"),
        _text("unit"),
        _text("used_before", nullable=True),
        _text("counts"),
        _key("bill_determinant", "bill_key", "name"),
    )
    op.create_table(
        "bill_register",
        *_of_bill("bill_register"),
        *_part_columns(),
        *[
            _big(f"{end}_{name}")
            for end in ("start", "end")
            for name in ("at", "units", "quality", "source", "outcome_id")
        ],
        _key("bill_register", "bill_key", "determinant", "part"),
    )
    op.create_table(
        "bill_interval",
        *_of_bill("bill_interval"),
        *_part_columns(),
        _big("window_start"),
        _big("window_end"),
        _int("step_s"),
        _int("count"),
        _big("sum_units"),
        _big("as_of"),
        _key("bill_interval", "bill_key", "determinant", "part"),
    )
    op.create_table(
        "bill_used",
        *_of_bill("bill_used"),
        _text("determinant"),
        _int("part"),
        _text("number"),
        _text("energy"),
        _big("at"),
        _key("bill_used", "bill_key", "determinant", "part"),
    )


def _part_columns() -> list[sa.schema.SchemaItem]:
    texts = [_text(name) for name in ("meter", "quantity", "multiplier")]
    return [_text("determinant"), _int("part"), _big("meter_key"), *texts, _big("wrap_units")]


# The guards. An issued bill can't be changed, added to or deleted; its parts and the tariffs can't be changed or
# deleted at all. Both databases report a refusal as a violated constraint.

_KEEP_BILL = "an issued bill never changes: correct it with a new bill"
_KEEP_CONTENT = "an issued bill takes no further parts"
_KEEP_ROW = "rows of this table are never changed or deleted"


def _guard_sqlite() -> None:
    def guard(table: str, event: str, message: str, when: str = "") -> None:
        name = f"keep_{table}_{event.lower()}"
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {event} ON {table} {when} BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )

    guard("bill", "UPDATE", _KEEP_BILL, "WHEN OLD.state = 'issued'")
    guard("bill", "DELETE", _KEEP_BILL)
    issued = "WHEN (SELECT state FROM bill WHERE key = NEW.bill_key) = 'issued'"
    for table in _CONTENT:
        guard(table, "INSERT", _KEEP_CONTENT, issued)
    for table in (*_CONTENT, *_KEPT):
        guard(table, "UPDATE", _KEEP_ROW)
        guard(table, "DELETE", _KEEP_ROW)


def _guard_postgresql() -> None:
    def function(name: str, message: str, condition: str = "TRUE") -> None:
        refuse = f"RAISE EXCEPTION '{message}' USING ERRCODE = 'integrity_constraint_violation'"
        body = f"BEGIN IF {condition} THEN {refuse}; END IF; RETURN NEW; END"
        op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")

    def guard(table: str, events: str, name: str, each: str = "ROW", when: str = "") -> None:
        trigger = f"keep_{table}_{events.split()[0].lower()}"
        op.execute(
            f"CREATE TRIGGER {trigger} BEFORE {events} ON {table} FOR EACH {each} {when} EXECUTE FUNCTION {name}()"
        )

    function("billing_keep_bill", _KEEP_BILL)
    function("billing_keep_content", _KEEP_CONTENT, "(SELECT state FROM bill WHERE key = NEW.bill_key) = 'issued'")
    function("billing_keep_row", _KEEP_ROW)
    guard("bill", "UPDATE", "billing_keep_bill", when="WHEN (OLD.state = 'issued')")
    guard("bill", "DELETE", "billing_keep_bill")
    guard("bill", "TRUNCATE", "billing_keep_bill", "STATEMENT")
    for table in _CONTENT:
        guard(table, "INSERT", "billing_keep_content")
    for table in (*_CONTENT, *_KEPT):
        guard(table, "UPDATE OR DELETE", "billing_keep_row")
        guard(table, "TRUNCATE", "billing_keep_row", "STATEMENT")

"""The ledger: documents and their postings, which sum to zero, are numbered without gaps and never change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006_ledger"
down_revision: str | None = "0005_mqtt"
branch_labels: str | None = None
depends_on: str | None = None

_TABLES = ("ledger_entry", "ledger_posting")


def upgrade() -> None:
    _entry_table()
    _posting_table()
    if op.get_bind().dialect.name == "sqlite":
        _guard_sqlite()
    else:
        _guard_postgresql()


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
    if op.get_bind().dialect.name != "sqlite":
        for name in ("ledger_keep_row", "ledger_check_entry", "ledger_check_posting", "ledger_check_balance"):
            op.execute(f"DROP FUNCTION {name}()")


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _entry_table() -> None:
    unique = (("kind", "sequence"), ("account", "kind", "reference"), ("kind", "bill_key"), ("reverses",))
    checks = {
        "kind": "kind IN ('bill', 'payment', 'reversal')",
        "bill": "(kind = 'bill') = (bill_key IS NOT NULL)",
        "reverses": "(kind = 'reversal') = (reverses IS NOT NULL)",
    }
    op.create_table(
        "ledger_entry",
        _text("number"),
        _text("kind"),
        _big("sequence"),
        *[_text(name) for name in ("account", "currency", "reference", "text")],
        _big("bill_key", nullable=True),
        _text("reverses", nullable=True),
        _big("at"),
        _big("posted_at"),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_ledger_entry")),
        sa.ForeignKeyConstraint(["bill_key"], ["bill.key"], name=op.f("fk_ledger_entry_bill_key_bill")),
        sa.ForeignKeyConstraint(
            ["reverses"], ["ledger_entry.number"], name=op.f("fk_ledger_entry_reverses_ledger_entry")
        ),
        *[sa.UniqueConstraint(*names, name=op.f(f"uq_ledger_entry_{'_'.join(names)}")) for names in unique],
        *[sa.CheckConstraint(rule, name=op.f(f"ck_ledger_entry_{name}")) for name, rule in checks.items()],
    )


def _posting_table() -> None:
    op.create_table(
        "ledger_posting",
        _text("entry"),
        sa.Column("line", sa.Integer(), nullable=False),
        _text("book"),
        _text("part"),
        _big("amount_minor"),
        sa.PrimaryKeyConstraint("entry", "line", name=op.f("pk_ledger_posting")),
        # Postings come first: the entry is looked for when the transaction ends.
        sa.ForeignKeyConstraint(
            ["entry"],
            ["ledger_entry.number"],
            name=op.f("fk_ledger_posting_entry_ledger_entry"),
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.CheckConstraint("book IN ('receivable', 'revenue', 'tax', 'cash')", name=op.f("ck_ledger_posting_book")),
    )
    op.create_index(op.f("ix_ledger_posting_book_part"), "ledger_posting", ["book", "part"])


# The guards. Both databases report a refusal as a violated constraint.

_KEEP = "the ledger only grows: correct an entry with another one"
_SUM = "the postings of a ledger entry sum to zero"
_NEXT = "a ledger entry takes the next number of its kind"
_WHOLE = "a ledger entry takes no further postings"

# COALESCE(..., 1): an entry without postings is none.
_UNBALANCED = "COALESCE((SELECT SUM(amount_minor) FROM ledger_posting WHERE entry = NEW.{key}), 1) <> 0"
_OUT_OF_TURN = "NEW.sequence <> 1 + COALESCE((SELECT MAX(sequence) FROM ledger_entry WHERE kind = NEW.kind), 0)"
_ENTERED = "EXISTS (SELECT 1 FROM ledger_entry WHERE number = NEW.entry)"


def _guard_sqlite() -> None:
    def guard(table: str, event: str, name: str, message: str, when: str = "") -> None:
        condition = f"WHEN {when}" if when else ""
        refuse = f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        op.execute(f"CREATE TRIGGER {name}_{table} BEFORE {event} ON {table} {condition} {refuse}")

    for table in _TABLES:
        guard(table, "UPDATE", "keep_update", _KEEP)
        guard(table, "DELETE", "keep_delete", _KEEP)
    guard("ledger_entry", "INSERT", "sum", _SUM, _UNBALANCED.format(key="number"))
    guard("ledger_entry", "INSERT", "next", _NEXT, _OUT_OF_TURN)
    guard("ledger_posting", "INSERT", "whole", _WHOLE, _ENTERED)


def _guard_postgresql() -> None:
    def function(name: str, *refusals: tuple[str, str]) -> None:
        body = " ".join(
            f"IF {condition} THEN RAISE EXCEPTION '{message}' USING ERRCODE = 'integrity_constraint_violation'; END IF;"
            for condition, message in refusals
        )
        op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$")

    function("ledger_keep_row", ("TRUE", _KEEP))
    function("ledger_check_entry", (_UNBALANCED.format(key="number"), _SUM), (_OUT_OF_TURN, _NEXT))
    function("ledger_check_posting", (_ENTERED, _WHOLE))
    function("ledger_check_balance", (_UNBALANCED.format(key="entry"), _SUM))
    for table in _TABLES:
        keep = "EXECUTE FUNCTION ledger_keep_row()"
        op.execute(f"CREATE TRIGGER keep_{table} BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW {keep}")
        op.execute(f"CREATE TRIGGER keep_{table}_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT {keep}")
    for table, name in (("ledger_entry", "entry"), ("ledger_posting", "posting")):
        run = f"FOR EACH ROW EXECUTE FUNCTION ledger_check_{name}()"
        op.execute(f"CREATE TRIGGER check_{name} BEFORE INSERT ON {table} {run}")
    # Another transaction's entry is not seen before it ends, so what was added to it meanwhile is looked at then.
    op.execute(
        "CREATE CONSTRAINT TRIGGER check_balance AFTER INSERT ON ledger_posting DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION ledger_check_balance()"
    )

"""The tables of billing, in the store's `METADATA`. Migrations 0002, 0006 and 0007 make them, and triggers guard them.

Instants are int64 epoch seconds, money int64 minor units of the currency. Energy and prices are decimal text, because
a multiplier or an eight-place price makes them finer than the store's ten-thousandths.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from headend.store.schema import METADATA, auto_key

__all__ = [
    "bill",
    "bill_adjusted",
    "bill_adjustment",
    "bill_derived",
    "bill_determinant",
    "bill_finding",
    "bill_hold",
    "bill_interval",
    "bill_line",
    "bill_register",
    "bill_release",
    "bill_used",
    "billing_run",
    "ledger_entry",
    "ledger_posting",
    "tariff_spans",
    "tariff_version",
]


def _bill_key() -> Column[int]:
    return Column("bill_key", BigInteger, ForeignKey("bill.key"), primary_key=True, autoincrement=False)


# Append-only: the text of every tariff that a bill was made from.
tariff_version = Table(
    "tariff_version",
    METADATA,
    Column("sha", Text, primary_key=True),
    Column("id", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("zone", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("stored_at", BigInteger, nullable=False),
)

# Append-only: how a billing period was split into TOU periods; spans is "START END PERIOD" a line, epoch seconds.
tariff_spans = Table(
    "tariff_spans",
    METADATA,
    Column("tariff_sha", Text, ForeignKey("tariff_version.sha"), primary_key=True),
    Column("period_start", BigInteger, primary_key=True, autoincrement=False),
    Column("period_end", BigInteger, primary_key=True, autoincrement=False),
    Column("spans", Text, nullable=False),
)

# state: held (may become issued), draft (only within the transaction that issues it), issued (never changes again).
bill = Table(
    "bill",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("number", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("usage_point", Text, nullable=False),
    Column("period_start", BigInteger, nullable=False),
    Column("period_end", BigInteger, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("tariff", Text, nullable=False),
    Column("tariff_version", Text, nullable=False),
    Column("tariff_sha", Text, ForeignKey("tariff_version.sha")),
    Column("zone", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("total_minor", BigInteger),
    Column("issued_at", BigInteger),
    Column("as_of", BigInteger, nullable=False),
    # The number of the bill this one corrects, "" for the first of a period.
    Column("replaces", Text, nullable=False, server_default=text("''")),
    # "START SHA" a line: the parts of a period in which tariff or contract changed; "" where there is one.
    Column("segments", Text, nullable=False, server_default=text("''")),
    UniqueConstraint("number"),
    UniqueConstraint("account", "period_start", "period_end", "sequence"),
    Index(None, "period_start"),
)

bill_line = Table(
    "bill_line",
    METADATA,
    _bill_key(),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("code", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("quantity", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("price", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("determinant", Text, nullable=False),
)

# counts: "QUALITY COUNT" a line, by the number of `headend.model.Quality`.
bill_determinant = Table(
    "bill_determinant",
    METADATA,
    _bill_key(),
    Column("name", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("value", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("used_before", Text),
    Column("counts", Text, nullable=False),
)


def _part_columns() -> list[Column[int] | Column[str]]:
    return [
        Column("determinant", Text, primary_key=True),
        Column("part", Integer, primary_key=True, autoincrement=False),
        Column("meter_key", BigInteger, nullable=False),
        Column("meter", Text, nullable=False),
        Column("quantity", Text, nullable=False),
        Column("multiplier", Text, nullable=False),
        Column("wrap_units", BigInteger, nullable=False),
    ]


bill_register = Table(
    "bill_register",
    METADATA,
    _bill_key(),
    *_part_columns(),
    *[
        Column(f"{end}_{name}", BigInteger, nullable=False)
        for end in ("start", "end")
        for name in ("at", "units", "quality", "source", "outcome_id")
    ],
)

bill_interval = Table(
    "bill_interval",
    METADATA,
    _bill_key(),
    *_part_columns(),
    Column("window_start", BigInteger, nullable=False),
    Column("window_end", BigInteger, nullable=False),
    Column("step_s", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("sum_units", BigInteger, nullable=False),
    Column("as_of", BigInteger, nullable=False),
)

# What makes up a determinant's used_before; number "" is what was declared on the account.
bill_used = Table(
    "bill_used",
    METADATA,
    _bill_key(),
    Column("determinant", Text, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("number", Text, nullable=False),
    Column("energy", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)

# Append-only: the reasons of each evaluation that held a bill and differed from the one before.
bill_hold = Table(
    "bill_hold",
    METADATA,
    _bill_key(),
    Column("evaluation", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("evaluated_at", BigInteger, nullable=False),
    Column("code", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("span_start", BigInteger),
    Column("span_end", BigInteger),
    Column("count", Integer, nullable=False),
    Column("review", Boolean, nullable=False, server_default=false()),
)

# What a determinant was made of besides what meters gave: other determinants, the registry, an adjustment.
bill_derived = Table(
    "bill_derived",
    METADATA,
    _bill_key(),
    Column("determinant", Text, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False),
    Column("value", Text, nullable=False),
)

# What was odd about a bill when it was issued all the same.
bill_finding = Table(
    "bill_finding",
    METADATA,
    _bill_key(),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("code", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    Column("meter", Text, nullable=False),
    Column("span_start", BigInteger),
    Column("span_end", BigInteger),
    Column("count", Integer, nullable=False),
)

# Append-only: a person let a held bill pass, for the findings named in `codes` ("CODE" a line) and no others.
bill_release = Table(
    "bill_release",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("number", Text, nullable=False),
    Column("codes", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("released_by", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index(None, "number"),
)

# Append-only: an amount to be put on an account's next bill for one that was issued. basis: the calculation, as JSON.
bill_adjustment = Table(
    "bill_adjustment",
    METADATA,
    Column("number", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("account", Text, nullable=False),
    Column("corrects", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("quantity", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("price", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("basis", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", BigInteger, nullable=False),
    UniqueConstraint("sequence"),
    Index(None, "account"),
)

# Append-only: which bill took an adjustment on. While that bill stands the adjustment is done; one that was reversed
# sets it free again.
bill_adjusted = Table(
    "bill_adjusted",
    METADATA,
    _bill_key(),
    Column("adjustment", Text, ForeignKey("bill_adjustment.number"), primary_key=True),
)

# One row a run of a cycle over a month: opened when it starts, completed once. asked_by: a person, or `schedule`.
billing_run = Table(
    "billing_run",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("cycle", Text, nullable=False),
    Column("year", Integer, nullable=False),
    Column("month", Integer, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("issued", Integer, nullable=False),
    Column("held", Integer, nullable=False),
    Column("already", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    Index(None, "year", "month"),
)

# Append-only: one document of the ledger. Migration 0006 has the triggers: an entry comes after its postings, which sum
# to zero then, and takes the next number of its kind.
ledger_entry = Table(
    "ledger_entry",
    METADATA,
    Column("number", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("account", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("bill_key", BigInteger, ForeignKey("bill.key")),
    Column("reverses", Text, ForeignKey("ledger_entry.number")),
    Column("at", BigInteger, nullable=False),
    Column("posted_at", BigInteger, nullable=False),
    UniqueConstraint("kind", "sequence"),
    UniqueConstraint("account", "kind", "reference"),
    UniqueConstraint("kind", "bill_key"),
    UniqueConstraint("reverses"),
    CheckConstraint("kind IN ('bill', 'payment', 'reversal')", name="kind"),
    CheckConstraint("(kind = 'bill') = (bill_key IS NOT NULL)", name="bill"),
    CheckConstraint("(kind = 'reversal') = (reverses IS NOT NULL)", name="reverses"),
)

# Append-only: debits above zero, credits below. part: the account of a receivable, the kind of charge of a revenue.
ledger_posting = Table(
    "ledger_posting",
    METADATA,
    Column(
        "entry",
        Text,
        ForeignKey("ledger_entry.number", deferrable=True, initially="DEFERRED"),
        primary_key=True,
    ),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("book", Text, nullable=False),
    Column("part", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    CheckConstraint("book IN ('receivable', 'revenue', 'tax', 'cash')", name="book"),
    Index(None, "book", "part"),
)

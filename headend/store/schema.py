"""The tables of acquisition, the same on SQLite and PostgreSQL.

Times are int64 epoch seconds UTC, numbers int64 ten-thousandths of the quantity's unit, so no value passes a float or
a driver's idea of a decimal. `METADATA` is shared: other rooms add their own tables to it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine

__all__ = [
    "METADATA",
    "account",
    "auto_key",
    "command",
    "counter",
    "curve",
    "evidence",
    "installation",
    "last_value",
    "message",
    "meter",
    "meter_event",
    "mqtt_sequence",
    "outcome",
    "quantity_code",
    "revision",
    "secret",
    "slot",
    "snapshot",
    "unplaced",
    "usage_point",
]

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def auto_key() -> TypeEngine[int]:
    """The type of a generated key: SQLite only numbers rows by itself in a column declared INTEGER."""
    return BigInteger().with_variant(Integer(), "sqlite")


quantity_code = Table(
    "quantity",
    METADATA,
    Column("code", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    UniqueConstraint("name"),
)

meter = Table(
    "meter",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("id", Text, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("line", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("clock_zone", Text, nullable=False),
    Column("register_wrap", BigInteger, nullable=False),
    Column("curve_step_s", Integer, nullable=False),
    Column("serial", Text, nullable=False, server_default=text("''")),
    Column("options", Text, nullable=False, server_default=text("''")),
    UniqueConstraint("id"),
    UniqueConstraint("line", "protocol", "address"),
)

usage_point = Table(
    "usage_point",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("id", Text, nullable=False),
    Column("district", Text, nullable=False),
    UniqueConstraint("id"),
)

installation = Table(
    "installation",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("usage_point_key", BigInteger, ForeignKey("usage_point.key"), nullable=False),
    Column("meter_key", BigInteger, ForeignKey("meter.key"), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger),
    Column("multiplier", BigInteger, nullable=False),
    UniqueConstraint("usage_point_key", "meter_key", "since"),
    Index(None, "meter_key"),
)

account = Table(
    "account",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("id", Text, nullable=False),
    Column("usage_point_key", BigInteger, ForeignKey("usage_point.key"), nullable=False),
    Column("customer", Text, nullable=False),
    Column("tariff", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger),
    Column("step_used", BigInteger),
    Column("step_used_at", BigInteger),
    # Group of accounts that are billed together; "" the site's default.
    Column("cycle", Text, nullable=False, server_default=text("''")),
    UniqueConstraint("id"),
    Index(None, "usage_point_key"),
)

# What holds for an account from `since` on, until its next row: a NULL column leaves what held before. tariff NULL at
# first: the account's own.
account_term = Table(
    "account_term",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("account_key", BigInteger, ForeignKey("account.key"), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("tariff", Text),
    Column("contract_kw", BigInteger),
    Column("capacity_kva", BigInteger),
    Column("people", Integer),
    UniqueConstraint("account_key", "since"),
)

# Transformer and line between the point of delivery and a meter that stands behind them, in [since, until).
# Numbers are ten-thousandths. share: how much of the loss this usage point bears (1 = all of it).
supply = Table(
    "supply",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("usage_point_key", BigInteger, ForeignKey("usage_point.key"), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger),
    Column("rated_kva", BigInteger, nullable=False),
    Column("no_load_kw", BigInteger, nullable=False),
    Column("load_kw", BigInteger, nullable=False),
    Column("no_load_percent", BigInteger, nullable=False),
    Column("impedance_percent", BigInteger, nullable=False),
    Column("load_factor", BigInteger, nullable=False),
    Column("share", BigInteger, nullable=False),
    Column("line_percent", BigInteger, nullable=False),
    # The published table that tells the transformer's loss instead of the formula.
    Column("table_name", Text),
    UniqueConstraint("usage_point_key", "since"),
)

# Published tables of transformer losses: what is lost in a month in which up to so many kWh pass.
loss_row = Table(
    "loss_row",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("table_name", Text, nullable=False),
    Column("rated_kva", BigInteger, nullable=False),
    Column("up_to_kwh", BigInteger, nullable=False),
    Column("active_kwh", BigInteger, nullable=False),
    Column("reactive_kvarh", BigInteger, nullable=False),
    UniqueConstraint("table_name", "rated_kva", "up_to_kwh"),
)

# Usage points behind another's meter, in [since, until). method: `metered` (its own meter's energy is taken off the
# parent's), `quantity` (amount kWh a month are its own) or `ratio` (amount percent of the parent's energy are its own).
submeter = Table(
    "submeter",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("usage_point_key", BigInteger, ForeignKey("usage_point.key"), nullable=False),
    Column("parent_key", BigInteger, ForeignKey("usage_point.key"), nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("until", BigInteger),
    Column("method", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    UniqueConstraint("usage_point_key", "since"),
    Index(None, "parent_key"),
)

# Append-only: the parent of every value that came in it.
outcome = Table(
    "outcome",
    METADATA,
    Column("id", auto_key(), primary_key=True),
    Column("meter_key", BigInteger, ForeignKey("meter.key"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("detail", Text, nullable=False),
    Column("schedule", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("window_start", BigInteger),
    Column("window_end", BigInteger),
    # What carried it, when it came in a message with values of other meters.
    Column("message_key", BigInteger),
    # Jobs only: outcomes of messages come by the thousand, and each would change a page of the index of its own.
    Index(
        None,
        "meter_key",
        "started_at",
        sqlite_where=text("message_key IS NULL"),
        postgresql_where=text("message_key IS NULL"),
    ),
    # A number is never given twice, even after the newest rows were deleted.
    sqlite_autoincrement=True,
)

# What a concentrator sent in one piece: the parent of the outcomes of all its meters. payload: deflated, NULL when it
# was sampled away; size: its bytes as received. No foreign key points here: a row more to look up for every outcome.
message = Table(
    "message",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("received_at", BigInteger, nullable=False),
    Column("channel", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("payload", LargeBinary),
    Column("size", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

# How far a sender's numbering has come since it last started: everything up to `upto` is here; beyond it, `ahead` says
# what is here and what was given up, as ranges (`headend.store.sequences`).
mqtt_sequence = Table(
    "mqtt_sequence",
    METADATA,
    Column("concentrator", Text, primary_key=True),
    Column("boot", BigInteger, primary_key=True, autoincrement=False),
    Column("upto", BigInteger, nullable=False),
    Column("ahead", Text, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What befell meters, by concentrators that tell it with its time. digest: of data, so that a thing told again is one.
meter_event = Table(
    "meter_event",
    METADATA,
    Column("meter_key", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("code", Text, primary_key=True),
    Column("phase", Text, primary_key=True),
    Column("digest", Text, primary_key=True),
    Column("data", Text, nullable=False),
    Column("outcome_id", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Frames of an outcome, packed by `headend.store.evidence`; no row when they were sampled away.
evidence = Table(
    "evidence",
    METADATA,
    Column("outcome_id", BigInteger, ForeignKey("outcome.id"), primary_key=True, autoincrement=False),
    Column("frames", LargeBinary, nullable=False),
)

# One block per day, meter, quantity and step: slot i is at day * 86400 + phase_s + i * step_s.
# The five blobs are packed by `headend.store.blocks`; the counts repeat what `states` says.
curve = Table(
    "curve",
    METADATA,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("meter_key", BigInteger, primary_key=True, autoincrement=False),
    Column("quantity_code", Integer, primary_key=True, autoincrement=False),
    Column("step_s", Integer, primary_key=True, autoincrement=False),
    Column("phase_s", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("units", LargeBinary, nullable=False),
    Column("qualities", LargeBinary, nullable=False),
    Column("states", LargeBinary, nullable=False),
    Column("causes", LargeBinary, nullable=False),
    Column("outcome_ids", LargeBinary, nullable=False),
    # Sum of the values held; NULL when there is none or it passes int64. Means energy for interval quantities only.
    Column("total", BigInteger),
    Column("due", Integer, nullable=False),
    Column("got", Integer, nullable=False),
    Column("late", Integer, nullable=False),
    Column("estimated", Integer, nullable=False),
    Column("waived", Integer, nullable=False),
)

# Values that stand alone: registers, freezes, demand with its time, and curve points off their block's grid.
snapshot = Table(
    "snapshot",
    METADATA,
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("meter_key", BigInteger, primary_key=True, autoincrement=False),
    Column("quantity_code", Integer, primary_key=True, autoincrement=False),
    Column("source", Integer, primary_key=True, autoincrement=False),
    Column("units", BigInteger, nullable=False),
    Column("quality", Integer, nullable=False),
    Column("outcome_id", BigInteger, nullable=False),
    Column("taken_at", BigInteger, nullable=False),
    Column("occurred_at", BigInteger),
    Index(None, "meter_key", "quantity_code", "at"),
    sqlite_with_rowid=False,
)

# Expected values that stand alone. Those of a curve live in its block.
slot = Table(
    "slot",
    METADATA,
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("meter_key", BigInteger, primary_key=True, autoincrement=False),
    Column("quantity_code", Integer, primary_key=True, autoincrement=False),
    Column("source", Integer, primary_key=True, autoincrement=False),
    Column("state", Integer, nullable=False),
    Column("cause", Integer, nullable=False),
    Index(None, "meter_key", "quantity_code", "at"),
    sqlite_with_rowid=False,
)

last_value = Table(
    "last_value",
    METADATA,
    Column("meter_key", BigInteger, primary_key=True, autoincrement=False),
    Column("quantity_code", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("taken_at", BigInteger, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("quality", Integer, nullable=False),
    Column("outcome_id", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Append-only: every value that was superseded (replaced_by = the outcome that did) or that lost on arrival (0).
revision = Table(
    "revision",
    METADATA,
    Column("id", auto_key(), primary_key=True),
    Column("meter_key", BigInteger, nullable=False),
    Column("quantity_code", Integer, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("source", Integer, nullable=False),
    Column("step_s", Integer, nullable=False),
    Column("units", BigInteger, nullable=False),
    Column("quality", Integer, nullable=False),
    Column("outcome_id", BigInteger, nullable=False),
    Column("replaced_by", BigInteger, nullable=False),
    Column("replaced_at", BigInteger, nullable=False),
    Index(None, "meter_key", "quantity_code", "at"),
)

# Passwords and keys, sealed under the master key by `headend.vault`. state: `active`, `pending` (to become active) or
# `retired` (was active; kept until it is dropped).
secret = Table(
    "secret",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("meter_key", BigInteger, ForeignKey("meter.key"), nullable=False),
    Column("name", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    UniqueConstraint("meter_key", "name", "generation"),
)

# Invocation counters: the first number nobody has reserved; of received ones (`rx...`) one above the highest seen.
# Meter 0 has one of the store's own, `secrets`: it counts changes of the table `secret`.
counter = Table(
    "counter",
    METADATA,
    Column("meter_key", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What arrived by itself and belongs to no meter known, as it came.
unplaced = Table(
    "unplaced",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("received_at", BigInteger, nullable=False),
    Column("channel", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("replayed_at", BigInteger),
    # Of channel, sender and payload; "" where it was not asked for. times: how often the same thing came.
    Column("digest", Text, nullable=False, server_default=text("''")),
    Column("times", Integer, nullable=False, server_default=text("1")),
    Index(None, "digest"),
    sqlite_autoincrement=True,
)

# What meters were told to do: written before it is sent, completed once, then kept as it is by triggers. frames: as
# evidence, secrets masked.
command = Table(
    "command",
    METADATA,
    Column("key", auto_key(), primary_key=True),
    Column("meter_key", BigInteger, ForeignKey("meter.key"), nullable=False),
    Column("action", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("ended_at", BigInteger),
    Column("result", Text, nullable=False),
    Column("frames", LargeBinary),
    Index(None, "meter_key", "asked_at"),
    Index(None, "asked_at"),
    sqlite_autoincrement=True,
)

"""Sealed secrets and invocation counters of meters. What is sealed is opened by `headend.vault` only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, case, delete, insert, select, update

from headend.civil import from_epoch_s, to_epoch_s
from headend.errors import StoreError
from headend.store import schema
from headend.store.portable import add_absent, chunks

__all__ = [
    "ACTIVE",
    "PENDING",
    "RETIRED",
    "SecretRow",
    "add",
    "changes",
    "counters",
    "note_change",
    "raise_counters",
    "remove",
    "reseal",
    "reserve",
    "reserve_all",
    "secrets",
    "set_state",
]

ACTIVE: Final = "active"
PENDING: Final = "pending"
RETIRED: Final = "retired"

_OWN = 0
_CHANGES = "secrets"


@dataclass(frozen=True, slots=True)
class SecretRow:
    """One generation of one secret as it is stored. key: 0 before it has one."""

    meter_key: int
    meter: str
    name: str
    generation: int
    sealed: bytes = field(repr=False)
    state: str
    created_at: datetime
    changed_at: datetime
    key: int = 0


def secrets(conn: Connection, meter_keys: Collection[int] | None = None) -> list[SecretRow]:
    """Every generation of every secret, of all meters or of some; by meter, name, generation."""
    table, meter = schema.secret, schema.meter
    query = (
        select(table, meter.c.id.label("meter_id"))
        .join(meter, meter.c.key == table.c.meter_key)
        .order_by(meter.c.id, table.c.name, table.c.generation)
    )
    if meter_keys is not None:
        query = query.where(table.c.meter_key.in_(meter_keys))
    return [
        SecretRow(
            row.meter_key,
            row.meter_id,
            row.name,
            row.generation,
            bytes(row.sealed),
            row.state,
            from_epoch_s(row.created_at),
            from_epoch_s(row.changed_at),
            row.key,
        )
        for row in conn.execute(query)
    ]


def add(conn: Connection, rows: Iterable[SecretRow]) -> None:
    """Store new generations."""
    values = [
        {
            "meter_key": row.meter_key,
            "name": row.name,
            "generation": row.generation,
            "sealed": row.sealed,
            "state": row.state,
            "created_at": to_epoch_s(row.created_at),
            "changed_at": to_epoch_s(row.changed_at),
        }
        for row in rows
    ]
    if values:
        conn.execute(insert(schema.secret), values)


def set_state(conn: Connection, row: SecretRow, state: str, at: datetime) -> None:
    """Make `row` active, pending or retired."""
    table = schema.secret
    conn.execute(update(table).where(table.c.key == row.key).values(state=state, changed_at=to_epoch_s(at)))


def reseal(conn: Connection, row: SecretRow, sealed: bytes) -> None:
    """Keep `row` under another master key."""
    conn.execute(update(schema.secret).where(schema.secret.c.key == row.key).values(sealed=sealed))


def remove(conn: Connection, rows: Iterable[SecretRow]) -> None:
    """Delete generations."""
    keys = [row.key for row in rows]
    conn.execute(delete(schema.secret).where(schema.secret.c.key.in_(keys)))


def changes(conn: Connection) -> int:
    """A number that rises with every change of secrets, so that a running program notices them."""
    return conn.execute(select(schema.counter.c.value).where(_one(_OWN, _CHANGES))).scalar() or 0


def note_change(conn: Connection) -> None:
    """Say that secrets change in this transaction. Done first, it also makes writers wait for each other."""
    reserve(conn, _OWN, _CHANGES, 1)


# -- counters ----------------------------------------------------------------------------------------------------------


def counters(conn: Connection, meter_keys: Collection[int] | None = None) -> dict[tuple[int, str], int]:
    """Where every counter stands, by meter and name; of all meters or of some."""
    table = schema.counter
    query = select(table).where(table.c.meter_key != _OWN)
    if meter_keys is not None:
        query = query.where(table.c.meter_key.in_(meter_keys))
    return {(row.meter_key, row.name): row.value for row in conn.execute(query)}


def reserve(conn: Connection, meter_key: int, name: str, count: int, *, at_least: int = 0) -> int:
    """Take `count` numbers that nobody else gets, none below `at_least`; the first of them.

    Atomic in the database, however many programs do it at once. They are ours once the transaction is committed.
    """
    add_absent(conn, schema.counter, [{"meter_key": meter_key, "name": name, "value": at_least}])
    value = schema.counter.c.value
    base: ColumnElement[int] = case((value < at_least, at_least), else_=value)
    conn.execute(update(schema.counter).where(_one(meter_key, name)).values(value=base + count))
    end = conn.execute(select(value).where(_one(meter_key, name))).scalar()  # the row is locked: nobody came between
    if end is None:
        raise StoreError(f"the counter {name} of meter {meter_key} was deleted while numbers were taken from it")
    return int(end) - count


def reserve_all(conn: Connection, names: Iterable[tuple[int, str]], count: int) -> dict[tuple[int, str], int]:
    """`reserve` of several counters that exist, in few statements; the first number of each."""
    by_name: dict[str, list[int]] = {}
    for meter_key, name in sorted(names):
        by_name.setdefault(name, []).append(meter_key)
    table = schema.counter
    found: dict[tuple[int, str], int] = {}
    for name, keys in by_name.items():
        for part in chunks(keys):
            these = (table.c.name == name) & table.c.meter_key.in_(part)
            conn.execute(update(table).where(these).values(value=table.c.value + count))
            for row in conn.execute(select(table).where(these)):
                found[row.meter_key, name] = row.value - count
    return found


def raise_counters(conn: Connection, values: Mapping[tuple[int, str], int]) -> None:
    """Let counters stand at least at `values`; what is higher stays."""
    for (meter_key, name), value in sorted(values.items()):
        add_absent(conn, schema.counter, [{"meter_key": meter_key, "name": name, "value": value}])
        statement = update(schema.counter).where(_one(meter_key, name), schema.counter.c.value < value)
        conn.execute(statement.values(value=value))


def _one(meter_key: int, name: str) -> ColumnElement[bool]:
    return (schema.counter.c.meter_key == meter_key) & (schema.counter.c.name == name)

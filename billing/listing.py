"""A month's bills as a list shows them: totals and states, without lines and what they come from."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import ColumnElement, Connection, func, select

from billing import schema
from billing.bill_rows import hold_of
from billing.model import MINOR_DIGITS, Hold
from billing.names import TOTAL
from headend.civil import to_epoch_s
from headend.model import Window

__all__ = ["Listed", "listed"]


@dataclass(frozen=True, slots=True)
class Listed:
    """One bill. energy: its `import_kwh`, None where it has none, as a held one; total: None while it is held. holds:
    why it is held, or what is odd about an issued one."""

    number: str
    account: str
    tariff: str
    state: str
    replaces: str
    reversed_by: str
    energy: Decimal | None
    total: Decimal | None
    currency: str
    holds: tuple[Hold, ...]


def listed(conn: Connection, window: Window) -> list[Listed]:
    """Every bill whose period starts within `window`, by number."""
    table, part, entry = schema.bill, schema.bill_determinant, schema.ledger_entry
    inside = (table.c.period_start >= to_epoch_s(window.start)) & (table.c.period_start < to_epoch_s(window.end))
    ids = (table.c.key, table.c.number, table.c.account, table.c.tariff, table.c.state, table.c.replaces)
    query = select(*ids, table.c.total_minor, table.c.currency).where(inside).order_by(table.c.number)
    energy = select(table.c.key, part.c.value).join(part, (part.c.bill_key == table.c.key) & (part.c.name == TOTAL))
    energies = {row.key: row.value for row in conn.execute(energy.where(inside))}
    same = (entry.c.account == table.c.account) & (entry.c.reference == table.c.number) & (entry.c.kind == "reversal")
    back = select(table.c.key, entry.c.number).join(entry, same)
    reversals = {row.key: row.number for row in conn.execute(back.where(inside))}
    holds = _holds(conn, inside)
    found = []
    for key, number, account, tariff, state, replaces, minor, currency in conn.execute(query):
        value = energies.get(key)
        total = None if minor is None else Decimal(minor).scaleb(-MINOR_DIGITS[currency])
        words = (number, account, tariff, state, replaces, reversals.get(key, ""))
        found.append(Listed(*words, None if value is None else Decimal(value), total, currency, holds.get(key, ())))
    return found


def _holds(conn: Connection, inside: ColumnElement[bool]) -> dict[int, tuple[Hold, ...]]:
    """By key of a bill the reasons of its last evaluation if it is held, else what is odd about it."""
    table, hold, finding = schema.bill, schema.bill_hold, schema.bill_finding
    last = select(func.max(hold.c.evaluation)).where(hold.c.bill_key == table.c.key).correlate(table).scalar_subquery()
    found: dict[int, list[Hold]] = defaultdict(list)
    held = select(hold).join(table, table.c.key == hold.c.bill_key).where(inside, table.c.state == "held")
    for row in conn.execute(held.where(hold.c.evaluation == last).order_by(hold.c.bill_key, hold.c.position)):
        found[row.bill_key].append(hold_of(row, review=bool(row.review)))
    odd = select(finding).join(table, table.c.key == finding.c.bill_key).where(inside, table.c.state == "issued")
    for row in conn.execute(odd.order_by(finding.c.bill_key, finding.c.position)):
        found[row.bill_key].append(hold_of(row))
    return {key: tuple(holds) for key, holds in found.items()}

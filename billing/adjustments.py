"""Adjustments: amounts put on an account's next bill for one that was issued, and stays as it is.

One is made once, numbered without gaps (`ADJ000001`) and never changed; an opposite one undoes it. It is pending until
a bill takes it on. When that bill is reversed it is pending again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, insert, select, text

from billing import schema
from billing.ledger import charge_kind, lock, reversed_by
from billing.model import MINOR_DIGITS, Bill, BillLine, round_money
from billing.names import TOTAL
from billing.reasons import reason_of
from headend.civil import from_epoch_s, to_epoch_s
from headend.errors import UsageError
from headend.store.portable import chunks

__all__ = [
    "CODE",
    "DETERMINANT",
    "Adjustment",
    "Made",
    "adjustments",
    "average_price",
    "line_of",
    "make",
    "open_sum",
    "pending",
]

CODE = "adjustment"
"""Code of the bill line of an adjustment."""

DETERMINANT = "adjustment:"
"""Before the adjustment's number: where the quantity of its line comes from."""

_PRICE_PLACES = 8
_KWH_PLACES = 4
_MOST_MINOR = 10**15


@dataclass(frozen=True, slots=True)
class Adjustment:
    """An amount for the next bill of `account`, above zero where it owes more.

    corrects: the number of the bill it is for. amount: `quantity` (kWh, or 1 with the unit "") times `price`, rounded.
    basis: the calculation it comes from, as plain data. taken_by: the bill that took it on and stands; "": none yet.
    """

    number: str
    account: str
    corrects: str
    text: str
    quantity: Decimal
    unit: str
    price: Decimal
    amount: Decimal
    currency: str
    basis: Mapping[str, Any]
    reason: str
    made_by: str
    made_at: datetime
    taken_by: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """What `make` recorded, and whether it is new; False: the same one was there, and nothing was written."""

    adjustment: Adjustment
    new: bool


def line_of(adjustment: Adjustment) -> BillLine:
    """The bill line of an adjustment."""
    return BillLine(
        CODE,
        adjustment.text,
        adjustment.quantity,
        adjustment.unit,
        adjustment.price,
        adjustment.amount,
        f"{DETERMINANT}{adjustment.number}",
    )


def average_price(bill: Bill) -> Decimal:
    """What a kWh cost on average: the bill's energy lines (no surcharge, demand or tax) by all its energy, to eight
    places. `UsageError` where there is no energy, or none that cost anything."""
    energy = next((d.value for d in bill.determinants if d.name == TOTAL), Decimal(0))
    cost = sum(
        (line.amount for line in bill.lines if charge_kind(line.code, line.unit, line.determinant) == "energy"),
        Decimal(0),
    )
    if energy <= 0 or cost <= 0:
        raise UsageError(f"bill {bill.number} has no average price of energy", remedy="say the price with --price")
    return (cost / energy).quantize(Decimal(1).scaleb(-_PRICE_PLACES), rounding=ROUND_HALF_UP).normalize() + 0


def make(
    conn: Connection,
    corrects: str,
    *,
    reason: str,
    made_by: str,
    now: datetime,
    kwh: Decimal | None = None,
    price: Decimal | None = None,
    amount: Decimal | None = None,
    words: str = "",
    basis: Mapping[str, Any] | None = None,
) -> Made:
    """Record an adjustment for the issued bill `corrects`: `kwh` at `price`, or an `amount`; below zero: a credit.

    words: what it is for, on the bill, in place of the reason. The same one (bill, kWh, price or amount, and reason) is
    recorded once. Raises `UsageError` for a bill that is not there, not issued or reversed, for an empty reason, and
    for numbers that make no sense.
    """
    reason = reason_of(reason, "an adjustment")
    lock(conn)  # the bill must not be taken back meanwhile
    bill = conn.execute(select(schema.bill).where(schema.bill.c.number == corrects)).one_or_none()
    if bill is None or bill.state != "issued":
        what = f"bill {corrects} is held: it was not issued" if bill else f"unknown bill {corrects!r}"
        raise UsageError(what, remedy="`headend bill list YYYY-MM` lists them; adjust a bill that was issued")
    if (by := reversed_by(conn, [corrects]).get(corrects)) is not None:
        raise UsageError(f"bill {corrects} was reversed by {by}", remedy="adjust the bill that took its place")
    quantity, unit, each = _measure(kwh, price, amount, bill.currency)
    value = round_money(quantity, each, MINOR_DIGITS[bill.currency])
    minor = int(value.scaleb(MINOR_DIGITS[bill.currency]))
    if minor == 0 or abs(minor) > _MOST_MINOR:
        raise UsageError(f"an adjustment of {value} {bill.currency} can't be made", remedy="give another quantity")
    if conn.dialect.name != "sqlite":
        conn.execute(text("LOCK TABLE bill_adjustment IN SHARE ROW EXCLUSIVE MODE"))
    table = schema.bill_adjustment
    same = {"corrects": corrects, "quantity": _plain(quantity), "unit": unit, "price": _plain(each), "reason": reason}
    for found in adjustments(conn, where=[table.c[name] == wanted for name, wanted in same.items()]):
        return Made(found, False)
    sequence = 1 + (conn.scalar(select(func.max(table.c.sequence))) or 0)
    row = same | {
        "number": f"ADJ{sequence:06d}",
        "sequence": sequence,
        "account": bill.account,
        "text": f"adjustment for bill {corrects}: {words or reason}",
        "amount_minor": minor,
        "currency": bill.currency,
        "basis": json.dumps(basis or {}, ensure_ascii=False, sort_keys=True),
        "made_by": made_by,
        "made_at": to_epoch_s(now),
    }
    conn.execute(insert(table).values(row))
    return Made(adjustments(conn, where=[table.c.sequence == sequence])[0], True)


def _measure(
    kwh: Decimal | None, price: Decimal | None, amount: Decimal | None, currency: str
) -> tuple[Decimal, str, Decimal]:
    """Quantity, unit and price per unit of what was asked for."""
    if (kwh is None) == (amount is None) or (price is None) == (kwh is not None):
        raise UsageError("an adjustment is an amount, or energy and its price", remedy="give one of the two")
    if amount is not None:
        _check(amount, MINOR_DIGITS[currency], f"an amount of {currency}")
        return Decimal(1), "", amount
    assert kwh is not None
    assert price is not None
    _check(kwh, _KWH_PLACES, "energy")
    _check(price, _PRICE_PLACES, "a price")
    if price <= 0:
        raise UsageError(f"{price} is no price", remedy="give one above zero; energy below zero makes a credit")
    return kwh, "kWh", price


def _check(value: Decimal, places: int, what: str) -> None:
    """Refuse what is zero, no number, or finer than `places` decimal places."""
    if not value.is_finite() or value == 0 or value.adjusted() > 12 or value != round(value, places):
        remedy = f"give a number that is not zero, with at most {places} decimals"
        if value.is_finite() and value.adjusted() > 12:
            remedy = "give one with at most 13 digits before the point"
        raise UsageError(f"{value} can't be {what} of an adjustment", remedy=remedy)


def pending(conn: Connection, accounts: Sequence[str]) -> Mapping[str, tuple[Adjustment, ...]]:
    """By account, the adjustments that no standing bill has taken on, oldest first; accounts without any are absent."""
    found: dict[str, list[Adjustment]] = defaultdict(list)
    for part in chunks(accounts):
        for item in adjustments(conn, where=[schema.bill_adjustment.c.account.in_(part)]):
            if not item.taken_by:
                found[item.account].append(item)
    return {account: tuple(items) for account, items in found.items()}


def open_sum(conn: Connection, corrects: str) -> Decimal:
    """What the adjustments for a bill come to together, taken on or not."""
    table = schema.bill_adjustment
    return sum((item.amount for item in adjustments(conn, where=[table.c.corrects == corrects])), Decimal(0))


def adjustments(
    conn: Connection, account: str | None = None, *, where: Sequence[ColumnElement[bool]] = ()
) -> list[Adjustment]:
    """The adjustments of an account, or all, oldest first. where: further conditions on `schema.bill_adjustment`."""
    table, taken = schema.bill_adjustment, _taken().subquery()
    query = (
        select(table, taken.c.taken_by)
        .join(taken, taken.c.adjustment == table.c.number, isouter=True)
        .where(*where)
        .order_by(table.c.sequence)
    )
    if account is not None:
        query = query.where(table.c.account == account)
    return [_adjustment(row) for row in conn.execute(query)]


def _taken() -> Select[tuple[str, str]]:
    """Adjustments and the bills that took them on and were not reversed."""
    bill, taken = schema.bill, schema.bill_adjusted
    entry, reversal = schema.ledger_entry, schema.ledger_entry.alias()
    gone = select(entry.c.number).join(reversal, reversal.c.reverses == entry.c.number)
    gone = gone.where(entry.c.kind == "bill", entry.c.bill_key == bill.c.key)
    query = select(taken.c.adjustment, bill.c.number.label("taken_by")).join(bill, bill.c.key == taken.c.bill_key)
    return query.where(~gone.exists())


def _adjustment(row: Any) -> Adjustment:
    return Adjustment(
        number=row.number,
        account=row.account,
        corrects=row.corrects,
        text=row.text,
        quantity=Decimal(row.quantity),
        unit=row.unit,
        price=Decimal(row.price),
        amount=Decimal(row.amount_minor).scaleb(-MINOR_DIGITS[row.currency]),
        currency=row.currency,
        basis=json.loads(row.basis),
        reason=row.reason,
        made_by=row.made_by,
        made_at=from_epoch_s(row.made_at),
        taken_by=row.taken_by or "",
    )


def _plain(value: Decimal) -> str:
    """A decimal as the shortest plain text that means it exactly."""
    shown = f"{value:f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown

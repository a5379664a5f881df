"""An account whose bills are closed, corrected, looked at; and registers that a person edits."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection, func, select

from billing import adjustments, corrections, ledger, recompute, schema
from billing import store as bills
from billing.adjustments import Adjustment
from billing.charges import Tariff
from billing.corrections import Correction
from billing.model import Bill
from billing.review import Rules
from billing.run import close_period
from config.tariff_files import tariff_from_text
from headend.model import Meter, Quality, ReadKind
from headend.store import Store
from tests.billing_support import NOW, add_meter, connect, feed, freeze, month, shipped

FLAT = shipped("example-flat")
LATER = NOW + timedelta(days=1)
D = Decimal
RULES = Rules(enabled=False)


def customer(
    store: Store, *registers: str, account: str = "A1", tariff: Tariff = FLAT, used: str | None = None
) -> Meter:
    """An account whose meter stood at `registers` on the first of June and of the months after."""
    meter = add_meter(store, f"M-{account}")
    step_used = None if used is None else (used, month(6).start)
    connect(store, meter, tariff, account=account, step_used=step_used)
    ends = [freeze(month(6 + n).start, value) for n, value in enumerate(registers)]
    if ends:
        feed(store, meter, ReadKind.DAILY_FREEZE, ends)
    return meter


def edit(store: Store, meter: Meter, number: int, value: str) -> int:
    """A person corrects the register of the first of a month; the outcome's id."""
    taken = {"quality": Quality.EDITED, "taken_at": NOW}
    return feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(number).start, value, **taken)])


def close(store: Store, tariff: Tariff, *months: int, now: datetime = NOW) -> list[str]:
    return [number for n in months for number in close_period(store, [tariff], 2026, n, now=now).issued]


def correct(store: Store, number: str, *tariffs: Tariff, chain: bool = False, now: datetime = LATER) -> Correction:
    with store.write() as conn:
        return corrections.correct(conn, number, "wrong register", tariffs or [FLAT], RULES, now=now, chain=chain)


def bill(store: Store, number: str) -> Bill:
    with store.read() as conn:
        found = bills.bill(conn, number)
    assert found is not None
    return found


def owed(store: Store, account: str = "A1") -> Decimal:
    with store.read() as conn:
        return dict(ledger.statement(conn, account).balances).get("CNY", D(0))


def written_rows(store: Store) -> dict[str, int]:
    """How many rows the tables of bills and of the ledger have."""
    tables = (schema.bill, schema.bill_line, schema.ledger_entry, schema.ledger_posting, schema.bill_adjusted)
    with store.read() as conn:
        return {table.name: conn.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def adjust(conn: Connection, number: str, reason: str = "meter slow", **words: object) -> Adjustment:
    chosen: dict[str, object] = words or {"amount": D(5)}
    made = adjustments.make(conn, number, reason=reason, made_by="Li", now=NOW, **chosen)  # type: ignore[arg-type]
    return made.adjustment


def issued_bills(store: Store, account: str) -> list[Bill]:
    with store.read() as conn:
        numbers = conn.scalars(
            select(schema.bill.c.number).where(schema.bill.c.account == account, schema.bill.c.state == "issued")
        ).all()
    return [bill(store, number) for number in numbers]


def again(store: Store, number: str = "A1-2026-06", as_of: int | None = None) -> list[str]:
    with store.read() as conn:
        return [str(d) for d in recompute.recompute(conn, number, tariff_from_text, as_of=as_of).differences]

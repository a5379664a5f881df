"""Tariffs of one charge each, and a metered month for them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from hypothesis import strategies as st

from billing import store as bills
from billing.charges import Charge, Tariff
from billing.explain import Node, explain
from billing.model import Bill, Hold
from billing.run import close_period
from headend.model import Meter, Quality, Reading, ReadKind, Source, Window
from headend.store import Store
from tests.billing_support import NOW, add_meter, connect, feed, freeze, month, shipped

PLACE = 'zone = "Asia/Shanghai"\n'
ENERGY = '[[charges]]\nkind = "energy"\nunit = "kWh"\nprice = "0.5"\n'
DEMAND = '[[charges]]\nkind = "demand"\nunit = "kW"\nprice = "40.8"\nmeasured_by = "register"\n'
BY_INTERVALS = DEMAND.replace('"register"', '"intervals"')
FACTOR = '[[charges]]\nkind = "power_factor"\nunit = "%"\nstandard = "0.90"\n'
NET = '[[charges]]\nkind = "net_metering"\nunit = "kWh"\nprice = "0.2"\n'
EXPORT = '[[charges]]\nkind = "export_credit"\nunit = "kWh"\nprice = "0.2"\n'

kwh = st.integers(0, 10**9).map(lambda units: Decimal(units).scaleb(-4))


def close(store: Store, tariff: Tariff, number: int = 6) -> tuple[Hold, ...]:
    report = close_period(store, [tariff], 2026, number, now=NOW)
    assert len(report.issued) + len(report.held) == 1
    return report.held[0][1] if report.held else ()


def shown(store: Store, number: str = "A1-2026-06") -> Bill:
    with store.read() as conn:
        found = bills.bill(conn, number)
    assert found is not None
    return found


def amounts(bill: Bill) -> dict[str, str]:
    return {line.code: str(line.amount) for line in bill.lines}


def register(store: Store, meter: Meter, quantity: str, start: str, end: str, window: Window | None = None) -> None:
    window = window or month(6)
    rows = [freeze(window.start, start, quantity=quantity), freeze(window.end, end, quantity=quantity)]
    feed(store, meter, ReadKind.DAILY_FREEZE, rows)


def settled(at: datetime, value: str, quality: Quality = Quality.VALID) -> Reading:
    return Reading("import_max_kw", Decimal(value), at, at + timedelta(hours=1), Source.SETTLEMENT, quality=quality)


def settle(store: Store, meter: Meter, *rows: Reading) -> None:
    feed(store, meter, ReadKind.SETTLEMENT, rows)


def texts(node: Node) -> list[str]:
    return [node.title, *node.detail, *(text for child in node.children for text in texts(child))]


def explained(store: Store, number: str = "A1-2026-06") -> list[str]:
    with store.read() as conn:
        return texts(explain(conn, number))


def metered(store: Store, tariff: Tariff, multiplier: str = "1", step_s: int = 900) -> Meter:
    meter = add_meter(store, step_s=step_s)
    connect(store, meter, tariff, multiplier=multiplier)
    register(store, meter, "import_kwh", "0", "1000")
    return meter


def made(*charges: Charge) -> Tariff:
    """A tariff of nothing but these charges."""
    return replace(shipped("example-flat"), charges=charges)

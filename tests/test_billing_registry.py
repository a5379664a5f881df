"""What is registered beside the meter is on the bill: losses, usage points behind, terms that change within a month."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from billing import store as bills
from billing.charges import CapacityCharge, EnergyCharge, Tariff
from billing.model import Bill, Derived
from billing.run import close_period
from headend.model import Meter, ReadKind
from headend.quantities import QUANTITIES
from headend.store import Store, registry
from headend.store.terms import AccountTerm, SubmeterRow, SupplyRow, put_submeters, put_supplies, put_terms
from tests import worked_ids
from tests.billing_support import NOW, add_meter, connect, feed, freeze, local, month, written

JUNE = month(6)
SINCE = local("2025-01-01T00:00")


@pytest.fixture
def tariff(tmp_path: Path) -> Tariff:
    return written(
        tmp_path, "flat", 'zone = "Asia/Shanghai"\n[[charges]]\nkind = "energy"\nunit = "kWh"\nprice = "0.6425"\n'
    )


def registers(store: Store, meter: Meter, at: datetime, **values: str) -> None:
    """The daily freeze of some registers."""
    rows = [replace(freeze(at, value), quantity=quantity) for quantity, value in values.items()]
    assert all(row.quantity in QUANTITIES for row in rows)
    feed(store, meter, ReadKind.DAILY_FREEZE, rows)


def close(store: Store, *tariffs: Tariff) -> dict[str, Bill]:
    """The bills of June, by account; each must have been issued."""
    report = close_period(store, tariffs, 2026, 6, now=NOW)
    assert report.held == ()
    with store.read() as conn:
        found = [bills.bill(conn, number) for number in report.issued]
    return {bill.account: bill for bill in found if bill is not None}


def energy(bill: Bill, name: str = "import_kwh") -> Decimal:
    return next(one.value for one in bill.determinants if one.name == name)


def parents(bill: Bill) -> Mapping[str, Decimal]:
    """Numbers of other rooms that went into the energy."""
    (total,) = [one for one in bill.determinants if one.name == "import_kwh"]
    return {one.name: one.value for one in total.parents if isinstance(one, Derived)}


def test_the_worked_loss_of_a_transformer_is_on_the_bill(sqlite_store: Store, tariff: Tariff) -> None:
    """630 kVA, the month of 720 h: 180000 kWh and 87178 kvarh at the meter (CT 100) lose 1451 kWh."""
    store, inputs = sqlite_store, worked_ids.cases()["M07"]["inputs"]
    meter = add_meter(store)
    connect(store, meter, tariff, multiplier="100")
    registers(store, meter, JUNE.start, import_kwh="1000", import_kvarh="500")
    active, reactive = Decimal(inputs["active_kwh"]) / 100, Decimal(inputs["reactive_kvarh"]) / 100
    registers(store, meter, JUNE.end, import_kwh=str(1000 + active), import_kvarh=str(500 + reactive))
    numbers = [Decimal(inputs[name]) for name in ("sn_kva", "p0_kw", "pk_kw")]
    with store.write() as conn:
        put_supplies(conn, [SupplyRow("U-A1", SINCE, None, *numbers)])
    bill = close(store, tariff)["A1"]
    assert energy(bill) == 181451
    assert energy(bill, "loss_kwh") == 1451
    assert bill.total == Decimal("116582.27")  # 181451 x 0.6425 = 116582.2675


def test_energy_of_points_behind_is_taken_off_and_billed_to_them(sqlite_store: Store, tariff: Tariff) -> None:
    """1000 kWh: 120.5 fixed, a quarter of the 879.5 left (219.875), 100 by a meter behind; 559.625 stay."""
    store = sqlite_store
    parent, child = add_meter(store), add_meter(store, "M2")
    connect(store, parent, tariff)
    connect(store, child, tariff, account="A2")
    for meter, end in ((parent, "2000"), (child, "1100")):
        registers(store, meter, JUNE.start, import_kwh="1000")
        registers(store, meter, JUNE.end, import_kwh=end)
    with store.write() as conn:
        registry.put_usage_points(conn, [registry.UsagePointRow("U-A3"), registry.UsagePointRow("U-A4")])
        rows = [registry.AccountRow(f"A{n}", f"U-A{n}", "Li", tariff.id, SINCE) for n in (3, 4)]
        registry.put_accounts(conn, rows)
        behind = [
            SubmeterRow("U-A2", "U-A1", SINCE, None, "metered"),
            SubmeterRow("U-A3", "U-A1", SINCE, None, "quantity", Decimal("120.5")),
            SubmeterRow("U-A4", "U-A1", SINCE, None, "ratio", Decimal(25)),
        ]
        put_submeters(conn, behind)
    found = close(store, tariff)
    assert {account: energy(bill) for account, bill in found.items()} == {
        "A1": Decimal("559.625"),
        "A2": Decimal(100),
        "A3": Decimal("120.5"),
        "A4": Decimal("219.875"),
    }
    assert parents(found["A1"]) == {
        "submeter U-A2": Decimal(-100),
        "submeter U-A3": Decimal("-120.5"),
        "submeter U-A4": Decimal("-219.875"),
    }


def test_a_larger_transformer_and_a_new_price_cut_the_month(sqlite_store: Store, tariff: Tariff) -> None:
    """315 kVA for 18 days and 400 for 12 at 24.00 a month: 4536.00 + 3840.00; 100 kWh at 0.50, then 50 at 0.60."""
    store, cut = sqlite_store, local("2026-06-19T00:00")
    capacity = CapacityCharge(Decimal(24), None)
    old = replace(tariff, valid_to=date(2026, 6, 19), charges=(EnergyCharge(Decimal("0.5")), capacity), sha="1" * 64)
    new = replace(
        tariff,
        version="2",
        valid_from=date(2026, 6, 19),
        charges=(EnergyCharge(Decimal("0.6")), capacity),
        sha="2" * 64,
    )
    meter = add_meter(store)
    connect(store, meter, old)
    for at, value in ((JUNE.start, "0"), (cut, "100"), (JUNE.end, "150")):
        registers(store, meter, at, import_kwh=value)
    with store.write() as conn:
        put_terms(
            conn,
            [
                AccountTerm("A1", SINCE, capacity_kva=Decimal(315)),
                AccountTerm("A1", cut, capacity_kva=Decimal(400)),
            ],
        )
    bill = close(store, old, new)["A1"]
    assert sorted(line.amount for line in bill.lines) == [
        Decimal("30.00"),
        Decimal("50.00"),
        Decimal("3840.00"),
        Decimal("4536.00"),
    ]
    assert bill.segments == ((JUNE.start, old.sha), (cut, new.sha))
    assert energy(bill) == 150
    assert energy(bill, "capacity_kva@2026-06-19") == 400

"""What can't be billed is held with its reasons, is looked at again, and keeps the history of why."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from billing import store as bills
from billing.charges import EnergyCharge, Policy, Tariff
from billing.model import Bill, Hold
from billing.run import close_period
from headend.model import ReadKind, Source
from headend.store import Store, registry
from tests.billing_support import (
    NOW,
    add_meter,
    connect,
    feed,
    feed_month,
    freeze,
    household,
    local,
    month,
    points,
    shipped,
    suspect,
    written,
)

READ_AGAIN = "read the meter's freeze or curve for that time, then close again"

HALF_HOURS = """
zone = "Asia/Shanghai"
[[charges]]
kind = "tou"
unit = "kWh"
prices = { day = "1", night = "0.5" }
[[charges.seasons]]
periods = { day = ["06:30-22:00"], night = ["22:00-06:30"] }
"""


def close(store: Store, tariff: Tariff, number: int, now: datetime = NOW) -> tuple[Hold, ...]:
    """Close a month of 2026; the reasons its only bill is held for, () if it was issued."""
    report = close_period(store, [tariff], 2026, number, now=now)
    assert len(report.issued) + len(report.held) == 1
    return report.held[0][1] if report.held else ()


def shown(store: Store, number: str) -> Bill:
    with store.read() as conn:
        found = bills.bill(conn, number)
    assert found is not None
    return found


def history(store: Store, number: str) -> list[tuple[datetime, tuple[Hold, ...]]]:
    with store.read() as conn:
        return bills.hold_history(conn, number)


def test_one_missing_register_holds_the_bill_until_it_comes(store: Store) -> None:
    tariff = shipped("example-flat")
    meter = add_meter(store)
    connect(store, meter, tariff)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "100")])
    end = month(6).end
    reason = Hold("register_absent", "no import_kwh register at 2026-07-01T00:00+08:00", READ_AGAIN, "M1", end, end, 1)
    assert close(store, tariff, 6) == (reason,)
    assert str(reason) == f"M1: no import_kwh register at 2026-07-01T00:00+08:00 -> {READ_AGAIN}"
    bill = shown(store, "A1-2026-06")
    assert (bill.state, bill.total, bill.lines, bill.holds) == ("held", None, (), (reason,))

    # The same reasons again are no news.
    assert close(store, tariff, 6, NOW + timedelta(days=1)) == (reason,)
    assert history(store, "A1-2026-06") == [(NOW, (reason,))]

    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(end, "200")])
    assert close(store, tariff, 6, NOW + timedelta(days=2)) == ()
    bill = shown(store, "A1-2026-06")
    assert (bill.state, bill.total, bill.holds) == ("issued", Decimal("64.25"), ())
    assert bill.issued_at == NOW + timedelta(days=2)
    assert history(store, "A1-2026-06") == [(NOW, (reason,))]


def test_one_suspect_point_holds_the_bill_until_a_valid_value_comes(store: Store) -> None:
    tariff = shipped("cn-zhejiang-residential-tou-step")
    meter = add_meter(store)
    connect(store, meter, tariff, step_used=("0", month(6).start))
    energies = household(2880)
    rows = points(month(6).start, 900, "100", energies)
    feed(store, meter, ReadKind.CURVE, [suspect(row) if n == 1000 else row for n, row in enumerate(rows)])
    start, end = rows[999].at, rows[1001].at
    what = "2 of 2880 intervals suspect: 2026-06-11T09:45+08:00 to 2026-06-11T10:15+08:00"
    assert close(store, tariff, 6) == (Hold("interval_suspect", what, READ_AGAIN, "M1", start, end, 2),)
    feed(store, meter, ReadKind.CURVE, [rows[1000]])
    assert close(store, tariff, 6) == ()
    assert shown(store, "A1-2026-06").determinants[0].value == sum(energies)


def test_missing_intervals_are_counted_and_named(store: Store) -> None:
    tariff = shipped("cn-zhejiang-residential-tou-step")
    meter = add_meter(store)
    connect(store, meter, tariff, step_used=("0", month(6).start))
    rows = points(month(6).start, 900, "100", household(2880))
    absent = {96, 97, 500, *range(1000, 1096)}
    feed(store, meter, ReadKind.CURVE, [row for n, row in enumerate(rows) if n not in absent])
    (hold,) = close(store, tariff, 6)
    assert hold.what == (
        "102 of 2880 intervals missing: 2026-06-01T23:45+08:00 to 2026-06-02T00:30+08:00; "
        "2026-06-06T04:45+08:00 to 2026-06-06T05:15+08:00; 2026-06-11T09:45+08:00 to 2026-06-12T10:00+08:00"
    )
    assert (hold.code, hold.count, hold.meter) == ("interval_missing", 102, "M1")
    feed(store, meter, ReadKind.CURVE, [rows[500]])
    (hold,) = close(store, tariff, 6, NOW + timedelta(days=1))
    assert hold.count == 100
    assert [held[0].count for _, held in history(store, "A1-2026-06")] == [102, 100]


def test_a_month_without_any_values_names_every_reason(store: Store) -> None:
    tariff = shipped("cn-zhejiang-residential-tou-step")
    connect(store, add_meter(store), tariff)
    assert [hold.code for hold in close(store, tariff, 6)] == [
        "register_absent",
        "register_absent",
        "step_year_unknown",
        "interval_missing",
    ]


def test_a_suspect_register_is_never_billed(store: Store) -> None:
    tariff = shipped("example-flat")
    meter = add_meter(store)
    connect(store, meter, tariff)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "100")])
    feed(store, meter, ReadKind.DAILY_FREEZE, [suspect(freeze(month(6).end, "900000"))])
    (hold,) = close(store, tariff, 6)
    assert hold.code == "register_suspect"
    assert hold.what == "the import_kwh register at 2026-07-01T00:00+08:00 is suspect (900000.0000 kWh)"


def test_a_register_that_runs_back_is_no_rollover(store: Store) -> None:
    tariff = shipped("example-flat")
    meter = add_meter(store)
    connect(store, meter, tariff)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "5000"), freeze(month(6).end, "4990")])
    (hold,) = close(store, tariff, 6)
    assert hold.code == "register_back"
    assert "runs back from 5000.0000 to 4990.0000 kWh" in hold.what
    assert "as a rollover it would make 999990.0000 kWh" in hold.what


def test_a_rollover_is_billed(store: Store) -> None:
    tariff = shipped("example-flat")
    meter = add_meter(store)
    connect(store, meter, tariff)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "999950.40"), freeze(month(6).end, "35.10")])
    assert close(store, tariff, 6) == ()
    assert shown(store, "A1-2026-06").lines[0].quantity == Decimal("84.70")


def test_intervals_that_do_not_meet_the_registers_hold_the_bill(store: Store) -> None:
    tariff = shipped("cn-zhejiang-residential-tou-step")
    meter = add_meter(store)
    connect(store, meter, tariff, step_used=("0", month(6).start))
    rows = points(month(6).start, 900, "100", household(2880))
    feed(store, meter, ReadKind.CURVE, rows)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(rows[-1].at, rows[-1].value + Decimal("0.03"))])
    (hold,) = close(store, tariff, 6)
    total = rows[-1].value - 100
    assert hold.code == "sum_check"
    assert hold.what == (
        f"the intervals sum to {total:.4f} kWh, the register rose by {total + Decimal('0.03'):.4f} kWh "
        "(2026-06-01T00:00+08:00 to 2026-07-01T00:00+08:00); 0.02 kWh may lie between them"
    )
    # A freeze that was rounded apart from the curve may differ by the last digit at each end.
    later = freeze(rows[-1].at, rows[-1].value + Decimal("0.02"), taken_at=rows[-1].at + timedelta(hours=2))
    feed(store, meter, ReadKind.DAILY_FREEZE, [later])
    assert close(store, tariff, 6) == ()


def test_intervals_across_a_boundary_of_the_tariff_are_not_guessed(store: Store, tmp_path: Path) -> None:
    tariff = written(tmp_path, "half-hours", HALF_HOURS)
    meter = add_meter(store, step_s=3600)
    connect(store, meter, tariff)
    feed_month(store, meter, month(6), step_s=3600)
    (hold,) = close(store, tariff, 6)
    assert hold.code == "interval_straddles"
    assert hold.what == "intervals of 3600 s straddle 30 TOU boundaries, the first at 2026-06-01T06:30+08:00"
    assert hold.count == 30


def test_a_meter_without_a_curve_can_not_bill_time_of_use(store: Store) -> None:
    tariff = shipped("example-commercial-tou")
    meter = add_meter(store, step_s=0)
    connect(store, meter, tariff)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "0"), freeze(month(6).end, "10")])
    assert [hold.code for hold in close(store, tariff, 6)] == ["no_curve"]


def test_an_exchange_without_registers_and_with_a_gap_is_held(store: Store) -> None:
    tariff = shipped("example-flat")
    old, new = add_meter(store, "M1"), add_meter(store, "M2")
    connect(store, old, tariff)
    removed, installed = local("2026-06-10T09:00"), local("2026-06-10T09:30")
    with store.write() as conn:
        since = registry.installations(conn, "U-A1")[0].since
        rows = [registry.InstallationRow("U-A1", "M1", since, removed)]
        registry.put_installations(conn, [*rows, registry.InstallationRow("U-A1", "M2", installed)])
    feed(store, old, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "100")])
    feed(store, new, ReadKind.DAILY_FREEZE, [freeze(month(6).end, "50")])
    gap, first, second = close(store, tariff, 6)
    assert (gap.code, gap.start, gap.end) == ("no_meter", removed, installed)
    assert gap.what == "no meter stands at U-A1 (2026-06-10T09:00+08:00 to 2026-06-10T09:30+08:00)"
    assert [(hold.code, hold.meter, hold.start) for hold in (first, second)] == [
        ("register_absent", "M1", removed),
        ("register_absent", "M2", installed),
    ]
    with store.write() as conn:
        registry.put_installations(conn, [registry.InstallationRow("U-A1", "M1", since, installed)])
    feed(store, old, ReadKind.REGISTERS, [freeze(installed, "130", source=Source.CURRENT)])
    feed(store, new, ReadKind.REGISTERS, [freeze(installed, "0", source=Source.CURRENT)])
    assert close(store, tariff, 6) == ()
    assert shown(store, "A1-2026-06").lines[0].quantity == 80


def test_two_meters_at_once_are_held(store: Store) -> None:
    tariff = shipped("example-flat")
    old, new = add_meter(store, "M1"), add_meter(store, "M2")
    connect(store, old, tariff)
    both = local("2026-06-10T00:00")
    with store.write() as conn:
        registry.put_installations(conn, [registry.InstallationRow("U-A1", "M2", both)])
    for meter, start in ((old, month(6).start), (new, both)):
        feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(start, "0"), freeze(month(6).end, "10")])
    (hold,) = close(store, tariff, 6)
    assert (hold.code, hold.meter, hold.start, hold.end) == ("two_meters", "M2", both, month(6).end)


def test_a_part_of_a_month_is_billed_only_where_the_tariff_leaves_no_question(store: Store) -> None:
    start = local("2026-06-10T00:00")
    flat, stepped = shipped("example-flat"), shipped("cn-guangdong-residential-step")
    stepped = replace(stepped, policy=Policy(part_month="hold"))
    meter = add_meter(store)
    connect(store, meter, flat, since=start)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(start, "100"), freeze(month(6).end, "200")])
    with store.write() as conn:
        other = registry.AccountRow("A2", "U-A1", "C2", stepped.id, start)
        registry.put_accounts(conn, [other])
    report = close_period(store, [flat, stepped], 2026, 6, now=NOW)
    assert report.issued == ("A1-2026-06",)
    assert (shown(store, "A1-2026-06").window.start, shown(store, "A1-2026-06").lines[0].quantity) == (
        start,
        Decimal(100),
    )
    ((number, (hold,)),) = report.held
    assert (number, hold.code) == ("A2-2026-06", "part_month")


def test_an_account_without_a_tariff_for_the_month_is_held_until_there_is_one(store: Store) -> None:
    tariff = shipped("example-flat")
    meter = add_meter(store)
    connect(store, meter, tariff)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "0"), freeze(month(6).end, "10")])
    ((_, (hold,)),) = close_period(store, [], 2026, 6, now=NOW).held
    assert hold.code == "no_tariff"
    assert hold.what == "no version of tariff 'example-flat' holds for the whole of 2026-06"
    assert shown(store, "A1-2026-06").currency == ""
    assert close(store, tariff, 6) == ()
    assert (shown(store, "A1-2026-06").window, shown(store, "A1-2026-06").currency) == (month(6), "CNY")


def test_each_part_of_a_month_is_billed_by_the_version_that_holds_for_it(store: Store) -> None:
    """The price doubles on 1 July; were it to double within June, June would need the register of that midnight."""
    old = shipped("example-flat")
    meter = add_meter(store)
    connect(store, meter, old)
    registers = [freeze(month(n).start, f"{n * 100}") for n in (6, 7, 8)]
    feed(store, meter, ReadKind.DAILY_FREEZE, registers)

    def versions(day: date) -> list[Tariff]:
        new = replace(old, version="2", valid_from=day, charges=(EnergyCharge(Decimal("1.285")),), sha="2" * 64)
        return [replace(old, valid_to=day), new]

    ((number, (hold,)),) = close_period(store, versions(date(2026, 6, 15)), 2026, 6, now=NOW).held
    assert (number, hold.code, hold.start) == ("A1-2026-06", "register_absent", local("2026-06-15T00:00"))
    for month_number in (6, 7):
        assert close_period(store, versions(date(2026, 7, 1)), 2026, month_number, now=NOW).issued
    june, july = shown(store, "A1-2026-06"), shown(store, "A1-2026-07")
    assert (june.tariff_version, june.total) == ("1", Decimal("64.25"))
    assert (july.tariff_version, july.total) == ("2", Decimal("128.50"))

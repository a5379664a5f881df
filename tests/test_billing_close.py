"""Closing a month from stored curves and freezes, on SQLite and PostgreSQL: to the cent, once, and never changed."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from billing import adjustments, schema
from billing import store as bills
from billing.model import Bill, Derived, Determinant, Hold, IntervalPart, RegisterPart
from billing.release import release
from billing.run import CloseReport, close_period
from headend.civil import zone
from headend.errors import StoreError, UsageError
from headend.model import Quality, ReadKind, Source, Window
from headend.store import Store, open_store, registry
from headend.store.schema import METADATA
from tests.billing_support import (
    NOW,
    SHANGHAI,
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
    written,
)

CENT = Decimal("0.01")

# Shanghai's hours from July to September, hour by hour.
SUMMER = ["valley"] * 6 + ["flat"] * 2 + ["peak"] * 4 + ["sharp"] * 2 + ["peak"] + ["flat"] * 3 + ["peak"] * 3
SUMMER += ["flat"] + ["valley"] * 2

BERLIN_TOU = """
zone = "Europe/Berlin"
[[charges]]
kind = "tou"
unit = "kWh"
prices = { day = "0.3512", night = "0.2487" }
[[charges.seasons]]
days = "weekday"
periods = { day = ["06:00-22:00"], night = ["22:00-06:00"] }
[[charges.seasons]]
days = "weekend"
periods = { night = ["00:00-24:00"] }
"""


def shown(store: Store, number: str) -> Bill:
    with store.read() as conn:
        found = bills.bill(conn, number)
    assert found is not None
    return found


def amounts(bill: Bill) -> dict[str, Decimal]:
    return {line.code: line.amount for line in bill.lines}


def cents(value: Decimal) -> Decimal:
    return value.quantize(CENT, ROUND_HALF_UP)


def test_a_month_bills_to_the_cent_and_only_once(store: Store) -> None:
    tariff = shipped("example-commercial-tou")
    meter = add_meter(store)
    connect(store, meter, tariff, multiplier="40")
    energies = feed_month(store, meter, month(7))
    report = close_period(store, [tariff], 2026, 7, now=NOW)
    assert report == CloseReport(issued=("A1-2026-07",))

    truth = dict.fromkeys(("sharp", "peak", "flat", "valley"), Decimal(0))
    for index, energy in enumerate(energies):
        truth[SUMMER[index % 96 // 4]] += energy * 40
    prices = {"sharp": "1.2336", "peak": "1.028", "flat": "0.6425", "valley": "0.2891"}
    expected = {f"energy_{name}": cents(truth[name] * Decimal(price)) for name, price in prices.items()}
    expected["service"] = Decimal("12.00")

    bill = shown(store, "A1-2026-07")
    assert amounts(bill) == expected
    assert list(amounts(bill)) == ["energy_sharp", "energy_peak", "energy_flat", "energy_valley", "service"]
    assert bill.total == sum(expected.values())
    assert (bill.state, bill.issued_at, bill.window) == ("issued", NOW, month(7))
    assert (bill.tariff, bill.tariff_version, bill.tariff_sha) == (tariff.id, tariff.version, tariff.sha)
    total, *periods = bill.determinants
    assert total.value == sum(energies) * 40
    assert {d.name: d.value for d in periods} == {f"import_kwh_{name}": energy for name, energy in truth.items()}
    (register,) = total.parents
    assert isinstance(register, RegisterPart)
    assert (register.start.units, register.multiplier, register.start.source) == (
        1000000,
        Decimal(40),
        Source.DAILY_FREEZE,
    )
    (valley,) = next(d for d in periods if d.name == "import_kwh_valley").parents
    assert isinstance(valley, IntervalPart)
    assert (valley.count, valley.step_s, valley.as_of) == (31 * 32, 900, bill.as_of)
    assert sum(count for d in periods for _, count in d.counts) == 2976

    assert close_period(store, [tariff], 2026, 7, now=NOW + timedelta(days=1)) == CloseReport(already=("A1-2026-07",))
    assert shown(store, "A1-2026-07") == bill
    with store.read() as conn:
        assert bills.bills(conn, month(7)) == [bill]
        assert bills.bills(conn, month(8)) == []
        assert bills.tariff_text(conn, tariff.sha) == tariff.text


def test_a_later_value_does_not_change_an_issued_bill(store: Store) -> None:
    tariff = shipped("example-flat")
    meter = add_meter(store)
    connect(store, meter, tariff)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "100.00"), freeze(month(6).end, "350.00")])
    close_period(store, [tariff], 2026, 6, now=NOW)
    before = shown(store, "A1-2026-06")
    assert before.total == Decimal("160.63")  # 250 x 0.6425 = 160.625
    later = freeze(month(6).end, "360.00", taken_at=month(6).end + timedelta(days=2))
    feed(store, meter, ReadKind.DAILY_FREEZE, [later])
    assert close_period(store, [tariff], 2026, 6, now=NOW).already == ("A1-2026-06",)
    assert shown(store, "A1-2026-06") == before


def test_yearly_steps_add_up_over_the_bills_of_the_year(store: Store) -> None:
    tariff = shipped("cn-zhejiang-residential-step")
    meter = add_meter(store)
    connect(store, meter, tariff)
    registers = ["0.00", "1000.50", "2700.00", "3000.00", "5000.25"]
    readings = [freeze(month(n).start, value) for n, value in enumerate(registers, start=1)]
    feed(store, meter, ReadKind.DAILY_FREEZE, readings)

    (held,) = close_period(store, [tariff], 2026, 2, now=NOW).held
    assert [hold.code for hold in held[1]] == ["step_year_unknown"]
    assert str(held[1][0]) == (
        "the energy used in the step year since 2026-01-01T00:00+08:00 is not known: issued bills and the account's "
        "step_used reach 2026-01-01T00:00+08:00, not 2026-02-01T00:00+08:00 -> issue the earlier months first, or set "
        "step_used and step_used_at on the account"
    )
    for number in (1, 2, 3, 4):
        assert close_period(store, [tariff], 2026, number, now=NOW).issued == (f"A1-2026-0{number}",)
    assert {line.code: line.quantity for line in shown(store, "A1-2026-03").lines} == {
        "energy_step1": Decimal(60),
        "energy_step2": Decimal(240),
    }
    april = shown(store, "A1-2026-04")
    assert april.determinants[0].used_before == 3000
    assert {line.code: line.quantity for line in april.lines} == {
        "energy_step2": Decimal(1800),
        "energy_step3": Decimal("200.25"),
    }


def test_a_new_step_year_starts_from_nothing(store: Store) -> None:
    tariff = shipped("cn-zhejiang-residential-step")
    meter = add_meter(store)
    connect(store, meter, tariff, step_used=("5000", month(12).start))
    ends = [(month(12).start, "5000"), (month(12).end, "5300"), (month(1, 2027).end, "5600")]
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(at, value) for at, value in ends])
    close_period(store, [tariff], 2026, 12, now=NOW)
    close_period(store, [tariff], 2027, 1, now=NOW + timedelta(days=30))
    assert amounts(shown(store, "A1-2026-12")) == {"energy_step3": Decimal("251.40")}
    assert amounts(shown(store, "A1-2027-01")) == {"energy_step1": Decimal("161.40")}


def test_declared_use_carries_an_account_into_its_step_year(store: Store) -> None:
    tariff = shipped("cn-zhejiang-residential-tou-step")
    meter = add_meter(store)
    connect(store, meter, tariff, step_used=("2700", month(5).start))
    may = feed_month(store, meter, month(5))
    june = feed_month(store, meter, month(6), sum(may, Decimal(100)), seed=2)
    close_period(store, [tariff], 2026, 5, now=NOW)
    close_period(store, [tariff], 2026, 6, now=NOW)
    first, second = shown(store, "A1-2026-05"), shown(store, "A1-2026-06")
    assert first.determinants[0].used_before == 2700
    assert second.determinants[0].used_before == 2700 + sum(may)
    assert amounts(first)["step2_adder"] == cents((sum(may) - 60) * Decimal("0.05"))
    assert amounts(second)["step2_adder"] == cents(sum(june) * Decimal("0.05"))


def test_a_month_with_a_change_of_the_clock(store: Store, tmp_path: Path) -> None:
    """The meter runs on standard time all year: its midnights are not the month's, its curve has the instants."""
    tariff = written(tmp_path, "berlin", BERLIN_TOU)
    meter = add_meter(store, clock_zone="+01:00", step_s=3600)
    connect(store, meter, tariff)
    window = month(10, zone_name="Europe/Berlin")
    energies = household(745)
    midnight = datetime(2026, 9, 29, 23, tzinfo=UTC)  # 30 September, 00:00 by the meter
    lead = household(23, seed=3)
    feed(store, meter, ReadKind.CURVE, points(midnight, 3600, "100", [*lead, *energies, Decimal(1)]))
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(midnight, "100")])
    assert close_period(store, [tariff], 2026, 10, now=NOW).issued == ("A1-2026-10",)

    truth = {"day": Decimal(0), "night": Decimal(0)}
    for hours, energy in enumerate(energies):
        clock = (window.start + timedelta(hours=hours)).astimezone(zone("Europe/Berlin"))
        truth["day" if clock.weekday() < 5 and 6 <= clock.hour < 22 else "night"] += energy
    bill = shown(store, "A1-2026-10")
    assert bill.window.end - bill.window.start == timedelta(hours=745)
    assert {line.code: line.quantity for line in bill.lines} == {f"energy_{name}": kwh for name, kwh in truth.items()}
    assert bill.currency == "EUR"


def test_two_meters_share_the_month_of_an_exchange(store: Store) -> None:
    tariff = shipped("cn-zhejiang-residential-tou-step")
    old, new = add_meter(store, "M1"), add_meter(store, "M2")
    exchange = local("2026-01-14T10:30")
    connect(store, old, tariff)
    with store.write() as conn:
        row = registry.installations(conn, "U-A1")[0]
        registry.put_installations(
            conn,
            [
                registry.InstallationRow("U-A1", "M1", row.since, exchange, Decimal(1)),
                registry.InstallationRow("U-A1", "M2", exchange, None, Decimal(30)),
            ],
        )
    before = household((exchange - month(1).start) // timedelta(minutes=15), seed=4)
    after = household((month(1).end - exchange) // timedelta(minutes=15), seed=5)
    feed(store, old, ReadKind.CURVE, points(month(1).start, 900, "999990.00", before))  # passes its end
    feed(store, new, ReadKind.CURVE, points(exchange, 900, "0", after))
    assert close_period(store, [tariff], 2026, 1, now=NOW).issued == ("A1-2026-01",)
    total, peak, valley = shown(store, "A1-2026-01").determinants
    assert total.value == sum(before) + 30 * sum(after) == peak.value + valley.value
    assert [part.meter for part in total.parents if isinstance(part, RegisterPart)] == ["M1", "M2"]


def test_a_worked_day_from_the_store(store: Store) -> None:
    """T01 of the worked bills: interval k holds 0.1 x (k + 1) kWh; the account is in force for that day alone."""
    tariff = shipped("example-commercial-tou")
    tariff = replace(tariff, charges=tariff.charges[:1])  # without the charge for a whole month
    meter = add_meter(store)
    start, end = local("2026-07-01T00:00"), local("2026-07-02T00:00")
    connect(store, meter, tariff)
    with store.write() as conn:
        registry.put_accounts(conn, [registry.AccountRow("A1", "U-A1", "C1", tariff.id, start, end)])
    feed(store, meter, ReadKind.CURVE, points(start, 900, "0", [Decimal(k + 1) / 10 for k in range(96)]))
    close_period(store, [tariff], 2026, 7, now=NOW)
    bill = shown(store, "A1-2026-07")
    assert {code: str(amount) for code, amount in amounts(bill).items()} == {
        "energy_sharp": "51.81",
        "energy_peak": "187.51",
        "energy_flat": "88.15",
        "energy_valley": "30.07",
    }
    assert (bill.total, bill.window) == (Decimal("357.54"), Window(start, end))


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_intervals_sum_to_the_register_difference_whatever_the_register(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('bill') / 'headend.db'}")
    tariff = shipped("cn-zhejiang-residential-tou-step")
    start = data.draw(st.integers(0, 99_999_999).map(lambda n: Decimal(n).scaleb(-2)))
    multiplier = data.draw(st.integers(1, 5000))
    energies = [Decimal(n).scaleb(-2) for n in data.draw(st.lists(st.integers(0, 10_000), min_size=672, max_size=672))]
    meter = add_meter(store, step_s=3600)
    connect(store, meter, tariff, multiplier=str(multiplier), step_used=("0", month(2).start))
    feed(store, meter, ReadKind.CURVE, points(month(2).start, 3600, start, energies))
    close_period(store, [tariff], 2026, 2, now=NOW)
    bill = shown(store, "A1-2026-02")
    store.close()
    assert bill.state == "issued"
    total, *periods = bill.determinants
    assert total.value == sum(energies) * multiplier == sum(determinant.value for determinant in periods)


def test_two_closes_at_once_issue_every_bill_once(store: Store) -> None:
    tariff = shipped("example-flat")
    for number in range(12):
        meter = add_meter(store, f"M{number}")
        connect(store, meter, tariff, account=f"A{number}")
        feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "0"), freeze(month(6).end, "10")])
    reports: list[CloseReport] = []
    start = threading.Barrier(2)

    def close() -> None:
        start.wait()
        reports.append(close_period(store, [tariff], 2026, 6, now=NOW))

    threads = [threading.Thread(target=close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = reports
    assert sorted(first.issued + second.issued) == sorted(f"A{number}-2026-06" for number in range(12))
    assert sorted(first.issued + first.already) == sorted(second.issued + second.already)
    assert first.held == second.held == ()
    with store.read() as conn:
        assert conn.scalar(select(func.count()).select_from(schema.bill)) == 12
        assert conn.scalar(select(func.count()).select_from(schema.bill_line)) == 12


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE bill SET total_minor = 1", "an issued bill never changes: correct it with a new bill"),
        ("UPDATE bill SET state = 'held'", "an issued bill never changes: correct it with a new bill"),
        ("DELETE FROM bill", "an issued bill never changes: correct it with a new bill"),
        ("UPDATE bill_line SET amount_minor = 1", "rows of this table are never changed or deleted"),
        ("DELETE FROM bill_line", "rows of this table are never changed or deleted"),
        ("UPDATE bill_determinant SET value = '1'", "rows of this table are never changed or deleted"),
        ("DELETE FROM bill_determinant", "rows of this table are never changed or deleted"),
        ("UPDATE bill_register SET end_units = 1", "rows of this table are never changed or deleted"),
        ("DELETE FROM bill_register", "rows of this table are never changed or deleted"),
        ("DELETE FROM bill_interval", "rows of this table are never changed or deleted"),
        ("UPDATE bill_hold SET what = ''", "rows of this table are never changed or deleted"),
        ("DELETE FROM bill_used", "rows of this table are never changed or deleted"),
        ("UPDATE tariff_version SET text = ''", "rows of this table are never changed or deleted"),
        ("UPDATE bill_derived SET value = '1'", "rows of this table are never changed or deleted"),
        ("DELETE FROM bill_finding", "rows of this table are never changed or deleted"),
        ("UPDATE bill_release SET reason = ''", "rows of this table are never changed or deleted"),
        ("DELETE FROM bill_adjusted", "rows of this table are never changed or deleted"),
        ("UPDATE bill_adjustment SET amount_minor = 1", "rows of this table are never changed or deleted"),
        ("UPDATE billing_run SET issued = 9", "rows of this table are never changed or deleted"),
        ("DELETE FROM tariff_spans", "rows of this table are never changed or deleted"),
        (
            "INSERT INTO bill_line (bill_key, line, code, text, quantity, unit, price, amount_minor, determinant) "
            "SELECT key, 99, 'x', 'x', '1', 'kWh', '1', 100, 'x' FROM bill",
            "an issued bill takes no further parts",
        ),
    ],
)
def test_the_database_itself_keeps_issued_bills(issued: Store, statement: str, message: str) -> None:
    with issued.read() as conn:
        before = bills.bills(conn, Window(month(1).start, month(12).end))
    with pytest.raises(StoreError, match=message), issued.write() as conn:
        conn.execute(text(statement))
    with issued.read() as conn:
        assert bills.bills(conn, Window(month(1).start, month(12).end)) == before


@pytest.fixture
def issued(store: Store) -> Store:
    """A store with issued bills that have rows in every table, one of them held first."""
    tariff = shipped("cn-zhejiang-residential-tou-step")
    meter = add_meter(store, step_s=3600)
    connect(store, meter, tariff, step_used=("0", month(2).start))
    assert close_period(store, [tariff], 2026, 2, now=NOW).held
    feed(store, meter, ReadKind.CURVE, points(month(2).start, 3600, "0", household(672)))
    assert close_period(store, [tariff], 2026, 2, now=NOW).issued
    _put_rest(store)
    with store.read() as conn:
        for table in METADATA.tables.values():
            if table.name.startswith(("bill", "tariff")):
                assert conn.scalar(select(func.count()).select_from(table)), table.name
    return store


def _put_rest(store: Store) -> None:
    """A bill with what the one of `issued` lacks: a release, a finding, a number from the registry, an adjustment."""
    odd = Hold("use_change", "four times last month", "look", count=300, review=True)
    contract = Determinant("contract_kw", Decimal(80), "kW", parents=(Derived("account", Decimal(80)),))
    with store.write() as conn:
        made = adjustments.make(conn, "A1-2026-02", amount=Decimal("3.20"), reason="wrong", made_by="Li", now=NOW)
        bill = Bill("A9-2026-02", "A9", "U9", month(2), "held", "t", "1", "", SHANGHAI, "CNY", holds=(odd,))
        bills.put(conn, bill, NOW)
        release(conn, bill.number, "the meter is right", "Li", NOW)
        line = adjustments.line_of(made.adjustment)
        done = replace(bill, state="issued", lines=(line,), determinants=(contract,))
        taken = {bill.number: [made.adjustment.number]}
        assert bills.put_many(conn, [done], NOW, taken) == {bill.number: "issued"}


def test_tables_on_postgresql_can_not_be_emptied(new_pg_url: str) -> None:
    opened = open_store(new_pg_url)
    for table in ("bill", "bill_line", "bill_hold", "tariff_version"):
        with pytest.raises(StoreError, match="never change"), opened.write() as conn:
            conn.execute(text(f"TRUNCATE {table} CASCADE"))
    opened.close()


def test_the_migration_makes_the_tables_that_the_code_uses(store: Store) -> None:
    with store.read() as conn:
        assert compare_metadata(MigrationContext.configure(conn), METADATA) == []


def test_what_can_not_be_closed_is_refused(sqlite_store: Store) -> None:
    tariff = shipped("example-flat")
    connect(sqlite_store, add_meter(sqlite_store), tariff)
    with pytest.raises(UsageError) as unknown:
        close_period(sqlite_store, [tariff], 2026, 6, ["A11"], now=NOW)
    assert str(unknown.value) == "unknown account 'A11' -> did you mean A1?"
    with pytest.raises(UsageError) as early:
        close_period(sqlite_store, [tariff], 2026, 6, now=month(6).end - timedelta(seconds=1))
    assert str(early.value) == (
        "2026-06 ends at 2026-06-30 16:00 UTC for account A1, and has not ended yet -> close it after that"
    )
    # Before its first day an account has no bill.
    assert close_period(sqlite_store, [tariff], 2024, 12, now=NOW) == CloseReport()


def test_accounts_can_be_closed_one_by_one(sqlite_store: Store) -> None:
    tariff = shipped("example-flat")
    for name in ("A1", "A2"):
        meter = add_meter(sqlite_store, f"M-{name}")
        connect(sqlite_store, meter, tariff, account=name)
        feed(sqlite_store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "0"), freeze(month(6).end, "10")])
    assert close_period(sqlite_store, [tariff], 2026, 6, ["A2"], now=NOW).issued == ("A2-2026-06",)
    report = close_period(sqlite_store, [tariff], 2026, 6, now=NOW)
    assert (report.issued, report.already) == (("A1-2026-06",), ("A2-2026-06",))
    assert shown(sqlite_store, "A1-2026-06").zone == SHANGHAI
    assert shown(sqlite_store, "A1-2026-06").determinants[0].counts == ((Quality.VALID, 2),)

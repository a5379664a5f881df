"""Whole bills, from readings in a store to the cent, beside a slow biller that shares no code with the product."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest

from billing import store as bills
from billing.corrections import correct
from billing.model import Bill
from billing.review import Rules
from billing.run import close_period
from headend import ingest
from headend.model import Quality
from headend.store import Store, open_store, registry
from tests.oracle_biller import Biller
from tests.oracle_plan import Charge, Plan, Stay, Version, midnight, month_edges
from tests.oracle_scenarios import KEEP_NONE, Maker, outcomes_of, plans, stored

NOW = datetime(2027, 6, 1, tzinfo=UTC)
ZONE = "Europe/Berlin"


@pytest.fixture
def new_store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'oracle.db'}")
    (tmp_path / "tariffs").mkdir()
    yield store
    store.close()


def found(bill: Bill) -> list[tuple[str, Fraction, Fraction]]:
    return sorted((line.code, Fraction(line.quantity), Fraction(line.amount)) for line in bill.lines)


def closed(store: Store, folder: Path, made: Sequence[Plan]) -> dict[tuple[str, int, int], Bill]:
    """Every bill of the plans, month after month, each month closed for all of them at once."""
    tariffs = stored(store, folder, made)
    issued: dict[tuple[str, int, int], Bill] = {}
    for year, month in made[0].months:
        report = close_period(store, tariffs, year, month, now=NOW, rules=Rules(enabled=False))
        assert not report.held, [(number, [hold.what for hold in holds]) for number, holds in report.held]
        with store.read() as conn:
            for plan in made:
                if (bill := bills.bill(conn, f"{plan.name}-{year}-{month:02d}")) is not None:
                    issued[plan.name, year, month] = bill
    return issued


def agree(store: Store, folder: Path, made: Sequence[Plan]) -> int:
    """Compare every line and total; how many bills there were."""
    issued = closed(store, folder, made)
    for plan in made:
        biller = Biller(plan)
        for year, month in plan.months:
            start, end = month_edges(year, month, plan.tz)
            if plan.since >= end or (plan.until is not None and plan.until <= start):
                assert (plan.name, year, month) not in issued
                continue
            bill, expected = issued[plan.name, year, month], biller.bill(year, month)
            assert found(bill) == expected.shown(), f"{plan.name} {year}-{month:02d}"
            assert Fraction(bill.total or 0) == expected.total
    return len(issued)


@pytest.mark.parametrize("month", [3, 10])
def test_random_accounts_come_to_the_same_bill_by_a_slow_biller(new_store: Store, tmp_path: Path, month: int) -> None:
    """Months in which Berlin's clock changes; half of the accounts are there, half where it never does."""
    assert agree(new_store, tmp_path / "tariffs", plans(100 + month, 12, [(2026, month)])) == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "count", "months", "step_s"),
    [
        (11, 90, [(2026, 3), (2026, 4)], 3600),
        (12, 60, [(2026, 9), (2026, 10), (2026, 11)], 1800),
        (13, 70, [(2026, 6), (2026, 7), (2026, 8)], 3600),
        (14, 30, [(2026, 10)], 900),
        (15, 50, [(2026, 11), (2026, 12), (2027, 1)], 3600),
    ],
)
def test_hundreds_of_accounts_over_months(
    new_store: Store, tmp_path: Path, seed: int, count: int, months: list[tuple[int, int]], step_s: int
) -> None:
    """Used before in the step year, energy carried on, demand of months before, years that begin within the range."""
    assert agree(new_store, tmp_path / "tariffs", plans(seed, count, months, step_s)) >= count


NOT_BILLED = {"export_absent", "mixed_step_years"}
"""What a version of other kinds can't begin with within a month: net metering, another step year."""


@pytest.mark.slow
def test_versions_of_other_kinds_within_a_month(new_store: Store, tmp_path: Path) -> None:
    """From one price to hours, from hours to steps, with and without demand: each part by its own."""
    made = plans(21, 160, [(2026, 3)], mixed=True)
    tariffs = stored(new_store, tmp_path / "tariffs", made)
    report = close_period(new_store, tariffs, 2026, 3, now=NOW, rules=Rules(enabled=False))
    assert {hold.code for _, holds in report.held for hold in holds} == NOT_BILLED
    assert len(report.issued) > 140
    with new_store.read() as conn:
        for plan in made:
            bill = bills.bill(conn, f"{plan.name}-2026-03")
            if bill is not None and bill.state == "issued":
                assert found(bill) == Biller(plan).bill(2026, 3).shown(), plan.name


# -- where two features meet -------------------------------------------------------------------------------------------


def flat(name: str, *charges: Charge, multiplier: str = "1", seed: int = 7, **more: Any) -> Plan:
    """An account of March in Berlin by one version with these charges."""
    start, end = month_edges(2026, 3, Maker(1, ZONE, [(2026, 3)]).plan().tz)
    chance, count = Random(seed), int((end - start).total_seconds()) // 3600
    rows = [tuple(Decimal(chance.randint(0, 300)).scaleb(-2) for _ in range(4)) for _ in range(count)]
    version = Version(date(2026, 1, 1), None, list(charges), **more)
    stay = Stay(start, 3600, multiplier, rows)  # type: ignore[arg-type]
    return Plan(ZONE, [version], start, None, [(start, {"people": "3"})], [stay], None, [(2026, 3)], name)


HOURS = [{"periods": {"peak": ["06:00-22:00"], "valley": ["22:00-06:00"]}}]
SHARED: Charge = {
    "kind": "step_tou",
    "unit": "kWh",
    "period": "month",
    "split": "pro_rata",
    "tables": [
        {
            "steps": [
                {"up_to": "333.3", "prices": {"peak": "0.6", "valley": "0.3"}},
                {"prices": {"peak": "0.9", "valley": "0.5"}},
            ]
        }
    ],
    "seasons": HOURS,
}


def test_a_bill_does_not_depend_on_who_is_billed_beside_it(new_store: Store, tmp_path: Path) -> None:
    """Accounts of one tariff are rated together: one multiplier of four places gives no other account more places."""
    alone, beside = flat("alone", SHARED), flat("beside", SHARED, multiplier="1.2345", seed=8)
    tariffs = stored(new_store, tmp_path / "tariffs", [alone, beside])
    first = flat("alone", SHARED)
    with new_store.write() as conn:
        registry.put_accounts(conn, [replace(row, tariff="alone") for row in registry.accounts(conn)])
    report = close_period(new_store, tariffs, 2026, 3, now=NOW, rules=Rules(enabled=False))
    assert len(report.issued) == 2
    with new_store.read() as conn:
        together = [bills.bill(conn, f"{name}-2026-03") for name in ("alone", "beside")]
    for plan, bill in zip((first, beside), together, strict=True):
        assert bill is not None
        assert found(bill) == Biller(plan).bill(2026, 3).shown()


def test_a_demand_of_peak_hours_follows_the_hours_that_hold_on_its_day(new_store: Store, tmp_path: Path) -> None:
    """Peak hours that change on 16 March: a maximum at noon counts by the old hours until then, not after."""
    asked: Charge = {"kind": "demand", "unit": "kW", "measured_by": "intervals", "block_min": 60, "price": "10"}
    old: Charge = asked | {"period": "peak", "seasons": HOURS}
    late = [{"periods": {"peak": ["18:00-22:00"], "valley": ["22:00-18:00"]}}]
    plan = flat("hours", old)
    cut = date(2026, 3, 16)
    plan.versions[0].end = cut
    plan.versions.append(Version(cut, None, [asked | {"period": "peak", "seasons": late}]))
    for number, day in enumerate((10, 20)):
        noon = midnight(date(2026, 3, day), plan.tz) + timedelta(hours=12)
        place = int((noon - plan.stays[0].start).total_seconds()) // 3600
        plan.stays[0].rows[place] = (Decimal(5 + 4 * number), *plan.stays[0].rows[place][1:])
    assert agree(new_store, tmp_path / "tariffs", [plan]) == 1
    with new_store.read() as conn:
        bill = bills.bill(conn, "hours-2026-03")
    assert bill is not None
    assert {line.quantity for line in bill.lines} == {Decimal(5)}


def test_a_kw_above_the_contract_is_not_asked_for_again_by_a_ratchet(new_store: Store, tmp_path: Path) -> None:
    """February 20 kW, March 15 kW, contract 4: 80 % of 20 are 16 kW, of which 15 - 1.05 x 4 are billed as excess."""
    charge: Charge = {"kind": "demand", "unit": "kW", "measured_by": "intervals", "block_min": 60, "price": "10"}
    charge |= {"contract_kw": "4", "ratchet": {"months": 3, "percent": "80"}}
    plan = flat("ratchet", charge)
    plan.months.insert(0, (2026, 2))
    plan.since = month_edges(2026, 2, plan.tz)[0]
    plan.terms = [(plan.since, {"people": "3"})]
    (stay,) = plan.stays
    count = int((stay.start - plan.since).total_seconds()) // 3600
    before = [(Decimal(20 if number == 30 else 1), Decimal(0), Decimal(0), Decimal(0)) for number in range(count)]
    rows = [*before, *stay.rows]
    rows[count + 50] = (Decimal(15), *rows[count + 50][1:])
    plan.stays = [Stay(plan.since, 3600, "1", rows)]
    assert agree(new_store, tmp_path / "tariffs", [plan]) == 2
    with new_store.read() as conn:
        bill = bills.bill(conn, "ratchet-2026-03")
    assert bill is not None
    kw = {line.code: line.quantity for line in bill.lines}
    assert kw == {"basic_demand": Decimal("5.2"), "basic_excess": Decimal("10.8")}


def test_a_register_put_right_late_corrects_both_months(new_store: Store, tmp_path: Path) -> None:
    """The register at the month's end was 40 kWh too low: March costs more, April less, and its yearly steps start
    higher; the corrected bills are those of a biller that knew it from the start."""
    steps: Charge = {"kind": "step", "unit": "kWh", "period": "year", "year_start": "03-01"}
    steps["tables"] = [
        {"steps": [{"up_to": "1100", "price": "0.5"}, {"up_to": "1500.5", "price": "0.61"}, {"price": "0.9"}]}
    ]
    hours: Charge = {"kind": "tou", "unit": "kWh", "prices": {"peak": "0.1", "valley": "0"}, "seasons": HOURS}
    wrong = flat("late", steps, hours)
    wrong.months.append((2026, 4))
    (stay,) = wrong.stays
    cut = len(stay.rows)
    stay.rows += [(Decimal(45 if number == 0 else 1), *row[1:]) for number, row in enumerate(stay.rows[:720])]
    right = copy.deepcopy(wrong)
    for place, more in ((cut - 1, 40), (cut, -40)):
        energy, *_ = row = right.stays[0].rows[place]
        right.stays[0].rows[place] = (energy + more, row[1], row[2], row[3])
    tariffs = stored(new_store, tmp_path / "tariffs", [wrong])
    for number in (3, 4):
        assert close_period(new_store, tariffs, 2026, number, now=NOW, rules=Rules(enabled=False)).issued
    with new_store.write() as conn:
        for number, outcome in enumerate(outcomes_of(conn, right)):
            at = stay.start + timedelta(hours=cut)
            rows = [row for row in outcome.readings if (row.at, row.quantity) == (at, "import_kwh")]
            edits = tuple(replace(row, quality=Quality.EDITED, taken_at=NOW - timedelta(days=1)) for row in rows)
            if edits:
                made = replace(outcome, readings=edits, started_at=NOW + timedelta(seconds=number))
                ingest.write(conn, [made], KEEP_NONE)
    before, after = Biller(wrong), Biller(right)
    with new_store.write() as conn:
        correct(conn, "late-2026-03", "register read wrongly", tariffs, Rules(enabled=False), now=NOW, chain=True)
        for number in (3, 4):
            old, new = (bills.bill(conn, f"late-2026-{number:02d}{more}") for more in ("", ".1"))
            assert old is not None
            assert new is not None
            assert (found(old), found(new)) == (before.bill(2026, number).shown(), after.bill(2026, number).shown())
            assert old.total != new.total


# -- the same prices twice ---------------------------------------------------------------------------------------------


def split(plan: Plan, chance: Random) -> Plan:
    """The plan with its only version ended on a day within the month, and the same prices from that day on."""
    other = copy.deepcopy(plan)
    other.name = f"{plan.name}x"
    (version,) = other.versions
    later = copy.deepcopy(version)
    assert not any(charge.get("events") for charge in version.charges)
    version.end = later.first = date(*plan.months[0], chance.randint(2, 28))
    other.versions.append(later)
    return other


def unsplit(seed: int, count: int) -> list[Plan]:
    """Plans of a whole month by one version. Steps shared out over periods are left out: each part shares out its own
    steps over its own periods."""
    made: list[Plan] = []
    number = 0
    while len(made) < count:
        number += 1
        plan = Maker(seed + number, ("Asia/Shanghai", ZONE)[number % 2], [(2026, 3)]).plan()
        whole = plan.since == month_edges(2026, 3, plan.tz)[0] and plan.until is None
        charges = plan.versions[0].charges
        shared = any(charge.get("split") == "pro_rata" for charge in charges)
        if len(plan.versions) == 1 and len(plan.terms) == 1 and whole and not shared:
            plan.name = f"p{seed}n{number}"
            for charge in charges:
                charge.pop("events", None)
            made.append(plan)
    return made


def same_in_parts(store: Store, folder: Path, seed: int, count: int) -> None:
    chance = Random(seed)
    whole = unsplit(seed, count)
    issued = closed(store, folder, [*whole, *(split(plan, chance) for plan in whole)])
    for plan in whole:
        one, parts = issued[plan.name, 2026, 3], issued[f"{plan.name}x", 2026, 3]
        assert len(parts.segments) == 2
        lines = len(one.lines) + len(parts.lines)
        on_top = Fraction(2)  # an adjustment and a tax are made of lines that were rounded
        difference = abs(Fraction(one.total or 0) - Fraction(parts.total or 0))
        assert difference <= Fraction(lines, 200) * on_top, (plan.name, one.total, parts.total)


def test_a_price_change_to_the_same_prices_changes_the_rounding_only(new_store: Store, tmp_path: Path) -> None:
    same_in_parts(new_store, tmp_path / "tariffs", 5, 4)


@pytest.mark.slow
def test_many_price_changes_to_the_same_prices(new_store: Store, tmp_path: Path) -> None:
    same_in_parts(new_store, tmp_path / "tariffs", 5000, 60)

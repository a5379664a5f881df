"""Worked bills to the cent: prices, limits and windows from the sources named in the vectors, arithmetic by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from billing import store as bills
from billing.calendar import spans
from billing.charges import (
    CapacityCharge,
    Charge,
    DemandCharge,
    EnergyCharge,
    FixedCharge,
    PeriodWindow,
    Policy,
    PowerFactorCharge,
    Schedule,
    Season,
    Step,
    StepCharge,
    StepTable,
    StepTou,
    StepTouCharge,
    StepTouTable,
    Surcharge,
    Tariff,
)
from billing.model import BillLine, Determinant, RegisterEnd, RegisterPart
from billing.rating import rate
from billing.rating.power_factor import adjustment_percent, power_factor
from billing.run import close_period
from config.tariff_files import load_tariff
from headend.civil import month_span, zone
from headend.model import Quality, ReadKind, Source, Window
from headend.quantities import to_units
from headend.store import Store
from headend.store.terms import SupplyRow, put_supplies
from tests import worked_ids
from tests.billing_support import NOW, add_meter, connect, feed, freeze, written

VECTORS = json.loads((Path(__file__).parent / "vectors" / "worked_bills.json").read_text(encoding="utf-8"))
CASES = worked_ids.cases()
TARIFFS = Path(__file__).parents[1] / "config" / "tariffs"
ALL_MONTHS = tuple(range(1, 13))
SHANGHAI = zone("Asia/Shanghai")
TESTED: set[str] = set()


def worked(*ids: str) -> pytest.MarkDecorator:
    """The test runs for these cases."""
    TESTED.update(ids)
    return pytest.mark.parametrize("id", ids)


def month(number: int) -> Window:
    return Window(*month_span(2026, number, SHANGHAI))


def shipped(name: str) -> Tariff:
    return load_tariff(TARIFFS / f"{name}.toml")


def made(*charges: Charge) -> Tariff:
    day = date(2026, 1, 1)
    return Tariff("t", "1", "t", "a test", day, True, day, None, "Asia/Shanghai", "CNY", charges)


def stepped(inputs: dict[str, Any], period: str) -> Tariff:
    limits = [Decimal(limit) for limit in inputs[f"step_limits_{period}"]]
    prices = [Decimal(price) for price in inputs["prices"]]
    steps = tuple(Step(limit, price) for limit, price in zip([*limits, None], prices, strict=True))
    return made(StepCharge(period, (StepTable(ALL_MONTHS, steps),)))


def total(value: str, used_before: str | None = None) -> Determinant:
    return Determinant("import_kwh", Decimal(value), "kWh", None if used_before is None else Decimal(used_before))


def determinants_by_period(energies: Mapping[str, Any]) -> dict[str, Determinant]:
    """Energies of TOU periods by their names."""
    names = {f"import_kwh_{period}": Decimal(energy) for period, energy in energies.items()}
    return {name: Determinant(name, energy, "kWh") for name, energy in names.items()}


def hours(*periods: str) -> Schedule:
    """A day in equal parts, one for each period."""
    size = 1440 // len(periods)
    windows = tuple(PeriodWindow(name, n * size, (n + 1) * size) for n, name in enumerate(periods))
    return Schedule((Season(ALL_MONTHS, "all", windows),))


def assert_as_worked(case: dict[str, Any], lines: list[BillLine]) -> None:
    found = [(line.code, line.quantity, line.unit, line.price, str(line.amount)) for line in lines]
    expected = [
        (row["code"], Decimal(row["qty"]), row["unit"], Decimal(row["rate"]), row["amount"])
        for row in case["expected"]["lines"]
    ]
    assert found == expected
    assert str(sum(line.amount for line in lines)) == case["expected"]["total"]


@worked("R01", "R02", "R04", "R06", "R07")
def test_yearly_steps_as_shipped_for_zhejiang(id: str) -> None:
    inputs = CASES[id]["inputs"]
    tariff = shipped("cn-zhejiang-residential-step")
    lines = rate.lines(tariff, {"import_kwh": total(inputs["kwh"], inputs["ytd_kwh"])}, month(6))
    assert_as_worked(CASES[id], lines)


@worked("R08")
def test_time_of_use_with_yearly_step_additions(id: str) -> None:
    inputs = CASES[id]["inputs"]
    determinants = determinants_by_period(inputs["kwh"])
    determinants["import_kwh"] = total(str(sum(one.value for one in determinants.values())), inputs["ytd_kwh"])
    lines = rate.lines(shipped("cn-zhejiang-residential-tou-step"), determinants, month(6))
    assert_as_worked(CASES[id], lines)


@worked("R10", "R11")
def test_monthly_steps_with_limits_by_month_as_shipped_for_guangdong(id: str) -> None:
    inputs = CASES[id]["inputs"]
    tariff = shipped("cn-guangdong-residential-step")
    assert_as_worked(CASES[id], rate.lines(tariff, {"import_kwh": total(inputs["kwh"])}, month(inputs["month"])))


@worked("R09")
def test_a_table_of_prices_by_step_and_period_split_pro_rata(id: str) -> None:
    inputs = CASES[id]["inputs"]
    energies = determinants_by_period(inputs["kwh"])
    energies["import_kwh"] = total(str(sum(one.value for one in energies.values())), inputs["ytd_kwh"])
    limits = [Decimal(limit) for limit in inputs["step_limits_year"]]
    steps = tuple(
        StepTou(limit, tuple((name, Decimal(price)) for name, price in prices.items()))
        for limit, prices in zip([*limits, None], inputs["table"], strict=True)
    )
    tables = (StepTouTable(ALL_MONTHS, steps),)
    tariff = made(StepTouCharge("year", tables, hours(*inputs["kwh"]), split=inputs["split"]))
    assert_as_worked(CASES[id], rate.lines(tariff, energies, month(6)))


def test_a_bill_rounded_once_instead_of_line_by_line() -> None:
    case = CASES["R10"]
    tariff = replace(shipped("cn-guangdong-residential-step"), policy=Policy(rounding="bill"))
    *lines, rounding = rate.lines(tariff, {"import_kwh": total(case["inputs"]["kwh"])}, month(case["inputs"]["month"]))
    assert_as_worked(case, lines)
    assert (rounding.code, rounding.quantity, rounding.unit, rounding.price) == (
        "rounding",
        Decimal("-0.01"),
        "CNY",
        Decimal(1),
    )
    assert str(sum(line.amount for line in [*lines, rounding])) == case["expected"]["total_if_rounded_once"]


@worked("R13")
def test_yearly_steps_of_another_province(id: str) -> None:
    inputs = CASES[id]["inputs"]
    determinants = {"import_kwh": total(inputs["kwh"], inputs["ytd_kwh"])}
    assert_as_worked(CASES[id], rate.lines(stepped(inputs, "year"), determinants, month(6)))


@worked("R14")
def test_monthly_steps_start_again_each_month(id: str) -> None:
    inputs = CASES[id]["inputs"]
    # Energy used before means nothing to monthly steps.
    determinants = {"import_kwh": total(inputs["kwh"], "9999")}
    assert_as_worked(CASES[id], rate.lines(stepped(inputs, "month"), determinants, month(6)))


@worked("M01", "M02")
def test_register_difference_with_multiplier_and_rollover(id: str) -> None:
    inputs = CASES[id]["inputs"]
    multiplier = Fraction(inputs["ct"]) * Fraction(inputs["pt"]) if "ct" in inputs else Fraction(inputs["multiplier"])
    assert multiplier.denominator == 1
    ends = [
        RegisterEnd(moment, to_units(Decimal(inputs[name])), Quality.VALID, Source.DAILY_FREEZE, 1)
        for name, moment in (("start", month(6).start), ("end", month(6).end))
    ]
    wrap_units = to_units(Decimal(10) ** inputs.get("digits", 6))
    part = RegisterPart(1, "M1", "import_kwh", ends[0], ends[1], wrap_units, Decimal(int(multiplier)))
    tariff = made(EnergyCharge(Decimal(inputs["price"])))
    assert_as_worked(CASES[id], rate.lines(tariff, {"import_kwh": total(str(part.value))}, month(6)))


REGISTERS = """[[charges]]
kind = "tou"
unit = "kWh"
measured_by = "registers"
registers = { peak = "import_kwh_t2", flat = "import_kwh_t3", valley = "import_kwh_t4" }
rest = "flat"
prices = { peak = "1.028", flat = "0.6425", valley = "0.2891" }
[[charges.seasons]]
months = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
days = "all"
periods = { peak = ["08:00-12:00"], flat = ["12:00-24:00"], valley = ["00:00-08:00"] }
"""


@worked("M04", "M06")
def test_period_registers_with_the_rest_and_the_loss_in_the_flat_period(id: str, store: Store, tmp_path: Path) -> None:
    inputs, june = CASES[id]["inputs"], month(6)
    tariff = written(tmp_path, "t", 'zone = "Asia/Shanghai"\n' + REGISTERS)
    charge = rate.tou_charge(tariff)
    assert charge is not None
    assert dict(charge.prices) == {name: Decimal(price) for name, price in inputs["price"].items()}
    energies = inputs.get("kwh") or {name: inputs[name] for name, _ in charge.prices}
    meter = add_meter(store)
    connect(store, meter, tariff)
    total_kwh = inputs.get("total") or str(sum(map(Decimal, energies.values())))
    for quantity, value in {"import_kwh": total_kwh, **{q: energies[p] for p, q in charge.registers}}.items():
        ends = [freeze(june.start, "0", quantity=quantity), freeze(june.end, value, quantity=quantity)]
        feed(store, meter, ReadKind.DAILY_FREEZE, ends)
    if "transformer_loss_kwh" in inputs:
        feed(
            store,
            meter,
            ReadKind.DAILY_FREEZE,
            [freeze(at, "5", quantity="import_kvarh") for at in (june.start, june.end)],
        )
        no_load_kw = Decimal(inputs["transformer_loss_kwh"]) / 720  # the month has 720 hours
        supply = SupplyRow("U-A1", june.start, None, Decimal(630), round(no_load_kw, 4), Decimal(0))
        with store.write() as conn:
            put_supplies(conn, [supply])
    report = close_period(store, [tariff], 2026, 6, now=NOW)
    assert report.held == ()
    with store.read() as conn:
        bill = bills.bill(conn, report.issued[0])
    assert bill is not None
    assert_as_worked(CASES[id], list(bill.lines))


@worked("T01", "T03")
def test_a_day_of_intervals_by_seasonal_windows(id: str) -> None:
    inputs = CASES[id]["inputs"]
    tariff = shipped("example-commercial-tou")
    charge = rate.tou_charge(tariff)
    assert charge is not None
    start = datetime(2026, inputs["month"], 1, tzinfo=SHANGHAI).astimezone(UTC)
    day = Window(start, start + timedelta(days=1))
    energies: dict[str, Decimal] = {}
    for k in range(96):
        at = start + timedelta(minutes=15 * k)
        (period,) = [s.period for s in spans(charge.schedule, day, tariff.zone) if s.start <= at < s.end]
        energies[period] = energies.get(period, Decimal(0)) + Decimal(k + 1) / 10
    determinants = determinants_by_period(energies)
    assert_as_worked(CASES[id], rate.lines(replace(tariff, charges=(charge,)), determinants, day))
    prices = {name: Decimal(price) for name, price in inputs["prices"].items()}
    assert dict(charge.prices) == prices


@worked("F01", "F02", "F03", "F04", "F06", "F07")
def test_power_factor_adjustment_of_an_amount(id: str) -> None:
    inputs = CASES[id]["inputs"]
    factor = power_factor(Decimal(inputs["active_kwh"]), Decimal(inputs["reactive_kvarh"]))
    assert factor is not None
    assert str(factor) == CASES[id]["expected"]["pf"]
    base = FixedCharge("base", Decimal(inputs["base_amount"]))
    tariff = made(base, PowerFactorCharge(Decimal(inputs["pf_standard"]), ("fixed",)))
    determinants = {"power_factor": Determinant("power_factor", factor, "")}
    _, line = rate.lines(tariff, determinants, month(6))
    assert_as_worked(CASES[id], [line])


@pytest.mark.parametrize("standard", ["0.90", "0.85", "0.80"])
def test_the_whole_power_factor_table(standard: str) -> None:
    """Every row of the table, from 1.00 down to 0.40."""
    table = VECTORS["pf_table_percent"][standard]
    assert len(table) == 61
    assert {factor: adjustment_percent(Decimal(standard), Decimal(factor)) for factor in table} == {
        factor: Decimal(percent) for factor, percent in table.items()
    }


@worked("B02")
def test_funds_outside_the_adjustment_base(id: str) -> None:
    inputs = CASES[id]["inputs"]
    (fund,) = inputs["funds"]
    tariff = made(
        EnergyCharge(Decimal(inputs["price"])),
        Surcharge(f"fund_{fund}", Decimal(inputs["funds"][fund])),
        PowerFactorCharge(Decimal(inputs["pf_standard"]), ("energy", "demand")),
    )
    determinants = {
        "import_kwh": total(inputs["kwh"]),
        "power_factor": Determinant("power_factor", Decimal(inputs["pf"]), ""),
    }
    assert_as_worked(CASES[id], rate.lines(tariff, determinants, month(6)))


@worked("D01")
def test_capacity_for_a_month(id: str) -> None:
    inputs = CASES[id]["inputs"]
    tariff = made(CapacityCharge(Decimal(inputs["price"]), Decimal(inputs["capacity_kva"])))
    for number in (2, 6, 7):  # whatever the month's length
        assert_as_worked(CASES[id], rate.lines(tariff, {}, month(number)))


@worked("D05")
def test_capacity_for_some_days_of_a_month(id: str) -> None:
    """To the cent as worked; the line counts the days, so that quantity times price is the amount."""
    case, july = CASES[id], month(7)
    tariff = made(CapacityCharge(Decimal(case["inputs"]["price"]), Decimal(case["inputs"]["capacity_kva"])))
    window = Window(july.end - timedelta(days=case["inputs"]["days"]), july.end)
    (line,) = rate.lines(tariff, {}, window)
    (row,) = case["expected"]["lines"]
    assert (line.code, str(line.amount)) == (row["code"], row["amount"])
    assert (line.quantity, line.unit, line.price) == (Decimal(13), "day", Decimal("535.5"))


@worked("D02", "D03", "D07")
def test_maximum_demand_with_contract_and_discount(id: str) -> None:
    inputs = CASES[id]["inputs"]
    contract = Decimal(inputs["contract_kw"]) if "contract_kw" in inputs else None
    discount = (Decimal(inputs["threshold"]), Decimal(10)) if "threshold" in inputs else None
    tariff = made(DemandCharge(Decimal(inputs["price"]), "register", contract_kw=contract, discount=discount))
    determinants = {"import_max_kw": Determinant("import_max_kw", Decimal(inputs["max_demand_kw"]), "kW")}
    if "kwh" in inputs:
        determinants["import_kwh"] = total(inputs["kwh"])
    assert_as_worked(CASES[id], rate.lines(tariff, determinants, month(6)))


def test_every_worked_bill_is_tested_in_one_place() -> None:
    assert set(worked_ids.RATING) == TESTED
    assert sorted(worked_ids.ALL) == sorted(CASES)
    assert len(CASES) == 40
    for module, ids in (("test_back_billing", worked_ids.BACK_BILLING), ("test_late", worked_ids.LATE)):
        text = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        assert [id for id in ids if id not in text] == [], f"{module} names each of its cases"
    assert all(case["source"]["ref"] for case in CASES.values())


def test_a_period_without_energy_still_has_its_time_of_use_line() -> None:
    tariff = shipped("cn-zhejiang-residential-tou-step")
    determinants = {
        "import_kwh_peak": Determinant("import_kwh_peak", Decimal(0), "kWh"),
        "import_kwh_valley": Determinant("import_kwh_valley", Decimal("1.5"), "kWh"),
        "import_kwh": total("1.5", "0"),
    }
    lines = rate.lines(tariff, determinants, month(6))
    assert [(line.code, str(line.amount)) for line in lines] == [("energy_peak", "0.00"), ("energy_valley", "0.43")]


def test_a_fixed_charge_needs_no_energy() -> None:
    (line,) = rate.lines(made(FixedCharge("service", Decimal("12.00"), "service charge")), {}, month(2))
    expected = BillLine("service", "service charge", Decimal(1), "month", Decimal(12), Decimal("12.00"), "month")
    assert line == expected


def test_yearly_steps_refuse_to_guess_what_was_used_before() -> None:
    with pytest.raises(ValueError, match="used before in the step year"):
        rate.lines(stepped(CASES["R13"]["inputs"], "year"), {"import_kwh": total("10")}, month(6))

"""Worked bills to the cent: prices, limits and windows from the sources named in the vectors, arithmetic by hand."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from billing import rate
from billing.calendar import spans
from billing.model import (
    BillLine,
    CapacityCharge,
    Charge,
    DemandCharge,
    Determinant,
    EnergyCharge,
    FixedCharge,
    PowerFactorCharge,
    RegisterEnd,
    RegisterPart,
    Step,
    StepCharge,
    StepTable,
    Surcharge,
    Tariff,
)
from billing.power_factor import adjustment_percent, power_factor
from config.tariff_files import load_tariff
from headend.civil import month_span, zone
from headend.model import Quality, Source, Window
from headend.quantities import to_units

VECTORS = json.loads((Path(__file__).parent / "vectors" / "worked_bills.json").read_text(encoding="utf-8"))
CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in VECTORS["cases"]}
TARIFFS = Path(__file__).parents[1] / "config" / "tariffs"
ALL_MONTHS = tuple(range(1, 13))
SHANGHAI = zone("Asia/Shanghai")


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


def assert_as_worked(case: dict[str, Any], lines: list[BillLine]) -> None:
    found = [(line.code, line.quantity, line.unit, line.price, str(line.amount)) for line in lines]
    expected = [
        (row["code"], Decimal(row["qty"]), row["unit"], Decimal(row["rate"]), row["amount"])
        for row in case["expected"]["lines"]
    ]
    assert found == expected
    assert str(sum(line.amount for line in lines)) == case["expected"]["total"]


@pytest.mark.parametrize("id", ["R01", "R02", "R04", "R06", "R07"])
def test_yearly_steps_as_shipped_for_zhejiang(id: str) -> None:
    inputs = CASES[id]["inputs"]
    tariff = shipped("cn-zhejiang-residential-step")
    lines = rate.lines(tariff, {"import_kwh": total(inputs["kwh"], inputs["ytd_kwh"])}, month(6))
    assert_as_worked(CASES[id], lines)


def test_time_of_use_with_yearly_step_additions() -> None:
    inputs = CASES["R08"]["inputs"]
    energies = {name: Decimal(value) for name, value in inputs["kwh"].items()}
    determinants = {
        f"import_kwh_{name}": Determinant(f"import_kwh_{name}", value, "kWh") for name, value in energies.items()
    }
    determinants["import_kwh"] = total(str(sum(energies.values())), inputs["ytd_kwh"])
    lines = rate.lines(shipped("cn-zhejiang-residential-tou-step"), determinants, month(6))
    assert_as_worked(CASES["R08"], lines)


@pytest.mark.parametrize("id", ["R10", "R11"])
def test_monthly_steps_with_limits_by_month_as_shipped_for_guangdong(id: str) -> None:
    inputs = CASES[id]["inputs"]
    tariff = shipped("cn-guangdong-residential-step")
    assert_as_worked(CASES[id], rate.lines(tariff, {"import_kwh": total(inputs["kwh"])}, month(inputs["month"])))


def test_yearly_steps_of_another_province() -> None:
    inputs = CASES["R13"]["inputs"]
    determinants = {"import_kwh": total(inputs["kwh"], inputs["ytd_kwh"])}
    assert_as_worked(CASES["R13"], rate.lines(stepped(inputs, "year"), determinants, month(6)))


def test_monthly_steps_start_again_each_month() -> None:
    inputs = CASES["R14"]["inputs"]
    # Energy used before means nothing to monthly steps.
    determinants = {"import_kwh": total(inputs["kwh"], "9999")}
    assert_as_worked(CASES["R14"], rate.lines(stepped(inputs, "month"), determinants, month(6)))


@pytest.mark.parametrize("id", ["M01", "M02"])
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


@pytest.mark.parametrize("id", ["T01", "T03"])
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
    determinants = {f"import_kwh_{p}": Determinant(f"import_kwh_{p}", e, "kWh") for p, e in energies.items()}
    lines = rate.lines(tariff, determinants, day)
    service = lines.pop()
    assert (service.code, service.quantity, service.unit, service.amount) == (
        "service",
        Decimal(1),
        "month",
        Decimal("12.00"),
    )
    assert_as_worked(CASES[id], lines)
    prices = {name: Decimal(price) for name, price in inputs["prices"].items()}
    assert dict(charge.prices) == prices


@pytest.mark.parametrize("id", ["F01", "F02", "F03", "F04", "F06", "F07"])
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


def test_funds_outside_the_adjustment_base() -> None:
    inputs = CASES["B02"]["inputs"]
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
    assert_as_worked(CASES["B02"], rate.lines(tariff, determinants, month(6)))


def test_capacity_for_a_month() -> None:
    inputs = CASES["D01"]["inputs"]
    tariff = made(CapacityCharge(Decimal(inputs["price"]), Decimal(inputs["capacity_kva"])))
    for number in (2, 6, 7):  # whatever the month's length
        assert_as_worked(CASES["D01"], rate.lines(tariff, {}, month(number)))


def test_capacity_for_some_days_of_a_month() -> None:
    """To the cent as worked; the line counts the days, so that quantity times price is the amount."""
    case, july = CASES["D05"], month(7)
    tariff = made(CapacityCharge(Decimal(case["inputs"]["price"]), Decimal(case["inputs"]["capacity_kva"])))
    window = Window(july.end - timedelta(days=case["inputs"]["days"]), july.end)
    (line,) = rate.lines(tariff, {}, window)
    (row,) = case["expected"]["lines"]
    assert (line.code, str(line.amount)) == (row["code"], row["amount"])
    assert (line.quantity, line.unit, line.price) == (Decimal(13), "day", Decimal("535.5"))


@pytest.mark.parametrize("id", ["D02", "D03", "D07"])
def test_maximum_demand_with_contract_and_discount(id: str) -> None:
    inputs = CASES[id]["inputs"]
    contract = Decimal(inputs["contract_kw"]) if "contract_kw" in inputs else None
    discount = (Decimal(inputs["threshold"]), Decimal(10)) if "threshold" in inputs else None
    tariff = made(DemandCharge(Decimal(inputs["price"]), "register", contract_kw=contract, discount=discount))
    determinants = {"import_max_kw": Determinant("import_max_kw", Decimal(inputs["max_demand_kw"]), "kW")}
    if "kwh" in inputs:
        determinants["import_kwh"] = total(inputs["kwh"])
    assert_as_worked(CASES[id], rate.lines(tariff, determinants, month(6)))


def test_every_worked_bill_is_tested_or_named_as_out_of_scope() -> None:
    tested = {"R01", "R02", "R04", "R06", "R07", "R08", "R10", "R11", "R13", "R14", "M01", "M02", "T01", "T03"}
    tested |= {"F01", "F02", "F03", "F04", "F06", "F07", "D01", "D02", "D03", "D05", "D07", "B02"}
    assert set(CASES) == tested
    assert all(case["source"]["ref"] for case in CASES.values())
    assert all(case["reason"] for case in VECTORS["out_of_scope"])
    assert tested.isdisjoint(case["id"] for case in VECTORS["out_of_scope"])


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

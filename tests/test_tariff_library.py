"""The shipped tariffs against the tables they were taken from; the hours of Shanghai against worked bills."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from billing import rate
from billing.calendar import billing_month, period_at
from billing.model import Determinant, EnergyCharge, StepAdder, StepCharge, Tariff, TouCharge
from config.tariff_files import load_tariffs
from headend.civil import zone

SHIPPED = {t.id: t for t in load_tariffs(Path(__file__).parents[1] / "config" / "tariffs")}
VECTORS = json.loads((Path(__file__).parent / "vectors" / "worked_bills.json").read_text(encoding="utf-8"))
CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in VECTORS["cases"]}

# Name of the file, what the steps fill over, first day of the step year, limits, prices: the published tables.
TABLES = [
    ("cn-zhejiang-residential-step", "year", (1, 1), "2760 4800", "0.538 0.588 0.838"),
    ("cn-beijing-residential-step", "year", (1, 1), "2880 4800", "0.4883 0.5383 0.7883"),
    ("cn-shanghai-residential-step", "year", (1, 1), "3120 4800", "0.617 0.677 0.977"),
    ("cn-jiangsu-residential-step", "year", (1, 1), "2760 4800", "0.5283 0.5783 0.8283"),
    ("cn-shaanxi-residential-step", "year", (1, 1), "2160 4200", "0.4983 0.5483 0.7983"),
    ("cn-guangxi-residential-step", "year", (1, 1), "3120 4440", "0.5283 0.5783 0.8283"),
    ("cn-guizhou-residential-step", "year", (12, 1), "3000 4700", "0.4556 0.5056 0.7556"),
    ("cn-sichuan-residential-step", "month", (1, 1), "180 280", "0.5224 0.6224 0.8224"),
]
SHANGHAI_HOURS = ["example-commercial-tou", "example-shanghai-two-part"]


def charge(tariff: Tariff, kind: type[Any]) -> Any:
    (found,) = (one for one in tariff.charges if isinstance(one, kind))
    return found


def test_six_provinces_and_more_are_shipped_and_the_unchecked_say_so() -> None:
    provinces = {name.split("-")[1] for name in SHIPPED if name.startswith("cn-")}
    assert provinces >= {"zhejiang", "guangdong", "beijing", "shanghai", "jiangsu", "shaanxi", "sichuan"}
    assert {name for name, one in SHIPPED.items() if one.verified} == {
        "cn-guangdong-residential-step",
        "cn-guangdong-residential-tou-step",
        "cn-zhejiang-residential-shared",
        "cn-zhejiang-residential-step",
    }
    assert all(one.note for one in SHIPPED.values() if not one.verified)
    assert all(one.source.strip() and one.source_date for one in SHIPPED.values())
    for name in SHIPPED:
        assert name.startswith(("cn-", "example-")), f"{name}: an illustrative price needs a name that says so"


@pytest.mark.parametrize(("name", "period", "year_start", "limits", "prices"), TABLES)
def test_steps_are_those_of_the_table(
    name: str, period: str, year_start: tuple[int, int], limits: str, prices: str
) -> None:
    steps: StepCharge = charge(SHIPPED[name], StepCharge)
    assert (steps.period, steps.year_start) == (period, year_start)
    (table,) = steps.tables
    assert len(table.months) == 12
    assert [step.up_to for step in table.steps] == [*map(Decimal, limits.split()), None]
    assert [step.price for step in table.steps] == [*map(Decimal, prices.split())]


@pytest.mark.parametrize("case", ["R10", "R11", "R13", "R14"])
def test_the_library_bills_the_worked_cases(case: str) -> None:
    names = {"R13": "cn-shaanxi-residential-step", "R14": "cn-sichuan-residential-step"}
    tariff = SHIPPED[names.get(case, "cn-guangdong-residential-step")]
    inputs, expected = CASES[case]["inputs"], CASES[case]["expected"]
    window = billing_month(2026, inputs.get("month", 3), tariff.zone)
    total = Determinant(rate.TOTAL, Decimal(inputs["kwh"]), "kWh", Decimal(inputs.get("ytd_kwh", 0)))
    lines = rate.lines(tariff, {rate.TOTAL: total}, window)
    assert [(line.code, f"{line.quantity:f}", str(line.amount)) for line in lines] == [
        (line["code"], line["qty"], line["amount"]) for line in expected["lines"]
    ]
    assert str(sum(line.amount for line in lines)) == expected["total"]


def test_zhejiang_by_periods_is_the_published_table_of_steps_and_periods() -> None:
    tariff = SHIPPED["cn-zhejiang-residential-tou-step"]
    prices = dict(charge(tariff, TouCharge).prices)
    (table,) = charge(tariff, StepAdder).tables
    made = [[prices[p] + step.price for p in ("peak", "valley")] for step in table.steps]
    published = [["0.568", "0.288"], ["0.618", "0.338"], ["0.868", "0.588"]]
    assert made == [[Decimal(p) for p in row] for row in published]
    assert charge(SHIPPED["cn-zhejiang-residential-shared"], EnergyCharge).price == Decimal("0.558")


@pytest.mark.parametrize(
    ("steps", "periods", "base"),
    [
        ("cn-guangdong-residential-step", "cn-guangdong-residential-tou-step", "flat"),
        ("cn-jiangsu-residential-step", "cn-jiangsu-residential-tou-step", None),
    ],
)
def test_with_periods_the_steps_have_the_same_limits_and_add_the_same(
    steps: str, periods: str, base: str | None
) -> None:
    plain: StepCharge = charge(SHIPPED[steps], StepCharge)
    adder: StepAdder = charge(SHIPPED[periods], StepAdder)
    assert (adder.period, adder.year_start) == (plain.period, plain.year_start)
    for month in range(1, 13):
        (one,) = (table.steps for table in plain.tables if month in table.months)
        (other,) = (table.steps for table in adder.tables if month in table.months)
        assert [(s.up_to, s.price - one[0].price) for s in one] == [(s.up_to, s.price) for s in other]
        if base is not None:
            assert dict(charge(SHIPPED[periods], TouCharge).prices)[base] == one[0].price


def test_guangdong_hours() -> None:
    schedule = charge(SHIPPED["cn-guangdong-residential-tou-step"], TouCharge).schedule
    tz = zone("Asia/Shanghai")
    hours = [period_at(schedule, datetime(2026, 7, 1, hour, tzinfo=tz), tz)[0] for hour in range(24)]
    assert hours == ["valley"] * 8 + ["flat"] * 2 + ["peak"] * 2 + ["flat"] * 2 + ["peak"] * 5 + ["flat"] * 5


@pytest.mark.parametrize("name", SHANGHAI_HOURS)
@pytest.mark.parametrize("case", ["T01", "T03"])
def test_shanghai_hours_split_a_day_as_the_worked_bill_does(name: str, case: str) -> None:
    tz = zone("Asia/Shanghai")
    start = datetime(2026, CASES[case]["inputs"]["month"], 1, tzinfo=tz)
    sums: dict[str, Decimal] = {}
    for k in range(96):
        period, _ = period_at(charge(SHIPPED[name], TouCharge).schedule, start + k * timedelta(minutes=15), tz)
        sums[f"energy_{period}"] = sums.get(f"energy_{period}", Decimal(0)) + Decimal("0.1") * (k + 1)
    assert sums == {line["code"]: Decimal(line["qty"]) for line in CASES[case]["expected"]["lines"]}


@pytest.mark.parametrize("name", SHANGHAI_HOURS)
@pytest.mark.parametrize("month", [1, 12])
def test_shanghai_winter_has_its_sharp_hours_in_the_evening(name: str, month: int) -> None:
    tz = zone("Asia/Shanghai")
    schedule = charge(SHIPPED[name], TouCharge).schedule
    hours = [period_at(schedule, datetime(2026, month, 4, hour, tzinfo=tz), tz)[0] for hour in range(24)]
    expected = ["valley"] * 6 + ["flat"] * 2 + ["peak"] * 3 + ["flat"] * 7 + ["peak"] + ["sharp"] * 2
    assert hours == [*expected, "flat", "valley", "valley"]

"""The shipped tariffs against the tables they were taken from; the hours of Shanghai against worked bills."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from billing.calendar import billing_month, period_at
from billing.charges import (
    DemandCharge,
    EnergyCharge,
    FixedCharge,
    StepAdder,
    StepCharge,
    StepTouCharge,
    Tariff,
    TouCharge,
)
from billing.model import Determinant
from billing.names import TOTAL
from billing.rating import rate
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
SHANGHAI_HOURS = [
    "example-commercial-tou",
    "example-shanghai-two-part",
    "example-shanghai-contract",
    "example-shanghai-capacity",
]


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
        assert name.startswith(("cn-", "us-", "example-")), f"{name}: an illustrative price needs a name that says so"


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
    total = Determinant(TOTAL, Decimal(inputs["kwh"]), "kWh", Decimal(inputs.get("ytd_kwh", 0)))
    lines = rate.lines(tariff, {TOTAL: total}, window)
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


# Published or remembered tables of prices by step and period; each tariff's note tells which.
@pytest.mark.parametrize(
    ("name", "limits", "prices"),
    [
        ("cn-shaanxi-residential-tou-step", "2160 4200", "0.5483 0.2983 0.5983 0.3483 0.8483 0.5983"),
        ("cn-shanghai-residential-tou-step", "3120 4800", "0.617 0.307 0.677 0.337 0.977 0.487"),
    ],
)
def test_prices_by_step_and_period_are_those_of_the_table(name: str, limits: str, prices: str) -> None:
    found: StepTouCharge = charge(SHIPPED[name], StepTouCharge)
    (table,) = found.tables
    assert (found.period, found.split) == ("year", "pro_rata")
    assert [step.up_to for step in table.steps] == [*map(Decimal, limits.split()), None]
    assert [price for step in table.steps for _, price in step.prices] == [*map(Decimal, prices.split())]


def test_a_large_household_has_the_same_prices_and_more_in_every_step() -> None:
    plain: StepCharge = charge(SHIPPED["cn-guangdong-residential-step"], StepCharge)
    large: StepCharge = charge(SHIPPED["cn-guangdong-residential-large-household-step"], StepCharge)
    assert large.tables == plain.tables
    assert large.household is not None
    assert large.household.kwh == 100


# Pacific Gas and Electric in 2017 as the Utility Rate Database has it: energy (summer on, part and off peak; winter
# part and off peak), demand with its months and period, customer charge.
SUMMER, WINTER = (5, 6, 7, 8, 9, 10), (1, 2, 3, 4, 11, 12)


@pytest.mark.parametrize(
    ("name", "energy", "demand", "customer"),
    [
        (
            "us-pge-e19-secondary",
            "0.15384 0.11333 0.08651 0.10779 0.09317",
            [
                ("16.08", tuple(range(1, 13)), ""),
                ("0.12", WINTER, "period1"),
                ("5.18", SUMMER, "period2"),
                ("18.64", SUMMER, "period3"),
            ],
            "599.59",
        ),
        (
            "us-pge-a10-tou-secondary",
            "0.21972 0.16459 0.13652 0.13641 0.11935",
            [("16.78", SUMMER, ""), ("9.45", WINTER, "")],
            "139.9",
        ),
    ],
)
def test_rates_of_a_utility_are_those_of_the_database(
    name: str, energy: str, demand: list[tuple[str, tuple[int, ...], str]], customer: str
) -> None:
    tariff = SHIPPED[name]
    tou: TouCharge = charge(tariff, TouCharge)
    assert sorted(price for _, price in tou.prices) == sorted(map(Decimal, energy.split()))
    # A Tuesday in July: off peak until 8, part peak until 12, on peak until 18.
    tz = zone(tariff.zone)
    priced = dict(tou.prices)
    at = {hour: priced[period_at(tou.schedule, datetime(2017, 7, 11, hour, tzinfo=tz), tz)[0]] for hour in (7, 10, 13)}
    on, part, off = map(Decimal, energy.split()[:3])
    assert at == {7: off, 10: part, 13: on}
    asked = [(str(c.price), c.months, c.period) for c in tariff.charges if isinstance(c, DemandCharge)]
    assert asked == demand
    assert charge(tariff, FixedCharge).amount == Decimal(customer)

"""Periods in parts and parts of months, terms of the account, and the charges that need them: by hand, to the cent."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from billing.charges import (
    CapacityCharge,
    Charge,
    DemandCharge,
    EnergyCharge,
    FixedCharge,
    Household,
    MarketCharge,
    MinimumCharge,
    NetMetering,
    PeriodWindow,
    Policy,
    PowerFactorCharge,
    PriceSeries,
    Ratchet,
    Schedule,
    Season,
    Step,
    StepAdder,
    StepCharge,
    StepTable,
    StepTou,
    StepTouCharge,
    StepTouTable,
    Tax,
    TouCharge,
)
from billing.model import BillLine, Determinant, Period, Segment
from billing.rating import rate
from billing.rating.lines import days_of, span_text
from headend.model import Window
from tests.billing_support import month
from tests.charges_support import made

ALL_MONTHS = tuple(range(1, 13))
OCTOBER = month(10)
MIDDLE = OCTOBER.start + timedelta(days=15)
FIRST, SECOND = "2026-10-01", "2026-10-16"
LONG = "import_kwh"


def numbers(**values: str) -> dict[str, Determinant]:
    """Determinants; `name__1` and `name__2` are those of the two parts, `kwh` is `import_kwh`."""
    found = {}
    for key, value in values.items():
        name, _, part = key.partition("__")
        name = {"kwh": LONG, "peak": f"{LONG}_peak", "valley": f"{LONG}_valley"}.get(name, name)
        name += {"": "", "1": f"@{FIRST}", "2": f"@{SECOND}"}[part]
        amount, _, used = value.partition(" after ")
        found[name] = Determinant(name, Decimal(amount), "", Decimal(used) if used else None)
    return found


def two(first: tuple[Charge, ...], second: tuple[Charge, ...] | None = None, policy: Policy | None = None) -> Period:
    """October in two parts: to the 15th and from the 16th."""
    policy = policy or Policy()
    tariffs = [replace(made(*charges), policy=policy) for charges in (first, second or first)]
    windows = (Window(OCTOBER.start, MIDDLE), Window(MIDDLE, OCTOBER.end))
    parts = (Segment(windows[0], tariffs[0], FIRST), Segment(windows[1], tariffs[1], SECOND))
    return Period(OCTOBER, OCTOBER, parts)


def one(*charges: Charge, window: Window = OCTOBER, policy: Policy | None = None, year_months: int = 12) -> Period:
    """October, or some days of it, in one part."""
    period = Period.of(replace(made(*charges), policy=policy or Policy()), OCTOBER, window)
    return replace(period, year_months=year_months)


def rated(period: Period, found: dict[str, Determinant]) -> list[BillLine]:
    return list(rate.rate_cases(period, [found])[0])


def told(lines: list[BillLine]) -> list[tuple[str, str, str, str]]:
    return [(line.code, line.text, f"{line.quantity.normalize():f}", str(line.amount)) for line in lines]


def amounts(lines: list[BillLine]) -> list[tuple[str, str]]:
    return [(line.code, str(line.amount)) for line in lines]


def last_days(count: float) -> Window:
    return Window(OCTOBER.end - timedelta(days=count), OCTOBER.end)


def steps(*prices: str, limits: tuple[str, ...] = ("2760", "4800")) -> tuple[StepTable, ...]:
    bounds = [*map(Decimal, limits), None]
    return (StepTable(ALL_MONTHS, tuple(Step(up, Decimal(p)) for up, p in zip(bounds, prices, strict=True))),)


# -- parts of a period -------------------------------------------------------------------------------------------------


def test_steps_fill_on_from_part_to_part_each_at_its_own_prices() -> None:
    period = two(
        (StepCharge("year", steps("0.538", "0.588", "0.838")),), (StepCharge("year", steps("0.55", "0.60", "0.85")),)
    )
    found = numbers(kwh="350 after 2600", kwh__1="130", kwh__2="220")
    lines = rated(period, found)
    assert told(lines) == [
        ("energy_step1", "energy, step 1, 1-15 Oct", "130", "69.94"),
        ("energy_step1", "energy, step 1, 16-31 Oct", "30", "16.50"),
        ("energy_step2", "energy, step 2, 16-31 Oct", "190", "114.00"),
    ]
    assert [line.determinant for line in lines] == [f"{LONG}@{FIRST}", f"{LONG}@{SECOND}", f"{LONG}@{SECOND}"]


def test_monthly_steps_fill_over_the_whole_month_and_add_to_another_price() -> None:
    table = steps("0", "0.05", "0.30", limits=("260", "600"))
    period = two((EnergyCharge(Decimal("0.5")), StepAdder("month", table)))
    assert told(rated(period, numbers(kwh="700", kwh__1="300", kwh__2="400"))) == [
        ("energy", "energy, 1-15 Oct", "300", "150.00"),
        ("step2_adder", "addition, step 2, 1-15 Oct", "40", "2.00"),
        ("energy", "energy, 16-31 Oct", "400", "200.00"),
        ("step2_adder", "addition, step 2, 16-31 Oct", "300", "15.00"),
        ("step3_adder", "addition, step 3, 16-31 Oct", "100", "30.00"),
    ]


def test_what_is_asked_by_the_month_is_asked_by_the_days_of_each_part() -> None:
    first = (FixedCharge("service", Decimal(31)), DemandCharge(Decimal("40.8"), "register"))
    second = (FixedCharge("service", Decimal(62)), DemandCharge(Decimal("38.4"), "register"))
    lines = rated(two(first, second), numbers(import_max_kw="480.5"))
    assert told(lines) == [
        ("service", "service, 15 of 31 days, 1-15 Oct", "1", "15.00"),
        ("basic_demand", "demand, 15 of 31 days, 1-15 Oct", "480.5", "9486.00"),
        ("service", "service, 16 of 31 days, 16-31 Oct", "1", "32.00"),
        ("basic_demand", "demand, 16 of 31 days, 16-31 Oct", "480.5", "9523.20"),
    ]
    assert [str(line.price) for line in lines] == ["15.00000000", "19.74193548", "32.00000000", "19.81935484"]


def test_a_contract_that_changes_within_the_month() -> None:
    charge = DemandCharge(Decimal(31), "register", contracted=True)
    found = numbers(import_max_kw="535", contract_kw__1="500", contract_kw__2="600")
    assert told(rated(two((charge,)), found)) == [
        ("basic_demand", "demand, contract (maximum 535 kW), 15 of 31 days, 1-15 Oct", "500", "7500.00"),
        ("basic_excess", "demand, above the limit, 15 of 31 days, 1-15 Oct", "10", "300.00"),
        ("basic_demand", "demand, contract (maximum 535 kW), 16 of 31 days, 16-31 Oct", "600", "9600.00"),
    ]


def test_a_capacity_that_changes_is_asked_by_days_that_come_to_a_month_together() -> None:
    """Published: 315 kVA, from the 19th of a month of 30 days 400: 18/30 and 12/30."""
    november = month(11)
    change = november.start + timedelta(days=18)
    tariff = made(CapacityCharge(Decimal("25.5"), None))
    parts = (Segment(Window(november.start, change), tariff, "a"), Segment(Window(change, november.end), tariff, "b"))
    found = {
        name: Determinant(name, Decimal(kva), "kVA") for name, kva in (("capacity_kva@a", 315), ("capacity_kva@b", 400))
    }
    assert told(rated(Period(november, november, parts), found)) == [
        ("basic_capacity", "capacity, 315 kVA for 18 of 30 days (1-18 Nov)", "18", "4819.50"),
        ("basic_capacity", "capacity, 400 kVA for 12 of 30 days (19-30 Nov)", "12", "4080.00"),
    ]
    (line,) = rated(one(CapacityCharge(Decimal(30), Decimal(1)), window=last_days(31 - 0.5)), {})
    assert line.amount == 30  # begun within its first day, and not 31/30 of it
    # 15 + 16 days of October: the second part has what the first leaves of 30, as nobody pays 31/30.
    lines = rated(two((CapacityCharge(Decimal(30), Decimal(1)),)), {})
    assert [(str(line.quantity), str(line.amount)) for line in lines] == [("15", "15.00"), ("15", "15.00")]


def test_what_is_made_on_the_whole_bill_is_made_once_and_a_tax_by_its_own_tariff() -> None:
    def charges(price: str, tax: str) -> tuple[Charge, ...]:
        return (
            EnergyCharge(Decimal(price)),
            PowerFactorCharge(Decimal("0.90"), ("energy",)),
            MinimumCharge(Decimal(160), ("energy", "power_factor")),
            Tax("vat", Decimal(tax), ("energy", "power_factor", "minimum")),
        )

    found = numbers(kwh="200", kwh__1="100", kwh__2="100", power_factor="0.80")
    assert told(rated(two(charges("0.5", "10"), charges("1", "20")), found)) == [
        ("energy", "energy, 1-15 Oct", "100", "50.00"),
        ("vat", "vat, 1-15 Oct", "10", "5.00"),
        ("energy", "energy, 16-31 Oct", "100", "100.00"),
        ("pf_adjust", "power factor 0.80, standard 0.90", "5", "7.50"),
        ("minimum", "up to the minimum", "1", "2.50"),
        ("vat", "vat, 16-31 Oct", "20", "22.00"),  # 20 % of 100.00 + 7.50 + 2.50
    ]


def test_a_table_by_step_and_period_in_two_parts() -> None:
    rows = tuple(
        StepTou(None if up is None else Decimal(up), (("peak", Decimal(peak)), ("valley", Decimal(valley))))
        for up, peak, valley in (("2760", "0.568", "0.288"), (None, "0.618", "0.338"))
    )
    hours = Schedule((Season(ALL_MONTHS, "all", (PeriodWindow("peak", 0, 720), PeriodWindow("valley", 720, 1440))),))
    charge = StepTouCharge("year", (StepTouTable(ALL_MONTHS, rows),), hours)
    found = numbers(
        kwh="350 after 2600", kwh__1="100", kwh__2="250", peak__1="60", valley__1="40", peak__2="200", valley__2="50"
    )
    assert told(rated(two((charge,)), found)) == [
        ("energy_step1_peak", "energy, step 1, peak, 1-15 Oct", "60", "34.08"),
        ("energy_step1_valley", "energy, step 1, valley, 1-15 Oct", "40", "11.52"),
        ("energy_step1_peak", "energy, step 1, peak, 16-31 Oct", "48", "27.26"),
        ("energy_step1_valley", "energy, step 1, valley, 16-31 Oct", "12", "3.46"),
        ("energy_step2_peak", "energy, step 2, peak, 16-31 Oct", "152", "93.94"),
        ("energy_step2_valley", "energy, step 2, valley, 16-31 Oct", "38", "12.84"),
    ]
    filled = {
        "import_kwh_step1_peak": "150",
        "import_kwh_step1_valley": "10",
        "import_kwh_step2_peak": "0",
        "import_kwh_step2_valley": "190",
    }
    lines = rated(one(replace(charge, split="chronological")), numbers(kwh="350 after 2600", **filled))
    assert told(lines) == [
        ("energy_step1_peak", "energy, step 1, peak", "150", "85.20"),
        ("energy_step1_valley", "energy, step 1, valley", "10", "2.88"),
        ("energy_step2_valley", "energy, step 2, valley", "190", "64.22"),
    ]
    assert [line.determinant for line in lines] == [name for name, value in filled.items() if value != "0"]


# -- parts of a month or a year ----------------------------------------------------------------------------------------


def test_a_part_of_a_month_by_days_or_whole() -> None:
    charges = (
        EnergyCharge(Decimal(1)),
        FixedCharge("service", Decimal("15.50")),
        DemandCharge(Decimal("6.20"), "register"),
        MinimumCharge(Decimal(310), ("energy", "fixed", "demand")),
    )
    found = numbers(kwh="10", import_max_kw="20")
    days = rated(one(*charges, window=last_days(10)), found)
    assert told(days) == [
        ("energy", "energy", "10", "10.00"),
        ("service", "service, 10 of 31 days", "1", "5.00"),
        ("basic_demand", "demand, 10 of 31 days", "20", "40.00"),
        ("minimum", "up to the minimum, 10 of 31 days", "1", "45.00"),  # of 100.00
    ]
    whole = rated(one(*charges, window=last_days(10), policy=Policy(part_month="whole")), found)
    assert amounts(whole) == [
        ("energy", "10.00"),
        ("service", "15.50"),
        ("basic_demand", "124.00"),
        ("minimum", "160.50"),
    ]


def test_a_part_of_a_month_that_counts_as_whole_is_asked_once_over_its_parts() -> None:
    tariff = replace(made(FixedCharge("service", Decimal(10))), policy=Policy(part_month="whole"))
    start = OCTOBER.end - timedelta(days=20)
    parts = (Segment(Window(start, MIDDLE), tariff, FIRST), Segment(Window(MIDDLE, OCTOBER.end), tariff, SECOND))
    lines = rated(Period(OCTOBER, Window(start, OCTOBER.end), parts), {})
    assert told(lines) == [
        ("service", "service, 4 of 20 days, 12-15 Oct", "1", "2.00"),
        ("service", "service, 16 of 20 days, 16-31 Oct", "1", "8.00"),
    ]


@pytest.mark.parametrize(
    ("rule", "year_months", "expected"),
    [
        ("months", 12, [("energy_step1", "100"), ("energy_step2", "100")]),
        ("months", 6, [("energy_step2", "200")]),  # 1380 and 2400: 2660 would be beyond both
        ("whole", 6, [("energy_step1", "100"), ("energy_step2", "100")]),
    ],
)
def test_limits_of_a_part_of_a_year(rule: str, year_months: int, expected: list[tuple[str, str]]) -> None:
    charge = StepCharge("year", steps("0.5", "0.6", "0.9"), part=rule)
    used = "1400" if (rule, year_months) == ("months", 6) else "2660"
    lines = rated(one(charge, year_months=year_months), numbers(kwh=f"200 after {used}"))
    assert [(line.code, f"{line.quantity.normalize():f}") for line in lines] == expected


def test_limits_of_a_part_of_a_month_are_cut_by_days() -> None:
    charge = StepCharge("month", steps("0.5", "0.6", "0.9", limits=("200", "400")), part="days")
    lines = rated(one(charge, window=last_days(10)), numbers(kwh="200"))
    # 200 x 10/31 = 64.5161 and 400 x 10/31 = 129.0323
    assert [str(line.quantity) for line in lines] == ["64.5161", "64.5162", "70.9677"]
    whole = rated(one(replace(charge, part="whole"), window=last_days(10)), numbers(kwh="200"))
    assert [(line.code, str(line.quantity)) for line in whole] == [("energy_step1", "200")]


@pytest.mark.parametrize(
    ("people", "step1", "step2"), [("5", "300", "400"), ("8", "300", "400"), ("4", "200", "500"), ("", "200", "500")]
)
def test_a_large_household_has_higher_limits(people: str, step1: str, step2: str) -> None:
    charge = StepCharge(
        "month", steps("0.5", "0.6", "0.9", limits=("200", "800")), household=Household(5, Decimal(100))
    )
    found = numbers(kwh="700", people=people) if people else numbers(kwh="700")
    assert [str(line.quantity) for line in rated(one(charge), found)] == [step1, step2]
    yearly = replace(charge, period="year")
    raised = "1400 after 0" if people in ("5", "8") else "200 after 0"
    (line,) = rated(one(yearly), found | numbers(kwh=raised))  # 200 + 12 x 100, or 200
    assert (line.code, line.quantity) == ("energy_step1", Decimal(raised.split()[0]))


def test_the_people_of_one_account_are_not_those_of_another() -> None:
    charge = StepCharge(
        "month", steps("0.5", "0.6", "0.9", limits=("200", "800")), household=Household(5, Decimal(100))
    )
    found = [numbers(kwh="250", people="5"), numbers(kwh="250"), numbers(kwh="250", people="3")]
    assert [len(bill) for bill in rate.rate_cases(one(charge), found)] == [1, 2, 2]


# -- demand, market, net metering --------------------------------------------------------------------------------------


def test_a_demand_in_steps_by_period_and_month_with_codes_of_its_own() -> None:
    tiers = (Step(Decimal(100), Decimal("10")), Step(None, Decimal("12.5")))
    charges = (
        DemandCharge(Decimal(0), "intervals", code="tiers", steps=tiers, text="summer"),
        DemandCharge(Decimal(5), "intervals", code="peak", period="peak"),
        DemandCharge(Decimal(7), "intervals", code="winter", months=(12, 1)),
    )
    lines = rated(one(*charges), numbers(import_max_kw="160.5", import_max_kw_peak="90"))
    assert told(lines) == [
        ("tiers_step1", "summer, step 1", "100", "1000.00"),
        ("tiers_step2", "summer, step 2", "60.5", "756.25"),
        ("peak", "demand", "90", "450.00"),
    ]
    assert [line.determinant for line in lines] == ["import_max_kw", "import_max_kw", "import_max_kw_peak"]


def test_a_ratchet_asks_a_share_of_the_highest_demand_before() -> None:
    charge = DemandCharge(Decimal(10), "register", ratchet=Ratchet(11, Decimal(80)))
    bills = rate.rate_cases(
        one(charge),
        [
            numbers(import_max_kw="100", ratchet_kw="200"),
            numbers(import_max_kw="170", ratchet_kw="200"),
            numbers(import_max_kw="100"),
        ],
    )
    assert [told(list(bill)) for bill in bills] == [
        [("basic_demand", "demand, at least 80 % of 200 kW", "160", "1600.00")],
        [("basic_demand", "demand", "170", "1700.00")],
        [("basic_demand", "demand", "100", "1000.00")],
    ]


def test_a_discount_of_a_demand_with_its_own_code() -> None:
    charge = DemandCharge(
        Decimal("40.8"), "register", contracted=True, discount=(Decimal(260), Decimal(10)), code="two_part"
    )
    found = [
        numbers(import_max_kw="505", contract_kw="500", kwh="139000"),
        numbers(import_max_kw="505", contract_kw="500", kwh="129999"),
        numbers(import_max_kw="600", contract_kw="500", kwh="130000"),
    ]
    assert [amounts(list(bill)) for bill in rate.rate_cases(one(charge), found)] == [
        [("two_part", "20400.00"), ("two_part_discount", "-2040.00")],
        [("two_part", "20400.00")],
        [("two_part", "20400.00"), ("two_part_excess", "6120.00"), ("two_part_discount", "-2652.00")],
    ]


def test_a_contract_or_a_capacity_that_is_not_known_is_asked_for_by_name() -> None:
    charges: list[tuple[Charge, str]] = [
        (DemandCharge(Decimal(1), "register", contracted=True), "contract_kw"),
        (CapacityCharge(Decimal(1), None), "capacity_kva"),
    ]
    for charge, name in charges:
        with pytest.raises(KeyError, match=name):
            rate.rate_cases(one(charge), [numbers(import_max_kw="1")])
        with pytest.raises(KeyError, match=name):  # one account of two has it
            rate.rate_cases(one(charge), [numbers(import_max_kw="1", **{name: "5"}), numbers(import_max_kw="1")])


def test_energy_at_the_prices_of_its_time() -> None:
    series = PriceSeries("p.csv", "", OCTOBER.start, 3600, ())
    charge = MarketCharge("spot", series, Decimal("1.05"), Decimal("0.02"))
    lines = rated(one(charge), numbers(market_value_spot="-12.345678", kwh="1000"))
    assert [(line.code, line.unit, line.determinant, str(line.amount)) for line in lines] == [
        ("spot", "CNY", "market_value_spot", "-12.96"),
        ("spot_adder", "kWh", LONG, "20.00"),
    ]


@pytest.mark.parametrize(
    ("number", "kept", "credited"),
    [(6, None, False), (3, None, True), (6, "0", True), (3, "70", False)],
)
def test_a_surplus_that_is_carried_on_is_credited_at_the_years_end(
    number: int, kept: str | None, credited: bool
) -> None:
    """The year starts on 1 April; what the account keeps says more than the month does."""
    charge = NetMetering(Decimal("0.2"), carry=True, year_start=(4, 1))
    period = Period.of(made(EnergyCharge(Decimal("0.5")), charge), month(number))
    found = numbers(net_kwh="0", surplus_kwh="70") | ({} if kept is None else numbers(carried_on_kwh=kept))
    lines = rated(period, found)
    assert amounts(lines) == [("energy", "0.00")] + ([("export_credit", "-14.00")] if credited else [])


def test_registers_of_the_meter_bill_the_rest_and_a_period_out_of_season_where_it_has_energy() -> None:
    hours = Schedule((Season(ALL_MONTHS, "all", (PeriodWindow("peak", 0, 720), PeriodWindow("valley", 720, 1440))),))
    priced = tuple((name, Decimal(price)) for name, price in (("sharp", 4), ("peak", 3), ("flat", 2), ("valley", 1)))
    registers = tuple((name, f"import_kwh_t{n}") for n, name in enumerate(("sharp", "peak", "valley"), start=1))
    charge = TouCharge(priced, hours, measured_by="registers", registers=registers, rest="flat")
    names = ("sharp", "peak", "flat", "valley")
    assert rate.periods_of(charge, OCTOBER, "Asia/Shanghai") == names
    found = [
        numbers(**{f"{LONG}_{name}": value for name, value in zip(names, row, strict=True)})
        for row in (("0", "5", "0", "7"), ("1", "5", "2", "7"))
    ]
    bills = rate.rate_cases(one(charge), found)
    assert amounts(list(bills[0])) == [("energy_peak", "15.00"), ("energy_flat", "0.00"), ("energy_valley", "7.00")]
    assert [line.code for line in bills[1]] == [f"energy_{name}" for name in names]


def test_a_part_that_starts_within_a_day_counts_the_day() -> None:
    start = OCTOBER.end - timedelta(days=9, hours=5)
    (line,) = rated(one(FixedCharge("service", Decimal(31)), window=Window(start, OCTOBER.end)), {})
    assert line.amount == 10
    assert span_text(Window(OCTOBER.start, OCTOBER.start + timedelta(days=1)), "Asia/Shanghai") == "1 Oct"
    assert days_of(OCTOBER, "Asia/Shanghai") == 31

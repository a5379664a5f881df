"""What holds for every bill: amounts, sums, and that many accounts, wider numbers or cut periods change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.charges import (
    CapacityCharge,
    Charge,
    DemandCharge,
    EnergyCharge,
    ExportCredit,
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
    Surcharge,
    Tariff,
    Tax,
    TouCharge,
)
from billing.kernel import Column, column
from billing.model import BillLine, Determinant, Period, Segment, round_money
from billing.names import PERCENT, TOTAL, at, used_name
from billing.rating import rate
from headend.model import Window
from tests.billing_support import month, shipped

ALL_MONTHS = tuple(range(1, 13))
WINDOWS = (PeriodWindow("peak", 480, 1320), PeriodWindow("valley", 0, 480), PeriodWindow("valley", 1320, 1440))
HOURS = Schedule((Season(ALL_MONTHS, "all", WINDOWS),))
SERIES = PriceSeries("prices.csv", "", month(6).start, 3600, ())
LIMITS = (Decimal(260), Decimal(600))
ALL = ("energy", "demand", "surcharge", "fixed", "export", "power_factor", "minimum")

prices = st.integers(1, 3 * 10**8).map(lambda price: Decimal(price).scaleb(-8))
energies = st.integers(0, 10**9).map(lambda units: Decimal(units).scaleb(-4))
kilowatts = st.integers(0, 10**7).map(lambda units: Decimal(units).scaleb(-4))
few = settings(max_examples=50, deadline=None)
BASE = replace(shipped("example-flat"), zone="Asia/Shanghai", currency="CNY")
BY_LINE = Policy()


def stepped(first: Decimal) -> tuple[Step, ...]:
    return tuple(Step(limit, first + n) for n, limit in enumerate([*LIMITS, None]))


def by_step_and_period(first: Decimal) -> StepTouTable:
    """The same addition for each step in each period."""
    rows = [StepTou(limit, (("peak", first + n), ("valley", first / 2 + n))) for n, limit in enumerate([*LIMITS, None])]
    return StepTouTable(ALL_MONTHS, tuple(rows))


@st.composite
def charges(draw: st.DrawFn) -> tuple[Charge, ...]:
    """Most that can be asked, at prices of their own; so many of each that lines of every kind come up."""
    p = [draw(prices) for _ in range(9)]
    table = (StepTable(ALL_MONTHS, stepped(p[0])),)
    energy: list[Charge] = [
        EnergyCharge(p[1]),
        TouCharge((("peak", p[1]), ("valley", p[2])), HOURS),
        StepCharge("year", table, household=Household(5, Decimal(100)), part="months"),
        StepCharge("month", table, household=Household(5, Decimal(100)), part="days"),
        StepTouCharge("year", (by_step_and_period(p[0]),), HOURS),
        MarketCharge("spot", SERIES, p[3], p[4]),
    ]
    others: list[Charge] = [
        StepAdder("month", table),
        FixedCharge("service", p[5]),
        DemandCharge(p[6], "register", contracted=True, discount=(Decimal(100), Decimal(10))),
        DemandCharge(p[7], "intervals", code="hour", contract_kw=Decimal(500), excess_above="contract"),
        DemandCharge(Decimal(0), "register", code="tiers", steps=stepped(p[7]), ratchet=Ratchet(11, Decimal(80))),
        CapacityCharge(p[8], None),
        CapacityCharge(p[8], Decimal(630)),
        Surcharge("fund", p[4], adjusted=draw(st.booleans())),
        ExportCredit(p[2]),
        PowerFactorCharge(Decimal("0.90"), ("energy", "demand", "fixed")),
        MinimumCharge(p[5] * 1000, ("energy", "demand")),
        Tax("vat", Decimal(13), ALL),
    ]
    chosen = draw(st.lists(st.sampled_from(others), unique_by=id, max_size=8))
    return (draw(st.sampled_from(energy)), *chosen)


@dataclass(frozen=True)
class Account:
    """Numbers of a made-up account: energies of two parts of the month by period, and the rest."""

    peak: tuple[Decimal, Decimal]
    valley: tuple[Decimal, Decimal]
    export: tuple[Decimal, Decimal]
    value: tuple[Decimal, Decimal]
    used: Decimal
    maximum: Decimal
    ratchet: Decimal | None
    factor: Decimal | None
    contract: Decimal
    capacity: Decimal
    people: Decimal | None

    def determinants(self, *labels: str) -> dict[str, Determinant]:
        """Those of a whole month (no labels) or of one in two parts."""
        found = {
            TOTAL: Determinant(TOTAL, sum((*self.peak, *self.valley), Decimal(0)), "kWh", self.used),
            "import_max_kw": Determinant("import_max_kw", self.maximum, "kW"),
        }
        if self.ratchet is not None:
            found["ratchet_kw"] = Determinant("ratchet_kw", self.ratchet, "kW")
        if self.factor is not None:
            found["power_factor"] = Determinant("power_factor", self.factor, "")
        parts: dict[str, tuple[int, ...]] = {label: (n,) for n, label in enumerate(labels)} or {"": (0, 1)}
        for label, numbers in parts.items():
            found |= self._part(label, numbers)
        return found

    def _part(self, label: str, numbers: tuple[int, ...]) -> dict[str, Determinant]:
        def both(values: tuple[Decimal, Decimal]) -> Decimal:
            return sum((values[n] for n in numbers), Decimal(0))

        rows = [
            (f"{TOTAL}_peak", both(self.peak), "kWh"),
            (f"{TOTAL}_valley", both(self.valley), "kWh"),
            ("export_kwh", both(self.export), "kWh"),
            ("market_value_spot", both(self.value), "CNY"),
            ("contract_kw", self.contract, "kW"),
            ("capacity_kva", self.capacity, "kVA"),
        ]
        if label:
            rows.append((TOTAL, both(self.peak) + both(self.valley), "kWh"))
        if self.people is not None:
            rows.append(("people", self.people, ""))
        return {at(name, label): Determinant(at(name, label), value, unit) for name, value, unit in rows}


pairs = st.tuples(energies, energies)
accounts = st.builds(
    Account,
    pairs,
    pairs,
    pairs,
    st.tuples(*[st.integers(-(10**9), 10**9).map(lambda units: Decimal(units).scaleb(-6))] * 2),
    energies,
    kilowatts,
    st.none() | kilowatts,
    st.none() | st.integers(0, 100).map(lambda hundredths: Decimal(hundredths).scaleb(-2)),
    kilowatts,
    kilowatts,
    st.none() | st.integers(1, 8).map(Decimal),
)


def tariff(charges: tuple[Charge, ...], policy: Policy = BY_LINE) -> Tariff:
    return replace(BASE, charges=charges, policy=policy)


def cut(whole: Tariff, days: int, window: Window | None = None) -> Period:
    """October in two parts, the second from the day after `days` days, at the same prices."""
    october = month(10)
    window = window or october
    middle = october.start + timedelta(days=days)
    label = date(2026, 10, days + 1).isoformat()
    first, second = Window(window.start, middle), Window(middle, window.end)
    return Period(october, window, (Segment(first, whole, "2026-10-01"), Segment(second, whole, label)))


def labels(period: Period) -> tuple[str, ...]:
    return tuple(segment.label for segment in period.segments if segment.label)


def total(lines: tuple[BillLine, ...]) -> Decimal:
    return sum((line.amount for line in lines), Decimal(0))


def assert_amounts(lines: tuple[BillLine, ...]) -> None:
    for line in lines:
        quantity = line.quantity.scaleb(-2) if line.unit == PERCENT else line.quantity
        assert line.amount == round_money(quantity, line.price, 2), line
        assert -int(line.price.as_tuple().exponent) <= 9, line


@few
@given(charges(), st.lists(accounts, min_size=1, max_size=4), st.integers(1, 30), st.sampled_from(["line", "bill"]))
def test_every_line_is_its_quantity_times_its_price_and_one_by_one_is_as_all_at_once(
    charges: tuple[Charge, ...], accounts: list[Account], days: int, rounding: str
) -> None:
    whole = tariff(charges, Policy(rounding))
    for period in (Period.of(whole, month(10)), cut(whole, days)):
        found = [account.determinants(*labels(period)) for account in accounts]
        bills = rate.rate_cases(period, found)
        for bill, determinants in zip(bills, found, strict=True):
            assert_amounts(bill)
            assert (bill,) == tuple(rate.rate_cases(period, [determinants]))
            if rounding == "bill":
                plain = tuple(line for line in bill if line.code != "rounding")
                exact = sum(
                    ((line.quantity / 100 if line.unit == PERCENT else line.quantity) * line.price for line in plain),
                    Decimal(0),
                )
                assert total(bill) == round_money(exact, Decimal(1), 2)


@few
@given(charges(), st.lists(accounts, min_size=1, max_size=3))
def test_wide_numbers_give_the_same_lines(charges: tuple[Charge, ...], accounts: list[Account]) -> None:
    period = Period.of(tariff(charges), month(10))
    found = [account.determinants() for account in accounts]
    columns = {name: column([one[name].value if name in one else None for one in found]) for name in found[0]}
    optional = {"ratchet_kw", "power_factor", "people"}
    columns |= {name: column([one[name].value if name in one else None for one in found]) for name in optional}
    columns[used_name(TOTAL)] = column([one[TOTAL].used_before for one in found])
    wide = {name: Column(one.values.astype(object), one.places, one.there) for name, one in columns.items()}
    narrow_lines, wide_lines = (rate.rate(period, each, len(found)) for each in (columns, wide))
    assert [line.code for line in narrow_lines] == [line.code for line in wide_lines]
    for narrow, other in zip(narrow_lines, wide_lines, strict=True):
        for index in range(len(found)):
            if narrow.present is None or narrow.present[index]:
                assert other.present is None or other.present[index]
                assert _row(narrow, index) == _row(other, index)
            else:
                assert other.present is not None
                assert not other.present[index]


def _row(line: rate.LineColumn, index: int) -> tuple[Any, ...]:
    text = line.text if isinstance(line.text, str) else line.text(index)
    numbers = [(int(one.values[index]), one.places) for one in (line.quantity, line.price)]
    return line.code, text, *numbers, int(line.amount[index])


@few
@given(charges(), accounts, st.integers(1, 30))
def test_a_period_cut_in_two_at_equal_prices_costs_the_same(
    charges: tuple[Charge, ...], account: Account, days: int
) -> None:
    """But for the cents of the rounding of each line, and what they come to in percentages of them."""
    whole = tariff(charges)
    (once,) = rate.rate_cases(Period.of(whole, month(10)), [account.determinants()])
    period = cut(whole, days)
    (twice,) = rate.rate_cases(period, [account.determinants(*labels(period))])
    assert abs(total(once) - total(twice)) <= Decimal("0.01") * (len(once) + len(twice))
    if (energy := _energy(once)) is not None:
        assert energy == _energy(twice)
    spans = {line.text.rpartition(", ")[2] for line in twice if line.code.startswith("energy")}
    assert all(text.endswith(" Oct") for text in spans)


def _energy(lines: tuple[BillLine, ...]) -> Decimal | None:
    found = [line.quantity for line in lines if line.code.startswith("energy")]
    return sum(found, Decimal(0)) if found else None


@few
@given(st.lists(energies, min_size=2, max_size=2), st.lists(energies, min_size=2, max_size=2), st.integers(1, 30))
def test_net_energy_of_a_cut_period_is_all_billed(imported: list[Decimal], exported: list[Decimal], days: int) -> None:
    whole = tariff((EnergyCharge(Decimal("0.5")), NetMetering(Decimal("0.2"))))
    period = cut(whole, days)
    first, second = labels(period)
    used, fed = sum(imported, Decimal(0)), sum(exported, Decimal(0))
    values = {
        TOTAL: used,
        at(TOTAL, first): imported[0],
        at(TOTAL, second): imported[1],
        "net_kwh": max(used - fed, Decimal(0)),
        "surplus_kwh": max(fed - used, Decimal(0)),
    }
    (bill,) = rate.rate_cases(period, [_named(values)])
    assert sum(line.quantity for line in bill if line.code == "energy") == values["net_kwh"]
    assert [line.quantity for line in bill if line.code == "export_credit"] == (
        [values["surplus_kwh"]] if values["surplus_kwh"] else []
    )


def _named(values: Mapping[str, Decimal]) -> dict[str, Determinant]:
    return {name: Determinant(name, value, "kWh") for name, value in values.items()}


@few
@given(accounts, st.integers(0, 3 * 10**7))
def test_a_pro_rata_table_with_equal_additions_bills_as_hours_and_additions(account: Account, first: int) -> None:
    """A price by step and period that is a sum of the two costs what the two charges cost (R08 and R09)."""
    base = Decimal(first).scaleb(-8)
    hours = TouCharge((("peak", base), ("valley", base / 2)), HOURS)
    adder = StepAdder("year", (StepTable(ALL_MONTHS, stepped(Decimal(0))),))
    apart, together = (
        rate.rate_cases(Period.of(tariff(charges), month(10)), [account.determinants()])[0]
        for charges in ((hours, adder), (StepTouCharge("year", (by_step_and_period(base),), HOURS),))
    )
    assert (_energy(together) or 0) == _energy(apart)
    # A ten-thousandth of a kWh may be in the other period of a step.
    slack = Decimal("0.0001") * 3 * max(base, Decimal(1))
    assert abs(total(apart) - total(together)) <= Decimal("0.01") * 6 + slack


def test_an_array_of_no_account_has_no_lines() -> None:
    assert rate.rate_cases(Period.of(tariff((EnergyCharge(Decimal(1)),)), month(10)), []) == []
    (line,) = rate.rate(
        Period.of(tariff((EnergyCharge(Decimal(1)),)), month(10)), {TOTAL: Column(np.zeros(0, dtype=np.int64), 0)}, 0
    )
    assert len(line.amount) == 0

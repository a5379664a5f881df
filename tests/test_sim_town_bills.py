"""True bills of what happens within a month, and of industry: tenants, exchanges, new prices, demand, power factor."""

from __future__ import annotations

import csv
import json
import tempfile
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal, localcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.before_meter import Transformer
from simulators.clock import SettableClock
from simulators.dlt645_meter import Dlt645Meter
from simulators.errors import SimulatorError
from simulators.town import Town, load_town
from simulators.truth_bills import Facts, MonthStep, Season, Tou, TrueLine, TwoPart, bill_lines, hundredths, total_cents
from simulators.truth_two_part import adjustment_percent, demand_parts, power_factor

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "simulators" / "towns" / "demo.toml"
VECTORS = json.loads((ROOT / "tests" / "vectors" / "worked_bills.json").read_text("utf-8"))
ZONE = timezone(timedelta(hours=8))
NOW = datetime(2026, 11, 24, 9, 0, tzinfo=ZONE)
ALL_DAY = (Season(tuple(range(1, 13)), windows=((0, 1440, "flat"),)),)
ALWAYS = tuple(range(1, 13))
S400 = Transformer(400, 570, 4300, 8, 40)


def demo(at: datetime = NOW) -> Town:
    return load_town(DEMO, now=SettableClock(at.timestamp()))


def demo_without(line: str) -> Town:
    """The town without the lines of its file that begin so."""
    kept = [one for one in DEMO.read_text("utf-8").splitlines() if not one.startswith(line)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "town.toml"
        path.write_text("\n".join(kept), "utf-8")
        return load_town(path, now=SettableClock(NOW.timestamp()))


def lines_of(town: Town, account: str) -> list[tuple[str, str, str]]:
    return texts(town.true_bill(account, *town.closed_month()))


def texts(lines: list[TrueLine]) -> list[tuple[str, str, str]]:
    return [(line.code, hundredths(line.quantity), hundredths(line.amount)) for line in lines]


# -- power factor and demand, against the published table and worked bills -------------------------------------------


@pytest.mark.parametrize("standard", sorted(VECTORS["pf_table_percent"]))
def test_the_adjustment_is_the_published_table(standard: str) -> None:
    for factor, percent in VECTORS["pf_table_percent"][standard].items():
        found = adjustment_percent(int(standard[2:]), int(Decimal(factor) * 100))
        assert found == Decimal(percent) * 100, factor


@pytest.mark.parametrize("case", [c for c in VECTORS["cases"] if c["id"].startswith("F") and "pf" in c["expected"]])
def test_worked_power_factors(case: dict[str, Any]) -> None:
    given_ = case["inputs"]
    factor = power_factor(int(given_["active_kwh"]) * 100, int(given_["reactive_kvarh"]) * 100)
    assert factor == Decimal(case["expected"]["pf"]) * 100


def test_no_energy_has_no_power_factor() -> None:
    assert power_factor(0, 0) is None
    assert power_factor(0, 5) == 0
    codes = [line.code for line in bill_lines(TwoPart(ALL_DAY, {"flat": 1}, "maximum", 1, (), 90), 1, 0, {})]
    assert codes == ["basic_demand", "energy_flat"]


@given(active=st.integers(0, 10**9), reactive=st.integers(0, 10**9))
def test_the_power_factor_is_rounded_half_up(active: int, reactive: int) -> None:
    if not active and not reactive:
        return
    with localcontext() as context:
        context.prec = 60
        exact = Decimal(active) / (Decimal(active) ** 2 + Decimal(reactive) ** 2).sqrt()
        assert power_factor(active, reactive) == int((exact * 100).quantize(Decimal(1), ROUND_HALF_UP))


def test_up_to_105_percent_the_contract_is_billed_and_above_it_the_excess_twice() -> None:
    assert demand_parts("contract", 52_000, 50_000, 0) == [("basic_demand", 50_000, 1)]
    assert demand_parts("contract", 52_500, 50_000, 0) == [("basic_demand", 50_000, 1)]
    assert demand_parts("contract", 56_000, 50_000, 0) == [("basic_demand", 50_000, 1), ("basic_excess", 3_500, 2)]
    assert demand_parts("maximum", 48_050, 0, 0) == [("basic_demand", 48_050, 1)]
    assert demand_parts("capacity", 48_050, 0, 63_000) == [("basic_capacity", 63_000, 1)]


def test_a_two_part_bill_by_hand() -> None:
    """By hand: 560 kW against 500; 1000 kWh at 0.6425; funds 0.019 inside and 0.002 outside; 0.80 against 0.90: +5 %
    of 20400 + 2856 + 642.50 + 19.00 = 23917.50."""
    funds = (("inside", 1_900_000, True), ("outside", 200_000, False))
    tariff = TwoPart(ALL_DAY, {"flat": 64_250_000}, "contract", 4_080_000_000, funds, 90)
    facts = Facts(reactive=75_000, maximum=56_000, contract=50_000)
    lines = bill_lines(tariff, 1, 100_000, {"flat": 100_000}, 0, facts)
    assert texts(lines) == [
        ("basic_demand", "500.00", "20400.00"),
        ("basic_excess", "35.00", "2856.00"),
        ("energy_flat", "1000.00", "642.50"),
        ("inside", "1000.00", "19.00"),
        ("outside", "1000.00", "2.00"),
        ("pf_adjust", "5.00", "1195.88"),
    ]
    assert lines[-1].as_text() == {
        "code": "pf_adjust",
        "unit": "%",
        "quantity": "5.00",
        "price": "23917.50",
        "amount": "1195.88",
    }
    rewarded = bill_lines(tariff, 1, 100_000, {"flat": 100_000}, 0, Facts(reactive=30_000, contract=50_000))
    assert texts(rewarded)[-1] == ("pf_adjust", "-0.75", "-157.96")  # of 21061.50: -157.96125


# -- parts of a month ------------------------------------------------------------------------------------------------


def test_a_monthly_amount_is_billed_by_days() -> None:
    tariff = Tou(ALL_DAY, {"flat": 0}, service=1200)
    assert texts(bill_lines(tariff, 1, 0, {}, 0, Facts(days=(31, 31))))[-1] == ("service", "1.00", "12.00")
    assert texts(bill_lines(tariff, 1, 0, {}, 0, Facts(days=(15, 31))))[-1] == ("service", "1.00", "5.81")  # 5.806...
    assert bill_lines(tariff, 1, 0, {}, 0, Facts(days=(15, 31)))[-1].price == 580_645_161


def test_steps_go_on_filling_where_the_prices_change() -> None:
    tariff = MonthStep((Season(ALWAYS, limits=(10_000, 22_000)),), (1, 2, 3), (4, 5, 6), 16, (5, 10_000))
    lines = bill_lines(tariff, 1, 24_000, {}, 0, Facts(later=12_500, people=4))
    assert [(line.code, line.quantity, line.price) for line in lines] == [
        ("energy_step1", 10_000, 1),
        ("energy_step2", 1_500, 2),
        ("energy_step2", 10_500, 5),
        ("energy_step3", 2_000, 6),
    ]
    large = bill_lines(tariff, 1, 24_000, {}, 0, Facts(later=12_500, people=5))
    assert [(line.code, line.quantity, line.price) for line in large] == [
        ("energy_step1", 11_500, 1),
        ("energy_step1", 8_500, 4),
        ("energy_step2", 4_000, 5),
    ]


@given(used=st.integers(0, 10**6), later=st.integers(0, 10**6), people=st.integers(1, 9))
def test_a_change_to_the_same_prices_changes_no_quantity(used: int, later: int, people: int) -> None:
    later = min(later, used)
    tariff = MonthStep((Season(ALWAYS, limits=(10_000, 22_000)),), (1, 2, 3), (1, 2, 3), 16, (5, 10_000))

    def by_code(facts: Facts) -> dict[str, int]:
        found: dict[str, int] = {}
        for line in bill_lines(tariff, 1, used, {}, 0, facts):
            found[line.code] = found.get(line.code, 0) + line.quantity
        return found

    assert by_code(Facts(later=later, people=people)) == by_code(Facts(people=people))


# -- the demo town -----------------------------------------------------------------------------------------------


def test_an_exchange_is_on_both_meters() -> None:
    town = demo()
    start, exchanged, end = (datetime(2026, *day, tzinfo=ZONE) for day in ((10, 1), (10, 11), (11, 1)))
    shown = town.true_register
    first = shown("M5101", exchanged) - shown("M5101", start)
    second = shown("M5102", end) - shown("M5102", exchanged)
    energy = [line.quantity for line in town.true_bill("A-M5101", 2026, 10) if line.code.startswith("energy_")]
    assert first > 0 < second
    assert sum(energy) == first + second
    # The old one counts no longer once it is removed, the new one shows what it was delivered with before.
    assert shown("M5101", exchanged) == shown("M5101", end)
    assert shown("M5102", start) == shown("M5102", exchanged) == town.plans["M5102"].start_units // 100


def test_both_meters_of_an_exchange_answer_from_their_memory() -> None:
    town = demo()
    old, new = town.meters["M5101"], town.meters["M5102"]
    assert isinstance(old, Dlt645Meter)
    assert isinstance(new, Dlt645Meter)
    exchanged = datetime(2026, 10, 11, tzinfo=ZONE)
    nth = (NOW.date() - exchanged.date()).days + 1

    def freeze(meter: Dlt645Meter, n: int) -> bytes:
        answer = meter.answer(meter.address, 0x11, bytes((n, 0x01, 0x06, 0x05)))
        assert answer is not None
        return bytes((b - 0x33) & 0xFF for b in answer[14:-2])

    assert freeze(old, nth)[4:8] == bytes.fromhex(f"{town.true_register('M5101', exchanged):08d}")[::-1]
    assert freeze(new, nth)[4:8] == bytes.fromhex(f"{town.true_register('M5102', exchanged):08d}")[::-1]
    assert len(freeze(new, nth + 1)) < 4  # it was not there the day before: an error word only


def test_tenants_share_a_month_between_them() -> None:
    town = demo()
    shown = town.true_register
    days = (datetime(2026, 10, 1, tzinfo=ZONE), datetime(2026, 10, 16, tzinfo=ZONE), datetime(2026, 11, 1, tzinfo=ZONE))
    for account, start, end, service in (("A-M5103", *days[:2], "5.81"), ("A-M5103-2", *days[1:], "6.19")):
        lines = town.true_bill(account, 2026, 10)
        energy = sum(line.quantity for line in lines if line.code.startswith("energy_"))
        assert energy == shown("M5103", end) - shown("M5103", start) > 0
        assert texts(lines)[-1] == ("service", "1.00", service)
    assert town.true_bill("A-M5103-2", 2026, 9) == []
    assert texts(town.true_bill("A-M5103", 2026, 9))[-1] == ("service", "1.00", "12.00")


def test_plants_are_billed_for_demand_and_power_factor() -> None:
    town = demo()
    contract, maximum, capacity = (lines_of(town, f"A-M520{n}") for n in (1, 2, 3))
    assert [line[0] for line in contract][:2] == ["basic_demand", "basic_excess"]
    assert [(code, quantity) for code, quantity, _ in (contract[-1], maximum[-1], capacity[-1])] == [
        ("pf_adjust", "-0.75"),
        ("pf_adjust", "5.00"),
        ("pf_adjust", "-0.60"),  # 0.96 at the meter, 0.94 before the transformer
    ]
    assert capacity[0] == ("basic_capacity", "400.00", "10200.00")
    shown, start = town.registers["M5201"].shown, int(datetime(2026, 10, 1, tzinfo=ZONE).timestamp())
    curve = [shown(start + 900 * k) for k in range(31 * 96 + 1)]
    highest = max(b - a for a, b in pairwise(curve)) * 4 * 3000
    (excess,) = [Decimal(quantity) for code, quantity, _ in contract if code == "basic_excess"]
    assert excess == Decimal(highest).scaleb(-2) - Decimal("1.05") * 1530


def test_a_demand_kept_by_the_meter_is_finer_than_its_display() -> None:
    """The highest quarter of an hour, in 0.0001 kWh, times 4 and the multiplier 40; near what the display tells."""
    town = demo()
    line = town.true_bill("A-M5202", 2026, 10)[0]
    start = int(datetime(2026, 10, 1, tzinfo=ZONE).timestamp())
    for value, within in ((town.registers["M5202"].units, 0), (town.registers["M5202"].shown, 160)):
        curve = [value(start + 900 * k) for k in range(31 * 96 + 1)]
        highest = max(b - a for a, b in pairwise(curve)) * 160 * (100 if within else 1)
        assert abs(highest - line.quantity) <= within * 100
    assert line.as_text()["quantity"] == str(Decimal(line.quantity).scaleb(-4))
    assert line.amount == (Decimal(line.quantity).scaleb(-2) * Decimal("40.8")).quantize(0, ROUND_HALF_UP)


def test_a_transformer_by_hand() -> None:
    """400 kVA, 720 h, 50000 kWh, 30000 kvarh: 34 x 10^8 / (160000 x 720) = 29.5139; x 4.3 kW = 126.91, and 0.57 kW x
    720 h = 410.4: 537.31 kWh. 3.2 kvar x 720 h = 2304, 16 kvar x 29.5139 = 472.22: 2776.22 kvarh."""
    assert S400.losses(5_000_000, 3_000_000, 720) == (537, 2776)
    assert S400.losses(0, 0, 720) == (410, 2304)
    assert Transformer(1, 500, 0, 0, 0).losses(0, 0, 1) == (1, 0)  # half a kWh
    assert S400.as_row() == ("400", "0.570", "4.300", "0.8", "4.0")


def test_a_loss_is_billed_in_the_flat_period_and_counts_in_the_power_factor() -> None:
    town = demo()
    span = town.month_span(2026, 10)
    used, reactive = (
        (shown(span[1]) - shown(span[0])) * 40
        for shown in (
            town.registers["M5203"].shown,
            lambda at_s: town.registers["M5203"].shown(at_s) * 30 // 100,
        )
    )
    lost, _ = S400.losses(used, reactive, 744)
    lines = {line.code: line.quantity for line in town.true_bill("A-M5203", 2026, 10)}
    assert sum(lines[f"energy_{period}"] for period in ("peak", "flat", "valley")) == used + lost * 100
    assert lines["fund_water"] == used + lost * 100
    plain = demo_without("transformer = ")
    without = {line.code: line.quantity for line in plain.true_bill("A-M5203", 2026, 10)}
    assert lines["energy_flat"] - without["energy_flat"] == lost * 100 > 0
    assert lines["energy_peak"] == without["energy_peak"]


def test_a_shop_within_another_pays_for_itself_and_that_one_for_the_rest() -> None:
    town = demo()
    start, end = (datetime(2026, month, 1, tzinfo=ZONE) for month in (10, 11))
    whole, part = (town.true_register(name, end) - town.true_register(name, start) for name in ("M2018", "M2017"))
    energy = {
        name: [line.quantity for line in town.true_bill(f"A-{name}", 2026, 10) if line.code.startswith("energy_")]
        for name in ("M2017", "M2018")
    }
    assert sum(energy["M2017"]) == part > 0
    assert sum(energy["M2018"]) == whole * 30 - part > 0
    alone = demo_without("behind = ").true_bill("A-M2018", 2026, 10)
    both = [line.quantity for line in alone if line.code.startswith("energy_")]
    assert both == [a + b for a, b in zip(energy["M2017"], energy["M2018"], strict=True)]


@pytest.mark.parametrize(("year", "month"), [(2026, m) for m in range(1, 13)] + [(2028, 3)])
def test_every_month_shows_all_of_it(year: int, month: int) -> None:
    """On the first and on the 28th of any month: what the town is for is in the bills of the month before."""
    for day in (1, 28):
        town = demo(datetime(year, month, day, 0, 30, tzinfo=ZONE))
        assert {"basic_demand", "basic_excess"} <= {code for code, _, _ in lines_of(town, "A-M5201")}
        changed = [code for code, _, _ in lines_of(town, "A-M5104")]
        assert changed.count("energy_step2") == 2  # at both prices
        large = sum(Decimal(quantity) for code, quantity, _ in lines_of(town, "A-M5105") if code == "energy_step1")
        assert large == 200
        assert total_cents(town.true_bill("A-M5101", *town.closed_month())) > 0
        assert all(lines_of(town, account) for account in ("A-M5103", "A-M5103-2"))


def test_the_asset_lists_tell_of_it(tmp_path: Path) -> None:
    demo().write_truth(tmp_path)

    def rows(name: str, key: str) -> dict[str, dict[str, str]]:
        with (tmp_path / name).open(encoding="utf-8") as file:
            return {row[key]: row for row in csv.DictReader(file)}

    points, accounts, terms = (
        rows("usage_points.csv", "meter_id"),
        rows("accounts.csv", "account"),
        rows("terms.csv", "account"),
    )
    eleventh, sixteenth = "2026-10-11T00:00:00+08:00", "2026-10-16T00:00:00+08:00"
    (supply,), (behind,) = rows("supplies.csv", "usage_point").items(), rows("submeters.csv", "usage_point").items()
    installed = "2024-01-01T00:00:00+08:00"
    assert supply[0] == "UP-M5203"
    assert list(supply[1].values())[1:] == [installed, *S400.as_row()]
    assert behind[0] == "UP-M2017"
    assert list(behind[1].values())[1:] == ["UP-M2018", installed, "metered", ""]
    assert (points["M5101"]["removed_at"], points["M5102"]["installed_at"]) == (eleventh, eleventh)
    assert points["M5101"]["usage_point"] == points["M5102"]["usage_point"] == "UP-M5101"
    assert "A-M5102" not in accounts
    assert (accounts["A-M5103"]["until"], accounts["A-M5103-2"]["since"]) == (sixteenth, sixteenth)
    assert accounts["A-M5103"]["usage_point"] == accounts["A-M5103-2"]["usage_point"]
    assert {name: (row["contract_kw"], row["capacity_kva"], row["people"]) for name, row in terms.items()} == {
        "A-M5104": ("", "", "3"),
        "A-M5105": ("", "", "5"),
        "A-M5201": ("1530", "", ""),
        "A-M5203": ("", "400", ""),
    }


def test_reactive_energy_is_frozen_and_in_the_load_record() -> None:
    town = demo()
    meter = town.meters["M5202"]
    assert isinstance(meter, Dlt645Meter)
    answer = meter.answer(meter.address, 0x11, bytes((1, 0x03, 0x06, 0x05)))
    assert answer is not None
    data = bytes((b - 0x33) & 0xFF for b in answer[14:-2])
    shown = town.true_register("M5202", NOW.replace(hour=0))
    assert data[4:8] == bytes.fromhex(f"{shown * 75 // 100:08d}")[::-1]


# -- what can't be -----------------------------------------------------------------------------------------------------


def demo_problems(old: str, new: str) -> list[str]:
    text = DEMO.read_text("utf-8")
    assert text.count(old) >= 1, old
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "town.toml"
        path.write_text(text.replace(old, new), "utf-8")
        with pytest.raises(SimulatorError) as caught:
            load_town(path, now=SettableClock(NOW.timestamp()))
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('replaces = "M5101"', 'replaces = "M9"', "town.toml: meter M5102: replaces M9, which can't be -> "),
        ('replaces = "M5101"', 'replaces = "M8001"', "town.toml: meter M5102: replaces M8001: only meters of DL/T 645"),
        (
            'replaces = "M5101"',
            'replaces = "M5103"',
            "town.toml: meter M5102: replaces M5103, and its tenant moves -> ",
        ),
        ("replaces_on = 11", "replaces_on = 1", "town.toml [[meter]] 12: replaces_on: missing or too early -> "),
        ("replaces_on = 11", "replaces_on = 31", "town.toml [[meter]] 12: replaces_on: 31 is not usable -> "),
        ('next_account = "A-M5103-2"', "", "town.toml [[meter]] 13: moves_on: without what happens on it -> "),
        ('"A-M5103-2"', '"A-M5104"', "town.toml: account: A-M5104 stands there 2 times -> "),
        ("contract_percent = 85", "", "town.toml: meter M5201: tariff demo-industry-contract bills a contract -> "),
        ("capacity_kva = 400", "", "town.toml: meter M5203: tariff demo-industry-capacity bills the capacity -> "),
        ("changes_on = 16", "changes_on = 1", "town.toml [[tariff]] 5: changes_on: 1 is the first day of a month -> "),
        ("family_kwh = 100", "", "town.toml [[tariff]] 5: family_kwh: missing -> "),
        (
            'standard = "0.90"',
            'standard = "0.95"',
            "town.toml [[tariff]] 6: standard: unknown '0.95' -> use one of 0.90",
        ),
        ('behind = "M2018"', 'behind = "M2017"', "town.toml: meter M2017: behind M2017, which can't be -> "),
        ('behind = "M2018"', 'behind = "M5201"', "town.toml: meter M2017: behind M5201, of another tariff -> "),
        ('behind = "M2018"', 'behind = "M5103"', "town.toml: meter M2017: behind M5103: meter or tenant change"),
        ("people = 3", 'behind = "M5105"', "town.toml: meter M5104: tariff demo-residential-steps is not of kind tou"),
        ("people = 3", "transformer = { kva = 1, no_load_w = 1, load_w = 1 }", "town.toml: meter M5104: tariff demo-"),
        ("no_load_w = 570, ", "", "town.toml [[meter]] 18: transformer no_load_w: missing -> "),
        ("kva = 400,", "kva = 0,", "town.toml [[meter]] 18: transformer kva: 0 is not usable -> "),
        ("transformer = {", "transformer = 5 # {", "town.toml [[meter]] 18: transformer: 5 is no table -> "),
        ("adjusted = true", "adjusted = 1", "town.toml [[tariff]] 6 [[surcharge]] 2: adjusted: 1 is not usable -> "),
        (
            "reactive_percent = 75",
            "reactive_percent = -1",
            "town.toml [[meter]] 17: reactive_percent: -1 is not usable",
        ),
    ],
)
def test_what_can_not_be_is_told(old: str, new: str, told: str) -> None:
    found = demo_problems(old, new)
    assert any(problem.startswith(told) for problem in found), found


@settings(max_examples=40, deadline=None)
@given(day=st.integers(0, 27 * 86_400 - 1), month=st.integers(1, 12))
def test_whenever_the_town_is_run_parts_make_up_the_month(day: int, month: int) -> None:
    town = demo(datetime(2026, month, 1, tzinfo=ZONE) + timedelta(seconds=day))
    year, closed = town.closed_month()
    start_s, end_s = town.month_span(year, closed)
    shown = town.registers["M5103"].shown
    energy = sum(
        line.quantity
        for account in ("A-M5103", "A-M5103-2")
        for line in town.true_bill(account, year, closed)
        if line.code.startswith("energy_")
    )
    assert energy == shown(end_s) - shown(start_s)

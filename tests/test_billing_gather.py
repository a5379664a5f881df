"""Determinants from the store: in batches, in parts of a month, by registers, by time; what comes before and behind."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from billing import store as bills
from billing.calendar import spans
from billing.charges import (
    CapacityCharge,
    Charge,
    DemandCharge,
    EnergyCharge,
    FixedCharge,
    Household,
    MarketCharge,
    NetMetering,
    PeriodWindow,
    PowerFactorCharge,
    PriceSeries,
    Ratchet,
    Schedule,
    Season,
    Step,
    StepCharge,
    StepTable,
    StepTou,
    StepTouCharge,
    StepTouTable,
    Tariff,
    TouCharge,
)
from billing.gathering.determinants import Gathered, gather
from billing.model import Bill, Derived, Determinant, Hold, IntervalPart, Parent, Period, RegisterPart, Segment
from billing.rating.rate import rate_cases
from billing.segments import Case, Terms
from headend.model import Meter, Quality, Reading, ReadKind, Source, Window
from headend.store import Store, registry
from headend.store.terms import SubmeterRow, SupplyRow, put_submeters, put_supplies
from tests.billing_support import NOW, SHANGHAI, WRAP, add_meter, feed, feed_month, freeze, local, month, points

VECTORS = {
    case["id"]: case
    for case in json.loads((Path(__file__).parent / "vectors" / "worked_bills.json").read_text("utf-8"))["cases"]
}
JUNE = month(6)
MONTHS = tuple(range(1, 13))
SINCE = local("2025-01-01T00:00")
DAY_NIGHT = Schedule((Season(MONTHS, "all", (PeriodWindow("valley", 0, 480), PeriodWindow("peak", 480, 1440))),))
PRICES = (("peak", Decimal("0.6")), ("valley", Decimal("0.3")))
TOU = TouCharge(PRICES, DAY_NIGHT)
NO_TERMS = Terms()


def tariff(*charges: Charge, version: str = "1") -> Tariff:
    day = date(2020, 1, 1)
    return Tariff("t", version, "t", "a test", day, True, day, None, SHANGHAI, "CNY", charges, sha=version * 64)


def case(*charges: Charge, point: str = "U1", account: str = "A1", terms: Terms = NO_TERMS, number: int = 6) -> Case:
    row = registry.AccountRow(account, point, "C1", "t", SINCE)
    return Case(row, Period.of(tariff(*charges), month(number)), (terms,))


def place(store: Store, *meters: tuple[str, Meter, datetime, str]) -> None:
    """Meters at usage points, each until the next at the same point."""
    with store.write() as conn:
        registry.put_usage_points(conn, [registry.UsagePointRow(point) for point in {m[0] for m in meters}])
        rows = []
        for number, (point, meter, since, multiplier) in enumerate(meters):
            until = next((other[2] for other in meters[number + 1 :] if other[0] == point), None)
            rows.append(registry.InstallationRow(point, meter.id, since, until, Decimal(multiplier)))
        registry.put_installations(conn, rows)


def gathered(store: Store, *cases: Case, past: int | None = None) -> list[Gathered]:
    with store.read() as conn:
        as_of = bills.highest_outcome(conn) if past is None else past
        return gather(conn, cases, as_of=as_of, past=past is not None)


def good(store: Store, one: Case) -> dict[str, Determinant]:
    (found,) = gathered(store, one)
    assert found.holds == ()
    return {determinant.name: determinant for determinant in found.determinants}


def holds(store: Store, one: Case) -> tuple[Hold, ...]:
    (found,) = gathered(store, one)
    return found.holds


def summed(parents: Sequence[Parent], *kinds: type[RegisterPart] | type[IntervalPart]) -> Decimal:
    """What the parents of these kinds sum to."""
    return sum((parent.value for parent in parents if isinstance(parent, kinds)), Decimal(0))


def values(found: Sequence[Determinant]) -> dict[str, tuple[Decimal, object]]:
    return {one.name: (one.value, one.counts) for one in found}


def rise(store: Store, meter: Meter, quantity: str, energy: Decimal | str, window: Window = JUNE) -> None:
    """A register that rises from 100 in a window."""
    ends = [
        freeze(window.start, "100", quantity=quantity),
        freeze(window.end, 100 + Decimal(energy), quantity=quantity),
    ]
    feed(store, meter, ReadKind.DAILY_FREEZE, ends)


def by_period(energies: Sequence[Decimal], window: Window, step_s: int = 900) -> dict[str, Decimal]:
    """Sums by TOU period, one interval after the other."""
    found = dict[str, Decimal]()
    for number, energy in enumerate(energies):
        at = window.start + timedelta(seconds=number * step_s)
        period = next(span.period for span in spans(DAY_NIGHT, window, SHANGHAI) if span.start <= at < span.end)
        found[period] = found.get(period, Decimal(0)) + energy
    return found


# -- registers ---------------------------------------------------------------------------------------------------------

REGISTERS = (("peak", "import_kwh_t2"), ("flat", "import_kwh_t3"), ("valley", "import_kwh_t4"))
THREE = Schedule(
    (
        Season(
            MONTHS,
            "all",
            (PeriodWindow("valley", 0, 480), PeriodWindow("peak", 480, 900), PeriodWindow("flat", 900, 1440)),
        ),
    )
)


def by_registers(prices: dict[str, str], rest: str = "flat") -> TouCharge:
    priced = tuple((period, Decimal(price)) for period, price in prices.items())
    return TouCharge(priced, THREE, "", "registers", REGISTERS, rest)


def test_what_the_period_registers_leave_goes_to_the_rest(sqlite_store: Store) -> None:
    """The published rule: total 1000, each of three registers 333, the difference is flat."""
    worked = VECTORS["M04"]
    inputs = worked["inputs"]
    meter = add_meter(sqlite_store, step_s=0)
    place(sqlite_store, ("U1", meter, SINCE, "1"))
    rise(sqlite_store, meter, "import_kwh", inputs["total"])
    for period, quantity in REGISTERS:
        rise(sqlite_store, meter, quantity, inputs[period])
    one = case(by_registers(inputs["price"]))
    found = good(sqlite_store, one)
    assert {name: found[f"import_kwh_{name}"].value for name in ("peak", "flat", "valley")} == {
        "peak": 333,
        "flat": 334,
        "valley": 333,
    }
    parents = found["import_kwh_flat"].parents
    assert [parent for parent in parents if isinstance(parent, Derived)] == [
        Derived("import_kwh", Decimal(1000)),
        Derived("import_kwh_peak", Decimal(-333)),
        Derived("import_kwh_valley", Decimal(-333)),
    ]
    (lines,) = rate_cases(one.period, [found])
    assert [(line.code, str(line.amount)) for line in lines] == [
        (line["code"], line["amount"]) for line in worked["expected"]["lines"]
    ]
    (hold,) = holds(sqlite_store, case(by_registers(inputs["price"], "")))
    assert hold.code == "tou_registers"
    assert "differ by 1 kWh" in hold.what
    assert not hold.review


def test_registers_and_intervals_that_disagree_are_looked_at(sqlite_store: Store) -> None:
    meter = add_meter(sqlite_store)
    place(sqlite_store, ("U1", meter, SINCE, "10"))
    energies = feed_month(sqlite_store, meter, JUNE)
    charge = replace(TOU, registers=(("peak", "import_kwh_t2"), ("valley", "import_kwh_t4")))
    sums = by_period(energies, JUNE)
    rise(sqlite_store, meter, "import_kwh_t2", sums["peak"])
    rise(sqlite_store, meter, "import_kwh_t4", sums["valley"])
    for measured_by in ("intervals", "registers"):
        assert {
            name: d.value for name, d in good(sqlite_store, case(replace(charge, measured_by=measured_by))).items()
        } == {
            "import_kwh": 10 * sum(energies),
            "import_kwh_peak": 10 * sums["peak"],
            "import_kwh_valley": 10 * sums["valley"],
        }
    moved = sum(energies, Decimal(0)) / 50
    for quantity, value in (("import_kwh_t2", sums["peak"] - moved), ("import_kwh_t4", sums["valley"] + moved)):
        value = value.quantize(Decimal("0.01"))
        later = freeze(JUNE.end, 100 + value, quantity=quantity, taken_at=NOW)
        feed(sqlite_store, meter, ReadKind.DAILY_FREEZE, [later])
    for measured_by in ("intervals", "registers"):
        (found,) = gathered(sqlite_store, case(replace(charge, measured_by=measured_by, rest="peak")))
        (hold,) = found.holds
        assert (hold.code, hold.review, hold.count) == ("tou_check", True, 2)
        assert found.determinants  # a person may release it


# -- parts of a month --------------------------------------------------------------------------------------------------


def cut_case(charges: Sequence[Charge], *days: str, until: datetime = JUNE.end) -> Case:
    """June cut at civil midnights: one version of a tariff after the other."""
    starts = [JUNE.start, *(local(f"{day}T00:00") for day in days)]
    segments = tuple(
        Segment(Window(start, end), tariff(*charges, version=str(number)), f"{start + timedelta(hours=8):%Y-%m-%d}")
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], until], strict=True), start=1)
    )
    row = registry.AccountRow("A1", "U1", "C1", "t", SINCE)
    period = Period(JUNE, Window(JUNE.start, until), segments)
    return Case(row, period, tuple(Terms(Decimal(10 * n)) for n in range(1, len(segments) + 1)))


def test_each_part_has_its_own_and_they_sum_to_the_whole(sqlite_store: Store) -> None:
    """Also through an exchange of the meter, to one with another multiplier, on a day of its own."""
    old, new = add_meter(sqlite_store, "M1"), add_meter(sqlite_store, "M2", step_s=3600)
    change = local("2026-06-20T09:00")
    place(sqlite_store, ("U1", old, SINCE, "2"), ("U1", new, change, "40"))
    first = feed_month(sqlite_store, old, Window(JUNE.start, change))
    second = feed_month(sqlite_store, new, Window(change, JUNE.end), step_s=3600, register="999990", seed=3)
    charges = (TOU, DemandCharge(Decimal(38), "intervals", 60, contracted=True))
    whole = good(sqlite_store, case(*charges, terms=Terms(Decimal(5))))
    one = cut_case(charges, "2026-06-10", "2026-06-25")
    found = good(sqlite_store, one)
    labels = ["2026-06-01", "2026-06-10", "2026-06-25"]
    total = 2 * sum(first) + 40 * sum(second)
    assert found["import_kwh"].value == whole["import_kwh"].value == total
    assert list(found["import_kwh"].parents) == [
        Derived(f"import_kwh@{label}", found[f"import_kwh@{label}"].value) for label in labels
    ]
    for period in ("peak", "valley"):
        parts = [found[f"import_kwh_{period}@{label}"] for label in labels]
        assert sum(part.value for part in parts) == whole[f"import_kwh_{period}"].value
        assert [len(part.parents) for part in parts] == [1, 2, 1]
    assert found["import_kwh@2026-06-01"].value == 2 * sum(first[: 96 * 9])
    hours = [2 * sum(first[n : n + 4]) for n in range(0, len(first), 4)] + [40 * energy for energy in second]
    assert found["import_max_kw"].value == whole["import_max_kw"].value == max(hours)
    assert [found[f"contract_kw@{label}"].value for label in labels] == [10, 20, 30]
    (lines,) = rate_cases(one.period, [found])
    assert sum(line.quantity for line in lines if line.code.startswith("energy")) == total


def test_a_batch_is_its_bills_one_by_one(sqlite_store: Store) -> None:
    cases = []
    for number in range(6):
        meter = add_meter(sqlite_store, f"M{number}", step_s=900 if number % 2 else 3600)
        place(sqlite_store, (f"U{number}", meter, SINCE, str(number + 1)))
        if number != 4:
            feed_month(sqlite_store, meter, JUNE, seed=number, step_s=900 if number % 2 else 3600)
        charges: tuple[Charge, ...] = (TOU,) if number % 3 else (EnergyCharge(Decimal(1)),)
        cases.append(case(*charges, point=f"U{number}", account=f"A{number}"))
    cases.append(case(FixedCharge("fee", Decimal(8)), point="U9", account="A9"))
    many = gathered(sqlite_store, *cases)
    assert many == [gathered(sqlite_store, one)[0] for one in cases]
    assert many == gathered(sqlite_store, *reversed(cases))[::-1]
    assert [len(found.determinants) for found in many] == [1, 3, 3, 1, 0, 3, 0]
    assert {hold.code for hold in many[4].holds} == {"register_absent", "interval_missing"}


@pytest.mark.parametrize("seed", range(3))
def test_the_order_in_which_values_come_does_not_matter(sqlite_store: Store, seed: int) -> None:
    """Also of values that come twice, as a later read or as a correction."""
    window = Window(JUNE.start, JUNE.start + timedelta(days=3))
    chance = random.Random(seed)
    rows = points(window.start, 900, WRAP - 20, [Decimal(chance.randint(0, 60)).scaleb(-2) for _ in range(288)])
    batches = [rows[n : n + 40] for n in range(0, len(rows), 40)]
    again = [replace(row, value=(row.value + 1) % WRAP, taken_at=NOW) for row in rows[60:]]
    edits = [replace(again[100], value=again[100].value + Decimal("0.01"), quality=Quality.EDITED)]
    batches += [again[n : n + 90] for n in range(0, len(again), 90)] + [edits]
    row = registry.AccountRow("A1", "U1", "C1", "t", SINCE)
    results = []
    for number in range(3):
        chance.shuffle(batches)
        meter = add_meter(sqlite_store, f"M{number}")
        place(sqlite_store, (f"U{number}", meter, SINCE, "3"))
        for batch in batches:
            feed(sqlite_store, meter, ReadKind.CURVE, batch)
        asked = (TOU, DemandCharge(Decimal(38), "intervals", 30, slide_min=15))
        one = Case(replace(row, usage_point=f"U{number}"), Period.of(tariff(*asked), JUNE, window), (Terms(),))
        results.append(values(list(good(sqlite_store, one).values())))
    assert results[0] == results[1] == results[2]
    assert dict(results[0]["import_kwh_peak"][1])[Quality.EDITED] == 2  # type: ignore[call-overload]


def test_what_was_billed_can_be_gathered_again_as_it_stood(sqlite_store: Store) -> None:
    meter = add_meter(sqlite_store)
    place(sqlite_store, ("U1", meter, SINCE, "1"))
    energies = feed_month(sqlite_store, meter, JUNE)
    one = case(TOU, DemandCharge(Decimal(38), "intervals"))
    (before,) = gathered(sqlite_store, one)
    with sqlite_store.read() as conn:
        then = bills.highest_outcome(conn)
    rows = points(JUNE.start, 900, "100", energies)
    late = [replace(rows[n], value=rows[n].value + Decimal("0.05"), taken_at=NOW) for n in (500, 900, len(rows) - 1)]
    edit = replace(rows[900], value=rows[900].value + Decimal("0.07"), quality=Quality.EDITED, taken_at=NOW)
    for reading in (*late, edit):
        feed(sqlite_store, meter, ReadKind.CURVE, [reading])
    feed(sqlite_store, meter, ReadKind.DAILY_FREEZE, [freeze(JUNE.end, rows[-1].value + Decimal("0.05"), taken_at=NOW)])
    (after,) = gathered(sqlite_store, one)
    assert values(after.determinants) != values(before.determinants)
    assert gathered(sqlite_store, one, past=then) == [before]


# -- times -------------------------------------------------------------------------------------------------------------


def test_steps_fill_interval_by_interval(sqlite_store: Store) -> None:
    meter = add_meter(sqlite_store)
    place(sqlite_store, ("U1", meter, SINCE, "1.5"))
    energies = feed_month(sqlite_store, meter, JUNE)
    steps = (StepTou(Decimal(100), PRICES), StepTou(Decimal("333.3"), PRICES), StepTou(None, PRICES))
    charge = StepTouCharge("month", (StepTouTable(MONTHS, steps),), DAY_NIGHT, "chronological")
    expected = dict[str, Decimal]()
    reached = Decimal(0)
    for number, energy in enumerate(energies):
        at = JUNE.start + timedelta(minutes=15 * number)
        period = "valley" if (at + timedelta(hours=8)).hour < 8 else "peak"
        left = energy * Decimal("1.5")
        for step, limit in enumerate((Decimal(100), Decimal("333.3"), Decimal(10**9)), start=1):
            part = max(min(limit - reached, left), Decimal(0))
            name = f"import_kwh_step{step}_{period}"
            expected[name] = expected.get(name, Decimal(0)) + part
            reached, left = reached + part, left - part
    found = good(sqlite_store, case(charge))
    assert {name: one.value for name, one in found.items() if "_step" in name} == expected
    assert sum(expected.values()) == found["import_kwh"].value
    cut = good(sqlite_store, cut_case([charge], "2026-06-12"))
    for name, value in expected.items():
        assert cut[f"{name}@2026-06-01"].value + cut[f"{name}@2026-06-12"].value == value


def test_market_value_is_each_interval_at_its_price(sqlite_store: Store) -> None:
    meter = add_meter(sqlite_store)
    place(sqlite_store, ("U1", meter, SINCE, "20"))
    energies = feed_month(sqlite_store, meter, JUNE)
    chance = random.Random(2)
    prices = tuple(Decimal(chance.randint(-500, 900)).scaleb(-4) for _ in range(31 * 24))
    series = PriceSeries("spot.csv", "0" * 64, JUNE.start - timedelta(hours=5), 3600, prices)
    found = good(sqlite_store, case(MarketCharge("spot", series)))["market_value_spot"]
    assert found.value == sum(20 * energy * prices[5 + n // 4] for n, energy in enumerate(energies))
    assert (found.unit, found.counts) == ("CNY", ((Quality.VALID, 2880),))
    (part,) = found.parents
    assert isinstance(part, IntervalPart)
    assert part.value == 20 * sum(energies)
    (short,) = holds(sqlite_store, case(MarketCharge("spot", replace(series, prices=prices[:700]))))
    assert short.code == "market_prices"
    (fine,) = holds(sqlite_store, case(MarketCharge("spot", replace(series, step_s=600))))
    assert fine.code == "market_step"


def test_a_sliding_demand_in_the_hours_of_one_period(sqlite_store: Store) -> None:
    meter = add_meter(sqlite_store)
    place(sqlite_store, ("U1", meter, SINCE, "10"))
    energies = [Decimal(0)] * 2880
    energies[10:12] = [Decimal(5), Decimal(5)]  # 02:30, valley
    energies[101:103] = [Decimal(2), Decimal(2)]  # across a half hour, in the next night
    energies[40:42] = [Decimal(1), Decimal(3)]  # 10:00, peak
    feed(sqlite_store, meter, ReadKind.CURVE, points(JUNE.start, 900, "0", energies))
    asked = DemandCharge(Decimal(1), "intervals", 30, code="all", slide_min=15)
    peak = replace(asked, code="peak", schedule=DAY_NIGHT, period="peak")
    energies[101:103] = [Decimal(0), Decimal(0)]
    found = good(sqlite_store, case(asked, peak, EnergyCharge(Decimal(1))))
    assert [found[name].value for name in ("import_max_kw", "import_max_kw_peak")] == [200, 80]
    (part,) = found["import_max_kw_peak"].parents
    assert isinstance(part, IntervalPart)
    assert part.window == Window(local("2026-06-01T10:00"), local("2026-06-01T10:30"))
    winter = replace(asked, months=(12, 1))
    assert "import_max_kw" not in good(sqlite_store, case(winter, EnergyCharge(Decimal(1))))


# -- before and behind the meter ---------------------------------------------------------------------------------------


def test_the_loss_of_the_transformer_is_billed_and_counts_in_the_power_factor(sqlite_store: Store) -> None:
    """The worked case of 630 kVA: 1451 kWh in 720 hours."""
    inputs = VECTORS["M07"]["inputs"]
    meter = add_meter(sqlite_store, step_s=3600)
    place(sqlite_store, ("U1", meter, SINCE, "100"))
    active, reactive = (Decimal(inputs[name]) / 100 for name in ("active_kwh", "reactive_kvarh"))
    hourly = [active / 720] * 720
    feed(sqlite_store, meter, ReadKind.CURVE, points(JUNE.start, 3600, "0", hourly))
    rise(sqlite_store, meter, "import_kvarh", reactive)
    rated, no_load, load, factor = (Decimal(inputs[name]) for name in ("sn_kva", "p0_kw", "pk_kw", "k"))
    row = SupplyRow("U1", SINCE, None, rated, no_load, load, Decimal("1.1"), Decimal("4.5"), factor)
    with sqlite_store.write() as conn:
        put_supplies(conn, [row])
    found = good(sqlite_store, case(TOU, PowerFactorCharge(Decimal("0.9"), ("energy",))))
    loss = Decimal(VECTORS["M07"]["expected"]["lines"][0]["qty"])
    assert found["loss_kwh"].value == loss
    assert found["import_kwh"].value == Decimal(inputs["active_kwh"]) + loss
    assert Derived("loss_kwh", loss) in found["import_kwh"].parents
    assert found["import_kwh_peak"].value + found["import_kwh_valley"].value == found["import_kwh"].value
    assert found["import_kwh_peak"].value == 120_000 + (loss * 2 / 3).quantize(Decimal("0.0001"))
    lost = found["loss_kvarh"].value
    assert lost > 4989  # 630 kVA x 1.1 % x 720 h, and what the load adds
    assert found["import_kvarh"].value == Decimal(inputs["reactive_kvarh"]) + lost
    names = ("import_kwh", "import_kvarh")
    assert found["power_factor"].parents == tuple(Derived(name, found[name].value) for name in names)


def test_points_behind_a_meter_and_its_own_sum_to_what_it_registered(sqlite_store: Store) -> None:
    main, behind = add_meter(sqlite_store, "M1"), add_meter(sqlite_store, "M2")
    place(sqlite_store, ("U1", main, SINCE, "10"), ("U2", behind, SINCE, "1"))
    feed_month(sqlite_store, main, JUNE)
    feed_month(sqlite_store, behind, JUNE, seed=2)
    with sqlite_store.write() as conn:
        registry.put_usage_points(conn, [registry.UsagePointRow("U3"), registry.UsagePointRow("U4")])
        rows = [
            SubmeterRow("U2", "U1", SINCE, None, "metered"),
            SubmeterRow("U3", "U1", SINCE, None, "quantity", Decimal(300)),
            SubmeterRow("U4", "U1", SINCE, None, "ratio", Decimal("12.5")),
        ]
        put_submeters(conn, rows)
    cases = [case(TOU, point=f"U{n}", account=f"A{n}") for n in (1, 2, 3, 4)]
    found = gathered(sqlite_store, *cases)
    assert [one.holds for one in found] == [(), (), (), ()]
    by_name = [{d.name: d for d in one.determinants} for one in found]
    with_alone = good(sqlite_store, replace(cases[1]))
    assert values(found[1].determinants) == values(list(with_alone.values()))
    registered = summed(by_name[0]["import_kwh"].parents, RegisterPart)
    for name in ("import_kwh", "import_kwh_peak", "import_kwh_valley"):
        whole = summed(by_name[0][name].parents, RegisterPart, IntervalPart)
        assert sum(one[name].value for one in by_name) == whole
    assert by_name[2]["import_kwh"].value == 300
    assert by_name[3]["import_kwh"].value == ((registered - 300) * Decimal("0.125")).quantize(Decimal("0.0001"))
    taken = {p.name: p.value for p in by_name[0]["import_kwh"].parents if isinstance(p, Derived)}
    assert taken == {f"submeter U{n}": -by_name[n - 1]["import_kwh"].value for n in (2, 3, 4)}
    with sqlite_store.write() as conn:
        put_submeters(conn, [SubmeterRow("U3", "U1", SINCE, None, "quantity", Decimal(10**6))])
    assert [hold.code for hold in holds(sqlite_store, cases[0])] == ["submeter_energy"]
    assert [hold.code for hold in holds(sqlite_store, cases[2])] == ["submeter_energy"]


def test_what_begins_within_a_part_and_what_no_meter_tells_is_held(sqlite_store: Store) -> None:
    meter = add_meter(sqlite_store)
    place(sqlite_store, ("U1", meter, SINCE, "1"))
    feed_month(sqlite_store, meter, JUNE)
    change = local("2026-06-12T00:00")
    with sqlite_store.write() as conn:
        registry.put_usage_points(conn, [registry.UsagePointRow("U2")])
        put_submeters(conn, [SubmeterRow("U2", "U1", change, None, "ratio", Decimal(10))])
        line = SupplyRow("U1", change, None, Decimal(0), Decimal(0), Decimal(0), line_percent=Decimal(2))
        put_supplies(conn, [line])
    found = holds(sqlite_store, case(TOU))
    assert [hold.code for hold in found] == ["supply_part", "submeter_part"]
    assert {(hold.start, hold.end) for hold in found} == {(JUNE.start, JUNE.end)}
    parted = good(sqlite_store, cut_case([TOU], "2026-06-12"))
    assert {"import_kwh", "loss_kwh@2026-06-12"} <= parted.keys()
    assert "loss_kwh@2026-06-01" not in parted
    with sqlite_store.write() as conn:
        registry.put_usage_points(conn, [registry.UsagePointRow("U3"), registry.UsagePointRow("U4")])
        put_submeters(conn, [SubmeterRow("U3", "U4", SINCE, None, "ratio", Decimal(10))])
    other = add_meter(sqlite_store, "M4", step_s=0)
    place(sqlite_store, ("U4", other, SINCE, "1"))
    rise(sqlite_store, other, "import_kwh", "50")
    assert good(sqlite_store, case(EnergyCharge(Decimal(1)), point="U3"))["import_kwh"].value == 5
    asked = DemandCharge(Decimal(1), "intervals")
    assert [hold.code for hold in holds(sqlite_store, case(asked, point="U3"))] == ["no_meter"]


def test_a_demand_of_hours_that_intervals_straddle_is_held(sqlite_store: Store) -> None:
    meter = add_meter(sqlite_store, step_s=3600)
    place(sqlite_store, ("U1", meter, SINCE, "1"))
    feed_month(sqlite_store, meter, JUNE, step_s=3600)
    halves = (PeriodWindow("low", 0, 390), PeriodWindow("high", 390, 1440))
    asked = DemandCharge(
        Decimal(1), "intervals", 60, schedule=Schedule((Season(MONTHS, "all", halves),)), period="high"
    )
    (hold,) = holds(sqlite_store, case(asked, EnergyCharge(Decimal(1))))
    assert (hold.code, hold.count) == ("interval_straddles", 30)


# -- earlier bills, terms ----------------------------------------------------------------------------------------------


def issue(store: Store, number: int, *determinants: Determinant) -> None:
    window = month(number)
    place_ = ("A1", "U1", window, "draft", "t", "1", "1" * 64, SHANGHAI, "CNY")
    bill = Bill(f"A1-2026-{number:02d}", *place_, determinants=determinants)
    with store.write() as conn:
        bills.put_tariff(conn, tariff(), {}, NOW)
        assert bills.put(conn, bill, NOW) == "issued"


def test_a_ratchet_looks_back_at_the_bills_of_its_months(sqlite_store: Store) -> None:
    meter = add_meter(sqlite_store)
    place(sqlite_store, ("U1", meter, SINCE, "1"))
    feed_month(sqlite_store, meter, JUNE)
    charge = DemandCharge(Decimal(38), "intervals", ratchet=Ratchet(4, Decimal(80), (3, 4, 5, 6)))
    for number, kw in ((3, 70), (4, 55), (2, 900)):
        issue(sqlite_store, number, Determinant("import_max_kw", Decimal(kw), "kW"))
    (found,) = gathered(sqlite_store, case(charge))
    (hold,) = found.holds
    assert (hold.code, hold.review, hold.count) == ("ratchet_unknown", True, 1)
    assert hold.what.startswith("the demand of 2026-05 is not known")
    issue(sqlite_store, 5, Determinant("import_max_kw", Decimal(60), "kW"))
    ratchet = good(sqlite_store, case(charge))["ratchet_kw"]
    assert ratchet.value == 70
    assert ratchet.parents == (Derived("bill A1-2026-03", Decimal(70)),)


def test_exported_energy_is_carried_to_the_next_month(sqlite_store: Store) -> None:
    meter = add_meter(sqlite_store, step_s=0)
    place(sqlite_store, ("U1", meter, SINCE, "1"))
    rise(sqlite_store, meter, "import_kwh", "100")
    rise(sqlite_store, meter, "export_kwh", "60")
    one = case(NetMetering(Decimal("0.4"), carry=True), EnergyCharge(Decimal(1)))
    (unknown,) = gathered(sqlite_store, one)
    assert [(hold.code, hold.review) for hold in unknown.holds] == [("carried_unknown", True)]
    names = ("net_kwh", "surplus_kwh", "carried_kwh", "carried_on_kwh")
    issue(sqlite_store, 5, Determinant("carried_on_kwh", Decimal(70), "kWh"))
    found = good(sqlite_store, one)
    assert [found[name].value for name in names] == [0, 30, 70, 30]
    assert found["carried_kwh"].parents == (Derived("bill A1-2026-05", Decimal(70)),)
    last = case(NetMetering(Decimal("0.4"), carry=True, year_start=(7, 1)), EnergyCharge(Decimal(1)))
    found = good(sqlite_store, last)
    assert [found[name].value for name in names] == [0, 30, 70, 0]
    first = case(NetMetering(Decimal("0.4"), carry=True, year_start=(6, 1)), EnergyCharge(Decimal(1)))
    found = good(sqlite_store, first)
    assert [found[name].value for name in names] == [40, 0, 0, 0]


def test_terms_are_determinants_only_where_a_charge_asks(sqlite_store: Store) -> None:
    charges = (CapacityCharge(Decimal(25), None), FixedCharge("fee", Decimal(1)))
    told = Terms(Decimal(400), Decimal(630), 6)
    assert {name: one.value for name, one in good(sqlite_store, case(*charges, terms=told)).items()} == {
        "capacity_kva": 630
    }
    (hold,) = holds(sqlite_store, case(*charges))
    assert (hold.code, hold.remedy) == ("no_capacity", "give capacity_kva in the account's terms")
    meter = add_meter(sqlite_store, step_s=0)
    place(sqlite_store, ("U1", meter, SINCE, "1"))
    rise(sqlite_store, meter, "import_kwh", "100")
    kept = [
        Reading("import_max_kw", Decimal(n), at, at, Source.SETTLEMENT) for n, at in ((9, JUNE.start), (7, JUNE.end))
    ]
    for reading in kept:
        feed(sqlite_store, meter, ReadKind.SETTLEMENT, [reading])
    demand = DemandCharge(Decimal(38), "register", contracted=True)
    found = good(sqlite_store, case(demand, terms=told))
    assert [found[name].value for name in ("contract_kw", "import_max_kw")] == [400, 7]
    assert found["contract_kw"].parents == (Derived("account", Decimal(400)),)
    (hold,) = holds(sqlite_store, case(demand))
    assert hold.code == "no_contract"
    large = StepCharge("month", (StepTable(MONTHS, (Step(None, Decimal(1)),)),), household=Household(5, Decimal(100)))
    assert good(sqlite_store, case(large, terms=told))["people"].value == 6
    assert "people" not in good(sqlite_store, case(large))

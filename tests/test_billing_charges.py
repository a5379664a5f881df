"""Demand and capacity: from the store to lines, and what holds for every amount; charges that make no sense."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.charges import CapacityCharge, DemandCharge, PowerFactorCharge
from billing.kernel import highest_block
from billing.model import Determinant, IntervalPart, RegisterPart
from billing.rating import rate
from headend.errors import ConfigError
from headend.model import Meter, Quality, ReadKind, Window
from headend.store import Store, registry
from tests.billing_support import add_meter, connect, feed, local, month, points, written
from tests.charges_support import (
    BY_INTERVALS,
    DEMAND,
    ENERGY,
    EXPORT,
    FACTOR,
    NET,
    PLACE,
    amounts,
    close,
    explained,
    made,
    metered,
    register,
    settle,
    settled,
    shown,
)

# -- demand ------------------------------------------------------------------------------------------------------------


def test_a_demand_from_the_meters_register_with_its_settlements(store: Store, tmp_path: Path) -> None:
    tariff = written(tmp_path, "t", PLACE + ENERGY + DEMAND)
    meter = metered(store, tariff, multiplier="40")
    middle = local("2026-06-15T00:00")
    settle(store, meter, settled(month(6).start, "99"), settled(middle, "12.0125"), settled(month(6).end, "11"))
    assert close(store, tariff) == ()
    bill = shown(store)
    assert amounts(bill) == {"energy": "20000.00", "basic_demand": "19604.40"}
    (demand,) = [found for found in bill.determinants if found.name == "import_max_kw"]
    assert (demand.value, demand.unit, demand.counts) == (Decimal("480.5"), "kW", ((Quality.VALID, 2),))
    (part,) = demand.parents
    assert isinstance(part, RegisterPart)
    assert (part.start.at, part.end.at, part.value) == (month(6).start, middle, Decimal("480.5"))
    told = explained(store)
    assert "meter M1: the highest 12.0125 kW x 40" in told
    assert "= 480.5 kW, between the settlements at 2026-06-01T00:00+08:00 and 2026-06-15T00:00+08:00" in told
    assert "480.5 kW x 40.8 = 19604.40 EUR" in told


def test_a_demand_without_a_settlement_at_both_ends_is_held(store: Store, tmp_path: Path) -> None:
    tariff = written(tmp_path, "t", PLACE + ENERGY + DEMAND)
    meter = metered(store, tariff)
    settle(store, meter, settled(month(6).end, "12"))
    (hold,) = close(store, tariff)
    assert (hold.code, hold.what) == (
        "demand_absent",
        "no import_max_kw of a settlement at 2026-06-01T00:00+08:00",
    )
    settle(store, meter, settled(month(6).start, "0"), settled(local("2026-06-20T00:00"), "900", Quality.SUSPECT))
    (hold,) = close(store, tariff)
    assert (hold.code, hold.start) == ("demand_suspect", local("2026-06-20T00:00"))
    settle(store, meter, settled(local("2026-06-20T00:00"), "9"))
    assert close(store, tariff) == ()
    assert amounts(shown(store))["basic_demand"] == "489.60"


def curve(store: Store, meter: Meter, energies: list[Decimal], step_s: int = 900) -> None:
    feed(store, meter, ReadKind.CURVE, points(month(6).start, step_s, "0", energies))


def test_a_demand_from_the_highest_block_of_intervals(store: Store, tmp_path: Path) -> None:
    """Two blocks of half an hour have 3 kWh; a sliding half hour would have 4."""
    tariff = written(tmp_path, "t", PLACE + ENERGY + BY_INTERVALS + "block_min = 30\n")
    meter = add_meter(store)
    connect(store, meter, tariff, multiplier="10")
    energies = [Decimal(0)] * 2880
    energies[100:104] = [Decimal(1), Decimal(2), Decimal(2), Decimal(1)]
    energies[2000:2002] = [Decimal("2.5"), Decimal("0.4")]
    curve(store, meter, energies)
    assert close(store, tariff) == ()
    bill = shown(store)
    (demand,) = [found for found in bill.determinants if found.name == "import_max_kw"]
    assert (demand.value, demand.counts) == (Decimal(60), ((Quality.VALID, 2880),))
    (part,) = demand.parents
    assert isinstance(part, IntervalPart)
    assert part.window == Window(local("2026-06-02T01:00"), local("2026-06-02T01:30"))
    assert amounts(bill)["basic_demand"] == "2448.00"
    told = explained(store)
    assert "meter M1: 2 intervals of 900 s = 3.00 kWh x 10" in told
    block = "2026-06-02T01:00+08:00 to 2026-06-02T01:30+08:00: x 3600 s / 1800 s = its mean power"
    assert f"= 30 kWh in the highest block, {block}" in told
    assert not [text for text in told if "changed since" in text]


def test_one_missing_interval_hides_the_highest_demand(store: Store, tmp_path: Path) -> None:
    tariff = written(tmp_path, "t", PLACE + ENERGY + BY_INTERVALS)
    meter = add_meter(store)
    connect(store, meter, tariff)
    rows = points(month(6).start, 900, "0", [Decimal(1)] * 2880)
    feed(store, meter, ReadKind.CURVE, [row for n, row in enumerate(rows) if n != 96])
    (hold,) = close(store, tariff)
    assert (hold.code, hold.count) == ("interval_missing", 2)
    assert hold.what == "2 of 2880 intervals missing: 2026-06-01T23:45+08:00 to 2026-06-02T00:15+08:00"


def test_intervals_that_do_not_meet_the_register_tell_no_demand(store: Store, tmp_path: Path) -> None:
    tariff = written(tmp_path, "t", PLACE + ENERGY + BY_INTERVALS)
    curve(store, metered(store, tariff), [Decimal(1)] * 2880)
    (hold,) = close(store, tariff)
    assert hold.code == "sum_check"
    assert hold.what.startswith("the intervals sum to 2880.0000 kWh, the register rose by 1000.0000 kWh")


def test_intervals_longer_than_the_block_do_not_tell_a_demand(store: Store, tmp_path: Path) -> None:
    tariff = written(tmp_path, "t", PLACE + ENERGY + BY_INTERVALS)
    meter = add_meter(store, step_s=3600)
    connect(store, meter, tariff)
    curve(store, meter, [Decimal(1)] * 720, 3600)
    (hold,) = close(store, tariff)
    assert (hold.code, hold.what) == (
        "demand_step",
        "a demand over 15 minutes can't be told from intervals of 3600 s",
    )


def test_the_higher_demand_of_two_meters_counts_with_its_own_multiplier(store: Store, tmp_path: Path) -> None:
    tariff = written(tmp_path, "t", PLACE + ENERGY + BY_INTERVALS)
    old, new = add_meter(store, "M1"), add_meter(store, "M2")
    connect(store, old, tariff)
    change = local("2026-06-10T00:00")
    with store.write() as conn:
        (first,) = registry.installations(conn, "U-A1")
        place = registry.InstallationRow("U-A1", "M2", change, None, Decimal(30))
        registry.put_installations(conn, [replace(first, until=change), place])
    for meter, start, end, energy in ((old, month(6).start, change, "2"), (new, change, month(6).end, "0.1")):
        rows = points(start, 900, "0", [Decimal(energy)] * ((end - start) // timedelta(minutes=15)))
        feed(store, meter, ReadKind.CURVE, rows)
    assert close(store, tariff) == ()
    (demand,) = [found for found in shown(store).determinants if found.name == "import_max_kw"]
    assert (demand.value, demand.counts) == (Decimal(12), ((Quality.VALID, 2880),))
    assert [part.meter for part in demand.parents if isinstance(part, IntervalPart)] == ["M2"]


@pytest.mark.parametrize(
    ("above", "maximum", "expected"),
    [
        # The limit is 525 kW; the price of what lies above is 81.6.
        ("allowance", "525", {"basic_demand": "20400.00"}),
        ("allowance", "535", {"basic_demand": "20400.00", "basic_excess": "816.00"}),
        ("contract", "535", {"basic_demand": "20400.00", "basic_excess": "2856.00"}),
        ("contract", "0", {"basic_demand": "20400.00"}),
    ],
)
def test_a_demand_above_the_contract(above: str, maximum: str, expected: dict[str, str]) -> None:
    charge = DemandCharge(Decimal("40.8"), "register", contract_kw=Decimal(500), excess_above=above)
    determinants = {"import_max_kw": Determinant("import_max_kw", Decimal(maximum), "kW")}
    assert {line.code: str(line.amount) for line in rate.lines(made(charge), determinants, month(6))} == expected


def test_a_part_of_a_month_has_its_days_of_capacity_and_demand(store: Store, tmp_path: Path) -> None:
    since = local("2026-07-19T00:00")
    capacity = '[[charges]]\nkind = "capacity"\nunit = "kVA"\nprice = "25.5"\ncapacity_kva = "630"\n'
    meter = add_meter(store)
    tariff = written(tmp_path, "t", PLACE + capacity + DEMAND)
    connect(store, meter, tariff, since=since)
    register(store, meter, "import_kwh", "0", "100", Window(since, month(7).end))
    settle(store, meter, settled(since, "0"), settled(month(7).end, "62"))
    holds = close(store, written(tmp_path, "t", PLACE + 'part_month = "hold"\n' + capacity + DEMAND), 7)
    assert [(hold.code, hold.start) for hold in holds] == [("part_month", since)]
    assert close(store, tariff, 7) == ()
    first, second = shown(store, "A1-2026-07").lines
    assert (first.text, str(first.amount)) == ("capacity, 630 kVA for 13 of 30 days", "6961.50")
    assert (second.text, str(second.amount)) == ("demand, 13 of 31 days", "1060.80")


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=60), st.integers(1, 4), st.data())
def test_the_highest_block_of_a_whole_is_that_of_its_parts(
    units: list[int], per_block: int, data: st.DataObject
) -> None:
    blocks = len(units) // per_block
    if blocks < 2:
        return
    cut = data.draw(st.integers(1, blocks - 1)) * per_block
    row = np.array([units], dtype=np.int64)
    _, (first,) = highest_block(row[:, :cut], per_block)
    _, (second,) = highest_block(row[:, cut:], per_block)
    (start,), (top,) = highest_block(row, per_block)
    assert top == max(first, second)
    assert sum(units[start : start + per_block]) == top


@given(st.integers(1, 29), st.integers(1, 10**6))
def test_a_month_of_thirty_days_in_two_parts_costs_its_capacity_once(days: int, price_minor: int) -> None:
    june = month(6)
    cut = june.start + timedelta(days=days)
    tariff = made(CapacityCharge(Decimal(price_minor).scaleb(-2), Decimal(630)))
    whole, *parts = [
        rate.lines(tariff, {}, window)[0].amount for window in (june, Window(june.start, cut), Window(cut, june.end))
    ]
    assert whole == sum(parts)  # 630 kVA / 30 days: a whole number of cents a day


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            ENERGY + DEMAND.replace('"40.8"', '"40.8"\nallowance = "0.05"\ncontract_kw = "0"'),
            "t.toml: charges[2].allowance: allowance 0.05 is below 1 -> write the whole factor, like 1.05 for 5 % more",
        ),
        (
            ENERGY + DEMAND + 'discount_hours = "260"\n',
            "t.toml: charges[2]: a discount has hours and a percentage -> write both, or neither",
        ),
        (
            ENERGY + DEMAND + "block_min = 7\n",
            "t.toml: charges[2].block_min: 7 is not known here -> write 5, 10, 15, 20, 30 or 60",
        ),
        (
            FACTOR,
            "t.toml: charges[1].base: the tariff has no charge of energy, demand -> add one, or correct `base`",
        ),
        (
            ENERGY + FACTOR + 'base = ["energy", "energy"]\n',
            "t.toml: charges[2].base: 'energy' stands there twice -> write it once",
        ),
        (
            ENERGY + ENERGY.replace('"energy"', '"surcharge"\ncode = "pf_adjust"'),
            "t.toml: charges[2].code: 'pf_adjust' is the code of another line -> choose another code",
        ),
        (
            ENERGY + NET + EXPORT,
            "t.toml: charges[2]: charges[3] credits the same energy -> keep one of them",
        ),
        (
            NET,
            "t.toml: charges[1]: there is no price of energy to net -> add a charge of kind `energy` or `step`",
        ),
    ],
)
def test_a_charge_that_makes_no_sense_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        written(tmp_path, "t", PLACE + text)
    assert problem in str(caught.value).splitlines()


def test_a_tariff_in_two_parts_loads_as_it_is_written(tmp_path: Path) -> None:
    contract = 'contract_kw = "500"\ndiscount_hours = "260"\ndiscount_percent = "10"\n'
    tariff = written(tmp_path, "t", PLACE + ENERGY + DEMAND + contract + FACTOR + 'base = ["demand"]\n')
    _, demand, factor = tariff.charges
    assert demand == DemandCharge(
        Decimal("40.8"), "register", contract_kw=Decimal(500), discount=(Decimal(260), Decimal(10))
    )
    assert factor == PowerFactorCharge(Decimal("0.90"), ("demand",))

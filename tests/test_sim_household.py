"""The ground truth itself: one number for one instant, whatever was asked before."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.household import KINDS, SLOT_S, WRAP_CENTS, Household, Load, Register

START_S = 1_704_038_400  # 2024-01-01T00:00+08:00
YEARS = st.integers(START_S - 86_400, START_S + 4 * 365 * 86_400)
LOADS = st.builds(Load, seed=st.integers(0, 2**48), kind=st.sampled_from(KINDS), daily_wh=st.integers(500, 90_000))


@settings(max_examples=40, deadline=None)
@given(load=LOADS, instants=st.lists(YEARS, min_size=2, max_size=12))
def test_register_never_falls_and_does_not_depend_on_the_order_of_asking(load: Load, instants: list[int]) -> None:
    asked = Household(load)
    values = {at: asked.used_units(at) for at in instants}
    fresh = Household(load)
    ordered = [fresh.used_units(at) for at in sorted(instants)]
    assert [values[at] for at in sorted(instants)] == ordered
    assert ordered == sorted(ordered)
    assert asked.used_units(START_S) == 0
    assert asked.used_units(START_S - 1) == 0


@settings(max_examples=40, deadline=None)
@given(load=LOADS, at=st.integers(START_S, START_S + 900 * 86_400))
def test_energy_is_additive_linear_in_its_slot_and_agrees_with_power(load: Load, at: int) -> None:
    household = Household(load)
    start = at // SLOT_S * SLOT_S
    low, high = household.used_units(start), household.used_units(start + SLOT_S)
    assert household.used_units(at) == low + (high - low) * (at - start) // SLOT_S
    assert household.power_units(at) == (high - low) * 12
    day = at - (at + load.offset_s) % 86_400
    slots = [household.used_units(day + k * SLOT_S) for k in range(289)]
    assert sum(b - a for a, b in pairwise(slots)) == slots[-1] - slots[0]
    assert slots[-1] == Household(load).used_units(day + 86_400)


@settings(max_examples=30, deadline=None)
@given(load=LOADS, at=YEARS, start=st.integers(0, 10**10))
def test_rates_sum_to_the_total(load: Load, at: int, start: int) -> None:
    register = Register(Household(load), start)
    assert sum(register.household.rates_units(at)) == register.household.used_units(at)
    total = (start + register.household.used_units(at)) // 100
    if total < WRAP_CENTS:  # before the rollover, where the rates roll over on their own
        assert 0 <= total - sum(register.shown_rates(at)) <= 2  # two rates in use, each truncated


def test_rates_follow_the_day_table() -> None:
    household = Household(Load(seed=7))
    six, eight, ten, midnight = (START_S + 86_400 * 40 + hour * 3600 for hour in (6, 8, 22, 24))
    before, morning = household.rates_units(six), household.rates_units(eight)
    night, late = household.rates_units(ten), household.rates_units(midnight)
    assert morning[3] - before[3] == household.used_units(eight) - household.used_units(six) > 0
    assert night[1] - morning[1] == household.used_units(ten) - household.used_units(eight) > 0
    assert late[3] - night[3] == household.used_units(midnight) - household.used_units(ten) > 0
    assert morning[1] == before[1]
    assert night[3] == morning[3]
    assert late[0] == late[2] == 0


def test_display_truncates_and_rolls_over() -> None:
    household = Household(Load(seed=3, daily_wh=10_000))
    register = Register(household, start_units=9_999_999_999)  # 999,999.9999 kWh
    assert register.shown(START_S) == WRAP_CENTS - 1
    later = START_S + 86_400
    assert register.shown(later) == (9_999_999_999 + household.used_units(later)) // 100 - WRAP_CENTS
    assert 0 < register.shown(later) < 5_000


@settings(max_examples=30, deadline=None)
@given(load=LOADS, first=YEARS, step=st.sampled_from([60, 300, 900, 3600]), start=st.integers(0, 10**10 - 1))
def test_many_instants_at_once_say_what_each_says_alone(load: Load, first: int, step: int, start: int) -> None:
    register = Register(Household(load), start)
    for origin in (first, first // 300 * 300):
        instants = [origin + k * step for k in range(120)]
        assert register.shown_all(instants) == [register.shown(at) for at in instants]


@pytest.mark.parametrize(("kind", "busy", "quiet"), [("household", 19, 3), ("shop", 12, 3), ("shop", 12, 23)])
def test_a_day_has_its_shape(kind: str, busy: int, quiet: int) -> None:
    household = Household(Load(seed=11, kind=kind))
    hours = [
        sum(
            household.used_units(START_S + day * 86_400 + (hour + 1) * 3600)
            - household.used_units(START_S + day * 86_400 + hour * 3600)
            for day in range(60)
        )
        for hour in (busy, quiet)
    ]
    assert hours[0] > 2 * hours[1]


def test_summer_and_the_mean_are_as_set() -> None:
    household = Household(Load(seed=5, daily_wh=8_000))
    year = household.used_units(START_S + 366 * 86_400)
    assert 0.9 < year / 366 / 80_000 < 1.15
    april = household.used_units(START_S + 121 * 86_400) - household.used_units(START_S + 91 * 86_400)
    august = household.used_units(START_S + 243 * 86_400) - household.used_units(START_S + 213 * 86_400)
    assert august > 1.3 * april


def test_two_households_are_not_one() -> None:
    at = START_S + 100 * 86_400
    assert len({Household(Load(seed=seed)).used_units(at) for seed in range(50)}) == 50


def test_64_households_warm_up_over_70_days_in_time() -> None:
    started = time.process_time()
    for seed in range(64):
        household = Household(Load(seed=seed))
        for day in range(900, 970):
            household.used_units(START_S + day * 86_400 + 60)
    assert time.process_time() - started < 3.0

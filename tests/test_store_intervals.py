"""Consumption per step: differences of register points, through rollover, gaps, changes of step."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headend.model import Meter, Quality, Window
from headend.store import Store, readings
from tests.helpers import DAY, STEP, curve_readings, fresh_meter, make_outcome, put, reading, registered, window

HOUR = timedelta(hours=1)
WRAP = 1_000_000 * 10_000


def intervals(store: Store, meter: Meter, asked: Window, **more: Any) -> list[Any]:
    with store.read() as conn:
        return readings.intervals(conn, meter.key, "import_interval_kwh", asked, **({"wrap_units": WRAP} | more))


def test_intervals_are_register_differences_with_their_parents(store: Store) -> None:
    (meter,) = registered(store)
    (first, second) = put(
        store,
        make_outcome(meter, curve_readings(DAY, ["10", "10.5"])),
        make_outcome(meter, curve_readings(DAY + 2 * STEP, ["11.25", "11.25"])),
    )
    found = intervals(store, meter, window(DAY, 3))
    assert [(i.start, i.step_s, i.units, i.quality) for i in found] == [
        (DAY, 900, 5_000, Quality.VALID),
        (DAY + STEP, 900, 7_500, Quality.VALID),
        (DAY + 2 * STEP, 900, 0, Quality.VALID),
    ]
    assert [i.parents for i in found] == [(first,), (first, second), (second,)]
    assert {i.quantity for i in found} == {"import_interval_kwh"}


def test_interval_across_rollover(store: Store) -> None:
    (meter,) = registered(store)
    put(store, make_outcome(meter, curve_readings(DAY, ["999999.75", "0.50", "0.75"])))
    assert [i.units for i in intervals(store, meter, window(DAY, 2))] == [7_500, 2_500]
    assert [i.units for i in intervals(store, meter, window(DAY, 1), wrap_units=10_000 * 10_000_000)] == [
        (10_000_000 - 999_999) * 10_000 - 7_500 + 5_000
    ]


def test_intervals_beside_a_missing_point(store: Store) -> None:
    (meter,) = registered(store)
    points = curve_readings(DAY, ["1", "2", "3", "4"])
    (parent,) = put(store, make_outcome(meter, [points[0], points[1], points[3]]))
    found = intervals(store, meter, window(DAY, 4))
    assert [(i.units, i.quality) for i in found] == [
        (10_000, Quality.VALID),
        (None, Quality.MISSING),
        (None, Quality.MISSING),
        (None, Quality.MISSING),
    ]
    assert [i.parents for i in found] == [(parent,)] * 4


def test_interval_takes_the_worse_quality_of_its_ends(store: Store) -> None:
    (meter,) = registered(store)
    qualities = [Quality.VALID, Quality.EDITED, Quality.ESTIMATED, Quality.SUSPECT, Quality.VALID, Quality.VALID]
    points = [reading(DAY + i * STEP, str(i), quality=quality) for i, quality in enumerate(qualities)]
    put(store, make_outcome(meter, points))
    found = [i.quality for i in intervals(store, meter, window(DAY, 5))]
    assert found == [Quality.EDITED, Quality.ESTIMATED, Quality.SUSPECT, Quality.SUSPECT, Quality.VALID]


def test_every_step_of_the_window_has_an_interval_even_without_blocks(store: Store) -> None:
    (meter,) = registered(store)
    asked = Window(DAY, DAY + timedelta(days=3))
    assert [i.quality for i in intervals(store, meter, asked)] == [Quality.MISSING] * 288
    put(store, make_outcome(meter, curve_readings(DAY + timedelta(days=1), [str(i) for i in range(97)])))
    found = intervals(store, meter, asked)
    assert [i.start for i in found] == [DAY + i * STEP for i in range(288)]
    assert [i.units for i in found] == [None] * 96 + [10_000] * 96 + [None] * 96


def test_missing_intervals_follow_the_meters_own_midnight(store: Store) -> None:
    (meter,) = registered(store, clock_zone="+05:30")
    found = intervals(store, meter, window(DAY, 2, HOUR), step_s=3600)
    assert [(i.start, i.step_s, i.units) for i in found] == [
        (DAY + HOUR / 2, 3600, None),
        (DAY + HOUR * 3 / 2, 3600, None),
    ]


def test_delivered_intervals_are_used_as_they_are(store: Store) -> None:
    (meter,) = registered(store)
    delivered = [reading(DAY + i * STEP, value, quantity="import_interval_kwh") for i, value in enumerate(("0.2", "0"))]
    (parent, _) = put(store, make_outcome(meter, delivered), make_outcome(meter, curve_readings(DAY, ["1", "2", "3"])))
    found = intervals(store, meter, window(DAY, 3))
    assert [(i.units, i.quality, i.parents) for i in found] == [
        (2_000, Quality.VALID, (parent,)),
        (0, Quality.VALID, (parent,)),
        (None, Quality.MISSING, ()),
    ]


def test_intervals_across_a_change_of_step(store: Store) -> None:
    (meter,) = registered(store)
    following = DAY + timedelta(days=1)
    put(store, make_outcome(meter, curve_readings(DAY, [str(i) for i in range(96)])))
    put(store, make_outcome(meter, curve_readings(following, [str(96 + 4 * i) for i in range(25)], HOUR)))
    found = intervals(store, meter, Window(DAY, following + timedelta(days=1)))
    assert len(found) == 96 + 24
    assert sum(i.units for i in found) == (96 + 96) * 10_000


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.integers(0, 30_000_000), min_size=1, max_size=120),
    start=st.integers(0, WRAP - 1),
    offset=st.integers(0, 95),
)
def test_intervals_sum_to_the_energy_used(sqlite_store: Store, steps: list[int], start: int, offset: int) -> None:
    """Ground truth: the household's energy per step, through a register that returns to 0 at its end."""
    meter = fresh_meter(sqlite_store)
    register, points = start, []
    begin = DAY + offset * STEP
    for i, step in enumerate([0, *steps]):
        register = (register + step) % WRAP
        points.append(reading(begin + i * STEP, Decimal(register).scaleb(-4)))
    put(sqlite_store, make_outcome(meter, points))
    found = intervals(sqlite_store, meter, window(begin, len(steps)))
    assert [i.units for i in found] == steps

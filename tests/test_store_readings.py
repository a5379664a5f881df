"""Values in, values out: what the store answers, on both databases, after any order of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from headend.civil import zone
from headend.errors import StoreError
from headend.model import Cause, Meter, Outcome, Quality, Reading, ReadKind, SlotState, Source, Window
from headend.store import Store, readings, schema
from headend.store.ledger import SlotSet, open_slots
from tests.helpers import DAY, STEP, curve_readings, fresh_meter, make_outcome, put, reading, registered, window

HOUR = timedelta(hours=1)
WRAP = 1_000_000 * 10_000
DAY_WINDOW = Window(DAY, DAY + timedelta(days=1))


def curve(store: Store, meter: Meter, asked: Window = DAY_WINDOW, **more: Any) -> list[readings.Point]:
    with store.read() as conn:
        return readings.curve(conn, meter.key, "import_kwh", asked, **more)


def values(store: Store, meter: Meter, asked: Window = DAY_WINDOW) -> dict[datetime, int]:
    return {point.at: point.units for point in curve(store, meter, asked) if point.units is not None}


def intervals(store: Store, meter: Meter, asked: Window, **more: Any) -> list[Any]:
    with store.read() as conn:
        return readings.intervals(conn, meter.key, "import_interval_kwh", asked, **({"wrap_units": WRAP} | more))


def revisions(store: Store, meter: Meter, quantity: str = "import_kwh") -> list[readings.Revision]:
    with store.read() as conn:
        return readings.revisions(conn, meter.key, quantity, Window(DAY, DAY + timedelta(days=9)))


def tables(store: Store) -> dict[str, list[Any]]:
    """Every row of every table of acquisition that holds values."""
    kept = ("curve", "snapshot", "slot", "last_value", "revision", "quantity")
    with store.read() as conn:
        return {name: sorted(map(tuple, conn.execute(select(schema.METADATA.tables[name]))), key=repr) for name in kept}


# -- curves ------------------------------------------------------------------------------------------------------------


def test_curve_comes_back_as_it_came(store: Store) -> None:
    meter, other = registered(store, 2)
    (mine, _) = put(
        store,
        make_outcome(meter, curve_readings(DAY, ["100.00", "100.25", "100.2501"])),
        make_outcome(other, curve_readings(DAY, ["7"])),
    )
    points = curve(store, meter, window(DAY, 4))
    assert [(p.at, p.units, p.quality, p.state, p.outcome_id) for p in points] == [
        (DAY, 1_000_000, Quality.VALID, SlotState.GOT, mine),
        (DAY + STEP, 1_002_500, Quality.VALID, SlotState.GOT, mine),
        (DAY + 2 * STEP, 1_002_501, Quality.VALID, SlotState.GOT, mine),
        (DAY + 3 * STEP, None, Quality.MISSING, SlotState.NONE, None),
    ]
    assert values(store, other) == {DAY: 70_000}


def test_window_is_half_open_and_crosses_days(store: Store) -> None:
    (meter,) = registered(store)
    put(store, make_outcome(meter, curve_readings(DAY, [str(i) for i in range(3 * 96)])))
    asked = Window(DAY + timedelta(hours=23), DAY + timedelta(days=2))
    found = curve(store, meter, asked)
    assert [point.at for point in found] == [asked.start + i * STEP for i in range(4 + 96)]
    assert [point.units for point in found] == [(92 + i) * 10_000 for i in range(4 + 96)]
    assert curve(store, meter, Window(DAY, DAY)) == []


def test_out_of_order_and_late(store: Store) -> None:
    (meter,) = registered(store)
    in_time = reading(DAY + 2 * STEP, "3", taken_at=DAY + 2 * STEP + HOUR)
    late = reading(DAY, "1", taken_at=DAY + HOUR + timedelta(seconds=1))
    put(store, make_outcome(meter, [in_time]))
    put(store, make_outcome(meter, [late]))
    put(store, make_outcome(meter, [reading(DAY + STEP, "2")]))
    found = curve(store, meter, window(DAY, 3))
    assert [point.units for point in found] == [10_000, 20_000, 30_000]
    assert [point.state for point in found] == [SlotState.LATE, SlotState.GOT, SlotState.GOT]


def test_same_outcomes_again_change_nothing(store: Store) -> None:
    (meter,) = registered(store)
    later = DAY + timedelta(days=2)
    batch = [
        make_outcome(meter, curve_readings(DAY, ["1", "2", "3"])),
        make_outcome(meter, [reading(DAY + STEP, "9", quality=Quality.SUSPECT), reading(DAY + 3 * STEP, "4")]),
        make_outcome(meter, [reading(DAY + 2 * STEP, "3.5"), reading(DAY, "1", quality=Quality.SUSPECT)]),
        make_outcome(meter, [reading(DAY + 2 * STEP, "3.6")], started_at=later),
        make_outcome(meter, [reading(DAY, "1.5", source=Source.DAILY_FREEZE)], kind=ReadKind.DAILY_FREEZE),
        make_outcome(meter, [reading(DAY, "1.6", source=Source.DAILY_FREEZE)], kind=ReadKind.DAILY_FREEZE),
    ]
    put(store, *batch)
    once = tables(store)
    assert len(once["revision"]) == 4
    put(store, *batch)
    assert tables(store) == once
    for outcome in batch:
        put(store, outcome)
    assert tables(store) == once


def test_a_different_value_replaces_and_the_old_one_is_kept(store: Store) -> None:
    (meter,) = registered(store)
    (first,) = put(store, make_outcome(meter, curve_readings(DAY, ["1", "2"])))
    (second,) = put(store, make_outcome(meter, [reading(DAY + STEP, "2.5")], started_at=DAY + timedelta(days=2)))
    assert values(store, meter) == {DAY: 10_000, DAY + STEP: 25_000}
    (old,) = revisions(store, meter)
    assert (old.at, old.source, old.step_s, old.units) == (DAY + STEP, Source.CURVE, 900, 20_000)
    assert (old.quality, old.outcome_id, old.replaced_by) == (Quality.VALID, first, second)
    assert abs(old.replaced_at - datetime.now(UTC)) < timedelta(minutes=5)


def test_an_earlier_read_that_comes_later_does_not_replace(store: Store) -> None:
    (meter,) = registered(store)
    put(store, make_outcome(meter, [reading(DAY, "2")], started_at=DAY + timedelta(days=2)))
    (older,) = put(store, make_outcome(meter, [reading(DAY, "1")], started_at=DAY + timedelta(days=1)))
    assert values(store, meter) == {DAY: 20_000}
    (loser,) = revisions(store, meter)
    assert (loser.units, loser.outcome_id, loser.replaced_by) == (10_000, older, 0)


@pytest.mark.parametrize("source", [Source.CURVE, Source.DAILY_FREEZE])
def test_suspect_never_replaces_valid_and_valid_replaces_suspect(store: Store, source: Source) -> None:
    (meter,) = registered(store)
    second = DAY + timedelta(days=3)

    def give(at: datetime, value: str, quality: Quality, started_at: datetime) -> int:
        one = reading(at, value, source=source, quality=quality)
        return put(store, make_outcome(meter, [one], started_at=started_at))[0]

    give(DAY, "5", Quality.VALID, DAY)
    lost = give(DAY, "9999", Quality.SUSPECT, second)
    suspect = give(DAY + STEP, "9999", Quality.SUSPECT, second)
    good = give(DAY + STEP, "6", Quality.VALID, DAY)
    with store.read() as conn:
        found = [readings.register_at(conn, meter.key, "import_kwh", at) for at in (DAY, DAY + STEP)]
    assert [(v.units, v.quality) for v in found if v] == [(50_000, Quality.VALID), (60_000, Quality.VALID)]
    kept = [(r.units, r.quality, r.outcome_id, r.replaced_by, r.source) for r in revisions(store, meter)]
    assert kept == [
        (99_990_000, Quality.SUSPECT, lost, 0, source),
        (99_990_000, Quality.SUSPECT, suspect, good, source),
    ]


def test_the_same_number_found_valid_lifts_the_suspicion(store: Store) -> None:
    (meter,) = registered(store)
    put(store, make_outcome(meter, [reading(DAY, "5", quality=Quality.SUSPECT)]))
    (point,) = curve(store, meter, window(DAY, 1))
    assert (point.quality, point.state, point.cause) == (Quality.SUSPECT, SlotState.DUE, Cause.IMPLAUSIBLE)
    put(store, make_outcome(meter, [reading(DAY, "5")]))
    (point,) = curve(store, meter, window(DAY, 1))
    assert (point.quality, point.state, point.cause) == (Quality.VALID, SlotState.GOT, Cause.NONE)
    assert [revision.quality for revision in revisions(store, meter)] == [Quality.SUSPECT]


def test_estimates_yield_to_reads_and_corrections_stand(store: Store) -> None:
    (meter,) = registered(store)
    estimate, edit = Quality.ESTIMATED, Quality.EDITED
    put(store, make_outcome(meter, [reading(DAY, "5", quality=estimate), reading(DAY + STEP, "6", quality=estimate)]))
    assert [point.state for point in curve(store, meter, window(DAY, 2))] == [SlotState.ESTIMATED] * 2
    put(store, make_outcome(meter, [reading(DAY, "5.1"), reading(DAY + STEP, "7", quality=edit)]))
    put(store, make_outcome(meter, [reading(DAY, "4", quality=estimate), reading(DAY + STEP, "6.6")]))
    found = curve(store, meter, window(DAY, 2))
    assert [(point.units, point.quality) for point in found] == [(51_000, Quality.VALID), (70_000, edit)]
    assert [point.state for point in found] == [SlotState.GOT] * 2


def test_hourly_grid_of_a_half_hour_zone(store: Store) -> None:
    (meter,) = registered(store, clock_zone="+05:30")
    midnight = datetime(2026, 3, 10, tzinfo=zone("+05:30")).astimezone(UTC)
    put(store, make_outcome(meter, curve_readings(midnight, [str(i) for i in range(25)], HOUR)))
    asked = Window(midnight, midnight + timedelta(days=1))
    found = curve(store, meter, asked)
    assert [(point.at.minute, point.units) for point in found] == [(30, i * 10_000) for i in range(24)]
    assert [interval.units for interval in intervals(store, meter, asked)] == [10_000] * 24
    with store.read() as conn:
        phases = conn.execute(select(schema.curve.c.phase_s, schema.curve.c.slots).distinct()).all()
    assert [tuple(row) for row in phases] == [(1800, 24)]


def test_curves_of_two_steps_side_by_side(store: Store) -> None:
    (meter,) = registered(store)
    put(store, make_outcome(meter, curve_readings(DAY, ["0", "4"], HOUR)))
    put(store, make_outcome(meter, curve_readings(DAY, ["0", "1", "2", "3", "4"])))
    following = DAY + timedelta(days=1)
    put(store, make_outcome(meter, curve_readings(following, ["5", "9"], HOUR)))
    assert [point.units for point in curve(store, meter, window(DAY, 2, HOUR), step_s=3600)] == [0, 40_000]
    assert [point.units for point in curve(store, meter, window(DAY, 5))] == [0, 10_000, 20_000, 30_000, 40_000]
    # The day that only has the coarse curve is told by it.
    assert [p.units for p in curve(store, meter, window(following, 2, HOUR))] == [50_000, 90_000]


def test_a_fine_curve_that_is_only_expected_does_not_hide_a_coarse_one(store: Store) -> None:
    (meter,) = registered(store)
    put(store, make_outcome(meter, curve_readings(DAY, ["0", "4", "8"], HOUR)))
    with store.write() as conn:
        open_slots(conn, [SlotSet(meter.key, "import_kwh", Source.CURVE, 900, (DAY, DAY + STEP))])
    assert [point.units for point in curve(store, meter, window(DAY, 3, HOUR))] == [0, 40_000, 80_000]
    assert [i.units for i in intervals(store, meter, window(DAY, 2, HOUR))] == [40_000, 40_000]
    assert [i.step_s for i in intervals(store, meter, window(DAY, 2), step_s=900)] == [900, 900]


def test_values_off_their_blocks_grid_are_kept_as_snapshots(store: Store) -> None:
    (meter,) = registered(store)
    odd = DAY + timedelta(minutes=22)
    batch = [*curve_readings(DAY, ["1", "2"]), reading(odd, "1.5")]
    put(store, make_outcome(meter, batch))
    assert values(store, meter) == {DAY: 10_000, DAY + STEP: 20_000}
    with store.read() as conn:
        value = readings.register_at(conn, meter.key, "import_kwh", odd)
        assert value is not None
        assert (value.units, value.source) == (15_000, Source.CURVE)
    once = tables(store)
    put(store, make_outcome(meter, batch))
    assert tables(store) == once


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (reading(DAY, "1.00001"), "finer than the store's 0.0001"),
        (reading(DAY, "NaN"), "not a number that can be stored"),
        (reading(DAY, "922337203685477.5808"), "too large"),
        (reading(DAY, "1", quality=Quality.MISSING), "without a value"),
        (reading(DAY, "1", step=timedelta(0)), "without a grid step"),
        (reading(DAY, "1", step=timedelta(seconds=7000)), "does not divide a day"),
    ],
)
def test_what_the_store_cannot_hold_is_refused_whole(sqlite_store: Store, bad: Reading, words: str) -> None:
    (meter,) = registered(sqlite_store)
    with pytest.raises(StoreError, match=words):
        put(sqlite_store, make_outcome(meter, [reading(DAY + STEP, "1"), bad]))
    assert tables(sqlite_store)["curve"] == []


def test_largest_numbers(store: Store) -> None:
    (meter,) = registered(store)
    most = Decimal("922337203685477.5807")
    put(store, make_outcome(meter, [reading(DAY, most), reading(DAY + STEP, most), reading(DAY + 2 * STEP, -most)]))
    assert list(values(store, meter).values()) == [2**63 - 1, 2**63 - 1, -(2**63 - 1)]


# -- any order ---------------------------------------------------------------------------------------------------------


@st.composite
def _arrivals(draw: st.DrawFn) -> tuple[list[Reading], list[list[list[int]]]]:
    """Readings that never contradict each other; and batches of outcomes of them, any order, some several times."""
    slots = draw(st.lists(st.integers(0, 200), min_size=1, max_size=30, unique=True))
    made = []
    for slot in slots:
        value = draw(st.integers(-(2**63) + 1, 2**63 - 1))
        delay = timedelta(seconds=draw(st.integers(0, 90_000)))
        quality = draw(st.sampled_from([Quality.VALID, Quality.SUSPECT, Quality.ESTIMATED]))
        at = DAY + slot * STEP
        made.append(reading(at, Decimal(value).scaleb(-4), taken_at=at + delay, quality=quality))
    order = draw(st.permutations(range(len(made))))
    again = draw(st.lists(st.sampled_from(range(len(made))), max_size=10))
    sequence = [*order, *again]
    batches: list[list[list[int]]] = [[[]]]
    for number in sequence:
        cut = draw(st.integers(0, 3))
        if cut == 0:
            batches.append([[]])
        elif cut == 1:
            batches[-1].append([])
        batches[-1][-1].append(number)
    return made, batches


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=_arrivals())
def test_any_split_and_order_of_arrivals_gives_the_same_curve(
    sqlite_store: Store, arrivals: tuple[list[Reading], list[list[list[int]]]]
) -> None:
    made, batches = arrivals
    asked = Window(DAY, DAY + timedelta(days=3))
    meter = fresh_meter(sqlite_store)
    for batch in batches:
        put(sqlite_store, *(make_outcome(meter, [made[i] for i in numbers]) for numbers in batch))
    found = {
        point.at: (point.units, point.quality, point.state, point.cause)
        for point in curve(sqlite_store, meter, asked)
        if point.units is not None
    }
    assert found == {one.at: _expected(one) for one in made}
    assert revisions(sqlite_store, meter) == []


def _expected(one: Reading) -> tuple[int, Quality, SlotState, Cause]:
    units = int(one.value.scaleb(4))
    if one.quality is Quality.SUSPECT:
        return units, one.quality, SlotState.DUE, Cause.IMPLAUSIBLE
    if one.quality is Quality.ESTIMATED:
        return units, one.quality, SlotState.ESTIMATED, Cause.NONE
    in_time = one.taken_at - one.at <= HOUR
    return units, one.quality, SlotState.GOT if in_time else SlotState.LATE, Cause.NONE


# -- values that stand alone -------------------------------------------------------------------------------------------


def test_register_at_prefers_the_freeze_to_the_curve_to_a_current_read(store: Store) -> None:
    (meter,) = registered(store)

    def found() -> tuple[int, Source] | None:
        with store.read() as conn:
            value = readings.register_at(conn, meter.key, "import_kwh", DAY)
        return None if value is None else (value.units, value.source)

    def give(value: str, source: Source, quality: Quality = Quality.VALID) -> None:
        put(store, make_outcome(meter, [reading(DAY, value, source=source, quality=quality)]))

    assert found() is None
    give("1", Source.CURRENT)
    assert found() == (10_000, Source.CURRENT)
    give("2", Source.CURVE)
    assert found() == (20_000, Source.CURVE)
    give("3", Source.SETTLEMENT)
    assert found() == (30_000, Source.SETTLEMENT)
    give("77", Source.DAILY_FREEZE, Quality.SUSPECT)
    assert found() == (30_000, Source.SETTLEMENT)
    give("4", Source.DAILY_FREEZE)
    assert found() == (40_000, Source.DAILY_FREEZE)
    with store.read() as conn:
        assert readings.register_at(conn, meter.key, "import_kwh", DAY + timedelta(seconds=1)) is None
        assert readings.register_at(conn, meter.key, "no_such_thing", DAY) is None


def test_snapshots_keep_the_time_a_demand_occurred(store: Store) -> None:
    (meter,) = registered(store)
    peak = DAY - timedelta(hours=5)
    demand = Reading("import_max_kw", Decimal("3.2"), DAY, DAY + STEP, Source.SETTLEMENT, occurred_at=peak)
    freezes = [reading(DAY + timedelta(days=i), str(i), source=Source.DAILY_FREEZE) for i in range(3)]
    (parent,) = put(store, make_outcome(meter, [demand, *freezes], kind=ReadKind.DAILY_FREEZE))
    with store.read() as conn:
        two = readings.snapshots(conn, meter.key, "import_kwh", Window(DAY, DAY + timedelta(days=2)))
        (row,) = conn.execute(select(schema.snapshot).where(schema.snapshot.c.occurred_at.is_not(None)))
    assert [(v.at, v.units, v.source, v.outcome_id) for v in two] == [
        (DAY, 0, Source.DAILY_FREEZE, parent),
        (DAY + timedelta(days=1), 10_000, Source.DAILY_FREEZE, parent),
    ]
    assert (row.units, row.occurred_at) == (32_000, int(peak.timestamp()))


def test_last_values_are_the_newest_that_can_be_trusted(store: Store) -> None:
    meter, other = registered(store, 2)

    def last() -> dict[tuple[int, str], tuple[int, Quality]]:
        with store.read() as conn:
            found = readings.last_values(conn)
        return {(value.meter_key, value.quantity): (value.units, value.quality) for value in found}

    def give(*some: Reading) -> None:
        put(store, make_outcome(meter, some))

    give(reading(DAY, "999", quality=Quality.SUSPECT))
    assert last() == {(meter.key, "import_kwh"): (9_990_000, Quality.SUSPECT)}
    give(*curve_readings(DAY, ["1", "2"]), reading(DAY, "220.1", quantity="voltage_a_v", source=Source.INSTANT))
    give(reading(DAY - STEP, "0.5"))
    give(reading(DAY + 5 * STEP, "998", quality=Quality.SUSPECT))
    give(reading(DAY + 5 * STEP, "997", quality=Quality.ESTIMATED))
    put(store, make_outcome(other, [reading(DAY, "8")]))
    assert last() == {
        (meter.key, "import_kwh"): (20_000, Quality.VALID),
        (meter.key, "voltage_a_v"): (2_201_000, Quality.VALID),
        (other.key, "import_kwh"): (80_000, Quality.VALID),
    }
    with store.read() as conn:
        (only,) = readings.last_values(conn, other.key)
    assert (only.at, only.taken_at) == (DAY, DAY + timedelta(minutes=5))


def test_a_large_batch_of_many_meters(store: Store) -> None:
    """More keys than one statement takes, and several readings of one block in one batch."""
    meters = registered(store, 450)
    outcomes: Sequence[Outcome] = [
        make_outcome(meter, curve_readings(DAY + 94 * STEP, [str(number), str(number + 1), str(number + 2)]))
        for number, meter in enumerate(meters)
    ]
    put(store, *outcomes)
    put(store, *[make_outcome(meter, [reading(DAY + 95 * STEP, "5000")]) for meter in meters])
    with store.read() as conn:
        for number in (0, 299, 300, 399, 400, 449):
            asked = Window(DAY, DAY + timedelta(days=2))
            found = readings.curve(conn, meters[number].key, "import_kwh", asked)
            assert [point.units for point in found if point.units is not None] == [
                number * 10_000,
                50_000_000,
                (number + 2) * 10_000,
            ]
        assert len(conn.execute(select(schema.revision.c.id)).all()) == 450

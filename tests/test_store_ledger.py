"""Completeness: what is due, what came, what never will, counted on both databases."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from headend.civil import to_epoch_s
from headend.errors import StoreError
from headend.ingest import EvidencePolicy, write
from headend.model import Cause, Fault, Meter, Outcome, Quality, ReadKind, SlotState, Source, Status, Window
from headend.store import Store, readings
from headend.store.ledger import (
    Completeness,
    SlotRow,
    SlotSet,
    completeness,
    curve_states,
    open_slots,
    slot_states,
)
from tests.helpers import DAY, STEP, curve_readings, make_outcome, reading, registered, window

TWO_DAYS = Window(DAY, DAY + timedelta(days=2))
S = SlotState


def put(store: Store, *outcomes: Outcome) -> None:
    with store.write() as conn:
        write(conn, outcomes, EvidencePolicy())


def open_curve(store: Store, meter: Meter, start: datetime, steps: int, step: timedelta = STEP) -> None:
    instants = tuple(start + i * step for i in range(steps))
    with store.write() as conn:
        open_slots(conn, [SlotSet(meter.key, "import_kwh", Source.CURVE, step // timedelta(seconds=1), instants)])


def open_freezes(store: Store, meter: Meter, *instants: datetime) -> None:
    with store.write() as conn:
        open_slots(conn, [SlotSet(meter.key, "import_kwh", Source.DAILY_FREEZE, 0, instants)])


def slots(store: Store, meter: Meter, steps: int) -> list[tuple[SlotState, Cause]]:
    with store.read() as conn:
        points = readings.curve(conn, meter.key, "import_kwh", window(DAY, steps))
    return [(point.state, point.cause) for point in points]


def counts(store: Store, asked: Window = TWO_DAYS, **more: Any) -> list[Completeness]:
    with store.read() as conn:
        return completeness(conn, asked, **more)


def rows(store: Store) -> list[SlotRow]:
    with store.read() as conn:
        return list(slot_states(conn, DAY, DAY + timedelta(days=9)))


def test_opened_slots_are_due_and_not_asked(store: Store) -> None:
    (meter,) = registered(store)
    open_curve(store, meter, DAY + STEP, 2)
    assert slots(store, meter, 4) == [
        (S.NONE, Cause.NONE),
        (S.DUE, Cause.NOT_ASKED),
        (S.DUE, Cause.NOT_ASKED),
        (S.NONE, Cause.NONE),
    ]
    assert counts(store) == [
        Completeness(meter.key, "import_kwh", Source.CURVE, 2, 0, 0, 0, 0, 2, {Cause.NOT_ASKED: 2})
    ]


def test_opening_touches_nothing_that_is_known(store: Store) -> None:
    (meter,) = registered(store)
    late = reading(DAY, "1", taken_at=DAY + timedelta(days=1))
    put(store, make_outcome(meter, [late, reading(DAY + STEP, "2")]))
    open_curve(store, meter, DAY + 2 * STEP, 1)
    fault = Fault("import_kwh", Cause.REFUSED, "error word 02", window(DAY + 2 * STEP, 1))
    put(store, make_outcome(meter, status=Status.PARTIAL, faults=[fault]))
    open_curve(store, meter, DAY, 4)
    assert slots(store, meter, 4) == [
        (S.LATE, Cause.NONE),
        (S.GOT, Cause.NONE),
        (S.DUE, Cause.REFUSED),
        (S.DUE, Cause.NOT_ASKED),
    ]
    with store.read() as conn:
        points = readings.curve(conn, meter.key, "import_kwh", window(DAY, 2))
    assert [point.units for point in points] == [10_000, 20_000]


def test_faults_say_why_and_leave_due_what_may_still_come(store: Store) -> None:
    (meter,) = registered(store)
    open_curve(store, meter, DAY, 6)
    faults = [
        Fault("import_kwh", Cause.NOT_IN_MEMORY, "no record", window(DAY, 2)),
        Fault("import_kwh", Cause.NULL_VALUE, "all FF", window(DAY + 2 * STEP, 1)),
        Fault("export_kwh", Cause.NO_ANSWER, "another quantity", window(DAY, 6)),
    ]
    points = [reading(DAY + 3 * STEP, "3"), reading(DAY + 4 * STEP, "9", quality=Quality.SUSPECT)]
    put(store, make_outcome(meter, points, status=Status.PARTIAL, faults=faults))
    assert slots(store, meter, 6) == [
        (S.WAIVED, Cause.NOT_IN_MEMORY),
        (S.WAIVED, Cause.NOT_IN_MEMORY),
        (S.DUE, Cause.NULL_VALUE),
        (S.GOT, Cause.NONE),
        (S.DUE, Cause.IMPLAUSIBLE),
        (S.DUE, Cause.NOT_ASKED),
    ]
    (row,) = counts(store)
    assert (row.expected, row.got, row.late, row.estimated, row.waived, row.due) == (6, 1, 0, 0, 2, 3)
    assert row.causes == {
        Cause.NOT_IN_MEMORY: 2,
        Cause.NULL_VALUE: 1,
        Cause.IMPLAUSIBLE: 1,
        Cause.NOT_ASKED: 1,
    }


def test_a_job_that_failed_as_a_whole_speaks_for_its_window(store: Store) -> None:
    meter, other = registered(store, 2)
    open_curve(store, meter, DAY, 3)
    open_curve(store, other, DAY, 1)
    put(store, make_outcome(meter, [reading(DAY, "1")]))
    put(store, make_outcome(meter, status=Status.NO_ANSWER, asked=window(DAY, 2)))
    assert slots(store, meter, 3) == [(S.GOT, Cause.NONE), (S.DUE, Cause.NO_ANSWER), (S.DUE, Cause.NOT_ASKED)]
    assert slots(store, other, 1) == [(S.DUE, Cause.NOT_ASKED)]
    put(store, make_outcome(meter, [reading(DAY + STEP, "2")]))
    assert slots(store, meter, 2) == [(S.GOT, Cause.NONE)] * 2


def test_a_fault_without_a_window_speaks_for_the_jobs(store: Store) -> None:
    (meter,) = registered(store)
    open_curve(store, meter, DAY, 3)
    fault = Fault("import_kwh", Cause.UNSUPPORTED, "no such curve")
    put(store, make_outcome(meter, status=Status.UNSUPPORTED, faults=[fault], asked=window(DAY, 2)))
    put(store, make_outcome(meter, status=Status.UNSUPPORTED, faults=[fault]))
    assert slots(store, meter, 3) == [(S.DUE, Cause.UNSUPPORTED)] * 2 + [(S.DUE, Cause.NOT_ASKED)]


def test_what_came_in_time_stays_so_when_read_again_late(store: Store) -> None:
    (meter,) = registered(store)
    put(store, make_outcome(meter, [reading(DAY, "1")]))
    late = DAY + timedelta(days=1)
    put(store, make_outcome(meter, [reading(DAY, "1", taken_at=late)]))
    put(store, make_outcome(meter, [reading(DAY, "2", taken_at=late)], started_at=late + timedelta(days=1)))
    assert slots(store, meter, 1) == [(S.GOT, Cause.NONE)]


def test_arrival_and_fault_in_the_order_they_came(store: Store) -> None:
    """In one batch as in two: what was told last is the cause."""
    (meter,) = registered(store)
    open_curve(store, meter, DAY, 2)
    nothing = make_outcome(meter, status=Status.NO_ANSWER, asked=window(DAY, 2))
    odd = make_outcome(meter, [reading(DAY, "9", quality=Quality.SUSPECT)])
    put(store, nothing, odd)
    assert slots(store, meter, 2) == [(S.DUE, Cause.IMPLAUSIBLE), (S.DUE, Cause.NO_ANSWER)]
    put(store, odd, nothing)
    assert slots(store, meter, 2) == [(S.DUE, Cause.NO_ANSWER)] * 2


def test_freeze_slots_are_rows(store: Store) -> None:
    (meter,) = registered(store)
    midnights = [DAY + timedelta(days=i) for i in range(4)]
    open_freezes(store, meter, *midnights)
    freezes = [reading(midnights[0], "1", source=Source.DAILY_FREEZE)]
    faults = [Fault("import_kwh", Cause.NOT_IN_MEMORY, "no record", Window(midnights[1], midnights[2]))]
    put(store, make_outcome(meter, freezes, kind=ReadKind.DAILY_FREEZE, status=Status.PARTIAL, faults=faults))
    asked = Window(midnights[2], midnights[3])
    put(store, make_outcome(meter, kind=ReadKind.DAILY_FREEZE, status=Status.LINE_DOWN, asked=asked))
    # A failed curve read over the same time says nothing about freezes.
    put(store, make_outcome(meter, status=Status.BAD_FRAME, asked=Window(midnights[0], midnights[3] + STEP)))
    open_freezes(store, meter, *midnights)
    assert [(row.at, row.state, row.cause) for row in rows(store)] == [
        (midnights[0], S.GOT, Cause.NONE),
        (midnights[1], S.WAIVED, Cause.NOT_IN_MEMORY),
        (midnights[2], S.DUE, Cause.LINE_DOWN),
        (midnights[3], S.DUE, Cause.NOT_ASKED),
    ]
    assert {(row.meter_key, row.quantity, row.source) for row in rows(store)} == {
        (meter.key, "import_kwh", Source.DAILY_FREEZE)
    }


def test_a_freeze_that_came_before_its_slot_was_opened_is_not_asked_again(store: Store) -> None:
    (meter,) = registered(store)
    put(store, make_outcome(meter, [reading(DAY, "1", source=Source.DAILY_FREEZE)], kind=ReadKind.DAILY_FREEZE))
    open_freezes(store, meter, DAY)
    assert [(row.state, row.cause) for row in rows(store)] == [(S.GOT, Cause.NONE)]
    assert [(row.expected, row.got) for row in counts(store)] == [(1, 1)]


def test_estimates_fill_a_slot_and_a_read_takes_it_over(store: Store) -> None:
    (meter,) = registered(store)
    open_curve(store, meter, DAY, 2)
    put(store, make_outcome(meter, status=Status.NO_ANSWER, asked=window(DAY, 2)))
    put(store, make_outcome(meter, [reading(DAY + i * STEP, "5", quality=Quality.ESTIMATED) for i in range(2)]))
    (row,) = counts(store)
    assert (row.expected, row.estimated, row.due, row.causes) == (2, 2, 0, {Cause.NO_ANSWER: 2})
    put(store, make_outcome(meter, [reading(DAY, "5", taken_at=DAY + timedelta(days=1))]))
    assert slots(store, meter, 2) == [(S.LATE, Cause.NONE), (S.ESTIMATED, Cause.NO_ANSWER)]


def test_completeness_counts_the_window_only(store: Store) -> None:
    meter, other = registered(store, 2)
    for each in (meter, other):
        open_curve(store, each, DAY, 192)
        put(store, make_outcome(each, curve_readings(DAY, [str(i) for i in range(100)])))
    (mine,) = counts(store, Window(DAY + 90 * STEP, DAY + 110 * STEP), meter_keys=[meter.key])
    assert (mine.meter_key, mine.expected, mine.got, mine.due) == (meter.key, 20, 10, 10)
    assert [row.meter_key for row in counts(store)] == sorted([meter.key, other.key])
    assert counts(store, meter_keys=[]) == []
    assert counts(store, Window(DAY, DAY)) == []


def test_states_of_whole_days_for_planning(store: Store) -> None:
    (meter,) = registered(store)
    half_hour = DAY + timedelta(minutes=30)
    open_curve(store, meter, half_hour, 30, timedelta(hours=1))
    put(store, make_outcome(meter, curve_readings(half_hour, ["1"], timedelta(hours=1))))
    with store.read() as conn:
        found = list(curve_states(conn, DAY, DAY + timedelta(days=1)))
        both = list(curve_states(conn, DAY, DAY + timedelta(days=1, seconds=1)))
    (day,) = found
    assert (day.meter_key, day.quantity, day.step_s, day.phase_s) == (meter.key, "import_kwh", 3600, 1800)
    assert day.day * 86_400 == to_epoch_s(DAY)
    assert day.states == bytes([S.GOT] + [S.DUE] * 23)
    assert [states.states.count(S.DUE) for states in both] == [23, 6]


def test_slots_off_the_blocks_grid_stand_alone(store: Store) -> None:
    (meter,) = registered(store)
    open_curve(store, meter, DAY, 2)
    odd = DAY + timedelta(minutes=7)
    open_curve(store, meter, odd, 2)
    assert [(row.at, row.state) for row in rows(store)] == [(odd, S.DUE), (odd + STEP, S.DUE)]
    put(store, make_outcome(meter, [reading(odd, "1")]))
    put(store, make_outcome(meter, status=Status.NO_ANSWER, asked=window(DAY, 3)))
    assert [(row.state, row.cause) for row in rows(store)] == [(S.GOT, Cause.NONE), (S.DUE, Cause.NO_ANSWER)]
    (row,) = counts(store)
    assert (row.expected, row.got, row.due, row.causes) == (4, 1, 3, {Cause.NO_ANSWER: 3})


def test_slots_of_unknown_meters_are_refused(store: Store) -> None:
    with store.write() as conn, pytest.raises(StoreError, match="no meter with key 77"):
        open_slots(conn, [SlotSet(77, "import_kwh", Source.CURVE, 900, (DAY,))])

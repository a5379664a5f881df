"""Estimates: the energy of a gap is the registers' own, only its shape is estimated, and each says how it was made."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.estimate import estimates
from headend.ingest import EvidencePolicy, write
from headend.model import (
    Cause,
    CurveSpec,
    Fault,
    Meter,
    Outcome,
    Quality,
    Reading,
    ReadJob,
    ReadKind,
    SlotState,
    Source,
    Status,
    Window,
)
from headend.quantities import from_units
from headend.store import Store, curve_reads, ledger
from headend.validation.split import like_days_shape, line_shape, split
from tests.helpers import fresh_meter

STEP = timedelta(minutes=15)
START = datetime(2026, 11, 2, tzinfo=UTC)
WRAP = 10_000_000_000


@given(
    st.integers(0, WRAP - 1),
    st.integers(0, 10_000_000),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=200),
)
def test_the_parts_add_up_to_the_registers_whatever_the_shape(start: int, used: int, shape: list[int]) -> None:
    values = split(start, (start + used) % WRAP, shape, WRAP)
    assert len(values) == len(shape) - 1
    steps = [(b - a) % WRAP for a, b in zip((start, *values), (*values, (start + used) % WRAP), strict=True)]
    assert sum(steps) == used
    assert all(0 <= value < WRAP for value in values)
    whole = sum(shape) or len(shape)
    weights = shape if any(shape) else [1] * len(shape)
    assert all(abs(step - used * weight / whole) < 1 + used * 1e-9 for step, weight in zip(steps, weights, strict=True))


def test_a_line_leans_to_what_is_beside_it() -> None:
    assert line_shape(100, 400, 2) == (600, 900)
    assert split(0, 500, line_shape(100, 400, 2), WRAP) == (200,)
    assert line_shape(None, 30, 3) == (120, 120, 120)
    assert line_shape(None, None, 3) == (1, 1, 1)
    assert split(0, 10, (0, 0, 0), WRAP) == (4, 7)


def test_only_whole_weeks_give_a_shape() -> None:
    assert like_days_shape([[1, 2], [None, 9], [3, 4]], 2) == (4, 6)
    assert like_days_shape([[None, 2]], 2) is None


@pytest.mark.parametrize("shape", [(), (1, -1)])
def test_a_shape_that_is_none_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="weight"):
        split(0, 1, shape, WRAP)


def _meter(store: Store) -> Meter:
    one = fresh_meter(store)
    return replace(one, model=replace(one.model, curve=CurveSpec("sample", 900, 1)))


def _usage(at: datetime) -> int:
    """Ten-thousandths used in the step from `at`: more at noon than at night, the same each day."""
    return 200 + 40 * (12 - abs(at.hour - 12))


def _store(store: Store, meter: Meter, days: int, missing: set[int]) -> dict[datetime, int]:
    """`days` days of truth from START on, less the slots `missing`, which are waived; the truth of all."""
    truth, register = {}, 1_234_567
    for number in range(days * 96):
        at = START + number * STEP
        truth[at] = register
        register += _usage(at)
    slots = tuple(truth)
    readings = tuple(
        Reading("import_kwh", from_units(truth[at]), at, at, Source.CURVE, 900)
        for number, at in enumerate(slots)
        if number not in missing
    )
    job = ReadJob(meter, ReadKind.CURVE, ("import_kwh",), Window(START, START + days * timedelta(days=1)))
    faults = tuple(
        Fault("import_kwh", Cause.NOT_IN_MEMORY, "lost", Window(slots[n], slots[n] + STEP)) for n in sorted(missing)
    )
    with store.write() as conn:
        ledger.open_slots(conn, [ledger.SlotSet(meter.key, "import_kwh", Source.CURVE, 900, slots)])
        write(conn, [Outcome(job, Status.PARTIAL, slots[-1], 1.0, readings, faults)], EvidencePolicy())
    return truth


def test_a_short_gap_lies_on_a_line_and_the_intervals_add_up(store: Store) -> None:
    meter = _meter(store)
    truth = _store(store, meter, 1, {10, 11, 12})
    now = START + timedelta(days=2)
    whole = Window(START, START + timedelta(days=1))
    (made,) = estimates(store, meter, "import_kwh", whole, now)
    assert [r.quality for r in made.readings] == [Quality.ESTIMATED] * 3
    assert "line" in made.detail
    with store.write() as conn:
        write(conn, [made], EvidencePolicy())
    with store.read() as conn:
        points = curve_reads.curve(conn, meter.key, "import_kwh", whole)
        rows = curve_reads.intervals(
            conn, meter.key, "import_interval_kwh", Window(START, START + 20 * STEP), wrap_units=WRAP
        )
    assert [p.state for p in points[9:14]] == [SlotState.GOT, *[SlotState.ESTIMATED] * 3, SlotState.GOT]
    assert sum(row.units or 0 for row in rows) == truth[START + 20 * STEP] - truth[START]
    assert [row.quality for row in rows[9:13]] == [Quality.ESTIMATED] * 4
    assert min(row.units or 0 for row in rows[9:13]) > 0
    assert estimates(store, meter, "import_kwh", whole, now) == []


def test_a_long_gap_takes_the_shape_of_earlier_weeks(store: Store) -> None:
    """The town repeats itself daily, so the estimate of a missed day must be the truth itself."""
    meter = _meter(store)
    missing = set(range(15 * 96, 16 * 96))
    truth = _store(store, meter, 18, missing)
    (made,) = estimates(store, meter, "import_kwh", Window(START, START + timedelta(days=18)), START)
    assert "2 earlier weeks" in made.detail
    assert {r.at: int(r.value.scaleb(4)) for r in made.readings} == {
        at: units for number, (at, units) in enumerate(truth.items()) if number in missing
    }


def test_what_may_still_come_is_not_estimated(store: Store) -> None:
    meter = _meter(store)
    slots = tuple(START + n * STEP for n in range(4))
    with store.write() as conn:
        ledger.open_slots(conn, [ledger.SlotSet(meter.key, "import_kwh", Source.CURVE, 900, slots)])
        ends = tuple(Reading("import_kwh", Decimal(n), slots[n], slots[n], Source.CURVE, 900) for n in (0, 3))
        job = ReadJob(meter, ReadKind.CURVE, ("import_kwh",), Window(START, START + 4 * STEP))
        write(conn, [Outcome(job, Status.PARTIAL, START, 1.0, ends)], EvidencePolicy())
    assert estimates(store, meter, "import_kwh", Window(START, START + 4 * STEP), START) == []

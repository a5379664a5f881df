"""Samples: meters without a memory are read on the boundary; what is missed is told as gone, never made up."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from headend.ingest import EvidencePolicy, write
from headend.model import (
    Cause,
    CurveSpec,
    Fault,
    Meter,
    Outcome,
    Priority,
    Reading,
    ReadJob,
    ReadKind,
    Source,
    Status,
    Window,
)
from headend.quantities import to_units
from headend.scheduler.board import Board
from headend.scheduler.samples import late_s
from headend.scheduler.settings import Schedule
from headend.store import Store, curve_reads, ledger
from tests.helpers import fresh_meter
from tests.test_plan import CURVE, meter

STEP_S = 900
STEP = timedelta(seconds=STEP_S)
NOW = datetime(2026, 11, 24, 8, 3, 20, tzinfo=UTC)
FIRST = datetime(2026, 11, 24, 8, 15, tzinfo=UTC)
SPEC = CurveSpec("sample", STEP_S, 1, ("import_kwh", "export_kwh"))
BOTH = replace(CURVE, quantities=("import_kwh", "export_kwh"))


def sampled(key: int = 1) -> Meter:
    one = meter(key)
    return replace(one, model=replace(one.model, curve=SPEC, daily_freeze_depth=0))


def outcome(job: ReadJob, at: datetime, status: Status = Status.OK, seconds: float = 0.2) -> Outcome:
    assert job.window is not None
    if status is not Status.OK:
        return Outcome(job, status, at, seconds)
    value = Decimal(job.window.start.timestamp()) / 900
    readings = tuple(Reading(name, value, job.window.start, at, Source.CURVE, STEP_S) for name in job.quantities)
    return Outcome(job, status, at, seconds, readings)


def next_job(board: Board, now: datetime) -> tuple[ReadJob, datetime]:
    """The next job of line L1 and when it comes, as the worker finds it."""
    for _ in range(1000):
        job = board.next("L1", now)
        if job is not None:
            return job, now
        now = board.wake_at("L1", now)
    raise AssertionError("nothing comes")


def test_one_read_of_all_quantities_on_each_boundary() -> None:
    board, now = Board([sampled()], [BOTH]), NOW
    board.tick(now)
    for number in range(4):
        job, now = next_job(board, now)
        assert now == FIRST + number * STEP
        assert job.kind is ReadKind.SAMPLE
        assert job.quantities == ("import_kwh", "export_kwh")
        assert job.window == Window(now, now + STEP)
        board.done(outcome(job, now), now + timedelta(seconds=0.2))


def test_meters_of_a_line_follow_each_other_at_the_boundary() -> None:
    board, now = Board([sampled(k) for k in range(1, 6)], [BOTH]), NOW
    board.tick(now)
    keys = []
    for _ in range(5):
        job, now = next_job(board, now)
        assert FIRST <= now < FIRST + timedelta(seconds=2)
        keys.append(job.meter.key)
        now += timedelta(seconds=0.2)
        board.done(outcome(job, now - timedelta(seconds=0.2)), now)
    assert sorted(keys) == [1, 2, 3, 4, 5]


def test_nothing_that_could_outlast_it_begins_before_a_boundary() -> None:
    """A line whose jobs took six seconds starts none in the last six; control alone may."""
    poll = Schedule("polls", ReadKind.REGISTERS, ("import_kwh",), every_s=60)
    board = Board([sampled(), meter(2)], [BOTH, poll])
    board.tick(NOW)
    slow, _ = next_job(board, NOW)
    board.done(outcome(replace(slow, window=Window(NOW, NOW + STEP)), NOW, seconds=6.0), NOW)
    before = FIRST - timedelta(seconds=5)
    board.ask(ReadJob(meter(2), ReadKind.REGISTERS, ("import_kwh",), None, Priority.ON_DEMAND))
    assert board.next("L1", before) is None
    assert board.wake_at("L1", before) == FIRST
    control = ReadJob(meter(2), ReadKind.CLOCK, ("clock_offset_s",), None, Priority.CONTROL)
    board.ask(control)
    assert board.next("L1", before) == control
    job = board.next("L1", FIRST)
    assert job is not None
    assert job.kind is ReadKind.SAMPLE


def test_a_sample_that_fails_is_tried_again_until_it_would_be_too_late() -> None:
    board, now = Board([sampled()], [BOTH]), NOW
    board.tick(now)
    times = []
    for _ in range(200):
        job, now = next_job(board, now)
        assert job.window is not None
        if job.window.start != FIRST:
            break
        times.append(now)
        now += timedelta(seconds=4)
        board.done(outcome(job, now - timedelta(seconds=4), Status.REFUSED, 4), now)
    assert times[0] == FIRST
    assert len(times) > 5
    assert times[-1] <= FIRST + timedelta(seconds=late_s(STEP_S))
    assert job.window == Window(FIRST + STEP, FIRST + 2 * STEP)
    assert now == FIRST + STEP


def test_what_passed_while_nothing_ran_is_opened_and_told_as_gone() -> None:
    board = Board([sampled()], [BOTH])
    track = next(t for t in board.tracks if t.quantities == ("import_kwh",))
    last = FIRST - 10 * STEP
    day, slot = divmod(int(last.timestamp()) - track.phase_s, 86_400)
    board.filled(track.key, {day: 1 << (slot // STEP_S)})
    opened = [e for e in board.tick(NOW) if e.track.key == track.key]
    assert sum(mask.bit_count() for e in opened for mask in e.slots.values()) == 9
    lost = board.next("L1", NOW)
    assert lost is not None
    assert lost.window == Window(last + STEP, FIRST)
    assert lost.deadline is not None
    assert lost.deadline < NOW
    assert lost.over(NOW)


def test_a_new_meter_opens_nothing_of_the_past() -> None:
    board = Board([sampled()], [BOTH])
    assert board.tick(NOW) == []
    later = board.tick(FIRST)
    assert [mask.bit_count() for e in later for mask in e.slots.values()] == [1, 1]


def test_a_lost_boundary_is_waived_and_no_value_is_made_up(store: Store) -> None:
    """Two boundaries are missed: the curve has a gap with a cause, not a zero and a double."""
    one = replace(fresh_meter(store), model=sampled().model)
    key = one.key
    window = Window(FIRST, FIRST + STEP)
    jobs = [
        ReadJob(one, ReadKind.SAMPLE, ("import_kwh",), Window(at, at + STEP), deadline=at + timedelta(seconds=60))
        for at in (FIRST, FIRST + STEP, FIRST + 2 * STEP, FIRST + 3 * STEP)
    ]
    with store.write() as conn:
        slots = tuple(FIRST + n * STEP for n in range(4))
        ledger.open_slots(conn, [ledger.SlotSet(key, "import_kwh", Source.CURVE, STEP_S, slots)])
        failed = [
            Outcome(job, Status.NO_ANSWER, at, 60.0, faults=(Fault("import_kwh", Cause.NO_ANSWER, "", job.window),))
            for job, at in zip(jobs[1:3], slots[1:3], strict=True)
        ]
        write(conn, [outcome(jobs[0], FIRST), *failed, outcome(jobs[3], slots[3])], EvidencePolicy())
    with store.read() as conn:
        points = curve_reads.curve(conn, key, "import_kwh", Window(FIRST, FIRST + 4 * STEP))
    assert [p.state.name for p in points] == ["GOT", "WAIVED", "WAIVED", "GOT"]
    assert [p.cause for p in points][1:3] == [Cause.NO_ANSWER] * 2
    assert points[3].units is not None
    assert points[0].units is not None
    assert points[3].units - points[0].units == to_units(Decimal(3))
    assert window.start == points[0].at

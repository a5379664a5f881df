"""The planner: every gap closed once, oldest first, live reads before backfill, faults rested and asked again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from headend.civil import day_start, from_epoch_s, has_dst, local_days, standard_offset, zone
from headend.model import (
    Cause,
    CurveSpec,
    Fault,
    Meter,
    MeterModel,
    Outcome,
    Priority,
    Quality,
    Reading,
    ReadJob,
    ReadKind,
    Source,
    Status,
    Window,
)
from headend.scheduler.board import Board
from headend.scheduler.plan import DAY_S, Missing, due_slots, horizon_start, mask_of, runs, tracks
from headend.scheduler.retry import after_fault, after_outcome
from headend.scheduler.settings import Schedule

NOW = datetime(2026, 11, 24, 8, 7, 30, tzinfo=UTC)
CURVE = Schedule("curve", ReadKind.CURVE, ("import_kwh",), horizon_days=62)
FREEZE = Schedule("freeze", ReadKind.DAILY_FREEZE, ("import_kwh",), horizon_days=62)


def meter(key: int = 1, *, step_s: int = 900, clock_zone: str = "Asia/Shanghai", line: str = "L1") -> Meter:
    model = MeterModel(
        "m",
        "dlt645-2007",
        Decimal(1_000_000),
        Decimal("15.84"),
        curve=CurveSpec("0610", step_s, 62),
        daily_freeze_depth=62,
    )
    return Meter(key, f"M{key}", f"{key:012d}", "dlt645-2007", line, model, clock_zone)


def bits(slots: Missing) -> int:
    return sum(mask.bit_count() for mask in slots.values())


def instants(window: Window, step_s: int) -> list[datetime]:
    count = int((window.end - window.start).total_seconds()) // step_s
    return [window.start + timedelta(seconds=step_s * i) for i in range(count)]


def answer(
    job: ReadJob, now: datetime, *, but: frozenset[datetime] = frozenset(), cause: Cause = Cause.NOT_YET
) -> Outcome:
    """An outcome that brings every slot of the job, except those in `but`, which are faults."""
    assert job.window is not None
    step_s = job.meter.model.curve.step_s if job.kind is ReadKind.CURVE and job.meter.model.curve else DAY_S
    source = Source.CURVE if job.kind is ReadKind.CURVE else Source.DAILY_FREEZE
    times = instants(job.window, step_s)
    readings = tuple(Reading("import_kwh", Decimal(1), at, now, source, step_s) for at in times if at not in but)
    faults = tuple(
        Fault("import_kwh", cause, "", Window(at, at + timedelta(seconds=step_s))) for at in times if at in but
    )
    return Outcome(job, Status.PARTIAL if faults else Status.OK, now, 0.1, readings, faults)


def test_two_months_of_quarter_hours_are_due_at_the_first_look() -> None:
    [track] = tracks(meter(), [CURVE])
    slots = due_slots(track, horizon_start(track, NOW), NOW)
    # 08:07:30 back 62 days is 08:15 exclusive-lower: 62 * 96 boundaries, the last one 08:00
    assert bits(slots) == 62 * 96
    [*_, last] = runs(track, slots, 96)
    assert last.end == datetime(2026, 11, 24, 8, 15, tzinfo=UTC)


def test_a_slot_is_due_only_after_it_settled() -> None:
    [track] = tracks(meter(), [CURVE])
    boundary = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    assert bits(due_slots(track, boundary, boundary + timedelta(seconds=29))) == 0
    assert bits(due_slots(track, boundary, boundary + timedelta(seconds=30))) == 1


def test_the_grid_is_counted_from_the_meters_own_midnight() -> None:
    [hourly] = tracks(meter(step_s=3600, clock_zone="+05:30"), [CURVE])
    [first, *_] = runs(hourly, due_slots(hourly, NOW - timedelta(hours=3), NOW), 96)
    assert first.start == datetime(2026, 11, 24, 5, 30, tzinfo=UTC)
    [freeze] = tracks(meter(), [FREEZE])
    [day] = runs(freeze, due_slots(freeze, NOW - timedelta(days=1), NOW), 16)
    assert day.start == datetime(2026, 11, 23, 16, 0, tzinfo=UTC)  # midnight in Shanghai


def test_a_daylight_saving_zone_has_25_hours_of_slots_in_october() -> None:
    berlin = zone("Europe/Berlin")
    assert has_dst(berlin, 2026)
    assert standard_offset(berlin, 2026) == "+01:00"
    [track] = tracks(meter(clock_zone="+01:00"), [CURVE])
    days = list(local_days(day_start(date(2026, 10, 24), berlin), datetime(2026, 10, 27, tzinfo=UTC), berlin))
    counts = [
        bits(due_slots(track, day_start(a, berlin), day_start(b, berlin) + timedelta(seconds=29)))
        for a, b in pairwise(days)
    ]
    assert counts == [96, 100, 96]
    march = [day_start(date(2026, 3, d), berlin) for d in (29, 30)]
    assert bits(due_slots(track, march[0], march[1] + timedelta(seconds=29))) == 92


@given(st.sets(st.integers(0, 2 * 96 - 1)), st.sampled_from([4, 16, 96]))
def test_runs_cover_exactly_what_is_missing(missing: set[int], longest: int) -> None:
    [track] = tracks(meter(), [CURVE])
    base = 20_000 * DAY_S + track.phase_s
    slots = mask_of(track, [from_epoch_s(base + i * 900) for i in missing])
    windows = list(runs(track, slots, longest))
    covered = [at for window in windows for at in instants(window, 900)]
    assert covered == sorted(from_epoch_s(base + i * 900) for i in missing)
    assert all(len(instants(window, 900)) <= longest for window in windows)


def drain(board: Board, line: str, now: datetime, most: int = 10_000) -> list[ReadJob]:
    """Run every job to a good end; gives them in the order they came."""
    jobs: list[ReadJob] = []
    while (job := board.next(line, now)) is not None and len(jobs) < most:
        jobs.append(job)
        board.done(answer(job, now), now)
    return jobs


def test_every_gap_is_closed_once_and_nothing_is_asked_twice() -> None:
    board = Board([meter(1), meter(2, step_s=3600)], [CURVE, FREEZE])
    opened = board.tick(NOW)
    expected = sum(bits(e.slots) for e in opened)
    jobs = drain(board, "L1", NOW)
    asked: Counter[tuple[int, ReadKind, datetime]] = Counter()
    for job in jobs:
        assert job.window is not None
        step = DAY_S if job.kind is ReadKind.DAILY_FREEZE else job.meter.model.curve.step_s  # type: ignore[union-attr]
        asked.update((job.meter.key, job.kind, at) for at in instants(job.window, step))
    assert set(asked.values()) == {1}
    assert len(asked) == expected == 62 * 96 + 62 * 24 + 2 * 62
    assert board.lacking("L1") == 0
    assert board.tick(NOW) == []


def test_live_reads_come_first_and_backfill_runs_oldest_first() -> None:
    board = Board([meter()], [CURVE])
    board.tick(NOW)
    jobs = drain(board, "L1", NOW)
    assert jobs[0].priority is Priority.SCHEDULED
    assert all(job.priority is Priority.BACKFILL for job in jobs[1:])
    starts = [job.window.start for job in jobs[1:] if job.window]
    assert starts == sorted(starts)


def test_what_the_ledger_has_is_not_asked_for_again() -> None:
    board = Board([meter()], [CURVE])
    [track] = board.tracks
    have = due_slots(track, NOW - timedelta(days=70), NOW - timedelta(hours=5))
    board.filled(track.key, have)
    board.tick(NOW)
    assert board.lacking("L1") == 5 * 4


@settings(max_examples=30)
@given(
    st.sets(st.integers(0, 95), min_size=1, max_size=20),
    st.sampled_from([Cause.NOT_YET, Cause.NULL_VALUE, Cause.BAD_FRAME]),
)
def test_missing_items_rest_and_are_asked_for_again(holes: set[int], cause: Cause) -> None:
    board = Board([meter()], [replace(CURVE, horizon_days=1)])
    board.tick(NOW)
    first = NOW.replace(minute=0, second=0) - timedelta(days=1) + timedelta(minutes=15)
    but = frozenset(first + timedelta(minutes=15 * h) for h in holes)
    lacking = board.lacking("L1")
    while (job := board.next("L1", NOW)) is not None:
        board.done(answer(job, NOW, but=but, cause=cause), NOW)
    assert board.lacking("L1") == len(but)
    assert lacking == 96
    later = NOW + timedelta(hours=1)
    again = drain(board, "L1", later)
    got = {at for job in again if job.window for at in instants(job.window, 900)}
    assert got == set(but)
    assert board.lacking("L1") == 0


def test_what_is_not_in_memory_is_never_asked_again() -> None:
    board = Board([meter()], [replace(CURVE, horizon_days=1)])
    board.tick(NOW)
    while (job := board.next("L1", NOW)) is not None:
        assert job.window is not None
        board.done(answer(job, NOW, but=frozenset(instants(job.window, 900)), cause=Cause.NOT_IN_MEMORY), NOW)
    assert board.lacking("L1") == 0


def test_a_suspect_value_leaves_its_slot_open() -> None:
    board = Board([meter()], [replace(CURVE, horizon_days=1)])
    board.tick(NOW)
    job = board.next("L1", NOW)
    assert job is not None
    good = answer(job, NOW)
    suspect = replace(good, readings=tuple(replace(r, quality=Quality.SUSPECT) for r in good.readings))
    before = board.lacking("L1")
    board.done(suspect, NOW)
    assert board.lacking("L1") == before


def test_a_dead_meter_rests_ever_longer_and_its_neighbours_go_on() -> None:
    board = Board([meter(1), meter(2)], [replace(CURVE, horizon_days=1)])
    board.tick(NOW)
    now, asked_dead = NOW, 0
    for _ in range(600):
        job = board.next("L1", now)
        if job is None:
            now += timedelta(seconds=10)
        elif job.meter.key == 1:
            asked_dead += 1
            board.done(Outcome(job, Status.NO_ANSWER, now, 2.0), now)
        else:
            board.done(answer(job, now), now)
    assert now - NOW > timedelta(hours=1)
    assert asked_dead < 12
    assert board.lacking("L1") == 96


def test_a_job_of_a_person_goes_first() -> None:
    board = Board([meter()], [CURVE])
    board.tick(NOW)
    job = ReadJob(meter(), ReadKind.REGISTERS, ("import_kwh",), None, Priority.ON_DEMAND)
    board.ask(job)
    assert board.next("L1", NOW) is job


def test_polls_come_round_at_their_time() -> None:
    board = Board([meter()], [Schedule("regs", ReadKind.REGISTERS, ("import_kwh",), every_s=3600, settle_s=30)])
    board.tick(NOW)
    first = board.next("L1", NOW)
    assert first is not None
    assert first.kind is ReadKind.REGISTERS
    assert board.next("L1", NOW) is None
    assert board.wake_at("L1", NOW) <= NOW + timedelta(minutes=1)
    due = datetime(2026, 11, 24, 9, 0, 30, tzinfo=UTC)
    board.tick(due - timedelta(seconds=1))
    assert board.next("L1", due - timedelta(seconds=1)) is None
    board.tick(due)
    assert board.next("L1", due) is not None


def test_rests_grow_and_end() -> None:
    assert after_outcome(Status.OK, 5, NOW).failures == 0
    rests = []
    failures = 0
    for _ in range(10):
        rest = after_outcome(Status.NO_ANSWER, failures, NOW)
        rests.append(rest.until - NOW)
        failures = rest.failures
    assert rests == sorted(rests)
    assert rests[0] <= timedelta(seconds=5)
    assert rests[-1] == timedelta(minutes=30)
    assert after_outcome(Status.LINE_DOWN, 0, NOW).failures == 0
    assert after_fault(Cause.NOT_YET, 0, NOW).until == NOW + timedelta(minutes=1)

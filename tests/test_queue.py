"""The queue of a line: who goes first, that nothing starves, what dead meters may cost, when a line counts as noisy."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.model import Outcome, Priority, ReadJob, ReadKind, Status
from headend.scheduler.board import Board
from headend.scheduler.health import Health
from headend.scheduler.settings import Schedule
from headend.scheduler.turns import Turns
from tests.test_plan import CURVE, NOW, answer, meter


@given(st.lists(st.tuples(*(st.booleans(),) * 3), min_size=40, max_size=200))
def test_whoever_waits_gets_a_turn_in_time(rounds: list[tuple[bool, bool, bool]]) -> None:
    """Control aside, a class that waits all the time is passed over at most 8 times, plus once for each other class."""
    turns = Turns(4)
    waited: Counter[int] = Counter()
    for flags in rounds:
        waiting = (False, *flags)
        chosen = turns.pick(waiting)
        if chosen is None:
            assert not any(waiting)
            continue
        assert waiting[chosen]
        for index, has_work in enumerate(waiting):
            waited[index] = (
                waited[index] + 1 if has_work and index != chosen else 0 if index == chosen else waited[index]
            )
            assert waited[index] <= 8 + 3


def test_the_urgent_goes_first_and_control_before_everything() -> None:
    turns = Turns(4)
    assert [turns.pick((False, True, True, True)) for _ in range(8)] == [1] * 8
    assert turns.pick((True, True, True, True)) == 0
    assert Counter(turns.pick((False, True, True, True)) for _ in range(18)) == {1: 14, 2: 2, 3: 2}
    assert turns.pick((False, False, False, True)) == 3
    assert turns.pick((False, False, False, False)) is None


def test_a_control_job_overtakes_reads_that_were_asked_for_earlier() -> None:
    board = Board([meter()], [CURVE])
    board.tick(NOW)
    reads = [ReadJob(meter(), ReadKind.REGISTERS, ("import_kwh",), None, Priority.ON_DEMAND) for _ in range(3)]
    control = ReadJob(meter(), ReadKind.CLOCK, ("clock_offset_s",), None, Priority.CONTROL)
    for job in (*reads, control):
        board.ask(job)
    assert [board.next("L1", NOW) for _ in range(4)] == [control, *reads]


def test_backfill_goes_on_under_a_flood_of_reads() -> None:
    board = Board([meter()], [CURVE])
    board.tick(NOW)
    kinds = Counter()  # type: Counter[Priority]
    for _ in range(200):
        board.ask(ReadJob(meter(), ReadKind.REGISTERS, ("import_kwh",), None, Priority.ON_DEMAND))
        job = board.next("L1", NOW)
        assert job is not None
        kinds[job.priority] += 1
        board.done(answer(job, NOW) if job.window else Outcome(job, Status.OK, NOW, 0.1), NOW)
    assert kinds[Priority.BACKFILL] >= 15
    assert kinds[Priority.SCHEDULED] >= 1
    assert kinds[Priority.ON_DEMAND] >= 160


@pytest.mark.parametrize("dead", [1, 4])
def test_dead_meters_cost_at_most_their_share_and_the_neighbours_keep_their_rate(dead: int) -> None:
    """An hour and more of a slow line of 32 meters: 2 s a good job, 4 s (two tries) a silent one."""
    board = Board([meter(key) for key in range(1, 33)], [CURVE], {"L1": 0.05})
    board.tick(NOW)
    now, spent = NOW, {"good": 0.0, "dead": 0.0}
    while (job := board.next("L1", now)) is not None:
        silent = job.meter.key <= dead
        seconds = 4.0 if silent else 2.0
        now += timedelta(seconds=seconds)
        spent["dead" if silent else "good"] += seconds
        board.done(Outcome(job, Status.NO_ANSWER, now, seconds) if silent else answer(job, now), now)
    assert spent["good"] >= 2.0 * (32 - dead) * 62
    assert spent["dead"] <= 0.05 * (now - NOW).total_seconds() + dead * 4.0  # the first time is not known before
    assert spent["dead"] >= dead * 12.0


def test_the_first_answer_brings_a_meter_back_at_once() -> None:
    board = Board([meter(1), meter(2)], [CURVE])
    board.tick(NOW)
    now = NOW
    for _ in range(6):  # meter 1 falls silent and rests for long
        board.ask(ReadJob(meter(1), ReadKind.REGISTERS, ("import_kwh",), None, Priority.ON_DEMAND))
        job = board.next("L1", now)
        assert job is not None
        board.done(Outcome(job, Status.NO_ANSWER, now, 4.0), now)
    planned = {job.meter.key for job in (board.next("L1", now) for _ in range(5)) if job}
    assert planned == {2}
    board.ask(ReadJob(meter(1), ReadKind.REGISTERS, ("import_kwh",), None, Priority.ON_DEMAND))
    job = board.next("L1", now)
    assert job is not None
    board.done(Outcome(job, Status.OK, now, 0.1), now)
    planned = {job.meter.key for job in (board.next("L1", now) for _ in range(8)) if job}
    assert planned == {1, 2}


def test_one_damaged_job_makes_a_line_noisy_for_a_while() -> None:
    health = Health()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert not health.noisy
    health.took(1, Status.OK, 0.1, True, now)
    clean = 0
    while health.noisy:
        health.took(1, Status.OK, 0.1, False, now)
        clean += 1
    assert 10 <= clean <= 40


def test_a_poll_is_worth_nothing_after_its_next_round() -> None:
    board = Board([meter()], [Schedule("regs", ReadKind.REGISTERS, ("import_kwh",), every_s=3600, settle_s=30)])
    board.tick(NOW)
    job = board.next("L1", NOW)
    assert job is not None
    assert job.deadline == datetime(2026, 11, 24, 9, 0, 30, tzinfo=UTC)


def test_settlements_are_read_round_after_round_over_the_horizon() -> None:
    schedule = Schedule("bills", ReadKind.SETTLEMENT, ("import_kwh",), every_s=86_400, horizon_days=62)
    board = Board([meter()], [schedule])
    board.tick(NOW)
    job = board.next("L1", NOW)
    assert job is not None
    assert job.window is not None
    assert (job.kind, job.window.end - job.window.start) == (ReadKind.SETTLEMENT, timedelta(days=62))
    assert board.next("L1", NOW) is None

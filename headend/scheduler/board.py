"""The board: what every line still has to do, in memory. Arithmetic on `plan` and `retry`; no IO, no clock of its own.

It is loaded from the completeness ledger at start-up, so a daemon that was killed goes on where the store stands.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from heapq import heappop, heappush

from headend.civil import from_epoch_s, to_epoch_s
from headend.model import Cause, Fault, Meter, Outcome, Priority, Quality, ReadJob, ReadKind, Source, Status, Window
from headend.scheduler.plan import DAY_S, Missing, Track, due_slots, horizon_start, jobs, mask_of, tracks
from headend.scheduler.retry import after_fault, after_outcome
from headend.scheduler.settings import Schedule
from headend.validation.plausible import Anchor

__all__ = ["Board", "Expected"]

_ANCHORS = 4


@dataclass(frozen=True, slots=True)
class Expected:
    """Slots of a track that became due, to be opened in the ledger."""

    track: Track
    slots: Missing


@dataclass(slots=True)
class _Gap:
    """What a track lacks; `resting` slots are left alone until a time."""

    track: Track
    missing: Missing = field(default_factory=dict)
    filled: Missing = field(default_factory=dict)  # what the ledger had at start-up, until the first tick
    resting: list[tuple[datetime, Missing]] = field(default_factory=list)
    failures: dict[int, int] = field(default_factory=dict)  # day -> times its items failed
    seen_until: datetime | None = None


@dataclass(slots=True, order=True)
class _Poll:
    """A periodic read of registers or the clock; a heap of them is kept by line."""

    due: datetime
    number: int
    meter: Meter = field(compare=False)
    schedule: Schedule = field(compare=False)


@dataclass(slots=True)
class _Health:
    """Consecutive failures of one meter, and until when it is left alone."""

    failures: int = 0
    until: datetime | None = None


class Board:
    """Everything due, by line."""

    def __init__(self, meters: Iterable[Meter], schedules: Sequence[Schedule]) -> None:
        self._gaps: dict[str, list[_Gap]] = defaultdict(list)
        self._by_key: dict[tuple[int, str, Source, int], _Gap] = {}
        self._polls: dict[str, list[_Poll]] = defaultdict(list)
        self._asked: dict[str, deque[ReadJob]] = defaultdict(deque)
        self._plan: dict[str, deque[ReadJob]] = defaultdict(deque)
        self._health: dict[int, _Health] = defaultdict(_Health)
        self._anchors: dict[tuple[int, str], deque[Anchor]] = {}
        for meter in meters:
            self._add(meter, schedules)

    def _add(self, meter: Meter, schedules: Sequence[Schedule]) -> None:
        for track in tracks(meter, schedules):
            if track.key not in self._by_key:
                gap = _Gap(track)
                self._gaps[meter.line].append(gap)
                self._by_key[track.key] = gap
        for schedule in schedules:
            if schedule.kind in (ReadKind.REGISTERS, ReadKind.CLOCK) and schedule.every_s:
                wanted = "*" in schedule.lines or meter.line in schedule.lines
                if wanted and ("*" in schedule.models or meter.model.name in schedule.models):
                    polls = self._polls[meter.line]
                    heappush(polls, _Poll(from_epoch_s(0), len(polls), meter, schedule))

    @property
    def tracks(self) -> list[Track]:
        """Every track on the board."""
        return [gap.track for gap in self._by_key.values()]

    def filled(self, key: tuple[int, str, Source, int], slots: Missing) -> None:
        """At start-up, before the first `tick`: the ledger says these slots need nothing more."""
        if gap := self._by_key.get(key):
            _add_slots(gap.filled, slots)

    def anchor(self, meter_key: int, quantity: str, anchor: Anchor) -> None:
        """A value that may be believed, beside which new ones must make sense."""
        self._anchors.setdefault((meter_key, quantity), deque(maxlen=_ANCHORS)).append(anchor)

    def anchors(self, job: ReadJob) -> dict[str, Iterable[Anchor]]:
        """The anchors of what `job` asks for."""
        return {name: self._anchors.get((job.meter.key, name), ()) for name in job.quantities}

    def tick(self, now: datetime) -> list[Expected]:
        """Take in what became due; gives the slots to open in the ledger."""
        opened: list[Expected] = []
        for gap in self._by_key.values():
            start = gap.seen_until or horizon_start(gap.track, now)
            slots = due_slots(gap.track, start, now)
            if gap.seen_until is None:
                slots, gap.filled = _without(slots, gap.filled), {}
            if slots:
                opened.append(Expected(gap.track, slots))
                _add_slots(gap.missing, slots)
            settled = to_epoch_s(now) - gap.track.schedule.settle_s
            gap.seen_until = from_epoch_s(max(settled + 1, to_epoch_s(start)))
        for plan in self._plan.values():
            plan.clear()
        return opened

    def ask(self, job: ReadJob) -> None:
        """Put a job asked for by a person in front of everything scheduled."""
        self._asked[job.meter.line].append(job)

    def next(self, line: str, now: datetime) -> ReadJob | None:
        """The job to run now on `line`, or None."""
        if asked := self._asked[line]:
            return asked.popleft()
        if (job := self._poll(line, now)) is not None:
            return job
        plan = self._plan[line]
        if not plan:
            plan.extend(self._round(line, now))
        while plan:
            job = plan.popleft()
            if not self._rests(job.meter, now):
                return job
        return None

    def _round(self, line: str, now: datetime) -> list[ReadJob]:
        """A short plan for `line`: every live read that is due, some backfill of every meter."""
        due: list[ReadJob] = []
        for gap in self._gaps[line]:
            _wake(gap, now)
            if gap.missing and not self._rests(gap.track.meter, now):
                due.extend(jobs(gap.track, gap.missing, now))
        due.sort(key=lambda job: (job.priority, job.window.start if job.window else now, job.meter.key))
        return due

    def _poll(self, line: str, now: datetime) -> ReadJob | None:
        """The next poll that is due, moved on to its next time; a resting meter's waits until the rest is over."""
        polls = self._polls[line]
        while polls and polls[0].due <= now:
            poll = heappop(polls)
            until = self._health[poll.meter.key].until
            rests = until is not None and now < until
            poll.due = until if rests and until is not None else _next_round(poll.schedule, now)
            heappush(polls, poll)
            if not rests:
                schedule = poll.schedule
                return ReadJob(poll.meter, schedule.kind, schedule.quantities, None, Priority.SCHEDULED, schedule.name)
        return None

    def _rests(self, meter: Meter, now: datetime) -> bool:
        health = self._health.get(meter.key)
        return health is not None and health.until is not None and now < health.until

    def wake_at(self, line: str, now: datetime) -> datetime:
        """When `next` may have something again, at the latest a minute from `now`."""
        times = [now + timedelta(minutes=1)]
        times += [poll.due for poll in self._polls[line][:1]]
        for gap in self._gaps[line]:
            times += [until for until, _ in gap.resting]
            health = self._health.get(gap.track.meter.key)
            if gap.missing and health is not None and health.until is not None:
                times.append(health.until)
        return min(times)

    def done(self, outcome: Outcome, now: datetime) -> None:
        """Take in how a job ended."""
        meter = outcome.job.meter
        health = self._health[meter.key]
        rest = after_outcome(outcome.status, health.failures, now)
        health.failures, health.until = rest.failures, rest.until if rest.failures else None
        self._learn_anchors(outcome)
        gap = self._gap_of(outcome.job)
        if gap is not None and outcome.job.window is not None and not rest.failures:
            self._settle(gap, outcome, outcome.job.window, now)

    def _gap_of(self, job: ReadJob) -> _Gap | None:
        if job.kind is ReadKind.CURVE and job.meter.model.curve is not None:
            step_s, source = job.meter.model.curve.step_s, Source.CURVE
        elif job.kind is ReadKind.DAILY_FREEZE:
            step_s, source = DAY_S, Source.DAILY_FREEZE
        else:
            return None
        return self._by_key.get((job.meter.key, job.quantities[0], source, step_s))

    def _settle(self, gap: _Gap, outcome: Outcome, window: Window, now: datetime) -> None:
        """Take the job's slots off what is missing; those that did not come rest before they are asked for again."""
        track, name = gap.track, outcome.job.quantities[0]
        asked = _slots(track, window)
        got = mask_of(
            track, [r.at for r in outcome.readings if r.quantity == name and r.quality is not Quality.SUSPECT]
        )
        open_ = _without({day: mask & gap.missing.get(day, 0) for day, mask in asked.items()}, got)
        gap.missing = _without(gap.missing, asked)
        faults = [f for f in outcome.faults if f.quantity == name]
        for fault in faults:
            if fault.cause is Cause.NOT_IN_MEMORY and fault.window is not None:
                open_ = _without(open_, _slots(track, fault.window))
        if not open_:
            for day in asked:
                gap.failures.pop(day, None)
            return
        if outcome.status is Status.LINE_DOWN:
            _add_slots(gap.missing, open_)
            return
        day = min(open_)
        rest = after_fault(_worst(faults, outcome), gap.failures.get(day, 0), now)
        gap.failures[day] = rest.failures
        gap.resting.append((rest.until, open_))

    def _learn_anchors(self, outcome: Outcome) -> None:
        """The newest and oldest believable value of each quantity; after a suspect one nothing earlier is believed."""
        by_quantity: dict[str, list[Anchor]] = defaultdict(list)
        for reading in outcome.readings:
            if reading.quality is Quality.SUSPECT:
                self._anchors.pop((outcome.job.meter.key, reading.quantity), None)
            else:
                by_quantity[reading.quantity].append(Anchor(reading.at, reading.value))
        for name, anchors in by_quantity.items():
            self.anchor(outcome.job.meter.key, name, max(anchors, key=lambda a: a.at))

    def lacking(self, line: str) -> int:
        """How many slots `line` still lacks, those that rest included."""
        total = 0
        for gap in self._gaps[line]:
            total += sum(mask.bit_count() for mask in gap.missing.values())
            total += sum(mask.bit_count() for _, slots in gap.resting for mask in slots.values())
        return total


def _next_round(schedule: Schedule, now: datetime) -> datetime:
    """The next multiple of the schedule's period, plus its settling time."""
    epoch, every = to_epoch_s(now), schedule.every_s
    return from_epoch_s(epoch - epoch % every + every + min(schedule.settle_s, every - 1))


def _worst(faults: list[Fault], outcome: Outcome) -> Cause:
    if any(r.quality is Quality.SUSPECT for r in outcome.readings):
        return Cause.IMPLAUSIBLE
    return faults[0].cause if faults else Cause.NONE


def _slots(track: Track, window: Window) -> Missing:
    """All slots of `track` within `window`."""
    whole = replace(track.schedule, settle_s=0)
    last = from_epoch_s(to_epoch_s(window.end) - 1)
    return due_slots(replace(track, schedule=whole), window.start, last)


def _wake(gap: _Gap, now: datetime) -> None:
    """Put slots whose rest is over back to what is missing."""
    if gap.resting:
        for until, slots in gap.resting:
            if until <= now:
                _add_slots(gap.missing, slots)
        gap.resting = [(until, slots) for until, slots in gap.resting if until > now]


def _add_slots(into: Missing, slots: Missing) -> None:
    for day, mask in slots.items():
        into[day] = into.get(day, 0) | mask


def _without(slots: Missing, taken: Missing) -> Missing:
    """`slots` less `taken`; days left empty are dropped."""
    left = {day: mask & ~taken.get(day, 0) for day, mask in slots.items()}
    return {day: mask for day, mask in left.items() if mask}

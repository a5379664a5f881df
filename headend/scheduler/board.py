"""The board: what every line still has to do, in memory. Arithmetic on `plan` and `retry`; no IO, no clock of its own.

It is loaded from the completeness ledger at start-up, so a daemon that was killed goes on where the store stands.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from heapq import heappop, heappush

from headend.civil import from_epoch_s, to_epoch_s
from headend.model import Cause, Fault, Meter, Outcome, Priority, Quality, ReadJob, ReadKind, Source, Status, Window
from headend.protocols import PROTOCOLS
from headend.scheduler.health import Health
from headend.scheduler.plan import DAY_S, Missing, Track, due_slots, horizon_start, jobs, mask_of, tracks
from headend.scheduler.retry import after_fault
from headend.scheduler.samples import Samples
from headend.scheduler.settings import Schedule
from headend.scheduler.turns import Turns
from headend.validation.plausible import Anchor

__all__ = ["Board", "Expected"]

_ANCHORS = 4

# Read round after round; the others are read slot by slot, as the ledger lacks them.
_POLLED = (ReadKind.REGISTERS, ReadKind.CLOCK, ReadKind.SETTLEMENT, ReadKind.TIMED_FREEZE, ReadKind.EVENTS)


@dataclass(frozen=True, slots=True)
class Expected:
    """Slots of a track that became due, to be opened in the ledger."""

    track: Track
    slots: Missing


@dataclass(slots=True)
class _Gap:
    """What a track lacks; `resting` slots are left alone until a time. Of a meter whose reads come by themselves only
    what becomes due is told: nothing is asked for."""

    track: Track
    missing: Missing = field(default_factory=dict)
    filled: Missing = field(default_factory=dict)  # what the ledger had at start-up, until the first tick
    resting: list[tuple[datetime, Missing]] = field(default_factory=list)
    failures: dict[int, int] = field(default_factory=dict)  # day -> times its items failed
    seen_until: datetime | None = None


@dataclass(slots=True, order=True)
class _Poll:
    """A periodic read of registers, settlements or the clock; a heap of them is kept by line."""

    due: datetime
    number: int
    meter: Meter = field(compare=False)
    schedule: Schedule = field(compare=False)


class Board:
    """Everything due, by line."""

    def __init__(
        self,
        meters: Iterable[Meter],
        schedules: Sequence[Schedule],
        dead_shares: Mapping[str, float] | None = None,
    ) -> None:
        self._gaps: dict[str, list[_Gap]] = defaultdict(list)
        self._by_key: dict[tuple[int, str, Source, int], _Gap] = {}
        self._polls: dict[str, list[_Poll]] = defaultdict(list)
        self._asked: dict[str, deque[ReadJob]] = defaultdict(deque)
        self._live: dict[str, deque[ReadJob]] = defaultdict(deque)
        self._backfill: dict[str, deque[ReadJob]] = defaultdict(deque)
        self._turns: dict[str, Turns] = defaultdict(lambda: Turns(4))
        self._health: dict[str, Health] = defaultdict(Health)
        for name, share in (dead_shares or {}).items():
            self._health[name] = Health(share)
        self._samples: dict[str, Samples] = defaultdict(Samples)
        self._anchors: dict[tuple[int, str], deque[Anchor]] = {}
        for meter in meters:
            self._add(meter, schedules)

    def _add(self, meter: Meter, schedules: Sequence[Schedule]) -> None:
        for track in tracks(meter, schedules):
            if track.sampled and not _pushed(meter):
                self._samples[meter.line].add(track)
            elif track.key not in self._by_key:
                gap = _Gap(track)
                self._gaps[meter.line].append(gap)
                self._by_key[track.key] = gap
        for schedule in schedules:
            if schedule.kind in _POLLED and schedule.every_s and not _pushed(meter) and _has(schedule, meter):
                wanted = "*" in schedule.lines or meter.line in schedule.lines
                if wanted and ("*" in schedule.models or meter.model.name in schedule.models):
                    polls = self._polls[meter.line]
                    heappush(polls, _Poll(from_epoch_s(0), len(polls), meter, schedule))

    @property
    def tracks(self) -> list[Track]:
        """Every track on the board."""
        sampled = (track for samples in self._samples.values() for track in samples.tracks)
        return [*(gap.track for gap in self._by_key.values()), *sampled]

    def filled(self, key: tuple[int, str, Source, int], slots: Missing) -> None:
        """At start-up, before the first `tick`: the ledger says these slots need nothing more."""
        if gap := self._by_key.get(key):
            _add_slots(gap.filled, slots)
        else:
            any(samples.filled(key, slots) for samples in self._samples.values())

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
                if not _pushed(gap.track.meter):
                    _add_slots(gap.missing, slots)
            settled = to_epoch_s(now) - gap.track.schedule.settle_s
            gap.seen_until = from_epoch_s(max(settled + 1, to_epoch_s(start)))
        for samples in self._samples.values():
            opened += [Expected(track, slots) for track, slots in samples.tick(now)]
        for plan in (*self._live.values(), *self._backfill.values()):
            plan.clear()
        return opened

    def ask(self, job: ReadJob) -> None:
        """Put in a job a person asked for, or a control job."""
        self._asked[job.meter.line].append(job)

    def noisy(self, line: str) -> bool:
        """Whether `line` damaged frames lately."""
        return self._health[line].noisy

    def next(self, line: str, now: datetime) -> ReadJob | None:
        """The job to run now on `line`, or None: control, samples, a person's, scheduled, backfill; none starves."""
        self._replan(line, now)
        asked, polls = self._asked[line], self._polls[line]
        control = next((job for job in asked if job.priority is Priority.CONTROL), None)
        if control is None and line in self._samples:
            sample = self._samples[line].next(now)
            if sample is not None or self._samples[line].holds(now):
                return sample
        live, backfill = self._live[line], self._backfill[line]
        poll_due = self._settle_polls(line, now)
        match self._turns[line].pick((control is not None, bool(asked), poll_due or bool(live), bool(backfill))):
            case 0:
                assert control is not None
                asked.remove(control)
                return control
            case 1:
                return asked.popleft()
            case 2:
                return self._poll(polls, now) if poll_due else live.popleft()
            case 3:
                return backfill.popleft()
        return None

    def _replan(self, line: str, now: datetime) -> None:
        """Drop the planned jobs of meters that rest; when all are done, plan the next: live reads, some backfill."""
        health = self._health[line]
        for plan in (self._live[line], self._backfill[line]):
            while plan and health.rests(plan[0].meter.key, now):
                plan.popleft()
        if self._live[line] or self._backfill[line]:
            return
        due: list[ReadJob] = []
        for gap in self._gaps[line]:
            _wake(gap, now)
            if gap.missing and not health.rests(gap.track.meter.key, now):
                due.extend(jobs(gap.track, gap.missing, now))
        due.sort(key=lambda job: (job.window.start if job.window else now, job.meter.key))
        for job in due:
            (self._live if job.priority is Priority.SCHEDULED else self._backfill)[line].append(job)

    def _settle_polls(self, line: str, now: datetime) -> bool:
        """Put off due polls of resting meters until their rest is over; whether one is due now."""
        polls = self._polls[line]
        while polls and polls[0].due <= now:
            until = self._health[line].rests_until(polls[0].meter.key)
            if until is None or until <= now:
                return True
            poll = heappop(polls)
            poll.due = until
            heappush(polls, poll)
        return False

    def _poll(self, polls: list[_Poll], now: datetime) -> ReadJob:
        """The poll that is due, moved on to its next round; it is worth nothing after that."""
        poll = heappop(polls)
        poll.due = _next_round(poll.schedule, now)
        heappush(polls, poll)
        schedule, window = poll.schedule, None
        if schedule.kind in (
            ReadKind.EVENTS,
            ReadKind.SETTLEMENT,
            ReadKind.TIMED_FREEZE,
        ):  # whatever the meter still holds, within the horizon
            window = Window(now - timedelta(days=schedule.horizon_days), now)
        return ReadJob(
            poll.meter,
            schedule.kind,
            schedule.quantities,
            window,
            Priority.SCHEDULED,
            schedule.name,
            deadline=poll.due,
        )

    def wake_at(self, line: str, now: datetime) -> datetime:
        """When `next` may have something again, at the latest a minute from `now`."""
        times = [now + timedelta(minutes=1)]
        times += [poll.due for poll in self._polls[line][:1]]
        if line in self._samples and (sample_at := self._samples[line].wake_at()) is not None:
            if self._samples[line].holds(now):
                return sample_at
            times.append(sample_at)
        for gap in self._gaps[line]:
            times += [until for until, _ in gap.resting]
            rest = self._health[line].rests_until(gap.track.meter.key)
            if gap.missing and rest is not None:
                times.append(rest)
        return min(times)

    def done(self, outcome: Outcome, now: datetime, *, damaged: bool = False) -> None:
        """Take in how a job ended. damaged: the line spoiled an answer on the way."""
        job = outcome.job
        if job.meter.line in self._samples:
            self._samples[job.meter.line].took(outcome, now)
        if outcome.status is Status.EXPIRED:
            return
        rested = self._health[job.meter.line].rests_until(job.meter.key) is not None
        silent = self._health[job.meter.line].took(job.meter.key, outcome.status, outcome.duration_s, damaged, now)
        self._learn_anchors(outcome)
        gap = self._gap_of(job)
        if gap is not None and job.window is not None and not silent:
            self._settle(gap, outcome, job.window, now)
        if rested and not silent:  # it is back: what it lacks is planned at once
            self._backfill[job.meter.line].clear()

    def closed_gaps(self) -> list[ReadJob]:
        """Samples that ended a gap in what a meter keeps no memory of; each is told once."""
        return [job for samples in self._samples.values() for job in samples.closed()]

    def failed(self, job: ReadJob, now: datetime) -> None:
        """Take in that a job ended by a fault of ours or of the store, without an outcome."""
        if job.kind is ReadKind.SAMPLE:
            self._samples[job.meter.line].failed(job, now)

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
        """The newest believable value of each quantity; after a suspect one nothing earlier is believed."""
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


def _pushed(meter: Meter) -> bool:
    """Whether the reads of `meter` come by themselves."""
    driver = PROTOCOLS.get(meter.protocol)
    return driver is not None and driver.pushed


def _has(schedule: Schedule, meter: Meter) -> bool:
    """Whether the meter's model names what is polled: of logs, that is; registers are asked for by name."""
    return schedule.kind is not ReadKind.EVENTS or bool(getattr(meter.details, "event_logs", ()))


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

"""Samples: registers of meters without a memory, read at the boundaries of a grid. In memory, pure.

What is missed is gone, so a boundary comes before all other work of its line: nothing that could outlast it is begun
shortly before. A sample that fails is tried again until it would no longer stand for its boundary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush

from headend.civil import from_epoch_s, to_epoch_s
from headend.model import Outcome, Priority, ReadJob, ReadKind, Status, Window
from headend.scheduler.plan import DAY_S, Missing, Track, due_slots

__all__ = ["Samples", "late_s"]

# No other job is begun so close to a boundary, however quick the line's jobs have been.
_LEAD_S = 0.5
_MOST_LEAD_S = 10.0
_FADE = 0.97
_AGAIN_S = 1


def late_s(step_s: int) -> int:
    """How long after its boundary a sample still stands for it: a tenth of the step, at most a minute."""
    return min(60, step_s // 10)


@dataclass(slots=True, order=True)
class _Turn:
    """One meter's next sample."""

    due: datetime
    number: int
    tracks: list[Track] = field(compare=False)
    boundary: datetime = field(compare=False)
    attempt: int = field(compare=False, default=1)


@dataclass(slots=True)
class _Seen:
    """Up to which instant the slots of a track were opened, and the last one filled at start-up."""

    track: Track
    until: datetime | None = None
    filled: datetime | None = None


class Samples:
    """The samples of one line."""

    def __init__(self) -> None:
        self._turns: list[_Turn] = []
        self._by_meter: dict[tuple[int, int], _Turn] = {}
        self._running: dict[int, _Turn] = {}  # by meter
        self._seen: dict[tuple[object, ...], _Seen] = {}
        self._lost: list[ReadJob] = []
        self._holed: set[int] = set()  # meters that missed a boundary and have not been read since
        self._closed: list[ReadJob] = []
        self._longest_s = 0.0

    def __bool__(self) -> bool:
        return bool(self._seen)

    @property
    def tracks(self) -> list[Track]:
        """Every track sampled here."""
        return [seen.track for seen in self._seen.values()]

    def add(self, track: Track) -> None:
        """Sample `track`; tracks of one meter and step share their reads."""
        if track.key in self._seen:
            return
        self._seen[track.key] = _Seen(track)
        place = (track.meter.key, track.step_s)
        turn = self._by_meter.get(place)
        if turn is None:
            start = from_epoch_s(0)
            turn = self._by_meter[place] = _Turn(start, len(self._by_meter), [track], start)
        else:
            turn.tracks.append(track)

    def filled(self, key: tuple[object, ...], slots: Missing) -> bool:
        """At start-up: slots the ledger need not be told again. False if `key` is not sampled here."""
        seen = self._seen.get(key)
        if seen is None:
            return False
        day = max(slots)
        last = day * DAY_S + seen.track.phase_s + (slots[day].bit_length() - 1) * seen.track.step_s
        seen.filled = max(seen.filled or from_epoch_s(0), from_epoch_s(last))
        return True

    def tick(self, now: datetime) -> Iterator[tuple[Track, Missing]]:
        """The slots that became due. The first time, those since the last one filled: they are lost, and told so."""
        for seen in self._seen.values():
            track = seen.track
            if seen.until is None and seen.filled is not None:
                start = max(seen.filled, now - timedelta(days=track.schedule.horizon_days)) + timedelta(seconds=1)
                lost_until = now - timedelta(seconds=late_s(track.step_s))
                if missed := _slots(track, start, lost_until):
                    self._lost.append(_lost(track, missed))
            else:
                start = seen.until or now - timedelta(seconds=late_s(track.step_s))
            slots = _slots(track, start, now)
            seen.until = now + timedelta(microseconds=1)
            if slots:
                yield track, slots

    def next(self, now: datetime) -> ReadJob | None:
        """The sample to take now, None if none is due."""
        if self._lost:
            return self._lost.pop()
        if not self._turns and self._by_meter and not self._running:
            self._start(now)
        if not self._turns or self._turns[0].due > now:
            return None
        turn = heappop(self._turns)
        track = turn.tracks[0]
        self._running[track.meter.key] = turn
        window = Window(turn.boundary, turn.boundary + timedelta(seconds=track.step_s))
        names = tuple(dict.fromkeys(name for one in turn.tracks for name in one.quantities))
        deadline = turn.boundary + timedelta(seconds=late_s(track.step_s))
        schedule = track.schedule.name
        return ReadJob(
            track.meter, ReadKind.SAMPLE, names, window, Priority.SCHEDULED, schedule, turn.attempt, deadline=deadline
        )

    def holds(self, now: datetime) -> bool:
        """Whether a boundary is so near that no other job may begin."""
        lead_s = min(max(_LEAD_S, self._longest_s), _MOST_LEAD_S)
        return bool(self._turns) and self._turns[0].due - now < timedelta(seconds=lead_s)

    def wake_at(self) -> datetime | None:
        """When the next sample is due."""
        return self._turns[0].due if self._turns else None

    def took(self, outcome: Outcome, now: datetime) -> None:
        """Take in how any job of the line ended."""
        self._longest_s = max(outcome.duration_s, self._longest_s * _FADE)
        job = outcome.job
        if job.kind is not ReadKind.SAMPLE:
            return
        self._watch(outcome, now)
        turn = self._running.pop(job.meter.key, None)
        if turn is None:
            return
        if job.window is None or job.window.start != turn.boundary:  # one that was lost before
            self._running[job.meter.key] = turn
            return
        if outcome.readings or outcome.status is Status.EXPIRED or job.over(now):
            turn.boundary = turn.due = _boundary_after(turn.tracks[0], max(now, turn.boundary))
            turn.attempt = 1
        else:
            turn.due, turn.attempt = now + timedelta(seconds=_AGAIN_S), turn.attempt + 1
        heappush(self._turns, turn)

    def _watch(self, outcome: Outcome, now: datetime) -> None:
        """Notice gaps, and the first sample after one."""
        job = outcome.job
        if outcome.readings:
            if job.meter.key in self._holed:
                self._holed.remove(job.meter.key)
                self._closed.append(job)
        elif outcome.status is Status.EXPIRED or job.over(now):
            self._holed.add(job.meter.key)

    def closed(self) -> list[ReadJob]:
        """The samples that ended a gap since this was last asked."""
        closed, self._closed = self._closed, []
        return closed

    def failed(self, job: ReadJob, now: datetime) -> None:
        """A job ended without an outcome: what it should have read is read again or given up."""
        if turn := self._running.pop(job.meter.key, None):
            turn.due = now + timedelta(seconds=_AGAIN_S)
            heappush(self._turns, turn)

    def _start(self, now: datetime) -> None:
        for turn in self._by_meter.values():
            turn.boundary = turn.due = _boundary_after(turn.tracks[0], now)
            heappush(self._turns, turn)


def _boundary_after(track: Track, now: datetime) -> datetime:
    epoch = to_epoch_s(now)
    return from_epoch_s(epoch + track.step_s - (epoch - track.phase_s) % track.step_s)


def _slots(track: Track, start: datetime, end: datetime) -> Missing:
    """The slots in `[start, end]`, whatever the schedule's settling time."""
    late = end + timedelta(seconds=track.schedule.settle_s)
    return due_slots(track, start, late) if start <= end else {}


def _lost(track: Track, missed: Missing) -> ReadJob:
    """A job that can only expire: it says of slots that passed while nothing ran that they are gone."""
    first, last = min(missed), max(missed)
    low = (missed[first] & -missed[first]).bit_length() - 1
    start = from_epoch_s(first * DAY_S + track.phase_s + low * track.step_s)
    end = from_epoch_s(last * DAY_S + track.phase_s + missed[last].bit_length() * track.step_s)
    return ReadJob(
        track.meter,
        ReadKind.SAMPLE,
        track.quantities,
        Window(start, end),
        Priority.SCHEDULED,
        track.schedule.name,
        deadline=start,
    )

"""What is due: pure arithmetic over what the store lacks. Reads no clock, does no IO.

A *track* is one thing read from one meter on a regular grid: a curve, or the daily freeze (one slot a day).
Slot `i` of day `d` (days since 1970-01-01 UTC) is the instant `d * 86400 + phase_s + i * step_s`. What is missing is
one bit mask a day, so a meter with two months of gaps costs 62 small integers and one without gaps costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from headend.civil import from_epoch_s, to_epoch_s, zone
from headend.errors import UsageError
from headend.model import Meter, Priority, ReadJob, ReadKind, Source, Window
from headend.scheduler.settings import Schedule

__all__ = ["DAY_S", "Missing", "Track", "due_slots", "horizon_start", "jobs", "mask_of", "runs", "slot_of", "tracks"]

DAY_S = 86_400

# A job asks for at most this many curve points, so that a kill or a lost frame costs little and blocks fill whole.
_CURVE_SLOTS = 96
_FREEZE_SLOTS = 16

Missing = dict[int, int]  # day -> bit mask of missing slots; days without gaps are absent


@dataclass(frozen=True, slots=True)
class Track:
    """One grid of expected values: `meter`, the `quantities` read together, their `source` and schedule."""

    meter: Meter
    schedule: Schedule
    quantities: tuple[str, ...]
    source: Source
    step_s: int
    phase_s: int

    @property
    def slots_per_day(self) -> int:
        return DAY_S // self.step_s

    @property
    def sampled(self) -> bool:
        """Whether the meter keeps nothing of it, so that it is read at each boundary or never."""
        curve = self.meter.model.curve
        return self.source is Source.CURVE and curve is not None and curve.form == "sample"

    @property
    def key(self) -> tuple[int, str, Source, int]:
        """What tells tracks apart in the ledger: the first quantity stands for all."""
        return (self.meter.key, self.quantities[0], self.source, self.step_s)


def tracks(meter: Meter, schedules: Sequence[Schedule]) -> list[Track]:
    """The tracks of `meter` under `schedules` (those that name its line and model and that its model can serve)."""
    found: list[Track] = []
    for schedule in schedules:
        if not _applies(schedule, meter):
            continue
        curve = meter.model.curve
        if schedule.kind is ReadKind.CURVE and curve is not None:
            phase = _phase(meter, curve.step_s)
            for name in schedule.quantities:
                if name in curve.quantities:
                    found.append(Track(meter, schedule, (name,), Source.CURVE, curve.step_s, phase))
        elif schedule.kind is ReadKind.DAILY_FREEZE and meter.model.daily_freeze_depth:
            found.append(Track(meter, schedule, schedule.quantities, Source.DAILY_FREEZE, DAY_S, _phase(meter, DAY_S)))
    return found


def _applies(schedule: Schedule, meter: Meter) -> bool:
    return ("*" in schedule.lines or meter.line in schedule.lines) and (
        "*" in schedule.models or meter.model.name in schedule.models
    )


def _phase(meter: Meter, step_s: int) -> int:
    """Seconds from the UTC grid to the meter's own, which is counted from its local midnight."""
    offset = zone(meter.clock_zone).utcoffset(None)
    if offset is None:
        offset = from_epoch_s(0).astimezone(zone(meter.clock_zone)).utcoffset()
    if offset is None:
        raise UsageError(f"clock zone {meter.clock_zone!r} has no offset")
    return -int(offset.total_seconds()) % step_s


def horizon_start(track: Track, now: datetime) -> datetime:
    """How far back `track` is filled: its schedule's horizon, but no further than the meter remembers."""
    model = track.meter.model
    depth = (
        model.daily_freeze_depth
        if track.source is Source.DAILY_FREEZE
        else model.curve.depth_days
        if model.curve
        else 0
    )
    days = min(track.schedule.horizon_days, depth)
    return from_epoch_s(to_epoch_s(now) - days * DAY_S)


def due_slots(track: Track, since: datetime, now: datetime) -> Missing:
    """The slots of `track` in `[since, now - settle]`, as masks a day: those a meter should hold by now."""
    first = _slot_at_or_after(track, to_epoch_s(since))
    last = to_epoch_s(now) - track.schedule.settle_s
    masks: Missing = {}
    count = track.slots_per_day
    epoch = first
    while epoch <= last:
        day, index = slot_of(track, epoch)
        until = min(count - 1, (last - day * DAY_S - track.phase_s) // track.step_s)
        masks[day] = ((1 << (until - index + 1)) - 1) << index
        epoch = (day + 1) * DAY_S + track.phase_s
    return masks


def _slot_at_or_after(track: Track, epoch_s: int) -> int:
    return epoch_s + (track.phase_s - epoch_s) % track.step_s


def slot_of(track: Track, epoch_s: int) -> tuple[int, int]:
    """Day and slot number of an instant on the grid."""
    day, rest = divmod(epoch_s - track.phase_s, DAY_S)
    return day, rest // track.step_s


def mask_of(track: Track, instants: Iterable[datetime]) -> Missing:
    """Masks of the slots at `instants`; an instant off the grid has none."""
    masks: Missing = {}
    for instant in instants:
        epoch = to_epoch_s(instant)
        if (epoch - track.phase_s) % track.step_s == 0:
            day, index = slot_of(track, epoch)
            masks[day] = masks.get(day, 0) | 1 << index
    return masks


def runs(track: Track, missing: Mapping[int, int], longest: int) -> Iterator[Window]:
    """The missing slots as windows `[first slot, last slot + step)`, oldest first, at most `longest` slots each.

    Windows end on multiples of `longest` slots, so that repeated planning asks for the same windows.
    """
    start: int | None = None
    previous = 0
    for epoch in _missing_epochs(track, missing):
        number = (epoch - track.phase_s) // track.step_s
        if start is not None and (epoch != previous + track.step_s or number % longest == 0):
            yield Window(from_epoch_s(start), from_epoch_s(previous + track.step_s))
            start = None
        if start is None:
            start = epoch
        previous = epoch
    if start is not None:
        yield Window(from_epoch_s(start), from_epoch_s(previous + track.step_s))


def _missing_epochs(track: Track, missing: Mapping[int, int]) -> Iterator[int]:
    for day in sorted(missing):
        mask = missing[day]
        base = day * DAY_S + track.phase_s
        while mask:
            low = mask & -mask
            yield base + (low.bit_length() - 1) * track.step_s
            mask ^= low


def jobs(track: Track, missing: Mapping[int, int], now: datetime, most: int = 4) -> Iterator[ReadJob]:
    """The next jobs that fill `missing`: every live one, and the `most` oldest of backfill.

    Slots younger than the schedule's deadline are live (scheduled); older ones are backfill, oldest first. Planning
    again after those gives the next ones, so a plan stays short however long the gap.
    """
    curve = track.source is Source.CURVE
    kind = ReadKind.CURVE if curve else ReadKind.DAILY_FREEZE
    longest = _CURVE_SLOTS if curve else _FREEZE_SLOTS
    cut = _slot_at_or_after(track, to_epoch_s(now) - track.schedule.deadline_s)
    old, live = _cut(track, missing, cut)
    for window in runs(track, live, longest):
        yield ReadJob(track.meter, kind, track.quantities, window, Priority.SCHEDULED, track.schedule.name)
    for window in islice(runs(track, old, longest), most):
        yield ReadJob(track.meter, kind, track.quantities, window, Priority.BACKFILL, track.schedule.name)


def _cut(track: Track, missing: Mapping[int, int], epoch_s: int) -> tuple[Missing, Missing]:
    """`missing` parted into the slots before and from the slot at `epoch_s`."""
    day, index = slot_of(track, epoch_s)
    below = (1 << index) - 1
    old = {d: mask for d, mask in missing.items() if d < day}
    live = {d: mask for d, mask in missing.items() if d > day}
    if mask := missing.get(day, 0):
        if mask & below:
            old[day] = mask & below
        if mask & ~below:
            live[day] = mask & ~below
    return old, live

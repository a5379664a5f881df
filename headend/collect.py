"""One ReadJob on one Line gives one Outcome, whatever happens. Here protocols meet lines and plausibility."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from headend.access import NO_ACCESS, Access
from headend.errors import (
    BadFrame,
    HeadendError,
    LineDown,
    NoAccess,
    NoAnswer,
    ProtocolError,
    Refused,
    Unsupported,
    WrongMeter,
)
from headend.line import Line
from headend.model import (
    Cause,
    Fault,
    FrameRecord,
    Harvest,
    Outcome,
    Quality,
    Reading,
    ReadJob,
    ReadKind,
    Source,
    Status,
    Window,
)
from headend.protocols import PROTOCOLS
from headend.quantities import Kind, quantity
from headend.validation.plausible import Anchor, doubtful

__all__ = ["damaged", "run"]

# A record the meter does not hold yet may still come while it is this young: its clock may be behind ours.
_YOUNG = timedelta(hours=6)

# Reads of one job on a noisy line until two agree; after that its values are left for a better moment.
_MOST_READS = 4

_Ask = Callable[[], Awaitable[Harvest]]

_LASTING = frozenset({Kind.REGISTER, Kind.INTERVAL, Kind.DEMAND})

_STATUS: tuple[tuple[type[HeadendError], Status, Cause], ...] = (
    (NoAnswer, Status.NO_ANSWER, Cause.NO_ANSWER),
    (BadFrame, Status.BAD_FRAME, Cause.BAD_FRAME),
    (WrongMeter, Status.WRONG_METER, Cause.WRONG_METER),
    (Refused, Status.REFUSED, Cause.REFUSED),
    (NoAccess, Status.NO_ACCESS, Cause.NO_ACCESS),
    (Unsupported, Status.UNSUPPORTED, Cause.UNSUPPORTED),
    (LineDown, Status.LINE_DOWN, Cause.LINE_DOWN),
)


async def run(
    line: Line,
    job: ReadJob,
    *,
    clock: Callable[[], datetime],
    anchors: Mapping[str, Iterable[Anchor]] | None = None,
    confirm: bool = False,
    access: Access = NO_ACCESS,
) -> Outcome:
    """Run `job` on `line`; never raises for what a meter or a line does.

    anchors: values already believed, by quantity, for plausibility. What is not plausible is asked for once more; if
    the meter says the same again, it is kept as suspect. confirm: the line has been damaging frames, so a checksum
    alone is not believed: every value must come twice the same. A job that sees damage itself is confirmed anyway.
    Protocols whose check is a CRC or better need no such thing. access: the meter's keys and counters.
    """
    started = clock()
    if job.deadline is not None and started > job.deadline:
        return _expired(job, started)
    frames: list[FrameRecord] = []
    try:
        ask = partial(_harvest, line, job, clock, frames, access)
        harvest = await ask()
        if PROTOCOLS[job.meter.protocol].weak_check and (confirm or damaged(frames)):
            harvest = await _confirm(ask, job, harvest)
        harvest = await _settle_doubt(ask, job, harvest, anchors or {})
    except (ProtocolError, LineDown) as error:
        status, cause = _classify(error)
        faults = tuple(Fault(name, cause, str(error), job.window) for name in job.quantities)
        return _outcome(job, status, started, clock(), (), faults, frames, str(error))
    ended = clock()
    faults = tuple(part for fault in harvest.faults for part in _patient(fault, ended))
    status = Status.PARTIAL if faults and harvest.readings else Status.OK
    if faults and not harvest.readings:
        status = _only_faults(faults)
    detail = "; ".join(sorted({fault.detail for fault in faults}))
    if job.kind is ReadKind.SAMPLE and job.window is not None and not detail:
        detail = f"begun {(started - job.window.start).total_seconds():.3f} s after its boundary"
    ended_so = _outcome(job, status, started, ended, harvest.readings, faults, frames, detail)
    return replace(ended_so, events=harvest.events) if harvest.events else ended_so


def damaged(frames: Sequence[FrameRecord]) -> bool:
    """Whether the line damaged an answer: a request was sent again although bytes had come, and others came then."""
    sent: bytes | None = None
    heard, before = b"", b""
    for frame in frames:
        if frame.direction == "<":
            heard += frame.data
            continue
        if before and heard != before:
            return True
        before, heard = heard if frame.data == sent else b"", b""
        sent = frame.data
    return bool(before) and heard != before


def _expired(job: ReadJob, now: datetime) -> Outcome:
    detail = "not sent: its deadline passed before its turn came"
    faults = tuple(Fault(name, Cause.EXPIRED, detail, job.window) for name in job.quantities)
    return _outcome(job, Status.EXPIRED, now, now, (), faults, [], detail)


async def _harvest(
    line: Line, job: ReadJob, clock: Callable[[], datetime], frames: list[FrameRecord], access: Access
) -> Harvest:
    conversation = PROTOCOLS[job.meter.protocol].start(job, now=clock(), access=replace(access, now=clock))
    return await line.run(conversation, frames, serial=job.meter.serial, meter=job.meter.id)


async def _confirm(ask: _Ask, job: ReadJob, first: Harvest) -> Harvest:
    """Keep what two reads agree on, asking up to `_MOST_READS` times; what stays unconfirmed did not come.

    Momentary values differ from read to read and bill nothing: the first one stands.
    """
    seen = {_place(r): {r.value} for r in first.readings}
    open_ = {_place(r): r for r in first.readings if quantity(r.quantity).kind in _LASTING}
    confirmed = {_place(r): r for r in first.readings if _place(r) not in open_}
    for _ in range(_MOST_READS - 1):
        if not open_:
            break
        try:
            again = await ask()
        except ProtocolError:
            continue
        for reading in again.readings:
            place = _place(reading)
            if place in open_ and reading.value in seen[place]:
                confirmed[place] = reading
                del open_[place]
            elif place in seen:
                seen[place].add(reading.value)
    readings = tuple(confirmed[_place(r)] for r in first.readings if _place(r) in confirmed)
    faults = tuple(_unconfirmed(reading, job) for reading in open_.values())
    return Harvest(readings, (*first.faults, *faults))


def _place(reading: Reading) -> tuple[str, Source, datetime | None]:
    """What makes two readings the same one; a current register is the same whenever it is read."""
    current = reading.source in (Source.CURRENT, Source.INSTANT)
    return (reading.quantity, reading.source, None if current else reading.at)


def _unconfirmed(reading: Reading, job: ReadJob) -> Fault:
    """The fault of one value that no second read agreed with; a curve point's window is its own slot."""
    window = job.window
    if window is not None:
        step = timedelta(seconds=reading.step_s) if reading.step_s else timedelta(days=1)
        window = Window(reading.at, reading.at + step)
    return Fault(reading.quantity, Cause.BAD_FRAME, "no two reads of a noisy line agreed", window)


async def _settle_doubt(ask: _Ask, job: ReadJob, first: Harvest, anchors: Mapping[str, Iterable[Anchor]]) -> Harvest:
    """Read again what can't be true. A plausible second answer wins; otherwise the first is kept as suspect."""
    sums = PROTOCOLS[job.meter.protocol].weak_check
    doubts = doubtful(first.readings, anchors, job.meter.model, sums=sums)
    if not doubts:
        return first
    try:
        second = await ask()
    except (ProtocolError, LineDown):
        second = Harvest()
    still = doubtful(second.readings, anchors, job.meter.model, sums=sums)
    good = {_place(r): r for i, r in enumerate(second.readings) if i not in still}
    readings: list[Reading] = []
    for index, reading in enumerate(first.readings):
        again = good.get(_place(reading))
        if index not in doubts:
            readings.append(reading)
        elif again is not None:
            readings.append(again)
        else:
            readings.append(replace(reading, quality=Quality.SUSPECT))
    return replace(first, readings=tuple(readings))


def _patient(fault: Fault, now: datetime) -> Iterator[Fault]:
    """A record that is not in memory because it was only just due is still to come; older ones never will."""
    if fault.cause is not Cause.NOT_IN_MEMORY or fault.window is None or fault.window.end <= now - _YOUNG:
        yield fault
        return
    cut = max(fault.window.start, now - _YOUNG)
    if fault.window.start < cut:
        yield replace(fault, window=Window(fault.window.start, cut))
    yield replace(fault, cause=Cause.NOT_YET, window=Window(cut, fault.window.end))


def _classify(error: HeadendError) -> tuple[Status, Cause]:
    for kind, status, cause in _STATUS:
        if isinstance(error, kind):
            return status, cause
    return Status.BAD_FRAME, Cause.BAD_FRAME


def _only_faults(faults: tuple[Fault, ...]) -> Status:
    """The status of a job that got nothing but faults: the meter answered, so it is not the line's."""
    for _, status, cause in _STATUS:
        if all(fault.cause is cause for fault in faults):
            return status
    return Status.PARTIAL


def _outcome(
    job: ReadJob,
    status: Status,
    started: datetime,
    ended: datetime,
    readings: tuple[Reading, ...],
    faults: tuple[Fault, ...],
    frames: list[FrameRecord],
    detail: str,
) -> Outcome:
    seconds = (ended - started).total_seconds()
    return Outcome(job, status, started, seconds, readings, faults, tuple(frames), detail)

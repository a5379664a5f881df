"""One ReadJob on one Line gives one Outcome, whatever happens. Here protocols meet lines and plausibility."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from headend.errors import BadFrame, HeadendError, LineDown, NoAnswer, ProtocolError, Refused, Unsupported, WrongMeter
from headend.line import Line
from headend.model import Cause, Fault, FrameRecord, Harvest, Outcome, Quality, Reading, ReadJob, Status, Window
from headend.protocols import PROTOCOLS
from headend.validation.plausible import Anchor, doubtful

__all__ = ["run"]

# A record the meter does not hold yet may still come while it is this young: its clock may be behind ours.
_YOUNG = timedelta(hours=6)

_STATUS: tuple[tuple[type[HeadendError], Status, Cause], ...] = (
    (NoAnswer, Status.NO_ANSWER, Cause.NO_ANSWER),
    (BadFrame, Status.BAD_FRAME, Cause.BAD_FRAME),
    (WrongMeter, Status.WRONG_METER, Cause.WRONG_METER),
    (Refused, Status.REFUSED, Cause.REFUSED),
    (Unsupported, Status.UNSUPPORTED, Cause.UNSUPPORTED),
    (LineDown, Status.LINE_DOWN, Cause.LINE_DOWN),
)


async def run(
    line: Line, job: ReadJob, *, clock: Callable[[], datetime], anchors: Mapping[str, Iterable[Anchor]] | None = None
) -> Outcome:
    """Run `job` on `line`; never raises for what a meter or a line does.

    anchors: values already believed, by quantity, for plausibility. What is not plausible is asked for once more; if
    the meter says the same again, it is kept as suspect.
    """
    started = clock()
    frames: list[FrameRecord] = []
    try:
        harvest = await _harvest(line, job, clock, frames)
        harvest = await _settle_doubt(line, job, clock, frames, harvest, anchors or {})
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
    return _outcome(job, status, started, ended, harvest.readings, faults, frames, detail)


async def _harvest(line: Line, job: ReadJob, clock: Callable[[], datetime], frames: list[FrameRecord]) -> Harvest:
    driver = PROTOCOLS[job.meter.protocol]
    return await line.run(driver.read(job.meter, job, now=clock()), frames)


async def _settle_doubt(
    line: Line,
    job: ReadJob,
    clock: Callable[[], datetime],
    frames: list[FrameRecord],
    first: Harvest,
    anchors: Mapping[str, Iterable[Anchor]],
) -> Harvest:
    """Read again what can't be true. A plausible second answer wins; otherwise the first is kept as suspect."""
    doubts = doubtful(first.readings, anchors, job.meter.model)
    if not doubts:
        return first
    try:
        second = await _harvest(line, job, clock, frames)
    except (ProtocolError, LineDown):
        second = Harvest()
    still = doubtful(second.readings, anchors, job.meter.model)
    good = {(r.quantity, r.at, r.source): r for i, r in enumerate(second.readings) if i not in still}
    readings: list[Reading] = []
    for index, reading in enumerate(first.readings):
        again = good.get((reading.quantity, reading.at, reading.source))
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

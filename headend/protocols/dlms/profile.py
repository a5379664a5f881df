"""Load profile, daily registers and billing periods of a DLMS meter, from its profile generics.

A value is filed under the time its row says, never under another: a row off the grid is none of its slots. What the
meter does not hold is told as such only when its answer was for the times asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

from headend.access import Access
from headend.civil import day_start, local_days, zone
from headend.conversation import Conversation
from headend.errors import ProtocolError, Unsupported, UsageError
from headend.model import Cause, CurveSpec, Harvest, Meter, Quality, Reading, ReadJob, Source, Window
from headend.protocols.dlms.axdr import Datum, Tag
from headend.protocols.dlms.buffer import Profile, Row, open_profile, read_rows
from headend.protocols.dlms.clock import parse_time
from headend.protocols.dlms.columns import Column, columns_of
from headend.protocols.dlms.haul import Haul, cause_of, in_session
from headend.protocols.dlms.objects import number_of, settings_of
from headend.protocols.dlms.session import Session
from headend.protocols.dlms.settings import DlmsProfile
from headend.quantities import Kind

__all__ = ["read_billing", "read_curve", "read_daily"]

NOT_HELD: Final = "the meter holds no such record"
OTHER_TIMES: Final = "the meter answered for other times than asked: check range_local, range_deviation and clock_zone"

_DAY: Final = timedelta(days=1)
_CHUNK_ROWS: Final = 384  # asked for at once: what an interruption can cost
_MOMENT: Final = timedelta(seconds=1)

# Profile status 0-b:96.10.x as the AMR profiles of DSMR and IDIS use it: critical error, clock invalid, data not valid
# make a value doubtful. Daylight saving (3), clock adjusted (5) and power down (7) are notes.
_DOUBTFUL: Final = 0b0000_0111


@dataclass(slots=True)
class _Task:
    """A profile being read."""

    meter: Meter
    job: ReadJob
    window: Window
    now: datetime
    access: Access
    source: Source
    haul: Haul = field(default_factory=Haul)
    columns: tuple[Column, ...] = ()
    reached: datetime | None = None

    @property
    def gathered(self) -> bool:
        """Whether the meter told anything about the window."""
        return bool(self.haul.readings) or any(f.cause is not Cause.UNSUPPORTED for f in self.haul.faults)


def read_curve(meter: Meter, job: ReadJob, *, now: datetime, access: Access) -> Conversation[Harvest]:
    """The points of `job.window` of `job.quantities`: registers at each boundary, consumption by its start."""
    curve = meter.model.curve
    if curve is None or curve.form != "profile":
        raise Unsupported(f"model {meter.model.name} keeps no load profile", where=f"meter {meter.id}")
    spec = settings_of(meter).profile or DlmsProfile()
    task = _task(meter, job, now, access, Source.CURVE)

    def read_all(session: Session, profile: Profile) -> Conversation[None]:
        _check_period(profile, curve)
        step = timedelta(seconds=curve.step_s)
        task.reached = task.window.start
        while task.reached < task.window.end:
            end = min(task.reached + _CHUNK_ROWS * step, task.window.end)
            yield from _read_points(session, profile, task, Window(task.reached, end), step)
            task.reached = end

    return (yield from _harvest(task, spec, read_all))


def read_daily(meter: Meter, job: ReadJob, *, now: datetime, access: Access) -> Conversation[Harvest]:
    """`job.quantities` at the meter's local midnights in `job.window`, from its daily profile."""
    spec = settings_of(meter).daily
    if spec is None:
        raise Unsupported(f"model {meter.model.name} has no daily profile", where=f"meter {meter.id}")
    task = _task(meter, job, now, access, Source.DAILY_FREEZE)
    tz = zone(meter.clock_zone)
    midnights = [day_start(day, tz) for day in local_days(task.window.start, task.window.end, tz)]

    def read_all(session: Session, profile: Profile) -> Conversation[None]:
        task.reached = task.window.start
        if midnights:
            yield from _read_midnights(session, profile, task, midnights)
        task.reached = task.window.end

    return (yield from _harvest(task, spec, read_all))


def read_billing(meter: Meter, job: ReadJob, *, now: datetime, access: Access) -> Conversation[Harvest]:
    """`job.quantities` as kept at the end of the billing periods in `job.window`, each at the time its row says."""
    spec = settings_of(meter).billing
    if spec is None:
        raise Unsupported(f"model {meter.model.name} has no billing profile", where=f"meter {meter.id}")
    task = _task(meter, job, now, access, Source.SETTLEMENT)

    def read_all(session: Session, profile: Profile) -> Conversation[None]:
        task.reached = task.window.start
        window = task.window
        if window.start < window.end:
            rows = yield from read_rows(session, profile, window.start, window.end - _MOMENT)
            _file_periods(task, profile, rows)
        task.reached = window.end

    return (yield from _harvest(task, spec, read_all))


def _task(meter: Meter, job: ReadJob, now: datetime, access: Access, source: Source) -> _Task:
    if job.window is None:
        raise UsageError(f"a {job.kind.value} job needs a window", where=f"meter {meter.id}")
    return _Task(meter, job, job.window, now, access, source)


def _harvest(
    task: _Task, spec: DlmsProfile, read_all: Callable[[Session, Profile], Conversation[None]]
) -> Conversation[Harvest]:
    """The task in a session of its own: columns first, then the rows. What was gathered before a failure stands."""

    def run(session: Session) -> Conversation[None]:
        profile = yield from open_profile(session, task.meter, spec, task.access)
        task.columns, lacking = yield from columns_of(session, profile, task.job.quantities)
        for name, why in lacking.items():
            task.haul.miss(name, Cause.UNSUPPORTED, why, task.window)
        if not task.columns:
            return
        try:
            yield from read_all(session, profile)
        except ProtocolError as error:
            if not task.gathered or task.reached is None:
                raise
            rest = Window(task.reached, task.window.end)
            for column in task.columns:
                task.haul.miss(column.quantity.name, cause_of(error), str(error), rest)

    yield from in_session(task.meter, task.access, run, haul=task.haul, now=task.now)
    return task.haul.close()


def _check_period(profile: Profile, curve: CurveSpec) -> None:
    """A profile of another step than the model says can't be filed."""
    period_s = profile.layout.period_s
    if period_s and period_s != curve.step_s:
        raise Unsupported(
            f"the meter records every {period_s} s, its model says {curve.step_s} s",
            where=f"meter {profile.meter.id}",
            remedy="set step_min of the model's [curve]",
        )


# --- the load profile -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Grid:
    """Rows by the boundary they end at. twice: boundaries of which there are two. off: slots with a row that is no
    boundary, and its time. strays: rows came for other times than asked. damaged: why a row was of no use."""

    rows: dict[datetime, Row] = field(default_factory=dict)
    twice: set[datetime] = field(default_factory=set)
    off: dict[datetime, datetime] = field(default_factory=dict)
    strays: bool = False
    damaged: str = ""


def _read_points(
    session: Session, profile: Profile, task: _Task, window: Window, step: timedelta
) -> Conversation[None]:
    """File every slot of `window`."""
    spans = any(column.quantity.kind is Kind.INTERVAL for column in task.columns)
    points = any(column.quantity.kind is not Kind.INTERVAL for column in task.columns)
    first = window.start if points else window.start + step
    last = _last_slot(window, step) + (step if spans else timedelta())
    back = step if profile.spec.stamp == "start" else timedelta()
    rows = yield from read_rows(session, profile, first - back, last - back)
    grid = _on_grid(rows, back, Window(first, last + _MOMENT), step)
    for column in task.columns:
        shift = step if column.quantity.kind is Kind.INTERVAL else timedelta()
        for slot in _slots(window, step):
            _file_slot(task, profile, grid, column, slot, slot + shift, step)


def _last_slot(window: Window, step: timedelta) -> datetime:
    return window.start + ((window.end - window.start - timedelta(microseconds=1)) // step) * step


def _slots(window: Window, step: timedelta) -> Iterator[datetime]:
    at = window.start
    while at < window.end:
        yield at
        at += step


def _on_grid(rows: Iterable[Row], back: timedelta, asked: Window, step: timedelta) -> _Grid:
    """The rows by their boundary. asked: the times they were to be of."""
    grid = _Grid()
    for row in rows:
        if row.at is None:
            grid.damaged = grid.damaged or row.problem
            continue
        end = row.at + back
        late = (end - asked.start) % step
        if end < asked.start - step or end >= asked.end + step:
            grid.strays = True
        elif late:
            grid.off[end - late] = row.at
        elif end in grid.rows and grid.rows[end].values != row.values:
            grid.twice.add(end)
            grid.rows[end] = row
        else:
            grid.rows[end] = row
    return grid


def _file_slot(
    task: _Task, profile: Profile, grid: _Grid, column: Column, slot: datetime, end: datetime, step: timedelta
) -> None:
    row = grid.rows.get(end)
    place = Window(slot, min(slot + step, task.window.end))
    if row is not None:
        quality = Quality.SUSPECT if end in grid.twice else Quality.VALID
        _file_value(task, profile, column, row, slot, place, int(step.total_seconds()), quality)
    else:
        task.haul.miss(column.quantity.name, *_missing(grid, end, profile), place)


def _missing(grid: _Grid, end: datetime, profile: Profile) -> tuple[Cause, str]:
    """Why there is no row of a boundary."""
    if end in grid.off:
        tz = zone(profile.meter.clock_zone)
        detail = f"the meter's row of {grid.off[end].astimezone(tz):%Y-%m-%d %H:%M:%S} is not on the grid"
        return Cause.NOT_IN_MEMORY, detail
    if grid.damaged:
        return Cause.BAD_FRAME, grid.damaged
    if grid.strays:
        return Cause.BAD_FRAME, OTHER_TIMES
    return Cause.NOT_IN_MEMORY, NOT_HELD


# --- values ---------------------------------------------------------------------------------------------------------


def _file_value(
    task: _Task,
    profile: Profile,
    column: Column,
    row: Row,
    at: datetime,
    place: Window,
    step_s: int = 0,
    quality: Quality = Quality.VALID,
) -> None:
    """One value of a row as a reading at `at`, or the fault it is."""
    one = column.quantity
    try:
        value = number_of(row.values[column.index], one, column.scale)
        occurred_at = _occurred_at(column, row, profile)
    except ProtocolError as error:
        task.haul.fail(one.name, error, place)
        return
    if value is None:
        task.haul.miss(one.name, Cause.NULL_VALUE, "the meter marks it as not there (null-data)", place)
        return
    if _doubtful(row, profile):
        quality = Quality.SUSPECT
    task.haul.readings.append(Reading(one.name, value, at, task.now, task.source, step_s, quality, occurred_at))


def _occurred_at(column: Column, row: Row, profile: Profile) -> datetime | None:
    if column.time is None:
        return None
    return parse_time(row.values[column.time], profile.settings, profile.meter.clock_zone).at


def _doubtful(row: Row, profile: Profile) -> bool:
    """Whether the meter itself says that a row's values or its time are not to be trusted."""
    if row.stamp is not None and row.stamp.invalid:
        return True
    return any(
        _is_status(column.obis) and _status(row.values[index]) & _DOUBTFUL
        for index, column in enumerate(profile.layout.columns)
    )


def _is_status(obis: bytes) -> bool:
    return len(obis) == 6 and obis[0] == 0 and obis[2:4] == bytes((96, 10))


def _status(datum: Datum) -> int:
    """The eight bits of a profile status; 0 for what is none."""
    return int(datum.value) if datum.tag == Tag.UNSIGNED else 0


# --- daily registers and billing periods ----------------------------------------------------------------------------


def _read_midnights(session: Session, profile: Profile, task: _Task, midnights: list[datetime]) -> Conversation[None]:
    tz = zone(task.meter.clock_zone)

    def following(midnight: datetime, days: int) -> datetime:
        day: date = midnight.astimezone(tz).date()
        return day_start(day + timedelta(days=days), tz)

    back = -1 if profile.spec.stamp == "start" else 0
    rows = yield from read_rows(session, profile, following(midnights[0], back), following(midnights[-1], back))
    held: dict[datetime, Row] = {}
    off: dict[date, datetime] = {}
    damaged = ""
    for row in rows:
        if row.at is None:
            damaged = damaged or row.problem
        elif row.at != day_start(row.at.astimezone(tz).date(), tz):
            off[row.at.astimezone(tz).date()] = row.at
        else:
            held[following(row.at, -back)] = row
    for column in task.columns:
        for midnight in midnights:
            place = Window(midnight, midnight + _DAY)
            if midnight in held:
                _file_value(task, profile, column, held[midnight], midnight, place)
                continue
            odd = off.get(midnight.astimezone(tz).date()) or off.get(following(midnight, -1).astimezone(tz).date())
            cause, detail = (Cause.BAD_FRAME, damaged) if damaged else (Cause.NOT_IN_MEMORY, NOT_HELD)
            if odd is not None:
                detail = f"the meter's row of {odd.astimezone(tz):%Y-%m-%d %H:%M:%S} is no midnight"
            task.haul.miss(column.quantity.name, cause, detail, place)


def _file_periods(task: _Task, profile: Profile, rows: list[Row]) -> None:
    inside = [row for row in rows if row.at is not None and task.window.start <= row.at < task.window.end]
    damaged = next((row.problem for row in rows if row.at is None), "")
    for column in task.columns:
        for row in inside:
            if row.at is not None:
                _file_value(task, profile, column, row, row.at, Window(row.at, row.at + _MOMENT))
        if damaged:
            task.haul.miss(column.quantity.name, Cause.BAD_FRAME, damaged, task.window)
        elif not inside:
            detail = f"no end of a billing period in profile {profile.spec.obis} lies in the window"
            task.haul.miss(column.quantity.name, Cause.NOT_IN_MEMORY, detail, task.window)

"""Registers frozen on settlement days (`00ZZrrnn`, `01ZZrrnn`, nn = n-th last, 1 to 12): what a month is billed on.

A settlement record does not hold its own time, so the time is worked out: from the settlement days the meter is set to
(`04000B01..03`, DDhh, up to three a month) and the meter's own clock, counting back. Nothing is filed where that is not
sure: no settlement day set, a settlement just passed or about to come, a settlement day changed since (`03300C01`), a
record all zero though nothing says the meter was running then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal

from headend.civil import utc, zone
from headend.conversation import Conversation
from headend.errors import BadFrame, NoAnswer, Refused, UsageError, WrongMeter
from headend.model import Cause, Harvest, Meter, Reading, ReadJob, Source, Window
from headend.protocols.dlt645.bcd import all_ff, clock, demand, number, second_stamp
from headend.protocols.dlt645.catalogue import find
from headend.protocols.dlt645.clock import shown_2007
from headend.protocols.dlt645.exchange import NO_SUCH_DATA, gather
from headend.protocols.dlt645.haul import Haul, cause_of
from headend.quantities import QUANTITIES, Kind, Quantity

__all__ = ["read_settlements", "settlement_times"]

DAY_DIS = ("04000B01", "04000B02", "04000B03")
CHANGED_DI = "03300C01"
LIFE_DI = "000100"  # forward active total: a meter that was running has some

KEPT = 12
QUIET = timedelta(minutes=10)  # on both sides of a settlement, in which the numbering may just be changing
ENERGY_BYTES, DEMAND_BYTES = 4, 8

_NOT_SET = b"\x99\x99"
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class _Days:
    """What the meter's settlement days are: (day, hour) each; clock: what its clock shows; changed: since when."""

    days: tuple[tuple[int, int], ...]
    clock: datetime
    changed: datetime | None


@dataclass(slots=True)
class _Task:
    meter: Meter
    tz: tzinfo
    now: datetime
    window: Window
    haul: Haul

    def miss(self, names: tuple[str, ...], cause: Cause, detail: str, at: datetime | None = None) -> None:
        window = self.window if at is None else Window(at, at + _DAY)
        for name in names:
            self.haul.miss(name, cause, detail, window)


def settlement_times(days: tuple[tuple[int, int], ...], before: datetime, tz: tzinfo, count: int) -> list[datetime]:
    """The last `count` settlements not after `before` (UTC), newest first, of a meter whose clock is in `tz`.

    days: (day of the month, hour) each. A month without that day has no such settlement.
    """
    times: list[datetime] = []
    if not days:
        return times
    local = before.astimezone(tz)
    year, month = local.year, local.month
    while len(times) < count:
        times += [at for at in sorted(_of_month(year, month, days, tz), reverse=True) if at <= before]
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)
    return times[:count]


def _of_month(year: int, month: int, days: tuple[tuple[int, int], ...], tz: tzinfo) -> Iterator[datetime]:
    for day, hour in set(days):
        try:
            yield utc(datetime(year, month, day, hour, tzinfo=tz))
        except ValueError:
            continue


def read_settlements(meter: Meter, job: ReadJob, *, now: datetime) -> Conversation[Harvest]:
    """`job.quantities` (registers and demands) at the meter's settlements in `job.window`, newest first.

    Raises `NoAnswer`, `BadFrame`, `WrongMeter`, `Refused` when nothing was gathered.
    """
    if job.window is None:
        raise UsageError("a settlement job needs a window", where=f"meter {meter.id}")
    task = _Task(meter, zone(meter.clock_zone), now, job.window, Haul())
    groups = _groups(task, job.quantities)
    names = tuple(one.name for members in groups.values() for one in members)
    if not names:
        return task.haul.close()
    set_to = yield from _settlement_days(task, names)
    if set_to is None:
        return task.haul.close()
    times = settlement_times(set_to.days, set_to.clock, task.tz, KEPT)
    wanted = [(nth, at) for nth, at in enumerate(times, start=1) if job.window.start <= at < job.window.end]
    for position, (nth, at) in enumerate(wanted):
        problem = _unsure(at, set_to, task)
        if problem is not None:
            task.miss(names, *problem, at)
            continue
        try:
            yield from _read_one(task, groups, nth, at)
        except (NoAnswer, BadFrame, WrongMeter) as error:
            if not task.haul.readings:
                raise
            told = {(r.quantity, r.at) for r in task.haul.readings}
            for _, later in wanted[position:]:
                rest = tuple(name for name in names if (name, later) not in told)
                task.miss(rest, cause_of(error), str(error), later)
            break
    if not wanted:
        task.miss(names, Cause.NOT_IN_MEMORY, _outside(times, task.tz))
    return task.haul.close()


def _outside(times: list[datetime], tz: tzinfo) -> str:
    newest, oldest = (f"{at.astimezone(tz):%Y-%m-%d %H:%M}" for at in (times[0], times[-1]))
    return f"none of the meter's {len(times)} settlements, {oldest} to {newest} by its clock, is in the window"


def _groups(task: _Task, names: tuple[str, ...]) -> dict[str, list[Quantity]]:
    """The wanted quantities by `00ZZ` or `01ZZ`: each is one block of a settlement."""
    groups: dict[str, list[Quantity]] = {}
    for name in names:
        one = QUANTITIES.get(name)
        if one is not None and one.kind in (Kind.REGISTER, Kind.DEMAND) and one.di[:2] in ("00", "01"):
            groups.setdefault(one.di[:4], []).append(one)
        else:
            task.miss((name,), Cause.UNSUPPORTED, "not frozen on settlement days")
    return groups


def _settlement_days(task: _Task, names: tuple[str, ...]) -> Conversation[_Days | None]:
    """When the meter settles; None, with the faults written down, where that can't be told."""
    days = []
    for di in DAY_DIS:
        data = yield from _optional(task, di, optional=di != DAY_DIS[0])
        if data in (b"", _NOT_SET) or all_ff(data):
            continue
        try:
            days.append(_day_and_hour(data))
        except BadFrame as error:
            task.miss(names, Cause.BAD_FRAME, f"settlement day {di}: {error}")
            return None
    if not days:
        task.miss(names, Cause.UNSUPPORTED, "no settlement day is set in the meter (04000B01 is 9999)")
        return None
    try:
        shown = clock(*(yield from shown_2007(task.meter.address)), task.tz)
        changed_data = yield from _optional(task, CHANGED_DI, optional=True)
        changed = second_stamp(changed_data[:6], task.tz) if changed_data else None
    except BadFrame as error:
        task.miss(names, Cause.BAD_FRAME, f"when the meter settled can't be told: {error}")
        return None
    near = settlement_times(tuple(days), shown + QUIET, task.tz, 1)[0]
    if shown - QUIET < near:
        task.miss(names, Cause.NOT_YET, "a settlement is happening just now: records are being renumbered")
        return None
    return _Days(tuple(days), shown, changed)


def _day_and_hour(data: bytes) -> tuple[int, int]:
    """Day of the month and hour of `hh DD`."""
    if len(data) != 2:
        raise BadFrame(f"{len(data)} bytes, 2 are due")
    hour, day = number(data[:1], 0), number(data[1:], 0)
    if hour is None or day is None or not 1 <= day <= 28 or hour > 23:
        raise BadFrame(f"{data[1]:02X}{data[0]:02X} is no day (1 to 28) and hour")
    return int(day), int(hour)


def _optional(task: _Task, di: str, *, optional: bool) -> Conversation[bytes]:
    """An item; empty when the meter says it has none and may."""
    try:
        return (yield from gather(task.meter.address, di))
    except Refused as error:
        if optional and error.code is not None and error.code & NO_SUCH_DATA:
            return b""
        raise


def _unsure(at: datetime, set_to: _Days, task: _Task) -> tuple[Cause, str] | None:
    """Why what the meter froze at `at` can't be told, or None."""
    if set_to.changed is not None and at <= set_to.changed:
        when = f"{set_to.changed.astimezone(task.tz):%Y-%m-%d %H:%M}"
        return Cause.NOT_IN_MEMORY, f"the settlement day was changed on {when}: when this was frozen is not sure"
    if at > task.now:
        return Cause.NOT_YET, "the meter's clock is ahead: this settlement is still to come"
    return None


# --- one settlement -----------------------------------------------------------------------------------------------


def _read_one(task: _Task, groups: dict[str, list[Quantity]], nth: int, at: datetime) -> Conversation[None]:
    """Everything wanted of the settlement at `at`, filed only if the meter was surely running then."""
    raw: dict[str, bytes | Refused] = {}
    for group, members in groups.items():
        for name, data in (yield from _values(task, group, members, nth)).items():
            raw[name] = data
    alive = any(isinstance(data, bytes) and any(data) and not all_ff(data) for data in raw.values())
    if not alive and any(isinstance(data, bytes) and data for data in raw.values()):
        total = yield from _optional(task, f"{LIFE_DI}{nth:02X}", optional=True)
        alive = any(total) and not all_ff(total)
    for members in groups.values():
        for one in members:
            _file(task, one, raw[one.name], at, alive=alive)


def _values(task: _Task, group: str, members: list[Quantity], nth: int) -> Conversation[dict[str, bytes | Refused]]:
    """The bytes of each quantity of a group: as a block where two or more are wanted and the meter has blocks."""
    size = ENERGY_BYTES if group.startswith("00") else DEMAND_BYTES
    if len(members) > 1:
        try:
            data = yield from gather(task.meter.address, f"{group}FF{nth:02X}")
        except Refused:
            data = b""
        if data:
            if len(data) % size:
                raise BadFrame(
                    f"a block of {len(data)} bytes, not a multiple of {size}", where=f"meter {task.meter.id}"
                )
            return {one.name: data[_place(one) * size : (_place(one) + 1) * size] for one in members}
    found: dict[str, bytes | Refused] = {}
    for one in members:
        try:
            found[one.name] = yield from gather(task.meter.address, f"{one.di[:6]}{nth:02X}")
        except Refused as error:
            found[one.name] = error
    return found


def _place(one: Quantity) -> int:
    return int(one.di[4:6], 16)


def _file(task: _Task, one: Quantity, raw: bytes | Refused, at: datetime, *, alive: bool) -> None:
    """One frozen value into the haul: a reading, or the fault it is."""
    names = (one.name,)
    if isinstance(raw, Refused):
        task.haul.refuse(one.name, raw, Window(at, at + _DAY))
    elif not raw:
        task.miss(names, Cause.UNSUPPORTED, "the meter's block does not reach that far", at)
    elif all_ff(raw):
        task.miss(names, Cause.NULL_VALUE, "the meter marks it as not there (FF)", at)
    elif not alive:
        task.miss(names, Cause.NULL_VALUE, "all zero: whether the meter was running then is not sure", at)
    else:
        try:
            value, occurred_at = _decoded(one, raw, task.tz)
        except BadFrame as error:
            task.miss(names, Cause.BAD_FRAME, str(error), at)
            return
        if value is None:
            task.miss(names, Cause.NULL_VALUE, "the meter marks it as not there (FF)", at)
            return
        task.haul.readings.append(Reading(one.name, value, at, task.now, Source.SETTLEMENT, occurred_at=occurred_at))


def _decoded(one: Quantity, raw: bytes, tz: tzinfo) -> tuple[Decimal | None, datetime | None]:
    item = find(one.di)
    assert item is not None, "every quantity's identifier is in the catalogue"
    if len(raw) != item.size:
        raise BadFrame(f"{len(raw)} bytes, {item.size} are due")
    if one.kind is Kind.DEMAND:
        return demand(raw, 4, tz, signed=item.signed)
    return number(raw, item.places, signed=item.signed), None

"""Reading a meter by way of its concentrator: registers now, its clock, and what it kept of a window."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from headend.access import NO_ACCESS, Access
from headend.civil import from_epoch_s, to_epoch_s, zone
from headend.conversation import Conversation
from headend.errors import BadFrame, Unsupported, UsageError
from headend.model import Cause, Fault, Harvest, Meter, Quality, Reading, ReadJob, ReadKind, Source, Window
from headend.protocols.hes_mqtt.ask import Answer, ask
from headend.protocols.hes_mqtt.units import quantity_of_obis, store_factors
from headend.quantities import Kind, from_units, quantity

__all__ = ["CLOCK_OBIS", "check_address", "discover", "read"]

CLOCK_OBIS: Final = "0-0:1.0.0"

_CLOCK: Final = "clock_offset_s"
_FUTURE_S: Final = 600  # as for what concentrators push
_EARLIEST_S: Final = 946_684_800  # 2000-01-01: an earlier time comes from a clock that was never set
_DAY_S: Final = 86_400
_AFTER_MIDNIGHT_S: Final = 60
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ESTIMATED, _SUSPECT, _MISSING, _CLOCK_DOUBTFUL = 1, 2, 4, 8  # bits of a row
_INT64: Final = 2**63 - 1

_WINDOWED: Final = {
    ReadKind.CURVE: ("interval", Source.CURVE),
    ReadKind.DAILY_FREEZE: ("daily_freeze", Source.DAILY_FREEZE),
    ReadKind.TIMED_FREEZE: ("monthly_freeze", Source.TIMED_FREEZE),
    ReadKind.SETTLEMENT: ("billing_reset", Source.SETTLEMENT),
}
"""The word of the protocol for what a job asks of a window, and how the store files it."""


class _Row(NamedTuple):
    """Epoch seconds, one whole number or None per column, quality bits."""

    at_s: int
    values: Sequence[int | None]
    bits: int


class _Column(NamedTuple):
    """A column of the answer. name: "" for a quantity that was not asked for. factors: see `store_factors`."""

    name: str
    factors: tuple[int, int]


@dataclass(slots=True)
class _Haul:
    """What came and what did not, so far."""

    readings: list[Reading] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def miss(self, name: str, cause: Cause, detail: str, window: Window | None = None) -> None:
        self.faults.append(Fault(name, cause, detail, window))


def read(meter: Meter, job: ReadJob, *, now: datetime, access: Access = NO_ACCESS) -> Conversation[Harvest]:
    """Do `job`, with one command. access: its `now` tells when the answer came, for the clock.

    Raises `NoAnswer`, `Refused` with the concentrator's words, `BadFrame`, `Unsupported`.
    """
    if job.kind is ReadKind.CLOCK:
        return (yield from _read_clock(meter, job, now, access))
    haul = _Haul()
    asked = _asked(job, haul)
    if not asked:
        return Harvest((), tuple(haul.faults))
    if job.kind is ReadKind.REGISTERS:
        answer = yield from ask(meter, "read", {"obis": list(asked)}, now=now, deadline=job.deadline)
        _file_registers(answer, asked, haul, now)
    elif job.kind in _WINDOWED:
        args = _window_args(meter, job, list(asked))
        answer = yield from ask(meter, "read", args, now=now, deadline=job.deadline)
        _file_window(meter, job, answer, asked, haul, now)
    else:
        raise Unsupported(
            f"a concentrator is asked for no {job.kind.value.replace('_', ' ')}",
            where=f"meter {meter.id}",
            remedy="it publishes what it has on its own",
        )
    return Harvest(tuple(haul.readings), tuple(haul.faults))


def discover() -> Conversation[str]:
    """A concentrator has many meters, and publishes what it calls them."""
    raise Unsupported(
        "a concentrator has no single meter to ask for", remedy="`headend mqtt quarantine` lists meters nobody knows"
    )
    yield  # pragma: no cover - makes this a conversation


def check_address(text: str) -> str:
    """The address as the concentrator calls the meter. `UsageError` for what no concentrator may call one."""
    if not _ADDRESS.fullmatch(text):
        raise UsageError(
            f"{text!r} is no address behind a concentrator",
            remedy="write what the concentrator calls the meter: up to 64 letters, digits, and _ . -",
        )
    return text


def _asked(job: ReadJob, haul: _Haul) -> dict[str, str]:
    """OBIS codes to quantities of what is asked for; what has none is a fault."""
    asked: dict[str, str] = {}
    for name in dict.fromkeys(job.quantities):
        obis = quantity(name).obis
        if obis:
            asked[obis] = name
        else:
            haul.miss(name, Cause.UNSUPPORTED, f"{name} has no OBIS code to ask for", job.window)
    return asked


# -- the answer's rows -------------------------------------------------------------------------------------------------


def _rows(answer: Answer) -> Iterator[_Row]:
    """The rows of the meter: one, or a list of them. `BadFrame` for what is none."""
    for data in answer.data:
        rows = [data] if isinstance(data, list) and data and not isinstance(data[0], list) else data
        if not isinstance(rows, list):
            raise BadFrame("the concentrator's answer holds no rows")
        for row in rows:
            yield _row(row, len(answer.cols))


def _row(row: Any, width: int) -> _Row:
    if not isinstance(row, list) or not 2 <= len(row) <= 3 or not isinstance(row[1], list):
        raise BadFrame("a row of the concentrator's answer is not [time, values, bits]")
    at_s, values, bits = row[0], row[1], row[2] if len(row) == 3 else 0
    if not _whole(at_s) or not _whole(bits) or bits < 0 or not all(v is None or _whole(v) for v in values):
        raise BadFrame("a row of the concentrator's answer holds what is no whole number")
    if len(values) != width:
        raise BadFrame(f"a row of {len(values)} values under {width} columns")
    return _Row(at_s, values, bits)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _INT64


def _columns(answer: Answer, asked: dict[str, str], job_window: Window | None, haul: _Haul) -> list[_Column]:
    """What the columns of the answer are; what is asked for and has none, or one that can't be taken, is a fault."""
    if answer.data and not answer.cols:
        raise BadFrame("the concentrator's answer does not say units and scalers (cols)")
    wanted = set(asked.values())
    columns: list[_Column] = []
    for obis, unit, scaler in answer.cols:
        name = quantity_of_obis(obis) or ""
        if name not in wanted:
            columns.append(_Column("", (1, 1)))
            continue
        wanted.discard(name)
        try:
            columns.append(_Column(name, store_factors(name, unit, scaler)))
        except UsageError as error:
            columns.append(_Column("", (1, 1)))
            haul.miss(name, Cause.BAD_FRAME, error.problem.what, job_window)
    for name in asked.values():
        if name in wanted:
            haul.miss(name, Cause.NO_ANSWER, "the concentrator's answer does not hold it", job_window)
    return columns


def _value(column: _Column, value: int) -> Decimal | None:
    """The number in the quantity's unit; None if it is finer than, or beyond, what the store holds."""
    factor, divisor = column.factors
    units, rest = divmod(value * factor, divisor)
    return None if rest or abs(units) > _INT64 else from_units(units)


def _quality(bits: int) -> Quality:
    # A value taken under a doubtful clock may belong to another time: it must not be billed as it is.
    if bits & (_SUSPECT | _CLOCK_DOUBTFUL):
        return Quality.SUSPECT
    return Quality.ESTIMATED if bits & _ESTIMATED else Quality.VALID


def _impossible(at_s: int, now: datetime) -> str:
    """Why a row's time can't be true, or ""."""
    if at_s > to_epoch_s(now) + _FUTURE_S:
        return "a row dated in the future"
    return "a row dated before 2000" if at_s < _EARLIEST_S else ""


# -- registers as they stand -------------------------------------------------------------------------------------------


def _file_registers(answer: Answer, asked: dict[str, str], haul: _Haul, now: datetime) -> None:
    columns = _columns(answer, asked, None, haul)
    rows = list(_rows(answer))
    if not rows:
        raise BadFrame("the concentrator's answer says nothing of the meter")
    row = rows[-1]
    why = _impossible(row.at_s, now)
    if why:
        raise BadFrame(f"{why} in the concentrator's answer", remedy="look at the concentrator's clock")
    at = min(from_epoch_s(row.at_s), now)
    for column, value in zip(columns, row.values, strict=True):
        if not column.name:
            continue
        if value is None or row.bits & _MISSING:
            haul.miss(column.name, Cause.NULL_VALUE, "the concentrator got no value from the meter")
            continue
        number = _value(column, value)
        if number is None:
            haul.miss(column.name, Cause.BAD_FRAME, f"{column.name} is finer or larger than can be stored")
            continue
        lasting = quantity(column.name).kind in (Kind.REGISTER, Kind.DEMAND)
        source = Source.CURRENT if lasting else Source.INSTANT
        quality = _quality(row.bits & ~_CLOCK_DOUBTFUL)  # it was asked for just now: its time is known
        haul.readings.append(Reading(column.name, number, at, now, source, quality=quality))


def _read_clock(meter: Meter, job: ReadJob, now: datetime, access: Access) -> Conversation[Harvest]:
    """The meter's clock minus ours: what the concentrator sees, and how far its own is off."""
    answer = yield from ask(meter, "read", {"obis": [CLOCK_OBIS]}, now=now, deadline=job.deadline)
    heard_s = to_epoch_s(access.now() if access.now is not None else now)
    shown = next((index for index, (obis, *_) in enumerate(answer.cols) if _is_clock(obis)), None)
    rows = list(_rows(answer))
    if shown is None or not rows:
        raise BadFrame("the concentrator's answer does not hold the meter's clock")
    _, unit, scaler = answer.cols[shown]
    if (unit, scaler) != ("s", 0):
        raise BadFrame(f"the meter's clock in {unit!r} with scaler {scaler}, not in seconds")
    row = rows[-1]
    value = row.values[shown]
    if value is None or row.bits & _MISSING:
        return Harvest((), (Fault(_CLOCK, Cause.NULL_VALUE, "the concentrator got no clock from the meter"),))
    # The meter against the concentrator when it was asked, and the concentrator against us when it answered.
    offset = (value - row.at_s) + (answer.sent_s - heard_s)
    return Harvest((Reading(_CLOCK, Decimal(offset), now, now, Source.INSTANT),))


def _is_clock(obis: str) -> bool:
    return quantity_of_obis(obis) == _CLOCK


# -- what it kept of a window ------------------------------------------------------------------------------------------


def _window_args(meter: Meter, job: ReadJob, obis: list[str]) -> dict[str, Any]:
    if job.window is None:
        raise UsageError(f"a {job.kind.value.replace('_', ' ')} needs a window", where=f"meter {meter.id}")
    word, _ = _WINDOWED[job.kind]
    args: dict[str, Any] = {"obis": obis, "kind": word}
    if job.kind is ReadKind.CURVE:
        if meter.model.curve is None:
            raise Unsupported(f"the meter model {meter.model.name} has no curve", where=f"meter {meter.id}")
        args["period"] = meter.model.curve.step_s
    ends_later_s = max((_shift_s(meter, name) for name in job.quantities), default=0)
    return args | {"from": to_epoch_s(job.window.start), "to": to_epoch_s(job.window.end) + ends_later_s}


def _shift_s(meter: Meter, name: str) -> int:
    """From the instant we keep to the time of a row: of an interval we keep its start, a row tells its end."""
    curve = meter.model.curve
    return curve.step_s if curve is not None and quantity(name).kind is Kind.INTERVAL else 0


def _file_window(meter: Meter, job: ReadJob, answer: Answer, asked: dict[str, str], haul: _Haul, now: datetime) -> None:
    """Rows into readings; the points of the window that are in none are faults."""
    window = job.window
    assert window is not None
    columns = _columns(answer, asked, window, haul)
    told = {column.name for column in columns if column.name}
    rows = [_placed(row, job.kind, _grid(meter, job.kind)) for row in _rows(answer)]
    came: dict[str, set[int]] = {name: set() for name in told}
    start_s, end_s = to_epoch_s(window.start), to_epoch_s(window.end)
    for row in rows:
        if _impossible(row.at_s, now):
            continue
        for column, value in zip(columns, row.values, strict=True):
            at_s = row.at_s - (_shift_s(meter, column.name) if column.name else 0)
            if column.name and start_s <= at_s < end_s and at_s not in came[column.name]:
                came[column.name].add(at_s)
                _file_point(column, row._replace(at_s=at_s), value, job, meter, haul, now)
    if job.kind in (ReadKind.CURVE, ReadKind.DAILY_FREEZE):
        cause = Cause.NO_ANSWER if answer.cut else Cause.NOT_IN_MEMORY
        step_s, phase_s = _grid(meter, job.kind)
        for name in sorted(told):
            for gap in _gaps(window, step_s, phase_s, came[name]):
                detail = "part of the answer did not come" if answer.cut else "the concentrator does not hold it"
                haul.miss(name, cause, detail, gap)


def _file_point(
    column: _Column, row: _Row, value: int | None, job: ReadJob, meter: Meter, haul: _Haul, now: datetime
) -> None:
    _, source = _WINDOWED[job.kind]
    step_s = meter.model.curve.step_s if source is Source.CURVE and meter.model.curve is not None else 0
    at = from_epoch_s(row.at_s)
    slot = Window(at, at + timedelta(seconds=step_s or 1))
    if value is None or row.bits & _MISSING:
        haul.miss(column.name, Cause.NULL_VALUE, "the concentrator has no value", slot)
        return
    number = _value(column, value)
    if number is None:
        haul.miss(column.name, Cause.BAD_FRAME, f"{column.name} is finer or larger than can be stored", slot)
        return
    haul.readings.append(Reading(column.name, number, at, now, source, step_s, _quality(row.bits)))


def _grid(meter: Meter, kind: ReadKind) -> tuple[int, int]:
    """Step of the points and phase of its first within a UTC day, in seconds: they count from the meter's midnight."""
    step_s = meter.model.curve.step_s if kind is ReadKind.CURVE and meter.model.curve is not None else _DAY_S
    offset = from_epoch_s(0).astimezone(zone(meter.clock_zone)).utcoffset() or timedelta()
    return step_s, -int(offset.total_seconds()) % step_s


def _placed(row: _Row, kind: ReadKind, grid: tuple[int, int]) -> _Row:
    """A row on the grid; a daily freeze stamped shortly after midnight, when it was read, is that midnight's."""
    step_s, phase_s = grid
    late_s = (row.at_s - phase_s) % step_s
    if kind is ReadKind.DAILY_FREEZE and late_s <= _AFTER_MIDNIGHT_S:
        return row._replace(at_s=row.at_s - late_s)
    if kind in (ReadKind.CURVE, ReadKind.DAILY_FREEZE) and late_s:
        raise BadFrame(f"a row of the concentrator's answer is off the grid of {step_s} s")
    return row


def _gaps(window: Window, step_s: int, phase_s: int, came: Iterable[int]) -> Iterator[Window]:
    """The stretches of the window's grid that did not come."""
    held = set(came)
    start_s, end_s = to_epoch_s(window.start), to_epoch_s(window.end)
    first = start_s + (phase_s - start_s) % step_s
    gap: int | None = None
    for at_s in range(first, end_s, step_s):
        if at_s in held and gap is not None:
            yield Window(from_epoch_s(gap), from_epoch_s(at_s))
            gap = None
        elif at_s not in held and gap is None:
            gap = at_s
    if gap is not None:
        yield Window(from_epoch_s(gap), window.end)

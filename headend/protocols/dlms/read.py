"""Reading a DLMS meter: current registers, momentary values, the clock, and the way to curves and freezes.

Everything a job asks for goes into as few GETs with a list as the meter takes; scalers not known yet go with it, so
the first read of a meter costs a longer list and every later one a single round trip.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from headend.access import NO_ACCESS, Access
from headend.conversation import Conversation
from headend.errors import ProtocolError, Unsupported
from headend.model import Cause, EventRecord, Fault, Harvest, Meter, Reading, ReadJob, ReadKind, Source, Window
from headend.protocols.dlms.axdr import Datum
from headend.protocols.dlms.clock import Stamp, parse_time
from headend.protocols.dlms.cosem import Attribute, obis_bytes
from headend.protocols.dlms.events import read_events
from headend.protocols.dlms.failures import DataAccessError
from headend.protocols.dlms.haul import Haul, in_session
from headend.protocols.dlms.objects import (
    CLOCK_CLASS,
    Scale,
    attribute_of,
    keep_scale,
    known_scale,
    number_of,
    object_of,
    scale_attribute,
    scale_of,
    settings_of,
    time_attribute,
    unasked,
)
from headend.protocols.dlms.profile import read_billing, read_curve, read_daily
from headend.protocols.dlms.session import Session
from headend.protocols.dlms.settings import DlmsObject, DlmsSettings
from headend.quantities import Kind, Quantity, quantity

__all__ = ["CLOCK_QUANTITY", "clock_attribute", "clock_offset", "discover", "read"]

CLOCK_QUANTITY = "clock_offset_s"

_SECOND = timedelta(seconds=1)

Answer = Datum | DataAccessError


def read(meter: Meter, job: ReadJob, *, now: datetime, access: Access = NO_ACCESS) -> Conversation[Harvest]:
    """Do `job`; `now` is the instant the values are taken for.

    Raises `NoAnswer`, `BadFrame`, `Refused`, `NoAccess` when nothing was gathered, `Unsupported` when the model has no
    such memory. What came before a failure is returned, the rest as faults. `LineDown` passes through.
    """
    if job.kind is ReadKind.CURVE:
        return (yield from read_curve(meter, job, now=now, access=access))
    if job.kind is ReadKind.DAILY_FREEZE:
        return (yield from read_daily(meter, job, now=now, access=access))
    if job.kind is ReadKind.SETTLEMENT:
        return (yield from read_billing(meter, job, now=now, access=access))
    if job.kind is ReadKind.EVENTS and job.window is not None:
        return (yield from _read_log(meter, job.window, access))
    if job.kind is ReadKind.TIMED_FREEZE:
        raise Unsupported("DLMS meters have no timed freeze", remedy="read the settlement (billing profile) instead")
    names = (CLOCK_QUANTITY,) if job.kind is ReadKind.CLOCK else job.quantities
    return (yield from _read_now(meter, job, names, now, access))


def _read_log(meter: Meter, window: Window, access: Access) -> Conversation[Harvest]:
    """The meter's event logs; an entry without a time is told as a fault, for it has no place."""
    entries = yield from read_events(meter, window, access)
    records = tuple(
        EventRecord(entry.at, entry.log, "" if entry.code is None else str(entry.code), entry.text)
        for entry in entries
        if entry.at is not None
    )
    lost = tuple(Fault(entry.log, Cause.BAD_FRAME, entry.text) for entry in entries if entry.at is None)
    return Harvest(faults=lost, events=records)


def discover() -> Conversation[str]:
    """A DLMS meter can't be asked for its address: always `Unsupported`."""
    raise Unsupported(
        "a DLMS meter can't be asked for its address", remedy="look it up on the meter or in its delivery file"
    )
    yield  # makes this a conversation


@dataclass(frozen=True, slots=True)
class _Wish:
    """A quantity and the object it is read from."""

    quantity: Quantity
    object: DlmsObject


@dataclass(frozen=True, slots=True)
class _Asked:
    """A read of the present. got: what the meter answered, by attribute."""

    meter: Meter
    settings: DlmsSettings
    access: Access
    job: ReadJob
    now: datetime
    wishes: tuple[_Wish, ...]
    got: dict[Attribute, Answer]
    haul: Haul


def _read_now(
    meter: Meter, job: ReadJob, names: tuple[str, ...], now: datetime, access: Access
) -> Conversation[Harvest]:
    settings = settings_of(meter)
    haul = Haul()
    wishes = []
    for one in (quantity(name) for name in names if name != CLOCK_QUANTITY):
        found = object_of(settings, one.name)
        if found is None:
            haul.miss(one.name, Cause.UNSUPPORTED, "no object of the meter is known for it", job.window)
        else:
            wishes.append(_Wish(one, found))
    if not wishes and CLOCK_QUANTITY not in names:
        return haul.close()
    asked = _Asked(meter, settings, access, job, now, tuple(wishes), {}, haul)

    def task(session: Session) -> Conversation[datetime]:
        """Ask; when the first answer came, and with it the clock: opening the association may have taken seconds."""
        attributes = _attributes(asked)
        came = now
        first = session.list_size()
        for some in (attributes[:first], attributes[first:]):
            asked.got.update(zip(some, (yield from session.get_many(some)), strict=True))
            came = access.now() if access.now is not None and some[:1] == attributes[:1] else came
        return came

    asked = replace(asked, now=(yield from in_session(meter, access, task, haul=haul, now=now)))
    for wish in wishes:
        _file(asked, wish)
    _file_clock(asked, demanded=CLOCK_QUANTITY in names)
    return haul.close()


def _attributes(asked: _Asked) -> list[Attribute]:
    """What to ask for, each once: the clock, values, capture times of demands, scalers not known yet.

    The clock goes along always: it costs a dozen bytes, and tells how far to trust every other time of the meter.
    """
    wanted = [clock_attribute(asked.settings)]
    for wish in asked.wishes:
        wanted.append(attribute_of(wish.object))
        time = time_attribute(wish.object)
        if wish.quantity.kind is Kind.DEMAND and time is not None:
            wanted.append(time)
    new = unasked((wish.object for wish in asked.wishes), asked.meter, asked.access)
    scalers = (scale_attribute(one) for one in new)
    return list(dict.fromkeys([*wanted, *(one for one in scalers if one is not None)]))


def clock_attribute(settings: DlmsSettings) -> Attribute:
    """The time of the meter's clock."""
    return Attribute(CLOCK_CLASS, obis_bytes(settings.clock_obis), 2)


def _scale(asked: _Asked, one: DlmsObject) -> Scale:
    """The scale of an object; what the meter said just now is remembered. Raises why there is none."""
    scale = known_scale(one, asked.meter, asked.access)
    attribute = scale_attribute(one)
    if scale is not None or attribute is None:
        return scale or Scale(0, one.unit)
    try:
        scale = scale_of(_given(asked.got[attribute]))
    except ProtocolError as error:
        raise Unsupported(f"its scaler and unit can't be read: {error}") from error
    keep_scale(one, asked.meter, asked.access, scale)
    return scale


def _given(answer: Answer) -> Datum:
    """The datum in an answer; raises the refusal it may be."""
    if isinstance(answer, ProtocolError):
        raise answer
    return answer


def _file(asked: _Asked, wish: _Wish) -> None:
    """One value into the haul: a reading, or the fault it is."""
    one, window = wish.quantity, asked.job.window
    try:
        datum = _given(asked.got[attribute_of(wish.object)])
        value = number_of(datum, one, _scale(asked, wish.object))
        occurred_at = _occurred_at(asked, wish)
    except ProtocolError as error:
        asked.haul.fail(one.name, error, window)
        return
    if value is None:
        asked.haul.miss(one.name, Cause.NULL_VALUE, "the meter marks it as not there (null-data)", window)
        return
    asked.haul.readings.append(_reading(asked, one, value, occurred_at))


def _reading(asked: _Asked, one: Quantity, value: Decimal, occurred_at: datetime | None) -> Reading:
    """A value of the present; a sample stands for the boundary it was asked at."""
    curve = asked.meter.model.curve
    if asked.job.kind is ReadKind.SAMPLE and asked.job.window is not None and curve is not None:
        return Reading(one.name, value, asked.job.window.start, asked.now, Source.CURVE, curve.step_s)
    source = Source.CURRENT if one.kind is Kind.REGISTER else Source.INSTANT
    return Reading(one.name, value, asked.now, asked.now, source, occurred_at=occurred_at)


def _occurred_at(asked: _Asked, wish: _Wish) -> datetime | None:
    """When a demand maximum occurred; None when the meter does not say, or it never did."""
    attribute = time_attribute(wish.object)
    answer = None if wish.quantity.kind is not Kind.DEMAND or attribute is None else asked.got[attribute]
    if answer is None or isinstance(answer, ProtocolError):
        return None
    return parse_time(answer, asked.settings, asked.meter.clock_zone).at


# --- the clock ------------------------------------------------------------------------------------------------------


def _file_clock(asked: _Asked, *, demanded: bool) -> None:
    """The clock's offset into the haul; what is wrong with it is a fault only where it was asked for."""
    if asked.job.kind is ReadKind.SAMPLE and not demanded:
        return
    try:
        answer = _given(asked.got[clock_attribute(asked.settings)])
        offset = clock_offset(parse_time(answer, asked.settings, asked.meter.clock_zone), asked.now)
    except ProtocolError as error:
        if demanded:
            asked.haul.fail(CLOCK_QUANTITY, error)
        return
    if offset is not None:
        asked.haul.readings.append(Reading(CLOCK_QUANTITY, offset, asked.now, asked.now, Source.INSTANT))
    elif demanded:
        asked.haul.miss(CLOCK_QUANTITY, Cause.NULL_VALUE, "the meter shows no clock")


def clock_offset(shown: Stamp, now: datetime) -> Decimal | None:
    """The meter's clock minus `now` in whole seconds, positive when the meter is fast; None without a clock."""
    return None if shown.at is None else Decimal((shown.at - now + _SECOND / 2) // _SECOND)

"""What a meter says on its own: DataNotification and EventNotification as values, and those as readings.

Utilities and makers agree on no body. What each value is, is told beside it (pairs of OBIS and value, with scaler and
unit or without; attribute descriptors, with or without type tags), by a list of objects in the body, or not at all:
then `DlmsPush.items` names the values by their position. A scaler that neither body nor model tells is never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from headend.access import NO_ACCESS, Access
from headend.errors import BadFrame, NoAccess, ProtocolError, Unsupported
from headend.model import Cause, Fault, Meter, Reading, Source
from headend.protocols.dlms.apdu import Apdu
from headend.protocols.dlms.axdr import NULL, Datum, decode_all
from headend.protocols.dlms.body import Item, items_of
from headend.protocols.dlms.catalogue import historical
from headend.protocols.dlms.clock import NOWHEN, Stamp, is_time, parse_time
from headend.protocols.dlms.cosem import obis_bytes
from headend.protocols.dlms.intake import Arrival, Blocks, arrivals
from headend.protocols.dlms.objects import Scale, fixed_scale, number_of, quantity_at, settings_of
from headend.protocols.dlms.security import AUTHENTICATED, CONTROL, header_of, is_protected, unwrap
from headend.protocols.dlms.settings import DlmsObject, DlmsPush, DlmsSettings
from headend.quantities import Kind, Quantity

__all__ = ["Item", "Push", "decode_push", "head_time", "notification", "readings_of", "sender_title", "text_of"]

_CLOCK_CLASS: Final = 8
_CLOCK: Final = "clock_offset_s"  # a push may have waited on its way: its time is no sign of how the clock goes
_TIME_BYTES: Final = 12
_MOST_LATE_S: Final = 60  # a push this long after the boundary of its grid still speaks for the boundary


@dataclass(frozen=True, slots=True)
class Push:
    """One push. stamp: its time by the meter, in its head or its body; items: its values in the body's order; title:
    the sender's system title, empty when it was not ciphered; serial: the value of the model's `serial_obis`, "" when
    it is not in the body; source: the sender's address on its link; event: a EventNotification."""

    stamp: Stamp
    items: tuple[Item, ...]
    title: bytes = b""
    serial: str = ""
    source: str = ""
    event: bool = False

    @property
    def at(self) -> datetime | None:
        """The instant the push is of, by the meter; None when it tells none or says its clock is not to be trusted."""
        return None if self.stamp.invalid else self.stamp.at


def sender_title(apdu: bytes) -> bytes:
    """The system title in a ciphered push, empty where there is none: to find its meter before its keys are known."""
    try:
        return header_of(apdu).title if is_protected(apdu) else b""
    except ProtocolError:
        return b""


def decode_push(
    data: bytes | Arrival | Sequence[bytes],
    settings: DlmsSettings,
    clock_zone: str,
    *,
    access: Access = NO_ACCESS,
    count: bool = True,
) -> Push:
    """The one push in `data`: an APDU, bytes as they came over a line in any framing, or several of either.

    count: hold the sender's invocation counter against those seen before. Raises `BadFrame` when it is none, is damaged
    or cut off, `NoAccess` when it can't be deciphered, its tag is wrong, or it is less protected than policy asks.
    """
    arrival = data if isinstance(data, Arrival) else _only(data)
    title = sender_title(arrival.apdu)
    _check_protection(arrival.apdu, settings)
    plain = unwrap(arrival.apdu, settings, access, count=count)
    if is_protected(plain) or plain[:1] == bytes((Apdu.BLOCK_TRANSFER,)):
        raise BadFrame("a push inside a push")
    stamp, items, event = notification(plain, settings, clock_zone)
    items = _named(items, settings.push or DlmsPush())
    if stamp.at is None:
        stamp = _time_in(items, settings, clock_zone) or stamp
    return Push(stamp, items, title, _serial(items, settings), arrival.source, event)


def _check_protection(apdu: bytes, settings: DlmsSettings) -> None:
    """A push must be protected as policy asks: anybody can write a meter's title or number into one in the clear."""
    if settings.policy == "none" or (settings.push is not None and settings.push.plain):
        return
    wanted = CONTROL[settings.policy] & (0xFF if settings.check_tag else ~AUTHENTICATED)
    if wanted & ~(header_of(apdu).control if is_protected(apdu) else 0):
        raise NoAccess(
            "a push comes less protected than policy asks, so anybody could have sent it",
            remedy="if this type of meter pushes so, set plain = true in [dlms.push] of its model",
        )


def _only(data: bytes | Sequence[bytes]) -> Arrival:
    """The one APDU in what came. What is damaged is more than noise here: it may be part of the push."""
    found = arrivals(data) if isinstance(data, bytes) else _joined(data)
    errors = [one for one in found if isinstance(one, BadFrame)]
    if errors:
        raise errors[0]
    whole = [one for one in found if isinstance(one, Arrival)]
    if len(whole) != 1:
        raise BadFrame(f"{len(whole)} pushes where one is due")
    return whole[0]


def _joined(parts: Sequence[bytes]) -> list[Arrival | BadFrame]:
    """Several captured pieces: the blocks of one transfer, or frames."""
    if not all(part[:1] == bytes((Apdu.BLOCK_TRANSFER,)) for part in parts):
        return arrivals(b"".join(parts))
    blocks = Blocks()
    whole = [joined for joined in map(blocks.feed, parts) if joined is not None]
    if blocks.pending:
        raise BadFrame("the last block of the block transfer is missing: the push is dropped")
    return [Arrival(apdu, "") for apdu in whole]


def notification(apdu: bytes, settings: DlmsSettings, clock_zone: str) -> tuple[Stamp, tuple[Item, ...], bool]:
    """Time, values and whether it is an event, of an APDU in the clear. Raises `BadFrame`."""
    tag = apdu[0] if apdu else -1
    if tag == Apdu.DATA_NOTIFICATION:
        if len(apdu) < 6:
            raise BadFrame("a push that ends in its head")
        time, at = head_time(apdu, 5)
        return _stamp(time, settings, clock_zone), tuple(items_of(apdu[at:])), False
    if tag == Apdu.EVENT_NOTIFICATION:
        if len(apdu) < 2:
            raise BadFrame("an event that ends in its head")
        time, at = head_time(apdu, 2) if apdu[1] else (b"", 2)
        if len(apdu) < at + 9:
            raise BadFrame("an event that names no attribute")
        class_id, obis, index = int.from_bytes(apdu[at : at + 2], "big"), apdu[at + 2 : at + 8], apdu[at + 8]
        item = Item(obis, decode_all(apdu[at + 9 :]), None, class_id, index)
        return _stamp(time, settings, clock_zone), (item,), True
    raise BadFrame(f"no push begins with {tag:02X}" if apdu else "an empty push")


def head_time(apdu: bytes, at: int) -> tuple[bytes, int]:
    """The date-time in front of a body, as its bytes, and the offset after it: an octet-string without its tag. Kaifa
    writes the tag all the same; some write the tag of a date-time."""
    if len(apdu) <= at:
        raise BadFrame("a push that ends in its head")
    if apdu[at] == 0x00:
        return b"", at + 1
    for lead in (b"\x0c", b"\x09\x0c", b"\x19"):
        end = at + len(lead) + _TIME_BYTES
        if apdu.startswith(lead, at) and len(apdu) >= end:
            return apdu[end - _TIME_BYTES : end], end
    raise BadFrame(f"a push with {apdu[at]:02X} where its time is due")


def _stamp(time: bytes, settings: DlmsSettings, clock_zone: str) -> Stamp:
    return parse_time(time, settings, clock_zone) if time else NOWHEN


def _time_in(items: Sequence[Item], settings: DlmsSettings, clock_zone: str) -> Stamp | None:
    """The time a body holds itself: the meter's clock, or its first value when that is a time."""
    clock = obis_bytes(settings.clock_obis)
    for item in items:
        is_clock = item.obis == clock or item.class_id == _CLOCK_CLASS or (item.obis is None and item.position == 0)
        if is_clock and is_time(item.datum):
            return parse_time(item.datum, settings, clock_zone)
    return None


def _named(items: Sequence[Item], layout: DlmsPush) -> tuple[Item, ...]:
    """The items, with the names the model gives to those the body does not name."""
    unnamed = sum(item.obis is None for item in items)
    names = next((one for one in (layout.items, *layout.lists) if one and len(one) == unnamed), ())
    return tuple(
        replace(item, obis=obis_bytes(names[item.position]))
        if item.obis is None and names and names[item.position]
        else item
        for item in items
    )


def _serial(items: Sequence[Item], settings: DlmsSettings) -> str:
    wanted = obis_bytes((settings.push or DlmsPush()).serial_obis)
    return next((text_of(item.datum, settings.text_encoding) for item in items if item.obis == wanted), "")


def text_of(datum: Datum, encoding: str = "utf-8") -> str:
    """A string as text, without the blanks and zeros it was filled up with; hex where it is none."""
    value = datum.value
    if isinstance(value, str):
        return value.strip("\0 ")
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, bytes):
        return ""
    try:
        text = value.decode(encoding).strip("\0 ")
    except (UnicodeDecodeError, LookupError):
        return value.hex().upper()
    return text if text.isprintable() else value.hex().upper()


# --- readings -------------------------------------------------------------------------------------------------------


def readings_of(push: Push, meter: Meter, now: datetime) -> tuple[tuple[Reading, ...], tuple[Fault, ...]]:
    """The quantities in `push`; `now` is when it came.

    What is no quantity of ours and values of past billing periods are passed over; a quantity without a scaler, with a
    unit that measures something else, or null is a fault. With `step_s` every value belongs to that grid's curve.
    """
    settings = settings_of(meter)
    layout = settings.push or DlmsPush()
    readings: dict[str, Reading] = {}
    faults: list[Fault] = _unnamed_faults(push, layout)
    at, why = _instant(push, layout.step_s, now)
    for item in push.items:
        if item.obis is None or historical(item.obis):
            continue
        found = quantity_at(settings, item.obis)
        if found is None or found[0].name in (_CLOCK, *readings) or item.attribute not in (0, found[1].attribute):
            continue
        one, where = found
        try:
            value = number_of(item.datum, one, _scale(item, where, one))
        except ProtocolError as error:
            cause = Cause.UNSUPPORTED if isinstance(error, Unsupported) else Cause.BAD_FRAME
            faults.append(Fault(one.name, cause, str(error)))
            continue
        if value is None:
            faults.append(Fault(one.name, Cause.NULL_VALUE, "the meter marks it as not there (null-data)"))
        elif at is None:
            faults.append(Fault(one.name, Cause.IMPLAUSIBLE, why))
        else:
            occurred = _occurred(item, settings, meter.clock_zone) if one.kind is Kind.DEMAND else None
            source = Source.CURRENT if one.kind is Kind.REGISTER else Source.INSTANT
            if layout.step_s:
                source = Source.CURVE
            readings[one.name] = Reading(one.name, value, at, now, source, layout.step_s, occurred_at=occurred)
    return tuple(readings.values()), tuple(faults)


def _unnamed_faults(push: Push, layout: DlmsPush) -> list[Fault]:
    """A body whose values nothing names, though the model tries."""
    unnamed = max((item.position + 1 for item in push.items if item.position >= 0), default=0)
    lengths = [len(one) for one in (layout.items, *layout.lists) if one]
    if not unnamed or not lengths or unnamed in lengths:
        return []
    detail = f"the body has {unnamed} values without names, the model names {' or '.join(map(str, sorted(lengths)))}"
    return [Fault("push", Cause.UNSUPPORTED, detail)]


def _instant(push: Push, step_s: int, now: datetime) -> tuple[datetime | None, str]:
    """What the values hold for: the meter's own time; when it tells none, now. On a grid the boundary just passed."""
    at = push.at
    if not step_s:
        return at or now, ""
    if at is None:
        return None, "the push tells no time that could be trusted, so its place in the curve is not known"
    past = timedelta(seconds=int(at.timestamp()) % step_s, microseconds=at.microsecond)
    if past > timedelta(seconds=min(_MOST_LATE_S, step_s / 10)):
        return None, f"the push is of {at:%H:%M:%S} UTC, which is on no boundary of {step_s} s"
    return at - past, ""


def _scale(item: Item, where: DlmsObject, one: Quantity) -> Scale:
    """The scale of a value: the model's, else the one beside it."""
    fixed = fixed_scale(where)
    scale = fixed if fixed is not None else item.scale
    if scale is None:
        raise Unsupported(
            f"the push tells no scaler of {one.name}", remedy=f"set scaler and unit of {where.obis} in the meter model"
        )
    return scale


def _occurred(item: Item, settings: DlmsSettings, clock_zone: str) -> datetime | None:
    captured = item.captured
    return None if captured in (None, NULL) else parse_time(captured, settings, clock_zone).at

"""The meter's clock against ours: one item where the meter has it (`0400010C`), else date and time apart."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from headend.civil import zone
from headend.conversation import Conversation
from headend.errors import BadFrame, Refused
from headend.model import Cause, Meter, Reading, Source
from headend.protocols.dlt645.bcd import all_ff, clock
from headend.protocols.dlt645.exchange import gather
from headend.protocols.dlt645.haul import Haul

__all__ = ["CLOCK_QUANTITY", "file_clock", "read_clock", "shown_2007", "shown_apart"]

CLOCK_QUANTITY = "clock_offset_s"

DATE_AND_TIME = "0400010C"
DATE = "04000101"
TIME = "04000102"

_SECOND = timedelta(seconds=1)


def read_clock(meter: Meter, haul: Haul, *, now: datetime) -> Conversation[None]:
    """Add the meter's clock minus `now` in whole seconds (positive when the meter is fast) to `haul`."""
    date, time = yield from shown_2007(meter.address)
    file_clock(meter, haul, date, time, now=now)


def file_clock(meter: Meter, haul: Haul, date: bytes, time: bytes, *, now: datetime) -> None:
    """File `WW DD MM YY` and `ss mm hh`, as a meter of either version shows them."""
    if not date or not time or all_ff(date + time):
        haul.miss(CLOCK_QUANTITY, Cause.NULL_VALUE, "the meter shows no clock")
        return
    try:
        shown = clock(date, time, zone(meter.clock_zone))
    except BadFrame as error:
        haul.miss(CLOCK_QUANTITY, Cause.BAD_FRAME, f"the meter's clock: {error}")
        return
    offset = Decimal((shown - now + _SECOND / 2) // _SECOND)
    haul.readings.append(Reading(CLOCK_QUANTITY, offset, now, now, Source.INSTANT))


def shown_2007(address: str) -> Conversation[tuple[bytes, bytes]]:
    """`WW DD MM YY` and `ss mm hh` as the meter shows them."""
    try:
        both = yield from gather(address, DATE_AND_TIME)
    except Refused:
        both = b""
    if len(both) == 7:
        return both[3:], both[:3]
    return (yield from shown_apart(address, DATE, TIME))


def shown_apart(address: str, date_di: str, time_di: str) -> Conversation[tuple[bytes, bytes]]:
    """Date and time by an identifier each."""
    date = yield from gather(address, date_di)
    time = yield from gather(address, time_di)
    if time[1:] == b"\0\0":  # just past midnight: the date may be yesterday's
        date = yield from gather(address, date_di)
    return date, time

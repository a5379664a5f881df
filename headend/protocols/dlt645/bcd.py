"""Numbers and times of DL/T 645 as they lie in the data field: packed BCD, lowest byte first.

All FF means "not there"; a nibble above nine in a number is damage and never becomes a value. The top bit is a sign
only where the standard says so (`Item.signed`): forward energies use their full eight digits.
"""

from __future__ import annotations

from datetime import datetime, tzinfo
from decimal import Decimal

from headend.civil import utc
from headend.errors import BadFrame

__all__ = [
    "DEMAND_BYTES",
    "all_ff",
    "clock",
    "demand",
    "minute_bytes",
    "number",
    "numbers",
    "past_stamp",
    "second_bytes",
    "second_stamp",
    "stamp",
]

_LEAP_GAP_YEARS = 8  # from one 29 February to the next, at most

DEMAND_BYTES = 3  # XX.XXXX, before the five bytes of its time


def all_ff(data: bytes) -> bool:
    """Whether the meter marks this as not there."""
    return bool(data) and data.count(0xFF) == len(data)


def number(data: bytes, places: int, *, signed: bool = False) -> Decimal | None:
    """A BCD number with `places` decimals; None when all FF. `BadFrame` for a nibble above nine."""
    if all_ff(data):
        return None
    negative = signed and bool(data[-1] & 0x80)
    if negative:
        data = data[:-1] + bytes((data[-1] & 0x7F,))
    digits = data[::-1].hex()
    if not digits.isdecimal():
        raise BadFrame(f"{digits.upper()} has digits above nine")
    return Decimal(-int(digits) if negative else int(digits)).scaleb(-places)


def numbers(data: bytes, size: int, places: int) -> list[Decimal] | None:
    """The unsigned numbers of `size` bytes that `data` is full of; None unless every nibble is a digit."""
    digits = data[::-1].hex()
    if not digits.isdecimal():
        return None
    width = 2 * size
    exponent = f"E-{places}"
    return [Decimal(digits[i : i + width] + exponent) for i in range(len(digits) - width, -1, -width)]


def _two_digits(byte: int) -> int:
    if byte >> 4 > 9 or byte & 0x0F > 9:
        raise BadFrame(f"{byte:02X} in a time has digits above nine")
    return (byte >> 4) * 10 + (byte & 0x0F)


def _moment(year: int, month: int, day: int, hour: int, minute: int, second: int, tz: tzinfo) -> datetime:
    try:
        return utc(datetime(2000 + year, month, day, hour, minute, second, tzinfo=tz))
    except (ValueError, OverflowError):
        written = f"{year:02d}-{month:02d}-{day:02d} {hour:02d}:{minute:02d}:{second:02d}"
        raise BadFrame(f"{written} is no date and time") from None


def stamp(data: bytes, tz: tzinfo) -> datetime | None:
    """The instant of `mm hh DD MM YY` on a clock in `tz`; None when all zero (never happened) or all FF."""
    if len(data) != 5:
        raise BadFrame(f"a time of {len(data)} bytes, 5 are due")
    if not any(data) or all_ff(data):
        return None
    minute, hour, day, month, year = map(_two_digits, data)
    return _moment(year, month, day, hour, minute, 0, tz)


def second_stamp(data: bytes, tz: tzinfo) -> datetime | None:
    """The instant of `ss mm hh DD MM YY` on a clock in `tz`; None when all zero (never happened) or all FF."""
    if len(data) != 6:
        raise BadFrame(f"a time of {len(data)} bytes, 6 are due")
    if not any(data) or all_ff(data):
        return None
    second, minute, hour, day, month, year = map(_two_digits, data)
    return _moment(year, month, day, hour, minute, second, tz)


def past_stamp(data: bytes, tz: tzinfo, now: datetime) -> datetime | None:
    """The latest instant not after `now` that a clock in `tz` writes as `mm hh DD MM`, a time of 1997 without a year.

    None when all zero (never happened) or all FF.
    """
    if len(data) != 4:
        raise BadFrame(f"a time of {len(data)} bytes, 4 are due")
    if not any(data) or all_ff(data):
        return None
    minute, hour, day, month = map(_two_digits, data)
    this_year = now.astimezone(tz).year
    problem: BadFrame | None = None
    for year in range(this_year, this_year - _LEAP_GAP_YEARS - 1, -1):
        try:
            moment = _moment(year - 2000, month, day, hour, minute, 0, tz)
        except BadFrame as error:
            problem = error
            continue
        if moment <= now:
            return moment
    raise problem or BadFrame(f"{month:02d}-{day:02d} {hour:02d}:{minute:02d} is no date and time")


def clock(date: bytes, time: bytes, tz: tzinfo) -> datetime:
    """The instant shown by `WW DD MM YY` and `ss mm hh` in `tz`; the weekday is not looked at."""
    if len(date) != 4 or len(time) != 3:
        raise BadFrame(f"a clock of {len(date)} and {len(time)} bytes, 4 and 3 are due")
    day, month, year = map(_two_digits, date[1:])
    second, minute, hour = map(_two_digits, time)
    return _moment(year, month, day, hour, minute, second, tz)


def second_bytes(moment: datetime, tz: tzinfo) -> bytes:
    """`moment` as `ss mm hh DD MM YY` on a clock in `tz`."""
    return bytes.fromhex(f"{moment.astimezone(tz):%S%M%H%d%m%y}")


def minute_bytes(moment: datetime, tz: tzinfo) -> bytes:
    """`moment` as `mm hh DD MM YY` on a clock in `tz`."""
    local = moment.astimezone(tz)
    return bytes.fromhex(f"{local:%M%H%d%m%y}")


def demand(data: bytes, places: int, tz: tzinfo, *, signed: bool = False) -> tuple[Decimal | None, datetime | None]:
    """A maximum demand and when it occurred; no time while there was none yet."""
    if len(data) != DEMAND_BYTES + 5:
        raise BadFrame(f"a demand of {len(data)} bytes, 8 are due")
    return number(data[:DEMAND_BYTES], places, signed=signed), stamp(data[DEMAND_BYTES:], tz)

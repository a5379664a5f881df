"""A meter that answers everything at once and whole: so that what a job puts on the wire can be told beforehand.

Its values are zeros; its lengths, times and identifiers are those of a real meter, so a driver takes its answers. It
is a yardstick, not a simulator: it has no faults, no memory and no truth.
"""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo

from headend.civil import day_start, zone
from headend.errors import BadFrame
from headend.model import Meter
from headend.protocols.dlt645.bcd import minute_bytes, stamp
from headend.protocols.dlt645.catalogue import find
from headend.protocols.dlt645.frame import Scanner, checksum, encode

__all__ = ["answer"]

_READ, _READ_1997 = 0x11, 0x01
_ANSWERED = 0x80
_MAX_DATA = 200
_ENERGY_BYTES = 4
_RECORD = b"\xa0\xa0\x1b"  # 27 bytes follow before the sum: time, three empty classes, class 4, two more
_DAY = timedelta(days=1)


def answer(meter: Meter, request: bytes, now: datetime) -> bytes:
    """The frame `meter` would answer `request` with at `now`; empty where this yardstick has no answer."""
    for frame in Scanner().feed(request):
        size = {_READ: 4, _READ_1997: 2}.get(frame.control)
        if size is None:
            return b""
        identifier, extra = frame.data[:size], frame.data[size:]
        body = _body(meter, identifier[::-1].hex().upper(), extra, now)
        if not body or size + len(body) > _MAX_DATA:
            return b""
        return encode(frame.address, frame.control | _ANSWERED, identifier + body)
    return b""


def _body(meter: Meter, di: str, extra: bytes, now: datetime) -> bytes:
    """The data behind the identifier."""
    tz = zone(meter.clock_zone)
    if di.startswith("0610") and len(extra) == 6:
        return extra[1:] + bytes(extra[0] * _ENERGY_BYTES)
    if di.startswith("06") and len(extra) == 6:
        return _records(meter, extra, tz)
    if di.startswith("050600"):
        midnight = day_start(now.astimezone(tz).date(), tz) - (int(di[6:], 16) - 1) * _DAY
        return minute_bytes(midnight, tz)
    if di.startswith("0506"):
        return bytes((1 + meter.model.rates) * _ENERGY_BYTES)
    if di in ("0400010C", "04000101", "04000102", "C010", "C011"):
        return _clock(di, now.astimezone(tz))
    return bytes(_size(meter, di))


def _clock(di: str, local: datetime) -> bytes:
    date = bytes.fromhex(f"{local.isoweekday() % 7:02d}{local:%d%m%y}")
    time = bytes.fromhex(f"{local:%S%M%H}")
    if di == "0400010C":
        return time + date
    return date if di in ("04000101", "C010") else time


def _records(meter: Meter, extra: bytes, tz: tzinfo) -> bytes:
    """As many load records of class 4 as asked for, from the time asked for."""
    try:
        start = stamp(extra[1:], tz)
    except BadFrame:
        return b""
    if start is None or meter.model.curve is None:
        return b""
    step = timedelta(seconds=meter.model.curve.step_s)
    records = []
    for number in range(extra[0]):
        time = minute_bytes(start + number * step, tz)
        record = _RECORD + time + b"\xaa\xaa\xaa" + bytes(4 * _ENERGY_BYTES) + b"\xaa\xaa\xaa"
        records.append(record + bytes((checksum(record), 0xE5)))
    return b"".join(records)


def _size(meter: Meter, di: str) -> int:
    """Bytes of an item; of a block, as many as the model has rates or phases. 0 when it is not known."""
    rates = 1 + meter.model.rates
    if len(di) == 4:
        first = find(f"{di[:3]}0") if di.endswith("F") else find(di)
        return 0 if first is None or first.size is None else first.size * (rates if di.endswith("F") else 1)
    if di[4:6] == "FF":
        first = find(f"{di[:4]}{'01' if di.startswith('02') else '00'}{di[6:]}")
        count = 3 if di.startswith("02") else rates
        return 0 if first is None or first.size is None else first.size * count
    item = find(di)
    return 0 if item is None or item.size is None else item.size

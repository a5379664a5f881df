"""A meter that answers every read at once and whole: so that what a job puts on the wire can be told beforehand.

Its values are zeros; its lengths and the times of its blocks are those of a real meter, so the driver takes its
answers. It is a yardstick, not a simulator.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

from headend.civil import zone
from headend.model import Meter
from headend.protocols.modbus.frame import rtu, rtu_sound, tcp, tcp_frames
from headend.protocols.modbus.model import BITS, REGISTERS, History, RegisterMap, map_of
from headend.protocols.modbus.sunspec import MARKER, STARTS

__all__ = ["answer"]

_DAY = timedelta(days=1)


def answer(meter: Meter, request: bytes, now: datetime) -> bytes:
    """The frame `meter` would answer `request` with at `now`; empty where this yardstick has no answer."""
    if meter.protocol == "modbus-tcp":
        for transaction, unit, pdu in tcp_frames(request):
            said = _pdu(meter, pdu, now)
            return tcp(transaction, unit, said) if said else b""
        return b""
    if not rtu_sound(request):
        return b""
    said = _pdu(meter, request[1:-2], now)
    return rtu(request[0], said) if said else b""


def _pdu(meter: Meter, pdu: bytes, now: datetime) -> bytes:
    function, address, count = pdu[0], int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
    if function in BITS:
        data = bytes((count + 7) // 8)
    elif function in REGISTERS:
        data = _registers(map_of(meter), address, count, now.astimezone(zone(meter.clock_zone)))
    else:
        return b""
    return bytes((function, len(data))) + data


def _registers(registers: RegisterMap, address: int, count: int, local: datetime) -> bytes:
    data = bytes(2 * count)
    if registers.sunspec and address == (registers.base or STARTS[0] + 2) and count == 2:
        return registers.sunspec[0].to_bytes(2, "big") + b"\0\x7c"
    if registers.sunspec and address == STARTS[0] and count == 2:
        return MARKER
    place = address - registers.base
    if registers.clock is not None and place == registers.clock.address:
        return bytes((local.year % 100, local.month, local.day, local.hour, local.minute, local.second))
    for history, monthly in ((registers.daily, False), (registers.monthly, True)):
        if history is not None and 0 <= place - history.address < history.stride * history.count:
            stamp = _stamp(history, (place - history.address) // history.stride, local, monthly=monthly)
            return stamp + data[len(stamp) :]
    return _ones(registers, address, data)


def _ones(registers: RegisterMap, address: int, data: bytes) -> bytes:
    """Transformer ratios of 1: frozen values are multiplied with them."""
    names = {name for kept in (registers.daily, registers.monthly) if kept is not None for name in kept.ratio}
    if any(registers.by_name[name].address + registers.base == address for name in names):
        return data[:-1] + b"\x01"
    return data


def _stamp(history: History, number: int, local: datetime, *, monthly: bool) -> bytes:
    """The time of the n-th newest block: a midnight, or the start of a month."""
    if monthly:
        months = 12 * local.year + local.month - 1 - number
        day = date(months // 12, months % 12 + 1, 1)
    else:
        day = local.date() - number * _DAY
    stamp = bytes((day.year % 100, day.month, day.day, 0))
    return stamp if history.stamp == "ym-dh" else stamp + b"\0\0"

"""The single items of a DL/T 645-2007 meter: momentary values, clock, status words, parameters (groups 01, 02, 04)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from simulators import momentary
from simulators.dlt645_frame import bcd
from simulators.dlt645_memory import face, minute_bytes
from simulators.household import Register

if TYPE_CHECKING:
    from simulators.dlt645_meter import Dlt645Meter

__all__ = ["ITEMS", "PARAMETERS", "clock_bytes", "demand_bytes", "size_of"]

_Item = Callable[["Dlt645Meter", int], bytes]
_Measure = Callable[[Register, int], int]

_MOMENTARY_BYTES = {1: 2, 2: 3, 3: 3, 4: 3, 5: 3, 6: 2}  # by DI2 of group 02
_PHASE_MISSING = {2: b"\xff\xff", 3: b"\xff\xff\xff"}

# What can be written and is only kept (function 14), as delivered.
PARAMETERS: dict[int, bytes] = {
    0x04000103: b"\x15",  # demand period, minutes
    0x04000104: b"\x01",  # sliding interval
    0x04000301: b"\x06",  # screens shown in turn
    0x04000302: b"\x05",  # seconds a screen
    0x04000303: b"\x02",  # decimals of energy shown
    0x04000304: b"\x04",  # decimals of power shown
    0x04000306: b"\x01\x00\x00",  # CT ratio
    0x04000307: b"\x01\x00\x00",  # PT ratio
    0x04000403: bytes(32),  # asset code, ASCII
    0x04000E01: bytes.fromhex("002013"),  # forward power limit, 13.2000 kW
    0x04000E02: bytes.fromhex("002013"),
    0x04000E03: bytes.fromhex("4026"),  # upper voltage limit, 264.0 V
    0x04000E04: bytes.fromhex("6017"),  # lower, 176.0 V
    0x04001203: b"\x00\x00",  # daily freeze at hh mm
    0x04001401: b"\x00\x00",  # trip delay, minutes
}


def size_of(di: int) -> int:
    """Bytes of a single number, 0 where the identifier alone does not tell."""
    if di >> 24 in (0x00, 0x05):
        return 4
    if di >> 24 == 0x02:
        return _MOMENTARY_BYTES.get(di >> 16 & 0xFF, 2)
    return 0


def _phases(value: _Measure, size: int, *, total: bool) -> _Item:
    """A block of a single-phase meter: total if there is one, phase A, and FF for the phases not wired."""

    def item(meter: Dlt645Meter, at_s: int) -> bytes:
        return bcd(value(meter.register, at_s), size) * (1 + total) + _PHASE_MISSING[size] * 2

    return item


def _momentary(kind: int, value: _Measure, *, total: bool) -> dict[int, _Item]:
    """02 kk pp 00 for total (pp 00), phases 01..03 and the block FF."""
    size = _MOMENTARY_BYTES[kind]
    base = 0x02000000 | kind << 16
    items: dict[int, _Item] = {
        base | 0x0100: lambda meter, at_s: bcd(value(meter.register, at_s), size),
        base | 0x0200: lambda meter, at_s: _PHASE_MISSING[size],
        base | 0x0300: lambda meter, at_s: _PHASE_MISSING[size],
        base | 0xFF00: _phases(value, size, total=total),
    }
    if total:
        items[base] = items[base | 0x0100]
    return items


def _clock_face(meter: Dlt645Meter, at_s: int) -> datetime:
    return face(meter.clock.local(at_s))


def _week_and_date(meter: Dlt645Meter, at_s: int) -> bytes:
    """WW DD MM YY; Sunday is 00."""
    now = _clock_face(meter, at_s)
    return bytes((now.isoweekday() % 7,)) + bytes.fromhex(now.strftime("%d%m%y"))


def _time(meter: Dlt645Meter, at_s: int) -> bytes:
    return bytes.fromhex(_clock_face(meter, at_s).strftime("%S%M%H"))


def clock_bytes(meter: Dlt645Meter, at_s: int) -> bytes:
    """ss mm hh WW DD MM YY."""
    return _time(meter, at_s) + _week_and_date(meter, at_s)


def _demand(meter: Dlt645Meter, at_s: int) -> bytes:
    """XX.XXXX kW and when (mm hh DD MM YY); zeros if there was none yet."""
    return demand_bytes(*meter.memory.demand(at_s))


def demand_bytes(units: int, local_s: int) -> bytes:
    """A demand (0.0001 kW) and when its block ended."""
    return bcd(units, 3) + (minute_bytes(local_s) if local_s else bytes(5))


def _constant(raw: bytes) -> _Item:
    return lambda meter, at_s: raw


def _parameter(di: int) -> _Item:
    return lambda meter, at_s: meter.parameters[di]


def _settlement_day(k: int) -> _Item:
    """hh DD of the k-th settlement day; 99 99 when it is not set."""

    def item(meter: Dlt645Meter, at_s: int) -> bytes:
        day = meter.settlement_days[k]
        return bcd(day[1], 1) + bcd(day[0], 1) if day else b"\x99\x99"

    return item


def _status_3(meter: Dlt645Meter, at_s: int) -> bytes:
    return meter.relay.word(at_s, key_pressed=meter.access.key_pressed)


def _status_block(meter: Dlt645Meter, at_s: int) -> bytes:
    return bytes(4) + _status_3(meter, at_s) + bytes(8)


ITEMS: dict[int, _Item] = {
    **_momentary(0x01, momentary.voltage, total=False),
    **_momentary(0x02, momentary.current, total=False),
    **_momentary(0x03, momentary.active, total=True),
    **_momentary(0x04, momentary.reactive, total=True),
    **_momentary(0x05, momentary.apparent, total=True),
    **_momentary(0x06, momentary.power_factor, total=True),
    0x01010000: _demand,
    0x02800002: lambda meter, at_s: bcd(4995 + at_s // 10 % 11, 2),  # 49.95 to 50.05 Hz
    0x02800007: lambda meter, at_s: bcd(180 + at_s // 600 % 90, 2),  # 18.0 to 26.9 degrees Celsius
    0x04000101: _week_and_date,
    0x04000102: _time,
    0x0400010C: clock_bytes,
    0x04000204: _constant(b"\x04"),
    0x04000401: lambda meter, at_s: meter.address,
    0x04000402: lambda meter, at_s: meter.address,
    0x04000409: _constant(bytes.fromhex("001200")),  # 1200 impulses a kWh
    0x04000503: _status_3,
    0x040005FF: _status_block,
    0x04000901: _constant(b"\x08"),  # load record keeps class 4, energies
    **{0x04000500 | word: _constant(b"\x00\x00") for word in (1, 2, 4, 5, 6, 7)},
    **{0x04000B01 + k: _settlement_day(k) for k in range(3)},
    **{di: _parameter(di) for di in PARAMETERS},
}

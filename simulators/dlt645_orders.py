"""Writing to a DL/T 645-2007 meter: functions 08 and 14 to 1C (clauses 7.2 to 7.12; 1C is the supplement's).

Each function takes the meter, the data field of the request and the instant, and gives the data field of the answer,
or refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from simulators.dlt645_access import CLEAR_LEVEL, WRITE_LEVEL
from simulators.dlt645_events import Event, programmed
from simulators.dlt645_frame import bcd
from simulators.dlt645_items import ITEMS, PARAMETERS
from simulators.dlt645_memory import read_second, second_bytes
from simulators.dlt645_spec import BROADCAST, ERR_BAUD, ERR_NO_DATA, ERR_OTHER, ERR_REFUSED, Refused
from simulators.household import DAY_S

if TYPE_CHECKING:
    from simulators.dlt645_meter import Dlt645Meter

__all__ = ["BAUDS", "ORDERS", "broadcast", "new_address"]

BAUDS = {0x02: 600, 0x04: 1200, 0x08: 2400, 0x10: 4800, 0x20: 9600, 0x40: 19200}
_CLOCK = {0x04000101: 4, 0x04000102: 3, 0x0400010C: 7}
_SETTLEMENT_DAYS = range(0x04000B01, 0x04000B04)
_ASSET_CODE = 0x04000403  # text, all others are digits
_SECURED = 8  # PA P0 P1 P2, C0 C1 C2 C3

Order = Callable[["Dlt645Meter", bytes, int], bytes]


def broadcast(meter: Dlt645Meter, control: int, data: bytes, at_s: int) -> None:
    """What everybody is told at once and nobody answers: time (08) and freeze (16)."""
    if control == 0x08:
        _set_by_broadcast(meter, data, at_s)
    elif control == 0x16 and len(data) == 4:
        meter.memory.freeze_when(data, at_s)


def _set_by_broadcast(meter: Dlt645Meter, data: bytes, at_s: int) -> None:
    """08: ss mm hh DD MM YY, taken once a day and up to five minutes off (clause 7.6)."""
    try:
        local_s = read_second(data)
    except ValueError:
        return
    day = local_s // DAY_S
    if day != meter.set_on_day and abs(local_s - meter.clock.local(at_s)) <= 300:
        meter.clock.set(at_s, local_s)
        meter.set_on_day = day


def is_bcd(data: bytes) -> bool:
    """Whether every half byte is a decimal digit."""
    return data.hex().isdecimal()


def _authorised(meter: Dlt645Meter, secured: bytes, level: int, at_s: int) -> bytes:
    """The operator code C0..C3; refuses who may not. secured: PA P0 P1 P2 C0 C1 C2 C3."""
    meter.access.check(secured[:4], level, at_s)
    if len(secured) != _SECURED or not meter.access.programmable:
        raise Refused(ERR_REFUSED)
    return secured[4:]


def write(meter: Dlt645Meter, data: bytes, at_s: int) -> bytes:
    """14: DI, password, operator, value."""
    operator = _authorised(meter, data[4:12], WRITE_LEVEL, at_s)
    di, value = int.from_bytes(data[:4], "little"), data[12:]
    if f"{di:08X}" in meter.spec.lacks:
        raise Refused(ERR_NO_DATA)
    if di in _CLOCK:
        _write_clock(meter, di, value, operator, at_s)
    elif di in _SETTLEMENT_DAYS:
        _write_settlement_day(meter, di - _SETTLEMENT_DAYS.start, value, operator, at_s)
    elif di in PARAMETERS:
        if len(value) != len(PARAMETERS[di]) or not (di == _ASSET_CODE or is_bcd(value)):
            raise Refused(ERR_OTHER)
        meter.parameters[di] = value
    else:
        raise Refused(ERR_NO_DATA)
    meter.events.add(Event("programming", at_s, operator=operator, detail=programmed(data[:4])))
    return b""


def _write_clock(meter: Dlt645Meter, di: int, value: bytes, operator: bytes, at_s: int) -> None:
    before = second_bytes(meter.clock.local(at_s))
    if len(value) != _CLOCK[di]:
        raise Refused(ERR_OTHER)
    after = {
        0x04000101: before[:3] + value[1:],
        0x04000102: value + before[3:],
        0x0400010C: value[:3] + value[4:],
    }[di]
    try:
        local_s = read_second(after)
    except ValueError:
        raise Refused(ERR_OTHER) from None
    meter.clock.set(at_s, local_s)
    meter.events.add(Event("time_set", at_s, operator=operator, detail=before + after))


def _write_settlement_day(meter: Dlt645Meter, k: int, value: bytes, operator: bytes, at_s: int) -> None:
    """hh DD; 99 99 unsets it. The record keeps the three days as they were."""
    before = b"".join([ITEMS[di](meter, at_s) for di in _SETTLEMENT_DAYS])
    if value == b"\x99\x99":
        meter.settlement_days[k] = None
    elif len(value) == 2 and is_bcd(value) and value[0] <= 0x23 and 1 <= value[1] <= 0x28:
        meter.settlement_days[k] = (int(value[1:].hex()), int(value[:1].hex()))
    else:
        raise Refused(ERR_OTHER)
    meter.memory.settlement_days = tuple(day for day in meter.settlement_days if day)
    meter.events.add(Event("settlement_days", at_s, operator=operator, detail=before))


def new_address(meter: Dlt645Meter, data: bytes) -> bool:
    """15: six address bytes. Whether it was taken; who may not, or asks for nonsense, hears nothing."""
    if len(data) != 6 or not is_bcd(data) or data == BROADCAST or not meter.access.programmable or meter.spec.esam:
        return False
    meter.address = data
    return True


def freeze(meter: Dlt645Meter, data: bytes, at_s: int) -> bytes:
    """16: mm hh DD MM, 99 for every."""
    if len(data) != 4 or not meter.memory.freeze_when(data, at_s):
        raise Refused(ERR_OTHER)
    return b""


def baud(meter: Dlt645Meter, data: bytes, at_s: int) -> bytes:
    """17: one bit for one speed. The answer still goes out at the old one."""
    if len(data) != 1 or data[0] not in BAUDS:
        raise Refused(ERR_BAUD)
    meter.baud = BAUDS[data[0]]
    return data


def password(meter: Dlt645Meter, data: bytes, at_s: int) -> bytes:
    """18: DI (04000C01 for level 0 and so on), old password with its level, new password with its level."""
    old, new = data[4:8], data[8:]
    if len(data) != 12:
        raise Refused(ERR_OTHER)
    if not meter.access.programmable:
        raise Refused(ERR_REFUSED)
    if not new[0] <= 9 or not is_bcd(new) or int.from_bytes(data[:4], "little") != 0x04000C01 + new[0]:
        raise Refused(ERR_OTHER)
    meter.access.change(old, new, at_s)
    return new


def clear_demand(meter: Dlt645Meter, data: bytes, at_s: int) -> bytes:
    """19: password, operator."""
    operator = _authorised(meter, data, WRITE_LEVEL, at_s)
    units, local_s = meter.memory.demand(at_s)
    highest = bcd(units, 3) + (second_bytes(local_s)[1:] if local_s else bytes(5))
    meter.events.add(Event("demand_clear", at_s, operator=operator, detail=highest + bytes(23 * 8)))
    meter.memory.clear_demand(at_s)
    return b""


def clear_meter(meter: Dlt645Meter, data: bytes, at_s: int) -> bytes:
    """1A: password, operator. Counts from zero; remembers nothing but that."""
    operator = _authorised(meter, data, CLEAR_LEVEL, at_s)
    shown = bcd(meter.register.shown(at_s), 4) + bytes(23 * 4)
    meter.clear(at_s)
    meter.events.clear(0xFFFFFFFF, at_s)
    meter.events.add(Event("meter_clear", at_s, operator=operator, detail=shown))
    return b""


def clear_events(meter: Dlt645Meter, data: bytes, at_s: int) -> bytes:
    """1B: password, operator, FFFFFFFF or a kind of event with DI0 FF."""
    operator = _authorised(meter, data[:_SECURED], CLEAR_LEVEL, at_s)
    if len(data) != _SECURED + 4:
        raise Refused(ERR_OTHER)
    meter.events.clear(int.from_bytes(data[_SECURED:], "little"), at_s)
    meter.events.add(Event("event_clear", at_s, operator=operator, detail=data[_SECURED:]))
    return b""


def control(meter: Dlt645Meter, data: bytes, at_s: int) -> bytes:
    """1C: password, operator, N1 the order, N2 00, N3..N8 ss mm hh DD MM YY until when it may be obeyed; zeros, as some
    masters send them, for ever."""
    _authorised(meter, data[:_SECURED], CLEAR_LEVEL, at_s)
    if len(data) != _SECURED + 8 or data[_SECURED + 1]:
        raise Refused(ERR_OTHER)
    until = data[_SECURED + 2 :]
    try:
        over = until != bytes(6) and meter.clock.local(at_s) > read_second(until)
    except ValueError:
        over = True
    if over:
        raise Refused(ERR_OTHER)
    meter.relay.order(data[_SECURED], at_s)
    return b""


ORDERS: dict[int, Order] = {
    0x14: write,
    0x16: freeze,
    0x17: baud,
    0x18: password,
    0x19: clear_demand,
    0x1A: clear_meter,
    0x1B: clear_events,
    0x1C: control,
}

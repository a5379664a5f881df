"""A DL/T 645-1997 meter that answers from a household's truth.

Identifiers of two bytes, registers and values as public 1997 codecs and meters have them. Recorded meters settle what
texts leave open: a real one refuses with 02H an identifier it lacks, with 04H a wrong password, and with 01H a write
it is not ready for. Functions 0A, 0C, 0F and 10 are laid out like those that replaced them in 2007; no recording
shows them.
"""

from __future__ import annotations

from collections.abc import Callable

from simulators import momentary
from simulators.clock import Now
from simulators.dlt645_access import Access
from simulators.dlt645_frame import bcd, build, encoded, wire_address
from simulators.dlt645_memory import MeterClock, MeterMemory, face, read_second, second_bytes
from simulators.dlt645_spec import BROADCAST, MeterSpec, Refused
from simulators.household import DAY_S, Register

__all__ = ["BAUDS", "Dlt645Meter1997"]

ILLEGAL, NO_DATA, NOT_AUTHORISED = 0x01, 0x02, 0x04  # bits of the error word
BAUDS = {0x02: 300, 0x04: 600, 0x08: 1200, 0x10: 2400, 0x20: 4800, 0x40: 9600}
_PASSWORD_LEVEL = 4
_MONTHS_BACK = {0x00: 0, 0x04: 1, 0x08: 2}  # bits 2 and 3 of DI1
_BLOCK = 0x0F  # low half of DI0: total and rates

Item = Callable[["Dlt645Meter1997", int], bytes]


class Dlt645Meter1997:
    """One meter on a line. `answer` is the whole of it: request in, frame or silence out."""

    def __init__(self, spec: MeterSpec, register: Register, now: Now) -> None:
        self.spec = spec
        self.address: bytes = wire_address(spec.address)
        self.baud = spec.baud
        self.parity = spec.parity
        self._now = now
        self.clock = MeterClock(
            int(now()), zone_offset_s=spec.zone_offset_s, error_s=spec.clock_error_s, drift_ppm=spec.clock_drift_ppm
        )
        self.memory = MeterMemory(register, self.clock, step_s=spec.step_min * 60, depth_days=0, freeze_days=0)
        self.access = Access(spec)
        self.parameters = dict(_PARAMETERS)
        self._fixed: dict[int, int | tuple[int, ...] | bytes] = {}
        self._lacks = frozenset(int(di, 16) for di in spec.lacks)
        self._set_on_day = -1
        self._last = b""  # the data field answered last, for 03
        self._last_more = 0
        self._rest: tuple[bytes, bytes] | None = None  # DI and what is left of a long answer

    @property
    def register(self) -> Register:
        """What it counts."""
        return self.memory.register

    def set_value(self, di: str, value: int | tuple[int, ...] | bytes) -> None:
        """From now on the meter says this for `di` (four hex digits), whatever is true: a number in steps of its last
        digit, the numbers of a block, or the bytes as sent."""
        self._fixed[int(di, 16)] = value

    def press_key(self, pressed: bool = True) -> None:
        """Hold its programming key down, or let it go."""
        self.access.key_pressed = pressed

    # -- who answers ---------------------------------------------------------------------------------------------

    def hears(self, address: bytes) -> bool:
        """Whether a frame to `address` is for this meter: its own, or AA in all leading pairs."""
        known = address.rstrip(b"\xaa")
        return address == self.address or (len(known) < 6 and self.address.startswith(known))

    def answer(self, address: bytes, control: int, data: bytes) -> bytes | None:
        """The answer frame, or None for silence."""
        at_s = int(self._now())
        if address == BROADCAST:
            if control == 0x08:
                self._set_by_broadcast(data, at_s)
            if not self.spec.hears_99 or control not in (0x01, 0x04):
                return None
        elif not self.hears(address):
            return None
        try:
            if control == 0x0A:
                return build(self.address, 0x8A, b"", self.spec.preamble) if self._new_address(data) else None
            more, body = self._obey(control, data, at_s)
        except Refused as no:
            return build(self.address, 0xC0 | control, bytes((no.err,)), self.spec.preamble)
        return None if body is None else build(self.address, 0x80 | control | more, body, self.spec.preamble)

    def _obey(self, control: int, data: bytes, at_s: int) -> tuple[int, bytes | None]:
        """D5 and the data field of the answer; None for a function there is none of."""
        if control in (0x01, 0x02, 0x03):
            return self._read(control, data, at_s)
        order = _ORDERS.get(control)
        return 0, order(self, data, at_s) if order else None

    # -- reading -------------------------------------------------------------------------------------------------

    def _read(self, control: int, data: bytes, at_s: int) -> tuple[int, bytes]:
        """01 read, 02 what is left, 03 the last answer again."""
        if control == 0x01:
            if len(data) != 2:
                raise Refused(NO_DATA)
            self._rest = (data, self._item(data[1] << 8 | data[0], at_s))
        elif control == 0x02 and (self._rest is None or self._rest[0] != data):
            raise Refused(NO_DATA)
        if control != 0x03 and self._rest is not None:
            di, rest = self._rest
            most = self.spec.frame_bytes - len(di)
            self._last, left = di + rest[:most], rest[most:]
            self._rest = (di, left) if left else None
            self._last_more = 0x20 if left else 0
        if not self._last:
            raise Refused(NO_DATA)
        return self._last_more, self._last

    def _item(self, di: int, at_s: int) -> bytes:
        """Everything there is under one identifier, the AA after a block included."""
        if di in self._lacks:
            raise Refused(NO_DATA)
        group = di >> 12
        if di in self._fixed:
            body = encoded(self._fixed[di], 2 if group == 0xB else 4)
        elif group == 0x9:
            body = self._energy(di, at_s)
        elif di in _ITEMS:
            body = _ITEMS[di](self, at_s)
        elif di in self.parameters:
            body = self.parameters[di]
        else:
            raise Refused(NO_DATA)
        return body + b"\xaa" * (self.spec.block_end and group in (0x9, 0xB) and di & 0x0F == _BLOCK)

    def _energy(self, di: int, at_s: int) -> bytes:
        """90 now, 94 a month back, 98 two; 91, 95, 99 reactive. DI0: which energy, then 0 total, 1..4 rates, F all."""
        kind, which, rate = di >> 8 & 0x0F, di >> 4 & 0x0F, di & 0x0F
        back = _MONTHS_BACK.get(kind & 0x0C)
        known = 1 <= which <= 6 if kind & 1 else which <= 2
        if kind & 2 or back is None or not known or (rate > 4 and rate != _BLOCK):
            raise Refused(NO_DATA)
        if back:
            local_s = self.memory.settlement_local_s(back, at_s)
            if local_s is None:
                return bytes(4 * (5 if rate == _BLOCK else 1))
            at_s = self.clock.instant(local_s)
        values = [self.register.shown(at_s), *self.register.shown_rates(at_s)]
        counts = (
            which in (1, 3) if kind & 1 else which in (0, 1)
        )  # forward reactive, all of it in QI; combined, forward
        scaled = [0 if not counts else value * 3 // 10 if kind & 1 else value for value in values]
        return b"".join([bcd(value, 4) for value in (scaled if rate == _BLOCK else [scaled[rate]])])

    # -- writing -------------------------------------------------------------------------------------------------

    def _authorise(self, given: bytes, at_s: int) -> None:
        self.access.check(given, _PASSWORD_LEVEL, at_s)
        if not self.access.programmable:
            raise Refused(ILLEGAL)

    def write(self, data: bytes, at_s: int) -> bytes:
        """04: DI, password with its level, value."""
        self._authorise(data[2:6], at_s)
        di, value = data[1] << 8 | data[0], data[6:]
        if di in (0xC010, 0xC011):
            self._write_clock(di, value, at_s)
        elif di in self.parameters and di not in self._lacks:
            if len(value) != len(self.parameters[di]) or not value.hex().isdecimal():
                raise Refused(ILLEGAL)
            self.parameters[di] = value
        else:
            raise Refused(NO_DATA)
        return b""

    def _write_clock(self, di: int, value: bytes, at_s: int) -> None:
        """WW DD MM YY, or ss mm hh."""
        if len(value) != (4 if di == 0xC010 else 3):
            raise Refused(ILLEGAL)
        now = second_bytes(self.clock.local(at_s))
        try:
            local_s = read_second(now[:3] + value[1:] if di == 0xC010 else value + now[3:])
        except ValueError:
            raise Refused(ILLEGAL) from None
        self.clock.set(at_s, local_s)

    def _set_by_broadcast(self, data: bytes, at_s: int) -> None:
        """08: ss mm hh DD MM YY, taken once a day and up to five minutes off."""
        try:
            local_s = read_second(data)
        except ValueError:
            return
        if local_s // DAY_S != self._set_on_day and abs(local_s - self.clock.local(at_s)) <= 300:
            self.clock.set(at_s, local_s)
            self._set_on_day = local_s // DAY_S

    def _new_address(self, data: bytes) -> bool:
        """0A: whether it was taken."""
        if len(data) != 6 or not data.hex().isdecimal() or data == BROADCAST or not self.access.programmable:
            return False
        self.address = data
        return True

    def change_baud(self, data: bytes, at_s: int) -> bytes:
        """0C: one bit for one speed, by the table of 1997. The answer still goes out at the old one."""
        if len(data) != 1 or data[0] not in BAUDS:
            raise Refused(ILLEGAL)
        self.baud = BAUDS[data[0]]
        return data

    def change_password(self, data: bytes, at_s: int) -> bytes:
        """0F: old password with its level, new password with its level."""
        if len(data) != 8 or data[4] > 9 or not data.hex().isdecimal():
            raise Refused(ILLEGAL)
        self.access.change(data[:4], data[4:], at_s)
        return data[4:]

    def clear_demand(self, data: bytes, at_s: int) -> bytes:
        """10: password with its level."""
        self._authorise(data, at_s)
        self.memory.clear_demand(at_s)
        return b""


_ORDERS: dict[int, Callable[[Dlt645Meter1997, bytes, int], bytes]] = {
    0x04: Dlt645Meter1997.write,
    0x0C: Dlt645Meter1997.change_baud,
    0x0F: Dlt645Meter1997.change_password,
    0x10: Dlt645Meter1997.clear_demand,
}


def _measure(
    base: int, value: Callable[[Register, int], int], size: int, *, scale: int, total: bool
) -> dict[int, Item]:
    """Total if there is one, phases A to C and the block; a phase that is not wired shows zero."""

    def one(meter: Dlt645Meter1997, at_s: int) -> bytes:
        return bcd(value(meter.register, at_s) // scale, size)

    def block(meter: Dlt645Meter1997, at_s: int) -> bytes:
        return one(meter, at_s) * (1 + total) + bytes(2 * size)

    items: dict[int, Item] = {base | 1: one, base | 2: lambda meter, at_s: bytes(size), base | _BLOCK: block}
    items[base | 3] = items[base | 2]
    return items | {base: one} if total else items


def _demand(meter: Dlt645Meter1997, at_s: int) -> bytes:
    return bcd(meter.memory.demand(at_s)[0], 3)


def _demand_time(meter: Dlt645Meter1997, at_s: int) -> bytes:
    """mm HH DD MM; zeros if there was none yet."""
    local_s = meter.memory.demand(at_s)[1]
    return second_bytes(local_s)[1:5] if local_s else bytes(4)


def _date(meter: Dlt645Meter1997, at_s: int) -> bytes:
    """WW DD MM YY; Sunday is 00."""
    now = face(meter.clock.local(at_s))
    return bytes((now.isoweekday() % 7,)) + bytes.fromhex(now.strftime("%d%m%y"))


_ITEMS: dict[int, Item] = {
    **_measure(0xB610, momentary.voltage, 2, scale=10, total=False),  # XXX V
    **_measure(0xB620, momentary.current, 2, scale=10, total=False),  # XX.XX A
    **_measure(0xB630, momentary.active, 3, scale=1, total=True),  # XX.XXXX kW
    **_measure(0xB640, momentary.reactive, 2, scale=100, total=True),  # XX.XX kvar
    **_measure(0xB650, momentary.power_factor, 2, scale=1, total=True),  # X.XXX
    0xA010: _demand,
    0xB010: _demand_time,
    0xC010: _date,
    0xC011: lambda meter, at_s: second_bytes(meter.clock.local(at_s))[:3],
    0xC020: lambda meter, at_s: b"\x00",
    0xC030: lambda meter, at_s: bytes.fromhex("001600"),  # 1600 impulses a kWh
    0xC032: lambda meter, at_s: meter.address,
}

# What can be written and is only kept (function 04), as delivered.
_PARAMETERS: dict[int, bytes] = {
    0xC033: bytes(6),  # customer number
    0xC034: bytes(6),  # device code
    0xC111: b"\x15",  # demand period, minutes
    0xC112: b"\x01",  # sliding interval
    0xC117: b"\x00\x01",  # automatic reading at hh DD
}

"""A DL/T 645-2007 meter that answers from a household's truth.

Clauses are those of the standard; what it does not hold (0610 curves, freezes 0504 and 0506, relay) follows the
supplement as public meter firmware has it. The number of points or blocks N in a load request is binary, as masters in
the field send it.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulators.clock import Now
from simulators.dlt645_access import Access
from simulators.dlt645_events import HAPPENINGS, Event, EventLog
from simulators.dlt645_frame import bcd, build, encoded, wire_address
from simulators.dlt645_items import ITEMS, PARAMETERS, demand_bytes, size_of
from simulators.dlt645_memory import MeterClock, MeterMemory, minute_bytes, read_face
from simulators.dlt645_orders import ORDERS, broadcast, new_address
from simulators.dlt645_relay import Relay
from simulators.dlt645_spec import (
    BROADCAST,
    ERR_NO_DATA,
    ERR_OTHER,
    ERR_REFUSED,
    FORMS,
    MeterSpec,
    Refused,
)
from simulators.household import Register

__all__ = ["ERR_NO_DATA", "ERR_OTHER", "ERR_REFUSED", "FORMS", "Dlt645Meter", "MeterSpec"]


@dataclass(slots=True)
class _Rest:
    """What is left of a long answer: pieces by SEQ from 1."""

    di: bytes
    pieces: list[bytes]
    sent: int = 0


class Dlt645Meter:
    """One meter on a line. `answer` is the whole of it: request in, frame or silence out."""

    def __init__(self, spec: MeterSpec, register: Register, now: Now) -> None:
        self.spec = spec
        self.address: bytes = wire_address(spec.address)
        self.baud = spec.baud
        self.parity = spec.parity
        self._now = now
        self.clock = MeterClock(
            int(now()),
            zone_offset_s=spec.zone_offset_s,
            error_s=spec.clock_error_s,
            drift_ppm=spec.clock_drift_ppm,
        )
        self.memory = MeterMemory(
            register,
            self.clock,
            step_s=spec.step_min * 60,
            depth_days=spec.memory_days,
            freeze_days=spec.freeze_days,
            reactive_percent=spec.reactive_percent,
        )
        self.access = Access(spec)
        self.relay = Relay(delay_s=spec.relay_delay_s, stuck=spec.relay == "stuck")
        self.events = EventLog(self.clock.local, lambda: self.register, spec.reactive_percent)
        self.parameters = dict(PARAMETERS)
        self.settlement_days: list[tuple[int, int] | None] = [(1, 0), None, None]
        self.set_on_day = -1
        self._fixed: dict[int, int | tuple[int, ...] | bytes] = {}
        self._lacks = frozenset(int(di, 16) for di in spec.lacks)
        self._rest: _Rest | None = None

    @property
    def register(self) -> Register:
        """What it counts."""
        return self.memory.register

    # -- for whoever runs the meter --------------------------------------------------------------------------------

    def set_value(self, di: str, value: int | tuple[int, ...] | bytes) -> None:
        """From now on the meter says this for `di` (eight hex digits), whatever is true: a number in steps of its last
        digit, the numbers of a block, or the bytes as sent."""
        self._fixed[int(di, 16)] = value

    def happen(self, kind: str, start_s: int, end_s: int | None = None) -> None:
        """Let `power_loss`, `cover_open` or `terminal_cover_open` befall the meter, in the past or to come. Without
        supply it says nothing."""
        if kind not in HAPPENINGS:
            raise ValueError(f"{kind!r} is none of {', '.join(HAPPENINGS)}")
        self.events.add(Event(kind, start_s, end_s))

    def press_key(self, pressed: bool = True) -> None:
        """Hold its programming key down, or let it go."""
        self.access.key_pressed = pressed

    def press_button(self) -> None:
        """The customer's button: closes the relay if that is permitted."""
        self.relay.press_button(int(self._now()))

    def clear(self, at_s: int) -> None:
        """Count from zero, remember nothing. What the household used stays true; only this meter no longer shows it."""
        self.memory.clear(at_s)
        self._rest = None

    # -- who answers ---------------------------------------------------------------------------------------------

    def hears(self, address: bytes) -> bool:
        """Whether a frame to `address` is for this meter: its own, or AA in all leading pairs (clause 5.2)."""
        if address == self.address:
            return True
        known = address.rstrip(b"\xaa")
        return len(known) < 6 and self.address.startswith(known)

    def answer(self, address: bytes, control: int, data: bytes) -> bytes | None:
        """The answer frame, or None for silence."""
        at_s = int(self._now())
        if self.events.dark(at_s):
            return None
        if address == BROADCAST:
            broadcast(self, control, data, at_s)
            return None
        if control & 0xE0 or not self.hears(address):
            return None
        if control == 0x15:
            return self._frame(0x95) if new_address(self, data) else None
        try:
            more, body = self._obey(control, data, at_s)
        except Refused as no:
            return self._frame(0xC0 | control, bytes((no.err,)))
        return None if body is None else self._frame(0x80 | control | more, body)

    def _obey(self, control: int, data: bytes, at_s: int) -> tuple[int, bytes | None]:
        """D5 and the data field of the answer; None for a function there is none of."""
        if control == 0x11:
            return self._read(data, at_s)
        if control == 0x12:
            return self._follow(data)
        if control == 0x13:
            return 0, self.address
        order = ORDERS.get(control)
        return 0, order(self, data, at_s) if order else None

    def _frame(self, control: int, data: bytes = b"") -> bytes:
        return build(self.address, control, data, self.spec.preamble)

    # -- reading -------------------------------------------------------------------------------------------------

    def _read(self, data: bytes, at_s: int) -> tuple[int, bytes]:
        """D5 (20H if more follows) and the data field of the answer to 11H."""
        self._rest = None
        if len(data) < 4:
            raise Refused(ERR_OTHER)
        di, group = data[:4], data[3]
        number = int.from_bytes(di, "little")
        if number in self._lacks:
            raise Refused(ERR_NO_DATA)
        if group == 0x06 and number not in self._fixed:
            return self._load(di, data[4:], at_s)
        if len(data) != 4:
            raise Refused(ERR_OTHER)
        return self._split(di, b"", [self._item(number, at_s)])

    def _item(self, number: int, at_s: int) -> bytes:
        """Everything there is under one identifier."""
        group = number >> 24
        if number in self._fixed:
            return encoded(self._fixed[number], size_of(number))
        if group == 0x00:
            return self._energy(number >> 16 & 0xFF, number >> 8 & 0xFF, number & 0xFF, at_s)
        if number >> 8 == 0x010100 and 1 <= number & 0xFF <= 12:
            return demand_bytes(*self.memory.settled_demand(number & 0xFF, at_s))
        if group == 0x03:
            return self.events.read(number, at_s)
        if group == 0x05:
            return self._freeze(number >> 16 & 0xFF, number >> 8 & 0xFF, number & 0xFF, at_s)
        item = ITEMS.get(number)
        if item is None:
            raise Refused(ERR_NO_DATA)
        return item(self, at_s)

    def _energy(self, kind: int, rate: int, n: int, at_s: int) -> bytes:
        """00 kk rr nn: kind, rate 00 total, 01..04, FF all; nn 00 now, 01..0C settlements, FF all thirteen."""
        if kind > 0x05 or (rate > 4 and rate != 0xFF) or (n > 12 and n != 0xFF) or (rate == n == 0xFF):
            raise Refused(ERR_NO_DATA)
        values = []
        for k in range(13) if n == 0xFF else (n,):
            values += self._energies(kind, rate, k, at_s)
        return b"".join([bcd(value, 4) for value in values])

    def _energies(self, kind: int, rate: int, n: int, at_s: int) -> list[int]:
        wanted = range(5) if rate == 0xFF else (rate,)
        if n:
            local_s = self.memory.settlement_local_s(n, at_s)
            if local_s is None:
                return [0] * len(wanted)
            at_s = self.clock.instant(local_s)
        return self._shown(kind, at_s, wanted)

    def _shown(self, kind: int, at_s: int, wanted: range | tuple[int, ...]) -> list[int]:
        """Totals and rates: 0 combined and 1 forward as registered, reactive 3 and 5 a share of it, nothing else."""
        if kind not in (0, 1, 3, 5):
            return [0] * len(wanted)
        values = [self.register.shown(at_s)]
        if wanted != (0,):
            values += self.register.shown_rates(at_s)
        percent = 100 if kind in (0, 1) else self.spec.reactive_percent
        scaled = [value * percent // 100 for value in values]
        return [scaled[k] for k in wanted]

    def _freeze(self, kind: int, item: int, n: int, at_s: int) -> bytes:
        """05 tt kk nn: the n-th last timed (00), commanded (01), hourly (04), daily (06) freeze; kk 00 time, 01
        forward, 02 reverse, FF these three, AA between; 03, 04 combined reactive, 05 to 08 by quadrant. Hourly ones
        hold the first three only, and totals."""
        frozen_s = self._frozen_s(kind, n, at_s)
        reactive = 0x03 <= item <= 0x08 and kind != 0x04
        if frozen_s is None or not (reactive or item in (0x00, 0x01, 0x02, 0xFF)):
            raise Refused(ERR_NO_DATA)
        wanted = range(1 if kind == 0x04 else 5)
        if reactive:
            return b"".join([bcd(value, 4) for value in self._shown(item, frozen_s, wanted)])
        parts = {
            0x00: minute_bytes(self.clock.local(frozen_s)),
            0x01: b"".join([bcd(value, 4) for value in self._shown(1, frozen_s, wanted)]),
            0x02: bytes(4 * len(wanted)),
        }
        return b"\xaa".join(parts.values()) if item == 0xFF else parts[item]

    def _frozen_s(self, kind: int, n: int, at_s: int) -> int | None:
        """The instant of a freeze, None if there is none such."""
        if kind == 0x01:
            return self.memory.instants[n - 1] if 1 <= n <= len(self.memory.instants) else None
        held = {0x00: self.memory.timed_local_s, 0x04: self.memory.hour_local_s, 0x06: self.memory.freeze_local_s}
        local_s = held[kind](n, at_s) if kind in held else None
        return None if local_s is None else self.clock.instant(local_s)

    # -- load profile --------------------------------------------------------------------------------------------

    def _load(self, di: bytes, asked: bytes, at_s: int) -> tuple[int, bytes]:
        """06 .. ..: which grid points, in which shape; what does not fit waits for 12H."""
        curve = _CURVES.get(int.from_bytes(di, "little"))
        if curve is None or self.spec.form != curve.form:
            raise Refused(ERR_NO_DATA)
        span = self._asked_span(curve.start, asked, at_s)
        if span is None or not curve.kind:
            return 0, di
        first_s, count = span
        head = minute_bytes(first_s) if curve.form == "0610" else b""
        return self._split(di, head, self.memory.points(curve.kind, first_s, count))

    def _asked_span(self, start: str, asked: bytes, at_s: int) -> tuple[int, int] | None:
        """First grid point (local seconds) and how many; None if none is held."""
        if len(asked) != (6 if start == "time" else 1) and not (start == "latest" and not asked):
            raise Refused(ERR_OTHER)
        count = asked[0] if asked else 1
        step_s = self.memory.step_s
        first_s, last_s = self.memory.span(at_s)
        if start == "time":
            try:
                first_s = max(first_s, -(-read_face(asked[1:]) // step_s) * step_s)
            except ValueError:
                raise Refused(ERR_OTHER) from None
        elif start == "latest":
            first_s = max(first_s, last_s - (count - 1) * step_s)
        count = min(count, (last_s - first_s) // step_s + 1)
        return (first_s, count) if count > 0 else None

    def _split(self, di: bytes, head: bytes, points: list[bytes]) -> tuple[int, bytes]:
        """Whole points only, and a single long one in parts; the first frame carries `head`, those after it SEQ."""
        most = self.spec.frame_bytes
        first_most, later_most = most - len(di) - len(head), most - len(di) - 1
        if len(points) == 1 and len(points[0]) > first_most:
            points = [points[0][at : at + 1] for at in range(len(points[0]))]
        size = len(points[0]) if points else 0
        if not size or len(points) * size <= first_most:
            return 0, di + head + b"".join(points)
        first, later = first_most // size, later_most // size
        rest = [b"".join(points[at : at + later]) for at in range(first, len(points), later)]
        self._rest = _Rest(di, rest)
        return 0x20, di + head + b"".join(points[:first])

    def _follow(self, data: bytes) -> tuple[int, bytes]:
        rest = self._rest
        if len(data) != 5:
            raise Refused(ERR_OTHER)
        if rest is None or rest.di != data[:4]:
            raise Refused(ERR_NO_DATA)
        seq = data[4]
        index = seq - 1 if self.spec.followup == "by_seq" else rest.sent
        if not 0 <= index < len(rest.pieces):
            raise Refused(ERR_NO_DATA)
        rest.sent = index + 1
        more = 0x20 if index + 1 < len(rest.pieces) else 0
        return more, rest.di + rest.pieces[index] + bytes((seq,))


@dataclass(frozen=True, slots=True)
class _Curve:
    """form: which meters hold it. kind: of MeterMemory.points, empty if the class is never stored."""

    form: str
    kind: str
    start: str


_CURVES = {
    0x06100601: _Curve("0610", "forward", "time"),
    0x06100602: _Curve("0610", "reverse", "time"),
    0x061006FF: _Curve("0610", "block", "time"),
    **{
        0x06000000 | cls << 16 | mode: _Curve("record", "record" if cls in (0, 4) else "", start)
        for cls in range(7)
        for mode, start in ((0, "earliest"), (1, "time"), (2, "latest"))
    },
}

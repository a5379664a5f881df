"""A DL/T 645-2007 meter that answers from a household's truth.

Clauses are those of the standard; what it does not hold (0610 curves, daily freeze 0506) follows the supplement as
public meter firmware has it. The number of points or blocks N in a load request is binary, as masters in the field
send it. Writes, control and resets are refused with ERR 04H (not authorised): it is a meter to be read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from simulators.clock import Now
from simulators.dlt645_frame import bcd, build, wire_address
from simulators.dlt645_memory import MeterClock, MeterMemory, face, minute_bytes, read_face
from simulators.household import DAY_S, Register

__all__ = ["ERR_NO_DATA", "ERR_OTHER", "ERR_REFUSED", "FORMS", "Dlt645Meter", "MeterSpec"]

FORMS = ("0610", "record")
ERR_OTHER, ERR_NO_DATA, ERR_REFUSED, ERR_BAUD = 0x01, 0x02, 0x04, 0x08
_BROADCAST = b"\x99" * 6
_DATA_BYTES = 200  # the longest data field of an answer
_REFUSALS = {
    0x14: ERR_REFUSED,
    0x16: ERR_REFUSED,
    0x17: ERR_BAUD,
    0x18: ERR_REFUSED,
    0x19: ERR_REFUSED,
    0x1A: ERR_REFUSED,
    0x1B: ERR_REFUSED,
    0x1C: ERR_REFUSED,
}
_PHASE_MISSING = {2: b"\xff\xff", 3: b"\xff\xff\xff"}


@dataclass(frozen=True, slots=True)
class MeterSpec:
    """address: 12 digits. form: where its load profile is, `0610` or `record` (appendix B, class 4 stored).
    preamble: FE before an answer, 0..4. clock_error_s, clock_drift_ppm: how wrong its clock is.
    followup: `by_seq` sends what SEQ asks for again; `next` ignores SEQ and sends the next piece, once."""

    address: str
    step_min: int = 15
    form: str = "0610"
    memory_days: int = 62
    freeze_days: int = 62
    preamble: int = 4
    zone_offset_s: int = 28_800
    clock_error_s: int = 0
    clock_drift_ppm: int = 0
    followup: str = "by_seq"


class _Refused(Exception):
    """The meter says no, with this error word."""

    def __init__(self, err: int) -> None:
        super().__init__(err)
        self.err = err


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
        self.address = wire_address(spec.address)
        self.register = register
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
        )
        self._rest: _Rest | None = None
        self._set_on_day = -1

    def hears(self, address: bytes) -> bool:
        """Whether a frame to `address` is for this meter: its own, or AA in all leading pairs (clause 5.2)."""
        if address == self.address:
            return True
        known = address.rstrip(b"\xaa")
        return len(known) < 6 and self.address.startswith(known)

    def answer(self, address: bytes, control: int, data: bytes) -> bytes | None:
        """The answer frame, or None for silence."""
        if address == _BROADCAST:
            if control == 0x08:
                self._set_clock(data)
            return None
        if control & 0xE0 or not self.hears(address):
            return None
        try:
            if control == 0x11:
                more, body = self._read(data)
                return self._frame(0x91 | more, body)
            if control == 0x12:
                more, body = self._follow(data)
                return self._frame(0x92 | more, body)
            if control == 0x13:
                return self._frame(0x93, self.address)
            if control in _REFUSALS:
                raise _Refused(_REFUSALS[control])
        except _Refused as no:
            return self._frame(0xC0 | control, bytes((no.err,)))
        return None

    def _frame(self, control: int, data: bytes) -> bytes:
        return build(self.address, control, data, self.spec.preamble)

    def _set_clock(self, data: bytes) -> None:
        """Broadcast time ss mm hh DD MM YY: taken once a day and up to five minutes off (clause 7.6)."""
        try:
            local_s = read_face(data[1:6]) + int(f"{data[0]:02x}")
        except (ValueError, IndexError):
            return
        at_s = int(self._now())
        if abs(local_s - self.clock.local(at_s)) <= 300 and local_s // DAY_S != self._set_on_day:
            self.clock.set(at_s, local_s)
            self._set_on_day = local_s // DAY_S

    # -- reading -------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> tuple[int, bytes]:
        """D5 (20H if more follows) and the data field of the answer to 11H."""
        self._rest = None
        if len(data) < 4:
            raise _Refused(ERR_OTHER)
        di, group = data[:4], data[3]
        at_s = int(self._now())
        if group == 0x06:
            return self._load(di, data[4:], at_s)
        if len(data) != 4:
            raise _Refused(ERR_OTHER)
        number = int.from_bytes(di, "little")
        if group == 0x00:
            return 0, di + self._energy(data[2], data[1], data[0], at_s)
        if group == 0x05:
            return 0, di + self._freeze(data[2], data[1], data[0], at_s)
        item = _ITEMS.get(number)
        if item is None:
            raise _Refused(ERR_NO_DATA)
        return 0, di + item(self, at_s)

    def _energy(self, kind: int, rate: int, n: int, at_s: int) -> bytes:
        """00 kk rr nn: kind, rate 00 total, 01..04, FF all; nn 00 now, 01..0C settlements, FF all thirteen."""
        if kind > 0x05 or (rate > 4 and rate != 0xFF) or (n > 12 and n != 0xFF) or (rate == n == 0xFF):
            raise _Refused(ERR_NO_DATA)
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
        """Totals and rates: 0 combined and 1 forward as registered, 3 and 5 three tenths of it, nothing else."""
        if kind not in (0, 1, 3, 5):
            return [0] * len(wanted)
        values = [self.register.shown(at_s)]
        if wanted != (0,):
            values += self.register.shown_rates(at_s)
        scaled = values if kind in (0, 1) else [value * 3 // 10 for value in values]
        return [scaled[k] for k in wanted]

    def _freeze(self, kind: int, item: int, n: int, at_s: int) -> bytes:
        """05 06 kk nn: the n-th last midnight; kk 00 time, 01 forward, 02 reverse, FF these three, AA between."""
        local_s = self.memory.freeze_local_s(n, at_s) if kind == 0x06 else None
        if local_s is None or item not in (0x00, 0x01, 0x02, 0xFF):
            raise _Refused(ERR_NO_DATA)
        forward = self._shown(1, self.clock.instant(local_s), range(5)) if item in (0x01, 0xFF) else []
        parts = {
            0x00: minute_bytes(local_s),
            0x01: b"".join([bcd(value, 4) for value in forward]),
            0x02: bytes(20),
        }
        return b"\xaa".join(parts.values()) if item == 0xFF else parts[item]

    # -- load profile --------------------------------------------------------------------------------------------

    def _load(self, di: bytes, asked: bytes, at_s: int) -> tuple[int, bytes]:
        """06 .. ..: which grid points, in which shape; what does not fit waits for 12H."""
        curve = _CURVES.get(int.from_bytes(di, "little"))
        if curve is None or self.spec.form != curve.form:
            raise _Refused(ERR_NO_DATA)
        span = self._asked_span(curve.start, asked, at_s)
        if span is None or not curve.kind:
            return 0, di
        first_s, count = span
        head = minute_bytes(first_s) if curve.form == "0610" else b""
        return self._split(di, head, self.memory.points(curve.kind, first_s, count))

    def _asked_span(self, start: str, asked: bytes, at_s: int) -> tuple[int, int] | None:
        """First grid point (local seconds) and how many; None if none is held."""
        if len(asked) != (6 if start == "time" else 1) and not (start == "latest" and not asked):
            raise _Refused(ERR_OTHER)
        count = asked[0] if asked else 1
        step_s = self.memory.step_s
        first_s, last_s = self.memory.span(at_s)
        if start == "time":
            try:
                first_s = max(first_s, -(-read_face(asked[1:]) // step_s) * step_s)
            except ValueError:
                raise _Refused(ERR_OTHER) from None
        elif start == "latest":
            first_s = max(first_s, last_s - (count - 1) * step_s)
        count = min(count, (last_s - first_s) // step_s + 1)
        return (first_s, count) if count > 0 else None

    def _split(self, di: bytes, head: bytes, points: list[bytes]) -> tuple[int, bytes]:
        """Whole points only; the first frame carries `head`, the ones after it DI and SEQ."""
        size = len(points[0])
        first = (_DATA_BYTES - len(di) - len(head)) // size
        later = (_DATA_BYTES - len(di) - 1) // size
        rest = [b"".join(points[at : at + later]) for at in range(first, len(points), later)]
        self._rest = _Rest(di, rest) if rest else None
        return (0x20 if rest else 0), di + head + b"".join(points[:first])

    def _follow(self, data: bytes) -> tuple[int, bytes]:
        rest = self._rest
        if len(data) != 5:
            raise _Refused(ERR_OTHER)
        if rest is None or rest.di != data[:4]:
            raise _Refused(ERR_NO_DATA)
        seq = data[4]
        index = seq - 1 if self.spec.followup == "by_seq" else rest.sent
        if not 0 <= index < len(rest.pieces):
            raise _Refused(ERR_NO_DATA)
        rest.sent = index + 1
        more = 0x20 if index + 1 < len(rest.pieces) else 0
        return more, rest.di + rest.pieces[index] + bytes((seq,))

    # -- momentary values ----------------------------------------------------------------------------------------

    def voltage(self, at_s: int) -> int:
        """0.1 V, another one each minute, 217.0 to 223.0."""
        return 2170 + (at_s // 60 * 40_503 + self.register.household.load.seed * 9_176) % 61

    def power_factor(self, at_s: int) -> int:
        """Thousandths, 0.930 to 0.989, another one each slot."""
        return 930 + (at_s // 300 * 7_919 + self.register.household.load.seed * 31) % 60

    def active(self, at_s: int) -> int:
        """0.0001 kW, what the household draws."""
        return self.register.household.power_units(at_s)

    def apparent(self, at_s: int) -> int:
        """0.0001 kVA."""
        return self.active(at_s) * 1000 // self.power_factor(at_s)

    def reactive(self, at_s: int) -> int:
        """0.0001 kvar, the third side of the triangle."""
        return _root(self.apparent(at_s) ** 2 - self.active(at_s) ** 2)

    def current(self, at_s: int) -> int:
        """0.001 A: apparent power over voltage."""
        return self.apparent(at_s) * 1000 // self.voltage(at_s)


def _root(square: int) -> int:
    """Whole square root, floored."""
    guess = square
    while guess * guess > square:
        guess = (guess + square // guess) // 2
    return guess


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

_Item = Callable[[Dlt645Meter, int], bytes]


def _phases(value: Callable[[Dlt645Meter, int], int], size: int, *, total: bool) -> _Item:
    """A block of a single-phase meter: total if there is one, phase A, and FF for the phases not wired."""

    def item(meter: Dlt645Meter, at_s: int) -> bytes:
        return bcd(value(meter, at_s), size) * (1 + total) + _PHASE_MISSING[size] * 2

    return item


def _momentary(kind: int, value: Callable[[Dlt645Meter, int], int], size: int, *, total: bool) -> dict[int, _Item]:
    """02 kk pp 00 for total (pp 00), phases 01..03 and the block FF."""
    base = 0x02000000 | kind << 16
    items: dict[int, _Item] = {
        base | 0x0100: lambda meter, at_s: bcd(value(meter, at_s), size),
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


def _demand(meter: Dlt645Meter, at_s: int) -> bytes:
    """XX.XXXX kW and when (mm hh DD MM YY); zeros if there was none yet."""
    units, local_s = meter.memory.demand(at_s)
    return bcd(units, 3) + (minute_bytes(local_s) if local_s else bytes(5))


def _constant(raw: bytes) -> _Item:
    return lambda meter, at_s: raw


_ITEMS: dict[int, _Item] = {
    **_momentary(0x01, Dlt645Meter.voltage, 2, total=False),
    **_momentary(0x02, Dlt645Meter.current, 3, total=False),
    **_momentary(0x03, Dlt645Meter.active, 3, total=True),
    **_momentary(0x04, Dlt645Meter.reactive, 3, total=True),
    **_momentary(0x05, Dlt645Meter.apparent, 3, total=True),
    **_momentary(0x06, Dlt645Meter.power_factor, 2, total=True),
    0x01010000: _demand,
    0x02800002: lambda meter, at_s: bcd(4995 + at_s // 10 % 11, 2),  # 49.95 to 50.05 Hz
    0x02800007: lambda meter, at_s: bcd(180 + at_s // 600 % 90, 2),  # 18.0 to 26.9 degrees Celsius
    0x04000101: _week_and_date,
    0x04000102: _time,
    0x0400010C: lambda meter, at_s: _time(meter, at_s) + _week_and_date(meter, at_s),
    0x04000204: _constant(b"\x04"),
    0x04000401: lambda meter, at_s: meter.address,
    0x04000402: lambda meter, at_s: meter.address,
    0x04000503: _constant(b"\x00\x00"),  # relay closed, main supply
    0x040005FF: _constant(bytes(14)),
    0x04000901: _constant(b"\x08"),  # load record keeps class 4, energies
    **{0x04000500 | word: _constant(b"\x00\x00") for word in (1, 2, 4, 5, 6, 7)},
    **{0x04000B00 | k: _constant(raw) for k, raw in ((1, b"\x00\x01"), (2, b"\x99\x99"), (3, b"\x99\x99"))},
}

"""A Modbus slave that measures a household: registers by a map, computed when they are read.

Source: Modbus Application Protocol 1.1b3, clauses 6 (functions) and 7 (exceptions), 6.21 (device identification).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import MappingProxyType

from simulators.clock import Now
from simulators.modbus_codec import encode, resolution, words_of
from simulators.modbus_truth import Truth

__all__ = ["Area", "Identity", "ModbusMeter", "ModbusSpec", "Point"]

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
_READS = (3, 4)
_HALF = bytes(2)


@dataclass(frozen=True, slots=True)
class Point:
    """One quantity in registers. scale: how much of the quantity's unit one step is; with `factor_at` the power of ten
    in that register comes on top; offset: what the number zero stands for. primary: counted on the primary side of the
    transformers. missing: plain bytes that stand for no value. empty: it never has one. wrap: the counter's first
    number that is not shown any more, in steps; 0 where only the type limits it. words: of `mod10`."""

    name: str
    function: int
    address: int
    kind: str
    scale: Fraction = Fraction(1)
    word_order: str = "big"
    byte_order: str = "big"
    factor_at: int | None = None
    primary: bool = True
    missing: bytes = b""
    empty: bool = False
    wrap: int = 0
    words: int = 0
    offset: Fraction = Fraction()

    def size(self) -> int:
        """Registers it takes."""
        return words_of(self.kind, self.words)


@dataclass(frozen=True, slots=True)
class Area:
    """Registers from `first` that can all be read; `compute`, if given, makes them at the epoch second asked, else what
    is no point is zero."""

    function: int
    first: int
    count: int
    compute: Callable[[ModbusMeter, int], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Device identification: what function 43/14 tells. extended: objects from 80H on."""

    vendor: str = "Simulated"
    product: str = "MB-1"
    revision: str = "1.0"
    extended: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))

    def objects(self) -> dict[int, bytes]:
        """By object id."""
        basic = {0: self.vendor, 1: self.product, 2: self.revision}
        return {key: text.encode()[:240] for key, text in {**basic, **self.extended}.items()}


@dataclass(frozen=True, slots=True)
class ModbusSpec:
    """What meters of one type have. constants: registers that hold a fixed word, by (function, address); `writable` of
    them can be written. bits: what functions 1 and 2 read, likewise. holes: how many registers that are not there may
    lie in a row between two points of a request. fences: addresses over which no request may reach. whole: a request
    may not begin or end inside a number. both: functions 3 and 4 read the same registers."""

    points: tuple[Point, ...] = ()
    areas: tuple[Area, ...] = ()
    constants: Mapping[tuple[int, int], int] = field(default_factory=lambda: MappingProxyType({}))
    bits: Mapping[tuple[int, int], bool] = field(default_factory=lambda: MappingProxyType({}))
    writable: frozenset[int] = frozenset()
    max_registers: int = 125
    holes: int = 0
    fences: frozenset[int] = frozenset()
    whole: bool = False
    both: bool = False
    identity: Identity | None = field(default_factory=Identity)


class ModbusMeter:
    """A slave. `unit` is its address, 1 to 247 (0 to 255 on TCP). ct, pt: transformer ratios that primary values are
    multiplied by. `requests` counts what it heard. value `overrides` by name stand instead of the truth."""

    def __init__(
        self, spec: ModbusSpec, unit: int, truth: Truth, now: Now, *, ct: int = 1, pt: int = 1, clock_error_s: int = 0
    ) -> None:
        self.spec = spec
        self.unit = unit
        self.truth = truth
        self.ct = ct
        self.pt = pt
        self.clock_error_s = clock_error_s
        self.requests = 0
        self.overrides: dict[str, Fraction | None] = {}
        self.constants = dict(spec.constants)
        self._now = now
        self._where: dict[tuple[int, int], tuple[Point, int]] = {}
        for point in spec.points:
            for word in range(point.size()):
                self._where[point.function, point.address + word] = point, word

    # -- values --------------------------------------------------------------------------------------------------

    def at_s(self) -> int:
        """What time it truly is, epoch seconds."""
        return int(self._now())

    def local_s(self, at_s: int) -> int:
        """What the meter's clock shows then: civil time of its place as if it were UTC, `clock_error_s` fast."""
        return at_s + self.truth.register.household.load.offset_s + self.clock_error_s

    def ratio(self, name: str, *, primary: bool = True) -> int:
        """What the secondary value of `name` is multiplied by."""
        base = name.rstrip("abc").rstrip("_")
        if not primary or base.startswith(("power_factor", "frequency", "angle", "temperature")):
            return 1
        if base.startswith("voltage"):
            return self.pt
        return self.ct if base.startswith(("current", "neutral")) else self.ct * self.pt

    def true_value(self, point: Point, at_s: int) -> Fraction | None:
        """What the meter means to show there, in the quantity's unit; None where it has nothing."""
        if point.name in self.overrides:
            return self.overrides[point.name]
        if point.empty:
            return None
        return self.truth.value(point.name, at_s) * self.ratio(point.name, primary=point.primary)

    def step(self, point: Point) -> Fraction:
        """How much of the quantity's unit one step of the register is just now."""
        if point.factor_at is None:
            return point.scale
        exponent = self.constants[point.function, point.factor_at]
        return point.scale * Fraction(10) ** (exponent - 0x10000 if exponent & 0x8000 else exponent)

    def tolerance(self, point: Point, at_s: int) -> Fraction:
        """How far what is read may be from `true_value` because of the register's type and scale."""
        value = self.true_value(point, at_s)
        step = self.step(point)
        return resolution(point.kind, value / step) * step if value is not None else Fraction()

    def reset(self) -> None:
        """Every counter falls to zero, now."""
        self.truth.clear(self.at_s())

    def point(self, name: str) -> Point:
        """The first point of that name. KeyError when there is none."""
        for point in self.spec.points:
            if point.name == name:
                return point
        raise KeyError(name)

    # -- registers -----------------------------------------------------------------------------------------------

    def number(self, point: Point, at_s: int) -> bytes:
        """The registers of one point at `at_s`."""
        value = self.true_value(point, at_s)
        raw = None if value is None else (value - point.offset) / self.step(point)
        if raw is not None and point.wrap:
            raw %= point.wrap
        wraps = point.name.endswith("h") or "h_" in point.name  # kWh, kvarh, kVAh: counters
        return encode(
            point.kind,
            raw,
            word_order=point.word_order,
            byte_order=point.byte_order,
            missing=point.missing,
            wraps=wraps,
            words=point.words,
        )

    def registers(self, function: int, first: int, count: int) -> bytes | int:
        """`count` registers as they stand now, or the exception that refuses them."""
        last = first + count - 1
        if any(first < fence <= last for fence in self.spec.fences):
            return ILLEGAL_ADDRESS
        at_s = self.at_s()
        made: dict[int, bytes] = {}
        for area in self.spec.areas:
            if area.compute is not None and area.function == function and _meet(area, first, count):
                made |= _by_address(area.first, area.compute(self, at_s))
        numbers: dict[Point, bytes] = {}
        out = bytearray()
        hole = 0
        for address in range(first, last + 1):
            word = made.get(address) or self._word(function, address, at_s, numbers)
            if word is None and not self._in_area(function, address):
                hole += 1
                if hole > self.spec.holes or address in (first, last):
                    return ILLEGAL_ADDRESS
            else:
                hole = 0
            out += word or _HALF
        if self.spec.whole and (self._inside(function, first) or self._inside(function, last + 1)):
            return ILLEGAL_ADDRESS
        return bytes(out)

    def _word(self, function: int, address: int, at_s: int, numbers: dict[Point, bytes]) -> bytes | None:
        if (constant := self.constants.get((function, address))) is not None:
            return constant.to_bytes(2, "big")
        found = self._where.get((function, address))
        if found is None:
            return None
        point, word = found
        if (data := numbers.get(point)) is None:
            data = numbers[point] = self.number(point, at_s)
        return data[2 * word : 2 * word + 2]

    def _inside(self, function: int, address: int) -> bool:
        """Whether a number has begun before that register."""
        found = self._where.get((function, address))
        return found is not None and found[1] > 0

    def _in_area(self, function: int, address: int) -> bool:
        return any(a.function == function and a.first <= address < a.first + a.count for a in self.spec.areas)

    # -- requests ------------------------------------------------------------------------------------------------

    def answer(self, pdu: bytes) -> bytes:
        """The PDU that answers `pdu`."""
        self.requests += 1
        function = pdu[0]
        if function in _READS:
            found = self._read(function, pdu)
        elif function in (1, 2) and self.spec.bits:
            found = self._read_bits(function, pdu)
        elif function in (6, 16):
            found = self._write(function, pdu)
        elif function == 43 and self.spec.identity is not None:
            found = self._identify(pdu)
        elif function == 8 and pdu[1:3] == b"\x00\x00":
            found = pdu[1:]
        elif function == 17:
            body = b"MODBUS SIMULATOR"
            found = bytes((len(body) + 2, self.unit)) + b"\xff" + body
        else:
            found = ILLEGAL_FUNCTION
        if isinstance(found, int):
            return bytes((function | 0x80, found))
        return bytes((function,)) + found

    def _read(self, function: int, pdu: bytes) -> bytes | int:
        if len(pdu) != 5:
            return ILLEGAL_VALUE
        first, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        if not 1 <= count <= min(125, self.spec.max_registers):
            return ILLEGAL_VALUE
        if first + count > 0x10000:
            return ILLEGAL_ADDRESS
        if self.spec.both:
            function = next((one for one in _READS if (one, first) in self._where or self._in_area(one, first)), 3)
        found = self.registers(function, first, count)
        return found if isinstance(found, int) else bytes((len(found),)) + found

    def _read_bits(self, function: int, pdu: bytes) -> bytes | int:
        first, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        if len(pdu) != 5 or not 1 <= count <= 2000:
            return ILLEGAL_VALUE
        number = 0
        for at in range(count):
            if (bit := self.spec.bits.get((function, first + at))) is None:
                return ILLEGAL_ADDRESS
            number |= bit << at
        size = (count + 7) // 8
        return bytes((size,)) + number.to_bytes(size, "little")

    def _write(self, function: int, pdu: bytes) -> bytes | int:
        first = int.from_bytes(pdu[1:3], "big")
        if function == 6:
            values = pdu[3:]
        elif len(pdu) < 6 or pdu[5] != len(pdu) - 6 or pdu[5] != 2 * int.from_bytes(pdu[3:5], "big"):
            return ILLEGAL_VALUE
        else:
            values = pdu[6:]
        if len(values) < 2 or len(values) % 2:
            return ILLEGAL_VALUE
        addresses = range(first, first + len(values) // 2)
        if not self.spec.writable.issuperset(addresses):
            return ILLEGAL_ADDRESS
        for at, address in enumerate(addresses):
            self.constants[3, address] = int.from_bytes(values[2 * at : 2 * at + 2], "big")
        return pdu[1:5]

    def _identify(self, pdu: bytes) -> bytes | int:
        """Device identification, in as many answers as it takes: each tells where to go on."""
        if len(pdu) != 4 or pdu[1] != 14:
            return ILLEGAL_VALUE
        assert self.spec.identity is not None
        code, wanted = pdu[2], pdu[3]
        known = self.spec.identity.objects()
        level = 0x83 if any(key >= 0x80 for key in known) else 0x82 if any(key > 2 for key in known) else 0x81
        head = bytes((14, code, level))
        if code == 4:
            if wanted not in known:
                return ILLEGAL_ADDRESS
            return head + b"\x00\x00\x01" + bytes((wanted, len(known[wanted]))) + known[wanted]
        top = {1: 0x02, 2: 0x7F, 3: 0xFF}.get(code)
        if top is None:
            return ILLEGAL_VALUE
        inside = sorted(key for key in known if key <= top)
        start = wanted if wanted in inside else 0
        return head + _pages([key for key in inside if key >= start], known)


def _pages(keys: list[int], known: Mapping[int, bytes]) -> bytes:
    """More follows, next object, how many, and the objects that fit in one PDU."""
    body, count = b"", 0
    for key in keys:
        entry = bytes((key, len(known[key]))) + known[key]
        if len(body) + len(entry) > 245:
            return b"\xff" + bytes((key, count)) + body
        body += entry
        count += 1
    return b"\x00\x00" + bytes((count,)) + body


def _meet(area: Area, first: int, count: int) -> bool:
    return area.first < first + count and first < area.first + area.count


def _by_address(first: int, data: bytes) -> Iterable[tuple[int, bytes]]:
    return ((first + at // 2, data[at : at + 2]) for at in range(0, len(data), 2))

"""What captured Modbus frames say: RTU or TCP, requests and answers, with the values where a map of registers is given.

An answer does not say which registers it holds. When its request stands before it in the same bytes, the two belong
together; alone, it is told as plain registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from headend.errors import BadFrame
from headend.protocols.explanation import Explanation, Field, Value
from headend.protocols.modbus.exchange import EXCEPTIONS
from headend.protocols.modbus.frame import EXCEPTION, IDENTIFY, MBAP, identification_size, rtu_sound, tcp_frames
from headend.protocols.modbus.items import value_text
from headend.protocols.modbus.library import crc, identification
from headend.protocols.modbus.model import BITS, Register, RegisterMap
from headend.protocols.modbus.values import exponent

__all__ = ["explain", "explain_rtu", "explain_tcp"]

_FUNCTIONS: Final = {
    1: "read coils",
    2: "read discrete inputs",
    3: "read holding registers",
    4: "read input registers",
    5: "write one coil",
    6: "write one register",
    7: "read exception status",
    8: "diagnostics",
    15: "write coils",
    16: "write registers",
    17: "report server id",
    22: "mask write register",
    23: "read and write registers",
    IDENTIFY: "encapsulated interface",
}
_READS: Final = (1, 2, 3, 4)
_OBJECTS: Final = {0: "vendor", 1: "product code", 2: "revision", 3: "vendor URL", 4: "product", 5: "model", 6: "user"}
_SHOWN_REGISTERS: Final = 125


@dataclass(slots=True)
class _Page:
    fields: list[Field] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def note(self, name: str, text: str, data: bytes) -> None:
        self.fields.append(Field(name, text, data.hex().upper()))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A read's request, for the answer behind it."""

    unit: int
    function: int
    address: int
    count: int
    transaction: int = -1


def explain(data: bytes, registers: RegisterMap | None = None) -> Explanation:
    """Frames in either form: TCP if the bytes are whole frames with an MBAP header, else RTU."""
    whole = sum(MBAP + len(pdu) for _, _, pdu in tcp_frames(data))
    if whole and whole == len(data) and not any(True for _ in _rtu_frames(data)):
        return explain_tcp(data, registers)
    return explain_rtu(data, registers)


def explain_rtu(data: bytes, registers: RegisterMap | None = None) -> Explanation:
    """Frames of a serial line; never raises."""
    page = _Page()
    asked: _Asked | None = None
    end = 0
    for start, stop, request in _rtu_frames(data):
        if start > end:
            _stray(page, data[end:start])
        page.note("unit", _unit_text(data[start], tcp=False), data[start : start + 1])
        asked = _pdu(page, data[start], data[start + 1 : stop - 2], request, asked, registers)
        page.note("CRC", "right", data[stop - 2 : stop])
        end = stop
    if not page.said:
        _unsound(page, data)
    elif end < len(data):
        _stray(page, data[end:])
    return _told(page)


def explain_tcp(data: bytes, registers: RegisterMap | None = None) -> Explanation:
    """Frames with an MBAP header; never raises."""
    page = _Page()
    asked: _Asked | None = None
    end = 0
    for transaction, unit, pdu in tcp_frames(data):
        head = data[end : end + MBAP]
        page.note("transaction", str(transaction), head[:2])
        page.note("protocol", "0, Modbus", head[2:4])
        page.note("length", f"{len(pdu) + 1} bytes", head[4:6])
        page.note("unit", _unit_text(unit, tcp=True), head[6:])
        known = asked if asked is not None and asked.transaction == transaction else None
        asked = _pdu(page, unit, pdu, known is None and _is_request(pdu), known, registers, transaction)
        end += MBAP + len(pdu)
    if not page.said:
        page.problems.append("no whole frame with an MBAP header (transaction, 0000, length, unit)")
        if rtu_sound(data):
            page.problems.append("it is a sound frame of a serial line: the meter's protocol is modbus-rtu")
    elif end < len(data):
        _stray(page, data[end:])
    return _told(page)


def _told(page: _Page) -> Explanation:
    summary = "; ".join(page.said) or "no Modbus frame"
    return Explanation(bool(page.said), summary, tuple(page.fields), tuple(page.values), tuple(page.problems))


# -- finding frames ----------------------------------------------------------------------------------------------------


def _rtu_frames(data: bytes) -> Iterator[tuple[int, int, bool]]:
    """Start, end and whether it is a request, of every sound frame."""
    at = 0
    while at + 4 <= len(data):
        for size, request in _rtu_sizes(data[at:]):
            if size and at + size <= len(data) and rtu_sound(data[at : at + size]):
                yield at, at + size, request
                at += size
                break
        else:
            at += 1


def _rtu_sizes(frame: bytes) -> Iterator[tuple[int, bool]]:
    """How long a frame that begins here may be, and whether it is a request then."""
    function = frame[1]
    if function & EXCEPTION:
        yield 5, False
    elif function in _READS:
        if function in BITS and frame[2] == 3:
            yield 8, True  # as long as its answer would be
        elif function in BITS or frame[2] % 2 == 0:
            yield 5 + frame[2], False
        yield 8, True
    elif function in (5, 6):
        yield 8, True
    elif function in (15, 16):
        yield 8, False
        yield (9 + frame[6] if len(frame) > 6 else 0), True
    elif function == IDENTIFY:
        size = identification_size(frame[1:])
        yield (size + 3 if size else 0), False
        yield 7, True
    else:
        yield len(frame), True


def _is_request(pdu: bytes) -> bool:
    """Whether a PDU of a read or write is the request, as far as its length tells."""
    if pdu[0] in _READS:
        return len(pdu) == 5 and not (len(pdu) == 2 + pdu[1] and pdu[0] in BITS)
    if pdu[0] in (15, 16):
        return len(pdu) > 5
    return len(pdu) == 4 if pdu[0] == IDENTIFY else not pdu[0] & EXCEPTION


def _stray(page: _Page, data: bytes) -> None:
    page.note("bytes", "not part of a frame", data)
    page.problems.append(f"{len(data)} bytes that are part of no frame")


def _unsound(page: _Page, data: bytes) -> None:
    """Why these bytes are no RTU frame."""
    if len(data) < 4:
        page.problems.append(f"{len(data)} bytes: the shortest frame has 4")
        return
    page.note("unit", _unit_text(data[0], tcp=False), data[:1])
    page.note("function", _FUNCTIONS.get(data[1] & 0x7F, "unknown"), data[1:2])
    right = crc(data[:-2]).to_bytes(2, "little").hex(" ").upper()
    page.problems.append(f"the CRC {data[-2:].hex(' ').upper()} is wrong, {right} would be right; or bytes are missing")
    if any(True for _ in tcp_frames(data)):
        page.problems.append("it is a whole frame with an MBAP header: the meter's protocol is modbus-tcp")


# -- what they say -----------------------------------------------------------------------------------------------------


def _pdu(
    page: _Page,
    unit: int,
    pdu: bytes,
    request: bool,
    asked: _Asked | None,
    registers: RegisterMap | None,
    transaction: int = -1,
) -> _Asked | None:
    """One PDU onto the page; what it asked for, if it is a read's request."""
    function = pdu[0] & 0x7F
    name = _FUNCTIONS.get(function, "a function with no name here")
    page.note("function", name + (", refused" if pdu[0] & EXCEPTION else ""), pdu[:1])
    if pdu[0] & EXCEPTION:
        code = pdu[1] if len(pdu) > 1 else 0
        page.note("exception", EXCEPTIONS.get(code, "no name for it"), pdu[1:2])
        page.said.append(f"unit {unit} refuses to {name}: {EXCEPTIONS.get(code, 'exception')} ({code:02X})")
        return None
    if function in _READS and request and len(pdu) == 5:
        address, count = int.from_bytes(pdu[1:3], "big"), int.from_bytes(pdu[3:5], "big")
        page.note("address", _address_text(function, address), pdu[1:3])
        page.note("count", str(count), pdu[3:5])
        most = 2000 if function in BITS else 125
        if not 1 <= count <= most:
            page.problems.append(f"a count of {count}: 1 to {most} can be asked for")
        page.said.append(f"asks unit {unit} to {name}: {count} from {address} (0x{address:04X})")
        return _Asked(unit, function, address, count, transaction)
    if function in _READS:
        _read_answer(page, unit, pdu, asked, registers)
    elif function == IDENTIFY:
        _identify(page, unit, pdu, request)
    elif function in (5, 6, 15, 16):
        _write(page, unit, pdu, name)
    else:
        page.note("data", f"{len(pdu) - 1} bytes", pdu[1:])
        page.said.append(f"unit {unit}: {name}")
    return None


def _address_text(function: int, address: int) -> str:
    """The address as on the wire, and as data sheets that count from 1 write it."""
    reference = {1: 0, 2: 1, 3: 4, 4: 3}[function]
    return f"{address}, in data sheets that count from 1: {reference}{address + 1:05d}"


def _unit_text(unit: int, *, tcp: bool) -> str:
    if unit == 0 and not tcp:
        return "0, broadcast"
    return f"{unit}, reserved" if unit > 247 and not tcp else str(unit)


def _read_answer(page: _Page, unit: int, pdu: bytes, asked: _Asked | None, registers: RegisterMap | None) -> None:
    data = pdu[2:]
    page.note("byte count", f"{pdu[1] if len(pdu) > 1 else 0} bytes", pdu[1:2])
    page.note("data", f"{len(data)} bytes", data)
    if len(pdu) < 2 or pdu[1] != len(data):
        page.problems.append(f"the byte count does not fit the {len(data)} bytes there are")
    function = pdu[0]
    size = len(data) // 2
    page.said.append(f"unit {unit} answers with {len(data)} bytes" if function in BITS else f"unit {unit} answers "
                     f"with {size} registers")  # fmt: skip
    if asked is not None and (asked.unit, asked.function) == (unit, function):
        due = (asked.count + 7) // 8 if function in BITS else 2 * asked.count
        if due != len(data):
            page.problems.append(f"{len(data)} bytes, the request before asks for {due}")
        elif registers is not None and function not in BITS:
            page.values += _named(registers, asked, data)
            return
    if function not in BITS:
        start = 0 if asked is None else asked.address
        page.values += _plain(start, data, known=asked is not None)


def _plain(start: int, data: bytes, *, known: bool) -> Iterator[Value]:
    """Registers as bare numbers."""
    for number in range(min(len(data) // 2, _SHOWN_REGISTERS)):
        raw = data[2 * number : 2 * number + 2]
        place = f"register 0x{start + number:04X}" if known else f"register +{number}"
        value = int.from_bytes(raw, "big")
        yield Value(place, "", str(value), "", "", "", f"0x{raw.hex().upper()}")


def _named(registers: RegisterMap, asked: _Asked, data: bytes) -> Iterator[Value]:
    """The registers of the map that lie in the answer."""

    def raw(one: Register) -> bytes | None:
        place = one.address + registers.base - asked.address
        inside = one.function == asked.function and place >= 0 and place + one.words <= asked.count
        return data[2 * place : 2 * (place + one.words)] if inside else None

    for one in registers.registers:
        found = raw(one)
        if found is None:
            continue
        power: int | None = 0
        if one.scale_register:
            scale = registers.by_name[one.scale_register]
            there = raw(scale)
            try:
                power = None if there is None else exponent(scale, there)
            except BadFrame:
                power = None
        yield value_text(one, found, power)


def _identify(page: _Page, unit: int, pdu: bytes, request: bool) -> None:
    if request or len(pdu) < 7:
        page.note("identification", "asks who the unit is", pdu[1:])
        page.said.append(f"asks unit {unit} who it is")
        return
    page.note("identification", "objects", pdu[1:])
    page.said.append(f"unit {unit} says who it is")
    try:
        objects, _ = identification(pdu)
    except BadFrame as error:
        page.problems.append(str(error))
        return
    for number, text in objects.items():
        name = _OBJECTS.get(number, f"object {number}")
        page.values.append(Value(name, "", text.decode("utf-8", "replace"), "", "", ""))


def _write(page: _Page, unit: int, pdu: bytes, name: str) -> None:
    address = int.from_bytes(pdu[1:3], "big")
    page.note("address", f"{address}", pdu[1:3])
    single = pdu[0] in (5, 6)
    page.note("value" if single else "count", str(int.from_bytes(pdu[3:5], "big")), pdu[3:5])
    if len(pdu) > 5:
        page.note("data", f"{len(pdu) - 6} bytes", pdu[6:])
    asks = "request, or the answer, which is the same" if single else "request" if len(pdu) > 5 else "done"
    page.said.append(f"unit {unit}: {name} at {address} (0x{address:04X}), {asks}")

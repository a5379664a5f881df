"""What captured DL/T 645 bytes mean, in words, with everything odd about them. Never raises, whatever the bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from headend.protocols.dlt645.bcd import all_ff
from headend.protocols.dlt645.catalogue import find
from headend.protocols.dlt645.exchange import error_text
from headend.protocols.dlt645.frame import (
    BROADCAST,
    OVERHEAD,
    START,
    Frame,
    Look,
    address_text,
    checksum,
    frame_at,
    look,
)
from headend.protocols.dlt645.values import decode_item, wire_time
from headend.protocols.explanation import Explanation, Field, Value

__all__ = ["FUNCTIONS", "explain"]

FUNCTIONS = {
    0x03: "security (SGCC supplement)",
    0x08: "broadcast time",
    0x11: "read data",
    0x12: "read follow-up data",
    0x13: "read address",
    0x14: "write data",
    0x15: "write address",
    0x16: "freeze",
    0x17: "change baud rate",
    0x18: "change password",
    0x19: "clear demand",
    0x1A: "clear meter",
    0x1B: "clear events",
    0x1C: "relay and alarm control (SGCC supplement)",
    0x1D: "multifunction terminal output (SGCC supplement)",
}
_OF_1997 = (0x01, 0x02, 0x04, 0x0A, 0x0C, 0x0F, 0x10)
_NO_REPLY = (0x08, 0x16)  # functions that may go to the broadcast address
_BAUD = {0x02: 600, 0x04: 1200, 0x08: 2400, 0x10: 4800, 0x20: 9600, 0x40: 19200}
_CONTROL = {
    0x1A: "trip",
    0x1B: "permit closing",
    0x1C: "close at once",
    0x2A: "alarm on",
    0x2B: "alarm off",
    0x3A: "keep supply on",
    0x3B: "keep supply off",
}
_RANK = (Look.WHOLE, Look.BAD_SUM, Look.NO_END, Look.SHORT)
_MAX_READ = 200


@dataclass(slots=True)
class _Page:
    """An explanation being written."""

    fields: list[Field] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    said: str = ""

    def note(self, name: str, text: str, raw: bytes) -> None:
        self.fields.append(Field(name, text, raw.hex().upper()))


def explain(data: bytes) -> Explanation:
    """The best frame in `data`, field by field. `ok` is whether it is whole with a right checksum."""
    found = _find(data)
    if found is None:
        text = "no bytes" if not data else f"{len(data)} bytes, none of them starts a DL/T 645 frame"
        return Explanation(False, text, problems=(text,))
    at, seen = found
    page = _Page()
    end = _surroundings(page, data, at, seen)
    if seen is Look.SHORT and len(data) - at < 10:
        page.note("start of a frame", "cut off", data[at:])
        page.problems.append(f"the frame is cut off after {len(data) - at} bytes")
        return Explanation(False, "a frame cut off in its head", tuple(page.fields), (), tuple(page.problems))
    frame = frame_at(data, at)
    _head(page, frame, data, at)
    _payload(page, frame)
    _tail(page, data, at, end, seen)
    direction = "answer from" if frame.from_meter else "request to"
    name = FUNCTIONS.get(frame.function, f"unknown function {frame.function:02X}")
    summary = f"{direction} {address_text(frame.address)}: {name}" + (f": {page.said}" if page.said else "")
    if seen is not Look.WHOLE:
        summary = f"damaged frame ({seen.value}): {summary}"
    return Explanation(seen is Look.WHOLE, summary, tuple(page.fields), tuple(page.values), tuple(page.problems))


def _find(data: bytes) -> tuple[int, Look] | None:
    """The first start byte with the best look."""
    best: tuple[int, Look] | None = None
    at = data.find(START)
    while at >= 0:
        seen = look(data, at)
        if seen is Look.WHOLE:
            return at, seen
        if seen in _RANK and (best is None or _RANK.index(seen) < _RANK.index(best[1])):
            best = at, seen
        at = data.find(START, at + 1)
    return best


def _surroundings(page: _Page, data: bytes, at: int, seen: Look) -> int:
    """What stands around the frame; returns where it ends."""
    before = data[:at]
    lead = len(before) - len(before.rstrip(b"\xfe"))
    junk = before[: len(before) - lead]
    if junk:
        page.note("bytes before", "not part of the frame", junk)
        page.problems.append(f"{len(junk)} bytes before the frame: {_short_hex(junk)}")
    if lead:
        page.note("wake-up", f"{lead} × FE", before[len(junk) :])
    end = len(data) if seen is Look.SHORT else at + OVERHEAD + data[at + 9]
    after = data[end:]
    if after:
        page.problems.append(f"{len(after)} bytes after the frame: {_short_hex(after)}")
    return end


def _short_hex(data: bytes) -> str:
    return data.hex().upper() if len(data) <= 24 else f"{data[:24].hex().upper()}…"


def _head(page: _Page, frame: Frame, data: bytes, at: int) -> None:
    page.note("start", "68", data[at : at + 1])
    page.note("address", address_text(frame.address), data[at + 1 : at + 7])
    page.note("start", "68", data[at + 7 : at + 8])
    page.note("control", _control_text(frame), data[at + 8 : at + 9])
    page.note(
        "length",
        f"{len(frame.data)} bytes" if data[at + 9] == len(frame.data) else f"{data[at + 9]} bytes",
        data[at + 9 : at + 10],
    )
    page.note(
        "data",
        f"less 33H: {frame.data.hex().upper()}" if frame.data else "none",
        data[at + 10 : at + 10 + len(frame.data)],
    )
    bare = frame.address.replace("AA", "")
    if not bare.isdecimal() and bare:
        page.problems.append(f"address {frame.address} has digits above nine")
    if frame.address == BROADCAST and not frame.from_meter and frame.function not in _NO_REPLY:
        page.problems.append("sent to the broadcast address, which no meter answers")
    if frame.function not in FUNCTIONS:
        known = "it belongs to DL/T 645-1997" if frame.function in _OF_1997 else "perhaps the maker's own"
        page.problems.append(
            f"control code {frame.control:02X}: function {frame.function:02X} is not of DL/T 645-2007, {known}"
        )
    if frame.from_meter and frame.function in (0x11, 0x12) and data[at + 9] > _MAX_READ:
        page.problems.append(f"{data[at + 9]} data bytes, an answer to a read has at most {_MAX_READ}")
    if not frame.from_meter and frame.control & 0x60:
        page.problems.append(f"control code {frame.control:02X}: a request with the flags of an answer")


def _control_text(frame: Frame) -> str:
    parts = ["from the meter" if frame.from_meter else "from the master"]
    parts.append(FUNCTIONS.get(frame.function, f"function {frame.function:02X}"))
    if frame.abnormal:
        parts.append("refused")
    if frame.more:
        parts.append("more follows")
    return ", ".join(parts)


def _tail(page: _Page, data: bytes, at: int, end: int, seen: Look) -> None:
    if seen is Look.SHORT:
        page.problems.append(f"cut off: {len(data) - at} bytes of {OVERHEAD + data[at + 9]}")
        return
    right = checksum(data[at : end - 2])
    sent = data[end - 2]
    page.note("checksum", "right" if sent == right else f"wrong, the sum is {right:02X}", data[end - 2 : end - 1])
    page.note("end", "16" if data[end - 1] == 0x16 else "wrong, 16 is due", data[end - 1 : end])
    if sent != right:
        page.problems.append(f"checksum {sent:02X} is wrong, {right:02X} would be right")
    if data[end - 1] != 0x16:
        page.problems.append(f"end byte {data[end - 1]:02X} is wrong, 16 is due")
    if data[end:]:
        page.note("bytes after", "not part of the frame", data[end:])


# --- what the data say, by function -------------------------------------------------------------------------------


def _payload(page: _Page, frame: Frame) -> None:
    if frame.abnormal and frame.from_meter:
        _error(page, frame.data)
    elif frame.from_meter:
        _ANSWERS.get(frame.function, _raw)(page, frame.data)
    else:
        _REQUESTS.get(frame.function, _raw)(page, frame.data)


def _raw(page: _Page, data: bytes) -> None:
    """Data of a function that is not taken apart, or an empty acknowledgement."""
    page.said = data.hex().upper() if data else ""


def _done(page: _Page, data: bytes) -> None:
    page.said = "done" if not data else f"done, {data.hex().upper()}"


def _error(page: _Page, data: bytes) -> None:
    if not data:
        page.said = "refused without an error word"
        page.problems.append(page.said)
        return
    text = error_text(data[0])
    page.note("error word", text, data[:1])
    page.said = f"refused: {text}"
    page.problems.append(f"the meter refused: error word {data[0]:02X}, {text}")
    if len(data) > 1:
        page.problems.append(f"an error of {len(data)} bytes, 1 is due: perhaps the maker's own")


def _identifier(page: _Page, data: bytes) -> str:
    """Note the identifier in front of `data` and return it; "" when it is too short."""
    if len(data) < 4:
        page.problems.append(f"{len(data)} data bytes, too few for an identifier")
        page.said = data.hex().upper()
        return ""
    di = data[3::-1].hex().upper()
    item = find(di)
    page.note("identifier", f"{di} {item.name}" if item else f"{di} (not in the catalogue)", data[:4])
    if item is None:
        page.problems.append(f"identifier {di} is not in the catalogue")
    page.said = f"{di} {item.name}" if item else di
    return di


def _read_request(page: _Page, data: bytes) -> None:
    if not _identifier(page, data):
        return
    rest = data[4:]
    if len(rest) in (1, 6):
        page.note("number of records", str(rest[0]), rest[:1])
        page.said += f", {rest[0]} records"
    if len(rest) == 6:
        when = wire_time("YYMMDDhhmm", rest[1:])
        page.note("from", when, rest[1:])
        page.said += f" from {when}"
    elif len(rest) not in (0, 1):
        page.note("more data", rest.hex().upper(), rest)


def _read_answer(page: _Page, data: bytes) -> None:
    di = _identifier(page, data)
    if di:
        _decoded(page, di, data[4:])


def _decoded(page: _Page, di: str, data: bytes) -> None:
    values = decode_item(di, data)
    page.values += values
    page.problems += [f"{v.name}: {v.note}" for v in values if v.value is None and not all_ff(data)]
    shown = [f"{v.value} {v.unit}".rstrip() if v.value is not None else "–" for v in values]
    text = ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
    page.said += f" = {text}"
    if len(values) == 1 and values[0].note:
        page.said += f" ({values[0].note})"


def _more_request(page: _Page, data: bytes) -> None:
    if _identifier(page, data):
        page.note("sequence", str(data[4]) if len(data) == 5 else "5 data bytes are due", data[4:])
        if len(data) != 5:
            page.problems.append(f"{len(data)} data bytes, a request for follow-up data has 5")


def _more_answer(page: _Page, data: bytes) -> None:
    if _identifier(page, data) and len(data) > 4:
        page.note("sequence", str(data[-1]), data[-1:])
        page.note("continued data", data[4:-1].hex().upper(), data[4:-1])


def _address(page: _Page, data: bytes) -> None:
    if len(data) != 6:
        page.said = data.hex().upper()
        if data:
            page.problems.append(f"{len(data)} data bytes, an address has 6")
        return
    address = data[::-1].hex().upper()
    page.values.append(Value("address", "通信地址", address, "", "0-0:96.1.0", ""))
    page.said = address


def _time(page: _Page, data: bytes) -> None:
    if len(data) != 6:
        page.problems.append(f"{len(data)} data bytes, a broadcast time has 6")
        return
    text = wire_time("YYMMDDhhmmss", data)
    page.values.append(Value("time", "广播校时", text, "", "0-0:1.0.0", ""))
    page.said = text
    second, minute, hour, day, month, _ = (f"{b:02X}" for b in data)
    if not ("01" <= month <= "12" and "01" <= day <= "31" and hour < "24" and minute < "60" and second < "60"):
        page.problems.append(f"{text} is no date and time: the bytes may be in the wrong order")


def _write_request(page: _Page, data: bytes) -> None:
    di = _identifier(page, data)
    if di and len(data) >= 12:
        _credentials(page, data[4:12])
        page.note("written", data[12:].hex().upper(), data[12:])


def _credentials(page: _Page, data: bytes) -> None:
    """Password level, password and operator, as in front of every write."""
    page.note("password", f"level {data[0]:02X}", data[:4])
    page.note("operator", data[7:3:-1].hex().upper(), data[4:8])


def _freeze_request(page: _Page, data: bytes) -> None:
    if len(data) != 4:
        page.problems.append(f"{len(data)} data bytes, a freeze has 4")
        return
    page.said = data[::-1].hex().upper()
    if all(b == 0x99 for b in data):
        page.said = "now"


def _baud(page: _Page, data: bytes) -> None:
    rate = _BAUD.get(data[0]) if len(data) == 1 else None
    page.said = f"{rate} baud" if rate else data.hex().upper()
    if rate is None:
        page.problems.append(f"baud word {data.hex().upper()} names no standard rate")


def _clear_request(page: _Page, data: bytes) -> None:
    if len(data) >= 8:
        _credentials(page, data[:8])
    page.said = f"of {data[11:7:-1].hex().upper()}" if len(data) == 12 else ""


def _control_request(page: _Page, data: bytes) -> None:
    if len(data) != 16:
        page.problems.append(f"{len(data)} data bytes, a control command has 16")
        page.said = data.hex().upper()
        return
    _credentials(page, data[:8])
    command = _CONTROL.get(data[8], "unknown command")
    deadline = wire_time("YYMMDDhhmmss", data[10:])
    page.note("command", command, data[8:9])
    page.note("valid until", deadline, data[10:])
    page.values.append(Value("command", "控制命令", f"{data[8]:02X}", "", "", "", command))
    page.said = f"{command} ({data[8]:02X}), valid until {deadline}"
    if data[8] not in _CONTROL:
        page.problems.append(f"control command {data[8]:02X} is unknown")


_Part = Callable[[_Page, bytes], None]

_REQUESTS: dict[int, _Part] = {
    0x08: _time,
    0x11: _read_request,
    0x12: _more_request,
    0x13: _raw,
    0x14: _write_request,
    0x15: _address,
    0x16: _freeze_request,
    0x17: _baud,
    0x19: _clear_request,
    0x1A: _clear_request,
    0x1B: _clear_request,
    0x1C: _control_request,
}
_ANSWERS: dict[int, _Part] = {
    0x11: _read_answer,
    0x12: _more_answer,
    0x13: _address,
    0x14: _done,
    0x15: _done,
    0x16: _done,
    0x17: _baud,
    0x18: _done,
    0x19: _done,
    0x1A: _done,
    0x1B: _done,
    0x1C: _done,
}

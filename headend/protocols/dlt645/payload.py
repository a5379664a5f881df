"""What the data of a 2007 frame say, function by function: the inner half of `explain`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from headend.protocols.dlt645.bcd import all_ff
from headend.protocols.dlt645.catalogue import find
from headend.protocols.dlt645.exchange import error_text
from headend.protocols.dlt645.frame import Frame
from headend.protocols.dlt645.text import wire_time
from headend.protocols.dlt645.values import decode_item
from headend.protocols.explanation import Field, Value

__all__ = [
    "BAUD",
    "CONTROL",
    "FUNCTIONS",
    "Page",
    "Part",
    "address",
    "baud",
    "decoded",
    "done",
    "identifier",
    "payload",
    "raw",
    "secrets",
    "take_apart",
    "time",
]

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
BAUD = {0x02: 600, 0x04: 1200, 0x08: 2400, 0x10: 4800, 0x20: 9600, 0x40: 19200}
CONTROL = {
    0x1A: "trip",
    0x1B: "permit closing",
    0x1C: "close at once",
    0x2A: "alarm on",
    0x2B: "alarm off",
    0x3A: "keep supply on",
    0x3B: "keep supply off",
}
_PASSWORD_AT = {0x14: 4, 0x19: 0, 0x1A: 0, 0x1B: 0, 0x1C: 0}  # where level and password lie in a request


@dataclass(slots=True)
class Page:
    """An explanation being written."""

    fields: list[Field] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    said: str = ""

    def note(self, name: str, text: str, raw: bytes) -> None:
        """A stretch of the frame; `raw` is left empty for what should not be shown."""
        self.fields.append(Field(name, text, raw.hex().upper()))


Part = Callable[[Page, bytes], None]


def secrets(frame: Frame) -> list[tuple[int, int]]:
    """From where to where in the data of a request (or a password's acknowledgement) passwords lie."""
    if frame.function == 0x18:
        return [(1, 4)] if frame.from_meter else [(5, 8), (9, 12)]
    if frame.from_meter or frame.function not in _PASSWORD_AT:
        return []
    at = _PASSWORD_AT[frame.function] + 1
    return [(at, at + 3)]


def payload(page: Page, frame: Frame) -> None:
    """Write what the data of a 2007 frame say onto `page`."""
    take_apart(page, frame, _REQUESTS, _ANSWERS, error_text)


def take_apart(
    page: Page,
    frame: Frame,
    requests: Mapping[int, Part],
    answers: Mapping[int, Part],
    name_error: Callable[[int], str],
) -> None:
    """Read the data of `frame` by the tables of one version."""
    if frame.abnormal and frame.from_meter:
        _error(page, frame.data, name_error)
    elif frame.from_meter:
        answers.get(frame.function, raw)(page, frame.data)
    else:
        requests.get(frame.function, raw)(page, frame.data)


def raw(page: Page, data: bytes) -> None:
    """Data of a function that is not taken apart, or an empty acknowledgement."""
    page.said = data.hex().upper() if data else ""


def done(page: Page, data: bytes) -> None:
    """An acknowledgement."""
    page.said = "done" if not data else f"done, {data.hex().upper()}"


def _error(page: Page, data: bytes, name_error: Callable[[int], str]) -> None:
    if not data:
        page.said = "refused without an error word"
        page.problems.append(page.said)
        return
    text = name_error(data[0])
    page.note("error word", text, data[:1])
    page.said = f"refused: {text}"
    page.problems.append(f"the meter refused: error word {data[0]:02X}, {text}")
    if len(data) > 1:
        page.problems.append(f"an error of {len(data)} bytes, 1 is due: perhaps the maker's own")


def identifier(page: Page, data: bytes, size: int = 4) -> str:
    """Note the identifier of `size` bytes in front of `data` and return it; "" when it is too short."""
    if len(data) < size:
        page.problems.append(f"{len(data)} data bytes, too few for an identifier")
        page.said = data.hex().upper()
        return ""
    di = data[:size][::-1].hex().upper()
    item = find(di)
    page.note("identifier", f"{di} {item.name}" if item else f"{di} (not in the catalogue)", data[:size])
    if item is None:
        page.problems.append(f"identifier {di} is not in the catalogue")
    page.said = f"{di} {item.name}" if item else di
    return di


def _read_request(page: Page, data: bytes) -> None:
    if not identifier(page, data):
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


def _read_answer(page: Page, data: bytes) -> None:
    di = identifier(page, data)
    if di:
        decoded(page, di, data[4:])


def decoded(page: Page, di: str, data: bytes) -> None:
    """The values an answer carries for `di`."""
    values = decode_item(di, data)
    page.values += values
    page.problems += [f"{v.name}: {v.note}" for v in values if v.value is None and not all_ff(data)]
    shown = [f"{v.value} {v.unit}".rstrip() if v.value is not None else "–" for v in values]
    text = ", ".join(shown[:8]) + (f" and {len(shown) - 8} more" if len(shown) > 8 else "")
    page.said += f" = {text}"
    if len(values) == 1 and values[0].note:
        page.said += f" ({values[0].note})"


def _more_request(page: Page, data: bytes) -> None:
    if identifier(page, data):
        page.note("sequence", str(data[4]) if len(data) == 5 else "5 data bytes are due", data[4:])
        if len(data) != 5:
            page.problems.append(f"{len(data)} data bytes, a request for follow-up data has 5")


def _more_answer(page: Page, data: bytes) -> None:
    if identifier(page, data) and len(data) > 4:
        page.note("sequence", str(data[-1]), data[-1:])
        page.note("continued data", data[4:-1].hex().upper(), data[4:-1])


def address(page: Page, data: bytes) -> None:
    """A meter's address as data."""
    if len(data) != 6:
        page.said = data.hex().upper()
        if data:
            page.problems.append(f"{len(data)} data bytes, an address has 6")
        return
    page.said = data[::-1].hex().upper()
    page.values.append(Value("address", "通信地址", page.said, "", "0-0:96.1.0", ""))


def time(page: Page, data: bytes) -> None:
    """The clock to set, the same in both versions."""
    if len(data) != 6:
        page.problems.append(f"{len(data)} data bytes, a broadcast time has 6")
        return
    text = wire_time("YYMMDDhhmmss", data)
    page.values.append(Value("time", "广播校时", text, "", "0-0:1.0.0", ""))
    page.said = text
    second, minute, hour, day, month, _ = (f"{b:02X}" for b in data)
    if not ("01" <= month <= "12" and "01" <= day <= "31" and hour < "24" and minute < "60" and second < "60"):
        page.problems.append(f"{text} is no date and time: the bytes may be in the wrong order")


def _write_request(page: Page, data: bytes) -> None:
    di = identifier(page, data)
    if di and len(data) >= 12:
        _credentials(page, data[4:12])
        page.note("written", data[12:].hex().upper(), data[12:])


def _credentials(page: Page, data: bytes) -> None:
    """Password level, password and operator, as in front of every write."""
    page.note("password", f"level {data[0]:02X}, the rest not shown", data[:1])
    page.note("operator", data[7:3:-1].hex().upper(), data[4:8])


def _password_request(page: Page, data: bytes) -> None:
    if len(data) != 12:
        page.problems.append(f"{len(data)} data bytes, a change of password has 12")
        return
    identifier(page, data)
    page.note("old password", f"level {data[4]:02X}, the rest not shown", data[4:5])
    page.note("new password", f"level {data[8]:02X}, the rest not shown", data[8:9])


def _password_answer(page: Page, data: bytes) -> None:
    page.said = f"done, level {data[0]:02X}" if data else "done"


def _freeze_request(page: Page, data: bytes) -> None:
    if len(data) != 4:
        page.problems.append(f"{len(data)} data bytes, a freeze has 4")
        return
    page.said = data[::-1].hex().upper()
    if all(b == 0x99 for b in data):
        page.said = "now"


def _baud(page: Page, data: bytes) -> None:
    baud(page, data, BAUD)


def baud(page: Page, data: bytes, rates: Mapping[int, int]) -> None:
    """A baud word by the table of its version."""
    rate = rates.get(data[0]) if len(data) == 1 else None
    page.said = f"{rate} baud" if rate else data.hex().upper()
    if rate is None:
        page.problems.append(f"baud word {data.hex().upper()} names no standard rate")


def _clear_request(page: Page, data: bytes) -> None:
    if len(data) >= 8:
        _credentials(page, data[:8])
    page.said = f"of {data[11:7:-1].hex().upper()}" if len(data) == 12 else ""


def _control_request(page: Page, data: bytes) -> None:
    if len(data) != 16:
        page.problems.append(f"{len(data)} data bytes, a control command has 16")
        page.said = data.hex().upper()
        return
    _credentials(page, data[:8])
    command = CONTROL.get(data[8], "unknown command")
    deadline = wire_time("YYMMDDhhmmss", data[10:])
    page.note("command", command, data[8:9])
    page.note("valid until", deadline, data[10:])
    page.values.append(Value("command", "控制命令", f"{data[8]:02X}", "", "", "", command))
    page.said = f"{command} ({data[8]:02X}), valid until {deadline}"
    if data[8] not in CONTROL:
        page.problems.append(f"control command {data[8]:02X} is unknown")


_REQUESTS: dict[int, Part] = {
    0x08: time,
    0x11: _read_request,
    0x12: _more_request,
    0x13: raw,
    0x14: _write_request,
    0x15: address,
    0x16: _freeze_request,
    0x17: _baud,
    0x18: _password_request,
    0x19: _clear_request,
    0x1A: _clear_request,
    0x1B: _clear_request,
    0x1C: _control_request,
}
_ANSWERS: dict[int, Part] = {
    0x11: _read_answer,
    0x12: _more_answer,
    0x13: address,
    0x14: done,
    0x15: done,
    0x16: done,
    0x17: _baud,
    0x18: _password_answer,
    0x19: done,
    0x1A: done,
    0x1B: done,
    0x1C: done,
}

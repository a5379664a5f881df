"""What the data of a 1997 frame say, function by function: the inner half of `explain`."""

from __future__ import annotations

from headend.protocols.dlt645.exchange import error_text_1997
from headend.protocols.dlt645.frame import Frame
from headend.protocols.dlt645.payload import (
    Page,
    Part,
    address,
    baud,
    decoded,
    done,
    identifier,
    raw,
    take_apart,
    time,
)
from headend.protocols.dlt645.values import decode_item

__all__ = ["BAUD", "FUNCTIONS", "payload", "secrets"]

FUNCTIONS = {
    0x01: "read data",
    0x02: "read follow-up data",
    0x03: "read again",
    0x04: "write data",
    0x08: "broadcast time",
    0x0A: "write address",
    0x0C: "change baud rate",
    0x0F: "change password",
    0x10: "clear demand",
}
# The same byte is another speed than in 2007. 1200 is not in the source, it is the gap in its row.
BAUD = {0x02: 300, 0x04: 600, 0x08: 1200, 0x10: 2400, 0x20: 4800, 0x40: 9600}

_DI = 2
_PASSWORD = 4


def payload(page: Page, frame: Frame) -> None:
    """Write what the data of a 1997 frame say onto `page`."""
    take_apart(page, frame, _REQUESTS, _ANSWERS, error_text_1997)


def secrets(frame: Frame) -> list[tuple[int, int]]:
    """From where to where in the data passwords lie."""
    if frame.function == 0x0F:
        return [(0, len(frame.data))]
    return [(_DI, _DI + _PASSWORD)] if frame.function == 0x04 and not frame.from_meter else []


def _read_request(page: Page, data: bytes) -> None:
    if identifier(page, data, _DI) and data[_DI:]:
        page.note("more data", data[_DI:].hex().upper(), data[_DI:])
        page.problems.append(f"{len(data)} data bytes, a read of 1997 has {_DI}: perhaps the maker's own")


def _read_answer(page: Page, data: bytes) -> None:
    di = identifier(page, data, _DI)
    if di:
        decoded(page, di, data[_DI:])


def _more_answer(page: Page, data: bytes) -> None:
    if identifier(page, data, _DI):
        page.note("continued data", data[_DI:].hex().upper(), data[_DI:])


def _write_request(page: Page, data: bytes) -> None:
    di = identifier(page, data, _DI)
    written = data[_DI + _PASSWORD :]
    if not di:
        return
    if not written:
        page.problems.append(f"{len(data)} data bytes, too few for a password and something to write")
        return
    page.note("password", "4 bytes, not shown", b"")
    page.note("written", written.hex().upper(), written)
    page.values += decode_item(di, written)


def _baud(page: Page, data: bytes) -> None:
    baud(page, data, BAUD)


def _hidden(page: Page, data: bytes) -> None:
    page.said = f"{len(data)} bytes of passwords, not shown"


_REQUESTS: dict[int, Part] = {
    0x01: _read_request,
    0x02: _read_request,
    0x03: raw,
    0x04: _write_request,
    0x08: time,
    0x0A: address,
    0x0C: _baud,
    0x0F: _hidden,
    0x10: raw,
}
_ANSWERS: dict[int, Part] = {
    0x01: _read_answer,
    0x02: _more_answer,
    0x03: _read_answer,
    0x04: done,
    0x0A: done,
    0x0C: _baud,
    0x0F: _hidden,
    0x10: done,
}

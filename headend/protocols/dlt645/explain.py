"""What captured DL/T 645 bytes mean, in words, with everything odd about them. Never raises, whatever the bytes.

Both versions frame alike; the control code tells them apart, for a function that carries data is of one of them only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headend.protocols.dlt645 import payload, payload_1997
from headend.protocols.dlt645.exchange import OF_1997
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
from headend.protocols.dlt645.payload import Page
from headend.protocols.explanation import Explanation

__all__ = ["explain", "explain_1997", "explain_2007", "version_of"]

_RANK = (Look.WHOLE, Look.BAD_SUM, Look.NO_END, Look.SHORT)
_MAX_READ = 200


@dataclass(frozen=True, slots=True)
class _Version:
    """How one version reads a frame. no_reply: functions that may go to the broadcast address."""

    name: str
    other: str
    functions: Mapping[int, str]
    others: frozenset[int]
    no_reply: frozenset[int]
    read: Callable[[Page, Frame], None]


_2007 = _Version("2007", "1997", payload.FUNCTIONS, OF_1997, frozenset({0x08, 0x16}), payload.payload)
_1997 = _Version(
    "1997",
    "2007",
    payload_1997.FUNCTIONS,
    frozenset(payload.FUNCTIONS) - {0x03, 0x08},
    frozenset({0x08}),
    payload_1997.payload,
)


def explain(data: bytes) -> Explanation:
    """The best frame in `data`, field by field, by the version its control code belongs to; 2007 when it is of both.

    `ok` is whether the frame is whole with a right checksum.
    """
    return _explain(data, None)


def explain_2007(data: bytes) -> Explanation:
    """As `explain`, but every frame is read as one of 2007."""
    return _explain(data, _2007)


def explain_1997(data: bytes) -> Explanation:
    """As `explain`, but every frame is read as one of 1997."""
    return _explain(data, _1997)


def version_of(frame: Frame) -> str:
    """`2007`, `1997`, `both` (08 broadcast time; 03, a re-read of 1997 or security of 2007) or "" for neither."""
    if frame.function in (0x03, 0x08):
        return "both"
    if frame.function in OF_1997:
        return "1997"
    return "2007" if frame.function in payload.FUNCTIONS else ""


def _explain(data: bytes, version: _Version | None) -> Explanation:
    found = _find(data)
    if found is None:
        text = "no bytes" if not data else f"{len(data)} bytes, none of them starts a DL/T 645 frame"
        return Explanation(False, text, problems=(text,))
    at, seen = found
    page = Page()
    end = _surroundings(page, data, at, seen)
    if seen is Look.SHORT and len(data) - at < 10:
        page.note("start of a frame", "cut off", data[at:])
        page.problems.append(f"the frame is cut off after {len(data) - at} bytes")
        return Explanation(False, "a frame cut off in its head", tuple(page.fields), (), tuple(page.problems))
    frame = frame_at(data, at)
    if version is None:
        version = _choose(page, frame)
    _head(page, frame, data, at, version)
    version.read(page, frame)
    _tail(page, data, at, end, seen)
    direction = "answer from" if frame.from_meter else "request to"
    name = version.functions.get(frame.function, f"unknown function {frame.function:02X}")
    of = " (DL/T 645-1997)" if version is _1997 else ""
    summary = f"{direction} {address_text(frame.address)}{of}: {name}" + (f": {page.said}" if page.said else "")
    if seen is not Look.WHOLE:
        summary = f"damaged frame ({seen.value}): {summary}"
    return Explanation(seen is Look.WHOLE, summary, tuple(page.fields), tuple(page.values), tuple(page.problems))


def _choose(page: Page, frame: Frame) -> _Version:
    """The version a frame is read by; says so where it might be the other."""
    version = version_of(frame)
    if version != "both":
        return _1997 if version == "1997" else _2007
    if frame.function == 0x08:
        page.note("version", "1997 or 2007: both set the clock with the same bytes", b"")
        return _2007
    chosen = _2007 if len(frame.data) >= 4 or (frame.from_meter and frame.abnormal) else _1997
    reading = "security (2007, SGCC supplement)" if chosen is _2007 else "re-read (1997)"
    page.note("version", f"function 03 is of 1997 and 2007; by its {len(frame.data)} data bytes {reading}", b"")
    return chosen


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


def _surroundings(page: Page, data: bytes, at: int, seen: Look) -> int:
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


def _head(page: Page, frame: Frame, data: bytes, at: int, version: _Version) -> None:
    page.note("start", "68", data[at : at + 1])
    page.note("address", address_text(frame.address), data[at + 1 : at + 7])
    page.note("start", "68", data[at + 7 : at + 8])
    page.note("control", _control_text(frame, version), data[at + 8 : at + 9])
    page.note("length", f"{data[at + 9]} bytes", data[at + 9 : at + 10])
    page.note("data", _data_text(frame, version), data[at + 10 : at + 10 + len(frame.data)])
    bare = frame.address.replace("AA", "")
    if not bare.isdecimal() and bare:
        page.problems.append(f"address {frame.address} has digits above nine")
    if frame.address == BROADCAST and not frame.from_meter and frame.function not in version.no_reply:
        page.problems.append("sent to the broadcast address, which no meter answers")
    if frame.function not in version.functions:
        known = f"it belongs to DL/T 645-{version.other}"
        page.problems.append(
            f"control code {frame.control:02X}: function {frame.function:02X} is not of DL/T 645-{version.name}, "
            + (known if frame.function in version.others else "perhaps the maker's own")
        )
    if frame.from_meter and frame.function in (0x01, 0x02, 0x11, 0x12) and data[at + 9] > _MAX_READ:
        page.problems.append(f"{data[at + 9]} data bytes, an answer to a read has at most {_MAX_READ}")
    if not frame.from_meter and frame.control & 0x60:
        page.problems.append(f"control code {frame.control:02X}: a request with the flags of an answer")


def _control_text(frame: Frame, version: _Version) -> str:
    parts = ["from the meter" if frame.from_meter else "from the master"]
    parts.append(version.functions.get(frame.function, f"function {frame.function:02X}"))
    if frame.abnormal:
        parts.append("refused")
    if frame.more:
        parts.append("more follows")
    return ", ".join(parts)


def _data_text(frame: Frame, version: _Version) -> str:
    """The data without 33H; passwords are not spelled out."""
    if not frame.data:
        return "none"
    hidden = payload.secrets(frame) if version is _2007 else payload_1997.secrets(frame)
    text = frame.data.hex().upper()
    for start, end in hidden:
        text = text[: 2 * start] + "·" * len(text[2 * start : 2 * end]) + text[2 * end :]
    return f"less 33H: {text}"


def _tail(page: Page, data: bytes, at: int, end: int, seen: Look) -> None:
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

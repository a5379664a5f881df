"""DLMS on an M-Bus (EN 13757-3, -2 for the frame): how meters in Austria push over their customer port.

    68 | L | L | 68 | C | A | CI | STSAP | DTSAP | part of an APDU | sum | 16

L counts from C to the last data byte. CI 00 to 1F: its low four bits number the segments, 10H marks the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headend.errors import BadFrame

__all__ = ["START", "Assembler", "Damaged", "Frame", "encode", "take"]

START: Final = 0x68
_END: Final = 0x16
_HEADER: Final = 4
_LEAST: Final = 5  # C, A, CI, STSAP, DTSAP
_LAST: Final = 0x10
_MAX_CI: Final = 0x1F
_SEGMENTS: Final = 16


@dataclass(frozen=True, slots=True)
class Frame:
    """One segment. number: 0 to 15; source and destination: transport service access points; raw: all of it."""

    control: int
    address: int
    number: int
    last: bool
    source: int
    destination: int
    data: bytes
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes that are no good frame."""

    raw: bytes
    why: str


def encode(data: bytes, *, number: int = 0, last: bool = True, source: int = 1, destination: int = 0x67) -> bytes:
    """A frame that holds `data` (at most 250 bytes)."""
    body = bytes((0x53, 0xFF, number | (_LAST if last else 0), source, destination)) + data
    if len(body) > 0xFF:
        raise BadFrame(f"{len(data)} bytes do not fit an M-Bus frame")
    return bytes((START, len(body), len(body), START)) + body + bytes((sum(body) & 0xFF, _END))


def take(buffer: bytearray) -> Frame | Damaged | None:
    """The next of what stands in `buffer`, taken out of it: a frame, bytes that are none, or None: not enough yet."""
    if not buffer:
        return None
    if buffer[0] != START:
        return _drop(buffer, "no M-Bus frame starts here")
    if len(buffer) < _HEADER:
        head_fits = len(buffer) < 3 or buffer[1] == buffer[2]
        return None if head_fits else _drop(buffer, "the two lengths of the M-Bus frame differ")
    length = buffer[1]
    if buffer[2] != length or buffer[3] != START or length < _LEAST:
        return _drop(buffer, "the head of the M-Bus frame is damaged")
    end = _HEADER + length
    if len(buffer) < end + 2:
        return None
    body = bytes(buffer[_HEADER:end])
    if buffer[end] != sum(body) & 0xFF:
        return _drop(buffer, "wrong M-Bus checksum")
    if buffer[end + 1] != _END:
        return _drop(buffer, "no 16 at the end of the M-Bus frame")
    raw = bytes(buffer[: end + 2])
    del buffer[: end + 2]
    if body[2] > _MAX_CI:
        return Damaged(raw, f"the M-Bus frame holds no DLMS (CI {body[2]:02X})")
    return Frame(body[0], body[1], body[2] & 0x0F, bool(body[2] & _LAST), body[3], body[4], body[_LEAST:], raw)


def _drop(buffer: bytearray, why: str) -> Damaged:
    """Give up everything before the next place that may be a start."""
    following = buffer.find(START, 1)
    raw = bytes(buffer[: following if following > 0 else len(buffer)])
    del buffer[: len(raw)]
    return Damaged(raw, why)


class Assembler:
    """Joins segments into APDUs. Holds one unfinished APDU of one sender."""

    __slots__ = ("_next", "_parts", "_sender")

    def __init__(self) -> None:
        self._parts = bytearray()
        self._next = 0
        self._sender = (0, 0)

    @property
    def pending(self) -> bool:
        """Whether segments are missing."""
        return self._next > 0

    def drop(self) -> None:
        """Forget the unfinished APDU."""
        self._parts.clear()
        self._next = 0

    def feed(self, frame: Frame) -> bytes | None:
        """The APDU `frame` completes; None while segments are missing. Raises `BadFrame` when one was lost; a first
        segment then begins anew."""
        sender = (frame.address, frame.source)
        expected, self._next = self._next, 0
        lost = frame.number != expected % _SEGMENTS or (expected > 0 and sender != self._sender)
        if lost:
            self._parts.clear()
            if frame.number:
                raise BadFrame(f"an M-Bus segment was lost before number {frame.number}: the push is dropped")
            expected = 0
        self._parts += frame.data
        if not frame.last:
            self._next, self._sender = expected + 1, sender
            return None
        whole = bytes(self._parts)
        self._parts.clear()
        return whole

"""Frames of DL/T 645 as a meter sees them (standard of 2007, clause 5, the same in 1997): find a request, build an
answer."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Request", "bcd", "build", "encoded", "take", "wire_address"]

_PLUS_33 = bytes((b + 0x33) & 0xFF for b in range(256))
_MINUS_33 = bytes((b - 0x33) & 0xFF for b in range(256))
_HEAD = 10  # 68 A0..A5 68 C L
_NOISE_KEPT = 64  # characters without a start that still count as line time


@dataclass(frozen=True, slots=True)
class Request:
    """A whole, checked frame. address: as on the wire, lowest pair first. data: 33H taken off.
    size: characters it took on the line, with whatever came before it."""

    address: bytes
    control: int
    data: bytes
    size: int


def build(address: bytes, control: int, data: bytes = b"", preamble: int = 0) -> bytes:
    """The frame `[FE]* 68 address 68 C L data+33H CS 16`; `address` lowest pair first."""
    body = b"\x68" + address + bytes((0x68, control, len(data))) + data.translate(_PLUS_33)
    return b"\xfe" * preamble + body + bytes((sum(body) & 0xFF, 0x16))


def take(buffer: bytearray) -> Request | None:
    """Take the first good frame out of `buffer`, with all that stands before it; None if there is none yet.

    68H and 16H may stand in data: a start counts only when second start, end and checksum agree, else the search
    goes on one byte later. A start that may yet become a frame does not hide a whole one behind it.
    """
    start = buffer.find(0x68)
    waiting = False
    while start >= 0:
        end = _end(buffer, start)
        if end > 0:
            frame = bytes(buffer[start:end])
            del buffer[:end]
            return Request(frame[1:7], frame[8], frame[10:-2].translate(_MINUS_33), end)
        waiting = waiting or end == 0
        start = buffer.find(0x68, start + 1)
    if not waiting and len(buffer) > _NOISE_KEPT:
        buffer.clear()
    return None


def _end(buffer: bytearray, start: int) -> int:
    """Where the good frame that starts at `start` ends; 0 if it may still come, -1 if this is no start."""
    size = len(buffer) - start
    if size > 7 and buffer[start + 7] != 0x68:
        return -1
    if size < _HEAD:
        return 0
    end = start + _HEAD + buffer[start + 9] + 2
    if end > len(buffer):
        return 0
    good = buffer[end - 1] == 0x16 and sum(buffer[start : end - 2]) & 0xFF == buffer[end - 2]
    return end if good else -1


def wire_address(digits: str) -> bytes:
    """Twelve digits as on the wire, lowest pair first."""
    return bytes.fromhex(digits)[::-1]


def bcd(value: int, size: int) -> bytes:
    """`value` as `size` bytes of BCD, lowest pair first; a negative one carries its sign in the top bit."""
    raw = bytearray(bytes.fromhex(f"{abs(value):0{2 * size}d}"[-2 * size :])[::-1])
    if value < 0:
        raw[-1] |= 0x80
    return bytes(raw)


def encoded(value: int | tuple[int, ...] | bytes, size: int) -> bytes:
    """A number, or several one after the other, as BCD of `size` bytes each; bytes as they are."""
    if isinstance(value, bytes):
        return value
    return b"".join([bcd(one, size) for one in ((value,) if isinstance(value, int) else value)])

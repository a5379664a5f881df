"""The wrapper of DLMS over TCP and UDP (IEC 62056-47): eight bytes in front of each APDU.

0001 version, source wPort, destination wPort, length of what follows; two bytes each, high byte first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headend.errors import BadFrame

__all__ = ["HEADER_BYTES", "MAX_APDU", "Damaged", "Wpdu", "encode", "take"]

HEADER_BYTES: Final = 8
MAX_APDU: Final = 0xFFFF
_VERSION: Final = b"\x00\x01"


@dataclass(frozen=True, slots=True)
class Wpdu:
    """One APDU with its ports; raw: all of it."""

    source: int
    destination: int
    apdu: bytes
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes that are no wrapper."""

    raw: bytes
    why: str


def encode(source: int, destination: int, apdu: bytes) -> bytes:
    """`apdu` in its wrapper. Raises `BadFrame` when it is empty or too long for one."""
    if not 0 < len(apdu) <= MAX_APDU:
        raise BadFrame(f"{len(apdu)} bytes do not go into one wrapper")
    return b"".join(
        (_VERSION, source.to_bytes(2, "big"), destination.to_bytes(2, "big"), len(apdu).to_bytes(2, "big"), apdu)
    )


def take(buffer: bytearray) -> Wpdu | Damaged | None:
    """The next of what stands in `buffer`, taken out of it: an APDU, bytes that are none, or None: not enough yet."""
    if not buffer:
        return None
    if buffer[:2] != _VERSION[: len(buffer)]:
        return _drop(buffer, "no wrapper of version 1")
    if len(buffer) < HEADER_BYTES:
        return None
    size = buffer[6] << 8 | buffer[7]
    end = HEADER_BYTES + size
    if len(buffer) < end:
        return None
    raw = bytes(buffer[:end])
    del buffer[:end]
    if not size:
        return Damaged(raw, "a wrapper with nothing in it")
    return Wpdu(raw[2] << 8 | raw[3], raw[4] << 8 | raw[5], raw[HEADER_BYTES:], raw)


def _drop(buffer: bytearray, why: str) -> Damaged:
    """Give up everything before the next place that may be a version."""
    count = buffer.find(_VERSION, 1)
    if count < 0:
        count = len(buffer) - (buffer[-1:] == b"\x00" and len(buffer) > 1)
    raw = bytes(buffer[:count])
    del buffer[:count]
    return Damaged(raw, why)

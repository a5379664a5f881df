"""A-XDR (IEC 61334-6) as a DLMS meter speaks it: values to bytes, bytes to values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = [
    "Malformed",
    "Value",
    "array",
    "bits",
    "boolean",
    "date_time",
    "decode",
    "double_long",
    "enum",
    "i8",
    "i16",
    "length",
    "null",
    "obis",
    "obis_text",
    "octets",
    "structure",
    "take_length",
    "text",
    "u8",
    "u16",
    "u32",
    "u64",
    "utf8",
]

Value = tuple[int, Any]  # tag and what it holds: ints, bytes, text, a list of Values

_NUMBERS = {15: (1, True), 16: (2, True), 5: (4, True), 17: (1, False), 18: (2, False), 6: (4, False)} | {
    20: (8, True),
    21: (8, False),
    22: (1, False),
    3: (1, False),
}
_FIXED = {23: 4, 24: 8, 25: 12, 26: 5, 27: 4}
_MOST_DEEP = 16


class Malformed(ValueError):
    """Bytes that are no value or APDU."""


def length(count: int) -> bytes:
    """A length or count: one byte to 127, else 81, 82 or 84 before it."""
    if count < 0x80:
        return bytes((count,))
    size = 1 if count < 0x100 else 2 if count < 0x10000 else 4
    return bytes((0x80 | size,)) + count.to_bytes(size, "big")


def take_length(data: bytes, at: int) -> tuple[int, int]:
    """The length at `at`, and where it ends."""
    if at >= len(data):
        raise Malformed("no length")
    first = data[at]
    if first < 0x80:
        return first, at + 1
    end = at + 1 + (first & 0x7F)
    if first == 0x80 or end > len(data):
        raise Malformed("bad length")
    return int.from_bytes(data[at + 1 : end], "big"), end


def null() -> bytes:
    """null-data."""
    return b"\x00"


def boolean(value: bool) -> bytes:
    """boolean."""
    return bytes((3, 1 if value else 0))


def enum(value: int) -> bytes:
    """enum."""
    return bytes((22, value))


def i8(value: int) -> bytes:
    """integer."""
    return b"\x0f" + value.to_bytes(1, "big", signed=True)


def i16(value: int) -> bytes:
    """long."""
    return b"\x10" + value.to_bytes(2, "big", signed=True)


def double_long(value: int) -> bytes:
    """double-long."""
    return b"\x05" + value.to_bytes(4, "big", signed=True)


def u8(value: int) -> bytes:
    """unsigned."""
    return bytes((17, value))


def u16(value: int) -> bytes:
    """long-unsigned."""
    return b"\x12" + value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    """double-long-unsigned."""
    return b"\x06" + value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    """long64-unsigned."""
    return b"\x15" + value.to_bytes(8, "big")


def octets(value: bytes) -> bytes:
    """octet-string."""
    return b"\x09" + length(len(value)) + value


def text(value: str) -> bytes:
    """visible-string."""
    return b"\x0a" + length(len(value)) + value.encode("ascii")


def utf8(value: str) -> bytes:
    """utf8-string."""
    raw = value.encode()
    return b"\x0c" + length(len(raw)) + raw


def date_time(value: bytes) -> bytes:
    """date-time under its own tag."""
    return b"\x19" + value


def bits(value: str) -> bytes:
    """bit-string of `0` and `1`."""
    padded = value.ljust(-(-len(value) // 8) * 8, "0")
    return b"\x04" + length(len(value)) + bytes(int(padded[k : k + 8], 2) for k in range(0, len(padded), 8))


def array(items: Iterable[bytes]) -> bytes:
    """array of encoded values."""
    all_items = list(items)
    return b"\x01" + length(len(all_items)) + b"".join(all_items)


def structure(*items: bytes) -> bytes:
    """structure of encoded values."""
    return b"\x02" + length(len(items)) + b"".join(items)


def obis(dotted: str) -> bytes:
    """The six bytes of `1.0.1.8.0.255`."""
    raw = bytes(int(part) for part in dotted.split("."))
    if len(raw) != 6:
        raise ValueError(f"{dotted!r} is no OBIS code of six numbers")
    return raw


def obis_text(raw: bytes) -> str:
    """`1.0.1.8.0.255`."""
    return ".".join(str(byte) for byte in raw)


def decode(data: bytes, at: int = 0, deep: int = 0) -> tuple[Value, int]:
    """The value at `at`, and where it ends. Malformed if there is none."""
    if at >= len(data) or deep > _MOST_DEEP:
        raise Malformed("value cut short, or nested too deep")
    tag, at = data[at], at + 1
    if tag == 0:
        return (0, None), at
    if tag in _NUMBERS:
        size, signed = _NUMBERS[tag]
        return (tag, int.from_bytes(_take(data, at, size), "big", signed=signed)), at + size
    if tag in _FIXED:
        return (tag, _take(data, at, _FIXED[tag])), at + _FIXED[tag]
    count, at = take_length(data, at)
    if tag in (9, 10, 12):
        raw = _take(data, at, count)
        return (tag, raw if tag == 9 else raw.decode("utf-8", "replace")), at + count
    if tag == 4:
        size = -(-count // 8)
        raw = _take(data, at, size)
        return (tag, "".join(f"{byte:08b}" for byte in raw)[:count]), at + size
    if tag not in (1, 2):
        raise Malformed(f"tag {tag}")
    items: list[Value] = []
    for _ in range(count):
        item, at = decode(data, at, deep + 1)
        items.append(item)
    return (tag, items), at


def _take(data: bytes, at: int, size: int) -> bytes:
    if at + size > len(data):
        raise Malformed("value cut short")
    return data[at : at + size]

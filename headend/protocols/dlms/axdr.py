"""A-XDR: COSEM data as bytes and back (IEC 62056-5-3 clause 8, IEC 61334-6; types of the Blue Book, table 3).

A claimed length or count is checked against the bytes that are left before anything is made of it, and nesting is
limited, so that damaged bytes cost no more than whole ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import IntEnum
from struct import Struct
from struct import error as struct_error
from typing import Any, Final, NamedTuple

from headend.errors import BadFrame, UsageError

__all__ = [
    "DONT_CARE",
    "NULL",
    "Datum",
    "Tag",
    "decode",
    "decode_all",
    "decode_length",
    "encode",
    "encode_length",
]

MAX_DEPTH: Final = 32  # real data nests four or five deep

# Of a compact array only: how many data one byte of it may become. Null-data takes no room there, so that a few bytes
# could claim millions; no real column list comes near this.
MAX_DATA_PER_BYTE: Final = 32


class Tag(IntEnum):
    """Type tags of COSEM data."""

    NULL = 0
    ARRAY = 1
    STRUCTURE = 2
    BOOLEAN = 3
    BIT_STRING = 4
    DOUBLE_LONG = 5  # int32
    DOUBLE_LONG_UNSIGNED = 6  # uint32
    OCTET_STRING = 9
    VISIBLE_STRING = 10
    UTF8_STRING = 12
    BCD = 13
    INTEGER = 15  # int8
    LONG = 16  # int16
    UNSIGNED = 17  # uint8
    LONG_UNSIGNED = 18  # uint16
    COMPACT_ARRAY = 19
    LONG64 = 20
    LONG64_UNSIGNED = 21
    ENUM = 22
    FLOAT32 = 23
    FLOAT64 = 24
    DATE_TIME = 25
    DATE = 26
    TIME = 27
    DONT_CARE = 255


class Datum(NamedTuple):
    """One value with its type tag.

    value: None (null, don't care), bool, int (integers, enum, BCD: the byte whose hex digits are the decimal ones),
    Decimal (floats: the shortest decimal that is that float), bytes (octet-string, date-time, date, time), str (visible
    and UTF-8 strings; a bit-string as 0s and 1s), tuple of Datum (array, structure). A compact array reads as an array;
    a Datum with the tag of a compact array is written as one.
    """

    tag: int
    value: Any


NULL: Final = Datum(Tag.NULL, None)
DONT_CARE: Final = Datum(Tag.DONT_CARE, None)

_UNPACK: Final = {
    Tag.BCD: Struct(">B"),
    Tag.DOUBLE_LONG: Struct(">i"),
    Tag.DOUBLE_LONG_UNSIGNED: Struct(">I"),
    Tag.INTEGER: Struct(">b"),
    Tag.LONG: Struct(">h"),
    Tag.UNSIGNED: Struct(">B"),
    Tag.LONG_UNSIGNED: Struct(">H"),
    Tag.LONG64: Struct(">q"),
    Tag.LONG64_UNSIGNED: Struct(">Q"),
    Tag.ENUM: Struct(">B"),
    Tag.DATE_TIME: Struct(">12s"),
    Tag.DATE: Struct(">5s"),
    Tag.TIME: Struct(">4s"),
    Tag.BOOLEAN: Struct(">?"),
}
_FLOAT32: Final = Struct(">f")
_FLOAT64: Final = Struct(">d")

_Reader = Callable[[bytes, int], tuple[Any]]

# By tag: reader and size of what has a fixed size and needs no thought.
_FIXED: Final[list[tuple[_Reader, int] | None]] = [
    (_UNPACK[Tag(tag)].unpack_from, _UNPACK[Tag(tag)].size) if tag in _UNPACK else None for tag in range(256)
]
_new_datum: Final = tuple.__new__  # a NamedTuple's own constructor costs three times as much

_COLLECTIONS: Final = (Tag.ARRAY, Tag.STRUCTURE)
_STRINGS: Final = (Tag.OCTET_STRING, Tag.VISIBLE_STRING, Tag.UTF8_STRING)


def decode(data: bytes, offset: int = 0) -> tuple[Datum, int]:
    """The datum at `offset` and the offset after it. Raises `BadFrame` for anything that is none."""
    if offset < 0:
        raise BadFrame("data can't begin before its first byte")
    try:
        items, end = _data(bytes(data), offset, 1, 0)
    except (IndexError, struct_error):
        raise BadFrame(f"data of {len(data)} bytes ends in the middle of a value") from None
    return items[0], end


def decode_all(data: bytes) -> Datum:
    """The one datum that `data` is, to its last byte."""
    datum, end = decode(data)
    if end != len(data):
        raise BadFrame(f"{len(data) - end} byte(s) are left after a value of {end}")
    return datum


def decode_length(data: bytes, offset: int) -> tuple[int, int]:
    """A length or count (short form, or 81, 82, 83, 84 and that many bytes) and the offset after it."""
    try:
        first = data[offset]
    except IndexError:
        raise BadFrame(f"data of {len(data)} bytes ends where a length should be") from None
    offset += 1
    if first < 0x80:
        return first, offset
    size = first & 0x7F
    if not 1 <= size <= 4 or offset + size > len(data):
        raise BadFrame(f"no length can begin with {first:02X} here (byte {offset - 1})")
    return int.from_bytes(data[offset : offset + size], "big"), offset + size


def _data(data: bytes, offset: int, count: int, depth: int) -> tuple[list[Datum], int]:
    """`count` data, each with its tag, from `offset` on. The one hot loop: it is written out for that."""
    items: list[Datum] = []
    append = items.append
    for _ in range(count):
        tag = data[offset]
        offset += 1
        fixed = _FIXED[tag]
        if fixed is not None:
            read, size = fixed
            append(_new_datum(Datum, (tag, read(data, offset)[0])))
            offset += size
        elif tag == 9 and data[offset] < 0x80:
            start = offset + 1
            offset = start + data[offset]
            if offset > len(data):
                raise BadFrame(f"an octet-string of {offset - start} bytes has only {len(data) - start} left")
            append(_new_datum(Datum, (tag, data[start:offset])))
        elif tag == 0:
            append(NULL)
        elif tag == 1 or tag == 2:
            number, offset = decode_length(data, offset)
            _check_count(number, len(data) - offset, depth)
            inner, offset = _data(data, offset, number, depth + 1)
            append(_new_datum(Datum, (tag, tuple(inner))))
        else:
            datum, offset = _rare(data, offset, tag, depth)
            append(datum)
    return items, offset


def _check_count(count: int, left: int, depth: int) -> None:
    if count > left:
        raise BadFrame(f"a collection of {count} values has only {left} byte(s) left")
    if depth >= MAX_DEPTH:
        raise BadFrame(f"data nested more than {MAX_DEPTH} deep")


def _rare(data: bytes, offset: int, tag: int, depth: int) -> tuple[Datum, int]:
    """What `_data` does not do itself: strings, floats, compact arrays, don't care."""
    if tag == Tag.DONT_CARE:
        return DONT_CARE, offset
    if tag == Tag.COMPACT_ARRAY:
        return _compact_array(data, offset, depth)
    value, offset = _untagged(data, offset, tag)
    return Datum(tag, value), offset


def _untagged(data: bytes, offset: int, tag: int) -> tuple[Any, int]:
    """The contents of a simple type, without its tag; compact arrays hold such."""
    fixed = _FIXED[tag]
    if fixed is not None:
        return fixed[0](data, offset)[0], offset + fixed[1]
    if tag == Tag.FLOAT32:
        return _decimal32(_FLOAT32.unpack_from(data, offset)[0]), offset + 4
    if tag == Tag.FLOAT64:
        return Decimal(repr(_FLOAT64.unpack_from(data, offset)[0])), offset + 8
    if tag == Tag.BIT_STRING:
        bits, offset = decode_length(data, offset)
        raw, offset = _slice(data, offset, (bits + 7) // 8)
        return _bits(raw, bits), offset
    if tag in _STRINGS:
        length, offset = decode_length(data, offset)
        raw, offset = _slice(data, offset, length)
        return raw if tag == Tag.OCTET_STRING else _text(tag, raw), offset
    raise BadFrame(f"{tag} is no type of COSEM data (byte {offset - 1})")


def _slice(data: bytes, offset: int, size: int) -> tuple[bytes, int]:
    end = offset + size
    if end > len(data):
        raise BadFrame(f"a string of {size} bytes has only {len(data) - offset} left")
    return data[offset:end], end


def _bits(raw: bytes, bits: int) -> str:
    return f"{int.from_bytes(raw, 'big'):0{len(raw) * 8}b}"[:bits] if bits else ""


def _text(tag: int, raw: bytes) -> str:
    # Latin-1 loses nothing, so a caller who knows the meter's code page can go back to the bytes.
    return raw.decode("latin-1") if tag == Tag.VISIBLE_STRING else raw.decode("utf-8", "backslashreplace")


def _decimal32(value: float) -> Decimal:
    """The shortest decimal that is this 32-bit float."""
    if value != value or value in (float("inf"), float("-inf")):
        return Decimal(repr(value))
    for digits in range(6, 9):
        text = f"{value:.{digits}g}"
        try:
            if _FLOAT32.unpack(_FLOAT32.pack(float(text)))[0] == value:
                return Decimal(text)
        except OverflowError:  # rounded beyond the largest one
            continue
    return Decimal(f"{value:.9g}")


# Compact arrays: the type once, then bare contents.

_Type = tuple[int, int, tuple[Any, ...]]  # tag, number of elements (arrays), types of the elements


def _compact_array(data: bytes, offset: int, depth: int) -> tuple[Datum, int]:
    start = offset
    kind, offset = _type_description(data, offset, depth + 1)
    length, offset = decode_length(data, offset)
    contents, end = _slice(data, offset, length)
    budget = MAX_DATA_PER_BYTE * (end - start)
    items: list[Datum] = []
    position = 0
    while position < length:
        item, after, budget = _contents(contents, position, kind, budget)
        if after == position:
            raise BadFrame("a compact array has contents, but its elements take no room")
        items.append(item)
        position = after
    return Datum(Tag.ARRAY, tuple(items)), end


def _type_description(data: bytes, offset: int, depth: int) -> tuple[_Type, int]:
    if depth >= MAX_DEPTH:
        raise BadFrame(f"data nested more than {MAX_DEPTH} deep")
    tag = data[offset]
    offset += 1
    if tag == Tag.ARRAY:
        count = int.from_bytes(_slice(data, offset, 2)[0], "big")
        kind, offset = _type_description(data, offset + 2, depth + 1)
        return (tag, count, (kind,)), offset
    if tag == Tag.STRUCTURE:
        count, offset = decode_length(data, offset)
        _check_count(count, len(data) - offset, depth)
        kinds: list[_Type] = []
        for _ in range(count):
            kind, offset = _type_description(data, offset, depth + 1)
            kinds.append(kind)
        return (tag, count, tuple(kinds)), offset
    if tag == Tag.COMPACT_ARRAY:
        raise BadFrame("a compact array can't be an element of one")
    return (tag, 0, ()), offset


def _contents(data: bytes, offset: int, kind: _Type, budget: int) -> tuple[Datum, int, int]:
    """One element of a compact array, the offset after it and what is left of the budget."""
    tag, count, kinds = kind
    budget -= 1
    if budget < 0:
        raise BadFrame("a compact array claims far more values than it has bytes")
    if tag == Tag.NULL:
        return NULL, offset, budget
    if tag == Tag.DONT_CARE:
        return DONT_CARE, offset, budget
    if tag not in _COLLECTIONS:
        value, offset = _untagged(data, offset, tag)
        return Datum(tag, value), offset, budget
    inner: list[Datum] = []
    for index in range(count):
        item, offset, budget = _contents(data, offset, kinds[0 if tag == Tag.ARRAY else index], budget)
        inner.append(item)
    return Datum(tag, tuple(inner)), offset, budget


# Encoding


def encode_length(length: int) -> bytes:
    """A length or count in its shortest form."""
    if length < 0x80:
        return bytes((length,))
    raw = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(raw),)) + raw


def encode(datum: Datum) -> bytes:
    """`datum` as bytes. Raises `UsageError` for a value its type can't hold."""
    tag = datum.tag
    if tag in _COLLECTIONS:
        items: Sequence[Datum] = datum.value
        return bytes((tag,)) + encode_length(len(items)) + b"".join(encode(item) for item in items)
    if tag == Tag.COMPACT_ARRAY:
        return _encode_compact(datum.value)
    return bytes((tag & 0xFF,)) + _encode_untagged(tag, datum.value)


def _encode_untagged(tag: int, value: Any) -> bytes:
    try:
        if tag in (Tag.NULL, Tag.DONT_CARE):
            return b""
        if tag in (Tag.DATE_TIME, Tag.DATE, Tag.TIME) and len(value) != _UNPACK[Tag(tag)].size:
            raise ValueError
        if tag in _UNPACK:
            return _UNPACK[Tag(tag)].pack(value)
        if tag in (Tag.FLOAT32, Tag.FLOAT64):
            return (_FLOAT32 if tag == Tag.FLOAT32 else _FLOAT64).pack(float(value))
        if tag == Tag.BIT_STRING:
            padded = value + "0" * (-len(value) % 8)
            return encode_length(len(value)) + (int(padded, 2).to_bytes(len(padded) // 8, "big") if value else b"")
        if tag in _STRINGS:
            raw = (
                value if isinstance(value, bytes) else value.encode("latin-1" if tag == Tag.VISIBLE_STRING else "utf-8")
            )
            return encode_length(len(raw)) + raw
    except (ValueError, TypeError, AttributeError, OverflowError, struct_error):
        raise UsageError(f"{value!r} is no {Tag(tag).name.lower().replace('_', '-')}") from None
    raise UsageError(f"{tag} is no type of COSEM data")


def _encode_compact(items: Sequence[Datum]) -> bytes:
    if not items:
        raise UsageError("an empty compact array has no type", remedy="send an empty array")
    kind = _type_of(items[0])
    if any(_type_of(item) != kind for item in items[1:]):
        raise UsageError("the elements of a compact array are all of one type")
    contents = b"".join(map(_encode_contents, items))
    return bytes((Tag.COMPACT_ARRAY,)) + kind + encode_length(len(contents)) + contents


def _type_of(datum: Datum) -> bytes:
    tag, value = datum
    if tag == Tag.STRUCTURE:
        return bytes((tag,)) + encode_length(len(value)) + b"".join(map(_type_of, value))
    if tag == Tag.ARRAY:
        kinds = {_type_of(item) for item in value}
        if len(kinds) != 1:
            raise UsageError("an array inside a compact array has one type of element, and at least one")
        return bytes((tag,)) + len(value).to_bytes(2, "big") + kinds.pop()
    return bytes((tag,))


def _encode_contents(datum: Datum) -> bytes:
    if datum.tag in _COLLECTIONS:
        return b"".join(map(_encode_contents, datum.value))
    return _encode_untagged(datum.tag, datum.value)

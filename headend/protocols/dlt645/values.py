"""Any item of DL/T 645, 2007 or 1997, as text: what `explain` and a read of one identifier show."""

from __future__ import annotations

import re
from dataclasses import replace

from headend.errors import BadFrame
from headend.protocols.dlt645.bcd import DEMAND_BYTES, all_ff, number
from headend.protocols.dlt645.catalogue import Item, find
from headend.protocols.dlt645.events import event_values
from headend.protocols.dlt645.profile import RECORD_FIELDS, parse_records
from headend.protocols.dlt645.status import status_text
from headend.protocols.dlt645.text import LETTERS, wire_time
from headend.protocols.explanation import Value

__all__ = ["decode_item", "item_parts", "without_end"]

_BLOCK_END = 0xAA  # 1997 blocks may end with it


def decode_item(di: str, data: bytes) -> list[Value]:
    """The values in `data`, the bytes an answer carries after identifier `di`, named by the catalogue. Never raises.

    A block gives one value per item, by the length received. What can't be read has `value` None and says why in
    `note`; an identifier the catalogue does not have gives its bytes in hex.
    """
    item = find(di)
    if item is None:
        return [Value("unknown identifier", "", data.hex().upper(), "", "", di, "not in the catalogue; bytes as sent")]
    if item.kind == "load":
        return _curve_values(item, data) if di.startswith("0610") else _record_values(item, data)
    if not data:
        return [_missing(item, "the meter sent no data: it holds no such record")]
    if (record := event_values(item, data)) is not None:
        return record
    data = without_end(item, data)
    if not data:
        return [_missing(item, "the meter sent only an end mark (AA): it holds no such record")]
    parts = item_parts(item)
    if not parts:
        return [_one(item, item.format, data)]
    size, inner = parts
    if len(data) % size:
        return [_missing(item, f"{len(data)} bytes {data.hex().upper()}, not a multiple of {size}")]
    members = enumerate(_members(item, len(data) // size))
    return [_one(part, inner, data[i * size : (i + 1) * size]) for i, part in members]


def item_parts(item: Item) -> tuple[int, str] | None:
    """For a block of like items the bytes and the format of one; None for anything else."""
    pattern, times, _ = item.format.partition(" × ")
    if not times or item.kind not in ("block", "table"):
        return None
    inner = pattern.strip("()").replace(" ", "")
    return len(re.sub(r"[^XNxYMDhmsW]", "", inner)) // 2, inner


def without_end(item: Item, data: bytes) -> bytes:
    """`data` without the AA that may end a 1997 answer; the same for 2007, where it can't be there."""
    if len(item.di) != 4 or data[-1:] != bytes((_BLOCK_END,)):
        return data
    parts = item_parts(item)
    spare = len(data) % parts[0] if parts else len(data) - (item.size or len(data))
    return data[:-1] if spare == 1 else data


def _members(block: Item, count: int) -> list[Item]:
    """What the items of a block are, by their own identifiers where the catalogue has them."""
    if len(block.di) == 4:
        return [find(f"{block.di[:3]}{i:X}") or _numbered(block, i) for i in range(count)]
    at = next((i for i in (4, 6) if block.di[i : i + 2] == "FF"), None)
    first = 0 if at is not None and _member_di(block, at, 0) else 1
    members = []
    for i in range(count):
        member = _member_di(block, at, first + i) if at is not None else None
        members.append(member or _numbered(block, i))
    return members


def _member_di(block: Item, at: int, number_: int) -> Item | None:
    return find(f"{block.di[:at]}{number_:02X}{block.di[at + 2 :]}")


def _numbered(block: Item, index: int) -> Item:
    freeze_of_rates = block.di.startswith("05") and "(1+k)" in block.format
    label = ("total" if index == 0 else f"rate {index}") if freeze_of_rates else str(index + 1)
    return replace(block, name=f"{block.name}, {label}")


def _missing(item: Item, note: str) -> Value:
    return Value(item.name, item.name_zh, None, item.unit, item.obis, item.di, note)


def _one(item: Item, fmt: str, data: bytes) -> Value:
    if item.size is not None and item_parts(item) is None and len(data) != item.size:
        return _missing(item, f"{len(data)} bytes {data.hex().upper()}, the catalogue says {item.size}")
    if all_ff(data):
        return _missing(item, "not there (all FF)")
    try:
        text, note = _text(item, fmt, data)
    except BadFrame as error:
        return _missing(item, str(error))
    return Value(item.name, item.name_zh, text, item.unit, item.obis, item.di, note)


def _text(item: Item, fmt: str, data: bytes) -> tuple[str, str]:
    """Text and note of one item written as `fmt`."""
    digits = fmt.replace(" ", "")
    if digits == "XX.XXXX+YYMMDDhhmm":
        value = number(data[:DEMAND_BYTES], 4, signed=item.signed)
        when = data[DEMAND_BYTES:]
        return str(value), f"occurred {wire_time('YYMMDDhhmm', when)}" if any(when) else "no demand yet"
    if item.kind == "ascii":
        return "".join(chr(b) if 0x20 <= b < 0x7F else "." for b in data[::-1].strip(b"\0 ")), ""
    if item.kind == "bits" or "bits" in fmt or (item.di.startswith("040005") and fmt == "XXXX"):
        return data[::-1].hex().upper(), _status_note(item.di, data)
    if LETTERS.match(digits) and re.search("hh|DD", digits):
        return wire_time(digits, data), ""
    if re.fullmatch(r"[XNx]+(\.[XN]+)?", digits) and item.kind != "bcd" and len(data) <= 4 and digits != "NNNNNNNN":
        return str(number(data, len(digits.partition(".")[2]), signed=item.signed)), ""
    return data[::-1].hex().upper() if item.kind == "bcd" or digits.strip("N") == "" else data.hex().upper(), ""


def _status_note(di: str, data: bytes) -> str:
    """The flags of a status word; "" for other words."""
    if not di.startswith("040005") or not "01" <= di[6:] <= "07":
        return ""
    return status_text(int(di[6:]), int.from_bytes(data, "little"))


def _curve_values(item: Item, data: bytes) -> list[Value]:
    """A curve of the supplement: its start, then its points."""
    if not data:
        return [_missing(item, "the meter sent no data: it holds no such record")]
    size, point = item.size or 1, item.format.partition("then ")[2].removesuffix(" per point")
    times = 1
    if " × " in point:
        point, _, count = point.partition(" × ")
        times = int(count)
    start, points = data[:5], data[5:]
    if len(start) < 5 or len(points) % size:
        return [_missing(item, f"{len(data)} bytes {data.hex().upper()}: no start time and points of {size} bytes")]
    head = Value(f"{item.name}, start", item.name_zh, wire_time("YYMMDDhhmm", start), "", "", item.di)
    part = replace(item, size=size // times, kind="num")
    values = [head]
    for i in range(0, len(points), size // times):
        nth = i // (size // times)
        label = f"point {nth // times + 1}" + (f", item {nth % times + 1}" if times > 1 else "")
        values.append(_one(replace(part, name=f"{item.name}, {label}"), point, points[i : i + size // times]))
    return values


def _record_values(item: Item, data: bytes) -> list[Value]:
    """Load records: one value per item of each record, its time in the note."""
    if not data:
        return [_missing(item, "the meter sent no data: it holds no such record")]
    values: list[Value] = []
    for record in parse_records(data, int(item.di[2:4], 16)):
        if record.problem:
            values.append(_missing(item, record.problem))
            continue
        when = wire_time("YYMMDDhhmm", record.time)
        for number_, content in sorted(record.classes.items()):
            at = 0
            for name, unit, size, places, signed in RECORD_FIELDS[number_]:
                part = replace(item, name=name, name_zh="", unit=unit, size=size, kind="num", signed=signed, obis="")
                value = _one(part, "X." + "X" * places if places else "X", content[at : at + size])
                values.append(replace(value, note=f"{when}; {value.note}" if value.note else when))
                at += size
    return values

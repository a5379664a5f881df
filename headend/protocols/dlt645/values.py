"""Any item of DL/T 645-2007 as text: what `explain` and a read of one identifier show."""

from __future__ import annotations

import re
from dataclasses import replace

from headend.errors import BadFrame
from headend.protocols.dlt645.bcd import DEMAND_BYTES, all_ff, number
from headend.protocols.dlt645.catalogue import Item, find
from headend.protocols.dlt645.profile import RECORD_FIELDS, parse_records
from headend.protocols.explanation import Value

__all__ = ["STATUS_BITS", "decode_item", "wire_time"]

_LETTERS = re.compile(r"YY|MM|DD|hh|mm|ss|WW|NN")


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
    parts = item_parts(item)
    if not parts:
        return [_one(item, item.format, data)]
    size, inner = parts
    if len(data) % size:
        return [_missing(item, f"{len(data)} bytes {data.hex().upper()}, not a multiple of {size}")]
    return [
        _one(part, inner, data[i * size : (i + 1) * size]) for i, part in enumerate(_members(item, len(data) // size))
    ]


def item_parts(item: Item) -> tuple[int, str] | None:
    """For a block of like items the bytes and the format of one; None for anything else."""
    pattern, times, _ = item.format.partition(" × ")
    if not times or item.kind not in ("block", "table"):
        return None
    inner = pattern.strip("()").replace(" ", "")
    return len(re.sub(r"[^XNxYMDhmsW]", "", inner)) // 2, inner


def _members(block: Item, count: int) -> list[Item]:
    """What the items of a block are, by their own identifiers where the catalogue has them."""
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
        return data[::-1].hex().upper(), ", ".join(_status_bits(item.di, data))
    if _LETTERS.match(digits) and re.search("hh|DD", digits):
        return wire_time(digits, data), ""
    if re.fullmatch(r"[XNx]+(\.[XN]+)?", digits) and item.kind != "bcd" and len(data) <= 4 and digits != "NNNNNNNN":
        return str(number(data, len(digits.partition(".")[2]), signed=item.signed)), ""
    return data[::-1].hex().upper() if item.kind == "bcd" or digits.strip("N") == "" else data.hex().upper(), ""


def wire_time(fmt: str, data: bytes) -> str:
    """A time written highest part first in `fmt` (`YYMMDDWWhhmmss`), as `2018-12-29 18:53:32`."""
    parts = dict(zip(_LETTERS.findall(fmt), (f"{byte:02X}" for byte in data[::-1]), strict=False))
    year = f"20{parts['YY']}" if "YY" in parts else ""
    date = "-".join(p for p in (year, parts.get("MM", ""), parts.get("DD", "")) if p)
    time = ":".join(parts[p] for p in ("hh", "mm", "ss") if p in parts)
    rest = ", ".join(
        text
        for key, text in (("WW", f"weekday {parts.get('WW')}"), ("NN", f"number {parts.get('NN')}"))
        if key in parts
    )
    return ", ".join(p for p in (f"{date} {time}".strip(), rest) if p)


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


# Appendix C of the standard, and bits of the supplements; bit numbers count from the lowest.
_PHASE_BITS = {
    0: "voltage lost",
    1: "undervoltage",
    2: "overvoltage",
    3: "current lost",
    4: "overcurrent",
    5: "overload",
    6: "reverse power flow",
    7: "phase failure",
    8: "current interrupted",
}
STATUS_BITS: dict[str, dict[int, str]] = {
    "04000501": {
        1: "demand by block, not sliding",
        2: "clock battery low",
        3: "reading battery low",
        4: "active power reversed",
        5: "reactive power reversed",
    },
    "04000502": {
        0: "phase A active power reversed",
        1: "phase B active power reversed",
        2: "phase C active power reversed",
        4: "phase A reactive power reversed",
        5: "phase B reactive power reversed",
        6: "phase C reactive power reversed",
    },
    "04000503": {
        0: "second day-table set in use",
        3: "programming enabled",
        4: "relay open",
        6: "relay commanded open",
        7: "alarm before trip",
    },
    "04000504": {bit: f"phase A {text}" for bit, text in _PHASE_BITS.items()},
    "04000505": {bit: f"phase B {text}" for bit, text in _PHASE_BITS.items()},
    "04000506": {bit: f"phase C {text}" for bit, text in _PHASE_BITS.items()},
    "04000507": {
        0: "voltage phase sequence reversed",
        1: "current phase sequence reversed",
        2: "voltage unbalance",
        3: "current unbalance",
        4: "auxiliary power lost",
        5: "power down",
        6: "demand over limit",
    },
}
_SUPPLY = {0: "main supply", 1: "auxiliary supply", 2: "battery supply"}
_PREPAID = {1: "energy prepaid", 2: "money prepaid"}


def _status_bits(di: str, data: bytes) -> list[str]:
    """The set bits of a status word in English."""
    names = STATUS_BITS.get(di)
    if names is None:
        return []
    word = int.from_bytes(data, "little")
    said = [text for bit, text in names.items() if word >> bit & 1]
    if di == "04000503":
        said.insert(0, _SUPPLY.get(word >> 1 & 3, "supply unknown"))
        if "relay open" not in said:
            said.append("relay closed")
        if word >> 8 & 3 in _PREPAID:
            said.append(_PREPAID[word >> 8 & 3])
    return said

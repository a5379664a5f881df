"""Event records (`03xxxxnn`, nn = n-th last, appendix A table A.4): when it began and ended and what was noted with it.

Layouts are data. Times are `ss mm hh DD MM YY` on the meter's own clock. Sources: the standard's table A.4 for names
and lengths; the order within phase and cover records agrees in several independent public implementations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo

from headend.civil import zone
from headend.conversation import Conversation
from headend.errors import BadFrame, Refused, UsageError
from headend.protocols.dlt645.bcd import all_ff, number, second_stamp
from headend.protocols.dlt645.catalogue import Item, find
from headend.protocols.dlt645.exchange import NO_SUCH_DATA, gather
from headend.protocols.dlt645.text import wire_time
from headend.protocols.explanation import Value

__all__ = ["RECORDS_KEPT", "EventRecord", "decode_record", "event_values", "read_events"]

RECORDS_KEPT = 10
EMPTY = "no such event yet"

_GROUP = "write the six hex digits of an event, such as 03300D (cover open) or 031100 (power off)"


@dataclass(frozen=True, slots=True)
class _Part:
    """One stretch of a record. kind: time, short (YYMMDDhhmm), num, hex. places and signed are for numbers."""

    name: str
    name_zh: str
    size: int
    kind: str = "num"
    unit: str = ""
    places: int = 0
    signed: bool = False


_START = _Part("start", "发生时刻", 6, "time")
_END = _Part("end", "结束时刻", 6, "time")
_OPERATOR = _Part("operator", "操作者代码", 4, "hex")
_COUNT = _Part("count", "总次数", 3)
_MINUTES = _Part("accumulated", "总累计时间", 3, unit="min")


def _energy(name: str, zh: str, unit: str = "kWh", *, signed: bool = False) -> _Part:
    return _Part(name, zh, 4, unit=unit, places=2, signed=signed)


def _gains(who: str, zh: str) -> tuple[_Part, ...]:
    """What four energies grew by during the event."""
    return (
        _energy(f"{who}forward active energy gained", f"{zh}正向有功电能增量"),
        _energy(f"{who}reverse active energy gained", f"{zh}反向有功电能增量"),
        _energy(f"{who}combined reactive 1 gained", f"{zh}组合无功1电能增量", "kvarh", signed=True),
        _energy(f"{who}combined reactive 2 gained", f"{zh}组合无功2电能增量", "kvarh", signed=True),
    )


def _moment(letter: str) -> tuple[_Part, ...]:
    """One phase at the start of the event."""
    return (
        _Part(f"voltage phase {letter}", f"{letter}相电压", 2, unit="V", places=1),
        _Part(f"current phase {letter}", f"{letter}相电流", 3, unit="A", places=3, signed=True),
        _Part(f"active power phase {letter}", f"{letter}相有功功率", 3, unit="kW", places=4, signed=True),
        _Part(f"reactive power phase {letter}", f"{letter}相无功功率", 3, unit="kvar", places=4, signed=True),
        _Part(f"power factor phase {letter}", f"{letter}相功率因数", 2, places=3, signed=True),
    )


def _phases(*, moments: bool, amperes: bool) -> tuple[_Part, ...]:
    parts = [_START, _END, *_gains("total ", "总")]
    for letter in "ABC":
        parts += _gains(f"phase {letter} ", f"{letter}相")
        parts += _moment(letter) if moments else ()
    if amperes:
        parts += [
            _Part(f"ampere-hours{who}", f"{zh}安时数", 4, unit="Ah", places=2)
            for who, zh in (("", "总"), (" phase A", "A相"), (" phase B", "B相"), (" phase C", "C相"))
        ]
    return tuple(parts)


_SIX = (
    ("forward active energy", "正向有功电能", "kWh"),
    ("reverse active energy", "反向有功电能", "kWh"),
    ("reactive QI energy", "第一象限无功电能", "kvarh"),
    ("reactive QII energy", "第二象限无功电能", "kvarh"),
    ("reactive QIII energy", "第三象限无功电能", "kvarh"),
    ("reactive QIV energy", "第四象限无功电能", "kvarh"),
)


def _six(who: str, zh: str) -> tuple[_Part, ...]:
    return tuple(_energy(f"{name} {who}", f"{zh}{name_zh}", unit) for name, name_zh, unit in _SIX)


def _cleared_demands() -> tuple[_Part, ...]:
    parts: list[_Part] = []
    for who, zh in (("total", "总"), ("phase A", "A相"), ("phase B", "B相"), ("phase C", "C相")):
        for name, name_zh, unit in _SIX:
            kind, kind_zh = name.replace(" energy", " demand"), name_zh.replace("电能", "最大需量")
            unit = unit.removesuffix("h")
            parts.append(_Part(f"{kind} {who}", f"{zh}{kind_zh}", 3, unit=unit, places=4))
            parts.append(_Part(f"time of {kind} {who}", f"{zh}{kind_zh}发生时间", 5, "short"))
    return tuple(parts)


_COVER = (_START, _END, *_six("before", "开盖前"), *_six("after", "开盖后"))
_LOSS = _phases(moments=True, amperes=True)
_CURRENT = _phases(moments=True, amperes=False)
_FLOW = _phases(moments=False, amperes=False)

# By the first digits of the identifier; the longest that fits counts.
_RECORDS: dict[str, tuple[_Part, ...]] = {
    **dict.fromkeys(("0301", "0302", "0303", "0304"), _LOSS),
    **dict.fromkeys(("030B", "030C", "030D"), _CURRENT),
    **dict.fromkeys(("030E", "030F"), _FLOW),
    "0305": (_START, _Part("current", "电流值", 3, unit="A", places=3), _END),
    "0306": (_START, _END),
    "0311": (_START, _END),
    "0312": (
        _START,
        _END,
        _Part("demand", "需量", 3, unit="kW", places=4),
        _Part("time of demand", "需量发生时间", 5, "short"),
    ),
    "033000": (_START, _OPERATOR, *(_Part(f"written {i}", f"编程数据标识{i}", 4, "hex") for i in range(1, 11))),
    "033001": (
        _START,
        _OPERATOR,
        *_six("total before", "清零前总"),
        *_six("phase A before", "清零前A相"),
        *_six("phase B before", "清零前B相"),
        *_six("phase C before", "清零前C相"),
    ),
    "033002": (_START, _OPERATOR, *_cleared_demands()),
    "033003": (_START, _OPERATOR, _Part("cleared", "事件清零数据标识", 4, "hex")),
    "033004": (
        _OPERATOR,
        _Part("start", "校时前时间", 6, "time"),
        _Part("end", "校时后时间", 6, "time"),
    ),
    "03300C": (_START, _OPERATOR, *(_Part(f"settlement day {i} before", f"第{i}结算日", 2, "hex") for i in (1, 2, 3))),
    "03300D": _COVER,
    "03300E": _COVER,
}
_FALLBACK = (_START, _END)  # of events whose rest is not known
_FALLBACK_OF_PROGRAMMING = (_START, _OPERATOR)


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event a meter has recorded.

    di: its identifier; nn counts back from the last one. start, end: UTC, None when not there (an event that still
    lasts has no end; of a clock setting they are the clock before and after). operator: hex, "" when the event has
    none. values: everything in the record, in its order.
    """

    di: str
    name: str
    name_zh: str
    start: datetime | None
    end: datetime | None
    operator: str
    values: tuple[Value, ...]


def _layout(di: str) -> tuple[_Part, ...]:
    for length in (6, 4):
        if di[:length] in _RECORDS:
            return _RECORDS[di[:length]]
    return _FALLBACK_OF_PROGRAMMING if di.startswith("0330") else _FALLBACK


def _size(parts: tuple[_Part, ...]) -> int:
    return sum(part.size for part in parts)


def _counts(item: Item) -> tuple[_Part, ...]:
    """The layout of an event's counter, by its length."""
    if item.di == "03120000":
        return tuple(_Part(f"count {i}", f"第{i}项总次数", 3) for i in range(1, 7))
    if item.size == 6:
        return (_COUNT, _MINUTES)
    if item.size == 18:
        return tuple(
            _Part(f"{part.name} phase {letter}", f"{letter}相{part.name_zh}", 3, unit=part.unit)
            for letter in "ABC"
            for part in (_COUNT, _MINUTES)
        )
    return (_COUNT,)


def event_values(item: Item, data: bytes) -> list[Value] | None:
    """The parts of an event record or counter by name; None when `item` is neither. Never raises."""
    if item.kind != "event" or not item.di.startswith("03") or item.di[:4] in ("0310", "0333"):
        return None
    if item.di.endswith("00"):
        return _values(item, _counts(item), data, exact=True)
    if not any(data) or all_ff(data):
        return [Value(item.name, item.name_zh, None, "", "", item.di, EMPTY)]
    layout = _layout(item.di)
    known = layout not in (_FALLBACK, _FALLBACK_OF_PROGRAMMING)
    return _values(item, layout, data, exact=known)


def _values(item: Item, parts: tuple[_Part, ...], data: bytes, *, exact: bool) -> list[Value]:
    size = _size(parts)
    if len(data) < size or (exact and len(data) != size):
        note = f"{len(data)} bytes {data.hex().upper()}, {size} are due"
        return [Value(item.name, item.name_zh, None, item.unit, item.obis, item.di, note)]
    values = [_value(item, part, raw) for part, raw in _cut(parts, data)]
    if data[size:]:
        rest = data[size:].hex().upper()
        values.append(Value(f"{item.name}, rest", item.name_zh, rest, "", "", item.di, "layout not known; as sent"))
    return values


def _cut(parts: tuple[_Part, ...], data: bytes) -> Iterator[tuple[_Part, bytes]]:
    at = 0
    for part in parts:
        yield part, data[at : at + part.size]
        at += part.size


def _value(item: Item, part: _Part, raw: bytes) -> Value:
    name = f"{item.name}, {part.name}" if item.di.endswith("00") else part.name
    if all_ff(raw):
        return Value(name, part.name_zh, None, part.unit, "", item.di, "not there (all FF)")
    if part.kind in ("time", "short"):
        if not any(raw):
            return Value(name, part.name_zh, None, "", "", item.di, "all 0: not happened")
        fmt = "YYMMDDhhmmss" if part.kind == "time" else "YYMMDDhhmm"
        return Value(name, part.name_zh, wire_time(fmt, raw), "", "", item.di)
    if part.kind == "hex":
        return Value(name, part.name_zh, raw[::-1].hex().upper(), "", "", item.di)
    try:
        text = str(number(raw, part.places, signed=part.signed))
    except BadFrame as error:
        return Value(name, part.name_zh, None, part.unit, "", item.di, str(error))
    return Value(name, part.name_zh, text, part.unit, "", item.di)


def decode_record(di: str, data: bytes, tz: tzinfo) -> EventRecord | None:
    """The record in `data`, the meter's answer to `di`; None when it holds none. `BadFrame` when it can't be one."""
    item = find(di)
    if item is None:
        raise UsageError(f"{di} is no event record of the catalogue", remedy="`headend catalogue 03` lists them")
    if not any(data) or all_ff(data):
        return None
    values = event_values(item, data)
    layout = _layout(di)
    if values is None or len(data) < _size(layout) or (len(values) == 1 and values[0].value is None):
        raise BadFrame(f"event record {di} of {len(data)} bytes, {_size(layout)} are due")
    parts = {part.name: raw for part, raw in _cut(layout, data)}
    start = second_stamp(parts["start"], tz)
    end = second_stamp(parts["end"], tz) if "end" in parts else None
    operator = parts["operator"][::-1].hex().upper() if "operator" in parts else ""
    return EventRecord(di, item.name, item.name_zh, start, end, operator, tuple(values))


def read_events(
    address: str, di_group: str, count: int = RECORDS_KEPT, *, clock_zone: str = "Asia/Shanghai"
) -> Conversation[list[EventRecord]]:
    """The last `count` (1 to 10) records of an event, newest first; fewer when the meter holds fewer.

    di_group: the first six digits of the identifier (`03300D`), or any of its eight. A record is numbered back from
    the last, so the newest is read once more at the end: if it has changed, everything is read again. Where there is no
    record the event's counter is read too: a meter that refuses even that does not know the event (`Refused`). Raises
    `NoAnswer`, `BadFrame`, `WrongMeter`.
    """
    group = di_group.upper()[:6]
    if len(group) != 6 or find(f"{group}01") is None or not group.startswith("03"):
        raise UsageError(f"{di_group!r} is no event of the catalogue", remedy=_GROUP)
    if not 1 <= count <= RECORDS_KEPT:
        raise UsageError(f"{count} records: a meter keeps 1 to {RECORDS_KEPT}")
    tz = zone(clock_zone)
    for _ in range(2):
        raw = yield from _all(address, group, count)
        newest = yield from _record(address, f"{group}01")
        if newest == (raw[0] if raw else b""):
            found = [decode_record(f"{group}{nth:02X}", data, tz) for nth, data in enumerate(raw, start=1)]
            return [record for record in found if record is not None]
    raise BadFrame("events came while they were read, twice", where=f"meter {address}", remedy="read them again")


def _all(address: str, group: str, count: int) -> Conversation[list[bytes]]:
    """The bytes of the records up to the first the meter does not hold; `Refused` if it knows no such event at all."""
    raw: list[bytes] = []
    for nth in range(1, count + 1):
        data = yield from _record(address, f"{group}{nth:02X}")
        if not data:
            break
        raw.append(data)
    if not raw:
        yield from gather(address, f"{group}00" if find(f"{group}00") else f"{group[:4]}0000")  # its counter
    return raw


def _record(address: str, di: str) -> Conversation[bytes]:
    """One record; empty when the meter holds none there: it says so, or sends nothing, zeros or FF."""
    try:
        data = yield from gather(address, di)
    except Refused as error:
        if error.code is None or not error.code & NO_SUCH_DATA:
            raise
        return b""
    return data if any(data) and not all_ff(data) else b""

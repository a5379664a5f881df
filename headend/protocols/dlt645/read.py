"""Reading a DL/T 645-2007 meter: current registers and momentary values, and the way to curves, freezes, the clock.

Blocks (`..FF..`) save exchanges: five registers cost one at a third of the time. A block holds as many items as the
meter has, so it is read by the length received; a meter that refuses blocks is asked item by item.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Decimal
from functools import lru_cache

from headend.civil import zone
from headend.conversation import Conversation
from headend.errors import BadFrame, NoAnswer, Refused, UsageError, WrongMeter
from headend.model import Cause, Harvest, Meter, Reading, ReadJob, ReadKind, Source
from headend.protocols.dlt645.bcd import all_ff, demand, number
from headend.protocols.dlt645.catalogue import Item, find
from headend.protocols.dlt645.clock import CLOCK_QUANTITY, read_clock
from headend.protocols.dlt645.exchange import READ_ADDRESS, exchange, gather
from headend.protocols.dlt645.frame import ANY_ADDRESS
from headend.protocols.dlt645.freeze import read_freezes, read_timed_freezes
from headend.protocols.dlt645.haul import Haul, cause_of
from headend.protocols.dlt645.profile import read_curve
from headend.protocols.dlt645.settlement import read_settlements
from headend.quantities import Kind, Quantity, quantity

__all__ = ["discover", "read", "read_item"]

_PHASE_BLOCKS = ("0201", "0202")  # voltages, currents: items 1 to 3, no total


def read(meter: Meter, job: ReadJob, *, now: datetime) -> Conversation[Harvest]:
    """Do `job`; `now` is the instant the values are taken for.

    Raises `NoAnswer`, `BadFrame`, `WrongMeter`, `Refused` when nothing was gathered, `Unsupported` when the model has
    no such memory. What came before a failure is returned, the rest as faults. `LineDown` passes through.
    """
    if job.kind is ReadKind.CURVE:
        return (yield from read_curve(meter, job, now=now))
    if job.kind is ReadKind.DAILY_FREEZE:
        return (yield from read_freezes(meter, job, now=now))
    if job.kind is ReadKind.TIMED_FREEZE:
        return (yield from read_timed_freezes(meter, job, now=now))
    if job.kind is ReadKind.SETTLEMENT:
        return (yield from read_settlements(meter, job, now=now))
    names = (CLOCK_QUANTITY,) if job.kind is ReadKind.CLOCK else job.quantities
    return (yield from _read_registers(meter, names, now))


def read_item(address: str, di: str) -> Conversation[bytes]:
    """The data a meter holds for any identifier, as sent (without the identifier)."""
    if len(di) != 8 or not all(c in "0123456789ABCDEFabcdef" for c in di):
        raise UsageError(f"{di!r} is no data identifier", remedy="write eight hex digits, such as 00010000")
    return (yield from gather(address, di))


def discover() -> Conversation[str]:
    """The address of the only meter on a line (function 13 to AA..AA)."""
    frame = yield from exchange(ANY_ADDRESS, READ_ADDRESS)
    return frame.data[::-1].hex().upper()


@dataclass(frozen=True, slots=True)
class _Question:
    """One identifier to read and, for a block, which of its items is which quantity."""

    di: str
    members: tuple[tuple[Quantity, int], ...]
    block: bool


def _read_registers(meter: Meter, names: tuple[str, ...], now: datetime) -> Conversation[Harvest]:
    haul = Haul()
    asked, unknown = _questions(names)
    for name in unknown:
        haul.miss(name, Cause.UNSUPPORTED, "DL/T 645-2007 has no identifier for it")
    questions = list(asked)
    while questions:
        question = questions[0]
        try:
            yield from _ask(meter, question, haul, now)
        except Refused as error:
            if question.block:
                questions[:1] = [_single(q) for q, _ in question.members]
                continue
            haul.refuse(question.members[0][0].name, error)
        except (NoAnswer, BadFrame, WrongMeter) as error:
            if not haul.gathered:
                raise
            for rest in questions:
                for wanted, _ in rest.members:
                    haul.miss(wanted.name, cause_of(error), str(error))
            break
        del questions[0]
    return haul.close()


@lru_cache(maxsize=1024)
def _questions(names: tuple[str, ...]) -> tuple[tuple[_Question, ...], tuple[str, ...]]:
    """What to ask for `names`, in order of first appearance, blocks where two or more share one; and what can't be."""
    groups: dict[str, list[tuple[Quantity, int]]] = {}
    unknown = []
    for one in map(quantity, names):
        if not one.di:
            unknown.append(one.name)
            continue
        block, index = _block(one)
        groups.setdefault(block, []).append((one, index))
    questions = (
        _Question(block, tuple(members), True) if len(members) > 1 else _single(members[0][0])
        for block, members in groups.items()
    )
    return tuple(questions), tuple(unknown)


def _single(one: Quantity) -> _Question:
    return _Question(one.di, ((one, 0),), False)


def _block(one: Quantity) -> tuple[str, int]:
    """The block that `one` is part of and its place there; its own identifier when there is none."""
    if one.kind is Kind.REGISTER:
        return f"{one.di[:4]}FF00", int(one.di[4:6], 16)
    if one.di[:4] in _PHASE_BLOCKS:
        return f"{one.di[:4]}FF00", int(one.di[4:6], 16) - 1
    if one.kind is Kind.STATUS:
        return f"{one.di[:6]}FF", int(one.di[6:8], 16) - 1
    return one.di, 0


def _ask(meter: Meter, question: _Question, haul: Haul, now: datetime) -> Conversation[None]:
    """Ask one question and file its values."""
    if question.members[0][0].name == CLOCK_QUANTITY:
        yield from read_clock(meter, haul, now=now)
        return
    data = yield from gather(meter.address, question.di)
    tz = zone(meter.clock_zone)
    for one, index in question.members:
        item = find(one.di)
        if item is None or item.size is None:
            haul.miss(one.name, Cause.UNSUPPORTED, f"{one.di} is not in the catalogue")
            continue
        problem = _length_problem(data, item.size, question)
        if problem:
            haul.miss(one.name, Cause.BAD_FRAME, problem)
            continue
        _file(haul, one, item, data[index * item.size : (index + 1) * item.size], now, tz)


def _length_problem(data: bytes, size: int, question: _Question) -> str:
    if question.block:
        return f"a block of {len(data)} bytes, not a multiple of {size}" if len(data) % size else ""
    return f"{len(data)} bytes, {size} are due" if len(data) != size else ""


def _file(haul: Haul, one: Quantity, item: Item, raw: bytes, now: datetime, tz: tzinfo) -> None:
    """One value into the haul: a reading, or the fault it is."""
    if not raw:
        haul.miss(one.name, Cause.UNSUPPORTED, "the meter's block does not reach that far")
        return
    if all_ff(raw):
        haul.miss(one.name, Cause.NULL_VALUE, "the meter marks it as not there (FF)")
        return
    source = Source.CURRENT if one.kind is Kind.REGISTER else Source.INSTANT
    try:
        value, occurred_at = _value(one, item, raw, tz)
    except BadFrame as error:
        haul.miss(one.name, Cause.BAD_FRAME, str(error))
        return
    if value is None:
        haul.miss(one.name, Cause.NULL_VALUE, "the meter marks it as not there (FF)")
        return
    haul.readings.append(Reading(one.name, value, now, now, source, occurred_at=occurred_at))


def _value(one: Quantity, item: Item, raw: bytes, tz: tzinfo) -> tuple[Decimal | None, datetime | None]:
    if one.kind is Kind.DEMAND:
        return demand(raw, 4, tz, signed=item.signed)
    if one.kind is Kind.STATUS:
        return Decimal(int.from_bytes(raw, "little")), None
    return number(raw, item.places, signed=item.signed), None

"""DL/T 645-1997, the version before: two-byte identifiers, no address request, no freezes, no load profile.

Frame, checksum and 33H are those of 2007. Which identifier is which quantity is told by the column `maps_to_2007` of
`config/catalogues/dlt645_1997.csv`. A demand and its time are two identifiers (`A0xx`, `B0xx`), the time without a
year. Energies are asked for as blocks where two or more are wanted, all else one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from headend.civil import zone
from headend.conversation import Conversation
from headend.errors import BadFrame, NoAnswer, Refused, Unsupported, UsageError, WrongMeter
from headend.model import Cause, Harvest, Meter, Reading, ReadJob, ReadKind, Source
from headend.protocols.dlt645.bcd import all_ff, number, past_stamp
from headend.protocols.dlt645.catalogue import Item, find, of_1997
from headend.protocols.dlt645.clock import CLOCK_QUANTITY, file_clock, shown_apart
from headend.protocols.dlt645.exchange import NO_SUCH_DATA, READ_1997, READ_ADDRESS, exchange, gather
from headend.protocols.dlt645.frame import ANY_ADDRESS
from headend.protocols.dlt645.haul import Haul, cause_of
from headend.protocols.dlt645.values import without_end
from headend.quantities import Kind, Quantity, quantity

__all__ = ["detect", "discover", "read", "read_item"]

DATE, TIME = "C010", "C011"
FORWARD_TOTAL = "9010"

_PLACE_BYTES = 4  # of an energy
_DEMAND_TRIES = 2


def read(meter: Meter, job: ReadJob, *, now: datetime) -> Conversation[Harvest]:
    """Do `job`; `now` is the instant the values are taken for.

    Registers and clock only; `Unsupported` for everything else. Raises `NoAnswer`, `BadFrame`, `WrongMeter`, `Refused`
    when nothing was gathered; what came before a failure is returned, the rest as faults.
    """
    if job.kind is ReadKind.CLOCK:
        names: tuple[str, ...] = (CLOCK_QUANTITY,)
    elif job.kind is ReadKind.REGISTERS:
        names = job.quantities
    else:
        kind = job.kind.value.replace("_", " ")
        raise Unsupported(
            f"DL/T 645-1997 has no {kind}",
            where=f"meter {meter.id}",
            remedy="read registers and clock, or check that the meter is not of 2007",
        )
    return (yield from _read_registers(meter, names, now))


def read_item(address: str, di: str) -> Conversation[bytes]:
    """The data a meter holds for any identifier, as sent (without the identifier)."""
    if len(di) != 4 or not all(c in "0123456789ABCDEFabcdef" for c in di):
        raise UsageError(f"{di!r} is no data identifier of 1997", remedy="write four hex digits, such as 9010")
    return (yield from gather(address, di))


def discover() -> Conversation[str]:
    """The address of the only meter on a line: whoever answers a read of 9010 to AA..AA.

    1997 has no function that reads the address, so it is the one in the answer's frame, also when the meter does not
    have 9010. A meter that repeats the wildcard instead of its address is a `BadFrame`.
    """
    data = bytes.fromhex(FORWARD_TOTAL)[::-1]
    address = (yield from exchange(ANY_ADDRESS, READ_1997, data, take_refusal=True)).address
    if not address.isdecimal():
        raise BadFrame(
            f"a meter is there, but it answers as {address}", remedy="write the address on the meter's plate"
        )
    return address


def detect() -> Conversation[tuple[str, str]]:
    """Version and address of the only meter on a line: (`2007` or `1997`, address).

    Nothing is written: the 2007 request for the address, and where that is not answered or refused a 1997 read of 9010.
    """
    try:
        frame = yield from exchange(ANY_ADDRESS, READ_ADDRESS)
    except (NoAnswer, Refused):
        return "1997", (yield from discover())
    return "2007", frame.data[::-1].hex().upper()


# --- registers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Question:
    """Quantities that one identifier, or one pair for a demand, answers."""

    di: str
    wanted: tuple[Quantity, ...]

    @property
    def block(self) -> bool:
        return self.di.endswith("F")


def _read_registers(meter: Meter, names: tuple[str, ...], now: datetime) -> Conversation[Harvest]:
    haul = Haul()
    questions = _questions([quantity(name) for name in names], haul)
    while questions:
        question = questions.pop(0)
        try:
            yield from _ask(meter, question, haul, now)
        except Refused as error:
            if question.block:
                questions[:0] = [_Question(of_1997(one.di), (one,)) for one in question.wanted]
            else:
                haul.refuse(question.wanted[0].name, error)
        except (NoAnswer, BadFrame, WrongMeter) as error:
            if not haul.gathered:
                raise
            for rest in (question, *questions):
                for one in rest.wanted:
                    haul.miss(one.name, cause_of(error), str(error))
            break
    return haul.close()


def _questions(wanted: list[Quantity], haul: Haul) -> list[_Question]:
    """What to ask for `wanted`, in order of first appearance."""
    groups: dict[str, list[Quantity]] = {}
    for one in wanted:
        di = DATE if one.name == CLOCK_QUANTITY else of_1997(one.di)
        if not di:
            haul.miss(one.name, Cause.UNSUPPORTED, "DL/T 645-1997 has no identifier for it")
            continue
        groups.setdefault(f"{di[:3]}F" if one.kind is Kind.REGISTER else di, []).append(one)
    return [
        _Question(of_1997(group[0].di) if di.endswith("F") and len(group) == 1 else di, tuple(group))
        for di, group in groups.items()
    ]


def _ask(meter: Meter, question: _Question, haul: Haul, now: datetime) -> Conversation[None]:
    """Ask one question and file its values."""
    first = question.wanted[0]
    if first.name == CLOCK_QUANTITY:
        date, time = yield from shown_apart(meter.address, DATE, TIME)
        file_clock(meter, haul, date, time, now=now)
    elif first.kind is Kind.DEMAND:
        yield from _ask_demand(meter, question, haul, now)
    elif question.block:
        data = yield from gather(meter.address, question.di)
        _file_block(question, data, haul, now)
    else:
        data = yield from gather(meter.address, question.di)
        item = find(question.di)
        assert item is not None, "of_1997 gives identifiers of the catalogue"
        _file(haul, first, item, without_end(item, data), now)


def _file_block(question: _Question, data: bytes, haul: Haul, now: datetime) -> None:
    """Energies by their place in a block: total, rate 1, rate 2, ..."""
    block = find(question.di)
    assert block is not None, "every group of registers has its block in the catalogue"
    data = without_end(block, data)
    for one in question.wanted:
        item = find(of_1997(one.di))
        assert item is not None, "of_1997 gives identifiers of the catalogue"
        if len(data) % _PLACE_BYTES:
            haul.miss(one.name, Cause.BAD_FRAME, f"a block of {len(data)} bytes, not a multiple of {_PLACE_BYTES}")
            continue
        at = _PLACE_BYTES * int(item.di[3], 16)
        raw = data[at : at + _PLACE_BYTES]
        if raw:
            _file(haul, one, item, raw, now)
        else:
            haul.miss(one.name, Cause.UNSUPPORTED, "the meter's block does not reach that far")


def _ask_demand(meter: Meter, question: _Question, haul: Haul, now: datetime) -> Conversation[None]:
    """A maximum demand and its time. The value is asked for again after the time: both must be of one maximum."""
    (one,) = question.wanted
    item = find(question.di)
    assert item is not None, "of_1997 gives identifiers of the catalogue"
    data = yield from gather(meter.address, question.di)
    for _ in range(_DEMAND_TRIES):
        when = yield from _demand_time(meter.address, f"B{question.di[1:]}")
        before, data = data, (yield from gather(meter.address, question.di))
        if before == data:
            break
    else:
        haul.miss(one.name, Cause.BAD_FRAME, "the demand changed each time it was read")
        return
    try:
        occurred_at = past_stamp(when, zone(meter.clock_zone), now) if when else None
    except BadFrame as error:
        haul.miss(one.name, Cause.BAD_FRAME, f"time of the demand: {error}")
        return
    _file(haul, one, item, without_end(item, data), now, occurred_at)


def _demand_time(address: str, di: str) -> Conversation[bytes]:
    """When a demand occurred; empty when the meter does not keep that."""
    item = find(di)
    assert item is not None, "every demand has its time in the catalogue"
    try:
        return without_end(item, (yield from gather(address, di)))
    except Refused as error:
        if error.code is not None and error.code & NO_SUCH_DATA:
            return b""
        raise


def _file(
    haul: Haul, one: Quantity, item: Item, raw: bytes, now: datetime, occurred_at: datetime | None = None
) -> None:
    """One value into the haul: a reading, or the fault it is."""
    if len(raw) != item.size:
        haul.miss(one.name, Cause.BAD_FRAME, f"{len(raw)} bytes, {item.size} are due")
        return
    if all_ff(raw):
        haul.miss(one.name, Cause.NULL_VALUE, "the meter marks it as not there (FF)")
        return
    try:
        value = number(raw, item.places)
    except BadFrame as error:
        haul.miss(one.name, Cause.BAD_FRAME, str(error))
        return
    assert value is not None, "all FF is seen to above"
    source = Source.CURRENT if one.kind is Kind.REGISTER else Source.INSTANT
    haul.readings.append(Reading(one.name, value, now, now, source, occurred_at=occurred_at))

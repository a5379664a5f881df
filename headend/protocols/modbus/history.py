"""What some Modbus meters keep: blocks frozen daily and monthly, newest first, each with its time; and a clock.

Blocks are numbered from the newest, so a number names another day after every midnight. Time and values of a block are
read in one request, and the time in it is believed, never a count of days.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Final

from headend.civil import day_start, local_days, utc, zone
from headend.conversation import Conversation
from headend.errors import BadFrame, NoAnswer, Unsupported, UsageError, WrongMeter
from headend.model import Cause, Meter, Reading, ReadJob, Source, Window
from headend.protocols.modbus.exchange import Talk, read_block
from headend.protocols.modbus.haul import Haul, cause_of
from headend.protocols.modbus.model import History, Register, RegisterMap
from headend.protocols.modbus.values import decode, in_store_units

__all__ = ["CLOCK_QUANTITY", "read_clock", "read_daily", "read_monthly", "stamp_of"]

CLOCK_QUANTITY: Final = "clock_offset_s"

_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)
_STAMP_WORDS: Final = {"ym-dh": 2, "ym-dh-ms": 3}


# -- times -------------------------------------------------------------------------------------------------------------


def stamp_of(data: bytes, tz: tzinfo) -> datetime | None:
    """The instant of a time stamp, a byte each part; None where a block was never written (all FF, all 00)."""
    if not any(data) or data == b"\xff" * len(data):
        return None
    year, month, day, hour, minute, second = (*data, 0, 0)[:6]
    try:
        return utc(datetime(2000 + year, month, day, hour, minute, second, tzinfo=tz))
    except ValueError as error:
        raise BadFrame(f"{data.hex(' ').upper()} is no time: {error}") from error


def read_clock(talk: Talk, meter: Meter, registers: RegisterMap, haul: Haul, *, now: datetime) -> Conversation[None]:
    """The meter's clock minus `now` in whole seconds. Raises `Unsupported` where the model shows none."""
    clock = registers.clock
    if clock is None:
        raise Unsupported(f"the meter model {meter.model.name} shows no clock", where=f"meter {meter.id}")
    words = _STAMP_WORDS[clock.stamp]
    data = yield from read_block(talk, clock.function, clock.address + registers.base, words)
    try:
        shown = stamp_of(data, zone(meter.clock_zone))
    except BadFrame as error:
        haul.miss(CLOCK_QUANTITY, Cause.BAD_FRAME, f"the meter's clock: {error}")
        return
    if shown is None:
        haul.miss(CLOCK_QUANTITY, Cause.NULL_VALUE, "the meter's clock is not set")
        return
    offset = Decimal((shown - now + _SECOND / 2) // _SECOND)
    haul.readings.append(Reading(CLOCK_QUANTITY, offset, now, now, Source.INSTANT))


# -- blocks ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Blocks:
    """The blocks of one history while they are read. seen: time and bytes of each, None for one never written."""

    talk: Talk
    meter: Meter
    registers: RegisterMap
    history: History
    wanted: tuple[Register, ...]
    tz: tzinfo
    now: datetime
    haul: Haul
    source: Source
    ratio: Decimal | None = None
    seen: dict[int, tuple[datetime, bytes] | None] = field(default_factory=dict)

    def miss(self, cause: Cause, detail: str, window: Window | None) -> None:
        for one in self.wanted:
            self.haul.miss(one.name, cause, detail, window)


def read_daily(
    talk: Talk, meter: Meter, registers: RegisterMap, job: ReadJob, haul: Haul, *, now: datetime
) -> Conversation[None]:
    """`job.quantities` at the local midnights in `job.window`, newest first."""
    blocks = _blocks(talk, meter, registers, registers.daily, job, haul, now, Source.DAILY_FREEZE)
    assert job.window is not None
    days = local_days(job.window.start, job.window.end, blocks.tz)
    midnights = sorted((at for day in days if job.window.start <= (at := day_start(day, blocks.tz)) < job.window.end),
                       reverse=True)  # fmt: skip
    if not blocks.wanted:
        return
    for position, midnight in enumerate(midnights):
        try:
            yield from _ratio(blocks)
            block = yield from _locate(blocks, midnight)
            if block is None and (yield from _renumbered(blocks)):
                block = yield from _locate(blocks, midnight)
        except (NoAnswer, BadFrame, WrongMeter) as error:
            if not haul.readings:
                raise
            for rest in midnights[position:]:
                blocks.miss(cause_of(error), str(error), Window(rest, rest + _DAY))
            return
        if block is None:
            detail = "the meter holds no block of this midnight"
            blocks.miss(Cause.NOT_IN_MEMORY, detail, Window(midnight, midnight + _DAY))
        else:
            _file(blocks, midnight, block)


def read_monthly(
    talk: Talk, meter: Meter, registers: RegisterMap, job: ReadJob, haul: Haul, *, now: datetime
) -> Conversation[None]:
    """`job.quantities` of every monthly block whose time lies in `job.window`, newest first."""
    blocks = _blocks(talk, meter, registers, registers.monthly, job, haul, now, Source.SETTLEMENT)
    window = job.window
    assert window is not None
    if not blocks.wanted:
        return
    for number in range(blocks.history.count):
        try:
            yield from _ratio(blocks)
            block = yield from _block(blocks, number)
        except (NoAnswer, BadFrame, WrongMeter) as error:
            if not haul.readings:
                raise
            blocks.miss(cause_of(error), str(error), window)
            return
        if block is None or block[0] < window.start:
            break
        if block[0] < window.end:
            _file(blocks, block[0], block[1])
    if not haul.readings and not haul.faults:
        blocks.miss(Cause.NOT_IN_MEMORY, "no monthly block of the meter is in the window", window)


def _blocks(
    talk: Talk,
    meter: Meter,
    registers: RegisterMap,
    history: History | None,
    job: ReadJob,
    haul: Haul,
    now: datetime,
    source: Source,
) -> _Blocks:
    what = source.name.lower().replace("_", " ")
    if history is None:
        raise Unsupported(f"the meter model {meter.model.name} keeps no {what}", where=f"meter {meter.id}")
    if job.window is None:
        raise UsageError(f"a {what} job needs a window", where=f"meter {meter.id}")
    kept = {one.name: one for one in history.registers}
    for name in job.quantities:
        if name not in kept:
            haul.miss(name, Cause.UNSUPPORTED, f"not in the meter's {what} blocks", job.window)
    wanted = tuple(kept[name] for name in dict.fromkeys(job.quantities) if name in kept)
    return _Blocks(talk, meter, registers, history, wanted, zone(meter.clock_zone), now, haul, source)


def _ratio(blocks: _Blocks) -> Conversation[None]:
    """Read the transformer ratios once, so that frozen and current values are on one side."""
    if blocks.ratio is not None:
        return
    ratio = Decimal(1)
    for name in blocks.history.ratio:
        one = blocks.registers.by_name[name]
        data = yield from read_block(blocks.talk, one.function, one.address + blocks.registers.base, one.words)
        value = decode(one, data)
        if not isinstance(value, Decimal) or value <= 0:
            raise BadFrame(f"{name} is {value}: frozen values can't be brought to one side", where=blocks.talk.where)
        ratio *= value
    blocks.ratio = ratio


def _block(blocks: _Blocks, number: int) -> Conversation[tuple[datetime, bytes] | None]:
    """Time and bytes of the n-th newest block."""
    if number not in blocks.seen:
        history = blocks.history
        words = max(_STAMP_WORDS[history.stamp], *(one.end for one in blocks.wanted))
        address = history.address + number * history.stride + blocks.registers.base
        data = yield from read_block(blocks.talk, history.function, address, words)
        at = stamp_of(data[: 2 * _STAMP_WORDS[history.stamp]], blocks.tz)
        blocks.seen[number] = None if at is None else (at, data)
    return blocks.seen[number]


def _locate(blocks: _Blocks, midnight: datetime) -> Conversation[bytes | None]:
    """The block frozen at `midnight`; None if there is none.

    The newest block tells where to begin; days the meter was off leave no block, so the guess is mended by what the
    block found there says, and at the end the neighbours are looked at one by one.
    """
    newest = yield from _block(blocks, 0)
    if newest is None:
        return None
    number = (newest[0] - midnight) // _DAY
    low, high = 0, blocks.history.count - 1
    while low <= high:
        number = min(max(number, low), high)
        block = yield from _block(blocks, number)
        if block is not None and block[0] == midnight:
            return block[1]
        if block is None or block[0] < midnight:
            high = number - 1  # older, or beyond what was ever written: towards the newer ones
        else:
            low = number + 1
        number = number + (block[0] - midnight) // _DAY if block is not None else (low + high) // 2
    return None


def _renumbered(blocks: _Blocks) -> Conversation[bool]:
    """Whether a new block was frozen since the newest one was read; all are forgotten then."""
    before = blocks.seen.pop(0, None)
    if before == (yield from _block(blocks, 0)):
        return False
    blocks.seen = {0: blocks.seen[0]}
    return True


def _file(blocks: _Blocks, at: datetime, data: bytes) -> None:
    """What is wanted of one block into the haul."""
    window = Window(at, at + _DAY)
    for one in blocks.wanted:
        try:
            value = decode(one, data[2 * one.address : 2 * one.end])
            if value is None or isinstance(value, str):
                blocks.haul.miss(one.name, Cause.NULL_VALUE, "the meter marks it as not there", window)
                continue
            value = in_store_units(one, value * (blocks.ratio or 1))
        except BadFrame as error:
            blocks.haul.miss(one.name, Cause.BAD_FRAME, str(error), window)
            continue
        blocks.haul.readings.append(Reading(one.name, value, at, blocks.now, blocks.source))

"""Reading a Modbus meter: current registers, samples of them, and what some meters keep.

Modbus has no load profile and no clock of its own: a curve is registers asked for at each boundary (`SAMPLE`), and what
is missed is gone. A few meters keep frozen blocks (`history`) or show a clock.
"""

from __future__ import annotations

import zlib
from datetime import datetime

from headend.access import NO_ACCESS, Access
from headend.conversation import Conversation
from headend.errors import BadFrame, Refused, Unsupported, UsageError
from headend.model import Cause, Harvest, Meter, Reading, ReadJob, ReadKind, Source, Window
from headend.protocols.modbus.exchange import Talk
from headend.protocols.modbus.haul import Haul, cause_of
from headend.protocols.modbus.history import read_clock, read_daily, read_monthly
from headend.protocols.modbus.model import Register, RegisterMap, map_of
from headend.protocols.modbus.plan import wanted
from headend.protocols.modbus.registers import Got, Memo, read_registers, value_of
from headend.protocols.modbus.values import in_store_units
from headend.quantities import Kind, quantity

__all__ = ["discover", "read", "talk_of"]


def read(meter: Meter, job: ReadJob, *, now: datetime, access: Access = NO_ACCESS) -> Conversation[Harvest]:
    """Do `job`; `now` is the instant the values are taken for.

    access: its memo remembers where a meter's SunSpec model starts and that a meter refuses gaps. Raises `NoAnswer`,
    `BadFrame`, `WrongMeter`, `Refused` when nothing was gathered, `Unsupported` when the model has no such memory.
    """
    registers = map_of(meter)
    talk = talk_of(meter, registers, f"{meter.id} {job.kind} {job.attempt} {now.isoformat()}")
    haul = Haul()
    if job.kind is ReadKind.CLOCK:
        yield from read_clock(talk, meter, registers, haul, now=now)
    elif job.kind is ReadKind.DAILY_FREEZE:
        yield from read_daily(talk, meter, registers, job, haul, now=now)
    elif job.kind is ReadKind.SETTLEMENT:
        yield from read_monthly(talk, meter, registers, job, haul, now=now)
    elif job.kind is ReadKind.REGISTERS:
        yield from _file_registers(talk, meter, registers, job, haul, access.memo, now=now)
    elif job.kind is ReadKind.SAMPLE:
        yield from _sample(talk, meter, registers, job, haul, access.memo, now=now)
    else:
        raise Unsupported(
            f"a Modbus meter gives no {job.kind.value.replace('_', ' ')}",
            where=f"meter {meter.id}",
            remedy='a model with [curve] form = "sample" has its registers read at each boundary',
        )
    return haul.close()


def discover() -> Conversation[str]:
    """Modbus has no way to ask a line who is on it."""
    raise Unsupported("a Modbus meter can't be asked for its unit id", remedy="its menu or its data sheet tells it")
    yield  # pragma: no cover - makes this a conversation


def talk_of(meter: Meter, registers: RegisterMap, seed: str) -> Talk:
    """The meter's unit on its line. seed: what the transaction ids start from, so that two jobs differ."""
    first = zlib.crc32(seed.encode()) & 0xFFFF
    tcp = meter.protocol == "modbus-tcp"
    return Talk(int(meter.address), tcp, first, late_s=registers.late_s, busy_s=registers.busy_s)


# -- registers to readings ---------------------------------------------------------------------------------------------


def _sample(
    talk: Talk, meter: Meter, registers: RegisterMap, job: ReadJob, haul: Haul, memo: Memo, *, now: datetime
) -> Conversation[None]:
    """The registers as they stand now, filed as the curve's point at the window's start."""
    window, curve = job.window, meter.model.curve
    if window is None or curve is None:
        raise UsageError("a sample needs a window and a model with a curve", where=f"meter {meter.id}")
    if not window.start <= now < window.end:
        for name in job.quantities:
            haul.miss(name, Cause.NOT_IN_MEMORY, "the meter keeps no curve, and this boundary is not now", window)
        return
    yield from _file_registers(talk, meter, registers, job, haul, memo, now=now)
    haul.readings = [
        Reading(one.quantity, one.value, window.start, now, Source.CURVE, curve.step_s) for one in haul.readings
    ]


def _file_registers(
    talk: Talk, meter: Meter, registers: RegisterMap, job: ReadJob, haul: Haul, memo: Memo, *, now: datetime
) -> Conversation[None]:
    asked, unknown = wanted(registers, job.quantities)
    for name in unknown:
        haul.miss(name, Cause.UNSUPPORTED, f"the meter model {meter.model.name} has no register for it", job.window)
    names = [name for name in dict.fromkeys(job.quantities) if name not in unknown]
    if not names:
        return
    got = yield from read_registers(talk, registers, asked, memo=memo, model=meter.model.name)
    if not got.data and got.error is not None:
        raise got.error
    for name in names:
        _file(haul, registers, registers.by_name[name], got, job.window, now)


def _file(haul: Haul, registers: RegisterMap, one: Register, got: Got, window: Window | None, now: datetime) -> None:
    """One register into the haul: a reading, or the fault it is."""
    if not one.quantity:
        haul.miss(one.name, Cause.UNSUPPORTED, "no quantity: it can be shown, not stored", window)
        return
    for needed in filter(None, (one.name, one.scale_register)):
        if needed not in got.data:
            error = got.errors.get(needed) or got.error
            cause = cause_of(error) if error is not None else Cause.NO_ANSWER
            haul.miss(one.name, cause, str(error or "it was not answered"), window)
            if isinstance(error, Refused):
                haul.refused = haul.refused or error
            return
    try:
        value = value_of(registers, one, got.data)
        if value is None or isinstance(value, str):
            haul.miss(one.name, Cause.NULL_VALUE, "the meter marks it as not there", window)
            return
        value = in_store_units(one, value)
    except BadFrame as error:
        haul.miss(one.name, Cause.BAD_FRAME, str(error), window)
        return
    source = Source.CURRENT if quantity(one.quantity).kind is Kind.REGISTER else Source.INSTANT
    haul.readings.append(Reading(one.quantity, value, now, now, source))

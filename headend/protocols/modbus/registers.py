"""A set of registers in as few reads as the meter allows, and their values."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from decimal import Decimal

from headend.conversation import Conversation
from headend.errors import BadFrame, NoAnswer, ProtocolError, Refused, WrongMeter
from headend.protocols.modbus.exchange import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Talk, read_block
from headend.protocols.modbus.model import BITS, Register, RegisterMap
from headend.protocols.modbus.plan import Request, plan
from headend.protocols.modbus.sunspec import base_of
from headend.protocols.modbus.values import decode, exponent

__all__ = ["Got", "Memo", "read_registers", "value_of"]

Memo = MutableMapping[tuple[str, ...], object]

_SPLIT_ON = (ILLEGAL_ADDRESS, ILLEGAL_VALUE)


@dataclass(slots=True)
class Got:
    """The bytes of each register by name; why one was refused; and what ended the reading before its end."""

    data: dict[str, bytes] = field(default_factory=dict)
    errors: dict[str, Refused] = field(default_factory=dict)
    error: ProtocolError | None = None


def read_registers(
    talk: Talk, registers: RegisterMap, asked: tuple[Register, ...], *, memo: Memo, model: str
) -> Conversation[Got]:
    """Read `asked`, in as few reads as the map allows. What a meter refuses as a block it is asked for singly.

    A meter that refuses the registers in between is remembered in `memo` and asked without them from then on. Raises
    nothing a meter does, but for finding the start of a SunSpec model.
    """
    got = Got()
    base = registers.base
    if registers.sunspec:
        base = yield from base_of(talk, registers, memo, model)
    no_gaps = ("modbus", model, "no gaps")
    pending = list(plan(registers, asked, gap=0 if no_gaps in memo else None))
    while pending:
        request = pending.pop(0)
        try:
            data = yield from read_block(talk, request.function, request.address + base, request.count)
        except Refused as error:
            parts = _parts(registers, request) if error.code in _SPLIT_ON else ()
            if len(parts) > 1:
                memo[no_gaps] = True
                pending[:0] = parts
            else:
                got.errors |= {one.name: error for one in request.registers}
        except (NoAnswer, BadFrame, WrongMeter) as error:
            got.error = error
            break
        else:
            for one in request.registers:
                got.data[one.name] = _cut(request, one, data)
    return got


def _parts(registers: RegisterMap, request: Request) -> tuple[Request, ...]:
    """A refused read in smaller ones: without gaps, then register by register."""
    parts = plan(registers, request.registers, gap=0)
    if len(parts) > 1:
        return parts
    return tuple(Request(one.function, one.address, one.words, (one,)) for one in request.registers)


def _cut(request: Request, one: Register, data: bytes) -> bytes:
    """A register's bytes out of a read's."""
    place = one.address - request.address
    if one.function in BITS:
        return bytes((data[place // 8] >> place % 8 & 1,))
    return data[2 * place : 2 * (place + one.words)]


def value_of(registers: RegisterMap, one: Register, data: dict[str, bytes]) -> Decimal | str | None:
    """The register's value in its own unit, with its scale register applied; None where either is marked missing."""
    power: int | None = 0
    if one.scale_register:
        power = exponent(registers.by_name[one.scale_register], data[one.scale_register])
    return None if power is None else decode(one, data[one.name], power)

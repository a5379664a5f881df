"""Writing a register: only those a meter's model allows, sent once, and read back.

A write that got no answer may have been carried out: it is never sent again by itself. Read back, it is known.
"""

from __future__ import annotations

from decimal import Decimal

from headend.conversation import Conversation
from headend.errors import BadFrame, UsageError
from headend.protocols.modbus.exchange import Talk, ask, read_block
from headend.protocols.modbus.frame import Question
from headend.protocols.modbus.library import write_request
from headend.protocols.modbus.model import RegisterMap
from headend.protocols.modbus.values import decode, encode

__all__ = ["write_register"]


def write_register(talk: Talk, registers: RegisterMap, name: str, value: Decimal | str) -> Conversation[None]:
    """Set the register `name` to `value`, in its own unit, and read it back.

    Raises `UsageError` for a register that is not there, is not `writable` in the model or can't hold the value;
    `NoAnswer` when it is not known whether it was carried out; `Refused`; `BadFrame` when another value is there after.
    """
    one = registers.by_name.get(name)
    if one is None or not one.writable:
        remedy = "set writable = true in the meter's model, if its maker says so"
        raise UsageError(f"{name} is not to be written", where=talk.where, remedy=remedy)
    data = encode(one, value)
    pdu = write_request(one.address + registers.base, data, single=registers.single_write)
    tries, talk.tries = talk.tries, 1
    try:
        yield from ask(talk, Question(talk.unit, pdu, pdu[:5], 5))
    finally:
        talk.tries = tries
    there = yield from read_block(talk, one.function, one.address + registers.base, one.words)
    if there != data:
        raise BadFrame(f"{name} is {decode(one, there)} after it was set to {value}", where=talk.where)

"""Any register of a meter by what the wire knows of it: `function:address:words:type`.

`3:0x0100:2:f32`, `4:72:2:f32:little`. Address from 0, decimal or 0x; words 1 and type u16 where left out; the order of
words big or little.
"""

from __future__ import annotations

import re
import zlib
from typing import Final, cast, get_args

from headend.access import Access
from headend.conversation import Conversation
from headend.errors import BadFrame, UsageError
from headend.model import Meter
from headend.protocols.explanation import Value
from headend.protocols.modbus.exchange import Talk, read_block
from headend.protocols.modbus.model import BITS, WORDS, Order, Register, Type, map_of
from headend.protocols.modbus.values import decode, step, text_of

__all__ = ["decode_item", "is_item", "parse_item", "read_item", "value_text"]

_REMEDY: Final = "write function:address:words:type, such as 3:0x0100:2:f32"
_MOST_WORDS: Final = 125
_IDENTIFIER: Final = re.compile(r"[0-9]+:[0-9A-Za-z]+(:[0-9A-Za-z]+){0,3}", re.ASCII)


def parse_item(identifier: str) -> Register:
    """The register an identifier names. Raises `UsageError` for what is none."""
    parts = identifier.strip().lower().split(":")
    if not 2 <= len(parts) <= 5:
        raise UsageError(f"{identifier!r} is no register", remedy=_REMEDY)
    function, address = _number(identifier, parts[0], 1, 4), _number(identifier, parts[1], 0, 0xFFFF)
    kind = parts[3] if len(parts) > 3 else "bool" if function in BITS else "u16"
    if kind not in get_args(Type) or (kind == "bool") != (function in BITS):
        raise UsageError(f"{kind!r} is no type of function {function}", remedy=f"types: {', '.join(get_args(Type))}")
    words = _number(identifier, parts[2], 1, _MOST_WORDS) if len(parts) > 2 else WORDS.get(kind, 1)
    if kind in WORDS and words != WORDS[kind]:
        raise UsageError(f"a {kind} takes {WORDS[kind]} register(s), not {words}", remedy=_REMEDY)
    order = parts[4] if len(parts) > 4 else "big"
    if order not in get_args(Order):
        raise UsageError(f"{order!r} is no order of words", remedy="write big or little")
    name = f"{function}:0x{address:04x}:{words}:{kind}" + (f":{order}" if order != "big" else "")
    kinds, orders = cast(Type, kind), cast(Order, order)
    return Register(name, address, function=function, type=kinds, words=words, word_order=orders)


def _number(identifier: str, text: str, low: int, high: int) -> int:
    try:
        number = int(text, 16 if text.startswith("0x") else 10) if text.isascii() and len(text) <= 8 else -1
    except ValueError:
        number = -1
    if not low <= number <= high:
        what = f"{text!r} in {identifier!r} is no number from {low} to {high}"
        raise UsageError(what, remedy=_REMEDY)
    return number


def read_item(
    address: str, identifier: str, *, meter: Meter | None = None, access: Access | None = None, tcp: bool = False
) -> Conversation[bytes]:
    """The bytes a meter holds there. meter: whose model says how long the line is kept silent after a timeout."""
    one = parse_item(identifier)
    talk = Talk(int(address), tcp, zlib.crc32(f"{address} {identifier}".encode()) & 0xFFFF)
    if meter is not None:
        registers = map_of(meter)
        talk.late_s, talk.busy_s = registers.late_s, registers.busy_s
    return (yield from read_block(talk, one.function, one.address, one.words))


def is_item(text: str) -> bool:
    """Whether a text is meant as such an identifier; it may still be a wrong one."""
    return bool(_IDENTIFIER.fullmatch(text))


def decode_item(identifier: str, data: bytes) -> list[Value]:
    """The bytes as the identifier says they are written; never raises."""
    try:
        one = parse_item(identifier)
    except UsageError as error:
        return [Value(identifier, "", None, "", "", "", str(error))]
    return [value_text(one, data)]


def value_text(one: Register, data: bytes, power: int | None = 0) -> Value:
    """A register's value for people, in its own unit, with what is worth knowing beside it."""
    place = f"{one.function}:0x{one.address:04x}:{one.words}:{one.type}"
    notes = [f"{place} is {data.hex(' ', 2).upper()}", one.note]
    try:
        value = None if power is None else text_of(decode(one, data, power))
        size = step(one, data)
        if size is not None and size > 0:
            notes.append(f"the float's next step is {text_of(size.normalize())} {one.unit}".rstrip())
    except BadFrame as error:
        value = None
        notes.append(str(error))
    return Value(one.name, "", value, one.unit, one.obis, "", "; ".join(filter(None, notes)))

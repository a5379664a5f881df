"""Where a SunSpec meter model starts: the marker, then the chain of models, each with its id and length.

Source: SunSpec Device Information Model Specification: `SunS` at 40000, 50000 or 0, then model after model (id, length,
content), id FFFF at the end.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Final

from headend.conversation import Conversation
from headend.errors import BadFrame, Refused, Unsupported
from headend.protocols.modbus.exchange import Talk, read_block
from headend.protocols.modbus.model import RegisterMap

__all__ = ["MARKER", "STARTS", "base_of", "chain"]

STARTS: Final = (40000, 50000, 0)
MARKER: Final = b"SunS"
_END: Final = 0xFFFF
_MOST_MODELS: Final = 100


def base_of(
    talk: Talk, registers: RegisterMap, memo: MutableMapping[tuple[str, ...], object], model: str
) -> Conversation[int]:
    """The address of the id of the first model that is in `registers.sunspec`.

    A place remembered, or set as `base`, is looked at again before it is believed: models move when a device is given
    another firmware. Raises `Unsupported` when the device is no SunSpec device or has no such model.
    """
    key = ("modbus", model, "sunspec base")
    known = registers.base or memo.get(key, 0)
    if isinstance(known, int) and known:
        try:
            found, _ = yield from _header(talk, known)
        except Refused:
            found = _END
        if found in registers.sunspec:
            return known
    ids = []
    for number, address, _ in (yield from chain(talk, until=registers.sunspec)):
        if number in registers.sunspec:
            memo[key] = address
            return address
        ids.append(str(number))
    wanted = ", ".join(map(str, registers.sunspec))
    raise Unsupported(
        f"the device has SunSpec models {', '.join(ids) or 'none'}, not {wanted}",
        where=talk.where,
        remedy="choose the meter model of a SunSpec model it has",
    )


def chain(talk: Talk, *, until: tuple[int, ...] = ()) -> Conversation[list[tuple[int, int, int]]]:
    """Id, address and length of the device's models, up to the first that is in `until`.

    Raises `Unsupported` when the marker is nowhere.
    """
    for start in STARTS:
        try:
            marker = yield from read_block(talk, 3, start, 2)
        except Refused:
            continue
        if marker == MARKER:
            return (yield from _walk(talk, start + 2, until))
    places = ", ".join(map(str, STARTS))
    raise Unsupported(f"no SunSpec marker at {places}", where=talk.where, remedy="this is no SunSpec device")


def _walk(talk: Talk, address: int, until: tuple[int, ...]) -> Conversation[list[tuple[int, int, int]]]:
    models: list[tuple[int, int, int]] = []
    while address < 0xFFFF - 1:
        try:
            number, length = yield from _header(talk, address)
        except Refused:
            return models  # some devices end without the end's length behind it
        if number == _END:
            return models
        models.append((number, address, length))
        if number in until:
            return models
        if len(models) > _MOST_MODELS:
            break
        address += 2 + length
    raise BadFrame("the chain of SunSpec models has no end", where=talk.where)


def _header(talk: Talk, address: int) -> Conversation[tuple[int, int]]:
    data = yield from read_block(talk, 3, address, 2)
    return int.from_bytes(data[:2], "big"), int.from_bytes(data[2:], "big")

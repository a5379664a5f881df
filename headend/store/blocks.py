"""Blocks: the values of one day, meter, quantity and step, as five packed arrays.

int64 arrays are stored little-endian, byte-shuffled (all lowest bytes first, then the next, ...) and deflated: the
high bytes of neighbouring register values are equal, so shuffling turns them into runs. Byte arrays are only deflated.
A slot without a value has quality `MISSING`, units 0 and outcome 0.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from headend.civil import from_epoch_s
from headend.errors import StoreError
from headend.model import Quality, SlotState

__all__ = [
    "DAY_S",
    "Block",
    "at_s",
    "empty",
    "has_values",
    "pack",
    "pack_bytes",
    "pack_ints",
    "place",
    "slots_between",
    "unpack",
    "unpack_bytes",
    "unpack_ints",
]

DAY_S = 86_400

_WIDTH = 8
# A window of 4 KiB spans our arrays as well as zlib's usual 32 KiB does, to the byte; but zlib clears its tables for
# every array it packs, and these are small: a fifth of the time.
_LEVEL, _WINDOW_BITS, _MEMORY = 6, 12, 5
_INT64_MAX = 2**63 - 1


@dataclass(slots=True)
class Block:
    """A day's arrays, opened for reading or changing. Slot i is at day * 86400 + phase_s + i * step_s."""

    step_s: int
    phase_s: int
    units: array[int]
    qualities: bytearray
    states: bytearray
    causes: bytearray
    outcome_ids: array[int]


def place(at: int, step_s: int) -> tuple[int, int, int]:
    """Day, phase and slot of the instant `at` (epoch seconds) on a grid of `step_s`.

    `StoreError` when a day is no whole number of steps: such a grid drifts through the days and is no load profile.
    """
    if step_s <= 0 or DAY_S % step_s:
        raise StoreError(f"a curve step of {step_s} s does not divide a day", remedy="use a step such as 900 or 3600")
    day, second = divmod(at, DAY_S)
    return day, second % step_s, second // step_s


def at_s(day: int, block: Block, slot: int) -> int:
    """The instant of a slot, in epoch seconds."""
    return day * DAY_S + block.phase_s + slot * block.step_s


def slots_between(day: int, phase_s: int, step_s: int, start: int, end: int) -> range:
    """The slots of a day's grid whose instant lies in `[start, end)`."""
    origin = day * DAY_S + phase_s
    first = max(0, -((origin - start) // step_s))
    stop = min(DAY_S // step_s, -((origin - end) // step_s))
    return range(first, stop)


def empty(step_s: int, phase_s: int) -> Block:
    """A block in which nothing is expected and nothing has come."""
    slots = DAY_S // step_s
    ints = array("q", bytes(_WIDTH * slots))
    return Block(step_s, phase_s, ints, bytearray(slots), bytearray(slots), bytearray(slots), array("q", ints))


def pack_ints(values: array[int]) -> bytes:
    """Deflated bytes of an int64 array, shuffled."""
    if sys.byteorder == "big":
        values = array("q", values)
        values.byteswap()
    plain = values.tobytes()
    return _deflate(b"".join([plain[i::_WIDTH] for i in range(_WIDTH)]))


def pack_bytes(values: bytes | bytearray) -> bytes:
    """Deflated bytes of a byte array."""
    return _deflate(values)


def unpack_ints(packed: bytes, count: int) -> array[int]:
    """The array `pack_ints` packed; `ValueError` if it is not `count` long."""
    plain = _inflate(packed, _WIDTH * count)
    whole = bytearray(len(plain))
    for i in range(_WIDTH):
        whole[i::_WIDTH] = plain[i * count : (i + 1) * count]
    values = array("q", bytes(whole))
    if sys.byteorder == "big":
        values.byteswap()
    return values


def unpack_bytes(packed: bytes, count: int) -> bytearray:
    """The array `pack_bytes` packed; `ValueError` if it is not `count` long."""
    return bytearray(_inflate(packed, count))


def _deflate(plain: bytes | bytearray) -> bytes:
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY)
    return deflater.compress(plain) + deflater.flush()


def _inflate(packed: bytes, size: int) -> bytes:
    try:
        plain = zlib.decompress(packed)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(plain) != size:
        raise ValueError(f"{len(plain)} bytes instead of {size}")
    return plain


def pack(block: Block) -> dict[str, Any]:
    """The columns of a `curve` row that come from the block; its key comes from the caller."""
    count = block.states.count
    held = [units for units, quality in zip(block.units, block.qualities, strict=True) if quality]
    total = sum(held)
    return {
        "step_s": block.step_s,
        "phase_s": block.phase_s,
        "slots": len(block.states),
        "units": pack_ints(block.units),
        "qualities": pack_bytes(block.qualities),
        "states": pack_bytes(block.states),
        "causes": pack_bytes(block.causes),
        "outcome_ids": pack_ints(block.outcome_ids),
        "total": total if held and abs(total) <= _INT64_MAX else None,
        "due": count(SlotState.DUE),
        "got": count(SlotState.GOT),
        "late": count(SlotState.LATE),
        "estimated": count(SlotState.ESTIMATED),
        "waived": count(SlotState.WAIVED),
    }


def unpack(row: RowMapping) -> Block:
    """The block in a `curve` row; `StoreError` naming the row when its bytes are damaged."""
    slots = row["slots"]
    try:
        return Block(
            row["step_s"],
            row["phase_s"],
            unpack_ints(row["units"], slots),
            unpack_bytes(row["qualities"], slots),
            unpack_bytes(row["states"], slots),
            unpack_bytes(row["causes"], slots),
            unpack_ints(row["outcome_ids"], slots),
        )
    except ValueError as error:
        day = from_epoch_s(row["day"] * DAY_S)
        raise StoreError(
            f"damaged curve block: {error}",
            where=f"{day:%Y-%m-%d}, meter key {row['meter_key']}, quantity code {row['quantity_code']}",
            remedy="restore the database from a backup, or delete this row and read the day again",
        ) from error


def has_values(block: Block) -> bool:
    """Whether any slot holds a value."""
    return block.qualities.count(Quality.MISSING) < len(block.qualities)

"""Blocks: the values of one day, meter, quantity and step, as five packed arrays.

Packed tight, int64 arrays are stored little-endian, byte-shuffled (all lowest bytes first, then the next, ...) and
deflated: the high bytes of neighbouring register values are equal, so shuffling turns them into runs. Byte arrays are
only deflated. Packed loose, for days that values still come to, arrays are stored as they are behind a byte that says
so, without the zeros at their end: a byte `00`, or `01` for int64 of which only the low halves are stored, as all high
ones are zero. Tight as well: `02`, how many as four bytes, and the
one int64 that all are equal to. What is deflated begins with none of these
(RFC 1950: the low half of its first byte is 8).
A slot without a value has quality `MISSING`, units 0 and outcome 0.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import RowMapping

from headend.civil import from_epoch_s
from headend.errors import StoreError
from headend.model import Quality, SlotState

__all__ = [
    "DAY_S",
    "PACKED",
    "Block",
    "at_s",
    "damaged",
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
    "unpack_parts",
]

DAY_S = 86_400

_WIDTH = 8
_WHOLE, _HALVES, _SAME = b"\0", b"\1", b"\2"
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


def pack_ints(values: array[int], *, tight: bool = True) -> bytes:
    """Bytes of an int64 array: shuffled and deflated, or loose."""
    if sys.byteorder == "big":
        values = array("q", values)
        values.byteswap()
    plain = values.tobytes()
    if tight:
        if plain[:_WIDTH] * len(values) == plain and len(values) > 1:
            return _SAME + len(values).to_bytes(4, "little") + plain[:_WIDTH]
        return _deflate(b"".join([plain[i::_WIDTH] for i in range(_WIDTH)]))
    halves = array("I", plain)
    if halves[1::2].tobytes().strip(b"\0"):
        return _WHOLE + plain.rstrip(b"\0")
    return _HALVES + halves[::2].tobytes().rstrip(b"\0")


def pack_bytes(values: bytes | bytearray, *, tight: bool = True) -> bytes:
    """Bytes of a byte array: deflated, or loose."""
    return _deflate_flags(bytes(values)) if tight else _WHOLE + bytes(values.rstrip(b"\0"))


def unpack_ints(packed: bytes, count: int) -> array[int]:
    """The array `pack_ints` packed; `ValueError` if it is not `count` long."""
    form = packed[:1]
    if form == _HALVES:
        halves = array("I", bytes(_WIDTH * count))
        halves[::2] = array("I", _filled(packed, _WIDTH // 2 * count))
        values = array("q", halves.tobytes())
    elif form == _SAME:
        held = int.from_bytes(packed[1:5], "little")
        if held != count or len(packed) != 5 + _WIDTH:
            raise ValueError(f"{_WIDTH * held} bytes instead of {_WIDTH * count}")
        values = array("q", packed[5:] * count)
    elif form == _WHOLE:
        values = array("q", _filled(packed, _WIDTH * count))
    else:
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
    return bytearray(_filled(packed, count) if packed[:1] == _WHOLE else _inflate(packed, count))


def _filled(packed: bytes, size: int) -> bytes:
    """What is packed loose, with the zeros at its end."""
    if len(packed) > size + 1:
        raise ValueError(f"{len(packed) - 1} bytes instead of {size}")
    return packed[1:].ljust(size, b"\0")


# Most days are alike in these: all values valid, all in time, no causes.
@lru_cache(maxsize=1024)
def _deflate_flags(plain: bytes) -> bytes:
    return _deflate(plain)


def _deflate(plain: bytes) -> bytes:
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


PACKED = (
    "step_s",
    "phase_s",
    "slots",
    "units",
    "qualities",
    "states",
    "causes",
    "outcome_ids",
    "total",
    "due",
    "got",
    "late",
    "estimated",
    "waived",
)
"""The columns of a `curve` row that come from the block; the rest of its key comes from the caller."""


def pack(block: Block, *, tight: bool = True) -> tuple[Any, ...]:
    """The values of the columns `PACKED`. tight: small on the disk; else quick to open, change and pack again."""
    count = block.states.count
    total = sum(block.units)
    held = total or has_values(block)
    return (
        block.step_s,
        block.phase_s,
        len(block.states),
        pack_ints(block.units, tight=tight),
        pack_bytes(block.qualities, tight=tight),
        pack_bytes(block.states, tight=tight),
        pack_bytes(block.causes, tight=tight),
        pack_ints(block.outcome_ids, tight=tight),
        total if held and abs(total) <= _INT64_MAX else None,
        count(_DUE),
        count(_GOT),
        count(_LATE),
        count(_ESTIMATED),
        count(_WAIVED),
    )


_DUE, _GOT, _LATE = int(SlotState.DUE), int(SlotState.GOT), int(SlotState.LATE)
_ESTIMATED, _WAIVED = int(SlotState.ESTIMATED), int(SlotState.WAIVED)


def unpack(row: Mapping[str, Any] | RowMapping) -> Block:
    """The block in a `curve` row; `StoreError` naming the row when its bytes are damaged."""
    try:
        return unpack_parts(*(row[name] for name in PACKED[:8]))
    except ValueError as error:
        raise damaged(error, row["day"], row["meter_key"], row["quantity_code"]) from error


def unpack_parts(
    step_s: int,
    phase_s: int,
    slots: int,
    units: bytes,
    qualities: bytes,
    states: bytes,
    causes: bytes,
    outcome_ids: bytes,
) -> Block:
    """The block from the first eight of its columns; `ValueError` when they are damaged."""
    return Block(
        step_s,
        phase_s,
        unpack_ints(units, slots),
        unpack_bytes(qualities, slots),
        unpack_bytes(states, slots),
        unpack_bytes(causes, slots),
        unpack_ints(outcome_ids, slots),
    )


def damaged(error: ValueError, day: int, meter_key: int, code: int) -> StoreError:
    """What to say of a block that can't be unpacked."""
    return StoreError(
        f"damaged curve block: {error}",
        where=f"{from_epoch_s(day * DAY_S):%Y-%m-%d}, meter key {meter_key}, quantity code {code}",
        remedy="restore the database from a backup, or delete this row and read the day again",
    )


def has_values(block: Block) -> bool:
    """Whether any slot holds a value."""
    return block.qualities.count(Quality.MISSING) < len(block.qualities)

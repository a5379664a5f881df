"""Values added to a block that is packed loose, without opening it: the usual case while a day goes on.

Only what changes no value already there is done here; for anything else `spliced` says so, and the block is opened.
"""

from __future__ import annotations

import sys
from array import array
from typing import Any, Final

from headend.model import Quality, SlotState
from headend.store.blocks import DAY_S, PACKED
from headend.store.runs import Piece

__all__ = ["COLUMNS", "Row", "blank", "spliced"]

COLUMNS: Final = ("day", "meter_key", "quantity_code", *PACKED)

Row = tuple[Any, ...]
"""A row of `curve`, by `COLUMNS`."""

_WHOLE, _HALVES = 0, 1  # the first byte of an array packed loose (`headend.store.blocks`)
_GOOD = bytes([Quality.VALID, Quality.EDITED])
_DUE, _WAIVED = int(SlotState.DUE), int(SlotState.WAIVED)
_INT64_MAX = 2**63 - 1
_HALF_MAX = 2**32 - 1
_SWAPPED = sys.byteorder == "big"


def blank(key: tuple[int, int, int, int], phase_s: int) -> Row:
    """A block in which nothing is expected and nothing has come."""
    day, meter_key, code, step_s = key
    arrays = (b"\1", b"\0", b"\0", b"\0", b"\1")
    return (day, meter_key, code, step_s, phase_s, DAY_S // step_s, *arrays, None, 0, 0, 0, 0, 0)


def spliced(row: Row, piece: Piece) -> Row | None:
    """The row with the values of `piece` in it; None when the block must be opened for them.

    Must be: it is packed tight or now full, on another grid, a slot is taken, a value is doubted or needs 64 bits.
    """
    day, meter_key, code, step_s, phase_s, slots, units, qualities, states, causes, ids = row[:11]
    _, piece_phase_s, slot, run, first, stop = piece
    if phase_s != piece_phase_s or units[0] != _HALVES or ids[0] != _HALVES or qualities[0] or states[0] or causes[0]:
        return None
    number = stop - first
    begin, end = 1 + slot, 1 + slot + number
    came = run.qualities if number == len(run.qualities) else run.qualities[first:stop]
    if qualities[begin:end].strip(b"\0") or came.strip(_GOOD):
        return None
    if number == 1:
        added = run.units[first]
        data = added.to_bytes(4, "little") if 0 <= added <= _HALF_MAX else None
    else:
        data, added = _data(run.units, first, stop)
    if data is None or run.outcome_id > _HALF_MAX:
        return None
    total, due, got, came_late, estimated, waived = row[11:]
    if total is None and qualities.strip(b"\0"):  # past what can be summed
        return None
    total = added + (total or 0)
    qualities = _put(qualities, begin, came)
    if total > _INT64_MAX or (len(qualities) > slots and qualities.count(0) == 1):
        return None
    if len(states) > begin and (before := states[begin:end].strip(b"\0")):
        due -= before.count(_DUE)
        waived -= before.count(_WAIVED)
        causes = _put(causes, begin, bytes(number)) if len(causes) > begin else causes
    late = piece.late()
    return (
        day,
        meter_key,
        code,
        step_s,
        phase_s,
        slots,
        _put(units, 1 + 4 * slot, data),
        qualities,
        _put(states, begin, piece.states(late)),
        causes,
        _put(ids, 1 + 4 * slot, run.outcome_id.to_bytes(4, "little") * number),
        total,
        due,
        got + number - late,
        came_late + late,
        estimated,
        waived,
    )


def _data(units: array[int], first: int, stop: int) -> tuple[bytes | None, int]:
    """Values as 32-bit halves, and their sum; None for the bytes when one does not fit."""
    some = units[first:stop]
    if min(some) < 0 or max(some) > _HALF_MAX:
        return None, 0
    halves = array("I", some)
    if _SWAPPED:
        halves.byteswap()
    return halves.tobytes(), sum(some)


def _put(packed: bytes, begin: int, data: bytes) -> bytes:
    """`packed` with `data` from `begin` on; beyond its end there are zeros."""
    if len(packed) <= begin:
        return packed.ljust(begin, b"\0") + data
    return packed[:begin] + data + packed[begin + len(data) :]

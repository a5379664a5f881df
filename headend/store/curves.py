"""Writing curves: arrivals grouped by block, each block opened once, changed in memory, written back once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from headend.civil import to_epoch_s
from headend.model import Quality, SlotState, Source
from headend.store import schema
from headend.store.blocks import DAY_S, Block, damaged, empty, pack, place, slots_between, unpack_parts
from headend.store.loose import COLUMNS, Row, blank, spliced
from headend.store.merge import Arrival, History, Mark, known_history, lock_meters, marked, settle, slot_after
from headend.store.portable import put_rows, rows_among, rows_at
from headend.store.runs import Piece, Run, pieces

__all__ = ["BlockKey", "load_blocks", "open_from", "save_blocks", "tighten", "write_curves"]

BlockKey = tuple[int, int, int, int]
"""Day, meter key, quantity code, step_s."""


def load_blocks(conn: Connection, wanted: Collection[tuple[int, int, int]]) -> dict[BlockKey, Block]:
    """The blocks there are, of every step, for each (day, meter key, quantity code)."""
    return {key: _opened(row) for key, row in _load(conn, wanted).items()}


def _opened(row: Row) -> Block:
    try:
        return unpack_parts(*row[3:11])
    except ValueError as error:
        raise damaged(error, *row[:3]) from error


def _load(conn: Connection, wanted: Collection[tuple[int, int, int]]) -> dict[BlockKey, Row]:
    """The rows there are: by day and quantity when many meters have these in common, else key by key."""
    meters: dict[tuple[int, int], list[int]] = {}
    for day, meter_key, code in wanted:
        meters.setdefault((day, code), []).append(meter_key)
    rows: list[Row] = []
    if len(meters) * 8 > len(wanted):
        for found in rows_at(conn, schema.curve, COLUMNS[:3], wanted):
            rows.append(tuple(found[name] for name in COLUMNS))
    else:
        for (day, code), keys in meters.items():
            rows += rows_among(conn, schema.curve, COLUMNS, "meter_key", sorted(keys), day=day, quantity_code=code)
    return {row[:4]: row for row in rows}


# Values still come to today's blocks and yesterday's; older ones, and full ones, are rarely touched again.
_OPEN_DAYS = 2


def open_from() -> int:
    """The first day whose blocks are packed loose."""
    return to_epoch_s(datetime.now(UTC)) // DAY_S - _OPEN_DAYS + 1


def save_blocks(conn: Connection, blocks: Mapping[BlockKey, Block], changed: Iterable[BlockKey]) -> None:
    """Write the changed blocks."""
    _save(conn, _packed(blocks, changed))


def _packed(blocks: Mapping[BlockKey, Block], changed: Iterable[BlockKey]) -> list[Row]:
    first_open = open_from()
    rows: list[Row] = []
    for key in changed:
        block = blocks[key]
        tight = key[0] < first_open or Quality.MISSING not in block.qualities
        rows.append((*key[:3], *pack(block, tight=tight)))
    return rows


_REPLACE = "ON CONFLICT (day, meter_key, quantity_code, step_s) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}" for name in COLUMNS[4:]
)


def _save(conn: Connection, rows: Iterable[Row]) -> None:
    """Write rows in the order of their key: so two writers never wait for each other in a ring."""
    put_rows(conn, schema.curve, COLUMNS, sorted(rows), _REPLACE)


def tighten(conn: Connection, day: int, most: int = 500) -> int:
    """Pack tight what is left loose of a past day, `most` blocks at a time; how many there were.

    A day's last value packs its block tight; one with gaps stays loose until this is done. Days still open: 0.
    """
    if day >= open_from():
        return 0
    table = schema.curve
    loose = func.substr(table.c.units, 1, 1).in_([b"\0", b"\1"])
    keys = select(table.c.day, table.c.meter_key, table.c.quantity_code).where(table.c.day == day, loose)
    wanted = {(row.day, row.meter_key, row.quantity_code) for row in conn.execute(keys.limit(most))}
    lock_meters(conn, {key[1] for key in wanted})
    blocks = load_blocks(conn, wanted)
    save_blocks(conn, blocks, blocks)
    return len(wanted)


def write_curves(conn: Connection, history: History, steps: Sequence[Arrival | Mark | Run]) -> list[Arrival]:
    """Put curve arrivals, runs and marks into their blocks, in the order given.

    Returns the arrivals that are off their block's grid (the meter's clock zone or grid changed within the day): they
    fit no slot and are for the caller to keep as values that stand alone.
    """
    placed = list(_placed(steps))
    rows = _load(conn, _touched(placed))
    done = _spliced(rows, placed, history)
    if done:
        placed = [step for step in placed if isinstance(step, Mark) or step.key not in done]
    blocks = {key: _opened(row) for key, row in rows.items() if key not in done}
    changed, strays = _merged(conn, history, blocks, placed)
    _save(conn, [*done.values(), *_packed(blocks, changed)])
    return strays


def _spliced(rows: Mapping[BlockKey, Row], placed: Iterable[_Step], history: History) -> dict[BlockKey, Row]:
    """The rows, changed, of those blocks to which values are only added and that need not be opened for it."""
    first_open = open_from()
    closed: set[tuple[int, ...]] = set()
    added: dict[BlockKey, list[Piece]] = {}
    for step in placed:
        if isinstance(step, Piece) and step.key[0] >= first_open:
            added.setdefault(step.key, []).append(step)
        else:
            closed.add((step.meter_key, step.code) if isinstance(step, Mark) else step.key)
    done: dict[BlockKey, Row] = {}
    for key, parts in added.items():
        if closed and (key in closed or key[1:3] in closed):
            continue
        row = rows.get(key)
        changed: Row | None = blank(key, parts[0].phase_s) if row is None else row
        for part in parts:
            changed = None if changed is None else spliced(changed, part)
        if changed is not None:
            done[key] = changed
            for part in parts:
                history.count_new(part.run.outcome_id, part.stop - part.first)
    return done


def _merged(
    conn: Connection, history: History, blocks: dict[BlockKey, Block], placed: Sequence[_Step]
) -> tuple[set[BlockKey], list[Arrival]]:
    """Put the steps into the opened blocks; which of them changed, and what is off their grids."""
    _add_missing(blocks, placed)
    placed = list(_apart(blocks, placed))
    known_history(conn, history, _conflicts(blocks, placed))
    curves: dict[tuple[int, int], list[BlockKey]] = {}
    if any(isinstance(step, Mark) for step in placed):
        for key in blocks:
            curves.setdefault((key[1], key[2]), []).append(key)
    changed: set[BlockKey] = set()
    strays: list[Arrival] = []
    for step in placed:
        if isinstance(step, Mark):
            meant = curves.get((step.meter_key, step.code), []) if Source.CURVE in step.sources else []
            changed.update(_apply_mark(blocks, meant, step))
        elif blocks[step.key].phase_s != step.phase_s:
            assert isinstance(step, _Placed)
            strays.append(step.arrival)
        elif _apply(blocks[step.key], step, history):
            changed.add(step.key)
    return changed, strays


def _apply(block: Block, step: _Placed | Piece, history: History) -> bool:
    """Put one value or piece into its block; whether anything changed."""
    if isinstance(step, _Placed):
        return _apply_arrival(block, step.slot, step.arrival, history)
    if step.fits(block):
        return step.put(block, history)
    # Another piece of this batch came first.
    changes = [
        _apply_arrival(block, step.slot + offset, arrival, history) for offset, arrival in enumerate(step.arrivals())
    ]
    return any(changes)


class _Placed(NamedTuple):
    """An arrival with its place: block, phase of the grid it is on, slot."""

    key: BlockKey
    phase_s: int
    slot: int
    arrival: Arrival

    @classmethod
    def of(cls, arrival: Arrival) -> _Placed:
        day, phase_s, slot = place(arrival.at, arrival.step_s)
        return cls((day, arrival.meter_key, arrival.code, arrival.step_s), phase_s, slot, arrival)


_Step = _Placed | Piece | Mark


def _placed(steps: Iterable[Arrival | Mark | Run]) -> Iterator[_Step]:
    """The steps with their places: runs as pieces, arrivals as what is placed."""
    for step in steps:
        if isinstance(step, Run):
            for part in pieces(step):
                yield _Placed.of(part) if isinstance(part, Arrival) else part
        else:
            yield _Placed.of(step) if isinstance(step, Arrival) else step


def _apart(blocks: Mapping[BlockKey, Block], placed: Iterable[_Step]) -> Iterator[_Step]:
    """Pieces that don't fit their block taken apart into their values."""
    for step in placed:
        if isinstance(step, Piece) and not step.fits(blocks[step.key]):
            yield from map(_Placed.of, step.arrivals())
        else:
            yield step


def _touched(placed: Iterable[_Step]) -> set[tuple[int, int, int]]:
    touched = set()
    for step in placed:
        if not isinstance(step, Mark):
            touched.add(step.key[:3])
        elif Source.CURVE in step.sources and step.end > step.start:
            days = range(step.start // DAY_S, (step.end - 1) // DAY_S + 1)
            touched.update((day, step.meter_key, step.code) for day in days)
    return touched


def _add_missing(blocks: dict[BlockKey, Block], placed: Iterable[_Step]) -> None:
    """New blocks for values that have none, on the grid most of them are on."""
    phases: dict[BlockKey, Counter[int]] = {}
    for step in placed:
        if not isinstance(step, Mark) and step.key not in blocks:
            counted = phases.setdefault(step.key, Counter())
            counted[step.phase_s] += step.stop - step.first if isinstance(step, Piece) else 1
    for key, counted in phases.items():
        blocks[key] = empty(key[3], min(counted, key=lambda phase_s: (-counted[phase_s], phase_s)))


def _conflicts(blocks: Mapping[BlockKey, Block], placed: Iterable[_Step]) -> Iterator[tuple[Arrival, int]]:
    """Arrivals that meet a different value, with that value's outcome."""
    for step in placed:
        if isinstance(step, _Placed):
            block, slot = blocks[step.key], step.slot
            differs = block.qualities[slot] and block.units[slot] != step.arrival.units
            if differs and block.phase_s == step.phase_s:
                yield step.arrival, block.outcome_ids[slot]


def _apply_arrival(block: Block, slot: int, arrival: Arrival, history: History) -> bool:
    """Put one value into its slot; whether anything changed."""
    held = block.qualities[slot]
    if held == Quality.MISSING:
        history.count_new(arrival.outcome_id)
    placed = held == Quality.MISSING or settle(history, arrival, block.units[slot], held, block.outcome_ids[slot])
    if placed:
        block.units[slot] = arrival.units
        block.qualities[slot] = arrival.quality
        block.outcome_ids[slot] = arrival.outcome_id
    before = block.states[slot], block.causes[slot]
    after = slot_after(*before, arrival)
    block.states[slot], block.causes[slot] = after
    return placed or after != before


def _apply_mark(blocks: Mapping[BlockKey, Block], keys: Iterable[BlockKey], mark: Mark) -> Iterator[BlockKey]:
    """Set the cause of due slots in the mark's window, in the blocks of `keys`; yields those that changed."""
    after = marked(mark)
    for key in keys:
        block = blocks[key]
        for slot in slots_between(key[0], block.phase_s, block.step_s, mark.start, mark.end):
            state = block.states[slot]
            if state == SlotState.DUE and (state, block.causes[slot]) != after:
                block.states[slot], block.causes[slot] = after
                yield key

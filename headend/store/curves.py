"""Writing curves: arrivals grouped by block, each block opened once, changed in memory, written back once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from headend.model import Quality, SlotState, Source
from headend.store import schema
from headend.store.blocks import DAY_S, Block, empty, pack, place, slots_between, unpack
from headend.store.merge import Arrival, History, Mark, known_history, marked, settle, slot_after
from headend.store.portable import rows_at, upsert

__all__ = ["BlockKey", "load_blocks", "save_blocks", "write_curves"]

BlockKey = tuple[int, int, int, int]
"""Day, meter key, quantity code, step_s."""


def load_blocks(conn: Connection, wanted: Iterable[tuple[int, int, int]]) -> dict[BlockKey, Block]:
    """The blocks there are, of every step, for each (day, meter key, quantity code)."""
    found = rows_at(conn, schema.curve, ("day", "meter_key", "quantity_code"), set(wanted))
    return {(row["day"], row["meter_key"], row["quantity_code"], row["step_s"]): unpack(row) for row in found}


def save_blocks(conn: Connection, blocks: dict[BlockKey, Block], changed: Iterable[BlockKey]) -> None:
    """Write the changed blocks, in the order of their key so that two writers never wait for each other in a ring."""
    rows = []
    for key in sorted(changed):
        day, meter_key, code, _ = key
        row: dict[str, Any] = {"day": day, "meter_key": meter_key, "quantity_code": code}
        rows.append(row | pack(blocks[key]))
    upsert(conn, schema.curve, rows)


def write_curves(conn: Connection, history: History, steps: Sequence[Arrival | Mark]) -> list[Arrival]:
    """Put curve arrivals and marks into their blocks, in the order given.

    Returns the arrivals that are off their block's grid (the meter's clock zone or grid changed within the day): they
    fit no slot and are for the caller to keep as values that stand alone.
    """
    placed = [_Placed.of(step) if isinstance(step, Arrival) else step for step in steps]
    arrivals = [step for step in placed if isinstance(step, _Placed)]
    blocks = load_blocks(conn, _touched(placed))
    _add_missing(blocks, arrivals)
    known_history(conn, history, _conflicts(blocks, arrivals))
    curves: dict[tuple[int, int], list[BlockKey]] = {}
    for key in blocks:
        curves.setdefault((key[1], key[2]), []).append(key)
    changed: set[BlockKey] = set()
    strays: list[Arrival] = []
    for step in placed:
        if isinstance(step, Mark):
            meant = curves.get((step.meter_key, step.code), []) if Source.CURVE in step.sources else []
            changed.update(_apply_mark(blocks, meant, step))
        elif blocks[step.key].phase_s != step.phase_s:
            strays.append(step.arrival)
        elif _apply_arrival(blocks[step.key], step.slot, step.arrival, history):
            changed.add(step.key)
    save_blocks(conn, blocks, changed)
    return strays


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


def _touched(placed: Iterable[_Placed | Mark]) -> set[tuple[int, int, int]]:
    touched = set()
    for step in placed:
        if isinstance(step, _Placed):
            touched.add(step.key[:3])
        elif Source.CURVE in step.sources and step.end > step.start:
            days = range(step.start // DAY_S, (step.end - 1) // DAY_S + 1)
            touched.update((day, step.meter_key, step.code) for day in days)
    return touched


def _add_missing(blocks: dict[BlockKey, Block], arrivals: Iterable[_Placed]) -> None:
    """New blocks for arrivals that have none, on the grid most of them are on."""
    phases: dict[BlockKey, Counter[int]] = {}
    for key, phase_s, _, _ in arrivals:
        if key not in blocks:
            phases.setdefault(key, Counter())[phase_s] += 1
    for key, counted in phases.items():
        blocks[key] = empty(key[3], min(counted, key=lambda phase_s: (-counted[phase_s], phase_s)))


def _conflicts(blocks: dict[BlockKey, Block], arrivals: Iterable[_Placed]) -> Iterator[tuple[Arrival, int]]:
    """Arrivals that meet a different value, with that value's outcome."""
    for key, phase_s, slot, arrival in arrivals:
        block = blocks[key]
        if block.qualities[slot] and block.units[slot] != arrival.units and block.phase_s == phase_s:
            yield arrival, block.outcome_ids[slot]


def _apply_arrival(block: Block, slot: int, arrival: Arrival, history: History) -> bool:
    """Put one value into its slot; whether anything changed."""
    held = block.qualities[slot]
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

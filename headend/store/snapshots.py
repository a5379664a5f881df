"""Writing values that stand alone, their slots, and the newest value of every quantity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Table, select

from headend.model import Quality, SlotState, Source
from headend.store import schema
from headend.store.merge import Arrival, History, Mark, known_history, marked, settle, slot_after
from headend.store.portable import chunks, rows_at, upsert

__all__ = ["SlotKey", "load_slots", "save_slots", "write_last_values", "write_slots", "write_snapshots"]

SlotKey = tuple[int, int, int, int]
"""At, meter key, quantity code, source: the key of `snapshot` and of `slot`."""

_KEY = ("at", "meter_key", "quantity_code", "source")
# These come once per day or month and are expected: their slot is kept even when nobody opened it before.
_EXPECTED = (Source.DAILY_FREEZE, Source.SETTLEMENT, Source.TIMED_FREEZE)


def _key(arrival: Arrival) -> SlotKey:
    return arrival.at, arrival.meter_key, arrival.code, arrival.source


def write_snapshots(conn: Connection, history: History, arrivals: Sequence[Arrival]) -> None:
    """Put values that stand alone into `snapshot`, in the order given."""
    held: dict[SlotKey, Mapping[str, Any]] = {}
    for key, found in _load(conn, schema.snapshot, map(_key, arrivals)).items():
        held[key] = dict(found)
    conflicts = []
    for arrival in arrivals:
        row = held.get(_key(arrival))
        if row is not None and row["units"] != arrival.units:
            conflicts.append((arrival, row["outcome_id"]))
    known_history(conn, history, conflicts)
    changed: set[SlotKey] = set()
    for arrival in arrivals:
        key = _key(arrival)
        row = held.get(key)
        if row is None or settle(history, arrival, row["units"], row["quality"], row["outcome_id"]):
            held[key] = _snapshot(arrival)
            changed.add(key)
    upsert(conn, schema.snapshot, [held[key] for key in sorted(changed)])


def _snapshot(arrival: Arrival) -> dict[str, Any]:
    return dict(zip(_KEY, _key(arrival), strict=True)) | {
        "units": arrival.units,
        "quality": arrival.quality,
        "outcome_id": arrival.outcome_id,
        "taken_at": arrival.taken_at,
        "occurred_at": arrival.occurred_at,
    }


def _load(conn: Connection, table: Table, keys: Iterable[SlotKey]) -> dict[SlotKey, RowMapping]:
    """The rows of `snapshot` or `slot` there are for `keys`."""
    found = rows_at(conn, table, _KEY, set(keys))
    return {(row["at"], row["meter_key"], row["quantity_code"], row["source"]): row for row in found}


# -- slots -------------------------------------------------------------------------------------------------------------


def load_slots(conn: Connection, keys: Iterable[SlotKey]) -> dict[SlotKey, tuple[int, int]]:
    """State and cause of the slots there are for `keys`."""
    return {key: (row["state"], row["cause"]) for key, row in _load(conn, schema.slot, keys).items()}


def save_slots(conn: Connection, slots: Mapping[SlotKey, tuple[int, int]]) -> None:
    """Add or change slots."""
    rows = []
    for key in sorted(slots):
        state, cause = slots[key]
        rows.append(dict(zip(_KEY, key, strict=True)) | {"state": int(state), "cause": int(cause)})
    upsert(conn, schema.slot, rows)


def write_slots(conn: Connection, steps: Sequence[Arrival | Mark]) -> None:
    """Let arrivals and marks change the slots of `slot`, in the order given."""
    before = load_slots(conn, (_key(step) for step in steps if isinstance(step, Arrival)))
    before |= _due_slots(conn, [step for step in steps if isinstance(step, Mark)])
    slots = dict(before)
    for step in steps:
        if isinstance(step, Mark):
            after = marked(step)
            slots.update((key, after) for key in slots if _meant(step, key) and slots[key][0] == SlotState.DUE)
        elif _key(step) in slots or step.source in _EXPECTED:
            state, cause = slots.get(_key(step), (SlotState.NONE, 0))
            slots[_key(step)] = slot_after(state, cause, step)
    save_slots(conn, {key: slot for key, slot in slots.items() if before.get(key) != slot})


def _meant(mark: Mark, key: SlotKey) -> bool:
    at, meter_key, code, source = key
    mine = meter_key == mark.meter_key and code == mark.code and source in mark.sources
    return mine and mark.start <= at < mark.end


def _due_slots(conn: Connection, marks: Iterable[Mark]) -> dict[SlotKey, tuple[int, int]]:
    """Slots that marks may change. Marks of one window are looked up together."""
    table = schema.slot
    meters: dict[tuple[int, int, int], set[int]] = {}
    for mark in marks:
        meters.setdefault((mark.start, mark.end, mark.code), set()).add(mark.meter_key)
    slots: dict[SlotKey, tuple[int, int]] = {}
    for (start, end, code), wanted in meters.items():
        for keys in chunks(sorted(wanted)):
            query = (
                select(table)
                .where(table.c.at >= start, table.c.at < end, table.c.state == int(SlotState.DUE))
                .where(table.c.meter_key.in_(keys), table.c.quantity_code == code)
            )
            for row in conn.execute(query):
                slots[row.at, row.meter_key, row.quantity_code, row.source] = row.state, row.cause
    return slots


# -- newest values -----------------------------------------------------------------------------------------------------


def write_last_values(conn: Connection, arrivals: Iterable[Arrival]) -> None:
    """Keep the newest value of each quantity; a suspect one only while there is nothing better, an estimate never."""
    newest: dict[tuple[int, int], tuple[tuple[bool, int, int], Arrival]] = {}
    for arrival in arrivals:
        if arrival.quality != Quality.ESTIMATED:
            rank = _rank(arrival.quality, arrival.at, arrival.taken_at)
            held = newest.get((arrival.meter_key, arrival.code))
            if held is None or rank >= held[0]:
                newest[arrival.meter_key, arrival.code] = rank, arrival
    for row in rows_at(conn, schema.last_value, ("meter_key", "quantity_code"), newest.keys()):
        rank, new = newest[row["meter_key"], row["quantity_code"]]
        held_rank = _rank(row["quality"], row["at"], row["taken_at"])
        unchanged = (new.units, new.quality) == (row["units"], row["quality"])
        if rank < held_rank or (rank == held_rank and unchanged):
            del newest[row["meter_key"], row["quantity_code"]]
    upsert(conn, schema.last_value, [_last_value(key, newest[key][1]) for key in sorted(newest)])


def _rank(quality: int, at: int, taken_at: int) -> tuple[bool, int, int]:
    return quality != Quality.SUSPECT, at, taken_at


def _last_value(key: tuple[int, int], arrival: Arrival) -> dict[str, Any]:
    return {
        "meter_key": key[0],
        "quantity_code": key[1],
        "at": arrival.at,
        "taken_at": arrival.taken_at,
        "units": arrival.units,
        "quality": arrival.quality,
        "outcome_id": arrival.outcome_id,
    }

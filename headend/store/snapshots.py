"""Writing values that stand alone, their slots, and the newest value of every quantity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, Table, select

from headend.model import Quality, SlotState, Source
from headend.store import schema
from headend.store.merge import Arrival, History, Mark, known_history, marked, settle, slot_after
from headend.store.portable import chunks, put_rows, rows_at, upsert

__all__ = [
    "Newest",
    "SlotKey",
    "load_slots",
    "save_slots",
    "write_last_values",
    "write_newest",
    "write_slots",
    "write_snapshots",
]

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
        if row is None:
            history.count_new(arrival.outcome_id)
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


class Newest(NamedTuple):
    """A value that may be the newest of its quantity: a row of `last_value`."""

    meter_key: int
    quantity_code: int
    at: int
    taken_at: int
    units: int
    quality: int
    outcome_id: int

    def rank(self) -> tuple[bool, int, int]:
        """Of two, the one ranking higher is kept; of two alike, the later one."""
        return self.quality != Quality.SUSPECT, self.at, self.taken_at


def write_last_values(conn: Connection, arrivals: Iterable[Arrival]) -> None:
    """Keep the newest value of each quantity; a suspect one only while there is nothing better, an estimate never."""
    write_newest(
        conn,
        [
            Newest(one.meter_key, one.code, one.at, one.taken_at, one.units, one.quality, one.outcome_id)
            for one in arrivals
            if one.quality != Quality.ESTIMATED
        ],
    )


_RANK = "CASE WHEN {0}.quality = 4 THEN 0 ELSE 1 END, {0}.at, {0}.taken_at"
_NEW, _HELD = _RANK.format("excluded"), _RANK.format("last_value")
_CHANGED = "(excluded.units <> last_value.units OR excluded.quality <> last_value.quality)"
# One statement that reads, compares and writes: most values are the newest of their quantity.
_KEEP_NEWEST = (
    "ON CONFLICT (meter_key, quantity_code) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in Newest._fields[2:])
    + f" WHERE ({_NEW}) > ({_HELD}) OR (({_NEW}) = ({_HELD}) AND {_CHANGED})"
)


def write_newest(conn: Connection, values: Iterable[Newest]) -> None:
    """As `write_last_values`, for values none of which is an estimate."""
    newest: dict[tuple[int, int], Newest] = {}
    for new in values:
        held = newest.get(new[:2])
        if held is None or new.rank() >= held.rank():
            newest[new[:2]] = new
    put_rows(conn, schema.last_value, Newest._fields, sorted(newest.values()), _KEEP_NEWEST)

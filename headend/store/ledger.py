"""The ledger of completeness: every value that is expected, whether it came, and if not, why.

Slots of a curve are bytes in its block; those of freezes and other values that stand alone are rows of `slot`. So are
the few curve instants that are off the grid their block has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

from sqlalchemy import Connection, RowMapping, select

from headend.civil import from_epoch_s, to_epoch_s
from headend.model import Cause, SlotState, Source, Window
from headend.store import schema
from headend.store.blocks import DAY_S, empty, place, slots_between, unpack_bytes
from headend.store.codes import codes, names
from headend.store.curves import BlockKey, load_blocks, save_blocks
from headend.store.merge import lock_meters
from headend.store.portable import chunks, rows_at
from headend.store.snapshots import SlotKey, load_slots, save_slots

__all__ = [
    "Completeness",
    "CurveStates",
    "SlotRow",
    "SlotSet",
    "completeness",
    "curve_states",
    "open_slots",
    "slot_states",
]


@dataclass(frozen=True, slots=True)
class SlotSet:
    """Instants at which a value is expected. step_s: the curve's grid step, 0 for values that stand alone."""

    meter_key: int
    quantity: str
    source: Source
    step_s: int
    instants: tuple[datetime, ...]


@dataclass(frozen=True, slots=True)
class CurveStates:
    """A day of a curve's slots, one byte (`SlotState`) each: slot i is at day * 86400 + phase_s + i * step_s."""

    meter_key: int
    quantity: str
    step_s: int
    phase_s: int
    day: int
    states: bytes


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One slot that stands alone."""

    at: datetime
    meter_key: int
    quantity: str
    source: Source
    state: SlotState
    cause: Cause


@dataclass(frozen=True, slots=True)
class Completeness:
    """How much of what was expected is there. expected = got + late + estimated + waived + due.

    causes: how many of the due, waived and estimated ones are so for which reason.
    """

    meter_key: int
    quantity: str
    source: Source
    expected: int
    got: int
    late: int
    estimated: int
    waived: int
    due: int
    causes: dict[Cause, int] = field(default_factory=dict)


# -- opening -----------------------------------------------------------------------------------------------------------


def open_slots(conn: Connection, sets: Sequence[SlotSet]) -> None:
    """Mark instants as due and not yet asked where nothing was expected before; never touches other slots.

    `StoreError` for a meter that is not registered or a step that does not divide a day.
    """
    if not sets:
        return
    numbers = codes(conn, {wanted.quantity for wanted in sets})
    lock_meters(conn, {wanted.meter_key for wanted in sets})
    rows: set[SlotKey] = set()
    curves = [wanted for wanted in sets if wanted.step_s]
    for wanted in sets:
        if not wanted.step_s:
            code = numbers[wanted.quantity]
            rows.update((to_epoch_s(at), wanted.meter_key, code, wanted.source) for at in wanted.instants)
    rows |= _open_curves(conn, curves, numbers)
    _open_rows(conn, rows)


def _open_curves(conn: Connection, sets: Iterable[SlotSet], numbers: dict[str, int]) -> set[SlotKey]:
    """Open slots in blocks; returns those that are off their block's grid."""
    grouped: dict[BlockKey, list[tuple[int, int, int]]] = {}
    for wanted in sets:
        for instant in wanted.instants:
            at = to_epoch_s(instant)
            day, phase_s, slot = place(at, wanted.step_s)
            key = (day, wanted.meter_key, numbers[wanted.quantity], wanted.step_s)
            grouped.setdefault(key, []).append((phase_s, slot, at))
    blocks = load_blocks(conn, {key[:3] for key in grouped})
    changed: set[BlockKey] = set()
    strays: set[SlotKey] = set()
    for key, places in grouped.items():
        if key not in blocks:
            blocks[key] = empty(key[3], places[0][0])
        block = blocks[key]
        for phase_s, slot, at in places:
            if phase_s != block.phase_s:
                strays.add((at, key[1], key[2], Source.CURVE))
            elif block.states[slot] == SlotState.NONE:
                block.states[slot], block.causes[slot] = SlotState.DUE, Cause.NOT_ASKED
                changed.add(key)
    save_blocks(conn, blocks, changed)
    return strays


def _open_rows(conn: Connection, keys: set[SlotKey]) -> None:
    there = load_slots(conn, keys)
    absent = {key for key in keys if there.get(key, (SlotState.NONE, 0))[0] == SlotState.NONE}
    save_slots(conn, dict.fromkeys(absent, (SlotState.DUE, Cause.NOT_ASKED)))


# -- reading -----------------------------------------------------------------------------------------------------------


def curve_states(conn: Connection, since: datetime, until: datetime) -> Iterator[CurveStates]:
    """The slots of every curve, for the UTC days that touch `[since, until)`; whole days, in order of day."""
    table = schema.curve
    columns = (table.c.day, table.c.meter_key, table.c.quantity_code, table.c.step_s)
    query = (
        select(*columns, table.c.phase_s, table.c.slots, table.c.states)
        .where(table.c.day.between(to_epoch_s(since) // DAY_S, (to_epoch_s(until) - 1) // DAY_S))
        .order_by(*columns)
    )
    named = names(conn)
    for row in conn.execute(query):
        states = bytes(unpack_bytes(row.states, row.slots))
        yield CurveStates(row.meter_key, named[row.quantity_code], row.step_s, row.phase_s, row.day, states)


def slot_states(conn: Connection, since: datetime, until: datetime) -> Iterator[SlotRow]:
    """The slots that stand alone in `[since, until)`, in order of time."""
    table = schema.slot
    query = (
        select(table)
        .where(table.c.at >= to_epoch_s(since), table.c.at < to_epoch_s(until))
        .order_by(table.c.at, table.c.meter_key, table.c.quantity_code, table.c.source)
    )
    named = names(conn)
    for row in conn.execute(query):
        source, state, cause = Source(row.source), SlotState(row.state), Cause(row.cause)
        yield SlotRow(from_epoch_s(row.at), row.meter_key, named[row.quantity_code], source, state, cause)


_Counted = tuple[int, int, int, Counter[tuple[int, int]]]
"""Meter key, quantity code, source, how many slots there are of each (state, cause)."""


def completeness(conn: Connection, window: Window, meter_keys: Collection[int] | None = None) -> list[Completeness]:
    """Counts per meter, quantity and source over the slots in the window; of all meters, or of those named."""
    start, end = to_epoch_s(window.start), to_epoch_s(window.end)
    wanted = None if meter_keys is None else sorted(set(meter_keys))
    counted: dict[tuple[int, int, int], Counter[tuple[int, int]]] = {}
    for meter_key, code, source, slots in chain(
        _counted_blocks(conn, start, end, wanted), _counted_rows(conn, start, end, wanted)
    ):
        counted.setdefault((meter_key, code, source), Counter()).update(slots)
    named = names(conn)
    rows = []
    for (meter_key, code, source), slots in sorted(counted.items()):
        if any(state != SlotState.NONE for state, _ in slots):
            rows.append(_summed(meter_key, named[code], Source(source), slots))
    return rows


def _counted_blocks(conn: Connection, start: int, end: int, meter_keys: list[int] | None) -> Iterator[_Counted]:
    table = schema.curve
    days = range(start // DAY_S, (end - 1) // DAY_S + 1)
    if meter_keys is None:
        whole = select(table).where(table.c.day.between(days.start, days.stop - 1))
        rows: Iterable[RowMapping] = conn.execute(whole).mappings()
    else:
        rows = rows_at(conn, table, ("day", "meter_key"), [(day, key) for day in days for key in meter_keys])
    for row in rows:
        states, causes = unpack_bytes(row["states"], row["slots"]), unpack_bytes(row["causes"], row["slots"])
        inside = slots_between(row["day"], row["phase_s"], row["step_s"], start, end)
        pairs = zip(states[inside.start : inside.stop], causes[inside.start : inside.stop], strict=True)
        yield row["meter_key"], row["quantity_code"], Source.CURVE, Counter(pairs)


def _counted_rows(conn: Connection, start: int, end: int, meter_keys: list[int] | None) -> Iterator[_Counted]:
    table = schema.slot
    query = select(table).where(table.c.at >= start, table.c.at < end)
    queries = [query]
    if meter_keys is not None:
        queries = [query.where(table.c.meter_key.in_(keys)) for keys in chunks(meter_keys)]
    for some in queries:
        for row in conn.execute(some):
            yield row.meter_key, row.quantity_code, row.source, Counter([(row.state, row.cause)])


def _summed(meter_key: int, quantity: str, source: Source, slots: Counter[tuple[int, int]]) -> Completeness:
    states: Counter[int] = Counter()
    causes: Counter[Cause] = Counter()
    for (state, cause), number in slots.items():
        states[state] += number
        if cause != Cause.NONE and state != SlotState.NONE:
            causes[Cause(cause)] += number
    return Completeness(
        meter_key,
        quantity,
        source,
        expected=sum(states.values()) - states[SlotState.NONE],
        got=states[SlotState.GOT],
        late=states[SlotState.LATE],
        estimated=states[SlotState.ESTIMATED],
        waived=states[SlotState.WAIVED],
        due=states[SlotState.DUE],
        causes=dict(causes),
    )

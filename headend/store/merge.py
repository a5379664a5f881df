"""What happens when a value meets the one already there, and what that does to its slot; for curves and snapshots.

An equal value changes nothing. A different one takes the place of the old if it is of better quality, or of the same
quality and not read earlier; the one that yields is kept as a revision, once. So the answer does not depend on the
order in which reads reach the store, and the same outcome delivered again leaves no trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select

from headend.errors import StoreError
from headend.model import Cause, Quality, ReadKind, SlotState, Source
from headend.store import schema
from headend.store.portable import chunks, rows_among, rows_at

__all__ = [
    "KIND_SOURCES",
    "Arrival",
    "History",
    "Mark",
    "add_revisions",
    "known_history",
    "lock_meters",
    "marked",
    "settle",
    "slot_after",
]

# A correction by hand stands against a repeated read, a read against an estimate, anything against a suspect value.
_STRENGTH = {Quality.MISSING: 0, Quality.SUSPECT: 1, Quality.ESTIMATED: 2, Quality.VALID: 3, Quality.EDITED: 4}


KIND_SOURCES: dict[ReadKind, tuple[int, ...]] = {
    ReadKind.CURVE: (int(Source.CURVE),),
    ReadKind.DAILY_FREEZE: (int(Source.DAILY_FREEZE), int(Source.SETTLEMENT)),
    ReadKind.SETTLEMENT: (int(Source.SETTLEMENT),),
    ReadKind.EVENTS: (),
    ReadKind.TIMED_FREEZE: (int(Source.TIMED_FREEZE),),
    ReadKind.REGISTERS: (int(Source.CURRENT), int(Source.INSTANT)),
    ReadKind.CLOCK: (int(Source.INSTANT),),
    ReadKind.SAMPLE: (int(Source.CURVE),),
    ReadKind.ESTIMATE: (int(Source.CURVE),),
    ReadKind.PUSH: (int(Source.CURVE), int(Source.DAILY_FREEZE), int(Source.CURRENT), int(Source.INSTANT)),
}
"""Whose slots a fault of a read of that kind speaks for."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A reading in the store's numbers, with its parent. state: GOT or LATE, as it came within its deadline or not."""

    meter_key: int
    code: int
    at: int
    source: int
    step_s: int
    units: int
    quality: int
    taken_at: int
    occurred_at: int | None
    outcome_id: int
    started_at: int
    state: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A cause for every slot in `[start, end)` that is still due. sources: which kinds of slot are meant. gone: they
    will never be filled."""

    meter_key: int
    code: int
    sources: tuple[int, ...]
    start: int
    end: int
    cause: int
    gone: bool = False


@dataclass(slots=True)
class History:
    """What settling needs to know of the past, and the revisions it makes.

    started: start of each outcome that may be compared. past: values that yielded before. new: by outcome, how many of
    its values came where there was none.
    """

    now: int
    started: dict[int, int]
    past: set[tuple[int, ...]] = field(default_factory=set)
    revisions: list[dict[str, Any]] = field(default_factory=list)
    new: dict[int, int] = field(default_factory=dict)

    def count_new(self, outcome_id: int, number: int = 1) -> None:
        """Note that so many values of this outcome came where there was none."""
        self.new[outcome_id] = self.new.get(outcome_id, 0) + number

    def replaced(self) -> dict[int, int]:
        """By outcome, how many of its values took another's place."""
        return Counter(row["replaced_by"] for row in self.revisions if row["replaced_by"])


_IDENTITY = ("meter_key", "quantity_code", "at", "source", "step_s", "units", "quality")


def _identity(arrival: Arrival, units: int, quality: int) -> tuple[int, ...]:
    return arrival.meter_key, arrival.code, arrival.at, arrival.source, arrival.step_s, units, quality


def known_history(conn: Connection, history: History, conflicts: Iterable[tuple[Arrival, int]]) -> None:
    """Fetch what settling `conflicts` needs: pairs of an arrival and the outcome of the different value held there."""
    pairs = list(conflicts)
    parent = schema.outcome
    wanted = {outcome_id for _, outcome_id in pairs} - history.started.keys()
    for ids in chunks(sorted(wanted)):
        for row in conn.execute(select(parent.c.id, parent.c.started_at).where(parent.c.id.in_(ids))):
            history.started[row.id] = row.started_at
    keys = {(arrival.meter_key, arrival.code, arrival.at) for arrival, _ in pairs}
    for held in rows_at(conn, schema.revision, ("meter_key", "quantity_code", "at"), keys):
        history.past.add(tuple(held[name] for name in _IDENTITY))


def settle(history: History, arrival: Arrival, units: int, quality: int, outcome_id: int) -> bool:
    """Whether `arrival` takes the place of the held value (units, quality, outcome); keeps the one that yields."""
    gain = _STRENGTH[Quality(arrival.quality)] - _STRENGTH[Quality(quality)]
    if arrival.units == units:
        wins = gain > 0
        if not wins:
            return False
    elif gain:
        wins = gain > 0
    else:
        held_since = history.started.get(outcome_id, 0)
        repeated = _identity(arrival, arrival.units, arrival.quality) in history.past
        wins = arrival.started_at > held_since or (arrival.started_at == held_since and not repeated)
    if wins:
        _keep(history, arrival, units, quality, outcome_id, arrival.outcome_id)
    else:
        _keep(history, arrival, arrival.units, arrival.quality, arrival.outcome_id, 0)
    return wins


def _keep(history: History, arrival: Arrival, units: int, quality: int, outcome_id: int, replaced_by: int) -> None:
    identity = _identity(arrival, units, quality)
    if not replaced_by and identity in history.past:
        return
    history.past.add(identity)
    history.revisions.append(
        {
            "meter_key": arrival.meter_key,
            "quantity_code": arrival.code,
            "at": arrival.at,
            "source": arrival.source,
            "step_s": arrival.step_s,
            "units": units,
            "quality": quality,
            "outcome_id": outcome_id,
            "replaced_by": replaced_by,
            "replaced_at": history.now,
        }
    )


def add_revisions(conn: Connection, history: History) -> None:
    """Write the revisions that settling made."""
    if history.revisions:
        conn.execute(insert(schema.revision), history.revisions)


_UNFILLED = (SlotState.NONE, SlotState.DUE, SlotState.WAIVED)
_ARRIVED = (SlotState.GOT, SlotState.LATE)


def slot_after(state: int, cause: int, arrival: Arrival) -> tuple[int, int]:
    """State and cause of a slot once `arrival` has come for it, whatever became of its value."""
    if arrival.quality == Quality.SUSPECT:
        return (SlotState.DUE, Cause.IMPLAUSIBLE) if state in _UNFILLED else (state, cause)
    if arrival.quality == Quality.ESTIMATED:
        return (SlotState.ESTIMATED, cause) if state in _UNFILLED else (state, cause)
    return (state, cause) if state in _ARRIVED else (arrival.state, Cause.NONE)


def marked(mark: Mark) -> tuple[int, int]:
    """State and cause of a due slot under `mark`: what the meter does not hold will never come."""
    never = mark.gone or mark.cause == Cause.NOT_IN_MEMORY
    return (SlotState.WAIVED if never else SlotState.DUE), mark.cause


def lock_meters(conn: Connection, meter_keys: Iterable[int]) -> None:
    """Keep other writers off these meters until the transaction ends; `StoreError` if one is not registered.

    Blocks are read, changed and written back, so two writers of one block must take turns. On SQLite they do anyway.
    """
    wanted = sorted(set(meter_keys))
    lock = "" if conn.dialect.name == "sqlite" else "ORDER BY key FOR NO KEY UPDATE"
    found = {row[0] for row in rows_among(conn, schema.meter, ("key",), "key", wanted, lock)}
    if len(found) < len(wanted):
        missing = next(key for key in wanted if key not in found)
        raise StoreError(f"no meter with key {missing} in the store", remedy="import the meter first")

"""The fast way in: messages that carry columns of numbers for many meters at once.

The outcome for every value is that of `headend.ingest.write`, by the same rules (`headend.store.merge`); only the work
is done by columns: a message is one row, each meter in it one outcome, and runs of values go into blocks as slices.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from headend.civil import to_epoch_s
from headend.errors import StoreError
from headend.model import Fault, Quality, ReadKind, Source, Status
from headend.store import schema
from headend.store.codes import codes
from headend.store.curves import write_curves
from headend.store.events import MeterEvent, put_events
from headend.store.evidence import EvidencePolicy, pack_payload
from headend.store.merge import KIND_SOURCES, Arrival, History, Mark, add_revisions, lock_meters
from headend.store.portable import put_rows, reserve
from headend.store.runs import Run
from headend.store.sequences import Numbering, note_sequences
from headend.store.snapshots import Newest, write_newest, write_slots, write_snapshots
from headend.store.unplaced import UnplacedRow, put_unplaced

__all__ = ["Message", "Sheet", "Written", "write_messages"]


@dataclass(frozen=True, slots=True)
class Sheet:
    """Values of one meter's one quantity, of one source. step_s: grid step, curves only.

    times: epoch seconds, ascending. units: ten-thousandths of the quantity's unit. qualities: a `Quality` each, never
    MISSING: what is missing is a `Fault` of the message.
    """

    meter_key: int
    quantity: str
    source: Source
    step_s: int
    times: array[int]
    units: array[int]
    qualities: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """What came in one piece. channel: how (`mqtt NAME`). faults: by meter key. sequence: concentrator, boot, number.

    unplaced: parts that could not be placed, kept in the same transaction. A message without sheets, faults and events
    is not kept itself.
    """

    received_at: datetime
    channel: str
    topic: str
    payload: bytes = field(repr=False)
    sheets: tuple[Sheet, ...] = ()
    faults: tuple[tuple[int, Fault], ...] = ()
    events: tuple[MeterEvent, ...] = ()
    kind: ReadKind = ReadKind.PUSH
    sequence: tuple[str, int, int] | None = None
    detail: str = ""
    unplaced: tuple[UnplacedRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a message. outcome_ids: by meter key. key: the message's, 0 when it was not kept.

    new: values for which there was none. replaced: values that took another's place. same: all others, sent before or
    worse than what stands. upto, missing: of its sequence after it (`headend.store.sequences`), None and () without;
    given_up: numbers that are no longer waited for.
    """

    outcome_ids: dict[int, int]
    new: int = 0
    same: int = 0
    replaced: int = 0
    upto: int | None = None
    missing: tuple[int, ...] = ()
    given_up: int = 0
    key: int = 0


def write_messages(
    conn: Connection, messages: Sequence[Message], policy: EvidencePolicy, *, late_after_s: int = 3600
) -> list[Written]:
    """Store messages with everything in them, within the caller's transaction; what became of each, in order.

    A message stored again changes no value. late_after_s: a curve value that came later than that after its instant is
    LATE. `StoreError` for a meter the store does not know and for values it can't hold.
    """
    if not messages:
        return []
    now = datetime.now(UTC)
    numbers = codes(conn, {sheet.quantity for message in messages for sheet in message.sheets})
    parents = _add_parents(conn, messages, policy)
    history = History(now=to_epoch_s(now), started={})
    steps: list[Arrival | Mark | Run] = []
    for message, (_, ids) in zip(messages, parents, strict=True):
        received_at = to_epoch_s(message.received_at)
        history.started.update(dict.fromkeys(ids.values(), received_at))
        steps += [_run(sheet, numbers, ids[sheet.meter_key], received_at, late_after_s) for sheet in message.sheets]
        steps += _marks(message, numbers)
    _write_values(conn, history, steps)
    for message, (_, ids) in zip(messages, parents, strict=True):
        put_events(conn, [replace(event, outcome_id=ids[event.meter_key]) for event in message.events])
        for row in message.unplaced:
            put_unplaced(conn, row)
    seen = [message.sequence for message in messages if message.sequence is not None]
    numberings = iter(note_sequences(conn, seen, now) if seen else ())
    replaced = history.replaced()
    return [
        _written(message, key, ids, history, replaced, next(numberings) if message.sequence is not None else None)
        for message, (key, ids) in zip(messages, parents, strict=True)
    ]


def _write_values(conn: Connection, history: History, steps: Sequence[Arrival | Mark | Run]) -> None:
    """As `headend.ingest.write` does it: curves, then what stands alone, slots, newest values, revisions."""
    curve = int(Source.CURVE)
    gridded = [step for step in steps if isinstance(step, Mark) or step.source == curve]
    strays = set(write_curves(conn, history, gridded))
    alone: list[Arrival | Mark] = []
    for step in steps:
        if isinstance(step, Mark):
            alone.append(step)
        elif isinstance(step, Run):
            if step.source != curve:
                alone += step.arrivals()
            elif strays:
                alone += [arrival for arrival in step.arrivals() if arrival in strays]
    if alone:
        write_snapshots(conn, history, [step for step in alone if isinstance(step, Arrival)])
        write_slots(conn, alone)
    newest = [_newest(step) for step in steps if isinstance(step, Run) and len(step.times)]
    write_newest(conn, [value for value in newest if value is not None])
    add_revisions(conn, history)


# -- parents -----------------------------------------------------------------------------------------------------------

_Parents = tuple[int, dict[int, int]]  # message key, outcome ids by meter key


def _add_parents(conn: Connection, messages: Sequence[Message], policy: EvidencePolicy) -> list[_Parents]:
    """The rows of `message` and of `outcome`: one of these for every meter of a message."""
    meters = [_meters_of(message) for message in messages]
    lock_meters(conn, {key for keys in meters for key in keys})
    keys = iter(reserve(conn, schema.message.c.key, sum(1 for some in meters if some)))
    ids = iter(reserve(conn, schema.outcome.c.id, sum(map(len, meters))))
    parents: list[_Parents] = []
    message_rows: list[tuple[Any, ...]] = []
    outcome_rows: list[tuple[Any, ...]] = []
    for message, some in zip(messages, meters, strict=True):
        if not some:
            parents.append((0, {}))
            continue
        key = next(keys)
        own = {meter_key: next(ids) for meter_key in some}
        parents.append((key, own))
        message_rows.append(_message_row(message, key, policy))
        outcome_rows += _outcome_rows(message, key, own)
    put_rows(conn, schema.message, _MESSAGE_COLUMNS, message_rows)
    put_rows(conn, schema.outcome, _OUTCOME_COLUMNS, outcome_rows)
    return parents


def _meters_of(message: Message) -> dict[int, None]:
    """The meters a message says something of, each once."""
    told = [key for key, _ in message.faults] + [event.meter_key for event in message.events]
    return dict.fromkeys([sheet.meter_key for sheet in message.sheets] + told)


_MESSAGE_COLUMNS = ("key", "received_at", "channel", "topic", "payload", "size")
_OUTCOME_COLUMNS = (
    "id",
    "meter_key",
    "kind",
    "status",
    "started_at",
    "duration_s",
    "detail",
    "schedule",
    "attempt",
    "message_key",
)


def _message_row(message: Message, key: int, policy: EvidencePolicy) -> tuple[Any, ...]:
    suspect = any(Quality.SUSPECT in sheet.qualities for sheet in message.sheets)
    good = not message.faults and not suspect and bool(message.sheets) and not message.events
    kept = policy.keeps_message(message.kind, key, good=good)
    payload = pack_payload(message.payload) if kept else None
    topic, size = _storable(message.topic), len(message.payload)
    return key, to_epoch_s(message.received_at), _storable(message.channel), topic, payload, size


def _outcome_rows(message: Message, key: int, ids: dict[int, int]) -> list[tuple[Any, ...]]:
    """A message's outcomes: in part where the meter has a fault."""
    at, kind, detail = to_epoch_s(message.received_at), message.kind.value, _storable(message.detail)
    if not message.faults:
        ok = Status.OK.value
        return [(outcome_id, meter, kind, ok, at, 0.0, detail, "", 1, key) for meter, outcome_id in ids.items()]
    told: dict[int, list[str]] = {}
    for meter, fault in message.faults:
        told.setdefault(meter, []).append(f"{fault.quantity}: {fault.detail}")
    rows = []
    for meter, outcome_id in ids.items():
        status = Status.PARTIAL if meter in told else Status.OK
        words = detail or _storable("; ".join(told.get(meter, ())))
        rows.append((outcome_id, meter, kind, status.value, at, 0.0, words, "", 1, key))
    return rows


def _storable(text: str) -> str:
    """`text` as both databases take it: what came over a wire may hold NUL or half a character."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


# -- values ------------------------------------------------------------------------------------------------------------


def _run(sheet: Sheet, numbers: dict[str, int], outcome_id: int, received_at: int, late_after_s: int) -> Run:
    """A sheet in the store's numbers; `StoreError` when it can't be kept."""
    number = len(sheet.times)
    if number != len(sheet.units) or number != len(sheet.qualities):
        raise StoreError("a sheet's columns differ in length", where=_where(sheet))
    if b"\0" in sheet.qualities:
        raise StoreError("a reading without a value is a fault, not a reading", where=_where(sheet))
    if sheet.source is Source.CURVE and sheet.step_s <= 0:
        raise StoreError("a curve value without a grid step", where=_where(sheet))
    return Run(
        sheet.meter_key,
        numbers[sheet.quantity],
        int(sheet.source),
        sheet.step_s,
        sheet.times,
        sheet.units,
        sheet.qualities,
        received_at,
        outcome_id,
        late_after_s,
    )


def _where(sheet: Sheet) -> str:
    return f"meter key {sheet.meter_key}, {sheet.quantity}"


def _marks(message: Message, numbers: dict[str, int]) -> list[Mark]:
    """What the message's faults say about slots still due."""
    return [
        Mark(
            meter_key=meter_key,
            code=numbers[fault.quantity],
            sources=KIND_SOURCES[message.kind],
            start=to_epoch_s(fault.window.start),
            end=to_epoch_s(fault.window.end),
            cause=int(fault.cause),
        )
        for meter_key, fault in message.faults
        # A quantity without a number was never stored nor expected: it has no slots.
        if fault.window is not None and fault.quantity in numbers
    ]


def _newest(run: Run) -> Newest | None:
    """The value of a run that may be its quantity's newest; None when there are only estimates."""
    position = len(run.times) - 1
    if run.qualities[position] not in _GOOD or not run.regular():
        ranked = [
            (quality != Quality.SUSPECT, at, number)
            for number, (at, quality) in enumerate(zip(run.times, run.qualities, strict=True))
            if quality != Quality.ESTIMATED
        ]
        if not ranked:
            return None
        position = max(ranked)[2]
    at, units, quality = run.times[position], run.units[position], run.qualities[position]
    return Newest(run.meter_key, run.code, at, run.taken_at, units, quality, run.outcome_id)


_GOOD = bytes([Quality.VALID, Quality.EDITED])


def _written(
    message: Message,
    key: int,
    ids: dict[int, int],
    history: History,
    replaced: dict[int, int],
    numbering: Numbering | None,
) -> Written:
    total = sum(len(sheet.times) for sheet in message.sheets)
    new = sum(history.new.get(outcome_id, 0) for outcome_id in ids.values())
    changed = sum(replaced.get(outcome_id, 0) for outcome_id in ids.values()) if replaced else 0
    return Written(
        ids,
        new,
        total - new - changed,
        changed,
        None if numbering is None else numbering.upto,
        () if numbering is None else numbering.missing,
        0 if numbering is None else numbering.given_up,
        key,
    )

"""The one way to read what meters gave: register values, curves, intervals, and where each number came from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from headend.civil import from_epoch_s, to_epoch_s
from headend.model import FrameRecord, Quality, ReadKind, Source, Status, Window
from headend.store import schema
from headend.store.codes import code_of, names
from headend.store.curve_reads import Point, curve, intervals, points_at
from headend.store.evidence import unpack_frames, unpack_payload

__all__ = [
    "LastValue",
    "MessageRow",
    "OutcomeRow",
    "Point",
    "RegisterValue",
    "Revision",
    "curve",
    "frames",
    "intervals",
    "last_values",
    "message",
    "outcome",
    "register_at",
    "revisions",
    "snapshots",
]


@dataclass(frozen=True, slots=True)
class RegisterValue:
    """A value that stands alone, at the instant it holds for."""

    quantity: str
    at: datetime
    units: int
    quality: Quality
    source: Source
    outcome_id: int


@dataclass(frozen=True, slots=True)
class LastValue:
    """The newest value of a quantity, by the meter's instant."""

    meter_key: int
    quantity: str
    at: datetime
    taken_at: datetime
    units: int
    quality: Quality
    outcome_id: int


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """How a job ended. started_at is kept to the second. frames_kept: `frames` has them. message_key: what it came in
    with values of other meters, by `message`; None when it was asked for alone."""

    id: int
    meter_key: int
    kind: ReadKind
    status: Status
    started_at: datetime
    duration_s: float
    detail: str
    schedule: str
    attempt: int
    window: Window | None
    frames_kept: bool
    message_key: int | None = None


@dataclass(frozen=True, slots=True)
class MessageRow:
    """What carried values of many meters. payload: as received, None when it was not kept; size: its bytes."""

    key: int
    received_at: datetime
    channel: str
    topic: str
    size: int
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Revision:
    """A value that no longer stands. outcome_id: where it came from. replaced_by: the outcome whose value took its
    place at replaced_at, 0 when it never stood because a better one was there."""

    at: datetime
    source: Source
    step_s: int
    units: int
    quality: Quality
    outcome_id: int
    replaced_by: int
    replaced_at: datetime


# -- single values -----------------------------------------------------------------------------------------------------

# A register at an instant: what the meter froze for exactly it, then its curve, then a read taken in that second.
_BEFORE_CURVE = (Source.DAILY_FREEZE, Source.SETTLEMENT, Source.TIMED_FREEZE)
_AFTER_CURVE = (Source.CURVE, Source.CURRENT, Source.INSTANT)


def register_at(conn: Connection, meter_key: int, quantity: str, at: datetime) -> RegisterValue | None:
    """The value at exactly `at`: a freeze or settlement snapshot first, else the curve point there.

    A current read taken in that very second is the last resort. A suspect value only comes back when nothing better
    is there. None when there is nothing.
    """
    code = code_of(conn, quantity)
    if code is None:
        return None
    table, seconds = schema.snapshot, to_epoch_s(at)
    query = select(table).where(table.c.at == seconds, table.c.meter_key == meter_key, table.c.quantity_code == code)
    found = {row.source: _register_value(quantity, row) for row in conn.execute(query)}
    candidates = [found.get(source) for source in _BEFORE_CURVE]
    candidates += _curve_values(conn, meter_key, quantity, at)
    candidates += [found.get(source) for source in _AFTER_CURVE]
    values = [value for value in candidates if value is not None]
    return next((value for value in values if value.quality is not Quality.SUSPECT), values[0] if values else None)


def _curve_values(conn: Connection, meter_key: int, quantity: str, at: datetime) -> list[RegisterValue | None]:
    return [
        RegisterValue(quantity, point.at, point.units, point.quality, Source.CURVE, point.outcome_id)
        for point in points_at(conn, meter_key, quantity, at)
        if point.units is not None and point.outcome_id is not None
    ]


def _register_value(quantity: str, row: Row[Any]) -> RegisterValue:
    source, quality = Source(row.source), Quality(row.quality)
    return RegisterValue(quantity, from_epoch_s(row.at), row.units, quality, source, row.outcome_id)


def snapshots(conn: Connection, meter_key: int, quantity: str, window: Window) -> list[RegisterValue]:
    """Values that stand alone (freezes, settlements, current reads) in the window, by time then source."""
    code = code_of(conn, quantity)
    table = schema.snapshot
    query = (
        select(table)
        .where(table.c.meter_key == meter_key, table.c.quantity_code == code)
        .where(table.c.at >= to_epoch_s(window.start), table.c.at < to_epoch_s(window.end))
        .order_by(table.c.at, table.c.source)
    )
    return [_register_value(quantity, row) for row in conn.execute(query)] if code is not None else []


def last_values(conn: Connection, meter_key: int | None = None) -> list[LastValue]:
    """The newest value of every quantity, of one meter or of all."""
    table = schema.last_value
    query = select(table).order_by(table.c.meter_key, table.c.quantity_code)
    if meter_key is not None:
        query = query.where(table.c.meter_key == meter_key)
    named = names(conn)
    return [
        LastValue(
            row.meter_key,
            named[row.quantity_code],
            from_epoch_s(row.at),
            from_epoch_s(row.taken_at),
            row.units,
            Quality(row.quality),
            row.outcome_id,
        )
        for row in conn.execute(query)
    ]


# -- where it came from ------------------------------------------------------------------------------------------------


def outcome(conn: Connection, id: int) -> OutcomeRow | None:
    """The outcome with this number."""
    table, own, carrier = schema.outcome, schema.evidence, schema.message
    kept = own.c.outcome_id.is_not(None) | carrier.c.payload.is_not(None)
    joined = table.join(own, own.c.outcome_id == table.c.id, isouter=True)
    joined = joined.join(carrier, carrier.c.key == table.c.message_key, isouter=True)
    query = select(table, kept.label("kept")).select_from(joined)
    row = conn.execute(query.where(table.c.id == id)).one_or_none()
    if row is None:
        return None
    window = None
    if row.window_start is not None and row.window_end is not None:
        window = Window(from_epoch_s(row.window_start), from_epoch_s(row.window_end))
    return OutcomeRow(
        id=row.id,
        meter_key=row.meter_key,
        kind=ReadKind(row.kind),
        status=Status(row.status),
        started_at=from_epoch_s(row.started_at),
        duration_s=row.duration_s,
        detail=row.detail,
        schedule=row.schedule,
        attempt=row.attempt,
        window=window,
        frames_kept=bool(row.kept),
        message_key=row.message_key,
    )


def frames(conn: Connection, outcome_id: int) -> tuple[FrameRecord, ...]:
    """The frames of an outcome, or the message it came in as the one frame; empty when they were not kept."""
    table = schema.evidence
    packed = conn.scalar(select(table.c.frames).where(table.c.outcome_id == outcome_id))
    if packed is not None:
        return unpack_frames(packed)
    parent = schema.outcome
    key = conn.scalar(select(parent.c.message_key).where(parent.c.id == outcome_id))
    carrier = None if key is None else message(conn, key)
    if carrier is None or carrier.payload is None:
        return ()
    return (FrameRecord(carrier.received_at, "<", carrier.payload),)


def message(conn: Connection, key: int) -> MessageRow | None:
    """The message with this number; `StoreError` when what is stored of it is damaged."""
    table = schema.message
    row = conn.execute(select(table).where(table.c.key == key)).one_or_none()
    if row is None:
        return None
    payload = None if row.payload is None else unpack_payload(row.payload)
    return MessageRow(row.key, from_epoch_s(row.received_at), row.channel, row.topic, row.size, payload)


def revisions(conn: Connection, meter_key: int, quantity: str, window: Window) -> list[Revision]:
    """Values in the window that no longer stand or never stood, by time, oldest first."""
    code = code_of(conn, quantity)
    table = schema.revision
    query = (
        select(table)
        .where(table.c.meter_key == meter_key, table.c.quantity_code == code)
        .where(table.c.at >= to_epoch_s(window.start), table.c.at < to_epoch_s(window.end))
        .order_by(table.c.at, table.c.id)
    )
    if code is None:
        return []
    return [
        Revision(
            at=from_epoch_s(row.at),
            source=Source(row.source),
            step_s=row.step_s,
            units=row.units,
            quality=Quality(row.quality),
            outcome_id=row.outcome_id,
            replaced_by=row.replaced_by,
            replaced_at=from_epoch_s(row.replaced_at),
        )
        for row in conn.execute(query)
    ]

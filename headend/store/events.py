"""What befell meters, told by concentrators with its time: each thing once, however often it is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from headend.civil import from_epoch_s, to_epoch_s
from headend.model import Window
from headend.store.portable import add_absent
from headend.store.schema import meter_event

__all__ = ["MeterEvent", "meter_events", "put_events"]


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """One thing that befell a meter. phase: start, end, instant. outcome_id: of what told it first, 0 before that."""

    meter_key: int
    at: datetime
    code: str
    phase: str = "instant"
    data: dict[str, Any] = field(default_factory=dict)
    outcome_id: int = 0


def put_events(conn: Connection, events: Sequence[MeterEvent]) -> None:
    """Keep events; those that were told before stay as they are."""
    rows: dict[tuple[int, int, str, str, str], dict[str, Any]] = {}
    for event in events:
        data = _text(json.dumps(event.data, ensure_ascii=False, sort_keys=True)) if event.data else ""
        digest = hashlib.sha256(data.encode()).hexdigest()[:32] if data else ""
        key = (event.meter_key, to_epoch_s(event.at), _text(event.code), event.phase, digest)
        names = ("meter_key", "at", "code", "phase", "digest")
        rows.setdefault(key, dict(zip(names, key, strict=True)) | {"data": data, "outcome_id": event.outcome_id})
    add_absent(conn, meter_event, list(rows.values()))


def _text(text: str) -> str:
    """`text` as both databases take it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")


def meter_events(conn: Connection, meter_key: int, window: Window) -> list[MeterEvent]:
    """The events of a meter in `window`, oldest first."""
    table = meter_event
    start, end = to_epoch_s(window.start), to_epoch_s(window.end)
    query = (
        select(table)
        .where(table.c.meter_key == meter_key, table.c.at >= start, table.c.at < end)
        .order_by(table.c.at, table.c.code, table.c.phase, table.c.digest)
    )
    return [
        MeterEvent(
            row.meter_key,
            from_epoch_s(row.at),
            row.code,
            row.phase,
            json.loads(row.data) if row.data else {},
            row.outcome_id,
        )
        for row in conn.execute(query)
    ]

"""What arrived by itself and could not be given to any meter: kept as it came, until somebody knows whose it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from headend.civil import from_epoch_s, to_epoch_s
from headend.store import schema

__all__ = ["KEEP", "UnplacedRow", "count_unplaced", "mark_replayed", "note_reason", "put_unplaced", "unplaced"]

KEEP: Final = 100_000
"""How many are kept; what comes beyond that pushes out the oldest, so that a stranger can't fill the disk."""


@dataclass(frozen=True, slots=True)
class UnplacedRow:
    """One message. channel: how it came (`push NAME`, `mqtt NAME`). peer: from where. replayed_at: when its meter was
    found. times: how often the very same came."""

    received_at: datetime
    channel: str
    peer: str
    reason: str
    payload: bytes = field(repr=False)
    replayed_at: datetime | None = None
    key: int = 0
    times: int = 1


def put_unplaced(conn: Connection, row: UnplacedRow, *, keep: int = KEEP) -> int:
    """Keep a message; its key. Of more than `keep` the oldest go. One that waits already is counted, not kept again."""
    table = schema.unplaced
    digest = _digest(row)
    same = (table.c.digest == digest) & table.c.replayed_at.is_(None)
    waiting: int | None = conn.scalar(select(table.c.key).where(same).order_by(table.c.key).limit(1))
    if waiting is not None:
        again = update(table).where(table.c.key == waiting)
        conn.execute(again.values(times=table.c.times + 1, reason=row.reason))
        return waiting
    values = {
        "digest": digest,
        "received_at": to_epoch_s(row.received_at),
        "channel": row.channel,
        "peer": row.peer,
        "reason": row.reason,
        "payload": row.payload,
    }
    key: int = conn.execute(insert(table).returning(table.c.key), values).scalar_one()
    conn.execute(delete(table).where(table.c.key <= key - keep))
    return key


def _digest(row: UnplacedRow) -> str:
    """What makes two messages the same one."""
    parts = (row.channel.encode("utf-8", "replace"), row.peer.encode("utf-8", "replace"), row.payload)
    made = hashlib.sha256()
    for part in parts:
        made.update(len(part).to_bytes(8, "big") + part)
    return made.hexdigest()


def unplaced(conn: Connection, *, after: int = 0, limit: int = 1000, channels: str = "") -> list[UnplacedRow]:
    """Messages that still wait for their meter, oldest first, with keys above `after`. channels: only those whose
    channel starts so (`mqtt `, `push `)."""
    table = schema.unplaced
    query = select(table).where(table.c.key > after, table.c.replayed_at.is_(None)).order_by(table.c.key).limit(limit)
    if channels:
        query = query.where(table.c.channel.startswith(channels, autoescape=True))
    return [
        UnplacedRow(
            from_epoch_s(row.received_at),
            row.channel,
            row.peer,
            row.reason,
            bytes(row.payload),
            None,
            row.key,
            row.times,
        )
        for row in conn.execute(query)
    ]


def count_unplaced(conn: Connection, channels: str = "") -> int:
    """How many messages wait; channels: as for `unplaced`."""
    table = schema.unplaced
    query = select(func.count()).where(table.c.replayed_at.is_(None))
    if channels:
        query = query.where(table.c.channel.startswith(channels, autoescape=True))
    return conn.scalar(query) or 0


def mark_replayed(conn: Connection, key: int, at: datetime) -> None:
    """This message has found its meter."""
    table = schema.unplaced
    conn.execute(update(table).where(table.c.key == key).values(replayed_at=to_epoch_s(at)))


def note_reason(conn: Connection, key: int, reason: str) -> None:
    """Why this message waits now."""
    table = schema.unplaced
    conn.execute(update(table).where(table.c.key == key).values(reason=reason))

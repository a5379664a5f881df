"""What meters were told to do: a row is written before a command is sent and completed once after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select, text, update

from headend.civil import from_epoch_s, to_epoch_s
from headend.model import FrameRecord
from headend.store import schema
from headend.store.evidence import pack_frames, unpack_frames

__all__ = ["ASKED", "CommandRow", "begin", "commands", "complete", "count_since", "one_at_a_time"]

ASKED: Final = "asked"
"""Status of a command that is on its way, or of which no ending was recorded."""


@dataclass(frozen=True, slots=True)
class CommandRow:
    """One command. result: what was found afterwards. frames: those of the command and of looking afterwards, secrets
    masked. ended_at None: no ending was recorded."""

    meter: str
    action: str
    asked_by: str
    reason: str
    asked_at: datetime
    status: str = ASKED
    detail: str = ""
    ended_at: datetime | None = None
    result: str = ""
    frames: tuple[FrameRecord, ...] = field(default=(), repr=False)
    key: int = 0


def one_at_a_time(conn: Connection) -> None:
    """Let this transaction be the only one that counts and adds commands."""
    if conn.dialect.name == "postgresql":  # SQLite has one writer anyway
        conn.execute(text("LOCK TABLE command IN SHARE ROW EXCLUSIVE MODE"))


def count_since(conn: Connection, action: str, since: datetime, *, but: Sequence[str]) -> int:
    """How many commands `action` were asked for since `since`, those that ended with a status in `but` left out."""
    table = schema.command
    query = select(func.count()).where(
        table.c.action == action, table.c.asked_at > to_epoch_s(since), table.c.status.not_in(but)
    )
    return conn.execute(query).scalar() or 0


def begin(conn: Connection, meter_key: int, action: str, asked_by: str, reason: str, at: datetime) -> int:
    """Write down that a command is about to be sent; its key."""
    values = {
        "meter_key": meter_key,
        "action": action,
        "asked_by": asked_by,
        "reason": reason,
        "asked_at": to_epoch_s(at),
        "status": ASKED,
        "detail": "",
        "result": "",
    }
    key: int = conn.execute(insert(schema.command).returning(schema.command.c.key), values).scalar_one()
    return key


def complete(
    conn: Connection,
    key: int,
    *,
    status: str,
    detail: str,
    result: str,
    frames: Sequence[FrameRecord],
    at: datetime,
) -> None:
    """Write down how a command ended; the database refuses a second time."""
    packed = pack_frames(frames) if frames else None
    values = {"status": status, "detail": detail, "result": result, "frames": packed, "ended_at": to_epoch_s(at)}
    conn.execute(update(schema.command).where(schema.command.c.key == key).values(values))


def commands(conn: Connection, meter_key: int | None = None, *, limit: int = 100) -> list[CommandRow]:
    """The last commands, of one meter or of all, newest first."""
    table, meter = schema.command, schema.meter
    query = select(table, meter.c.id.label("meter_id")).join(meter, meter.c.key == table.c.meter_key)
    if meter_key is not None:
        query = query.where(table.c.meter_key == meter_key)
    return [_command(row) for row in conn.execute(query.order_by(table.c.key.desc()).limit(limit))]


def _command(row: Row[Any]) -> CommandRow:
    return CommandRow(
        meter=row.meter_id,
        action=row.action,
        asked_by=row.asked_by,
        reason=row.reason,
        asked_at=from_epoch_s(row.asked_at),
        status=row.status,
        detail=row.detail,
        ended_at=None if row.ended_at is None else from_epoch_s(row.ended_at),
        result=row.result,
        frames=() if row.frames is None else unpack_frames(bytes(row.frames)),
        key=row.key,
    )

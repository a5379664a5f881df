"""Runs of billing: one row each, opened when it starts and completed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from billing import schema
from headend.civil import from_epoch_s, to_epoch_s

__all__ = ["Run", "complete_run", "last_runs", "open_run", "runs"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run. ended_at: None while it goes on, or for ever if it was killed. detail: why it ended early."""

    key: int
    cycle: str
    year: int
    month: int
    asked_by: str
    started_at: datetime
    ended_at: datetime | None
    issued: int
    held: int
    already: int
    detail: str


def open_run(conn: Connection, cycle: str, year: int, month: int, asked_by: str, now: datetime) -> int:
    """Record the start of a run; its key. cycle: "" where accounts were named, or all were asked for."""
    row = {"cycle": cycle, "year": year, "month": month, "asked_by": asked_by, "started_at": to_epoch_s(now)}
    row |= {"issued": 0, "held": 0, "already": 0, "detail": ""}
    key = conn.execute(insert(schema.billing_run).values(row).returning(schema.billing_run.c.key)).scalar_one()
    return int(key)


def complete_run(conn: Connection, key: int, now: datetime, counts: tuple[int, int, int], detail: str = "") -> None:
    """Complete a run. counts: bills issued, held, and issued before."""
    issued, held, already = counts
    values = {"ended_at": to_epoch_s(now), "issued": issued, "held": held, "already": already, "detail": detail}
    conn.execute(update(schema.billing_run).where(schema.billing_run.c.key == key).values(values))


def runs(conn: Connection, limit: int = 100) -> list[Run]:
    """The newest runs, newest first."""
    table = schema.billing_run
    return [_run(row) for row in conn.execute(select(table).order_by(table.c.key.desc()).limit(limit))]


def last_runs(conn: Connection, cycles: Sequence[str]) -> dict[tuple[str, int, int], Run]:
    """The last run of each cycle and month."""
    table = schema.billing_run
    query = select(table).where(table.c.cycle.in_(cycles)).order_by(table.c.key)
    return {(row.cycle, row.year, row.month): _run(row) for row in conn.execute(query)}


def _run(row: Any) -> Run:
    ended = None if row.ended_at is None else from_epoch_s(row.ended_at)
    counts = (row.issued, row.held, row.already)
    place = (row.key, row.cycle, row.year, row.month, row.asked_by)
    return Run(*place, from_epoch_s(row.started_at), ended, *counts, row.detail)

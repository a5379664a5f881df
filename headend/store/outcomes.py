"""What jobs have cost: outcomes summed by meter."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, func, select

from headend.civil import to_epoch_s
from headend.store import schema

__all__ = ["MeterJobs", "jobs_of_line"]


@dataclass(frozen=True, slots=True)
class MeterJobs:
    """The jobs of one meter: how long they took together, in seconds, and how many ended with which status."""

    meter: str
    seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)


def jobs_of_line(conn: Connection, line: str, since: datetime) -> list[MeterJobs]:
    """The jobs begun since `since` of every meter now on `line`, by its id; meters without any are there too."""
    meter, outcome = schema.meter.c, schema.outcome.c
    # What came by message cost the line nothing, and is not in the index.
    mine = (outcome.meter_key == meter.key) & outcome.message_key.is_(None)
    began = mine & (outcome.started_at >= to_epoch_s(since))
    query = (
        select(meter.id, outcome.status, func.count(outcome.id), func.sum(outcome.duration_s))
        .select_from(schema.meter.join(schema.outcome, began, isouter=True))
        .where(meter.line == line)
        .group_by(meter.id, outcome.status)
        .order_by(meter.id, outcome.status)
    )
    found: dict[str, MeterJobs] = {}
    for name, status, count, seconds in conn.execute(query):
        before = found.get(name, MeterJobs(name))
        outcomes = {**before.outcomes, status: count} if status is not None else before.outcomes
        found[name] = MeterJobs(name, before.seconds + (seconds or 0.0), outcomes)
    return list(found.values())

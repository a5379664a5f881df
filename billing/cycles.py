"""Billing by the calendar: groups of accounts whose month is closed on a set day of the month that follows.

Which month is due is told from the runs on record, not from a timer: after a standstill the months that were missed are
made up, oldest first, and a run that was killed is done again. A month with held bills is tried again now and then,
until the next month is due.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Final

from sqlalchemy import Connection, select

from billing.charges import Tariff
from billing.review import Rules
from billing.run import CloseReport, close_period, pool
from billing.run_log import Run, complete_run, last_runs, open_run
from headend.civil import zone
from headend.errors import UsageError
from headend.store import Store
from headend.store import schema as registered

__all__ = ["Cycle", "Due", "Stopped", "due", "groups_of", "next_due", "run_due", "unknown_groups"]

log = logging.getLogger(__name__)

_MOST_MONTHS: Final = 12
"""So many months that were missed are made up."""
_REPEAT: Final = timedelta(hours=1)
"""After a run that ended early."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """A group of accounts: those whose `cycle` is its name. A month is closed on `day` of the month that follows, at
    `at` by the site's clock; while bills are held it is tried again every `retry_hours` (0: never)."""

    name: str
    day: int = 2
    at: time = time(3, 0)
    retry_hours: int = 24
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Due:
    """A month of a cycle that is to be closed now."""

    cycle: Cycle
    year: int
    month: int


class Stopped(Exception):
    """A run was asked to end; what it has written stays."""


def groups_of(cycles: Sequence[Cycle], cycle: Cycle) -> tuple[str, ...]:
    """The values of an account's `cycle` that belong to a cycle: its name, and of the first one also none."""
    return (cycle.name, "") if cycle == cycles[0] else (cycle.name,)


def unknown_groups(conn: Connection, cycles: Sequence[Cycle]) -> list[str]:
    """Groups that accounts belong to and no cycle bills."""
    known = {"", *(cycle.name for cycle in cycles)}
    found = conn.scalars(select(registered.account.c.cycle).distinct())
    return sorted(name for name in found if name not in known)


def next_due(cycle: Cycle, now: datetime, site_zone: str) -> datetime:
    """When the cycle next closes a month."""
    tz = zone(site_zone)
    local = now.astimezone(tz)
    moments = (_due_at(cycle, index, tz) for index in range(_index(local.date()) - 2, _index(local.date()) + 1))
    return next(moment for moment in moments if moment > now)


def due(
    cycle: Cycle, runs: Mapping[tuple[str, int, int], Run], now: datetime, site_zone: str
) -> tuple[int, int] | None:
    """Year and month that the cycle has to close now, None if there is nothing to do. runs: its last one by month."""
    tz = zone(site_zone)
    last = _index(now.astimezone(tz).date()) - 1
    while _due_at(cycle, last, tz) > now:
        last -= 1
    own = {year * 12 + month - 1: run for (name, year, month), run in runs.items() if name == cycle.name}
    first = max(min(own, default=last), last - _MOST_MONTHS + 1)
    for index in range(first, last + 1):
        run = own.get(index)
        if run is None or run.ended_at is None or (run.detail and now >= run.ended_at + _REPEAT):
            return _month_of(index)
        again = timedelta(hours=cycle.retry_hours)
        if index == last and run.held and cycle.retry_hours and now >= run.started_at + again and not run.detail:
            return _month_of(index)
    return None


def _index(day: date) -> int:
    return day.year * 12 + day.month - 1


def _month_of(index: int) -> tuple[int, int]:
    return index // 12, index % 12 + 1


def _due_at(cycle: Cycle, index: int, tz: tzinfo) -> datetime:
    """When the month with this index is to be closed."""
    year, month = _month_of(index + 1)
    local = datetime.combine(date(year, month, cycle.day), cycle.at)
    return local.replace(tzinfo=tz)


def run_due(
    store: Store,
    cycles: Sequence[Cycle],
    tariffs: Callable[[], Sequence[Tariff]],
    rules: Rules,
    *,
    clock: Callable[[], datetime],
    site_zone: str,
    stopping: Callable[[], bool] = lambda: False,
) -> list[tuple[Due, CloseReport]]:
    """Close what is due, one month of one cycle after the other; what was done.

    tariffs: gives the tariffs, called only if something is due. stopping: asked between batches of accounts.
    """
    found: list[tuple[Due, CloseReport]] = []
    for cycle in cycles:
        with store.read() as conn:
            runs = last_runs(conn, [cycle.name])
        tried: set[tuple[int, int]] = set()
        while (wanted := due(cycle, runs, clock(), site_zone)) is not None and wanted not in tried:
            tried.add(wanted)
            if stopping():
                return found
            report = _close(store, cycle, groups_of(cycles, cycle), tariffs(), rules, wanted, clock, stopping)
            if report is None:
                break
            found.append((Due(cycle, *wanted), report))
            with store.read() as conn:
                runs = last_runs(conn, [cycle.name])
    return found


def _close(
    store: Store,
    cycle: Cycle,
    groups: Sequence[str],
    tariffs: Sequence[Tariff],
    rules: Rules,
    wanted: tuple[int, int],
    clock: Callable[[], datetime],
    stopping: Callable[[], bool],
) -> CloseReport | None:
    """Close one month; None if it could not be done now."""

    def progress(_done: int, _total: int) -> None:
        if stopping():
            raise Stopped("the head-end was stopped")

    name = f"billing cycle {cycle.name}, {wanted[0]:04d}-{wanted[1]:02d}"
    try:
        with pool(cycle.processes) as executor:
            report = close_period(
                store,
                tariffs,
                *wanted,
                now=clock(),
                clock=clock,
                progress=progress,
                rules=rules,
                groups=groups,
                cycle=cycle.name,
                asked_by="schedule",
                executor=executor,
            )
    except Stopped as error:
        log.warning("%s: %s", name, error)
        return None
    except UsageError as error:
        log.warning("%s: %s", name, error)
        with store.write() as conn:
            key = open_run(conn, cycle.name, *wanted, "schedule", clock())
            complete_run(conn, key, clock(), (0, 0, 0), f"refused: {error}")
        return None
    issued, held, already = len(report.issued), len(report.held), len(report.already)
    log.info("%s: %d issued, %d held, %d issued before", name, issued, held, already)
    return report

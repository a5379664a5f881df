"""The hours of a tariff as a picture: for each group of months, seven days of cells, each with its TOU period. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from billing.calendar import DAY_KINDS, MINUTES_PER_DAY, season_of
from billing.charges import PeriodWindow, Schedule

__all__ = ["DAYS", "Picture", "pictures"]

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
"""The rows of a picture; a schedule with hours for holidays has a row for them below."""

_FINEST_MIN = 15


@dataclass(frozen=True, slots=True)
class Picture:
    """The week in `months`, which all have the same hours.

    cell_min: how many minutes a cell stands for: 60, 30 or 15. rows: name of the day and the period in each cell, by
    what holds at the cell's start; "" where the schedule has nothing. exact: no cell holds more than one period.
    """

    months: tuple[int, ...]
    cell_min: int
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    exact: bool


def pictures(schedule: Schedule) -> list[Picture]:
    """One picture for each group of months with the same hours, in the order of the year."""
    step = MINUTES_PER_DAY
    for season in schedule.seasons:
        for window in season.windows:
            step = gcd(step, window.start_min, window.end_min)
    cell_min = next((size for size in (60, 30) if step % size == 0), _FINEST_MIN)
    groups: dict[tuple[tuple[str, tuple[str, ...]], ...], list[int]] = {}
    for month in range(1, 13):
        groups.setdefault(_rows(schedule, month, cell_min), []).append(month)
    return [Picture(tuple(months), cell_min, rows, step % cell_min == 0) for rows, months in groups.items()]


def _rows(schedule: Schedule, month: int, cell_min: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    kinds = [(day, "weekday" if number < 5 else "weekend") for number, day in enumerate(DAYS)]
    named = dict.fromkeys(kind for season in schedule.seasons for kind in DAY_KINDS[season.days])
    kinds += [(kind, kind) for kind in named if kind not in ("weekday", "weekend")]
    cells = {kind: _cells(_windows(schedule, month, kind), cell_min) for _, kind in kinds}
    return tuple((day, cells[kind]) for day, kind in kinds)


def _windows(schedule: Schedule, month: int, kind: str) -> tuple[PeriodWindow, ...]:
    season = season_of(schedule, month, kind)
    return () if season is None else season.windows


def _cells(windows: tuple[PeriodWindow, ...], cell_min: int) -> tuple[str, ...]:
    return tuple(
        next((w.period for w in windows if w.start_min <= minute < w.end_min), "")
        for minute in range(0, MINUTES_PER_DAY, cell_min)
    )

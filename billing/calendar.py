"""Civil time of tariffs: which TOU period an instant belongs to, by the wall clock of the tariff's zone. Pure.

An hour that comes twice in autumn is priced by what the clock shows both times; an hour that is left out in spring is
not there. At most one change of offset within a civil day is assumed; every zone of today keeps to that.

A day of `Calendar.holidays` is of the kind `holiday` where a season of its month is for that kind, else of the kind
`weekend`; one of `Calendar.workdays` is a weekday. An event (`PeriodEvent`) goes before all of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from billing.charges import PeriodEvent, PeriodWindow, Schedule, Season
from headend.civil import day_start, month_span, zone
from headend.model import Window

__all__ = [
    "DAY_KINDS",
    "MINUTES_PER_DAY",
    "PeriodSpan",
    "billing_month",
    "clock_text",
    "day_kind",
    "overlaps",
    "period_at",
    "period_index",
    "season_of",
    "spans",
    "step_year_start",
    "uncovered",
]

MINUTES_PER_DAY = 1440

DAY_KINDS = {
    "weekday": ("weekday",),
    "weekend": ("weekend",),
    "all": ("weekday", "weekend"),
    "holiday": ("holiday",),
}
"""The day types of a season, and the kinds of day each stands for. A holiday without a season of its own is a day of
the weekend, so `all` holds on it as well."""

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class PeriodSpan:
    """A span `[start, end)` that belongs to one TOU period."""

    start: datetime
    end: datetime
    period: str


def billing_month(year: int, month: int, zone_name: str) -> Window:
    """The civil month of a zone as a window of instants."""
    return Window(*month_span(year, month, zone(zone_name)))


@lru_cache(maxsize=256)
def step_year_start(moment: datetime, year_start: tuple[int, int], zone_name: str) -> datetime:
    """The instant at which the step year that holds `moment` started."""
    tz = zone(zone_name)
    month, day = year_start
    year = moment.astimezone(tz).year
    start = day_start(date(year, month, day), tz)
    return start if start <= moment else day_start(date(year - 1, month, day), tz)


def day_kind(schedule: Schedule, day: date) -> str:
    """The kind of a civil day by the schedule's calendar: `weekday`, `weekend` or `holiday`."""
    if day in schedule.calendar.holidays:
        return "holiday"
    if day in schedule.calendar.workdays:
        return "weekday"
    return "weekend" if day.weekday() >= 5 else "weekday"


def season_of(schedule: Schedule, month: int, kind: str) -> Season | None:
    """The season that holds in `month` on a day of `kind`; None if the schedule leaves it out."""
    kinds = (kind, "weekend") if kind == "holiday" else (kind,)
    found = (s for one in kinds for s in schedule.seasons if month in s.months and one in DAY_KINDS[s.days])
    return next(found, None)


def period_at(schedule: Schedule, moment: datetime, tz: tzinfo) -> tuple[str, int]:
    """The TOU period at `moment`, and the minute of its civil day at which the window of hours it lies in ends.

    An event that ends earlier ends its period before that. `ValueError` if the schedule leaves the instant out; a
    checked tariff never does.
    """
    local = moment.astimezone(tz)
    minute = local.hour * 60 + local.minute
    season = season_of(schedule, local.month, day_kind(schedule, local.date()))
    for window in season.windows if season is not None else ():
        if window.start_min <= minute < window.end_min:
            event = _event_at(schedule.events, moment)
            return window.period if event is None else event.period, window.end_min
    raise ValueError(f"the schedule has no period for {local.isoformat()}")


def _event_at(events: Sequence[PeriodEvent], moment: datetime) -> PeriodEvent | None:
    return next((event for event in events if event.start <= moment < event.end), None)


@lru_cache(maxsize=256)
def spans(schedule: Schedule, window: Window, zone_name: str) -> tuple[PeriodSpan, ...]:
    """`window` split into spans of one TOU period, in order: they cover it exactly once, neighbours differ."""
    tz = zone(zone_name)
    found: list[PeriodSpan] = []
    edges = sorted({edge for event in schedule.events for edge in (event.start, event.end)})
    for start, end in _cut(_segments(window, tz), edges):
        moment = start
        while moment < end:
            period, end_min = period_at(schedule, moment, tz)
            local = moment.astimezone(tz)
            into_day = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second)
            until = min(end, moment + timedelta(minutes=end_min) - into_day)
            if found and found[-1].period == period:
                found[-1] = PeriodSpan(found[-1].start, until, period)
            else:
                found.append(PeriodSpan(moment, until, period))
            moment = until
    return tuple(found)


def _cut(pieces: Iterator[tuple[datetime, datetime]], edges: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """The pieces cut at those of `edges` (ascending) that lie within them."""
    for start, end in pieces:
        moment = start
        for edge in edges:
            if moment < edge < end:
                yield moment, edge
                moment = edge
        yield moment, end


def period_index(
    schedule: Schedule, window: Window, zone_name: str, step_s: int, periods: Sequence[str]
) -> NDArray[np.intp]:
    """The number, in `periods`, of the TOU period of every interval of `step_s` seconds of `window`, in order.

    `ValueError` if the window is no whole number of intervals, if a TOU period begins within an interval, and if one
    occurs that `periods` does not name.
    """
    step = timedelta(seconds=step_s)
    if (window.end - window.start) % step:
        raise ValueError(f"the window is no whole number of intervals of {step_s} s")
    found = np.empty((window.end - window.start) // step, dtype=np.intp)
    numbers = {period: number for number, period in enumerate(periods)}
    for span in spans(schedule, window, zone_name):
        if (span.start - window.start) % step:
            local = span.start.astimezone(zone(zone_name))
            raise ValueError(f"an interval of {step_s} s lies across {local:%Y-%m-%d %H:%M}, where a period begins")
        if span.period not in numbers:
            raise ValueError(f"the period {span.period!r} is not among {', '.join(periods)}")
        found[(span.start - window.start) // step : (span.end - window.start) // step] = numbers[span.period]
    return found


def _segments(window: Window, tz: tzinfo) -> Iterator[tuple[datetime, datetime]]:
    """`window` cut at civil midnights and changes of offset: in each piece the wall clock runs evenly in one day."""
    moment = window.start
    while moment < window.end:
        end = min(window.end, day_start(moment.astimezone(tz).date() + timedelta(days=1), tz))
        change = _offset_change(moment, end, tz)
        if change is not None:
            yield moment, change
            moment = change
        yield moment, end
        moment = end


def _offset_change(start: datetime, end: datetime, tz: tzinfo) -> datetime | None:
    """The instant within `(start, end)` at which the offset changes, found by halving; None if it does not."""
    before = start.astimezone(tz).utcoffset()
    low, high = start, end - _SECOND
    if high <= low or high.astimezone(tz).utcoffset() == before:
        return None
    while high - low > _SECOND:
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        low, high = (middle, high) if middle.astimezone(tz).utcoffset() == before else (low, middle)
    return high.astimezone(UTC)


def uncovered(windows: Sequence[PeriodWindow]) -> list[tuple[int, int]]:
    """The minutes of a day that no window covers, as spans."""
    gaps, reached = [], 0
    for window in sorted(windows, key=lambda w: w.start_min):
        if window.start_min > reached:
            gaps.append((reached, window.start_min))
        reached = max(reached, window.end_min)
    if reached < MINUTES_PER_DAY:
        gaps.append((reached, MINUTES_PER_DAY))
    return gaps


def overlaps(windows: Sequence[PeriodWindow]) -> list[tuple[int, int, tuple[str, ...]]]:
    """The minutes of a day that more than one window covers, as spans, with the periods that claim them."""
    edges = sorted({w.start_min for w in windows} | {w.end_min for w in windows})
    found: list[tuple[int, int, tuple[str, ...]]] = []
    for start, end in pairwise(edges):
        claims = Counter(w.period for w in windows if w.start_min <= start < w.end_min)
        if claims.total() < 2:
            continue
        names = tuple(sorted(claims))
        if found and found[-1][1] == start and found[-1][2] == names:
            found[-1] = (found[-1][0], end, names)
        else:
            found.append((start, end, names))
    return found


def clock_text(start_min: int, end_min: int) -> str:
    """Minutes of a day as `08:00-22:00`."""
    return f"{start_min // 60:02d}:{start_min % 60:02d}-{end_min // 60:02d}:{end_min % 60:02d}"

"""Checks of a tariff's time: seasons, hours, holidays, events, and which months its tables hold in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date, tzinfo
from difflib import get_close_matches
from itertools import pairwise

from billing.calendar import DAY_KINDS, clock_text, overlaps, uncovered
from billing.charges import Calendar, DemandCharge, Schedule, StepTouCharge, Tariff, TouCharge
from config.tariff_values import ALL_MONTHS
from headend.civil import day_start

__all__ = ["Finding", "check_calendar", "check_demand_hours", "check_months", "check_step_tou_hours", "check_tou_hours"]

Finding = tuple[str, str, str]
"""Where, what, remedy."""


def check_tou_hours(charge: TouCharge, tariff: Tariff, tz: tzinfo, where: str) -> Iterator[Finding]:
    """Prices and hours name each other, and every minute of the year has its period."""
    priced = [period for period, _ in charge.prices]
    yield from _reserved(priced, f"{where}.prices")
    used = _named(charge.schedule)
    for period in priced:
        if period not in used:
            yield f"{where}.prices.{period}", "no season has hours of this period", "add its hours or drop the price"
    yield from _priced(charge.schedule, priced, where)
    yield from _whole(charge.schedule, where)
    yield from _events(charge.schedule, tariff, tz, where)


def check_step_tou_hours(charge: StepTouCharge, tariff: Tariff, tz: tzinfo, where: str) -> Iterator[Finding]:
    """Every step has a price for every period of the hours, and for no other."""
    used = _named(charge.schedule)
    yield from _reserved(used, f"{where}.seasons")
    for number, table in enumerate(charge.tables, start=1):
        occur = _named(charge.schedule, table.months)
        for index, step in enumerate(table.steps, start=1):
            here = f"{where}.tables[{number}].steps[{index}].prices"
            priced = [period for period, _ in step.prices]
            for period in priced:
                if period not in used:
                    remedy = _near(period, used) or "add its hours or drop the price"
                    yield f"{here}.{period}", "no season has hours of this period", remedy
            if len({p for p, _ in step.prices} ^ {p for p, _ in table.steps[0].prices}) > 0:
                yield here, "its periods are not those of the first step", "price the same periods in every step"
            if missing := [period for period in occur if period not in priced]:
                yield here, f"no price for {', '.join(missing)}", "price every period in every step"
    yield from _whole(charge.schedule, where)
    yield from _events(charge.schedule, tariff, tz, where)


def check_demand_hours(charge: DemandCharge, where: str) -> Iterator[Finding]:
    """The period whose demand counts is one of the hours."""
    if charge.schedule is None:
        return
    used = _named(charge.schedule)
    if charge.period not in used:
        remedy = _near(charge.period, used) or f"name one of {', '.join(used)}"
        yield f"{where}.period", f"no season has hours of {charge.period!r}", remedy
    yield from _reserved(used, f"{where}.seasons")
    yield from _whole(charge.schedule, where)


def check_calendar(calendar: Calendar) -> Iterator[Finding]:
    """Days in order and once; a day worked is one of the weekend, and no holiday."""
    for key, days in (("holidays", calendar.holidays), ("workdays", calendar.workdays)):
        for earlier, later in pairwise(days):
            if later == earlier:
                yield key, f"{later} stands there twice", "write it once"
            elif later < earlier:
                yield key, f"{later} stands after {earlier}", "write the days in order"
    for day in calendar.workdays:
        if day.weekday() < 5:
            yield "workdays", f"{day} is a {day:%A}, which is worked anyway", "list days of the weekend only"
        if day in calendar.holidays:
            yield "workdays", f"{day} is a holiday as well", "keep it in one list"


def check_months(rows: Sequence[tuple[str, tuple[int, ...], tuple[str, ...]]], where: str) -> Iterator[Finding]:
    """Every month of every kind of day belongs to exactly one row (a season or a table of steps); holidays may have
    none, and are days of the weekend then."""
    for kind in dict.fromkeys(kind for _, _, kinds in rows for kind in kinds):
        on = "" if kind == "all" else f" on a {kind}"
        missing = [m for m in ALL_MONTHS if not any(m in months and kind in kinds for _, months, kinds in rows)]
        if missing and kind != "holiday":
            yield where, f"nothing for month {', '.join(map(str, missing))}{on}", "add them to one `months`"
        holders: dict[tuple[str, ...], list[int]] = {}
        for month in ALL_MONTHS:
            rows_of = tuple(row for row, months, kinds in rows if kind in kinds for m in months if m == month)
            holders.setdefault(rows_of, []).append(month)
        for rows_of, months_of in holders.items():
            if len(rows_of) > 1:
                what = f"month {', '.join(map(str, months_of))}{on} stands in {' and '.join(rows_of)}"
                yield where, what, "keep it in one"
    for kind in ("weekday", "weekend"):
        if rows and all(kind not in kinds and "all" not in kinds for _, _, kinds in rows):
            yield where, f"nothing for a {kind}", f"add a season for {kind}s"


def _named(schedule: Schedule, months: Sequence[int] = ALL_MONTHS) -> list[str]:
    """The periods of the hours of some months and of the events, each once."""
    periods = [w.period for s in schedule.seasons if set(months) & set(s.months) for w in s.windows]
    return list(dict.fromkeys([*periods, *(event.period for event in schedule.events)]))


def _reserved(periods: Sequence[str], where: str) -> Iterator[Finding]:
    for period in periods:
        if re.fullmatch(r"step\d*(_.*)?", period):
            yield f"{where}.{period}", "this name is kept for steps", "choose another name for the period"


def _near(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def _priced(schedule: Schedule, priced: Sequence[str], where: str) -> Iterator[Finding]:
    for number, season in enumerate(schedule.seasons, start=1):
        for period in dict.fromkeys(w.period for w in season.windows):
            if period not in priced:
                remedy = _near(period, priced) or "give it a price in `prices`"
                yield f"{where}.seasons[{number}].periods.{period}", f"the period {period!r} has no price", remedy
    for number, event in enumerate(schedule.events, start=1):
        if event.period not in priced:
            remedy = _near(event.period, priced) or "give it a price in `prices`"
            yield f"{where}.events[{number}].period", f"the period {event.period!r} has no price", remedy


def _whole(schedule: Schedule, where: str) -> Iterator[Finding]:
    """Every minute of a day has one period, every month and kind of day one season."""
    for number, season in enumerate(schedule.seasons, start=1):
        here = f"{where}.seasons[{number}]"
        for start, end in uncovered(season.windows):
            yield f"{here}.periods", f"no period for {clock_text(start, end)}", "give these hours to one period"
        for start, end, names in overlaps(season.windows):
            what = f"{clock_text(start, end)} is given twice ({', '.join(names)})"
            yield f"{here}.periods", what, "give these hours to one period"
    yield from check_months(
        [(f"{where}.seasons[{n}]", s.months, DAY_KINDS[s.days]) for n, s in enumerate(schedule.seasons, 1)],
        f"{where}.seasons",
    )


def _events(schedule: Schedule, tariff: Tariff, tz: tzinfo, where: str) -> Iterator[Finding]:
    """Events lie within the version's time, and not on each other."""
    first = day_start(tariff.valid_from, tz)
    last = None if tariff.valid_to is None else day_start(tariff.valid_to, tz)
    for number, event in enumerate(schedule.events, start=1):
        here = f"{where}.events[{number}]"
        if event.end <= event.start:
            yield here, "it ends before it starts", "mend `start` and `end`"
        if event.start < first or (last is not None and event.end > last):
            until = tariff.valid_to or date.max
            what = f"it is not within the tariff's time ({tariff.valid_from} to {until})"
            yield here, what, "put it into the version that holds then"
    ordered = sorted(enumerate(schedule.events, start=1), key=lambda one: one[1].start)
    for (one, earlier), (other, later) in pairwise(ordered):
        if later.start < earlier.end:
            yield f"{where}.events[{other}]", f"it begins before events[{one}] ends", "keep events apart"

"""How energy was used in a billing period, from the intervals of its meters: by day, and on an average day by hour.

Shown, not billed: where values are missing the picture has a gap.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from billing import store as bill_store
from billing.calendar import PeriodSpan
from billing.model import Bill
from headend.civil import zone
from headend.model import Interval, Quality, Window
from headend.quantities import from_units, to_units
from headend.store import readings, registry

__all__ = ["Day", "Usage", "usage_of"]

_INTERVALS, _REGISTER = "import_interval_kwh", "import_kwh"


@dataclass(frozen=True, slots=True)
class Day:
    """A civil day's energy in kWh, None where an interval is missing. estimated: one of them at least was."""

    day: date
    energy: Decimal | None
    estimated: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Energy of the period by day, in order; and of an average day by hour, kWh, None where there is nothing.

    periods: the TOU period most of each hour's time lies in; () without TOU.
    """

    days: tuple[Day, ...]
    hours: tuple[Decimal | None, ...]
    periods: tuple[str, ...] = ()


def usage_of(conn: Connection, bill: Bill) -> Usage | None:
    """How the energy of a bill was used, as the store held it when the bill was made; None without intervals."""
    energies: dict[datetime, tuple[Decimal, bool]] = {}
    missing: set[datetime] = set()
    for row in registry.installations(conn, bill.usage_point):
        start = max(row.since, bill.window.start)
        end = bill.window.end if row.until is None else min(row.until, bill.window.end)
        meter = registry.meter(conn, row.meter)
        if end <= start or meter is None:
            continue
        wrap_units = to_units(meter.register_wrap)
        found = readings.intervals(conn, row.meter_key, _INTERVALS, Window(start, end), wrap_units=wrap_units)
        if bill.as_of and any(parent > bill.as_of for one in found for parent in one.parents):
            found = _as_it_stood(conn, row.meter_key, Window(start, end), wrap_units, bill.as_of, found)
        for one in found:
            if one.units is None:
                missing.add(one.start)
                continue
            value, estimated = energies.get(one.start, (Decimal(0), False))
            value += from_units(one.units) * row.multiplier
            energies[one.start] = value, estimated or one.quality is not Quality.VALID
    if not energies:
        return None
    for start in missing:
        energies.pop(start, None)
    return Usage(
        _days(energies, missing, bill), _hours(energies, bill.zone), _hour_periods(_spans(conn, bill), bill.zone)
    )


def _spans(conn: Connection, bill: Bill) -> list[PeriodSpan]:
    """How the TOU periods of each part of the bill's period lay, by the tariff it was made from."""
    parts = bill.segments or ((bill.window.start, bill.tariff_sha),)
    ends = [*(start for start, _ in parts[1:]), bill.window.end]
    found: list[PeriodSpan] = []
    for (start, sha), end in zip(parts, ends, strict=True):
        found += bill_store.tariff_spans(conn, sha, Window(start, end))
    return found


def _as_it_stood(
    conn: Connection, meter_key: int, window: Window, wrap_units: int, as_of: int, found: list[Interval]
) -> list[Interval]:
    """The intervals with the values that stood when `as_of` was the highest outcome."""
    longer = Window(window.start, window.end + timedelta(days=1))
    stood: dict[tuple[str, datetime], tuple[int, Quality]] = {}
    for quantity in (_INTERVALS, _REGISTER):
        for point in readings.curve(conn, meter_key, quantity, longer):
            if point.units is not None and point.outcome_id is not None and point.outcome_id <= as_of:
                stood[quantity, point.at] = point.units, point.quality
        for old in readings.revisions(conn, meter_key, quantity, longer):
            if old.step_s and old.outcome_id <= as_of < old.replaced_by:
                stood[quantity, old.at] = old.units, old.quality
    return [_before(one, stood, wrap_units) if any(p > as_of for p in one.parents) else one for one in found]


def _before(one: Interval, stood: dict[tuple[str, datetime], tuple[int, Quality]], wrap_units: int) -> Interval:
    end = one.start + timedelta(seconds=one.step_s)
    if own := stood.get((_INTERVALS, one.start)):
        units, quality = own
        return Interval(one.quantity, one.start, one.step_s, units, quality)
    first, second = stood.get((_REGISTER, one.start)), stood.get((_REGISTER, end))
    if first is None or second is None:
        return Interval(one.quantity, one.start, one.step_s, None, Quality.MISSING)
    units = second[0] - first[0]
    quality = next((q for _, q in (first, second) if q is not Quality.VALID), Quality.VALID)
    return Interval(one.quantity, one.start, one.step_s, units + (wrap_units if units < 0 else 0), quality)


def _days(energies: dict[datetime, tuple[Decimal, bool]], missing: set[datetime], bill: Bill) -> tuple[Day, ...]:
    tz = zone(bill.zone)
    sums: dict[date, Decimal] = defaultdict(Decimal)
    estimated: set[date] = set()
    for start, (value, guessed) in energies.items():
        day = start.astimezone(tz).date()
        sums[day] += value
        if guessed:
            estimated.add(day)
    gaps = {start.astimezone(tz).date() for start in missing}
    first, last = (
        bill.window.start.astimezone(tz).date(),
        (bill.window.end - timedelta(seconds=1)).astimezone(tz).date(),
    )
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return tuple(Day(day, None if day in gaps or day not in sums else sums[day], day in estimated) for day in days)


def _hours(energies: dict[datetime, tuple[Decimal, bool]], zone_name: str) -> tuple[Decimal | None, ...]:
    """The mean energy of each hour of the day over the days on which it has values."""
    tz = zone(zone_name)
    sums: dict[int, Decimal] = defaultdict(Decimal)
    days: dict[int, set[date]] = defaultdict(set)
    for start, (value, _) in energies.items():
        local = start.astimezone(tz)
        sums[local.hour] += value
        days[local.hour].add(local.date())
    return tuple(sums[hour] / len(days[hour]) if days[hour] else None for hour in range(24))


def _hour_periods(spans: Iterable[PeriodSpan], zone_name: str) -> tuple[str, ...]:
    """The period that holds in most of each hour of the day, over all days of the spans."""
    tz = zone(zone_name)
    minutes: dict[int, Counter[str]] = defaultdict(Counter)
    quarter = timedelta(minutes=15)
    for span in spans:
        at = span.start
        while at < span.end:
            minutes[at.astimezone(tz).hour][span.period] += 1
            at += quarter
    if not minutes:
        return ()
    return tuple(min(minutes[h], key=lambda p: (-minutes[h][p], p)) if minutes[h] else "" for h in range(24))

"""From the store to the arrays that the analysis works on: uses by day and by hour, averages, what meters told.

Energy of a day is the difference of the registers at its local midnights, as for bills; where a meter has no registers
there, the sum of its intervals. Suspect values are left out; what is not known stays None and is never guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from decimal import Decimal
from itertools import pairwise

from sqlalchemy import Connection

from billing.analysis.irregular import Sign
from billing.analysis.signs import STATUS_WORDS, WordRead, event_sign, status_signs
from headend.civil import day_start, local_days
from headend.model import Quality, Source, Window
from headend.quantities import UNITS_PER_ONE, from_units, to_units
from headend.store import events, readings, registry
from headend.store.codes import code_of
from headend.store.registry import InstallationRow, MeterRow

__all__ = [
    "Place",
    "Series",
    "average",
    "bounds",
    "daily",
    "day_list",
    "hourly",
    "net_daily",
    "net_hourly",
    "places",
    "signs",
]

_HOUR = timedelta(hours=1)
_FEW = 4  # instants that are sooner asked for one by one than with everything between them
_FROZEN = (Source.DAILY_FREEZE, Source.SETTLEMENT, Source.TIMED_FREEZE)
_INTERVALS = {"import_kwh": "import_interval_kwh", "export_kwh": "export_interval_kwh"}

Series = list[Decimal | None]


@dataclass(frozen=True, slots=True)
class Place:
    """A usage point with the meters that stood there, in order. tariff: of its account at the end of the span asked
    for, "" without one."""

    id: str
    district: str
    tariff: str
    meters: tuple[tuple[InstallationRow, MeterRow], ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A meter at a place for a part of a span."""

    meter: MeterRow
    multiplier: Decimal
    start: datetime
    end: datetime


def places(conn: Connection, at: datetime) -> list[Place]:
    """Every usage point with its district, meters and tariff at the instant before `at`, by id."""
    devices = {row.id: row for row in registry.meters(conn)}
    stood: dict[str, list[tuple[InstallationRow, MeterRow]]] = defaultdict(list)
    for row in registry.installations(conn):
        stood[row.usage_point].append((row, devices[row.meter]))
    tariffs = {a.usage_point: a.tariff for a in registry.accounts(conn) if a.since < at and not _over(a.until, at)}
    points = sorted(registry.usage_points(conn), key=lambda point: point.id)
    return [Place(p.id, p.district, tariffs.get(p.id, ""), tuple(stood[p.id])) for p in points]


def _over(until: datetime | None, at: datetime) -> bool:
    return until is not None and until < at


def bounds(window: Window, tz: tzinfo) -> list[datetime]:
    """The local midnights of the window's days and the one after the last."""
    days = list(local_days(window.start, window.end, tz))
    return [day_start(day, tz) for day in days] + ([day_start(days[-1] + timedelta(days=1), tz)] if days else [])


# -- energy ------------------------------------------------------------------------------------------------------------


def daily(conn: Connection, place: Place, midnights: Sequence[datetime], register: str = "import_kwh") -> Series:
    """Energy of each day between neighbouring midnights, kWh times the multiplier; None where it is not known."""
    spans = [Window(start, end) for start, end in pairwise(midnights)]
    parts = {span.start: _parts(place, span) for span in spans}
    wanted: dict[int, set[datetime]] = defaultdict(set)
    for part in (part for own in parts.values() for part in own):
        wanted[part.meter.key] |= {part.start, part.end}
    held = {key: _registers(conn, key, register, instants) for key, instants in wanted.items()}
    found = [_energy(parts[span.start], span, held) for span in spans]
    return found if any(held.values()) or not held else _binned(conn, place, midnights, register)


def hourly(conn: Connection, place: Place, window: Window, register: str = "import_kwh") -> Series:
    """Energy of each hour from the window's start, kWh times the multiplier; None where an interval is missing."""
    hours = (window.end - window.start) // _HOUR
    return _binned(conn, place, [window.start + i * _HOUR for i in range(hours + 1)], register)


def net_daily(conn: Connection, place: Place, midnights: Sequence[datetime]) -> Series:
    """Import less export by day. A place whose export was never read has none."""
    taken = daily(conn, place, midnights)
    return _net(taken, daily(conn, place, midnights, "export_kwh")) if _exports(conn) else taken


def net_hourly(conn: Connection, place: Place, window: Window) -> Series:
    """Import less export by hour. A place whose export was never read has none."""
    taken = hourly(conn, place, window)
    return _net(taken, hourly(conn, place, window, "export_kwh")) if _exports(conn) else taken


def _exports(conn: Connection) -> bool:
    """Whether any export was ever stored."""
    return any(code_of(conn, name) is not None for name in ("export_kwh", "export_interval_kwh"))


def _net(taken: Series, given: Series) -> Series:
    if all(value is None for value in given):
        return taken
    return [None if a is None or b is None else a - b for a, b in zip(taken, given, strict=True)]


def average(conn: Connection, place: Place, month: Window, tz: tzinfo) -> Decimal | None:
    """Average daily use in a month, kWh: by the registers at its ends; else over its known days with a meter, if they
    are half of it. None when no meter stood there, or too little is known."""
    parts = _parts(place, month)
    if not parts:
        return None
    midnights = bounds(month, tz)
    days = len(midnights) - 1
    whole = daily(conn, place, [month.start, month.end])[0]
    if whole is not None:
        return whole / days
    uses = zip(midnights, daily(conn, place, midnights), strict=False)
    known = [use for start, use in uses if use is not None and any(p.start <= start < p.end for p in parts)]
    return sum(known, Decimal(0)) / len(known) if known and 2 * len(known) >= days else None


def _parts(place: Place, span: Window) -> list[_Part]:
    """The meters of a place in `span`, in order."""
    found = []
    for row, meter in place.meters:
        start = max(row.since, span.start)
        end = span.end if row.until is None else min(row.until, span.end)
        if start < end:
            found.append(_Part(meter, row.multiplier, start, end))
    return sorted(found, key=lambda part: part.start)


def _energy(parts: Sequence[_Part], span: Window, held: dict[int, dict[datetime, int]]) -> Decimal | None:
    """The register differences of meters that cover `span` together; None when they don't, or one is missing.

    0 where no meter stood: what is used there is no meter's, and a part of the loss.
    """
    if not parts:
        return Decimal(0)
    reached, total = span.start, Decimal(0)
    for part in parts:
        first, last = held[part.meter.key].get(part.start), held[part.meter.key].get(part.end)
        if part.start != reached or first is None or last is None:
            return None
        units = _risen(last - first, to_units(part.meter.register_wrap))
        if units is None:
            return None
        total += from_units(units) * part.multiplier
        reached = part.end
    return total if reached == span.end else None


def _risen(units: int, wrap_units: int) -> int | None:
    """What a register rose by, round its end if need be; None when that would be half its range: it ran back."""
    if units < 0:
        units += wrap_units
    return units if units * 2 < wrap_units else None


def _registers(conn: Connection, meter_key: int, register: str, instants: set[datetime]) -> dict[datetime, int]:
    """The register at each instant where it is known and not suspect: freezes first, then the curve."""
    held: dict[datetime, int] = {}
    if len(instants) > _FEW:
        span = Window(min(instants), max(instants) + timedelta(seconds=1))
        for point in readings.curve(conn, meter_key, register, span):
            if point.at in instants and point.units is not None and point.quality is not Quality.SUSPECT:
                held[point.at] = point.units
        for row in readings.snapshots(conn, meter_key, register, span):
            if row.at in instants and row.source in _FROZEN and row.quality is not Quality.SUSPECT:
                held[row.at] = row.units
    for at in sorted(instants - held.keys()):
        value = readings.register_at(conn, meter_key, register, at)
        if value is not None and value.quality not in (Quality.SUSPECT, Quality.MISSING):
            held[at] = value.units
    return held


def _binned(conn: Connection, place: Place, edges: Sequence[datetime], register: str) -> Series:
    """Intervals summed between neighbouring edges; None where they don't fill a bin, 0 where no meter stood."""
    if len(edges) < 2:
        return []
    sums, filled = [Decimal(0)] * (len(edges) - 1), [0] * (len(edges) - 1)
    parts = _parts(place, Window(edges[0], edges[-1]))
    for part in parts:
        wrap_units = to_units(part.meter.register_wrap)
        span = Window(part.start, part.end)
        bin_ = 0
        for row in readings.intervals(conn, part.meter.key, _INTERVALS[register], span, wrap_units=wrap_units):
            while row.start >= edges[bin_ + 1]:
                bin_ += 1
            inside = row.start + timedelta(seconds=row.step_s) <= min(edges[bin_ + 1], part.end)
            if not inside or row.units is None or row.quality is Quality.SUSPECT:
                continue
            units = _risen(row.units, wrap_units)
            if units is not None:
                sums[bin_] += from_units(units) * part.multiplier
                filled[bin_] += row.step_s
    found: Series = []
    for (start, end), energy, seconds in zip(pairwise(edges), sums, filled, strict=True):
        empty = not any(part.start < end and start < part.end for part in parts)
        found.append(energy if empty or seconds == (end - start) // timedelta(seconds=1) else None)
    return found


# -- what meters told --------------------------------------------------------------------------------------------------


def signs(conn: Connection, place: Place, window: Window) -> list[Sign]:
    """What the meters of a place, and their concentrators, told in the window that may mean tampering."""
    found: list[Sign] = []
    for part in _parts(place, window):
        span = Window(part.start, part.end)
        for word in STATUS_WORDS:
            rows = readings.snapshots(conn, part.meter.key, f"status_word_{word}", span)
            reads = [WordRead(row.at, row.units // UNITS_PER_ONE, row.outcome_id) for row in rows]
            found += status_signs(word, sorted(reads))
        told = (
            event_sign(e.at, e.code, e.phase, e.outcome_id) for e in events.meter_events(conn, part.meter.key, span)
        )
        found += [sign for sign in told if sign is not None]
    return found


def day_list(midnights: Iterable[datetime], tz: tzinfo) -> list[date]:
    """The civil days that begin at these midnights."""
    return [midnight.astimezone(tz).date() for midnight in midnights]

"""What the slow biller of the tests bills: accounts, tariffs as dictionaries, energies as lists; days and hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

Charge = dict[str, Any]
ZERO, NOTHING = Fraction(0), Decimal(0)
GROUP = {
    **dict.fromkeys(("energy", "tou", "step", "step_adder", "step_tou", "market"), "energy"),
    **dict.fromkeys(("demand", "capacity"), "demand"),
    **dict.fromkeys(("export_credit", "net_metering"), "export"),
    **{kind: kind for kind in ("fixed", "surcharge", "power_factor", "minimum")},
}


@dataclass
class Version:
    """One version of a tariff, `[first, end)`; charges with the keys of the file, prices as text."""

    first: date
    end: date | None
    charges: list[Charge]
    rounding: str = "line"
    part_month: str = "days"
    holidays: list[date] = field(default_factory=list)
    workdays: list[date] = field(default_factory=list)
    series: dict[str, list[tuple[datetime, str]]] = field(default_factory=dict)

    def of(self, *kinds: str) -> list[Charge]:
        return [charge for charge in self.charges if charge["kind"] in kinds]


@dataclass
class Stay:
    """A meter at the usage point: from `start` on, energies of each interval as the meter counts them (kWh, export kWh,
    reactive import and export in kvarh)."""

    start: datetime
    step_s: int
    multiplier: str
    rows: list[tuple[Decimal, Decimal, Decimal, Decimal]]

    @property
    def end(self) -> datetime:
        return self.start + timedelta(seconds=self.step_s * len(self.rows))


@dataclass
class Plan:
    """One account: where, by which tariff, with which meters, and the months to bill in their order."""

    zone: str
    versions: list[Version]
    since: datetime
    until: datetime | None
    terms: list[tuple[datetime, dict[str, str]]]
    stays: list[Stay]
    used: str | None
    months: list[tuple[int, int]]
    name: str = ""

    @property
    def tz(self) -> ZoneInfo:
        return ZoneInfo(self.zone)


@dataclass
class Line:
    code: str
    group: str
    quantity: Fraction
    exact: Fraction
    part: int
    adjusted: bool = False

    @property
    def amount(self) -> Fraction:
        return rounded(self.exact, 2)


@dataclass
class Billed:
    lines: list[Line]
    total: Fraction

    def shown(self) -> list[tuple[str, Fraction, Fraction]]:
        return sorted((line.code, line.quantity, line.amount) for line in self.lines)


@dataclass
class Part:
    """A part of a billing period. rows: start and energies of each interval, times the multiplier."""

    start: datetime
    end: datetime
    version: Version
    terms: dict[str, str]
    rows: list[tuple[datetime, list[Decimal]]] = field(default_factory=list)
    days: int = 0

    def energy(self, which: int = 0) -> Fraction:
        return Fraction(sum((row[which] for _, row in self.rows), NOTHING))


def rounded(value: Fraction, places: int) -> Fraction:
    """Half-up, the same for what is below 0."""
    scaled = abs(value) * 10**places
    whole = int(scaled + Fraction(1, 2))
    return Fraction(whole if value >= 0 else -whole, 10**places)


def cumulated(whole: Fraction, reached: Fraction, total: Fraction) -> Fraction:
    """The share of the first parts, which come to `reached` of `total`: to four places, and all of it with the last."""
    return whole if reached == total else min(rounded(whole * reached / total, 4), whole)


def midnight(day: date, tz: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=tz).astimezone(UTC)


def month_edges(year: int, month: int, tz: ZoneInfo) -> tuple[datetime, datetime]:
    return midnight(date(year, month, 1), tz), midnight(date(year + month // 12, month % 12 + 1, 1), tz)


def local_days(start: datetime, end: datetime, tz: ZoneInfo) -> int:
    """Civil days of a span, begun ones counted whole."""
    last = (end - timedelta(seconds=1)).astimezone(tz).date()
    return (last - start.astimezone(tz).date()).days + 1


# -- hours -------------------------------------------------------------------------------------------------------------


@cache
def minutes(text: str) -> int:
    hours, rest = text.split(":")
    return int(hours) * 60 + int(rest)


def kind_of_day(day: date, version: Version, seasons: Sequence[Charge]) -> str:
    mine = [s for s in seasons if day.month in s.get("months", range(1, 13))]
    if day in version.holidays:
        return "holiday" if any(s.get("days") == "holiday" for s in mine) else "weekend"
    if day in version.workdays:
        return "weekday"
    return "weekend" if day.weekday() >= 5 else "weekday"


def period_at(at: datetime, charge: Charge, version: Version, tz: ZoneInfo) -> str:
    """The period that an instant belongs to: an event's, or that of the season's hours on the wall clock."""
    wall = at.astimezone(tz)
    naive = wall.replace(tzinfo=None)
    for event in charge.get("events", ()):
        if datetime.fromisoformat(event["start"]) <= naive < datetime.fromisoformat(event["end"]):
            return str(event["period"])
    kind = kind_of_day(wall.date(), version, charge["seasons"])
    minute = wall.hour * 60 + wall.minute
    found = []
    for season in charge["seasons"]:
        days = season.get("days", "all")
        if wall.month in season.get("months", range(1, 13)) and (days == kind or (days == "all" and kind != "holiday")):
            for name, spans in season["periods"].items():
                for span in spans:
                    first, last = (minutes(text) for text in span.split("-"))
                    inside = first <= minute < last if first < last else minute >= first or minute < last
                    found += [name] if inside else []
    assert len(found) == 1, (wall, found)
    return str(found[0])


def by_period(part: Part, charge: Charge, tz: ZoneInfo) -> dict[str, Fraction]:
    """Energy of each period that occurs, with 0 as well; in the order of the file's prices."""
    found: dict[str, Decimal] = {}
    for at, row in part.rows:
        name = period_at(at, charge, part.version, tz)
        found[name] = found.get(name, NOTHING) + row[0]
    order = list(charge["prices"] if "prices" in charge else charge["tables"][0]["steps"][0]["prices"])
    return {name: Fraction(found[name]) for name in order if name in found}

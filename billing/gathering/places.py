"""Who stands where in a billing period: the meters of usage points, cut at their exchange and at its segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from billing.model import Hold, Period
from headend.civil import zone
from headend.model import Window
from headend.store.columns import installed_at
from headend.store.registry import InstallationRow, MeterRow

__all__ = ["Installed", "Piece", "Spot", "span_text", "spots", "when_text"]


@dataclass(frozen=True, slots=True)
class Installed:
    """A meter at the usage point for a part of the billing period."""

    installation: InstallationRow
    meter: MeterRow
    window: Window


@dataclass(frozen=True, slots=True)
class Piece:
    """What of a meter's stay lies in one segment. origin: start of its stay in the period, where its grid begins."""

    installed: Installed
    window: Window

    @property
    def meter(self) -> MeterRow:
        return self.installed.meter

    @property
    def origin(self) -> datetime:
        return self.installed.window.start


@dataclass(slots=True)
class Spot:
    """A usage point in a billing period. parts: its meters, in order; holds: where there is not exactly one."""

    point: str
    period: Period
    parts: list[Installed] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)

    @property
    def zone(self) -> str:
        return self.period.tariff.zone

    def pieces(self, segment: int) -> Iterator[Piece]:
        """The parts cut to a segment."""
        window = self.period.segments[segment].window
        for part in self.parts:
            start, end = max(part.window.start, window.start), min(part.window.end, window.end)
            if start < end:
                yield Piece(part, Window(start, end))


def spots(conn: Connection, wanted: Sequence[tuple[str, Period]]) -> list[Spot]:
    """The spot of each usage point and period; its meters together must cover the period exactly once."""
    rows = installed_at(conn, {point for point, _ in wanted})
    return [_spot(point, period, rows[point]) for point, period in wanted]


def _spot(point: str, period: Period, rows: Sequence[tuple[InstallationRow, MeterRow]]) -> Spot:
    window, spot = period.window, Spot(point, period)
    reached = window.start
    for row, meter in rows:
        start = max(row.since, window.start)
        end = window.end if row.until is None else min(row.until, window.end)
        if start >= end:
            continue
        if start > reached:
            spot.holds.append(_no_meter(spot, Window(reached, start)))
        if start < reached:
            both = Window(start, min(reached, end))
            what = f"stands at {point} together with another meter ({span_text(both, spot.zone)})"
            remedy = "end the earlier installation where the later one starts"
            spot.holds.append(Hold("two_meters", what, remedy, row.meter, both.start, both.end))
        reached = max(reached, end)
        spot.parts.append(Installed(row, meter, Window(start, end)))
    if reached < window.end:
        spot.holds.append(_no_meter(spot, Window(reached, window.end)))
    return spot


def _no_meter(spot: Spot, window: Window) -> Hold:
    what = f"no meter stands at {spot.point} ({span_text(window, spot.zone)})"
    return Hold("no_meter", what, "correct the installations", start=window.start, end=window.end)


def when_text(moment: datetime, zone_name: str) -> str:
    """An instant by the wall clock of a zone."""
    return moment.astimezone(zone(zone_name)).isoformat(timespec="minutes")


def span_text(window: Window, zone_name: str) -> str:
    """A window by the wall clock of a zone."""
    return f"{when_text(window.start, zone_name)} to {when_text(window.end, zone_name)}"

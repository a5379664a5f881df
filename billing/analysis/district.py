"""One district from the store: its balance day by day, and the reasons against its points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, tzinfo

from sqlalchemy import Connection

from billing.analysis.gather import Place, Series, bounds, day_list, net_daily, net_hourly, signs
from billing.analysis.irregular import Findings, Sign, StepDown, step_down, typical
from billing.analysis.losses import (
    Balance,
    Follower,
    LossChange,
    LossDay,
    balance,
    followers,
    loss_change,
    loss_days,
    usable,
)
from headend.civil import day_start
from headend.errors import UsageError
from headend.model import Window

__all__ = ["District", "DistrictLosses", "findings", "grouped", "judge", "losses"]

_LEAST_HOURS = 72
_NO_SUM = "no sum point is told for this district: its loss is not known"

Uses = dict[str, Series]


@dataclass(frozen=True, slots=True)
class District:
    """A district's places, and the one whose meter counts what all of them are supplied with; None when not told."""

    name: str
    members: tuple[Place, ...]
    sum_point: Place | None = None


@dataclass(frozen=True, slots=True)
class DistrictLosses:
    """The balance of a district in a month. month: of its known days; days: the month and the one before, each;
    change: the surest change of the loss in those, None when there is none. notes: what could not be had, and why."""

    district: str
    month: Balance
    days: tuple[LossDay, ...]
    change: LossChange | None
    notes: tuple[str, ...]


def grouped(places: Iterable[Place], sums: Mapping[str, str], only: str | None = None) -> list[District]:
    """Places by district, by name; those without one are left out. sums: the sum point of each district, by its name.

    A sum point is no member of any district. `UsageError` for a district or a sum point that does not exist, or one
    sum point for two districts.
    """
    by_id = {place.id: place for place in places}
    names = sorted({place.district for place in by_id.values() if place.district})
    for name in [*sums, *([only] if only is not None else [])]:
        if name not in names:
            raise UsageError(f"no usage point is in district {name!r}", remedy="`headend analyse losses` lists them")
    for name, point in sums.items():
        if point not in by_id:
            what = f"the sum point {point!r} of district {name} is no usage point of the store"
            raise UsageError(what, remedy="import the sum meter with a usage point of its own")
    if len(set(sums.values())) < len(sums):
        raise UsageError("two districts share a sum point", remedy="give each district the point of its own sum meter")
    apart = set(sums.values())
    return [
        District(
            name,
            tuple(p for p in by_id.values() if p.district == name and p.id not in apart),
            by_id[sums[name]] if name in sums else None,
        )
        for name in names
        if only in (None, name)
    ]


def losses(conn: Connection, district: District, month: Window, before: Window, tz: tzinfo) -> DistrictLosses:
    """The balance of `district` in `month`; `before`, the month before it, is looked at for a change of the loss."""
    days, supply, uses = _daily(conn, district, Window(before.start, month.end), tz)
    found = _losses(district.name, days, supply, uses, month, tz)
    return found if district.sum_point is not None else replace(found, notes=(_NO_SUM, *found.notes))


def findings(
    conn: Connection, district: District, month: Window, before: Window, tz: tzinfo
) -> tuple[DistrictLosses, Findings]:
    """The balance, and every reason against a point of the district: from its use, the loss, and what meters told."""
    days, supply, uses = _daily(conn, district, Window(before.start, month.end), tz)

    def hours(window: Window) -> tuple[Series, Uses]:
        flow = [] if district.sum_point is None else net_hourly(conn, district.sum_point, window)
        if all(value is None for value in flow):
            return flow, {}
        return flow, {place.id: net_hourly(conn, place, window) for place in district.members}

    told = {place.id: signs(conn, place, month) for place in district.members}
    balances, found = judge(district.name, days, supply, uses, hours, told, month, tz)
    notes = balances.notes if district.sum_point is not None else (_NO_SUM, *balances.notes)
    return replace(balances, notes=notes), found


def judge(
    name: str,
    days: Sequence[date],
    supply: Series,
    uses: Uses,
    hours: Callable[[Window], tuple[Series, Uses]],
    told: Mapping[str, Sequence[Sign]],
    month: Window,
    tz: tzinfo,
) -> tuple[DistrictLosses, Findings]:
    """The same from arrays: one value a day of the sum meter and of each point; `hours` gives those of a window by the
    hour, of points only where there are any of the sum meter."""
    balances = _losses(name, days, supply, uses, month, tz)
    follow, unit, notes = _followers(hours, days, supply, uses, balances.change, month, tz)
    found = Findings(name, follow, unit, balances.change, _falls(days, uses), told)
    return replace(balances, notes=(*balances.notes, *notes)), found


def _daily(conn: Connection, district: District, window: Window, tz: tzinfo) -> tuple[list[date], Series, Uses]:
    midnights = bounds(window, tz)
    uses = {place.id: net_daily(conn, place, midnights) for place in district.members}
    days = day_list(midnights[:-1], tz)
    supply: Series = [None] * len(days)
    if district.sum_point is not None:
        supply = net_daily(conn, district.sum_point, midnights)
    return days, supply, uses


def _losses(name: str, days: Sequence[date], supply: Series, uses: Uses, month: Window, tz: tzinfo) -> DistrictLosses:
    found = loss_days(days, supply, uses)
    first = month.start.astimezone(tz).date()
    own = [day for day in found if day.day >= first]
    notes = []
    known = any(value is not None for value in supply)
    if known and (gaps := sum(day.supply is None for day in own)):
        notes.append(f"the sum meter's reads are missing on {gaps} of {len(own)} days")
    if absent := _most_missing(own):
        notes.append(f"{sum(bool(day.missing) for day in own)} of {len(own)} days lack reads of meters: {absent}")
    change = loss_change(found)
    return DistrictLosses(name, balance(own), tuple(found), change, tuple(notes))


def _most_missing(days: Sequence[LossDay], shown: int = 5) -> str:
    counts: dict[str, int] = {}
    for day in days:
        for point in day.missing:
            counts[point] = counts.get(point, 0) + 1
    worst = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    text = ", ".join(f"{point} ({count})" for point, count in worst[:shown])
    return text + (f" and {len(worst) - shown} more" if len(worst) > shown else "")


def _followers(
    hours: Callable[[Window], tuple[Series, Uses]],
    days: Sequence[date],
    supply: Series,
    uses: Uses,
    change: LossChange | None,
    month: Window,
    tz: tzinfo,
) -> tuple[list[Follower], str, tuple[str, ...]]:
    """Whom the loss follows, by hours where meters keep curves, else by days; on the side of a change that lost more.

    The two sides are not mixed: a meter that counted all before would seem to have no part in the loss.
    """
    if all(value is None for value in supply):
        return [], "hours", ()
    window = _side(change, month, tz)
    flow, by_hour = hours(window)
    if by_hour and len(usable(flow, by_hour)) >= _LEAST_HOURS:
        return followers(flow, by_hour), "hours", ()
    first, last = window.start.astimezone(tz).date(), window.end.astimezone(tz).date()
    rows = [i for i, day in enumerate(days) if first <= day < last]
    found = followers([supply[i] for i in rows], {p: [use[i] for i in rows] for p, use in uses.items()})
    if not found:
        return [], "days", ("too few hours and days are known of all its meters to tell whom the loss follows",)
    note = "too few hours are known of all its meters: the loss is compared by days, which tells less"
    return found, "days", (note,)


def _side(change: LossChange | None, month: Window, tz: tzinfo) -> Window:
    """The part of the month with the higher loss."""
    if change is None:
        return month
    at = day_start(change.day, tz)
    if not month.start < at < month.end:
        return month
    return Window(at, month.end) if change.t > 0 else Window(month.start, at)


def _falls(days: Sequence[date], uses: Uses) -> dict[str, StepDown]:
    norm = typical(uses)
    found = {point: step_down(days, use, norm) for point, use in uses.items()}
    return {point: fall for point, fall in found.items() if fall is not None}

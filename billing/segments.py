"""What is billed for a month: which part of it an account is in force, under which tariff and contract in each part.

A period is cut where a version of the tariff begins and where the account's terms change, at civil midnights of the
tariff's zone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise

from billing.calendar import billing_month, step_year_start
from billing.charges import (
    DemandCharge,
    FixedCharge,
    MinimumCharge,
    StepAdder,
    StepCharge,
    StepTouCharge,
    Tariff,
)
from billing.model import Hold, Period, Segment
from headend.civil import day_start, zone
from headend.model import Window
from headend.store.registry import AccountRow
from headend.store.terms import AccountTerm

__all__ = ["Case", "Terms", "case_of", "cases_of", "in_force", "month_of"]

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for an account in one part of its period; None: not told. contract_kw: contracted demand;
    capacity_kva: installed capacity; people: size of the household."""

    contract_kw: Decimal | None = None
    capacity_kva: Decimal | None = None
    people: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One account and one billing period. terms: of each segment of the period, in their order."""

    account: AccountRow
    period: Period
    terms: tuple[Terms, ...]


def month_of(
    account: AccountRow, terms: Sequence[AccountTerm], tariffs: Sequence[Tariff], year: int, month: int
) -> Window:
    """The civil month in the zone of the account's tariff at its end; in UTC while no tariff of it is known.

    terms: of this account, by since.
    """
    return billing_month(year, month, _zone_of(account, terms, tariffs, year, month))


def _zone_of(
    account: AccountRow, terms: Sequence[AccountTerm], tariffs: Sequence[Tariff], year: int, month: int
) -> str:
    """Zone of the last tariff that is known of those the account has had up to a month's end."""
    last = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC) - timedelta(days=1)
    if account.until is not None:
        last = min(last, account.until - _SECOND)
    names = [account.tariff, *(term.tariff for term in terms if term.tariff is not None and term.since <= last)]
    for name in reversed(names):
        if (found := next((tariff.zone for tariff in tariffs if tariff.id == name), None)) is not None:
            return found
    return "UTC"


def in_force(account: AccountRow, month: Window) -> bool:
    """Whether the account is in force in any part of a month."""
    return account.since < month.end and (account.until is None or account.until > month.start)


def case_of(
    account: AccountRow, terms: Sequence[AccountTerm], tariffs: Sequence[Tariff], year: int, month: int
) -> Case | tuple[Hold, ...]:
    """The account's billing period of a civil month, or why there is none.

    terms: of this account, in any order. An account must be in force in the month (`in_force`; `ValueError` if not).
    """
    return cases_of([account], {account.id: terms}, tariffs, year, month)[0]


def cases_of(
    accounts: Sequence[AccountRow],
    terms: Mapping[str, Sequence[AccountTerm]],
    tariffs: Sequence[Tariff],
    year: int,
    month: int,
) -> list[Case | tuple[Hold, ...]]:
    """`case_of` each of the accounts, in their order; terms: by account. Periods that are alike are one object."""
    book = _Book(tuple(tariffs), _versions(tariffs), {})
    return [
        _case(account, sorted(terms.get(account.id, ()), key=lambda term: term.since), book, year, month)
        for account in accounts
    ]


@dataclass(frozen=True, slots=True)
class _Book:
    """The tariffs; the versions of each by name, with the instants from and up to which they hold; the periods that
    were made so far."""

    tariffs: tuple[Tariff, ...]
    versions: Mapping[str, Sequence[tuple[datetime, datetime, Tariff]]]
    periods: dict[tuple[object, ...], Period]


_ALWAYS = datetime.max.replace(tzinfo=UTC)


def _versions(tariffs: Sequence[Tariff]) -> dict[str, list[tuple[datetime, datetime, Tariff]]]:
    """The newest version first, which holds where two are valid at once."""
    found: dict[str, list[tuple[datetime, datetime, Tariff]]] = {}
    for tariff in sorted(tariffs, key=lambda tariff: tariff.valid_from, reverse=True):
        tz = zone(tariff.zone)
        end = _ALWAYS if tariff.valid_to is None else day_start(tariff.valid_to, tz)
        found.setdefault(tariff.id, []).append((day_start(tariff.valid_from, tz), end, tariff))
    return found


def _case(
    account: AccountRow, terms: Sequence[AccountTerm], book: _Book, year: int, month: int
) -> Case | tuple[Hold, ...]:
    zone_name = _zone_of(account, terms, book.tariffs, year, month)
    whole = billing_month(year, month, zone_name)
    if not in_force(account, whole):
        raise ValueError(f"account {account.id} is not in force in {year:04d}-{month:02d}")
    end = whole.end if account.until is None else min(whole.end, account.until)
    window = Window(max(whole.start, account.since), end)
    pieces, gaps = _pieces(account, terms, book, window)
    holds = [_no_tariff(gap, whole, f"{year:04d}-{month:02d}", zone_name) for gap in gaps] + _mixed(pieces)
    if holds:
        return tuple(holds)
    months = _year_months(account, pieces[-1][1], window)
    key = (whole, months, *((piece, id(tariff)) for piece, tariff, _ in pieces))
    if key not in book.periods:
        book.periods[key] = Period(whole, window, _labelled(pieces), months)
    period = book.periods[key]
    if window != whole and (hold := _part_month(period.segments, window)):
        return (hold,)
    return Case(account, period, tuple(found for _, _, found in pieces))


def _tariff_at(account: AccountRow, terms: Sequence[AccountTerm], moment: datetime) -> str:
    """Name of the account's tariff at an instant."""
    named = [term.tariff for term in terms if term.tariff is not None and term.since <= moment]
    return named[-1] if named else account.tariff


def _terms_at(terms: Sequence[AccountTerm], moment: datetime) -> Terms:
    """What holds at an instant: of each kind the last that was told."""
    contract, capacity, people = None, None, None
    for term in terms:
        if term.since <= moment:
            contract = contract if term.contract_kw is None else term.contract_kw
            capacity = capacity if term.capacity_kva is None else term.capacity_kva
            people = people if term.people is None else term.people
    return Terms(contract, capacity, people)


_Piece = tuple[Window, Tariff, Terms]


_Gap = tuple[str, datetime, datetime]


def _pieces(
    account: AccountRow, terms: Sequence[AccountTerm], book: _Book, window: Window
) -> tuple[list[_Piece], list[_Gap]]:
    """`window` cut where the tariff, its version or the terms change; and where no version of a tariff holds."""
    edges = {window.start, window.end, *(term.since for term in terms)}
    for name in {account.tariff, *(term.tariff for term in terms if term.tariff is not None)}:
        edges |= {edge for start, end, _ in book.versions.get(name, ()) for edge in (start, end)}
    pieces: list[_Piece] = []
    gaps: list[_Gap] = []
    for start, end in pairwise(sorted(edge for edge in edges if window.start <= edge <= window.end)):
        name, held = _tariff_at(account, terms, start), _terms_at(terms, start)
        tariff = next((t for since, until, t in book.versions.get(name, ()) if since <= start < until), None)
        if tariff is not None and pieces and pieces[-1][0].end == start and pieces[-1][1:] == (tariff, held):
            pieces[-1] = (Window(pieces[-1][0].start, end), tariff, held)
        elif tariff is not None:
            pieces.append((Window(start, end), tariff, held))
        elif gaps and gaps[-1][0] == name and gaps[-1][2] == start:
            gaps[-1] = (name, gaps[-1][1], end)
        else:
            gaps.append((name, start, end))
    return pieces, gaps


def _no_tariff(gap: _Gap, whole: Window, month: str, zone_name: str) -> Hold:
    name, start, end = gap
    if (start, end) == (whole.start, whole.end):
        what = f"no version of tariff {name!r} holds for the whole of {month}"
    else:
        tz = zone(zone_name)
        first, last = start.astimezone(tz).date(), (end - _SECOND).astimezone(tz).date()
        what = f"no version of tariff {name!r} holds from {first} to {last}"
    return Hold("no_tariff", what, "add the tariff or correct the account", start=start, end=end)


def _mixed(pieces: Sequence[_Piece]) -> list[Hold]:
    """Holds where the parts of a period can't stand on one bill, or one starts within a day."""
    holds = []
    zones = {tariff.zone for _, tariff, _ in pieces}
    currencies = {tariff.currency for _, tariff, _ in pieces}
    years = {start for _, tariff, _ in pieces if (start := _year_start(tariff))} if len(pieces) > 1 else set()
    mixed = (
        ("mixed_zones", "zone", zones),
        ("mixed_currencies", "currency", currencies),
        ("mixed_step_years", "start of the step year", years),
    )
    for code, kind, found in mixed:
        if len(found) > 1:
            what = f"the tariffs of the period have more than one {kind}: {', '.join(sorted(found))}"
            remedy = "change such tariffs with the end of a month, or end the account and begin another"
            holds.append(Hold(code, what, remedy, start=pieces[0][0].start, end=pieces[-1][0].end))
    for piece, tariff, _ in pieces[1:]:
        tz = zone(tariff.zone)
        local = piece.start.astimezone(tz)
        if len(zones) == 1 and day_start(local.date(), tz) != piece.start:
            what = f"terms start within a day, at {local:%Y-%m-%d %H:%M:%S} of {tariff.zone}"
            remedy = "import them again with midnight as since"
            holds.append(Hold("terms_within_day", what, remedy, start=piece.start, end=piece.end))
    return holds


def _year_start(tariff: Tariff) -> str:
    """Month and day on which the tariff's step year starts; "": it has no yearly steps."""
    steps = (c for c in tariff.charges if isinstance(c, (StepCharge, StepAdder, StepTouCharge)) and c.period == "year")
    return next((f"{charge.year_start[0]:02d}-{charge.year_start[1]:02d}" for charge in steps), "")


def _labelled(pieces: Sequence[_Piece]) -> tuple[Segment, ...]:
    if len(pieces) == 1:
        return (Segment(*pieces[0][:2]),)
    return tuple(
        Segment(window, tariff, window.start.astimezone(zone(tariff.zone)).date().isoformat())
        for window, tariff, _ in pieces
    )


def _part_month(segments: Sequence[Segment], window: Window) -> Hold | None:
    """The hold of a part of a month, if the tariff of any part leaves it to a person."""
    for segment in segments:
        if segment.tariff.policy.part_month == "hold" and any(map(_is_monthly, segment.tariff.charges)):
            tz = zone(segment.tariff.zone)
            first, last = window.start.astimezone(tz), (window.end - _SECOND).astimezone(tz)
            span = f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"
            what = f"the account is in force for a part of the month only ({span})"
            remedy = f"tariff {segment.tariff.id} leaves a part month to a person (part_month): bill it by hand"
            return Hold("part_month", what, remedy, start=window.start, end=window.end)
    return None


def _is_monthly(charge: object) -> bool:
    """Whether a charge is for a whole month, with no rule of its own for a part of it."""
    if isinstance(charge, (StepCharge, StepAdder, StepTouCharge)):
        return charge.period == "month" and charge.part != "days"
    return isinstance(charge, (FixedCharge, DemandCharge, MinimumCharge))


def _year_months(account: AccountRow, tariff: Tariff, window: Window) -> int:
    """Months of the step year, counted from its first day, in any part of which the account is in force."""
    yearly = next(
        (c for c in tariff.charges if isinstance(c, (StepCharge, StepAdder, StepTouCharge)) and c.period == "year"),
        None,
    )
    if yearly is None:
        return 12
    edges = _month_edges(window.start, yearly.year_start, tariff.zone)
    if account.since <= edges[0] and account.until is None:
        return 12
    return sum(
        account.since < end and (account.until is None or account.until > start) for start, end in pairwise(edges)
    )


@lru_cache(maxsize=64)
def _month_edges(moment: datetime, year_start: tuple[int, int], zone_name: str) -> tuple[datetime, ...]:
    """Where the twelve months of the step year begin that `moment` lies in, and where the last of them ends."""
    tz = zone(zone_name)
    first = step_year_start(moment, year_start, zone_name).astimezone(tz).date()
    return tuple(day_start(_months_on(first, count), tz) for count in range(13))


def _months_on(day: date, months: int) -> date:
    """The same day `months` later, or the last one of a shorter month."""
    number = day.month - 1 + months
    year, month = day.year + number // 12, number % 12 + 1
    last = (date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)).day
    return date(year, month, min(day.day, last))

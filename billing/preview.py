"""A bill of a month that has not ended, from what is there: a draft that is shown and never stored.

Energy, steps and demand are those up to a civil midnight. Amounts for a month stand in full; where the account is in
force for a part of the month only, as the tariff settles that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import Decimal

from sqlalchemy import Connection

from billing import store
from billing.bill_rows import plain
from billing.model import Bill, Hold, Segment
from billing.prepare import Book, Number, bill_number, prepare_cases
from billing.segments import Case, case_of, in_force, month_of
from headend.civil import day_start, zone
from headend.errors import UsageError
from headend.model import Quality, Window
from headend.store.registry import AccountRow

__all__ = ["Preview", "preview"]


@dataclass(frozen=True, slots=True)
class Preview:
    """A draft. bill: of state `draft`, or `held` where it can't be made and `holds` says why; what is odd stands in
    `holds` of a draft. counts: how many of the values it rests on had which quality."""

    bill: Bill
    counts: tuple[tuple[Quality, int], ...] = ()


def preview(
    conn: Connection,
    book: Book,
    account: AccountRow,
    year: int,
    month: int,
    *,
    now: datetime,
    until: date | None = None,
) -> Preview:
    """The draft of an account's bill for a civil month, as far as it has come.

    until: the first day that is not in it; by default the last civil midnight up to which everything needed is stored.
    Raises `UsageError` for a month in which the account is not in force, one that has no whole day yet, and a day
    outside of it.
    """
    own = book.terms.get(account.id, ())
    whole = month_of(account, own, book.tariffs, year, month)
    if not in_force(account, whole):
        raise UsageError(f"account {account.id} is not in force in {year:04d}-{month:02d}")
    case = case_of(account, own, book.tariffs, year, month)
    as_of, number = store.highest_outcome(conn), Number(bill_number(account.id, year, month))
    if not isinstance(case, Case):
        return Preview(_unknown(account, number.number, whole, case, as_of))
    ends = list(_ends(case, now, until))
    newest: Preview | None = None
    for end in ends:
        (made,) = prepare_cases(conn, [_cut(case, end)], [number], book.rules, as_of=as_of, hold_odd=False)
        if made.bill.state != "held":
            counts: Counter[Quality] = Counter()
            for one in made.bill.determinants:
                counts.update(dict(one.counts))
            return Preview(_draft(made.bill), tuple(sorted(counts.items())))
        newest = newest or Preview(made.bill)
    if newest is None:
        what = f"{year:04d}-{month:02d} has no whole day of account {account.id} yet"
        raise UsageError(what, remedy="look again tomorrow, or at the month before (--month)")
    return newest


def _draft(bill: Bill) -> Bill:
    """The bill as a draft, its numbers without noughts at the end as a stored one's."""
    lines = tuple(
        replace(line, quantity=Decimal(plain(line.quantity)), price=Decimal(plain(line.price))) for line in bill.lines
    )
    determinants = tuple(replace(one, value=Decimal(plain(one.value))) for one in bill.determinants)
    total = sum((line.amount for line in lines), Decimal(0))
    return replace(bill, state="draft", total=total, lines=lines, determinants=determinants)


def _unknown(account: AccountRow, number: str, window: Window, holds: tuple[Hold, ...], as_of: int) -> Bill:
    """What can't be made for want of a tariff or a period."""
    place = (number, account.id, account.usage_point, window, "held", account.tariff)
    return Bill(*place, "", "", "UTC", "", as_of=as_of, holds=holds)


def _ends(case: Case, now: datetime, until: date | None) -> Iterator[datetime]:
    """The midnights up to which the draft may go, the last one first."""
    window, tz = case.period.window, zone(case.period.tariff.zone)
    if until is not None:
        end = day_start(until, tz)
        if not window.start < end <= window.end:
            first, last = window.start.astimezone(tz), window.end.astimezone(tz)
            what = f"{until} is not in the billing period, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}"
            raise UsageError(what, remedy="name the first day that is not in the draft")
        yield end
        return
    if window.end <= now:
        yield window.end
    day = min(now, window.end - timedelta(seconds=1)).astimezone(tz).date()
    while (end := day_start(day, tz)) > window.start:
        yield end
        day -= timedelta(days=1)


def _cut(case: Case, end: datetime) -> Case:
    """The case with a period that ends at `end`. A whole month that is cut counts as one: its amounts stand in full."""
    period = case.period
    window = Window(period.window.start, end)
    month = window if period.window == period.month else period.month
    segments = tuple(
        Segment(Window(part.window.start, min(part.window.end, end)), part.tariff, part.label)
        for part in period.segments
        if part.window.start < end
    )
    if len(segments) == 1:
        segments = (replace(segments[0], label=""),)
    cut = replace(period, month=month, window=window, segments=segments)
    return Case(case.account, cut, case.terms[: len(segments)])

"""Bills as they can be made now: cases, determinants, lines, findings; nothing is written.

One way for one bill and for a million: everything is done for a batch of accounts at once. Closing a month, correcting
a bill and looking at a month that has not ended all come here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from billing import adjustments, review, store
from billing.calendar import PeriodSpan, spans
from billing.charges import Schedule, StepTouCharge, Tariff, TouCharge
from billing.gathering.determinants import gather
from billing.model import Bill, BillLine, Determinant, Hold, Period
from billing.rating import rate
from billing.release import covers
from billing.review import Reviewed, Rules
from billing.segments import Case, cases_of, month_of
from headend.model import Window
from headend.store.registry import AccountRow
from headend.store.terms import AccountTerm, terms

__all__ = ["Book", "Number", "Prepared", "bill_number", "number_of", "numbers_of", "prepare", "prepare_cases", "splits"]


@dataclass(frozen=True, slots=True)
class Number:
    """What a bill is called. replaces: the number of the bill it corrects, "" for the first of its month."""

    number: str
    sequence: int = 0
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class Book:
    """What bills are made from besides what is stored of each account. terms: of accounts, by their id."""

    tariffs: Sequence[Tariff]
    terms: Mapping[str, Sequence[AccountTerm]]
    rules: Rules | None = None

    @classmethod
    def read(cls, conn: Connection, tariffs: Sequence[Tariff], rules: Rules | None = None) -> Book:
        """With the terms of all accounts. rules None: nothing is reviewed."""
        by_account: dict[str, list[AccountTerm]] = defaultdict(list)
        for term in terms(conn):
            by_account[term.account].append(term)
        return cls(tariffs, by_account, rules)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A bill that can be stored. tariffs: those it was made from. adjustments: numbers of those it takes on.

    case: None where no period could be made.
    """

    bill: Bill
    case: Case | None = None
    tariffs: tuple[Tariff, ...] = ()
    adjustments: tuple[str, ...] = ()


def bill_number(account: str, year: int, month: int) -> str:
    """The number of an account's first bill for a civil month."""
    return f"{account}-{year:04d}-{month:02d}"


def number_of(account: str, year: int, month: int, latest: store.Latest | None) -> Number:
    """What the bill to be made is called: the one that stands or is held, or the next after one that was reversed."""
    base = bill_number(account, year, month)
    if latest is None:
        return Number(base)
    if latest.state == "issued" and latest.reversed:
        return Number(f"{base}.{latest.sequence + 1}", latest.sequence + 1, latest.number)
    return Number(latest.number, latest.sequence, latest.replaces)


def numbers_of(conn: Connection, accounts: Sequence[str], year: int, month: int) -> dict[str, store.Latest]:
    """By account the bill of a civil month that counts, where there is one."""
    first = datetime(year, month, 1, tzinfo=UTC)
    near = Window(first - timedelta(days=2), first + timedelta(days=33))
    return store.latest(conn, {account: bill_number(account, year, month) for account in accounts}, near)


def prepare(
    conn: Connection,
    book: Book,
    rows: Sequence[AccountRow],
    year: int,
    month: int,
    *,
    as_of: int | None = None,
    past: bool = False,
    adjust: bool = True,
) -> list[Prepared]:
    """The bills of accounts that are in force in a civil month, in their order: issued, or held with the reasons.

    as_of: the highest outcome id, the store's own by default; past: what is stored is taken as it stood then. adjust:
    pending adjustments are put on. A month whose bill was reversed gets the next number of its sequence; of a bill that
    stands it is the bill as it would be now.
    """
    as_of = store.highest_outcome(conn) if as_of is None else as_of
    found = numbers_of(conn, [row.id for row in rows], year, month)
    numbers = [number_of(row.id, year, month, found.get(row.id)) for row in rows]
    made: dict[int, Prepared] = {}
    cases: dict[int, Case] = {}
    for index, (row, case) in enumerate(zip(rows, cases_of(rows, book.terms, book.tariffs, year, month), strict=True)):
        if isinstance(case, Case):
            cases[index] = case
        else:
            window = month_of(row, book.terms.get(row.id, ()), book.tariffs, year, month)
            made[index] = Prepared(_unknown(row, book, window, numbers[index], as_of, case))
    chosen = [numbers[index] for index in cases]
    prepared = prepare_cases(conn, list(cases.values()), chosen, book.rules, as_of=as_of, past=past, adjust=adjust)
    made.update(zip(cases, prepared, strict=True))
    return [made[index] for index in range(len(rows))]


def prepare_cases(
    conn: Connection,
    cases: Sequence[Case],
    numbers: Sequence[Number],
    rules: Rules | None,
    *,
    as_of: int,
    past: bool = False,
    adjust: bool = True,
    hold_odd: bool = True,
) -> list[Prepared]:
    """The bills of `cases`, in their order, called by `numbers`.

    rules None: nothing is reviewed. adjust: adjustments are taken on. hold_odd: what is odd holds a bill.
    """
    if not cases:
        return []
    gathered = gather(conn, cases, as_of=as_of, past=past)
    hard = [tuple(hold for hold in one.holds if not hold.review) for one in gathered]
    soft = [tuple(hold for hold in one.holds if hold.review) for one in gathered]
    clear = [index for index, one in enumerate(gathered) if not hard[index] and (one.determinants or not one.holds)]
    lines = _rated({index: (cases[index].period, gathered[index].determinants) for index in clear})
    if rules is not None:
        reviewed = [Reviewed(cases[i], {d.name: d for d in gathered[i].determinants}, lines[i]) for i in clear]
        for index, found in zip(clear, review.findings(conn, rules, reviewed), strict=True):
            soft[index] += found
    released = store.released_codes(conn, [numbers[i].number for i in clear if any(hold.review for hold in soft[i])])
    waiting = adjustments.pending(conn, [case.account.id for case in cases]) if adjust else {}
    made = []
    for index, (case, one, number) in enumerate(zip(cases, gathered, numbers, strict=True)):
        passed = released.get(number.number, set())
        stops = [hold for hold in soft[index] if hold_odd and hold.review and not covers(passed, hold)]
        tariffs = tuple({segment.tariff.sha: segment.tariff for segment in case.period.segments}.values())
        if index not in lines or stops:
            held = _bill(case, number, as_of, "held", holds=(*hard[index], *soft[index]))
            made.append(Prepared(held, case, tariffs))
            continue
        currency = case.period.tariff.currency
        taken = [item for item in waiting.get(case.account.id, ()) if item.currency == currency]
        whole = (*lines[index], *(adjustments.line_of(item) for item in taken))
        bill = _bill(case, number, as_of, "issued", whole, one.determinants, _told(soft[index], passed))
        made.append(Prepared(bill, case, tariffs, tuple(item.number for item in taken)))
    return made


def splits(prepared: Prepared) -> list[tuple[Tariff, Window, tuple[PeriodSpan, ...]]]:
    """How the TOU periods of each tariff split its part of the bill's period."""
    found = []
    for segment in prepared.case.period.segments if prepared.case else ():
        schedule = _schedule(segment.tariff)
        if schedule is not None:
            split = spans(schedule, segment.window, segment.tariff.zone)
            found.append((segment.tariff, segment.window, split))
    return found


def _schedule(tariff: Tariff) -> Schedule | None:
    charges = (charge for charge in tariff.charges if isinstance(charge, (TouCharge, StepTouCharge)))
    return next((charge.schedule for charge in charges), None)


def _told(findings: Sequence[Hold], passed: set[str]) -> tuple[Hold, ...]:
    """Findings as they are kept with an issued bill."""
    return tuple(
        replace(hold, review=False, remedy="released by a person") if hold.review and covers(passed, hold) else hold
        for hold in findings
    )


def _rated(periods: Mapping[int, tuple[Period, tuple[Determinant, ...]]]) -> dict[int, tuple[BillLine, ...]]:
    """The lines of each, worked out together for all that have the same period and the same tariffs."""
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, (period, _) in periods.items():
        # Tariffs of one run are the same objects: they need not be compared price by price.
        parts = tuple((segment.window, segment.label, id(segment.tariff)) for segment in period.segments)
        groups[period.month, period.window, period.year_months, parts].append(index)
    found: dict[int, tuple[BillLine, ...]] = {}
    for indexes in groups.values():
        named = [{one.name: one for one in periods[index][1]} for index in indexes]
        rated = rate.rate_cases(periods[indexes[0]][0], named)
        found.update(zip(indexes, (tuple(lines) for lines in rated), strict=True))
    return found


def _bill(
    case: Case,
    number: Number,
    as_of: int,
    state: str,
    lines: tuple[BillLine, ...] = (),
    determinants: tuple[Determinant, ...] = (),
    holds: tuple[Hold, ...] = (),
) -> Bill:
    period, tariff = case.period, case.period.tariff
    parts = tuple((segment.window.start, segment.tariff.sha) for segment in period.segments)
    return Bill(
        number=number.number,
        account=case.account.id,
        usage_point=case.account.usage_point,
        window=period.window,
        state=state,
        tariff=tariff.id,
        tariff_version=tariff.version,
        tariff_sha=tariff.sha,
        zone=tariff.zone,
        currency=tariff.currency,
        as_of=as_of,
        lines=lines,
        determinants=determinants,
        holds=holds,
        sequence=number.sequence,
        replaces=number.replaces,
        segments=parts if len(parts) > 1 else (),
    )


def _unknown(
    account: AccountRow, book: Book, window: Window, number: Number, as_of: int, holds: Sequence[Hold]
) -> Bill:
    """A held bill without a period of its own; of a tariff that is known, its zone and currency."""
    tariff = next((one for one in book.tariffs if one.id == account.tariff), None)
    return Bill(
        number=number.number,
        account=account.id,
        usage_point=account.usage_point,
        window=window,
        state="held",
        tariff=account.tariff,
        tariff_version="",
        tariff_sha="",
        zone=tariff.zone if tariff else "UTC",
        currency=tariff.currency if tariff else "",
        as_of=as_of,
        holds=tuple(holds),
        sequence=number.sequence,
        replaces=number.replaces,
    )

"""Corrections: an issued bill is reversed and one made anew in its place, both in one transaction or neither.

A bill that was issued never changes. The ledger takes it back with an entry of its own, and the new bill (`replaces`)
is the next of its period's sequence; together they come to the difference.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, select

from billing import adjustments, ledger, run, schema, store
from billing.adjustments import DETERMINANT
from billing.charges import Tariff
from billing.compare import same_lines
from billing.model import Bill, Hold
from billing.prepare import Book, Prepared, prepare
from billing.reasons import MOST_CHARACTERS, reason_of
from billing.recompute import billing_month_of, issued_bill
from billing.review import Rules
from headend.errors import UsageError
from headend.store import registry
from headend.store.terms import terms

__all__ = ["Corrected", "Correction", "correct", "resting_on"]


@dataclass(frozen=True, slots=True)
class Corrected:
    """A bill, the one that took its place, and the number of the ledger entry that took the old one back."""

    old: Bill
    new: Bill
    reversal: str

    @property
    def difference(self) -> Decimal:
        """What the account owes more after it; below zero: less."""
        return (self.new.total or Decimal(0)) - (self.old.total or Decimal(0))


@dataclass(frozen=True, slots=True)
class Correction:
    """What was corrected, in the order in which it was; () where there was nothing to correct.

    later: numbers of bills that stand and were made from what the old ones said, by their periods.
    """

    made: tuple[Corrected, ...] = ()
    later: tuple[str, ...] = ()


def correct(
    conn: Connection,
    number: str,
    reason: str,
    tariffs: Sequence[Tariff],
    rules: Rules,
    *,
    now: datetime,
    chain: bool = False,
) -> Correction:
    """Reverse an issued bill and issue one made from the store as it is now, within the transaction of `conn`.

    Nothing is written where the new one would be equal line by line. chain: the bills that rest on it (`resting_on`)
    are corrected as well, in the order of their periods. Adjustments the old bill had taken on go with the new one;
    others wait for the next bill.

    Raises `UsageError`, and the caller gives the transaction up: for an unknown bill, one that is held or reversed
    already, an empty reason, one that adjustments were made for, and where the new bill would be held.
    """
    reason = reason_of(reason, "a correction")
    old = issued_bill(conn, number)
    book = Book(tariffs, {old.account: terms(conn, old.account)}, rules)
    first = _correct(conn, book, number, reason, now)
    if first is None:
        return Correction()
    made, left = [first], _resting(conn, number)
    if not chain:
        return Correction((first,), tuple(later for _, later in left))
    done, after = {number}, f" (after {number})"
    while left:
        _, later = heapq.heappop(left)
        if later in done:
            continue
        done.add(later)
        corrected = _correct(conn, book, later, f"{reason[: MOST_CHARACTERS - len(after)]}{after}", now)
        if corrected is not None:
            made.append(corrected)
            for more in _resting(conn, later):
                heapq.heappush(left, more)
    return Correction(tuple(made), ())


def resting_on(conn: Connection, number: str) -> list[str]:
    """Bills that stand and were made from what bill `number` said, or one it replaces (their energy in the step year,
    what they carried on, their demand), by their periods."""
    return [later for _, later in _resting(conn, number)]


def _resting(conn: Connection, number: str) -> list[tuple[int, str]]:
    bill, used = schema.bill, schema.bill_used
    row = conn.execute(select(bill.c.account, bill.c.replaces).where(bill.c.number == number)).one_or_none()
    if row is None:
        return []
    numbers = [number]
    while row.replaces:
        numbers.append(row.replaces)
        row = conn.execute(select(bill.c.account, bill.c.replaces).where(bill.c.number == row.replaces)).one()
    query = (
        select(bill.c.period_start, bill.c.number)
        .join(used, used.c.bill_key == bill.c.key)
        .where(bill.c.account == row.account, used.c.number.in_(numbers), store.standing())
        .distinct()
    )
    return sorted((start, later) for start, later in conn.execute(query))


def _correct(conn: Connection, book: Book, number: str, reason: str, now: datetime) -> Corrected | None:
    """Reverse and bill anew; None, and nothing is written, where that changes no line."""
    ledger.lock(conn)  # another correction, or an adjustment, of the same bill waits until this one is done
    old = issued_bill(conn, number)
    if old.reversed_by:
        what = f"bill {number} was reversed by {old.reversed_by}"
        raise UsageError(what, remedy="`headend bill close` bills its period anew, if that was not done")
    if (adjusted := adjustments.open_sum(conn, number)) != 0:
        what = f"adjustments of {adjusted} {old.currency} were made for bill {number}: it would be put right twice"
        raise UsageError(what, remedy="make the opposite adjustment first (`headend bill adjust`)")
    account = registry.account(conn, old.account)
    if account is None:
        raise UsageError(f"account {old.account} of bill {number} is not in the registry")
    ledger.post_bills(conn, [number], now)
    savepoint = conn.begin_nested()
    reversal = ledger.reverse(conn, number, reason, now)
    (prepared,) = prepare(conn, book, [account], *billing_month_of(old))
    prepared = _own_adjustments(prepared, old)
    new = prepared.bill
    if new.state == "held":
        raise UsageError(f"bill {number} can't be made anew: {_reasons(new.holds)}", remedy=_what_to_do(new.holds))
    if new.currency != old.currency:
        what = f"bill {number} is in {old.currency}, and would be in {new.currency} now"
        raise UsageError(what, remedy="reverse it with `headend account reverse`, then close its month")
    if same_lines(old, new):
        savepoint.rollback()
        return None
    savepoint.commit()
    run.write(conn, [prepared], now)
    issued = store.bill(conn, new.number)
    assert issued is not None, "it was just stored"
    return Corrected(old, issued, reversal.number)


def _own_adjustments(prepared: Prepared, old: Bill) -> Prepared:
    """Without the adjustments that the old bill had not taken on: they are for the account's next bill."""
    had = {line.determinant for line in old.lines if line.determinant.startswith(DETERMINANT)}
    lines = tuple(
        line for line in prepared.bill.lines if not line.determinant.startswith(DETERMINANT) or line.determinant in had
    )
    kept = tuple(number for number in prepared.adjustments if f"{DETERMINANT}{number}" in had)
    return replace(prepared, bill=replace(prepared.bill, lines=lines), adjustments=kept)


def _reasons(holds: Iterable[Hold]) -> str:
    return "; ".join(f"{hold.meter}: {hold.what}" if hold.meter else hold.what for hold in holds)


def _what_to_do(holds: Sequence[Hold]) -> str:
    if all(hold.review for hold in holds):
        return "if it is right: `headend account reverse`, close the month, and release the bill that is held then"
    return next((hold.remedy for hold in holds if hold.remedy and not hold.review), "")

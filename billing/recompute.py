"""A bill computed again: from the values and the tariff as they stood when it was made, or from the store of today."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, func, select

from billing import adjustments, store
from billing.adjustments import DETERMINANT, Adjustment
from billing.charges import Tariff
from billing.compare import Difference, differences
from billing.model import Bill, BillLine, Determinant, Hold
from billing.prepare import Number, prepare_cases
from billing.schema import bill_adjustment
from billing.segments import Case, case_of, in_force, month_of
from headend.civil import to_epoch_s, zone
from headend.errors import StoreError, UsageError
from headend.store import registry
from headend.store.portable import chunks
from headend.store.registry import AccountRow
from headend.store.schema import outcome
from headend.store.terms import terms as account_terms

__all__ = ["Recomputed", "billing_month_of", "issued_bill", "outcome_at", "recompute", "recompute_now"]

Parser = Callable[[str], Tariff]
"""A tariff from the text that is kept with bills."""


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A bill as it was issued, as it comes out again (`held` if it can't be made), and every difference of the two.

    as_of: the highest outcome id that counted.
    """

    then: Bill
    now: Bill
    as_of: int
    differences: tuple[Difference, ...]

    @property
    def identical(self) -> bool:
        """Whether it comes out as it was issued."""
        return not self.differences


def issued_bill(conn: Connection, number: str) -> Bill:
    """The issued bill of this number; `UsageError` if there is none."""
    found = store.bill(conn, number)
    if found is None:
        raise UsageError(f"unknown bill {number!r}", remedy="`headend bill list YYYY-MM` lists them")
    if found.state != "issued":
        raise UsageError(f"bill {number} is held: it was not issued", remedy="`headend bill show` says why")
    return found


def billing_month_of(bill: Bill) -> tuple[int, int]:
    """Year and month a bill is for."""
    start = bill.window.start.astimezone(zone(bill.zone))
    return start.year, start.month


def outcome_at(conn: Connection, moment: datetime) -> int:
    """The highest outcome id of the jobs begun up to an instant, 0 if there was none."""
    return conn.scalar(select(func.max(outcome.c.id)).where(outcome.c.started_at <= to_epoch_s(moment))) or 0


def recompute(conn: Connection, number: str, parse: Parser, *, as_of: int | None = None) -> Recomputed:
    """Make an issued bill again from the tariff texts kept with it and the values as they stood at outcome `as_of`.

    as_of: that of the bill, unless told. The registry is that of today: what it has that the bill was not made from is
    among the differences. Raises `UsageError` for an unknown or held bill.
    """
    bill = issued_bill(conn, number)
    shas = dict.fromkeys([sha for _, sha in bill.segments] or [bill.tariff_sha])
    tariffs = [_stored(conn, sha, parse) for sha in shas]
    limit = bill.as_of if as_of is None else as_of
    return _again(conn, bill, tariffs, limit, past=True)


def recompute_now(conn: Connection, number: str, tariffs: Sequence[Tariff]) -> Recomputed:
    """Make an issued bill again from the store of today and these tariffs. Raises as `recompute`."""
    return _again(conn, issued_bill(conn, number), tariffs, store.highest_outcome(conn), past=False)


def _stored(conn: Connection, sha: str, parse: Parser) -> Tariff:
    text = store.tariff_text(conn, sha)
    if text is None:
        raise StoreError(
            f"the store holds no tariff text with the hash {sha}", remedy="restore the store from a backup"
        )
    return parse(text)


def _again(conn: Connection, bill: Bill, tariffs: Sequence[Tariff], as_of: int, *, past: bool) -> Recomputed:
    account = registry.account(conn, bill.account)
    if account is None:
        raise StoreError(f"account {bill.account} of bill {bill.number} is not in the registry")
    notes: list[Difference] = []
    if past and account.tariff not in {tariff.id for tariff in tariffs}:
        notes.append(Difference("tariff", f"of account {account.id}", bill.tariff, account.tariff))
        account = replace(account, tariff=bill.tariff)
    made = _made(conn, bill, account, tariffs, as_of, past=past)
    notes += _adjustments(conn, bill)
    return Recomputed(bill, made, as_of, (*notes, *differences(bill, made)))


def _made(
    conn: Connection, bill: Bill, account: AccountRow, tariffs: Sequence[Tariff], as_of: int, *, past: bool
) -> Bill:
    """The bill as it comes out; the adjustments it took on go with it as they are."""
    known = account_terms(conn, account.id)
    year, month = billing_month_of(bill)
    whole = month_of(account, known, tariffs, year, month)
    if not in_force(account, whole):
        hold = Hold("not_in_force", f"the registry has account {account.id} not in force in {year:04d}-{month:02d}")
        return _bill(bill, account, None, as_of, holds=(hold,))
    case = case_of(account, known, tariffs, year, month)
    if not isinstance(case, Case):
        return _bill(bill, account, None, as_of, holds=case)
    (prepared,) = prepare_cases(conn, [case], [Number(bill.number)], None, as_of=as_of, past=past)
    made = prepared.bill
    if made.state == "held":
        return _bill(bill, account, case, as_of, holds=made.holds)
    taken = tuple(line for line in bill.lines if line.determinant.startswith(DETERMINANT))
    behind = tuple(item for item in bill.determinants if item.name.startswith(DETERMINANT))
    return _bill(bill, account, case, as_of, lines=(*made.lines, *taken), determinants=(*made.determinants, *behind))


def _bill(
    bill: Bill,
    account: AccountRow,
    case: Case | None,
    as_of: int,
    *,
    lines: tuple[BillLine, ...] = (),
    determinants: tuple[Determinant, ...] = (),
    holds: tuple[Hold, ...] = (),
) -> Bill:
    """`bill` with what came out this time in place of what was issued."""
    found = replace(
        bill,
        usage_point=account.usage_point,
        state="held" if holds else "draft",
        as_of=as_of,
        lines=lines,
        determinants=determinants,
        holds=holds,
        total=None if holds else sum((line.amount for line in lines), Decimal(0)),
    )
    if case is None:
        return found
    tariff, parts = case.period.tariff, case.period.segments
    return replace(
        found,
        window=case.period.window,
        tariff=tariff.id,
        tariff_version=tariff.version,
        tariff_sha=tariff.sha,
        currency=tariff.currency,
        segments=tuple((part.window.start, part.tariff.sha) for part in parts) if len(parts) > 1 else (),
    )


def _adjustments(conn: Connection, bill: Bill) -> list[Difference]:
    """Lines of adjustments that are not what the adjustment itself says."""
    lines = {line.determinant.removeprefix(DETERMINANT): line for line in bill.lines}
    found: dict[str, Adjustment] = {}
    for part in chunks(number for number, line in lines.items() if line.determinant.startswith(DETERMINANT)):
        found |= {
            item.number: item for item in adjustments.adjustments(conn, where=[bill_adjustment.c.number.in_(part)])
        }
    return [
        Difference("line", line.code, str(line.amount), str(found[number].amount) if number in found else "none")
        for number, line in lines.items()
        if line.determinant.startswith(DETERMINANT)
        and (number not in found or adjustments.line_of(found[number]) != line)
    ]

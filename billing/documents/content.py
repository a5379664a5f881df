"""What a bill's document shows, gathered once from the store; drawing it reads nothing more.

What came later than the bill is left out, so that the document is the same whenever it is made: values by their outcome
ids, earlier bills by when they were issued. Only a reversal, which its customer must know of, is told as it is now.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

from sqlalchemy import Connection, select

from billing import schema
from billing import store as bill_store
from billing.charges import NetMetering, StepAdder, StepCharge, StepTouCharge, Tariff
from billing.documents.usage import Usage, usage_of
from billing.model import MINOR_DIGITS, Bill, BillLine
from billing.names import NET, TOTAL
from headend.civil import from_epoch_s, to_epoch_s, zone
from headend.errors import UsageError
from headend.model import Window
from headend.store import registry
from headend.store.portable import chunks

__all__ = ["BillContent", "Past", "StepProgress", "bill_content", "content_of", "posted", "step_progress"]

_MONTHS_BACK = 12

ReadTariff = Callable[[str], Tariff | None]


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier bill of the account that stood when this one was issued."""

    number: str
    window: Window
    energy: Decimal
    total: Decimal


@dataclass(frozen=True, slots=True)
class StepProgress:
    """How far the steps of a bill are filled: `before` it, and by what it bills; limits of all steps but the open one.

    period: `year` or `month`.
    """

    period: str
    before: Decimal
    energy: Decimal
    limits: tuple[Decimal, ...]


@dataclass(frozen=True, slots=True)
class BillContent:
    """Everything a bill's document shows.

    utility: who sends it. invoice: the bill's number in the ledger, "" before it is posted. reversed_by: the entry that
    took it back, "" while it stands. due: when it is to be paid, None if that is not settled. past: bills of the twelve
    months before, oldest first. title: of the tariff, its id where it is not known.
    """

    bill: Bill
    utility: str
    customer: str = ""
    invoice: str = ""
    reversed_by: str = ""
    due: date | None = None
    title: str = ""
    past: tuple[Past, ...] = ()
    steps: StepProgress | None = None
    usage: Usage | None = None


def bill_content(
    conn: Connection, number: str, utility: str, read_tariff: ReadTariff | None = None, due_days: int | None = None
) -> BillContent:
    """The content of a stored bill's document.

    read_tariff: makes a tariff of the text stored with the bill (None where it can't); its step limits are shown.
    due_days: how many days after that of issue the bill is to be paid; None: not said. `UsageError` for a bill that is
    not there, or is held.
    """
    bill = bill_store.bill(conn, number)
    if bill is None:
        raise UsageError(f"unknown bill {number!r}", remedy="`headend bill list YYYY-MM` lists them")
    return content_of(conn, bill, utility, read_tariff, due_days)


def content_of(
    conn: Connection, bill: Bill, utility: str, read_tariff: ReadTariff | None = None, due_days: int | None = None
) -> BillContent:
    """As `bill_content`, of a bill that is at hand; it may be a draft that was never stored."""
    if bill.state == "held":
        reasons = "; ".join(str(hold) for hold in bill.holds[:3]) or "its reasons are in `headend bill show`"
        raise UsageError(f"bill {bill.number} is held, so there is no document of it: {reasons}")
    account = registry.account(conn, bill.account)
    text = bill_store.tariff_text(conn, bill.tariff_sha)
    tariff = read_tariff(text) if read_tariff is not None and text else None
    due = None
    if due_days is not None and bill.issued_at is not None:
        due = bill.issued_at.astimezone(zone(bill.zone)).date() + timedelta(days=due_days)
    invoice, reversed_by = posted(conn, [bill.number]).get(bill.number, ("", ""))
    return BillContent(
        bill=bill,
        utility=utility,
        customer=account.customer if account else "",
        invoice=invoice,
        reversed_by=reversed_by or bill.reversed_by,
        due=due,
        title=_title(conn, bill.tariff_sha) or (tariff.title if tariff else bill.tariff),
        past=_past(conn, bill),
        steps=None if tariff is None else step_progress(bill, tariff),
        usage=usage_of(conn, bill),
    )


def posted(conn: Connection, numbers: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Of those of the bills that are in the ledger: the number of their entry, and of the one that took it back."""
    entry, back = schema.ledger_entry, schema.ledger_entry.alias()
    found: dict[str, tuple[str, str]] = {}
    for chunk in chunks(numbers):
        query = (
            select(entry.c.reference, entry.c.number, back.c.number)
            .outerjoin(back, back.c.reverses == entry.c.number)
            .where(entry.c.kind == "bill", entry.c.reference.in_(chunk))
        )
        found |= {reference: (number, reversal or "") for reference, number, reversal in conn.execute(query)}
    return found


def _title(conn: Connection, sha: str) -> str:
    table = schema.tariff_version
    return conn.scalar(select(table.c.title).where(table.c.sha == sha)) or ""


def _past(conn: Connection, bill: Bill) -> tuple[Past, ...]:
    """The bills that stood when this one was issued, of the months before it, one a period."""
    table, parts, entry = schema.bill, schema.bill_determinant, schema.ledger_entry
    reversal = entry.alias()
    reversed_at = (
        select(reversal.c.at)
        .join(entry, entry.c.number == reversal.c.reverses)
        .where(entry.c.bill_key == table.c.key)
        .scalar_subquery()
    )
    first = bill.window.start - timedelta(days=31 * _MONTHS_BACK + 3)
    query = (
        select(table, parts.c.value, reversed_at.label("reversed_at"))
        .join(parts, (parts.c.bill_key == table.c.key) & (parts.c.name == TOTAL))
        .where(
            table.c.account == bill.account,
            table.c.state == "issued",
            table.c.currency == bill.currency,
            table.c.period_start >= to_epoch_s(first),
            table.c.period_end <= to_epoch_s(bill.window.start),
        )
        .order_by(table.c.period_start, table.c.sequence)
    )
    known = None if bill.issued_at is None else to_epoch_s(bill.issued_at)
    found: dict[int, Past] = {}
    for row in conn.execute(query):
        late = known is not None and row.issued_at > known
        if late or (row.reversed_at is not None and (known is None or row.reversed_at <= known)):
            continue
        window = Window(from_epoch_s(row.period_start), from_epoch_s(row.period_end))
        total = Decimal(row.total_minor).scaleb(-MINOR_DIGITS[row.currency])
        found[row.period_start] = Past(row.number, window, Decimal(row.value), total)
    return tuple(found.values())


def step_progress(bill: Bill, tariff: Tariff) -> StepProgress | None:
    """How far the bill's steps are filled; None for a tariff without steps, and where they changed within the period.

    The limits are those of the tariff, raised for a large household as the bill's determinant `people` says. Where the
    bill's lines were made with others, as for a part of a year, None: a picture must not tell another story than they.
    """
    charge = next((c for c in tariff.charges if isinstance(c, (StepCharge, StepAdder, StepTouCharge))), None)
    if charge is None or bill.segments:
        return None
    net = any(isinstance(c, NetMetering) for c in tariff.charges)
    by_name = {determinant.name: determinant for determinant in bill.determinants}
    energy = by_name.get(NET if net else TOTAL)
    if energy is None:
        return None
    month = bill.window.start.astimezone(zone(tariff.zone)).month
    table = next((table for table in charge.tables if month in table.months), None)
    people = by_name.get("people")
    more = Decimal(0)
    if charge.household is not None and people is not None and people.value >= charge.household.people:
        more = charge.household.kwh * (12 if charge.period == "year" else 1)
    limits = _limits([step.up_to for step in table.steps] if table else [], more)
    before = energy.used_before or Decimal(0)
    found = StepProgress(charge.period, before if charge.period == "year" else Decimal(0), energy.value, limits)
    return found if _agrees(found, bill.lines) else None


_STEP_CODE = re.compile(r"energy_step(\d+)(?:_.+)?|step(\d+)_adder")


def _agrees(steps: StepProgress, lines: Sequence[BillLine]) -> bool:
    """Whether the bill's lines have in each step what these limits leave for it."""
    billed: dict[int, Decimal] = {}
    for line in lines:
        if match := _STEP_CODE.fullmatch(line.code):
            number = int(match[1] or match[2])
            billed[number] = billed.get(number, Decimal(0)) + line.quantity
    edges = [Decimal(0), *steps.limits, max((steps.before + steps.energy, *steps.limits))]
    end = steps.before + steps.energy
    laid = {
        number: max(min(end, edges[number]) - max(steps.before, edges[number - 1]), Decimal(0))
        for number in range(1, len(edges))
    }
    return all(laid.get(number) == quantity for number, quantity in billed.items())


def _limits(limits: Sequence[Decimal | None], more: Decimal) -> tuple[Decimal, ...]:
    return tuple(limit + more for limit in limits if limit is not None)

"""The ledger: double entry in integer minor units. Every entry's postings sum to zero; nothing in it ever changes.

Entries are bills (`B000001`), payments (`P000001`) and reversals (`R000001`), numbered without gaps within their kind.
A posting goes to a book: `receivable` (its part is the account that pays), `revenue` (its part is the kind of charge,
see `charge_kind`), `tax` (payable) or `cash`. Debits are above zero, credits below. Triggers of the database keep the
sums, the numbers and what was written.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, func, or_, select, text

from billing import schema
from billing.model import MINOR_DIGITS
from billing.names import CAPACITY, CONTRACT, MARKET, MAXIMUM, MONTH, PERCENT, RATCHET, TOTAL
from billing.reasons import checked, reason_of
from headend.civil import from_epoch_s, to_epoch_s
from headend.errors import UsageError
from headend.store import Store, registry
from headend.store.portable import chunks, put_rows

__all__ = [
    "Entry",
    "Recorded",
    "Statement",
    "Total",
    "charge_kind",
    "check_account",
    "lock",
    "pay",
    "post_bills",
    "post_missing",
    "reverse",
    "reversed_by",
    "statement",
    "totals",
]

_LETTERS = {"bill": "B", "payment": "P", "reversal": "R"}
_MOST_MINOR = 10**15
"""No single amount is larger: sums of them stay far within 64 bits."""
_BATCH = 200


class Recorded(NamedTuple):
    """The number of an entry, its account, and whether it is new; False: it was there, and nothing was written."""

    number: str
    account: str
    new: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as its account sees it. amount: what it adds to what is owed; balance: what is owed after it.

    reference: the bill's number, the payer's reference, or the number of what is reversed. at: when it took effect.
    """

    number: str
    kind: str
    at: datetime
    reference: str
    text: str
    currency: str
    amount: Decimal
    balance: Decimal


@dataclass(frozen=True, slots=True)
class Statement:
    """An account's entries, oldest first, and what it owes in each currency; below zero: paid ahead."""

    account: str
    entries: tuple[Entry, ...]
    balances: tuple[tuple[str, Decimal], ...]


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of all postings to a book, by kind of charge for revenue; debits above zero."""

    currency: str
    book: str
    part: str
    amount: Decimal


class _Posting(NamedTuple):
    book: str
    part: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class _Document:
    kind: str
    account: str
    currency: str
    reference: str
    text: str
    at_s: int
    postings: tuple[_Posting, ...]
    bill_key: int | None = None
    reverses: str | None = None


@lru_cache(maxsize=1024)
def charge_kind(code: str, unit: str, determinant: str) -> str:
    """Which kind of charge a bill line is, from its code, unit and determinant (see `billing.rating.rate`).

    `energy` (also steps, and market prices), `demand` (also capacity), `fixed`, `minimum`, `surcharge`, `export`,
    `adjustment` (power factor), `correction` (an adjustment for an earlier bill), `tax`, `rounding` (of the whole
    bill); `other` for what is none of these.
    """
    source = determinant.partition("@")[0]  # of a part of the period, as of the whole
    if source == MONTH:
        return "minimum" if code == "minimum" else "fixed"
    if unit == PERCENT and not determinant:
        return "tax"
    for kind, pattern in _CODES:
        if re.fullmatch(pattern, code):
            return kind
    for kind, pattern in _SOURCES:
        if re.fullmatch(pattern, source):
            return kind
    if source == TOTAL:
        return "demand" if unit == PERCENT else "surcharge"  # a discount on the demand, for long hours of use
    return "other"


_CODES = (
    ("energy", r"energy(_.+)?|.+_adder"),
    ("demand", r"basic_(demand(_.+)?|excess|discount|capacity)"),
    ("adjustment", "pf_adjust"),
    ("export", "export_credit"),
    ("correction", "adjustment"),
    ("rounding", "rounding"),
)
_SOURCES = (("demand", f"({MAXIMUM}(_.+)?|{RATCHET}|{CONTRACT}|{CAPACITY})"), ("energy", f"{MARKET}_.+"))


# -- posting -----------------------------------------------------------------------------------------------------------


def post_bills(conn: Connection, numbers: Sequence[str], now: datetime) -> int:
    """Post these issued bills, within the transaction of `conn`; how many were not posted before."""
    if not numbers:
        return 0
    lock(conn)
    return sum(_post_bills(conn, schema.bill.c.number.in_(chunk), now) for chunk in chunks(numbers))


def post_missing(store: Store, now: datetime) -> int:
    """Post every issued bill that is not in the ledger: those issued before there was one; how many they were."""
    bill = schema.bill
    with store.read() as conn:
        keys = list(conn.scalars(select(bill.c.key).where(_unposted()).order_by(bill.c.key)))
    posted = 0
    for batch in chunks(keys, _BATCH):
        with store.write() as conn:
            lock(conn)
            posted += _post_bills(conn, bill.c.key.in_(batch), now)
    return posted


def pay(conn: Connection, account: str, amount: Decimal, currency: str, reference: str, now: datetime) -> Recorded:
    """Record a payment; the same one (account and reference) is recorded once, however often it is called.

    Raises `UsageError` for an unknown account, an amount that is not above zero or finer than the currency, an empty
    reference, and a reference that stands for another amount already.
    """
    check_account(conn, account)
    minor = _minor(amount, currency)
    if not (reference := reference.strip()):
        raise UsageError("a payment needs a reference", remedy="give the number of the receipt or transfer")
    checked(reference, "the reference of a payment")
    lock(conn)
    if (found := _entry(conn, "payment", account, reference)) is not None:
        if _owed(conn, found.number) != -minor or found.currency != currency:
            what = f"payment {reference!r} of account {account} is recorded already, as {found.number}, of another sum"
            raise UsageError(what, remedy="give another reference, or reverse the other one first")
        return Recorded(found.number, account, False)
    postings = (_Posting("cash", "", minor), _Posting("receivable", account, -minor))
    document = _Document("payment", account, currency, reference, "", to_epoch_s(now), postings)
    return Recorded(_append(conn, [document], now)[0], document.account, True)


def reverse(conn: Connection, number: str, reason: str, now: datetime) -> Recorded:
    """Take back a posted bill (by the bill's number) or payment (by its entry's number) with an entry of its own.

    The bill itself stays as it was issued; its period may be billed anew. Reversing again changes nothing. Raises
    `UsageError` for what is not in the ledger, a reversal, and an empty reason.
    """
    reason = reason_of(reason, "a reversal")
    lock(conn)
    table, postings = schema.ledger_entry, schema.ledger_posting
    by_bill = (table.c.kind == "bill") & (table.c.reference == number)
    found = conn.execute(select(table).where(or_(table.c.number == number, by_bill))).one_or_none()
    if found is None:
        raise UsageError(f"nothing in the ledger is called {number!r}", remedy="`headend account ACCOUNT` lists it")
    if found.kind == "reversal":
        raise UsageError(f"{number} is a reversal itself, and stays", remedy="reverse bills and payments only")
    done = conn.scalar(select(table.c.number).where(table.c.reverses == found.number))
    if done is not None:
        return Recorded(done, found.account, False)
    rows = conn.execute(select(postings).where(postings.c.entry == found.number).order_by(postings.c.line))
    opposite = tuple(_Posting(row.book, row.part, -row.amount_minor) for row in rows)
    reference = found.reference if found.kind == "bill" else found.number
    document = _Document(
        "reversal", found.account, found.currency, reference, reason, to_epoch_s(now), opposite, reverses=found.number
    )
    return Recorded(_append(conn, [document], now)[0], document.account, True)


def reversed_by(conn: Connection, bills: Sequence[str]) -> dict[str, str]:
    """By the number of a bill that was reversed, the number of the entry that took it back; others are absent."""
    bill, entry, reversal = schema.bill, schema.ledger_entry, schema.ledger_entry.alias()
    found: dict[str, str] = {}
    for part in chunks(bills):
        query = (
            select(bill.c.number, reversal.c.number)
            .join(entry, (entry.c.bill_key == bill.c.key) & (entry.c.kind == "bill"))
            .join(reversal, reversal.c.reverses == entry.c.number)
            .where(bill.c.number.in_(part))
        )
        found.update((number, by) for number, by in conn.execute(query))
    return found


def check_account(conn: Connection, account: str) -> None:
    """Raise `UsageError` for an account that is neither in the registry nor in the ledger."""
    table = schema.ledger_entry
    posted = select(table.c.number).where(table.c.account == account).limit(1)
    if registry.account(conn, account) is not None or conn.scalar(posted) is not None:
        return
    near = get_close_matches(account, [row.id for row in registry.accounts(conn)], n=1)
    remedy = f"did you mean {near[0]}?" if near else "`headend import` adds accounts"
    raise UsageError(f"unknown account {account!r}", remedy=remedy)


def _minor(amount: Decimal, currency: str) -> int:
    """An amount that someone paid, in minor units."""
    if currency not in MINOR_DIGITS:
        raise UsageError(f"unknown currency {currency!r}", remedy=f"use one of {', '.join(MINOR_DIGITS)}")
    digits = MINOR_DIGITS[currency]
    if not amount.is_finite() or not 0 < (scaled := amount.scaleb(digits)) <= _MOST_MINOR:
        most = Decimal(_MOST_MINOR).scaleb(-digits)
        remedy = (
            f"at most {most} at once"
            if amount.is_finite() and amount > most
            else "give an amount above zero, as in 120.50"
        )
        raise UsageError(f"{amount} {currency} can't be paid", remedy=remedy)
    if scaled != int(scaled):
        raise UsageError(f"{amount} {currency} is finer than the currency", remedy=f"give at most {digits} decimals")
    return int(scaled)


def lock(conn: Connection) -> None:
    """Writers of the ledger take turns, so that numbers have no gaps. On SQLite every writer does."""
    if conn.dialect.name != "sqlite":
        conn.execute(text("LOCK TABLE ledger_entry IN SHARE ROW EXCLUSIVE MODE"))
        # A connection keeps the plans of its triggers. Made while the ledger was small, they read all of it for every
        # entry; and statistics come late, as who gathers them can't while it is locked.
        conn.execute(text("DISCARD PLANS"))


def _unposted() -> ColumnElement[bool]:
    entry = schema.ledger_entry
    posted = select(entry.c.number).where(entry.c.kind == "bill", entry.c.bill_key == schema.bill.c.key).exists()
    return (schema.bill.c.state == "issued") & ~posted


def _post_bills(conn: Connection, where: ColumnElement[bool], now: datetime) -> int:
    """Post the bills among `where` that are issued and not posted, in the order they were issued; how many."""
    bill, line = schema.bill, schema.bill_line
    told = (bill.c.key, bill.c.number, bill.c.account, bill.c.currency, bill.c.tariff, bill.c.total_minor)
    query = select(*told, bill.c.issued_at).where(where, _unposted()).order_by(bill.c.issued_at, bill.c.key)
    found = conn.execute(query).all()
    lines: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for keys in chunks(row.key for row in found):
        parts = (line.c.bill_key, line.c.code, line.c.unit, line.c.determinant, line.c.amount_minor)
        of_them = select(*parts).where(line.c.bill_key.in_(keys)).order_by(line.c.bill_key, line.c.line)
        for key, code, unit, determinant, minor in conn.execute(of_them):
            lines[key][charge_kind(code, unit, determinant)] += minor
    documents = [
        _Document(
            kind="bill",
            account=row.account,
            currency=row.currency,
            reference=row.number,
            text=row.tariff,
            at_s=row.issued_at,
            postings=_bill_postings(row.account, row.total_minor, lines[row.key]),
            bill_key=row.key,
        )
        for row in found
    ]
    return len(_append(conn, documents, now))


def _bill_postings(account: str, total_minor: int, sums: Mapping[str, int]) -> tuple[_Posting, ...]:
    """The account owes the total; revenue and tax of its lines stand against it, one posting a kind of charge.

    sums: of the lines by kind of charge.
    """
    against = [_Posting(*(("tax", "") if kind == "tax" else ("revenue", kind)), -minor) for kind, minor in sums.items()]
    return (_Posting("receivable", account, total_minor), *against)


def _append(conn: Connection, documents: Sequence[_Document], now: datetime) -> list[str]:
    """Write entries with the next numbers of their kinds; the numbers. The ledger is locked."""
    table, posted_at = schema.ledger_entry, to_epoch_s(now)
    entries: list[tuple[Any, ...]] = []
    postings: list[tuple[Any, ...]] = []
    last: Counter[str] = Counter()
    for kind in {document.kind for document in documents}:
        last[kind] = conn.scalar(select(func.max(table.c.sequence)).where(table.c.kind == kind)) or 0
    for document in documents:
        if sum([posting.amount_minor for posting in document.postings]) != 0:
            raise ValueError(f"the postings of {document.kind} {document.reference} do not sum to zero")
        last[document.kind] += 1
        number = f"{_LETTERS[document.kind]}{last[document.kind]:06d}"
        what = (document.account, document.currency, document.reference, document.text, document.bill_key)
        at = (document.reverses, document.at_s, posted_at)
        entries.append((number, document.kind, last[document.kind], *what, *at))
        postings += [(number, line, *posting) for line, posting in enumerate(document.postings, 1)]
    put_rows(conn, schema.ledger_posting, ("entry", "line", *_Posting._fields), postings)
    put_rows(conn, table, _ENTRY, entries)
    return [entry[0] for entry in entries]


_ENTRY = (
    "number",
    "kind",
    "sequence",
    "account",
    "currency",
    "reference",
    "text",
    "bill_key",
    "reverses",
    "at",
    "posted_at",
)


# -- reading -----------------------------------------------------------------------------------------------------------


def _entry(conn: Connection, kind: str, account: str, reference: str) -> Any:
    table = schema.ledger_entry
    same = (table.c.kind == kind) & (table.c.account == account) & (table.c.reference == reference)
    return conn.execute(select(table).where(same)).one_or_none()


def _owed(conn: Connection, number: str) -> int:
    """What an entry adds to what its account owes, in minor units."""
    table = schema.ledger_posting
    query = select(func.sum(table.c.amount_minor)).where(table.c.entry == number, table.c.book == "receivable")
    return int(conn.scalar(query) or 0)


def statement(conn: Connection, account: str) -> Statement:
    """Everything posted to an account's receivable, oldest first, with the balance after each entry."""
    entry, posting = schema.ledger_entry, schema.ledger_posting
    query = (
        select(entry, posting.c.amount_minor)
        .join(posting, posting.c.entry == entry.c.number)
        .where(posting.c.book == "receivable", posting.c.part == account)
        .order_by(entry.c.at, entry.c.posted_at, entry.c.kind, entry.c.sequence)
    )
    balances: dict[str, int] = {}
    entries = []
    for row in conn.execute(query):
        balances[row.currency] = balances.get(row.currency, 0) + row.amount_minor
        amount, balance = _money(row.amount_minor, row.currency), _money(balances[row.currency], row.currency)
        at = from_epoch_s(row.at)
        entries.append(Entry(row.number, row.kind, at, row.reference, row.text, row.currency, amount, balance))
    owed = tuple((currency, _money(minor, currency)) for currency, minor in sorted(balances.items()))
    return Statement(account, tuple(entries), owed)


def totals(conn: Connection) -> list[Total]:
    """The sum of each book, in each currency; they sum to zero."""
    entry, posting = schema.ledger_entry, schema.ledger_posting
    query = (
        select(entry.c.currency, posting.c.book, posting.c.part, func.sum(posting.c.amount_minor))
        .join(posting, posting.c.entry == entry.c.number)
        .group_by(entry.c.currency, posting.c.book, posting.c.part)
    )
    sums: dict[tuple[str, str, str], int] = defaultdict(int)
    for currency, book, part, minor in conn.execute(query):
        sums[currency, book, "" if book == "receivable" else part] += int(minor)
    return [Total(*key, _money(minor, key[0])) for key, minor in sorted(sums.items())]


def _money(minor: int, currency: str) -> Decimal:
    return Decimal(minor).scaleb(-MINOR_DIGITS[currency])

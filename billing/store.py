"""Bills in the database: put once, list, show. An issued bill never changes; triggers of the database see to that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, bindparam, func, insert, or_, select, update

from billing import schema
from billing.bill_rows import (
    COLUMNS,
    add_content,
    bill_of,
    bill_row,
    counts_of,
    determinant_of,
    hold_of,
    hold_values,
    parent_tables,
)
from billing.calendar import PeriodSpan
from billing.charges import Tariff
from billing.model import Bill, Determinant, Hold, Parent
from headend.civil import from_epoch_s, to_epoch_s
from headend.model import Quality, Window
from headend.store.portable import add_absent, chunks, put_rows
from headend.store.schema import outcome

__all__ = [
    "Issued",
    "Latest",
    "Release",
    "bill",
    "bills",
    "highest_outcome",
    "hold_history",
    "invoices",
    "issued_codes",
    "issued_energy",
    "issued_numbers",
    "issued_values",
    "latest",
    "put",
    "put_many",
    "put_tariff",
    "released_codes",
    "releases",
    "standing",
    "tariff_spans",
    "tariff_text",
]


class Latest(NamedTuple):
    """The bill of an account and month with the highest sequence. reversed: the ledger took it back."""

    number: str
    sequence: int
    state: str
    replaces: str
    reversed: bool


class Issued(NamedTuple):
    """A determinant of an issued bill that stands. window: the billing period."""

    account: str
    number: str
    window: Window
    name: str
    value: Decimal
    counts: tuple[tuple[Quality, int], ...]


@dataclass(frozen=True, slots=True)
class Release:
    """A person let a held bill pass, for the findings with these codes."""

    number: str
    codes: tuple[str, ...]
    reason: str
    by: str
    at: datetime


def highest_outcome(conn: Connection) -> int:
    """The highest outcome id in the store, 0 if there is none."""
    return conn.scalar(select(func.max(outcome.c.id))) or 0


# -- what stands -------------------------------------------------------------------------------------------------------


def _reversal() -> Any:
    """The number of the ledger entry that took a row of `bill` back."""
    entry, table = schema.ledger_entry, schema.bill
    same = (entry.c.account == table.c.account) & (entry.c.reference == table.c.number)
    return select(entry.c.number).where(entry.c.kind == "reversal", same).correlate(table).scalar_subquery()


def standing() -> ColumnElement[bool]:
    """The condition that a row of `bill` is issued and was not taken back: what later bills may rest on."""
    return and_(schema.bill.c.state == "issued", _reversal().is_(None))


def issued_numbers(conn: Connection, numbers: Sequence[str]) -> set[str]:
    """Those of `numbers` that are issued already."""
    table, found = schema.bill, set[str]()
    for chunk in chunks(numbers):
        query = select(table.c.number).where(table.c.number.in_(chunk), table.c.state == "issued")
        found.update(conn.scalars(query))
    return found


def latest(conn: Connection, bases: Mapping[str, str], near: Window) -> dict[str, Latest]:
    """By account the bill of a month that counts: the one of the highest sequence.

    bases: the number of each account's first bill of the month (`ACCOUNT-YYYY-MM`). near: a span that holds the start
    of each of these periods.
    """
    table = schema.bill
    found: dict[str, Latest] = {}
    for chunk in chunks(bases):
        query = (
            select(table.c.account, table.c.number, table.c.sequence, table.c.state, table.c.replaces, _reversal())
            .where(
                table.c.account.in_(chunk),
                table.c.period_start >= to_epoch_s(near.start),
                table.c.period_start < to_epoch_s(near.end),
            )
            .order_by(table.c.sequence)
        )
        for account, number, sequence, state, replaces, taken_back in conn.execute(query):
            if number in (bases[account], f"{bases[account]}.{sequence}"):
                found[account] = Latest(number, sequence, state, replaces, taken_back is not None)
    return found


def issued_energy(
    conn: Connection, account: str, determinant: str, window: Window
) -> list[tuple[str, Window, Decimal]]:
    """Number, period and energy of an account's bills that stand within `window`, in order of time."""
    found = issued_values(conn, [account], [determinant], window)[account]
    return [(one.number, one.window, one.value) for one in found]


def issued_values(
    conn: Connection, accounts: Iterable[str], names: Sequence[str], window: Window
) -> dict[str, list[Issued]]:
    """By account the determinants `names` of its bills that stand and lie within `window`, in order of time.

    A bill that was taken back is not among them; of bills of one period only the latest can stand.
    """
    table, parts = schema.bill, schema.bill_determinant
    found: dict[str, list[Issued]] = defaultdict(list)
    for chunk in chunks(accounts):
        query = (
            select(
                table.c.account,
                table.c.number,
                table.c.period_start,
                table.c.period_end,
                parts.c.name,
                parts.c.value,
                parts.c.counts,
            )
            .join(parts, (parts.c.bill_key == table.c.key) & parts.c.name.in_(names))
            .where(table.c.account.in_(chunk), standing(), *_within(window))
            .order_by(table.c.account, table.c.period_start, table.c.sequence, parts.c.position)
        )
        for account, number, start, end, name, value, counts in conn.execute(query):
            period = Window(from_epoch_s(start), from_epoch_s(end))
            found[account].append(Issued(account, number, period, name, Decimal(value), counts_of(counts)))
    return found


def issued_codes(
    conn: Connection, accounts: Iterable[str], window: Window
) -> dict[str, dict[str, tuple[Window, set[str]]]]:
    """By account and number of its bills that stand within `window`: the period, and the codes of their lines."""
    table, line = schema.bill, schema.bill_line
    found: dict[str, dict[str, tuple[Window, set[str]]]] = defaultdict(dict)
    for chunk in chunks(accounts):
        query = (
            select(table.c.account, table.c.number, table.c.period_start, table.c.period_end, line.c.code)
            .join(line, line.c.bill_key == table.c.key)
            .where(table.c.account.in_(chunk), standing(), *_within(window))
            .order_by(table.c.account, table.c.period_start)
        )
        for account, number, start, end, code in conn.execute(query):
            period = Window(from_epoch_s(start), from_epoch_s(end))
            found[account].setdefault(number, (period, set()))[1].add(code)
    return found


def _within(window: Window) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    table = schema.bill
    return table.c.period_start >= to_epoch_s(window.start), table.c.period_end <= to_epoch_s(window.end)


def invoices(conn: Connection, numbers: Iterable[str]) -> dict[str, str]:
    """By the number of a bill that of its entry in the ledger: numbered without gaps, it is the invoice's number."""
    entry, found = schema.ledger_entry, dict[str, str]()
    for chunk in chunks(numbers):
        query = (
            select(schema.bill.c.number, entry.c.number)
            .join(entry, entry.c.bill_key == schema.bill.c.key)
            .where(entry.c.kind == "bill", schema.bill.c.number.in_(chunk))
        )
        found.update((number, invoice) for number, invoice in conn.execute(query))
    return found


# -- putting -----------------------------------------------------------------------------------------------------------


def put_tariff(conn: Connection, tariff: Tariff, split: Mapping[Window, Sequence[PeriodSpan]], now: datetime) -> None:
    """Keep a tariff's text, and how its TOU periods split the given billing periods; what is there stays."""
    row = {name: getattr(tariff, name) for name in ("sha", "id", "version", "title", "source", "verified", "zone")}
    row |= {"currency": tariff.currency, "text": tariff.text, "stored_at": to_epoch_s(now)}
    add_absent(conn, schema.tariff_version, [row])
    rows = [
        {
            "tariff_sha": tariff.sha,
            "period_start": to_epoch_s(window.start),
            "period_end": to_epoch_s(window.end),
            "spans": "\n".join(f"{to_epoch_s(s.start)} {to_epoch_s(s.end)} {s.period}" for s in found),
        }
        for window, found in split.items()
    ]
    add_absent(conn, schema.tariff_spans, rows)


def put(conn: Connection, bill: Bill, now: datetime) -> str:
    """Store a bill that is to be issued or held; what became of it: `issued`, `held`, or `already` (issued before).

    A held bill that is held again keeps its row; its reasons are added to its history if they changed. Raises
    SQLAlchemy's `IntegrityError` if another close stored the same bill at the same moment.
    """
    return put_many(conn, [bill], now)[bill.number]


def put_many(
    conn: Connection, bills: Sequence[Bill], now: datetime, adjusted: Mapping[str, Sequence[str]] | None = None
) -> dict[str, str]:
    """Store bills as `put` does, all of them at once; by number what became of each.

    adjusted: by number of a bill the adjustments it takes on, if it is issued.
    """
    table = schema.bill
    present: dict[str, tuple[int, str]] = {}
    for chunk in chunks(bill.number for bill in bills):
        query = select(table.c.number, table.c.key, table.c.state).where(table.c.number.in_(chunk)).with_for_update()
        present.update((number, (key, state)) for number, key, state in conn.execute(query))
    results = {number: "already" for number, (_, state) in present.items() if state == "issued"}
    chosen = [bill for bill in bills if bill.number not in results]
    new = [bill for bill in chosen if bill.number not in present]
    keys = {number: key for number, (key, _) in present.items()}
    at = to_epoch_s(now)
    put_rows(conn, table, COLUMNS[table], [_row(bill, at) for bill in new])
    for chunk in chunks(bill.number for bill in new):
        made = conn.execute(select(table.c.number, table.c.key).where(table.c.number.in_(chunk)))
        keys.update((number, key) for number, key in made)
    _update(conn, [(keys[bill.number], _row(bill, at)) for bill in chosen if bill.number in present])
    held = [bill for bill in chosen if bill.state == "held"]
    issued = [bill for bill in chosen if bill.state != "held"]
    _put_holds(conn, {keys[bill.number]: bill.holds for bill in held}, now)
    content: dict[Table, list[tuple[Any, ...]]] = defaultdict(list)
    for bill in issued:
        add_content(content, keys[bill.number], bill)
        taken = (adjusted or {}).get(bill.number, ())
        content[schema.bill_adjusted] += [(keys[bill.number], number) for number in taken]
    for of_table, values_of in content.items():
        put_rows(conn, of_table, COLUMNS[of_table], values_of)
    for of_them in chunks(keys[bill.number] for bill in issued):
        conn.execute(update(table).where(table.c.key.in_(of_them)).values(state="issued"))
    results |= {bill.number: "held" if bill.state == "held" else "issued" for bill in chosen}
    return results


def _row(bill: Bill, at: int) -> tuple[Any, ...]:
    """The row of a bill until its content is there: from `issued` on it takes none."""
    return bill_row(bill, "held") if bill.state == "held" else bill_row(bill, "draft", at)


def _update(conn: Connection, rows: Sequence[tuple[int, tuple[Any, ...]]]) -> None:
    """Update rows of `bill`, given with the key of each."""
    if rows:
        table, names = schema.bill, COLUMNS[schema.bill]
        statement = update(table).where(table.c.key == bindparam("of")).values({n: bindparam(n) for n in names})
        conn.execute(statement, [{"of": key} | dict(zip(names, row, strict=True)) for key, row in rows])


def _put_holds(conn: Connection, holds: Mapping[int, Sequence[Hold]], now: datetime) -> None:
    """Add an evaluation to the history of each held bill whose reasons are other than before."""
    history: dict[int, dict[int, tuple[datetime, tuple[Hold, ...]]]] = {}
    for chunk in chunks(holds):
        history.update(_hold_rows(conn, schema.bill_hold.c.bill_key.in_(chunk)))
    rows = []
    for key, reasons in holds.items():
        last = max(history.get(key, ()), default=0)
        if last and history[key][last][1] == tuple(reasons):
            continue
        rows += [
            {"bill_key": key, "evaluation": last + 1, "position": position, "evaluated_at": to_epoch_s(now)}
            | hold_values(hold)
            | {"review": hold.review}
            for position, hold in enumerate(reasons, start=1)
        ]
    if rows:
        conn.execute(insert(schema.bill_hold), rows)


# -- releases ----------------------------------------------------------------------------------------------------------


def releases(conn: Connection, number: str) -> list[Release]:
    """Who let this bill pass, why and for what, oldest first."""
    table = schema.bill_release
    rows = conn.execute(select(table).where(table.c.number == number).order_by(table.c.key))
    return [
        Release(row.number, tuple(row.codes.splitlines()), row.reason, row.released_by, from_epoch_s(row.at))
        for row in rows
    ]


def released_codes(conn: Connection, numbers: Iterable[str]) -> dict[str, set[str]]:
    """By number of a bill the codes of the findings it was released for."""
    table = schema.bill_release
    found: dict[str, set[str]] = defaultdict(set)
    for chunk in chunks(numbers):
        for number, codes in conn.execute(select(table.c.number, table.c.codes).where(table.c.number.in_(chunk))):
            found[number].update(codes.splitlines())
    return found


# -- reading -----------------------------------------------------------------------------------------------------------


def bill(conn: Connection, number: str) -> Bill | None:
    """The bill with this number, with its lines, determinants and what they come from, or the reasons it is held."""
    return next(iter(_load(conn, schema.bill.c.number == number)), None)


def bills(conn: Connection, window: Window, *, odd: bool = False) -> list[Bill]:
    """Every bill whose period starts within `window`, by number; odd: those that are held or have findings."""
    table, finding = schema.bill, schema.bill_finding.alias()
    where = (table.c.period_start >= to_epoch_s(window.start)) & (table.c.period_start < to_epoch_s(window.end))
    if odd:
        where &= or_(table.c.state == "held", table.c.key.in_(select(finding.c.bill_key)))
    return _load(conn, where)


def hold_history(conn: Connection, number: str) -> list[tuple[datetime, tuple[Hold, ...]]]:
    """When a bill was held and why, oldest first, kept after it is issued; only evaluations with new reasons."""
    return [held for found in _hold_rows(conn, schema.bill.c.number == number).values() for held in found.values()]


def tariff_spans(conn: Connection, sha: str, window: Window) -> tuple[PeriodSpan, ...]:
    """How a billing period was split into TOU periods under a stored tariff; () for a tariff without them."""
    table = schema.tariff_spans
    text = conn.scalar(
        select(table.c.spans).where(
            table.c.tariff_sha == sha,
            table.c.period_start == to_epoch_s(window.start),
            table.c.period_end == to_epoch_s(window.end),
        )
    )
    found = (line.split(" ", 2) for line in (text or "").splitlines())
    return tuple(PeriodSpan(from_epoch_s(int(start)), from_epoch_s(int(end)), name) for start, end, name in found)


def tariff_text(conn: Connection, sha: str) -> str | None:
    """The file from which bills with this `tariff_sha` were made, as it was then."""
    return conn.scalar(select(schema.tariff_version.c.text).where(schema.tariff_version.c.sha == sha))


def _load(conn: Connection, where: ColumnElement[bool]) -> list[Bill]:
    lines, determinants = _grouped(conn, schema.bill_line, where, "line"), _determinants(conn, where)
    holds, findings = _hold_rows(conn, where), _grouped(conn, schema.bill_finding, where, "position")
    found = []
    query = select(schema.bill, _reversal().label("reversed_by")).where(where).order_by(schema.bill.c.number)
    for row in conn.execute(query):
        reasons = holds[row.key]
        told = reasons[max(reasons)][1] if row.state == "held" and reasons else ()
        told = told or tuple(hold_of(finding) for finding in findings[row.key])
        found.append(bill_of(row, lines[row.key], determinants[row.key], told, row.reversed_by or ""))
    return found


def _rows(conn: Connection, table: Table, where: ColumnElement[bool], *order: str) -> Iterable[Any]:
    query = select(table).join(schema.bill, schema.bill.c.key == table.c.bill_key).where(where)
    return conn.execute(query.order_by(table.c.bill_key, *(table.c[name] for name in order)))


def _grouped(conn: Connection, table: Table, where: ColumnElement[bool], order: str) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    for row in _rows(conn, table, where, order):
        found[row.bill_key].append(row)
    return found


def _determinants(conn: Connection, where: ColumnElement[bool]) -> dict[int, list[Determinant]]:
    parents: dict[tuple[int, str], list[tuple[int, Parent]]] = defaultdict(list)
    for table, make in parent_tables():
        for row in _rows(conn, table, where, "determinant", "part"):
            parents[row.bill_key, row.determinant].append((row.part, make(row)))
    found: dict[int, list[Determinant]] = defaultdict(list)
    for row in _rows(conn, schema.bill_determinant, where, "position"):
        of_it = sorted(parents[row.bill_key, row.name], key=lambda part: part[0])
        found[row.bill_key].append(determinant_of(row, [parent for _, parent in of_it]))
    return found


def _hold_rows(conn: Connection, where: ColumnElement[bool]) -> dict[int, dict[int, tuple[datetime, tuple[Hold, ...]]]]:
    """By bill key and evaluation: when, and the reasons."""
    found: dict[int, dict[int, tuple[datetime, tuple[Hold, ...]]]] = defaultdict(dict)
    for row in _rows(conn, schema.bill_hold, where, "evaluation", "position"):
        hold = hold_of(row, review=bool(row.review))
        at, before = found[row.bill_key].get(row.evaluation, (from_epoch_s(row.evaluated_at), ()))
        found[row.bill_key][row.evaluation] = (at, (*before, hold))
    return found

"""Rows of terms.csv, supplies.csv and submeters.csv to rows of the store, every check of an import on the way. Nothing
is raised or written: problems go to the caller's list. Columns: docs/import.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from config.csvfile import CsvRow, moment, number
from config.import_rows import Held, known_name, span_of
from config.problems import nearest, shown
from config.site import Site
from config.spans import Span, overlaps
from headend import civil
from headend.errors import Problem
from headend.store.loss_tables import table_faults
from headend.store.registry import AccountRow
from headend.store.terms import METHODS, AccountTerm, SubmeterRow, SupplyRow, circles, submeter_faults, supply_faults

__all__ = [
    "SUBMETER_COLUMNS",
    "SUBMETER_OPTIONS",
    "SUPPLY_COLUMNS",
    "SUPPLY_OPTIONS",
    "TERM_COLUMNS",
    "TERM_OPTIONS",
    "submeter_rows",
    "supply_rows",
    "term_rows",
]

TERM_COLUMNS: Final = ("account", "since")
TERM_OPTIONS: Final = ("tariff", "contract_kw", "capacity_kva", "people")
SUPPLY_COLUMNS: Final = (
    "usage_point",
    "since",
    "rated_kva",
    "no_load_kw",
    "load_kw",
    "no_load_percent",
    "impedance_percent",
)
SUPPLY_OPTIONS: Final = ("until", "load_factor", "share", "line_percent", "table")
SUBMETER_COLUMNS: Final = ("usage_point", "parent", "since", "method", "amount")
SUBMETER_OPTIONS: Final = ("until",)

_PEOPLE_MOST: Final = 10_000
_HUNDRED: Final = Decimal(100)

_Lines = dict[tuple[str, datetime], CsvRow]


def _once(lines: _Lines, row: CsvRow, name: str, since: datetime, problems: list[Problem]) -> bool:
    """Whether this name and start stand in no earlier row of the file."""
    first = lines.setdefault((name, since), row)
    if first is not row:
        what = f"{shown(name)} has a row with this start already, line {first.line}"
        problems.append(Problem(row.where("since"), what, "remove one of the two rows"))
    return first is row


# Terms


def term_rows(
    rows: list[CsvRow],
    site: Site,
    tariffs: Mapping[str, str],
    accounts: Mapping[str, AccountRow | None] | None,
    held: Held,
    problems: list[Problem],
) -> list[AccountTerm]:
    """The terms of terms.csv.

    tariffs: the zone of each by its name. accounts: those there are, None for one whose row has problems of its own;
    None: which there are can't be told.
    """
    lines: _Lines = {}
    found: list[tuple[CsvRow, AccountTerm]] = []
    for row in rows:
        account = known_name(row, "account", "account", accounts, problems, "import the accounts first")
        since = moment(row, "since", site.zone, problems)
        before = len(problems)
        tariff = None
        if row.cells.get("tariff"):
            tariff = known_name(
                row, "tariff", "tariff", tariffs, problems, "add a tariff file to the site's tariffs folder"
            )
        contract = _amount(row, "contract_kw", problems)
        capacity = _amount(row, "capacity_kva", problems)
        people = _people(row, problems)
        if not any(row.cells.get(column) for column in TERM_OPTIONS):
            what = "nothing changes by this row"
            problems.append(Problem(f"{row.file}:{row.line}", what, f"fill in one of {', '.join(TERM_OPTIONS)}"))
        if account and since and _once(lines, row, account, since, problems) and len(problems) == before:
            found.append((row, AccountTerm(account, since, tariff, contract, capacity, people)))
    terms = [term for _, term in found]
    named = {(term.account, term.since) for term in terms}
    all_terms = _by_account([*terms, *(old for old in held.terms if (old.account, old.since) not in named)])
    for row, term in found:
        owner = (accounts or {}).get(term.account)
        problems += _when(row, term, owner, _zone(term, owner, all_terms, tariffs, site.zone))
    return terms


def _amount(row: CsvRow, column: str, problems: list[Problem]) -> Decimal | None:
    return number(row, column, problems, above=Decimal(0)) if row.cells.get(column) else None


def _people(row: CsvRow, problems: list[Problem]) -> int | None:
    text = row.cells.get("people", "")
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= len(str(_PEOPLE_MOST)) and 0 < int(text) <= _PEOPLE_MOST:
        return int(text)
    what = f"{shown(text)} is no number of people from 1 to {_PEOPLE_MOST}"
    problems.append(Problem(row.where("people"), what, "write a whole number, or leave it empty"))
    return None


def _by_account(terms: Iterable[AccountTerm]) -> dict[str, list[AccountTerm]]:
    found: dict[str, list[AccountTerm]] = {}
    for term in sorted(terms, key=lambda term: term.since):
        found.setdefault(term.account, []).append(term)
    return found


def _zone(
    term: AccountTerm,
    owner: AccountRow | None,
    terms: Mapping[str, list[AccountTerm]],
    tariffs: Mapping[str, str],
    default: str,
) -> str:
    """Zone of the tariff the account has from the start of `term` on."""
    named = [t.tariff for t in terms[term.account] if t.tariff is not None and t.since <= term.since]
    name = named[-1] if named else owner.tariff if owner else ""
    return tariffs.get(name, default)


def _when(row: CsvRow, term: AccountTerm, owner: AccountRow | None, zone_name: str) -> Iterator[Problem]:
    """Terms that start within a day, or when the account is over."""
    tz = civil.zone(zone_name)
    local = term.since.astimezone(tz)
    at_first = owner is not None and owner.since == term.since
    if civil.day_start(local.date(), tz) != term.since and not at_first:
        what = (
            f"{local:%Y-%m-%d %H:%M:%S} is within a day of {zone_name}; terms start at midnight of their tariff's zone"
        )
        near = civil.day_start(local.date() + timedelta(days=1), tz).astimezone(tz).isoformat()
        yield Problem(row.where("since"), what, f"write {near} for the next one")
    if owner is not None and owner.until is not None and term.since >= owner.until:
        ended = owner.until.astimezone(tz).isoformat()
        what = f"the account {owner.id} has ended by then, {ended}"
        yield Problem(row.where("since"), what, "correct since, or the account's until")


# Supplies

_DEFAULTS: Final = {"load_factor": Decimal(1), "share": Decimal(1), "line_percent": Decimal(0)}
_BY_TABLE: Final = dict.fromkeys(("no_load_kw", "load_kw", "no_load_percent", "impedance_percent"), Decimal(0))
"""What may be left empty; the second where a table tells the loss."""


def supply_rows(
    rows: list[CsvRow],
    site: Site,
    known_points: Collection[str] | None,
    held: Held,
    problems: list[Problem],
    largest_kva: Mapping[str, Decimal] | None = None,
) -> list[SupplyRow]:
    """The transformers and lines of supplies.csv. largest_kva: what each loss table reaches to; None: can't be told."""
    lines: _Lines = {}
    found: list[tuple[CsvRow, SupplyRow]] = []
    for row in rows:
        table = row.cells.get("table", "")
        defaults = _DEFAULTS | (_BY_TABLE if table else {})
        before = len(problems)
        point = known_name(row, "usage_point", "usage point", known_points, problems, "import the usage points first")
        since, until, whole = span_of(row, "since", "until", site, problems)
        numbers = {
            name: defaults[name] if name in defaults and not row.cells.get(name) else number(row, name, problems)
            for name in (*SUPPLY_COLUMNS[2:], *_DEFAULTS)
        }
        values: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
        if point is None or since is None or not whole or len(values) < len(numbers):
            continue
        supply = SupplyRow(point, since, until, **values, table=table)
        faults = supply_faults(supply)
        if table and largest_kva is not None and (fault := table_faults(table, supply.rated_kva, largest_kva)):
            faults.append(fault)
        problems += [Problem(row.where(field), what, remedy) for field, what, remedy in faults]
        if _once(lines, row, point, since, problems) and len(problems) == before:
            found.append((row, supply))
    spans = [Span(new.usage_point, new.since, new.until, "", row) for row, new in found]
    spans += [
        Span(old.usage_point, old.since, old.until, "", None)
        for old in held.supplies
        if (old.usage_point, old.since) not in lines
    ]
    for row, other in overlaps(spans):
        what = f"the usage point {other.key} has another transformer or line at the same time, by {other.place}"
        problems.append(Problem(row.where("since"), what, "end the earlier one with until"))
    return [supply for _, supply in found]


# Sub-meters


def submeter_rows(
    rows: list[CsvRow], site: Site, known_points: Collection[str] | None, held: Held, problems: list[Problem]
) -> list[SubmeterRow]:
    """The usage points behind others of submeters.csv."""
    lines: _Lines = {}
    found: list[tuple[CsvRow, SubmeterRow]] = []
    for row in rows:
        before = len(problems)
        point = known_name(row, "usage_point", "usage point", known_points, problems, "import the usage points first")
        parent = known_name(row, "parent", "usage point", known_points, problems, "import the usage points first")
        since, until, whole = span_of(row, "since", "until", site, problems)
        method = row.cells["method"]
        if method not in METHODS:
            what = f"there is no method {shown(method)}"
            problems.append(Problem(row.where("method"), what, nearest(method, METHODS)))
        amount = number(row, "amount", problems) if row.cells["amount"] else Decimal(0)
        if point is not None and point == parent:
            what = f"the usage point {shown(point)} stands behind itself"
            problems.append(Problem(row.where("parent"), what, "name the usage point whose meter comes before it"))
        if point is None or parent is None or since is None or not whole or amount is None or len(problems) > before:
            continue
        submeter = SubmeterRow(point, parent, since, until, method, amount)
        problems += [Problem(row.where(field), what, remedy) for field, what, remedy in submeter_faults(submeter)]
        if _once(lines, row, point, since, problems) and len(problems) == before:
            found.append((row, submeter))
    old = [row for row in held.submeters if (row.usage_point, row.since) not in lines]
    problems += _two_parents(found, old)
    problems += _circles(found, old)
    problems += _ratios(found, old)
    return [submeter for _, submeter in found]


_Found = list[tuple[CsvRow, SubmeterRow]]


def _two_parents(found: _Found, held: list[SubmeterRow]) -> Iterator[Problem]:
    spans = [Span(new.usage_point, new.since, new.until, new.parent, row) for row, new in found]
    spans += [Span(old.usage_point, old.since, old.until, old.parent, None) for old in held]
    for row, other in overlaps(spans):
        what = f"the usage point {other.key} stands behind {other.label} at the same time, by {other.place}"
        yield Problem(row.where("since"), what, "end the earlier row with until")


def _circles(found: _Found, held: list[SubmeterRow]) -> Iterator[Problem]:
    """Points that stand behind themselves, told at the row of the file that closes the circle."""
    rows = {(new.usage_point, new.since): row for row, new in found}
    told: set[frozenset[str]] = set()
    for submeter, path in circles([*(new for _, new in found), *held]):
        row = rows.get((submeter.usage_point, submeter.since))
        row = row or next((r for r, new in found if new.usage_point in path), None)
        if row is not None and frozenset(path) not in told:
            told.add(frozenset(path))
            yield Problem(row.where("parent"), f"a circle: {' behind '.join(path)}", "correct the parents")


def _ratios(found: _Found, held: list[SubmeterRow]) -> Iterator[Problem]:
    """Ratios behind one meter that come to more than 100 percent at the start of a row."""
    behind: dict[str, list[SubmeterRow]] = {}
    for old in (*(new for _, new in found), *held):
        if old.method == "ratio":
            behind.setdefault(old.parent, []).append(old)
    for row, new in found:
        if new.method != "ratio":
            continue
        then = [o for o in behind[new.parent] if o.since <= new.since and (o.until is None or new.since < o.until)]
        if (percent := sum(other.amount for other in then)) > _HUNDRED:
            what = f"the ratios behind {new.parent} come to {percent} percent then"
            yield Problem(row.where("amount"), what, "correct the amounts: together at most 100")

"""headend bill pdf, headend bill export, headend account statement: documents to send and to keep."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import click
from rich.progress import Progress
from sqlalchemy import Connection

from billing import ledger
from billing import store as bill_store
from billing.calendar import billing_month
from billing.charges import Tariff
from billing.documents import spreadsheet
from billing.documents.bill_pdf import bill_pdf
from billing.documents.content import bill_content, content_of, posted
from billing.documents.plain import bill_data
from billing.documents.statement import extract, statement_csv, statement_json, statement_pdf
from billing.documents.words import LANGUAGES
from billing.model import Bill
from config.site import Site
from config.tariff_files import tariff_from_text
from headend.app import now_utc
from headend.cli.common import instant, month_of, opened, out, site_option
from headend.errors import HeadendError, UsageError
from headend.store import registry

__all__ = ["export", "pdf", "statement"]

FORMATS = ("pdf", "json", "csv")

_language = click.option(
    "--language", type=click.Choice(LANGUAGES), default="both", show_default=True, help="Of the document's own words."
)
_due_days = click.option(
    "--due-days", type=click.IntRange(0, 366), default=None, help="Say that it is due so many days after it was issued."
)


@lru_cache(maxsize=64)
def _tariff(text: str) -> Tariff | None:
    """The tariff a stored text is; None for one this version can't read any more: its picture is then left out."""
    try:
        return tariff_from_text(text)
    except HeadendError:
        return None


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        what = f"can't write {path}: {error.strerror or error}"
        raise UsageError(what, remedy="name a file in a folder that exists and may be written") from error


def _file_name(name: str) -> str:
    """A number as the name of a file; what a file system would not take is replaced, and a hash keeps names apart."""
    safe = re.sub(r"[^\w.-]", "_", name)
    if safe == name and not name.startswith("."):
        return name
    return f"{safe.lstrip('.')}-{sha256(name.encode()).hexdigest()[:8]}"


@click.command()
@site_option
@click.argument("number")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: NUMBER.pdf]")
@_language
@_due_days
def pdf(site: Site, number: str, output: Path | None, language: str, due_days: int | None) -> None:
    """Write a bill as a PDF.

    The same bill gives the same file. A held bill has none; a bill that was reversed says so.
    """
    with opened(site) as store, store.read() as conn:
        content = bill_content(conn, number, site.name, _tariff, due_days)
    path = output or Path(f"{_file_name(number)}.pdf")
    _write(path, bill_pdf(content, language))
    out.print(f"wrote {path}", markup=False)


def _formats(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    if not chosen or (wrong := [part for part in chosen if part not in FORMATS]):
        raise UsageError(f"unknown format {', '.join(wrong) if chosen else value!r}", remedy="use pdf, json or csv")
    return chosen


@dataclass(slots=True)
class _Export:
    """Where documents go, and what was written."""

    folder: Path
    formats: Sequence[str]
    site: Site
    language: str
    due_days: int | None
    held: int = 0
    documents: int = 0
    rows: list[tuple[object, ...]] = field(default_factory=list)
    lines: list[tuple[object, ...]] = field(default_factory=list)

    def add(self, conn: Connection, bill: Bill, customer: str, invoice: str, reversed_by: str) -> None:
        """One bill in every format; a held one has no PDF."""
        name = _file_name(bill.number)
        self.held += bill.state == "held"
        if "pdf" in self.formats and bill.state != "held":
            content = content_of(conn, bill, self.site.name, _tariff, self.due_days)
            _write(self.folder / f"{name}.pdf", bill_pdf(content, self.language))
            self.documents += 1
        if "json" in self.formats:
            data = bill_data(bill, customer=customer, invoice=invoice, reversed_by=reversed_by)
            text = json.dumps(data, ensure_ascii=False, indent=1)
            _write(self.folder / f"{name}.json", f"{text}\n".encode())
            self.documents += 1
        if "csv" in self.formats:
            self.rows.append(spreadsheet.bill_row(bill, customer, invoice, reversed_by))
            self.lines += spreadsheet.line_rows(bill)

    def finish(self, bom: bool) -> None:
        """The tables, once every bill is in them."""
        if "csv" in self.formats:
            for name, head, rows in (
                ("bills.csv", spreadsheet.BILL_HEAD, self.rows),
                ("lines.csv", spreadsheet.LINE_HEAD, self.lines),
            ):
                _write(self.folder / name, spreadsheet.csv_text(head, rows, bom=bom).encode())
                self.documents += 1


@click.command()
@site_option
@click.argument("month", metavar="YYYY-MM")
@click.option(
    "-o", "--output", "folder", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder."
)
@click.option(
    "--format",
    "formats",
    default="pdf",
    show_default=True,
    callback=_formats,
    help="pdf, json, csv; several with commas.",
)
@click.option("--bom", is_flag=True, help="Begin CSV files with the mark some spreadsheets know UTF-8 by.")
@_language
@_due_days
def export(
    site: Site, month: str, folder: Path, formats: tuple[str, ...], bom: bool, language: str, due_days: int | None
) -> None:
    """Write the bills of a month into a folder.

    PDF and JSON: a file for each bill. CSV: bills.csv, a row a bill, and lines.csv, a row a line. JSON holds all there
    is of a bill, down to the values of the meters. A held bill has no PDF; JSON and CSV name it as held.
    """
    year, number = month_of(month)
    with opened(site) as store, store.read() as conn, Progress(console=out, transient=True) as bar:
        bills = bill_store.bills(conn, billing_month(year, number, site.zone))
        if not bills:
            raise UsageError(f"there are no bills of {month}", remedy=f"`headend bill close {month}` makes them")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"can't make folder {folder}: {error.strerror or error}", remedy="name another") from error
        customers = {row.id: row.customer for row in registry.accounts(conn)}
        entries = posted(conn, [bill.number for bill in bills])
        made = _Export(folder, formats, site, language, due_days)
        for bill in bar.track(bills, description="documents"):
            made.add(conn, bill, customers.get(bill.account, ""), *entries.get(bill.number, ("", "")))
        made.finish(bom)
    held = f"; {made.held} held, without a PDF" if made.held and "pdf" in formats else ""
    out.print(f"wrote {made.documents} files of {len(bills)} bills to {folder}{held}", markup=False)


@click.command()
@site_option
@click.argument("account_id", metavar="ACCOUNT")
@click.option("--from", "start", default=None, metavar="TIME", help="[default: the first entry]")
@click.option("--to", "end", default=None, metavar="TIME", help="Not included. [default: the last entry]")
@click.option("--format", "kind", type=click.Choice(FORMATS), default="pdf", show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: statement-ACCOUNT.FORMAT]"
)
@click.option("--bom", is_flag=True, help="Begin a CSV file with the mark some spreadsheets know UTF-8 by.")
@_language
def statement(
    site: Site,
    account_id: str,
    start: str | None,
    end: str | None,
    kind: str,
    output: Path | None,
    bom: bool,
    language: str,
) -> None:
    """Write the statement of an account: the balance before, each bill, payment and reversal, the balance after."""
    first = instant(start, site.zone) if start else None
    last = instant(end, site.zone) if end else None
    if first is not None and last is not None and last <= first:
        raise UsageError("the span ends before it starts", remedy="give --from an earlier time than --to")
    with opened(site) as store:
        ledger.post_missing(store, now_utc())
        with store.read() as conn:
            ledger.check_account(conn, account_id)
            row = registry.account(conn, account_id)
            found = extract(ledger.statement(conn, account_id), row.customer if row else "", first, last)
    if kind == "pdf":
        data = statement_pdf(found, site.name, site.zone, language)
    elif kind == "csv":
        data = statement_csv(found, site.zone, bom=bom).encode()
    else:
        data = f"{json.dumps(statement_json(found), ensure_ascii=False, indent=1)}\n".encode()
    path = output or Path(f"statement-{_file_name(account_id)}.{kind}")
    _write(path, data)
    out.print(f"wrote {path}", markup=False)

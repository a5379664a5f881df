"""headend bill pdf, headend bill export, headend account statement: documents to send and to keep."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import click
from rich.progress import Progress

from billing import ledger
from billing.calendar import billing_month
from billing.charges import Tariff
from billing.documents.bill_pdf import bill_pdf
from billing.documents.content import bill_content
from billing.documents.month import Wanted, file_name, numbers_of, write_file, write_month
from billing.documents.statement import extract, statement_csv, statement_json, statement_pdf
from billing.documents.words import LANGUAGES
from billing.run import pool
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
    path = output or Path(f"{file_name(number)}.pdf")
    write_file(path, bill_pdf(content, language))
    out.print(f"wrote {path}", markup=False)


def _formats(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    if not chosen or (wrong := [part for part in chosen if part not in FORMATS]):
        raise UsageError(f"unknown format {', '.join(wrong) if chosen else value!r}", remedy="use pdf, json or csv")
    return chosen


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
@click.option(
    "--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="Share the bills out among them."
)
@_language
@_due_days
def export(
    site: Site,
    month: str,
    folder: Path,
    formats: tuple[str, ...],
    bom: bool,
    processes: int,
    language: str,
    due_days: int | None,
) -> None:
    """Write the bills of a month into a folder.

    PDF and JSON: a file for each bill. CSV: bills.csv, a row a bill, and lines.csv, a row a line. JSON holds all there
    is of a bill, down to the values of the meters. A held bill has no PDF; JSON and CSV name it as held.
    """
    year, number = month_of(month)
    with opened(site) as store:
        with store.read() as conn:
            numbers = numbers_of(conn, billing_month(year, number, site.zone))
        if not numbers:
            raise UsageError(f"there are no bills of {month}", remedy=f"`headend bill close {month}` makes them")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"can't make folder {folder}: {error.strerror or error}", remedy="name another") from error
        wanted = Wanted(folder, formats, site.name, language, _tariff, due_days)
        with Progress(console=out, transient=True) as bar, pool(processes) as executor:
            task = bar.add_task("documents", total=len(numbers))
            made = write_month(
                store,
                numbers,
                wanted,
                executor=executor,
                bom=bom,
                progress=lambda done: bar.update(task, completed=done),
            )
    held = f"; {made.held} held, without a PDF" if made.held and "pdf" in formats else ""
    out.print(f"wrote {made.files} files of {made.bills} bills to {folder}{held}", markup=False)


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
    path = output or Path(f"statement-{file_name(account_id)}.{kind}")
    write_file(path, data)
    out.print(f"wrote {path}", markup=False)

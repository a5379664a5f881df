"""headend bill review, release, preview, runs: what is odd, who let it pass, what is to come, what was closed."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from billing import ledger
from billing import store as bill_store
from billing.calendar import billing_month
from billing.cycles import Cycle, next_due, unknown_groups
from billing.documents.bill_pdf import bill_pdf
from billing.documents.content import content_of
from billing.documents.words import LANGUAGES
from billing.model import Bill, Hold
from billing.preview import Preview
from billing.preview import preview as preview_of
from billing.release import code_of, released_else
from billing.release import release as release_bill
from billing.review import weight
from billing.run import Book
from billing.run_log import Run, last_runs
from billing.run_log import runs as runs_of
from config.site import Site
from headend.app import now_utc
from headend.civil import zone
from headend.cli.bill import bill_as_json, finding_as_json, fit, print_bill
from headend.cli.common import local, month_of, opened, out, site_option, tariffs_of, user
from headend.errors import UsageError
from headend.store import Store, registry

__all__ = ["cycle_lines", "preview", "release", "review", "runs"]


@click.command(short_help="List what is held or odd, the gravest first.")
@site_option
@click.argument("month", metavar="YYYY-MM")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def review(site: Site, month: str, as_json: bool) -> None:
    """List the bills of a month that are held or odd, the gravest first.

    missing: held for want of data, to be mended. hold: odd, held until a person mends it or releases the bill (`headend
    bill release`). warn: odd, and issued all the same.
    """
    year, number = month_of(month)
    with opened(site) as store, store.read() as conn:
        found = bill_store.bills(conn, billing_month(year, number, site.zone), odd=True)
        released = bill_store.released_codes(conn, [item.number for item in found if item.state == "held"])
    found.sort(key=_rank)
    if as_json:
        plain = [_as_json(item, released.get(item.number, ())) for item in found]
        click.echo(json.dumps(plain, ensure_ascii=False, indent=1))
        return
    if not found:
        out.print(f"no bill of {month} is held or odd")
        return
    table = Table("bill", "account", "level", "code", "what", "what to do")
    fit(table, whole=(0,))
    for item in found:
        for position, hold in enumerate(sorted(item.holds, key=weight)):
            level = "warn" if item.state == "issued" else "hold" if hold.review else "missing"
            place = ("", "") if position else (item.number, item.account)
            what = f"{hold.meter}: {hold.what}" if hold.meter else hold.what
            for other in _released_else(item, hold, released.get(item.number, ())):
                what += f"; it was released for something else: {other}"
            table.add_row(*map(escape, (*place, level, hold.code, what, hold.remedy)))
    out.print(table)
    held = [item for item in found if item.state == "held"]
    waiting = sum(1 for item in held if all(hold.review for hold in item.holds))
    out.print(f"{len(held)} held, {waiting} of them wait for a person alone; {len(found) - len(held)} issued are odd")


def _rank(item: Bill) -> tuple[int, tuple[int, int, int], str]:
    """Held for being odd, then held for want of data, then issued; each by its gravest finding."""
    order = 2 if item.state == "issued" else 0 if any(hold.review for hold in item.holds) else 1
    return order, min(map(weight, item.holds)), item.number


def _released_else(item: Bill, hold: Hold, released: Collection[str]) -> list[str]:
    """What a held bill was released for before, in place of this finding."""
    return sorted(released_else(released, hold)) if item.state == "held" and hold.review else []


def _as_json(item: Bill, released: Collection[str]) -> dict[str, Any]:
    found = [
        finding_as_json(hold) | {"released_else": _released_else(item, hold, released)}
        for hold in sorted(item.holds, key=weight)
    ]
    return {"number": item.number, "account": item.account, "state": item.state, "findings": found}


@click.command(short_help="Let a bill pass that is held for being odd.")
@site_option
@click.argument("number", metavar="BILL")
@click.option("--reason", required=True, metavar="TEXT", help="Why it is right as it is; kept with the bill.")
@click.option("--by", default=None, metavar="NAME", help="Who decides. [default: the user of this command]")
def release(site: Site, number: str, reason: str, by: str | None) -> None:
    """Let a bill pass that is held for being odd.

    It counts for what is odd about the bill now and nothing else: the bill is held again if that changes before the
    next close, which issues it. A bill that lacks data can't be released.
    """
    with opened(site) as store, store.write() as conn:
        made, others = release_bill(conn, number, reason, by or user(), now_utc())
    codes = ", ".join(dict.fromkeys(map(code_of, made.codes)))
    ends = "it is held until that is mended" if others else "the next close issues it"
    out.print(f"{number} is released for {codes}; {ends}", markup=False)
    for hold in others:
        out.print(f"  still held: {hold}", markup=False)


@click.command(short_help="Draft an account's bill of the running month.")
@site_option
@click.argument("account")
@click.option("--month", default=None, metavar="YYYY-MM", help="Of this month. [default: the running one]")
@click.option("--until", default=None, metavar="YYYY-MM-DD", help="First day not in it. [default: as far as there is]")
@click.option(
    "--pdf", type=click.Path(path_type=Path, dir_okay=False), help="Write it as a PDF too, marked as a draft."
)
@click.option(
    "--language", type=click.Choice(LANGUAGES), default="both", show_default=True, help="Of the PDF's own words."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def preview(
    site: Site, account: str, month: str | None, until: str | None, pdf: Path | None, language: str, as_json: bool
) -> None:
    """Draft an account's bill of the running month from what is there. Nothing is stored.

    Energy up to the last midnight for which all is there; amounts for a month in full.
    """
    now = now_utc()
    local_now = now.astimezone(zone(site.zone))
    year, number = month_of(month) if month else (local_now.year, local_now.month)
    tariffs = tariffs_of(site)
    with opened(site) as store, store.read() as conn:
        ledger.check_account(conn, account)
        row = registry.account(conn, account)
        if row is None:
            raise UsageError(f"account {account} is in the ledger only", remedy="`headend import` adds accounts")
        book = Book.read(conn, tariffs, site.billing.rules)
        made = preview_of(conn, book, row, year, number, now=now, until=_day(until))
        if pdf is not None:
            own = {tariff.text: tariff for tariff in tariffs}
            document = bill_pdf(content_of(conn, made.bill, site.name, own.get), language)
            _write(pdf, document)
    if as_json:
        click.echo(json.dumps(_preview_as_json(made), ensure_ascii=False, indent=1))
        return
    if made.bill.state == "draft":
        out.print("[yellow]DRAFT[/yellow] of a bill, not issued")
    print_bill(made.bill)
    if made.counts:
        rests = ", ".join(f"{count} {quality.name.lower()}" for quality, count in made.counts)
        out.print(f"rests on values: {rests}")
    if pdf is not None:
        out.print(f"wrote {pdf}", markup=False)


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        what = f"can't write {path}: {error.strerror or error}"
        raise UsageError(what, remedy="name a file in a folder that exists and may be written") from error


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise UsageError(f"{text!r} is no day", remedy="write it like 2026-10-05") from error


def _preview_as_json(made: Preview) -> dict[str, Any]:
    rests = {quality.name.lower(): count for quality, count in made.counts}
    determinants = {one.name: f"{one.value:f}" for one in made.bill.determinants}
    return bill_as_json(made.bill) | {"determinants": determinants, "rests_on": rests}


@click.command()
@site_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def runs(site: Site, as_json: bool) -> None:
    """List the runs of billing, the newest first."""
    with opened(site) as store, store.read() as conn:
        found = runs_of(conn)
    if as_json:
        click.echo(json.dumps([_run_as_json(run) for run in found], indent=1))
        return
    if not found:
        out.print("no month was closed yet; `headend bill close YYYY-MM` closes one")
        return
    table = Table("started", "month", "cycle", "asked by", "issued", "held", "before", "ended")
    fit(table, whole=(1, 4, 5, 6), numbers=(4, 5, 6))
    for run in found:
        ended = local(run.ended_at, site.zone) if run.ended_at else "not completed"
        numbers = (str(run.issued), str(run.held), str(run.already))
        month = f"{run.year:04d}-{run.month:02d}"
        detail = f"{ended}, {run.detail}" if run.detail else ended
        table.add_row(
            local(run.started_at, site.zone), month, run.cycle, escape(run.asked_by), *numbers, escape(detail)
        )
    out.print(table)


def _run_as_json(run: Run) -> dict[str, Any]:
    return {
        "cycle": run.cycle,
        "month": f"{run.year:04d}-{run.month:02d}",
        "asked_by": run.asked_by,
        "started_at": run.started_at.isoformat(),
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
        "issued": run.issued,
        "held": run.held,
        "already": run.already,
        "detail": run.detail,
    }


def cycle_lines(site: Site, store: Store, now: datetime) -> list[str]:
    """A line for each billing cycle of the site: what its last run came to, and when the next month is due."""
    cycles: Sequence[Cycle] = site.billing.cycles
    if not cycles:
        return []
    with store.read() as conn:
        last = last_runs(conn, [cycle.name for cycle in cycles])
        unknown = unknown_groups(conn, cycles)
    lines = []
    for cycle in cycles:
        due = local(next_due(cycle, now, site.zone), site.zone)
        own = [run for run in last.values() if run.cycle == cycle.name]
        text = f"billing cycle {cycle.name}: {_last_text(max(own, key=lambda run: run.key), site)}" if own else ""
        lines.append(f"{text or f'billing cycle {cycle.name}: no run yet'}; next on {due}")
    return lines + [f"billing cycle {name} is in accounts, but not in {site.path.name}" for name in unknown]


def _last_text(run: Run, site: Site) -> str:
    month = f"{run.year:04d}-{run.month:02d}"
    if run.ended_at is None:
        return f"{month} was begun {local(run.started_at, site.zone)} and is not completed"
    text = f"{month} closed {local(run.ended_at, site.zone)}, {run.issued} issued, {run.held} held"
    return f"{text}, {run.detail}" if run.detail else text

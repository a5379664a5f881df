"""headend bill: close a month, list and show bills. headend explain: from a bill back to the bytes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import click
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.tree import Tree

from billing import store as bill_store
from billing.calendar import billing_month
from billing.cycles import groups_of
from billing.explain import Node
from billing.explain import explain as explain_bill
from billing.listing import Listed, listed
from billing.model import Bill, Hold
from billing.release import code_of, told
from billing.run import CloseReport, close_period, pool
from billing.store import Release
from config.site import Site
from headend.app import now_utc
from headend.civil import zone
from headend.cli.common import local, month_of, opened, out, site_option, tariffs_of, user
from headend.cli.decode import explanation_text
from headend.errors import UsageError
from headend.protocols import PROTOCOLS

__all__ = ["bill", "bill_as_json", "cycle_groups", "explain", "finding_as_json", "fit", "print_bill", "print_close"]


_WIDE = 100
"""Columns of a screen from which on a list of bills names account and tariff too."""
_MOST_TOLD = 20
"""So many held bills a close tells one by one; of more it tells how many are held for which reason."""


@click.group()
def bill() -> None:
    """Close billing periods and look at bills.

    \b
    headend bill close 2026-10           bill every account for October
    headend bill list 2026-10            what came of it
    headend bill review 2026-10          what is held or odd, and what to do
    headend bill show A1-2026-10         one bill with its lines
    """


@bill.command(short_help="Bill every account for a month that has ended.")
@site_option
@click.argument("month", metavar="YYYY-MM")
@click.option("--account", "accounts", multiple=True, help="Only this account; may be given again.")
@click.option("--cycle", default=None, metavar="NAME", help="Only the accounts of this billing cycle of site.toml.")
@click.option(
    "--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="Share the accounts out among them."
)
def close(site: Site, month: str, accounts: tuple[str, ...], cycle: str | None, processes: int) -> None:
    """Bill every account for a month that has ended.

    Closing again changes no bill that was issued; bills that were held are looked at again. A bill whose reads are
    missing or suspect is held, with the reason, and never guessed; one that is odd is held until it is released.
    """
    year, number = month_of(month)
    groups = cycle_groups(site, cycle)
    tariffs = tariffs_of(site)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = Progress(*columns, console=out, transient=True, disable=not out.is_terminal)
    with opened(site) as store, shown as bar, pool(processes) as executor:
        task = bar.add_task(f"billing {month}", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        report = close_period(
            store,
            tariffs,
            year,
            number,
            accounts or None,
            now=now_utc(),
            clock=now_utc,
            progress=progress,
            rules=site.billing.rules,
            groups=groups,
            cycle=cycle or "",
            asked_by=user(),
            executor=executor,
        )
    print_close(report, month)


def cycle_groups(site: Site, cycle: str | None) -> tuple[str, ...] | None:
    """The groups of accounts that belong to a cycle of the site; None: all accounts."""
    if cycle is None:
        return None
    known = {one.name: one for one in site.billing.cycles}
    if cycle not in known:
        remedy = f"known: {', '.join(known)}" if known else "write a [[billing.cycle]] in site.toml"
        raise UsageError(f"there is no billing cycle {cycle!r}", remedy=remedy)
    return groups_of(site.billing.cycles, known[cycle])


def print_close(report: CloseReport, month: str) -> None:
    """What a close of `month` did: bills that are held with their reasons, or of many how many for which reason."""
    out.print(f"{len(report.issued)} issued, {len(report.held)} held, {len(report.already)} issued before")
    if not (report.issued or report.held or report.already):
        out.print(f"none of the accounts asked for is in force in {month}")
    if len(report.held) > _MOST_TOLD:
        out.print(_held_table(report))
        out.print(f"`headend bill review {month}` lists each of them with what to do")
        return
    for number, holds in report.held:
        out.print("[yellow]held[/yellow] ", end="")
        out.print(number, markup=False)
        for hold in holds:
            out.print(f"  {hold}", markup=False)
    if any(hold.review for _, holds in report.held for hold in holds):
        out.print(f"`headend bill review {month}` ranks what is odd; `headend bill release NUMBER` lets a bill pass")


def _held_table(report: CloseReport) -> Table:
    """How many bills are held for which reason, the most frequent first; a bill may be held for several."""
    bills: Counter[str] = Counter()
    examples: dict[str, tuple[str, str]] = {}
    for number, holds in report.held:
        for code in dict.fromkeys(hold.code for hold in holds):
            bills[code] += 1
        for hold in holds:
            examples.setdefault(hold.code, (f"{number}: {hold}", "odd" if hold.review else "missing"))
    table = Table("held for", "kind", "bills", "for example")
    fit(table, whole=(0, 2), numbers=(2,))
    for code, count in sorted(bills.items(), key=lambda item: (-item[1], item[0])):
        example, kind = examples[code]
        table.add_row(code, kind, str(count), escape(example))
    return table


@bill.command(name="list", short_help="List the bills of a month with their totals.")
@site_option
@click.argument("month", metavar="YYYY-MM")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def list_(site: Site, month: str, as_json: bool) -> None:
    """List the bills of a month with their totals, held ones with their reasons."""
    year, number = month_of(month)
    window = billing_month(year, number, site.zone)
    with opened(site) as store, store.read() as conn:
        if as_json:
            whole = bill_store.bills(conn, window)
            invoices = bill_store.invoices(conn, [item.number for item in whole])
            plain = [bill_as_json(item, invoices.get(item.number, "")) for item in whole]
            click.echo(json.dumps(plain, ensure_ascii=False, indent=1))
            return
        found = listed(conn, window)
    if not found:
        out.print(f"there are no bills of {month}; `headend bill close {month}` makes them")
        return
    out.print(_bill_table(found))
    states = Counter("reversed" if item.reversed_by else item.state for item in found)
    out.print(", ".join(f"{count} {state}" for state, count in sorted(states.items())))


def _bill_table(bills: Sequence[Listed]) -> Table:
    """On a narrow screen without account and tariff: a bill's number begins with its account."""
    wide = out.width >= _WIDE
    names = ("account", "tariff") if wide else ()
    table = Table("bill", *names, "state", "kWh", "total", "odd", "why held")
    first = 2 + len(names)
    fit(table, whole=(first, first + 1), numbers=(first, first + 1, first + 2))
    for item in bills:
        issued = item.state == "issued"
        held = "" if issued else "; ".join(hold.what for hold in item.holds[:2])
        held += f" (+{len(item.holds) - 2})" if len(item.holds) > 2 and not issued else ""
        total = f"{item.total} {item.currency}" if issued else ""
        odd = sum(1 for hold in item.holds if issued or hold.review)
        state = f"reversed by {item.reversed_by}" if item.reversed_by else item.state
        state += f", replaces {item.replaces}" if item.replaces else ""
        words = (escape(word) for word in (item.number, *((item.account, item.tariff) if wide else ()), state))
        table.add_row(*words, _number(item.energy), total, str(odd or ""), escape(held))
    return table


def fit(table: Table, whole: Sequence[int] = (), numbers: Sequence[int] = ()) -> None:
    """Make a table lose nothing on a narrow screen. whole: columns that are not broken over lines, as amounts; others
    are broken where they must. numbers: columns whose digits stand under each other."""
    for index, column in enumerate(table.columns):
        column.overflow = "fold"
        column.no_wrap = index in whole
        if index in numbers:
            column.justify = "right"


def _number(value: Decimal | None) -> str:
    return "" if value is None else f"{value:.2f}"


@bill.command(short_help="Show one bill with its lines.")
@site_option
@click.argument("number", metavar="BILL")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def show(site: Site, number: str, as_json: bool) -> None:
    """Show one bill with its lines, who released it and why, or why it is held.

    BILL is its number, like A1-2026-10; `headend bill list` names them.
    """
    with opened(site) as store, store.read() as conn:
        found = bill_store.bill(conn, number)
        invoice = bill_store.invoices(conn, [number]).get(number, "")
        releases = bill_store.releases(conn, number)
    if found is None:
        raise UsageError(f"unknown bill {number!r}", remedy="`headend bill list YYYY-MM` lists them")
    if as_json:
        plain = bill_as_json(found, invoice) | {"releases": [release_as_json(one) for one in releases]}
        click.echo(json.dumps(plain, ensure_ascii=False, indent=1))
        return
    print_bill(found, invoice)
    for one in releases:
        when, codes = local(one.at, found.zone), ", ".join(dict.fromkeys(map(code_of, one.codes)))
        out.print(f"released {when} by {one.by or '?'} for {codes}: {one.reason}", markup=False)
        for line in one.codes:
            if line != code_of(line):
                out.print(f"  {told(line)}", markup=False)


def print_bill(found: Bill, invoice: str = "") -> None:
    """A bill with its lines, or why it is held."""
    start, end = local(found.window.start, found.zone), local(found.window.end, found.zone)
    out.print(f"bill {found.number}: account {found.account}, usage point {found.usage_point}")
    out.print(f"{start} to {end} ({found.zone}), tariff {found.tariff} version {found.tariff_version}, {found.state}")
    if invoice:
        out.print(f"invoice {invoice}")
    if found.replaces:
        out.print(f"replaces {found.replaces}")
    if found.reversed_by:
        out.print(f"[yellow]taken back[/yellow] by ledger entry {found.reversed_by}")
    if found.state == "held":
        for hold in found.holds:
            out.print(f"  {'odd' if hold.review else 'held'}: {hold}", markup=False)
        return
    table = Table("line", "text", "quantity", "unit", "price", "amount", show_footer=True)
    table.columns[5].footer = f"{found.total} {found.currency}"
    fit(table, whole=(2, 4, 5), numbers=(2, 4, 5))
    for line in found.lines:
        table.add_row(
            line.code, escape(line.text), f"{line.quantity:f}", line.unit, f"{line.price:f}", str(line.amount)
        )
    out.print(table)
    for hold in found.holds:
        out.print(f"  odd: {hold}", markup=False)


def bill_as_json(item: Bill, invoice: str = "") -> dict[str, Any]:
    """A bill as plain data; numbers are text. invoice: the number of its entry in the ledger."""
    return {
        "number": item.number,
        "invoice": invoice or None,
        "account": item.account,
        "usage_point": item.usage_point,
        "start": item.window.start.isoformat(),
        "end": item.window.end.isoformat(),
        "state": item.state,
        "sequence": item.sequence,
        "replaces": item.replaces or None,
        "reversed_by": item.reversed_by or None,
        "tariff": item.tariff,
        "tariff_version": item.tariff_version,
        "currency": item.currency,
        "total": str(item.total) if item.total is not None else None,
        "lines": [
            {
                "code": line.code,
                "text": line.text,
                "quantity": f"{line.quantity:f}",
                "unit": line.unit,
                "price": f"{line.price:f}",
                "amount": str(line.amount),
            }
            for line in item.lines
        ],
        "holds": [str(hold) for hold in item.holds if item.state == "held"],
        "findings": [finding_as_json(hold) for hold in item.holds if item.state != "held" or hold.review],
    }


def finding_as_json(hold: Hold) -> dict[str, Any]:
    """What is odd about a bill, as plain data. holds: whether it holds the bill."""
    return {"code": hold.code, "what": hold.what, "remedy": hold.remedy, "meter": hold.meter, "holds": hold.review}


def release_as_json(one: Release) -> dict[str, Any]:
    """A release as plain data. covers: the findings, `what` null where it covers all of the code."""
    codes = list(dict.fromkeys(map(code_of, one.codes)))
    covered = [{"code": code_of(line), "what": line.partition("\t")[2] or None} for line in one.codes]
    return {"at": one.at.isoformat(), "by": one.by, "codes": codes, "covers": covered, "reason": one.reason}


@click.command()
@site_option
@click.argument("number", metavar="BILL")
@click.option("--day", default=None, metavar="YYYY-MM-DD", help="Open this day's intervals. [default: the first day]")
@click.option("--frames/--no-frames", default=True, show_default=True, help="Show frame bytes and what they say.")
@click.option("--fields", is_flag=True, help="Show every field of every frame.")
def explain(site: Site, number: str, day: str | None, frames: bool, fields: bool) -> None:
    """Walk from a bill back to what the meter sent.

    Each line, its determinant, the registers and intervals it comes from, the read that brought them, and the bytes
    of that read, decoded. Of a month of intervals one day is opened to its values and frames; --day chooses it.
    """
    try:
        chosen = date.fromisoformat(day) if day else None
    except ValueError as error:
        raise UsageError(f"{day!r} is no day", remedy="write it like 2026-10-05") from error
    with opened(site) as store, store.read() as conn:
        root = explain_bill(conn, number, chosen or _first_day(bill_store.bill(conn, number)))
    tree = Tree(root.title, guide_style="dim")
    _grow(tree, root, _Shown(frames, fields))
    out.print(tree, markup=False, soft_wrap=True)


def _first_day(found: Bill | None) -> date | None:
    return found.window.start.astimezone(zone(found.zone)).date() if found else None


@dataclass(frozen=True, slots=True)
class _Shown:
    """How frames are shown, and the outcomes whose frames stand above already."""

    frames: bool
    fields: bool
    above: set[str] = field(default_factory=set)


def _grow(tree: Tree, node: Node, shown: _Shown) -> None:
    """Add a node's detail, frames and children; frames of an outcome already shown are only named."""
    for text in node.detail:
        tree.add(text, style="dim")
    if shown.frames and node.frames and node.title in shown.above:
        tree.add("frames as above", style="dim")
    elif shown.frames:
        shown.above.add(node.title)
        for frame in node.frames:
            branch = tree.add(f"{frame.at:%H:%M:%S.%f} {frame.direction} {frame.data.hex().upper()}")
            if node.protocol in PROTOCOLS:
                said = PROTOCOLS[node.protocol].explain(frame.data)
                branch.add(explanation_text(said) if shown.fields else said.summary, style="dim")
    for child in node.children:
        _grow(tree.add(child.title), child, shown)

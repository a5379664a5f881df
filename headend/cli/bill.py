"""headend bill: close a month, list and show bills. headend explain: from a bill back to the bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import click
from rich.progress import Progress
from rich.table import Table
from rich.tree import Tree

from billing import store as bill_store
from billing.calendar import billing_month
from billing.cycles import groups_of
from billing.explain import Node
from billing.explain import explain as explain_bill
from billing.model import Bill, Hold
from billing.names import TOTAL
from billing.run import CloseReport, close_period, pool
from billing.store import Release
from config.site import Site
from headend.app import now_utc
from headend.civil import zone
from headend.cli.common import local, month_of, opened, out, site_option, tariffs_of, user
from headend.cli.decode import explanation_text
from headend.errors import UsageError
from headend.protocols import PROTOCOLS

__all__ = ["bill", "bill_as_json", "cycle_groups", "explain", "finding_as_json", "print_bill", "print_close"]


@click.group()
def bill() -> None:
    """Close billing periods and look at bills."""


@bill.command()
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
    with opened(site) as store, Progress(console=out, transient=True) as bar, pool(processes) as executor:
        task = bar.add_task("billing")

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
    print_close(report)


def cycle_groups(site: Site, cycle: str | None) -> tuple[str, ...] | None:
    """The groups of accounts that belong to a cycle of the site; None: all accounts."""
    if cycle is None:
        return None
    known = {one.name: one for one in site.billing.cycles}
    if cycle not in known:
        remedy = f"known: {', '.join(known)}" if known else "write a [[billing.cycle]] in site.toml"
        raise UsageError(f"there is no billing cycle {cycle!r}", remedy=remedy)
    return groups_of(site.billing.cycles, known[cycle])


def print_close(report: CloseReport) -> None:
    """What a close did."""
    out.print(f"{len(report.issued)} issued, {len(report.held)} held, {len(report.already)} issued before")
    for number, holds in report.held:
        out.print(f"[yellow]held[/yellow] {number}")
        for hold in holds:
            out.print(f"  {hold}", markup=False)
    if any(hold.review for _, holds in report.held for hold in holds):
        out.print("`headend bill review YYYY-MM` ranks what is odd; `headend bill release NUMBER` lets a bill pass")


@bill.command(name="list")
@site_option
@click.argument("month", metavar="YYYY-MM")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def list_(site: Site, month: str, as_json: bool) -> None:
    """List the bills of a month with their totals, held ones with their reasons."""
    year, number = month_of(month)
    with opened(site) as store, store.read() as conn:
        found = bill_store.bills(conn, billing_month(year, number, site.zone))
        invoices = bill_store.invoices(conn, [item.number for item in found])
    if as_json:
        plain = [bill_as_json(item, invoices.get(item.number, "")) for item in found]
        click.echo(json.dumps(plain, ensure_ascii=False, indent=1))
        return
    out.print(_bill_table(found))


def _bill_table(bills: Sequence[Bill]) -> Table:
    table = Table("bill", "account", "tariff", "state", "kWh", "total", "odd", "why held")
    for item in bills:
        energy = next((d.value for d in item.determinants if d.name == TOTAL), None)
        issued = item.state == "issued"
        held = "" if issued else "; ".join(hold.what for hold in item.holds[:2])
        held += f" (+{len(item.holds) - 2})" if len(item.holds) > 2 and not issued else ""
        total = f"{item.total} {item.currency}" if issued else ""
        odd = sum(1 for hold in item.holds if issued or hold.review)
        state = f"reversed by {item.reversed_by}" if item.reversed_by else item.state
        state += f", replaces {item.replaces}" if item.replaces else ""
        table.add_row(item.number, item.account, item.tariff, state, _number(energy), total, str(odd or ""), held)
    return table


def _number(value: Decimal | None) -> str:
    return "" if value is None else f"{value:.2f}"


@bill.command()
@site_option
@click.argument("number")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def show(site: Site, number: str, as_json: bool) -> None:
    """Show one bill with its lines."""
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
        when, codes = local(one.at, found.zone), ", ".join(one.codes)
        out.print(f"released {when} by {one.by or '?'} for {codes}: {one.reason}", markup=False)


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
    for column in (2, 4, 5):
        table.columns[column].justify = "right"
    for line in found.lines:
        table.add_row(line.code, line.text, f"{line.quantity:f}", line.unit, f"{line.price:f}", str(line.amount))
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
    """A release as plain data."""
    return {"at": one.at.isoformat(), "by": one.by, "codes": list(one.codes), "reason": one.reason}


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

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
from billing.explain import Node
from billing.explain import explain as explain_bill
from billing.model import Bill
from billing.rate import TOTAL
from billing.run import CloseReport, close_period
from config.site import Site
from headend.app import now_utc
from headend.civil import zone
from headend.cli.common import local, month_of, opened, out, site_option, tariffs_of
from headend.cli.decode import explanation_text
from headend.errors import UsageError
from headend.protocols import PROTOCOLS

__all__ = ["bill", "bill_as_json", "explain", "print_close"]


@click.group()
def bill() -> None:
    """Close billing periods and look at bills."""


@bill.command()
@site_option
@click.argument("month", metavar="YYYY-MM")
@click.option("--account", "accounts", multiple=True, help="Only this account; may be given again.")
def close(site: Site, month: str, accounts: tuple[str, ...]) -> None:
    """Bill every account for a month that has ended.

    Closing again changes no bill that was issued; bills that were held are looked at again. A bill whose reads are
    missing or suspect is held, with the reason, and never guessed.
    """
    year, number = month_of(month)
    tariffs = tariffs_of(site)
    with opened(site) as store, Progress(console=out, transient=True) as bar:
        task = bar.add_task("billing")

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        report = close_period(store, tariffs, year, number, accounts or None, now=now_utc(), progress=progress)
    print_close(report)


def print_close(report: CloseReport) -> None:
    """What a close did."""
    out.print(f"{len(report.issued)} issued, {len(report.held)} held, {len(report.already)} issued before")
    for number, holds in report.held:
        out.print(f"[yellow]held[/yellow] {number}")
        for hold in holds:
            out.print(f"  {hold}", markup=False)


@bill.command(name="list")
@site_option
@click.argument("month", metavar="YYYY-MM")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def list_(site: Site, month: str, as_json: bool) -> None:
    """List the bills of a month with their totals, held ones with their reasons."""
    year, number = month_of(month)
    with opened(site) as store, store.read() as conn:
        found = bill_store.bills(conn, billing_month(year, number, site.zone))
    if as_json:
        click.echo(json.dumps([bill_as_json(item) for item in found], ensure_ascii=False, indent=1))
        return
    out.print(_bill_table(found))


def _bill_table(bills: Sequence[Bill]) -> Table:
    table = Table("bill", "account", "tariff", "state", "kWh", "total", "why held")
    for item in bills:
        energy = next((d.value for d in item.determinants if d.name == TOTAL), None)
        held = "; ".join(hold.what for hold in item.holds[:2])
        more = f" (+{len(item.holds) - 2})" if len(item.holds) > 2 else ""
        total = f"{item.total} {item.currency}" if item.state == "issued" else ""
        table.add_row(item.number, item.account, item.tariff, item.state, _number(energy), total, held + more)
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
    if found is None:
        raise UsageError(f"unknown bill {number!r}", remedy="`headend bill list YYYY-MM` lists them")
    if as_json:
        click.echo(json.dumps(bill_as_json(found), ensure_ascii=False, indent=1))
        return
    start, end = local(found.window.start, found.zone), local(found.window.end, found.zone)
    out.print(f"bill {found.number}: account {found.account}, usage point {found.usage_point}")
    out.print(f"{start} to {end} ({found.zone}), tariff {found.tariff} version {found.tariff_version}, {found.state}")
    if found.state != "issued":
        for hold in found.holds:
            out.print(f"  held: {hold}", markup=False)
        return
    table = Table("line", "text", "quantity", "unit", "price", "amount", show_footer=True)
    table.columns[5].footer = f"{found.total} {found.currency}"
    for column in (2, 4, 5):
        table.columns[column].justify = "right"
    for line in found.lines:
        table.add_row(line.code, line.text, f"{line.quantity:f}", line.unit, f"{line.price:f}", str(line.amount))
    out.print(table)


def bill_as_json(item: Bill) -> dict[str, Any]:
    """A bill as plain data; numbers are text."""
    return {
        "number": item.number,
        "account": item.account,
        "usage_point": item.usage_point,
        "start": item.window.start.isoformat(),
        "end": item.window.end.isoformat(),
        "state": item.state,
        "tariff": item.tariff,
        "tariff_version": item.tariff_version,
        "currency": item.currency,
        "total": str(item.total) if item.state == "issued" else None,
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
        "holds": [str(hold) for hold in item.holds],
    }


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

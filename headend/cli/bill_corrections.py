"""headend bill correct, recompute, adjust, adjustments: what happens to a bill that was issued and is not right."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import click
from rich.markup import escape
from rich.table import Table
from sqlalchemy import Connection

from billing import adjustments as bill_adjustments
from billing import corrections, ledger, recompute
from billing.adjustments import Adjustment
from billing.corrections import Corrected
from billing.recompute import Recomputed
from config.site import Site
from config.tariff_files import tariff_from_text
from headend.app import now_utc
from headend.cli.bill import fit
from headend.cli.common import decimal_of, instant, local, opened, out, site_option, tariffs_of, user
from headend.errors import UsageError

__all__ = ["adjust", "adjustments", "correct", "recompute_"]


@click.command(short_help="Reverse an issued bill and issue a new one.")
@site_option
@click.argument("number", metavar="BILL")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept with the reversal.")
@click.option("--all", "chain", is_flag=True, help="Correct the later bills that rest on it too, in their order.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def correct(site: Site, number: str, reason: str, chain: bool, as_json: bool) -> None:
    """Reverse an issued bill and issue a new one in its place, made from the store as it is now.

    Both happen or neither: nothing changes if the new bill would be held, or would say the same line by line. The old
    bill stays as it was issued, and the ledger shows what took it back.
    """
    tariffs = tariffs_of(site)
    with opened(site) as store:
        now = now_utc()
        ledger.post_missing(store, now)
        with store.write() as conn:
            found = corrections.correct(conn, number, reason, tariffs, site.billing.rules, now=now, chain=chain)
    if as_json:
        click.echo(json.dumps(_corrected_json(found), ensure_ascii=False, indent=1))
        return
    if not found.made:
        out.print(f"bill {number}: nothing to correct, the store gives the same lines", markup=False)
    for made in found.made:
        _print_corrected(made)
    if found.later:
        out.print(f"issued later, and made from what {number} said: {', '.join(found.later)}", markup=False)
        out.print("  -> `headend bill correct` each of them, in this order", markup=False)


def _print_corrected(made: Corrected) -> None:
    old, new = made.old, made.new
    out.print(f"bill {old.number}: {old.total} {old.currency}, reversed by {made.reversal}", markup=False)
    out.print(f"bill {new.number}: {new.total} {new.currency}, issued in its place", markup=False)
    out.print(f"  difference {made.difference:+} {new.currency}", markup=False)


def _corrected_json(found: corrections.Correction) -> dict[str, Any]:
    made = [
        {
            "old": item.old.number,
            "old_total": str(item.old.total),
            "new": item.new.number,
            "new_total": str(item.new.total),
            "difference": str(item.difference),
            "currency": item.new.currency,
            "reversal": item.reversal,
        }
        for item in found.made
    ]
    return {"corrected": made, "later": list(found.later)}


@click.command(name="recompute", short_help="Make a bill again and tell what differs; nothing is written.")
@site_option
@click.argument("number", metavar="BILL")
@click.option(
    "--as-of", "as_of", default=None, metavar="WHEN", help="An outcome id or a time. [default: the bill's own]"
)
@click.option("--now", "today", is_flag=True, help="Against the store and the tariffs of today.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def recompute_(site: Site, number: str, as_of: str | None, today: bool, as_json: bool) -> None:
    """Make an issued bill again and say whether it comes out the same; nothing is written.

    By default from the values as they stood when it was made, and the tariff text kept with it: then it is identical,
    or what changed since is named. Exit status 0: identical; 1: it differs.
    """
    if today and as_of is not None:
        raise UsageError("--now and --as-of exclude each other", remedy="give one of them")
    tariffs = tariffs_of(site) if today else []
    with opened(site) as store, store.read() as conn:
        if today:
            found = recompute.recompute_now(conn, number, tariffs)
        else:
            limit = None if as_of is None else _outcome(conn, as_of, site.zone)
            found = recompute.recompute(conn, number, tariff_from_text, as_of=limit)
    if as_json:
        click.echo(json.dumps(_recomputed_json(found), ensure_ascii=False, indent=1))
    else:
        _print_recomputed(found)
    if not found.identical:
        sys.exit(1)


def _outcome(conn: Connection, text: str, zone_name: str) -> int:
    """An outcome id, or the highest one at a time a person typed."""
    if re.fullmatch("[0-9]{1,18}", text):
        return int(text)
    return recompute.outcome_at(conn, instant(text, zone_name))


def _print_recomputed(found: Recomputed) -> None:
    number = found.then.number
    if found.identical:
        out.print(f"bill {number}: identical, {found.then.total} {found.then.currency}", markup=False)
        return
    table = Table("what", "of", "on the bill", "now")
    fit(table)
    for item in found.differences:
        table.add_row(*(escape(text) for text in (item.item, item.where, item.then, item.now)))
    out.print(table)
    out.print(f"bill {number}: {len(found.differences)} differences", markup=False)


def _recomputed_json(found: Recomputed) -> dict[str, Any]:
    differences = [{"item": d.item, "where": d.where, "then": d.then, "now": d.now} for d in found.differences]
    return {
        "number": found.then.number,
        "as_of": found.as_of,
        "identical": found.identical,
        "then": str(found.then.total),
        "now": None if found.now.total is None else str(found.now.total),
        "differences": differences,
    }


# -- adjustments -------------------------------------------------------------------------------------------------------


@click.command(short_help="Put an amount for a bill on the next one.")
@site_option
@click.argument("number", metavar="BILL")
@click.option("--kwh", default=None, metavar="KWH", help="Energy to bill after the event; below zero: to give back.")
@click.option("--price", default=None, metavar="PRICE", help="A kWh. [default: the bill's average price of energy]")
@click.option("--amount", default=None, metavar="AMOUNT", help="An amount instead; below zero: a credit.")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept with it, and shown on the bill.")
def adjust(site: Site, number: str, kwh: str | None, price: str | None, amount: str | None, reason: str) -> None:
    """Put an amount for an issued bill on the account's next bill; the old bill stays as it is.

    The price of energy is the average price on that bill (of all its steps and periods; no surcharge, demand or tax),
    unless --price tells another. The same adjustment is recorded once, however often the command is given.
    """
    if (kwh is None) == (amount is None) or (price is not None and kwh is None):
        raise UsageError("an adjustment is an amount, or energy at a price", remedy="give --amount, or --kwh [--price]")
    energy = None if kwh is None else decimal_of(kwh, "energy")
    money = None if amount is None else decimal_of(amount, "an amount")
    each = None if price is None else decimal_of(price, "a price")
    with opened(site) as store:
        ledger.post_missing(store, now_utc())
        with store.write() as conn:
            if energy is not None and each is None:
                each = bill_adjustments.average_price(recompute.issued_bill(conn, number))
            made = bill_adjustments.make(
                conn, number, kwh=energy, price=each, amount=money, reason=reason, made_by=user(), now=now_utc()
            )
    item = made.adjustment
    state = "recorded as" if made.new else "recorded before as"
    out.print(f"{state} {item.number}: {_sum(item)}, for the next bill of account {item.account}", markup=False)


def _sum(item: Adjustment) -> str:
    amount = f"{item.amount} {item.currency}"
    return f"{item.quantity:f} {item.unit} x {item.price:f} = {amount}" if item.unit else amount


@click.command(short_help="List adjustments, and the bills they went on.")
@site_option
@click.argument("account", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def adjustments(site: Site, account: str | None, as_json: bool) -> None:
    """List the adjustments of an account, or all: for which bill, how much, and on which bill they went."""
    with opened(site) as store, store.read() as conn:
        if account is not None:
            ledger.check_account(conn, account)
        found = bill_adjustments.adjustments(conn, account)
    if as_json:
        click.echo(json.dumps([_adjustment_json(item) for item in found], ensure_ascii=False, indent=1))
        return
    if not found:
        out.print("no adjustments")
        return
    out.print(_adjustment_table(found, site.zone))


def _adjustment_table(found: Sequence[Adjustment], zone_name: str) -> Table:
    table = Table("adjustment", "account", "for bill", "kWh", "amount", "on bill", "made", "by", "reason")
    fit(table, whole=(0, 3, 4), numbers=(3, 4))
    for item in found:
        kwh = f"{item.quantity:f}" if item.unit else ""
        words = (item.account, item.corrects, kwh, f"{item.amount} {item.currency}", item.taken_by or "pending")
        table.add_row(
            item.number,
            *(escape(word) for word in words),
            local(item.made_at, zone_name),
            escape(item.made_by),
            escape(item.reason),
        )
    return table


def _adjustment_json(item: Adjustment) -> dict[str, Any]:
    """An adjustment as plain data; numbers are text."""
    texts = ("number", "account", "corrects", "text", "unit", "currency", "reason", "made_by", "taken_by")
    numbers: dict[str, Decimal] = {"quantity": item.quantity, "price": item.price, "amount": item.amount}
    return (
        {name: getattr(item, name) for name in texts}
        | {name: f"{value:f}" for name, value in numbers.items()}
        | {"made_at": item.made_at.isoformat(), "basis": item.basis}
    )

"""headend account: what an account was billed, what it paid, what it owes."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from billing import corrections, ledger
from billing.ledger import Recorded, Statement
from config.site import Site
from headend.app import now_utc
from headend.cli.bill import fit
from headend.cli.common import local, opened, out, site_option, tariffs_of
from headend.errors import UsageError
from headend.store import Store, registry

__all__ = ["account"]


class _Accounts(click.Group):
    """A group whose verb `show` may be left out: `headend account A1`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Accounts)
def account() -> None:
    """What accounts were billed, what they paid, what they owe.

    \b
    headend account ACCOUNT              its statement; the same as headend account show ACCOUNT
    headend account pay ACCOUNT AMOUNT   record a payment
    headend account reverse BILL         take a bill back, or a payment by its entry's number
    """


@account.command(short_help="Show an account's bills, payments and balance.")
@site_option
@click.argument("account_id", metavar="ACCOUNT")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def show(site: Site, account_id: str, as_json: bool) -> None:
    """The statement of an account: bills, payments, reversals, and the balance after each.

    What the account owes is above zero, what it paid ahead below.
    """
    with opened(site) as store:
        ledger.post_missing(store, now_utc())
        with store.read() as conn:
            ledger.check_account(conn, account_id)
            found = ledger.statement(conn, account_id)
    if as_json:
        click.echo(json.dumps(_as_json(found), ensure_ascii=False, indent=1))
        return
    table = Table("entry", "at", "kind", "of", "text", "amount", "balance")
    fit(table, whole=(0, 5, 6), numbers=(5, 6))
    for entry in found.entries:
        amounts = (f"{entry.amount} {entry.currency}", f"{entry.balance} {entry.currency}")
        words = (escape(entry.reference), escape(entry.text))
        table.add_row(entry.number, local(entry.at, site.zone), entry.kind, *words, *amounts)
    if found.entries:
        out.print(table)
    out.print(f"account {found.account} owes {_owed(found)}", markup=False)


def _owed(found: Statement) -> str:
    return ", ".join(f"{amount} {currency}" for currency, amount in found.balances) or "nothing: no entries"


def _as_json(found: Statement) -> dict[str, Any]:
    """A statement as plain data; amounts are text."""
    entries = [
        {
            "number": entry.number,
            "kind": entry.kind,
            "at": entry.at.isoformat(),
            "reference": entry.reference,
            "text": entry.text,
            "currency": entry.currency,
            "amount": str(entry.amount),
            "balance": str(entry.balance),
        }
        for entry in found.entries
    ]
    balances = {currency: str(amount) for currency, amount in found.balances}
    return {"account": found.account, "balances": balances, "entries": entries}


# An amount below zero must not be taken for an option: what is wrong with it is told by the verb.
@account.command(short_help="Record a payment.", context_settings={"ignore_unknown_options": True})
@site_option
@click.argument("account_id", metavar="ACCOUNT")
@click.argument("amount")
@click.option("--reference", required=True, metavar="TEXT", help="The number of the receipt or transfer.")
@click.option("--currency", default=None, help="Of the amount. [default: that of the account's tariff]")
def pay(site: Site, account_id: str, amount: str, reference: str, currency: str | None) -> None:
    """Record a payment of AMOUNT, like 120.50.

    The same account, amount and reference are recorded once, however often the command is given.
    """
    if not re.fullmatch(r"[0-9]{1,16}(\.[0-9]{1,16})?", amount):
        raise UsageError(f"{amount!r} is no amount", remedy="write it like 120.50")
    with opened(site) as store:
        currency = currency or _currency(site, store, account_id)
        ledger.post_missing(store, now_utc())
        with store.write() as conn:
            recorded = ledger.pay(conn, account_id, Decimal(amount), currency, reference, now_utc())
            found = ledger.statement(conn, account_id)
    _print_recorded(recorded, found)


def _currency(site: Site, store: Store, account_id: str) -> str:
    """The currency of the account's tariff."""
    with store.read() as conn:
        ledger.check_account(conn, account_id)
        row = registry.account(conn, account_id)
    found = next((tariff.currency for tariff in tariffs_of(site) if row and tariff.id == row.tariff), None)
    if found is None:
        what = f"the currency of account {account_id} is not known: its tariff is not there"
        raise UsageError(what, remedy="say it with --currency")
    return found


def _print_recorded(recorded: Recorded, found: Statement) -> None:
    state = "recorded as" if recorded.new else "recorded before as"
    out.print(f"{state} {recorded.number}; account {found.account} owes {_owed(found)}", markup=False)


@account.command(short_help="Take back a bill, or a payment by its number.")
@site_option
@click.argument("number", metavar="BILL")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept with the reversal.")
def reverse(site: Site, number: str, reason: str) -> None:
    """Take back an issued bill, or a payment by its entry's number, with an entry that names it.

    The bill stays as it was issued; the account no longer owes it. `headend bill close` bills its month anew, and
    `headend bill correct` does both at once.
    """
    with opened(site) as store:
        ledger.post_missing(store, now_utc())
        with store.write() as conn:
            recorded = ledger.reverse(conn, number, reason, now_utc())
            found = ledger.statement(conn, recorded.account)
            reference = next(entry.reference for entry in found.entries if entry.number == recorded.number)
            later = corrections.resting_on(conn, reference)
    _print_recorded(recorded, found)
    if later:
        out.print(f"issued later, and made from what {reference} said: {', '.join(later)}", markup=False)
        out.print("  -> bill its month anew, then `headend bill correct` each of them, in this order", markup=False)


@account.command(short_help="Show the sums of the books over all accounts.")
@site_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def totals(site: Site, as_json: bool) -> None:
    """The sums of the books over all accounts; debits above zero, credits below, together zero."""
    with opened(site) as store:
        ledger.post_missing(store, now_utc())
        with store.read() as conn:
            found = ledger.totals(conn)
    if as_json:
        rows = [{"currency": t.currency, "book": t.book, "part": t.part, "amount": str(t.amount)} for t in found]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    table = Table("currency", "book", "part", "amount")
    fit(table, whole=(3,), numbers=(3,))
    for total in found:
        table.add_row(total.currency, total.book, total.part, str(total.amount))
    out.print(table)

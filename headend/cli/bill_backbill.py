"""headend bill backbill: what a faulty meter did not bill, reckoned by the rule of its cause, step by step."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import wraps
from typing import Any

import click
from rich.table import Table
from sqlalchemy import Connection

from billing import adjustments, back_billing
from billing import store as bill_store
from billing.back_billing import WIRING, BackBilling
from billing.model import MINOR_DIGITS, Bill, round_money
from billing.names import TOTAL
from billing.reasons import reason_of
from config.site import Site
from headend.app import now_utc
from headend.cli.common import decimal_of, opened, out, site_option, user
from headend.errors import UsageError

__all__ = ["backbill"]

_TITLES = {
    "error": "meter error",
    "multiplier": "wrong multiplier",
    "wiring": "wrong wiring",
    "normal": "energy not measured",
}

Reckon = Callable[[Bill, Connection], BackBilling]


@click.group(short_help="Work out what a faulty meter did not bill.")
def backbill() -> None:
    """Work out what a faulty meter or wiring did not bill, and make the adjustments.

    Each verb takes the bills of the time the fault lasted, one adjustment for each. It shows the calculation and
    changes nothing; --make records the adjustments, which go on the accounts' next bills.

    The price is the average price of energy on the bill itself (of all its steps and periods), without surcharges,
    demand or taxes; another one is given with --price.
    """


def _common(function: Callable[..., Reckon]) -> Callable[..., None]:
    """The arguments and options all these verbs have. The verb gets its own ones and returns how a bill is reckoned."""

    @site_option
    @click.argument("numbers", nargs=-1, required=True, metavar="BILL...")
    @click.option("--price", default=None, metavar="PRICE", help="A kWh. [default: the bill's average price of energy]")
    @click.option("--make", is_flag=True, help="Record the adjustments.")
    @click.option("--reason", default="", metavar="TEXT", help="Why; kept with the adjustments. Needed with --make.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
    @wraps(function)
    def verb(
        site: Site, numbers: tuple[str, ...], price: str | None, make: bool, reason: str, as_json: bool, **own: Any
    ) -> None:
        if make:
            reason = reason_of(reason, "an adjustment")
        if len(numbers) > 1 and ("recorded" in own or own.get("kwh") is not None):
            raise UsageError("one energy can't be that of several bills", remedy="name one bill")
        reckon = function(**own)
        given = decimal_of(price, "a price") if price is not None else None
        with opened(site) as store:
            with store.read() as conn:
                found = [_work_out(conn, number, reckon, given) for number in dict.fromkeys(numbers)]
            if make:
                with store.write() as conn:
                    for item in found:
                        item["adjustment"] = _make(conn, item, reason)
        if as_json:
            click.echo(json.dumps(found, ensure_ascii=False, indent=1))
            return
        for item in found:
            _print(item)
        if not make:
            out.print("nothing was recorded: --make --reason TEXT records it")

    return verb


def _work_out(conn: Connection, number: str, reckon: Reckon, price: Decimal | None) -> dict[str, Any]:
    """The calculation for one bill as plain data."""
    bill = bill_store.bill(conn, number)
    if bill is None or bill.state != "issued":
        what = f"bill {number} is held: it was not issued" if bill else f"unknown bill {number!r}"
        raise UsageError(what, remedy="`headend bill list YYYY-MM` lists them")
    result = reckon(bill, conn)
    each = adjustments.average_price(bill) if price is None else price
    source = f"average price of energy on {number}" if price is None else "as given"
    amount = round_money(result.kwh, each, MINOR_DIGITS[bill.currency])
    numbers = {"price": f"{each:f}", "price_source": source, "amount": str(amount), "currency": bill.currency}
    return {"bill": number, "account": bill.account} | result.basis() | numbers


def _make(conn: Connection, item: dict[str, Any], reason: str) -> str:
    made = adjustments.make(
        conn,
        item["bill"],
        kwh=Decimal(item["kwh"]),
        price=Decimal(item["price"]),
        reason=reason,
        made_by=user(),
        now=now_utc(),
        words=f"{_TITLES[item['cause']]}: {reason}",
        basis=item,
    )
    return made.adjustment.number


def _print(item: dict[str, Any]) -> None:
    out.print(f"bill {item['bill']}, account {item['account']}: {_TITLES[item['cause']]}", markup=False)
    out.print(f"  {item['rule']}", markup=False)
    table = Table("step", "value", "unit")
    table.columns[1].justify = "right"
    for step in item["steps"]:
        table.add_row(step["what"], step["value"], step["unit"])
    table.add_row(f"price of a kWh, {item['price_source']}", item["price"], item["currency"])
    table.add_row("amount", item["amount"], item["currency"])
    out.print(table)
    if "adjustment" in item:
        out.print(f"adjustment {item['adjustment']}, for the next bill of account {item['account']}", markup=False)


def _energy(bill: Bill, kwh: str | None) -> Decimal:
    """What the bill was made from, or the energy a person gave for it."""
    if kwh is not None:
        return decimal_of(kwh, "energy")
    found = next((item.value for item in bill.determinants if item.name == TOTAL), None)
    if found is None:
        raise UsageError(f"bill {bill.number} has no energy", remedy="say it with --kwh")
    return found


_kwh_option = click.option("--kwh", default=None, metavar="KWH", help="Recorded energy. [default: that of each bill]")


@backbill.command()
@click.option("--percent", required=True, metavar="P", help="The error found; -5: it registers 5 % too little.")
@click.option("--whole", is_flag=True, help="Correct all of the energy, not that of half the time.")
@_kwh_option
@_common
def error(percent: str, whole: bool, kwh: str | None) -> Reckon:
    """A meter or transformer that is out of its class: back to zero error, for half the time since the last check.

    Name the bills of all the time since the last check or installation; half of their energy is corrected.
    """
    found = decimal_of(percent, "an error in percent")
    return lambda bill, _conn: back_billing.meter_error(_energy(bill, kwh), found, half=not whole)


@backbill.command()
@click.option("--billed-with", "wrong", required=True, metavar="NUMBER", help="The multiplier that was used.")
@click.option("--true", "right", required=True, metavar="NUMBER", help="The multiplier that is right.")
@_kwh_option
@_common
def multiplier(wrong: str, right: str, kwh: str | None) -> Reckon:
    """A wrong multiplier of the transformers: the true one holds."""
    factors = decimal_of(wrong, "a multiplier"), decimal_of(right, "a multiplier")
    return lambda bill, _conn: back_billing.wrong_multiplier(_energy(bill, kwh), *factors)


@backbill.command()
@click.option("--case", "name", type=click.Choice(list(WIRING)), default=None, help="A common fault by its name.")
@click.option("--errors", default=None, metavar="A,B,C", help="Error of each phase in percent, as -40,0,10.")
@click.option("--k", default=None, metavar="K", help="True by recorded power, as 1.5 or 12/11.")
@_kwh_option
@_common
def wiring(name: str | None, errors: str | None, k: str | None, kwh: str | None) -> Reckon:
    """Wrong wiring: the recorded energy times K, true by recorded power.

    ct_reversed (one current transformer reversed): K = 3. phase_lost (one phase without voltage or current): K = 1.5.
    two_lost (two phases): K = 3. All for a balanced load on a three-phase four-wire meter.
    """
    value, words = _coefficient(name, errors, k)
    return lambda bill, _conn: back_billing.wrong_wiring(_energy(bill, kwh), value, words)


def _coefficient(name: str | None, errors: str | None, k: str | None) -> tuple[Fraction, str]:
    """K, and how it comes about."""
    if sum(given is not None for given in (name, errors, k)) != 1:
        raise UsageError("K can't be told", remedy="give one of --case, --errors and --k")
    if name is not None:
        case = back_billing.named_wiring(name)
        return back_billing.coefficient(case.factors), case.text
    if errors is not None:
        found = [decimal_of(text.strip(), "an error in percent") for text in errors.split(",")]
        return back_billing.coefficient([1 + Fraction(error) / 100 for error in found]), f"errors {errors} %"
    assert k is not None
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}|/[1-9][0-9]{0,8})?", k):
        raise UsageError(f"{k!r} is no K", remedy="write it like 1.5 or 12/11")
    return Fraction(k), "as given"


@backbill.command()
@click.option("--fault-days", required=True, type=click.IntRange(1, 3660), help="Days the fault lasted.")
@click.option("--recorded", required=True, metavar="KWH", help="What was registered in those days.")
@click.option("--normal-bill", default=None, metavar="BILL", help="The bill of a normal month.")
@click.option("--normal-kwh", default=None, metavar="KWH", help="Energy of a normal month, in place of its bill.")
@click.option("--normal-days", default=None, type=click.IntRange(1, 366), help="Days of that energy.")
@_common
def normal(
    fault_days: int, recorded: str, normal_bill: str | None, normal_kwh: str | None, normal_days: int | None
) -> Reckon:
    """Energy that was not measured: the rate of a normal month stands for it."""
    missing = decimal_of(recorded, "energy")

    def reckon(_bill: Bill, conn: Connection) -> BackBilling:
        energy, days = _normal_month(conn, normal_bill, normal_kwh, normal_days)
        return back_billing.normal_month(energy, days, fault_days, missing)

    return reckon


def _normal_month(conn: Connection, number: str | None, kwh: str | None, days: int | None) -> tuple[Decimal, int]:
    if number is None:
        if kwh is None or days is None:
            raise UsageError("no normal month", remedy="give --normal-bill, or --normal-kwh and --normal-days")
        return decimal_of(kwh, "energy"), days
    bill = bill_store.bill(conn, number)
    if bill is None or bill.state != "issued":
        raise UsageError(f"{number!r} is no issued bill", remedy="`headend bill list YYYY-MM` lists them")
    return _energy(bill, kwh), days or _days(bill)


def _days(bill: Bill) -> int:
    """Civil days of the billing period; a shift of the clock makes none."""
    return round((bill.window.end - bill.window.start).total_seconds() / 86400)

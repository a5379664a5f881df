"""What is asked for demand and installed capacity. Pure.

The maximum is that of the whole period, or of one TOU period in it; a part of a month asks its days' share of the price
by the month. Codes: `CODE` (of a demand in steps `CODE_stepN`), `CODE_excess`, `CODE_discount`; of the code
`basic_demand` `basic_excess` and `basic_discount`; and `basic_capacity`.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import numpy as np

from billing.charges import CapacityCharge, DemandCharge, Ratchet
from billing.kernel import Column, constant, decimal, divide, fill_steps, larger, subtract, times
from billing.names import CAPACITY, CONTRACT, PERCENT, RATCHET, TOTAL, demand_name
from billing.rating.lines import PRICE_PLACES, LineColumn, Mask, Part, Words, days_of, span_text, total_of
from headend.civil import zone

__all__ = ["capacity", "demand"]

_KW = "kW"
_BASIC = "basic_demand"


def demand(part: Part, charge: DemandCharge) -> Iterator[LineColumn]:
    """The maximum, or the contract and what lies above it, by steps where it has them; and the discount on them."""
    period = part.sheet.period
    start = period.window.start.astimezone(zone(part.segment.tariff.zone))
    if start.month not in charge.months:
        return
    found = list(_demand_lines(part, charge))
    yield from found
    if charge.discount is not None and (contract := _contract(part, charge)) is not None:
        yield _discount(part, charge, charge.discount, contract[0], found)


def _demand_lines(part: Part, charge: DemandCharge) -> Iterator[LineColumn]:
    name = demand_name(charge.period)
    maximum, contract, text = part.sheet.need(name), _contract(part, charge), charge.text or "demand"
    if contract is None:
        yield from _billed(part, charge, maximum, text, name)
        return
    agreed, source = contract

    def words(index: int) -> str:
        return f"{text}, contract (maximum {_plain(maximum, index)} kW)"

    limit = times(agreed, part.sheet.fixed(charge.allowance))
    above = subtract(maximum, limit)
    excess = above if charge.excess_above == "allowance" else subtract(maximum, agreed)
    present: Mask = np.asarray(above.values > 0, dtype=np.bool_)
    billed = Column(np.where(present, excess.values, 0), excess.places, excess.there)
    yield from _billed(part, charge, agreed, words, source, billed)
    price, share = part.monthly(_top_price(charge) * charge.excess_factor)
    told = f"{text}, above {'the limit' if charge.excess_above == 'allowance' else 'the contract'}{share}"
    if present.any():
        yield part.line(_code(charge, "excess"), _dated(part, told), excess, _KW, price, name, present)


def _billed(
    part: Part, charge: DemandCharge, quantity: Column, words: Words, name: str, excess: Column | None = None
) -> Iterator[LineColumn]:
    """`quantity`, or what the ratchet makes of it, at its price or by its steps. excess: kW billed beside it."""
    if charge.ratchet is not None and (highest := part.sheet.columns.get(RATCHET)) is not None:
        quantity, words = _ratcheted(charge.ratchet, quantity, highest, words, excess)
    if not charge.steps:
        price, share = part.monthly(charge.price)
        yield part.line(charge.code, _dated(part, words, share), quantity, _KW, price, name)
        return
    limits = [None if step.up_to is None else part.sheet.fixed(step.up_to) for step in charge.steps]
    laid = fill_steps(part.sheet.fixed(Decimal(0)), quantity, limits)
    for number, (step, held) in enumerate(zip(charge.steps, laid, strict=True), start=1):
        price, share = part.monthly(step.price)
        present: Mask = np.asarray(held.values != 0, dtype=np.bool_)
        text = _dated(part, words, f", step {number}{share}")
        yield part.line(f"{charge.code}_step{number}", text, held, _KW, price, name, present)


def _ratcheted(
    rule: Ratchet, quantity: Column, highest: Column, words: Words, excess: Column | None
) -> tuple[Column, Words]:
    """At least so many percent of the highest demand of the months before, for the accounts that have one.

    What is billed as excess counts towards it: no kW is asked for twice.
    """
    least = times(highest, constant(rule.percent.scaleb(-2), len(highest)))
    if least.there is not None:
        least = Column(np.where(least.there, least.values, 0), least.places)
    if excess is not None:
        least = subtract(least, excess)
    billed = larger(quantity, least)
    raised = subtract(billed, quantity).values > 0
    together = "" if excess is None else ", with what is above"

    def told(index: int) -> str:
        text = words if isinstance(words, str) else words(index)
        if not raised[index]:
            return text
        return f"{text}, at least {rule.percent.normalize():f} % of {_plain(highest, index)} kW{together}"

    return billed, told


def _discount(
    part: Part, charge: DemandCharge, rule: tuple[Decimal, Decimal], contract: Column, found: list[LineColumn]
) -> LineColumn:
    """So much off the lines `found` for long hours of use: all energy of the period against the contract."""
    hours, percent = rule
    short = subtract(times(contract, part.sheet.fixed(hours)), part.sheet.need(TOTAL))
    present: Mask = np.asarray(short.values <= 0, dtype=np.bool_)
    text = _dated(part, f"{charge.text or 'demand'}, {hours} kWh or more for each kW of contract")
    amount = total_of(part.sheet, found)
    return part.line(_code(charge, "discount"), text, part.sheet.fixed(-percent), PERCENT, amount, TOTAL, present)


def _contract(part: Part, charge: DemandCharge) -> tuple[Column, str] | None:
    """The contracted demand and where the quantity of its line comes from; None: there is none."""
    if charge.contracted:
        return part.need(CONTRACT), part.name(CONTRACT)
    if charge.contract_kw is None:
        return None
    return part.sheet.fixed(charge.contract_kw), demand_name(charge.period)


def _code(charge: DemandCharge, kind: str) -> str:
    return f"basic_{kind}" if charge.code == _BASIC else f"{charge.code}_{kind}"


def _top_price(charge: DemandCharge) -> Decimal:
    return charge.steps[-1].price if charge.steps else charge.price


def _plain(numbers: Column, index: int) -> str:
    return f"{decimal(numbers, index).normalize():f}"


def _dated(part: Part, words: Words, more: str = "") -> Words:
    """Words with `more`, and the days where the period has several parts."""
    if isinstance(words, str):
        return part.text(words + more)

    def told(index: int) -> str:
        return part.text(words(index) + more)

    return told


# -- capacity ----------------------------------------------------------------------------------------------------------


def capacity(part: Part, charge: CapacityCharge) -> Iterator[LineColumn]:
    """The capacity at its price; of a part of a month, its days at the price of a day (to eight places).

    A day is one of `month_days`, whatever the month's length (Chinese supply rules of 1996: a thirtieth). The parts of
    a whole month come to `month_days` together: the last has those that the others leave.
    """
    sheet, window, zone_name = part.sheet, part.segment.window, part.segment.tariff.zone
    fixed = charge.capacity_kva is not None
    held = part.need(CAPACITY) if charge.capacity_kva is None else sheet.fixed(charge.capacity_kva)
    name, text = "" if fixed else part.name(CAPACITY), charge.text or "capacity"
    if window == sheet.period.month:
        yield part.line("basic_capacity", text, held, "kVA", charge.price, name)
        return
    days = _capacity_days(part, charge.month_days)
    if not days:
        return
    price = divide(times(held, sheet.fixed(charge.price)), sheet.fixed(Decimal(charge.month_days)), PRICE_PLACES)
    several = f" ({span_text(window, zone_name)})" if len(sheet.period.segments) > 1 else ""

    def words(index: int) -> str:
        return f"{text}, {_plain(held, index)} kVA for {days} of {charge.month_days} days{several}"

    yield part.line("basic_capacity", words, sheet.fixed(Decimal(days)), "day", price, name)


def _capacity_days(part: Part, month_days: int) -> int:
    """The days of a part, of all parts never more than `month_days`; those of a whole month have them all."""
    period, zone_name = part.sheet.period, part.segment.tariff.zone
    before = sum(days_of(segment.window, zone_name) for segment in period.segments[: part.index])
    last = part.index == len(period.segments) - 1
    if last and period.window == period.month:
        reached = month_days
    else:
        reached = min(before + days_of(part.segment.window, zone_name), month_days)
    return reached - min(before, month_days)

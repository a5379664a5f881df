"""What is asked on other charges, when those are known: power factor, minimum, taxes; rounding a whole bill. Pure.

In this order, wherever they stand in the tariff; taxes are not taxed. Power factor and minimum are those of the tariff
at the period's end and made on the lines of all parts; a tax is made on the lines of its own tariff's part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

import numpy as np

from billing.charges import (
    CapacityCharge,
    Charge,
    DemandCharge,
    EnergyCharge,
    ExportCredit,
    FixedCharge,
    MarketCharge,
    MinimumCharge,
    NetMetering,
    PowerFactorCharge,
    StepAdder,
    StepCharge,
    StepTouCharge,
    Surcharge,
    Tax,
    TouCharge,
)
from billing.kernel import Column, Ints, add, decimal, divide, rounded, subtract, times
from billing.names import MONTH, PERCENT, POWER_FACTOR
from billing.rating.lines import LineColumn, Mask, Part, Sheet, days_of, in_hundredths, line, total_of
from billing.rating.power_factor import adjustment_percents

__all__ = ["GROUPS", "LATER", "Found", "later", "rounding"]

GROUPS: Mapping[str, tuple[type[Charge], ...]] = {
    "energy": (EnergyCharge, TouCharge, StepCharge, StepAdder, StepTouCharge, MarketCharge),
    "demand": (DemandCharge, CapacityCharge),
    "surcharge": (Surcharge,),
    "fixed": (FixedCharge,),
    "export": (ExportCredit, NetMetering),
    "power_factor": (PowerFactorCharge,),
    "minimum": (MinimumCharge,),
}
"""Groups of charges that others are made on."""

LATER: Final[tuple[type[Charge], ...]] = (PowerFactorCharge, MinimumCharge, Tax)
"""Charges on others, in the order in which they are made."""

Found = Mapping[tuple[int, int], Sequence[LineColumn]]
"""Lines by the number of their part and the place of their charge in its tariff."""

_ROUNDING = "rounding"


def later(part: Part, charge: Charge, found: Found) -> Iterator[LineColumn]:
    """The lines of a charge on others, whose lines are `found`."""
    last = part.index == len(part.sheet.period.segments) - 1
    match charge:
        case PowerFactorCharge() if last:
            yield from _power_factor(part.sheet, charge, found)
        case MinimumCharge() if last:
            yield from _minimum(part.sheet, charge, found)
        case Tax(code=code, percent=percent, base=base, text=text):
            mine = {place: lines for place, lines in found.items() if place[0] == part.index}
            amount = _sum(part.sheet, base, mine)
            yield part.line(code, part.text(text or code), part.sheet.fixed(percent), PERCENT, amount, "")
        case _:
            return


def _power_factor(sheet: Sheet, charge: PowerFactorCharge, found: Found) -> Iterator[LineColumn]:
    """Nothing for an account without a power factor: it had no energy."""
    factor = sheet.columns.get(POWER_FACTOR)
    if factor is None:
        return
    hundredths = rounded(factor, 2)
    percent = Column(adjustment_percents(charge.standard, hundredths.values), 2, factor.there)
    amount = _sum(sheet, charge.base, found, adjusted=True)

    def words(index: int) -> str:
        return f"{charge.text or 'power factor'} {decimal(hundredths, index)}, standard {charge.standard}"

    yield line(sheet, "pf_adjust", words, percent, PERCENT, amount, POWER_FACTOR)


def _minimum(sheet: Sheet, charge: MinimumCharge, found: Found) -> Iterator[LineColumn]:
    """What the bill falls short of the minimum; of a part of a month the minimum has its days' share, as money."""
    least, text = sheet.fixed(charge.amount), charge.text or "up to the minimum"
    period, tariff = sheet.period, sheet.period.tariff
    days, of = days_of(period.window, tariff.zone), days_of(period.month, tariff.zone)
    if tariff.policy.part_month != "whole" and days != of:
        least = divide(sheet.fixed(charge.amount * days), sheet.fixed(Decimal(of)), sheet.minor_digits)
        text += f", {days} of {of} days"
    short = subtract(least, _sum(sheet, charge.base, found))
    present: Mask = np.asarray(short.values > 0, dtype=np.bool_)
    yield line(sheet, "minimum", text, sheet.fixed(Decimal(1)), MONTH, short, MONTH, present)


def _sum(sheet: Sheet, base: Sequence[str], found: Found, *, adjusted: bool = False) -> Column:
    """The lines of the groups in `base`, as printed; with `adjusted`, also of the surcharges that say so."""
    kinds = tuple(kind for group in base for kind in GROUPS[group])
    segments = sheet.period.segments
    return total_of(
        sheet,
        (
            one
            for (segment, position), lines in found.items()
            for one in lines
            if isinstance(charge := segments[segment].tariff.charges[position], kinds)
            or (adjusted and isinstance(charge, Surcharge) and charge.adjusted)
        ),
    )


def rounding(sheet: Sheet, found: Iterable[LineColumn]) -> Iterator[LineColumn]:
    """What makes a bill's total the sum of quantity times price of its lines, rounded once, instead of line by line."""
    lines = list(found)
    exact = sheet.fixed(Decimal(0))
    for one in lines:
        product = times(in_hundredths(one.quantity, one.unit), one.price)
        exact = add(exact, Column(_where(one.present, product.values), product.places))
    difference = subtract(rounded(exact, sheet.minor_digits), total_of(sheet, lines))
    present: Mask = np.asarray(difference.values != 0, dtype=np.bool_)
    currency = sheet.period.tariff.currency
    yield line(sheet, _ROUNDING, "rounding of the whole bill", difference, currency, Decimal(1), "", present)


def _where(present: Mask | None, values: Ints) -> Ints:
    return values if present is None else np.where(present, values, 0)

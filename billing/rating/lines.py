"""What rating works on: the columns of many accounts that share a period, and the lines it makes of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from billing.charges import NetMetering
from billing.kernel import Column, Ints, add, amounts, constant, decimal, divide, share_out
from billing.model import MINOR_DIGITS, Period, Segment
from billing.names import NET, PERCENT, TOTAL, at, used_name
from billing.rating.tariff import one_of
from headend.civil import zone
from headend.model import Window

__all__ = [
    "PRICE_PLACES",
    "LineColumn",
    "Mask",
    "Part",
    "Sheet",
    "Words",
    "days_of",
    "in_hundredths",
    "line",
    "span_text",
    "total_of",
]

Mask = NDArray[np.bool_]
Words = str | Callable[[int], str]

PRICE_PLACES: Final = 8
"""Decimal places of the price of a part of a month."""

_ENERGY_PLACES: Final = 4
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_JUST_BEFORE = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class LineColumn:
    """One line on the bills of many accounts.

    text: the same for all, or made from an account's number among them. amount: in minor units of the currency; with
    the unit `%` it is a hundredth of quantity times price. present: which accounts have the line (None: all).
    """

    code: str
    text: Words
    quantity: Column
    unit: str
    price: Column
    amount: Ints
    present: Mask | None
    determinant: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """The accounts that are rated together: their period, their columns by name, how many they are."""

    period: Period
    columns: Mapping[str, Column]
    count: int

    @property
    def minor_digits(self) -> int:
        """Decimal places of the currency."""
        return MINOR_DIGITS[self.period.tariff.currency]

    def need(self, name: str) -> Column:
        """The column called `name`; `KeyError` with the name where it, or one account's number in it, is absent."""
        found = self.columns[name]
        if found.there is not None:
            raise KeyError(name)
        return found

    def fixed(self, number: Decimal) -> Column:
        """The same number for every account."""
        return constant(number, self.count)

    def energy(self, index: int) -> tuple[Column, str]:
        """What is priced as energy in a part of the period, and its determinant.

        All that was imported; with net metering (of the tariff at the period's end) what it leaves, which is known for
        the whole period and shared out over its parts as the import is.
        """
        labels = [segment.label for segment in self.period.segments]
        if one_of(self.period.tariff, NetMetering) is None:
            name = at(TOTAL, labels[index])
            return self.need(name), name
        net = self.need(NET)
        if len(labels) == 1:
            return net, NET
        return share_out(net, [self.need(at(TOTAL, label)) for label in labels], _ENERGY_PLACES)[index], NET

    def used(self, index: int, *, yearly: bool) -> Column:
        """Energy that lies in the steps already before a part of the period: of the step year, or of the period."""
        reached = self.fixed(Decimal(0))
        if yearly:
            _, name = self.energy(index)
            before = self.columns.get(used_name(name), self.columns.get(used_name(TOTAL)))
            if before is None or before.there is not None:
                raise ValueError("yearly steps need the energy used before in the step year")
            reached = before
        for earlier in range(index):
            reached = add(reached, self.energy(earlier)[0])
        return reached


@dataclass(frozen=True, slots=True)
class Part:
    """One segment of the period as it is rated."""

    sheet: Sheet
    index: int

    @property
    def segment(self) -> Segment:
        return self.sheet.period.segments[self.index]

    def name(self, name: str) -> str:
        """The determinant's name for this part."""
        return at(name, self.segment.label)

    def need(self, name: str) -> Column:
        """This part's column; `KeyError` as `Sheet.need`."""
        return self.sheet.need(self.name(name))

    def maybe(self, name: str) -> Column | None:
        """This part's column, where there is one; not every account need have a number in it."""
        return self.sheet.columns.get(self.name(name))

    @property
    def share(self) -> tuple[int, int]:
        """How much of a month this part is, for what is asked by the month: days, of days.

        By the tariff's `part_month`: of the civil month, or (`whole`) of the period, which then counts as a month.
        """
        period, tariff = self.sheet.period, self.segment.tariff
        mine = days_of(self.segment.window, tariff.zone)
        whole = period.window if tariff.policy.part_month == "whole" else period.month
        return mine, days_of(whole, tariff.zone)

    def monthly(self, price: Decimal) -> tuple[Decimal, str]:
        """A price by the month for this part, to eight places, and the words that tell the part ("": a month)."""
        days, of = self.share
        if days == of:
            return price, ""
        scaled = constant(price * days, 1)
        value = divide(scaled, constant(Decimal(of), 1), PRICE_PLACES)
        return decimal(value, 0), f", {days} of {of} days"

    def text(self, words: str) -> str:
        """`words`, with the days where the period has several parts."""
        if len(self.sheet.period.segments) == 1:
            return words
        return f"{words}, {span_text(self.segment.window, self.segment.tariff.zone)}"

    def line(
        self,
        code: str,
        text: Words,
        quantity: Column,
        unit: str,
        price: Column | Decimal,
        determinant: str,
        present: Mask | None = None,
    ) -> LineColumn:
        """A line of this part."""
        return line(self.sheet, code, text, quantity, unit, price, determinant, present)


def line(
    sheet: Sheet,
    code: str,
    text: Words,
    quantity: Column,
    unit: str,
    price: Column | Decimal,
    determinant: str,
    present: Mask | None = None,
) -> LineColumn:
    """A line; its amount is quantity times price, rounded as money is (with the unit `%`: a hundredth of it).

    An account that lacks the quantity or the price does not have the line.
    """
    each = price if isinstance(price, Column) else sheet.fixed(price)
    amount = amounts(in_hundredths(quantity, unit), each, sheet.minor_digits)
    if amount.there is not None:
        present = amount.there if present is None else present & amount.there
    return LineColumn(code, text, quantity, unit, each, amount.values, present, determinant)


def in_hundredths(quantity: Column, unit: str) -> Column:
    """What a price is multiplied by: the quantity, of `%` a hundredth of it."""
    return Column(quantity.values, quantity.places + 2, quantity.there) if unit == PERCENT else quantity


def total_of(sheet: Sheet, found: Iterable[LineColumn]) -> Column:
    """The sum of lines as printed; 0 for the accounts that have none of them."""
    total = Column(np.zeros(sheet.count, dtype=np.int64), sheet.minor_digits)
    for one in found:
        amount = one.amount if one.present is None else np.where(one.present, one.amount, 0)
        total = add(total, Column(amount, sheet.minor_digits))
    return total


def days_of(window: Window, zone_name: str) -> int:
    """The civil days of a window, begun ones counted whole."""
    tz = zone(zone_name)
    first, last = window.start.astimezone(tz).date(), (window.end - _JUST_BEFORE).astimezone(tz).date()
    return (last - first).days + 1


def span_text(window: Window, zone_name: str) -> str:
    """The civil days of a window within one month, as `1-15 Oct`."""
    tz = zone(zone_name)
    first, last = window.start.astimezone(tz), (window.end - _JUST_BEFORE).astimezone(tz)
    days = f"{first.day}-{last.day}" if first.day != last.day else f"{first.day}"
    return f"{days} {_MONTHS[first.month - 1]}"

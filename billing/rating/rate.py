"""From determinants to bill lines, for many accounts at once. Pure: no store, no clock.

`rate` works on columns (`billing.kernel`): one array for each quantity, a line for each charge. `rate_cases` puts the
determinants of bills into columns and the lines back on bills; one bill goes the same way as a million.

Line codes: `energy` (flat), `energy_PERIOD` (TOU), `energy_stepN`, `stepN_adder`, `energy_stepN_PERIOD`;
`basic_demand`, `basic_excess`, `basic_discount` (of a demand with a code of its own CODE, CODE_excess, CODE_discount;
in steps CODE_stepN), `basic_capacity`; `pf_adjust`, `minimum`, `export_credit`, `rounding`; and the own code of a fixed
charge, a surcharge, a tax and of energy at market prices (what is added to those: CODE_adder).

Each line is rounded by itself; a bill's total is the sum of its lines as printed. A tariff that rounds the whole bill
once has a line for the difference.

Each part of a period is rated by its own tariff. What is asked by the month has its days' share (`Part.monthly`), steps
fill on. Charges on other charges are worked out after those, wherever they stand (`billing.rating.later`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

import numpy as np

from billing.calendar import billing_month
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
    Tariff,
    Tax,
    TouCharge,
)
from billing.kernel import Column, column, decimal, decimals
from billing.model import BillLine, Determinant, Period
from billing.names import EXPORT, MONTH, TOTAL, used_name
from billing.rating.demand import capacity, demand
from billing.rating.energy import KWH, market, step_limits, step_tou, steps, surplus, tou
from billing.rating.later import GROUPS, LATER, later, rounding
from billing.rating.lines import LineColumn, Part, Sheet
from billing.rating.tariff import (
    one_of,
    periods_of,
    split_steps,
    step_tou_table,
    steps_in,
    tou_charge,
    yearly_steps,
)
from headend.civil import zone
from headend.model import Window

__all__ = [
    "GROUPS",
    "LineColumn",
    "Part",
    "Sheet",
    "lines",
    "one_of",
    "periods_of",
    "rate",
    "rate_cases",
    "split_steps",
    "step_limits",
    "step_tou_table",
    "steps_in",
    "tou_charge",
    "yearly_steps",
]


def rate(period: Period, columns: Mapping[str, Column], count: int) -> list[LineColumn]:
    """The lines of `count` bills for `period`, in the order of its parts and of the charges of their tariffs.

    Which columns are needed the charges tell: those of `billing.names`, of a part of a cut period under `at(name,
    label)`. `used_name(TOTAL)` is the energy used before in the step year. `power_factor`, `ratchet_kw` and `people`
    may lack for some accounts or for all: no adjustment, no ratchet, no large household. Else a `KeyError` with the
    name of what is not there, or a `ValueError` for yearly steps without the energy used before.
    """
    sheet = Sheet(period, columns, count)
    parts = [Part(sheet, index) for index in range(len(period.segments))]
    found: dict[tuple[int, int], list[LineColumn]] = {}
    for part in parts:
        for position, charge in enumerate(part.segment.tariff.charges):
            if not isinstance(charge, LATER):
                found[part.index, position] = _present(_charge_lines(part, charge))
    for kind in LATER:
        made = {
            (part.index, position): _present(later(part, charge, found))
            for part in parts
            for position, charge in enumerate(part.segment.tariff.charges)
            if isinstance(charge, kind)
        }
        found |= made
    ordered = [line for place in sorted(found) for line in found[place]]
    if period.tariff.policy.rounding == "bill":
        ordered += _present(rounding(sheet, ordered))
    return ordered


def _present(found: Iterator[LineColumn]) -> list[LineColumn]:
    """Lines that at least one account has."""
    return [line for line in found if line.present is None or line.present.any()]


def _charge_lines(part: Part, charge: Charge) -> Iterator[LineColumn]:
    match charge:
        case EnergyCharge() | FixedCharge() | Surcharge() | ExportCredit():
            yield _one_line(part, charge)
        case TouCharge():
            yield from tou(part, charge)
        case StepCharge() | StepAdder():
            yield from steps(part, charge)
        case StepTouCharge():
            yield from step_tou(part, charge)
        case MarketCharge():
            yield from market(part, charge)
        case DemandCharge():
            yield from demand(part, charge)
        case CapacityCharge():
            yield from capacity(part, charge)
        case NetMetering():
            yield from surplus(part, charge)
        case PowerFactorCharge() | MinimumCharge() | Tax():
            raise AssertionError("made on other charges, after them")


def _one_line(part: Part, charge: EnergyCharge | FixedCharge | Surcharge | ExportCredit) -> LineColumn:
    match charge:
        case EnergyCharge(price=price, text=text):
            energy, name = part.sheet.energy(part.index)
            return part.line("energy", part.text(text or "energy"), energy, KWH, price, name)
        case FixedCharge(code=code, amount=amount, text=text):
            price, share = part.monthly(amount)
            words = part.text(f"{text or code}{share}")
            return part.line(code, words, part.sheet.fixed(Decimal(1)), MONTH, price, MONTH)
        case Surcharge(code=code, price=price, text=text):
            return part.line(code, part.text(text or code), part.need(TOTAL), KWH, price, part.name(TOTAL))
        case ExportCredit(price=price, text=text):
            words = part.text(text or "export")
            return part.line("export_credit", words, part.need(EXPORT), KWH, -price, part.name(EXPORT))


def rate_cases(period: Period, determinants: Sequence[Mapping[str, Determinant]]) -> list[tuple[BillLine, ...]]:
    """The lines of each bill for `period`, from its determinants by name; errors as `rate`."""
    if not determinants:
        return []
    names = dict.fromkeys(name for found in determinants for name in found)
    columns: dict[str, Column] = {}
    for name in names:
        mine = [found.get(name) for found in determinants]
        columns[name] = column([None if one is None else one.value for one in mine])
        used = [None if one is None else one.used_before for one in mine]
        if any(energy is not None for energy in used):
            columns[used_name(name)] = column(used)
    bills: list[list[BillLine]] = [[] for _ in determinants]
    sheet = Sheet(period, columns, len(determinants))
    for line in rate(period, columns, len(determinants)):
        for index, made in _bill_lines(line, sheet.minor_digits):
            bills[index].append(made)
    return [tuple(bill) for bill in bills]


def _bill_lines(line: LineColumn, minor_digits: int) -> Iterator[tuple[int, BillLine]]:
    """The line as it stands on each bill that has it, with the bill's number."""
    where = range(len(line.amount)) if line.present is None else np.flatnonzero(line.present).tolist()
    quantities, prices = _numbers(line.quantity), _numbers(line.price)
    amounts = _numbers(Column(line.amount, minor_digits))
    for index in where:
        text = line.text if isinstance(line.text, str) else line.text(index)
        numbers = quantities[index], line.unit, prices[index], amounts[index]
        yield index, BillLine(line.code, text, *numbers, line.determinant)


def _numbers(numbers: Column) -> Sequence[Decimal]:
    """The numbers of all accounts; one object where they are all the same, as most prices are."""
    values = numbers.values
    if len(values) > 1 and (values == values[0]).all():
        return [decimal(numbers, 0)] * len(values)
    return decimals(numbers)


def lines(tariff: Tariff, determinants: Mapping[str, Determinant], window: Window) -> list[BillLine]:
    """The lines of one bill for `window`, a civil month or a part of one, by one tariff; errors as `rate`."""
    start = window.start.astimezone(zone(tariff.zone))
    month = billing_month(start.year, start.month, tariff.zone)
    return list(rate_cases(Period.of(tariff, month, window), [determinants])[0])

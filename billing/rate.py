"""From determinants to bill lines. Pure: no store, no clock.

Line codes: `energy` (flat), `energy_PERIOD` (TOU), `energy_stepN`, `stepN_adder`; `basic_demand`, `basic_excess`,
`basic_discount`, `basic_capacity`; `pf_adjust`, `minimum`, `export_credit`; and the own code of a fixed charge, a
surcharge and a tax. Each line is rounded by itself; a bill's total is the sum of its lines as printed.

Charges on other charges are worked out after those, wherever they stand: power factor, then minimum, then taxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import TypeVar

from billing.calendar import billing_month, spans
from billing.model import (
    MINOR_DIGITS,
    BillLine,
    CapacityCharge,
    Charge,
    DemandCharge,
    Determinant,
    EnergyCharge,
    ExportCredit,
    FixedCharge,
    MinimumCharge,
    NetMetering,
    PowerFactorCharge,
    Step,
    StepAdder,
    StepCharge,
    Surcharge,
    Tariff,
    Tax,
    TouCharge,
    round_money,
)
from billing.power_factor import adjustment_percent
from headend.civil import day_start, zone
from headend.model import Window

__all__ = [
    "EXPORT",
    "GROUPS",
    "MAXIMUM",
    "MONTH",
    "NET",
    "PERCENT",
    "POWER_FACTOR",
    "SURPLUS",
    "TOTAL",
    "lines",
    "one_of",
    "periods_of",
    "split_steps",
    "steps_in",
    "tou_charge",
    "tou_name",
    "yearly_steps",
]

TOTAL = "import_kwh"
"""Name of the determinant that holds all energy of the period."""

EXPORT = "export_kwh"
"""Name of the determinant that holds the energy exported."""

NET, SURPLUS = "net_kwh", "surplus_kwh"
"""Names of the determinants of net metering: import less export, and export less import; one of them is 0."""

MAXIMUM = "import_max_kw"
"""Name of the determinant that holds the maximum demand of the period."""

POWER_FACTOR = "power_factor"
"""Name of the determinant that holds the power factor of the period, two places."""

PERCENT = "%"
"""Unit of a line whose amount is a hundredth of quantity times price."""

MONTH = "month"
"""What the quantity of a fixed charge comes from."""

GROUPS: Mapping[str, tuple[type[Charge], ...]] = {
    "energy": (EnergyCharge, TouCharge, StepCharge, StepAdder),
    "demand": (DemandCharge, CapacityCharge),
    "surcharge": (Surcharge,),
    "fixed": (FixedCharge,),
    "export": (ExportCredit, NetMetering),
    "power_factor": (PowerFactorCharge,),
    "minimum": (MinimumCharge,),
}
"""Groups of charges that others are made on."""

_C = TypeVar("_C", bound=Charge)

_DAY_PRICE = Decimal("0.00000001")

_LATER: tuple[type[Charge], ...] = (PowerFactorCharge, MinimumCharge, Tax)


def tou_name(period: str) -> str:
    """Name of the determinant that holds the energy of one TOU period."""
    return f"{TOTAL}_{period}"


def tou_charge(tariff: Tariff) -> TouCharge | None:
    """The tariff's TOU charge, if it has one."""
    return next((c for c in tariff.charges if isinstance(c, TouCharge)), None)


def one_of(tariff: Tariff, kind: type[_C]) -> _C | None:
    """The tariff's charge of this kind, if it has one."""
    return next((charge for charge in tariff.charges if isinstance(charge, kind)), None)


def yearly_steps(tariff: Tariff) -> StepCharge | StepAdder | None:
    """A charge of the tariff whose steps fill over a year, if it has one."""
    return next((c for c in tariff.charges if isinstance(c, (StepCharge, StepAdder)) and c.period == "year"), None)


def periods_of(charge: TouCharge, window: Window, zone_name: str) -> tuple[str, ...]:
    """The TOU periods that occur in `window`, in the order of the tariff's prices."""
    occur = {span.period for span in spans(charge.schedule, window, zone_name)}
    return tuple(period for period, _ in charge.prices if period in occur)


def steps_in(charge: StepCharge | StepAdder, window: Window, zone_name: str) -> tuple[Step, ...]:
    """The steps that hold for a billing period: those of the month in which it starts."""
    month = window.start.astimezone(zone(zone_name)).month
    return next(table.steps for table in charge.tables if month in table.months)


def split_steps(steps: Sequence[Step], used_before: Decimal, quantity: Decimal) -> list[tuple[int, Step, Decimal]]:
    """`quantity` laid on the steps above `used_before`: (number from 1, step, energy in it), only steps with energy.

    The parts sum to `quantity` exactly; energy that lands on a limit belongs to the lower step.
    """
    parts = []
    used, left = used_before, quantity
    for number, step in enumerate(steps, start=1):
        room = left if step.up_to is None else max(step.up_to - used, Decimal(0))
        part = min(room, left)
        if part > 0:
            parts.append((number, step, part))
            used, left = used + part, left - part
    if left > 0:
        raise ValueError("the last step is not open")
    return parts


def lines(tariff: Tariff, determinants: Mapping[str, Determinant], window: Window) -> list[BillLine]:
    """The lines of a bill for the billing period `window`, in the order of the tariff's charges.

    Needs the determinant `import_kwh` for flat and step charges (with `used_before` for yearly steps) and
    `import_kwh_PERIOD` for each TOU period that occurs in the window; `import_max_kw` for a demand, `power_factor` for
    its adjustment (none is made where it is not there: no energy, no power factor), `export_kwh` for a credit, and
    `net_kwh` and `surplus_kwh` for net metering; a `KeyError` or `ValueError` if one is not there.
    """
    found: dict[int, list[BillLine]] = {}
    for position, charge in enumerate(tariff.charges):
        if not isinstance(charge, _LATER):
            found[position] = _charge_lines(tariff, charge, determinants, window)
    for kind in _LATER:
        made = {
            position: _later_lines(tariff, charge, determinants, found)
            for position, charge in enumerate(tariff.charges)
            if isinstance(charge, kind)
        }
        found |= made
    return [line for position in sorted(found) for line in found[position]]


def _charge_lines(
    tariff: Tariff, charge: Charge, determinants: Mapping[str, Determinant], window: Window
) -> list[BillLine]:
    match charge:
        case EnergyCharge(price=price, text=text):
            total = _energy(tariff, determinants)
            return [_line(tariff, "energy", text or "energy", total.value, total.unit, price, total.name)]
        case TouCharge():
            return _tou_lines(tariff, charge, determinants, window)
        case StepCharge() | StepAdder():
            return _step_lines(tariff, charge, _energy(tariff, determinants), window)
        case FixedCharge(code=code, amount=amount, text=text):
            return [_line(tariff, code, text or code, Decimal(1), MONTH, amount, MONTH)]
        case DemandCharge():
            return _demand_lines(tariff, charge, determinants)
        case CapacityCharge():
            return [_capacity_line(tariff, charge, window)]
        case Surcharge(code=code, price=price, text=text):
            total = determinants[TOTAL]
            return [_line(tariff, code, text or code, total.value, total.unit, price, TOTAL)]
        case ExportCredit(price=price, text=text):
            total = determinants[EXPORT]
            return [_line(tariff, "export_credit", text or "export", total.value, total.unit, -price, EXPORT)]
        case NetMetering(price=price, text=text):
            rest = determinants[SURPLUS]
            words = text or "export beyond import"
            return [_line(tariff, "export_credit", words, rest.value, rest.unit, -price, SURPLUS)] if rest.value else []
        case PowerFactorCharge() | MinimumCharge() | Tax():
            raise AssertionError("made on other charges, after them")


def _energy(tariff: Tariff, determinants: Mapping[str, Determinant]) -> Determinant:
    """What is priced as energy: all that was imported, or what net metering leaves of it."""
    return determinants[NET if one_of(tariff, NetMetering) else TOTAL]


def _later_lines(
    tariff: Tariff, charge: Charge, determinants: Mapping[str, Determinant], found: Mapping[int, Sequence[BillLine]]
) -> list[BillLine]:
    """The lines of a charge on others, whose lines are `found` by their position in the tariff."""
    match charge:
        case PowerFactorCharge(standard=standard, base=base, text=text):
            factor = determinants.get(POWER_FACTOR)
            if factor is None:
                return []
            percent = adjustment_percent(standard, factor.value)
            words = f"{text or 'power factor'} {factor.value}, standard {standard}"
            amount = _sum(tariff, base, found, adjusted=True)
            return [_line(tariff, "pf_adjust", words, percent, PERCENT, amount, POWER_FACTOR)]
        case MinimumCharge(amount=least, base=base, text=text):
            short = least - _sum(tariff, base, found)
            words = text or "up to the minimum"
            return [_line(tariff, "minimum", words, Decimal(1), MONTH, short, MONTH)] if short > 0 else []
        case Tax(code=code, percent=percent, base=base, text=text):
            return [_line(tariff, code, text or code, percent, PERCENT, _sum(tariff, base, found), "")]
        case _:
            raise AssertionError("not made on other charges")


def _sum(
    tariff: Tariff, base: Sequence[str], found: Mapping[int, Sequence[BillLine]], *, adjusted: bool = False
) -> Decimal:
    """The lines of the groups in `base`, as printed; with `adjusted`, also of the surcharges that say so."""
    kinds = tuple(kind for group in base for kind in GROUPS[group])
    return sum(
        (
            line.amount
            for position, made in found.items()
            for line in made
            if isinstance(charge := tariff.charges[position], kinds)
            or (adjusted and isinstance(charge, Surcharge) and charge.adjusted)
        ),
        Decimal(0),
    )


def _demand_lines(tariff: Tariff, charge: DemandCharge, determinants: Mapping[str, Determinant]) -> list[BillLine]:
    maximum, contract, price = determinants[MAXIMUM], charge.contract_kw, charge.price
    text = charge.text or "demand"
    if contract is None:
        return [_line(tariff, "basic_demand", text, maximum.value, maximum.unit, price, MAXIMUM)]
    words = f"{text}, contract (maximum {maximum.value.normalize():f} kW)"
    found = [_line(tariff, "basic_demand", words, contract, maximum.unit, price, MAXIMUM)]
    limit = contract * charge.allowance
    if maximum.value > limit:
        excess = maximum.value - (limit if charge.excess_above == "allowance" else contract)
        words = f"{text}, above {'the limit' if charge.excess_above == 'allowance' else 'the contract'}"
        found.append(_line(tariff, "basic_excess", words, excess, maximum.unit, price * charge.excess_factor, MAXIMUM))
    if charge.discount is not None:
        hours, percent = charge.discount
        if determinants[TOTAL].value >= hours * contract:
            amount = sum((line.amount for line in found), Decimal(0))
            words = f"{text}, {hours} kWh or more for each kW of contract"
            found.append(_line(tariff, "basic_discount", words, -percent, PERCENT, amount, TOTAL))
    return found


def _capacity_line(tariff: Tariff, charge: CapacityCharge, window: Window) -> BillLine:
    """The capacity at its price; of a part of a month, its days at the price of a day (to eight places)."""
    tz = zone(tariff.zone)
    first, last = window.start.astimezone(tz), window.end.astimezone(tz)
    text = charge.text or "capacity"
    if window == billing_month(first.year, first.month, tariff.zone):
        return _line(tariff, "basic_capacity", text, charge.capacity_kva, "kVA", charge.price, "")
    whole = last == day_start(last.date(), tz)
    days = (last.date() - first.date()).days + (0 if whole else 1)
    a_day = (charge.price * charge.capacity_kva / charge.month_days).quantize(_DAY_PRICE, rounding=ROUND_HALF_UP)
    text += f", {charge.capacity_kva.normalize():f} kVA for {days} of {charge.month_days} days"
    return _line(tariff, "basic_capacity", text, Decimal(days), "day", a_day, "")


def _tou_lines(
    tariff: Tariff, charge: TouCharge, determinants: Mapping[str, Determinant], window: Window
) -> list[BillLine]:
    priced = dict(charge.prices)
    return [
        _line(
            tariff,
            f"energy_{period}",
            f"{charge.text or 'energy'}, {period}",
            determinants[tou_name(period)].value,
            determinants[tou_name(period)].unit,
            priced[period],
            tou_name(period),
        )
        for period in periods_of(charge, window, tariff.zone)
    ]


def _step_lines(tariff: Tariff, charge: StepCharge | StepAdder, total: Determinant, window: Window) -> list[BillLine]:
    used_before = Decimal(0)
    if charge.period == "year":
        if total.used_before is None:
            raise ValueError("yearly steps need the energy used before in the step year")
        used_before = total.used_before
    found = []
    for number, step, part in split_steps(steps_in(charge, window, tariff.zone), used_before, total.value):
        if isinstance(charge, StepAdder):
            if step.price == 0:
                continue  # nothing is added in this step
            code, text = f"step{number}_adder", f"{charge.text or 'addition'}, step {number}"
        else:
            code, text = f"energy_step{number}", f"{charge.text or 'energy'}, step {number}"
        found.append(_line(tariff, code, text, part, total.unit, step.price, total.name))
    return found


def _line(
    tariff: Tariff, code: str, text: str, quantity: Decimal, unit: str, price: Decimal, determinant: str
) -> BillLine:
    factor = quantity.scaleb(-2) if unit == PERCENT else quantity
    amount = round_money(factor, price, MINOR_DIGITS[tariff.currency])
    return BillLine(code, text, quantity, unit, price, amount, determinant)

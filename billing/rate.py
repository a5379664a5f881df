"""From determinants to bill lines. Pure: no store, no clock.

Line codes: `energy` (flat), `energy_PERIOD` (TOU), `energy_stepN`, `stepN_adder`, and a fixed charge's own code. Each
line is rounded by itself; a bill's total is the sum of its lines as printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from billing.calendar import spans
from billing.model import (
    MINOR_DIGITS,
    BillLine,
    Charge,
    Determinant,
    EnergyCharge,
    FixedCharge,
    Step,
    StepAdder,
    StepCharge,
    Tariff,
    TouCharge,
    round_money,
)
from headend.civil import zone
from headend.model import Window

__all__ = ["MONTH", "TOTAL", "lines", "periods_of", "split_steps", "steps_in", "tou_charge", "tou_name", "yearly_steps"]

TOTAL = "import_kwh"
"""Name of the determinant that holds all energy of the period."""

MONTH = "month"
"""What the quantity of a fixed charge comes from."""


def tou_name(period: str) -> str:
    """Name of the determinant that holds the energy of one TOU period."""
    return f"{TOTAL}_{period}"


def tou_charge(tariff: Tariff) -> TouCharge | None:
    """The tariff's TOU charge, if it has one."""
    return next((c for c in tariff.charges if isinstance(c, TouCharge)), None)


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
    `import_kwh_PERIOD` for each TOU period that occurs in the window; a `KeyError` or `ValueError` if one is not there.
    """
    return [line for charge in tariff.charges for line in _charge_lines(tariff, charge, determinants, window)]


def _charge_lines(
    tariff: Tariff, charge: Charge, determinants: Mapping[str, Determinant], window: Window
) -> list[BillLine]:
    match charge:
        case EnergyCharge(price=price, text=text):
            total = determinants[TOTAL]
            return [_line(tariff, "energy", text or "energy", total.value, total.unit, price, TOTAL)]
        case TouCharge(prices=prices, text=text):
            priced = dict(prices)
            return [
                _line(
                    tariff,
                    f"energy_{period}",
                    f"{text or 'energy'}, {period}",
                    determinants[tou_name(period)].value,
                    determinants[tou_name(period)].unit,
                    priced[period],
                    tou_name(period),
                )
                for period in periods_of(charge, window, tariff.zone)
            ]
        case StepCharge() | StepAdder():
            return _step_lines(tariff, charge, determinants[TOTAL], window)
        case FixedCharge(code=code, amount=amount, text=text):
            return [_line(tariff, code, text or code, Decimal(1), MONTH, amount, MONTH)]


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
        found.append(_line(tariff, code, text, part, total.unit, step.price, TOTAL))
    return found


def _line(
    tariff: Tariff, code: str, text: str, quantity: Decimal, unit: str, price: Decimal, determinant: str
) -> BillLine:
    amount = round_money(quantity, price, MINOR_DIGITS[tariff.currency])
    return BillLine(code, text, quantity, unit, price, amount, determinant)

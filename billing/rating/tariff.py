"""What is asked of a tariff before anything is rated: its charge of a kind, the periods and steps that hold. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TypeVar

from billing.calendar import spans
from billing.charges import (
    Charge,
    Step,
    StepAdder,
    StepCharge,
    StepTouCharge,
    StepTouTable,
    Tariff,
    TouCharge,
)
from billing.kernel import column, constant, decimal, fill_steps
from headend.civil import zone
from headend.model import Window

__all__ = ["one_of", "periods_of", "split_steps", "step_tou_table", "steps_in", "tou_charge", "yearly_steps"]

_C = TypeVar("_C", bound=Charge)


def tou_charge(tariff: Tariff) -> TouCharge | None:
    """The tariff's TOU charge, if it has one."""
    return one_of(tariff, TouCharge)


def one_of(tariff: Tariff, kind: type[_C]) -> _C | None:
    """The tariff's charge of this kind, if it has one."""
    return next((charge for charge in tariff.charges if isinstance(charge, kind)), None)


def yearly_steps(tariff: Tariff) -> StepCharge | StepAdder | StepTouCharge | None:
    """A charge of the tariff whose steps fill over a year, if it has one."""
    kinds = (StepCharge, StepAdder, StepTouCharge)
    return next((c for c in tariff.charges if isinstance(c, kinds) and c.period == "year"), None)


def periods_of(charge: TouCharge | StepTouCharge, window: Window, zone_name: str) -> tuple[str, ...]:
    """The TOU periods that are billed for `window`, in the order of the tariff's prices.

    Those that occur in it by the schedule; where the meter's own registers measure, each that has a register; and the
    period that takes the rest.
    """
    occur = {span.period for span in spans(charge.schedule, window, zone_name)}
    if isinstance(charge, StepTouCharge):
        priced = step_tou_table(charge, window, zone_name).steps[0].prices
    else:
        priced = charge.prices
        occur |= {charge.rest}
        if charge.measured_by == "registers":
            occur |= {period for period, _ in charge.registers}
    return tuple(period for period, _ in priced if period in occur)


def steps_in(charge: StepCharge | StepAdder, window: Window, zone_name: str) -> tuple[Step, ...]:
    """The steps that hold for a billing period: those of the month in which it starts."""
    month = window.start.astimezone(zone(zone_name)).month
    return next(table.steps for table in charge.tables if month in table.months)


def step_tou_table(charge: StepTouCharge, window: Window, zone_name: str) -> StepTouTable:
    """The table of prices by step and period that holds for a billing period, by the month in which it starts."""
    month = window.start.astimezone(zone(zone_name)).month
    return next(table for table in charge.tables if month in table.months)


def split_steps(steps: Sequence[Step], used_before: Decimal, quantity: Decimal) -> list[tuple[int, Step, Decimal]]:
    """`quantity` laid on the steps above `used_before`: (number from 1, step, energy in it), only steps with energy.

    The parts sum to `quantity` exactly; energy that lands on a limit belongs to the lower step. `ValueError` where
    energy lies beyond the last step.
    """
    limits = [None if step.up_to is None else constant(step.up_to, 1) for step in steps]
    parts = fill_steps(column([used_before]), column([quantity]), limits)
    found = [(number, step, decimal(part, 0)) for number, (step, part) in enumerate(zip(steps, parts, strict=True), 1)]
    return [(number, step, part) for number, step, part in found if part > 0]

"""What is asked for energy: flat, by hours, by steps, by both, at market prices; funds on it, credits for export. Pure.

Several parts of a period: steps fill on from one to the next, each part at the prices of its own tariff.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

import numpy as np

from billing.calendar import spans, step_year_start
from billing.charges import Household, MarketCharge, NetMetering, StepAdder, StepCharge, StepTouCharge, TouCharge
from billing.kernel import Column, add, constant, divide, fill_steps, share_out
from billing.names import CARRIED_ON, PEOPLE, SURPLUS, TOTAL, market_name, step_tou_name, tou_name
from billing.rating.lines import LineColumn, Mask, Part, days_of
from billing.rating.tariff import periods_of, step_tou_table, steps_in

__all__ = ["market", "step_limits", "step_tou", "steps", "surplus", "tou"]

KWH = "kWh"

_LIMIT_PLACES = 4
_ENERGY_PLACES = 4


def tou(part: Part, charge: TouCharge) -> Iterator[LineColumn]:
    """One line for each TOU period, `energy_PERIOD`, also where no energy fell in it.

    A period the schedule leaves out, but a register of the meter has, gets a line only where there is energy in it.
    """
    priced = dict(charge.prices)
    window, zone_name = part.segment.window, part.segment.tariff.zone
    expected = {span.period for span in spans(charge.schedule, window, zone_name)} | {charge.rest}
    for period in periods_of(charge, window, zone_name):
        quantity, name = part.need(tou_name(period)), part.name(tou_name(period))
        text = part.text(f"{charge.text or 'energy'}, {period}")
        present = None if period in expected else _some(quantity)
        yield part.line(f"energy_{period}", text, quantity, KWH, priced[period], name, present)


# -- steps -------------------------------------------------------------------------------------------------------------


def step_limits(part: Part, charge: StepCharge | StepAdder | StepTouCharge) -> list[Column | None]:
    """The upper bound of each step for every account, kWh to four places; None: open.

    Raised for a large household (`people` of the account), then cut down where the account is in force for a part of
    the year (`months`: by months begun, twelfths) or of the month (`days`).
    """
    sheet, segment = part.sheet, part.segment
    written: Sequence[Decimal | None]
    if isinstance(charge, StepTouCharge):
        written = [s.up_to for s in step_tou_table(charge, segment.window, segment.tariff.zone).steps]
    else:
        written = [s.up_to for s in steps_in(charge, segment.window, segment.tariff.zone)]
    more = None if charge.household is None else _household(part, charge.household, yearly=charge.period == "year")
    numerator, denominator = _part_of(part, charge.period, charge.part)
    found: list[Column | None] = []
    for limit in written:
        if limit is None:
            found.append(None)
            continue
        raised = sheet.fixed(limit) if more is None else add(sheet.fixed(limit), more)
        if numerator != denominator:
            scaled = Column(raised.values * numerator, raised.places)
            raised = divide(scaled, sheet.fixed(Decimal(denominator)), _LIMIT_PLACES)
        found.append(raised)
    return found


def _household(part: Part, household: Household, *, yearly: bool) -> Column | None:
    """What the limits are raised by; nothing for an account that does not tell its people."""
    people = part.maybe(PEOPLE)
    if people is None:
        return None
    many = people.values >= household.people * 10**people.places
    if people.there is not None:
        many &= people.there
    extra = constant(household.kwh * (12 if yearly else 1), len(people))
    return Column(np.where(many, extra.values, 0), extra.places)


def _part_of(part: Part, period: str, rule: str) -> tuple[int, int]:
    """The share of a year or of a month that the limits hold for."""
    whole, zone_name = part.sheet.period, part.segment.tariff.zone
    if period == "year" and rule == "months":
        return whole.year_months, 12
    if period == "month" and rule == "days":
        return days_of(whole.window, zone_name), days_of(whole.month, zone_name)
    return 1, 1


def steps(part: Part, charge: StepCharge | StepAdder) -> Iterator[LineColumn]:
    """One line for each step with energy in it: `energy_stepN`, of an addition `stepN_adder`."""
    energy, name = part.sheet.energy(part.index)
    used = part.sheet.used(part.index, yearly=charge.period == "year")
    laid = fill_steps(used, energy, step_limits(part, charge))
    priced = steps_in(charge, part.segment.window, part.segment.tariff.zone)
    for number, (step, quantity) in enumerate(zip(priced, laid, strict=True), start=1):
        if isinstance(charge, StepAdder):
            if step.price == 0:
                continue  # nothing is added in this step
            code, text = f"step{number}_adder", f"{charge.text or 'addition'}, step {number}"
        else:
            code, text = f"energy_step{number}", f"{charge.text or 'energy'}, step {number}"
        yield part.line(code, part.text(text), quantity, KWH, step.price, name, _some(quantity))


def step_tou(part: Part, charge: StepTouCharge) -> Iterator[LineColumn]:
    """One line for each step and period with energy in it: `energy_stepN_PERIOD`."""
    window, zone_name = part.segment.window, part.segment.tariff.zone
    periods = periods_of(charge, window, zone_name)
    table = step_tou_table(charge, window, zone_name).steps
    chronological = charge.split == "chronological"
    laid = [] if chronological else _pro_rata(part, charge, periods)
    for number, step in enumerate(table, start=1):
        prices = dict(step.prices)
        for place, period in enumerate(periods):
            name = step_tou_name(number, period) if chronological else tou_name(period)
            quantity = part.need(name) if chronological else laid[number - 1][place]
            text = part.text(f"{charge.text or 'energy'}, step {number}, {period}")
            code = f"energy_step{number}_{period}"
            yield part.line(code, text, quantity, KWH, prices[period], part.name(name), _some(quantity))


def _pro_rata(part: Part, charge: StepTouCharge, periods: Sequence[str]) -> list[list[Column]]:
    """The energy of each step, shared out over the periods as the whole is."""
    energy, _ = part.sheet.energy(part.index)
    used = part.sheet.used(part.index, yearly=charge.period == "year")
    by_period = [part.need(tou_name(period)) for period in periods]
    laid = fill_steps(used, energy, step_limits(part, charge))
    return [share_out(quantity, by_period, _ENERGY_PLACES) for quantity in laid]


def _some(quantity: Column) -> Mask:
    found: Mask = np.asarray(quantity.values != 0, dtype=np.bool_)
    return found


# -- market, export ----------------------------------------------------------------------------------------------------


def market(part: Part, charge: MarketCharge) -> Iterator[LineColumn]:
    """The value of the energy at the prices of its time, times a factor (`CODE`); so much more a kWh (`CODE_adder`)."""
    value, words = part.need(market_name(charge.code)), charge.text or "energy at market prices"
    unit = part.segment.tariff.currency
    name = part.name(market_name(charge.code))
    yield part.line(charge.code, part.text(words), value, unit, charge.factor, name)
    if charge.adder:
        text = part.text(f"{words}, addition")
        yield part.line(f"{charge.code}_adder", text, part.need(TOTAL), KWH, charge.adder, part.name(TOTAL))


def surplus(part: Part, charge: NetMetering) -> Iterator[LineColumn]:
    """The credit for what was exported beyond the import; for the whole period, at its end.

    With `carry` only what is not kept for later: what was kept is told by `carried_on_kwh`; where that is not there,
    everything is kept until the last month of the year.
    """
    if part.index != len(part.sheet.period.segments) - 1:
        return
    quantity = part.sheet.need(SURPLUS)
    present = _some(quantity)
    if charge.carry:
        kept = part.sheet.columns.get(CARRIED_ON)
        if kept is not None and kept.there is None:
            present &= kept.values == 0
        elif not _last_of_year(part, charge):
            return
    text = charge.text or "export beyond import"
    yield part.line("export_credit", text, quantity, KWH, -charge.price, SURPLUS, present)


def _last_of_year(part: Part, charge: NetMetering) -> bool:
    end = part.sheet.period.month.end
    return step_year_start(end, charge.year_start, part.segment.tariff.zone) == end

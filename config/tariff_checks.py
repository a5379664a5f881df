"""What is wrong with a tariff as a whole, every problem at once: dates, doubled charges, steps, demand, bases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, timedelta, tzinfo
from decimal import Decimal

from billing.charges import (
    Calendar,
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
    Step,
    StepAdder,
    StepCharge,
    StepTable,
    StepTou,
    StepTouCharge,
    StepTouTable,
    Surcharge,
    Tariff,
    Tax,
    TouCharge,
)
from billing.model import MINOR_DIGITS
from billing.rating.rate import GROUPS
from config.tariff_hours import (
    Finding,
    check_calendar,
    check_demand_hours,
    check_months,
    check_step_tou_hours,
    check_tou_hours,
)
from headend.civil import day_start, zone
from headend.errors import Problem, UsageError
from headend.quantities import QUANTITIES, Kind

__all__ = ["check_tariff"]

_CODED = (FixedCharge, Surcharge, Tax, MarketCharge, DemandCharge)
_STEPS = (StepCharge, StepAdder, StepTouCharge)
_OWN_CODES = ("pf_adjust", "minimum", "export_credit", "adjustment", "rounding")
_OF_DEMAND = "basic_demand"


def check_tariff(tariff: Tariff, name: str = "", calendar: Calendar | None = None) -> list[Problem]:
    """What is wrong with a tariff: hours, steps, dates, zone, doubled charges. Empty if nothing is.

    calendar: the file's holidays and days worked, which a tariff without hours does not keep.
    """
    found: list[Finding] = list(_check_head(tariff))
    try:
        tz: tzinfo = zone(tariff.zone)
    except UsageError as error:
        found.append(("zone", f"unknown time zone {tariff.zone!r}", error.problem.remedy))
        tz = UTC
    found.extend(check_calendar(calendar or Calendar()))
    seen: dict[str, int] = {}
    for number, charge in enumerate(tariff.charges, start=1):
        where = f"charges[{number}]"
        key = f"code {charge.code!r}" if isinstance(charge, _CODED) else type(charge).__name__
        if key in seen:
            remedy = "give it a `code` of its own" if isinstance(charge, DemandCharge) else "put them in one"
            found.append((where, f"a second charge of the same kind as charges[{seen[key]}]", remedy))
        seen.setdefault(key, number)
        found.extend(_check_charge(charge, tariff, tz, where))
    found.extend(_check_together(tariff))
    prefix = f"{name}: " if name else ""
    return [Problem(prefix + where, what, remedy) for where, what, remedy in found]


def _check_head(tariff: Tariff) -> Iterator[Finding]:
    if not tariff.verified and not tariff.note:
        yield "note", "an unverified tariff says what was not checked", "write it in `note`"
    if tariff.valid_to is not None and tariff.valid_to <= tariff.valid_from:
        yield "valid_to", f"{tariff.valid_to} is not after valid_from {tariff.valid_from}", "mend the dates"
    if tariff.currency not in MINOR_DIGITS:
        yield "currency", f"{tariff.currency!r} is not a known currency", f"write one of {', '.join(MINOR_DIGITS)}"


def _check_charge(charge: Charge, tariff: Tariff, tz: tzinfo, where: str) -> Iterator[Finding]:
    match charge:
        case TouCharge():
            yield from check_tou_hours(charge, tariff, tz, where)
            yield from _check_registers(charge, where)
        case StepCharge() | StepAdder():
            yield from _check_steps(charge, where)
        case StepTouCharge():
            yield from _check_steps(charge, where)
            yield from check_step_tou_hours(charge, tariff, tz, where)
        case MarketCharge():
            yield from _check_market(charge, tariff, tz, where)
        case DemandCharge():
            yield from _check_demand(charge, where)
            yield from check_demand_hours(charge, where)
        case CapacityCharge(capacity_kva=capacity):
            yield from _above_zero({"capacity_kva": capacity}, where)
        case PowerFactorCharge() | Tax() | MinimumCharge():
            yield from _check_base(charge, tariff, where)
        case NetMetering():
            yield from _check_net(charge, tariff, where)
    if isinstance(charge, _CODED):
        yield from _check_code(charge, where)


def _check_code(charge: Charge, where: str) -> Iterator[Finding]:
    assert isinstance(charge, _CODED)
    code = charge.code
    if isinstance(charge, DemandCharge) and code == _OF_DEMAND:
        return
    if code.startswith(("energy", "step")):
        yield f"{where}.code", f"{code!r} could be taken for an energy line", "choose another code"
    elif code in _OWN_CODES or code.startswith("basic_"):
        yield f"{where}.code", f"{code!r} is the code of another line", "choose another code"


def _above_zero(named: dict[str, Decimal | None], where: str) -> Iterator[Finding]:
    for key, value in named.items():
        if value is not None and value <= 0:
            yield f"{where}.{key}", f"{key} {value} is not above 0", "write how much it is"


# -- steps and energy --------------------------------------------------------------------------------------------------


def _check_steps(charge: StepCharge | StepAdder | StepTouCharge, where: str) -> Iterator[Finding]:
    if charge.period == "year" and len(charge.tables) > 1:
        yield f"{where}.tables", "yearly steps have one table for all months", "keep one table without `months`"
    yield from _check_year_start(charge.year_start, where)
    tables: Sequence[StepTable | StepTouTable] = charge.tables
    for number, table in enumerate(tables, start=1):
        yield from _check_ascending(table.steps, "energy", "kWh", f"{where}.tables[{number}]")
    yield from check_months(
        [(f"{where}.tables[{n}]", t.months, ("all",)) for n, t in enumerate(tables, 1)], f"{where}.tables"
    )
    if charge.household is not None and charge.household.kwh <= 0:
        yield f"{where}.household.kwh", f"kwh {charge.household.kwh} is not above 0", "write how much it is"
    fits = {"month": ("whole", "days"), "year": ("whole", "months")}[charge.period]
    if charge.part not in fits:
        what = f"steps of a {charge.period} have no part by {charge.part}"
        yield f"{where}.part", what, f"write {' or '.join(map(repr, fits))}"


def _check_ascending(steps: Sequence[Step | StepTou], what_of: str, unit: str, where: str) -> Iterator[Finding]:
    """The limits rise, and the last step alone is open."""
    below = Decimal(0)
    for index, step in enumerate(steps, start=1):
        here, last = f"{where}.steps[{index}]", index == len(steps)
        if step.up_to is None and not last:
            yield here, "only the last step is open", "give it `up_to`"
        elif step.up_to is not None and last:
            yield here, f"{what_of} above {step.up_to} {unit} has no price", "add a step without `up_to`"
        if step.up_to is not None:
            if step.up_to <= below:
                what = f"up_to {step.up_to} is not above {below}"
                yield f"{here}.up_to", what, "write the steps in ascending order"
            below = max(below, step.up_to)


def _check_year_start(year_start: tuple[int, int], where: str) -> Iterator[Finding]:
    if year_start[1] != 1:
        what = f"a step year starts with a month, not on its day {year_start[1]}"
        yield f"{where}.year_start", what, "bills are for civil months: use the first of a month"


def _check_registers(charge: TouCharge, where: str) -> Iterator[Finding]:
    """The registers that measure the periods: energies of the table of quantities, one for each period."""
    priced, named = [period for period, _ in charge.prices], dict(charge.registers)
    for period, quantity in charge.registers:
        here = f"{where}.registers.{period}"
        known = QUANTITIES.get(quantity)
        if period not in priced:
            yield here, f"the period {period!r} has no price", "name the periods of `prices`"
        if known is None or known.kind is not Kind.REGISTER or known.unit != "kWh":
            yield here, f"{quantity!r} is no register of energy", "write one like import_kwh_t1"
        elif list(named.values()).count(quantity) > 1:
            yield here, f"{quantity!r} is the register of two periods", "give each period its own"
    if charge.measured_by == "registers" and (missing := [one for one in priced if one not in named]):
        what = f"no register for {', '.join(missing)}"
        yield f"{where}.registers", what, "name one for every period, or measure by intervals"
    if charge.measured_by == "registers" and charge.schedule.events:
        what = "the meter's own registers know nothing of what is called out"
        yield f"{where}.events", what, "measure by intervals"
    if charge.rest and charge.rest not in priced:
        yield f"{where}.rest", f"the period {charge.rest!r} has no price", "name a period of `prices`"


def _check_market(charge: MarketCharge, tariff: Tariff, tz: tzinfo, where: str) -> Iterator[Finding]:
    """The prices reach over all of the version's time."""
    yield from _above_zero({"factor": charge.factor}, where)
    series = charge.series
    end = series.start + len(series.prices) * timedelta(seconds=series.step_s)
    here = f"{where}.series"
    if series.start > day_start(tariff.valid_from, tz):
        what = f"its prices begin at {series.start.astimezone(tz):%Y-%m-%d %H:%M}, after valid_from"
        yield here, what, "add the prices before, or let the version begin later"
    if tariff.valid_to is None or day_start(tariff.valid_to, tz) > end:
        what = f"its prices end at {end.astimezone(tz):%Y-%m-%d %H:%M}"
        what += ", but the version has no end" if tariff.valid_to is None else f", before valid_to {tariff.valid_to}"
        yield here, what, "write valid_to no later than that; the prices to come belong to the next version"


# -- demand ------------------------------------------------------------------------------------------------------------


def _check_demand(charge: DemandCharge, where: str) -> Iterator[Finding]:
    hours, percent = charge.discount or (None, None)
    named = {"contract_kw": charge.contract_kw, "discount_hours": hours, "discount_percent": percent}
    for key, least in (("allowance", charge.allowance), ("excess_factor", charge.excess_factor)):
        if least < 1:
            yield f"{where}.{key}", f"{key} {least} is below 1", "write the whole factor, like 1.05 for 5 % more"
    yield from _above_zero(named, where)
    yield from _check_ascending(charge.steps, "demand", "kW", where)
    if charge.slide_min and (charge.source == "register" or charge.block_min % charge.slide_min):
        what = f"blocks of {charge.block_min} minutes can't start every {charge.slide_min} minutes"
        what = "a meter's register slides as the meter does" if charge.source == "register" else what
        yield f"{where}.sliding_min", what, "measure by intervals, with a divisor of block_min"
    if charge.period and charge.source == "register":
        what = "the meter keeps one maximum, not one for a period"
        yield f"{where}.period", what, 'write measured_by = "intervals"'
    if charge.ratchet is not None and not 1 <= charge.ratchet.percent <= 100:
        what = f"percent {charge.ratchet.percent} is not from 1 to 100"
        yield f"{where}.ratchet.percent", what, 'write it like "80"'


def _check_demands(tariff: Tariff) -> Iterator[Finding]:
    """Demands of one period are measured in one way, and ratchets look back in one way: each is one number a bill."""
    measured: dict[str, tuple[int, object]] = {}
    ratchet: tuple[int, object] | None = None
    codes = {charge.code for charge in tariff.charges if isinstance(charge, _CODED)}
    for number, charge in enumerate(tariff.charges, start=1):
        if not isinstance(charge, DemandCharge):
            continue
        block = None if charge.source == "register" else (charge.block_min, charge.slide_min or charge.block_min)
        way = (charge.source, block, charge.schedule)
        first, known = measured.setdefault(charge.period, (number, way))
        if known != way:
            what = f"charges[{first}] measures the same demand in another way"
            yield f"charges[{number}]", what, "measure both alike, or give one a period of another name"
        if charge.ratchet is not None:
            looks = (charge.ratchet.months, charge.ratchet.of_months, charge.period)
            ratchet = ratchet or (number, looks)
            if ratchet[1] != looks:
                what = f"charges[{ratchet[0]}] looks back at other months or another period"
                yield f"charges[{number}].ratchet", what, "let both look back alike"
        for code in codes:
            if re.fullmatch(rf"{charge.code}_(excess|discount|step\d+)", code):
                yield f"charges[{number}].code", f"{code!r} is a charge of its own", "choose another code"


# -- charges on others, and charges together ---------------------------------------------------------------------------


def _check_base(charge: PowerFactorCharge | Tax | MinimumCharge, tariff: Tariff, where: str) -> Iterator[Finding]:
    """What a charge on other charges is made on must be there, and each once."""
    kinds = tuple(kind for group in charge.base for kind in GROUPS[group])
    if not any(isinstance(one, kinds) for one in tariff.charges):
        yield f"{where}.base", f"the tariff has no charge of {', '.join(charge.base)}", "add one, or correct `base`"
    lists = {"base": charge.base} | ({"reactive": charge.reactive} if isinstance(charge, PowerFactorCharge) else {})
    for key, values in lists.items():
        for value in dict.fromkeys(one for one in values if values.count(one) > 1):
            yield f"{where}.{key}", f"{value!r} stands there twice", "write it once"


def _check_net(charge: NetMetering, tariff: Tariff, where: str) -> Iterator[Finding]:
    """Net metering nets whole months: periods, markets and steps of a year have no rule for it."""
    yield from _check_year_start(charge.year_start, where)
    for number, other in enumerate(tariff.charges, start=1):
        by_time = isinstance(other, (TouCharge, StepTouCharge, MarketCharge))
        if by_time or (isinstance(other, _STEPS) and other.period == "year"):
            what = f"net metering has no rule for charges[{number}]: periods and yearly steps are not netted"
            yield where, what, "use `energy` or monthly steps, or `export_credit` instead"
        if isinstance(other, ExportCredit):
            yield where, f"charges[{number}] credits the same energy", "keep one of them"
    if not any(isinstance(one, (EnergyCharge, StepCharge)) for one in tariff.charges):
        yield where, "there is no price of energy to net", "add a charge of kind `energy` or `step`"


def _check_together(tariff: Tariff) -> Iterator[Finding]:
    """What no charge is wrong in by itself."""
    if len({c.year_start for c in tariff.charges if isinstance(c, _STEPS) and c.period == "year"}) > 1:
        yield "charges", "two step years with different starts", "give both the same year_start"
    kinds = {type(charge): number for number, charge in enumerate(tariff.charges, start=1)}
    if TouCharge in kinds and StepTouCharge in kinds:
        what = f"charges[{kinds[TouCharge]}] and charges[{kinds[StepTouCharge]}] both price the energy of periods"
        yield "charges", what, "put both prices into the table of `step_tou`, or write `step_adder` beside `tou`"
    if StepTouCharge in kinds and (StepCharge in kinds or StepAdder in kinds):
        what = f"charges[{kinds[StepTouCharge]}] has steps, and another charge has steps too"
        yield "charges", what, "put both into the table of `step_tou`"
    yield from _check_demands(tariff)

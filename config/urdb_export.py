"""A tariff as a rate of the OpenEI Utility Rate Database (the JSON of its API, version 8), as far as its form reaches.

URDB has hours of whole clock hours on weekdays and weekends, tiers that fill over a month, and dollars. What a tariff
has beyond that is told, each thing by its place, and not written.
"""

from __future__ import annotations

import calendar
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any, Final

from billing.calendar import season_of
from billing.charges import (
    Charge,
    DemandCharge,
    EnergyCharge,
    FixedCharge,
    MinimumCharge,
    Schedule,
    Step,
    StepAdder,
    StepCharge,
    StepTouCharge,
    Surcharge,
    Tariff,
    TouCharge,
)
from headend.errors import Problem

__all__ = ["Exported", "to_urdb"]

_REMEDY: Final = "URDB has no place for it: --partial leaves it out"
_MONTHS: Final = range(1, 13)
_HOUR_MIN: Final = 60
_RATCHET_MONTHS: Final = (11, 12)

Tiers = tuple[tuple[Decimal | None, Decimal], ...]
Day = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Exported:
    """The rate, and what of the tariff is not in it."""

    item: dict[str, Any]
    left_out: tuple[Problem, ...]

    @property
    def text(self) -> str:
        """The JSON, as an answer of the API has it; numbers are written as they are in the tariff."""
        return _json({"items": [self.item]}) + "\n"


@dataclass(slots=True)
class _Rate:
    tariff: Tariff
    item: dict[str, Any] = field(default_factory=dict)
    left_out: list[Problem] = field(default_factory=list)

    def leave_out(self, charge: Charge | None, what: str) -> None:
        number = "" if charge is None else f": charges[{self.tariff.charges.index(charge) + 1}]"
        self.left_out.append(Problem(f"{self.tariff.id}{number}", what, _REMEDY))


def to_urdb(tariff: Tariff) -> Exported:
    """The rate of a tariff, and what can't be said in it."""
    rate = _Rate(tariff)
    _head(rate)
    _energy(rate)
    _demand(rate)
    _amounts(rate)
    for charge in tariff.charges:
        if not isinstance(charge, _TAKEN):
            rate.leave_out(charge, f"a charge of this kind: {type(charge).__name__}")
    return Exported(rate.item, tuple(rate.left_out))


_TAKEN: Final = (
    EnergyCharge, TouCharge, StepCharge, StepAdder, StepTouCharge, DemandCharge, FixedCharge, MinimumCharge, Surcharge,
)  # fmt: skip


def _head(rate: _Rate) -> None:
    one = rate.tariff
    rate.item |= {"label": one.version, "name": one.title, "source": one.source, "startdate": _seconds(one.valid_from)}
    if one.valid_to is not None:
        rate.item["enddate"] = _seconds(one.valid_to)
    if one.currency != "USD":
        rate.leave_out(None, f"prices in {one.currency}: the numbers of URDB are dollars")
    if one.policy.rounding != "line":
        rate.leave_out(None, "rounding of the bill as a whole")


def _seconds(day: date) -> int:
    return calendar.timegm(day.timetuple())


# -- energy ------------------------------------------------------------------------------------------------------------


def _energy(rate: _Rate) -> None:
    """All prices of energy together: for each hour of the year one row of tiers."""
    found: dict[type[Charge], Any] = {}
    for charge in rate.tariff.charges:
        if isinstance(charge, (EnergyCharge, TouCharge, StepCharge, StepAdder, StepTouCharge)):
            if isinstance(charge, (StepCharge, StepAdder, StepTouCharge)) and not _monthly(rate, charge):
                continue
            schedule = getattr(charge, "schedule", None)
            if isinstance(schedule, Schedule) and not _on_the_hour(rate, charge, schedule):
                continue
            found[type(charge)] = charge
    if not found:
        return
    tables: list[tuple[list[Day], list[Day]]] = [_hours(charge) for charge in found.values()]
    weeks = [
        [tuple(_sum([table[kind][month][hour] for table in tables]) for hour in range(24)) for month in range(12)]
        for kind in (0, 1)
    ]
    _write(rate, "energy", "energyratestructure", weeks, "kWh")


def _monthly(rate: _Rate, charge: StepCharge | StepAdder | StepTouCharge) -> bool:
    if charge.period == "year":
        rate.leave_out(charge, "steps that fill over a year")
        return False
    if charge.household is not None:
        rate.leave_out(charge, "limits by the size of the household")
    if isinstance(charge, StepTouCharge) and charge.split == "chronological":
        rate.leave_out(charge, "steps that fill in the order of time; tiers of URDB are of the month's sum")
    return True


def _on_the_hour(rate: _Rate, charge: Charge, schedule: Schedule) -> bool:
    edges = {edge for s in schedule.seasons for w in s.windows for edge in (w.start_min, w.end_min)}
    if any(edge % _HOUR_MIN for edge in edges):
        rate.leave_out(charge, "hours that do not begin on the hour")
        return False
    if schedule.events:
        rate.leave_out(charge, "events")
    if schedule.calendar.holidays or schedule.calendar.workdays:
        rate.leave_out(charge, "holidays and days worked")
    return True


def _hours(charge: Charge) -> tuple[list[Day], list[Day]]:
    """For weekdays and weekends, for each month, the tiers of each hour that one charge asks for."""
    kinds = []
    for kind in ("weekday", "weekend"):
        kinds.append([_day(charge, month, kind) for month in _MONTHS])
    return kinds[0], kinds[1]


def _day(charge: Charge, month: int, kind: str) -> Day:
    match charge:
        case EnergyCharge(price=price):
            return (((None, price),),) * 24
        case StepCharge() | StepAdder():
            table = next(t for t in charge.tables if month in t.months)
            return (tuple((s.up_to, s.price) for s in table.steps),) * 24
        case TouCharge(prices=prices):
            priced = dict(prices)
            return tuple(((None, priced[period]),) for period in _periods(charge.schedule, month, kind))
        case StepTouCharge():
            rows = next(t for t in charge.tables if month in t.months)
            return tuple(
                tuple((s.up_to, dict(s.prices)[period]) for s in rows.steps)
                for period in _periods(charge.schedule, month, kind)
            )
        case _:
            raise AssertionError("no price of energy")


def _periods(schedule: Schedule, month: int, kind: str) -> list[str]:
    """The period of each hour of a day."""
    season = season_of(schedule, month, kind)
    windows = () if season is None else season.windows
    return [next(w.period for w in windows if w.start_min <= hour * 60 < w.end_min) for hour in range(24)]


def _sum(rows: Sequence[Tiers]) -> Tiers:
    """Prices that are asked for together, with the limits of all."""
    limits = sorted({limit for row in rows for limit, _ in row if limit is not None})
    return tuple((limit, sum((_below(row, limit) for row in rows), Decimal(0))) for limit in [*limits, None])


def _below(row: Tiers, limit: Decimal | None) -> Decimal:
    return next(price for up_to, price in row if up_to is None or (limit is not None and limit <= up_to))


def _write(rate: _Rate, what_of: str, key: str, weeks: Sequence[Sequence[Day]], unit: str) -> None:
    """Rows of tiers by hour as numbered periods and the two schedules."""
    numbers: dict[Tiers, int] = {}
    for kind, name in enumerate(("weekday", "weekend")):
        rate.item[f"{what_of}{name}schedule"] = [
            [numbers.setdefault(tiers, len(numbers)) for tiers in day] for day in weeks[kind]
        ]
    rate.item[key] = [_tiers(tiers, unit) for tiers in numbers]


def _tiers(tiers: Tiers, unit: str) -> list[dict[str, Any]]:
    return [{**({} if up_to is None else {"max": up_to}), "rate": price, "unit": unit} for up_to, price in tiers]


# -- demand ------------------------------------------------------------------------------------------------------------


def _demand(rate: _Rate) -> None:
    demands = [charge for charge in rate.tariff.charges if isinstance(charge, DemandCharge) and _fits(rate, charge)]
    flat, by_time = [c for c in demands if c.schedule is None], [c for c in demands if c.schedule is not None]
    if demands:
        rate.item |= {"demandwindow": demands[0].block_min}
        for charge in demands:
            if charge.block_min != demands[0].block_min:
                rate.leave_out(charge, f"a demand over {charge.block_min} minutes beside one of another length")
    if flat:
        rows = [_sum([_steps(c) for c in flat if month in c.months] or [((None, Decimal(0)),)]) for month in _MONTHS]
        numbers = {tiers: number for number, tiers in enumerate(dict.fromkeys(rows))}
        rate.item["flatdemandstructure"] = [_tiers(tiers, "kW") for tiers in numbers]
        rate.item["flatdemandmonths"] = [numbers[tiers] for tiers in rows]
        rate.item["flatdemandunit"] = "kW"
    fitting = [c for c in by_time if c.schedule is not None and _on_the_hour(rate, c, c.schedule)]
    schedules = {c.schedule for c in fitting}
    if len(schedules) > 1:
        rate.leave_out(fitting[1], "demand by hours that differ from those of another demand")
    elif fitting:
        weeks = [[tuple(_demand_hours(fitting, month, kind)) for month in _MONTHS] for kind in ("weekday", "weekend")]
        _write(rate, "demand", "demandratestructure", weeks, "kW")
        rate.item["demandrateunit"] = "kW"


def _demand_hours(charges: Sequence[DemandCharge], month: int, kind: str) -> Iterator[Tiers]:
    schedule = charges[0].schedule
    assert schedule is not None
    for period in _periods(schedule, month, kind):
        mine = [_steps(c) for c in charges if c.period == period and month in c.months]
        yield _sum(mine or [((None, Decimal(0)),)])


def _steps(charge: DemandCharge) -> Tiers:
    steps: Sequence[Step] = charge.steps or (Step(None, charge.price),)
    return tuple((step.up_to, step.price) for step in steps)


def _fits(rate: _Rate, charge: DemandCharge) -> bool:
    """Whether a demand can be written; what of it can't is told."""
    if charge.contracted or charge.contract_kw is not None:
        rate.leave_out(charge, "a demand by contract")
        return False
    if charge.source == "register":
        rate.leave_out(charge, "that the demand is the meter's own maximum")
    if charge.slide_min:
        rate.leave_out(charge, "blocks that slide")
    if charge.ratchet is not None:
        if charge.ratchet.months in _RATCHET_MONTHS and len(charge.ratchet.of_months) == 12:
            rate.item["demandratchetpercentage"] = [charge.ratchet.percent / 100] * 12
        else:
            rate.leave_out(charge, "a ratchet that does not look back at a year")
    return True


# -- amounts -----------------------------------------------------------------------------------------------------------


def _amounts(rate: _Rate) -> None:
    """Fixed amounts, the minimum, and what is added to every kWh."""
    fixed = [charge.amount for charge in rate.tariff.charges if isinstance(charge, FixedCharge)]
    added = [charge.price for charge in rate.tariff.charges if isinstance(charge, Surcharge)]
    if fixed:
        rate.item |= {"fixedchargefirstmeter": sum(fixed, Decimal(0)), "fixedchargeunits": "$/month"}
    if added:
        rate.item["fueladjustmentsmonthly"] = [sum(added, Decimal(0))] * 12
    for charge in rate.tariff.charges:
        if isinstance(charge, MinimumCharge):
            rate.item |= {"mincharge": charge.amount, "minchargeunits": "$/month"}
            if set(charge.base) != {"energy", "demand", "surcharge", "fixed", "power_factor"}:
                rate.leave_out(charge, f"a minimum of {', '.join(charge.base)} only")


def _json(value: Any) -> str:
    """JSON with decimal numbers as they are written: no binary fraction comes between."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_json(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)

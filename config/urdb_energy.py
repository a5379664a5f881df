"""The energy prices of a URDB rate as charges of ours: energy, step, tou with step_adder, or step_tou; or why none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from config.problems import shown
from config.urdb_toml import PricedSteps, Steps, charge_energy, charge_step_tou, charge_steps, charge_tou

__all__ = ["TOO_LONG", "Found", "Table", "energy_tables", "named_weeks", "rounded", "steps_of", "weeks_of"]

_STRUCTURE: Final = "energyratestructure"
_PLACES: Final = Decimal(1).scaleb(-8)
_HOURS: Final = 24
_OPEN: Final = Decimal(10_000_000)  # a limit no household or works reaches stands for none
TOO_LONG: Final = 12
"""Power of ten that no number of a rate reaches."""

_TIER_KEYS: Final = ("max", "rate", "adj", "unit", "sell")

Row = tuple[int, ...]
Table = list[tuple[Row, Row]]
"""For each month the periods of the hours of a weekday and of a day of the weekend."""


@dataclass(slots=True)
class Found:
    """What can't be taken as it is: (key, what, remedy) that makes no sense, (key, what) that can't be expressed."""

    wrong: list[tuple[str, str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def energy_tables(structure: Any, weekday: Any, weekend: Any, found: Found) -> list[str]:
    """The charges for energy; none where something in it is wrong or refused, which `found` tells."""
    count = len(structure) if isinstance(structure, list) else 0
    if not count:
        found.wrong.append((_STRUCTURE, "is no list of periods", "ask the API with detail=full"))
        return []
    if weekday is None and weekend is None and count == 1:
        found.notes.append("the rate has no schedule: its one period is taken for all hours")
        weeks: Table | None = [((0,) * _HOURS, (0,) * _HOURS)] * 12
    else:
        weeks = weeks_of(weekday, weekend, count, found, "energy")
    if weeks is None:
        return []
    used = sorted({period for week in weeks for row in week for period in row})
    unused = [number for number in range(count) if number not in used]
    if unused:
        found.notes.append(f"no hour is in period {', '.join(map(str, unused))}: left out")
    before = len(found.wrong) + len(found.refused)
    steps = {number: steps_of(structure[number], f"{_STRUCTURE}[{number}]", found) for number in used}
    if len(found.wrong) + len(found.refused) > before:
        return []
    by_month = [sorted(set(week[0]) | set(week[1])) for week in weeks]
    if all(len(periods) == 1 for periods in by_month):
        return [_by_steps([steps[periods[0]] for periods in by_month])]
    return _by_time(weeks, by_month, steps)


def _by_steps(months: Sequence[Steps]) -> str:
    """No time of use: one price, or steps and prices that may depend on the month."""
    tables = _grouped(months)
    if len(tables) == 1 and len(months[0]) == 1:
        return charge_energy(months[0][0][1])
    return charge_steps("step", tables)


def _by_time(weeks: Table, by_month: list[list[int]], steps: dict[int, Steps]) -> list[str]:
    """Time of use: a price for each period, and an addition by steps where that is the same in all periods of a month;
    else a table of prices by step and period."""
    additions = [{_additions(steps[period]) for period in periods} for periods in by_month]
    named = named_weeks(weeks)
    if any(len(one) > 1 for one in additions):
        tables: dict[PricedSteps, list[int]] = {}
        for month, periods in enumerate(by_month, start=1):
            tables.setdefault(_together({number: steps[number] for number in periods}), []).append(month)
        return [charge_step_tou(tables, named)]
    prices = {f"period{number}": one[0][1] for number, one in steps.items()}
    charges = [charge_tou(prices, named)]
    adders = [one.pop() for one in additions]
    if any(len(one) > 1 for one in adders):
        charges.append(charge_steps("step_adder", _grouped(adders)))
    return charges


def _together(steps: dict[int, Steps]) -> PricedSteps:
    """The steps of several periods, which may have other limits, as one row of steps with a price for each period."""
    limits = sorted({limit for one in steps.values() for limit, _ in one if limit is not None})
    return tuple(
        (limit, tuple((f"period{number}", _price_below(one, limit)) for number, one in steps.items()))
        for limit in [*limits, None]
    )


def _price_below(steps: Steps, limit: Decimal | None) -> Decimal:
    """The price of the energy just up to `limit`; None: of that above all limits."""
    return next(price for up_to, price in steps if up_to is None or (limit is not None and limit <= up_to))


def named_weeks(weeks: Table) -> dict[tuple[Sequence[str], Sequence[str]], list[int]]:
    """The weeks of the months with periods by name, and the months that have them."""
    named: dict[tuple[Sequence[str], Sequence[str]], list[int]] = {}
    for number, (workday, restday) in enumerate(weeks, start=1):
        key = (tuple(f"period{p}" for p in workday), tuple(f"period{p}" for p in restday))
        named.setdefault(key, []).append(number)
    return named


def _additions(steps: Steps) -> Steps:
    return tuple((limit, _short(price - steps[0][1])) for limit, price in steps)


def _grouped(months: Sequence[Steps]) -> dict[Steps, list[int]]:
    groups: dict[Steps, list[int]] = {}
    for number, steps in enumerate(months, start=1):
        groups.setdefault(steps, []).append(number)
    return groups


def weeks_of(weekday: Any, weekend: Any, count: int, found: Found, what_of: str) -> Table | None:
    """The two schedules of `energy` or `demand` as one table; None, with what is wrong, where they are none."""
    tables = []
    for key, table in ((f"{what_of}weekdayschedule", weekday), (f"{what_of}weekendschedule", weekend)):
        rows = table if isinstance(table, list) else []
        if len(rows) != 12 or not all(isinstance(row, list) and len(row) == _HOURS for row in rows):
            found.wrong.append((key, "is no table of 12 months by 24 hours", "ask the API with detail=full"))
            continue
        bad = {shown(cell) for row in rows for cell in row if type(cell) is not int or not 0 <= cell < count}
        if bad:
            are = "is" if len(bad) == 1 else "are"
            what = f"{', '.join(sorted(bad))}: there {are} no such period in {what_of}ratestructure"
            found.wrong.append((key, what, f"periods are numbered from 0 to {count - 1}"))
            continue
        tables.append([tuple(row) for row in rows])
    return list(zip(*tables, strict=True)) if len(tables) == 2 else None


def steps_of(tiers: Any, where: str, found: Found, unit: str = "kWh") -> Steps:
    """The tiers of a period as steps, prices for `unit`."""
    if not isinstance(tiers, list) or not tiers or not all(isinstance(tier, dict) for tier in tiers):
        found.wrong.append((where, "is no list of tiers", "ask the API with detail=full"))
        return ()
    steps: list[tuple[Decimal | None, Decimal]] = []
    below = Decimal(0)
    for number, tier in enumerate(tiers):
        here, last = f"{where}[{number}]", number == len(tiers) - 1
        _tier_extras(tier, here, found, unit)
        limit = _number(tier, "max", here, found)
        price = (_number(tier, "rate", here, found) or Decimal(0)) + (_number(tier, "adj", here, found) or Decimal(0))
        if tier.get("rate") is None:
            found.notes.append(f"{here} has no rate: it is taken for 0")
        if last and limit is not None:
            if limit < _OPEN:
                found.notes.append(f"{here}.max {limit:f} is left out: what lies above has the price of this last tier")
            limit = None
        elif not last and (limit is None or limit <= below):
            what = "no max, though a tier follows" if limit is None else f"max {limit:f} is not above {below:f}"
            found.wrong.append((here, what, "max is counted from the start of the month, in ascending order"))
        steps.append((limit, rounded(price, here, found.notes)))
        below = limit or below
    return tuple(steps)


def _tier_extras(tier: dict[str, Any], here: str, found: Found, unit: str) -> None:
    if (given := tier.get("unit")) not in (None, "", unit):
        found.refused.append((f"{here}.unit", f"{shown(given)}: only prices and limits for {unit} can be expressed"))
    if tier.get("sell") not in (None, 0):
        found.refused.append((f"{here}.sell", f"{tier['sell']}: a price for energy fed in, by period or tier"))
    for key in tier:
        if key not in _TIER_KEYS and tier[key] not in (None, 0, ""):
            found.refused.append((f"{here}.{key}", f"an unknown field, {shown(tier[key])}"))


def _number(tier: dict[str, Any], key: str, here: str, found: Found) -> Decimal | None:
    value = tier.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        found.wrong.append((f"{here}.{key}", f"{shown(value)} is no number", "write a JSON number"))
        return None
    if key == "max" and Decimal(value).adjusted() >= TOO_LONG and value > 0:
        return None  # as 1e+38, which stands for no limit
    if Decimal(value).adjusted() >= TOO_LONG:
        found.wrong.append((f"{here}.{key}", f"{shown(value)} is out of range", "correct it"))
        return None
    return rounded(Decimal(value), f"{here}.{key}", found.notes)


def rounded(value: Decimal, here: str, notes: list[str]) -> Decimal:
    """With eight places at most and no zeros behind; JSON from binary fractions has more."""
    short = value.quantize(_PLACES) if value.as_tuple().exponent < -8 else value  # type: ignore[operator]
    if short != value:
        notes.append(f"{here}: {value:f} is rounded to eight places")
    return _short(short)


def _short(value: Decimal) -> Decimal:
    plain = value.normalize()
    return plain if plain.as_tuple().exponent <= 0 else plain.quantize(Decimal(1))  # type: ignore[operator]

"""The energy prices of a URDB rate as charges of ours: which of energy, step, tou and step_adder, or why none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from config.problems import shown
from config.urdb_toml import Steps, charge_energy, charge_steps, charge_tou

__all__ = ["TOO_LONG", "Found", "energy_tables", "rounded", "steps_of"]

_STRUCTURE: Final = "energyratestructure"
_PLACES: Final = Decimal(1).scaleb(-8)
_HOURS: Final = 24
_OPEN: Final = Decimal(10_000_000)  # a limit no household or works reaches stands for none
TOO_LONG: Final = 12
"""Power of ten that no number of a rate reaches."""

_TIER_KEYS: Final = ("max", "rate", "adj", "unit", "sell")

Row = tuple[int, ...]
Weeks = list[tuple[Row, Row]]


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
        weeks: Weeks | None = [((0,) * _HOURS, (0,) * _HOURS)] * 12
    else:
        weeks = _weeks(weekday, weekend, count, found)
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
    return _by_time(weeks, by_month, steps, found)


def _by_steps(months: Sequence[Steps]) -> str:
    """No time of use: one price, or steps and prices that may depend on the month."""
    tables = _grouped(months)
    if len(tables) == 1 and len(months[0]) == 1:
        return charge_energy(months[0][0][1])
    return charge_steps("step", tables)


def _by_time(weeks: Weeks, by_month: list[list[int]], steps: dict[int, Steps], found: Found) -> list[str]:
    """Time of use: a price for each period, and an addition by steps that is the same in all periods of a month."""
    adders: list[Steps] = []
    unlike: dict[str, list[int]] = {}
    for number, periods in enumerate(by_month, start=1):
        additions = {_additions(steps[period]) for period in periods}
        if len(additions) > 1:
            unlike.setdefault(", ".join(map(str, periods)), []).append(number)
        adders.append(additions.pop())
    for names, months in unlike.items():
        what = (
            f"in month {', '.join(map(str, months))} the steps of periods {names} differ in limits or in what they add"
        )
        found.refused.append((_STRUCTURE, what))
    if found.refused:
        return []
    prices = {f"period{number}": one[0][1] for number, one in steps.items()}
    named: dict[tuple[Sequence[str], Sequence[str]], list[int]] = {}
    for number, (workday, restday) in enumerate(weeks, start=1):
        key = (tuple(f"period{p}" for p in workday), tuple(f"period{p}" for p in restday))
        named.setdefault(key, []).append(number)
    charges = [charge_tou(prices, named)]
    if any(len(one) > 1 for one in adders):
        charges.append(charge_steps("step_adder", _grouped(adders)))
    return charges


def _additions(steps: Steps) -> Steps:
    return tuple((limit, _short(price - steps[0][1])) for limit, price in steps)


def _grouped(months: Sequence[Steps]) -> dict[Steps, list[int]]:
    groups: dict[Steps, list[int]] = {}
    for number, steps in enumerate(months, start=1):
        groups.setdefault(steps, []).append(number)
    return groups


def _weeks(weekday: Any, weekend: Any, count: int, found: Found) -> Weeks | None:
    """For each month the periods of the hours of a weekday and of a day of the weekend."""
    tables = []
    for key, table in (("energyweekdayschedule", weekday), ("energyweekendschedule", weekend)):
        rows = table if isinstance(table, list) else []
        if len(rows) != 12 or not all(isinstance(row, list) and len(row) == _HOURS for row in rows):
            found.wrong.append((key, "is no table of 12 months by 24 hours", "ask the API with detail=full"))
            continue
        bad = {shown(cell) for row in rows for cell in row if type(cell) is not int or not 0 <= cell < count}
        if bad:
            what = f"{', '.join(sorted(bad))}: there {'is' if len(bad) == 1 else 'are'} no such period in {_STRUCTURE}"
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

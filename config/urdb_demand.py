"""The demand prices of a URDB rate as charges of ours: of all hours, by months and tiers; by time of use; ratchets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from config.problems import shown
from config.urdb_energy import Found, named_weeks, steps_of, weeks_of
from config.urdb_toml import DemandText, Steps, charge_demand

__all__ = ["BLOCKS_MIN", "demand_charges", "says_nothing"]

BLOCKS_MIN: Final = (5, 10, 15, 20, 30, 60)
_FLAT: Final = "flatdemandstructure"
_TOU: Final = "demandratestructure"
_PER_MONTH: Final = "demandratchetpercentage"
_MONTHS: Final = tuple(range(1, 13))
_BACK: Final = 11
"""Months before the billed one that make, with it, the year that a ratchet of URDB looks at."""

Ratchet = tuple[int, Decimal, Sequence[int]]


def says_nothing(value: object) -> bool:
    """Whether a field says nothing: null, empty, zero, false, or lists and tables of such."""
    if isinstance(value, Mapping):
        return all(says_nothing(one) for one in value.values())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return all(says_nothing(one) for one in value)
    return value is None or value in ("", 0, False)


def demand_charges(item: Mapping[str, Any], found: Found) -> list[str]:
    """The charges for demand; none where something in it is wrong or refused, which `found` tells."""
    before = len(found.wrong) + len(found.refused)
    block_min = _block(item, found)
    made = [*_flat(item, block_min, found), *_by_time(item, block_min, found)]
    ratchet = _ratchet(item, found)
    if ratchet is not None and made:
        made = _ratcheted(made, ratchet, found)
    elif ratchet is not None:
        found.notes.append("a ratchet is left out: the rate has no price for demand")
    if len(found.wrong) + len(found.refused) > before:
        return []
    return [charge_demand(one) for one in made]


def _block(item: Mapping[str, Any], found: Found) -> int:
    if says_nothing(item.get(_FLAT)) and says_nothing(item.get(_TOU)):
        return 15
    window = item.get("demandwindow")
    if says_nothing(window):
        found.notes.append("the rate has no demandwindow: demand is taken over 15 minutes")
        return 15
    if window not in BLOCKS_MIN:
        what = f"{shown(window)} minutes: only {', '.join(map(str, BLOCKS_MIN))} can be expressed"
        found.refused.append(("demandwindow", what))
        return 15
    return int(str(window))


def _unit(item: Mapping[str, Any], key: str, found: Found) -> None:
    if item.get(key) not in (None, "", "kW"):
        found.refused.append((key, f"{shown(item[key])}: only a price for kW can be expressed"))


def _flat(item: Mapping[str, Any], block_min: int, found: Found) -> list[DemandText]:
    """Prices for the month's highest demand: one charge for each period of flatdemandmonths."""
    structure, months = item.get(_FLAT), item.get("flatdemandmonths")
    if says_nothing(structure):
        return []
    used = months if isinstance(months, list) and len(months) == 12 else [0] * 12
    if (not says_nothing(months) and used is not months) or not isinstance(structure, list):
        found.wrong.append(("flatdemandmonths", "is no list of 12 periods", "ask the API with detail=full"))
        return []
    if not all(type(n) is int and 0 <= n < len(structure) for n in used):
        what = "is no list of periods that flatdemandmonths chooses from"
        found.wrong.append((_FLAT, what, "ask the API with detail=full"))
        return []
    _unit(item, "flatdemandunit", found)
    groups: dict[int, list[int]] = {}
    for month, number in enumerate(used, start=1):
        groups.setdefault(number, []).append(month)
    steps = {number: steps_of(structure[number], f"{_FLAT}[{number}]", found, "kW") for number in sorted(groups)}
    priced = {number: one for number, one in steps.items() if not _free(one)}
    alone = len(set(priced.values())) == 1 and len(priced) == len(groups)
    if alone:
        return [DemandText("basic_demand", next(iter(priced.values())), block_min, _MONTHS)]
    return [DemandText(f"flat_demand{n}", one, block_min, groups[n]) for n, one in priced.items()]


def _by_time(item: Mapping[str, Any], block_min: int, found: Found) -> list[DemandText]:
    """Prices for the highest demand within the hours of a period: one charge for each period."""
    structure = item.get(_TOU)
    if says_nothing(structure):
        return []
    if not isinstance(structure, list):
        found.wrong.append((_TOU, "is no list of periods", "ask the API with detail=full"))
        return []
    _unit(item, "demandrateunit", found)
    weekday, weekend = item.get("demandweekdayschedule"), item.get("demandweekendschedule")
    weeks = weeks_of(weekday, weekend, len(structure), found, "demand")
    if weeks is None:
        return []
    named = named_weeks(weeks)
    made = []
    for number, tiers in enumerate(structure):
        months = [month for month, week in enumerate(weeks, start=1) if number in week[0] or number in week[1]]
        steps = steps_of(tiers, f"{_TOU}[{number}]", found, "kW") if months else ()
        if months and not _free(steps):
            made.append(DemandText(f"tou_demand{number}", steps, block_min, months, f"period{number}", named))
    return made


def _free(steps: Steps) -> bool:
    return all(price == 0 for _, price in steps)


def _ratchet(item: Mapping[str, Any], found: Found) -> Ratchet | None:
    """What earlier months hold a demand up to: by `demandratchetpercentage`, or by lookbackPercent and its months."""
    monthly = item.get(_PER_MONTH)
    key = "lookbackpercent" if "lookbackpercent" in item else "lookbackPercent"
    percent = item.get(key)
    if not says_nothing(monthly) and not says_nothing(percent):
        found.refused.append((_PER_MONTH, "two ratchets, by months and by lookbackPercent"))
        return None
    if not says_nothing(monthly):
        each = monthly if isinstance(monthly, list) else [monthly]
        if len(set(each)) > 1 or len(each) not in (1, 12):
            found.refused.append((_PER_MONTH, "percentages that change by the month can't be expressed"))
            return None
        found.notes.append(f"{_PER_MONTH} is taken of the highest demand of the {_BACK} months before")
        return _percent(each[0], _PER_MONTH, _BACK, _MONTHS, found)
    if says_nothing(percent):
        return None
    back = item.get("lookbackRange", item.get("lookbackrange"))
    months = item.get("lookbackMonths", item.get("lookbackmonths"))
    of = _MONTHS
    if says_nothing(back) and isinstance(months, list) and len(months) == 12 and not says_nothing(months):
        of = tuple(number for number, is_one in enumerate(months, start=1) if is_one)
        found.notes.append(f"lookbackMonths: of those among the {_BACK} months before")
        back = _BACK
    if type(back) is not int or not 1 <= back <= 36:
        found.refused.append((key, "a ratchet without lookbackRange or lookbackMonths"))
        return None
    return _percent(percent, key, back, of, found)


def _percent(value: object, key: str, back: int, of: Sequence[int], found: Found) -> Ratchet | None:
    """A share of 1 as percent."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not 0 < value <= 1:
        found.refused.append((key, f"{shown(value)}: only a share above 0 and up to 1 can be expressed"))
        return None
    return back, Decimal(value) * 100, of


def _ratcheted(made: list[DemandText], ratchet: Ratchet, found: Found) -> list[DemandText]:
    """The ratchet on the demand of all hours; without one, on the only period that is priced."""
    flat = [one for one in made if not one.period]
    if not flat and len({one.period for one in made}) > 1:
        found.refused.append(("demandratchetpercentage", "a ratchet on demand of several periods can't be expressed"))
        return made
    if flat and len(flat) < len(made):
        found.notes.append("the ratchet is taken to hold for the demand of all hours, not for that by time of use")
    return [_with(one, ratchet) if one in (flat or made) else one for one in made]


def _with(one: DemandText, ratchet: Ratchet) -> DemandText:
    return DemandText(one.code, one.steps, one.block_min, one.months, one.period, one.weeks, ratchet)

"""The tariffs of a town file, for the true bills only; the head-end has its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from simulators.toml_table import Table
from simulators.truth_bills import MonthStep, Season, Tariff, Tou, TwoPart, YearStep, YearStepTou, price_units

__all__ = ["KINDS", "minutes", "read_tariffs"]

KINDS = ("year-step", "month-step", "tou", "year-step-tou", "two-part")
_DAY_MIN = 24 * 60


def read_tariffs(tables: list[Table]) -> dict[str, Tariff]:
    """Tariffs by id; problems go into the tables' list."""
    tariffs: dict[str, Tariff] = {}
    for table in tables:
        name = table.text("id")
        if name in tariffs:
            table.wrong("id", f"{name} stands there twice", "give each tariff its own id")
        tariffs[name] = _tariff(table)
        table.done()
    return tariffs


def _tariff(table: Table) -> Tariff:
    kind = table.choice("kind", KINDS)
    if kind == "year-step":
        limits, prices = _limits(table), _price_list(table, "prices")
        _check_count(table, "prices", len(prices), len(limits) + 1)
        return YearStep(limits, prices)
    if kind == "month-step":
        prices = _price_list(table, "prices")
        seasons = _seasons(table, windows=False)
        for season in seasons:
            _check_count(table, "prices", len(prices), len(season.limits) + 1)
        return _changing(table, MonthStep(seasons, prices, family=_family(table)))
    seasons = _seasons(table, windows=True)
    by_period = _price_table(table, {period for season in seasons for _, _, period in season.windows})
    if kind == "tou":
        service = _price(table, "service", table.text("service", "0"))
        return Tou(seasons, by_period, service // 1_000_000)
    if kind == "two-part":
        return _two_part(table, seasons, by_period)
    limits, adders = _limits(table), _price_list(table, "adders")
    _check_count(table, "adders", len(adders), len(limits))
    return YearStepTou(seasons, by_period, limits, adders)


def _changing(table: Table, tariff: MonthStep) -> MonthStep:
    """The same with the prices that hold from a day of the last closed month on, if there are such."""
    day = table.integer("changes_on", 0, 0, 28)
    if not day:
        return tariff
    if day == 1:
        table.wrong("changes_on", "1 is the first day of a month", "write a day from 2 to 28")
    later = _price_list(table, "later_prices")
    _check_count(table, "later_prices", len(later), len(tariff.prices))
    return replace(tariff, later_prices=later, changes_on=day)


def _family(table: Table) -> tuple[int, int]:
    """People of a large household, and by how much its limits are higher (0.01 kWh)."""
    people = table.integer("family_people", 0, 0, 99)
    return (people, table.integer("family_kwh", None, 1, 100_000) * 100) if people else (0, 0)


def _two_part(table: Table, seasons: tuple[Season, ...], prices: Mapping[str, int]) -> TwoPart:
    added = []
    for each in table.tables("surcharge"):
        code = each.text("code")
        added.append((code, _price(each, "price", each.raw("price")), each.flag("adjusted", False)))
        each.done()
    standard = table.choice("standard", ("0.90", "0.85", "0.80"))
    demand = table.choice("demand", ("contract", "maximum", "register", "capacity"))
    price = _price(table, "demand_price", table.raw("demand_price"))
    return TwoPart(seasons, prices, demand, price, tuple(added), int(standard[2:]))


def _check_count(table: Table, key: str, given: int, wanted: int) -> None:
    if given != wanted:
        table.wrong(key, f"{given} given for the steps, {wanted} needed", "give one for each step")


def _price(table: Table, key: str, text: Any) -> int:
    try:
        return price_units(text if isinstance(text, str) else "")
    except ValueError:
        table.wrong(key, f"{text!r} is no price", 'write it in quotes with at most 8 decimals, like "0.538"')
        return 0


def _price_list(table: Table, key: str) -> tuple[int, ...]:
    value = table.raw(key)
    if not isinstance(value, list):
        table.wrong(key, "missing" if value is None else f"{value!r} is no list", f'write {key} = ["0.538", ...]')
        return ()
    return tuple(_price(table, key, text) for text in value)


def _price_table(table: Table, periods: set[str]) -> Mapping[str, int]:
    value = table.raw("prices")
    if not isinstance(value, dict):
        table.wrong("prices", "missing or no table", 'write prices = { peak = "1.028", valley = "0.2891" }')
        return {}
    for period in sorted(periods - set(value)):
        table.wrong("prices", f"no price for {period}", "give one for each period")
    return {period: _price(table, f"prices.{period}", text) for period, text in value.items()}


def _limits(table: Table) -> tuple[int, ...]:
    """Step limits in 0.01 kWh, ascending."""
    value = table.raw("limits_kwh")
    whole = isinstance(value, list) and all(isinstance(item, int) and item > 0 for item in value)
    if not whole or value != sorted(set(value)):
        table.wrong("limits_kwh", f"{value!r} is not usable", "write whole kWh, ascending, like [2760, 4800]")
        return ()
    return tuple(item * 100 for item in value)


def _seasons(table: Table, *, windows: bool) -> tuple[Season, ...]:
    tables = table.tables("season")
    seasons = tuple(_season(each, windows=windows) for each in tables)
    months = sorted(month for season in seasons for month in season.months)
    if months != list(range(1, 13)):
        table.wrong("season", f"months {months} are not the year", "let each month stand in exactly one season")
    return seasons


def _season(table: Table, *, windows: bool) -> Season:
    months = table.raw("months")
    if not isinstance(months, list) or not all(isinstance(month, int) for month in months):
        table.wrong("months", f"{months!r} is no list of months", "write months = [1, 2, 12]")
        months = []
    if not windows:
        season = Season(tuple(months), limits=_limits(table))
        table.done()
        return season
    found = [window for period in table.others() for window in _windows(table, period)]
    covered = [minute for start, end, _ in found for minute in range(start, end)]
    if sorted(covered) != list(range(_DAY_MIN)):
        table.wrong("windows", "do not cover the day once", "let every minute of the day fall into one period")
    return Season(tuple(months), windows=tuple(found))


def _windows(table: Table, period: str) -> list[tuple[int, int, str]]:
    """`["08:00-12:00", "22:00-06:00"]` as minutes; one over midnight is cut there."""
    found = []
    for text in table.texts(period):
        start, _, end = text.partition("-")
        try:
            first, last = minutes(start), minutes(end)
        except ValueError:
            table.wrong(period, f"{text!r} is no window", 'write "08:00-12:00"')
            continue
        if last > first:
            found.append((first, last, period))
        else:
            found += [(first, _DAY_MIN, period), (0, last, period)]
    return [window for window in found if window[1] > window[0]]


def minutes(text: str) -> int:
    """`08:30` as minutes of the day; `24:00` is its end. ValueError if it is no time."""
    hour, colon, minute = text.strip().partition(":")
    if not (colon and hour.isdecimal() and minute.isdecimal() and len(minute) == 2):
        raise ValueError(f"{text!r} is no time of day")
    value = int(hour) * 60 + int(minute)
    if int(minute) > 59 or value > _DAY_MIN:
        raise ValueError(f"{text!r} is no time of day")
    return value

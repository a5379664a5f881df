"""The text of a tariff file, written from parts."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

__all__ = [
    "DemandText",
    "PricedSteps",
    "Steps",
    "Weeks",
    "charge_demand",
    "charge_energy",
    "charge_fixed",
    "charge_minimum",
    "charge_step_tou",
    "charge_steps",
    "charge_surcharge",
    "charge_tou",
    "text_of",
]

Steps = tuple[tuple[Decimal | None, Decimal], ...]
"""Limit (None: open) and price of each step."""

PricedSteps = tuple[tuple[Decimal | None, tuple[tuple[str, Decimal], ...]], ...]
"""Limit (None: open) of each step, and its price in each period."""

Weeks = Mapping[tuple[Sequence[str], Sequence[str]], Sequence[int]]
"""The periods of the 24 hours of a weekday and of a day of the weekend, and the months in which they are so."""


def text_of(head: Mapping[str, str | bool | date], charges: Sequence[str], notes: Sequence[str]) -> str:
    """A whole file: notes as comments, the tariff's keys, its charges."""
    comments = [
        line
        for note in notes
        for line in textwrap.wrap(note, 116, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)
    ]
    lines = [*comments, *(f"{key} = {_value(value)}" for key, value in head.items())]
    return "\n".join(lines) + "\n" + "".join(f"\n{charge}" for charge in charges)


def charge_energy(price: Decimal) -> str:
    """One price for every kWh."""
    return f'[[charges]]\nkind = "energy"\nunit = "kWh"\nprice = "{price:f}"\n'


def charge_surcharge(code: str, price: Decimal) -> str:
    """An addition to every kWh."""
    return f'[[charges]]\nkind = "surcharge"\nunit = "kWh"\n{_coded(code)}price = "{price:f}"\n'


@dataclass(frozen=True, slots=True)
class DemandText:
    """A demand charge to be written. steps: of kW; period, weeks: of a TOU period its name and the hours, as
    `charge_tou` has them; ratchet: months to look back, percent, of which months."""

    code: str
    steps: Steps
    block_min: int
    months: Sequence[int]
    period: str = ""
    weeks: Weeks = field(default_factory=dict)
    ratchet: tuple[int, Decimal, Sequence[int]] | None = None


def charge_demand(one: DemandText) -> str:
    """A price per kW of the month's highest block, of all of the time or of one TOU period."""
    text = '[[charges]]\nkind = "demand"\nunit = "kW"\n'
    if one.code != "basic_demand":
        text += _coded(one.code)
    if len(one.steps) == 1:
        text += f'price = "{one.steps[0][1]:f}"\n'
    else:
        text += _steps_text(one.steps)
    text += f'measured_by = "intervals"\nblock_min = {one.block_min}\n{_months(one.months)}'
    if one.ratchet is not None:
        back, percent, of = one.ratchet
        limited = "" if len(of) == 12 else f", {_months(of).strip().replace('months', 'of_months', 1)}"
        text += f'ratchet = {{ months = {back}, percent = "{percent:f}"{limited} }}\n'
    if one.period:
        text += f'period = "{one.period}"\n' + _seasons(one.weeks)
    return text


def charge_fixed(code: str, amount: Decimal) -> str:
    """An amount a month."""
    return f'[[charges]]\nkind = "fixed"\nunit = "month"\n{_coded(code)}amount = "{amount:f}"\n'


def charge_minimum(amount: Decimal) -> str:
    """What a month's bill comes to at least."""
    return f'[[charges]]\nkind = "minimum"\nunit = "month"\namount = "{amount:f}"\n'


def charge_steps(kind: str, tables: Mapping[Steps, Sequence[int]], words: str = "") -> str:
    """Steps that fill over the month: `step` or `step_adder`, a table for each group of months."""
    called = f'text = "{words}"\n' if words else ""
    text = f'[[charges]]\nkind = "{kind}"\nunit = "kWh"\n{called}period = "month"\n'
    for steps, months in tables.items():
        text += "\n[[charges.tables]]\n" + _months(months) + _steps_text(steps)
    return text


def _steps_text(steps: Steps) -> str:
    return "steps = [\n" + "".join(f'  {{ {_reach(limit)}price = "{price:f}" }},\n' for limit, price in steps) + "]\n"


def _reach(limit: Decimal | None) -> str:
    return "" if limit is None else f'up_to = "{limit:f}", '


def charge_step_tou(tables: Mapping[PricedSteps, Sequence[int]], weeks: Weeks) -> str:
    """A price for each step of the month and each period, shared out pro rata; weeks as `charge_tou` has them."""
    text = '[[charges]]\nkind = "step_tou"\nunit = "kWh"\nperiod = "month"\nsplit = "pro_rata"\n'
    for steps, months in tables.items():
        text += "\n[[charges.tables]]\n" + _months(months) + "steps = [\n"
        for limit, prices in steps:
            each = ", ".join(f'{period} = "{price:f}"' for period, price in prices)
            text += f"  {{ {_reach(limit)}prices = {{ {each} }} }},\n"
        text += "]\n"
    return text + _seasons(weeks)


def charge_tou(prices: Mapping[str, Decimal], weeks: Weeks) -> str:
    """A price for each period. weeks: the periods of the 24 hours of a weekday and of the weekend, and their months."""
    text = '[[charges]]\nkind = "tou"\nunit = "kWh"\n\n[charges.prices]\n'
    return text + "".join(f'{period} = "{price:f}"\n' for period, price in prices.items()) + _seasons(weeks)


def _seasons(weeks: Weeks) -> str:
    text = ""
    for (weekday, weekend), months in weeks.items():
        if tuple(weekday) == tuple(weekend):
            text += _season(months, "all", weekday)
        else:
            text += _season(months, "weekday", weekday) + _season(months, "weekend", weekend)
    return text


def _season(months: Sequence[int], days: str, hours: Sequence[str]) -> str:
    windows: dict[str, list[str]] = {}
    start = 0
    for hour in range(1, len(hours) + 1):
        if hour == len(hours) or hours[hour] != hours[start]:
            windows.setdefault(hours[start], []).append(f'"{start:02d}:00-{hour:02d}:00"')
            start = hour
    text = "\n[[charges.seasons]]\n" + _months(months)
    if days != "all":
        text += f'days = "{days}"\n'
    text += "\n[charges.seasons.periods]\n"
    return text + "".join(f"{period} = [{', '.join(spans)}]\n" for period, spans in windows.items())


def _coded(code: str) -> str:
    words = code.replace("_", " ")
    return f'text = "{words}"\ncode = "{code}"\n'


def _months(months: Sequence[int]) -> str:
    return "" if len(months) == 12 else f"months = [{', '.join(map(str, months))}]\n"


def _value(value: str | bool | date) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False)

"""The text of a tariff file, written from parts."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal

__all__ = [
    "Steps",
    "charge_demand",
    "charge_energy",
    "charge_fixed",
    "charge_minimum",
    "charge_steps",
    "charge_surcharge",
    "charge_tou",
    "text_of",
]

Steps = tuple[tuple[Decimal | None, Decimal], ...]
"""Limit (None: open) and price of each step."""


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


def charge_demand(price: Decimal, block_min: int) -> str:
    """A price per kW of the month's highest block of `block_min` minutes."""
    text = f'[[charges]]\nkind = "demand"\nunit = "kW"\nprice = "{price:f}"\n'
    return f'{text}measured_by = "intervals"\nblock_min = {block_min}\n'


def charge_fixed(code: str, amount: Decimal) -> str:
    """An amount a month."""
    return f'[[charges]]\nkind = "fixed"\nunit = "month"\n{_coded(code)}amount = "{amount:f}"\n'


def charge_minimum(amount: Decimal) -> str:
    """What a month's bill comes to at least."""
    return f'[[charges]]\nkind = "minimum"\nunit = "month"\namount = "{amount:f}"\n'


def charge_steps(kind: str, tables: Mapping[Steps, Sequence[int]]) -> str:
    """Steps that fill over the month: `step` or `step_adder`, a table for each group of months."""
    text = f'[[charges]]\nkind = "{kind}"\nunit = "kWh"\nperiod = "month"\n'
    for steps, months in tables.items():
        text += "\n[[charges.tables]]\n" + _months(months) + "steps = [\n"
        for limit, price in steps:
            reach = "" if limit is None else f'up_to = "{limit:f}", '
            text += f'  {{ {reach}price = "{price:f}" }},\n'
        text += "]\n"
    return text


def charge_tou(
    prices: Mapping[str, Decimal], weeks: Mapping[tuple[Sequence[str], Sequence[str]], Sequence[int]]
) -> str:
    """A price for each period. weeks: the periods of the 24 hours of a weekday and of the weekend, and their months."""
    text = '[[charges]]\nkind = "tou"\nunit = "kWh"\n\n[charges.prices]\n'
    text += "".join(f'{period} = "{price:f}"\n' for period, price in prices.items())
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

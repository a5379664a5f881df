"""A tariff as a sheet on the screen: where it comes from, what it charges, and its hours as a picture of the week."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from billing.model import (
    CapacityCharge,
    Charge,
    DemandCharge,
    EnergyCharge,
    FixedCharge,
    MinimumCharge,
    Schedule,
    StepAdder,
    StepCharge,
    Surcharge,
    Tariff,
    Tax,
    TouCharge,
)
from billing.picture import Picture, pictures

__all__ = ["charge_rows", "months_text", "sheet"]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# Periods are coloured in the order of their prices, the dearest first.
_COLOURS = ("white on red", "black on yellow", "black on cyan", "white on blue", "black on green", "white on magenta")

_KINDS = {
    EnergyCharge: "energy",
    TouCharge: "energy by time of use",
    StepCharge: "energy by steps",
    StepAdder: "addition by steps",
    FixedCharge: "fixed",
}

Row = tuple[str, str, str]


def sheet(tariff: Tariff) -> RenderableType:
    """The whole sheet."""
    parts: list[RenderableType] = [_head(tariff), _charges(tariff)]
    for charge in tariff.charges:
        schedule = getattr(charge, "schedule", None)
        if isinstance(schedule, Schedule):
            parts += _pictures(schedule, dict(getattr(charge, "prices", ())))
    return Group(*parts)


def _head(tariff: Tariff) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    until = f"to {tariff.valid_to} (that day not included)" if tariff.valid_to else "until further notice"
    rows = (
        ("tariff", f"{tariff.id}, version {tariff.version}"),
        ("title", tariff.title),
        ("source", f"{tariff.source} ({tariff.source_date})"),
        ("verified", "yes" if tariff.verified else "NO"),
        ("note", tariff.note),
        ("valid", f"from {tariff.valid_from} {until}"),
        ("zone", tariff.zone),
        ("currency", tariff.currency),
    )
    for name, text in rows:
        if text:
            style = "bold red" if text == "NO" else ""
            table.add_row(Text(name, style="dim"), Text(text, style=style))
    return table


def _charges(tariff: Tariff) -> RenderableType:
    table = Table("charge", "for", "price or amount", title="charges", title_justify="left")
    table.columns[2].justify = "right"
    for charge in tariff.charges:
        for row in charge_rows(charge):
            table.add_row(*(escape(cell) for cell in row))
        table.add_section()
    return table


def charge_rows(charge: Charge) -> list[Row]:
    """A charge as rows: what it is, what for, price or amount. A kind without rows of its own shows all its fields."""
    name = charge.text or _KINDS.get(type(charge), "")
    match charge:
        case EnergyCharge(price=price):
            return [(name, "every kWh", f"{price:f}")]
        case TouCharge(prices=prices):
            return [(name if at == 0 else "", f"kWh in {period}", f"{p:f}") for at, (period, p) in enumerate(prices)]
        case StepCharge() | StepAdder():
            return _step_rows(name, charge)
        case FixedCharge(code=code, amount=amount):
            return [(charge.text or code, "each month", f"{amount:f}")]
        case DemandCharge():
            return _demand_rows(charge.text or "demand", charge)
        case CapacityCharge(price=price, capacity_kva=capacity):
            return [(charge.text or "capacity", f"kVA of {capacity:f} kVA, each month", f"{price:f}")]
        case Surcharge(code=code, price=price):
            return [(charge.text or code, "every kWh", f"{price:f}")]
        case Tax(code=code, percent=percent, base=base):
            return [(charge.text or code, f"on {', '.join(base)}", f"{percent:f} %")]
        case MinimumCharge(amount=amount, base=base):
            return [(charge.text or "minimum", f"a month, for {', '.join(base)}", f"{amount:f}")]
        case _:
            return _field_rows(charge)


def _step_rows(name: str, charge: StepCharge | StepAdder) -> list[Row]:
    rows: list[Row] = []
    over = "month"
    if charge.period == "year":
        over = f"year from {_MONTHS[charge.year_start[0] - 1]} {charge.year_start[1]}"
    for table in charge.tables:
        months = "" if len(table.months) == 12 else f" ({months_text(table.months)})"
        below: Decimal | None = None
        for step in table.steps:
            reach = (
                f"up to {step.up_to:f} kWh" if step.up_to is not None else f"above {below:f} kWh" if below else "kWh"
            )
            plus = "+" if isinstance(charge, StepAdder) and step.price > 0 else ""
            rows.append((name if not rows else "", f"{reach} in a {over}{months}", f"{plus}{step.price:f}"))
            below = step.up_to
    return rows


def _demand_rows(name: str, charge: DemandCharge) -> list[Row]:
    by = f"highest {charge.block_min} minutes" if charge.source == "intervals" else "the meter's maximum"
    if charge.contract_kw is None:
        return [(name, f"kW of the month ({by})", f"{charge.price:f}")]
    limit = charge.contract_kw * charge.allowance
    above = limit if charge.excess_above == "allowance" else charge.contract_kw
    excess = f"kW above {above.normalize():f} kW, where {by} is above {limit.normalize():f} kW"
    rows = [
        (name, f"kW of the contract of {charge.contract_kw:f} kW", f"{charge.price:f}"),
        ("", excess, f"{charge.price * charge.excess_factor:f}"),
    ]
    if charge.discount is not None:
        hours, percent = charge.discount
        rows.append(("", f"with {hours:f} kWh or more for each kW of contract", f"-{percent:f} %"))
    return rows


def _field_rows(charge: Any) -> list[Row]:
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in type(charge).__name__.removesuffix("Charge")).strip()
    rows = []
    for field in fields(charge):
        value = getattr(charge, field.name)
        if field.name == "text" or value in (None, (), "") or isinstance(value, Schedule):
            continue
        rows.append((field.name.replace("_", " "), _plain(value)))
    name = charge.text or words
    return [(name if at == 0 else "", what, value) for at, (what, value) in enumerate(rows)] or [(name, "", "")]


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(_plain(item) for item in value)
    return str(value)


def months_text(months: tuple[int, ...]) -> str:
    """Months as `Jan, May-Oct`; a run over the year's end is told as one."""
    wanted = sorted(set(months))
    if len(wanted) == 12:
        return "all months"
    runs: list[list[int]] = []
    for month in wanted:
        if runs and runs[-1][-1] == month - 1:
            runs[-1].append(month)
        else:
            runs.append([month])
    if len(runs) > 1 and runs[0][0] == 1 and runs[-1][-1] == 12:
        runs[0] = runs.pop() + runs[0]
    return ", ".join(_MONTHS[r[0] - 1] + (f"-{_MONTHS[r[-1] - 1]}" if len(r) > 1 else "") for r in runs)


def _pictures(schedule: Schedule, prices: dict[str, Decimal]) -> list[RenderableType]:
    named = dict.fromkeys(w.period for season in schedule.seasons for w in season.windows)
    order = sorted(named, key=lambda period: -prices.get(period, Decimal(0)))
    marks = _marks(order)
    styles = {period: _COLOURS[at % len(_COLOURS)] for at, period in enumerate(order)}
    legend = Text("hours: ")
    for period in order:
        legend.append(f" {marks[period]} ", style=styles[period])
        legend.append(f" {period}   ")
    return [legend, *(_picture(one, marks, styles) for one in pictures(schedule))]


def _marks(periods: list[str]) -> dict[str, str]:
    """A letter for each period: its first, or another of its own, or a number."""
    taken: dict[str, str] = {}
    for number, period in enumerate(periods):
        letters = [*(c for c in period.upper() if c.isalnum()), *"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
        taken[period] = next((c for c in letters if c not in taken.values()), str(number % 10))
    return taken


def _picture(picture: Picture, marks: dict[str, str], styles: dict[str, str]) -> Text:
    """One season: a row for each day, two characters an hour where cells are hours, else one a cell."""
    wide = 2 if picture.cell_min == 60 else 1
    hour = wide * 60 // picture.cell_min
    text = Text(f"{months_text(picture.months)}\n", style="bold", no_wrap=True)
    margin = max(3, *(len(day) for day, _ in picture.rows))
    text.append(" " * (margin + 1) + "".join(f"{h:02d}".ljust(hour) for h in range(24)) + "\n", style="not bold dim")
    for day, cells in picture.rows:
        text.append(f"{day:<{margin}} ", style="not bold")
        for period, run in groupby(cells):
            text.append(marks.get(period, "?") * wide * len(list(run)), style=f"not bold {styles.get(period, '')}")
        text.append("\n")
    if not picture.exact:
        text.append(f"cells of {picture.cell_min} minutes show what holds at their start\n", style="not bold dim")
    return text

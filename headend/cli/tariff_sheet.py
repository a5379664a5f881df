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

from billing.calendar import DAY_KINDS
from billing.charges import (
    CapacityCharge,
    Charge,
    DemandCharge,
    EnergyCharge,
    FixedCharge,
    MarketCharge,
    MinimumCharge,
    NetMetering,
    Schedule,
    StepAdder,
    StepCharge,
    StepTouCharge,
    Surcharge,
    Tariff,
    Tax,
    TouCharge,
)
from billing.picture import Picture, pictures
from headend.civil import zone

__all__ = ["charge_rows", "months_text", "sheet"]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# Periods are coloured in the order of their prices, the dearest first.
_COLOURS = ("white on red", "black on yellow", "black on cyan", "white on blue", "black on green", "white on magenta")

_KINDS = {
    EnergyCharge: "energy",
    TouCharge: "energy by time of use",
    StepCharge: "energy by steps",
    StepAdder: "addition by steps",
    StepTouCharge: "energy by steps and time of use",
    FixedCharge: "fixed",
}

Row = tuple[str, str, str]


def sheet(tariff: Tariff) -> RenderableType:
    """The whole sheet."""
    parts: list[RenderableType] = [_head(tariff), _charges(tariff)]
    schedules: dict[Schedule, dict[str, Decimal]] = {}
    for charge in tariff.charges:
        prices = dict(getattr(charge, "prices", ()))
        if isinstance(charge, StepTouCharge):
            parts += _step_tou_tables(charge)
            prices = dict(charge.tables[0].steps[0].prices)
        schedule = getattr(charge, "schedule", None)
        if isinstance(schedule, Schedule):
            schedules.setdefault(schedule, prices)
    for schedule, prices in schedules.items():
        parts += [*_pictures(schedule, prices), *_days(schedule, tariff.zone)]
    return Group(*parts)


def _head(tariff: Tariff) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    until = f"to {tariff.valid_to} (that day not included)" if tariff.valid_to else "until further notice"
    policy = tariff.policy
    rounds = "" if policy.rounding == "line" else "once, the bill as a whole"
    part = {"days": "", "whole": "charged as whole ones", "hold": "the bill is held"}[policy.part_month]
    rows = (
        ("tariff", f"{tariff.id}, version {tariff.version}"),
        ("title", tariff.title),
        ("source", f"{tariff.source} ({tariff.source_date})"),
        ("verified", "yes" if tariff.verified else "NO"),
        ("note", tariff.note),
        ("valid", f"from {tariff.valid_from} {until}"),
        ("zone", tariff.zone),
        ("currency", tariff.currency),
        ("rounded", rounds),
        ("part months", part),
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
        rows = charge_rows(charge)
        if isinstance(charge, StepTouCharge):
            rows = [(rows[0][0], "kWh by step and period", "see below")]
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        table.add_section()
    return table


def charge_rows(charge: Charge) -> list[Row]:  # noqa: C901 - one case for each kind of charge
    """A charge as rows: what it is, what for, price or amount. A kind without rows of its own shows all its fields."""
    name = charge.text or _KINDS.get(type(charge), "")
    match charge:
        case EnergyCharge(price=price):
            return [(name, "every kWh", f"{price:f}")]
        case TouCharge():
            return _tou_rows(name, charge)
        case StepCharge() | StepAdder():
            return _step_rows(name, charge)
        case StepTouCharge():
            return _step_tou_rows(name, charge)
        case MarketCharge():
            return _market_rows(charge.text or charge.code, charge)
        case FixedCharge(code=code, amount=amount):
            return [(charge.text or code, "each month", f"{amount:f}")]
        case DemandCharge():
            return _demand_rows(charge.text or "demand", charge)
        case CapacityCharge(price=price, capacity_kva=capacity):
            held = "the account's kVA" if capacity is None else f"kVA of {capacity:f} kVA"
            return [(charge.text or "capacity", f"{held}, each month", f"{price:f}")]
        case Surcharge(code=code, price=price):
            return [(charge.text or code, "every kWh", f"{price:f}")]
        case Tax(code=code, percent=percent, base=base):
            return [(charge.text or code, f"on {', '.join(base)}", f"{percent:f} %")]
        case MinimumCharge(amount=amount, base=base):
            return [(charge.text or "minimum", f"a month, for {', '.join(base)}", f"{amount:f}")]
        case NetMetering(carry=True):
            kept = f"kWh exported beyond the year's import, from {_day(charge.year_start)}; else kept as energy"
            return [(charge.text or "net metering", kept, f"-{charge.price:f}")]
        case _:
            return _field_rows(charge)


def _tou_rows(name: str, charge: TouCharge) -> list[Row]:
    registers = dict(charge.registers) if charge.measured_by == "registers" else {}
    rows: list[Row] = []
    for period, price in charge.prices:
        by = f" (the meter's {registers[period]})" if period in registers else ""
        by += " and what the others leave" if period == charge.rest else ""
        rows.append((name if not rows else "", f"kWh in {period}{by}", f"{price:f}"))
    return rows


def _day(day: tuple[int, int]) -> str:
    return f"{_MONTHS[day[0] - 1]} {day[1]}"


def _over(charge: StepCharge | StepAdder | StepTouCharge) -> str:
    return "month" if charge.period == "month" else f"year from {_day(charge.year_start)}"


def _reach(up_to: Decimal | None, below: Decimal | None, unit: str = "kWh") -> str:
    if up_to is not None:
        return f"up to {up_to:f} {unit}"
    return f"above {below:f} {unit}" if below else unit


def _household_rows(charge: StepCharge | StepAdder | StepTouCharge) -> list[Row]:
    rows: list[Row] = []
    if (more := charge.household) is not None:
        kwh = more.kwh * 12 if charge.period == "year" else more.kwh
        rows.append(("", f"limits for {more.people} people or more", f"+{kwh:f} kWh"))
    if charge.part != "whole":
        rows.append(("", f"limits of a part of a {charge.period}", f"by {charge.part}"))
    return rows


def _step_rows(name: str, charge: StepCharge | StepAdder) -> list[Row]:
    rows: list[Row] = []
    for table in charge.tables:
        months = "" if len(table.months) == 12 else f" ({months_text(table.months)})"
        below: Decimal | None = None
        for step in table.steps:
            plus = "+" if isinstance(charge, StepAdder) and step.price > 0 else ""
            what = f"{_reach(step.up_to, below)} in a {_over(charge)}{months}"
            rows.append((name if not rows else "", what, f"{plus}{step.price:f}"))
            below = step.up_to
    return rows + _household_rows(charge)


def _step_tou_rows(name: str, charge: StepTouCharge) -> list[Row]:
    rows: list[Row] = []
    for table in charge.tables:
        months = "" if len(table.months) == 12 else f" ({months_text(table.months)})"
        below: Decimal | None = None
        for step in table.steps:
            for period, price in step.prices:
                what = f"{_reach(step.up_to, below)} in a {_over(charge)}{months}, {period}"
                rows.append((name if not rows else "", what, f"{price:f}"))
            below = step.up_to
    return rows + _household_rows(charge)


def _step_tou_tables(charge: StepTouCharge) -> list[RenderableType]:
    """Prices by step (down) and period (across), a table for each group of months."""
    found: list[RenderableType] = []
    for steps in charge.tables:
        periods = [period for period, _ in steps.steps[0].prices]
        filled = "pro rata" if charge.split == "pro_rata" else "in the order of time"
        title = f"{months_text(steps.months)}: prices a kWh, steps fill {filled}"
        table = Table(f"in a {_over(charge)}", *(escape(p) for p in periods), title=title, title_justify="left")
        below: Decimal | None = None
        for column in table.columns[1:]:
            column.justify = "right"
        for step in steps.steps:
            prices = dict(step.prices)
            table.add_row(_reach(step.up_to, below), *(f"{prices[period]:f}" for period in periods))
            below = step.up_to
        found.append(table)
    more = _household_rows(charge)
    return [*found, *(Text(f"{what}: {value}") for _, what, value in more)]


def _market_rows(name: str, charge: MarketCharge) -> list[Row]:
    series = charge.series
    low, high = min(series.prices), max(series.prices)
    what = f"kWh at the price of its {series.step_s // 60} minutes ({series.name}, {series.sha[:8]})"
    rows = [(name, what, f"{low:f} to {high:f}")]
    if charge.factor != 1:
        rows.append(("", "times", f"{charge.factor:f}"))
    if charge.adder:
        rows.append(("", "and for every kWh", f"{charge.adder:f}"))
    return rows


def _demand_rows(name: str, charge: DemandCharge) -> list[Row]:
    by = f"highest {charge.block_min} minutes" if charge.source == "intervals" else "the meter's maximum"
    by += f", every {charge.slide_min}" if charge.slide_min else ""
    by += f" in {charge.period}" if charge.period else ""
    months = "" if len(charge.months) == 12 else f", {months_text(charge.months)}"
    rows: list[Row] = []
    below: Decimal | None = None
    for step in charge.steps:
        rows.append((name if not rows else "", f"{_reach(step.up_to, below, 'kW')} ({by}){months}", f"{step.price:f}"))
        below = step.up_to
    if not charge.steps and not charge.contracted and charge.contract_kw is None:
        rows.append((name, f"kW of the month ({by}){months}", f"{charge.price:f}"))
    elif charge.contracted or charge.contract_kw is not None:
        rows += _contract_rows(name, charge, by, months)
    if charge.ratchet is not None:
        rule = charge.ratchet
        of = "" if len(rule.of_months) == 12 else f" (of {months_text(rule.of_months)})"
        what = f"at least, of the highest of the {rule.months} months before{of}"
        rows.append(("", what, f"{rule.percent:f} %"))
    if charge.discount is not None:
        hours, percent = charge.discount
        rows.append(("", f"with {hours:f} kWh or more for each kW of contract", f"-{percent:f} %"))
    return rows


def _contract_rows(name: str, charge: DemandCharge, by: str, months: str) -> list[Row]:
    top = charge.steps[-1].price if charge.steps else charge.price
    above = charge.excess_above == "contract"
    if charge.contract_kw is None:
        agreed, limit = "the account's contract", f"{charge.allowance.normalize():f} times it"
        line = "it" if above else f"{charge.allowance.normalize():f} times it"
    else:
        agreed = f"the contract of {charge.contract_kw:f} kW"
        limit = f"{(charge.contract_kw * charge.allowance).normalize():f} kW"
        line = f"{charge.contract_kw.normalize():f} kW" if above else limit
    rows = [] if charge.steps else [(name, f"kW of {agreed}{months}", f"{charge.price:f}")]
    return [*rows, ("", f"kW above {line}, where {by} is above {limit}", f"{top * charge.excess_factor:f}")]


def _days(schedule: Schedule, zone_name: str) -> list[RenderableType]:
    """The calendar's days and the events, as lines."""
    found: list[RenderableType] = []
    calendar = schedule.calendar
    own = any("holiday" in DAY_KINDS[season.days] for season in schedule.seasons)
    for name, days in (
        (f"holidays ({'hours of their own' if own else 'as a weekend'})", calendar.holidays),
        ("worked", calendar.workdays),
    ):
        if days:
            found.append(Text(f"{name}: {', '.join(map(str, days))}"))
    tz = zone(zone_name)
    for event in schedule.events:
        start, end = event.start.astimezone(tz), event.end.astimezone(tz)
        until = f"{end:%H:%M}" if end.date() == start.date() else f"{end:%Y-%m-%d %H:%M}"
        found.append(Text(f"called: {event.period} {start:%Y-%m-%d %H:%M} to {until}"))
    return found


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
    hours = [w.period for season in schedule.seasons for w in season.windows]
    named = dict.fromkeys([*hours, *(event.period for event in schedule.events)])
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

"""Pictures of a bill, drawn as lines and boxes: steps, time of use, days, the average day, months compared."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import floor, log10
from typing import Final

from reportlab.lib.colors import Color, HexColor

from billing.documents.content import StepProgress
from billing.documents.fonts import width
from billing.documents.sheet import ACCENT, FAINT, GREY, INK, LEFT, LINE, RIGHT, Sheet
from billing.documents.usage import Day
from billing.documents.words import period_name, say

__all__ = ["average_day", "compared", "day_bars", "energy_text", "step_bar", "tou_bar"]

_PERIOD_COLOURS = {
    "sharp": "#b3261e",
    "critical": "#b3261e",
    "critical_peak": "#b3261e",
    "peak": "#e2711d",
    "flat": "#e9c46a",
    "shoulder": "#e9c46a",
    "normal": "#e9c46a",
    "valley": "#3a9188",
    "off_peak": "#3a9188",
    "deep_valley": "#264f87",
}
_OTHER_COLOURS = ("#5b7fb4", "#8fb85f", "#a06cb0", "#c98b8b", "#7a8794")
_BAR: Final = HexColor("#4a86c5")
_BEFORE: Final = HexColor("#b9cfe6")


def energy_text(value: Decimal) -> str:
    """Energy with thousands set apart and no more decimals than it has."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _colours(periods: Sequence[str]) -> dict[str, Color]:
    """A colour for each period, the same for the same names in the same order."""
    spare = iter(_OTHER_COLOURS * (len(periods) + 1))
    found = {period: HexColor(_PERIOD_COLOURS.get(period) or next(spare)) for period in dict.fromkeys(periods)}
    return dict(found)


def step_bar(sheet: Sheet, steps: StepProgress) -> None:
    """How far the energy of the step year or month has come, the limits marked."""
    used = steps.before + steps.energy
    last = max((*steps.limits, used, Decimal(1)))
    full = float(last) * (1.18 if not steps.limits or used <= steps.limits[-1] else 1.05)
    sheet.heading(say("steps", sheet.language), 66)
    left, wide, high = LEFT, RIGHT - LEFT, 15.0
    y = sheet.y - 22 - high

    def place(value: Decimal) -> float:
        return left + wide * float(value) / full

    sheet.box(left, y, wide, high, FAINT, LINE)
    if steps.before > 0:
        sheet.box(left, y, place(steps.before) - left, high, _BEFORE)
    if steps.energy > 0:
        sheet.box(place(steps.before), y, place(used) - place(steps.before), high, ACCENT)
    edges = [Decimal(0), *steps.limits]
    for number, edge in enumerate(edges, start=1):
        start = place(edge)
        end = place(edges[number]) if number < len(edges) else left + wide
        words = say("step", sheet.language, number)
        if end - start > 14:
            sheet.text((start + end) / 2, y + high + 5, words, 7.5, align="c", colour=GREY, room=end - start - 4)
        if number > 1:
            sheet.line(start, y - 4, start, y + high + 4, INK, 1)
            sheet.text(start, y - 12, energy_text(edge), 7.5, align="c", colour=INK)
    y -= 27
    legend = [(_BEFORE, say("used_before", sheet.language), steps.before)] if steps.before > 0 else []
    legend.append((ACCENT, say("this_bill", sheet.language), steps.energy))
    _legend(sheet, left, y, [(colour, f"{words} {energy_text(value)} kWh") for colour, words, value in legend])
    sheet.y = y - 6


def tou_bar(sheet: Sheet, energies: Sequence[tuple[str, Decimal]]) -> None:
    """One bar of all energy, shared by its TOU periods."""
    total = sum((value for _, value in energies), Decimal(0))
    if total <= 0:
        return
    sheet.heading(say("tou", sheet.language), 46)
    x, high = LEFT, 15.0
    y = sheet.y - 8 - high
    colours = _colours([period for period, _ in energies])
    words = []
    for period, value in energies:
        share = float(value / total)
        wide = (RIGHT - LEFT) * share
        sheet.box(x, y, wide, high, colours[period])
        if wide > 32:
            sheet.text(x + wide / 2, y + 4.5, f"{share * 100:.1f} %", 7.5, align="c", colour=_on(colours[period]))
        x += wide
        words.append((colours[period], f"{period_name(period, sheet.language)} {energy_text(value)} kWh"))
    sheet.y = _legend(sheet, LEFT, y - 13, words) - 6


def _on(colour: Color) -> Color:
    """Black or white, whichever can be read on `colour`."""
    light = 0.299 * colour.red + 0.587 * colour.green + 0.114 * colour.blue
    return INK if light > 0.6 else HexColor("#ffffff")


def _legend(sheet: Sheet, x: float, y: float, entries: Sequence[tuple[Color, str]]) -> float:
    """Coloured squares with their meaning, in as many lines as it takes; the base line of the last."""
    at = x
    for colour, words in entries:
        wide = 11 + width(words, 7.5) + 14
        if at > x and at + wide > RIGHT:
            at, y = x, y - 11
        sheet.box(at, y - 0.5, 7, 7, colour)
        sheet.text(at + 11, y, words, 7.5, colour=GREY, room=RIGHT - at - 11)
        at += wide
    return y


def _ticks(most: float) -> list[float]:
    """Round values from 0 up to `most` or just above it, three to six of them."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / 4
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    count = -int(-most / step // 1)
    return [step * number for number in range(count + 1)]


def _axis(sheet: Sheet, x: float, y: float, wide: float, high: float, most: float) -> float:
    """Lines across at round values with their numbers; the value at the top."""
    ticks = _ticks(most)
    for tick in ticks:
        at = y + high * tick / ticks[-1]
        sheet.line(x, at, x + wide, at, LINE, 0.4)
        sheet.text(x - 4, at - 2.5, f"{tick:,.10g}", 7, align="r", colour=GREY)
    return ticks[-1]


def day_bars(sheet: Sheet, days: Sequence[Day]) -> None:
    """A bar for each day of the period."""
    sheet.heading(say("days", sheet.language), 130)
    x, wide, high = LEFT + 34, RIGHT - LEFT - 34, 82.0
    y = sheet.y - 10 - high
    top = _axis(sheet, x, y, wide, high, max((float(day.energy) for day in days if day.energy is not None), default=0))
    slot = wide / max(len(days), 1)
    for number, day in enumerate(days):
        middle = x + slot * (number + 0.5)
        if day.energy is not None and day.energy > 0:
            colour = HexColor("#e0a070") if day.estimated else _BAR
            sheet.box(middle - slot * 0.34, y, slot * 0.68, high * float(day.energy) / top, colour)
        if number % _every(len(days)) == 0:
            sheet.text(middle, y - 10, f"{day.day.month}-{day.day.day}", 7, align="c", colour=GREY)
    y -= 23
    entries = [(_BAR, say("energy_used", sheet.language))]
    if any(day.estimated for day in days):
        entries.append((HexColor("#e0a070"), say("estimated", sheet.language)))
    if any(day.energy is None for day in days):
        entries.append((HexColor("#ffffff"), say("missing_days", sheet.language)))
    _legend(sheet, x, y, entries)
    sheet.y = y - 6


def _every(days: int) -> int:
    return 1 if days <= 12 else 2 if days <= 20 else 3 if days <= 40 else 7


def average_day(sheet: Sheet, hours: Sequence[Decimal | None], periods: Sequence[str]) -> None:
    """The mean energy of each hour, over the TOU periods of the day."""
    sheet.heading(say("average_day", sheet.language), 140)
    x, wide, high = LEFT + 34, RIGHT - LEFT - 34, 82.0
    y = sheet.y - 10 - high
    slot = wide / 24
    colours = _colours([period for period in periods if period])
    for hour, period in enumerate(periods):
        if period:
            sheet.box(x + slot * hour, y, slot, high, _pale(colours[period]))
            sheet.box(x + slot * hour, y - 4, slot, 4, colours[period])
    top = _axis(sheet, x, y, wide, high, max((float(value) for value in hours if value is not None), default=0))
    for hour, value in enumerate(hours):
        if value is not None and value > 0:
            sheet.box(x + slot * (hour + 0.16), y, slot * 0.68, high * float(value) / top, _BAR)
    for hour in range(0, 25, 3):
        align = "r" if hour == 24 else "c"
        sheet.text(x + slot * hour, y - 13, f"{hour:02d}:00", 7, align=align, colour=GREY)
    y -= 27
    words = [(colour, period_name(period, sheet.language)) for period, colour in colours.items()]
    if words:
        _legend(sheet, x, y, words)
    sheet.y = y - 6


def _pale(colour: Color) -> Color:
    return Color(*(1 - (1 - part) * 0.22 for part in (colour.red, colour.green, colour.blue)))


def compared(sheet: Sheet, x: float, y: float, wide: float, rows: Sequence[tuple[str, Decimal | None]]) -> None:
    """Labelled bars one under the other from `y` down, the first this bill's; "-" where there is nothing to compare."""
    most = max((float(value) for _, value in rows if value is not None), default=0) or 1.0
    first = rows[0][1]
    label = min(max(width(text, 7.5) for text, _ in rows), wide * 0.42)
    for number, (words, value) in enumerate(rows):
        at = y - 17 * number
        sheet.text(x, at, words, 7.5, colour=GREY, room=label)
        start = x + label + 6
        if value is None:
            sheet.text(start, at, "-", 7.5, colour=GREY)
            continue
        change = ""
        if number and first is not None and value > 0 and first < 10 * value:
            change = f"  ({float((first - value) / value) * 100:+.0f} %)"
        text = f"{energy_text(value.quantize(Decimal('0.1')))} kWh{change}"
        room = wide - label - 12 - width(text, 7.5)
        long = max(room, 20) * float(value) / most
        sheet.box(start, at - 1.5, long, 8, ACCENT if number == 0 else _BEFORE)
        sheet.text(start + long + 5, at, text, 7.5, colour=INK)

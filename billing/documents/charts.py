"""Pictures of a bill, drawn as lines and boxes: steps, time of use, days, the average day, months compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import floor, log10
from typing import Final

from reportlab.lib.colors import Color, HexColor

from billing.documents.content import StepProgress
from billing.documents.fonts import width
from billing.documents.sheet import ACCENT, FAINT, GREY, INK, LEFT, LINE, RIGHT, Sheet
from billing.documents.usage import Day
from billing.documents.words import period_name, say

__all__ = ["BARS_HIGH", "average_day", "compared", "day_bars", "energy_text", "pictures_high", "step_bar", "tou_bar"]

_SHARP, _PEAK, _FLAT, _VALLEY = ("#9c1f18", "x"), ("#d3621a", "/"), ("#f0cf7a", ""), ("#2f8f86", "-")
_PERIOD_LOOKS = {
    "sharp": _SHARP,
    "critical": _SHARP,
    "critical_peak": _SHARP,
    "peak": _PEAK,
    "flat": _FLAT,
    "shoulder": _FLAT,
    "normal": _FLAT,
    "valley": _VALLEY,
    "off_peak": _VALLEY,
    "deep_valley": ("#264f87", "|"),
}
"""Colour and hatching (`x`: both ways) of TOU periods: they are told apart in grey too."""

_OTHER_LOOKS = (("#5b7fb4", "\\"), ("#8fb85f", "|"), ("#a06cb0", "-"), ("#c98b8b", "/"), ("#7a8794", ""))
BARS_HIGH: Final = 116.0
"""Room for the steps or the energies by time, with a legend of three lines."""

_ESTIMATED: Final = HexColor("#e0a070")
_BAR: Final = HexColor("#4a86c5")
_BEFORE: Final = HexColor("#b9cfe6")
_AXIS: Final = 34.0
"""Room for the numbers at the left of a picture."""


def energy_text(value: Decimal) -> str:
    """Energy with thousands set apart and no more decimals than it has."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@dataclass(frozen=True, slots=True)
class _Look:
    """How an area is filled: its colour, and lines over it."""

    colour: Color
    hatch: str = ""

    def fill(self, sheet: Sheet, x: float, y: float, wide: float, high: float) -> None:
        sheet.box(x, y, wide, high, self.colour)
        kind = "/\\" if self.hatch == "x" else self.hatch
        sheet.hatch(x, y, wide, high, kind, INK if _light(self.colour) else HexColor("#ffffff"))


def _looks(periods: Sequence[str]) -> dict[str, _Look]:
    """How each period looks, the same for the same names in the same order."""
    spare = iter(_OTHER_LOOKS * (len(periods) + 1))
    found = {}
    for period in dict.fromkeys(periods):
        colour, hatch = _PERIOD_LOOKS.get(period) or next(spare)
        found[period] = _Look(HexColor(colour), hatch)
    return found


def pictures_high(high: float) -> float:
    """The room that `day_bars` or `average_day` takes with bars of so much height."""
    return 26 + 10 + high + 27 + 6


def step_bar(sheet: Sheet, steps: StepProgress, left: float = LEFT, wide: float = RIGHT - LEFT) -> None:
    """How far the energy of the step year or month has come, the limits marked."""
    used = steps.before + steps.energy
    last = max((*steps.limits, used, Decimal(1)))
    full = float(last) * (1.18 if not steps.limits or used <= steps.limits[-1] else 1.05)
    sheet.title(say("steps", sheet.language), left, wide)
    high = 15.0
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
        if width(words, 6) > end - start - 4:
            words = str(number)
        if end - start > 10:
            sheet.text((start + end) / 2, y + high + 5, words, 7.5, align="c", colour=GREY, room=end - start - 4)
        if number > 1:
            sheet.line(start, y - 4, start, y + high + 4, INK, 1)
            sheet.text(start, y - 12, energy_text(edge), 7.5, align="c", colour=INK)
    y -= 27
    legend = [(_BEFORE, say("used_before", sheet.language), steps.before)] if steps.before > 0 else []
    legend.append((ACCENT, say("this_bill", sheet.language), steps.energy))
    texts = [(_Look(colour), f"{words} {energy_text(value)} kWh") for colour, words, value in legend]
    sheet.y = _legend(sheet, left, y, texts, left + wide) - 6


def tou_bar(
    sheet: Sheet, energies: Sequence[tuple[str, Decimal]], left: float = LEFT, whole: float = RIGHT - LEFT
) -> None:
    """One bar of all energy, shared by its TOU periods."""
    total = sum((value for _, value in energies), Decimal(0))
    if total <= 0:
        return
    sheet.title(say("tou", sheet.language), left, whole)
    x, high = left, 15.0
    y = sheet.y - 8 - high
    looks = _looks([period for period, _ in energies])
    words = []
    for period, value in energies:
        share = float(value / total)
        wide = whole * share
        looks[period].fill(sheet, x, y, wide, high)
        x += wide
        said = f"{period_name(period, sheet.language)} {energy_text(value)} kWh, {share * 100:.1f} %"
        words.append((looks[period], said))
    sheet.y = _legend(sheet, left, y - 13, words, left + whole) - 6


def _light(colour: Color) -> bool:
    """Whether dark lines are seen on a colour better than white ones."""
    return bool(0.299 * colour.red + 0.587 * colour.green + 0.114 * colour.blue > 0.6)


def _legend(sheet: Sheet, x: float, y: float, entries: Sequence[tuple[_Look, str]], right: float) -> float:
    """Filled squares with their meaning, in as many lines as it takes; the base line of the last."""
    at = x
    for look, words in entries:
        wide = 13 + width(words, 7.5) + 12
        if at > x and at + wide - 12 > right:
            at, y = x, y - 11
        look.fill(sheet, at, y - 1, 9, 8)
        sheet.text(at + 13, y, words, 7.5, colour=GREY, room=right - at - 13)
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


def day_bars(sheet: Sheet, days: Sequence[Day], left: float, whole: float, high: float) -> None:
    """A bar for each day of the period, the highest of `high` points or less."""
    sheet.title(say("days", sheet.language), left, whole)
    x, wide = left + _AXIS, whole - _AXIS
    y = sheet.y - 10 - high
    top = _axis(sheet, x, y, wide, high, max((float(day.energy) for day in days if day.energy is not None), default=0))
    slot = wide / max(len(days), 1)
    for number, day in enumerate(days):
        middle = x + slot * (number + 0.5)
        if day.energy is not None and day.energy > 0:
            look = _Look(_ESTIMATED, "/") if day.estimated else _Look(_BAR)
            look.fill(sheet, middle - slot * 0.34, y, slot * 0.68, high * float(day.energy) / top)
        if number % _every(len(days)) == 0:
            sheet.text(middle, y - 10, f"{day.day.month}-{day.day.day}", 7, align="c", colour=GREY)
    y -= 23
    entries = []
    if any(day.estimated for day in days):
        entries += [(_Look(_BAR), say("energy_used", sheet.language))]
        entries += [(_Look(_ESTIMATED, "/"), say("estimated", sheet.language))]
    if any(day.energy is None for day in days):
        entries.append((_Look(HexColor("#ffffff")), say("missing_days", sheet.language)))
    sheet.y = _legend(sheet, x, y, entries, left + whole) - 6


def _every(days: int) -> int:
    return 1 if days <= 8 else 2 if days <= 16 else 5 if days <= 40 else 10


def average_day(
    sheet: Sheet, hours: Sequence[Decimal | None], periods: Sequence[str], left: float, whole: float, high: float
) -> None:
    """The mean energy of each hour, over the TOU periods of the day."""
    sheet.title(say("average_day", sheet.language), left, whole)
    x, wide = left + _AXIS, whole - _AXIS
    y = sheet.y - 10 - high
    slot = wide / 24
    looks = _looks([period for period in periods if period])
    for hour, period in enumerate(periods):
        if period:
            sheet.box(x + slot * hour, y, slot, high, _pale(looks[period].colour))
            looks[period].fill(sheet, x + slot * hour, y - 5, slot, 5)
    top = _axis(sheet, x, y, wide, high, max((float(value) for value in hours if value is not None), default=0))
    for hour, value in enumerate(hours):
        if value is not None and value > 0:
            sheet.box(x + slot * (hour + 0.16), y, slot * 0.68, high * float(value) / top, _BAR)
    for hour in range(0, 25, 4):
        align = "r" if hour == 24 else "c"
        sheet.text(x + slot * hour, y - 14, f"{hour:02d}:00", 7, align=align, colour=GREY)
    y -= 27
    words = [(look, period_name(period, sheet.language)) for period, look in looks.items()]
    sheet.y = _legend(sheet, x, y, words, left + whole) - 6


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

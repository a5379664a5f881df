"""The rows of a bill's tables: its charges by group with their sums, and its readings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from billing.documents.phrases import adjustment_words, words_of
from billing.documents.sheet import Row
from billing.documents.words import GROUPS, group_of, line_label, quality_name, register_name, say, unit_name
from billing.model import Bill, BillLine, RegisterEnd, RegisterPart
from billing.names import PERCENT
from headend.civil import zone
from headend.model import Quality
from headend.quantities import QUANTITIES, Kind, from_units

__all__ = ["charge_rows", "reading_rows"]


def charge_rows(bill: Bill, language: str) -> list[Row]:
    """A bill's lines, in groups with their sums where there are several, and the total.

    What stands in small under a line is not said again under the next.
    """
    places = _places(bill.lines)
    groups: dict[str, list[BillLine]] = defaultdict(list)
    for line in bill.lines:
        groups[group_of(line)].append(line)
    rows = []
    for group in (name for name in GROUPS if name in groups):
        if len(groups) > 1:
            rows.append(Row((say(f"group_{group}", language), "", "", "", ""), "group"))
        under = ""
        for line in groups[group]:
            row = _line_row(line, places, language, parts=bool(bill.segments))
            rows.append(row if row.small != under else replace(row, small=""))
            under = row.small
        if len(groups[group]) > 1 and len(groups) > 1:
            amount = sum((line.amount for line in groups[group]), Decimal(0))
            rows.append(Row((say("subtotal", language), "", "", "", f"{amount:,f}"), "sum"))
    total = bill.total or Decimal(0)
    rows.append(Row((say("total" if total >= 0 else "credit", language), "", "", "", f"{total:,f}"), "total"))
    return rows


def _line_row(line: BillLine, places: dict[str, int], language: str, *, parts: bool) -> Row:
    text, small = _texts(line, language, parts=parts)
    price = f"{line.price:,.{max(_needed(line.price), 2)}f}"
    quantity = f"{line.quantity:,.{_needed(line.quantity) if line.unit == PERCENT else places[line.unit]}f}"
    return Row((text, quantity, unit_name(line.unit, language), price, f"{line.amount:,f}"), small=small)


def _texts(line: BillLine, language: str, *, parts: bool) -> tuple[str, str]:
    """What a line is called, and what stands under it in small: the tariff's own words, what rating added to them."""
    label = line_label(line, language)
    if group_of(line) == "adjustment":
        return label or line.text, adjustment_words(line.text, language) if label else ""
    words = words_of(_without_period(line), parts=parts)
    day = line.determinant.partition("@")[2]
    days = words.days_in(language) or (say("from_day", language, day) if day else "")
    text = label or words.head_in(language)
    steps = tuple(one for one in words.clauses if one.startswith("step ") or one == "addition") if label else ()
    shown = words.clauses_in(language, but=steps)
    if label and not (words.plain and not words.head[-1:].isdigit()) and not _says_the_same(words.head, line, label):
        shown.insert(0, words.head_in(language))
    between = "，" if language == "zh" else "; " if language == "both" else ", "
    return f"{text} ({days})" if days else text, between.join(shown)


def _without_period(line: BillLine) -> str:
    """A line's text without the TOU period that its code names already."""
    period = line.code.removeprefix("energy_")
    if period.startswith("step"):
        period = period.partition("_")[2]
    return line.text.replace(f", {period}", "", 1) if period and period != line.code else line.text


def _says_the_same(head: str, line: BillLine, label: str) -> bool:
    return head.casefold() in label.casefold() or head.casefold() == line.code.casefold()


def _places(lines: Sequence[BillLine]) -> dict[str, int]:
    """Decimal places by unit, so that quantities stand under each other."""
    found: dict[str, int] = {}
    for line in lines:
        found[line.unit] = max(found.get(line.unit, 0), _needed(line.quantity))
    return found


def _needed(value: Decimal) -> int:
    """The decimal places a value needs to be written exactly."""
    exponent = value.normalize().as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


def reading_rows(parts: Sequence[RegisterPart], zone_name: str, language: str) -> list[Row]:
    """What registers showed at both ends of their part of the period; of a demand, at its settlement."""
    rows = []
    for part in parts:
        demand = QUANTITIES[part.quantity].kind is Kind.DEMAND
        unit = QUANTITIES[part.quantity].unit
        start = "" if demand else _end(part.start, zone_name, language)
        quantity = f"{part.value.normalize():,f} {unit}"
        cells = (
            part.meter,
            register_name(part.quantity, language),
            start,
            _end(part.end, zone_name, language),
            f"{part.multiplier.normalize():,f}",
            quantity,
        )
        warn = tuple(
            column
            for column, end in ((2, part.start), (3, part.end))
            if end.quality is not Quality.VALID and not (demand and column == 2)
        )
        rows.append(Row(cells, warn=warn))
    return rows


def _end(end: RegisterEnd, zone_name: str, language: str) -> str:
    """A reading with its local time, and how it came about."""
    at = end.at.astimezone(zone(zone_name))
    value = from_units(end.units).quantize(Decimal("0.01")) if end.units % 100 == 0 else from_units(end.units)
    return f"{value:,f} {quality_name(end.quality, language)}\n{at:%Y-%m-%d %H:%M}"

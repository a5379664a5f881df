"""The rows of a bill's tables: its charges by group with their sums, and its readings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

from billing.documents.sheet import Row
from billing.documents.words import GROUPS, group_of, line_label, quality_name, register_name, say, unit_name
from billing.model import Bill, BillLine, RegisterEnd, RegisterPart
from billing.names import PERCENT
from headend.civil import zone
from headend.model import Quality
from headend.quantities import QUANTITIES, Kind, from_units

__all__ = ["charge_rows", "reading_rows"]


def charge_rows(bill: Bill, language: str) -> list[Row]:
    """A bill's lines in groups, with the sum of each group that has several, and the total."""
    places = _places(bill.lines)
    groups: dict[str, list[BillLine]] = defaultdict(list)
    for line in bill.lines:
        groups[group_of(line)].append(line)
    rows = []
    for group in (name for name in GROUPS if name in groups):
        rows.append(Row((say(f"group_{group}", language), "", "", "", ""), "group"))
        rows += [_line_row(line, places, language) for line in groups[group]]
        if len(groups[group]) > 1:
            amount = sum((line.amount for line in groups[group]), Decimal(0))
            rows.append(Row((say("subtotal", language), "", "", "", f"{amount:,f}"), "sum"))
    total = bill.total or Decimal(0)
    rows.append(Row((say("total" if total >= 0 else "credit", language), "", "", "", f"{total:,f}"), "total"))
    return rows


def _line_row(line: BillLine, places: dict[str, int], language: str) -> Row:
    label = line_label(line, language)
    text = label or line.text
    part = line.determinant.partition("@")[2]
    if part and part not in line.text:
        text += f" ({say('from_day', language, part)})"
    own = line.text if label and not _says_the_same(line, label) else ""
    price = f"{line.price:,f}" if line.unit == PERCENT else f"{line.price:,.{places['price']}f}"
    quantity = f"{line.quantity:,.{_needed(line.quantity) if line.unit == PERCENT else places[line.unit]}f}"
    return Row((text, quantity, unit_name(line.unit, language), price, f"{line.amount:,f}"), small=own)


_PLAIN = ("energy, ", "addition, ")
"""How the text of a line begins whose tariff gives it none."""


def _says_the_same(line: BillLine, label: str) -> bool:
    text = line.text.casefold()
    return text in label.casefold() or text == line.code.casefold() or text.startswith(_PLAIN)


def _places(lines: Sequence[BillLine]) -> dict[str, int]:
    """Decimal places by unit, so that quantities stand under each other, and of prices."""
    found: dict[str, int] = {"price": 2}
    for line in lines:
        found[line.unit] = max(found.get(line.unit, 0), _needed(line.quantity))
        if line.unit != PERCENT:
            found["price"] = max(found["price"], _needed(line.price))
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

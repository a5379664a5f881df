"""A bill as rows of its tables, and rows as a bill again. `billing.store` puts and reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Table

from billing import schema
from billing.model import (
    MINOR_DIGITS,
    Bill,
    BillLine,
    Derived,
    Determinant,
    Hold,
    IntervalPart,
    Parent,
    RegisterEnd,
    RegisterPart,
    UsedBefore,
)
from headend.civil import from_epoch_s, to_epoch_s
from headend.model import Quality, Source, Window

__all__ = [
    "COLUMNS",
    "add_content",
    "bill_of",
    "bill_row",
    "counts_of",
    "determinant_of",
    "finding_rows",
    "hold_of",
    "hold_values",
    "line_of",
    "parent_tables",
    "plain",
    "total_minor",
]

_PART: Final = ("bill_key", "determinant", "part", "meter_key", "meter", "quantity", "multiplier", "wrap_units")
_END: Final = ("at", "units", "quality", "source", "outcome_id")
_FOUND: Final = ("code", "what", "remedy", "meter", "span_start", "span_end", "count")

COLUMNS: Final[dict[Table, tuple[str, ...]]] = {
    schema.bill: (
        "number",
        "account",
        "usage_point",
        "period_start",
        "period_end",
        "sequence",
        "tariff",
        "tariff_version",
        "tariff_sha",
        "zone",
        "currency",
        "as_of",
        "replaces",
        "segments",
        "state",
        "total_minor",
        "issued_at",
    ),
    schema.bill_line: (
        "bill_key",
        "line",
        "code",
        "text",
        "quantity",
        "unit",
        "price",
        "amount_minor",
        "determinant",
    ),
    schema.bill_determinant: ("bill_key", "name", "position", "value", "unit", "used_before", "counts"),
    schema.bill_register: (*_PART, *(f"{end}_{name}" for end in ("start", "end") for name in _END)),
    schema.bill_interval: (*_PART, "window_start", "window_end", "step_s", "count", "sum_units", "as_of"),
    schema.bill_used: ("bill_key", "determinant", "part", "number", "energy", "at"),
    schema.bill_derived: ("bill_key", "determinant", "part", "name", "value"),
    schema.bill_finding: ("bill_key", "position", *_FOUND),
    schema.bill_adjusted: ("bill_key", "adjustment"),
}
"""The tables of bills and of their content, and the order in which rows hold their columns."""

Values = tuple[Any, ...]


# -- to rows -----------------------------------------------------------------------------------------------------------


def bill_row(bill: Bill, state: str, issued_at: int | None = None) -> Values:
    """The row of table `bill`. issued_at: epoch seconds, of a bill that is issued; only then it has a total."""
    return (
        bill.number,
        bill.account,
        bill.usage_point,
        to_epoch_s(bill.window.start),
        to_epoch_s(bill.window.end),
        bill.sequence,
        bill.tariff,
        bill.tariff_version,
        bill.tariff_sha or None,
        bill.zone,
        bill.currency,
        bill.as_of,
        bill.replaces,
        "\n".join([f"{to_epoch_s(start)} {sha}" for start, sha in bill.segments]),
        state,
        None if issued_at is None else total_minor(bill),
        issued_at,
    )


def total_minor(bill: Bill) -> int:
    """The sum of the bill's lines, in minor units."""
    digits = MINOR_DIGITS[bill.currency]
    return sum([_minor(line.amount, digits) for line in bill.lines])


def add_content(content: Mapping[Table, list[Values]], key: int, bill: Bill) -> None:
    """Add the rows of lines, determinants with what they come from, and findings of the bill with this key."""
    digits = MINOR_DIGITS[bill.currency]
    rows = content[schema.bill_line]
    for number, line in enumerate(bill.lines, start=1):
        quantity, price, amount = plain(line.quantity), plain(line.price), _minor(line.amount, digits)
        rows.append((key, number, line.code, line.text, quantity, line.unit, price, amount, line.determinant))
    rows = content[schema.bill_determinant]
    for position, one in enumerate(bill.determinants, start=1):
        used = None if one.used_before is None else plain(one.used_before)
        counts = "\n".join([f"{quality:d} {count}" for quality, count in one.counts])
        rows.append((key, one.name, position, plain(one.value), one.unit, used, counts))
        for part, parent in enumerate(one.parents, start=1):
            table, values = _parent_values(parent)
            content[table].append((key, one.name, part, *values))
    if bill.holds:
        content[schema.bill_finding].extend(finding_rows(key, bill.holds))


def finding_rows(key: int, findings: Sequence[Hold]) -> list[Values]:
    """What was odd about an issued bill."""
    return [(key, position, *hold_values(hold).values()) for position, hold in enumerate(findings, start=1)]


def hold_values(hold: Hold) -> dict[str, Any]:
    """A hold or finding as columns."""
    return {
        "code": hold.code,
        "what": hold.what,
        "remedy": hold.remedy,
        "meter": hold.meter,
        "span_start": None if hold.start is None else to_epoch_s(hold.start),
        "span_end": None if hold.end is None else to_epoch_s(hold.end),
        "count": hold.count,
    }


def _parent_values(parent: Parent) -> tuple[Table, Values]:
    if isinstance(parent, UsedBefore):
        return schema.bill_used, (parent.number, plain(parent.energy), to_epoch_s(parent.at))
    if isinstance(parent, Derived):
        return schema.bill_derived, (parent.name, plain(parent.value))
    place = (parent.meter_key, parent.meter, parent.quantity, plain(parent.multiplier), parent.wrap_units)
    if isinstance(parent, RegisterPart):
        return schema.bill_register, (*place, *_end_values(parent.start), *_end_values(parent.end))
    span = (to_epoch_s(parent.window.start), to_epoch_s(parent.window.end), parent.step_s)
    return schema.bill_interval, (*place, *span, parent.count, parent.sum_units, parent.as_of)


def _end_values(end: RegisterEnd) -> Values:
    return to_epoch_s(end.at), end.units, int(end.quality), int(end.source), end.outcome_id


def plain(value: Decimal) -> str:
    """A decimal as the shortest plain text that means it exactly."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _minor(amount: Decimal, digits: int) -> int:
    scaled = amount.scaleb(digits)
    minor = int(scaled)
    assert minor == scaled, "amounts are rounded before they are stored"
    return minor


# -- from rows ---------------------------------------------------------------------------------------------------------


def bill_of(
    row: Any,
    lines: Sequence[Any],
    determinants: Sequence[Determinant],
    holds: Sequence[Hold],
    reversed_by: str,
) -> Bill:
    """The bill of a row of table `bill` and its parts."""
    digits = MINOR_DIGITS.get(row.currency, 2)
    return Bill(
        number=row.number,
        account=row.account,
        usage_point=row.usage_point,
        window=Window(from_epoch_s(row.period_start), from_epoch_s(row.period_end)),
        state=row.state,
        tariff=row.tariff,
        tariff_version=row.tariff_version,
        tariff_sha=row.tariff_sha or "",
        zone=row.zone,
        currency=row.currency,
        total=None if row.total_minor is None else Decimal(row.total_minor).scaleb(-digits),
        issued_at=None if row.issued_at is None else from_epoch_s(row.issued_at),
        as_of=row.as_of,
        lines=tuple(line_of(line, digits) for line in lines),
        determinants=tuple(determinants),
        holds=tuple(holds),
        sequence=row.sequence,
        replaces=row.replaces,
        reversed_by=reversed_by,
        segments=tuple(_segment(line) for line in row.segments.splitlines()),
    )


def _segment(text: str) -> tuple[datetime, str]:
    start, _, sha = text.partition(" ")
    return from_epoch_s(int(start)), sha


def line_of(row: Any, digits: int) -> BillLine:
    """One line."""
    amount = Decimal(row.amount_minor).scaleb(-digits)
    quantity, price = Decimal(row.quantity), Decimal(row.price)
    return BillLine(row.code, row.text, quantity, row.unit, price, amount, row.determinant)


def counts_of(text: str) -> tuple[tuple[Quality, int], ...]:
    """How many values had which quality, as a determinant's row holds it."""
    return tuple((Quality(int(quality)), int(count)) for quality, count in (line.split() for line in text.splitlines()))


def determinant_of(row: Any, parents: Sequence[Parent]) -> Determinant:
    """One determinant and what it comes from."""
    return Determinant(
        row.name,
        Decimal(row.value),
        row.unit,
        None if row.used_before is None else Decimal(row.used_before),
        counts_of(row.counts),
        tuple(parents),
    )


def parent_tables() -> tuple[tuple[Table, Any], ...]:
    """The tables that hold what determinants come from, each with the function that reads a row of it."""
    return (
        (schema.bill_register, _register_part),
        (schema.bill_interval, _interval_part),
        (schema.bill_used, lambda row: UsedBefore(row.number, Decimal(row.energy), from_epoch_s(row.at))),
        (schema.bill_derived, lambda row: Derived(row.name, Decimal(row.value))),
    )


def _register_part(row: Any) -> Parent:
    ends = [
        RegisterEnd(
            from_epoch_s(row._mapping[f"{end}_at"]),
            row._mapping[f"{end}_units"],
            Quality(row._mapping[f"{end}_quality"]),
            Source(row._mapping[f"{end}_source"]),
            row._mapping[f"{end}_outcome_id"],
        )
        for end in ("start", "end")
    ]
    place = (row.meter_key, row.meter, row.quantity)
    return RegisterPart(*place, ends[0], ends[1], row.wrap_units, Decimal(row.multiplier))


def _interval_part(row: Any) -> Parent:
    window = Window(from_epoch_s(row.window_start), from_epoch_s(row.window_end))
    sums = (row.step_s, row._mapping["count"], row.sum_units, row.wrap_units)
    return IntervalPart(row.meter_key, row.meter, row.quantity, window, *sums, Decimal(row.multiplier), row.as_of)


def hold_of(row: Any, *, review: bool = False) -> Hold:
    """A hold, or a finding of an issued bill."""
    start = None if row.span_start is None else from_epoch_s(row.span_start)
    end = None if row.span_end is None else from_epoch_s(row.span_end)
    return Hold(row.code, row.what, row.remedy, row.meter, start, end, row._mapping["count"], review)

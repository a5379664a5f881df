"""Bills of a month as tables for spreadsheets (CSV, UTF-8): one row a bill, one row a line.

A text that a spreadsheet would take for a formula (it begins with = + - @, also in full width, or with a tab or a
line break) is set behind an apostrophe; numbers stay numbers.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from io import StringIO

from billing.documents.words import group_of
from billing.model import Bill
from billing.names import TOTAL
from headend.civil import zone

__all__ = ["BILL_HEAD", "LINE_HEAD", "bill_row", "cell", "csv_text", "line_rows", "rows_text"]

BILL_HEAD = (
    "bill",
    "invoice",
    "account",
    "customer",
    "usage_point",
    "first_day",
    "last_day",
    "state",
    "tariff",
    "tariff_version",
    "tariff_sha",
    "kwh",
    "total",
    "currency",
    "issued_at",
    "as_of",
    "replaces",
    "reversed_by",
)
LINE_HEAD = ("bill", "line", "group", "code", "text", "quantity", "unit", "price", "amount", "currency", "determinant")

_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")
BOM = "\ufeff"


def cell(value: object) -> str:
    """A value as a cell that no spreadsheet runs as a formula."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return f"{value:f}"
    text = str(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]], *, bom: bool = False) -> str:
    """A table with its head, lines ended as RFC 4180 has them; bom: begins with the mark spreadsheets know UTF-8 by."""
    return (BOM if bom else "") + rows_text([head]) + rows_text(rows)


def rows_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows of a table without its head."""
    stream = StringIO(newline="")
    csv.writer(stream).writerows([cell(value) for value in row] for row in rows)
    return stream.getvalue()


def bill_row(bill: Bill, customer: str, invoice: str, reversed_by: str) -> tuple[object, ...]:
    """A bill in one row, as `BILL_HEAD` names it; its period by its first and last civil day."""
    tz = zone(bill.zone)
    energy = next((determinant.value for determinant in bill.determinants if determinant.name == TOTAL), None)
    last = bill.window.end - timedelta(seconds=1)
    return (
        bill.number,
        invoice,
        bill.account,
        customer,
        bill.usage_point,
        f"{bill.window.start.astimezone(tz):%Y-%m-%d}",
        f"{last.astimezone(tz):%Y-%m-%d}",
        bill.state,
        bill.tariff,
        bill.tariff_version,
        bill.tariff_sha,
        energy,
        bill.total if bill.state == "issued" else None,
        bill.currency,
        _time(bill.issued_at, bill.zone),
        bill.as_of,
        bill.replaces,
        reversed_by,
    )


def _time(moment: datetime | None, zone_name: str) -> str:
    return "" if moment is None else f"{moment.astimezone(zone(zone_name)):%Y-%m-%d %H:%M:%S}"


def line_rows(bill: Bill) -> list[tuple[object, ...]]:
    """A bill's lines, as `LINE_HEAD` names their cells."""
    return [
        (
            bill.number,
            number,
            group_of(line),
            line.code,
            line.text,
            line.quantity,
            line.unit,
            line.price,
            line.amount,
            bill.currency,
            line.determinant,
        )
        for number, line in enumerate(bill.lines, start=1)
    ]

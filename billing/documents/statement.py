"""An account's statement over a span of time: what was owed before, each entry, what is owed after. PDF, CSV, JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing.documents.bill_pdf import money
from billing.documents.fonts import wrap
from billing.documents.sheet import ACCENT, FAINT, GREY, LEFT, RIGHT, Column, Row, Sheet
from billing.documents.spreadsheet import csv_text
from billing.documents.words import kind_name, say
from billing.ledger import Entry, Statement
from headend.civil import zone

__all__ = ["Extract", "extract", "statement_csv", "statement_json", "statement_pdf"]


@dataclass(frozen=True, slots=True)
class Extract:
    """The entries of a statement in `[start, end)`; None: from the first, to the last.

    opening, closing: (currency, owed) before the first of them and after the last, for each currency of the account.
    """

    account: str
    customer: str
    start: datetime | None
    end: datetime | None
    opening: tuple[tuple[str, Decimal], ...]
    entries: tuple[Entry, ...]
    closing: tuple[tuple[str, Decimal], ...]


def extract(
    statement: Statement, customer: str = "", start: datetime | None = None, end: datetime | None = None
) -> Extract:
    """The part of a statement in a span of time, with the balances at both its ends."""
    opening = {currency: Decimal(0) for currency, _ in statement.balances}
    closing = dict(opening)
    inside = []
    for entry in statement.entries:
        if end is not None and entry.at >= end:
            continue
        closing[entry.currency] += entry.amount
        if start is not None and entry.at < start:
            opening[entry.currency] += entry.amount
        else:
            inside.append(entry)
    return Extract(
        statement.account, customer, start, end, tuple(opening.items()), tuple(inside), tuple(closing.items())
    )


def statement_json(found: Extract) -> dict[str, Any]:
    """A statement as plain data; amounts are text, times ISO 8601 in UTC."""
    return {
        "account": found.account,
        "customer": found.customer,
        "from": found.start.isoformat() if found.start else None,
        "to": found.end.isoformat() if found.end else None,
        "opening": {currency: str(amount) for currency, amount in found.opening},
        "closing": {currency: str(amount) for currency, amount in found.closing},
        "entries": [
            {
                "number": entry.number,
                "kind": entry.kind,
                "at": entry.at.isoformat(),
                "reference": entry.reference,
                "text": entry.text,
                "currency": entry.currency,
                "amount": str(entry.amount),
                "balance": str(entry.balance),
            }
            for entry in found.entries
        ],
    }


def statement_csv(found: Extract, zone_name: str, *, bom: bool = False) -> str:
    """The entries as a table for spreadsheets; times in the zone. The first and last rows are the balances."""
    rows: list[Sequence[object]] = [
        ("opening", "", "opening", "", "", currency, "", amount) for currency, amount in found.opening
    ]
    for entry in found.entries:
        at = f"{entry.at.astimezone(zone(zone_name)):%Y-%m-%d %H:%M:%S}"
        money_of = (entry.currency, entry.amount, entry.balance)
        rows.append((entry.number, at, entry.kind, entry.reference, entry.text, *money_of))
    rows += [("closing", "", "closing", "", "", currency, "", amount) for currency, amount in found.closing]
    head = ("entry", "at", "kind", "reference", "text", "currency", "amount", "balance")
    return csv_text(head, rows, bom=bom)


def statement_pdf(found: Extract, utility: str, zone_name: str, language: str = "both") -> bytes:
    """A statement as a document in a language (`zh`, `en` or `both`)."""
    account = f"{say('account', language)} {found.account}"
    sheet = Sheet(f"{say('statement', language)} {found.account}", utility, language, running=(utility, account))
    sheet.text(LEFT, sheet.y - 14, utility, 15, bold=True, colour=ACCENT, room=290)
    sheet.text(RIGHT, sheet.y - 13, say("statement", language), 13, bold=True, align="r", room=210)
    sheet.y -= 26
    sheet.line(LEFT, sheet.y, RIGHT, sheet.y, ACCENT, 1.6)
    facts = [
        (say("account", language), found.account),
        (say("customer", language), found.customer),
        (say("span", language), _span(found, zone_name)),
    ]
    for name, value in facts:
        if value:
            sheet.y -= 16
            sheet.text(LEFT, sheet.y, name, 8, colour=GREY, room=112)
            for number, part in enumerate(wrap(value, 9.5, RIGHT - LEFT - 120)):
                sheet.y -= 12.5 if number else 0
                sheet.text(LEFT + 120, sheet.y, part, 9.5)
    _balances(sheet, found)
    sheet.heading(say("entries", language), 60)
    _entries(sheet, found, zone_name)
    sheet.box_of("", (say("balance_note", language, between=" "),))
    return sheet.pdf()


def _span(found: Extract, zone_name: str) -> str:
    start = found.start or (found.entries[0].at if found.entries else None)
    end = found.end or (found.entries[-1].at if found.entries else None)
    if start is None or end is None:
        return ""
    tz = zone(zone_name)
    return f"{start.astimezone(tz):%Y-%m-%d %H:%M} – {end.astimezone(tz):%Y-%m-%d %H:%M}"


def _balances(sheet: Sheet, found: Extract) -> None:
    opening = dict(found.opening)
    for currency, closing in found.closing:
        sheet.need(62)
        sheet.y -= 62
        middle = (LEFT + RIGHT) / 2
        for x, name, amount, strong in (
            (LEFT, "opening", opening[currency], False),
            (middle + 6, "closing", closing, True),
        ):
            sheet.box(x, sheet.y, middle - LEFT - 6, 50, FAINT)
            sheet.text(x + 12, sheet.y + 34, f"{say(name, sheet.language)} ({currency})", 8, colour=GREY)
            sheet.text(x + 12, sheet.y + 12, money(amount, currency), 16, bold=strong, colour=ACCENT, room=220)


def _entries(sheet: Sheet, found: Extract, zone_name: str) -> None:
    language, tz = sheet.language, zone(zone_name)
    columns = [
        Column(say("date", language), 64),
        Column(say("entry", language), 68),
        Column(say("kind", language), 82),
        Column(f"{say('reference', language)}, {say('text', language)}", 137),
        Column(say("amount", language), 80, "r"),
        Column(say("balance", language), RIGHT - LEFT - 431, "r"),
    ]
    rows = []
    for entry in found.entries:
        words = entry.reference if not entry.text else f"{entry.reference}: {entry.text}"
        amounts = money(entry.amount, entry.currency), money(entry.balance, entry.currency)
        day = f"{entry.at.astimezone(tz):%Y-%m-%d}"
        rows.append(Row((day, entry.number, kind_name(entry.kind, language), words, *amounts)))
    if rows:
        sheet.table(columns, rows)
    else:
        sheet.y -= 14
        sheet.text(LEFT, sheet.y, say("no_entries", language), 9, colour=GREY)

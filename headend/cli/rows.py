"""Rows on the screen, as JSON or as CSV, the same everywhere; and remarks beside them on stderr."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headend.cli.common import out

__all__ = ["MOST_SHOWN", "Row", "kwh", "note", "part", "print_rows"]

MOST_SHOWN = 50
"""Rows a table shows at most; JSON and CSV give all."""

Row = dict[str, Any]

_notes = Console(stderr=True, highlight=False)


def note(text: str) -> None:
    """A remark beside the rows, on stderr."""
    _notes.print(text, style="yellow", markup=False, soft_wrap=True)


def kwh(value: Decimal | None) -> str | None:
    """Energy to the hundredth; None stays unknown."""
    return None if value is None else f"{value:.2f}"


def part(value: Decimal | None) -> str | None:
    """A fraction to four places; None stays unknown."""
    return None if value is None else f"{value:.4f}"


def print_rows(rows: Sequence[Row], form: str, percent: Sequence[str] = ()) -> None:
    """Rows as a table (parts of `percent` columns as per cent), JSON or CSV."""
    if form == "json":
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    elif form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        click.echo(text.getvalue(), nl=False)
    elif not rows:
        out.print("nothing to show")
    else:
        table = Table(*(name.replace("_", " ") for name in rows[0]))
        for row in rows[:MOST_SHOWN]:
            table.add_row(*(escape(_cell(value, name in percent)) for name, value in row.items()))
        out.print(table)
        if len(rows) > MOST_SHOWN:
            out.print(f"... and {len(rows) - MOST_SHOWN} more; --json and --csv give all")


def _cell(value: object, percent: bool) -> str:
    if value is None:
        return "-"
    return f"{Decimal(str(value)):+.1%}" if percent else str(value)

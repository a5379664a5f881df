"""Rows of a loss table's CSV file to rows of the store, with every check of an import. Columns: docs/import.md."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from config.csvfile import CsvRow, identifier, number
from config.problems import shown
from headend.errors import Problem
from headend.store.loss_tables import LossRow, row_faults

__all__ = ["LOSS_COLUMNS", "loss_table_rows"]

LOSS_COLUMNS: Final = ("type", "rated_kva", "up_to_kwh", "active_kwh", "reactive_kvarh")


def loss_table_rows(rows: list[CsvRow], held: Iterable[LossRow], problems: list[Problem]) -> list[LossRow]:
    """The bands of loss_tables.csv. held: those of the store."""
    found: list[LossRow] = []
    places: list[CsvRow] = []
    before = len(problems)
    first: dict[tuple[str, Decimal, Decimal], CsvRow] = {}
    for row in rows:
        name = identifier(row, "type", problems)
        numbers = [number(row, column, problems) for column in LOSS_COLUMNS[1:]]
        values = [value for value in numbers if value is not None]
        if name is None or len(values) < len(numbers):
            continue
        new = LossRow(name, *values)
        other = first.setdefault((new.table, new.rated_kva, new.up_to_kwh), row)
        if other is not row:
            what = f"{shown(name)} has this band already, line {other.line}"
            problems.append(Problem(row.where("up_to_kwh"), what, "remove one of the two rows"))
            continue
        found.append(new)
        places.append(row)
    if len(problems) == before:
        row_of = {id(new): row for new, row in zip(found, places, strict=True)}
        problems += [
            Problem(row_of[id(new)].where(field), what, remedy) for new, field, what, remedy in row_faults(found, held)
        ]
    return found

"""Secrets of meters from a CSV file. Problems name the row and the column and repeat no cell: it may be a secret."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from config.csvfile import CsvRow, read_csv
from headend.errors import ConfigError, Problem, UsageError
from headend.keyring import NAMES, Entry, parse_secret
from headend.store.registry import MeterRow

__all__ = ["COLUMNS", "read_secrets"]

COLUMNS: Final = ("meter_id", "name", "value")


def read_secrets(path: Path, meters: Mapping[str, MeterRow]) -> list[Entry]:
    """The secrets of a CSV file. meters: those of the store, by id. Raises `ConfigError` with every problem."""
    rows, problems = read_csv(path, COLUMNS, ())
    problems = [_without_cells(problem) for problem in problems]
    entries: list[Entry] = []
    seen: dict[tuple[str, str], int] = {}
    for row in rows:
        entry = _entry(row, meters, problems)
        place = (row.cells["meter_id"], row.cells["name"])
        if seen.setdefault(place, row.line) != row.line:
            what = f"the meter has this secret in line {seen[place]} already"
            problems.append(Problem(row.where("name"), what, "remove one of the two rows"))
        if entry is not None:
            entries.append(entry)
    if problems:
        raise ConfigError(problems)
    return entries


def _entry(row: CsvRow, meters: Mapping[str, MeterRow], problems: list[Problem]) -> Entry | None:
    meter, name = meters.get(row.cells["meter_id"]), row.cells["name"]
    if meter is None:
        problems.append(Problem(row.where("meter_id"), "no meter of this id is in the store", "import the meter first"))
    try:
        value = parse_secret(name, row.cells["value"])
    except UsageError as error:
        column = "value" if name in NAMES else "name"
        problems.append(Problem(row.where(column), error.problem.what, error.problem.remedy))
        return None
    return None if meter is None else Entry(meter, name, value)


def _without_cells(problem: Problem) -> Problem:
    """A problem of the file's form. Where the header is missing, what stands in its place is no name but a value."""
    if "unknown column" not in problem.what:
        return problem
    return Problem(problem.where, "a column that does not belong here", f"the header is {','.join(COLUMNS)}")

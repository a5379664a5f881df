"""CSV files as spreadsheets write them, to rows of named cells; and cells to values, problems gathered on the way."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from config.problems import nearest, parse_decimal, read_bytes, shown
from headend import civil
from headend.errors import ConfigError, Problem

__all__ = ["CsvRow", "identifier", "moment", "number", "parse_csv", "read_csv"]

_NAME_CHARACTERS: Final = 100
_YEARS: Final = range(1970, 2200)
_SAVE: Final = "save the file as CSV UTF-8"


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One row: the line of the file it starts on, and its cells by column, blanks around them removed."""

    file: str
    line: int
    cells: dict[str, str]

    def where(self, column: str) -> str:
        """The place of a cell, `meters.csv:3: address`."""
        return f"{self.file}:{self.line}: {column}"


def read_csv(path: Path, required: Collection[str], optional: Collection[str]) -> tuple[list[CsvRow], list[Problem]]:
    """The rows under a header of these columns, in any order, and what is wrong with the file.

    UTF-8 (with or without a byte order mark) and GB18030 are read; empty rows are left out, rows of another width than
    the header are problems and left out. Nothing is raised: an unreadable file gives no rows and its problems.
    """
    try:
        text = _decoded(path.name, read_bytes(path, missing="check the file's name"))
    except ConfigError as error:
        return [], list(error.problems)
    return parse_csv(path.name, text, required, optional)


def parse_csv(
    file: str, text: str, required: Collection[str], optional: Collection[str]
) -> tuple[list[CsvRow], list[Problem]]:
    """As `read_csv`, of the text of a file called `file`."""
    lines = _lines(file, text)
    try:
        header_line, header = next(lines, (1, []))
        if not header:
            what = "the file is empty"
            return [], [Problem(file, what, f"write the header {','.join([*required, *optional])} and the rows")]
        if problems := _header_problems(f"{file}:{header_line}", header, required, optional):
            return [], problems
        return _rows(file, header, lines)
    except ConfigError as error:
        return [], list(error.problems)


def identifier(row: CsvRow, column: str, problems: list[Problem]) -> str | None:
    """The cell as a name; None, with a problem, when it is empty, too long or unprintable."""
    text = row.cells[column]
    if not text:
        problems.append(Problem(row.where(column), "the cell is empty", "fill it in"))
        return None
    if len(text) > _NAME_CHARACTERS or not text.isprintable():
        what = f"{shown(text)} is longer than {_NAME_CHARACTERS} characters or holds control characters"
        problems.append(Problem(row.where(column), what, "use a short plain name"))
        return None
    return text


def number(row: CsvRow, column: str, problems: list[Problem], *, above: Decimal | None = None) -> Decimal | None:
    """The cell as an exact number of 0 or more, greater than `above`; None, with a problem, when it is none."""
    text = row.cells[column]
    try:
        value = parse_decimal(text)
    except ValueError as error:
        problems.append(Problem(row.where(column), str(error), "write it like 12.5, without thousands separators"))
        return None
    if value < 0 or (above is not None and value <= above):
        limit = "of 0 or more" if above is None else f"above {above}"
        problems.append(Problem(row.where(column), f"{value} is out of range", f"use a number {limit}"))
        return None
    return value


def moment(row: CsvRow, column: str, zone: str, problems: list[Problem]) -> datetime | None:
    """The cell as an instant (UTC, whole seconds); None, with a problem, when it is none. `zone` is only proposed."""
    text, where = row.cells[column], row.where(column)
    try:
        stamp = datetime.fromisoformat(text)
    except ValueError:
        problems.append(Problem(where, f"{shown(text)} is no time", "write it like 2026-01-31T00:00:00+08:00"))
        return None
    if stamp.year not in _YEARS:
        what = f"the year {stamp.year} is out of range"
        problems.append(Problem(where, what, f"use a year from {_YEARS[0]} to {_YEARS[-1]}"))
        return None
    if stamp.tzinfo is None:
        local = stamp.replace(tzinfo=civil.zone(zone)).isoformat(timespec="seconds")
        what = f"{shown(text)} has no offset from UTC"
        problems.append(Problem(where, what, f"write {local} if the time of {zone} is meant"))
        return None
    if stamp.astimezone(UTC).microsecond:
        problems.append(Problem(where, f"{shown(text)} is finer than a second", "use whole seconds"))
        return None
    return stamp.astimezone(UTC)


def _decoded(file: str, data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise ConfigError([Problem(file, "the text is UTF-16 or not text at all", _SAVE)])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError as error:
        start = error.start
    else:
        stray = next((i for i, c in enumerate(text) if unicodedata.category(c) in ("Co", "Cn")), None)
        if stray is None:
            return text
        start = len(text[:stray].encode("gb18030"))
    line = data.count(b"\n", 0, start) + 1
    raise ConfigError([Problem(f"{file}:{line}", "the text is neither UTF-8 nor GB18030", _SAVE)])


def _lines(file: str, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield line, stripped
            line = reader.line_num + 1
    except csv.Error as error:
        remedy = 'close every ", write "" for one inside a quoted cell, end lines with a line feed'
        raise ConfigError([Problem(f"{file}:{line}", f"not CSV: {error}", remedy)]) from None


def _header_problems(
    where: str, header: list[str], required: Collection[str], optional: Collection[str]
) -> list[Problem]:
    columns = [*required, *optional]
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        return [Problem(where, "the columns are not separated by commas", "save the file as CSV with commas")]
    problems = []
    for name in dict.fromkeys(header):
        if name not in columns:
            unused = [column for column in columns if column not in header]
            problems.append(Problem(where, f"unknown column {shown(name)}", nearest(name, unused, none="remove it")))
        elif header.count(name) > 1:
            problems.append(Problem(where, f"the column {name} stands twice", "remove one"))
    problems += [
        Problem(where, f"the column {name} is missing", f"the header is {','.join(columns)}")
        for name in required
        if name not in header
    ]
    return problems


def _rows(file: str, header: list[str], lines: Iterator[tuple[int, list[str]]]) -> tuple[list[CsvRow], list[Problem]]:
    rows, problems = [], []
    try:
        for line, cells in lines:
            if len(cells) == len(header):
                rows.append(CsvRow(file, line, dict(zip(header, cells, strict=True))))
                continue
            what = f"the row has {len(cells)} cells, the header {len(header)}"
            remedy = "give every row one cell for each column; a comma inside a cell needs quotes around it"
            problems.append(Problem(f"{file}:{line}", what, remedy))
    except ConfigError as error:
        problems += error.problems
    return rows, problems

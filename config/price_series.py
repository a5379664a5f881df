"""Prices of consecutive spans of time as CSV (`start,price`): read whole, checked, kept with the tariff's text.

A tariff's text must be enough to bill from: the series it names are appended to it, each as comments under a line
`#: series NAME`. What is appended is the file's text with line feeds; its SHA-256 is that of the series.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from billing.charges import PriceSeries
from config.csvfile import CsvRow, parse_csv
from config.load_curves import few, stamp, step_of
from config.problems import read_bytes, shown
from headend.civil import zone
from headend.errors import ConfigError, Problem

__all__ = ["appended", "parse_series", "read_text", "split_text"]

_AT: Final = "start"
_PRICE: Final = "price"
_NUMBER: Final = re.compile(r"-?\d{1,12}(\.\d{1,8})?")
_STEPS_MIN: Final = (15, 30, 60)
_MARK: Final = "#: "
_HEAD: Final = re.compile(r"#: series (\S+)")


def read_text(path: Path) -> str:
    """The text of a series' file, UTF-8, with line feeds; `ConfigError` if it can't be read."""
    data = read_bytes(path, missing="put the file of prices beside the tariff's, or correct `series`")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(f"{path.name}:{line}", "the text is not UTF-8", "save the file with the encoding UTF-8")
        raise ConfigError([problem]) from None
    return "\n".join(line.strip() for line in text.splitlines() if line.strip()) + "\n"


def appended(text: str, series: Mapping[str, str]) -> str:
    """A tariff's text with the texts of its series behind it, by name."""
    parts = [text if text.endswith("\n") or not series else f"{text}\n"]
    for name, content in series.items():
        parts.append(f"{_MARK}series {name}\n" + "".join(f"{_MARK}{line}\n" for line in content.splitlines()))
    return "".join(parts)


def split_text(text: str) -> tuple[str, dict[str, str]]:
    """What `appended` put together: the tariff's text, and the texts of its series by name."""
    lines = text.splitlines(keepends=True)
    first = next((n for n, line in enumerate(lines) if _HEAD.fullmatch(line.rstrip())), len(lines))
    found: dict[str, list[str]] = {}
    name = ""
    for line in lines[first:]:
        if match := _HEAD.fullmatch(line.rstrip()):
            name = match[1]
        elif line.startswith(_MARK):
            found.setdefault(name, []).append(line.removeprefix(_MARK).rstrip() + "\n")
    return "".join(lines[:first]), {one: "".join(rows) for one, rows in found.items()}


def parse_series(name: str, text: str, zone_name: str) -> PriceSeries:
    """The series in the text of a file called `name`: a header `start,price` and a row for each span, without gaps.

    Starts are ISO 8601; without an offset they are wall-clock time of `zone_name`. The step is 15, 30 or 60 minutes.
    `ConfigError` with every problem found.
    """
    rows, problems = parse_csv(name, text, (_AT, _PRICE), ())
    points: list[tuple[CsvRow, datetime, Decimal]] = []
    wrong: list[Problem] = []
    tz = zone(zone_name)
    for row in rows:
        at = stamp(row, _AT, tz, zone_name, points[-1][1] if points else None, wrong)
        price = _price(row, wrong)
        if at is not None and price is not None:
            points.append((row, at, price))
    problems += few(wrong, name)
    step_s = 0
    if len(points) > 1:
        step_s, wrong = step_of(points, name, complete=not problems, column=_AT)
        problems += few(wrong, name)
        if not problems and step_s not in [60 * minutes for minutes in _STEPS_MIN]:
            what = f"the prices are {step_s} s apart"
            problems.append(Problem(name, what, f"give one for every {', '.join(map(str, _STEPS_MIN))} minutes"))
    elif not problems:
        problems.append(Problem(name, "the file has fewer than two rows", "give one row for each span of time"))
    if problems:
        raise ConfigError(problems)
    sha = hashlib.sha256(text.encode()).hexdigest()
    return PriceSeries(name, sha, points[0][1], step_s, tuple(price for _, _, price in points))


def _price(row: CsvRow, problems: list[Problem]) -> Decimal | None:
    text = row.cells[_PRICE]
    if not _NUMBER.fullmatch(text):
        what = f"{shown(text)} is no decimal number with up to 8 places" if text else "the cell is empty"
        problems.append(Problem(row.where(_PRICE), what, "write the price like 0.312; it may be below 0"))
        return None
    return Decimal(text)

"""Load curves as CSV (`timestamp,kWh`): checked whole, every problem at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Final

from billing.try_curve import Curve
from config.csvfile import CsvRow, read_csv
from config.problems import shown
from headend.civil import zone
from headend.errors import ConfigError, Problem

__all__ = ["few", "read_curve", "stamp", "step_of"]

_AT: Final = "timestamp"
_ENERGY: Final = "kWh"
_NUMBER: Final = re.compile(r"-?\d{1,12}(\.\d{1,12})?")
_TOLD: Final = 50  # of one kind of problem
_YEARS: Final = range(1970, 2200)
_DAY_S: Final = 86_400

Point = tuple[CsvRow, datetime, Decimal]


def read_curve(path: Path, zone_name: str, *, stamps_at_end: bool = False) -> Curve:
    """The curve in a file: a header `timestamp,kWh` and one row for each interval, in order, without gaps.

    Timestamps are ISO 8601; without an offset they are wall-clock time of `zone_name`, where the hour that comes twice
    in autumn is told apart by the order of the rows. They are the starts of the intervals, or their ends. The step is
    that between most rows. `ConfigError` with every problem found.
    """
    rows, problems = read_csv(path, (_AT, _ENERGY), ())
    points: list[Point] = []
    wrong: list[Problem] = []
    tz = zone(zone_name)
    for row in rows:
        before = points[-1][1] if points else None
        at = stamp(row, _AT, tz, zone_name, before, wrong)
        energy = _energy(row, wrong)
        if at is not None and energy is not None:
            points.append((row, at, energy))
    problems += few(wrong, path.name)
    step_s = 0
    if len(points) > 1:
        step_s, wrong = step_of(points, path.name, complete=not problems)
        problems += few(wrong, path.name)
    elif not problems:
        problems.append(Problem(path.name, "the file has fewer than two rows", "give one row for each interval"))
    if problems:
        raise ConfigError(problems)
    start = points[0][1] - timedelta(seconds=step_s if stamps_at_end else 0)
    return Curve(start, step_s, tuple(energy for _, _, energy in points))


def few(problems: list[Problem], file: str) -> list[Problem]:
    """The first of problems of one kind; a file of another layout has one on every row."""
    if len(problems) <= _TOLD:
        return problems
    return [*problems[:_TOLD], Problem(file, f"and {len(problems) - _TOLD} more problems like these")]


def stamp(
    row: CsvRow, column: str, tz: tzinfo, zone_name: str, before: datetime | None, problems: list[Problem]
) -> datetime | None:
    """The timestamp in `column` as UTC; None, with a problem, when it is none. `before`: the instant of the row above.

    Without an offset it is the wall clock of the zone; where that comes twice, the row above tells which is meant.
    """
    text = row.cells[column]
    try:
        shown_at = datetime.fromisoformat(text)
    except ValueError:
        problems.append(Problem(row.where(column), f"{shown(text)} is no time", "write it like 2026-01-31T00:15"))
        return None
    if shown_at.year not in _YEARS or shown_at.microsecond:
        what = f"{shown(text)} is finer than a second or in no year that meters know"
        problems.append(Problem(row.where(column), what, "write it like 2026-01-31T00:15"))
        return None
    if shown_at.tzinfo is not None:
        return shown_at.astimezone(UTC)
    at = shown_at.replace(tzinfo=tz).astimezone(UTC)
    if at.astimezone(tz).replace(tzinfo=None) != shown_at:
        what = f"{shown(text)} does not exist in {zone_name}: the clock is put forward then"
        problems.append(Problem(row.where(column), what, "correct the time, or write it with its offset from UTC"))
        return None
    later = shown_at.replace(tzinfo=tz, fold=1).astimezone(UTC)
    return later if before is not None and at <= before < later else at


def _energy(row: CsvRow, problems: list[Problem]) -> Decimal | None:
    text = row.cells[_ENERGY]
    if not _NUMBER.fullmatch(text):
        what = f"{shown(text)} is no decimal number" if text else "the cell is empty"
        problems.append(Problem(row.where(_ENERGY), what, "write the interval's energy like 0.25"))
        return None
    value = Decimal(text)
    if value < 0:
        problems.append(
            Problem(row.where(_ENERGY), f"{text} is below 0", "give consumption; what was fed in is left out")
        )
        return None
    return value


def step_of(points: Sequence[Point], file: str, *, complete: bool, column: str = _AT) -> tuple[int, list[Problem]]:
    """The step in seconds, and every place where rows are not one step apart.

    complete: no row was left out for a problem of its own; else gaps are not told, for they may be such rows.
    """
    apart = Counter((later[1] - earlier[1]) // timedelta(seconds=1) for earlier, later in pairwise(points))
    step_s = max(apart, key=lambda gap: (apart[gap], -gap))
    if not 0 < step_s <= _DAY_S:
        what = f"most rows are {step_s} s apart"
        return step_s, [Problem(file, what, "give one row for each interval, in order, a day long at most")]
    problems = []
    for (_, earlier, _), (row, later, _) in pairwise(points):
        gap_s = (later - earlier) // timedelta(seconds=1)
        if gap_s == step_s or (not complete and gap_s > 0 and gap_s % step_s == 0):
            continue
        if gap_s == 0:
            what, remedy = "the interval stands twice", "keep one of the two rows"
        elif gap_s < 0:
            what, remedy = "the time is before that of the row above", "sort the rows by time"
        elif gap_s % step_s == 0:
            missing = gap_s // step_s - 1
            what = f"{missing} interval{'s are' if missing > 1 else ' is'} missing before this row"
            remedy = "give every interval; estimate what was not measured"
        else:
            what = f"the row is {gap_s} s after the one above, most rows {step_s} s"
            remedy = "give one fixed step"
        problems.append(Problem(row.where(column), what, remedy))
    return step_s, problems

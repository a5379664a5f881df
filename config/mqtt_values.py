"""Parts that all files about MQTT formats have: places, times, values. Checked, every problem at its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import tzinfo
from fractions import Fraction
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from config.problems import Table, Where, check_table, nearest, refuse, shown
from headend.civil import zone
from headend.errors import Problem, UsageError
from headend.mqtt.payload import Path
from headend.mqtt.shapes import Time, Value, factor
from headend.quantities import QUANTITIES

__all__ = ["Exact", "PathText", "TimeTable", "ValueTable", "fields_of", "path_of", "tables_at", "time_of", "values_of"]

_SCALE: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")

PathText = str | list[str]


def _scale(value: object) -> Fraction:
    """An exact factor: a quoted decimal or a whole number."""
    if isinstance(value, float):
        refuse(f"{value} is a float, which is not exact", f'write it in quotes: "{value}"')
    if isinstance(value, bool) or not isinstance(value, int | str) or not _SCALE.fullmatch(str(value)[:40]):
        refuse(f"{shown(value)} is no decimal number", 'write it in quotes, like "0.01"')
    return Fraction(value)


Exact = Annotated[Fraction, BeforeValidator(_scale)]


class TimeTable(Table):
    """`time = { ... }`."""

    at: PathText | None = None
    root: PathText | None = None
    format: str = Field(min_length=1, examples=['"epoch_ms"'])
    zone: str = ""
    absent: Literal["refuse", "received"] = "refuse"
    snap_s: int = Field(default=0, ge=0, le=3600, examples=["30"])


class ValueTable(Table):
    """`[[part.value]]`. scale: what 1 of the message is in `unit`; a negative one turns the sign."""

    at: PathText = Field(examples=['"Total"'])
    quantity: str = Field(examples=['"import_kwh"'])
    unit: str = Field(examples=['"kWh"'])
    scale: Exact = Fraction(1)


def time_of(raw: object, where: Where, problems: list[Problem]) -> Time:
    """`time = { ... }`, checked."""
    table, wrong = check_table(TimeTable, raw, lambda key: where(f"time.{key}" if key else "time"))
    problems += wrong
    if table is None:
        return Time()
    if (table.at is None) == (table.root is None):
        problems.append(Problem(where("time"), "has not exactly one place", "write at (in the item) or root"))
    known = table.format in ("epoch_s", "epoch_ms", "iso")
    if not known and "%" not in table.format:
        remedy = "use epoch_s, epoch_ms, iso or %Y%m%d%H%M%S"
        problems.append(Problem(where("time.format"), f"{shown(table.format)} is no format of times", remedy))
    place: tzinfo | None = None
    if table.zone:
        try:
            place = zone(table.zone)
        except UsageError as error:
            problems.append(Problem(where("time.zone"), error.problem.what, error.problem.remedy))
    elif not known and "%z" not in table.format and "%" in table.format:
        what = "a local time without a zone is no instant"
        problems.append(Problem(where("time.zone"), what, 'write zone = "+08:00" or zone = "Europe/Berlin"'))
    path = table.at if table.root is None else table.root
    received = table.absent == "received"
    return Time(path_of(path or ""), table.root is not None, table.format, place, received, table.snap_s)


def values_of(
    raw: Mapping[str, Any],
    key: str,
    where: Where,
    problems: list[Problem],
    *,
    told: bool = False,
    names_only: bool = False,
) -> tuple[Value, ...]:
    """The `[[value]]` tables under `key`. names_only: `at` is a name as it stands, dots and all."""
    values: list[Value] = []
    for one, at in tables_at(raw, key, where, problems, told=told):
        table, wrong = check_table(ValueTable, one, at)
        problems += wrong
        if table is None:
            continue
        if table.quantity not in QUANTITIES:
            remedy = nearest(table.quantity, QUANTITIES)
            problems.append(Problem(at("quantity"), f"unknown quantity {shown(table.quantity)}", remedy))
            continue
        try:
            by = factor(table.quantity, table.unit, table.scale)
        except UsageError as error:
            problems.append(Problem(at("unit"), error.problem.what, error.problem.remedy))
            continue
        if not by:
            problems.append(Problem(at("scale"), "a scale of 0 makes everything nothing", 'write scale = "1"'))
        path = (table.at,) if names_only and isinstance(table.at, str) else path_of(table.at)
        if not path or any(value.path == path for value in values):
            problems.append(Problem(at("at"), "is empty, or given twice", "name each place once"))
        values.append(Value(path, table.quantity, by, table.scale))
    return tuple(values)


def tables_at(
    raw: Mapping[str, Any], key: str, where: Where, problems: list[Problem], *, told: bool = False
) -> list[tuple[object, Where]]:
    """The repeated tables `[[key]]` with their places. told: whether a wrong shape has been told already."""
    tables = raw.get(key, [])
    if not isinstance(tables, list) or not tables:
        if not told:
            problems.append(Problem(where(key), f"no [[{key}]] is there", f"write at least one [[{key}]]"))
        return []
    return [(one, _under(where, f"{key}[{number}]")) for number, one in enumerate(tables, start=1)]


def _under(where: Where, place: str) -> Where:
    return lambda key: where(f"{place}.{key}" if key else place)


def path_of(text: PathText) -> Path:
    """`a.b.c` or `["a", "b.c"]` as a path; "" is the place itself."""
    if isinstance(text, str):
        return tuple(text.split(".")) if text else ()
    return tuple(text)


def fields_of(table: Mapping[str, Any]) -> tuple[tuple[Path, Any], ...]:
    return tuple((path_of(key), value) for key, value in table.items())

"""What a meter model's protocol must know beside: `[dlms]` or `[modbus]` of its file, and a meter's own options."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from config import dlms_details, modbus_details
from config.problems import Where
from headend.errors import Problem
from headend.model import MeterModel

__all__ = ["TABLES", "Details", "details_of", "one_family", "with_options"]

Parse = Callable[[Mapping[str, Any], Where], tuple[object | None, list[Problem]]]


@dataclass(frozen=True, slots=True)
class Details:
    """How one family of protocols describes its meters: the table's name, and what checks it."""

    table: str
    parse: Parse


TABLES: Final[Mapping[str, Details]] = {
    "dlms": Details("dlms", dlms_details.parse),
    "modbus-rtu": Details("modbus", modbus_details.parse),
    "modbus-tcp": Details("modbus", modbus_details.parse),
}


def one_family(one: str, other: str) -> bool:
    """Whether a meter of a model that names protocol `one` may speak `other`: RTU and TCP carry the same registers."""
    return one == other or (one in TABLES and other in TABLES and TABLES[one].table == TABLES[other].table)


def details_of(protocol: str, raw: Mapping[str, Any], where: Where) -> tuple[object | None, list[Problem]]:
    """The details in a model's file `raw` and their problems; None for a protocol that has none."""
    details = TABLES.get(protocol)
    if details is None:
        return None, []
    table = raw.get(details.table, {})
    if not isinstance(table, dict):
        return None, [Problem(where(details.table), "is no table", f"write [{details.table}]")]
    return details.parse(table, lambda key: where(f"{details.table}.{key}" if key else details.table))


def with_options(model: MeterModel, options: str, where: str) -> tuple[object | None, list[Problem]]:
    """The model's details with a meter's own `options` (`client = 32; reply_s = 3.5`) over them, checked as a whole."""
    if not options.strip():
        return model.details, []
    details = TABLES.get(model.protocol)
    if details is None:
        return None, [Problem(where, f"a meter of {model.protocol} has no options", "leave it empty")]
    try:
        own = tomllib.loads(options.replace(";", "\n"))
    except tomllib.TOMLDecodeError as error:
        return None, [Problem(where, f"not readable: {error}", "write key = value; key = value, texts in quotes")]
    merged = _over(json.loads(model.details_text or "{}"), own)
    return details.parse(merged, lambda key: f"{where}: {key}" if key else where)


def _over(below: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with what `own` says instead; tables key by key (`profile.selective = "entry"`)."""
    merged = dict(below)
    for key, value in own.items():
        under = merged.get(key)
        merged[key] = _over(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged

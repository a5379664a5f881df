"""Mapping files that set up a format which is code: `dialect = "acrel-overseas"`, `acrel-domestic` or `chirpstack`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import tzinfo
from typing import Any, Final, Literal

from pydantic import Field as Key

from config.mqtt_values import Exact, PathText, path_of, tables_at, time_of, values_of
from config.problems import Table, Where, check_table, nearest, shown
from headend.civil import zone
from headend.errors import Problem, UsageError
from headend.mqtt.dialect import Dialect
from headend.mqtt.dialects import AcrelDomestic, AcrelOverseas, ChirpStack, Field, Profile
from headend.mqtt.payload import Path
from headend.mqtt.shapes import Part, Term, Time, factor
from headend.protocols.modbus.model import WORDS, Register
from headend.quantities import QUANTITIES

__all__ = ["parse_dialect"]

_HEX: Final = re.compile(r"([0-9A-Fa-f]{2}|\?\?)*")
_UPLINK_TIME: Final = Time(("time",), root=True, form="iso", received=True)

Kind = Literal["acrel-overseas", "acrel-domestic", "chirpstack"]


class DialectTable(Table):
    """The file. zone: acrel-overseas only, of local times before a gateway has told its own."""

    dialect: Kind
    source: str = Key(min_length=1, examples=['"where the format is described"'])
    unverified: str = ""
    zone: str = ""
    ignore: list[str] = Key(default=[])
    value: list[Any] = Key(default=[])
    profile: list[Any] = Key(default=[])


class ProfileTable(Table):
    """`[[profile]]` of chirpstack: either `[[profile.value]]`, places in `object`, or `[[profile.field]]` in `data`."""

    device_profile: str = ""
    port: int | None = Key(default=None, ge=0, le=255)
    inside: PathText = ""
    ignore: list[str] = Key(default=[])
    missing: list[str] = Key(default=[])
    strict: bool = True
    time: dict[str, Any] | None = None
    starts: str = ""
    value: list[Any] = Key(default=[])
    field: list[Any] = Key(default=[])


class FieldTable(Table):
    """`[[profile.field]]`. offset: byte the number starts at, from 0."""

    offset: int = Key(ge=0, le=255, examples=["6"])
    type: Literal["u16", "s16", "u32", "s32", "u64", "s64", "f32", "f64"] = Key(examples=['"f32"'])
    byte_order: Literal["big", "little"] = "big"
    quantity: str = Key(examples=['"import_kwh"'])
    unit: str = Key(examples=['"kWh"'])
    scale: Exact = Key(default=1, validate_default=True)


def parse_dialect(name: str, raw: Mapping[str, Any], where: Where) -> tuple[Dialect | None, list[Problem]]:
    """The dialect a file sets up, or its problems."""
    table, problems = check_table(DialectTable, raw, where)
    if table is None:
        return None, problems
    made: Dialect
    if table.dialect == "chirpstack":
        _none_of(table, ("value", "zone", "ignore"), where, problems)
        made = ChirpStack(name, _profiles(raw, where, problems))
    else:
        _none_of(table, ("profile",), where, problems)
        values = values_of(raw, "value", where, problems)
        if table.dialect == "acrel-domestic":
            _none_of(table, ("zone",), where, problems)
            made = AcrelDomestic(name, values, tuple(table.ignore))
        else:
            made = AcrelOverseas(name, values, _zone(table.zone, where, problems), tuple(table.ignore))
    return (None, problems) if problems else (made, [])


def _none_of(table: DialectTable, keys: tuple[str, ...], where: Where, problems: list[Problem]) -> None:
    for key in keys:
        if getattr(table, key):
            problems.append(Problem(where(key), f"means nothing to {table.dialect}", "remove it"))


def _zone(text: str, where: Where, problems: list[Problem]) -> tzinfo | None:
    if not text:
        return None
    try:
        return zone(text)
    except UsageError as error:
        problems.append(Problem(where("zone"), error.problem.what, error.problem.remedy))
        return None


# -- chirpstack --------------------------------------------------------------------------------------------------------


def _profiles(raw: Mapping[str, Any], where: Where, problems: list[Problem]) -> tuple[Profile, ...]:
    profiles = []
    for one, at in tables_at(raw, "profile", where, problems):
        table, wrong = check_table(ProfileTable, one, at)
        problems += wrong
        if table is None or not isinstance(one, dict):
            continue
        if bool(table.value) == bool(table.field):
            what = "has not exactly one of [[profile.value]] and [[profile.field]]"
            problems.append(Problem(at(""), what, "values stand in `object`, fields in `data`"))
            continue
        skip, starts = _start(table.starts, at, problems)
        profile = Profile(table.device_profile, table.port, starts=starts, skip=skip)
        if table.field:
            profiles.append(replace(profile, fields=_fields(one, at, problems)))
        else:
            profiles.append(replace(profile, part=_object(one, table, at, problems)))
    return tuple(profiles)


def _start(text: str, at: Where, problems: list[Problem]) -> tuple[int, bytes]:
    """`????0174` as the number of bytes that may be anything, and those that may not."""
    text = text.replace(" ", "")
    if not _HEX.fullmatch(text) or "?" in text.lstrip("?"):
        problems.append(Problem(at("starts"), f"{shown(text)} is no hex with ?? before it", 'write "????????01"'))
        return 0, b""
    fixed = text.lstrip("?")
    return (len(text) - len(fixed)) // 2, bytes.fromhex(fixed)


def _object(raw: Mapping[str, Any], table: ProfileTable, at: Where, problems: list[Problem]) -> Part:
    time = time_of(raw["time"], at, problems) if "time" in raw else _UPLINK_TIME
    inside: Path = ("object", *path_of(table.inside))
    return Part(
        Term("text"),
        values_of(raw, "value", at, problems),
        time,
        inside=inside,
        missing=tuple(table.missing),
        ignore=tuple(table.ignore),
        strict=table.strict,
    )


def _fields(raw: Mapping[str, Any], where: Where, problems: list[Problem]) -> tuple[Field, ...]:
    fields = []
    for one, at in tables_at(raw, "field", where, problems):
        table, wrong = check_table(FieldTable, one, at)
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
        order = table.byte_order
        register = Register(
            table.quantity,
            table.offset,
            type=table.type,
            words=WORDS[table.type],
            word_order=order,
            byte_order=order,
        )
        fields.append(Field(table.offset, register, by))
    return tuple(fields)

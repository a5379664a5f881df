"""Meter models: one TOML file per type of meter, found by its name (`config/meters/NAME.toml`), its source on top."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from config.details import TABLES, details_of
from config.problems import Table, check_table, exact_decimal, nearest, read_toml, refuse
from headend.errors import ConfigError, Problem
from headend.model import CurveSpec, MeterModel
from headend.quantities import QUANTITIES, Kind

__all__ = ["SHIPPED_MODELS", "CurveTable", "ModelTable", "load_model", "load_models"]

SHIPPED_MODELS: Final = Path(__file__).parent / "meters"

_DAY_MIN: Final = 1440
_DETAIL_TABLES: Final = ("dlms", "modbus")

Exact = Annotated[Decimal, BeforeValidator(exact_decimal)]


class CurveTable(Table):
    """`[curve]`: the load profile. step_min: grid step in minutes. depth_days: how far back the memory reaches."""

    form: Literal["0610", "record", "profile", "sample"] = Field(examples=['"0610"'])
    step_min: int = Field(ge=1, le=_DAY_MIN, examples=["15"])
    depth_days: int = Field(ge=1, le=3660, examples=["62"])
    quantities: list[str] = Field(default=["import_kwh"], examples=['["import_kwh"]'])

    @field_validator("step_min")
    @classmethod
    def _divides_the_day(cls, step_min: int) -> int:
        if _DAY_MIN % step_min:
            refuse(f"a day is not a whole number of {step_min} minute steps", "use 1, 5, 10, 15, 30 or 60")
        return step_min

    @field_validator("quantities")
    @classmethod
    def _known(cls, names: list[str]) -> list[str]:
        if not names:
            refuse("a curve without quantities holds nothing", 'write quantities = ["import_kwh"]')
        for name in names:
            if name not in QUANTITIES:
                refuse(f"unknown quantity {name!r}", nearest(name, QUANTITIES))
            if QUANTITIES[name].kind in (Kind.STATUS, Kind.DEMAND):
                refuse(f"{name} is kept in no curve", "name registers or momentary values")
        if len(set(names)) < len(names):
            refuse("a quantity is named twice", "name each once")
        return names


class ModelTable(Table):
    """A meter model. register_wrap: where registers return to 0, in kWh. max_power_kw: what the wiring can carry."""

    source: str = Field(min_length=1, examples=['"data sheet ..., page ..."'])
    protocol: str = Field(min_length=1, examples=['"dlt645-2007"'])
    register_wrap: Exact = Field(gt=0, examples=['"1000000"'])
    max_power_kw: Exact = Field(gt=0, examples=['"15.84"'])
    rates: int = Field(default=4, ge=1, le=63, examples=["4"])
    daily_freeze_depth: int = Field(default=0, ge=0, le=3660, examples=["62"])
    resolution: Exact = Field(default=Decimal("0.01"), gt=0, le=100, examples=['"0.01"'])
    curve: dict[str, Any] | None = None
    dlms: dict[str, Any] | None = None
    modbus: dict[str, Any] | None = None


def load_model(path: Path, protocols: Collection[str] | None = None) -> MeterModel:
    """The model of one file, named as the file. Raises `ConfigError` with every problem of it."""
    raw = read_toml(path, missing="name a meter model's file")
    table, problems = check_table(ModelTable, raw, lambda key: _place(path.name, key))
    curve: CurveTable | None = None
    if isinstance(raw.get("curve"), dict):
        curve, wrong = check_table(CurveTable, raw["curve"], lambda key: _place(path.name, "curve", key))
        problems += wrong
    protocol = raw.get("protocol")
    if protocols is not None and isinstance(protocol, str) and protocol and protocol not in protocols:
        remedy = nearest(protocol, protocols)
        problems.append(Problem(_place(path.name, "protocol"), f"unknown protocol {protocol!r}", remedy))
    details = None
    if isinstance(protocol, str):
        details, wrong = details_of(protocol, raw, lambda key: _place(path.name, key))
        problems += wrong
        problems += [
            Problem(_place(path.name, key), f"means nothing to {protocol}", "remove the table")
            for key in _DETAIL_TABLES
            if key in raw and (protocol not in TABLES or TABLES[protocol].table != key)
        ]
    if problems or table is None:
        raise ConfigError(problems)
    return MeterModel(
        name=path.stem,
        protocol=table.protocol,
        register_wrap=table.register_wrap,
        max_power_kw=table.max_power_kw,
        rates=table.rates,
        curve=None if curve is None else _curve_spec(curve),
        daily_freeze_depth=table.daily_freeze_depth,
        resolution=table.resolution,
        details=details,
        details_text="" if details is None else json.dumps(raw.get(TABLES[table.protocol].table, {}), default=str),
    )


def load_models(folders: Iterable[Path], protocols: Collection[str] | None = None) -> dict[str, MeterModel]:
    """The models of all `*.toml` in `folders`, by name.

    `protocols` are the names a model may speak (None: not checked). A name that stands in two folders is a problem:
    nothing is overridden silently. Raises `ConfigError` with the problems of all files.
    """
    models: dict[str, MeterModel] = {}
    homes: dict[str, Path] = {}
    problems: list[Problem] = []
    for folder in folders:
        for path in sorted(folder.glob("*.toml")):
            if path.stem in homes:
                what = f"the meter model {path.stem!r} is there already, in {homes[path.stem]}"
                problems.append(Problem(str(path), what, "give the file another name"))
                continue
            homes[path.stem] = path.parent
            try:
                models[path.stem] = load_model(path, protocols)
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(problems)
    return models


def _curve_spec(table: CurveTable) -> CurveSpec:
    return CurveSpec(table.form, table.step_min * 60, table.depth_days, tuple(table.quantities))


def _place(file: str, *keys: str) -> str:
    key = ".".join(key for key in keys if key)
    return f"{file}: {key}" if key else file

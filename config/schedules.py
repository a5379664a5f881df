"""`[[schedule]]`: what spans keys, lines and meter models. Shapes of single keys are in `config.tables`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from config.problems import Where, check_table, nearest, place, repeated, shown, taken_twice
from config.tables import READS_BY_PERIOD, ScheduleTable
from headend.errors import Problem
from headend.model import MeterModel, ReadKind
from headend.quantities import QUANTITIES, Kind
from headend.scheduler.settings import Schedule

__all__ = ["schedules_of"]

_DEFAULT_QUANTITIES: Final = {
    "curve": ("import_kwh",),
    "daily_freeze": ("import_kwh",),
    "settlement": ("import_kwh",),
    "timed_freeze": ("import_kwh",),
    "clock": ("clock_offset_s",),
}


def schedules_of(
    raw: Mapping[str, Any], file: str, models: Mapping[str, MeterModel] | None
) -> tuple[tuple[Schedule, ...], list[Problem]]:
    """The schedules of site.toml's tables `raw` and their problems; `models` is None if those are not usable."""
    tables, problems = repeated(raw, "schedule", file)
    line_names = {
        name
        for table in repeated(raw, "line", file)[0]
        if isinstance(table, dict) and isinstance(name := table.get("name"), str)
    }
    schedules = []
    for number, table in enumerate(tables, start=1):
        where = place(file, f"schedule[{number}]")
        checked, wrong = check_table(ScheduleTable, table, where)
        if isinstance(table, dict):
            wrong += _period_problems(table, where)
            wrong += _unknown_names(table, "lines", line_names, where)
            if models is not None:
                wrong += _unknown_names(table, "models", models, where)
        if checked is not None and not wrong and models is not None:
            wrong += _unreadable(checked, models, where)
        problems += wrong
        if checked is not None:
            schedules.append(_schedule(checked))
    problems += taken_twice(tables, "schedule", file)
    return tuple(schedules), problems


def _schedule(table: ScheduleTable) -> Schedule:
    return Schedule(
        name=table.name,
        kind=ReadKind(table.read),
        quantities=_quantities(table),
        every_s=table.every_min * 60,
        horizon_days=table.horizon_days,
        settle_s=table.settle_s,
        deadline_s=table.deadline_min * 60,
        lines=tuple(table.lines),
        models=tuple(table.models),
    )


def _quantities(table: ScheduleTable) -> tuple[str, ...]:
    return tuple(table.quantities) or _DEFAULT_QUANTITIES.get(table.read, ())


def _period_problems(table: Mapping[str, Any], where: Where) -> list[Problem]:
    """Keys that a kind of read needs, or that mean nothing to it."""
    read = table.get("read")
    if read in READS_BY_PERIOD:
        needed, useless = (
            ["every_min"],
            ["settle_s"] if read.endswith(("settlement", "freeze", "events")) else ["horizon_days", "settle_s"],
        )
    elif read in ("curve", "daily_freeze"):
        needed, useless = [], ["every_min"]
    else:
        return []
    if read == "registers":
        needed.append("quantities")
    if read in ("clock", "events"):
        useless.append("quantities")
    problems = [
        Problem(where(key), f"a schedule that reads {read} needs {key}", f"write {key} = {example}")
        for key, example in (("every_min", "60"), ("quantities", '["import_kwh"]'))
        if key in needed and table.get(key) in (None, [])
    ]
    return problems + [
        Problem(where(key), f"{key} means nothing to a schedule that reads {read}", "remove the key")
        for key in useless
        if key in table
    ]


def _unknown_names(table: Mapping[str, Any], key: str, known: Collection[str], where: Where) -> list[Problem]:
    names = table.get(key, [])
    kind = key.removesuffix("s")
    return [
        Problem(
            where(key), f"there is no {kind} {shown(name)}", nearest(name, known, none=f"no {kind} is described yet")
        )
        for name in (names if isinstance(names, list) else [])
        if isinstance(name, str) and name != "*" and name not in known
    ]


def _unreadable(table: ScheduleTable, models: Mapping[str, MeterModel], where: Where) -> list[Problem]:
    """Quantities that no covered model, or not every model covered by name, can give this way."""
    names = list(models) if table.models == ["*"] else table.models
    problems = []
    if table.read == "daily_freeze":
        problems = [
            Problem(where("quantities"), f"{name} is no register: it is not frozen daily", "name registers")
            for name in _quantities(table)
            if QUANTITIES[name].kind not in (Kind.REGISTER, Kind.DEMAND)
        ]
        unable = [name for name in names if not models[name].daily_freeze_depth]
        gap = dict.fromkeys(unable, "keeps no daily freeze")
    elif table.read == "curve":
        gap = {name: why for name in names if (why := _curve_gap(models[name], _quantities(table)))}
    else:
        return []
    if table.models == ["*"]:
        if len(gap) == len(names):
            what = f"no meter model has a {table.read.replace('_', ' ')} of {', '.join(_quantities(table))}"
            problems.append(Problem(where("quantities"), what, "add them to a meter model, or read other quantities"))
        return problems
    remedy = "remove the model from this schedule, or add to its file what it can do"
    return problems + [Problem(where("models"), f"{name} {why}", remedy) for name, why in gap.items()]


def _curve_gap(model: MeterModel, quantities: tuple[str, ...]) -> str:
    if model.curve is None:
        return "keeps no curve"
    lacking = [name for name in quantities if name not in model.curve.quantities]
    return f"keeps no curve of {', '.join(lacking)}" if lacking else ""

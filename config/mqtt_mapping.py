"""Formats of MQTT messages as data: one TOML file per mapping (`config/mqtt_mappings/NAME.toml`), its source on top.

A file is checked whole, and every problem of it is told at its place. The keys are explained in docs/mqtt_mappings.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path as File
from typing import Any, Final, Literal

from pydantic import Field

from config.mqtt_dialects import parse_dialect
from config.mqtt_values import PathText, fields_of, path_of, tables_at, time_of, values_of
from config.problems import Table, Where, check_table, nearest, read_toml, shown
from headend.errors import ConfigError, Problem
from headend.mqtt.batch import ReadKindWord
from headend.mqtt.dialect import Dialect
from headend.mqtt.gather import CLOCK_DOUBTFUL, ESTIMATED, MISSING, SUSPECT
from headend.mqtt.mapping import MappedDialect
from headend.mqtt.shapes import Entries, Part, Quality, Reply, Term, Time, Topic

__all__ = ["SHIPPED_MAPPINGS", "load_mapping", "load_mappings"]

SHIPPED_MAPPINGS: Final = File(__file__).parent / "mqtt_mappings"

_DAY_S: Final = 86_400
_NAME: Final = re.compile(r"\{([a-z_]*)\}")
_QUALITIES: Final = {
    "ok": 0,
    "estimated": ESTIMATED,
    "suspect": SUSPECT,
    "missing": MISSING,
    "clock doubtful": CLOCK_DOUBTFUL,
}


class TermTable(Table):
    """Where a name comes from: exactly one key."""

    topic: str | None = None
    root: PathText | None = None
    at: PathText | None = None
    key: Literal[True] | None = None
    text: str | None = None


class EntriesTable(Table):
    """`entries = { ... }`."""

    at: PathText = ""
    name: PathText = ""
    value: PathText = "value"
    unit: PathText | None = None
    time: PathText | None = None
    error: PathText | None = None
    only: dict[str, Any] = Field(default={})


class QualityTable(Table):
    """`quality = { ... }`."""

    at: PathText = Field(examples=['"quality"'])
    values: dict[str, Literal["ok", "estimated", "suspect", "missing", "clock doubtful"]] = Field(
        examples=['{ "1" = "ok" }']
    )
    other: Literal["ok", "estimated", "suspect", "missing", "clock doubtful"] = "suspect"


class PartTable(Table):
    """`[[part]]`."""

    meter: dict[str, Any] = Field(examples=['{ at = "device_id" }'])
    time: dict[str, Any] | None = None
    items: PathText = ""
    when: dict[str, Any] = Field(default={})
    inside: PathText = ""
    entries: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None
    missing: list[str] = Field(default=[])
    ignore: list[str] = Field(default=[])
    strict: bool = True
    value: list[Any] = Field(examples=["tables [[part.value]]"])


class ReplyTable(Table):
    """`[reply]`."""

    topic: str = Field(min_length=1, examples=['"{topic}_reply"'])
    body: dict[str, Any] = Field(examples=['{ id = "{at:id}" }'])
    unless: dict[str, Any] = Field(default={})


class MappingTable(Table):
    """The file."""

    source: str = Field(min_length=1, examples=['"where the format is described"'])
    unverified: str = ""
    topics: list[str] = Field(min_length=1, examples=['["v1/gateway/telemetry"]'])
    concentrator: dict[str, Any] | None = None
    kind: Literal["register", "interval", "daily_freeze", "monthly_freeze", "billing_reset"] = "register"
    step_s: int = Field(default=0, ge=0, le=_DAY_S, examples=["900"])
    compression: Literal["", "gzip", "zlib", "auto"] = ""
    encoding: Literal["utf-8", "gb18030"] = "utf-8"
    reply: dict[str, Any] | None = None
    part: list[Any] = Field(min_length=1, examples=["tables [[part]]"])


def load_mapping(file: File) -> Dialect:
    """The mapping of one file, named as the file. Raises `ConfigError` with every problem of it.

    A file with a key `dialect` sets up a format that is code (`config/mqtt_dialects.py`).
    """
    raw = read_toml(file, missing="name a mapping's file")
    where = _in(file.name, "")
    if "dialect" in raw:
        made, problems = parse_dialect(file.stem, raw, where)
    else:
        made, problems = _parse(file.stem, raw, where)
    if problems or made is None:
        raise ConfigError(problems)
    return made


def load_mappings(folders: Iterable[File]) -> dict[str, Dialect]:
    """The mappings of all `*.toml` in `folders`, by name. A name that stands in two folders is a problem. Raises
    `ConfigError` with the problems of all files."""
    found: dict[str, Dialect] = {}
    homes: dict[str, File] = {}
    problems: list[Problem] = []
    for folder in folders:
        for file in sorted(folder.glob("*.toml")):
            if file.stem in homes or file.stem == "canonical":
                what = f"the name {file.stem!r} is taken" + (f" in {homes[file.stem]}" if file.stem in homes else "")
                problems.append(Problem(str(file), what, "give the file another name"))
                continue
            homes[file.stem] = file.parent
            try:
                found[file.stem] = load_mapping(file)
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(problems)
    return found


# -- the file ----------------------------------------------------------------------------------------------------------


def _parse(name: str, raw: Mapping[str, Any], where: Where) -> tuple[Dialect | None, list[Problem]]:
    table, problems = check_table(MappingTable, raw, where)
    topics = raw.get("topics")
    names = _topic_names(topics if isinstance(topics, list) else [], where, problems)
    parts = [_part(one, at, names, problems) for one, at in tables_at(raw, "part", where, problems, told=table is None)]
    origin = _concentrator(raw.get("concentrator"), where, names, problems)
    reply = _reply(raw.get("reply"), where, names, problems)
    if table is not None:
        _check_grid(table, where, problems)
    if problems or table is None:
        return None, problems
    made = MappedDialect(
        name,
        tuple(Topic(text) for text in table.topics),
        tuple(part for part in parts if part is not None),
        origin,
        ReadKindWord(table.kind),
        table.step_s,
        table.compression,
        table.encoding,
        reply,
        table.source,
    )
    return made, []


def _check_grid(table: MappingTable, where: Where, problems: list[Problem]) -> None:
    if table.kind == "interval" and (not table.step_s or _DAY_S % table.step_s):
        what = "values at the boundaries of a grid need its step, which divides a day"
        problems.append(Problem(where("step_s"), what, "write step_s = 900"))
    if table.kind != "interval" and table.step_s:
        problems.append(Problem(where("step_s"), f"means nothing to {table.kind}", 'remove it, or kind = "interval"'))


def _topic_names(topics: list[Any], where: Where, problems: list[Problem]) -> set[str]:
    """The names all the topics have; what is wrong with the topics goes to `problems`."""
    common: set[str] | None = None
    for number, text in enumerate(topics, start=1):
        if not isinstance(text, str):
            continue
        at = where(f"topics[{number}]")
        levels = text.split("/")
        names = _NAME.findall(text)
        if not text or any("#" in one for one in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
            problems.append(Problem(at, f"{shown(text)} is no topic", "`#` stands alone, and as the last level"))
        elif any("+" in one and one != "+" for one in levels):
            problems.append(Problem(at, f"{shown(text)}: `+` stands for a whole level", "name the level: {name}"))
        elif any(one.count("{") > 1 or one.count("{") != len(_NAME.findall(one)) for one in levels):
            problems.append(Problem(at, f"{shown(text)} has a level that is not readable", "one {name} per level"))
        elif "" in names or len(set(names)) < len(names):
            problems.append(Problem(at, f"{shown(text)}: every name stands once", "rename the levels"))
        common = set(names) if common is None else common & set(names)
    return common or set()


def _concentrator(raw: object, where: Where, names: set[str], problems: list[Problem]) -> Term | None:
    if raw is None:
        if "concentrator" not in names:
            what = "nothing says which concentrator a message is from"
            remedy = 'name a level of the topics {concentrator}, or write concentrator = { text = "roof" }'
            problems.append(Problem(where("concentrator"), what, remedy))
        return None
    return _term(raw, where, "concentrator", ("root", "text"), names, problems)


def _term(
    raw: object, where: Where, key: str, allowed: tuple[str, ...], names: set[str], problems: list[Problem]
) -> Term | None:
    table, wrong = check_table(TermTable, raw, lambda one: where(f"{key}.{one}" if one else key))
    problems += wrong
    if table is None:
        return None
    given = {name: value for name, value in table.model_dump().items() if value is not None}
    if len(given) != 1 or next(iter(given)) not in allowed:
        problems.append(Problem(where(key), "has not exactly one place", f"one of: {', '.join(allowed)}"))
        return None
    ((source, value),) = given.items()
    if source == "topic" and value not in names:
        problems.append(
            Problem(where(f"{key}.topic"), f"no topic level is named {shown(value)}", nearest(value, names))
        )
    if source == "topic":
        return Term("topic", value)
    if source == "text":
        return Term("text", value)
    if source == "key":
        return Term("key")
    return Term("root" if source == "root" else "at", path=path_of(value))


def _reply(raw: object, where: Where, names: set[str], problems: list[Problem]) -> Reply | None:
    if raw is None:
        return None
    table, wrong = check_table(ReplyTable, raw, lambda key: where(f"reply.{key}" if key else "reply"))
    problems += wrong
    if table is None:
        return None
    for name in _NAME.findall(table.topic):
        if name not in names | {"topic"}:
            remedy = nearest(name, names | {"topic"})
            problems.append(Problem(where("reply.topic"), f"no topic level is named {shown(name)}", remedy))
    if "+" in table.topic or "#" in table.topic:
        problems.append(Problem(where("reply.topic"), "an answer goes to one topic, without + and #", "write it out"))
    return Reply(table.topic, table.body, fields_of(table.unless))


# -- parts -------------------------------------------------------------------------------------------------------------


def _part(raw: object, where: Where, names: set[str], problems: list[Problem]) -> Part | None:
    table, wrong = check_table(PartTable, raw, where)
    problems += wrong
    if not isinstance(raw, dict):
        return None
    before = len(problems)
    meter = None
    if "meter" in raw:
        meter = _term(raw["meter"], where, "meter", ("topic", "root", "at", "key", "text"), names, problems)
    time = time_of(raw["time"], where, problems) if "time" in raw else Time(received=True)
    entries = _entries(raw["entries"], where, problems) if "entries" in raw else None
    quality = _quality(raw["quality"], where, problems) if "quality" in raw else None
    values = values_of(raw, "value", where, problems, told=table is None, names_only="entries" in raw)
    if table is None or meter is None or len(problems) > before:
        return None
    return Part(
        meter,
        values,
        time,
        path_of(table.items),
        fields_of(table.when),
        path_of(table.inside),
        entries,
        quality,
        tuple(table.missing),
        tuple(table.ignore),
        table.strict,
    )


def _entries(raw: object, where: Where, problems: list[Problem]) -> Entries | None:
    table, wrong = check_table(EntriesTable, raw, lambda key: where(f"entries.{key}" if key else "entries"))
    problems += wrong
    if table is None:
        return None
    unit, time, error = (None if one is None else path_of(one) for one in (table.unit, table.time, table.error))
    return Entries(
        path_of(table.at), path_of(table.name), path_of(table.value), unit, time, error, fields_of(table.only)
    )


def _quality(raw: object, where: Where, problems: list[Problem]) -> Quality | None:
    table, wrong = check_table(QualityTable, raw, lambda key: where(f"quality.{key}" if key else "quality"))
    problems += wrong
    if table is None:
        return None
    bits = {text: _QUALITIES[word] for text, word in table.values.items()}
    return Quality(path_of(table.at), bits, _QUALITIES[table.other])


def _in(file: str, before: str) -> Where:
    return lambda key: f"{file}: {before}{key}" if key else file

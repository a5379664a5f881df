"""From a file to its problems: reading TOML, checking a table against its pydantic shape, saying it in plain words.

Every reader here gives `headend.errors.Problem`s with three parts: where (file, then line or key), what is wrong, what
to do. Positions of repeated tables count from 1: `line[1]` is the first `[[line]]` of the file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from headend.errors import ConfigError, Problem
from headend.quantities import to_units

__all__ = [
    "Table",
    "Where",
    "check_table",
    "exact_decimal",
    "nearest",
    "parse_decimal",
    "place",
    "read_bytes",
    "read_toml",
    "refuse",
    "repeated",
    "shown",
    "taken_twice",
]

_SHOWN_CHARACTERS: Final = 60
_SEARCHED_NAMES: Final = 2000  # looking for near names in more would take seconds per problem
_LISTED_NAMES: Final = 12
_SAID: Final = "said"  # the error type of our own validators

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,4})?")

_SYNTAX_REMEDIES: Final = {
    "Invalid value": "texts stand in double quotes, numbers and true or false do not",
    "Cannot overwrite a value": "the key is given twice: remove one",
    "Cannot declare": "the table is given twice: merge the two, or use [[double brackets]] where several are meant",
    "Expected '='": "write key = value",
    "Invalid statement": "write key = value, [table] or # comment",
}

_WANTED: Final = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a table",
    "string_too_short": "filled in",
}


class Table(BaseModel):
    """One table of a TOML file: no conversions, no unknown keys, frozen. `examples` of a field feed its remedies."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


T = TypeVar("T", bound=Table)
Where = Callable[[str], str]


def refuse(what: str, remedy: str = "") -> NoReturn:
    """Raise from a pydantic validator so that `what` and `remedy` reach the operator as they are."""
    raise PydanticCustomError(_SAID, "{what}", {"what": what, "remedy": remedy})


def nearest(name: str, known: Collection[str], *, none: str = "") -> str:
    """A remedy for an unknown `name`: the near ones, else what is known (`none` if there is nothing)."""
    if len(known) > _SEARCHED_NAMES:
        return f"name one of the {len(known)} that are known"
    names = sorted(known)
    if near := get_close_matches(name[:_SHOWN_CHARACTERS], names, n=3):
        return f"did you mean {' or '.join(near)}?"
    more = f" and {len(names) - _LISTED_NAMES} more" if len(names) > _LISTED_NAMES else ""
    return f"known: {', '.join(names[:_LISTED_NAMES])}{more}" if names else none


def shown(value: object) -> str:
    """`value` as TOML would write it, cut to a readable length."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    text = f'"{value}"' if isinstance(value, str) else _number_text(value)
    text = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _number_text(value: object) -> str:
    """`value` as text; a whole number too long for Python to print is described instead."""
    try:
        return str(value)
    except ValueError:
        return "a very long number"


def parse_decimal(text: str) -> Decimal:
    """A plain decimal number with at most four decimals. Raises `ValueError` with what is wrong."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"{shown(text)} is no decimal number with at most 15 digits before and 4 after the point")
    value = Decimal(text)
    to_units(value)
    return value


def exact_decimal(value: object) -> Decimal:
    """Pydantic `BeforeValidator` of exact numbers: a quoted decimal or a whole number; floats are refused."""
    if isinstance(value, float):
        refuse(f"{value} is a float, which is not exact", f'write it in quotes: "{value}"')
    if isinstance(value, bool) or not isinstance(value, int | str):
        refuse(f"{shown(value)} is no number", 'write it in quotes, like "15.84"')
    try:
        return parse_decimal(_number_text(value))
    except ValueError as error:
        refuse(str(error), 'write it like "15.84"')


def read_bytes(path: Path, *, missing: str) -> bytes:
    """The bytes of `path`; `ConfigError` when it can't be read. `missing` is what to do when it isn't there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        what, remedy = "there is no such file", missing
    except IsADirectoryError:
        what, remedy = "this is a folder, a file is wanted", missing
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        what, remedy = f"can't be read: {reason}", "check the name and who may read it"
    raise ConfigError([Problem(str(path), what, remedy)])


def read_toml(path: Path, *, missing: str) -> dict[str, Any]:
    """The tables of a TOML file; `ConfigError` with line and column when it is not TOML."""
    data = read_bytes(path, missing=missing)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(f"{path.name}:{line}", "the text is not UTF-8", "save the file with the encoding UTF-8")
        raise ConfigError([problem]) from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = Problem(path.name, "lists or tables are nested too deep", "remove the inner brackets")
    except ValueError as error:
        problem = _syntax_problem(path.name, str(error))
    raise ConfigError([problem])


def _syntax_problem(file: str, message: str) -> Problem:
    where = file
    if match := _POSITION.search(message):
        message = message[: match.start()]
        where = f"{file}:{match[1]}:{match[2]}" if match[1] else f"{file}: at the end"
    remedy = next((text for start, text in _SYNTAX_REMEDIES.items() if message.startswith(start)), "")
    return Problem(where, f"not TOML: {message}", remedy)


def check_table(shape: type[T], raw: object, where: Where) -> tuple[T | None, list[Problem]]:
    """`raw` as a `shape`, or its problems. `where("key")` places a key of this table, `where("")` the table."""
    if not isinstance(raw, dict):
        remedy = "write it as a [[table]]" if where("").endswith("]") else "write it as a [table]"
        return None, [Problem(where(""), f"{shown(raw)} stands where a table is wanted", remedy)]
    try:
        return shape.model_validate(raw), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        return None, [_problem(shape, detail, where) for detail in details]


def place(file: str, table: str) -> Where:
    """Where a key of `table` stands: `place("site.toml", "line[1]")("name")`; `("")` is the table itself."""
    return lambda key: f"{file}: {table}.{key}" if key else f"{file}: {table}"


def repeated(raw: Mapping[str, Any], key: str, file: str) -> tuple[list[Any], list[Problem]]:
    """The repeated tables `[[key]]`."""
    tables = raw.get(key, [])
    if isinstance(tables, list):
        return tables, []
    return [], [
        Problem(f"{file}: {key}", f"{shown(tables)} stands where repeated tables are wanted", f"write [[{key}]]")
    ]


def taken_twice(tables: list[Any], key: str, file: str) -> list[Problem]:
    """Names that stand on more than one table."""
    first: dict[str, int] = {}
    problems = []
    for number, table in enumerate(tables, start=1):
        name = table.get("name") if isinstance(table, dict) else None
        if isinstance(name, str) and first.setdefault(name, number) != number:
            what = f"the name {shown(name)} is taken by {key}[{first[name]}]"
            problems.append(Problem(f"{file}: {key}[{number}].name", what, "give each its own name"))
    return problems


def _problem(shape: type[Table], detail: ErrorDetails, where: Where) -> Problem:
    """One pydantic error in an operator's words."""
    kind, loc, given = detail["type"], detail["loc"], detail["input"]
    key = str(loc[0]) if loc else ""
    place = where(key) + "".join(f"[{part + 1}]" for part in loc[1:] if isinstance(part, int))
    context: Mapping[str, Any] = detail.get("ctx", {})
    if kind == _SAID:
        return Problem(place, context["what"], context["remedy"])
    if kind == "missing":
        return Problem(place, f"the key {key!r} is missing", _write(shape, key))
    if kind == "extra_forbidden":
        return Problem(place, f"unknown key {shown(key)}", nearest(key, shape.model_fields))
    if kind in ("literal_error", "enum"):
        return Problem(place, f"{shown(given)} is not known here", f"use {_plain(context['expected'])}")
    if kind in _WANTED:
        return Problem(place, f"{shown(given)} is not {_WANTED[kind]}", _write(shape, key))
    if limit := next((f"{word} {context[bound]:g}" for bound, word in _BOUNDS.items() if bound in context), ""):
        return Problem(place, f"{shown(given)} is out of range", f"use a number {limit}")
    return Problem(place, f"{shown(given)}: {detail['msg']}", _write(shape, key))


_BOUNDS: Final = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}


def _plain(expected: str) -> str:
    return expected.replace("'", "")


def _write(shape: type[Table], key: str) -> str:
    """How the key is written, from the field's example."""
    field = shape.model_fields.get(key)
    examples = field.examples if field is not None else None
    return f"write {key} = {examples[0]}" if examples else ""

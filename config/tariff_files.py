"""Tariffs as TOML files: load, check whole, tell every problem at once. Reference: docs/tariffs.md.

The text of a tariff (`Tariff.text`) is that of its file, with the price series it names behind it as comments; it alone
gives the tariff back (`tariff_from_text`), years later and without the files.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from datetime import UTC, tzinfo
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from billing.charges import Calendar, Policy, PriceSeries, Tariff
from config.price_series import appended, parse_series, read_text, split_text
from config.tariff_checks import check_tariff
from config.tariff_keys import ADAPTER, KINDS, TariffKeys, series_named, walk
from config.tariff_parts import Around
from headend.civil import zone
from headend.errors import ConfigError, Problem, UsageError

__all__ = ["check_tariff", "load_tariff", "load_tariffs", "tariff_from_text"]

_NOT_OF_TARIFF = ("charges", "holidays", "workdays", "rounding", "part_month")


def load_tariff(path: Path) -> Tariff:
    """The tariff in one file; `ConfigError` with every problem found in it."""
    name = path.name
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError([Problem(name, f"can't be read: {error.strerror}", "check the path")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(name, "is not UTF-8 text", "save it as UTF-8")]) from error
    return _built(text, name, path.parent, path.stem.partition("@")[0])


def tariff_from_text(text: str, name: str = "") -> Tariff:
    """The tariff whose `Tariff.text` is `text`: same charges, same hash. name: where it comes from, for messages.

    It was checked when it was loaded and is not checked again, for a rule may have become stricter since; `ConfigError`
    where the text is no tariff's at all.
    """
    return _built(text, name or "a stored tariff", None, None)


def _built(text: str, name: str, folder: Path | None, file_id: str | None) -> Tariff:
    """folder: where its series are, None: behind the text only. file_id: the id that the file's name asks for; None:
    a text that was checked before."""
    body, series_texts = split_text(text)
    try:
        content = tomllib.loads(body)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem(name, f"is not TOML: {error}", "mend the line it names")]) from error
    try:
        keys = ADAPTER.validate_python(content)
    except ValidationError as error:
        raise ConfigError(_problem(name, detail, content) for detail in error.errors()) from error
    tz = _zone_or_utc(keys.zone)
    series, series_texts = _series(keys, name, folder, series_texts)
    calendar = Calendar(tuple(keys.holidays), tuple(keys.workdays))
    around = Around(tz, calendar, series)
    whole = appended(body, series_texts)
    tariff = Tariff(
        **{key: getattr(keys, key) for key in TariffKeys.model_fields if key not in _NOT_OF_TARIFF},
        charges=tuple(charge.build(around) for charge in keys.charges),
        sha=hashlib.sha256(whole.encode()).hexdigest(),
        text=whole,
        policy=Policy(keys.rounding, keys.part_month),
    )
    if file_id is None:
        return tariff
    problems = check_tariff(tariff, name, calendar)
    if tariff.id != file_id:
        remedy = f"call the file {tariff.id}.toml or {tariff.id}@VERSION.toml, or change the id"
        problems.append(Problem(f"{name}: id", f"the id {tariff.id!r} is not the file's name", remedy))
    if problems:
        raise ConfigError(problems)
    return tariff


def _zone_or_utc(name: str) -> tzinfo:
    """The tariff's zone; where it is none, which is told with the other problems, UTC stands in."""
    try:
        return zone(name)
    except UsageError:
        return UTC


def _series(
    keys: TariffKeys, name: str, folder: Path | None, behind: Mapping[str, str]
) -> tuple[dict[str, PriceSeries], dict[str, str]]:
    """The price series that the charges name, and their texts: from behind the tariff's text, else from their files."""
    found: dict[str, PriceSeries] = {}
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    for one in series_named(keys):
        try:
            if one not in behind and folder is None:
                raise ConfigError([Problem(f"{name}: {one}", "the prices are not behind the text", "store it again")])
            texts[one] = behind[one] if one in behind or folder is None else read_text(folder / one)
            found[one] = parse_series(one, texts[one], keys.zone)
        except UsageError:
            remedy = "use an IANA name or an offset like +08:00"
            problems.append(Problem(f"{name}: zone", f"unknown time zone {keys.zone!r}", remedy))
        except ConfigError as error:
            problems.extend(error.problems)
    if problems:
        raise ConfigError(dict.fromkeys(problems))
    return found, texts


def load_tariffs(folder: Path) -> list[Tariff]:
    """Every tariff in a folder, by id and first day; `ConfigError` with the problems of all files together."""
    if not folder.is_dir():
        raise ConfigError([Problem(str(folder), "is not a folder", "check the path of the tariffs")])
    tariffs: list[Tariff] = []
    problems: list[Problem] = []
    for path in sorted(folder.glob("*.toml")):
        try:
            tariffs.append(load_tariff(path))
        except ConfigError as error:
            problems.extend(error.problems)
    tariffs.sort(key=lambda t: (t.id, t.valid_from))
    for earlier, later in pairwise(tariffs):
        if earlier.id == later.id and (earlier.valid_to is None or earlier.valid_to > later.valid_from):
            what = f"versions {earlier.version!r} and {later.version!r} both hold on {later.valid_from}"
            problems.append(Problem(later.id, what, f"end version {earlier.version!r} with valid_to"))
    if problems:
        raise ConfigError(problems)
    return tariffs


def _problem(name: str, detail: ErrorDetails, content: dict[str, Any]) -> Problem:
    """A pydantic finding in this project's words."""
    path, keys = walk(detail["loc"])
    where = f"{name}: {path}" if path else name
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            key = str(detail["loc"][-1])
            near = get_close_matches(key, keys, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(keys)}"
            return Problem(where, f"unknown key {key!r}", remedy)
        case "missing":
            return Problem(where, "is missing", "add it")
        case "union_tag_invalid" | "union_tag_not_found":
            remedy = f"write one of {', '.join(KINDS)}"
            return Problem(f"{where}.kind", "is not a known kind of charge", remedy)
        case "literal_error":
            return Problem(where, f"{detail['input']!r} is not known here", f"write {context['expected']}")
        case "string_pattern_mismatch":
            is_file = path.endswith(".series")
            what = f"{detail['input']!r} is no name" + (" of a CSV file beside the tariff's" if is_file else "")
            return Problem(
                where, what, 'write it like "prices.csv"' if is_file else "use a-z, 0-9 and _, a letter first"
            )
        case _:
            message = detail["msg"]
            return Problem(where, message[:1].lower() + message[1:], str(context.get("remedy", "")))

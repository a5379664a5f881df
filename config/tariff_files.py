"""Tariffs as TOML files: load, check whole, tell every problem at once. Reference: docs/tariffs.md."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from billing.calendar import DAY_KINDS, clock_text, overlaps, uncovered
from billing.model import (
    MINOR_DIGITS,
    CapacityCharge,
    Charge,
    DemandCharge,
    EnergyCharge,
    ExportCredit,
    FixedCharge,
    MinimumCharge,
    NetMetering,
    PowerFactorCharge,
    StepAdder,
    StepCharge,
    Surcharge,
    Tariff,
    Tax,
    TouCharge,
)
from billing.rate import GROUPS
from config.tariff_keys import ADAPTER, ALL_MONTHS, KINDS, TariffKeys, walk
from headend.civil import zone
from headend.errors import ConfigError, Problem, UsageError

__all__ = ["check_tariff", "load_tariff", "load_tariffs"]

_CODED = (FixedCharge, Surcharge, Tax)
_OWN_CODES = ("pf_adjust", "minimum", "export_credit")


def load_tariff(path: Path) -> Tariff:
    """The tariff in one file; `ConfigError` with every problem found in it."""
    name = path.name
    try:
        text = path.read_bytes().decode("utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        raise ConfigError([Problem(name, f"can't be read: {error.strerror}", "check the path")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(name, "is not UTF-8 text", "save it as UTF-8")]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Problem(name, f"is not TOML: {error}", "mend the line it names")]) from error
    try:
        keys = ADAPTER.validate_python(content)
    except ValidationError as error:
        raise ConfigError(_problem(name, detail, content) for detail in error.errors()) from error
    tariff = Tariff(
        **{key: getattr(keys, key) for key in TariffKeys.model_fields if key != "charges"},
        charges=tuple(charge.build() for charge in keys.charges),
        sha=hashlib.sha256(text.encode()).hexdigest(),
        text=text,
    )
    problems = check_tariff(tariff, name)
    if tariff.id != path.stem.partition("@")[0]:
        remedy = f"call the file {tariff.id}.toml or {tariff.id}@VERSION.toml, or change the id"
        problems.append(Problem(f"{name}: id", f"the id {tariff.id!r} is not the file's name", remedy))
    if problems:
        raise ConfigError(problems)
    return tariff


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


def check_tariff(tariff: Tariff, name: str = "") -> list[Problem]:
    """What is wrong with a tariff as a whole: hours, steps, dates, zone, doubled charges. Empty if nothing is."""
    found: list[tuple[str, str, str]] = []
    if not tariff.verified and not tariff.note:
        found.append(("note", "an unverified tariff says what was not checked", "write it in `note`"))
    if tariff.valid_to is not None and tariff.valid_to <= tariff.valid_from:
        found.append(("valid_to", f"{tariff.valid_to} is not after valid_from {tariff.valid_from}", "mend the dates"))
    if tariff.currency not in MINOR_DIGITS:
        remedy = f"write one of {', '.join(MINOR_DIGITS)}"
        found.append(("currency", f"{tariff.currency!r} is not a known currency", remedy))
    try:
        zone(tariff.zone)
    except UsageError as error:
        found.append(("zone", f"unknown time zone {tariff.zone!r}", error.problem.remedy))
    seen: dict[str, int] = {}
    for number, charge in enumerate(tariff.charges, start=1):
        where = f"charges[{number}]"
        key = f"code {charge.code!r}" if isinstance(charge, _CODED) else type(charge).__name__
        if key in seen:
            found.append((where, f"a second charge of the same kind as charges[{seen[key]}]", "put them in one"))
        seen.setdefault(key, number)
        found.extend(_check_charge(charge, tariff, where))
    if len({c.year_start for c in tariff.charges if isinstance(c, (StepCharge, StepAdder)) and c.period == "year"}) > 1:
        found.append(("charges", "two step years with different starts", "give both the same year_start"))
    prefix = f"{name}: " if name else ""
    return [Problem(prefix + where, what, remedy) for where, what, remedy in found]


def _check_charge(charge: Charge, tariff: Tariff, where: str) -> Iterator[tuple[str, str, str]]:
    match charge:
        case TouCharge():
            yield from _check_tou(charge, where)
        case StepCharge() | StepAdder():
            yield from _check_steps(charge, where)
        case DemandCharge() | CapacityCharge():
            yield from _check_basic(charge, where)
        case PowerFactorCharge() | Tax() | MinimumCharge():
            yield from _check_base(charge, tariff, where)
        case NetMetering():
            yield from _check_net(tariff, where)
    if isinstance(charge, _CODED) and charge.code.startswith(("energy", "step")):
        yield f"{where}.code", f"{charge.code!r} could be taken for an energy line", "choose another code"
    elif isinstance(charge, _CODED) and (charge.code in _OWN_CODES or charge.code.startswith("basic_")):
        yield f"{where}.code", f"{charge.code!r} is the code of another line", "choose another code"


def _check_basic(charge: DemandCharge | CapacityCharge, where: str) -> Iterator[tuple[str, str, str]]:
    """Contract, capacity and what a demand is held to are above zero."""
    named = {"capacity_kva": charge.capacity_kva} if isinstance(charge, CapacityCharge) else {}
    if isinstance(charge, DemandCharge):
        named = {} if charge.contract_kw is None else {"contract_kw": charge.contract_kw}
        hours, percent = charge.discount or (Decimal(1), Decimal(1))
        named |= {"discount_hours": hours, "discount_percent": percent}
        for key, least in (("allowance", charge.allowance), ("excess_factor", charge.excess_factor)):
            if least < 1:
                yield f"{where}.{key}", f"{key} {least} is below 1", "write the whole factor, like 1.05 for 5 % more"
    for key, value in named.items():
        if value <= 0:
            yield f"{where}.{key}", f"{key} {value} is not above 0", "write how much it is"


def _check_base(
    charge: PowerFactorCharge | Tax | MinimumCharge, tariff: Tariff, where: str
) -> Iterator[tuple[str, str, str]]:
    """What a charge on other charges is made on must be there, and each once."""
    kinds = tuple(kind for group in charge.base for kind in GROUPS[group])
    if not any(isinstance(one, kinds) for one in tariff.charges):
        yield f"{where}.base", f"the tariff has no charge of {', '.join(charge.base)}", "add one, or correct `base`"
    lists = {"base": charge.base} | ({"reactive": charge.reactive} if isinstance(charge, PowerFactorCharge) else {})
    for key, values in lists.items():
        for value in dict.fromkeys(one for one in values if values.count(one) > 1):
            yield f"{where}.{key}", f"{value!r} stands there twice", "write it once"


def _check_net(tariff: Tariff, where: str) -> Iterator[tuple[str, str, str]]:
    """Net metering nets whole months: periods and steps of a year have no rule for it."""
    for number, charge in enumerate(tariff.charges, start=1):
        if isinstance(charge, TouCharge) or (isinstance(charge, (StepCharge, StepAdder)) and charge.period == "year"):
            what = f"net metering has no rule for charges[{number}]: periods and yearly steps are not netted"
            yield where, what, "use `energy` or monthly steps, or `export_credit` instead"
        if isinstance(charge, ExportCredit):
            yield where, f"charges[{number}] credits the same energy", "keep one of them"
    if not any(isinstance(charge, (EnergyCharge, StepCharge)) for charge in tariff.charges):
        yield where, "there is no price of energy to net", "add a charge of kind `energy` or `step`"


def _check_tou(charge: TouCharge, where: str) -> Iterator[tuple[str, str, str]]:
    priced = [period for period, _ in charge.prices]
    for period in priced:
        if re.fullmatch(r"step\d*", period):
            yield f"{where}.prices.{period}", "this name is kept for steps", "choose another name for the period"
    used = {w.period for season in charge.schedule.seasons for w in season.windows}
    for period in priced:
        if period not in used:
            yield f"{where}.prices.{period}", "no season has hours of this period", "add its hours or drop the price"
    for number, season in enumerate(charge.schedule.seasons, start=1):
        here = f"{where}.seasons[{number}]"
        for period in dict.fromkeys(w.period for w in season.windows):
            if period not in priced:
                near = get_close_matches(period, priced, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else "give it a price in `prices`"
                yield f"{here}.periods.{period}", f"the period {period!r} has no price", remedy
        for start, end in uncovered(season.windows):
            yield f"{here}.periods", f"no period for {clock_text(start, end)}", "give these hours to one period"
        for start, end, names in overlaps(season.windows):
            what = f"{clock_text(start, end)} is given twice ({', '.join(names)})"
            yield f"{here}.periods", what, "give these hours to one period"
    yield from _check_months(
        [(f"{where}.seasons[{n}]", s.months, DAY_KINDS[s.days]) for n, s in enumerate(charge.schedule.seasons, 1)],
        f"{where}.seasons",
    )


def _check_steps(charge: StepCharge | StepAdder, where: str) -> Iterator[tuple[str, str, str]]:
    if charge.period == "year" and len(charge.tables) > 1:
        yield f"{where}.tables", "yearly steps have one table for all months", "keep one table without `months`"
    if charge.year_start[1] != 1:
        what = f"a step year starts with a month, not on its day {charge.year_start[1]}"
        yield f"{where}.year_start", what, "bills are for civil months: use the first of a month"
    for number, table in enumerate(charge.tables, start=1):
        here = f"{where}.tables[{number}]"
        below = Decimal(0)
        for index, step in enumerate(table.steps, start=1):
            last = index == len(table.steps)
            if step.up_to is None and not last:
                yield f"{here}.steps[{index}]", "only the last step is open", "give it `up_to`"
            elif step.up_to is not None and last:
                yield (
                    f"{here}.steps[{index}]",
                    f"energy above {step.up_to} kWh has no price",
                    "add a step without `up_to`",
                )
            if step.up_to is not None:
                if step.up_to <= below:
                    what = f"up_to {step.up_to} is not above {below}"
                    yield f"{here}.steps[{index}].up_to", what, "write the steps in ascending order"
                below = max(below, step.up_to)
    yield from _check_months(
        [(f"{where}.tables[{n}]", t.months, ("all",)) for n, t in enumerate(charge.tables, 1)], f"{where}.tables"
    )


def _check_months(
    rows: Sequence[tuple[str, tuple[int, ...], tuple[str, ...]]], where: str
) -> Iterator[tuple[str, str, str]]:
    """Every month of every kind of day belongs to exactly one row (a season or a table of steps)."""
    for kind in dict.fromkeys(kind for _, _, kinds in rows for kind in kinds):
        on = "" if kind == "all" else f" on a {kind}"
        missing = [m for m in ALL_MONTHS if not any(m in months and kind in kinds for _, months, kinds in rows)]
        if missing:
            yield where, f"nothing for month {', '.join(map(str, missing))}{on}", "add them to one `months`"
        holders: dict[tuple[str, ...], list[int]] = {}
        for month in ALL_MONTHS:
            rows_of = tuple(row for row, months, kinds in rows if kind in kinds for m in months if m == month)
            holders.setdefault(rows_of, []).append(month)
        for rows_of, months_of in holders.items():
            if len(rows_of) > 1:
                what = f"month {', '.join(map(str, months_of))}{on} stands in {' and '.join(rows_of)}"
                yield where, what, "keep it in one"
    if rows and all("weekday" not in kinds and "all" not in kinds for _, _, kinds in rows):
        yield where, "nothing for a weekday", "add a season for weekdays"
    if rows and all("weekend" not in kinds and "all" not in kinds for _, _, kinds in rows):
        yield where, "nothing for a weekend", "add a season for weekends"


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
        case _:
            message = detail["msg"]
            return Problem(where, message[:1].lower() + message[1:], str(context.get("remedy", "")))

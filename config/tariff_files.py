"""Tariffs as TOML files: load, check whole, tell every problem at once. Reference: docs/tariffs.md."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from billing.calendar import DAY_KINDS, MINUTES_PER_DAY, clock_text, overlaps, uncovered
from billing.model import (
    MINOR_DIGITS,
    Charge,
    EnergyCharge,
    FixedCharge,
    PeriodWindow,
    Schedule,
    Season,
    Step,
    StepAdder,
    StepCharge,
    StepTable,
    Tariff,
    TouCharge,
)
from headend.civil import zone
from headend.errors import ConfigError, Problem, UsageError

__all__ = ["check_tariff", "load_tariff", "load_tariffs"]

_ALL_MONTHS = tuple(range(1, 13))
_DECIMAL = re.compile(r"-?\d{1,12}(\.\d{1,8})?")
_WINDOW = re.compile(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
_NAME = r"^[a-z][a-z0-9_]*$"


def _decimal(value: object) -> Decimal:
    """A number written as text; a TOML number is refused, because a TOML float is not a decimal."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise PydanticCustomError("number", "not a number", {"remedy": 'write it as text, like "0.538"'})
    if not isinstance(value, str):
        raise PydanticCustomError(
            "number", "{value} is not text", {"value": value, "remedy": f'write the number as text: "{value}"'}
        )
    if not _DECIMAL.fullmatch(value):
        raise PydanticCustomError(
            "number",
            "{value} is not a decimal number with up to 8 places",
            {"value": repr(value), "remedy": 'write it like "0.538"'},
        )
    return Decimal(value)


def _price(value: object) -> Decimal:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise PydanticCustomError(
            "price", "the price {value} is not text", {"value": value, "remedy": f'write the price as text: "{value}"'}
        )
    return _decimal(value)


def _window(value: object) -> tuple[int, int]:
    """`"08:00-22:00"` as minutes of the day; `"22:00-06:00"` runs past midnight."""
    match = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    start, end = (int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])) if match else (0, 0)
    if match is None or start >= MINUTES_PER_DAY or end > MINUTES_PER_DAY or start == end:
        raise PydanticCustomError(
            "window", "{value} is not a span of hours", {"value": repr(value), "remedy": 'write it like "08:00-22:00"'}
        )
    return start, end


def _year_start(value: object) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2})-(\d{2})", value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= 12 or not 1 <= int(match[2]) <= 31:
        raise PydanticCustomError(
            "year_start", "{value} is not a day of the year", {"value": repr(value), "remedy": 'write it like "01-01"'}
        )
    return int(match[1]), int(match[2])


PriceText = Annotated[Decimal, BeforeValidator(_price)]
DecimalText = Annotated[Decimal, BeforeValidator(_decimal)]
WindowText = Annotated[tuple[int, int], BeforeValidator(_window)]
YearStartText = Annotated[tuple[int, int], BeforeValidator(_year_start)]
Month = Annotated[int, Field(ge=1, le=12)]
PeriodName = Annotated[str, Field(pattern=_NAME)]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _SeasonKeys(_Keys):
    months: list[Month] = Field(default=list(_ALL_MONTHS), min_length=1)
    days: Literal["all", "weekday", "weekend"] = "all"
    periods: dict[PeriodName, list[WindowText]]

    def build(self) -> Season:
        windows = [
            piece
            for period, spans in self.periods.items()
            for start, end in spans
            for piece in _within_day(period, start, end)
        ]
        return Season(tuple(self.months), self.days, tuple(windows))


class _StepKeys(_Keys):
    up_to: DecimalText | None = None
    price: PriceText


class _TableKeys(_Keys):
    months: list[Month] = Field(default=list(_ALL_MONTHS), min_length=1)
    steps: list[_StepKeys] = Field(min_length=1)


class _EnergyKeys(_Keys):
    kind: Literal["energy"]
    unit: Literal["kWh"]
    text: str = ""
    price: PriceText

    def build(self) -> Charge:
        return EnergyCharge(self.price, self.text)


class _TouKeys(_Keys):
    kind: Literal["tou"]
    unit: Literal["kWh"]
    text: str = ""
    prices: dict[PeriodName, PriceText] = Field(min_length=1)
    seasons: list[_SeasonKeys] = Field(min_length=1)

    def build(self) -> Charge:
        return TouCharge(tuple(self.prices.items()), Schedule(tuple(s.build() for s in self.seasons)), self.text)


class _StepsKeys(_Keys):
    kind: Literal["step", "step_adder"]
    unit: Literal["kWh"]
    text: str = ""
    period: Literal["month", "year"]
    year_start: YearStartText = (1, 1)
    tables: list[_TableKeys] = Field(min_length=1)

    def build(self) -> Charge:
        tables = tuple(StepTable(tuple(t.months), tuple(Step(s.up_to, s.price) for s in t.steps)) for t in self.tables)
        if self.kind == "step":
            return StepCharge(self.period, tables, self.year_start, self.text)
        return StepAdder(self.period, tables, self.year_start, self.text)


class _FixedKeys(_Keys):
    kind: Literal["fixed"]
    unit: Literal["month"]
    text: str = ""
    code: PeriodName
    amount: PriceText

    def build(self) -> Charge:
        return FixedCharge(self.code, self.amount, self.text)


_ChargeKeys = Annotated[_EnergyKeys | _TouKeys | _StepsKeys | _FixedKeys, Field(discriminator="kind")]
_KINDS: dict[str, type[_Keys]] = {
    kind: keys
    for keys in (_EnergyKeys, _TouKeys, _StepsKeys, _FixedKeys)
    for kind in get_args(keys.model_fields["kind"].annotation)
}


class _TariffKeys(_Keys):
    id: str = Field(min_length=1)
    version: str = Field(min_length=1)
    title: str = Field(min_length=1)
    source: str = Field(min_length=1)
    source_date: date
    verified: bool
    note: str = ""
    valid_from: date
    valid_to: date | None = None
    zone: str
    currency: str
    charges: list[_ChargeKeys] = Field(min_length=1)


_ADAPTER: TypeAdapter[_TariffKeys] = TypeAdapter(_TariffKeys)


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
        keys = _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise ConfigError(_problem(name, detail, content) for detail in error.errors()) from error
    tariff = Tariff(
        **{key: getattr(keys, key) for key in _TariffKeys.model_fields if key != "charges"},
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
        key = f"fixed charge {charge.code!r}" if isinstance(charge, FixedCharge) else type(charge).__name__
        if key in seen:
            found.append((where, f"a second charge of the same kind as charges[{seen[key]}]", "put them in one"))
        seen.setdefault(key, number)
        match charge:
            case TouCharge():
                found.extend(_check_tou(charge, where))
            case StepCharge() | StepAdder():
                found.extend(_check_steps(charge, where))
            case FixedCharge(code=code) if code.startswith(("energy", "step")):
                found.append((f"{where}.code", f"{code!r} could be taken for an energy line", "choose another code"))
    if len({c.year_start for c in tariff.charges if isinstance(c, (StepCharge, StepAdder)) and c.period == "year"}) > 1:
        found.append(("charges", "two step years with different starts", "give both the same year_start"))
    prefix = f"{name}: " if name else ""
    return [Problem(prefix + where, what, remedy) for where, what, remedy in found]


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
        missing = [m for m in _ALL_MONTHS if not any(m in months and kind in kinds for _, months, kinds in rows)]
        if missing:
            yield where, f"nothing for month {', '.join(map(str, missing))}{on}", "add them to one `months`"
        holders: dict[tuple[str, ...], list[int]] = {}
        for month in _ALL_MONTHS:
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


def _within_day(period: str, start: int, end: int) -> Iterator[PeriodWindow]:
    """A window past midnight as its two pieces of one civil day."""
    if start < end:
        yield PeriodWindow(period, start, end)
        return
    yield PeriodWindow(period, start, MINUTES_PER_DAY)
    if end > 0:
        yield PeriodWindow(period, 0, end)


def _problem(name: str, detail: ErrorDetails, content: dict[str, Any]) -> Problem:
    """A pydantic finding in this project's words."""
    path, keys = _walk(detail["loc"])
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
            remedy = f"write one of {', '.join(_KINDS)}"
            return Problem(f"{where}.kind", "is not a known kind of charge", remedy)
        case "literal_error":
            return Problem(where, f"{detail['input']!r} is not known here", f"write {context['expected']}")
        case _:
            message = detail["msg"]
            return Problem(where, message[:1].lower() + message[1:], str(context.get("remedy", "")))


def _walk(location: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """A pydantic location as `charges[1].prices.peak`, and the keys known at its last level."""
    path, keys, model = "", list(_TariffKeys.model_fields), None
    for index, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part + 1}]"
        elif index == 2 and location[0] == "charges" and part in _KINDS:
            model = _KINDS[part]
            keys = list(model.model_fields)
        else:
            path += f".{part}" if path else part
            keys = {"seasons": list(_SeasonKeys.model_fields), "tables": list(_TableKeys.model_fields)}.get(part, keys)
            keys = list(_StepKeys.model_fields) if part == "steps" else keys
    return path.replace(".[key]", ""), keys

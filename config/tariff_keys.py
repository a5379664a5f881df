"""The form of a tariff file: its keys, their types, and what each charge builds. Reference: docs/tariffs.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from billing.calendar import MINUTES_PER_DAY
from billing.model import (
    CapacityCharge,
    Charge,
    DemandCharge,
    EnergyCharge,
    ExportCredit,
    FixedCharge,
    MinimumCharge,
    NetMetering,
    PeriodWindow,
    PowerFactorCharge,
    Schedule,
    Season,
    Step,
    StepAdder,
    StepCharge,
    StepTable,
    Surcharge,
    Tax,
    TouCharge,
)

__all__ = ["ADAPTER", "ALL_MONTHS", "KINDS", "TariffKeys", "walk"]

ALL_MONTHS = tuple(range(1, 13))
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
AdjustedGroup = Literal["energy", "demand", "fixed"]
BeforeMinimum = Literal["energy", "demand", "surcharge", "fixed", "export", "power_factor"]
Taxed = Literal["energy", "demand", "surcharge", "fixed", "export", "power_factor", "minimum"]
PeriodName = Annotated[str, Field(pattern=_NAME)]


class _Keys(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _SeasonKeys(_Keys):
    months: list[Month] = Field(default=list(ALL_MONTHS), min_length=1)
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
    months: list[Month] = Field(default=list(ALL_MONTHS), min_length=1)
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


class _DemandKeys(_Keys):
    kind: Literal["demand"]
    unit: Literal["kW"]
    text: str = ""
    price: PriceText
    measured_by: Literal["register", "intervals"]
    block_min: Literal[5, 10, 15, 20, 30, 60] = 15
    contract_kw: DecimalText | None = None
    allowance: DecimalText = Decimal("1.05")
    excess_factor: DecimalText = Decimal(2)
    excess_above: Literal["allowance", "contract"] = "allowance"
    discount_hours: DecimalText | None = None
    discount_percent: DecimalText | None = None

    def build(self) -> Charge:
        hours, percent = self.discount_hours, self.discount_percent
        return DemandCharge(
            self.price,
            self.measured_by,
            self.block_min,
            self.contract_kw,
            self.allowance,
            self.excess_factor,
            self.excess_above,
            None if hours is None or percent is None else (hours, percent),
            self.text,
        )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.discount_hours is None) != (self.discount_percent is None):
            raise PydanticCustomError(
                "discount", "a discount has hours and a percentage", {"remedy": "write both, or neither"}
            )
        if self.contract_kw is None and self.discount_hours is not None:
            raise PydanticCustomError("discount", "a discount needs a contract", {"remedy": "write contract_kw"})
        return self


class _CapacityKeys(_Keys):
    kind: Literal["capacity"]
    unit: Literal["kVA"]
    text: str = ""
    price: PriceText
    capacity_kva: DecimalText
    month_days: Annotated[int, Field(ge=28, le=31)] = 30

    def build(self) -> Charge:
        return CapacityCharge(self.price, self.capacity_kva, self.month_days, self.text)


class _PowerFactorKeys(_Keys):
    kind: Literal["power_factor"]
    unit: Literal["%"]
    text: str = ""
    standard: Literal["0.90", "0.85", "0.80"]
    base: list[AdjustedGroup] = Field(default=["energy", "demand"], min_length=1)
    reactive: list[Literal["import_kvarh", "export_kvarh"]] = Field(default=["import_kvarh"], min_length=1)

    def build(self) -> Charge:
        return PowerFactorCharge(Decimal(self.standard), tuple(self.base), tuple(self.reactive), self.text)


class _SurchargeKeys(_Keys):
    kind: Literal["surcharge"]
    unit: Literal["kWh"]
    text: str = ""
    code: PeriodName
    price: PriceText
    adjusted: bool = False

    def build(self) -> Charge:
        return Surcharge(self.code, self.price, self.adjusted, self.text)


class _TaxKeys(_Keys):
    kind: Literal["tax"]
    unit: Literal["%"]
    text: str = ""
    code: PeriodName
    percent: DecimalText
    base: list[Taxed] = Field(default=list(get_args(Taxed)), min_length=1)

    def build(self) -> Charge:
        return Tax(self.code, self.percent, tuple(self.base), self.text)


class _MinimumKeys(_Keys):
    kind: Literal["minimum"]
    unit: Literal["month"]
    text: str = ""
    amount: PriceText
    base: list[BeforeMinimum] = Field(default=["energy", "demand", "surcharge", "fixed", "power_factor"], min_length=1)

    def build(self) -> Charge:
        return MinimumCharge(self.amount, tuple(self.base), self.text)


class _ExportKeys(_Keys):
    kind: Literal["export_credit", "net_metering"]
    unit: Literal["kWh"]
    text: str = ""
    price: PriceText

    def build(self) -> Charge:
        return (ExportCredit if self.kind == "export_credit" else NetMetering)(self.price, self.text)


_ChargeKeys = Annotated[
    _EnergyKeys
    | _TouKeys
    | _StepsKeys
    | _FixedKeys
    | _DemandKeys
    | _CapacityKeys
    | _PowerFactorKeys
    | _SurchargeKeys
    | _TaxKeys
    | _MinimumKeys
    | _ExportKeys,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[_Keys]] = {
    kind: keys for keys in get_args(get_args(_ChargeKeys)[0]) for kind in get_args(keys.model_fields["kind"].annotation)
}


class TariffKeys(_Keys):
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


ADAPTER: TypeAdapter[TariffKeys] = TypeAdapter(TariffKeys)


def _within_day(period: str, start: int, end: int) -> Iterator[PeriodWindow]:
    """A window past midnight as its two pieces of one civil day."""
    if start < end:
        yield PeriodWindow(period, start, end)
        return
    yield PeriodWindow(period, start, MINUTES_PER_DAY)
    if end > 0:
        yield PeriodWindow(period, 0, end)


def walk(location: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """A pydantic location as `charges[1].prices.peak`, and the keys known at its last level."""
    path, keys, model = "", list(TariffKeys.model_fields), None
    for index, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part + 1}]"
        elif index == 2 and location[0] == "charges" and part in KINDS:
            model = KINDS[part]
            keys = list(model.model_fields)
        else:
            path += f".{part}" if path else part
            keys = {"seasons": list(_SeasonKeys.model_fields), "tables": list(_TableKeys.model_fields)}.get(part, keys)
            keys = list(_StepKeys.model_fields) if part == "steps" else keys
    return path.replace(".[key]", ""), keys

"""The form of a tariff file: its keys, their types, and what each charge builds. Reference: docs/tariffs.md."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, TypeAdapter, model_validator
from pydantic_core import PydanticCustomError

from billing.charges import (
    CapacityCharge,
    Charge,
    DemandCharge,
    EnergyCharge,
    ExportCredit,
    FixedCharge,
    Household,
    MarketCharge,
    MinimumCharge,
    NetMetering,
    PowerFactorCharge,
    Ratchet,
    Step,
    StepAdder,
    StepCharge,
    StepTable,
    StepTou,
    StepTouCharge,
    StepTouTable,
    Surcharge,
    Tax,
    TouCharge,
)
from config.tariff_parts import (
    Around,
    EventKeys,
    HouseholdKeys,
    Keys,
    PricedStepKeys,
    PricedTableKeys,
    RatchetKeys,
    SeasonKeys,
    StepKeys,
    TableKeys,
    schedule_of,
)
from config.tariff_values import (
    ALL_MONTHS,
    OF_ACCOUNT,
    ContractText,
    DayOfYear,
    DecimalText,
    Holidays,
    Month,
    PeriodName,
    PriceText,
)

__all__ = ["ADAPTER", "KINDS", "Around", "TariffKeys", "series_named", "walk"]

AdjustedGroup = Literal["energy", "demand", "fixed"]
BeforeMinimum = Literal["energy", "demand", "surcharge", "fixed", "export", "power_factor"]
Taxed = Literal["energy", "demand", "surcharge", "fixed", "export", "power_factor", "minimum"]


class _EnergyKeys(Keys):
    kind: Literal["energy"]
    unit: Literal["kWh"]
    text: str = ""
    price: PriceText

    def build(self, _around: Around) -> Charge:
        return EnergyCharge(self.price, self.text)


class _TouKeys(Keys):
    kind: Literal["tou"]
    unit: Literal["kWh"]
    text: str = ""
    prices: dict[PeriodName, PriceText] = Field(min_length=1)
    measured_by: Literal["intervals", "registers"] = "intervals"
    registers: dict[PeriodName, str] = Field(default={})
    rest: PeriodName | Literal[""] = ""
    seasons: list[SeasonKeys] = Field(min_length=1)
    events: list[EventKeys] = Field(default=[])

    def build(self, around: Around) -> Charge:
        return TouCharge(
            tuple(self.prices.items()),
            schedule_of(self.seasons, self.events, around),
            self.text,
            self.measured_by,
            tuple(self.registers.items()),
            self.rest,
        )


class _FilledKeys(Keys):
    """What steps have in common, whatever a step costs."""

    unit: Literal["kWh"]
    text: str = ""
    period: Literal["month", "year"]
    year_start: DayOfYear = (1, 1)
    household: HouseholdKeys | None = None
    part: Literal["whole", "months", "days"] = "whole"

    def more(self) -> Household | None:
        return None if self.household is None else Household(self.household.people, self.household.kwh)


class _StepsKeys(_FilledKeys):
    kind: Literal["step", "step_adder"]
    tables: list[TableKeys] = Field(min_length=1)

    def build(self, _around: Around) -> Charge:
        tables = tuple(StepTable(tuple(t.months), tuple(Step(s.up_to, s.price) for s in t.steps)) for t in self.tables)
        kind = StepCharge if self.kind == "step" else StepAdder
        return kind(self.period, tables, self.year_start, self.text, self.more(), self.part)


class _StepTouKeys(_FilledKeys):
    kind: Literal["step_tou"]
    split: Literal["pro_rata", "chronological"] = "pro_rata"
    tables: list[PricedTableKeys] = Field(min_length=1)
    seasons: list[SeasonKeys] = Field(min_length=1)
    events: list[EventKeys] = Field(default=[])

    def build(self, around: Around) -> Charge:
        tables = tuple(
            StepTouTable(tuple(t.months), tuple(StepTou(s.up_to, tuple(s.prices.items())) for s in t.steps))
            for t in self.tables
        )
        schedule = schedule_of(self.seasons, self.events, around)
        return StepTouCharge(
            self.period, tables, schedule, self.split, self.year_start, self.text, self.more(), self.part
        )


class _MarketKeys(Keys):
    kind: Literal["market"]
    unit: Literal["kWh"]
    text: str = ""
    code: PeriodName
    series: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]*\.csv$")]
    factor: DecimalText = Decimal(1)
    adder: PriceText = Decimal(0)

    def build(self, around: Around) -> Charge:
        return MarketCharge(self.code, around.series[self.series], self.factor, self.adder, self.text)


class _FixedKeys(Keys):
    kind: Literal["fixed"]
    unit: Literal["month"]
    text: str = ""
    code: PeriodName
    amount: PriceText

    def build(self, _around: Around) -> Charge:
        return FixedCharge(self.code, self.amount, self.text)


class _DemandKeys(Keys):
    kind: Literal["demand"]
    unit: Literal["kW"]
    text: str = ""
    code: PeriodName = "basic_demand"
    price: PriceText | None = None
    steps: list[StepKeys] = Field(default=[])
    measured_by: Literal["register", "intervals"]
    block_min: Literal[5, 10, 15, 20, 30, 60] = 15
    sliding_min: Literal[0, 1, 5, 10, 15, 30] = 0
    months: list[Month] = Field(default=list(ALL_MONTHS), min_length=1)
    period: PeriodName | Literal[""] = ""
    seasons: list[SeasonKeys] = Field(default=[])
    contract_kw: ContractText | None = None
    allowance: DecimalText = Decimal("1.05")
    excess_factor: DecimalText = Decimal(2)
    excess_above: Literal["allowance", "contract"] = "allowance"
    discount_hours: DecimalText | None = None
    discount_percent: DecimalText | None = None
    ratchet: RatchetKeys | None = None

    def build(self, around: Around) -> Charge:
        hours, percent, contract, ratchet = (
            self.discount_hours, self.discount_percent, self.contract_kw, self.ratchet,
        )  # fmt: skip
        return DemandCharge(
            Decimal(0) if self.price is None else self.price,
            self.measured_by,
            self.block_min,
            contract if isinstance(contract, Decimal) else None,
            self.allowance,
            self.excess_factor,
            self.excess_above,
            None if hours is None or percent is None else (hours, percent),
            self.text,
            self.code,
            self.sliding_min,
            contract == OF_ACCOUNT,
            tuple(self.months),
            tuple(Step(step.up_to, step.price) for step in self.steps),
            schedule_of(self.seasons, [], around) if self.seasons else None,
            self.period,
            None if ratchet is None else Ratchet(ratchet.months, ratchet.percent, tuple(ratchet.of_months)),
        )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.discount_hours is None) != (self.discount_percent is None):
            raise PydanticCustomError(
                "discount", "a discount has hours and a percentage", {"remedy": "write both, or neither"}
            )
        if self.contract_kw is None and self.discount_hours is not None:
            raise PydanticCustomError("discount", "a discount needs a contract", {"remedy": "write contract_kw"})
        if (self.price is None) == (not self.steps):
            what = "a demand has a price or steps" + (", not both" if self.steps else "")
            raise PydanticCustomError("price", "{what}", {"what": what, "remedy": "write `price`, or `steps`"})
        if bool(self.period) != bool(self.seasons):
            what = "the demand of a period needs its hours, and hours a period"
            remedy = "write `period` and `seasons`, or neither"
            raise PydanticCustomError("period", "{what}", {"what": what, "remedy": remedy})
        return self


class _CapacityKeys(Keys):
    kind: Literal["capacity"]
    unit: Literal["kVA"]
    text: str = ""
    price: PriceText
    capacity_kva: ContractText
    month_days: Annotated[int, Field(ge=28, le=31)] = 30

    def build(self, _around: Around) -> Charge:
        capacity = self.capacity_kva if isinstance(self.capacity_kva, Decimal) else None
        return CapacityCharge(self.price, capacity, self.month_days, self.text)


class _PowerFactorKeys(Keys):
    kind: Literal["power_factor"]
    unit: Literal["%"]
    text: str = ""
    standard: Literal["0.90", "0.85", "0.80"]
    base: list[AdjustedGroup] = Field(default=["energy", "demand"], min_length=1)
    reactive: list[Literal["import_kvarh", "export_kvarh"]] = Field(default=["import_kvarh"], min_length=1)

    def build(self, _around: Around) -> Charge:
        return PowerFactorCharge(Decimal(self.standard), tuple(self.base), tuple(self.reactive), self.text)


class _SurchargeKeys(Keys):
    kind: Literal["surcharge"]
    unit: Literal["kWh"]
    text: str = ""
    code: PeriodName
    price: PriceText
    adjusted: bool = False

    def build(self, _around: Around) -> Charge:
        return Surcharge(self.code, self.price, self.adjusted, self.text)


class _TaxKeys(Keys):
    kind: Literal["tax"]
    unit: Literal["%"]
    text: str = ""
    code: PeriodName
    percent: DecimalText
    base: list[Taxed] = Field(default=list(get_args(Taxed)), min_length=1)

    def build(self, _around: Around) -> Charge:
        return Tax(self.code, self.percent, tuple(self.base), self.text)


class _MinimumKeys(Keys):
    kind: Literal["minimum"]
    unit: Literal["month"]
    text: str = ""
    amount: PriceText
    base: list[BeforeMinimum] = Field(default=["energy", "demand", "surcharge", "fixed", "power_factor"], min_length=1)

    def build(self, _around: Around) -> Charge:
        return MinimumCharge(self.amount, tuple(self.base), self.text)


class _ExportKeys(Keys):
    kind: Literal["export_credit"]
    unit: Literal["kWh"]
    text: str = ""
    price: PriceText

    def build(self, _around: Around) -> Charge:
        return ExportCredit(self.price, self.text)


class _NetKeys(Keys):
    kind: Literal["net_metering"]
    unit: Literal["kWh"]
    text: str = ""
    price: PriceText
    carry: bool = False
    year_start: DayOfYear = (1, 1)

    def build(self, _around: Around) -> Charge:
        return NetMetering(self.price, self.text, self.carry, self.year_start)


_ChargeKeys = Annotated[
    _EnergyKeys
    | _TouKeys
    | _StepsKeys
    | _StepTouKeys
    | _MarketKeys
    | _FixedKeys
    | _DemandKeys
    | _CapacityKeys
    | _PowerFactorKeys
    | _SurchargeKeys
    | _TaxKeys
    | _MinimumKeys
    | _ExportKeys
    | _NetKeys,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[Keys]] = {
    kind: keys for keys in get_args(get_args(_ChargeKeys)[0]) for kind in get_args(keys.model_fields["kind"].annotation)
}


class TariffKeys(Keys):
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
    holidays: Holidays = Field(default=[])
    workdays: Holidays = Field(default=[])
    rounding: Literal["line", "bill"] = "line"
    part_month: Literal["days", "whole", "hold"] = "days"
    charges: list[_ChargeKeys] = Field(min_length=1)


ADAPTER: TypeAdapter[TariffKeys] = TypeAdapter(TariffKeys)


def series_named(keys: TariffKeys) -> list[str]:
    """The price series that the tariff's charges name, each once."""
    return list(dict.fromkeys(charge.series for charge in keys.charges if isinstance(charge, _MarketKeys)))


_TABLES: Mapping[str, type[Keys]] = {
    "seasons": SeasonKeys,
    "events": EventKeys,
    "household": HouseholdKeys,
    "ratchet": RatchetKeys,
}


def walk(location: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """A pydantic location as `charges[1].prices.peak`, and the keys known at its last level."""
    path, keys, kind = "", list(TariffKeys.model_fields), ""
    for index, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part + 1}]"
        elif index == 2 and location[0] == "charges" and part in KINDS:
            kind = part
            keys = list(KINDS[part].model_fields)
        else:
            path += f".{part}" if path else part
            table = _table(part, kind)
            keys = keys if table is None else list(table.model_fields)
    return path.replace(".[key]", ""), keys


def _table(key: str, kind: str) -> type[Keys] | None:
    """The form of the tables under a key of a charge."""
    if key in ("tables", "steps"):
        priced = (PricedTableKeys, PricedStepKeys) if kind == "step_tou" else (TableKeys, StepKeys)
        return priced[key == "steps"]
    return _TABLES.get(key)

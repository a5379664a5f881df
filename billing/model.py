"""The nouns of billing, frozen: tariffs and their charges, determinants and what they come from, bills and holds.

Energy is a `Decimal` in kWh, a price a `Decimal` per unit with up to eight places, money a `Decimal` of the currency's
minor digits. `round_money` is the only place where money is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal, localcontext

from headend.model import Quality, Source, Window
from headend.quantities import QUANTITIES, Kind, from_units

__all__ = [
    "MINOR_DIGITS",
    "Bill",
    "BillLine",
    "CapacityCharge",
    "Charge",
    "DemandCharge",
    "Determinant",
    "EnergyCharge",
    "ExportCredit",
    "FixedCharge",
    "Hold",
    "IntervalPart",
    "MinimumCharge",
    "NetMetering",
    "Parent",
    "PeriodWindow",
    "PowerFactorCharge",
    "RegisterEnd",
    "RegisterPart",
    "Schedule",
    "Season",
    "Step",
    "StepAdder",
    "StepCharge",
    "StepTable",
    "Surcharge",
    "Tariff",
    "Tax",
    "TouCharge",
    "UsedBefore",
    "round_money",
]

MINOR_DIGITS: Mapping[str, int] = {"CNY": 2, "EUR": 2, "GBP": 2, "USD": 2}
"""Currencies a tariff may be written in, and the decimal places of their amounts."""


def round_money(quantity: Decimal, price: Decimal, minor_digits: int) -> Decimal:
    """`quantity` x `price` rounded half-up to `minor_digits` places, the same for credits: -0.125 becomes -0.13.

    The product is exact before it is rounded.
    """
    with localcontext() as context:
        context.prec = 200
        return (quantity * price).quantize(Decimal(1).scaleb(-minor_digits), rounding=ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class PeriodWindow:
    """Local minutes `[start_min, end_min)` of a civil day that belong to a TOU period; 0 <= start < end <= 1440."""

    period: str
    start_min: int
    end_min: int


@dataclass(frozen=True, slots=True)
class Season:
    """Windows that hold on some days of some months. days: `all`, `weekday` (Monday to Friday) or `weekend`."""

    months: tuple[int, ...]
    days: str
    windows: tuple[PeriodWindow, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which TOU period each minute of the year belongs to, by the wall clock of the tariff's zone."""

    seasons: tuple[Season, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: up to and including `up_to` kWh (None: open), at `price` per kWh."""

    up_to: Decimal | None
    price: Decimal


@dataclass(frozen=True, slots=True)
class StepTable:
    """Steps that hold in `months` (by the month in which the billing period starts)."""

    months: tuple[int, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class EnergyCharge:
    """One price for every kWh."""

    price: Decimal
    text: str = ""


@dataclass(frozen=True, slots=True)
class TouCharge:
    """A price per TOU period, in the order the bill shows them."""

    prices: tuple[tuple[str, Decimal], ...]
    schedule: Schedule
    text: str = ""


@dataclass(frozen=True, slots=True)
class StepCharge:
    """Energy priced by steps that fill over a month, or over a year that starts on `year_start` (month, day)."""

    period: str
    tables: tuple[StepTable, ...]
    year_start: tuple[int, int] = (1, 1)
    text: str = ""


@dataclass(frozen=True, slots=True)
class StepAdder:
    """As `StepCharge`, but its prices are added to what other charges ask for the same kWh."""

    period: str
    tables: tuple[StepTable, ...]
    year_start: tuple[int, int] = (1, 1)
    text: str = ""


@dataclass(frozen=True, slots=True)
class FixedCharge:
    """An amount for each billing month; `code` is the line's code."""

    code: str
    amount: Decimal
    text: str = ""


@dataclass(frozen=True, slots=True)
class DemandCharge:
    """A price per kW of the month's maximum demand.

    source: `register` (kept by the meter at its settlement) or `intervals` (the highest block of `block_min` minutes).
    contract_kw: billed up to `allowance` times itself, whatever the maximum; what lies above that limit (`excess_above`
    `allowance`) or above the contract (`contract`) costs `excess_factor` times the price. None: the maximum is billed.
    discount: (hours, percent): so much off where the energy is at least `hours` times the contract.
    """

    price: Decimal
    source: str
    block_min: int = 15
    contract_kw: Decimal | None = None
    allowance: Decimal = Decimal("1.05")
    excess_factor: Decimal = Decimal(2)
    excess_above: str = "allowance"
    discount: tuple[Decimal, Decimal] | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class CapacityCharge:
    """A price per kVA of installed capacity for a month; a day of a part month is one of `month_days`."""

    price: Decimal
    capacity_kva: Decimal
    month_days: int = 30
    text: str = ""


@dataclass(frozen=True, slots=True)
class PowerFactorCharge:
    """An addition or a reduction by the month's power factor against `standard` (0.90, 0.85 or 0.80).

    reactive: the registers whose energies are added up as reactive. base: groups of charges it is a percentage of.
    """

    standard: Decimal
    base: tuple[str, ...]
    reactive: tuple[str, ...] = ("import_kvarh",)
    text: str = ""


@dataclass(frozen=True, slots=True)
class Surcharge:
    """A fund or levy per kWh. adjusted: whether it is a part of what the power-factor adjustment is made on."""

    code: str
    price: Decimal
    adjusted: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Tax:
    """A percentage of the groups of charges in `base`."""

    code: str
    percent: Decimal
    base: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class MinimumCharge:
    """What the groups of charges in `base` come to at least; the line is what they fall short of it."""

    amount: Decimal
    base: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class ExportCredit:
    """A credit for every kWh exported."""

    price: Decimal
    text: str = ""


@dataclass(frozen=True, slots=True)
class NetMetering:
    """Energy is priced on import less export of the month; what was exported beyond that is credited at `price`."""

    price: Decimal
    text: str = ""


Charge = (
    EnergyCharge
    | TouCharge
    | StepCharge
    | StepAdder
    | FixedCharge
    | DemandCharge
    | CapacityCharge
    | PowerFactorCharge
    | Surcharge
    | Tax
    | MinimumCharge
    | ExportCredit
    | NetMetering
)


@dataclass(frozen=True, slots=True)
class Tariff:
    """One version of a tariff.

    valid_from, valid_to: civil days of `zone`, half-open: `valid_to` is the first day on which it no longer holds.
    verified: whether everything in it was checked against its source; `note` says what was not.
    sha: SHA-256 of the file's text as hexadecimal digits; text: that text, kept with every bill.
    """

    id: str
    version: str
    title: str
    source: str
    source_date: date
    verified: bool
    valid_from: date
    valid_to: date | None
    zone: str
    currency: str
    charges: tuple[Charge, ...]
    note: str = ""
    sha: str = ""
    text: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class RegisterEnd:
    """A register as it stood at one end of a part: `units` are ten-thousandths of a kWh."""

    at: datetime
    units: int
    quality: Quality
    source: Source
    outcome_id: int


@dataclass(frozen=True, slots=True)
class RegisterPart:
    """What one meter registered between two instants of one billing period.

    For a demand both ends are settlements: at the first it began anew, at the second the meter kept its maximum.
    """

    meter_key: int
    meter: str
    quantity: str
    start: RegisterEnd
    end: RegisterEnd
    wrap_units: int
    multiplier: Decimal

    @property
    def difference(self) -> Decimal:
        """End minus start at the meter, rollover taken into account; of a demand the end alone."""
        if QUANTITIES[self.quantity].kind is Kind.DEMAND:
            return from_units(self.end.units)
        units = self.end.units - self.start.units
        return from_units(units + self.wrap_units if units < 0 else units)

    @property
    def value(self) -> Decimal:
        """The difference times the multiplier."""
        return self.difference * self.multiplier


@dataclass(frozen=True, slots=True)
class IntervalPart:
    """The intervals of one meter in `window` that fall in one TOU period, or in the block of the highest demand.

    as_of: the highest outcome id when they were summed; whatever came later was not in it.
    """

    meter_key: int
    meter: str
    quantity: str
    window: Window
    step_s: int
    count: int
    sum_units: int
    wrap_units: int
    multiplier: Decimal
    as_of: int

    @property
    def value(self) -> Decimal:
        """The sum times the multiplier, in kWh."""
        return from_units(self.sum_units) * self.multiplier


@dataclass(frozen=True, slots=True)
class UsedBefore:
    """Energy used earlier in the step year: by an issued bill, or (number "") as declared on the account."""

    number: str
    energy: Decimal
    at: datetime


Parent = RegisterPart | IntervalPart | UsedBefore


@dataclass(frozen=True, slots=True)
class Determinant:
    """One number a bill is computed from.

    used_before: energy used in the step year before this period; None when no charge asks for it.
    counts: how many of the values it was computed from had which quality.
    """

    name: str
    value: Decimal
    unit: str
    used_before: Decimal | None = None
    counts: tuple[tuple[Quality, int], ...] = ()
    parents: tuple[Parent, ...] = ()


@dataclass(frozen=True, slots=True)
class BillLine:
    """One line of a bill; amount = `round_money(quantity, price)`, with the unit `%` a hundredth of the product.

    determinant: where the quantity comes from.
    """

    code: str
    text: str
    quantity: Decimal
    unit: str
    price: Decimal
    amount: Decimal
    determinant: str


@dataclass(frozen=True, slots=True)
class Hold:
    """One reason why a bill can't be issued: what is wrong, where, what to do.

    code: a short stable word for the reason. start, end: the instants or the span it concerns. count: how many values.
    """

    code: str
    what: str
    remedy: str = ""
    meter: str = ""
    start: datetime | None = None
    end: datetime | None = None
    count: int = 0

    def __str__(self) -> str:
        text = f"{self.meter}: {self.what}" if self.meter else self.what
        return f"{text} -> {self.remedy}" if self.remedy else text


@dataclass(frozen=True, slots=True)
class Bill:
    """A bill as it is stored. state: `issued` (never changes again) or `held` (no lines; `holds` says why).

    window: the billing period. as_of: the highest outcome id when it was computed. total: in the currency.
    """

    number: str
    account: str
    usage_point: str
    window: Window
    state: str
    tariff: str
    tariff_version: str
    tariff_sha: str
    zone: str
    currency: str
    total: Decimal | None = None
    issued_at: datetime | None = None
    as_of: int = 0
    lines: tuple[BillLine, ...] = ()
    determinants: tuple[Determinant, ...] = ()
    holds: tuple[Hold, ...] = ()

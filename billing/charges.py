"""The nouns of a tariff, frozen: its charges, the hours they hold for, itself. Reference: docs/tariffs.md.

A price is a `Decimal` per unit with up to eight places. What a charge needs beside its own words (energy, demand,
contract, people) are determinants of the bill, by the names in `billing.names`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal

__all__ = [
    "ADJUSTED",
    "Calendar",
    "CapacityCharge",
    "Charge",
    "DemandCharge",
    "EnergyCharge",
    "ExportCredit",
    "FixedCharge",
    "Household",
    "MarketCharge",
    "MinimumCharge",
    "NetMetering",
    "PeriodEvent",
    "PeriodWindow",
    "Policy",
    "PowerFactorCharge",
    "PriceSeries",
    "Ratchet",
    "Schedule",
    "Season",
    "Step",
    "StepAdder",
    "StepCharge",
    "StepTable",
    "StepTou",
    "StepTouCharge",
    "StepTouTable",
    "Surcharge",
    "Tariff",
    "Tax",
    "TouCharge",
]

ADJUSTED = ("energy", "demand", "fixed")
"""Groups of charges a power-factor adjustment may be made on."""

_ALL_MONTHS = tuple(range(1, 13))


@dataclass(frozen=True, slots=True)
class PeriodWindow:
    """Local minutes `[start_min, end_min)` of a civil day that belong to a TOU period; 0 <= start < end <= 1440."""

    period: str
    start_min: int
    end_min: int


@dataclass(frozen=True, slots=True)
class Season:
    """Windows that hold on some days of some months.

    days: `all`, `weekday` (Monday to Friday), `weekend` or `holiday`.
    """

    months: tuple[int, ...]
    days: str
    windows: tuple[PeriodWindow, ...]


@dataclass(frozen=True, slots=True)
class Calendar:
    """Civil days that are not what their weekday says. holidays: days of the kind `holiday`, or of the weekend where
    the schedule has no such kind. workdays: weekend days that are worked, and count as weekdays."""

    holidays: tuple[date, ...] = ()
    workdays: tuple[date, ...] = ()


@dataclass(frozen=True, slots=True)
class PeriodEvent:
    """A span of time called out beforehand, such as a critical peak: it belongs to `period`, whatever the hours say."""

    period: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which TOU period each minute of the year belongs to, by the wall clock of the tariff's zone."""

    seasons: tuple[Season, ...]
    calendar: Calendar = Calendar()
    events: tuple[PeriodEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One step: up to and including `up_to` (kWh, of a demand kW; None: open), at `price` per unit."""

    up_to: Decimal | None
    price: Decimal


@dataclass(frozen=True, slots=True)
class StepTable:
    """Steps that hold in `months` (by the month in which the billing period starts)."""

    months: tuple[int, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Household:
    """Every limit of the steps is raised by `kwh` a month (of a year's steps twelve times that) for a household of at
    least `people`."""

    people: int
    kwh: Decimal


@dataclass(frozen=True, slots=True)
class EnergyCharge:
    """One price for every kWh."""

    price: Decimal
    text: str = ""


@dataclass(frozen=True, slots=True)
class TouCharge:
    """A price per TOU period, in the order the bill shows them.

    measured_by: `intervals` (their sums by the schedule) or `registers` (the meter's own, by `registers`: period and
    quantity); the other one is the cross-check where it is there. rest: the period that takes what the total register
    holds beyond the sum of the period registers (and what is lost in transformer and line); "": it must be nothing.
    """

    prices: tuple[tuple[str, Decimal], ...]
    schedule: Schedule
    text: str = ""
    measured_by: str = "intervals"
    registers: tuple[tuple[str, str], ...] = ()
    rest: str = ""


@dataclass(frozen=True, slots=True)
class StepCharge:
    """Energy priced by steps that fill over a month, or over a year that starts on `year_start` (month, day).

    part: limits where the account is in force for a part only: `whole` (as written), of a year `months` (a twelfth for
    each month begun), of a month `days` (by days).
    """

    period: str
    tables: tuple[StepTable, ...]
    year_start: tuple[int, int] = (1, 1)
    text: str = ""
    household: Household | None = None
    part: str = "whole"


@dataclass(frozen=True, slots=True)
class StepAdder:
    """As `StepCharge`, but its prices are added to what other charges ask for the same kWh."""

    period: str
    tables: tuple[StepTable, ...]
    year_start: tuple[int, int] = (1, 1)
    text: str = ""
    household: Household | None = None
    part: str = "whole"


@dataclass(frozen=True, slots=True)
class StepTou:
    """One step with a price per TOU period."""

    up_to: Decimal | None
    prices: tuple[tuple[str, Decimal], ...]


@dataclass(frozen=True, slots=True)
class StepTouTable:
    """Steps with prices per period that hold in `months`."""

    months: tuple[int, ...]
    steps: tuple[StepTou, ...]


@dataclass(frozen=True, slots=True)
class StepTouCharge:
    """Energy priced by step and TOU period together: a table of prices.

    split: which energy is in which step. `pro_rata`: each period has the same share of each step as of the whole, to
    four places, the last period the rest. `chronological`: the steps fill interval by interval.
    """

    period: str
    tables: tuple[StepTouTable, ...]
    schedule: Schedule
    split: str = "pro_rata"
    year_start: tuple[int, int] = (1, 1)
    text: str = ""
    household: Household | None = None
    part: str = "whole"


@dataclass(frozen=True, slots=True)
class PriceSeries:
    """Prices per kWh of consecutive spans of `step_s` seconds from `start`; name, sha: of their file."""

    name: str
    sha: str
    start: datetime
    step_s: int
    prices: tuple[Decimal, ...] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class MarketCharge:
    """Each interval at the price of its time, times `factor`, plus `adder` for every kWh."""

    code: str
    series: PriceSeries
    factor: Decimal = Decimal(1)
    adder: Decimal = Decimal(0)
    text: str = ""


@dataclass(frozen=True, slots=True)
class FixedCharge:
    """An amount for each billing month; `code` is the line's code."""

    code: str
    amount: Decimal
    text: str = ""


@dataclass(frozen=True, slots=True)
class Ratchet:
    """At least `percent` of the highest demand of the `months` months before (those of them in `of_months`)."""

    months: int
    percent: Decimal
    of_months: tuple[int, ...] = _ALL_MONTHS


@dataclass(frozen=True, slots=True)
class DemandCharge:
    """A price per kW of the month's maximum demand.

    source: `register` (kept by the meter at its settlement) or `intervals` (the highest block of `block_min` minutes;
    with `slide_min` the highest of the blocks that start every so many minutes).
    contract_kw: billed up to `allowance` times itself, whatever the maximum; what lies above that limit (`excess_above`
    `allowance`) or above the contract (`contract`) costs `excess_factor` times the price. None: the maximum is billed.
    contracted: the contract is the account's own, not `contract_kw`.
    discount: (hours, percent): so much off where the energy is at least `hours` times the contract.
    months: of the billing periods it holds in, by their start. steps: prices by size of the demand, instead of `price`.
    schedule, period: only the time of this TOU period counts; None, "": all of it.
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
    code: str = "basic_demand"
    slide_min: int = 0
    contracted: bool = False
    months: tuple[int, ...] = _ALL_MONTHS
    steps: tuple[Step, ...] = ()
    schedule: Schedule | None = None
    period: str = ""
    ratchet: Ratchet | None = None


@dataclass(frozen=True, slots=True)
class CapacityCharge:
    """A price per kVA of installed capacity for a month; a day of a part month is one of `month_days`.

    capacity_kva: None: the account's own.
    """

    price: Decimal
    capacity_kva: Decimal | None
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
    """Energy is priced on import less export of the month; what was exported beyond that is credited at `price`.

    carry: what is left over is kept as energy for the months that follow instead, and credited at `price` with the
    last month of the year that starts on `year_start`.
    """

    price: Decimal
    text: str = ""
    carry: bool = False
    year_start: tuple[int, int] = (1, 1)


Charge = (
    EnergyCharge
    | TouCharge
    | StepCharge
    | StepAdder
    | StepTouCharge
    | MarketCharge
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
class Policy:
    """What a tariff may settle one way or another.

    rounding: `line` (each line to the minor unit, the total is their sum) or `bill` (the sum of what was not rounded is
    rounded once; a line of its own, `rounding`, tells the difference).
    part_month: fixed amounts, minimum and demand of a part of a month: `days` (by days of the month), `whole`, or
    `hold` (a person decides).
    """

    rounding: str = "line"
    part_month: str = "days"


@dataclass(frozen=True, slots=True)
class Tariff:
    """One version of a tariff.

    valid_from, valid_to: civil days of `zone`, half-open: `valid_to` is the first day on which it no longer holds.
    verified: whether everything in it was checked against its source; `note` says what was not.
    sha: SHA-256 of the file's text (and of the price series it names) as hexadecimal digits; text: that text, kept with
    every bill.
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
    policy: Policy = Policy()

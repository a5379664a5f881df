"""The nouns of a bill, frozen: its period, determinants and what they come from, lines, holds. Tariffs: `charges`.

Energy is a `Decimal` in kWh, a price a `Decimal` per unit with up to eight places, money a `Decimal` of the currency's
minor digits. `round_money` is the only place where money is rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal, localcontext

from billing.charges import Tariff
from headend.model import Quality, Source, Window
from headend.quantities import QUANTITIES, Kind, from_units

__all__ = [
    "MINOR_DIGITS",
    "Bill",
    "BillLine",
    "Derived",
    "Determinant",
    "Hold",
    "IntervalPart",
    "Parent",
    "Period",
    "RegisterEnd",
    "RegisterPart",
    "Segment",
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
class Segment:
    """A part of a billing period in which one version of a tariff and one set of contract values hold.

    label: "" for the only part of a period, else the civil day on which it starts (`2026-10-16`), unique in the period.
    """

    window: Window
    tariff: Tariff
    label: str = ""


@dataclass(frozen=True, slots=True)
class Period:
    """What one bill is for. month: the civil month; window: the part of it in which the account is in force.

    segments cover `window` without a gap; the last one's tariff has charges made once for the whole bill (demand,
    minimum, power factor). year_months: months begun of the step year, up to the period's end or the account's, in
    which the account was or will be in force as far as is known: 12, or fewer where it began or ended within the year.
    """

    month: Window
    window: Window
    segments: tuple[Segment, ...]
    year_months: int = 12

    @classmethod
    def of(cls, tariff: Tariff, month: Window, window: Window | None = None) -> Period:
        """A period of one part: the whole month, or `window` of it."""
        window = window or month
        return cls(month, window, (Segment(window, tariff),))

    @property
    def tariff(self) -> Tariff:
        """The tariff in force at the period's end: the bill is in its zone and currency."""
        return self.segments[-1].tariff


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


@dataclass(frozen=True, slots=True)
class Derived:
    """A number that went into a determinant as `value`, signed, in the determinant's unit (or as a factor of it).

    name: another determinant of the same bill; a usage point's `POINT: quantity`; or what the registry holds, as
    `account`, `transformer`, `submeter POINT`, `adjustment`.
    """

    name: str
    value: Decimal


Parent = RegisterPart | IntervalPart | UsedBefore | Derived


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
    review: nothing is missing, but something is odd: a person may release the bill as it is, with a reason.
    """

    code: str
    what: str
    remedy: str = ""
    meter: str = ""
    start: datetime | None = None
    end: datetime | None = None
    count: int = 0
    review: bool = False

    def __str__(self) -> str:
        text = f"{self.meter}: {self.what}" if self.meter else self.what
        return f"{text} -> {self.remedy}" if self.remedy else text


@dataclass(frozen=True, slots=True)
class Bill:
    """A bill as it is stored. state: `issued` (never changes again), `held` (no lines; `holds` says why) or, of a bill
    that was never stored, `draft`.

    window: the billing period. as_of: the highest outcome id when it was computed. total: in the currency.
    sequence: 0 for the first bill of a period, one more for each that corrects it; replaces: the number of that one.
    reversed_by: the ledger entry that took it back, "" while it stands. segments: (start, tariff version's sha) of each
    part, () where there is only one. holds: of a held bill why; of an issued one what was odd (and who released it is
    in `store.releases`).
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
    sequence: int = 0
    replaces: str = ""
    reversed_by: str = ""
    segments: tuple[tuple[datetime, str], ...] = ()

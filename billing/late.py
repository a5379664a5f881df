"""What paying late costs, and what a payment pays first. Pure: no store, no clock.

Source of the rates: 供电营业规则 (1996) art. 98: from the day after the day a bill was due up to and with the day it is
paid, residents 1 per mille of the arrears a day, others 2 per mille for arrears of the current year and 3 per mille
for those of earlier years; less than 1 CNY in all is collected as 1 CNY. Published answers read "earlier years" in two
ways, so that is a policy (`LatePolicy.cross_year`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from billing.model import round_money

__all__ = [
    "OTHERS",
    "RESIDENTIAL",
    "Allocation",
    "AllocationPolicy",
    "Arrears",
    "LateCharge",
    "LatePolicy",
    "LateSpan",
    "Paid",
    "allocate",
    "late_charge",
]


@dataclass(frozen=True, slots=True)
class LatePolicy:
    """How much a day late costs, as a share of the arrears.

    per_day: in the year in which the bill was due. per_day_later: in the years after it. cross_year: what a delay that
    goes past a year's end costs: `split` (days up to 31 December at the one, days after it at the other) or `whole`
    (all its days at `per_day_later`). minimum: of all that is collected at once, unless nothing is late; 0: none.
    """

    per_day: Decimal
    per_day_later: Decimal
    cross_year: str = "split"
    minimum: Decimal = Decimal(1)
    minor_digits: int = 2

    def __post_init__(self) -> None:
        if self.cross_year not in ("split", "whole"):
            raise ValueError(f"cross_year is `split` or `whole`, not {self.cross_year!r}")
        if min(self.per_day, self.per_day_later, self.minimum) < 0:
            raise ValueError("rates and the minimum are not below zero")


RESIDENTIAL = LatePolicy(Decimal("0.001"), Decimal("0.001"))
OTHERS = LatePolicy(Decimal("0.002"), Decimal("0.003"))


@dataclass(frozen=True, slots=True)
class Arrears:
    """What is owed for one bill: the bill's own amount, and what was charged for paying it late. due: its last day."""

    bill: str
    due: date
    principal: Decimal
    penalty: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class LateSpan:
    """Days of one delay at one rate; amount = `round_money` of arrears times days times rate."""

    bill: str
    first: date
    last: date
    days: int
    arrears: Decimal
    per_day: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class LateCharge:
    """What is charged for a collection: `total` is the sum of its spans, and what is missing up to the minimum."""

    spans: tuple[LateSpan, ...]
    to_minimum: Decimal
    total: Decimal


def late_charge(policy: LatePolicy, arrears: Sequence[Arrears], paid: date) -> LateCharge:
    """The late-payment penalty of everything collected on the day `paid`; bills not yet due cost nothing.

    Arrears that were paid ahead (not above zero) cost nothing either.
    """
    found = tuple(span for item in arrears if item.principal > 0 for span in _spans(policy, item, paid))
    total = sum((span.amount for span in found), Decimal(0))
    short = max(policy.minimum - total, Decimal(0)) if found else Decimal(0)
    return LateCharge(found, short, total + short)


def _spans(policy: LatePolicy, item: Arrears, paid: date) -> list[LateSpan]:
    """The days after `due` up to and with `paid`, cut where the rate changes."""
    if paid <= item.due:
        return []
    first = date.fromordinal(item.due.toordinal() + 1)
    year_end = date(item.due.year, 12, 31)
    if paid <= year_end:
        parts = [(first, paid, policy.per_day)]
    elif policy.cross_year == "whole" or first > year_end:
        parts = [(first, paid, policy.per_day_later)]
    else:
        parts = [(first, year_end, policy.per_day), (date(item.due.year + 1, 1, 1), paid, policy.per_day_later)]
    spans = []
    for start, end, rate in parts:
        days = (end - start).days + 1
        amount = round_money(item.principal * days, rate, policy.minor_digits)
        spans.append(LateSpan(item.bill, start, end, days, item.principal, rate, amount))
    return spans


# -- what a payment pays -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AllocationPolicy:
    """What is paid first. within: of one bill its `penalty` or its `principal`. across: all of the oldest bill before
    the next (`bill`), or of all bills the one kind before the other (`kind`)."""

    within: str = "penalty"
    across: str = "bill"

    def __post_init__(self) -> None:
        if self.within not in ("penalty", "principal"):
            raise ValueError(f"within is `penalty` or `principal`, not {self.within!r}")
        if self.across not in ("bill", "kind"):
            raise ValueError(f"across is `bill` or `kind`, not {self.across!r}")


@dataclass(frozen=True, slots=True)
class Paid:
    """A part of a payment: for which bill, for its `penalty` or its `principal`, how much."""

    bill: str
    kind: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Allocation:
    """A payment laid on arrears. left: of the payment, when all was paid. owed: what of the arrears is left."""

    paid: tuple[Paid, ...]
    left: Decimal
    owed: tuple[Arrears, ...]


def allocate(payment: Decimal, arrears: Sequence[Arrears], policy: AllocationPolicy | None = None) -> Allocation:
    """Lay `payment` on `arrears`, oldest due first (of the same day in the order given).

    Every cent is accounted for: payment = what was paid + what is left. Raises `ValueError` for a payment or arrears
    below zero.
    """
    policy = policy or AllocationPolicy()
    if payment < 0 or any(min(item.principal, item.penalty) < 0 for item in arrears):
        raise ValueError("payments and arrears are not below zero")
    kinds = ("penalty", "principal") if policy.within == "penalty" else ("principal", "penalty")
    oldest = sorted(arrears, key=lambda item: item.due)
    claims = [(place, kind) for place in range(len(oldest)) for kind in kinds]
    if policy.across == "kind":
        claims.sort(key=lambda claim: kinds.index(claim[1]))
    left, paid, rest = payment, list[Paid](), dict[tuple[int, str], Decimal]()
    for place, kind in claims:
        item = oldest[place]
        claimed = item.penalty if kind == "penalty" else item.principal
        part = min(left, claimed)
        left, rest[place, kind] = left - part, claimed - part
        if part:
            paid.append(Paid(item.bill, kind, part))
    owed = (
        Arrears(item.bill, item.due, rest[place, "principal"], rest[place, "penalty"])
        for place, item in enumerate(oldest)
    )
    return Allocation(tuple(paid), left, tuple(item for item in owed if item.principal or item.penalty))

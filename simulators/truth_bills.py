"""The true bill of a month, by integer arithmetic of its own: the head-end's billing must come to the same cent.

Energy is in whole 0.01 kWh (what a display shows, times the multiplier), prices in 10^-8 of the currency's unit,
amounts in 0.01 of it. Every line is rounded half-up on its own; the total is the sum of the lines. What is particular
to two-part tariffs is in `truth_two_part`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulators.truth_two_part import adjustment_percent, demand_parts, power_factor

__all__ = [
    "PRICE_SCALE",
    "Facts",
    "MonthStep",
    "Season",
    "Tariff",
    "Tou",
    "TrueLine",
    "TwoPart",
    "YearStep",
    "YearStepTou",
    "amount_cents",
    "bill_lines",
    "hundredths",
    "price_units",
    "season_of",
    "total_cents",
]

PRICE_SCALE = 100_000_000


@dataclass(frozen=True, slots=True)
class TrueLine:
    """One line of a bill: quantity in 0.01 kWh (kW, kVA, pieces, days), price in 10^-8, amount in 0.01. percent: the
    amount is a hundredth of quantity times price. places: decimals of the quantity, where it is not in hundredths."""

    code: str
    quantity: int
    price: int
    amount: int
    percent: bool = False
    places: int = 2

    def as_text(self) -> dict[str, str]:
        """The line with its numbers as decimal text."""
        return {
            "code": self.code,
            "unit": "%" if self.percent else "",
            "quantity": hundredths(self.quantity) if self.places == 2 else _finer(self.quantity, self.places),
            "price": _price_text(self.price),
            "amount": hundredths(self.amount),
        }


@dataclass(frozen=True, slots=True)
class YearStep:
    """Steps over the calendar year. limits: upper ends in 0.01 kWh, inclusive; one price more than limits."""

    limits: tuple[int, ...]
    prices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Season:
    """Months, and their step limits (0.01 kWh) or their day cut into (from minute, to minute, period)."""

    months: tuple[int, ...]
    limits: tuple[int, ...] = ()
    windows: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MonthStep:
    """Steps over each month, their limits by season.

    later_prices: instead of `prices` from the instant the town lets them change on. family: limits are higher by so
    much (0.01 kWh) for a household of at least so many people.
    """

    seasons: tuple[Season, ...]
    prices: tuple[int, ...]
    later_prices: tuple[int, ...] = ()
    changes_on: int = 0
    family: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Tou:
    """Prices by period, periods by season; `service` is a fixed monthly amount (0.01), 0 for none."""

    seasons: tuple[Season, ...]
    prices: Mapping[str, int]
    service: int = 0


@dataclass(frozen=True, slots=True)
class YearStepTou:
    """Prices by period, and adders on all the energy in the upper yearly steps."""

    seasons: tuple[Season, ...]
    prices: Mapping[str, int]
    limits: tuple[int, ...]
    adders: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TwoPart:
    """A price for the demand or the capacity, prices by period, surcharges, and an adjustment by power factor.

    demand: `contract` (the contract, and what exceeds 105 % of it at twice the price), `maximum`, `register` (the
    maximum that the meter itself kept) or `capacity`, at `price`. surcharges: code, price per kWh, and whether the
    adjustment is made on it as well. standard: the power factor that earns nothing and costs nothing, in hundredths.
    """

    seasons: tuple[Season, ...]
    prices: Mapping[str, int]
    demand: str
    price: int
    surcharges: tuple[tuple[str, int, bool], ...]
    standard: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What a month's bill rests on beside its energy; energy in 0.01 kWh or kvarh, power in 0.01 kW or kVA.

    later: energy used since the prices changed. people: of the household. days: in which the account was in force, of
    so many of the month. reactive, maximum: of the month; kept by the meter itself, the maximum is in 0.0001 kW.
    contract, capacity: what was agreed, what is installed.
    """

    later: int = 0
    people: int = 0
    days: tuple[int, int] = (1, 1)
    reactive: int = 0
    maximum: int = 0
    contract: int = 0
    capacity: int = 0


Tariff = YearStep | MonthStep | Tou | YearStepTou | TwoPart


def hundredths(value: int) -> str:
    """`12345` as `123.45`."""
    sign = "-" if value < 0 else ""
    return f"{sign}{abs(value) // 100}.{abs(value) % 100:02d}"


def _finer(value: int, places: int) -> str:
    return f"{value // 10**places}.{value % 10**places:0{places}d}"


def _price_text(price: int) -> str:
    whole, part = divmod(price, PRICE_SCALE)
    digits = f"{part:08d}".rstrip("0")
    return f"{whole}.{digits:0<2}"


def price_units(text: str) -> int:
    """A decimal price as text, in 10^-8; ValueError if it is none or finer than that."""
    whole, _, part = text.partition(".")
    if not whole.isdecimal() or not whole.isascii() or len(part) > 8 or (part and not part.isdecimal()):
        raise ValueError(f"{text!r} is no price")
    return int(whole) * PRICE_SCALE + int(part.ljust(8, "0"))


def amount_cents(quantity: int, price: int, places: int = 2) -> int:
    """Quantity (0.01, or of so many places) times price (10^-8) in 0.01, half-up; a reduction as an addition."""
    scale = PRICE_SCALE * int(10 ** (places - 2))
    size = (abs(quantity * price) + scale // 2) // scale
    return size if quantity * price >= 0 else -size


def total_cents(lines: Sequence[TrueLine]) -> int:
    """What the lines sum to, in 0.01."""
    return sum(line.amount for line in lines)


def _line(code: str, quantity: int, price: int, places: int = 2) -> TrueLine:
    return TrueLine(code, quantity, price, amount_cents(quantity, price, places), places=places)


def _steps(limits: Sequence[int], before: int, used: int) -> list[int]:
    """How much of `used` falls into each step when `before` was used earlier; a limit belongs to the lower step."""
    edges = [0, *limits]
    parts = []
    for k, low in enumerate(edges):
        high = edges[k + 1] if k + 1 < len(edges) else before + used
        parts.append(max(0, min(before + used, high) - max(before, low)))
    return parts


def season_of(seasons: Sequence[Season], month: int) -> Season:
    """The season month 1..12 belongs to."""
    return next(season for season in seasons if month in season.months)


def _period_lines(prices: Mapping[str, int], season: Season, energy: Mapping[str, int]) -> list[TrueLine]:
    occurring = {period for _, _, period in season.windows}
    return [
        _line(f"energy_{period}", energy.get(period, 0), price)
        for period, price in prices.items()
        if period in occurring
    ]


def _step_lines(prices: Sequence[int], parts: Sequence[int]) -> list[TrueLine]:
    return [_line(f"energy_step{k + 1}", part, prices[k]) for k, part in enumerate(parts) if part]


def bill_lines(
    tariff: Tariff, month: int, used: int, energy: Mapping[str, int], before: int = 0, facts: Facts = Facts()
) -> list[TrueLine]:
    """The lines of one month.

    used: all energy of the month in 0.01 kWh. energy: the same by period, for tariffs that have periods. before: used
    earlier in the calendar year, for yearly steps. facts: whatever else the tariff asks for.
    """
    match tariff:
        case YearStep(limits, prices):
            return _step_lines(prices, _steps(limits, before, used))
        case MonthStep():
            return _month_steps(tariff, month, used, facts)
        case Tou(seasons, prices, service):
            return [*_period_lines(prices, season_of(seasons, month), energy), *_service(service, facts.days)]
        case YearStepTou(seasons, prices, limits, adders):
            parts = _steps(limits, before, sum(energy.values()))
            added = [_line(f"step{k + 2}_adder", part, adders[k]) for k, part in enumerate(parts[1:]) if part]
            return _period_lines(prices, season_of(seasons, month), energy) + added
        case TwoPart():
            return _two_part(tariff, month, used, energy, facts)


def _month_steps(tariff: MonthStep, month: int, used: int, facts: Facts) -> list[TrueLine]:
    """The steps go on filling where the prices change within the month."""
    people, more = tariff.family
    raised = more if people and facts.people >= people else 0
    limits = [limit + raised for limit in season_of(tariff.seasons, month).limits]
    earlier = used - facts.later
    lines = _step_lines(tariff.prices, _steps(limits, 0, earlier))
    return lines + _step_lines(tariff.later_prices, _steps(limits, earlier, facts.later))


def _service(service: int, days: tuple[int, int]) -> list[TrueLine]:
    """The monthly amount; of a part of a month its days' share as the price, to eight places."""
    if not service:
        return []
    of_days, month_days = days
    price = service * (PRICE_SCALE // 100)
    return [_line("service", 100, (2 * price * of_days + month_days) // (2 * month_days))]


def _two_part(tariff: TwoPart, month: int, used: int, energy: Mapping[str, int], facts: Facts) -> list[TrueLine]:
    parts = demand_parts(tariff.demand, facts.maximum, facts.contract, facts.capacity)
    places = 4 if tariff.demand == "register" else 2
    basic = [_line(code, quantity, tariff.price * times, places) for code, quantity, times in parts]
    by_period = _period_lines(tariff.prices, season_of(tariff.seasons, month), energy)
    added = [_line(code, used, price) for code, price, _ in tariff.surcharges]
    inside = [line for line, (_, _, adjusted) in zip(added, tariff.surcharges, strict=True) if adjusted]
    lines = [*basic, *by_period, *added]
    factor = power_factor(used, facts.reactive)
    if factor is None:
        return lines
    percent, base = adjustment_percent(tariff.standard, factor), total_cents([*basic, *by_period, *inside])
    price = base * (PRICE_SCALE // 100)
    exact = percent * base  # hundredths of a percent of hundredths
    amount = (abs(exact) + 5000) // 10_000
    return [*lines, TrueLine("pf_adjust", percent, price, amount if exact >= 0 else -amount, percent=True)]

"""The true bill of a month, by integer arithmetic of its own: the head-end's billing must come to the same cent.

Energy is in whole 0.01 kWh (what a display shows, times the multiplier), prices in 10^-8 of the currency's unit,
amounts in 0.01 of it. Every line is rounded half-up on its own; the total is the sum of the lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "PRICE_SCALE",
    "MonthStep",
    "Season",
    "Tariff",
    "Tou",
    "TrueLine",
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
    """One line of a bill: quantity in 0.01 kWh (fixed charges: 0.01 pieces), price in 10^-8, amount in 0.01."""

    code: str
    quantity: int
    price: int
    amount: int

    def as_text(self) -> dict[str, str]:
        """The line with its numbers as decimal text."""
        return {
            "code": self.code,
            "quantity": hundredths(self.quantity),
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
    """Steps over each month, their limits by season."""

    seasons: tuple[Season, ...]
    prices: tuple[int, ...]


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


Tariff = YearStep | MonthStep | Tou | YearStepTou


def hundredths(value: int) -> str:
    """`12345` as `123.45`."""
    return f"{value // 100}.{value % 100:02d}"


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


def amount_cents(quantity: int, price: int) -> int:
    """Quantity (0.01) times price (10^-8) in 0.01, rounded half-up."""
    return (quantity * price + PRICE_SCALE // 2) // PRICE_SCALE


def total_cents(lines: Sequence[TrueLine]) -> int:
    """What the lines sum to, in 0.01."""
    return sum(line.amount for line in lines)


def _line(code: str, quantity: int, price: int) -> TrueLine:
    return TrueLine(code, quantity, price, amount_cents(quantity, price))


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


def bill_lines(tariff: Tariff, month: int, used: int, energy: Mapping[str, int], before: int = 0) -> list[TrueLine]:
    """The lines of one month.

    used: all energy of the month in 0.01 kWh. energy: the same by period, for tariffs that have periods. before: used
    earlier in the calendar year, for yearly steps.
    """
    match tariff:
        case YearStep(limits, prices):
            parts = _steps(limits, before, used)
            return [_line(f"energy_step{k + 1}", part, prices[k]) for k, part in enumerate(parts) if part]
        case MonthStep(seasons, prices):
            parts = _steps(season_of(seasons, month).limits, 0, used)
            return [_line(f"energy_step{k + 1}", part, prices[k]) for k, part in enumerate(parts) if part]
        case Tou(seasons, prices, service):
            lines = _period_lines(prices, season_of(seasons, month), energy)
            fixed = [_line("service", 100, service * (PRICE_SCALE // 100))] if service else []
            return lines + fixed
        case YearStepTou(seasons, prices, limits, adders):
            parts = _steps(limits, before, sum(energy.values()))
            added = [_line(f"step{k + 2}_adder", part, adders[k]) for k, part in enumerate(parts[1:]) if part]
            return _period_lines(prices, season_of(seasons, month), energy) + added

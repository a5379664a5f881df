"""Demand and power factor of a two-part tariff, in whole numbers, for the true bills.

The adjustment is the table of (83) 水电财字第215号: so many hundredths of a percent for each 0.01 of power factor above
or below the standard. A contract is billed by the rule of 国家电网财〔2016〕633号: up to 105 % of it the contract
itself, the rest at twice the price.
"""

from __future__ import annotations

from math import isqrt

__all__ = ["adjustment_percent", "demand_parts", "power_factor"]

# Standard: rewards as (up to this power factor, hundredths of a percent for each 0.01).
_REWARDS: dict[int, tuple[tuple[int, int], ...]] = {
    90: ((95, 15),),
    85: ((90, 10), (94, 15)),
    80: ((90, 10), (92, 15)),
}
_PENALTIES = ((20, 50), (5, 100), (100, 200))  # so many hundredths below the standard, each so much


def demand_parts(kind: str, maximum: int, contract: int, capacity: int) -> list[tuple[str, int, int]]:
    """Code, quantity (0.01 kW or kVA; 0.0001 kW of a register) and how many times the price, for `contract`, `maximum`,
    `register` or `capacity`."""
    if kind == "capacity":
        return [("basic_capacity", capacity, 1)]
    if kind in ("maximum", "register"):
        return [("basic_demand", maximum, 1)]
    limit = contract * 105 // 100  # whole: a contract is in whole kW
    excess = [("basic_excess", maximum - limit, 2)] if maximum > limit else []
    return [("basic_demand", contract, 1), *excess]


def power_factor(active: int, reactive: int) -> int | None:
    """Active over apparent energy in hundredths, half-up; None without any energy."""
    square = active**2 + reactive**2
    if not square:
        return None
    return (isqrt(40_000 * active**2 // square) + 1) // 2


def adjustment_percent(standard: int, factor: int) -> int:
    """What is added for a power factor, in hundredths of a percent; a reduction is negative."""
    if factor >= standard:
        reward, reached = 0, standard
        for limit, each in _REWARDS[standard]:
            steps = max(0, min(factor, limit) - reached)
            reward, reached = reward + steps * each, limit
        return -reward
    missing, added = standard - factor, 0
    for steps, each in _PENALTIES:
        taken = min(missing, steps)
        added, missing = added + taken * each, missing - taken
    return added

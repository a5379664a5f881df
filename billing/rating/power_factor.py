"""The power factor of a month and what it adds to a bill, or takes off. Pure.

The scale is that of the Chinese rule (83) 水电财字第215号, for standards of 0.90, 0.85 and 0.80. Its table ends at
0.40; below that the last slope goes on.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["STANDARDS", "adjustment_percent", "adjustment_percents", "power_factor"]

_HUNDRED = 100

# By standard in hundredths: (up to this power factor in hundredths, percent off for each hundredth), ascending.
_REWARDS: dict[int, tuple[tuple[int, Decimal], ...]] = {
    90: ((95, Decimal("0.15")),),
    85: ((90, Decimal("0.10")), (94, Decimal("0.15"))),
    80: ((90, Decimal("0.10")), (92, Decimal("0.15"))),
}

# (hundredths below the standard, percent added for each of them); the last is without end.
_PENALTIES: tuple[tuple[int, Decimal], ...] = ((20, Decimal("0.5")), (5, Decimal(1)), (_HUNDRED, Decimal(2)))

STANDARDS = tuple(Decimal(standard).scaleb(-2) for standard in _REWARDS)
"""The power factors a customer may be held to."""


def power_factor(active_kwh: Decimal, reactive_kvarh: Decimal) -> Decimal | None:
    """Active over apparent energy, half-up to two places; None where there was neither."""
    active, reactive = Fraction(active_kwh), Fraction(reactive_kvarh)
    apparent_squared = active * active + reactive * reactive
    if apparent_squared == 0:
        return None
    # floor(200 pf), so that the half decides exactly: no square root is ever rounded.
    halves = isqrt(int(40_000 * active * active / apparent_squared))
    return Decimal((halves + 1) // 2).scaleb(-2)


def adjustment_percent(standard: Decimal, factor: Decimal) -> Decimal:
    """What is added in percent for a power factor of two places, negative where it is above the standard."""
    due, reached = int(standard * _HUNDRED), int(factor * _HUNDRED)
    percent = Decimal(0)
    for limit, each in _REWARDS[due]:
        percent -= max(min(reached, limit) - due, 0) * each
        due = max(due, limit)
    below = int(standard * _HUNDRED) - reached
    for width, each in _PENALTIES:
        percent += max(min(below, width), 0) * each
        below -= width
    return percent


def adjustment_percents(standard: Decimal, hundredths: NDArray[Any]) -> NDArray[np.int64]:
    """`adjustment_percent` of many: power factors in hundredths (0 to 100); hundredths of a percent."""
    return _scale(standard)[hundredths.astype(np.intp)]


@lru_cache(maxsize=len(STANDARDS))
def _scale(standard: Decimal) -> NDArray[np.int64]:
    """What is added for each power factor from 0 to 1, in hundredths of a percent."""
    percents = [adjustment_percent(standard, Decimal(factor).scaleb(-2)) for factor in range(_HUNDRED + 1)]
    assert all(percent == round(percent, 2) for percent in percents), "the scale has two places"
    return np.array([int(percent.scaleb(2)) for percent in percents], dtype=np.int64)

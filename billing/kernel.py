"""The arithmetic of billing on arrays: one account or a million, the same code and the same exact integers. Pure.

A `Column` is a decimal number per account: integers, and how many decimal places they have. The integers are int64
where every number that can come up fits, and Python's own integers (dtype object) where not: the formulas are the same.
Energies of intervals are the store's ten-thousandths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Column",
    "Ints",
    "add",
    "amounts",
    "chronological",
    "column",
    "constant",
    "decimal",
    "decimals",
    "divide",
    "fill_steps",
    "highest_block",
    "larger",
    "period_sums",
    "rounded",
    "share_out",
    "smaller",
    "subtract",
    "times",
]

Ints = NDArray[Any]
"""Integers: dtype int64, or object holding Python integers."""

_SAFE: Final = 2**62

_EXACT: Final = Context(prec=1000)


@dataclass(frozen=True, slots=True)
class Column:
    """`values[i]` / 10^`places` is the number of account i. there: which accounts have one (None: all)."""

    values: Ints
    places: int
    there: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.values)


def column(numbers: Sequence[Decimal | None]) -> Column:
    """Decimals as a column, with as many places as the finest of them has; None: that account has no such number."""
    there = np.fromiter((number is not None for number in numbers), dtype=np.bool_, count=len(numbers))
    known = [Decimal(0) if number is None else number for number in numbers]
    places = max((_places(number) for number in known), default=0)
    scaled = [int(number.scaleb(places, _EXACT)) for number in known]
    return Column(_array(scaled), places, None if there.all() else there)


def constant(number: Decimal, count: int) -> Column:
    """The same number for `count` accounts."""
    places = _places(number)
    value = int(number.scaleb(places, _EXACT))
    return Column(np.full(count, value, dtype=np.int64 if abs(value) < _SAFE else object), places)


def decimal(numbers: Column, index: int) -> Decimal:
    """The number of one account."""
    return Decimal(int(numbers.values[index])).scaleb(-numbers.places, _EXACT)


def decimals(numbers: Column) -> list[Decimal]:
    """The numbers of all accounts, in order."""
    return [Decimal(value).scaleb(-numbers.places, _EXACT) for value in numbers.values.tolist()]


def _places(number: Decimal) -> int:
    return max(0, -int(number.as_tuple().exponent))


def _array(values: Sequence[int]) -> Ints:
    fits = all(-_SAFE < value < _SAFE for value in values)
    return np.array(values, dtype=np.int64 if fits else object)


def _most(values: Ints) -> int:
    return max(abs(int(values.max())), abs(int(values.min()))) if len(values) else 0


def _scaled(numbers: Column, places: int) -> Ints:
    """The integers of `numbers` with `places` places, not fewer than they have."""
    factor = 10 ** (places - numbers.places)
    if factor == 1:
        return numbers.values
    values = numbers.values
    if factor >= _SAFE or _most(values) * factor >= _SAFE:
        values = values.astype(object)
    scaled: Ints = values * factor
    return scaled


def _there(first: Column, second: Column) -> NDArray[np.bool_] | None:
    """Which accounts have both numbers."""
    if first.there is None or second.there is None:
        return second.there if first.there is None else first.there
    return first.there & second.there


def _both(first: Column, second: Column) -> tuple[Ints, Ints, int, NDArray[np.bool_] | None]:
    """Two columns with places alike; who has both."""
    places = max(first.places, second.places)
    return _scaled(first, places), _scaled(second, places), places, _there(first, second)


def add(first: Column, second: Column) -> Column:
    """The sums."""
    a, b, places, there = _both(first, second)
    if _most(a) + _most(b) >= _SAFE:
        a = a.astype(object)
    return Column(a + b, places, there)


def subtract(first: Column, second: Column) -> Column:
    """The differences."""
    return add(first, Column(-second.values, second.places, second.there))


def times(first: Column, second: Column) -> Column:
    """The products, exact."""
    a, b = first.values, second.values
    if _most(a) * _most(b) >= _SAFE:
        a = a.astype(object)
    return Column(a * b, first.places + second.places, _there(first, second))


def smaller(first: Column, second: Column) -> Column:
    """The smaller of the two, account by account."""
    a, b, places, there = _both(first, second)
    return Column(np.minimum(a, b), places, there)


def larger(first: Column, second: Column) -> Column:
    """The larger of the two, account by account."""
    a, b, places, there = _both(first, second)
    return Column(np.maximum(a, b), places, there)


def rounded(numbers: Column, places: int) -> Column:
    """Rounded half-up, the same for credits (-0.125 becomes -0.13); padded where there are fewer places already."""
    if places >= numbers.places:
        return Column(_scaled(numbers, places), places, numbers.there)
    unit = constant(Decimal(10 ** (numbers.places - places)), len(numbers)).values
    return Column(_quotient(numbers.values, unit), places, numbers.there)


def _quotient(values: Ints, by: Ints) -> Ints:
    """Integers divided by integers above zero, half-up, the same for what is below zero."""
    if 2 * _most(values) + 2 * _most(by) >= _SAFE:
        values, by = values.astype(object), by.astype(object)
    up: Ints = (2 * abs(values) + by) // (2 * by)
    return np.where(values < 0, -up, up)


def divide(first: Column, second: Column, places: int) -> Column:
    """The quotients, half-up to `places`, the same for credits. What is divided by must be above zero."""
    more = places + second.places - first.places
    up, down = _scaled(first, first.places + max(more, 0)), _scaled(second, second.places + max(-more, 0))
    return Column(_quotient(up, down), places, _there(first, second))


def share_out(whole: Column, parts: Sequence[Column], places: int) -> list[Column]:
    """`whole` shared out as `parts` are to their sum, to `places`; the shares sum to it exactly.

    It is the shares counted from the first that are rounded, half-up, and the last part with anything takes what is
    left of `whole`, with as many places as that has; so no part without anything gets a share, and none gets less than
    nothing. Where all parts are 0, the last takes it. `whole` and `parts` must not be below 0.
    """
    running = [parts[0]]
    for part in parts[1:]:
        running.append(add(running[-1], part))
    total = running[-1]
    divisor = Column(np.where(total.values == 0, 1, total.values), total.places, total.there)
    reached = []
    for mark in running[:-1]:
        share = smaller(divide(times(whole, mark), divisor, places), whole)
        complete = (subtract(total, mark).values == 0) & (total.values != 0)
        reached.append(
            Column(np.where(complete, _scaled(whole, share.places), share.values), share.places, share.there)
        )
    reached.append(whole)
    return [reached[0], *(subtract(later, earlier) for earlier, later in pairwise(reached))]


def amounts(quantity: Column, price: Column, minor_digits: int) -> Column:
    """Quantity times price in minor units of the currency: exact, then rounded as `billing.model.round_money` does."""
    return rounded(times(quantity, price), minor_digits)


def fill_steps(used: Column, quantity: Column, limits: Sequence[Column | None]) -> list[Column]:
    """`quantity` laid on the steps above `used`: for each step the energy in it; they sum to `quantity` exactly.

    limits: the upper bound of each step (energy that lands on it belongs to the lower step); None: open, the last.
    """
    parts = []
    left, reached = quantity, used
    for limit in limits:
        if limit is None:
            parts.append(left)
            left = subtract(left, left)
            continue
        zero = subtract(limit, limit)
        part = smaller(larger(subtract(limit, reached), zero), left)
        parts.append(part)
        left, reached = subtract(left, part), add(reached, part)
    if len(left) and np.any(left.values > 0):
        raise ValueError("the last step is not open")
    return parts


# -- intervals ---------------------------------------------------------------------------------------------------------


def period_sums(units: NDArray[np.int64], period: NDArray[np.intp], periods: int) -> NDArray[np.int64]:
    """Sums by TOU period, (accounts, periods): `units` is (accounts, intervals), `period[n]` that of interval n.

    Intervals of one period that follow each other are added up in one sweep.
    """
    found = np.zeros((units.shape[0], periods), dtype=np.int64)
    if units.shape[1] == 0:
        return found
    starts = np.flatnonzero(np.r_[True, period[1:] != period[:-1]])
    runs = np.add.reduceat(units, starts, axis=1)
    for number in range(periods):
        mine = period[starts] == number
        if mine.any():
            found[:, number] = runs[:, mine].sum(axis=1)
    return found


def highest_block(units: NDArray[np.int64], per_block: int, hop: int = 0) -> tuple[Ints, Ints]:
    """Of each account the first interval of the block that holds most (the earliest of equals), and its sum.

    Blocks of `per_block` intervals follow each other, or start every `hop` intervals. An unfinished one at the end is
    no block. At least one block must fit.
    """
    count = units.shape[1]
    if not hop or hop == per_block:
        whole = count // per_block * per_block
        sums = units[:, :whole].reshape(units.shape[0], -1, per_block).sum(axis=2)
        hop = per_block
    else:
        running = np.concatenate([np.zeros((units.shape[0], 1), dtype=np.int64), np.cumsum(units, axis=1)], axis=1)
        starts = np.arange(0, count - per_block + 1, hop)
        sums = running[:, starts + per_block] - running[:, starts]
    top = sums.argmax(axis=1)
    return top * hop, np.take_along_axis(sums, top[:, None], axis=1)[:, 0]


def chronological(
    units: NDArray[np.int64], period: NDArray[np.intp], periods: int, used: Ints, limits: Ints
) -> NDArray[np.int64]:
    """Energy by step and period where steps fill interval by interval: (accounts, steps, periods).

    used: (accounts,) before the first interval; limits: (accounts, steps - 1), upper bounds of all steps but the open
    last one. All in the units of `units`.
    """
    after = np.cumsum(units, axis=1) + np.asarray(used, dtype=np.int64)[:, None]
    before = after - units
    steps = limits.shape[1] + 1
    found = np.zeros((units.shape[0], steps, periods), dtype=np.int64)
    rest = units
    for step in range(steps):
        if step == steps - 1:
            part = rest
        else:
            limit = np.asarray(limits[:, step], dtype=np.int64)[:, None]
            low = before if step == 0 else np.maximum(before, np.asarray(limits[:, step - 1], dtype=np.int64)[:, None])
            part = np.clip(np.minimum(after, limit) - low, 0, None)
            rest = rest - part
        found[:, step] = period_sums(part, period, periods)
    return found

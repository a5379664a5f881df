"""Arithmetic on columns against the same arithmetic on `Decimal` and `Fraction`, in int64 and in Python's integers."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from billing import kernel
from billing.kernel import Column, column, constant, decimal, decimals
from billing.model import round_money

few = settings(max_examples=60)
numbers = st.builds(
    lambda units, places: Decimal(units).scaleb(-places), st.integers(-(10**15), 10**15), st.integers(0, 8)
)
above_zero = st.builds(lambda units, places: Decimal(units).scaleb(-places), st.integers(0, 10**12), st.integers(0, 6))
rows = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5)


def wide(numbers: Column) -> Column:
    """The same column in Python's integers."""
    return Column(numbers.values.astype(object), numbers.places, numbers.there)


def both(first: Column, second: Column) -> list[tuple[Column, Column]]:
    """A pair of columns in each mixture of number types."""
    return [(first, second), (wide(first), second), (first, wide(second)), (wide(first), wide(second))]


@few
@given(rows)
def test_sums_differences_products_and_bounds_are_exact(pairs: list[tuple[Decimal, Decimal]]) -> None:
    first, second = column([a for a, _ in pairs]), column([b for _, b in pairs])
    assert decimals(first) == [a for a, _ in pairs]
    exact: list[tuple[Callable[[Column, Column], Column], Callable[[Fraction, Fraction], Fraction]]] = [
        (kernel.add, lambda a, b: a + b),
        (kernel.subtract, lambda a, b: a - b),
        (kernel.times, lambda a, b: a * b),
        (kernel.smaller, min),
        (kernel.larger, max),
    ]
    for ours, truth in exact:
        expected = [truth(Fraction(a), Fraction(b)) for a, b in pairs]
        for a, b in both(first, second):
            assert [Fraction(number) for number in decimals(ours(a, b))] == expected, ours.__name__


@few
@given(rows, st.sampled_from([0, 2, 3]))
def test_amounts_are_those_of_one_line_at_a_time(pairs: list[tuple[Decimal, Decimal]], digits: int) -> None:
    first, second = column([a for a, _ in pairs]), column([b for _, b in pairs])
    for a, b in both(first, second):
        assert decimals(kernel.amounts(a, b, digits)) == [round_money(a, b, digits) for a, b in pairs]


@few
@given(st.lists(st.tuples(numbers, above_zero.filter(bool)), min_size=1, max_size=4), st.integers(0, 8))
def test_quotients_are_half_up_and_the_same_for_credits(pairs: list[tuple[Decimal, Decimal]], places: int) -> None:
    first, second = column([a for a, _ in pairs]), column([b for _, b in pairs])
    expected = []
    for a, b in pairs:
        size = int(abs(Fraction(a) / Fraction(b)) * 10**places + Fraction(1, 2))
        expected.append(Fraction(-size if a < 0 else size, 10**places))
    for one, other in both(first, second):
        assert [Fraction(number) for number in decimals(kernel.divide(one, other, places))] == expected


def test_numbers_beyond_64_bits_stay_exact() -> None:
    big = Decimal(2**62 - 1)
    doubled = kernel.add(column([big]), column([big]))
    assert decimal(doubled, 0) == Decimal(2**63 - 2)
    assert decimal(kernel.times(doubled, doubled), 0) == Decimal((2**63 - 2) ** 2)
    assert decimal(kernel.rounded(column([big.scaleb(-8)]), 2), 0) == Decimal("46116860184.27")
    # A factor of the places that alone has more than 64 bits.
    assert decimal(kernel.add(column([Decimal(0)]), column([Decimal(1).scaleb(-25)])), 0) == Decimal(1).scaleb(-25)
    assert decimal(kernel.rounded(column([Decimal("0.5") + Decimal(1).scaleb(-25)]), 0), 0) == 1


def test_a_number_that_is_not_there_is_none_of_the_result() -> None:
    found = column([Decimal("1.5"), None, Decimal(2)])
    assert found.there is not None
    assert found.there.tolist() == [True, False, True]
    other = column([None, Decimal(1), Decimal(4)])
    there = kernel.times(found, other).there
    assert there is not None
    assert there.tolist() == [False, False, True]
    assert column([Decimal(1)]).there is None
    assert decimals(constant(Decimal("0.25"), 2)) == [Decimal("0.25")] * 2


@few
@given(
    st.lists(st.tuples(above_zero, above_zero, st.lists(above_zero, min_size=3, max_size=3)), min_size=1, max_size=4)
)
def test_steps_cover_the_quantity_and_keep_to_their_limits(
    accounts: list[tuple[Decimal, Decimal, list[Decimal]]],
) -> None:
    """Each account with limits of its own."""
    limits = [sorted(limits) for _, _, limits in accounts]
    bounds: list[Column | None] = [column([own[step] for own in limits]) for step in range(3)]
    used, quantity = column([used for used, _, _ in accounts]), column([energy for _, energy, _ in accounts])
    parts = [decimals(part) for part in kernel.fill_steps(used, quantity, [*bounds, None])]
    for n, (before, energy, _) in enumerate(accounts):
        reached = Fraction(before)
        assert sum(Fraction(part[n]) for part in parts) == Fraction(energy)
        for part, limit in zip(parts, [*limits[n], None], strict=True):
            assert part[n] >= 0
            reached += Fraction(part[n])
            assert limit is None or part[n] == 0 or reached <= limit


def test_energy_beyond_the_last_step_is_refused() -> None:
    with pytest.raises(ValueError, match="not open"):
        kernel.fill_steps(constant(Decimal(0), 2), column([Decimal(1), Decimal(11)]), [constant(Decimal(10), 2)])


@few
@given(
    st.lists(st.tuples(above_zero, st.lists(above_zero, min_size=3, max_size=3)), min_size=1, max_size=4),
    st.integers(0, 4),
)
def test_shares_sum_to_the_whole_and_are_near_their_proportion(
    accounts: list[tuple[Decimal, list[Decimal]]], places: int
) -> None:
    whole = column([energy for energy, _ in accounts])
    parts = [column([own[n] for _, own in accounts]) for n in range(3)]
    shares = [decimals(share) for share in kernel.share_out(whole, parts, places)]
    unit = Fraction(1, 10**places)
    for n, (energy, own) in enumerate(accounts):
        assert sum(Fraction(share[n]) for share in shares) == Fraction(energy)
        total = sum(map(Fraction, own))
        for share, part in zip(shares, own, strict=True):
            assert share[n] >= 0
            if total:
                assert abs(Fraction(share[n]) - Fraction(energy) * Fraction(part) / total) <= unit
                assert part or not share[n]


# -- intervals ---------------------------------------------------------------------------------------------------------

grids = st.integers(1, 3).flatmap(
    lambda accounts: st.integers(1, 40).flatmap(
        lambda count: st.tuples(
            st.lists(
                st.lists(st.integers(0, 10**7), min_size=count, max_size=count), min_size=accounts, max_size=accounts
            ),
            st.lists(st.integers(0, 2), min_size=count, max_size=count),
        )
    )
)


def arrays(units: list[list[int]], period: list[int]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    return np.array(units, dtype=np.int64), np.array(period, dtype=np.intp)


@few
@given(grids)
def test_sums_by_period_are_those_of_a_loop(grid: tuple[list[list[int]], list[int]]) -> None:
    units, period = grid
    expected = [[sum(u for u, p in zip(row, period, strict=True) if p == n) for n in range(3)] for row in units]
    assert kernel.period_sums(*arrays(units, period), 3).tolist() == expected


def test_no_intervals_sum_to_nothing() -> None:
    assert kernel.period_sums(*arrays([[], []], []), 2).tolist() == [[0, 0], [0, 0]]


@few
@given(grids, st.integers(1, 4), st.integers(0, 3))
def test_the_highest_block_is_that_of_a_loop(grid: tuple[list[list[int]], list[int]], size: int, hop: int) -> None:
    units, _ = grid
    if len(units[0]) < size:
        return
    at, top = kernel.highest_block(np.array(units, dtype=np.int64), size, hop)
    for n, row in enumerate(units):
        blocks = {first: sum(row[first : first + size]) for first in range(0, len(row) - size + 1, hop or size)}
        highest = max(blocks.values())
        assert top[n] == highest
        assert at[n] == min(first for first, energy in blocks.items() if energy == highest)


@few
@given(grids, st.integers(0, 10**8), st.lists(st.integers(0, 2 * 10**8), min_size=2, max_size=2))
def test_steps_that_fill_interval_by_interval_are_those_of_a_loop(
    grid: tuple[list[list[int]], list[int]], used: int, limits: list[int]
) -> None:
    units, period = grid
    bounds = sorted(limits)
    found: Any = kernel.chronological(
        *arrays(units, period), 3, np.full(len(units), used), np.array([bounds] * len(units), dtype=np.int64)
    )
    for n, row in enumerate(units):
        expected = [[0] * 3 for _ in range(3)]
        reached = used
        for energy, where in zip(row, period, strict=True):
            left = energy
            for step, limit in enumerate([*bounds, None]):
                part = left if limit is None else min(max(limit - reached, 0), left)
                expected[step][where] += part
                left, reached = left - part, reached + part
        assert found[n].tolist() == expected

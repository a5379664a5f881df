"""Steps and money as properties: steps cover the energy, a split period bills as the whole, rounding is symmetric."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.charges import Step
from billing.model import round_money
from billing.rating.rate import split_steps

kwh = st.integers(0, 10**9).map(lambda units: Decimal(units).scaleb(-4))
limits = st.lists(st.integers(1, 10**6), unique=True, max_size=5).map(sorted)
prices = st.integers(-(10**10), 10**10).map(lambda price: Decimal(price).scaleb(-8))


def steps_of(ups: list[int]) -> list[Step]:
    open_end: list[int | None] = [*ups, None]
    return [Step(None if up is None else Decimal(up), Decimal(1)) for up in open_end]


@given(limits, kwh, kwh)
def test_steps_cover_the_energy_exactly_and_in_their_own_range(ups: list[int], used: Decimal, energy: Decimal) -> None:
    parts = split_steps(steps_of(ups), used, energy)
    assert sum(part for _, _, part in parts) == energy
    reached = used
    for number, step, part in parts:
        assert part > 0
        below = Decimal(ups[number - 2]) if number > 1 else Decimal(0)
        assert below <= reached
        reached += part
        assert step.up_to is None or reached <= step.up_to
    assert [number for number, _, _ in parts] == sorted({number for number, _, _ in parts})


@given(limits, kwh, kwh, kwh)
def test_a_period_split_in_two_has_the_same_energy_per_step(
    ups: list[int], used: Decimal, first: Decimal, second: Decimal
) -> None:
    steps = steps_of(ups)
    whole: dict[int, Decimal] = {n: part for n, _, part in split_steps(steps, used, first + second)}
    halves: dict[int, Decimal] = {}
    for before, energy in ((used, first), (used + first, second)):
        for number, _, part in split_steps(steps, before, energy):
            halves[number] = halves.get(number, Decimal(0)) + part
    assert halves == whole


def test_a_limit_belongs_to_the_lower_step() -> None:
    steps = steps_of([2760, 4800])
    assert [(n, part) for n, _, part in split_steps(steps, Decimal(2560), Decimal(200))] == [(1, Decimal(200))]
    assert [(n, part) for n, _, part in split_steps(steps, Decimal(2760), Decimal("0.01"))] == [(2, Decimal("0.01"))]


def test_steps_that_do_not_end_open_refuse_energy_beyond_them() -> None:
    with pytest.raises(ValueError, match="not open"):
        split_steps([Step(Decimal(10), Decimal(1))], Decimal(0), Decimal(11))


@given(kwh, prices, st.sampled_from([0, 2, 3]))
def test_money_is_rounded_half_up_and_the_same_for_credits(quantity: Decimal, price: Decimal, digits: int) -> None:
    amount = round_money(quantity, price, digits)
    assert round_money(quantity, -price, digits) == -amount
    assert round_money(-quantity, price, digits) == -amount
    unit = Fraction(1, 10**digits)
    exact = Fraction(quantity) * Fraction(price)
    away = int(abs(exact) / unit + Fraction(1, 2)) * unit
    assert Fraction(amount) == (away if exact >= 0 else -away)


@pytest.mark.parametrize(
    ("quantity", "price", "amount"),
    [("-1", "481.875", "-481.88"), ("1", "481.875", "481.88"), ("1", "2.665", "2.67"), ("1", "1.005", "1.01")],
)
def test_halves_that_other_roundings_get_wrong(quantity: str, price: str, amount: str) -> None:
    assert round_money(Decimal(quantity), Decimal(price), 2) == Decimal(amount)


def test_a_product_is_exact_before_it_is_rounded() -> None:
    # ...89.624999999999: 28 digits, the usual precision, would make a half of it first and round that up.
    quantity, price = Decimal("92233720052269.9387"), Decimal("123456.12345677")
    assert round_money(quantity, price, 2) == Decimal("11386817529650200289.62")

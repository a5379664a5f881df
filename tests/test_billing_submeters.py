"""Energies shared out between a meter and the usage points behind it: order, rounding, sums that stay exact."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.gathering.submeters import Part, Shared, share_out

TOTAL, PEAK, FLAT, VALLEY = "import_kwh", "import_kwh_peak", "import_kwh_flat", "import_kwh_valley"


def energies(peak: str, flat: str, valley: str, **others: str) -> dict[str, Decimal]:
    found = {PEAK: Decimal(peak), FLAT: Decimal(flat), VALLEY: Decimal(valley)}
    return {TOTAL: sum(found.values(), Decimal(0)), **found, **{name: Decimal(v) for name, v in others.items()}}


def test_quantity_then_ratio_of_what_is_left_then_meters_behind() -> None:
    """1000 kWh: 200 are fixed; 25 % of the 800 left; 100 by a meter. 500 are left."""
    own = {TOTAL: Decimal(1000)}
    metered = Part("C", "metered", energies={TOTAL: Decimal(100)})
    for parts in (
        [Part("A", "quantity", Decimal(200)), Part("B", "ratio", Decimal(25)), metered],
        [metered, Part("B", "ratio", Decimal(25)), Part("A", "quantity", Decimal(200))],
    ):
        found = share_out(own, parts)
        taken = {part.point: amounts[TOTAL] for part, amounts in zip(parts, found.taken, strict=True)}
        assert taken == {"A": 200, "B": 200, "C": 100}
        assert found.rest == {TOTAL: 500}


def test_ratios_are_of_one_and_the_same_energy() -> None:
    found = share_out({TOTAL: Decimal(1000)}, [Part("A", "ratio", Decimal(40)), Part("B", "ratio", Decimal(40))])
    assert [amounts[TOTAL] for amounts in found.taken] == [400, 400]
    assert found.rest[TOTAL] == 200


def test_a_quantity_is_taken_from_the_periods_pro_rata_and_the_last_has_the_rest() -> None:
    """100 kWh of 333 + 334 + 333: 33.3 + 33.4 + 33.3; of thirds, the last one has the odd 0.0001."""
    found = share_out(energies("333", "334", "333"), [Part("A", "quantity", Decimal(100))])
    assert found.taken[0] == energies("33.3", "33.4", "33.3")
    found = share_out(energies("1", "1", "1"), [Part("A", "quantity", Decimal("1"))])
    assert found.taken[0] == energies("0.3333", "0.3334", "0.3333")
    assert found.rest == energies("0.6667", "0.6666", "0.6667")


def test_a_period_without_energy_gives_none() -> None:
    """Three shares of 0.0001 kWh, rounded one by one, would leave the last period with less than nothing."""
    found = share_out(energies("0.0001", "0.0001", "0"), [Part("A", "quantity", Decimal("0.0001"))])
    assert found.taken[0] == energies("0.0001", "0", "0")
    assert found.rest == energies("0", "0.0001", "0")


def test_what_is_not_active_energy_goes_down_by_meters_behind_only() -> None:
    own = energies("100", "0", "0", import_kvarh="80")
    behind = Part("C", "metered", energies=energies("10", "0", "0", import_kvarh="5"))
    found = share_out(own, [Part("A", "ratio", Decimal(50)), behind])
    assert found.rest == energies("40", "0", "0", import_kvarh="75")
    assert "import_kvarh" not in found.taken[0]
    plain = Part("D", "metered", energies=energies("10", "0", "0"))
    assert share_out(own, [plain]).rest["import_kvarh"] == 80


def test_ratios_of_a_hundred_percent_take_all_there_is() -> None:
    parts = [Part(name, "ratio", Decimal("33.3333")) for name in "ABC"] + [Part("D", "ratio", Decimal("0.0001"))]
    found = share_out(energies("0.0001", "7.7777", "0.0002"), parts)
    assert set(found.rest.values()) == {Decimal(0)}


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([Part("A", "quantity", Decimal(31))], "A takes 31.0000 off import_kwh of the meter before it, where 30.0000"),
        ([Part("A", "ratio", Decimal(60)), Part("B", "ratio", Decimal(41))], "that of B come to 101 percent"),
        ([Part("A", "metered", energies=energies("10", "10.01", "0"))], "A takes 10.0100 off import_kwh_flat"),
        ([Part("A", "metered", energies={TOTAL: Decimal(1)})], "A has no import_kwh_peak"),
        ([Part("A", "quantity", Decimal(-1))], "A takes -1.0000"),
        ([Part("A", "guess", Decimal(1))], "unknown method of A"),
    ],
)
def test_more_than_there_is_is_told(parts: list[Part], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        share_out(energies("10", "10", "10"), parts)


_UNITS = st.integers(0, 10**9)
_OWN = st.tuples(_UNITS, _UNITS, _UNITS)


def _of_units(units: tuple[int, int, int]) -> dict[str, Decimal]:
    return energies(*(str(Decimal(value).scaleb(-4)) for value in units))


@settings(max_examples=100, deadline=None)
@given(_OWN, st.lists(st.integers(0, 250_000), max_size=4), st.lists(st.integers(0, 10**6), max_size=3), _OWN)
def test_parts_and_rest_are_the_whole_in_every_period(
    units: tuple[int, int, int], ratios: list[int], cuts: list[int], behind: tuple[int, int, int]
) -> None:
    """Whatever is taken, nothing is lost, nothing made, nothing below zero, and the periods sum to the total."""
    own = _of_units(units)
    parts = [Part(f"R{n}", "ratio", Decimal(ratio).scaleb(-4)) for n, ratio in enumerate(ratios)]
    whole = sum(units)
    parts += [
        Part(f"Q{n}", "quantity", Decimal(whole * cut // 10**6 // len(cuts)).scaleb(-4)) for n, cut in enumerate(cuts)
    ]
    parts.append(Part("M", "metered", energies=_of_units(behind)))
    try:
        found = share_out(own, parts)
    except ValueError as error:
        assert "M takes" in str(error)  # noqa: PT017
        parts.pop()
        found = share_out(own, parts)
    _whole(own, found)


def _whole(own: Mapping[str, Decimal], found: Shared) -> None:
    for name, value in own.items():
        assert found.rest[name] + sum(amounts[name] for amounts in found.taken) == value
    for amounts in (found.rest, *found.taken):
        assert min(amounts.values()) >= 0
        assert amounts[TOTAL] == amounts[PEAK] + amounts[FLAT] + amounts[VALLEY]

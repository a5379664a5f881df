"""Losses of transformers and lines: the worked case, the formula against one in whole numbers, what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.gathering.losses import Loss, loss, transformer_loss
from billing.model import round_money
from headend.store.terms import SupplyRow
from tests import worked_ids

CASES = worked_ids.cases()

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
S630 = SupplyRow("U", SINCE, None, Decimal(630), Decimal("0.81"), Decimal("6.2"), Decimal("0.9"), Decimal("4.5"))


@pytest.mark.parametrize("id", worked_ids.LOSSES)
def test_the_worked_loss_is_met_to_the_kilowatt_hour_and_the_cent(id: str) -> None:
    given_, expected = CASES[id]["inputs"], CASES[id]["expected"]
    supply = replace(
        S630,
        rated_kva=Decimal(given_["sn_kva"]),
        no_load_kw=Decimal(given_["p0_kw"]),
        load_kw=Decimal(given_["pk_kw"]),
        load_factor=Decimal(given_["k"]),
    )
    energies = (Decimal(given_["active_kwh"]), Decimal(given_["reactive_kvarh"]), Decimal(given_["hours"]))
    exact, _ = transformer_loss(supply, *energies)
    assert round(exact, 4) == Fraction(expected["loss_kwh_unrounded"])
    (line,) = expected["lines"]
    found = loss(supply, *energies).active_kwh
    assert found == Decimal(line["qty"])
    assert round_money(found, Decimal(line["rate"]), 2) == Decimal(line["amount"]) == Decimal(expected["total"])


def test_reactive_loss_by_hand() -> None:
    """630 kVA, I0% 0.9, Uk% 4.5, 720 h: 5.67 kvar x 720 h = 4082.4; the load: 180000^2 + 87178^2 = 40000003684, times
    0.045 / (630 x 720) is 3968.25. Together 8050.65 kvarh."""
    _, exact = transformer_loss(S630, Decimal(180000), Decimal(87178), Decimal(720))
    assert 180000**2 + 87178**2 == 40000003684
    assert exact == Fraction("4082.4") + Fraction(40000003684 * 45, 630 * 720 * 1000)
    assert loss(S630, Decimal(180000), Decimal(87178), Decimal(720)).reactive_kvarh == 8051


def test_without_load_only_the_iron_loses() -> None:
    """0.81 kW in the 744 h of a month is 602.64 kWh; 5.67 kvar is 4218.48 kvarh."""
    assert loss(S630, Decimal(0), Decimal(0), Decimal(744)) == Loss(Decimal(603), Decimal(4218))


def test_a_half_kilowatt_hour_is_rounded_up() -> None:
    iron = replace(S630, no_load_kw=Decimal(1), load_kw=Decimal(0), no_load_percent=Decimal(0))
    hours = (Decimal("720.4999"), Decimal("720.5"), Decimal("721.4999"))
    assert [loss(iron, Decimal(0), Decimal(0), time).active_kwh for time in hours] == [720, 721, 721]


def test_a_share_of_the_transformer_and_a_line() -> None:
    """Half of 1451.0369 kWh is 726; 2 % of (180000 + 726) kWh is 3614.52, which is 3615: the line is before it."""
    half = replace(S630, share=Decimal("0.5"), line_percent=Decimal(2))
    found = loss(half, Decimal(180000), Decimal(87178), Decimal(720))
    assert found == Loss(Decimal(726 + 3615), Decimal(4025))  # half of 8050.65 kvarh; no share of the line
    line = SupplyRow("U", SINCE, None, Decimal(0), Decimal(0), Decimal(0), line_percent=Decimal("1.25"))
    assert loss(line, Decimal(1000), Decimal(400), Decimal(720)) == Loss(Decimal(13), Decimal(0))


def test_the_load_factor_weighs_the_load_only() -> None:
    plain, _ = transformer_loss(S630, Decimal(180000), Decimal(0), Decimal(720))
    doubled, _ = transformer_loss(replace(S630, load_factor=Decimal(2)), Decimal(180000), Decimal(0), Decimal(720))
    iron = Fraction("583.2")  # 0.81 kW x 720 h
    assert doubled - iron == 2 * (plain - iron) > 0


@pytest.mark.parametrize(
    ("active", "reactive", "hours", "told"),
    [("-1", "0", "720", "not below 0"), ("1", "-0.0001", "720", "not below 0"), ("1", "1", "0", "no time")],
)
def test_what_can_not_be_is_refused(active: str, reactive: str, hours: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        loss(S630, Decimal(active), Decimal(reactive), Decimal(hours))


_ENERGY = st.integers(0, 10**12).map(lambda units: Decimal(units).scaleb(-4))


@settings(max_examples=50, deadline=None)
@given(_ENERGY, _ENERGY, st.integers(1, 800))
def test_loss_grows_with_the_load_and_is_whole(active: Decimal, reactive: Decimal, hours: int) -> None:
    time = Decimal(hours)
    found, more = loss(S630, active, reactive, time), loss(S630, active + 1000, reactive + 1000, time)
    assert found.active_kwh == found.active_kwh.to_integral_value()
    assert found.active_kwh <= more.active_kwh
    assert found.reactive_kvarh <= more.reactive_kvarh
    exact, _ = transformer_loss(S630, active, reactive, time)
    assert abs(Fraction(found.active_kwh) - exact) <= Fraction(1, 2)

"""Power factor, funds, taxes, minimum and export: from the store to lines, and what holds for every amount."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.charges import (
    Charge,
    EnergyCharge,
    ExportCredit,
    FixedCharge,
    MinimumCharge,
    PowerFactorCharge,
    Surcharge,
    Tax,
)
from billing.model import Determinant
from billing.rating import rate
from billing.rating.power_factor import STANDARDS, adjustment_percent, power_factor
from headend.store import Store
from tests.billing_support import add_meter, connect, month, written
from tests.charges_support import (
    ENERGY,
    EXPORT,
    FACTOR,
    NET,
    PLACE,
    amounts,
    close,
    explained,
    kwh,
    made,
    metered,
    register,
    shown,
)

# -- power factor ------------------------------------------------------------------------------------------------------


@given(kwh, kwh)
def test_a_power_factor_is_rounded_half_up(active: Decimal, reactive: Decimal) -> None:
    factor = power_factor(active, reactive)
    if active == reactive == 0:
        assert factor is None
        return
    assert factor is not None
    squared = Fraction(active) ** 2
    share = squared / (squared + Fraction(reactive) ** 2)
    half, low = Fraction(1, 200), Fraction(factor) - Fraction(1, 200)
    assert max(low, Fraction(0)) ** 2 <= share < (low + 2 * half) ** 2


@given(st.sampled_from(STANDARDS), st.integers(0, 99))
def test_a_worse_power_factor_never_costs_less(standard: Decimal, hundredths: int) -> None:
    worse, better = Decimal(hundredths).scaleb(-2), Decimal(hundredths + 1).scaleb(-2)
    assert adjustment_percent(standard, worse) >= adjustment_percent(standard, better)
    assert adjustment_percent(standard, standard) == 0


def test_a_half_of_a_hundredth_counts_up_exactly() -> None:
    # 0.855 of an apparent energy of 1: the reactive part is sqrt(0.268975) = 0.51862...
    assert power_factor(Decimal("0.855"), Decimal("0.5186")) == Decimal("0.86")
    assert power_factor(Decimal("0.855"), Decimal("0.5187")) == Decimal("0.85")
    assert power_factor(Decimal(0), Decimal(5)) == 0


def test_an_adjustment_from_the_meters_registers(store: Store, tmp_path: Path) -> None:
    tariff = written(tmp_path, "t", PLACE + ENERGY + FACTOR)
    meter = metered(store, tariff, multiplier="100")
    (first, second) = close(store, tariff)
    assert [first.code, second.code] == ["register_absent", "register_absent"]
    remedy = "have import_kvarh read for that time as well, then close again"
    assert (first.what, first.remedy) == ("no import_kvarh register at 2026-06-01T00:00+08:00", remedy)
    register(store, meter, "import_kvarh", "999900", "978")  # passes its end
    assert close(store, tariff) == ()
    bill = shown(store)
    assert amounts(bill) == {"energy": "50000.00", "pf_adjust": "6000.00"}  # 1078 kvarh to 1000 kWh is 0.68: +12 %
    assert bill.total == Decimal("56000.00")


def test_both_directions_of_reactive_energy_may_be_added(store: Store, tmp_path: Path) -> None:
    tariff = written(tmp_path, "t", PLACE + ENERGY + FACTOR + 'reactive = ["import_kvarh", "export_kvarh"]\n')
    meter = metered(store, tariff)
    register(store, meter, "import_kvarh", "0", "400")
    register(store, meter, "export_kvarh", "0", "350")
    assert close(store, tariff) == ()
    bill = shown(store)
    assert amounts(bill) == {"energy": "500.00", "pf_adjust": "25.00"}  # 1000 / 750 kvarh: 0.80, +5 %
    told = explained(store)
    assert "power_factor = 0.8" in told
    assert "5 % of 500 = 25.00 EUR" in told
    assert "active / sqrt(active^2 + reactive^2), half-up to two places" in told
    assert "export_kvarh at 2026-07-01T00:00+08:00: 350.00 kvarh (daily freeze, valid)" in told
    assert not [text for text in told if text.startswith("checked against")]


def test_a_month_without_energy_has_no_adjustment(store: Store, tmp_path: Path) -> None:
    capacity = '[[charges]]\nkind = "capacity"\nunit = "kVA"\nprice = "25.5"\ncapacity_kva = "630"\n'
    tariff = written(tmp_path, "t", PLACE + capacity + FACTOR)
    meter = add_meter(store)
    connect(store, meter, tariff)
    register(store, meter, "import_kwh", "7", "7")
    register(store, meter, "import_kvarh", "7", "7")
    assert close(store, tariff) == ()
    assert amounts(shown(store)) == {"basic_capacity": "16065.00"}


# -- surcharges, minimum, taxes ----------------------------------------------------------------------------------------


def rated(*charges: Charge, energy: str = "1000", factor: str = "0.80") -> dict[str, str]:
    determinants = {
        "import_kwh": Determinant("import_kwh", Decimal(energy), "kWh"),
        "export_kwh": Determinant("export_kwh", Decimal(50), "kWh"),
        "power_factor": Determinant("power_factor", Decimal(factor), ""),
    }
    return {line.code: str(line.amount) for line in rate.lines(made(*charges), determinants, month(6))}


ALL = ("energy", "demand", "surcharge", "fixed", "export", "power_factor", "minimum")


def test_a_surcharge_inside_and_one_outside_the_adjustment() -> None:
    charges = (
        Tax("vat", Decimal(13), ALL),  # it may stand before what it is made on
        EnergyCharge(Decimal("0.5")),
        Surcharge("fund_water", Decimal("0.01"), adjusted=True),
        Surcharge("fund_renewable", Decimal("0.019")),
        FixedCharge("service", Decimal(5)),
        PowerFactorCharge(Decimal("0.90"), ("energy",)),
        Tax("town", Decimal(1), ("energy",)),
    )
    assert list(rated(*charges).items()) == [
        ("vat", "72.74"),  # 13 % of 500.00 + 10.00 + 19.00 + 5.00 + 25.50 = 559.50
        ("energy", "500.00"),
        ("fund_water", "10.00"),
        ("fund_renewable", "19.00"),
        ("service", "5.00"),
        ("pf_adjust", "25.50"),  # 5 % of 500.00 + 10.00
        ("town", "5.00"),
    ]


def test_a_minimum_tops_up_and_is_taxed() -> None:
    charges = (
        EnergyCharge(Decimal("0.5")),
        MinimumCharge(Decimal(30), ("energy",)),
        ExportCredit(Decimal("0.2")),
        Tax("vat", Decimal(10), ALL),
    )
    assert rated(*charges, energy="40") == {
        "energy": "20.00",
        "minimum": "10.00",
        "export_credit": "-10.00",
        "vat": "2.00",
    }
    assert "minimum" not in rated(*charges, energy="60")


def test_what_is_made_on_other_charges_is_kept_and_explained(store: Store, tmp_path: Path) -> None:
    fund = '[[charges]]\nkind = "surcharge"\nunit = "kWh"\ncode = "fund"\nprice = "0.019"\nadjusted = true\n'
    least = '[[charges]]\nkind = "minimum"\nunit = "month"\namount = "600"\n'
    tax = '[[charges]]\nkind = "tax"\nunit = "%"\ncode = "vat"\npercent = "13"\n'
    tariff = written(tmp_path, "t", PLACE + ENERGY + fund + FACTOR + least + tax)
    register(store, metered(store, tariff), "import_kvarh", "0", "750")
    assert close(store, tariff) == ()
    bill = shown(store)
    # 0.80 is +5 % of 519.00; 600.00 less 500.00 + 19.00 + 25.95; 13 % of 600.00
    expected = {"energy": "500.00", "fund": "19.00", "pf_adjust": "25.95", "minimum": "55.05", "vat": "78.00"}
    assert amounts(bill) == expected
    assert bill.total == Decimal("678.00")
    assert "13 % of 600 = 78.00 EUR" in explained(store)


@given(kwh, st.integers(0, 10**6).map(lambda minor: Decimal(minor).scaleb(-2)))
def test_a_minimum_is_what_a_month_comes_to_at_least(energy: Decimal, least: Decimal) -> None:
    found = rated(EnergyCharge(Decimal("0.5")), MinimumCharge(least, ("energy",)), energy=str(energy))
    assert sum(map(Decimal, found.values())) == max(Decimal(found["energy"]), least)


@given(kwh, kwh)
def test_a_surcharge_in_two_parts_differs_by_the_rounding_of_a_line_at_most(first: Decimal, second: Decimal) -> None:
    fund = Surcharge("fund", Decimal("0.019"))
    whole = Decimal(rated(fund, energy=str(first + second))["fund"])
    parts = sum(Decimal(rated(fund, energy=str(energy))["fund"]) for energy in (first, second))
    assert abs(whole - parts) <= Decimal("0.01")


# -- export ------------------------------------------------------------------------------------------------------------


def test_export_is_credited(store: Store, tmp_path: Path) -> None:
    tariff = written(tmp_path, "t", PLACE + ENERGY + EXPORT)
    meter = metered(store, tariff)
    assert {hold.what[:22] for hold in close(store, tariff)} == {"no export_kwh register"}
    register(store, meter, "export_kwh", "10", "210.5")
    assert close(store, tariff) == ()
    assert amounts(shown(store)) == {"energy": "500.00", "export_credit": "-40.10"}
    assert "200.5 kWh x -0.2 = -40.10 EUR" in explained(store)


@pytest.mark.parametrize(
    ("exported", "expected"),
    [
        ("400", {"energy": "300.00", "fund": "10.00"}),
        ("1000", {"energy": "0.00", "fund": "10.00"}),
        ("1250", {"energy": "0.00", "fund": "10.00", "export_credit": "-50.00"}),
    ],
)
def test_export_is_set_against_import(store: Store, tmp_path: Path, exported: str, expected: dict[str, str]) -> None:
    fund = '[[charges]]\nkind = "surcharge"\nunit = "kWh"\ncode = "fund"\nprice = "0.01"\n'
    tariff = written(tmp_path, "t", PLACE + ENERGY + fund + NET)
    meter = metered(store, tariff)
    register(store, meter, "export_kwh", "0", exported)
    assert close(store, tariff) == ()
    assert amounts(shown(store)) == expected
    told = explained(store)
    assert "import less export, 0 where more was exported" in told
    assert f"export_kwh = {exported} kWh" in told

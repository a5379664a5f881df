"""Back-billing: the worked cases X01 to X06, and what must hold between the ways to reckon."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from billing.back_billing import (
    WIRING,
    BackBilling,
    coefficient,
    meter_error,
    named_wiring,
    normal_month,
    wrong_multiplier,
    wrong_wiring,
)
from billing.model import round_money
from headend.errors import UsageError

D = Decimal
PER_CENT = Fraction(1, 100)


def wiring(recorded: int, name: str) -> BackBilling:
    return wrong_wiring(D(recorded), coefficient(named_wiring(name).factors), name)


CASES = {
    case["id"]: case
    for case in json.loads((Path(__file__).parent / "vectors" / "worked_bills.json").read_text(encoding="utf-8"))[
        "cases"
    ]
}


def worked(case: str) -> BackBilling:
    """What comes of the inputs of a worked case."""
    given = CASES[case]["inputs"]
    match case:
        case "X01":
            return meter_error(D(given["recorded_kwh_whole_span"]), D(given["error_pct"]))
        case "X02":
            return wrong_multiplier(D(given["billed_kwh"]), D(given["wrong"]), D(given["right"]))
        case "X03":
            return wiring(int(given["recorded_kwh"]), "ct_reversed")
        case "X04":
            return wiring(int(given["recorded_kwh"]), "phase_lost")
        case _:
            days = given["days_normal"], given["fault_days"]
            return normal_month(D(given["normal_month_kwh"]), *days, D(given["recorded_in_fault"]))


@pytest.mark.parametrize("case", ["X01", "X02", "X03", "X04", "X06"])
def test_worked_cases_to_the_cent(case: str) -> None:
    found, (line,) = worked(case), CASES[case]["expected"]["lines"]
    assert f"{found.kwh:f}" == line["qty"]
    assert str(round_money(found.kwh, D(CASES[case]["inputs"]["price"]), 2)) == line["amount"]


def test_coefficients() -> None:
    assert {name: coefficient(case.factors) for name, case in WIRING.items()} == {
        "ct_reversed": 3,
        "phase_lost": Fraction(3, 2),
        "two_lost": 3,
    }
    # X05: one current transformer of 400/5 in place of 300/5 registers 3/4 of its phase.
    assert coefficient([Fraction(1), Fraction(1), Fraction(3, 4)]) == Fraction(12, 11)


def test_errors_of_phases_as_published() -> None:
    """-40 % on one phase, +10 % on another: K = 1.111, and of 500 kWh 55.6 are missing."""
    k = coefficient([1 - 40 * PER_CENT, Fraction(1), 1 + 10 * PER_CENT])
    assert k == Fraction(10, 9)
    found = wrong_wiring(D(500), k)
    assert found.kwh == D("55.5556")
    assert round(found.kwh, 1) == D("55.6")


def test_a_fast_meter_gives_back() -> None:
    found = meter_error(D(2100), D(5), half=False)
    assert found.kwh == D(-100)
    assert found.steps[-1].what == "to give back"
    assert wrong_multiplier(D(4000), D(40), D(30)).kwh == D(-1000)


def test_the_calculation_is_told_step_by_step_and_kept() -> None:
    found = meter_error(D(19000), D(-5))
    assert [(step.what, step.value, step.unit) for step in found.steps] == [
        ("recorded", "19000", "kWh"),
        ("of half the time since the last check", "9500", "kWh"),
        ("error", "-5", "%"),
        ("true: recorded / (1 + error)", "10000", "kWh"),
        ("to bill", "500", "kWh"),
    ]
    kept = json.loads(json.dumps(found.basis()))
    assert (kept["cause"], kept["kwh"], len(kept["steps"])) == ("error", "500", 5)
    assert "art. 80 (1)" in kept["rule"]
    assert "half" not in meter_error(D(19000), D(-5), half=False).rule


def test_a_number_that_is_no_short_decimal_is_shown_as_a_fraction() -> None:
    assert wrong_wiring(D(500), Fraction(12, 11)).steps[1].value == "12/11 = 1.090909..."


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: meter_error(D(100), D(-100)), "-100 % is no error of a meter"),
        (lambda: meter_error(D(100), D(0)), "0 % is no error of a meter"),
        (lambda: meter_error(D("NaN"), D(1)), "NaN kWh is no recorded energy"),
        (lambda: meter_error(D(-1), D(1)), "-1 kWh is no recorded energy"),
        (lambda: meter_error(D(0), D(1)), "nothing comes of it"),
        (lambda: wrong_multiplier(D(100), D(40), D(40)), "multipliers 40 and 40"),
        (lambda: wrong_multiplier(D(100), D(0), D(40)), "multipliers 0 and 40"),
        (lambda: named_wiring("mirror"), "unknown wiring fault 'mirror' -> use one of ct_reversed, phase_lost"),
        (lambda: coefficient([Fraction(1), Fraction(-1), Fraction(0)]), "stood still or ran backwards"),
        (lambda: wrong_wiring(D(100), Fraction(1)), "K = 1 corrects nothing"),
        (lambda: normal_month(D(9000), 0, 3, D(1)), "days are counted from 1"),
    ],
)
def test_refusals(call: object, words: str) -> None:
    with pytest.raises(UsageError) as error:
        call()  # type: ignore[operator]
    assert words in str(error.value)


@settings(max_examples=50, deadline=None)
@given(recorded=st.integers(1, 10**7), percent=st.integers(-90, 200))
def test_an_error_of_all_phases_is_an_error_of_the_meter(recorded: int, percent: int) -> None:
    assume(percent)
    factor = 1 + percent * PER_CENT
    by_error = meter_error(D(recorded), D(percent), half=False)
    assert wrong_wiring(D(recorded), coefficient([factor] * 3)).kwh == by_error.kwh
    # True energy times the error is what was recorded.
    assert abs((recorded + by_error.kwh) * (100 + percent) / 100 - recorded) <= D("0.001")

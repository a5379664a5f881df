"""Late-payment penalties and what a payment pays: worked and published cases to the cent, and what always holds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.late import (
    OTHERS,
    RESIDENTIAL,
    AllocationPolicy,
    Arrears,
    LatePolicy,
    Paid,
    allocate,
    late_charge,
)

DUE = date(2026, 3, 10)


def owed(amount: str, due: date = DUE, bill: str = "B1", penalty: str = "0") -> Arrears:
    return Arrears(bill, due, Decimal(amount), Decimal(penalty))


@pytest.mark.parametrize(
    ("policy", "amount", "days", "total"),
    [
        (RESIDENTIAL, "200.00", 15, "3.00"),  # P01
        (RESIDENTIAL, "50.00", 10, "1.00"),  # P02: 0.50 is collected as 1.00
        (OTHERS, "12000.00", 20, "480.00"),  # P03
        (OTHERS, "900.00", 15, "27.00"),
        (replace(OTHERS, per_day=Decimal("0.003")), "900.00", 15, "40.50"),  # its published answer, 13.5, is wrong
    ],
)
def test_worked_cases_within_a_year(policy: LatePolicy, amount: str, days: int, total: str) -> None:
    found = late_charge(policy, [owed(amount)], DUE + timedelta(days=days))
    assert str(found.total) == total
    (span,) = found.spans
    assert (span.days, span.first, span.last) == (days, DUE + timedelta(days=1), DUE + timedelta(days=days))
    assert found.to_minimum == found.total - span.amount


ACROSS = [owed("2000.00", date(2021, 12, 15), "dec"), owed("3000.00", date(2022, 1, 15), "jan")]


def test_across_a_year_the_published_answers_need_a_policy() -> None:
    """P05 (split at 31 December) and P04 (all days at 3 per mille): the same facts, both published."""
    split = late_charge(OTHERS, ACROSS, date(2022, 1, 18))
    assert [(span.days, str(span.per_day), str(span.amount)) for span in split.spans] == [
        (16, "0.002", "64.00"),
        (18, "0.003", "108.00"),
        (3, "0.002", "18.00"),
    ]
    assert str(split.total) == "190.00"
    whole = late_charge(replace(OTHERS, cross_year="whole"), ACROSS, date(2022, 1, 18))
    assert [(span.days, str(span.amount)) for span in whole.spans] == [(34, "204.00"), (3, "18.00")]
    assert str(whole.total) == "222.00"


CASES = {
    case["id"]: case
    for case in json.loads((Path(__file__).parent / "vectors" / "worked_bills.json").read_text(encoding="utf-8"))[
        "cases"
    ]
}


@pytest.mark.parametrize("name", ["P01", "P02", "P03", "P05"])
def test_the_penalties_of_the_worked_cases(name: str) -> None:
    given = CASES[name]["inputs"]
    if "items" in given:
        items = [owed(item["amount"], date.fromisoformat(item["due"])) for item in given["items"]]
        found = late_charge(OTHERS, items, date.fromisoformat(given["paid"]))
    else:
        policy = RESIDENTIAL if given["kind"] == "residential" else OTHERS
        found = late_charge(policy, [owed(given["arrears"])], DUE + timedelta(days=given["days"]))
    assert str(found.total) == CASES[name]["expected"]["total"]


def test_the_payment_of_the_worked_case() -> None:
    given, expected = CASES["A01"]["inputs"], CASES["A01"]["expected"]
    items = [
        owed(item["principal"], date.fromisoformat(f"{item['bill']}-20"), item["bill"], item["penalty"])
        for item in reversed(given["arrears"])
    ]
    found = allocate(Decimal(given["payment"]), items)
    assert [str(part.amount) for part in found.paid] == [line["amount"] for line in expected["lines"]]
    assert sum(item.principal + item.penalty for item in found.owed) == Decimal(expected["left_arrears"])


def test_what_is_due_on_the_last_day_of_a_year_is_late_in_the_next() -> None:
    found = late_charge(OTHERS, [owed("1000.00", date(2025, 12, 31))], date(2026, 1, 2))
    assert [(span.days, str(span.per_day)) for span in found.spans] == [(2, "0.003")]


def test_in_time_costs_nothing_and_has_no_minimum() -> None:
    for items, paid in (([owed("50.00")], DUE), ([owed("-5.00")], DUE + timedelta(days=99)), ([], DUE)):
        assert late_charge(RESIDENTIAL, items, paid).total == 0


def test_the_minimum_is_of_all_that_is_collected() -> None:
    items = [owed("50.00", bill="a"), owed("60.00", bill="b")]
    found = late_charge(RESIDENTIAL, items, DUE + timedelta(days=10))
    assert (str(found.total), str(found.to_minimum)) == ("1.10", "0")
    assert (
        str(late_charge(replace(RESIDENTIAL, minimum=Decimal(0)), items[:1], DUE + timedelta(days=1)).total) == "0.05"
    )


@pytest.mark.parametrize("words", [{"cross_year": "half"}, {"per_day": Decimal("-0.001")}])
def test_policies_that_make_no_sense(words: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"cross_year is|not below zero"):
        replace(OTHERS, **words)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(
    cents=st.integers(1, 10**9),
    due=st.dates(date(2020, 1, 1), date(2028, 12, 31)),
    days=st.integers(0, 900),
    cross=st.sampled_from(["split", "whole"]),
)
def test_every_day_counts_once(cents: int, due: date, days: int, cross: str) -> None:
    policy = replace(OTHERS, cross_year=cross, minimum=Decimal(0))
    arrears = Decimal(cents).scaleb(-2)
    found = late_charge(policy, [owed(str(arrears), due)], due + timedelta(days=days))
    assert sum(span.days for span in found.spans) == days
    if days:
        assert found.spans[0].first == due + timedelta(days=1)
        assert found.spans[-1].last == due + timedelta(days=days)
    least, most = arrears * days * Decimal("0.002"), arrears * days * Decimal("0.003")
    assert least - Decimal("0.01") <= found.total <= most + Decimal("0.01")


# -- payments ----------------------------------------------------------------------------------------------------------

THREE = [
    owed("100.00", date(2026, 3, 20), "2026-03", "1.00"),  # given youngest first
    owed("150.00", date(2026, 2, 20), "2026-02", "3.00"),
    owed("120.00", date(2026, 1, 20), "2026-01", "6.00"),
]


def test_a_payment_pays_the_oldest_bill_first_and_of_each_the_penalty() -> None:
    """A01."""
    found = allocate(Decimal("300.00"), THREE)
    assert [(part.bill, part.kind, str(part.amount)) for part in found.paid] == [
        ("2026-01", "penalty", "6.00"),
        ("2026-01", "principal", "120.00"),
        ("2026-02", "penalty", "3.00"),
        ("2026-02", "principal", "150.00"),
        ("2026-03", "penalty", "1.00"),
        ("2026-03", "principal", "20.00"),
    ]
    assert found.left == 0
    assert found.owed == (owed("80.00", date(2026, 3, 20), "2026-03"),)


def test_other_orders_are_policies() -> None:
    kinds = allocate(Decimal("15.00"), THREE, AllocationPolicy(across="kind"))
    assert [(part.bill, part.kind) for part in kinds.paid] == [
        ("2026-01", "penalty"), ("2026-02", "penalty"), ("2026-03", "penalty"), ("2026-01", "principal"),
    ]  # fmt: skip
    principal = allocate(Decimal("121.00"), THREE, AllocationPolicy(within="principal"))
    assert principal.paid == (Paid("2026-01", "principal", Decimal(120)), Paid("2026-01", "penalty", Decimal(1)))
    for words in ({"within": "tax"}, {"across": "all"}):
        with pytest.raises(ValueError, match="is `"):
            AllocationPolicy(**words)
    with pytest.raises(ValueError, match="below zero"):
        allocate(Decimal(-1), THREE)


_CENTS = st.integers(0, 10**6).map(lambda cents: Decimal(cents).scaleb(-2))


@settings(max_examples=60, deadline=None)
@given(
    payment=_CENTS,
    items=st.lists(st.tuples(_CENTS, _CENTS, st.integers(0, 60)), max_size=6),
    within=st.sampled_from(["penalty", "principal"]),
    across=st.sampled_from(["bill", "kind"]),
)
def test_no_cent_is_lost(payment: Decimal, items: list[tuple[Decimal, Decimal, int]], within: str, across: str) -> None:
    arrears = [Arrears("B", DUE + timedelta(days=day), a, b) for a, b, day in items]  # all of one name, some equal
    found = allocate(payment, arrears, AllocationPolicy(within, across))
    total = sum((a + b for a, b, _ in items), Decimal(0))
    paid = sum((part.amount for part in found.paid), Decimal(0))
    assert paid + found.left == payment
    assert sum((item.principal + item.penalty for item in found.owed), Decimal(0)) == total - paid
    assert found.left == 0 or not found.owed

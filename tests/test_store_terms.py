"""Terms of accounts, transformers and lines, sub-meters: in, changed, refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.errors import ConfigError
from headend.store import Store
from headend.store.registry import AccountRow, UsagePointRow, account, accounts, put_accounts, put_usage_points
from headend.store.rows import Counts
from headend.store.terms import (
    AccountTerm,
    SubmeterRow,
    SupplyRow,
    circles,
    put_submeters,
    put_supplies,
    put_terms,
    submeters,
    supplies,
    terms,
)
from tests.helpers import DAY

LATER, LAST = DAY + timedelta(days=10), DAY + timedelta(days=20)
FIRST = AccountTerm("A1", DAY, contract_kw=Decimal("200.5"), capacity_kva=Decimal(315), people=5)
SECOND = AccountTerm("A1", LATER, tariff="industry", capacity_kva=Decimal(400))
SUPPLY = SupplyRow(
    "U1",
    DAY,
    None,
    Decimal(630),
    Decimal("0.81"),
    Decimal("6.2"),
    Decimal("0.9"),
    Decimal("4.5"),
    Decimal("1.05"),
    Decimal("0.3333"),
    Decimal("2.5"),
)
METERED = SubmeterRow("U2", "U1", DAY, None, "metered")
FIXED = SubmeterRow("U3", "U1", DAY, None, "quantity", Decimal("120.5"))


@pytest.fixture
def place(store: Store) -> Store:
    """A store with usage points U1 to U4 and accounts A1, A2."""
    with store.write() as conn:
        put_usage_points(conn, [UsagePointRow(f"U{number}") for number in range(1, 5)])
        put_accounts(conn, [AccountRow(f"A{number}", f"U{number}", "Wang", "t", DAY) for number in (1, 2)])
    return store


def test_the_billing_cycle_of_an_account_is_kept_and_changed(place: Store) -> None:
    with place.write() as conn:
        assert [row.cycle for row in accounts(conn)] == ["", ""]
        (first, second) = accounts(conn)
        assert put_accounts(conn, [replace(first, cycle="north"), second]) == Counts(changed=1, same=1)
        assert account(conn, "A1") == replace(first, cycle="north")


def test_terms_come_back_by_account_and_start(place: Store) -> None:
    other = AccountTerm("A2", DAY, people=2)
    with place.write() as conn:
        assert put_terms(conn, [SECOND, other, FIRST]) == Counts(added=3)
        assert put_terms(conn, [FIRST, replace(SECOND, tariff=None), other]) == Counts(changed=1, same=2)
    with place.read() as conn:
        assert terms(conn) == [FIRST, replace(SECOND, tariff=None), other]
        assert terms(conn, "A1") == [FIRST, replace(SECOND, tariff=None)]
        assert terms(conn, "A3") == []


def test_terms_that_mean_nothing_are_refused_all_at_once(place: Store) -> None:
    wrong = [
        replace(FIRST, account="A9"),
        AccountTerm("A1", DAY),
        replace(SECOND, contract_kw=Decimal(0), people=-1),
        SECOND,
    ]
    with place.write() as conn, pytest.raises(ConfigError) as refused:
        put_terms(conn, wrong)
    told = [problem.what for problem in refused.value.problems]
    assert told == [
        "listed twice",
        "unknown account A9",
        "nothing changes by it",
        "contract_kw 0 is not above 0",
        "people -1 is not above 0",
    ]
    with place.read() as conn:
        assert terms(conn) == []


def test_a_supply_comes_back_with_every_number(place: Store) -> None:
    line = SupplyRow("U2", DAY, LATER, Decimal(0), Decimal(0), Decimal(0), line_percent=Decimal(3))
    with place.write() as conn:
        assert put_supplies(conn, [SUPPLY, line]) == Counts(added=2)
        assert put_supplies(conn, [replace(SUPPLY, until=LATER), line]) == Counts(changed=1, same=1)
        assert put_supplies(conn, [replace(SUPPLY, since=LATER, rated_kva=Decimal(800))]) == Counts(added=1)
    with place.read() as conn:
        larger = replace(SUPPLY, since=LATER, rated_kva=Decimal(800))
        assert supplies(conn) == [replace(SUPPLY, until=LATER), larger, line]
        assert supplies(conn, "U2") == [line]


def test_supplies_that_mean_nothing_are_refused(place: Store) -> None:
    wrong = [
        replace(SUPPLY, usage_point="U9", until=DAY),
        replace(SUPPLY, rated_kva=Decimal(0)),
        replace(SUPPLY, usage_point="U2", load_factor=Decimal(0), share=Decimal("1.01"), line_percent=Decimal(100)),
        replace(SUPPLY, usage_point="U3", load_kw=Decimal(-1)),
    ]
    with place.write() as conn, pytest.raises(ConfigError) as refused:
        put_supplies(conn, wrong)
    text = str(refused.value)
    assert "unknown usage point U9" in text
    assert "before it begins" in text
    for field in ("no_load_kw 0.81", "load_kw 6.2", "no_load_percent 0.9", "impedance_percent 4.5"):
        assert f"{field} of no transformer" in text
    assert "load_factor 0 leaves out" in text
    assert "share 1.01 is above 1" in text
    assert "line_percent 100 is not below 100" in text
    assert "load_kw -1 is below 0" in text
    with place.write() as conn:
        put_supplies(conn, [SUPPLY])
    with place.write() as conn, pytest.raises(ConfigError, match=r"supply of U1 since .*: it has another one then"):
        put_supplies(conn, [replace(SUPPLY, since=LATER)])
    with place.read() as conn:
        assert supplies(conn) == [SUPPLY]


def test_submeters_come_back_by_parent(place: Store) -> None:
    ratio = SubmeterRow("U4", "U2", DAY, LATER, "ratio", Decimal("33.3333"))
    with place.write() as conn:
        assert put_submeters(conn, [ratio, FIXED, METERED]) == Counts(added=3)
        assert put_submeters(conn, [ratio, replace(FIXED, amount=Decimal(130)), METERED]) == Counts(changed=1, same=2)
    with place.read() as conn:
        assert submeters(conn) == [METERED, replace(FIXED, amount=Decimal(130)), ratio]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (replace(METERED, amount=Decimal(1)), "an amount of 1 beside the method metered"),
        (replace(METERED, method="guess"), "unknown method 'guess'"),
        (replace(FIXED, amount=Decimal(0)), "a quantity of 0 kWh"),
        (SubmeterRow("U2", "U1", DAY, None, "ratio", Decimal("100.0001")), "a ratio of 100.0001 percent"),
        (replace(METERED, parent="U9"), "unknown usage point U9"),
        (replace(METERED, parent="U2"), "a circle: U2 behind U2"),
    ],
)
def test_submeters_that_mean_nothing_are_refused(place: Store, row: SubmeterRow, told: str) -> None:
    with place.write() as conn, pytest.raises(ConfigError, match=told):
        put_submeters(conn, [row])
    with place.read() as conn:
        assert submeters(conn) == []


def test_a_point_has_one_parent_at_a_time_and_none_in_a_circle(place: Store) -> None:
    with place.write() as conn:
        put_submeters(conn, [METERED, SubmeterRow("U3", "U2", DAY, LATER, "metered")])
    with place.write() as conn, pytest.raises(ConfigError, match=r"sub-meter U2 since .*: it has another parent then"):
        put_submeters(conn, [replace(METERED, parent="U4", since=LATER)])
    with place.write() as conn, pytest.raises(ConfigError, match="a circle: U1 behind U3 behind U2 behind U1"):
        put_submeters(conn, [SubmeterRow("U1", "U3", DAY, LATER, "metered")])
    with place.write() as conn:  # U3 is no longer behind U2 by then
        assert put_submeters(conn, [SubmeterRow("U1", "U3", LATER, None, "metered")]) == Counts(added=1)


_POINTS = st.sampled_from("ABCD")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_POINTS, _POINTS, st.integers(0, 5), st.integers(1, 6)), max_size=6))
def test_circles_are_found_exactly(edges: list[tuple[str, str, int, int]]) -> None:
    """Among points of one parent at a time: a circle is told exactly if on some day one stands behind itself."""

    def at(day: int) -> datetime:
        return DAY + timedelta(days=day)

    rows: list[SubmeterRow] = []
    for point, parent, start, end in edges:
        free = all(r.usage_point != point or r.since >= at(end) or (r.until or LAST) <= at(start) for r in rows)
        if start < end and free:
            rows.append(SubmeterRow(point, parent, at(start), at(end), "metered"))
    expected = False
    for day in range(6):
        parent_of = {r.usage_point: r.parent for r in rows if r.since <= at(day) < (r.until or LAST)}
        for point in parent_of:
            above = point
            for _ in range(len(parent_of)):
                above = parent_of.get(above, "")
                expected |= above == point
    found = circles(rows)
    assert bool(found) == expected
    assert all(path[0] == path[-1] == row.usage_point for row, path in found)

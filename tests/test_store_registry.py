"""Meters, usage points, installations, accounts: in, changed, refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from headend.errors import ConfigError
from headend.store import Store
from headend.store.registry import (
    AccountRow,
    Counts,
    InstallationRow,
    MeterRow,
    UsagePointRow,
    account,
    accounts,
    installations,
    meter,
    meters,
    put_accounts,
    put_installations,
    put_meters,
    put_usage_points,
    usage_points,
)
from tests.helpers import DAY

A = MeterRow("A", "dlt645-2007", "000000000001", "bus-1", "single", "+08:00", Decimal(1_000_000), 900)
B = replace(A, id="B", address="000000000002", curve_step_s=0, register_wrap=Decimal("999999.9999"))


def test_meters_come_back_with_their_keys(store: Store) -> None:
    with store.write() as conn:
        assert put_meters(conn, [B, A]) == Counts(added=2)
    with store.read() as conn:
        found = meters(conn)
        assert [replace(row, key=0) for row in found] == [A, B]
        assert len({row.key for row in found} | {0}) == 3
        assert meter(conn, "B") == found[1]
        assert meter(conn, "C") is None


def test_put_again_changes_only_what_differs_and_keeps_the_key(store: Store) -> None:
    with store.write() as conn:
        put_meters(conn, [A, B])
        key = next(row.key for row in meters(conn) if row.id == "A")
        assert put_meters(conn, [replace(A, line="bus-2"), B]) == Counts(changed=1, same=1)
        found = meter(conn, "A")
    assert found == replace(A, line="bus-2", key=key)


def test_two_meters_can_swap_addresses(store: Store) -> None:
    swapped = [replace(A, address=B.address), replace(B, address=A.address)]
    with store.write() as conn:
        put_meters(conn, [A, B])
        assert put_meters(conn, swapped) == Counts(changed=2)
        assert {row.id: row.address for row in meters(conn)} == {"A": B.address, "B": A.address}


def test_a_meter_can_take_the_address_another_gives_up(store: Store) -> None:
    with store.write() as conn:
        put_meters(conn, [A, B])
        counts = put_meters(conn, [replace(A, address=B.address), replace(B, address="000000000009")])
        assert counts == Counts(changed=2)


def test_two_meters_at_one_address_are_refused(store: Store) -> None:
    with store.write() as conn, pytest.raises(ConfigError) as refused:
        put_meters(conn, [A, replace(B, address=A.address), replace(A, id="C"), A])
    text = str(refused.value)
    assert text.count("already belongs to meter A") == 2
    assert "meter A: listed twice" in text
    with store.write() as conn:
        put_meters(conn, [A])
    with store.write() as conn, pytest.raises(ConfigError, match="meter B: address 000000000001 on line bus-1"):
        put_meters(conn, [replace(B, address=A.address)])


def _town(store: Store) -> None:
    with store.write() as conn:
        put_meters(conn, [A, B])
        put_usage_points(conn, [UsagePointRow("UP1", "district-7"), UsagePointRow("UP2")])


def test_usage_points(store: Store) -> None:
    _town(store)
    with store.write() as conn:
        assert put_usage_points(conn, [UsagePointRow("UP2", "d"), UsagePointRow("UP3")]) == Counts(1, 1, 0)
        assert [(row.id, row.district) for row in usage_points(conn)] == [
            ("UP1", "district-7"),
            ("UP2", "d"),
            ("UP3", ""),
        ]


def test_a_meter_exchange(store: Store) -> None:
    _town(store)
    noon = DAY + timedelta(hours=12)
    old = InstallationRow("UP1", "A", DAY, multiplier=Decimal("30.5"))
    with store.write() as conn:
        assert put_installations(conn, [old]) == Counts(added=1)
        after = [replace(old, until=noon), InstallationRow("UP1", "B", noon), InstallationRow("UP2", "A", noon)]
        assert put_installations(conn, after) == Counts(added=2, changed=1)
        assert put_installations(conn, after) == Counts(same=3)
        found = installations(conn, "UP1")
        keys = {row.id: row.key for row in meters(conn)}
        assert [(row.meter, row.since, row.until, row.multiplier, row.meter_key) for row in found] == [
            ("A", DAY, noon, Decimal("30.5"), keys["A"]),
            ("B", noon, None, Decimal(1), keys["B"]),
        ]
        assert len(installations(conn)) == 3


def test_installations_tell_every_problem(store: Store) -> None:
    _town(store)
    bad = [
        InstallationRow("UP9", "A", DAY),
        InstallationRow("UP1", "Z", DAY),
        InstallationRow("UP1", "B", DAY, until=DAY),
        InstallationRow("UP2", "B", DAY, multiplier=Decimal(0)),
    ]
    with pytest.raises(ConfigError) as refused, store.write() as conn:
        put_installations(conn, bad)
    assert len(refused.value.problems) == 4
    for words in ("unknown usage point UP9", "unknown meter Z", "before it begins", "not above 0"):
        assert words in str(refused.value)


def test_a_meter_cannot_stand_in_two_places_at_once(store: Store) -> None:
    _town(store)
    with pytest.raises(ConfigError, match="the meter stands at UP1 then"), store.write() as conn:
        put_installations(conn, [InstallationRow("UP1", "A", DAY), InstallationRow("UP2", "A", DAY + timedelta(1))])
    with store.read() as conn:
        assert installations(conn) == []


def test_accounts(store: Store) -> None:
    _town(store)
    plain = AccountRow("C1", "UP1", "Li", "residential", DAY)
    with store.write() as conn:
        used = replace(plain, step_used=Decimal("1203.45"), step_used_at=DAY, until=DAY + timedelta(days=30))
        assert put_accounts(conn, [plain, AccountRow("C0", "UP2", "Wu", "industry", DAY)]) == Counts(added=2)
        assert put_accounts(conn, [used]) == Counts(changed=1)
        found = account(conn, "C1")
        assert found is not None
        assert replace(found, key=0) == used
        assert [row.id for row in accounts(conn)] == ["C0", "C1"]
        assert account(conn, "C9") is None
    with store.write() as conn, pytest.raises(ConfigError) as refused:
        put_accounts(conn, [replace(plain, usage_point="UP9"), replace(plain, id="C2", step_used=Decimal(1))])
    assert [problem.where for problem in refused.value.problems] == ["account C1", "account C2"]

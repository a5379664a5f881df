"""Bills made again: identical as they were, and every difference named where something changed since."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from billing import recompute
from billing.charges import EnergyCharge
from billing.run import close_period
from config.tariff_files import tariff_from_text
from headend.errors import UsageError
from headend.model import ReadKind
from headend.store import Store, registry
from tests.billing_support import NOW, feed, freeze, local, shipped, written
from tests.corrections_kit import (
    FLAT,
    LATER,
    D,
    adjust,
    again,
    bill,
    close,
    correct,
    customer,
    edit,
    written_rows,
)


def test_a_bill_comes_out_identical_whatever_came_later(store: Store) -> None:
    meter = customer(store, "0", "100", "200")
    close(store, FLAT, 6)
    assert again(store) == []
    before = written_rows(store)
    outcome = edit(store, meter, 7, "90")
    assert again(store) == []  # as of the bill, the edit was not there
    as_of_now = again(store, as_of=outcome)
    assert [line.split(" ")[0] for line in as_of_now] == ["determinant", "register", "line", "total:"]
    assert as_of_now[0] == "determinant import_kwh: 100 kWh -> 90 kWh"
    assert as_of_now[3] == "total: 64.25 CNY -> 57.83 CNY"
    with store.read() as conn:
        assert [str(d) for d in recompute.recompute_now(conn, "A1-2026-06", [FLAT]).differences] == as_of_now
        assert recompute.outcome_at(conn, datetime(2020, 1, 1, tzinfo=UTC)) == 0
        assert recompute.outcome_at(conn, LATER) == outcome
    assert written_rows(store) == before


def test_what_changed_in_the_registry_is_named(sqlite_store: Store) -> None:
    store = sqlite_store
    meter = customer(store, "0", "100")
    close(store, FLAT, 6)
    since = datetime(2025, 1, 1, tzinfo=UTC)
    with store.write() as conn:
        registry.put_installations(conn, [registry.InstallationRow("U-A1", meter.id, since, None, D(2))])
    found = again(store)
    assert "multiplier import_kwh, M-A1 import_kwh: 1 -> 2" in found
    assert "total: 64.25 CNY -> 128.50 CNY" in found
    with store.write() as conn:
        registry.put_installations(conn, [registry.InstallationRow("U-A1", meter.id, since, None, D(1))])
        row = registry.AccountRow("A1", "U-A1", "C1", "other", since)
        registry.put_accounts(conn, [row])
    assert again(store) == ["tariff of account A1: example-flat -> other"]


def test_a_changed_tariff_shows_only_against_today(sqlite_store: Store) -> None:
    store = sqlite_store
    customer(store, "0", "100")
    close(store, FLAT, 6)
    dearer = replace(FLAT, version="2", sha="00" * 32, charges=(EnergyCharge(D("0.7")),))
    assert again(store) == []
    with store.read() as conn:
        found = [str(d) for d in recompute.recompute_now(conn, "A1-2026-06", [dearer]).differences]
        nothing = recompute.recompute_now(conn, "A1-2026-06", [])
    assert found[0] == f"tariff: example-flat version {FLAT.version} -> example-flat version 2"
    assert found[-1] == "total: 64.25 CNY -> 70.00 CNY"
    assert [d.item for d in nothing.differences if d.item == "held"] == ["held"]
    assert nothing.now.total is None


def test_a_period_of_two_versions_comes_out_identical(sqlite_store: Store, tmp_path: Path) -> None:
    """The texts of both are kept with the bill, and cut it where they did."""
    store = sqlite_store
    charge = 'zone = "Asia/Shanghai"\n[[charges]]\nkind = "energy"\nunit = "kWh"\nprice = '
    old, new = (written(tmp_path, "dear", f'{charge}"{price}"\n') for price in ("0.5", "0.8"))
    text = old.text.replace("valid_from = 2020-01-01", "valid_from = 2020-01-01\nvalid_to = 2026-06-16")
    first = tariff_from_text(text)
    text = new.text.replace("valid_from = 2020-01-01", "valid_from = 2026-06-16").replace(
        'version = "1"', 'version = "2"'
    )
    second = tariff_from_text(text)
    meter = customer(store, "0", "100", tariff=first)
    middle = [freeze(local("2026-06-16"), "40")]
    feed(store, meter, ReadKind.DAILY_FREEZE, middle)
    close_period(store, [first, second], 2026, 6, now=NOW)
    made = bill(store, "A1-2026-06")
    assert made.total == 20 + 48
    assert [sha for _, sha in made.segments] == [first.sha, second.sha]
    assert again(store) == []
    with store.read() as conn:  # as if the second had been forgotten
        found = [
            str(d) for d in recompute.recompute_now(conn, "A1-2026-06", [replace(first, valid_to=None)]).differences
        ]
    assert "tariff: dear version 2 -> dear version 1" in found
    assert found[-1] == "total: 68.00 EUR -> 50.00 EUR"


def test_a_stored_text_that_is_another_now_is_named(sqlite_store: Store) -> None:
    customer(sqlite_store, "0", "100")
    close(sqlite_store, FLAT, 6)
    with sqlite_store.read() as conn:
        found = recompute.recompute(conn, "A1-2026-06", lambda _text: replace(FLAT, sha="ab" * 32)).differences
    assert [str(d) for d in found] == [
        f"tariff text of example-flat version {FLAT.version}: {FLAT.sha[:12]} -> {'ab' * 6}"
    ]


def test_a_bill_that_took_an_adjustment_on_comes_out_identical(sqlite_store: Store) -> None:
    store = sqlite_store
    customer(store, "0", "100", "200")
    close(store, FLAT, 6)
    with store.write() as conn:
        adjust(conn, "A1-2026-06", amount=D(7))
    close(store, FLAT, 7)
    assert bill(store, "A1-2026-07").total == D("71.25")
    assert again(store, "A1-2026-07") == []
    with store.read() as conn, pytest.raises(UsageError, match="unknown bill 'X'"):
        recompute.recompute(conn, "X", tariff_from_text)


def test_a_bill_before_it_that_was_corrected_is_named(sqlite_store: Store) -> None:
    """The energy used before is that of the bills that stand today."""
    beijing = shipped("cn-beijing-residential-step")
    meter = customer(sqlite_store, "0", "1000", "2000", tariff=beijing, used="2000")
    close(sqlite_store, beijing, 6, 7)
    assert again(sqlite_store, "A1-2026-07") == []
    edit(sqlite_store, meter, 7, "900")
    correct(sqlite_store, "A1-2026-06", beijing)
    assert again(sqlite_store, "A1-2026-07") == [
        "determinant import_kwh: 1000 kWh (used before 3000) -> 1000 kWh (used before 2900)",
        "used before import_kwh: A1-2026-06 1000 up to 2026-07-01 00:00 -> A1-2026-06.1 900 up to 2026-07-01 00:00",
    ]

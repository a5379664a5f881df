"""Billing by the calendar: when a month is due, what is made up after a standstill, and the daemon that does it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import store as bills
from billing.charges import EnergyCharge, Tariff
from billing.cycles import Cycle, due, groups_of, next_due, run_due, unknown_groups
from billing.review import Rules
from billing.run_log import Run, complete_run, last_runs, open_run, runs
from config.site import load_site
from headend.app import Daemon
from headend.errors import ConfigError
from headend.model import ReadKind
from headend.store import Store, open_store, registry
from tests.billing_support import SHANGHAI, add_meter, connect, feed, freeze, local, month, shipped

FLAT = replace(shipped("example-flat"), charges=(EnergyCharge(Decimal("0.5")),))
TOWN = Cycle("town", 2, time(3, 0))


def ran(cycle: str, year: int, month: int, at: datetime, *, held: int = 0, ended: bool = True, detail: str = "") -> Run:
    return Run(1, cycle, year, month, "schedule", at, at if ended else None, 5, held, 0, detail)


def asked(now: str, *past: Run, cycle: Cycle = TOWN) -> tuple[int, int] | None:
    return due(cycle, {(run.cycle, run.year, run.month): run for run in past}, local(now), SHANGHAI)


def test_a_month_is_due_on_its_day_and_hour_by_the_sites_clock() -> None:
    september = ran("town", 2026, 9, local("2026-10-02T03:00"))
    assert asked("2026-11-02T02:59", september) is None
    assert asked("2026-11-02T03:00", september) == (2026, 10)
    assert asked("2026-11-02T03:00") == (2026, 10)  # the first month of a new site, and none before
    assert asked("2026-11-01T12:00") == (2026, 9)
    assert asked("2027-01-02T03:00", ran("town", 2026, 11, local("2026-12-02T03:00"))) == (2026, 12)
    assert next_due(TOWN, local("2026-11-02T02:59"), SHANGHAI) == local("2026-11-02T03:00")
    assert next_due(TOWN, local("2026-11-02T03:00"), SHANGHAI) == local("2026-12-02T03:00")
    assert next_due(TOWN, local("2026-12-31T23:00"), SHANGHAI) == local("2027-01-02T03:00")


def test_months_missed_in_a_standstill_are_made_up_oldest_first() -> None:
    july, august = (ran("town", 2026, n, local(f"2026-0{n + 1}-02T03:00")) for n in (7, 8))
    assert asked("2026-11-20T00:00", july) == (2026, 8)
    assert asked("2026-11-20T00:00", july, august) == (2026, 9)
    assert asked("2026-11-20T00:00", july, august, ran("other", 2026, 9, local("2026-10-02T03:00"))) == (2026, 9)
    assert asked("2028-11-20T00:00", july) == (2027, 11)  # of two years only the last


def test_a_run_that_was_killed_or_refused_is_done_again() -> None:
    at = local("2026-11-02T03:00")
    assert asked("2026-11-02T03:01", ran("town", 2026, 10, at, ended=False)) == (2026, 10)
    refused = ran("town", 2026, 10, at, detail="refused: x")
    assert asked("2026-11-02T03:59", refused) is None
    assert asked("2026-11-02T04:00", refused) == (2026, 10)


def test_held_bills_are_tried_again_until_the_next_month() -> None:
    at = local("2026-11-02T03:00")
    october, done = ran("town", 2026, 10, at, held=3), ran("town", 2026, 10, at)
    assert asked("2026-11-03T02:59", october) is None
    assert asked("2026-11-03T03:00", october) == (2026, 10)
    assert asked("2026-11-03T03:00", done) is None
    assert asked("2026-11-03T03:00", october, cycle=replace(TOWN, retry_hours=0)) is None
    november = ran("town", 2026, 11, local("2026-12-02T03:00"))
    assert asked("2026-12-03T03:00", october, november) is None


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 28), st.integers(1_700_000_000, 1_900_000_000), st.integers(0, 5))
def test_whatever_the_day_every_month_is_closed_once(day: int, moment_s: int, missed: int) -> None:
    """Followed for years from any instant, with standstills, each month comes up exactly once and in order."""
    cycle = replace(TOWN, day=day)
    now, past, closed = datetime.fromtimestamp(moment_s, UTC), dict[tuple[str, int, int], Run](), list[int]()
    for _ in range(12):
        while (wanted := due(cycle, past, now, SHANGHAI)) is not None:
            closed.append(wanted[0] * 12 + wanted[1])
            past["town", *wanted] = ran("town", *wanted, now)
        now = next_due(cycle, now, SHANGHAI) + timedelta(days=31 * missed)
    assert closed == list(range(closed[0], closed[0] + len(closed)))
    assert len(closed) >= 12


def account(store: Store, name: str, group: str) -> None:
    meter = add_meter(store, f"M-{name}")
    connect(store, meter, FLAT, account=name)
    with store.write() as conn:
        row = registry.account(conn, name)
        assert row is not None
        registry.put_accounts(conn, [replace(row, cycle=group)])
    rows = [freeze(month(number).start, str(100 * number)) for number in (8, 9, 10)]
    feed(store, meter, ReadKind.DAILY_FREEZE, rows)


def test_due_months_are_closed_for_the_accounts_of_their_cycle(store: Store) -> None:
    """A1 is in no cycle and goes with the first, A2 in the second, A3 in one that the site does not have."""
    for name, group in (("A1", ""), ("A2", "mill"), ("A3", "lost")):
        account(store, name, group)
    mill = Cycle("mill", 5)
    cycles = (TOWN, mill)
    assert (groups_of(cycles, TOWN), groups_of(cycles, mill)) == (("town", ""), ("mill",))
    loads: list[int] = []

    def tariffs() -> list[Tariff]:
        loads.append(1)
        return [FLAT]

    def run(now: str) -> list[tuple[str, int, tuple[str, ...]]]:
        clock = lambda: local(now)  # noqa: E731
        made = run_due(store, cycles, tariffs, Rules(), clock=clock, site_zone=SHANGHAI)
        return [(what.cycle.name, what.month, report.issued) for what, report in made]

    with store.write() as conn:
        for name in ("town", "mill"):
            key = open_run(conn, name, 2026, 7, "schedule", local("2026-08-02T03:00"))
            complete_run(conn, key, local("2026-08-02T03:00"), (0, 0, 0))
    assert run("2026-09-02T02:00") == []
    assert not loads
    assert run("2026-09-02T03:00") == [("town", 8, ("A1-2026-08",))]
    assert run("2026-10-06T00:00") == [
        ("town", 9, ("A1-2026-09",)),
        ("mill", 8, ("A2-2026-08",)),
        ("mill", 9, ("A2-2026-09",)),
    ]
    assert run("2026-10-06T00:00") == []
    with store.read() as conn:
        assert unknown_groups(conn, cycles) == ["lost"]
        assert bills.bill(conn, "A3-2026-08") is None
        found = runs(conn)
        assert [(one.cycle, one.month, one.asked_by, one.issued) for one in found[:2]] == [
            ("mill", 9, "schedule", 1),
            ("mill", 8, "schedule", 1),
        ]
        assert set(last_runs(conn, ["mill"])) == {("mill", 2026, 7), ("mill", 2026, 8), ("mill", 2026, 9)}


def test_a_run_can_be_told_to_stop(sqlite_store: Store) -> None:
    account(sqlite_store, "A1", "")
    asks = iter([False, True])  # before the run, and after its first batch
    made = run_due(
        sqlite_store,
        (TOWN,),
        lambda: [FLAT],
        Rules(),
        clock=lambda: local("2026-10-02T03:00"),
        site_zone=SHANGHAI,
        stopping=lambda: next(asks),
    )
    assert made == []
    with sqlite_store.read() as conn:
        (run,) = runs(conn)
        found = bills.bill(conn, "A1-2026-09")
    assert (run.issued, run.detail) == (1, "stopped: the head-end was stopped")
    assert found is not None
    assert found.state == "issued"  # what was written stays


SITE = """
[site]
name = "town"

[[line]]
name = "L1"
endpoint = "tcp://127.0.0.1:9"

[[billing.cycle]]
name = "town"
day = 2
time = "03:00"

[billing.review]
least_kwh = "500"
change_hold_percent = 80
"""


def test_the_daemon_closes_what_is_due(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(SITE)
    site = load_site(path)
    assert site.billing.cycles == (TOWN,)
    assert site.billing.rules == Rules(least_kwh=Decimal(500), change_hold_percent=80)
    store = open_store(site.store_url)
    account(store, "A1", "")
    with store.write() as conn:
        model = registry.meter(conn, "M-A1")
        assert model is not None
        moved = replace(model, model="dlt645-2007-basic", protocol="dlt645-2007")
        registry.put_meters(conn, [moved])
    store.close()

    async def main() -> None:
        daemon = Daemon(site, clock=lambda: local("2026-10-02T03:00"))
        await daemon.start()
        try:
            for _ in range(1000):
                with daemon.store.read() as conn:
                    if any(run.ended_at for run in runs(conn)):
                        break
                await asyncio.sleep(0.01)
        finally:
            await daemon.stop()

    asyncio.run(main())
    store = open_store(site.store_url)
    with store.read() as conn:
        found = bills.bill(conn, "A1-2026-09")
        (run,) = runs(conn)
    store.close()
    assert found is not None
    assert (found.state, found.total, run.cycle, run.issued) == ("issued", Decimal("64.25"), "town", 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[billing.cycle]]\nday = 2", "billing.cycle[1].name: the key 'name' is missing"),
        (
            '[[billing.cycle]]\nname = "a"\nday = 31',
            "billing.cycle[1].day: 31 is out of range -> use a number of at most 28",
        ),
        (
            '[[billing.cycle]]\nname = "a"\ntime = "3 am"',
            'billing.cycle[1].time: "3 am" is no time of day -> write time = "03:00"',
        ),
        ('[billing]\ncycle = "a"', 'billing.cycle: "a" stands where repeated tables are wanted'),
        ("[billing]\nreviews = 1", 'billing: unknown key "reviews" -> did you mean review?'),
        ("billing = 1", "billing: 1 is no table"),
        (
            '[billing.review]\nzero_use = "never"',
            'billing.review.zero_use: "never" is not known here -> use off, warn or hold',
        ),
        (
            "[billing.review]\nchange_hold_percent = 20",
            "change_hold_percent 20 lies below change_warn_percent 30 -> a bill is held from more on than what warns",
        ),
        (
            '[[billing.cycle]]\nname = "a"\n[[billing.cycle]]\nname = "a"',
            'billing.cycle[2].name: the name "a" is taken by billing.cycle[1]',
        ),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "site.toml"
    path.write_text(
        f'{text}\n[site]\nname = "town"\n' if text.startswith("billing") else f'[site]\nname = "town"\n{text}\n'
    )
    with pytest.raises(ConfigError) as refused:
        load_site(path)
    assert message in str(refused.value)

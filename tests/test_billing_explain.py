"""From a line of a bill back to the bytes that came over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from billing.explain import Node, explain
from billing.run import close_period
from headend.errors import UsageError
from headend.model import ReadKind
from headend.store import Store
from tests.billing_support import NOW, add_meter, connect, feed, feed_month, freeze, household, month, points, shipped

SHIFT = Decimal("0.30")


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from walk(child)


def find(node: Node, start: str) -> Node:
    """The first node below whose title starts so."""
    return next(found for found in walk(node) if found.title.startswith(start))


def test_a_flat_bill_shows_its_arithmetic_down_to_the_frames(store: Store) -> None:
    tariff = shipped("example-flat")
    meter = add_meter(store)
    connect(store, meter, tariff)
    sent = bytes.fromhex("FEFEFEFE6801000000000068110433343435A916")
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "1100.12")], sent)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).end, "1234.56")], b"\x68end")
    close_period(store, [tariff], 2026, 6, now=NOW)
    with store.read() as conn:
        tree = explain(conn, "A1-2026-06")
    assert tree.title == "bill A1-2026-06: 86.38 CNY"
    (line,) = tree.children
    assert line.title == "energy: 86.38 CNY"
    assert line.detail == ("energy", "134.44 kWh x 0.6425 = 86.38 CNY")
    (determinant,) = line.children
    assert determinant.title == "import_kwh = 134.44 kWh"
    (register,) = determinant.children
    assert register.title == "meter M1: 1234.56 - 1100.12 = 134.44 kWh x 1"
    first, last = register.children
    assert first.title == "import_kwh at 2026-06-01T00:00+08:00: 1100.12 kWh (daily freeze, valid)"
    assert last.title == "import_kwh at 2026-07-01T00:00+08:00: 1234.56 kWh (daily freeze, valid)"
    (outcome,) = first.children
    assert outcome.title == "outcome 1: daily_freeze, ok, 2026-06-01T00:05+08:00"
    assert outcome.protocol == "dlt645"
    assert [(frame.direction, frame.data) for frame in outcome.frames] == [(">", sent), ("<", sent[::-1])]


def test_a_rollover_shows_in_the_arithmetic(store: Store) -> None:
    tariff = shipped("example-flat")
    meter = add_meter(store)
    connect(store, meter, tariff, multiplier="40")
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "999950.40"), freeze(month(6).end, "35.10")])
    close_period(store, [tariff], 2026, 6, now=NOW)
    with store.read() as conn:
        register = find(explain(conn, "A1-2026-06"), "meter M1")
    assert register.title == "meter M1: 35.10 - 999950.40 + 1000000 (rollover) = 84.70 kWh x 40"
    assert register.detail == ("= 3388 kWh",)


def test_a_day_opens_to_its_intervals_and_their_frames(store: Store) -> None:
    tariff = shipped("cn-zhejiang-residential-tou-step")
    meter = add_meter(store)
    connect(store, meter, tariff, step_used=("2700", month(6).start))
    energies = feed_month(store, meter, month(6))
    close_period(store, [tariff], 2026, 6, now=NOW)
    with store.read() as conn:
        closed = explain(conn, "A1-2026-06")
        opened = explain(conn, "A1-2026-06", date(2026, 6, 3))
    valley = find(closed, "import_kwh_valley")
    assert valley.detail == ("intervals: 1200 valid",)
    (part,) = valley.children
    days = [energies[96 * day : 96 * day + 96] for day in range(30)]
    of_day = [sum(day[:32]) + sum(day[88:]) for day in days]
    assert [node.title.split(", from")[0] for node in part.children] == [
        f"2026-06-{day + 1:02d}: 40 intervals, {kwh:.2f} kWh, 40 valid" for day, kwh in enumerate(of_day)
    ]
    assert sum(of_day) == Decimal(valley.title.split()[2])
    assert not any(node.children for node in part.children)
    third = find(find(opened, "import_kwh_valley"), "2026-06-03")
    assert third.detail == ("first 2026-06-03T00:00+08:00, last 2026-06-03T23:45+08:00",)
    points, outcomes = third.children[:40], third.children[40:]
    assert points[0].title.startswith(f"2026-06-03T00:00+08:00: {energies[192]:.2f} kWh (valid, outcome ")
    assert points[32].title.startswith(f"2026-06-03T22:00+08:00: {energies[280]:.2f} kWh (valid, outcome ")
    assert {frame.data for outcome in outcomes for frame in outcome.frames} == {b"\x68curve", b"\x68curve"[::-1]}
    used = find(closed, "used before in the step year: 2700 kWh")
    assert used.detail == ("declared on the account at 2026-06-01T00:00+08:00: 2700 kWh",)


def test_values_that_changed_since_are_told(store: Store) -> None:
    tariff = shipped("example-commercial-tou")
    meter = add_meter(store, step_s=3600)
    connect(store, meter, tariff)
    window = month(6)
    rows = points(window.start, 3600, "100", household(720))
    feed(store, meter, ReadKind.CURVE, rows)
    close_period(store, [tariff], 2026, 6, now=NOW)
    with store.read() as conn:
        before = explain(conn, "A1-2026-06")
    assert not [text for node in walk(before) for text in node.detail if "changed since" in text]

    # 1 June, 01:00 and the end of the month, both read again later: 0.30 kWh move within the valley, 5 kWh are new.
    new = [replace(rows[n], value=rows[n].value + more, taken_at=NOW) for n, more in ((1, SHIFT), (720, Decimal(5)))]
    number = feed(store, meter, ReadKind.CURVE, new)
    with store.read() as conn:
        after = explain(conn, "A1-2026-06")
    assert (after.title, [line.title for line in after.children]) == (
        before.title,
        [line.title for line in before.children],
    )
    valley = find(after, "import_kwh_valley").children[0]
    billed = Decimal(valley.title.split(" = ")[1].split()[0])
    assert valley.detail[1] == (
        f"changed since the bill was issued (after outcome 1): the intervals now sum to {billed + 5:.2f} kWh"
    )
    assert len(find(after, "import_kwh_peak").children[0].detail) == 1
    assert number == 2


def test_a_register_that_changed_since_is_told(store: Store) -> None:
    tariff = shipped("example-flat")
    meter = add_meter(store)
    connect(store, meter, tariff)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).start, "100"), freeze(month(6).end, "200")])
    close_period(store, [tariff], 2026, 6, now=NOW)
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(month(6).end, "205", taken_at=NOW)])
    with store.read() as conn:
        register = find(explain(conn, "A1-2026-06"), "meter M1")
    first, last = register.children
    assert register.title == "meter M1: 200.00 - 100.00 = 100.00 kWh x 1"
    assert first.detail == ()
    assert last.detail == ("changed since the bill was issued: the store now holds 205.00 kWh from outcome 2",)


def test_energy_used_before_names_its_bills(store: Store) -> None:
    tariff = shipped("cn-zhejiang-residential-step")
    meter = add_meter(store)
    connect(store, meter, tariff)
    ends = [(month(n).start, value) for n, value in ((1, "0"), (2, "2700"), (3, "2800"))]
    feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(at, value) for at, value in ends])
    for number in (1, 2):
        close_period(store, [tariff], 2026, number, now=NOW)
    with store.read() as conn:
        tree = explain(conn, "A1-2026-02")
    assert [line.title for line in tree.children] == ["energy_step1: 32.28 CNY", "energy_step2: 23.52 CNY"]
    assert find(tree, "used before in the step year: 2700 kWh").detail == ("bill A1-2026-01: 2700 kWh",)


def test_a_held_bill_says_why(store: Store) -> None:
    tariff = shipped("example-flat")
    connect(store, add_meter(store), tariff)
    close_period(store, [tariff], 2026, 6, now=NOW)
    with store.read() as conn:
        tree = explain(conn, "A1-2026-06")
    assert tree.title == "bill A1-2026-06: held"
    (evaluation,) = tree.children
    assert evaluation.title == "held 2027-01-15T11:00+08:00"
    assert [text.split(" -> ")[0] for text in evaluation.detail] == [
        "M1: no import_kwh register at 2026-06-01T00:00+08:00",
        "M1: no import_kwh register at 2026-07-01T00:00+08:00",
    ]


def test_what_is_not_there_can_not_be_explained(sqlite_store: Store) -> None:
    tariff = shipped("example-flat")
    connect(sqlite_store, add_meter(sqlite_store), tariff)
    close_period(sqlite_store, [tariff], 2026, 6, now=NOW)
    with sqlite_store.read() as conn:
        with pytest.raises(UsageError) as unknown:
            explain(conn, "A1-2026-07")
        assert str(unknown.value) == "unknown bill 'A1-2026-07' -> did you mean A1-2026-06?"
        with pytest.raises(UsageError) as outside:
            explain(conn, "A1-2026-06", date(2026, 7, 1))
        assert str(outside.value) == (
            "2026-07-01 is not in the period of bill A1-2026-06 -> choose a day from 2026-06-01 to 2026-06-30"
        )

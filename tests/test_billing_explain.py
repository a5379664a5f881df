"""From a line of a bill back to the bytes that came over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from billing import adjustments
from billing.explain import Node, explain
from billing.release import release
from billing.run import close_period
from headend.errors import UsageError
from headend.model import ReadKind
from headend.store import Store, registry
from headend.store.terms import SubmeterRow, SupplyRow, put_submeters, put_supplies
from tests.billing_support import (
    NOW,
    SHANGHAI,
    add_meter,
    connect,
    feed,
    feed_month,
    freeze,
    household,
    local,
    month,
    points,
    shipped,
    written,
)

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
    lines = ["energy_step1: 32.28 CNY", "energy_step2: 23.52 CNY"]
    assert [line.title for line in tree.children] == [*lines, "found: use_change"]
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


# -- parts, losses, what a person did ----------------------------------------------------------------------------------


def test_a_month_in_two_parts_tells_each(store: Store) -> None:
    """A new version on 16 June: each line leads to its part's registers, the whole to its parts."""
    old = shipped("example-commercial-tou")
    change = local("2026-06-16T00:00")
    new = replace(old, version="2", valid_from=date(2026, 6, 16), sha="2" * 64)
    meter = add_meter(store, step_s=3600)
    connect(store, meter, old)
    feed(store, meter, ReadKind.CURVE, points(month(6).start, 3600, "100", household(720)))
    assert close_period(store, [replace(old, valid_to=date(2026, 6, 16)), new], 2026, 6, now=NOW).issued
    with store.read() as conn:
        tree = explain(conn, "A1-2026-06")
    assert tree.detail[3:5] == (
        f"part from 2026-06-01: tariff file {old.sha}",
        f"part from 2026-06-16: tariff file {'2' * 64}",
    )
    valley = find(tree, "import_kwh_valley@2026-06-16")
    assert valley.detail[0] == "part from 2026-06-16"
    (part,) = valley.children
    assert [node.title.split(":")[0] for node in part.children] == [f"2026-06-{day}" for day in range(16, 31)]
    whole = find(tree, "checked against import_kwh =")
    assert [node.title.split(" = ")[0] for node in whole.children] == [
        "import_kwh@2026-06-01",
        "import_kwh@2026-06-16",
    ]
    assert whole.detail[0].endswith(f"= {whole.title.split(' = ')[1].removesuffix(' kWh')}")
    (register,) = whole.children[1].children
    assert register.children[0].title.startswith(f"import_kwh at {change + timedelta(hours=8):%Y-%m-%d}T00:00+08:00")
    assert not [text for node in walk(tree) for text in node.detail if "changed since" in text]


def test_losses_and_points_behind_the_meter_are_terms_of_its_sum(sqlite_store: Store) -> None:
    tariff = shipped("example-flat")
    meter = add_meter(sqlite_store, step_s=0)
    connect(sqlite_store, meter, tariff)
    for quantity, value in (("import_kwh", "1000"), ("import_kvarh", "300")):
        ends = [freeze(at, n, quantity=quantity) for at, n in ((month(6).start, "0"), (month(6).end, value))]
        feed(sqlite_store, meter, ReadKind.DAILY_FREEZE, ends)
    since = local("2025-01-01T00:00")
    supply = SupplyRow("U-A1", since, None, Decimal(0), Decimal(0), Decimal(0), line_percent=Decimal(5))
    with sqlite_store.write() as conn:
        registry.put_usage_points(conn, [registry.UsagePointRow("U2")])
        put_supplies(conn, [supply])
        put_submeters(conn, [SubmeterRow("U2", "U-A1", since, None, "quantity", Decimal(120))])
    assert close_period(sqlite_store, [tariff], 2026, 6, now=NOW).issued
    with sqlite_store.read() as conn:
        total = find(explain(conn, "A1-2026-06"), "import_kwh = 930 kWh")
    assert total.detail[0] == "1000 - 120 + 50 = 930"
    assert [node.title for node in total.children[1:]] == ["submeter U2: -120 kWh", "loss_kwh = 50 kWh"]
    assert [node.title for node in total.children[2].children] == ["transformer: 50 kWh"]


def test_a_release_and_an_adjustment_tell_who_and_why(sqlite_store: Store, tmp_path: Path) -> None:
    """Net metering carries energy on; that nothing tells what was carried here is let pass by a person."""
    charges = '[[charges]]\nkind = "energy"\nunit = "kWh"\nprice = "0.5"\n'
    charges += '[[charges]]\nkind = "net_metering"\nunit = "kWh"\nprice = "0.4"\ncarry = true\n'
    tariff = written(tmp_path, "t", f'zone = "{SHANGHAI}"\n{charges}')
    meter = add_meter(sqlite_store, step_s=0)
    connect(sqlite_store, meter, tariff)
    for quantity, rise in (("import_kwh", 40), ("export_kwh", 100)):
        ends = [(month(n).start, Decimal(n * rise)) for n in (6, 7, 8)]
        feed(sqlite_store, meter, ReadKind.DAILY_FREEZE, [freeze(at, n, quantity=quantity) for at, n in ends])
    ((number, (hold,)),) = close_period(sqlite_store, [tariff], 2026, 6, now=NOW).held
    assert (hold.code, hold.review) == ("carried_unknown", True)
    with sqlite_store.write() as conn:
        release(conn, number, "the first month with us", "Li", NOW)
    assert close_period(sqlite_store, [tariff], 2026, 6, now=NOW).issued == (number,)
    with sqlite_store.write() as conn:
        made = adjustments.make(
            conn,
            number,
            reason="the meter ran slow",
            made_by="Wang",
            now=NOW,
            amount=Decimal("1.20"),
            basis={"by": "test"},
        )
    assert close_period(sqlite_store, [tariff], 2026, 7, now=NOW).issued == ("A1-2026-07",)
    with sqlite_store.read() as conn:
        june, july = explain(conn, number), explain(conn, "A1-2026-07")
    assert find(june, "found: carried_unknown")
    assert find(june, "released 2027-01-15T11:00+08:00 by Li").detail == (
        "for carried_unknown: the first month with us",
        "carried_unknown (no bill that ends at 2026-06-01T00:00+08:00 tells what energy was carried on)",
    )
    kept = find(july, "checked against carried_on_kwh = 120 kWh")
    assert find(kept, "surplus_kwh = 120 kWh").detail == ("export less import, 0 where more was imported",)
    assert find(kept, "carried_kwh = 60 kWh").children[0].title == f"bill {number}: 60 kWh"
    told = find(july, f"adjustment {made.adjustment.number} for bill {number}")
    assert told.detail == ("made 2027-01-15T11:00+08:00 by Wang: the meter ran slow", "by: test")

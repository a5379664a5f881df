"""Reading for many meters at once gives what reading one by one gives, on data with all that can be wrong with it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import func, select, update

from headend.errors import StoreError
from headend.model import Meter, Quality, Reading, ReadKind, Source, Window
from headend.store import Store, readings, registry, schema
from headend.store.columns import Intervals, Place, installed_at, interval_matrix, registers_at, settlements_at
from headend.store.readings import RegisterValue
from headend.store.registry import MeterRow
from tests.billing_support import WRAP, add_meter, feed, freeze, local, points

WRAP_UNITS = int(WRAP) * 10_000
DAYS = Window(datetime(2026, 6, 1, 16, tzinfo=UTC), datetime(2026, 6, 4, 16, tzinfo=UTC))
QUANTITY = "import_interval_kwh"
QUALITIES = (Quality.VALID, Quality.VALID, Quality.VALID, Quality.ESTIMATED, Quality.EDITED, Quality.SUSPECT)


def scrambled(chance: random.Random, start: datetime, step_s: int, count: int) -> list[Reading]:
    """A register's curve from near its end on, with gaps and values of every quality."""
    energies = [Decimal(chance.randint(0, 900)).scaleb(-2) for _ in range(count)]
    rows = points(start, step_s, WRAP - 300, energies)
    kept = [row for row in rows if chance.random() > 0.15]
    return [replace(row, quality=chance.choice(QUALITIES)) for row in kept]


def town(store: Store, seed: int) -> list[Meter]:
    """Meters with quarter and full hours, in zones of which one is off the hour; one that delivers intervals."""
    chance = random.Random(seed)
    zones = ("Asia/Shanghai", "Asia/Kolkata", "UTC", "Asia/Kathmandu")
    meters = [add_meter(store, f"M{n}", clock_zone=zones[n % 4]) for n in range(8)]
    for number, meter in enumerate(meters[:7]):
        begin = DAYS.start + timedelta(minutes=7 if number == 5 else 0)
        rows = scrambled(chance, begin, 900, 300)
        feed(store, meter, ReadKind.CURVE, rows[: len(rows) // 2])
        feed(store, meter, ReadKind.CURVE, rows[len(rows) // 2 :])
        feed(store, meter, ReadKind.CURVE, scrambled(chance, DAYS.start, 3600, 70))
        for source in (Source.DAILY_FREEZE, Source.CURRENT, Source.SETTLEMENT):
            at = DAYS.start + timedelta(days=chance.randint(0, 2))
            value = freeze(at, "77.70", source=source, quality=chance.choice(QUALITIES))
            feed(store, meter, ReadKind.SETTLEMENT, [value])
    own = [
        Reading(QUANTITY, Decimal(n).scaleb(-2), DAYS.start + timedelta(minutes=15 * n), DAYS.end, Source.CURVE, 900)
        for n in range(200)
        if n % 7
    ]
    feed(store, meters[3], ReadKind.CURVE, own)
    return meters


def rows_of(store: Store) -> list[MeterRow]:
    with store.read() as conn:
        return registry.meters(conn)


def corrected(store: Store, meters: list[Meter], seed: int) -> int:
    """Late reads and edits of values that are there, and values that come late; the highest outcome id before them."""
    with store.read() as conn:
        before = conn.scalar(select(func.max(schema.outcome.c.id)))
    chance = random.Random(seed + 1)
    for meter in meters:
        for quality in (Quality.VALID, Quality.EDITED):
            rows = scrambled(chance, DAYS.start, 900, 300)
            late = [
                replace(row, quality=quality, taken_at=DAYS.end + timedelta(days=9)) for row in chance.sample(rows, 60)
            ]
            feed(store, meter, ReadKind.CURVE, sorted(late, key=lambda row: row.at))
        value = freeze(DAYS.start, "99.90", taken_at=DAYS.end, quality=Quality.EDITED)
        feed(store, meter, ReadKind.DAILY_FREEZE, [value])
    return int(before or 0)


def one_by_one(store: Store, meter: MeterRow, window: Window, step_s: int) -> dict[datetime, tuple[int, Quality]]:
    """Of an interval that is there its units and quality, by its start."""
    with store.read() as conn:
        rows = readings.intervals(conn, meter.key, QUANTITY, window, step_s=step_s, wrap_units=WRAP_UNITS)
    return {row.start: (row.units, row.quality) for row in rows if row.units is not None}


def by_start(found: Intervals, row: int, window: Window, step_s: int) -> dict[datetime, tuple[int, Quality]]:
    return {
        window.start + n * timedelta(seconds=step_s): (int(found.units[row, n]), Quality(int(quality)))
        for n, quality in enumerate(found.quality[row])
        if quality
    }


def on_grid(values: dict[datetime, tuple[int, Quality]], window: Window, step_s: int) -> Iterator[datetime]:
    return (at for at in values if (at - window.start) % timedelta(seconds=step_s) == timedelta())


@pytest.mark.parametrize("step_s", [900, 3600])
@pytest.mark.parametrize("seed", range(3))
def test_a_matrix_holds_the_intervals_of_each_meter(sqlite_store: Store, seed: int, step_s: int) -> None:
    town(sqlite_store, seed)
    rows = rows_of(sqlite_store)
    shifted = Window(DAYS.start + timedelta(hours=5), DAYS.end + timedelta(hours=20, minutes=10))
    qualities = set[Quality]()
    for window in (DAYS, shifted):
        with sqlite_store.read() as conn:
            found = interval_matrix(conn, rows, QUANTITY, window, step_s)
        for number, meter in enumerate(rows):
            expected = one_by_one(sqlite_store, meter, window, step_s)
            expected = {at: expected[at] for at in on_grid(expected, window, step_s)}
            assert by_start(found, number, window, step_s) == expected
            qualities |= {quality for _, quality in expected.values()}
        assert not found.units[found.quality == 0].any()
        assert found.own.tolist() == [step_s == 900 and meter.id == "M3" for meter in rows]
    assert qualities == {Quality.VALID, Quality.ESTIMATED, Quality.EDITED, Quality.SUSPECT}


def test_both_databases_give_the_same(store: Store) -> None:
    town(store, 7)
    rows = rows_of(store)
    with store.read() as conn:
        found = interval_matrix(conn, rows, QUANTITY, DAYS, 900)
        registers = registers_at(conn, {(row.key, DAYS.start) for row in rows}, "import_kwh")
    assert by_start(found, 2, DAYS, 900) == one_by_one(store, rows[2], DAYS, 900)
    assert registers == one_register_at_a_time(store, [(row.key, DAYS.start) for row in rows])


def one_register_at_a_time(store: Store, places: list[Place]) -> dict[Place, RegisterValue]:
    with store.read() as conn:
        found = {(key, at): readings.register_at(conn, key, "import_kwh", at) for key, at in places}
    return {place: value for place, value in found.items() if value is not None}


@pytest.mark.parametrize("seed", range(3))
def test_registers_are_those_of_each_meter_and_instant(sqlite_store: Store, seed: int) -> None:
    town(sqlite_store, seed)
    instants = [DAYS.start + timedelta(hours=h, minutes=m) for h in (0, 3, 24, 48, 70) for m in (0, 7, 15)]
    places = [(row.key, at) for row in rows_of(sqlite_store) for at in instants]
    with sqlite_store.read() as conn:
        many = registers_at(conn, places, "import_kwh")
        few = registers_at(conn, {(key, at) for key, at in places if at == instants[0]}, "import_kwh")
        assert registers_at(conn, places, "export_kwh") == {}
    expected = one_register_at_a_time(sqlite_store, places)
    assert many == expected
    assert few == {place: value for place, value in expected.items() if place[1] == instants[0]}
    assert {value.source for value in expected.values()} >= {Source.CURVE, Source.DAILY_FREEZE}


@pytest.mark.parametrize("seed", range(3))
def test_the_store_can_be_read_as_it_stood(sqlite_store: Store, seed: int) -> None:
    meters = town(sqlite_store, seed)
    rows = rows_of(sqlite_store)
    places = [(row.key, DAYS.start + timedelta(minutes=15 * n)) for row in rows for n in range(0, 290, 13)]
    with sqlite_store.read() as conn:
        before = interval_matrix(conn, rows, QUANTITY, DAYS, 900)
        registers = registers_at(conn, places, "import_kwh")
    as_of = corrected(sqlite_store, meters, seed)
    with sqlite_store.read() as conn:
        now = interval_matrix(conn, rows, QUANTITY, DAYS, 900)
        then = interval_matrix(conn, rows, QUANTITY, DAYS, 900, as_of=as_of)
        assert (now.units != before.units).sum() > 100
        assert (then.units == before.units).all()
        assert (then.quality == before.quality).all()
        assert (then.own == before.own).all()
        assert registers_at(conn, places, "import_kwh") != registers
        assert registers_at(conn, places, "import_kwh", as_of=as_of) == registers


def test_settlements_are_told_with_both_ends(sqlite_store: Store) -> None:
    first, second = add_meter(sqlite_store, "M1"), add_meter(sqlite_store, "M2")
    ends = [local("2026-06-01T00:00"), local("2026-06-20T00:00"), local("2026-07-01T00:00")]
    kept = [
        Reading("import_max_kw", Decimal(n), at, at + timedelta(hours=1), Source.SETTLEMENT)
        for n, at in enumerate(ends)
    ]
    for reading in kept:
        feed(sqlite_store, first, ReadKind.SETTLEMENT, [reading])
    feed(sqlite_store, second, ReadKind.SETTLEMENT, [kept[1], replace(kept[2], source=Source.CURRENT)])
    later = replace(kept[1], value=Decimal(8), quality=Quality.EDITED, taken_at=ends[2])
    number = feed(sqlite_store, first, ReadKind.SETTLEMENT, [later])
    keys, window = [first.key, second.key], Window(ends[0], ends[2])
    with sqlite_store.read() as conn:
        now = settlements_at(conn, keys, "import_max_kw", window)
        then = settlements_at(conn, keys, "import_max_kw", window, as_of=number - 1)
    assert [value.units for value in now[first.key]] == [0, 80_000, 20_000]
    assert [value.units for value in then[first.key]] == [0, 10_000, 20_000]
    assert [value.at for value in now[second.key]] == [ends[1]]


def test_a_damaged_block_is_named(sqlite_store: Store) -> None:
    meter = add_meter(sqlite_store)
    feed(sqlite_store, meter, ReadKind.CURVE, points(DAYS.start, 900, "1", [Decimal(1)] * 40))
    with sqlite_store.write() as conn:
        conn.execute(update(schema.curve).values(units=b"\x78damaged"))
    with sqlite_store.read() as conn, pytest.raises(StoreError) as raised:
        interval_matrix(conn, rows_of(sqlite_store), QUANTITY, DAYS, 900)
    assert f"2026-06-01, meter key {meter.key}" in str(raised.value)
    with sqlite_store.read() as conn, pytest.raises(StoreError, match="does not divide a day"):
        interval_matrix(conn, rows_of(sqlite_store), QUANTITY, DAYS, 7000)


def test_the_meters_of_usage_points_come_in_order(sqlite_store: Store) -> None:
    old, new = add_meter(sqlite_store, "M2"), add_meter(sqlite_store, "M1")
    change = local("2026-06-10T00:00")
    with sqlite_store.write() as conn:
        registry.put_usage_points(conn, [registry.UsagePointRow("U1"), registry.UsagePointRow("U2")])
        rows = [
            registry.InstallationRow("U1", new.id, change, None, Decimal(40)),
            registry.InstallationRow("U1", old.id, DAYS.start, change),
        ]
        registry.put_installations(conn, rows)
    with sqlite_store.read() as conn:
        found = installed_at(conn, {"U1", "U2", "U3"})
        expected = registry.installations(conn, "U1")
        assert [meter for _, meter in found["U1"]] == [registry.meter(conn, "M2"), registry.meter(conn, "M1")]
    assert [row for row, _ in found["U1"]] == expected
    assert (found["U2"], found["U3"]) == ([], [])

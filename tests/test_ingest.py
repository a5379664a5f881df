"""The one door: outcomes and evidence, the writer thread, poison, backpressure, kill -9."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import create_engine, event, func, select, text

from headend.errors import HeadendError, StoreError
from headend.ingest import EvidencePolicy, Ingest, write
from headend.model import Cause, Fault, FrameRecord, Meter, Outcome, Quality, ReadKind, Source, Status, Window
from headend.store import Store, open_store, readings, schema
from headend.store.ledger import SlotSet
from tests.helpers import DAY, STEP, curve_readings, make_meter, make_outcome, reading, registered, window

ALL = EvidencePolicy(keep_good_every=1)
FRAMES = (FrameRecord(DAY, ">", b"\x68ask"), FrameRecord(DAY + timedelta(milliseconds=250), "<", b"\x68answer\x16"))


def put(store: Store, *outcomes: Outcome, policy: EvidencePolicy = ALL) -> list[int]:
    with store.write() as conn:
        return write(conn, outcomes, policy)


# -- outcomes and evidence ---------------------------------------------------------------------------------------------


def test_an_outcome_comes_back(store: Store) -> None:
    (meter,) = registered(store)
    asked = window(DAY, 4)
    given = make_outcome(
        meter, curve_readings(DAY, ["1"]), status=Status.PARTIAL, asked=asked, frames=FRAMES, detail="slot 3 empty"
    )
    (number,) = put(store, given)
    with store.read() as conn:
        found = readings.outcome(conn, number)
        assert found == readings.OutcomeRow(
            id=number,
            meter_key=meter.key,
            kind=ReadKind.CURVE,
            status=Status.PARTIAL,
            started_at=given.started_at,
            duration_s=0.25,
            detail="slot 3 empty",
            schedule="every-quarter",
            attempt=2,
            window=asked,
            frames_kept=True,
        )
        assert readings.frames(conn, number) == FRAMES
        assert readings.outcome(conn, number + 1) is None
        assert readings.frames(conn, number + 1) == ()


def test_what_faults_say_is_kept_as_detail(store: Store) -> None:
    (meter,) = registered(store)
    faults = [Fault("import_kwh", Cause.REFUSED, "error word 02"), Fault("q", Cause.BAD_FRAME, "got \0\ud800 noise")]
    (number,) = put(store, make_outcome(meter, faults=faults, status=Status.REFUSED))
    with store.read() as conn:
        found = readings.outcome(conn, number)
    assert found is not None
    assert found.detail == "import_kwh: error word 02; q: got \N{REPLACEMENT CHARACTER}? noise"


def test_ids_come_in_the_order_of_the_outcomes(store: Store) -> None:
    meters = registered(store, 30)
    ids = put(store, *(make_outcome(meter, schedule_order) for meter in meters for schedule_order in [()]))
    with store.read() as conn:
        rows = [readings.outcome(conn, number) for number in ids]
    assert [row.meter_key for row in rows if row] == [meter.key for meter in meters]
    assert ids == sorted(ids)


def test_good_frames_are_sampled_by_the_outcomes_number(store: Store) -> None:
    (meter,) = registered(store)
    good = make_outcome(meter, curve_readings(DAY, ["1"]), frames=FRAMES)
    ids = put(store, *[good] * 50, policy=EvidencePolicy(keep_good_every=7))
    with store.read() as conn:
        rows = [readings.outcome(conn, number) for number in ids]
        kept = {row.id for row in rows if row and row.frames_kept}
        assert kept == {number for number in ids if number % 7 == 0}
        assert {number for number in ids if readings.frames(conn, number)} == kept


def test_frames_of_what_is_not_plainly_good_are_always_kept(sqlite_store: Store) -> None:
    (meter,) = registered(sqlite_store)
    none = EvidencePolicy(keep_good_every=0)
    good = make_outcome(meter, curve_readings(DAY, ["1"]), frames=FRAMES)
    kept = [
        replace(good, status=Status.PARTIAL),
        replace(good, status=Status.NO_ANSWER, readings=()),
        replace(good, faults=(Fault("import_kwh", Cause.NULL_VALUE, "all FF"),)),
        replace(good, readings=(reading(DAY, "1", quality=Quality.SUSPECT),)),
        replace(good, job=replace(good.job, kind=ReadKind.DAILY_FREEZE)),
        replace(good, job=replace(good.job, kind=ReadKind.REGISTERS)),
    ]
    dropped = [good, replace(good, job=replace(good.job, kind=ReadKind.CLOCK)), replace(kept[0], frames=())]
    ids = put(sqlite_store, *kept, *dropped, policy=none)
    with sqlite_store.read() as conn:
        found = [bool(readings.frames(conn, number)) for number in ids]
    assert found == [True] * len(kept) + [False] * len(dropped)


def test_an_unknown_meter_is_refused(store: Store) -> None:
    (meter,) = registered(store)
    with pytest.raises(StoreError, match="no meter with key 999"):
        put(store, make_outcome(meter), make_outcome(make_meter(999)))
    with store.read() as conn:
        assert conn.scalar(select(func.count()).select_from(schema.outcome)) == 0


# -- the writer --------------------------------------------------------------------------------------------------------


async def _put_all(ingest: Ingest, outcomes: list[Outcome]) -> list[int | BaseException]:
    ingest.start()
    try:
        return await asyncio.gather(*(ingest.put(outcome) for outcome in outcomes), return_exceptions=True)
    finally:
        await ingest.close()


def test_put_returns_what_is_committed(store: Store) -> None:
    meters = registered(store, 3)
    outcomes = [make_outcome(meter, [reading(DAY + i * STEP, str(i))]) for i in range(100) for meter in meters]
    commits = _count_commits(store)
    ids = asyncio.run(_put_all(Ingest(store, ALL), outcomes))
    assert len(set(ids)) == 300
    assert all(isinstance(number, int) for number in ids)
    with store.read() as conn:
        for meter in meters:
            points = readings.curve(conn, meter.key, "import_kwh", Window(DAY, DAY + timedelta(days=2)))
            assert [point.units for point in points if point.units is not None] == [i * 10_000 for i in range(100)]
    assert len(commits) <= 10  # what waits shares a transaction


def _count_commits(store: Store) -> list[str]:
    commits: list[str] = []
    event.listen(store.engine, "commit", lambda _conn: commits.append("commit"))
    return commits


def test_a_poisonous_outcome_fails_alone(store: Store) -> None:
    (meter,) = registered(store)
    good = [make_outcome(meter, [reading(DAY + i * STEP, str(i))]) for i in range(20)]
    poison = [
        make_outcome(make_meter(12345), [reading(DAY, "1")]),
        make_outcome(meter, [reading(DAY, "0.00001")]),
        make_outcome(meter, frames=[FrameRecord(DAY, "sideways", b"")]),
        replace(make_outcome(meter), duration_s="soon"),  # type: ignore[arg-type]
    ]
    mixed = [*good[:7], *poison[:2], *good[7:12], *poison[2:], *good[12:]]
    results = asyncio.run(_put_all(Ingest(store, ALL), mixed))
    for outcome, result in zip(mixed, results, strict=True):
        assert isinstance(result, HeadendError if outcome in poison else int), (outcome, result)
    with store.read() as conn:
        points = readings.curve(conn, meter.key, "import_kwh", window(DAY, 20))
        assert [point.units for point in points] == [i * 10_000 for i in range(20)]
        assert conn.scalar(select(func.count()).select_from(schema.outcome)) == 20


def test_slots_are_opened_through_the_same_door(store: Store) -> None:
    (meter,) = registered(store)

    async def run() -> None:
        ingest = Ingest(store, ALL)
        ingest.start()
        await ingest.open_slots([SlotSet(meter.key, "import_kwh", Source.CURVE, 900, (DAY, DAY + STEP))])
        await ingest.put(make_outcome(meter, [reading(DAY, "1")]))
        with pytest.raises(StoreError, match="no meter with key 55"):
            await ingest.open_slots([SlotSet(55, "import_kwh", Source.CURVE, 900, (DAY,))])
        await ingest.close()

    asyncio.run(run())
    with store.read() as conn:
        (row,) = conn.execute(select(schema.curve.c.got, schema.curve.c.due))
    assert tuple(row) == (1, 1)


@contextmanager
def _held(store: Store) -> Iterator[None]:
    """The database kept busy by another writer."""
    other = open_store(store.engine.url.render_as_string(hide_password=False))
    with other.write():
        yield
    other.close()


def test_put_waits_when_too_much_is_waiting(sqlite_store: Store) -> None:
    (meter,) = registered(sqlite_store)

    async def run() -> list[int]:
        ingest = Ingest(sqlite_store, ALL, max_pending=5, max_batch=2)
        ingest.start()
        with _held(sqlite_store):
            puts = [asyncio.create_task(ingest.put(make_outcome(meter))) for _ in range(20)]
            for _ in range(50):
                await asyncio.sleep(0)
            # The writer is stuck: five have their place, the others wait for room and nothing piles up behind.
            assert ingest.pending == 5
            puts[0].cancel()  # has its place: written all the same
            puts[19].cancel()  # still waits for room: never written
            await asyncio.sleep(0)
            assert not any(put.done() for put in puts[1:19])
        ids = await asyncio.gather(*puts[1:19])
        assert ingest.pending == 0
        await ingest.close()
        return ids

    assert len(set(asyncio.run(run()))) == 18
    with sqlite_store.read() as conn:
        assert conn.scalar(select(func.count()).select_from(schema.outcome)) == 19


def test_close_writes_what_is_queued_and_takes_no_more(store: Store) -> None:
    (meter,) = registered(store)

    async def run() -> list[int]:
        ingest = Ingest(store, ALL, max_batch=3)
        with pytest.raises(StoreError, match="not started"):
            await ingest.put(make_outcome(meter))
        ingest.start()
        puts = [asyncio.create_task(ingest.put(make_outcome(meter))) for _ in range(10)]
        await asyncio.sleep(0)
        await ingest.close()
        ids = await asyncio.gather(*puts)
        with pytest.raises(StoreError, match="closing"):
            await ingest.put(make_outcome(meter))
        await ingest.close()
        return ids

    assert len(asyncio.run(run())) == 10
    with store.read() as conn:
        assert conn.scalar(select(func.count()).select_from(schema.outcome)) == 10


def test_a_database_that_fails_tells_everyone_and_recovers(new_sqlite_url: str) -> None:
    store = open_store(f"{new_sqlite_url}?timeout=0.05")
    (meter,) = registered(store)
    tries: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda _c, _cursor, sql, *_rest: tries.append(sql))

    async def run() -> None:
        ingest = Ingest(store, ALL)
        ingest.start()
        with _held(store):
            puts = (ingest.put(make_outcome(meter)) for _ in range(20))
            results = await asyncio.gather(*puts, return_exceptions=True)
        assert [str(result) for result in results if "locked" in str(result)] == [str(results[0])] * 20
        # Once together, once alone: then it is known to be the database, and nobody waits it out again.
        assert 1 <= tries.count("BEGIN IMMEDIATE") <= 4
        assert await ingest.put(make_outcome(meter)) > 0
        await ingest.close()

    asyncio.run(run())
    store.close()


def test_a_server_that_drops_the_connection_loses_nothing(new_pg_url: str) -> None:
    store = open_store(new_pg_url)
    (meter,) = registered(store)
    cut = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    async def run() -> list[int]:
        ingest = Ingest(store, ALL)
        ingest.start()
        ids = [await ingest.put(make_outcome(meter, [reading(DAY, "1")]))]
        other = create_engine(new_pg_url)
        with other.connect() as conn:
            conn.execute(cut)
        other.dispose()
        ids.append(await ingest.put(make_outcome(meter, [reading(DAY + STEP, "2")])))
        await ingest.close()
        return ids

    assert len(set(asyncio.run(run()))) == 2
    with store.read() as conn:
        points = readings.curve(conn, meter.key, "import_kwh", window(DAY, 2))
    assert [point.units for point in points] == [10_000, 20_000]
    store.close()


def test_two_writers_of_one_block_lose_nothing(store_url: str) -> None:
    """Two programs fill the same meters' same day at once: blocks are read, changed, written back."""
    first, second = open_store(store_url), open_store(store_url)
    meters = registered(first, 4)

    def half(offset: int) -> list[Outcome]:
        slots = range(offset, 96, 2)
        shuffled = [(meter, slot) for slot in slots for meter in meters]
        random.Random(offset).shuffle(shuffled)
        return [make_outcome(meter, [reading(DAY + slot * STEP, str(slot))]) for meter, slot in shuffled]

    async def run() -> None:
        doors = Ingest(first, ALL, max_batch=7), Ingest(second, ALL, max_batch=5)
        results = await asyncio.gather(_put_all(doors[0], half(0)), _put_all(doors[1], half(1)))
        assert all(isinstance(result, int) for some in results for result in some)

    asyncio.run(run())
    with first.read() as conn:
        for meter in meters:
            points = readings.curve(conn, meter.key, "import_kwh", window(DAY, 96))
            assert [point.units for point in points] == [slot * 10_000 for slot in range(96)]
    first.close()
    second.close()


# -- kill -9 -----------------------------------------------------------------------------------------------------------

_FEEDER = """
import asyncio, sys
from datetime import timedelta
from headend.ingest import EvidencePolicy, Ingest
from headend.store import open_store
from tests.helpers import DAY, STEP, make_meter, make_outcome, reading

async def main(url, key):
    ingest = Ingest(open_store(url), EvidencePolicy())
    ingest.start()
    meter = make_meter(int(key))

    async def feed(lane):
        number = lane
        while True:
            await ingest.put(make_outcome(meter, [reading(DAY + number * STEP, str(number))], detail=f"n{number}"))
            print(number, flush=True)
            number += 8

    await asyncio.gather(*(feed(lane) for lane in range(8)))

asyncio.run(main(*sys.argv[1:]))
"""


def test_nothing_acknowledged_is_lost_by_kill_9(store_url: str) -> None:
    store = open_store(store_url)
    (meter,) = registered(store)
    chance = random.Random()
    for _ in range(2):
        acknowledged = _feed_and_kill(store_url, meter, chance.randrange(20, 250))
        assert len(acknowledged) >= 20
        _check(store, meter, acknowledged)
        with store.write() as conn:
            for table in (schema.evidence, schema.outcome, schema.curve, schema.last_value):
                conn.execute(table.delete())
    store.close()


def _feed_and_kill(url: str, meter: Meter, after: int) -> set[int]:
    """The numbers a program printed after `put` returned, killed once it printed `after` of them."""
    command = [sys.executable, "-c", _FEEDER, url, str(meter.key)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=os.getcwd()) as feeder:
        assert feeder.stdout is not None
        printed = [feeder.stdout.readline() for _ in range(after)]
        feeder.send_signal(signal.SIGKILL)
        printed += feeder.stdout.readlines()
    return {int(line) for line in printed if line.endswith("\n")}


def _check(store: Store, meter: Meter, acknowledged: set[int]) -> None:
    with store.read() as conn:
        details = list(conn.scalars(select(schema.outcome.c.detail)))
        points = readings.curve(conn, meter.key, "import_kwh", Window(DAY, DAY + timedelta(days=60)))
        assert conn.scalar(select(func.count()).select_from(schema.revision)) == 0
    stored = {int(detail[1:]) for detail in details}
    assert len(details) == len(stored), "an outcome is there twice"
    assert acknowledged <= stored
    values = {point.at: point.units for point in points if point.units is not None}
    assert values == {DAY + number * STEP: number * 10_000 for number in stored}, "outcomes and values disagree"


# -- late --------------------------------------------------------------------------------------------------------------


def test_the_deadline_is_the_callers(sqlite_store: Store) -> None:
    (meter,) = registered(sqlite_store)
    one = reading(DAY, Decimal(1), taken_at=DAY + timedelta(seconds=61))
    with sqlite_store.write() as conn:
        write(conn, [make_outcome(meter, [one])], ALL, late_after_s=60)
        (row,) = conn.execute(select(schema.curve.c.got, schema.curve.c.late))
    assert tuple(row) == (0, 1)

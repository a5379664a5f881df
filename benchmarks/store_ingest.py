"""How fast outcomes become stored values, beside plain `sqlite3` writing the same finished blocks in the same run.

    python benchmarks/store_ingest.py [--meters 1000] [--url postgresql+psycopg://...]

sweep: every meter gives one value at a time, each block is opened and closed for it; profile: every meter gives its
whole day at once. Printed are values per second and the ratio to the limit: one `executemany` of ready-made blocks,
with the same durability (WAL, synchronous=FULL) and as many rows per commit, without reading, packing or a ledger.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import select

from headend.ingest import EvidencePolicy, write
from headend.model import Meter, MeterModel, Outcome, Reading, ReadJob, ReadKind, Source, Status
from headend.store import Store, open_store, schema
from headend.store.registry import MeterRow, meters, put_meters

BATCH = 200
SLOTS = 96
STEP = timedelta(minutes=15)
START = datetime(2026, 3, 10, tzinfo=UTC)
MODEL = MeterModel("bench", "dlt645-2007", Decimal(1_000_000), Decimal("15.84"))


def town(store: Store, number: int) -> list[Meter]:
    """`number` registered meters."""
    wanted = [
        MeterRow(f"M{i:07d}", "dlt645-2007", f"{i:012d}", "bus", "bench", "+08:00", MODEL.register_wrap, 900)
        for i in range(number)
    ]
    with store.write() as conn:
        put_meters(conn, wanted)
        rows = meters(conn)
    return [Meter(row.key, row.id, row.address, row.protocol, row.line, MODEL) for row in rows]


def outcome(meter: Meter, day: int, slots: range) -> Outcome:
    """Some points of a household that uses 0.05 to 0.35 kWh a quarter, taken five minutes later."""
    readings = []
    for slot in slots:
        at = START + timedelta(days=day) + slot * STEP
        used = meter.key * 997 + (day * SLOTS + slot) * 20 + (meter.key * 31 + slot * 17) % 13
        readings.append(
            Reading("import_kwh", Decimal(used).scaleb(-2), at, at + timedelta(minutes=5), Source.CURVE, 900)
        )
    job = ReadJob(meter, ReadKind.CURVE, ("import_kwh",), schedule="bench")
    return Outcome(job, Status.OK, readings[-1].taken_at, 0.2, tuple(readings))


def sweep(fleet: list[Meter], rounds: int) -> Iterator[Outcome]:
    """One value of every meter, then the next of every meter."""
    return (outcome(meter, 0, range(slot, slot + 1)) for slot in range(rounds) for meter in fleet)


def profiles(fleet: list[Meter], days: int) -> Iterator[Outcome]:
    """A whole day of every meter."""
    return (outcome(meter, day, range(SLOTS)) for day in range(1, days + 1) for meter in fleet)


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ingest(store: Store, outcomes: list[Outcome]) -> None:
    """Everything in `outcomes`, a batch a transaction."""
    for start in range(0, len(outcomes), BATCH):
        with store.write() as conn:
            write(conn, outcomes[start : start + BATCH], EvidencePolicy())


def blocks(store: Store, after_start: bool) -> list[tuple[Any, ...]]:
    """The finished blocks of the first day, or of the days after it."""
    day = schema.curve.c.day
    first = START.toordinal() - datetime(1970, 1, 1, tzinfo=UTC).toordinal()
    with store.read() as conn:
        return [
            tuple(row) for row in conn.execute(select(schema.curve).where(day > first if after_start else day == first))
        ]


def plain(folder: Path, rows: list[tuple[Any, ...]], times: int) -> float:
    """Seconds for `sqlite3` alone to upsert `rows`, `times` over."""
    names = [column.name for column in schema.curve.c]
    connection = sqlite3.connect(folder / f"plain-{times}.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    key = "day, meter_key, quantity_code, step_s"
    connection.execute(f"CREATE TABLE curve ({', '.join(names)}, PRIMARY KEY ({key}))")
    values = ", ".join("?" * len(names))
    changes = ", ".join(f"{name} = excluded.{name}" for name in names)
    upsert = f"INSERT INTO curve VALUES ({values}) ON CONFLICT ({key}) DO UPDATE SET {changes}"

    def work() -> None:
        for _ in range(times):
            for start in range(0, len(rows), BATCH):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(upsert, rows[start : start + BATCH])
                connection.execute("COMMIT")

    seconds = timed(work)
    connection.close()
    return seconds


def main() -> None:
    """Run both arrivals and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meters", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=12, help="values per meter in the sweep")
    parser.add_argument("--days", type=int, default=3, help="days per meter of profiles")
    parser.add_argument("--url", default="", help="an empty database; without it a temporary SQLite file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store = open_store(options.url or f"sqlite:///{name}/headend.db")
        fleet = town(store, options.meters)
        print(f"{options.meters} meters, {BATCH} outcomes per commit, {store.engine.dialect.name}")
        for title, outcomes, number, again in (
            ("sweep", list(sweep(fleet, options.rounds)), options.meters * options.rounds, options.rounds),
            ("profile", list(profiles(fleet, options.days)), options.meters * options.days * SLOTS, 1),
        ):
            seconds = timed(lambda outcomes=outcomes: ingest(store, outcomes))  # type: ignore[misc]
            limit = plain(Path(name), blocks(store, title == "profile"), again)
            print(
                f"{title:8} {number / seconds:12,.0f} values/s   sqlite3 alone {number / limit:12,.0f} values/s   "
                f"{limit / seconds:6.1%} of it"
            )
        store.close()


if __name__ == "__main__":
    main()

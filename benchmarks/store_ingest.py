"""How fast readings become stored values, by outcome and by message, beside plain `sqlite3` in the same run.

    python benchmarks/store_ingest.py [--meters 1800] [--url postgresql+psycopg://...]

Outcomes hold one meter's readings, messages those of 180 meters, as concentrators send them. sweep: every meter gives
one value at a time, and each block is changed once a commit; caught up: the same, with so much waiting that a commit
takes several values of each block; profile: every meter gives its whole day at once. Printed are values per second, the
processor time of this process for each (a machine that is shared spoils the first, not this), and the ratio to the
limit: one `executemany` of ready-made blocks, with the same durability (WAL, synchronous=FULL) and as
many rows per commit, without reading, packing or a ledger.
"""

from __future__ import annotations

import argparse
import gc
import sqlite3
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import select

from headend.ingest import EvidencePolicy, write, write_messages
from headend.model import Meter, MeterModel, Outcome, Quality, Reading, ReadJob, ReadKind, Source, Status
from headend.store import Store, open_store, schema
from headend.store.codes import code_of
from headend.store.registry import MeterRow, meters, put_meters
from headend.store.sheets import Message, Sheet

BATCH = 200
PER_MESSAGE = 180
SLOTS = 96
STEP = timedelta(minutes=15)
START = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
"""Sweeps fill today, profiles the days before: blocks of days still open are packed in another way."""
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


def used(meter: Meter, day: int, slot: int) -> int:
    """Register in hundredths of a household that uses 0.05 to 0.35 kWh a quarter."""
    return meter.key * 997 + ((day + 400) * SLOTS + slot) * 20 + (meter.key * 31 + slot * 17) % 13


def outcome(meter: Meter, day: int, slots: range) -> Outcome:
    """Some points of one meter, taken five minutes later."""
    readings = []
    for slot in slots:
        at, value = START + timedelta(days=day) + slot * STEP, Decimal(used(meter, day, slot)).scaleb(-2)
        readings.append(Reading("import_kwh", value, at, at + timedelta(minutes=5), Source.CURVE, 900))
    job = ReadJob(meter, ReadKind.CURVE, ("import_kwh",), schedule="bench")
    return Outcome(job, Status.OK, readings[-1].taken_at, 0.2, tuple(readings))


def message(some: list[Meter], day: int, slots: range) -> Message:
    """The same points, of another quantity, of some meters. Its payload is as long as the canonical form of it."""
    first = int((START + timedelta(days=day) + slots.start * STEP).timestamp())
    times = array("q", [first + 900 * (slot - slots.start) for slot in slots])
    valid = bytes([Quality.VALID]) * len(times)
    sheets = tuple(
        Sheet(
            meter.key,
            "export_kwh",
            Source.CURVE,
            900,
            array("q", times),
            array("q", [100 * used(meter, day, slot) for slot in slots]),
            valid,
        )
        for meter in some
    )
    concentrator = f"C{some[0].key:07d}"
    payload = repr([sheet.units.tolist() for sheet in sheets]).encode()
    received_at = START + timedelta(days=day) + slots.stop * STEP
    topic = f"hes/v1/{concentrator}/up/reads"
    return Message(
        received_at, "mqtt bench", topic, payload, sheets, sequence=(concentrator, 400 + day, slots.start + 1)
    )


Made = Callable[[int, range], Iterator[Outcome | Message]]


def outcomes_of(fleet: list[Meter]) -> Made:
    """What makes the outcomes of a fleet for some slots of a day."""
    return lambda day, slots: (outcome(meter, day, slots) for meter in fleet)


def messages_of(fleet: list[Meter]) -> Made:
    """What makes the messages of a fleet for some slots of a day."""
    groups = [fleet[start : start + PER_MESSAGE] for start in range(0, len(fleet), PER_MESSAGE)]
    return lambda day, slots: (message(some, day, slots) for some in groups)


def sweep(made: Made, rounds: range) -> list[Outcome | Message]:
    """One value of every meter, then the next of every meter."""
    return [one for slot in rounds for one in made(0, range(slot, slot + 1))]


def profiles(made: Made, days: int) -> list[Outcome | Message]:
    """A whole day of every meter."""
    return [one for day in range(1, days + 1) for one in made(-day, range(SLOTS))]


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that `work` takes, and seconds of this process's processor time in them."""
    begin, used_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - used_s


def ingest(store: Store, items: list[Outcome | Message], batch: int) -> None:
    """Everything in `items`, a batch a transaction."""
    for start in range(0, len(items), batch):
        some = items[start : start + batch]
        with store.write() as conn:
            write(conn, [item for item in some if isinstance(item, Outcome)], EvidencePolicy())
            write_messages(conn, [item for item in some if isinstance(item, Message)], EvidencePolicy())


def blocks(store: Store, name: str, today: bool) -> list[tuple[Any, ...]]:
    """The blocks of a quantity, of today or of the days before."""
    table, day = schema.curve, START.toordinal() - datetime(1970, 1, 1, tzinfo=UTC).toordinal()
    with store.read() as conn:
        query = select(table).where(table.c.quantity_code == code_of(conn, name))
        return [tuple(row) for row in conn.execute(query.where(table.c.day == day if today else table.c.day < day))]


def plain(folder: Path, rows: list[tuple[Any, ...]], times: int, batch: int) -> float:
    """Seconds for `sqlite3` alone to upsert `rows`, `times` over, `batch` rows a commit."""
    names = [column.name for column in schema.curve.c]
    file = folder / "plain.db"
    connection = sqlite3.connect(file, isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")
    key = "day, meter_key, quantity_code, step_s"
    connection.execute(f"CREATE TABLE curve ({', '.join(names)}, PRIMARY KEY ({key}))")
    values = ", ".join("?" * len(names))
    changes = ", ".join(f"{name} = excluded.{name}" for name in names)
    upsert = f"INSERT INTO curve VALUES ({values}) ON CONFLICT ({key}) DO UPDATE SET {changes}"

    def work() -> None:
        for _ in range(times):
            for start in range(0, len(rows), batch):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(upsert, rows[start : start + batch])
                connection.execute("COMMIT")

    seconds, _ = timed(work)
    connection.close()
    file.unlink()
    return seconds


def main() -> None:
    """Run all arrivals both ways and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meters", type=int, default=1800)
    parser.add_argument("--rounds", type=int, default=24, help="values per meter in the sweeps")
    parser.add_argument("--days", type=int, default=3, help="days per meter of profiles")
    parser.add_argument("--url", default="", help="an empty database; without it a temporary SQLite file")
    options = parser.parse_args()
    gc.set_threshold(50_000, 20, 50)  # as the daemon has it
    with tempfile.TemporaryDirectory() as name:
        store = open_store(options.url or f"sqlite:///{name}/headend.db")
        fleet = town(store, options.meters)
        print(f"{options.meters} meters, {store.engine.dialect.name}; {BATCH} outcomes or messages wait at most")
        one_round = len(list(messages_of(fleet)(0, range(1))))
        half = options.rounds // 2
        first, rest = range(half), range(half, options.rounds)
        for title, made, quantity, batch in (
            ("outcomes", outcomes_of(fleet), "import_kwh", BATCH),
            ("messages", messages_of(fleet), "export_kwh", min(one_round, BATCH)),
        ):
            runs = [("sweep", sweep(made, first), batch, half), ("profile", profiles(made, options.days), batch, 0)]
            if title == "messages":
                runs.insert(1, ("caught up", sweep(made, rest), BATCH, len(rest)))
            for arrival, items, per_commit, rounds in runs:
                seconds, used_s = timed(lambda items=items, per_commit=per_commit: ingest(store, items, per_commit))  # type: ignore[misc]
                rows = blocks(store, quantity, bool(rounds))
                number = len(rows) * (rounds or SLOTS)
                rows_per_commit = per_commit * (PER_MESSAGE if title == "messages" else 1)
                limit = plain(Path(name), rows, rounds or 1, rows_per_commit)
                print(
                    f"{title} {arrival:9} {number / seconds:11,.0f} values/s {used_s / number * 1e6:6.2f} us each   "
                    f"sqlite3 alone {number / limit:11,.0f} values/s   {limit / seconds:6.1%} of it"
                )
        store.close()


if __name__ == "__main__":
    main()

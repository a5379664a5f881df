"""No question about one meter, and no arrival, may walk through a whole table: each finds its rows by a key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import event

from headend.ingest import EvidencePolicy, write
from headend.model import Outcome, Quality, Source, Status, Window
from headend.store import Store, readings
from headend.store.ledger import SlotSet, completeness, curve_states, open_slots, slot_states
from tests.helpers import DAY, curve_readings, make_outcome, reading, registered, window

MONTH = Window(DAY, DAY + timedelta(days=31))
_LARGE = ("curve", "snapshot", "slot", "last_value", "revision", "outcome", "evidence")


@contextmanager
def _noted(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """The SELECTs made within the block, with their parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_conn: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: bool) -> None:
        if statement.startswith("SELECT"):
            seen.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    yield seen
    event.remove(store.engine, "before_cursor_execute", note)


def _scans(store: Store, statements: list[tuple[str, Any]]) -> list[str]:
    """Steps of the statements' plans that pass over all rows of a large table, or over all days of it."""
    found = []
    with store.read() as conn:
        for statement, parameters in statements:
            for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters):
                words = str(row.detail).split()
                if words[0] == "SCAN" and words[1] in _LARGE:
                    found.append(f"{row.detail}: {statement}")
    return found


def _outcomes(store: Store) -> list[Outcome]:
    """Outcomes that touch every table: curves, freezes, conflicts, faults."""
    (meter,) = registered(store)
    return [
        make_outcome(meter, curve_readings(DAY, ["1", "2"])),
        make_outcome(meter, [reading(DAY, "1.5"), reading(DAY, "7", quality=Quality.SUSPECT)]),
        make_outcome(meter, [reading(DAY, "1", source=Source.DAILY_FREEZE)]),
        make_outcome(meter, [reading(DAY, "2", source=Source.DAILY_FREEZE)]),
        make_outcome(meter, status=Status.NO_ANSWER, asked=window(DAY, 4)),
    ]


def test_arrivals_find_their_rows_by_key(sqlite_store: Store) -> None:
    outcomes = _outcomes(sqlite_store)
    key = outcomes[0].job.meter.key
    with _noted(sqlite_store) as seen:
        for _ in range(2):
            with sqlite_store.write() as conn:
                open_slots(conn, [SlotSet(key, "import_kwh", Source.CURVE, 900, (DAY,))])
                open_slots(conn, [SlotSet(key, "import_kwh", Source.DAILY_FREEZE, 0, (DAY,))])
                write(conn, outcomes, EvidencePolicy())
    assert len(seen) > 15
    assert _scans(sqlite_store, seen) == []


def test_questions_about_one_meter_find_their_rows_by_key(sqlite_store: Store) -> None:
    outcomes = _outcomes(sqlite_store)
    key = outcomes[0].job.meter.key
    with sqlite_store.write() as conn:
        ids = write(conn, outcomes, EvidencePolicy())
    with _noted(sqlite_store) as seen, sqlite_store.read() as conn:
        assert readings.register_at(conn, key, "import_kwh", DAY) is not None
        assert len(readings.curve(conn, key, "import_kwh", MONTH)) == 96
        assert len(readings.intervals(conn, key, "import_interval_kwh", MONTH, wrap_units=10**10)) == 31 * 96
        assert len(readings.snapshots(conn, key, "import_kwh", MONTH)) == 1
        assert len(readings.last_values(conn, key)) == 1
        assert readings.outcome(conn, ids[0]) is not None
        assert readings.frames(conn, ids[0]) == ()
        assert len(readings.revisions(conn, key, "import_kwh", MONTH)) == 3
        assert len(completeness(conn, MONTH, [key])) == 2
    assert _scans(sqlite_store, seen) == []


def test_the_ledger_of_a_day_is_found_by_the_day(sqlite_store: Store) -> None:
    outcomes = _outcomes(sqlite_store)
    with sqlite_store.write() as conn:
        write(conn, outcomes, EvidencePolicy())
    with _noted(sqlite_store) as seen, sqlite_store.read() as conn:
        assert len(list(curve_states(conn, DAY, DAY + timedelta(days=1)))) == 1
        assert len(list(slot_states(conn, DAY, DAY + timedelta(days=1)))) == 1
        assert len(completeness(conn, MONTH)) == 2
    assert _scans(sqlite_store, seen) == []

"""A store full of meters for the billing benchmark: real tables and real blocks, written in bulk.

Every account has one meter that delivers a month of quarter-hour energies, and a register frozen at both ends of it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert

from headend.civil import to_epoch_s
from headend.model import Quality, SlotState, Source
from headend.store import Store, schema
from headend.store.blocks import DAY_S, PACKED, pack_bytes, pack_ints
from headend.store.codes import codes
from headend.store.portable import put_rows
from headend.store.registry import (
    AccountRow,
    InstallationRow,
    MeterRow,
    UsagePointRow,
    put_accounts,
    put_installations,
    put_meters,
    put_usage_points,
)

__all__ = ["DAYS", "MONTH", "SLOTS", "TARIFF_ID", "YEAR_MONTH", "Loads", "fill", "loads"]

SLOTS: Final = 96
DAYS: Final = 31
YEAR_MONTH: Final = (2026, 10)
MONTH: Final = datetime(2026, 10, 1, tzinfo=UTC)
TARIFF_ID: Final = "bench"
_WRAP: Final = Decimal(1_000_000)
_HUNDREDTH: Final = 100
"""Ten-thousandths of a kWh in the 0.01 kWh of a meter."""
_BATCH: Final = 5_000


@dataclass(frozen=True, slots=True)
class Loads:
    """Energies (accounts, days, slots) in ten-thousandths of a kWh, and what was used before in the year."""

    first: int
    units: NDArray[np.int64]
    used: NDArray[np.int64]


def loads(number: int, batch: int = _BATCH) -> Iterator[Loads]:
    """Random loads of `number` accounts, the same at every call, a batch at a time."""
    for first in range(0, number, batch):
        count = min(batch, number - first)
        rng = np.random.default_rng(first)
        hundredths = rng.gamma(1.4, 7.8, size=(count, DAYS, SLOTS)).astype(np.int64)
        used = rng.integers(0, 6_000, size=count).astype(np.int64) * 10_000
        yield Loads(first, hundredths * _HUNDREDTH, used)


def fill(store: Store, number: int) -> None:
    """Registry, blocks and frozen registers of `number` accounts."""
    _registry(store, number)
    keys = _meter_keys(store)
    for some in loads(number):
        _values(store, some, keys[some.first : some.first + len(some.units)])


def _registry(store: Store, number: int) -> None:
    since = MONTH - timedelta(days=400)
    used = np.concatenate([some.used for some in loads(number)]).tolist()
    with store.write() as conn:
        put_meters(conn, [_meter(i) for i in range(number)])
        put_usage_points(conn, [UsagePointRow(f"P{i:07d}", "D1") for i in range(number)])
        put_installations(conn, [InstallationRow(f"P{i:07d}", f"M{i:07d}", since) for i in range(number)])
        accounts = [
            AccountRow(
                f"A{i:07d}",
                f"P{i:07d}",
                "",
                TARIFF_ID,
                since,
                step_used=Decimal(used[i]).scaleb(-4),
                step_used_at=MONTH,
            )
            for i in range(number)
        ]
        put_accounts(conn, accounts)


def _meter(i: int) -> MeterRow:
    return MeterRow(f"M{i:07d}", "dlt645-2007", f"{i:012d}", "bus", "bench", "+00:00", _WRAP, 900)


def _meter_keys(store: Store) -> list[int]:
    with store.read() as conn:
        return [row.key for row in conn.execute(schema.meter.select().order_by(schema.meter.c.id))]


def _values(store: Store, some: Loads, keys: list[int]) -> None:
    """The blocks of a batch of meters, day by day in the order of the table's key, and their registers."""
    start_s = to_epoch_s(MONTH)
    with store.write() as conn:
        named = codes(conn, ("import_interval_kwh", "import_kwh"))
        interval, register = named["import_interval_kwh"], named["import_kwh"]
        outcomes = [
            {"meter_key": key, "kind": "curve", "status": "ok", "started_at": start_s + DAYS * DAY_S + 60}
            | {"duration_s": 0.2, "detail": "", "schedule": "bench", "attempt": 1}
            for key in keys
        ]
        ids = list(conn.scalars(insert(schema.outcome).returning(schema.outcome.c.id), outcomes))
        names = ("day", "meter_key", "quantity_code", *PACKED)
        for day in range(DAYS):
            rows = [
                (start_s // DAY_S + day, key, interval, *_block(some.units[i, day], outcome_id))
                for i, (key, outcome_id) in enumerate(zip(keys, ids, strict=True))
            ]
            put_rows(conn, schema.curve, names, rows)
        sums = some.units.sum(axis=(1, 2)).tolist()
        frozen = [
            (at, key, register, int(Source.DAILY_FREEZE), units, int(Quality.VALID), outcome_id, at + 300, None)
            for key, outcome_id, total in zip(keys, ids, sums, strict=True)
            for at, units in ((start_s, 1_000_000), (start_s + DAYS * DAY_S, 1_000_000 + total))
        ]
        columns = [column.name for column in schema.snapshot.c]
        put_rows(conn, schema.snapshot, columns, frozen)


_VALID: Final = pack_bytes(bytes([Quality.VALID]) * SLOTS)
_GOT: Final = pack_bytes(bytes([SlotState.GOT]) * SLOTS)
_NO_CAUSE: Final = pack_bytes(bytes(SLOTS))


def _block(units: NDArray[np.int64], outcome_id: int) -> tuple[Any, ...]:
    """The columns `PACKED` of one day that came whole."""
    ids = pack_ints(array("q", [outcome_id]) * SLOTS)
    packed = pack_ints(array("q", units.tobytes()))
    total = int(units.sum())
    return (900, 0, SLOTS, packed, _VALID, _GOT, _NO_CAUSE, ids, total, 0, SLOTS, 0, 0, 0)

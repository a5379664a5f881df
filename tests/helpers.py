"""What many tests need: a meter, its registration, readings and outcomes in a line each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import delete

from headend.ingest import EvidencePolicy, write
from headend.model import (
    CurveSpec,
    Fault,
    FrameRecord,
    Meter,
    MeterModel,
    Outcome,
    Quality,
    Reading,
    ReadJob,
    ReadKind,
    Source,
    Status,
    Window,
)
from headend.store import Store
from headend.store.registry import MeterRow, meters, put_meters
from headend.store.schema import METADATA

__all__ = [
    "DAY",
    "MODEL",
    "STEP",
    "curve_readings",
    "fresh_meter",
    "make_meter",
    "make_outcome",
    "put",
    "reading",
    "registered",
    "window",
]

DAY = datetime(2026, 3, 10, tzinfo=UTC)
STEP = timedelta(minutes=15)

MODEL = MeterModel(
    name="dlt645_single_phase",
    protocol="dlt645-2007",
    register_wrap=Decimal(1_000_000),
    max_power_kw=Decimal("15.84"),
    curve=CurveSpec("0610", 900, 62),
    daily_freeze_depth=62,
)


def make_meter(key: int = 1, **over: Any) -> Meter:
    """A single-phase DL/T 645-2007 meter; `over` replaces fields."""
    meter = Meter(key, f"M{key:06d}", f"{key:012d}", "dlt645-2007", "bus-1", MODEL)
    return replace(meter, **over)


def registered(store: Store, number: int = 1, **over: Any) -> list[Meter]:
    """`number` meters, put into the store and with the keys it gave them."""
    made = [make_meter(key, **over) for key in range(1, number + 1)]
    with store.write() as conn:
        put_meters(conn, [_row(meter) for meter in made])
        keys = {row.id: row.key for row in meters(conn)}
    return [replace(meter, key=keys[meter.id]) for meter in made]


def _row(meter: Meter) -> MeterRow:
    model = meter.model
    step_s = model.curve.step_s if model.curve else 0
    place = (meter.protocol, meter.address, meter.line)
    return MeterRow(meter.id, *place, model.name, meter.clock_zone, model.register_wrap, step_s)


def window(start: datetime, steps: int, step: timedelta = STEP) -> Window:
    """`steps` steps from `start`."""
    return Window(start, start + steps * step)


def reading(
    at: datetime,
    value: str | Decimal,
    *,
    quantity: str = "import_kwh",
    source: Source = Source.CURVE,
    step: timedelta = STEP,
    taken_at: datetime | None = None,
    quality: Quality = Quality.VALID,
) -> Reading:
    """One reading, taken five minutes after its instant unless told otherwise."""
    step_s = step // timedelta(seconds=1) if source is Source.CURVE else 0
    taken_at = taken_at or at + timedelta(minutes=5)
    return Reading(quantity, Decimal(value), at, taken_at, source, step_s, quality)


def curve_readings(start: datetime, values: Iterable[str | Decimal], step: timedelta = STEP) -> tuple[Reading, ...]:
    """Curve points from `start` on, one step apart."""
    return tuple(reading(start + i * step, value, step=step) for i, value in enumerate(values))


def make_outcome(
    meter: Meter,
    readings: Sequence[Reading] = (),
    *,
    kind: ReadKind = ReadKind.CURVE,
    status: Status = Status.OK,
    started_at: datetime = DAY + timedelta(days=1),
    faults: Sequence[Fault] = (),
    frames: Sequence[FrameRecord] = (),
    asked: Window | None = None,
    quantities: tuple[str, ...] = ("import_kwh",),
    detail: str = "",
) -> Outcome:
    """How a job on `meter` ended."""
    job = ReadJob(meter, kind, quantities, asked, schedule="every-quarter", attempt=2)
    return Outcome(job, status, started_at, 0.25, tuple(readings), tuple(faults), tuple(frames), detail)


def put(store: Store, *outcomes: Outcome, policy: EvidencePolicy | None = None) -> list[int]:
    """Store outcomes in one transaction; their ids."""
    with store.write() as conn:
        return write(conn, outcomes, policy or EvidencePolicy())


def fresh_meter(store: Store) -> Meter:
    """The store's one meter, with nothing stored of it yet: for properties, which share a store over their examples."""
    with store.write() as conn:
        for name in ("curve", "snapshot", "slot", "last_value", "revision", "evidence", "outcome"):
            conn.execute(delete(METADATA.tables[name]))
    return registered(store)[0]

"""A usage point with a meter, fed through the one door with values whose truth the tests know."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from billing.calendar import billing_month
from billing.charges import Tariff
from config.tariff_files import load_tariff
from headend import ingest
from headend.civil import zone
from headend.model import (
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
from headend.store import Store, registry

SHANGHAI = "Asia/Shanghai"
NOW = datetime(2027, 1, 15, 3, 0, tzinfo=UTC)
TARIFFS = Path(__file__).parents[1] / "config" / "tariffs"
WRAP = Decimal("1000000")
KEEP_ALL = ingest.EvidencePolicy(keep_good_every=1)


def shipped(name: str) -> Tariff:
    return load_tariff(TARIFFS / f"{name}.toml")


def written(folder: Path, name: str, text: str) -> Tariff:
    """A tariff from a file of the test's own."""
    head = (
        f'id = "{name}"\nversion = "1"\ntitle = "{name}"\nsource = "a test"\nsource_date = 2026-01-01\n'
        'verified = true\nvalid_from = 2020-01-01\ncurrency = "EUR"\n'
    )
    path = folder / f"{name}.toml"
    path.write_text(head + text, encoding="utf-8")
    return load_tariff(path)


def add_meter(store: Store, id: str = "M1", *, clock_zone: str = SHANGHAI, step_s: int = 900) -> Meter:
    """A meter in the store; further ones get further addresses."""
    with store.write() as conn:
        address = f"{len(registry.meters(conn)) + 1:012d}"
        row = registry.MeterRow(id, "dlt645", address, "L1", "test", clock_zone, WRAP, step_s)
        registry.put_meters(conn, [row])
        found = registry.meter(conn, id)
    assert found is not None
    return Meter(found.key, id, address, "dlt645", "L1", MeterModel("test", "dlt645", WRAP, Decimal(10)), clock_zone)


def connect(
    store: Store,
    meter: Meter,
    tariff: Tariff,
    *,
    account: str = "A1",
    since: datetime = datetime(2025, 1, 1, tzinfo=UTC),
    multiplier: str = "1",
    step_used: tuple[str, datetime] | None = None,
) -> None:
    """A usage point with this meter, and an account for it."""
    used, used_at = (Decimal(step_used[0]), step_used[1]) if step_used else (None, None)
    row = registry.AccountRow(account, f"U-{account}", "C1", tariff.id, since, None, used, used_at)
    with store.write() as conn:
        registry.put_usage_points(conn, [registry.UsagePointRow(f"U-{account}")])
        place = registry.InstallationRow(f"U-{account}", meter.id, since, None, Decimal(multiplier))
        registry.put_installations(conn, [place])
        registry.put_accounts(conn, [row])


def feed(store: Store, meter: Meter, kind: ReadKind, readings: Sequence[Reading], frame: bytes = b"\x68") -> int:
    """One outcome with these readings; its id."""
    window = Window(readings[0].at, readings[-1].at + timedelta(seconds=1))
    job = ReadJob(meter, kind, (readings[0].quantity,), window)
    started_at = max(reading.taken_at for reading in readings)
    frames = (FrameRecord(started_at, ">", frame), FrameRecord(started_at, "<", frame[::-1]))
    outcome = Outcome(job, Status.OK, started_at, 0.5, tuple(readings), (), frames)
    with store.write() as conn:
        return ingest.write(conn, [outcome], KEEP_ALL)[0]


def freeze(at: datetime, value: Decimal | str, **changes: object) -> Reading:
    taken_at = at + timedelta(minutes=5)
    reading = Reading("import_kwh", Decimal(value), at, taken_at, Source.DAILY_FREEZE)
    return replace(reading, **changes)  # type: ignore[arg-type]


def points(start: datetime, step_s: int, register: Decimal | str, energies: Iterable[Decimal]) -> list[Reading]:
    """Curve points of a register that starts at `register` and rises by each energy in turn, around its end as well."""
    value, at = Decimal(register), start
    found = [Reading("import_kwh", value, at, at + timedelta(minutes=2), Source.CURVE, step_s)]
    for energy in energies:
        at += timedelta(seconds=step_s)
        value = (value + energy) % WRAP
        found.append(Reading("import_kwh", value, at, at + timedelta(minutes=2), Source.CURVE, step_s))
    return found


def household(count: int, seed: int = 1) -> list[Decimal]:
    """Energies of `count` intervals with the 0.01 kWh resolution of a register."""
    chance = random.Random(seed)
    return [Decimal(chance.randint(0, 60)).scaleb(-2) for _ in range(count)]


def month(number: int, year: int = 2026, zone_name: str = SHANGHAI) -> Window:
    return billing_month(year, number, zone_name)


def local(text: str, zone_name: str = SHANGHAI) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone(zone_name)).astimezone(UTC)


def feed_month(
    store: Store, meter: Meter, window: Window, register: Decimal | str = "100.00", seed: int = 1, step_s: int = 900
) -> list[Decimal]:
    """A month of curve points, an outcome a day, and freezes at both ends; the energy of every interval."""
    count = (window.end - window.start) // timedelta(seconds=step_s)
    energies = household(count, seed)
    rows = points(window.start, step_s, register, energies)
    for row in (rows[0], rows[-1]):
        feed(store, meter, ReadKind.DAILY_FREEZE, [freeze(row.at, row.value)], b"\x68freeze")
    per_day = 86400 // step_s
    for first in range(0, len(rows), per_day):
        feed(store, meter, ReadKind.CURVE, rows[first : first + per_day], b"\x68curve")
    return energies


def suspect(reading: Reading) -> Reading:
    return replace(reading, quality=Quality.SUSPECT)

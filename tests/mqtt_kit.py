"""What tests of MQTT share: meters behind concentrators in a store, messages of them, a service on a broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from headend.ingest import EvidencePolicy, Ingest
from headend.model import Meter, MeterModel, Window
from headend.mqtt.canonical import CANONICAL
from headend.mqtt.interpret import Interpreter
from headend.mqtt.judge import Anchors
from headend.mqtt.place import Places
from headend.mqtt.service import Service
from headend.mqtt.settings import BrokerSettings
from headend.store import Store, registry
from headend.store.curve_reads import curve
from headend.store.registry import MeterRow

MODEL = MeterModel("concentrated", "hes-mqtt", Decimal(1_000_000), Decimal("15.84"))
BASE = 1_763_913_600  # a midnight of +08:00: 2025-11-24T00:00+08:00
NOW = datetime.fromtimestamp(BASE + 40_000, UTC)


def add_meters(store: Store, concentrators: Iterable[str] = ("C0001",), count: int = 3) -> list[Meter]:
    """Meters 1 to `count` behind each concentrator, addressed by number."""
    rows = [
        MeterRow(
            id=f"{name}-{number}",
            protocol="hes-mqtt",
            address=address_of(name, number),
            line=name,
            model=MODEL.name,
            clock_zone="+08:00",
            register_wrap=MODEL.register_wrap,
            curve_step_s=900,
        )
        for name in concentrators
        for number in range(1, count + 1)
    ]
    with store.write() as conn:
        registry.put_meters(conn, rows)
    with store.read() as conn:
        found = registry.meters(conn)
    return [Meter(r.key, r.id, r.address, r.protocol, r.line, MODEL, r.clock_zone) for r in found]


def address_of(concentrator: str, number: int) -> str:
    """The address of a concentrator's meter."""
    return f"{int(concentrator.lstrip('C') or 0):04d}{number:08d}"


def message(
    concentrator: str = "C0001",
    *,
    seq: int = 1,
    boot: int = 1,
    kind: str = "interval",
    cols: Sequence[Sequence[Any]] = (("1-0:1.8.0", "kWh", -2),),
    meters: Sequence[dict[str, Any]] = (),
    ts: int = BASE + 900,
    **more: Any,
) -> bytes:
    """A message of reads."""
    said = {"v": 1, "type": "reads", "con": concentrator, "mid": f"{concentrator}-{boot}-{seq}", "boot": boot}
    said |= {"seq": seq, "ts": ts, "kind": kind, "period": 900, "cols": cols, "meters": meters, **more}
    return json.dumps(said).encode()


def rows(address: str, *values: Sequence[Any]) -> dict[str, Any]:
    """One meter's part: (time, [values], bits) or (time, value)."""
    made = [[row[0], row[1] if isinstance(row[1], list) else [row[1]], row[2] if len(row) > 2 else 0] for row in values]
    return {"m": address, "r": made}


def interpreter(meters: Iterable[Meter], anchors: Anchors | None = None, **settings: Any) -> Interpreter:
    """What understands the messages of a broker called `test`."""
    return Interpreter(broker_settings(1, **settings), [CANONICAL], Places(meters), anchors or Anchors())


def broker_settings(port: int, **more: Any) -> BrokerSettings:
    """A broker on loopback called `test`."""
    return BrokerSettings("test", "127.0.0.1", port, **more)


@asynccontextmanager
async def served(store: Store, meters: Iterable[Meter], settings: BrokerSettings) -> AsyncIterator[Service]:
    """A service on a broker, connected."""
    ingest = Ingest(store, EvidencePolicy())
    ingest.start()
    service = Service(settings, [CANONICAL], list(meters), ingest, store)
    try:
        await service.start()
        async with asyncio.timeout(15):
            await service.client.connected.wait()
        yield service
    finally:
        await service.close()
        await ingest.close()


async def until(condition: Callable[[], bool], wait_s: float = 20.0) -> None:
    """Wait for what another process or thread does; nothing can be awaited for it."""
    async with asyncio.timeout(wait_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def points(store: Store, meter: Meter, quantity: str = "import_kwh") -> dict[int, tuple[int, int]]:
    """Units and quality by time of a meter's curve."""
    window = Window(datetime.fromtimestamp(BASE - 5 * 86_400, UTC), datetime.fromtimestamp(BASE + 60 * 86_400, UTC))
    with store.read() as conn:
        found = curve(conn, meter.key, quantity, window)
    return {int(p.at.timestamp()): (p.units, int(p.quality)) for p in found if p.units is not None}


def folder_of(path: Path, name: str) -> Path:
    """A folder below `path`, made."""
    made = path / name
    made.mkdir(parents=True, exist_ok=True)
    return made

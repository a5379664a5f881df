"""A head-end's MQTT side in a process of its own, to be killed: python -m tests.mqtt_daemon STORE PORT [VERSION]"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys

from headend.ingest import EvidencePolicy, Ingest
from headend.model import Meter
from headend.mqtt.canonical import CANONICAL
from headend.mqtt.service import Service
from headend.store import open_store, registry
from tests.mqtt_kit import MODEL, broker_settings


async def serve(url: str, port: int, version: int) -> None:
    store = open_store(url, migrate=False)
    with store.read() as conn:
        rows = registry.meters(conn)
    meters = [Meter(r.key, r.id, r.address, r.protocol, r.line, MODEL, r.clock_zone) for r in rows]
    ingest = Ingest(store, EvidencePolicy())
    ingest.start()
    service = Service(broker_settings(port, version=version), [CANONICAL], meters, ingest, store)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await service.start()
    await stop.wait()
    stats = service.intake.stats
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"new={stats.new} same={stats.same} waits={stats.store_waits} peak_kb={peak_kb}", flush=True)
    await service.close()
    await ingest.close()
    store.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 5))

"""MQTT end to end, beside what the broker and the bare client library can do at all, in one run.

    python -W ignore benchmarks/mqtt.py [--quick] [--postgresql URL]

Needs mosquitto and mosquitto_sub. A stored session is drained: what is measured is the taking, not the publishing.
mosquitto_sub is the broker's limit; paho with manual acknowledgement, which does nothing with a message, the library's.
decode: the canonical protocol decoded and checked, in memory. Into a store: everything, until it is committed and
acknowledged. sweep: one interval of 180 meters a message; days: whole days of 180 meters a message. The loss runs are
the tests of tests/test_mqtt_loss.py, marked slow.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from headend.app import calm_collector
from headend.ingest import EvidencePolicy, Ingest
from headend.mqtt.canonical import CANONICAL, decode
from headend.mqtt.service import Service
from headend.mqtt.settings import BrokerSettings
from headend.store import Store, open_store, registry
from headend.store.registry import MeterRow
from simulators.mqtt_bench import BenchLoad, build, publish
from simulators.mqtt_concentrator import Out
from simulators.mqtt_meters import ENERGY
from simulators.mqtt_runner import BrokerAddress
from tests.mqtt_kit import MODEL
from tests.mqtt_servers import RunningBroker, mosquitto

METERS = 180
FILTER = "hes/v1/+/up/reads"


class Rate(NamedTuple):
    """How long so many messages took."""

    messages: int
    seconds: float

    @property
    def each_second(self) -> float:
        return self.messages / self.seconds


def session(port: int, client_id: str) -> paho.Client:
    """A client with a session that outlives its connection."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, manual_ack=True)
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 3600
    properties.ReceiveMaximum = 65_535
    client.connect_async("127.0.0.1", port, clean_start=False, properties=properties)
    return client


def prepare(port: int, client_id: str) -> None:
    """Leave a session behind that the broker fills."""
    ready = threading.Event()
    client = session(port, client_id)
    client.on_connect = lambda c, *_: c.subscribe(FILTER, 1)
    client.on_subscribe = lambda *_: ready.set()
    client.loop_start()
    if not ready.wait(15):
        raise TimeoutError("the broker lets nobody in")
    client.disconnect()
    client.loop_stop()


def bare_paho(port: int, client_id: str, messages: int) -> Rate:
    """Take and acknowledge what waits, and do nothing with it."""
    over = threading.Event()
    first: list[float] = []
    count = [0]

    def take(client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        if not first:
            first.append(time.perf_counter())
        count[0] += 1
        client.ack(message.mid, 1)
        if count[0] == messages:
            over.set()

    client = session(port, client_id)
    client.on_message = take
    client.loop_start()
    if not over.wait(600):
        raise TimeoutError(f"{messages - count[0]} messages did not come")
    took = time.perf_counter() - first[0]
    client.disconnect()
    client.loop_stop()
    return Rate(messages, took)


def mosquitto_sub(port: int, client_id: str, messages: int) -> Rate:
    """The broker's own client."""
    command = [
        "mosquitto_sub",
        "-p",
        str(port),
        "-i",
        client_id,
        "-c",
        "-x",
        "3600",
        "-V",
        "5",
        "-q",
        "1",
        "-t",
        FILTER,
    ]
    began = time.perf_counter()
    subprocess.run([*command, "-C", str(messages)], check=True, stdout=subprocess.DEVNULL, timeout=600)
    return Rate(messages, time.perf_counter() - began)


def decoding(messages: list[Out]) -> Rate:
    now = datetime.now(UTC)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for out in messages:
            decode(out.topic, out.payload, now)
        best = min(best, time.perf_counter() - began)
    return Rate(len(messages), best)


def town(store: Store, load: BenchLoad) -> list[registry.MeterRow]:
    rows = [
        MeterRow(
            f"{con}-{meter}",
            "hes-mqtt",
            load.address(con, meter),
            load.name(con),
            MODEL.name,
            "+08:00",
            MODEL.register_wrap,
            900,
        )
        for con in range(load.concentrators)
        for meter in range(load.meters)
    ]
    with store.write() as conn:
        registry.put_meters(conn, rows)
        return registry.meters(conn)


async def into_store(url: str, port: int, client_id: str, load: BenchLoad) -> Rate:
    """Drain the session into a new store; until everything is acknowledged."""
    from headend.model import Meter

    store = open_store(url)
    meters = [Meter(r.key, r.id, r.address, r.protocol, r.line, MODEL, r.clock_zone) for r in town(store, load)]
    ingest = Ingest(store, EvidencePolicy())
    ingest.start()
    settings = BrokerSettings("bench", "127.0.0.1", port, client_id=client_id, resend=False)
    service = Service(settings, [CANONICAL], meters, ingest, store)
    began = time.perf_counter()
    await service.start()
    while service.intake.stats.messages < load.messages:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    took = time.perf_counter() - began
    stats = service.intake.stats
    assert (stats.new, stats.unknown) == (load.readings, 0), (stats.new, load.readings, stats.last_reason)
    await service.close()
    await ingest.close()
    store.close()
    return Rate(load.messages, took)


def measure(broker: RunningBroker, folder: Path, name: str, load: BenchLoad, postgresql: str) -> None:
    messages = build(load)
    size = sum(len(out.payload) for out in messages) // len(messages)
    print(f"\n{name}: {load.messages} messages of {size / 1000:.1f} kB, {load.readings} readings")
    drains = ["sub", "paho", "sqlite", *(["postgresql"] if postgresql else [])]
    for drain in drains:
        prepare(broker.port, f"{name}-{drain}")
    publish(BrokerAddress("127.0.0.1", broker.port), messages)
    readings = load.readings / load.messages

    def say(what: str, rate: Rate, base: Rate | None = None) -> None:
        ratio = f"  {rate.each_second / base.each_second:5.2f} of paho" if base else ""
        print(f"  {what:30} {rate.each_second:9.0f} messages/s {rate.each_second * readings:12.0f} readings/s{ratio}")

    say("mosquitto_sub", mosquitto_sub(broker.port, f"{name}-sub", load.messages))
    gc.collect()
    bare = bare_paho(broker.port, f"{name}-paho", load.messages)
    say("paho, manual acknowledgement", bare)
    say("decode and check", decoding(messages), bare)
    say(
        "into SQLite",
        asyncio.run(into_store(f"sqlite:///{folder / name}.db", broker.port, f"{name}-sqlite", load)),
        bare,
    )
    if postgresql:
        say("into PostgreSQL", asyncio.run(into_store(postgresql, broker.port, f"{name}-postgresql", load)), bare)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the messages")
    parser.add_argument(
        "--postgresql", default="", help="URL of an empty database for each of the loads, with {} in it"
    )
    options = parser.parse_args()
    calm_collector()
    less = 5 if options.quick else 1
    loads = {
        "sweep1": BenchLoad(messages=2_000 // less, meters=METERS, concentrators=10),
        "sweep6": BenchLoad(messages=1_000 // less, meters=METERS, concentrators=10, columns=ENERGY),
        "days": BenchLoad(messages=200 // less, meters=METERS, intervals=96, concentrators=10),
    }
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}, paho {paho.__package__ and _version()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with mosquitto(folder / "broker") as broker:
            for key, load in loads.items():
                measure(broker, folder, key, load, options.postgresql.format(key) if options.postgresql else "")


def _version() -> str:
    from importlib.metadata import version

    return version("paho-mqtt")


if __name__ == "__main__":
    main()

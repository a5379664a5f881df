"""Nothing a concentrator published is lost or doubled, whatever is killed: daemon, broker, database connections."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import create_engine, func, select, text

from headend.model import Meter
from headend.quantities import to_units
from headend.store import Store, open_store, schema
from simulators.mqtt_concentrator import Concentrator, ConcentratorSpec
from simulators.mqtt_meters import fleet
from simulators.mqtt_runner import BrokerAddress, Running, run_concentrator
from tests.mqtt_kit import BASE, add_meters, address_of, points
from tests.mqtt_servers import RunningBroker, mosquitto, mosquitto_program

pytestmark = pytest.mark.skipif(mosquitto_program() is None, reason="needs mosquitto")

METERS = 5


@dataclass
class Daemon:
    """The head-end's process; `kill` is SIGKILL and a new one."""

    url: str
    port: int
    version: int = 5
    process: subprocess.Popen[str] | None = None
    kills: int = 0

    def start(self) -> None:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "tests.mqtt_daemon",
            self.url,
            str(self.port),
            str(self.version),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate(timeout=20)
        self.kills += 1
        self.start()

    def stop(self) -> dict[str, int]:
        """End it in order; what it counted."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        told, _ = self.process.communicate(timeout=30)
        return {key: int(value) for key, value in (part.split("=") for part in told.split())}


@contextmanager
def running(daemon: Daemon) -> Iterator[Daemon]:
    daemon.start()
    try:
        yield daemon
    finally:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.communicate(timeout=20)


def cut_database(url: str) -> None:
    """End every connection of others to the database; SQLite has none to end."""
    if not url.startswith("postgresql"):
        return
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as conn:
        conn.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    engine.dispose()


@dataclass
class Field:
    """Concentrators that publish one interval of all their meters a message."""

    names: list[str]
    steps: int
    running: list[Running] = field(default_factory=list)

    async def start(self, broker: BrokerAddress) -> None:
        for name in self.names:
            meters = fleet(METERS, seed=int(name[1:]), pattern=f"{int(name[1:]):04d}{{n:08d}}")
            self.running.append(await run_concentrator(Concentrator(ConcentratorSpec(name), meters), broker))
        for one in self.running:
            one.repeat(2.0)

    async def publish(self, pause_s: float) -> None:
        for step in range(self.steps):
            for one in self.running:
                one.con.interval(BASE + 900 * step)
            await asyncio.sleep(pause_s)

    async def all_acknowledged(self, wait_s: float) -> None:
        async with asyncio.timeout(wait_s):
            while any(len(one.con.buffer) for one in self.running):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        for one in self.running:
            await one.stop()


def check_store(store: Store, meters: list[Meter], everyone: Field) -> int:
    """Every value there as it was published, none changed on the way, none twice; how many messages came again."""
    by_address = {meter.address: meter for meter in meters}
    expected: dict[str, dict[int, tuple[int, int]]] = {address: {} for address in by_address}
    for one in everyone.running:
        for truth in one.con.truths():
            expected[truth.address][truth.at_s] = (to_units(truth.value), 1)
    for address, values in expected.items():
        assert len(values) == everyone.steps
        assert points(store, by_address[address]) == values, address
    with store.read() as conn:
        assert conn.scalar(select(func.count()).select_from(schema.revision)) == 0
        assert conn.scalar(select(func.count()).select_from(schema.snapshot)) == 0
        assert conn.scalar(select(func.count()).select_from(schema.unplaced)) == 0
        stored: int = conn.scalar(select(func.count()).select_from(schema.message)) or 0
    return stored - everyone.steps * len(everyone.names)


async def storm(
    daemon: Daemon, broker: RunningBroker, everyone: Field, url: str, kills: int, pause_s: float, seed: int
) -> None:
    """Publish while daemon, broker and database connections are killed at random, `kills` times each."""
    address = BrokerAddress("127.0.0.1", broker.port)
    await everyone.start(address)
    random = Random(seed)
    what = ["daemon", "broker", "database"] * kills
    random.shuffle(what)
    publishing = asyncio.create_task(everyone.publish(pause_s))
    for victim in what:
        await asyncio.sleep(random.uniform(0.2, 1.2))
        if victim == "daemon":
            await asyncio.to_thread(daemon.kill)
        elif victim == "broker":
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
        else:
            await asyncio.to_thread(cut_database, url)
    await publishing
    await everyone.all_acknowledged(240)
    await everyone.stop()


def lose_nothing(url: str, folder: Path, *, concentrators: int, steps: int, kills: int, version: int = 5) -> int:
    store = open_store(url)
    names = [f"C{number:04d}" for number in range(1, concentrators + 1)]
    meters = add_meters(store, names, METERS)
    assert {m.address for m in meters} >= {address_of(names[0], n) for n in range(1, METERS + 1)}
    everyone = Field(names, steps)
    with mosquitto(folder / "broker") as broker, running(Daemon(url, broker.port, version)) as daemon:
        asyncio.run(storm(daemon, broker, everyone, url, kills, 0.012, seed=steps))
        daemon.stop()
    again = check_store(store, meters, everyone)
    store.close()
    assert daemon.kills == kills
    return again


def test_three_kills_each_lose_and_double_nothing(store_url: str, tmp_path: Path) -> None:
    again = lose_nothing(store_url, tmp_path, concentrators=4, steps=750, kills=3)
    assert again >= 0


def test_the_same_by_mqtt_3(new_sqlite_url: str, tmp_path: Path) -> None:
    lose_nothing(new_sqlite_url, tmp_path, concentrators=2, steps=400, kills=2, version=311)


@pytest.mark.slow
def test_eight_kills_each_in_20000_messages(store_url: str, tmp_path: Path) -> None:
    lose_nothing(store_url, tmp_path, concentrators=8, steps=2500, kills=8)

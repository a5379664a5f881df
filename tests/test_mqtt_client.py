"""The connection to a broker: kept, lost and found again; nothing acknowledged that is not stored; nothing piles up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from headend.errors import LineDown
from headend.mqtt.client import Client, Received
from headend.mqtt.settings import BrokerSettings, password_of
from headend.store import Store, open_store
from headend.store.unplaced import unplaced
from tests.mqtt_kit import BASE, add_meters, address_of, broker_settings, message, points, rows, served, until
from tests.mqtt_servers import Pki, RunningBroker, iotcore, mosquitto, mosquitto_program
from tests.servers import free_port

pytestmark = pytest.mark.skipif(mosquitto_program() is None, reason="needs mosquitto")

ONE = address_of("C0001", 1)
READS = "hes/v1/C0001/up/reads"


def now_utc() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def connected(settings: BrokerSettings, *filters: str) -> AsyncIterator[Client]:
    client = Client(settings, filters, clock=now_utc)
    client.start()
    try:
        async with asyncio.timeout(15):
            await client.connected.wait()
        yield client
    finally:
        await client.close()


async def taken(client: Client, count: int) -> list[Received]:
    found: list[Received] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += await client.take(count - len(found), 1 << 30)
    return found


@pytest.fixture
def broker(tmp_path: Path) -> Any:
    with mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.mark.parametrize("version", [5, 311])
def test_what_is_not_acknowledged_comes_again_and_what_is_does_not(broker: RunningBroker, version: Any) -> None:
    async def scenario() -> None:
        settings = broker_settings(broker.port, version=version)
        async with connected(settings, "t/#") as client, connected(replace(settings, client_id="other")) as other:
            for number in range(4):
                await other.publish(f"t/{number}", b"x")
            first = await taken(client, 4)
            assert client.ack(first[0])
            assert client.ack(first[1])
            await client.publish("flush", b"")  # the acknowledgements went before it
        async with connected(settings, "t/#") as client:
            again = await taken(client, 2)
            assert [one.topic for one in again] == ["t/2", "t/3"]
            assert client.stats.again == 2

    asyncio.run(scenario())


def test_an_acknowledgement_of_a_lost_connection_is_dropped(broker: RunningBroker) -> None:
    async def scenario() -> None:
        settings = broker_settings(broker.port)
        async with connected(settings, "t/#") as client, connected(replace(settings, client_id="other")) as other:
            await other.publish("t/1", b"x")
            (old,) = await taken(client, 1)
            generation = client.generation
            broker.stop()
            await until(lambda: not client.connected.is_set())
            assert client.stale(old) or client.generation == generation
            broker.start()
            await until(lambda: client.generation > generation and client.connected.is_set())
            assert client.stale(old)
            assert not client.ack(old)
            (again,) = await taken(client, 1)
            assert client.ack(again)
            assert client.stats.acknowledged == 1

    asyncio.run(scenario())


def test_a_broker_that_comes_late_is_found_and_the_reason_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        client = Client(broker_settings(port), ["t/#"], clock=now_utc)
        client.start()
        await until(lambda: client.stats.failures > 1)
        assert "Connection refused" in client.stats.last_error
        with pytest.raises(LineDown, match="no connection to the broker"):
            await client.publish("t/1", b"")
        with mosquitto(tmp_path / "late", port=port):
            await until(client.connected.is_set)
            assert client.stats.last_error == ""
            await client.close()

    asyncio.run(scenario())


def test_a_full_client_does_not_read_and_goes_on_when_there_is_room(broker: RunningBroker) -> None:
    async def scenario() -> None:
        settings = broker_settings(broker.port, max_waiting=10)
        async with connected(settings, "t/#") as client, connected(replace(settings, client_id="other")) as other:
            for number in range(100):
                await other.publish(f"t/{number}", b"x")
            await until(lambda: client.paused)
            assert client.waiting == len(client.messages) == 10
            for _ in range(100):
                (one,) = await taken(client, 1)
                assert client.waiting <= 10
                assert client.ack(one)
            assert client.stats.received == 100

    asyncio.run(scenario())


def test_a_session_full_of_messages_is_a_greeting(broker: RunningBroker) -> None:
    """The answer to our subscriptions comes behind what waits, and is not read until there is room."""

    async def scenario() -> None:
        settings = broker_settings(broker.port, max_waiting=10)
        async with connected(settings, "t/#"):
            pass
        async with connected(replace(settings, client_id="other")) as other:
            for number in range(100):
                await other.publish(f"t/{number}", b"x")
        client = Client(settings, ["t/#"], clock=now_utc)
        client.start()
        await until(lambda: client.paused)
        assert len(client.messages) == 10
        for _ in range(100):
            assert client.ack((await taken(client, 1))[0])
        assert (client.generation, client.stats.again) == (1, 0)
        await client.close()

    asyncio.run(scenario())


def test_bytes_are_bounded_as_well(broker: RunningBroker) -> None:
    async def scenario() -> None:
        settings = broker_settings(broker.port, max_waiting_bytes=1_000_000)
        async with connected(settings, "t/#") as client, connected(replace(settings, client_id="other")) as other:
            for number in range(12):
                await other.publish(f"t/{number}", bytes(300_000))
            await until(lambda: client.paused)
            assert client.waiting == 4
            for one in await taken(client, 4):
                client.ack(one)
            for _ in range(8):
                client.ack((await taken(client, 1))[0])

    asyncio.run(scenario())


def test_a_client_that_is_full_for_long_leaves_and_comes_back(broker: RunningBroker) -> None:
    async def scenario() -> None:
        settings = broker_settings(broker.port, max_waiting=10, keepalive_s=5)
        async with connected(settings, "t/#") as client, connected(replace(settings, client_id="other")) as other:
            for number in range(30):
                await other.publish(f"t/{number}", b"x")
            await until(lambda: client.stats.received == 10)
            held = client.messages[0]
            await until(lambda: not client.connected.is_set())
            assert client.messages == type(client.messages)()  # the broker has them
            seen: set[str] = set()
            while len(seen) < 30:
                (one,) = await taken(client, 1)
                seen.add(one.topic)
                client.ack(one)
            assert not client.ack(held)
            assert client.generation == 2

    asyncio.run(scenario())


def test_a_callback_that_breaks_is_told_and_the_message_comes_again(
    broker: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        settings = broker_settings(broker.port)
        async with connected(settings, "t/#") as client, connected(replace(settings, client_id="other")) as other:

            def breaks(_topic: str, _payload: bytes, _retained: bool) -> bool:
                raise RuntimeError("oops")

            client.on_arrival = breaks
            await other.publish("t/1", b"x")
            await until(lambda: client.stats.failures == 1)
            client.on_arrival = lambda _topic, _payload, _retained: False
            await other.publish("t/2", b"x")
            assert [one.topic for one in await taken(client, 1)] == ["t/2"]  # it lives
        async with connected(settings, "t/#") as client:
            assert [one.topic for one in await taken(client, 2)] == ["t/1", "t/2"]

    with caplog.at_level(logging.ERROR):
        asyncio.run(scenario())
    assert "a message could not be taken" in caplog.text


def test_the_system_time_of_a_broker_that_hangs_runs_out(broker: RunningBroker) -> None:
    async def scenario() -> None:
        async with connected(broker_settings(broker.port, keepalive_s=5), "t/#") as client:
            broker.pause()
            try:
                with pytest.raises(LineDown, match="no word from the broker"):
                    await client.publish("t/1", b"x", wait_s=0.5)
                await until(lambda: not client.connected.is_set(), 30)
            finally:
                broker.resume()
            await until(client.connected.is_set, 30)

    asyncio.run(scenario())


def test_iotcore_will_do(tmp_path: Path) -> None:
    async def scenario(port: int, version: Any) -> None:
        settings = broker_settings(port, version=version)
        async with connected(settings, "t/#") as client, connected(replace(settings, client_id="other")) as other:
            await other.publish("t/1", b"x")
            (one,) = await taken(client, 1)
            assert client.ack(one)

    with iotcore(tmp_path) as running:
        asyncio.run(scenario(running.port, 5))
        asyncio.run(scenario(running.port_311, 311))


# -- who we are --------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves a failed socket to Python
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_tls_with_certificates_and_what_is_wrong_with_others(tmp_path: Path) -> None:
    pki, stranger = Pki(tmp_path / "pki"), Pki(tmp_path / "stranger")
    server, own, wrong = pki.issue("127.0.0.1", server=True), pki.issue("headend"), stranger.issue("headend")
    port = free_port()
    conf = (
        f"listener {port} 127.0.0.1\nallow_anonymous true\ncafile {pki.ca}\ncertfile {server.cert}\n"
        f"keyfile {server.key}\nrequire_certificate true\nuse_identity_as_username true\n"
    )
    tls = broker_settings(port, tls=True, ca=pki.ca, cert=own.cert, key=own.key)

    async def scenario() -> None:
        async with connected(tls, "t/#") as client:
            for number in range(200):  # more than one record: what is decrypted already must not wait
                await client.publish(f"t/{number}", bytes(2_000))
            for one in await taken(client, 200):
                assert client.ack(one)
        for settings, reason in (
            (replace(tls, ca=stranger.ca), "the broker's certificate is not trusted"),
            (replace(tls, cert=wrong.cert, key=wrong.key), ""),
            (replace(tls, key=wrong.key), "certificate or key can't be used"),
            (replace(tls, ca=tmp_path / "none"), "the CA file can't be used"),
            (replace(tls, cert=None, key=None), ""),
        ):
            client = Client(settings, ["t/#"], clock=now_utc)
            client.start()
            await until(lambda client=client: client.stats.failures > 0)  # type: ignore[misc]
            assert reason in client.stats.last_error
            assert not client.connected.is_set()
            await client.close()

    with mosquitto(tmp_path / "broker", conf, port=port):
        asyncio.run(scenario())


def test_a_password_is_read_when_needed_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "password"
    file.write_text("S3cret-of-file\n")
    settings = broker_settings(1, username="headend", password_file=file)
    assert password_of(settings) == "S3cret-of-file"
    monkeypatch.setenv("BROKER_PASSWORD", "S3cret")
    by_name = broker_settings(1, username="headend", password_env="BROKER_PASSWORD")
    assert password_of(by_name) == "S3cret"
    assert "S3cret" not in repr(by_name) + repr(settings)
    monkeypatch.delenv("BROKER_PASSWORD")
    with pytest.raises(LineDown, match="BROKER_PASSWORD is not set"):
        password_of(by_name)
    file.unlink()
    with pytest.raises(LineDown, match="the password file password can't be read"):
        password_of(settings)

    async def refused(port: int) -> None:
        monkeypatch.setenv("BROKER_PASSWORD", "S3cret")
        for version in (5, 311):
            wrong = broker_settings(port, username="headend", password_env="BROKER_PASSWORD", version=version)
            client = Client(wrong, ["t/#"], clock=now_utc)
            client.start()
            await until(lambda client=client: client.stats.failures > 0)  # type: ignore[misc]
            assert "refuses us: Not authorized" in client.stats.last_error
            await client.close()

    (tmp_path / "users").write_text("")
    conf = f"listener {(port := free_port())} 127.0.0.1\nallow_anonymous false\npassword_file {tmp_path / 'users'}\n"
    with mosquitto(tmp_path / "broker", conf, port=port), caplog.at_level(logging.DEBUG):
        asyncio.run(refused(port))
    assert "S3cret" not in caplog.text


# -- into the store ----------------------------------------------------------------------------------------------------


def test_the_stream_goes_on_past_whatever_is_sent(broker: RunningBroker, sqlite_store: Store) -> None:
    meters = add_meters(sqlite_store)
    good = message(seq=1, meters=[rows(ONE, (BASE, 100))])

    async def scenario() -> None:
        async with served(sqlite_store, meters, broker_settings(broker.port)) as service:
            for payload in (b"", b"{", bytes(10_000_000), good):
                await service.publish(READS, payload)
            await service.publish("hes/v1/C0009/up/reads", good)
            await until(lambda: service.intake.stats.messages == 5)
            assert service.client.waiting == 0
            assert service.intake.heard["C0001"].upto == 1

    asyncio.run(scenario())
    assert points(sqlite_store, meters[0]) == {BASE: (10_000, 1)}
    with sqlite_store.read() as conn:
        kept = unplaced(conn, channels="mqtt ")
    assert len(kept) == 4
    assert max(len(row.payload) for row in kept) == 65_536
    assert any("10000000 bytes are more than max_message_bytes" in row.reason for row in kept)


def test_acknowledged_to_the_concentrator_once_stored_and_asked_for_what_is_missing(
    broker: RunningBroker, sqlite_store: Store
) -> None:
    meters = add_meters(sqlite_store)
    heard: list[tuple[str, dict[str, Any]]] = []

    def hear(topic: str, payload: bytes, _retained: bool) -> None:
        heard.append((topic.rpartition("/")[2], json.loads(payload)))

    async def scenario() -> None:
        async with served(sqlite_store, meters, broker_settings(broker.port)) as service:
            service.subscribe("hes/v1/C0001/down/+", hear)
            for seq in (1, 2, 5):
                at = BASE + 900 * seq
                await service.publish(READS, message(seq=seq, boot=9, meters=[rows(ONE, (at, 100 + seq))]))
            await until(lambda: any(what == "cmd" for what, _ in heard))
            last = [said for what, said in heard if what == "ack"][-1]
            assert (last["boot"], last["upto"], last["missing"]) == (9, 5, [3, 4])
            ask = next(said for what, said in heard if what == "cmd")
            assert (ask["op"], ask["args"]) == ("resend", {"boot": 9, "seq": [3, 4]})
            for seq in (4, 3):
                at = BASE + 900 * seq
                await service.publish(READS, message(seq=seq, boot=9, meters=[rows(ONE, (at, 100 + seq))]))
            await until(lambda: heard[-1][1].get("upto") == 5 and "missing" not in heard[-1][1])

    asyncio.run(scenario())
    assert len(points(sqlite_store, meters[0])) == 5


def test_a_daemon_takes_its_own_concentrators_only(broker: RunningBroker, sqlite_store: Store) -> None:
    meters = add_meters(sqlite_store, ("C0001", "C0002"))

    async def scenario() -> None:
        everybody = broker_settings(broker.port)
        async with served(sqlite_store, meters, everybody):
            pass  # its session still holds filters for all
        async with served(sqlite_store, meters, replace(everybody, concentrators=("C0001",))) as service:
            assert service.owns("C0001")
            assert not service.owns("C0002")
            for name in ("C0002", "C0001"):
                payload = message(name, meters=[rows(address_of(name, 1), (BASE, 100))])
                await service.publish(f"hes/v1/{name}/up/reads", payload)
            await until(lambda: service.intake.stats.messages == 1)
            assert list(service.concentrators) == ["C0001"]

    asyncio.run(scenario())


def test_retained_state_is_known_after_a_restart(broker: RunningBroker, sqlite_store: Store) -> None:
    meters = add_meters(sqlite_store)
    state = {"v": 1, "type": "state", "con": "C0001", "mid": "x", "ts": BASE, "online": True, "fw": "2.1", "meters": 3}

    async def scenario() -> None:
        settings = broker_settings(broker.port)
        async with served(sqlite_store, meters, settings) as service:
            assert service.client._paho is not None
            service.client._paho.publish("hes/v1/C0001/up/state", json.dumps(state), 1, retain=True)
            await until(lambda: "C0001" in service.concentrators)
        async with served(sqlite_store, meters, settings) as service:
            await until(lambda: "C0001" in service.concentrators)
            (told,) = service.status()["concentrators"]
            assert (told["online"], told["firmware"], told["meters"]) == (True, "2.1", 3)

    asyncio.run(scenario())


# -- without a database ------------------------------------------------------------------------------------------------


class Gate:
    """A way to a database that can be shut: connections are cut and new ones refused, as when the server is down."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def shut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection("127.0.0.1", self.to)
        self._writers |= {writer, out}
        with contextlib.suppress(asyncio.CancelledError):  # the loop ends with the test
            await asyncio.gather(_pipe(reader, out), _pipe(there, writer))
        self._writers -= {writer, out}


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def outage(
    url: str, broker: RunningBroker, *, down_s: float, messages: int, watch: Callable[[int], None]
) -> tuple[int, float]:
    """Publish while the database is away for `down_s`; how many came in all, and seconds to catch up."""
    head, _, name = url.rpartition("/")
    gate = Gate(int(head.rpartition(":")[2]))
    await gate.open()
    store = await asyncio.to_thread(open_store, f"{head.rpartition(':')[0]}:{gate.port}/{name}?connect_timeout=2")
    meters = await asyncio.to_thread(add_meters, store)
    settings = broker_settings(broker.port, max_waiting=50, keepalive_s=5)
    other = replace(settings, client_id="concentrator")
    async with served(store, meters, settings) as service, connected(other) as con:
        await con.publish(READS, message(seq=1, meters=[rows(ONE, (BASE, 100))]))
        await until(lambda: service.intake.stats.messages == 1)
        await gate.shut()
        for seq in range(2, messages + 1):
            at = BASE + 900 * (seq - 1)
            await con.publish(READS, message(seq=seq, meters=[rows(ONE, (at, 99 + seq))]))
            watch(service.client.waiting)
            if seq % 20 == 0:
                await asyncio.sleep(down_s * 20 / messages)
        assert service.intake.stats.messages == 1
        assert service.intake.stats.store_waits > 0
        await gate.open()
        began = asyncio.get_running_loop().time()
        await until(lambda: service.intake.heard["C0001"].upto == messages, 60)
        took_s = asyncio.get_running_loop().time() - began
    await asyncio.to_thread(store.close)
    await gate.shut()
    return messages, took_s


def test_a_database_that_is_away_delays_and_loses_nothing(new_pg_url: str, broker: RunningBroker) -> None:
    waiting: list[int] = []
    messages, _ = asyncio.run(outage(new_pg_url, broker, down_s=8.0, messages=400, watch=waiting.append))
    assert max(waiting) <= 50
    store = open_store(new_pg_url)
    (meter,) = [m for m in add_meters(store) if m.address == ONE]
    assert len(points(store, meter)) == messages
    store.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_minutes_without_a_database(new_pg_url: str, broker: RunningBroker) -> None:
    waiting: list[int] = []
    messages, took_s = asyncio.run(outage(new_pg_url, broker, down_s=600.0, messages=5_000, watch=waiting.append))
    assert max(waiting) <= 50
    assert took_s < 60
    store = open_store(new_pg_url)
    (meter,) = [m for m in add_meters(store) if m.address == ONE]
    assert len(points(store, meter)) == messages
    store.close()

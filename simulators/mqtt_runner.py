"""MQTT clients for the simulators: paho in a thread of its own, everything else in the asyncio loop that started it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from simulators.mqtt_concentrator import Concentrator, Out

__all__ = ["BrokerAddress", "Device", "Peer", "Running", "make_client", "run_concentrator", "run_device"]

_VERSIONS = {5: MQTTProtocolVersion.MQTTv5, 311: MQTTProtocolVersion.MQTTv311}


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is and how to get in. version: 5 or 311. ca, cert, key: for TLS, files."""

    host: str
    port: int
    version: int = 5
    username: str = ""
    password: str = ""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def make_client(broker: BrokerAddress, client_id: str) -> mqtt.Client:
    """A paho client for `broker` with a clean session; not connected."""
    version = _VERSIONS[broker.version]
    more: dict[str, Any] = {} if broker.version == 5 else {"clean_session": True}
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=version, **more)
    if broker.username:
        client.username_pw_set(broker.username, broker.password or None)
    if broker.ca is not None:
        context = ssl.create_default_context(cafile=str(broker.ca))
        if broker.cert is not None:
            context.load_cert_chain(broker.cert, broker.key)
        client.tls_set_context(context)
    return client


class Peer:
    """One client with a clean session that connects again whenever it is cut off.

    hear: called in the loop with each message. connected, disconnected: called in the loop. `refused` holds the reason
    code of every publish the broker refused (MQTT 5 only). retry_s: wait after a failed or lost connection.
    """

    def __init__(
        self,
        broker: BrokerAddress,
        client_id: str,
        *,
        subscriptions: Sequence[str] = (),
        hear: Callable[[str, bytes], None] | None = None,
        connected: Callable[[], None] | None = None,
        disconnected: Callable[[], None] | None = None,
        will: Out | None = None,
        retry_s: int = 1,
    ) -> None:
        self.broker = broker
        self.refused: list[int] = []
        self._subscriptions = tuple(subscriptions)
        self._hear = hear or (lambda _topic, _payload: None)
        self._connected = connected or (lambda: None)
        self._disconnected = disconnected or (lambda: None)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._flying = 0
        self._client = self._make(client_id, will, retry_s)

    def _make(self, client_id: str, will: Out | None, retry_s: int) -> mqtt.Client:
        client = make_client(self.broker, client_id)
        client.max_inflight_messages_set(200)
        client.reconnect_delay_set(retry_s, max(retry_s, 5))
        if will is not None:
            client.will_set(will.topic, will.payload, 1, will.retain)
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: self._call(self._is_down)
        client.on_subscribe = lambda *_: self._call(self._is_ready)
        client.on_publish = lambda _c, _u, _mid, reason, _p: self._call(self._landed, reason.value)
        client.on_message = lambda _c, _u, message: self._call(self._hear, message.topic, bytes(message.payload))
        return client

    # -- in paho's thread ----------------------------------------------------------------------------------------

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(function, *args)

    def _on_connect(
        self, client: mqtt.Client, _data: Any, _flags: mqtt.ConnectFlags, reason: ReasonCode, _more: Any
    ) -> None:
        if reason.is_failure:
            return
        if self._subscriptions:
            client.subscribe([(topic, 1) for topic in self._subscriptions])
        else:
            self._call(self._is_ready)

    # -- in the loop ---------------------------------------------------------------------------------------------

    def _is_ready(self) -> None:
        self._ready.set()
        self._connected()

    def _is_down(self) -> None:
        if self._ready.is_set():
            self._ready.clear()
            self._disconnected()

    def _landed(self, reason: int) -> None:
        self._flying -= 1
        if reason >= 0x80:
            self.refused.append(reason)
        if self._flying <= 0:
            self._quiet.set()

    async def start(self, timeout_s: float | None = 15.0) -> None:
        """Connect and subscribe. timeout_s: TimeoutError when it takes longer; None not to wait at all."""
        self._loop = asyncio.get_running_loop()
        self._client.connect_async(self.broker.host, self.broker.port, 30)
        self._client.loop_start()
        if timeout_s is not None:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._ready.wait()
            except TimeoutError:
                await self.stop()
                raise

    async def until_ready(self) -> None:
        """Wait until it has a session."""
        await self._ready.wait()

    def publish(self, out: Out) -> None:
        """Publish with QoS 1; kept and sent again by the client until the broker has it."""
        self._flying += 1
        self._quiet.clear()
        self._client.publish(out.topic, out.payload, 1, out.retain)

    async def flushed(self) -> None:
        """Wait until the broker has acknowledged everything published so far."""
        await self._quiet.wait()

    async def stop(self, *, politely: bool = True) -> None:
        """Disconnect; not politely: as a power cut does, so that the last will is published."""
        self._loop, loop = None, asyncio.get_running_loop()
        if politely:
            self._client.disconnect()
        else:
            sock = self._client.socket()
            self._client.reconnect_delay_set(1, 1)
            self._client._reconnect_on_failure = False
            if isinstance(sock, socket.socket):
                sock.shutdown(socket.SHUT_RDWR)
        await loop.run_in_executor(None, self._client.loop_stop)
        if self._ready.is_set():
            self._ready.clear()
            self._disconnected()


class Running:
    """A concentrator on a broker. `peer` is its present client."""

    def __init__(self, con: Concentrator, broker: BrokerAddress) -> None:
        self.con = con
        self.broker = broker
        self.peer = self._peer()
        self._recording: asyncio.Task[None] | None = None
        self._repeating: asyncio.Task[None] | None = None

    def _peer(self) -> Peer:
        con = self.con
        peer = Peer(
            self.broker,
            con.spec.name,
            subscriptions=(con.subscription,),
            hear=con.hear,
            connected=con.connected,
            disconnected=con.disconnected,
            will=con.will(),
        )
        con.emit = peer.publish
        return peer

    async def start(self, timeout_s: float | None = 15.0) -> None:
        """Connect; what is kept goes out. timeout_s: as `Peer.start`."""
        await self.peer.start(timeout_s)

    async def stop(self) -> None:
        """Disconnect and close the buffer."""
        self.record(0)
        self.repeat(0)
        await self.peer.stop()
        self.con.buffer.close()

    async def go_offline(self, *, politely: bool = False) -> None:
        """Lose the connection; what is said meanwhile is kept."""
        await self.peer.stop(politely=politely)

    async def go_online(self) -> None:
        """Come back with a new connection."""
        self.peer = self._peer()
        await self.peer.start()

    def record(self, every_s: float) -> None:
        """Send the interval that is due, look every so many (real) seconds; 0 to stop."""
        if self._recording is not None:
            self._recording.cancel()
            self._recording = None
        if every_s:
            self._recording = asyncio.get_running_loop().create_task(self._record(every_s))

    def repeat(self, every_s: float) -> None:
        """Send everything again that is not acknowledged whenever no acknowledgement came for so long; 0 to stop."""
        if self._repeating is not None:
            self._repeating.cancel()
            self._repeating = None
        if every_s:
            self._repeating = asyncio.get_running_loop().create_task(self._repeat(every_s))

    async def _repeat(self, every_s: float) -> None:
        con = self.con
        while True:
            acks = con.done["acks"]
            await asyncio.sleep(every_s)
            if con.online and len(con.buffer) and con.done["acks"] == acks:
                con.repeat()

    async def _record(self, every_s: float) -> None:
        con = self.con
        last_s = con.believed_s() // con.period_s * con.period_s
        while True:
            await asyncio.sleep(every_s)
            due_s = con.believed_s() // con.period_s * con.period_s
            for at_s in range(last_s + con.period_s, due_s + 1, con.period_s):
                con.interval(at_s)
            last_s = max(last_s, due_s)


class Device(Protocol):
    """An Acrel gateway, a DTU: what listens at one topic and says things."""

    emit: Callable[[Out], None]

    @property
    def subscription(self) -> str: ...

    def hear(self, topic: str, payload: bytes) -> None: ...

    def connected(self) -> None: ...

    def disconnected(self) -> None: ...


async def run_device(device: Device, broker: BrokerAddress, client_id: str) -> Peer:
    """Connect a device; its client, started."""
    peer = Peer(
        broker,
        client_id,
        subscriptions=(device.subscription,),
        hear=device.hear,
        connected=device.connected,
        disconnected=device.disconnected,
    )
    device.emit = peer.publish
    await peer.start()
    return peer


async def run_concentrator(con: Concentrator, broker: BrokerAddress) -> Running:
    """Connect a concentrator; what runs, started."""
    running = Running(con, broker)
    await running.start()
    return running

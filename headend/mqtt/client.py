"""One connection to one broker, run by the event loop itself, without a thread: back-pressure is not to read.

A message is acknowledged by whoever took it, once it is stored. Acknowledgements of a connection that has gone are
dropped: the broker sends those messages again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final

from headend.errors import HeadendError, LineDown
from headend.mqtt import library
from headend.mqtt.received import ClientStats, Held, Received
from headend.mqtt.settings import BrokerSettings
from headend.mqtt.tls import reason_of

__all__ = ["Client", "ClientStats", "Received"]

log = logging.getLogger(__name__)

_RESTS_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)  # between attempts to connect, each varied by a half
_LASTING_S: Final = 30.0  # a connection that lasted so long was a good one
_GREETING_S: Final = 10.0  # the broker's CONNACK and SUBACK must come within
_BURST: Final = 64  # messages taken at one turn of the loop
_KEPT_BYTES: Final = 65_536  # of a message that is too large


class Client:
    """A broker, held on to until `close`. `messages` holds what came and was not taken yet, oldest first.

    `take` waits for messages, `ack` acknowledges one, `publish` returns once the broker has it. For one event loop.
    on_lost: told why a connection ended. on_arrival: shown topic, payload and retained; True: nobody else wants it.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        filters: Iterable[str],
        *,
        clock: Callable[[], datetime],
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.stats = ClientStats()
        self.messages: deque[Received] = deque()
        self.connected = asyncio.Event()
        self._filters = list(dict.fromkeys(filters))
        self._clock = clock
        self._told_connected = on_connected
        self.on_lost: Callable[[str], None] = lambda _why: None
        self.on_arrival: Callable[[str, bytes, bool], bool] = lambda _topic, _payload, _retained: False
        self._generation = 0
        self._held = Held(settings)
        self._arrived = asyncio.Event()
        self._gone = asyncio.Event()
        self._reading = False
        self._resume = asyncio.Event()
        self._greeting: asyncio.Future[str] | None = None
        self._published: dict[int, asyncio.Future[bool]] = {}
        self._task: asyncio.Task[None] | None = None
        self._paho: library.Paho | None = None
        self._socket: Any = None
        self._fd = -1  # of the socket while it is watched
        self._subscribing: set[int] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def generation(self) -> int:
        """The number of the connection there is, or was last."""
        return self._generation

    @property
    def waiting(self) -> int:
        """Messages of this connection that are not acknowledged."""
        return len(self._held)

    @property
    def paused(self) -> bool:
        """Whether the socket is not read because too much waits."""
        return self.connected.is_set() and not self._reading

    def start(self) -> None:
        """Connect, and connect again whenever the connection is lost. Call it within the event loop."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._hold())

    async def close(self) -> None:
        """Let go of the broker; what it keeps for us, it keeps."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._leave()

    async def take(self, most: int, most_bytes: int) -> list[Received]:
        """Up to `most` messages of together `most_bytes` (but one at least), oldest first; waits for the first."""
        self._resume.set()
        while not self.messages:
            self._arrived.clear()
            await self._arrived.wait()
        taken = [self.messages.popleft()]
        room = most_bytes - len(taken[0].payload)
        while self.messages and len(taken) < most and (room := room - len(self.messages[0].payload)) >= 0:
            taken.append(self.messages.popleft())
        return taken

    def stale(self, message: Received) -> bool:
        """Whether the connection `message` came by has gone: it will come again."""
        return message.qos > 0 and message.generation != self._generation

    def ack(self, message: Received) -> bool:
        """Acknowledge it; False, and nothing is sent, if its connection has gone."""
        if message.generation != self._generation:
            return False
        self._held.drop(message.token)
        if message.qos and self._paho is not None and self._socket is not None:
            self._paho.ack(message.token & 0xFFFF, message.qos)
            self.stats.acknowledged += 1
        if not self._reading and not self._gone.is_set() and self._held.room(0.5):
            self._read_on()
        return True

    async def publish(
        self, topic: str, payload: bytes, qos: int = 1, *, wait_s: float = 10.0, expiry_s: int | None = None
    ) -> bool:
        """Publish a message; returns once the broker took it (QoS 1), or it was handed to the socket (QoS 0).

        False if the broker said that nobody listens there (MQTT 5). expiry_s: the broker drops it if it could not
        deliver it within so long (MQTT 5; in 3.1.1 it is kept for who is away). `LineDown` when there is no connection,
        or the broker refuses it (MQTT 5), or says nothing within `wait_s`.
        """
        where = f"broker {self.settings.name}"
        if self._paho is None or not self.connected.is_set():
            raise LineDown("there is no connection to the broker", where=where, remedy="see `headend mqtt status`")
        try:
            info = self._paho.publish(topic, payload, qos, properties=library.expiring(self.settings, expiry_s))
        except ValueError as error:
            raise LineDown(f"can't publish on {topic!r}: {error}", where=where) from error
        self.stats.published += 1
        if qos == 0:
            return True
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._published[info.mid] = done
        try:
            async with asyncio.timeout(wait_s):
                return await done
        except TimeoutError:
            raise LineDown(f"no word from the broker on {topic} within {wait_s:g} s", where=where) from None
        finally:
            self._published.pop(info.mid, None)

    def send(self, topic: str, payload: bytes, qos: int = 1) -> bool:
        """Publish without waiting; False when there is no connection. For what is said again anyway."""
        if self._paho is None or not self.connected.is_set():
            return False
        self._paho.publish(topic, payload, qos)
        self.stats.published += 1
        return True

    def drop_filters(self, filters: list[str]) -> None:
        """Tell the broker to forget filters its session has kept from before."""
        if self._paho is not None and self._fd >= 0 and filters:
            self._paho.unsubscribe(filters)

    def add_filter(self, text: str) -> None:
        """Take messages of one more topic filter as well."""
        if text in self._filters:
            return
        self._filters.append(text)
        if self._paho is not None and self.connected.is_set():
            self._subscribe(self._paho, [text])

    # -- the connection ------------------------------------------------------------------------------------------------

    async def _hold(self) -> None:
        """Connect, stay, connect again; never ends by itself."""
        failed = 0
        while True:
            since_s = asyncio.get_running_loop().time()
            full = False
            try:
                await self._connect()
                full = await self._stay()
            except HeadendError as error:
                self._say(str(error))
            except Exception as error:
                log.exception("mqtt %s: the connection failed", self.settings.name)
                self._say(f"{type(error).__name__}: {error}")
            finally:
                self._leave()
            if full:  # the broker keeps what comes until the store has room
                self._forget()
                self._resume.clear()
                await self._resume.wait()
            # Many clients that lost one broker must not all come back at once.
            lasted_s = asyncio.get_running_loop().time() - since_s
            failed = 0 if lasted_s > _LASTING_S else failed
            rest_s = _RESTS_S[min(failed, len(_RESTS_S) - 1)]
            failed += 1
            await asyncio.sleep(rest_s * random.uniform(0.5, 1.0))  # noqa: S311

    def _forget(self) -> None:
        """Let go what waits of the last connection: the broker sends it again. What it does not (QoS 0), stays."""
        kept = [message for message in self.messages if not message.qos]
        self.messages.clear()
        self.messages.extend(kept[: self.settings.max_waiting])
        self._held.clear()

    async def _connect(self) -> None:
        assert self._loop is not None
        where = f"broker {self.settings.name}"
        client = await asyncio.to_thread(library.new_client, self.settings, self)
        self._greeting = self._loop.create_future()
        self._gone.clear()
        self._forget()
        self._generation += 1
        try:
            await asyncio.to_thread(client.reconnect)  # it blocks: name lookup, TCP, TLS
        except (OSError, ValueError) as error:
            what = f"can't connect to {self.settings.host}:{self.settings.port}: {reason_of(error)}"
            remedy = "is the broker up, and are address and TLS settings right?"
            raise LineDown(what, where=where, remedy=remedy) from None
        self._paho, self._socket = client, client.socket()
        if self._socket is None:
            raise LineDown("the connection closed at once", where=where)
        self._fd = self._socket.fileno()
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._write_on()
        self._read_on()
        try:
            async with asyncio.timeout(_GREETING_S):
                refusal = await self._greeting
        except TimeoutError:
            raise LineDown(f"no greeting from the broker within {_GREETING_S:g} s", where=where) from None
        if refusal:
            raise LineDown(refusal, where=where, remedy="check client id, user, password and the broker's rules")
        self.stats.connections += 1
        self.stats.last_error = ""
        self.connected.set()
        self._told_connected()

    async def _stay(self) -> bool:
        """Keep the connection alive until it is lost (False), or was not read for so long that its pings can't have
        been heard (True)."""
        quiet_s = 0.0
        while not self._gone.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._gone.wait()
            quiet_s = 0.0 if self._reading else quiet_s + 1.0
            if quiet_s > self.settings.keepalive_s / 2:
                log.info("mqtt %s: left until the store has room", self.settings.name)
                return True
            if self._reading and self._paho is not None and not self._gone.is_set():
                self._check(self._paho.loop_misc())
        return False

    def _leave(self) -> None:
        """Close the connection, in order if that can be done at once."""
        client, self._paho = self._paho, None
        self._gone.set()
        was_connected = self.connected.is_set()
        self.connected.clear()
        sock, fd = self._socket, self._fd
        if client is not None and fd >= 0:
            with contextlib.suppress(Exception):
                client.disconnect()
                client.loop_write()
        self._unwatch()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()
        self._socket = None
        lost = LineDown("the connection to the broker was lost", where=f"broker {self.settings.name}")
        for done in self._published.values():
            if not done.done():
                done.set_exception(lost)
        self._published.clear()
        if was_connected:
            self.on_lost(self.stats.last_error or "the connection was closed")

    def _unwatch(self) -> None:
        """Take the socket from the event loop: by its number, before that goes to another one."""
        fd, self._fd, self._reading = self._fd, -1, False
        if fd >= 0 and self._loop is not None:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)

    def _say(self, reason: str) -> None:
        """Once for each reason in a row."""
        self.stats.failures += 1
        if reason != self.stats.last_error:
            log.warning("mqtt %s: %s", self.settings.name, reason)
        self.stats.last_error = reason

    # -- called by the library. What they raise is told, never lost ---------------------------------------------------

    def on_connect(self, client: library.Paho, _data: Any, _flags: Any, reason: library.Reason, _more: Any) -> None:
        if reason.is_failure or not self._filters:
            self._greet(f"the broker refuses us: {reason}" if reason.is_failure else "")
        else:
            self._subscribe(client, self._filters)

    def _subscribe(self, client: library.Paho, filters: list[str]) -> None:
        self._subscribing.update(library.subscribe(client, self.settings, filters))

    def on_subscribe(self, _client: Any, _data: Any, mid: int, reasons: list[library.Reason], _properties: Any) -> None:
        self._subscribing.discard(mid)
        refused = sorted({str(reason) for reason in reasons if reason.is_failure})
        if refused:
            self._greet(f"the broker refuses a subscription: {', '.join(refused)}")
        elif not self._subscribing:
            self._greet("")

    def _greet(self, refusal: str) -> None:
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_result(refusal)
        elif refusal:
            self._say(refusal)

    def on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: library.Reason, _properties: Any) -> None:
        words = f"the broker closed the connection: {reason}" if flags.is_disconnect_packet_from_server else ""
        self._lost(words or f"the connection was lost: {reason}")

    def _lost(self, why: str) -> None:
        self._unwatch()
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_result(why)
        elif not self._gone.is_set():
            self._say(why)
        self._gone.set()

    def on_socket_close(self, _client: Any, _data: Any, sock: Any) -> None:
        if sock is self._socket:
            self._unwatch()

    def on_message(self, _client: Any, _data: Any, message: library.PahoMessage) -> None:
        try:
            self._received(message)
        except Exception:
            # Unacknowledged: the broker sends it again at the next connection.
            log.exception("mqtt %s: a message could not be taken", self.settings.name)
            self.stats.failures += 1

    def _received(self, message: library.PahoMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "?"
        payload, size = bytes(message.payload), len(message.payload)
        if size > self.settings.max_message_bytes:
            payload = payload[:_KEPT_BYTES]
        token = self.stats.received << 16 | message.mid
        self.stats.count(size, again=message.dup)
        if self.on_arrival(topic, payload, message.retain):
            if message.qos and self._paho is not None:
                self._paho.ack(message.mid, message.qos)
            return
        self._held.add(token, len(payload))
        now, generation = self._clock(), self._generation
        self.messages.append(Received(topic, payload, message.retain, now, size, generation, token, message.qos))
        self._arrived.set()

    def on_publish(self, _client: Any, _data: Any, mid: int, reason: library.Reason, _properties: Any) -> None:
        done = self._published.get(mid)
        if done is None or done.done():
            return
        if reason.is_failure:
            self.stats.refused += 1
            done.set_exception(LineDown(f"the broker refuses it: {reason}", where=f"broker {self.settings.name}"))
        else:
            done.set_result(reason.value != library.NOBODY_LISTENS)

    def on_want_write(self, _client: Any, _data: Any, _socket: Any) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._write_on)  # while connecting it comes from another thread

    def on_wrote(self, _client: Any, _data: Any, sock: Any) -> None:
        if self._loop is not None and self._socket is sock and self._fd >= 0:
            self._loop.remove_writer(self._fd)

    # -- called by the event loop --------------------------------------------------------------------------------------

    def _read_on(self) -> None:
        if self._fd >= 0 and self._loop is not None and not self._reading:
            self._loop.add_reader(self._fd, self._readable)
            self._reading = True
            if library.buffered(self._socket):
                self._loop.call_soon(self._readable)  # decrypted already: the socket will not tell

    def _stop_reading(self) -> None:
        if self._fd >= 0 and self._loop is not None and self._reading:
            self._loop.remove_reader(self._fd)
        self._reading = False

    def _readable(self) -> None:
        try:
            self._read_some()
        except Exception as error:  # the library stumbled over what the broker sent
            log.exception("mqtt %s: reading failed", self.settings.name)
            self._lost(f"reading failed: {type(error).__name__}: {error}")

    def _read_some(self) -> None:
        client = self._paho
        for _ in range(_BURST):
            if client is None or not self._reading:
                return
            before = self.stats.received
            if not self._check(client.loop_read()):
                return
            if not self._held.room(1.0):
                self._stop_reading()
                self._greet("")  # a resumed session fills us before the answer to our subscriptions can be read
                return
            if self.stats.received == before and not library.buffered(self._socket):
                return
        if self._loop is not None and self._reading and library.buffered(self._socket):
            self._loop.call_soon(self._readable)

    def _write_on(self) -> None:
        if self._fd >= 0 and self._loop is not None and self._paho is not None and self._paho.want_write():
            self._loop.add_writer(self._fd, self._writable)

    def _writable(self) -> None:
        if self._paho is None:
            return
        try:
            self._check(self._paho.loop_write())
        except Exception as error:
            log.exception("mqtt %s: writing failed", self.settings.name)
            self._lost(f"writing failed: {type(error).__name__}: {error}")

    def _check(self, result: int) -> bool:
        """Whether the connection still stands after a step of the library."""
        ended = library.ended(result)
        if not ended and not self._gone.is_set():
            return True
        self._lost(f"the connection was lost: {ended}")
        return False

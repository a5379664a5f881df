"""The listening side of pushes: TCP connections and UDP datagrams, each in whatever framing the meter uses."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final

from headend.endpoints import PushSettings
from headend.errors import BadFrame, HeadendError, LineDown
from headend.ingest import Ingest, database_fails
from headend.protocols.dlms.intake import Arrival, Intake
from headend.push.place import Placed, Placer

__all__ = ["PushDoor", "PushStats"]

log = logging.getLogger(__name__)

Keep = Callable[[str, str, str, bytes], Awaitable[None]]
"""(channel, peer, reason, payload): keeps what can't be placed."""

_CHUNK: Final = 65_536
_MOST_DATAGRAMS: Final = 2_000
_STORE_RESTS_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(slots=True)
class PushStats:
    """What came in since the start. dropped: datagrams that came faster than they could be stored."""

    connections: int = 0
    refused: int = 0
    pushes: int = 0
    stored: int = 0
    unplaced: int = 0
    damaged: int = 0
    dropped: int = 0
    last_reason: str = field(default="")


class PushDoor:
    """Listens on one port. A push is acknowledged by nobody: it is stored before the next of its connection is read, so
    that a slow store slows the senders and nothing piles up here."""

    def __init__(
        self, settings: PushSettings, placer: Placer, ingest: Ingest, keep: Keep, *, clock: Callable[[], datetime]
    ) -> None:
        self.settings = settings
        self.port = settings.port
        self.stats = PushStats()
        self.placer = placer
        self.heard = asyncio.Event()  # something came
        self._ingest = ingest
        self._keep = keep
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._udp: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # connections
        self._drainer: asyncio.Task[None] | None = None
        self._queue: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue(_MOST_DATAGRAMS)

    async def start(self) -> None:
        """Open the port; `port` is the real one afterwards. `LineDown` if it is taken."""
        settings = self.settings
        try:
            if settings.transport == "tcp":
                self._server = await asyncio.start_server(self._serve, settings.host or None, settings.port)
                self.port = self._server.sockets[0].getsockname()[1]
            else:
                await self._start_udp()
        except OSError as error:
            raise LineDown(
                f"push {settings.name}: can't listen on {settings.transport}://{settings.host}:{settings.port}: "
                f"{error.strerror or error}",
                remedy="is another program on that port?",
            ) from error

    async def _start_udp(self) -> None:
        loop = asyncio.get_running_loop()
        queue = self._queue
        address = (self.settings.host or "0.0.0.0", self.settings.port)  # noqa: S104 - an empty host is every interface
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(queue, self.stats), address)
        self._udp = transport
        self.port = transport.get_extra_info("sockname")[1]
        self._drainer = asyncio.create_task(self._drain())

    async def dealt_with(self) -> None:
        """Wait until every connection there is has ended, and every datagram that came is stored or kept aside."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._queue.join()

    async def close(self) -> None:
        """Stop listening. Connections are cut; datagrams that came are stored, if that takes no longer than 5 s."""
        if self._server is not None:
            self._server.close()
        if self._udp is not None:
            self._udp.close()
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self.dealt_with()
        if self._drainer is not None:
            self._drainer.cancel()
            await asyncio.gather(self._drainer, return_exceptions=True)

    # -- what comes in -------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= self.settings.connections:
            self.stats.refused += 1
            writer.close()
            return
        self._tasks.add(task)
        self.stats.connections += 1
        peer = _text(writer.get_extra_info("peername"))
        intake = Intake()
        try:
            while chunk := await self._read(reader):
                self.heard.set()
                await self._take(intake.feed(chunk), peer)
            await self._take(list(intake.close()), peer)
        except OSError as error:
            log.info("push %s: connection from %s lost: %s", self.settings.name, peer, error)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self.settings.idle_s):
                return await reader.read(_CHUNK)
        except TimeoutError:
            return b""

    async def _drain(self) -> None:
        """Datagrams of one sender may be parts of one push: each sender, of the newest 1,000, has its own intake."""
        intakes: dict[str, Intake] = {}
        while True:
            data, peer = await self._queue.get()
            self.heard.set()
            intake = intakes.pop(peer, None) or Intake()
            intakes[peer] = intake
            if len(intakes) > 1000:
                del intakes[next(iter(intakes))]
            try:
                await self._take(intake.feed(data), peer)
            finally:
                self._queue.task_done()

    async def _take(self, found: list[Arrival | BadFrame], peer: str) -> None:
        for one in found:
            if isinstance(one, BadFrame):
                self.stats.damaged += 1
                self._say(f"from {peer}: {one}")
            else:
                await self._push(one, peer)

    async def _push(self, arrival: Arrival, peer: str) -> None:
        """Store one push, or keep it aside. One the store refuses is kept aside too, with the reason."""
        self.stats.pushes += 1
        try:
            placed = self.placer.place(arrival, self._clock())
            if isinstance(placed, Placed):
                try:
                    await self._insist(partial(self._ingest.put, placed.outcome))
                    self.stats.stored += 1
                except HeadendError as error:
                    await self._aside(arrival, peer, str(error))
            else:
                await self._aside(arrival, peer, placed.reason)
        except Exception:
            log.exception("push %s: a push from %s failed", self.settings.name, peer)

    async def _aside(self, arrival: Arrival, peer: str, reason: str) -> None:
        self.stats.unplaced += 1
        self._say(f"from {peer}: {reason}")
        sender = f"{peer} as {arrival.source}" if arrival.source else peer
        await self._insist(partial(self._keep, f"push {self.settings.name}", sender, reason, arrival.apdu))

    async def _insist(self, write: Callable[[], Awaitable[object]]) -> None:
        """Nobody will send it again: while the database is away it is tried until it is there."""
        rests_s = iter(_STORE_RESTS_S)
        while True:
            try:
                await write()
                return
            except HeadendError as error:
                if not database_fails(error):
                    raise
                self._say(f"waits for the store: {error}")
                await asyncio.sleep(next(rests_s, _STORE_RESTS_S[-1]))

    def _say(self, reason: str) -> None:
        """Once for each reason in a row: a sender that repeats itself must not fill the log."""
        if reason != self.stats.last_reason:
            log.warning("push %s %s", self.settings.name, reason)
        self.stats.last_reason = reason


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, queue: asyncio.Queue[tuple[bytes, str]], stats: PushStats) -> None:
        self._queue = queue
        self._stats = stats

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        try:
            self._queue.put_nowait((data, _text(addr)))
        except asyncio.QueueFull:
            self._stats.dropped += 1


def _text(peer: object) -> str:
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) and len(peer) >= 2 else str(peer)

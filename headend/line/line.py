"""One line: one conversation at a time, in time, on whatever link there is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from headend.conversation import Conversation, Send
from headend.endpoints import LineSettings
from headend.errors import LineDown, NoAnswer
from headend.line.links import Link, open_link
from headend.model import FrameRecord

__all__ = ["Line", "LineStats", "Links"]

T = TypeVar("T")

# A character on the wire: start, 8 data, parity, stop.
_BITS_PER_CHARACTER = 11


@dataclass(slots=True)
class LineStats:
    """What a line has done since it was built."""

    conversations: int = 0
    sends: int = 0
    timeouts: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    stale_bytes: int = 0
    busy_s: float = 0.0
    opened: int = 0
    last_error: str = ""


class Links:
    """Where a dial-in line's links come from: the listener puts the newest one here."""

    def __init__(self) -> None:
        self.current: Link | None = None
        self._arrived = asyncio.Event()

    def put(self, link: Link) -> None:
        """A modem dialled in; an older connection of the same modem is dead and is closed."""
        if self.current is not None and self.current is not link:
            self.current.close()
        self.current = link
        self._arrived.set()

    async def get(self, wait_s: float) -> Link:
        """The open link, waiting `wait_s` for one. Raises `LineDown` if no modem is there."""
        while self.current is None or not self.current.is_open:
            self._arrived.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
            except TimeoutError:
                raise LineDown(
                    "no modem has dialled in", remedy="check the modem's server address and signal"
                ) from None
        return self.current


class Line:
    """A line with one owner and one conversation at a time.

    `on_up` is called when a dial-in link arrives, so that waiting work starts at once.
    """

    def __init__(self, settings: LineSettings, *, clock: Callable[[], datetime] | None = None) -> None:
        self.settings = settings
        self.stats = LineStats()
        self.links: Links | None = None
        self.on_up: Callable[[], None] = lambda: None
        self._clock = clock or (lambda: datetime.now(UTC))
        self._lock = asyncio.Lock()
        self._link: Link | None = None
        self._running: _Running[Any] | None = None
        self._dirty = False

    @property
    def name(self) -> str:
        return self.settings.name

    async def run(self, conversation: Conversation[T], record: list[FrameRecord] | None = None) -> T:
        """Drive `conversation` to its end and return what it returns.

        record: gets every frame sent and every reply received, whatever happens. Raises what the conversation raises,
        and `LineDown` when the port can't be opened or is lost.
        """
        async with self._lock:
            loop = asyncio.get_running_loop()
            started = loop.time()
            self.stats.conversations += 1
            try:
                link = await self._open()
                running = _Running(self, link, conversation, record if record is not None else [])
                self._running = running
                try:
                    return await running.result()
                finally:
                    self._running = None
                    self._dirty = running.timed_out
            except LineDown as error:
                conversation.close()
                self.stats.last_error = str(error)
                raise
            finally:
                self.stats.busy_s += loop.time() - started

    async def close(self) -> None:
        """Close the port; a running conversation ends with `LineDown`."""
        link, self._link = self._link, None
        if self._running is not None:
            self._running.lose("the line was closed")
        if link is not None:
            link.close()
            await asyncio.sleep(0)

    def adopt(self, link: Link) -> None:
        """Take a link the listener has identified as this line's."""
        if self.links is None:
            self.links = Links()
        self.links.put(link)
        link.on_lost = self._lost
        link.on_data = self._data
        self.on_up()

    async def _open(self) -> Link:
        if self.settings.endpoint.kind == "listen":
            if self.links is None:
                self.links = Links()
            link = await self.links.get(self.settings.connect_s)
        elif self._link is not None and self._link.is_open:
            return self._link
        else:
            link = await open_link(self.settings.endpoint, self.settings.connect_s)
        if link is not self._link:
            self._link = link
            self._dirty = False
            self.stats.opened += 1
            link.on_data = self._data
            link.on_lost = self._lost
        return link

    def _data(self, chunk: bytes) -> None:
        self.stats.received_bytes += len(chunk)
        if self._running is not None:
            self._running.feed(chunk)
        else:
            self.stats.stale_bytes += len(chunk)

    def _lost(self, why: str) -> None:
        if self._running is not None:
            self._running.lose(why)


class _Running(Generic[T]):
    """One conversation under way: feeds chunks to the generator and keeps its time.

    The reply timeout runs from the last byte sent; once bytes come, the answer may go on as long as no gap is longer
    than `gap_s`. After a timeout the line is drained until it has been quiet for `quiet_s`, so that no late answer
    reaches the next request.
    """

    def __init__(self, line: Line, link: Link, conversation: Conversation[T], record: list[FrameRecord]) -> None:
        self.timed_out = False
        self._line = line
        self._link = link
        self._conversation = conversation
        self._record = record
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[T] = self._loop.create_future()
        self._received = bytearray()
        self._received_at: datetime | None = None
        self._echo = b""
        self._waiting = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._held: Send | None = None

    async def result(self) -> T:
        if self._line._dirty:
            self.timed_out = True
        self._step(None)
        try:
            return await self._done
        finally:
            self._cancel_timer()
            self._keep_received()
            self._conversation.close()

    def feed(self, chunk: bytes) -> None:
        """A chunk arrived."""
        if self._held is not None:
            self._line.stats.stale_bytes += len(chunk)
            self._arm(self._loop.time() + self._line.settings.quiet_s)
            return
        if not self._waiting or self._done.done():
            self._line.stats.stale_bytes += len(chunk)
            return
        if self._received_at is None:
            self._received_at = self._line._clock()
        self._received += chunk
        if chunk == self._line.settings.heartbeat:
            return
        if self._echo:
            chunk = self._strip_echo(chunk)
            if not chunk:
                return
        self._deadline = max(self._deadline, self._loop.time() + self._line.settings.gap_s)
        self._step(chunk)

    def lose(self, why: str) -> None:
        """The link ended."""
        if not self._done.done():
            self._throw(LineDown(f"line {self._line.name} lost: {why}"))

    def _strip_echo(self, chunk: bytes) -> bytes:
        """Take our own bytes off the front, as far as they match; from the first difference on it is no echo."""
        size = min(len(chunk), len(self._echo))
        if chunk[:size] == self._echo[:size]:
            self._echo = self._echo[size:]
            return chunk[size:]
        self._echo = b""
        return chunk

    def _step(self, chunk: bytes | None) -> None:
        """Resume the generator with `chunk` (None: start it) and do what it asks."""
        try:
            request = next(self._conversation) if chunk is None else self._conversation.send(chunk)
            while isinstance(request, Send) and not request.expect_reply:
                self._write(request)
                request = self._conversation.send(b"")
        except StopIteration as stop:
            self._finish(stop.value)
            return
        except Exception as error:
            self._fail(error)
            return
        self._obey(request)

    def _throw(self, error: Exception) -> None:
        self._waiting = False
        self._held = None
        try:
            request = self._conversation.throw(error)
        except StopIteration as stop:
            self._finish(stop.value)
        except Exception as raised:
            self._fail(raised)
        else:
            self._obey(request)

    def _obey(self, request: Send | object) -> None:
        if not isinstance(request, Send):
            self._waiting = True  # MORE: the deadline already set goes on
            return
        if self.timed_out:
            self._hold(request)
        else:
            self._send(request)

    def _hold(self, request: Send) -> None:
        """Wait until the line has been quiet, then send."""
        self._waiting = False
        self._held = request
        self._arm(self._loop.time() + self._line.settings.quiet_s)

    def _send(self, request: Send) -> None:
        try:
            self._write(request)
        except LineDown as error:
            self._throw(error)
            return
        settings = self._line.settings
        reply_s = request.reply_s if request.reply_s is not None else settings.reply_s
        if settings.endpoint.kind == "serial":
            reply_s += len(request.data) * _BITS_PER_CHARACTER / settings.endpoint.baud
        self._waiting = True
        self._arm(self._loop.time() + reply_s)

    def _write(self, request: Send) -> None:
        self._keep_received()
        self._record.append(FrameRecord(self._line._clock(), ">", request.data))
        self._line.stats.sends += 1
        self._line.stats.sent_bytes += len(request.data)
        if self._line.settings.echo:
            self._echo = request.data
        self._link.write(request.data)

    def _keep_received(self) -> None:
        if self._received_at is not None:
            self._record.append(FrameRecord(self._received_at, "<", bytes(self._received)))
            self._received_at = None
            self._received.clear()

    def _arm(self, deadline: float) -> None:
        """Set the deadline; a timer already running is left to find it moved, which is cheaper than a new one."""
        self._deadline = deadline
        if self._timer is None or self._timer.when() > deadline:
            self._cancel_timer()
            self._timer = self._loop.call_at(deadline, self._tick)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        if self._done.done():
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._tick)
            return
        if self._held is not None:
            request, self._held = self._held, None
            self.timed_out = False
            self._send(request)
            return
        self.timed_out = True
        self._line.stats.timeouts += 1
        self._keep_received()
        self._throw(NoAnswer(f"no answer on line {self._line.name}"))

    def _finish(self, value: T) -> None:
        self._waiting = False
        if not self._done.done():
            self._done.set_result(value)

    def _fail(self, error: Exception) -> None:
        self._waiting = False
        with suppress(asyncio.InvalidStateError):
            self._done.set_exception(error)

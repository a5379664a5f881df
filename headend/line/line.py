"""One line: one conversation at a time, in time, on whatever link there is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, TypeVar

from headend.conversation import Conversation
from headend.endpoints import Endpoint, LineSettings, parse_serial
from headend.errors import LineDown, UsageError
from headend.line.links import Format, Link, SerialLink, open_link
from headend.line.running import Running
from headend.line.stats import LineStats, Phase
from headend.model import FrameRecord
from headend.wire import BITS_8E1, bits_per_char

__all__ = ["Line", "Links", "Opener", "Tap"]

T = TypeVar("T")

Tap = Callable[[str, FrameRecord], None]
"""Told of every frame as it goes over the line, with the meter it belongs to. Must return at once and never raise."""

Opener = Callable[[Endpoint, float], Awaitable[Link]]
"""Opens an endpoint within so many seconds, or raises `LineDown`."""

# Opening that failed is not tried again sooner, whoever asks. Just under the shortest rest of a worker, so that the two
# never add up.
_OPEN_REST_S = 0.9

_parse_serial = lru_cache(maxsize=64)(parse_serial)


class Links:
    """Where a dial-in line's links come from: the listener puts the newest one here."""

    __slots__ = ("_arrived", "current")

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

    `on_up` is called when a dial-in link arrives, so that waiting work starts at once. An idle line holds no task, no
    thread and no timer. opener: what opens its endpoint, where that is neither port nor socket. quiet_since: when the
    last byte went over the line, or will have gone (loop time).
    """

    __slots__ = (
        "_dirty",
        "_fresh",
        "_link",
        "_lock",
        "_mute",
        "_opener",
        "_refusal",
        "_running",
        "_try_at",
        "clock",
        "links",
        "on_up",
        "quiet_since",
        "settings",
        "stats",
        "taps",
    )

    def __init__(
        self, settings: LineSettings, *, clock: Callable[[], datetime] | None = None, opener: Opener = open_link
    ) -> None:
        self.settings = settings
        self.stats = LineStats()
        self.links: Links | None = None
        self.on_up: Callable[[], None] = _nothing
        self.taps: tuple[Tap, ...] = ()
        self.clock = clock or _now
        self.quiet_since = 0.0
        self._opener = opener
        self._lock = asyncio.Lock()
        self._link: Link | None = None
        self._running: Running[Any] | None = None
        self._dirty = False
        self._mute = 0  # conversations in a row without a byte
        self._fresh = False  # not a byte has come since the link was opened
        self._try_at = 0.0
        self._refusal: LineDown | None = None  # why the last opening failed

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def state(self) -> str:
        """`open`, `down` (the last opening failed) or `closed`."""
        link = self._link
        if link is None and self.links is not None:
            link = self.links.current
        if link is not None and link.is_open:
            return "open"
        return "down" if self.stats.last_error else "closed"

    async def run(
        self,
        conversation: Conversation[T],
        record: list[FrameRecord] | None = None,
        *,
        serial: str = "",
        meter: str = "",
    ) -> T:
        """Drive `conversation` to its end and return what it returns.

        record: gets every frame sent and every reply received, whatever happens. serial: speed and character format
        for this conversation on a serial line (`1200 8E1`), "" the line's own. meter: whose account it goes on. Raises
        what the conversation raises, and `LineDown` when the port can't be opened or is lost.
        """
        wanted = self._format(serial)
        async with self._lock:
            stats = self.stats
            stats.conversations += 1
            started, before = time.monotonic(), (stats.sends, stats.sent_bytes, stats.received_bytes)
            char_s = self._char_s(wanted)
            try:
                link = await self._opened(wanted)
                running = Running(self, link, conversation, record if record is not None else [], meter, char_s)
                self._running = running
                try:
                    return await running.result(dirty=self._dirty)
                finally:
                    self._running = None
                    self._dirty = running.timed_out
                    self._watch(before)
            except LineDown as error:
                conversation.close()
                stats.last_error = str(error)
                raise
            finally:
                self._account(meter, started, before, char_s)

    async def close(self) -> None:
        """Close the port; a running conversation ends with `LineDown`."""
        if self._running is not None:
            self._running.lose("the line was closed")
        waiting = self.links.current if self.links is not None else None  # a modem nobody has asked anything yet
        if self._let_go() or waiting is not None:
            if waiting is not None:
                waiting.close()
            await asyncio.sleep(0)

    def adopt(self, link: Link) -> None:
        """Take a link the listener has identified as this line's."""
        if self.links is None:
            self.links = Links()
        if self._running is not None and self._running.link is not link:
            self._running.lose("the modem dialled in again")
        if self._link is not link:
            self._let_go()
        self.links.put(link)
        self._hear(link)
        self.on_up()

    def tap(self, tap: Tap) -> None:
        """Tell `tap` of every frame from now on."""
        self.taps = (*self.taps, tap)

    def untap(self, tap: Tap) -> None:
        """Tell it no more."""
        self.taps = tuple(other for other in self.taps if other != tap)

    # -- the port ------------------------------------------------------------------------------------------------------

    def _format(self, serial: str) -> Format | None:
        """Speed and character format of a conversation; None where the line's own end is no serial port."""
        endpoint = self.settings.endpoint
        if endpoint.kind != "serial":
            if serial:
                raise UsageError(f"line {self.name} is no serial port: its format can't be set to {serial}")
            return None
        if serial:
            return Format(*_parse_serial(serial))
        return Format(endpoint.baud, endpoint.bytesize, endpoint.parity, endpoint.stopbits)

    def _char_s(self, wanted: Format | None) -> float:
        """Time of a character on the wire; 0 when its speed is unknown."""
        if wanted is not None:
            return bits_per_char(wanted.bytesize, wanted.parity, wanted.stopbits) / wanted.baud
        return BITS_8E1 / self.settings.wire_baud if self.settings.wire_baud else 0.0

    async def _opened(self, wanted: Format | None) -> Link:
        """The open link, at the wanted speed."""
        link = self._link if self._link is not None and self._link.is_open else await self._open()
        if wanted is not None and isinstance(link, SerialLink) and link.format != wanted:
            await asyncio.sleep(max(0.0, self.quiet_since - asyncio.get_running_loop().time()))  # let the last byte go
            link.set_format(wanted)
        return link

    async def _open(self) -> Link:
        settings, loop = self.settings, asyncio.get_running_loop()
        rest_s = self._try_at - loop.time()
        if rest_s > 0 and self._refusal is not None:
            problem = self._refusal.problem
            raise LineDown(f"{problem.what}; next try in {rest_s:.1f} s", where=problem.where, remedy=problem.remedy)
        started = time.monotonic()
        try:
            if settings.endpoint.kind == "listen":
                if self.links is None:
                    self.links = Links()
                link = await self.links.get(settings.connect_s)
            else:
                link = await self._opener(settings.endpoint, settings.connect_s)
        except LineDown as error:
            if settings.endpoint.kind != "listen":
                self._rest(error)
            raise
        finally:
            self.stats.spend(Phase.OPENING, time.monotonic() - started, 0.0, failed=False)
        if link is not self._link:
            self._link = link
            self._dirty = False
            self._mute = 0
            self._fresh = True
            self.quiet_since = 0.0
            self.stats.opened += 1
            self.stats.last_error = ""
            self._hear(link)
        return link

    def _rest(self, refusal: LineDown) -> None:
        self._refusal = refusal
        self._try_at = asyncio.get_running_loop().time() + _OPEN_REST_S

    def _hear(self, link: Link) -> None:
        link.on_data = self._data
        link.on_lost = partial(self._lost, link)

    def _let_go(self) -> bool:
        """Close the link, and hear nothing more of it; whether there was one."""
        link, self._link = self._link, None
        if link is None:
            return False
        link.on_data = _ignore
        link.on_lost = _ignore
        link.close()
        return True

    def _data(self, chunk: bytes) -> None:
        self.stats.received_bytes += len(chunk)
        self._mute = 0
        self._fresh = False
        self.quiet_since = asyncio.get_running_loop().time()
        if self._running is not None:
            self._running.feed(chunk)
        else:
            self.stats.stale_bytes += len(chunk)

    def _lost(self, link: Link, why: str) -> None:
        """`link` ended. One that a server closes at once, before a byte came, is as good as refused."""
        if link is self._link and self._fresh and self.settings.endpoint.kind != "listen":
            self._rest(LineDown(f"line {self.name} lost: {why}", remedy="does the server allow another connection?"))
        if self._running is not None and self._running.link is link:
            self._running.lose(why)

    # -- the books -----------------------------------------------------------------------------------------------------

    def _watch(self, before: tuple[int, int, int]) -> None:
        """A connection on which nothing comes at all looks just like silent meters: give it up and open another."""
        settings, stats = self.settings, self.stats
        if stats.received_bytes != before[2] or stats.sends == before[0]:
            return
        self._mute += 1
        if settings.endpoint.kind != "serial" and 0 < settings.reopen_after <= self._mute:
            self._mute = 0
            if self._let_go():
                stats.reopened += 1

    def _account(self, meter: str, started: float, before: tuple[int, int, int], char_s: float) -> None:
        stats = self.stats
        seconds = time.monotonic() - started
        stats.busy_s += seconds
        sends, sent, received = stats.sends - before[0], stats.sent_bytes - before[1], stats.received_bytes - before[2]
        if char_s:
            stats.wire_s = (stats.wire_s or 0.0) + (sent + received) * char_s
        if meter:
            cost = stats.meter(meter)
            cost.seconds += seconds
            cost.conversations += 1
            cost.exchanges += sends
            cost.sent_bytes += sent
            cost.received_bytes += received


def _now() -> datetime:
    return datetime.now(UTC)


def _nothing() -> None:
    """Nobody waits for the line to come up."""


def _ignore(_word: object) -> None:
    """Bytes and endings of a link that was given up."""

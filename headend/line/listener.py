"""Modems that dial in: one listening port, many lines.

A modem is known by the registration text it sends first, or, where its line has none, by asking the meter behind it
for its address (a conversation the caller provides). Until it is known, nothing is polled through it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from headend.errors import LineDown
from headend.line.line import Line
from headend.line.links import Link, TcpLink

__all__ = ["Identify", "Listener"]

log = logging.getLogger(__name__)

# Asks whatever is behind a link which line it belongs to; None if it can't be told.
Identify = Callable[[Link], Awaitable[Line | None]]

_REGISTRATION_LIMIT_BYTES = 512


class Listener:
    """Accepts modems on `host:port` and hands each to its line."""

    def __init__(
        self, host: str, port: int, lines: list[Line], *, identify: Identify | None = None, register_s: float = 10.0
    ) -> None:
        self.host = host
        self.port = port
        self._lines = lines
        self._identify = identify
        self._register_s = register_s
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: set[TcpLink] = set()

    async def start(self) -> None:
        """Open the port. Raises `LineDown` if it is taken. `port` is the real one afterwards."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: TcpLink(self._made), self.host or None, self.port)
        except OSError as error:
            raise LineDown(
                f"can't listen on {self.host}:{self.port}: {error.strerror or error}",
                remedy="is another program on that port?",
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop accepting; links already handed to lines are the lines' to close."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in list(self._links):
            link.close()
        await asyncio.sleep(0)

    def _made(self, link: TcpLink) -> None:
        self._links.add(link)
        first = _FirstBytes(
            link, {line.settings.registration: line for line in self._lines if line.settings.registration}
        )
        task = asyncio.get_running_loop().create_task(self._welcome(link, first))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _welcome(self, link: TcpLink, first: _FirstBytes) -> None:
        line = await self._by_registration(first)
        if line is None and link.is_open and self._identify is not None:
            line = await self._identify(link)
        if line is None:
            log.warning("modem from %s is not known (it sent %r): closed", link.peer, bytes(first.received[:40]))
            link.close()
        else:
            log.info("modem from %s is line %s", link.peer, line.name)
            line.adopt(link)
        self._links.discard(link)

    async def _by_registration(self, first: _FirstBytes) -> Line | None:
        """The line whose registration text came first, if any."""
        if not first.known:
            return None
        # With lines that have no registration on the same port, silence is an answer too: ask the meter soon.
        unnamed = self._identify is not None and len(first.known) < len(self._lines)
        try:
            async with asyncio.timeout(1.0 if unnamed else self._register_s):
                return await first.found
        except TimeoutError:
            return None


class _FirstBytes:
    """What a modem sends first. Takes the link's bytes from the very moment it is made, so that none is lost."""

    def __init__(self, link: TcpLink, known: dict[bytes, Line]) -> None:
        self.known = known
        self.received = bytearray()
        self.found: asyncio.Future[Line | None] = asyncio.get_running_loop().create_future()
        link.on_data = self._data
        link.on_lost = self._lost

    def _data(self, chunk: bytes) -> None:
        self.received += chunk
        if self.found.done():
            return
        # The longest text first: DTU1 must not answer for DTU12.
        for text in sorted(self.known, key=len, reverse=True):
            if text in self.received:
                self.found.set_result(self.known[text])
                return
        if len(self.received) > _REGISTRATION_LIMIT_BYTES:
            self.found.set_result(None)

    def _lost(self, _why: str) -> None:
        if not self.found.done():
            self.found.set_result(None)

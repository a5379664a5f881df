"""A modem that dials in: it connects to the head-end, says who it is, and then serves its meters."""

from __future__ import annotations

import asyncio
import contextlib

from simulators.bus import Shared, StationProtocol

__all__ = ["DialLine", "packet"]


def packet(text: str) -> bytes:
    """The bytes of a registration or heartbeat: `hex:0102..` as bytes, anything else as UTF-8 text. ValueError if the
    hex is none."""
    if text.startswith("hex:"):
        return bytes.fromhex(text[4:])
    return text.encode()


class DialLine:
    """Connects `bus` to host:port, again and again. registration is sent on every connection, heartbeat (if any)
    every `heartbeat_s`; after a failed or lost connection it waits `reconnect_s`."""

    def __init__(
        self,
        bus: Shared,
        host: str,
        port: int,
        *,
        registration: bytes = b"",
        heartbeat: bytes = b"",
        heartbeat_s: float = 60.0,
        reconnect_s: float = 2.0,
    ) -> None:
        self.bus = bus
        self.host = host
        self.port = port
        self.registration = registration
        self.heartbeat = heartbeat
        self.heartbeat_s = heartbeat_s
        self.reconnect_s = reconnect_s
        self.connections = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to dial; the head-end need not be there yet."""
        self._task = asyncio.create_task(self._dial_on())

    async def _dial_on(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                await self._dial_once()
            await asyncio.sleep(self.reconnect_s)

    async def _dial_once(self) -> None:
        closed = asyncio.Event()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(
            lambda: StationProtocol(self.bus, lambda _: closed.set()), self.host, self.port
        )
        self.connections += 1
        try:
            if self.registration:
                transport.write(self.registration)
            while not closed.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(closed.wait(), self.heartbeat_s if self.heartbeat else None)
                if not closed.is_set() and protocol.station is not None:
                    protocol.station.send(self.heartbeat)
        finally:
            transport.abort()

    async def stop(self) -> None:
        """Hang up and dial no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def endpoint(self) -> str:
        """`dial:host:port`, where it connects to."""
        return f"dial:{self.host}:{self.port}"

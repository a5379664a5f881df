"""DLMS meters on real ports: TCP, UDP, a pseudo-terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from simulators.bus import Wire
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_station import DlmsLine, DlmsStation
from simulators.faults import Faults
from simulators.pty_line import PtyLine
from simulators.tcp import TcpLine

__all__ = ["UdpLine", "serve_dlms_pty", "serve_dlms_tcp", "serve_dlms_udp"]

Meters = DlmsMeter | Sequence[DlmsMeter]


class UdpLine:
    """A wrapper port over UDP: an association per peer."""

    def __init__(self, line: DlmsLine, host: str, port: int) -> None:
        self.line = line
        self.host = host
        self.port = port
        self._transport: asyncio.DatagramTransport | None = None
        self._peers: _Datagrams | None = None

    async def start(self) -> None:
        """Open the port; `port` is the real one afterwards."""
        loop = asyncio.get_running_loop()
        transport, self._peers = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self.line), local_addr=(self.host, self.port)
        )
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    async def stop(self) -> None:
        """Close the port."""
        if self._transport is not None and self._peers is not None:
            self._transport.close()
            await self._peers.closed.wait()
            self._transport = None

    def endpoint(self) -> str:
        """`udp://host:port`."""
        return f"udp://{self.host}:{self.port}"


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, line: DlmsLine) -> None:
        self._line = line
        self.closed = asyncio.Event()
        self._stations: dict[Any, DlmsStation] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        station = self._stations.get(addr)
        if station is None:
            station = self._stations[addr] = self._line.station(
                lambda said: self._say(said, addr), lambda: self._forget(addr)
            )
        station.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def _say(self, data: bytes, addr: Any) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(data, addr)

    def _forget(self, addr: Any) -> None:
        self._stations.pop(addr, None)


async def serve_dlms_tcp(
    meters: Meters,
    *,
    interface: str = "wrapper",
    host: str = "127.0.0.1",
    port: int = 0,
    wire: Wire | None = None,
    faults: Faults | None = None,
    deaf: float = 0.0,
    seed: int | str = 0,
    max_clients: int = 0,
) -> TcpLine:
    """Meters behind a TCP port that is open: `wrapper`, or `hdlc` as behind a serial server. `port`, `endpoint()`,
    `await stop()`."""
    line = DlmsLine(meters, interface=interface, wire=wire, faults=faults, deaf=deaf, seed=seed)
    server = TcpLine(line, host, port, max_clients)
    await server.start()
    return server


async def serve_dlms_udp(
    meters: Meters, *, host: str = "127.0.0.1", port: int = 0, faults: Faults | None = None, deaf: float = 0.0
) -> UdpLine:
    """Meters behind a UDP port that is open, with the wrapper."""
    server = UdpLine(DlmsLine(meters, interface="wrapper", faults=faults, deaf=deaf), host, port)
    await server.start()
    return server


async def serve_dlms_pty(
    meters: Meters,
    link: Path | None = None,
    *,
    wire: Wire | None = None,
    faults: Faults | None = None,
    deaf: float = 0.0,
    seed: int | str = 0,
) -> PtyLine:
    """Meters with HDLC behind a pseudo-terminal that is open: `path`, `endpoint()`, `await stop()`."""
    server = PtyLine(DlmsLine(meters, wire=wire, faults=faults, deaf=deaf, seed=seed), link)
    await server.start()
    return server

"""A serial server: a TCP port with a line of meters behind it."""

from __future__ import annotations

import asyncio

from simulators.bus import Shared, StationProtocol

__all__ = ["TcpLine"]


class TcpLine:
    """Listens on host:port (0 = a free one) for `bus`; who comes after `max_clients` is turned away (0 = no limit)."""

    def __init__(self, bus: Shared, host: str, port: int, max_clients: int = 0) -> None:
        self.bus = bus
        self.host = host
        self.port = port
        self.max_clients = max_clients
        self.turned_away = 0
        self._server: asyncio.Server | None = None
        self._clients: set[StationProtocol] = set()

    async def start(self) -> None:
        """Open the port; `port` is the real one afterwards. OSError when it can't be had."""
        self._server = await asyncio.get_running_loop().create_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self) -> asyncio.Protocol:
        if self.max_clients and len(self._clients) >= self.max_clients:
            self.turned_away += 1
            return _TurnedAway()
        client = StationProtocol(self.bus, self._clients.discard)
        self._clients.add(client)
        return client

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
            for client in tuple(self._clients):
                if client.transport is not None:
                    client.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def endpoint(self) -> str:
        """`tcp://host:port`."""
        return f"tcp://{self.host}:{self.port}"


class _TurnedAway(asyncio.Protocol):
    """A serial server that is taken closes at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()

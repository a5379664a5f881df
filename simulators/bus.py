"""A line as its meters hear it: requests in, answers out, one at a time, at the speed of the wire if asked.

Transports (`tcp`, `pty_line`, `dial`) open a `Station` per connection and feed it what arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from simulators.clock import Now
from simulators.dlt645_frame import Request, build, take
from simulators.dlt645_meter import Dlt645Meter
from simulators.faults import Faults

__all__ = ["BITS_PER_CHAR", "Bus", "Station", "StationProtocol", "Wire"]

BITS_PER_CHAR = 11  # start, 8 data, parity, stop
_GAP_S = 0.5  # characters further apart do not belong to one frame (standard, clause 5)
_PIECE = 16  # characters handed over at a time when the wire is slow


@dataclass(frozen=True, slots=True)
class Wire:
    """baud 0: as fast as it goes. Else both directions take 11 bits a character. answer_delay_s: Td, from the last
    character of a request to the first of its answer."""

    baud: int = 0
    answer_delay_s: float = 0.0

    def chars_s(self, count: int) -> float:
        """Line time of `count` characters in seconds."""
        return count * BITS_PER_CHAR / self.baud if self.baud else 0.0


class Bus:
    """Meters that share one pair of wires. Counts `exchanges` (requests heard) and `answers` sent."""

    def __init__(
        self,
        meters: Sequence[tuple[str, Dlt645Meter]],
        now: Now,
        *,
        wire: Wire | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.meters = tuple(meters)
        self.wire = wire or Wire()
        self.faults = faults or Faults()
        self.now = now
        self.exchanges = 0
        self.answers = 0
        self._by_address = {meter.address: (name, meter) for name, meter in self.meters}
        self._free_at = 0.0

    def handle(self, request: Request, station: Station, heard_at: float) -> None:
        """Answer one request over `station`. heard_at: loop time of its first character."""
        self.exchanges += 1
        name, answer = self._ask(request)
        if self.wire.baud:
            heard_at = max(heard_at, self._free_at) + self.wire.chars_s(request.size)
            self._free_at = heard_at
        if self.faults.rules and request.address != b"\x99" * 6:
            struck = self.faults.strike(name, self.now())
            asked = build(request.address, request.control, request.data)
            spoiled = self.faults.spoil(struck, asked, answer, self._other(name))
            if spoiled.drop:
                station.drop()
                return
            answer, late_s = spoiled.data, spoiled.delay_s
        else:
            late_s = 0.0
        if answer:
            self.answers += 1
            self._deliver(answer, station, heard_at, late_s)

    def _ask(self, request: Request) -> tuple[str, bytes]:
        """Who answered, and what. Two who answer at once destroy each other's bits."""
        known = self._by_address.get(request.address)
        if known is not None:
            return known[0], known[1].answer(request.address, request.control, request.data) or b""
        answers = []
        who = ""
        for name, meter in self.meters:
            reply = meter.answer(request.address, request.control, request.data)
            if reply:
                who = name
                answers.append(reply)
        return who, reduce(_collide, answers) if answers else b""

    def _other(self, name: str) -> bytes:
        """The address of a meter that was not asked: the next on the line, or one that is not there."""
        names = [known for known, _ in self.meters]
        at = names.index(name) if name in names else 0
        if len(names) > 1:
            return self.meters[(at + 1) % len(names)][1].address
        return b"\x01\x00\x00\x00\x00\x99"

    def _deliver(self, answer: bytes, station: Station, heard_at: float, late_s: float) -> None:
        loop = asyncio.get_running_loop()
        start = heard_at + self.wire.answer_delay_s + late_s
        if self.wire.baud:
            self._free_at = start + self.wire.chars_s(len(answer))
            for at in range(0, len(answer), _PIECE):
                piece = answer[at : at + _PIECE]
                loop.call_at(start + self.wire.chars_s(at + len(piece)), station.send, piece)
        elif start > heard_at:
            loop.call_at(start, station.send, answer)
        else:
            station.send(answer)


def _collide(one: bytes, two: bytes) -> bytes:
    """Two answers on the wire at once: a 0 from either wins."""
    shared = bytes(a & b for a, b in zip(one, two, strict=False))
    return shared + max(one, two, key=len)[len(shared) :]


class Station:
    """One connection to a bus. `send` writes bytes, `drop` closes it."""

    def __init__(self, bus: Bus, send: Callable[[bytes], None], drop: Callable[[], None]) -> None:
        self.bus = bus
        self.send = send
        self.drop = drop
        self._buffer = bytearray()
        self._first_at = 0.0
        self._last_at = 0.0

    def feed(self, chunk: bytes) -> None:
        """Characters that arrived just now."""
        now = asyncio.get_running_loop().time()
        if self._buffer and now - self._last_at > _GAP_S + self.bus.wire.chars_s(len(self._buffer)):
            self._buffer.clear()
        if not self._buffer:
            self._first_at = now
        self._last_at = now
        self._buffer += chunk
        while (request := take(self._buffer)) is not None:
            self.bus.handle(request, self, self._first_at)
            self._first_at = now


class StationProtocol(asyncio.Protocol):
    """A station on a TCP connection, whoever opened it."""

    def __init__(self, bus: Bus, closed: Callable[[StationProtocol], None] | None = None) -> None:
        self._bus = bus
        self._closed = closed
        self.station: Station | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.station = Station(self._bus, self._send, transport.abort)

    def _send(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self.station is not None:
            self.station.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._closed is not None:
            self._closed(self)

"""A line as its meters hear it: requests in, answers out, one at a time, at the speed of the wire if asked.

Transports (`tcp`, `pty_line`, `dial`) open a `Station` per connection and feed it what arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

from simulators.clock import Now
from simulators.dlt645_frame import Request, build, take
from simulators.faults import Faults, Spoiled

__all__ = ["BITS_PER_CHAR", "Bus", "Hearing", "Meter", "Shared", "Station", "StationProtocol", "Wire", "no_baud"]

BITS_PER_CHAR = 11  # start, 8 data, parity, stop
_GAP_S = 0.5  # characters further apart do not belong to one frame (standard, clause 5)
_PIECE = 16  # characters handed over at a time when the wire is slow
_BABBLE_S = 0.04  # between two pieces of babble when it is not


class Meter(Protocol):
    """Whatever hangs on a bus. `answer`: request in, frame or None for silence out. baud, parity: what it listens to,
    0 and "" for whatever the wire has."""

    address: bytes
    baud: int
    parity: str

    def answer(self, address: bytes, control: int, data: bytes) -> bytes | None: ...


class Hearing(Protocol):
    """One connection as meters hear it, whatever their protocol. feed: characters that arrived just now. send:
    characters for whoever is at the other end."""

    def feed(self, chunk: bytes) -> None: ...

    def send(self, data: bytes) -> None: ...


def no_baud() -> int:
    """The speed of a transport that has none of its own."""
    return 0


class Shared(Protocol):
    """What a transport serves: makes a station for each connection. Arguments as those of `Station`."""

    def station(
        self,
        send: Callable[[bytes], None],
        drop: Callable[[], None],
        baud: Callable[[], int] = no_baud,
        *,
        lasting: bool = False,
    ) -> Hearing: ...


@dataclass(frozen=True, slots=True)
class Wire:
    """baud 0: as fast as it goes, and every meter hears everything. Else both directions take 11 bits a character.
    answer_delay_s: Td, from the last character of a request to the first of its answer. parity: N, E, O."""

    baud: int = 0
    answer_delay_s: float = 0.0
    parity: str = "E"

    def chars_s(self, count: int) -> float:
        """Line time of `count` characters in seconds."""
        return count * BITS_PER_CHAR / self.baud if self.baud else 0.0


class Bus:
    """Meters that share one pair of wires. Counts `exchanges` (requests heard) and `answers` sent. `wire` may be
    replaced while it runs, as when the speed of a serial server is set anew."""

    def __init__(
        self,
        meters: Sequence[tuple[str, Meter]],
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
        self._by_address: dict[bytes, list[tuple[str, Meter]]] = {}
        self._index()
        self._free_at = 0.0

    def station(
        self,
        send: Callable[[bytes], None],
        drop: Callable[[], None],
        baud: Callable[[], int] = no_baud,
        *,
        lasting: bool = False,
    ) -> Station:
        """A new connection to this bus."""
        return Station(self, send, drop, baud, lasting=lasting)

    def _index(self) -> None:
        self._by_address = {}
        for name, meter in self.meters:
            self._by_address.setdefault(meter.address, []).append((name, meter))

    def handle(self, request: Request, station: Station, heard_at: float) -> None:
        """Answer one request over `station`. heard_at: loop time of its first character."""
        self.exchanges += 1
        wire = self._wire_of(station)
        name, answer = self._ask(request, wire)
        if wire.baud:
            heard_at = max(heard_at, self._free_at) + wire.chars_s(request.size)
            self._free_at = heard_at
        spoiled = Spoiled(answer)
        if self.faults.rules and request.address != b"\x99" * 6:
            struck = self.faults.strike(name, self.now())
            asked = build(request.address, request.control, request.data)
            spoiled = self.faults.spoil(struck, asked, answer, self._other(name))
        self._deliver(spoiled, station, wire, heard_at)

    def _wire_of(self, station: Station) -> Wire:
        """The wire as it is for this request: a terminal has the speed its user set."""
        baud = station.baud() if self.wire.baud else 0
        return Wire(baud, self.wire.answer_delay_s, self.wire.parity) if baud else self.wire

    def _ask(self, request: Request, wire: Wire) -> tuple[str, bytes]:
        """Who answered, and what. Two who answer at once destroy each other's bits."""
        answers = []
        who = ""
        for name, meter in self._by_address.get(request.address, self.meters):
            if not _in_tune(meter, wire):
                continue
            before = meter.address
            reply = meter.answer(request.address, request.control, request.data)
            if reply or request.address == before:
                who = name
            if reply:
                answers.append(reply)
            if meter.address != before:
                self._index()
        return who, reduce(_collide, answers) if answers else b""

    def _other(self, name: str) -> bytes:
        """The address of a meter that was not asked: the next on the line, or one that is not there."""
        names = [known for known, _ in self.meters]
        at = names.index(name) if name in names else 0
        if len(names) > 1:
            return self.meters[(at + 1) % len(names)][1].address
        return b"\x01\x00\x00\x00\x00\x99"

    def _deliver(self, spoiled: Spoiled, station: Station, wire: Wire, heard_at: float) -> None:
        """Send what is left of the answer, at the speed of the wire, and do to the connection what befalls it."""
        start = heard_at + wire.answer_delay_s + spoiled.delay_s
        if spoiled.babble_s:
            self._babble(spoiled.babble_s, station, wire, heard_at)
            start += spoiled.babble_s
        if spoiled.data:
            self.answers += 1
            start = self._send(spoiled.data, station, wire, heard_at, start)
        loop = asyncio.get_running_loop()
        if spoiled.half_open:
            station.hang()
        if spoiled.drop and start > heard_at:
            loop.call_at(start, station.drop)
        elif spoiled.drop:
            station.drop()

    def _send(self, answer: bytes, station: Station, wire: Wire, heard_at: float, start: float) -> float:
        """Give `answer` to the station from the loop time `start` on; the loop time it is over."""
        loop = asyncio.get_running_loop()
        if wire.baud:
            self._free_at = start + wire.chars_s(len(answer))
            for at in range(0, len(answer), _PIECE):
                piece = answer[at : at + _PIECE]
                loop.call_at(start + wire.chars_s(at + len(piece)), station.send, piece)
            return self._free_at
        if start > heard_at:
            loop.call_at(start, station.send, answer)
        else:
            station.send(answer)
        return start

    def _babble(self, babble_s: float, station: Station, wire: Wire, heard_at: float) -> None:
        """Random characters without a pause for `babble_s` seconds."""
        loop = asyncio.get_running_loop()
        step = wire.chars_s(_PIECE) or _BABBLE_S
        for k in range(int(babble_s / step)):
            loop.call_at(heard_at + k * step, station.send, self.faults.babble(_PIECE))


def _in_tune(meter: Meter, wire: Wire) -> bool:
    """Whether a meter can make anything of what is sent on this wire."""
    return not wire.baud or (meter.baud in (0, wire.baud) and meter.parity in ("", wire.parity))


def _collide(one: bytes, two: bytes) -> bytes:
    """Two answers on the wire at once: a 0 from either wins."""
    shared = bytes(a & b for a, b in zip(one, two, strict=False))
    return shared + max(one, two, key=len)[len(shared) :]


class Station:
    """One connection to a bus. `send` writes bytes, `drop` closes it. baud: tells the speed its user has set, 0 if it
    has none of its own. lasting: it is no connection that can hang, but a piece of wire."""

    def __init__(
        self,
        bus: Bus,
        send: Callable[[bytes], None],
        drop: Callable[[], None],
        baud: Callable[[], int] = no_baud,
        *,
        lasting: bool = False,
    ) -> None:
        self.bus = bus
        self.drop = drop
        self.baud = baud
        self._send = send
        self._lasting = lasting
        self._hangs = False
        self._buffer = bytearray()
        self._first_at = 0.0
        self._last_at = 0.0

    def send(self, data: bytes) -> None:
        """Characters for whoever is at the other end."""
        if not self._hangs:
            self._send(data)

    def hang(self) -> None:
        """Stay open; let nothing in or out any more."""
        self._hangs = not self._lasting

    def feed(self, chunk: bytes) -> None:
        """Characters that arrived just now."""
        if self._hangs:
            return
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

    def __init__(self, bus: Shared, closed: Callable[[StationProtocol], None] | None = None) -> None:
        self._bus = bus
        self._closed = closed
        self.station: Hearing | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.station = self._bus.station(self._send, transport.abort)

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

"""Slaves on one line, or behind one gateway: requests in, answers out, in RTU or MBAP frames.

A transport (`tcp`, `pty_line`, `dial`) makes a station of the bus for each connection and feeds it what arrives.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from simulators.bus import Wire, no_baud
from simulators.clock import Now
from simulators.faults import Faults, Spoiled
from simulators.modbus_faults import EXCEPTIONS, spoil
from simulators.modbus_frame import Request, take_mbap, take_rtu
from simulators.modbus_meter import ModbusMeter

__all__ = ["FRAMINGS", "Gateway", "ModbusBus", "ModbusStation"]

FRAMINGS = ("rtu", "tcp")
_GAP_S = 0.5  # characters further apart do not belong to one frame
_PIECE = 16
_ALL_UNITS = range(256)


@dataclass(frozen=True, slots=True)
class Gateway:
    """How the box in front of the slaves behaves.

    outstanding: requests it works on at once, 0 for any number; queue: how many may wait beside, the next one is
    refused as busy (06). absent: what a unit that is not there or says nothing gives, `no_response` (0B), `path` (0A)
    or `silence`, after absent_s. only_first: of several requests in one piece it answers the first. any_unit: there is
    one slave, and it answers to every unit.
    """

    outstanding: int = 0
    queue: int = 16
    absent: str = "silence"
    absent_s: float = 0.0
    only_first: bool = False
    any_unit: bool = False


class ModbusBus:
    """`units` by name; framing `rtu` (serial lines, RTU over TCP) or `tcp` (MBAP). Counts `exchanges` and `answers`."""

    def __init__(
        self,
        units: Sequence[tuple[str, ModbusMeter]],
        now: Now,
        *,
        framing: str = "rtu",
        wire: Wire | None = None,
        faults: Faults | None = None,
        gateway: Gateway | None = None,
        seed: int | str = 0,
    ) -> None:
        if framing not in FRAMINGS:
            raise ValueError(f"framing is one of {', '.join(FRAMINGS)}, not {framing}")
        self.units = tuple(units)
        self.framing = framing
        self.wire = wire or Wire(parity="N")
        self.faults = faults or Faults()
        self.gateway = gateway or Gateway()
        self.now = now
        self.exchanges = 0
        self.answers = 0
        self.most_waiting = 0
        self._by_unit = {meter.unit: (name, meter) for name, meter in units}
        self._random = Random(seed)
        self._previous = b""
        self._busy_until: list[float] = []  # when each request the gateway works on, or will, is over
        self._free_at = 0.0

    def hears(self) -> Sequence[int] | set[int]:
        """Units whose requests are taken off an RTU line: its own and broadcasts; a gateway hears all."""
        return _ALL_UNITS if self.gateway.any_unit or self._speaks_for_absent() else {0, *self._by_unit}

    def _speaks_for_absent(self) -> bool:
        return self.gateway.absent != "silence"

    def station(
        self,
        send: Callable[[bytes], None],
        drop: Callable[[], None],
        baud: Callable[[], int] = no_baud,
        *,
        lasting: bool = False,
    ) -> ModbusStation:
        """A new connection."""
        return ModbusStation(self, send, drop, baud, lasting=lasting)

    def handle(self, request: Request, station: ModbusStation, heard_at: float) -> None:
        """Answer one request over `station`. heard_at: loop time of its first byte."""
        self.exchanges += 1
        if request.unit == 0 and not self.gateway.any_unit:
            for _, meter in self.units:
                meter.answer(request.pdu)
            return
        start = self._admitted(heard_at)
        if start is None:
            busy = request.frame(request.unit, bytes((request.pdu[0] | 0x80, EXCEPTIONS["busy"])))
            self._deliver(Spoiled(busy), station, heard_at, heard_at)
            return
        spoiled = self._answered(request)
        wire = self._wire_of(station)
        if wire.baud:
            start = max(start, self._free_at) + wire.chars_s(request.size)
        start += wire.answer_delay_s + spoiled.delay_s
        end = start + wire.chars_s(len(spoiled.data))
        if wire.baud:
            self._free_at = end
        if self.gateway.outstanding:
            heapq.heappush(self._busy_until, end)
        self._deliver(spoiled, station, heard_at, start, wire)

    def _admitted(self, now: float) -> float | None:
        """When the gateway begins with a request that came `now`; None when it is too busy."""
        limit = self.gateway.outstanding
        if not limit:
            return now
        while self._busy_until and self._busy_until[0] <= now:
            heapq.heappop(self._busy_until)
        waiting = max(0, len(self._busy_until) - limit + 1)
        self.most_waiting = max(self.most_waiting, waiting)
        if waiting > self.gateway.queue:
            return None
        return sorted(self._busy_until)[-limit] if waiting else now

    def _answered(self, request: Request) -> Spoiled:
        found = self._by_unit.get(request.unit)
        if found is None and self.gateway.any_unit:
            found = self.units[0]
        if found is None:
            return self._absent(request)
        name, meter = found
        struck = self.faults.strike(name, self.now()) if self.faults.rules else []
        if any(rule.kind == "reset" for rule in struck):
            meter.reset()
        spoiled = spoil(struck, request, meter.answer(request.pdu), self._previous, self._random)
        if spoiled.data:
            self._previous = spoiled.data
        elif not spoiled.drop and not spoiled.half_open:
            return self._absent(request)
        return spoiled

    def _absent(self, request: Request) -> Spoiled:
        if not self._speaks_for_absent():
            return Spoiled(b"")
        pdu = bytes((request.pdu[0] | 0x80, EXCEPTIONS[self.gateway.absent]))
        return Spoiled(request.frame(request.unit, pdu), self.gateway.absent_s)

    def _wire_of(self, station: ModbusStation) -> Wire:
        """The wire as it is for this request: a terminal has the speed its user set."""
        baud = station.baud() if self.wire.baud else 0
        return Wire(baud, self.wire.answer_delay_s, self.wire.parity) if baud else self.wire

    def _deliver(
        self, spoiled: Spoiled, station: ModbusStation, heard_at: float, start: float, wire: Wire | None = None
    ) -> None:
        """Send the answer from `start` on, at the speed of the wire, and do to the connection what befalls it."""
        loop = asyncio.get_running_loop()
        data = spoiled.data
        if data:
            self.answers += 1
        if data and wire is not None and wire.baud:
            for at in range(0, len(data), _PIECE):
                piece = data[at : at + _PIECE]
                loop.call_at(start + wire.chars_s(at + len(piece)), station.send, piece)
        elif data and start > heard_at:
            loop.call_at(start, station.send, data)
        elif data:
            station.send(data)
        if spoiled.half_open:
            station.hang()
        if spoiled.drop:
            loop.call_at(start, station.drop)


class ModbusStation:
    """One connection to a bus; arguments as those of `simulators.bus.Station`."""

    def __init__(
        self,
        bus: ModbusBus,
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
        self._last_at = 0.0

    def send(self, data: bytes) -> None:
        """Bytes for whoever is at the other end."""
        if not self._hangs:
            self._send(data)

    def hang(self) -> None:
        """Stay open; let nothing in or out any more."""
        self._hangs = not self._lasting

    def feed(self, chunk: bytes) -> None:
        """Bytes that arrived just now."""
        if self._hangs:
            return
        now = asyncio.get_running_loop().time()
        buffer, bus = self._buffer, self.bus
        if bus.framing == "rtu" and buffer and now - self._last_at > _GAP_S + bus.wire.chars_s(len(buffer)):
            buffer.clear()
        self._last_at = now
        buffer += chunk
        while (request := self._take()) is not None:
            if bus.gateway.only_first:
                buffer.clear()
            bus.handle(request, self, now)

    def _take(self) -> Request | None:
        if self.bus.framing == "rtu":
            return take_rtu(self._buffer, self.bus.hears())
        try:
            return take_mbap(self._buffer)
        except ValueError:
            self._buffer.clear()
            self.drop()
            return None

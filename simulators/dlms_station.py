"""DLMS meters on a line: what arrives goes to the meter it is for, everything else is ignored.

HDLC links belong to the line, as on a pair of wires: who connects anew finds them as they were. Associations over the
wrapper belong to their connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from random import Random

from simulators.bus import Wire, no_baud
from simulators.dlms_association import Association
from simulators.dlms_hdlc import HangUp, HdlcLink, hears
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_signon import SignOn
from simulators.dlms_wire import Frame, take_frame, take_wrapped, wrap
from simulators.faults import Faults

__all__ = ["INTERFACES", "DlmsLine", "DlmsStation"]

INTERFACES = ("hdlc", "wrapper")
_GAP_S = 0.5  # characters further apart do not belong to one frame
_DISC = 0x43
_NOT_HERE = ("foreign", "duplicate")  # faults that forge DL/T 645 frames


class DlmsLine:
    """Meters that share a line. Counts `frames` heard and `answers` sent.

    wire: with a baud rate, answers take their time (10 bits a character with parity N, else 11). faults: befall each
    frame of an answer; `foreign` and `duplicate` do not work here. deaf: probability that a request is not heard,
    seeded. clock: seconds, for gaps between characters.
    """

    def __init__(
        self,
        meters: DlmsMeter | Sequence[DlmsMeter],
        *,
        interface: str = "hdlc",
        wire: Wire | None = None,
        faults: Faults | None = None,
        deaf: float = 0.0,
        seed: int | str = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.meters = (meters,) if isinstance(meters, DlmsMeter) else tuple(meters)
        if interface not in INTERFACES:
            raise ValueError(f"{interface!r} is none of {', '.join(INTERFACES)}")
        self.interface = interface
        self.wire = wire or Wire(parity="N")
        self.faults = faults or Faults()
        if any(kind in _NOT_HERE for rule in self.faults.rules for kind in (rule.kind, *rule.script)):
            raise ValueError("foreign and duplicate befall DL/T 645 meters only")
        self.deaf = deaf
        self.clock = clock
        self.frames = 0
        self.answers = 0
        self.free_at = 0.0
        self.random = Random(seed)
        self.sign_on = SignOn(self.meters)
        self._links: dict[tuple[int, bytes], HdlcLink] = {}

    def station(
        self,
        send: Callable[[bytes], None],
        drop: Callable[[], None],
        baud: Callable[[], int] = no_baud,
        *,
        lasting: bool = False,
    ) -> DlmsStation:
        """A new connection to this line."""
        return DlmsStation(self, send, drop, baud, lasting=lasting)

    def chars_s(self, count: int, baud: int = 0) -> float:
        """Line time of `count` characters; baud: as the transport has it."""
        bits = 10 if self.wire.parity == "N" else 11
        return count * bits / (baud or self.wire.baud) if self.wire.baud else 0.0

    def link(self, number: int, client: bytes) -> HdlcLink:
        """The link of a client with the meter of this number."""
        link = self._links.get((number, client))
        if link is None:
            meter = self.meters[number]
            link = self._links[number, client] = HdlcLink(meter.spec, Association(meter, client[0] >> 1))
        return link


class DlmsStation:
    """One connection. `feed` it what arrives; it sends what the meters say. line: a DlmsLine, or meters for a new one
    with `interface`. lasting: it is no connection that can be closed or hang, but a piece of wire."""

    def __init__(
        self,
        line: DlmsLine | DlmsMeter | Sequence[DlmsMeter],
        send: Callable[[bytes], None],
        drop: Callable[[], None],
        baud: Callable[[], int] = no_baud,
        *,
        interface: str = "hdlc",
        lasting: bool = False,
    ) -> None:
        self.line = line if isinstance(line, DlmsLine) else DlmsLine(line, interface=interface)
        self._send = send
        self._drop = drop
        self._baud = baud
        self._lasting = lasting
        self._hangs = False
        self._buffer = bytearray()
        self._text = bytearray()
        self._last_at = 0.0
        self._asked = b""  # what an echo brings back
        self._wrapped: dict[tuple[int, int], Association] = {}

    def send(self, data: bytes) -> None:
        """Characters for whoever is at the other end."""
        if not self._hangs:
            self._send(data)

    def feed(self, chunk: bytes) -> None:
        """Characters that arrived just now."""
        if self._hangs:
            return
        now = self.line.clock()
        if now - self._last_at > _GAP_S:
            self._buffer.clear()
            self._text.clear()
        self._last_at = now
        self._asked = chunk
        if self.line.wire.baud:
            self.line.free_at = max(now, self.line.free_at) + self.line.chars_s(len(chunk), self._baud())
        try:
            if self.line.interface == "wrapper":
                self._buffer += chunk
                self._hear_wrapped()
            else:
                self._hear_serial(chunk)
        except HangUp:
            self._close()

    def _close(self) -> None:
        if not self._lasting:
            self._drop()

    def _is_deaf(self) -> bool:
        self.line.frames += 1
        return bool(self.line.deaf) and self.line.random.random() < self.line.deaf

    # -- HDLC ----------------------------------------------------------------------------------------------------

    def _hear_serial(self, chunk: bytes) -> None:
        sign_on = self.line.sign_on
        if sign_on.wanted and not (sign_on.done(self._baud()) and chunk[:1] and chunk[0] & 0x7F not in b"/\x06"):
            self._text += chunk
            for said in sign_on.hear(self._text, self._baud()):
                self._say(said, "")
            if not sign_on.done(self._baud()):
                self._buffer.clear()
                return
        self._buffer += chunk
        while (frame := take_frame(self._buffer)) is not None:
            if not self._is_deaf():
                self._hear_frame(frame)

    def _hear_frame(self, frame: Frame) -> None:
        if len(frame.source) != 1:
            return
        for number, meter in enumerate(self.line.meters):
            if not hears(meter.spec, frame.destination):
                continue
            link = self.line.link(number, frame.source)
            for said in link.hear(frame, meter.now()):
                self._say(said, meter.spec.serial)
            if frame.control & ~0x10 == _DISC:
                self.line.sign_on.over()

    # -- wrapper -------------------------------------------------------------------------------------------------

    def _hear_wrapped(self) -> None:
        while (wrapped := take_wrapped(self._buffer)) is not None:
            if self._is_deaf():
                continue
            for number, meter in enumerate(self.line.meters):
                if meter.spec.logical != wrapped.destination:
                    continue
                association = self._wrapped.get((number, wrapped.source))
                if association is None:
                    association = self._wrapped[number, wrapped.source] = Association(meter, wrapped.source)
                answers = association.answer(wrapped.apdu)
                ports = (wrapped.destination, wrapped.source)
                own, other = ports[::-1] if meter.spec.quirks.swap_wports else ports
                for apdu in [*association.unasked(), *answers]:
                    self._say(wrap(own, other, apdu), meter.spec.serial)

    # -- out -----------------------------------------------------------------------------------------------------

    def _say(self, data: bytes, meter: str) -> None:
        """Send, as faults and the speed of the wire have it."""
        line = self.line
        late_s, drop = 0.0, False
        asked, self._asked = self._asked, b""
        if line.faults.rules:
            spoiled = line.faults.spoil(line.faults.strike(meter, line.meters[0].now()), asked, data, b"")
            data, late_s, drop = spoiled.data, spoiled.delay_s + spoiled.babble_s, spoiled.drop
            if spoiled.babble_s:
                self._after(0.0, line.faults.babble(16))
            if spoiled.half_open:
                self._hangs = not self._lasting
        wire = line.wire
        wait_s = wire.answer_delay_s + late_s
        if wire.baud:
            start = max(line.clock(), line.free_at) + wire.answer_delay_s
            line.free_at = start + line.chars_s(len(data), self._baud())
            wait_s = line.free_at - line.clock() + late_s
        if data:
            line.answers += 1
            self._after(wait_s, data)
        if drop and wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, self._close)
        elif drop:
            self._close()

    def _after(self, wait_s: float, data: bytes) -> None:
        if wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, self.send, data)
        else:
            self.send(data)

"""An HDLC secondary station and a wire with faults, written for the tests alone: nothing of the code under test.

The station is strict: it counts what breaks the rules (a field too long, a window overrun, talking out of turn) in
`offences`, and answers FRMR where ISO/IEC 13239 says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

from headend.conversation import Conversation, Pause, Send, SetSpeed
from headend.errors import NoAnswer

T = TypeVar("T")


def crc_bitwise(data: bytes) -> int:
    """CRC-16/X.25 by the book, a bit at a time."""
    value = 0xFFFF
    for byte in data:
        for bit in range(8):
            mixed = (value ^ (byte >> bit)) & 1
            value >>= 1
            if mixed:
                value ^= 0x8408
    return value ^ 0xFFFF


def build(to: bytes, source: bytes, control: int, info: bytes = b"", *, segmented: bool = False) -> bytes:
    """A frame, put together by hand."""
    addresses = to + source + bytes([control])
    size = 2 + len(addresses) + 2 + (len(info) + 2 if info else 0)
    body = bytes([0xA0 | (8 if segmented else 0) | size >> 8, size & 0xFF]) + addresses
    check = crc_bitwise(body)
    body += bytes([check & 0xFF, check >> 8])
    if info:
        body += info
        check = crc_bitwise(body)
        body += bytes([check & 0xFF, check >> 8])
    return b"\x7e" + body + b"\x7e"


@dataclass
class Heard:
    """One good frame the station got."""

    control: int
    segmented: bool
    info: bytes


def frames_for(address: bytes, client: bytes, data: bytes) -> Iterator[Heard]:
    """The good frames in `data` from `client` to `address`; the rest is passed over."""
    at = 0
    while at + 9 <= len(data):
        size = (data[at + 1] & 7) << 8 | data[at + 2]
        body = data[at + 1 : at + 1 + size]
        closed = data[at + 1 + size : at + 2 + size] == b"\x7e"
        if data[at] != 0x7E or data[at + 1] >> 4 != 0xA or not closed or len(body) != size or size < 7:
            at += 1
            continue
        if crc_bitwise(body[:-2]) != body[-2] | body[-1] << 8 or body[2:].find(address + client) != 0:
            at += 1
            continue
        head = 2 + len(address) + len(client) + 1
        info = body[head + 2 : -2] if size > head + 2 else b""
        if info and crc_bitwise(body[:head]) != body[head] | body[head + 1] << 8:
            at += 1
            continue
        yield Heard(body[head - 1], bool(body[0] & 8), info)
        at += size + 1


@dataclass
class Station:
    """A meter's side of HDLC. answer: the APDUs it gives for one. Limits are its own: what it receives and sends."""

    address: bytes
    client: bytes
    answer: Callable[[bytes], list[bytes]] = lambda apdu: [apdu]
    receive_bytes: int = 128
    send_bytes: int = 128
    receive_window: int = 1
    send_window: int = 1
    ua_info: bool = True
    takes_field: bool = True
    refuse_with: int = 0x1F  # DM, FRMR, or 0 for silence, to a SNRM whose field it does not take
    connected: bool = False
    asked: list[bytes] = field(default_factory=list)
    offences: list[str] = field(default_factory=list)
    snrms: list[bytes] = field(default_factory=list)
    busy_turns: int = 0  # answers RNR, or RR without the answer, this many times
    busy_with: int = 0x05
    ack_first: bool = False  # answers a request with RR, gives the answer when polled
    vs: int = 0
    vr: int = 0
    parts: bytes = b""
    out: list[tuple[int, bytes, bool]] = field(default_factory=list)  # number, info, more
    rejected: bool = False
    fresh: bool = False
    limits: tuple[int, int, int, int] = (128, 128, 1, 1)

    def feed(self, data: bytes) -> bytes:
        """What it sends back for `data`."""
        reply = b""
        in_a_row = 0
        for heard in frames_for(self.address, self.client, data):
            if heard.control & 1 == 0:
                in_a_row += 1
                if in_a_row > self.limits[2]:
                    self.offences.append("window overrun")
            reply += self._one(heard)
        return reply

    def frame(self, control: int, info: bytes = b"", *, segmented: bool = False) -> bytes:
        return build(self.client, self.address, control, info, segmented=segmented)

    def _one(self, heard: Heard) -> bytes:
        base = heard.control & 0xEF
        if base == 0x83:
            return self._snrm(heard.info)
        if base == 0x43:
            was, self.connected = self.connected, False
            return self.frame(0x73 if was else 0x1F)
        if not self.connected:
            return self.frame(0x1F) if heard.control & 0x10 else b""
        if heard.control & 1 == 0:
            return self._information(heard)
        if heard.control & 0x0F == 1:
            return self._turn(heard.control >> 5) if heard.control & 0x10 else b""
        self.offences.append(f"control {heard.control:02x}")
        return b""

    def _snrm(self, info: bytes) -> bytes:
        self.snrms.append(info)
        if info and not self.takes_field:
            return (
                self.frame(self.refuse_with, b"\x93\x00\x03" if self.refuse_with == 0x97 else b"")
                if (self.refuse_with)
                else b""
            )
        theirs = self._read(info)
        self.limits = (
            min(self.receive_bytes, theirs.get(5, 128)),
            min(self.send_bytes, theirs.get(6, 128)),
            min(self.receive_window, theirs.get(7, 1)),
            min(self.send_window, theirs.get(8, 1)),
        )
        if not self.ua_info:
            self.limits = (min(128, self.limits[0]), min(128, self.limits[1]), 1, 1)
        self.connected, self.vs, self.vr, self.parts, self.out = True, 0, 0, b"", []
        receive, send, receive_window, send_window = self.limits
        body = b"\x05\x02" + send.to_bytes(2, "big") + b"\x06\x02" + receive.to_bytes(2, "big")
        body += b"\x07\x04" + send_window.to_bytes(4, "big") + b"\x08\x04" + receive_window.to_bytes(4, "big")
        return self.frame(0x73, b"\x81\x80" + bytes([len(body)]) + body if self.ua_info else b"")

    def _read(self, info: bytes) -> dict[int, int]:
        said = {}
        at = 3
        while at < len(info):
            said[info[at]] = int.from_bytes(info[at + 2 : at + 2 + info[at + 1]], "big")
            at += 2 + info[at + 1]
        return said

    def _information(self, heard: Heard) -> bytes:
        number = heard.control >> 1 & 7
        if len(heard.info) > self.limits[0]:
            self.offences.append(f"{len(heard.info)} bytes of information")
            return self.frame(0x97, bytes([heard.control, self.vr << 5 | self.vs << 1, 4]))
        if number == self.vr:
            self.vr = (self.vr + 1) & 7
            self.parts += heard.info
            if not heard.segmented:
                self._complete()
        else:
            self.rejected = True
        return self._turn(heard.control >> 5) if heard.control & 0x10 else b""

    def _complete(self) -> None:
        whole, self.parts = self.parts, b""
        if whole[:3] != b"\xe6\xe6\x00":
            self.offences.append("no LLC bytes")
        self.asked.append(whole[3:])
        self.fresh = self.ack_first
        number = (self.vs + len(self.out)) & 7
        for apdu in self.answer(whole[3:]):
            data = b"\xe6\xe7\x00" + apdu
            pieces = [data[at : at + self.limits[1]] for at in range(0, len(data), self.limits[1])]
            for index, piece in enumerate(pieces):
                self.out.append((number, piece, index + 1 < len(pieces)))
                number = (number + 1) & 7

    def _turn(self, acknowledged: int) -> bytes:
        """Everything that is due now that it is the meter's turn."""
        gone = (acknowledged - self.vs) & 7
        if gone > min(len(self.out), self.limits[3]):
            self.offences.append(f"N(R) {acknowledged} acknowledges what was not sent")
            gone = 0
        del self.out[:gone]
        self.vs = (self.vs + gone) & 7
        if self.busy_turns:
            self.busy_turns -= 1
            return self.frame(self.busy_with | 0x10 | self.vr << 5)
        if self.rejected:
            self.rejected = False
            if not self.out:
                return self.frame(0x19 | self.vr << 5)  # REJ
        if self.fresh or not self.out:
            self.fresh = False
            return self.frame(0x11 | self.vr << 5)
        window = self.out[: self.limits[3]]
        reply = b""
        for index, (number, piece, more) in enumerate(window):
            final = 0x10 if index + 1 == len(window) else 0
            reply += self.frame(self.vr << 5 | final | number << 1, piece, segmented=more)
        return reply


Fault = Callable[[bytes], bytes]


def whole(data: bytes) -> bytes:
    return data


def drive(
    conversation: Conversation[T],
    station: Callable[[bytes], bytes],
    *,
    up: Fault = whole,
    down: Fault = whole,
    chop: random.Random | None = None,
    most: int = 100_000,
) -> T:
    """Run `conversation` against `station` over a wire with the faults `up` and `down`; `most` requests at most."""
    chunks: list[bytes] = []
    try:
        request = next(conversation)
        for _ in range(most):
            if isinstance(request, SetSpeed):
                request = conversation.send(b"")
                continue
            if isinstance(request, Pause):
                chunks.clear()
                request = conversation.send(b"")
                continue
            if isinstance(request, Send):
                chunks += _chopped(down(station(up(request.data))), chop)
            request = conversation.send(chunks.pop(0)) if chunks else conversation.throw(NoAnswer("silence"))
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError(f"the conversation does not end within {most} requests")


def _chopped(data: bytes, chop: random.Random | None) -> list[bytes]:
    if chop is None or not data:
        return [data] if data else []
    cuts = sorted({chop.randrange(len(data)) for _ in range(chop.randrange(1, 8))} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(cuts) if end > start]

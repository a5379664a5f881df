"""The secondary station of HDLC in a meter: one link per client, negotiated, segmented, windowed, repeated on demand.

Normal response mode: the meter speaks only when it is polled.
"""

from __future__ import annotations

from typing import Protocol

from simulators.dlms_spec import DlmsSpec
from simulators.dlms_wire import Frame, build_frame

__all__ = ["HangUp", "HdlcLink", "Talk", "hears"]

_SNRM, _UA, _DISC, _DM, _FRMR, _UI = 0x83, 0x63, 0x43, 0x0F, 0x87, 0x03
_FINAL = 0x10
_DEFAULT_INFO, _DEFAULT_WINDOW = 128, 1
_REQUEST_LLC, _RESPONSE_LLC = b"\xe6\xe6\x00", b"\xe6\xe7\x00"
_ALL = {1: 0x7F, 2: 0x7F, 4: 0x3FFF}


class HangUp(Exception):
    """The meter closes the connection."""


class Talk(Protocol):
    """What is on top of a link. answer: an APDU in, APDUs out. unasked: what it says meanwhile, in frames of their
    own. forget: the link is gone. fails: how this step fails, `` if it does not."""

    def answer(self, apdu: bytes) -> list[bytes]: ...

    def unasked(self) -> list[bytes]: ...

    def forget(self) -> None: ...

    def fails(self, step: str) -> str: ...

    def noise(self) -> bytes: ...


def _split(address: bytes) -> tuple[int, int | None]:
    """Upper and lower part of a server address; None if it has no lower one."""
    parts = [byte >> 1 for byte in address]
    if len(parts) == 1:
        return parts[0], None
    if len(parts) == 2:
        return parts[0], parts[1]
    return parts[0] << 7 | parts[1], parts[2] << 7 | parts[3]


def hears(spec: DlmsSpec, address: bytes) -> bool:
    """Whether a frame to `address` is for this meter."""
    wanted = spec.quirks.address_bytes
    if wanted and len(address) != wanted:
        return False
    if len(address) not in _ALL:
        return False
    if len(address) == 2 and spec.physical is None and spec.logical > 0x7F:
        return (address[0] >> 1) << 7 | address[1] >> 1 == spec.logical
    upper, lower = _split(address)
    if upper not in (spec.logical, _ALL[len(address)]):
        return False
    return lower is None or spec.physical is None or lower in (spec.physical, _ALL[len(address)])


class HdlcLink:
    """The link of one client with one meter. `hear` is the whole of it: a frame in, frames out."""

    def __init__(self, spec: DlmsSpec, talk: Talk) -> None:
        self._spec = spec
        self._talk = talk
        self._connected = False
        self._max_tx = self._max_rx = _DEFAULT_INFO
        self._window = self._window_rx = _DEFAULT_WINDOW
        self._received = 0  # V(R)
        self._parts = bytearray()
        self._queue: list[tuple[bytes, bool]] = []  # segments from the first unacknowledged on, and if more follow
        self._first = 0  # N(S) of the first of them
        self.down_s: float | None = None  # when it was last disconnected

    def hear(self, frame: Frame, now_s: float) -> list[bytes]:
        """The frames that answer `frame`. HangUp when the connection is to be closed."""
        control = frame.control & ~_FINAL
        if control == _SNRM:
            return self._connect(frame, now_s)
        if control == _DISC:
            return self._disconnect(frame, now_s)
        if control == _UI:
            return self._unnumbered(frame)
        if not self._connected:
            return self._reply(frame, _DM | _FINAL) if frame.control & _FINAL else []
        if not control & 1:
            return self._information(frame)
        if control & 0x0F in (0x01, 0x05, 0x09):  # RR, RNR, REJ
            self._acknowledge(frame.control >> 5)
            return self._speak(frame) if frame.control & _FINAL and control & 0x0F != 0x05 else []
        return self._reject(frame, 0x01)

    def _reply(self, frame: Frame, control: int, info: bytes = b"", segmented: bool = False) -> list[bytes]:
        if self._spec.quirks.wrong_final:
            control &= ~_FINAL
        return [build_frame(Frame(frame.source, frame.destination, control, info, segmented))]

    def _reject(self, frame: Frame, why: int) -> list[bytes]:
        """FRMR: the control field that was wrong, both counts, the reason."""
        sent = (self._first + len(self._queue)) % 8
        state = self._received << 5 | sent << 1
        return self._reply(frame, _FRMR | _FINAL, bytes((frame.control, state, why)))

    # -- up and down ---------------------------------------------------------------------------------------------

    def _connect(self, frame: Frame, now_s: float) -> list[bytes]:
        quirks = self._spec.quirks
        if self.down_s is not None and 0 <= now_s - self.down_s < quirks.reconnect_s:
            return []
        how = self._talk.fails("snrm")
        if not how and frame.info and quirks.snrm_field != "works":
            how = {"dm": "refuse", "frmr": "frmr"}.get(quirks.snrm_field, "silent")
        if how:
            return self._fail(frame, how)
        self._talk.forget()
        self._reset()
        self._connected = True
        self._negotiate(_parameters(frame.info))
        return self._reply(frame, _UA | _FINAL, self._parameter_field() if quirks.ua_field else b"")

    def _fail(self, frame: Frame, how: str) -> list[bytes]:
        if how == "close":
            raise HangUp
        if how == "refuse":
            return self._reply(frame, _DM | _FINAL)
        if how in ("frmr", "exception"):
            return self._reject(frame, 0x02)
        return [self._talk.noise()] if how == "garbage" else []

    def _reset(self) -> None:
        self._received = self._first = 0
        self._parts.clear()
        self._queue.clear()

    def _negotiate(self, asked: dict[int, int]) -> None:
        """What the client sends (05, 07) we receive, what it receives (06, 08) we send."""
        spec = self._spec
        self._max_rx = max(min(asked.get(0x05, _DEFAULT_INFO), spec.max_info), 32)
        self._max_tx = max(min(asked.get(0x06, _DEFAULT_INFO), spec.max_info), 32)
        self._window = max(min(asked.get(0x08, _DEFAULT_WINDOW), spec.window), 1)
        self._window_rx = max(min(asked.get(0x07, _DEFAULT_WINDOW), spec.window), 1)

    def _parameter_field(self) -> bytes:
        body = b""
        for tag, value in ((5, self._max_tx), (6, self._max_rx)):
            size = 1 if value < 0x100 else 2
            body += bytes((tag, size)) + value.to_bytes(size, "big")
        for tag, value in ((7, self._window), (8, self._window_rx)):
            body += bytes((tag, 4)) + value.to_bytes(4, "big")
        return b"\x81\x80" + bytes((len(body),)) + body

    def _disconnect(self, frame: Frame, now_s: float) -> list[bytes]:
        how = self._talk.fails("release") if self._connected else ""
        was, self._connected = self._connected, False
        self._talk.forget()
        self._reset()
        if how:
            return self._fail(frame, how)
        if was:
            self.down_s = now_s
        return self._reply(frame, (_UA if was else _DM) | _FINAL)

    # -- what is said --------------------------------------------------------------------------------------------

    def _unnumbered(self, frame: Frame) -> list[bytes]:
        """Without a connection: for clients that are associated beforehand."""
        if not frame.info.startswith(_REQUEST_LLC):
            return []
        answers = self._talk.answer(frame.info[3:])
        return [build_frame(Frame(frame.source, frame.destination, 0x13, _RESPONSE_LLC + apdu)) for apdu in answers]

    def _information(self, frame: Frame) -> list[bytes]:
        polled = bool(frame.control & _FINAL)
        overhead = 2 + len(frame.destination) + len(frame.source) + 1 + 2 + 2 if self._spec.quirks.frame_is_max else 0
        if len(frame.info) + overhead > self._max_rx:
            return self._reject(frame, 0x04)
        self._acknowledge(frame.control >> 5)
        if frame.control >> 1 & 7 != self._received:  # known already, or one is missing: say what we expect
            return self._speak(frame) if polled else []
        self._received = (self._received + 1) % 8
        self._parts += frame.info
        unasked: list[bytes] = []
        if not frame.segmented:
            message = bytes(self._parts)
            self._parts.clear()
            if message.startswith(_REQUEST_LLC):
                for apdu in self._talk.answer(message[3:]):
                    self._enqueue(apdu, frame)
            for apdu in self._talk.unasked():
                unasked += self._reply(frame, _UI, _RESPONSE_LLC + apdu)
        return unasked + self._speak(frame) if polled else unasked

    def _enqueue(self, apdu: bytes, frame: Frame) -> None:
        message = _RESPONSE_LLC + apdu
        size = self._max_tx
        if self._spec.quirks.frame_is_max:
            size -= 2 + len(frame.destination) + len(frame.source) + 1 + 2 + 2
        ends = range(size, len(message) + size, size)
        self._queue += [(message[end - size : end], end < len(message)) for end in ends]

    def _acknowledge(self, until: int) -> None:
        """Everything before N(R) arrived."""
        count = (until - self._first) % 8
        if count <= min(len(self._queue), self._window):
            del self._queue[:count]
            self._first = (self._first + count) % 8

    def _speak(self, frame: Frame) -> list[bytes]:
        """A window of what is waiting, from the first unacknowledged on, or RR."""
        if not self._queue:
            return self._reply(frame, self._received << 5 | 0x01 | _FINAL)
        pieces = self._queue[: self._window]
        said: list[bytes] = []
        for k, (piece, more) in enumerate(pieces):
            control = self._received << 5 | (self._first + k) % 8 << 1
            control |= _FINAL * (k == len(pieces) - 1)
            said += self._reply(frame, control, piece, more)
        return said


def _parameters(field: bytes) -> dict[int, int]:
    """Parameter and value of an SNRM information field; what is no such field is no wish."""
    found: dict[int, int] = {}
    if field[:2] != b"\x81\x80":
        return found
    at = 3
    while at + 2 <= len(field):
        size = field[at + 1]
        found[field[at]] = int.from_bytes(field[at + 2 : at + 2 + size], "big")
        at += 2 + size
    return found

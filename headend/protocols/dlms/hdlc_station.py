"""Frames to one meter and back: what is for us among all that comes, and what to say when nothing is."""

from __future__ import annotations

from typing import Final

from headend.conversation import MORE, Conversation, Pause, Send
from headend.errors import BadFrame, NoAnswer, ProtocolError, Refused, WrongMeter
from headend.protocols.dlms import hdlc
from headend.protocols.dlms.hdlc import Damaged, Frame
from headend.protocols.dlms.settings import DlmsSettings

__all__ = ["Station"]

_MAX_HEARD: Final = 65_536  # bytes waited through after one send: a line that never falls silent must not hold the job
_MAX_UNSOLICITED: Final = 100


class Station:
    """The meter with the encoded address `server` as client `client` sees it.

    unsolicited: APDUs of UI frames, without LLC bytes. where: for errors.
    """

    __slots__ = (
        "_assembler",
        "_buffer",
        "_came",
        "_client",
        "_foreign",
        "_noise",
        "_server",
        "_settings",
        "unsolicited",
        "where",
    )

    def __init__(self, settings: DlmsSettings, server: bytes, client: bytes) -> None:
        self.unsolicited: list[bytes] = []
        self.where = f"meter {hdlc.address_text(server)}, client {hdlc.address_text(client)}"
        self._settings = settings
        self._server = server
        self._client = client
        self._assembler = hdlc.Assembler()
        self._buffer = bytearray()
        self._came = 0
        self._noise = 0
        self._foreign: set[str] = set()

    @property
    def overhead(self) -> int:
        """Bytes of a frame around its information field."""
        return 9 + len(self._server) + len(self._client)

    def clear(self) -> None:
        """Forget what came."""
        self._buffer.clear()
        self.begin()

    def begin(self) -> None:
        """What comes from now on is what `verdict` is about."""
        self._noise, self._foreign = 0, set()

    def keep(self, apdu: bytes) -> None:
        """An APDU nobody asked for."""
        if len(self.unsolicited) < _MAX_UNSOLICITED:
            self.unsolicited.append(apdu)

    def frame(self, control: int, info: bytes = b"", *, segmented: bool = False) -> bytes:
        """A frame to the meter."""
        return hdlc.encode(self._server, self._client, control, info, segmented=segmented)

    def send(self, data: bytes, shown: bytes | None = None) -> Conversation[None]:
        """Send frames, and keep the first chunk of what comes. Raises `NoAnswer` when nothing does."""
        self._came = 0
        if self._settings.interframe_s > 0:
            yield Pause(self._settings.interframe_s)
        self._buffer += yield Send(data, self._settings.reply_s or None, shown=shown)

    def next(self) -> Conversation[Frame]:
        """The next frame of the meter. Raises `NoAnswer` at the timeout, when its last frame is damaged, or when only
        rubbish comes."""
        while True:
            while (seen := hdlc.take(self._buffer)) is not None:
                if (frame := self._sift(seen)) is not None:
                    return frame
                if self._ends_turn(seen):
                    raise NoAnswer("the last frame of the answer is damaged", where=self.where)
            chunk = yield MORE
            self._came += len(chunk)
            if self._came > _MAX_HEARD:
                raise NoAnswer("the line never falls silent", where=self.where)
            self._buffer += chunk

    def here(self) -> list[Frame]:
        """Frames of the meter that are here already."""
        frames = []
        while (seen := hdlc.take(self._buffer)) is not None:
            if (frame := self._sift(seen)) is not None:
                frames.append(frame)
        return frames

    def rest(self) -> list[Frame]:
        """Frames that stood behind an unfinished one, now that no more bytes will come."""
        frames = []
        while self._buffer:
            seen = hdlc.give_up(self._buffer)
            if seen is not None and (frame := self._sift(seen)) is not None:
                frames.append(frame)
        return frames

    def _sift(self, seen: Frame | Damaged) -> Frame | None:
        """`seen` if it is a frame for us; everything else is remembered for the verdict, or kept."""
        if isinstance(seen, Damaged):
            self._noise += len(seen.raw)
        elif seen.kind == "UI":
            self._take_push(seen)
        elif self._is_ours(seen):
            return seen
        elif (seen.destination, seen.source) != (self._server, self._client):  # else our own, given back by the line
            self._foreign.add(f"{hdlc.address_text(seen.source)} to {hdlc.address_text(seen.destination)}")
        return None

    def _is_ours(self, frame: Frame) -> bool:
        return frame.source == self._server and frame.destination == self._client

    def _ends_turn(self, seen: Frame | Damaged) -> bool:
        """A damaged frame whose header is whole and says that it is our turn: nothing more will come."""
        frame = seen.frame if isinstance(seen, Damaged) else None
        return frame is not None and frame.final and self._is_ours(frame)

    def _take_push(self, frame: Frame) -> None:
        """A UI frame of our meter, to whomever it may be: kept, when it is whole."""
        if frame.source != self._server:
            return
        info = self._assembler.feed(frame)
        if info is not None and info[:3] in (hdlc.LLC_RESPONSE, hdlc.LLC_COMMAND):
            self.keep(info[3:])

    def ended(self, frame: Frame) -> ProtocolError:
        """What DM, RD and FRMR mean."""
        if frame.kind == "FRMR":
            return BadFrame(f"the meter rejects a frame: {hdlc.frmr_reasons(frame.info)}", where=self.where)
        what = "is not connected (DM)" if frame.kind == "DM" else "wants to be disconnected (RD)"
        return Refused(
            f"the meter {what}",
            code=frame.control,
            where=self.where,
            remedy="was there too long a silence, or is another client connected?",
        )

    def verdict(self) -> ProtocolError:
        """Why there was no answer."""
        if self._noise:
            return BadFrame(
                f"{self._noise} bytes came that make no whole frame",
                where=self.where,
                remedy="check speed, parity and wiring, and that the meter speaks HDLC here",
            )
        if self._foreign:
            return WrongMeter(
                f"frames came from {', '.join(sorted(self._foreign)[:5])} instead",
                where=self.where,
                remedy="check the address and address_bytes",
            )
        return NoAnswer("no answer", where=self.where, remedy="check power, line, speed, address and client")

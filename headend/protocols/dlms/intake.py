"""What meters send on their own, from bytes as they come to whole APDUs: HDLC, wrapper or M-Bus, and block transfer.

Nothing is asked again here, for nobody listens at the other end: what lost a part is dropped whole, and said.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from headend.errors import BadFrame
from headend.protocols.dlms import hdlc, mbus, wrapper
from headend.protocols.dlms.apdu import Apdu, parse_part

__all__ = ["Arrival", "Blocks", "Intake", "arrivals", "bare"]

MAX_APDU: Final = 65_536
_LLC: Final = (hdlc.LLC_RESPONSE, hdlc.LLC_COMMAND)
_WRAPPER_START: Final = b"\x00\x01"
_STARTS: Final = (hdlc.FLAG, mbus.START, _WRAPPER_START[0])


class Arrival(NamedTuple):
    """One whole APDU, ciphered or not. source: the sender's address on its link (`1/17`, a wPort), "" where none is."""

    apdu: bytes
    source: str


class Blocks:
    """Joins the blocks of general block transfers (IEC 62056-5-3 clause 9). Holds one unfinished APDU."""

    __slots__ = ("_last", "_parts")

    def __init__(self) -> None:
        self._parts = bytearray()
        self._last = 0

    @property
    def pending(self) -> bool:
        """Whether blocks are missing."""
        return self._last > 0

    def broken_by(self, apdu: bytes) -> bool:
        """Whether `apdu` begins a new transfer while blocks of the one before are missing."""
        return self._last > 1 and parse_part(apdu).number == 1

    def drop(self) -> None:
        """Forget the unfinished APDU."""
        self._parts.clear()
        self._last = 0

    def feed(self, apdu: bytes) -> bytes | None:
        """The APDU that `apdu`, a block, completes; None while blocks are missing. Raises `BadFrame` when one was lost;
        a first block then begins anew."""
        block = parse_part(apdu)
        if block.number == self._last and block.number:
            return None  # sent again
        if block.number != self._last + 1:
            expected = self._last + 1
            self.drop()
            if block.number != 1:
                raise BadFrame(
                    f"block {expected} of a block transfer was lost, block {block.number} came: the push is dropped"
                )
        if len(self._parts) + len(block.data) > MAX_APDU:
            self.drop()
            raise BadFrame(f"a block transfer of more than {MAX_APDU} bytes is dropped")
        self._parts += block.data
        self._last = block.number
        if not block.last:
            return None
        whole = bytes(self._parts)
        self.drop()
        return whole


class Intake:
    """One stream of bytes: a connection a meter or concentrator pushes over, or a port that only listens.

    The framing is seen from the first byte of each frame. Holds at most one unfinished frame and APDU. swap_wports: the
    senders write their wrapper port where ours should stand.
    """

    __slots__ = ("_blocks", "_buffer", "_halves", "_open", "_segments", "_source", "_swap")

    def __init__(self, *, swap_wports: bool = False) -> None:
        self._swap = swap_wports
        self._buffer = bytearray()
        self._segments = hdlc.Assembler()
        self._open = False  # an HDLC segment waits for the next
        self._halves = mbus.Assembler()
        self._blocks = Blocks()
        self._source = ""

    def feed(self, chunk: bytes) -> list[Arrival | BadFrame]:
        """The APDUs `chunk` completes, and why others will not be, in order."""
        self._buffer += chunk
        found: list[Arrival | BadFrame] = []
        while self._buffer and self._step(found):
            pass
        return found

    def close(self) -> list[BadFrame]:
        """What was cut off, now that nothing more comes."""
        found = []
        if self._open or self._halves.pending or self._blocks.pending:
            found.append(BadFrame("the last push is cut off: parts of it never came"))
        elif self._buffer.strip(b"\x7e"):
            found.append(BadFrame(f"{len(self._buffer)} byte(s) at the end are no whole frame"))
        self._buffer.clear()
        self._drop()
        return found

    def _step(self, found: list[Arrival | BadFrame]) -> bool:
        """Take one frame or stretch of noise out of the buffer; False when more bytes are needed."""
        first = self._buffer[0]
        if first == hdlc.FLAG:
            return self._hdlc(found)
        if first == mbus.START:
            return self._mbus(found)
        if self._buffer[:2] == _WRAPPER_START[: len(self._buffer)]:
            return self._wrapper(found)
        starts = [at for at in (self._buffer.find(start, 1) for start in _STARTS) if at > 0]
        count = min(starts, default=len(self._buffer))
        self._damaged(found, "no frame starts here", count)
        del self._buffer[:count]
        return True

    def _hdlc(self, found: list[Arrival | BadFrame]) -> bool:
        frame = hdlc.take(self._buffer)
        if frame is None:
            return False
        if isinstance(frame, hdlc.Damaged):
            if frame.raw.strip(b"\x7e"):
                self._damaged(found, frame.why, len(frame.raw))
            return True
        if frame.kind not in ("I", "UI"):
            return True
        joined = self._segments.feed(frame)
        self._open = frame.segmented
        if joined is not None:
            self._whole(found, joined[3:] if joined[:3] in _LLC else joined, hdlc.address_text(frame.source))
        return True

    def _mbus(self, found: list[Arrival | BadFrame]) -> bool:
        frame = mbus.take(self._buffer)
        if frame is None:
            return False
        if isinstance(frame, mbus.Damaged):
            self._damaged(found, frame.why, len(frame.raw))
            return True
        try:
            joined = self._halves.feed(frame)
        except BadFrame as error:
            found.append(error)
            return True
        if joined is not None:
            self._whole(found, joined, "")
        return True

    def _wrapper(self, found: list[Arrival | BadFrame]) -> bool:
        wpdu = wrapper.take(self._buffer)
        if wpdu is None:
            return False
        if isinstance(wpdu, wrapper.Damaged):
            self._damaged(found, wpdu.why, len(wpdu.raw))
        else:
            self._whole(found, wpdu.apdu, str(wpdu.destination if self._swap else wpdu.source))
        return True

    def _whole(self, found: list[Arrival | BadFrame], apdu: bytes, source: str) -> None:
        if apdu[:1] != bytes((Apdu.BLOCK_TRANSFER,)):
            found.append(Arrival(apdu, source))
            return
        try:
            if self._blocks.pending and (source != self._source or self._blocks.broken_by(apdu)):
                self._blocks.drop()
                found.append(BadFrame("the last blocks of a block transfer were lost: the push is dropped"))
            self._source = source
            joined = self._blocks.feed(apdu)
        except BadFrame as error:
            found.append(error)
            return
        if joined is not None:
            found.append(Arrival(joined, source))

    def _damaged(self, found: list[Arrival | BadFrame], why: str, count: int) -> None:
        """Noise, and with it whatever was unfinished: its next part may have been in there."""
        broken = self._open or self._halves.pending
        found.append(
            BadFrame(f"{count} byte(s) lost: {why}" + ("; the push they belong to is dropped" if broken else ""))
        )
        self._segments = hdlc.Assembler()
        self._open = False
        self._halves.drop()

    def _drop(self) -> None:
        self._segments = hdlc.Assembler()
        self._open = False
        self._halves.drop()
        self._blocks.drop()


def bare(data: bytes) -> bytes | None:
    """The APDU in `data` when it stands there without any framing (LLC bytes apart); None when it is framed."""
    if data[:3] in _LLC:
        return data[3:]
    if data[:1] and data[0] not in (hdlc.FLAG, mbus.START) and data[:2] != _WRAPPER_START:
        return data
    return None


def arrivals(data: bytes) -> list[Arrival | BadFrame]:
    """Everything in bytes that were captured: framed or one bare APDU."""
    apdu = bare(data)
    intake = Intake()
    if apdu is None:
        return [*intake.feed(data), *intake.close()]
    found: list[Arrival | BadFrame] = []
    intake._whole(found, apdu, "")
    return [*found, *intake.close()]

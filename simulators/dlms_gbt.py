"""General block transfer (Green Book 9.3.5): a long APDU in blocks, streamed by windows, lost ones sent again."""

from __future__ import annotations

from simulators.dlms_axdr import Malformed, length, take_length
from simulators.dlms_spec import DlmsQuirks

__all__ = ["BlockTransfer", "cut"]

_LAST, _STREAMING, _WINDOW = 0x80, 0x40, 0x3F


def _block(control: int, number: int, acknowledged: int, data: bytes) -> bytes:
    head = bytes((0xE0, control)) + number.to_bytes(2, "big") + acknowledged.to_bytes(2, "big")
    return head + length(len(data)) + data


def cut(apdu: bytes, size: int, *, first: int = 0) -> list[bytes]:
    """All blocks of an APDU, streamed without waiting, as pushes come. first: bytes in the first one, if other."""
    start = first or size
    pieces = [apdu[:start], *(apdu[at : at + size] for at in range(start, len(apdu), size))]
    last = len(pieces) - 1
    return [_block(_STREAMING | _LAST * (k == last), k + 1, 0, piece) for k, piece in enumerate(pieces)]


class BlockTransfer:
    """Both directions of one association. send: an answer goes out; hear: blocks and acknowledgements come in."""

    def __init__(self, quirks: DlmsQuirks) -> None:
        self._size = quirks.gbt
        self._forgets = quirks.gbt_lose
        self.reset()

    def reset(self) -> None:
        """Nothing is under way."""
        self._pieces: list[bytes] = []
        self._window = 1
        self._sent = 0  # blocks sent so far
        self._acknowledged = 0
        self._coming = bytearray()
        self.got = 0  # last block that came in order

    def send(self, apdu: bytes, acknowledged: int = 0) -> list[bytes]:
        """The first window of an answer. acknowledged: the last block of the request, if it came in blocks."""
        size = self._size or len(apdu)
        self._pieces = [apdu[at : at + size] for at in range(0, len(apdu), size)]
        self._sent, self._acknowledged = 0, acknowledged
        return self._next()

    def _next(self) -> list[bytes]:
        first, end = self._sent, min(self._sent + self._window, len(self._pieces))
        blocks = []
        for k in range(first, end):
            control = 1 | _LAST * (k == len(self._pieces) - 1) | _STREAMING * (k < end - 1)
            if k + 1 == self._forgets and end - first > 1:
                self._forgets = 0
                continue
            blocks.append(_block(control, k + 1, self._acknowledged, self._pieces[k]))
        self._sent = end
        return blocks

    def hear(self, apdu: bytes) -> tuple[bytes | None, list[bytes]]:
        """A block of the client: the whole APDU once it is there, else what to say now."""
        if len(apdu) < 7:
            raise Malformed("block cut short")
        control, number, acknowledged = apdu[1], int.from_bytes(apdu[2:4], "big"), int.from_bytes(apdu[4:6], "big")
        size, at = take_length(apdu, 6)
        if at + size != len(apdu):
            raise Malformed("block cut short")
        self._window = max(control & _WINDOW, 1)
        if not size:  # an acknowledgement: go on after the last block that arrived
            self._sent = min(acknowledged, len(self._pieces))
            return None, self._next()
        if number == 1:
            self._coming.clear()
            self.got = 0
        if number == self.got + 1:
            self._coming += apdu[at:]
            self.got = number
            if control & _LAST:
                return bytes(self._coming), []
        if control & _STREAMING:
            return None, []
        return None, [_block(_LAST | 1, 1, self.got, b"")]

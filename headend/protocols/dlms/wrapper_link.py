"""The wrapper as a link: one APDU out, one in. Nothing is sent again here: a request may have been carried out."""

from __future__ import annotations

from typing import Final

from headend.conversation import MORE, Conversation, Pause, Send
from headend.errors import BadFrame, HeadendError, NoAnswer, WrongMeter
from headend.protocols.dlms.settings import DlmsSettings
from headend.protocols.dlms.wrapper import HEADER_BYTES, Damaged, Wpdu, encode, take

__all__ = ["WrapperLink"]

_MAX_HEARD: Final = 1 << 20  # bytes waited through for one APDU: a line that never falls silent must not hold the job
_MAX_UNSOLICITED: Final = 100


class WrapperLink:
    """The link to logical device `server` as `client`, both wPorts. See `link.Link`."""

    def __init__(self, settings: DlmsSettings, server: int, client: int) -> None:
        self.unsolicited: list[bytes] = []
        self._settings = settings
        self._where = f"meter {server}, client {client}"
        self._ours = source, destination = (server, client) if settings.swap_wports else (client, server)
        self._head = b"\x00\x01" + destination.to_bytes(2, "big") + source.to_bytes(2, "big")  # of what is for us
        self._buffer = bytearray()
        self._noise = 0
        self._foreign: set[tuple[int, int]] = set()

    def open(self) -> Conversation[None]:
        """Nothing is said when a wrapper link opens; what was left of another is dropped."""
        self._buffer.clear()
        if self._settings.open_quiet_s > 0:
            yield Pause(self._settings.open_quiet_s)

    def close(self) -> Conversation[None]:
        """Nothing is said here either, but silence is kept where the meter needs it."""
        self._buffer.clear()
        if self._settings.reconnect_s > 0:
            try:
                yield Pause(self._settings.reconnect_s)
            except HeadendError:
                return

    def exchange(self, apdu: bytes, *, shown: bytes | None = None) -> Conversation[bytes]:
        """Send `apdu` and return the next one that comes."""
        self._set_aside()
        return (yield from self._hear(self._request(apdu, shown, expect_reply=True)))

    def receive(self) -> Conversation[bytes]:
        """The next APDU, of the one that came with the last or still to come."""
        return (yield from self._hear(None))

    def send(self, apdu: bytes, *, shown: bytes | None = None) -> Conversation[None]:
        """Send `apdu` and wait for nothing."""
        self._set_aside()
        if self._settings.interframe_s > 0:
            yield Pause(self._settings.interframe_s)
        yield self._request(apdu, shown, expect_reply=False)

    def _request(self, apdu: bytes, shown: bytes | None, *, expect_reply: bool) -> Send:
        masked = None if shown is None else encode(*self._ours, shown)
        reply_s = self._settings.reply_s or None
        return Send(encode(*self._ours, apdu), reply_s, expect_reply=expect_reply, shown=masked)

    def _set_aside(self) -> None:
        """What came before a question is no answer to it."""
        while (seen := take(self._buffer)) is not None:
            if isinstance(seen, Wpdu) and self._is_ours(seen) and len(self.unsolicited) < _MAX_UNSOLICITED:
                self.unsolicited.append(seen.apdu)
        self._buffer.clear()

    def _hear(self, request: Send | None) -> Conversation[bytes]:
        self._noise, self._foreign, heard = 0, set(), 0
        try:
            if request is not None:
                if self._settings.interframe_s > 0:
                    yield Pause(self._settings.interframe_s)
                self._feed((yield request))
            while (apdu := self._pick()) is None:
                chunk = yield MORE
                heard += len(chunk)
                if heard > _MAX_HEARD:
                    raise BadFrame(f"{heard} bytes came, and no answer in them", where=self._where)
                self._feed(chunk)
        except NoAnswer:
            apdu = self._salvage()
            if apdu is None:
                raise self._verdict() from None
        return apdu

    def _salvage(self) -> bytes | None:
        """No more bytes will come: what was taken for the start of an APDU was none, but one of ours may be behind."""
        while (at := self._buffer.find(self._head, 1)) > 0:
            self._noise += at
            del self._buffer[:at]
            if (apdu := self._pick()) is not None:
                return apdu
        return None

    def _feed(self, chunk: bytes) -> None:
        """Take in a chunk. A whole APDU of ours after an unfinished one: over UDP the rest of that will never come."""
        if self._buffer and self._starts_whole(chunk):
            self._noise += len(self._buffer)
            self._buffer.clear()
        self._buffer += chunk

    def _starts_whole(self, chunk: bytes) -> bool:
        return chunk[:6] == self._head and int.from_bytes(chunk[6:8], "big") == len(chunk) - HEADER_BYTES

    def _is_ours(self, wpdu: Wpdu) -> bool:
        return (wpdu.destination, wpdu.source) == self._ours

    def _pick(self) -> bytes | None:
        """The next APDU in the buffer that is for us."""
        while (seen := take(self._buffer)) is not None:
            if isinstance(seen, Damaged):
                self._noise += len(seen.raw)
            elif self._is_ours(seen):
                return seen.apdu
            elif (seen.source, seen.destination) != self._ours:  # else our own, given back by the line
                self._foreign.add((seen.source, seen.destination))
        return None

    def _verdict(self) -> HeadendError:
        noise = self._noise + len(self._buffer)
        self._buffer.clear()
        if self._foreign:
            ports = ", ".join(f"{source} to {destination}" for source, destination in sorted(self._foreign)[:5])
            return WrongMeter(
                f"an answer came from wPort {ports}",
                where=self._where,
                remedy="check the logical address and the client, and swap_wports",
            )
        if noise:
            return BadFrame(
                f"{noise} bytes came that make no whole wrapper",
                where=self._where,
                remedy="does the meter speak the wrapper here, or HDLC?",
            )
        return NoAnswer("no answer", where=self._where, remedy="check the address, the client and the port")

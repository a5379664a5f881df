"""What captured DLMS bytes mean, in words, with everything odd about them. Never raises, whatever the bytes.

Any HDLC frames, wrapper PDUs, M-Bus frames or one bare APDU; the parts of a segmented APDU are put together, blocks of
a block transfer too. Passwords, keys and answers to challenges are never spelled out, not even as hex.
"""

from __future__ import annotations

from collections.abc import Mapping

from headend.errors import BadFrame, HeadendError
from headend.protocols.dlms import hdlc, mbus, wrapper
from headend.protocols.dlms.apdu import Apdu
from headend.protocols.dlms.explain_apdu import explain_apdu
from headend.protocols.dlms.explain_page import Page
from headend.protocols.dlms.intake import Blocks, bare
from headend.protocols.explanation import Explanation

__all__ = ["explain"]

_LLC = {hdlc.LLC_RESPONSE: "from the meter", hdlc.LLC_COMMAND: "from the client"}

_KINDS: Mapping[str, str] = {
    "I": "information",
    "RR": "ready to receive",
    "RNR": "not ready to receive",
    "REJ": "reject: send again",
    "SREJ": "selective reject",
    "SNRM": "connect (SNRM)",
    "UA": "accepted (UA)",
    "DISC": "disconnect (DISC)",
    "DM": "not connected (DM)",
    "FRMR": "frame rejected (FRMR)",
    "UI": "unnumbered information (UI)",
    "?": "unknown control field",
}
_LINK_PARAMETERS: Mapping[int, str] = {
    5: "longest information field, sending",
    6: "longest information field, receiving",
    7: "window, sending",
    8: "window, receiving",
}


def explain(data: bytes, *, secrets: Mapping[str, bytes] | None = None) -> Explanation:
    """Everything in `data`, field by field.

    secrets: `encryption_key` and `authentication_key` (16 bytes each) to decipher with, `system_title` of the sender
    where the bytes do not say it. `ok` is whether all of it is whole and passes its checks.
    """
    page = Page(dict(secrets or {}))
    if not data:
        return Explanation(False, "no bytes", problems=("no bytes",))
    try:
        _explain(page, data)
    except (HeadendError, ValueError, ArithmeticError, LookupError) as error:  # the last resort of "never raises"
        page.bad(f"the rest can't be read ({type(error).__name__})")
    summary = "; ".join(dict.fromkeys(page.said)) or f"{len(data)} bytes, no DLMS in them"
    if not page.ok and page.said:
        summary = f"damaged: {summary}"
    return Explanation(page.ok, summary, tuple(page.fields), tuple(page.values), tuple(page.problems))


def _explain(page: Page, data: bytes) -> None:
    apdus = _Apdus(page)
    apdu = bare(data)
    if apdu is None:
        _framed(page, data, apdus)
    else:
        apdus.whole(data)
    apdus.close()


class _Apdus:
    """The way of information fields to APDUs: LLC off, blocks joined, explained."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._blocks = Blocks()

    def whole(self, information: bytes) -> None:
        """An information field with all its segments."""
        page = self._page
        llc = _LLC.get(information[:3])
        if llc:
            page.note("LLC", llc, information[:3])
            information = information[3:]
        if not information:
            page.bad("nothing follows the LLC bytes")
        elif information[0] == Apdu.BLOCK_TRANSFER:
            self._block(information)
        else:
            explain_apdu(page, information)

    def _block(self, apdu: bytes) -> None:
        page = self._page
        try:
            page.block_fields(apdu)
            joined = self._blocks.feed(apdu)
        except BadFrame as error:
            page.bad(error.problem.what)
            return
        if joined is not None:
            explain_apdu(page, joined)

    def close(self) -> None:
        """Nothing more comes."""
        if self._blocks.pending:
            self._page.bad("the block transfer is cut off: its last block is not here")
            self._page.say("part of a block transfer")


def _framed(page: Page, data: bytes, apdus: _Apdus) -> None:
    """Frames of any kind, one after the other."""
    buffer = bytearray(data)
    segments, halves = _Segments(), mbus.Assembler()
    while buffer:
        if buffer[0] == hdlc.FLAG:
            going = _hdlc(page, buffer, apdus, segments)
        elif buffer[0] == mbus.START:
            going = _mbus(page, buffer, apdus, halves)
        else:
            going = _wrapper(page, buffer, apdus)
        if not going:
            break
    if buffer.strip(b"\x7e"):
        page.note("cut off", f"the start of a frame, {len(buffer)} bytes")
        page.bad(f"the last frame is cut off after {len(buffer)} bytes")
    if segments.pending or halves.pending:
        page.bad("the last APDU is cut off: its last segment is not here")
        page.say("part of a segmented APDU")


class _Segments:
    """Joins HDLC segments. An answer's window may hold acknowledgements of the other side between them."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self.pending = False

    def feed(self, frame: hdlc.Frame) -> bytes | None:
        self._parts += frame.info
        self.pending = frame.segmented
        if frame.segmented:
            return None
        whole = bytes(self._parts)
        self._parts.clear()
        return whole

    def drop(self) -> None:
        self._parts.clear()
        self.pending = False


def _hdlc(page: Page, buffer: bytearray, apdus: _Apdus, segments: _Segments) -> bool:
    taken = hdlc.take(buffer)
    if taken is None:
        return False
    if isinstance(taken, hdlc.Damaged):
        if not taken.raw.strip(b"\x7e"):
            return True
        page.bad(f"{len(taken.raw)} bytes that are no good frame: {taken.why}")
        if taken.frame is None:
            page.note("damaged", f"{len(taken.raw)} bytes: {taken.why}")
        else:
            _hdlc_fields(page, taken.frame)
            page.say(f"HDLC {_KINDS[taken.frame.kind]} frame, {taken.why}")
        segments.drop()
        return True
    _hdlc_fields(page, taken)
    if taken.kind in ("I", "UI"):
        joined = segments.feed(taken)
        if joined:
            apdus.whole(joined)
        return True
    page.say(
        f"HDLC {_KINDS[taken.kind]} from {hdlc.address_text(taken.source)} to {hdlc.address_text(taken.destination)}"
    )
    if taken.kind in ("SNRM", "UA") and taken.info:
        _parameters(page, taken.info)
    elif taken.kind == "FRMR":
        page.note("reason", hdlc.frmr_reasons(taken.info), taken.info)
        page.problems.append(f"the meter rejects a frame: {hdlc.frmr_reasons(taken.info)}")
    elif taken.kind == "DM":
        page.problems.append("the meter is not connected on this link")
    return True


def _hdlc_fields(page: Page, frame: hdlc.Frame) -> None:
    raw = frame.raw
    length = (raw[1] & 7) << 8 | raw[2] if len(raw) > 2 else 0
    more = ", more segments follow" if frame.segmented else ""
    page.note("HDLC", f"frame of type 3, {length} bytes{more}", raw[1:3])
    page.note("destination", hdlc.address_text(frame.destination), frame.destination)
    page.note("source", hdlc.address_text(frame.source), frame.source)
    page.note("control", _control(frame), bytes((frame.control,)))
    if frame.info:
        at = 4 + len(frame.destination) + len(frame.source)
        page.note("HCS", "right" if frame.hcs_ok else "wrong", raw[at : at + 2])
        page.note("information", f"{len(frame.info)} bytes", b"")
    right = hdlc.crc(raw[1:-3]).to_bytes(2, "little")
    page.note("FCS", "right" if frame.fcs_ok else f"wrong, {right.hex().upper()} would be right", raw[-3:-1])


def _control(frame: hdlc.Frame) -> str:
    words = [_KINDS[frame.kind]]
    if frame.kind == "I":
        words.append(f"number {frame.number_sent}")
    if frame.kind in ("I", "RR", "RNR", "REJ"):
        words.append(f"waits for {frame.number_received}")
    if frame.final:
        words.append("poll/final")
    return ", ".join(words)


def _parameters(page: Page, info: bytes) -> None:
    """Lengths and windows in an SNRM or UA (Green Book 8.4.5.3.2)."""
    if info[:2] != b"\x81\x80" or len(info) < 3:
        page.note("parameters", "of an unknown format", info)
        return
    at = 3
    while at + 2 <= len(info):
        kind, size = info[at], info[at + 1]
        value = int.from_bytes(info[at + 2 : at + 2 + size], "big")
        page.note(_LINK_PARAMETERS.get(kind, f"parameter {kind:02X}"), str(value), info[at : at + 2 + size])
        at += 2 + size


def _mbus(page: Page, buffer: bytearray, apdus: _Apdus, halves: mbus.Assembler) -> bool:
    taken = mbus.take(buffer)
    if taken is None:
        return False
    if isinstance(taken, mbus.Damaged):
        page.note("damaged", f"{len(taken.raw)} bytes: {taken.why}")
        page.bad(f"{len(taken.raw)} bytes that are no good frame: {taken.why}")
        halves.drop()
        return True
    raw = taken.raw
    page.note("M-Bus", f"long frame, {raw[1]} bytes", raw[:4])
    page.note("control", f"{taken.control:02X}", raw[4:5])
    page.note("address", "all (FF)" if taken.address == 0xFF else str(taken.address), raw[5:6])
    page.note("segment", f"number {taken.number}, {'the last' if taken.last else 'more follow'}", raw[6:7])
    page.note("access points", f"{taken.source} to {taken.destination}", raw[7:9])
    page.note("checksum", "right", raw[-2:-1])
    try:
        joined = halves.feed(taken)
    except BadFrame as error:
        page.bad(error.problem.what)
        return True
    if joined:
        apdus.whole(joined)
    return True


def _wrapper(page: Page, buffer: bytearray, apdus: _Apdus) -> bool:
    taken = wrapper.take(buffer)
    if taken is None:
        return False
    if isinstance(taken, wrapper.Damaged):
        page.note("damaged", f"{len(taken.raw)} bytes: {taken.why}")
        page.bad(f"{len(taken.raw)} bytes that are no good frame: {taken.why}")
        return True
    page.note("wrapper", "version 1", taken.raw[:2])
    page.note("source wPort", str(taken.source), taken.raw[2:4])
    page.note("destination wPort", str(taken.destination), taken.raw[4:6])
    page.note("length", f"{len(taken.apdu)} bytes", taken.raw[6:8])
    apdus.whole(taken.apdu)
    return True

"""HDLC frames, frame format type 3 (IEC 62056-46, ISO/IEC 13239; Green Book clause 8): coding, checks, resynchronising.

    7E | A?LL format | destination | source | control | HCS | information | FCS | 7E

Frames are found by their length, never by the closing flag: nothing is stuffed, so 7E may stand anywhere. A flag may
close one frame and open the next. Both checks are CRC-16/X.25, low byte first; a frame without information has one.
"""

from __future__ import annotations

from binascii import crc_hqx
from dataclasses import dataclass
from typing import Final

from headend.errors import BadFrame, UsageError

__all__ = [
    "ALL_STATIONS",
    "DISC",
    "DM",
    "FLAG",
    "FRMR",
    "LLC_COMMAND",
    "LLC_RESPONSE",
    "MAX_INFO",
    "POLL",
    "SNRM",
    "UA",
    "UI",
    "Assembler",
    "Damaged",
    "Frame",
    "Kind",
    "address_text",
    "address_value",
    "client_address",
    "crc",
    "describe",
    "encode",
    "frmr_reasons",
    "give_up",
    "server_address",
    "strip_llc",
    "take",
]

FLAG: Final = 0x7E
LLC_COMMAND: Final = b"\xe6\xe6\x00"
LLC_RESPONSE: Final = b"\xe6\xe7\x00"
MAX_INFO: Final = 2030
ALL_STATIONS: Final = 0x7F

# Control fields without the poll/final bit (10H).
SNRM: Final = 0x83
UA: Final = 0x63
DISC: Final = 0x43  # from a meter: RD, it wants to be disconnected
DM: Final = 0x0F
FRMR: Final = 0x87
UI: Final = 0x03
POLL: Final = 0x10

_NAMES: Final = {SNRM: "SNRM", UA: "UA", DISC: "DISC", DM: "DM", FRMR: "FRMR", UI: "UI"}
_SUPERVISORY: Final = {0x01: "RR", 0x05: "RNR", 0x09: "REJ", 0x0D: "SREJ"}
_FRMR_BITS: Final = (
    "unknown control field",
    "information where none may be",
    "information field too long",
    "wrong receive number",
)

# CRC-16/X.25 is CRC-16/CCITT with every byte and the result turned round: the latter is in C.
_TURNED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_GOOD: Final = 0x1D0F  # of any bytes with their right check behind them

Kind = str
"""`I`, `RR`, `RNR`, `REJ`, `SREJ`, `SNRM`, `UA`, `DISC`, `DM`, `FRMR`, `UI`, or `?` for no control field we know."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame. Addresses as they stand in it (`address_text` reads them); raw: all of it, flags included.

    hcs_ok, fcs_ok: always true but in `Damaged.frame`.
    """

    destination: bytes
    source: bytes
    control: int
    segmented: bool
    info: bytes
    raw: bytes = b""
    hcs_ok: bool = True
    fcs_ok: bool = True

    @property
    def kind(self) -> Kind:
        control = self.control
        if not control & 1:
            return "I"
        if not control & 2:
            return _SUPERVISORY[control & 0x0F]
        return _NAMES.get(control & ~POLL, "?")

    @property
    def final(self) -> bool:
        """Poll (from us) or final (from a meter): the other side's turn."""
        return bool(self.control & POLL)

    @property
    def number_sent(self) -> int:
        """N(S), of an I frame."""
        return self.control >> 1 & 7

    @property
    def number_received(self) -> int:
        """N(R): the number of the next frame its sender waits for; of I, RR, RNR and REJ."""
        return self.control >> 5


@dataclass(frozen=True, slots=True)
class Damaged:
    """Bytes that are no good frame. frame: what can be read of it all the same, when its header was whole."""

    raw: bytes
    why: str
    frame: Frame | None = None


def crc(data: bytes) -> int:
    """CRC-16/X.25 of `data`, as ISO/IEC 13239 wants it."""
    value = crc_hqx(data.translate(_TURNED), 0xFFFF) ^ 0xFFFF
    return _TURNED[value & 0xFF] << 8 | _TURNED[value >> 8]


def _checks(data: bytes) -> bool:
    """Whether the last two of `data` are the check of those before."""
    return crc_hqx(data.translate(_TURNED), 0xFFFF) == _GOOD


def server_address(logical: int, physical: int | None = None, size: int = 0) -> bytes:
    """A meter's address in `size` bytes (1, 2 or 4; 0: the shortest that holds it), seven bits a byte.

    With a physical address two bytes hold one byte of each, four bytes two of each (Green Book 8.4.2.2). Without one
    the number fills the whole field. Raises `UsageError` when it does not fit.
    """
    size = size or _shortest(logical, physical)
    if physical is None:
        return _septets(logical, size, f"logical address {logical}")
    if size == 1:
        raise UsageError(
            f"a physical address ({physical}) has no room in one byte", remedy="set address_bytes to 2 or 4"
        )
    half = size // 2
    upper = _septets(logical, half, f"logical address {logical}")
    lower = _septets(physical, half, f"physical address {physical}")
    return bytes(byte & 0xFE for byte in upper) + lower


def client_address(client: int) -> bytes:
    """A client's address: one byte. Raises `UsageError` outside 0 to 127."""
    return _septets(client, 1, f"client {client}")


def _shortest(logical: int, physical: int | None) -> int:
    if physical is None:
        return 1 if logical < 0x80 else 2 if logical < 0x4000 else 4
    return 2 if logical < 0x80 and physical < 0x80 else 4


def _septets(value: int, size: int, what: str) -> bytes:
    if not 0 <= value < 1 << 7 * size:
        raise UsageError(
            f"{what} does not fit {size} byte(s)", remedy=f"0 to {(1 << 7 * size) - 1} fit; see address_bytes"
        )
    groups = [value >> 7 * shift & 0x7F for shift in reversed(range(size))]
    return bytes(group << 1 for group in groups[:-1]) + bytes((groups[-1] << 1 | 1,))


def address_value(address: bytes) -> tuple[int, int | None]:
    """Upper (logical) and lower (physical) part of an address as it stands in a frame; one byte has no lower part."""
    if len(address) == 1:
        return address[0] >> 1, None
    half = len(address) // 2
    return _number(address[:half]), _number(address[half:])


def _number(septets: bytes) -> int:
    value = 0
    for septet in septets:
        value = value << 7 | septet >> 1
    return value


def address_text(address: bytes) -> str:
    """An address as people write it: `1` or `1/17`."""
    upper, lower = address_value(address)
    return str(upper) if lower is None else f"{upper}/{lower}"


def encode(destination: bytes, source: bytes, control: int, info: bytes = b"", *, segmented: bool = False) -> bytes:
    """A frame ready to send, flags included. Raises `BadFrame` when `info` is too long for the length field."""
    length = 2 + len(destination) + len(source) + 3 + (2 + len(info) if info else 0)
    if length > 0x7FF:
        raise BadFrame(f"{len(info)} bytes of information do not fit an HDLC frame")
    header = (0xA000 | segmented << 11 | length).to_bytes(2, "big") + destination + source + bytes((control,))
    if info:
        header += crc(header).to_bytes(2, "little") + info
    return b"\x7e" + header + crc(header).to_bytes(2, "little") + b"\x7e"


def take(buffer: bytearray) -> Frame | Damaged | None:
    """The next of what stands in `buffer`, taken out of it: a frame, bytes that are none, or None: not enough yet.

    A closing flag stays in the buffer, for it may open the next frame. Never waits for more than a header when that is
    damaged, so noise that looks like the start of a long frame holds nothing up.
    """
    start = buffer.find(FLAG)
    if start:
        return _drop(buffer, len(buffer) if start < 0 else start, "no frame starts here") if buffer else None
    while buffer[1:2] == b"\x7e":
        del buffer[0]
    if len(buffer) < 3:
        return None if len(buffer) < 2 or buffer[1] & 0xF0 == 0xA0 else _resync(buffer, "no frame of type 3")
    if buffer[1] & 0xF0 != 0xA0:
        return _resync(buffer, "no frame of type 3")
    length = (buffer[1] & 7) << 8 | buffer[2]
    header = _header(buffer, 1 + length)
    if isinstance(header, str):
        return _resync(buffer, header)
    if header is None:
        return None
    source_at, control_at = header
    if len(buffer) < length + 2:
        return None
    return _whole(buffer, length, source_at, control_at)


def give_up(buffer: bytearray) -> Frame | Damaged | None:
    """`take`, when no more bytes will come: an unfinished frame is none, what stands behind it may be one."""
    seen = take(buffer)
    if seen is None and len(buffer) > 1:
        return _resync(buffer, "an unfinished frame")
    if seen is None:
        buffer.clear()
    return seen


def _header(buffer: bytearray, end: int) -> tuple[int, int] | str | None:
    """Where source and control stand; what is wrong with the header; None while it is not there.

    end: position of the closing flag by the length field.
    """
    source_at = _after_address(buffer, 3)
    control_at = _after_address(buffer, source_at) if source_at > 0 else source_at
    if control_at < 0:
        return "an address without an end"
    body = end - control_at - 1  # HCS, information and FCS
    if control_at and (body < 2 or body == 3):
        return "wrong length"
    if not control_at or len(buffer) < control_at + 3:
        return "wrong length" if end < 8 else None
    if not _checks(bytes(buffer[1 : control_at + 3])):
        return "wrong HCS" if body > 2 else "wrong FCS"
    return source_at, control_at


def _after_address(buffer: bytearray, at: int) -> int:
    """Position after the address at `at`; 0 while its end is not there, -1 if it has none."""
    for position in range(at, min(at + 4, len(buffer))):
        if buffer[position] & 1:
            return position + 1
    return 0 if len(buffer) < at + 4 else -1


def _whole(buffer: bytearray, length: int, source_at: int, control_at: int) -> Frame | Damaged:
    """What the frame at the start of `buffer` is, now that `length` bytes and a flag's place are there."""
    if buffer[length + 1] != FLAG:
        return _resync(buffer, "no closing flag where the length says")
    raw = bytes(buffer[: length + 2])
    info_at = control_at + 3
    good = _checks(raw[1:-1])
    frame = Frame(
        raw[3:source_at],
        raw[source_at:control_at],
        raw[control_at],
        bool(raw[1] & 8),
        raw[info_at : length - 1],
        raw,
        fcs_ok=good,
    )
    del buffer[: length + 1]
    return frame if good else Damaged(raw, "wrong FCS", frame)


def _resync(buffer: bytearray, why: str) -> Damaged:
    """Give up the flag at the start; the next one may be real."""
    following = buffer.find(FLAG, 1)
    return _drop(buffer, following if following > 0 else len(buffer), why)


def _drop(buffer: bytearray, count: int, why: str) -> Damaged:
    raw = bytes(buffer[:count])
    del buffer[:count]
    return Damaged(raw, why)


def strip_llc(info: bytes) -> bytes:
    """An APDU without the LLC bytes of a response in front (Green Book 8.3.2). Raises `BadFrame` without them."""
    if info[:3] != LLC_RESPONSE:
        raise BadFrame(f"no LLC bytes E6 E7 00 in front of the APDU but {info[:3].hex(' ').upper() or 'nothing'}")
    return info[3:]


def frmr_reasons(info: bytes) -> str:
    """Why a meter rejected a frame (FRMR), in words."""
    if len(info) < 3:
        return "no reason given"
    named = [name for bit, name in enumerate(_FRMR_BITS) if info[2] >> bit & 1]
    return f"{', '.join(named) or 'no reason given'} (control field {info[0]:02X})"


def describe(frame: Frame) -> str:
    """A frame in one line: `I 1/17 -> 16, N(S)=0 N(R)=1 final, 12 bytes`."""
    kind = frame.kind
    words = [f"{kind if kind != '?' else f'control {frame.control:02X}'} "]
    words.append(f"{address_text(frame.source)} -> {address_text(frame.destination)}")
    if kind == "I":
        words.append(f", N(S)={frame.number_sent}")
    if not frame.control & 1 or not frame.control & 2:
        words.append(f"{'' if kind == 'I' else ','} N(R)={frame.number_received}")
    if frame.final:
        words.append(" poll/final")
    if frame.segmented:
        words.append(", more segments follow")
    if frame.info:
        words.append(f", {len(frame.info)} bytes")
    return "".join(words)


class Assembler:
    """Joins the segments of frames into APDUs, for what meters send on their own. Holds one unfinished APDU."""

    __slots__ = ("_limit", "_parts", "_source")

    def __init__(self, limit: int = 65_536) -> None:
        self._limit = limit
        self._parts = bytearray()
        self._source = b""

    def feed(self, frame: Frame) -> bytes | None:
        """The information `frame` completes, LLC bytes included; None while segments are missing."""
        if frame.source != self._source:
            self._parts.clear()
            self._source = frame.source
        if len(self._parts) + len(frame.info) > self._limit:
            self._parts.clear()
            return None
        self._parts += frame.info
        if frame.segmented:
            return None
        whole = bytes(self._parts)
        self._parts.clear()
        return whole

"""Frames of DL/T 645 (clause 5): `68 A0..A5 68 C L DATA CS 16`, every data byte sent plus 33H.

Law: a damaged frame may be lost, never misread. A frame counts only when both start bytes, the length, the sum and
the end byte agree; otherwise the search goes on one byte after its first 68, because 68 and 16 may stand anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from headend.errors import UsageError

__all__ = [
    "ANY_ADDRESS",
    "BROADCAST",
    "Frame",
    "Look",
    "Scanner",
    "add_33",
    "address_bytes",
    "address_text",
    "check_address",
    "checksum",
    "encode",
    "frame_at",
    "look",
    "matches",
    "sub_33",
]

ANY_ADDRESS = "AAAAAAAAAAAA"
BROADCAST = "999999999999"

START = 0x68
END = 0x16
WAKE_UP = b"\xfe" * 4
OVERHEAD = 12  # bytes of a frame beside its data

_PLUS_33 = bytes((value + 0x33) & 0xFF for value in range(256))
_MINUS_33 = bytes((value - 0x33) & 0xFF for value in range(256))


def add_33(data: bytes) -> bytes:
    """`data` as it goes over the wire (clause 5.2.5)."""
    return data.translate(_PLUS_33)


def sub_33(data: bytes) -> bytes:
    """Wire bytes back to data."""
    return data.translate(_MINUS_33)


def checksum(data: bytes | bytearray) -> int:
    """Sum of the bytes, modulo 256."""
    return sum(data) & 0xFF


def address_bytes(address: str) -> bytes:
    """The six address bytes, lowest pair first."""
    return bytes.fromhex(address)[::-1]


def matches(asked: str, heard: str) -> bool:
    """Whether `heard` may answer for `asked`: the same, or one that the wildcard pairs AA of `asked` stand for."""
    if asked == heard:
        return True
    return "AA" in asked and all(asked[i : i + 2] in ("AA", heard[i : i + 2]) for i in range(0, 12, 2))


def address_text(address: str) -> str:
    """`address`, with what it stands for when it is no meter's own."""
    if address == BROADCAST:
        return f"{address} (broadcast)"
    if address == ANY_ADDRESS:
        return f"{address} (any meter)"
    return f"{address} (wildcard)" if address.startswith("AA") else address


def check_address(text: str) -> str:
    """A meter's address as twelve digits; shorter ones get leading zeros. `UsageError` says what to write instead."""
    address = text.strip()
    remedy = "write the up to 12 digits on the meter's plate, such as 000000193600"
    if not address.isascii() or not address.isdigit():
        if address.upper() == ANY_ADDRESS:
            remedy = "this stands for any meter; write the address of this one (function 13 reads it)"
        raise UsageError(f"{text!r} is no DL/T 645 address", remedy=remedy)
    if len(address) > 12:
        raise UsageError(f"{text!r} has {len(address)} digits, a DL/T 645 address has 12", remedy=remedy)
    address = address.zfill(12)
    if address == BROADCAST:
        raise UsageError(f"{text!r} is the broadcast address, which no meter answers", remedy=remedy)
    return address


def encode(address: str, control: int, data: bytes = b"", *, wake_up: bytes = WAKE_UP) -> bytes:
    """A frame ready to send; `data` without the 33H, `address` twelve characters."""
    body = b"\x68" + address_bytes(address) + bytes((START, control, len(data))) + add_33(data)
    return wake_up + body + bytes((checksum(body), END))


@lru_cache(maxsize=16_384)
def encode_read(address: str, control: int, data: bytes) -> bytes:
    """`encode` for questions, which are the same day in, day out. Not for writes: they carry passwords."""
    return encode(address, control, data)


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole frame with a right checksum; `data` has the 33H taken off."""

    address: str
    control: int
    data: bytes

    @property
    def function(self) -> int:
        """D4..D0 of the control code."""
        return self.control & 0x1F

    @property
    def from_meter(self) -> bool:
        """D7: sent by a meter."""
        return bool(self.control & 0x80)

    @property
    def abnormal(self) -> bool:
        """D6: the meter refuses."""
        return bool(self.control & 0x40)

    @property
    def more(self) -> bool:
        """D5: more data follows, to be asked for with function 12."""
        return bool(self.control & 0x20)

    @property
    def di(self) -> str:
        """The data identifier in front of the data, or "" when there is no room for one."""
        return self.data[3::-1].hex().upper() if len(self.data) >= 4 else ""


class Look(Enum):
    """What stands at a start byte."""

    NO_FRAME = "no frame"
    SHORT = "may still become a frame"
    NO_END = "no end byte where the length says"
    BAD_SUM = "wrong checksum"
    WHOLE = "whole"


def look(buffer: bytes | bytearray, at: int) -> Look:
    """What stands in `buffer` at `at`, where a 68 is."""
    have = len(buffer) - at
    if have <= 7:
        return Look.SHORT
    if buffer[at + 7] != START:
        return Look.NO_FRAME
    if have <= 9:
        return Look.SHORT
    end = at + 10 + buffer[at + 9]
    if len(buffer) < end + 2:
        return Look.SHORT
    if buffer[end + 1] != END:
        return Look.NO_END
    return Look.WHOLE if checksum(buffer[at:end]) == buffer[end] else Look.BAD_SUM


def sole_frame(chunk: bytes) -> Frame | None:
    """The frame that `chunk` is, if it is one whole frame behind nothing but FE; the usual case, told at a glance."""
    at = chunk.find(START)
    if at < 0 or chunk.count(0xFE, 0, at) != at or len(chunk) < at + OVERHEAD or chunk[at + 7] != START:
        return None
    end = at + 10 + chunk[at + 9]
    if len(chunk) != end + 2 or chunk[end + 1] != END or checksum(chunk[at:end]) != chunk[end]:
        return None
    return Frame(chunk[at + 6 : at : -1].hex().upper(), chunk[at + 8], chunk[at + 10 : end].translate(_MINUS_33))


def frame_at(buffer: bytes | bytearray, at: int) -> Frame:
    """The frame at `at`, its checks aside."""
    return Frame(
        address=bytes(buffer[at + 1 : at + 7])[::-1].hex().upper(),
        control=buffer[at + 8],
        data=sub_33(bytes(buffer[at + 10 : at + 10 + buffer[at + 9]])),
    )


class Scanner:
    """Finds frames in whatever arrives, in chunks of any size. Holds at most one unfinished frame.

    noise counts bytes (wake-up FE aside) that belonged to no whole frame, so "something came" is known.
    """

    __slots__ = ("_buffer", "noise")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.noise = 0

    def feed(self, chunk: bytes) -> list[Frame]:
        """Whole frames completed by `chunk`."""
        if not self._buffer and (frame := sole_frame(chunk)) is not None:
            return [frame]
        self._buffer += chunk
        return self._scan(final=False)

    def flush(self) -> list[Frame]:
        """No more bytes will come: whole frames that stood behind an unfinished one. Empties the scanner."""
        return self._scan(final=True)

    def _scan(self, *, final: bool) -> list[Frame]:
        buffer = self._buffer
        frames: list[Frame] = []
        at = 0
        while at < len(buffer):
            start = buffer.find(START, at)
            if start < 0:
                start = len(buffer)
            if start > at:
                self.noise += start - at - buffer.count(0xFE, at, start)
            at = start
            if at == len(buffer):
                break
            seen = look(buffer, at)
            if seen is Look.WHOLE:
                frames.append(frame_at(buffer, at))
                at += OVERHEAD + buffer[at + 9]
            elif seen is Look.SHORT and not final:
                break
            else:
                self.noise += 1
                at += 1
        del buffer[:at]
        return frames

"""How APDUs travel: HDLC frames of IEC 62056-46, wrapper headers of IEC 62056-47, the sign-on of IEC 62056-21."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "BAUDS",
    "Frame",
    "Wrapped",
    "build_frame",
    "crc",
    "identification",
    "parity_even",
    "readout",
    "take_frame",
    "take_line",
    "take_wrapped",
    "ui_frames",
    "wrap",
]

BAUDS = {"0": 300, "1": 600, "2": 1200, "3": 2400, "4": 4800, "5": 9600, "6": 19200}
FLAG = 0x7E


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x8408 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_CRC = _crc_table()


def crc(data: bytes) -> bytes:
    """FCS and HCS: CRC-16/X-25, low byte first."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return (value ^ 0xFFFF).to_bytes(2, "little")


@dataclass(frozen=True, slots=True)
class Frame:
    """One HDLC frame; addresses as on the wire."""

    destination: bytes
    source: bytes
    control: int
    info: bytes = b""
    segmented: bool = False


def build_frame(frame: Frame) -> bytes:
    """The frame with its flags."""
    head = frame.destination + frame.source + bytes((frame.control,))
    size = 2 + len(head) + 2 + (len(frame.info) + 2 if frame.info else 0)
    head = (0xA000 | 0x0800 * frame.segmented | size).to_bytes(2, "big") + head
    body = head + crc(head) + frame.info if frame.info else head
    return b"\x7e" + body + crc(body) + b"\x7e"


def _address_end(data: bytes | bytearray, at: int) -> int | None:
    """Where an address ends: after the first byte with bit 0 set, of 1, 2 or 4. None: not there yet. -1: none."""
    for size in (1, 2, 3, 4):
        if at + size > len(data):
            return None
        if data[at + size - 1] & 1:
            return at + size if size != 3 else -1
    return -1


def take_frame(buffer: bytearray) -> Frame | None:
    """The next good frame; everything before it is taken off the buffer. None while there is none, or only a part."""
    while True:
        start = buffer.find(FLAG)
        if start < 0:
            buffer.clear()
            return None
        del buffer[:start]
        verdict = _look(buffer)
        if verdict is None:
            return None
        if verdict is not False:
            return verdict
        del buffer[0]


def _look(buffer: bytearray) -> Frame | Literal[False] | None:
    """The frame at the start of the buffer, None for one not yet whole, False for none."""
    if len(buffer) < 3:
        return None if len(buffer) < 2 or buffer[1] & 0xF0 == 0xA0 else False
    size = (buffer[1] & 0x07) << 8 | buffer[2]
    if buffer[1] & 0xF0 != 0xA0 or size < 7:
        return False
    first = _address_end(buffer, 3)
    second = _address_end(buffer, first) if first is not None and first > 0 else first
    if second is None:
        return None
    if second < 0:
        return False
    if len(buffer) < second + 3:
        return None
    head = bytes(buffer[1 : second + 1])
    if size > len(head) + 2 and crc(head) != buffer[second + 1 : second + 3]:
        return False
    if len(buffer) < size + 2:
        return None
    body = bytes(buffer[1 : size - 1])
    if buffer[size + 1] != FLAG or crc(body) != buffer[size - 1 : size + 1] or size < len(head) + 2:
        return False
    assert first is not None
    frame = Frame(
        bytes(buffer[3:first]),
        bytes(buffer[first:second]),
        buffer[second],
        body[len(head) + 2 :],
        bool(buffer[1] & 0x08),
    )
    del buffer[: size + 1]  # the closing flag may open the next frame
    return frame


def ui_frames(
    apdu: bytes, destination: bytes, source: bytes, *, max_info: int = 0, control: int = 0x13, llc: bool = True
) -> list[bytes]:
    """An APDU nobody asked for: unnumbered frames, segmented when max_info is set and it does not fit. llc: the LLC
    bytes go before it."""
    info = b"\xe6\xe7\x00" * llc + apdu
    size = max_info or len(info)
    pieces = [info[at : at + size] for at in range(0, len(info), size)]
    last = len(pieces) - 1
    return [
        build_frame(Frame(destination, source, control if k == last else control & ~0x10, piece, k < last))
        for k, piece in enumerate(pieces)
    ]


@dataclass(frozen=True, slots=True)
class Wrapped:
    """An APDU with the ports of its wrapper."""

    source: int
    destination: int
    apdu: bytes


def wrap(source: int, destination: int, apdu: bytes) -> bytes:
    """Version 1, ports, length, APDU."""
    return b"".join(value.to_bytes(2, "big") for value in (1, source, destination, len(apdu))) + apdu


def take_wrapped(buffer: bytearray) -> Wrapped | None:
    """The next wrapped APDU; what is no header is taken off the buffer. None while there is none."""
    while len(buffer) >= 2 and buffer[:2] != b"\x00\x01":
        del buffer[0]
    if len(buffer) < 8:
        return None
    source, destination, size = (int.from_bytes(buffer[at : at + 2], "big") for at in (2, 4, 6))
    if len(buffer) < 8 + size:
        return None
    apdu = bytes(buffer[8 : 8 + size])
    del buffer[: 8 + size]
    return Wrapped(source, destination, apdu)


def take_line(buffer: bytearray) -> tuple[str, bool] | None:
    """The next sign-on or acknowledgement (`/?12345678!`, ACK 2 5 2) without its line end, and whether its characters
    carry parity bits. None while there is none; what can't be one is taken off the buffer."""
    plain = bytes(byte & 0x7F for byte in buffer)
    start = min((at for at in (plain.find(b"/?"), plain.find(b"\x06")) if at >= 0), default=-1)
    if start < 0:
        return None
    end = plain.find(b"\r\n", start)
    if end < 0:
        return None
    marked = any(byte & 0x80 for byte in buffer[start : end + 2])
    del buffer[: end + 2]
    return plain[start:end].decode("ascii"), marked


def parity_even(data: bytes) -> bytes:
    """Seven-bit characters with their even parity bit on top."""
    return bytes(byte | 0x80 * (byte.bit_count() & 1) for byte in data)


def identification(manufacturer: str, speed: str, model: str) -> bytes:
    """What a meter says to a sign-on; W = 2 after the backslash: it knows mode E."""
    return f"/{manufacturer}{speed}\\2{model}\r\n".encode("ascii")


def readout(lines: list[str]) -> bytes:
    """A data message of mode C: STX, lines, `!`, ETX, BCC."""
    body = "".join(f"{line}\r\n" for line in lines).encode("ascii") + b"!\r\n\x03"
    check = 0
    for byte in body:
        check ^= byte
    return b"\x02" + body + bytes((check,))

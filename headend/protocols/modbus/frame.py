"""Frames around a PDU: address and CRC on a serial line (RTU), the MBAP header on TCP; and answers found in a stream.

A serial server may carry RTU frames over TCP; they are RTU all the same. What came from a line may begin with noise or
with the end of a frame given up, so an answer is looked for at every byte: by unit, function, count and CRC, or by
transaction id.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from headend.errors import UsageError
from headend.protocols.modbus.library import crc

__all__ = [
    "IDENTIFY",
    "Question",
    "check_rtu_address",
    "check_tcp_address",
    "find_rtu",
    "find_tcp",
    "identification_size",
    "rtu",
    "rtu_sound",
    "strangers",
    "tcp",
    "tcp_frames",
]

IDENTIFY: Final = 0x2B
EXCEPTION: Final = 0x80
MAX_PDU: Final = 253  # Application Protocol V1.1b3, 4.1
MBAP: Final = 7

# Behind an answer: transceivers switching off leave 00 and FF, and a line may leave a character or two of anything.
_IDLE: Final = b"\x00\xff"
_NOISE: Final = 3


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of one unit. prefix: how the answer's PDU begins. size: its length, 0 where it says so itself."""

    unit: int
    pdu: bytes
    prefix: bytes
    size: int

    @property
    def refusal(self) -> bytes:
        """How an exception answer begins."""
        return bytes((self.pdu[0] | EXCEPTION,))


def check_rtu_address(text: str) -> str:
    """A unit id of a serial line, 1 to 247; `UsageError` says what to write."""
    return _checked(text, 1, 247, "0 is the broadcast, which no meter answers; 248 to 255 are reserved")


def check_tcp_address(text: str) -> str:
    """A unit id on TCP, 0 to 255: a meter behind a gateway has its own, one with a port of its own often 1 or 255."""
    return _checked(text, 0, 255, "it is one byte")


def _checked(text: str, low: int, high: int, why: str) -> str:
    plain = text.strip()
    if not (plain.isascii() and plain.isdigit() and len(plain) <= 6 and low <= int(plain) <= high):
        raise UsageError(f"{text!r} is no Modbus unit id: {why}", remedy=f"write a number from {low} to {high}")
    return str(int(plain))


# -- RTU ---------------------------------------------------------------------------------------------------------------


def rtu(unit: int, pdu: bytes) -> bytes:
    """The frame of a serial line."""
    body = bytes((unit,)) + pdu
    return body + crc(body).to_bytes(2, "little")


def rtu_sound(frame: bytes) -> bool:
    """Whether the last two bytes are the CRC of the others."""
    return len(frame) >= 4 and crc(frame[:-2]) == int.from_bytes(frame[-2:], "little")


def find_rtu(heard: bytes, question: Question) -> bytes | None:
    """The PDU of the answer in `heard`, the last where several could be it: an earlier one is late and stale.

    None while more than noise follows it: what follows may be the right one, damaged or not yet whole, and this one
    stale.
    """
    found, behind = None, 0
    at = 0
    while (at := heard.find(question.unit, at)) >= 0:
        size = _size_at(heard, at + 1, question)
        end = at + 1 + size + 2
        if size and end <= len(heard) and rtu_sound(heard[at:end]):
            found = heard[at + 1 : end - 2]
            at = behind = end
        else:
            at += 1
    return found if len(heard[behind:].strip(_IDLE)) < _NOISE else None


def _size_at(heard: bytes, at: int, question: Question) -> int:
    """Length of the PDU at `at` if it begins like the answer or an exception, 0 if not or if it can't be told yet."""
    if heard.startswith(question.prefix, at):
        return question.size or identification_size(heard[at:])
    return 2 if heard.startswith(question.refusal, at) else 0


def identification_size(pdu: bytes) -> int:
    """Length of a device identification answer (function 43/14) that begins here; 0 when it is cut off."""
    if len(pdu) < 7:
        return 0
    at = 7
    for _ in range(pdu[6]):
        if at + 2 > len(pdu):
            return 0
        at += 2 + pdu[at + 1]
    return at if at <= len(pdu) else 0


def strangers(heard: bytes) -> Iterator[tuple[int, bytes]]:
    """Unit and PDU of every whole RTU answer to a read, and of every exception, whoever sent it and whatever to."""
    at = 0
    while at + 5 <= len(heard):
        function = heard[at + 1]
        end = at + (5 + heard[at + 2] if function in (1, 2, 3, 4) else 5 if function > EXCEPTION else 0)
        if at < end <= len(heard) and rtu_sound(heard[at:end]):
            yield heard[at], heard[at + 1 : end - 2]
            at = end
        else:
            at += 1


# -- TCP ---------------------------------------------------------------------------------------------------------------


def tcp(transaction: int, unit: int, pdu: bytes) -> bytes:
    """The frame with an MBAP header."""
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


def find_tcp(heard: bytes, transaction: int) -> tuple[int, bytes] | None:
    """Unit and PDU of the whole frame that carries `transaction`; None while there is none."""
    mark = struct.pack(">HH", transaction, 0)
    at = -1
    while (at := heard.find(mark, at + 1)) >= 0:
        frame = _frame_at(heard, at)
        if frame is not None:
            return frame[1], frame[2]
    return None


def tcp_frames(heard: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Transaction, unit and PDU of the whole frames in `heard`, from its start."""
    at = 0
    while (frame := _frame_at(heard, at)) is not None:
        yield frame
        at += MBAP + len(frame[2])


def _frame_at(heard: bytes, at: int) -> tuple[int, int, bytes] | None:
    if at + MBAP > len(heard):
        return None
    transaction, protocol, length, unit = struct.unpack_from(">HHHB", heard, at)
    end = at + MBAP - 1 + length
    if protocol or not 2 <= length <= MAX_PDU + 1 or end > len(heard):
        return None
    return transaction, unit, heard[at + MBAP : end]

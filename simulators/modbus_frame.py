"""Modbus frames as slaves hear and send them: RTU with its CRC, MBAP on TCP.

Source: Modbus over Serial Line 1.02 clauses 2.5 and 6.2.2 (CRC), Modbus Messaging on TCP/IP 1.0b clause 3.1.3 (MBAP),
Modbus Application Protocol 1.1b3 clause 6 (lengths of requests).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

__all__ = ["MAX_PDU", "Request", "crc16", "mbap", "rtu", "take_mbap", "take_rtu"]

MAX_PDU = 253
_LONGEST = MAX_PDU + 3  # of an RTU frame
_MBAP = 7
_FIXED = {1: 8, 2: 8, 3: 8, 4: 8, 5: 8, 6: 8, 7: 4, 8: 8, 11: 4, 12: 4, 17: 4, 22: 10, 24: 6, 43: 7}
_COUNTED = {15: 6, 16: 6, 20: 2, 21: 2, 23: 10}  # where the byte count of the rest stands


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _crc_table()


def crc16(data: bytes | bytearray) -> int:
    """CRC of an RTU frame; sent low byte first."""
    value = 0xFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its unit and PDU. transaction: of its MBAP header, None on a serial line. size: bytes it took."""

    unit: int
    pdu: bytes
    transaction: int | None = None
    size: int = 0

    def frame(self, unit: int, pdu: bytes, transaction: int | None = None) -> bytes:
        """An answer in the form this request came in."""
        if self.transaction is None:
            return rtu(unit, pdu)
        return mbap(self.transaction if transaction is None else transaction, unit, pdu)


def rtu(unit: int, pdu: bytes) -> bytes:
    """A frame of a serial line."""
    body = bytes((unit,)) + pdu
    return body + crc16(body).to_bytes(2, "little")


def mbap(transaction: int, unit: int, pdu: bytes) -> bytes:
    """A frame of a TCP connection."""
    return transaction.to_bytes(2, "big") + b"\x00\x00" + (len(pdu) + 1).to_bytes(2, "big") + bytes((unit,)) + pdu


def _rtu_size(data: bytes | bytearray, start: int) -> int:
    """Length of the request that may start there; 0 when that can't be told yet or its function is not known."""
    if start + 1 >= len(data):
        return 0
    function = data[start + 1]
    if function in _FIXED:
        return _FIXED[function]
    at = start + _COUNTED.get(function, len(data))
    return at - start + 1 + data[at] + 2 if at < len(data) else 0


def take_rtu(buffer: bytearray, units: Container[int]) -> Request | None:
    """Cut the first whole request to one of `units` out of the buffer, with all that stands before it.

    It may begin anywhere: behind noise, other protocols' frames, requests to other units. A request of an unknown
    function is one when it is all that is left. What can't become part of a request any more is cut off.
    """
    for start in range(len(buffer) - 3):
        if buffer[start] not in units:
            continue
        size = _rtu_size(buffer, start)
        known = buffer[start + 1] in _FIXED or buffer[start + 1] in _COUNTED
        if not known:
            size = len(buffer) - start
        if not 4 <= size <= _LONGEST or start + size > len(buffer):
            continue
        if crc16(buffer[start : start + size]) == 0:
            request = Request(buffer[start], bytes(buffer[start + 1 : start + size - 2]), None, size)
            del buffer[: start + size]
            return request
    del buffer[: max(0, len(buffer) - _LONGEST)]
    return None


def take_mbap(buffer: bytearray) -> Request | None:
    """Cut the first whole request out of the buffer. ValueError when what is there is no MBAP header: a slave closes
    the connection then."""
    if len(buffer) < _MBAP:
        return None
    length = int.from_bytes(buffer[4:6], "big")
    if buffer[2:4] != b"\x00\x00" or not 2 <= length <= MAX_PDU + 1:
        raise ValueError(f"no MBAP header: {buffer[:_MBAP].hex()}")
    size = 6 + length
    if len(buffer) < size:
        return None
    transaction = int.from_bytes(buffer[:2], "big")
    request = Request(buffer[6], bytes(buffer[_MBAP:size]), transaction, size)
    del buffer[:size]
    return request

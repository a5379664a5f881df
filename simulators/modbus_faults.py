"""What goes wrong with a slave's answer, on purpose: rules of `simulators.faults`, damage as Modbus knows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

from simulators.faults import FaultRule, Spoiled
from simulators.modbus_frame import Request

__all__ = ["EXCEPTIONS", "MODBUS_FAULTS", "spoil"]

EXCEPTIONS = {
    "illegal_function": 1,
    "illegal_address": 2,
    "illegal_value": 3,
    "failure": 4,
    "acknowledge": 5,
    "busy": 6,
    "parity": 8,
    "path": 10,
    "no_response": 11,
}


def _wrong_count(pdu: bytes) -> bytes:
    """One register fewer, or one more where there is one only; the byte count agrees with what is sent."""
    if pdu[0] not in (3, 4) or len(pdu) < 4:
        return pdu
    data = pdu[2:-2] if len(pdu) > 4 else pdu[2:] + b"\x00\x00"
    return bytes((pdu[0], len(data))) + data


def _wrong_bytes(pdu: bytes) -> bytes:
    """The byte count says one register more than there are."""
    return bytes((pdu[0], pdu[1] + 2 & 0xFF)) + pdu[2:] if pdu[0] in (3, 4) else pdu


def _wrong_function(pdu: bytes) -> bytes:
    return bytes(({3: 4, 4: 3}.get(pdu[0] & 0x7F, 3) | pdu[0] & 0x80,)) + pdu[1:]


_PDU: dict[str, Callable[[bytes], bytes]] = {
    "wrong_count": _wrong_count,
    "wrong_bytes": _wrong_bytes,
    "wrong_function": _wrong_function,
}


def _short(frame: bytes, random: Random) -> bytes:
    """The end of the frame lost."""
    return frame[: random.randint(1, len(frame) - 1)]


def _noise(frame: bytes, random: Random) -> bytes:
    """One character before the frame, as a driver that switches its transceiver makes it."""
    return random.choice((b"\x00", b"\xff", random.randbytes(1))) + frame


def _noise_after(frame: bytes, random: Random) -> bytes:
    """One character behind the frame."""
    return frame + random.choice((b"\x00", b"\xff", random.randbytes(1)))


def _bad_crc(frame: bytes, _random: Random) -> bytes:
    """The last byte of the frame is another one; no CRC of it is right."""
    return frame[:-1] + bytes((frame[-1] ^ 0x55,))


def _flip(frame: bytes, random: Random) -> bytes:
    """One bit turned, anywhere."""
    bit = random.randrange(8 * len(frame))
    bad = bytearray(frame)
    bad[bit // 8] ^= 1 << bit % 8
    return bytes(bad)


def _burst(frame: bytes, random: Random) -> bytes:
    """Two to six characters in a row come out as others."""
    size = min(random.randint(2, 6), len(frame))
    at = random.randrange(len(frame) - size + 1)
    garbage = bytes((byte + random.randint(1, 255)) & 0xFF for byte in frame[at : at + size])
    return frame[:at] + garbage + frame[at + size :]


_FRAME: dict[str, Callable[[bytes, Random], bytes]] = {
    "short": _short,
    "noise": _noise,
    "noise_after": _noise_after,
    "bad_crc": _bad_crc,
    "flip": _flip,
    "burst": _burst,
}
_SILENT = ("silence", "dead", "drop", "halfopen")
MODBUS_FAULTS = (
    *EXCEPTIONS,
    *_PDU,
    *_FRAME,
    *_SILENT,
    "wrong_unit",
    "wrong_transaction",
    "wrong_protocol",
    "late",
    "stale",
    "echo",
    "reset",
)
"""`stale`: the previous answer of the line once more, before the real one. `reset`: the meter's counters fall to zero
before it answers. `wrong_transaction`, `wrong_protocol`: MBAP only."""


def spoil(struck: Iterable[FaultRule], request: Request, answer: bytes, previous: bytes, random: Random) -> Spoiled:
    """What becomes of the PDU `answer` to `request`. previous: the frame sent before it on this line."""
    kinds = [rule.kind for rule in struck if rule.kind is not None]
    delay_s = sum(rule.delay_s for rule in struck if rule.kind == "late")
    unit, transaction = request.unit, request.transaction
    for kind in kinds:
        if kind in EXCEPTIONS:
            answer = bytes((request.pdu[0] | 0x80, EXCEPTIONS[kind]))
        elif kind in _PDU and answer:
            answer = _PDU[kind](answer)
        elif kind == "wrong_unit":
            unit = unit % 247 + 1
        elif kind == "wrong_transaction" and transaction is not None:
            transaction = (transaction - 1) & 0xFFFF
    frame = request.frame(unit, answer, transaction) if answer else b""
    for kind in kinds:
        if kind in _FRAME and frame:
            frame = _FRAME[kind](frame, random)
        elif kind == "wrong_protocol" and transaction is not None and frame:
            frame = frame[:2] + b"\x00\x01" + frame[4:]
        elif kind == "stale":
            frame = previous + frame
        elif kind == "echo":
            frame = request.frame(request.unit, request.pdu) + frame
        elif kind in _SILENT:
            frame = b""
    return Spoiled(frame, delay_s, 0.0, "drop" in kinds, "halfopen" in kinds)

"""The association APDUs (BER): AARQ and RLRQ read, AARE and RLRE built. Green Book 9.4.2."""

from __future__ import annotations

from dataclasses import dataclass

from simulators.dlms_axdr import Malformed, length, take_length

__all__ = ["MECHANISMS", "Aarq", "Initiate", "aare", "initiate_response", "read_aarq", "read_initiate", "rlre"]

_NAMES = b"\x60\x85\x74\x05\x08"  # 2.16.756.5.8
_CONTEXT, _MECHANISM = _NAMES + b"\x01", _NAMES + b"\x02"
MECHANISMS = {0: "none", 1: "lls", 2: "hls-2", 3: "hls-md5", 4: "hls-sha1", 5: "hls-gmac", 6: "hls-sha256", 7: "hls-7"}


@dataclass(frozen=True, slots=True)
class Aarq:
    """What a client asked. context: 1 plain, 3 ciphered, with logical names; mechanism None: it named none."""

    context: int
    title: bytes
    mechanism: int | None
    value: bytes
    user_information: bytes


@dataclass(frozen=True, slots=True)
class Initiate:
    """The xDLMS part of it."""

    dedicated_key: bytes
    version: int
    conformance: int
    max_pdu: int


def _fields(data: bytes) -> dict[int, bytes]:
    """Tag and content of each element."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        tag = data[at]
        size, at = take_length(data, at + 1)
        if at + size > len(data):
            raise Malformed("element cut short")
        found[tag] = data[at : at + size]
        at += size
    return found


def _inner(content: bytes) -> bytes:
    """The content of the one element in `content`."""
    size, at = take_length(content, 1)
    if at + size != len(content):
        raise Malformed("bad inner length")
    return content[at:]


def read_aarq(apdu: bytes) -> Aarq:
    """The fields of an AARQ. Malformed if it is none."""
    size, at = take_length(apdu, 1)
    if apdu[0] != 0x60 or at + size != len(apdu):
        raise Malformed("no AARQ")
    fields = _fields(apdu[at:])
    if 0xA1 not in fields or 0xBE not in fields:
        raise Malformed("AARQ without context or user information")
    context = _inner(fields[0xA1])
    mechanism = fields.get(0x8B)
    return Aarq(
        context=context[-1] if context[:-1] == _CONTEXT else 0,
        title=_inner(fields[0xA6]) if 0xA6 in fields else b"",
        mechanism=None if mechanism is None else mechanism[-1] if mechanism[:-1] == _MECHANISM else 0xFF,
        value=_inner(fields[0xAC]) if 0xAC in fields else b"",
        user_information=_inner(fields[0xBE]),
    )


def read_initiate(raw: bytes) -> Initiate:
    """An xDLMS InitiateRequest. Malformed if it is none."""
    if not raw or raw[0] != 0x01:
        raise Malformed("no InitiateRequest")
    key, at = b"", 1
    if raw[at : at + 1] == b"\x01":
        size, at = take_length(raw, 2)
        key, at = raw[at : at + size], at + size
    else:
        at += 1
    at += 2 if raw[at : at + 1] == b"\x01" else 1  # response allowed
    at += 2 if raw[at : at + 1] == b"\x01" else 1  # quality of service
    rest = raw[at:]
    if len(rest) != 10 or rest[1:4] != b"\x5f\x1f\x04":
        raise Malformed("bad InitiateRequest")
    return Initiate(key, rest[0], int.from_bytes(rest[5:8], "big"), int.from_bytes(rest[8:], "big"))


def initiate_response(conformance: int, max_pdu: int) -> bytes:
    """The xDLMS InitiateResponse for logical names."""
    return b"\x08\x00\x06\x5f\x1f\x04\x00" + conformance.to_bytes(3, "big") + max_pdu.to_bytes(2, "big") + b"\x00\x07"


def _element(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + length(len(content)) + content


def aare(
    context: int,
    result: int,
    diagnostic: int,
    user_information: bytes,
    *,
    title: bytes = b"",
    mechanism: int = 0,
    challenge: bytes = b"",
) -> bytes:
    """result: 0 accepted, 1 rejected for good, 2 for now. diagnostic: of the service user."""
    body = _element(0xA1, _element(0x06, _CONTEXT + bytes((context,))))
    body += _element(0xA2, _element(0x02, bytes((result,))))
    body += _element(0xA3, _element(0xA1, _element(0x02, bytes((diagnostic,)))))
    if title:
        body += _element(0xA4, _element(0x04, title))
    if challenge:
        body += _element(0x88, b"\x07\x80") + _element(0x89, _MECHANISM + bytes((mechanism,)))
        body += _element(0xAA, _element(0x80, challenge))
    if user_information:
        body += _element(0xBE, _element(0x04, user_information))
    return _element(0x61, body)


def rlre(reason: int, user_information: bytes = b"") -> bytes:
    """reason: 0 normal, 1 not finished."""
    body = _element(0x80, bytes((reason,)))
    if user_information:
        body += _element(0xBE, _element(0x04, user_information))
    return _element(0x63, body)

"""Opening and releasing an association: AARQ, AARE, RLRQ, RLRE (IEC 62056-5-3 clause 7; BER, ISO 8825-1).

What a request holds: application context, our system title, mechanism and password or challenge, and an
InitiateRequest that proposes services and sizes. All lengths may be of the long form.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from headend.errors import BadFrame
from headend.protocols.dlms import library
from headend.protocols.dlms.apdu import Apdu, Reader
from headend.protocols.dlms.axdr import encode_length

__all__ = [
    "SHORT_NAMES",
    "Associate",
    "Associated",
    "Initiated",
    "encode_aarq",
    "encode_rlrq",
    "initiate_request",
    "parse_aare",
    "parse_initiate_response",
    "parse_rlre",
]

VERSION = 6  # of DLMS
SHORT_NAMES: Final = (2, 4)

_CONTEXT: Final = 0xA1
_AE_INVOCATION: Final = 0xA9
_CALLING_TITLE: Final = 0xA6
_REQUIREMENTS: Final = 0x8A
_MECHANISM: Final = 0x8B
_CALLING_VALUE: Final = 0xAC
_USER_INFORMATION: Final = 0xBE

_RESULT: Final = 0xA2
_DIAGNOSTIC: Final = 0xA3
_RESPONDING_TITLE: Final = 0xA4
_RESPONDING_MECHANISM: Final = 0x89
_RESPONDING_VALUE: Final = 0xAA

_PROVIDER: Final = 0xA2
_CONFORMANCE: Final = b"\x5f\x1f\x04\x00"


@dataclass(frozen=True, slots=True)
class Associate:
    """A request for an association. mechanism: 0 none; value: password or challenge; initiate: the InitiateRequest as
    it is sent, ciphered or not; user_id: -1 for none."""

    ciphered: bool
    mechanism: int
    initiate: bytes = field(repr=False)
    title: bytes = b""
    value: bytes = field(default=b"", repr=False)
    user_id: int = -1


class Associated(NamedTuple):
    """The meter's answer. context: number of the application context (1 logical names, 3 these ciphered, 2 and 4 short
    names, 0 not said); result: 0 accepted; value: its challenge; user_information: an InitiateResponse or a service
    error, ciphered or not."""

    context: int
    result: int
    provider: bool
    diagnostic: int
    title: bytes
    mechanism: int
    value: bytes
    user_information: bytes


class Initiated(NamedTuple):
    """What was agreed. conformance: three bytes; max_pdu: bytes the meter takes, 0: no limit."""

    conformance: bytes
    max_pdu: int


def _element(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + encode_length(len(content)) + content


def initiate_request(conformance: bytes, max_pdu: int, dedicated_key: bytes = b"") -> bytes:
    """An InitiateRequest in the clear; max_pdu: bytes we take in one APDU."""
    key = b"\x01" + encode_length(len(dedicated_key)) + dedicated_key if dedicated_key else b"\x00"
    proposed = _CONFORMANCE + conformance + max_pdu.to_bytes(2, "big")
    return bytes((Apdu.INITIATE_REQUEST,)) + key + b"\x00\x00" + bytes((VERSION,)) + proposed


def encode_aarq(request: Associate) -> bytes:
    """AARQ. It holds the password in the clear when the mechanism is LLS: record it masked."""
    parts = [_element(_CONTEXT, library.context_name(request.ciphered))]
    if request.title:
        parts.append(_element(_CALLING_TITLE, _element(0x04, request.title)))
    if request.user_id >= 0:
        parts.append(_element(_AE_INVOCATION, b"\x02" + _integer(request.user_id)))
    if request.mechanism:
        parts += [
            _element(_REQUIREMENTS, b"\x07\x80"),
            _element(_MECHANISM, library.mechanism_name(request.mechanism)),
            _element(_CALLING_VALUE, _element(0x80, request.value)),
        ]
    parts.append(_element(_USER_INFORMATION, _element(0x04, request.initiate)))
    return _element(Apdu.AARQ, b"".join(parts))


def _integer(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return bytes((size,)) + value.to_bytes(size, "big")


def encode_rlrq(initiate: bytes = b"") -> bytes:
    """RLRQ, reason normal; with an InitiateRequest, ciphered or not, where the meter wants one."""
    user_information = _element(_USER_INFORMATION, _element(0x04, initiate)) if initiate else b""
    return _element(Apdu.RLRQ, b"\x80\x01\x00" + user_information)


def _elements(apdu: bytes, tag: int, name: str) -> dict[int, bytes]:
    """The elements of `apdu` by tag; one that comes twice is damage."""
    reader = Reader(apdu)
    if reader.number() != tag:
        raise BadFrame(f"the meter answered with {apdu[0]:02X}, not with {name}")
    body = Reader(reader.octets())
    reader.end()
    found: dict[int, bytes] = {}
    while body.left:
        element = body.number()
        if element in found:
            raise BadFrame(f"{name} holds element {element:02X} twice")
        found[element] = body.octets()
    return found


def _inner(content: bytes, *tags: int) -> bytes:
    """The content of the one element in `content`, whose tag is one of `tags`."""
    if not content:
        return b""
    reader = Reader(content)
    tag = reader.number()
    if tag not in tags:
        raise BadFrame(f"an association answer holds {tag:02X} where {tags[0]:02X} stands")
    inner = reader.octets()
    reader.end()
    return inner


def _integer_in(content: bytes) -> int:
    """The INTEGER in `content`, 0 where there is none."""
    raw = _inner(content, 0x02)
    if len(raw) > 4:
        raise BadFrame(f"an association answer holds a number of {len(raw)} bytes")
    return int.from_bytes(raw, "big")


def parse_aare(apdu: bytes) -> Associated:
    """The meter's answer to an AARQ. Raises `BadFrame`."""
    found = _elements(apdu, Apdu.AARE, "an AARE")
    if _RESULT not in found:
        raise BadFrame("the AARE says neither accepted nor refused")
    source = found.get(_DIAGNOSTIC, b"")
    return Associated(
        context=int.from_bytes(_inner(found.get(_CONTEXT, b""), 0x06)[-1:], "big"),
        result=_integer_in(found[_RESULT]),
        provider=source[:1] == bytes((_PROVIDER,)),
        diagnostic=_integer_in(_inner(source, 0xA1, 0xA2)),
        title=_inner(found.get(_RESPONDING_TITLE, b""), 0x04),
        mechanism=int.from_bytes(found.get(_RESPONDING_MECHANISM, b"")[-1:], "big"),
        value=_inner(found.get(_RESPONDING_VALUE, b""), 0x80, 0x81),
        user_information=_inner(found.get(_USER_INFORMATION, b""), 0x04),
    )


def parse_initiate_response(apdu: bytes) -> Initiated:
    """An InitiateResponse in the clear. Raises `BadFrame`."""
    reader = Reader(apdu)
    if reader.number() != Apdu.INITIATE_RESPONSE:
        raise BadFrame("the AARE holds no InitiateResponse")
    if reader.number():
        reader.number()  # quality of service, of no use
    version = reader.number()
    if version != VERSION:
        raise BadFrame(f"the meter speaks DLMS version {version}, not {VERSION}")
    if reader.take(len(_CONFORMANCE)) != _CONFORMANCE:
        raise BadFrame("the InitiateResponse has no conformance block where it stands")
    agreed = Initiated(reader.take(3), reader.number(2))
    reader.number(2)  # VAA name: 0007, but some say FA00 with logical names too; the context name tells
    reader.end()
    return agreed


def parse_rlre(apdu: bytes) -> int:
    """The reason in an RLRE, 0 normal. Raises `BadFrame`."""
    return int.from_bytes(_elements(apdu, Apdu.RLRE, "an RLRE").get(0x80, b"")[-1:], "big")

"""What opens and closes an association, in words: AARQ, AARE, RLRQ, RLRE and the InitiateRequest and -Response in them.

A password, a challenge and its answer, and a dedicated key are told by their length only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from headend.errors import BadFrame
from headend.protocols.dlms import failures
from headend.protocols.dlms.apdu import Apdu, Reader
from headend.protocols.dlms.explain_page import HIDDEN, Page

__all__ = ["ACSE", "explain_acse", "explain_initiate", "title_text"]

ACSE: Final[Mapping[int, str]] = {
    Apdu.AARQ: "association request (AARQ)",
    Apdu.AARE: "association response (AARE)",
    Apdu.RLRQ: "release request (RLRQ)",
    Apdu.RLRE: "release response (RLRE)",
}
_CONTEXTS: Final = {
    1: "logical names",
    2: "short names",
    3: "logical names, ciphered",
    4: "short names, ciphered",
}
_MECHANISMS: Final = {
    0: "none (lowest level)",
    1: "password (LLS)",
    2: "HLS of the maker's own",
    3: "HLS MD5",
    4: "HLS SHA-1",
    5: "HLS GMAC",
    6: "HLS SHA-256",
    7: "HLS ECDSA",
}
_RESULTS: Final = {0: "accepted", 1: "refused for good", 2: "refused for now"}
_REASONS: Final = {0: "normal", 1: "urgent", 30: "user defined"}
# Conformance block, bit 0 first (Green Book 9.4.6.1).
_CONFORMANCE: Final = (
    "",
    "general protection",
    "general block transfer",
    "read",
    "write",
    "unconfirmed write",
    "delta value encoding",
    "",
    "attribute 0 with SET",
    "priority",
    "attribute 0 with GET",
    "block transfer with GET",
    "block transfer with SET",
    "block transfer with ACTION",
    "multiple references",
    "information report",
    "data notification",
    "access",
    "parameterised access",
    "GET",
    "SET",
    "selective access",
    "event notification",
    "ACTION",
)
_OID_CONTEXT: Final = bytes.fromhex("60857405 0801")
_OID_MECHANISM: Final = bytes.fromhex("60857405 0802")


def title_text(title: bytes) -> str:
    """A system title: the maker's three letters, and all of it in hex."""
    maker = title[:3]
    letters = f" (maker {maker.decode('ascii')})" if len(title) == 8 and maker.isalpha() and maker.isascii() else ""
    return title.hex().upper() + letters


def explain_acse(page: Page, apdu: bytes, inside: Callable[[bytes], None]) -> None:
    """An ACSE APDU onto the page; `inside` explains what its user information holds. Raises `BadFrame`."""
    tag = apdu[0]
    page.note("APDU", ACSE[tag], apdu[:1])
    page.say(ACSE[tag])
    reader = Reader(apdu, 1)
    body = Reader(reader.octets())
    user_information = b""
    while body.left:
        element = body.number()
        content = body.octets()
        if element == 0xBE:
            user_information = _inner(content)
        elif tag in (Apdu.AARQ, Apdu.AARE):
            _element(page, tag, element, content)
        elif element == 0x80:
            reason = int.from_bytes(content, "big")
            page.note("reason", _REASONS.get(reason, str(reason)), content)
        else:
            page.note(f"element {element:02X}", f"{len(content)} bytes")
    reader.end()
    if user_information:
        page.note("user information", f"{len(user_information)} bytes")
        inside(user_information)


def _inner(content: bytes) -> bytes:
    """What is in a BER element of one element; a value of fewer bytes than that stands as it is."""
    if len(content) < 2:
        return content
    return Reader(content, 1).octets()


def _element(page: Page, tag: int, element: int, content: bytes) -> None:
    request = tag == Apdu.AARQ
    if element == 0xA1:
        page.note("context", _named(_inner(content), _OID_CONTEXT, _CONTEXTS), content)
    elif element == (0xA6 if request else 0xA4):
        title = _inner(content)
        if request:
            page.client_title = title if len(title) == 8 else b""
        else:
            page.meter_title = title if len(title) == 8 else b""
        page.note("system title", title_text(title), title)
    elif element in (0xA7, 0xA5) and element == (0xA7 if request else 0xA5):
        page.note("certificate", f"{len(_inner(content))} bytes")
    elif element == 0xA9 and request:
        page.note("user", str(int.from_bytes(_inner(content), "big")), content)
    elif element == (0x8A if request else 0x88):
        page.note("requirements", "authentication" if content[-1:] == b"\x80" else "none", content)
    elif element == (0x8B if request else 0x89):
        page.note("mechanism", _named(content, _OID_MECHANISM, _MECHANISMS), content)
    elif element == (0xAC if request else 0xAA):
        page.note("authentication value", f"{len(_inner(content))} bytes, {HIDDEN}")
    elif element == 0xA2 and not request:
        _result(page, content)
    elif element == 0xA3 and not request:
        _diagnostic(page, content)
    else:
        page.note(f"element {element:02X}", f"{len(content)} bytes")


def _named(oid: bytes, root: bytes, names: Mapping[int, str]) -> str:
    if oid[:-1] != root.ljust(len(oid) - 1, b"\0") or not oid:
        return f"unknown ({oid.hex().upper()})"
    return names.get(oid[-1], f"number {oid[-1]}")


def _result(page: Page, content: bytes) -> None:
    result = int.from_bytes(_inner(content), "big")
    words = _RESULTS.get(result, f"result {result}")
    page.note("result", words, content)
    page.say(words)
    if result:
        page.problems.append(f"the meter's answer to the association: {words}")


def _diagnostic(page: Page, content: bytes) -> None:
    number = int.from_bytes(_inner(_inner(content)), "big")
    if content[:1] == b"\xa2":
        words = {0: "none", 1: "no reason given", 2: "no common ACSE version"}.get(number, f"number {number}")
    else:
        words = failures.DIAGNOSTICS.get(number, f"number {number}") if number else "none"
    page.note("diagnostic", words, content)
    if number:
        page.problems.append(f"its reason: {words}")


def explain_initiate(page: Page, apdu: bytes) -> None:
    """An InitiateRequest or -Response in the clear. Raises `BadFrame`."""
    reader = Reader(apdu, 1)
    request = apdu[0] == Apdu.INITIATE_REQUEST
    page.note("APDU", "initiate request" if request else "initiate response", apdu[:1])
    if request:
        if reader.number():
            page.dedicated_key = reader.octets()
            page.note("dedicated key", f"{len(page.dedicated_key)} bytes, {HIDDEN}")
        if reader.number():
            page.note("response allowed", "yes" if reader.number() else "no")
    if reader.number():
        page.note("quality of service", str(reader.number()))
    page.note("DLMS version", str(reader.number()))
    _conformance(page, reader)
    size = reader.number(2)
    page.note("longest PDU", f"{size} bytes" if size else "no limit", size.to_bytes(2, "big"))
    if not request:
        name = reader.number(2)
        page.note("VAA name", f"{name:04X} ({'logical' if name == 7 else 'short'} names)", name.to_bytes(2, "big"))
    reader.end()


def _conformance(page: Page, reader: Reader) -> None:
    # Tag 5F 1F, which some write as 5F only; a length of 4, and a count of unused bits before three bytes.
    start = reader.at
    if reader.number() != 0x5F:
        raise BadFrame("no conformance block where it stands")
    if reader.data[reader.at : reader.at + 1] == b"\x1f":
        reader.number()
    if reader.number() != 4:
        raise BadFrame("a conformance block that has not 4 bytes")
    reader.number()
    block = reader.number(3)
    words = [name for bit, name in enumerate(_CONFORMANCE) if name and block >> (23 - bit) & 1]
    page.note("conformance", ", ".join(words) or "nothing", reader.data[start : reader.at])

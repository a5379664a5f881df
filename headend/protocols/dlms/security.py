"""Protection of APDUs with security suite 0, AES-GCM-128 (IEC 62056-5-3 clause 5.7; Green Book 9.2).

A protected APDU carries a security control byte (suite, authenticated, encrypted, broadcast key), an invocation
counter, and text. Who sent it is in the system title: of the association, or in the APDU itself (general ciphering).

`Ciphers` is what an association knows; `unwrap` takes off the protection of any APDU on its own. A counter of ours is
taken for each protected APDU and never again. A counter of the meter is believed only where its tag was checked, so
that nobody without the key can push it out of reach.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from headend.access import Access, Counter, MemoryCounter
from headend.errors import BadFrame, NoAccess, Unsupported
from headend.protocols.dlms import library
from headend.protocols.dlms.apdu import Apdu, Reader
from headend.protocols.dlms.axdr import encode_length
from headend.protocols.dlms.failures import OldAnswer
from headend.protocols.dlms.settings import Authentication, DlmsSettings, Policy

__all__ = [
    "MAX_COUNTER",
    "OVERHEAD",
    "Ciphers",
    "Header",
    "challenge_reply",
    "check_challenge_reply",
    "header_of",
    "is_protected",
    "secret",
    "unwrap",
]

AUTHENTICATED = 0x10
ENCRYPTED = 0x20
BROADCAST = 0x40
COMPRESSED = 0x80

CONTROL: Final[dict[Policy, int]] = {
    "none": 0,
    "authenticated": AUTHENTICATED,
    "encrypted": ENCRYPTED,
    "authenticated-encrypted": AUTHENTICATED | ENCRYPTED,
}

TAG_BYTES = 12
TITLE_BYTES = 8
KEY_BYTES = 16
HEADER_BYTES = 5
MAX_COUNTER = 0xFFFFFFFF
OVERHEAD = 32  # bytes general ciphering adds at most: tag, title, length of four, header, authentication tag

GENERAL_GLO = 0xDB
GENERAL_DED = 0xDC
GENERAL_OTHER: Final = {0xDD: "general-ciphering", 0xDF: "general-signing"}

# Plain APDU and its service-specific forms with the global and the dedicated key.
_FORMS: Final[dict[int, tuple[int, int]]] = {
    Apdu.INITIATE_REQUEST: (0x21, 0x41),
    Apdu.INITIATE_RESPONSE: (0x28, 0x48),
    Apdu.SERVICE_ERROR: (0x2E, 0x4E),
    Apdu.GET_REQUEST: (0xC8, 0xD0),
    Apdu.SET_REQUEST: (0xC9, 0xD1),
    Apdu.EVENT_NOTIFICATION: (0xCA, 0xD2),
    Apdu.ACTION_REQUEST: (0xCB, 0xD3),
    Apdu.GET_RESPONSE: (0xCC, 0xD4),
    Apdu.SET_RESPONSE: (0xCD, 0xD5),
    Apdu.ACTION_RESPONSE: (0xCF, 0xD7),
}
_GLOBAL: Final = {glo: plain for plain, (glo, _) in _FORMS.items()}
_DEDICATED: Final = {ded: plain for plain, (_, ded) in _FORMS.items()}
_TAGS: Final = frozenset(Apdu)
_OF_CLIENT: Final = frozenset({Apdu.INITIATE_REQUEST, Apdu.GET_REQUEST, Apdu.SET_REQUEST, Apdu.ACTION_REQUEST})

MECHANISMS: Final[dict[Authentication, int]] = {
    "none": 0,
    "lls": 1,
    "hls-md5": 3,
    "hls-sha1": 4,
    "hls-gmac": 5,
    "hls-sha256": 6,
}


def secret(access: Access, name: str, size: int = 0) -> bytes:
    """The meter's secret `name`, of `size` bytes. Raises `NoAccess` naming it, never showing it."""
    value = access.secrets.get(name, b"")
    if not value:
        raise NoAccess(f"{name} of the meter is not known", remedy="put it into the vault")
    if size and len(value) != size:
        raise NoAccess(f"{name} of the meter has {len(value)} bytes, not {size}", remedy="put the right one there")
    return value


def take_counter(counter: Counter) -> int:
    """The next number of ours. Raises `NoAccess` when the key is used up."""
    if counter.value > MAX_COUNTER:
        raise NoAccess("the invocation counter is used up", remedy="change the meter's keys; then it starts again")
    return counter.take()


class Header(NamedTuple):
    """A protected APDU as it stands. title: the sender's where the APDU says it; plain: tag of what is inside where
    the outer tag says so, else 0; text: encrypted or plain, with its tag where it is authenticated."""

    tag: int
    dedicated: bool
    plain: int
    title: bytes
    control: int
    counter: int
    text: bytes


def is_protected(apdu: bytes) -> bool:
    """Is this a ciphered APDU (of any kind, also of those we can't read)?"""
    tag = apdu[0] if apdu else -1
    return tag in _GLOBAL or tag in _DEDICATED or tag in (GENERAL_GLO, GENERAL_DED) or tag in GENERAL_OTHER


def header_of(apdu: bytes) -> Header:
    """A protected APDU taken apart, nothing deciphered. Raises `BadFrame`, `Unsupported`."""
    reader = Reader(apdu)
    tag = reader.number()
    if tag in GENERAL_OTHER:
        raise Unsupported(f"the meter uses {GENERAL_OTHER[tag]}, which needs public keys", remedy="use suite 0")
    title = b""
    if tag in (GENERAL_GLO, GENERAL_DED):
        title = reader.octets()
        if len(title) not in (0, TITLE_BYTES):
            raise BadFrame(f"a ciphered answer has a system title of {len(title)} bytes, not {TITLE_BYTES}")
    body = Reader(reader.octets())
    reader.end()
    control, counter = body.number(), body.number(4)
    dedicated = tag in _DEDICATED or tag == GENERAL_DED
    plain = _GLOBAL.get(tag) or _DEDICATED.get(tag) or 0
    return Header(tag, dedicated, plain, title, control, counter, body.rest())


@dataclass(slots=True)
class Ciphers:
    """What one association knows of its protection. Titles of 8 bytes, or empty where not known yet.

    dedicated_key: of this association, empty: none. sent: the counter of the last APDU protected, -1: none yet.
    """

    settings: DlmsSettings
    access: Access
    client_title: bytes = b""
    meter_title: bytes = b""
    dedicated_key: bytes = field(default=b"", repr=False)
    sent: int = -1
    heard_dedicated: Counter = field(default_factory=MemoryCounter, repr=False)

    def protect(self, apdu: bytes, *, initiate: bool = False) -> bytes:
        """`apdu` as the settings want it. initiate: it is the InitiateRequest, which always goes with the global key,
        and encrypted when it carries the dedicated one."""
        control = CONTROL[self.settings.policy]
        if not control:
            return apdu
        form, _, kind = self.settings.ciphering.partition("-")
        dedicated = kind == "ded" and not initiate
        if initiate:
            form = "service"
            control |= ENCRYPTED if self.dedicated_key else 0
        key = self.dedicated_key if dedicated else secret(self.access, "encryption_key", KEY_BYTES)
        self.sent = counter = take_counter(self.access.counter("tx"))
        text = _protected(control, self.client_title, counter, key, self._authentication_key(control), apdu)
        content = bytes((control,)) + counter.to_bytes(4, "big") + text
        body = encode_length(len(content)) + content
        if form == "general":
            tag = GENERAL_DED if dedicated else GENERAL_GLO
            return bytes((tag, len(self.client_title))) + self.client_title + body
        return bytes((_FORMS[apdu[0]][dedicated],)) + body

    def unwrap(self, apdu: bytes) -> bytes:
        """What the meter sent, in the clear. What policy asks for must have been done to it, but for exceptions and
        errors, which meters send in the clear."""
        if not is_protected(apdu):
            if self.settings.policy == "none" or (apdu and apdu[0] in (Apdu.EXCEPTION, Apdu.SERVICE_ERROR)):
                return apdu
            if not apdu or apdu[0] not in _TAGS:
                raise BadFrame(f"the meter answers with {apdu[:1].hex().upper() or 'nothing'}, which begins no answer")
            raise NoAccess(
                "the meter answers unprotected, though policy asks for protection",
                remedy="check policy and ciphering of the meter's model",
            )
        header = header_of(apdu)
        wanted = CONTROL[self.settings.policy] & AUTHENTICATED if self.settings.check_tag else 0
        if wanted & ~header.control or not header.control & (AUTHENTICATED | ENCRYPTED):
            raise NoAccess(
                "the meter answers with less protection than policy asks for",
                remedy="set policy to what the utility runs: encrypted, or none",
            )
        if self._from_client(header):
            raise BadFrame("our own request came back", remedy="check the line for an echo")
        self._check_title(header.title)
        return self._open(header)

    def _from_client(self, header: Header) -> bool:
        if header.plain in _OF_CLIENT:
            return True
        return header.title == self.client_title != self.meter_title and bool(header.title)

    def _open(self, header: Header, *, count: bool = True) -> bytes:
        control = header.control
        if control & 0x0F:
            raise Unsupported(f"the meter uses security suite {control & 0x0F}", remedy="use suite 0")
        if control & COMPRESSED:
            raise Unsupported("the meter compresses its answers", remedy="switch compression off in the meter")
        from_client = self._from_client(header)
        title = header.title or (self.client_title if from_client else self.meter_title)
        if len(title) != TITLE_BYTES:
            raise NoAccess("the meter's system title is not known", remedy="set meter_title")
        name = "broadcast_key" if control & BROADCAST else "encryption_key"
        key = self.dedicated_key if header.dedicated else secret(self.access, name, KEY_BYTES)
        if not key:
            raise NoAccess("the answer is ciphered with a dedicated key, and none was agreed")
        checked = bool(control & AUTHENTICATED) and self.settings.check_tag
        authentication_key = self._authentication_key(control) if checked else b""
        plain = _opened(control, title, header.counter, key, authentication_key, header.text)
        if plain is None:
            used = "dedicated_key" if header.dedicated else name
            raise NoAccess(
                "the meter's answer does not pass its authentication tag",
                remedy=f"check {used}, authentication_key and meter_title",
            )
        if count and checked and self.settings.check_counter and not from_client:
            self._count(header)
        return plain

    def _count(self, header: Header) -> None:
        if header.dedicated:
            heard = self.heard_dedicated
        else:
            heard = self.access.counter("rx_broadcast" if header.control & BROADCAST else "rx")
        if header.counter < heard.value:
            raise OldAnswer(header.counter, heard.value - 1)
        heard.raise_to(header.counter + 1)

    def _check_title(self, title: bytes) -> None:
        """A title the meter told in its AARE binds it; one from the settings only where it is to be checked."""
        bound = self.settings.check_title or not self.settings.meter_title
        if title and bound and self.meter_title not in (b"", title):
            raise NoAccess(
                f"another meter answers: its system title is {title.hex().upper()}",
                remedy="check meter_title and the meter's address",
            )

    def _authentication_key(self, control: int) -> bytes:
        return secret(self.access, "authentication_key", KEY_BYTES) if control & AUTHENTICATED else b""


def unwrap(
    apdu: bytes,
    settings: DlmsSettings,
    access: Access,
    *,
    meter_title: bytes = b"",
    dedicated_key: bytes = b"",
    count: bool = True,
) -> bytes:
    """Any APDU in the clear: one that is not protected comes back as it is. For pushes and explanations.

    meter_title: where the APDU does not say it and settings don't. count: hold the meter's counter against the ones
    seen before and remember it; False to look at what was captured. Raises `NoAccess`, `BadFrame`, `Unsupported`.
    """
    if not is_protected(apdu):
        return apdu
    title = bytes.fromhex(settings.meter_title) or meter_title
    ciphers = Ciphers(settings, access, bytes.fromhex(settings.client_title), title, dedicated_key)
    return ciphers._open(header_of(apdu), count=count)


def _protected(control: int, title: bytes, counter: int, key: bytes, authentication_key: bytes, plain: bytes) -> bytes:
    if control & AUTHENTICATED and control & ENCRYPTED:
        return library.seal(control, title, counter, key, authentication_key, plain)
    if control & AUTHENTICATED:
        return plain + library.mac(control, title, counter, key, authentication_key, plain)
    return _keystream(title, counter, key, plain)


def _opened(
    control: int, title: bytes, counter: int, key: bytes, authentication_key: bytes, text: bytes
) -> bytes | None:
    """The plain text, None when its tag is wrong. No authentication key: the tag is not looked at."""
    if control & AUTHENTICATED and len(text) < TAG_BYTES:
        raise BadFrame("a ciphered answer is too short for its authentication tag")
    if control & AUTHENTICATED and authentication_key:
        if control & ENCRYPTED:
            return library.unseal(control, title, counter, key, authentication_key, text)
        plain, tag = text[:-TAG_BYTES], text[-TAG_BYTES:]
        expected = library.mac(control, title, counter, key, authentication_key, plain)
        return plain if hmac.compare_digest(expected, tag) else None
    body = text[:-TAG_BYTES] if control & AUTHENTICATED else text
    return _keystream(title, counter, key, body) if control & ENCRYPTED else body


def _keystream(title: bytes, counter: int, key: bytes, text: bytes) -> bytes:
    """GCM without its tag: counter mode from block 2 (NIST SP 800-38D 7.1); there and back are the same."""
    start = title + counter.to_bytes(4, "big") + b"\x00\x00\x00\x02"
    cipher = Cipher(algorithms.AES(key), modes.CTR(start)).encryptor()
    return cipher.update(text) + cipher.finalize()


# --- High level security: who proves what to whom (Green Book 9.2.7.4)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a reply to a challenge is made of. sender and receiver: system titles; challenge: the receiver's, answered;
    own: the sender's."""

    sender: bytes
    receiver: bytes
    challenge: bytes = field(repr=False)
    own: bytes = field(repr=False)


def challenge_reply(mechanism: Authentication, proof: Proof, access: Access, counter: int = 0) -> bytes:
    """f(challenge). counter: of a GMAC, already taken."""
    if mechanism == "hls-gmac":
        key = secret(access, "encryption_key", KEY_BYTES)
        authentication_key = secret(access, "authentication_key", KEY_BYTES)
        tag = library.mac(AUTHENTICATED, proof.sender, counter, key, authentication_key, proof.challenge)
        return bytes((AUTHENTICATED,)) + counter.to_bytes(4, "big") + tag
    password = secret(access, "password")
    if mechanism == "hls-sha256":
        text = password + proof.sender + proof.receiver + proof.challenge + proof.own
        return hashlib.sha256(text).digest()
    return _OLD_HASHES[mechanism](proof.challenge + password)


_OLD_HASHES: Final[dict[Authentication, Callable[[bytes], bytes]]] = {
    # Broken for signatures; here the standard's mechanisms 3 and 4, as old meters have them.
    "hls-md5": lambda text: hashlib.md5(text, usedforsecurity=False).digest(),
    "hls-sha1": lambda text: hashlib.sha1(text, usedforsecurity=False).digest(),
}


def check_challenge_reply(mechanism: Authentication, proof: Proof, access: Access, reply: bytes) -> None:
    """Does the meter's `reply` prove that it knows our secret? Raises `NoAccess`. proof: sender is the meter."""
    counter = 0
    if mechanism == "hls-gmac" and len(reply) == HEADER_BYTES + TAG_BYTES:
        counter = int.from_bytes(reply[1:HEADER_BYTES], "big")
    if not hmac.compare_digest(challenge_reply(mechanism, proof, access, counter), reply):
        raise NoAccess(
            "the meter does not prove that it knows the password or keys: its answer to our challenge is wrong",
            remedy="check the secrets and meter_title; if they are right, something else answers in the meter's place",
        )

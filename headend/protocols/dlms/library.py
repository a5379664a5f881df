"""All that is used of dlms-cosem 21.3.2 (MIT), and nothing else of it: the only module that imports it.

Used: AES-GCM of security suite 0 where an APDU is both authenticated and encrypted, GMAC (tag over a challenge or a
plain APDU), the object identifiers of application contexts and mechanisms, and the bits of a conformance block.

Not used, since it is missing or wrong there: the A-XDR data types (some hang on data cut short), lengths above 127
bytes in AARQ, AARE and ciphered APDUs, protection that only authenticates or only encrypts, general block transfer,
service-specific and dedicated ciphering, its state machine (refuses a last block as first answer, exceptions,
notifications in between; takes answers to other requests) and its clients. Where we have our own, it is in acse.py,
apdu.py, axdr.py, security.py and services.py.

What is used here writes no log and prints nothing; its errors are replaced by ours, without the bytes they may quote.
"""

from __future__ import annotations

from typing import Final

from dlms_cosem import enumerations
from dlms_cosem.exceptions import DecryptionError
from dlms_cosem.protocol.acse.base import AppContextName, MechanismName
from dlms_cosem.protocol.xdlms.conformance import Conformance
from dlms_cosem.security import SecurityControlField, decrypt, encrypt, gmac

__all__ = ["SERVICES", "context_name", "mac", "mechanism_name", "seal", "services", "unseal"]

SERVICES: Final = frozenset(Conformance.conformance_bit_position)
"""Names of the services a conformance block can hold: get, set, action, multiple_references, ..."""


def seal(control: int, title: bytes, counter: int, key: bytes, authentication_key: bytes, plain: bytes) -> bytes:
    """`plain` encrypted, and its 12-byte tag behind it. title: of the sender, 8 bytes; keys of 16 bytes."""
    sealed: bytes = encrypt(_control(control), title, counter, key, plain, authentication_key)
    return sealed


def unseal(
    control: int, title: bytes, counter: int, key: bytes, authentication_key: bytes, sealed: bytes
) -> bytes | None:
    """What `seal` was given; None when the tag is not right."""
    try:
        plain: bytes = decrypt(_control(control), title, counter, key, sealed, authentication_key)
    except DecryptionError:
        return None
    return plain


def mac(control: int, title: bytes, counter: int, key: bytes, authentication_key: bytes, text: bytes) -> bytes:
    """The 12-byte tag over control byte, authentication key and `text`, nothing encrypted."""
    tag: bytes = gmac(_control(control), title, counter, key, authentication_key, text)
    return tag


def context_name(ciphered: bool) -> bytes:
    """Application context name of logical-name referencing, as its BER element (tag 06)."""
    name: bytes = AppContextName(logical_name_refs=True, ciphered_apdus=ciphered).to_bytes()
    return name


def mechanism_name(mechanism: int) -> bytes:
    """Authentication mechanism name (1 LLS, 3 MD5, 4 SHA-1, 5 GMAC, 6 SHA-256), without tag: it is implicit."""
    name: bytes = MechanismName(enumerations.AuthenticationMechanism(mechanism)).to_bytes()
    return name


def services(conformance: bytes) -> frozenset[str]:
    """What a conformance block of three bytes holds."""
    block = Conformance.from_bytes(b"\x00" + conformance)
    return frozenset(name for name in SERVICES if getattr(block, name))


def _control(control: int) -> SecurityControlField:
    return SecurityControlField.from_bytes(bytes((control,)))

"""Protection of APDUs by security suite 0 (Green Book 9.2): AES-128-GCM with a tag of 12 bytes, and HLS answers."""

from __future__ import annotations

from hashlib import md5, sha1, sha256
from hmac import compare_digest

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

__all__ = ["AUTHENTICATED", "ENCRYPTED", "BadTag", "gmac", "hls_answer", "protect", "unprotect"]

AUTHENTICATED, ENCRYPTED = 0x10, 0x20
_TAG_BYTES = 12


class BadTag(Exception):
    """The key is another one, or something was changed on the way."""


def _gcm(key: bytes, title: bytes, counter: int, aad: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Ciphertext and the tag's first 12 bytes."""
    encryptor = Cipher(algorithms.AES(key), modes.GCM(title + counter.to_bytes(4, "big"))).encryptor()
    encryptor.authenticate_additional_data(aad)
    body = encryptor.update(data) + encryptor.finalize()
    return body, encryptor.tag[:_TAG_BYTES]


def protect(control: int, key: bytes, auth_key: bytes, title: bytes, counter: int, plain: bytes) -> bytes:
    """Security header and what follows it: SC, IC, then the APDU as `control` wants it."""
    header = bytes((control,)) + counter.to_bytes(4, "big")
    head = bytes((control,)) + auth_key
    if control & ENCRYPTED and control & AUTHENTICATED:
        body, tag = _gcm(key, title, counter, head, plain)
        return header + body + tag
    if control & ENCRYPTED:
        return header + _gcm(key, title, counter, b"", plain)[0]
    if control & AUTHENTICATED:
        return header + plain + _gcm(key, title, counter, head + plain, b"")[1]
    return header + plain


def unprotect(key: bytes, auth_key: bytes, title: bytes, protected: bytes) -> bytes:
    """The APDU inside SC, IC and body. BadTag when it was not made with these keys and this title."""
    control, counter, body = protected[0], int.from_bytes(protected[1:5], "big"), protected[5:]
    head = bytes((control,)) + auth_key
    if not control & AUTHENTICATED:
        return _gcm(key, title, counter, b"", body)[0] if control & ENCRYPTED else body
    if len(body) < _TAG_BYTES:
        raise BadTag
    body, tag = body[:-_TAG_BYTES], body[-_TAG_BYTES:]
    if not control & ENCRYPTED:
        if not compare_digest(_gcm(key, title, counter, head + body, b"")[1], tag):
            raise BadTag
        return body
    nonce = title + counter.to_bytes(4, "big")
    decryptor = Cipher(algorithms.AES(key), modes.GCM(nonce, tag, min_tag_length=_TAG_BYTES)).decryptor()
    decryptor.authenticate_additional_data(head)
    try:
        return decryptor.update(body) + decryptor.finalize()
    except InvalidTag:
        raise BadTag from None


def gmac(key: bytes, auth_key: bytes, title: bytes, counter: int, challenge: bytes) -> bytes:
    """HLS 5: SC, IC and the tag over the challenge."""
    control = bytes((AUTHENTICATED,))
    return control + counter.to_bytes(4, "big") + _gcm(key, title, counter, control + auth_key + challenge, b"")[1]


def hls_answer(
    authentication: str, secret: bytes, challenge: bytes, own_title: bytes, other_title: bytes, own_challenge: bytes
) -> bytes:
    """What to answer to `challenge` with HLS 3, 4 and 6 (Green Book 9.2.7.4): digests of it and the secret."""
    if authentication == "hls-md5":
        return md5(challenge + secret).digest()  # noqa: S324 - the method is what it is
    if authentication == "hls-sha1":
        return sha1(challenge + secret).digest()  # noqa: S324 - the method is what it is
    return sha256(secret + own_title + other_title + challenge + own_challenge).digest()

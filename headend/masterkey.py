"""The master key, and sealing under it: AES-256-GCM, a nonce of its own for each secret, bound to meter, name and
generation, so that what is moved to another place does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headend.errors import ConfigError, NoAccess, Problem

__all__ = ["MASTER_KEY_BYTES", "MasterKey", "load_master_key", "new_master_key", "read_master_key", "sealed_under"]

MASTER_KEY_BYTES: Final = 32

_SEALED_AS = 1
_ID_BYTES, _NONCE_BYTES = 8, 12
_HEAD_BYTES = 1 + _ID_BYTES + _NONCE_BYTES
_WRITE_KEY = "write 32 random bytes as 64 hex digits or as base64; `headend keys init` makes such a file"


class MasterKey:
    """The key all secrets are sealed under. `id` tells it from others and gives nothing away."""

    __slots__ = ("_cipher", "id")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != MASTER_KEY_BYTES:
            raise ValueError(f"a master key has {MASTER_KEY_BYTES} bytes")
        self._cipher = AESGCM(raw)
        self.id = hashlib.sha256(b"headend master key id" + raw).digest()[:_ID_BYTES]

    def __repr__(self) -> str:
        return f"<master key {self.id.hex()}>"

    def seal(self, meter: str, name: str, generation: int, plain: bytes) -> bytes:
        """`plain` as it is stored, bound to where it belongs."""
        nonce = os.urandom(_NONCE_BYTES)
        head = bytes((_SEALED_AS,)) + self.id + nonce
        return head + self._cipher.encrypt(nonce, plain, _bound(meter, name, generation))

    def open(self, meter: str, name: str, generation: int, sealed: bytes) -> bytes:
        """What was sealed. `NoAccess` when it was sealed under another key, was changed, or belongs elsewhere."""
        if sealed_under(sealed) != self.id:
            other = sealed_under(sealed).hex() or "none of ours"
            raise NoAccess(
                f"the secrets of meter {meter} are sealed under another master key ({other}) than the one given "
                f"({self.id.hex()})",
                remedy="give the master key they were sealed under ([vault] of site.toml)",
            )
        nonce, rest = sealed[1 + _ID_BYTES : _HEAD_BYTES], sealed[_HEAD_BYTES:]
        try:
            return self._cipher.decrypt(nonce, rest, _bound(meter, name, generation))
        except InvalidTag:
            raise NoAccess(
                f"the secret {name} of meter {meter} does not open: it was changed in the store, or is another's",
                remedy="import it again, or restore the table `secret` from a backup",
            ) from None


def sealed_under(sealed: bytes) -> bytes:
    """The id of the master key something is sealed under; empty for what was never sealed by us."""
    whole = len(sealed) > _HEAD_BYTES and sealed[0] == _SEALED_AS
    return sealed[1 : 1 + _ID_BYTES] if whole else b""


def _bound(meter: str, name: str, generation: int) -> bytes:
    parts = (meter.encode(), name.encode(), str(generation).encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


# -- where the master key comes from -----------------------------------------------------------------------------------


def load_master_key(env: str, file: Path | None) -> MasterKey | None:
    """The master key from the file, else from the environment variable `env`; None when neither is there.

    `ConfigError` for what is no key, and for a file others than its owner may read.
    """
    if file is not None:
        return read_master_key(file)
    text = os.environ.get(env, "")
    return _parsed(text, f"environment variable {env}") if text.strip() else None


def read_master_key(file: Path) -> MasterKey:
    """The master key in `file`; `ConfigError` when it can't be used."""
    where = f"master key file {file}"
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            text = opened.read(1000)
    except OSError as error:
        remedy = "make one with `headend keys init`, or correct [vault] of site.toml"
        raise ConfigError([Problem(where, f"can't be read: {error.strerror}", remedy)]) from None
    if mode & 0o077:
        what = f"others than its owner can read it (mode {mode:04o})"
        raise ConfigError([Problem(where, what, f"chmod 600 {file}")])
    return _parsed(text.decode("ascii", "replace"), where)


def _parsed(text: str, where: str) -> MasterKey:
    """A key written as hex or base64. What is wrong with it is told without repeating any of it."""
    text = text.strip()
    try:
        if re.fullmatch("[0-9A-Fa-f]{64}", text):
            return MasterKey(bytes.fromhex(text))
        plain = text.replace("-", "+").replace("_", "/").rstrip("=")
        return MasterKey(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True))
    except (ValueError, binascii.Error):
        raise ConfigError([Problem(where, "holds no master key of 32 bytes", _WRITE_KEY)]) from None


def new_master_key(file: Path) -> MasterKey:
    """Make a master key and write it to `file`, which must not exist; its owner alone can read it. `ConfigError`."""
    raw = os.urandom(MASTER_KEY_BYTES)
    where = f"master key file {file}"
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(number, "w", encoding="ascii") as opened:
            opened.write(base64.b64encode(raw).decode("ascii") + "\n")
            opened.flush()
            os.fsync(number)
    except FileExistsError:
        remedy = "keep it: what is sealed under it can't be opened by another; or name another file"
        raise ConfigError([Problem(where, "is there already and is not overwritten", remedy)]) from None
    except OSError as error:
        raise ConfigError([Problem(where, f"can't be written: {error.strerror}", "check the folder")]) from None
    return MasterKey(raw)

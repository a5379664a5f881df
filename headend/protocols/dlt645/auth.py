"""Who may write: password and operator of DL/T 645, and what a refusal of them can mean. Never shown anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from headend.errors import Refused, UsageError

__all__ = ["WRONG_PASSWORD", "Auth", "Password", "explained"]

WRONG_PASSWORD = 0x04
_MAX_LEVEL = 9
_KEY_CLASSES = (0x98, 0x99)


@dataclass(frozen=True, slots=True)
class Auth:
    """Password and operator of 2007, sent with every write.

    level: password class PA, 0 (highest) to 9. password: six hex digits as they are written, the first two sent last
    like those of every number; operator: eight, likewise. A meter with a security module (ESAM) has its writes in
    classes 98H (ciphertext) and 99H (with MAC), which take keys a head-end without a key server does not have.
    """

    level: int
    password: str = field(repr=False)
    operator: str = "00000000"

    def __post_init__(self) -> None:
        if self.level in _KEY_CLASSES:
            raise UsageError(
                f"password class {self.level:02X}H is not a password but ciphertext or a MAC of the meter's security "
                "module (ESAM)",
                remedy="such a write needs a key server; a meter that takes plaintext passwords has levels 0 to 9",
            )
        if not 0 <= self.level <= _MAX_LEVEL:
            raise UsageError(f"there is no password level {self.level}", remedy="write 0 (highest) to 9")
        _check(self.password, 6, "a password of DL/T 645-2007")
        _check(self.operator, 8, "an operator")

    @property
    def key(self) -> bytes:
        """`PA P0 P1 P2` as sent."""
        return bytes((self.level,)) + bytes.fromhex(self.password)[::-1]

    @property
    def sent(self) -> bytes:
        """`PA P0 P1 P2 C0 C1 C2 C3` as sent."""
        return self.key + bytes.fromhex(self.operator)[::-1]

    @property
    def shown(self) -> bytes:
        """As `sent`, with FF in the password's place: what may be recorded."""
        return self.shown_key + bytes.fromhex(self.operator)[::-1]

    @property
    def shown_key(self) -> bytes:
        """As `key`, with FF in the password's place."""
        return bytes((self.level,)) + b"\xff" * 3


@dataclass(frozen=True, slots=True)
class Password:
    """Password of 1997: eight hex digits as they are written, the first two sent last."""

    digits: str = field(repr=False)

    def __post_init__(self) -> None:
        _check(self.digits, 8, "a password of DL/T 645-1997")

    @property
    def sent(self) -> bytes:
        """The four bytes as sent."""
        return bytes.fromhex(self.digits)[::-1]

    @property
    def shown(self) -> bytes:
        """As `sent`, with FF in its place: what may be recorded."""
        return b"\xff" * 4


def _check(text: str, digits: int, what: str) -> None:
    if not re.fullmatch(f"[0-9A-Fa-f]{{{digits}}}", text):
        raise UsageError(f"{what} has {digits} hex digits, this one is written otherwise", remedy=f"write {digits}")


def explained(error: Refused, auth: Auth | None) -> Refused:
    """`error`, the refusal of a write, with what it can mean and what to do; the error word alone often can't tell."""
    if error.code is None or not error.code & WRONG_PASSWORD:
        return Refused(
            error.problem.what,
            code=error.code,
            where=error.problem.where,
            remedy="many meters take writes only after their programming key was pressed; check what was written",
        )
    if auth is None:
        remedy = "check the password; many meters want their programming key pressed first"
        return Refused(error.problem.what, code=error.code, where=error.problem.where, remedy=remedy)
    means = f"either the password of level {auth.level:02d} is wrong, or the programming key was not pressed"
    if auth.level in (2, 4):
        means += (
            ", or the meter has a security module (ESAM): such a meter refuses plaintext passwords of levels 02 and 04 "
            "with this same word, right or wrong"
        )
        remedy = (
            "do not try other passwords, the meter may lock; check the password with its keeper. If it is right, the "
            "meter is of the ESAM kind: it can be read, but written to only in classes 98H and 99H with a key server"
        )
    else:
        remedy = (
            "do not try other passwords, the meter may lock; check level and password with their keeper. Refusals by "
            "security modules (ESAM) are known for levels 02 and 04"
        )
    return Refused(f"{error.problem.what}: {means}", code=error.code, where=error.problem.where, remedy=remedy)

"""One exception tree. Every error says what is wrong, where, and what an operator should do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "BadFrame",
    "ConfigError",
    "HeadendError",
    "LineDown",
    "NoAccess",
    "NoAnswer",
    "Problem",
    "ProtocolError",
    "Refused",
    "StoreError",
    "Unsupported",
    "UsageError",
    "WrongMeter",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file or an input: where it stands, what is wrong, what to do."""

    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} -> {self.remedy}" if self.remedy else text


class HeadendError(Exception):
    """Base of all errors meant for a person; `remedy` is what to do next."""

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.problem = Problem(where, what, remedy)

    def __str__(self) -> str:
        return str(self.problem)


class UsageError(HeadendError):
    """A command was asked for something that does not exist or makes no sense."""


class ConfigError(HeadendError):
    """Configuration or an import file is not usable; carries every problem found, not just the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))

    def __str__(self) -> str:
        return "\n".join(str(p) for p in self.problems)


class StoreError(HeadendError):
    """The database can't be opened, is of another version, or refused a write."""


class ProtocolError(HeadendError):
    """A conversation with a meter did not give what was asked for."""


class NoAnswer(ProtocolError):
    """Nothing, or nothing usable, came before the timeout."""


class BadFrame(ProtocolError):
    """Bytes came, but no frame in them passes its checks or means anything."""


class WrongMeter(ProtocolError):
    """A whole frame came from another address than the one asked."""


class Refused(ProtocolError):
    """The meter answered and said no; `code` is its error word as received."""

    def __init__(self, what: str, *, code: int | None = None, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.code = code


class NoAccess(ProtocolError):
    """The meter does not let us in, or does not prove itself: a wrong password, key, counter, title or client."""


class Unsupported(ProtocolError):
    """The meter, its model or its protocol has no way to give what was asked."""


class LineDown(HeadendError):
    """The line's port can't be opened, or closed under the conversation."""

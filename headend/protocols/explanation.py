"""What a captured frame says, in words: the answer of every protocol's `explain`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Explanation", "Field", "Value"]


@dataclass(frozen=True, slots=True)
class Field:
    """One stretch of a frame: its name, what it says, and its bytes as they went over the wire."""

    name: str
    text: str
    hex: str


@dataclass(frozen=True, slots=True)
class Value:
    """One decoded value.

    value: its text; None when the meter marked it as not there or it can't be read (`note` says which). obis and di
    are "" where there is none. note: what is worth knowing beside the value.
    """

    name: str
    name_zh: str
    value: str | None
    unit: str
    obis: str
    di: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What some bytes mean.

    ok: they hold a whole frame that passes its checks. problems: everything odd about them, a sentence each; a frame
    can be ok and still odd (an unknown identifier, a refusal).
    """

    ok: bool
    summary: str
    fields: tuple[Field, ...] = ()
    values: tuple[Value, ...] = ()
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as plain dicts and lists."""
        return asdict(self)

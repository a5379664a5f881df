"""Names of things in a meter: logical names (OBIS) and attributes (IEC 62056-6-1, -6-2)."""

from __future__ import annotations

import re
from typing import NamedTuple

from headend.errors import UsageError

__all__ = ["Attribute", "obis_bytes", "obis_short", "obis_text"]

_DOTTED = re.compile(r"(\d+)\.(\d+)\.(\d+)\.(\d+)\.(\d+)(?:\.(\d+))?", re.ASCII)
_SHORT = re.compile(r"(\d+)-(\d+):(\d+)\.(\d+)(?:\.(\d+))?(?:[*&.](\d+))?", re.ASCII)


class Attribute(NamedTuple):
    """One attribute of one object. obis: six bytes."""

    class_id: int
    obis: bytes
    index: int  # type: ignore[assignment]  # hides the method of tuple, which nobody needs here

    def __str__(self) -> str:
        return f"{self.class_id}/{obis_text(self.obis)}/{self.index}"


def obis_bytes(text: str) -> bytes:
    """Six bytes of `1.0.1.8.0.255` or `1-0:1.8.0*255`; a missing last group is 255. Raises `UsageError`."""
    found = _DOTTED.fullmatch(text.strip()) or _SHORT.fullmatch(text.strip())
    groups = [255 if group is None else int(group) for group in found.groups()] if found else []
    if len(groups) != 6 or max(groups) > 255:
        raise UsageError(f"{text!r} is no OBIS code", remedy="write six numbers 0 to 255 as 1.0.1.8.0.255")
    return bytes(groups)


def obis_text(obis: bytes) -> str:
    """`1.0.1.8.0.255`."""
    return ".".join(map(str, obis))


def obis_short(obis: bytes) -> str:
    """`1-0:1.8.0`, and `1-0:1.8.0*101` where the last group is not 255."""
    a, b, c, d, e, f = obis
    return f"{a}-{b}:{c}.{d}.{e}" + ("" if f == 255 else f"*{f}")

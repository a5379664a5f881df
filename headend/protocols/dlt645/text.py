"""Times as they lie on the wire, as text."""

from __future__ import annotations

import re

__all__ = ["LETTERS", "wire_time"]

LETTERS = re.compile(r"YY|MM|DD|hh|mm|ss|WW|NN")


def wire_time(fmt: str, data: bytes) -> str:
    """A time written highest part first in `fmt` (`YYMMDDWWhhmmss`), as `2018-12-29 18:53:32`."""
    parts = dict(zip(LETTERS.findall(fmt), (f"{byte:02X}" for byte in data[::-1]), strict=False))
    year = f"20{parts['YY']}" if "YY" in parts else ""
    date = "-".join(p for p in (year, parts.get("MM", ""), parts.get("DD", "")) if p)
    time = ":".join(parts[p] for p in ("hh", "mm", "ss") if p in parts)
    rest = ", ".join(
        text
        for key, text in (("WW", f"weekday {parts.get('WW')}"), ("NN", f"number {parts.get('NN')}"))
        if key in parts
    )
    return ", ".join(p for p in (f"{date} {time}".strip(), rest) if p)

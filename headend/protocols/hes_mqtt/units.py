"""From an OBIS code, a unit and a scaler to a quantity of ours and the store's numbers. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from headend.errors import UsageError
from headend.quantities import QUANTITIES, quantity

__all__ = ["quantity_of_obis", "store_factors"]

_PREFIXES: Final = {"": 0, "m": -3, "k": 3, "M": 6, "G": 9}
_BASES: Final = ("Wh", "varh", "VAh", "W", "var", "VA", "V", "A", "Hz", "°C", "s", "")
_ALIASES: Final = {"C": "°C", "℃": "°C", "1": "", "none": ""}
_OBIS: Final = re.compile(r"(?:(\d{1,3})-(\d{1,3}):)?(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:[.*]255)?")
_STORE_EXPONENT: Final = 4  # the store counts ten-thousandths
_EXPONENTS: Final = range(-12, 16)  # beyond it an int64 holds no value that matters


def _by_obis() -> dict[str, str]:
    found: dict[str, str] = {}
    for known in QUANTITIES.values():
        if known.obis:
            found.setdefault(known.obis, known.name)
    return found


_BY_OBIS: Final = _by_obis()


@lru_cache(maxsize=1024)
def quantity_of_obis(text: str) -> str | None:
    """The quantity an OBIS code names, None when it is none of ours: `1-0:1.8.0`, `1.8.0`, `1-0:1.8.0.255`, `...*255`.

    Other storage (F not 255) is another value, and none of ours.
    """
    match = _OBIS.fullmatch(text)
    if match is None:
        return None
    a, b, c, d, e = match.groups()
    medium = "1-0" if a is None else f"{int(a)}-{int(b)}"
    return _BY_OBIS.get(f"{medium}:{int(c)}.{int(d)}.{int(e)}")


@lru_cache(maxsize=1024)
def _unit(text: str) -> tuple[str, int] | None:
    """Base unit and power of ten of a unit; None for one nobody knows."""
    text = _ALIASES.get(text, text)
    for base in _BASES:
        if text == base or (base and text.endswith(base)):
            power = _PREFIXES.get(text[: len(text) - len(base)])
            if power is not None:
                return base, power
    if text.lower() in ("kwh", "kvarh", "kvah", "wh", "varh", "vah"):  # written in capitals by many
        proper = {"wh": "Wh", "varh": "varh", "vah": "VAh"}[text.lower().removeprefix("k")]
        return proper, 3 if text.lower().startswith("k") else 0
    return None


@lru_cache(maxsize=4096)
def store_factors(name: str, unit: str, scaler: int) -> tuple[int, int]:
    """What a whole number of 10**`scaler` `unit` is multiplied by, and then divided by, to give ten-thousandths of the
    unit of quantity `name`.

    Raises `UsageError` saying what is unknown. Where the numbers are finer than the store's ten-thousandths the divisor
    is not 1: such a value is taken if it divides exactly.
    """
    ours = _unit(quantity(name).unit)
    theirs = _unit(unit)
    if theirs is None:
        raise UsageError(f"unknown unit {unit[:20]!r}", remedy="use Wh, varh, VAh, W, var, VA, V, A, Hz with m, k, M")
    if ours is None or theirs[0] != ours[0]:
        raise UsageError(f"{name} is not measured in {unit!r}", remedy=f"its unit is {quantity(name).unit or 'none'}")
    exponent = scaler + theirs[1] - ours[1] + _STORE_EXPONENT
    if exponent not in _EXPONENTS:
        raise UsageError(f"scaler {scaler} with unit {unit!r} is beyond what can be stored of {name}")
    return 10 ** max(exponent, 0), 10 ** max(-exponent, 0)

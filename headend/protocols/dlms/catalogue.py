"""What an OBIS code names, in words: from `obis.csv`, and by the numbering rules where it is not written out there.

Which quantity of ours an object is, and its scaler, is in objects.py. Here are names only; a channel (group B) or a
period back (group F) is always said, for neither is the current value of the meter itself.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final

from headend.protocols.dlms.cosem import obis_bytes, obis_short, obis_text

__all__ = ["CLASSES", "ObisItem", "find", "historical", "items", "name_of"]

CURRENT: Final = 255

CLASSES: Final[dict[int, str]] = {
    1: "data",
    3: "register",
    4: "extended register",
    5: "demand register",
    6: "register activation",
    7: "profile generic",
    8: "clock",
    9: "script table",
    11: "special days table",
    12: "association SN",
    15: "association LN",
    17: "SAP assignment",
    18: "image transfer",
    19: "IEC local port setup",
    20: "activity calendar",
    21: "register monitor",
    22: "single action schedule",
    23: "IEC HDLC setup",
    24: "IEC twisted pair setup",
    25: "M-Bus slave port setup",
    27: "modem configuration",
    28: "auto answer",
    29: "auto connect",
    40: "push setup",
    41: "TCP-UDP setup",
    42: "IPv4 setup",
    44: "PPP setup",
    45: "GPRS modem setup",
    47: "GSM diagnostic",
    48: "IPv6 setup",
    61: "register table",
    62: "compact data",
    63: "status mapping",
    64: "security setup",
    65: "parameter monitor",
    68: "arbitrator",
    70: "disconnect control",
    71: "limiter",
    72: "M-Bus client",
    111: "account",
    112: "credit",
    113: "charge",
    115: "token gateway",
    122: "function control",
    124: "communication port protection",
}

# Group C of electricity (A = 1) for the sum of phases; 20, 40, 60 more for L1, L2, L3. With group D they name a value.
_MEASURED: Final[dict[int, tuple[str, str]]] = {
    1: ("active {} import", "W"),
    2: ("active {} export", "W"),
    3: ("reactive {} import", "var"),
    4: ("reactive {} export", "var"),
    5: ("reactive {} Q1", "var"),
    6: ("reactive {} Q2", "var"),
    7: ("reactive {} Q3", "var"),
    8: ("reactive {} Q4", "var"),
    9: ("apparent {} import", "VA"),
    10: ("apparent {} export", "VA"),
    11: ("current", "A"),
    12: ("voltage", "V"),
    13: ("power factor", ""),
    14: ("frequency", "Hz"),
    15: ("active {} absolute (|A+|+|A-|)", "W"),
    16: ("active {} net (A+ - A-)", "W"),
}
_PROCESSED: Final[dict[int, str]] = {
    2: "cumulative maximum demand",
    3: "minimum",
    4: "current average demand",
    5: "last average demand",
    6: "maximum demand",
    7: "power",
    8: "energy",
    9: "energy of the billing period",
    24: "average",
    25: "last average",
    27: "current average",
    29: "energy of the interval",
}
_ENERGY: Final = frozenset({8, 9, 29})
_WITHOUT_POWER: Final = frozenset({11, 12, 13, 14})
_PHASES: Final = ("", " L1", " L2", " L3")
_MAX_C: Final = 80
_MAX_RATE: Final = 63


@dataclass(frozen=True, slots=True)
class ObisItem:
    """One object. obis: as `1.0.1.8.0.255`. attribute: the one that holds its value. unit: the usual one, "" none."""

    obis: str
    name: str
    name_zh: str
    class_id: int
    attribute: int
    group: str
    unit: str
    type: str


@cache
def items() -> dict[bytes, ObisItem]:
    """Every object written out in the catalogue."""
    text = files("config").joinpath("catalogues", "obis.csv").read_text(encoding="utf-8")
    return {obis_bytes(row["obis"]): _item(row) for row in csv.DictReader(text.splitlines())}


def _item(row: dict[str, str]) -> ObisItem:
    return ObisItem(
        row["obis"],
        row["name_en"],
        row["name_zh"],
        int(row["class_id"]),
        int(row["attribute"]),
        row["group"],
        row["unit"],
        row["type"],
    )


def historical(obis: bytes) -> bool:
    """Whether this is a value of a billing period that is over, and so never the current one."""
    return obis[5] != CURRENT


@lru_cache(maxsize=4096)
def find(obis: bytes) -> ObisItem | None:
    """The object with this logical name; None where neither the catalogue nor the numbering knows it."""
    known = items().get(obis)
    if known is not None:
        return known
    if len(obis) != 6:
        return None
    if historical(obis):
        current = find(obis[:5] + bytes((CURRENT,)))
        return None if current is None else _of(current, obis, f", {_period(obis[5])}")
    if obis[1]:
        own = find(bytes((obis[0], 0)) + obis[2:])
        return None if own is None else _of(own, obis, f", channel {obis[1]}")
    return _by_rule(obis)


def _of(item: ObisItem, obis: bytes, addition: str) -> ObisItem:
    return replace(item, obis=obis_text(obis), name=item.name + addition, name_zh="")


def _period(f: int) -> str:
    """Group F in words (IEC 62056-6-1 clause 5.11 and annex B)."""
    if 101 <= f <= 125:
        return "last billing period" if f == 101 else f"{f - 100} billing periods back"
    return f"stored value {f}"


def _by_rule(obis: bytes) -> ObisItem | None:
    """An electricity value whose groups C, D and E name it."""
    a, _, c, d, e, _ = obis
    if a != 1 or not 1 <= c <= _MAX_C or e > _MAX_RATE or d not in _PROCESSED:
        return None
    phase, base = (c - 1) // 20, (c - 1) % 20 + 1
    measured = _MEASURED.get(base)
    if measured is None:
        return None
    pattern, unit = measured
    if base in _WITHOUT_POWER:
        if d in _ENERGY or d == 2:
            return None
        name = pattern if d == 7 else f"{pattern}, {_PROCESSED[d]}"
    elif d in (3, 24, 25, 27):
        name = f"{pattern.format('power')}, {_PROCESSED[d]}"
    else:
        name = pattern.format(_PROCESSED[d])
    name += _PHASES[phase] + (f" rate {e}" if e else "")
    unit += "h" if d in _ENERGY else ""
    group = "energy" if d in _ENERGY else "instantaneous" if d == 7 else "demand"
    return ObisItem(obis_text(obis), name, "", {6: 4, 2: 3, 4: 5, 5: 5}.get(d, 3), 2, group, unit, "")


def name_of(obis: bytes) -> str:
    """`1-0:1.8.0 (active energy import total)`; the code alone where it has no name."""
    if len(obis) != 6:
        return obis.hex().upper()
    item = find(obis)
    return obis_short(obis) + (f" ({item.name})" if item else "")

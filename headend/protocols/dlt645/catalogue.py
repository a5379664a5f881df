"""The data identifiers of DL/T 645-2007 (appendix A and the supplements), from `config/catalogues/dlt645_2007.csv`."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files

__all__ = ["Item", "find", "items"]

_DECIMALS = re.compile(r"[XNx]*\.([XN]+)")


@dataclass(frozen=True, slots=True)
class Item:
    """One data identifier.

    format: the digits as the standard writes them, highest first (the wire has the lowest byte first). size: bytes,
    None when it varies. places: decimals of a number. kind: num, demand, block, bits, time, bcd, ascii, event, load,
    table.
    """

    di: str
    name: str
    name_zh: str
    format: str
    size: int | None
    places: int
    unit: str
    signed: bool
    kind: str
    obis: str
    note: str


def _item(row: dict[str, str]) -> Item:
    decimals = _DECIMALS.search(row["format"])
    return Item(
        di=row["di"],
        name=row["name_en"],
        name_zh=row["name_zh"],
        format=row["format"],
        size=int(row["bytes"]) if row["bytes"].isdigit() else None,
        places=len(decimals[1]) if decimals else 0,
        unit=row["unit"],
        signed=row["signed"] == "Y",
        kind=row["kind"],
        obis=row["obis"],
        note=row["note"],
    )


@cache
def items() -> dict[str, Item]:
    """Every identifier written out in the catalogue."""
    text = files("config").joinpath("catalogues/dlt645_2007.csv").read_text(encoding="utf-8")
    return {row["di"]: _item(row) for row in csv.DictReader(text.splitlines())}


@lru_cache(maxsize=4096)
def find(di: str) -> Item | None:
    """The item with identifier `di`, or None. Freezes further back and rates above 4 follow from the written ones."""
    if (item := items().get(di)) is not None:
        return item
    if di[:2] == "05" and di[6:] not in ("00", "FF"):
        return _nth_freeze(di)
    if di[:2] in ("00", "01") and "05" <= di[4:6] <= "3F":
        return _high_rate(di)
    return None


def _nth_freeze(di: str) -> Item | None:
    first = items().get(di[:6] + "01")
    if first is None:
        return None
    nth = int(di[6:], 16)
    return replace(
        first,
        di=di,
        name=first.name.replace("last 1", f"last {nth}"),
        name_zh=first.name_zh.replace("上1次", f"上{nth}次"),
    )


def _high_rate(di: str) -> Item | None:
    fourth = items().get(f"{di[:4]}04{di[6:]}")
    if fourth is None:
        return None
    rate = int(di[4:6], 16)
    return replace(
        fourth,
        di=di,
        name=fourth.name.replace("rate 4", f"rate {rate}"),
        name_zh=fourth.name_zh.replace("费率4", f"费率{rate}"),
        obis=re.sub(r"\.4$", f".{rate}", fourth.obis),
    )

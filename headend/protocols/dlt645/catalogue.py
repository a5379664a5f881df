"""The data identifiers of DL/T 645, from `dlt645_2007.csv` (eight digits) and `dlt645_1997.csv` (four).

An identifier's length tells its version, so one `find` serves both.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files

__all__ = ["Item", "find", "items", "items_1997", "of_1997"]

_DECIMALS = re.compile(r"[XNx]*\.([XN]+)")


@dataclass(frozen=True, slots=True)
class Item:
    """One data identifier.

    format: the digits as the standard writes them, highest first (the wire has the lowest byte first). size: bytes,
    None when it varies. places: decimals of a number. kind: num, demand, block, bits, time, bcd, ascii, event, load,
    table. maps_to: the 2007 identifier that says the same, 1997 only.
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
    maps_to: str = ""


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
        maps_to=row.get("maps_to_2007", ""),
    )


def _table(name: str) -> dict[str, Item]:
    text = files("config").joinpath("catalogues", name).read_text(encoding="utf-8")
    return {row["di"]: _item(row) for row in csv.DictReader(text.splitlines())}


@cache
def items() -> dict[str, Item]:
    """Every identifier of 2007 written out in the catalogue."""
    return _table("dlt645_2007.csv")


@cache
def items_1997() -> dict[str, Item]:
    """Every identifier of 1997."""
    return _table("dlt645_1997.csv")


@cache
def _by_2007() -> dict[str, str]:
    """1997 identifiers by the 2007 one they map to; of a demand the value, not its time."""
    return {item.maps_to: di for di, item in items_1997().items() if item.maps_to and not _is_demand_time(di)}


def _is_demand_time(di: str) -> bool:
    return di[0] == "B" and di[1] in "014589"


def of_1997(di: str) -> str:
    """The 1997 identifier that says what `di` says in 2007; "" when there is none."""
    return _by_2007().get(di, "")


@lru_cache(maxsize=4096)
def find(di: str) -> Item | None:
    """The item with identifier `di` (eight digits 2007, four 1997), or None.

    Of 2007, freezes and events further back and rates above 4 follow from the written ones.
    """
    if len(di) == 4:
        return items_1997().get(di)
    if (item := items().get(di)) is not None:
        return item
    if di[:2] == "05" and di[6:] not in ("00", "FF"):
        return _nth_freeze(di)
    if di[:2] == "03" and di[6:] != "01":
        return _nth_event(di)
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


def _nth_event(di: str) -> Item | None:
    """The n-th last record of an event; a meter keeps ten."""
    first = items().get(di[:6] + "01")
    if first is None or not "02" <= di[6:] <= "0A":
        return None
    nth = int(di[6:], 16)
    return replace(first, di=di, name=f"{first.name}, {nth} back", name_zh=first.name_zh.replace("上1次", f"上{nth}次"))


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

"""A slave by the register map of a meter model file: a parser of its own, so that both ends can't misread alike.

A value whose name nothing is known of (a baud setting, a serial number) gets a fixed number of its own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from hashlib import shake_128
from pathlib import Path
from typing import Any

from simulators.clock import Now
from simulators.household import Household, Load, Register
from simulators.modbus_codec import encode, words_of
from simulators.modbus_history import Frozen, stamp
from simulators.modbus_history import blocks as history_blocks
from simulators.modbus_meter import Area, ModbusMeter, ModbusSpec, Point
from simulators.modbus_sunspec import Chain, chained
from simulators.modbus_truth import Truth

__all__ = ["ModbusModel", "load", "slave"]

_PREFIXES = {"": 0, "k": 3, "M": 6, "G": 9, "m": -3}
_BASES = ("varh", "VAh", "Wh", "var", "VA", "W", "V", "A", "Hz")
_IN_NAME = {"kwh": "kWh", "kvarh": "kvarh", "kvah": "kVAh", "kw": "kW", "kvar": "kvar", "kva": "kVA"}
_SHORT = {"voltage": "V", "current": "A", "neutral": "A"}
_FACTORS = {"A": -2, "V": -1, "Hz": -2, "%": -2}  # powers of ten a meter would choose; 0 for other units
_DEFAULTED = ("function", "type", "word_order", "byte_order", "invalid", "side")
_BIT_FUNCTIONS = (1, 2)


@dataclass(frozen=True, slots=True)
class ModbusModel:
    """A meter model as a slave: its map, protocol (`modbus-rtu`, `modbus-tcp`), the names it has that are truths of a
    household, and the numbers of the others."""

    name: str
    protocol: str
    spec: ModbusSpec
    truths: tuple[str, ...]
    fixed: Mapping[str, int]
    sunspec: tuple[int, ...] = ()

    @property
    def framing(self) -> str:
        """As a bus calls it."""
        return self.protocol.removeprefix("modbus-")


def load(path: Path, *, chain: Chain | None = None, factors: Mapping[str, int] | None = None) -> ModbusModel:
    """The model in a file of `config/meters`. chain: where SunSpec models lie. factors: powers of ten in scale
    registers by unit, over the usual ones."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    table = raw["modbus"]
    rows = _rows(table, table)
    base = table.get("base", 0)
    sunspec = tuple(table.get("sunspec", ()))
    if sunspec:
        chain = chain or Chain()
        base = chain.model_at
    points, words, bits, fixed = _split(rows, base, {**_FACTORS, **(factors or {})})
    spec = ModbusSpec(
        points=tuple(points),
        areas=tuple(_histories(table)),
        constants=words,
        bits=bits,
        writable=frozenset(row["address"] + base for row in rows if row.get("writable")),
        max_registers=table.get("max_registers", 125),
        holes=table.get("gap", 0),
        fences=frozenset(base + fence for fence in table.get("boundaries", ())),
    )
    if sunspec:
        assert chain is not None
        spec = chained(spec, sunspec[0], chain)
    known = tuple(dict.fromkeys(point.name for point in points))
    return ModbusModel(path.stem, raw["protocol"], spec, known, fixed, sunspec)


def slave(
    model: ModbusModel,
    unit: int,
    now: Now,
    *,
    seed: int = 1,
    start_kwh: int = 1_234,
    roof_wh: int = 4_000,
    ct: int = 1,
    pt: int = 1,
) -> ModbusMeter:
    """A meter of that model at a household with a roof that gives `roof_wh` on a mean day."""
    roof = Register(Household(Load(seed=seed + 500, kind="shop", daily_wh=roof_wh)), start_kwh * 3_000)
    truth = Truth(Register(Household(Load(seed=seed)), start_kwh * 10_000), roof)
    meter = ModbusMeter(model.spec, unit, truth, now, ct=ct, pt=pt)
    for name, address in model.fixed.items():
        if "ratio" in name:
            meter.constants[3, address] = ct if name.startswith("ct") else pt  # whole numbers in all maps so far
    return meter


# -- rows --------------------------------------------------------------------------------------------------------


def _rows(table: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table, each with a name and with what the map says for all of them."""
    common = {key: defaults[key] for key in _DEFAULTED if key in defaults}
    return [{**common, **row, "name": row.get("quantity") or row["name"]} for row in table["register"]]


def _split(
    rows: Iterable[Mapping[str, Any]], base: int, factors: Mapping[str, int]
) -> tuple[list[Point], dict[tuple[int, int], int], dict[tuple[int, int], bool], dict[str, int]]:
    """Points with a truth, words that are fixed, bits, and where each fixed one lies."""
    rows = list(rows)
    where = {row["name"]: row["address"] + base for row in rows}
    powers = {row["scale_register"]: factors.get(row.get("unit", ""), 0) for row in rows if row.get("scale_register")}
    points: list[Point] = []
    words: dict[tuple[int, int], int] = {}
    bits: dict[tuple[int, int], bool] = {}
    fixed: dict[str, int] = {}
    for row in rows:
        address, function = row["address"] + base, row.get("function", 3)
        if function in _BIT_FUNCTIONS:
            bits[function, address] = bool(_chance(row["name"]) & 1)
        elif row["name"] not in powers and (point := _point(row, base, where)) is not None:
            points.append(point)
        else:
            fixed[row["name"]] = address
            data = _fixed(row, powers)
            for at in range(0, len(data), 2):
                words[function, address + at // 2] = int.from_bytes(data[at : at + 2], "big")
    return points, words, bits, fixed


def _chance(name: str) -> int:
    return int.from_bytes(shake_128(name.encode()).digest(1), "big")


def _fixed(row: Mapping[str, Any], powers: Mapping[str, int]) -> bytes:
    """The registers of a value nothing is known of: a text, a power of ten, or a small number of its own."""
    kind, name = row.get("type", "u16"), row["name"]
    if kind == "ascii":
        size = 2 * row["words"]
        return f"TEXT-{_chance(name)}".encode()[:size].ljust(size, b"\0")
    number = 1 if "ratio" in name else powers.get(name, 1 + _chance(name) % 90)
    return encode(
        kind,
        Fraction(number),
        word_order=row.get("word_order", "big"),
        byte_order=row.get("byte_order", "big"),
        words=row.get("words", 1),
    )


def _point(row: Mapping[str, Any], base: int, where: Mapping[str, int]) -> Point | None:
    """The row as a point; None when its name is no truth of a household."""
    name, kind = row["name"], row.get("type", "u16")
    if row.get("bits") or kind in ("ascii", "bool"):
        return None
    try:
        Truth(Register(Household(Load(seed=1)))).value(name, 1_767_225_600)
    except KeyError:
        return None
    factor = row.get("scale_register", "")
    return Point(
        name,
        row.get("function", 3),
        row["address"] + base,
        kind,
        Fraction(str(row.get("scale", "1"))) * _unit_factor(row.get("unit", ""), name),
        row.get("word_order", "big"),
        row.get("byte_order", "big"),
        where[factor] if factor else None,
        row.get("side", "") != "secondary",
        _missing(row, kind),
        words=row.get("words", 1),
        offset=Fraction(str(row.get("offset", "0"))),
    )


def _missing(row: Mapping[str, Any], kind: str) -> bytes:
    """The first of the marks of no value; NaN for a float that has none."""
    marks = row.get("invalid", ())
    size = 2 * words_of(kind, row.get("words", 1))
    if not marks:
        return (b"\x7f\xc0" if kind == "f32" else b"\x7f\xf8").ljust(size, b"\0") if kind in ("f32", "f64") else b""
    bits = 8 * size
    number = {"ones": (1 << bits) - 1, "max": (1 << bits - 1) - 1, "min": 1 << bits - 1, "zero": 0}[marks[0]]
    return number.to_bytes(size, "big")


def _unit_factor(unit: str, name: str) -> Fraction:
    """What a number in `unit` is multiplied with to be in the unit the name ends in."""
    if unit == "%":
        return Fraction(1, 100)
    wanted = next((_IN_NAME[part] for part in reversed(name.split("_")) if part in _IN_NAME), "")
    if not wanted:
        wanted = next((short for word, short in _SHORT.items() if name.startswith(word)), unit)
    here, there = _power(unit), _power(wanted)
    return Fraction(10) ** (here - there)


def _power(unit: str) -> int:
    for base in _BASES:
        if unit.endswith(base) and unit.removesuffix(base) in _PREFIXES:
            return _PREFIXES[unit.removesuffix(base)]
    return 0


# -- frozen blocks -----------------------------------------------------------------------------------------------


def _histories(table: Mapping[str, Any]) -> Iterable[Area]:
    base = table.get("base", 0)
    for kind in ("daily", "monthly"):
        if (raw := table.get(kind)) is None:
            continue
        points, _, _, _ = _split(_rows(raw, table), 0, {})
        frozen = Frozen(
            kind,
            raw["stride"],
            raw["count"],
            tuple(replace(point, primary=not raw.get("ratio")) for point in points),
            raw.get("stamp", "ym-dh"),
        )
        size = raw["stride"] * raw["count"]
        yield Area(raw.get("function", 3), raw["address"] + base, size, partial(history_blocks, frozen))
    if (clock := table.get("clock")) is not None:
        form = clock.get("stamp", "ym-dh-ms")
        size = form.count("-") + 1
        yield Area(
            clock.get("function", 3),
            clock["address"] + base,
            size,
            lambda meter, at_s: stamp(meter.local_s(at_s), form),
        )

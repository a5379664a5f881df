"""`[modbus]` of a meter model: its registers, checked whole. Every problem at once, each at its row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from config.problems import Table, Where, check_table, nearest, refuse, shown
from headend.errors import Problem
from headend.protocols.modbus.model import (
    BITS,
    REGISTERS,
    WORDS,
    ClockRegisters,
    History,
    Marker,
    Order,
    Register,
    RegisterMap,
    Stamp,
    Type,
)
from headend.protocols.modbus.values import factor_between
from headend.quantities import QUANTITIES

__all__ = ["ModbusTable", "RegisterTable", "parse"]

_SPACE: Final = 65_536
_STAMP_WORDS: Final = {"ym-dh": 2, "ym-dh-ms": 3}
_SCALE: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,12})?")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)
_UNSIGNED: Final = ("u16", "u32", "u48", "u64")


def _scale(value: object) -> Decimal:
    """An exact factor: a quoted decimal or a whole number."""
    if isinstance(value, float):
        refuse(f"{value} is a float, which is not exact", f'write it in quotes: "{value}"')
    if isinstance(value, bool) or not isinstance(value, int | str) or not _SCALE.fullmatch(str(value)[:40]):
        refuse(f"{shown(value)} is no decimal number", 'write it in quotes, like "0.01"')
    return Decimal(value)


Exact = Annotated[Decimal, BeforeValidator(_scale)]
Address = Annotated[int, Field(ge=0, lt=_SPACE)]
Function = Annotated[int, Field(ge=1, le=4)]
Side = Literal["", "primary", "secondary"]


class RegisterTable(Table):
    """`[[modbus.register]]`: one value. Either `quantity`, a name of ours, or `name`, the field's word."""

    quantity: str = ""
    name: str = ""
    address: Address = Field(examples=["0x0048"])
    function: Function | None = None
    type: Type | None = None
    words: int | None = Field(default=None, ge=1, le=125)
    unit: str = ""
    scale: Exact = Decimal(1)
    scale_register: str = ""
    offset: Exact = Decimal(0)
    word_order: Order | None = None
    byte_order: Order | None = None
    bits: list[int] | None = Field(default=None, min_length=2, max_length=2, examples=["[0, 4]"])
    invalid: list[Marker] | None = None
    obis: str = ""
    side: Side | None = None
    writable: bool = False
    note: str = ""


class HistoryTable(Table):
    """`[modbus.daily]`, `[modbus.monthly]`: blocks of frozen registers, newest first."""

    address: Address = Field(examples=["0x6000"])
    stride: int = Field(ge=1, le=1000, examples=["34"])
    count: int = Field(ge=1, le=3660, examples=["90"])
    function: Annotated[int, Field(ge=3, le=4)] = 3
    stamp: Stamp = "ym-dh"
    ratio: list[str] = Field(default=[])


class ClockTable(Table):
    """`[modbus.clock]`: where the meter shows its clock."""

    address: Address = Field(examples=["60"])
    function: Annotated[int, Field(ge=3, le=4)] = 3
    stamp: Stamp = "ym-dh-ms"


class ModbusTable(Table):
    """`[modbus]`. function, type, word_order, byte_order, invalid and side hold for rows that do not say otherwise."""

    function: Function = 3
    type: Type | None = None
    word_order: Order = "big"
    byte_order: Order = "big"
    invalid: list[Marker] = Field(default=[])
    side: Side = ""
    max_registers: int = Field(default=125, ge=1, le=125)
    gap: int = Field(default=0, ge=0, le=123)
    boundaries: list[int] = Field(default=[])
    base: Address = 0
    sunspec: list[int] = Field(default=[])
    late_s: float = Field(default=0.5, ge=0, le=60)
    busy_s: float = Field(default=0.5, ge=0, le=60)
    single_write: bool = False
    daily: dict[str, Any] | None = None
    monthly: dict[str, Any] | None = None
    clock: dict[str, Any] | None = None


def parse(table: Mapping[str, Any], where: Where) -> tuple[object | None, list[Problem]]:
    """The `RegisterMap` of a `[modbus]` table, or its problems."""
    shape, problems = check_table(ModbusTable, _without_rows(table), where)
    defaults = shape or _fallback(table)
    registers, wrong = _rows(table, defaults, where)
    problems += wrong
    daily, wrong = _history(table, "daily", defaults, where, registers)
    monthly, also = _history(table, "monthly", defaults, where, registers)
    clock, still = _clock(table, where)
    problems += [*wrong, *also, *still]
    if shape is None:
        return None, problems
    problems += _of_map(shape, registers, where)
    if problems:
        return None, problems
    return RegisterMap(
        tuple(registers.values()),
        max_registers=shape.max_registers,
        gap=shape.gap,
        boundaries=tuple(sorted(shape.boundaries)),
        base=shape.base,
        sunspec=tuple(shape.sunspec),
        late_s=shape.late_s,
        busy_s=shape.busy_s,
        single_write=shape.single_write,
        daily=daily,
        monthly=monthly,
        clock=clock,
    ), []


def _without_rows(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != "register"}


def _fallback(table: Mapping[str, Any]) -> ModbusTable:
    """What rows are checked against when the table they stand in has problems of its own: its sound defaults."""
    sound = {}
    for key, value in _without_rows(table).items():
        if key in ModbusTable.model_fields and check_table(ModbusTable, {key: value}, str)[0] is not None:
            sound[key] = value
    return ModbusTable.model_validate(sound)


# -- rows --------------------------------------------------------------------------------------------------------------


def _rows(table: Mapping[str, Any], defaults: ModbusTable, where: Where) -> tuple[dict[int, Register], list[Problem]]:
    """The registers of a table by the number of their row, from 1; rows with problems are left out."""
    rows = table.get("register", [])
    if not isinstance(rows, list) or not rows:
        remedy = 'write [[modbus.register]] with quantity = "import_kwh", address = 0x0048 and so on'
        return {}, [Problem(where("register"), "there are no registers", remedy)]
    registers: dict[int, Register] = {}
    problems: list[Problem] = []
    names: dict[str, int] = {}
    for number, raw in enumerate(rows, start=1):
        place = _place(where, f"register[{number}]")
        row, wrong = check_table(RegisterTable, raw, place)
        problems += wrong
        if row is None:
            continue
        found = list(_of_row(row, defaults, place))
        name = row.quantity or row.name
        if name and names.setdefault(name, number) != number:
            first = f"register[{names[name]}]"
            found.append(Problem(place(""), f"{name} stands in {first} already", "name each register once"))
        problems += found
        if not found:
            registers[number] = _register(row, defaults)
    return registers, problems


def _register(row: RegisterTable, defaults: ModbusTable) -> Register:
    kind = row.type or defaults.type or "u16"
    quantity = QUANTITIES.get(row.quantity)
    factor = Decimal(1) if quantity is None else factor_between(row.unit, quantity.unit)
    assert factor is not None, "checked before"
    bits = None if row.bits is None else (row.bits[0], row.bits[1])
    return Register(
        name=row.quantity or row.name,
        address=row.address,
        function=row.function or defaults.function,
        type=kind,
        words=WORDS.get(kind, row.words or 1),
        quantity=row.quantity,
        unit=row.unit,
        scale=row.scale,
        scale_register=row.scale_register,
        offset=row.offset,
        factor=factor,
        word_order=row.word_order or defaults.word_order,
        byte_order=row.byte_order or defaults.byte_order,
        bits=bits,
        invalid=tuple(defaults.invalid if row.invalid is None else row.invalid),
        obis=row.obis or ("" if quantity is None else quantity.obis),
        side=defaults.side if row.side is None else row.side,
        writable=row.writable,
        note=row.note,
    )


def _of_row(row: RegisterTable, defaults: ModbusTable, place: Where) -> Iterator[Problem]:
    yield from _naming(row, place)
    kind = row.type or defaults.type
    function = row.function or defaults.function
    if kind is None:
        yield Problem(place("type"), "the type is missing", "write type here, or once under [modbus] for all rows")
        return
    if (kind == "bool") != (function in BITS):
        yield Problem(place("type"), f"function {function} does not read {kind}", "1 and 2 read bool, 3 and 4 the rest")
    fixed = WORDS.get(kind)
    if fixed is None and row.words is None:
        yield Problem(place("words"), f"how many registers a {kind} takes is missing", "write words = 8")
    if fixed is not None and row.words not in (None, fixed):
        yield Problem(place("words"), f"a {kind} takes {fixed}, not {row.words}", "leave it out")
    words = fixed or row.words or 1
    if row.address + words > _SPACE:
        yield Problem(place("address"), f"{words} registers from {row.address} go beyond 65535", "correct the address")
    if function in REGISTERS and words > defaults.max_registers:
        yield Problem(place("words"), f"{words} are more than max_registers", "raise max_registers")
    if row.scale == 0:
        yield Problem(place("scale"), "0 makes every value 0", "write what a count is worth")
    if row.writable and function != 3:
        yield Problem(place("writable"), f"registers of function {function} can't be written", "leave it out")
    if row.bits is not None:
        low, count = row.bits
        if kind not in _UNSIGNED:
            yield Problem(place("bits"), f"bits of a {kind} mean nothing", "use an unsigned type")
        elif low < 0 or count < 1 or low + count > 16 * words:
            yield Problem(place("bits"), f"{row.bits} is not within {16 * words} bits", "write lowest bit and how many")


def _naming(row: RegisterTable, place: Where) -> Iterator[Problem]:
    if bool(row.quantity) == bool(row.name):
        remedy = 'write quantity = "import_kwh", or name = "..." where we have no quantity for it'
        yield Problem(place(""), "a register has either a quantity or a name", remedy)
        return
    if row.name:
        if row.name in QUANTITIES:
            yield Problem(place("name"), f"{row.name} is a quantity", f'write quantity = "{row.name}"')
        elif not _NAME.fullmatch(row.name):
            yield Problem(place("name"), f"{shown(row.name)} is no name", "use small letters, digits and _")
        return
    quantity = QUANTITIES.get(row.quantity)
    if quantity is None:
        yield Problem(place("quantity"), f"unknown quantity {shown(row.quantity)}", nearest(row.quantity, QUANTITIES))
    elif factor_between(row.unit, quantity.unit) is None:
        what = f"{shown(row.unit)} does not measure {row.quantity}, which is in {quantity.unit or 'no unit'}"
        yield Problem(place("unit"), what, f'write unit = "{quantity.unit}" and what a count is worth as scale')


# -- the whole ---------------------------------------------------------------------------------------------------------


def _of_map(shape: ModbusTable, registers: Mapping[int, Register], where: Where) -> Iterator[Problem]:
    names = {one.name: one for one in registers.values()}
    for number, one in registers.items():
        place = _place(where, f"register[{number}]")
        yield from _scale_register(one, names, place)
        inside = [edge for edge in shape.boundaries if one.address < edge < one.end]
        if inside:
            yield Problem(place("address"), f"lies across the boundary {inside[0]}", "correct one of them")
        if shape.base + one.end > _SPACE:
            yield Problem(place("address"), f"with base {shape.base} it goes beyond 65535", "lower base")
    yield from _overlaps(registers, where)
    for position, edge in enumerate(shape.boundaries, start=1):
        if not 0 < edge < _SPACE:
            yield Problem(where(f"boundaries[{position}]"), f"{edge} is no address a boundary lies before", "remove it")
    for position, number in enumerate(shape.sunspec, start=1):
        if not 1 <= number < _SPACE - 1:
            yield Problem(where(f"sunspec[{position}]"), f"{number} is no SunSpec model", "write 201, 202, 203 ...")


def _scale_register(one: Register, names: Mapping[str, Register], place: Where) -> Iterator[Problem]:
    if not one.scale_register:
        return
    scale = names.get(one.scale_register)
    if scale is None:
        what = f"there is no register {shown(one.scale_register)}"
        yield Problem(place("scale_register"), what, nearest(one.scale_register, names))
    elif scale.words != 1 or scale.scale_register or scale.type not in ("s16", "u16"):
        yield Problem(place("scale_register"), f"{scale.name} is no power of ten", "it must be an s16 of its own")


def _overlaps(registers: Mapping[int, Register], where: Where) -> Iterator[Problem]:
    """Two rows over the same registers; parts of one register by bits may share it."""
    spans = sorted(registers.items(), key=lambda item: (item[1].function, item[1].address, item[1].end))
    for (first, one), (second, other) in pairwise(spans):
        if one.function != other.function or other.address >= one.end:
            continue
        if one.bits is not None and other.bits is not None and (one.address, one.end) == (other.address, other.end):
            continue
        what = f"{other.name} at {other.address} overlaps {one.name} of register[{first}], which ends before {one.end}"
        yield Problem(where(f"register[{second}].address"), what, "correct an address or a type")


def _history(
    table: Mapping[str, Any], key: str, defaults: ModbusTable, where: Where, registers: Mapping[int, Register]
) -> tuple[History | None, list[Problem]]:
    if key not in table:
        return None, []
    place = _place(where, key)
    raw = table[key] if isinstance(table[key], dict) else {}
    shape, problems = check_table(HistoryTable, _without_rows(raw), place)
    kept, wrong = _rows(raw, defaults, place)
    problems += wrong
    if shape is None:
        return None, problems
    problems += _of_history(shape, kept, place)
    names = {one.name: one for one in registers.values()}
    for position, name in enumerate(shape.ratio, start=1):
        if name not in names:
            remedy = nearest(name, names)
            problems.append(Problem(place(f"ratio[{position}]"), f"there is no register {shown(name)}", remedy))
    rows = tuple(kept.values())
    count, stamp, ratio = shape.count, shape.stamp, tuple(shape.ratio)
    return History(shape.address, shape.stride, count, rows, shape.function, stamp, ratio), problems


def _of_history(shape: HistoryTable, kept: Mapping[int, Register], place: Where) -> Iterator[Problem]:
    if shape.address + shape.stride * shape.count > _SPACE:
        yield Problem(place("count"), f"{shape.count} blocks go beyond 65535", "lower count, stride or address")
    stamp = _STAMP_WORDS[shape.stamp]
    for number, one in kept.items():
        row = f"register[{number}]"
        if one.address < stamp:
            what = f"{one.name} lies in the time, which takes the first {stamp} registers of a block"
            yield Problem(place(f"{row}.address"), what, "addresses count from the block's start")
        if one.end > shape.stride:
            what = f"{one.name} lies behind the block's end"
            yield Problem(place(f"{row}.address"), what, f"a block has {shape.stride} registers (stride)")
        if not one.quantity:
            yield Problem(place(row), "what is frozen is stored, so it has a quantity", "write quantity, or remove it")
        if one.scale_register or one.function in BITS:
            yield Problem(place(row), "frozen registers have no scale register and are no bits", "correct the row")
    yield from _overlaps(kept, place)


def _clock(table: Mapping[str, Any], where: Where) -> tuple[ClockRegisters | None, list[Problem]]:
    if "clock" not in table:
        return None, []
    shape, problems = check_table(ClockTable, table["clock"], _place(where, "clock"))
    return None if shape is None else ClockRegisters(shape.address, shape.function, shape.stamp), problems


def _place(where: Where, table: str) -> Where:
    """Where a key of a table within this one stands."""
    return lambda key: where(f"{table}.{key}" if key else table)

"""What a Modbus meter keeps where: its registers, how they are written, and what one read may ask for.

Modbus says how registers are carried, not what they mean: every maker has a map of his own. A map is data, `[modbus]`
of a meter model's file, and this is its shape. Addresses count from 0, as they go over the wire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal

from headend.errors import UsageError
from headend.model import Meter

__all__ = [
    "BITS",
    "REGISTERS",
    "WORDS",
    "ClockRegisters",
    "History",
    "Marker",
    "Order",
    "Register",
    "RegisterMap",
    "Stamp",
    "Type",
    "map_of",
]

Type = Literal[
    "u16", "s16", "u32", "s32", "u48", "s48", "u64", "s64", "sm16", "sm32", "f32", "f64",
    "bcd16", "bcd32", "bcd48", "bcd64", "mod10", "ascii", "bool",
]  # fmt: skip
Order = Literal["big", "little"]
Marker = Literal["ones", "max", "min", "zero"]
Stamp = Literal["ym-dh", "ym-dh-ms"]
Side = Literal["", "primary", "secondary"]

WORDS: Final[Mapping[str, int]] = {
    "u16": 1, "s16": 1, "u32": 2, "s32": 2, "u48": 3, "s48": 3, "u64": 4, "s64": 4, "sm16": 1, "sm32": 2,
    "f32": 2, "f64": 4, "bcd16": 1, "bcd32": 2, "bcd48": 3, "bcd64": 4, "bool": 1,
}  # fmt: skip
"""Registers a value of each type takes; `mod10` and `ascii` say themselves how many. `sm`: sign bit and magnitude."""

BITS: Final = (1, 2)
REGISTERS: Final = (3, 4)
"""Functions that read bits (coils, discrete inputs) and registers (holding, input)."""


@dataclass(frozen=True, slots=True)
class Register:
    """One value of a meter.

    name: a quantity of ours where there is one (`quantity`), else the field's own word. words: registers it takes, of
    functions 1 and 2 one bit. scale: what a count is worth in `unit`; scale_register: name of the register that holds
    the power of ten beside it (SunSpec). offset: added after scaling. factor: from `unit` to the quantity's unit.
    bits: lowest bit and how many of them, None the whole. invalid: bit patterns that mean no value: all ones, the
    largest or smallest signed number, zero. side: of the instrument transformers the value is on, "" not said; values
    are stored as they are, the installation's multiplier is applied once, when billing. note: what is not sure.
    """

    name: str
    address: int
    function: int = 3
    type: Type = "u16"
    words: int = 1
    quantity: str = ""
    unit: str = ""
    scale: Decimal = Decimal(1)
    scale_register: str = ""
    offset: Decimal = Decimal(0)
    factor: Decimal = Decimal(1)
    word_order: Order = "big"
    byte_order: Order = "big"
    bits: tuple[int, int] | None = None
    invalid: tuple[Marker, ...] = ()
    obis: str = ""
    side: Side = ""
    writable: bool = False
    note: str = ""

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.address + self.words


@dataclass(frozen=True, slots=True)
class History:
    """Blocks of frozen registers, newest first: the n-th at `address` + n * `stride`, its time in front.

    count: how many blocks the meter keeps. stamp: `ym-dh` is year since 2000 and month, day and hour, a byte each;
    `ym-dh-ms` minute and second behind them. registers: their addresses count from the block's start. ratio: names of
    registers whose product brings the frozen values to the side of the current ones (transformer ratios).
    """

    address: int
    stride: int
    count: int
    registers: tuple[Register, ...]
    function: int = 3
    stamp: Stamp = "ym-dh"
    ratio: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClockRegisters:
    """Where the meter shows its clock, in its clock zone's time."""

    address: int
    function: int = 3
    stamp: Stamp = "ym-dh-ms"


@dataclass(frozen=True, slots=True)
class RegisterMap:
    """A meter's registers and what may be asked at once.

    max_registers: of one read. gap: registers nobody asked for that a read may carry along between two wanted ones.
    boundaries: addresses no read may reach across. base: added to every address. sunspec: ids of the models of which
    one is looked for in the meter's SunSpec chain; addresses then count from that model's id. late_s: silence kept on
    an RTU line after a timeout, the longest a meter may still take to answer the request given up. busy_s: wait before
    a meter that said it is busy is asked again. single_write: one register is written with function 6, else with 16.
    """

    registers: tuple[Register, ...]
    max_registers: int = 125
    gap: int = 0
    boundaries: tuple[int, ...] = ()
    base: int = 0
    sunspec: tuple[int, ...] = ()
    late_s: float = 0.5
    busy_s: float = 0.5
    single_write: bool = False
    daily: History | None = None
    monthly: History | None = None
    clock: ClockRegisters | None = None
    by_name: Mapping[str, Register] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {one.name: one for one in self.registers})

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of everything here that is a quantity of ours, in the order of the map."""
        return tuple(one.name for one in self.registers if one.quantity)


def map_of(meter: Meter) -> RegisterMap:
    """The meter's registers. Raises `UsageError` for a meter whose model has none."""
    details = meter.details if meter.details is not None else meter.model.details
    if not isinstance(details, RegisterMap):
        raise UsageError(
            f"the meter model {meter.model.name} has no [modbus] registers",
            where=f"meter {meter.id}",
            remedy="give the meter a model of its protocol",
        )
    return details

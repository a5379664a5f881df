"""The meters behind a concentrator, and the truth about them: what every column of every message really is.

Values are whole numbers of ten-thousandths of a column's base unit (kWh, kW, V, A, Hz), known at any instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from simulators import momentary
from simulators.household import KINDS, UNITS_PER_CENT, WRAP_CENTS, Household, Load, Register

__all__ = ["COLUMNS", "ENERGY", "OBIS", "ColumnSpec", "ConMeter", "Truth", "fleet", "value_units"]

OBIS = {
    "1-0:1.8.0": "kWh",
    "1-0:1.8.1": "kWh",
    "1-0:1.8.2": "kWh",
    "1-0:1.8.3": "kWh",
    "1-0:1.8.4": "kWh",
    "1-0:2.8.0": "kWh",
    "1-0:1.7.0": "kW",
    "1-0:16.7.0": "kW",
    "1-0:32.7.0": "V",
    "1-0:31.7.0": "A",
    "1-0:14.7.0": "Hz",
}
"""What these meters can say, and in what unit."""

_PREFIXES = {"": 0, "k": 3, "M": 6, "m": -3}
_BASES = ("Wh", "W", "V", "A", "Hz")


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """A column as it is sent: value = integer * 10**scaler `unit`."""

    obis: str
    unit: str
    scaler: int

    def integer(self, units: int) -> int:
        """What is sent for a value of `units` ten-thousandths of the base unit; rounded towards zero."""
        exponent = -4 + _power(OBIS[self.obis]) - _power(self.unit) - self.scaler
        factor: int = 10 ** abs(exponent)
        return units * factor if exponent >= 0 else units // factor

    def value(self, integer: int) -> Decimal:
        """The sent integer as a number of the base unit."""
        return Decimal(integer).scaleb(self.scaler + _power(self.unit) - _power(OBIS[self.obis]))


def _power(unit: str) -> int:
    for base in _BASES:
        if unit.endswith(base):
            return _PREFIXES[unit[: -len(base)]]
    raise ValueError(f"{unit!r} is no unit of these meters")


COLUMNS = (ColumnSpec("1-0:1.8.0", "kWh", -2),)
"""The total register, as a display shows it."""
ENERGY = tuple(ColumnSpec(f"1-0:{code}", "kWh", -2) for code in ("1.8.0", "1.8.1", "1.8.2", "1.8.3", "1.8.4", "2.8.0"))
"""Six registers: total, four rates, export."""


@dataclass(slots=True)
class ConMeter:
    """One meter behind a concentrator. clock_offset_s: its clock minus the concentrator's. silent: does not answer the
    concentrator, so its rows say `missing`. relay_open: the supply is cut. relay_stuck: acknowledges and does not
    move."""

    address: str
    register: Register
    clock_offset_s: int = 0
    silent: bool = False
    relay_open: bool = False
    relay_stuck: bool = False

    def units(self, obis: str, at_s: int) -> int:
        """The true value at `at_s` (epoch seconds)."""
        return value_units(self.register, obis, at_s)


@dataclass(frozen=True, slots=True)
class Truth:
    """One value as it was sent: which meter's, what, of when, how much (in the base unit), of which kind of message.
    true_at_s: when it was so in truth; not `at_s` where the concentrator's clock was wrong."""

    address: str
    obis: str
    at_s: int
    value: Decimal
    kind: str
    true_at_s: int


def value_units(register: Register, obis: str, at_s: int) -> int:
    """Ten-thousandths of the base unit of `OBIS`. Energy rolls over where a display does."""
    if obis == "1-0:1.8.0":
        return register.units(at_s) % (WRAP_CENTS * UNITS_PER_CENT)
    if obis.startswith("1-0:1.8."):
        return register.units_rates(at_s)[int(obis[-1]) - 1] % (WRAP_CENTS * UNITS_PER_CENT)
    if obis in ("1-0:1.7.0", "1-0:16.7.0"):
        return momentary.active(register, at_s)
    if obis == "1-0:32.7.0":
        return momentary.voltage(register, at_s) * 1000
    if obis == "1-0:31.7.0":
        return momentary.current(register, at_s) * 10
    if obis == "1-0:14.7.0":
        return 500_000 + (at_s // 60 * 7_919 + register.household.load.seed) % 41 * 10 - 200
    if obis == "1-0:2.8.0":
        return 0
    raise KeyError(f"{obis} is nothing that these meters know")


def fleet(
    count: int,
    *,
    seed: int = 1,
    first: int = 1,
    pattern: str = "{n:012d}",
    installed_day: int = 20_089,
    kinds: Sequence[str] = KINDS,
) -> list[ConMeter]:
    """`count` meters of different households, numbered from `first` by `pattern`."""
    found = []
    for n in range(first, first + count):
        household = seed * 1_000_003 + n
        kind = kinds[household % len(kinds)]
        load = Load(household, kind, 4_000 + household * 7_919 % 9_000, installed_day)
        start_units = household * 104_729 % 300_000_000
        found.append(ConMeter(pattern.format(n=n), Register(Household(load), start_units)))
    return found

"""Units of COSEM registers (Blue Book, table 4): what a code means, and how its values become ours.

A register's value is its number times ten to the power of its scaler, in its unit. Ours are kWh, kW and so on, with
`Decimal` all the way: nothing is rounded here.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from headend.errors import Unsupported

__all__ = ["UNITS", "UNIT_NONE", "in_unit", "scaled", "unit_name"]

UNIT_NONE: Final = 255  # a number without unit

# Symbol by code, as far as the table is settled in all editions.
UNITS: Final[dict[int, str]] = {
    1: "a",
    2: "mo",
    3: "wk",
    4: "d",
    5: "h",
    6: "min",
    7: "s",
    8: "°",
    9: "°C",
    10: "currency",
    11: "m",
    12: "m/s",
    13: "m³",
    14: "m³ (corrected)",
    15: "m³/h",
    16: "m³/h (corrected)",
    17: "m³/d",
    18: "m³/d (corrected)",
    19: "l",
    20: "kg",
    21: "N",
    22: "Nm",
    23: "Pa",
    24: "bar",
    25: "J",
    26: "J/h",
    27: "W",
    28: "VA",
    29: "var",
    30: "Wh",
    31: "VAh",
    32: "varh",
    33: "A",
    34: "C",
    35: "V",
    36: "V/m",
    37: "F",
    38: "Ω",
    39: "Ωm²/m",
    40: "Wb",
    41: "T",
    42: "A/m",
    43: "H",
    44: "Hz",
    45: "1/Wh",
    46: "1/varh",
    47: "1/VAh",
    48: "V²h",
    49: "A²h",
    50: "kg/s",
    51: "S",
    52: "K",
    53: "1/V²h",
    54: "1/A²h",
    55: "1/m³",
    56: "%",
    57: "Ah",
    60: "Wh/m³",
    61: "J/m³",
    62: "mol %",
    63: "g/m³",
    64: "Pa s",
    65: "J/kg",
    66: "g/cm²",
    67: "atm",
    70: "dBm",
    71: "dBµV",
    72: "dB",
    254: "other",
    255: "",
}

# How many of ours one COSEM unit is, by (COSEM symbol, our unit).
_FACTOR: Final[dict[tuple[str, str], Decimal]] = {
    ("Wh", "kWh"): Decimal("0.001"),
    ("varh", "kvarh"): Decimal("0.001"),
    ("VAh", "kVAh"): Decimal("0.001"),
    ("W", "kW"): Decimal("0.001"),
    ("var", "kvar"): Decimal("0.001"),
    ("VA", "kVA"): Decimal("0.001"),
    ("%", ""): Decimal("0.01"),
    ("K", "°C"): Decimal(1),  # less 273.15, see in_unit
    ("min", "s"): Decimal(60),
    ("h", "s"): Decimal(3600),
}
_KELVIN_OF_0_C: Final = Decimal("273.15")
MAX_SCALER: Final = 32  # beyond it a scaler is damage


def unit_name(code: int) -> str:
    """The symbol of a unit code; `unit 99` for a code the table does not have."""
    return UNITS.get(code, f"unit {code}")


def scaled(raw: int | Decimal, scaler: int) -> Decimal:
    """`raw` times ten to the power of `scaler`, exactly."""
    if abs(scaler) > MAX_SCALER:
        raise Unsupported(f"a scaler of {scaler} is no meter's", remedy="set the object's scaler in the meter model")
    number = Decimal(raw)
    if not number.is_finite():
        raise Unsupported(f"{number} is no value")
    return number.scaleb(scaler)


def in_unit(raw: int | Decimal, scaler: int, code: int, unit: str) -> Decimal:
    """`raw` with its scaler and unit code, as a number of our `unit`, exactly.

    Raises `Unsupported` when the units don't measure the same: then the mapping of the object is wrong.
    """
    number = scaled(raw, scaler)
    symbol = UNITS.get(code)
    if symbol is None:
        raise Unsupported(f"unit code {code} is unknown", remedy="set the object's unit in the meter model")
    if symbol == unit:
        return number
    factor = _FACTOR.get((symbol, unit))
    if factor is None:
        raise Unsupported(
            f"the meter gives {symbol or 'a bare number'} where {unit or 'a bare number'} is due",
            remedy="map the object to another quantity, or set its unit in the meter model",
        )
    return number - _KELVIN_OF_0_C if symbol == "K" else number * factor

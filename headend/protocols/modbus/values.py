"""Registers to numbers and back, exactly: no value passes through a float that is not one in the meter.

Floats. A float32 counter is coarse: 1/128 kWh at 131,072 kWh, 64 Wh at a million kWh given in kWh, and no decoding can
bring back what the meter left out. What is taken for the value is the shortest decimal that is that float and no other
(as displays show it): a meter that counts hundredths of a kWh is then read to the hundredth, for as long as its float
can tell hundredths apart. It is rounded half to even to the store's 0.0001; `step` says how coarse the float is.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Final

from headend.errors import BadFrame, UsageError
from headend.protocols.modbus.model import Register

__all__ = ["decode", "encode", "exponent", "factor_between", "in_store_units", "missing", "step", "text_of"]

_EXACT: Final = Context(prec=60)
_STORE: Final = Decimal("0.0001")
_LARGEST: Final = Decimal(2**63 - 1).scaleb(-4)
_PREFIXES: Final[Mapping[str, int]] = {"": 0, "k": 3, "M": 6, "G": 9, "m": -3}
_BASE_UNITS: Final = ("Wh", "varh", "VAh", "W", "var", "VA", "V", "A", "Hz", "s")
_SF_LIMIT: Final = 10


def factor_between(unit: str, wanted: str) -> Decimal | None:
    """What a number in `unit` is multiplied with to be in `wanted`; None when they measure different things."""
    if unit == wanted:
        return Decimal(1)
    if {unit, wanted} == {"%", ""}:
        return Decimal("0.01") if unit == "%" else Decimal(100)
    if {unit, wanted} == {"min", "s"}:
        return Decimal(60) if unit == "min" else None
    here, there = _split(unit), _split(wanted)
    if here is None or there is None or here[1] != there[1]:
        return None
    return Decimal(1).scaleb(here[0] - there[0])


def _split(unit: str) -> tuple[int, str] | None:
    """Power of ten and base of a unit: `kWh` is 3 and `Wh`."""
    for base in _BASE_UNITS:
        prefix = unit.removesuffix(base)
        if unit.endswith(base) and prefix in _PREFIXES:
            return _PREFIXES[prefix], base
    return None


# -- registers to numbers ----------------------------------------------------------------------------------------------


def decode(one: Register, data: bytes, power: int = 0) -> Decimal | str | None:
    """The value in `one.unit`, a text for `ascii`; None where the meter marks it as not there.

    data: the bytes as they came. power: of ten, from the scale register. Raises `BadFrame` for bytes no meter writes.
    """
    if one.type == "bool":
        return Decimal(data[0] & 1)
    plain = _big(one, data)
    if one.type == "ascii":
        return plain.split(b"\0")[0].decode("ascii", "replace").strip()
    if missing(one, plain):
        return None
    raw = _number(one, plain)
    if raw is None:
        return None
    if one.bits is not None:
        low, count = one.bits
        raw = Decimal(int(raw) >> low & (1 << count) - 1)
    value = _EXACT.multiply(raw, one.scale)
    return _EXACT.add(_EXACT.scaleb(value, power), one.offset)


def _big(one: Register, data: bytes) -> bytes:
    """The bytes, highest first."""
    if len(data) != 2 * one.words:
        raise BadFrame(f"{one.name}: {len(data)} bytes, {2 * one.words} are due")
    if one.word_order == "little":
        data = b"".join(data[at : at + 2] for at in range(len(data) - 2, -1, -2))
    if one.byte_order == "little":
        data = b"".join(data[at : at + 2][::-1] for at in range(0, len(data), 2))
    return data


def missing(one: Register, plain: bytes) -> bool:
    """Whether the bytes, highest first, are one of the marks of no value."""
    if not one.invalid:
        return False
    bits = 8 * len(plain)
    number = int.from_bytes(plain, "big")
    patterns = {"ones": (1 << bits) - 1, "max": (1 << bits - 1) - 1, "min": 1 << bits - 1, "zero": 0}
    return any(number == patterns[mark] for mark in one.invalid)


def _number(one: Register, plain: bytes) -> Decimal | None:
    kind = one.type
    if kind == "f32":
        return _short_float32(plain)
    if kind == "f64":
        number: float = struct.unpack(">d", plain)[0]
        return Decimal(repr(number)) if math.isfinite(number) else None
    if kind.startswith("bcd"):
        digits = plain.hex()
        if not digits.isdecimal():
            raise BadFrame(f"{one.name}: {digits.upper()} is no BCD number")
        return Decimal(digits)
    if kind == "mod10":
        return _mod10(one, plain)
    if kind.startswith("sm"):
        whole = int.from_bytes(plain, "big")
        sign = 1 << 8 * len(plain) - 1
        return Decimal(sign - whole if whole & sign else whole)
    return Decimal(int.from_bytes(plain, "big", signed=kind.startswith("s")))


def _mod10(one: Register, plain: bytes) -> Decimal:
    """Every register counts to 9999, the highest first."""
    total = 0
    for at in range(0, len(plain), 2):
        part = int.from_bytes(plain[at : at + 2], "big")
        if part > 9999:
            raise BadFrame(f"{one.name}: {part} in a register that counts to 9999")
        total = total * 10_000 + part
    return Decimal(total)


def _short_float32(plain: bytes) -> Decimal | None:
    """The shortest decimal that only this float32 is nearest to; None for NaN and infinities."""
    number: float = struct.unpack(">f", plain)[0]
    if not math.isfinite(number):
        return None
    for digits in range(6, 10):
        text = f"{number:.{digits}g}"
        try:
            if struct.pack(">f", float(text)) == plain:
                return Decimal(text)
        except OverflowError:
            continue  # rounded up past the largest float32
    return Decimal(number)


def step(one: Register, data: bytes) -> Decimal | None:
    """The distance to the next number the meter's float could hold, in `one.unit`; None for other types."""
    if one.type not in ("f32", "f64"):
        return None
    plain = _big(one, data)
    size, form = (4, ">f") if one.type == "f32" else (8, ">d")
    number: float = struct.unpack(form, plain)[0]
    if not math.isfinite(number):
        return None
    bits = int.from_bytes(plain, "big") & (1 << 8 * size - 1) - 1
    following: float = struct.unpack(form, (bits + 1).to_bytes(size, "big"))[0]
    if not math.isfinite(following):
        return None
    return _EXACT.multiply(_EXACT.subtract(Decimal(following), Decimal(abs(number))), abs(one.scale))


def exponent(one: Register, data: bytes) -> int | None:
    """The power of ten a scale register holds; None where it is marked as not there. Raises `BadFrame` beyond ±10."""
    value = decode(one, data)
    if value is None:
        return None
    if isinstance(value, str) or abs(value) > _SF_LIMIT:
        raise BadFrame(f"{one.name}: {value} is no scale factor")
    return int(value)


def in_store_units(one: Register, value: Decimal) -> Decimal:
    """The value in its quantity's unit, rounded half to even to 0.0001. `BadFrame` beyond what the store holds."""
    converted = _EXACT.multiply(value, one.factor)
    if abs(converted) > _LARGEST:
        raise BadFrame(f"{one.name}: {converted:.6E} is beyond what any meter counts to")
    return converted.quantize(_STORE, ROUND_HALF_EVEN, _EXACT)


def text_of(value: Decimal | str | None) -> str | None:
    """The value as people write it: no exponent, no trailing zeros behind the point."""
    if value is None or isinstance(value, str):
        return value
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# -- numbers to registers ----------------------------------------------------------------------------------------------


def encode(one: Register, value: Decimal | str) -> bytes:
    """The registers that hold `value` (in `one.unit`). Raises `UsageError` when they can't, exactly."""
    plain = _ascii(one, str(value)) if one.type == "ascii" else _plain(one, value)
    if one.byte_order == "little":
        plain = b"".join(plain[at : at + 2][::-1] for at in range(0, len(plain), 2))
    if one.word_order == "little":
        plain = b"".join(plain[at : at + 2] for at in range(len(plain) - 2, -1, -2))
    return plain


def _ascii(one: Register, text: str) -> bytes:
    if not text.isascii() or len(text) > 2 * one.words:
        raise UsageError(f"{one.name} holds {2 * one.words} ASCII characters", remedy="write a shorter text")
    return text.encode("ascii").ljust(2 * one.words, b"\0")


def _plain(one: Register, value: Decimal | str) -> bytes:
    if one.bits is not None or one.scale_register or one.type == "bool":
        raise UsageError(f"{one.name} can't be written alone")
    try:
        raw = _EXACT.divide(_EXACT.subtract(Decimal(value), one.offset), one.scale)
    except InvalidOperation:
        raise UsageError(f"{value!r} is no number", remedy=f"write {one.name} as a number") from None
    if one.type in ("f32", "f64"):
        try:
            return struct.pack(">f" if one.type == "f32" else ">d", float(raw))
        except OverflowError:
            raise _too_large(one, value) from None
    if not raw.is_finite() or raw != raw.to_integral_value():
        raise UsageError(f"{one.name} can't be {value}", remedy=f"its steps are {one.scale} {one.unit}".rstrip())
    return _whole(one, int(raw), value)


def _whole(one: Register, raw: int, value: Decimal | str) -> bytes:
    size = 2 * one.words
    try:
        if one.type.startswith("bcd"):
            digits = f"{raw:0{2 * size}d}"
            return bytes.fromhex(digits) if len(digits) == 2 * size and raw >= 0 else _refuse(one, value)
        if one.type == "mod10":
            digits = f"{raw:0{4 * one.words}d}"
            if len(digits) > 4 * one.words or raw < 0:
                _refuse(one, value)
            parts = (int(digits[at : at + 4]) for at in range(0, len(digits), 4))
            return b"".join(part.to_bytes(2, "big") for part in parts)
        if one.type.startswith("sm"):
            sign = 1 << 8 * size - 1
            if abs(raw) >= sign:
                _refuse(one, value)
            return (abs(raw) | (sign if raw < 0 else 0)).to_bytes(size, "big")
        return raw.to_bytes(size, "big", signed=one.type.startswith("s"))
    except OverflowError:
        raise _too_large(one, value) from None


def _refuse(one: Register, value: Decimal | str) -> bytes:
    raise _too_large(one, value)


def _too_large(one: Register, value: Decimal | str) -> UsageError:
    return UsageError(f"{one.name} can't hold {value}", remedy=f"its type is {one.type}")

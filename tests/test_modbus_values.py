"""Registers to numbers: every type and order, exactly; written by a second hand and read back."""

from __future__ import annotations

import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headend.errors import BadFrame, UsageError
from headend.protocols.modbus.model import Marker, Order, Register, Type
from headend.protocols.modbus.values import decode, encode, exponent, factor_between, in_store_units, step, text_of

ORDERS: tuple[tuple[Order, Order], ...] = (("big", "big"), ("little", "big"), ("big", "little"), ("little", "little"))


def _one(kind: Type, words: int, **more: Any) -> Register:
    return Register("x", 0, type=kind, words=words, **more)


# One 32-bit number in the four orders data sheets call ABCD, CDAB, BADC, DCBA.
@pytest.mark.parametrize(
    ("orders", "raw"),
    [*zip(ORDERS, ("075BCD15", "CD15075B", "5B0715CD", "15CD5B07"), strict=True)],
)
def test_the_four_orders(orders: tuple[Order, Order], raw: str) -> None:
    one = _one("u32", 2, word_order=orders[0], byte_order=orders[1])
    assert decode(one, bytes.fromhex(raw)) == 123_456_789
    assert encode(one, Decimal(123_456_789)) == bytes.fromhex(raw)


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("u16", "FFFF", 65_535),
        ("s16", "FFFF", -1),
        ("sm16", "8310", -784),  # kbialek/deye-inverter-mqtt, sign and magnitude
        ("sm32", "80000001", -1),
        ("u32", "FFFFFFFF", 2**32 - 1),
        ("s32", "80000000", -(2**31)),
        ("u48", "000100000000", 2**32),
        ("s48", "FFFFFFFFFFFE", -2),
        ("u64", "FFFFFFFFFFFFFFFF", 2**64 - 1),
        ("s64", "FFFFFFFFFFFFFF9C", -100),
        ("bcd16", "1234", 1234),
        ("bcd32", "00123456", 123_456),
        ("bcd48", "000000000099", 99),
        ("bcd64", "9999999999999999", 10**16 - 1),
        ("mod10", "000100020003", 100_020_003),
        ("bool", "01", 1),
    ],
)
def test_whole_numbers(kind: Type, raw: str, value: int) -> None:
    one = _one(kind, 1 if kind == "bool" else len(raw) // 4)
    assert decode(one, bytes.fromhex(raw)) == value
    if kind != "bool":
        assert encode(one, Decimal(value)) == bytes.fromhex(raw)


def test_texts() -> None:
    one = _one("ascii", 4)
    assert decode(one, b"SDM630\0\0") == "SDM630"
    assert encode(one, "SDM630") == b"SDM630\0\0"
    with pytest.raises(UsageError, match="8 ASCII characters"):
        encode(one, "SDM630 V2")


@pytest.mark.parametrize(("kind", "raw"), [("bcd32", "0012345A"), ("mod10", "00002710")])
def test_what_no_meter_writes_is_no_number(kind: Type, raw: str) -> None:
    with pytest.raises(BadFrame, match="x: "):
        decode(_one(kind, 2), bytes.fromhex(raw))


def test_another_length_is_no_number() -> None:
    with pytest.raises(BadFrame, match="2 bytes, 4 are due"):
        decode(_one("u32", 2), b"\0\0")


def test_bits_of_a_register() -> None:
    assert decode(_one("u16", 1, bits=(4, 3)), bytes.fromhex("00D5")) == 0b101
    assert decode(_one("u16", 1, bits=(0, 16)), bytes.fromhex("00D5")) == 0xD5


# -- floats ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("43663334", "230.20001"),  # Eastron SDM protocol, the example of its manual: 230.2
        ("449A51EC", "1234.56"),
        ("48000000", "131072"),
        ("48000001", "131072.02"),  # 131072 + 1/64 kWh: the next float
        ("3DCCCCCD", "0.1"),
        ("00000000", "0"),
        ("80000000", "0"),
        ("C2C80000", "-100"),
        ("7F7FFFFF", "3.4028235E+38"),
        ("43663333", "230.2"),
    ],
)
def test_a_float_is_the_shortest_decimal_that_is_it(raw: str, text: str) -> None:
    value = decode(_one("f32", 2), bytes.fromhex(raw))
    assert value == Decimal(text)


@pytest.mark.parametrize("raw", ["7FC00000", "FFC00000", "7F800000", "FF800000", "7F800001"])
def test_no_number_of_a_float_is_no_value(raw: str) -> None:
    assert decode(_one("f32", 2), bytes.fromhex(raw)) is None
    assert step(_one("f32", 2), bytes.fromhex(raw)) is None


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_float32_is_told_from_its_neighbours(number: float) -> None:
    raw = struct.pack(">f", number)
    value = decode(_one("f32", 2), raw)
    assert isinstance(value, Decimal)
    assert struct.pack(">f", float(value)) in {raw, struct.pack(">f", abs(number))}
    assert len(value.normalize().as_tuple().digits) <= 9


@given(st.integers(0, 13_107_200))
def test_hundredths_of_a_kwh_come_back_exactly_while_a_float_can_tell_them_apart(hundredths: int) -> None:
    """Up to 131,072.00 kWh the step of a float32 is below 0.01."""
    truth = Decimal(hundredths).scaleb(-2)
    one = _one("f32", 2, quantity="import_kwh", unit="kWh")
    value = decode(one, struct.pack(">f", float(truth)))
    assert isinstance(value, Decimal)
    assert in_store_units(one, value) == truth


@given(st.floats(min_value=0, max_value=1e9, width=32))
def test_what_is_stored_is_within_half_a_step_of_the_float(number: float) -> None:
    one = _one("f32", 2, quantity="import_kwh", unit="kWh")
    raw = struct.pack(">f", number)
    value, size = decode(one, raw), step(one, raw)
    assert isinstance(value, Decimal)
    assert size is not None
    stored = in_store_units(one, value)
    assert abs(Fraction(stored) - Fraction(number)) <= Fraction(size) / 2 + Fraction(1, 20_000)
    assert stored == stored.quantize(Decimal("0.0001"))


# Facts measured on floats: 1/64 kWh at 131,072 kWh, 64 Wh at a million kWh told in Wh.
@pytest.mark.parametrize(
    ("number", "text"),
    [(131_072.0, "0.015625"), (1e9, "64"), (0.5, "0.000000059604644775390625"), (8192.0, "0.0009765625")],
)
def test_how_coarse_a_float_is(number: float, text: str) -> None:
    assert step(_one("f32", 2), struct.pack(">f", number)) == Decimal(text)


def test_doubles_and_counters_with_a_scale() -> None:
    assert decode(_one("f64", 4, scale=Decimal("0.001")), struct.pack(">d", 1234567.25)) == Decimal("1234.56725")
    assert step(_one("u32", 2), b"\0\0\0\1") is None


@pytest.mark.parametrize(
    ("text", "stored"), [("0.00005", "0"), ("0.00015", "0.0002"), ("0.00025", "0.0002"), ("1", "1")]
)
def test_the_store_rounds_half_to_even(text: str, stored: str) -> None:
    assert in_store_units(_one("u32", 2), Decimal(text)) == Decimal(stored)


def test_more_than_the_store_holds_is_no_value() -> None:
    one = _one("f64", 4)
    value = decode(one, struct.pack(">d", 1e300))
    assert isinstance(value, Decimal)
    with pytest.raises(BadFrame, match="beyond what any meter counts to"):
        in_store_units(one, value)


# -- marks of no value -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words", "invalid", "raw", "missing"),
    [
        ("u64", 4, ("ones",), "FFFFFFFFFFFFFFFF", True),  # ABB: not available, unsigned
        ("s32", 2, ("max",), "7FFFFFFF", True),  # ABB: not available, signed
        ("s32", 2, ("max",), "FFFFFFFF", False),  # -1 is a value
        ("s16", 1, ("min",), "8000", True),  # SunSpec int16
        ("s16", 1, ("min",), "7FFF", False),
        ("u32", 2, ("zero",), "00000000", True),
        ("u32", 2, (), "FFFFFFFF", False),
    ],
)
def test_marks_of_no_value(kind: Type, words: int, invalid: tuple[Marker, ...], raw: str, missing: bool) -> None:
    assert (decode(_one(kind, words, invalid=invalid), bytes.fromhex(raw)) is None) is missing


def test_a_mark_counts_whatever_the_order() -> None:
    one = _one("s32", 2, word_order="little", invalid=("max",))
    assert decode(one, bytes.fromhex("FFFF7FFF")) is None


# -- scales and units --------------------------------------------------------------------------------------------------


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-10, 10), st.sampled_from(["1", "0.1", "0.001", "5", "-0.01"]))
def test_scales_are_exact(count: int, power: int, scale: str) -> None:
    one = _one("s32", 2, scale=Decimal(scale), offset=Decimal("0.5"))
    value = decode(one, struct.pack(">i", count), power)
    assert isinstance(value, Decimal)
    assert Fraction(value) == count * Fraction(scale) * Fraction(10) ** power + Fraction(1, 2)


@pytest.mark.parametrize(("raw", "power"), [("0003", 3), ("FFFE", -2), ("8000", None)])
def test_scale_factors(raw: str, power: int | None) -> None:
    assert exponent(_one("s16", 1, invalid=("min",)), bytes.fromhex(raw)) == power


def test_a_scale_factor_beyond_ten_is_damage() -> None:
    with pytest.raises(BadFrame, match="11 is no scale factor"):
        exponent(_one("s16", 1), bytes.fromhex("000B"))


@pytest.mark.parametrize(
    ("unit", "wanted", "factor"),
    [
        ("Wh", "kWh", "0.001"),
        ("MWh", "kWh", "1000"),
        ("kWh", "kWh", "1"),
        ("var", "kvar", "0.001"),
        ("VAh", "kVAh", "0.001"),
        ("mA", "A", "0.001"),
        ("%", "", "0.01"),
        ("min", "s", "60"),
        ("V", "A", None),
        ("Wh", "W", None),
        ("varh", "kWh", None),
        ("", "kWh", None),
        ("deg", "kWh", None),
    ],
)
def test_units(unit: str, wanted: str, factor: str | None) -> None:
    assert factor_between(unit, wanted) == (None if factor is None else Decimal(factor))


@pytest.mark.parametrize(("value", "text"), [("1E+3", "1000"), ("1.500", "1.5"), ("0E-5", "0"), ("-0.10", "-0.1")])
def test_numbers_as_people_write_them(value: str, text: str) -> None:
    assert text_of(Decimal(value)) == text


# -- writing -----------------------------------------------------------------------------------------------------------

KINDS: dict[Type, tuple[int, int, int]] = {
    "u16": (1, 0, 2**16 - 1), "s16": (1, -(2**15), 2**15 - 1),
    "u32": (2, 0, 2**32 - 1), "s32": (2, -(2**31), 2**31 - 1),
    "u48": (3, 0, 2**48 - 1), "u64": (4, 0, 2**64 - 1), "s64": (4, -(2**63), 2**63 - 1), "sm16": (1, -32767, 32767),
    "bcd32": (2, 0, 99_999_999), "mod10": (3, 0, 10**12 - 1),
}  # fmt: skip


@given(st.data(), st.sampled_from(sorted(KINDS)), st.sampled_from(ORDERS))
def test_what_is_written_is_read(data: st.DataObject, kind: Type, orders: tuple[Order, Order]) -> None:
    size, low, high = KINDS[kind]
    one = _one(kind, size, scale=Decimal("0.01"), word_order=orders[0], byte_order=orders[1])
    value = Decimal(data.draw(st.integers(low, high))).scaleb(-2)
    assert decode(one, encode(one, value)) == value


@pytest.mark.parametrize(
    ("kind", "words", "value"),
    [("u16", 1, "65536"), ("u16", 1, "-1"), ("s16", 1, "32768"), ("sm16", 1, "-32768"), ("bcd32", 2, "100000000"),
     ("bcd32", 2, "-1"), ("mod10", 2, "-5"), ("u16", 1, "0.5"), ("u16", 1, "abc"), ("f32", 2, "1e99")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(kind: Type, words: int, value: str) -> None:
    with pytest.raises(UsageError):
        encode(_one(kind, words), value)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_floats_are_written_as_they_are_read(number: float) -> None:
    assume(number != 0)
    one = _one("f32", 2)
    raw = struct.pack(">f", number)
    value = decode(one, raw)
    assert isinstance(value, Decimal)
    assert encode(one, value) == raw

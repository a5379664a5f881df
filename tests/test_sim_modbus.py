"""The simulated Modbus slave: frames and numbers against published ones, its registers, what it refuses."""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.modbus_codec import encode, resolution
from simulators.modbus_frame import crc16, mbap, rtu, take_mbap, take_rtu
from simulators.modbus_meter import Area, Identity, ModbusMeter, ModbusSpec
from tests.sim_modbus_kit import NOW_S, POINTS, READ_IMPORT, READ_VOLTAGES, import_of, meter

# -- frames ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        "01040000000271CB",  # Eastron SDM630 Modbus protocol: read L1 voltage
        "010404436633341B38",  # and the answer, 230.2 V
        "01030000000AC5CD",  # published request of 10 holding registers
        "1103006B00037687",  # the example of the specification's function 03, unit 17
    ],
)
def test_published_frames_pass_the_crc(frame: str) -> None:
    data = bytes.fromhex(frame)
    assert crc16(data) == 0
    assert rtu(data[0], data[1:-2]) == data


@given(before=st.binary(max_size=40), pieces=st.integers(1, 20), unit=st.integers(1, 247))
def test_a_request_is_found_behind_anything(before: bytes, pieces: int, unit: int) -> None:
    frame = rtu(unit, READ_VOLTAGES)
    data = before + frame
    buffer = bytearray()
    found = []
    for at in range(0, len(data), pieces):
        buffer += data[at : at + pieces]
        while (request := take_rtu(buffer, {unit})) is not None:
            found.append(request)
    assert found[-1].pdu == READ_VOLTAGES
    assert not buffer


def test_requests_to_others_are_no_requests() -> None:
    buffer = bytearray(rtu(9, READ_VOLTAGES) + rtu(2, READ_IMPORT))
    found = take_rtu(buffer, {1, 2})
    assert found is not None
    assert (found.unit, found.pdu) == (2, READ_IMPORT)
    assert take_rtu(buffer, {1, 2}) is None


def test_a_write_that_never_ends_does_not_hold_up_a_read() -> None:
    begun = bytes.fromhex("01100000007BF6")  # announces 246 bytes
    found = take_rtu(bytearray(begun + rtu(1, READ_IMPORT)), {1})
    assert found is not None
    assert found.pdu == READ_IMPORT


def test_the_buffer_of_a_noisy_line_does_not_grow() -> None:
    buffer = bytearray()
    for _ in range(100):
        buffer += b"\x01\x10\x00\x00\x00\x7b\xf6" * 10
        assert take_rtu(buffer, {1}) is None
    assert len(buffer) <= 256


def test_mbap_frames_come_one_by_one() -> None:
    one, two = mbap(7, 1, READ_IMPORT), mbap(8, 2, READ_VOLTAGES)
    buffer = bytearray(one + two[:5])
    first = take_mbap(buffer)
    assert first is not None
    assert (first.transaction, first.unit, first.pdu) == (7, 1, READ_IMPORT)
    assert take_mbap(buffer) is None
    buffer += two[5:]
    second = take_mbap(buffer)
    assert second is not None
    assert (second.transaction, second.unit, second.pdu) == (8, 2, READ_VOLTAGES)


@pytest.mark.parametrize("header", ["00010001000601", "00010000000101", "0001000000FF01"])
def test_what_is_no_mbap_header_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="no MBAP header"):
        take_mbap(bytearray.fromhex(header))


# -- numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "raw", "orders", "hexed"),
    [
        ("f32", Fraction(2302, 10), ("big", "big"), "43663333"),
        ("u16", Fraction(65535), ("big", "big"), "FFFF"),
        ("s16", Fraction(-2), ("big", "little"), "FEFF"),
        ("u32", Fraction(0x12345678), ("big", "big"), "12345678"),
        ("u32", Fraction(0x12345678), ("little", "big"), "56781234"),
        ("u32", Fraction(0x12345678), ("big", "little"), "34127856"),
        ("u32", Fraction(0x12345678), ("little", "little"), "78563412"),
        ("s32", Fraction(-1), ("big", "big"), "FFFFFFFF"),
        ("u64", Fraction(0x0102030405060708), ("little", "big"), "0708050603040102"),
        ("s64", Fraction(-2), ("big", "big"), "FFFFFFFFFFFFFFFE"),
        ("f64", Fraction(1, 2), ("big", "big"), "3FE0000000000000"),
        ("u48", Fraction(0x010203040506), ("little", "big"), "050603040102"),
        ("bcd32", Fraction(12345678), ("big", "big"), "12345678"),
        ("sm16", Fraction(-2), ("big", "big"), "8002"),
        ("sm32", Fraction(-70_000), ("little", "big"), "11708001"),
        ("sm32", Fraction(70_000), ("big", "big"), "00011170"),
        ("s48", Fraction(-2), ("big", "big"), "FFFFFFFFFFFE"),
        ("bcd48", Fraction(9_0123_4567), ("little", "big"), "456701230009"),
        ("u16", Fraction(99_999), ("big", "big"), "FFFF"),
        ("s16", Fraction(-99_999), ("big", "big"), "8000"),
    ],
)
def test_numbers_in_registers(kind: str, raw: Fraction, orders: tuple[str, str], hexed: str) -> None:
    word_order, byte_order = orders
    assert encode(kind, raw, word_order=word_order, byte_order=byte_order).hex().upper() == hexed


def test_mod10_counts_to_9999_in_each_register() -> None:
    assert encode("mod10", Fraction(12_3456_7890), words=4).hex() == "0000000c0d801ed2"
    assert encode("mod10", Fraction(12_3456_7890), words=4, word_order="little").hex() == "1ed20d80000c0000"


def test_a_counter_rolls_over_and_nothing_else_does() -> None:
    assert encode("u16", Fraction(65_537), wraps=True) == b"\x00\x01"
    assert encode("u16", Fraction(65_537)) == b"\xff\xff"


def test_no_value_is_all_ones_or_what_the_maker_says() -> None:
    assert encode("u32", None) == b"\xff" * 4
    assert encode("s32", None, missing=b"\x7f\xff\xff\xff", word_order="little") == b"\xff\xff\x7f\xff"


@given(st.fractions(min_value=Fraction(1, 1000), max_value=10**9))
def test_the_resolution_of_a_float_is_half_its_last_bit(value: Fraction) -> None:
    shown = Fraction(struct.unpack(">f", encode("f32", value))[0])
    assert abs(shown - value) <= resolution("f32", value) * Fraction(1_000_001, 1_000_000)
    assert abs(shown - value) < value / 2**23


# -- the meter ---------------------------------------------------------------------------------------------------


def test_registers_are_the_households() -> None:
    assert meter(1, seed=1).answer(READ_IMPORT) == import_of(1)
    one = meter()
    voltages = struct.unpack(">3f", one.answer(READ_VOLTAGES)[2:])
    for name, shown in zip(("voltage_v_a", "voltage_v_b", "voltage_v_c"), voltages, strict=True):
        assert abs(float(one.truth.value(name, int(NOW_S))) - shown) < 0.001
    assert len(set(voltages)) == 3


def test_energy_by_phase_and_quadrant_add_up() -> None:
    told = meter().truth

    def value(name: str) -> Fraction:
        return told.value(name, int(NOW_S))

    assert sum(value(f"import_kwh_{p}") for p in "abc") == value("import_kwh")
    assert value("q1_kvarh") + value("q2_kvarh") == value("import_kvarh")
    assert value("q3_kvarh") + value("q4_kvarh") == value("export_kvarh")
    assert sum(value(f"power_kw_{p}") for p in "abc") == value("power_kw")
    with pytest.raises(KeyError):
        value("import_kwh_ab")
    with pytest.raises(KeyError):
        value("humour")


def test_transformers_multiply_the_primary_side_only() -> None:
    plain, ratio = meter(), meter(ct=40, pt=10)
    at_s = int(NOW_S)
    assert ratio.true_value(ratio.point("import_kwh"), at_s) == 400 * plain.truth.value("import_kwh", at_s)
    assert ratio.true_value(ratio.point("voltage_v_a"), at_s) == 10 * plain.truth.value("voltage_v_a", at_s)
    assert ratio.true_value(ratio.point("frequency_hz"), at_s) == plain.truth.value("frequency_hz", at_s)
    secondary = replace(ratio.point("import_kwh"), primary=False)
    assert ratio.true_value(secondary, at_s) == plain.truth.value("import_kwh", at_s)


def test_a_meter_that_was_reset_counts_from_zero() -> None:
    one = meter()
    one.reset()
    assert one.answer(READ_IMPORT) == b"\x04\x04\x00\x00\x00\x00"


def test_a_counter_returns_to_zero_where_its_wrap_is() -> None:
    point = replace(POINTS[5], wrap=100_000)
    one = meter(spec=ModbusSpec((point,)))
    shown = int.from_bytes(one.answer(READ_IMPORT)[2:], "big")
    assert shown == int(one.truth.value("import_kwh", int(NOW_S)) * 100) % 100_000


@pytest.mark.parametrize(
    ("pdu", "code"),
    [
        ("0400000000", 3),  # no registers
        ("040000007E", 3),  # 126 of them
        ("0400060002", 2),  # nothing there
        ("0400040003", 2),  # the last one is not there
        ("04FFFF0002", 2),  # beyond the end
        ("0300000002", 2),  # the other table
        ("0400000001FF", 3),  # too long
        ("0600480001", 2),  # an energy register is not written
        ("1000480002040000", 3),  # byte count and bytes differ
        ("0100000001", 1),  # no coils
        ("2B0D0100", 3),
        ("2B0E0500", 3),
        ("2B0E0463", 2),
        ("63", 1),
    ],
)
def test_what_is_refused(pdu: str, code: int) -> None:
    request = bytes.fromhex(pdu)
    assert meter().answer(request) == bytes((request[0] | 0x80, code))


def test_no_more_registers_at_once_than_the_meter_allows() -> None:
    one = meter(spec=ModbusSpec(POINTS, areas=(Area(4, 0, 100),), max_registers=8))
    assert len(one.answer(bytes.fromhex("0400000008"))) == 18
    assert one.answer(bytes.fromhex("0400000009")) == b"\x84\x03"


def test_holes_fences_and_halves() -> None:
    reach = bytes.fromhex("0400000048")  # from the voltages to the frequency
    assert meter(spec=ModbusSpec(POINTS)).answer(reach) == b"\x84\x02"
    assert len(meter(spec=ModbusSpec(POINTS, holes=64)).answer(bytes.fromhex("0400000047"))) == 144
    open_area = ModbusSpec(POINTS, areas=(Area(4, 0, 200),))
    assert len(meter(spec=open_area).answer(reach)) == 146
    fenced = ModbusSpec(POINTS, areas=(Area(4, 0, 200),), fences=frozenset({70}))
    assert meter(spec=fenced).answer(reach) == b"\x84\x02"
    assert len(meter(spec=fenced).answer(bytes.fromhex("0400000046"))) == 142
    whole = ModbusSpec(POINTS, whole=True)
    assert meter(spec=whole).answer(bytes.fromhex("0400010002")) == b"\x84\x02"
    assert meter(spec=whole).answer(bytes.fromhex("0400480001")) == b"\x84\x02"
    assert meter(spec=whole).answer(READ_IMPORT)[0] == 4


def test_settings_can_be_written_where_they_may() -> None:
    spec = ModbusSpec(POINTS, constants={(3, 142): 1}, writable=frozenset({142}))
    one = meter(spec=spec)
    assert one.answer(bytes.fromhex("06008E0028")).hex() == "06008e0028"
    assert one.answer(bytes.fromhex("03008E0001")).hex() == "03020028"
    assert one.answer(bytes.fromhex("10008E0001020014")).hex() == "10008e0001"
    assert one.answer(bytes.fromhex("03008E0001")).hex() == "03020014"


def test_bits_are_packed_lowest_first() -> None:
    spec = ModbusSpec(bits={(1, address): address % 3 == 0 for address in range(10)})
    assert meter(spec=spec).answer(bytes.fromhex("010000000A")).hex() == "01024902"
    assert meter(spec=spec).answer(bytes.fromhex("010001000A")).hex() == "8102"
    assert meter(spec=spec).answer(bytes.fromhex("020000000A")).hex() == "8202"


def identify(one: ModbusMeter, code: int) -> dict[int, str]:
    """All objects, over as many answers as the meter makes of them."""
    found: dict[int, str] = {}
    start = 0
    for _ in range(20):
        data = one.answer(bytes((0x2B, 14, code, start)))
        assert data[:3] == bytes((0x2B, 14, code))
        at = 7
        for _ in range(data[6]):
            found[data[at]] = data[at + 2 : at + 2 + data[at + 1]].decode()
            at += 2 + data[at + 1]
        assert at == len(data) <= 253
        if data[4] == 0:
            return found
        start = data[5]
    raise AssertionError("it never ends")


def test_identification_in_several_answers() -> None:
    extended = {0x80 + n: f"{n}" * 60 for n in range(9)}
    one = meter(spec=ModbusSpec(POINTS, identity=Identity("Maker", "Type", "2.1", extended)))
    assert identify(one, 1) == {0: "Maker", 1: "Type", 2: "2.1"}
    assert identify(one, 3) == {0: "Maker", 1: "Type", 2: "2.1", **extended}
    assert one.answer(bytes.fromhex("2B0E0401"))[-4:] == b"Type"

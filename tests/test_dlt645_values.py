"""Numbers, times, the catalogue, and any item as text."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.civil import zone
from headend.errors import BadFrame
from headend.protocols.dlt645.bcd import clock, demand, minute_bytes, number, stamp
from headend.protocols.dlt645.catalogue import find, items
from headend.protocols.dlt645.profile import RECORD_FIELDS, parse_records
from headend.protocols.dlt645.values import decode_item
from headend.quantities import QUANTITIES, Kind
from tests.dlt645_wire import bcd

BEIJING = zone("Asia/Shanghai")


@pytest.mark.parametrize(
    ("wire", "places", "signed", "value"),
    [
        ("78563412", 2, False, "123456.78"),  # clause 5: lowest byte first
        ("99999999", 2, False, "999999.99"),
        ("00000085", 2, False, "850000.00"),  # unsigned: a forward register may use the top bit
        ("00000085", 2, True, "-50000.00"),
        ("34129080", 2, True, "-9012.34"),
        ("120080", 4, True, "-0.0012"),
        ("000080", 4, True, "0.0000"),
        ("0522", 1, False, "220.5"),
        ("3412", 1, True, "123.4"),
        ("3492", 1, True, "-123.4"),
    ],
)
def test_numbers(wire: str, places: int, signed: bool, value: str) -> None:
    got = number(bytes.fromhex(wire), places, signed=signed)
    assert got == Decimal(value)
    assert str(got) == value


@given(st.integers(0, 10**8 - 1))
def test_every_eight_digit_register_is_read_exactly(hundredths: int) -> None:
    assert number(bcd(hundredths, 4), 2) == Decimal(hundredths) / 100


@given(st.binary(min_size=1, max_size=6), st.booleans())
def test_a_number_is_digits_or_nothing(data: bytes, signed: bool) -> None:
    top = data[-1] & 0x7F if signed else data[-1]
    nibbles = [n for b in (*data[:-1], top) for n in (b >> 4, b & 15)]
    if set(data) == {0xFF}:
        assert number(data, 2, signed=signed) is None
    elif max(nibbles) > 9:
        with pytest.raises(BadFrame, match="above nine"):
            number(data, 2, signed=signed)
    else:
        assert abs(number(data, 0, signed=signed) or 0) == _digits(data[:-1] + bytes((top,)))


def _digits(data: bytes) -> int:
    value = 0
    for byte in reversed(data):
        value = value * 100 + (byte >> 4) * 10 + (byte & 15)
    return value


@given(st.datetimes(datetime(2000, 1, 2), datetime(2099, 12, 30)))  # noqa: DTZ001
def test_a_minute_survives_the_wire(moment: datetime) -> None:
    instant = moment.replace(second=0, microsecond=0, tzinfo=UTC)
    assert stamp(minute_bytes(instant, BEIJING), BEIJING) == instant


def test_times() -> None:
    assert minute_bytes(datetime(2025, 11, 1, 16, 0, tzinfo=UTC), BEIJING) == bytes.fromhex("0000021125")
    assert stamp(bytes(5), BEIJING) is None
    assert stamp(b"\xff" * 5, BEIJING) is None
    shown = clock(bytes.fromhex("06291218"), bytes.fromhex("325318"), BEIJING)  # vectors 49 and 48
    assert shown == datetime(2018, 12, 29, 10, 53, 32, tzinfo=UTC)


@pytest.mark.parametrize("wire", ["0025021125", "6000021125", "0000321125", "0000021325", "00000A1125", "0000300225"])
def test_what_is_no_time_is_damage(wire: str) -> None:
    with pytest.raises(BadFrame):
        stamp(bytes.fromhex(wire), BEIJING)


def test_demand_has_its_time() -> None:
    value, when = demand(bytes.fromhex("563412 3018150625"), 4, BEIJING)
    assert value == Decimal("12.3456")
    assert when == datetime(2025, 6, 15, 10, 30, tzinfo=UTC)
    assert demand(bytes(8), 4, BEIJING) == (Decimal("0.0000"), None)


# --- the catalogue ------------------------------------------------------------------------------------------------


def test_the_catalogue_knows_every_quantity_we_read() -> None:
    for one in QUANTITIES.values():
        if one.di:
            item = find(one.di)
            assert item is not None, one.name
            assert item.size is not None, one.name


def test_signs_are_where_the_standard_has_them() -> None:
    def signed(di: str) -> bool:
        item = find(di)
        assert item is not None
        return item.signed

    assert all(signed(f"00{zz}0{rate}00") for zz in ("00", "03", "04") for rate in range(5))
    unsigned_energies = ("01", "02", "05", "06", "07", "08", "09", "0A")
    assert not any(signed(f"00{zz}0{rate}00") for zz in unsigned_energies for rate in range(5))
    assert all(signed(di) for di in ("02020100", "02030000", "02040000", "02050000", "02060000", "02800001"))
    assert all(signed(di) for di in ("02800004", "02800007"))
    assert not any(signed(di) for di in ("02010100", "02010200", "02010300", "02800002", "01010000", "01020000"))


def test_sizes_fit_formats() -> None:
    for item in items().values():
        if item.kind == "num" and item.size is not None and set(item.format) <= set("XN."):
            assert len(item.format.replace(".", "")) == 2 * item.size, item.di


def test_freezes_further_back_and_higher_rates_follow() -> None:
    freeze = find("05060109")
    assert freeze is not None
    assert (freeze.name, freeze.di) == ("daily freeze: forward active energy, last 9", "05060109")
    rate = find("00010C00")
    assert rate is not None
    assert (rate.name, rate.obis) == ("forward active energy rate 12, current", "1-0:1.8.12")
    assert find("00014000") is None
    assert find("12345678") is None


# --- any item as text ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("di", "wire", "values"),
    [
        ("00010000", "78563412", ["123456.78"]),
        ("0001FF00", "30360000560200001900000038000000 17330000", ["36.30", "2.56", "0.19", "0.38", "33.17"]),
        ("0001FF00", "30360000 56020000", ["36.30", "2.56"]),
        ("0201FF00", "0522 ffff 9821", ["220.5", None, "219.8"]),
        ("0201FF00", "0522", ["220.5"]),
        ("01010000", "563412 3018150625", ["12.3456"]),
        ("04000503", "5000", ["0050"]),
        ("040005FF", "04000000 5000 0100 0000 0000 4000", ["0004", "0000", "0050", "0001", "0000", "0000", "0040"]),
        ("0400010C", "32531806291218", ["2018-12-29 18:53:32, weekday 06"]),
        ("04000402", "185506600000", ["000060065518"]),
        ("04000404", "56302e303232", ["220.0V"]),
        ("00900200", "56980100", ["198.56"]),
        ("000100FF", "01000000" * 13, ["0.01"] * 13),
        ("02800007", "3482", ["-23.4"]),
        ("05060001", "0000021125", ["2025-11-02 00:00"]),
        ("04000B01", "0001", ["01 00"]),
    ],
)
def test_items_as_text(di: str, wire: str, values: list[str | None]) -> None:
    assert [v.value for v in decode_item(di, bytes.fromhex(wire))] == values


def test_items_of_a_block_are_named_one_by_one() -> None:
    values = decode_item("0001FF00", bytes(24))
    assert values[0].name == "forward active energy total, current"
    assert [v.di for v in values] == [f"00010{r}00" for r in range(6)]
    assert values[5].name == "forward active energy rate 5, current"
    assert [v.name for v in decode_item("0201FF00", bytes(6))] == [f"voltage phase {p}" for p in "ABC"]
    assert [v.name for v in decode_item("05060101", bytes(8))][1].endswith("rate 1")


def test_status_words_tell_their_flags() -> None:
    (word,) = decode_item("04000503", bytes.fromhex("5000"))
    assert (word.value, word.note) == ("0050", "relay_open 继电器断开, relay_commanded_open 继电器命令断开")
    (phase,) = decode_item("04000504", bytes.fromhex("8100"))
    assert phase.note == "phase_a_voltage_loss A相失压, phase_a_phase_failure A相断相"
    every = decode_item("040005FF", bytes.fromhex("04000000 5000 0100 0000 0000 4000"))
    assert [v.note for v in every][::6] == ["clock_battery_low 时钟电池欠压", "demand_over_limit 需量超限"]
    assert every[1].note == "nothing set"


@pytest.mark.parametrize(
    ("di", "wire", "note"),
    [
        ("00010000", "00000e00", "000E0000 has digits above nine"),
        ("00010000", "ffffffff", "not there (all FF)"),
        ("00010000", "0000", "the catalogue says 4"),
        ("00010000", "", "holds no such record"),
        ("0001FF00", "00000000 00", "not a multiple of 4"),
    ],
)
def test_what_can_not_be_read_has_no_value(di: str, wire: str, note: str) -> None:
    (value,) = decode_item(di, bytes.fromhex(wire))
    assert value.value is None
    assert note in value.note


def test_a_curve_as_text() -> None:
    values = decode_item("06100601", bytes.fromhex("0000021125 10000000 ffffffff 25000000"))
    assert [v.value for v in values] == ["2025-11-02 00:00", "0.10", None, "0.25"]
    pair = decode_item("061001FF", bytes.fromhex("0000021125 0122 0222 0322"))
    assert [v.value for v in pair] == ["2025-11-02 00:00", "220.1", "220.2", "220.3"]


def test_a_load_record_as_text() -> None:
    body = bytes.fromhex("a0a01c1510021125") + bytes.fromhex("aaaaaa") + b"\x01\0\0\0" * 4 + b"\xaa" * 3
    body = body[:2] + bytes((len(body) - 3,)) + body[3:]
    record = body + bytes((sum(body) & 0xFF, 0xE5))
    values = decode_item("06040001", record)
    assert [(v.name, v.value) for v in values] == [(f[0], "0.01") for f in RECORD_FIELDS[4]]
    assert values[0].note == "2025-11-02 10:15"


@given(st.sampled_from(sorted(items())), st.binary(max_size=130))
def test_any_bytes_under_any_identifier_are_put_into_words(di: str, data: bytes) -> None:
    values = decode_item(di, data)
    assert values
    assert all(v.value is not None or v.note for v in values)


@given(st.binary(max_size=300), st.integers(0, 6))
def test_any_bytes_as_load_records_never_raise_and_end(data: bytes, wanted: int) -> None:
    assert len(list(parse_records(data, wanted))) <= len(data)


def test_demand_quantities_decode_as_demands() -> None:
    for one in QUANTITIES.values():
        if one.kind is Kind.DEMAND:
            item = find(one.di)
            assert item is not None
            assert item.kind == "demand"

"""The simulated DL/T 645-1997 meter: its answers against the household's truth."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from simulators.clock import SettableClock
from simulators.dlt645_1997 import Dlt645Meter1997
from simulators.dlt645_frame import Request, build, take, wire_address
from simulators.dlt645_meter import MeterSpec
from simulators.household import Household, Load, Register

ZONE = timezone(timedelta(hours=8))
NOW = datetime(2026, 3, 18, 10, 7, 30, tzinfo=ZONE)
ADDRESS = "970101000001"
PASSWORD = "04563412"  # level, then P0 P1 P2 as sent, lowest first
OK = b""


def make(**settings: Any) -> tuple[Dlt645Meter1997, SettableClock]:
    clock = SettableClock(NOW.timestamp())
    register = Register(Household(Load(seed=7, daily_wh=9_000)), 123_456_789)
    settings.setdefault("passwords", ((4, "123456"),))
    settings.setdefault("preamble", 0)
    return Dlt645Meter1997(MeterSpec(ADDRESS, form="1997", **settings), register, clock), clock


def exchange(meter: Dlt645Meter1997, control: int, data: str = "") -> Request | None:
    answer = meter.answer(meter.address, control, bytes.fromhex(data))
    return None if answer is None else take(bytearray(answer))


def tell(meter: Dlt645Meter1997, control: int, data: str = "") -> bytes | int:
    """The data of a normal answer, the error word of a refusal."""
    got = exchange(meter, control, data)
    assert got is not None
    if got.control == 0xC0 | control:
        assert len(got.data) == 1
        return got.data[0]
    assert got.control == 0x80 | control
    return got.data


def read(meter: Dlt645Meter1997, di: str) -> bytes | int:
    data = tell(meter, 0x01, di[2:] + di[:2])
    if isinstance(data, bytes):
        assert data[:2].hex() == (di[2:] + di[:2]).lower()
        return data[2:]
    return data


def number(raw: bytes | int) -> int:
    assert isinstance(raw, bytes)
    return int(raw[::-1].hex())


def numbers(raw: bytes | int, size: int = 4) -> list[int]:
    assert isinstance(raw, bytes)
    assert len(raw) % size == 0
    return [number(raw[at : at + size]) for at in range(0, len(raw), size)]


def test_registers_now_and_of_past_months() -> None:
    meter, clock = make()
    for di, at in (
        ("9010", int(clock())),
        ("9410", int(datetime(2026, 3, 1, tzinfo=ZONE).timestamp())),
        ("9810", int(datetime(2026, 2, 1, tzinfo=ZONE).timestamp())),
    ):
        shown, rates = meter.register.shown(at), list(meter.register.shown_rates(at))
        assert number(read(meter, di)) == shown
        assert numbers(read(meter, di[:3] + "F")) == [shown, *rates]
        assert [number(read(meter, f"{di[:3]}{rate}")) for rate in range(1, 5)] == rates
        reactive = di[0] + str(int(di[1]) + 1)
        assert number(read(meter, reactive + "10")) == number(read(meter, reactive + "30")) == shown * 3 // 10
        assert number(read(meter, reactive + "20")) == number(read(meter, reactive + "40")) == 0
        assert numbers(read(meter, di[:2] + "2F")) == [0] * 5
    assert read(meter, "9000") == read(meter, "9010")


@pytest.mark.parametrize("di", ["9015", "9030", "9170", "9100", "9C10", "9210", "901E", "A011", "B617", "C0FF", "0010"])
def test_what_it_has_not_is_refused(di: str) -> None:
    meter, _ = make()
    assert read(meter, di) == 2


def test_lacks() -> None:
    meter, _ = make(lacks=("C011", "9010"))
    assert read(meter, "C011") == read(meter, "9010") == 2
    assert isinstance(read(meter, "9011"), bytes)


def test_blocks_end_with_aa_where_they_do() -> None:
    meter, _ = make(block_end=True)
    plain, _ = make()
    for di in ("901F", "B61F", "B63F"):
        ended, bare = read(meter, di), read(plain, di)
        assert isinstance(ended, bytes)
        assert ended[-1:] == b"\xaa"
        assert ended[:-1] == bare
    assert read(meter, "9010") == read(plain, "9010")


def test_momentary_values_agree_with_each_other() -> None:
    meter, _ = make()
    volts, amps = number(read(meter, "B611")), number(read(meter, "B621"))
    power, reactive = number(read(meter, "B630")), number(read(meter, "B640"))
    factor = number(read(meter, "B650"))
    assert 215 < volts < 225
    assert power == meter.register.household.power_units(int(NOW.timestamp()))
    apparent = volts * amps / 100  # VA
    assert abs(apparent * factor / 1000 - power / 10) < 0.02 * apparent + 2
    assert abs((power / 10) ** 2 + (reactive * 10) ** 2 - apparent**2) < 0.05 * apparent**2 + 400
    assert read(meter, "B612") == read(meter, "B613") == bytes(2)
    assert numbers(read(meter, "B61F"), 2) == [volts, 0, 0]
    assert numbers(read(meter, "B63F"), 3) == [power, power, 0, 0]


def test_demand_has_its_value_and_its_time_apart() -> None:
    meter, clock = make()
    units, local_s = meter.memory.demand(int(clock()))
    when = datetime.fromtimestamp(local_s - 8 * 3600, ZONE)
    assert number(read(meter, "A010")) == units
    assert read(meter, "B010") == bytes.fromhex(when.strftime("%M%H%d%m"))
    assert tell(meter, 0x10, "04000000") == 4
    assert tell(meter, 0x10, PASSWORD) == OK
    assert (read(meter, "A010"), read(meter, "B010")) == (bytes(3), bytes(4))


def test_clock_is_read_and_set() -> None:
    meter, clock = make(clock_error_s=-30)
    assert read(meter, "C010") == bytes.fromhex("03180326")
    assert read(meter, "C011") == bytes.fromhex("000710")
    assert tell(meter, 0x04, "11c0" + PASSWORD + "455923") == OK
    assert tell(meter, 0x04, "10c0" + PASSWORD + "04201125") == OK
    assert (read(meter, "C010"), read(meter, "C011")) == (bytes.fromhex("04201125"), bytes.fromhex("455923"))
    clock.advance(15)
    assert (read(meter, "C010"), read(meter, "C011")) == (bytes.fromhex("05211125"), bytes(3))


def test_broadcast_time() -> None:
    meter, _ = make(clock_error_s=-120)
    everybody = b"\x99" * 6
    assert meter.answer(everybody, 0x08, bytes.fromhex("300710180326")) is None
    assert read(meter, "C011") == bytes.fromhex("300710")
    assert meter.answer(everybody, 0x08, bytes.fromhex("300810180326")) is None
    assert read(meter, "C011") == bytes.fromhex("300710")
    far, _ = make()
    assert far.answer(everybody, 0x08, bytes.fromhex("311210180326")) is None
    assert read(far, "C011") == bytes.fromhex("300710")


@pytest.mark.parametrize(
    ("data", "err"),
    [
        ("11c0" + "04000000" + "000000", 4),
        ("11c0" + "05563412" + "000000", 4),
        ("11c0", 4),
        ("11c0" + PASSWORD + "000024", 1),
        ("11c0" + PASSWORD + "0000", 1),
        ("17c1" + PASSWORD + "0A01", 1),
        ("1090" + PASSWORD + "00000000", 2),
    ],
)
def test_writes_refused(data: str, err: int) -> None:
    meter, _ = make()
    assert tell(meter, 0x04, data) == err
    assert read(meter, "C011") == bytes.fromhex("300710")


def test_parameters_password_key_and_lock() -> None:
    meter, clock = make(needs_key=True)
    assert tell(meter, 0x04, "33c0" + PASSWORD + "123456789012") == 1
    meter.press_key()
    assert tell(meter, 0x04, "33c0" + PASSWORD + "123456789012") == OK
    assert read(meter, "C033") == bytes.fromhex("123456789012")
    assert tell(meter, 0x0F, PASSWORD + "04111111") == bytes.fromhex("04111111")
    for _ in range(3):
        assert tell(meter, 0x04, "33c0" + PASSWORD + "000000000000") == 4
    assert tell(meter, 0x04, "33c0" + "04111111" + "000000000000") == 4
    clock.advance(86_400)
    assert tell(meter, 0x04, "33c0" + "04111111" + "000000000000") == OK


def test_speed_by_the_table_of_1997() -> None:
    meter, _ = make(baud=1200)
    assert tell(meter, 0x0C, "10") == b"\x10"
    assert meter.baud == 2400
    assert tell(meter, 0x0C, "03") == 1


@pytest.mark.parametrize("pattern", ["AAAAAAAAAAAA", "AAAAAA000001", "AA0101000001", ADDRESS])
def test_wildcards_are_answered_with_the_real_address(pattern: str) -> None:
    meter, _ = make()
    answer = meter.answer(wire_address(pattern), 0x01, b"\x10\x90")
    assert answer is not None
    found = take(bytearray(answer))
    assert found is not None
    assert found.address == wire_address(ADDRESS)


@pytest.mark.parametrize(
    ("address", "control"),
    [("9" * 12, 0x01), ("9" * 12, 0x04), ("970101000002", 0x01), (ADDRESS, 0x81), (ADDRESS, 0x11), (ADDRESS, 0x13)],
)
def test_silence(address: str, control: int) -> None:
    meter, _ = make()
    assert meter.answer(wire_address(address), control, b"\x10\x90") is None


def test_address_99_is_answered_by_meters_that_do() -> None:
    meter, _ = make(hears_99=True)
    assert meter.answer(b"\x99" * 6, 0x01, b"\x10\x90") == meter.answer(meter.address, 0x01, b"\x10\x90")
    assert meter.answer(b"\x99" * 6, 0x0C, b"\x10") is None


def test_a_long_answer_comes_in_pieces_and_a_lost_one_again() -> None:
    meter, _ = make(frame_bytes=10, preamble=2)
    whole = numbers(read(make()[0], "901F"))
    first = exchange(meter, 0x01, "1f90")
    again = exchange(meter, 0x03)
    second = exchange(meter, 0x02, "1f90")
    last = exchange(meter, 0x02, "1f90")
    assert first is not None
    assert again is not None
    assert second is not None
    assert last is not None
    assert [frame.control for frame in (first, again, second, last)] == [0xA1, 0xA3, 0xA2, 0x82]
    assert again.data == first.data
    assert numbers(first.data[2:] + second.data[2:] + last.data[2:]) == whole
    assert tell(meter, 0x02, "1f90") == 2


def test_a_new_address() -> None:
    meter, _ = make()
    new = wire_address("970101000099")
    assert meter.answer(b"\xaa" * 6, 0x0A, new) == build(new, 0x8A)
    assert meter.answer(wire_address(ADDRESS), 0x01, b"\x10\x90") is None
    assert meter.answer(new, 0x0A, b"\x99" * 6) is None


def test_a_meter_that_is_not_installed_yet_had_no_past() -> None:
    clock = SettableClock(datetime(2024, 1, 20, tzinfo=ZONE).timestamp())
    meter = Dlt645Meter1997(MeterSpec(ADDRESS, form="1997", preamble=0), Register(Household(Load(seed=1))), clock)
    assert len(numbers(read(meter, "941F"))) == 5
    assert read(meter, "981F") == bytes(20)
    assert read(meter, "9810") == bytes(4)

"""Writing to the simulated DL/T 645-2007 meter: passwords, clock, freezes, clears, relay, speed, events."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from simulators.bus import Bus, Station, Wire
from simulators.clock import SettableClock
from simulators.dlt645_frame import Request, build, take, wire_address
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.household import Household, Load, Register

ZONE = timezone(timedelta(hours=8))
NOW = datetime(2026, 3, 18, 10, 7, 30, tzinfo=ZONE)
ADDRESS = "240101000001"
EVERYBODY = b"\x99" * 6
# PA and P0 P1 P2 as sent, lowest first; C0..C3.
LEVEL_2, LEVEL_4, OPERATOR = "02563412", "04000000", "01000000"
OK = b""


def make(**settings: Any) -> tuple[Dlt645Meter, SettableClock]:
    """A meter with the passwords 123456 (level 2) and 000000 (level 4)."""
    clock = SettableClock(NOW.timestamp())
    register = Register(Household(Load(seed=99, daily_wh=9_000)), 123_456_789)
    settings.setdefault("passwords", ((2, "123456"), (4, "000000")))
    return Dlt645Meter(MeterSpec(ADDRESS, preamble=0, **settings), register, clock), clock


def exchange(meter: Dlt645Meter, control: int, data: str = "") -> Request | None:
    answer = meter.answer(meter.address, control, bytes.fromhex(data))
    return None if answer is None else take(bytearray(answer))


def tell(meter: Dlt645Meter, control: int, data: str = "") -> bytes | int:
    """The data of a normal answer, the error word of a refusal."""
    got = exchange(meter, control, data)
    assert got is not None
    if got.control == 0xC0 | control:
        assert len(got.data) == 1
        return got.data[0]
    assert got.control == 0x80 | control
    return got.data


def wire_di(di: str) -> str:
    return bytes.fromhex(di)[::-1].hex()


def write(meter: Dlt645Meter, di: str, value: str, password: str = LEVEL_4) -> bytes | int:
    return tell(meter, 0x14, wire_di(di) + password + OPERATOR + value)


def read(meter: Dlt645Meter, di: str) -> bytes | int:
    """The data after DI, follow-up frames joined; the error word of a refusal."""
    got = exchange(meter, 0x11, wire_di(di))
    assert got is not None
    if got.control == 0xD1:
        return got.data[0]
    whole, seq = got.data[4:], 0
    assert got.data[:4].hex() == wire_di(di)
    while got.control & 0x20:
        seq += 1
        got = exchange(meter, 0x12, wire_di(di) + f"{seq:02x}")
        assert got is not None
        assert got.data[-1] == seq
        whole += got.data[4:-1]
    return whole


def number(raw: bytes | int) -> int:
    """Little-endian BCD."""
    assert isinstance(raw, bytes)
    return int(raw[::-1].hex())


def wire_second(at: datetime) -> str:
    return at.astimezone(ZONE).strftime("%S%M%H%d%m%y")


def wire_minute(at: datetime) -> str:
    return wire_second(at)[2:]


# -- passwords ---------------------------------------------------------------------------------------------------


def test_a_level_writes_what_lower_levels_may_and_no_more() -> None:
    meter, _ = make()
    assert write(meter, "04000103", "30") == OK
    assert write(meter, "04000103", "15", LEVEL_2) == OK
    assert read(meter, "04000103") == b"\x15"
    assert tell(meter, 0x1B, LEVEL_4 + OPERATOR + "ffffffff") == 4
    assert tell(meter, 0x1B, LEVEL_2 + OPERATOR + "ffffffff") == OK
    assert write(meter, "04000103", "30", "06000000") == 4


def test_three_wrong_passwords_lock_for_a_day() -> None:
    meter, clock = make()
    for _ in range(2):
        assert write(meter, "04000103", "30", "04000001") == 4
    assert write(meter, "04000103", "30") == OK  # a right one in between counts anew
    for _ in range(3):
        assert write(meter, "04000103", "45", "04000001") == 4
    assert write(meter, "04000103", "45") == 4
    assert read(meter, "04000103") == b"\x30"
    clock.advance(86_399)
    assert write(meter, "04000103", "45") == 4
    clock.advance(1)
    assert write(meter, "04000103", "45") == OK


def test_a_password_is_changed_by_its_own_or_a_higher_level() -> None:
    meter, _ = make()
    level_4_di, level_2_di = wire_di("04000C05"), wire_di("04000C03")
    assert tell(meter, 0x18, level_4_di + LEVEL_4 + "04111111") == bytes.fromhex("04111111")
    assert write(meter, "04000103", "30") == 4
    assert write(meter, "04000103", "30", "04111111") == OK
    assert tell(meter, 0x18, level_4_di + LEVEL_2 + "04222222") == bytes.fromhex("04222222")
    assert tell(meter, 0x18, level_2_di + "04222222" + "02000000") == 4
    assert tell(meter, 0x18, level_2_di + LEVEL_2 + "04000000") == 1  # the identifier names another level
    assert tell(meter, 0x18, LEVEL_2 + "04000000") == 1


@pytest.mark.parametrize("order", ["14", "19", "1A", "1B", "1C", "18"])
def test_a_meter_with_a_security_chip_takes_no_password(order: str) -> None:
    meter, _ = make(esam=True)
    later = wire_second(NOW + timedelta(hours=1))
    data = {
        "14": wire_di("04000103") + LEVEL_2 + OPERATOR + "30",
        "18": wire_di("04000C05") + LEVEL_4 + "04111111",
        "19": LEVEL_4 + OPERATOR,
        "1A": LEVEL_2 + OPERATOR,
        "1B": LEVEL_2 + OPERATOR + "ffffffff",
        "1C": LEVEL_2 + OPERATOR + "1a00" + later,
    }[order]
    for _ in range(4):
        assert tell(meter, int(order, 16), data) == 4
    assert exchange(meter, 0x15, "020000000000") is None
    assert isinstance(read(meter, "00010000"), bytes)


def test_a_meter_that_needs_its_key() -> None:
    meter, _ = make(needs_key=True)
    assert write(meter, "04000103", "30") == 4
    assert exchange(meter, 0x15, "020000000000") is None
    meter.press_key()
    assert read(meter, "04000503") == b"\x08\x00"
    assert write(meter, "04000103", "30") == OK
    meter.press_key(False)
    assert write(meter, "04000103", "30") == 4


def test_passwords_are_not_shown() -> None:
    assert "123456" not in repr(make()[0].spec)


# -- clock and parameters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("di", "value", "then"),
    [
        ("04000101", "05201125", "30071005201125"[:6] + "04201125"),  # WW is worked out: 2025-11-20 was a Thursday
        ("04000102", "594523", "594523" + "03180326"),
        ("0400010C", "00301205210326", "00301206210326"),  # a Saturday, whatever WW said
    ],
)
def test_the_clock_is_set(di: str, value: str, then: str) -> None:
    meter, clock = make()
    assert write(meter, di, value) == OK
    assert read(meter, "0400010C") == bytes.fromhex(then)
    clock.advance(1)
    assert read(meter, "0400010C") != bytes.fromhex(then)


@pytest.mark.parametrize(
    ("di", "value", "err"),
    [
        ("04000102", "6000", 1),
        ("04000102", "600000", 1),
        ("04000102", "0A0000", 1),
        ("04000102", "000024", 1),
        ("04000101", "03300226", 1),
        ("0400010C", "000000", 1),
        ("04000103", "1A", 1),
        ("04000103", "1515", 1),
        ("04000B01", "0029", 1),
        ("04000B01", "2401", 1),
        ("04000B01", "01", 1),
        ("00010000", "00000000", 2),
        ("04FFFFFF", "00", 2),
    ],
)
def test_values_that_are_none_change_nothing(di: str, value: str, err: int) -> None:
    meter, _ = make()
    before = read(meter, "0400010C"), read(meter, "04000103"), read(meter, "04000B01")
    assert write(meter, di, value) == err
    assert (read(meter, "0400010C"), read(meter, "04000103"), read(meter, "04000B01")) == before
    assert read(meter, "03300000") == bytes(3)


def test_parameters_keep_what_was_written() -> None:
    meter, _ = make(lacks=("04000307",))
    for di, value in {
        "04000306": "000100",
        "04000E04": "0018",
        "04000403": b"asset-7".ljust(32, b"\0")[::-1].hex(),
    }.items():
        assert write(meter, di, value) == OK
        assert read(meter, di) == bytes.fromhex(value)
    assert write(meter, "04000307", "000100") == read(meter, "04000307") == 2


def test_settlement_days_move_the_settlements() -> None:
    meter, _ = make()
    assert read(meter, "04000B01") == bytes.fromhex("0001")
    assert read(meter, "04000B02") == bytes.fromhex("9999")
    assert write(meter, "04000B01", "0815") == OK
    assert write(meter, "04000B02", "0001") == OK
    shown = meter.register.shown
    for n, at in ((1, (3, 15, 8)), (2, (3, 1, 0)), (3, (2, 15, 8)), (4, (2, 1, 0))):
        instant = datetime(2026, *at, tzinfo=ZONE)
        assert number(read(meter, f"000100{n:02X}")) == shown(int(instant.timestamp()))
    assert read(meter, "03300C00") == bytes.fromhex("020000")
    days_before = "0815" + "9999" * 2
    assert read(meter, "03300C01") == bytes.fromhex(wire_second(NOW) + OPERATOR + days_before)
    assert write(meter, "04000B01", "9999") == OK
    assert number(read(meter, "00010001")) == shown(int(datetime(2026, 3, 1, tzinfo=ZONE).timestamp()))


def test_broadcast_time_once_a_day_and_near() -> None:
    meter, clock = make(clock_error_s=-290)
    assert meter.answer(EVERYBODY, 0x08, bytes.fromhex(wire_second(NOW))) is None
    assert read(meter, "04000102") == bytes.fromhex("300710")
    assert meter.answer(EVERYBODY, 0x08, bytes.fromhex(wire_second(NOW + timedelta(seconds=60)))) is None
    assert read(meter, "04000102") == bytes.fromhex("300710")
    clock.advance(86_400)
    for wrong in (wire_second(NOW + timedelta(days=1, seconds=301)), "60" + wire_minute(NOW), "00"):
        assert meter.answer(EVERYBODY, 0x08, bytes.fromhex(wrong)) is None
        assert read(meter, "04000102") == bytes.fromhex("300710")
    assert meter.answer(EVERYBODY, 0x08, bytes.fromhex(wire_second(NOW + timedelta(days=1, seconds=299)))) is None
    assert read(meter, "04000102") == bytes.fromhex("291210")
    assert read(meter, "03300400") == bytes(3)  # broadcasts are not noted


# -- address and speed -------------------------------------------------------------------------------------------


def test_a_new_address_is_answered_under_it_and_then_the_only_one() -> None:
    meter, _ = make()
    answer = meter.answer(b"\xaa" * 6, 0x15, wire_address("240101000077"))
    assert answer == build(wire_address("240101000077"), 0x95)
    assert meter.answer(wire_address(ADDRESS), 0x13, b"") is None
    assert meter.answer(wire_address("240101000077"), 0x13, b"") is not None


@pytest.mark.parametrize("new", ["999999999999", "24010100000A", "2401010000"])
def test_an_address_that_is_none_is_silence(new: str) -> None:
    meter, _ = make()
    assert meter.answer(b"\xaa" * 6, 0x15, bytes.fromhex(new)[::-1]) is None
    assert meter.address == wire_address(ADDRESS)


class Listener:
    """A station that keeps what it is sent."""

    def __init__(self, bus: Bus) -> None:
        self.heard: list[bytes] = []
        self.station = Station(bus, self.heard.append, lambda: None)

    def ask(self, address: str, control: int, data: bytes = b"") -> bytes:
        self.heard.clear()
        frame = build(wire_address(address), control, data)
        found = take(bytearray(frame))
        assert found is not None
        self.station.bus.handle(found, self.station, 0.0)
        return b"".join(self.heard)


def test_the_bus_finds_a_meter_under_its_new_address() -> None:
    meter, clock = make()
    other = Dlt645Meter(MeterSpec("240101000002", preamble=0), Register(Household(Load(seed=1))), clock)

    async def main() -> None:
        line = Listener(Bus([("m1", meter), ("m2", other)], clock))
        assert line.ask(ADDRESS, 0x15, wire_address("240101000077")) == build(wire_address("240101000077"), 0x95)
        assert line.ask(ADDRESS, 0x13) == b""
        new = wire_address("240101000077")
        assert line.ask("240101000077", 0x13) == build(new, 0x93, new)
        assert line.ask("240101000002", 0x15, new) == build(new, 0x95)
        assert take(bytearray(line.ask("240101000077", 0x11, bytes.fromhex("00000100")))) is None  # two of one address

    asyncio.run(main())


def test_a_speed_is_answered_at_the_old_one_and_then_heard_no_more() -> None:
    meter, clock = make(baud=2400)
    plain = Dlt645Meter(MeterSpec("240101000002", preamble=0), Register(Household(Load(seed=1))), clock)

    async def main() -> None:
        bus = Bus([("m1", meter), ("m2", plain)], clock, wire=Wire(2400, 0.0))

        async def ask(address: str, control: int, data: bytes = b"") -> bytes:
            line = Listener(bus)
            found = take(bytearray(build(wire_address(address), control, data)))
            assert found is not None
            loop = asyncio.get_running_loop()
            bus.handle(found, line.station, loop.time() - 10)  # so that the answer is over at once
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            return b"".join(line.heard)

        assert await ask(ADDRESS, 0x17, b"\x20") == build(wire_address(ADDRESS), 0x97, b"\x20")
        assert meter.baud == 9600
        assert await ask(ADDRESS, 0x13) == b""
        assert await ask("240101000002", 0x13) != b""
        bus.wire = Wire(9600, 0.0)
        assert await ask(ADDRESS, 0x13) != b""
        bus.wire = Wire(9600, 0.0, parity="N")
        assert await ask(ADDRESS, 0x13) != b""
        meter.parity = "E"
        assert await ask(ADDRESS, 0x13) == b""

    asyncio.run(main())


@pytest.mark.parametrize("wanted", ["00", "03", "01", "80", "2020", ""])
def test_speeds_there_are_not(wanted: str) -> None:
    meter, _ = make(baud=2400)
    assert tell(meter, 0x17, wanted) == 8
    assert meter.baud == 2400


# -- freezes -----------------------------------------------------------------------------------------------------


def test_a_freeze_on_command_holds_the_registers_of_that_second() -> None:
    meter, clock = make()
    assert read(meter, "05010101") == 2
    assert tell(meter, 0x16, "99999999") == OK
    first = int(clock())
    clock.advance(3600)
    assert meter.answer(EVERYBODY, 0x16, bytes.fromhex("99999999")) is None
    second = int(clock())
    clock.advance(7200)
    for n, at in ((1, second), (2, first)):
        assert read(meter, f"050100{n:02X}") == bytes.fromhex(wire_minute(datetime.fromtimestamp(at, UTC)))
        frozen = read(meter, f"050101{n:02X}")
        assert isinstance(frozen, bytes)
        values = [number(frozen[k : k + 4]) for k in range(0, 20, 4)]
        assert values == [meter.register.shown(at), *meter.register.shown_rates(at)]
    assert read(meter, "05010103") == 2


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("00000199", ["2026-03-18T10:07", "2026-03-01T00:00", "2026-02-01T00:00"]),
        ("30061599", ["2026-04-15T06:30", "2026-03-01T00:00", "2026-02-01T00:00"]),
        ("45239999", ["2026-04-19T23:45", "2026-04-18T23:45", "2026-04-17T23:45"]),
        ("05999999", ["2026-04-20T09:05", "2026-04-20T08:05", "2026-04-20T07:05"]),
    ],
)
def test_timed_freezes_monthly_daily_hourly(pattern: str, expected: list[str]) -> None:
    meter, clock = make()
    assert tell(meter, 0x16, pattern) == OK
    clock.set(datetime(2026, 4, 20, 9, 30, tzinfo=ZONE).timestamp())
    if pattern == "00000199":
        expected = ["2026-04-01T00:00", *expected[1:]]
    for n, text in enumerate(expected, start=1):
        at = datetime.fromisoformat(text).replace(tzinfo=ZONE)
        assert read(meter, f"050000{n:02X}") == bytes.fromhex(wire_minute(at))
        frozen = read(meter, f"050001{n:02X}")
        assert isinstance(frozen, bytes)
        assert number(frozen[:4]) == meter.register.shown(int(at.timestamp()))
    assert read(meter, "0500000D") == 2


@pytest.mark.parametrize("pattern", ["00000103", "60009999", "00249999", "00003299", "0A009999", "999999", "00990199"])
def test_freeze_times_there_are_not(pattern: str) -> None:
    meter, _ = make()
    before = read(meter, "05000001")
    assert tell(meter, 0x16, pattern) == 1
    assert meter.answer(EVERYBODY, 0x16, bytes.fromhex(pattern)) is None
    assert read(meter, "05000001") == before


def test_hourly_freezes_hold_totals() -> None:
    meter, _ = make()
    at = datetime(2026, 3, 18, 10, 0, tzinfo=ZONE)
    assert read(meter, "05040001") == bytes.fromhex(wire_minute(at))
    assert number(read(meter, "05040101")) == meter.register.shown(int(at.timestamp()))
    assert read(meter, "05040201") == bytes(4)
    assert read(meter, "050400FE") == bytes.fromhex(wire_minute(at - timedelta(hours=253)))
    assert read(meter, "050400FF") == 2


# -- clears ------------------------------------------------------------------------------------------------------


def test_a_demand_clear_begins_anew_and_leaves_the_highest_in_its_record() -> None:
    meter, clock = make()
    before = read(meter, "01010000")
    assert tell(meter, 0x19, LEVEL_4 + OPERATOR) == OK
    assert read(meter, "01010000") == bytes(8)
    clock.advance(3600)
    after = read(meter, "01010000")
    assert isinstance(before, bytes)
    assert isinstance(after, bytes)
    used = meter.register.household.used_units
    quarters = [int(NOW.replace(minute=15, second=0).timestamp()) + 900 * k for k in range(3)]
    best = max(quarters, key=lambda at: used(at + 900) - used(at))
    assert number(after[:3]) == (used(best + 900) - used(best)) * 4
    assert read(meter, "03300200") == bytes.fromhex("010000")
    record = read(meter, "03300201")
    assert isinstance(record, bytes)
    assert len(record) == 202
    assert record[:18].hex() == wire_second(NOW) + OPERATOR + before.hex()


def test_a_meter_clear_counts_from_zero_and_forgets() -> None:
    meter, clock = make()
    meter.happen("cover_open", int(clock()) - 500, int(clock()) - 400)
    tell(meter, 0x16, "99999999")
    household = meter.register.household
    shown = read(meter, "00010000")
    assert isinstance(shown, bytes)
    assert tell(meter, 0x1A, LEVEL_4 + OPERATOR) == 4
    assert tell(meter, 0x1A, LEVEL_2 + OPERATOR) == OK
    assert read(meter, "0001FF00") == bytes(20)
    assert read(meter, "05060001") == read(meter, "05010001") == read(meter, "03300D01") == 2
    assert read(meter, "01010000") == bytes(8)
    cleared = int(clock())
    clock.advance(86_400)
    used = household.used_units(cleared + 86_400) - household.used_units(cleared)
    block = read(meter, "0001FF00")
    assert isinstance(block, bytes)
    values = [number(block[k : k + 4]) for k in range(0, 20, 4)]
    assert abs(values[0] - used // 100) <= 1
    assert 0 <= values[0] - sum(values[1:]) <= 2
    assert read(meter, "05060001") == bytes.fromhex(wire_minute(NOW.replace(hour=0, minute=0) + timedelta(days=1)))
    assert read(meter, "03300100") == bytes.fromhex("010000")
    record = read(meter, "03300101")
    assert isinstance(record, bytes)
    assert len(record) == 106
    assert record[:14].hex() == wire_second(NOW) + OPERATOR + shown.hex()


def test_events_are_cleared_by_kind_or_all() -> None:
    meter, clock = make()
    at = int(clock()) - 1000
    meter.happen("cover_open", at, at + 1)
    meter.happen("power_loss", at, at + 1)
    assert tell(meter, 0x1B, LEVEL_2 + OPERATOR + wire_di("03300DFF")) == OK
    assert (read(meter, "03300D00"), read(meter, "03110000")) == (bytes(3), bytes.fromhex("010000"))
    assert tell(meter, 0x1B, LEVEL_2 + OPERATOR + wire_di("03300D00")) == 1
    assert tell(meter, 0x1B, LEVEL_2 + OPERATOR + wire_di("033003FF")) == 1
    assert tell(meter, 0x1B, LEVEL_2 + OPERATOR) == 1
    assert tell(meter, 0x1B, LEVEL_2 + OPERATOR + "ffffffff") == OK
    assert read(meter, "03110000") == bytes(3)
    assert read(meter, "03300300") == bytes.fromhex("020000")
    assert read(meter, "03300302") == bytes.fromhex(wire_second(NOW) + OPERATOR + wire_di("03300DFF"))


# -- relay -------------------------------------------------------------------------------------------------------


def order(meter: Dlt645Meter, code: str, until: datetime = NOW + timedelta(minutes=5)) -> bytes | int:
    return tell(meter, 0x1C, LEVEL_2 + OPERATOR + code + "00" + wire_second(until))


def status(meter: Dlt645Meter) -> int:
    raw = read(meter, "04000503")
    block = read(meter, "040005FF")
    assert isinstance(raw, bytes)
    assert isinstance(block, bytes)
    assert block[4:6] == raw
    return int.from_bytes(raw, "little")


def test_trip_permit_button_and_close() -> None:
    meter, _ = make()
    assert status(meter) == 0
    assert order(meter, "1a") == OK
    assert status(meter) == 0x50
    meter.press_button()
    assert status(meter) == 0x50
    assert order(meter, "1b") == OK
    assert status(meter) == 0x10
    meter.press_button()
    assert status(meter) == 0
    assert order(meter, "1a") == order(meter, "1c") == OK
    assert status(meter) == 0


def test_alarm_and_kept_supply() -> None:
    meter, _ = make()
    assert order(meter, "2a") == OK
    assert status(meter) == 0x80
    assert order(meter, "2b") == order(meter, "3a") == OK
    assert order(meter, "1a") == 1
    assert status(meter) == 0
    assert order(meter, "3b") == order(meter, "1a") == OK
    assert status(meter) == 0x50


def test_orders_refused() -> None:
    meter, _ = make(clock_error_s=60)
    assert order(meter, "1a", NOW + timedelta(seconds=59)) == 1  # by the meter's clock it is over
    assert order(meter, "4a") == 1
    assert tell(meter, 0x1C, LEVEL_4 + OPERATOR + "1a00" + wire_second(NOW + timedelta(hours=1))) == 4
    assert tell(meter, 0x1C, LEVEL_2 + OPERATOR + "1a01" + wire_second(NOW + timedelta(hours=1))) == 1
    assert tell(meter, 0x1C, LEVEL_2 + OPERATOR + "1a00" + "000000000026") == 1
    assert tell(meter, 0x1C, LEVEL_2 + OPERATOR + "1a00") == 1
    assert status(meter) == 0
    assert order(meter, "1a", NOW + timedelta(seconds=60)) == OK
    assert tell(meter, 0x1C, LEVEL_2 + OPERATOR + "1c00" + "00" * 6) == OK  # no deadline
    assert status(meter) == 0


def test_a_relay_that_is_late_and_one_that_is_stuck() -> None:
    late, clock = make(relay_delay_s=30)
    assert order(late, "1a") == OK
    assert status(late) == 0x40
    clock.advance(30)
    assert status(late) == 0x50
    stuck, _ = make(relay="stuck")
    assert order(stuck, "1a") == OK
    assert status(stuck) == 0x40


# -- events ------------------------------------------------------------------------------------------------------


def test_a_power_loss_is_silence_and_then_a_record() -> None:
    meter, clock = make()
    start = int(clock()) + 600
    meter.happen("power_loss", start, start + 300)
    assert read(meter, "03110000") == bytes(3)
    clock.set(start)
    assert exchange(meter, 0x11, wire_di("00010000")) is None
    assert exchange(meter, 0x13) is None
    clock.set(start + 300)
    assert read(meter, "03110000") == bytes.fromhex("010000")
    ends = (datetime.fromtimestamp(at, UTC) for at in (start, start + 300))
    assert read(meter, "03110001") == bytes.fromhex("".join(map(wire_second, ends)))
    assert read(meter, "03110002") == 2


def test_an_open_cover_is_recorded_with_the_registers_before_and_after() -> None:
    meter, clock = make()
    at = int(clock())
    meter.happen("cover_open", at - 86_400, at - 86_000)
    meter.happen("cover_open", at - 60)
    assert read(meter, "03300D00") == bytes.fromhex("020000")
    open_now, before = read(meter, "03300D01"), read(meter, "03300D02")
    assert isinstance(open_now, bytes)
    assert isinstance(before, bytes)
    assert len(open_now) == len(before) == 60
    assert open_now[:12].hex() == wire_second(NOW - timedelta(seconds=60)) + "00" * 6
    assert before[:6].hex() == wire_second(NOW - timedelta(days=1))
    shown = meter.register.shown
    assert [number(before[k : k + 4]) for k in (12, 16, 20, 36)] == [
        shown(at - 86_400),
        0,
        shown(at - 86_400) * 3 // 10,
        shown(at - 86_000),
    ]
    assert open_now[36:] == bytes(24)


def test_writing_is_recorded() -> None:
    meter, clock = make()
    assert write(meter, "04000103", "30") == OK
    clock.advance(60)
    assert write(meter, "04000102", "000009") == OK
    assert read(meter, "03300000") == bytes.fromhex("020000")
    set_back = NOW.replace(hour=9, minute=0, second=0)
    # The newest is the last done, though the clock was set back.
    assert read(meter, "03300001") == bytes.fromhex(wire_second(set_back) + OPERATOR + wire_di("04000102") + "ff" * 36)
    before = NOW + timedelta(seconds=60)
    assert read(meter, "03300401") == bytes.fromhex(OPERATOR + wire_second(before) + wire_second(set_back))


def test_no_more_than_ten_records_and_only_known_kinds() -> None:
    meter, clock = make()
    for k in range(12):
        meter.happen("terminal_cover_open", int(clock()) - 1000 - k, int(clock()) - 900)
    assert read(meter, "03300E00") == bytes.fromhex("120000")
    assert isinstance(read(meter, "03300E0A"), bytes)
    assert read(meter, "03300E0B") == read(meter, "03990000") == 2
    with pytest.raises(ValueError, match="none of power_loss"):
        meter.happen("earthquake", 0)


def test_values_can_be_dictated() -> None:
    meter, _ = make()
    meter.set_value("00010000", 85_000_000)
    meter.set_value("02030000", -12_345)
    meter.set_value("0001FF00", (1, 2, 3))
    meter.set_value("04000503", b"\xff\xff")
    assert read(meter, "00010000") == bytes.fromhex("00000085")
    assert read(meter, "02030000") == bytes.fromhex("452381")
    assert read(meter, "0001FF00") == bytes.fromhex("010000000200000003000000")
    assert read(meter, "04000503") == b"\xff\xff"


def test_a_short_frame_limit_makes_follow_ups() -> None:
    meter, _ = make(frame_bytes=64)
    thirteen = read(meter, "000100FF")
    assert isinstance(thirteen, bytes)
    assert number(thirteen[:4]) == meter.register.shown(int(NOW.timestamp()))
    assert len(thirteen) == 52
    got = exchange(meter, 0x11, wire_di("03300D01"))
    assert got is not None
    assert got.control == 0xD1
    meter.happen("cover_open", int(NOW.timestamp()) - 9)
    got = exchange(meter, 0x11, wire_di("03300D01"))
    assert got is not None
    assert (got.control, len(got.data)) == (0x91, 64)

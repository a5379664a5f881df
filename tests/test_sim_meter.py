"""The simulated DL/T 645 meter: its codec against published frames, its answers against the household's truth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.clock import SettableClock
from simulators.dlt645_frame import Request, bcd, build, take, wire_address
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.household import Household, Load, Register

# Published dialogue of meter 000000000161 (public Java test of 2017, and the web page "DLT645-2007报文解析"):
# request, answer, DI, value in steps of its last digit, bytes.
DIALOGUE = [
    ("68610100000000681104333334331416", "6861010000000068910833333433593333338A16", "00010000", 26, 4),
    ("68610100000000681104333434351716", "686101000000006891063334343534431016", "02010100", 1001, 2),
    ("68610100000000681104333435351816", "6861010000000068910733343535CC7C331616", "02020100", 4999, 3),
    ("68610100000000681104333336351816", "68610100000000689107333336354558336B16", "02030000", 2512, 3),
    ("68610100000000681104333337351916", "6861010000000068910733333735647633A916", "02040000", 4331, 3),
    ("68610100000000681104333338351A16", "68610100000000689107333338353983338C16", "02050000", 5006, 3),
    ("68610100000000681104333339351B16", "686101000000006891063333393534380916", "02060000", 501, 2),
]
# A PLC test bench of 2014: block of totals and four rates of meter 000000193600 (source: public µC/OS code).
BLOCK_REQUEST = "68003619000000681104333234330016"
BLOCK_ANSWER = "680036190000006891183332343363693333893533334C3333336B3333334A663333E916"
# Daily freeze 05060101 of meter 000913130121 as found in a PLC frame: 350.69, 0.00, 189.93, 0.00, 160.76.
FREEZE_ANSWER = "68210113091000689118343439389C83363333333333C6BC343333333333A99334334C16"
# Refusal of meter 370300928139: D1, ERR 02.
REFUSAL = "6837030092813968D101355D16"

ZONE = timezone(timedelta(hours=8))
NOW = datetime(2026, 3, 18, 10, 7, 30, tzinfo=ZONE)
ADDRESS = "240101000001"


def frame_of(hex_text: str) -> Request:
    buffer = bytearray(bytes.fromhex(hex_text))
    found = take(buffer)
    assert found is not None
    assert not buffer
    return found


def make(at: datetime = NOW, **settings: object) -> tuple[Dlt645Meter, SettableClock]:
    clock = SettableClock(at.timestamp())
    register = Register(Household(Load(seed=99, daily_wh=9_000)), 123_456_789)
    spec = MeterSpec(address=ADDRESS, **settings)  # type: ignore[arg-type]
    return Dlt645Meter(spec, register, clock), clock


def ask(meter: Dlt645Meter, di: str, extra: str = "", control: int = 0x11) -> tuple[int, bytes]:
    """Control byte and data field after the echoed DI."""
    data = bytes.fromhex(di)[::-1] + bytes.fromhex(extra)
    answer = meter.answer(meter.address, control, data)
    assert answer is not None
    got = frame_of(answer.lstrip(b"\xfe").hex())
    if not got.control & 0x40:
        assert got.data[:4] == data[:4]
        return got.control, got.data[4:]
    return got.control, got.data


def number(raw: bytes) -> int:
    """Little-endian BCD, by other means than the meter's."""
    return sum((byte >> 4) * 10 ** (2 * k + 1) + (byte & 15) * 10 ** (2 * k) for k, byte in enumerate(raw))


def numbers(raw: bytes) -> list[int]:
    return [number(raw[at : at + 4]) for at in range(0, len(raw), 4)]


def wire_time(at: datetime) -> str:
    return at.astimezone(ZONE).strftime("%M%H%d%m%y")


# -- frames ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("request_hex", "answer_hex", "di", "value", "size"), DIALOGUE)
def test_published_dialogue(request_hex: str, answer_hex: str, di: str, value: int, size: int) -> None:
    address = wire_address("000000000161")
    request = frame_of(request_hex)
    assert (request.address, request.control) == (address, 0x11)
    assert request.data == bytes.fromhex(di)[::-1]
    answer = build(address, 0x91, request.data + bcd(value, size))
    assert answer.hex().upper() == answer_hex


def test_published_block_freeze_and_refusal() -> None:
    assert build(wire_address("000000193600"), 0x11, bytes.fromhex("00FF0100")).hex().upper() == BLOCK_REQUEST
    values = b"".join(bcd(value, 4) for value in (3630, 256, 19, 38, 3317))
    assert build(wire_address("000000193600"), 0x91, bytes.fromhex("00FF0100") + values).hex().upper() == BLOCK_ANSWER
    frozen = b"".join(bcd(value, 4) for value in (35_069, 0, 18_993, 0, 16_076))
    built = build(bytes.fromhex("210113091000"), 0x91, bytes.fromhex("01010605") + frozen)
    assert built.hex().upper() == FREEZE_ANSWER
    assert build(bytes.fromhex("370300928139"), 0xD1, b"\x02").hex().upper() == REFUSAL


def test_signed_and_top_bit() -> None:
    assert bcd(-1234, 4) == bytes.fromhex("34120080")
    assert bcd(85_000_000, 4) == bytes.fromhex("00000085")


@given(
    noise=st.binary(max_size=20),
    address=st.binary(min_size=6, max_size=6),
    data=st.binary(max_size=50),
    cuts=st.lists(st.integers(0, 90), max_size=4),
)
def test_a_request_is_found_behind_noise_in_any_pieces(
    noise: bytes, address: bytes, data: bytes, cuts: list[int]
) -> None:
    wire = noise + build(address, 0x11, data, 4)
    buffer, found = bytearray(), None
    edges = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})
    for start, end in pairwise(edges):
        buffer += wire[start:end]
        found = found or take(buffer)
    assert found is not None
    if 0x68 not in noise:
        assert (found.address, found.control, found.data, found.size) == (address, 0x11, data, len(wire))


@given(bit=st.integers(0, 8 * 16 - 1))
def test_one_wrong_bit_is_silence(bit: int) -> None:
    wire = bytearray(build(wire_address(ADDRESS), 0x11, bytes.fromhex("00000100")))
    wire[bit // 8] ^= 1 << bit % 8
    assert take(wire) is None


# -- single items ------------------------------------------------------------------------------------------------


def test_registers_are_the_truth_and_rates_sum() -> None:
    meter, clock = make()
    for minutes in range(0, 3000, 377):
        clock.set(NOW.timestamp() + 60 * minutes)
        shown = meter.register.shown(int(clock()))
        assert number(ask(meter, "00010000")[1]) == shown
        block = numbers(ask(meter, "0001FF00")[1])
        assert block[0] == shown
        assert 0 <= shown - sum(block[1:]) <= 2
        assert [number(ask(meter, f"00010{rate}00")[1]) for rate in range(1, 5)] == block[1:]
        assert numbers(ask(meter, "0002FF00")[1]) == [0] * 5


def test_momentary_values_agree_with_each_other_and_with_the_load() -> None:
    meter, clock = make()
    start = int(clock()) // 300 * 300
    power = number(ask(meter, "02030000")[1])
    used = meter.register.household.used_units(start + 300) - meter.register.household.used_units(start)
    assert power == used * 12
    volts, amps = number(ask(meter, "02010100")[1]), number(ask(meter, "02020100")[1])
    apparent, factor = number(ask(meter, "02050000")[1]), number(ask(meter, "02060000")[1])
    reactive = number(ask(meter, "02040000")[1])
    assert 2100 < volts < 2300
    assert abs(volts * amps / 1000 - apparent) <= volts / 1000 + 1
    assert abs(apparent * factor / 1000 - power) <= 2
    assert abs(apparent**2 - power**2 - reactive**2) <= 2 * apparent
    assert ask(meter, "0203FF00")[1][6:] == b"\xff" * 6
    assert len(ask(meter, "0201FF00")[1]) == 6


def test_clock_address_and_parameters() -> None:
    meter, _ = make()
    assert ask(meter, "04000101")[1].hex() == "03180326"  # Wednesday: WW DD MM YY
    assert ask(meter, "04000102")[1].hex() == "300710"
    assert ask(meter, "0400010C")[1].hex() == "30071003180326"
    assert ask(meter, "04000401")[1] == ask(meter, "04000402")[1] == wire_address(ADDRESS)
    assert ask(meter, "04000204")[1] == b"\x04"
    assert ask(meter, "04000503")[1] == b"\x00\x00"
    assert len(ask(meter, "040005FF")[1]) == 14


def test_clock_error_and_broadcast_time() -> None:
    meter, clock = make(clock_error_s=95, clock_drift_ppm=50)
    assert ask(meter, "04000102")[1].hex() == "050910"
    clock.advance(86_400 * 10)
    assert ask(meter, "04000102")[1].hex() == "480910"  # 95 s and 43 s of drift
    right = datetime.fromtimestamp(clock(), ZONE)
    sent = bytes.fromhex(right.strftime("%S%M%H%d%m%y"))
    assert meter.answer(b"\x99" * 6, 0x08, sent) is None
    assert ask(meter, "04000102")[1].hex() == "300710"
    far = bytes.fromhex((right + timedelta(minutes=20)).strftime("%S%M%H%d%m%y"))
    clock.advance(86_400)
    assert meter.answer(b"\x99" * 6, 0x08, far) is None
    assert ask(meter, "04000102")[1].hex()[2:] == "0710"


def test_curve_points_are_taken_by_the_meters_own_clock() -> None:
    meter, _ = make(clock_error_s=120)
    start = datetime(2026, 3, 18, 6, 0, tzinfo=ZONE)
    points = numbers(ask(meter, "06100601", "04" + wire_time(start))[1][5:])
    truth = meter.register.shown
    assert points == [truth(int(start.timestamp()) + 900 * k - 120) for k in range(4)]


def test_demand_is_the_highest_quarter_of_an_hour_since_the_first() -> None:
    meter, clock = make()
    raw = ask(meter, "01010000")[1]
    used = meter.register.household.used_units
    first = int(datetime(2026, 3, 1, tzinfo=ZONE).timestamp())
    quarters = range(first, int(clock()) - 899, 900)
    best = max(quarters, key=lambda at: used(at + 900) - used(at))
    assert number(raw[:3]) == (used(best + 900) - used(best)) * 4
    assert raw[3:].hex() == wire_time(datetime.fromtimestamp(best + 900, UTC))


# -- who answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["AA" * 6, "AAAAAAAAAA01", "AAAA01000001", ADDRESS])
def test_wildcards_are_answered_with_the_real_address(pattern: str) -> None:
    meter, _ = make()
    answer = meter.answer(wire_address(pattern), 0x11, bytes.fromhex("00000100"))
    assert answer is not None
    assert frame_of(answer[4:].hex()).address == wire_address(ADDRESS)
    named = meter.answer(wire_address(pattern), 0x13, b"")
    assert named is not None
    assert frame_of(named[4:].hex()).data == wire_address(ADDRESS)


@pytest.mark.parametrize(
    ("address", "control"),
    [
        ("240101000002", 0x11),
        ("AAAAAAAAAA02", 0x11),
        ("9" * 12, 0x11),
        (ADDRESS, 0x91),
        (ADDRESS, 0x15),
        ("9" * 12, 0x16),
    ],
)
def test_silence(address: str, control: int) -> None:
    meter, _ = make()
    assert meter.answer(wire_address(address), control, bytes.fromhex("00000100")) is None


@pytest.mark.parametrize(
    ("di", "extra", "control", "refused", "err"),
    [
        ("00990000", "", 0x11, 0xD1, 2),
        ("02990000", "", 0x11, 0xD1, 2),
        ("00010000", "01", 0x11, 0xD1, 1),
        ("06100601", "01", 0x11, 0xD1, 1),
        ("06100601", "01FF1018032600"[:12], 0x11, 0xD1, 1),
        ("06040000", "01", 0x11, 0xD1, 2),
        ("0506013F", "", 0x11, 0xD1, 2),
        ("05060100", "", 0x11, 0xD1, 2),
        ("06100601", "01", 0x12, 0xD2, 2),
        ("04000102", "0299000000000000000000", 0x14, 0xD4, 4),
        ("04000102", "", 0x1C, 0xDC, 4),
        ("04000102", "", 0x17, 0xD7, 8),
    ],
)
def test_refusals(di: str, extra: str, control: int, refused: int, err: int) -> None:
    meter, _ = make()
    assert ask(meter, di, extra, control) == (refused, bytes((err,)))


@pytest.mark.parametrize("preamble", [0, 1, 4])
def test_preamble(preamble: int) -> None:
    meter, _ = make(preamble=preamble)
    answer = meter.answer(meter.address, 0x11, bytes.fromhex("00000100"))
    assert answer is not None
    assert answer.index(0x68) == preamble


# -- memory ------------------------------------------------------------------------------------------------------


def read_curve(meter: Dlt645Meter, di: str, count: int, start: datetime) -> tuple[str, bytes, list[int]]:
    """Time, points and the lengths of the data fields, follow-ups fetched."""
    control, body = ask(meter, di, f"{count:02x}{wire_time(start)}")
    sizes, time, points, seq = [len(body) + 4], body[:5].hex(), body[5:], 0
    while control & 0x20:
        seq += 1
        control, more = ask(meter, di, f"{seq:02x}", 0x12)
        assert more[-1] == seq
        sizes.append(len(more) + 4)
        points += more[:-1]
    assert control == (0x92 if seq else 0x91)
    return time, points, sizes


@settings(max_examples=30, deadline=None)
@given(step_min=st.sampled_from([15, 60]), back_min=st.integers(0, 60 * 24 * 61), count=st.integers(1, 200))
def test_a_curve_is_the_register_truth(step_min: int, back_min: int, count: int) -> None:
    meter, clock = make(step_min=step_min)
    asked = NOW - timedelta(minutes=back_min)
    step = step_min * 60
    first = -(-int(asked.replace(second=0).timestamp()) // step) * step
    held = int(clock()) // step - first // step + 1
    if held <= 0:
        assert ask(meter, "06100601", f"{count:02x}{wire_time(asked)}") == (0x91, b"")
        return
    time, points, sizes = read_curve(meter, "06100601", count, asked)
    assert time == wire_time(datetime.fromtimestamp(first, UTC))
    truth = [meter.register.shown(first + k * step) for k in range(min(count, held))]
    assert numbers(points) == truth
    assert max(sizes) <= 200
    assert len(sizes) == 1 if len(truth) <= 47 else len(sizes) == 1 + -(-(len(truth) - 47) // 48)


def test_reverse_and_block_curves() -> None:
    meter, _ = make()
    start = NOW - timedelta(hours=30)
    _, reverse, _ = read_curve(meter, "06100602", 60, start)
    assert numbers(reverse) == [0] * 60
    _, block, sizes = read_curve(meter, "061006FF", 60, start)
    _, forward, _ = read_curve(meter, "06100601", 60, start)
    assert numbers(block)[::4] == numbers(forward)
    assert max(sizes) <= 200


def test_memory_begins_where_its_depth_says() -> None:
    meter, _ = make(memory_days=3)
    time, points, _ = read_curve(meter, "06100601", 2, NOW - timedelta(days=20))
    oldest = datetime(2026, 3, 15, 10, 15, tzinfo=ZONE)
    assert time == wire_time(oldest)
    assert number(points[:4]) == meter.register.shown(int(oldest.timestamp()))
    assert ask(meter, "06100601", "01" + wire_time(NOW + timedelta(hours=1))) == (0x91, b"")


def test_a_lost_followup_can_be_asked_again_or_not() -> None:
    start = wire_time(NOW - timedelta(hours=40))
    for followup, again in (("by_seq", 0xB2), ("next", 0x92)):
        meter, _ = make(followup=followup)
        assert ask(meter, "06100601", "8C" + start)[0] == 0xB1
        first = ask(meter, "06100601", "01", 0x12)
        second = ask(meter, "06100601", "01", 0x12)
        assert first[0] == 0xB2
        assert second[0] == again
        assert (first[1] == second[1]) is (followup == "by_seq")


def parse_record(raw: bytes) -> tuple[str, list[int]]:
    """One class 4 record of appendix B, every byte accounted for."""
    assert raw[:2] == b"\xa0\xa0"
    assert raw[2] == len(raw) - 5
    assert raw[8:11] == b"\xaa\xaa\xaa"
    assert raw[27:30] == b"\xaa\xaa\xaa"
    assert raw[30] == sum(raw[:30]) & 0xFF
    assert raw[31] == 0xE5
    return raw[3:8].hex(), numbers(raw[11:27])


@pytest.mark.parametrize("di", ["06040001", "06000001"])
def test_load_record_from_a_time(di: str) -> None:
    meter, _ = make(form="record")
    start = datetime(2026, 3, 17, 23, 0, tzinfo=ZONE)
    control, body = ask(meter, di, "0D" + wire_time(start))
    assert control == 0xB1
    control, more = ask(meter, di, "01", 0x12)
    assert control == 0xB2
    control, last = ask(meter, di, "02", 0x12)
    assert control == 0x92
    raw = body + more[:-1] + last[:-1]
    assert len(raw) == 13 * 32
    for k in range(13):
        at = start + timedelta(minutes=15 * k)
        time, values = parse_record(raw[32 * k : 32 * k + 32])
        assert time == wire_time(at)
        truth = meter.register.shown(int(at.timestamp()))
        assert values == [truth, 0, truth * 3 // 10, 0]


def test_load_record_earliest_latest_and_class_not_stored() -> None:
    meter, _ = make(form="record", memory_days=5)
    earliest = parse_record(ask(meter, "06040000", "01")[1])
    assert earliest[0] == wire_time(datetime(2026, 3, 13, 10, 15, tzinfo=ZONE))
    newest = parse_record(ask(meter, "06040002", "01")[1])
    assert newest[0] == wire_time(datetime(2026, 3, 18, 10, 0, tzinfo=ZONE))
    two = ask(meter, "06040002", "02")[1]
    assert parse_record(two[32:]) == newest
    assert ask(meter, "06010001", "01" + wire_time(NOW - timedelta(days=1))) == (0x91, b"")
    assert ask(meter, "06100601", "01" + wire_time(NOW)) == (0xD1, b"\x02")


@pytest.mark.parametrize("n", [1, 2, 31, 62])
def test_daily_freeze(n: int) -> None:
    meter, _ = make()
    midnight = datetime(2026, 3, 18, tzinfo=ZONE) - timedelta(days=n - 1)
    time = ask(meter, f"050600{n:02X}")[1]
    assert time.hex() == wire_time(midnight)
    frozen = ask(meter, f"050601{n:02X}")[1]
    at = int(midnight.timestamp())
    assert numbers(frozen) == [meter.register.shown(at), *meter.register.shown_rates(at)]
    assert ask(meter, f"0506FF{n:02X}")[1] == time + b"\xaa" + frozen + b"\xaa" + bytes(20)


def test_settlements() -> None:
    meter, _ = make()
    at = [int(datetime(2026, month, 1, tzinfo=ZONE).timestamp()) for month in (3, 2, 1)]
    assert number(ask(meter, "00010001")[1]) == meter.register.shown(at[0])
    assert numbers(ask(meter, "0001FF02")[1]) == [meter.register.shown(at[1]), *meter.register.shown_rates(at[1])]
    thirteen = numbers(ask(meter, "000100FF")[1])
    assert len(thirteen) == 13
    assert thirteen[3] == meter.register.shown(at[2])
    assert thirteen[12] == meter.register.shown(int(datetime(2025, 4, 1, tzinfo=ZONE).timestamp()))


def test_the_demand_of_a_settlement_is_that_of_its_month() -> None:
    meter, _ = make()
    march, february, january = (int(datetime(2026, month, 1, tzinfo=ZONE).timestamp()) for month in (3, 2, 1))
    used = meter.register.household.used_units
    for nth, start, end in ((1, february, march), (2, january, february)):
        blocks = {at: used(at) - used(at - 900) for at in range(start + 900, end + 1, 900)}
        when = max(blocks, key=lambda at: (blocks[at], -at))
        said = ask(meter, f"010100{nth:02X}")[1]
        assert number(said[:3]) == blocks[when] * 4 > 0
        assert said[3:].hex() == wire_time(datetime.fromtimestamp(when, ZONE))
    assert ask(meter, "0101000D") == (0xD1, b"\x02")


def test_a_new_meter_has_no_past() -> None:
    clock = SettableClock(datetime(2024, 1, 2, 12, 0, tzinfo=ZONE).timestamp())
    meter = Dlt645Meter(MeterSpec(ADDRESS), Register(Household(Load(seed=1)), 0), clock)
    assert ask(meter, "05060103") == (0xD1, b"\x02")
    assert numbers(ask(meter, "05060102")[1]) == [0] * 5
    assert number(ask(meter, "00010002")[1]) == 0
    time, points, _ = read_curve(meter, "06100601", 4, datetime(2023, 12, 1, tzinfo=ZONE))
    assert time == wire_time(datetime(2024, 1, 1, tzinfo=ZONE))
    assert number(points[:4]) == 0

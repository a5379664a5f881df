"""The DLMS meter simulator below its APDUs: HDLC, several meters on a line, mode E, faults, ports."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from simulators.bus import Bus, Wire
from simulators.clock import SettableClock
from simulators.dlms_spec import DlmsSpec
from simulators.dlms_station import DlmsLine
from simulators.dlms_town import dlms_meter
from simulators.dlms_wire import Frame, build_frame, crc
from simulators.dlt645_frame import build as build_645
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.faults import FaultRule, Faults
from simulators.household import Household, Load, Register
from simulators.mixed import MixedBus
from tests.sim_dlms_kit import AARQ, NOW_S, OPEN, Hdlc, Wrapper, get_request, meter_of, parsed, spec_with

SNRM, DISC, UA, DM, FRMR = 0x93, 0x53, 0x73, 0x1F, 0x97
LLC, ANSWER = "e6e600", b"\xe6\xe7\x00"
SMALL = "8180140502004006020040070400000001080400000001"  # 64 bytes, window 1
WINDOWED = "818012050140060140070400000003080400000003"  # 64 bytes, windows of 3


def _connected(meter: object, parameters: str = "", **address: str) -> Hdlc:
    wire = Hdlc(meter, **address)  # type: ignore[arg-type]
    assert wire.one(SNRM, parameters).control == UA
    return wire


def _associated(meter: object, parameters: str = "") -> Hdlc:
    wire = _connected(meter, parameters)
    answer = wire.one(0x10, LLC + AARQ.format(pdu=0xFFFF))
    assert answer.info.startswith(ANSWER + b"\x61")
    return wire


# -- connecting ------------------------------------------------------------------------------------------------------


def test_the_answer_to_snrm_is_the_published_one() -> None:
    """UA of a client 16 and server 1 in one byte with everything at its default, byte for byte."""
    wire = Hdlc(meter_of(), "03")
    (said,) = wire.raw(bytes.fromhex("7ea0070321930f017e"))
    assert said[1:-3].startswith(bytes.fromhex("a01e210373"))
    assert said[8:-3] == bytes.fromhex("818012050180060180070400000001080400000001")
    assert crc(said[1:-3]) == said[-3:-1]


@pytest.mark.parametrize(
    ("asked", "agreed"),
    [
        ("", "818012050180060180070400000001080400000001"),
        (SMALL, "818012050140060140070400000001080400000001"),
        ("8180140502ffff0602ffff070400000007080400000007", "818014050207ee060207ee070400000007080400000007"),
        ("818006050140060180", "818012050180060140070400000001080400000001"),
    ],
)
def test_lengths_and_windows_are_negotiated(asked: str, agreed: str) -> None:
    """What the client sends the meter receives, and the other way round; the smaller of both counts."""
    assert Hdlc(meter_of()).one(SNRM, asked).info.hex() == agreed


def test_a_meter_that_is_not_connected_says_so() -> None:
    wire = Hdlc(meter_of())
    assert wire.one(0x10, LLC + "c001").control == DM
    assert wire.one(DISC).control == DM
    assert wire.one(SNRM).control == UA
    assert wire.one(DISC).control == UA
    assert wire.one(DISC).control == DM


def test_snrm_ends_the_association() -> None:
    wire = _associated(meter_of())
    assert wire.one(SNRM).control == UA
    assert wire.one(0x10, LLC + get_request(1, "0.0.42.0.0.255")).info == ANSWER + b"\xd8\x01\x01"


@pytest.mark.parametrize(
    ("quirks", "control", "information"),
    [
        ({"ua_field": False}, UA, b""),
        ({"snrm_field": "dm"}, DM, b""),
        ({"snrm_field": "frmr"}, FRMR, b"\x93\x00\x02"),
        ({"wrong_final": True}, UA & ~0x10, None),
        ({"fail_at": "snrm", "fail_how": "refuse"}, DM, b""),
    ],
)
def test_odd_answers_to_snrm(quirks: dict[str, Any], control: int, information: bytes | None) -> None:
    frame = Hdlc(meter_of(spec_with(**quirks))).one(SNRM, SMALL)
    assert frame.control == control
    assert information is None or frame.info == information


def test_a_meter_that_wants_no_field_takes_a_bare_snrm() -> None:
    wire = Hdlc(meter_of(spec_with(snrm_field="silent")))
    assert wire.frames(SNRM, SMALL) == []
    assert wire.one(SNRM).control == UA


def test_after_disc_it_is_deaf_for_a_while() -> None:
    now = SettableClock(NOW_S)
    wire = Hdlc(dlms_meter(now, spec_with(reconnect_s=5.0)))
    wire.one(SNRM)
    wire.one(DISC)
    assert wire.frames(SNRM) == []
    now.advance(5)
    assert wire.one(SNRM).control == UA


@pytest.mark.parametrize("server", ["03", "0223", "00020023", "02ff", "0002feff"])
def test_every_length_of_address_is_heard(server: str) -> None:
    """Logical 1, physical 17, in one, two and four bytes; all stations in two."""
    frames = Hdlc(meter_of(), server).frames(SNRM)
    assert [frame.control for frame in frames] == [UA]


def test_other_addresses_and_lengths_are_not_heard() -> None:
    for server in ("05", "0225", "0423", "00020025"):
        assert Hdlc(meter_of(), server).frames(SNRM) == []
    only_four = meter_of(spec_with(address_bytes=4))
    assert Hdlc(only_four, "0223").frames(SNRM) == []
    assert Hdlc(only_four, "00020023").one(SNRM).control == UA


# -- information -----------------------------------------------------------------------------------------------------


def test_a_long_answer_comes_in_segments_when_asked_for() -> None:
    wire = _associated(meter_of(), SMALL)
    frame = wire.one(0x32, LLC + get_request(7, "0.0.98.1.0.255", 3))
    segments, data, ns = 1, frame.info, 1
    while frame.segmented:
        assert len(frame.info) == 64
        assert frame.control & 0x10
        ns = (ns + 1) % 8
        frame = wire.one(0x11 | ns << 5)
        assert frame.control >> 1 & 7 == ns
        segments, data = segments + 1, data + frame.info
    assert segments == -(-len(data) // 64) > 1
    assert data.startswith(ANSWER + b"\xc4\x01\xc1\x00\x01\x08\x02\x04\x12\x00\x08")


def test_a_window_of_three_ends_with_the_final_bit() -> None:
    wire = _associated(meter_of(), WINDOWED)
    frames = wire.frames(0x32, LLC + get_request(7, "1.0.99.2.0.255"))
    assert [frame.control & 0x10 for frame in frames] == [0, 0, 0x10]
    assert [frame.control >> 1 & 7 for frame in frames] == [1, 2, 3]
    assert all(frame.segmented for frame in frames)
    again = wire.frames(0x11 | 3 << 5)  # the third was lost
    assert again[0].info == frames[2].info
    assert [frame.control >> 1 & 7 for frame in again][:2] == [3, 4]


def test_a_lost_answer_is_sent_again() -> None:
    """After the same frame, and after RR that still expects it; the service is not run twice."""
    meter = meter_of()
    wire = _associated(meter)
    asked = LLC + get_request(1, "0.0.42.0.0.255")
    first = wire.one(0x32, asked)
    assert wire.one(0x32, asked) == first
    assert wire.one(0x11 | 1 << 5) == first
    assert meter.heard["get"] == 1
    assert wire.one(0x11 | 2 << 5).control & 0x0F == 0x01


def test_a_segmented_request_is_put_together() -> None:
    wire = _connected(meter_of())
    whole = bytes.fromhex(LLC + AARQ.format(pdu=0xFFFF))
    assert wire.one(0x10, whole[:20], segmented=True).control == 0x31
    assert wire.one(0x12, whole[20:]).info.startswith(ANSWER + b"\x61")


def test_a_frame_too_long_is_rejected() -> None:
    wire = _connected(meter_of(), SMALL)
    frame = wire.one(0x10, bytes(65))
    assert frame.control == FRMR
    assert frame.info == b"\x10\x00\x04"


def test_a_meter_may_count_the_whole_frame() -> None:
    wire = _associated(meter_of(spec_with(frame_is_max=True)), SMALL)
    (raw,) = wire.raw(
        build_frame(Frame(wire.server, wire.client, 0x32, bytes.fromhex(LLC + get_request(7, "0.0.98.1.0.255", 3))))
    )
    assert len(raw) - 2 == 64


# -- who is on the line ----------------------------------------------------------------------------------------------


def _line() -> DlmsLine:
    specs = [DlmsSpec(serial=f"{k}", physical=16 + k, clients=(OPEN,)) for k in (1, 2, 3)]
    return DlmsLine([meter_of(spec) for spec in specs])


def test_several_meters_share_a_line() -> None:
    line = _line()
    for physical, serial in ((0x23, "31"), (0x25, "32"), (0x27, "33")):
        wire = Hdlc(line, f"02{physical:02x}")
        assert wire.one(SNRM).control == UA
        wire.one(0x10, LLC + AARQ.format(pdu=0xFFFF))
        assert wire.one(0x32, LLC + get_request(1, "0.0.96.1.0.255")).info.hex().endswith("0901" + serial)


def test_a_damaged_frame_is_not_heard_and_the_next_one_is() -> None:
    """Whichever bit is turned; after a pause what is left of it is forgotten."""
    seconds = iter(range(1000))
    wire = Hdlc(DlmsLine(meter_of(), clock=lambda: next(seconds)))
    good = build_frame(Frame(wire.server, wire.client, SNRM, bytes.fromhex(SMALL)))
    for bit in range(8, 8 * (len(good) - 1)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert wire.raw(bytes(bad)) == [], bit
    assert wire.one(SNRM).control == UA


def test_flags_are_shared_and_noise_is_skipped() -> None:
    wire = Hdlc(meter_of())
    snrm = build_frame(Frame(wire.server, wire.client, SNRM))
    disc = build_frame(Frame(wire.server, wire.client, DISC))
    frames = parsed(wire.raw(b"\x00\x7e\x7e\xa0\xff" + snrm[:-1] + disc))
    assert [frame.control for frame in frames] == [UA, UA]


def test_a_line_can_be_shared_with_dlt645_meters() -> None:
    """Each answers what is for it, on the same wires."""

    async def run() -> None:
        register = Register(Household(Load(seed=1)))
        now = SettableClock(NOW_S)
        bus = Bus([("M1", Dlt645Meter(MeterSpec("000000000001"), register, now))], now)
        said: list[bytes] = []
        station = MixedBus([_line(), bus]).station(said.append, lambda: None)
        station.feed(build_645(b"\x01\x00\x00\x00\x00\x00", 0x11, bytes.fromhex("00000100")))
        assert len(said) == 1
        assert said[0].startswith(b"\xfe\xfe\xfe\xfe\x68\x01")
        said.clear()
        station.feed(build_frame(Frame(b"\x02\x25", b"\x21", SNRM)))
        assert [frame.control for frame in parsed(said)] == [UA]
        said.clear()
        station.feed(bytes.fromhex("010300000002c40b"))  # Modbus
        assert said == []

    asyncio.run(run())


# -- sign-on ---------------------------------------------------------------------------------------------------------


def test_mode_e_opens_the_way_to_hdlc() -> None:
    wire = Hdlc(meter_of(spec_with(mode_e="works")))
    assert wire.frames(SNRM) == []
    assert wire.raw(b"/?!\r\n") == [b"/SIM5\\2SIM100\r\n"]
    assert wire.raw(b"\x06252\r\n") == [b"\x06252\r\n"]
    assert wire.one(SNRM).control == UA
    assert wire.one(DISC).control == UA
    assert wire.frames(SNRM) == []
    assert wire.raw(b"/?99!\r\n") == []
    assert wire.raw(b"/?0012345678!\r\n") == [b"/SIM5\\2SIM100\r\n"]


def test_mode_e_answers_with_parity_bits_when_asked_so() -> None:
    wire = Hdlc(meter_of(spec_with(mode_e="works")))
    asked = bytes(byte | 0x80 * (byte.bit_count() % 2) for byte in b"/?!\r\n")
    (said,) = wire.raw(asked)
    assert bytes(byte & 0x7F for byte in said) == b"/SIM5\\2SIM100\r\n"
    assert all(byte.bit_count() % 2 == 0 for byte in said)


def test_mode_e_readout_instead() -> None:
    wire = Hdlc(meter_of(spec_with(mode_e="readout")))
    wire.raw(b"/?!\r\n")
    (said,) = wire.raw(b"\x06252\r\n")
    assert said.startswith(b"\x020.0.0(12345678)\r\n1.8.0(")
    check = 0
    for byte in said[1:-1]:
        check ^= byte
    assert said[-1] == check
    assert wire.frames(SNRM) == []


@pytest.mark.parametrize(("mode", "speed"), [("works", 9600), ("ignore-speed", 300)])
def test_speeds_count_where_there_are_any(mode: str, speed: int) -> None:
    baud = [300]
    said: list[bytes] = []
    station = DlmsLine(meter_of(spec_with(mode_e=mode))).station(said.append, lambda: None, lambda: baud[0])
    snrm = build_frame(Frame(b"\x02\x23", b"\x21", SNRM))
    station.feed(b"/?!\r\n")
    station.feed(b"\x06252\r\n")
    assert len(said) == 2
    baud[0] = 9600 if speed == 300 else 300
    station.feed(snrm)
    assert len(said) == 2
    baud[0] = speed
    station.feed(snrm)
    assert len(said) == 3


# -- faults and ports ------------------------------------------------------------------------------------------------


def _answers(line: DlmsLine, count: int = 200) -> list[bool]:
    wire = Hdlc(line)
    return [wire.frames(SNRM) != [] for _ in range(count)]


def test_losses_are_seeded() -> None:
    def line(seed: int, deaf: float = 0.0) -> DlmsLine:
        faults = Faults([FaultRule("silence", probability=0.1), FaultRule("flip", probability=0.1)], seed)
        return DlmsLine(meter_of(), faults=faults, deaf=deaf, seed=seed)

    one = _answers(line(1))
    assert one == _answers(line(1))
    assert one != _answers(line(2))
    assert 140 <= sum(one) <= 185
    assert sum(_answers(line(1, deaf=0.5))) < 110


def test_faults_of_other_protocols_are_refused() -> None:
    with pytest.raises(ValueError, match="DL/T 645"):
        DlmsLine(meter_of(), faults=Faults([FaultRule("foreign")]))


def test_a_dropping_line_closes() -> None:
    wire = Hdlc(DlmsLine(meter_of(), faults=Faults([FaultRule(script=("ok", "drop"))])))
    assert wire.one(SNRM).control == UA
    assert wire.frames(SNRM) == []
    assert wire.dropped == [True]


def test_an_echo_comes_back_first_and_is_not_taken_for_an_answer() -> None:
    wire = Hdlc(DlmsLine(meter_of(), faults=Faults([FaultRule("echo")])))
    echo, answer = wire.frames(SNRM)
    assert (echo.destination, echo.control) == (wire.server, SNRM)
    assert (answer.destination, answer.control) == (wire.client, UA)


@pytest.mark.parametrize(("how", "dropped"), [("silent", 0), ("close", 1)])
def test_steps_fail_on_the_wrapper(how: str, dropped: int) -> None:
    wire = Wrapper(meter_of(spec_with(fail_at="get", fail_how=how, fail_after=1, fail_times=1))).open()
    asked = get_request(1, "0.0.42.0.0.255")
    assert len(wire.all(asked)) == 1
    assert wire.all(asked) == []
    assert wire.dropped == dropped
    assert len(wire.all(asked)) == 1


def test_a_slow_wire_takes_its_time() -> None:
    """10 and 33 characters of ten bits at 9600 bauds, and the delay."""

    async def run() -> float:
        loop = asyncio.get_running_loop()
        line = DlmsLine(meter_of(), wire=Wire(9600, 0.02, "N"))
        heard = loop.create_future()
        station = line.station(lambda _: heard.set_result(loop.time()), lambda: None)
        start = loop.time()
        station.feed(build_frame(Frame(b"\x02\x23", b"\x21", SNRM)))
        return float(await heard) - start

    took = asyncio.run(run())
    assert (10 + 33) * 10 / 9600 + 0.02 - 0.002 <= took < 0.5

"""HDLC frames: captured ones, round trips, noise, resynchronising; addresses."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.errors import BadFrame, UsageError
from headend.protocols.dlms import hdlc
from headend.protocols.dlms.hdlc import Damaged, Frame
from headend.protocols.dlms.hdlc_limits import Limits, accepted, proposal
from headend.protocols.dlms.link import check_address, check_rule, make_link, physical_address
from headend.protocols.dlms.settings import DlmsSettings
from tests.hdlc_kit import build, crc_bitwise

VECTORS = Path(__file__).parent / "vectors" / "dlms_captures.jsonl"
CAPTURES = {
    entry["id"]: entry
    for entry in map(json.loads, VECTORS.read_text("utf-8").splitlines())
    if entry["framing"].startswith("hdlc")
}


def all_of(data: bytes) -> list[Frame | Damaged]:
    buffer = bytearray(data)
    seen = []
    while (one := hdlc.take(buffer)) is not None:
        seen.append(one)
    return seen


def frames_of(data: bytes) -> list[Frame]:
    return [seen for seen in all_of(data) if isinstance(seen, Frame)]


# -- from outside ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in CAPTURES if "checks" in CAPTURES[name]])
def test_captured_frames_pass_the_checks_they_passed_elsewhere(name: str) -> None:
    seen = all_of(bytes.fromhex(CAPTURES[name]["hex"]))
    frames = [one.frame if isinstance(one, Damaged) else one for one in seen]
    assert [
        {"hcs": frame.hcs_ok, "fcs": frame.fcs_ok, "ctl": f"{frame.control:02x}"} for frame in frames if frame
    ] == CAPTURES[name]["checks"]
    assert len(CAPTURES) >= 14


def test_a_stream_of_a_hundred_pushes_that_begins_anywhere() -> None:
    """6000 bytes of a Kaifa's port, cut in the middle of a frame: 104 frames, the rest waits."""
    stream = bytes.fromhex(CAPTURES["roarfred-kaifa-stream"]["hex"])
    assert len(frames_of(stream)) == len(all_of(stream)) == 104
    assert len(frames_of(stream[5:])) == 103


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("7EA0070321930F017E", "SNRM", "SNRM 16 -> 1 poll/final"),
        ("7EA00802232193BD647E", "SNRM", "SNRM 16 -> 1/17 poll/final"),
        ("7EA00703215303C77E", "DISC", "DISC 16 -> 1 poll/final"),
        (
            "7EA01E210373C37A818012050180060180070400000001080400000001533B7E",
            "UA",
            "UA 1 -> 16 poll/final, 21 bytes",
        ),
    ],
)
def test_well_known_frames(text: str, kind: str, told: str) -> None:
    """SNRM, UA and DISC as the Green Book's examples and every tool print them."""
    raw = bytes.fromhex(text)
    (frame,) = frames_of(raw)
    assert (frame.kind, hdlc.describe(frame), frame.raw) == (kind, told, raw)
    assert hdlc.encode(frame.destination, frame.source, frame.control, frame.info) == raw


def test_the_frame_whose_information_holds_a_flag_and_one_with_an_escape() -> None:
    for name, byte in (("amshan-hdlc-flag-in-info", 0x7E), ("amshan-hdlc-escape-in-info", 0x7D)):
        (frame,) = frames_of(bytes.fromhex(CAPTURES[name]["hex"]))
        assert byte in frame.info
        assert frame.info[:3] == hdlc.LLC_RESPONSE


def test_segments_of_a_push_are_joined() -> None:
    """Iskraemeco AM550: three UI frames, the first two with the segmentation bit."""
    assembler = hdlc.Assembler()
    joined = [assembler.feed(frame) for frame in frames_of(bytes.fromhex(CAPTURES["dp-hdlc_iskra550"]["hex"]))]
    assert joined[:2] == [None, None]
    assert joined[2] is not None
    assert joined[2].startswith(hdlc.LLC_RESPONSE + b"\x0f")
    assert b"84895126" in joined[2]
    assert len(joined[2]) == sum(len(f.info) for f in frames_of(bytes.fromhex(CAPTURES["dp-hdlc_iskra550"]["hex"])))


def test_a_captured_frame_with_a_wrong_check_is_told_as_such() -> None:
    (seen,) = all_of(bytes.fromhex(CAPTURES["dp-hdlc_landis_gyr_zmf100"]["hex"]))
    assert isinstance(seen, Damaged)
    assert seen.why == "wrong FCS"
    assert seen.frame is not None
    assert (seen.frame.hcs_ok, seen.frame.fcs_ok, seen.frame.kind) == (True, False, "UI")


# -- round trips -------------------------------------------------------------------------------------------------------

addresses = st.one_of(
    st.integers(0, 127).map(lambda a: hdlc.server_address(a)),
    st.tuples(st.integers(0, 127), st.integers(0, 127)).map(lambda a: hdlc.server_address(*a)),
    st.tuples(st.integers(0, 16383), st.integers(0, 16383)).map(lambda a: hdlc.server_address(*a, 4)),
)
infos = st.one_of(st.binary(max_size=40), st.binary(max_size=200), st.just(bytes([0x7E]) * 30))
frames = st.tuples(addresses, addresses, st.integers(0, 255), infos, st.booleans())


@given(frames)
def test_what_is_coded_is_what_another_coder_makes_and_is_read_again(frame: Any) -> None:
    destination, source, control, info, segmented = frame
    raw = hdlc.encode(destination, source, control, info, segmented=segmented)
    assert raw == build(destination, source, control, info, segmented=segmented)
    assert frames_of(raw) == [Frame(destination, source, control, segmented, info, raw)]


@given(st.binary(max_size=300))
def test_the_crc_is_the_one_by_the_book(data: bytes) -> None:
    assert hdlc.crc(data) == crc_bitwise(data)


def test_the_crc_s_check_value() -> None:
    """The catalogue of parametrised CRC algorithms: CRC-16/IBM-SDLC of 123456789 is 906E."""
    assert hdlc.crc(b"123456789") == 0x906E


@given(
    st.lists(st.tuples(frames, st.booleans(), st.binary(max_size=6)), max_size=6),
    st.randoms(use_true_random=False),
)
@settings(max_examples=300)
def test_frames_are_found_however_they_are_cut_shared_or_mixed_with_noise(parts: list[Any], rng: random.Random) -> None:
    """Noise without flags between frames, one flag between neighbours or two, chunks of any size: every frame is
    found, in order, and every byte is accounted for."""
    stream = bytearray()
    sent = []
    for frame, shared, noise in parts:
        noise = noise.replace(b"\x7e", b"\x00")
        raw = hdlc.encode(*frame[:4], segmented=frame[4])
        if shared and not noise and stream[-1:] == b"\x7e":
            stream += raw[1:]
        else:
            stream += noise + raw
        sent.append(raw)
    buffer = bytearray()
    found: list[Frame | Damaged] = []
    at = 0
    while at < len(stream):
        size = rng.randrange(1, 30)
        buffer += stream[at : at + size]
        at += size
        while (seen := hdlc.take(buffer)) is not None:
            found.append(seen)
    assert [seen.raw for seen in found if isinstance(seen, Frame)] == sent
    assert bytes(buffer) in (b"", b"\x7e")


@given(st.binary(max_size=60), frames)
def test_a_good_frame_behind_any_noise_is_found(noise: bytes, frame: Any) -> None:
    """Even behind noise that looks like the start of one, unless that start passes its own check."""
    raw = hdlc.encode(*frame[:4], segmented=frame[4])
    buffer = bytearray(noise + raw)
    found = []
    while buffer:
        seen = hdlc.give_up(buffer)
        if isinstance(seen, Frame):
            found.append(seen.raw)
    assert found[-1:] == [raw]


@given(st.binary(max_size=400))
def test_any_bytes_are_taken_apart_without_an_error_and_to_the_last(data: bytes) -> None:
    buffer = bytearray(data)
    seen = []
    for _ in range(len(data) + 2):
        if not buffer:
            break
        seen.append(hdlc.give_up(buffer))
    assert not buffer
    taken = sum(len(one.raw) for one in seen if one is not None)
    assert taken <= len(data) + sum(isinstance(one, Frame) for one in seen)


def test_a_flag_as_the_last_byte_of_the_check() -> None:
    """One frame in 256: no byte is stuffed, so the length alone tells where it ends."""
    seen = 0
    for number in range(4000):
        info = b"\xe6\xe7\x00" + number.to_bytes(2, "big")
        raw = hdlc.encode(b"\x21", b"\x03", 0x30, info)
        if raw[-2] == 0x7E:
            seen += 1
            for data in (raw, raw + raw, raw + raw[1:]):
                assert [frame.info for frame in frames_of(data)] == [info] * (1 if data is raw else 2)
            buffer = bytearray(raw[:-1])
            assert hdlc.take(buffer) is None
            buffer += b"\x7e"
            assert isinstance(hdlc.take(buffer), Frame)
    assert seen > 5


def test_a_damaged_length_holds_nothing_up() -> None:
    """The header has a check of its own: a frame that claims 2000 bytes is seen to be none before they come."""
    good = hdlc.encode(b"\x21", b"\x03", 0x30, b"\xe6\xe7\x00abc")
    broken = bytearray(good)
    broken[1] |= 7
    seen = all_of(bytes(broken) + good)
    assert isinstance(seen[0], Damaged)
    assert seen[0].why == "wrong HCS"
    assert isinstance(seen[-1], Frame)
    assert seen[-1].raw == good


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\x00\x01\x02", "no frame starts here"),
        (b"\x7e\x55\x00\x7e", "no frame of type 3"),
        (b"\x7e\xa0\x04\x03\x21\x93\x0f\x01\x7e", "wrong length"),
        (b"\x7e\xa0\x30\x02\x02\x02\x02\x03\x21\x7e", "an address without an end"),
        (hdlc.encode(b"\x03", b"\x21", 0x93)[:-1] + b"\x00", "no closing flag where the length says"),
    ],
)
def test_why_bytes_are_no_frame(raw: bytes, why: str) -> None:
    (seen, *_) = all_of(raw)
    assert isinstance(seen, Damaged)
    assert seen.why == why


def test_every_single_bit_flip_is_seen() -> None:
    raw = hdlc.encode(b"\x21", b"\x02\x23", 0x30, b"\xe6\xe7\x00" + bytes(range(40)), segmented=True)
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        buffer = bytearray(flipped)
        while buffer:
            assert not isinstance(hdlc.give_up(buffer), Frame)


def test_flags_alone_are_silence() -> None:
    buffer = bytearray(b"\x7e" * 100_000)
    started = time.perf_counter()
    assert hdlc.take(buffer) is None
    assert len(buffer) == 1
    assert time.perf_counter() - started < 1


def test_a_frame_is_read_in_microseconds() -> None:
    """Frames are looked at once, and checked in C: 2000 bytes in well under a millisecond."""
    raw = hdlc.encode(b"\x21", b"\x03", 0x30, bytes(2000))
    stream = raw * 200
    started = time.perf_counter()
    assert len(frames_of(stream)) == 200
    assert time.perf_counter() - started < 0.2


def test_information_that_does_not_fit_is_refused() -> None:
    longest = 0x7FF - 2 - 1 - 1 - 3 - 2
    assert len(hdlc.encode(b"\x03", b"\x21", 0x10, bytes(longest))) == 0x7FF + 2
    with pytest.raises(BadFrame, match=f"{longest + 1} bytes of information do not fit an HDLC frame"):
        hdlc.encode(b"\x03", b"\x21", 0x10, bytes(longest + 1))


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logical", "physical", "size", "coded"),
    [
        (1, None, 0, "03"),
        (0, None, 0, "01"),
        (16, None, 0, "21"),
        (144, None, 0, "0221"),  # ZIV, client 2
        (1, 17, 0, "0223"),
        (1, 17, 2, "0223"),
        (1, 17, 4, "00020023"),
        (1, 2836, 0, "00022c29"),  # MEM600, as its users captured it
        (1, 2836, 4, "00022c29"),
        (1, 1000, 0, "00020ed1"),
        (16, 1000, 4, "00200ed1"),
        (1, None, 2, "0003"),
        (1, None, 4, "00000003"),
        (1, 0, 0, "0201"),
        (1, 127, 0, "02ff"),
    ],
)
def test_addresses_as_meters_write_them(logical: int, physical: int | None, size: int, coded: str) -> None:
    assert hdlc.server_address(logical, physical, size).hex() == coded
    if physical is not None:
        assert hdlc.address_value(bytes.fromhex(coded)) == (logical, physical)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hdlc.server_address(128, None, 1), "logical address 128 does not fit 1 byte"),
        (lambda: hdlc.server_address(1, 17, 1), r"a physical address \(17\) has no room in one byte"),
        (lambda: hdlc.server_address(1, 128, 2), "physical address 128 does not fit 1 byte"),
        (lambda: hdlc.server_address(1, 16384, 4), "physical address 16384 does not fit 2 byte"),
        (lambda: hdlc.client_address(128), "client 128 does not fit 1 byte"),
        (lambda: make_link(DlmsSettings(), "1#123"), "there is no rule to make a physical address of it"),
        (lambda: make_link(DlmsSettings(address_bytes=1), "1/17"), "has no room in one byte"),
        (lambda: make_link(DlmsSettings(interface="wrapper"), "1/17"), "which the wrapper has not"),
        (lambda: make_link(DlmsSettings(interface="wrapper"), "1", client=70000), "client 70000 does not exist"),
    ],
)
def test_addresses_that_do_not_fit_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "kept"),
    [("1", "1"), (" 01 ", "1"), ("1/17", "1/17"), ("16/0", "16/0"), ("1#00123456", "1#00123456"), ("144", "144")],
)
def test_addresses_people_write(text: str, kept: str) -> None:
    assert check_address(text) == kept


@pytest.mark.parametrize("text", ["", "a", "1/", "/1", "1#", "1/2/3", "-1", "70000", "1/16384", "1#" + "9" * 21, "１"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no DLMS address"):
        check_address(text)


@pytest.mark.parametrize(
    ("rule", "serial", "physical"),
    [
        ("SN % 10000 + 1000", 12345678, 6678),
        ("SN % 10000 + 16", 99, 115),
        ("(SN // 100) % 128 * 2 - 1", 1234567, 113),
        ("SN", 17, 17),
        ("17", 5, 17),
    ],
)
def test_rules_for_physical_addresses(rule: str, serial: int, physical: int) -> None:
    assert physical_address(rule, serial) == physical
    assert check_rule(rule) == rule


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "SN **2",
        "SN / 2",
        "__import__('os')",
        "SN.real",
        "SN if SN else 1",
        "NS + 1",
        "SN(1)",
        "(SN",
        "-SN",
        "SN; 1",
        "1_0",
        "0x10",
        "SN + 007",
        "SN, 1",
        "[SN]",
        "SN\n+1",
        "(" * 90 + "SN",
        "SN + " * 40 + "1",
    ],
)
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(UsageError, match="is no rule for physical addresses"):
        check_rule(rule)


def test_rules_whose_result_is_no_address() -> None:
    with pytest.raises(UsageError, match="makes 99999 of serial number 99999, which is no physical address"):
        physical_address("SN", 99999)
    with pytest.raises(UsageError, match="makes -1 of serial number 0"):
        physical_address("SN - 1", 0)
    with pytest.raises(UsageError, match="divides by 0 for serial number 5"):
        physical_address("1 // (SN - 5)", 5)
    assert check_rule("1000 // SN") == "1000 // SN"


# -- negotiation -------------------------------------------------------------------------------------------------------


def test_the_proposal_of_the_green_book() -> None:
    """Green Book 8.4.5.3.2: 128 bytes, windows of one."""
    assert proposal(Limits()).hex() == "818012050180060180070400000001080400000001"
    assert proposal(Limits(2030, 512, 7, 3)).hex() == "818014050207ee060202000704000000070804" + "00000003"


@pytest.mark.parametrize(
    ("proposed", "info", "holds"),
    [
        (Limits(), "", Limits()),
        (Limits(2030, 2030, 7, 7), "", Limits(128, 128, 1, 7)),  # no field: the defaults; but all it sends is heard
        (Limits(2030, 2030, 7, 7), "8180120501800601800704000000010804000000", Limits(128, 128, 1, 1)),
        (
            Limits(2030, 1000, 5, 3),
            "81801405020200060203200704000000020804" + "00000004",
            Limits(800, 512, 4, 2),  # what the meter sends is what we receive
        ),
        (Limits(128, 128, 1, 1), "818014050207ee060207ee07040000000708040000" + "0007", Limits()),
        (Limits(500, 500, 2, 2), "818006050162060164", Limits(100, 98, 1, 2)),
        (Limits(500, 500, 2, 2), "ffff06050162060164", Limits(128, 128, 1, 2)),
        (Limits(500, 500, 2, 2), "8180140502", Limits(128, 128, 1, 2)),
    ],
)
def test_what_a_ua_settles(proposed: Limits, info: str, holds: Limits) -> None:
    assert accepted(proposed, bytes.fromhex(info)) == holds

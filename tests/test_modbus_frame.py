"""Frames of Modbus: published examples first, then what a line does to them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymodbus.framer.rtu import FramerRTU

from headend.errors import UsageError
from headend.protocols import PROTOCOLS
from headend.protocols.modbus.frame import (
    Question,
    find_rtu,
    find_tcp,
    identification_size,
    rtu,
    rtu_sound,
    strangers,
    tcp,
    tcp_frames,
)
from headend.protocols.modbus.library import (
    crc,
    identification,
    identify_request,
    read_request,
    write_request,
)
from tests.modbus_slave import crc_bytes, frame_rtu, frame_tcp

# simplymodbus.ca, FC01 to FC16, and the Eastron SDM protocol's example (voltage of phase 1, 230.2 V).
PUBLISHED = (
    "110100130025 0E84", "110105CD6BB20E1B 45E6", "110200C40016 BAA9", "110203ACDB35 2018", "1103006B0003 7687",
    "110306AE4156524340 49AD", "110400080001 B298", "110402000A F8F4", "110600010003 9A9B", "111000010002 1298",
    "11100001000204000A0102 C6F0", "0A0104A10001 AC63", "0A8102 B053", "010400000002 71CB", "01040443663334 1B38",
)  # fmt: skip

# MODBUS Application Protocol Specification V1.1b3, the examples of 6.1 to 6.4, 6.6 and 6.12.
REQUESTS = (
    (read_request(1, 19, 19), "0100130013"),
    (read_request(2, 196, 22), "0200C40016"),
    (read_request(3, 107, 3), "03006B0003"),
    (read_request(4, 8, 1), "0400080001"),
    (write_request(1, bytes.fromhex("0003"), single=True), "0600010003"),
    (write_request(1, bytes.fromhex("000A0102"), single=False), "10000100020 4000A0102".replace(" ", "")),
    (identify_request(1, 0), "2B0E0100"),
)


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_frames_have_our_crc(text: str) -> None:
    frame = bytes.fromhex(text)
    assert crc(frame[:-2]).to_bytes(2, "little") == frame[-2:]
    assert rtu(frame[0], frame[1:-2]) == frame
    assert rtu_sound(frame)


@pytest.mark.parametrize(("pdu", "text"), REQUESTS)
def test_requests_are_those_of_the_specification(pdu: bytes, text: str) -> None:
    assert pdu.hex().upper() == text


@given(st.binary(max_size=300))
def test_crc_is_the_standards_and_the_librarys(data: bytes) -> None:
    assert crc(data).to_bytes(2, "little") == crc_bytes(data)
    assert crc(data).to_bytes(2, "little") == FramerRTU.compute_CRC(data).to_bytes(2, "big")


@pytest.mark.parametrize("count", [0, 126, 70_000])
def test_a_read_of_none_or_too_many_is_not_made(count: int) -> None:
    with pytest.raises(ValueError, match="count"):
        read_request(3, 0, count)


QUESTION = Question(1, read_request(3, 0, 2), b"\x03\x04", 6)
ANSWER = frame_rtu(1, bytes.fromhex("0304DEADBEEF"))


@settings(deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_an_answer_is_found_behind_noise(before: bytes, after: bytes) -> None:
    assert find_rtu(before + ANSWER, QUESTION) == ANSWER[1:-2]
    assert find_rtu(before + ANSWER + after[:2], QUESTION) == ANSWER[1:-2]
    assert find_rtu(before + ANSWER + b"\x00\xff\x00\x00", QUESTION) == ANSWER[1:-2]
    assert find_rtu(before + ANSWER + after, QUESTION) in {ANSWER[1:-2], None}


@pytest.mark.parametrize("damage", [b"\x01\x03\x04\xde\xad\xbe\xef\x00\x01", b"\x01\x03\x04\xde", b"\x55\x66\x77\x88"])
def test_a_whole_answer_before_a_damaged_one_may_be_stale(damage: bytes) -> None:
    assert find_rtu(ANSWER + damage, QUESTION) is None


@pytest.mark.parametrize(
    "frame",
    [
        frame_rtu(2, bytes.fromhex("0304DEADBEEF")),  # another unit
        frame_rtu(1, bytes.fromhex("0404DEADBEEF")),  # another function
        frame_rtu(1, bytes.fromhex("0302DEAD")),  # too few registers
        frame_rtu(1, bytes.fromhex("0306DEADBEEF0001")),  # too many
        frame_rtu(1, bytes.fromhex("0304DEADBE")),  # cut short, with a CRC of its own
        ANSWER[:-1] + bytes((ANSWER[-1] ^ 1,)),  # a wrong CRC
        ANSWER[:-1],  # not whole yet
        frame_rtu(1, b"\x84\x02"),  # an exception to another function
    ],
)
def test_what_is_not_the_answer_is_not_taken(frame: bytes) -> None:
    assert find_rtu(frame, QUESTION) is None


def test_of_two_whole_answers_the_later_counts() -> None:
    late = frame_rtu(1, bytes.fromhex("030400000001"))
    assert find_rtu(late + ANSWER, QUESTION) == ANSWER[1:-2]


@settings(deadline=None)
@given(st.integers(0, 8 * len(ANSWER) - 1), st.integers(0, 8 * len(ANSWER) - 1))
def test_one_or_two_flipped_bits_never_pass(first: int, second: int) -> None:
    flipped = int.from_bytes(ANSWER, "big") ^ (1 << first) ^ ((1 << second) if second != first else 0)
    assert find_rtu(flipped.to_bytes(len(ANSWER), "big"), QUESTION) is None


def test_strangers_are_told_apart() -> None:
    heard = b"\x55" + frame_rtu(7, bytes.fromhex("04020001")) + frame_rtu(9, b"\x83\x02") + b"\x00"
    assert list(strangers(heard)) == [(7, bytes.fromhex("04020001")), (9, b"\x83\x02")]


# MODBUS Messaging on TCP/IP Implementation Guide V1.0b: read of register 4 of unit FF, transaction 1501H.
def test_the_header_is_that_of_the_guide() -> None:
    assert tcp(0x1501, 0xFF, bytes.fromhex("0300040001")).hex() == "15010000" + "0006" + "ff" + "0300040001"
    assert list(tcp_frames(bytes.fromhex("150100000005ff03020005"))) == [(0x1501, 0xFF, bytes.fromhex("03020005"))]


@settings(deadline=None)
@given(st.binary(max_size=30), st.integers(0, 0xFFFF))
def test_a_tcp_answer_is_found_by_its_transaction(before: bytes, transaction: int) -> None:
    other = frame_tcp(transaction ^ 1, 1, bytes.fromhex("030400000001"))
    right = frame_tcp(transaction, 1, ANSWER[1:-2])
    assert find_tcp(other, transaction) is None
    found = find_tcp(other + right, transaction)
    assert found == (1, ANSWER[1:-2])
    assert find_tcp(before + right, transaction) is not None


def test_an_identification_says_its_own_length() -> None:
    pdu = bytes.fromhex("2B0E0101000003") + b"\x00\x03ABB" + b"\x01\x02B2" + b"\x02\x05V2.11"
    assert identification_size(pdu) == len(pdu)
    assert all(identification_size(pdu[:cut]) == 0 for cut in range(len(pdu)))
    assert identification(pdu) == ({0: b"ABB", 1: b"B2", 2: b"V2.11"}, None)


@pytest.mark.parametrize(("text", "rtu_form"), [("1", "1"), (" 007 ", "7"), ("247", "247")])
def test_unit_ids_are_numbers(text: str, rtu_form: str) -> None:
    assert PROTOCOLS["modbus-rtu"].check_address(text) == rtu_form
    assert PROTOCOLS["modbus-tcp"].check_address(text) == rtu_form


@pytest.mark.parametrize("text", ["", "0", "248", "x", "1.5", "-1", "٣", "1000000000000"])
def test_what_is_no_unit_id_on_a_serial_line(text: str) -> None:
    with pytest.raises(UsageError, match="write a number from 1 to 247"):
        PROTOCOLS["modbus-rtu"].check_address(text)


def test_on_tcp_every_byte_is_a_unit_id() -> None:
    assert [PROTOCOLS["modbus-tcp"].check_address(text) for text in ("0", "248", "255")] == ["0", "248", "255"]
    with pytest.raises(UsageError, match="from 0 to 255"):
        PROTOCOLS["modbus-tcp"].check_address("256")

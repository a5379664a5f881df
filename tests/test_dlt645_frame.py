"""Frames and the scanner: found in any chunking, never misread, never a hang, bounded."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.errors import UsageError
from headend.protocols.dlt645.frame import Frame, Scanner, check_address, encode, matches
from tests.dlt645_wire import ADDRESS, read_answer, read_request, wire

ADDRESSES = st.integers(0, 10**12 - 1).map(lambda n: f"{n:012d}")
FRAMES = st.tuples(ADDRESSES, st.integers(0, 255), st.binary(max_size=200))


@given(FRAMES)
def test_encode_agrees_with_an_independent_encoder(frame: tuple[str, int, bytes]) -> None:
    assert encode(*frame) == wire(*frame)


@given(st.lists(FRAMES, max_size=4), st.data())
def test_frames_are_found_in_any_chunking(frames: list[tuple[str, int, bytes]], data: st.DataObject) -> None:
    stream = b"".join(wire(*frame, fe=data.draw(st.integers(0, 6))) for frame in frames)
    scanner = Scanner()
    found: list[Frame] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += scanner.feed(stream[:size])
        stream = stream[size:]
    assert found == [Frame(*frame) for frame in frames]
    assert scanner.noise == 0


@given(st.binary(max_size=600), st.integers(1, 40))
def test_any_bytes_in_any_chunks_give_the_same_frames_and_never_raise(stream: bytes, size: int) -> None:
    whole, pieces = Scanner(), Scanner()
    at_once = whole.feed(stream) + whole.flush()
    bit_by_bit = [f for i in range(0, len(stream), size) for f in pieces.feed(stream[i : i + size])] + pieces.flush()
    assert at_once == bit_by_bit
    assert whole.noise == pieces.noise


@settings(max_examples=50)
@given(st.lists(st.sampled_from([0x68, 0x16, 0x33, 0xFE, 0x91, 0x00]), max_size=400).map(bytes))
def test_start_and_end_bytes_everywhere_do_not_hide_a_frame(noise: bytes) -> None:
    frame = read_answer("00010000", bytes.fromhex("68166816"))
    scanner = Scanner()
    found = scanner.feed(noise + frame)
    assert Frame(ADDRESS, 0x91, bytes.fromhex("00000100 68166816")) in found + scanner.flush()


def test_a_false_start_that_waits_for_more_is_given_up_when_the_line_falls_silent() -> None:
    false_start = bytes.fromhex("68 000000000000 68 91 FF".replace(" ", ""))
    scanner = Scanner()
    assert scanner.feed(false_start + read_answer("00010000", b"\x01\x02\x03\x04")) == []
    assert [f.data[4:] for f in scanner.flush()] == [b"\x01\x02\x03\x04"]
    assert scanner.noise == len(false_start)


def test_memory_is_bounded_by_one_unfinished_frame() -> None:
    scanner = Scanner()
    for _ in range(2000):
        scanner.feed(b"\x68" * 50)
        assert len(scanner._buffer) <= 12 + 255


def test_cost_grows_with_the_length_only() -> None:
    def cost_s(size: int) -> float:
        data = bytes(random.Random(1).choices([0x68, 0x16, 0x68, 0x68], k=size))
        started = time.perf_counter()
        Scanner().feed(data)
        return time.perf_counter() - started

    small = min(cost_s(4_000) for _ in range(3))
    large = min(cost_s(40_000) for _ in range(3))
    assert large < 40 * small  # ten times the bytes; a square law would give a hundred


def test_control_code_bits() -> None:
    frame = Frame(ADDRESS, 0xB1, bytes.fromhex("0000010011"))
    assert (frame.from_meter, frame.abnormal, frame.more, frame.function, frame.di) == (
        True,
        False,
        True,
        0x11,
        "00010000",
    )
    assert Frame(ADDRESS, 0xD1, b"\x02").abnormal
    assert not Frame(ADDRESS, 0x11, b"").from_meter


def test_wake_up_is_four_fe() -> None:
    assert read_request("00010000") == encode(ADDRESS, 0x11, b"\x00\x00\x01\x00")
    assert encode(ADDRESS, 0x11).startswith(b"\xfe\xfe\xfe\xfe\x68")


@pytest.mark.parametrize(
    ("asked", "heard", "answer"),
    [
        (ADDRESS, ADDRESS, True),
        (ADDRESS, "000000193601", False),
        ("AAAAAAAAAAAA", "000000193600", True),
        ("AAAAAAAAAAAA", "AAAAAAAAAAAA", True),
        ("AAAAAAAA3600", "000000193600", True),
        ("AAAAAAAA3600", "000000193601", False),
        (ADDRESS, "AAAAAAAAAAAA", False),
    ],
)
def test_which_address_answers_for_which(asked: str, heard: str, answer: bool) -> None:
    assert matches(asked, heard) is answer


@pytest.mark.parametrize(
    ("text", "address"),
    [("193600", "000000193600"), (" 000000193600 ", "000000193600"), ("123456789012", "123456789012"), ("0", "0" * 12)],
)
def test_addresses_are_padded(text: str, address: str) -> None:
    assert check_address(text) == address


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no DL/T 645 address"),
        ("12a4", "is no DL/T 645 address"),
        ("１２３", "is no DL/T 645 address"),
        ("1234567890123", "has 13 digits"),
        ("999999999999", "broadcast"),
        ("AAAAAAAAAAAA", "stands for any meter"),
    ],
)
def test_what_is_no_address_is_refused_with_advice(text: str, said: str) -> None:
    with pytest.raises(UsageError, match="->") as caught:
        check_address(text)
    assert said in str(caught.value)

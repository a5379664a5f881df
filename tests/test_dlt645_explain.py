"""`explain`: never raises, misses nothing odd, and its JSON is plain."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.protocols import PROTOCOLS, Explanation, dlt645
from tests.dlt645_wire import ADDRESS, di_bytes, kwh, local, minute, read_answer, read_request, wire

explain = PROTOCOLS["dlt645-2007"].explain
EVERY = (explain, PROTOCOLS["dlt645-1997"].explain, dlt645.explain)
every_version = pytest.mark.parametrize("explain", EVERY, ids=("2007", "1997", "either"))
GOOD = read_answer("00010000", kwh("230.93"))


def problems(data: bytes) -> str:
    return " | ".join(explain(data).problems)


@every_version
@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes(explain: Callable[[bytes], Explanation], data: bytes) -> None:
    explanation = explain(data)
    json.dumps(explanation.to_json())
    assert explanation.summary
    assert explanation.ok or explanation.problems


@every_version
@settings(max_examples=400)
@given(st.integers(0, 255), st.binary(max_size=220), st.binary(max_size=8), st.binary(max_size=8))
def test_any_control_code_and_data(
    explain: Callable[[bytes], Explanation], control: int, data: bytes, before: bytes, after: bytes
) -> None:
    explanation = explain(before + wire(ADDRESS, control, data) + after)
    json.dumps(explanation.to_json())
    assert explanation.summary


@given(st.sampled_from(range(len(GOOD))), st.integers(0, 255))
def test_a_cut_or_spoilt_frame(at: int, byte: int) -> None:
    assert not explain(GOOD[:at]).ok
    changed = GOOD[:at] + bytes((byte,)) + GOOD[at + 1 :]
    if changed != GOOD and at >= 4:
        assert not explain(changed).ok
        assert explain(changed).problems


def test_a_good_answer() -> None:
    explanation = explain(GOOD)
    assert explanation.ok
    assert explanation.problems == ()
    assert explanation.summary == (
        "answer from 000000193600: read data: 00010000 forward active energy total, current = 230.93 kWh"
    )
    (value,) = explanation.values
    assert (value.name, value.name_zh, value.value, value.unit, value.obis, value.di) == (
        "forward active energy total, current",
        "(当前)正向有功总电能",
        "230.93",
        "kWh",
        "1-0:1.8.0",
        "00010000",
    )
    assert explanation.to_json()["values"][0]["value"] == "230.93"


def test_it_names_what_is_wrong() -> None:
    assert "no bytes" in problems(b"")
    assert "none of them starts" in problems(b"\x01\x02")
    spoilt = GOOD[:-2] + bytes(((GOOD[-2] + 1) & 0xFF, 0x16))
    assert f"checksum {spoilt[-2]:02X} is wrong, {GOOD[-2]:02X} would be right" in problems(spoilt)
    assert "end byte 17 is wrong" in problems(GOOD[:-1] + b"\x17")
    assert "3 bytes before the frame: 010203" in problems(b"\x01\x02\x03" + GOOD)
    assert "2 bytes after the frame: 0405" in problems(GOOD + b"\x04\x05")
    assert "cut off: 19 bytes of 20" in problems(GOOD[4:-1])
    assert "cut off after 5 bytes" in problems(GOOD[4:9])
    assert "000E0000 has digits above nine" in problems(read_answer("00010000", b"\x00\x00\x0e\x00"))
    assert "identifier 12345678 is not in the catalogue" in problems(read_answer("12345678", b"\x01"))
    assert "perhaps the maker's own" in problems(wire(ADDRESS, 0x80, b"\x01"))
    assert "DL/T 645-1997" in problems(wire(ADDRESS, 0x81, b"\x10\x90\0\0\0\0"))
    assert "no meter answers" in problems(read_request("00010000", address="9" * 12))
    assert "digits above nine" in problems(wire("3A2107000481", 0x11, b"\0\0\1\0"))
    assert "at most 200" in problems(read_answer("000100FF", bytes(208)))
    assert "flags of an answer" in problems(wire(ADDRESS, 0x23, b"\x01"))
    assert "too few for an identifier" in problems(wire(ADDRESS, 0x91, b"\x01"))


@pytest.mark.parametrize(
    ("word", "names"),
    [
        (0x02, "no such data"),
        (0x06, "no such data, wrong password or not authorised"),
        (0x48, "baud rate can't be changed, too many rates"),
        (0x31, "other error, too many year zones, too many day periods"),
    ],
)
def test_error_words_are_named(word: int, names: str) -> None:
    explanation = explain(wire(ADDRESS, 0xD1, bytes((word,))))
    assert explanation.ok
    assert explanation.summary.endswith(f"refused: {names}")
    assert f"error word {word:02X}, {names}" in explanation.problems[0]


def test_null_values_are_no_problem_but_have_no_value() -> None:
    explanation = explain(read_answer("00010000", b"\xff" * 4))
    assert explanation.problems == ()
    assert explanation.values[0].value is None
    assert explanation.values[0].note == "not there (all FF)"


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (read_request("06100601", b"\x2f" + minute(local(2025, 11, 1))), "47 records from 2025-11-01 00:00"),
        (wire(ADDRESS, 0x12, di_bytes("06100601") + b"\x02"), "read follow-up data"),
        (wire("AAAAAAAAAAAA", 0x13), "request to AAAAAAAAAAAA (any meter): read address"),
        (wire("9" * 12, 0x16, b"\x99" * 4), "freeze: now"),
        (wire("9" * 12, 0x16, bytes.fromhex("00009999")), "freeze: 99990000"),
        (wire(ADDRESS, 0x17, b"\x08"), "change baud rate: 2400 baud"),
        (wire(ADDRESS, 0x94), "write data: done"),
        (wire(ADDRESS, 0x1B, bytes(8) + b"\xff\xff\xff\xff"), "clear events: of FFFFFFFF"),
        (wire(ADDRESS, 0x92, di_bytes("06100601") + b"\x01\x02\x03"), "answer from"),
    ],
)
def test_other_functions(frame: bytes, said: str) -> None:
    explanation = explain(frame)
    assert explanation.ok
    assert said in explanation.summary
    assert explanation.problems == ()


# --- which version ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "data", "version"),
    [
        *((code, b"\x10\x90", "1997") for code in (0x01, 0x81, 0xA1, 0xC1, 0x02, 0x82, 0x04, 0x84, 0xC4)),
        *((code, b"\x20", "1997") for code in (0x0A, 0x0C, 0x8C, 0x0F, 0x10, 0x90)),
        *((code, bytes(4), "2007") for code in (0x11, 0x91, 0xB1, 0xD1, 0x12, 0x14, 0x1A, 0x1C, 0x9C, 0xDC)),
        (0x08, bytes.fromhex("000000010125"), "2007"),
        (0x88, b"", "2007"),
        (0x03, b"", "1997"),
        (0x83, bytes(8), "2007"),
        (0x05, b"", "2007"),
    ],
)
def test_the_function_decides(control: int, data: bytes, version: str) -> None:
    explanation = dlt645.explain(wire(ADDRESS, control, data))
    assert ("(DL/T 645-1997)" in explanation.summary) is (version == "1997")
    said = [f.text for f in explanation.fields if f.name == "version"]
    assert bool(said) is (control & 0x1F in (0x03, 0x08))
    assert all("1997" in text and "2007" in text for text in said)


def test_forced_the_other_version_says_whose_it_is() -> None:
    assert "belongs to DL/T 645-1997" in " ".join(explain(wire(ADDRESS, 0x81, b"\x10\x90")).problems)
    assert "belongs to DL/T 645-2007" in " ".join(EVERY[1](GOOD).problems)


def test_the_same_baud_byte_is_another_speed() -> None:
    assert dlt645.explain(wire(ADDRESS, 0x17, b"\x20")).summary.endswith(": 9600 baud")
    assert dlt645.explain(wire(ADDRESS, 0x0C, b"\x20")).summary.endswith(": 4800 baud")


@pytest.mark.parametrize(
    ("control", "data"),
    [
        (0x14, di_bytes("04000B01") + bytes.fromhex("02 ababab 00000000 0001")),
        (0x18, di_bytes("04000C03") + bytes.fromhex("02 ababab 02 ababab")),
        (0x98, bytes.fromhex("02 ababab")),
        (0x19, bytes.fromhex("02 ababab 00000000")),
        (0x1A, bytes.fromhex("02 ababab 00000000")),
        (0x1B, bytes.fromhex("02 ababab 00000000 ffffffff")),
        (0x1C, bytes.fromhex("02 ababab 00000000 1a00 000000010130")),
        (0x04, di_bytes("C010") + bytes.fromhex("abababab 06060719")),
        (0x0F, bytes.fromhex("abababab abababab")),
        (0x8F, bytes.fromhex("abababab")),
    ],
)
def test_passwords_are_not_spelled_out(control: int, data: bytes) -> None:
    told = json.dumps(dlt645.explain(wire(ADDRESS, control, data)).to_json(), ensure_ascii=False)
    assert "ABAB" not in told
    assert dlt645.explain(wire(ADDRESS, control, data)).problems == ()

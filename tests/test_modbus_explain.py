"""What Modbus frames say: published ones first, damaged ones, any bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.meter_models import SHIPPED_MODELS, load_model
from headend.errors import UsageError
from headend.protocols import PROTOCOLS
from headend.protocols.modbus import RegisterMap, explain
from headend.protocols.modbus.items import decode_item, is_item, parse_item
from tests.modbus_slave import Slave, converse, frame_rtu, frame_tcp, words


def _sdm630() -> RegisterMap:
    details = load_model(SHIPPED_MODELS / "modbus-eastron-sdm630.toml").details
    assert isinstance(details, RegisterMap)
    return details


SDM = _sdm630()


def _rtu(text: str) -> str:
    return PROTOCOLS["modbus-rtu"].explain(bytes.fromhex(text)).summary


# simplymodbus.ca.
@pytest.mark.parametrize(
    ("frame", "summary"),
    [
        ("110100130025 0E84", "asks unit 17 to read coils: 37 from 19 (0x0013)"),
        ("110105CD6BB20E1B 45E6", "unit 17 answers with 5 bytes"),
        ("1103006B0003 7687", "asks unit 17 to read holding registers: 3 from 107 (0x006B)"),
        ("110306AE4156524340 49AD", "unit 17 answers with 3 registers"),
        ("110600010003 9A9B", "unit 17: write one register at 1 (0x0001), request, or the answer, which is the same"),
        ("11100001000204000A0102 C6F0", "unit 17: write registers at 1 (0x0001), request"),
        ("111000010002 1298", "unit 17: write registers at 1 (0x0001), done"),
        ("0A8102 B053", "unit 10 refuses to read coils: illegal data address (02)"),
    ],
)
def test_published_frames(frame: str, summary: str) -> None:
    assert _rtu(frame) == summary


def test_a_request_whose_address_looks_like_a_byte_count_is_a_request() -> None:
    request = frame_rtu(1, bytes.fromhex("0303000001"))
    assert explain(request).summary == "asks unit 1 to read holding registers: 1 from 768 (0x0300)"
    assert explain(frame_rtu(1, bytes.fromhex("0103000008"))).summary.startswith("asks unit 1 to read coils")


def test_request_and_answer_together_name_the_registers() -> None:
    """The Eastron protocol's example: voltage of phase 1, 230.2 V."""
    told = explain(bytes.fromhex("01040000000271CB" + "0104044366333 41B38".replace(" ", "")), SDM)
    assert told.ok
    assert told.problems == ()
    (value,) = told.values
    assert (value.name, value.value, value.unit, value.obis) == ("voltage_v_a", "230.20001", "V", "1-0:32.7.0")
    assert "4:0x0000:2:f32 is 4366 3334" in value.note
    assert "next step is 0.0000152587890625 V" in value.note


@pytest.mark.parametrize("transaction", [0, 7])
def test_tcp_pairs_by_transaction(transaction: int) -> None:
    request = frame_tcp(7, 1, bytes.fromhex("0400480002"))
    answer = frame_tcp(transaction, 1, bytes.fromhex("0404449A51EC"))
    told = PROTOCOLS["modbus-tcp"].explain(request + answer)
    assert told.ok
    assert [value.name for value in told.values] == (
        ["register 0x0048", "register 0x0049"] if transaction == 7 else ["register +0", "register +1"]
    )
    named = explain(request + answer, SDM)
    assert [value.value for value in named.values][:1] == (["1234.56"] if transaction == 7 else ["17562"])


def test_an_identification_is_told() -> None:
    pdu = bytes.fromhex("2B0E0101000003") + b"\x00\x03ABB" + b"\x01\x02B2" + b"\x02\x05V2.11"
    told = explain(frame_rtu(3, pdu))
    assert told.summary == "unit 3 says who it is"
    assert [(one.name, one.value) for one in told.values] == [
        ("vendor", "ABB"), ("product code", "B2"), ("revision", "V2.11"),
    ]  # fmt: skip


def test_a_wrong_crc_is_told_with_the_right_one() -> None:
    told = explain(bytes.fromhex("1103006B00037688"))
    assert not told.ok
    assert told.problems == ("the CRC 76 88 is wrong, 76 87 would be right; or bytes are missing",)


def test_the_other_framing_is_named() -> None:
    told = PROTOCOLS["modbus-rtu"].explain(frame_tcp(1, 1, bytes.fromhex("0300000001")))
    assert not told.ok
    assert told.problems[-1] == "it is a whole frame with an MBAP header: the meter's protocol is modbus-tcp"
    told = PROTOCOLS["modbus-tcp"].explain(bytes.fromhex("1103006B00037687"))
    assert told.problems[-1] == "it is a sound frame of a serial line: the meter's protocol is modbus-rtu"


def test_noise_and_a_count_that_does_not_fit_are_odd() -> None:
    told = explain(b"\xff" + bytes.fromhex("1103006B00037687") + b"\x00")
    assert told.ok
    assert told.problems == ("1 bytes that are part of no frame", "1 bytes that are part of no frame")
    told = explain(bytes.fromhex("1103006B00037687") + frame_rtu(17, bytes.fromhex("03020001")))
    assert told.problems == ("2 bytes, the request before asks for 6",)
    assert explain(frame_rtu(1, bytes.fromhex("03000000C8"))).problems == ("a count of 200: 1 to 125 can be asked for",)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=80), st.builds(frame_rtu, st.integers(0, 255), st.binary(min_size=1, max_size=30))))
def test_any_bytes_are_explained(data: bytes) -> None:
    for how in (explain, PROTOCOLS["modbus-rtu"].explain, PROTOCOLS["modbus-tcp"].explain):
        told = how(data)
        assert told.summary
        assert told.ok or told.problems
        assert told.to_json()["summary"] == told.summary
    assert explain(data, SDM).summary


@settings(deadline=None)
@given(st.integers(0, 65535), st.integers(0, 255), st.binary(min_size=1, max_size=40))
def test_any_tcp_frame_is_explained(transaction: int, unit: int, pdu: bytes) -> None:
    told = PROTOCOLS["modbus-tcp"].explain(frame_tcp(transaction, unit, pdu))
    assert told.ok
    assert "".join(field.hex for field in told.fields).startswith(f"{transaction:04X}0000")


# -- identifiers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("3:0x0100:2:f32", (3, 0x100, 2, "f32", "big")),
        ("4:72:2:F32:little", (4, 72, 2, "f32", "little")),
        ("3:0X0100", (3, 0x100, 1, "u16", "big")),
        ("3:5:4:ascii", (3, 5, 4, "ascii", "big")),
        ("1:7", (1, 7, 1, "bool", "big")),
    ],
)
def test_identifiers(text: str, place: tuple[int, int, int, str, str]) -> None:
    one = parse_item(text)
    assert (one.function, one.address, one.words, one.type, one.word_order) == place
    assert is_item(text)


@pytest.mark.parametrize(
    "text",
    ["3", "5:0", "3:65536", "3:x", "3:0:2:f33", "3:0:3:f32", "3:0:0:ascii", "3:0:126:ascii", "3:0:2:f32:odd",
     "1:0:1:u16", "3:0:1:bool", "3:0:1:u16:big:x", "3:-1", "3:0x", "3:٣"],
)  # fmt: skip
def test_what_is_no_identifier(text: str) -> None:
    with pytest.raises(UsageError):
        parse_item(text)


@pytest.mark.parametrize("text", ["import_kwh", "00010000", "1-0:1.8.0", "1.0.1.8.0.255", "2026-03-01T00:00"])
def test_other_names_are_no_identifiers(text: str) -> None:
    assert not is_item(text)


@pytest.mark.parametrize("protocol", ["modbus-rtu", "modbus-tcp"])
def test_an_item_is_read_and_told(protocol: str) -> None:
    driver = PROTOCOLS[protocol]
    assert driver.read_item is not None
    assert driver.decode_item is not None
    slave = Slave({4: words(0x48, bytes.fromhex("449A51EC")), 1: {3: 1}})
    answer = slave.tcp if protocol == "modbus-tcp" else slave.rtu
    data = converse(driver.read_item("1", "4:0X0048:2:F32"), answer)
    (value,) = driver.decode_item("4:0X0048:2:F32", data)
    assert (value.name, value.value) == ("4:0x0048:2:f32", "1234.56")
    assert converse(driver.read_item("1", "1:3"), answer) == b"\x01"


def test_decoding_an_item_never_raises() -> None:
    assert decode_item("nonsense", b"")[0].value is None
    (value,) = decode_item("3:0:2:bcd32", bytes.fromhex("0012345F"))
    assert value.value is None
    assert "is no BCD number" in value.note
    assert decode_item("3:0:2:f32", b"\x00")[0].note.endswith("1 bytes, 4 are due")

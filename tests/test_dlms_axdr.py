"""A-XDR: every type both ways, sizes in their shortest form, and damage that costs nothing and hangs nothing."""

from __future__ import annotations

import struct
import time
import tracemalloc
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.errors import BadFrame, UsageError
from headend.protocols.dlms.axdr import (
    DONT_CARE,
    MAX_DEPTH,
    NULL,
    Datum,
    Tag,
    decode,
    decode_all,
    decode_length,
    encode,
    encode_length,
)

# Written out by hand from IEC 62056-5-3 clause 8 and the Blue Book's table of types.
KNOWN = [
    ("00", NULL),
    ("ff", DONT_CARE),
    ("0301", Datum(Tag.BOOLEAN, True)),
    ("0300", Datum(Tag.BOOLEAN, False)),
    ("0407fe", Datum(Tag.BIT_STRING, "1111111")),
    ("0410a5c3", Datum(Tag.BIT_STRING, "1010010111000011")),
    ("0400", Datum(Tag.BIT_STRING, "")),
    ("05ffffffff", Datum(Tag.DOUBLE_LONG, -1)),
    ("0680000000", Datum(Tag.DOUBLE_LONG_UNSIGNED, 2**31)),
    ("0902abcd", Datum(Tag.OCTET_STRING, b"\xab\xcd")),
    ("0900", Datum(Tag.OCTET_STRING, b"")),
    ("0a03414243", Datum(Tag.VISIBLE_STRING, "ABC")),
    ("0c06e794b5e883bd", Datum(Tag.UTF8_STRING, "电能")),
    ("0d42", Datum(Tag.BCD, 0x42)),
    ("0f80", Datum(Tag.INTEGER, -128)),
    ("108000", Datum(Tag.LONG, -32768)),
    ("11ff", Datum(Tag.UNSIGNED, 255)),
    ("12ffff", Datum(Tag.LONG_UNSIGNED, 65535)),
    ("14ffffffffffffffff", Datum(Tag.LONG64, -1)),
    ("15ffffffffffffffff", Datum(Tag.LONG64_UNSIGNED, 2**64 - 1)),
    ("161e", Datum(Tag.ENUM, 30)),
    ("173dcccccd", Datum(Tag.FLOAT32, Decimal("0.1"))),
    ("183fb999999999999a", Datum(Tag.FLOAT64, Decimal("0.1"))),
    ("1907e80101ff00000000800000", Datum(Tag.DATE_TIME, bytes.fromhex("07e80101ff00000000800000"))),
    ("1a07e80101ff", Datum(Tag.DATE, bytes.fromhex("07e80101ff"))),
    ("1b00000000", Datum(Tag.TIME, bytes(4))),
    ("0100", Datum(Tag.ARRAY, ())),
    ("02021101 0a0141".replace(" ", ""), Datum(2, (Datum(Tag.UNSIGNED, 1), Datum(Tag.VISIBLE_STRING, "A")))),
]


@pytest.mark.parametrize(("text", "datum"), KNOWN, ids=[text[:12] for text, _ in KNOWN])
def test_every_type_reads_and_writes(text: str, datum: Datum) -> None:
    assert decode_all(bytes.fromhex(text)) == datum
    assert encode(datum).hex() == text


@pytest.mark.parametrize(
    ("size", "head"), [(0, "00"), (127, "7f"), (128, "8180"), (255, "81ff"), (256, "820100"), (70_000, "83011170")]
)
def test_lengths_are_written_in_their_shortest_form(size: int, head: str) -> None:
    assert encode_length(size).hex() == head
    assert encode(Datum(Tag.OCTET_STRING, b"x" * size))[1:].hex().startswith(head)
    assert decode_all(encode(Datum(Tag.OCTET_STRING, b"x" * size))).value == b"x" * size


@pytest.mark.parametrize("head", ["8105", "820005", "83000005", "8400000005"])
def test_longer_forms_of_a_length_are_read(head: str) -> None:
    assert decode_all(bytes.fromhex(f"09{head}") + b"hello").value == b"hello"


@pytest.mark.parametrize("head", ["80", "85", "ff", "8500000000"])
def test_what_is_no_length_is_refused(head: str) -> None:
    with pytest.raises(BadFrame, match="length"):
        decode_length(bytes.fromhex(head) + bytes(8), 0)


def test_a_datum_in_the_middle_gives_the_offset_after_it() -> None:
    assert decode(bytes.fromhex("ffff1105ff"), 2) == (Datum(Tag.UNSIGNED, 5), 4)
    with pytest.raises(BadFrame, match="1 byte"):
        decode_all(bytes.fromhex("110500"))


# --- compact arrays ---------------------------------------------------------------------------------------------------


def test_a_compact_array_of_numbers() -> None:
    array = decode_all(bytes.fromhex("13 12 06 0001 0002 ffff".replace(" ", "")))
    assert array == Datum(Tag.ARRAY, tuple(Datum(Tag.LONG_UNSIGNED, one) for one in (1, 2, 65535)))


def test_a_compact_array_of_structures_with_arrays_strings_and_nulls() -> None:
    # structure of: octet-string, array of two unsigned, null, structure of boolean
    text = "13 02 04 09 01 0002 11 00 02 01 03" + "0d" + "02 6162 01 02 01" + "03 616263 03 04 00"
    array = decode_all(bytes.fromhex(text.replace(" ", "")))
    assert array.tag == Tag.ARRAY
    first, second = array.value
    assert first.value == (
        Datum(Tag.OCTET_STRING, b"ab"),
        Datum(Tag.ARRAY, (Datum(Tag.UNSIGNED, 1), Datum(Tag.UNSIGNED, 2))),
        NULL,
        Datum(Tag.STRUCTURE, (Datum(Tag.BOOLEAN, True),)),
    )
    assert second.value[0] == Datum(Tag.OCTET_STRING, b"abc")
    assert encode(Datum(Tag.COMPACT_ARRAY, array.value)).hex() == text.replace(" ", "")


def test_a_compact_array_without_contents_is_empty() -> None:
    assert decode_all(bytes.fromhex("130600")) == Datum(Tag.ARRAY, ())


@pytest.mark.parametrize(
    "text",
    [
        "130001ff",  # elements of null can't have contents
        "13020001ff",  # nor can empty structures
        "1301000012 01ff",  # nor arrays of none
        "13 13 1100 00",  # a compact array in one
        "13 06 03 000000",  # contents end in an element
        "13 01ffff 00 0400000000",  # 65,535 nulls an element
        "13 02 02 11 01ffff 00 04 00000000",  # and beside a byte of contents
        "13 01ffff 01ffff 00 0411223344",  # nested
        "13" + "02 01" * 40 + "11 01 05",  # nested too deep
    ],
)
def test_compact_arrays_that_make_no_sense_are_refused_at_once(text: str) -> None:
    started = time.process_time()
    with pytest.raises(BadFrame):
        decode_all(bytes.fromhex(text.replace(" ", "")))
    assert time.process_time() - started < 0.2


def test_what_no_compact_array_can_hold_is_refused() -> None:
    mixed = (Datum(Tag.UNSIGNED, 1), Datum(Tag.LONG, 1))
    for items in ((), mixed, (Datum(Tag.ARRAY, ()),), (Datum(Tag.ARRAY, mixed),)):
        with pytest.raises(UsageError):
            encode(Datum(Tag.COMPACT_ARRAY, items))


# --- floats -----------------------------------------------------------------------------------------------------------


@given(st.floats(width=32, allow_nan=False))
def test_a_float32_is_the_shortest_decimal_that_is_it(value: float) -> None:
    datum = decode_all(b"\x17" + struct.pack(">f", value))
    assert isinstance(datum.value, Decimal)
    assert encode(datum) == b"\x17" + struct.pack(">f", value)
    if datum.value.is_finite():
        assert len(datum.value.as_tuple().digits) <= 9


@given(st.floats(allow_nan=False))
def test_a_float64_comes_back_bit_for_bit(value: float) -> None:
    raw = b"\x18" + struct.pack(">d", value)
    assert encode(decode_all(raw)) == raw


def test_no_number_is_no_number() -> None:
    assert decode_all(bytes.fromhex("177fc00000")).value.is_nan()
    assert decode_all(bytes.fromhex("17ff800000")).value == Decimal("-Infinity")


# --- round trips and refusals -----------------------------------------------------------------------------------------

LEAVES = st.one_of(
    st.just(NULL),
    st.just(DONT_CARE),
    st.builds(Datum, st.just(int(Tag.BOOLEAN)), st.booleans()),
    st.builds(Datum, st.just(int(Tag.BIT_STRING)), st.text("01", max_size=20)),
    *(
        st.builds(Datum, st.just(int(tag)), st.integers(low, high))
        for tag, low, high in (
            (Tag.DOUBLE_LONG, -(2**31), 2**31 - 1),
            (Tag.DOUBLE_LONG_UNSIGNED, 0, 2**32 - 1),
            (Tag.BCD, 0, 255),
            (Tag.INTEGER, -128, 127),
            (Tag.LONG, -(2**15), 2**15 - 1),
            (Tag.UNSIGNED, 0, 255),
            (Tag.LONG_UNSIGNED, 0, 2**16 - 1),
            (Tag.LONG64, -(2**63), 2**63 - 1),
            (Tag.LONG64_UNSIGNED, 0, 2**64 - 1),
            (Tag.ENUM, 0, 255),
        )
    ),
    st.builds(Datum, st.just(int(Tag.OCTET_STRING)), st.binary(max_size=300)),
    st.builds(Datum, st.just(int(Tag.VISIBLE_STRING)), st.text(st.characters(max_codepoint=255), max_size=20)),
    st.builds(Datum, st.just(int(Tag.UTF8_STRING)), st.text(max_size=20)),
    st.builds(Datum, st.just(int(Tag.DATE_TIME)), st.binary(min_size=12, max_size=12)),
    st.builds(Datum, st.just(int(Tag.DATE)), st.binary(min_size=5, max_size=5)),
    st.builds(Datum, st.just(int(Tag.TIME)), st.binary(min_size=4, max_size=4)),
)
DATA = st.recursive(
    LEAVES,
    lambda inner: st.builds(Datum, st.sampled_from([1, 2]), st.lists(inner, max_size=5).map(tuple)),
    max_leaves=30,
)


@given(DATA)
def test_all_data_comes_back_as_it_went(datum: Datum) -> None:
    raw = encode(datum)
    assert decode_all(raw) == datum
    for cut in {len(raw) - 1, len(raw) // 2}:
        if cut < len(raw):
            with pytest.raises(BadFrame):
                decode_all(raw[:cut])


@given(LEAVES.filter(lambda one: one not in (NULL, DONT_CARE)), st.integers(1, 40))
def test_compact_arrays_come_back_as_arrays(datum: Datum, count: int) -> None:
    items = (Datum(2, (datum, NULL)),) * count
    assert decode_all(encode(Datum(Tag.COMPACT_ARRAY, items))) == Datum(Tag.ARRAY, items)


@pytest.mark.parametrize(
    "datum",
    [
        Datum(Tag.UNSIGNED, 256),
        Datum(Tag.UNSIGNED, -1),
        Datum(Tag.LONG, "12"),
        Datum(Tag.OCTET_STRING, 5),
        Datum(Tag.BIT_STRING, "012"),
        Datum(Tag.DATE_TIME, b"short"),
        Datum(Tag.VISIBLE_STRING, "电"),
        Datum(Tag.FLOAT32, Decimal("1e50")),
        Datum(11, 1),
    ],
)
def test_what_a_type_can_not_hold_is_refused_in_words(datum: Datum) -> None:
    with pytest.raises(UsageError):
        encode(datum)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "09", "090f01", "0203 1101", "0b", "01", "0184ffffffff", "0984ffffffff00", "0484ffffffff00", "02ff00", "0681"],
)
def test_data_cut_short_or_of_no_type_is_refused(text: str) -> None:
    with pytest.raises(BadFrame):
        decode_all(bytes.fromhex(text.replace(" ", "")))


def test_nesting_has_an_end() -> None:
    deepest = b"\x01\x01" * (MAX_DEPTH - 1) + b"\x01\x00"
    assert decode_all(deepest).tag == Tag.ARRAY
    for levels in (MAX_DEPTH, 5000, 1_000_000):
        with pytest.raises(BadFrame, match="nested"):
            decode_all(b"\x02\x01" * levels + b"\x01\x00")


def test_claims_cost_no_memory_before_they_are_believed() -> None:
    tracemalloc.start()
    try:
        for text in ("0184ffffffff" + "00" * 50, "0984ffffffff", "1301ffff01ffff1184ffffffff", "0484ffffffff"):
            with pytest.raises(BadFrame):
                decode_all(bytes.fromhex(text))
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
@settings(max_examples=400)
def test_any_bytes_are_data_or_a_bad_frame(data: bytes) -> None:
    try:
        datum, end = decode(data)
    except BadFrame:
        return
    assert 0 < end <= len(data)
    encode(datum)

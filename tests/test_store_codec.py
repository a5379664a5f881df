"""Blocks and frames through their packed forms and back."""

from __future__ import annotations

import zlib
from array import array
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.civil import EPOCH
from headend.errors import StoreError
from headend.model import FrameRecord
from headend.store import blocks
from headend.store.evidence import pack_frames, unpack_frames

_INT64 = st.integers(-(2**63), 2**63 - 1)


@given(values=st.lists(_INT64, max_size=120))
def test_int_arrays_round_trip(values: list[int]) -> None:
    packed = blocks.pack_ints(array("q", values))
    assert list(blocks.unpack_ints(packed, len(values))) == values
    with pytest.raises(ValueError, match="bytes instead of"):
        blocks.unpack_ints(packed, len(values) + 1)


@given(values=st.binary(max_size=120))
def test_byte_arrays_round_trip(values: bytes) -> None:
    assert blocks.unpack_bytes(blocks.pack_bytes(values), len(values)) == values


def test_the_packed_form_is_shuffled_little_endian() -> None:
    """The form on disk is a contract: written out here by hand."""
    plain = zlib.decompress(blocks.pack_ints(array("q", [1, 0x0203, -1])))
    assert plain == bytes.fromhex("0103ff 0002ff") + bytes.fromhex("0000ff") * 6


def test_a_days_registers_pack_to_under_two_bytes_each() -> None:
    """The measured form: 1.85 bytes for a register point. Here a household of 0.05 to 0.6 kWh a quarter."""
    register, values = 123_456_789, []
    for slot in range(96):
        register += 500 + (slot * 7919) % 5500 // 100 * 100
        values.append(register)
    assert len(blocks.pack_ints(array("q", values))) < 96 * 2.5


@given(
    step_s=st.sampled_from([60, 300, 900, 1800, 3600, 86_400]),
    at=st.integers(-(2**40), 2**40),
)
def test_every_instant_has_one_place_on_a_grid(step_s: int, at: int) -> None:
    day, phase_s, slot = blocks.place(at, step_s)
    block = blocks.empty(step_s, phase_s)
    assert 0 <= phase_s < step_s
    assert 0 <= slot < len(block.states) == 86_400 // step_s
    assert blocks.at_s(day, block, slot) == at


@pytest.mark.parametrize("step_s", [-900, 0, 7, 7000, 100_000])
def test_steps_that_do_not_divide_a_day_are_refused(step_s: int) -> None:
    with pytest.raises(StoreError, match="does not divide a day"):
        blocks.place(0, step_s)


_FRAMES = st.lists(
    st.builds(
        FrameRecord,
        st.datetimes(timezones=st.just(UTC)),
        st.sampled_from("<>"),
        st.binary(max_size=400),
    ),
    max_size=12,
)


@given(frames=_FRAMES)
def test_frames_round_trip(frames: list[FrameRecord]) -> None:
    assert unpack_frames(pack_frames(frames)) == tuple(frames)


def test_frames_pack_small() -> None:
    """A DL/T 645-2007 exchange: 16 bytes out, 20 in."""
    sent = bytes.fromhex("FEFEFEFE 68 010000000000 68 11 04 33333433 B7 16")
    got = bytes.fromhex("FEFEFEFE 68 010000000000 68 91 08 33333433 67458A33 A0 16")
    start = datetime(2026, 3, 10, 0, 15, 3, 123_456, tzinfo=UTC)
    frames = [
        FrameRecord(start + timedelta(seconds=i), d, data) for i, (d, data) in enumerate(((">", sent), ("<", got)))
    ]
    assert len(pack_frames(frames)) <= len(sent) + len(got) + 1 + 2 * 2 + 8 + 4
    many = [FrameRecord(start + timedelta(seconds=i), "<", got) for i in range(50)]
    assert len(pack_frames(many)) < 50 * len(got) / 3


@given(data=st.binary(max_size=80))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    with suppress(StoreError):
        assert all(frame.direction in "<>" for frame in unpack_frames(data))


def test_frames_cut_short_are_refused() -> None:
    packed = pack_frames([FrameRecord(EPOCH, ">", bytes(range(40)))])
    assert packed[0] == 0
    for length in range(2, len(packed)):
        with pytest.raises(StoreError, match="damaged"):
            unpack_frames(packed[:length])


def test_an_unknown_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="neither '>' nor '<'"):
        pack_frames([FrameRecord(EPOCH, "?", b"")])

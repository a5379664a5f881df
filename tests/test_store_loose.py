"""Blocks packed loose: values spliced in as they would be put into the opened block."""

from __future__ import annotations

from array import array

from hypothesis import given, settings
from hypothesis import strategies as st

from headend.store.blocks import Block, empty, pack, unpack_parts
from headend.store.loose import spliced
from headend.store.merge import History
from headend.store.runs import Piece, Run, pieces


@st.composite
def _opened(draw: st.DrawFn) -> tuple[Block, list[Piece]]:
    """A block of some hours with values, due and waived slots; and pieces for it."""
    block = empty(3600, 1800)
    big = draw(st.sampled_from([2**31, 2**33]))
    for slot in range(24):
        held = draw(st.sampled_from(["", "", "", "value", "suspect", "due", "waived"]))
        block.states[slot] = {"value": 2, "due": 1, "waived": 5, "suspect": 1}.get(held, 0)
        block.causes[slot] = draw(st.integers(0, 12)) if held in ("due", "waived") else 0
        if held in ("value", "suspect"):
            block.qualities[slot] = 1 if held == "value" else 4
            block.units[slot], block.outcome_ids[slot] = draw(st.integers(0, big)), draw(st.integers(1, 2**31))
    some = []
    for number in range(draw(st.integers(1, 4))):
        slot = draw(st.integers(0, 23))
        count = draw(st.integers(1, min(3, 24 - slot)))
        units = array("q", draw(st.lists(st.integers(-5 if big > 2**32 else 0, big), min_size=count, max_size=count)))
        times = array("q", [1800 + 3600 * (slot + i) for i in range(count)])
        qualities = bytes(draw(st.lists(st.sampled_from([1, 1, 1, 1, 3, 4]), min_size=count, max_size=count)))
        taken_at = draw(st.integers(0, 30 * 3600))
        run = Run(7, 1, 2, 3600, times, units, qualities, taken_at, 1000 + number, 3600)
        some += [piece for piece in pieces(run) if isinstance(piece, Piece)]
    return block, some


@settings(max_examples=400, deadline=None)
@given(_opened())
def test_splicing_a_packed_block_gives_what_opening_it_gives(given_: tuple[Block, list[Piece]]) -> None:
    block, some = given_
    row = (0, 7, 1, *pack(block, tight=False))
    for piece in some:
        fits = piece.fits(block) and not block.qualities[piece.slot]
        changed = spliced(row, piece)
        if changed is None:
            # Only what needs more than 32 bits, or fills the block, is left to be opened though it fits.
            most = max(*block.units, *piece.run.units)
            least = min(piece.run.units)
            assert not fits or most >= 2**32 or least < 0 or block.qualities.count(0) == piece.stop - piece.first
            continue
        assert fits
        piece.put(block, History(0, {}))
        assert unpack_parts(*changed[3:11]) == block
        assert changed[11:] == pack(block)[8:]
        row = changed

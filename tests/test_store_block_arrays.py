"""Many packed arrays into one matrix: the same numbers as one by one, whatever form each was packed in."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable

import numpy as np
import pytest

from headend.store.block_arrays import Flags, ints
from headend.store.blocks import pack_bytes, pack_ints, unpack_ints

_KINDS: dict[str, Callable[[int, int], list[int]]] = {
    "nothing": lambda i, n: [0] * n,
    "alike": lambda i, n: [7_000 + i] * n,
    "small": lambda i, n: [(i * 31 + k * k) % 4_000 for k in range(n)],
    "wide": lambda i, n: [(-1) ** k * (2**61 + i * 97 + k**3) for k in range(n)],
}


def _packed(kinds: str, count: int) -> list[bytes]:
    """Arrays of these kinds, three of each, packed tight and loose."""
    arrays = [array("q", _KINDS[kind](i, count)) for kind in kinds.split() for i in range(3)]
    return [pack_ints(one, tight=tight) for one in arrays for tight in (True, False)]


@pytest.mark.parametrize("count", [1, 2, 24, 96])
@pytest.mark.parametrize("kinds", [*_KINDS, "small wide", "wide nothing alike small"])
def test_many_arrays_are_opened_as_each_alone(kinds: str, count: int) -> None:
    packed = _packed(kinds, count)
    found = ints(packed, count)
    assert found.tolist() == [list(unpack_ints(one, count)) for one in packed]
    found[:] = 1  # what stood before takes the place of what came later: the matrix is the caller's


def test_deflated_arrays_alone_are_the_callers_as_well() -> None:
    packed = [zlib.compress(number.to_bytes(8, "little")) for number in (5, 2**40)]
    found = ints(packed, 1)
    assert found.tolist() == [[5], [2**40]]
    found[:] = 1


@pytest.mark.parametrize("wrong", [b"", b"\x78\x9c\x00", zlib.compress(bytes(760)), zlib.compress(bytes(776))])
def test_one_damaged_array_among_good_ones_is_refused(wrong: bytes) -> None:
    good = _packed("small", 96)
    with pytest.raises(ValueError, match=r"bytes instead of|Error -"):
        ints([good[0], wrong, good[2]], 96)


def test_lengths_that_make_up_for_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="bytes instead of 768"):
        ints([zlib.compress(bytes(760)), zlib.compress(bytes(776))], 96)


def test_flags_of_many_meters() -> None:
    alike, other = pack_bytes(bytes([0] * 96)), pack_bytes(bytes([0] * 95 + [2]))
    assert not Flags().rows((alike, alike), 96).any()
    assert np.flatnonzero(Flags().rows((alike, other, alike), 96)).tolist() == [191]

"""Blocks into numpy: what `headend.store.blocks` packed, many blocks of one length at a time."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headend.store.blocks import unpack_bytes, unpack_ints

__all__ = ["Flags", "ints"]

_WIDTH = 8
_OTHER_FORMS = (0, 1, 2)
"""First bytes of what is not deflated."""


def ints(packed: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """A row of `count` int64 for each array that `pack_ints` packed; `ValueError` if one is damaged."""
    found = np.empty((len(packed), count), dtype=np.int64)
    deflated: list[int] = []
    plain: list[bytes] = []
    for row, one in enumerate(packed):
        if one[:1] and one[0] not in _OTHER_FORMS:
            deflated.append(row)
            plain.append(_inflated(one, _WIDTH * count))
        else:
            found[row] = unpack_ints(one, count)
    if deflated:
        shuffled = np.frombuffer(b"".join(plain), dtype=np.uint8).reshape(len(plain), _WIDTH, count)
        whole = np.ascontiguousarray(shuffled.transpose(0, 2, 1)).view("<i8").reshape(len(plain), count)
        found[deflated if len(deflated) < len(packed) else slice(None)] = whole
    return found


def _inflated(packed: bytes, size: int) -> bytes:
    try:
        plain = zlib.decompress(packed, bufsize=size)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(plain) != size:
        raise ValueError(f"{len(plain)} bytes instead of {size}")
    return plain


class Flags:
    """Opens arrays that `pack_bytes` packed; most are alike, so each is opened once."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, int], NDArray[np.uint8]] = {}

    def row(self, packed: bytes, count: int) -> NDArray[np.uint8]:
        """The array, not to be changed; `ValueError` if it is damaged."""
        found = self._known.get((packed, count))
        if found is None:
            found = np.frombuffer(bytes(unpack_bytes(packed, count)), dtype=np.uint8)
            if len(self._known) < _MOST:
                self._known[packed, count] = found
        return found

    def rows(self, packed: Sequence[bytes], count: int) -> NDArray[np.uint8]:
        """A row for each of the arrays."""
        first = packed[0]
        if all(one == first for one in packed):
            return np.broadcast_to(self.row(first, count), (len(packed), count))
        return np.stack([self.row(one, count) for one in packed])


_MOST = 100_000

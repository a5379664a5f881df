"""Blocks into numpy: what `headend.store.blocks` packed, many blocks of one length at a time."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headend.store.blocks import unpack_bytes, unpack_ints

__all__ = ["Flags", "ints"]

_WIDTH = 8
_OTHER_FORMS = (b"", b"\0", b"\1", b"\2")
"""First bytes of what is not deflated; of nothing at all, none."""


def ints(packed: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """A row of `count` int64 for each array that `pack_ints` packed; `ValueError` if one is damaged."""
    deflated = [one for one in packed if one[:1] not in _OTHER_FORMS]
    if len(deflated) == len(packed):
        return _inflated(deflated, count)
    found = np.empty((len(packed), count), dtype=np.int64)
    rows: list[int] = []
    for row, one in enumerate(packed):
        if one[:1] in _OTHER_FORMS:
            found[row] = unpack_ints(one, count)
        else:
            rows.append(row)
    if rows:
        found[rows] = _inflated(deflated, count)
    return found


def _inflated(packed: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """The same where all are deflated and shuffled."""
    size = _WIDTH * count
    try:
        plain = [zlib.decompress(one, bufsize=size) for one in packed]
    except zlib.error as error:
        raise ValueError(str(error)) from error
    for wrong in set(map(len, plain)) - {size}:
        raise ValueError(f"{wrong} bytes instead of {size}")
    shuffled = np.frombuffer(b"".join(plain), dtype=np.uint8).reshape(len(plain), _WIDTH, count)
    whole = np.array(shuffled.transpose(0, 2, 1), order="C").view("<i8").reshape(len(plain), count)
    return whole.astype(np.int64, copy=False)


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
        """A row for each of the arrays, not to be changed."""
        first = packed[0]
        if packed.count(first) == len(packed):
            return np.broadcast_to(self.row(first, count), (len(packed), count))
        return np.stack([self.row(one, count) for one in packed])


_MOST = 100_000

"""Evidence: the frames of an outcome, packed to a few bytes more than the frames themselves.

Packed form: one byte 0 (plain) or 1 (deflated), then for each frame its time as the difference in microseconds to the
one before (the first: to 1970), its direction, its length, its bytes. Numbers are LEB128, times zigzag before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import timedelta

from headend.civil import EPOCH
from headend.errors import StoreError
from headend.model import FrameRecord

__all__ = ["pack_frames", "unpack_frames"]

_PLAIN, _DEFLATED = 0, 1
_MICROSECOND = timedelta(microseconds=1)


def pack_frames(frames: Sequence[FrameRecord]) -> bytes:
    """`frames` as bytes; `ValueError` when a direction is neither `>` nor `<`."""
    body = bytearray()
    before = 0
    for frame in frames:
        if frame.direction not in (">", "<"):
            raise ValueError(f"frame direction {frame.direction!r} is neither '>' nor '<'")
        time_us = (frame.at - EPOCH) // _MICROSECOND
        delta_us, before = time_us - before, time_us
        _put_number(body, delta_us << 1 if delta_us >= 0 else (-delta_us << 1) - 1)
        body += frame.direction.encode("ascii")
        _put_number(body, len(frame.data))
        body += frame.data
    deflated = zlib.compress(bytes(body), 9)
    return bytes([_DEFLATED]) + deflated if len(deflated) < len(body) else bytes([_PLAIN]) + bytes(body)


def unpack_frames(packed: bytes) -> tuple[FrameRecord, ...]:
    """The frames in `packed`; `StoreError` when it is damaged."""
    try:
        body = zlib.decompress(packed[1:]) if packed[0] == _DEFLATED else packed[1:]
        return tuple(_frames(body))
    except (zlib.error, IndexError, ValueError, OverflowError) as error:
        remedy = "restore the table `evidence` from a backup"
        raise StoreError(f"stored frames are damaged: {error}", remedy=remedy) from error


def _frames(body: bytes) -> list[FrameRecord]:
    frames = []
    position = before = 0
    while position < len(body):
        zigzag, position = _take_number(body, position)
        before += -((zigzag + 1) >> 1) if zigzag & 1 else zigzag >> 1
        direction = body[position : position + 1].decode("ascii")
        length, position = _take_number(body, position + 1)
        if position + length > len(body) or direction not in (">", "<"):
            raise ValueError("a frame is cut short")
        frames.append(FrameRecord(EPOCH + before * _MICROSECOND, direction, bytes(body[position : position + length])))
        position += length
    return frames


def _put_number(body: bytearray, number: int) -> None:
    while number > 0x7F:
        body.append(number & 0x7F | 0x80)
        number >>= 7
    body.append(number)


def _take_number(body: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while body[position] & 0x80:
        number |= (body[position] & 0x7F) << shift
        shift += 7
        position += 1
    return number | body[position] << shift, position + 1

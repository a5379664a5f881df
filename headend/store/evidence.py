"""Evidence: whose frames are kept, and the frames of an outcome packed to a few bytes more than they have themselves.

Packed form: one byte 0 (plain) or 1 (deflated), then for each frame its time as the difference in microseconds to the
one before (the first: to 1970), its direction, its length, its bytes. Numbers are LEB128, times zigzag before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from headend.civil import EPOCH
from headend.errors import StoreError
from headend.model import FrameRecord, Outcome, Quality, ReadKind, Status

__all__ = ["EvidencePolicy", "pack_frames", "pack_payload", "unpack_frames", "unpack_payload"]


@dataclass(frozen=True, slots=True)
class EvidencePolicy:
    """Whose frames are kept. Outcomes that failed, came in part or hold a suspect value always keep theirs.

    keep_good_every: of the others, those whose id is a multiple of it (1: all, 0: none); messages go by their key.
    always_kinds: kinds of read that bills rest on, all kept.
    """

    keep_good_every: int = 16
    always_kinds: frozenset[ReadKind] = frozenset(
        {ReadKind.DAILY_FREEZE, ReadKind.TIMED_FREEZE, ReadKind.SETTLEMENT, ReadKind.REGISTERS}
    )

    def keeps(self, outcome: Outcome, outcome_id: int) -> bool:
        """Whether the frames of this outcome are kept; the same answer every time."""
        good = outcome.status is Status.OK and not outcome.faults
        if not good or not outcome.readings or outcome.job.kind in self.always_kinds:
            return True
        if any(reading.quality is Quality.SUSPECT for reading in outcome.readings):
            return True
        return self._sampled(outcome_id)

    def keeps_message(self, kind: ReadKind, message_key: int, *, good: bool) -> bool:
        """Whether the payload of this message is kept. good: it holds values, none of them suspect, and no fault."""
        return not good or kind in self.always_kinds or self._sampled(message_key)

    def _sampled(self, number: int) -> bool:
        return self.keep_good_every > 0 and number % self.keep_good_every == 0


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


def pack_payload(payload: bytes) -> bytes:
    """A message as the table `message` keeps it: deflated."""
    return zlib.compress(payload)


def unpack_payload(packed: bytes) -> bytes:
    """The message in `packed`; `StoreError` when it is damaged."""
    try:
        return zlib.decompress(packed)
    except zlib.error as error:
        remedy = "restore the table `message` from a backup"
        raise StoreError(f"a stored message is damaged: {error}", remedy=remedy) from error


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

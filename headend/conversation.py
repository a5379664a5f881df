"""Sans-IO conversations: a protocol is a generator that says what to send and is sent what arrived.

    reply = yield Send(frame)      # write these bytes, then wait for a chunk
    more = yield MORE              # the chunk was not enough, wait for the next
    yield SetSpeed("9600 8N1")     # from now on the serial port speaks so
    yield Pause(0.1)               # be silent
    return value

Chunks are whatever arrived: part of a frame, a frame, noise, several frames. When nothing comes in time the driver
throws `NoAnswer` into the generator, which may send again; when the port closes it throws `LineDown`.
`play` drives a conversation from a transcript, so tests and replays need no port.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from headend.errors import NoAnswer

__all__ = ["MORE", "Conversation", "Mismatch", "More", "Pause", "Request", "Send", "SetSpeed", "play"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Write `data`. `reply_s` overrides the line's reply timeout; `expect_reply=False` is for broadcasts:
    the generator is resumed with `b""` as soon as the bytes are written. shown: what is recorded in their place when
    they hold a secret."""

    data: bytes
    reply_s: float | None = None
    expect_reply: bool = True
    shown: bytes | None = None


@dataclass(frozen=True, slots=True)
class More:
    """Wait for the next chunk; nothing is written. The deadline of what was sent last goes on; once that has passed,
    the line's reply timeout runs anew."""


MORE: Final = More()


@dataclass(frozen=True, slots=True)
class SetSpeed:
    """Speed and character format of the serial port from here to the end of the conversation (`9600 8N1`), set once
    what was sent is out. The generator is resumed with `b""`. A link that is no serial port of ours has a speed of its
    own: nothing happens there."""

    serial: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for `seconds`, counted from the last byte on the line. What arrives meanwhile is dropped. The
    generator is resumed with `b""`."""

    seconds: float


Request = Send | More | SetSpeed | Pause

Conversation = Generator[Request, bytes, T]


class Mismatch(AssertionError):
    """A played conversation sent something else than its transcript says."""


def play(conversation: Conversation[T], transcript: Iterable[tuple[str, bytes]]) -> T:
    """Drive `conversation` from `transcript`: pairs of `>` with the bytes it must send and `<` with bytes it receives.

    When the conversation waits and the transcript has no more received bytes before the next sent ones, `NoAnswer` is
    thrown into it, as a line would. Raises `Mismatch` when other bytes are sent, or some of it is left.
    """
    steps = list(transcript)
    position = 0
    try:
        request = next(conversation)
        while True:
            if isinstance(request, SetSpeed | Pause):
                request = conversation.send(b"")
                continue
            if isinstance(request, Send):
                if position >= len(steps) or steps[position] != (">", request.data):
                    expected = (
                        f"{steps[position][0]} {steps[position][1].hex()}" if position < len(steps) else "the end"
                    )
                    raise Mismatch(f"sent {request.data.hex()}, the transcript has {expected}")
                position += 1
                if not request.expect_reply:
                    request = conversation.send(b"")
                    continue
            if position < len(steps) and steps[position][0] == "<":
                chunk = steps[position][1]
                position += 1
                request = conversation.send(chunk)
            else:
                request = conversation.throw(NoAnswer("no answer (end of the transcript)"))
    except StopIteration as stop:
        if position < len(steps):
            raise Mismatch(f"{len(steps) - position} step(s) of the transcript were not used") from None
        result: T = stop.value
        return result

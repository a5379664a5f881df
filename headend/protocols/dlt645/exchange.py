"""One question, one answer: what counts as the answer, sending again, follow-up frames, refusals (clauses 6 and 7.1).

An answer must come from the meter asked, name the function asked, and carry the identifier (and, in follow-up frames,
the sequence) asked. Everything else (the echo of an adapter, an answer that comes late, another meter) is dropped and
the wait goes on, so a late answer is never taken for a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from headend.conversation import MORE, Conversation, Send
from headend.errors import BadFrame, NoAnswer, ProtocolError, Refused, WrongMeter
from headend.protocols.dlt645.frame import Frame, Scanner, encode, matches

__all__ = ["ERROR_BITS", "NO_SUCH_DATA", "READ", "READ_ADDRESS", "Check", "error_text", "exchange", "gather"]

READ = 0x11
READ_MORE = 0x12
READ_ADDRESS = 0x13

TRIES = 2
MAX_SEQ = 255
MAX_HEARD = 4096  # bytes waited through for one answer: a line that never falls silent must not hold the job

NO_SUCH_DATA = 0x02
ERROR_BITS = (
    "other error",
    "no such data",
    "wrong password or not authorised",
    "baud rate can't be changed",
    "too many year zones",
    "too many day periods",
    "too many rates",
    "reserved bit 7",
)

Check = Callable[[bytes], str]
"""What is wrong with the data after the identifier; "" when it is the answer asked for."""


def error_text(word: int) -> str:
    """The set bits of an error word in English."""
    return ", ".join(name for bit, name in enumerate(ERROR_BITS) if word >> bit & 1) or "no reason given"


@dataclass(slots=True)
class _Heard:
    """What came that was not the answer."""

    address: str
    foreign: set[str] = field(default_factory=set)
    stale: int = 0
    reason: str = ""

    def verdict(self, noise: int) -> ProtocolError:
        where = f"meter {self.address}"
        if self.reason:
            return BadFrame(self.reason, where=where, remedy="check the meter's clock and its model's settings")
        if noise:
            return BadFrame(
                f"{noise} bytes came that make no whole frame",
                where=where,
                remedy="check baud rate, parity, wiring, and that no two meters answer at once",
            )
        if self.foreign:
            return WrongMeter(
                f"{', '.join(sorted(self.foreign))} answered instead",
                where=where,
                remedy="check the address in the configuration",
            )
        if self.stale:
            return NoAnswer(f"only {self.stale} answer(s) to something else came", where=where)
        return NoAnswer("no answer", where=where, remedy="check power, line, address and baud rate")


def exchange(
    address: str, function: int, data: bytes = b"", *, check: Check | None = None, tries: int = TRIES
) -> Conversation[Frame]:
    """Ask and return the answer's frame. Raises `Refused`, or after `tries` `NoAnswer`, `BadFrame`, `WrongMeter`."""
    request = encode(address, function, data)
    scanner = Scanner()
    heard = _Heard(address)
    for _ in range(tries):
        try:
            chunk = yield Send(request)
            came = len(chunk)
            while came < MAX_HEARD:
                answer = _pick(scanner.feed(chunk), address, function, data, check, heard)
                if answer is not None:
                    return answer
                chunk = yield MORE
                came += len(chunk)
        except NoAnswer:
            answer = _pick(scanner.flush(), address, function, data, check, heard)
            if answer is not None:
                return answer
    raise heard.verdict(scanner.noise)


def _pick(
    frames: list[Frame], address: str, function: int, asked: bytes, check: Check | None, heard: _Heard
) -> Frame | None:
    """The answer among `frames`; the others are noted in `heard`."""
    for frame in frames:
        if not frame.from_meter:
            continue  # our own request, echoed by the adapter
        if not matches(address, frame.address):
            heard.foreign.add(frame.address)
        elif frame.function != function or not (frame.abnormal or _answers(frame, function, asked)):
            heard.stale += 1
        elif frame.abnormal:
            raise _refusal(address, frame)
        elif check is not None and (reason := check(frame.data[4:])):
            heard.reason = reason
        else:
            return frame
    return None


def _answers(frame: Frame, function: int, asked: bytes) -> bool:
    """Whether the data of `frame` belong to the question with data `asked`."""
    if function == READ_ADDRESS:
        return len(frame.data) == 6 and matches(frame.address, frame.data[::-1].hex().upper())
    if frame.data[:4] != asked[:4]:
        return False
    return function != READ_MORE or (len(frame.data) >= 5 and frame.data[-1] == asked[4])


def _refusal(address: str, frame: Frame) -> Refused:
    code = frame.data[0] if frame.data else None
    text = error_text(code) if code is not None else "no reason given"
    word = f" (error word {code:02X})" if code is not None else ""
    return Refused(f"refused: {text}{word}", code=code, where=f"meter {address}")


def gather(address: str, di: str, extra: bytes = b"", *, check: Check | None = None) -> Conversation[bytes]:
    """Everything the meter has for `di`: the data after the identifier, follow-up frames joined (function 12).

    A follow-up that does not come can't be asked for twice (some meters go on regardless of the sequence), so the
    whole is asked for once more.
    """
    asked = bytes.fromhex(di)[::-1]
    for last in (False, True):
        frame = yield from exchange(address, READ, asked + extra, check=check)
        if not frame.more:
            return frame.data[4:]
        try:
            return (yield from _follow(address, asked, frame.data[4:]))
        except (NoAnswer, BadFrame, WrongMeter):
            if last:
                raise
    raise AssertionError("the loop returns or raises")


def _follow(address: str, asked: bytes, data: bytes) -> Conversation[bytes]:
    parts = [data]
    for seq in range(1, MAX_SEQ + 1):
        frame = yield from exchange(address, READ_MORE, asked + bytes((seq,)), tries=1)
        parts.append(frame.data[4:-1])
        if not frame.more:
            return b"".join(parts)
    raise BadFrame(f"more than {MAX_SEQ} follow-up frames", where=f"meter {address}")

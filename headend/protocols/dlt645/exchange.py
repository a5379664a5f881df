"""One question, one answer: what counts as the answer, sending again, follow-up frames, refusals (clauses 6 and 7.1).

An answer must come from the meter asked, name the function asked, and carry the identifier (and, in follow-up frames,
the sequence) asked. Everything else (the echo of an adapter, an answer that comes late, another meter) is dropped and
the wait goes on, so a late answer is never taken for a new one.

Both versions live here: no function that carries an identifier is of both, so the function tells how long the
identifier is (four bytes in 2007, two in 1997).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from headend.conversation import MORE, Conversation, Send
from headend.errors import BadFrame, NoAnswer, ProtocolError, Refused, WrongMeter
from headend.protocols.dlt645.frame import Frame, Scanner, encode, encode_read, matches

__all__ = [
    "CHANGE_BAUD",
    "ERROR_BITS",
    "ERROR_BITS_1997",
    "NO_SUCH_DATA",
    "OF_1997",
    "READ",
    "READ_1997",
    "READ_ADDRESS",
    "WRITE_ADDRESS",
    "Check",
    "error_text",
    "error_text_1997",
    "exchange",
    "gather",
    "identifier_bytes",
]

READ = 0x11
READ_MORE = 0x12
READ_ADDRESS = 0x13
WRITE_ADDRESS = 0x15
CHANGE_BAUD = 0x17
READ_1997 = 0x01
READ_MORE_1997 = 0x02
CHANGE_BAUD_1997 = 0x0C
OF_1997 = frozenset({0x01, 0x02, 0x04, 0x0A, 0x0C, 0x0F, 0x10})

_IDENTIFIER_BYTES = {READ: 4, READ_MORE: 4, READ_1997: 2, READ_MORE_1997: 2}

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
ERROR_BITS_1997 = (
    "illegal data",
    "no such identifier",
    "wrong password",
    "bit 3",
    "too many year zones",
    "too many day periods",
    "too many rates",
    "bit 7",
)

Check = Callable[[bytes], str]
"""What is wrong with the data after the identifier; "" when it is the answer asked for."""


def error_text(word: int) -> str:
    """The set bits of an error word in English."""
    return ", ".join(name for bit, name in enumerate(ERROR_BITS) if word >> bit & 1) or "no reason given"


def error_text_1997(word: int) -> str:
    """The set bits of a 1997 error word in English; sources disagree on them, so the text says it is not sure."""
    named = ", ".join(name for bit, name in enumerate(ERROR_BITS_1997) if word >> bit & 1)
    return f"{named} (as most sources have it; they disagree on 1997)" if named else "no reason given"


@dataclass(slots=True)
class _Heard:
    """A question, and what came that was not its answer."""

    address: str
    function: int
    asked: bytes
    check: Check | None = None
    take_refusal: bool = False
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
    address: str,
    function: int,
    data: bytes = b"",
    *,
    check: Check | None = None,
    tries: int = TRIES,
    take_refusal: bool = False,
    shown: bytes | None = None,
) -> Conversation[Frame]:
    """Ask and return the answer's frame. Raises `Refused`, or after `tries` `NoAnswer`, `BadFrame`, `WrongMeter`.

    take_refusal: return a refusal as the answer it is, where who refuses is all one wants to know. shown: data to
    record instead, where they hold a password.
    """
    request = (encode_read if function in _IDENTIFIER_BYTES else encode)(address, function, data)
    masked = None if shown is None else encode(address, function, shown)
    scanner = Scanner()
    heard = _Heard(address, function, data, check, take_refusal)
    for _ in range(tries):
        try:
            chunk = yield Send(request, shown=masked)
            came = len(chunk)
            while came < MAX_HEARD:
                answer = _pick(scanner.feed(chunk), heard)
                if answer is not None:
                    return answer
                chunk = yield MORE
                came += len(chunk)
        except NoAnswer:
            answer = _pick(scanner.flush(), heard)
            if answer is not None:
                return answer
    raise heard.verdict(scanner.noise)


def _pick(frames: list[Frame], heard: _Heard) -> Frame | None:
    """The answer among `frames`, the last where several could be it: an earlier one is late and stale."""
    for frame in reversed(frames):
        if not frame.from_meter:
            continue  # our own request, echoed by the adapter
        if not matches(heard.address, frame.address):
            heard.foreign.add(frame.address)
        elif frame.function != heard.function or not (frame.abnormal or _answers(frame, heard.function, heard.asked)):
            heard.stale += 1
        elif frame.abnormal:
            if heard.take_refusal:
                return frame
            raise _refusal(heard.address, frame)
        elif heard.check is not None and (reason := heard.check(frame.data[identifier_bytes(heard.function) :])):
            heard.reason = reason
        else:
            return frame
    return None


def identifier_bytes(function: int) -> int:
    """How many bytes of the data the identifier takes in a read's answer; 0 for other functions."""
    return _IDENTIFIER_BYTES.get(function, 0)


def _answers(frame: Frame, function: int, asked: bytes) -> bool:
    """Whether the data of `frame` belong to the question with data `asked`."""
    if size := identifier_bytes(function):
        if len(frame.data) < size or frame.data[:size] != asked[:size]:
            return False
        return function != READ_MORE or (len(frame.data) >= 5 and frame.data[-1] == asked[4])
    if function == READ_ADDRESS:
        return len(frame.data) == 6 and matches(frame.address, frame.data[::-1].hex().upper())
    if function == WRITE_ADDRESS:
        return frame.address == asked[::-1].hex().upper()
    if function in (CHANGE_BAUD, CHANGE_BAUD_1997):
        return frame.data[:1] == asked
    return True


def _refusal(address: str, frame: Frame) -> Refused:
    code = frame.data[0] if frame.data else None
    name = error_text_1997 if frame.function in OF_1997 else error_text
    text = name(code) if code is not None else "no reason given"
    word = f" (error word {code:02X})" if code is not None else ""
    return Refused(f"refused: {text}{word}", code=code, where=f"meter {address}")


def gather(address: str, di: str, extra: bytes = b"", *, check: Check | None = None) -> Conversation[bytes]:
    """Everything the meter has for `di`: the data after the identifier, follow-up frames joined.

    The length of `di` tells the version: eight digits 2007 (functions 11, 12), four 1997 (01, 02). A follow-up that
    does not come can't be asked for twice (some 2007 meters go on regardless of the sequence, 1997 has none), so the
    whole is asked for once more.
    """
    asked = bytes.fromhex(di)[::-1]
    function = READ if len(asked) == 4 else READ_1997
    for last in (False, True):
        frame = yield from exchange(address, function, asked + extra, check=check)
        if not frame.more:
            return frame.data[len(asked) :]
        try:
            return (yield from _follow(address, asked, frame.data[len(asked) :]))
        except (NoAnswer, BadFrame, WrongMeter):
            if last:
                raise
    raise AssertionError("the loop returns or raises")


def _follow(address: str, asked: bytes, data: bytes) -> Conversation[bytes]:
    parts = [data]
    sequenced = len(asked) == 4
    function = READ_MORE if sequenced else READ_MORE_1997
    for seq in range(1, MAX_SEQ + 1):
        frame = yield from exchange(address, function, asked + bytes((seq,)) if sequenced else asked, tries=1)
        parts.append(frame.data[4:-1] if sequenced else frame.data[len(asked) :])
        if not frame.more:
            return b"".join(parts)
    raise BadFrame(f"more than {MAX_SEQ} follow-up frames", where=f"meter {address}")

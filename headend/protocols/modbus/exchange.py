"""One question, one answer: what counts as the answer, asking again, refusals.

An answer must come from the unit asked, name the function asked and be as long as asked; on TCP it must carry the
transaction's id. RTU has no such id: a late answer of the same unit, function and count looks like the right one. So
on RTU the line is kept silent for `late_s` after every timeout, and what comes then is dropped: before asking again,
and also before what follows, for both requests may still be answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from headend.conversation import MORE, Conversation, Pause, Send
from headend.errors import BadFrame, NoAnswer, ProtocolError, Refused, WrongMeter
from headend.protocols.modbus.frame import MBAP, Question, find_rtu, find_tcp, rtu, strangers, tcp, tcp_frames
from headend.protocols.modbus.library import Identification, identification, identify_request, read_request
from headend.protocols.modbus.model import BITS

__all__ = ["EXCEPTIONS", "GATEWAY_NO_TARGET", "ILLEGAL_ADDRESS", "Talk", "ask", "identify", "read_block"]

TRIES: Final = 3
MAX_HEARD: Final = 4096  # bytes waited through for one answer: a line that never falls silent must not hold the job
MAX_IDENTIFICATIONS: Final = 16

ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
ACKNOWLEDGE: Final = 5
BUSY: Final = 6
GATEWAY_NO_TARGET: Final = 0x0B
EXCEPTIONS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge, still working",
    6: "device busy",
    7: "negative acknowledge",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}
"""Exception codes (Application Protocol V1.1b3, 7; 7 from its older editions)."""

_REMEDIES: Final = {
    1: "does the model name the right function (3 holding, 4 input registers)?",
    2: "does the meter fit its model? `headend model try` shows which registers it has",
    3: "lower max_registers in the meter's model",
    10: "check the gateway's routing of this unit id and whether it is overloaded",
}


@dataclass(slots=True)
class Talk:
    """One unit on a line. transaction: the last id used; the first is derived from the job, so that two jobs differ."""

    unit: int
    tcp: bool = False
    transaction: int = 0
    late_s: float = 0.5
    busy_s: float = 0.5
    tries: int = TRIES

    @property
    def where(self) -> str:
        return f"unit {self.unit}"


@dataclass(slots=True)
class _Heard:
    """What came that was not the answer."""

    noise: int = 0
    foreign: set[int] = field(default_factory=set)
    stale: int = 0
    reason: str = ""
    echo: bool = False
    gateway: bool = False
    busy: int | None = None

    def verdict(self, talk: Talk) -> ProtocolError:
        where = talk.where
        if self.busy is not None:
            return _refusal(talk, self.busy)
        if self.reason:
            return BadFrame(self.reason, where=where, remedy="check the meter's model and max_registers")
        if self.foreign:
            units = ", ".join(map(str, sorted(self.foreign)))
            return WrongMeter(f"unit {units} answered instead", where=where, remedy="check the unit ids on this line")
        if self.stale:
            return NoAnswer(f"only {self.stale} answer(s) to something else came", where=where)
        if self.echo:
            return NoAnswer("nothing but our own request came back", where=where, remedy="set echo on this line")
        if self.noise:
            remedy = (
                "check speed, parity, wiring, and that no two units have one id; is it RTU, not TCP, or the reverse?"
            )
            return BadFrame(f"{self.noise} bytes came that make no whole frame", where=where, remedy=remedy)
        if self.gateway:
            remedy = "check the meter's power, wires, unit id and speed"
            return NoAnswer("the gateway says that the unit does not answer", where=where, remedy=remedy)
        return NoAnswer("no answer", where=where, remedy="check power, line, unit id and speed")


def ask(talk: Talk, question: Question) -> Conversation[bytes]:
    """The answer's PDU. Raises `Refused` for an exception; after all tries `NoAnswer`, `BadFrame` or `WrongMeter`."""
    heard = _Heard()
    disturbed = False
    for _ in range(talk.tries):
        talk.transaction = talk.transaction + 1 & 0xFFFF
        try:
            answer = yield from _once(talk, question, heard)
        except NoAnswer:
            disturbed = True
            if not talk.tcp:
                yield Pause(talk.late_s)
            continue
        if disturbed and not talk.tcp:
            yield Pause(talk.late_s)  # the request given up may be answered too
        if answer[0] == question.pdu[0]:
            return answer
        code = answer[1]
        if code in (ACKNOWLEDGE, BUSY):
            heard.busy = code
            yield Pause(talk.busy_s)
        elif code == GATEWAY_NO_TARGET:
            heard.gateway = True
        else:
            raise _refusal(talk, code)
    raise heard.verdict(talk)


def _once(talk: Talk, question: Question, heard: _Heard) -> Conversation[bytes]:
    """Ask once and wait for the answer or an exception; `NoAnswer` when neither came, with `heard` saying what did."""
    frame = tcp(talk.transaction, question.unit, question.pdu) if talk.tcp else rtu(question.unit, question.pdu)
    buffer = bytearray()
    try:
        chunk = yield Send(frame)
        while len(buffer) < MAX_HEARD:
            buffer += chunk
            answer = _picked(talk, question, bytes(buffer), heard)
            if answer is not None:
                return answer
            chunk = yield MORE
    except NoAnswer:
        _account(talk, question, frame, bytes(buffer), heard)
        raise
    _account(talk, question, frame, bytes(buffer), heard)
    raise NoAnswer("the line is never silent", where=talk.where)


def _picked(talk: Talk, question: Question, buffer: bytes, heard: _Heard) -> bytes | None:
    if not talk.tcp:
        return find_rtu(buffer, question)
    found = find_tcp(buffer, talk.transaction)
    if found is None:
        return None
    unit, pdu = found
    if unit != question.unit:
        heard.foreign.add(unit)
        return None
    if pdu.startswith(question.prefix) and len(pdu) == (question.size or len(pdu)):
        return pdu
    if pdu.startswith(question.refusal) and len(pdu) == 2:
        return pdu
    heard.reason = f"an answer of {len(pdu)} bytes to function {question.pdu[0]:02X} that is not the one due"
    return None


def _account(talk: Talk, question: Question, sent: bytes, buffer: bytes, heard: _Heard) -> None:
    """What the bytes were that were no answer, for the verdict."""
    if buffer.startswith(sent):
        heard.echo = True
        buffer = buffer[len(sent) :]
    if talk.tcp:
        whole_frames = list(tcp_frames(buffer))
        heard.stale += sum(transaction != talk.transaction for transaction, _, _ in whole_frames)
        whole = sum(len(pdu) + MBAP for _, _, pdu in whole_frames)
    else:
        frames = list(strangers(buffer))
        heard.foreign |= {unit for unit, _ in frames if unit != question.unit}
        heard.stale += sum(unit == question.unit for unit, _ in frames)
        whole = sum(len(pdu) + 3 for _, pdu in frames)
    heard.noise += len(buffer) - whole


def _refusal(talk: Talk, code: int) -> Refused:
    name = EXCEPTIONS.get(code, "no name for it")
    return Refused(
        f"refused: {name} (exception {code:02X})", code=code, where=talk.where, remedy=_REMEDIES.get(code, "")
    )


def read_block(talk: Talk, function: int, address: int, count: int) -> Conversation[bytes]:
    """The data of `count` registers (two bytes each) or bits (eight a byte)."""
    answer = yield from ask(talk, _read_question(talk.unit, function, address, count))
    return answer[2:]


@lru_cache(maxsize=4096)
def _read_question(unit: int, function: int, address: int, count: int) -> Question:
    """Kept, for the same reads come again and again. Raises `ValueError` outside what the protocol can say."""
    size = (count + 7) // 8 if function in BITS else 2 * count
    return Question(unit, read_request(function, address, count), bytes((function, size)), 2 + size)


def identify(talk: Talk) -> Conversation[dict[int, bytes]]:
    """Basic device identification (function 43/14): 0 vendor, 1 product, 2 revision, and what else the meter tells."""
    objects: dict[int, bytes] = {}
    following: int | None = 0
    for _ in range(MAX_IDENTIFICATIONS):
        if following is None:
            break
        pdu = identify_request(1, following)
        answer = yield from ask(talk, Question(talk.unit, pdu, pdu[:3], 0))
        found: Identification = identification(answer)
        objects |= found[0]
        following = found[1]
    return objects

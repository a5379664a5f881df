"""One command to a concentrator and its answer: correlation, expiry, parts, and what a refusal says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Any, Final, Literal

import msgspec

from headend.civil import to_epoch_s
from headend.conversation import MORE, Conversation, Send
from headend.errors import BadFrame, NoAnswer, Refused, UsageError
from headend.model import Meter
from headend.protocols.hes_mqtt.messages import ResponseMessage, decode_message, encode_command

__all__ = ["Answer", "Behind", "ask", "behind"]

Operation = Literal["read", "set_clock", "relay"]

_ANSWER_S: Final = 30.0
_PARTS: Final = 10_000
_SILENT: Final = "no answer"
_ERROR_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class Behind:
    """Where a meter is. concentrator: its id, as topics have it. answer_s: how long an answer to a command may take;
    after that the command is not to be carried out either."""

    concentrator: str
    answer_s: float = _ANSWER_S


@dataclass(slots=True)
class Answer:
    """What a concentrator answered. data: what it says of the meter asked for, part by part. cols: OBIS, unit, scaler.
    sent_s: by the concentrator's clock, epoch seconds. cut: a part did not come."""

    data: list[Any] = field(default_factory=list)
    cols: list[tuple[str, str, int]] = field(default_factory=list)
    sent_s: int = 0
    cut: bool = False


def behind(meter: Meter) -> Behind:
    """Where `meter` is: behind the concentrator its line is named after, unless it is told otherwise."""
    return meter.details if isinstance(meter.details, Behind) else Behind(meter.line)


def ask(
    meter: Meter, op: Operation, args: dict[str, Any], *, now: datetime, deadline: datetime | None = None
) -> Conversation[Answer]:
    """Send a command for `meter`, once, and gather its answer.

    deadline: it is not to be carried out after that, however long an answer may take. Raises `NoAnswer` when nothing
    comes, or when the meter did not answer the concentrator; `Refused` with the concentrator's words; `BadFrame` for an
    answer that makes no sense. What answers another command is passed over.
    """
    place = behind(meter)
    sent_s = to_epoch_s(now)
    expires_s = sent_s + ceil(place.answer_s)
    if deadline is not None:
        expires_s = min(expires_s, to_epoch_s(deadline))
    if expires_s <= sent_s:
        raise UsageError("there is no time left for a command", where=f"meter {meter.id}")
    cid = _cid(meter, op, args, now)
    command = encode_command(place.concentrator, f"h-{cid}", sent_s, op, cid, expires_s, [meter.address], args)
    return (yield from _gather(command, cid, meter, float(expires_s - sent_s)))


def _cid(meter: Meter, op: str, args: dict[str, Any], now: datetime) -> str:
    """A name for the command that no other one has: of what it is and of the microsecond it is sent in."""
    text = f"{meter.id}\n{op}\n{msgspec.json.encode(args).decode()}\n{now.isoformat()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _gather(command: bytes, cid: str, meter: Meter, reply_s: float) -> Conversation[Answer]:
    """The parts of the answer, in whatever order and however often they come, until none lacks."""
    parts: dict[int, ResponseMessage] = {}
    chunk = yield Send(command, reply_s=reply_s)
    try:
        while True:
            message = _ours(chunk, cid, behind(meter).concentrator)
            if message is not None:
                _check(message)
                parts.setdefault(message.part, message)
                if _whole(parts):
                    break
            chunk = yield MORE
    except NoAnswer:
        if not parts:
            raise
        return _joined(parts, meter, cut=True)
    return _joined(parts, meter, cut=False)


def _ours(chunk: bytes, cid: str, concentrator: str) -> ResponseMessage | None:
    """The answer to our command, if that is what came."""
    try:
        message = decode_message(chunk)
    except BadFrame as error:
        if cid.encode() in chunk:
            raise BadFrame(f"the concentrator's answer makes no sense: {error.problem.what}") from None
        return None
    if not isinstance(message, ResponseMessage) or message.cid != cid or message.con != concentrator:
        return None
    return message


def _check(message: ResponseMessage) -> None:
    if not message.ok:
        said = " ".join(message.err.split())[:_ERROR_CHARACTERS] or "no reason given"
        if said.lower().startswith(_SILENT):  # it asked the meter: whether that did anything, nobody knows
            raise NoAnswer(f"the concentrator says: {said}")
        raise Refused(f"the concentrator says: {said}")
    if not 0 <= message.part < _PARTS:
        raise BadFrame(f"the concentrator's answer has a part {message.part}")


def _whole(parts: dict[int, ResponseMessage]) -> bool:
    """Whether every part up to the last is there."""
    last = next((number for number, part in parts.items() if not part.more), None)
    return last is not None and all(number in parts for number in range(last + 1))


def _joined(parts: dict[int, ResponseMessage], meter: Meter, *, cut: bool) -> Answer:
    answer = Answer(cut=cut)
    for _, part in sorted(parts.items()):
        if isinstance(part.data, dict) and meter.address in part.data:
            answer.data.append(part.data[meter.address])
        if part.cols:
            if answer.cols and answer.cols != part.cols:
                raise BadFrame("the parts of the concentrator's answer have different columns")
            answer.cols = part.cols
        answer.sent_s = part.ts
    return answer

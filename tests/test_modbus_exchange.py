"""One question, one answer: retries, late answers, refusals, gateways. Each trap of the protocol as a test."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from headend.conversation import Conversation, play
from headend.errors import BadFrame, NoAnswer, ProtocolError, Refused, WrongMeter
from headend.protocols.modbus.exchange import EXCEPTIONS, Talk, identify, read_block
from headend.protocols.modbus.frame import rtu
from headend.protocols.modbus.library import read_request
from tests.modbus_slave import Slave, converse, frame_rtu, frame_tcp, words

FIRST = rtu(1, read_request(3, 0, 2))
VALUE = bytes.fromhex("0304DEADBEEF")
LATE = bytes.fromhex("030400000001")


def _read(*, tcp: bool = False, address: int = 0) -> Conversation[bytes]:
    return read_block(Talk(1, tcp, transaction=99), 3, address, 2)


def _failed(conversation: Conversation[bytes], transcript: Iterable[tuple[str, bytes]]) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        play(conversation, transcript)
    return caught.value


def test_an_answer_in_pieces() -> None:
    frame = frame_rtu(1, VALUE)
    steps = [(">", FIRST), *(("<", frame[at : at + 1]) for at in range(len(frame)))]
    assert play(_read(), steps) == bytes.fromhex("DEADBEEF")


def test_one_noise_byte_does_not_lose_the_reply() -> None:
    assert play(_read(), [(">", FIRST), ("<", b"\x00" + frame_rtu(1, VALUE))]) == VALUE[2:]


def test_a_bad_crc_is_asked_again() -> None:
    damaged = frame_rtu(1, VALUE)[:-1] + b"\x00"
    assert play(_read(), [(">", FIRST), ("<", damaged), (">", FIRST), ("<", frame_rtu(1, VALUE))]) == VALUE[2:]
    error = _failed(_read(), [step for _ in range(3) for step in ((">", FIRST), ("<", damaged))])
    assert isinstance(error, BadFrame)
    assert "27 bytes came that make no whole frame" in str(error)


def test_silence_is_asked_three_times() -> None:
    error = _failed(_read(), [(">", FIRST)] * 3)
    assert isinstance(error, NoAnswer)
    assert error.problem.where == "unit 1"


@pytest.mark.parametrize("pdu", ["0404DEADBEEF", "0302DEAD", "0306DEADBEEF0001"])
def test_wrong_function_and_wrong_count_are_no_answer(pdu: str) -> None:
    wrong = frame_rtu(1, bytes.fromhex(pdu))
    error = _failed(_read(), [step for _ in range(3) for step in ((">", FIRST), ("<", wrong))])
    assert isinstance(error, NoAnswer)
    assert "only 3 answer(s) to something else came" in str(error)


def test_another_unit_is_named() -> None:
    other = frame_rtu(7, VALUE)
    error = _failed(_read(), [step for _ in range(3) for step in ((">", FIRST), ("<", other))])
    assert isinstance(error, WrongMeter)
    assert "unit 7 answered instead" in str(error)


def test_the_true_answer_after_a_stale_one() -> None:
    stale = frame_rtu(1, bytes.fromhex("030200FF"))
    assert play(_read(), [(">", FIRST), ("<", stale), ("<", frame_rtu(1, VALUE))]) == VALUE[2:]


class _Sluggish:
    """A slave that answers everything, but the first answer only after the second question was put."""

    def __init__(self) -> None:
        self.questions = 0

    def __call__(self, frame: bytes) -> bytes:
        self.questions += 1
        if self.questions == 1:
            return b""
        return frame_rtu(1, VALUE)


def test_after_a_timeout_the_rtu_line_is_kept_silent() -> None:
    """Both requests may be answered: the second answer must not meet the next question."""
    pauses: list[float] = []
    assert converse(_read(), _Sluggish(), pauses) == VALUE[2:]
    assert pauses == [0.5, 0.5]  # before asking again, and before what follows
    pauses.clear()
    with pytest.raises(NoAnswer):
        converse(_read(), lambda _frame: b"", pauses)
    assert pauses == [0.5] * 3
    pauses.clear()
    converse(_read(), lambda _frame: frame_rtu(1, VALUE), pauses)
    assert pauses == []


def test_a_late_answer_of_another_address_does_not_pass_for_the_next() -> None:
    """The answer to the first address comes while the line is kept silent, and is dropped there."""

    def both(talk: Talk) -> Conversation[tuple[bytes, bytes]]:
        first = yield from read_block(talk, 3, 0, 2)
        second = yield from read_block(talk, 3, 100, 2)
        return first, second

    late: list[bytes] = []
    asked: list[bytes] = []

    def reply(frame: bytes) -> list[bytes]:
        asked.append(frame)
        value = VALUE if frame[3] == 0 else LATE
        if len(asked) == 1:
            late.append(frame_rtu(1, value))
            return []
        return [frame_rtu(1, value), *late]  # converse drops at a pause what is still to come

    assert converse(both(Talk(1)), reply) == (VALUE[2:], LATE[2:])


def test_a_late_answer_over_tcp_is_dropped_by_its_transaction() -> None:
    pauses: list[float] = []
    sent: list[int] = []

    def reply(frame: bytes) -> bytes:
        sent.append(int.from_bytes(frame[:2], "big"))
        if len(sent) == 1:
            return b""
        return frame_tcp(sent[0], 1, LATE) + frame_tcp(sent[1], 1, VALUE)

    assert converse(_read(tcp=True), reply, pauses) == VALUE[2:]
    assert sent == [100, 101]
    assert pauses == []


@pytest.mark.parametrize(
    ("unit", "pdu", "kind", "text"),
    [
        (2, VALUE, WrongMeter, "unit 2 answered instead"),
        (1, bytes.fromhex("0302DEAD"), BadFrame, "an answer of 4 bytes to function 03 that is not the one due"),
        (1, bytes.fromhex("0404DEADBEEF"), BadFrame, "that is not the one due"),
        (1, bytes.fromhex("0304DEADBE"), BadFrame, "that is not the one due"),
    ],
)
def test_tcp_answers_are_checked_beside_their_transaction(
    unit: int, pdu: bytes, kind: type[ProtocolError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        converse(_read(tcp=True), lambda frame: frame_tcp(int.from_bytes(frame[:2], "big"), unit, pdu))


@pytest.mark.parametrize("code", [1, 2, 3, 4, 7, 8, 10, 99])
def test_exceptions_are_named_and_not_asked_again(code: int) -> None:
    error = _failed(_read(), [(">", FIRST), ("<", frame_rtu(1, bytes((0x83, code))))])
    assert isinstance(error, Refused)
    assert error.code == code
    assert EXCEPTIONS.get(code, "no name for it") in str(error)
    assert f"exception {code:02X}" in str(error)


@pytest.mark.parametrize("code", [5, 6])
def test_a_busy_meter_is_asked_again_after_a_pause(code: int) -> None:
    pauses: list[float] = []
    replies = [frame_rtu(1, bytes((0x83, code))), frame_rtu(1, VALUE)]
    assert converse(_read(), lambda _frame: replies.pop(0), pauses) == VALUE[2:]
    assert pauses == [0.5]
    with pytest.raises(Refused, match=EXCEPTIONS[code]):
        converse(_read(), lambda _frame: frame_rtu(1, bytes((0x83, code))))


def test_a_gateway_without_its_target_is_no_answer() -> None:
    slave = Slave({3: words(0, b"\0" * 4)}, unit=9)
    with pytest.raises(NoAnswer, match="the gateway says that the unit does not answer"):
        converse(_read(tcp=True), slave.tcp)


def test_an_echo_is_no_answer_and_is_named() -> None:
    error = _failed(_read(), [step for _ in range(3) for step in ((">", FIRST), ("<", FIRST))])
    assert isinstance(error, NoAnswer)
    assert error.problem.remedy == "set echo on this line"


def test_a_line_that_is_never_silent_ends() -> None:
    def babble(_frame: bytes) -> Iterable[bytes]:
        return [b"\x55" * 500] * 20

    with pytest.raises(BadFrame, match="make no whole frame"):
        converse(_read(), babble)


def test_bits_are_read_as_bytes() -> None:
    """Application Protocol V1.1b3, 6.1: coils 20 to 38."""
    answer = bytes.fromhex("0103CD6B05")
    data = converse(read_block(Talk(1), 1, 19, 19), lambda _frame: frame_rtu(1, answer))
    assert data == bytes.fromhex("CD6B05")


@pytest.mark.parametrize("tcp", [False, True])
def test_an_identification_is_followed_to_its_end(tcp: bool) -> None:
    slave = Slave({}, identity=(b"Eastron", b"SDM630", b"1.27"))
    objects = converse(identify(Talk(1, tcp)), slave.tcp if tcp else slave.rtu)
    assert objects == {0: b"Eastron", 1: b"SDM630", 2: b"1.27"}

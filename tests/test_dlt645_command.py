"""Commands: their frames are those recorded in the field, they go out once, refusals say what they can mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.conversation import Conversation, Send, play
from headend.errors import BadFrame, HeadendError, NoAnswer, Refused, UsageError, WrongMeter
from headend.protocols.dlt645 import command, command_1997, explain
from headend.protocols.dlt645.auth import Auth, Password
from headend.protocols.dlt645.command import Control
from tests.dlt645_wire import ADDRESS, converse, di_bytes, local, read_answer, read_request, refusal, utc, wire

FOLDER = Path(__file__).parent / "vectors"
FRAMES = {
    vector["id"]: vector["hex"]
    for name in ("dlt645_2007.jsonl", "dlt645_1997.jsonl")
    for vector in map(json.loads, (FOLDER / name).read_text(encoding="utf-8").splitlines())
}
FRAMES[126] = FRAMES[126][:-4] + "7E16"  # the source's checksum is off by one

METER, BOARD, ANY, BROADCAST = "151230011061", "000000219998", "A" * 12, "9" * 12
AUTH = Auth(2, "020637", "00000001")
FACTORY = Auth(2, "000000", "30303030")
LATE = local(2099, 12, 30)
CALIBRATION = bytes.fromhex("01002200220022000025000025000025000000550000005500000055001000100010")

SENT: dict[int, Callable[[], Conversation[Any]]] = {
    41: lambda: command.control(METER, Control.PERMIT_CLOSE, AUTH, deadline=LATE),
    42: lambda: command.control(METER, Control.TRIP, AUTH, deadline=LATE),
    44: lambda: command.confirm_relay(METER),
    92: lambda: command.control(BOARD, Control.TRIP, FACTORY, deadline=None),
    93: lambda: command.control(BOARD, Control.PERMIT_CLOSE, FACTORY, deadline=None),
    98: lambda: command.broadcast_time(local(2017, 6, 5, 10, 22).replace(second=51), "Asia/Shanghai"),
    99: lambda: command.broadcast_time(
        local(2017, 6, 5, 10, 40).replace(second=25), "Asia/Shanghai", address="111111111111"
    ),
    100: lambda: command.broadcast_time(local(2018, 1, 15, 11, 20).replace(second=4), "Asia/Shanghai"),
    101: lambda: command_1997.broadcast_time(local(2022, 3, 17, 14, 7).replace(second=47), "+08:00"),
    125: lambda: command.write("F" * 12, "04CC0001", b"\x11", Auth(2, "000000", "11111111")),
    126: lambda: command.write_address("665544332211"),
    145: lambda: command.write(ANY, "04A20200", CALIBRATION, Auth(0, "565239")),
    201: lambda: command_1997.write(BROADCAST, "C010", bytes.fromhex("06060719"), Password("00000000")),
}


def sent(conversation: Conversation[Any]) -> bytes:
    wish = next(conversation)
    assert isinstance(wish, Send)
    return wish.data


@pytest.mark.parametrize("number", SENT, ids=str)
def test_frames_are_those_recorded(number: int) -> None:
    assert sent(SENT[number]()).hex().upper() == "FE" * 4 + FRAMES[number]


def test_the_recorded_relay_dialogue() -> None:
    """Trip, acknowledged, found open; permitted to close, found closed: vectors 42 to 46."""
    frame = {number: bytes.fromhex(FRAMES[number]) for number in (41, 42, 43, 44, 45, 46)}

    def asked(number: int) -> tuple[str, bytes]:
        return (">", b"\xfe" * 4 + frame[number])

    done = play(SENT[42](), [asked(42), ("<", frame[43])])
    assert (done.command, done.meter, done.acknowledged) == ("trip", METER, True)
    relay = play(command.confirm_relay(METER), [asked(44), ("<", frame[45])])
    assert (relay.open, relay.closed, relay.commanded_open) == (True, False, True)
    assert play(SENT[41](), [asked(41), ("<", frame[43])]).command == "permit close"
    relay = play(command.confirm_relay(METER), [asked(44), ("<", frame[46])])
    assert (relay.open, relay.closed, relay.commanded_open) == (False, True, False)


def test_a_status_word_of_another_length_is_no_relay() -> None:
    with pytest.raises(BadFrame, match="3 bytes"):
        converse(command.confirm_relay(ADDRESS), lambda _: [read_answer("04000503", b"\0\0\0")])


# --- payloads the standard gives but nobody has recorded ----------------------------------------------------------

KEY = bytes.fromhex("02 563412")  # PA P0 P1 P2 of password 123456, level 2
WHO = KEY + bytes.fromhex("78563412")
OWN = Auth(2, "123456", "12345678")
MADE: dict[str, tuple[Callable[[], Conversation[Any]], bytes, bytes, str]] = {
    "write": (
        lambda: command.write(ADDRESS, "04000b01", b"\0\1", OWN),
        b"\x14" + di_bytes("04000B01") + WHO + b"\0\1",
        b"",
        "write 04000B01",
    ),
    "freeze now": (lambda: command.freeze(ADDRESS), b"\x16" + b"\x99" * 4, b"", "freeze"),
    "freeze hourly": (lambda: command.freeze(ADDRESS, minute=30), b"\x16\x30\x99\x99\x99", b"", "freeze"),
    "freeze daily": (lambda: command.freeze(ADDRESS, hour=1, minute=5), b"\x16\x05\x01\x99\x99", b"", "freeze"),
    "freeze monthly": (lambda: command.freeze(ADDRESS, day=28, hour=0, minute=0), b"\x16\0\0\x28\x99", b"", "freeze"),
    "baud": (lambda: command.set_baud(ADDRESS, 9600), b"\x17\x20", b"\x20", "set 9600 baud"),
    "password": (
        lambda: command.change_password(ADDRESS, OWN, Auth(4, "654321")),
        b"\x18" + di_bytes("04000C05") + KEY + bytes.fromhex("04 214365"),
        bytes.fromhex("04 214365"),
        "change password",
    ),
    "demand": (lambda: command.clear_demand(ADDRESS, OWN), b"\x19" + WHO, b"", "clear demand"),
    "meter": (lambda: command.clear_meter(ADDRESS, OWN), b"\x1a" + WHO, b"", "clear meter"),
    "events": (lambda: command.clear_events(ADDRESS, OWN), b"\x1b" + WHO + b"\xff" * 4, b"", "clear events"),
    "cover events": (
        lambda: command.clear_events(ADDRESS, OWN, "03300dff"),
        b"\x1b" + WHO + di_bytes("03300DFF"),
        b"",
        "clear events",
    ),
    "keep supply": (
        lambda: command.control(ADDRESS, Control.KEEP_SUPPLY_ON, OWN, deadline=utc(local(2026, 1, 2, 3, 4))),
        b"\x1c" + WHO + bytes.fromhex("3a00 000403020126"),
        b"",
        "keep supply on",
    ),
    "write 1997": (
        lambda: command_1997.write(ADDRESS, "c011", b"\1\2\3", Password("12345678")),
        b"\x04" + di_bytes("C011") + bytes.fromhex("78563412") + b"\1\2\3",
        b"",
        "write C011",
    ),
}
made = pytest.mark.parametrize(("start", "asked", "reply", "name"), MADE.values(), ids=MADE.keys())


@made
def test_a_command_and_its_acknowledgement(
    start: Callable[[], Conversation[Any]], asked: bytes, reply: bytes, name: str
) -> None:
    request = wire(ADDRESS, asked[0], asked[1:])
    acknowledged = wire(ADDRESS, asked[0] | 0x80, reply)
    done = play(start(), [(">", request), ("<", acknowledged)])
    assert done == command.Done(name, ADDRESS)
    assert explain(request).problems == ()
    assert explain(acknowledged).problems == ()


IDEMPOTENT = {"freeze hourly", "freeze daily", "freeze monthly"}


@pytest.mark.parametrize("name", MADE)
def test_a_command_not_answered_is_not_sent_again(name: str) -> None:
    requests: list[bytes] = []

    def silent(request: bytes) -> list[bytes]:
        requests.append(request)
        return []

    with pytest.raises(NoAnswer, match=r"whether it was carried out is not known.*before sending it again"):
        converse(MADE[name][0](), silent)
    assert len(requests) == (2 if name in IDEMPOTENT else 1)


@made
@pytest.mark.parametrize("kind", [BadFrame, WrongMeter])
def test_so_it_is_when_something_else_comes(
    start: Callable[[], Conversation[Any]], asked: bytes, reply: bytes, name: str, kind: type[HeadendError]
) -> None:
    other = wire("000000000001", asked[0] | 0x80, reply)
    with pytest.raises(kind, match="not known"):
        converse(start(), lambda _: [other if kind is WrongMeter else other[:-3]])


@made
def test_an_echo_or_a_stale_answer_is_no_acknowledgement(
    start: Callable[[], Conversation[Any]], asked: bytes, reply: bytes, name: str
) -> None:
    stale = [read_answer("00010000", bytes(4)), wire(ADDRESS, 0x9F), read_request("00010000")]
    with pytest.raises(NoAnswer):
        converse(start(), lambda request: [request, *stale])
    acknowledged = wire(ADDRESS, asked[0] | 0x80, reply)
    assert converse(start(), lambda request: [request + b"".join(stale), acknowledged]).command == name


def test_writing_the_address_is_acknowledged_by_the_new_one() -> None:
    done = converse(command.write_address(ADDRESS), lambda _: [wire(ADDRESS, 0x95)])
    assert done == command.Done("write address", ADDRESS)
    with pytest.raises(NoAnswer, match="not known"):
        converse(command.write_address(ADDRESS), lambda _: [wire("000000000001", 0x95)])


def test_a_baud_rate_is_acknowledged_by_itself() -> None:
    with pytest.raises(NoAnswer):
        converse(command.set_baud(ADDRESS, 9600), lambda _: [wire(ADDRESS, 0x97, b"\x10")])


def test_another_password_acknowledged_is_told_without_showing_any() -> None:
    answer = wire(ADDRESS, 0x98, bytes.fromhex("04 999999"))
    with pytest.raises(BadFrame, match="another password") as caught:
        converse(command.change_password(ADDRESS, OWN, Auth(4, "654321")), lambda _: [answer])
    assert not any(secret in str(caught.value) for secret in ("654321", "214365", "123456", "999999"))


def test_broadcasts_wait_for_nothing() -> None:
    for conversation, control in (
        (command.broadcast_time(local(2025, 1, 1), "Asia/Shanghai"), 0x08),
        (command.broadcast_freeze(hour=0, minute=0), 0x16),
    ):
        wish = next(conversation)
        assert isinstance(wish, Send)
        assert not wish.expect_reply
        assert wish.data[4:12] == b"\x68" + b"\x99" * 6 + b"\x68"
        assert wish.data[12] == control
        with pytest.raises(StopIteration) as stop:
            conversation.send(b"")
        assert not stop.value.value.acknowledged


def test_a_deadline_is_by_the_meters_clock() -> None:
    moment = utc(local(2026, 1, 1, 0, 0))
    frame = sent(command.control(ADDRESS, Control.TRIP, OWN, deadline=moment, clock_zone="+09:00"))
    data = bytes((b - 0x33) & 0xFF for b in frame[14:-2])
    assert data[10:] == bytes.fromhex("000001010126")


# --- refusals -----------------------------------------------------------------------------------------------------


def refused(auth: Auth, code: int) -> Refused:
    with pytest.raises(Refused) as caught:
        converse(command.clear_demand(ADDRESS, auth), lambda _: [refusal(code, control=0xD9)])
    assert caught.value.code == code
    return caught.value


@pytest.mark.parametrize("level", [2, 4])
def test_a_refusal_that_a_security_module_may_have_given_says_so(level: int) -> None:
    text = str(refused(Auth(level, "123456"), 0x04))
    assert f"password of level {level:02d} is wrong" in text
    assert "security module (ESAM)" in text
    assert "98H and 99H" in text
    assert "key server" in text
    assert "123456" not in text


def test_at_other_levels_the_password_is_the_likely_reason() -> None:
    text = str(refused(Auth(0, "123456"), 0x04))
    assert "password of level 00 is wrong" in text
    assert "known for levels 02 and 04" in text


def test_other_refusals_are_no_matter_of_passwords() -> None:
    text = str(refused(OWN, 0x01))
    assert "other error (error word 01)" in text
    assert "programming key" in text
    assert "ESAM" not in text


def test_a_recorded_refusal_of_1997() -> None:
    answer = bytes.fromhex(FRAMES[200])
    with pytest.raises(Refused, match="wrong password") as caught:
        converse(command_1997.write("201708176934", "C010", b"\6\6\7\x19", Password("12345678")), lambda _: [answer])
    assert "12345678" not in str(caught.value)


# --- what is refused before anything is sent ----------------------------------------------------------------------


def test_secrets_are_not_shown() -> None:
    shown = repr((Auth(2, "123456", "87654321"), Password("12345678")))
    assert "123456" not in shown
    assert "87654321" in shown


@pytest.mark.parametrize("level", [0x98, 0x99])
def test_ciphertext_classes_are_no_passwords(level: int) -> None:
    with pytest.raises(UsageError, match=rf"class {level:02X}H.*key server"):
        Auth(level, "123456")


@pytest.mark.parametrize(
    "make",
    [
        lambda: Auth(10, "123456"),
        lambda: Auth(-1, "123456"),
        lambda: Auth(2, "se cret"),
        lambda: Auth(2, "12345"),
        lambda: Auth(2, "123456", "1"),
        lambda: Password("123456"),
    ],
)
def test_what_is_no_password_is_refused_without_repeating_it(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert "123456" not in str(caught.value)
    assert "se cret" not in str(caught.value)


NONSENSE: list[Callable[[], Conversation[Any]]] = [
    lambda: command.write(ADDRESS, "0400", b"\0", OWN),
    lambda: command.write(ADDRESS, "04000B01", b"", OWN),
    lambda: command.write(ADDRESS, "04000B01", bytes(39), OWN),
    lambda: command.write_address(BROADCAST),
    lambda: command.write_address("12345678901X"),
    lambda: command.freeze(ADDRESS, hour=1),
    lambda: command.freeze(ADDRESS, day=1, minute=1),
    lambda: command.freeze(ADDRESS, minute=60),
    lambda: command.freeze(ADDRESS, day=29, hour=0, minute=0),
    lambda: command.set_baud(ADDRESS, 300),
    lambda: command.change_password(ADDRESS, Auth(4, "123456"), Auth(2, "123456")),
    lambda: command.clear_demand(ANY, OWN),
    lambda: command.clear_meter(BROADCAST, OWN),
    lambda: command.clear_events("AAAAAAAA3600", OWN),
    lambda: command.clear_events(ADDRESS, OWN, "03300D01"),
    lambda: command.control(ANY, Control.TRIP, OWN, deadline=None),
    lambda: command.control(ADDRESS, Control.TRIP, OWN, deadline=datetime(2026, 1, 1)),  # noqa: DTZ001
    lambda: command_1997.write(ADDRESS, "04000B01", b"\0", Password("00000000")),
    lambda: command_1997.write(ADDRESS, "C010", b"", Password("00000000")),
]


@pytest.mark.parametrize("start", NONSENSE, ids=range(len(NONSENSE)))
def test_what_makes_no_sense_is_not_sent(start: Callable[[], Conversation[Any]]) -> None:
    with pytest.raises(UsageError) as caught:
        next(start())
    assert caught.value.problem.remedy


@given(st.integers(0, 9), st.text("0123456789ABCDEF", min_size=6, max_size=6), st.sampled_from(list(Control)))
def test_explain_tells_a_command_but_not_its_password(level: int, password: str, kind: Control) -> None:
    frame = sent(command.control(ADDRESS, kind, Auth(level, password), deadline=LATE - timedelta(days=1)))
    explanation = explain(frame)
    assert explanation.ok
    assert explanation.problems == ()
    assert [v.value for v in explanation.values] == [f"{kind.value:02X}"]
    told = next(f.text for f in explanation.fields if f.name == "data")
    assert told.startswith(f"less 33H: {level:02X}······")

"""The wrapper of TCP and UDP: its bytes, its link, and both over real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend.conversation import Conversation, Mismatch, Pause, Send, play
from headend.errors import BadFrame, HeadendError, LineDown, NoAnswer, ProtocolError, WrongMeter
from headend.model import FrameRecord
from headend.protocols.dlms import wrapper
from headend.protocols.dlms.link import Link, make_link
from headend.protocols.dlms.settings import DlmsSettings
from headend.protocols.dlms.wrapper import Damaged, Wpdu
from tests.test_line import tcp_line
from tests.test_line_udp import udp_line

# IEC 62056-47 as the Green Book's example of an AARQ over TCP shows it: client 16, logical device 1.
AARQ = bytes.fromhex("601da109060760857405080101be10040e01000000065f1f0400007e1f04b0")
GREEN_BOOK = bytes.fromhex("000100100001001f") + AARQ


def link_of(**knobs: Any) -> Link:
    return make_link(DlmsSettings(interface="wrapper", **knobs), "1")


def reply(apdu: bytes, source: int = 1, destination: int = 16) -> bytes:
    """A wPDU put together by hand."""
    numbers = (1, source, destination, len(apdu))
    return b"".join(bytes([number >> 8, number & 0xFF]) for number in numbers) + apdu


def all_of(data: bytes) -> list[Wpdu | Damaged]:
    buffer = bytearray(data)
    seen = []
    while (one := wrapper.take(buffer)) is not None:
        seen.append(one)
    return seen


# -- bytes -------------------------------------------------------------------------------------------------------------


def test_the_example_of_the_green_book() -> None:
    assert len(AARQ) == 0x1F
    assert wrapper.encode(16, 1, AARQ) == GREEN_BOOK
    assert all_of(GREEN_BOOK) == [Wpdu(16, 1, AARQ, GREEN_BOOK)]


@given(
    st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535), st.binary(min_size=1, max_size=300)), max_size=5),
    st.randoms(use_true_random=False),
)
def test_any_wpdus_in_chunks_of_any_size(wpdus: list[tuple[int, int, bytes]], rng: Any) -> None:
    stream = b"".join(wrapper.encode(source, destination, apdu) for source, destination, apdu in wpdus)
    assert stream == b"".join(reply(apdu, source, destination) for source, destination, apdu in wpdus)
    buffer = bytearray()
    found = []
    at = 0
    while at < len(stream):
        size = rng.randrange(1, 40)
        buffer += stream[at : at + size]
        at += size
        while (seen := wrapper.take(buffer)) is not None:
            assert isinstance(seen, Wpdu)
            found.append((seen.source, seen.destination, seen.apdu))
    assert found == wpdus
    assert not buffer


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_apart_without_an_error(data: bytes) -> None:
    buffer = bytearray(data)
    taken = b""
    while (seen := wrapper.take(buffer)) is not None:
        taken += seen.raw
    assert taken + bytes(buffer) == data


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00\x02",
        b"\xff" * 20,
        b"\x00",
        b"\x00\x00\x00",
        b"hello\x00",
        b"\x00\x01\x00\x01\x00\x10\x00\x00",
    ],
)
def test_a_wpdu_behind_noise_is_found(noise: bytes) -> None:
    seen = all_of(noise + reply(b"abcd"))
    assert [one.apdu for one in seen if isinstance(one, Wpdu)] == [b"abcd"]
    assert b"".join(one.raw for one in seen) == noise + reply(b"abcd")
    assert isinstance(seen[0], Damaged)


@pytest.mark.parametrize("size", [0, 65536])
def test_what_does_not_go_into_one_wrapper_is_refused(size: int) -> None:
    with pytest.raises(BadFrame, match=f"{size} bytes do not go into one wrapper"):
        wrapper.encode(16, 1, bytes(size))
    assert len(wrapper.encode(16, 1, bytes(65535))) == 65543


# -- the link ----------------------------------------------------------------------------------------------------------


def test_a_request_and_its_answer() -> None:
    assert play(link_of().exchange(AARQ), [(">", GREEN_BOOK), ("<", reply(b"aare"))]) == b"aare"


def test_an_answer_in_pieces_and_two_in_one_chunk() -> None:
    link = link_of()
    whole = reply(b"first" * 100)
    pieces = [("<", whole[at : at + 3]) for at in range(0, len(whole), 3)]
    assert play(link.exchange(AARQ), [(">", GREEN_BOOK), *pieces]) == b"first" * 100
    assert play(link.exchange(AARQ), [(">", GREEN_BOOK), ("<", reply(b"one") + reply(b"two"))]) == b"one"
    assert play(link.receive(), []) == b"two"
    assert play(link.receive(), [("<", reply(b"three"))]) == b"three"


def test_nothing_is_sent_again() -> None:
    """Whether the request was carried out is not known here; the session decides."""
    with pytest.raises(NoAnswer, match="meter 1, client 16: no answer -> check the address"):
        play(link_of(link_retries=5).exchange(AARQ), [(">", GREEN_BOOK)])


@pytest.mark.parametrize(("source", "destination"), [(2, 16), (1, 17), (17, 1), (1, 1)])
def test_another_wport_s_answer_is_not_ours(source: int, destination: int) -> None:
    transcript = [(">", GREEN_BOOK), ("<", reply(b"other", source, destination))]
    with pytest.raises(WrongMeter, match=f"an answer came from wPort {source} to {destination} -> check the logical"):
        play(link_of().exchange(AARQ), transcript)
    assert play(link_of().exchange(AARQ), [*transcript, ("<", reply(b"ours"))]) == b"ours"


def test_our_own_bytes_given_back_are_no_answer() -> None:
    assert play(link_of().exchange(AARQ), [(">", GREEN_BOOK), ("<", GREEN_BOOK + reply(b"aare"))]) == b"aare"
    with pytest.raises(NoAnswer):
        play(link_of().exchange(AARQ), [(">", GREEN_BOOK), ("<", GREEN_BOOK)])


def test_ports_the_other_way_round() -> None:
    link = link_of(swap_wports=True)
    assert play(link.exchange(b"ask"), [(">", reply(b"ask", 1, 16)), ("<", reply(b"answer", 16, 1))]) == b"answer"
    with pytest.raises(NoAnswer):
        play(link.exchange(b"ask"), [(">", reply(b"ask", 1, 16)), ("<", reply(b"answer", 1, 16))])


def test_a_client_and_a_logical_device_of_one_s_own() -> None:
    link = make_link(DlmsSettings(interface="wrapper", client=1), "16#123456", client=102)
    assert play(link.exchange(b"ask"), [(">", reply(b"ask", 102, 16)), ("<", reply(b"ok", 16, 102))]) == b"ok"


@pytest.mark.parametrize(
    "garbage", [b"\x01\x00\x01", b"\x00\x02\x00\x01\x00\x10\x00\x02ab", b"\x7e\xa0\x07\x03\x21\x93\x0f\x01\x7e"]
)
def test_bytes_that_are_no_wrapper(garbage: bytes) -> None:
    with pytest.raises(
        BadFrame, match="bytes came that make no whole wrapper -> does the meter speak the wrapper here"
    ):
        play(link_of().exchange(AARQ), [(">", GREEN_BOOK), ("<", garbage)])
    assert play(link_of().exchange(AARQ), [(">", GREEN_BOOK), ("<", garbage + reply(b"aare"))]) == b"aare"


def test_an_answer_cut_short_is_damage_and_the_next_request_starts_clean() -> None:
    link = link_of()
    with pytest.raises(BadFrame, match="10 bytes came that make no whole wrapper"):
        play(link.exchange(AARQ), [(">", GREEN_BOOK), ("<", reply(b"answer")[:10])])
    assert play(link.exchange(AARQ), [(">", GREEN_BOOK), ("<", reply(b"answer"))]) == b"answer"


def test_over_udp_the_next_datagram_does_not_finish_a_truncated_one() -> None:
    cut = ("<", reply(b"long answer" * 20)[:100])
    assert play(link_of().exchange(AARQ), [(">", GREEN_BOOK), cut, ("<", reply(b"whole"))]) == b"whole"


def test_what_came_before_a_question_is_no_answer_to_it() -> None:
    link = link_of()
    assert play(link.exchange(b"a"), [(">", reply(b"a", 16, 1)), ("<", reply(b"A") + reply(b"push"))]) == b"A"
    assert play(link.exchange(b"b"), [(">", reply(b"b", 16, 1)), ("<", reply(b"B"))]) == b"B"
    assert link.unsolicited == [b"push"]


def test_what_expects_no_answer() -> None:
    requests = list(link_of(reply_s=4.0).send(b"tell", shown=b"****"))
    assert requests == [Send(reply(b"tell", 16, 1), 4.0, expect_reply=False, shown=reply(b"****", 16, 1))]


def test_times_and_secrets_are_passed_on() -> None:
    link = link_of(reply_s=3.5, interframe_s=0.1, open_quiet_s=0.2, reconnect_s=5.0)
    asking = link.exchange(b"secret", shown=b"******")
    assert next(asking) == Pause(0.1)
    assert asking.send(b"") == Send(reply(b"secret", 16, 1), 3.5, shown=reply(b"******", 16, 1))
    assert list(link.open()) == [Pause(0.2)]
    assert list(link.close()) == [Pause(5.0)]
    assert list(link_of().open()) == list(link_of().close()) == []


def test_closing_never_raises() -> None:
    closing = link_of(reconnect_s=1.0).close()
    next(closing)
    with pytest.raises(StopIteration):
        closing.throw(LineDown("gone"))


@pytest.mark.parametrize("rubbish", [b"\xff", b"\x00\x01" * 50, reply(b"x", 5, 5), GREEN_BOOK, b"\x00" * 1000])
def test_a_line_that_never_falls_silent_holds_nobody(rubbish: bytes) -> None:
    asking = link_of().exchange(b"ask")
    next(asking)
    with pytest.raises(ProtocolError):
        _babble(asking, rubbish * (1 + 5000 // len(rubbish)))


def _babble(conversation: Conversation[bytes], rubbish: bytes) -> None:
    for _ in range(2000):
        conversation.send(rubbish)


def test_an_exchange_sends_one_request_and_not_another() -> None:
    with pytest.raises(Mismatch):
        play(link_of().exchange(b"ask"), [(">", reply(b"other", 16, 1))])


# -- on real sockets ---------------------------------------------------------------------------------------------------


def test_over_tcp_in_pieces() -> None:
    async def meter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while header := await reader.read(8):
            request = await reader.readexactly(header[6] << 8 | header[7])
            answer = reply(request[::-1] * 50)
            for at in range(0, len(answer), 97):
                writer.write(answer[at : at + 97])
                await writer.drain()

    async def main() -> None:
        async with tcp_line(meter) as line:
            link = link_of()
            await line.run(link.open())
            for _ in range(3):
                assert await line.run(link.exchange(AARQ)) == AARQ[::-1] * 50

    asyncio.run(main())


@pytest.mark.parametrize("lost", [0, 1])
def test_over_udp_one_datagram_each(lost: int) -> None:
    asked = 0

    def answer(data: bytes) -> list[bytes]:
        nonlocal asked
        asked += 1
        return [reply(b"push"), reply(data[8:][::-1])] if asked > lost else []

    async def main() -> None:
        async with udp_line(answer, reply_s=0.1) as (line, meter):
            link = link_of()
            frames: list[FrameRecord] = []
            for _ in range(lost):
                with pytest.raises(NoAnswer):
                    await line.run(link.exchange(AARQ), frames)
            assert await line.run(link.exchange(AARQ), frames) == b"push"
            assert await line.run(link.receive(), frames) == AARQ[::-1]
            assert meter.got == [GREEN_BOOK] * (lost + 1)

    asyncio.run(main())


def test_a_meter_over_udp_that_is_not_there() -> None:
    async def main() -> None:
        async with udp_line(lambda _: [], reply_s=0.05) as (line, _meter):
            with pytest.raises(HeadendError, match="no answer"):
                await line.run(link_of().exchange(AARQ))

    asyncio.run(main())

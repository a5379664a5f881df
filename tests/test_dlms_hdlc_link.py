"""HDLC links against a station that is not ours: segmentation, windows, repetition, refusals, faults of the wire."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headend.conversation import Conversation, Pause, Send
from headend.errors import BadFrame, HeadendError, LineDown, NoAnswer, ProtocolError, Refused, WrongMeter
from headend.protocols.dlms.link import Link, make_link
from headend.protocols.dlms.settings import DlmsSettings
from tests.hdlc_kit import Station, build, drive, whole

SERVER, CLIENT = b"\x02\x23", b"\x21"  # 1/17, 16


def pair(answer: Callable[[bytes], list[bytes]] = lambda apdu: [apdu], **knobs: Any) -> tuple[Link, Station]:
    """A link, and the station at its other end with room for whatever is proposed."""
    link = make_link(DlmsSettings(**knobs), "1/17")
    return link, Station(SERVER, CLIENT, answer, 2030, 2030, 7, 7)


def through(link: Link, apdus: Iterable[bytes], *, closing: bool = True) -> Conversation[list[bytes]]:
    """Open, exchange `apdus`, close."""
    yield from link.open()
    answers = []
    for apdu in apdus:
        answers.append((yield from link.exchange(apdu)))
    if closing:
        yield from link.close()
    return answers


def noisy(size: int, seed: int = 1) -> bytes:
    """`size` bytes with many flags in them."""
    rng = random.Random(seed)
    return bytes(rng.choice((0x7E, 0x7D, 0xA0, rng.randrange(256))) for _ in range(size))


class Lossy:
    """Damages whole frames that pass, by a list of what to do with each: `.` pass, `x` lose, `d` double, `f` flip a
    bit, `c` cut short, `n` noise before, `l` deliver late, before the next. After its end everything passes."""

    def __init__(self, plan: str, seed: int = 0) -> None:
        self.plan = list(plan)
        self.rng = random.Random(seed)
        self.held = b""

    def __call__(self, data: bytes) -> bytes:
        held, self.held = self.held, b""
        return held + self._changed(data)

    def _changed(self, data: bytes) -> bytes:
        if not data:
            return data
        fate = self.plan.pop(0) if self.plan else "."
        if fate == "x":
            return b""
        if fate == "l":
            self.held = data
            return b""
        if fate == "d":
            return data + data
        if fate == "f":
            at = self.rng.randrange(len(data) * 8)
            return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]
        if fate == "c":
            return data[: self.rng.randrange(1, len(data))]
        if fate == "n":
            return bytes(self.rng.choices((0x7E, 0x00, 0xA0, 0xFF), k=self.rng.randrange(1, 12))) + data
        return data


# -- what works --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 3, 7])
@pytest.mark.parametrize("length", [128, 200, 2030])
@pytest.mark.parametrize("negotiate", [True, False])
def test_long_apdus_go_through_in_segments_both_ways(window: int, length: int, negotiate: bool) -> None:
    link, station = pair(
        lambda apdu: [apdu[::-1]],
        max_info_tx=length,
        max_info_rx=length,
        window_tx=window,
        window_rx=window,
        negotiate=negotiate,
    )
    apdus = [noisy(size, size) for size in (1, 124, 125, 126, 253, 1000, 5000, 3)]
    assert drive(through(link, apdus), station.feed) == [apdu[::-1] for apdu in apdus]
    assert (station.asked, station.offences, station.connected) == (apdus, [], False)
    if negotiate:
        assert station.limits == (length, length, window, window)
    else:
        assert station.snrms == [b""]
        assert station.limits == (128, 128, 1, 1)


def test_the_exact_bytes_of_a_short_exchange() -> None:
    link, station = pair()
    sent: list[bytes] = []

    def note(data: bytes) -> bytes:
        sent.append(data)
        return data

    drive(through(link, [b"\xc0\x01\xc1"]), station.feed, up=note)
    field = bytes.fromhex("818012050180060180070400000001080400000001")
    assert sent == [
        build(SERVER, CLIENT, 0x93, field),
        build(SERVER, CLIENT, 0x10, b"\xe6\xe6\x00\xc0\x01\xc1"),
        build(SERVER, CLIENT, 0x53),
    ]


@pytest.mark.parametrize(("address", "size", "coded"), [("1", 1, "03"), ("1/17", 4, "00020023"), ("16", 2, "0021")])
def test_addresses_of_every_length(address: str, size: int, coded: str) -> None:
    link = make_link(DlmsSettings(address_bytes=size), address, client=102)
    station = Station(bytes.fromhex(coded), b"\xcd", lambda apdu: [apdu * 100])
    assert drive(through(link, [b"abcd"]), station.feed) == [b"abcd" * 100]
    assert station.offences == []


def test_a_serial_number_makes_the_physical_address() -> None:
    link = make_link(DlmsSettings(physical_rule="SN % 10000 + 1000"), "1#12345678")
    station = Station(bytes.fromhex("0002682d"), CLIENT)  # 6678
    assert drive(through(link, [b"abcd"]), station.feed) == [b"abcd"]


@pytest.mark.parametrize("ua_info", [True, False])
def test_a_meter_that_lowers_what_is_proposed_is_obeyed(ua_info: bool) -> None:
    link, station = pair(max_info_tx=2030, max_info_rx=2030, window_tx=7, window_rx=7)
    station.receive_bytes, station.send_bytes, station.receive_window, station.send_window = 200, 90, 2, 3
    station.ua_info = ua_info
    apdu = noisy(3000)
    assert drive(through(link, [apdu, b"x"]), station.feed) == [apdu, b"x"]
    assert station.limits == ((200, 90, 2, 3) if ua_info else (128, 90, 1, 1))
    assert station.offences == []


def test_a_meter_that_says_nothing_and_sends_as_many_frames_as_proposed_is_heard_out() -> None:
    link, station = pair(max_info_rx=500, window_rx=4)
    station.ua_info = False
    polls: list[bytes] = []

    def note(data: bytes) -> bytes:
        polls.append(data)
        return data

    def eager(data: bytes) -> bytes:
        reply = station.feed(data)
        station.limits = (128, 128, 1, 4)
        return reply

    assert drive(through(link, [noisy(1500)]), eager, up=note) == [noisy(1500)]
    assert len(polls) < 12 + 12 / 4 + 4  # segments of ours, windows of the meter's, SNRM and DISC


@pytest.mark.parametrize("window", [1, 3])
def test_a_meter_that_leaves_out_the_final_bit_is_understood(window: int) -> None:
    link, station = pair(lambda apdu: [apdu], window_tx=window, window_rx=window)

    def without(data: bytes) -> bytes:
        at, reply = 0, b""
        while at < len(data):
            size = (data[at + 1] & 7) << 8 | data[at + 2]
            body = data[at + 1 : at + size + 1]
            info = body[8:-2] if size > 8 else b""
            reply += build(CLIENT, SERVER, body[5] & 0xEF, info, segmented=bool(body[0] & 8))
            at += size + 2
        return reply

    apdus = [noisy(700), noisy(10), noisy(300)]
    assert drive(through(link, apdus), station.feed, down=without) == apdus
    assert station.asked == apdus


def test_a_meter_that_counts_the_whole_frame_gets_smaller_segments() -> None:
    link, station = pair(max_info_is_frame=True)
    longest = 0

    def measure(data: bytes) -> bytes:
        nonlocal longest
        longest = max(longest, len(data))
        return data

    apdu = noisy(2000)
    assert drive(through(link, [apdu]), station.feed, up=measure) == [apdu]
    assert longest == 128


@pytest.mark.parametrize("refusal", [0x1F, 0x97, 0])
def test_a_meter_that_does_not_take_the_field_is_asked_without_it(refusal: int) -> None:
    link, station = pair(max_info_tx=500, link_retries=1)
    station.takes_field = False
    station.refuse_with = refusal
    assert drive(through(link, [noisy(1000)]), station.feed) == [noisy(1000)]
    assert [len(info) > 0 for info in station.snrms] == [True, False] if refusal else [True, True, False]
    assert station.offences == []


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.integers(20, 2030),
    st.integers(20, 2030),
    st.integers(1, 7),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_any_lengths_and_windows_in_chunks_of_any_size(
    out: int, back: int, tx: int, rx: int, window_tx: int, window_rx: int, rng: random.Random
) -> None:
    answer = noisy(back, 7)
    link, station = pair(
        lambda _: [answer], max_info_tx=max(tx, 128), max_info_rx=max(rx, 128), window_tx=window_tx, window_rx=window_rx
    )
    station.receive_bytes, station.send_bytes = tx, rx
    apdus = [noisy(out, 3), b"?"]
    assert drive(through(link, apdus), station.feed, chop=rng) == [answer] * 2
    assert (station.asked, station.offences) == (apdus, [])


# -- what gets lost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 3, 7])
@pytest.mark.parametrize("fate", list("xdfcnl"))
@pytest.mark.parametrize("way", ["up", "down"])
def test_one_fault_anywhere_costs_a_repetition_and_nothing_else(window: int, fate: str, way: str) -> None:
    for place in range(14):
        link, station = pair(lambda apdu: [apdu[::-1]], window_tx=window, window_rx=window)
        wire = Lossy("." * place + fate, seed=place)
        apdus = [noisy(700, place), noisy(300, place + 1)]
        up, down = (wire, whole) if way == "up" else (whole, wire)
        assert drive(through(link, apdus), station.feed, up=up, down=down) == [apdu[::-1] for apdu in apdus]
        assert station.asked == apdus
        assert station.offences == [] or (way, fate) in (("up", "d"), ("up", "l"))  # the wire's, not ours


@given(st.text("...xdfcnl", max_size=40), st.text("...xdfcnl", max_size=40), st.integers(0, 999), st.integers(1, 7))
@settings(max_examples=200, deadline=None)
def test_however_many_faults_an_answer_is_right_or_there_is_an_error(
    up: str, down: str, seed: int, window: int
) -> None:
    """Never a wrong APDU, never one request carried out twice, never a wait without end."""
    link, station = pair(lambda apdu: [b"re" + apdu], window_tx=window, window_rx=window)
    apdus = [noisy(300, seed), noisy(20, seed + 1), noisy(500, seed + 2)]
    answers: list[bytes] = []

    def reading() -> Conversation[None]:
        yield from link.open()
        for apdu in apdus:
            answers.append((yield from link.exchange(apdu)))

    with suppress(ProtocolError):
        drive(reading(), station.feed, up=Lossy(up, seed), down=Lossy(down, seed), most=2000)
    assert answers == [b"re" + apdu for apdu in apdus[: len(answers)]]
    assert station.asked == apdus[: len(station.asked)]


def test_a_flipped_bit_is_repaired_or_an_error_never_a_wrong_apdu() -> None:
    """Every bit of every frame of a conversation, in both directions."""
    answer = noisy(100)
    sizes: dict[str, list[int]] = {"up": [], "down": []}

    def converse(way: str, frame: int, bit: int) -> list[bytes]:
        passed = 0

        def wire(direction: str) -> Callable[[bytes], bytes]:
            def carry(data: bytes) -> bytes:
                nonlocal passed
                if frame < 0:
                    sizes[direction].append(len(data))
                if direction == way and data:
                    passed += 1
                    if passed - 1 == frame:
                        return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
                return data

            return carry

        link, station = pair(lambda _: [answer])
        return drive(through(link, [b"abcd", b"efgh"]), station.feed, up=wire("up"), down=wire("down"))

    assert converse("up", -1, 0) == [answer] * 2
    flips = 0
    for way, lengths in sizes.items():
        for frame, size in enumerate(lengths):
            for bit in range(size * 8):
                assert converse(way, frame, bit) == [answer] * 2
                flips += 1
    assert flips > 2500


def test_a_flip_in_every_frame_is_an_error() -> None:
    for bit in range(0, 200, 3):
        link, station = pair()

        def flip(data: bytes, bit: int = bit) -> bytes:
            at = bit % (len(data) * 8) if data else 0
            return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :] if data else data

        with pytest.raises((BadFrame, NoAnswer)):
            drive(through(link, [b"abcd"]), station.feed, down=flip)


def test_silence_ends_after_the_retries() -> None:
    sent: list[bytes] = []

    def note(data: bytes) -> bytes:
        sent.append(data)
        return b""

    link, station = pair(link_retries=2)
    with pytest.raises(NoAnswer, match="meter 1/17, client 16: no answer -> check power"):
        drive(link.open(), station.feed, up=note)
    assert len(sent) == 4  # three with the field, one without


def test_a_meter_that_falls_silent_is_polled_then_sent_to_again_and_given_up() -> None:
    link, station = pair(link_retries=4)
    drive(link.open(), station.feed)
    sent: list[bytes] = []

    def note(data: bytes) -> bytes:
        sent.append(data)
        return b""

    with pytest.raises(NoAnswer):
        drive(link.exchange(b"abcd"), station.feed, up=note)
    request, poll = build(SERVER, CLIENT, 0x10, b"\xe6\xe6\x00abcd"), build(SERVER, CLIENT, 0x11)
    assert sent == [request, poll, request, poll, request]


def test_after_a_failed_exchange_nothing_goes_until_the_link_is_made_anew() -> None:
    """Its numbers are not sure: the answer to the lost request could be taken for that of the next."""
    link, station = pair(link_retries=0)
    drive(link.open(), station.feed)
    with pytest.raises(NoAnswer):
        drive(link.exchange(b"abcd"), station.feed, down=lambda _: b"")
    with pytest.raises(NoAnswer, match="the HDLC link is not open, or an exchange failed -> open it again"):
        drive(link.exchange(b"efgh"), station.feed)
    drive(link.close(), station.feed)
    assert not station.connected
    assert drive(through(link, [b"efgh"]), station.feed) == [b"efgh"]


def test_an_answer_that_is_damaged_is_asked_for_again_at_once() -> None:
    """Its header says that it is the last frame, so there is no timeout to wait for."""
    link, station = pair()
    drive(link.open(), station.feed)
    damaged = 0

    def damage(data: bytes) -> bytes:
        nonlocal damaged
        damaged += 1
        return data[:-4] + bytes([data[-4] ^ 1]) + data[-3:] if damaged == 1 else data

    seen = requests_of(link.exchange(b"abcd"), station, damage)
    assert [type(request) for request in seen] == [Send, Send]  # and no wait for more in between
    assert seen[1].data == build(SERVER, CLIENT, 0x11)


# -- what meters say ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy_with", [0x05, 0x01])
def test_a_busy_meter_is_polled_with_rests_between(busy_with: int) -> None:
    """RNR before it has taken the request, or RR while it has no answer yet."""
    link, station = pair(link_retries=2)
    drive(link.open(), station.feed)
    station.busy_turns, station.busy_with = 6, busy_with
    pauses: list[float] = []

    def watched() -> Conversation[bytes]:
        conversation = link.exchange(b"abcd")
        request = next(conversation)
        while True:
            if isinstance(request, Pause):
                pauses.append(request.seconds)
            try:
                reply = yield request
            except NoAnswer as error:
                request = conversation.throw(error)
                continue
            try:
                request = conversation.send(reply)
            except StopIteration as stop:
                result: bytes = stop.value
                return result

    assert drive(watched(), station.feed) == b"abcd"
    assert len(pauses) >= 5
    assert pauses == sorted(pauses)


def test_a_meter_that_is_busy_for_ever_is_given_up() -> None:
    link, station = pair()
    drive(link.open(), station.feed)
    station.busy_turns = 10_000
    with pytest.raises(NoAnswer, match="the meter is busy and gives no answer"):
        drive(link.exchange(b"abcd"), station.feed, most=300)


def test_a_meter_that_confirms_first_is_polled_for_its_answer() -> None:
    link, station = pair(lambda apdu: [apdu * 100])
    station.ack_first = True
    assert drive(through(link, [b"abcd", b"efgh"]), station.feed) == [b"abcd" * 100, b"efgh" * 100]


def test_a_meter_that_is_not_connected_says_so() -> None:
    link, station = pair()
    drive(link.open(), station.feed)
    station.connected = False  # its inactivity timeout
    with pytest.raises(Refused, match=r"meter 1/17, client 16: the meter is not connected \(DM\)") as caught:
        drive(link.exchange(b"abcd"), station.feed)
    assert caught.value.code == 0x1F


def test_a_meter_that_refuses_a_link_says_so() -> None:
    link, station = pair()
    with pytest.raises(Refused, match=r"the meter is not connected \(DM\)"):
        drive(link.open(), lambda data: station.frame(0x1F) if data else b"")


def test_a_rejected_frame_is_named_with_the_meter_s_reason() -> None:
    link, station = pair()
    drive(link.open(), station.feed)
    with pytest.raises(BadFrame, match=r"the meter rejects a frame: information field too long \(control field 10\)"):
        drive(link.exchange(b"abcd"), lambda _: station.frame(0x97, b"\x10\x00\x04"))


def test_another_meter_s_frames_are_not_ours() -> None:
    other = Station(b"\x02\x25", CLIENT)
    ours, station = pair()
    station.client = b"\x41"

    def both(data: bytes) -> bytes:
        return other.frame(0x73) + station.frame(0x73)

    with pytest.raises(WrongMeter, match="frames came from 1/17 to 32, 1/18 to 16 instead -> check the address"):
        drive(ours.open(), both)
    mixed, station = pair()
    assert drive(through(mixed, [b"abcd"]), lambda data: other.frame(0x30, b"\xe6\xe7\x00no") + station.feed(data)) == [
        b"abcd"
    ]


def test_our_own_frames_given_back_by_the_line_are_passed_over() -> None:
    link, station = pair()
    assert drive(through(link, [noisy(500)]), lambda data: data + station.feed(data)) == [noisy(500)]
    link, station = pair(link_retries=0)
    with pytest.raises(NoAnswer):
        drive(link.open(), whole)


def test_something_that_is_no_hdlc_is_told() -> None:
    link, _ = pair()
    with pytest.raises(BadFrame, match="bytes came that make no whole frame -> check speed, parity"):
        drive(link.open(), lambda _: b"\x02hello world\x03")


def test_an_answer_without_llc_bytes_is_no_answer() -> None:
    link, station = pair()
    drive(link.open(), station.feed)
    with pytest.raises(
        BadFrame, match="meter 1/17, client 16: no LLC bytes E6 E7 00 in front of the APDU but C4 01 C1"
    ):
        drive(link.exchange(b"abcd"), lambda _: station.frame(0x30, b"\xc4\x01\xc1\x00"))


def test_pushes_in_the_middle_are_kept_and_not_mistaken() -> None:
    """UI frames of our meter, whole and in segments, to us and to everybody; another meter's are left alone."""
    link, station = pair()
    everybody = b"\xff"
    pushes = (
        station.frame(0x13, b"\xe6\xe7\x00\x0fone")
        + build(everybody, SERVER, 0x03, b"\xe6\xe7\x00\x0ftw", segmented=True)
        + build(everybody, SERVER, 0x13, b"o")
        + build(everybody, b"\x02\x25", 0x13, b"\xe6\xe7\x00\x0fforeign")
    )
    assert drive(through(link, [b"abcd"]), lambda data: pushes + station.feed(data)) == [b"abcd"]
    assert link.unsolicited[:2] == [b"\x0fone", b"\x0ftwo"]
    assert set(link.unsolicited) == {b"\x0fone", b"\x0ftwo"}


def test_several_apdus_for_one_request_are_received_one_by_one() -> None:
    """General block transfer streams blocks: each is an APDU of its own."""
    link, station = pair(lambda apdu: [apdu + b"1", apdu * 100, apdu + b"3"], window_rx=3)

    def streaming() -> Conversation[list[bytes]]:
        yield from link.open()
        first = yield from link.exchange(b"abcd")
        return [first, (yield from link.receive()), (yield from link.receive())]

    assert drive(streaming(), station.feed) == [b"abcd1", b"abcd" * 100, b"abcd3"]
    assert station.offences == []


def test_an_apdu_that_came_before_a_question_is_no_answer_to_it() -> None:
    link, station = pair(lambda apdu: [b"re" + apdu, b"late"] if apdu == b"one" else [b"re" + apdu], window_rx=7)
    assert drive(through(link, [b"one", b"two"]), station.feed) == [b"reone", b"retwo"]
    assert link.unsolicited == [b"late"]


def test_what_expects_no_answer_is_confirmed_all_the_same() -> None:
    link, station = pair(lambda apdu: [apdu] if apdu == b"asked" else [])

    def telling() -> Conversation[bytes]:
        yield from link.open()
        yield from link.send(noisy(500))
        yield from link.send(b"more")
        return (yield from link.exchange(b"asked"))

    assert drive(telling(), station.feed, up=Lossy("..x.x")) == b"asked"
    assert station.asked == [noisy(500), b"more", b"asked"]


def test_a_second_ua_comes_when_snrm_was_slow_and_harms_nothing() -> None:
    link, station = pair()
    held: list[bytes] = []

    def late(data: bytes) -> bytes:
        reply = station.feed(data)
        if not held:
            held.append(reply)
            return b""
        now, held[0] = held[0], reply
        return now + reply if reply[:1] and len(station.snrms) == 2 and now == reply else reply

    assert drive(through(link, [b"abcd"]), late) == [b"abcd"]


# -- times, secrets, ends ----------------------------------------------------------------------------------------------


def requests_of(conversation: Conversation[Any], station: Station, down: Callable[[bytes], bytes] = whole) -> list[Any]:
    """What a conversation asks for on its way to the end."""
    seen: list[Any] = []

    def watched() -> Conversation[Any]:
        request = next(conversation)
        while True:
            seen.append(request)
            try:
                reply = yield request
            except HeadendError as error:
                request = conversation.throw(error)
                continue
            try:
                request = conversation.send(reply)
            except StopIteration:
                return

    drive(watched(), station.feed, down=down)
    return seen


def test_silences_and_timeouts_are_as_set() -> None:
    link, station = pair(reply_s=3.5, interframe_s=0.02, open_quiet_s=0.2, reconnect_s=5.0)
    seen = requests_of(through(link, [b"abcd"]), station)
    assert [request.seconds for request in seen if isinstance(request, Pause)] == [0.2, 0.02, 0.02, 0.02, 5.0]
    assert isinstance(seen[0], Pause)
    assert isinstance(seen[-1], Pause)
    assert {request.reply_s for request in seen if isinstance(request, Send)} == {3.5}
    link, station = pair()
    seen = requests_of(through(link, [b"abcd"]), station)
    assert [type(request) for request in seen] == [Send, Send, Send]
    assert {request.reply_s for request in seen} == {None}


def test_what_is_shown_takes_the_place_of_a_secret_frame_by_frame() -> None:
    link, station = pair()
    secret, shown = b"password=12345678" + bytes(200), b"password=********" + bytes(200)

    def telling() -> Conversation[bytes]:
        yield from link.open()
        return (yield from link.exchange(secret, shown=shown))

    seen = [request for request in requests_of(telling(), station) if isinstance(request, Send)]
    assert station.asked == [secret]
    assert seen[1].shown == build(SERVER, CLIENT, 0x10, (b"\xe6\xe6\x00" + shown)[:128], segmented=True)
    masked = [request for request in seen if request.shown is not None]
    assert len(masked) == 2
    assert not any(b"12345678" in request.shown for request in masked if request.shown is not None)


@pytest.mark.parametrize("shown", [b"", b"short", bytes(5000)])
def test_what_is_shown_may_have_another_length(shown: bytes) -> None:
    link, station = pair()

    def telling() -> Conversation[bytes]:
        yield from link.open()
        return (yield from link.exchange(b"secret" * 100, shown=shown))

    seen = [request for request in requests_of(telling(), station) if isinstance(request, Send)]
    assert all(b"secret" not in request.shown for request in seen if request.shown is not None)
    assert len([request for request in seen if request.shown is not None]) == 5


def test_closing_never_raises() -> None:
    link, station = pair()
    drive(link.close(), station.feed)  # never opened: nothing to say
    drive(link.open(), station.feed)
    drive(link.close(), lambda _: b"")
    drive(link.open(), station.feed)
    drive(link.close(), lambda _: station.frame(0x1F))
    drive(link.open(), station.feed)
    closing = link.close()
    next(closing)
    with pytest.raises(StopIteration):
        closing.throw(LineDown("gone"))


def test_a_line_that_goes_down_is_not_spoken_to_again() -> None:
    link, station = pair()
    drive(link.open(), station.feed)
    asking = link.exchange(b"abcd")
    next(asking)
    with pytest.raises(LineDown):
        asking.throw(LineDown("gone"))
    assert list(link.close()) == []


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x00" * 100,
        b"\x7e" * 100,
        b"\x7e\xa7\xff" * 30,
        build(CLIENT, b"\x02\x25", 0x11),
        build(CLIENT, SERVER, 0x01),  # RR that never is the last
        build(CLIENT, SERVER, 0x11),
        build(CLIENT, SERVER, 0x15),
        build(CLIENT, SERVER, 0x19),
        build(CLIENT, SERVER, 0x13, b"\xe6\xe7\x00push"),
        build(CLIENT, SERVER, 0x73),
        build(CLIENT, SERVER, 0xF1),
        build(CLIENT, SERVER, 0x3A, b"\xe6\xe7\x00"),
        build(CLIENT, SERVER, 0x30, b"\xe6\xe7\x00x", segmented=True),
    ],
)
def test_a_line_that_never_falls_silent_holds_nobody(rubbish: bytes) -> None:
    """The same bytes over and over, for every request and every wait."""
    link, station = pair()
    drive(link.open(), station.feed)

    def babbling() -> Conversation[int]:
        conversation = link.exchange(b"abcd")
        request = next(conversation)
        for count in range(200_000):
            try:
                request = conversation.send(b"" if isinstance(request, Pause) else rubbish)
            except (ProtocolError, StopIteration):
                return count
        raise AssertionError("it goes on and on")
        yield

    assert drive(babbling(), station.feed) < 200_000
    assert len(link.unsolicited) <= 100


def test_an_answer_without_end_is_broken_off() -> None:
    """A meter that sends segment after segment, each in order."""
    link, station = pair(max_info_rx=2030)
    drive(link.open(), station.feed)
    number = 0
    total = 0

    def endless(_data: bytes) -> bytes:
        nonlocal number, total
        frame = build(CLIENT, SERVER, 0x30 | number << 1, b"\xe6\xe7\x00" + bytes(1500), segmented=True)
        number = (number + 1) & 7
        total += 1500
        return frame

    with pytest.raises(BadFrame, match="an answer of more than 1048576 bytes"):
        drive(link.exchange(b"abcd"), endless)
    assert total < 2_000_000

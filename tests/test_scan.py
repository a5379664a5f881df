"""Searching a line for its meters: by wildcard addresses, against simulated meters that collide as on a wire."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random

import pytest

from headend.conversation import Conversation, Send
from headend.endpoints import LineSettings, parse_endpoint
from headend.errors import NoAnswer
from headend.line import Line
from headend.protocols.dlt645.search import Found, search
from simulators.bus import Bus
from simulators.clock import SettableClock
from simulators.dlt645_frame import build, take
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.household import Household, Load, Register
from simulators.pty_line import PtyLine
from simulators.tcp import TcpLine

NOW_S = 1_773_800_000.0


def make_meter(address: str, seed: int) -> Dlt645Meter:
    return Dlt645Meter(MeterSpec(address), Register(Household(Load(seed=seed))), SettableClock(NOW_S))


class Wire:
    """Meters that share a wire: all that hear a question answer at once, and a 0 bit of any wins (an open-drain bus).

    apart: they answer one after another instead.
    """

    def __init__(self, addresses: Iterable[str], *, apart: bool = False) -> None:
        self.meters = [make_meter(address, seed) for seed, address in enumerate(addresses, 1)]
        self.apart = apart

    def hear(self, data: bytes) -> bytes:
        request = take(bytearray(data))
        assert request is not None
        answers = [a for m in self.meters if (a := m.answer(request.address, request.control, request.data))]
        return b"".join(answers) if self.apart else collide(answers)


def collide(answers: list[bytes]) -> bytes:
    """Answers that start at the same moment: each bit is 0 where any meter sends 0, and 1 (idle) after its end."""
    size = max(map(len, answers), default=0)
    mixed = bytearray(b"\xff" * size)
    for answer in answers:
        for place, byte in enumerate(answer):
            mixed[place] &= byte
    return bytes(mixed)


def drive(conversation: Conversation[list[Found]], wire: Wire, most: int = 20_000) -> tuple[list[Found], int]:
    """Drive a search with no clock: what it found and how many questions it asked."""
    asked = 0
    request = next(conversation)
    try:
        while True:
            if isinstance(request, Send):
                asked += 1
                assert asked < most, "the search does not end"
                answer = wire.hear(request.data)
                request = conversation.send(answer) if answer else conversation.throw(NoAnswer("silence"))
            else:
                request = conversation.throw(NoAnswer("no more"))
    except StopIteration as stop:
        return stop.value, asked


def addresses(found: Iterable[Found]) -> set[str]:
    return {one.address for one in found}


def find(wire: Wire, **options: object) -> tuple[list[Found], int]:
    return drive(search("dlt645-2007", reply_s=0.1, **options), wire)  # type: ignore[arg-type]


def test_one_meter_is_found_by_its_address_function() -> None:
    found, asked = find(Wire(["240101000001"]))
    assert found == [Found("dlt645-2007", "240101000001")]
    assert asked < 10


def test_an_empty_line_takes_a_few_questions() -> None:
    assert find(Wire([])) == ([], 3)


@pytest.mark.parametrize(
    "there",
    [
        ["240101000001", "240101000002"],
        ["000000000000", "000000000001"],
        ["240101000001", "250101000001"],  # they differ in the highest pair only, the last to be searched
        ["240101000001", "240101000003"],  # the bits of the first are part of the second's
        ["000000000055", "550000000055"],
    ],
)
def test_two_meters_are_told_apart(there: list[str]) -> None:
    found, asked = find(Wire(there))
    assert addresses(found) == set(there)
    assert not any(one.duplicate for one in found)
    assert asked < 700


def test_thirty_meters_with_addresses_in_a_row() -> None:
    there = [f"2401010{n:05d}" for n in range(90, 120)]
    found, asked = find(Wire(there))
    assert addresses(found) == set(there)
    assert not any(one.duplicate for one in found)
    assert asked < 800


def test_thirty_meters_with_addresses_of_any_kind() -> None:
    random = Random(11)
    there = [f"{random.randrange(10**12):012d}" for _ in range(30)]
    found, _ = find(Wire(there))
    assert addresses(found) == set(there)


def test_meters_that_answer_one_after_another_are_all_found() -> None:
    there = ["240101000001", "240101000102", "240101000203"]
    found, _ = find(Wire(there, apart=True))
    assert addresses(found) == set(there)


@pytest.mark.parametrize("apart", [False, True])
def test_two_meters_of_one_address_are_a_duplicate(apart: bool) -> None:
    found, _ = find(Wire(["240101000007", "240101000007", "240101000008"], apart=apart))
    assert {one.address: bool(one.duplicate) for one in found} == {"240101000007": True, "240101000008": False}


def test_new_meters_that_all_show_zero_are_told_apart() -> None:
    """Their answers differ in address and sum only, so collided bits often look like a good frame."""

    class Blank(Wire):
        def hear(self, data: bytes) -> bytes:
            request = take(bytearray(data))
            assert request is not None
            heard = [m for m in self.meters if m.hears(request.address)]
            if request.control == 0x13:
                return collide([build(m.address, 0x93, m.address, 4) for m in heard])
            return collide([build(m.address, 0x91, request.data[:4] + bytes(4), 4) for m in heard])

    for last in range(1, 10):
        there = ["000000000000", f"00000000000{last}"]
        found, _ = find(Blank(there))
        assert addresses(found) == set(there), there
    there = [f"00000000{n:04d}" for n in (0, 1, 2, 3, 4, 5, 6, 7, 100, 200)]
    found, _ = find(Blank(there))
    assert addresses(found) == set(there)


def test_thorough_finds_what_a_stronger_meter_hides() -> None:
    class Strong(Wire):
        def hear(self, data: bytes) -> bytes:
            request = take(bytearray(data))
            assert request is not None
            for meter in self.meters:  # the first one's driver always wins
                if answer := meter.answer(request.address, request.control, request.data):
                    return answer
            return b""

    there = ["240101000001", "240101000002"]
    assert addresses(find(Strong(there))[0]) == {"240101000001"}
    found, asked = find(Strong(there), thorough=True)
    assert addresses(found) == set(there)
    assert asked > 600


def test_a_stray_byte_beside_an_answer_is_no_second_meter() -> None:
    class Stray(Wire):
        def hear(self, data: bytes) -> bytes:
            answer = super().hear(data)
            return b"\x00" + answer if answer else b""

    assert find(Stray(["240101000001"]))[0] == [Found("dlt645-2007", "240101000001")]


def test_our_own_question_given_back_is_no_meter() -> None:
    class Echo(Wire):
        def hear(self, data: bytes) -> bytes:
            return data + super().hear(data)

    assert find(Echo([]))[0] == []
    assert find(Echo(["240101000001"]))[0] == [Found("dlt645-2007", "240101000001")]


def test_answers_that_come_a_question_late_are_no_duplicates_and_their_meters_are_found() -> None:
    class Late(Wire):
        before = b""

        def hear(self, data: bytes) -> bytes:
            answer, self.before = self.before, super().hear(data)
            return answer

    there = ["240101000001", "240101000002"]
    found, _ = find(Late(there))
    assert {one.address: one.duplicate for one in found} == dict.fromkeys(there, "")


class Old(Wire):
    """Meters of 1997. anonymous: they answer with the address asked, wildcards included, as some do."""

    anonymous = False

    def hear(self, data: bytes) -> bytes:
        request = take(bytearray(data))
        assert request is not None
        if request.control != 0x01:
            return b""
        heard = [m for m in self.meters if m.hears(request.address)]
        shown = [request.address if self.anonymous else m.address for m in heard]
        values = [m.register.shown(int(NOW_S)) for m in heard]
        return collide(
            [
                build(address, 0x81, request.data[:2] + bytes.fromhex(f"{value:08d}")[::-1], 2)
                for address, value in zip(shown, values, strict=True)
            ]
        )


@pytest.mark.parametrize("anonymous", [False, True])
def test_meters_of_1997_are_found_by_reading(anonymous: bool) -> None:
    there = ["000000001234", "000000005634"]
    wire = Old(there)
    wire.anonymous = anonymous
    found, _ = drive(search("dlt645-1997", reply_s=0.1), wire)
    assert addresses(found) == set(there)
    assert {one.protocol for one in found} == {"dlt645-1997"}
    assert find(wire)[0] == []


def test_meters_are_told_of_as_they_are_found_and_progress_only_grows() -> None:
    told: list[str] = []
    shares: list[float] = []

    def progress(share: float, _questions: int) -> None:
        shares.append(share)

    there = ["240101000001", "240101000002"]
    found, asked = drive(
        search("dlt645-2007", reply_s=0.1, found=lambda one: told.append(one.address), progress=progress), Wire(there)
    )
    assert told == [one.address for one in found]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert len(shares) >= asked


@pytest.mark.parametrize("kind", ["tcp", "pty"])
def test_a_search_over_a_real_line(kind: str) -> None:
    there = ["240101000001", "240101000102"]

    async def main() -> list[Found]:
        clock = SettableClock(NOW_S)
        bus = Bus([(address, make_meter(address, seed)) for seed, address in enumerate(there, 1)], clock)
        simulated = TcpLine(bus, "127.0.0.1", 0) if kind == "tcp" else PtyLine(bus)
        await simulated.start()
        endpoint = parse_endpoint(simulated.endpoint(), "9600 8N1" if kind == "pty" else "")
        line = Line(LineSettings("s", endpoint, gap_s=0.02, quiet_s=0.0))
        try:
            return await line.run(search("dlt645-2007", reply_s=0.02))
        finally:
            await line.close()
            await simulated.stop()

    found = asyncio.run(main())
    assert addresses(found) == set(there)
    assert not any(one.duplicate for one in found)

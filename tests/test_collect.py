"""Collecting over a real socket: what the checksum lets through is caught, read again, and never stored as valid."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headend import collect
from headend.endpoints import Endpoint, LineSettings
from headend.line import Line
from headend.model import (
    Cause,
    FrameRecord,
    Outcome,
    Priority,
    Quality,
    Reading,
    ReadJob,
    ReadKind,
    Source,
    Status,
    Window,
)
from headend.protocols.dlt645 import frame as frames
from headend.validation.plausible import Anchor, doubtful
from tests.dlt645_wire import ADDRESS, BEIJING, kwh, meter, minute, read_answer

NOW = datetime(2025, 11, 2, 4, 30, tzinfo=UTC)
START = datetime(2025, 11, 1, 16, 0, tzinfo=UTC)
POINTS = [f"{1000 + i * 0.25:.2f}" for i in range(8)]


def curve_answer(values: list[str]) -> bytes:
    data = minute(START.astimezone(BEIJING)) + b"".join(kwh(v) for v in values)
    return read_answer("06100601", data)


def curve_job() -> ReadJob:
    window = Window(START, START + timedelta(minutes=15) * len(POINTS))
    return ReadJob(meter("0610"), ReadKind.CURVE, ("import_kwh",), window, Priority.BACKFILL)


def run_against(
    answers: Callable[[int], bytes], job: ReadJob, anchors: dict[str, list[Anchor]] | None = None
) -> Outcome:
    """Run `job` on a TCP line whose n-th request gets `answers(n)`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while await reader.read(100):
            writer.write(answers(number))
            number += 1
        writer.close()

    async def main() -> Outcome:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        line = Line(LineSettings("t", Endpoint("tcp", host="127.0.0.1", port=port), reply_s=0.2, gap_s=0.05))
        try:
            return await collect.run(line, job, clock=lambda: NOW, anchors=anchors)
        finally:
            await line.close()
            server.close()
            await asyncio.sleep(0.01)

    return asyncio.run(main())


def values(outcome: Outcome) -> list[tuple[str, Quality]]:
    return [(f"{r.value:.2f}", r.quality) for r in outcome.readings]


GOOD = [(v, Quality.VALID) for v in POINTS]


def test_a_good_curve_comes_as_it_is() -> None:
    outcome = run_against(lambda _n: curve_answer(POINTS), curve_job())
    assert outcome.status is Status.OK
    assert values(outcome) == GOOD
    assert [f.direction for f in outcome.frames] == [">", "<"]


@pytest.mark.parametrize("place", range(len(POINTS)))
@pytest.mark.parametrize("wrong", ["0000.75", "1800.75", "9000.00"])
def test_a_value_that_can_not_be_true_is_read_again_at_once(place: int, wrong: str) -> None:
    bad = [wrong if i == place else v for i, v in enumerate(POINTS)]
    # Without a neighbour on one side the end points need what is already believed.
    anchors = {"import_kwh": [Anchor(START - timedelta(hours=1), Decimal("999.50"))]}
    outcome = run_against(lambda n: curve_answer(bad if n == 0 else POINTS), curve_job(), anchors)
    assert values(outcome) == GOOD
    assert len([f for f in outcome.frames if f.direction == ">"]) == 2


def test_what_a_meter_insists_on_is_kept_as_suspect() -> None:
    bad = [*POINTS[:3], "5000.00", *POINTS[4:]]
    outcome = run_against(lambda _n: curve_answer(bad), curve_job())
    assert values(outcome) == [*GOOD[:3], ("5000.00", Quality.SUSPECT), *GOOD[4:]]


def test_of_the_two_bit_flips_that_pass_the_checksum_most_are_caught_and_the_rest_bounded() -> None:
    """All pairs of flipped bits of one answer. What plausibility lets through rises and fits the meter's wiring."""
    good = curve_answer(POINTS)
    model = replace(meter("0610").model, max_power_kw=Decimal("15.84"))
    anchors = {"import_kwh": [Anchor(START - timedelta(minutes=15), Decimal("999.75"))]}
    passed = caught = 0
    for numbers in _well_formed_but_wrong(good):
        readings = [
            Reading("import_kwh", n, START + timedelta(minutes=15 * i), NOW, Source.CURVE, 900)
            for i, n in enumerate(numbers)
        ]
        passed += 1
        if doubtful(readings, anchors, model):
            caught += 1
        else:  # at most what 15.84 kW can add in a quarter of an hour
            assert all(abs(n - Decimal(v)) <= 4 for n, v in zip(numbers, POINTS, strict=True))
    assert passed > 100
    assert caught / passed > 0.75


def _well_formed_but_wrong(good: bytes) -> Iterator[list[Decimal]]:
    """The values of every two-bit flip of `good` that is a frame of the same shape with other decimal digits."""
    head = _payload(good)[:9]
    for a, b in combinations(range(8 * len(good)), 2):
        spoiled = bytearray(good)
        spoiled[a // 8] ^= 1 << a % 8
        spoiled[b // 8] ^= 1 << b % 8
        data = _payload(bytes(spoiled))
        texts = [data[9 + 4 * i : 13 + 4 * i][::-1].hex() for i in range(len(POINTS))]
        if data[:9] == head and len(data) == 9 + 4 * len(POINTS) and all(t.isdecimal() for t in texts):
            numbers = [Decimal(t).scaleb(-2) for t in texts]
            if numbers != [Decimal(v) for v in POINTS]:
                yield numbers


def _payload(data: bytes) -> bytes:
    found = frames.Scanner().feed(data)
    return found[0].data if found else b""


def test_a_dead_meter_is_no_answer_with_its_slots_named() -> None:
    outcome = run_against(lambda _n: b"", curve_job())
    assert outcome.status is Status.NO_ANSWER
    assert [(f.quantity, f.cause, f.window) for f in outcome.faults] == [
        ("import_kwh", Cause.NO_ANSWER, curve_job().window)
    ]


def test_another_meters_answer_is_the_wrong_meter() -> None:
    other = read_answer("06100601", minute(START.astimezone(BEIJING)) + kwh("1.00"), address="000000193601")
    outcome = run_against(lambda _n: other, curve_job())
    assert outcome.status is Status.WRONG_METER
    assert outcome.readings == ()


def test_a_damaged_answer_is_a_bad_frame_and_its_bytes_are_kept() -> None:
    damaged = bytearray(curve_answer(POINTS))
    damaged[25] ^= 0x10
    outcome = run_against(lambda _n: bytes(damaged), curve_job())
    assert outcome.status is Status.BAD_FRAME
    assert bytes(damaged) in [f.data for f in outcome.frames]


def test_a_line_that_is_down_is_not_the_meters_fault() -> None:
    async def main() -> Outcome:
        line = Line(LineSettings("t", Endpoint("tcp", host="127.0.0.1", port=1)))
        return await collect.run(line, curve_job(), clock=lambda: NOW)

    outcome = asyncio.run(main())
    assert outcome.status is Status.LINE_DOWN
    assert "can't connect to 127.0.0.1:1" in outcome.detail


def test_what_is_not_in_memory_yet_may_still_come() -> None:
    """A young gap is waited for, an old one is not, and a gap across both is parted."""
    empty = read_answer("06100601", b"")
    window = Window(NOW - timedelta(days=1), NOW - timedelta(minutes=30))
    job = replace(curve_job(), window=Window(*(_grid(t) for t in (window.start, window.end))))
    outcome = run_against(lambda _n: empty, job)
    causes = {f.cause for f in outcome.faults}
    assert causes == {Cause.NOT_IN_MEMORY, Cause.NOT_YET}
    for fault in outcome.faults:
        assert fault.window is not None
        young = fault.window.start >= NOW - timedelta(hours=6)
        assert fault.cause is (Cause.NOT_YET if young else Cause.NOT_IN_MEMORY)


def _grid(moment: datetime) -> datetime:
    return moment - timedelta(minutes=moment.minute % 15)


@given(st.lists(st.integers(0, 300), min_size=2, max_size=20), st.integers(0, 99_999_000))
def test_no_honest_curve_is_doubted_not_even_across_rollover(steps: list[int], start: int) -> None:
    """Steps of up to 3 kWh a quarter of an hour fit a 15.84 kW meter."""
    total, readings = start, []
    for i, step in enumerate(steps):
        total = (total + step) % 100_000_000
        at = START + timedelta(minutes=15 * i)
        readings.append(Reading("import_kwh", Decimal(total).scaleb(-2), at, NOW, Source.CURVE, 900))
    model = replace(meter("0610").model, max_power_kw=Decimal("15.84"), register_wrap=Decimal(1_000_000))
    assert doubtful(readings, {}, model) == set()


def test_rates_that_do_not_add_up_are_doubted_within_truncation() -> None:
    def block(*cents: int) -> list[Reading]:
        names = ("import_kwh", *(f"import_kwh_t{n}" for n in range(1, 5)))
        return [
            Reading(name, Decimal(c).scaleb(-2), START, NOW, Source.DAILY_FREEZE)
            for name, c in zip(names, cents, strict=True)
        ]

    model = meter("0610").model
    assert doubtful(block(3630, 256, 19, 38, 3317), {}, model) == set()  # a published block: 36.30
    assert doubtful(block(21494, 5304, 5374, 5403, 5411), {}, model) == set()  # published, 0.02 apart
    assert doubtful(block(21594, 5304, 5374, 5403, 5411), {}, model) == {0, 1, 2, 3, 4}


def test_the_address_of_these_tests_is_the_meters() -> None:
    assert meter("0610").address == ADDRESS


@pytest.mark.parametrize(
    ("talk", "spoiled"),
    [
        (">A <x", False),
        (">A <x >B <y", False),
        (">A <x >A <x", False),  # asked twice on purpose, and told the same
        (">A <x >A <y", True),
        (">A <x >A", True),  # something came, and then nothing
        (">A >A <x", False),  # silence is no damage
        (">A <x >A <xy >B <z", True),
        (">A <x <y >A <xy", False),
    ],
)
def test_a_line_is_called_damaging_only_where_it_was(talk: str, spoiled: bool) -> None:
    at = datetime(2026, 10, 1, tzinfo=UTC)
    assert collect.damaged([FrameRecord(at, word[0], word[1:].encode()) for word in talk.split()]) is spoiled

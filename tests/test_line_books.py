"""What a line keeps of its own doings: its time, its meters' costs, its frames; and what it takes when it is idle."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from datetime import UTC, datetime

import pytest

from headend.conversation import Conversation, Send
from headend.doctor import Trace, findings, line_report
from headend.endpoints import Endpoint, LineSettings
from headend.line import Line
from headend.model import Cause, Fault, FrameRecord, Outcome, ReadJob, ReadKind, Status
from tests.helpers import make_meter
from tests.test_line import answer_each, ask, tcp_line


async def slow_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each 4-byte request is answered after 0.15 s, in two halves 0.1 s apart."""
    while request := await reader.read(4):
        await asyncio.sleep(0.15)
        writer.write(request[:2])
        await asyncio.sleep(0.1)
        writer.write(request[2:])


def test_the_budget_says_where_the_time_went() -> None:
    async def main() -> None:
        async with tcp_line(slow_answers, gap_s=0.3, reply_s=1.0) as line:
            started = time.monotonic()
            for _ in range(2):
                assert await line.run(ask(b"abcd", 4)) == b"abcd"
            await asyncio.sleep(0.2)
            stats = line.stats
            assert stats.waiting_s == pytest.approx(0.3, abs=0.05)
            assert stats.receiving_s == pytest.approx(0.2, abs=0.05)
            assert (stats.sending_s, stats.timeout_s, stats.quiet_s, stats.wire_s) == (0.0, 0.0, 0.0, None)
            elapsed = time.monotonic() - started
            used = stats.waiting_s + stats.receiving_s + stats.opening_s
            assert used + stats.idle_s() == pytest.approx(elapsed, abs=0.05)
            assert stats.idle_s() >= 0.19

    asyncio.run(main())


def test_a_known_speed_tells_the_request_from_the_wait_and_what_the_bits_took() -> None:
    async def main() -> None:
        # 4 characters of 11 bits at 600 baud: 73 ms out, 73 ms back.
        async with tcp_line(slow_answers, gap_s=0.3, reply_s=1.0, wire_baud=600) as line:
            await line.run(ask(b"abcd", 4))
            assert line.stats.sending_s == pytest.approx(44 / 600, abs=0.001)
            assert line.stats.waiting_s == pytest.approx(0.15 - 44 / 600, abs=0.05)
            assert line.stats.wire_s == pytest.approx(88 / 600)

    asyncio.run(main())


def test_waits_in_vain_and_draining_are_told_apart_and_silence_from_noise() -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)  # the first is not answered, the second in part
        await reader.read(4)
        writer.write(b"ab")
        await answer_each(reader, writer)

    async def main() -> None:
        async with tcp_line(odd, quiet_s=0.1, reply_s=0.2, gap_s=0.1) as line:
            assert await line.run(ask(b"abcd", 4, tries=3)) == b"dcba"
            stats = line.stats
            assert (stats.timeouts, stats.silences, stats.garbled) == (2, 1, 1)
            assert stats.timeout_s == pytest.approx(0.4, abs=0.06)
            assert stats.quiet_s == pytest.approx(0.2, abs=0.05)

    asyncio.run(main())


def test_each_meter_s_cost_stands_by_itself() -> None:
    async def main() -> None:
        async with tcp_line(slow_answers, gap_s=0.3, reply_s=1.0) as line:
            await line.run(ask(b"abcd", 4), meter="A")
            await line.run(ask(b"efgh", 4), meter="B")
            await line.run(ask(b"efgh", 4), meter="B")
            assert line.stats.meters is not None
            assert list(line.stats.meters) == ["A", "B"]
            one, two = line.stats.meters["A"], line.stats.meters["B"]
            assert (one.conversations, one.exchanges, one.sent_bytes, one.received_bytes) == (1, 1, 4, 4)
            assert (two.conversations, two.exchanges, two.sent_bytes, two.received_bytes) == (2, 2, 8, 8)
            assert two.seconds == pytest.approx(0.5, abs=0.05)
            assert one.seconds + two.seconds <= line.stats.busy_s + 1e-6

    asyncio.run(main())


def outcome(status: Status, *causes: Cause) -> Outcome:
    faults = tuple(Fault("import_kwh", cause, "x") for cause in causes)
    job = ReadJob(make_meter(1), ReadKind.REGISTERS, ("import_kwh",))
    return Outcome(job, status, datetime(2026, 1, 1, tzinfo=UTC), 1.0, faults=faults)


def test_outcomes_are_counted_by_meter_and_causes_once_a_job() -> None:
    stats = Line(LineSettings("t", Endpoint("tcp", host="h", port=1))).stats
    stats.ended(outcome(Status.OK))
    stats.ended(outcome(Status.PARTIAL, Cause.REFUSED, Cause.REFUSED, Cause.NO_ANSWER))
    stats.ended(outcome(Status.REFUSED, Cause.REFUSED))
    cost = stats.meter("M000001")
    assert (cost.ok, cost.failed) == (1, {Status.PARTIAL: 1, Status.REFUSED: 1})
    assert stats.causes == {Cause.REFUSED: 2, Cause.NO_ANSWER: 1}


def test_the_last_twenty_frames_are_kept() -> None:
    async def main() -> None:
        async with tcp_line(answer_each) as line:
            assert line.stats.ring is None
            for number in range(15):
                await line.run(ask(f"{number:04d}".encode(), 4), meter=f"M{number}")
            assert line.stats.ring is not None
            kept = [(meter, frame.direction, frame.data) for meter, frame in line.stats.ring]
            expected = []
            for number in range(5, 15):
                request = f"{number:04d}".encode()
                expected += [(f"M{number}", ">", request), (f"M{number}", "<", request[::-1])]
            assert kept == expected

    asyncio.run(main())


def test_an_idle_line_holds_no_task_no_timer_and_little_memory() -> None:
    many = 5000

    async def main() -> tuple[int, int]:
        async with tcp_line(answer_each) as used:
            await used.run(ask(b"abcd", 4))
            await asyncio.sleep(0)
            tasks = len(asyncio.all_tasks())
            endpoint = Endpoint("tcp", host="192.0.2.1", port=1)
            tracemalloc.start()
            lines = [Line(LineSettings(str(n), endpoint)) for n in range(many)]
            size, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert len(lines) == many
            assert len(asyncio.all_tasks()) == tasks
            timers = [t for t in asyncio.get_running_loop()._scheduled if not t.cancelled()]  # type: ignore[attr-defined]
            return size, len(timers)

    size, timers = asyncio.run(main())
    assert size / many < 1500
    assert timers == 0


# -- traces ------------------------------------------------------------------------------------------------------------


def test_a_trace_sees_frames_as_they_go_by_and_of_one_meter_if_asked() -> None:
    async def main() -> None:
        async with tcp_line(answer_each) as line:
            with Trace(line) as all_of_it, Trace(line, "B") as only_b:
                await line.run(ask(b"abcd", 4), meter="A")
                await line.run(ask(b"efgh", 4), meter="B")
                seen = [(m, f.direction, f.data) for m, f in await all_of_it.frames()]
                assert seen == [("A", ">", b"abcd"), ("A", "<", b"dcba"), ("B", ">", b"efgh"), ("B", "<", b"hgfe")]
                assert [m for m, _ in await only_b.frames()] == ["B", "B"]
            await line.run(ask(b"abcd", 4), meter="A")
            assert line.taps == ()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(all_of_it.frames(), 0.05)

    asyncio.run(main())


def test_a_reader_that_does_not_keep_up_loses_frames_and_is_told_how_many() -> None:
    async def main() -> None:
        async with tcp_line(answer_each) as line:
            with Trace(line, most=6) as trace:
                for _ in range(5):
                    await line.run(ask(b"abcd", 4))
                assert len(await trace.frames()) == 6
                assert trace.dropped == 4
                await line.run(ask(b"abcd", 4))
                assert len(await trace.frames()) == 2

    asyncio.run(main())


# -- findings ----------------------------------------------------------------------------------------------------------


def ill_line(**stats: object) -> Line:
    """A line on which a hundred exchanges went well, but for `stats`."""
    line = Line(LineSettings("t", Endpoint("tcp", host="h", port=1), wire_baud=2400))
    found = line.stats
    found.sends, found.sent_bytes, found.received_bytes, found.wire_s = 100, 2000, 3000, 22.0
    found.waiting_s, found.receiving_s = 20.0, 20.0
    for name, value in stats.items():
        assert hasattr(found, name)
        setattr(found, name, value)
    return line


def test_a_healthy_line_gives_no_findings() -> None:
    assert findings(line_report(ill_line(), {})) == []


@pytest.mark.parametrize(
    ("stats", "words"),
    [
        ({"silences": 100, "received_bytes": 0}, "not one byte ever came"),
        ({"garbled": 60}, "most answers are garbled: check speed and parity"),
        ({"garbled": 5}, "5.0 % of the answers are garbled"),
        ({"stale_bytes": 30}, "raise reply_s (now 2)"),
        ({"reopened": 3}, "closed and opened anew 3 times"),
        ({"causes": {Cause.WRONG_METER: 2}}, "answered in 2 jobs: check addresses"),
        ({"last_error": "can't connect to h:1"}, "the line is down: can't connect to h:1"),
        ({"wire_s": 60.0}, "bytes come faster than 2400 can carry"),
    ],
)
def test_each_ailment_is_found(stats: dict[str, object], words: str) -> None:
    (finding,) = findings(line_report(ill_line(**stats), {}))
    assert words in finding


def test_a_few_garbled_answers_are_no_finding() -> None:
    assert findings(line_report(ill_line(garbled=2), {})) == []


def test_an_echo_is_found_in_the_last_frames() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    line = ill_line()
    for answer in (b"abcdXY", b"abcdZ"):
        line.stats.keep("A", FrameRecord(at, ">", b"abcd"))
        line.stats.keep("A", FrameRecord(at, "<", answer))
    assert findings(line_report(line, {})) == ["the line gives back what is sent: set echo = true"]
    line.stats.keep("A", FrameRecord(at, ">", b"abcd"))
    line.stats.keep("A", FrameRecord(at, "<", b"answer"))
    assert findings(line_report(line, {})) == []


def test_silent_meters_and_what_they_cost_are_named() -> None:
    line = ill_line()
    for name, seconds, status in (("A", 30.0, Status.OK), ("B", 10.0, Status.NO_ANSWER)):
        cost = line.stats.meter(name)
        cost.seconds = seconds
        cost.count(status)
    (finding,) = findings(line_report(line, {}))
    assert finding == "1 of 2 meters never answered (B) and cost 25 % of the time"


def test_a_report_is_plain_data_and_its_budget_is_whole() -> None:
    line = ill_line(timeout_s=1.0)
    line.stats.since -= 100
    report = line_report(line, {})
    assert sum(report["budget_s"].values()) == pytest.approx(100, abs=1)
    assert report["budget_s"]["idle"] == pytest.approx(59, abs=1)
    assert report["wire_s"] == 22.0


def test_a_broadcast_counts_as_sent_and_waits_for_nothing() -> None:
    def broadcast() -> Conversation[None]:
        yield Send(b"all!", expect_reply=False)

    async def main() -> None:
        async with tcp_line(answer_each) as line:
            await line.run(broadcast(), meter="A")
            assert (line.stats.sends, line.stats.sent_bytes, line.stats.timeouts) == (1, 4, 0)

    asyncio.run(main())

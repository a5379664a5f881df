"""What a conversation may ask of a line beside sending: to be silent, another speed, and not to record a secret."""

from __future__ import annotations

import asyncio
import time

import pytest

from headend.conversation import MORE, Conversation, Pause, Request, Send, SetSpeed
from headend.errors import LineDown, NoAnswer, UsageError
from headend.line.links import SerialLink
from headend.model import FrameRecord
from tests.test_line import answer_each, ask, tcp_line
from tests.test_line_links import pty_line, speed_and_stops

# -- Pause -------------------------------------------------------------------------------------------------------------


def test_a_pause_is_kept_before_the_next_question() -> None:
    came: list[float] = []

    async def timed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(4):
            came.append(time.monotonic())
            writer.write(request)

    def paused() -> Conversation[bytes]:
        yield Send(b"abcd")
        assert (yield Pause(0.2)) == b""
        return (yield Send(b"efgh"))

    async def main() -> None:
        async with tcp_line(timed) as line:
            assert await line.run(paused()) == b"efgh"
            assert line.stats.quiet_s == pytest.approx(0.2, abs=0.05)

    asyncio.run(main())
    assert 0.19 < came[1] - came[0] < 0.4


def test_a_conversation_may_begin_and_end_with_a_pause() -> None:
    def only_silent() -> Conversation[str]:
        yield Pause(0.05)
        yield Pause(0.05)
        return "done"

    async def main() -> None:
        async with tcp_line(answer_each) as line:
            started = time.monotonic()
            assert await line.run(only_silent()) == "done"
            assert 0.09 < time.monotonic() - started < 0.25
            assert line.stats.sends == 0

    asyncio.run(main())


def test_a_pause_of_nothing_costs_nothing() -> None:
    def many() -> Conversation[bytes]:
        for _ in range(200):
            yield Pause(0.0)
        return (yield Send(b"abcd"))

    async def main() -> None:
        async with tcp_line(answer_each) as line:
            started = time.monotonic()
            assert (await line.run(many()))[:1] == b"d"
            assert time.monotonic() - started < 0.1

    asyncio.run(main())


def test_a_pause_counts_from_the_last_byte_of_what_was_sent() -> None:
    """30 characters at 1200 baud take 0.25 s: silence of 0.1 s begins then."""

    def told() -> Conversation[float]:
        started = time.monotonic()
        yield Send(b"x" * 30, expect_reply=False)
        yield Pause(0.1)
        return time.monotonic() - started

    async def main() -> None:
        async with pty_line("1200 8N1") as (line, _):
            assert 0.33 < await line.run(told()) < 0.5

    asyncio.run(main())


def test_what_comes_in_a_pause_is_dropped_and_counted() -> None:
    heard: list[bytes] = []

    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(4):
            writer.write(request)
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(b"late")

    def paused() -> Conversation[bytes]:
        heard.append((yield Send(b"abcd")))
        yield Pause(0.15)
        return (yield Send(b"efgh"))

    async def main() -> None:
        async with tcp_line(twice) as line:
            frames: list[FrameRecord] = []
            assert await line.run(paused(), frames) == b"efgh"
            assert heard == [b"abcd"]
            assert line.stats.stale_bytes == 4
            assert [frame.data for frame in frames] == [b"abcd", b"abcd", b"efgh", b"efgh"]

    asyncio.run(main())


def test_a_pause_after_a_timeout_still_drains_the_line_before_the_next_question() -> None:
    asked = 0

    async def late_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while request := await reader.read(4):
            asked += 1
            if asked == 1:
                await asyncio.sleep(0.2)
            writer.write(request)

    def patient() -> Conversation[bytes]:
        try:
            yield Send(b"old1", reply_s=0.05)
        except NoAnswer:
            yield Pause(0.01)
        return (yield Send(b"new2"))

    async def main() -> None:
        async with tcp_line(late_at_first, quiet_s=0.3) as line:
            assert await line.run(patient()) == b"new2"
            assert line.stats.stale_bytes == 4

    asyncio.run(main())


def test_a_line_lost_in_a_pause_ends_it_at_once() -> None:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(4))
        await writer.drain()

    def paused() -> Conversation[None]:
        yield Send(b"abcd")
        yield Pause(30.0)

    async def main() -> None:
        async with tcp_line(closing) as line:
            started = time.monotonic()
            with pytest.raises(LineDown, match="the other side closed the connection"):
                await line.run(paused())
            assert time.monotonic() - started < 2

    asyncio.run(main())


# -- SetSpeed ----------------------------------------------------------------------------------------------------------


def changing(first: bytes, form: str, second: bytes) -> Conversation[tuple[bytes, bytes]]:
    one = yield from ask(first, len(first))
    assert (yield SetSpeed(form)) == b""
    return one, (yield from ask(second, len(second)))


def test_a_conversation_changes_the_speed_of_the_port_for_its_own_rest() -> None:
    seen: list[tuple[bytes, tuple[int, int]]] = []

    async def main() -> None:
        note = lambda handle, request: seen.append((request, speed_and_stops(handle)))  # noqa: E731
        async with pty_line("300 8N1", note) as (line, _):
            assert await line.run(changing(b"ab", "9600 8N2", b"cd")) == (b"ba", b"dc")
            assert await line.run(ask(b"ef", 2)) == b"fe"
            assert await line.run(ask(b"gh", 2), serial="1200 8N1") == b"hg"
            assert await line.run(changing(b"ij", "2400 8N1", b"kl"), serial="4800 8N1") == (b"ji", b"lk")
            assert line.stats.opened == 1

    asyncio.run(main())
    assert seen == [
        (b"ab", (300, 1)),
        (b"cd", (9600, 2)),
        (b"ef", (300, 1)),
        (b"gh", (1200, 1)),
        (b"ij", (4800, 1)),
        (b"kl", (2400, 1)),
    ]


def test_what_was_sent_is_out_before_the_speed_changes() -> None:
    """10 characters at 300 baud take 0.33 s. The port must not change under them."""
    changed: list[float] = []

    def told() -> Conversation[None]:
        yield Send(b"x" * 10, expect_reply=False)
        yield SetSpeed("9600 8N1")
        changed.append(time.monotonic())

    async def main() -> None:
        async with pty_line("300 8N1") as (line, slave):
            started = time.monotonic()
            await line.run(told())
            assert 0.32 < changed[0] - started < 0.6
            assert speed_and_stops(slave) == (9600, 1)

    asyncio.run(main())


def test_time_on_the_wire_counts_at_the_new_speed() -> None:
    """30 characters at 300 baud take a second to leave; at 9600 the answer that takes 0.3 s is too late for 0.15."""

    async def main() -> None:
        async with pty_line("300 8N1", later_s=0.3, reply_s=0.15) as (line, _):
            assert await line.run(ask(b"x" * 30, 30)) == b"x" * 30

            def faster() -> Conversation[bytes]:
                yield SetSpeed("9600 8N1")
                return (yield from ask(b"x" * 30, 30))

            with pytest.raises(NoAnswer):
                await line.run(faster())
            await asyncio.sleep(0.2)  # until the last answer has been written

    asyncio.run(main())


@pytest.mark.parametrize("opened", ["9600 8E1", "300 7O2", "2400 8N1"])
def test_a_pseudo_terminal_goes_along_with_formats_it_has_not(opened: str) -> None:
    """A program that plays a serial port: speeds change, parity and seven bits mean nothing there."""
    seen: list[tuple[int, int]] = []

    def three() -> Conversation[None]:
        yield from ask(b"ab", 2)
        yield SetSpeed("300 7E1")
        yield from ask(b"cd", 2)
        yield SetSpeed("9600 8N1")
        yield from ask(b"ef", 2)

    async def main() -> None:
        async with pty_line(opened, lambda handle, _: seen.append(speed_and_stops(handle))) as (line, _):
            await line.run(three())
            await line.run(ask(b"gh", 2))

    asyncio.run(main())
    own = int(opened.split()[0]), int(opened[-1])
    assert seen == [own, (300, 1), (9600, 1), own]


def test_a_link_that_is_no_port_of_ours_keeps_its_speed() -> None:
    async def main() -> None:
        async with tcp_line(answer_each) as line:
            assert await line.run(changing(b"abcd", "300 7E1", b"efgh")) == (b"dcba", b"hgfe")

    asyncio.run(main())


def test_a_speed_the_port_refuses_reaches_the_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_link: SerialLink, _form: object) -> None:
        raise LineDown("can't set it")

    def told() -> Conversation[str]:
        yield from ask(b"ab", 2)
        try:
            yield SetSpeed("9600 8N1")
        except LineDown as error:
            return str(error)
        return "set"

    async def main() -> None:
        async with pty_line("300 8N1") as (line, _):
            await line.run(ask(b"ab", 2))
            monkeypatch.setattr(SerialLink, "set_format", refuse)
            assert await line.run(told()) == "can't set it"

    asyncio.run(main())


def test_a_speed_that_does_not_exist_ends_the_conversation_in_words() -> None:
    def wrong() -> Conversation[None]:
        yield SetSpeed("9601 8N1")

    async def main() -> None:
        async with pty_line("300 8N1") as (line, _):
            with pytest.raises(UsageError, match="'9601' is no speed a line runs at"):
                await line.run(wrong())
            assert await line.run(ask(b"ab", 2)) == b"ba"

    asyncio.run(main())


# -- Send.shown --------------------------------------------------------------------------------------------------------


def test_what_is_shown_is_recorded_and_told_and_what_is_secret_is_sent() -> None:
    got: list[bytes] = []
    told: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(100):
            got.append(request)
            writer.write(b"ok")

    def secret() -> Conversation[bytes]:
        return (yield Send(b"password=12345678", shown=b"password=********"))

    async def main() -> None:
        async with tcp_line(keep) as line:
            line.tap(lambda _meter, frame: told.append(frame.data))
            frames: list[FrameRecord] = []
            assert await line.run(secret(), frames) == b"ok"
            assert [frame.data for frame in frames] == [b"password=********", b"ok"]
            assert [frame.data for _, frame in line.stats.ring or ()] == [b"password=********", b"ok"]
            assert line.stats.sent_bytes == 17

    asyncio.run(main())
    assert got == [b"password=12345678"]
    assert told == [b"password=********", b"ok"]


def test_the_echo_of_a_secret_is_dropped_by_what_was_sent() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(100):
            writer.write(request + b"ok")

    def secret() -> Conversation[bytes]:
        return (yield Send(b"12345678", shown=b"********"))

    async def main() -> None:
        async with tcp_line(echo, echo=True) as line:
            assert await line.run(secret()) == b"ok"

    asyncio.run(main())


# -- waiting without a question ----------------------------------------------------------------------------------------


def test_waiting_for_more_after_a_timeout_ends_too() -> None:
    """Nothing a conversation asks may wait without end."""

    def insisting() -> Conversation[int]:
        timeouts = 0
        for attempt in range(4):
            try:
                yield Send(b"abcd") if attempt == 0 else MORE
            except NoAnswer:
                timeouts += 1
        return timeouts

    async def swallow(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            pass

    async def main() -> None:
        async with tcp_line(swallow, reply_s=0.05) as line:
            async with asyncio.timeout(2):
                assert await line.run(insisting()) == 4

    asyncio.run(main())


@pytest.mark.parametrize("first", [None, Send(b"abcd", expect_reply=False), Pause(0.01)])
def test_waiting_for_what_comes_unasked_ends_too(first: Request | None) -> None:
    def listening() -> Conversation[bytes]:
        if first is not None:
            yield first
        return (yield MORE)

    async def swallow(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            pass

    async def main() -> None:
        async with tcp_line(swallow, reply_s=0.1) as line:
            async with asyncio.timeout(2):
                started = time.monotonic()
                with pytest.raises(NoAnswer):
                    await line.run(listening())
                assert 0.09 < time.monotonic() - started < 0.4

    asyncio.run(main())


def test_the_answer_to_what_expected_none_is_still_heard() -> None:
    def telling() -> Conversation[bytes]:
        assert (yield Send(b"abcd", expect_reply=False)) == b""
        return (yield MORE)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(100):
            await asyncio.sleep(0.05)
            writer.write(request)

    async def main() -> None:
        async with tcp_line(echo) as line:
            assert await line.run(telling()) == b"abcd"

    asyncio.run(main())

"""Lines on real sockets and ptys: timeouts, stale bytes, echo, dial-in, loss."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headend.conversation import MORE, Conversation, Send
from headend.endpoints import Endpoint, LineSettings
from headend.errors import LineDown, NoAnswer
from headend.line import Line, Link, Listener
from headend.model import FrameRecord

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def ask(request: bytes, size: int, tries: int = 1) -> Conversation[bytes]:
    """Send `request`, return `size` bytes; try again on silence."""
    for attempt in range(tries):
        try:
            answer = yield Send(request)
            while len(answer) < size:
                answer += yield MORE
            return answer
        except NoAnswer:
            if attempt == tries - 1:
                raise
    raise AssertionError("unreachable")


@asynccontextmanager
async def tcp_line(handler: Handler, **settings: Any) -> AsyncIterator[Line]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    line = Line(
        LineSettings("t", Endpoint("tcp", host="127.0.0.1", port=port), **{"reply_s": 0.3, "gap_s": 0.1, **settings})
    )
    try:
        yield line
    finally:
        await line.close()
        server.close()
        await asyncio.sleep(0.01)  # let the handlers see the end of their connections


async def answer_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Gives back each 4-byte request reversed, a byte at a time."""
    while request := await reader.read(4):
        for byte in reversed(request):
            writer.write(bytes([byte]))
            await writer.drain()


def test_an_answer_in_pieces_is_put_together_and_recorded() -> None:
    async def main() -> None:
        async with tcp_line(answer_each) as line:
            frames: list[FrameRecord] = []
            assert await line.run(ask(b"abcd", 4), frames) == b"dcba"
            assert [(f.direction, f.data) for f in frames] == [(">", b"abcd"), ("<", b"dcba")]
            assert (line.stats.sent_bytes, line.stats.received_bytes, line.stats.opened) == (4, 4, 1)

    asyncio.run(main())


def test_conversations_on_one_line_never_overlap() -> None:
    async def main() -> None:
        async with tcp_line(answer_each) as line:
            requests = [f"{n:04d}".encode() for n in range(50)]
            answers = await asyncio.gather(*(line.run(ask(r, 4)) for r in requests))
            assert answers == [r[::-1] for r in requests]
            assert line.stats.opened == 1

    asyncio.run(main())


def test_silence_ends_in_no_answer_and_the_line_is_free_again() -> None:
    async def silent_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        await answer_each(reader, writer)

    async def main() -> None:
        async with tcp_line(silent_once) as line:
            with pytest.raises(NoAnswer):
                await line.run(ask(b"lost", 4))
            assert await line.run(ask(b"abcd", 4)) == b"dcba"
            assert line.stats.timeouts == 1

    asyncio.run(main())


def test_a_late_answer_never_reaches_the_next_request() -> None:
    late = asyncio.Event()

    async def late_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        await late.wait()
        writer.write(b"LATE")
        await answer_each(reader, writer)

    async def main() -> None:
        async with tcp_line(late_once, quiet_s=0.1) as line:
            with pytest.raises(NoAnswer):
                await line.run(ask(b"wait", 4))
            late.set()  # it arrives while the line is drained
            assert await line.run(ask(b"abcd", 4)) == b"dcba"
            assert line.stats.stale_bytes == 4

    asyncio.run(main())


def test_a_retry_waits_until_the_line_is_quiet() -> None:
    async def first_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        await asyncio.sleep(0.32)  # just after the timeout, within the quiet time
        writer.write(b"LATE")
        await answer_each(reader, writer)

    async def main() -> None:
        async with tcp_line(first_late, quiet_s=0.2) as line:
            assert await line.run(ask(b"abcd", 4, tries=2)) == b"dcba"

    asyncio.run(main())


def test_local_echo_is_taken_off() -> None:
    async def echoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(4):
            writer.write(request + request[::-1])
            await writer.drain()

    async def main() -> None:
        async with tcp_line(echoing, echo=True) as line:
            assert await line.run(ask(b"abcd", 4)) == b"dcba"

    asyncio.run(main())


def test_a_refused_connection_says_where_and_what_to_do() -> None:
    async def main() -> None:
        line = Line(LineSettings("t", Endpoint("tcp", host="127.0.0.1", port=1)))
        with pytest.raises(LineDown, match=r"can't connect to 127\.0\.0\.1:1: .* -> is the serial server up"):
            await line.run(ask(b"abcd", 4))

    asyncio.run(main())


def test_a_connection_lost_in_mid_answer_is_line_down_and_is_opened_again() -> None:
    connections = 0

    async def cut_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await reader.read(4)
            writer.write(b"ab")
            await writer.drain()
            writer.close()
        else:
            await answer_each(reader, writer)

    async def main() -> None:
        async with tcp_line(cut_first) as line:
            with pytest.raises(LineDown, match="line t lost: the other side closed the connection"):
                await line.run(ask(b"abcd", 4))
            assert await line.run(ask(b"abcd", 4)) == b"dcba"
            assert line.stats.opened == 2

    asyncio.run(main())


def test_a_broadcast_waits_for_no_answer() -> None:
    def broadcast() -> Conversation[str]:
        assert (yield Send(b"all!", expect_reply=False)) == b""
        return "sent"

    async def main() -> None:
        async with tcp_line(answer_each) as line:
            assert await line.run(broadcast()) == "sent"

    asyncio.run(main())


def test_serial_on_a_pty_and_its_unplugging() -> None:
    async def main() -> None:
        master, slave = os.openpty()
        tty.setraw(master)
        endpoint = Endpoint("serial", device=os.ttyname(slave), baud=9600, parity="N")
        line = Line(LineSettings("p", endpoint, reply_s=0.5))
        loop = asyncio.get_running_loop()
        loop.add_reader(master, lambda: os.write(master, os.read(master, 100)[::-1]))
        assert await line.run(ask(b"abcd", 4)) == b"dcba"
        loop.remove_reader(master)
        os.close(slave)
        os.close(master)
        with pytest.raises(LineDown):
            await line.run(ask(b"abcd", 4))
        await line.close()

    asyncio.run(main())


def test_a_port_that_is_not_there_says_so() -> None:
    async def main() -> None:
        line = Line(LineSettings("p", Endpoint("serial", device="/dev/no-such-port")))
        with pytest.raises(
            LineDown, match=r"can't open /dev/no-such-port: No such file or directory -> is it plugged in"
        ):
            await line.run(ask(b"abcd", 4))

    asyncio.run(main())


def listen_settings(name: str, registration: bytes) -> LineSettings:
    return LineSettings(name, Endpoint("listen", host="127.0.0.1", port=0), registration, reply_s=0.5, connect_s=2.0)


async def dial(port: int, first: bytes) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)

    async def serve() -> None:
        while request := await reader.read(4):
            writer.write(request[::-1])
        writer.close()

    writer.served = asyncio.create_task(serve())  # type: ignore[attr-defined]
    return writer


def test_modems_are_known_by_their_registration() -> None:
    async def main() -> None:
        lines = [Line(listen_settings(f"m{n}", f"DTU{n}".encode())) for n in (1, 2)]
        listener = Listener("127.0.0.1", 0, lines)
        await listener.start()
        writers = [await dial(listener.port, b"DTU2"), await dial(listener.port, b"DTU1")]
        assert await lines[0].run(ask(b"abcd", 4)) == b"dcba"
        assert await lines[1].run(ask(b"efgh", 4)) == b"hgfe"
        again = await dial(listener.port, b"DTU1")  # the modem reconnects: the old connection is dead
        await asyncio.wait_for(writers[1].served, 2)  # type: ignore[attr-defined]
        assert await lines[0].run(ask(b"abcd", 4)) == b"dcba"
        for writer in (*writers, again):
            writer.close()
        await listener.close()
        for line in lines:
            await line.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_modem_without_registration_is_identified_by_what_is_behind_it() -> None:
    async def main() -> None:
        line = Line(listen_settings("m", b""))
        seen: list[Link] = []

        async def identify(link: Link) -> Line | None:
            seen.append(link)
            return line

        listener = Listener("127.0.0.1", 0, [line], identify=identify)
        await listener.start()
        writer = await dial(listener.port, b"")
        assert await line.run(ask(b"abcd", 4)) == b"dcba"
        assert len(seen) == 1
        writer.close()
        await listener.close()
        await line.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_line_nobody_dialled_into_is_down() -> None:
    async def main() -> None:
        settings = LineSettings("m", Endpoint("listen", host="127.0.0.1", port=0), connect_s=0.05)
        with pytest.raises(LineDown, match="no modem has dialled in"):
            await Line(settings).run(ask(b"abcd", 4))

    asyncio.run(main())

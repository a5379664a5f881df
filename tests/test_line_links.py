"""The port under a line: speeds and formats from meter to meter, turnaround, dead connections, refusals that rest."""

from __future__ import annotations

import asyncio
import os
import termios
import time
import tty
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import serial

from headend.conversation import Conversation, Send
from headend.endpoints import BAUDS, Endpoint, LineSettings, parse_endpoint
from headend.errors import LineDown, NoAnswer, UsageError
from headend.line import Line, Listener
from headend.line.links import Format, SerialLink
from tests.test_line import answer_each, ask, dial, listen_settings, tcp_line

# -- serial ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def pty_line(
    form: str = "9600 8N1",
    on_request: Callable[[int, bytes], None] | None = None,
    *,
    later_s: float = 0.0,
    **settings: Any,
) -> AsyncIterator[tuple[Line, int]]:
    """A line on a pseudo-terminal that reverses what it gets, `later_s` later, and the other end's handle."""
    master, slave = os.openpty()
    tty.setraw(master)
    loop = asyncio.get_running_loop()

    def serve() -> None:
        request = os.read(master, 100)
        if on_request is not None:
            on_request(slave, request)
        if later_s:
            loop.call_later(later_s, os.write, master, request[::-1])
        else:
            os.write(master, request[::-1])

    loop.add_reader(master, serve)
    line = Line(LineSettings("p", parse_endpoint(f"serial:{os.ttyname(slave)}", form), **{"reply_s": 0.5, **settings}))
    try:
        yield line, slave
    finally:
        await line.close()
        loop.remove_reader(master)
        os.close(slave)
        os.close(master)


def speed_and_stops(handle: int) -> tuple[int, int]:
    """Speed and stop bits a terminal is set to; a pty keeps no parity and no data bits."""
    attributes = termios.tcgetattr(handle)
    names = {getattr(termios, f"B{baud}"): baud for baud in BAUDS}
    return names[attributes[5]], 2 if attributes[2] & termios.CSTOPB else 1


@pytest.mark.parametrize("baud", BAUDS)
def test_every_speed_can_be_opened(baud: int) -> None:
    async def main() -> None:
        async with pty_line(f"{baud} 8N2") as (line, slave):
            assert await line.run(ask(b"abcd", 4)) == b"dcba"
            assert speed_and_stops(slave) == (baud, 2)

    asyncio.run(main())


@pytest.mark.parametrize("characters", ["8E1", "8O1", "8N1", "7E1", "7O2", "8E2", "7N2"])
def test_every_character_format_is_what_the_port_is_asked_for(characters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = termios.tcsetattr

    def note(handle: int, when: int, attributes: list[Any]) -> None:
        asked.append(attributes)
        real(handle, when, attributes)

    monkeypatch.setattr(termios, "tcsetattr", note)

    async def main() -> None:
        async with pty_line(f"2400 {characters}") as (line, _):
            assert await line.run(ask(b"abcd", 4)) == b"dcba"

    asyncio.run(main())
    flags = next(attributes[2] for attributes in reversed(asked) if attributes[5] == termios.B2400)
    assert flags & termios.CSIZE == (termios.CS7 if characters[0] == "7" else termios.CS8)
    assert bool(flags & termios.PARENB) == (characters[1] != "N")
    assert bool(flags & termios.PARODD) == (characters[1] == "O")
    assert bool(flags & termios.CSTOPB) == (characters[2] == "2")


def test_each_meter_is_asked_at_its_own_speed_on_one_open_port() -> None:
    seen: list[tuple[bytes, tuple[int, int]]] = []

    async def main() -> None:
        note = lambda handle, request: seen.append((request, speed_and_stops(handle)))  # noqa: E731
        async with pty_line("9600 8N1", note) as (line, _):
            for request, form in ((b"own1", ""), (b"slow", "1200 8N2"), (b"slo2", "1200 8N2"), (b"own2", "")):
                assert await line.run(ask(request, 4), serial=form) == request[::-1]
            assert line.stats.opened == 1

    asyncio.run(main())
    assert seen == [
        (b"own1", (9600, 1)),
        (b"slow", (1200, 2)),
        (b"slo2", (1200, 2)),
        (b"own2", (9600, 1)),
    ]


def test_only_what_differs_is_set_and_never_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[str] = []
    for name in ("baudrate", "parity", "bytesize", "stopbits", "timeout"):
        attribute = getattr(serial.Serial, name)

        def put(port: serial.Serial, value: Any, name: str = name, attribute: Any = attribute) -> None:
            touched.append(name)
            attribute.fset(port, value)

        monkeypatch.setattr(serial.Serial, name, property(attribute.fget, put))

    async def main() -> None:
        async with pty_line("9600 8N1") as (line, _):
            await line.run(ask(b"abcd", 4))
            touched.clear()
            await line.run(ask(b"abcd", 4), serial="9600 8N1")
            assert touched == []
            await line.run(ask(b"abcd", 4), serial="1200 8N1")
            assert touched == ["baudrate"]
            await line.run(ask(b"abcd", 4), serial="1200 8N2")
            assert touched == ["baudrate", "stopbits"]

    asyncio.run(main())


def test_a_format_the_port_refuses_is_line_down_and_the_port_is_opened_anew() -> None:
    async def main() -> None:
        async with pty_line("9600 8N1") as (line, _):
            await line.run(ask(b"abcd", 4))
            link = line._link
            assert isinstance(link, SerialLink)
            with pytest.raises(LineDown, match=r"can't set /dev/pts/\d+ to 9600 9N1: .* -> does the adapter know"):
                link.set_format(Format(9600, 9, "N", 1))
            assert not link.is_open
            assert await line.run(ask(b"abcd", 4)) == b"dcba"
            assert line.stats.opened == 2

    asyncio.run(main())


def test_only_serial_lines_have_a_format() -> None:
    async def main() -> None:
        async with tcp_line(answer_each) as line:
            with pytest.raises(UsageError, match="line t is no serial port: its format can't be set to 2400 8E1"):
                await line.run(ask(b"abcd", 4), serial="2400 8E1")

    asyncio.run(main())


def test_the_wire_s_time_of_a_meter_s_own_speed_is_added_to_its_timeout() -> None:
    """30 characters at 1200 baud take 0.25 s to leave: an answer after 0.3 s is in time, though reply_s is 0.15."""

    async def main() -> None:
        async with pty_line("9600 8N1", later_s=0.3, reply_s=0.15) as (line, _):
            assert await line.run(ask(b"x" * 30, 30), serial="1200 8N1") == b"x" * 30
            with pytest.raises(NoAnswer):
                await line.run(ask(b"x" * 30, 30), serial="19200 8N1")
            await asyncio.sleep(0.2)  # until the last answer has been written

    asyncio.run(main())


def test_a_configured_wire_speed_does_the_same_behind_a_serial_server() -> None:
    async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(30):
            await asyncio.sleep(0.3)
            writer.write(request)

    async def main() -> None:
        async with tcp_line(later, reply_s=0.15, wire_baud=1200) as line:
            assert await line.run(ask(b"x" * 30, 30)) == b"x" * 30
        async with tcp_line(later, reply_s=0.15) as line:
            with pytest.raises(NoAnswer):
                await line.run(ask(b"x" * 30, 30))

    asyncio.run(main())


# -- turnaround --------------------------------------------------------------------------------------------------------


def test_turnaround_is_kept_within_and_between_conversations() -> None:
    came: list[float] = []
    went: list[float] = []

    async def timed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(4):
            came.append(time.monotonic())
            writer.write(request)
            went.append(time.monotonic())

    def two() -> Conversation[None]:
        yield Send(b"abcd")
        yield Send(b"efgh")

    async def main() -> None:
        async with tcp_line(timed, turnaround_s=0.1) as line:
            started = time.monotonic()
            await line.run(two())
            await line.run(two())
            assert came[0] - started < 0.08  # the first question has nothing to wait for
            assert line.stats.quiet_s == pytest.approx(0.3, abs=0.05)
            assert line.stats.stale_bytes == 0

    asyncio.run(main())
    pauses = [after - before for before, after in zip(went, came[1:], strict=False)]
    assert len(pauses) == 3
    assert all(0.09 < pause < 0.2 for pause in pauses)


def test_without_turnaround_questions_follow_at_once() -> None:
    async def main() -> None:
        async with tcp_line(answer_each) as line:
            started = time.monotonic()
            for _ in range(20):
                await line.run(ask(b"abcd", 4))
            assert time.monotonic() - started < 0.3
            assert line.stats.quiet_s == 0.0

    asyncio.run(main())


def test_a_wrong_wire_speed_slows_nothing_down() -> None:
    """The answer proves that the question has arrived, whatever the configured speed says."""

    async def main() -> None:
        async with tcp_line(answer_each, wire_baud=300) as line:
            started = time.monotonic()
            for _ in range(10):
                await line.run(ask(b"abcd", 4))
            assert time.monotonic() - started < 0.5

    asyncio.run(main())


# -- connections that are dead -----------------------------------------------------------------------------------------


async def swallow(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    while await reader.read(100):
        pass


@pytest.mark.parametrize(("reopen_after", "opened"), [(3, 2), (0, 1)])
def test_a_connection_on_which_nothing_comes_is_given_up(reopen_after: int, opened: int) -> None:
    connections = 0

    async def dead_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await (swallow if connections == 1 else answer_each)(reader, writer)

    async def main() -> None:
        async with tcp_line(dead_at_first, reply_s=0.03, quiet_s=0.0, reopen_after=reopen_after) as line:
            for _ in range(3):
                with pytest.raises(NoAnswer):
                    await line.run(ask(b"abcd", 4))
            if reopen_after:
                assert await line.run(ask(b"abcd", 4)) == b"dcba"
            else:
                with pytest.raises(NoAnswer):
                    await line.run(ask(b"abcd", 4))
            assert (line.stats.opened, connections) == (opened, opened)
            assert line.stats.reopened == opened - 1

    asyncio.run(main())


def test_one_byte_now_and_then_keeps_a_connection() -> None:
    """Meters are silent, but the connection is not dead: it brings something, if only noise."""
    requests = 0

    async def mostly_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while await reader.read(4):
            requests += 1
            if requests % 3 == 0:
                writer.write(b"?")

    async def main() -> None:
        async with tcp_line(mostly_silent, reply_s=0.03, gap_s=0.01, quiet_s=0.0, reopen_after=3) as line:
            for _ in range(9):
                with pytest.raises(NoAnswer):
                    await line.run(ask(b"abcd", 4))
            assert (line.stats.opened, line.stats.reopened) == (1, 0)

    asyncio.run(main())


def test_a_serial_port_is_never_given_up_for_silent_meters() -> None:
    async def main() -> None:
        master, slave = os.openpty()
        tty.setraw(master)
        endpoint = Endpoint("serial", device=os.ttyname(slave), baud=9600, parity="N")
        line = Line(LineSettings("p", endpoint, reply_s=0.02, quiet_s=0.0, reopen_after=2))
        for _ in range(5):
            with pytest.raises(NoAnswer):
                await line.run(ask(b"abcd", 4))
        assert (line.stats.opened, line.stats.reopened) == (1, 0)
        await line.close()
        os.close(slave)
        os.close(master)

    asyncio.run(main())


def test_a_modem_s_dead_connection_is_closed_so_that_it_dials_in_again() -> None:
    async def main() -> None:
        settings = LineSettings(
            "m", Endpoint("listen", host="127.0.0.1", port=0), b"DTU1", reply_s=0.03, connect_s=2.0, reopen_after=2
        )
        line = Line(settings)
        listener = Listener("127.0.0.1", 0, [line])
        await listener.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"DTU1")
        for _ in range(2):
            with pytest.raises(NoAnswer):
                await line.run(ask(b"abcd", 4))
        while await asyncio.wait_for(reader.read(100), 2):
            pass  # closed by us: the modem notices
        writer.close()
        again = await dial(listener.port, b"DTU1")
        assert await line.run(ask(b"abcd", 4)) == b"dcba"
        assert line.stats.reopened == 1
        again.close()
        await listener.close()
        await line.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_the_end_of_an_old_connection_does_not_disturb_the_new_one() -> None:
    """A modem dials in again while a question to it is open: that one is lost, the next goes over the new link."""

    async def main() -> None:
        line = Line(listen_settings("m", b"DTU1"))
        listener = Listener("127.0.0.1", 0, [line])
        await listener.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"DTU1")
        asking = asyncio.create_task(line.run(ask(b"abcd", 4)))
        assert await reader.read(4) == b"abcd"
        again = await dial(listener.port, b"DTU1")
        with pytest.raises(LineDown, match="the modem dialled in again"):
            await asking
        assert await line.run(ask(b"abcd", 4)) == b"dcba"  # while the old connection is still being closed
        assert await line.run(ask(b"efgh", 4)) == b"hgfe"
        writer.close()
        again.close()
        await listener.close()
        await line.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_closing_a_line_closes_a_modem_s_connection_that_was_never_used() -> None:
    async def main() -> None:
        line = Line(listen_settings("m", b"DTU1"))
        up = asyncio.Event()
        line.on_up = up.set
        listener = Listener("127.0.0.1", 0, [line])
        await listener.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"DTU1")
        await asyncio.wait_for(up.wait(), 2)
        await line.close()
        assert await asyncio.wait_for(reader.read(1), 2) == b""
        writer.close()
        await listener.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_line_that_can_not_be_opened_is_not_hammered() -> None:
    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_each(reader, writer)
        writer.close()

    async def main() -> None:
        probe = await asyncio.start_server(answer_each, "127.0.0.1", 0)
        port = probe.sockets[0].getsockname()[1]
        probe.close()
        await probe.wait_closed()
        line = Line(LineSettings("t", Endpoint("tcp", host="127.0.0.1", port=port), reply_s=0.3))
        with pytest.raises(LineDown, match=r"Connection refused|Connect call failed"):
            await line.run(ask(b"abcd", 4))
        assert line.state == "down"
        server = await asyncio.start_server(answer_and_close, "127.0.0.1", port)
        for _ in range(3):  # the server is there again, but it is too soon to look
            with pytest.raises(LineDown, match=r"; next try in 0\.\d s -> is the serial server up"):
                await line.run(ask(b"abcd", 4))
        await asyncio.sleep(1.0)  # as long as a worker rests at least
        assert await line.run(ask(b"abcd", 4)) == b"dcba"
        assert (line.state, line.stats.last_error) == ("open", "")
        await line.close()
        server.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_server_that_closes_every_connection_at_once_is_not_hammered() -> None:
    connections = 0

    async def turn_away(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1

    async def main() -> None:
        async with tcp_line(turn_away) as line:
            for _ in range(10):
                with pytest.raises(LineDown):
                    await line.run(ask(b"abcd", 4))
                await asyncio.sleep(0.01)
            assert connections == 1

    asyncio.run(main())


def test_a_conversation_that_will_not_hear_of_the_end_is_ended() -> None:
    def stubborn() -> Conversation[None]:
        while True:
            try:
                yield Send(b"abcd")
            except LineDown:
                continue

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        writer.close()

    async def main() -> None:
        async with tcp_line(cut) as line:
            with pytest.raises(LineDown):
                await asyncio.wait_for(line.run(stubborn()), 2)

    asyncio.run(main())

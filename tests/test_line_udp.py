"""Lines over UDP, with a real socket at the other end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from config.site import load_site
from headend.conversation import MORE, Conversation, Send
from headend.endpoints import Endpoint, LineSettings, parse_endpoint
from headend.errors import ConfigError, LineDown, NoAnswer, UsageError
from headend.line import Line
from headend.line.links import UdpLink
from headend.model import FrameRecord
from tests.test_line import ask

Answer = Callable[[bytes], list[bytes]]

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
Loop = Callable[[], asyncio.AbstractEventLoop]


class Meter(asyncio.DatagramProtocol):
    """Answers each datagram with the datagrams `answer` gives."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.got: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)  # uvloop's is one in all but name

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.got.append(data)
        for datagram in self.answer(data):
            self.transport.sendto(datagram, addr)


@asynccontextmanager
async def udp_line(answer: Answer, host: str = "127.0.0.1", **settings: Any) -> AsyncIterator[tuple[Line, Meter]]:
    transport, meter = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Meter(answer), local_addr=(host, 0)
    )
    port = transport.get_extra_info("sockname")[1]
    line = Line(LineSettings("u", Endpoint("udp", host=host, port=port), **{"reply_s": 0.3, "gap_s": 0.1, **settings}))
    try:
        yield line, meter
    finally:
        await line.close()
        transport.close()
        await asyncio.sleep(0.01)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@LOOPS
def test_a_question_is_one_datagram_and_so_is_its_answer(loop: Loop) -> None:
    async def main() -> None:
        async with udp_line(lambda data: [data[::-1]]) as (line, meter):
            frames: list[FrameRecord] = []
            assert await line.run(ask(b"abcd", 4), frames) == b"dcba"
            question = bytes(range(256)) * 100
            assert await line.run(ask(question, len(question))) == question[::-1]
            assert meter.got == [b"abcd", question]
            assert [(frame.direction, frame.data) for frame in frames] == [(">", b"abcd"), ("<", b"dcba")]
            assert (line.stats.opened, line.state) == (1, "open")

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_each_datagram_is_a_chunk_of_its_own() -> None:
    def chunks(count: int) -> Conversation[list[bytes]]:
        came = [(yield Send(b"all"))]
        while len(came) < count:
            came.append((yield MORE))
        return came

    async def main() -> None:
        async with udp_line(lambda _: [b"one", b"", b"two", b"three"]) as (line, _meter):
            assert await line.run(chunks(3)) == [b"one", b"two", b"three"]

    asyncio.run(main())


def test_a_lost_datagram_is_a_timeout_and_the_next_question_goes_on_the_same_socket() -> None:
    asked = 0

    def every_other(data: bytes) -> list[bytes]:
        nonlocal asked
        asked += 1
        return [data[::-1]] if asked % 2 == 0 else []

    async def main() -> None:
        async with udp_line(every_other, reply_s=0.05, quiet_s=0.0) as (line, _meter):
            with pytest.raises(NoAnswer):
                await line.run(ask(b"abcd", 4))
            assert await line.run(ask(b"abcd", 4)) == b"dcba"
            assert line.stats.opened == 1

    asyncio.run(main())


def test_datagrams_of_others_are_not_heard() -> None:
    async def main() -> None:
        async with udp_line(lambda _: [], reply_s=0.2) as (line, _meter):
            asked = asyncio.Event()
            line.tap(lambda _meter, _frame: asked.set())
            reading = asyncio.create_task(line.run(ask(b"abcd", 4)))
            await asked.wait()
            assert isinstance(line._link, UdpLink)
            assert line._link._transport is not None
            address = line._link._transport.get_extra_info("sockname")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(b"evil", address)
            with pytest.raises(NoAnswer):
                await reading
            assert line.stats.received_bytes == 0

    asyncio.run(main())


@LOOPS
def test_a_port_nobody_listens_on_is_a_line_that_is_down(loop: Loop) -> None:
    async def main() -> None:
        line = Line(LineSettings("u", Endpoint("udp", host="127.0.0.1", port=free_port()), reply_s=1.0))
        with pytest.raises(LineDown, match="line u lost: nothing listens there"):
            await line.run(ask(b"abcd", 4))
        assert line.state == "down"
        await line.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_a_meter_that_comes_back_is_read_over_a_new_socket() -> None:
    async def main() -> None:
        port = free_port()
        line = Line(LineSettings("u", Endpoint("udp", host="127.0.0.1", port=port), reply_s=1.0))
        with pytest.raises(LineDown):
            await line.run(ask(b"abcd", 4))
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Meter(lambda data: [data[::-1]]), local_addr=("127.0.0.1", port)
        )
        with pytest.raises(LineDown, match="next try in"):
            await line.run(ask(b"abcd", 4))
        line._try_at = 0.0
        assert await line.run(ask(b"abcd", 4)) == b"dcba"
        assert line.stats.opened == 2
        await line.close()
        transport.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_socket_on_which_nothing_comes_is_opened_anew() -> None:
    async def main() -> None:
        async with udp_line(lambda _: [], reply_s=0.02, quiet_s=0.0, reopen_after=2) as (line, _meter):
            for _ in range(3):
                with pytest.raises(NoAnswer):
                    await line.run(ask(b"abcd", 4))
            assert (line.stats.opened, line.stats.reopened) == (2, 1)

    asyncio.run(main())


def test_more_than_a_datagram_holds_is_refused_in_words() -> None:
    async def main() -> None:
        async with udp_line(lambda data: [data]) as (line, meter):
            with pytest.raises(LineDown, match="65508 bytes do not go into one datagram -> lower max_pdu"):
                await line.run(ask(bytes(65_508), 1))
            assert meter.got == []
            assert await line.run(ask(b"abcd", 4)) == b"abcd"

    asyncio.run(main())


def test_a_host_that_does_not_exist_is_line_down() -> None:
    async def main() -> None:
        line = Line(LineSettings("u", Endpoint("udp", host="no-such-host.invalid", port=4059), connect_s=3.0))
        with pytest.raises(LineDown, match=r"can't send to no-such-host.invalid:4059|was not found within"):
            await line.run(ask(b"abcd", 4))
        await line.close()

    asyncio.run(main())


def test_closing_while_a_question_is_open_ends_it() -> None:
    async def main() -> None:
        async with udp_line(lambda _: [], reply_s=5.0) as (line, _meter):
            asked = asyncio.Event()
            line.tap(lambda _meter, _frame: asked.set())
            reading = asyncio.create_task(line.run(ask(b"abcd", 4)))
            await asked.wait()
            await line.close()
            with pytest.raises(LineDown, match="the line was closed"):
                await reading

    asyncio.run(main())


# -- as it is written --------------------------------------------------------------------------------------------------


def test_endpoints_are_written_like_tcp_s() -> None:
    assert parse_endpoint("udp://Meter.Example:4059") == Endpoint("udp", host="meter.example", port=4059)
    assert parse_endpoint("udp://[2001:DB8::1]:4059") == Endpoint("udp", host="2001:db8::1", port=4059)
    assert str(parse_endpoint("udp://[2001:db8::1]:4059")) == "udp://[2001:db8::1]:4059"
    with pytest.raises(UsageError, match=r"names no host -> write udp://host:port"):
        parse_endpoint("udp://:4059")
    with pytest.raises(UsageError, match="names no port"):
        parse_endpoint("udp://host")
    with pytest.raises(UsageError, match="no serial port"):
        parse_endpoint("udp://host:1", "2400 8E1")


def test_a_site_may_have_datagram_lines(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text('[site]\nname = "T"\n[[line]]\nname = "a"\nendpoint = "udp://192.0.2.7:4059"\nwire_baud = 9600\n')
    (line,) = load_site(path).lines
    assert (line.endpoint, line.wire_baud) == (Endpoint("udp", host="192.0.2.7", port=4059), 9600)


def test_what_does_not_go_with_datagrams_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(
        '[site]\nname = "T"\n'
        '[[line]]\nname = "a"\nendpoint = "udp://192.0.2.7:4059"\nserial = "2400 8E1"\nregistration = "X"\n'
        '[[line]]\nname = "b"\nendpoint = "udp://192.0.2.7:4059"\n'
        '[[line]]\nname = "c"\nendpoint = "tcp://192.0.2.7:4059"\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_site(path)
    assert {(problem.where, problem.what) for problem in caught.value.problems} == {
        ("site.toml: line[1].serial", "a udp endpoint has no serial settings"),
        ("site.toml: line[1].registration", "nothing registers on a udp endpoint"),
        ("site.toml: line[2].endpoint", "line[1] has the endpoint udp://192.0.2.7:4059 already"),
    }

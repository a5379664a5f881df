"""The DLMS meter simulator on real ports: TCP, UDP, pushes; and each step that can fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from simulators.dlms_push import framed, push_apdus, push_tcp, push_udp
from simulators.dlms_serve import serve_dlms_tcp, serve_dlms_udp
from simulators.dlms_town import dlms_meter
from simulators.dlms_wire import take_wrapped
from tests.sim_dlms_kit import AARQ, Hdlc, Wrapper, get_request, meter_of, name, spec_with

LOAD = get_request(7, "1.0.99.2.0.255")
MESSAGE = f"c101c10001{name('0.0.96.13.0.255')}02000900"
SHIFT = f"c301c10008{name('0.0.1.0.0.255')}0601100001"


@pytest.mark.parametrize("how", ["silent", "close", "refuse", "exception", "garbage"])
@pytest.mark.parametrize(
    ("step", "asked", "refusal"),
    [
        ("aarq", AARQ.format(pdu=200), "6129a109060760857405080101a203020101a305a103020101"),
        ("get", LOAD, "c401c10102"),
        ("block", "c002c100000001", "c402c10100000001010f"),
        ("set", MESSAGE, "c501c102"),
        ("action", SHIFT, "c701c10200"),
        ("release", "6203800100", "6303800101"),
    ],
)
def test_a_step_fails_once_as_told(step: str, asked: str, refusal: str, how: str) -> None:
    meter = meter_of(spec_with(fail_at=step, fail_how=how, fail_times=1))
    wire = Wrapper(meter)
    if step != "aarq":
        wire.open(pdu=200)
    if step == "block":
        wire.ask(LOAD)
    answers = [apdu.hex() for apdu in wire.all(asked)]
    if how == "refuse" and step == "aarq":
        assert "a203020101a305a103020101" in answers[0]
    elif how == "refuse":
        assert answers == [refusal]
    elif how == "exception":
        assert [answer[:2] for answer in answers] == ["d8"]
    elif how == "garbage":
        assert [answer[:2] for answer in answers] == ["55"]
    else:
        assert answers == []
    assert wire.dropped == (how == "close")
    assert meter.failed[step] == 1
    if how in ("exception", "silent"):
        (again,) = wire.all(asked)
        assert again[:1].hex() == {"aarq": "61", "release": "63"}.get(step, f"{int(asked[:2], 16) + 4:02x}")


def test_a_failing_disc_closes_the_line() -> None:
    wire = Hdlc(meter_of(spec_with(fail_at="release", fail_how="close")))
    wire.one(0x93)
    assert wire.frames(0x53) == []
    assert wire.dropped == [True]


def test_tcp_and_udp_carry_the_wrapper() -> None:
    asked = bytes.fromhex(AARQ.format(pdu=0xFFFF))
    packet = b"\x00\x01\x00\x10\x00\x01" + len(asked).to_bytes(2, "big") + asked

    async def run() -> None:
        server = await serve_dlms_tcp(meter_of())
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(packet)
        head = await reader.readexactly(8)
        assert head[:6] == b"\x00\x01\x00\x01\x00\x10"
        assert (await reader.readexactly(head[7]))[0] == 0x61
        writer.close()
        await writer.wait_closed()
        await server.stop()

        datagrams = await serve_dlms_udp(meter_of())
        got: asyncio.Queue[bytes] = asyncio.Queue()
        transport, peer = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Collect(got), remote_addr=("127.0.0.1", datagrams.port)
        )
        transport.sendto(packet)
        assert (await asyncio.wait_for(got.get(), 5))[8] == 0x61
        transport.close()
        await peer.closed.wait()
        await datagrams.stop()

    asyncio.run(run())


class _Collect(asyncio.DatagramProtocol):
    def __init__(self, got: asyncio.Queue[bytes]) -> None:
        self._got = got
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._got.put_nowait(data)


def test_pushes_reach_a_listener() -> None:
    meter = meter_of()

    async def run() -> None:
        got: asyncio.Queue[bytes] = asyncio.Queue()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.put_nowait(await reader.read())
            writer.close()

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await push_tcp("127.0.0.1", port, framed(meter, push_apdus(meter, "objects", gbt=40)))
        buffer = bytearray(await asyncio.wait_for(got.get(), 5))
        numbers = []
        while (wrapped := take_wrapped(buffer)) is not None:
            assert (wrapped.source, wrapped.destination) == (1, 102)
            numbers.append((wrapped.apdu[1], wrapped.apdu[3]))
        assert len(numbers) > 2
        assert numbers[0] == (0x40, 1)
        assert numbers[-1] == (0xC0, len(numbers))
        server.close()
        await server.wait_closed()

        transport, peer = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Collect(got), local_addr=("127.0.0.1", 0)
        )
        target = transport.get_extra_info("sockname")[1]
        swapped = replace(meter.spec, quirks=replace(meter.spec.quirks, swap_wports=True))
        await push_udp("127.0.0.1", target, framed(dlms_meter(meter.now, swapped), push_apdus(meter, "pairs")))
        datagram = await asyncio.wait_for(got.get(), 5)
        assert datagram[:6] == b"\x00\x01\x00\x66\x00\x01"
        assert datagram[8] == 0x0F
        transport.close()
        await peer.closed.wait()

    asyncio.run(run())

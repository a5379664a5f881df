"""Lines of the simulated town on real sockets and terminals: timing, faults, dialling in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st

from simulators.bus import Bus, Wire
from simulators.clock import RunningClock, SettableClock
from simulators.dial import DialLine, packet
from simulators.dlt645_frame import Request, build, take, wire_address
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.faults import FaultRule, Faults
from simulators.household import Household, Load, Register
from simulators.pty_line import PtyLine
from simulators.tcp import TcpLine

NOW_S = 1_773_800_000.0
ONE, TWO = "240101000001", "240101000002"
TOTAL = bytes.fromhex("00000100")
TOTAL_AND_RATES = bytes.fromhex("00FF0100")
FE = 4


def meters(count: int = 2, preamble: int = 0) -> list[tuple[str, Dlt645Meter]]:
    clock = SettableClock(NOW_S)
    return [
        (
            f"m{n}",
            Dlt645Meter(MeterSpec(f"24010100{n:04d}", preamble=preamble), Register(Household(Load(seed=n))), clock),
        )
        for n in range(1, count + 1)
    ]


def make_bus(*rules: FaultRule, wire: Wire | None = None, preamble: int = 0, count: int = 2) -> Bus:
    return Bus(meters(count, preamble), SettableClock(NOW_S), wire=wire, faults=Faults(rules, seed=5))


def request(address: str = ONE, data: bytes = TOTAL, control: int = 0x11) -> bytes:
    return build(wire_address(address), control, data)


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def over_tcp(bus: Bus, talk: Talk) -> None:
    async def main() -> None:
        line = TcpLine(bus, "127.0.0.1", 0)
        await line.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        try:
            await asyncio.wait_for(talk(reader, writer), 20)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            await line.stop()

    asyncio.run(main())


async def read_frame(reader: asyncio.StreamReader) -> Request:
    buffer = bytearray()
    while (found := take(buffer)) is None:
        chunk = await reader.read(300)
        assert chunk, "closed"
        buffer += chunk
    return found


def truth_of(bus: Bus, place: int = 0) -> bytes:
    meter = bus.meters[place][1]
    assert isinstance(meter, Dlt645Meter)
    shown = meter.register.shown(int(NOW_S))
    return TOTAL + bytes.fromhex(f"{shown:08d}")[::-1]


# -- a bus -------------------------------------------------------------------------------------------------------


def test_many_clients_and_meters_on_one_port() -> None:
    bus = make_bus(count=18)

    async def main() -> None:
        line = TcpLine(bus, "127.0.0.1", 0)
        await line.start()

        async def client(n: int) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
            writer.write(request(f"24010100{n:04d}"))
            found = await read_frame(reader)
            writer.close()
            assert found.address == wire_address(f"24010100{n:04d}")
            return found.data

        data = await asyncio.gather(*(client(n) for n in range(1, 19)))
        assert data == [truth_of(bus, place) for place in range(18)]
        await line.stop()

    asyncio.run(main())
    assert bus.exchanges == bus.answers == 18


def test_one_client_too_many_is_turned_away() -> None:
    async def main() -> None:
        line = TcpLine(make_bus(), "127.0.0.1", 0, max_clients=1)
        await line.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
        writer.write(request())
        await read_frame(reader)
        late_reader, late_writer = await asyncio.open_connection("127.0.0.1", line.port)
        with contextlib.suppress(ConnectionError):
            assert await late_reader.read(10) == b""
        assert line.turned_away == 1
        for each in (writer, late_writer):
            each.close()
        await line.stop()

    asyncio.run(main())


def test_bad_checksum_and_foreign_address_are_silence_and_the_next_request_is_answered() -> None:
    bus = make_bus()
    bad = bytearray(request())
    bad[-2] ^= 0x10

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(bad) + request("999999999999") + request("123456789012") + b"\xfe\x68\x00" + request(TWO))
        found = await read_frame(reader)
        assert found.address == wire_address(TWO)
        assert found.data == truth_of(bus, 1)

    over_tcp(bus, talk)
    assert bus.answers == 1


def test_two_meters_that_answer_at_once_destroy_their_frames() -> None:
    answers: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(build(b"\xaa" * 6, 0x13))
        answers.append(await reader.read(300))

    over_tcp(make_bus(count=2), talk)
    assert take(bytearray(answers[0])) is None
    over_tcp(make_bus(count=1), talk)
    alone = take(bytearray(answers[1]))
    assert alone is not None
    assert alone.data == wire_address(ONE)


# Figures of the wire: (16 + answer) characters of 11 bits, and 20 ms. Ms at 9600 and 2400 baud, no FE and 4 FE.
@pytest.mark.parametrize(
    ("data", "preamble", "baud", "expected_ms"),
    [
        (TOTAL, 0, 9600, 61.2),
        (TOTAL, FE, 9600, 70.4),
        (TOTAL_AND_RATES, FE, 9600, 88.8),
        (TOTAL_AND_RATES, 0, 2400, 258.3),
        (TOTAL, FE, 2400, 221.7),
    ],
)
def test_a_slow_wire_takes_its_time(data: bytes, preamble: int, baud: int, expected_ms: float) -> None:
    bus = make_bus(wire=Wire(baud, 0.020), preamble=preamble)
    taken: list[float] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(4):
            started = time.perf_counter()
            writer.write(b"\xfe" * preamble + request(data=data))
            await read_frame(reader)
            taken.append((time.perf_counter() - started) * 1000)

    over_tcp(bus, talk)
    assert min(taken) == pytest.approx(expected_ms, rel=0.05)


def test_a_slow_wire_is_one_wire_for_two_clients() -> None:
    bus = make_bus(wire=Wire(9600, 0.020))

    async def main() -> float:
        line = TcpLine(bus, "127.0.0.1", 0)
        await line.start()
        pairs = [await asyncio.open_connection("127.0.0.1", line.port) for _ in range(2)]
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            for _, writer in pairs:
                writer.write(request())
            await asyncio.gather(*(read_frame(reader) for reader, _ in pairs))
            taken.append(time.perf_counter() - started)
        for _, writer in pairs:
            writer.close()
        await line.stop()
        return min(taken) * 1000

    assert asyncio.run(main()) == pytest.approx(2 * 61.25, rel=0.05)


# -- faults ------------------------------------------------------------------------------------------------------


def good() -> bytes:
    return build(wire_address(ONE), 0x91, truth_of(make_bus()), FE)


@given(seed=st.integers(0, 10_000))
def test_each_fault_does_what_it_says(seed: int) -> None:
    answer, asked, other = good(), request(), wire_address(TWO)

    def spoil(kind: str) -> bytes:
        faults = Faults([FaultRule(kind)], seed)
        return faults.spoil(faults.strike("m1", NOW_S), asked, answer, other).data

    assert spoil("silence") == spoil("dead") == spoil("drop") == b""
    assert spoil("echo") == asked + answer
    noisy = spoil("noise")
    assert noisy.endswith(answer)
    assert 1 <= len(noisy) - len(answer) <= 12
    flipped = spoil("flip")
    assert len(flipped) == len(answer)
    assert sum((a ^ b).bit_count() for a, b in zip(flipped, answer, strict=True)) == 1
    assert take(bytearray(flipped)) is None
    cut = spoil("cut")
    assert answer.startswith(cut)
    assert FE < len(cut) < len(answer)
    foreign = take(bytearray(spoil("foreign")))
    assert foreign is not None
    assert foreign.address == other
    assert foreign.data == truth_of(make_bus())
    late = Faults([FaultRule("late", delay_s=1.5)], seed)
    spoiled = late.spoil(late.strike("m1", NOW_S), asked, answer, other)
    assert (spoiled.data, spoiled.delay_s) == (answer, 1.5)


def test_chance_is_seeded_and_has_its_rate() -> None:
    rule = FaultRule("silence", probability=0.2)
    runs = [
        [bool(faults.strike("m1", NOW_S)) for _ in range(5000)] for faults in (Faults([rule], 1), Faults([rule], 1))
    ]
    assert runs[0] == runs[1]
    assert 850 < sum(runs[0]) < 1150
    other = Faults([rule], 2)
    assert [bool(other.strike("m1", NOW_S)) for _ in range(5000)] != runs[0]


def test_rules_have_a_meter_a_script_and_a_time() -> None:
    faults = Faults(
        [
            FaultRule(meter="m1", script=("ok", "silence", "echo")),
            FaultRule("dead", meter="m2", from_s=100, until_s=200),
        ]
    )
    assert [[rule.kind for rule in faults.strike("m1", 0)] for _ in range(4)] == [[], ["silence"], ["echo"], []]
    assert [bool(faults.strike("m2", at_s)) for at_s in (99, 100, 199, 200)] == [False, True, True, False]


def test_a_scripted_line() -> None:
    bus = make_bus(FaultRule(script=("silence", "late", "foreign", "ok", "drop"), delay_s=0.15))

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(request())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        started = time.perf_counter()
        writer.write(request())
        assert (await read_frame(reader)).data == truth_of(bus)
        assert time.perf_counter() - started >= 0.15
        writer.write(request())
        assert (await read_frame(reader)).address == wire_address(TWO)
        writer.write(request())
        assert (await read_frame(reader)).address == wire_address(ONE)
        writer.write(request())
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""

    over_tcp(bus, talk)


# -- terminals and modems ----------------------------------------------------------------------------------------


def test_a_pty_is_a_serial_port(tmp_path: Path) -> None:
    bus = make_bus(wire=Wire(9600, 0.020), preamble=FE)
    link = tmp_path / "ports" / "rs485"
    answers: list[bytes] = []
    taken: list[float] = []

    def client(done: Callable[[], None]) -> None:
        try:
            with serial.Serial(str(link), 9600, parity=serial.PARITY_NONE, timeout=2) as port:
                for _ in range(3):
                    started = time.perf_counter()
                    port.write(b"\xfe" * FE + request())
                    answers.append(port.read(FE + 20))
                    taken.append((time.perf_counter() - started) * 1000)
        finally:
            done()

    async def main() -> None:
        line = PtyLine(bus, link)
        await line.start()
        assert os.readlink(link) == line.path
        assert line.endpoint() == f"serial:{link}"
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=client, args=(lambda: loop.call_soon_threadsafe(over.set),))
        thread.start()
        await over.wait()
        thread.join()
        await line.stop()

    asyncio.run(main())
    assert answers == [build(wire_address(ONE), 0x91, truth_of(bus), FE)] * 3
    assert min(taken) == pytest.approx(70.4, rel=0.05)
    assert not link.is_symlink()


def test_a_pty_link_replaces_a_stale_link_but_no_file(tmp_path: Path) -> None:
    link = tmp_path / "port"
    link.symlink_to("/nonexistent/pts")

    async def main() -> None:
        line = PtyLine(make_bus(), link)
        await line.start()
        assert os.readlink(link) == line.path
        await line.stop()
        link.write_text("a file of someone")
        other = PtyLine(make_bus(), link)
        with pytest.raises(OSError, match="exists"):
            await other.start()
        await other.stop()

    asyncio.run(main())
    assert link.read_text() == "a file of someone"


def test_a_modem_dials_registers_beats_serves_and_dials_again() -> None:
    bus = make_bus()
    seen: list[bytes] = []

    async def main() -> None:
        over = asyncio.Event()

        async def head_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readexactly(5))
            writer.write(request(TWO))
            assert (await read_frame(reader)).data == truth_of(bus, 1)
            seen.append(await reader.readexactly(2))
            writer.close()
            if len(seen) == 4:
                over.set()

        server = await asyncio.start_server(head_end, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        line = DialLine(
            bus,
            "127.0.0.1",
            port,
            registration=packet("mdm-7"),
            heartbeat=packet("hex: 68 16"),
            heartbeat_s=0.05,
            reconnect_s=0.02,
        )
        await line.start()
        await asyncio.wait_for(over.wait(), 10)
        assert line.connections >= 2
        await line.stop()
        server.close()
        await server.wait_closed()

    asyncio.run(main())
    assert seen == [b"mdm-7", b"\x68\x16"] * 2


def test_a_modem_waits_for_a_head_end_that_is_not_there_yet() -> None:
    async def main() -> None:
        probe = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = probe.sockets[0].getsockname()[1]
        probe.close()
        await probe.wait_closed()
        line = DialLine(make_bus(), "127.0.0.1", port, registration=b"hello", reconnect_s=0.02)
        await line.start()
        got = asyncio.get_running_loop().create_future()

        async def head_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.readexactly(5)
            if not got.done():
                got.set_result(data)
            writer.close()

        await asyncio.sleep(0)
        server = await asyncio.start_server(head_end, "127.0.0.1", port)
        assert await asyncio.wait_for(got, 10) == b"hello"
        await line.stop()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def test_a_running_clock_runs_at_its_speed() -> None:
    clock = RunningClock(1000.0, speed=1000.0)
    started = time.monotonic()
    while time.monotonic() - started < 0.02:
        pass
    assert 1000 + 20 <= clock() < 1000 + 2000

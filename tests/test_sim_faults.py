"""The faults of a simulated line: each does what docs/simulate.md says, on frames and on real connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Awaitable, Callable
from itertools import product
from pathlib import Path

import pytest
import serial
from hypothesis import given
from hypothesis import strategies as st

from simulators.bus import Bus, Wire
from simulators.clock import SettableClock
from simulators.dial import DialLine
from simulators.dlt645_1997 import Dlt645Meter1997
from simulators.dlt645_frame import build, take, wire_address
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.faults import FAULTS, FaultRule, Faults, Spoiled
from simulators.household import Household, Load, Register
from simulators.pty_line import PtyLine
from simulators.tcp import TcpLine

NOW_S = 1_773_800_000.0
ONE, TWO = "240101000001", "240101000002"
FE = 4
TOTAL = bytes.fromhex("00000100")
ANSWER = build(wire_address(ONE), 0x91, TOTAL + bytes.fromhex("78563412"), FE)
ASKED = build(wire_address(ONE), 0x11, TOTAL)


def spoil(kind: str, seed: int, answer: bytes = ANSWER, **settings: float) -> Spoiled:
    faults = Faults([FaultRule(kind, **settings)], seed)  # type: ignore[arg-type]
    return faults.spoil(faults.strike("m1", NOW_S), ASKED, answer, wire_address(TWO))


@given(seed=st.integers(0, 10_000))
def test_two_bits_turned(seed: int) -> None:
    bad = spoil("flip2", seed).data
    assert len(bad) == len(ANSWER)
    assert sum((a ^ b).bit_count() for a, b in zip(bad, ANSWER, strict=True)) == 2
    assert bad[:FE] == ANSWER[:FE]


@given(seed=st.integers(0, 10_000))
def test_a_burst_replaces_a_run_of_characters(seed: int) -> None:
    bad = spoil("burst", seed).data
    assert len(bad) == len(ANSWER)
    changed = [k for k, (a, b) in enumerate(zip(bad, ANSWER, strict=True)) if a != b]
    assert 2 <= len(changed) <= 10
    assert changed == list(range(changed[0], changed[-1] + 1))
    assert changed[0] >= FE


@given(seed=st.integers(0, 10_000))
def test_a_character_lost_or_inserted(seed: int) -> None:
    less = spoil("lost", seed).data
    assert any(ANSWER[:k] + ANSWER[k + 1 :] == less for k in range(FE, len(ANSWER)))
    more = spoil("inserted", seed).data
    assert any(more[:k] + more[k + 1 :] == ANSWER for k in range(FE + 1, len(more)))
    assert len(more) == len(ANSWER) + 1


@given(seed=st.integers(0, 10_000))
def test_a_duplicate_address_overlaps(seed: int) -> None:
    both = spoil("duplicate", seed).data
    assert len(ANSWER) <= len(both) <= len(ANSWER) + 3
    assert all(a & b == a for a, b in zip(both, ANSWER, strict=False))  # only ones were lost


def test_a_duplicate_address_nearly_always_destroys_the_frame() -> None:
    whole = [take(bytearray(spoil("duplicate", seed).data)) for seed in range(500)]
    assert sum(frame is None for frame in whole) > 450


@given(seed=st.integers(0, 10_000))
def test_a_hang_up_cuts_the_frame_and_closes(seed: int) -> None:
    spoiled = spoil("hangup", seed)
    assert ANSWER.startswith(spoiled.data)
    assert FE < len(spoiled.data) < len(ANSWER)
    assert spoiled.drop
    assert not spoiled.half_open


def test_a_stale_answer_comes_before_the_real_one() -> None:
    faults = Faults([FaultRule(script=("ok", "stale", "stale", "ok"))])
    other = wire_address(TWO)
    answers = [build(wire_address(ONE), 0x91, TOTAL + bytes((k,) * 4)) for k in range(4)]
    got = [faults.spoil(faults.strike("m1", NOW_S), ASKED, answer, other).data for answer in answers]
    assert got == [answers[0], answers[0] + answers[1], answers[1] + answers[2], answers[3]]
    assert Faults([FaultRule("stale")]).spoil([FaultRule("stale")], ASKED, ANSWER, other).data == ANSWER


def test_babble_and_half_open_are_told() -> None:
    assert spoil("babble", 1, delay_s=0.7) == Spoiled(ANSWER, babble_s=0.7)
    assert spoil("halfopen", 1) == Spoiled(b"", half_open=True)
    assert spoil("drop", 1) == Spoiled(b"", drop=True)


@given(seed=st.integers(0, 10_000), data=st.sampled_from([ANSWER, build(wire_address(ONE), 0x94), ANSWER[:5], b""]))
def test_any_two_faults_together_break_nothing(seed: int, data: bytes) -> None:
    for one, two in product(FAULTS, FAULTS):
        faults = Faults([FaultRule(one), FaultRule(two)], seed)
        spoiled = faults.spoil(faults.strike("m1", NOW_S), ASKED, data, wire_address(TWO))
        if not data and "echo" not in (one, two):
            assert spoiled.data == b""


def test_every_fault_is_documented() -> None:
    text = (Path(__file__).parent.parent / "docs" / "simulate.md").read_text("utf-8")
    table = text[text.index("| kind | what happens |") :]
    told = re.findall(
        r"`([a-z0-9]+)`", "".join(re.findall(r"^\| (.*?) \|", table[: table.index("\n\n")], re.MULTILINE))
    )
    assert sorted(told) == sorted(FAULTS)


# -- on connections ----------------------------------------------------------------------------------------------

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def bus_of(*rules: FaultRule, wire: Wire | None = None, **settings: object) -> Bus:
    clock = SettableClock(NOW_S)
    meters = [
        (f"m{n}", Dlt645Meter(MeterSpec(address, preamble=0, **settings), Register(Household(Load(seed=n))), clock))  # type: ignore[arg-type]
        for n, address in enumerate((ONE, TWO), start=1)
    ]
    return Bus(meters, clock, wire=wire, faults=Faults(rules, seed=5))


def over_tcp(bus: Bus, *talks: Talk) -> None:
    """One connection after the other."""

    async def main() -> None:
        line = TcpLine(bus, "127.0.0.1", 0)
        await line.start()
        try:
            for talk in talks:
                reader, writer = await asyncio.open_connection("127.0.0.1", line.port)
                await asyncio.wait_for(talk(reader, writer), 20)
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
        finally:
            await line.stop()

    asyncio.run(main())


async def answer_of(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str = ONE) -> bytes:
    """The address that answered a read; whatever comes with it is thrown away."""
    writer.write(build(wire_address(address), 0x11, TOTAL))
    buffer = bytearray()
    while (found := take(buffer)) is None:
        buffer += await asyncio.wait_for(reader.read(300), 5)
    return found.address


def test_a_half_open_connection_stays_open_and_is_silent_until_the_next() -> None:
    bus = bus_of(FaultRule(script=("halfopen",)))

    async def first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            writer.write(ASKED)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.05)
        assert not reader.at_eof()

    async def then(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await answer_of(reader, writer) == wire_address(ONE)

    over_tcp(bus, first, then)
    assert bus.exchanges == 2  # what went into the dead connection reached nobody


def test_a_hang_up_reaches_the_client_as_part_of_a_frame_and_an_end() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ASKED)
        got = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(300):
                got += chunk
        assert len(got) < 20
        assert take(bytearray(got)) is None

    over_tcp(bus_of(FaultRule("hangup")), talk)


def test_babble_fills_the_line_before_the_answer() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        writer.write(ASKED)
        buffer = bytearray()
        while (found := take(bytearray(buffer[-20:]))) is None:
            buffer += await asyncio.wait_for(reader.read(300), 5)
        assert loop.time() - started >= 0.3
        assert len(buffer) >= 16 * 7 + 20
        assert found.address == wire_address(ONE)

    over_tcp(bus_of(FaultRule("babble", delay_s=0.3)), talk)


def test_a_half_open_modem_sends_no_heartbeats() -> None:
    bus = bus_of(FaultRule(script=("halfopen",)))

    async def main() -> None:
        registered = asyncio.Event()
        again = asyncio.Event()

        async def head_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert await reader.readexactly(5) == b"mdm-7"
            if registered.is_set():
                again.set()
            else:
                registered.set()
                assert await reader.readexactly(2) == b"hb"
                writer.write(ASKED)
                with contextlib.suppress(TimeoutError):
                    while True:
                        await asyncio.wait_for(reader.read(10), 0.1)
            writer.close()

        server = await asyncio.start_server(head_end, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        line = DialLine(
            bus, "127.0.0.1", port, registration=b"mdm-7", heartbeat=b"hb", heartbeat_s=0.02, reconnect_s=0.02
        )
        await line.start()
        await asyncio.wait_for(again.wait(), 10)  # the head-end hung up, and it dials again
        await line.stop()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def test_on_a_terminal_a_half_open_line_is_one_silence_and_its_speed_is_minded(tmp_path: Path) -> None:
    bus = bus_of(FaultRule(script=("halfopen",)), wire=Wire(9600, 0.0), baud=9600)

    async def ask(port: serial.Serial) -> bytes:
        port.write(ASKED)
        got = b""
        for _ in range(60):
            await asyncio.sleep(0.005)
            got += port.read(64)
            if len(got) == 20:
                break
        return got

    async def main() -> None:
        line = PtyLine(bus, tmp_path / "port")
        await line.start()
        with serial.Serial(str(tmp_path / "port"), 9600, timeout=0) as port:
            assert await ask(port) == b""
            assert len(await ask(port)) == 20
        with serial.Serial(str(tmp_path / "port"), 4800, timeout=0) as port:
            assert await ask(port) == b""
        with serial.Serial(str(tmp_path / "port"), 9600, timeout=0) as port:
            assert len(await ask(port)) == 20
        await line.stop()

    asyncio.run(main())
    assert not os.path.lexists(tmp_path / "port")


def test_a_bus_of_both_versions() -> None:
    clock = SettableClock(NOW_S)
    register = Register(Household(Load(seed=1)), 4_200)
    old = Dlt645Meter1997(MeterSpec(TWO, form="1997", preamble=0), register, clock)
    new = Dlt645Meter(MeterSpec(ONE, preamble=0), register, clock)
    bus = Bus([("new", new), ("old", old)], clock)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for address, control, data in ((ONE, 0x11, TOTAL), (TWO, 0x01, b"\x10\x90")):
            writer.write(build(wire_address(address), control, data))
            buffer = bytearray(await asyncio.wait_for(reader.read(300), 5))
            found = take(buffer)
            assert found is not None
            assert (found.address, found.control) == (wire_address(address), control | 0x80)
            assert found.data == data + bytes.fromhex(f"{register.shown(int(NOW_S)):08d}")[::-1]

    over_tcp(bus, talk)

"""Modbus TCP reads of 60 registers per second, over many lines: ours, a bare socket, and pymodbus's own async client.

    python benchmarks/modbus.py [--seconds 3] [--rounds 3] [--lines 1 10 50]

All ask one slave in a process of its own (`modbus_slave.c`, compiled with `cc`; a slower one in Python where there is
no compiler), each in a process of its own on uvloop, in turns; the median of the rounds is printed. The work:

    bare      the same bytes out, as many bytes back as the answer has, nothing looked at
    ours      a `Line.run` with the driver's read of one block: transaction, unit, function and length checked, timed
              out, recorded, in the line's books
    ours10    ten such reads in one conversation, as a job of many registers has them
    pymodbus  `AsyncModbusTcpClient.read_holding_registers`, which makes a list of 60 numbers, on uvloop as ours
    asyncio   the same on asyncio's own loop, as it comes
    job       a `Line.run` with the driver's whole read job of 30 float32 quantities: exact Decimals, units, Readings
    floats    pymodbus's read and its `convert_from_registers` to 30 floats

Printed are requests a second, CPU of the asking process for each, and ratios. Two processes that never sleep need two
cores free.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvloop

COUNT = 60
TEN = 10
ANSWER_SIZE = 9 + 2 * COUNT
REQUEST = bytes.fromhex("0001000000060103000000") + bytes((COUNT,))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
_WORDS = b"".join(struct.pack(">f", 230.1 + at / 10) for at in range(63))
_SOURCE = Path(__file__).with_name("modbus_slave.c")

Ask = Callable[[], Awaitable[None]]


# -- the slave ---------------------------------------------------------------------------------------------------


class _Slave(asyncio.Protocol):
    """Answers every 12 bytes; where there is no C compiler."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data
        out = b""
        while len(data) >= 12:
            count = data[11]
            out += data[:4] + bytes((0, 3 + 2 * count)) + data[6:8] + bytes((2 * count,)) + _WORDS[: 2 * count]
            data = data[12:]
        self.buffer = data
        self.transport.write(out)  # type: ignore[attr-defined]


def _python_slave(ports: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Slave, "127.0.0.1", 0, backlog=4096)
        ports.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


@contextmanager
def slave() -> Iterator[int]:
    """The port of a running slave."""
    if (compiler := shutil.which("cc")) is None:
        print("no C compiler: the slave is Python, and limits what is measured")
        mine, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_python_slave, args=(theirs,), daemon=True)
        process.start()
        yield mine.recv()
        process.kill()
        return
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "slave"
        subprocess.run([compiler, "-O2", "-o", program, _SOURCE], check=True)
        with subprocess.Popen([program], stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            yield int(running.stdout.readline())
            running.kill()


# -- who asks ----------------------------------------------------------------------------------------------------


class _Bare(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.missing = 0

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing <= 0:
            self.answered()

    def answered(self) -> None:
        """Told by `bare_rate` what to do."""


async def bare_rate(port: int, lines: int, seconds: float) -> tuple[float, float]:
    """Requests a second and CPU microseconds for each; callbacks only, no tasks."""
    loop = asyncio.get_running_loop()
    protocols = [(await loop.create_connection(_Bare, "127.0.0.1", port))[1] for _ in range(lines)]
    over = [loop.create_future() for _ in protocols]
    count = 0
    end = 0.0

    def begin(number: int) -> None:
        protocol = protocols[number]

        def again() -> None:
            nonlocal count
            count += 1
            if loop.time() > end:
                over[number].set_result(None)
                return
            protocol.missing = ANSWER_SIZE
            protocol.transport.write(REQUEST)  # type: ignore[attr-defined]

        protocol.answered = again  # type: ignore[method-assign]
        protocol.missing = ANSWER_SIZE
        protocol.transport.write(REQUEST)  # type: ignore[attr-defined]

    cpu, started = time.process_time(), loop.time()
    end = started + seconds
    for number in range(lines):
        begin(number)
    await asyncio.gather(*over)
    return count / (loop.time() - started), (time.process_time() - cpu) / count * 1e6


async def our_asks(port: int, lines: int, who: str) -> list[Ask]:
    """One for each line."""
    from headend.app import calm_collector
    from headend.conversation import Conversation
    from headend.endpoints import Endpoint, LineSettings
    from headend.line import Line
    from headend.model import Meter, MeterModel, ReadJob, ReadKind
    from headend.protocols.modbus.exchange import Talk, read_block
    from headend.protocols.modbus.model import Register, RegisterMap
    from headend.protocols.modbus.read import read
    from headend.quantities import QUANTITIES

    calm_collector()  # as the daemon does
    names = [name for name, one in QUANTITIES.items() if one.unit in ("kWh", "kvarh")][: COUNT // 2]
    rows = tuple(Register(name, 2 * at, 3, "f32", 2, quantity=name) for at, name in enumerate(names))
    model = MeterModel("m", "modbus-tcp", Decimal(10**9), Decimal(100), details=RegisterMap(rows))
    meter = Meter(1, "M", "1", "modbus-tcp", "L", model)
    job = ReadJob(meter, ReadKind.REGISTERS, tuple(names))
    endpoint = Endpoint("tcp", host="127.0.0.1", port=port)

    def blocks(talk: Talk) -> Conversation[None]:
        for _ in range(TEN):
            data = yield from read_block(talk, 3, 0, COUNT)
            assert len(data) == 2 * COUNT

    def ask_of(line: Line) -> Ask:
        talk = Talk(1, tcp=True)

        async def block() -> None:
            data = await line.run(read_block(talk, 3, 0, COUNT))
            assert len(data) == 2 * COUNT

        async def ten() -> None:
            await line.run(blocks(talk))

        async def job_() -> None:
            harvest = await line.run(read(meter, job, now=NOW))
            assert len(harvest.readings) == COUNT // 2

        return {"ours": block, "ours10": ten, "job": job_}[who]

    asks = [ask_of(Line(LineSettings(f"L{n}", endpoint, reply_s=20.0))) for n in range(lines)]
    for ask in asks:  # the port opens with the first conversation
        await ask()
    return asks


async def pymodbus_asks(port: int, lines: int, *, floats: bool) -> list[Ask]:
    """One for each connection."""
    from pymodbus.client import AsyncModbusTcpClient

    def ask_of(client: AsyncModbusTcpClient) -> Ask:
        async def read() -> None:
            answer = await client.read_holding_registers(0, count=COUNT, device_id=1)
            assert len(answer.registers) == COUNT

        async def convert() -> None:
            answer = await client.read_holding_registers(0, count=COUNT, device_id=1)
            found = client.convert_from_registers(answer.registers, client.DATATYPE.FLOAT32)
            assert isinstance(found, list)
            assert len(found) == COUNT // 2

        return convert if floats else read

    clients = [AsyncModbusTcpClient("127.0.0.1", port=port, timeout=20) for _ in range(lines)]
    for client in clients:
        assert await client.connect()
    return [ask_of(client) for client in clients]


async def rate(asks: list[Ask], seconds: float) -> tuple[float, float]:
    """Requests a second and CPU microseconds for each."""
    loop = asyncio.get_running_loop()

    async def work(ask: Ask) -> int:
        count = 0
        while loop.time() < end:
            await ask()
            count += 1
        return count

    cpu, started = time.process_time(), loop.time()
    end = started + seconds
    total = sum(await asyncio.gather(*(work(ask) for ask in asks)))
    return total / (loop.time() - started), (time.process_time() - cpu) / total * 1e6


async def measured(who: str, port: int, lines: int, seconds: float) -> tuple[float, float]:
    if who == "bare":
        return await bare_rate(port, lines, seconds)
    if who in ("ours", "ours10", "job"):
        found = await rate(await our_asks(port, lines, who), seconds)
        return (found[0] * TEN, found[1] / TEN) if who == "ours10" else found
    return await rate(await pymodbus_asks(port, lines, floats=who == "floats"), seconds)


# -- the run -----------------------------------------------------------------------------------------------------

WHO = ("bare", "ours", "ours10", "pymodbus", "asyncio", "job", "floats")
RATIOS = (("ours", "bare"), ("ours", "pymodbus"), ("ours10", "pymodbus"), ("ours10", "asyncio"), ("job", "floats"))


def in_a_process(who: str, port: int, lines: int, seconds: float) -> tuple[float, float]:
    command = [sys.executable, __file__, "--ask", json.dumps([who, port, lines, seconds])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found[0], found[1]


def table(port: int, lines: int, seconds: float, rounds: int) -> None:
    """The medians of all, in turns."""
    found = [{who: in_a_process(who, port, lines, seconds) for who in WHO} for _ in range(rounds)]
    rates = {who: statistics.median(one[who][0] for one in found) for who in WHO}
    costs = {who: statistics.median(one[who][1] for one in found) for who in WHO}
    print(f"{lines} line(s)")
    for who in WHO:
        print(f"  {who:10} {rates[who]:>8.0f}/s {costs[who]:>7.1f} µs CPU")
    for one, other in RATIOS:
        rate_, cost = rates[one] / rates[other], costs[other] / costs[one]
        print(f"  {one} : {other:10} {rate_:.2f} times the rate, {cost:.2f} times for the same CPU", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        who, port, lines, seconds = json.loads(options.ask)
        run = asyncio.run if who == "asyncio" else uvloop.run
        print(json.dumps(run(measured(who, port, lines, seconds))))
        return
    with slave() as port:
        for lines in options.lines:
            table(port, lines, options.seconds, options.rounds)


if __name__ == "__main__":
    main()

"""Exchanges per second of one process over many TCP lines, beside the bare socket and a peer, same responder, same run.

    python benchmarks/exchanges.py [--seconds 3] [--lines 50 100 1000 10000] [--peer PYTHON]

ours: Line.run with the DL/T 645 driver, a whole register read with every check. bare: an asyncio protocol on the same
event loop that sends the same bytes and waits for as many bytes as the answer has. peer: the asyncio client of the PyPI
package dlt645 (see `make peers`), its logging off, in a process of its own. The responder runs in a process of its own
and answers from a table, so it is the same for all and no limit of ours. Printed are ratios, CPU and memory by line.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import subprocess
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvloop

from headend.app import calm_collector
from headend.endpoints import Endpoint, LineSettings
from headend.line import Line
from headend.model import Meter, MeterModel, ReadJob, ReadKind
from headend.protocols import PROTOCOLS

ADDRESS = "000000000161"
REQUEST = bytes.fromhex("FEFEFEFE68610100000000681104333334331416")
ANSWER = bytes.fromhex("FEFEFEFE6861010000000068910833333433593333338A16")  # 0.26 kWh, a published answer
NOW = datetime(2026, 1, 1, tzinfo=UTC)

_PEER = """
import asyncio, sys, time
from loguru import logger
logger.remove()
from dlt645.service.clientsvc.async_client_service import AsyncMeterClientService

async def work(port, end):
    client = AsyncMeterClientService.new_tcp_client(ip="127.0.0.1", port=port, timeout=5)
    client.set_address("610100000000")  # it wants the address as on the wire
    count = 0
    while time.monotonic() < end:
        assert await client.read_00(0x00010000) is not None
        count += 1
    return count

async def main(port, lines, seconds):
    cpu, started = time.process_time(), time.monotonic()
    counts = await asyncio.gather(*(work(port, started + seconds) for _ in range(lines)))
    took, total = time.monotonic() - started, sum(counts)
    print("RESULT", total / took, (time.process_time() - cpu) / total * 1e6)

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
"""


class Responder(asyncio.Protocol):
    """Gives the answer for every request it has heard whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.heard = 0

    def data_received(self, data: bytes) -> None:
        self.heard += data.count(b"\x16")
        self.transport.write(ANSWER * self.heard)  # type: ignore[attr-defined]
        self.heard = 0


def respond(ports: Any) -> None:
    """The responder's process: says its port, serves until killed."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Responder, "127.0.0.1", 0, backlog=4096)
        ports.send(server.sockets[0].getsockname()[1])

        def spin() -> None:
            # Never sleeps: waking a sleeping process costs the writer more than all the rest on a virtual machine.
            loop.call_soon(spin)

        spin()
        await server.serve_forever()

    uvloop.run(main())


class Bare(asyncio.Protocol):
    """Sends the request, waits for as many bytes as the answer has, sends again."""

    def __init__(self, done: Callable[[], bool]) -> None:
        self.done = done
        self.count = 0
        self.missing = len(ANSWER)
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def start(self) -> None:
        self.transport.write(REQUEST)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if self.missing <= 0:
            self.count += 1
            if self.done():
                self.over.set_result(None)
                return
            self.missing = len(ANSWER)
            self.transport.write(REQUEST)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Result:
    """Exchanges a second, CPU of this process for each (µs), memory of a line (kB)."""

    rate: float
    cpu_us: float
    line_kb: float


def rss_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


async def bare(port: int, lines: int, seconds: float) -> Result:
    loop = asyncio.get_running_loop()
    end = [0.0]
    before = rss_kb()
    protocols = [
        (await loop.create_connection(lambda: Bare(lambda: loop.time() > end[0]), "127.0.0.1", port))[1]
        for _ in range(lines)
    ]
    memory = (rss_kb() - before) / lines
    end[0], cpu, started = loop.time() + seconds, time.process_time(), loop.time()
    for protocol in protocols:
        protocol.start()
    await asyncio.gather(*(protocol.over for protocol in protocols))
    count = sum(protocol.count for protocol in protocols)
    result = Result(count / (loop.time() - started), (time.process_time() - cpu) / count * 1e6, memory)
    for protocol in protocols:
        protocol.transport.close()
    return result


async def ours(port: int, lines: int, seconds: float) -> Result:
    model = MeterModel("m", "dlt645-2007", Decimal(1_000_000), Decimal("15.84"))
    meter = Meter(1, "M", ADDRESS, "dlt645-2007", "L", model)
    job = ReadJob(meter, ReadKind.REGISTERS, ("import_kwh",))
    read = PROTOCOLS["dlt645-2007"].read
    before = rss_kb()
    endpoint = Endpoint("tcp", host="127.0.0.1", port=port)
    opened = [Line(LineSettings(f"L{n}", endpoint, reply_s=20.0)) for n in range(lines)]
    loop = asyncio.get_running_loop()
    for line in opened:  # the port opens with the first conversation
        await line.run(read(meter, job, now=NOW))
    memory = (rss_kb() - before) / lines
    end, cpu, started = loop.time() + seconds, time.process_time(), loop.time()

    async def work(line: Line) -> int:
        count = 0
        while True:
            harvest = await line.run(read(meter, job, now=NOW))
            assert harvest.readings[0].value == Decimal("0.26")
            count += 1
            if loop.time() > end:
                return count

    count = sum(await asyncio.gather(*(work(line) for line in opened)))
    result = Result(count / (loop.time() - started), (time.process_time() - cpu) / count * 1e6, memory)
    for line in opened:
        await line.close()
    return result


def peer(python: Path, port: int, lines: int, seconds: float) -> Result | None:
    if not python.exists():
        print(f"peer: {python} is not there (make peers)")
        return None
    done = subprocess.run(
        [python, "-c", _PEER, str(port), str(lines), str(seconds)], capture_output=True, text=True, check=False
    )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT"):
            _, rate, cpu = line.split()
            return Result(float(rate), float(cpu), 0.0)
    print(f"peer failed: {done.stderr[-300:]}")
    return None


def run(main: Coroutine[Any, Any, Result]) -> Result:
    return uvloop.run(main)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--lines", type=int, nargs="+", default=[1, 50, 100, 1000, 10_000])
    parser.add_argument("--peer", type=Path, default=Path(".venv-peers/dlt645/bin/python"))
    options = parser.parse_args()
    calm_collector()  # as the daemon does
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    mine, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=respond, args=(theirs,), daemon=True)
    process.start()
    port = mine.recv()
    try:
        print(
            f"{'lines':>6} {'ours/s':>9} {'bare/s':>9} {'ratio':>6} {'ours µs':>8} {'bare µs':>8} {'ours kB/line':>13}"
        )
        first = best = 0.0
        for lines in options.lines:
            a, b = run(ours(port, lines, options.seconds)), run(bare(port, lines, options.seconds))
            print(
                f"{lines:>6} {a.rate:>9.0f} {b.rate:>9.0f} {a.rate / b.rate:>6.2f} "
                f"{a.cpu_us:>8.1f} {b.cpu_us:>8.1f} {a.line_kb:>13.1f}"
            )
            first, best = first or a.rate, max(best, a.rate)
        # With several connections at once the peer's client times out, so its best is one.
        if (other := peer(options.peer, port, 1, options.seconds)) is not None:
            print(f"peer, one connection: {other.rate:.0f}/s, {other.cpu_us:.0f} µs each")
            print(f"ours against it: {first / other.rate:.1f} times on one line, {best / other.rate:.1f} times at best")
    finally:
        process.kill()


if __name__ == "__main__":
    main()

"""Simulated Modbus slaves for tests, and lines to them; other programs' slaves; terminals joined by a cable."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import subprocess
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from simulators.bus import Shared
from simulators.clock import SettableClock
from simulators.faults import FaultRule, Faults
from simulators.household import Household, Load, Register
from simulators.modbus_bus import Gateway, ModbusBus
from simulators.modbus_meter import ModbusMeter, ModbusSpec, Point
from simulators.modbus_truth import Truth
from simulators.pty_line import PtyLine
from simulators.tcp import TcpLine

__all__ = [
    "NOW_S",
    "POINTS",
    "READ_IMPORT",
    "READ_VOLTAGES",
    "Slave",
    "bus",
    "import_of",
    "joined_terminals",
    "meter",
    "over_pty",
    "over_tcp",
    "process_slave",
    "truth",
]

NOW_S = 1_773_800_000.0
READ_IMPORT = bytes.fromhex("0400480002")
READ_VOLTAGES = bytes.fromhex("0400000006")

POINTS = (
    Point("voltage_v_a", 4, 0, "f32"),
    Point("voltage_v_b", 4, 2, "f32"),
    Point("voltage_v_c", 4, 4, "f32"),
    Point("power_kw", 4, 52, "f32", Fraction(1, 1000)),
    Point("frequency_hz", 4, 70, "u16", Fraction(1, 100)),
    Point("import_kwh", 4, 72, "u32", Fraction(1, 100)),
    Point("export_kwh", 4, 74, "u32", Fraction(1, 100), word_order="little"),
    Point("import_kvarh", 4, 76, "u64", Fraction(1, 1000)),
    Point("power_kw_a", 3, 10, "s32", Fraction(1, 10_000)),
)


def truth(seed: int = 3, start_kwh: int = 1_234) -> Truth:
    """A household and its roof."""
    roof = Register(Household(Load(seed=seed + 100, kind="shop", daily_wh=4_000)), 5_000_000)
    return Truth(Register(Household(Load(seed=seed)), start_kwh * 10_000), roof)


def meter(unit: int = 1, spec: ModbusSpec | None = None, *, seed: int = 3, ct: int = 1, pt: int = 1) -> ModbusMeter:
    """A slave whose clock stands still."""
    return ModbusMeter(spec or ModbusSpec(POINTS), unit, truth(seed), SettableClock(NOW_S), ct=ct, pt=pt)


def bus(*rules: FaultRule, framing: str = "rtu", gateway: Gateway | None = None, units: int = 2) -> ModbusBus:
    """Units 1 and up, each at a household of its own."""
    meters = [(f"m{n}", meter(n, seed=n)) for n in range(1, units + 1)]
    clock = SettableClock(NOW_S)
    return ModbusBus(meters, clock, framing=framing, faults=Faults(rules, seed=7), gateway=gateway, seed=7)


def import_of(unit: int) -> bytes:
    """The answer to READ_IMPORT, from the household itself."""
    load = Household(Load(seed=unit))
    return b"\x04\x04" + ((1_234 * 10_000 + load.used_units(int(NOW_S))) // 100).to_bytes(4, "big")


class Slave:
    """A running bus. `port`: of its TCP line, 0 on a terminal; `path`: the terminal."""

    def __init__(self, port: int = 0, path: str = "") -> None:
        self.port = port
        self.path = path

    def talk(self, data: bytes, wait_s: float = 0.3) -> bytes:
        """What comes for `data` on a new connection, until nothing more has come for `wait_s` or it is closed."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(data)
            connection.settimeout(wait_s)
            found = b""
            try:
                while chunk := connection.recv(4096):
                    found += chunk
            except TimeoutError:
                pass
            except ConnectionResetError:
                return found
            return found


@contextmanager
def _running(line: TcpLine | PtyLine) -> Iterator[None]:
    """The line in a loop of its own, so that what blocks can talk to it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(line.start(), loop).result(10)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(line.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def over_tcp(bus: Shared, max_clients: int = 0) -> Iterator[Slave]:
    """`bus` behind a port."""
    line = TcpLine(bus, "127.0.0.1", 0, max_clients)
    with _running(line):
        yield Slave(port=line.port)


@contextmanager
def over_pty(bus: Shared, link: Path | None = None) -> Iterator[Slave]:
    """`bus` behind a terminal."""
    line = PtyLine(bus, link)
    with _running(line):
        yield Slave(path=line.path)


@contextmanager
def joined_terminals() -> Iterator[tuple[str, str]]:
    """Two terminals joined like two ends of a cable."""
    masters, slaves = zip(*(os.openpty() for _ in range(2)), strict=True)
    for handle in slaves:
        tty.setraw(handle)
    stop, wake = os.pipe()

    def pump() -> None:
        while True:
            ready, _, _ = select.select([*masters, stop], [], [])
            if stop in ready:
                return
            for handle in ready:
                os.write(masters[1 - masters.index(handle)], os.read(handle, 4096))

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    try:
        yield os.ttyname(slaves[0]), os.ttyname(slaves[1])
    finally:
        os.write(wake, b".")
        thread.join(10)
        for handle in (*masters, *slaves, stop, wake):
            os.close(handle)


@contextmanager
def process_slave(command: list[str], told: dict[str, Any]) -> Iterator[Slave]:
    """Another program's slave, told `told`, until the end of the block."""
    with subprocess.Popen([*command, json.dumps(told)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as p:
        assert p.stdin is not None
        assert p.stdout is not None
        ready = p.stdout.readline().split()
        assert ready[:1] == ["ready"], ready
        try:
            yield Slave(port=int(ready[1]))
        finally:
            p.stdin.close()
            assert p.wait(10) == 0

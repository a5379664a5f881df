"""Against other people's Modbus, run for real: mbpoll, libmodbus and the clients of pymodbus read our simulated slave;
our head-end reads the slaves of pyModbusTCP, modbus-tk and libmodbus.

pyModbusTCP (MIT) and modbus-tk (LGPL) live in `.venv-peers` (`make peers`); mbpoll (GPL) and libmodbus (LGPL) are
programs and libraries of the system. None of them is shipped or imported by the project.
"""

from __future__ import annotations

import asyncio
import ctypes.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import pytest

from headend.conversation import Conversation
from headend.endpoints import Endpoint, LineSettings
from headend.errors import Refused
from headend.line import Line
from headend.protocols.modbus.exchange import Talk, identify, read_block
from headend.protocols.modbus.model import Register
from headend.protocols.modbus.values import decode
from simulators.clock import SettableClock
from simulators.modbus_bus import Gateway, ModbusBus
from simulators.modbus_meter import Identity, ModbusSpec
from tests.peers_kit import peer_python
from tests.servers import free_port
from tests.sim_modbus_kit import NOW_S, POINTS, Slave, joined_terminals, meter, over_pty, over_tcp, process_slave

T = TypeVar("T")

SCRIPTS = Path(__file__).parent / "peers"
SPEC = ModbusSpec(POINTS, identity=Identity("Maker", "Type", "2.1"))


def missing(what: str, remedy: str) -> None:
    """Skips, or fails where nothing may be skipped."""
    reason = f"no {what}: {remedy}"
    if os.environ.get("HEADEND_NO_SKIP") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def mbpoll() -> str:
    found = shutil.which("mbpoll")
    if found is None:
        missing("mbpoll", "install the package mbpoll")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def libmodbus() -> Path:
    if ctypes.util.find_library("modbus") is None:
        missing("libmodbus", "install the package libmodbus5")
    return SCRIPTS / "libmodbus.py"


def slaves(framing: str, gateway: Gateway | None = None) -> ModbusBus:
    units = [(f"m{unit}", meter(unit, SPEC, seed=unit)) for unit in (1, 2)]
    return ModbusBus(units, SettableClock(NOW_S), framing=framing, gateway=gateway)


def truth(name: str, unit: int = 1) -> Fraction:
    return meter(unit, SPEC, seed=unit).truth.value(name, int(NOW_S))


def words_of(function: int, address: int, count: int, unit: int = 1) -> list[int]:
    """What the simulated slave has there, by the slave itself."""
    data = meter(unit, SPEC, seed=unit).registers(function, address, count)
    assert isinstance(data, bytes)
    return list(struct.unpack(f">{count}H", data))


# -- mbpoll reads our slave --------------------------------------------------------------------------------------


def poll(program: str, *arguments: str) -> tuple[dict[int, str], str]:
    """The values it printed, by reference, and all it said."""
    command = [program, "-0", "-1", "-o", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    said = done.stdout + done.stderr
    return {int(at): value for at, value in re.findall(r"^\[(\d+)\]:\s*(\S+)", said, re.MULTILINE)}, said


def test_mbpoll_reads_floats_over_tcp(mbpoll: str) -> None:
    with over_tcp(slaves("tcp")) as slave:
        arguments = ["-p", str(slave.port), "-t", "3:float", "-B", "-r", "0", "-c", "3", "127.0.0.1"]
        values, said = poll(mbpoll, "-m", "tcp", "-a", "1", *arguments)
    assert values.keys() == {0, 2, 4}, said
    for at, name in ((0, "voltage_v_a"), (2, "voltage_v_b"), (4, "voltage_v_c")):
        assert abs(Fraction(values[at]) - truth(name)) < Fraction(1, 1000)


@pytest.mark.parametrize("unit", [1, 2])
def test_mbpoll_reads_counters_of_each_unit_on_a_serial_line(mbpoll: str, unit: int) -> None:
    with over_pty(slaves("rtu")) as slave:
        line = ["-m", "rtu", "-a", str(unit), "-b", "9600", "-P", "none"]
        big, said = poll(mbpoll, *line, "-t", "3:int", "-B", "-r", "72", "-c", "1", slave.path)
        little, _ = poll(mbpoll, *line, "-t", "3:int", "-r", "74", "-c", "1", slave.path)
    assert int(big[72]) == int(truth("import_kwh", unit) * 100), said
    assert int(little[74]) == int(truth("export_kwh", unit) * 100)


def test_mbpoll_is_told_what_is_not_there(mbpoll: str) -> None:
    with over_tcp(slaves("tcp", Gateway(absent="no_response"))) as slave:
        tcp = ["-m", "tcp", "-p", str(slave.port), "-t", "3"]
        values, said = poll(mbpoll, *tcp, "-a", "1", "-r", "6", "127.0.0.1")
        assert (values, "Illegal data address" in said) == ({}, True), said
        values, said = poll(mbpoll, *tcp, "-a", "7", "-r", "0", "127.0.0.1")
        assert (values, "Target device failed to respond" in said) == ({}, True), said


# -- libmodbus reads our slave -----------------------------------------------------------------------------------


def run_client(command: list[str], told: dict[str, Any]) -> list[Any]:
    done = subprocess.run([*command, json.dumps(told)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


LIBMODBUS_STEPS = [["input", 1, 0, 6], ["input", 2, 72, 8], ["holding", 1, 10, 2], ["holding", 1, 0, 1]]


def libmodbus_answers() -> list[Any]:
    return [words_of(4, 0, 6), words_of(4, 72, 8, 2), words_of(3, 10, 2), "Illegal data address"]


def test_libmodbus_reads_over_tcp(libmodbus: Path) -> None:
    with over_tcp(slaves("tcp")) as slave:
        told = {"port": slave.port, "steps": LIBMODBUS_STEPS}
        assert run_client([sys.executable, str(libmodbus), "client"], told) == libmodbus_answers()


def test_libmodbus_reads_on_a_serial_line(libmodbus: Path) -> None:
    with over_pty(slaves("rtu")) as slave:
        told = {"path": slave.path, "steps": LIBMODBUS_STEPS}
        assert run_client([sys.executable, str(libmodbus), "client"], told) == libmodbus_answers()


# -- pymodbus's clients read our slave ---------------------------------------------------------------------------

PYMODBUS_STEPS = [
    ["read_input_registers", {"address": 0, "count": 6, "device_id": 1}],
    ["read_input_registers", {"address": 72, "count": 8, "device_id": 2}],
    ["read_holding_registers", {"address": 10, "count": 2, "device_id": 2}],
    ["read_input_registers", {"address": 6, "count": 1, "device_id": 1}],
    ["read_device_information", {"read_code": 1, "object_id": 0, "device_id": 1}],
]


@pytest.mark.parametrize("kind", ["tcp", "rtu", "serial"])
def test_pymodbus_reads(kind: str) -> None:
    with (over_pty if kind == "serial" else over_tcp)(slaves("tcp" if kind == "tcp" else "rtu")) as slave:
        told = {"kind": kind, "port": slave.port, "path": slave.path, "steps": PYMODBUS_STEPS}
        found = run_client([sys.executable, "-W", "ignore", str(SCRIPTS / "pymodbus_client.py")], told)
    assert found == [
        words_of(4, 0, 6),
        words_of(4, 72, 8, 2),
        words_of(3, 10, 2, 2),
        {"exception": 2},
        {"0": "Maker", "1": "Type", "2": "2.1"},
    ]


# -- our head-end reads their slaves -----------------------------------------------------------------------------


def drive(endpoint: Endpoint, *conversations: Conversation[T]) -> list[T | Exception]:
    """One after the other over one real line; what each returns or raises."""

    async def main() -> list[T | Exception]:
        line = Line(LineSettings("peer", endpoint, reply_s=2.0, gap_s=0.1))
        found: list[T | Exception] = []
        try:
            for conversation in conversations:
                try:
                    found.append(await line.run(conversation))
                except Refused as error:
                    found.append(error)
        finally:
            await line.close()
        return found

    return asyncio.run(main())


def at(slave: Slave) -> Endpoint:
    return Endpoint("tcp", host="127.0.0.1", port=slave.port)


def code_of(error: object) -> int | None:
    assert isinstance(error, Refused)
    return error.code


VALUES = [
    ["input", 0, "f32", 230.2],
    ["input", 2, "u32", 123_456_789],
    ["input", 4, "s32-little", -12_345],
    ["input", 6, "u64", 9_007_199_254_740_993],
    ["holding", 10, "s16", -7],
    ["holding", 11, "f32-little", 0.1],
]


@pytest.fixture(scope="module")
def pymodbustcp() -> Iterator[Slave]:
    python = peer_python("pymodbustcp")
    with process_slave(
        [str(python), str(SCRIPTS / "pymodbustcp_server.py")], {"port": free_port(), "values": VALUES}
    ) as s:
        yield s


@pytest.mark.parametrize(
    ("function", "register", "value"),
    [
        (4, Register("v", 0, 4, "f32", 2), "230.2"),
        (4, Register("v", 2, 4, "u32", 2, scale=Decimal("0.01")), "1234567.89"),
        (4, Register("v", 4, 4, "s32", 2, word_order="little"), "-12345"),
        (4, Register("v", 6, 4, "u64", 4), "9007199254740993"),
        (3, Register("v", 10, 3, "s16", 1, scale=Decimal("0.1")), "-0.7"),
        (3, Register("v", 11, 3, "f32", 2, word_order="little"), "0.1"),
    ],
)
def test_numbers_as_pymodbustcp_lays_them_out(
    pymodbustcp: Slave, function: int, register: Register, value: str
) -> None:
    talk = Talk(1, tcp=True)
    (data,) = drive(at(pymodbustcp), read_block(talk, function, register.address, register.words))
    assert isinstance(data, bytes)
    assert decode(register, data) == Decimal(value)


def test_pymodbustcp_refuses_in_our_words(pymodbustcp: Slave) -> None:
    talk = Talk(1, tcp=True)
    refused, read = drive(at(pymodbustcp), read_block(talk, 4, 0xFFFE, 10), read_block(talk, 4, 0, 2))
    assert code_of(refused) == 2
    assert isinstance(read, bytes)


TK = {"units": [1, 9], "input": {"0": [100, 200, 300], "60": list(range(100))}}


@pytest.mark.parametrize("kind", ["tcp", "rtu"])
def test_units_of_modbus_tk(kind: str) -> None:
    python = peer_python("modbus-tk")
    with joined_terminals() as (ours, theirs):
        told = {**TK, "kind": kind, "path": theirs, "port": free_port()}
        with process_slave([str(python), str(SCRIPTS / "modbus_tk_server.py")], told) as slave:
            tcp = kind == "tcp"
            endpoint = at(slave) if tcp else Endpoint("serial", device=ours, baud=9600, parity="N")
            one, nine = Talk(1, tcp=tcp), Talk(9, tcp=tcp)
            found = drive(
                endpoint,
                read_block(one, 4, 0, 3),
                read_block(nine, 4, 0, 3),
                read_block(one, 4, 60, 100),
                read_block(nine, 4, 199, 2),
                read_block(nine, 4, 199, 1),
            )
    assert found[0] == struct.pack(">3H", 101, 201, 301)
    assert found[1] == struct.pack(">3H", 109, 209, 309)
    assert found[2] == struct.pack(">100H", *range(1, 101))
    assert code_of(found[3]) == 2
    assert found[4] == b"\x00\x00"


def test_libmodbus_as_a_slave(libmodbus: Path) -> None:
    words = [7 * n & 0xFFFF for n in range(200)]
    command = [sys.executable, str(libmodbus), "server"]
    with process_slave(command, {"port": free_port(), "first": 1000, "words": words}) as slave:
        talk = Talk(1, tcp=True)
        found = drive(
            at(slave),
            read_block(talk, 3, 1000, 125),
            read_block(talk, 4, 1125, 75),
            read_block(talk, 3, 999, 1),
            identify(talk),
        )
    assert found[0] == struct.pack(">125H", *words[:125])
    assert found[1] == struct.pack(">75H", *words[125:])
    assert code_of(found[2]) == 2
    assert code_of(found[3]) == 1

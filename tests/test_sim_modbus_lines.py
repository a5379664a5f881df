"""Simulated Modbus slaves on lines and behind gateways, what goes wrong there, the command line that serves them."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import serial

from simulators.bus import Bus, Wire
from simulators.clock import SettableClock
from simulators.dlt645_frame import build, take, wire_address
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.faults import FaultRule
from simulators.household import Household, Load, Register
from simulators.mixed import MixedBus
from simulators.modbus_bus import Gateway, ModbusBus
from simulators.modbus_faults import EXCEPTIONS, MODBUS_FAULTS
from simulators.modbus_frame import crc16, mbap, rtu
from simulators.modbus_meter import ModbusSpec
from simulators.modbus_serve import bus_of, parser, units_of
from simulators.modbus_serve import main as serve
from tests.sim_modbus_kit import (
    NOW_S,
    POINTS,
    READ_IMPORT,
    READ_VOLTAGES,
    bus,
    import_of,
    meter,
    over_pty,
    over_tcp,
)

# -- lines -------------------------------------------------------------------------------------------------------


def test_two_units_on_one_pair_of_wires() -> None:
    with over_tcp(bus()) as slave:
        answers = slave.talk(rtu(1, READ_IMPORT) + rtu(2, READ_IMPORT) + rtu(3, READ_IMPORT))
    assert answers == rtu(1, import_of(1)) + rtu(2, import_of(2))


def test_a_broadcast_is_obeyed_by_all_and_answered_by_none() -> None:
    spec = ModbusSpec(POINTS, constants={(3, 9): 0}, writable=frozenset({9}))
    two = [("a", meter(1, spec)), ("b", meter(2, spec))]
    with over_tcp(ModbusBus(two, SettableClock(NOW_S))) as slave:
        assert slave.talk(rtu(0, bytes.fromhex("0600090005"))) == b""
    assert [one.constants[3, 9] for _, one in two] == [5, 5]


def test_over_a_terminal() -> None:
    with over_pty(bus()) as slave, serial.Serial(slave.path, 9600, timeout=2) as port:
        port.write(b"\x00" + rtu(1, READ_IMPORT))
        assert port.read(9) == rtu(1, import_of(1))


def test_a_slow_wire_takes_its_time() -> None:
    one = ModbusBus([("m1", meter(1, seed=1))], SettableClock(NOW_S), wire=Wire(9600, 0.02, "N"))
    with over_tcp(one) as slave:
        began = time.monotonic()
        assert slave.talk(rtu(1, READ_IMPORT), wait_s=0.15) == rtu(1, import_of(1))
        took = time.monotonic() - began - 0.15
    assert took >= 0.02 + 17 * 11 / 9600


def test_mixed_protocols_on_one_line_do_not_disturb_each_other() -> None:
    clock = SettableClock(NOW_S)
    address = "240101000001"
    other = Dlt645Meter(MeterSpec(address, preamble=0), Register(Household(Load(seed=9))), clock)
    mixed = MixedBus([Bus([("d1", other)], clock), bus()])
    request = build(wire_address(address), 0x11, bytes.fromhex("00000100"))
    with over_tcp(mixed) as slave:
        for _ in range(3):
            heard = bytearray(slave.talk(request, wait_s=0.1))
            found = take(heard)
            assert found is not None
            assert found.control == 0x91
            assert slave.talk(rtu(2, READ_IMPORT), wait_s=0.1) == rtu(2, import_of(2))


# -- gateways ----------------------------------------------------------------------------------------------------


def test_units_behind_a_gateway_and_one_that_is_not_there() -> None:
    with over_tcp(bus(framing="tcp", gateway=Gateway(absent="no_response"))) as slave:
        answers = slave.talk(mbap(5, 2, READ_IMPORT) + mbap(6, 9, READ_IMPORT))
    assert answers == mbap(5, 2, import_of(2)) + mbap(6, 9, b"\x84\x0b")


def test_a_silent_unit_is_told_by_the_gateway() -> None:
    dead = FaultRule("silence", "m1")
    with over_tcp(bus(dead, framing="tcp", gateway=Gateway(absent="path", absent_s=0.05))) as slave:
        assert slave.talk(mbap(1, 1, READ_IMPORT)) == mbap(1, 1, b"\x84\x0a")
        assert slave.talk(mbap(2, 2, READ_IMPORT)) == mbap(2, 2, import_of(2))


def test_a_gateway_does_one_thing_at_a_time_and_says_when_it_is_busy() -> None:
    gateway = Gateway(outstanding=1, queue=1)
    one = ModbusBus(
        [("m1", meter(1, seed=1))], SettableClock(NOW_S), framing="tcp", gateway=gateway, wire=Wire(0, 0.05)
    )
    with over_tcp(one) as slave:
        answers = slave.talk(b"".join(mbap(n, 1, READ_IMPORT) for n in (1, 2, 3)))
    assert answers == mbap(3, 1, b"\x84\x06") + mbap(1, 1, import_of(1)) + mbap(2, 1, import_of(1))
    assert one.most_waiting == 2


def test_a_server_that_hears_the_first_request_only() -> None:
    with over_tcp(bus(framing="tcp", gateway=Gateway(only_first=True))) as slave:
        assert slave.talk(mbap(1, 1, READ_IMPORT) + mbap(2, 1, READ_IMPORT)) == mbap(1, 1, import_of(1))


def test_a_slave_that_answers_to_any_unit() -> None:
    one = ModbusBus([("m1", meter(1, seed=1))], SettableClock(NOW_S), framing="tcp", gateway=Gateway(any_unit=True))
    with over_tcp(one) as slave:
        assert slave.talk(mbap(1, 255, READ_IMPORT)) == mbap(1, 255, import_of(1))


def test_what_is_no_modbus_ends_the_connection() -> None:
    with over_tcp(bus(framing="tcp")) as slave:
        assert slave.talk(b"GET / HTTP/1.0\r\n\r\n", wait_s=5) == b""


def test_one_connection_too_many_is_turned_away() -> None:
    with over_tcp(bus(framing="tcp"), max_clients=1) as slave, socket.create_connection(("127.0.0.1", slave.port)) as c:
        c.sendall(mbap(1, 1, READ_IMPORT))
        assert c.recv(100) == mbap(1, 1, import_of(1))
        assert slave.talk(mbap(1, 1, READ_IMPORT), wait_s=5) == b""


# -- faults ------------------------------------------------------------------------------------------------------

RIGHT = rtu(1, import_of(1))
SHOWS: dict[str, Callable[[bytes], bool]] = {
    "wrong_count": lambda f: crc16(f) == 0 and f[2] == 2 and len(f) == 7,
    "wrong_bytes": lambda f: crc16(f) == 0 and f[2] == 6 and len(f) == 9,
    "wrong_function": lambda f: crc16(f) == 0 and f[1] == 3,
    "wrong_unit": lambda f: crc16(f) == 0 and f[0] == 2 and f[1:-2] == RIGHT[1:-2],
    "short": lambda f: 0 < len(f) < len(RIGHT) and RIGHT.startswith(f),
    "noise": lambda f: f[1:] == RIGHT,
    "noise_after": lambda f: f[:-1] == RIGHT,
    "bad_crc": lambda f: crc16(f) != 0 and f[:-1] == RIGHT[:-1],
    "flip": lambda f: (int.from_bytes(f, "big") ^ int.from_bytes(RIGHT, "big")).bit_count() == 1,
    "burst": lambda f: len(f) == len(RIGHT) and crc16(f) != 0,
    "silence": lambda f: f == b"",
    "dead": lambda f: f == b"",
    "drop": lambda f: f == b"",
    "halfopen": lambda f: f == b"",
    "late": lambda f: f == RIGHT,
    "echo": lambda f: f == rtu(1, READ_IMPORT) + RIGHT,
    "stale": lambda f: f == RIGHT,
    "reset": lambda f: f == rtu(1, b"\x04\x04\x00\x00\x00\x00"),
    "wrong_transaction": lambda f: f == RIGHT,
    "wrong_protocol": lambda f: f == RIGHT,
}


@pytest.mark.parametrize("kind", MODBUS_FAULTS)
def test_a_fault_strikes_its_unit_and_no_other(kind: str) -> None:
    with over_tcp(bus(FaultRule(kind, "m1", delay_s=0.01))) as slave:
        found = slave.talk(rtu(1, READ_IMPORT), wait_s=0.1)
        assert slave.talk(rtu(2, READ_IMPORT), wait_s=0.1) == rtu(2, import_of(2))
    if kind in EXCEPTIONS:
        assert found == rtu(1, bytes((0x84, EXCEPTIONS[kind])))
    else:
        assert SHOWS[kind](found), found.hex()


def test_faults_of_mbap() -> None:
    script = FaultRule(meter="m1", script=("wrong_transaction", "wrong_protocol", "ok", "stale"))
    answer = import_of(1)
    with over_tcp(bus(script, framing="tcp")) as slave:
        frames = [slave.talk(mbap(n, 1, READ_IMPORT), wait_s=0.1) for n in (5, 6, 7, 8)]
    wrong = mbap(6, 1, answer)
    assert frames == [
        mbap(4, 1, answer),
        wrong[:2] + b"\x00\x01" + wrong[4:],
        mbap(7, 1, answer),
        mbap(7, 1, answer) + mbap(8, 1, answer),
    ]


def test_a_late_answer_comes_late() -> None:
    with over_tcp(bus(FaultRule("late", "m1", delay_s=0.3))) as slave:
        assert slave.talk(rtu(1, READ_IMPORT), wait_s=0.1) == b""
        assert slave.talk(rtu(1, READ_IMPORT), wait_s=2.0 - 1.0) == RIGHT


def test_the_same_seed_gives_the_same_faults() -> None:
    def heard() -> list[bytes]:
        with over_tcp(bus(FaultRule("flip", "m1", 0.5))) as slave:
            return [slave.talk(rtu(1, READ_IMPORT), wait_s=0.05) for _ in range(6)]

    first = heard()
    assert first == heard()
    assert len(set(first)) > 1


# -- by the command line -----------------------------------------------------------------------------------------

MODEL = Path(__file__).parent.parent / "config" / "meters" / "modbus-eastron-sdm630.toml"


def test_meters_served_by_the_command_line() -> None:
    options = ["--tcp", "127.0.0.1:0", "--framing", "tcp", "--units", "1,7-9", "--absent", "path", "--start-kwh", "50"]
    served = bus_of(parser().parse_args([str(MODEL), *options]))
    assert [meter.unit for _, meter in served.units] == [1, 7, 8, 9]
    with over_tcp(served) as slave:
        voltage, absent = slave.talk(mbap(1, 8, READ_VOLTAGES)), slave.talk(mbap(2, 2, READ_VOLTAGES))
    assert all(215 < volts < 226 for volts in struct.unpack(">3f", voltage[9:]))
    assert absent == mbap(2, 2, b"\x84\x0a")


@pytest.mark.parametrize("text", ["0", "248", "x", "", "9-3", "1,"])
def test_what_is_no_list_of_units(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        units_of(text)


def test_a_file_that_is_no_modbus_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('protocol = "dlt645-2007"\n')
    assert serve([str(other), "--tcp", "127.0.0.1:0"]) == 2
    assert serve([str(tmp_path / "none.toml"), "--tcp", "127.0.0.1:0"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert "modbus is missing" in said[0]
    assert "No such file" in said[1]
    assert len(said) == 2

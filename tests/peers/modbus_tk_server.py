"""A slave made of PyPI modbus-tk. Argument: JSON with `kind` (`tcp`, `rtu`), `port` or `path`, `units` and `input`:
{address: [words]} of each of them, the unit's number added to every word. Prints `ready PORT`; ends with its standard
input.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import serial
from modbus_tk import defines, modbus_rtu, modbus_tcp


def server_of(told: dict[str, Any]) -> Any:
    if told["kind"] == "tcp":
        return modbus_tcp.TcpServer(port=told["port"], address="127.0.0.1")
    return modbus_rtu.RtuServer(serial.Serial(told["path"], 9600))


def main() -> None:
    told = json.loads(sys.argv[1])
    server = server_of(told)
    server.start()
    for unit in told["units"]:
        slave = server.add_slave(unit)
        slave.add_block("input", defines.ANALOG_INPUTS, 0, 200)
        for address, words in told["input"].items():
            slave.set_values("input", int(address), [(word + unit) & 0xFFFF for word in words])
    print("ready", told.get("port", 0), flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()

"""libmodbus, called from its shared library.

`server` as argument 1: a slave with holding and input registers `words` from address `first`. `client`: a master that
does `steps`, [`input` or `holding`, unit, address, count]. Argument 2: JSON with the port (0 a free one) or, for a
client, `path` of a serial port.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import select
import sys
from typing import Any

_LONGEST = 260


class Mapping(ctypes.Structure):
    """`modbus_mapping_t`."""

    _fields_ = [
        *[(f"{what}_{name}", ctypes.c_int) for name in ("bits", "input_bits", "input_registers", "registers")
          for what in ("nb", "start")],
        *[(f"tab_{name}", ctypes.POINTER(ctypes.c_uint8)) for name in ("bits", "input_bits")],
        *[(f"tab_{name}", ctypes.POINTER(ctypes.c_uint16)) for name in ("input_registers", "registers")],
    ]  # fmt: skip


def library() -> Any:
    lib = ctypes.CDLL(ctypes.util.find_library("modbus"), use_errno=True)
    for name in ("modbus_new_tcp", "modbus_new_rtu"):
        getattr(lib, name).restype = ctypes.c_void_p
    lib.modbus_mapping_new_start_address.restype = ctypes.POINTER(Mapping)
    lib.modbus_strerror.restype = ctypes.c_char_p
    return lib


def serve(told: dict[str, Any]) -> None:
    lib = library()
    words, first = told["words"], told["first"]
    number = ctypes.c_uint(first)
    count = ctypes.c_uint(len(words))
    none = ctypes.c_uint(0)
    mapping = lib.modbus_mapping_new_start_address(none, none, none, none, number, count, number, count)
    for at, word in enumerate(words):
        mapping.contents.tab_registers[at] = mapping.contents.tab_input_registers[at] = word
    context = ctypes.c_void_p(lib.modbus_new_tcp(b"127.0.0.1", told["port"]))
    listening = ctypes.c_int(lib.modbus_tcp_listen(context, 1))
    assert listening.value >= 0
    print("ready", told["port"], flush=True)
    request = (ctypes.c_uint8 * _LONGEST)()
    while True:
        ready, _, _ = select.select([listening.value, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        lib.modbus_tcp_accept(context, ctypes.byref(listening))
        while (size := lib.modbus_receive(context, request)) >= 0:
            lib.modbus_reply(context, request, size, mapping)
        lib.modbus_close(context)


def ask(told: dict[str, Any]) -> list[Any]:
    lib = library()
    if told.get("path"):
        path = told["path"].encode()
        context = ctypes.c_void_p(lib.modbus_new_rtu(path, 9600, ctypes.c_char(b"N"), 8, 1))
    else:
        context = ctypes.c_void_p(lib.modbus_new_tcp(b"127.0.0.1", told["port"]))
    assert lib.modbus_connect(context) == 0
    found: list[Any] = []
    for table, unit, address, count in told["steps"]:
        lib.modbus_set_slave(context, unit)
        words = (ctypes.c_uint16 * 125)()
        read = lib.modbus_read_input_registers if table == "input" else lib.modbus_read_registers
        got = read(context, address, count, words)
        found.append(list(words[:count]) if got == count else lib.modbus_strerror(ctypes.get_errno()).decode())
    lib.modbus_close(context)
    return found


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve(json.loads(sys.argv[2]))
    else:
        print(json.dumps(ask(json.loads(sys.argv[2]))), flush=True)

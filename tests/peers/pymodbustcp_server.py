"""A slave made of PyPI pyModbusTCP. Argument: JSON with `values`: [table, address, form, number]; table `input` or
`holding`, form `f32`, `f32-little`, `u32`, `s32-little`, `u64`, `s16`. The numbers are laid out by pyModbusTCP's own
functions. Prints `ready PORT`; ends with its standard input.
"""

from __future__ import annotations

import json
import sys

from pyModbusTCP.server import DataBank, ModbusServer
from pyModbusTCP.utils import encode_ieee, get_2comp, long_list_to_word


def words(form: str, number: float) -> list[int]:
    kind, _, order = form.partition("-")
    if kind == "s16":
        return [get_2comp(int(number), 16) & 0xFFFF]
    bits = encode_ieee(number) if kind == "f32" else int(number) & ((1 << int(kind[1:])) - 1)
    return list(long_list_to_word([bits], big_endian=order != "little", long_long=kind == "u64"))


def main() -> None:
    told = json.loads(sys.argv[1])
    bank = DataBank()
    for table, address, form, number in told["values"]:
        setter = bank.set_input_registers if table == "input" else bank.set_holding_registers
        assert setter(address, words(form, number))
    server = ModbusServer("127.0.0.1", told["port"], no_block=True, data_bank=bank)
    server.start()
    print("ready", told["port"], flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()

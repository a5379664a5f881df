"""A master made of the PyPI package python-dlt645, over TCP.

Argument: JSON with `port`, `address` (twelve digits) and `steps`: "address", "energy" or eight hex digits to read.
Prints one line of JSON: what each step gave (for a read: control as told, data in hex); "raised: ..." for an exception.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

import dlt645


def read(address: str, di: str, stream: Any) -> Any:
    """Send one read and give what came."""
    frame = dlt645.Frame(address)
    frame.data = di
    dlt645.write_frame(stream, frame)
    stream.flush()
    answer = dlt645.read_frame(dlt645.iogen(stream))
    return {"address": answer.addr, "control": answer.control, "data": answer.data}


class Flushing:
    """A stream that sends what it is given at once, as a serial port does."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()

    def flush(self) -> None:
        self._stream.flush()

    def read(self, size: int) -> Any:
        return self._stream.read(size)


def main() -> None:
    told = json.loads(sys.argv[1])
    found: list[Any] = []
    for step in told["steps"]:
        with socket.create_connection(("127.0.0.1", told["port"]), 1.0) as connection:
            stream = Flushing(connection.makefile("rwb"))
            try:
                if step == "address":
                    found.append(dlt645.get_addr(stream))
                elif step == "energy":
                    found.append(dlt645.get_active_energy(told["address"], stream))
                else:
                    found.append(read(told["address"], step, stream))
            except Exception as error:
                found.append(f"raised: {error!r}")
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

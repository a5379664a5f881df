"""A master made of pymodbus's own clients.

Argument: JSON with `kind` (`tcp`, `rtu` over TCP, `serial`), `port` or `path`, and `steps`: [method, its arguments].
Prints one line of JSON: of each step the registers, the identification, {"exception": code}, or "raised: ...".
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pymodbus import FramerType
from pymodbus.client import ModbusSerialClient, ModbusTcpClient


def client_of(told: dict[str, Any]) -> ModbusTcpClient | ModbusSerialClient:
    if told["kind"] == "serial":
        return ModbusSerialClient(told["path"], baudrate=9600, parity="N", timeout=1, retries=0)
    framer = FramerType.RTU if told["kind"] == "rtu" else FramerType.SOCKET
    return ModbusTcpClient("127.0.0.1", port=told["port"], framer=framer, timeout=1, retries=0)


def plain(answer: Any) -> Any:
    """What JSON can say."""
    if answer.isError():
        return {"exception": answer.exception_code}
    if hasattr(answer, "information") and answer.information:
        return {str(key): value.decode() for key, value in answer.information.items()}
    return list(answer.registers)


def main() -> None:
    told = json.loads(sys.argv[1])
    client = client_of(told)
    assert client.connect()
    found = []
    for method, arguments in told["steps"]:
        try:
            found.append(plain(getattr(client, method)(**arguments)))
        except Exception as error:
            found.append(f"raised: {error}")
    client.close()  # type: ignore[no-untyped-call]
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

"""A meter made of the PyPI package dlt645, on a TCP port.

Argument: JSON with `address` (twelve digits) and `items`: [function, DI in hex, value], a demand as [value, time].
Says `ready PORT`, then answers each line of standard input with one of JSON: `time` (the clock it was set to, null if
never). Ends with standard input.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime

from dlt645 import Demand, MeterServerService


def main() -> None:
    told = json.loads(sys.argv[1])
    service = MeterServerService.new_tcp_server("127.0.0.1", 0)
    if told.get("address_as_text"):
        service.set_address(told["address"])
    else:
        service.set_address(bytes.fromhex(told["address"])[::-1])
    service.set_password("02123456")
    for function, di, value in told["items"]:
        if function == "set_01":
            value = Demand(value[0], datetime.fromisoformat(value[1]))
        if not getattr(service, function)(int(di, 16), value):
            raise SystemExit(f"{function} {di} was not taken")
    with service:
        print("ready", service.server.port, flush=True)
        for line in sys.stdin:
            answer = {"time": service.time and service.time.isoformat()}[line.strip()]
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

"""A master made of the PyPI package dlt645.

Argument: JSON with `port`, `address` (twelve digits) and `steps`: [method, arguments]. Prints one line of JSON: what
each step gave, as plain values; "raised: ..." for an exception.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

from dlt645 import DataItem, Demand, MeterClientService


def plain(value: Any) -> Any:
    """What JSON can say."""
    if isinstance(value, DataItem):
        return plain(value.value)
    if isinstance(value, Demand):
        return [value.value, value.time.isoformat() if isinstance(value.time, datetime) else str(value.time)]
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, int | float | str | None):
        return value
    return plain(value.event) if hasattr(value, "event") else str(value)


def main() -> None:
    told = json.loads(sys.argv[1])
    client = MeterClientService.new_tcp_client("127.0.0.1", told["port"], timeout=1.0)
    client.address = bytearray(bytes.fromhex(told["address"])[::-1])
    found = []
    with client:
        for method, arguments in told["steps"]:
            if method == "broadcast_time_sync":
                arguments = [datetime.fromisoformat(arguments[0])]
            try:
                found.append(plain(getattr(client, method)(*arguments)))
            except Exception as error:
                found.append(f"raised: {error!r}")
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()

"""An MQTT broker that needs no system package: iotcore (rumqttd in a wheel), on loopback only.

python -m simulators.mqtt_broker --port 1883

What it holds, it holds in memory: sessions and retained messages end with it. For demonstrations and tests.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

__all__ = ["config_text", "main"]

_HEAD = """id = 0

[router]
id = 0
max_connections = 2000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
"""
_LISTENER = """
[{version}.1]
name = "{version}"
listen = "{host}:{port}"
next_connection_delay_ms = 1

[{version}.1.connections]
connection_timeout_ms = 60000
max_payload_size = {max_message_bytes}
max_inflight_count = 200
dynamic_filters = true
"""


def config_text(port: int, port_311: int = 0, *, host: str = "127.0.0.1", max_message_bytes: int = 16 << 20) -> str:
    """Its configuration. port: MQTT 5; port_311: MQTT 3.1.1, 0 for none: it wants one for each. max_message_bytes:
    whoever sends more is disconnected."""
    text = _HEAD
    for version, number in (("v5", port), ("v4", port_311)):
        if number:
            text += _LISTENER.format(version=version, host=host, port=number, max_message_bytes=max_message_bytes)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m simulators.mqtt_broker", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--port", type=int, default=1883, help="for MQTT 5")
    parser.add_argument("--port-311", type=int, default=0, help="for MQTT 3.1.1; none by default")
    parser.add_argument("--folder", type=Path, help="for its configuration file; a temporary one by default")
    given = parser.parse_args(argv)
    try:
        from iotcore.iotcore import IotCoreBroker
    except ImportError:
        print("there is no iotcore -> pip install 'headend[demo]'", file=sys.stderr)
        return 1
    # The broker's own code takes no signal and its log shows every packet: end without it, say nothing.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="mqtt-broker-"))
    path = folder / "broker.toml"
    path.write_text(config_text(given.port, given.port_311), "utf-8")
    IotCoreBroker(config_path=os.fspath(path)).run_forever()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""A simulated concentrator or gateway on a broker until stopped.

python -m simulators.mqtt_serve --broker 127.0.0.1:1883 --name C0001 --meters 180 --days 7
python -m simulators.mqtt_serve --broker 127.0.0.1:1883 --name gw1 --meters 5 --firmware neuron --every-s 60

Prints one line, `ready` and a JSON object, when it is connected. SIGINT or SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from simulators.mqtt_acrel import AcrelDomestic, AcrelOverseas
from simulators.mqtt_concentrator import Concentrator, ConcentratorSpec, MessageFaults
from simulators.mqtt_firmware import FIRMWARES, messages
from simulators.mqtt_meters import COLUMNS, ENERGY, ConMeter, fleet
from simulators.mqtt_runner import BrokerAddress, Peer, run_concentrator, run_device

__all__ = ["main"]

_ACREL = {"acrel-overseas": AcrelOverseas, "acrel-domestic": AcrelDomestic}


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argparse.ArgumentParser(prog="python -m simulators.mqtt_serve", description=__doc__)
    found.formatter_class = argparse.RawDescriptionHelpFormatter
    found.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    found.add_argument("--mqtt", type=int, choices=(5, 311), default=5, help="version of the protocol")
    found.add_argument("--ca", type=Path, help="certificate of the authority; connects with TLS")
    found.add_argument("--cert", type=Path, help="its own certificate")
    found.add_argument("--key", type=Path, help="and key")
    found.add_argument("--name", default="C0001", help="concentrator id, or serial number of a gateway")
    found.add_argument("--firmware", choices=("canonical", *FIRMWARES, *_ACREL), default="canonical")
    found.add_argument("--product", default="ADW300", help="of an Acrel gateway")
    found.add_argument("--meters", type=int, default=10)
    found.add_argument("--first", type=int, default=1, help="number of the first meter")
    found.add_argument("--pattern", default="{n:012d}", help="of meter addresses")
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--energy", action="store_true", help="six registers in place of one")
    found.add_argument("--period-s", type=int, default=900)
    found.add_argument("--days", type=int, default=0, help="recorded before it connects, a day a message")
    found.add_argument("--every-s", type=float, default=60.0, help="between rounds of a foreign firmware")
    found.add_argument("--buffer", type=Path, help="folder for what is not acknowledged; in memory by default")
    found.add_argument("--clock-error-s", type=int, default=0)
    for name in ("lose", "forget", "duplicate", "swap", "unanswered"):
        found.add_argument(f"--{name}", type=float, default=0.0, help="probability, 0 to 1")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM."""
    given = parser().parse_args(argv)
    host, _, port = given.broker.rpartition(":")
    if not host or not port.isdigit():
        print(f"--broker {given.broker!r} is no HOST:PORT", file=sys.stderr)
        return 2
    broker = BrokerAddress(host, int(port), given.mqtt, ca=given.ca, cert=given.cert, key=given.key)
    try:
        asyncio.run(_serve(given, broker))
    except (TimeoutError, OSError) as error:
        print(f"{given.broker}: {str(error) or 'nobody answers'} -> is the broker running?", file=sys.stderr)
        return 1
    return 0


async def _serve(given: argparse.Namespace, broker: BrokerAddress) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    meters = fleet(given.meters, seed=given.seed, first=given.first, pattern=given.pattern)
    if given.firmware == "canonical":
        await _canonical(given, broker, meters, over)
    else:
        await _foreign(given, broker, meters, over)


def _ready(given: argparse.Namespace) -> None:
    ready = {"name": given.name, "firmware": given.firmware, "broker": given.broker, "meters": given.meters}
    print("ready " + json.dumps(ready), flush=True)


async def _canonical(
    given: argparse.Namespace, broker: BrokerAddress, meters: Sequence[ConMeter], over: asyncio.Event
) -> None:
    columns = ENERGY if given.energy else COLUMNS
    spec = ConcentratorSpec(given.name, columns, given.period_s, clock_error_s=given.clock_error_s)
    faults = MessageFaults(given.lose, given.forget, given.duplicate, given.swap, given.unanswered, given.seed)
    con = Concentrator(spec, meters, faults=faults, folder=given.buffer)
    midnight = con.believed_s() // 86_400 * 86_400
    for day in range(given.days, 0, -1):
        con.whole_day(midnight - day * 86_400)
    if given.days:
        con.reads("interval", range(midnight, con.believed_s() + 1, con.period_s))
    running = await run_concentrator(con, broker)
    running.record(1.0)
    running.repeat(30.0)
    _ready(given)
    await over.wait()
    await running.stop()


async def _foreign(
    given: argparse.Namespace, broker: BrokerAddress, meters: Sequence[ConMeter], over: asyncio.Event
) -> None:
    kind = _ACREL.get(given.firmware)
    gateway = kind(given.name, given.product, meters) if kind else None
    if gateway is not None:
        peer = await run_device(gateway, broker, given.name)
    else:
        peer = Peer(broker, given.name)
        await peer.start()
    _ready(given)
    while not over.is_set():
        if gateway is not None:
            gateway.read()
        else:
            for out in messages(given.firmware, given.name, meters, int(time.time())):
                peer.publish(out)
        try:
            async with asyncio.timeout(given.every_s):
                await over.wait()
        except TimeoutError:
            continue
    await peer.stop()


if __name__ == "__main__":
    raise SystemExit(main())

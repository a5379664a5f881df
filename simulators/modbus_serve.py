"""Simulated Modbus meters on a port or terminal until stopped.

python -m simulators.modbus_serve config/meters/modbus-eastron-sdm630.toml --tcp 127.0.0.1:5020 --units 1-3
python -m simulators.modbus_serve MODEL.toml --pty ./meter --fault late --fault-probability 0.1
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from simulators.bus import Wire
from simulators.faults import FaultRule, Faults
from simulators.modbus_bus import FRAMINGS, Gateway, ModbusBus
from simulators.modbus_faults import MODBUS_FAULTS
from simulators.modbus_map import load, slave
from simulators.pty_line import PtyLine
from simulators.tcp import TcpLine

__all__ = ["main", "units_of"]


def units_of(text: str) -> list[int]:
    """`1,5,7-9` as numbers. ValueError for what is none or no unit of a line."""
    units: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        units += range(int(first), int(last if dash else first) + 1)
    if not units or min(units) < 1 or max(units) > 247:
        raise ValueError("units are numbers from 1 to 247")
    return units


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    found = argparse.ArgumentParser(prog="python -m simulators.modbus_serve", description=__doc__)
    found.formatter_class = argparse.RawDescriptionHelpFormatter
    found.add_argument("model", type=Path, help="meter model file with a [modbus] table")
    where = found.add_mutually_exclusive_group(required=True)
    where.add_argument("--tcp", metavar="HOST:PORT", help="listen there; port 0 for a free one")
    where.add_argument("--pty", type=Path, metavar="LINK", help="a terminal, by a symbolic link")
    found.add_argument("--framing", choices=FRAMINGS, help="rtu or tcp; the model's, on a terminal rtu")
    found.add_argument("--units", type=units_of, default=[1], help="like 1,5,7-9")
    found.add_argument("--seed", type=int, default=1, help="of the first meter's household; the next ones count on")
    found.add_argument("--start-kwh", type=int, default=1_234, help="what the counters began with")
    found.add_argument("--ct", type=int, default=1, help="current transformer ratio")
    found.add_argument("--pt", type=int, default=1, help="voltage transformer ratio")
    found.add_argument("--baud", type=int, default=0, help="as slow as a wire of that speed; 0: as fast as it goes")
    found.add_argument("--absent", choices=("silence", "no_response", "path"), default="silence", help="unit not there")
    found.add_argument("--max-clients", type=int, default=0, help="connections at once, 0 for any number")
    found.add_argument("--fault", choices=MODBUS_FAULTS, action="append", default=[])
    found.add_argument("--fault-probability", type=float, default=1.0, help="of each exchange, for every --fault")
    found.add_argument("--delay-s", type=float, default=2.0, help="how late `late` is")
    return found


def bus_of(options: argparse.Namespace) -> ModbusBus:
    """The meters as the arguments say. OSError, ValueError, KeyError for a file that is no such model."""
    model = load(options.model)
    units = [
        (
            f"unit {unit}",
            slave(
                model,
                unit,
                time.time,
                seed=options.seed + at,
                start_kwh=options.start_kwh,
                ct=options.ct,
                pt=options.pt,
            ),
        )
        for at, unit in enumerate(options.units)
    ]
    rules = [FaultRule(kind, "", options.fault_probability, delay_s=options.delay_s) for kind in options.fault]
    return ModbusBus(
        units,
        time.time,
        framing=options.framing or ("rtu" if options.pty else model.framing),
        wire=Wire(options.baud, 0.02 if options.baud else 0.0, "N"),
        faults=Faults(rules, options.seed),
        gateway=Gateway(absent=options.absent),
        seed=options.seed,
    )


async def serve(bus: ModbusBus, options: argparse.Namespace) -> None:
    """Until SIGINT or SIGTERM."""
    if options.pty:
        line: PtyLine | TcpLine = PtyLine(bus, options.pty)
    else:
        host, _, port = options.tcp.rpartition(":")
        line = TcpLine(bus, host, int(port), options.max_clients)
    await line.start()
    print("ready", line.endpoint(), bus.framing, f"units {','.join(map(str, options.units))}", flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await line.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 2 when the model or the line is not usable."""
    options = parser().parse_args(arguments)
    try:
        bus = bus_of(options)
        asyncio.run(serve(bus, options))
    except (OSError, ValueError) as error:
        print(f"{options.model}: {error}", file=sys.stderr)
        return 2
    except KeyError as error:
        print(f"{options.model}: {error.args[0]} is missing: is it a Modbus meter model?", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How near a line runs to the limit of its wire, and what a dead meter costs its neighbours.

    python benchmarks/line_utilisation.py [--seconds 120] [--bauds 2400 9600] [--meters 32]

The real daemon (store, planner, worker, plausibility) backfills simulated meters on a baud-accurate pseudo-terminal,
20 ms answer delay, 4 FE both ways. The limit is arithmetic over the very bytes that went over the line: 11 bits a
character plus 20 ms an exchange (`4 FE both, Td=20ms` of the wire limits). Utilisation is that time over the time it
took.
Then the same with one of the meters dead: the rate of the others, beside their rate before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import uvloop
from sqlalchemy import select

from config.imports import import_files
from config.site import load_site
from headend.app import Daemon
from headend.cli.common import check_address
from headend.store import open_store, readings, schema

_TOWN = """
[town]
name = "wire"
zone = "Asia/Shanghai"
installed = "2025-01-01"

[[line]]
name = "wire"
kind = "pty"
link = "wire"
baud = {baud}
baud_accurate = true

[[group]]
line = "wire"
count = {meters}
meter_id = "W{{n:03d}}"
address = "2499030{{n:05d}}"
tariff = "t"
{fault}
[[tariff]]
id = "t"
kind = "year-step"
limits_kwh = [2760, 4800]
prices = ["0.5", "0.6", "0.9"]
"""

_DEAD = """
[[fault]]
meter = "W001"
kind = "dead"
"""

_SITE = """
[site]
name = "wire"

[[line]]
name = "wire"
endpoint = "{endpoint}"
serial = "{baud} 8N1"

[[schedule]]
name = "curve"
read = "curve"

[evidence]
keep_good_every = 1
"""

_DELAY_S = 0.020
_BITS = 11


@dataclass(frozen=True)
class Run:
    """Exchanges of live meters, the seconds they need on the wire, the seconds they took."""

    exchanges: int
    wire_s: float
    seconds: float

    @property
    def utilisation(self) -> float:
        return self.wire_s / self.seconds

    @property
    def rate(self) -> float:
        return self.exchanges / self.seconds


def measure(baud: int, meters: int, seconds: float, *, dead: bool) -> Run:
    """Run the daemon on a simulated line for a while."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        town = _TOWN.format(baud=baud, meters=meters, fault=_DEAD if dead else "")
        (folder / "town.toml").write_text(town)
        command = [sys.executable, "-m", "simulators", "town.toml", "--truth", "truth"]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            announced = json.loads(process.stdout.readline().removeprefix("ready "))
            endpoint = announced["lines"][0]["endpoint"]
            (folder / "site.toml").write_text(_SITE.format(endpoint=f"serial:{folder / 'truth' / 'wire'}", baud=baud))
            assert endpoint.startswith("serial:")
            return _poll(folder, seconds, baud)
        finally:
            process.terminate()
            process.wait(10)


def _poll(folder: Path, seconds: float, baud: int) -> Run:
    site = load_site(folder / "site.toml")
    store = open_store(site.store_url)
    import_files(store, site, meters=folder / "truth" / "meters.csv", check_address=check_address)
    store.close()
    uvloop.run(_daemon(folder, seconds))
    store = open_store(site.store_url)
    try:
        with store.read() as conn:
            rows = conn.execute(
                select(schema.outcome.c.id, schema.outcome.c.started_at, schema.outcome.c.status).order_by(
                    schema.outcome.c.id
                )
            ).all()
            exchanges, wire_s, spans = 0, 0.0, []
            for row in rows:
                frames = readings.frames(conn, row.id)
                spans.append((frames[0].at, frames[-1].at))
                if row.status != "ok":
                    continue
                exchanges += sum(frame.direction == ">" for frame in frames)
                wire_s += sum(len(frame.data) for frame in frames) * _BITS / baud
            wire_s += exchanges * _DELAY_S
        return Run(exchanges, wire_s, (max(e for _, e in spans) - min(s for s, _ in spans)).total_seconds())
    finally:
        store.close()


async def _daemon(folder: Path, seconds: float) -> None:
    daemon = Daemon(load_site(folder / "site.toml"))
    await daemon.start()
    await asyncio.sleep(seconds)
    await daemon.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--bauds", type=int, nargs="+", default=[2400, 9600])
    parser.add_argument("--meters", type=int, default=32)
    options = parser.parse_args()
    for baud in options.bauds:
        whole = measure(baud, options.meters, options.seconds, dead=False)
        print(f"{baud} baud: {whole.rate:.2f} exchanges/s, utilisation {whole.utilisation:.1%} of the wire's limit")
        lame = measure(baud, options.meters, options.seconds, dead=True)
        others = lame.rate / (whole.rate * (options.meters - 1) / options.meters)
        print(
            f"{baud} baud, one of {options.meters} dead: the line keeps {lame.rate / whole.rate:.1%} of its exchanges, "
            f"each live meter {others:.1%} of its own rate"
        )


if __name__ == "__main__":
    main()

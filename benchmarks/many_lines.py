"""One daemon with very many TCP lines: what a poll costs, and what a line costs when nothing is due.

    python -m benchmarks.many_lines [--lines 10000] [--seconds 60]

The whole daemon (store on SQLite, planner, a worker a line) reads one register of one meter a line every minute; the
responder runs in a process of its own. Printed are polls, CPU and memory; no limit of ours is set by the responder.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import tempfile
import time
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import uvloop

from benchmarks.exchanges import ADDRESS, respond, rss_kb
from config.site import load_site
from headend.app import Daemon, calm_collector
from headend.endpoints import Endpoint, LineSettings
from headend.store import open_store, registry

_SITE = """
[site]
name = "many lines"

[[line]]
name = "one"
endpoint = "tcp://127.0.0.1:1"

[[schedule]]
name = "registers"
read = "registers"
every_min = 1
quantities = ["import_kwh"]
"""


async def measure(port: int, lines: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "site.toml"
        path.write_text(_SITE)
        endpoint = Endpoint("tcp", host="127.0.0.1", port=port)
        settings = tuple(LineSettings(f"L{n}", endpoint, connect_s=60.0, reply_s=20.0) for n in range(lines))
        site = replace(load_site(path), lines=settings)
        store = open_store(site.store_url)
        with store.write() as conn:
            meters = [
                registry.MeterRow(
                    f"M{n}", "dlt645-2007", ADDRESS, f"L{n}", "dlt645-2007-basic", "+08:00", Decimal(1_000_000), 0
                )
                for n in range(lines)
            ]
            registry.put_meters(conn, meters)
        store.close()
        before, started = rss_kb(), time.monotonic()
        daemon = Daemon(site)
        await daemon.start()
        try:
            cpu = time.process_time()
            await asyncio.sleep(seconds)
            spent = time.process_time() - cpu
            polls = sum(sum(worker.outcomes.values()) for worker in daemon.workers.values())
            print(f"{lines} lines, {time.monotonic() - started:.0f} s: {polls} polls stored")
            print(f"CPU {spent / seconds:.1%} of a core, {(rss_kb() - before) / lines:.1f} kB a line")
        finally:
            await daemon.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    calm_collector()
    mine, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=respond, args=(theirs,), daemon=True)
    process.start()
    try:
        uvloop.run(measure(mine.recv(), options.lines, options.seconds))
    finally:
        process.kill()


if __name__ == "__main__":
    main()

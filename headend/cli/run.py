"""headend run: the daemon."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import click
from rich.logging import RichHandler

from config.site import Site
from headend.app import Daemon, calm_collector
from headend.cli.common import opened, site_option, tariffs_of
from headend.errors import UsageError
from headend.local_api import LocalApi
from headend.store import registry

__all__ = ["run", "run_loop", "until_stopped"]

log = logging.getLogger(__name__)

# Seconds between the lines the daemon logs about what is still missing.
_REPORT_S = 30


@click.command()
@site_option
@click.option("--verbose", "-v", is_flag=True, help="Log every modem and every line event.")
def run(site: Site, verbose: bool) -> None:
    """Poll the site's meters until Ctrl-C or SIGTERM.

    The daemon finds every interval the store lacks, back to each schedule's horizon, asks the meters' own memory for
    them oldest first, and reads new ones as they become due. It can be killed at any moment: what was stored stays,
    what was not is asked for again at the next start.
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(show_path=False, log_time_format="%Y-%m-%d %H:%M:%S")],
    )
    logging.getLogger("headend").setLevel(logging.INFO)
    with opened(site) as store, store.read() as conn:
        if not registry.meters(conn):
            raise UsageError("the store has no meters", remedy="take them in with `headend import` first")
    tariffs_of(site)  # a tariff that can't be loaded is told now, not at the month's end
    run_loop(_serve(site))


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop where it is installed."""
    calm_collector()
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    try:
        import uvloop
    except ImportError:
        pass
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def until_stopped() -> asyncio.Event:
    """An event set by SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    return stop


async def _serve(site: Site) -> None:
    daemon = Daemon(site)
    api = LocalApi(daemon)
    stop = until_stopped()
    try:
        await api.start()
        await daemon.start()
        log.info("polling %d meters on %d lines", len(daemon.meters), len(daemon.lines))
        await _report(daemon, stop)
    finally:
        log.info("stopping: finishing what runs, storing what came")
        await api.close()
        await daemon.stop()


async def _report(daemon: Daemon, stop: asyncio.Event) -> None:
    """Say now and then what is still missing, until stopped."""
    before = -1
    while not stop.is_set():
        lacking = sum(daemon.lacking().values())
        if lacking != before:
            log.info("%s", f"{lacking} expected values still to come" if lacking else "nothing is missing")
            before = lacking
        try:
            async with asyncio.timeout(_REPORT_S):
                await stop.wait()
        except TimeoutError:
            continue

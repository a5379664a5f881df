"""headend scan: find the meters of a line."""

from __future__ import annotations

import asyncio
import csv
import io
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from config.site import Site
from headend.cli.common import opened, site_option
from headend.cli.line import find_line
from headend.endpoints import LineSettings, parse_serial
from headend.errors import UsageError
from headend.line import Line, Link, Listener
from headend.local_api import ask_daemon
from headend.protocols import PROTOCOLS
from headend.protocols.dlt645.search import VERSIONS, Found, search
from headend.store import registry

__all__ = ["scan"]

_WAIT_S = 0.7  # a meter begins to answer within 0.5 s
_COLUMNS = ("meter_id", "protocol", "address", "line", "model", "clock_zone", "serial")


@dataclass(frozen=True, slots=True)
class _Wish:
    """How to search: seconds to wait for an answer and for a modem, tries, how deep."""

    wait_s: float
    tries: int
    thorough: bool
    modem_s: float


@dataclass(frozen=True, slots=True)
class _Hit:
    """A meter and the serial format it answered at, "" for the line's own."""

    meter: Found
    serial: str


@click.command()
@site_option
@click.argument("name", metavar="LINE")
@click.option("--baud", default="", metavar="N,N", help="Speeds to try, serial lines only.  [default: the line's own]")
@click.option("--parity", default="", metavar="E,N", help="Parities to try, serial lines only.  [default: its own]")
@click.option("--wait", "wait_s", type=click.FloatRange(0.02, 60), default=None, help="Seconds to wait for an answer.")
@click.option("--tries", type=click.IntRange(1, 5), default=1, show_default=True, help="How often to ask into silence.")
@click.option("--thorough", is_flag=True, help="Look behind each meter found for one it hides; minutes for each.")
@click.option(
    "--modem-wait", "modem_s", default=120.0, show_default=True, help="Seconds to wait for a modem to dial in."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print lines for meters.csv.")
@click.option("--model", default="", help="Meter model for those lines.  [default: the only one of its protocol, or ?]")
def scan(
    site: Site,
    name: str,
    baud: str,
    parity: str,
    wait_s: float | None,
    tries: int,
    thorough: bool,
    modem_s: float,
    as_csv: bool,
    model: str,
) -> None:
    """Find the DL/T 645 meters of a line: reads only, changes nothing, neither in meters nor in the store.

    One meter is found in seconds. Several are searched for by wildcard addresses, about a minute for each hundred
    addresses tried. Two meters with one address are reported as duplicate. The daemon must not be running: it owns the
    lines. The exit status is 1 if nothing was found.

    \b
    Examples:
      headend scan east
      headend scan east --baud 2400,9600 --parity E,N --csv > found.csv
    """
    settings = find_line(site, name)
    if model and model not in site.models:
        raise UsageError(f"there is no meter model {model!r}", remedy=f"known: {', '.join(sorted(site.models))}")
    formats = _formats(settings, baud, parity)
    if asyncio.run(ask_daemon(site.path, {"do": "lines"})) is not None:
        raise UsageError(
            "the head-end is running and owns the lines", remedy="stop `headend run`, scan, start it again"
        )
    if wait_s is None:
        wait_s = settings.reply_s if settings.endpoint.kind == "listen" else _WAIT_S
    known = _registered(site, name)
    show = _Show(known, csv_follows=as_csv)
    with show.bar:
        hits = asyncio.run(_search(settings, formats, _Wish(wait_s, tries, thorough, modem_s), show))
    if as_csv:
        click.echo(_csv(site, settings, hits, model), nl=False)
    for address in sorted(set(known) - {hit.meter.address for hit in hits}):
        click.echo(f"not heard: {address}, registered as {known[address]}", err=True)
    if not hits:
        click.echo(
            "no meter answered: check power, wires, speed and parity; or try more with --baud and --parity", err=True
        )
        raise SystemExit(1)


def _formats(settings: LineSettings, bauds: str, parities: str) -> list[str]:
    """The serial formats to try, [""] for the line's own. Raises `UsageError` for one that does not exist."""
    endpoint = settings.endpoint
    if endpoint.kind != "serial":
        if bauds or parities:
            raise UsageError(
                f"line {settings.name} is no serial port: speed and parity are set in the serial server",
                remedy="leave --baud and --parity out",
            )
        return [""]
    formats = []
    for baud in bauds.split(",") if bauds else [str(endpoint.baud)]:
        for parity in parities.split(",") if parities else [endpoint.parity]:
            text = f"{baud.strip()} {endpoint.bytesize}{parity.strip()}{endpoint.stopbits}"
            baud_bps, bytesize, letter, stopbits = parse_serial(text)
            formats.append(f"{baud_bps} {bytesize}{letter}{stopbits}")
    return list(dict.fromkeys(formats))


def _registered(site: Site, line: str) -> dict[str, str]:
    """The meters registered on the line: id by address."""
    with opened(site) as store, store.read() as conn:
        return {row.address: row.id for row in registry.meters(conn) if row.line == line}


class _Show:
    """What is seen while it runs: a bar on stderr, and each meter as it is found."""

    def __init__(self, known: Mapping[str, str], *, csv_follows: bool) -> None:
        self._known = known
        self._csv_follows = csv_follows
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %, {task.fields[questions]} questions"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            disable=not sys.stderr.isatty(),
        )

    def hit(self, hit: _Hit) -> None:
        """A meter was found."""
        parts = [hit.meter.address, hit.meter.protocol, hit.serial]
        if hit.meter.address in self._known:
            parts.append(f"registered as {self._known[hit.meter.address]}")
        if hit.meter.duplicate:
            parts.append(f"DUPLICATE: {hit.meter.duplicate}")
        click.echo("  ".join(filter(None, parts)), err=self._csv_follows)


async def _search(settings: LineSettings, formats: Sequence[str], wish: _Wish, show: _Show) -> list[_Hit]:
    """Every version at every format, one after another; a meter that answers twice counts where it did first."""
    hits: dict[str, _Hit] = {}
    async with _line(settings, wish.modem_s) as line:
        for serial, protocol in product(formats, [name for name in VERSIONS if name in PROTOCOLS]):
            task = show.bar.add_task(f"{protocol} {serial}".strip(), total=1.0, questions=0)

            def found(meter: Found, serial: str = serial) -> None:
                if meter.address not in hits:
                    hits[meter.address] = _Hit(meter, serial)
                    show.hit(hits[meter.address])

            def progress(share: float, questions: int, task: TaskID = task) -> None:
                show.bar.update(task, completed=share, questions=questions)

            conversation = search(
                protocol,
                reply_s=wish.wait_s,
                tries=wish.tries,
                thorough=wish.thorough,
                found=found,
                progress=progress,
            )
            await line.run(conversation, serial=serial)
            show.bar.remove_task(task)
    return list(hits.values())


@asynccontextmanager
async def _line(settings: LineSettings, modem_s: float) -> AsyncIterator[Line]:
    """The line, open; a dial-in line listens until its modem has come."""
    line = Line(settings)
    listener: Listener | None = None
    endpoint = settings.endpoint
    if endpoint.kind == "listen":

        async def identify(_link: Link) -> Line | None:
            return line

        came = asyncio.Event()
        line.on_up = came.set
        listener = Listener(endpoint.host, endpoint.port, [line], identify=identify)
        await listener.start()
        click.echo(f"waiting for the modem of line {settings.name} on {endpoint}", err=True)
        try:
            async with asyncio.timeout(modem_s):
                await came.wait()
        except TimeoutError:
            await listener.close()
            raise UsageError(f"no modem dialled in within {modem_s:g} s") from None
    try:
        yield line
    finally:
        if listener is not None:
            await listener.close()
        await line.close()


def _csv(site: Site, settings: LineSettings, hits: Sequence[_Hit], model: str) -> str:
    """Lines for meters.csv, without duplicates; the address stands for the asset number still to be filled in."""
    endpoint = settings.endpoint
    own = f"{endpoint.baud} {endpoint.bytesize}{endpoint.parity}{endpoint.stopbits}"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for hit in hits:
        if hit.meter.duplicate:
            continue
        fitting = [name for name, found in site.models.items() if found.protocol == hit.meter.protocol]
        chosen = model or (fitting[0] if len(fitting) == 1 else "?")
        serial = "" if hit.serial == own else hit.serial
        writer.writerow([hit.meter.address, hit.meter.protocol, hit.meter.address, settings.name, chosen, "", serial])
    return text.getvalue()

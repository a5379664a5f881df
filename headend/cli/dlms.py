"""headend dlms browse: what a DLMS meter holds, and a meter model made of it."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from config.meter_models import load_model
from config.site import Site
from headend.app import now_utc, open_vault
from headend.civil import zone
from headend.cli.common import find_meter, line_of, opened, site_option
from headend.errors import UsageError
from headend.local_api import ask_daemon
from headend.model import Meter
from headend.protocols import PROTOCOLS
from headend.protocols.dlms import browse as browse_meter
from headend.protocols.dlms import draft_model
from headend.protocols.dlms.browse import Browsed
from headend.store import Store

__all__ = ["dlms"]

_PROTOCOL = "dlms"


@click.group()
def dlms() -> None:
    """DLMS/COSEM meters: find out what they hold."""


@dlms.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.option("--out", "out", type=click.Path(path_type=Path), help="File to write instead of the screen.")
def browse(site: Site, meter_id: str, out: Path | None) -> None:
    """Ask a meter for all it holds, and draft a meter model from it.

    Reads only, as the meter's client may; changes nothing, neither in the meter nor in the store. The draft holds the
    profiles with their columns, the objects with scalers and units, and as comments what else there is and what no
    meter tells. Begin with a model that only says how to reach it, such as dlms-generic-hdlc. The daemon must not be
    running: it owns the lines.

    \b
    Examples:
      headend dlms browse D0001
      headend dlms browse D0001 --out meters/my-meter.toml
    """
    if out is not None and out.exists():
        raise UsageError(f"{out} is there already", remedy="name another file, or remove it")
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}", remedy="make it first")
    if asyncio.run(ask_daemon(site.path, {"do": "lines"})) is not None:
        raise UsageError(
            "the head-end is running and owns the lines", remedy="stop `headend run`, browse, start it again"
        )
    with opened(site) as store:
        meter = find_meter(site, store, meter_id)
        if meter.protocol != _PROTOCOL:
            raise UsageError(f"meter {meter.id} speaks {meter.protocol}", remedy="name a meter of protocol dlms")
        found = asyncio.run(_browse(site, store, meter))
    text = draft_model(found, meter, _today(site))
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    load_model(out, PROTOCOLS)
    refused = f", {len(found.refused)} attributes were refused" if found.refused else ""
    click.echo(f"{out}: {len(found.objects)} objects{refused}. Read its comments, then use it as a model.", err=True)


def _today(site: Site) -> date:
    return now_utc().astimezone(zone(site.zone)).date()


async def _browse(site: Site, store: Store, meter: Meter) -> Browsed:
    """Ask the meter, with a bar that shows how far it is."""
    line, vault = line_of(site, meter), open_vault(site, store)
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
    task = bar.add_task("opening", total=None)

    def tell(what: str, done: int, of: int) -> None:
        bar.update(task, description=what, completed=done, total=of)

    try:
        with bar:
            conversation = browse_meter(meter, vault.access(meter), tell)
            return await line.run(conversation, serial=meter.serial, meter=meter.id)
    finally:
        await line.close()
        vault.flush()

"""headend read: ask one meter now."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click
from rich.table import Table

from config.site import Site
from headend import collect
from headend.app import now_utc
from headend.cli.common import find_meter, instant, local, opened, out, site_option
from headend.cli.decode import explanation_text
from headend.errors import UsageError
from headend.ingest import EvidencePolicy, write
from headend.line import Line
from headend.local_api import ask_daemon, outcome_as_json
from headend.model import Meter, Outcome, Priority, ReadJob, ReadKind
from headend.protocols import PROTOCOLS
from headend.quantities import BY_DI, quantity
from headend.store import Store

__all__ = ["read"]

_DEFAULT = ("import_kwh",)


@click.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.argument("wanted", metavar="[QUANTITY]...", nargs=-1)
@click.option("--clock", is_flag=True, help="Read the meter's clock and show how far it is off.")
@click.option("--verbose", "-v", is_flag=True, help="Show the frames as well, decoded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def read(site: Site, meter_id: str, wanted: tuple[str, ...], clock: bool, verbose: bool, as_json: bool) -> None:
    """Read one meter now, ahead of everything scheduled.

    QUANTITY is a name (`headend quantities` lists them) or its DL/T 645 identifier; the default is import_kwh. If the
    daemon is running the read goes through it, for it owns the lines; otherwise the line is opened here. The values
    are stored either way.

    \b
    Examples:
      headend read M0001
      headend read M0001 import_kwh import_kwh_t1 voltage_v_a --verbose
      headend read M0001 00010000
    """
    names = tuple(_name(text) for text in wanted) or _DEFAULT
    kind = ReadKind.CLOCK if clock else ReadKind.REGISTERS
    if clock:
        names = ("clock_offset_s",)
    with opened(site) as store:
        meter = find_meter(site, store, meter_id)
        result = asyncio.run(_read(site, store, meter, kind, names))
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        _show(site, meter, result, verbose)
    if result["status"] != "ok":
        raise SystemExit(1)


def _name(text: str) -> str:
    """A quantity's name, from its name or its identifier."""
    known = BY_DI.get(text.upper())
    return known.name if known else quantity(text).name


async def _read(site: Site, store: Store, meter: Meter, kind: ReadKind, names: tuple[str, ...]) -> dict[str, Any]:
    reply = await ask_daemon(
        site.path, {"do": "read", "meter": meter.id, "kind": kind.value, "quantities": list(names)}
    )
    if reply is not None:
        outcome: dict[str, Any] = reply["outcome"]
        return outcome
    return outcome_as_json(await _read_here(site, store, meter, kind, names))


async def _read_here(site: Site, store: Store, meter: Meter, kind: ReadKind, names: tuple[str, ...]) -> Outcome:
    """Open the meter's line in this process, read, store."""
    settings = next(line for line in site.lines if line.name == meter.line)
    if settings.endpoint.kind == "listen":
        raise UsageError(
            f"meter {meter.id} dials in on line {settings.name}", remedy="start `headend run`; it holds the modems"
        )
    line = Line(settings)
    job = ReadJob(meter, kind, names, None, Priority.ON_DEMAND, "on demand")
    try:
        outcome = await collect.run(line, job, clock=now_utc)
    finally:
        await line.close()
    with store.write() as conn:
        write(conn, [outcome], EvidencePolicy(keep_good_every=site.evidence.keep_good_every))
    return outcome


def _show(site: Site, meter: Meter, result: dict[str, Any], verbose: bool) -> None:
    if result["readings"]:
        table = Table(
            "quantity", "value", "unit", "meter time", "quality", title=f"meter {meter.id}", title_justify="left"
        )
        for row in result["readings"]:
            at = local(instant(row["occurred_at"] or row["at"], site.zone), site.zone)
            table.add_row(row["quantity"], row["value"], row["unit"], at, row["quality"])
        out.print(table)
    for fault in result["faults"]:
        out.print(f"[red]{fault['quantity']}: {fault['cause'].replace('_', ' ')}[/red] {fault['detail']}")
    out.print(f"{result['status']} in {result['duration_s']:.3f} s")
    if verbose:
        for frame in result["frames"]:
            at = local(instant(frame["at"], site.zone), site.zone)
            out.print(f"\n{at} {frame['direction']} {frame['hex']}", soft_wrap=True, markup=False)
            explanation = PROTOCOLS[meter.protocol].explain(bytes.fromhex(frame["hex"]))
            out.print(explanation_text(explanation), soft_wrap=True, markup=False)

"""headend read: ask one meter now."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from config.site import Site
from headend import collect
from headend.app import now_utc
from headend.cli.common import find_meter, instant, local, opened, out, site_option
from headend.cli.decode import explanation_text
from headend.errors import UsageError
from headend.ingest import EvidencePolicy, write
from headend.items import run_item
from headend.line import Line
from headend.local_api import ask_daemon, outcome_as_json
from headend.model import Meter, Outcome, Priority, ReadJob, ReadKind
from headend.protocols import PROTOCOLS
from headend.quantities import BY_DI, quantity
from headend.store import Store

__all__ = ["read"]

_Wish = tuple[ReadKind, tuple[str, ...]]

_IDENTIFIER = re.compile("[0-9A-Fa-f]{4}|[0-9A-Fa-f]{8}")

_DEFAULT: tuple[str, ...] = ("import_kwh",)


@click.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.argument("wanted", metavar="[QUANTITY]...", nargs=-1)
@click.option("--clock", is_flag=True, help="Read the clock only, and show how far it is off.")
@click.option("--verbose", "-v", is_flag=True, help="Show the frames as well, decoded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def read(site: Site, meter_id: str, wanted: tuple[str, ...], clock: bool, verbose: bool, as_json: bool) -> None:
    """Read one meter now, ahead of everything scheduled, and its clock with it.

    QUANTITY is a name (`headend quantities` lists them) or its DL/T 645 identifier; the default is import_kwh. Any
    other identifier of the meter's protocol (`headend catalogue` finds them) is read and shown too, with what its
    values mean. If the daemon is running the read goes through it, for it owns the lines; otherwise the line is opened
    here. Quantities are stored either way, the rest is only shown.

    \b
    Examples:
      headend read M0001
      headend read M0001 import_kwh import_kwh_t1 voltage_v_a --verbose
      headend read M0001 00010000
      headend read M0001 040005FF
    """
    identifiers = tuple(dict.fromkeys(text.upper() for text in wanted if _is_item(text)))
    names = tuple(dict.fromkeys(_name(text) for text in wanted if not _is_item(text)))
    wishes: list[_Wish] = [(ReadKind.CLOCK, ("clock_offset_s",))]
    if clock:
        identifiers = ()
    elif names or not identifiers:
        wishes.insert(0, (ReadKind.REGISTERS, names or _DEFAULT))
    else:
        wishes = []
    with opened(site) as store:
        meter = find_meter(site, store, meter_id)
        results, items = asyncio.run(_read_all(site, store, meter, wishes, identifiers))
    if as_json:
        click.echo(json.dumps(_merged(results, items), ensure_ascii=False, indent=2))
    else:
        if results:
            _show(site, meter, results, verbose)
        _show_items(site, meter, items, verbose)
    if any(result["status"] != "ok" for result in [*results[:1], *items]):
        raise SystemExit(1)


def _is_item(text: str) -> bool:
    """Whether this is an identifier that no quantity has: to be shown, not stored."""
    return bool(_IDENTIFIER.fullmatch(text)) and text.upper() not in BY_DI


def _name(text: str) -> str:
    """A quantity's name, from its name or its identifier."""
    known = BY_DI.get(text.upper())
    return known.name if known else quantity(text).name


async def _read_all(
    site: Site, store: Store, meter: Meter, wishes: list[_Wish], identifiers: tuple[str, ...]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Outcomes of the quantities wished for, and the identifiers beside them."""
    results = await _read(site, store, meter, wishes)
    return results, [await _read_item(site, meter, identifier) for identifier in identifiers]


async def _read_item(site: Site, meter: Meter, identifier: str) -> dict[str, Any]:
    reply = await ask_daemon(site.path, {"do": "item", "meter": meter.id, "di": identifier})
    if reply is not None:
        item: dict[str, Any] = reply["item"]
        return item
    line = _line_of(site, meter)
    try:
        return await run_item(line, meter, identifier)
    finally:
        await line.close()


async def _read(site: Site, store: Store, meter: Meter, wishes: list[_Wish]) -> list[dict[str, Any]]:
    """The outcomes of the reads; after one that got nothing the meter is not asked again."""
    results: list[dict[str, Any]] = []
    for kind, names in wishes:
        request = {"do": "read", "meter": meter.id, "kind": kind.value, "quantities": list(names)}
        reply = await ask_daemon(site.path, request)
        if reply is not None:
            results.append(reply["outcome"])
        else:
            results.append(outcome_as_json(await _read_here(site, store, meter, kind, names)))
        if not results[-1]["readings"]:
            break
    return results


async def _read_here(site: Site, store: Store, meter: Meter, kind: ReadKind, names: tuple[str, ...]) -> Outcome:
    """Open the meter's line in this process, read, store."""
    line = _line_of(site, meter)
    job = ReadJob(meter, kind, names, None, Priority.ON_DEMAND, "on demand")
    try:
        outcome = await collect.run(line, job, clock=now_utc)
    finally:
        await line.close()
    with store.write() as conn:
        write(conn, [outcome], EvidencePolicy(keep_good_every=site.evidence.keep_good_every))
    return outcome


def _line_of(site: Site, meter: Meter) -> Line:
    """The meter's line, for this process to open."""
    settings = next(line for line in site.lines if line.name == meter.line)
    if settings.endpoint.kind == "listen":
        raise UsageError(
            f"meter {meter.id} dials in on line {settings.name}", remedy="start `headend run`; it holds the modems"
        )
    return Line(settings)


def _merged(results: list[dict[str, Any]], items: list[dict[str, Any]]) -> dict[str, Any]:
    """Registers, clock and identifiers as one answer; the status is that of what was asked for."""
    first = results[0] if results else {"meter": items[0]["meter"], "status": items[0]["status"]}
    merged = {"readings": [], "faults": [], "frames": [], **first}
    for more in results[1:]:
        for name in ("readings", "faults", "frames"):
            merged[name] = merged[name] + more[name]
    merged["clock_offset_s"] = _offset(results)
    merged["items"] = items
    return merged


def _offset(results: list[dict[str, Any]]) -> str | None:
    """Meter clock minus ours in seconds, if it was read."""
    return next(
        (row["value"] for result in results for row in result["readings"] if row["quantity"] == "clock_offset_s"), None
    )


def _show(site: Site, meter: Meter, results: list[dict[str, Any]], verbose: bool) -> None:
    offset = _offset(results)
    table = Table("quantity", "value", "unit", "meter time", "quality", title=f"meter {meter.id}", title_justify="left")
    for row in (row for result in results for row in result["readings"]):
        table.add_row(row["quantity"], row["value"], row["unit"], _meter_time(site, row, offset), row["quality"])
    if table.row_count:
        out.print(table)
    for result in results:
        for fault in result["faults"]:
            out.print(f"[red]{fault['quantity']}: {fault['cause'].replace('_', ' ')}[/red] {fault['detail']}")
        out.print(f"{result['status']} in {result['duration_s']:.3f} s")
    if verbose:
        _show_frames(site, meter, results)


def _show_items(site: Site, meter: Meter, items: list[dict[str, Any]], verbose: bool) -> None:
    """What the meter said under identifiers of its own; it is not stored."""
    for item in items:
        table = Table("DI", "name", "中文", "value", "unit", "note", title=f"meter {meter.id}", title_justify="left")
        for row in item["items"]:
            value = "null (not there)" if row["value"] is None else row["value"]
            table.add_row(*map(escape, (row["di"], row["name"], row["name_zh"], value, row["unit"], row["note"])))
        if table.row_count:
            out.print(table)
        if item["detail"]:
            out.print(f"[red]{item['di']}: {item['status']}[/red] {escape(item['detail'])}")
        out.print(f"{item['di']}: {item['status']} in {item['duration_s']:.3f} s")
    if verbose:
        _show_frames(site, meter, items)


def _show_frames(site: Site, meter: Meter, results: list[dict[str, Any]]) -> None:
    for frame in (frame for result in results for frame in result["frames"]):
        at = local(instant(frame["at"], site.zone), site.zone)
        out.print(f"\n{at} {frame['direction']} {frame['hex']}", soft_wrap=True, markup=False)
        explanation = PROTOCOLS[meter.protocol].explain(bytes.fromhex(frame["hex"]))
        out.print(explanation_text(explanation), soft_wrap=True, markup=False)


def _meter_time(site: Site, row: dict[str, Any], offset: str | None) -> str:
    """When the value held, by the meter's own clock: a demand's own stamp, or our time corrected by its offset."""
    if row["occurred_at"]:
        return local(instant(row["occurred_at"], site.zone), site.zone)
    if offset is None:
        return "unknown: its clock was not read"
    return local(instant(row["at"], site.zone) + timedelta(seconds=int(offset)), site.zone)

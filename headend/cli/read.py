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
from headend.app import now_utc, open_vault
from headend.cli.common import find_meter, instant, line_of, local, opened, out, site_option, span
from headend.cli.decode import explanation_text
from headend.errors import UsageError
from headend.ingest import EvidencePolicy, write
from headend.items import run_item
from headend.local_api import ask_daemon, outcome_as_json
from headend.model import Meter, Outcome, Priority, ReadJob, ReadKind, Window
from headend.protocols import PROTOCOLS
from headend.protocols.dlms import is_item as is_dlms_item
from headend.protocols.modbus import RegisterMap
from headend.protocols.modbus import is_item as is_modbus_item
from headend.quantities import BY_DI, quantity
from headend.store import Store

__all__ = ["read", "read_clock"]

_Wish = tuple[ReadKind, tuple[str, ...], Window | None]

_IDENTIFIER = re.compile("[0-9A-Fa-f]{4}|[0-9A-Fa-f]{8}")

_DEFAULT: tuple[str, ...] = ("import_kwh",)
_FREEZE_DAYS = 16  # in one job


@click.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.argument("wanted", metavar="[QUANTITY]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Read every quantity of the meter's model (Modbus).")
@click.option("--clock", is_flag=True, help="Read the clock only, and show how far it is off.")
@click.option("--curve", is_flag=True, help="Read the load curve of a span again, from the meter's memory.")
@click.option("--freeze", is_flag=True, help="Read the daily freezes of a span again.")
@click.option("--from", "start", default=None, help="First instant of the span, 2026-10-01 or 2026-10-01T08:15.")
@click.option("--to", "end", default=None, help="End of the span, not included. [default: now]")
@click.option("--verbose", "-v", is_flag=True, help="Show the frames as well, decoded.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def read(
    site: Site,
    meter_id: str,
    wanted: tuple[str, ...],
    everything: bool,
    clock: bool,
    curve: bool,
    freeze: bool,
    start: str | None,
    end: str | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Read one meter now, ahead of everything scheduled, and its clock with it.

    QUANTITY is a name (`headend quantities` lists them) or its DL/T 645 identifier; the default is import_kwh. Any
    other identifier of the meter's protocol (`headend catalogue` finds them; of a DLMS meter an OBIS code, or
    class/OBIS/attribute; of a Modbus meter function:address:words:type) is read and shown too, with what its values
    mean. If the daemon is running the read goes
    through it, for it owns the lines; otherwise the line is opened here. Quantities are stored either way, the rest is
    only shown.

    \b
    Examples:
      headend read M0001
      headend read M0001 import_kwh import_kwh_t1 voltage_v_a --verbose
      headend read M0001 00010000
      headend read M0001 040005FF
      headend read D0001 0.0.96.1.0.255 3/1.0.1.8.0.255/3
      headend read B0001 4:0x0048:2:f32
      headend read B0001 --all
      headend read M0001 --curve --from 2026-10-01 --to 2026-10-03
    """
    windows = _windows(site, curve, freeze, start, end)
    identifiers = tuple(dict.fromkeys(text.upper() for text in wanted if _is_item(text)))
    names = tuple(dict.fromkeys(_name(text) for text in wanted if not _is_item(text)))
    wishes: list[_Wish] = [(ReadKind.CLOCK, ("clock_offset_s",), None)]
    if clock:
        identifiers, everything = (), False
    elif windows:
        kind = ReadKind.CURVE if curve else ReadKind.DAILY_FREEZE
        identifiers, everything, wishes = (), False, [(kind, names or _DEFAULT, window) for window in windows]
    elif names or everything or not identifiers:
        wishes.insert(0, (ReadKind.REGISTERS, names or _DEFAULT, None))
    else:
        wishes = []
    with opened(site) as store:
        meter = find_meter(site, store, meter_id)
        if everything:
            wishes[0] = (ReadKind.REGISTERS, _all_quantities(meter), None)
        results, items = asyncio.run(_read_all(site, store, meter, wishes, identifiers))
    if as_json:
        click.echo(json.dumps(_merged(results, items), ensure_ascii=False, indent=2))
    else:
        if results:
            _show(site, meter, results, verbose)
        _show_items(site, meter, items, verbose)
    if any(result["status"] != "ok" for result in [*(results if windows else results[:1]), *items]):
        raise SystemExit(1)


def _windows(site: Site, curve: bool, freeze: bool, start: str | None, end: str | None) -> list[Window]:
    """The span asked for in pieces a job may have; none when no span is."""
    if not curve and not freeze:
        if start or end:
            raise UsageError("a span without saying what to read of it", remedy="give --curve or --freeze as well")
        return []
    if curve and freeze:
        raise UsageError("curve and freezes are read one after the other", remedy="give --curve or --freeze")
    if start is None:
        raise UsageError("which span?", remedy="give --from, and --to if it is not now")
    whole, piece = span(site, start, end, days=0), timedelta(days=1 if curve else _FREEZE_DAYS)
    pieces, first = [], whole.start
    while first < whole.end:
        pieces.append(Window(first, min(first + piece, whole.end)))
        first += piece
    if not pieces:
        raise UsageError("the span is empty", remedy="give --from an earlier time than --to")
    return pieces


def _all_quantities(meter: Meter) -> tuple[str, ...]:
    """Every quantity the meter's model lists."""
    details = meter.details if meter.details is not None else meter.model.details
    if isinstance(details, RegisterMap) and details.quantities:
        return details.quantities
    raise UsageError(f"the meter model {meter.model.name} does not list its quantities", remedy="name what to read")


def _is_item(text: str) -> bool:
    """Whether this is an identifier that no quantity has: to be shown, not stored."""
    return (
        is_dlms_item(text) or is_modbus_item(text) or (bool(_IDENTIFIER.fullmatch(text)) and text.upper() not in BY_DI)
    )


def _name(text: str) -> str:
    """A quantity's name, from its name or its identifier."""
    known = BY_DI.get(text.upper())
    return known.name if known else quantity(text).name


async def _read_all(
    site: Site, store: Store, meter: Meter, wishes: list[_Wish], identifiers: tuple[str, ...]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Outcomes of the quantities wished for, and the identifiers beside them."""
    results = await read_wishes(site, store, meter, wishes)
    return results, [await _read_item(site, store, meter, identifier) for identifier in identifiers]


async def _read_item(site: Site, store: Store, meter: Meter, identifier: str) -> dict[str, Any]:
    reply = await ask_daemon(site.path, {"do": "item", "meter": meter.id, "di": identifier})
    if reply is not None:
        item: dict[str, Any] = reply["item"]
        return item
    line, vault = line_of(site, meter), open_vault(site, store)
    try:
        return await run_item(line, meter, identifier, access=vault.access(meter))
    finally:
        await line.close()
        vault.flush()


async def read_wishes(site: Site, store: Store, meter: Meter, wishes: list[_Wish]) -> list[dict[str, Any]]:
    """The outcomes of the reads; after one that got nothing the meter is not asked again."""
    results: list[dict[str, Any]] = []
    for kind, names, window in wishes:
        if kind is ReadKind.CLOCK and _offset(results) is not None:
            continue  # it came with the registers
        request = {"do": "read", "meter": meter.id, "kind": kind.value, "quantities": list(names)}
        if window is not None:
            request |= {"start": window.start.isoformat(), "end": window.end.isoformat()}
        reply = await ask_daemon(site.path, request)
        if reply is not None:
            results.append(reply["outcome"])
        else:
            results.append(outcome_as_json(await _read_here(site, store, meter, kind, names, window)))
        if not results[-1]["readings"] and (window is None or results[-1]["status"] != "partial"):
            break
    return results


async def read_clock(site: Site, store: Store, meter: Meter) -> tuple[int | None, str]:
    """How far the meter's clock is off in seconds; None and why when it could not be read."""
    result = (await read_wishes(site, store, meter, [(ReadKind.CLOCK, ("clock_offset_s",), None)]))[0]
    offset = _offset([result])
    return (None, result["detail"] or result["status"]) if offset is None else (int(offset), "")


async def _read_here(
    site: Site, store: Store, meter: Meter, kind: ReadKind, names: tuple[str, ...], window: Window | None
) -> Outcome:
    """Open the meter's line in this process, read, store."""
    line, vault = line_of(site, meter), open_vault(site, store)
    job = ReadJob(meter, kind, names, window, Priority.ON_DEMAND, "on demand")
    try:
        outcome = await collect.run(line, job, clock=now_utc, access=vault.access(meter))
    finally:
        await line.close()
        vault.flush()
    with store.write() as conn:
        write(conn, [outcome], EvidencePolicy(keep_good_every=site.evidence.keep_good_every))
    return outcome


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
    if row["source"] in ("curve", "daily_freeze"):
        return local(instant(row["at"], site.zone), site.zone)
    if row["occurred_at"]:
        return local(instant(row["occurred_at"], site.zone), site.zone)
    if offset is None:
        return "unknown: its clock was not read"
    return local(instant(row["at"], site.zone) + timedelta(seconds=int(offset)), site.zone)

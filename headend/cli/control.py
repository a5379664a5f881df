"""headend clock, relay, commands: telling a meter to do something, and what meters were told."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from config.site import Site
from headend.app import now_utc, open_vault, rules_of
from headend.cli.common import find_meter, line_of, local, opened, out, site_option, user
from headend.cli.read import read_clock
from headend.control import DISCONNECT, DONE, RECONNECT, SET_CLOCK, Order, obey, switch_state
from headend.errors import UsageError
from headend.local_api import ask_daemon
from headend.model import Meter
from headend.store import Store
from headend.store import commands as kept
from headend.store.commands import ASKED, CommandRow

__all__ = ["clock", "commands", "relay"]

# A command waits for its line's turn, and is looked after.
_WAIT_S = 300.0
# What has no ending after so long will get none.
_LOST = timedelta(minutes=10)


@click.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.option("--set", "set_it", is_flag=True, help="Set it to this machine's time.")
@click.option("--reason", default="", help="Why, for the record.  [default: how far it was off]")
@click.option("--yes", is_flag=True, help="Do not ask for the meter's id first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def clock(site: Site, meter_id: str, set_it: bool, reason: str, yes: bool, as_json: bool) -> None:
    """Show how far a meter's clock is off, or set it.

    Setting needs [control] enabled = true in site.toml and the meter's password or keys (docs/control.md). It is sent
    once and read back; a large change tears a hole into the load profile or covers some of it, so look first.
    """
    with opened(site) as store:
        meter = find_meter(site, store, meter_id)
        off_s, detail = asyncio.run(read_clock(site, store, meter))
        if not set_it:
            _show_clock(meter, off_s, detail, as_json)
            return
        if not as_json:
            click.echo(f"clock of meter {meter.id}: {_off(off_s, detail)}", err=True)
        _confirm(meter, "set its clock", yes)
        order = Order(meter, SET_CLOCK, user(), reason or f"its clock was {_off(off_s, detail)}")
        _end(asyncio.run(_ordered(site, store, order)), as_json)


def _off(off_s: int | None, detail: str) -> str:
    return f"{off_s:+d} s off" if off_s is not None else f"not read ({detail})"


def _show_clock(meter: Meter, off_s: int | None, detail: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"meter": meter.id, "clock_offset_s": off_s, "detail": detail}, ensure_ascii=False))
    else:
        click.echo(f"clock of meter {meter.id}: {_off(off_s, detail)}")
    if off_s is None:
        raise SystemExit(1)


@click.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.argument("action", type=click.Choice(["state", DISCONNECT, RECONNECT]), default="state")
@click.option("--reason", default="", help="Why, for the record; needed to disconnect and reconnect.")
@click.option("--yes", is_flag=True, help="Do not ask for the meter's id first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def relay(site: Site, meter_id: str, action: str, reason: str, yes: bool, as_json: bool) -> None:
    """Show how a meter's supply switch stands, disconnect a consumer, or reconnect one.

    Orders need [control] enabled = true in site.toml, a reason, and the meter's password or keys; how many may be
    disconnected in 24 hours is limited (docs/control.md). Each is written down before it is sent, sent once, and the
    switch is looked at afterwards. If the answer is lost the status is `unknown`: look before doing anything else. A
    reconnected consumer may have to close the switch at the meter.

    \b
    Examples:
      headend relay M0001
      headend relay M0001 disconnect --reason "moved out, order 4711"
    """
    with opened(site) as store:
        meter = find_meter(site, store, meter_id)
        if action == "state":
            _end(asyncio.run(_state(site, store, meter)), as_json)
            return
        if not reason.strip():
            raise UsageError(f"a reason is needed to {action}", remedy='write --reason "..."; it is kept')
        _confirm(meter, f"{action} its consumer", yes)
        order = Order(meter, action, user(), reason)
        _end(asyncio.run(_ordered(site, store, order)), as_json)


@click.command()
@site_option
@click.argument("meter_id", metavar="[METER]", required=False)
@click.option("--number", "-n", default=20, show_default=True, type=click.IntRange(1, 10_000), help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, with the frames.")
def commands(site: Site, meter_id: str | None, number: int, as_json: bool) -> None:
    """List what meters were told to do, newest first: by whom, why, and how it ended."""
    with opened(site) as store:
        key = None if meter_id is None else find_meter(site, store, meter_id).key
        with store.read() as conn:
            rows = kept.commands(conn, key, limit=number)
    if as_json:
        click.echo(json.dumps([_as_json(row) for row in rows], ensure_ascii=False, indent=1))
        return
    table = Table("no", "asked", "meter", "action", "by", "reason", "status", "result", "detail")
    for row in rows:
        words = (row.meter, row.action, row.asked_by, row.reason, _status(row), row.result, row.detail)
        table.add_row(str(row.key), local(row.asked_at, site.zone), *map(escape, words))
    out.print(table if rows else "no commands")


def _status(row: CommandRow) -> str:
    """An order without an ending long after it was asked for: the program that sent it was killed."""
    lost = row.status == ASKED and now_utc() - row.asked_at > _LOST
    return "unknown" if lost else row.status


def _as_json(row: CommandRow) -> dict[str, Any]:
    return {
        "command": row.key,
        "meter": row.meter,
        "action": row.action,
        "asked_by": row.asked_by,
        "reason": row.reason,
        "asked_at": row.asked_at.isoformat(),
        "status": _status(row),
        "detail": row.detail,
        "ended_at": row.ended_at.isoformat() if row.ended_at else None,
        "result": row.result,
        "frames": [{"at": f.at.isoformat(), "direction": f.direction, "hex": f.data.hex().upper()} for f in row.frames],
    }


def _confirm(meter: Meter, what: str, yes: bool) -> None:
    """Let a person type the meter's id, so that the one meant is the one told."""
    if not yes and click.prompt(f"type the meter's id to {what}", err=True) != meter.id:
        raise UsageError(f"that is not {meter.id}: nothing was sent")


async def _state(site: Site, store: Store, meter: Meter) -> dict[str, Any]:
    reply = await ask_daemon(site.path, {"do": "relay", "meter": meter.id, "action": "state"})
    if reply is not None:
        ended: dict[str, Any] = reply["ended"]
        return ended
    line, vault = line_of(site, meter), open_vault(site, store)
    try:
        return await switch_state(line, meter, vault.access(meter))
    finally:
        await line.close()
        vault.flush()


async def _ordered(site: Site, store: Store, order: Order) -> dict[str, Any]:
    """Through the running daemon, which owns the lines; else the line is opened here."""
    request = {"do": "clock" if order.action == SET_CLOCK else "relay", "meter": order.meter.id}
    request |= {"action": order.action, "asked_by": order.asked_by, "reason": order.reason}
    reply = await ask_daemon(site.path, request, _WAIT_S)
    if reply is not None:
        ended: dict[str, Any] = reply["ended"]
        return ended
    line, vault = line_of(site, order.meter), open_vault(site, store)
    access = vault.access(order.meter)
    try:
        return await obey(order, line=line, access=access, store=store, rules=rules_of(site), clock=now_utc)
    finally:
        await line.close()
        vault.flush()


def _end(ended: dict[str, Any], as_json: bool) -> None:
    """Say how it ended; exit status 1 unless it did what was asked."""
    if as_json:
        click.echo(json.dumps(ended, ensure_ascii=False, indent=1))
    else:
        result = f", {ended['result']}" if ended["result"] else ""
        out.print(f"{ended['action']} of meter {escape(ended['meter'])}: {ended['status']}{escape(result)}")
        if ended["detail"]:
            out.print(escape(ended["detail"]), soft_wrap=True)
        if ended["status"] == "unknown":
            out.print("It was sent, and is not sent again by itself. Look at the meter before asking again.")
    if ended["status"] != DONE:
        raise SystemExit(1)

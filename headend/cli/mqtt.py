"""headend mqtt: brokers and concentrators as they are, and what came over them that could not be used."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from config.site import Site
from headend.app import meters_of, now_utc
from headend.cli.common import local, opened, out, site_option
from headend.cli.mqtt_try import try_
from headend.errors import UsageError
from headend.ingest import EvidencePolicy
from headend.local_api import ask_daemon
from headend.mqtt.interpret import Interpreter
from headend.mqtt.place import Places
from headend.mqtt.replay import replay as replayed
from headend.mqtt.service import anchors_of
from headend.mqtt.settings import channel_of
from headend.store import Store, registry, unplaced
from headend.store.unplaced import UnplacedRow

__all__ = ["broker_lines", "mqtt"]

_PAGE = 1000
_REPLAYED_AT_ONCE = 20
_CHANNELS = channel_of("")
_SHOWN_BYTES = 65_536  # of one message


@click.group()
def mqtt() -> None:
    """Concentrators that publish over MQTT: how they are, and what of them could not be used.

    \b
    Examples:
      headend mqtt status
      headend mqtt quarantine
      headend mqtt quarantine show 17
      headend mqtt quarantine replay
      headend mqtt try neuron /neuron/plant1/meter7/energy payload.json
    """


mqtt.add_command(try_)


@mqtt.command()
@site_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def status(site: Site, as_json: bool) -> None:
    """Show the connections to brokers and what was heard of each concentrator since the head-end started.

    upto: everything the concentrator numbered up to there is stored; missing: numbers above it that have not come and
    are asked for again; backlog: what it says it still holds.
    """
    live = asyncio.run(ask_daemon(site.path, {"do": "mqtt"}))
    with opened(site) as store, store.read() as conn:
        waiting = unplaced.count_unplaced(conn, _CHANNELS)
    if as_json:
        click.echo(json.dumps({"daemon": live, "quarantined": waiting}, indent=1))
        return
    if live is None:
        out.print("no head-end is running on this site")
    else:
        for broker in live["brokers"]:
            out.print(_broker_line(broker), markup=False)
            if broker["concentrators"]:
                out.print(_concentrators(broker["concentrators"], site.zone))
            for request in broker["requests"]:
                out.print(_request_line(request, site.zone), markup=False)
    if waiting:
        out.print(f"{waiting} messages wait in quarantine: `headend mqtt quarantine` lists them")


def _broker_line(broker: dict[str, Any]) -> str:
    how = "connected" if broker["connected"] else "not connected"
    if broker["paused"]:
        how = "connected, not read until the store has room"
    values = f"{broker['new']} values new, {broker['same']} known already, {broker['replaced']} replaced"
    trouble = f"; {broker['last_error']}" if broker["last_error"] else ""
    return f"broker {broker['broker']}: {how}; {broker['messages']} messages stored: {values}{trouble}"


def _request_line(request: dict[str, Any], zone: str) -> str:
    """What was sent down and is not answered yet."""
    sent, expires = (local(datetime.fromisoformat(request[key]), zone) for key in ("sent_at", "expires_at"))
    return f"line {request['line']}: {request['what']}, sent {sent}, {request['state']}, expires {expires}"


def broker_lines(live: dict[str, Any]) -> list[str]:
    """How the brokers are, a line each."""
    return [_broker_line(broker) for broker in live.get("brokers", ())]


def _concentrators(rows: list[dict[str, Any]], zone: str) -> Table:
    table = Table("concentrator", "last seen", "state", "firmware", "meters", "backlog", "messages", "upto", "missing")
    for row in rows:
        state = {None: "-", True: "online", False: "offline"}[row["online"]]
        numbers = [("-" if row[key] is None else str(row[key])) for key in ("meters", "backlog", "messages", "upto")]
        seen = local(datetime.fromisoformat(row["last_seen"]), zone)
        table.add_row(escape(row["concentrator"]), seen, state, escape(row["firmware"]), *numbers, str(row["missing"]))
    return table


# -- quarantine --------------------------------------------------------------------------------------------------------


@mqtt.group(invoke_without_command=True)
@site_option
@click.pass_context
def quarantine(context: click.Context, site: Site) -> None:
    """List messages that could not be used, whole or in part, with the reason.

    Nothing is thrown away: once a meter is imported or a mapping corrected, `replay` stores what waits.
    """
    context.obj = site
    if context.invoked_subcommand is not None:
        return
    with opened(site) as store, store.read() as conn:
        rows = unplaced.unplaced(conn, limit=_PAGE, channels=_CHANNELS)
    table = Table("key", "received", "broker", "topic", "bytes", "times", "reason")
    for row in rows:
        numbers = str(len(row.payload)), str(row.times)
        received, broker = local(row.received_at, site.zone), row.channel.removeprefix(_CHANNELS)
        table.add_row(str(row.key), received, escape(broker), escape(row.peer), *numbers, escape(row.reason))
    out.print(table if rows else "nothing waits")
    if len(rows) == _PAGE:
        out.print(f"the first {_PAGE} are shown")


@quarantine.command()
@click.pass_obj
@click.argument("key", type=int)
def show(site: Site, key: int) -> None:
    """Show one message as it came."""
    with opened(site) as store:
        row = _one(store, key)
    out.print(f"{local(row.received_at, site.zone)} by {row.channel} on {row.peer}: {row.reason}", markup=False)
    text = row.payload[:_SHOWN_BYTES].decode("utf-8", "replace")
    shown = text if text.isprintable() else row.payload[:_SHOWN_BYTES].hex().upper()
    out.print(shown, soft_wrap=True, markup=False)


@quarantine.command()
@click.pass_obj
@click.argument("keys", type=int, nargs=-1)
def replay(site: Site, keys: tuple[int, ...]) -> None:
    """Try again to use what waits, all of it or the KEYS named."""
    placed = 0
    reasons: dict[str, int] = {}
    with opened(site) as store:
        interpreters = _interpreters(site, store)
        policy = EvidencePolicy(keep_good_every=site.evidence.keep_good_every)
        with store.read() as conn:
            count = len(keys) or unplaced.count_unplaced(conn, _CHANNELS)
        rows = (_one(store, key) for key in keys) if keys else _waiting(store)
        with click.progressbar(rows, length=count, label="placing", file=sys.stderr) as bar:
            for row in bar:
                interpreter = interpreters.get(row.channel)
                reason = f"the site has no broker {row.channel.removeprefix(_CHANNELS)!r}"
                if interpreter is not None:
                    reason = replayed(store, interpreter, row, policy, now_utc())
                if reason:
                    reasons[reason] = reasons.get(reason, 0) + 1
                else:
                    placed += 1
    out.print(f"{placed} placed, {sum(reasons.values())} still wait")
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        out.print(f"  {count} × {escape(reason)}")


def _interpreters(site: Site, store: Store) -> dict[str, Interpreter]:
    """What understands the messages of each broker, by channel."""
    with store.read() as conn:
        places = Places(meters_of(site, registry.meters(conn)))
    anchors = anchors_of(store)
    return {
        channel_of(settings.name): Interpreter(
            settings, [site.dialects[name] for name in settings.dialects], places, anchors
        )
        for settings in site.brokers
    }


def _waiting(store: Store) -> Iterator[UnplacedRow]:
    """All that waits, a few at a time: together it may be more than the memory holds."""
    after = 0
    while True:
        with store.read() as conn:
            page = unplaced.unplaced(conn, after=after, limit=_REPLAYED_AT_ONCE, channels=_CHANNELS)
        if not page:
            return
        yield from page
        after = page[-1].key


def _one(store: Store, key: int) -> UnplacedRow:
    with store.read() as conn:
        found = unplaced.unplaced(conn, after=key - 1, limit=1)
    if not found or found[0].key != key or not found[0].channel.startswith(_CHANNELS):
        raise UsageError(f"no message with key {key} waits", remedy="`headend mqtt quarantine` lists what does")
    return found[0]

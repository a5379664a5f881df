"""headend quarantine: what arrived by itself and could not be placed; looked at, and placed once its meter is known."""

from __future__ import annotations

from datetime import datetime

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from config.site import Site
from headend.app import meters_of, now_utc, open_vault
from headend.cli.common import local, opened, out, site_option
from headend.cli.decode import explanation_text
from headend.errors import UsageError
from headend.ingest import EvidencePolicy, write
from headend.protocols import PROTOCOLS
from headend.protocols.dlms.intake import Arrival
from headend.push import Placed, Placer
from headend.store import Store, registry, unplaced
from headend.store.unplaced import UnplacedRow

__all__ = ["quarantine"]

_PAGE = 1000
_CHANNELS = "push "  # what came over MQTT is for `headend mqtt quarantine`


@click.group(invoke_without_command=True)
@site_option
@click.pass_context
def quarantine(context: click.Context, site: Site) -> None:
    """List what meters sent on their own and could not be placed, with the reason.

    Nothing is thrown away: once the key, the system title, the serial number or the meter model is corrected, `replay`
    places what waits.

    \b
    Examples:
      headend quarantine
      headend quarantine show 17
      headend quarantine replay
    """
    context.obj = site
    if context.invoked_subcommand is not None:
        return
    with opened(site) as store, store.read() as conn:
        rows = unplaced.unplaced(conn, limit=_PAGE, channels=_CHANNELS)
    table = Table("key", "received", "channel", "from", "bytes", "reason")
    for row in rows:
        received = local(row.received_at, site.zone)
        table.add_row(str(row.key), received, row.channel, row.peer, str(len(row.payload)), escape(row.reason))
    out.print(table if rows else "nothing waits")
    if len(rows) == _PAGE:
        out.print(f"the first {_PAGE} are shown")


@quarantine.command()
@click.pass_obj
@click.argument("key", type=int)
def show(site: Site, key: int) -> None:
    """Show one message, decoded as far as that goes without keys."""
    with opened(site) as store:
        row = _one(store, key)
    out.print(f"{local(row.received_at, site.zone)} by {row.channel} from {row.peer}: {row.reason}", markup=False)
    out.print(row.payload.hex().upper(), soft_wrap=True)
    out.print(explanation_text(PROTOCOLS["dlms"].explain(row.payload)), soft_wrap=True, markup=False)


@quarantine.command()
@click.pass_obj
@click.argument("keys", type=int, nargs=-1)
def replay(site: Site, keys: tuple[int, ...]) -> None:
    """Try again to place what waits, all of it or the KEYS named."""
    placed = 0
    reasons: dict[str, int] = {}
    with opened(site) as store:
        with store.read() as conn:
            meters = meters_of(site, registry.meters(conn))
        placer = Placer(meters, open_vault(site, store).access)
        rows = [_one(store, key) for key in keys] if keys else _waiting(store)
        for row in track(rows, description="placing", console=Console(stderr=True), transient=True):
            reason = _place(store, placer, row, now_utc())
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
            else:
                placed += 1
    out.print(f"{placed} placed, {sum(reasons.values())} still wait")
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        out.print(f"  {count} × {escape(reason)}")


def _waiting(store: Store) -> list[UnplacedRow]:
    rows: list[UnplacedRow] = []
    with store.read() as conn:
        while page := unplaced.unplaced(conn, after=rows[-1].key if rows else 0, limit=_PAGE, channels=_CHANNELS):
            rows += page
    return rows


def _one(store: Store, key: int) -> UnplacedRow:
    with store.read() as conn:
        found = unplaced.unplaced(conn, after=key - 1, limit=1)
    if not found or found[0].key != key or not found[0].channel.startswith(_CHANNELS):
        raise UsageError(f"nothing with key {key} waits", remedy="`headend quarantine` lists what does")
    return found[0]


def _place(store: Store, placer: Placer, row: UnplacedRow, now: datetime) -> str:
    """Store one message with its meter; why not, if it can't be."""
    source = row.peer.partition(" as ")[2]
    found = placer.place(Arrival(row.payload, source), row.received_at, count=False)
    if not isinstance(found, Placed):
        return found.reason
    with store.write() as conn:
        write(conn, [found.outcome], EvidencePolicy())
        unplaced.mark_replayed(conn, row.key, now)
    return ""

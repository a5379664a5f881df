"""headend estimate: fill what will never come, from what stands beside it."""

from __future__ import annotations

import click
from rich.table import Table

from config.site import Site
from headend.app import now_utc
from headend.cli.common import find_meter, local, opened, out, site_option, span
from headend.errors import UsageError
from headend.estimate import estimates
from headend.ingest import EvidencePolicy, write
from headend.quantities import Kind, quantity

__all__ = ["estimate"]


@click.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.argument("name", metavar="[QUANTITY]", default="import_kwh")
@click.option(
    "--from", "start", default=None, help="First instant, 2026-10-01 or 2026-10-01T08:15. [default: 62 days ago]"
)
@click.option("--to", "end", default=None, help="End, not included. [default: now]")
@click.option("--dry-run", is_flag=True, help="Show what would be stored; store nothing.")
def estimate(site: Site, meter_id: str, name: str, start: str | None, end: str | None, dry_run: bool) -> None:
    """Estimate the points of a register curve that will never come, between two that did.

    The energy of a gap is the difference of the registers on both its sides and stays exactly that. Its shape is a line
    up to four hours, the same time of up to four earlier weeks beyond. Points are stored as estimated, each with how it
    was made; a value that comes after all replaces its estimate. Meters that are sampled get theirs by themselves.

    \b
    Example:
      headend estimate M0001 --from 2026-11-01 --dry-run
    """
    if quantity(name).kind is not Kind.REGISTER:
        raise UsageError(f"{name} is no register", remedy="only what counts up can be shared out, such as import_kwh")
    window = span(site, start, end, days=62)
    with opened(site) as store:
        meter = find_meter(site, store, meter_id)
        found = estimates(store, meter, name, window, now_utc())
        if found and not dry_run:
            with store.write() as conn:
                write(conn, found, EvidencePolicy())
    table = Table("from", "points", "how")
    for outcome in found:
        first = outcome.readings[0].at
        table.add_row(local(first, site.zone), str(len(outcome.readings)), outcome.detail)
    out.print(table if found else "no gap that will never be filled lies between known points in that span")
    if found and dry_run:
        out.print("nothing was stored (--dry-run)")

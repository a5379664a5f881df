"""headend events: what became of a meter's status, from the status words the store holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import click
from rich.table import Table

from config.site import Site
from headend.cli.common import find_meter, local, opened, out, site_option, span
from headend.model import Meter, Window
from headend.protocols.dlt645.status import WORDS, events_of, status_flags
from headend.quantities import UNITS_PER_ONE
from headend.store import Store, readings

__all__ = ["events"]


@dataclass(frozen=True, slots=True)
class _Event:
    """A flag that changed between two reads of its word: somewhere after `after`, known at `at`."""

    at: datetime
    after: datetime
    name: str
    name_zh: str
    change: str
    outcome: int


@click.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.option(
    "--from", "start", default=None, help="First instant, 2026-10-01 or 2026-10-01T08:15. [default: 62 days ago]"
)
@click.option("--to", "end", default=None, help="End, not included. [default: now]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def events(site: Site, meter_id: str, start: str | None, end: str | None, as_json: bool) -> None:
    """Show what changed in a meter's status words: relay, batteries, phases, directions.

    The words are read by a schedule of status_word_1 to status_word_7. A change is known to lie between two reads. What
    the meter itself has recorded of an event, with its times, is asked for by identifier: `headend read METER 03110001`
    (the last power loss), 03300D01 (cover opened), and others that `headend catalogue` finds.
    """
    window = span(site, start, end, days=62)
    with opened(site) as store:
        meter = find_meter(site, store, meter_id)
        found = sorted(_events(store, meter, window), key=lambda event: event.at)
    if as_json:
        rows = [
            {
                "meter": meter.id,
                "at": event.at.isoformat(),
                "after": event.after.isoformat(),
                "flag": event.name,
                "flag_zh": event.name_zh,
                "change": event.change,
                "outcome": event.outcome,
            }
            for event in found
        ]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    table = Table("between", "and", "flag", "中文", "change", "outcome")
    for event in found:
        between, until = local(event.after, site.zone), local(event.at, site.zone)
        table.add_row(between, until, event.name, event.name_zh, event.change, str(event.outcome))
    out.print(table if found else "no change of status in that span")


def _events(store: Store, meter: Meter, window: Window) -> Iterator[_Event]:
    with store.read() as conn:
        for word in range(1, WORDS + 1):
            rows = readings.snapshots(conn, meter.key, f"status_word_{word}", window)
            for before, after in pairwise(sorted(rows, key=lambda row: row.at)):
                flags = [status_flags(word, row.units // UNITS_PER_ONE) for row in (before, after)]
                for flag, change in events_of(*flags):
                    yield _Event(after.at, before.at, flag.name, flag.name_zh, change.value, after.outcome_id)

"""headend events: what befell a meter, as its concentrator told it, or by the status words the store holds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from config.site import Site
from headend.cli.common import find_meter, local, opened, out, site_option, span
from headend.cli.read import read_wishes
from headend.errors import UsageError
from headend.model import Meter, ReadKind, Window
from headend.protocols.dlt645.status import WORDS, events_of, status_flags
from headend.quantities import UNITS_PER_ONE
from headend.store import Store, readings
from headend.store.events import MeterEvent, meter_events

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
@click.option("--ask", is_flag=True, help="Read the meter's event logs now (DLMS), and store what is new.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def events(site: Site, meter_id: str, start: str | None, end: str | None, ask: bool, as_json: bool) -> None:
    """Show what changed in a meter's status words, and what it or its concentrator has recorded with times.

    The words are read by a schedule of status_word_1 to status_word_7; a change is known to lie between two reads. The
    logs of DLMS meters are read by a schedule `read = "events"`, or now with --ask. What a DL/T 645 meter has recorded
    of an event is asked for by identifier: `headend read METER 03110001` (the last power loss), 03300D01 (cover
    opened), and others that `headend catalogue` finds.
    """
    window = span(site, start, end, days=62)
    with opened(site) as store:
        meter = find_meter(site, store, meter_id)
        if ask:
            _ask(site, store, meter, window)
        found = sorted(_events(store, meter, window), key=lambda event: event.at)
        with store.read() as conn:
            told = meter_events(conn, meter.key, window)
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
        ] + [_as_json(meter, event) for event in told]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
        return
    table = Table("between", "and", "flag", "中文", "change", "outcome")
    for event in found:
        between, until = local(event.after, site.zone), local(event.at, site.zone)
        table.add_row(between, until, event.name, event.name_zh, event.change, str(event.outcome))
    if found:
        out.print(table)
    if told:
        out.print(_told_table(told, site.zone))
    if not found and not told:
        out.print("no change of status in that span")


def _ask(site: Site, store: Store, meter: Meter, window: Window) -> None:
    """Read the meter's logs now; what it does not give is said and ends the verb."""
    if not getattr(meter.details, "event_logs", ()):
        raise UsageError(
            f"the model {meter.model.name} of meter {meter.id} names no event log",
            remedy="a DLMS model names them in [[dlms.event_log]]; `headend dlms browse` finds them",
        )
    (result,) = asyncio.run(read_wishes(site, store, meter, [(ReadKind.EVENTS, (), window)]))
    if result["status"] != "ok":
        click.echo(f"{result['status']}: {result['detail']}", err=True)
        raise SystemExit(1)


def _as_json(meter: Meter, event: MeterEvent) -> dict[str, Any]:
    return {
        "meter": meter.id,
        "at": event.at.isoformat(),
        "code": event.code,
        "phase": event.phase,
        "data": event.data,
        "outcome": event.outcome_id,
    }


def _told_table(told: list[MeterEvent], site_zone: str) -> Table:
    """Events as concentrators tell them, with their time."""
    table = Table("at", "event", "phase", "data", "outcome")
    for event in told:
        data = json.dumps(event.data, ensure_ascii=False) if event.data else ""
        at = local(event.at, site_zone)
        table.add_row(at, escape(event.code), event.phase, escape(data), str(event.outcome_id))
    return table


def _events(store: Store, meter: Meter, window: Window) -> Iterator[_Event]:
    with store.read() as conn:
        for word in range(1, WORDS + 1):
            rows = readings.snapshots(conn, meter.key, f"status_word_{word}", window)
            for before, after in pairwise(sorted(rows, key=lambda row: row.at)):
                flags = [status_flags(word, row.units // UNITS_PER_ONE) for row in (before, after)]
                for flag, change in events_of(*flags):
                    yield _Event(after.at, before.at, flag.name, flag.name_zh, change.value, after.outcome_id)

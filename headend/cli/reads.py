"""headend reads: what the store holds of a meter."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import click
from rich.table import Table

from config.site import Site
from headend.cli.common import find_meter, local, opened, out, site_option, span
from headend.model import Meter, Window
from headend.quantities import Kind, from_units, quantity, to_units
from headend.store import Store, readings

__all__ = ["reads"]

_COLUMNS = ("meter", "quantity", "at", "step_s", "value", "unit", "quality", "state", "cause", "outcome")
_MOST_SHOWN = 200


@click.command()
@site_option
@click.argument("meter_id", metavar="METER")
@click.option("--quantity", "-q", "name", default="import_interval_kwh", show_default=True, help="What to show.")
@click.option(
    "--from", "start", default=None, help="First instant, 2026-10-01 or 2026-10-01T08:15. [default: a day ago]"
)
@click.option("--to", "end", default=None, help="End, not included. [default: now]")
@click.option("--snapshots", is_flag=True, help="Registers and freezes as read, instead of the curve.")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
def reads(site: Site, meter_id: str, name: str, start: str | None, end: str | None, snapshots: bool, form: str) -> None:
    """Show stored reads of one meter: intervals, the register curve, or snapshots.

    Missing slots are shown too, with the reason. Times are the site's zone in the table, ISO 8601 with offset in CSV
    and JSON.

    \b
    Examples:
      headend reads M0001 --from 2026-10-01 --to 2026-10-02
      headend reads M0001 -q import_kwh --from 2026-10-01 --format csv
      headend reads M0001 -q import_kwh --snapshots --from 2026-10-01
    """
    window = span(site, start, end, days=1)
    wanted = quantity(name)
    with opened(site) as store:
        meter = find_meter(site, store, meter_id)
        if snapshots:
            rows = _snapshot_rows(store, meter, name, window)
        elif wanted.kind is Kind.INTERVAL:
            rows = _interval_rows(store, meter, name, window)
        else:
            rows = _curve_rows(store, meter, name, window)
    _print(site, rows, form)


def _row(meter: Meter, name: str, at: datetime, units: int | None, **more: Any) -> dict[str, Any]:
    value = None if units is None else str(from_units(units))
    row = {"meter": meter.id, "quantity": name, "at": at, "value": value, "unit": quantity(name).unit, **more}
    return {column: row.get(column) for column in _COLUMNS}


def _interval_rows(store: Store, meter: Meter, name: str, window: Window) -> list[dict[str, Any]]:
    with store.read() as conn:
        found = readings.intervals(conn, meter.key, name, window, wrap_units=to_units(meter.model.register_wrap))
    return [
        _row(
            meter,
            name,
            i.start,
            i.units,
            step_s=i.step_s,
            quality=i.quality.name.lower(),
            outcome=" ".join(map(str, i.parents)),
        )
        for i in found
    ]


def _curve_rows(store: Store, meter: Meter, name: str, window: Window) -> list[dict[str, Any]]:
    with store.read() as conn:
        points = readings.curve(conn, meter.key, name, window)
    return [
        _row(
            meter,
            name,
            p.at,
            p.units,
            quality=p.quality.name.lower(),
            state=p.state.name.lower(),
            cause=p.cause.name.lower() if p.cause else "",
            outcome=p.outcome_id or "",
        )
        for p in points
    ]


def _snapshot_rows(store: Store, meter: Meter, name: str, window: Window) -> list[dict[str, Any]]:
    with store.read() as conn:
        found = readings.snapshots(conn, meter.key, name, window)
    return [
        _row(
            meter,
            name,
            s.at,
            s.units,
            quality=s.quality.name.lower(),
            state=s.source.name.lower(),
            outcome=s.outcome_id,
        )
        for s in found
    ]


def _print(site: Site, rows: Sequence[dict[str, Any]], form: str) -> None:
    if form == "table":
        _print_table(site, rows)
        return
    plain = [{**row, "at": row["at"].isoformat()} for row in rows]
    if form == "json":
        click.echo(json.dumps(plain, indent=1))
    else:
        click.echo(_csv(plain), nl=False)


def _csv(rows: Iterable[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _print_table(site: Site, rows: Sequence[dict[str, Any]]) -> None:
    used = [c for c in _COLUMNS if any(row[c] not in (None, "") for row in rows)]
    table = Table(*used)
    for row in rows[:_MOST_SHOWN]:
        shown = {**row, "at": local(row["at"], site.zone)}
        table.add_row(*("-" if shown[c] is None else str(shown[c]) for c in used))
    if rows:
        out.print(table)
    if len(rows) > _MOST_SHOWN:
        out.print(f"... and {len(rows) - _MOST_SHOWN} more; --format csv gives all")
    if not rows:
        out.print("nothing stored for that span")

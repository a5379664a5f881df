"""headend status: completeness by line and why what is missing is missing."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import click
from rich.table import Table

from config.site import Site
from headend.app import now_utc
from headend.cli.bill_review import cycle_lines
from headend.cli.common import local, opened, out, site_option
from headend.cli.mqtt import broker_lines
from headend.local_api import ask_daemon
from headend.model import Cause, Window
from headend.store import Store, ledger, readings, registry

__all__ = ["completeness_table", "line_rows", "status"]


@click.command()
@site_option
@click.option("--days", type=click.IntRange(1, 3660), default=62, show_default=True, help="How far back to look.")
@click.option("--meters", "by_meter", is_flag=True, help="One row a meter, with its last contact.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def status(site: Site, days: int, by_meter: bool, as_json: bool) -> None:
    """Show how complete the store is, line by line, and the causes of what is missing.

    expected: values that should be there by now; got: came within their deadline; late: came after it (backfill);
    waived: will never come, and why is known; due: still missing. Completeness is (got + late) / expected.
    """
    now = now_utc()
    window = Window(now - timedelta(days=days), now)
    with opened(site) as store:
        rows = meter_rows(store, window) if by_meter else line_rows(store, window)
        cycles = cycle_lines(site, store, now)
    live = asyncio.run(ask_daemon(site.path, {"do": "lines"}))
    brokers = asyncio.run(ask_daemon(site.path, {"do": "mqtt"})) if live is not None and site.brokers else None
    if as_json:
        click.echo(
            json.dumps({"rows": rows, "daemon": live, "mqtt": brokers, "billing": cycles}, indent=1, default=str)
        )
        return
    out.print(completeness_table(rows, "meter" if by_meter else "line", site.zone))
    for text in cycles:
        out.print(text, markup=False)
    if live is None:
        out.print("no head-end is running on this site")
    else:
        for line in live["lines"]:
            doing = f"reading {line['in_flight']}" if line["in_flight"] else "idle"
            trouble = f"; {line['last_error']}" if line["last_error"] else ""
            out.print(f"line {line['line']}: {doing}, {line['lacking']} to come{trouble}")
        for text in broker_lines(brokers or {}):
            out.print(text, markup=False)


def line_rows(store: Store, window: Window) -> list[dict[str, Any]]:
    """Completeness of curves and freezes, one row a line."""
    return _grouped(store, window, by_line=True)


def meter_rows(store: Store, window: Window) -> list[dict[str, Any]]:
    """Completeness, one row a meter, with the last instant a value came."""
    rows = _grouped(store, window, by_line=False)
    with store.read() as conn:
        ids = {row.key: row.id for row in registry.meters(conn)}
        contact: dict[str, datetime] = {}
        for last in readings.last_values(conn):
            meter = ids.get(last.meter_key, "")
            contact[meter] = max(contact.get(meter, last.taken_at), last.taken_at)
    return [{**row, "last_contact": contact.get(row["meter"])} for row in rows]


def _grouped(store: Store, window: Window, *, by_line: bool) -> list[dict[str, Any]]:
    with store.read() as conn:
        meters = {row.key: row for row in registry.meters(conn)}
        found = ledger.completeness(conn, window)
    sums: dict[str, dict[str, int]] = {}
    causes: dict[str, dict[Cause, int]] = defaultdict(lambda: defaultdict(int))
    for meter in meters.values():
        sums.setdefault(meter.line if by_line else meter.id, defaultdict(int))["meters"] += 1
    for item in found:
        meter = meters[item.meter_key]
        key = meter.line if by_line else meter.id
        for name in ("expected", "got", "late", "estimated", "waived", "due"):
            sums[key][name] += getattr(item, name)
        for cause, count in item.causes.items():
            causes[key][cause] += count
    kind = "line" if by_line else "meter"
    return [
        {
            kind: key,
            **{n: row[n] for n in ("meters", "expected", "got", "late", "estimated", "waived", "due")},
            "completeness": _share(row["got"] + row["late"], row["expected"]),
            "causes": {c.name.lower(): n for c, n in sorted(causes[key].items()) if c is not Cause.NONE},
        }
        for key, row in sorted(sums.items())
    ]


def _share(part: int, whole: int) -> str:
    """A percentage, rounded down: 100.00 % means all."""
    if whole == 0:
        return "-"
    return f"{part * 10_000 // whole / 100:.2f} %"


def completeness_table(rows: Sequence[dict[str, Any]], kind: str, site_zone: str) -> Table:
    """The rows as a table for the screen."""
    table = Table(kind, "meters", "expected", "got", "late", "waived", "due", "complete", "why missing")
    if kind == "meter":
        table.columns[1].header = "last contact"
    for row in rows:
        second = str(row["meters"])
        if kind == "meter":
            second = local(row["last_contact"], site_zone) if row["last_contact"] else "never"
        why = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in row["causes"].items())
        numbers = [str(row[n]) for n in ("expected", "got", "late", "waived", "due")]
        table.add_row(row[kind], second, *numbers, row["completeness"], why)
    return table

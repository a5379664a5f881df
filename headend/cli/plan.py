"""headend plan: whether the lines can do what the schedules ask, by wire arithmetic."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click
from rich.table import Table

from config.site import Site
from headend.app import meters_of, now_utc
from headend.cli.common import opened, out, site_option
from headend.cli.line import find_line
from headend.errors import UsageError
from headend.forecast import LineForecast, forecast
from headend.store import registry

__all__ = ["plan"]


@click.command()
@site_option
@click.option("--line", "line_name", default="", metavar="NAME", help="This line only.")
@click.option(
    "--delay-ms",
    type=click.IntRange(0, 60_000),
    default=100,
    show_default=True,
    help="How long a meter takes to begin its answer; DL/T 645 allows 20 to 500.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def plan(site: Site, line_name: str, delay_ms: int, as_json: bool) -> None:
    """Predict how busy the lines will be, from site.toml and the registered meters. Needs no daemon and no meter.

    For each line and schedule: how long a round takes, its share of the line's time, when a round ends that starts at a
    boundary, alone and at worst; and how long it takes to fill all gaps within the horizon. Every meter is taken to
    answer at first asking. The speed behind a serial server is the line's wire_baud. The exit status is 1 if a line
    can't do it. See docs/lines.md.
    """
    lines = [find_line(site, line_name)] if line_name else site.lines
    with opened(site) as store, store.read() as conn:
        names = {settings.name for settings in lines}
        meters = [meter for meter in meters_of(site, registry.meters(conn)) if meter.line in names]
    if not meters:
        raise UsageError("no meters are registered there", remedy="take them in with `headend import` first")
    found = forecast(lines, meters, site.schedules, now_utc(), delay_s=delay_ms / 1000)
    if as_json:
        click.echo(json.dumps({"delay_ms": delay_ms, "lines": [_rounded(asdict(line)) for line in found]}, indent=1))
    else:
        _show(found, delay_ms)
    if any(line.fits is False for line in found):
        raise SystemExit(1)


def _rounded(value: Any) -> Any:
    """Plain data with its numbers to the microsecond."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return round(value, 6) if isinstance(value, float) else value


def _show(lines: Sequence[LineForecast], delay_ms: int) -> None:
    table = Table("line", "schedule", "meters", "exchanges", "round", "every", "share", "ends at", "at worst")
    for line in lines:
        for one in line.rounds:
            table.add_row(
                line.line,
                one.schedule,
                str(one.meters),
                str(one.exchanges),
                _span(one.round_s),
                _span(one.period_s),
                "?" if one.share is None else f"{100 * one.share:.2f} %",
                f"+{_span(one.ends_s)}",
                f"+{_span(one.latest_s)}",
            )
    out.print(table)
    out.print(f"meters begin to answer after {delay_ms} ms; ends are counted from the boundary (quarter, midnight)")
    for line in lines:
        if line.share is None:
            told = "unknown speed: set wire_baud to the speed behind the serial server"
        else:
            told = f"{line.speed}, {100 * line.share:.2f} % of its time; backfill {_span(line.backfill_takes_s)}"
            told += "; fits" if line.fits else "; DOES NOT FIT"
        out.print(f"line {line.line}: {line.meters} meters, {told}", markup=False)
        for reason in line.why_not:
            out.print(f"  ! {reason}", markup=False)


def _span(seconds: float | None) -> str:
    """A span as people read it: 12.3 s, 4:05, 1:02:03, 2 d 03:04:05."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    whole = timedelta(seconds=round(seconds))
    hours, rest = divmod(whole.seconds, 3600)
    text = f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours or whole.days else f"{rest // 60}:{rest % 60:02d}"
    return f"{whole.days} d {text}" if whole.days else text

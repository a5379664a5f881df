"""headend line: what a line does with its time, what each meter costs, what goes wrong, the last frames."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import click
from rich.table import Table

from config.site import Site
from headend.app import now_utc
from headend.cli.common import instant, local, opened, out, site_option
from headend.doctor import findings, silent_meters
from headend.endpoints import LineSettings
from headend.errors import UsageError
from headend.local_api import ask_daemon
from headend.model import Status
from headend.protocols import PROTOCOLS
from headend.store import Store
from headend.store.outcomes import jobs_of_line

__all__ = ["find_line", "frame_text", "line"]

_BAR_CELLS = 30
_STORE_SPAN = timedelta(days=1)
_BUDGET = {
    "sending": "requests on the wire",
    "waiting": "waiting for the first byte",
    "receiving": "answers coming in",
    "timeouts": "waiting in vain",
    "quiet": "silence kept, draining",
    "opening": "opening the port",
    "idle": "idle",
}
_LAYERS = {
    "no_reply": "exchanges without a byte",
    "bad_frame": "exchanges with bytes that made no answer",
    "wrong_address": "jobs another meter answered",
    "refused": "jobs with a refusal",
    "line_down": "jobs lost with the line",
}


@click.command()
@site_option
@click.argument("name", metavar="LINE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def line(site: Site, name: str, as_json: bool) -> None:
    """Show what a line does with its time, what each meter costs, what goes wrong, and the last frames, decoded.

    Asks the running daemon; without one, shows what the jobs of the last day cost, from the store. See docs/lines.md.
    """
    settings = find_line(site, name)
    reply = asyncio.run(ask_daemon(site.path, {"do": "line", "name": name}))
    if reply is not None:
        report = {"source": "daemon", **reply["report"]}
        report["findings"] = findings(report)
    else:
        with opened(site) as store:
            report = _from_store(store, settings)
        report["findings"] = silent_meters(report)
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    else:
        _show(site, report)


def find_line(site: Site, name: str) -> LineSettings:
    """The line of the site called `name`."""
    for settings in site.lines:
        if settings.name == name:
            return settings
    known = ", ".join(settings.name for settings in site.lines[:12]) or "none yet"
    raise UsageError(f"{site.path.name} has no line {name!r}", remedy=f"it has {known}")


def frame_text(frame: Mapping[str, Any], *, as_hex: bool = False) -> str:
    """A frame as told by the daemon in words, or as it stands in hex."""
    protocol = PROTOCOLS.get(frame["protocol"])
    if as_hex or protocol is None:
        return bytes.fromhex(frame["hex"]).hex(" ").upper()
    return protocol.explain(bytes.fromhex(frame["hex"])).summary


def _from_store(store: Store, settings: LineSettings) -> dict[str, Any]:
    """What the jobs of the last day say; frames and the time budget are known to the daemon only."""
    since = now_utc() - _STORE_SPAN
    with store.read() as conn:
        jobs = jobs_of_line(conn, settings.name, since)
    layers = {
        "no_reply": Status.NO_ANSWER,
        "bad_frame": Status.BAD_FRAME,
        "wrong_address": Status.WRONG_METER,
        "refused": Status.REFUSED,
        "line_down": Status.LINE_DOWN,
    }
    return {
        "source": "store",
        "since": since.isoformat(),
        "line": settings.name,
        "endpoint": str(settings.endpoint),
        "layers": {layer: sum(job.outcomes.get(status.value, 0) for job in jobs) for layer, status in layers.items()},
        "meters": [
            {
                "meter": job.meter,
                "seconds": job.seconds,
                "conversations": sum(job.outcomes.values()),
                "outcomes": job.outcomes,
            }
            for job in sorted(jobs, key=lambda job: -job.seconds)
        ],
    }


def _show(site: Site, report: Mapping[str, Any]) -> None:
    speed = f" ({report['speed']})" if report.get("speed") else ""
    out.print(f"line {report['line']}: {report['endpoint']}{speed}", markup=False)
    if report["source"] == "store":
        out.print("no head-end is running on this site: these are the jobs of the last day, from the store")
    else:
        _show_state(report)
        out.print(_budget_table(report))
    if report["meters"]:
        out.print(_meter_table(report["meters"]))
    _show_layers(report)
    for finding in report.get("findings", ()):
        out.print(f"! {finding}", markup=False)
    _show_frames(site, report.get("frames", ()))


def _show_state(report: Mapping[str, Any]) -> None:
    doing = f"reading {report['in_flight']}" if report["in_flight"] else "nothing in hand"
    counts = report["counts"]
    out.print(
        f"{report['state']}, {doing}, {report['lacking']} expected values to come; {counts['conversations']} "
        f"conversations, {counts['sends']} exchanges, {counts['sent_bytes']} bytes out, {counts['received_bytes']} in, "
        f"opened {counts['opened']} times"
    )


def _budget_table(report: Mapping[str, Any]) -> Table:
    """Where the time went, as shares of the whole."""
    budget = report["budget_s"]
    total = sum(budget.values()) or 1.0
    table = Table("time", "seconds", "share", "")
    for name, title in _BUDGET.items():
        share = budget[name] / total
        table.add_row(title, f"{budget[name]:.1f}", f"{100 * share:.1f} %", "█" * round(share * _BAR_CELLS))
    busy = total - budget["idle"]
    if report["wire_s"] is not None and busy > 0:
        share = f"{100 * report['wire_s'] / busy:.1f} %"
        table.add_row("of the time in use, bits on the wire", f"{report['wire_s']:.1f}", share, "")
    return table


def _meter_table(meters: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("meter", "seconds", "jobs", "exchanges", "bytes", "outcomes")
    for meter in meters:
        outcomes = ", ".join(f"{status} {count}" for status, count in meter["outcomes"].items())
        numbers = (str(meter.get(key, "-")) for key in ("exchanges", "bytes"))
        jobs = str(sum(meter["outcomes"].values()))
        table.add_row(meter["meter"], f"{meter['seconds']:.1f}", jobs, *numbers, outcomes)
    return table


def _show_layers(report: Mapping[str, Any]) -> None:
    wrong = [f"{count} {_LAYERS[layer]}" for layer, count in report["layers"].items() if count]
    if report["source"] == "store":
        wrong = [f"{count} jobs: {layer.replace('_', ' ')}" for layer, count in report["layers"].items() if count]
    out.print("went wrong: " + (", ".join(wrong) or "nothing"))


def _show_frames(site: Site, frames: Iterable[Mapping[str, Any]]) -> None:
    for frame in frames:
        at = local(instant(frame["at"], site.zone), site.zone)[-8:]
        out.print(
            f"{at} {frame['direction']} {frame['meter']} {frame_text(frame)}",
            markup=False,
            no_wrap=True,
            overflow="ellipsis",
        )

"""headend demo: a simulated town, discovered, read, billed and compared with its truth; then polled live."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from billing import store as bill_store
from billing.model import Bill, Derived, Determinant, RegisterPart
from billing.names import LOSS, MAXIMUM, PEOPLE, TOTAL
from billing.run import CloseReport, bill_number, close_period
from config.imports import import_files
from config.secret_rows import read_secrets
from config.site import Site
from headend import keyring
from headend.app import Daemon, now_utc
from headend.civil import zone
from headend.cli.bill import print_close
from headend.cli.common import check_address, local, opened, out, tariffs_of
from headend.cli.demo_site import by_intervals, write_site, write_tariffs
from headend.cli.run import run_loop, until_stopped
from headend.cli.status import completeness_table, line_rows
from headend.errors import HeadendError, UsageError
from headend.local_api import LocalApi
from headend.masterkey import new_master_key
from headend.model import Status, Window
from headend.quantities import from_units
from headend.store import Store, readings, registry

__all__ = ["demo"]

_MARK = ".headend-demo"
_READY_S = 60.0
_PRICES_CHANGE_ON = 16
# For so long before and after a month begins it is not sure that the demo can read a settlement: it may have to be read
# after midnight, and a meter may be renumbering its records ten minutes either side of it.
_SETTLING = timedelta(minutes=12)
_SHORTEST_MONTH = 28
_ZONE = zone("Asia/Shanghai")  # the town's
# Backfill must end well within the demo's two minutes; a town that does not answer must not hang it.
_BACKFILL_S = 110.0


@click.command()
@click.option("--once", is_flag=True, help="End after the bills: exit status 0 only if every bill equals the truth.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default="demo-town",
    show_default=True,
    help="Where the town's files go; an earlier demo's folder is replaced.",
)
def demo(once: bool, folder: Path) -> None:
    """Show the main job on a simulated town of households, shops and plants.

    Starts the town in a process of its own (DL/T 645 and DLMS meters behind serial servers, an RS-485 line at its true
    speed on a pty, modems that dial in, concentrators on an MQTT broker), lets the head-end find two months of missing
    reads, fetches them from the meters' memory, closes last month, and compares every line of every bill with the
    town's own truth: steps, hours, demand, power factor, a transformer's loss, a meter behind another, a meter
    exchanged, a tenant who moved, a new price. Then it polls live until Ctrl-C.

    Afterwards the folder is a site like any other:

    \b
      headend status  -s demo-town/site.toml
      headend explain -s demo-town/site.toml BILL
    """
    _make_folder(folder)
    result = _Result()
    run_loop(_demo(folder.resolve(), once, result))
    if once and not result.good:
        raise SystemExit(1)


@dataclass(slots=True)
class _Result:
    """Whether every bill equalled the truth."""

    good: bool = False


def _make_folder(folder: Path) -> None:
    if folder.exists():
        if not folder.is_dir() or (not (folder / _MARK).exists() and any(folder.iterdir())):
            raise UsageError(f"{folder} is there and is no demo's folder", remedy="name another with --folder")
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True)
        (folder / _MARK).write_text("made by headend demo; replaced by the next one\n")
    except OSError as error:
        raise UsageError(f"can't make {folder}: {error.strerror}", remedy="name another with --folder") from error


async def _demo(folder: Path, once: bool, result: _Result) -> None:
    stop = until_stopped()
    dial_port, broker_port = _free_port(), _free_port()
    broker = await _start_broker(folder, broker_port)
    try:
        await _with_broker(folder, once, result, stop, dial_port, broker_port)
    finally:
        await _end(broker)


async def _with_broker(
    folder: Path, once: bool, result: _Result, stop: asyncio.Event, dial_port: int, broker_port: int
) -> None:
    settled = not month_begins(now_utc())
    town = await _start_town(folder, dial_port, broker_port, settled=settled)
    try:
        write_tariffs(folder / "tariffs", town.month.replace(day=_PRICES_CHANGE_ON), settled=settled)
        site = write_site(folder, town.lines, dial_port, broker_port)
        with opened(site) as store:
            _import(site, store, folder / "truth")
            _import_secrets(site, store, folder / "truth" / "secrets.csv")
        daemon = Daemon(site)
        api = LocalApi(daemon)
        try:
            await api.start()
            await daemon.start()
            await _backfill(daemon, stop)
            _print_reads(daemon)
            result.good = _bill_and_compare(site, daemon.store, folder / "truth", town.month)
            if not once and not stop.is_set():
                await _live(daemon, stop)
        finally:
            await api.close()
            await daemon.stop()
    finally:
        await town.stop()


@dataclass(frozen=True, slots=True)
class _Town:
    """The simulator's process, where its lines are, and the first day of the month it has true bills of."""

    process: asyncio.subprocess.Process
    lines: Sequence[Mapping[str, Any]]
    month: date
    drain: asyncio.Task[None]

    async def stop(self) -> None:
        await _end(self.process)
        await self.drain


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    await process.wait()


async def _start_broker(folder: Path, port: int) -> asyncio.subprocess.Process:
    """Start the MQTT broker of the town's concentrators; they find it when it is there."""
    if find_spec("iotcore") is None:
        raise UsageError("the demo's MQTT broker is not installed", remedy="pip install 'headend[demo]'")
    command = (sys.executable, "-m", "simulators.mqtt_broker", "--port", str(port), "--folder", str(folder))
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)


def month_begins(now: datetime) -> bool:
    """Whether a month of the town's zone has only just begun or is about to."""
    before, after = ((now + shift).astimezone(_ZONE) for shift in (-_SETTLING, _SETTLING))
    return before.month != after.month


async def _start_town(folder: Path, dial_port: int, broker_port: int, *, settled: bool) -> _Town:
    """Start the simulator and wait until all its lines are up. settled: the meters' settlements can be read."""
    text = files("simulators").joinpath("towns", "demo.toml").read_text("utf-8")
    text = re.sub(r'^connect = "127\.0\.0\.1:\d+"', f'connect = "127.0.0.1:{dial_port}"', text, flags=re.MULTILINE)
    text = re.sub(r'^listen = "127\.0\.0\.1:\d+"', 'listen = "127.0.0.1:0"', text, flags=re.MULTILINE)
    text = re.sub(r'^broker = "127\.0\.0\.1:\d+"', f'broker = "127.0.0.1:{broker_port}"', text, flags=re.MULTILINE)
    if not settled:
        out.print("a month is just beginning and meters settle: every demand is billed by intervals this time")
        text = by_intervals(text)
    town_file = folder / "town.toml"
    town_file.write_text(text, "utf-8")
    out.print("starting the town of simulated meters")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headend",
        "simulate",
        str(town_file),
        "--truth",
        str(folder / "truth"),
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_READY_S):
            while line := await process.stdout.readline():
                if line.startswith(b"ready "):
                    break
    except TimeoutError:
        line = b""
    if not line:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise UsageError("the simulated town did not start", remedy="run `headend simulate` on its file to see why")
    told = json.loads(line[6:])
    month = date.fromisoformat(f"{told['month']}-01")
    return _Town(process, told["lines"], month, asyncio.create_task(_drain(process.stdout)))


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _import(site: Site, store: Store, truth: Path) -> None:
    """Take the town's asset lists in, as a utility would."""
    counts = import_files(
        store,
        site,
        meters=truth / "meters.csv",
        usage_points=truth / "usage_points.csv",
        accounts=truth / "accounts.csv",
        terms=truth / "terms.csv",
        supplies=truth / "supplies.csv",
        submeters=truth / "submeters.csv",
        tariffs={tariff.id for tariff in tariffs_of(site)},
        check_address=check_address,
    )
    added = [f"{count.added} {name.replace('_', ' ')}" for name, count in counts.items() if count.added]
    out.print(", ".join(added) + " imported")


def _import_secrets(site: Site, store: Store, file: Path) -> None:
    """Take in the meters' passwords and keys, sealed under a new master key."""
    assert site.master_key_file is not None
    master = new_master_key(site.master_key_file)
    with store.read() as conn:
        meters = {row.id: row for row in registry.meters(conn)}
    counts = keyring.put_entries(store, master, read_secrets(file, meters), now_utc())
    out.print(f"{counts.added} passwords and keys sealed under a new master key")


async def _backfill(daemon: Daemon, stop: asyncio.Event) -> None:
    """Show one bar a line until nothing is missing."""
    totals = daemon.lacking()
    out.print(f"the store lacks {sum(totals.values()):,} expected values; asking the meters' own memory")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    loop = asyncio.get_running_loop()
    end = loop.time() + _BACKFILL_S
    with Progress(*columns, console=out) as progress:
        bars = {name: progress.add_task(name, total=total) for name, total in totals.items() if total}
        while not stop.is_set() and loop.time() < end:
            lacking = daemon.lacking()
            for name, bar in bars.items():
                # What became due meanwhile adds to the total, so that a bar never runs back.
                totals[name] = max(totals[name], lacking[name])
                progress.update(bar, completed=totals[name] - lacking[name], total=totals[name])
            if not any(lacking.values()):
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await stop.wait()


def _print_reads(daemon: Daemon) -> None:
    counts: dict[Status, int] = {}
    for worker in daemon.workers.values():
        for status, count in worker.outcomes.items():
            counts[status] = counts.get(status, 0) + count
    total, good = sum(counts.values()), counts.get(Status.OK, 0)
    share = f"{good * 10_000 // total / 100:.2f} %" if total else "-"
    others = ", ".join(f"{count} {status.value}" for status, count in counts.items() if status is not Status.OK)
    out.print(f"{total} read jobs, {share} successful" + (f" ({others})" if others else ""))
    now = now_utc()
    rows = line_rows(daemon.store, Window(now - timedelta(days=63), now))
    out.print(completeness_table(rows, "line", daemon.site.zone))


def _bill_and_compare(site: Site, store: Store, truth: Path, month: date) -> bool:
    """Close `month` and lay every bill beside the town's truth; True if all are equal to the cent."""
    report = close_period(store, tariffs_of(site), month.year, month.month, now=now_utc())
    true_bills = {row["account"]: row for row in json.loads((truth / "bills.json").read_text("utf-8"))["bills"]}
    table = Table("bill", "tariff", "shows", "kWh", "billed", "truth", "difference", title=f"{month:%Y-%m}")
    table.title_justify = "left"
    for column in table.columns[3:]:
        column.justify = "right"
    wrong = 0
    with store.read() as conn:
        for account, true_bill in sorted(true_bills.items()):
            bill = bill_store.bill(conn, bill_number(account, month.year, month.month))
            wrong += not _bill_row(table, account, bill, true_bill)
    out.print(table)
    _print_verdict(report, f"{month:%Y-%m}", len(true_bills), wrong)
    return wrong == 0 and bool(true_bills)


def _bill_row(table: Table, account: str, bill: Bill | None, true_bill: Mapping[str, Any]) -> bool:
    """Add one row; True if the bill is issued and every line equals the truth."""
    truth = Decimal(true_bill["total"])
    if bill is None or bill.total is None:
        table.add_row(bill.number if bill else account, "", "", "", bill.state if bill else "no bill", f"{truth}", "?")
        return False
    lines = [(line.code, line.quantity, line.amount) for line in bill.lines]
    true_lines = [(row["code"], Decimal(row["quantity"]), Decimal(row["amount"])) for row in true_bill["lines"]]
    energy = next(d.value for d in bill.determinants if d.name == TOTAL)
    difference = bill.total - truth
    mark = f"{difference:.2f}" if lines == true_lines else f"{difference:.2f} lines differ"
    table.add_row(bill.number, bill.tariff, ", ".join(_shows(bill)), f"{energy:.2f}", f"{bill.total}", f"{truth}", mark)
    return difference == 0 and lines == true_lines


def _shows(bill: Bill) -> list[str]:
    """What kinds of charges a bill has, and what happened within its month."""
    codes = " ".join(line.code for line in bill.lines)
    marks = (("step", "steps"), ("energy_peak", "hours"), ("basic_demand", "demand"), ("basic_excess", "excess"))
    more = (("basic_capacity", "capacity"), ("pf_adjust", "power factor"))
    found = [word for mark, word in (*marks, *more) if mark in codes]
    meters = {part.meter for one in bill.determinants for part in one.parents if isinstance(part, RegisterPart)}
    days = (bill.window.end - bill.window.start).days
    found += ["kept by the meter"] if any(_kept(one) for one in bill.determinants) else []
    found += ["transformer"] if any(one.name == LOSS for one in bill.determinants) else []
    parts = [part.name for one in bill.determinants for part in one.parents if isinstance(part, Derived)]
    found += ["a meter behind"] if any(name.startswith("submeter ") for name in parts) else []
    found += ["meter exchanged"] if len(meters) > 1 else []
    found += ["new price"] if len(bill.segments) > 1 else []
    found += [f"{days} days"] if days < _SHORTEST_MONTH else []
    found += [f"{one.value} people" for one in bill.determinants if one.name.partition("@")[0] == PEOPLE][:1]
    return found


def _kept(one: Determinant) -> bool:
    """Whether it is a demand that the meter itself kept."""
    return one.name == MAXIMUM and any(isinstance(part, RegisterPart) for part in one.parents)


def _print_verdict(report: CloseReport, month: str, bills: int, wrong: int) -> None:
    print_close(report, month)
    if wrong:
        out.print(f"[red]{wrong} of {bills} bills differ from the truth[/red]")
    else:
        out.print(f"[green]all {bills} bills equal the town's truth; difference 0.00[/green]")


async def _live(daemon: Daemon, stop: asyncio.Event) -> None:
    """Poll on and show it, until stopped."""
    out.print("polling live; Ctrl-C ends it")
    with Live(_live_table(daemon), console=out, refresh_per_second=2) as live:
        while not stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await stop.wait()
            live.update(_live_table(daemon))


def _live_table(daemon: Daemon) -> Table:
    table = Table("line", "now", "jobs", "to come", "newest value", "at")
    newest = _newest(daemon)
    for name, worker in daemon.workers.items():
        doing = f"reading {worker.current.meter.id}" if worker.current else "waiting"
        jobs = sum(worker.outcomes.values())
        value, at = newest.get(name, ("", None))
        when = local(at, daemon.site.zone) if at else ""
        table.add_row(name, doing, str(jobs), str(daemon.board.lacking(name)), value, when)
    return table


def _newest(daemon: Daemon) -> dict[str, tuple[str, datetime]]:
    """The newest register of each line."""
    newest: dict[str, tuple[str, datetime]] = {}
    with daemon.store.read() as conn, suppress(HeadendError):
        meters = {row.key: row for row in registry.meters(conn)}
        for last in readings.last_values(conn):
            meter = meters[last.meter_key]
            if last.quantity == "import_kwh" and (meter.line not in newest or last.at > newest[meter.line][1]):
                newest[meter.line] = (f"{meter.id} {from_units(last.units):.2f} kWh", last.at)
    return newest

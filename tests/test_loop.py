"""The daemon as a user runs it, against the simulated town as another process: backfill, kill -9, faults, bills.

Everything stored as valid must equal the town's truth, whatever the lines did to the frames.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headend.app import now_utc
from headend.civil import from_epoch_s
from headend.model import Quality, SlotState, Window
from headend.store import Store, open_store, readings, registry
from headend.store.ledger import completeness

_WAIT_S = 90.0

_TOWN = """
[town]
name = "loop"
zone = "Asia/Shanghai"
seed = 7
installed = "2024-01-01"

[[line]]
name = "server"
kind = "tcp"

[[group]]
line = "server"
count = 3
meter_id = "A{n:02d}"
address = "2499010{n:05d}"
tariff = "cn-zhejiang-residential-step"

[[group]]
line = "server"
count = 2
meter_id = "B{n:02d}"
address = "2499020{n:05d}"
form = "record"
tariff = "cn-zhejiang-residential-tou-step"
"""

_TARIFFS = """
[[tariff]]
id = "cn-zhejiang-residential-step"
kind = "year-step"
limits_kwh = [2760, 4800]
prices = ["0.538", "0.588", "0.838"]

[[tariff]]
id = "cn-zhejiang-residential-tou-step"
kind = "year-step-tou"
limits_kwh = [2760, 4800]
adders = ["0.05", "0.30"]
prices = { peak = "0.568", valley = "0.288" }

[[tariff.season]]
months = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
peak = ["08:00-22:00"]
valley = ["22:00-08:00"]
"""

_SITE = """
[site]
name = "loop"
store = "{store}"

[[line]]
name = "server"
endpoint = "{endpoint}"
reply_s = 0.4
gap_s = 0.1

[[schedule]]
name = "curve"
read = "curve"

[[schedule]]
name = "freeze"
read = "daily_freeze"
"""


@dataclass(frozen=True)
class Site:
    """A site of the test: its folder and the store's URL."""

    folder: Path
    url: str

    @property
    def truth(self) -> Path:
        return self.folder / "truth"

    def headend(self, *words: str, ok: bool = True) -> str:
        """Run `headend WORDS` to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "headend", *words], cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == ok, done.stdout + done.stderr
        return done.stdout + done.stderr

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = open_store(self.url)
        try:
            yield store
        finally:
            store.close()


@contextmanager
def town(folder: Path, faults: str = "") -> Iterator[dict[str, Any]]:
    """A simulated town in a process of its own; what it announced."""
    (folder / "town.toml").write_text(_TOWN + faults + _TARIFFS)
    process = subprocess.Popen(
        [sys.executable, "-m", "headend", "simulate", "town.toml", "--truth", "truth"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready "), line
        yield json.loads(line[6:])
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def site_of(folder: Path, url: str, faults: str = "") -> Iterator[Site]:
    """A running town and a head-end site for it, checked and imported by the command line."""
    with town(folder, faults) as announced:
        endpoint = announced["lines"][0]["endpoint"]
        (folder / "site.toml").write_text(_SITE.format(store=url, endpoint=endpoint))
        site = Site(folder, url)
        files = [
            "--meters", "truth/meters.csv", "--usage-points", "truth/usage_points.csv",
            "--accounts", "truth/accounts.csv",
        ]  # fmt: skip
        assert "all good" in site.headend("check", *files)
        assert "meters: 5 added" in site.headend("import", *files)
        assert "meters: 0 added, 0 changed, 5 as before" in site.headend("import", *files)
        yield site


@contextmanager
def running(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    """`headend run` in a process group of its own; killed at the end unless it has stopped."""
    with (site.folder / "run.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headend", "run"], cwd=site.folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def filled(store: Store) -> tuple[int, int]:
    """Slots that have a value, and slots still due."""
    now = now_utc()
    with store.read() as conn:
        rows = completeness(conn, Window(now - timedelta(days=63), now))
    return sum(row.got + row.late for row in rows), sum(row.due for row in rows)


def wait_for(process: subprocess.Popen[bytes], site: Site, at_least: int, *, all_of_it: bool) -> None:
    """Wait until the store holds that many values (and, if asked, nothing is due)."""
    end = time.monotonic() + _WAIT_S
    with site.store() as store:
        while True:
            got, due = filled(store)
            if got >= at_least and not (all_of_it and due):
                return
            assert process.poll() is None, (site.folder / "run.log").read_text()
            assert time.monotonic() < end, f"{got} values, {due} due after {_WAIT_S} s"
            time.sleep(0.1)


def check_truth(site: Site) -> tuple[int, int]:
    """Compare every valid stored point with the town's truth; counts of points right and of points missing."""
    right = missing = 0
    with site.store() as store, store.read() as conn:
        keys = {row.id: row.key for row in registry.meters(conn)}
        for line in (site.truth / "registers.jsonl").read_text().splitlines():
            truth = json.loads(line)
            start_s, step_s = truth["start_s"], truth["step_s"]
            true_units = {start_s + i * step_s: value * 100 for i, value in enumerate(truth["registers"])}
            window = Window(from_epoch_s(start_s), from_epoch_s(max(true_units) + 1))
            points = readings.curve(conn, keys[truth["meter_id"]], "import_kwh", window)
            assert len({p.at for p in points}) == len(points)
            for point in points:
                if point.units is None:
                    missing += 1
                elif point.quality is Quality.VALID:
                    assert point.units == true_units[int(point.at.timestamp())], f"{truth['meter_id']} {point.at}"
                    assert point.state in (SlotState.GOT, SlotState.LATE)
                    right += 1
    return right, missing


def check_bills(site: Site) -> None:
    truth = json.loads((site.truth / "bills.json").read_text())
    month = f"{truth['year']:04d}-{truth['month']:02d}"
    assert "5 issued, 0 held" in site.headend("bill", "close", month)
    assert "0 issued, 0 held, 5 issued before" in site.headend("bill", "close", month)
    found = {bill["account"]: bill for bill in json.loads(site.headend("bill", "list", month, "--json"))}
    for true_bill in truth["bills"]:
        bill = found[true_bill["account"]]
        assert Decimal(bill["total"]) == Decimal(true_bill["total"])
        assert [(line["code"], Decimal(line["quantity"]), Decimal(line["amount"])) for line in bill["lines"]] == [
            (line["code"], Decimal(line["quantity"]), Decimal(line["amount"])) for line in true_bill["lines"]
        ]


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_killed_in_mid_backfill_nothing_is_lost_or_doubled_and_the_bills_are_true(
    tmp_path: Path, store_url: str
) -> None:
    with site_of(tmp_path, store_url) as site:
        for part in (2_000, 9_000):
            with running(site) as process:
                wait_for(process, site, part, all_of_it=False)
        with running(site) as process:
            wait_for(process, site, 5 * 61 * 96, all_of_it=True)
            shown = json.loads(site.headend("read", "A01", "import_kwh", "voltage_v_a", "--json"))  # by the daemon
            assert [r["unit"] for r in shown["readings"]] == ["kWh", "V", "s"]
            assert shown["frames"][0]["direction"] == ">"
            stop(process)
        right, missing = check_truth(site)
        assert right >= 5 * 61 * 96
        assert missing <= 5 * 2  # at most the edge of the meters' memory, which moves on while they are read
        with site.store() as store, store.read() as conn:
            for meter in registry.meters(conn):
                window = Window(now_utc() - timedelta(days=63), now_utc())
                assert readings.revisions(conn, meter.key, "import_kwh", window) == []
        check_bills(site)
        explained = site.headend("explain", _first_bill(site))
        assert "daily freeze" in explained
        assert re.search(r"< (FE)*68[0-9A-F]{12}6891", explained)


def _first_bill(site: Site) -> str:
    truth = json.loads((site.truth / "bills.json").read_text())
    return f"{truth['bills'][0]['account']}-{truth['year']:04d}-{truth['month']:02d}"


_FAULTS = """
[[fault]]
line = "server"
kind = "{kind}"
probability = {probability}
"""


@pytest.mark.parametrize(
    ("kind", "probability"),
    [
        ("flip", 0.03),
        ("noise", 0.2),
        *[
            pytest.param(kind, probability, marks=pytest.mark.slow)
            for kind, probability in (("cut", 0.01), ("foreign", 0.02), ("silence", 0.005), ("drop", 0.005))
        ],
    ],
)
def test_faults_on_the_line_never_become_wrong_values(
    tmp_path: Path, new_sqlite_url: str, kind: str, probability: float
) -> None:
    with site_of(tmp_path, new_sqlite_url, _FAULTS.format(kind=kind, probability=probability)) as site:
        with running(site) as process:
            wait_for(process, site, 6_000, all_of_it=False)
            stop(process)
        right, _ = check_truth(site)
        assert right >= 5_500

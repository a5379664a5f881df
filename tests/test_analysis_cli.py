"""headend analyse on a stored district: the thief is named with its evidence, losses sum, refusals are one line."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headend.civil import zone
from headend.ingest import EvidencePolicy, write
from headend.model import Meter, Outcome, Reading, ReadJob, ReadKind, Source, Status
from headend.store import open_store, registry
from headend.store.events import MeterEvent, put_events
from simulators.household import Household, Load
from tests.helpers import MODEL

_SITE = """
[site]
name = "town"
zone = "Asia/Shanghai"

[[line]]
name = "L"
endpoint = "tcp://127.0.0.1:9"
"""
TZ = zone("Asia/Shanghai")
START = datetime(2026, 9, 1, tzinfo=TZ).astimezone(UTC)
HOURS = 61 * 24
THEFT_HOUR = 40 * 24  # 11 October
HOMES = 12
RATIO = Decimal(20)  # current transformers of the sum meter


@dataclass(frozen=True)
class Town:
    """A folder with site.toml and its store; what the month's supply and counted use truly are, kWh."""

    folder: Path
    supply: Decimal
    counted: Decimal

    def run(self, *words: str, code: int = 0) -> tuple[str, str]:
        command = [sys.executable, "-m", "headend", "analyse", *words]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    def json(self, *words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run(*words, "--month", "2026-10", "--json")[0])
        return found


def _register(values: Sequence[float], resolution: str) -> list[Decimal]:
    total, shown, step = 0.0, [Decimal(100)], Decimal(resolution)
    for value in values:
        total += value
        shown.append(100 + step * int(total / float(step)))
    return shown


def _store(conn: Any, meter: Meter, register: Sequence[Decimal], dead_hours: range = range(0)) -> None:
    points = [
        Reading("import_kwh", value, at, at + timedelta(minutes=2), Source.CURVE, 3600)
        for hour, value in enumerate(register)
        if hour not in dead_hours and (at := START + timedelta(hours=hour))
    ]
    job = ReadJob(meter, ReadKind.CURVE, ("import_kwh",))
    write(conn, [Outcome(job, Status.OK, points[-1].taken_at, 1.0, tuple(points))], EvidencePolicy())


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """Twelve homes, one of which hides half of its use from 11 October on, and a sum meter behind transformers."""
    folder = tmp_path_factory.mktemp("town")
    (folder / "site.toml").write_text(_SITE)
    chance, installed = random.Random(4), START.date().toordinal() + 1 - date(1970, 1, 1).toordinal()
    homes = [Household(Load(seed=70 + k, daily_wh=6_000 + 700 * k, installed_day=installed)) for k in range(HOMES)]
    at = [int(START.timestamp()) + 3600 * hour for hour in range(HOURS + 1)]
    true = [[(h.used_units(b) - h.used_units(a)) / 10_000 for a, b in pairwise(at)] for h in homes]
    load = [sum(row) for row in zip(*true, strict=True)]
    supply = [use * 1.02 + 0.05 + chance.uniform(-0.02, 0.02) for use in load]
    counted = [*true[:3], [v * (0.5 if h >= THEFT_HOUR else 1) for h, v in enumerate(true[3])], *true[4:]]
    store = open_store(f"sqlite:///{folder / 'headend.db'}")
    with store.write() as conn:
        names = [*(f"M{k:02d}" for k in range(HOMES)), "SUM"]
        place = ("L", "dlt645-2007-1ph", "+08:00", MODEL.register_wrap, 3600)
        registry.put_meters(
            conn, [registry.MeterRow(m, "dlt645-2007", f"{i:012d}", *place) for i, m in enumerate(names)]
        )
        registry.put_usage_points(conn, [registry.UsagePointRow(f"U-{name}", "D1") for name in names])
        registry.put_installations(
            conn,
            [
                registry.InstallationRow(f"U-{name}", name, START, None, RATIO if name == "SUM" else Decimal(1))
                for name in names
            ],
        )
        keys = {row.id: row.key for row in registry.meters(conn)}
        registers = [*(_register(row, "0.01") for row in counted), _register([v / 20 for v in supply], "0.01")]
        for name, register in zip(names, registers, strict=True):
            _store(conn, Meter(keys[name], name, "", "dlt645-2007", "L", MODEL), register)
        put_events(conn, [MeterEvent(keys["M03"], START + timedelta(hours=THEFT_HOUR), "cover_open", "start")])
    store.close()
    first = 30 * 24
    month = [register[-1] - register[first] for register in registers]
    return Town(folder, month[-1] * RATIO, sum(month[:-1], Decimal(0)))


def test_losses_are_supply_less_what_meters_counted(town: Town) -> None:
    [row] = town.json("losses", "--district", "D1", "--sum-point", "U-SUM")
    assert row["days"] == 31
    assert Decimal(row["supply_kwh"]) == town.supply
    assert Decimal(row["loss_kwh"]) == town.supply - town.counted
    assert row["changed_on"] in ("2026-10-10", "2026-10-11", "2026-10-12")
    assert float(row["share_after"]) > float(row["share_before"]) + 0.02
    by_day = town.json("losses", "--district", "D1", "--sum-point", "U-SUM", "--days")
    assert [r["day"] for r in by_day] == [f"2026-10-{day:02d}" for day in range(1, 32)]
    assert sum(Decimal(r["loss_kwh"]) for r in by_day) == town.supply - town.counted


def test_the_thief_is_named_with_numbers_and_dates(town: Town) -> None:
    (town.folder / "districts.csv").write_text("district,sum_point\nD1,U-SUM\n")
    try:
        first, *others = town.json("suspects")
        table = town.run("suspects", "--month", "2026-10")[0]
        consumers = town.json("classes")
        rows = list(csv.DictReader(io.StringIO(town.run("suspects", "--month", "2026-10", "--csv")[0])))
    finally:
        (town.folder / "districts.csv").unlink()
    assert (first["usage_point"], first["district"], first["meters"]) == ("U-M03", "D1", ["M03"])
    assert others == []
    reasons = {reason["kind"]: reason for reason in first["reasons"]}
    assert set(reasons) == {"follows", "step_down", "same_time", "sign"}
    assert "over 504 hours" in reasons["follows"]["text"], "21 days from the change on"
    assert any(f"as if {share}% of the use" in reasons["follows"]["text"] for share in range(44, 57))
    assert reasons["step_down"]["since"] in ("2026-10-10", "2026-10-11", "2026-10-12")
    assert reasons["sign"]["text"].startswith("event cover_open: 2026-10-11 00:00")
    assert first["score"] == pytest.approx(sum(reason["weight"] for reason in first["reasons"]), abs=0.02)
    assert "U-M03" in table
    assert sum(row["points"] for row in consumers) == HOMES, "a sum point is no consumer"
    assert {row["kind"] for row in rows} == set(reasons)
    assert {row["rank"] for row in rows} == {"1"}


def test_without_a_sum_meter_the_meters_own_evidence_is_left(town: Town) -> None:
    out, err = town.run("suspects", "--month", "2026-10", "--json")
    assert "district D1: no sum point is told for this district" in err
    first = json.loads(out)[0]
    assert first["usage_point"] == "U-M03"
    assert {reason["kind"] for reason in first["reasons"]} == {"step_down", "sign"}


def test_fluctuation_and_classes_agree_with_the_registers(town: Town) -> None:
    found = {row["usage_point"]: row for row in town.json("fluctuation", "--district", "D1")}
    assert len(found) == HOMES + 1
    assert found["U-M03"]["mark"] in ("warn", "order")
    assert float(found["U-M03"]["beyond"]) < -0.25
    assert all(row["year_ago_kwh"] is None for row in found.values())
    rows = town.json("classes", "--edges", "0,230,400")
    assert sum(row["points"] for row in rows) == HOMES + 1
    whole = sum((Decimal(row["energy_kwh"]) for row in rows), Decimal(0))
    assert abs(whole - town.supply - town.counted) <= Decimal("0.05")
    bands = sum((Decimal(row["in_band_kwh"]) for row in rows), Decimal(0))
    assert abs(bands - whole) <= Decimal("0.05")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("losses", "--district", "D9"), "no usage point is in district 'D9'"),
        (("losses", "--sum-point", "U-SUM"), "--sum-point is for one --district"),
        (("losses", "--district", "D1", "--sum-point", "U-9"), "the sum point 'U-9' of district D1 is no usage point"),
        (("suspects", "--sums", "none.csv"), "none.csv"),
        (("classes", "--edges", "400,230"), "must rise"),
        (("classes", "--edges", "a"), "'a' are no limits"),
        (("classes", "--edges", "nan"), "'nan' are no limits"),
        (("fluctuation", "--json", "--csv"), "two forms"),
        (("fluctuation", "--month", "10"), "'10' is no month"),
    ],
    ids=str,
)
def test_refusals_are_one_line(town: Town, words: tuple[str, ...], said: str) -> None:
    out, err = town.run(*words, code=1)
    assert out == ""
    assert said in err
    assert "Traceback" not in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) <= 2


def test_a_bad_row_of_districts_is_told_with_its_place(town: Town) -> None:
    path = town.folder / "sums.csv"
    path.write_text("district,sum_point\nD1,U-SUM\nD1,U-M00\n")
    _, err = town.run("losses", "--sums", str(path), code=1)
    assert "sums.csv:3: district: district D1 stands twice" in err

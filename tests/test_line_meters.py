"""Settings of lines, and meters with a speed of their own, from the files to the port."""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.imports import import_files
from config.site import Site, load_site
from headend import collect
from headend.app import meters_of
from headend.endpoints import LineSettings, parse_endpoint
from headend.errors import ConfigError
from headend.ingest import EvidencePolicy, write
from headend.line import Line
from headend.model import Outcome, ReadJob, ReadKind, Status
from headend.store import Store
from headend.store.outcomes import jobs_of_line
from headend.store.registry import meters
from simulators.clock import SettableClock
from simulators.dlt645_frame import take
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.household import Household, Load, Register
from tests.helpers import make_meter, make_outcome, registered
from tests.imports_kit import M1, METERS, check_address, csv_file, meter_refusals

NOW = datetime(2026, 3, 18, 3, 0, 20, tzinfo=UTC)

SITE = """
[site]
name = "Town"

[[line]]
name = "east"
endpoint = "tcp://192.0.2.1:4001"
{east}

[[line]]
name = "south"
endpoint = "serial:/dev/ttyS1"
serial = "9600 8N1"
{south}
"""


def site_of(folder: Path, east: str = "", south: str = "") -> Site:
    path = folder / "site.toml"
    path.write_text(SITE.format(east=east, south=south), encoding="utf-8")
    return load_site(path)


def test_settings_of_a_line_have_their_defaults_and_are_taken(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    assert [(s.turnaround_s, s.reopen_after, s.wire_baud) for s in site.lines] == [(0.0, 5, 0)] * 2
    east, south = site_of(tmp_path, "turnaround_s = 0.05\nreopen_after = 0\nwire_baud = 2400", "turnaround_s = 1").lines
    assert (east.turnaround_s, east.reopen_after, east.wire_baud) == (0.05, 0, 2400)
    assert (south.turnaround_s, south.wire_baud) == (1.0, 0)


@pytest.mark.parametrize(
    ("east", "south", "message"),
    [
        ("wire_baud = 2401", "", 'site.toml: line[1].wire_baud: "2401" is no speed a line runs at -> use one of 300, '),
        ("", "wire_baud = 2400", "site.toml: line[2].wire_baud: the speed of a serial endpoint stands in serial -> "),
        ("turnaround_s = -1", "", "site.toml: line[1].turnaround_s: "),
        ("reopen_after = -1", "", "site.toml: line[1].reopen_after: "),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, east: str, south: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        site_of(tmp_path, east, south)
    (problem,) = caught.value.problems
    assert str(problem).startswith(message)


def test_a_meter_s_own_speed_comes_from_the_file_into_the_store_and_back(store: Store, tmp_path: Path) -> None:
    site = site_of(tmp_path)
    table = csv_file(
        tmp_path,
        "meters.csv",
        f"{METERS},serial",
        "M1,dlt645-2007,1,south,dlt645-2007-1ph, 1200   8e1 ",
        "M2,dlt645-2007,2,south,dlt645-2007-1ph,",
        "M3,dlt645-2007,3,east,dlt645-2007-1ph,",
    )
    import_files(store, site, meters=table, check_address=check_address)
    with store.read() as conn:
        rows = meters(conn)
    assert [(row.id, row.serial) for row in rows] == [("M1", "1200 8E1"), ("M2", ""), ("M3", "")]
    assert [(meter.id, meter.serial) for meter in meters_of(site, rows)] == [("M1", "1200 8E1"), ("M2", ""), ("M3", "")]
    moved = [replace(row, line="east") for row in rows]
    with pytest.raises(ConfigError) as caught:
        meters_of(site, moved)
    assert [str(problem) for problem in caught.value.problems] == [
        "meter M1: has the serial format '1200 8E1', but its line 'east' is no serial port -> "
        "import it again without, or make the line serial:/dev/..."
    ]


def test_speeds_that_make_no_sense_are_refused_where_they_stand(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    header = f"{METERS},serial"
    on_south = "M1,dlt645-2007,1,south,dlt645-2007-1ph"
    assert meter_refusals(tmp_path, site, f"{M1},2400 8E1", header=header) == [
        "meters.csv:2: serial: a meter on a tcp line has no serial format of its own -> "
        "leave the cell empty: the serial server's settings hold"
    ]
    (refusal,) = meter_refusals(tmp_path, site, f"{on_south},2401 8E1", header=header)
    assert refusal.startswith("meters.csv:2: serial: '2401' is no speed a line runs at -> use one of 300, 600, ")
    (refusal,) = meter_refusals(tmp_path, site, f"{on_south},2400", header=header)
    assert refusal == (
        "meters.csv:2: serial: '2400' is no serial format -> write speed and character format, like 2400 8E1"
    )


def test_two_meters_of_different_speed_are_read_on_one_port() -> None:
    """Each meter hears only what comes at its own speed, as on a real wire."""
    speeds = {"240101000001": termios.B9600, "240101000002": termios.B1200}
    clock = SettableClock(NOW.timestamp())
    members = {
        baud: Dlt645Meter(MeterSpec(address), Register(Household(Load(seed=n))), clock)
        for n, (address, baud) in enumerate(speeds.items(), 1)
    }

    async def main() -> list[Outcome]:
        master, slave = os.openpty()
        tty.setraw(master)

        def serve() -> None:
            request = take(bytearray(os.read(master, 300)))
            assert request is not None
            meter = members[termios.tcgetattr(slave)[5]]
            os.write(master, meter.answer(request.address, request.control, request.data) or b"")

        asyncio.get_running_loop().add_reader(master, serve)
        endpoint = parse_endpoint(f"serial:{os.ttyname(slave)}", "9600 8N1")
        line = Line(LineSettings("p", endpoint, reply_s=0.2, gap_s=0.05))
        known = [
            make_meter(1, id="quick", address="240101000001"),
            make_meter(2, id="slow", address="240101000002", serial="1200 8N1"),
            make_meter(3, id="wrong", address="240101000002"),  # its speed was forgotten
        ]
        jobs = [ReadJob(meter, ReadKind.REGISTERS, ("import_kwh",)) for meter in known]
        outcomes = [await collect.run(line, job, clock=lambda: NOW) for job in (*jobs, jobs[0])]
        assert line.stats.meters is not None
        assert {name: cost.conversations for name, cost in line.stats.meters.items()} == {
            "quick": 2,
            "slow": 1,
            "wrong": 1,
        }
        await line.close()
        asyncio.get_running_loop().remove_reader(master)
        os.close(slave)
        os.close(master)
        return outcomes

    statuses = [outcome.status for outcome in asyncio.run(main())]
    assert statuses == [Status.OK, Status.OK, Status.NO_ANSWER, Status.OK]


def test_jobs_are_summed_by_meter_of_a_line(store: Store) -> None:
    one, two, _ = registered(store, 3)
    with store.write() as conn:
        outcomes = [
            make_outcome(one, started_at=NOW),
            make_outcome(one, started_at=NOW),
            make_outcome(one, started_at=NOW, status=Status.NO_ANSWER),
            make_outcome(one, started_at=datetime(2026, 1, 1, tzinfo=UTC)),  # too long ago
            make_outcome(two, started_at=NOW, status=Status.REFUSED),
        ]
        write(conn, outcomes, EvidencePolicy())
    with store.read() as conn:
        found = jobs_of_line(conn, "bus-1", NOW)
        assert jobs_of_line(conn, "other", NOW) == []
    assert [(jobs.meter, jobs.seconds, jobs.outcomes) for jobs in found] == [
        ("M000001", 0.75, {"ok": 2, "no answer": 1}),
        ("M000002", 0.25, {"refused": 1}),
        ("M000003", 0.0, {}),
    ]

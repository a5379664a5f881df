"""The verbs about lines against a running daemon and without one: line, trace, scan, plan."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from config.imports import import_files
from config.site import load_site
from headend.app import Daemon
from headend.local_api import LocalApi, follow_daemon, socket_path
from headend.model import FrameRecord, Priority, ReadJob, ReadKind
from headend.protocols import PROTOCOLS
from headend.store import open_store
from headend.store.registry import MeterRow, meters
from simulators.bus import Bus
from simulators.clock import RunningClock
from simulators.dial import DialLine
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.household import Household, Load, Register
from simulators.tcp import TcpLine
from tests.servers import free_port

METERS = ("A01", "A02", "A03")
SILENT = "A09"

_SITE = """
[site]
name = "t"

[[line]]
name = "server"
endpoint = "{endpoint}"
reply_s = 0.3
gap_s = 0.05
quiet_s = 0.0

[[line]]
name = "dead"
endpoint = "tcp://127.0.0.1:{dead}"
wire_baud = 1200

[[schedule]]
name = "now"
read = "registers"
quantities = ["import_kwh"]
every_min = {every_min}
"""


def address(meter: str) -> str:
    return f"2401010000{meter[1:]}"


def prepare(folder: Path, endpoint: str, *, every_min: int = 60, on_dead: int = 1) -> Path:
    """A site with its meters registered; the path of its file."""
    path = folder / "site.toml"
    path.write_text(_SITE.format(endpoint=endpoint, dead=free_port(), every_min=every_min), encoding="utf-8")
    rows = [f"{m},dlt645-2007,{address(m)},server,dlt645-2007-1ph" for m in (*METERS, SILENT)]
    rows += [f"D{n:02d},dlt645-2007,{n},dead,dlt645-2007-1ph" for n in range(1, on_dead + 1)]
    table = folder / "meters.csv"
    table.write_text("\n".join(("meter_id,protocol,address,line,model", *rows, "")), encoding="utf-8")
    site = load_site(path)
    store = open_store(site.store_url)
    import_files(store, site, meters=table, check_address=lambda p, a: PROTOCOLS[p].check_address(a))
    store.close()
    return path


@asynccontextmanager
async def simulated() -> AsyncIterator[str]:
    """Three meters behind a serial server; its endpoint."""
    clock = RunningClock(time.time())
    members = [
        (name, Dlt645Meter(MeterSpec(address(name)), Register(Household(Load(seed=n))), clock))
        for n, name in enumerate(METERS)
    ]
    server = TcpLine(Bus(members, clock), "127.0.0.1", 0)
    await server.start()
    try:
        yield server.endpoint()
    finally:
        await server.stop()


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Daemon]:
    """The daemon of a site with its door."""
    daemon = Daemon(load_site(path))
    api = LocalApi(daemon)
    await api.start()
    await daemon.start()
    try:
        yield daemon
    finally:
        await api.close()
        await daemon.stop()
        await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool], wait_s: float = 20.0) -> None:
    """Wait for something in this process that tells nobody when it happens."""
    async with asyncio.timeout(wait_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def start(folder: Path, *words: str) -> asyncio.subprocess.Process:
    """`headend WORDS` as a process of its own."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "140"}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "headend", *words, cwd=folder, stdout=pipe, stderr=pipe, env=environment
    )


async def headend(folder: Path, *words: str) -> tuple[int | None, str, str]:
    """`headend WORDS`: exit status, output, errors."""
    process = await start(folder, *words)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


def registered(path: Path) -> list[MeterRow]:
    """The meters in a site's store."""
    store = open_store(load_site(path).store_url)
    with store.read() as conn:
        rows = meters(conn)
    store.close()
    return rows


def daemon_test(folder: Path, talk: Callable[[Daemon, Path], Awaitable[None]]) -> None:
    """Run `talk` beside a daemon that has read its meters once."""

    async def main() -> None:
        async with simulated() as endpoint:
            path = prepare(folder, endpoint)
            async with running(path) as daemon:
                await until(lambda: sum(daemon.workers["server"].outcomes.values()) > len(METERS))
                await talk(daemon, folder)

    asyncio.run(main())


def read_job(daemon: Daemon, meter_id: str) -> ReadJob:
    meter = next(m for m in daemon.meters if m.id == meter_id)
    return ReadJob(meter, ReadKind.REGISTERS, ("import_kwh",), None, Priority.ON_DEMAND, "on demand")


def test_line_shows_the_running_line(tmp_path: Path) -> None:
    async def talk(_daemon: Daemon, folder: Path) -> None:
        status, out, err = await headend(folder, "line", "server", "--json")
        assert (status, err) == (0, "")
        report = json.loads(out)
        assert (report["source"], report["line"], report["state"]) == ("daemon", "server", "open")
        assert sorted(m["meter"] for m in report["meters"]) == [*METERS, SILENT]
        by_meter = {m["meter"]: m for m in report["meters"]}
        assert by_meter["A01"]["outcomes"] == {"ok": 1}
        assert by_meter[SILENT]["outcomes"].keys() == {"no answer"}
        assert report["meters"][0]["meter"] == SILENT  # the dearest first
        assert by_meter["A01"]["exchanges"] == 1
        assert report["layers"]["no_reply"] == by_meter[SILENT]["exchanges"]
        assert report["budget_s"]["timeouts"] > 0.5
        assert report["budget_s"]["idle"] >= 0
        assert report["counts"]["sends"] == sum(m["exchanges"] for m in report["meters"])
        assert any("1 of 4 meters never answered (A09)" in finding for finding in report["findings"])
        directions = [f["direction"] for f in report["frames"]]
        assert directions[:2] == [">", "<"]

        status, out, _ = await headend(folder, "line", "server")
        assert status == 0
        for words in ("waiting for the first byte", "exchanges without a byte", "! 1 of 4 meters never answered"):
            assert words in out
        assert "< A01 answer from 240101000001: read data: 00010000" in out

        status, out, _ = await headend(folder, "line", "dead")
        assert status == 0
        assert "! the line is down: can't connect to 127.0.0.1" in out

    daemon_test(tmp_path, talk)


def test_line_without_a_daemon_tells_the_last_day_from_the_store(tmp_path: Path) -> None:
    async def talk(_daemon: Daemon, _folder: Path) -> None:
        """The daemon only has to have run."""

    daemon_test(tmp_path, talk)
    status, out, _ = asyncio.run(headend(tmp_path, "line", "server", "--json"))
    assert status == 0
    report = json.loads(out)
    assert report["source"] == "store"
    assert {m["meter"]: m["outcomes"] for m in report["meters"] if m["meter"] != SILENT} == {
        name: {"ok": 1} for name in METERS
    }
    assert report["layers"]["no_reply"] >= 1
    status, out, _ = asyncio.run(headend(tmp_path, "line", "server"))
    assert "no head-end is running on this site: these are the jobs of the last day, from the store" in out
    assert asyncio.run(headend(tmp_path, "line", "west"))[2] == (
        "error: site.toml has no line 'west' -> it has server, dead\n"
    )


def test_trace_follows_one_meter_until_ctrl_c(tmp_path: Path) -> None:
    async def talk(daemon: Daemon, folder: Path) -> None:
        words = await start(folder, "trace", "server", "--meter", "A02")
        as_hex = await start(folder, "trace", "server", "--meter", "A02", "--hex")
        await until(lambda: len(daemon.lines["server"].taps) == 2)
        async with asyncio.timeout(20):
            await daemon.ask(read_job(daemon, "A01"))
            await daemon.ask(read_job(daemon, "A02"))
            assert words.stdout is not None
            assert as_hex.stdout is not None
            told = [(await words.stdout.readline()).decode() for _ in range(2)]
            raw = [(await as_hex.stdout.readline()).decode() for _ in range(2)]
        assert "> A02 request to 240101000002: read data: 00010000" in told[0]
        assert "< A02 answer from 240101000002: read data: 00010000" in told[1]
        assert "> A02 FE FE FE FE 68 02 00 00 01 01 24 68 11 04 33 33 34 33" in raw[0]
        for process in (words, as_hex):
            process.send_signal(signal.SIGINT)
            rest, err = await asyncio.wait_for(process.communicate(), 20)
            assert (process.returncode, rest, err) == (0, b"", b"stopped\n")
        await until(lambda: not daemon.lines["server"].taps)

    daemon_test(tmp_path, talk)


def test_trace_ends_with_the_daemon_and_is_refused_without_one(tmp_path: Path) -> None:
    traces: list[asyncio.subprocess.Process] = []

    async def main() -> None:
        async with simulated() as endpoint:
            path = prepare(tmp_path, endpoint)
            async with running(path) as daemon:
                status, _, err = await headend(tmp_path, "trace", "server", "--meter", "Z")
                assert (status, err) == (1, "error: line server has no meter 'Z'\n")
                traces.append(await start(tmp_path, "trace", "server"))
                await until(lambda: bool(daemon.lines["server"].taps))
            _, err_bytes = await asyncio.wait_for(traces[0].communicate(), 20)
            assert (traces[0].returncode, err_bytes) == (0, b"the head-end has stopped\n")
            status, _, err = await headend(tmp_path, "trace", "server")
            assert (status, err) == (1, "error: no head-end is running on this site -> start `headend run`\n")

    asyncio.run(main())


def test_a_reader_that_is_slow_loses_frames_and_never_holds_the_line(tmp_path: Path) -> None:
    total = 30_000

    async def talk(daemon: Daemon, folder: Path) -> None:
        line = daemon.lines["server"]
        reader, writer = await asyncio.open_unix_connection(socket_path(folder / "site.toml"), limit=1000)
        writer.write(json.dumps({"do": "trace", "line": "server"}).encode() + b"\n")
        await until(lambda: bool(line.taps))
        frame = FrameRecord(datetime(2026, 1, 1, tzinfo=UTC), "<", bytes(200))
        for number in range(total):  # nobody reads meanwhile
            for tap in line.taps:
                tap("A01", frame)
            if number % 100 == 0:
                await asyncio.sleep(0)
        outcome = await asyncio.wait_for(daemon.ask(read_job(daemon, "A02")), 5)
        assert outcome.readings
        heard, last = 0, {"dropped": 0}
        while heard + last["dropped"] < total + 2:
            last = json.loads(await asyncio.wait_for(reader.readline(), 5))
            heard += 1
        assert heard + last["dropped"] == total + 2
        assert last["dropped"] > total / 2
        writer.close()

    daemon_test(tmp_path, talk)


def test_frames_are_told_as_plain_data(tmp_path: Path) -> None:
    async def talk(daemon: Daemon, folder: Path) -> None:
        told: list[dict[str, Any]] = []

        async def follow() -> None:
            async for frame in follow_daemon(folder / "site.toml", {"do": "trace", "line": "server"}):
                told.append(frame)
                if len(told) == 2:
                    return

        following = asyncio.create_task(follow())
        await until(lambda: bool(daemon.lines["server"].taps))
        outcome = await daemon.ask(read_job(daemon, "A03"))
        await asyncio.wait_for(following, 5)
        assert [(f["meter"], f["protocol"], f["direction"], f["hex"], f["dropped"]) for f in told] == [
            ("A03", "dlt645-2007", f.direction, f.data.hex().upper(), 0) for f in outcome.frames
        ]

    daemon_test(tmp_path, talk)


# -- scan --------------------------------------------------------------------------------------------------------------


def test_scan_is_refused_while_the_daemon_owns_the_line(tmp_path: Path) -> None:
    async def talk(_daemon: Daemon, folder: Path) -> None:
        status, out, err = await headend(folder, "scan", "server")
        assert (status, out) == (1, "")
        assert err.startswith("error: the head-end is running and owns the lines -> stop `headend run`, scan")

    daemon_test(tmp_path, talk)


def test_scan_finds_the_meters_says_what_is_known_and_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with simulated() as endpoint:
            path = prepare(tmp_path, endpoint)
            before = (tmp_path / "meters.csv").read_bytes(), registered(path)
            status, out, err = await headend(tmp_path, "scan", "server", "--wait", "0.05")
            assert status == 0
            assert sorted(out.splitlines()) == [f"{address(m)}  dlt645-2007  registered as {m}" for m in METERS]
            assert f"not heard: {address(SILENT)}, registered as {SILENT}" in err
            assert ((tmp_path / "meters.csv").read_bytes(), registered(path)) == before
            words = ("scan", "server", "--wait", "0.05", "--csv", "--model", "dlt645-2007-1ph")
            status, out, err = await headend(tmp_path, *words)
            rows = list(csv.DictReader(io.StringIO(out)))
            assert {row["address"] for row in rows} == {address(m) for m in METERS}
            assert {(row["protocol"], row["line"], row["model"], row["serial"]) for row in rows} == {
                ("dlt645-2007", "server", "dlt645-2007-1ph", "")
            }
            found = tmp_path / "found.csv"
            found.write_text(out.replace("\n2401010000", "\nX"), encoding="utf-8")
            status, out, err = await headend(tmp_path, "check", "--meters", str(found))
            assert status == 0, err

    asyncio.run(main())


def test_scan_of_an_empty_line_and_of_what_can_not_be(tmp_path: Path) -> None:
    async def main() -> None:
        path = prepare(tmp_path, "tcp://127.0.0.1:1")
        text = path.read_text(encoding="utf-8").replace(
            "[[schedule]]", '[[line]]\nname = "port"\nendpoint = "serial:/dev/no"\n\n[[schedule]]'
        )
        path.write_text(text, encoding="utf-8")
        for words, message in (
            (("server",), "error: can't connect to 127.0.0.1:1"),
            (("server", "--baud", "2400"), "error: line server is no serial port: speed and parity are set in the"),
            (("port", "--baud", "2401"), "error: '2401' is no speed a line runs at"),
            (("port", "--parity", "E,X"), "error: '8X1' is no character format"),
            (("port",), "error: can't open /dev/no: No such file or directory"),
            (("server", "--model", "none"), "error: there is no meter model 'none'"),
        ):
            status, out, err = await headend(tmp_path, "scan", *words)
            assert (status, out) == (1, ""), words
            assert err.startswith(message), err

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(100):
                pass
            writer.close()

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        path.write_text(text.replace('tcp://127.0.0.1:1"', f'tcp://127.0.0.1:{port}"'), encoding="utf-8")
        status, out, err = await headend(tmp_path, "scan", "server", "--wait", "0.05")
        assert (status, out) == (1, "")
        assert "no meter answered: check power, wires, speed and parity" in err
        server.close()
        await asyncio.sleep(0.05)

    asyncio.run(main())


def test_scan_of_a_dial_in_line_waits_for_its_modem(tmp_path: Path) -> None:
    async def main() -> None:
        path = prepare(tmp_path, "tcp://127.0.0.1:1")
        port = free_port()
        text = path.read_text(encoding="utf-8").replace(
            'endpoint = "tcp://127.0.0.1:1"', f'endpoint = "listen://127.0.0.1:{port}"\nregistration = "DTU1"'
        )
        path.write_text(text, encoding="utf-8")
        status, _, err = await headend(tmp_path, "scan", "server", "--modem-wait", "0.2")
        assert status == 1
        assert err.endswith("error: no modem dialled in within 0.2 s\n")
        clock = RunningClock(time.time())
        meter = Dlt645Meter(MeterSpec(address("A01")), Register(Household(Load(seed=1))), clock)
        modem = DialLine(Bus([("A01", meter)], clock), "127.0.0.1", port, registration=b"DTU1", reconnect_s=0.05)
        await modem.start()
        status, out, err = await headend(tmp_path, "scan", "server", "--wait", "0.1")
        assert (status, out) == (0, f"{address('A01')}  dlt645-2007  registered as A01\n"), err
        assert f"waiting for the modem of line server on listen://127.0.0.1:{port}" in err
        await modem.stop()

    asyncio.run(main())


# -- plan --------------------------------------------------------------------------------------------------------------


def test_plan_tells_what_fits_and_what_is_unknown(tmp_path: Path) -> None:
    prepare(tmp_path, "tcp://127.0.0.1:1")
    status, out, _ = asyncio.run(headend(tmp_path, "plan"))
    assert status == 0
    assert "line server: 4 meters, unknown speed: set wire_baud" in out
    assert "line dead: 1 meters, 1200, " in out
    assert "; fits" in out
    status, out, _ = asyncio.run(headend(tmp_path, "plan", "--line", "dead", "--json", "--delay-ms", "20"))
    plan = json.loads(out)
    assert [line["line"] for line in plan["lines"]] == ["dead"]
    (a_round,) = plan["lines"][0]["rounds"]
    assert a_round["round_s"] == pytest.approx(0.4233, abs=0.0001)  # total energy, 4 FE both, Td 20 ms, 1200 baud


def test_plan_fails_where_a_line_does_not_fit(tmp_path: Path) -> None:
    prepare(tmp_path, "tcp://127.0.0.1:1", every_min=1, on_dead=150)
    status, out, _ = asyncio.run(headend(tmp_path, "plan", "--line", "dead"))
    assert status == 1
    assert "DOES NOT FIT" in out
    assert "of the line's time: fewer meters, fewer reads, or a faster line" in out


def test_plan_without_meters_says_what_to_do(tmp_path: Path) -> None:
    path = prepare(tmp_path, "tcp://127.0.0.1:1")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("[site]\n", '[site]\nstore = "sqlite:///other.db"\n'), encoding="utf-8")
    assert asyncio.run(headend(tmp_path, "plan"))[2] == (
        "error: no meters are registered there -> take them in with `headend import` first\n"
    )

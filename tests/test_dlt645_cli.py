"""Catalogue, decode and read from the command line: over a real socket, and through the running daemon."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headend.cli import cli
from headend.errors import HeadendError
from headend.protocols.dlt645.frame import Scanner
from tests.dlt645_wire import BEIJING, Slave, bcd, kwh, read_answer, wire

NEW, OLD = "000000000001", "000000000097"
WAIT_S = 30.0


def clock_now() -> tuple[bytes, bytes]:
    """`WW DD MM YY` and `ss mm hh` of now, as a meter in Beijing shows them."""
    now = datetime.now(BEIJING)
    date = bytes(int(f"{n:02d}", 16) for n in (now.isoweekday() % 7, now.day, now.month, now.year % 100))
    return date, bytes(int(f"{n:02d}", 16) for n in (now.second, now.minute, now.hour))


def meters() -> list[Slave]:
    date, time_ = clock_now()
    new = {
        "00010000": kwh("230.93"),
        "0400010C": time_ + date,
        "040005FF": bytes.fromhex("0400 0000 5000 0100 0000 0000 4000"),
        "00020003": kwh("12.34"),
        "03300D00": bcd("27", 3),
        "04800001": bytes(reversed(b"V1.0 [/red]".ljust(32, b"\0"))),
    }
    old = {"9010": kwh("100.00"), "C010": date, "C011": time_, "B611": bcd("223", 2), "C032": bcd(OLD, 6)}
    return [Slave(new, NEW), Slave(old, OLD)]


class _Bus(socketserver.BaseRequestHandler):
    """Meters on one TCP port: each request goes to the meter it is for."""

    def handle(self) -> None:
        scanner = Scanner()
        while data := self.request.recv(4096):
            for frame in scanner.feed(data):
                again = wire(frame.address, frame.control, frame.data)
                for meter in meters():
                    if meter.address == frame.address:
                        self.request.sendall(b"".join(meter(again)))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


_SITE = """
[site]
name = "both versions"
store = "{store}"

[[line]]
name = "bus"
endpoint = "tcp://127.0.0.1:{port}"
reply_s = 0.5
gap_s = 0.1
"""


@pytest.fixture
def folder(tmp_path: Path, new_sqlite_url: str) -> Iterator[Path]:
    """A site with a meter of 2007 and one of 1997 on one line, imported."""
    with _Server(("127.0.0.1", 0), _Bus) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            (tmp_path / "site.toml").write_text(_SITE.format(store=new_sqlite_url, port=server.server_address[1]))
            rows = (f"NEW,dlt645-2007,{NEW},bus,dlt645-2007-basic", f"OLD,dlt645-1997,{OLD},bus,dlt645-1997-basic")
            (tmp_path / "meters.csv").write_text("\n".join(("meter_id,protocol,address,line,model", *rows)) + "\n")
            assert "meters: 2 added" in run(tmp_path, "import", "--meters", str(tmp_path / "meters.csv")).output
            yield tmp_path
        finally:
            server.shutdown()
            thread.join()


def run(folder: Path, verb: str, *words: str, ok: bool = True) -> Result:
    result = CliRunner().invoke(cli, [verb, "--site", str(folder / "site.toml"), *words])
    assert (result.exit_code == 0) == ok, result.output + repr(result.exception)
    return result


def read_json(folder: Path, *words: str, ok: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(folder, "read", *words, "--json", ok=ok).output)
    return found


# --- read ---------------------------------------------------------------------------------------------------------


def test_any_identifier_is_read_and_named(folder: Path) -> None:
    (item,) = read_json(folder, "NEW", "00020003")["items"]
    (value,) = item["items"]
    assert (item["di"], item["status"]) == ("00020003", "ok")
    assert (value["value"], value["unit"]) == ("12.34", "kWh")
    assert value["name"] == "reverse active energy total, settlement day -3"
    assert [frame["direction"] for frame in item["frames"]] == [">", "<"]


def test_status_words_are_shown_with_their_flags(folder: Path) -> None:
    output = run(folder, "read", "NEW", "040005ff").output
    assert "relay_open 继电器断开" in output.replace("\n", "")
    (item,) = read_json(folder, "NEW", "040005ff")["items"]
    assert item["items"][0]["note"] == "clock_battery_low 时钟电池欠压"
    assert len(item["items"]) == 7


def test_quantities_and_identifiers_together(folder: Path) -> None:
    found = read_json(folder, "NEW", "import_kwh", "03300D00", "00010000")
    assert (found["readings"][0]["quantity"], found["readings"][0]["value"]) == ("import_kwh", "230.93")
    assert found["clock_offset_s"] is not None
    assert [(i["di"], i["items"][0]["value"]) for i in found["items"]] == [("03300D00", "27")]


def test_text_of_a_meter_is_no_markup(folder: Path) -> None:
    assert "V1.0 [/red]" in run(folder, "read", "NEW", "04800001", "--verbose").output


def test_a_meter_of_1997(folder: Path) -> None:
    found = read_json(folder, "OLD", "import_kwh", "voltage_v_a", "B611", "C032")
    assert [(r["quantity"], r["value"]) for r in found["readings"]][:2] == [
        ("import_kwh", "100.00"),
        ("voltage_v_a", "223"),
    ]
    assert abs(int(found["clock_offset_s"])) < 60
    assert [i["items"][0]["value"] for i in found["items"]] == ["223", OLD]
    shown = run(folder, "read", "OLD", "00010000", "--verbose").output
    assert "(DL/T 645-1997): read data: 9010" in shown


def test_a_refusal_is_told_and_is_the_exit_status(folder: Path) -> None:
    (item,) = read_json(folder, "NEW", "00030000", "0001000C", ok=False)["items"]
    assert (item["status"], item["items"]) == ("refused", [])
    assert "no such data" in item["detail"]
    assert "no such data" in run(folder, "read", "NEW", "0001000C", ok=False).output.replace("\n", " ")


@pytest.mark.parametrize(("meter", "di"), [("NEW", "9010"), ("OLD", "040005FF")])
def test_an_identifier_of_the_other_version_is_refused_with_what_to_write(folder: Path, meter: str, di: str) -> None:
    result = run(folder, "read", meter, di, ok=False)
    assert isinstance(result.exception, HeadendError)
    assert "hex digits, such as" in str(result.exception)


def test_what_is_no_identifier_is_taken_for_a_quantity(folder: Path) -> None:
    result = run(folder, "read", "NEW", "00010", ok=False)
    assert "unknown quantity '00010'" in str(result.exception)


@contextmanager
def daemon(folder: Path) -> Iterator[None]:
    """`headend run` on the site, ready when its socket is there."""
    with (folder / "run.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "headend", "run"], cwd=folder, stdout=log, stderr=log)
    try:
        end = time.monotonic() + WAIT_S
        while not (folder / "site.sock").exists():
            assert process.poll() is None, (folder / "run.log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, (folder / "run.log").read_text()
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)


def test_through_the_running_daemon(folder: Path) -> None:
    with daemon(folder):
        (item,) = read_json(folder, "NEW", "00020003")["items"]
        assert [v["value"] for v in item["items"]] == ["12.34"]
        assert [i["di"] for i in read_json(folder, "OLD", "B611", "C032")["items"]] == ["B611", "C032"]
        result = run(folder, "read", "OLD", "040005FF", ok=False)
        assert "hex digits, such as 9010" in str(result.exception)


# --- decode and catalogue -----------------------------------------------------------------------------------------


def invoke(*words: str, ok: bool = True) -> str:
    result = CliRunner().invoke(cli, list(words))
    assert (result.exit_code == 0) == ok, result.output + repr(result.exception)
    return result.output


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (read_answer("9010", kwh("1.00"), control=0x81), "(DL/T 645-1997): read data: 9010"),
        (read_answer("00010000", kwh("1.00")), ": read data: 00010000"),
        (read_answer("04000503", b"\x50\0"), "relay_open 继电器断开"),
    ],
)
def test_decode_finds_the_version_by_itself(frame: bytes, said: str) -> None:
    assert said in invoke("decode", "dlt645", frame.hex())


def test_decode_can_be_made_to_read_a_version() -> None:
    frame = read_answer("9010", kwh("1.00"), control=0x81).hex()
    assert "it belongs to DL/T 645-1997" in invoke("decode", "dlt645-2007", frame)
    assert "forward active energy total" in invoke("decode", "dlt645-1997", frame)
    assert "is not one of" in invoke("decode", "dlt645-2010", frame, ok=False)


def found(*words: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(invoke("catalogue", *words, "--json"))
    return items


def test_the_catalogue_is_searched_by_anything() -> None:
    assert [item["di"] for item in found("cover open last")] == ["03300D01", "03300E01"]
    assert {item["di"][:4] for item in found("失压", "A相")} >= {"0301"}
    assert {item["di"] for item in found("1-0:1.8.0")} >= {"00010000", "9010"}
    assert {item["unit"] for item in found("kvarh", "QIV", "dlt645-1997")} == {"kvarh"}
    assert {item["protocol"] for item in found("voltage phase a")} == {"dlt645-2007", "dlt645-1997"}
    (one,) = found("05060109")  # not written out: it follows by rule
    assert one["name"] == "daily freeze: forward active energy, last 9"


def test_the_catalogue_as_a_table() -> None:
    shown = invoke("catalogue", "00010000")
    assert "import_kwh" in shown
    assert "9010" in shown
    many = invoke("catalogue", "energy")
    assert "60 are shown" in many
    assert "60 are shown" not in invoke("catalogue", "energy", "--all")


def test_nothing_found_says_what_to_do() -> None:
    result = CliRunner().invoke(cli, ["catalogue", "nonsense"])
    assert "try fewer or shorter words" in str(result.exception)

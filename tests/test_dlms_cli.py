"""DLMS meters from the command line over real sockets: read, single attributes, browse to a model that reads again."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from config.meter_models import load_model
from headend.cli import cli
from headend.errors import NoAccess, UsageError
from headend.local_api import socket_path
from headend.protocols.dlms.settings import DlmsProfile, DlmsSettings
from simulators.dlms_serve import serve_dlms_tcp
from simulators.dlms_spec import DlmsSpec
from simulators.dlms_town import dlms_meter
from tests.dlms_kit import SECRETS

SITE = """
[site]
name = "dlms"
store = "{store}"
meter_models = "models"

[vault]
master_key_file = "master.key"

[[line]]
name = "wrapped"
endpoint = "tcp://127.0.0.1:{wrapped}"

[[line]]
name = "hdlc"
endpoint = "tcp://127.0.0.1:{hdlc}"
"""

LLS = 'client = 32; authentication = "lls"'
GMAC = 'client = 1; authentication = "hls-gmac"; policy = "authenticated-encrypted"; client_title = "4D4D4D0000BC614E"'
ROWS = (
    ("W", "1", "wrapped", "dlms-generic-wrapper", LLS),
    ("S", "1#2", "wrapped", "dlms-generic-wrapper", GMAC),
    ("H", "1/17", "hdlc", "dlms-generic-hdlc", LLS),
)


def write_meters(folder: Path, rows: Iterable[tuple[str, str, str, str, str]]) -> None:
    with (folder / "meters.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("meter_id", "protocol", "address", "line", "model", "clock_zone", "options"))
        table.writerows((key, "dlms", address, line, model, "+08:00", own) for key, address, line, model, own in rows)


class Served:
    """Two meters on two TCP ports, served by a thread of their own."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self.thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self.thread.start()
        assert self._ready.wait(10)

    async def _serve(self) -> None:
        wrapped = dlms_meter(time.time, DlmsSpec())
        wrapped.happen(62, int(time.time()) - 3600)
        lines = {
            "wrapped": await serve_dlms_tcp(wrapped, interface="wrapper"),
            "hdlc": await serve_dlms_tcp(dlms_meter(time.time, DlmsSpec()), interface="hdlc"),
        }
        self.ports = {name: line.port for name, line in lines.items()}
        self._ready.set()
        await self._stop.wait()
        for line in lines.values():
            await line.stop()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self.thread.join(10)
        self._loop.close()


@pytest.fixture
def folder(tmp_path: Path, new_sqlite_url: str) -> Iterator[Path]:
    """A site with a meter on each line, imported, and its secrets in the vault."""
    served = Served()
    try:
        (tmp_path / "models").mkdir()
        (tmp_path / "site.toml").write_text(SITE.format(store=new_sqlite_url, **served.ports))
        write_meters(tmp_path, ROWS)
        (tmp_path / "secrets.csv").write_text(
            "meter_id,name,value\n"
            + "".join(f"{meter},{name},{value.hex()}\n" for meter in "WSH" for name, value in SECRETS.items())
        )
        (tmp_path / "secrets.csv").chmod(0o600)
        run(tmp_path, "import", "--meters", str(tmp_path / "meters.csv"))
        run(tmp_path, "keys", "init")
        run(tmp_path, "keys", "import", str(tmp_path / "secrets.csv"))
        yield tmp_path
    finally:
        served.close()


def invoke(folder: Path, *words: str) -> Result:
    verbs = 2 if words[0] in ("keys", "dlms") else 1
    return CliRunner().invoke(cli, [*words[:verbs], "--site", str(folder / "site.toml"), *words[verbs:]])


def run(folder: Path, *words: str) -> str:
    result = invoke(folder, *words)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def read_json(folder: Path, *words: str) -> dict[str, Any]:
    result = invoke(folder, "read", *words, "--json")
    assert result.exit_code == 0, result.output + repr(result.exception)
    found: dict[str, Any] = json.loads(result.output)
    return found


def frames_of(found: dict[str, Any]) -> str:
    return "".join(frame["hex"] for frame in found["frames"])


@pytest.mark.parametrize("meter", ["W", "S", "H"])
def test_registers_are_read_in_one_association_with_the_clock(folder: Path, meter: str) -> None:
    found = read_json(folder, meter, "import_kwh", "import_kwh_t2", "voltage_v_a")
    values = {row["quantity"]: row["value"] for row in found["readings"]}
    assert set(values) == {"import_kwh", "import_kwh_t2", "voltage_v_a", "clock_offset_s"}
    assert float(values["import_kwh"]) > float(values["import_kwh_t2"]) > 1
    assert abs(int(values["clock_offset_s"])) <= 2
    assert found["status"] == "ok"
    assert found["faults"] == []


def test_no_secret_is_in_a_record_of_frames(folder: Path) -> None:
    for meter in ("W", "S", "H"):
        shown = frames_of(read_json(folder, meter, "import_kwh"))
        for secret in SECRETS.values():
            assert secret.hex().upper() not in shown


@pytest.mark.parametrize("meter", ["W", "S", "H"])
def test_any_attribute_is_shown(folder: Path, meter: str) -> None:
    items = read_json(folder, meter, "0.0.96.1.0.255", "3/1.0.1.8.0.255/3")["items"]
    assert [row["value"] for row in items[0]["items"]] == ["12345678"]
    assert [row["value"] for row in items[1]["items"]] == ["0", "30"]


def test_a_wrong_password_is_said_without_the_password(folder: Path) -> None:
    (folder / "secrets.csv").write_text("meter_id,name,value\nW,password,text:87654321\n")
    run(folder, "keys", "import", str(folder / "secrets.csv"))
    result = invoke(folder, "read", "W")
    assert result.exit_code == 1
    assert "no access" in result.output
    assert "87654321" not in result.output


def test_events_are_asked_for_and_kept_once(folder: Path) -> None:
    assert "names no event log" in str(invoke(folder, "events", "W", "--ask").exception)
    own = LLS + "; event_log = [{ name = 'standard', obis = '0.0.99.98.0.255', codes = ['62=disconnected'] }]"
    write_meters(folder, [(*ROWS[0][:4], own)])
    run(folder, "import", "--meters", str(folder / "meters.csv"))
    for _ in range(2):
        run(folder, "events", "W", "--ask")
    (event,) = json.loads(run(folder, "events", "W", "--json"))
    assert (event["code"], event["data"]) == ("62", {"log": "standard", "text": "disconnected"})
    assert event["outcome"] > 0


def test_browsing_makes_a_model_that_is_accepted_and_reads(folder: Path) -> None:
    draft = folder / "models" / "mine.toml"
    told = invoke(folder, "dlms", "browse", "W", "--out", str(draft))
    assert told.exit_code == 0, told.output + repr(told.exception)
    assert re.search(r"mine\.toml: \d+ objects", told.output + told.stderr)
    assert "all good" in run(folder, "check")
    model = load_model(draft)
    assert isinstance(model.details, DlmsSettings)
    assert model.curve is not None
    assert (model.curve.form, model.curve.step_s, model.curve.depth_days) == ("profile", 900, 62)
    assert (model.details.client, model.details.authentication) == (32, "lls")
    assert model.details.profile == DlmsProfile(columns=("0.0.1.0.0.255", "0.0.96.10.1.255", "1.0.1.8.0.255"))
    assert model.details.daily is not None
    assert model.details.billing is not None
    scales = {one.quantity: (one.scaler, one.unit) for one in model.details.objects}
    assert (scales["import_kwh"], scales["voltage_v_a"]) == ((0, 30), (-1, 35))
    assert [log.obis for log in model.details.event_logs] == ["0.0.99.98.0.255"]
    text = draft.read_text()
    assert re.search(r"Read from meter W on 20\d\d-\d\d-\d\d", text)
    assert "70 0 0-0:96.3.10" in text
    before = read_json(folder, "W", "import_kwh")["readings"][0]["value"]
    write_meters(folder, [("W2", "1#3", "wrapped", "mine", "")])
    run(folder, "import", "--meters", str(folder / "meters.csv"))
    (folder / "secrets.csv").write_text("meter_id,name,value\nW2,password,text:12345678\n")
    run(folder, "keys", "import", str(folder / "secrets.csv"))
    again = read_json(folder, "W2", "import_kwh")["readings"][0]["value"]
    assert 0 <= float(again) - float(before) < 0.1


def test_a_draft_goes_to_the_screen_without_a_file(folder: Path) -> None:
    text = run(folder, "dlms", "browse", "H")
    assert text.startswith('source = """\nRead from meter H on ')
    assert "[dlms.profile]" in text


def test_what_browse_refuses(folder: Path) -> None:
    (folder / "there.toml").write_text("")
    for words, error, what in (
        (("W", "--out", str(folder / "there.toml")), UsageError, "is there already"),
        (("W", "--out", str(folder / "nowhere" / "a.toml")), UsageError, "no folder"),
        (("X",), UsageError, "no meter 'X'"),
    ):
        result = invoke(folder, "dlms", "browse", *words)
        assert isinstance(result.exception, error)
        assert what in str(result.exception)
    assert (folder / "there.toml").read_text() == ""


def test_a_running_daemon_owns_the_line(folder: Path) -> None:
    """Something that answers as a daemon does is enough: browse must not open the line beside it."""
    path = socket_path(folder / "site.toml")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(path))
        door.listen()

        def answer() -> None:
            caller, _ = door.accept()
            with caller:
                caller.makefile().readline()
                caller.sendall(b'{"lines": []}\n')

        thread = threading.Thread(target=answer)
        thread.start()
        result = invoke(folder, "dlms", "browse", "W")
        thread.join(10)
    assert isinstance(result.exception, UsageError)
    assert "owns the lines" in str(result.exception)


def test_a_meter_that_lets_nobody_in_leaves_no_file(folder: Path) -> None:
    (folder / "secrets.csv").write_text("meter_id,name,value\nW,password,text:87654321\n")
    run(folder, "keys", "import", str(folder / "secrets.csv"))
    draft = folder / "models" / "mine.toml"
    result = invoke(folder, "dlms", "browse", "W", "--out", str(draft))
    assert isinstance(result.exception, NoAccess)
    assert not draft.exists()

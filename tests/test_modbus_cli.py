"""The verbs for Modbus: a model planned, tried on a port, a frame decoded, a meter read whole."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result

from headend.cli import cli
from headend.errors import ConfigError, HeadendError, NoAnswer, UsageError
from tests.modbus_slave import Slave, serve, words

SITE = """\
[site]
name = "T"

[[line]]
name = "gate"
endpoint = "tcp://127.0.0.1:{port}"
reply_s = 1.0
"""
MODEL = """\
source = "a data sheet"
protocol = "modbus-tcp"
register_wrap = "1000000"
max_power_kw = "15.84"

[modbus]
type = "u32"
register = [
  { quantity = "import_kwh", address = 0, unit = "kWh", scale = "0.01" },
  { quantity = "export_kwh", address = 2, unit = "kWh", scale = "0.01" },
  { name = "lid", address = 90, type = "u16" },
]
"""


def _run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _slave() -> Slave:
    memory = {3: words(0, struct.pack(">II", 123_456, 99))}
    return Slave(memory, unit=7, identity=(b"Maker", b"M1", b"2.0"))


def _with_server(reply: Callable[[bytes], bytes], act: Callable[[int], Result]) -> Result:
    """What `act` gives while `reply` answers on the port it is told."""
    ports: list[int] = []
    loop = asyncio.new_event_loop()
    stop, ready = asyncio.Event(), asyncio.Event()

    async def main() -> None:
        async with serve(reply) as port:
            ports.append(port)
            ready.set()
            await stop.wait()

    server = Thread(target=loop.run_until_complete, args=(main(),))
    server.start()
    try:
        asyncio.run_coroutine_threadsafe(ready.wait(), loop).result(5)
        return act(ports[0])
    finally:
        loop.call_soon_threadsafe(stop.set)
        server.join()
        loop.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEADEND_SITE", raising=False)
    (tmp_path / "mine.toml").write_text(MODEL)
    return tmp_path


def test_a_plan_needs_no_site(folder: Path) -> None:
    told = json.loads(_run("model", "plan", "modbus-eastron-sdm630", "import_kwh", "voltage_v_a", "--json").stdout)
    assert told == [
        {"function": 4, "address": 0, "count": 2, "registers": ["voltage_v_a"]},
        {"function": 4, "address": 72, "count": 2, "registers": ["import_kwh"]},
    ]
    assert "mine.toml: 2 reads" in _run("model", "plan", str(folder / "mine.toml")).stdout


@pytest.mark.usefixtures("folder")
def test_a_plan_of_what_is_not_there() -> None:
    with pytest.raises(UsageError, match="there is no meter model 'modbus-sdm630' -> did you mean"):
        _run("model", "plan", "modbus-sdm630")
    with pytest.raises(UsageError, match="the model has no register power_kvv"):
        _run("model", "plan", "modbus-eastron-sdm630", "power_kvv")
    with pytest.raises(UsageError, match="speaks dlt645-2007 -> name a Modbus meter model"):
        _run("model", "plan", "dlt645-2007-1ph")
    with pytest.raises(ConfigError, match="no such file"):
        _run("model", "plan", "nothing.toml")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("tcp", ["true", "false"])
def test_a_model_is_tried_on_a_port(tcp: str) -> None:
    slave = _slave()

    def act(port: int) -> Result:
        return _run("model", "try", "mine.toml", f"tcp://127.0.0.1:{port}", "7", "--tcp", tcp, "--json")

    result = _with_server(slave.tcp if tcp == "true" else slave.rtu, act)
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert {one["name"]: one["value"] for one in told["values"]} == {"import_kwh": "1234.56", "export_kwh": "0.99"}
    assert told["identity"] == {"vendor": "Maker", "product": "M1", "revision": "2.0"}
    assert "illegal data address (exception 02)" in told["missing"]["lid"]
    assert told["values"][0]["note"] == "3:0x0000:2:u32 is 0001 E240"


def test_a_line_of_the_site_is_tried_and_shown(folder: Path) -> None:
    slave = _slave()

    def act(port: int) -> Result:
        (folder / "site.toml").write_text(SITE.format(port=port))
        return _run("model", "try", "mine.toml", "gate", "7", "--tcp", "true")

    shown = _with_server(slave.tcp, act).stdout
    assert "unit 7 on gate (modbus-tcp)" in shown
    assert "1234.56" in shown
    assert "identification, vendor: Maker" in shown


@pytest.mark.usefixtures("folder")
def test_a_try_that_can_not_be() -> None:
    for arguments, text in (
        (("mine.toml", "gate", "7"), "there is no site that has a line 'gate'"),
        (("mine.toml", "tcp://127.0.0.1:4001", "0"), "no Modbus unit id"),
        (("mine.toml", "tcp://127.0.0.1:4001", "256", "--tcp", "true"), "no Modbus unit id"),
        (("mine.toml", "listen://:4001", "1"), "is dialled in to"),
        (("mine.toml", "tcp://127.0.0.1", "1"), "names no port"),
    ):
        with pytest.raises(UsageError, match=text):
            _run("model", "try", *arguments)


@pytest.mark.usefixtures("folder")
def test_a_unit_behind_a_gateway_that_is_not_there() -> None:
    def act(port: int) -> Result:
        return _run("model", "try", "mine.toml", f"tcp://127.0.0.1:{port}", "9", "--tcp", "true")

    with pytest.raises(NoAnswer, match="the gateway says that the unit does not answer"):
        _with_server(_slave().tcp, act)


@pytest.mark.usefixtures("folder")
def test_frames_are_decoded_with_a_model() -> None:
    result = _run(
        "decode", "modbus", "010400480002F1DD", "010404449A51ECF346", "--model", "modbus-eastron-sdm630", "--json"
    )
    (value,) = json.loads(result.stdout)["values"]
    assert (value["name"], value["value"], value["unit"]) == ("import_kwh", "1234.56", "kWh")
    assert _run("decode", "modbus-tcp", "0001 0000 0006 11 03 006B 0003").exit_code == 0
    assert _run("decode", "modbus", "0103").exit_code == 1
    with pytest.raises(UsageError, match="there is no meter model"):
        _run("decode", "modbus", "010400480002F1DD", "--model", "sdm")
    with pytest.raises(UsageError, match="is no Modbus meter model"):
        _run("decode", "modbus", "010400480002F1DD", "--model", "dlt645-2007-1ph")


def test_a_registered_meter_is_read_whole(folder: Path) -> None:
    """Many units behind one connection are meters of one line; a model may be spoken over RTU and TCP alike."""
    (folder / "meters").mkdir()
    (folder / "meters" / "mine.toml").write_text(MODEL.replace("modbus-tcp", "modbus-rtu"))
    (folder / "meters.csv").write_text(
        "meter_id,protocol,address,line,model\nB7,modbus-tcp,7,gate,mine\nB8,modbus-tcp,8,gate,mine\n"
    )
    slave = _slave()

    def act(port: int) -> Result:
        (folder / "site.toml").write_text(SITE.format(port=port))
        _run("import", "--meters", "meters.csv")
        return _run("read", "B7", "--all", "--json")

    told = json.loads(_with_server(slave.tcp, act).stdout)
    assert {row["quantity"]: row["value"] for row in told["readings"]} == {
        "import_kwh": "1234.5600", "export_kwh": "0.9900",
    }  # fmt: skip
    shown = json.loads(_with_server(slave.tcp, lambda port: _item(folder, port)).stdout)
    assert [(item["name"], item["value"]) for item in shown["items"][0]["items"]] == [("3:0x0000:2:u32", "123456")]


def _item(folder: Path, port: int) -> Result:
    (folder / "site.toml").write_text(SITE.format(port=port))
    return _run("read", "B7", "3:0x0000:2:u32", "--json")


def test_all_is_for_models_that_list_their_quantities(folder: Path) -> None:
    (folder / "site.toml").write_text(SITE.format(port=4001))
    (folder / "meters.csv").write_text("meter_id,protocol,address,line,model\nM1,dlt645-2007,1,gate,dlt645-2007-1ph\n")
    _run("import", "--meters", "meters.csv")
    with pytest.raises(HeadendError, match="does not list its quantities"):
        _run("read", "M1", "--all")

"""`headend mqtt`, `headend events` and the checks of `[[mqtt]]`, as an operator meets them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from config.site import load_site
from headend.app import Daemon
from headend.errors import ConfigError
from headend.ingest import EvidencePolicy
from headend.local_api import LocalApi
from headend.model import Meter
from headend.store import open_store, registry
from headend.store.sheets import write_messages
from tests.mqtt_kit import BASE, MODEL, NOW, interpreter, message, points, rows, until
from tests.mqtt_servers import mosquitto, mosquitto_program

_SITE = """
[site]
name = "Field"
zone = "+08:00"

[[mqtt]]
name = "test"
host = "127.0.0.1"
port = {port}

[[line]]
name = "C0001"
endpoint = "mqtt://test/C0001"
"""
READS = "hes/v1/C0001/up/reads"


def make_site(folder: Path, port: int = 1883, text: str = _SITE) -> Path:
    path = folder / "site.toml"
    path.write_text(text.format(port=port))
    return path


def add_meter(folder: Path, address: str) -> None:
    store = open_store(f"sqlite:///{folder / 'headend.db'}")
    row = registry.MeterRow(
        f"M{address}", "hes-mqtt", address, "C0001", "hes-mqtt-15", "+08:00", MODEL.register_wrap, 900
    )
    with store.write() as conn:
        registry.put_meters(conn, [row])
    store.close()


def headend(folder: Path, *words: str) -> str:
    command = [sys.executable, "-W", "ignore", "-m", "headend", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quarantine_is_listed_shown_and_replayed(tmp_path: Path) -> None:
    make_site(tmp_path)
    add_meter(tmp_path, "1")
    store = open_store(f"sqlite:///{tmp_path / 'headend.db'}")
    with store.read() as conn:
        (row,) = registry.meters(conn)
    known = Meter(row.key, row.id, row.address, row.protocol, row.line, MODEL, row.clock_zone)
    understand = interpreter([known]).understand
    event = {**json.loads(message(seq=2)), "type": "events"}
    event["events"] = [{"m": "1", "t": BASE, "code": "cover_open", "phase": "start", "data": {"by": "hand"}}]
    with store.write() as conn:
        for topic, payload in (
            (READS, message(meters=[rows("1", (BASE, 100)), rows("2", (BASE, 7))])),
            (READS, b"\x00rubbish"),
            ("hes/v1/C0001/up/events", json.dumps(event).encode()),
        ):
            write_messages(conn, [understand(topic, payload, NOW).message], EvidencePolicy())
    listed = headend(tmp_path, "mqtt", "quarantine")
    assert "unknown meter 2" in listed
    assert "no JSON" in listed
    assert '"kind": "interval"' in headend(tmp_path, "mqtt", "quarantine", "show", "1")
    assert headend(tmp_path, "quarantine").strip() == "nothing waits"  # pushes only
    add_meter(tmp_path, "2")
    told = headend(tmp_path, "mqtt", "quarantine", "replay")
    assert "1 placed, 1 still wait" in told
    assert "2 messages" not in headend(tmp_path, "mqtt", "status")
    with store.read() as conn:
        second = next(row for row in registry.meters(conn) if row.address == "2")
    assert points(store, Meter(second.key, "", "", "", "", MODEL)) == {BASE: (700, 1)}
    store.close()
    start = (NOW - timedelta(days=2)).strftime("%Y-%m-%d")
    (found,) = json.loads(headend(tmp_path, "events", "M1", "--from", start, "--json"))
    assert (found["code"], found["phase"], found["data"]) == ("cover_open", "start", {"by": "hand"})


@pytest.mark.skipif(mosquitto_program() is None, reason="needs mosquitto")
def test_a_daemon_takes_messages_and_tells_how_it_stands(tmp_path: Path) -> None:
    async def scenario(site: Path) -> str:
        daemon = Daemon(load_site(site))
        api = LocalApi(daemon)
        await daemon.start()
        await api.start()
        try:
            service = daemon.brokers["test"]
            await until(service.client.connected.is_set)
            await service.publish(READS, message(meters=[rows("1", (BASE, 100))]))
            await until(lambda: service.intake.stats.messages == 1)
            text = await asyncio.to_thread(headend, tmp_path, "mqtt", "status")
            assert "broker test: connected" in await asyncio.to_thread(headend, tmp_path, "status")
            return text
        finally:
            await api.close()
            await daemon.stop()

    with mosquitto(tmp_path / "broker") as broker:
        site = make_site(tmp_path, broker.port)
        add_meter(tmp_path, "1")
        told = asyncio.run(scenario(site))
    assert "1 messages stored: 1 values new" in told
    assert "C0001" in told


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ('name = "a b"', "holds more than letters"),
        ('host = "mqtt://x"', "is no host"),
        ('dialects = ["canonnical"]', "unknown dialect"),
        ("dialects = []", "the list is empty"),
        ('concentrators = ["*", "C1"]', '"*" stands beside names'),
        ('concentrators = ["a/b"]', "can't be a level of a topic"),
        ('ca = "none.pem"', "the connection is not encrypted"),
        ('tls = true\nca = "none.pem"', "there is no file"),
        ('password_env = "X"', "a password is given, but no user"),
        ('username = "u"\npassword_env = "X Y"', "names no environment variable"),
        ('username = "u"\npassword_file = "none"', "there is no file"),
        ("version = 5", "5 is not known here"),
        ('version = "4"', "is not known here"),
        ("max_waiting = 0", "is out of range"),
        ("qos = 2", "unknown key"),
        ('bucket = "a/b"', "holds more than letters"),
    ],
)
def test_what_is_wrong_with_a_broker_is_told(tmp_path: Path, wrong: str, what: str) -> None:
    key = wrong.partition(" ")[0]
    lines = {"name": 'name = "test"', "host": 'host = "127.0.0.1"'}
    table = "\n".join([wrong, *(text for name, text in lines.items() if name != key)])
    path = make_site(tmp_path, text='[site]\nname = "Field"\n[[mqtt]]\n' + table)
    with pytest.raises(ConfigError) as told:
        load_site(path)
    assert what in str(told.value)
    assert "mqtt[1]" in str(told.value)


def test_two_brokers_with_one_session_are_refused(tmp_path: Path) -> None:
    one = '[[mqtt]]\nname = "{}"\nhost = "h"\nclient_id = "same"\n'
    text = '[site]\nname = "Field"\n' + one.format("a") + one.format("b")
    with pytest.raises(ConfigError, match="has the client_id of a on the same host"):
        load_site(make_site(tmp_path, text=text))

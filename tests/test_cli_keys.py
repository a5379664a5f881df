"""`headend keys` and the vault through the command line: what goes in is used, and never comes out again."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from config.imports import import_files
from config.site import load_site
from headend.app import Daemon, meters_of
from headend.cli import cli
from headend.errors import ConfigError, HeadendError
from headend.local_api import LocalApi, ask_daemon
from headend.masterkey import new_master_key, read_master_key
from headend.model import FrameRecord
from headend.protocols import PROTOCOLS
from headend.protocols.dlms.settings import DlmsSettings
from headend.store import open_store, registry, schema
from headend.store.evidence import unpack_frames
from simulators.clock import RunningClock
from simulators.dlms_serve import serve_dlms_tcp
from simulators.dlms_spec import DlmsClient, DlmsSpec
from simulators.dlms_town import dlms_meter

PASSWORD = b"Zq7-password"
WRONG = b"Xk3-wrong-one"
GUEK = bytes.fromhex("F1E2D3C4B5A69788796A5B4C3D2E1F00")

_SITE = """
[site]
name = "t"

[[line]]
name = "bus"
endpoint = "{endpoint}"
reply_s = 1.0
gap_s = 0.05

[[schedule]]
name = "now"
read = "registers"
quantities = ["import_kwh"]
every_min = 60

[evidence]
keep_good_every = 1

{more}
"""
_FILE = '[vault]\nmaster_key_file = "master.key"'
_MODEL = """
source = "test"
protocol = "dlms"
register_wrap = "1000000"
max_power_kw = "20"

[dlms]
interface = "wrapper"
client = 16
authentication = "lls"
"""


@pytest.fixture(autouse=True)
def no_key_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADEND_MASTER_KEY", raising=False)


def prepare(folder: Path, endpoint: str = "tcp://127.0.0.1:9", more: str = _FILE) -> Path:
    """A site with the meters D1 and D2 (DLMS, LLS) and M1 (DL/T 645) registered."""
    path = folder / "site.toml"
    path.write_text(_SITE.format(endpoint=endpoint, more=more))
    (folder / "meters").mkdir(exist_ok=True)
    (folder / "meters" / "lls.toml").write_text(_MODEL)
    rows = [
        "D1,dlms,1,bus,lls,client = 32; reply_s = 3.5",
        "D2,dlms,2,bus,lls,",
        "M1,dlt645-2007,1,bus,dlt645-2007-1ph,",
    ]
    (folder / "meters.csv").write_text("\n".join(("meter_id,protocol,address,line,model,options", *rows, "")))
    site = load_site(path)
    store = open_store(site.store_url)
    import_files(store, site, meters=folder / "meters.csv", check_address=lambda p, a: PROTOCOLS[p].check_address(a))
    store.close()
    return path


def keys(folder: Path, verb: str, *words: str, given: str | None = None, ok: bool = True) -> Result:
    result = CliRunner().invoke(cli, ["keys", verb, "--site", str(folder / "site.toml"), *words], input=given)
    assert (result.exit_code == 0) == ok, result.output + repr(result.exception)
    return result


def refusal(result: Result) -> str:
    assert isinstance(result.exception, HeadendError)
    return str(result.exception)


def listed(folder: Path, *words: str, ok: bool = True) -> list[tuple[str, str, int, str]]:
    rows = json.loads(keys(folder, "list", "--json", *words, ok=ok).output)
    assert all(set(row) == {"meter", "name", "generation", "state", "created_at", "changed_at"} for row in rows)
    return [(row["meter"], row["name"], row["generation"], row["state"]) for row in rows]


def secrets_file(folder: Path, *rows: str, header: str = "meter_id,name,value", mode: int = 0o600) -> str:
    path = folder / "secrets.csv"
    path.write_text("\n".join((header, *rows, "")))
    path.chmod(mode)
    return str(path)


def opened_secrets(folder: Path, meter_id: str) -> dict[str, bytes]:
    from headend.app import open_vault
    from headend.cli.common import find_meter

    site = load_site(folder / "site.toml")
    store = open_store(site.store_url)
    try:
        return dict(open_vault(site, store).access(find_meter(site, store, meter_id)).secrets)
    finally:
        store.close()


def shows(text: str, secret: bytes) -> bool:
    """Whether `text` holds `secret` as text, hex or base64."""
    forms = (secret.hex(), secret.hex(" "), b64encode(secret).decode().rstrip("="), secret.decode("latin-1"))
    return any(form.lower() in text.lower() for form in forms)


# -- a site's secrets from the beginning -------------------------------------------------------------------------------


def test_init_makes_the_file_site_toml_names(tmp_path: Path) -> None:
    prepare(tmp_path)
    output = keys(tmp_path, "init").output
    path = tmp_path / "master.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_master_key(path).id.hex() in output
    assert path.read_text().strip() not in output
    assert "is not overwritten" in refusal(keys(tmp_path, "init", ok=False))


def test_init_says_what_to_write_where_site_toml_names_no_file(tmp_path: Path) -> None:
    prepare(tmp_path, more="")
    assert (
        f'master_key_file = "{tmp_path / "other.key"}"'
        in keys(tmp_path, "init", "--file", str(tmp_path / "other.key")).output
    )


def test_import_takes_hex_and_text_and_shows_neither(tmp_path: Path) -> None:
    prepare(tmp_path)
    keys(tmp_path, "init")
    file = secrets_file(
        tmp_path,
        f"D1,password,text:{PASSWORD.decode()}",
        f"D1,encryption_key,{GUEK.hex()}",
        "M1,dlt645_password_2,123456",
    )
    result = keys(tmp_path, "import", file)
    assert result.output == "secrets: 3 added, 0 changed, 0 as before\n"
    assert opened_secrets(tmp_path, "D1") == {"password": PASSWORD, "encryption_key": GUEK}
    assert keys(tmp_path, "import", file).output == "secrets: 0 added, 0 changed, 3 as before\n"
    keys(tmp_path, "import", secrets_file(tmp_path, "D1,password,text:next"))
    assert listed(tmp_path, "D1") == [
        ("D1", "encryption_key", 1, "active"),
        ("D1", "password", 1, "retired"),
        ("D1", "password", 2, "active"),
    ]
    everything = keys(tmp_path, "list").output + keys(tmp_path, "list", "--json").output
    assert not any(shows(everything, secret) for secret in (PASSWORD, GUEK, b"\x12\x34\x56"))


def test_a_file_others_can_read_is_warned_about(tmp_path: Path) -> None:
    prepare(tmp_path)
    keys(tmp_path, "init")
    result = keys(tmp_path, "import", secrets_file(tmp_path, "D1,password,text:x", mode=0o644))
    assert "warning: others can read" in result.stderr
    assert "warning" not in keys(tmp_path, "import", secrets_file(tmp_path, "D1,password,text:x")).stderr


def test_all_problems_of_a_file_are_told_at_once_and_no_cell_is_repeated(tmp_path: Path) -> None:
    prepare(tmp_path)
    keys(tmp_path, "init")
    file = secrets_file(
        tmp_path,
        "D9,password,text:Secret1",
        "D1,pasword,text:Secret2",
        "D1,encryption_key,Secret3",
        "D1,authentication_key,0011223344",
        "D2,password,",
        "Secret4,Secret5,Secret6",
        "D1,password,text:Secret7",
        "D1,password,text:Secret8",
    )
    result = keys(tmp_path, "import", file, ok=False)
    assert isinstance(result.exception, ConfigError)
    told = [str(problem) for problem in result.exception.problems]
    assert [text.split(" -> ")[0] for text in told] == [
        "secrets.csv:2: meter_id: no meter of this id is in the store",
        "secrets.csv:3: name: there is no secret of this name",
        "secrets.csv:4: value: the value of encryption_key is neither hex nor a text",
        "secrets.csv:5: value: a value of 5 bytes for authentication_key",
        "secrets.csv:6: value: a value of 0 bytes for password",
        "secrets.csv:7: meter_id: no meter of this id is in the store",
        "secrets.csv:7: name: there is no secret of this name",
        "secrets.csv:9: name: the meter has this secret in line 8 already",
    ]
    assert "secret1" not in " ".join(told).lower().replace("no secret of", "")
    assert not any(f"Secret{n}" in text for n in range(1, 9) for text in told)
    assert listed(tmp_path) == []


def test_a_missing_header_does_not_show_the_row_in_its_place(tmp_path: Path) -> None:
    prepare(tmp_path)
    keys(tmp_path, "init")
    told = refusal(keys(tmp_path, "import", secrets_file(tmp_path, header="D1,password,text:Secret1"), ok=False))
    assert "the header is meter_id,name,value" in told
    assert "Secret1" not in told


def test_a_new_generation_is_read_from_standard_input_or_a_file(tmp_path: Path) -> None:
    prepare(tmp_path)
    keys(tmp_path, "init")
    keys(tmp_path, "import", secrets_file(tmp_path, "D1,password,text:one"))
    assert not shows(keys(tmp_path, "rotate", "D1", "password", given="text:second-one\n").output, b"second-one")
    assert listed(tmp_path)[1] == ("D1", "password", 2, "pending")
    assert opened_secrets(tmp_path, "D1")["password"] == b"one"
    assert "is pending already" in refusal(keys(tmp_path, "rotate", "D1", "password", given="text:x\n", ok=False))
    keys(tmp_path, "activate", "D1", "password")
    assert opened_secrets(tmp_path, "D1")["password"] == b"second-one"
    (tmp_path / "value").write_text("text:third\n")
    keys(tmp_path, "rotate", "D1", "password", "--file", str(tmp_path / "value"))
    keys(tmp_path, "drop", "D1", "password")
    keys(tmp_path, "activate", "D1", "password", "--generation", "1")
    assert listed(tmp_path) == [("D1", "password", 1, "active"), ("D1", "password", 2, "retired")]
    assert "nothing was deleted" in refusal(keys(tmp_path, "remove", "D1", "password", given="n\n", ok=False))
    keys(tmp_path, "remove", "D1", "password", "--yes")
    assert listed(tmp_path) == []


def test_no_verb_takes_a_value_as_an_argument() -> None:
    group: Any = cli.commands["keys"]
    for name, command in group.commands.items():
        assert not any("value" in parameter.name for parameter in command.params), name


def test_rotating_the_master_key(tmp_path: Path) -> None:
    path = prepare(tmp_path)
    keys(tmp_path, "init")
    keys(tmp_path, "import", secrets_file(tmp_path, f"D1,encryption_key,{GUEK.hex()}"))
    new = tmp_path / "new.key"
    assert "1 secret(s) sealed" in keys(tmp_path, "rotate-master", str(new)).output
    assert "sealed under another master key" in refusal(keys(tmp_path, "list", ok=False))
    path.write_text(path.read_text().replace("master.key", "new.key"))
    assert opened_secrets(tmp_path, "D1") == {"encryption_key": GUEK}
    assert "in use already" in refusal(keys(tmp_path, "rotate-master", str(new), ok=False))


def test_without_a_master_key_nothing_is_imported(tmp_path: Path) -> None:
    prepare(tmp_path, more="")
    told = refusal(keys(tmp_path, "import", secrets_file(tmp_path, "D1,password,text:x"), ok=False))
    assert "there is no master key: the environment variable HEADEND_MASTER_KEY is not set" in told


# -- check -------------------------------------------------------------------------------------------------------------


def check(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["check", "--site", str(folder / "site.toml"), *words])


def test_check_looks_at_the_master_key(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert "master.key: can't be read: No such file" in refusal(check(tmp_path))
    keys(tmp_path, "init")
    assert "nothing was opened" in check(tmp_path).output
    keys(tmp_path, "import", secrets_file(tmp_path, "D1,password,text:x"))
    assert "every secret opens" in check(tmp_path, "--secrets").output
    (tmp_path / "master.key").chmod(0o644)
    assert "chmod 600" in refusal(check(tmp_path))
    (tmp_path / "master.key").unlink()
    new_master_key(tmp_path / "master.key")
    assert check(tmp_path).exit_code == 0
    assert "sealed under another master key" in refusal(check(tmp_path, "--secrets"))


def test_check_tells_a_malformed_key_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, more='[vault]\nmaster_key_env = "TOWN_KEY"')
    assert check(tmp_path).exit_code == 0
    monkeypatch.setenv("TOWN_KEY", "Secret-but-short")
    told = refusal(check(tmp_path))
    assert "environment variable TOWN_KEY: holds no master key of 32 bytes" in told
    assert "Secret-but" not in told


def test_check_secrets_tells_a_missing_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, more="")
    monkeypatch.setenv("HEADEND_MASTER_KEY", os.urandom(32).hex())
    keys(tmp_path, "import", secrets_file(tmp_path, "D1,password,text:x"))
    assert check(tmp_path, "--secrets").exit_code == 0
    monkeypatch.delenv("HEADEND_MASTER_KEY")
    told = refusal(check(tmp_path, "--secrets"))
    assert "1 secret(s) of 1 meter(s): there is no master key (environment variable HEADEND_MASTER_KEY)" in told


# -- options -----------------------------------------------------------------------------------------------------------


def test_a_meters_options_reach_its_driver(tmp_path: Path) -> None:
    site = load_site(prepare(tmp_path))
    store = open_store(site.store_url)
    with store.read() as conn:
        by_id = {meter.id: meter for meter in meters_of(site, registry.meters(conn))}
        assert registry.meters(conn)[0].options == "client = 32; reply_s = 3.5"
    store.close()
    own, model = by_id["D1"].details, by_id["D2"].details
    assert isinstance(own, DlmsSettings)
    assert isinstance(model, DlmsSettings)
    assert (own.client, own.reply_s, own.authentication) == (32, 3.5, "lls")
    assert (model.client, model.reply_s) == (16, 0.0)
    assert by_id["M1"].details is None


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("D1,dlms,1,bus,lls,client = 99999", "meters.csv:2: options: client: "),
        ("D1,dlms,1,bus,lls,cleint = 1", "meters.csv:2: options: cleint: "),
        ("D1,dlms,1,bus,lls,client 16", "meters.csv:2: options: not readable: "),
        (
            "M1,dlt645-2007,1,bus,dlt645-2007-1ph,client = 16",
            "meters.csv:2: options: a meter of dlt645-2007 has no options",
        ),
    ],
)
def test_wrong_options_are_told_by_row_and_column(tmp_path: Path, row: str, told: str) -> None:
    site = load_site(prepare(tmp_path))
    (tmp_path / "meters.csv").write_text(f"meter_id,protocol,address,line,model,options\n{row}\n")
    store = open_store(site.store_url)
    with pytest.raises(ConfigError) as refused:
        import_files(
            store, site, meters=tmp_path / "meters.csv", check_address=lambda p, a: PROTOCOLS[p].check_address(a)
        )
    store.close()
    (problem,) = refused.value.problems
    assert str(problem).startswith(told)


# -- a whole session ---------------------------------------------------------------------------------------------------


async def read(path: Path, meter: str) -> dict[str, Any]:
    request = {"do": "read", "meter": meter, "kind": "registers", "quantities": ["import_kwh"]}
    reply = await ask_daemon(path, request)
    assert reply is not None
    outcome: dict[str, Any] = reply["outcome"]
    return outcome


def test_an_lls_session_through_the_daemon_leaves_no_password_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The password goes over the wire in plain; it is in no evidence, log, JSON or repr. A wrong one is NO_ACCESS."""
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    kept: list[FrameRecord] = []

    async def main() -> None:
        spec = DlmsSpec(logical=2, clients=(DlmsClient(16, "lls", PASSWORD),))
        server = await serve_dlms_tcp(dlms_meter(RunningClock(time.time()), spec))
        path = prepare(tmp_path, server.endpoint())
        keys(tmp_path, "init")
        daemon = Daemon(load_site(path))
        api = LocalApi(daemon)
        await api.start()
        await daemon.start()
        try:
            before = await read(path, "D2")
            assert before["status"] == "no access"
            assert "password of the meter is not known" in before["detail"]
            for secret, status in ((WRONG, "no access"), (PASSWORD, "ok")):
                keys(tmp_path, "import", secrets_file(tmp_path, f"D2,password,text:{secret.decode()}"))
                await daemon.tick()
                outcome = await read(path, "D2")
                assert outcome["status"] == status
                told.append(json.dumps(outcome))
                assert outcome["frames"][0]["direction"] == ">"
            told.append(repr(daemon.vault.access(daemon.meters[1])))
            kept.extend(frame for line in daemon.lines.values() for _, frame in line.stats.ring or ())
        finally:
            await api.close()
            await daemon.stop()
            await server.stop()

    asyncio.run(main())
    store = open_store(load_site(tmp_path / "site.toml").store_url)
    with store.read() as conn:
        rows = conn.execute(select(schema.evidence)).all()
        frames = [frame for row in rows for frame in unpack_frames(bytes(row.frames))]
        details = [row.detail for row in conn.execute(select(schema.outcome))]
    store.close()
    assert len(frames) > 6
    assert len(kept) > 6
    assert any(frame.data[8:9] == b"\x60" for frame in frames), "the AARQ is there, masked"
    for secret in (PASSWORD, WRONG):
        assert not any(secret in frame.data for frame in (*frames, *kept))
        assert not any(shows(text, secret) for text in (*told, *details, caplog.text))


def test_without_the_master_key_jobs_end_naming_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        spec = DlmsSpec(logical=2, clients=(DlmsClient(16, "lls", PASSWORD),))
        server = await serve_dlms_tcp(dlms_meter(RunningClock(time.time()), spec))
        path = prepare(tmp_path, server.endpoint())
        keys(tmp_path, "init")
        keys(tmp_path, "import", secrets_file(tmp_path, f"D2,password,text:{PASSWORD.decode()}"))
        path.write_text(path.read_text().replace(_FILE, ""))
        daemon = Daemon(load_site(path))
        api = LocalApi(daemon)
        await api.start()
        await daemon.start()
        try:
            outcome = await read(path, "D2")
        finally:
            await api.close()
            await daemon.stop()
            await server.stop()
        assert outcome["status"] == "no access"
        assert "no master key (environment variable HEADEND_MASTER_KEY)" in outcome["detail"]

    asyncio.run(main())
    assert "1 secret(s) of 1 meter(s): there is no master key" in caplog.text

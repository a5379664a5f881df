"""site.toml: what is refused, in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.site import Site, load_site
from headend.errors import ConfigError

SITE = '[site]\nname = "Town"\n'
LINE = '[[line]]\nname = "east"\nendpoint = "tcp://192.0.2.1:4001"\n'


def _load(folder: Path, text: str) -> Site:
    path = folder / "site.toml"
    path.write_text(text, encoding="utf-8")
    return load_site(path)


def _refusals(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        _load(folder, text)
    return [str(problem) for problem in caught.value.problems]


def test_every_problem_at_once(tmp_path: Path) -> None:
    text = """
[site]
nam = "Town"
zone = "Asia/Peking"
tariffs = "nowhere"
[[line]]
name = "east"
endpoint = "tcp://192.0.2.1"
reply_s = "2"
[[line]]
name = "east"
endpoint = "serial:/dev/ttyS1"
serial = "2401 8E1"
enpoint = 1
[[schedule]]
name = "curves"
read = "curves"
lines = ["est"]
deadline_min = 1.5
[evidense]
[ingest]
max_batch = 0
"""
    bauds = "300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200"
    assert _refusals(tmp_path, text) == [
        'site.toml: unknown table "evidense" -> did you mean evidence?',
        "site.toml: site.name: the key 'name' is missing -> write name = \"Town\"",
        "site.toml: site.zone: unknown time zone 'Asia/Peking' -> use an IANA name or an offset like +08:00",
        'site.toml: site.nam: unknown key "nam" -> did you mean name?',
        'site.toml: site.tariffs: there is no folder "nowhere" -> '
        "make the folder or remove the key; relative names start at the folder of this file",
        "site.toml: line[1].endpoint: endpoint 'tcp://192.0.2.1' names no port -> "
        "write host:port, an IPv6 address as [::1]:port",
        'site.toml: line[1].reply_s: "2" is not a number -> write reply_s = 2.0',
        f"site.toml: line[2].serial: '2401' is no speed a line runs at -> use one of {bauds}",
        'site.toml: line[2].enpoint: unknown key "enpoint" -> did you mean endpoint?',
        'site.toml: line[2].name: the name "east" is taken by line[1] -> give each its own name',
        'site.toml: schedule[1].read: "curves" is not known here'
        " -> use curve, daily_freeze, timed_freeze, settlement, registers, clock or events",
        "site.toml: schedule[1].deadline_min: 1.5 is not a whole number -> write deadline_min = 60",
        'site.toml: schedule[1].lines: there is no line "est" -> did you mean east?',
        "site.toml: ingest.max_batch: 0 is out of range -> use a number of at least 1",
    ]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("", ['site.toml: the table [site] is missing -> write [site] and under it name = "Town"']),
        (
            "[site]\nname = Town\n",
            [
                "site.toml:2:8: not TOML: Invalid value -> "
                "texts stand in double quotes, numbers and true or false do not"
            ],
        ),
        (
            '[site]\nname = "a"\nname = "b"\n',
            ["site.toml:3:11: not TOML: Cannot overwrite a value -> the key is given twice: remove one"],
        ),
        ("[site", ["site.toml: at the end: not TOML: Expected ']' at the end of a table declaration"]),
        ("x = " + "[" * 5000, ["site.toml: lists or tables are nested too deep -> remove the inner brackets"]),
        ("site = 5\n", ["site.toml: site: 5 stands where a table is wanted -> write it as a [table]"]),
        (
            SITE + '[line]\nname = "east"\n',
            ["site.toml: line: a table stands where repeated tables are wanted -> write [[line]]"],
        ),
        (
            "schedule = [1]\n" + SITE,
            ["site.toml: schedule[1]: 1 stands where a table is wanted -> write it as a [[table]]"],
        ),
        ('[site]\nname = " "\n', ["site.toml: site.name: the name is empty -> give it a name"]),
        ("[site]\nname = true\n", ['site.toml: site.name: true is not a text -> write name = "Town"']),
        (
            SITE + LINE + "reply_s = inf\n",
            ["site.toml: line[1].reply_s: inf is not a finite number -> write reply_s = 2.0"],
        ),
        (
            SITE + LINE + "reply_s = 0\n",
            ["site.toml: line[1].reply_s: 0 is out of range -> use a number above 0"],
        ),
        (
            SITE + LINE + 'serial = "2400 8E1"\n',
            [
                "site.toml: line[1].serial: a tcp endpoint has no serial settings -> "
                "remove the key: the server's own settings hold"
            ],
        ),
        (
            SITE + LINE + 'registration = "x"\n',
            [
                "site.toml: line[1].registration: nothing registers on a tcp endpoint -> "
                "remove the key, or use listen://host:port"
            ],
        ),
        (
            SITE + LINE + 'heartbeat = "hex:F"\n',
            ['site.toml: line[1].heartbeat: "hex:F" is not hexadecimal -> write pairs of digits, like "hex:68 AA"'],
        ),
    ],
)
def test_refusals(tmp_path: Path, text: str, messages: list[str]) -> None:
    assert _refusals(tmp_path, text) == messages


def _listen(name: str, registration: str, endpoint: str = "listen://:9000") -> str:
    return f'[[line]]\nname = "{name}"\nendpoint = "{endpoint}"\nregistration = "{registration}"\n'


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (
            LINE + LINE.replace("east", "west").replace("192.0.2.1", "192.0.2.1"),
            [
                "site.toml: line[2].endpoint: line[1] has the endpoint tcp://192.0.2.1:4001 already -> "
                "one line owns an endpoint: put all its meters on one line"
            ],
        ),
        (
            _listen("a", "A1") + _listen("b", "A1"),
            [
                "site.toml: line[2].endpoint: line[1] listens on listen://:9000 with the same registration -> "
                "give each line its own registration or its own port"
            ],
        ),
        (
            _listen("a", "A1") + _listen("b", "B") + _listen("c", "A12"),
            [
                "site.toml: line[3].registration: can't be told from line[1]'s registration: one holds the other -> "
                "use registrations of which none is part of another"
            ],
        ),
    ],
)
def test_lines_that_would_collide(tmp_path: Path, lines: str, messages: list[str]) -> None:
    assert _refusals(tmp_path, SITE + lines) == messages


def test_listeners_with_registrations_of_their_own_share_a_port(tmp_path: Path) -> None:
    site = _load(tmp_path, SITE + _listen("a", "A1") + _listen("b", "B1") + _listen("c", "A1", "listen://:9001"))
    assert [line.registration for line in site.lines] == [b"A1", b"B1", b"A1"]


@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        (
            'read = "registers"',
            [
                "schedule[1].every_min: a schedule that reads registers needs every_min -> write every_min = 60",
                "schedule[1].quantities: a schedule that reads registers needs quantities -> "
                'write quantities = ["import_kwh"]',
            ],
        ),
        (
            'read = "curve"\nevery_min = 15',
            ["schedule[1].every_min: every_min means nothing to a schedule that reads curve -> remove the key"],
        ),
        (
            'read = "clock"\nevery_min = 60\nhorizon_days = 3\nquantities = ["import_kwh"]',
            [
                "schedule[1].horizon_days: horizon_days means nothing to a schedule that reads clock -> remove the key",
                "schedule[1].quantities: quantities means nothing to a schedule that reads clock -> remove the key",
            ],
        ),
        (
            'read = "curve"\nquantities = ["import_kwhh"]',
            [
                'schedule[1].quantities: unknown quantity "import_kwhh" -> '
                "did you mean import_kwh or import_kw or import_kwh_c?"
            ],
        ),
        (
            'read = "curve"\nquantities = ["import_kwh", "import_kwh"]',
            ['schedule[1].quantities: "import_kwh" stands twice in quantities -> name each once'],
        ),
        (
            'read = "curve"\nquantities = ["export_kwh"]',
            [
                "schedule[1].quantities: no meter model has a curve of export_kwh -> "
                "add them to a meter model, or read other quantities"
            ],
        ),
        (
            'read = "curve"\nmodels = ["dlt645-2007-basic"]',
            [
                "schedule[1].models: dlt645-2007-basic keeps no curve -> "
                "remove the model from this schedule, or add to its file what it can do"
            ],
        ),
        (
            'read = "daily_freeze"\nquantities = ["voltage_v_a"]\nmodels = ["dlt645-2007-basic"]',
            [
                "schedule[1].quantities: voltage_v_a is no register: it is not frozen daily -> name registers",
                "schedule[1].models: dlt645-2007-basic keeps no daily freeze -> "
                "remove the model from this schedule, or add to its file what it can do",
            ],
        ),
        (
            'read = "curve"\nmodels = ["dlt645-2007-1p"]',
            [
                'schedule[1].models: there is no model "dlt645-2007-1p" -> '
                "did you mean dlt645-2007-1ph or dlt645-2007-3ph or dlt645-2007-1ph-60?"
            ],
        ),
        (
            'read = "curve"\nlines = ["*", "east"]',
            ['schedule[1].lines: "*" stands beside names -> write ["*"] alone or the names alone'],
        ),
        (
            'read = "curve"\nlines = []',
            ['schedule[1].lines: the list is empty: nothing would be read -> write ["*"] for all'],
        ),
        (
            'read = "curve"\nlines = [1]',
            ['schedule[1].lines[1]: 1 is not a text -> write lines = ["*"]'],
        ),
    ],
)
def test_schedules_that_make_no_sense(tmp_path: Path, keys: str, messages: list[str]) -> None:
    text = f'{SITE}{LINE}[[schedule]]\nname = "s"\n{keys}\n'
    assert _refusals(tmp_path, text) == [f"site.toml: {message}" for message in messages]


def test_files_that_cant_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "site.toml"
    remedy = "name the site's file, or start from docs/example-site/site.toml"
    with pytest.raises(ConfigError) as caught:
        load_site(missing)
    assert str(caught.value) == f"{missing}: there is no such file -> {remedy}"
    with pytest.raises(ConfigError) as caught:
        load_site(tmp_path)
    assert str(caught.value) == f"{tmp_path}: this is a folder, a file is wanted -> {remedy}"
    missing.write_bytes(SITE.encode() + b'zone = "\xd6\xd0"\n')
    with pytest.raises(ConfigError) as caught:
        load_site(missing)
    assert str(caught.value) == "site.toml:3: the text is not UTF-8 -> save the file with the encoding UTF-8"


def test_problems_of_site_and_meter_models_come_together(tmp_path: Path) -> None:
    (tmp_path / "meters").mkdir()
    (tmp_path / "meters" / "mine.toml").write_text("protocol = 1\n")
    messages = _refusals(tmp_path, SITE + 'zone = "x"\n')
    assert [message.split(":")[0] for message in messages] == ["site.toml", *["mine.toml"] * 4]

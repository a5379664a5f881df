"""Wrong files as a user writes them: all problems at once, each with its place and what to do; nothing started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_SITE = """
[site]
name = "Wrong"
colour = "red"

[[line]]
name = "bus"
endpoint = "serial:/dev/ttyS1"
serial = "2401 8E1"

[[schedule]]
name = "curve"
read = "curve"
"""

_METERS = """meter_id,protocol,address,line,model
M1,dlt645-2007,000000000001,bus,dlt645-2007-1ph
M2,dlt645-2007,000000000001,bus,dlt645-2007-1ph
"""

_USAGE_POINTS = """usage_point,meter_id,installed_at,multiplier
UP1,M1,2026-01-01T00:00:00+08:00,1
"""

_TARIFF = """
id = "gappy"
version = "1"
title = "A tariff with a gap"
source = "made up"
source_date = 2026-01-01
verified = false
valid_from = 2026-01-01
zone = "Asia/Shanghai"
currency = "CNY"

[[charges]]
kind = "tou"
unit = "kWh"
prices = { peak = "1.0", valley = "0.5" }

[[charges.seasons]]
months = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
periods = { peak = ["08:00-22:00"], valley = ["23:00-08:00"] }
"""


def headend(folder: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "headend", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    (tmp_path / "site.toml").write_text(_SITE)
    (tmp_path / "meters.csv").write_text(_METERS)
    (tmp_path / "usage_points.csv").write_text(_USAGE_POINTS)
    (tmp_path / "tariffs").mkdir()
    (tmp_path / "tariffs" / "gappy.toml").write_text(_TARIFF)
    return tmp_path


def test_everything_wrong_is_told_at_once(wrong: Path) -> None:
    status, text = headend(wrong, "check", "--meters", "meters.csv", "--usage-points", "usage_points.csv")
    assert status == 1
    problems = [line for line in text.splitlines() if line.startswith("error: ")]
    for place, what, remedy in (
        ("site.toml: line[1].serial", "'2401' is no speed", "use one of 300, 600, 1200, 2400"),
        ("site.toml: site.colour", "unknown key", ""),
        ("meters.csv:3: address", "is that of meter M1 in meters.csv:2", "correct the address"),
        ("usage_points.csv:1", "the column district is missing", "the header is"),
        ("gappy.toml", "22:00", ""),
    ):
        assert any(place in p and what in p and remedy in p for p in problems), (place, problems)
    assert all(" -> " in p for p in problems)
    assert text.splitlines()[-1] == f"{len(problems)} problem(s); nothing was started or changed"
    assert sorted(p.name for p in wrong.iterdir()) == ["meters.csv", "site.toml", "tariffs", "usage_points.csv"]


@pytest.mark.parametrize("verb", [("run",), ("import", "--meters", "meters.csv"), ("status",), ("read", "M1")])
def test_no_verb_starts_on_a_wrong_site(wrong: Path, verb: tuple[str, ...]) -> None:
    status, text = headend(wrong, *verb)
    assert status == 1
    assert "site.toml: line[1].serial" in text
    assert not (wrong / "headend.db").exists()


def test_a_store_of_the_wrong_place_says_so_without_its_password(tmp_path: Path) -> None:
    site = '[site]\nname = "x"\nstore = "postgresql://u:very-secret@127.0.0.1:1/db"\n[[line]]\nname = "a"\nendpoint = "tcp://h:1"\n'
    (tmp_path / "site.toml").write_text(site + '[[schedule]]\nname = "c"\nread = "curve"\n')
    status, text = headend(tmp_path, "status")
    assert status == 1
    assert "very-secret" not in text
    assert "127.0.0.1" in text


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("reads", "M1", "--from", "2026-10-02", "--to", "2026-10-01"), "the span ends before it starts"),
        (("events", "M1", "--from", "9999-12-31"), "in no year that meters know"),
        (("reads", "M1", "--from", "0001-01-01"), "in no year that meters know"),
        (("reads", "M1", "--from", "yesterday"), "'yesterday' is no time"),
        (("status", "--days", "-5"), "is not in the range"),
        (("bill", "close", "0001-01"), "in no year that meters know"),
        (("bill", "list", "9999-12"), "in no year that meters know"),
        (("demo", "--folder", "site.toml"), "is no demo's folder"),
    ],
)
def test_words_that_make_no_sense_are_refused_in_one_line(tmp_path: Path, words: tuple[str, ...], what: str) -> None:
    site = (
        '[site]\nname = "x"\n[[line]]\nname = "a"\nendpoint = "tcp://h:1"\n[[schedule]]\nname = "c"\nread = "curve"\n'
    )
    (tmp_path / "site.toml").write_text(site)
    status, text = headend(tmp_path, *words)
    assert status != 0
    assert what in text

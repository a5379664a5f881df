"""The meters of a town file: what kinds there are, what befalls them, and what can't be."""

from __future__ import annotations

import csv
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.bus import Bus
from simulators.clock import SettableClock
from simulators.dlt645_1997 import Dlt645Meter1997
from simulators.dlt645_meter import Dlt645Meter
from simulators.errors import SimulatorError
from simulators.town import Town, load_town

ZONE = timezone(timedelta(hours=8))
NOW = datetime(2026, 11, 24, 9, 0, tzinfo=ZONE)

TOWN = """
[[line]]
name = "a"
kind = "tcp"
baud_accurate = true
parity = "N"

[[meter]]
line = "a"
meter_id = "M1"
address = "240101000001"
tariff = "t"
lacks = ["0400010c", "0201FF00"]
passwords = { 2 = "123456", 4 = "111111" }
needs_key = true
relay = "stuck"
relay_delay_s = 5
baud = 9600
parity = "E"
frame_bytes = 100

[[meter]]
line = "a"
meter_id = "M2"
address = "240101000002"
tariff = "t"
esam = true

[[group]]
line = "a"
count = 2
meter_id = "O{n}"
address = "97010100000{n}"
tariff = "t"
form = "1997"
block_end = true
hears_99 = true
lacks = ["C011"]
baud = 1200

[[event]]
meter = "M2"
kind = "cover_open"
from = 2026-11-20T08:00:00+08:00
until = 2026-11-20T08:05:00+08:00

[[event]]
meter = "M2"
kind = "power_loss"
from = 2026-11-24T09:30:00+08:00

[[fault]]
meter = "O1"
script = ["stale", "burst", "hangup", "halfopen"]

[[tariff]]
id = "t"
kind = "year-step"
limits_kwh = [2760]
prices = ["0.5", "0.6"]
"""


def town_of(text: str, folder: Path) -> Town:
    path = folder / "town.toml"
    path.write_text(text, "utf-8")
    return load_town(path, now=SettableClock(NOW.timestamp()))


def test_every_key_reaches_its_meter(tmp_path: Path) -> None:
    town = town_of(TOWN, tmp_path)
    spec = town.plans["M1"].spec
    assert spec.lacks == ("0400010C", "0201FF00")
    assert spec.passwords == ((2, "123456"), (4, "111111"))
    assert (spec.needs_key, spec.relay, spec.relay_delay_s, spec.frame_bytes) == (True, "stuck", 5, 100)
    first, bus = town.meters["M1"], town.buses["a"]
    assert isinstance(first, Dlt645Meter)
    assert isinstance(bus, Bus)
    assert (first.baud, first.parity) == (9600, "E")
    assert town.plans["M2"].spec.esam
    assert (bus.wire.baud, bus.wire.parity) == (2400, "N")
    old = town.meters["O2"]
    assert isinstance(old, Dlt645Meter1997)
    assert (old.spec.block_end, old.spec.hears_99, old.spec.lacks, old.baud) == (True, True, ("C011",), 1200)
    assert bus.faults.rules[0].script == ("stale", "burst", "hangup", "halfopen")


def test_events_befall_their_meter(tmp_path: Path) -> None:
    town = town_of(TOWN, tmp_path)
    clock = town.now
    assert isinstance(clock, SettableClock)
    meter = town.meters["M2"]
    assert isinstance(meter, Dlt645Meter)

    def count(di: str) -> bytes | None:
        answer = meter.answer(meter.address, 0x11, bytes.fromhex(di)[::-1])
        return None if answer is None else bytes((b - 0x33) & 0xFF for b in answer[-5:-2])

    assert count("03300D00") == bytes.fromhex("010000")
    assert count("03110000") == bytes(3)
    clock.set((NOW + timedelta(minutes=30)).timestamp())
    assert count("03110000") is None


def test_a_1997_meter_in_the_truth(tmp_path: Path) -> None:
    town = town_of(TOWN, tmp_path)
    town.write_truth(tmp_path / "truth")
    with (tmp_path / "truth" / "meters.csv").open(encoding="utf-8") as file:
        rows = {row["meter_id"]: row for row in csv.DictReader(file)}
    assert (rows["O1"]["protocol"], rows["O1"]["model"]) == ("dlt645-1997", "dlt645-1997-basic")
    assert (rows["M1"]["protocol"], rows["M1"]["model"]) == ("dlt645-2007", "dlt645-2007-1ph")
    assert (tmp_path / "truth" / "registers.jsonl").read_text().count('"O1"') == 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('lacks = ["C011"]', 'lacks = ["04000102"]', "[[group]] 1: lacks: '04000102' is no data identifier -> write 4"),
        ('["0400010c", ', '["C011", ', "[[meter]] 1: lacks: 'C011' is no data identifier -> write 8 hex digits each"),
        ('4 = "111111"', '4 = "1111"', "[[meter]] 1: passwords: not usable -> write levels 0 to 9 and six digits"),
        ('4 = "111111"', '10 = "111111"', "[[meter]] 1: passwords: not usable -> "),
        ("baud = 1200", "baud = 1201", "[[group]] 1: baud: 1201 is no line speed -> use one of 300, "),
        ('parity = "E"', 'parity = "even"', "[[meter]] 1: parity: unknown 'even' -> use one of "),
        ('relay = "stuck"', 'relay = "slow"', "[[meter]] 1: relay: unknown 'slow' -> use one of works, stuck"),
        ("frame_bytes = 100", "frame_bytes = 20", "[[meter]] 1: frame_bytes: 20 is not usable -> write a whole number"),
        ("block_end = true", "esam = true", "[[group]] 1: esam: unknown key -> leave it out"),
        ("esam = true", "block_end = true", "[[meter]] 2: block_end: unknown key -> leave it out"),
        ('"cover_open"', '"fire"', "[[event]] 1: kind: unknown 'fire' -> use one of power_loss, cover_open, terminal"),
        ('meter = "M2"\nkind = "p', 'meter = "O1"\nkind = "p', "[[event]] 2: meter: 'O1' keeps no events -> name a"),
        ('meter = "M2"\nkind = "p', 'meter = "M9"\nkind = "p', "[[event]] 2: meter: unknown 'M9' -> name a meter_id"),
        ("until = 2026-11-20T08:05", "until = 2026-11-20T08:00", "[[event]] 1: until: not later than from -> let it"),
        ("from = 2026-11-24T09:30:00+08:00", "", "[[event]] 2: from: missing -> write from = 2026-01-31T08:00:00+"),
        ('"halfopen"]', '"halfshut"]', "[[fault]] 1: script: unknown 'halfshut' -> use ok, silence, "),
    ],
)
def test_what_can_not_be_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert TOWN.count(old) == 1
    with pytest.raises(SimulatorError) as caught:
        town_of(TOWN.replace(old, new), tmp_path)
    assert any(problem.startswith(f"town.toml {told}") for problem in caught.value.problems), caught.value.problems
    assert "123456" not in str(caught.value)


JUNK = ["-1", "0", '""', '"x"', "[]", "[1]", "{}", "true", "2026-01-01T00:00:00+08:00", "1e99", '["ok"]', "{ 2 = 3 }"]
KEYS = [k for k, line in enumerate(TOWN.splitlines()) if " = " in line]


@settings(max_examples=150, deadline=None)
@given(at=st.sampled_from(KEYS), junk=st.sampled_from(JUNK))
def test_no_value_breaks_the_reader(at: int, junk: str) -> None:
    lines = TOWN.splitlines()
    lines[at] = f"{lines[at].split(' = ')[0]} = {junk}"
    problems: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory() as folder:
        try:
            town = town_of("\n".join(lines), Path(folder))
        except SimulatorError as error:
            problems = error.problems
        else:
            assert set(town.meters) >= {"M2"}
    assert all(" -> " in problem for problem in problems)

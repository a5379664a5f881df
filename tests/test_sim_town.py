"""Town files, true bills against worked examples, and the demo town as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.bus import Bus
from simulators.clock import SettableClock
from simulators.dlms_meter import DlmsMeter
from simulators.dlt645_frame import build, take
from simulators.errors import SimulatorError
from simulators.mqtt_meters import ConMeter
from simulators.town import Town, load_town, run
from simulators.truth_bills import (
    MonthStep,
    Season,
    Tou,
    TrueLine,
    YearStep,
    YearStepTou,
    amount_cents,
    bill_lines,
    hundredths,
    price_units,
    total_cents,
)

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "simulators" / "towns" / "demo.toml"
ZONE = timezone(timedelta(hours=8))
NOW = datetime(2026, 11, 24, 9, 0, tzinfo=ZONE)


def demo(at: datetime = NOW) -> Town:
    return load_town(DEMO, now=SettableClock(at.timestamp()))


# -- worked bills (kWh in hundredths); sources as in the worked examples: Zhejiang prices github.com/cc01cc/Eru,
# Guangdong github.com/RuiQui/EnergyPrice 559ed55, Shanghai windows from public code ----------------------------------


def amounts(lines: list[TrueLine]) -> list[tuple[str, str, str]]:
    return [(line.code, hundredths(line.quantity), hundredths(line.amount)) for line in lines]


def tariff(name: str) -> Any:
    return demo().plan.tariffs[name]


def test_worked_bill_r02_crosses_the_yearly_step() -> None:
    lines = bill_lines(tariff("cn-zhejiang-residential-step"), 6, 35_000, {}, 260_000)
    assert amounts(lines) == [("energy_step1", "160.00", "86.08"), ("energy_step2", "190.00", "111.72")]
    assert total_cents(lines) == 19_780


def test_worked_bill_r08_peak_valley_with_step_adder() -> None:
    energy = {"peak": 23_000, "valley": 12_000}
    lines = bill_lines(tariff("cn-zhejiang-residential-tou-step"), 6, 35_000, energy, 260_000)
    assert amounts(lines) == [
        ("energy_peak", "230.00", "130.64"),
        ("energy_valley", "120.00", "34.56"),
        ("step2_adder", "190.00", "9.50"),
    ]
    assert total_cents(lines) == 17_470


def test_worked_bill_r10_monthly_steps_round_line_by_line() -> None:
    lines = bill_lines(tariff("cn-guangdong-residential-step"), 7, 70_000, {})
    assert amounts(lines) == [
        ("energy_step1", "260.00", "158.31"),
        ("energy_step2", "340.00", "224.02"),
        ("energy_step3", "100.00", "90.89"),
    ]
    assert total_cents(lines) == 47_322


def test_worked_bill_t01_a_day_of_96_intervals() -> None:
    shanghai = tariff("example-commercial-tou")
    assert isinstance(shanghai, Tou)
    windows = next(season.windows for season in shanghai.seasons if 7 in season.months)
    energy = dict.fromkeys(shanghai.prices, 0)
    for k in range(96):
        period = next(name for first, last, name in windows if first <= 15 * k < last)
        energy[period] += 10 * (k + 1)
    lines = bill_lines(shanghai, 7, sum(energy.values()), energy)
    assert amounts(lines) == [
        ("energy_sharp", "42.00", "51.81"),
        ("energy_peak", "182.40", "187.51"),
        ("energy_flat", "137.20", "88.15"),
        ("energy_valley", "104.00", "30.07"),
        ("service", "1.00", "12.00"),
    ]
    assert total_cents(lines) - 1200 == 35_754


def test_periods_that_do_not_occur_have_no_line_and_those_that_do_have_one_at_zero() -> None:
    codes = [line.code for line in bill_lines(tariff("example-commercial-tou"), 10, 0, {})]
    assert codes == ["energy_peak", "energy_flat", "energy_valley", "service"]
    both = [line.code for line in bill_lines(tariff("cn-zhejiang-residential-tou-step"), 1, 0, {}, 0)]
    assert both == ["energy_peak", "energy_valley"]


@given(quantity=st.integers(0, 10**9), price=st.integers(0, 10**9))
def test_amounts_are_rounded_half_up(quantity: int, price: int) -> None:
    exact = Decimal(quantity) / 100 * Decimal(price) / 10**8
    assert amount_cents(quantity, price) == int(exact.quantize(Decimal("0.01"), ROUND_HALF_UP) * 100)


@given(before=st.integers(0, 10**6), used=st.integers(0, 10**6), split=st.integers(0, 10**6))
def test_steps_cover_the_energy_once_and_a_split_month_has_the_same(before: int, used: int, split: int) -> None:
    plain = YearStep((276_000, 480_000), (1, 2, 3))
    split = min(split, used)
    whole = {line.code: line.quantity for line in bill_lines(plain, 1, used, {}, before)}
    assert sum(whole.values()) == used
    for code in ("energy_step1", "energy_step2", "energy_step3"):
        parts = [
            line.quantity
            for lines in (
                bill_lines(plain, 1, split, {}, before),
                bill_lines(plain, 1, used - split, {}, before + split),
            )
            for line in lines
            if line.code == code
        ]
        assert sum(parts) == whole.get(code, 0)


def test_a_limit_belongs_to_the_lower_step() -> None:
    plain = MonthStep((Season(tuple(range(1, 13)), limits=(26_000, 60_000)),), (1, 2, 3))
    assert [line.code for line in bill_lines(plain, 1, 26_000, {})] == ["energy_step1"]
    assert [line.quantity for line in bill_lines(plain, 1, 26_001, {})] == [26_000, 1]
    yearly = YearStepTou((Season(tuple(range(1, 13)), windows=((0, 1440, "all"),)),), {"all": 1}, (100,), (5,))
    assert [line.code for line in bill_lines(yearly, 1, 10, {"all": 10}, 90)] == ["energy_all"]


@pytest.mark.parametrize("text", ["0,5", "", "-1", "1e3", "0.123456789", ".5"])
def test_prices_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="no price"):
        price_units(text)


# -- the demo town -----------------------------------------------------------------------------------------------


def test_the_demo_town_is_what_its_head_says() -> None:
    town = demo()
    assert len(town.accounts) == len(town.plan.meters) == 88
    sizes = Counter(meter.line for meter in town.plan.meters)
    assert sizes == {"server-1": 20, "server-2": 18, "server-3": 20, "server-4": 8, "server-5": 8, "wan-1": 1} | {
        f"modem-{n}": 1 for n in range(1, 5)
    } | {"rs485-1": 3, "C0001": 3, "C0002": 3}
    assert {meter.tariff for meter in town.plan.meters} == set(town.plan.tariffs)
    assert len({meter.load.seed for meter in town.plan.meters}) == 87  # one took another's place
    assert {meter.multiplier for meter in town.plan.meters} == {1, 30, 40, 3000}


@pytest.mark.parametrize("month", [2, 3, 4, 7, 9, 12])
def test_an_account_crosses_its_yearly_step_whenever_the_town_is_run(month: int) -> None:
    town = demo(datetime(2026, month, 20, 9, 0, tzinfo=ZONE))
    codes = [[line.code for line in town.true_bill("A-M1019", *town.closed_month())]]
    if month == 2:  # last month was January: the year's steps have just begun, only the heat pump is fast enough
        codes = [[line.code for line in town.true_bill("A-M1020", *town.closed_month())]]
    assert codes == [["energy_step1", "energy_step2"]]


@pytest.mark.parametrize("account", ["A-M1001", "A-M2001", "A-M2014", "A-M2017", "A-M3001", "A-M4001", "A-M5001"])
def test_true_bills_come_from_displayed_registers(account: str) -> None:
    town = demo()
    meter = town.accounts[account].meter
    start, end = datetime(2026, 10, 1, tzinfo=ZONE), datetime(2026, 11, 1, tzinfo=ZONE)
    lines = town.true_bill(account, 2026, 10)
    used = town.true_register(meter.meter_id, end) - town.true_register(meter.meter_id, start)
    energy = [line.quantity for line in lines if line.code.startswith("energy_")]
    assert sum(energy) == used * meter.multiplier > 0
    if (peak := next((line for line in lines if line.code == "energy_peak"), None)) is not None:
        spans = [(8, 22)] if "zhejiang" in meter.tariff else [(8, 11), (18, 21)]
        shown = [
            town.true_register(meter.meter_id, start + timedelta(days=day, hours=hour))
            for day in range(31)
            for span in spans
            for hour in span
        ]
        assert peak.quantity == sum(b - a for a, b in zip(shown[::2], shown[1::2], strict=True)) * meter.multiplier


def test_truth_files(tmp_path: Path) -> None:
    town = demo()
    town.write_truth(tmp_path)

    def rows(name: str) -> list[dict[str, str]]:
        with (tmp_path / name).open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    meters, points, accounts = rows("meters.csv"), rows("usage_points.csv"), rows("accounts.csv")
    assert meters[0] == {
        "meter_id": "M1001",
        "protocol": "dlt645-2007",
        "address": "240101000001",
        "line": "server-1",
        "model": "dlt645-2007-1ph",
        "clock_zone": "+08:00",
        "options": "",
    }
    models = {row["line"]: row["model"] for row in meters}
    assert models["server-3"] == "dlt645-2007-record"
    assert models["rs485-1"] == "dlt645-2007-1ph-60"
    assert {row["multiplier"] for row in points} == {"1", "30", "40", "3000"}
    assert points[0]["installed_at"] == "2024-01-01T00:00:00+08:00"
    by_account = {row["account"]: row for row in accounts}
    assert len(by_account) == 88
    assert by_account["A-M3001"]["step_used_kwh"] == by_account["A-M3001"]["step_used_at"] == ""
    start = datetime(2026, 10, 1, tzinfo=ZONE)
    for account in ("A-M1001", "A-M2001"):
        meter_id = account.removeprefix("A-")
        year = town.true_register(meter_id, datetime(2026, 1, 1, tzinfo=ZONE))
        assert Decimal(by_account[account]["step_used_kwh"]) * 100 == town.true_register(meter_id, start) - year
        assert datetime.fromisoformat(by_account[account]["step_used_at"]) == start
    registers = [json.loads(line) for line in (tmp_path / "registers.jsonl").read_text().splitlines()]
    first, hourly = registers[0], next(each for each in registers if each["meter_id"] == "M4001")
    assert (first["step_s"], hourly["step_s"]) == (900, 3600)
    assert len(first["registers"]) == 62 * 96 + 1
    assert first["start_s"] == int((NOW - timedelta(days=62)).timestamp())
    for k in (0, 1, 777, 62 * 96):
        at = datetime.fromtimestamp(first["start_s"] + 900 * k, ZONE)
        assert first["registers"][k] == town.true_register("M1001", at)
    bills = json.loads((tmp_path / "bills.json").read_text())
    assert (bills["year"], bills["month"], len(bills["bills"])) == (2026, 10, 88)
    for bill in bills["bills"]:
        for line in bill["lines"]:
            factor = Decimal(line["quantity"]) / (100 if line["unit"] == "%" else 1)
            exact = (factor * Decimal(line["price"])).quantize(Decimal("0.01"), ROUND_HALF_UP)
            assert Decimal(line["amount"]) == exact
        assert sum(Decimal(line["amount"]) for line in bill["lines"]) == Decimal(bill["total"])


SMALL = """
[[line]]
name = "a"
kind = "tcp"
listen = "127.0.0.1:0"

[[group]]
line = "a"
count = 2
meter_id = "M{n}"
address = "24010100000{n}"
tariff = "flat"

[[tariff]]
id = "flat"
kind = "month-step"
prices = ["0.5"]
season = [{ months = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], limits_kwh = [] }]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "town.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(SimulatorError) as caught:
        load_town(write(folder, text))
    return list(caught.value.problems)


def test_a_small_town_answers_on_the_port_it_announces(tmp_path: Path) -> None:
    town = load_town(write(tmp_path, SMALL), now=SettableClock(NOW.timestamp()))

    async def main() -> bytes:
        await town.start()
        (endpoint,) = town.endpoints()
        host, _, port = endpoint["endpoint"].removeprefix("tcp://").rpartition(":")
        assert (endpoint["line"], endpoint["kind"], endpoint["meters"]) == ("a", "tcp", 2)
        reader, writer = await asyncio.open_connection(host, int(port))
        meter = town.meters["M2"]
        assert not isinstance(meter, DlmsMeter | ConMeter)
        writer.write(build(meter.address, 0x11, bytes.fromhex("00000100")))
        answer = await reader.read(300)
        writer.close()
        await town.stop()
        return answer

    found = take(bytearray(asyncio.run(main())))
    assert found is not None
    shown = town.true_register("M2", NOW)
    assert found.data[4:] == bytes.fromhex(f"{shown:08d}")[::-1]


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    text = """
[town]
zone = "Europe/Berlin"
installed = "yesterday"
seeds = 3

[[line]]
name = "a"
kind = "tcp"
listen = "4001"

[[line]]
name = "a"
kind = "carrier pigeon"
baud = 9601

[[group]]
line = "b"
count = 2
meter_id = "M"
address = "12{n}"
tariff = "free"
step_min = 30
daily_wh = [9, 1]

[[fault]]
line = "a"
kind = "gremlins"
probability = 2

[[tariff]]
id = "t"
kind = "tou"
prices = { peak = 0.5 }
season = [{ months = [1, 2], peak = ["08:00-22:00"] }]
"""
    found = problems_of(tmp_path, text)
    for expected in (
        "town.toml [town]: zone: Europe/Berlin changes its offset in the year -> use a fixed one",
        "town.toml [town]: installed: 'yesterday' is no date -> ",
        "town.toml [town]: seeds: unknown key -> did you mean seed?",
        "town.toml [[line]] 1: listen: '4001' is no endpoint -> ",
        "town.toml [[line]] 2: kind: unknown 'carrier pigeon' -> use one of tcp, pty, dial",
        "town.toml [[line]] 2: baud: 9601 is no line speed -> ",
        "town.toml [[group]] 1: line: unknown 'b' -> use one of a",
        "town.toml [[group]] 1: address: '121' is no meter address -> make the pattern give 12 digits",
        "town.toml [[group]] 1: tariff: unknown 'free' -> use one of t",
        "town.toml [[group]] 1: step_min: 30 is no step these meters have -> use 15 or 60",
        "town.toml [[group]] 1: daily_wh: [9, 1] is not usable -> ",
        "town.toml [[fault]] 1: kind: unknown 'gremlins' -> use one of silence, late, ",
        "town.toml [[fault]] 1: probability: 2 is not usable -> write a number from 0 to 1",
        "town.toml [[tariff]] 1: prices.peak: 0.5 is no price -> write it in quotes",
        "town.toml [[tariff]] 1: season: months [1, 2] are not the year -> ",
        "town.toml [[tariff]] 1 [[season]] 1: windows: do not cover the day once -> ",
        "town.toml: [[line]] name: a stands there 2 times -> give each its own",
    ):
        assert any(line.startswith(expected) for line in found), expected


JUNK = [
    "3",
    "-1",
    '""',
    '"x"',
    "[]",
    "[1]",
    '["x"]',
    "{}",
    "true",
    "1979-05-27",
    "0.5",
    "[[1, 2]]",
    '[["00:00", 9]]',
    '"{y}"',
]
KEYS = [k for k, line in enumerate(DEMO.read_text("utf-8").splitlines()) if " = " in line and not line.startswith("#")]


@settings(max_examples=150, deadline=None)
@given(at=st.sampled_from(KEYS), junk=st.sampled_from(JUNK))
def test_no_value_breaks_the_reader(at: int, junk: str) -> None:
    lines = DEMO.read_text("utf-8").splitlines()
    key = lines[at].split(" = ")[0]
    lines[at] = f"{key} = {junk}"
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "\n".join(lines))
        with contextlib.suppress(SimulatorError):
            load_town(path, now=SettableClock(NOW.timestamp()))
            return
        with pytest.raises(SimulatorError) as caught:
            load_town(path, now=SettableClock(NOW.timestamp()))
        told = caught.value.problems
    assert told
    assert all(" -> " in problem for problem in told)


def test_what_stands_twice_and_what_is_not_there(tmp_path: Path) -> None:
    same = SMALL.replace('meter_id = "M{n}"', 'meter_id = "M"').replace("24010100000{n}", "240101000001")
    assert problems_of(tmp_path, same) == [
        "town.toml: meter_id: M stands there 2 times -> give each its own",
        "town.toml: account: A-M stands there 2 times -> give each its own",
        "town.toml: usage_point: UP-M stands there 2 times -> give each its own",
        "town.toml: address on one line: 240101000001 (a) stands there 2 times -> give each its own",
    ]
    assert problems_of(tmp_path, "") == [
        "town.toml: no line -> add a [[line]]",
        "town.toml: no meter -> add a [[group]] or a [[meter]]",
    ]
    assert "not TOML" in problems_of(tmp_path, "[[line]")[0]
    with pytest.raises(SimulatorError, match="name a town file that can be read"):
        load_town(tmp_path / "none.toml")
    late = '[town]\ninstalled = "2026-10-02"\n' + SMALL
    with pytest.raises(SimulatorError, match="install the meters earlier"):
        load_town(write(tmp_path, late), now=SettableClock(NOW.timestamp()))


@pytest.mark.parametrize(
    ("old", "new"),
    [('kind = "tcp"\nlisten', 'kind = "mqtt"\nbroker'), ('line = "a"\ncount', 'line = "a"\nform = "mqtt"\ncount')],
)
def test_meters_of_a_concentrator_hang_on_a_concentrator_only(tmp_path: Path, old: str, new: str) -> None:
    text = SMALL.replace("127.0.0.1:0", "127.0.0.1:1883").replace(old, new)
    told = problems_of(tmp_path, text)
    assert len(told) == 2
    assert all('meters of form "mqtt", and no others, hang on lines of kind "mqtt"' in problem for problem in told)


def test_faults_reach_their_line_and_meter(tmp_path: Path) -> None:
    text = SMALL + '\n[[fault]]\nmeter = "M2"\nkind = "dead"\nfrom = 2026-11-01T00:00:00+08:00\n'
    town = load_town(write(tmp_path, text), now=SettableClock(NOW.timestamp()))
    bus = town.buses["a"]
    assert isinstance(bus, Bus)
    faults = bus.faults
    assert [bool(faults.strike(meter, NOW.timestamp())) for meter in ("M1", "M2")] == [False, True]


def test_a_taken_port_is_told_and_nothing_stays_open(tmp_path: Path) -> None:
    async def main() -> None:
        holder = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        port = holder.sockets[0].getsockname()[1]
        town = load_town(write(tmp_path, SMALL.replace("127.0.0.1:0", f"127.0.0.1:{port}")))
        with pytest.raises(SimulatorError, match=r"\[\[line\]\] a: 127.0.0.1:\d+: .* -> free it or choose another"):
            await town.start()
        assert town.lines == {}
        holder.close()
        await holder.wait_closed()

    asyncio.run(main())


def test_run_until_cancelled(tmp_path: Path) -> None:
    async def main() -> dict[str, Any]:
        ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(run(write(tmp_path, SMALL), tmp_path / "truth", ready.set_result, signals=False))
        told = await asyncio.wait_for(ready, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return told

    told = asyncio.run(main())
    assert told["meters"] == 2
    assert told["lines"][0]["endpoint"].startswith("tcp://127.0.0.1:")
    assert (tmp_path / "truth" / "bills.json").exists()


def test_the_program_says_ready_and_ends_on_sigterm(tmp_path: Path) -> None:
    text = SMALL + '\n[[line]]\nname = "p"\nkind = "pty"\nlink = "port"\n'
    command = [sys.executable, "-m", "simulators", str(write(tmp_path, text)), "--truth", str(tmp_path / "truth")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        word, _, told = process.stdout.readline().partition(" ")
        lines = {line["line"]: line for line in json.loads(told)["lines"]}
        assert word == "ready"
        assert os.readlink(tmp_path / "truth" / "port") == lines["p"]["path"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
    assert not (tmp_path / "truth" / "port").is_symlink()


def test_the_program_tells_problems_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simulators", str(write(tmp_path, "x = 1")), "--truth", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "town.toml: x: unknown key -> leave it out"
    assert "Traceback" not in done.stderr

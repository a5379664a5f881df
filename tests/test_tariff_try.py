"""Charges by time, step, market and demand, tried on load curves: against sums written out here and published rules."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from billing.calendar import billing_month
from billing.charges import StepTouCharge, Tariff
from billing.try_curve import Curve, Given, Trial, try_month
from config.tariff_files import load_tariff, tariff_from_text
from headend.civil import zone
from headend.cli.tariff_sheet import sheet
from headend.errors import UsageError
from tests.tariff_kit import curve, headend

SHIPPED = Path(__file__).parents[1] / "config" / "tariffs"
SHANGHAI = "Asia/Shanghai"
JULY = billing_month(2026, 7, SHANGHAI)


def d(text: str) -> Decimal:
    return Decimal(text)


def shipped(name: str) -> Tariff:
    return load_tariff(SHIPPED / f"{name}.toml")


def july(energy: Callable[[datetime], Decimal], step_s: int = 3600) -> Curve:
    return curve(SHANGHAI, "2026-07-01", "2026-08-01", energy, step_s)


def shown(trial: Trial) -> list[tuple[str, Decimal, str]]:
    return [(line.code, line.quantity, str(line.amount)) for line in trial.lines]


def cents(value: Decimal) -> str:
    return str(value.quantize(d("0.01"), rounding=ROUND_HALF_UP))


# -- energy


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=24, max_size=24), st.integers(0, 5000))
def test_steps_in_the_order_of_time_are_filled_interval_by_interval(hours: list[int], used: int) -> None:
    tariff = shipped("cn-shanghai-residential-tou-step")
    (charge,) = tariff.charges
    assert isinstance(charge, StepTouCharge)
    tariff = replace(tariff, charges=(replace(charge, split="chronological"),))
    load = july(lambda at: Decimal(hours[(at.hour + at.day) % 24]) / 4)
    trial = try_month(tariff, load, JULY, Decimal(used))
    prices = {"peak": ["0.617", "0.677", "0.977"], "valley": ["0.307", "0.337", "0.487"]}
    sums: dict[str, Decimal] = {}
    reached, at = Decimal(used), load.start
    for value in load.values:
        period = "peak" if 6 <= at.astimezone(zone(SHANGHAI)).hour < 22 else "valley"
        for number, limit in ((1, d("3120")), (2, d("4800")), (3, d("1e9"))):
            part = min(value, max(limit - reached, Decimal(0)))
            key = f"energy_step{number}_{period}"
            sums[key] = sums.get(key, Decimal(0)) + part
            reached, value = reached + part, value - part
        at += timedelta(hours=1)
    expected = {key: energy for key, energy in sums.items() if energy}
    assert {line.code: line.quantity for line in trial.lines} == expected
    for line in trial.lines:
        step, period = line.code.removeprefix("energy_step").split("_")
        assert str(line.price) == prices[period][int(step) - 1]


def test_steps_pro_rata_share_each_step_out_as_the_whole_is() -> None:
    load = july(lambda at: Decimal(3) if 6 <= at.hour < 22 else Decimal(1))  # 1488 at peak, 248 in the valley
    trial = try_month(shipped("cn-shanghai-residential-tou-step"), load, JULY, Decimal(2252))
    # 868 of 1736 kWh are below 3120, 868 above: half of each period.
    assert shown(trial) == [
        ("energy_step1_peak", d("744"), "459.05"),
        ("energy_step1_valley", d("124"), "38.07"),
        ("energy_step2_peak", d("744"), "503.69"),
        ("energy_step2_valley", d("124"), "41.79"),
    ]


def test_energy_at_market_prices_is_each_hour_at_its_own() -> None:
    rows = list(csv.DictReader(io.StringIO((SHIPPED / "example-market-hourly.csv").read_text(encoding="utf-8"))))
    energies = [Decimal(n * 37 % 101) / 100 for n in range(len(rows))]
    quarter = [energy / 4 for energy in energies for _ in range(4)]
    trial = try_month(shipped("example-market-hourly"), Curve(JULY.start, 900, tuple(quarter)), JULY)
    value = sum((energy * Decimal(row["price"]) for energy, row in zip(energies, rows, strict=True)), Decimal(0))
    assert shown(trial) == [
        ("market", value, cents(value * d("1.02"))),
        ("market_adder", sum(energies), cents(sum(energies) * d("0.185"))),
        ("service", d("1"), "12.00"),
    ]
    with pytest.raises(UsageError, match="intervals of 7200 s lie across changes of the market's price, every 3600 s"):
        try_month(shipped("example-market-hourly"), july(lambda _: d("1"), 7200), JULY)


def test_a_critical_peak_takes_its_hours_from_the_others() -> None:
    trial = try_month(shipped("example-critical-peak"), july(lambda _: d("1")), JULY)
    # 23 weekdays of 14 hours of peak, four of them critical; 8 days of weekend with 10.
    assert shown(trial) == [
        ("energy_critical", d("4"), "14.40"),
        ("energy_peak", d("398"), "366.16"),
        ("energy_low", d("342"), "129.96"),
    ]


def test_the_limits_of_a_large_household_are_higher() -> None:
    tariff = shipped("cn-guangdong-residential-large-household-step")
    load = july(lambda at: d("1") if at.day < 31 else d("0"))  # 720 kWh
    five = try_month(tariff, load, JULY, given=Given(people=5))
    assert [(line.code, line.quantity) for line in five.lines] == [
        ("energy_step1", d("360")),
        ("energy_step2", d("340")),
        ("energy_step3", d("20")),
    ]
    four = try_month(tariff, load, JULY, given=Given(people=4))
    assert [line.quantity for line in four.lines] == [d("260"), d("340"), d("120")]
    unknown = try_month(tariff, load, JULY)
    assert unknown.lines == four.lines
    assert unknown.notes == ("the limits are those of a small household: its size is not given",)


# -- demand


def test_blocks_that_slide_find_what_lies_across_two_blocks() -> None:
    tariff = shipped("example-demand-ratchet")
    peak = datetime(2026, 7, 9, 12, 10, tzinfo=zone(SHANGHAI))

    def energy(at: datetime) -> Decimal:
        return d("20") if timedelta(0) <= at - peak < timedelta(minutes=15) else d("1")

    load = july(energy, 300)
    # 12:10 to 12:25 holds 60 kWh: 240 kW. Blocks on the quarter hour hold 41 at most: 164 kW.
    assert shown(try_month(tariff, load, JULY))[:2] == [
        ("basic_demand_step1", d("100"), "3200.00"),
        ("basic_demand_step2", d("140"), "5040.00"),
    ]
    text = tariff.text.replace("sliding_min = 5\n", "")
    fixed = try_month(tariff_from_text(text), load, JULY)
    assert [line.quantity for line in fixed.lines[:2]] == [d("100"), d("64")]


def test_a_ratchet_looks_back_as_far_as_the_curve_reaches() -> None:
    tariff = shipped("example-demand-ratchet")

    def energy(at: datetime) -> Decimal:
        return {5: d("50"), 6: d("20"), 7: d("10")}.get(at.month, d("1"))

    load = curve(SHANGHAI, "2026-05-01", "2026-11-01", energy, 300)
    october = try_month(tariff, load, billing_month(2026, 10, SHANGHAI))
    # 12 kW in October; June had 240 (May, with 600, does not count): 80 % are 192.
    assert [line.quantity for line in october.lines[:2]] == [d("100"), d("92")]
    note = "the maximum demand is the highest of the month's blocks of 15 minutes, one every 5 minutes"
    assert october.notes == (note,)
    june = try_month(tariff, load, billing_month(2026, 6, SHANGHAI))
    assert june.lines[0].quantity + june.lines[1].quantity == d("240")
    assert june.notes[-1] == "demands of 3 of the months the ratchet looks back at are not in the curve: left out"


@pytest.mark.parametrize(
    ("maximum", "lines"),
    [
        ("520", [("basic_demand", d("500"), "20400.00")]),  # up to 105 % the contract is billed
        ("530", [("basic_demand", d("500"), "20400.00"), ("basic_excess", d("5"), "408.00")]),
    ],
)
def test_the_contract_is_the_accounts_own(maximum: str, lines: list[tuple[str, Decimal, str]]) -> None:
    tariff = shipped("example-shanghai-contract")

    def energy(at: datetime) -> Decimal:
        return d(maximum) / 4 if (at.day, at.hour, at.minute) == (9, 12, 15) else d("10")

    trial = try_month(tariff, july(energy, 900), JULY, given=Given(contract_kw=d("500")))
    assert [line for line in shown(trial) if line[0].startswith("basic_")] == lines
    with pytest.raises(UsageError, match=r"needs 'contract_kw' of the account.*give it: --contract-kw"):
        try_month(tariff, july(energy, 900), JULY)


def test_capacity_is_the_accounts_own() -> None:
    trial = try_month(shipped("example-shanghai-capacity"), july(lambda _: d("1")), JULY, given=Given(None, d("630")))
    assert shown(trial)[0] == ("basic_capacity", d("630"), "16065.00")  # worked case D01


def test_a_utilitys_rate_bills_demand_by_its_hours() -> None:
    zone_name = "America/Los_Angeles"

    def energy(at: datetime) -> Decimal:
        # A Sunday of 400 kW, mornings of 200 kW, afternoons of 100 kW.
        if at.weekday() >= 5:
            return d("100") if (at.day, at.hour) == (9, 14) else d("5")
        return {9: d("50"), 14: d("25")}.get(at.hour, d("5"))

    load = curve(zone_name, "2017-07-01", "2017-08-01", energy, 900)
    trial = try_month(shipped("us-pge-e19-secondary"), load, billing_month(2017, 7, zone_name))
    assert {line.code: (line.quantity, str(line.amount)) for line in trial.lines if line.unit == "kW"} == {
        "basic_demand": (d("400"), "6432.00"),
        "tou_demand2": (d("200"), "1036.00"),
        "tou_demand3": (d("100"), "1864.00"),
    }


# -- on the screen


def test_the_sheet_shows_what_a_tariff_asks() -> None:
    def text(name: str) -> str:
        screen = io.StringIO()
        Console(file=screen, width=160).print(sheet(shipped(name)))
        return screen.getvalue()

    table = text("cn-shanghai-residential-tou-step")
    assert "│ up to 4800 kWh       │ 0.677 │  0.337 │" in table
    ratchet = text("example-demand-ratchet")
    for words in ("up to 100 kW", "every 5", "the 11 months before (of Jun-Sep)", "80 %"):
        assert words in ratchet
    called = text("example-critical-peak")
    assert "called: critical 2026-07-15 14:00 to 18:00" in called
    assert "worked: 2026-10-10" in called
    assert "holiday " + "L" * 48 in called
    assert "1.05 times it" in text("example-shanghai-contract")
    assert "-0.062 to 0.582" in text("example-market-hourly")
    assert "limits for 5 people or more" in text("cn-guangdong-residential-large-household-step")


def test_the_verbs_take_what_the_account_would_tell(tmp_path: Path) -> None:
    first = datetime(2026, 7, 1)  # noqa: DTZ001
    rows = [f"{(first + n * timedelta(minutes=15)).isoformat()},2.5" for n in range(31 * 96)]
    (tmp_path / "load.csv").write_text("timestamp,kWh\n" + "\n".join(rows) + "\n", encoding="utf-8")
    words = ("try", "example-shanghai-contract", "load.csv", "--contract-kw", "20", "--json")
    (bill,) = json.loads(headend(tmp_path, *words))
    amounts = {line["code"]: line["amount"] for line in bill["lines"]}
    # 10 kW all month: 7440 kWh are 372 for each kW of the contract of 20, which earns a tenth.
    assert (amounts["basic_demand"], amounts["basic_discount"]) == ("816.00", "-81.60")
    refused = headend(tmp_path, "try", "example-shanghai-contract", "load.csv", "--contract-kw", "x", fails=True)
    assert "'x' is no number of 0 or more -> write --contract-kw 1234.5" in refused


def test_a_tariff_is_written_for_urdb_whole_or_not_at_all(tmp_path: Path) -> None:
    words = ("export-urdb", "us-pge-a10-tou-secondary", "--out", "out.json")
    assert "written to out.json" in headend(tmp_path, *words)
    item = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["items"][0]
    assert item["startdate"] == int(datetime(2017, 1, 1, tzinfo=UTC).timestamp())
    assert "out.json exists" in headend(tmp_path, *words, fails=True)
    assert "prices in CNY" in headend(tmp_path, "export-urdb", "example-flat", "--out", "flat.json", fails=True)
    assert not (tmp_path / "flat.json").exists()
    assert "left out: example-flat: prices in CNY" in headend(
        tmp_path, "export-urdb", "example-flat", "--out", "flat.json", "--partial"
    )
    assert (tmp_path / "flat.json").exists()

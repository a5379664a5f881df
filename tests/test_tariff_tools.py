"""Trying tariffs on load curves, their picture, and the verbs: against worked bills and arithmetic of the test."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from rich.console import Console

from billing.calendar import billing_month, period_at
from billing.charges import PeriodWindow, Schedule, Season, Tariff, TouCharge
from billing.picture import pictures
from billing.try_curve import Curve, Trial, months_of, part_months_of, try_month
from config.load_curves import read_curve
from config.tariff_files import load_tariff
from headend.civil import zone
from headend.cli.tariff_sheet import months_text, sheet
from headend.errors import ConfigError, UsageError
from tests.tariff_kit import curve, headend

SHIPPED = Path(__file__).parents[1] / "config" / "tariffs"
CASES = {
    case["id"]: case
    for case in json.loads((Path(__file__).parent / "vectors" / "worked_bills.json").read_text("utf-8"))["cases"]
}
SHANGHAI, NEW_YORK = "Asia/Shanghai", "America/New_York"


def shipped(name: str) -> Tariff:
    return load_tariff(SHIPPED / f"{name}.toml")


def cents(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)


def shown(trial: Trial) -> list[tuple[str, Decimal, str]]:
    return [(line.code, line.quantity, str(line.amount)) for line in trial.lines]


# -- a curve, billed


@pytest.mark.parametrize(("case", "days"), [("T01", 31), ("T03", 30)])
def test_a_month_of_worked_days_bills_as_many_times_the_day(case: str, days: int) -> None:
    month = CASES[case]["inputs"]["month"]
    day = curve(
        SHANGHAI,
        f"2026-{month:02d}-01",
        f"2026-{month + 1:02d}-01",
        lambda at: Decimal("0.1") * (at.hour * 4 + at.minute // 15 + 1),
        900,
    )
    tariff = shipped("example-commercial-tou")
    trial = try_month(tariff, day, billing_month(2026, month, SHANGHAI))
    lines = CASES[case]["expected"]["lines"]
    expected = [
        (line["code"], Decimal(line["qty"]) * days, str(cents(Decimal(line["qty"]) * days * Decimal(line["rate"]))))
        for line in lines
    ]
    assert shown(trial) == [*expected, ("service", Decimal(1), "12.00")]
    assert trial.total == sum(Decimal(amount) for _, _, amount in shown(trial))
    assert trial.notes == ()


def step_year() -> Curve:
    """R08: 2600 kWh in January, 230 kWh at peak and 120 kWh in the valley of February."""
    january, february = Decimal(2600) / 31 / 24, 28

    def energy(at: datetime) -> Decimal:
        if at.month == 1:
            return january.quantize(Decimal(1)) if (at.day, at.hour) != (31, 23) else 2600 - Decimal(3) * 743
        if at.hour == 12:
            return Decimal(8) if at.day < february else Decimal(230 - 8 * 27)
        return (Decimal(4) if at.day < february else Decimal(120 - 4 * 27)) if at.hour == 23 else Decimal(0)

    return curve(SHANGHAI, "2026-01-01", "2026-03-01", energy)


def test_the_step_year_goes_on_through_the_curve() -> None:
    tariff = shipped("cn-zhejiang-residential-tou-step")
    trial = try_month(tariff, step_year(), billing_month(2026, 2, SHANGHAI))
    assert trial.used_before == Decimal(2600)
    assert shown(trial) == [
        (line["code"], Decimal(line["qty"]), line["amount"]) for line in CASES["R08"]["expected"]["lines"]
    ]
    assert str(trial.total) == CASES["R08"]["expected"]["total"]
    assert trial.notes == ()


def test_what_was_used_before_the_curve_is_given_or_a_note_says_it_is_not() -> None:
    whole = step_year()
    february = Curve(whole.start + timedelta(days=31), 3600, whole.values[31 * 24 :])
    window = billing_month(2026, 2, SHANGHAI)
    tariff = shipped("cn-zhejiang-residential-tou-step")
    given_ = try_month(tariff, february, window, Decimal(2600))
    assert (given_.lines, given_.notes) == (try_month(tariff, whole, window).lines, ())
    unknown = try_month(tariff, february, window)
    assert unknown.used_before == 0
    assert [line.code for line in unknown.lines] == ["energy_peak", "energy_valley"]
    assert unknown.notes == ("what was used in the step year before 2026-02-01 00:00 is taken as 0 kWh",)


def test_a_new_step_year_within_the_curve_starts_at_nothing() -> None:
    long = curve(SHANGHAI, "2025-11-01", "2026-02-01", lambda _: Decimal(2))
    tariff = shipped("cn-guizhou-residential-step")  # its step year starts on 1 December
    assert try_month(tariff, long, billing_month(2025, 11, SHANGHAI), Decimal(100)).used_before == Decimal(100)
    assert try_month(tariff, long, billing_month(2025, 12, SHANGHAI), Decimal(100)).used_before == Decimal(0)
    assert try_month(tariff, long, billing_month(2026, 1, SHANGHAI)).used_before == Decimal(2 * 24 * 31)


def test_demand_is_the_highest_block_and_the_note_says_so() -> None:
    def energy(at: datetime) -> Decimal:
        return Decimal(7) if (at.day, at.hour, at.minute) == (9, 12, 15) else Decimal(1)

    july = curve(SHANGHAI, "2026-07-01", "2026-08-01", energy, 300)
    trial = try_month(shipped("example-shanghai-two-part"), july, billing_month(2026, 7, SHANGHAI))
    # The block of 15 minutes holds 7 + 1 + 1 kWh: 36 kW at 40.8.
    assert shown(trial)[0] == ("basic_demand", Decimal(36), "1468.80")
    assert trial.notes == ("the maximum demand is the highest of the month's blocks of 15 minutes",)
    hourly = curve(SHANGHAI, "2026-07-01", "2026-08-01", lambda _: Decimal(1))
    with pytest.raises(UsageError, match="a demand over 15 minutes can't be told from intervals of 3600 s"):
        try_month(shipped("example-shanghai-two-part"), hourly, billing_month(2026, 7, SHANGHAI))


def test_what_a_curve_does_not_tell_is_said(tmp_path: Path) -> None:
    extra = """
[[charges]]
kind = "power_factor"
unit = "%"
standard = "0.90"
[[charges]]
kind = "net_metering"
unit = "kWh"
price = "0.4"
"""
    text = (SHIPPED / "example-flat.toml").read_text(encoding="utf-8") + extra
    (tmp_path / "example-flat.toml").write_text(text, encoding="utf-8")
    july = curve(SHANGHAI, "2026-07-01", "2026-08-01", lambda _: Decimal(1))
    trial = try_month(load_tariff(tmp_path / "example-flat.toml"), july, billing_month(2026, 7, SHANGHAI))
    assert shown(trial) == [("energy", Decimal(744), "478.02")]
    assert trial.notes == (
        "energy fed in is taken as 0 kWh: the curve holds consumption only",
        "the power-factor adjustment is left out: a load curve does not tell reactive energy",
    )


def test_intervals_across_a_change_of_price_are_refused() -> None:
    tariff = shipped("cn-zhejiang-residential-tou-step")  # changes at 8 and 22
    hours = 6 * 3600
    july = curve(SHANGHAI, "2026-07-01", "2026-08-01", lambda _: Decimal(1), hours)
    with pytest.raises(UsageError, match="intervals of 21600 s lie across 2026-07-01 08:00"):
        try_month(tariff, july, billing_month(2026, 7, SHANGHAI))
    assert try_month(shipped("cn-zhejiang-residential-step"), july, billing_month(2026, 7, SHANGHAI)).energy == 124


def test_months_are_those_that_are_whole_in_the_tariffs_zone() -> None:
    some = curve("UTC", "2026-06-15", "2026-08-31", lambda _: Decimal(1))
    assert months_of(some, SHANGHAI) == [(2026, 7)]
    assert part_months_of(some, SHANGHAI) == [(2026, 6), (2026, 8)]
    with pytest.raises(UsageError, match="does not cover the whole month"):
        try_month(shipped("example-flat"), some, billing_month(2026, 8, SHANGHAI))


# -- curves as CSV


def written(folder: Path, *rows: str, name: str = "load.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(["timestamp,kWh", *rows]) + "\n", encoding="utf-8")
    return path


def refused(path: Path, zone_name: str = SHANGHAI) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_curve(path, zone_name)
    return [f"{problem.where}: {problem.what}" for problem in caught.value.problems]


def test_a_curve_is_read_with_and_without_offsets_by_starts_and_ends(tmp_path: Path) -> None:
    path = written(tmp_path, "2026-07-01T00:00,0.25", "2026-07-01 00:30,1", "2026-06-30T17:00:00Z,2.5")
    read = read_curve(path, SHANGHAI)
    assert read == Curve(datetime(2026, 6, 30, 16, tzinfo=UTC), 1800, (Decimal("0.25"), Decimal(1), Decimal("2.5")))
    assert read_curve(path, SHANGHAI, stamps_at_end=True).start == datetime(2026, 6, 30, 15, 30, tzinfo=UTC)


def test_every_problem_of_a_curve_is_told_at_once(tmp_path: Path) -> None:
    good = [f"2026-07-01T{hour:02d}:00,1" for hour in range(12)]
    path = written(tmp_path, *good, "2026-07-01T12:00,x", "yesterday,1", "2026-07-01T14:00,-1", "2026-07-01T15:00,",
                   "2026-07-01T15:00,1", "2026-07-01T15:00,1", "2026-07-01T15:20,1", "2026-07-01T03:00,1")  # fmt: skip
    assert refused(path) == [
        'load.csv:14: kWh: "x" is no decimal number',
        'load.csv:15: timestamp: "yesterday" is no time',
        "load.csv:16: kWh: -1 is below 0",
        "load.csv:17: kWh: the cell is empty",
        "load.csv:19: timestamp: the interval stands twice",
        "load.csv:20: timestamp: the row is 1200 s after the one above, most rows 3600 s",
        "load.csv:21: timestamp: the time is before that of the row above",
    ]
    gap = written(tmp_path, *good[:4], *good[7:])
    assert refused(gap) == ["load.csv:6: timestamp: 3 intervals are missing before this row"]
    assert refused(written(tmp_path, good[0])) == ["load.csv: the file has fewer than two rows"]
    assert refused(tmp_path / "none.csv") == [f"{tmp_path / 'none.csv'}: there is no such file"]


def test_a_file_of_another_layout_does_not_flood_the_screen(tmp_path: Path) -> None:
    found = refused(written(tmp_path, *(f"07/01/2026 {n},1" for n in range(500))))
    assert len(found) == 51
    assert found[-1] == "load.csv: and 450 more problems like these"


def test_the_hour_that_comes_twice_and_the_one_that_does_not_come(tmp_path: Path) -> None:
    autumn = [f"2026-11-01T{text},1" for text in ("00:00", "00:30", "01:00", "01:30", "01:00", "01:30", "02:00")]
    read = read_curve(written(tmp_path, *autumn), NEW_YORK)
    assert (read.step_s, read.start, len(read.values)) == (1800, datetime(2026, 11, 1, 4, tzinfo=UTC), 7)
    once = written(tmp_path, *autumn[:4], autumn[6])
    assert refused(once, NEW_YORK) == ["load.csv:6: timestamp: 2 intervals are missing before this row"]
    spring = written(tmp_path, "2026-03-08T01:00,1", "2026-03-08T01:30,1", "2026-03-08T02:00,1", "2026-03-08T03:00,1")
    assert refused(spring, NEW_YORK)[0].startswith('load.csv:4: timestamp: "2026-03-08T02:00" does not exist')


# -- the picture


def test_the_picture_has_every_season_day_and_hour() -> None:
    tou = next(c for c in shipped("example-commercial-tou").charges if isinstance(c, TouCharge))
    found = pictures(tou.schedule)
    assert [one.months for one in found] == [(1, 12), (2, 3, 4, 5, 6, 10, 11), (7, 8, 9)]
    tz = zone(SHANGHAI)
    for one in found:
        assert (one.cell_min, one.exact, len(one.rows)) == (60, True, 7)
        for month in one.months:
            for number, (_, cells) in enumerate(one.rows):
                first = date(2026, month, 1)
                day = first + timedelta(days=(number - first.weekday()) % 7)
                at = [datetime(day.year, day.month, day.day, hour, tzinfo=tz) for hour in range(24)]
                assert list(cells) == [period_at(tou.schedule, moment, tz)[0] for moment in at]


def test_finer_hours_have_finer_cells_and_weekends_their_own() -> None:
    half = (PeriodWindow("a", 0, 450), PeriodWindow("b", 450, 1440))
    odd = (PeriodWindow("a", 0, 7), PeriodWindow("b", 7, 1440))
    everything = tuple(range(1, 13))
    (one,) = pictures(Schedule((Season(everything, "weekday", half), Season(everything, "weekend", half[:1]))))
    assert (one.cell_min, one.exact) == (30, True)
    assert dict(one.rows)["Fri"] == ("a",) * 15 + ("b",) * 33
    assert dict(one.rows)["Sat"] == ("a",) * 15 + ("",) * 33
    (one,) = pictures(Schedule((Season(everything, "all", odd),)))
    assert (one.cell_min, one.exact) == (15, False)


def test_on_a_screen_every_period_has_its_colour() -> None:
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, color_system="standard", width=140).print(
        sheet(shipped("example-commercial-tou"))
    )
    text = screen.getvalue()
    for colours, cells in (("37;41", "SSSS"), ("30;43", "PPPPPPPP"), ("30;46", "FFFF"), ("37;44", "VVVVVVVVVVVV")):
        assert f"\x1b[{colours}m{cells}\x1b[0m" in text


def test_months_are_told_in_runs() -> None:
    assert months_text(tuple(range(1, 13))) == "all months"
    assert months_text((1, 12)) == "Dec-Jan"
    assert months_text((7, 5, 6, 9)) == "May-Jul, Sep"


# -- the verbs


def test_list_and_show(tmp_path: Path) -> None:
    names = {one["id"] for one in json.loads(headend(tmp_path, "list", "--json"))}
    assert {"example-flat", "cn-zhejiang-residential-step"} <= names
    text = headend(tmp_path, "show", "cn-guangdong-residential-tou-step")
    for word in ("RuiQui/EnergyPrice", "verified  yes", "up to 600 kWh in a month (May-Oct)", "+0.30", "1.02896875"):
        assert word in text
    assert "Sun VVVVVVVVVVVVVVVVFFFFPPPPFFFFPPPPPPPPPPFFFFFFFFFF" in text
    assert "did you mean example-flat" in headend(tmp_path, "show", "example-flt", fails=True)


def test_try_prints_the_bill_and_every_problem(tmp_path: Path) -> None:
    hours = [datetime(2026, 6, 30) + timedelta(hours=n) for n in range(24 * 33)]  # noqa: DTZ001
    written(tmp_path, *(f"{at.isoformat()},0.5" for at in hours))
    text = headend(tmp_path, "try", "cn-guangdong-residential-step", "load.csv")
    # 372 kWh: 260 x 0.60886875 and 112 x 0.65886875
    assert all(word in text for word in ("2026-07", "158.31", "73.79", "232.10 CNY"))
    assert "not billed, for the curve holds a part of them only: 2026-06, 2026-08" in text
    found = json.loads(headend(tmp_path, "try", "example-flat", "load.csv", "--month", "2026-07", "--json"))
    assert [(one["month"], one["total"], one["energy_kwh"]) for one in found] == [("2026-07", "239.01", "372.0")]
    assert "does not cover 2026-08" in headend(
        tmp_path, "try", "example-flat", "load.csv", "--month", "2026-08", fails=True
    )
    written(tmp_path, "2026-07-01T00:00,a", "2026-07-01T01:00,b", name="bad.csv")
    assert "2 problem(s)" in headend(tmp_path, "try", "example-flat", "bad.csv", fails=True)


def test_import_writes_a_file_that_can_be_tried_and_none_over_another(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"items": [{"label": "x", "energyratestructure": [[{"rate": 0.2}]]}]}))
    words = ("import-urdb", "r.json", "--out", "mine.toml", "--zone", "+08:00")
    assert "written to mine.toml" in headend(tmp_path, *words)
    assert "mine.toml exists" in headend(tmp_path, *words, fails=True)
    hours = [datetime(2026, 7, 1) + timedelta(hours=n) for n in range(24 * 31)]  # noqa: DTZ001
    written(tmp_path, *(f"{at.isoformat()}+08:00,1" for at in hours))
    assert "148.80 USD" in headend(tmp_path, "try", "./mine.toml", "load.csv")
    (tmp_path / "r.json").write_text('{"items": [{"energyratestructure": [[{"rate": 1}]], "annualmincharge": 5}]}')
    assert "annualmincharge" in headend(tmp_path, *words, "--force", fails=True)
    assert "0.2" in (tmp_path / "mine.toml").read_text()

"""Rates of URDB as tariffs: billed by hand, refused by name, and hour by hour as URDB has them."""

from __future__ import annotations

import json
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.calendar import billing_month
from billing.charges import DemandCharge, Ratchet, StepAdder, Tariff, TouCharge
from billing.try_curve import try_month
from config.tariff_files import load_tariff
from config.urdb import from_urdb, read_urdb, write_tariff
from config.urdb_export import to_urdb
from headend.civil import zone
from headend.errors import ConfigError
from tests.tariff_kit import curve

NEW_YORK = "America/New_York"
TODAY = date(2026, 11, 24)
SHIPPED = Path(__file__).parents[1] / "config" / "tariffs"

FLAT_DEMAND = {"flatdemandstructure": [[{"rate": 5}]], "demandwindow": 15}
FLAT = [[0] * 24 for _ in range(12)]
ALL_DEMAND = {"demandweekdayschedule": FLAT, "demandweekendschedule": FLAT, "demandwindow": 15}
TOU_TIERS = {
    "energyratestructure": [[{"rate": 1, "max": 9}, {"rate": 2}], [{"rate": 3, "max": 9}, {"rate": 4}]],
    "energyweekdayschedule": [[0] * 8 + [1] * 16 for _ in range(12)],
}
SUMMER = [[1 if 5 <= month <= 8 else 0] * 24 for month in range(12)]


def d(text: str) -> Decimal:
    return Decimal(text)


def rate_of(**over: Any) -> dict[str, Any]:
    base = {
        "energyratestructure": [[{"rate": d("0.1"), "unit": "kWh"}]],
        "energyweekdayschedule": FLAT,
        "energyweekendschedule": FLAT,
        "startdate": 1672531200,
        "label": "l1",
    }
    return {**base, **over}


def imported(folder: Path, rate: dict[str, Any], *, partial: bool = False) -> tuple[Tariff, tuple[str, ...]]:
    made = from_urdb(rate, "t", NEW_YORK, today=TODAY, partial=partial)
    return write_tariff(folder / "t.toml", made), made.notes


def not_expressed(rate: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        from_urdb(rate, "t", NEW_YORK, today=TODAY)
    return [problem.where.removeprefix("URDB: ") for problem in caught.value.problems]


# Georgia Power R-31 as a public test has it; there the limits of tiers are their widths, in URDB they are cumulative.
R31: list[list[dict[str, Any]]] = [
    [{"rate": d("0.142062")}],
    [{"max": 650, "rate": d("0.148101")}, {"max": 1000, "rate": d("0.216379")}, {"rate": d("0.222371")}],
]


def test_a_rate_of_summer_tiers_bills_to_the_cent(tmp_path: Path) -> None:
    rate = rate_of(
        energyratestructure=R31, energyweekdayschedule=SUMMER, energyweekendschedule=SUMMER,
        fixedchargefirstmeter=d("16.48"), fixedchargeunits="$/month",
    )  # fmt: skip
    tariff, notes = imported(tmp_path, rate)
    assert notes == ()
    assert (tariff.version, tariff.valid_from, tariff.verified) == ("l1", date(2023, 1, 1), False)
    july = curve(NEW_YORK, "2026-07-01", "2026-08-01", lambda at: d("50") if at.hour == 3 else d("0"))
    trial = try_month(tariff, july, billing_month(2026, 7, NEW_YORK))
    assert trial.energy == 1550
    # 650 x 0.148101, 350 x 0.216379, 550 x 0.222371
    assert [str(line.amount) for line in trial.lines] == ["96.27", "75.73", "122.30", "16.48"]
    winter = curve(NEW_YORK, "2026-01-01", "2026-02-01", lambda _: d("1"))
    assert [str(line.amount) for line in try_month(tariff, winter, billing_month(2026, 1, NEW_YORK)).lines] == [
        "105.69",  # 744 x 0.142062
        "16.48",
    ]


def test_tier_limits_that_are_widths_are_refused() -> None:
    widths = [R31[1][0], {**R31[1][1], "max": 350}, R31[1][2]]
    assert not_expressed(rate_of(energyratestructure=[widths])) == ["energyratestructure[0][1]"]


@pytest.mark.parametrize(
    ("over", "key"),
    [
        ({"demandratestructure": [[{"rate": 5}]], **ALL_DEMAND, "demandrateunit": "hp"}, "demandrateunit"),
        ({"demandratestructure": [[{"rate": 5, "unit": "kVA"}]], **ALL_DEMAND}, "demandratestructure[0][0].unit"),
        ({"flatdemandstructure": [[{"rate": 5}]], "flatdemandunit": "kVA"}, "flatdemandunit"),
        ({"flatdemandstructure": [[{"rate": 5}]], "demandwindow": 7}, "demandwindow"),
        ({"coincidentratestructure": [[{"rate": 3}]]}, "coincidentratestructure"),
        ({**FLAT_DEMAND, "demandratchetpercentage": [d("0.8"), *[0] * 11]}, "demandratchetpercentage"),
        ({**FLAT_DEMAND, "demandratchetpercentage": [d("80")] * 12}, "demandratchetpercentage"),
        ({**FLAT_DEMAND, "lookbackpercent": d("0.5")}, "lookbackpercent"),
        ({**TOU_TIERS, "fueladjustmentsmonthly": [d("0.01"), *[0] * 11]}, "fueladjustmentsmonthly"),
        ({"annualmincharge": 100}, "annualmincharge"),
        ({"mincharge": 1, "minchargeunits": "$/day"}, "mincharge"),
        ({"fixedchargefirstmeter": 1, "fixedchargeunits": "$/day"}, "fixedchargefirstmeter"),
        ({"energyratestructure": [[{"rate": 1, "unit": "kWh daily"}]]}, "energyratestructure[0][0].unit"),
        ({"energyratestructure": [[{"rate": 1, "sell": d("0.05")}]]}, "energyratestructure[0][0].sell"),
        ({"country": "CAN"}, "country"),
        ({"surprise": "yes"}, "surprise"),
    ],
)
def test_each_thing_that_cant_be_expressed_is_refused_by_name(tmp_path: Path, over: dict[str, Any], key: str) -> None:
    rate = rate_of(**{"fixedmonthlycharge": 3, **over})
    assert not_expressed(rate) == [key]
    tariff, notes = imported(tmp_path, rate, partial=True)
    assert f"LEFT OUT: {key}: " in tariff.note
    assert any(note.startswith(f"left out: {key}: ") for note in notes)
    assert f"# left out: {key}: " in (tmp_path / "t.toml").read_text(encoding="utf-8")


def test_steps_that_differ_between_periods_become_a_table_of_prices(tmp_path: Path) -> None:
    rate = rate_of(
        energyratestructure=[
            [{"rate": d("0.1"), "max": 100}, {"rate": d("0.2")}],
            [{"rate": d("0.3"), "max": 300}, {"rate": d("0.5")}],
        ],
        energyweekdayschedule=[[0] * 12 + [1] * 12 for _ in range(12)],
        energyweekendschedule=[[0] * 12 + [1] * 12 for _ in range(12)],
    )
    tariff, _ = imported(tmp_path, rate)
    june = curve(NEW_YORK, "2026-06-01", "2026-07-01", lambda at: d("0.75") if at.hour < 12 else d("0.5"))
    trial = try_month(tariff, june, billing_month(2026, 6, NEW_YORK))
    # 270 kWh in period 0 and 180 in period 1. Of all 450: 100, 200 and 150 in the steps to 100, to 300, and above;
    # period 0 has three fifths of each.
    assert [(line.code, line.quantity, str(line.amount)) for line in trial.lines] == [
        ("energy_step1_period0", d("60"), "6.00"),
        ("energy_step1_period1", d("40"), "12.00"),
        ("energy_step2_period0", d("120"), "24.00"),
        ("energy_step2_period1", d("80"), "24.00"),
        ("energy_step3_period0", d("90"), "18.00"),
        ("energy_step3_period1", d("60"), "30.00"),
    ]


def test_demand_by_months_tiers_and_hours_and_a_ratchet(tmp_path: Path) -> None:
    daytime = [[0] * 8 + [1] * 12 + [0] * 4 for _ in range(12)]
    rate = rate_of(
        flatdemandstructure=[[{"rate": 2}], [{"rate": 3, "max": 10}, {"rate": 4}]],
        flatdemandmonths=[0] * 5 + [1] * 3 + [0] * 4,
        demandratestructure=[[{"rate": 0}], [{"rate": 7, "adj": 1}]],
        demandweekdayschedule=daytime,
        demandweekendschedule=FLAT,
        demandratchetpercentage=[d("0.9")] * 12,
        demandwindow=60,
    )
    tariff, notes = imported(tmp_path, rate)
    assert any("11 months before" in note for note in notes)

    def load(at: Any) -> Decimal:
        # 20 kW on Saturday, 4 July, 12 kW at 9 on Monday; 16 kW in May.
        if (at.month, at.day, at.hour) in ((7, 4, 13), (5, 8, 3)):
            return d("20") if at.month == 7 else d("30")
        return d("12") if (at.day, at.hour) == (6, 9) else d("1")

    year = curve(NEW_YORK, "2026-05-01", "2026-10-01", load)
    shown = {
        month: [
            (line.code, line.quantity, str(line.amount))
            for line in try_month(tariff, year, billing_month(2026, month, NEW_YORK)).lines
            if line.unit == "kW"
        ]
        for month in (5, 7, 9)
    }
    assert shown == {
        5: [("flat_demand0", d("30"), "60.00"), ("tou_demand1", d("12"), "96.00")],  # 6 May is a Wednesday
        # At least nine tenths of May's 30 kW: 27, of which 10 at 3 and 17 at 4.
        7: [
            ("flat_demand1_step1", d("10"), "30.00"),
            ("flat_demand1_step2", d("17"), "68.00"),
            ("tou_demand1", d("12"), "96.00"),
        ],
        9: [("flat_demand0", d("27"), "54.00"), ("tou_demand1", d("1"), "8.00")],  # 6 September is a Sunday
    }


def test_fuel_that_changes_by_the_month_is_an_addition_of_each_month(tmp_path: Path) -> None:
    tariff, _ = imported(tmp_path, rate_of(fueladjustmentsmonthly=[0] * 5 + [d("0.01"), d("-0.02")] + [0] * 5))
    load = curve(NEW_YORK, "2026-05-01", "2026-08-01", lambda _: d("1"))
    bills = [try_month(tariff, load, billing_month(2026, month, NEW_YORK)) for month in (5, 6, 7)]
    assert [[str(line.amount) for line in bill.lines] for bill in bills] == [
        ["74.40"],
        ["72.00", "7.20"],
        ["74.40", "-14.88"],
    ]
    assert bills[1].lines[1].text.startswith("fuel adjustment")


def test_a_ratchet_that_looks_back_at_some_months(tmp_path: Path) -> None:
    rate = rate_of(**FLAT_DEMAND, lookbackPercent=d("0.5"), lookbackMonths=[0] * 5 + [1] * 3 + [0] * 4)
    tariff, _ = imported(tmp_path, rate)
    (demand,) = (c for c in tariff.charges if isinstance(c, DemandCharge))
    assert demand.ratchet == Ratchet(11, d("50"), (6, 7, 8))
    rate = rate_of(**FLAT_DEMAND, lookbackPercent=d("0.5"), lookbackRange=3)
    (demand,) = (c for c in imported(tmp_path, rate)[0].charges if isinstance(c, DemandCharge))
    assert demand.ratchet == Ratchet(3, d("50"))


@pytest.mark.parametrize(
    ("text", "day"),
    [("2016-12-31T16:00:00.000Z", date(2017, 1, 1)), ("2014-01-01T06:00:00Z", date(2014, 1, 1))],
)
def test_dates_as_text_are_the_nearest_midnight(tmp_path: Path, text: str, day: date) -> None:
    assert imported(tmp_path, rate_of(startdate=text))[0].valid_from == day


def test_everything_that_is_no_price_is_told(tmp_path: Path) -> None:
    rate = rate_of(
        energyratestructure=[[{"rate": d("0.1"), "max": 500}], [{"rate": 9}]],
        sector="Residential", energycomments='say "hi"\nto all', approved=True, eiaid=7, demandwindow=30,
        peakkwcapacitymax=20, description="", mincharge=0, enddate=1704067200, name="N", utility="U",
    )  # fmt: skip
    tariff, notes = imported(tmp_path, rate)
    assert list(notes) == [
        "no hour is in period 1: left out",
        "energyratestructure[0][0].max 500 is left out: what lies above has the price of this last tier",
        "sector: Residential",
        'energycomments: say "hi" to all',
        "demandwindow is left out: the rate has no flatdemandstructure",
        "peakkwcapacitymax: 20",
        "marks of the database, left out: approved, eiaid",
        "enddate 2024-01-01 is taken for the first day on which the rate no longer holds",
    ]
    assert (tariff.title, tariff.valid_to) == ("U, N", date(2024, 1, 1))


def test_demand_minimum_and_fuel_become_charges(tmp_path: Path) -> None:
    rate = rate_of(
        flatdemandstructure=[[{"rate": d("9.5"), "adj": d("0.5")}]], flatdemandmonths=[0] * 12, demandwindow=30,
        fueladjustmentsmonthly=[d("0.002")] * 12, minmonthlycharge=1000,
    )  # fmt: skip
    tariff, _ = imported(tmp_path, rate)
    june = curve(NEW_YORK, "2026-06-01", "2026-07-01", lambda at: d("2") if at.day == 5 else d("1"), 1800)
    trial = try_month(tariff, june, billing_month(2026, 6, NEW_YORK))
    # 1440 half hours and 48 more: 1488 kWh at 0.1; 4 kW at 10; 0.002; short of 1000 by the rest.
    assert [(line.code, str(line.amount)) for line in trial.lines] == [
        ("energy", "148.80"),
        ("basic_demand", "40.00"),
        ("fuel_adjustment", "2.98"),
        ("minimum", "808.22"),
    ]


def test_what_makes_no_sense_is_told_at_once() -> None:
    bad = rate_of(
        energyweekdayschedule=[[0] * 23 for _ in range(12)], energyweekendschedule=[[4] * 24 for _ in range(12)],
        startdate="soon", fixedchargefirstmeter="3",
    )  # fmt: skip
    assert not_expressed(bad) == [
        "energyweekdayschedule",
        "energyweekendschedule",
        "fixedchargefirstmeter",
        "startdate",
    ]
    assert not_expressed({"energyratestructure": [[{"rate": True}]]}) == ["energyratestructure[0][0].rate"]
    assert not_expressed({"name": "nothing"}) == ["URDB"]


def test_numbers_of_any_size_end_in_a_message(tmp_path: Path) -> None:
    huge = d("1E+999999")
    for over in ({"energyratestructure": [[{"rate": huge}]]}, {"fixedmonthlycharge": huge}, {"startdate": huge},
                 {"fueladjustmentsmonthly": [huge] * 12}):  # fmt: skip
        assert len(not_expressed(rate_of(**over))) == 1
    no_limit = rate_of(energyratestructure=[[{"rate": d("0.1"), "max": d("1E+38")}]], fixedmonthlycharge=d("1E-400"))
    assert [type(charge).__name__ for charge in imported(tmp_path, no_limit)[0].charges] == [
        "EnergyCharge",
        "FixedCharge",
    ]


def test_files_of_one_rate_of_many_and_of_none(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    one = {"label": "a", "energyratestructure": [[{"rate": 0.14810100000000001}]]}
    path.write_text(json.dumps({"items": [one, {**one, "label": "b"}]}))
    with pytest.raises(ConfigError, match="holds 2 rates -> choose one with --label"):
        read_urdb(path, "t", NEW_YORK, today=TODAY)
    assert 'price = "0.148101"' in read_urdb(path, "t", NEW_YORK, today=TODAY, label="b").text
    with pytest.raises(ConfigError, match='no rate labelled "c"'):
        read_urdb(path, "t", NEW_YORK, today=TODAY, label="c")
    path.write_text('{"items": [], "error": "x"}')
    with pytest.raises(ConfigError, match="holds no rate of URDB"):
        read_urdb(path, "t", NEW_YORK, today=TODAY)
    path.write_text('{"rate": NaN}')
    with pytest.raises(ConfigError, match="is not JSON"):
        read_urdb(path, "t", NEW_YORK, today=TODAY)


@st.composite
def rates(draw: st.DrawFn) -> dict[str, Any]:
    """Rates by time of use whose tiers add the same in every period."""
    count = draw(st.integers(1, 4))
    price = st.integers(-50_000, 900_000).map(lambda n: Decimal(n).scaleb(-6))
    limits = sorted(draw(st.sets(st.integers(1, 900), max_size=3)))
    adds = [Decimal(0), *(draw(price) for _ in limits)]
    bases = [draw(price) for _ in range(count)]
    structure = [
        [
            {"rate": base, "adj": add, **({"max": limit} if limit else {})}
            for add, limit in zip(adds, [*limits, None], strict=True)
        ]
        for base in bases
    ]
    row = st.lists(st.integers(0, count - 1), min_size=24, max_size=24)
    weeks = draw(st.lists(st.tuples(row, row), min_size=1, max_size=3))
    which = draw(st.lists(st.integers(0, len(weeks) - 1), min_size=12, max_size=12))
    return rate_of(
        energyratestructure=structure,
        energyweekdayschedule=[weeks[n][0] for n in which],
        energyweekendschedule=[weeks[n][1] for n in which],
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rates(), st.integers(1, 12))
def test_an_imported_rate_asks_the_price_of_urdb_for_every_hour(
    tmp_path: Path, rate: dict[str, Any], month: int
) -> None:
    tariff, _ = imported(tmp_path, rate)
    following = f"{2026 + month // 12}-{month % 12 + 1:02d}-01"
    load = curve(NEW_YORK, f"2026-{month:02d}-01", following, lambda at: Decimal((at.day * 7 + at.hour * 5) % 11) / 8)
    trial = try_month(tariff, load, billing_month(2026, month, NEW_YORK))
    exact, at, left = Decimal(0), load.start, load.energy(load.start, load.end)
    for value in load.values:
        local = at.astimezone(zone(NEW_YORK))
        table = rate["energyweekendschedule" if local.weekday() >= 5 else "energyweekdayschedule"]
        exact += value * rate["energyratestructure"][table[month - 1][local.hour]][0]["rate"]
        at += timedelta(hours=1)
    below = Decimal(0)
    for tier in rate["energyratestructure"][0]:
        part = min(left, tier["max"] - below) if "max" in tier else left
        exact, left, below = exact + part * tier["adj"], left - part, Decimal(tier.get("max", 0))
    assert abs(trial.total - exact) <= Decimal("0.005") * max(len(trial.lines), 1)


def test_an_imported_rate_keeps_weekday_and_weekend_apart(tmp_path: Path) -> None:
    rate = rate_of(
        energyratestructure=[[{"rate": 1, "max": 10}, {"rate": 3}], [{"rate": 5, "max": 10}, {"rate": 7}]],
        energyweekdayschedule=[[0] * 8 + [1] * 16 for _ in range(12)],
    )
    tariff, _ = imported(tmp_path, rate)
    tou = next(c for c in tariff.charges if isinstance(c, TouCharge))
    adder = next(c for c in tariff.charges if isinstance(c, StepAdder))
    assert dict(tou.prices) == {"period0": Decimal(1), "period1": Decimal(5)}
    assert [season.days for season in tou.schedule.seasons] == ["weekday", "weekend"]
    assert [(step.up_to, step.price) for step in adder.tables[0].steps] == [(Decimal(10), 0), (None, Decimal(2))]


# -- out to URDB


def exported(tariff: Tariff) -> tuple[dict[str, Any], list[str]]:
    made = to_urdb(tariff)
    item = json.loads(made.text, parse_float=Decimal)["items"][0]
    return item, [problem.what for problem in made.left_out]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rates(), st.integers(1, 12))
def test_out_and_in_again_bills_the_same(tmp_path: Path, rate: dict[str, Any], month: int) -> None:
    tariff, _ = imported(tmp_path, {**rate, **FLAT_DEMAND, "fixedchargefirstmeter": d("3.5")})
    item, left_out = exported(tariff)
    assert left_out == []
    again, _ = imported(tmp_path, item)
    following = f"{2026 + month // 12}-{month % 12 + 1:02d}-01"
    load = curve(NEW_YORK, f"2026-{month:02d}-01", following, lambda at: Decimal((at.day * 7 + at.hour * 5) % 11), 900)
    window = billing_month(2026, month, NEW_YORK)
    first, second = try_month(tariff, load, window), try_month(again, load, window)
    # Prices of the same sum are one period there, so lines differ, and with them the rounding of each.
    assert abs(first.total - second.total) <= Decimal("0.005") * (len(first.lines) + len(second.lines))


def test_a_rate_of_a_utility_keeps_every_price_on_the_way_out_and_in(tmp_path: Path) -> None:
    tariff = load_tariff(SHIPPED / "us-pge-e19-secondary.toml")
    item, left_out = exported(tariff)
    assert left_out == []
    again, _ = imported(tmp_path, {**item, "label": "x"})
    july = curve("America/Los_Angeles", "2017-07-01", "2017-08-01",
                 lambda at: Decimal((at.day * 13 + at.hour * 5 + at.minute) % 97), 900)  # fmt: skip
    window = billing_month(2017, 7, "America/Los_Angeles")
    here = write_tariff(tmp_path / "t.toml", from_urdb(item, "t", "America/Los_Angeles", today=TODAY))
    assert sorted(line.amount for line in try_month(tariff, july, window).lines) == sorted(
        line.amount for line in try_month(here, july, window).lines
    )
    assert (again.valid_from, again.valid_to) == (tariff.valid_from, tariff.valid_to)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cn-zhejiang-residential-tou-step", ["prices in CNY", "steps that fill over a year"]),
        ("example-shanghai-contract", ["prices in CNY", "a demand by contract", "a charge of this kind: PowerFactor"]),
        ("example-critical-peak", ["prices in CNY", "events", "holidays and days worked"]),
        ("example-demand-ratchet", ["prices in CNY", "blocks that slide", "a ratchet that does not look back"]),
        ("example-market-hourly", ["prices in CNY", "a charge of this kind: MarketCharge"]),
    ],
)
def test_what_urdb_has_no_place_for_is_told(name: str, told: list[str]) -> None:
    _, left_out = exported(load_tariff(SHIPPED / f"{name}.toml"))
    assert len(left_out) == len(told)
    for what, start in zip(left_out, told, strict=True):
        assert what.startswith(start)

"""The keys of tariffs beyond plain prices: calendars, events, tables of prices, demand, markets; what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from billing.calendar import billing_month, spans
from billing.charges import (
    Calendar,
    CapacityCharge,
    DemandCharge,
    Household,
    MarketCharge,
    NetMetering,
    Policy,
    Ratchet,
    Step,
    StepCharge,
    StepTouCharge,
    Tariff,
    TouCharge,
)
from config.tariff_files import load_tariff, load_tariffs, tariff_from_text
from headend.errors import ConfigError

SHIPPED = Path(__file__).parents[1] / "config" / "tariffs"
SHANGHAI = "Asia/Shanghai"

HEAD = """
id = "t"
version = "1"
title = "A test"
source = "none"
source_date = 2026-01-01
verified = true
valid_from = 2026-01-01
valid_to = 2027-01-01
zone = "Asia/Shanghai"
currency = "CNY"
"""

TOU = """
[[charges]]
kind = "tou"
unit = "kWh"
prices = { peak = "0.9", valley = "0.3" }
[[charges.seasons]]
periods = { peak = ["08:00-22:00"], valley = ["22:00-08:00"] }
"""

STEP_TOU = """
[[charges]]
kind = "step_tou"
unit = "kWh"
period = "month"
[[charges.tables]]
steps = [
  { up_to = "100", prices = { peak = "0.6", valley = "0.3" } },
  { prices = { peak = "0.9", valley = "0.4" } },
]
[[charges.seasons]]
periods = { peak = ["08:00-22:00"], valley = ["22:00-08:00"] }
"""

DEMAND = """
[[charges]]
kind = "demand"
unit = "kW"
price = "40"
measured_by = "intervals"
"""

STEP = """
[[charges]]
kind = "step"
unit = "kWh"
period = "year"
[[charges.tables]]
steps = [{ up_to = "2760", price = "0.5" }, { price = "0.8" }]
"""

ENERGY = '[[charges]]\nkind = "energy"\nunit = "kWh"\nprice = "0.5"\n'
MARKET = '[[charges]]\nkind = "market"\nunit = "kWh"\ncode = "spot"\nseries = "p.csv"\n'


def loaded(folder: Path, text: str) -> Tariff:
    (folder / "t.toml").write_text(text, encoding="utf-8")
    return load_tariff(folder / "t.toml")


def refused(folder: Path, text: str) -> list[str]:
    """The problems of a tariff file, without its name and the remedies."""
    (folder / "t.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_tariff(folder / "t.toml")
    assert all(problem.remedy for problem in caught.value.problems)
    return [f"{problem.where.removeprefix('t.toml: ')}: {problem.what}" for problem in caught.value.problems]


def the(tariff: Tariff, kind: type[Any]) -> Any:
    (found,) = (one for one in tariff.charges if isinstance(one, kind))
    return found


def prices(folder: Path, rows: list[str]) -> None:
    (folder / "p.csv").write_text("start,price\n" + "\n".join(rows) + "\n", encoding="utf-8")


def hours_of(first: datetime, count: int, step_min: int = 60) -> list[str]:
    return [f"{(first + n * timedelta(minutes=step_min)).isoformat()},{n % 7}.25" for n in range(count)]


# -- what is built


def test_the_new_keys_become_what_they_say(tmp_path: Path) -> None:
    head = 'holidays = [2026-10-01]\nworkdays = ["2026-10-10"]\nrounding = "bill"\npart_month = "hold"\n'
    tou = TOU.replace(
        "[[charges.seasons]]",
        'registers = { peak = "import_kwh_t2", valley = "import_kwh_t4" }\n'
        'rest = "peak"\n[[charges.events]]\nperiod = "peak"\nstart = "2026-07-15T03:00"\nend = "2026-07-15T05:00"\n'
        "[[charges.seasons]]",
    )
    demand = DEMAND.replace(
        'price = "40"',
        'steps = [{ up_to = "100", price = "30" }, { price = "40" }]\ncode = "peak_demand"\nsliding_min = 5\n'
        'months = [7, 8]\ncontract_kw = "account"\nperiod = "peak"\n'
        'ratchet = { months = 11, percent = "80", of_months = [7, 8] }',
    )
    demand += '[[charges.seasons]]\nperiods = { peak = ["08:00-22:00"], rest = ["22:00-08:00"] }\n'
    capacity = '[[charges]]\nkind = "capacity"\nunit = "kVA"\nprice = "25.5"\ncapacity_kva = "account"\n'
    tariff = loaded(tmp_path, HEAD + head + tou + demand + capacity)
    assert tariff.policy == Policy("bill", "hold")
    charge: TouCharge = the(tariff, TouCharge)
    assert charge.schedule.calendar == Calendar((date(2026, 10, 1),), (date(2026, 10, 10),))
    assert (charge.measured_by, charge.rest) == ("intervals", "peak")
    assert charge.registers == (("peak", "import_kwh_t2"), ("valley", "import_kwh_t4"))
    (event,) = charge.schedule.events
    assert (event.start, event.end) == (
        datetime(2026, 7, 14, 19, tzinfo=UTC),
        datetime(2026, 7, 14, 21, tzinfo=UTC),
    )
    asked: DemandCharge = the(tariff, DemandCharge)
    assert asked.steps == (Step(Decimal(100), Decimal(30)), Step(None, Decimal(40)))
    assert (asked.code, asked.slide_min, asked.months, asked.period) == ("peak_demand", 5, (7, 8), "peak")
    assert (asked.contracted, asked.contract_kw) == (True, None)
    assert asked.ratchet == Ratchet(11, Decimal(80), (7, 8))
    assert asked.schedule is not None
    assert the(tariff, CapacityCharge).capacity_kva is None


def test_households_parts_and_tables_of_prices(tmp_path: Path) -> None:
    more = 'household = { people = 5, kwh = "100" }\npart = "months"\n'
    step: StepCharge = the(loaded(tmp_path, HEAD + STEP.replace("[[charges.t", more + "[[charges.t")), StepCharge)
    assert (step.household, step.part) == (Household(5, Decimal(100)), "months")
    table: StepTouCharge = the(
        loaded(tmp_path, HEAD + STEP_TOU.replace('"month"\n', '"month"\nsplit = "chronological"\n')), StepTouCharge
    )
    assert table.split == "chronological"
    assert [(s.up_to, dict(s.prices)["valley"]) for s in table.tables[0].steps] == [
        (Decimal(100), Decimal("0.3")),
        (None, Decimal("0.4")),
    ]
    net = '[[charges]]\nkind = "net_metering"\nunit = "kWh"\nprice = "0.2"\ncarry = true\nyear_start = "04-01"\n'
    assert the(loaded(tmp_path, HEAD + ENERGY + net), NetMetering) == NetMetering(Decimal("0.2"), "", True, (4, 1))


# -- what is refused


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            'holidays = [2026-10-02, 2026-10-01, 2026-10-01]\nworkdays = [2026-10-09]\n' + TOU,
            [
                "holidays: 2026-10-01 stands after 2026-10-02",
                "holidays: 2026-10-01 stands there twice",
                "workdays: 2026-10-09 is a Friday, which is worked anyway",
            ],
        ),
        (
            "holidays = [2026-10-10]\nworkdays = [2026-10-10]\n" + TOU,
            ["workdays: 2026-10-10 is a holiday as well"],
        ),
        ('holidays = ["10-01"]\n' + TOU, ["holidays: '10-01' is no day"]),
        (
            TOU + "".join(
                f'[[charges.events]]\nperiod = "{p}"\nstart = "{a}"\nend = "{b}"\n'
                for p, a, b in (
                    ("peek", "2026-07-15T14:00", "2026-07-15T18:00"),
                    ("peak", "2026-07-15T17:00", "2026-07-15T19:00"),
                    ("peak", "2027-01-01T00:00", "2027-01-01T01:00"),
                    ("peak", "2026-08-01T05:00", "2026-08-01T05:00"),
                )
            ),
            [
                "charges[1].events[1].period: the period 'peek' has no price",
                "charges[1].events[3]: it is not within the tariff's time (2026-01-01 to 2027-01-01)",
                "charges[1].events[4]: it ends before it starts",
                "charges[1].events[2]: it begins before events[1] ends",
            ],
        ),
        (
            TOU + '[[charges.events]]\nperiod = "peak"\nstart = "15 July"\nend = "2026-07-15T18:00"\n',
            ["charges[1].events[1].start: '15 July' is no local time of whole minutes"],
        ),
        (
            TOU.replace("[[charges.s", 'measured_by = "registers"\nregisters = { peak = "import_kwh_t9" }\n'
                        'rest = "flat"\n[[charges.s'),
            [
                "charges[1].registers.peak: 'import_kwh_t9' is no register of energy",
                "charges[1].registers: no register for valley",
                "charges[1].rest: the period 'flat' has no price",
            ],
        ),
        (
            TOU.replace(
                "[[charges.s",
                'measured_by = "registers"\nregisters = { peak = "import_kwh_t2", valley = "import_kwh_t4" }\n'
                '[[charges.events]]\nperiod = "peak"\nstart = "2026-07-15T03:00"\nend = "2026-07-15T05:00"\n'
                "[[charges.s",
            ),
            ["charges[1].events: the meter's own registers know nothing of what is called out"],
        ),
        (
            STEP_TOU.replace(', valley = "0.4"', "").replace('peak = "0.6"', 'peak = "0.6", day = "1"'),
            [
                "charges[1].tables[1].steps[1].prices.day: no season has hours of this period",
                "charges[1].tables[1].steps[2].prices: its periods are not those of the first step",
                "charges[1].tables[1].steps[2].prices: no price for valley",
            ],
        ),
        (
            STEP.replace("[[charges.t", 'household = { people = 5, kwh = "0" }\npart = "days"\n[[charges.t'),
            [
                "charges[1].household.kwh: kwh 0 is not above 0",
                "charges[1].part: steps of a year have no part by days",
            ],
        ),
        (STEP_TOU + TOU, ["charges: charges[2] and charges[1] both price the energy of periods"]),
        (STEP_TOU + STEP, ["charges: charges[1] has steps, and another charge has steps too"]),
        (
            DEMAND.replace('price = "40"', 'steps = [{ up_to = "9", price = "1" }, { up_to = "9", price = "2" }]'),
            [
                "charges[1].steps[2]: demand above 9 kW has no price",
                "charges[1].steps[2].up_to: up_to 9 is not above 9",
            ],
        ),
        (DEMAND.replace('price = "40"\n', ""), ["charges[1]: a demand has a price or steps"]),
        (
            DEMAND + 'ratchet = { months = 11, percent = "101" }\nsliding_min = 10\n',
            [
                "charges[1].sliding_min: blocks of 15 minutes can't start every 10 minutes",
                "charges[1].ratchet.percent: percent 101 is not from 1 to 100",
            ],
        ),
        (DEMAND + 'period = "peak"\n', ["charges[1]: the demand of a period needs its hours, and hours a period"]),
        (
            DEMAND.replace('"intervals"', '"register"') + 'period = "pek"\n'
            '[[charges.seasons]]\nperiods = { peak = ["00:00-24:00"] }\n',
            [
                "charges[1].period: the meter keeps one maximum, not one for a period",
                "charges[1].period: no season has hours of 'pek'",
            ],
        ),
        (DEMAND + DEMAND, ["charges[2]: a second charge of the same kind as charges[1]"]),
        (
            DEMAND + 'ratchet = { months = 11, percent = "80" }\n'
            + DEMAND + 'code = "more"\nblock_min = 30\nratchet = { months = 3, percent = "80" }\n',
            [
                "charges[2]: charges[1] measures the same demand in another way",
                "charges[2].ratchet: charges[1] looks back at other months or another period",
            ],
        ),
        (
            DEMAND + 'code = "more"\n' + ENERGY.replace("energy", "surcharge") + 'code = "more_excess"\n',
            ["charges[1].code: 'more_excess' is a charge of its own"],
        ),
        (DEMAND + 'code = "basic_other"\n', ["charges[1].code: 'basic_other' is the code of another line"]),
        (DEMAND + 'contract_kw = "accounts"\n', ["charges[1].contract_kw: 'accounts' is no amount"]),
        (
            STEP_TOU + '[[charges]]\nkind = "net_metering"\nunit = "kWh"\nprice = "0.2"\n',
            [
                "charges[2]: net metering has no rule for charges[1]: periods and yearly steps are not netted",
                "charges[2]: there is no price of energy to net",
            ],
        ),
    ],
)  # fmt: skip
def test_each_wrong_thing_is_told(tmp_path: Path, text: str, problems: list[str]) -> None:
    assert refused(tmp_path, HEAD + text) == problems


def test_demands_of_other_periods_are_measured_as_they_like(tmp_path: Path) -> None:
    of_peak = (
        'code = "peak"\nperiod = "peak"\nblock_min = 30\n[[charges.seasons]]\nperiods = { peak = ["00:00-24:00"] }\n'
    )
    tariff = loaded(tmp_path, HEAD + DEMAND + DEMAND + of_peak)
    assert [charge.block_min for charge in tariff.charges if isinstance(charge, DemandCharge)] == [15, 30]


def test_an_unknown_key_of_an_inner_table_suggests_the_near_one(tmp_path: Path) -> None:
    text = HEAD + STEP_TOU.replace("up_to", "upto", 1) + DEMAND + 'ratchet = { month = 3, percent = "9", months = 1 }\n'
    (tmp_path / "t.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_tariff(tmp_path / "t.toml")
    assert [str(problem) for problem in caught.value.problems] == [
        "t.toml: charges[1].tables[1].steps[1].upto: unknown key 'upto' -> did you mean 'up_to'?",
        "t.toml: charges[2].ratchet.month: unknown key 'month' -> did you mean 'months'?",
    ]


# -- prices of a market


def test_prices_become_a_part_of_the_tariff_and_its_text_alone_gives_it_back(tmp_path: Path) -> None:
    head = HEAD.replace("2027-01-01", "2026-01-03")
    prices(tmp_path, hours_of(datetime(2026, 1, 1), 48))  # noqa: DTZ001
    tariff = loaded(tmp_path, head + MARKET)
    charge: MarketCharge = the(tariff, MarketCharge)
    assert charge.series.start == datetime(2025, 12, 31, 16, tzinfo=UTC)
    assert (charge.series.step_s, len(charge.series.prices), charge.series.prices[8]) == (3600, 48, Decimal("1.25"))
    (tmp_path / "p.csv").unlink()
    again = tariff_from_text(tariff.text)
    assert again == tariff
    assert again.sha == tariff.sha
    assert loaded(tmp_path, tariff.text) == tariff  # a stored text is a whole file
    with pytest.raises(ConfigError, match=r"p\.csv: there is no such file -> put the file of prices beside"):
        loaded(tmp_path, head + MARKET)
    with pytest.raises(ConfigError, match="the prices are not behind the text"):
        tariff_from_text(head + MARKET)


def test_a_stored_text_stands_when_rules_become_stricter() -> None:
    odd = HEAD + TOU.replace("peak", "step1_peak")  # a name that files may no longer use
    (charge,) = tariff_from_text(odd).charges
    assert isinstance(charge, TouCharge)
    assert dict(charge.prices)["step1_peak"] == Decimal("0.9")
    with pytest.raises(ConfigError, match="a stored tariff: is not TOML"):
        tariff_from_text("id = ")


def test_another_price_is_another_tariff_and_another_line_end_is_not(tmp_path: Path) -> None:
    head = HEAD.replace("2027-01-01", "2026-01-02")
    rows = hours_of(datetime(2026, 1, 1), 24)  # noqa: DTZ001
    prices(tmp_path, rows)
    first = loaded(tmp_path, head + MARKET)
    (tmp_path / "p.csv").write_bytes(b"start,price\r\n" + "\r\n".join(rows).encode())
    assert loaded(tmp_path, head + MARKET).sha == first.sha
    prices(tmp_path, [*rows[:-1], rows[-1] + "1"])
    assert loaded(tmp_path, head + MARKET).sha != first.sha


def test_every_problem_of_prices_is_told(tmp_path: Path) -> None:
    head = HEAD.replace("valid_to = 2027-01-01\n", "")
    prices(tmp_path, hours_of(datetime(2026, 1, 1, 1), 24))  # noqa: DTZ001
    assert refused(tmp_path, head + MARKET + 'factor = "0"\n') == [
        "charges[1].factor: factor 0 is not above 0",
        "charges[1].series: its prices begin at 2026-01-01 01:00, after valid_from",
        "charges[1].series: its prices end at 2026-01-02 01:00, but the version has no end",
    ]
    prices(tmp_path, hours_of(datetime(2026, 1, 1), 24, 20))  # noqa: DTZ001
    assert refused(tmp_path, head + MARKET) == ["p.csv: the prices are 1200 s apart"]
    rows = hours_of(datetime(2026, 1, 1), 24)  # noqa: DTZ001
    prices(tmp_path, [*rows[:5], *rows[6:]])
    assert refused(tmp_path, head + MARKET) == ["p.csv:7: start: 1 interval is missing before this row"]
    prices(tmp_path, [*rows[:5], "2026-01-01T05:00,1e3", "2026-01-01T06:00,"])
    assert refused(tmp_path, head + MARKET) == [
        'p.csv:7: price: "1e3" is no decimal number with up to 8 places',
        "p.csv:8: price: the cell is empty",
    ]
    assert refused(tmp_path, head + MARKET.replace("p.csv", "../p.csv")) == [
        "charges[1].series: '../p.csv' is no name of a CSV file beside the tariff's"
    ]


# -- what is shipped


def test_every_shipped_text_gives_its_tariff_back() -> None:
    tariffs = load_tariffs(SHIPPED)
    assert len(tariffs) >= 27
    for one in tariffs:
        again = tariff_from_text(one.text)
        assert again == one
        assert again.text == one.text


def test_the_shipped_critical_peaks_are_where_they_were_called() -> None:
    charge: TouCharge = the(load_tariff(SHIPPED / "example-critical-peak.toml"), TouCharge)
    july = spans(charge.schedule, billing_month(2026, 7, SHANGHAI), SHANGHAI)
    critical = [(span.start, span.end) for span in july if span.period == "critical"]
    assert critical == [(datetime(2026, 7, 15, 6, tzinfo=UTC), datetime(2026, 7, 15, 10, tzinfo=UTC))]
    october = spans(charge.schedule, billing_month(2026, 10, SHANGHAI), SHANGHAI)
    # 1 to 3 October are holidays, the 4th is a Sunday: nothing but low until its peak at 10.
    assert (october[0].period, october[0].end) == ("low", datetime(2026, 10, 4, 2, tzinfo=UTC))
    # The 10th, a Saturday, is worked: its peak runs from 8 to 22.
    worked = [span for span in october if span.period == "peak" and span.start.day == 10]
    assert [(span.start.hour, span.end.hour) for span in worked] == [(0, 14)]

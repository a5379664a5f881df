"""Tariff files: what is shipped loads; what is wrong is refused with every problem and what to do about it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from billing.charges import StepAdder, TouCharge
from config import tariff_keys
from config.tariff_files import load_tariff, load_tariffs
from headend.errors import ConfigError

SHIPPED = Path(__file__).parents[1] / "config" / "tariffs"

HEAD = """
id = "t"
version = "1"
title = "A test"
source = "none"
source_date = 2026-01-01
verified = true
valid_from = 2026-01-01
zone = "Asia/Shanghai"
currency = "CNY"
"""

TOU = """
[[charges]]
kind = "tou"
unit = "kWh"
prices = { peak = "0.568", valley = "0.288" }
[[charges.seasons]]
periods = { peak = ["08:00-22:00"], valley = ["22:00-08:00"] }
"""

STEP = """
[[charges]]
kind = "step"
unit = "kWh"
period = "year"
[[charges.tables]]
steps = [{ up_to = "2760", price = "0.538" }, { up_to = "4800", price = "0.588" }, { price = "0.838" }]
"""


def refused(folder: Path, text: str, name: str = "t.toml") -> list[str]:
    """The problems of a tariff file, as an operator sees them."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_tariff(path)
    return str(caught.value).splitlines()


def test_the_shipped_tariffs_load_and_say_where_they_come_from() -> None:
    tariffs = {tariff.id: tariff for tariff in load_tariffs(SHIPPED)}
    assert {"cn-zhejiang-residential-step", "cn-zhejiang-residential-tou-step", "example-flat"} <= set(tariffs)
    assert all(tariff.source and len(tariff.sha) == 64 and tariff.text for tariff in tariffs.values())
    tou, adder = tariffs["cn-zhejiang-residential-tou-step"].charges
    assert isinstance(tou, TouCharge)
    assert isinstance(adder, StepAdder)
    assert dict(tou.prices) == {"peak": Decimal("0.568"), "valley": Decimal("0.288")}
    assert [step.price for step in adder.tables[0].steps] == [Decimal(0), Decimal("0.05"), Decimal("0.30")]


def test_good_parts_make_a_good_tariff(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(HEAD + TOU + STEP.replace('"step"', '"step_adder"'), encoding="utf-8")
    tariff = load_tariff(tmp_path / "t.toml")
    assert [type(charge).__name__ for charge in tariff.charges] == ["TouCharge", "StepAdder"]


def test_a_gap_names_the_missing_hours(tmp_path: Path) -> None:
    text = HEAD + TOU.replace("22:00-08:00", "22:00-06:30")
    assert refused(tmp_path, text) == [
        "t.toml: charges[1].seasons[1].periods: no period for 06:30-08:00 -> give these hours to one period"
    ]


def test_an_overlap_names_the_hours_and_who_claims_them(tmp_path: Path) -> None:
    text = HEAD + TOU.replace("22:00-08:00", "21:00-08:30")
    assert refused(tmp_path, text) == [
        f"t.toml: charges[1].seasons[1].periods: {hours} is given twice (peak, valley) "
        "-> give these hours to one period"
        for hours in ("08:00-08:30", "21:00-22:00")
    ]


def test_an_unknown_key_suggests_the_near_one(tmp_path: Path) -> None:
    text = HEAD + STEP.replace("up_to", "upto", 1).replace('unit = "kWh"', 'unit = "kWh"\nyearstart = "01-01"')
    assert refused(tmp_path, text.replace('title = "A test"', 'title = "A test"\nzona = "x"')) == [
        "t.toml: charges[1].tables[1].steps[1].upto: unknown key 'upto' -> did you mean 'up_to'?",
        "t.toml: charges[1].yearstart: unknown key 'yearstart' -> did you mean 'year_start'?",
        "t.toml: zona: unknown key 'zona' -> did you mean 'zone'?",
    ]


def test_a_price_as_a_number_is_refused(tmp_path: Path) -> None:
    text = HEAD + TOU.replace('"0.568"', "0.568") + STEP.replace('"0.838"', "1").replace('"2760"', "2760.5")
    assert refused(tmp_path, text) == [
        't.toml: charges[1].prices.peak: the price 0.568 is not text -> write the price as text: "0.568"',
        't.toml: charges[2].tables[1].steps[1].up_to: 2760.5 is not text -> write the number as text: "2760.5"',
        't.toml: charges[2].tables[1].steps[3].price: the price 1 is not text -> write the price as text: "1"',
    ]


@pytest.mark.parametrize("price", ["0,538", "", "abc", "1e3", "0.123456789", "NaN"])
def test_a_price_that_is_no_decimal_is_refused(tmp_path: Path, price: str) -> None:
    assert refused(tmp_path, HEAD + STEP.replace("0.838", price)) == [
        f"t.toml: charges[1].tables[1].steps[3].price: {price!r} is not a decimal number with up to 8 places "
        '-> write it like "0.538"'
    ]


def test_steps_that_do_not_ascend_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, HEAD + STEP.replace("4800", "2760")) == [
        "t.toml: charges[1].tables[1].steps[2].up_to: up_to 2760 is not above 2760 "
        "-> write the steps in ascending order"
    ]


def test_the_last_step_is_open_and_no_other(tmp_path: Path) -> None:
    assert refused(tmp_path, HEAD + STEP.replace(', { price = "0.838" }', "")) == [
        "t.toml: charges[1].tables[1].steps[2]: energy above 4800 kWh has no price -> add a step without `up_to`"
    ]
    assert refused(tmp_path, HEAD + STEP.replace('up_to = "2760", ', "")) == [
        "t.toml: charges[1].tables[1].steps[1]: only the last step is open -> give it `up_to`"
    ]


def test_every_month_and_kind_of_day_has_one_season(tmp_path: Path) -> None:
    extra = '[[charges.seasons]]\nmonths = [7]\nperiods = { peak = ["00:00-24:00"] }\n'
    assert refused(tmp_path, HEAD + TOU + extra) == [
        f"t.toml: charges[1].seasons: month 7 on a {day} stands in charges[1].seasons[1] and charges[1].seasons[2] "
        "-> keep it in one"
        for day in ("weekday", "weekend")
    ]
    text = HEAD + TOU.replace("periods", 'months = [1, 2, 3, 4, 5, 6]\ndays = "weekday"\nperiods')
    assert refused(tmp_path, text) == [
        "t.toml: charges[1].seasons: nothing for month 7, 8, 9, 10, 11, 12 on a weekday -> add them to one `months`",
        "t.toml: charges[1].seasons: nothing for a weekend -> add a season for weekends",
    ]


def test_periods_and_prices_must_name_each_other(tmp_path: Path) -> None:
    assert refused(tmp_path, HEAD + TOU.replace("peak = [", "paek = [")) == [
        "t.toml: charges[1].prices.peak: no season has hours of this period -> add its hours or drop the price",
        "t.toml: charges[1].seasons[1].periods.paek: the period 'paek' has no price -> did you mean 'peak'?",
    ]


def test_unit_source_and_date_are_required(tmp_path: Path) -> None:
    text = HEAD.replace('source = "none"\nsource_date = 2026-01-01\n', "") + STEP.replace('unit = "kWh"\n', "")
    assert refused(tmp_path, text) == [
        "t.toml: source: is missing -> add it",
        "t.toml: source_date: is missing -> add it",
        "t.toml: charges[1].unit: is missing -> add it",
    ]


def test_words_outside_the_lists_are_refused(tmp_path: Path) -> None:
    text = HEAD.replace("Asia/Shanghai", "Asia/Shangai").replace("CNY", "RMB").replace("= true", "= false")
    assert refused(tmp_path, text + TOU) == [
        "t.toml: note: an unverified tariff says what was not checked -> write it in `note`",
        "t.toml: currency: 'RMB' is not a known currency -> write one of CNY, EUR, GBP, USD",
        "t.toml: zone: unknown time zone 'Asia/Shangai' -> use an IANA name or an offset like +08:00",
    ]
    assert refused(tmp_path, HEAD + TOU.replace('"tou"', '"toe"')) == [
        "t.toml: charges[1].kind: is not a known kind of charge -> write one of energy, tou, step, step_adder, "
        "step_tou, market, fixed, demand, capacity, power_factor, surcharge, tax, minimum, export_credit, net_metering"
    ]
    assert refused(tmp_path, HEAD + STEP.replace('"year"', '"yearly"')) == [
        "t.toml: charges[1].period: 'yearly' is not known here -> write 'month' or 'year'"
    ]
    assert refused(tmp_path, HEAD + TOU.replace("08:00-22:00", "8-22")) == [
        "t.toml: charges[1].seasons[1].periods.peak[1]: '8-22' is not a span of hours -> write it like \"08:00-22:00\""
    ]


def test_a_step_year_starts_with_a_month(tmp_path: Path) -> None:
    text = HEAD + STEP.replace('"year"', '"year"\nyear_start = "07-15"')
    assert refused(tmp_path, text) == [
        "t.toml: charges[1].year_start: a step year starts with a month, not on its day 15 "
        "-> bills are for civil months: use the first of a month"
    ]


def test_the_id_is_the_name_of_the_file(tmp_path: Path) -> None:
    assert refused(tmp_path, HEAD + STEP, "other.toml") == [
        "other.toml: id: the id 't' is not the file's name -> call the file t.toml or t@VERSION.toml, or change the id"
    ]


def test_what_is_not_a_toml_file_is_told(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "id = ")
    assert line.startswith("t.toml: is not TOML: Invalid value")
    (tmp_path / "t.toml").write_bytes(b'id = "\xff"')
    with pytest.raises(ConfigError, match=r"t\.toml: is not UTF-8 text -> save it as UTF-8"):
        load_tariff(tmp_path / "t.toml")
    with pytest.raises(ConfigError, match=r"none\.toml: can't be read: No such file or directory -> check the path"):
        load_tariff(tmp_path / "none.toml")


def test_every_key_stands_in_the_reference() -> None:
    text = (Path(__file__).parents[1] / "docs" / "tariffs.md").read_text(encoding="utf-8")
    models = [value for value in vars(tariff_keys).values() if hasattr(value, "model_fields")]
    keys = {key for model in models for key in model.model_fields}
    assert keys >= {"valid_to", "year_start", "up_to", "seasons", "amount", "days"}
    assert [key for key in sorted(keys) if f"| `{key}` |" not in text] == []


def test_the_example_of_the_reference_loads(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "tariffs.md").read_text(encoding="utf-8")
    example = text.split("```toml\n")[1].split("```")[0]
    (tmp_path / "town-residential.toml").write_text(example, encoding="utf-8")
    kinds = [type(charge).__name__ for charge in load_tariff(tmp_path / "town-residential.toml").charges]
    assert kinds == ["TouCharge", "StepAdder", "FixedCharge"]


def test_a_folder_tells_the_problems_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text(HEAD + STEP.replace("4800", "10"), encoding="utf-8")
    (tmp_path / "u.toml").write_text(HEAD.replace('"t"', '"u"') + TOU.replace("08:00-22", "09:00-22"), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_tariffs(tmp_path)
    assert [problem.where for problem in caught.value.problems] == [
        "t.toml: charges[1].tables[1].steps[2].up_to",
        "u.toml: charges[1].seasons[1].periods",
    ]


def test_two_versions_of_a_tariff_must_not_hold_on_one_day(tmp_path: Path) -> None:
    later = HEAD.replace('version = "1"', 'version = "2"').replace("valid_from = 2026-01", "valid_from = 2026-07")
    (tmp_path / "t@2.toml").write_text(later + STEP, encoding="utf-8")
    (tmp_path / "t.toml").write_text(HEAD + STEP, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_tariffs(tmp_path)
    assert str(caught.value) == "t: versions '1' and '2' both hold on 2026-07-01 -> end version '1' with valid_to"
    (tmp_path / "t.toml").write_text(HEAD + "valid_to = 2026-07-01\n" + STEP, encoding="utf-8")
    assert [tariff.version for tariff in load_tariffs(tmp_path)] == ["1", "2"]

"""Meter models: the shipped ones, and what is refused."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.meter_models import SHIPPED_MODELS, load_model, load_models
from config.problems import exact_decimal, nearest, parse_decimal, shown
from headend.errors import ConfigError
from headend.model import CurveSpec
from headend.quantities import to_units

MODEL = """\
source = "a data sheet"
protocol = "dlt645-2007"
register_wrap = "1000000"
max_power_kw = "15.84"
"""


def _refusals(path: Path, protocols: tuple[str, ...] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_model(path, protocols)
    return [str(problem) for problem in caught.value.problems]


def test_shipped_models_are_these() -> None:
    models = {name: m for name, m in load_models([SHIPPED_MODELS]).items() if m.protocol.startswith("dlt645-")}
    curve = CurveSpec("0610", 900, 62, ("import_kwh",))
    assert {name: (m.curve, m.daily_freeze_depth, m.max_power_kw) for name, m in models.items()} == {
        "dlt645-2007-1ph": (curve, 62, Decimal(60 * 220) * 12 / 10_000),
        "dlt645-2007-1ph-60": (CurveSpec("0610", 3600, 62, ("import_kwh",)), 62, Decimal("15.84")),
        "dlt645-2007-record": (CurveSpec("record", 900, 62, ("import_kwh",)), 62, Decimal("15.84")),
        "dlt645-2007-3ph": (curve, 62, Decimal(3 * 100 * 220) * 12 / 10_000),
        "dlt645-2007-basic": (None, 0, Decimal("15.84")),
        "dlt645-1997-basic": (None, 0, Decimal("15.84")),
    }
    assert {m.register_wrap for m in models.values()} == {Decimal(1_000_000)}


def test_every_shipped_model_names_its_source_first() -> None:
    for path in SHIPPED_MODELS.glob("*.toml"):
        assert path.read_text().startswith("source = "), path.name
        if path.name.startswith("dlt645-"):
            assert "DL/T 645-" in tomllib.loads(path.read_text())["source"]


def test_every_problem_of_a_model_at_once(tmp_path: Path) -> None:
    path = tmp_path / "m.toml"
    path.write_text(
        'protocol = "dlt645"\nregister_wrap = 1000000.0\nmax_power_kw = "-3"\nrates = "4"\ndaily_freez_depth = 62\n'
        '[curve]\nform = "611"\nstep_min = 7\ndepth_days = 0\nquantities = ["import_kwx"]\n'
    )
    assert _refusals(path, ("dlt645-2007",)) == [
        "m.toml: source: the key 'source' is missing -> write source = \"data sheet ..., page ...\"",
        'm.toml: register_wrap: 1000000.0 is a float, which is not exact -> write it in quotes: "1000000.0"',
        "m.toml: max_power_kw: -3 is out of range -> use a number above 0",
        'm.toml: rates: "4" is not a whole number -> write rates = 4',
        'm.toml: daily_freez_depth: unknown key "daily_freez_depth" -> did you mean daily_freeze_depth?',
        'm.toml: curve.form: "611" is not known here -> use 0610, record, profile or sample',
        "m.toml: curve.step_min: a day is not a whole number of 7 minute steps -> use 1, 5, 10, 15, 30 or 60",
        "m.toml: curve.depth_days: 0 is out of range -> use a number of at least 1",
        "m.toml: curve.quantities: unknown quantity 'import_kwx' -> "
        "did you mean import_kw or import_kwh or import_kw_c?",
        "m.toml: protocol: unknown protocol 'dlt645' -> did you mean dlt645-2007?",
    ]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("curve = 15\n", "m.toml: curve: 15 is not a table"),
        ("rates = true\n", "m.toml: rates: true is not a whole number -> write rates = 4"),
        ("rates = 4.0\n", "m.toml: rates: 4.0 is not a whole number -> write rates = 4"),
    ],
)
def test_wrong_types_are_refused(tmp_path: Path, extra: str, message: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(MODEL + extra)
    assert _refusals(path) == [message]


def test_a_name_in_two_folders_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dlt645-2007-1ph.toml"
    path.write_text(MODEL)
    with pytest.raises(ConfigError) as caught:
        load_models([SHIPPED_MODELS, tmp_path])
    assert str(caught.value) == (
        f"{path}: the meter model 'dlt645-2007-1ph' is there already, in {SHIPPED_MODELS} -> give the file another name"
    )


def test_an_added_model_stands_beside_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MODEL.replace('"1000000"', "10000"))
    models = load_models([SHIPPED_MODELS, tmp_path])
    assert set(models) == {*load_models([SHIPPED_MODELS]), "mine"}
    assert models["mine"].register_wrap == Decimal(10_000)


@settings(deadline=None)
@given(st.integers(-(10**14), 10**14), st.integers(0, 4))
def test_exact_numbers_stay_exact(digits: int, places: int) -> None:
    value = Decimal(digits).scaleb(-places)
    text = f"{value:f}"
    assert parse_decimal(text) == exact_decimal(text) == value
    assert to_units(parse_decimal(text)) == digits * 10 ** (4 - places)


@settings(deadline=None)
@given(st.one_of(st.text(), st.sampled_from(["1e9", "1_000", "٣", "1.23456", "NaN", "inf", "9" * 16, "", " 1"])))
def test_texts_are_exact_numbers_or_refused(text: str) -> None:
    try:
        value = parse_decimal(text)
    except ValueError:
        return
    assert text.isascii()
    assert Decimal(text) == value


@settings(deadline=None)
@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.just(10**5000)))
def test_values_are_shown_short_and_printable(value: object) -> None:
    assert len(shown(value)) <= 61
    assert shown(value).isprintable()


def test_near_names_come_first_and_long_lists_are_cut() -> None:
    assert nearest("registres", ["registers", "clock"]) == "did you mean registers?"
    assert nearest("zzz", ["registers", "clock"]) == "known: clock, registers"
    assert nearest("zzz", []) == ""
    many = [f"M{n:05}" for n in range(3000)]
    assert nearest("x", many[:20]) == f"known: {', '.join(many[:12])} and 8 more"
    assert nearest("M0000", many) == "name one of the 3000 that are known"


@settings(deadline=None)
@given(st.text())
def test_any_text_as_a_model_is_loaded_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any-model.toml"
    for content in (text, MODEL + text, f"{MODEL}[curve]\n{text}"):
        path.write_bytes(content.encode(errors="surrogatepass"))
        try:
            model = load_model(path)
        except ConfigError:
            continue
        assert model.protocol == "dlt645-2007"

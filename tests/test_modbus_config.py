"""`[modbus]` of a meter model: what is taken, and every problem of what is not, at once."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.details import with_options
from config.meter_models import SHIPPED_MODELS, load_model
from config.modbus_details import parse
from headend.errors import ConfigError
from headend.protocols import PROTOCOLS
from headend.protocols.modbus.model import RegisterMap
from headend.protocols.modbus.plan import plan
from headend.quantities import QUANTITIES

HEAD = """\
source = "a data sheet"
protocol = "modbus-rtu"
register_wrap = "1000000"
max_power_kw = "15.84"
"""
ROW = '{ quantity = "import_kwh", address = 0, type = "u32", unit = "kWh", scale = "0.01" }'
MODELS = sorted(SHIPPED_MODELS.glob("modbus-*.toml"))


def _problems(tmp_path: Path, body: str) -> list[str]:
    path = tmp_path / "m.toml"
    path.write_text(HEAD + body)
    with pytest.raises(ConfigError) as caught:
        load_model(path, PROTOCOLS)
    return [str(problem).removeprefix("m.toml: modbus") for problem in caught.value.problems]


def _map(tmp_path: Path, body: str) -> RegisterMap:
    path = tmp_path / "m.toml"
    path.write_text(HEAD + body)
    details = load_model(path, PROTOCOLS).details
    assert isinstance(details, RegisterMap)
    return details


def test_a_map_as_it_stands(tmp_path: Path) -> None:
    registers = _map(
        tmp_path,
        """
[modbus]
function = 4
type = "f32"
word_order = "little"
invalid = ["ones"]
side = "secondary"
max_registers = 80
gap = 8
boundaries = [200, 100]
base = 1000
late_s = 2

[[modbus.register]]
quantity = "import_kwh"
address = 0x48
unit = "Wh"
invalid = []
note = "n"

[[modbus.register]]
name = "relay"
address = 7
function = 3
type = "u16"
word_order = "big"
scale = "0.5"
offset = -40
writable = true
""",
    )
    energy, relay = registers.registers
    assert (energy.quantity, energy.address, energy.words, energy.function) == ("import_kwh", 0x48, 2, 4)
    assert (energy.factor, energy.obis, energy.word_order, energy.side) == (
        Decimal("0.001"), "1-0:1.8.0", "little", "secondary",
    )  # fmt: skip
    assert (energy.invalid, energy.note) == ((), "n")
    assert (relay.name, relay.quantity, relay.function, relay.type, relay.words) == ("relay", "", 3, "u16", 1)
    assert (relay.scale, relay.offset, relay.writable, relay.invalid) == (Decimal("0.5"), Decimal(-40), True, ("ones",))
    assert (registers.max_registers, registers.gap, registers.boundaries) == (80, 8, (100, 200))
    assert (registers.base, registers.late_s, registers.quantities) == (1000, 2.0, ("import_kwh",))


def test_every_problem_at_once(tmp_path: Path) -> None:
    assert _problems(
        tmp_path,
        """
[modbus]
functoin = 4
max_registers = 200
late_s = -1
[[modbus.register]]
quantity = "import_kw_h"
address = 0
type = "u32"
unit = "kWh"
[[modbus.register]]
quantity = "import_kwh"
address = 70000
type = "u32"
unit = "kWh"
[[modbus.register]]
quantity = "voltage_v_a"
address = 10
type = "f33"
unit = "V"
[[modbus.register]]
quantity = "voltage_v_b"
address = 12
type = "f32"
unit = "A"
scale = 0.1
""",
    ) == [
        ".max_registers: 200 is out of range -> use a number of at most 125",
        ".late_s: -1 is out of range -> use a number of at least 0",
        '.functoin: unknown key "functoin" -> did you mean function?',
        '.register[1].quantity: unknown quantity "import_kw_h" -> '
        "did you mean import_kwh or import_kw_c or import_kw_b?",
        ".register[2].address: 70000 is out of range -> use a number below 65536",
        '.register[3].type: "f33" is not known here -> use u16, s16, u32, s32, u48, s48, u64, s64, sm16, sm32, f32, '
        "f64, bcd16, bcd32, bcd48, bcd64, mod10, ascii or bool",
        '.register[4].scale: 0.1 is a float, which is not exact -> write it in quotes: "0.1"',
    ]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", ".register: there are no registers"),
        ("register = 5", ".register: there are no registers"),
        ("register = [ 5 ]", ".register[1]: 5 stands where a table is wanted"),
        ('register = [ { address = 0, type = "u16" } ]', ".register[1]: a register has either a quantity or a name"),
        (
            'register = [ { quantity = "import_kwh", name = "x", address = 0, type = "u16" } ]',
            ".register[1]: a register has either a quantity or a name",
        ),
        (
            'register = [ { name = "import_kwh", address = 0, type = "u16" } ]',
            ".register[1].name: import_kwh is a quan",
        ),
        ('register = [ { name = "A b", address = 0, type = "u16" } ]', '.register[1].name: "A b" is no name'),
        ('register = [ { name = "x", address = 0 } ]', ".register[1].type: the type is missing"),
        ('register = [ { name = "x", type = "u16" } ]', ".register[1].address: the key 'address' is missing"),
        (
            'register = [ { quantity = "import_kwh", address = 0, type = "u32", unit = "kW" } ]',
            '.register[1].unit: "kW" does not measure import_kwh, which is in kWh',
        ),
        (
            'register = [ { quantity = "power_factor", address = 0, type = "u16", unit = "V" } ]',
            '.register[1].unit: "V" does not measure power_factor, which is in no unit',
        ),
        (
            'register = [ { name = "x", address = 0, type = "ascii" } ]',
            ".register[1].words: how many registers a ascii",
        ),
        (
            'register = [ { name = "x", address = 0, type = "u32", words = 3 } ]',
            ".register[1].words: a u32 takes 2, not",
        ),
        (
            'register = [ { name = "x", address = 65535, type = "u32" } ]',
            ".register[1].address: 2 registers from 65535",
        ),
        (
            'register = [ { name = "x", address = 0, type = "bool" } ]',
            ".register[1].type: function 3 does not read bool",
        ),
        (
            'register = [ { name = "x", address = 0, type = "u16", function = 2 } ]',
            ".register[1].type: function 2 does not read u16",
        ),
        ('register = [ { name = "x", address = 0, type = "u16", scale = 0 } ]', ".register[1].scale: 0 makes every"),
        (
            'register = [ { name = "x", address = 0, type = "u16", function = 4, writable = true } ]',
            ".register[1].writable: registers of function 4 can't be written",
        ),
        ('register = [ { name = "x", address = 0, type = "s16", bits = [0, 4] } ]', ".register[1].bits: bits of a s16"),
        (
            'register = [ { name = "x", address = 0, type = "u16", bits = [12, 8] } ]',
            ".register[1].bits: [12, 8] is not",
        ),
        (
            'register = [ { name = "x", address = 0, type = "u16", scale_register = "y" } ]',
            '.register[1].scale_register: there is no register "y"',
        ),
        (
            'register = [ { name = "x", address = 0, type = "u16", scale_register = "y" }, '
            '{ name = "y", address = 5, type = "u32" } ]',
            ".register[1].scale_register: y is no power of ten",
        ),
        (
            'register = [ { name = "x", address = 0, type = "u16" }, { name = "x", address = 5, type = "u16" } ]',
            ".register[2]: x stands in register[1] already",
        ),
        (
            'register = [ { name = "x", address = 0, type = "u32" }, { name = "y", address = 1, type = "u16" } ]',
            ".register[2].address: y at 1 overlaps x of register[1], which ends before 2",
        ),
        (
            'boundaries = [1]\nregister = [ { name = "x", address = 0, type = "u32" } ]',
            ".register[1].address: lies across the boundary 1",
        ),
        (
            'max_registers = 1\nregister = [ { name = "x", address = 0, type = "u32" } ]',
            ".register[1].words: 2 are more than max_registers",
        ),
        (
            'base = 65535\nregister = [ { name = "x", address = 5, type = "u32" } ]',
            ".register[1].address: with base 65535 it goes beyond 65535",
        ),
        (f"sunspec = [0]\nregister = [ {ROW} ]", ".sunspec[1]: 0 is no SunSpec model"),
        (f"boundaries = [0]\nregister = [ {ROW} ]", ".boundaries[1]: 0 is no address a boundary lies before"),
        (f"register = [ {ROW} ]\n[modbus.clock]\nstamp = 'x'", ".clock.address: the key 'address' is missing"),
        (
            f"register = [ {ROW} ]\n[modbus.daily]\naddress = 0\nstride = 4\ncount = 2\nratio = ['ct']\n"
            f"register = [ {ROW} ]",
            ".daily.register[1].address: import_kwh lies in the time",
        ),
        (
            f"register = [ {ROW} ]\n[modbus.daily]\naddress = 65000\nstride = 40\ncount = 90\n"
            'register = [ { quantity = "import_kwh", address = 39, type = "u32", unit = "kWh" } ]',
            ".daily.count: 90 blocks go beyond 65535",
        ),
        (
            f"register = [ {ROW} ]\n[modbus.monthly]\naddress = 0\nstride = 9\ncount = 2\n"
            'register = [ { name = "x", address = 3, type = "u32" } ]',
            ".monthly.register[1]: what is frozen is stored, so it has a quantity",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, body: str, problem: str) -> None:
    found = _problems(tmp_path, f"[modbus]\n{body}\n")
    assert found[0].startswith(problem), found
    assert all(" -> " in text for text in found)


def test_bits_may_share_a_register(tmp_path: Path) -> None:
    rows = ", ".join(f'{{ name = "b{n}", address = 9, type = "u16", bits = [{n}, 1] }}' for n in range(3))
    assert len(_map(tmp_path, f"[modbus]\nregister = [ {rows} ]\n").registers) == 3


def test_a_model_without_its_table_is_refused(tmp_path: Path) -> None:
    assert _problems(tmp_path, "")[0].startswith(".register: there are no registers")


def test_a_meters_options_stand_over_its_model() -> None:
    model = load_model(SHIPPED_MODELS / "modbus-eastron-sdm630.toml")
    details, problems = with_options(model, "base = 100; max_registers = 20; late_s = 3", "meters.csv:2: options")
    assert problems == []
    assert isinstance(details, RegisterMap)
    assert (details.base, details.max_registers, details.late_s) == (100, 20, 3.0)
    assert isinstance(model.details, RegisterMap)
    assert details.registers == model.details.registers
    _, problems = with_options(model, "bas = 100", "meters.csv:2: options")
    assert [str(one) for one in problems] == ['meters.csv:2: options: bas: unknown key "bas" -> did you mean base?']


@settings(deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["register", "daily", "clock", "quantity", "address", "type", "base", "bits", "ratio"]),
                inner,
                max_size=5,
            ),
        ),
        max_leaves=20,
    )
)
def test_anything_is_a_map_or_problems(raw: object) -> None:
    table = raw if isinstance(raw, dict) else {"register": raw}
    details, problems = parse(table, lambda key: key)
    assert (details is None) == bool(problems)
    assert all(one.what for one in problems)


# -- the shipped models ------------------------------------------------------------------------------------------------


def test_there_are_thirty_six_and_each_says_where_it_is_from() -> None:
    assert len(MODELS) == 36
    for path in MODELS:
        source = tomllib.loads(path.read_text())["source"]
        assert "Not verified on hardware. Sources:\n- " in source, path.name
        assert "Defaults of ours: register_wrap" in source, path.name


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_shipped_model_holds_together(path: Path) -> None:
    model = load_model(path, PROTOCOLS)
    registers = model.details
    assert isinstance(registers, RegisterMap)
    assert registers.quantities
    curve = model.curve.quantities if model.curve is not None else ()
    assert set(curve) <= set(registers.quantities)
    assert bool(curve) == any(name.startswith("import_kwh") for name in registers.quantities)
    rates = {name for name in registers.quantities if name.startswith("import_kwh_t")}
    assert model.rates == max(1, len(rates))
    assert (model.daily_freeze_depth > 0) == (registers.daily is not None)
    for one in registers.registers:
        if one.quantity:
            assert QUANTITIES[one.quantity].obis == one.obis
        if one.unit.endswith("Wh"):
            assert (one.type in ("f32",) or abs(one.scale) == Decimal("0.1")) <= (model.resolution >= Decimal("0.1"))
    assert sum(len(request.registers) for request in plan(registers, registers.registers)) == len(registers.registers)


# Facts of the sources that are easily read otherwise.
def _one(model: str, name: str) -> tuple[int, int, str, str, Decimal]:
    registers = load_model(SHIPPED_MODELS / f"modbus-{model}.toml").details
    assert isinstance(registers, RegisterMap)
    one = registers.by_name[name]
    return one.address, one.function, one.type, one.word_order, one.scale * one.factor


@pytest.mark.parametrize(
    ("model", "name", "place"),
    [
        ("chint-dtsu666", "import_kwh", (0x101E, 3, "f32", "big", Decimal(1))),
        ("chint-dtsu666-old", "import_kwh", (0x401E, 3, "f32", "big", Decimal(1))),
        ("schneider-iem3155-3255", "import_kwh", (3203, 3, "s64", "big", Decimal("0.001"))),
        ("schneider-iem3155-3255", "import_kwh_t1", (45119, 3, "f32", "big", Decimal("0.001"))),
        ("cg-em24", "import_kwh", (66, 4, "s32", "little", Decimal("0.1"))),
        ("abb-b23-b24", "import_kwh", (0x5000, 3, "u64", "big", Decimal("0.01"))),
        ("eastron-sdm630", "import_kwh", (72, 4, "f32", "big", Decimal(1))),
        ("eastron-sdm630", "power_kw", (52, 4, "f32", "big", Decimal("0.001"))),
        ("siemens-pac3200-4200", "import_kwh_t1", (801, 3, "f64", "big", Decimal("0.001"))),
        ("sunspec-203", "import_kwh", (46, 3, "u32", "big", Decimal("0.001"))),
    ],
)
def test_registers_that_are_easily_mistaken(model: str, name: str, place: tuple[int, int, str, str, Decimal]) -> None:
    assert _one(model, name) == place


def test_marks_of_no_value_are_those_of_the_makers() -> None:
    def marks(model: str, name: str) -> tuple[str, ...]:
        registers = load_model(SHIPPED_MODELS / f"modbus-{model}.toml").details
        assert isinstance(registers, RegisterMap)
        return registers.by_name[name].invalid

    assert marks("abb-b23-b24", "import_kwh") == ("ones",)
    assert marks("abb-b23-b24", "power_kw") == ("max",)
    assert marks("sunspec-201", "w_sf") == marks("sunspec-201", "power_kw") == ("min",)


def test_no_shipped_register_can_be_written() -> None:
    for path in MODELS:
        registers = load_model(path).details
        assert isinstance(registers, RegisterMap)
        assert not any(one.writable for one in registers.registers), path.name


def test_frozen_blocks_are_on_the_secondary_side_and_current_energies_on_the_primary() -> None:
    registers = load_model(SHIPPED_MODELS / "modbus-acrel-adl400.toml").details
    assert isinstance(registers, RegisterMap)
    assert registers.daily is not None
    assert registers.monthly is not None
    assert (registers.daily.address, registers.daily.stride, registers.daily.count) == (0x6000, 0x22, 90)
    assert (registers.monthly.address, registers.monthly.stride, registers.monthly.count) == (0x7000, 0x22, 48)
    assert {one.side for one in registers.daily.registers} == {"secondary"}
    assert registers.daily.ratio == ("vt_ratio", "ct_ratio")
    assert registers.by_name["import_kwh"].side == "primary"

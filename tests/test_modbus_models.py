"""Every Modbus meter model reads its simulated meter's truth in every quantity, through the real driver on a real line.

The simulator has a parser and encoders of its own, so what fails here is a row, a scale, an order or a unit read
otherwise at one of the two ends. What a row says of the meter itself no simulator can prove: see each model's sources.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from config.meter_models import SHIPPED_MODELS, load_model
from headend.access import memory_access
from headend.endpoints import Endpoint, LineSettings
from headend.line import Line
from headend.model import Cause, Harvest, Meter, MeterModel, ReadJob, ReadKind, Source, Window
from headend.protocols.modbus.model import RegisterMap
from headend.protocols.modbus.read import read
from headend.quantities import QUANTITIES
from simulators.clock import SettableClock
from simulators.household import DAY_S
from simulators.modbus_bus import ModbusBus
from simulators.modbus_map import ModbusModel, load, slave
from simulators.modbus_meter import ModbusMeter
from simulators.modbus_sunspec import Chain
from simulators.tcp import TcpLine

FILES = sorted(SHIPPED_MODELS.glob("modbus-*.toml"), key=lambda path: path.name)
SUNSPEC = [path for path in FILES if "sunspec" in path.name]
NOW = datetime(2026, 3, 18, 2, 13, 20, tzinfo=UTC)  # 10:13:20 in Beijing
BEIJING = timezone(timedelta(hours=8))
UNIT = 17
STORE = Fraction(1, 10_000)


def meter_of(model: MeterModel) -> Meter:
    return Meter(1, "M", str(UNIT), model.protocol, "L", model)


def map_of(model: MeterModel) -> RegisterMap:
    assert isinstance(model.details, RegisterMap)
    return model.details


def reads(simulated: ModbusMeter, model: MeterModel, *jobs: ReadJob, now: datetime = NOW) -> list[Harvest]:
    """The jobs one after the other on one line."""

    async def main() -> list[Harvest]:
        bus = ModbusBus(
            [("m", simulated)], SettableClock(now.timestamp()), framing=model.protocol.removeprefix("modbus-")
        )
        line = TcpLine(bus, "127.0.0.1", 0)
        await line.start()
        endpoint = Endpoint("tcp", host="127.0.0.1", port=line.port)
        ours = Line(LineSettings("L", endpoint, reply_s=2.0, gap_s=0.1))
        access = memory_access()
        try:
            return [await ours.run(read(job.meter, job, now=now, access=access)) for job in jobs]
        finally:
            await ours.close()
            await line.stop()

    return asyncio.run(main())


def registers_job(model: MeterModel, names: tuple[str, ...] = ()) -> ReadJob:
    return ReadJob(meter_of(model), ReadKind.REGISTERS, names or map_of(model).quantities)


def simulated_of(
    told: ModbusModel, *, start_kwh: int = 123_456, roof_wh: int = 200, ct: int = 1, pt: int = 1
) -> ModbusMeter:
    clock = SettableClock(NOW.timestamp())
    return slave(told, UNIT, clock, seed=5, start_kwh=start_kwh, roof_wh=roof_wh, ct=ct, pt=pt)


def check(harvest: Harvest, simulated: ModbusMeter, names: tuple[str, ...]) -> None:
    """Every one of `names` is there and is the truth, as exactly as its register can tell it."""
    assert harvest.faults == ()
    found = {reading.quantity: reading.value for reading in harvest.readings}
    assert found.keys() == set(names)
    at_s = int(NOW.timestamp())
    for name, value in found.items():
        point = simulated.point(name)
        true = simulated.true_value(point, at_s)
        assert true is not None
        if point.kind.startswith("u"):
            true = max(true, Fraction())  # what is exported, in a register without a sign
        # A float32 is off by half its last bit, and its shortest decimal by as much again.
        allowed = simulated.tolerance(point, at_s) * (2 if point.kind in ("f32", "f64") else 1) + STORE / 2
        assert abs(Fraction(value) - true) <= allowed, f"{name}: {value} read, {float(true)} true"


def test_the_models_are_there() -> None:
    assert len(FILES) >= 36


@pytest.mark.parametrize("roof_wh", [200, 30_000])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_quantity_is_the_truth(path: Path, roof_wh: int) -> None:
    model, simulated = load_model(path), simulated_of(load(path), roof_wh=roof_wh)
    assert (simulated.truth.value("power_kw", int(NOW.timestamp())) < 0) == (roof_wh > 200)
    names = map_of(model).quantities
    assert set(names) <= QUANTITIES.keys()
    (harvest,) = reads(simulated, model, registers_job(model))
    check(harvest, simulated, names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_curves_quantities_are_in_the_map(path: Path) -> None:
    model = load_model(path)
    assert model.curve is None or set(model.curve.quantities) <= set(map_of(model).quantities)


@pytest.mark.parametrize(
    "name", ["modbus-eastron-sdm630", "modbus-sunspec-203", "modbus-acrel-adl400", "modbus-cg-em24"]
)
def test_the_same_over_modbus_tcp(name: str) -> None:
    path = SHIPPED_MODELS / f"{name}.toml"
    model, simulated = replace(load_model(path), protocol="modbus-tcp"), simulated_of(load(path))
    (harvest,) = reads(simulated, model, registers_job(model))
    check(harvest, simulated, map_of(model).quantities)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_quantity_alone_is_the_same(path: Path) -> None:
    """One register at a time: no value depends on what is read along with it."""
    model, simulated = load_model(path), simulated_of(load(path))
    names = map_of(model).quantities
    together, *single = reads(
        simulated, model, registers_job(model), *(registers_job(model, (name,)) for name in names)
    )
    alone = {one.readings[0].quantity: one.readings[0].value for one in single}
    assert alone == {reading.quantity: reading.value for reading in together.readings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_value_is_no_reading(path: Path) -> None:
    """What the meter marks as not there is told as that; a counter with no mark has none to give."""
    model, simulated = load_model(path), simulated_of(load(path))
    marked = [
        one.name for one in map_of(model).registers if one.quantity and (one.invalid or one.type in ("f32", "f64"))
    ]
    simulated.overrides = dict.fromkeys(marked)
    (harvest,) = reads(simulated, model, registers_job(model))
    assert {fault.quantity: fault.cause for fault in harvest.faults} == dict.fromkeys(marked, Cause.NULL_VALUE)
    assert not {reading.quantity for reading in harvest.readings} & set(marked)


# -- SunSpec -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chain", [Chain(50_000), Chain(0), Chain(between=((11, 13), (120, 26))), Chain(40_000, ((64_900, 300),), 200)]
)
@pytest.mark.parametrize("path", SUNSPEC, ids=lambda path: path.stem)
def test_a_sunspec_model_is_found_wherever_it_lies(path: Path, chain: Chain) -> None:
    model, simulated = load_model(path), simulated_of(load(path, chain=chain))
    first, again = reads(simulated, model, registers_job(model), registers_job(model))
    check(first, simulated, map_of(model).quantities)
    check(again, simulated, map_of(model).quantities)


@pytest.mark.parametrize("powers", [{"Wh": 3, "W": 1, "V": 0}, {"Wh": -1, "VAh": 2, "varh": 1, "A": -3, "%": 0}])
@pytest.mark.parametrize("path", [path for path in SUNSPEC if "211" not in path.name], ids=lambda path: path.stem)
def test_scale_factors_are_read_and_not_assumed(path: Path, powers: dict[str, int]) -> None:
    model, simulated = load_model(path), simulated_of(load(path, factors=powers), start_kwh=1_234)
    (harvest,) = reads(simulated, model, registers_job(model))
    check(harvest, simulated, map_of(model).quantities)


# -- frozen blocks -----------------------------------------------------------------------------------------------

ADL400 = SHIPPED_MODELS / "modbus-acrel-adl400.toml"


def midnight(days: int) -> datetime:
    """The local midnight so many days ago."""
    local = NOW.astimezone(BEIJING).replace(hour=0, minute=0, second=0)
    return (local - timedelta(days=days)).astimezone(UTC)


def frozen_truth(simulated: ModbusMeter, name: str, at: datetime, ratio: int) -> Decimal:
    """The block's number, truncated to 0.01 kWh on the secondary side, on the primary."""
    true = simulated.truth.value(name, int(at.timestamp()))
    return Decimal(int(true * 100) * ratio).scaleb(-2)


@pytest.mark.parametrize(("ct", "pt"), [(1, 1), (40, 10)])
def test_daily_blocks_are_the_truth_at_midnights(ct: int, pt: int) -> None:
    model, simulated = load_model(ADL400), simulated_of(load(ADL400), start_kwh=123, ct=ct, pt=pt)
    names = ("combined_kwh", "combined_kwh_t2", "combined_kwh_t4")
    window = Window(midnight(30), midnight(-1))
    (harvest,) = reads(simulated, model, ReadJob(meter_of(model), ReadKind.DAILY_FREEZE, names, window))
    assert harvest.faults == ()
    found = {(one.quantity, one.at): one.value for one in harvest.readings}
    days = [midnight(day) for day in range(31)]
    assert found == {(name, day): frozen_truth(simulated, name, day, ct * pt) for name in names for day in days}
    assert {one.source for one in harvest.readings} == {Source.DAILY_FREEZE}


def test_days_before_the_meters_memory_and_its_life() -> None:
    model, simulated = load_model(ADL400), simulated_of(load(ADL400), start_kwh=0)
    window = Window(midnight(91), midnight(88))
    (harvest,) = reads(simulated, model, ReadJob(meter_of(model), ReadKind.DAILY_FREEZE, ("combined_kwh",), window))
    assert [one.at for one in harvest.readings] == [midnight(89)]
    assert {(one.cause, one.window) for one in harvest.faults} == {
        (Cause.NOT_IN_MEMORY, Window(midnight(day), midnight(day - 1))) for day in (90, 91)
    }
    young = simulated_of(load(ADL400), start_kwh=0)
    load_of = young.truth.register.household.load
    installed = int(midnight(3).timestamp() + load_of.offset_s) // DAY_S
    young.truth.register = replace(
        young.truth.register, household=type(young.truth.register.household)(replace(load_of, installed_day=installed))
    )
    window = Window(midnight(6), midnight(0))
    (harvest,) = reads(young, model, ReadJob(meter_of(model), ReadKind.DAILY_FREEZE, ("combined_kwh",), window))
    assert [one.at for one in harvest.readings] == [midnight(1), midnight(2), midnight(3)]
    assert {one.cause for one in harvest.faults} == {Cause.NOT_IN_MEMORY}


def test_monthly_blocks_are_the_truth_at_the_first_of_months() -> None:
    model, simulated = load_model(ADL400), simulated_of(load(ADL400), start_kwh=123, ct=30)
    window = Window(datetime(2025, 10, 15, tzinfo=UTC), NOW)
    (harvest,) = reads(simulated, model, ReadJob(meter_of(model), ReadKind.SETTLEMENT, ("combined_kwh",), window))
    firsts = [datetime(2025, 11, 1, tzinfo=BEIJING), datetime(2025, 12, 1, tzinfo=BEIJING)]
    firsts += [datetime(2026, month, 1, tzinfo=BEIJING) for month in (1, 2, 3)]
    found = {one.at: one.value for one in harvest.readings}
    assert found == {first.astimezone(UTC): frozen_truth(simulated, "combined_kwh", first, 30) for first in firsts}


def test_transformer_ratios_are_on_the_primary_registers() -> None:
    model, simulated = load_model(ADL400), simulated_of(load(ADL400), ct=40, pt=10)
    (harvest,) = reads(simulated, model, registers_job(model))
    check(harvest, simulated, map_of(model).quantities)
    found = {reading.quantity: reading.value for reading in harvest.readings}
    assert found["import_kwh"] > 123_456 * 400


def test_a_sample_is_the_curve_point_of_its_boundary() -> None:
    path = SHIPPED_MODELS / "modbus-eastron-sdm630.toml"
    model, simulated = load_model(path), simulated_of(load(path))
    boundary = NOW.replace(minute=0, second=0)
    window = Window(boundary, boundary + timedelta(minutes=15))
    (harvest,) = reads(simulated, model, ReadJob(meter_of(model), ReadKind.SAMPLE, ("import_kwh",), window))
    (reading,) = harvest.readings
    assert (reading.at, reading.taken_at, reading.source, reading.step_s) == (boundary, NOW, Source.CURVE, 900)

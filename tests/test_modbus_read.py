"""Reading a Modbus meter: what is asked, what is filed, what is said when it does not come."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from config.meter_models import SHIPPED_MODELS, load_model
from headend.access import Access, memory_access
from headend.errors import BadFrame, NoAnswer, Refused, Unsupported, UsageError
from headend.model import Cause, CurveSpec, Harvest, Meter, MeterModel, Quality, ReadJob, ReadKind, Source, Window
from headend.protocols import PROTOCOLS
from headend.protocols.modbus import ideal
from headend.protocols.modbus.exchange import Talk
from headend.protocols.modbus.model import ClockRegisters, History, Register, RegisterMap
from headend.protocols.modbus.plan import plan, wanted
from headend.protocols.modbus.read import read
from headend.protocols.modbus.write import write_register
from tests.modbus_slave import Slave, converse, words

NOW = datetime(2026, 3, 10, 8, 0, 7, tzinfo=UTC)
DAY = timedelta(days=1)


def _u32(name: str, address: int, **more: object) -> Register:
    one = Register(name, address, type="u32", words=2, quantity=name, unit="kWh", scale=Decimal("0.01"))
    return replace(one, **more)  # type: ignore[arg-type]


MAP = RegisterMap(
    (
        _u32("import_kwh", 0),
        _u32("export_kwh", 2),
        Register(
            "voltage_v_a", 10, function=4, type="u16", quantity="voltage_v_a", unit="V", scale=Decimal("0.1"),
            invalid=("ones",),
        ),
        Register("relay", 20, function=3, writable=True),
        Register("lid", 5, function=2, type="bool"),
    ),
    gap=4,
)  # fmt: skip
MEMORY = {
    3: words(0, struct.pack(">II", 123_456, 99)) | {20: 1},
    4: words(10, struct.pack(">H", 2302)),
    2: {5: 1},
}


def _meter(registers: RegisterMap, *, protocol: str = "modbus-rtu", curve: CurveSpec | None = None) -> Meter:
    model = MeterModel("test", protocol, Decimal(10_000_000), Decimal(100), 1, curve, details=registers)
    return Meter(1, "B1", "1", protocol, "L", model)


def _job(meter: Meter, *names: str, kind: ReadKind = ReadKind.REGISTERS, window: Window | None = None) -> ReadJob:
    return ReadJob(meter, kind, names, window)


def _ask(slave: Slave, job: ReadJob, *, now: datetime = NOW, access: Access | None = None) -> Harvest:
    conversation = PROTOCOLS[job.meter.protocol].start(job, now=now, access=access or memory_access())
    return converse(conversation, slave.tcp if job.meter.protocol == "modbus-tcp" else slave.rtu)


def _values(harvest: Harvest) -> Mapping[str, Decimal]:
    return {one.quantity: one.value for one in harvest.readings}


@pytest.mark.parametrize("protocol", ["modbus-rtu", "modbus-tcp"])
def test_registers_are_read_in_few_reads_and_filed(protocol: str) -> None:
    slave = Slave(MEMORY)
    harvest = _ask(slave, _job(_meter(MAP, protocol=protocol), "voltage_v_a", "export_kwh", "import_kwh"))
    assert slave.asked == [(3, 0, 4), (4, 10, 1)]
    assert [(r.quantity, r.value, r.source, r.at, r.taken_at, r.quality) for r in harvest.readings] == [
        ("voltage_v_a", Decimal("230.2"), Source.INSTANT, NOW, NOW, Quality.VALID),
        ("export_kwh", Decimal("0.99"), Source.CURRENT, NOW, NOW, Quality.VALID),
        ("import_kwh", Decimal("1234.56"), Source.CURRENT, NOW, NOW, Quality.VALID),
    ]
    assert harvest.faults == ()


def test_what_the_model_does_not_have_is_a_fault_beside_what_came() -> None:
    harvest = _ask(Slave(MEMORY), _job(_meter(MAP), "import_kwh", "power_kw"))
    assert _values(harvest) == {"import_kwh": Decimal("1234.56")}
    (fault,) = harvest.faults
    assert (fault.quantity, fault.cause) == ("power_kw", Cause.UNSUPPORTED)
    assert fault.detail == "the meter model test has no register for it"


def test_a_register_that_is_no_quantity_is_not_stored() -> None:
    harvest = _ask(Slave(MEMORY), _job(_meter(MAP), "lid"))
    assert [(f.quantity, f.cause) for f in harvest.faults] == [("lid", Cause.UNSUPPORTED)]


def test_a_mark_of_no_value_is_a_fault() -> None:
    slave = Slave({4: {10: 0xFFFF}})
    (fault,) = _ask(slave, _job(_meter(MAP), "voltage_v_a")).faults
    assert fault.cause is Cause.NULL_VALUE


def test_a_refused_block_is_asked_for_in_parts_and_remembered() -> None:
    """The gap between two registers can't be read: without it from then on."""
    registers = replace(MAP, registers=(_u32("import_kwh", 0), _u32("export_kwh", 4)))
    slave = Slave({3: words(0, struct.pack(">I", 5)) | words(4, struct.pack(">I", 7))})
    access = memory_access()
    job = _job(_meter(registers), "import_kwh", "export_kwh")
    assert _values(_ask(slave, job, access=access)) == {"import_kwh": Decimal("0.05"), "export_kwh": Decimal("0.07")}
    assert slave.asked == [(3, 0, 6), (3, 0, 2), (3, 4, 2)]
    slave.asked.clear()
    _ask(slave, job, access=access)
    assert slave.asked == [(3, 0, 2), (3, 4, 2)]


def test_a_meter_that_takes_no_long_reads_is_asked_register_by_register() -> None:
    slave = Slave(MEMORY, most=2)
    harvest = _ask(slave, _job(_meter(MAP), "import_kwh", "export_kwh"))
    assert _values(harvest) == {"import_kwh": Decimal("1234.56"), "export_kwh": Decimal("0.99")}
    assert slave.asked == [(3, 0, 4), (3, 0, 2), (3, 2, 2)]


def test_one_register_that_is_not_there_does_not_hide_the_others() -> None:
    slave = Slave({3: words(0, struct.pack(">I", 5))})
    harvest = _ask(slave, _job(_meter(MAP), "import_kwh", "export_kwh"))
    assert _values(harvest) == {"import_kwh": Decimal("0.05")}
    (fault,) = harvest.faults
    assert (fault.quantity, fault.cause) == ("export_kwh", Cause.REFUSED)
    assert "illegal data address (exception 02)" in fault.detail


def test_a_meter_that_refuses_everything_refuses_the_job() -> None:
    with pytest.raises(Refused, match="illegal data address") as caught:
        _ask(Slave({}), _job(_meter(MAP), "import_kwh"))
    assert caught.value.code == 2


def test_silence_raises_and_silence_later_is_a_fault() -> None:
    job = _job(_meter(MAP), "import_kwh", "voltage_v_a")
    with pytest.raises(NoAnswer):
        converse(read(job.meter, job, now=NOW), lambda _frame: b"")
    slave = Slave(MEMORY)
    harvest = converse(read(job.meter, job, now=NOW), lambda frame: slave.rtu(frame) if frame[1] == 3 else b"")
    assert _values(harvest) == {"import_kwh": Decimal("1234.56")}
    assert [(f.quantity, f.cause) for f in harvest.faults] == [("voltage_v_a", Cause.NO_ANSWER)]


def test_a_meter_with_a_model_of_another_protocol_is_told_so() -> None:
    meter = _meter(MAP)
    bare = replace(meter, model=replace(meter.model, details=None))
    with pytest.raises(UsageError, match="has no \\[modbus\\] registers"):
        _ask(Slave(MEMORY), _job(bare, "import_kwh"))


def test_a_meters_own_details_win() -> None:
    moved = replace(MAP, base=100)
    slave = Slave({3: words(100, struct.pack(">II", 1, 2))})
    meter = replace(_meter(MAP), details=moved)
    assert _values(_ask(slave, _job(meter, "import_kwh"))) == {"import_kwh": Decimal("0.01")}


@pytest.mark.parametrize("kind", [ReadKind.CURVE, ReadKind.TIMED_FREEZE, ReadKind.CLOCK, ReadKind.DAILY_FREEZE,
                                  ReadKind.SETTLEMENT])  # fmt: skip
def test_what_modbus_meters_do_not_keep_is_unsupported(kind: ReadKind) -> None:
    with pytest.raises(Unsupported):
        _ask(Slave(MEMORY), _job(_meter(MAP), "import_kwh", kind=kind, window=Window(NOW - DAY, NOW)))


def test_nobody_can_be_discovered() -> None:
    with pytest.raises(Unsupported, match="can't be asked for its unit id"):
        next(PROTOCOLS["modbus-rtu"].discover())


# -- samples -----------------------------------------------------------------------------------------------------------

BOUNDARY = datetime(2026, 3, 10, 8, 0, tzinfo=UTC)
SAMPLE = Window(BOUNDARY, BOUNDARY + timedelta(minutes=15))
SAMPLED = _meter(MAP, curve=CurveSpec("sample", 900, 1))


def test_a_sample_is_the_curves_point_at_its_boundary() -> None:
    job = _job(SAMPLED, "import_kwh", kind=ReadKind.SAMPLE, window=SAMPLE)
    (point,) = _ask(Slave(MEMORY), job).readings
    assert (point.value, point.at, point.taken_at) == (Decimal("1234.56"), BOUNDARY, NOW)
    assert (point.source, point.step_s) == (Source.CURVE, 900)


@pytest.mark.parametrize("now", [BOUNDARY - timedelta(seconds=1), SAMPLE.end])
def test_a_boundary_that_is_not_now_can_not_be_sampled(now: datetime) -> None:
    slave = Slave(MEMORY)
    harvest = _ask(slave, _job(SAMPLED, "import_kwh", kind=ReadKind.SAMPLE, window=SAMPLE), now=now)
    assert harvest.readings == ()
    assert [(f.cause, f.window) for f in harvest.faults] == [(Cause.NOT_IN_MEMORY, SAMPLE)]
    assert slave.asked == []


def test_a_fault_of_a_sample_names_its_slot() -> None:
    slave = Slave({3: words(0, struct.pack(">I", 5))})
    job = _job(SAMPLED, "import_kwh", "export_kwh", kind=ReadKind.SAMPLE, window=SAMPLE)
    (fault,) = _ask(slave, job).faults
    assert (fault.quantity, fault.cause, fault.window) == ("export_kwh", Cause.REFUSED, SAMPLE)


# -- SunSpec -----------------------------------------------------------------------------------------------------------

SUN = RegisterMap(
    (
        Register("power_kw", 18, type="s16", quantity="power_kw", unit="W", factor=Decimal("0.001"),
                 scale_register="w_sf", invalid=("min",)),
        Register("w_sf", 22, type="s16", invalid=("min",)),
        Register("import_kwh", 46, type="u32", words=2, quantity="import_kwh", unit="Wh", factor=Decimal("0.001"),
                 scale_register="totwh_sf"),
        Register("totwh_sf", 54, type="s16", invalid=("min",)),
    ),
    sunspec=(203,),
)  # fmt: skip


def _sunspec(start: int, *, model: int = 203, power_sf: int = 1, power: int = -1234) -> Slave:
    """A device: model 1 (66 registers), then a meter, then the end."""
    memory = (
        words(start, b"SunS")
        | words(start + 2, struct.pack(">HH", 1, 66))
        | dict.fromkeys(range(start + 4, start + 70), 0)
    )
    at = start + 70
    memory |= {at + n: 0 for n in range(107)} | words(at, struct.pack(">HH", model, 105))
    memory |= words(at + 18, struct.pack(">h", power)) | words(at + 22, struct.pack(">h", power_sf))
    memory |= words(at + 46, struct.pack(">I", 1_234_567)) | words(at + 54, struct.pack(">h", 0))
    memory |= words(at + 107, struct.pack(">HH", 0xFFFF, 0))
    return Slave({3: memory})


@pytest.mark.parametrize("start", [40000, 50000, 0])
def test_a_sunspec_model_is_found_and_its_scale_factors_are_read(start: int) -> None:
    slave = _sunspec(start)
    harvest = _ask(slave, _job(_meter(SUN), "power_kw", "import_kwh"))
    assert _values(harvest) == {"power_kw": Decimal("-12.34"), "import_kwh": Decimal("1234.567")}


def test_where_a_sunspec_model_starts_is_remembered_and_looked_at_again() -> None:
    access, slave = memory_access(), _sunspec(0)
    job = _job(_meter(SUN), "power_kw")
    _ask(slave, job, access=access)
    slave.asked.clear()
    _ask(slave, job, access=access)
    assert slave.asked == [(3, 70, 2), (3, 88, 1), (3, 92, 1)]
    moved = _sunspec(50000)
    assert _values(_ask(moved, job, access=access)) == {"power_kw": Decimal("-12.34")}


def test_a_scale_factor_that_is_not_there_leaves_no_value() -> None:
    (fault,) = _ask(_sunspec(0, power_sf=-32768), _job(_meter(SUN), "power_kw")).faults
    assert fault.cause is Cause.NULL_VALUE
    (fault,) = _ask(_sunspec(0, power=-32768), _job(_meter(SUN), "power_kw")).faults
    assert fault.cause is Cause.NULL_VALUE


def test_another_sunspec_model_or_none_is_named() -> None:
    with pytest.raises(Unsupported, match="the device has SunSpec models 1, 201, not 203"):
        _ask(_sunspec(0, model=201), _job(_meter(SUN), "power_kw"))
    with pytest.raises(Unsupported, match="no SunSpec marker at 40000, 50000, 0"):
        _ask(Slave(MEMORY), _job(_meter(SUN), "power_kw"))


def test_a_chain_without_an_end_ends() -> None:
    memory = words(0, b"SunS") | dict.fromkeys(range(2, 4000), 0) | words(2, struct.pack(">HH", 1, 0))
    with pytest.raises(BadFrame, match="has no end"):
        _ask(Slave({3: memory}), _job(_meter(SUN), "power_kw"))


# -- frozen blocks and the clock ---------------------------------------------------------------------------------------

KEPT = History(
    0x6000, 0x22, 5, (_u32("combined_kwh", 2, side="secondary"), _u32("combined_kwh_t1", 4)), ratio=("pt", "ct")
)
FROZEN = RegisterMap(
    (Register("pt", 141), Register("ct", 142)),
    daily=KEPT,
    monthly=replace(KEPT, address=0x7000),
    clock=ClockRegisters(0x3C),
)
MIDNIGHT = datetime(2026, 3, 9, 16, 0, tzinfo=UTC)  # of 10 March in Beijing


def _block(at: datetime | None, total: int, rate: int) -> bytes:
    if at is None:
        return b"\xff" * 68
    local = at + timedelta(hours=8)
    stamp = bytes((local.year - 2000, local.month, local.day, local.hour))
    return (stamp + struct.pack(">II", total, rate)).ljust(68, b"\0")


def _blocks(*blocks: tuple[datetime | None, int, int], start: int = 0x6000, ct: int = 40) -> Slave:
    memory = {141: 1, 142: ct}
    for number in range(5):
        block = blocks[number] if number < len(blocks) else (None, 0, 0)
        memory |= words(start + number * 0x22, _block(*block))
    return Slave({3: memory})


def _days(first: datetime, last: datetime) -> Window:
    return Window(first, last + timedelta(seconds=1))


def test_daily_blocks_are_filed_at_their_midnight_on_the_primary_side() -> None:
    slave = _blocks(*((MIDNIGHT - n * DAY, 1000 - n, 10) for n in range(3)))
    job = _job(_meter(FROZEN), "combined_kwh", kind=ReadKind.DAILY_FREEZE, window=_days(MIDNIGHT - DAY, MIDNIGHT))
    harvest = _ask(slave, job)
    assert [(r.at, r.value, r.source) for r in harvest.readings] == [
        (MIDNIGHT, Decimal("400.00"), Source.DAILY_FREEZE),
        (MIDNIGHT - DAY, Decimal("399.60"), Source.DAILY_FREEZE),
    ]
    assert harvest.faults == ()
    assert [asked for asked in slave.asked if asked[1] in (141, 142)] == [(3, 141, 1), (3, 142, 1)]


def test_days_the_meter_was_off_leave_no_block_and_shift_the_others() -> None:
    slave = _blocks((MIDNIGHT, 1000, 1), (MIDNIGHT - 4 * DAY, 900, 1), (MIDNIGHT - 5 * DAY, 800, 1), ct=1)
    window = _days(MIDNIGHT - 5 * DAY, MIDNIGHT)
    harvest = _ask(slave, _job(_meter(FROZEN), "combined_kwh", kind=ReadKind.DAILY_FREEZE, window=window))
    assert {r.at: r.value for r in harvest.readings} == {
        MIDNIGHT: Decimal(10),
        MIDNIGHT - 4 * DAY: Decimal(9),
        MIDNIGHT - 5 * DAY: Decimal(8),
    }
    lost = [MIDNIGHT - n * DAY for n in (1, 2, 3)]
    assert [(f.cause, f.window) for f in harvest.faults] == [(Cause.NOT_IN_MEMORY, Window(at, at + DAY)) for at in lost]


def test_a_block_of_another_hour_is_no_midnight() -> None:
    slave = _blocks((MIDNIGHT + timedelta(hours=1), 1000, 1), ct=1)
    job = _job(_meter(FROZEN), "combined_kwh", kind=ReadKind.DAILY_FREEZE, window=_days(MIDNIGHT, MIDNIGHT))
    harvest = _ask(slave, job)
    assert harvest.readings == ()
    assert [f.cause for f in harvest.faults] == [Cause.NOT_IN_MEMORY]


def test_a_midnight_that_comes_in_between_renumbers_the_blocks() -> None:
    """A block is frozen after the newest was read: what seems not to be there is looked for again."""
    before = _blocks(*((MIDNIGHT - n * DAY, 1000 - n, 1) for n in range(1, 4)), ct=1)
    after = _blocks(*((MIDNIGHT - n * DAY, 1000 - n, 1) for n in range(4)), ct=1)
    seen = 0

    def reply(frame: bytes) -> bytes:
        nonlocal seen
        seen += frame[2:4] == b"\x60\x00"
        return (before if seen == 1 else after).rtu(frame)

    job = _job(_meter(FROZEN), "combined_kwh", kind=ReadKind.DAILY_FREEZE, window=_days(MIDNIGHT, MIDNIGHT))
    harvest = converse(read(job.meter, job, now=NOW), reply)
    assert [(r.at, r.value) for r in harvest.readings] == [(MIDNIGHT, Decimal(10))]


def test_monthly_blocks_in_the_window_are_settlements() -> None:
    times = [datetime(2026, month, 1, tzinfo=UTC) - timedelta(hours=8) for month in (3, 2, 1)]
    slave = _blocks(*((at, 100 * n, n) for n, at in enumerate(times, start=1)), start=0x7000, ct=1)
    window = Window(times[1], NOW)
    names = ("combined_kwh_t1", "import_kwh")
    harvest = _ask(slave, _job(_meter(FROZEN), *names, kind=ReadKind.SETTLEMENT, window=window))
    assert [(r.quantity, r.at, r.value, r.source) for r in harvest.readings] == [
        ("combined_kwh_t1", times[0], Decimal("0.01"), Source.SETTLEMENT),
        ("combined_kwh_t1", times[1], Decimal("0.02"), Source.SETTLEMENT),
    ]
    assert [(f.quantity, f.cause) for f in harvest.faults] == [("import_kwh", Cause.UNSUPPORTED)]


def test_a_ratio_of_zero_keeps_frozen_values_from_being_believed() -> None:
    slave = _blocks((MIDNIGHT, 1000, 1), ct=0)
    job = _job(_meter(FROZEN), "combined_kwh", kind=ReadKind.DAILY_FREEZE, window=_days(MIDNIGHT, MIDNIGHT))
    with pytest.raises(BadFrame, match="ct is 0"):
        _ask(slave, job)


@pytest.mark.parametrize(
    ("raw", "offset"), [("1A030A100007", 0), ("1A030A100000", -7), ("1A030A10012C", 97), ("FFFFFFFFFFFF", None)]
)
def test_the_clock_is_told_as_its_offset(raw: str, offset: int | None) -> None:
    slave = Slave({3: words(0x3C, bytes.fromhex(raw))})
    harvest = _ask(slave, _job(_meter(FROZEN), "clock_offset_s", kind=ReadKind.CLOCK))
    if offset is None:
        assert [f.cause for f in harvest.faults] == [Cause.NULL_VALUE]
    else:
        assert _values(harvest) == {"clock_offset_s": offset}


def test_a_clock_that_shows_no_time_is_a_fault() -> None:
    slave = Slave({3: words(0x3C, bytes.fromhex("1A0D0A100007"))})
    (fault,) = _ask(slave, _job(_meter(FROZEN), "clock_offset_s", kind=ReadKind.CLOCK)).faults
    assert fault.cause is Cause.BAD_FRAME


# -- writing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("single", [False, True])
def test_a_writable_register_is_set_and_read_back(single: bool) -> None:
    slave = Slave({3: {20: 1}})
    sent: list[int] = []

    def reply(frame: bytes) -> bytes:
        sent.append(frame[1])
        return slave.rtu(frame)

    converse(write_register(Talk(1), replace(MAP, single_write=single), "relay", Decimal(2)), reply)
    assert slave.memory[3][20] == 2
    assert sent == [6 if single else 16, 3]


def test_registers_are_not_written_unless_the_model_says_so() -> None:
    for name in ("import_kwh", "nothing"):
        with pytest.raises(UsageError, match="is not to be written"):
            converse(write_register(Talk(1), MAP, name, Decimal(0)), Slave(MEMORY).rtu)


def test_a_write_without_an_answer_is_not_sent_again() -> None:
    sent: list[bytes] = []

    def reply(frame: bytes) -> bytes:
        sent.append(frame)
        return b""

    with pytest.raises(NoAnswer):
        converse(write_register(Talk(1), MAP, "relay", Decimal(2)), reply)
    assert len(sent) == 1


def test_a_write_that_does_not_hold_is_told() -> None:
    slave = Slave({3: {20: 7}})

    def reply(frame: bytes) -> bytes:
        answer = slave.rtu(frame)
        slave.memory[3][20] = 7
        return answer

    with pytest.raises(BadFrame, match="relay is 7 after it was set to 2"):
        converse(write_register(Talk(1), MAP, "relay", Decimal(2)), reply)


# -- beforehand --------------------------------------------------------------------------------------------------------


def _of_the_yardstick(job: ReadJob) -> tuple[Harvest, int]:
    asked = 0

    def reply(frame: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return ideal.answer(job.meter, frame, NOW)

    return converse(PROTOCOLS[job.meter.protocol].start(job, now=NOW, access=memory_access()), reply), asked


@pytest.mark.parametrize("protocol", ["modbus-rtu", "modbus-tcp"])
@pytest.mark.parametrize("path", sorted(SHIPPED_MODELS.glob("modbus-*.toml")), ids=lambda path: path.stem)
def test_every_shipped_model_can_be_rehearsed(path: Path, protocol: str) -> None:
    """The forecast's meter answers all a job asks: no fault, and as many exchanges as the plan has reads."""
    model = load_model(path)
    assert isinstance(model.details, RegisterMap)
    meter = Meter(1, "B1", "1", protocol, "L", model)
    names = model.details.quantities
    harvest, asked = _of_the_yardstick(_job(meter, *names))
    assert {one.quantity for one in harvest.readings} == set(names)
    assert harvest.faults == ()
    found, _ = wanted(model.details, names)
    assert asked == len(plan(model.details, found)) + (2 if model.details.sunspec else 0)


def test_frozen_blocks_and_the_clock_can_be_rehearsed() -> None:
    meter = _meter(FROZEN)
    window = _days(MIDNIGHT - 3 * DAY, MIDNIGHT)
    harvest, asked = _of_the_yardstick(_job(meter, "combined_kwh", kind=ReadKind.DAILY_FREEZE, window=window))
    assert (len(harvest.readings), harvest.faults, asked) == (4, (), 6)
    harvest, _ = _of_the_yardstick(_job(meter, "clock_offset_s", kind=ReadKind.CLOCK))
    assert _values(harvest) == {"clock_offset_s": 0}
    year = Window(NOW - 100 * DAY, NOW)
    harvest, _ = _of_the_yardstick(_job(meter, "combined_kwh", kind=ReadKind.SETTLEMENT, window=year))
    assert len(harvest.readings) == 4

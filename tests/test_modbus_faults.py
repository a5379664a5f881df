"""What goes wrong on Modbus lines, with the real driver on a real line: never a wrong value."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from config.meter_models import SHIPPED_MODELS, load_model
from headend.access import NO_ACCESS, Access
from headend.endpoints import Endpoint, LineSettings
from headend.errors import BadFrame, HeadendError, LineDown, NoAnswer, Refused, WrongMeter
from headend.line import Line
from headend.model import Harvest, Meter, ReadJob, ReadKind
from headend.protocols import PROTOCOLS
from headend.protocols.modbus.model import RegisterMap
from simulators.bus import Bus, Shared, Wire
from simulators.clock import SettableClock
from simulators.dlms_station import DlmsLine
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.faults import FaultRule, Faults
from simulators.household import Household, Load, Register
from simulators.mixed import MixedBus
from simulators.modbus_bus import Gateway, ModbusBus
from simulators.modbus_faults import EXCEPTIONS, MODBUS_FAULTS
from simulators.modbus_map import load, slave
from simulators.modbus_meter import ModbusMeter
from simulators.pty_line import PtyLine
from simulators.tcp import TcpLine
from tests.dlms_kit import READER, bench
from tests.dlt645_wire import meter as dlt645_meter

MODEL_FILE = SHIPPED_MODELS / "modbus-eastron-sdm630.toml"
NOW = datetime(2026, 3, 18, 2, 13, 20, tzinfo=UTC)
CLOCK = SettableClock(NOW.timestamp())
REPLY_S = 0.08
LATE_S = 0.15
Got = dict[str, Decimal] | type[HeadendError]

VOLTAGE, EXPORT = "voltage_v_a", "export_kwh"  # two registers each, far from each other: a read each
NAMES = (VOLTAGE, EXPORT)


def units(*numbers: int) -> list[tuple[str, ModbusMeter]]:
    told = load(MODEL_FILE)
    return [(f"m{unit}", slave(told, unit, CLOCK, seed=unit)) for unit in numbers]


def meter_of(unit: int, protocol: str) -> Meter:
    model = replace(load_model(MODEL_FILE), protocol=protocol)
    assert isinstance(model.details, RegisterMap)
    model = replace(model, details=replace(model.details, late_s=LATE_S, busy_s=0.02))
    return Meter(unit, f"m{unit}", str(unit), protocol, "L", model)


def job_of(unit: int, protocol: str, names: tuple[str, ...] = NAMES) -> ReadJob:
    return ReadJob(meter_of(unit, protocol), ReadKind.REGISTERS, names)


def got(harvest: Harvest) -> dict[str, Decimal]:
    return {reading.quantity: reading.value for reading in harvest.readings}


def truth(unit: int, names: tuple[str, ...] = NAMES) -> dict[str, Decimal]:
    """What a line on which nothing goes wrong gives."""
    (values,) = run(ModbusBus(units(unit), CLOCK), [job_of(unit, "modbus-rtu", names)])
    assert isinstance(values, dict)
    return values


def run(
    bus: Shared, jobs: Sequence[ReadJob], *, pty: bool = False, reply_s: float = REPLY_S, access: Access = NO_ACCESS
) -> list[Got]:
    """The jobs one after the other on one line: values, or the class of what was raised."""

    async def main() -> list[Got]:
        line = PtyLine(bus) if pty else TcpLine(bus, "127.0.0.1", 0)
        await line.start()
        if isinstance(line, PtyLine):
            endpoint = Endpoint("serial", device=line.path, baud=9600, parity="N")
        else:
            endpoint = Endpoint("tcp", host="127.0.0.1", port=line.port)
        ours = Line(LineSettings("L", endpoint, reply_s=reply_s, gap_s=0.03, reopen_after=1))
        found: list[Got] = []
        try:
            for job in jobs:
                conversation = PROTOCOLS[job.meter.protocol].start(job, now=NOW, access=access)
                try:
                    found.append(got(await ours.run(conversation)))
                except HeadendError as error:
                    found.append(type(error))
        finally:
            await ours.close()
            await line.stop()
        return found

    return asyncio.run(main())


@pytest.fixture(scope="module")
def truths() -> dict[int, dict[str, Decimal]]:
    return {unit: truth(unit) for unit in (1, 2)}


def test_the_two_meters_are_told_apart(truths: dict[int, dict[str, Decimal]]) -> None:
    assert truths[1].keys() == truths[2].keys() == set(NAMES)
    assert truths[1][EXPORT] != truths[2][EXPORT] != truths[1][VOLTAGE]


# -- one fault ---------------------------------------------------------------------------------------------------

LASTING: dict[str, object] = {
    **dict.fromkeys(("illegal_function", "illegal_value", "illegal_address", "failure", "parity", "path"), Refused),
    **dict.fromkeys(("acknowledge", "busy"), Refused),
    **dict.fromkeys(("no_response", "silence", "dead", "late"), NoAnswer),
    **dict.fromkeys(("short", "bad_crc"), BadFrame),
    "wrong_unit": WrongMeter,
}
HARMLESS = ("noise", "noise_after", "echo", "wrong_transaction", "wrong_protocol", "stale")


@pytest.mark.parametrize("kind", [kind for kind in MODBUS_FAULTS if kind not in ("reset", "drop", "halfopen")])
def test_a_fault_that_lasts_gives_no_wrong_value(kind: str, truths: dict[int, dict[str, Decimal]]) -> None:
    faults = Faults([FaultRule(kind, "m1", delay_s=2.0)], seed=3)
    bus = ModbusBus(units(1, 2), CLOCK, faults=faults, seed=3)
    first, other = run(bus, [job_of(1, "modbus-rtu"), job_of(2, "modbus-rtu")])
    assert other == truths[2]
    if isinstance(first, dict):
        assert kind not in LASTING
        assert first.items() <= truths[1].items()
        assert kind not in HARMLESS or first == truths[1]
    elif kind in LASTING:
        assert first is LASTING[kind]
    else:
        assert kind not in HARMLESS


PASSING = ("silence", "late", "busy", "no_response", "stale", "wrong_transaction", "wrong_unit", "wrong_count", "echo")


@pytest.mark.parametrize(
    ("protocol", "kind"),
    [
        *(("modbus-rtu", kind) for kind in (*PASSING, "noise", "noise_after", "short", "bad_crc", "flip", "burst")),
        *(("modbus-tcp", kind) for kind in (*PASSING, "wrong_protocol")),
    ],
)
def test_a_fault_that_passes_costs_no_value(kind: str, protocol: str, truths: dict[int, dict[str, Decimal]]) -> None:
    faults = Faults([FaultRule(meter="m1", script=("ok", kind), delay_s=0.12)])
    bus = ModbusBus(units(1), CLOCK, framing=protocol.removeprefix("modbus-"), faults=faults)
    assert run(bus, [job_of(1, protocol), job_of(1, protocol)]) == [truths[1], truths[1]]


@pytest.mark.parametrize("delay_s", [0.07, 0.09, 0.12, 0.16, 0.2])
def test_a_late_answer_is_never_taken_for_another_register(
    delay_s: float, truths: dict[int, dict[str, Decimal]]
) -> None:
    """Two registers of one unit, two words each: on RTU nothing in an answer tells which one was asked.
    A meter that is later than the line's reply time and the model's late_s together can't be told from a right one."""
    script = ("late", "ok", "late", "late", "late", "ok")
    bus = ModbusBus(units(1), CLOCK, faults=Faults([FaultRule(meter="m1", script=script, delay_s=delay_s)]))
    jobs = [job_of(1, "modbus-rtu", (name,)) for name in (VOLTAGE, EXPORT, VOLTAGE, EXPORT)]
    for values in run(bus, jobs):
        assert not isinstance(values, dict) or values.items() <= truths[1].items()


@pytest.mark.parametrize("seed", range(6))
def test_damage_never_makes_a_wrong_value(seed: int, truths: dict[int, dict[str, Decimal]]) -> None:
    kinds = ("flip", "burst", "short", "noise", "bad_crc", "echo", "wrong_count", "wrong_bytes", "silence")
    rules = [FaultRule(kind, "m1", 0.12) for kind in kinds]
    bus = ModbusBus(units(1), CLOCK, faults=Faults(rules, seed), seed=seed)
    found = run(bus, [job_of(1, "modbus-rtu") for _ in range(2)], reply_s=0.05)
    for values in found:
        assert not isinstance(values, dict) or values.items() <= truths[1].items()


def test_an_old_answer_before_a_damaged_one_is_not_taken(truths: dict[int, dict[str, Decimal]]) -> None:
    """The old one is whole, of the same unit, function and count, and of another register."""
    script = ("ok", "stale", "ok", "stale")
    rules = [FaultRule(meter="m1", script=tuple("bad_crc" if one == "stale" else one for one in script))]
    rules.append(FaultRule(meter="m1", script=script))
    bus = ModbusBus(units(1), CLOCK, faults=Faults(rules))
    assert run(bus, [job_of(1, "modbus-rtu"), job_of(1, "modbus-rtu")]) == [truths[1], truths[1]]


def test_a_reset_counter_is_told_as_it_stands(truths: dict[int, dict[str, Decimal]]) -> None:
    bus = ModbusBus(units(1), CLOCK, faults=Faults([FaultRule(meter="m1", script=("ok", "ok", "reset"))]))
    before, after = run(bus, [job_of(1, "modbus-rtu"), job_of(1, "modbus-rtu")])
    assert before == truths[1]
    assert isinstance(after, dict)
    assert (after[VOLTAGE], after[EXPORT]) == (truths[1][VOLTAGE], Decimal(0))


@pytest.mark.parametrize("kind", ["drop", "halfopen"])
def test_a_connection_that_ends_is_opened_again(kind: str, truths: dict[int, dict[str, Decimal]]) -> None:
    bus = ModbusBus(
        units(1, 2), CLOCK, framing="tcp", faults=Faults([FaultRule(meter="m1", script=("ok", "ok", kind))])
    )
    found = run(bus, [job_of(unit, "modbus-tcp") for unit in (1, 1, 2)])
    assert found == [truths[1], LineDown if kind == "drop" else NoAnswer, truths[2]]


# -- gateways ----------------------------------------------------------------------------------------------------


def test_units_behind_one_connection(truths: dict[int, dict[str, Decimal]]) -> None:
    bus = ModbusBus(units(1, 2), CLOCK, framing="tcp", gateway=Gateway(outstanding=1, absent="no_response"))
    jobs = [job_of(unit, "modbus-tcp") for unit in (1, 9, 2, 1)]
    assert run(bus, jobs) == [truths[1], NoAnswer, truths[2], truths[1]]


def test_a_gateway_that_is_busy_now_and_then(truths: dict[int, dict[str, Decimal]]) -> None:
    faults = Faults([FaultRule(script=("busy", "ok", "busy", "acknowledge", "ok"))])
    bus = ModbusBus(units(1), CLOCK, framing="tcp", faults=faults)
    assert run(bus, [job_of(1, "modbus-tcp")]) == [truths[1]]


def test_a_dead_unit_does_not_hold_up_the_others(truths: dict[int, dict[str, Decimal]]) -> None:
    faults = Faults([FaultRule("dead", "m1")])
    bus = ModbusBus(units(1, 2), CLOCK, framing="tcp", faults=faults)
    assert run(bus, [job_of(unit, "modbus-tcp") for unit in (1, 2, 1, 2)]) == [NoAnswer, truths[2], NoAnswer, truths[2]]


# -- lines -------------------------------------------------------------------------------------------------------


def test_rtu_on_a_terminal_at_the_speed_of_the_wire(truths: dict[int, dict[str, Decimal]]) -> None:
    bus = ModbusBus(units(1, 2), CLOCK, wire=Wire(9600, 0.01, "N"))
    jobs = [job_of(unit, "modbus-rtu") for unit in (1, 2)]
    assert run(bus, jobs, pty=True, reply_s=0.5) == [truths[1], truths[2]]


def test_meters_of_three_protocols_on_one_pair_of_wires(truths: dict[int, dict[str, Decimal]]) -> None:
    """Each hears what is asked of the others, and answers to none of it."""
    settings = replace(READER, interface="hdlc")
    dlms = bench(settings, now=NOW)
    address = "240101000001"
    register = Register(Household(Load(seed=9)), 4_560_000)
    dlt645 = Dlt645Meter(MeterSpec(address), register, CLOCK)
    mixed = MixedBus([Bus([("d1", dlt645)], CLOCK), ModbusBus(units(1, 2), CLOCK), DlmsLine(dlms.sim)])
    dlt645_job = ReadJob(dlt645_meter(address=address), ReadKind.REGISTERS, ("import_kwh",))
    dlms_job = ReadJob(dlms.meter, ReadKind.REGISTERS, ("import_kwh",))
    three = [job_of(1, "modbus-rtu"), dlt645_job, dlms_job, job_of(2, "modbus-rtu")]
    found = run(mixed, three * 2, pty=True, reply_s=0.5, access=dlms.access)
    assert (
        found[:4]
        == found[4:]
        == [
            truths[1],
            {"import_kwh": Decimal(register.shown(int(CLOCK()))).scaleb(-2)},
            {"import_kwh": dlms.kwh(NOW), "clock_offset_s": Decimal(0)},
            truths[2],
        ]
    )


def test_every_exception_has_a_fault_here() -> None:
    assert set(EXCEPTIONS) <= LASTING.keys()

"""One pair of wires, three protocols: DL/T 645, DLMS over HDLC and Modbus RTU meters, an hour of schedule, all true."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from config.meter_models import SHIPPED_MODELS, load_model
from headend import collect
from headend.access import memory_access
from headend.endpoints import Endpoint, LineSettings
from headend.ingest import EvidencePolicy, write
from headend.line import Line
from headend.model import Meter, Outcome, Quality, ReadKind, SlotState, Window
from headend.scheduler.board import Board
from headend.scheduler.settings import Schedule
from headend.store import Store, curve_reads, ledger, readings
from headend.store.registry import MeterRow, meters, put_meters
from simulators.bus import Bus
from simulators.clock import SettableClock
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_spec import DlmsClient, DlmsSpec
from simulators.dlms_station import DlmsLine
from simulators.dlms_town import dlms_meter
from simulators.dlt645_meter import Dlt645Meter
from simulators.dlt645_spec import MeterSpec
from simulators.household import Household, Load, Register
from simulators.mixed import MixedBus
from simulators.modbus_bus import ModbusBus
from simulators.modbus_map import load, slave
from simulators.modbus_meter import ModbusMeter
from simulators.pty_line import PtyLine

START = datetime(2026, 3, 18, 0, 7, tzinfo=UTC)
HOUR = timedelta(hours=1)
STEP = timedelta(minutes=15)
SCHEDULES = (
    Schedule("curves", ReadKind.CURVE, ("import_kwh",), horizon_days=1),
    Schedule("now", ReadKind.REGISTERS, ("import_kwh", "voltage_v_a"), every_s=600),
)
TruthAt = Callable[[datetime], Fraction]
"""kWh at an instant, with what a meter's resolution leaves of it."""


class Street:
    """Two meters of each of the first two protocols and three Modbus slaves of two makes, on one pseudo-terminal."""

    def __init__(self, clock: SettableClock) -> None:
        self.truths: dict[str, tuple[TruthAt, Fraction]] = {}
        self.rows: list[MeterRow] = []
        old = [self._dlt645(n, clock) for n in (1, 2)]
        dlms = [self._dlms(n, clock) for n in (17, 18)]
        units = [
            self._modbus(name, unit, clock)
            for name, unit in (("eastron-sdm630", 31), ("eastron-sdm630", 32), ("acrel-adl400", 33))
        ]
        self.bus = MixedBus([Bus(old, clock), DlmsLine(dlms), ModbusBus(units, clock)])

    def _row(self, meter_id: str, address: str, model: str) -> None:
        found = load_model(SHIPPED_MODELS / f"{model}.toml")
        step_s = found.curve.step_s if found.curve else 0
        self.rows.append(
            MeterRow(meter_id, found.protocol, address, "street", model, "+08:00", found.register_wrap, step_s)
        )

    def _dlt645(self, n: int, clock: SettableClock) -> tuple[str, Dlt645Meter]:
        name, address = f"D{n}", f"2401010{n:05d}"
        register = Register(Household(Load(seed=n)), 12_345_678)
        self._row(name, address, "dlt645-2007-1ph")
        self.truths[name] = (lambda at: Fraction(register.shown(int(at.timestamp())), 100), Fraction(0))
        return name, Dlt645Meter(MeterSpec(address), register, clock)

    def _dlms(self, n: int, clock: SettableClock) -> DlmsMeter:
        meter = dlms_meter(clock, DlmsSpec(serial=f"{n:08d}", physical=n, clients=(DlmsClient(16),)))
        self._row(f"C{n}", f"1/{n}", "dlms-generic-hdlc")
        self.truths[f"C{n}"] = (lambda at: Fraction(meter.imported(int(at.timestamp())), 1000), Fraction(0))
        return meter

    def _modbus(self, model: str, unit: int, clock: SettableClock) -> tuple[str, ModbusMeter]:
        meter = slave(load(SHIPPED_MODELS / f"modbus-{model}.toml"), unit, clock, seed=unit)
        point = meter.point("import_kwh")

        def truth(at: datetime) -> Fraction:
            value = meter.true_value(point, int(at.timestamp()))
            assert value is not None
            return value

        tolerance = meter.tolerance(point, int(START.timestamp())) * 2 + Fraction(1, 10_000)
        self._row(f"B{unit}", str(unit), f"modbus-{model}")
        self.truths[f"B{unit}"] = (truth, tolerance)
        return f"B{unit}", meter


def registered(store: Store, rows: list[MeterRow]) -> list[Meter]:
    with store.write() as conn:
        put_meters(conn, rows)
        found = meters(conn)
    made = []
    for row in found:
        model = load_model(SHIPPED_MODELS / f"{row.model}.toml")
        details = model.details
        made.append(Meter(row.key, row.id, row.address, row.protocol, row.line, model, row.clock_zone, "", details))
    return made


async def work(store: Store, board: Board, line: Line, now: datetime) -> list[Outcome]:
    """Everything that is due at `now`, as the worker does it."""
    done = []
    with store.write() as conn:
        for expected in board.tick(now):
            track = expected.track
            instants = [
                datetime.fromtimestamp(day * 86_400 + track.phase_s + slot * track.step_s, UTC)
                for day, mask in expected.slots.items()
                for slot in range(track.slots_per_day)
                if mask >> slot & 1
            ]
            names = [(track.meter.key, name, track.source, track.step_s, tuple(instants)) for name in track.quantities]
            ledger.open_slots(conn, [ledger.SlotSet(*one) for one in names])
    while (job := board.next("street", now)) is not None:
        outcome = await collect.run(
            line, job, clock=lambda: now, anchors=board.anchors(job), confirm=board.noisy("street"), access=ACCESS
        )
        with store.write() as conn:
            write(conn, [outcome], EvidencePolicy())
        board.done(outcome, now, damaged=collect.damaged(outcome.frames))
        done.append(outcome)
    return done


ACCESS = memory_access()


def test_three_protocols_on_one_pair_of_wires_for_an_hour(sqlite_store: Store) -> None:
    clock = SettableClock(START.timestamp())
    street = Street(clock)
    found = registered(sqlite_store, street.rows)
    board = Board(found, SCHEDULES)

    async def main() -> list[Outcome]:
        pty = PtyLine(street.bus)
        await pty.start()
        endpoint = Endpoint("serial", device=pty.path, baud=9600, parity="N")
        line = Line(LineSettings("street", endpoint, reply_s=1.0, gap_s=0.2), clock=lambda: START)
        outcomes = []
        try:
            for minute in range(61):
                now = START + timedelta(minutes=minute)
                clock.set(now.timestamp())
                outcomes += await work(sqlite_store, board, line, now)
        finally:
            await line.close()
            await pty.stop()
        return outcomes

    outcomes = asyncio.run(main())
    assert {(o.job.meter.id, o.status.value, o.detail) for o in outcomes if o.status.value != "ok"} == set()
    kinds = Counter((o.job.meter.protocol, o.job.kind) for o in outcomes)
    assert kinds["modbus-rtu", ReadKind.SAMPLE] == 3 * 4
    assert all(kinds[protocol, ReadKind.REGISTERS] >= 2 * 6 for protocol in ("dlt645-2007", "dlms", "modbus-rtu"))
    assert all(kinds[protocol, ReadKind.CURVE] >= 2 * 4 for protocol in ("dlt645-2007", "dlms"))
    for meter in found:
        check_curve(sqlite_store, meter, *street.truths[meter.id])


def check_curve(store: Store, meter: Meter, truth: TruthAt, tolerance: Fraction) -> None:
    """Every boundary of the hour is there and true."""
    first = datetime(2026, 3, 18, 0, 15, tzinfo=UTC)
    with store.read() as conn:
        points = curve_reads.curve(conn, meter.key, "import_kwh", Window(first, first + HOUR))
        newest = [r for r in readings.last_values(conn) if r.meter_key == meter.key and r.quantity == "import_kwh"]
    assert [point.at for point in points] == [first + n * STEP for n in range(4)]
    for point in points:
        assert (point.state, point.quality) == (SlotState.GOT, Quality.VALID), meter.id
        assert point.units is not None
        assert abs(Fraction(point.units, 10_000) - truth(point.at)) <= tolerance, f"{meter.id} at {point.at}"
    assert newest
    assert newest[0].at >= first + 3 * STEP

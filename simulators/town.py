"""A town that runs: lines with meters on them, and the truth about every register and bill."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulators import truth
from simulators.bus import Bus, Wire
from simulators.clock import Now
from simulators.dial import DialLine
from simulators.dlms_meter import DlmsMeter
from simulators.dlms_station import DlmsLine
from simulators.dlt645_1997 import Dlt645Meter1997
from simulators.dlt645_meter import Dlt645Meter
from simulators.errors import SimulatorError
from simulators.faults import Faults
from simulators.household import Household, Register
from simulators.line_file import LinePlan
from simulators.meter_file import MeterPlan
from simulators.mixed import MixedBus
from simulators.mqtt_meters import ConMeter
from simulators.mqtt_town import ConcentratorLine
from simulators.pty_line import PtyLine
from simulators.tcp import TcpLine
from simulators.tenancy import books
from simulators.town_file import TownPlan, read_town
from simulators.truth_accounts import TrueAccounts
from simulators.truth_bills import TrueLine

__all__ = ["Town", "load_town", "run"]

Line = TcpLine | PtyLine | DialLine | ConcentratorLine


def load_town(path: Path, *, now: Now = time.time, links: Path | None = None) -> Town:
    """The town described in the file at `path`; nothing is opened yet.

    now: the town's clock. links: folder for relative pty links, the current one by default. SimulatorError tells every
    problem of the file.
    """
    return Town(read_town(path), now=now, links=links or Path())


class Town:
    """`meters` and `buses` by name; `lines` once started. `opened_s`: when the town was made (epoch seconds): truth
    files end there, and the last month closed by then is the one billed. `accounts` by name; `stands`: which meter
    stands where since when; `truth`: what their bills rest on."""

    def __init__(self, plan: TownPlan, *, now: Now = time.time, links: Path | None = None) -> None:
        self.plan = plan
        self.now = now
        self.opened_s = int(now())
        installed = datetime(plan.installed.year, plan.installed.month, plan.installed.day, tzinfo=plan.zone)
        self.installed_s = int(installed.timestamp())
        self._check_opened()
        self._links = links or Path()
        closed = self.closed_month()
        meters, self.accounts, self.stands = books(
            plan.meters, self.installed_s, self.month_span(*closed)[0], plan.offset_s
        )
        self.plan = plan = replace(plan, meters=meters)
        self.plans = {meter.meter_id: meter for meter in plan.meters}
        self.registers = {m.meter_id: Register(Household(m.load), m.start_units) for m in plan.meters}
        self.truth = TrueAccounts(
            self.accounts,
            self.registers,
            plan.tariffs,
            self.month_span,
            closed,
            plan.offset_s,
            self.installed_s,
        )
        self.meters = {m.meter_id: self._meter(m) for m in plan.meters}
        for event in plan.events:
            meter = self.meters[event.meter_id]
            if isinstance(meter, Dlt645Meter):
                meter.happen(event.kind, event.start_s, event.end_s)
        self.buses = {line.name: self._bus(line) for line in plan.lines}
        self.lines: dict[str, Line] = {}

    def _check_opened(self) -> None:
        year, month = self.closed_month()
        if self.month_span(year, month)[0] < self.installed_s:
            raise SimulatorError(
                [
                    f"[town] installed: {self.plan.installed} is later than the start of the last closed month, "
                    f"{year}-{month:02d} -> install the meters earlier"
                ]
            )

    def _meter(self, plan: MeterPlan) -> Dlt645Meter | Dlt645Meter1997 | DlmsMeter | ConMeter:
        if plan.dlms is not None:
            return DlmsMeter(plan.dlms.spec, self.registers[plan.meter_id], self.now)
        if plan.spec.form == "mqtt":
            return ConMeter(plan.spec.address, self.registers[plan.meter_id])
        kind = Dlt645Meter1997 if plan.spec.form == "1997" else Dlt645Meter
        return kind(plan.spec, self.registers[plan.meter_id], self.now)

    def _bus(self, line: LinePlan) -> Bus | MixedBus:
        """The line's meters; those of DLMS hang on the same wires beside the others."""
        faults = Faults(line.faults, f"{self.plan.seed}:{line.name}")
        wire = Wire(line.baud, line.answer_delay_s, line.parity)
        others: list[tuple[str, Dlt645Meter | Dlt645Meter1997]] = []
        dlms: dict[str, list[DlmsMeter]] = {}
        for plan in self.plan.meters:
            meter = self.meters[plan.meter_id]
            if plan.line == line.name and isinstance(meter, DlmsMeter) and plan.dlms is not None:
                dlms.setdefault(plan.dlms.interface, []).append(meter)
            elif plan.line == line.name and not isinstance(meter, DlmsMeter | ConMeter):
                others.append((plan.meter_id, meter))
        bus = Bus(others, self.now, wire=wire, faults=faults)
        if not dlms:
            return bus
        lines = [DlmsLine(meters, interface=name, wire=wire, faults=faults) for name, meters in dlms.items()]
        return MixedBus([*([bus] if others else []), *lines])

    def _line(self, line: LinePlan) -> Line:
        bus = self.buses[line.name]
        if line.kind == "tcp":
            return TcpLine(bus, line.host, line.port, line.max_clients)
        if line.kind == "mqtt":
            hanging = [self.meters[plan.meter_id] for plan in self.plan.meters if plan.line == line.name]
            behind = [meter for meter in hanging if isinstance(meter, ConMeter)]
            since = {"offset_s": self.plan.offset_s, "from_s": self.installed_s}
            return ConcentratorLine(line.name, behind, line.host, line.port, self.now, **since)
        if line.kind == "pty":
            return PtyLine(bus, self._links / line.link if line.link else None)
        return DialLine(
            bus,
            line.host,
            line.port,
            registration=line.registration,
            heartbeat=line.heartbeat,
            heartbeat_s=line.heartbeat_s,
            reconnect_s=line.reconnect_s,
        )

    # -- running -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open every line. SimulatorError with every line that can't be; then none stays open."""
        problems = []
        for register in self.registers.values():
            register.shown_rates(self.opened_s)  # the long sums now, not under the first request
        for plan in self.plan.lines:
            line = self._line(plan)
            try:
                await line.start()
            except OSError as error:
                where = plan.link or f"{plan.host}:{plan.port}"
                problems.append(
                    f"[[line]] {plan.name}: {where}: {error.strerror or error} -> free it or choose another"
                )
            self.lines[plan.name] = line
        if problems:
            await self.stop()
            raise SimulatorError(problems)

    async def stop(self) -> None:
        """Close every line."""
        for line in self.lines.values():
            await line.stop()
        self.lines = {}

    def endpoints(self) -> list[dict[str, Any]]:
        """Where each line is: name, kind, endpoint, meters; a pty's device path, a dial line's registration."""
        found: list[dict[str, Any]] = []
        for plan in self.plan.lines:
            line = self.lines[plan.name]
            entry: dict[str, Any] = {"line": plan.name, "kind": plan.kind, "endpoint": line.endpoint()}
            entry["meters"] = sum(meter.line == plan.name for meter in self.plan.meters)
            if isinstance(line, PtyLine):
                entry["path"] = line.path
            if isinstance(line, DialLine):
                entry["registration"] = plan.registration.decode("utf-8", "backslashreplace")
            found.append(entry)
        return found

    # -- the truth -----------------------------------------------------------------------------------------------

    def closed_month(self) -> tuple[int, int]:
        """Year and month, in the town's zone, of the last month that was over when the town was made."""
        today = datetime.fromtimestamp(self.opened_s, self.plan.zone)
        return (today.year - 1, 12) if today.month == 1 else (today.year, today.month - 1)

    def month_span(self, year: int, month: int) -> tuple[int, int]:
        """Start and end of a month in the town's zone, epoch seconds."""
        start = datetime(year, month, 1, tzinfo=self.plan.zone)
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=self.plan.zone)
        return int(start.timestamp()), int(end.timestamp())

    def true_register(self, meter_id: str, at: datetime) -> int:
        """What the meter truly showed at the aware instant `at`, in 0.01 kWh."""
        return self.registers[meter_id].shown(int(at.timestamp()))

    def true_bill(self, account: str, year: int, month: int) -> list[TrueLine]:
        """The lines of an account's true bill for a month of the town's zone; [] if it was not in force in it."""
        return self.truth.bill(account, year, month)

    def write_truth(self, folder: Path) -> None:
        """The asset lists, registers.jsonl and bills.json into `folder`."""
        truth.write(self, folder)


async def run(path: Path, truth: Path, announce: Callable[[dict[str, Any]], None], *, signals: bool = True) -> None:
    """Run the town at `path` until it is cancelled, or by SIGINT or SIGTERM if `signals`.

    The truth is written to the folder `truth`, pty links that are relative lie there too; `announce` is called once,
    with every endpoint, when all lines are open.
    """
    town = load_town(path, links=truth)
    town.write_truth(truth)
    await town.start()
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    caught = (signal.SIGINT, signal.SIGTERM) if signals else ()
    for number in caught:
        loop.add_signal_handler(number, over.set)
    try:
        year, month = town.closed_month()
        announce(
            {
                "town": town.plan.name,
                "started_at": datetime.fromtimestamp(town.opened_s, UTC).isoformat(),
                "meters": len(town.meters),
                "month": f"{year}-{month:02d}",
                "truth": str(truth),
                "lines": town.endpoints(),
            }
        )
        await over.wait()
    finally:
        for number in caught:
            with contextlib.suppress(ValueError):
                loop.remove_signal_handler(number)
        await town.stop()

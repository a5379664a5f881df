"""Collecting as the daemon does it (line, protocol, confirmation, plausibility, memory) against simulated buses on real
sockets and terminals, for every fault the simulator can make: the right value or a named failure, never a wrong value,
and the line is there for the next meter.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from headend import collect
from headend.endpoints import Endpoint, LineSettings
from headend.line import Line
from headend.model import Cause, Meter, Outcome, Quality, ReadJob, ReadKind, Source, Status, Window
from headend.scheduler.board import Board
from headend.scheduler.health import Health
from simulators.bus import Bus
from simulators.clock import SettableClock
from simulators.dlt645_frame import build, take
from simulators.dlt645_meter import Dlt645Meter, MeterSpec
from simulators.faults import FAULTS, FaultRule, Faults
from simulators.household import Household, Load, Register
from simulators.pty_line import PtyLine
from simulators.tcp import TcpLine
from tests.helpers import make_meter

START = datetime(2026, 3, 10, 4, 7, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 9, 16, 0, tzinfo=UTC)
STEP = timedelta(minutes=15)
REPLY_S, LATE_S = 0.2, 0.35
TRANSPORTS = ("tcp", "pty")
# What the master and the meter see of it is an answer that is not there, or a connection that is not.
UNANSWERED = {"silence", "dead", "drop", "halfopen", "hangup", "late"}
NAMED = {Status.NO_ANSWER, Status.BAD_FRAME, Status.WRONG_METER, Status.LINE_DOWN, Status.PARTIAL}


@dataclass
class Site:
    """One line with two meters, ours on this side and the simulator's on the other."""

    line: Line
    bus: Bus
    meters: tuple[Meter, Meter]
    registers: tuple[Register, Register]
    clock: SettableClock
    board: Board
    health: Health
    struck: Counter[str] = field(default_factory=Counter)  # by faults that were replaced since

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.clock(), UTC)

    def script(self, *rules: FaultRule, seed: int = 1) -> None:
        """From now on these faults."""
        self.struck += self.bus.faults.struck
        self.bus.faults = Faults(rules, seed)

    def job(self, which: int, kind: ReadKind, *names: str) -> ReadJob:
        window = None
        if kind is ReadKind.CURVE:
            window = Window(START.replace(minute=0) - 8 * STEP, START.replace(minute=0))
        if kind is ReadKind.DAILY_FREEZE:
            window = Window(MIDNIGHT, MIDNIGHT + timedelta(days=1))
        return ReadJob(self.meters[which], kind, names or ("import_kwh", "import_kwh_t2")[: 1 + (not window)], window)

    async def collect(self, job: ReadJob) -> Outcome:
        """As the daemon: with what it remembers and how it judges the line. Every believed value is held against the
        truth."""
        outcome = await collect.run(
            self.line, job, clock=self.now, anchors=self.board.anchors(job), confirm=self.health.noisy
        )
        damaged = collect.damaged(outcome.frames)
        self.health.took(job.meter.key, outcome.status, outcome.duration_s, damaged, self.now())
        self.board.done(outcome, self.now(), damaged=damaged)
        register = self.registers[self.meters.index(job.meter)]
        for reading in outcome.readings:
            at = self.now() if reading.source is Source.CURRENT else reading.at
            at_s = int(at.timestamp())
            shown = register.shown_rates(at_s)[1] if reading.quantity.endswith("_t2") else register.shown(at_s)
            if reading.quality is Quality.VALID and reading.quantity.startswith("import_kwh"):
                assert reading.value == Decimal(shown).scaleb(-2), f"wrong and believed: {reading}"
        if outcome.status is not Status.OK:
            assert outcome.status in NAMED, outcome.status
            assert outcome.detail
            assert all(fault.cause is not Cause.NONE and fault.detail for fault in outcome.faults)
        return outcome

    async def good(self, which: int, kind: ReadKind = ReadKind.REGISTERS) -> None:
        """A read that has to succeed."""
        job = self.job(which, kind)
        outcome = await self.collect(job)
        assert outcome.status is Status.OK, outcome.detail
        assert len(outcome.readings) == (8 if kind is ReadKind.CURVE else len(job.quantities))


def simulated() -> tuple[Bus, tuple[Register, Register], SettableClock, tuple[Meter, Meter]]:
    clock = SettableClock(START.timestamp())
    registers = tuple(Register(Household(Load(seed=n)), 123_456_789) for n in (1, 2))
    addresses = ("260101000001", "260101000002")
    meters = [
        (f"m{n}", Dlt645Meter(MeterSpec(address), register, clock))
        for n, (address, register) in enumerate(zip(addresses, registers, strict=True), start=1)
    ]
    ours = [make_meter(key=n, address=address, id=f"m{n}") for n, address in enumerate(addresses, start=1)]
    return Bus(meters, clock), (registers[0], registers[1]), clock, (ours[0], ours[1])


@asynccontextmanager
async def site(transport: str, folder: Path, **settings: Any) -> AsyncIterator[Site]:
    bus, registers, clock, meters = simulated()
    far = TcpLine(bus, "127.0.0.1", 0) if transport == "tcp" else PtyLine(bus, folder / "port")
    await far.start()
    if isinstance(far, TcpLine):
        endpoint = Endpoint("tcp", host="127.0.0.1", port=far.port)
    else:
        endpoint = Endpoint("serial", device=str(folder / "port"), baud=9600, parity="N")  # a pty has no parity
    settings = {"reply_s": REPLY_S, "gap_s": 0.05, "quiet_s": 0.03} | settings
    line = Line(LineSettings("L", endpoint, **settings))
    try:
        yield Site(line, bus, meters, registers, clock, Board(list(meters), []), Health())
    finally:
        await line.close()
        await far.stop()
        await asyncio.sleep(0.01)  # let the far side see the end of its connections


def each(fault: str, **over: Any) -> FaultRule:
    """A rule of one fault that strikes the first meter."""
    return FaultRule(fault, meter="m1", delay_s=LATE_S, **over)


Scenario = Callable[[Site, str], Awaitable[None]]


def under_each(faults: Iterable[str], scenario: Scenario, transport: str, folder: Path, **settings: Any) -> None:
    """Run `scenario` once for each fault, every time on a line of its own, all at once: they mostly wait."""

    async def one(fault: str) -> None:
        place = folder / fault
        place.mkdir()
        async with site(transport, place, **settings) as here:
            await scenario(here, fault)
            assert (here.struck + here.bus.faults.struck)[fault] > 0

    async def main() -> dict[str, BaseException]:
        names = sorted(faults)
        results = await asyncio.gather(*map(one, names), return_exceptions=True)
        return {name: result for name, result in zip(names, results, strict=True) if result is not None}

    failures = asyncio.run(main())
    for error in failures.values():
        traceback.print_exception(error)
    assert failures == {}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("kind", [ReadKind.REGISTERS, ReadKind.CURVE, ReadKind.DAILY_FREEZE])
def test_one_exchange_is_struck(kind: ReadKind, transport: str, tmp_path: Path) -> None:
    async def scenario(here: Site, fault: str) -> None:
        for which in (0, 1):
            await here.good(which)
        for seed in range(3):
            here.script(FaultRule(meter="m1", script=(fault,), delay_s=LATE_S), seed=seed)
            outcome = await here.collect(here.job(0, kind))
            # A second try is enough, except where the connection went or the line counts as noisy: then a value may
            # stay open because no second read agreed.
            if fault not in UNANSWERED and outcome.status is not Status.OK:
                assert outcome.status in (Status.PARTIAL, Status.BAD_FRAME), outcome.detail
            await here.good(1)
            await here.good(0, kind)

    under_each(FAULTS, scenario, transport, tmp_path, reopen_after=1)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_meter_that_is_always_struck_does_not_take_its_neighbour_along(transport: str, tmp_path: Path) -> None:
    async def scenario(here: Site, fault: str) -> None:
        loop = asyncio.get_running_loop()
        for which in (0, 1):
            await here.good(which)
        here.script(each(fault), seed=7)
        for _ in range(2):
            outcome = await here.collect(here.job(0, ReadKind.REGISTERS))
            if fault in UNANSWERED - {"late"}:
                assert outcome.status in (Status.NO_ANSWER, Status.LINE_DOWN, Status.BAD_FRAME)
            started = loop.time()
            await here.good(1)
            assert loop.time() - started < 5 * REPLY_S

    under_each(FAULTS, scenario, transport, tmp_path, reopen_after=1)


@pytest.mark.slow
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nothing_wrong_is_believed_however_a_line_is_struck(transport: str, tmp_path: Path) -> None:
    async def scenario(here: Site, fault: str) -> None:
        for which in (0, 1):
            await here.good(which)
        for seed in range(5):
            here.script(FaultRule(fault, probability=0.4, delay_s=LATE_S), seed=seed)
            for kind in (ReadKind.REGISTERS, ReadKind.CURVE, ReadKind.DAILY_FREEZE):
                for which in (0, 1):
                    await here.collect(here.job(which, kind))

    under_each(set(FAULTS) - {"babble"}, scenario, transport, tmp_path, reopen_after=1)


def undetected(kind: str, asked: bytes, answer: bytes, most: int) -> list[int]:
    """Seeds with which this fault turns `answer` into a good frame of the same meter and question with other digits."""
    good = take(bytearray(answer))
    assert good is not None
    seeds = []
    for seed in range(60_000):
        faults = Faults([FaultRule(script=(kind,))], seed)
        bad = take(bytearray(faults.spoil(faults.strike("m1", 0), asked, answer, b"").data))
        if bad is None or bad.data == good.data:
            continue
        if (bad.address, bad.control, bad.data[:4], len(bad.data)) == (good.address, good.control, good.data[:4], 8):
            seeds += [seed] * bad.data.hex().isdecimal()
        if len(seeds) == most:
            break
    return seeds


@pytest.mark.parametrize("kind", ["flip2", "burst", "duplicate"])
def test_what_the_checksum_lets_through_is_not_believed_on_a_line_that_damages(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with site("tcp", tmp_path) as here:
            job = here.job(0, ReadKind.REGISTERS, "import_kwh")
            await here.good(0)
            while not here.health.noisy:
                here.script(FaultRule(script=("lost",)))
                await here.collect(job)
            meter = here.bus.meters[0][1]
            answer = meter.answer(meter.address, 0x11, bytes.fromhex("00000100"))
            assert answer is not None
            seeds = undetected(kind, build(meter.address, 0x11, bytes.fromhex("00000100")), answer, 6)
            assert seeds
            for seed in seeds:
                here.board = Board(list(here.meters), [])  # nothing to compare with: any value may be true
                here.script(FaultRule(script=(kind,)), seed=seed)
                outcome = await here.collect(job)
                assert here.bus.faults.struck[kind] == 1
                assert len(outcome.frames) >= 4  # asked again, though nothing looked damaged
                assert outcome.status is Status.OK
                here.health.took(job.meter.key, Status.BAD_FRAME, 0.1, True, here.now())

    asyncio.run(main())


# What a job ends in when its meter is struck in every exchange.
ENDS = {
    "silence": Status.NO_ANSWER,
    "dead": Status.NO_ANSWER,
    "foreign": Status.WRONG_METER,
    "cut": Status.BAD_FRAME,
    "burst": Status.BAD_FRAME,
    "lost": Status.BAD_FRAME,
    "flip": Status.BAD_FRAME,
    "echo": Status.OK,
    "noise": Status.OK,
    "stale": Status.OK,
}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_failure_has_the_right_name(transport: str, tmp_path: Path) -> None:
    async def scenario(here: Site, fault: str) -> None:
        here.script(each(fault), seed=3)
        outcome = await here.collect(here.job(0, ReadKind.REGISTERS, "import_kwh"))
        assert outcome.status is ENDS[fault], outcome.detail

    under_each(ENDS, scenario, transport, tmp_path)


@pytest.mark.parametrize("fault", ["drop", "hangup"])
def test_a_dropped_connection_is_named_and_opened_again(fault: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with site("tcp", tmp_path) as here:
            await here.good(1)
            here.script(each(fault))
            outcome = await here.collect(here.job(0, ReadKind.CURVE))
            assert outcome.status is Status.LINE_DOWN
            assert "lost" in outcome.detail
            await here.good(1)
            assert here.line.stats.opened >= 2

    asyncio.run(main())


@pytest.mark.parametrize("reopen_after", [1, 3])
def test_a_half_open_connection_is_given_up_after_as_many_silences_as_set(reopen_after: int, tmp_path: Path) -> None:
    async def main() -> None:
        async with site("tcp", tmp_path, reopen_after=reopen_after) as here:
            await here.good(1)
            here.script(FaultRule(script=("halfopen",)))
            for _ in range(reopen_after):
                outcome = await here.collect(here.job(1, ReadKind.REGISTERS))
                assert outcome.status is Status.NO_ANSWER
            await here.good(1)
            assert here.line.stats.opened == 2

    asyncio.run(main())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_answer_that_comes_too_late_never_answers_the_next_question(transport: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with site(transport, tmp_path) as here:
            await here.good(0)
            here.script(FaultRule(meter="m1", script=("late",) * 4, delay_s=LATE_S))
            await here.collect(here.job(0, ReadKind.REGISTERS, "voltage_v_a"))
            here.clock.advance(900)
            await here.good(0)
            await here.good(1)
            await here.good(0, ReadKind.CURVE)

    asyncio.run(main())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_stale_answer_of_another_question_or_meter_is_thrown_away(transport: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with site(transport, tmp_path) as here:
            here.script(FaultRule("stale"))
            for kind in (ReadKind.CURVE, ReadKind.REGISTERS, ReadKind.DAILY_FREEZE) * 2:
                for which in (1, 0):
                    await here.good(which, kind)
                here.clock.advance(60)

    asyncio.run(main())


def test_a_stale_answer_to_the_same_question_is_as_old_as_the_meter_said_it(tmp_path: Path) -> None:
    """Registers carry no time: an earlier answer to the same question is believed, as one of the present."""

    async def main() -> None:
        async with site("tcp", tmp_path) as here:
            job = here.job(0, ReadKind.REGISTERS, "import_kwh")
            shown = []
            here.script(FaultRule(script=("ok", "stale", "ok")))
            for _ in range(3):
                shown.append(here.registers[0].shown(int(here.clock())))
                outcome = await collect.run(here.line, job, clock=here.now)
                (reading,) = outcome.readings
                assert int(reading.value * 100) in shown
                here.clock.advance(3600)
            assert int(reading.value * 100) == shown[2]

    asyncio.run(main())


# -- a port that is pulled out -----------------------------------------------------------------------------------


def test_a_port_that_was_pulled_out_and_put_back_is_read_again(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        bus, registers, clock, meters = simulated()
        port = tmp_path / "port"
        far = PtyLine(bus, port)
        await far.start()
        endpoint = Endpoint("serial", device=str(port), baud=9600, parity="N")
        line = Line(LineSettings("L", endpoint, reply_s=REPLY_S, gap_s=0.05, quiet_s=0.03))
        here = Site(line, bus, meters, registers, clock, Board(list(meters), []), Health())
        await here.good(0)
        for _ in range(2):
            before = far.path
            await far.stop()
            outcome = await here.collect(here.job(0, ReadKind.REGISTERS))
            assert outcome.status is Status.LINE_DOWN
            assert "port" in outcome.detail
            held = PtyLine(bus)  # so that the next terminal has another name
            await held.start()
            far = PtyLine(bus, port)
            await far.start()
            await held.stop()
            assert port.is_symlink()
            until = loop.time() + 5
            while (outcome := await here.collect(here.job(0, ReadKind.REGISTERS))).status is Status.LINE_DOWN:
                assert loop.time() < until, (before, far.path, outcome.detail)
                await asyncio.sleep(0.05)
            assert outcome.status is Status.OK
            await here.good(1, ReadKind.CURVE)
        await line.close()
        await far.stop()

    asyncio.run(main())


def test_a_port_pulled_out_amid_a_conversation_ends_it_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        bus, registers, clock, meters = simulated()
        far = PtyLine(bus, tmp_path / "port")
        await far.start()
        endpoint = Endpoint("serial", device=str(tmp_path / "port"), baud=9600, parity="N")
        line = Line(LineSettings("L", endpoint, reply_s=20.0))
        here = Site(line, bus, meters, registers, clock, Board(list(meters), []), Health())
        await here.good(0)
        here.script(each("silence"))
        asked = asyncio.Event()
        line.tap(lambda _meter, frame: asked.set() if frame.direction == ">" else None)
        job = asyncio.create_task(here.collect(here.job(0, ReadKind.REGISTERS)))
        await asked.wait()
        started = loop.time()
        await far.stop()
        assert (await job).status is Status.LINE_DOWN
        assert loop.time() - started < 2
        await line.close()

    asyncio.run(main())
